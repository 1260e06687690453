"""Pictures warped by depth: on a plane exactly, and nothing where a camera does not see."""

from dataclasses import replace

import torch

from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import unproject
from scene4d.rendering.render import Render
from scene4d.rendering.warping import warped


def camera(x=0.0, size=32):
    c2w = torch.eye(4)
    c2w[0, 3] = x
    middle = size / 2
    K = torch.tensor([[size * 1.0, 0, middle], [0, size * 1.0, middle], [0, 0, 1]])
    return Camera(c2w=c2w, K=K, width=size, height=size)


def plane(at, distance=2.0):
    depth = torch.full((at.height, at.width), distance)
    places = unproject(at, depth)
    rgb = torch.cat([places[..., :2] * 0.2 + 0.5, torch.zeros_like(places[..., :1])], dim=-1)
    return Render(rgb=rgb, alpha=torch.ones_like(depth), depth=depth)


def test_a_plane_seen_from_the_side_has_its_colours_where_the_photograph_shows_it():
    one, other = camera(), camera(0.5)
    seen = plane(other)
    colours, known = warped(plane(one).rgb, one, plane(one), other, seen)
    # half a unit at distance 2 is a quarter of the picture
    assert known.float().mean(dim=0).tolist() == [1.0] * 24 + [0.0] * 8
    # colours are linear in place, so that bilinear sampling is exact but for the outermost pixel
    assert torch.allclose(colours[1:-1, 1:23], seen.rgb[1:-1, 1:23], atol=1e-5)
    assert not colours[:, 24:].any()


def test_what_is_hidden_behind_empty_or_transparent_is_not_known():
    one, other = camera(), camera(0.1)
    seen, nearer = plane(other), plane(one, 1.0)
    assert not warped(nearer.rgb, one, nearer, other, seen)[1].any()
    air = replace(nearer, alpha=torch.zeros(32, 32))
    assert warped(nearer.rgb, one, air, other, seen)[1].any()
    unseen = replace(seen, alpha=torch.zeros(32, 32), depth=torch.zeros(32, 32))
    colours, known = warped(nearer.rgb, one, air, other, unseen)
    assert not known.any() and bool(colours.isfinite().all())
