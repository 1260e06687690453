"""From photos or a video to a posed capture: what ``scene4d process-data`` runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from scene4d.data.process.diagnosis import Diagnosis, LeftOut, Reason, diagnose
from scene4d.data.process.files import FolderFiles, find_pictures, why_unreadable
from scene4d.data.process.inputs import check_photos, check_video, refuse_without_pictures
from scene4d.data.process.names import printable_name
from scene4d.data.process.pictures import Picture, place_picture
from scene4d.data.process.progress import Say, counted
from scene4d.data.process.sfm import SfmOptions, SfmResult, import_pycolmap, run_sfm
from scene4d.data.process.video import (
    VideoOptions,
    VideoTrack,
    analyse_video,
    extract_frames,
    select_frames,
)
from scene4d.data.process.write import (
    check_target,
    staged_folder,
    transforms_of,
    write_failure,
    write_points,
)
from scene4d.errors import DataError, UsageError
from scene4d.files import check_writable


def process_images(
    source: Path,
    output: Path,
    *,
    sfm: SfmOptions | None = None,
    overwrite: bool = False,
    say: Say = lambda line: None,
) -> Diagnosis:
    """Finds the poses of the photos in ``source`` and writes a capture to ``output``.

    ``source`` is not touched. ``output`` receives images/, transforms.json, sparse_pc.ply and
    diagnosis.json, all or nothing. ``say`` is told one line per stage. Raises
    :class:`DataError` with the diagnosis when no pose could be found.
    """
    import_pycolmap()
    check_photos(source)
    _check_apart(source, output)
    check_target(output, overwrite=overwrite)
    check_writable(output, folder=True)
    found = find_pictures(source, skip=output)
    refuse_without_pictures(found, source)
    with _told_where_it_failed(output), staged_folder(output, overwrite=overwrite) as staging:
        pictures, excluded = _place_all(found.pictures, source, staging / "images", say)
        excluded += [
            LeftOut(name=printable_name(name), reason=reason, detail=detail)
            for reason, files in _kinds(found)
            for name, detail in files.items()
        ]
        return _reconstruct(pictures, excluded, staging, source, sfm or SfmOptions(), False, say)


def _kinds(found: FolderFiles) -> list[tuple[Reason, dict[str, str]]]:
    return [("unreadable", found.unreadable), ("not a picture", found.others)]


def process_video(
    source: Path,
    output: Path,
    *,
    video: VideoOptions | None = None,
    sfm: SfmOptions | None = None,
    overwrite: bool = False,
    say: Say = lambda line: None,
) -> Diagnosis:
    """Picks frames of the video file ``source``, finds their poses and writes a capture.

    As :func:`process_images`, and each frame carries its ``time`` in seconds.
    """
    import_pycolmap()
    check_video(source)
    video = video or VideoOptions()
    _check_apart(source, output)
    check_target(output, overwrite=overwrite)
    check_writable(output, folder=True)
    track: VideoTrack = analyse_video(source, say)
    chosen = select_frames(track, video.num_frames_target)
    with _told_where_it_failed(output), staged_folder(output, overwrite=overwrite) as staging:
        pictures = extract_frames(source, chosen, track, staging / "images", say)
        return _reconstruct(pictures, [], staging, source, sfm or SfmOptions(), True, say)


def _check_apart(source: Path, output: Path) -> None:
    """Refuses an output that is, or lies around, the input: originals are never replaced."""
    if source.resolve().is_relative_to(output.resolve()):
        raise UsageError(
            "the output folder contains the input",
            where=output,
            fix="choose an --output-dir beside the capture",
        )


class _NoPoses(Exception):
    """Carries the diagnosis of a run that failed out of the folder that then disappears."""

    def __init__(self, diagnosis: Diagnosis, source: Path) -> None:
        super().__init__()
        self.diagnosis, self.source = diagnosis, source


@contextmanager
def _told_where_it_failed(output: Path) -> Iterator[None]:
    """Turns a run without poses into one error, its reason first, and a file with the details."""
    try:
        yield
    except _NoPoses as failure:
        diagnosis = failure.diagnosis
        written = write_failure(output, diagnosis.as_json())
        raise DataError(
            f"no camera poses could be found: {diagnosis.reason}\n{diagnosis.text()}",
            where=failure.source,
            fix=f"details are in {written}; docs/process-data.md tells how to capture",
        ) from None


def _place_all(
    files: Sequence[Path], source: Path, images: Path, say: Say
) -> tuple[list[Picture], list[LeftOut]]:
    """Brings over what can be read; copies of a picture that is already there are left out."""
    pictures: list[Picture] = []
    excluded: list[LeftOut] = []
    by_digest: dict[str, str] = {}
    taken: set[str] = set()
    for file in counted(files, say, "reading pictures"):
        original = printable_name(file.relative_to(source).as_posix())
        try:
            picture = place_picture(file, images, original, taken)
        except DataError as error:
            detail = why_unreadable(file, error)
            excluded.append(LeftOut(name=original, reason="unreadable", detail=detail))
            continue
        if picture.digest in by_digest:
            (images / picture.name).unlink()
            detail = f"the same picture as {by_digest[picture.digest]}"
            excluded.append(LeftOut(name=original, reason="duplicate", detail=detail))
            continue
        taken.add(picture.name)
        by_digest[picture.digest] = original
        pictures.append(picture)
    return pictures, excluded


def _reconstruct(
    pictures: list[Picture],
    excluded: list[LeftOut],
    staging: Path,
    source: Path,
    options: SfmOptions,
    is_video: bool,
    say: Say,
) -> Diagnosis:
    """Runs structure from motion and writes its result into ``staging``."""
    result: SfmResult | None = None
    if len(pictures) >= 2:
        work = staging / ".sfm"
        work.mkdir()
        result = run_sfm(
            staging / "images", pictures, options=options, work_dir=work, in_order=is_video, say=say
        )
        shutil.rmtree(work)
    diagnosis = diagnose(pictures, result, excluded=excluded, is_video=is_video)
    if result is None or result.model is None:
        raise _NoPoses(diagnosis, source)
    times = {p.name: p.time for p in pictures if p.time is not None}
    _write(staging / "transforms.json", transforms_of(result.model, times))
    write_points(staging / "sparse_pc.ply", result.xyz, result.rgb)
    _write(staging / "diagnosis.json", diagnosis.as_json())
    return diagnosis


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
