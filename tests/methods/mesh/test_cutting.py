"""Triangles that photographs see through: a fence whose slats are one board, before a wall."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from methods.mesh.meshes import Photographs, board, camera_on_circle, joined

from scene4d.methods.mesh.cutting import Cutting
from scene4d.methods.mesh.method import CuttingOptions
from scene4d.methods.mesh.textured_mesh import TexturedMesh
from scene4d.training.optimiser import GroupedAdam
from scene4d.training.step import Step

SLATS = 8
TRUTH = joined(board(0.0, 0.9, 0.0, SLATS), board(-1.5, 4.0, 0.5, 64))
"""The board first."""


IS_GAP = np.repeat(np.arange(SLATS) % 2 == 1, 2 * SLATS)
"""Of the board's triangles: every second slat is not there."""


def cut_by(
    changed=lambda view: view, looks: int = 12, resumed: bool = False
) -> tuple[TexturedMesh, np.ndarray]:
    """The mesh with the whole board after a round of looks at the fence, and which triangles of it
    are left."""
    mesh = TexturedMesh(TRUTH)
    there = np.ones(len(TRUTH.triangles), dtype=bool)
    there[: len(IS_GAP)] = ~IS_GAP
    rows = TRUTH.triangles[there]
    photographs = Photographs(replace(TRUTH, triangles=rows, uv_triangles=rows), looks)
    photographs.cameras = [camera_on_circle(angle) for angle in np.linspace(-0.3, 0.3, looks)]

    def strategy() -> Cutting:
        adam = GroupedAdam(mesh.parameter_groups())
        return Cutting(CuttingOptions(), mesh, adam, torch.Generator())

    cutting = strategy()
    for index in range(looks):
        view = changed(photographs.view(index))
        cutting.after_step(
            Step(
                number=index, progress=0.4, trainable=mesh, views=[view], background=torch.zeros(3)
            )
        )
        if resumed:
            before, cutting = cutting, strategy()
            cutting.load_state_tensors(before.state_tensors())
    assert len(mesh.triangles) == len(TRUTH.triangles)  # nothing goes before the round ends
    cutting.after_step(Step(number=looks, progress=0.58, trainable=mesh, background=torch.zeros(3)))
    left = {tuple(t) for t in mesh.triangles.tolist()}
    return mesh, np.array([tuple(t) in left for t in TRUTH.triangles.tolist()])


@pytest.mark.parametrize("resumed", [False, True])
def test_gaps_open_and_slats_stay(resumed: bool) -> None:
    mesh, left = cut_by(resumed=resumed)
    np.testing.assert_array_equal(left[: len(IS_GAP)], ~IS_GAP)
    assert left[len(IS_GAP) :].all()
    data = mesh.mesh()
    assert len(data.triangles) == left.sum() == len(data.uv_triangles)
    assert len(np.unique(data.triangles)) == len(data.vertices) == data.triangles.max() + 1
    camera = camera_on_circle(0.1)
    with torch.no_grad():
        torch.testing.assert_close(TexturedMesh(data).render(camera).rgb, mesh.render(camera).rgb)


def test_masks_and_single_pictures_say_nothing() -> None:
    def masked(view):
        return replace(view, mask=torch.zeros(view.rgb.shape[:2], dtype=torch.bool))

    assert cut_by(masked)[1].all()
    assert cut_by(looks=1)[1].all()
