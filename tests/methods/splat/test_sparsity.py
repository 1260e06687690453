"""The sparsity objective: its closed form, on every kind of Gaussians."""

import pytest
import torch
from methods.lpgs.test_parent_child import PLAIN, built, splats

from scene4d.methods.splat.method import SparsityOptions
from scene4d.methods.splat.sparsity import Sparsity
from scene4d.representations.task import Task, World
from scene4d.training.objectives.base import ObjectiveInputs
from scene4d.training.step import Step


@pytest.mark.parametrize("made", [splats, lambda: built(PLAIN)], ids=["splats", "families"])
def test_it_is_the_means_of_opacities_and_sizes(made):
    gaussians = made()
    gaussians.extent = 2.0
    step = Step(number=0, progress=0.0, trainable=gaussians, background=torch.zeros(3))
    inputs = ObjectiveInputs(
        task=Task(world=World()), generator=torch.Generator(), device=torch.device("cpu")
    )
    loss = Sparsity(SparsityOptions(opacity=0.3, scale=0.7), inputs)(step).loss
    wanted = 0.3 * gaussians.alphas.mean() + 0.7 * gaussians.stds.mean() / 2.0
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    assert all(gaussians.gaussians[n].grad.abs().min() > 0 for n in ("scales", "opacities"))
