"""Files that are never half-written, and paths that never leave their folder."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from scene4d.errors import DataError, Scene4dError


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yields a path beside ``target`` to write to; renames it onto ``target`` on success.

    On any exception the temporary file is removed and ``target`` stays as it was. Running out of
    disk is reported as a :class:`Scene4dError`.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f".{target.stem}.", suffix=f".tmp{target.suffix}", dir=target.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise Scene4dError(
            f"could not be written ({error.strerror or error})",
            where=target,
            fix="free some disk space or choose another output folder; the earlier file is intact",
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder of the same name beside ``target``; it takes its place on success.

    Callers check first that ``target`` may be replaced. On any exception the new folder is removed
    and ``target`` stays as it was. Running out of disk is a :class:`Scene4dError`.
    """
    target = Path(target)
    work: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        fresh, old = work / target.name, work / "earlier"
        fresh.mkdir()
        yield fresh
        if target.exists():
            os.replace(target, old)
        try:
            os.replace(fresh, target)
        except OSError:
            if old.exists():
                os.replace(old, target)
            raise
    except OSError as error:
        raise Scene4dError(
            f"could not be written ({error.strerror or error})",
            where=target,
            fix="free some disk space or choose another folder; what was there is intact",
        ) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


def write_text(target: Path, text: str) -> None:
    """Writes ``text`` as UTF-8 to ``target``, atomically."""
    with atomic_path(target) as path:
        path.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Writes ``value`` as indented JSON to ``target``, atomically; NaN is refused."""
    write_text(target, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in ``path``. Raises :class:`DataError` naming the file and line."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError("file not found", where=path) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"is not valid JSON ({error})", where=path) from error


def open_regular(path: Path) -> BinaryIO:
    """``path`` opened for reading bytes. Raises :class:`DataError`, for a folder, a pipe or a
    device as well: reading those could wait for ever or never end."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise DataError(
                "cannot be read: it is no regular file (a folder, a pipe or a device)", where=path
            )
        return open(path, "rb")
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path) from error


def path_inside(root: Path, relative: str, *, where: object = None) -> Path:
    """``root / relative``, refused when it would leave ``root`` (absolute, ``..``, symlink)."""
    path = (Path(root) / relative).resolve()
    if not path.is_relative_to(Path(root).resolve()):
        raise DataError(
            f"points outside its folder: {relative!r}",
            where=where or root,
            fix="move the file into the capture's folder and use a relative path",
        )
    return path
