"""The rasteriser against closed forms, and its slopes against those of 16 x 16 finer pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from optional_packages import import_or_skip
from rendering.mesh.deodr_scenes import deodr_scene
from rendering.mesh.meshes import looking_at_origin, sphere, square, two_spheres

from scene4d.rendering.mesh.edges import edges_of
from scene4d.rendering.mesh.fragments import corners_of, draw, interpolate
from scene4d.rendering.mesh.rasterization import Mesh, rasterize
from scene4d.rendering.mesh.textures import sample

FINER = 16
GREY = torch.full((4, 4, 3), 0.5)


def picture(mesh: Mesh, size: int, **more):
    distance = more.pop("distance", 5.0)
    return rasterize(
        mesh, *looking_at_origin(size, distance=distance), width=size, height=size, **more
    )


def test_a_square_covers_what_it_covers() -> None:
    # Seen at 5 units with a focal length of 1.5 widths: 0.6 widths wide.
    size = 50
    seen = picture(square(GREY, half=0.987), size, normals=True)
    side = 2 * 0.987 * 1.5 * size / 5
    # An outline's share is exact along straight edges; the four corners are off by up to a pixel.
    assert abs(float(seen.alpha.double().sum()) - side**2) < 1.0
    edge = (size - side) / 2  # of its left side, in pixels
    column = seen.alpha[25]
    assert float(column[: math.floor(edge)].sum()) == 0
    assert float(column[math.floor(edge)]) == pytest.approx(1 - edge % 1, abs=1e-5)
    inside = seen.alpha == 1
    torch.testing.assert_close(seen.depths[inside], torch.full((int(inside.sum()),), 5.0))
    torch.testing.assert_close(seen.rgb, 0.5 * seen.alpha[..., None].expand(-1, -1, 3))
    centre = seen.normals[25, 25]
    torch.testing.assert_close(centre, torch.tensor([0.0, 0.0, -1.0]))  # toward the camera


def test_a_sphere_covers_a_disc() -> None:
    vertices, triangles = sphere(60)
    mesh = Mesh(
        vertices=vertices.float(), triangles=triangles, colours=torch.ones(len(vertices), 3)
    )
    seen = picture(mesh, 64)
    radius = 1.5 * 64 / math.sqrt(5**2 - 1)
    # The polygon's area is less by up to (pi / 120)^2 / 3 = 2e-4; the rest is of outlines.
    assert float(seen.alpha.double().sum()) == pytest.approx(math.pi * radius**2, rel=2e-3)


def test_attributes_are_perspective_correct() -> None:
    """A floor that runs away: the interpolated place is where the pixel's ray meets it."""
    corners = torch.tensor([[-9.0, 1, 1], [9, 1, 1], [9, 1, 60], [-9, 1, 60]])
    triangles = np.array([[0, 1, 2], [0, 2, 3]], dtype=np.int64)
    K = looking_at_origin(40)[1]
    seen = draw(corners_of(corners, torch.eye(4), K), triangles, near=0.1, width=40, height=40)
    place = interpolate(corners, triangles, seen)[seen.faces >= 0]
    rows, columns = torch.nonzero(seen.faces >= 0).T + 0.5
    z = 60 / (rows - 20)
    expected = torch.stack([(columns - 20) * z / 60, torch.ones_like(z), z], dim=-1)
    torch.testing.assert_close(place, expected.to(place), rtol=1e-5, atol=1e-5)


def test_a_triangle_across_the_cameras_plane_is_drawn_where_it_is_before_it() -> None:
    """The floor goes on behind the camera; its near part fills the picture's lower half."""
    corners = torch.tensor([[-90.0, 1, -50], [90, 1, -50], [0, 1, 500]])
    seen = draw(
        corners_of(corners, torch.eye(4), looking_at_origin(40)[1]),
        np.array([[0, 1, 2]], dtype=np.int64), near=0.5, width=40, height=40,
    )  # fmt: skip
    assert (seen.faces[22:] == 0).all() and (seen.faces[:20] == -1).all()
    torch.testing.assert_close(seen.depths[39], torch.full((40,), 60 / 19.5))


def test_shared_edges_have_no_gaps_and_nearer_wins() -> None:
    vertices, triangles = sphere(40)
    seen = picture(
        Mesh(vertices=vertices.float(), triangles=triangles, colours=vertices.float()), 80
    )
    row, column = np.mgrid[:80, :80] + 0.5 - 40
    inside = row**2 + column**2 < (0.95 * 1.5 * 80 / math.sqrt(24)) ** 2
    assert (seen.faces.numpy()[inside] >= 0).all()
    assert float(seen.depths[torch.from_numpy(inside)].max()) < 5.0  # its front


def test_edges_of_any_mesh() -> None:
    fan = np.array([[0, 1, 2], [1, 0, 3], [0, 1, 4], [5, 5, 6]], dtype=np.int64)
    edges = edges_of(fan)
    assert len(edges.ends) == 7  # three triangles at one edge; one without area has none
    first = edges.opposite[edges.starts[0] : edges.starts[1]]
    assert edges.ends[0].tolist() == [0, 1] and first.tolist() == [2, 3, 4]


MOVES = ("x", "y", "towards", "turn", "grow", "bulge")


def moved(vertices: torch.Tensor, amounts: torch.Tensor) -> torch.Tensor:
    """Of the nearer globe: along x, y and z, turned, larger, and with a bulge."""
    half = len(vertices) // 2
    first, rest = vertices[:half], vertices[half:]
    centre = first.mean(dim=0).detach()
    local = first - centre
    x, y, z, turn, grow, bulge = amounts
    c, s = torch.cos(turn), torch.sin(turn)
    spin = torch.stack([torch.stack([c, -s, 0 * c]), torch.stack([s, c, 0 * c]),
                        torch.stack([0 * c, 0 * c, 1 + 0 * c])])  # fmt: skip
    shape = (1 + grow) + bulge * (3 * local).sin().prod(dim=-1, keepdim=True)
    return torch.cat([(local * shape) @ spin.T + centre + torch.stack([x, y, z]), rest])


@pytest.mark.parametrize("rings", [12, 50, 100])  # 1.1k, 20k and 80k triangles
def test_slopes_are_those_of_the_supersampled_picture(rings: int) -> None:
    """Within a tenth at every tessellation: the bias of edges on coarse meshes is some percent."""
    size = 48
    vertices, triangles, colours = two_spheres(rings)
    viewmat, K = looking_at_origin(size, focal=1.3)
    weights = torch.nn.functional.interpolate(
        torch.randn(1, 3, 5, 5, generator=torch.Generator().manual_seed(0)),
        (size, size), mode="bicubic",
    )[0].permute(1, 2, 0)  # fmt: skip
    amounts = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    mesh = Mesh(vertices=moved(vertices, amounts), triangles=triangles, colours=colours)
    seen = rasterize(mesh, viewmat, K, width=size, height=size)
    (got,) = torch.autograd.grad((seen.rgb * weights).sum(), amounts)
    finer = K * K.new_tensor([FINER, FINER, 1.0])[:, None]
    step, expected = 4e-3, []
    for amount in torch.eye(6, dtype=torch.float64) * step:
        ends = []
        for sign in (1, -1):
            corners = corners_of(moved(vertices, sign * amount), viewmat, finer)
            shown = draw(corners, triangles, near=0.1, width=FINER * size, height=FINER * size)
            fine = interpolate(colours, triangles, shown)
            coarse = fine.reshape(size, FINER, size, FINER, 3).mean(dim=(1, 3))
            ends.append(float((coarse.double() * weights).sum()))
        expected.append((ends[0] - ends[1]) / (2 * step))
    slope = torch.tensor(expected, dtype=torch.float64)
    error = float((got - slope).norm() / slope.norm())
    assert error < 0.1, dict(zip(MOVES, zip(got.tolist(), expected, strict=True), strict=True))


def test_the_camera_has_the_slope_of_the_world() -> None:
    vertices, triangles, colours = two_spheres(12)
    viewmat, K = looking_at_origin(32)
    viewmat.requires_grad_()
    places = vertices.clone().requires_grad_()
    seen = rasterize(
        Mesh(vertices=places, triangles=triangles, colours=colours), viewmat, K, width=32, height=32
    )
    shift, of_vertices = torch.autograd.grad(seen.rgb.square().sum(), (viewmat, places))
    torch.testing.assert_close(shift[:3, 3], of_vertices.sum(dim=0), rtol=1e-6, atol=1e-6)


def test_what_cannot_be_drawn_is_left_out() -> None:
    vertices, triangles = sphere(8)
    vertices[3] = float("nan")
    vertices[5] = float("inf")
    vertices[7, 0] = 1e30
    places = vertices.float().requires_grad_()
    seen = picture(
        Mesh(vertices=places, triangles=triangles, colours=torch.ones(len(places), 3)), 32
    )
    for part in (seen.rgb, seen.alpha, seen.depths):
        assert torch.isfinite(part).all()
    assert 0 < float(seen.alpha.mean()) < 1
    seen.rgb.sum().backward()
    assert torch.isfinite(places.grad[torch.isfinite(vertices).all(-1)]).all()


@pytest.mark.parametrize("distance", [0.0, -5.0])
def test_nothing_before_the_camera_is_an_empty_picture(distance: float) -> None:
    vertices, triangles = sphere(8, radius=0.0 if distance == 0 else 1.0)
    places = vertices.float().requires_grad_()
    seen = picture(
        Mesh(vertices=places, triangles=triangles, colours=torch.ones(len(places), 3)),
        16, distance=distance,
    )  # fmt: skip
    assert not seen.alpha.any() and (seen.faces == -1).all()
    seen.rgb.sum().backward()
    assert not places.grad.any()


def test_colours_of_places_are_those_of_vertices_where_both_are_linear() -> None:
    vertices, triangles = sphere(10)
    slope = torch.tensor([[0.3, 0.1, 0.0], [-0.2, 0.2, 0.1], [0.1, 0.0, -0.3]])

    def paint(places):
        return 0.5 + places @ slope.to(places)

    pictures, gradients = [], []
    for at_places in (False, True):
        places = vertices.float().requires_grad_()
        colours = {"paint": paint} if at_places else {"colours": paint(places)}
        seen = picture(Mesh(vertices=places, triangles=triangles, **colours), 32)
        weights = torch.rand(seen.rgb.shape, generator=torch.Generator().manual_seed(0))
        (gradient,) = torch.autograd.grad((seen.rgb * weights).sum(), places)
        pictures.append(seen.rgb)
        gradients.append(gradient)
    # float32 of numbers up to 1, and of sums of some tens of slopes
    torch.testing.assert_close(pictures[1], pictures[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(
        gradients[1], gradients[0], rtol=0, atol=1e-4 * gradients[0].abs().max().item()
    )


def test_a_mesh_without_triangles_is_an_empty_picture() -> None:
    none = Mesh(
        vertices=torch.zeros(0, 3), triangles=np.empty((0, 3), np.int64), colours=torch.zeros(0, 3)
    )
    assert not picture(none, 16).alpha.any()


def test_textures_are_read_within_their_borders() -> None:
    seen = draw(
        corners_of(square(GREY).vertices, *looking_at_origin(8)),
        square(GREY).triangles, near=0.1, width=8, height=8,
    )  # fmt: skip
    nowhere = torch.full((8, 8, 2), float("nan"))
    for uv, level in ((nowhere, 0.0), (torch.full_like(nowhere, 1e30), 1e30), (nowhere, -1e30)):
        found = sample(torch.rand(5, 3, 2), uv, torch.full((8, 8), level), seen)
        assert float(found.nan_to_num().abs().max()) < 2
    with pytest.raises(ValueError, match="a texture of"):
        sample(torch.rand(0, 3, 2), nowhere, torch.zeros(8, 8), seen)


def test_wrong_shapes_are_told() -> None:
    corners = torch.zeros(3, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="vertices beyond the 3"):
        draw(corners, np.array([[0, 1, 3]], dtype=np.int64), near=0.1, width=8, height=8)
    with pytest.raises(ValueError, match="a picture of 0 x 8"):
        draw(corners, np.array([[0, 1, 2]], dtype=np.int64), near=0.1, width=0, height=8)


def test_deodr_draws_the_same() -> None:
    """Its outlines lie otherwise in their pixels, and its colours are linear on the screen."""
    import_or_skip("deodr")
    size = 64
    vertices, triangles, _ = two_spheres(30)
    colours = torch.tensor([[0.9, 0.2, 0.1], [0.1, 0.4, 0.8]], dtype=torch.float64)
    colours = colours.repeat_interleave(len(vertices) // 2, dim=0)
    view = looking_at_origin(size)
    theirs, _ = deodr_scene(vertices, triangles, colours, view, size).render(sigma=1.0)
    mesh = Mesh(vertices=vertices, triangles=triangles, colours=colours)
    ours = rasterize(mesh, *view, width=size, height=size).rgb.numpy()
    difference = np.abs(ours - theirs).max(axis=-1)
    near_outline = difference > 1e-5  # float32
    assert near_outline.mean() < 0.12  # some 450 of 4096 pixels are beside one
    assert np.abs(ours.mean(axis=(0, 1)) - theirs.mean(axis=(0, 1))).max() < 0.02
