"""Guiders on Gaussians against closed forms, in float64, where one direction can be told from
another; see test_scores for the notation."""

import math
from dataclasses import replace

import pytest
import torch

from scene4d.errors import UsageError
from scene4d.priors import recipes
from scene4d.priors.gaussian import ByText, GaussianPrior
from scene4d.priors.guiders import CFG, Guider
from scene4d.priors.levels import Times, levels_at
from scene4d.priors.scores import Asked, Told, score_gradient
from scene4d.representations.method import GuidanceOptions

DOUBLE = torch.float64
SHAPE = (3, 2, 2)
C, K_SCALE, T = 0.25, 7.5, 0.4
TEXTS = {"y": "wanted", "negative": "unwanted"}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


MU, MU_Y, MU_NEG, X = (normal(*SHAPE, seed=seed) for seed in range(4))
X_T = normal(2, *SHAPE, seed=5)
A, S = levels_at("cosine", torch.full((2,), T, dtype=DOUBLE))


def prior_of(unwanted=MU_NEG):
    return ByText({"wanted": GaussianPrior(MU_Y, C), "unwanted": GaussianPrior(unwanted, C)},
                  GaussianPrior(MU, C))  # fmt: skip


def x0(mu):
    """The posterior mean of N(mu, C)."""
    a, s = float(A[0]), float(S[0])
    return mu + a * C / (a * a * C + s * s) * (X_T - a * mu)


def told(guider, scale=K_SCALE, **more):
    asked = Asked(prior=prior_of(**more), texts=TEXTS, guider=guider)
    return Told(asked, scale)


def along(x, axis):
    """The part along, of each picture."""
    unit = axis.flatten(1) / axis.flatten(1).norm(dim=1, keepdim=True)
    return ((x.flatten(1) * unit).sum(dim=1, keepdim=True) * unit).view_as(x)


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)  # float64


def test_apg_that_keeps_all_is_guidance_without_a_guider():
    plain = told(CFG).denoise(X_T, A, S)
    close(plain, x0(MU) + K_SCALE * (x0(MU_Y) - x0(MU)))
    close(told(Guider(kind="apg", parallel=1.0)).denoise(X_T, A, S), plain)
    close(told(Guider(kind="apg", parallel=1.0, most=1e9)).denoise(X_T, A, S), plain)


@pytest.mark.parametrize("parallel", [0.0, 0.4, -0.5])
def test_apg_weighs_the_part_along_the_picture_alone(parallel):
    y, nothing = x0(MU_Y), x0(MU)
    difference = y - nothing
    part = along(difference, y)
    wanted = y + (K_SCALE - 1) * (difference - part + parallel * part)
    close(told(Guider(kind="apg", parallel=parallel)).denoise(X_T, A, S), wanted)
    # so that at 0 nothing is added along the picture, whatever the scale
    if parallel == 0:
        moved = told(Guider(kind="apg"), 100.0).denoise(X_T, A, S) - y
        assert float(along(moved, y).abs().max()) < 1e-10 * float(moved.abs().max())


def test_apg_bounds_the_root_mean_square_of_each_pictures_difference():
    y, nothing = x0(MU_Y), x0(MU)
    size = (y - nothing).flatten(1).square().mean(1).sqrt()
    bound = float(size.max()) * 0.5
    guider = Guider(kind="apg", parallel=1.0, most=bound)
    moved = (told(guider).denoise(X_T, A, S) - y) / (K_SCALE - 1)
    close(moved.flatten(1).square().mean(1).sqrt(), size.clamp_max(bound))
    # direction is kept
    close(along(moved, y - nothing), moved)


def test_momentum_sums_the_differences_of_a_trajectory_and_of_no_other():
    beta = -0.6
    guider = Guider(kind="apg", parallel=1.0, momentum=beta)
    voice = told(guider)
    for step in range(1, 4):
        share = (1 - beta**step) / (1 - beta)  # of a geometric series
        wanted = x0(MU_Y) + (K_SCALE - 1) * share * (x0(MU_Y) - x0(MU))
        close(voice.denoise(X_T, A, S), wanted)
    close(told(guider).denoise(X_T, A, S), told(CFG).denoise(X_T, A, S))


def test_perp_neg_ignores_what_is_unwanted_along_what_is_wanted():
    plain = told(CFG).denoise(X_T, A, S)
    guider = Guider(kind="perp-neg")
    for share in (2.0, -0.5, 0.0):  # mu_neg on the line through mu and mu_y
        on_line = told(guider, unwanted=MU + share * (MU_Y - MU))
        close(on_line.denoise(X_T, A, S), plain)
    close(told(Guider(kind="perp-neg", unwanted=0.0)).denoise(X_T, A, S), plain)


def test_perp_neg_goes_away_from_what_is_unwanted_across_what_is_wanted():
    wanted, away = x0(MU_Y) - x0(MU), x0(MU_NEG) - x0(MU)
    across = away - along(away, wanted)
    expected = x0(MU) + K_SCALE * (wanted - 0.7 * across)
    close(told(Guider(kind="perp-neg", unwanted=0.7)).denoise(X_T, A, S), expected)


@pytest.mark.parametrize("guider", [Guider(kind="apg", parallel=0.2), Guider(kind="perp-neg")])
def test_score_losses_are_guided_alike_in_noises_and_in_pictures(guider):
    """HiFA is SDS in pictures: alpha/sigma (x - x0) against e - n."""
    found = {}
    for name in ("sds", "hifa"):
        loss = replace(recipes.recipe(name, K_SCALE), weight="one", times=Times(low=T, high=T))
        asked = Asked(prior=prior_of(), texts=TEXTS, guider=guider)
        generator = torch.Generator().manual_seed(0)
        found[name] = score_gradient(loss, asked, X[None], generator=generator).gradient
    close(found["sds"], float(A[0] / S[0]) * found["hifa"])
    loss = replace(recipes.sds(K_SCALE), weight="one", times=Times(low=T, high=T))
    generator = torch.Generator().manual_seed(0)
    plain = score_gradient(loss, Asked(prior=prior_of(), texts=TEXTS), X[None], generator=generator)
    assert float((plain.gradient - found["sds"]).abs().max()) > 0.1


def test_apg_tames_the_over_saturation_of_guidance():
    """Under CFG pictures end at mu0 + k (mu_y - mu0). Where the text differs by contrast alone,
    mu_y = 1.2 mu0, apg leaves them at mu_y, whatever the scale."""
    prior = ByText({"wanted": GaussianPrior(1.2 * MU, C)}, GaussianPrior(MU, C))
    sizes = {}
    for name, guider in {"cfg": CFG, "apg": Guider(kind="apg")}.items():
        x = (1.2 * MU)[None].expand(64, *SHAPE)
        loss = replace(recipes.sds(K_SCALE), weight="one", times=Times(low=0.5, high=0.5))
        generator = torch.Generator().manual_seed(0)
        for _ in range(60):
            asked = Asked(prior=prior, texts={"y": "wanted"}, guider=guider)
            x = x - 0.2 * score_gradient(loss, asked, x, generator=generator).gradient
        mean = x.mean(0)
        sizes[name] = float((mean * MU).sum() / MU.square().sum())
    # noise: a mean of 64 pictures and 12 values
    assert math.isclose(sizes["cfg"], 1 + K_SCALE * 0.2, abs_tol=0.15)
    assert math.isclose(sizes["apg"], 1.2, abs_tol=0.15)


def test_what_a_guider_lacks_is_said():
    asked = Asked(prior=prior_of(), texts={"y": "wanted"}, guider=Guider(kind="perp-neg"))
    with pytest.raises(UsageError, match="no text for 'negative'"):
        score_gradient(recipes.sds(2.0), asked, X[None], generator=torch.Generator())
    for options, words in (
        ({"guider": "apg"}, "no difference"),
        ({"guider": "apg", "scale": 5.0, "loss": "csd"}, "no difference"),
        ({"apg_most": 1.0, "scale": 5.0}, "apg_most means nothing to the guider cfg"),
        ({"guider": "apg", "scale": 5.0, "unwanted": 2.0}, "unwanted means nothing"),
        ({"guider": "apg", "scale": 5.0, "apg_momentum": -0.5}, "noise of a score loss"),
    ):
        with pytest.raises(UsageError, match=words):
            GuidanceOptions(**options)
    GuidanceOptions(guider="apg", scale=5.0, apg_momentum=-0.5, target="regenerate")
