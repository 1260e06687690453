"""The sparsity objective: its closed form, on every kind of Gaussians."""

from pathlib import Path

import pytest
import torch
from methods.lpgs.test_parent_child import PLAIN, built, splats

from scene4d.data.scene import Scene
from scene4d.methods.splat.method import SparsityOptions, SplatMethod
from scene4d.methods.splat.sparsity import Sparsity
from scene4d.training.adjustments import CameraAdjustments
from scene4d.training.objectives.base import ObjectiveInputs, TrainingStep


@pytest.mark.parametrize("made", [splats, lambda: built(PLAIN)], ids=["splats", "families"])
def test_it_is_the_means_of_opacities_and_sizes(made):
    gaussians = made()
    gaussians.extent = 2.0
    step = TrainingStep(
        number=0, progress=0.0, representation=gaussians, views=[], background=torch.zeros(3),
        adjustments=CameraAdjustments(0, SplatMethod(), extent=1.0),
    )  # fmt: skip
    scene = Scene(
        root=Path("made"), dataparser="made", split_rule="none", frames=[], train_indices=[],
        test_indices=[],
    )  # fmt: skip
    inputs = ObjectiveInputs(
        scene=scene, cameras=[], generator=torch.Generator(), device=torch.device("cpu")
    )
    (loss,) = Sparsity(SparsityOptions(opacity=0.3, scale=0.7), inputs)(step).values()
    wanted = 0.3 * gaussians.alphas.mean() + 0.7 * gaussians.stds.mean() / 2.0
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    assert all(gaussians.gaussians[n].grad.abs().min() > 0 for n in ("scales", "opacities"))
