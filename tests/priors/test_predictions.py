"""Predictions of every kind, against their definitions; levels against published tables."""

import math

import pytest
import torch

from scene4d.errors import UsageError
from scene4d.priors.levels import Times, levels_at, time_at
from scene4d.priors.predictions import eps_from_x0, output_from, vp_from_ve, x0_from

DOUBLE = torch.float64


def noised(path):
    generator = torch.Generator().manual_seed(0)
    x, n = torch.randn(2, 3, 1, 4, 5, generator=generator, dtype=DOUBLE)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=DOUBLE)
    alpha, sigma = levels_at(path, t)
    a, s = alpha[:, None, None, None], sigma[:, None, None, None]
    return x, n, a * x + s * n, alpha, sigma, a, s


@pytest.mark.parametrize(
    ("kind", "path", "definition"),
    [
        ("x0", "cosine", lambda x, n, a, s: x),
        ("eps", "cosine", lambda x, n, a, s: n),
        ("eps", "flow", lambda x, n, a, s: n),
        ("v", "cosine", lambda x, n, a, s: a * n - s * x),
        ("v", "sd", lambda x, n, a, s: a * n - s * x),
        ("flow", "flow", lambda x, n, a, s: n - x),
        ("reversed-flow", "flow", lambda x, n, a, s: x - n),
    ],
)
def test_a_perfect_networks_output_is_the_picture_and_back(kind, path, definition):
    x, n, x_t, alpha, sigma, a, s = noised(path)
    output = definition(x, n, a, s)
    exact = {"rtol": 1e-12, "atol": 1e-12}  # float64, divided by levels of 0.1 and more
    torch.testing.assert_close(x0_from(kind, output, x_t, alpha, sigma), x, **exact)
    torch.testing.assert_close(output_from(kind, x, x_t, alpha, sigma), output, **exact)
    torch.testing.assert_close(eps_from_x0(x, x_t, alpha, sigma), n, **exact)


def test_exploding_variance_is_scaled_to_the_same_ratio():
    generator = torch.Generator().manual_seed(1)
    x, n = torch.randn(2, 2, 3, 4, 4, generator=generator, dtype=DOUBLE)
    noise = torch.tensor([0.3, 7.0], dtype=DOUBLE)
    x_t, alpha, sigma = vp_from_ve(x + noise[:, None, None, None] * n, noise)
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones_like(alpha))
    torch.testing.assert_close(sigma / alpha, noise)
    torch.testing.assert_close(x0_from("eps", n, x_t, alpha, sigma), x)
    # Euler schedulers of diffusers: eps x - S m, v x/(S^2+1) - m S/sqrt(S^2+1), on the VE picture
    ve, m = x + noise[:, None, None, None] * n, torch.randn(x.shape, generator=generator).double()
    big = noise[:, None, None, None]
    torch.testing.assert_close(x0_from("eps", m, x_t, alpha, sigma), ve - big * m)
    expected = ve / (big**2 + 1) - m * big / (big**2 + 1).sqrt()
    torch.testing.assert_close(x0_from("v", m, x_t, alpha, sigma), expected)


def test_levels_that_are_not_of_the_kind_are_refused():
    _, n, x_t, alpha, sigma, *_ = noised("cosine")
    with pytest.raises(UsageError, match=r"flow has alpha \+ sigma = 1"):
        x0_from("flow", n, x_t, alpha, sigma)
    with pytest.raises(UsageError, match=r"v has alpha\^2"):
        x0_from("v", n, x_t, 1 - sigma, sigma)


@pytest.mark.parametrize("path", ["cosine", "flow", "ddpm", "sd"])
def test_times_and_ratios_belong_together(path):
    for t in (0.02, 0.3, 0.77):
        alpha, sigma = levels_at(path, torch.tensor([t], dtype=DOUBLE))
        assert time_at(path, float(sigma / alpha)) == pytest.approx(t, abs=1e-9)
        total = alpha + sigma if path == "flow" else alpha**2 + sigma**2
        assert float(total) == pytest.approx(1.0)
    assert time_at(path, math.inf) == 1.0 and time_at(path, 0.0) == 0.0


def test_the_tables_are_those_of_ddpm_and_stable_diffusion():
    # FFDNet's 75/255 on 0..1 is 0.588 on -1..1: t <= 168 of DDPM's 1000 steps, 207 of SD's
    ratio = 2 * 75 / 255
    assert math.floor(1000 * time_at("ddpm", ratio)) == 168
    assert math.floor(1000 * time_at("sd", ratio)) == 207
    alpha, _ = levels_at("sd", torch.tensor([1.0], dtype=DOUBLE))
    assert float(alpha**2) == pytest.approx(0.0047, abs=5e-5)  # published: SD's last abar


def test_times_are_drawn_where_they_may_be():
    generator = torch.Generator().manual_seed(2)
    drawn = Times(low=0.2, high=0.6).draw(500, 0.3, generator)[0]
    assert 0.2 <= float(drawn.min()) < 0.21 and 0.59 < float(drawn.max()) <= 0.6
    annealed = Times(low=0.2, high=0.6, kind="annealed")
    for progress, expected in ((0.0, 0.6), (0.25, 0.4), (1.0, 0.2)):
        assert annealed.draw(3, progress, generator)[0].tolist() == pytest.approx([expected] * 3)
    strata = Times(low=0.0, high=1.0).draw(7, 0.0, generator, strata=4)
    assert (strata * 4).long().tolist() == [[3 - k] * 7 for k in range(4)]
    within = Times().within("cosine", (0.0, 1.0))
    assert (within.low, within.high) == (0.02, pytest.approx(0.5))
    with pytest.raises(UsageError, match="at no noise of times"):
        Times(low=0.6, high=0.9).within("cosine", (0.0, 1.0))
    with pytest.raises(UsageError, match="low <= high"):
        Times(low=0.6, high=0.5)
