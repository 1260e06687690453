"""Triplane fields: known shapes, and pictures of them by fog and by mesh."""

from __future__ import annotations

import math

import pytest
import torch
from methods.mesh.meshes import camera_on_circle
from rendering.isosurface.shapes import is_closed_manifold, volume
from torch import nn

from scene4d.cameras.camera import Camera
from scene4d.rendering.isosurface.near_surface import distances_near_surface
from scene4d.rendering.render import DEPTH
from scene4d.representations.triplane_field import (
    TriplaneField,
    TriplaneNetworks,
    TriplaneShape,
)
from scene4d.representations.triplane_rendering import (
    Box,
    Fog,
    fog_picture,
    mesh_picture,
    rough_distances,
)

SHAPE = TriplaneShape(resolutions=(8, 16), channels=4, neurons=8, radius=0.6)
BOX = Box(centre=(0.1, 0.0, -0.1), half=1.5)


def ball(shape: TriplaneShape = SHAPE) -> TriplaneField:
    """Planes of zeros and new networks: a grey ball of 0.6 half sides, exactly."""
    networks = TriplaneNetworks(shape, generator=torch.Generator().manual_seed(0))
    return TriplaneField(torch.zeros(shape.planes.texels, shape.channels), networks)


def fog(field: TriplaneField, blur: float, steps: int = 256) -> Fog:
    return Fog(blur=blur, steps=steps, rough=rough_distances(field, 32))


def places(count: int = 50) -> torch.Tensor:
    return 2 * torch.rand(count, 3, generator=torch.Generator().manual_seed(3)) - 1


def test_new_networks_on_planes_of_zeros_are_a_grey_ball() -> None:
    at = places()
    torch.testing.assert_close(ball().distance(at), at.norm(dim=1) - 0.6)
    assert (ball().colour(at) == 0.5).all()


def test_planes_of_a_network_lie_where_the_table_has_them() -> None:
    """Texels that say their own coordinate are read back at any place."""
    shape = TriplaneShape(resolutions=(5, 9), channels=2, neurons=4)
    levels = []
    for side in shape.resolutions:
        along = torch.linspace(-1, 1, side)
        columns, rows = along.expand(side, side), along[:, None].expand(side, side)
        levels.append(torch.stack([columns, rows]).expand(3, 2, side, side))
    field = TriplaneField.of_planes(levels, TriplaneNetworks(shape))
    at = places()
    x, y, z = at.unbind(dim=1)
    expected = torch.stack([x, y, x, z, y, z] * 2 + [x, y, z, torch.ones_like(x)], dim=1)
    torch.testing.assert_close(field.features(at), expected)


@pytest.mark.parametrize("shown", ["fog", "mesh"])
def test_planes_of_a_network_get_the_slope_of_the_picture(shown: str) -> None:
    g = torch.Generator().manual_seed(4)
    levels = [
        (0.1 * torch.randn(3, 4, side, side, generator=g)).requires_grad_()
        for side in SHAPE.resolutions
    ]
    networks = TriplaneNetworks(SHAPE, generator=g)
    nn.init.normal_(networks.distance.weights[-1], std=0.2, generator=g)
    camera = camera_on_circle(0.3, size=32)

    def area(planes):
        field = TriplaneField.of_planes(planes, networks)
        if shown == "fog":
            return fog_picture(field, BOX, camera, fog(field, 0.05, 64)).alpha.sum()
        return mesh_picture(field, BOX, camera, field.surface(32)).alpha.sum()

    gradients = torch.autograd.grad(area(levels), levels)
    assert all((gradient.abs().amax(dim=(1, 2, 3)) > 0).all() for gradient in gradients)
    size = torch.stack([gradient.norm() for gradient in gradients]).norm()
    step = 0.02 / size
    with torch.no_grad():
        ends = [
            area([p + sign * step * g for p, g in zip(levels, gradients, strict=True)])
            for sign in (1, -1)
        ]
    # Outlines are edges of triangles, and where parts of rays begin is not learned.
    assert ((ends[0] - ends[1]) / (2 * step)).item() == pytest.approx(size.item() ** 2, rel=0.15)


@pytest.mark.parametrize("bends_cubes", [False, True])
def test_its_surface_is_a_closed_ball(bends_cubes: bool) -> None:
    shape = TriplaneShape(resolutions=(8,), channels=2, radius=0.6, bends_cubes=bends_cubes)
    found = ball(shape).surface(32)
    assert is_closed_manifold(found.mesh)
    exact = 4 / 3 * math.pi * 0.6**3
    assert volume(found.mesh).item() == pytest.approx(exact, rel=0.02)  # 32 cubes along a side


def test_what_fills_the_box_is_closed_at_its_sides() -> None:
    found = ball(TriplaneShape(resolutions=(8,), channels=2, radius=9.0)).surface(16)
    assert is_closed_manifold(found.mesh)
    assert 7.3 < volume(found.mesh).item() < 8  # its edges are bevelled by half a cube


def test_asking_near_the_surface_is_asking_everywhere() -> None:
    g = torch.Generator().manual_seed(5)
    field = ball()
    field.table = 0.02 * torch.randn(field.table.shape, generator=g)
    every, near = field.surface(48, coarser=1), field.surface(48, coarser=2)
    torch.testing.assert_close(near.mesh.vertices, every.mesh.vertices)
    asked = 0

    def counting(at):
        nonlocal asked
        asked += len(at)
        return TriplaneField.distance(field, at)

    field.distance = counting
    field.surface(48, coarser=2)
    assert asked < 49**3 / 2


def test_what_is_thinner_than_a_coarse_cube_is_found() -> None:
    """A stick of 1.6 fine cubes, between the corners of the coarse ones."""
    lower = torch.full((3,), -1.0)

    def stick(at):
        beyond = (
            at - torch.tensor([1 / 32, 1 / 32, 0]) - at.clamp(-0.6, 0.6) * at.new_tensor([0, 0, 1])
        )
        return beyond.norm(dim=1) - 0.025

    found = distances_near_surface(stick, lower=lower, upper=-lower, cells=64)
    every = distances_near_surface(stick, lower=lower, upper=-lower, cells=64, coarser=1)
    assert torch.equal(found < 0, every < 0) and (every < 0).sum() > 30


def test_clear_fog_is_the_mesh() -> None:
    """But for a blurred outline, some hundredths of the ball's radius wide."""
    field = ball()
    nn.init.normal_(field.networks.colour.weights[-1], generator=torch.Generator().manual_seed(2))
    camera = camera_on_circle(1.1, size=48)
    with torch.no_grad():
        of_fog = fog_picture(field, BOX, camera, fog(field, 0.01), want=DEPTH)
        of_mesh = mesh_picture(field, BOX, camera, field.surface(48), want=DEPTH)
    assert (of_fog.alpha - of_mesh.alpha).abs().mean() < 0.01
    assert (of_fog.rgb - of_mesh.rgb).abs().mean() < 0.01
    solid = (of_mesh.alpha == 1) & (of_fog.alpha > 0.99)
    assert (of_fog.depth - of_mesh.depth)[solid].abs().mean() < 0.03  # of 3: 0.01 of the box


def test_a_ray_into_the_ball_is_as_opaque_as_the_deepest_place_on_it() -> None:
    """Alpha of NeuS: light falls to sigmoid(distance / blur) and never rises again."""
    blur, field = 0.05, ball()
    heights = torch.tensor([0.3, 0.5, 0.58, 0.6, 0.62, 0.7])
    for height in heights.tolist():
        c2w = torch.eye(4)
        c2w[:3, 3] = torch.tensor([0.1 + 1.5 * height, 0.0, 5.0])
        K = torch.tensor([[1e4, 0, 0.5], [0, 1e4, 0.5], [0, 0, 1]])
        with torch.no_grad():
            seen = fog_picture(
                field, BOX, Camera(c2w=c2w, K=K, width=1, height=1), fog(field, blur)
            )
        expected = 1 / (1 + math.exp((height - 0.6) / blur))
        # From far off, where the sigmoid is 0.998; parts of 2 / 256; what is left out.
        assert seen.alpha.item() == pytest.approx(expected, abs=0.01), height


def test_leaving_out_empty_and_hidden_parts_changes_nothing_one_sees() -> None:
    field = ball()
    camera = camera_on_circle(0.3, size=24)
    few = fog(field, 0.03)
    says_nothing = torch.ones(33, 33, 33)
    says_nothing[::2] = -1  # near everywhere, deep nowhere
    every = Fog(blur=0.03, steps=256, rough=says_nothing)
    with torch.no_grad():
        skipped, whole = (fog_picture(field, BOX, camera, f) for f in (few, every))
    assert (skipped.alpha - whole.alpha).abs().max() < 0.003  # what Fog leaves out
    assert 0.1 < whole.alpha.mean() < 0.9
