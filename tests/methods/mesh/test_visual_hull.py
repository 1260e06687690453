"""Objects from their outlines: the body that they leave room for, and when a mesh begins as it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from methods.mesh.meshes import Photographs, camera_on_circle, globe
from optional_packages import import_or_skip

from scene4d.cameras.rays import camera_rays
from scene4d.errors import DataError, UsageError
from scene4d.methods.mesh.method import MeshMethod
from scene4d.methods.mesh.start import starting_mesh
from scene4d.methods.mesh.textured_mesh import TexturedMesh
from scene4d.methods.mesh.visual_hull import visual_hull
from scene4d.rendering.render import DEPTH

_RADIUS, _COUNT = 0.8, 60


def cameras(count=_COUNT, **changes):
    return [camera_on_circle(2 * np.pi * i / count, **changes) for i in range(count)]


def ball(camera, centre=(0.0, 0.0, 0.0), radius=_RADIUS):
    """The pixels whose rays meet a ball."""
    rays = camera_rays(camera)
    ahead = rays.directions / rays.directions.norm(dim=-1, keepdim=True)
    away = rays.origins - torch.tensor(centre)
    along = (away * ahead).sum(-1)
    return along.square() - away.square().sum(-1) + radius**2 > 0


def hull(looks, outlines, **wishes):
    wishes = {"centre": np.zeros(3), "reach": 2.8, "voxel": 0.04} | wishes
    return visual_hull(looks, outlines, **wishes)


def test_the_hull_of_a_ball_is_the_ball_but_for_where_no_camera_looks_along():
    import trimesh

    looks = cameras()
    vertices, triangles = hull(looks, [ball(c) for c in looks])
    found = trimesh.Trimesh(vertices, triangles, process=False)
    assert found.is_watertight and found.euler_number == 2
    radii = np.linalg.norm(vertices, axis=1)
    # pixels are 0.045 wide there, and outlines are between their middles
    assert radii.min() > _RADIUS - 0.045
    assert np.median(radii) == pytest.approx(_RADIUS, abs=0.02)
    assert found.volume == pytest.approx(4 / 3 * np.pi * _RADIUS**3, rel=0.06)
    assert found.volume > 0  # counter-clockwise as seen from outside


def test_the_voxel_is_a_share_of_the_object_wherever_that_lies():
    place, looks = (0.3, -0.2, 0.1), cameras()
    vertices, _ = hull(looks, [ball(c, place, 0.2) for c in looks], voxel=None)
    assert np.abs(np.median(vertices, axis=0) - place).max() < 0.02
    steps = np.diff(np.unique(vertices.round(6)[:, 0]))
    assert np.ptp(vertices, axis=0).max() / 160 == pytest.approx(2 * 0.2 / 160, rel=0.2)
    assert steps.max() < 2 * 0.4 / 100


@pytest.mark.parametrize("wrong", ["nothing", "half"])
def test_one_mistaken_outline_of_sixty_cuts_nothing_off(wrong):
    looks = cameras()
    outlines = [ball(c) for c in looks]
    expected = hull(looks, outlines)[0]
    outlines[7] = outlines[7].clone()
    outlines[7][:, : 64 if wrong == "nothing" else 32] = False
    found = hull(looks, outlines)[0]
    assert np.abs(np.ptp(found, axis=0) - np.ptp(expected, axis=0)).max() < 0.02
    few = looks[::6]  # of ten none may be mistaken
    outlines = [ball(c) for c in few]
    outlines[2] = torch.zeros_like(outlines[2])
    assert not len(hull(few, outlines)[1])


def test_what_two_cameras_of_many_see_does_not_belong_to_it():
    looks, beside = cameras(), (3.0, 0.0, 0.0)
    wide = [camera_on_circle(a, distance=9.0) for a in (1.4, 4.5)]
    outlines = [ball(c) for c in looks] + [ball(c) | ball(c, beside) for c in wide]
    vertices, _ = hull(looks + wide, outlines, reach=4.0)
    assert np.abs(vertices).max() < 1.0


def test_outlines_without_a_place_in_common_leave_nothing():
    looks = cameras(12)
    outlines = [ball(c, (0.0, 0.0, 0.8 if i % 2 else -0.8), 0.3) for i, c in enumerate(looks)]
    vertices, triangles = hull(looks, outlines)
    assert vertices.shape == (0, 3) and triangles.shape == (0, 3)


def bowl():
    """A globe whose half of +x is pushed in, which no outline shows."""
    whole = globe()
    vertices = whole.vertices.copy()
    beyond = vertices[:, 0] > 0.1
    vertices[beyond, 0] = 0.2 - vertices[beyond, 0]
    return replace(whole, vertices=vertices)


def middle(vertices):
    """Where the x axis meets it first."""
    return vertices[np.hypot(vertices[:, 1], vertices[:, 2]) < 0.15, 0].max()


def test_depths_carve_out_what_outlines_fill():
    looks, shown = cameras(24), TexturedMesh(bowl())
    with torch.no_grad():
        renders = [shown.render(c, want=DEPTH) for c in looks]
    outlines = [render.alpha > 0.5 for render in renders]
    assert middle(hull(looks, outlines)[0]) > -0.1
    carved = hull(looks, outlines, depths=[render.depth for render in renders])[0]
    # the bottom is at -0.8; two voxels before it are kept, and less is carved than is seen
    assert -0.8 < middle(carved) < -0.6
    unknown = [torch.zeros_like(render.depth) for render in renders]
    assert np.array_equal(hull(looks, outlines, depths=unknown)[0], hull(looks, outlines)[0])


def began(truth, teacher, **options):
    task = replace(Photographs(truth, count=24).task(), teacher=TexturedMesh(teacher))
    options = {"max_triangles": 2000, "voxel": 0.05, "texture_size": 128} | options
    return starting_mesh(task, MeshMethod(**options)).vertices


def test_a_mesh_begins_as_what_looks_more_like_the_photographs():
    import_or_skip("xatlas")
    truth = globe()
    shrunk = replace(truth, vertices=0.8 * truth.vertices)
    found = np.linalg.norm(began(truth, shrunk), axis=1)
    assert found.mean() == pytest.approx(1.0, abs=0.05)
    assert middle(began(bowl(), bowl())) < -0.5


def test_masks_that_leave_nothing_do_not_stand_in_the_way_of_depths():
    import_or_skip("xatlas")
    photographs, truth = Photographs(globe(), count=24), globe()
    see = photographs.view
    photographs.view = lambda i, d=1: replace(see(i, d), alpha=torch.zeros(64, 64))
    task = replace(photographs.task(), teacher=TexturedMesh(truth))
    method = MeshMethod(max_triangles=2000, voxel=0.1, texture_size=64)
    found = np.linalg.norm(starting_mesh(task, method).vertices, axis=1)
    assert found.mean() == pytest.approx(1.0, abs=0.1)


def test_a_hull_needs_outlines_but_no_teacher():
    import_or_skip("xatlas")
    photographs = Photographs(globe())
    method = MeshMethod(start="hull", max_triangles=3000, voxel=0.1, texture_size=64)
    assert not method.starts_from_teacher
    mesh = starting_mesh(photographs.task(), method)
    assert np.linalg.norm(mesh.vertices, axis=1).mean() == pytest.approx(1.0, abs=0.1)
    see = photographs.view
    photographs.view = lambda i, d=1: replace(see(i, d), alpha=None)
    with pytest.raises(UsageError, match="no outline"):
        starting_mesh(photographs.task(), method)
    photographs.view = lambda i, d=1: replace(see(i, d), alpha=torch.zeros(64, 64))
    with pytest.raises(DataError, match="nothing in common"):
        starting_mesh(photographs.task(), method)
