"""Files that are never half-written, and paths that never leave their folder."""

from __future__ import annotations

import codecs
import contextlib
import errno
import glob
import json
import os
import re
import shutil
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from scene4d.errors import DataError, Scene4dError

_Made = TypeVar("_Made")


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yields a path beside ``target`` to write to; renames it onto ``target`` on success.

    On any exception the temporary file is removed and ``target`` stays as it was; what a killed
    process left of the same ``target`` is removed, too. Where it cannot be written, or the disk is
    full, a :class:`Scene4dError` says so.
    """
    target = Path(target)
    temporary: Path | None = None
    with _written(target), ExitStack() as held:
        try:
            handle, name = _beside(target, tempfile.mkstemp, suffix=f"{_MARK}{target.suffix}")
            temporary = Path(name)
            held.callback(os.close, handle)
            _hold(handle)
            yield temporary
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)
            held.close()  # Windows renames no open file
            os.replace(temporary, target)
        except BaseException:
            held.close()
            if temporary is not None:
                temporary.unlink(missing_ok=True)
            raise


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder of the same name beside ``target``; it takes its place on success.

    Callers check first that ``target`` may be replaced. On any exception the new folder is removed
    and ``target`` stays as it was; what a killed process left of the same ``target`` is removed or,
    if it is the folder that was there, put back. Otherwise as :func:`atomic_path`.
    """
    target = Path(target)
    with _written(target), _held_folder(target) as work:
        fresh, old = work / target.name, work / _EARLIER
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


@contextmanager
def atomic_update(folder: Path, *, index: str) -> Iterator[Path]:
    """Yields an empty folder, whose files take their places in ``folder`` on success, beside what
    is there: ``index``, the file that tells of the others, is removed first and comes last.

    So an index never stands beside files of another time, whenever the process is killed. On any
    exception before that ``folder`` stays as it was. Otherwise as :func:`atomic_path`.
    """
    folder = Path(folder)
    target = folder / index
    with _written(target), _held_folder(target) as work:
        fresh = work / _FRESH
        fresh.mkdir()
        yield fresh
        files = sorted(p.relative_to(fresh) for p in fresh.rglob("*") if p.is_file())
        target.unlink(missing_ok=True)
        for file in sorted(files, key=lambda file: file == Path(index)):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            os.replace(fresh / file, folder / file)


@contextmanager
def _held_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside ``target`` that is this process's as long as it runs."""
    work: Path | None = None
    with ExitStack() as held:
        try:
            work = Path(_beside(target, tempfile.mkdtemp, suffix=_MARK))
            if hasattr(os, "O_DIRECTORY"):
                handle = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
                held.callback(os.close, handle)
                _hold(handle)
            yield work
        finally:
            held.close()
            if work is not None:
                shutil.rmtree(work, ignore_errors=True)


def _beside(target: Path, make: Callable[..., _Made], *, suffix: str) -> _Made:
    """What ``make`` of tempfile makes in the folder of ``target``, which is made first.

    Another process that only looks (:func:`check_writable`) may take that folder away in between.
    """
    for _ in range(_AGAIN):
        with contextlib.suppress(FileNotFoundError, FileExistsError):  # gone, or going (mkdir)
            _prepare(target)
            return make(prefix=_prefix(target), suffix=suffix, dir=target.parent)
    _prepare(target)
    return make(prefix=_prefix(target), suffix=suffix, dir=target.parent)


_AGAIN = 100


def _prepare(target: Path) -> None:
    """Makes the folder that ``target`` goes to, without what writers of it left there."""
    with contextlib.suppress(FileNotFoundError):
        os.lstat(target)  # refuses what cannot be a name
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)


_MARK = ".tmp"
_EARLIER = "earlier"
"""In the temporary folder, what was at the target while the new folder takes its place."""
_FRESH = "fresh"


def _prefix(target: Path) -> str:
    """How the temporary names of ``target`` begin: shortened, as names have 255 bytes at most."""
    stem = target.stem
    if len(stem) > _LONGEST_STEM:
        stem = f"{stem[:_LONGEST_STEM]}~{zlib.crc32(os.fsencode(target.name)):08x}"
    return f".{stem}."


_LONGEST_STEM = 40


@contextmanager
def _written(target: Path) -> Iterator[None]:
    """What the system says against writing ``target`` as one error."""
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, Scene4dError):
            raise
        if isinstance(error, ValueError) and "null" not in str(error):
            raise
        words = getattr(error, "strerror", None) or str(error)
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        fix = "free some disk space" if full else "see that its folder may be written to"
        raise Scene4dError(
            f"could not be written ({words})",
            where=printable(target),
            fix=f"{fix}, or choose another place; what was there is intact",
        ) from error


def _hold(handle: int) -> bool:
    """Whether the file is now this process's alone; it is let go when the process ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def remove_leftovers(target: Path) -> None:
    """Removes the temporary files and folders of writers of ``target`` that are no more, and puts
    back the folder that one of them had moved away."""
    names = re.compile(f"{re.escape(_prefix(target))}[a-z0-9_]{{8}}{re.escape(_MARK)}(.*)")
    for path in sorted(target.parent.glob(f"{glob.escape(_prefix(target))}*{_MARK}*")):
        match = names.fullmatch(path.name)
        if match is None or not _is_leftover(path):
            continue
        if path.is_dir() and not match[1]:
            if (path / _EARLIER).exists() and not target.exists():
                os.replace(path / _EARLIER, target)
            shutil.rmtree(path, ignore_errors=True)
        elif match[1] in ("", target.suffix):  # "": of who was killed while looking at the place
            path.unlink(missing_ok=True)


def _is_leftover(path: Path) -> bool:
    """Whether nobody holds it any more. Without locks nobody knows, and it stays."""
    try:
        kind = os.lstat(path).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            return False
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return _hold(handle)
    finally:
        os.close(handle)


def check_writable(target: Path, *, folder: bool = False) -> None:
    """Raises :class:`Scene4dError` where a file (or ``folder``) cannot be written: before the work
    that would be lost. Folders that it takes are made, and removed again."""
    target = Path(target)
    made: list[Path] = []
    with _written(target):
        try:
            there = os.stat(target).st_mode
        except FileNotFoundError:
            there = None
        if there is not None and stat.S_ISDIR(there) != folder:
            raise Scene4dError(
                "is a folder, and a file is to be written" if not folder
                else "is a file, and a folder is to be written",
                where=target,
                fix="name another place",
            )  # fmt: skip
        parent = target.parent
        while not parent.exists() and parent != parent.parent:
            made.append(parent)
            parent = parent.parent
        try:
            handle, name = _beside(target, tempfile.mkstemp, suffix=_MARK)
            os.close(handle)
            with contextlib.suppress(FileNotFoundError):  # who writes there took it for a leftover
                os.unlink(name)
        finally:
            for empty in made:
                with contextlib.suppress(OSError):
                    empty.rmdir()


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
    try:
        path = (Path(root) / relative).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # null bytes, too long, link loops
        raise DataError(
            f"names a path that cannot be: {printable(relative)!r}", where=where or root
        ) from error
    if not path.is_relative_to(Path(root).resolve()):
        raise DataError(
            f"points outside its folder: {relative!r}",
            where=where or root,
            fix="move the file into the capture's folder and use a relative path",
        )
    return path
