"""Tensors on disk: the same values, nothing left behind, and a full disk as one error."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest
import torch

from scene4d.data import scratch
from scene4d.data.scratch import Scratch, scratch_folder
from scene4d.errors import NotEnoughMemoryError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)  # where Python keeps its first answer


def test_what_is_kept_is_read_back_and_leaves_nothing(tmp_path, monkeypatch) -> None:
    """Of all types and shapes that pictures have, over the ends of segments, few files open."""
    monkeypatch.setattr(scratch, "_SEGMENT_BYTES", 5000)
    assert scratch_folder() == tmp_path
    generator = torch.Generator().manual_seed(0)
    values = [torch.zeros(0, 3), torch.tensor(2.5), torch.rand(50, 70, generator=generator)]
    for size in (1, 63, 64, 65, 999, 4000, 70_000):
        whole = torch.randint(0, 256, (size, 3), generator=generator).to(torch.uint8)
        values += [whole, whole[:, 1] > 100, whole.T]
    there = Scratch()
    open_before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    kept = [there.keep(value) for value in values * 20]
    if open_before:
        segments = -(-sum(value.nbytes for value in values * 20) // 5000)
        assert len(os.listdir("/proc/self/fd")) - open_before <= segments + 1
    for value, found in zip(values * 20, kept, strict=True):
        assert value.dtype == found.dtype and torch.equal(value, found)
    assert os.listdir(tmp_path) == []
    kept[2].zero_()  # a change is its holder's alone
    assert torch.equal(kept[2 + len(values)], values[2])


def test_a_full_disk_is_one_error(tmp_path, monkeypatch) -> None:
    def full(file: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    there = Scratch()
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(NotEnoughMemoryError, match="No space left") as caught:
        there.keep(torch.ones(10))
    assert "TMPDIR" in str(caught.value)


def test_a_file_that_may_not_grow_is_the_same_error(tmp_path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(NotEnoughMemoryError):
            Scratch().keep(torch.ones(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
