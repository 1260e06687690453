"""What tests of trainings of priors share."""

from __future__ import annotations

from pathlib import Path

import torch

from scene4d.cli.main import main
from scene4d.training.checkpoint import list_checkpoints, load_checkpoint


def check_goes_on(command: list[str], place: Path) -> Path:
    """A training of six steps that is stopped after three goes on to the same weights and samples;
    returns the run folder of the whole one."""
    command = [*command, "--steps", "6", "--checkpoint-every-s", "0", "--keep-checkpoints", "9"]
    runs = []
    for name in ("whole", "half"):
        assert main([*command, "--output-dir", str(place / name)]) == 0
        (made,) = (place / name).glob("*/*/*")
        runs.append(made)
    for late in list_checkpoints(runs[1] / "checkpoints")[3:]:
        late.unlink()
    assert main(["prior", "train", "--resume", str(runs[1])]) == 0
    one, other = (load_checkpoint(list_checkpoints(r / "checkpoints")[-1]).tensors for r in runs)
    assert set(one) == set(other)
    assert all(torch.equal(one[name], other[name]) for name in one)
    one, other = (r / "samples.png" for r in runs)
    assert one.read_bytes() == other.read_bytes()
    return runs[0]
