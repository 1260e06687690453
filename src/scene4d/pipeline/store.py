"""Where a batch's results lie: a folder that all nodes see, or an object store, through fsspec."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from scene4d.errors import Scene4dError, UsageError

SYNC_SECONDS = 10.0
"""Between looks for new checkpoints, which go to the store beside the training."""
_OURS = (".tmp", ".lock")


@dataclass(frozen=True)
class Store:
    """A folder of scenes by its URL or path; plain data, so that it travels to other machines."""

    url: str

    @property
    def folder(self) -> Path | None:
        """The folder on this machine's disks; None where it is elsewhere."""
        if "://" not in self.url:
            return Path(self.url).absolute()
        if self.url.startswith("file://"):
            return Path(self.url.removeprefix("file://")).absolute()
        return None

    @cached_property
    def _remote(self) -> tuple[Any, str]:
        """fsspec's file system, and the path in it."""
        import fsspec  # late: it comes with torch

        try:
            system, path = fsspec.core.url_to_fs(
                self.url, use_listings_cache=False
            )  # others write, too
        except ImportError as error:  # of the protocol's own package
            raise UsageError(f"wants another package: {error}", where=self.url,
                             fix="install it, for s3:// pip install s3fs") from error  # fmt: skip
        except ValueError as error:
            raise UsageError(f"is no place for results: {error}", where=self.url,
                             fix="give a folder, or a URL such as s3://bucket/scenes"
                             ) from error  # fmt: skip
        return system, path.rstrip("/")

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where it is not there."""
        system, root = self._remote
        try:
            return bytes(system.cat_file(f"{root}/{name}"))
        except FileNotFoundError:
            return None

    def exists(self, name: str) -> bool:
        """Whether there is such a file or folder."""
        system, root = self._remote
        return bool(system.exists(f"{root}/{name}"))

    def write(self, name: str, data: bytes) -> None:
        """Writes a file, whole."""
        if self.folder is not None:
            from scene4d.files import atomic_path

            with atomic_path(self.folder / name) as path:
                path.write_bytes(data)
            return
        system, root = self._remote
        with self._told():
            system.makedirs(f"{root}/{name}".rsplit("/", 1)[0], exist_ok=True)
            system.pipe_file(f"{root}/{name}", data)

    def get(self, name: str, target: Path) -> bool:
        """Copies a folder here; False where it is not there."""
        system, root = self._remote
        with self._told():
            files = [str(path) for path in system.find(f"{root}/{name}")]
            for path in files:
                place = target / path[len(f"{root}/{name}") :].lstrip("/")
                place.parent.mkdir(parents=True, exist_ok=True)
                system.get_file(path, str(place))
        return bool(files)

    def put(self, source: Path, name: str, *, last: str | None = None) -> None:
        """Copies a folder there, in place of what was; the file ``last`` goes first and comes last,
        so that it never stands beside files of another time."""
        system, root = self._remote
        with self._told():
            if last is not None and system.exists(f"{root}/{name}/{last}"):
                system.rm_file(f"{root}/{name}/{last}")
            self.remove(name)
            files = sorted(path for path in source.rglob("*") if path.is_file())
            for path in sorted(files, key=lambda path: path.name == last):
                self._put_file(path, f"{name}/{path.relative_to(source).as_posix()}")

    def _put_file(self, path: Path, name: str) -> None:
        system, root = self._remote
        system.makedirs(f"{root}/{name}".rsplit("/", 1)[0], exist_ok=True)
        system.put_file(str(path), f"{root}/{name}")

    def remove(self, name: str) -> None:
        """Removes a folder, if it is there."""
        system, root = self._remote
        if system.exists(f"{root}/{name}"):
            system.rm(f"{root}/{name}", recursive=True)

    def names(self, folder: str) -> list[str]:
        """What lies in a folder."""
        system, root = self._remote
        if not system.exists(f"{root}/{folder}"):
            return []
        return [str(p).rstrip("/").rsplit("/", 1)[1] for p in system.ls(f"{root}/{folder}", False)]

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except Scene4dError:
            raise
        except OSError as error:
            raise Scene4dError(f"could not be written or read ({error})", where=self.url,
                               fix="see that it can be reached, and give the same command again"
                               ) from error  # fmt: skip

    @contextmanager
    def following(self, source: Path, name: str) -> Iterator[None]:
        """Within, new files of the folder ``source`` are copied to ``name`` soon after they are
        there: checkpoints, that another machine goes on from."""
        follower = _Follower(self, source, name)
        ended = threading.Event()

        def follow() -> None:
            while not ended.wait(SYNC_SECONDS):
                follower.copy()

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


@dataclass
class _Follower:
    store: Store
    source: Path
    name: str
    copied: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def copy(self) -> None:
        """What is new or has changed. A store that cannot be reached now is asked again later."""
        for path in sorted(self.source.rglob("*")):
            if not path.is_file() or any(mark in path.name for mark in _OURS):
                continue
            try:
                state = (path.stat().st_size, path.stat().st_mtime_ns)
                if self.copied.get(path) != state:
                    relative = path.relative_to(self.source).as_posix()
                    self.store._put_file(path, f"{self.name}/{relative}")
                    self.copied[path] = state
            except OSError:
                continue
