"""Gaps: a fence whose slats were fused into one board, before a wall."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from methods.mesh.meshes import Photographs, board, camera_on_circle, joined
from optional_packages import import_or_skip

from scene4d.formats.textured_mesh import MeshData
from scene4d.methods.mesh.baking import baked_texture
from scene4d.methods.mesh.gaps import seen_through, without_gaps
from scene4d.methods.mesh.textured_mesh import TexturedMesh
from scene4d.representations.texture_atlas import flattened

SLATS = 8


FENCE, WALL = board(0.0, 0.9, 0.0, SLATS), board(-1.5, 4.0, 0.5, SLATS)
IS_SLAT = np.repeat(np.arange(SLATS) % 2 == 0, 2 * SLATS)
"""Of the board's triangles: every second slat is there."""


@pytest.fixture
def photographs() -> Photographs:
    """From in front alone, with the wall seen between the slats."""
    slats = {"triangles": FENCE.triangles[IS_SLAT], "uv_triangles": FENCE.triangles[IS_SLAT]}
    shown = Photographs(joined(replace(FENCE, **slats), WALL))
    shown.cameras = [camera_on_circle(angle) for angle in np.linspace(-0.3, 0.3, 12)]
    return shown


def test_triangles_that_photographs_see_through_are_found(photographs: Photographs) -> None:
    np.testing.assert_array_equal(seen_through(FENCE, WALL, photographs.task()), ~IS_SLAT)


def test_masks_leave_out(photographs: Photographs) -> None:
    task, view = photographs.task(), photographs.view

    def masked(index: int, downscale: int = 1):
        found = view(index, downscale)
        return replace(found, mask=torch.zeros(found.rgb.shape[:2], dtype=torch.bool))

    photographs.view = masked
    assert not seen_through(FENCE, WALL, task).any()


def test_gaps_show_what_lies_behind(photographs: Photographs) -> None:
    import_or_skip("xatlas")
    task = replace(photographs.task(), teacher=photographs.shown)

    def paint(vertices, triangles, showing):
        uv, rows = flattened(vertices, triangles, size=256, padding=2)
        bare = MeshData(
            vertices=vertices, triangles=triangles, uv=uv, uv_triangles=rows,
            texture=np.full((256, 256, 3), 0.5, np.float32),
        )  # fmt: skip
        return baked_texture(bare, task, even_exposure=False, showing=showing)

    def error_of(vertices, triangles) -> float:
        view = photographs.view(6)
        with torch.no_grad():
            shown = TexturedMesh(paint(vertices, triangles, None)).render(view.camera)
        return float((shown.rgb - view.rgb).abs().mean())

    closed = joined(FENCE, WALL)
    found = without_gaps(FENCE.vertices, FENCE.triangles, task, paint)
    # What is between the slats is a painted board in one, and the wall in the other.
    assert error_of(*found) < 0.7 * error_of(closed.vertices, closed.triangles)
