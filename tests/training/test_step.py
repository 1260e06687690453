"""A step: shared renders, watched renders, gradients in pieces, terms that propagate themselves."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from methods.lpgs.test_parent_child import splats as wide_splats

from scene4d.cameras.around import CamerasOnSphere
from scene4d.data.scene import View
from scene4d.errors import UsageError
from scene4d.rendering.render import DEPTH, RGB, Render, Want
from scene4d.representations.base import Generator, Representation
from scene4d.representations.method import ObjectiveOptions
from scene4d.representations.task import Task, World
from scene4d.training.objectives.base import (
    Objective,
    ObjectiveInputs,
    Term,
    total_loss,
    wanted_maps,
)
from scene4d.training.step import Step
from scene4d.training.strategy import ask_for_pull, pull_of

CAMERAS = CamerasOnSphere(distance=4.0, view_angle=0.8, size=40)


def splats():
    """Small ones: EWA splatting bends Gaussians at the border of a picture, and of a crop, by where
    that border is (gsplat's limit of the Jacobian)."""
    made = wide_splats()
    with torch.no_grad():
        made.gaussians["means"].mul_(0.3)
        made.gaussians["scales"].sub_(2.0)
    return made


def camera(seed=0):
    return CAMERAS.draw(torch.Generator().manual_seed(seed))[0]


def step_of(trainable, **changes):
    return Step(number=0, progress=0.5, trainable=trainable, background=torch.zeros(3), **changes)


def gradients(scene):
    found = {name: p.grad.clone() for name, p in scene.named_parameters() if p.grad is not None}
    scene.zero_grad(set_to_none=True)
    return found


def assert_alike(got, expected):
    """Float32 sums in another order, and EWA at the border; a crop's part at another place, or
    counted twice, would be off by tens of percent."""
    for name, value in expected.items():
        assert float((got[name] - value).norm()) < 0.05 * float(value.norm()), name


@pytest.mark.parametrize("chunk", [40 * 40, 40 * 20, 13], ids=["whole", "rows", "parts of rows"])
def test_deferred_gradients_are_those_of_the_whole_picture(chunk):
    scene, at = splats(), camera()
    target = torch.rand(40, 40, 3, generator=torch.Generator().manual_seed(1))

    def score(render):  # looks at pixels beside each other, which no crop has together
        rows = render.rgb[1:] - render.rgb[:-1]
        return (render.rgb - target).square().mean() + rows.abs().mean() + 0.1 * render.depth.mean()

    direct = score(step_of(scene).render(at, want=DEPTH))
    (0.3 * direct).backward()
    expected = gradients(scene)
    step = step_of(scene, weight=0.3)
    loss = step.deferred(at, score, chunk_pixels=chunk, want=DEPTH)
    got = gradients(scene)
    torch.testing.assert_close(loss, direct.detach())
    assert not loss.requires_grad
    assert step.propagated == pytest.approx(0.3 * float(direct.detach()))
    assert_alike(got, expected)


class Painted(Representation):
    """One colour everywhere."""

    def __init__(self, colour):
        super().__init__()
        self.colour = colour

    def render(self, camera, *, background=None, want=RGB):
        shape = (camera.height, camera.width)
        return Render(rgb=self.colour.expand(*shape, 3), alpha=torch.ones(shape))

    parameter_groups = plain_data = from_saved = None


class Painter(Generator):
    def __init__(self):
        super().__init__()
        self.brush = torch.nn.Parameter(torch.zeros(3))

    def code(self, condition):
        return torch.tensor(len(condition))

    def decoded(self, code):
        return Painted(code * self.brush)

    parameter_groups = plain_data = from_saved = None


def test_gradients_in_pieces_reach_the_generator_of_a_scene():
    painter = Painter()
    step_of(painter).deferred(
        camera(), lambda render: render.rgb.mean(), chunk_pixels=100, condition="red"
    )
    assert painter.brush.grad.tolist() == pytest.approx([1.0] * 3)  # a third of three letters


def test_a_score_without_a_gradient_propagates_nothing_and_renders_nothing_again():
    scene = splats()
    step = step_of(scene)
    assert float(step.deferred(camera(), lambda render: torch.tensor(7.0))) == 7.0
    assert step.shots == [] and step.propagated == 0.0 and gradients(scene) == {}


@pytest.mark.parametrize(("pixels", "renders"), [(40 * 40, 1), (40 * 40 - 1, 3)])
def test_a_picture_whose_graph_fits_is_rendered_once(pixels, renders):
    scene, asked = Painted(torch.nn.Parameter(torch.zeros(3))), []
    render, scene.graph_pixels = scene.render, pixels

    def counted(camera, **wishes):
        asked.append((camera.width, camera.height))
        return render(camera, **wishes)

    scene.render = counted
    step_of(scene).deferred(camera(), lambda whole: whole.rgb.mean())
    assert len(asked) == renders and asked[0] == (40, 40)
    assert scene.colour.grad.tolist() == pytest.approx([1 / 3] * 3)


def test_whoever_watches_sees_every_render_with_gradients_and_their_pull():
    scene, seen = splats(), []

    def watch(shot):
        seen.append(shot)
        ask_for_pull(shot)

    step = step_of(scene, watch=watch)
    with torch.no_grad():
        step.render(camera())
    assert not seen
    one, two = (step.render(camera(seed)) for seed in (1, 2))
    assert [shot.render for shot in seen] == [one, two] == [shot.render for shot in step.shots]
    assert pull_of(seen[0]) is None  # nothing has pulled yet
    (one.rgb.mean() + two.rgb.mean()).backward()
    pulled = [pull_of(shot) for shot in seen]
    assert all(bool((p > 0).any()) for p in pulled)
    expected = seen[0].render.extras["means2d"].grad.norm(dim=-1) * 20  # half of 40 pixels
    torch.testing.assert_close(pulled[0], expected)


def test_a_view_is_rendered_once_for_all_terms_on_what_they_want_together():
    scene = splats()
    view = View(index=3, camera=camera(), rgb=torch.zeros(40, 40, 3))
    step = step_of(scene, views=[view], want=Want(depth=True) | RGB)
    assert step.view(view) is step.view(view)
    assert step.view(view).depth is not None
    assert len(step.shots) == 1


@dataclass(frozen=True, kw_only=True)
class Brightness(ObjectiveOptions):
    implementation: ClassVar[str] = "none"

    def weight_at(self, progress):
        return self.weight * progress


class Direct(Objective):
    want = DEPTH

    def __call__(self, step):
        loss = step.render(camera()).rgb.mean()
        return Term(loss=loss, log={"direct": loss})


class InPieces(Objective):
    want = Want(positions_at=(0.5,))

    def __call__(self, step):
        loss = step.deferred(camera(), lambda render: render.rgb.mean(), chunk_pixels=100)
        return Term(loss=None, log={"pieces": loss})


def test_terms_that_propagate_themselves_count_as_those_that_do_not():
    scene = splats()
    inputs = ObjectiveInputs(
        task=Task(world=World()), generator=torch.Generator(), device=torch.device("cpu")
    )
    made = [kind(Brightness(weight=4.0), inputs) for kind in (Direct, InPieces)]
    direct, pieces = (total_loss(step_of(scene), [one]) for one in made)
    found = gradients(scene)
    assert pieces.to_propagate is None
    direct.to_propagate.backward()
    expected = gradients(scene)
    assert_alike(found, expected)
    assert float(pieces.value) == pytest.approx(float(direct.value), rel=1e-5)
    assert float(direct.value) == pytest.approx(
        2.0 * float(direct.log["direct"].detach())
    )  # 4 * progress
    both = total_loss(step_of(scene), made)
    assert float(both.value) == pytest.approx(2 * float(direct.value), rel=1e-5)
    assert wanted_maps(made) == Want(depth=True, positions_at=(0.5,))


def test_a_condition_needs_a_generator_and_says_so():
    with pytest.raises(UsageError, match="takes no condition"):
        step_of(splats()).render(camera(), condition="a red ball")
