"""What ``--data`` names, checked before any work: the other kind is told by its name."""

from __future__ import annotations

from pathlib import Path

from scene4d.data.process.files import (
    FolderFiles,
    find_pictures,
    is_picture_name,
    is_video_name,
)
from scene4d.errors import DataError


def check_photos(source: Path) -> None:
    """Raises :class:`DataError` unless ``source`` is a folder."""
    if source.is_dir():
        return
    if not source.exists():
        raise DataError("is not a folder of pictures: it is not there", where=source)
    if source.is_file() and is_video_name(source):
        raise DataError("is a video, not a folder of pictures", where=source, fix=_video(source))
    fix = "give the folder of photos, not one of them" if is_picture_name(source) else None
    raise DataError("is not a folder of pictures", where=source, fix=fix)


def check_video(source: Path) -> None:
    """Raises :class:`DataError` unless ``source`` is a file that may be a video."""
    if source.is_dir():
        raise DataError("is a folder, not a video", where=source, fix=_in_folder(source))
    if not source.exists():
        raise DataError("file not found", where=source)
    if not source.is_file():
        raise DataError("is a pipe or a device, not a video", where=source)
    if is_picture_name(source):
        raise DataError(
            "is a picture, not a video",
            where=source,
            fix=f"for photos: scene4d process-data images --data {source.parent}",
        )


def refuse_without_pictures(found: FolderFiles, source: Path) -> None:
    """Raises :class:`DataError`, with what is there instead."""
    if found.pictures:
        return
    videos = [source / name for name in found.others if is_video_name(Path(name))]
    if videos:
        raise DataError(
            f"contains no pictures, but {_count(len(videos), 'video')}",
            where=source,
            fix=_video(videos[0]),
        )
    what = "contains no pictures that can be read"
    if found.unreadable:
        name, why = next(iter(found.unreadable.items()))
        what += f" ({_count(len(found.unreadable), 'file')} like {name}: {why})"
    elif found.others:
        what += f" ({_count(len(found.others), 'file')}, e.g. {next(iter(found.others))})"
    raise DataError(
        what, where=source, fix="give a folder of JPEG, PNG, WebP, AVIF, TIFF or BMP files"
    )


def _in_folder(source: Path) -> str:
    """What a folder that was given as a video may have been meant as."""
    found = find_pictures(source)
    videos = [source / name for name in found.others if is_video_name(Path(name))]
    if len(videos) == 1:
        return _video(videos[0])
    if videos:
        return f"it holds {len(videos)} videos: give one of them, e.g. {videos[0]}"
    if found.pictures:
        return f"for photos: scene4d process-data images --data {source}"
    return "give one video file"


def _video(path: Path) -> str:
    return f"did you mean: scene4d process-data video --data {path}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("s" if number != 1 else "")
