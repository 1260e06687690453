"""Finite input has finite gradients, also where a camera's matrix has no inverse."""

from __future__ import annotations

import pytest
import torch

from scene4d.rendering.splats.rasterization import rasterize
from scene4d.rendering.splats.reference import camera_centres

LEAVES = ("means", "quats", "scales", "opacities", "colors", "viewmats")


def no_rotation(viewmat: torch.Tensor) -> None:
    viewmat[:3, :3] = 0


def one_direction(viewmat: torch.Tensor) -> None:
    viewmat[:3, :3] = torch.tensor([[0.3], [0.2], [0.5]]) * torch.tensor([0.1, -0.2, 0.4])


def shrunk(viewmat: torch.Tensor) -> None:
    viewmat[:3, :3] *= 1e-14


def no_last_row(viewmat: torch.Tensor) -> None:
    viewmat[3] = 0


@pytest.mark.parametrize("spoil", [no_rotation, one_direction, shrunk, no_last_row])
@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_gradients_at_cameras_without_an_inverse_are_finite(random_scene, spoil, mode) -> None:
    grads = {}
    for backend in ("numba", "reference"):
        scene = random_scene(seed=3, num=12, cameras=2, sh_degree=1, dtype=torch.float32)
        spoil(scene["viewmats"][0])  # the second camera stays as it is
        scene["means"][0] = 0.0  # where such a camera counts to stand
        leaves = {name: scene[name].requires_grad_() for name in LEAVES}
        image, alphas, _ = rasterize(
            **scene, width=40, height=28, sh_degree=1, rasterize_mode=mode, backend=backend
        )
        assert bool(image.isfinite().all())
        (image.square().sum() + alphas.sum()).backward()
        grads[backend] = {name: leaf.grad for name, leaf in leaves.items()}
        for name, grad in grads[backend].items():
            assert bool(grad.isfinite().all()), (backend, name)
    for name in LEAVES:
        fast, slow = grads["numba"][name], grads["reference"][name]
        # Two ways of summing float32; footprints of such cameras are needles.
        assert float((fast - slow).abs().max()) <= 1e-2 * float(slow.abs().max()), name


def test_a_camera_without_an_inverse_stands_at_the_origin() -> None:
    viewmats = torch.eye(4).repeat(2, 1, 1)
    viewmats[:, :3, 3] = torch.tensor([1.0, 2.0, 3.0])
    viewmats[1, :3, :3] = 0
    centres = camera_centres(viewmats)
    assert centres.tolist() == [[-1.0, -2.0, -3.0], [0.0, 0.0, 0.0]]
