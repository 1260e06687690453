"""Regenerated pictures: their closed form, how they are kept, and what they pull."""

import math
from dataclasses import replace

import pytest
import torch
from training.objectives.test_guidance import (
    NEAR,
    SPHERE,
    Always,
    gradients,
    objective,
    splats,
    step_of,
)

from scene4d.errors import UsageError
from scene4d.priors.gaussian import GaussianPrior
from scene4d.priors.levels import Times
from scene4d.priors.scores import Asked
from scene4d.representations.method import GuidanceOptions
from scene4d.training.objectives.regenerating import regenerated

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
