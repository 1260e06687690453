"""The critic of the fixer's adversarial term: it learns to tell, and what it tells is followed."""

import math

import pytest
import torch
from torch.nn import functional

from scene4d.methods.repair.critic import Critic


def pictures(count=4, size=32):
    """Noise of 4 x 4 blocks, and the same blurred."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, size // 4, size // 4, generator=generator)
    clean = functional.interpolate(coarse, scale_factor=4, mode="nearest")
    return clean, functional.avg_pool2d(clean, 7, stride=1, padding=3)


def mean_score(critic, given):
    scores = critic.scores(given)
    return float(torch.stack([part.mean() for part in scores]).mean().detach())


def new_critic():
    return Critic(torch.Generator().manual_seed(0), torch.device("cpu"))


@pytest.fixture(scope="module")
def taught():
    clean, blurred = pictures()
    critic = new_critic()
    losses = [float(critic.learn(blurred, clean)) for _ in range(60)]
    return critic, losses


def test_it_learns_to_tell_clean_pictures_by_the_hinge_loss(taught):
    critic, losses = taught
    clean, blurred = pictures()
    # scores begin near 0, where the hinge loss is 2
    assert math.isclose(losses[0], 2.0, abs_tol=0.3) and losses[-1] < 0.5
    assert mean_score(critic, clean) > 0.5 > -0.5 > mean_score(critic, blurred)


def test_what_it_tells_the_fixer_sharpens_and_teaches_it_nothing(taught):
    critic, _ = taught
    _, blurred = pictures()
    before = {n: t.clone() for n, t in critic.state_tensors().items()}
    made = blurred.clone().requires_grad_(True)
    loss = critic.loss_of(made)
    (slope,) = torch.autograd.grad(loss, made)
    assert math.isclose(float(loss), -mean_score(critic, blurred), rel_tol=1e-5)
    step = 0.02 * slope / slope.abs().amax()
    assert mean_score(critic, blurred - step) > mean_score(critic, blurred)
    assert all(torch.equal(before[n], t) for n, t in critic.state_tensors().items())


def test_state_comes_back_and_goes_on_alike(taught):
    critic, _ = taught
    clean, blurred = pictures()
    other = new_critic()
    other.load_state_tensors({n: t.clone() for n, t in critic.state_tensors().items()})
    assert float(other.learn(blurred, clean)) == float(critic.learn(blurred, clean))
    one, two = critic.state_tensors(), other.state_tensors()
    assert set(one) == set(two) and all(torch.equal(one[n], two[n]) for n in one)
