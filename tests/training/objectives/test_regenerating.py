"""Regenerated pictures: their closed form, how they are kept, and what they pull."""

import math
from dataclasses import replace

import pytest
import torch
from training.objectives.test_guidance import (
    GREY,
    NEAR,
    SPHERE,
    Always,
    gradients,
    objective,
    splats,
    step_of,
)

from scene4d.cameras.around import CamerasOnSphere
from scene4d.errors import UsageError
from scene4d.priors.gaussian import ByText, GaussianPrior
from scene4d.priors.levels import Times
from scene4d.priors.scores import Asked
from scene4d.rendering.render import RGB, Render
from scene4d.representations.base import Generator, Representation
from scene4d.representations.method import GuidanceOptions
from scene4d.representations.saved import check_tensors
from scene4d.training.objectives.regenerating import regenerated
from scene4d.training.parallel import Processes

pytestmark = pytest.mark.unchecked_shapes

REGENERATE = replace(NEAR, target="regenerate", refresh_every=2, kept=3, sampling_steps=1)


def test_a_scene_is_pulled_to_pictures_that_the_prior_made_of_it():
    prior = GaussianPrior(lambda condition: torch.full((), 0.4), 1e-6)  # makes 0.7 of everything
    trainable = splats()
    (camera,) = SPHERE.draw(torch.Generator().manual_seed(3), 1)
    term = objective(prior, options=REGENERATE, poses=Always(camera))

    def error():
        with torch.no_grad():
            return float((trainable.render(camera).rgb - 0.7).abs().mean())

    before = error()
    optimiser = torch.optim.Adam([trainable.gaussians[n] for n in ("sh0", "scales")], lr=0.1)
    for number in range(20):
        made = term(step_of(trainable, number))
        optimiser.step()
        trainable.zero_grad()
    assert made.loss is None and len(term.kept) == 3
    assert error() < 0.9 * before


@pytest.mark.parametrize(("steps", "atol"), [(1, 1e-5), (200, 5e-3)])
def test_a_regenerated_picture_is_that_of_the_closed_form(steps, atol):
    """One step is the posterior mean at x_t; many follow the probability flow of a Gaussian,
    x0 = mu + sqrt(c / (a^2 c + s^2)) (x_t - a mu), Euler's error falling with their number."""
    random = torch.Generator().manual_seed(1)
    mean, x = torch.rand(2, 1, 3, 12, 16, generator=random) - 0.5
    c, t = 0.3, 0.4
    prior = GaussianPrior(mean, c)
    found = regenerated(
        Asked(prior=prior), x, scale=1.0, times=Times(low=t, high=t), steps=steps, progress=0.0,
        generator=torch.Generator().manual_seed(2),
    )  # fmt: skip
    again = torch.Generator().manual_seed(2)
    torch.rand(1, 1, generator=again, dtype=torch.float64)  # the time
    noise = torch.randn(x.shape, generator=again)
    a, s = math.cos(math.pi * t / 2), math.sin(math.pi * t / 2)
    off = a * x + s * noise - a * mean
    spread = a * a * c + s * s
    factor = a * c / spread if steps == 1 else math.sqrt(c / spread)
    torch.testing.assert_close(found, mean + factor * off, atol=atol, rtol=0)


def test_texts_guide_what_is_regenerated():
    means = {None: 0.1, "chair": 0.3}
    prior = GaussianPrior(lambda known: torch.tensor(means[known.text]), 0.0,
                          conditions=frozenset({"text"}))  # fmt: skip
    found = regenerated(
        Asked(prior=prior, texts={"y": "chair"}), torch.zeros(1, 3, 4, 4), scale=2.0,
        times=Times(), steps=3, progress=0.0, generator=torch.Generator(),
    )  # fmt: skip
    torch.testing.assert_close(found, torch.full((1, 3, 4, 4), 0.5))  # 0.1 + 2 (0.3 - 0.1)


def test_kept_pictures_are_of_the_scene_as_it_was_until_newer_ones_replace_them():
    asked = []

    class Notes(GaussianPrior):
        def denoise(self, x_t, alpha, sigma, condition=None):
            asked.append(condition)
            return super().denoise(x_t, alpha, sigma, condition)

    prior = Notes(lambda condition: torch.zeros(()), 0.1)
    options = replace(REGENERATE, refresh_every=5, kept=2, sampling_steps=3)
    term = objective(prior, options=options, poses=SPHERE)
    for number in range(15):
        term(step_of(splats(), number))
        assert len(term.kept) == min(1 + number // 5, 2)
    assert len(asked) == 3 * 3  # each picture once, in three steps
    other = objective(prior, options=options, poses=SPHERE)
    other.load_state_tensors(term.state_tensors())
    for name, value in term.state_tensors().items():
        torch.testing.assert_close(other.state_tensors()[name], value, equal_nan=True)
    count = len(asked)
    other(step_of(splats(), 16))
    assert len(asked) == count  # what was kept is kept


class Sides(Representation):
    """One colour for each of four directions that it is seen from."""

    def __init__(self, colours):
        super().__init__()
        self.colours = colours

    def render(self, camera, *, background=None, want=RGB):
        place = camera.position
        turn = torch.atan2(place[..., 2], place[..., 0]).rad2deg() % 360
        shape = (*turn.shape, camera.height, camera.width)
        rgb = self.colours[(turn / 90).long()][..., None, None, :].expand(*shape, 3)
        return Render(rgb=rgb, alpha=torch.ones(shape))

    parameter_groups = plain_data = from_saved = None


class Painter(Generator):
    """A table of the sides' colours, by text."""

    def __init__(self, texts):
        super().__init__()
        self.texts = texts
        self.table = torch.nn.Parameter(torch.full((len(texts), 4, 3), 0.5))

    @property
    def conditions(self):
        return self.texts

    def code(self, condition):
        return self.table[self.texts.index(condition)]

    def decoded(self, code):
        return Sides(code)

    parameter_groups = plain_data = from_saved = None


TEXTS = ("a cat", "a dog", "a tree")
AROUND = CamerasOnSphere(distance=3.0, view_angle=0.8, size=8, azimuths=(40.0, 50.0), views=4)
SAMPLES = replace(
    REGENERATE, size=8, pictures=2, least_time=0.98, most_time=0.98, difference="squared"
)


def by_text():
    """The tiles' colours, of each text [4, 3], and a prior that knows no others."""
    tiles = torch.rand(len(TEXTS), 4, 3, generator=torch.Generator().manual_seed(4))
    pictures = [t.view(2, 2, 3).permute(2, 0, 1).repeat_interleave(8, 1).repeat_interleave(8, 2)
                for t in tiles]  # fmt: skip
    priors = {text: GaussianPrior(2 * p - 1, 0.0) for text, p in zip(TEXTS, pictures, strict=True)}
    return tiles, ByText(priors, GaussianPrior(torch.zeros(3, 16, 16), 1.0))


def test_scenes_of_many_texts_come_to_what_the_prior_makes_of_each_from_each_side():
    tiles, prior = by_text()
    painter = Painter(TEXTS)
    term = objective(prior, options=SAMPLES, poses=AROUND, conditions=TEXTS)
    # of two pictures a step the gradient is a third of what is missing: each look halves that
    optimiser = torch.optim.SGD(painter.parameters(), lr=1.5)
    for number in range(120):
        term(step_of(painter, number))
        optimiser.step()
        optimiser.zero_grad()
    assert [len(there) for there in term.kept.views] == [3 * 4] * 3
    # half precision of -1..1, and twenty looks at each side or so, the fewest of which are ten
    torch.testing.assert_close(painter.table.detach(), tiles, rtol=0, atol=2e-3)


def test_only_the_texts_of_a_step_are_pulled():
    _, prior = by_text()
    painter = Painter(TEXTS)
    term = objective(prior, options=SAMPLES, poses=AROUND, conditions=TEXTS)
    pulled = []
    for number in range(12):
        term(step_of(painter, number))
        there = gradients(painter)["table"].abs().sum(dim=-1) > 0
        pulled.append(int(there.sum()))  # a view of each of two texts, perhaps of one text twice
    assert set(pulled) <= {1, 2} and 2 in pulled


@pytest.mark.parametrize(("difference", "rests"), [("squared", 0.3), ("absolute", 0.0)])
def test_absolute_differences_rest_at_the_median_and_squared_ones_at_the_mean(difference, rests):
    """Of a picture whose last third is 0.9, the rest 0."""
    mean = torch.full((3, 9, 9), -1.0)
    mean[:, 6:] = 2 * 0.9 - 1
    painter = Painter(("one",))
    options = replace(SAMPLES, size=9, pictures=1, difference=difference)
    term = objective(ByText({"one": GaussianPrior(mean, 0.0)}, GaussianPrior(mean, 0.0)),
                     options=options, conditions=("one",),
                     poses=replace(AROUND, size=9, views=1))  # fmt: skip
    optimiser = torch.optim.Adam(painter.parameters(), lr=0.05)
    for number in range(60):
        optimiser.param_groups[0]["lr"] = 0.05 * (1 - number / 60)
        term(step_of(painter, number))
        optimiser.step()
        optimiser.zero_grad()
    # the front alone is looked at; Adam's last steps are of 0.0008
    assert painter.table[0, 0].tolist() == pytest.approx([rests] * 3, abs=0.01)


def test_what_is_kept_of_texts_is_part_of_checkpoints():
    _, prior = by_text()
    painter = Painter(TEXTS)
    term = objective(prior, options=SAMPLES, poses=AROUND, conditions=TEXTS)
    for number in range(5):
        term(step_of(painter, number))
    gradients(painter)
    saved = term.state_tensors()
    check_tensors(saved, term.state_forms(), where="objective")
    other = objective(prior, options=SAMPLES, poses=AROUND, conditions=TEXTS)
    other.load_state_tensors(saved)
    other.generator.set_state(term.generator.get_state())
    expected = term(step_of(painter, 5)).log, gradients(painter)["table"]
    found = other(step_of(painter, 5)).log, gradients(painter)["table"]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for name, value in term.state_tensors().items():
        torch.testing.assert_close(other.state_tensors()[name], value, equal_nan=True)
    for name, wrong in (("texts", saved["texts"] + 3), ("sizes", saved["sizes"] + 1),
                        ("pixels", saved["pixels"][1:])):  # fmt: skip
        with pytest.raises(ValueError, match="regenerated pictures"):
            other.load_state_tensors({**saved, name: wrong})
    with pytest.raises(ValueError, match="lack c2w"):
        other.load_state_tensors({n: t for n, t in saved.items() if n != "c2w"})


class Second(Processes):
    """The second process of two."""

    number, count = 1, 2

    def rows(self, total, what):
        return slice(total // 2, total)

    def batch(self, camera, render):
        raise AssertionError("the first one renders another picture")


@pytest.mark.parametrize("target", ["score", "regenerate"])
def test_all_views_of_a_picture_are_rendered_by_the_process_that_guides_it(target):
    poses = replace(SPHERE, size=24, views=4)
    options = replace(NEAR, size=48, pictures=2, target=target, sampling_steps=1)
    term = objective(GREY, options=options, poses=poses)
    term.own = Second().rows(2, "")
    scene = splats()
    if target == "regenerate":  # both make the same pictures, and share their rendering
        term(step_of(scene))
        gradients(scene)
    made = term(step_of(scene, 1, processes=Second()))
    assert float(made.log["guidance"]) > 0 and gradients(scene)


def test_answers_that_are_not_finite_are_left_out_and_counted():
    prior = GaussianPrior(lambda condition: torch.tensor(math.nan), 0.1)
    term = objective(prior, options=REGENERATE, poses=SPHERE)
    trainable = splats()
    made = term(step_of(trainable))
    assert int(made.log["guidance_left_out"]) == 1
    assert all(bool((g == 0).all()) for g in gradients(trainable).values())


def test_what_cannot_be_regenerated_is_told():
    with pytest.raises(UsageError, match="guidance.loss sds"):
        GuidanceOptions(target="regenerate", loss="sds")
    with pytest.raises(UsageError, match="a generator's many scenes"):
        objective(by_text()[1], options=replace(SAMPLES, unseen_only=True), conditions=TEXTS,
                  poses=AROUND)  # fmt: skip
