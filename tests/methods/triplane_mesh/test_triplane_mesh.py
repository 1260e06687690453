"""The method triplane-mesh: it learns a shape, keeps it closed, and exports it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from methods.mesh.meshes import Photographs, camera_on_circle, globe
from methods.triplane_mesh.fields import SETTINGS, a_mesh
from optional_packages import import_or_skip

from scene4d.errors import DataError, UsageError
from scene4d.methods.mesh.bundle_kind import MeshKind, encode_mesh
from scene4d.methods.mesh.textured_mesh import TexturedMesh
from scene4d.methods.triplane_mesh.method import TriplaneMeshMethod
from scene4d.methods.triplane_mesh.objectives import slopes
from scene4d.methods.triplane_mesh.place import find_place
from scene4d.representations.task import Task, World
from scene4d.training.objectives.base import ObjectiveInputs
from scene4d.training.objectives.silhouette import Silhouette
from scene4d.training.sampling import parts_of
from scene4d.training.step import Step
from scene4d.training.trainer import build_objectives


def test_the_box_is_what_alpha_leaves() -> None:
    task = Photographs(globe()).task()
    box = find_place(task).box
    # The globe's bumps reach 1.16; above and below it no camera looks past it, up to 1.9.
    assert 1.16 < box.half < 2.4
    assert max(abs(c) for c in box.centre) < 0.3
    assert find_place(task, 2.0).box.half == 2.0


def test_it_starts_as_what_the_outlines_leave() -> None:
    """Which holds the object, and looks like it in outline."""
    photographs = Photographs(globe())
    task = photographs.task()
    made = small().build(task, generator=torch.Generator().manual_seed(0))
    places = torch.from_numpy(globe().vertices).float() * 0.93  # half a cell of the hull, inside
    assert (made.field.distance(made.box.inside(places)) < 0).float().mean() > 0.99
    made.on_progress(1.0)
    for index in (1, 6):
        view = photographs.view(index)
        with torch.no_grad():
            seen = made.render(view.camera)
        assert (seen.alpha - view.alpha).abs().mean() < 0.05  # of which the globe fills half


def small(**options) -> TriplaneMeshMethod:
    return TriplaneMeshMethod(
        grid=16, resolutions=(8, 16), channels=4, neurons=16, rays=256, pictures=4,
        march_steps=32, planes_lr=0.03, networks_lr=0.01, **options,
    )  # fmt: skip


def test_without_photographs_there_is_no_box() -> None:
    with pytest.raises(UsageError, match="photographs"):
        find_place(Task(world=World()))


@torch.no_grad()
def error_of(made, photographs) -> torch.Tensor:
    """Mean squared, of the mesh on black."""
    made.on_progress(1.0)
    errors = []
    for index in (1, 6):
        view = photographs.view(index)
        seen = made.render(view.camera)
        errors.append((seen.rgb - view.rgb * view.alpha[..., None]).square().mean())
        assert (seen.alpha - view.alpha).abs().mean() < 0.05
    return torch.stack(errors).mean()


def trained(steps: int, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """The errors before and after some steps by hand, on photographs of a globe."""
    method, photographs = small(**options), Photographs(globe())
    task = photographs.task()
    generator = torch.Generator().manual_seed(0)
    made = method.build(task, generator=generator)
    before = error_of(made, photographs)
    inputs = ObjectiveInputs(task=task, generator=generator, device=torch.device("cpu"))
    terms = build_objectives(method, inputs)
    groups = [
        {"params": list(g.parameters), "lr": g.learning_rate} for g in made.parameter_groups()
    ]
    optimiser = torch.optim.Adam(groups)
    for number in range(steps):
        progress = number / steps
        made.on_progress(progress)
        views = [photographs.view(i) for i in range(number % 3, 12, 3)]
        views = views[:1] if made.sampling.of == "images" else [
            parts_of(views, made.sampling, generator)
        ]  # fmt: skip
        step = Step(
            number=number, progress=progress, trainable=made, views=views,
            background=torch.rand(3, generator=generator),
        )  # fmt: skip
        losses = [term.options.weight * term(step).loss for term in terms]
        optimiser.zero_grad()
        torch.stack(losses).sum().backward()
        optimiser.step()
    return before, error_of(made, photographs)


@pytest.mark.parametrize(("bends_cubes", "steps", "left"), [(False, 60, 0.4), (True, 30, 0.7)])
def test_it_learns_a_globe(bends_cubes: bool, steps: int, left: float) -> None:
    """The shape is nearly there at the start, all grey."""
    before, after = trained(steps, bends_cubes=bends_cubes)
    assert after < left * before


def test_slopes_are_those_of_the_distance() -> None:
    field = a_mesh(strength=0.0).field
    at = 0.2 + 0.5 * torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    found = slopes(field, at, 1e-2)
    expected = at / at.norm(dim=1, keepdim=True)
    # Planes of 1e-3 on texels of 1/8 are a slope of 0.01; the ball bends by the reach over 0.2.
    assert (found - expected).norm(dim=1).max() < 0.1


def test_its_texture_is_its_colours() -> None:
    import_or_skip("xatlas")
    made = a_mesh()
    made.on_progress(1.0)
    data = made.mesh()
    assert data is made.mesh()  # not painted twice
    edges = np.sort(data.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    camera = camera_on_circle(0.4, size=64)
    with torch.no_grad():
        expected, found = made.render(camera), TexturedMesh(data).render(camera)
        torch.testing.assert_close(found.alpha, expected.alpha)
        # Texels are some 0.7 pixels wide here.
        assert (found.rgb - expected.rgb).abs().mean() < 0.01
        made.table.add_(0.01)
    assert made.mesh() is not data


def test_it_goes_into_a_bundle_of_kind_mesh() -> None:
    import_or_skip("xatlas")
    made = a_mesh(grid=12, texture_size=64)
    assert MeshKind().takes(made)
    coded = encode_mesh(made.mesh())
    assert coded.manifest["mesh"]["texture"]["width"] == 64


def test_without_a_surface_it_says_so() -> None:
    made = a_mesh()
    with torch.no_grad():
        first, last = made.networks.distance.weights
        first.copy_(torch.eye(first.shape[1])[-1].expand_as(first))  # the number that is always 1
        last.fill_(1.0)  # 16 times: nothing is inside
    made.on_progress(0.9)
    with pytest.raises(DataError, match="no surface"):
        made.render(camera_on_circle(0.0))
    made.on_progress(1.0)
    assert not made.render(camera_on_circle(0.0)).alpha.any()
    with pytest.raises(DataError, match="no surface"):
        made.mesh()


def test_numbers_that_are_not_finite_are_named() -> None:
    made = a_mesh()
    made.on_progress(0.9)
    with torch.no_grad():
        made.table[5, 1] = math.nan
    with pytest.raises(DataError, match="not finite"):
        made.render(camera_on_circle(0.0))


def test_masks_are_outlines() -> None:
    """Two views, half masked: how far alpha is from the masks; a third has none."""
    photographs, made = Photographs(globe()), a_mesh()
    made.on_progress(1.0)
    mask = torch.ones(64, 64, dtype=torch.bool)
    mask[:, :32] = False
    views = [replace(photographs.view(i), mask=mask) for i in (0, 3)]
    views.append(photographs.view(5))
    step = Step(number=0, progress=0.9, trainable=made, views=views, background=torch.zeros(3))
    inputs = ObjectiveInputs(
        task=photographs.task(), generator=torch.Generator(), device=torch.device("cpu")
    )
    options = TriplaneMeshMethod().silhouette
    assert not Silhouette.applies_to(inputs)
    found = Silhouette(options, inputs)(step).loss
    alpha = torch.stack([made.render(view.camera).alpha for view in views[:2]])
    expected = (alpha[..., :32].mean() + 1 - alpha[..., 32:].mean()) / 2
    torch.testing.assert_close(found, expected)


def test_fog_clears_until_the_mesh_is_drawn() -> None:
    made = a_mesh()
    made.on_progress(0.25)
    assert float(made.blur) == pytest.approx(math.sqrt(0.1 * 0.05))
    assert not made.meshed and made.sampling.of == "rays"
    made.on_progress(0.5)
    assert made.meshed and made.sampling.of == "images"
    assert made.describe()["triangles"] > 100
    assert SETTINGS.mesh_from == 0.5


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="even"):
        TriplaneMeshMethod(grid=33)
    with pytest.raises(UsageError, match="level"):
        TriplaneMeshMethod(resolutions=())
