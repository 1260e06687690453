"""Gaps: a fence whose slats were fused into one board, before a wall."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from methods.mesh.meshes import Photographs, camera_on_circle
from optional_packages import import_or_skip

from scene4d.formats.textured_mesh import MeshData
from scene4d.methods.mesh.baking import baked_texture
from scene4d.methods.mesh.gaps import seen_through, without_gaps
from scene4d.methods.mesh.textured_mesh import TexturedMesh
from scene4d.representations.texture_atlas import flattened

SLATS, ROWS = 8, 8


def board(x: float, half: float, first: float) -> MeshData:
    """A grid of quads across the x axis; its colours are those of the texture from u = ``first``
    on, which is red waves below 0.5 and green ones above."""
    along = np.linspace(-half, half, SLATS + 1)
    y, z = np.meshgrid(along, np.linspace(-half, half, ROWS + 1), indexing="ij")
    vertices = np.stack([np.full_like(y, x), y, z], axis=-1).reshape(-1, 3)
    number = np.arange(len(vertices)).reshape(y.shape)
    a, b, c, d = number[:-1, :-1], number[1:, :-1], number[:-1, 1:], number[1:, 1:]
    quads = np.stack([np.stack([a, b, d], -1), np.stack([a, d, c], -1)], axis=2)
    uv = np.stack([first + 0.05 + 0.4 * (y + half) / (2 * half), (z + half) / (2 * half)], -1)
    rows, columns = np.mgrid[:32, :64]
    waves = 0.5 + 0.3 * np.sin(rows / 2) * np.cos(columns / 3)
    texture = np.zeros((32, 64, 3), np.float32)
    texture[:, :32, 0], texture[:, 32:, 1] = waves[:, :32], waves[:, 32:]
    triangles = quads.reshape(-1, 3)  # slat after slat
    return MeshData(
        vertices=vertices, triangles=triangles, uv=uv.reshape(-1, 2), uv_triangles=triangles,
        texture=texture,
    )  # fmt: skip


def joined(first: MeshData, second: MeshData) -> MeshData:
    """Both; they have one texture."""
    count = len(first.vertices)
    return MeshData(
        vertices=np.concatenate([first.vertices, second.vertices]),
        triangles=np.concatenate([first.triangles, count + second.triangles]),
        uv=np.concatenate([first.uv, second.uv]),
        uv_triangles=np.concatenate([first.uv_triangles, count + second.uv_triangles]),
        texture=first.texture,
    )


FENCE, WALL = board(0.0, 0.9, 0.0), board(-1.5, 4.0, 0.5)
IS_SLAT = np.repeat(np.arange(SLATS) % 2 == 0, 2 * ROWS)
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


def test_masks_and_single_pictures_say_nothing(photographs: Photographs) -> None:
    task = photographs.task()
    photographs.cameras = photographs.cameras[:1]
    one = Photographs(FENCE, 1)
    one.cameras, one.shown = photographs.cameras, photographs.shown
    assert not seen_through(FENCE, WALL, one.task()).any()
    view = photographs.view

    def masked(index: int, downscale: int = 1):
        found = view(0, downscale)
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
