"""The terms of the loss in closed form, and a training of something that moves."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from moving_ball import SMALL
from optional_packages import import_or_skip
from PIL import Image

from scene4d.cameras.camera import Camera
from scene4d.data.scene import View
from scene4d.methods.deformable.method import DeformableMethod
from scene4d.methods.dynamic_field.field import FieldSamples
from scene4d.methods.dynamic_field.method import (
    DistortionOptions,
    DynamicFieldMethod,
    DynamicRaysOptions,
    DynamicSparsityOptions,
    LineOfSightOptions,
    SkewedEntropyOptions,
    SquaredErrorOptions,
)
from scene4d.methods.dynamic_field.objectives import (
    Distortion,
    DynamicRays,
    DynamicSparsity,
    LineOfSight,
    SkewedEntropy,
    SquaredError,
)
from scene4d.rendering.fields.volume import RaySamples
from scene4d.rendering.render import Render, Want
from scene4d.representations.method import PhotometricOptions, TeacherOptions
from scene4d.training.options import TrainOptions
from scene4d.training.parallel import ALONE
from scene4d.training.run import load_run
from scene4d.training.train import start


class OneView:
    """A step whose only render has given samples."""

    background = torch.zeros(3)
    adjustments = None
    processes = ALONE

    def __init__(self, samples, view=None):
        self.views = [view]
        self.samples = samples

    def view(self, view):
        empty = torch.zeros(2, 1, 1, 3)
        return Render(rgb=empty, alpha=empty[..., 0], extras={"samples": [self.samples]})


def two_rays():
    """Shares of 1/4 and 3/4 on the first ray, 0 on the second; weights 0.5, 0.2, 0.9."""
    places = RaySamples(
        firsts=torch.tensor([0, 2, 3]),
        middles=torch.tensor([1.0, 2.0, 1.5]),
        widths=torch.tensor([0.3, 0.3, 0.6]),
    )
    density = torch.tensor([[3.0, 1.0], [1.0, 3.0], [2.0, 0.0]], requires_grad=True)
    return FieldSamples(places=places, density=density, weights=torch.tensor([0.5, 0.2, 0.9]),
                        unit=2.0)  # fmt: skip


def entropy(p):
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def term(objective, options):
    samples = two_rays()
    found = objective(options, None)(OneView(samples))
    if found.loss.requires_grad:
        found.loss.backward()
    return float(found.loss.detach()), samples.density.grad


@pytest.mark.unchecked_shapes
def test_terms_of_the_decomposition_in_closed_form():
    skew = 2.0
    loss, slope = term(SkewedEntropy, SkewedEntropyOptions(skew=skew))
    expected = (0.5 * entropy(0.25**skew) + 0.2 * entropy(0.75**skew)) / 2
    assert loss == pytest.approx(expected, abs=1e-4)  # shares of 0 count as 1e-6
    assert slope.isfinite().all() and slope[0, 1] > 0 and slope[0, 0] < 0
    loss, slope = term(DynamicRays, DynamicRaysOptions())
    assert loss == pytest.approx(0.75**2 / 2)
    assert not slope[0].any() and slope[1].any()
    loss, slope = term(DynamicSparsity, DynamicSparsityOptions())
    assert loss == pytest.approx((0.3 * 1 + 0.3 * 3) / 2)
    assert not slope[:, 0].any()
    loss, _ = term(Distortion, DistortionOptions())
    first = 2 * 0.5 * 0.2 * 1.0 + (0.5**2 + 0.2**2) * 0.3 / 3
    assert loss == pytest.approx((first + 0.9**2 * 0.6 / 3) / 2)


@pytest.mark.unchecked_shapes
def test_a_ray_with_measured_depth_ends_there_in_closed_form():
    """Weights 0.5 and 0.2 at 1 and 2 radii, 0.9 at 1.5; the radius is 2 units. Depth is along the
    camera's axis, distances along the ray: three fifths of them here."""
    c2w = torch.eye(4)[None].repeat(2, 1, 1)
    K = torch.tensor([[3.0, 0, 4.5], [0, 3.0, 0.5], [0, 0, 1]])[None].repeat(2, 1, 1)
    camera = Camera(c2w=c2w, K=K, width=1, height=1)  # the pixel lies 4 to the side, 3 ahead
    depth = torch.tensor([1.0 * 2 * 0.6, 1.5 * 2 * 0.6 + 0.6]).reshape(2, 1, 1)
    view = View(index=torch.arange(2), camera=camera, rgb=torch.zeros(2, 1, 1, 3), depth=depth)
    samples = two_rays()
    samples.weights.requires_grad_()
    objective = LineOfSight(LineOfSightOptions(margin=1.0), None)
    loss = objective(OneView(samples, view)).loss
    # The first ray's surface is at its first sample, the other's half a radius behind its own.
    assert float(loss) == pytest.approx((-math.log(0.5) - math.log(0.9)) / 2)
    loss.backward()
    torch.testing.assert_close(samples.weights.grad, torch.tensor([-1.0, 0.0, -1 / 1.8]))
    # Beyond the margin nothing is found; where nothing is measured nothing is asked.
    nothing = OneView(two_rays(), replace(view, depth=torch.tensor([0.0, 9.0]).reshape(2, 1, 1)))
    assert float(objective(nothing).loss) == pytest.approx(-math.log(1e-3))
    assert float(objective(OneView(two_rays(), replace(view, depth=depth * 0))).loss) == 0.0
    masked = replace(view, mask=torch.tensor([True, False]).reshape(2, 1, 1))
    assert float(objective(OneView(two_rays(), masked)).loss) == pytest.approx(-math.log(0.5))


@pytest.mark.unchecked_shapes
def test_colours_are_compared_by_squares_where_photographs_count():
    rgb = torch.tensor([[0.2, 0.4, 0.6], [1.0, 1.0, 1.0]]).reshape(2, 1, 1, 3)
    view = View(index=torch.arange(2), camera=None, rgb=rgb)
    step = OneView(two_rays(), view)
    objective = SquaredError(SquaredErrorOptions(), None)
    assert float(objective(step).loss) == pytest.approx((0.56 + 3.0) / 6)
    first = replace(view, mask=torch.tensor([True, False]).reshape(2, 1, 1))
    found = objective(OneView(two_rays(), first))
    assert float(found.loss) == pytest.approx(0.56 / 3)
    assert float(found.log["psnr"]) == pytest.approx(-10 * math.log10(0.56 / 3))


def test_the_dynamic_part_learns_at_full_rate_from_when_it_takes_part():
    method = DynamicFieldMethod(static_until=0.5, settle=0.01)
    assert method.learning_rate_factor("static_grids", 0.5) == pytest.approx(0.1)
    for group in ("dynamic_grids", "dynamic_networks"):
        assert method.learning_rate_factor(group, 0.5) == 1.0
        assert method.learning_rate_factor(group, 0.75) == pytest.approx(0.1)
        assert method.learning_rate_factor(group, 1.0) == pytest.approx(0.01)


@pytest.mark.unchecked_shapes
def test_what_moves_is_learned_where_it_is_at_each_time(trained, moving_ball):
    """At held-out times the ball is where it is then; the static part alone misses it."""
    run = load_run(trained)
    field = run.representation
    errors = {"whole": [], "static": []}
    for camera in run.cameras.test:
        with torch.no_grad():
            render = field.render(camera, want=Want(parts=("static",)))
        index = round(float(camera.time) * 23 / 2)
        picture = Image.open(moving_ball / f"images/{index:03d}.png")
        truth = torch.from_numpy(np.array(picture)).float() / 255
        ball = (truth[..., 0] > 0.85) & (truth[..., 1] < 0.2)
        for name, got in (("whole", render.rgb), ("static", render.parts["static"].rgb)):
            errors[name].append(float((got - truth)[ball].square().mean()))
    whole, static = (-10 * math.log10(np.mean(errors[name])) for name in ("whole", "static"))
    assert whole > static + 6.0, (whole, static)  # measured: 18.8 and 6.0 dB


@pytest.mark.unchecked_shapes
def test_what_stands_still_is_learned(trained, moving_ball):
    """Off the ball, at held-out times; grey fog has 12."""
    run = load_run(trained)
    errors = []
    for camera in run.cameras.test:
        with torch.no_grad():
            got = run.representation.render(camera).rgb
        picture = Image.open(moving_ball / f"images/{round(float(camera.time) * 23 / 2):03d}.png")
        truth = torch.from_numpy(np.array(picture)).float() / 255
        wall = truth[..., 1] > 0.3
        errors.append(float((got - truth)[wall].square().mean()))
    assert -10 * math.log10(np.mean(errors)) > 17.0


@pytest.mark.unchecked_shapes
def test_the_occupancy_grid_learns_and_is_kept(trained):
    """It is part of the checkpoint; the terms of the loss are in the log."""
    tensors = load_run(trained).representation.state_dict()
    assert (tensors["occupancy.static"] >= 0).any() and (tensors["occupancy.dynamic"] >= 0).any()
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert {"entropy", "dynamic_rays", "dynamic_depth", "distortion"} <= set().union(*rows)
    assert all(0 < row["occupied_dynamic"] <= 1 for row in rows if "occupied_dynamic" in row)


# Either kind of moving scene teaches the other, by the one teacher's term, at all times


def teacher_psnrs(run):
    """Of the first and the last lines of the log."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = [row["teacher_psnr"] for row in rows if "teacher_psnr" in row]
    return found[0], sum(found[-3:]) / 3


@pytest.mark.unchecked_shapes
def test_each_learns_from_the_other(moving_ball, trained, tmp_path):
    import_or_skip("cv2")
    options = TrainOptions(data=moving_ball, output_dir=tmp_path, device="cpu", evaluate=False)
    teaching = TeacherOptions(first_views=6, crops=4, crop_size=12)
    splats = DeformableMethod(
        num_random_points=300, max_num_gaussians=600, sh_degree=1, num_nodes=8, steps=40,
        coarsest_downscale=1, teaching=teaching, photometric=PhotometricOptions(weight=0.0),
    )  # fmt: skip
    field = replace(
        SMALL, steps=40, teaching=teaching, photometric=replace(SMALL.photometric, weight=0.0)
    )
    taught = start(splats, replace(options, teacher=trained))
    for run in (taught, start(field, replace(options, teacher=taught))):
        first, last = teacher_psnrs(run)
        assert last > first + 1.0, (run, first, last)
        loaded = load_run(run).representation
        assert loaded.times == pytest.approx((0.0, 2.0), abs=0.1)
