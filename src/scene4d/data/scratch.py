"""Arrays on disk for as long as the process lives, where memory is too small for them."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from scene4d.errors import NotEnoughMemoryError
from scene4d.torchrun import this_process

_SEGMENT_BYTES = 1 << 28
_ALIGNMENT = 64


def scratch_folder() -> Path:
    """Where scratch files lie: TMPDIR where it is set; else /var/tmp, which unlike /tmp is rarely
    kept in memory; else the system's folder for temporary files."""
    if "TMPDIR" not in os.environ and os.access("/var/tmp", os.W_OK | os.X_OK):
        return Path("/var/tmp")
    return Path(tempfile.gettempdir())


def available_scratch_bytes() -> float:
    """Free there: this process's share of those that torchrun started on this machine."""
    return shutil.disk_usage(scratch_folder()).free / this_process().local_count


class Scratch:
    """Tensors in files without a name, read as if they were in memory.

    The system reads their pages when they are looked at and keeps them in what memory is free. The
    files go with the process, however it ends. Safe among threads.
    """

    def __init__(self) -> None:
        self.folder = scratch_folder()
        self._segments: list[np.memmap] = []
        self._file = -1
        self._used = self._size = 0
        self._lock = Lock()

    def keep(self, tensor: Tensor) -> Tensor:
        """The same values, on disk; changes to them are kept in memory, and by nobody else seen.

        Raises :class:`NotEnoughMemoryError` where the disk is full.
        """
        array = tensor.detach().contiguous().numpy()
        if not array.nbytes:
            return tensor
        with self._lock:
            try:
                there = self._written(array)
            except OSError as error:
                raise NotEnoughMemoryError(
                    "pictures that do not fit into memory cannot be written to disk: "
                    f"{error.strerror}",
                    where=self.folder,
                    fix="free space there, name another folder by TMPDIR, or train smaller "
                    "pictures (--downscale-factor)",
                ) from error
        return torch.from_numpy(there.view(array.dtype).reshape(array.shape))

    def _written(self, array: np.ndarray) -> np.ndarray:
        begin = -(-self._used // _ALIGNMENT) * _ALIGNMENT
        if begin + array.nbytes > self._size:
            self._open_segment(max(_SEGMENT_BYTES, array.nbytes))
            begin = 0
        # Through the file: where the disk is full, writing to a map ends the process.
        left = memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        os.lseek(self._file, begin, os.SEEK_SET)
        while left:
            left = left[os.write(self._file, left) :]
        self._used = begin + array.nbytes
        return self._segments[-1][begin : self._used]

    def _open_segment(self, size: int) -> None:
        # Mapped as a whole: a mapping holds a file open, and of open files there are few.
        with tempfile.TemporaryFile(dir=self.folder) as file:
            file.truncate(size)
            self._segments.append(np.memmap(file, np.uint8, "c", shape=(size,)))
            if self._file >= 0:
                os.close(self._file)
            self._file = os.dup(file.fileno())
        self._used, self._size = 0, size

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)
