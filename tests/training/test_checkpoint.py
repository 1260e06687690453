"""Checkpoints are whole or absent, and a damaged one is named and passed over."""

import errno
import os

import pytest
import torch

from scene4d.errors import DataError, Scene4dError
from scene4d.methods.splat.method import SplatMethod
from scene4d.training import checkpoint as module
from scene4d.training.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from scene4d.training.options import TrainOptions
from scene4d.training.run import create_run, locked

PLAIN = {"method": "splat", "elapsed_s": 1.5, "representation": {"extent": 2.0}}


def make(step):
    tensors = {"representation/means": torch.arange(6.0).reshape(2, 3) + step,
               "trainer/counts": torch.tensor([2**40, step])}  # fmt: skip
    return Checkpoint(step=step, plain=PLAIN, tensors=tensors)


def test_round_trip_is_exact(tmp_path):
    path = save_checkpoint(tmp_path, make(7), keep=2)
    loaded = load_checkpoint(path)
    assert path.name == "step-000000007.safetensors"
    assert (loaded.step, loaded.plain) == (7, PLAIN)
    for name, tensor in make(7).tensors.items():
        assert torch.equal(loaded.tensors[name], tensor)
        assert loaded.tensors[name].dtype == tensor.dtype
    assert list(loaded.part("trainer")) == ["counts"]


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 20, 3, 400):
        save_checkpoint(tmp_path, make(step), keep=2)
    assert [p.name for p in list_checkpoints(tmp_path)] == [
        "step-000000020.safetensors",
        "step-000000400.safetensors",
    ]


@pytest.mark.parametrize("keep_bytes", [0, 5, 100, -1])
def test_a_truncated_checkpoint_is_an_error_with_its_name(tmp_path, keep_bytes):
    path = save_checkpoint(tmp_path, make(1), keep=2)
    path.write_bytes(path.read_bytes()[:keep_bytes])
    with pytest.raises(DataError, match=path.name):
        load_checkpoint(path)


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "step-000000001.safetensors")
    with pytest.raises(DataError, match="cannot be read as a scene4d checkpoint"):
        load_checkpoint(tmp_path / "step-000000001.safetensors")


def test_a_full_disk_leaves_the_earlier_checkpoint_and_no_debris(tmp_path, monkeypatch):
    """The write fails half-way, as it does when the disk is full."""
    save_checkpoint(tmp_path, make(1), keep=2)

    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(Scene4dError, match="No space left on device"):
        save_checkpoint(tmp_path, make(2), keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000001.safetensors"]
    assert load_checkpoint(tmp_path / "step-000000001.safetensors").step == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_disk_that_is_really_full_is_reported(tmp_path):
    """/dev/full refuses every byte, with the error of a full disk."""
    from scene4d.files import atomic_path

    with (
        pytest.raises(Scene4dError, match="No space left"),
        atomic_path(tmp_path / "file"),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"x")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next_checkpoint(tmp_path):
    left = [tmp_path / name for name in (".tmpo2tBbf", ".step-000000001.abcd1234.tmp.safetensors")]
    others = [tmp_path / name for name in (".tmp", ".hidden", "step-1.txt")]
    for path in (*left, *others):
        path.write_bytes(b"half")
    save_checkpoint(tmp_path, make(2), keep=2)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)


def test_a_new_run_tidies_those_that_were_killed_before_their_first_checkpoint(tmp_path):
    options = TrainOptions(output_dir=tmp_path)
    runs = [create_run(SplatMethod(), options, experiment_name="tiny") for _ in range(3)]
    begun = [".config.8cji_ui6.tmp.toml", "checkpoints/.tmpSCltYV"]
    for run in runs:
        (run / "checkpoints").mkdir()
        (run / ".lock").touch()
        for name in begun:
            (run / name).write_bytes(b"half")
    save = Checkpoint(step=1, plain=PLAIN, tensors=make(1).tensors)
    path = save_checkpoint(runs[1] / "elsewhere", save, keep=1)
    path.rename(runs[1] / "checkpoints" / path.name)  # it goes on: its own resumption tidies it
    with locked(runs[2]):
        create_run(SplatMethod(), options, experiment_name="tiny")
    assert [sum((run / name).exists() for name in begun) for run in runs] == [0, 2, 2]
