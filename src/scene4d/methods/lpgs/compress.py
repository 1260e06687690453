"""Compression: a trained scene becomes a small bundle, by training a parent/child scene on it."""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from scene4d.data.scene import Scene
from scene4d.errors import DataError, UsageError
from scene4d.exporters import bundle
from scene4d.files import check_writable
from scene4d.formats.ply import splat_bytes, write_ply
from scene4d.formats.registry import file_bytes, format_of, is_splats, read_splats
from scene4d.methods.lpgs.method import LpgsMethod
from scene4d.methods.lpgs.seeds import container_bytes
from scene4d.training.evaluate import mean_psnr
from scene4d.training.open_scene import open_scene
from scene4d.training.opened import OpenedScene
from scene4d.training.options import TrainOptions
from scene4d.training.run import load_run, newest_begun
from scene4d.training.teachers import load_teacher
from scene4d.training.train import load_capture, resume, start, with_teachers_capture
from scene4d.training.trainer import Interrupted

ROUNDS = 3
"""Trainings spent on finding the size at which a given loss is reached."""
_FIRST_SHARE = 1 / 100
"""Size of the first round, as a share of the uncompressed PLY."""
_AIMED_BELOW = 0.05
"""dB below the loss that is allowed: a training is not so exact that it would land on it."""
_DB_PER_HALVING = 0.8
"""What halving the size costs, until rounds on both sides have been measured."""
_log = logging.getLogger("scene4d")


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """A bundle and how it compares with what it was made from, on views that were held out."""

    path: Path
    size_mb: float
    psnr_before: float
    """Of the original against the photographs (or against its own renders as bytes)."""
    psnr_after: float
    num_before: int
    num_after: int
    views: int
    against: str
    """What the pictures were compared with."""
    seconds: float
    before: str = ""
    """The size of what it was made from, for people: of the file itself, and as a plain PLY."""
    target_mb: float | None = None
    """The size that was asked for."""
    target_drop: float | None = None
    """The loss that was allowed, dB."""

    @property
    def drop(self) -> float:
        """dB lost; negative where the bundle is better."""
        return self.psnr_before - self.psnr_after

    @property
    def on_target(self) -> bool:
        """Whether it is of the size that was asked for, within 2%, or loses no more than that."""
        if self.target_drop is not None:
            return self.drop <= self.target_drop
        wanted = self.target_mb
        return wanted is None or abs(self.size_mb / wanted - 1) <= bundle.LANDING

    @property
    def missed(self) -> str:
        """What it is, and what was asked for, of one that is not :attr:`on_target`."""
        if self.target_drop is not None:
            return f"loses {self.drop:.2f} dB, and at most {self.target_drop:g} dB were asked for"
        return f"is {self.size_mb:.3f} MB, and {self.target_mb:g} MB within 2% were asked for"


def compress(
    source: Path,
    output: Path,
    *,
    method: LpgsMethod,
    options: TrainOptions,
    target_psnr_drop: float | None = None,
    drop_invalid: bool = False,
    keep_in: Path | None = None,
) -> Compressed:
    """Trains on ``source`` (a run or a splat file) and writes the bundle ``output``.

    With ``target_psnr_drop`` the time is divided among :data:`ROUNDS` trainings that look for the
    smallest size which loses no more dB; where each loses more, the best is kept, with a warning.
    ``drop_invalid``: a file's splats that nothing can draw are left out first. A size that the
    scene cannot fill gives the nearest smaller bundle (:attr:`Compressed.on_target`). ``keep_in``:
    where the training's run is kept, to be gone on with by another call that was told the same.
    Raises :class:`UsageError` when both targets are given or the size is below that of an empty
    bundle.
    """
    if method.target_mb is not None and target_psnr_drop is not None:
        raise UsageError("--target-mb and --target-psnr-drop exclude each other")
    if output.suffix.lower() != ".s4d":
        raise UsageError("bundles are written as .s4d", where=output, fix="name it SOMETHING.s4d")
    if output.is_dir():
        raise UsageError("is a folder; bundles are written as files", where=output)
    if target_psnr_drop is not None and not math.isfinite(target_psnr_drop):
        raise UsageError(f"--target-psnr-drop must be a number of dB, got {target_psnr_drop}")
    check_writable(output)
    with _scratch() as scratch:
        runs = keep_in or scratch
        if drop_invalid and is_splats(source):
            cleaned = scratch / f"{source.stem}.ply"
            write_ply(cleaned, read_splats(source, drop_invalid=True))
            source = cleaned
        teacher = load_teacher(source)
        _require_splats(teacher)
        _require_stillness(teacher)
        options = with_teachers_capture(replace(options, teacher=source), teacher)
        options = replace(options, output_dir=runs, evaluate=False)
        if target_psnr_drop is None:
            return _one(teacher, output, method, options, begun=_begun(keep_in, method))
        return _at_drop(teacher, output, method, options, target_psnr_drop)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for the training's run, which goes again; an interrupted training is kept, as its
    message says how to go on with it."""
    folder = Path(tempfile.mkdtemp(prefix="scene4d-compress-"))
    try:
        yield folder
    except Interrupted:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _begun(folder: Path | None, method: LpgsMethod) -> Path | None:
    """The newest run there with a checkpoint to go on from."""
    return None if folder is None else newest_begun(folder, method.name)


def _require_splats(teacher: OpenedScene) -> None:
    cloud = teacher.representation.splats()
    if cloud is not None and not len(cloud):
        raise DataError(
            "holds no splats, so there is nothing to compress",
            where=teacher.path,
            fix="give a scene with content",
        )


def _require_stillness(teacher: OpenedScene) -> None:
    if teacher.representation.times is not None:
        raise UsageError(
            "moves, and parent/child splats stand still",
            where=teacher.path,
            fix=f"scene4d export {teacher.path} bundle --output-path OUT.s4d --target-mb MB keeps"
            " the motion",
        )


def _require_room(method: LpgsMethod, scene: Scene, output: Path) -> None:
    """Said before the training, as no training changes it."""
    target_mb, least = method.target_mb, container_bytes(scene, method.sh_degree) / 1e6
    if target_mb is not None and target_mb < least:
        raise UsageError(
            f"cannot be made {target_mb:g} MB: its poster, cameras and manifest alone take some"
            f" {least:.2g} MB",
            where=output,
            fix=f"ask for more, --target-mb {2 * least:.2g}",
        )


def _before(teacher: OpenedScene) -> tuple[int, str]:
    """How many splats the original has, and its size for people."""
    cloud = teacher.representation.splats()
    if cloud is None:
        return 0, "not made of splats"
    count, degree = len(cloud), cloud.sh_degree
    as_ply = f"{count * splat_bytes(degree) / 1e6:.3g} MB as PLY of degree {degree}"
    if not is_splats(teacher.path) or format_of(teacher.path).name == "ply":
        return count, as_ply
    size, name = file_bytes(teacher.path), format_of(teacher.path).name
    return count, f"{size / 1e6:.3g} MB as {name}, {as_ply}"


def _at_drop(
    teacher: OpenedScene, output: Path, method: LpgsMethod, options: TrainOptions, allowed: float
) -> Compressed:
    """The smallest of some sizes whose loss is allowed, or the best where none is."""
    scene, _ = load_capture(options, split="test", teacher=teacher)
    if not scene.test_indices:
        raise UsageError(
            "holds no picture out to measure the loss on", where=teacher.path, fix="--test-every 8"
        )
    minutes = options.max_minutes
    options = replace(options, max_minutes=None if minutes is None else minutes / ROUNDS)
    cloud = teacher.representation.splats()
    plain = 0 if cloud is None else len(cloud) * splat_bytes(cloud.sh_degree)
    size = max(1.5 * container_bytes(scene, method.sh_degree), _FIRST_SHARE * plain) / 1e6
    tried: list[Compressed] = []
    for number in range(ROUNDS):
        path = output.with_name(f".{output.stem}.{number}.s4d")
        try:
            made = _one(teacher, path, replace(method, target_mb=size), options)
            _log.info("%.3f MB loses %.2f dB", made.size_mb, made.drop)
            better = _preferred([*tried, made], allowed)
            if better is made:
                path.replace(output)
            tried.append(made)
        except UsageError as error:  # such a size cannot be met; what was found so far stands
            if not tried:
                raise
            _log.info("%s", error)
            break
        finally:
            path.unlink(missing_ok=True)
        if made.drop > allowed and made.size_mb < (1 - bundle.LANDING) * size:
            break  # the scene fills no more than that
        size = _next_size(tried, allowed - _AIMED_BELOW)
    best = _preferred(tried, allowed)
    best = replace(best, path=output, target_mb=None, target_drop=allowed)
    if not best.on_target:
        _log.warning(
            "%s: of the sizes tried this one, %.3f MB, loses least (more --max-minutes lose less)",
            best.missed, best.size_mb,
        )  # fmt: skip
    return best


def _preferred(tried: Sequence[Compressed], allowed: float) -> Compressed:
    good = [t for t in tried if t.drop <= allowed]
    if good:
        return min(good, key=lambda t: t.size_mb)
    return min(tried, key=lambda t: t.drop)


def _next_size(tried: Sequence[Compressed], allowed: float) -> float:
    """Where the loss that is allowed is expected: between the nearest sizes on both sides of it,
    or beyond all that were tried.

    Losses grow ever faster with smallness, so downwards a slope that was measured says too little.
    """
    smallest = min((t.size_mb for t in tried if t.drop <= allowed), default=math.inf)
    fits = [t for t in tried if t.drop <= allowed and t.size_mb == smallest]
    misses = [t for t in tried if t.drop > allowed and t.size_mb < smallest]
    last = fits[0] if fits else max(misses, key=lambda t: t.size_mb)
    slope = _DB_PER_HALVING
    if fits and misses:
        slope = _db_per_halving(last, max(misses, key=lambda t: t.size_mb))
    elif below := [t for t in misses if t.size_mb < last.size_mb]:
        measured = _db_per_halving(last, max(below, key=lambda t: t.size_mb))
        slope = min(4.0, max(0.2, measured))
    halvings = min(2.0, max(-2.0, (allowed - last.drop) / slope))
    return last.size_mb / 2**halvings


def _db_per_halving(larger: Compressed, smaller: Compressed) -> float:
    return (smaller.drop - larger.drop) / math.log2(larger.size_mb / smaller.size_mb)


def _one(
    teacher: OpenedScene,
    output: Path,
    method: LpgsMethod,
    options: TrainOptions,
    *,
    begun: Path | None = None,
) -> Compressed:
    scene, images = load_capture(options, split="test", teacher=teacher)
    _require_room(method, scene, output)
    if begun is None:
        folder = start(method, options, announce=False)
    else:
        folder = resume(begun, data=options.data, teacher=options.teacher)
    run = load_run(folder)
    _log.info("%s", bundle.export(run, output, nearest=True))
    before = teacher.in_frame(scene.source_from_scene)
    found = open_scene(output)
    count, size = _before(teacher)
    return Compressed(
        path=output,
        size_mb=output.stat().st_size / 1e6,
        psnr_before=mean_psnr(before, scene, images),
        psnr_after=mean_psnr(found.in_frame(scene.source_from_scene), scene, images),
        num_before=count,
        before=size,
        num_after=len(found.scene_cloud()),
        views=len(scene.test_indices),
        against="photographs" if scene.photographed else "the original's renders",
        seconds=run.elapsed_s,
        target_mb=method.target_mb,
    )
