"""Smooth depth: a closed form of planes, what edges let through, and what does not count."""

import math
from types import SimpleNamespace

import pytest
import torch

from scene4d.cameras.camera import Camera
from scene4d.data.scene import View
from scene4d.errors import UsageError
from scene4d.rendering.render import Render
from scene4d.representations.method import DepthSmoothnessOptions
from scene4d.training.objectives.depth_smoothness import DepthSmoothness

pytestmark = pytest.mark.unchecked_shapes

HEIGHT, WIDTH = 6, 8
CAMERA = Camera(c2w=torch.eye(4), K=torch.eye(3), width=WIDTH, height=HEIGHT)
TERM = DepthSmoothness.__new__(DepthSmoothness)
TERM.options = DepthSmoothnessOptions(edges=10.0)


def loss(depth, rgb=None, alpha=None, mask=None):
    """Of one view, as a step would render it."""
    rgb = torch.zeros(HEIGHT, WIDTH, 3) if rgb is None else rgb
    alpha = torch.ones(HEIGHT, WIDTH) if alpha is None else alpha
    render = Render(rgb=rgb, alpha=alpha, depth=depth)
    view = View(index=0, camera=CAMERA, rgb=rgb, mask=mask)
    step = SimpleNamespace(views=[view], background=torch.zeros(3), view=lambda view: render)
    return TERM(step).loss


def plane(slope=0.02):
    """Of a plane inverse depth is linear in the pixels: 1 + slope x."""
    return 1 / (1 + slope * torch.arange(float(WIDTH)).expand(HEIGHT, WIDTH))


def test_of_a_plane_it_is_the_mean_slope_of_its_inverse_depth():
    across, down = HEIGHT * (WIDTH - 1), (HEIGHT - 1) * WIDTH
    wanted = across * 0.02 / (1 + 0.02 * (WIDTH - 1) / 2) / (across + down)
    assert float(loss(plane())) == pytest.approx(wanted, rel=1e-5)  # float32
    assert float(loss(7.0 * plane())) == pytest.approx(wanted, rel=1e-5)  # in any unit
    assert float(loss(torch.full((HEIGHT, WIDTH), 3.0))) == 0.0


def test_an_edge_of_the_picture_lets_depth_change():
    depth, rgb = torch.ones(HEIGHT, WIDTH), torch.zeros(HEIGHT, WIDTH, 3)
    depth[:, 4:] = 2.0
    same = float(loss(depth))
    rgb[:, 4:] = 0.3
    assert float(loss(depth, rgb)) == pytest.approx(same * math.exp(-3.0), rel=1e-5)


def test_pixels_that_show_nothing_or_are_masked_do_not_count():
    depth = torch.ones(HEIGHT, WIDTH)
    depth[2, 3] = 50.0
    assert float(loss(depth)) > 0
    alpha, mask = torch.ones(HEIGHT, WIDTH), torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    alpha[2, 3], mask[2, 3] = 0.4, False
    assert float(loss(depth, alpha=alpha)) == 0.0 and float(loss(depth, mask=mask)) == 0.0
    depth[2, 3] = 0.0
    assert float(loss(depth)) == 0.0  # no depth is no depth
    assert float(loss(depth, alpha=0 * alpha)) == 0.0


def test_it_pulls_depth_flat_and_wants_some():
    depth = plane().requires_grad_()
    loss(depth).backward()
    assert float(depth.grad[:, 0].sum()) > 0 > float(depth.grad[:, -1].sum())  # nearer, farther
    with pytest.raises(UsageError, match="no depth"):
        loss(None)
