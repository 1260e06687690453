"""Finding the files that a capture names, whoever wrote it and on whichever system."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from scene4d.data.dataparsers.lenses import IMAGE_SUFFIXES
from scene4d.errors import DataError
from scene4d.files import is_regular_file, printable

_MAY_LIE_ELSEWHERE = (*IMAGE_SUFFIXES, ".ply", ".npy")
"""Absolute paths are followed to these alone, so that no capture makes us open another file."""
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_LONGEST = 4096
_LINK_AS_TEXT = 1024


class CaptureFiles:
    """The files of a capture, found by the names that it gives them.

    A name is taken literally first, then with backslashes as slashes, then without regard to case;
    a picture also with its suffix left out, or with another one (``.jpeg`` for ``.jpg``). Of an
    absolute path that does not exist here the longest tail that lies in the capture counts. Links
    are followed wherever they lead, as the user made them; ``..`` out of the folder is refused.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))
        self._listings: dict[Path, dict[str, list[str]]] = {}
        self._renamed: list[tuple[str, str]] = []
        self._elsewhere: list[str] = []

    def picture(self, text: str, where: object) -> Path:
        """Where the picture called ``text`` is; a path without a file if it is nowhere."""
        return self._find(text, where, IMAGE_SUFFIXES)

    def file(self, text: str, where: object) -> Path:
        """Where the file called ``text`` is; a path without a file if it is nowhere."""
        return self._find(text, where, ())

    def name_of(self, path: Path) -> str:
        """The path relative to the capture; unique, and relative also for files elsewhere."""
        if path.is_relative_to(self.root):
            return path.relative_to(self.root).as_posix()
        return "/".join(path.parts[1:])

    def present(self, pictures: Sequence[Path]) -> list[int]:
        """Indices of the pictures that are there; the others are told in a warning.

        :class:`DataError` when most are missing.
        """
        there = [i for i, path in enumerate(pictures) if is_regular_file(path)]
        if len(there) == len(pictures):
            return there
        first = next(path for path in pictures if not is_regular_file(path))
        lost = len(pictures) - len(there)
        told = f"{lost} of {len(pictures)} images are missing, the first is {self._shown(first)}"
        if lost * 2 > len(pictures):
            fix = self._link_as_text(first) or "restore the files or remove their frames"
            raise DataError(told, where=self.root, fix=fix)
        warnings.warn(f"{self.root}: {told}; the others are used", stacklevel=2)
        return there

    def tell(self) -> None:
        """Warns once of all names that were not taken literally."""
        if self._renamed:
            asked, found = (printable(name) for name in self._renamed[0])
            warnings.warn(
                f"{self.root}: {len(self._renamed)} files have other names than the capture says, "
                f"by case or suffix (first: {asked} is {found})",
                stacklevel=2,
            )
        if self._elsewhere:
            warnings.warn(
                f"{self.root}: {len(self._elsewhere)} files lie outside the capture, which names "
                f"them by absolute paths (first: {printable(self._elsewhere[0])}); it cannot be "
                "moved to another machine",
                stacklevel=2,
            )
        self._renamed, self._elsewhere = [], []

    def _shown(self, path: Path) -> str:
        return printable(self.name_of(path) if path.is_relative_to(self.root) else path)

    def _find(self, text: str, where: object, suffixes: Sequence[str]) -> Path:
        if "\0" in text or len(text) > _LONGEST or not text:
            raise DataError(f"is not a path: {printable(repr(text))}", where=printable(where))
        literal = self.root / PurePosixPath(text)
        if not _is_absolute(text):
            inside = _inside(text)
            if inside is not None and is_regular_file(literal):
                return self.root / inside
            inside = _inside(text.replace("\\", "/"))
            if inside is None:
                raise _outside(text, where)
            return self._ignoring_case(inside, text, suffixes) or self.root / inside
        return self._absolute(text, where, suffixes)

    def _absolute(self, text: str, where: object, suffixes: Sequence[str]) -> Path:
        here = Path(os.path.normpath(text))
        if here.is_relative_to(self.root) and is_regular_file(here):
            return here
        known = here.suffix.lower() in _MAY_LIE_ELSEWHERE
        if known and text.startswith("/") and is_regular_file(here):
            self._elsewhere.append(text)
            return here
        pure = PureWindowsPath(text) if _DRIVE.match(text) else PurePosixPath(text)
        parts = [part for part in pure.parts[1:] if part != "."]
        for start in range(len(parts)):
            tail = _inside("/".join(parts[start:]))
            found = None if tail is None else self._ignoring_case(tail, None, suffixes)
            if found is not None:
                return found
        if known:
            return self.root / parts[-1]  # a missing picture of another machine
        raise _outside(text, where)

    def _ignoring_case(
        self, relative: str, asked: str | None, suffixes: Sequence[str]
    ) -> Path | None:
        """The file in the capture; recorded as renamed when ``asked`` says something else."""
        folder, *parts = self.root, *relative.split("/")
        for part in parts[:-1]:
            folder = folder / self._entry(folder, part)
        if is_regular_file(folder / parts[-1]):
            found = folder / parts[-1]
        else:
            names = [self._entry(folder, name) for name in _spellings(parts[-1], suffixes)]
            there = (folder / name for name in names if is_regular_file(folder / name))
            found = next(there, None)  # type: ignore[assignment]
        if found is not None and asked is not None:
            name = self.name_of(found)
            if name != relative and not name.startswith(f"{relative}."):
                self._renamed.append((asked, name))
        return found

    def _entry(self, folder: Path, name: str) -> str:
        """``name``, or the one entry of ``folder`` that differs from it in case alone."""
        if os.path.lexists(folder / name):
            return name
        if folder not in self._listings:
            listing: dict[str, list[str]] = {}
            try:
                for entry in os.listdir(folder):
                    listing.setdefault(entry.lower(), []).append(entry)
            except (OSError, ValueError):
                listing = {}
            self._listings[folder] = listing
        found = self._listings[folder].get(name.lower(), [])
        return found[0] if len(found) == 1 else name

    def _link_as_text(self, missing: Path) -> str | None:
        """Advice where a folder of the path is a small text file: a link that lost its nature."""
        for parent in missing.parents:
            if parent == self.root or not parent.is_relative_to(self.root):
                return None
            if is_regular_file(parent) and parent.stat().st_size <= _LINK_AS_TEXT:
                text = parent.read_bytes().decode("utf-8", "replace")
                return (
                    f"'{parent.name}' is a file with the text {printable(text)!r}, not a folder: a "
                    "link that was copied as text? make the link again, or put the folder there"
                )
        return None


def find_entry(folder: Path, name: str) -> Path:
    """``folder / name``, or what differs from it in case alone (``Images`` for ``images``)."""
    path = Path(folder)
    for part in name.split("/"):
        path = path / CaptureFiles(path)._entry(Path(os.path.abspath(path)), part)
    return path


def _is_absolute(text: str) -> bool:
    return text.startswith("/") or _DRIVE.match(text) is not None


def _inside(text: str) -> str | None:
    """The path without ``.`` and ``..``; None when it leaves the folder."""
    plain = os.path.normpath(text)
    return None if plain == ".." or plain.startswith(("../", "/")) else plain


def _outside(text: str, where: object) -> DataError:
    return DataError(
        f"points outside its folder: {printable(text)!r}",
        where=printable(where),
        fix="move the file into the capture's folder, or link it there, and use a relative path",
    )


def _spellings(name: str, suffixes: Sequence[str]) -> list[str]:
    """The name, then the same with other suffixes of pictures."""
    stem, suffix = os.path.splitext(name)
    if suffix.lower() in suffixes:
        near = [s for s in suffixes if s[:3] == suffix[:3].lower()]  # .jpg and .jpeg first
        return [name, *(stem + s for s in (*near, *suffixes))]
    return [name, *(name + s for s in suffixes)]
