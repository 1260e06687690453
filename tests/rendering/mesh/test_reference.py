"""The reference against gradcheck, and the kernels against the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rendering.mesh.meshes import bumpy, looking_at_origin, sphere
from torch.autograd import gradcheck

from scene4d.rendering.mesh import fragments, reference, silhouettes, textures
from scene4d.rendering.mesh.edges import edges_of
from scene4d.rendering.mesh.fragments import corners_of

SIZE, NEAR = 24, 0.1
SKEW = [[0, 0.31, -0.22], [-0.31, 0, 0.47], [0.22, -0.47, 0]]


@pytest.fixture(scope="module")
def scene():
    """Two bumpy globes of 72 triangles that overlap, as corners; and a third, non-manifold fin."""
    globe, triangles = sphere(4)
    vertices = torch.cat([bumpy(globe), 0.7 * bumpy(globe) + globe.new_tensor([0.8, 0.3, -0.9])])
    both = np.concatenate([triangles, triangles + len(globe)])
    fin = np.array([[both[0][0], both[0][1], len(vertices)]])
    vertices = torch.cat([vertices, vertices.new_tensor([[-0.2, -1.6, 0.1]])])
    turned = vertices @ torch.linalg.matrix_exp(vertices.new_tensor(SKEW))  # no ties at centres
    return corners_of(turned, *looking_at_origin(SIZE)), np.concatenate([both, fin])


def drawn(module, scene, corners=None):
    corners = scene[0] if corners is None else corners
    return module.draw(corners, scene[1], near=NEAR, width=SIZE, height=SIZE)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_kernels_draw_what_the_reference_draws(scene) -> None:
    got, expected = drawn(fragments, scene), drawn(reference, scene)
    assert torch.equal(got.faces, expected.faces) and (got.faces >= 0).sum() > 100
    # float32 of numbers up to 1 and 6
    torch.testing.assert_close(got.weights.double(), expected.weights, rtol=0, atol=1e-6)
    torch.testing.assert_close(got.depths.double(), expected.depths, rtol=0, atol=1e-6)


def gradients(function, *inputs):
    """Of the sum of what ``function`` returns, weighed at random, by each input."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = torch.cat([o.reshape(-1).double() for o in function(*leaves)])
    return torch.autograd.grad((out * random(len(out), seed=5)).sum(), leaves)


def alike(got, expected) -> None:
    """Within float32's rounding of sums of some hundred terms."""
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(
            g.double(), e.double(), rtol=1e-4, atol=1e-4 * float(e.abs().max())
        )


def test_gradients_of_drawing(scene) -> None:
    def of(module):
        def function(corners):
            found = drawn(module, scene, corners)
            return found.weights, found.depths

        return gradients(function, scene[0])

    alike(of(fragments), of(reference))


def test_interpolation_and_its_gradients(scene) -> None:
    shown = drawn(reference, scene)

    def of(module, dtype):
        def function(values, weights):
            kept = fragments.Fragments(faces=shown.faces, weights=weights, depths=shown.depths)
            return (module.interpolate(values, scene[1], kept),)

        values = random(len(scene[0]), 2).to(dtype)
        return gradients(function, values, shown.weights.to(dtype))

    alike(of(fragments, torch.float32), of(reference, torch.float64))


@pytest.mark.parametrize("shape", [(16, 16), (7, 13), (1, 1), (1, 9)])
def test_textures_and_their_gradients(scene, shape) -> None:
    shown = drawn(reference, scene)
    uv = 1.2 * random(SIZE, SIZE, 2) - 0.1  # also beyond the border
    level = 6 * random(SIZE, SIZE, seed=2) - 1

    def of(module, dtype):
        def function(texture, at):
            return (module.sample(texture, at, level.to(dtype), shown),)

        texture = random(*shape, 3, seed=3).to(dtype)
        pictures = function(texture, uv.to(dtype))
        return *pictures, *gradients(function, texture, uv.to(dtype))

    alike(of(textures, torch.float32), of(reference, torch.float64))


def test_the_level_is_the_texels_of_a_pixel(scene) -> None:
    corners, triangles = scene
    shown = drawn(reference, scene)
    uv = random(len(corners), 2)
    at = reference.interpolate(uv, triangles, shown)
    more = {"uv": uv, "uv_triangles": triangles, "size": (32, 64)}
    got = textures.texture_levels(corners, triangles, shown, at=at, **more)
    expected = reference.texture_levels(corners, triangles, shown, **more)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-4)  # of log2, float32


def test_outlines_and_their_gradients(scene) -> None:
    edges, shown = edges_of(scene[1]), drawn(reference, scene)

    def in_layers(image, corners):
        layers = image.split(1, dim=-1)
        got = silhouettes.with_outlines(layers, corners, edges, shown, near=NEAR)
        return (torch.cat(got, dim=-1),)

    def at_once(image, corners):
        return (reference.with_outlines(image, corners, edges, shown, near=NEAR),)

    def of(function, dtype):
        image = random(SIZE, SIZE, 2, seed=4).to(dtype)
        pictures = function(image, scene[0])
        return *pictures, *gradients(function, image, scene[0])

    got, expected = of(in_layers, torch.float32), of(at_once, torch.float64)
    alike(got, expected)
    assert (expected[0] != random(SIZE, SIZE, 2, seed=4)).sum() > 50


def test_the_references_slopes_are_slopes(scene) -> None:
    corners = scene[0].clone().requires_grad_()
    shown = drawn(reference, scene)

    def draws(corners):
        found = reference.at_faces(corners, scene[1], shown.faces)
        return found.weights, found.depths

    assert gradcheck(draws, (corners,), eps=1e-7, atol=1e-4, fast_mode=True)
    image = random(SIZE, SIZE, 1).requires_grad_()
    edges = edges_of(scene[1])

    def moves(image, shift):
        """A shift of the picture: how much an edge counts depends on its direction alone."""
        moved = torch.cat([scene[0][:, :2] + shift * scene[0][:, 2:], scene[0][:, 2:]], dim=1)
        return reference.with_outlines(image, moved, edges, shown, near=NEAR)

    shift = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(moves, (image, shift), eps=1e-7, atol=1e-5, fast_mode=True)
    uv, level = 0.8 * random(SIZE, SIZE, 2) + 0.1, 3 * random(SIZE, SIZE)
    texture = random(8, 8, 2).requires_grad_()
    reads = lambda t, at: reference.sample(t, at, level, shown)  # noqa: E731
    assert gradcheck(reads, (texture, uv.requires_grad_()), eps=1e-7, atol=1e-5, fast_mode=True)
