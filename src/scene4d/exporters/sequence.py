"""A scene that moves as numbered PLY files: what editors and engines play as a flip-book."""

from __future__ import annotations

from pathlib import Path

from scene4d.errors import UsageError
from scene4d.exporters.options import SequenceOptions
from scene4d.files import atomic_folder
from scene4d.formats.placing import FrameChoice
from scene4d.formats.registry import write_splats
from scene4d.training.opened import OpenedScene

MOST_FILES = 10_000


def export(
    source: OpenedScene,
    path: Path,
    options: SequenceOptions | None = None,
    *,
    frame: FrameChoice = "auto",
) -> str:
    """Writes the folder ``path`` with frame_00000.ply, frame_00001.ply, ...; returns a line that
    describes them. Raises :class:`UsageError` where nothing moves, or for too many files."""
    path, fps = Path(path), (options or SequenceOptions()).sequence_fps
    times = source.representation.times
    if times is None:
        raise UsageError(
            "nothing in it moves", where=source.path, fix="scene4d export RUN ply writes it"
        )
    if path.exists() and (not path.is_dir() or any(_foreign(path))):
        raise UsageError(
            "holds other things than a sequence", where=path, fix="name a new or an empty folder"
        )
    count = 1 + int((times[1] - times[0]) * fps + 1e-6)
    if count > MOST_FILES:
        raise UsageError(
            f"{count:,} files are more than {MOST_FILES:,}", fix="lower --sequence-fps"
        )
    with atomic_folder(path) as folder:
        for number in range(count):
            still = source.at_time(min(times[0] + number / fps, times[1]))
            cloud = still.cloud()
            write_splats(folder / f"frame_{number:05d}.ply", cloud, name="ply", frame=frame)
        megabytes = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    return (
        f"{count} PLY files of {len(cloud):,} splats, {fps:g} a second from {times[0]:g} to"
        f" {times[1]:g} s, {megabytes:.1f} MB; between them nothing moves"
    )


def _foreign(folder: Path) -> list[Path]:
    """What is there that an earlier export did not write."""
    return [f for f in folder.iterdir() if not (f.name.startswith("frame_")
            and f.name.endswith((".ply", ".frame.json")))]  # fmt: skip
