"""Files that are never half-written, and paths that never leave their folder."""

from __future__ import annotations

import codecs
import json
import os
import shutil
import stat
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


def is_regular_file(path: Path) -> bool:
    """Whether ``path`` is, or links to, a file with content: no folder, pipe or device.

    Never raises: null bytes, link loops, names that are too long and folders that may not be
    entered all mean no.
    """
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def checked_file(path: Path, *, most_bytes: int | None = None) -> Path:
    """``path`` if it can be opened without surprise, else :class:`DataError`.

    A pipe or device would keep us waiting or never end, so only regular files pass (through links).
    """
    try:
        found = os.stat(path)
    except FileNotFoundError as error:
        raise DataError("file not found", where=path) from error
    except (OSError, ValueError) as error:  # link loops, null bytes, names that are too long
        words = getattr(error, "strerror", None) or error
        raise DataError(f"cannot be opened ({words})", where=printable(path)) from error
    if not stat.S_ISREG(found.st_mode):
        kind = "folder" if stat.S_ISDIR(found.st_mode) else "pipe, socket or device"
        raise DataError(f"is a {kind}, not a file", where=path, fix="give a file")
    if most_bytes is not None and found.st_size > most_bytes:
        raise DataError(
            f"is {found.st_size / 1e6:,.0f} MB large; at most {most_bytes / 1e6:,.0f} MB are read",
            where=path,
        )
    return Path(path)


def printable(value: object) -> str:
    """``value`` as text for a message on one line: without control characters, shortened."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value)[:2000])
    return text if len(text) <= 200 else f"{text[:120]}...{text[-60:]}"


def read_bytes(path: Path, *, most_bytes: int | None = None) -> bytes:
    """The content of the regular file ``path``. Raises :class:`DataError`."""
    checked_file(path, most_bytes=most_bytes)
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", where=path) from error


_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16's mark, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks, and the encoding that they announce. Windows' tools write them."""


def read_text(path: Path, *, most_bytes: int = 1 << 30) -> str:
    """The text in ``path``: UTF-8, or UTF-16 or UTF-32 with a byte order mark, which is left out.

    Raises :class:`DataError` on anything else.
    """
    data = read_bytes(path, most_bytes=most_bytes)
    mark, encoding = next((pair for pair in _MARKS if data.startswith(pair[0])), (b"", "utf-8"))
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"is not {encoding.upper()} text (byte {error.start + len(mark)})",
            where=path,
            fix="save it as UTF-8, or restore it",
        ) from error


_MOST_JSON = 1 << 28
"""Bytes of a JSON file; a transforms.json of a hundred thousand frames has half of that."""


def read_json(path: Path) -> Any:
    """The JSON value in ``path``. Raises :class:`DataError` naming the file and line."""
    text = read_text(path, most_bytes=_MOST_JSON)
    try:
        return json.loads(text)
    except RecursionError as error:
        raise DataError("is not usable JSON: it is nested too deeply", where=path) from error
    except ValueError as error:  # also for an integer of thousands of digits
        raise DataError(
            f"is not valid JSON ({error})", where=path, fix="restore the file, or write it again"
        ) from error


def open_regular(path: Path) -> BinaryIO:
    """The regular file ``path``, opened for reading bytes. Raises :class:`DataError`."""
    checked_file(path)
    try:
        return open(path, "rb")
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", where=path) from error


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
