"""From photos or a video to a posed capture: what ``scene4d process-data`` runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from scene4d.data.process.diagnosis import Diagnosis, LeftOut, diagnose
from scene4d.data.process.pictures import Picture, find_pictures, place_picture
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
    unused_name,
    write_points,
)
from scene4d.errors import DataError, UsageError

Say = Callable[[str], None]


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
    if not source.is_dir():
        raise DataError("is not a folder of pictures", where=source)
    _check_apart(source, output)
    check_target(output, overwrite=overwrite)
    files, refused = find_pictures(source, skip=output)
    if not files:
        raise DataError(
            "contains no pictures" + (f" ({next(iter(refused.values()))})" if refused else ""),
            where=source,
            fix="give a folder of JPEG, PNG, WebP, TIFF or BMP files",
        )
    with staged_folder(output, overwrite=overwrite) as staging:
        say(f"reading {len(files)} pictures")
        pictures, excluded = _place_all(files, source, staging / "images")
        excluded += [LeftOut(name=n, reason="unreadable", detail=d) for n, d in refused.items()]
        return _reconstruct(pictures, excluded, staging, source, sfm or SfmOptions(), False, say)


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
    video = video or VideoOptions()
    _check_apart(source, output)
    check_target(output, overwrite=overwrite)
    say(f"looking through {source.name}")
    track: VideoTrack = analyse_video(source)
    chosen = select_frames(track, video.num_frames_target)
    with staged_folder(output, overwrite=overwrite) as staging:
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


def _place_all(
    files: Sequence[Path], source: Path, images: Path
) -> tuple[list[Picture], list[LeftOut]]:
    """Copies what can be read; copies of a picture that is already there are left out."""
    pictures: list[Picture] = []
    excluded: list[LeftOut] = []
    by_digest: dict[str, str] = {}
    taken: set[str] = set()
    for file in files:
        original = file.relative_to(source).as_posix()
        name = unused_name(original, taken)
        try:
            picture = place_picture(file, images / name, name)
        except (OSError, ValueError) as error:
            (images / name).unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno is not None:
                raise
            excluded.append(LeftOut(name=original, reason="unreadable", detail=str(error)))
            continue
        if picture.digest in by_digest:
            (images / name).unlink()
            detail = f"the same picture as {by_digest[picture.digest]}"
            excluded.append(LeftOut(name=original, reason="duplicate", detail=detail))
            continue
        taken.add(name)
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
        raise DataError(
            f"no camera poses could be found\n{diagnosis.text()}",
            where=source,
            fix="see docs/process-data.md on how to capture",
        )
    times = {p.name: p.time for p in pictures if p.time is not None}
    _write(staging / "transforms.json", transforms_of(result.model, times))
    write_points(staging / "sparse_pc.ply", result.xyz, result.rgb)
    _write(staging / "diagnosis.json", diagnosis.as_json())
    return diagnosis


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
