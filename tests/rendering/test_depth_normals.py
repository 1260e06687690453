"""Normals by depth: planes, a ball, what lies beside an outline, and gradients."""

from __future__ import annotations

import torch

from scene4d.rendering.depth_normals import normals_of_depth

SIZE = 24
K = torch.tensor([[30.0, 0, 12], [0, 30.0, 12], [0, 0, 1]], dtype=torch.float64)


def rays() -> torch.Tensor:
    """[row, column, 3]: x right, y up, z out of the picture, one unit deep."""
    at = torch.arange(SIZE, dtype=torch.float64) + 0.5 - 12
    rows, columns = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([columns / 30, -rows / 30, -torch.ones_like(rows)], dim=-1)


def test_a_slanted_plane_has_its_normal_everywhere() -> None:
    normal = torch.nn.functional.normalize(torch.tensor([0.3, -0.2, 1.0]).double(), dim=0)
    depth = 3.0 * normal[2] / (-(rays() @ normal))  # the plane through (0, 0, -3)
    found = normals_of_depth(depth, torch.ones_like(depth), K)
    # Differences along a plane lie in it: rounding alone.
    torch.testing.assert_close(found, normal.expand(SIZE, SIZE, 3), rtol=0, atol=1e-10)


def test_a_ball_up_to_its_outline_and_nothing_beside_it() -> None:
    """Of radius 1 at a depth of 4, as a batch of two cameras, one of which is half transparent."""
    d = rays()
    b, c = -4 * d[..., 2], 15.0
    under = b.square() - d.square().sum(-1) * c
    there = under > 0
    depth = torch.where(there, (b - under.clamp_min(0).sqrt()) / d.square().sum(-1), 0.0)
    alpha = torch.stack([there.double(), 0.8 * there.double()])
    found = normals_of_depth(depth.expand(2, SIZE, SIZE), alpha, K)
    exact = torch.where(there[..., None], depth[..., None] * d - d.new_tensor([0, 0, -4]), 0.0)
    assert float(found[0][~there].abs().max()) == 0.0
    torch.testing.assert_close(found[1], 0.8 * found[0])
    # A pixel is 0.13 wide there: well inside the secant is 1% off, at the outline half a slope.
    inside = exact[..., 2] > 0.7
    assert float((found[0] - exact)[inside].abs().max()) < 0.03
    assert float((found[0] * exact).sum(-1)[there].min()) > 0.6


def test_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    depth = 2 + torch.rand(4, 5, generator=generator, dtype=torch.float64)
    depth.requires_grad_()
    alpha = torch.ones(4, 5, dtype=torch.float64)
    alpha[0, 0] = alpha[2, 3] = 0.2
    assert torch.autograd.gradcheck(lambda d: normals_of_depth(d, alpha, K), depth)
