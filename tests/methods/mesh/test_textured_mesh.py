"""Meshes from photographs: painting, starting, refining, and what comes back from files."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from methods.mesh.meshes import Photographs, camera_on_circle, globe, grey
from optional_packages import import_or_skip
from rendering.mesh.meshes import sphere

from scene4d.cli.train import usual_file
from scene4d.errors import DataError, MissingExtraError, UsageError
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.methods.mesh.backdrop import look_one_way, with_backdrop
from scene4d.methods.mesh.baking import baked_texture
from scene4d.methods.mesh.method import MeshMethod
from scene4d.methods.mesh.smoothness import Smoothness
from scene4d.methods.mesh.start import flattened, masked_share, simplified, starting_mesh
from scene4d.methods.mesh.textured_mesh import TexturedMesh
from scene4d.rendering.mesh.edges import edges_of
from scene4d.rendering.mesh.fragments import corners_of, draw
from scene4d.rendering.render import DEPTH, Render
from scene4d.representations.gaussians import GaussianSplats
from scene4d.training.evaluate import mean_psnr
from scene4d.training.objectives.base import ObjectiveInputs
from scene4d.training.objectives.silhouette import Outlines
from scene4d.training.options import TrainOptions
from scene4d.training.run import load_run
from scene4d.training.step import Step
from scene4d.training.train import load_capture, start


def error_of(mesh, truth, angle: float = 0.3) -> float:
    """RMSE of the two pictures from between the photographs."""
    camera = camera_on_circle(angle)
    with torch.no_grad():
        ours, theirs = (TexturedMesh(m).render(camera).rgb for m in (mesh, truth))
    return float((ours - theirs).square().mean().sqrt())


def test_photographs_paint_the_texture_that_they_show() -> None:
    truth = globe()
    photographs = Photographs(truth)
    painted = baked_texture(grey(truth), photographs.task(), even_exposure=False)
    assert error_of(grey(truth), truth) > 0.1
    assert error_of(painted, truth) < 0.012  # pictures are read once more: a little blur


def test_exposures_are_made_even() -> None:
    truth = globe()
    gains = np.exp(0.25 * np.random.default_rng(0).normal(size=12))
    gains = np.minimum(gains / np.exp(np.log(gains).mean()), 1.15)  # nothing is blown out
    task = Photographs(truth, gains=gains).task()
    plain = baked_texture(grey(truth), task, even_exposure=False)
    even = baked_texture(grey(truth), task, even_exposure=True)

    def unevenness(mesh) -> float:
        """Spread of the ratio to the truth, where the middle of the globe was photographed."""
        rows = slice(10, 22)
        ratio = mesh.texture[rows, 2:46] / truth.texture[rows, 2:46]
        return float(np.std(np.log(ratio)))

    assert unevenness(even) < 0.5 * unevenness(plain)


def test_one_picture_that_disagrees_does_not_stain() -> None:
    """Something stands before the camera in one of thirty photographs, of which eight see a
    place."""
    truth = globe()

    class Disturbed(Photographs):
        def view(self, index: int, downscale: int = 1):
            view = super().view(index, downscale)
            return replace(view, rgb=torch.zeros_like(view.rgb)) if index == 3 else view

    painted = baked_texture(grey(truth), Disturbed(truth, 30).task(), even_exposure=False)
    assert error_of(painted, truth, angle=2 * np.pi * 3 / 30) < 0.02  # .1 of a plain mean


def test_refining_finds_the_shape() -> None:
    """A globe that is a tenth too small grows to its outline, by the photographs alone."""
    truth = globe()
    photographs = Photographs(truth)
    mesh = TexturedMesh(replace(truth, vertices=0.9 * truth.vertices))
    optimiser = torch.optim.Adam([mesh.vertices], lr=0.01)
    before = error_of(mesh.mesh(), truth)
    for step in range(60):
        view = photographs.view(step % 12)
        difference = mesh.render(view.camera).rgb - view.rgb * view.alpha[..., None]
        optimiser.zero_grad()
        difference.abs().mean().backward()
        optimiser.step()
    assert error_of(mesh.mesh(), truth) < 0.4 * before
    away = np.linalg.norm(mesh.mesh().vertices - truth.vertices, axis=1)
    assert np.median(away) < 0.05


def test_depth_and_alpha_are_of_the_surface() -> None:
    mesh = TexturedMesh(globe())
    camera = camera_on_circle(1.0)
    seen = mesh.render(camera, background=torch.tensor([1.0, 0, 0]), want=DEPTH)
    assert seen.depth is not None
    torch.testing.assert_close(seen.rgb[0, 0], torch.tensor([1.0, 0, 0]))
    assert float(seen.depth[32, 32]) == pytest.approx(3.0, abs=0.2)  # 4 less a radius with bumps
    assert float(seen.depth[0, 0]) == 0 and float(seen.alpha[0, 0]) == 0


def test_moves_of_all_cost_nothing() -> None:
    mesh = TexturedMesh(globe())
    step = Step(number=0, progress=0.0, trainable=mesh, background=torch.zeros(3))
    options = MeshMethod().smoothness
    task = Photographs(globe(), count=2).task()
    inputs = ObjectiveInputs(task=task, generator=torch.Generator(), device=torch.device("cpu"))
    term = Smoothness(options, inputs)
    with torch.no_grad():
        mesh.vertices += torch.tensor([0.3, 0.0, 0.1])
        assert float(term(step).loss) < 1e-10
        mesh.vertices[4] += 0.1
        assert float(term(step).loss) > 1e-5


def test_files_with_triangles_of_no_vertices_are_refused() -> None:
    mesh = TexturedMesh(globe())
    tensors = {name: value.clone() for name, value in mesh.state_dict().items()}
    tensors["triangles"][3, 1] = len(tensors["vertices"])
    with pytest.raises(DataError, match="triangles name rows beyond"):
        TexturedMesh.from_saved(tensors, mesh.plain_data())
    sound = dict(mesh.state_dict())
    with pytest.raises(DataError, match="no texels"):
        TexturedMesh.from_saved({**sound, "texture": torch.zeros(0, 4, 3)}, mesh.plain_data())
    for plain in ({"vertices_lr": "x", "texture_lr": 1.0}, {}, {**mesh.plain_data(), "more": 1}):
        with pytest.raises(DataError):
            TexturedMesh.from_saved(sound, plain)


def test_a_simplified_mesh_keeps_its_shape() -> None:
    import_or_skip("fast_simplification")
    vertices, triangles = sphere(40)
    fewer, kept = simplified(vertices.numpy(), triangles, 900)
    assert 500 < len(kept) <= 900
    assert np.abs(np.linalg.norm(fewer, axis=1) - 1).max() < 0.03
    assert len(edges_of(kept).ends) == 1.5 * len(kept)  # closed


def test_charts_do_not_lie_on_each_other() -> None:
    import_or_skip("xatlas")
    vertices, triangles = sphere(8)
    uv, rows = flattened(vertices.numpy(), triangles, size=128, padding=2)
    assert uv.min() >= 0 and uv.max() <= 1 and rows.shape == triangles.shape
    a, b, c = (uv[rows[:, i]] for i in range(3))
    areas = 0.5 * np.abs(np.cross(np.pad(b - a, ((0, 0), (0, 1))), np.pad(c - a, ((0, 0), (0, 1)))))
    places = torch.from_numpy(np.concatenate([uv * 512, np.ones((len(uv), 1))], axis=1))
    shown = draw(places, rows, near=0.5, width=512, height=512)
    covered = float((shown.faces >= 0).float().mean())
    assert covered == pytest.approx(areas[:, 2].sum(), rel=0.02)


@pytest.mark.parametrize("module", ["fast_simplification", "xatlas"])
def test_what_is_not_installed_is_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    vertices, triangles = sphere(8)
    with pytest.raises(MissingExtraError, match=r"scene4d\[mesh\]"):
        if module == "xatlas":
            flattened(vertices.numpy(), triangles, size=64, padding=2)
        else:
            simplified(vertices.numpy(), triangles, 100)


def test_what_masks_leave_out_in_many_pictures_is_told() -> None:
    cameras = [camera_on_circle(2 * np.pi * i / 10) for i in range(10)]
    middle = torch.zeros(64, 64, dtype=torch.bool)
    middle[20:44, 20:44] = True
    masks = [None if i == 0 else middle for i in range(10)]
    points = np.array([[0.0, 0, 0], [0, 0, 0.9], [0, 0, 50]])  # inside, above, in no picture
    np.testing.assert_allclose(masked_share(points, cameras, masks), [0, 0.9, 0])


def test_masks_that_leave_out_the_borders_are_outlines() -> None:
    """A mask in the middle, one at the border, and none."""
    photographs = Photographs(globe())
    inputs = ObjectiveInputs(
        task=photographs.task(), generator=torch.Generator(), device=torch.device("cpu")
    )
    assert not Outlines.applies_to(inputs)
    plain = photographs.view
    for kept, expected in ((slice(10, 54), True), (slice(0, 40), False)):
        mask = torch.zeros(64, 64, dtype=torch.bool)
        mask[:, kept] = True
        mask = mask if not expected else mask & mask.T
        photographs.view = lambda i, d=1, mask=mask: replace(plain(i, d), mask=mask)
        assert Outlines.applies_to(inputs) == expected


def test_a_start_without_a_surface_is_told() -> None:
    task = Photographs(globe()).task()
    with pytest.raises(UsageError, match="or --start sphere"):
        starting_mesh(task, MeshMethod(start="teacher"))
    count = 4
    faint = SplatCloud(
        means=np.zeros((count, 3), np.float32), quats=np.ones((count, 4), np.float32),
        log_scales=np.full((count, 3), -3, np.float32),
        logit_opacities=np.full(count, -6, np.float32), sh=np.zeros((count, 1, 3), np.float32),
    )  # fmt: skip
    with pytest.raises(DataError, match="no opaque surface"):
        starting_mesh(replace(task, teacher=GaussianSplats.of(faint)), MeshMethod(start="teacher"))


@pytest.mark.unchecked_shapes
def test_a_ball_becomes_what_was_photographed(tiny_capture, tmp_path) -> None:
    import_or_skip("xatlas")
    options, psnr = TrainOptions(data=tiny_capture, output_dir=tmp_path, evaluate=False), {}
    scene, images = load_capture(options)
    for steps in (1, 80):
        method = MeshMethod(start="sphere", max_triangles=1280, texture_size=128, steps=steps)
        run = load_run(start(method, options))
        assert len(run.representation.triangles) <= 1280
        psnr[steps] = mean_psnr(run.representation, scene, images)
    assert usual_file(run.path) == ("mesh", ".glb")  # what the command says comes next
    assert psnr[80] > psnr[1] + 0.2  # coloured fog has no surface: 14.2 dB, then 14.5


@pytest.mark.parametrize(("around_deg", "one_way"), [(90, True), (150, True), (360, False)])
def test_cameras_all_around_look_at_no_behind(around_deg, one_way) -> None:
    """Mean of unit vectors over an arc a: sin(a / 2) / (a / 2), 0.90, 0.74 and 0, but for the
    circle's tilt."""
    turns = torch.linspace(-around_deg / 2, around_deg / 2, 200).deg2rad()
    cameras = [camera_on_circle(turn) for turn in turns.tolist()]
    assert look_one_way(cameras) == one_way


def test_a_backdrop_closes_the_holes_behind_what_is_there() -> None:
    """A small ball before a wall that was not fused, whose depth the teacher knows."""
    vertices, triangles = sphere(8)
    camera = camera_on_circle(0.0)

    class Wall(torch.nn.Module):
        def render(self, camera, *, background=None, want=DEPTH):
            shape = (camera.height, camera.width)
            return Render(rgb=torch.zeros(*shape, 3), alpha=torch.ones(shape),
                          depth=torch.full(shape, 6.0))  # fmt: skip

    found, faces = with_backdrop(vertices.numpy(), triangles, Wall(), [camera])
    added = found[len(vertices) :]
    np.testing.assert_array_equal(found[: len(vertices)], vertices.numpy())
    corners = corners_of(torch.from_numpy(found), camera.viewmat, camera.K)
    # Of one depth all around, so smoothing changes nothing: float32.
    np.testing.assert_allclose(corners[len(vertices) :, 2], 6.0, rtol=1e-5)
    shown = draw(corners, faces, near=0.1, width=64, height=64)
    assert bool((shown.faces >= 0).all())
    middle = shown.depths[24:40, 24:40]
    assert float(middle.max()) < 4.0 and len(added) < 68 * 68  # and not where the ball is
    assert len(with_backdrop(found, faces, Wall(), [camera])[1]) == len(faces)  # all is closed
