"""Score losses on Gaussians against closed forms, in float64.

Data N(mu, C); x_t = a x + s n; K = s (a^2 C + s^2)^-1, so that the exact noise is
e*(x_t) = K (x_t - a mu), linear in x_t. Means over the noise are exact in the formulas,
and over 20,000 draws of the code, with four standard errors as tolerance.
"""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch

from scene4d.errors import UsageError
from scene4d.priors import recipes
from scene4d.priors.gaussian import ByText, GaussianPrior, MixturePrior
from scene4d.priors.levels import Times, levels_at
from scene4d.priors.prior import Prior, PriorInfo
from scene4d.priors.score_divergence import SIM, ScoreDivergence, divergence_loss
from scene4d.priors.score_loss import Inversion, Part, ScoreLoss, guided
from scene4d.priors.scores import Asked, inject, score_gradient

DOUBLE = torch.float64
SHAPE = (3, 2, 2)
T = 0.4
A, S = (float(v) for v in levels_at("cosine", torch.tensor([T], dtype=DOUBLE)))
COUNT = 20_000


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=DOUBLE)


MU, MU_Y, MU_NEG, X, X_HAT = (0.5 * normal(*SHAPE, seed=seed) for seed in range(5))
C = 0.1 + normal(*SHAPE, seed=6).square()
C_Y = 0.1 + normal(*SHAPE, seed=7).square()


def K(c, a=A, s=S):
    return s / (a * a * c + s * s)


def at(loss, t=T):
    """The loss at one time."""
    return replace(loss, times=Times(low=t, high=t))


def gradient(loss, prior, x=X, *, count=1, progress=0.0, seed=0, **asked):
    batch = x.expand(count, *SHAPE)
    score = score_gradient(loss, Asked(prior=prior, **asked), batch, generator=seeded(seed),
                           progress=progress)  # fmt: skip
    return score.gradient


def mean_and_error(loss, prior, **more):
    """The mean over noise, and four standard errors of it: 12 values, so one in 1300 runs would
    leave it, and the seed is fixed."""
    g = gradient(loss, prior, count=COUNT, **more)
    return g.mean(0), 4 * float((g.std(0) / COUNT**0.5).max()), g


TEXTS = {"y": "wanted", "negative": "unwanted", "now": "now"}


def told(c_y=C):
    """mu and C of nothing, mu_y and ``c_y`` of what is wanted, mu_neg and C of what is not."""
    return ByText(
        {"wanted": GaussianPrior(MU_Y, c_y), "unwanted": GaussianPrior(MU_NEG, C),
         "now": GaussianPrior(MU_NEG, C)},
        GaussianPrior(MU, C),
    )  # fmt: skip


# The oracles themselves


@pytest.mark.parametrize("c", [0.3, C, torch.diag(C.flatten())], ids=["one", "diagonal", "whole"])
def test_a_gaussians_denoiser_is_the_posterior_mean(c):
    prior = GaussianPrior(MU, c)
    variance = c if isinstance(c, float) else C
    alpha, sigma = torch.tensor([A], dtype=DOUBLE), torch.tensor([S], dtype=DOUBLE)
    x_t = normal(1, *SHAPE, seed=9)
    expected = MU + A * variance / (A * A * variance + S * S) * (x_t - A * MU)
    torch.testing.assert_close(prior.denoise(x_t, alpha, sigma), expected)
    exact = torch.distributions.Normal(
        A * MU, (A * A * variance + S * S * torch.ones(SHAPE, dtype=DOUBLE)) ** 0.5
    )
    constant = 0.5 * torch.tensor(2 * torch.pi, dtype=DOUBLE).log() * MU.numel()
    expected = exact.log_prob(x_t).sum() + constant
    torch.testing.assert_close(prior.log_density(x_t, alpha, sigma)[0], expected)


def test_a_whole_covariance_mixes_the_values():
    root = normal(12, 12, seed=11)
    c = root @ root.T / 12 + 0.1 * torch.eye(12, dtype=DOUBLE)
    prior, x_t = GaussianPrior(MU, c), normal(2, *SHAPE, seed=9)
    levels = torch.tensor([A, 1.0], dtype=DOUBLE), torch.tensor([S, 0.5], dtype=DOUBLE)
    for i, (a, s) in enumerate(zip(*levels, strict=True)):
        gain = a * c @ torch.linalg.inv(a * a * c + s * s * torch.eye(12, dtype=DOUBLE))
        expected = MU.flatten() + gain @ (x_t[i] - a * MU).flatten()
        torch.testing.assert_close(prior.denoise(x_t, *levels)[i].flatten(), expected)
    with pytest.raises(UsageError, match="symmetric"):
        GaussianPrior(MU, root)


def test_a_mixtures_denoiser_follows_its_score():
    """Tweedie: x0 = (x_t + s^2 grad log p(x_t)) / a, with the density of the mixture."""
    parts = [GaussianPrior(MU, C), GaussianPrior(MU_Y, C_Y)]
    prior = MixturePrior(parts, [1.0, 3.0])
    levels = torch.tensor([A], dtype=DOUBLE), torch.tensor([S], dtype=DOUBLE)
    x_t = normal(1, *SHAPE, seed=9).requires_grad_()
    shares = torch.tensor([0.25, 0.75], dtype=DOUBLE)
    logs = torch.stack([p.log_density(x_t, *levels)[0] for p in parts]) + shares.log()
    (score,) = torch.autograd.grad(logs.logsumexp(0), x_t)
    torch.testing.assert_close(prior.denoise(x_t, *levels), (x_t + S * S * score) / A)


# Closed forms


def test_sds_has_its_mean_its_covariance_and_its_zero():
    loss, prior = at(recipes.sds()), GaussianPrior(MU, C)
    mean, error, g = mean_and_error(loss, prior)
    torch.testing.assert_close(mean, S * S * A * K(C) * (X - MU), rtol=0, atol=error)
    # covariance (s K - 1)^2 of e - n: a variance of 20,000 draws is right to 1% (sqrt(2/n)), four
    # of these; and values are independent
    torch.testing.assert_close(g.var(0), S**4 * (S * K(C) - 1) ** 2, rtol=0.04, atol=0)
    mean, error, _ = mean_and_error(loss, prior, x=MU)
    assert float(mean.abs().max()) < error


def test_guidance_moves_the_zero_away_by_its_scale():
    """Equal covariances: over-saturation in one line, mu0 + k (mu_y - mu0)."""
    zero = MU + 7.5 * (MU_Y - MU)
    loss = at(recipes.sds(7.5))
    mean, error, _ = mean_and_error(loss, told(), x=zero, texts=TEXTS)
    assert float(mean.abs().max()) < error
    # unequal: M^-1 [(1-k) K0 mu0 + k Ky mu_y], M = (1-k) K0 + k Ky; where M is near 0 the zero is
    # far away, so the slope is looked at instead
    m = (1 - 7.5) * K(C) + 7.5 * K(C_Y)
    mean, error, _ = mean_and_error(loss, told(C_Y), texts=TEXTS)
    expected = S * S * A * (m * X - (1 - 7.5) * K(C) * MU - 7.5 * K(C_Y) * MU_Y)
    torch.testing.assert_close(mean, expected, rtol=0, atol=error)


def test_hifa_is_sds_in_pictures():
    """x - x0 = (s / a)(e* - n), exactly: the same noise gives the same gradient."""
    hifa, sds = at(recipes.hifa()), replace(at(recipes.sds()), weight="one")
    prior = GaussianPrior(MU, C)
    torch.testing.assert_close(gradient(hifa, prior), gradient(sds, prior))


def test_csd_compares_two_texts_and_has_no_zero_where_they_spread_alike():
    exact = {"rtol": 1e-9, "atol": 1e-9}
    loss = at(recipes.csd())
    mean, error, _ = mean_and_error(loss, told(C_Y), texts=TEXTS)
    expected = S * S * A * (K(C_Y) * (X - MU_Y) - K(C) * (X - MU))
    torch.testing.assert_close(mean, expected, rtol=0, atol=error)
    constant = S * S * A * K(C) * (MU - MU_Y)
    for x in (X, X_HAT):
        torch.testing.assert_close(gradient(loss, told(), x, texts=TEXTS)[0], constant, **exact)
    negative = at(recipes.csd(negative=True))
    for progress, other in ((0.0, MU), (1.0, MU_NEG), (0.5, (MU + MU_NEG) / 2)):
        got = gradient(negative, told(), progress=progress, texts=TEXTS)[0]
        torch.testing.assert_close(got, S * S * A * K(C) * (other - MU_Y), **exact)


def test_nfsd_drops_what_is_unwanted_at_high_noise_alone():
    for t in (0.1, 0.4):
        a, s = (float(v) for v in levels_at("cosine", torch.tensor([t], dtype=DOUBLE)))
        mean, error, _ = mean_and_error(at(recipes.nfsd(2.0), t), told(), texts=TEXTS)
        k = K(C, a, s)
        expected = a * k * (X - MU + 2.0 * (MU - MU_Y))
        if t >= 0.2:
            expected = expected - a * k * (X - MU_NEG)
        # all noises cancel where the factors sum to 0: no spread, but float64's
        torch.testing.assert_close(mean, s * s * expected, rtol=0, atol=error + 1e-9)


def test_vsd_vanishes_only_where_both_distributions_are_one():
    loss = at(replace(recipes.vsd(1.0), weight="one"))
    p, q = GaussianPrior(MU, C), GaussianPrior(X_HAT, C_Y)
    mean, error, g = mean_and_error(loss, p, second=q)
    expected = A * (K(C) * (X - MU) - K(C_Y) * (X - X_HAT))
    torch.testing.assert_close(mean, expected, rtol=0, atol=error)
    torch.testing.assert_close(g.var(0), (S * (K(C) - K(C_Y))) ** 2, rtol=0.04, atol=0)
    assert float(gradient(loss, p, second=p).abs().max()) < 1e-12


def test_a_cloud_ends_as_a_point_under_sds_and_as_the_data_under_vsd():
    """One value a picture; the cloud's own Gaussian is phi, exact at every step."""
    one = torch.tensor([[[0.7]]], dtype=DOUBLE)
    prior = GaussianPrior(one, 0.5, channels=("depth",))
    sizes = {}
    for name, loss in {"sds": at(recipes.sds()), "vsd": at(recipes.vsd(1.0))}.items():
        cloud = 0.3 + 0.2 * normal(200, 1, 1, 1, seed=3)
        for step in range(300):
            phi = GaussianPrior(cloud.mean(0), float(cloud.var()), channels=("depth",))
            asked = Asked(prior=prior, second=phi)
            g = score_gradient(loss, asked, cloud, generator=seeded(step)).gradient
            if name == "sds":  # its exact mean over noise, for each picture its own
                g = S * S * A * K(0.5) * (cloud - one)
            cloud = cloud - 0.5 * g
        sizes[name] = float(cloud.var())
        assert float(cloud.mean()) == pytest.approx(0.7, abs=0.05)
    assert sizes["sds"] < 1e-3
    assert sizes["vsd"] == pytest.approx(0.5, abs=0.05)


def test_dmd_is_vsd_over_the_mean_residual():
    p, q = GaussianPrior(MU, C), GaussianPrior(X_HAT, C_Y)
    vsd, dmd = (gradient(at(f(1.0)), p, second=q) for f in (recipes.vsd, recipes.dmd))
    noise = torch.randn(1, *SHAPE, generator=after_times(), dtype=DOUBLE)
    levels = torch.tensor([A], dtype=DOUBLE), torch.tensor([S], dtype=DOUBLE)
    x0 = p.denoise(A * X + S * noise, *levels)
    torch.testing.assert_close(dmd, vsd / (X - x0).abs().mean())


def after_times():
    """The generator after one time was drawn."""
    generator = seeded()
    torch.rand(1, 1, generator=generator, dtype=DOUBLE)
    return generator


def test_dds_has_no_variance_and_its_zero_beside_the_reference():
    loss = at(recipes.dds(1.0))
    asked = {"texts": TEXTS, "reference": X_HAT[None], "reference_texts": {"y": "now"}}
    one, other = (gradient(loss, told(), seed=seed, **asked)[0] for seed in (0, 1))
    torch.testing.assert_close(one, A * K(C) * ((X - MU_Y) - (X_HAT - MU_NEG)))
    torch.testing.assert_close(one, other)
    guided_loss = replace(at(recipes.dds(7.5)), baseline=guided(1.0))
    baseline = {**asked, "reference_texts": {}}  # told nothing: mu
    zero = X_HAT + 7.5 * (MU_Y - MU)
    got = gradient(guided_loss, told(), zero, **baseline)
    assert float(got.abs().max()) < 1e-12


def test_bridge_leads_from_what_there_is_to_what_is_wanted():
    got = gradient(at(recipes.bridge()), told(), texts=TEXTS)[0]
    torch.testing.assert_close(got, S * S * A * K(C) * (MU_NEG - MU_Y))


def test_asd_repels_below_the_datas_own_spread():
    """(a_t K_t - a_t+ K_t+)(x - mu) and, of the one noise, (s_t K_t - s_t+ K_t+) n."""
    loss = replace(recipes.asd(1.0, step=0.2), weight="one", times=Times(low=0.0, high=0.999))
    prior, batch = GaussianPrior(MU, 1.0), X.expand(400, *SHAPE)
    score = score_gradient(loss, Asked(prior=prior), batch, generator=seeded())
    generator = seeded()  # as the loss draws: times, noise, how much later
    t = 0.999 * torch.rand(1, 400, generator=generator, dtype=DOUBLE)[0]
    noise = torch.randn(400, *SHAPE, generator=generator, dtype=DOUBLE)
    later = (t + 0.2 * t * torch.rand(400, generator=generator, dtype=DOUBLE)).clamp_max(0.999)
    levels = [levels_at("cosine", v[:, None, None, None]) for v in (t, later)]
    (a, s), (b, z) = levels
    pull = a * K(1.0, a, s) - b * K(1.0, b, z)
    expected = pull * (X - MU) + (s * K(1.0, s=s, a=a) - z * K(1.0, b, z)) * noise
    torch.testing.assert_close(score.gradient, expected, rtol=1e-9, atol=1e-9)
    # the spread of the data is sigma / alpha at t = 0.5, where a K is largest
    assert bool((pull[t > 0.5] >= 0).all()) and bool((pull[later < 0.5] <= 0).all())


def test_prd_is_the_mean_over_levels_from_high_to_low():
    loss = replace(recipes.sds(), states=4, weight="one", times=Times(low=0.1, high=0.9))
    score = score_gradient(
        loss, Asked(prior=GaussianPrior(MU, C)), X.expand(COUNT, *SHAPE), generator=seeded()
    )
    assert score.times.shape == (4, COUNT)
    assert bool((score.times[:-1] > score.times[1:]).all())
    alpha, sigma = levels_at("cosine", score.times[..., None, None, None])
    expected = (alpha * K(C, alpha, sigma) * (X - MU)).mean(0).mean(0)
    error = 4 * float((score.gradient.std(0) / COUNT**0.5).max())
    torch.testing.assert_close(score.gradient.mean(0), expected, rtol=0, atol=error)
    assert recipes.prd().states == 4 and recipes.prd().against == "later"


# Inversion


def exact_inversion(t, mu=MU, c=C):
    """Along the probability flow: x_t = a mu + (a^2 C + s^2)^.5 C^-.5 (x - mu)."""
    a, s = (float(v) for v in levels_at("cosine", torch.tensor([t], dtype=DOUBLE)))
    return a, s, ((a * a * c + s * s) / c).sqrt() * (X - mu)


def inverted(loss, steps):
    return replace(at(loss), inversion=Inversion(steps=steps))


def test_sdi_meets_its_closed_form_the_better_the_finer_its_steps():
    """x0 = mu + a C^.5 (a^2 C + s^2)^-.5 (x - mu); Euler's error falls as 1/steps."""
    a, s, _ = exact_inversion(T)
    x0 = MU + a * (C / (a * a * C + s * s)).sqrt() * (X - MU)
    errors = []
    for steps in (20, 200, 1000):
        got = gradient(inverted(recipes.sdi(1.0), steps), GaussianPrior(MU, C))[0]
        errors.append(float((got - (X - x0)).norm() / (X - x0).norm()))
    assert errors[0] > 5 * errors[1] and errors[2] < 0.01


def test_sdis_overshoot_and_fresh_noise_keep_the_noise_standard():
    loss = at(recipes.sdi(1.0))
    assert loss.inversion.overshoot and loss.inversion.fresh == 0.3
    prior = GaussianPrior(MU, C)
    x = MU + C.sqrt() * normal(COUNT, *SHAPE, seed=4)  # pictures of the prior: noise is standard
    asked, loss = Asked(prior=prior), replace(loss, inversion=replace(loss.inversion, steps=100))
    score = score_gradient(loss, asked, x, generator=seeded())
    x_t = (score.target - MU) * (A * A * C + S * S) / (A * C) + A * MU
    noise = (x_t - A * x) / S
    # 1% of Euler's steps and 1% of 20,000 draws. The noise of a deterministic path depends on x, so
    # its variance is that of the closed form.
    root = (A * A * C + S * S).sqrt()
    beyond = ((root - A * C.sqrt()) / S) ** 2
    expected = (1 - 0.09) * beyond + 0.09
    torch.testing.assert_close(noise.var(0), expected, rtol=0.12, atol=0.01)


def test_ism_compares_two_times_of_one_inversion():
    """(p_t - p_s)(x - mu), p = s (a^2 C + s^2)^-.5 C^-.5."""
    loss = inverted(replace(recipes.ism(1.0, step=0.1), weight="one"), 1000)
    got = gradient(loss, GaussianPrior(MU, C))[0]

    def p(t):
        a, s, _ = exact_inversion(t)
        return s / ((a * a * C + s * s) * C).sqrt()

    expected = (p(T) - p(T - 0.1)) * (X - MU)
    # the last step, of 0.1, is one step of Euler
    assert float((got - expected).norm()) < 0.1 * float(expected.norm())


# On a mixture, and what the gradient is for


def test_sds_ends_in_the_mode_of_the_basin_it_starts_in():
    modes = [torch.full(SHAPE, v, dtype=DOUBLE) for v in (-0.8, 0.8)]
    prior = MixturePrior([GaussianPrior(m, 0.01) for m in modes], [1.0, 1.0])
    loss = replace(recipes.sds(), weight="one", times=Times(low=0.02, high=0.1))
    for start, mode in ((-0.2, modes[0]), (0.2, modes[1])):
        x = torch.full(SHAPE, start, dtype=DOUBLE)
        for step in range(60):
            x = x - 0.05 * gradient(loss, prior, x, count=4, seed=step).mean(0)
        # noise of the last gradients, 0.05 / sqrt(4) each, of which few are remembered
        assert float((x - mode).abs().max()) < 0.1


def test_what_is_injected_has_exactly_that_gradient():
    x = X.clone().requires_grad_()
    loss = inject(x, C)
    loss.backward()
    torch.testing.assert_close(x.grad, C)
    assert float(loss.detach()) == pytest.approx(0.5 * float(C.square().sum()))


def test_a_fixer_is_asked_without_noise():
    class Halves(Prior):
        info = PriorInfo(ratios=(0.0, 0.0))

        def denoise(self, x_t, alpha, sigma, condition=None):
            assert bool((alpha == 1).all()) and bool((sigma == 0).all())
            return 0.5 * x_t

    torch.testing.assert_close(gradient(recipes.fixer(), Halves())[0], 0.5 * X)


# What is wrong is said


def test_losses_say_what_they_lack():
    prior = GaussianPrior(MU, C)
    for loss, words in (
        (recipes.vsd(), "second prior"),
        (recipes.dds(), "reference picture"),
        (recipes.csd(), "this prior reads none"),
        (recipes.nfsd(), "this prior reads none"),
    ):
        with pytest.raises(UsageError, match=words):
            gradient(loss, prior)
    with pytest.raises(UsageError, match="no text for 'now'"):
        gradient(recipes.bridge(), told(), texts={"y": "wanted"})
    with pytest.raises(UsageError, match="knows no text 'a cat'"):
        gradient(recipes.sds(2.0), told(), texts={"y": "a cat"})
    with pytest.raises(UsageError, match="4 channels"):
        gradient(recipes.sds(), GaussianPrior(normal(4, 2, 2), 1.0, channels=("rgb", "depth")))
    with pytest.raises(UsageError, match="there is no score loss"):
        recipes.recipe("sjc", 1.0)
    with pytest.raises(UsageError, match="compares a eps"):
        ScoreLoss(name="wrong", against="picture")
    with pytest.raises(UsageError, match="earlier x_s"):
        ScoreLoss(name="wrong", against="earlier")


def test_the_convention_of_guidance_is_one():
    assert guided(1.0) == (Part(role="y", factor=1.0),)
    assert guided(0.0) == (Part(role="none", factor=1.0),)
    assert sum(part.factor for part in guided(7.5)) == 1.0


# Divergences from what a second prior knows: of numbers, by quadrature


NODES, WEIGHTS = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(60))
WEIGHTS = WEIGHTS / WEIGHTS.sum()
"""Means over a standard normal: exact for polynomials, 1e-9 for the smooth functions here."""


def number(mean, variance):
    return GaussianPrior(
        torch.full((1, 1, 1), float(mean), dtype=DOUBLE), variance, channels=("depth",)
    )


def noised_normal(mean, variance):
    return torch.distributions.Normal(A * mean, (A * A * variance + S * S) ** 0.5)


F = {
    "reverse-kl": lambda u: -u.log(),
    "forward-kl": lambda u: u * u.log(),
    "jensen-shannon": lambda u: u * u.log() - (u + 1) * ((u + 1) / 2).log(),
    "hellinger": lambda u: (u.sqrt() - 1).square(),
}


@pytest.mark.parametrize("divergence", F)
def test_f_distill_follows_the_divergence_down(divergence):
    """Of a generator of one Gaussian of variance 0.3 at m: the mean of g is sigma^3 / alpha times
    the derivative of D_f(p || q) in m."""
    m = torch.tensor(0.8, dtype=DOUBLE, requires_grad=True)
    known, made = noised_normal(0.1, 0.5), noised_normal(m, 0.3)
    grid = torch.linspace(-12, 12, 20_001, dtype=DOUBLE)
    density = made.log_prob(grid)
    ratio = (known.log_prob(grid) - density).exp()
    whole = torch.trapezoid(density.exp() * F[divergence](ratio), grid)
    (slope,) = torch.autograd.grad(whole, m)
    # x and its noise, 60 x 60 places, each with its weight
    z, n = (v.flatten() for v in torch.meshgrid(NODES, NODES, indexing="ij"))
    x = (m.detach() + 0.3**0.5 * z)[:, None, None, None]
    prior, second = number(0.1, 0.5), number(0.8, 0.3)

    def log_ratio(x_t, alpha, sigma):
        normal = [noised_normal(0.1, 0.5), noised_normal(m.detach(), 0.3)]
        return (normal[0].log_prob(x_t) - normal[1].log_prob(x_t)).flatten()

    asked = Asked(prior=prior, second=second, log_ratio=log_ratio)
    loss = at(recipes.f_distill(divergence=divergence))
    with mock.patch.object(torch, "randn", lambda *shape, **kw: n.reshape(x.shape)):
        g = score_gradient(loss, asked, x, generator=seeded()).gradient.flatten()
    expected = (g * (WEIGHTS[:, None] * WEIGHTS).flatten()).sum()
    # g = sigma^2 h (e_p - e_q), e = -sigma score, and dx_t/dm = alpha
    torch.testing.assert_close(expected, S**3 / A * slope, rtol=1e-4, atol=0)


def test_a_ratio_of_densities_must_be_given():
    with pytest.raises(UsageError, match="ratio of densities"):
        gradient(at(recipes.f_distill()), GaussianPrior(MU, C), second=GaussianPrior(MU, C))
    with pytest.raises(UsageError, match="a second prior"):
        replace(recipes.sds(), divergence="forward-kl")


@pytest.mark.parametrize("square", [0.0, -0.2])
def test_a_score_divergence_is_differentiated_through_the_priors(square):
    """Of Gaussians all is known: half the squared difference of scores falls with m as
    alpha^2 (m - mu) / (V_p V_q) where the second prior is held fixed."""
    m = torch.tensor(0.8, dtype=DOUBLE, requires_grad=True)
    z, n = (v.flatten() for v in torch.meshgrid(NODES, NODES, indexing="ij"))
    x = (m + 0.3**0.5 * z)[:, None, None, None]
    levels = (torch.full((len(z),), v, dtype=DOUBLE) for v in (A, S))
    loss = ScoreDivergence(distance="square", square=square)
    found = divergence_loss(loss, number(0.1, 0.5), number(0.8, 0.3), x, n.reshape(x.shape),
                            *levels)  # fmt: skip
    mean = (found * (WEIGHTS[:, None] * WEIGHTS).flatten()).sum()
    (slope,) = torch.autograd.grad(mean, m)
    V_p, V_q = A * A * 0.5 + S * S, A * A * 0.3 + S * S
    expected = S**4 * (0.8 - 0.1) / (V_p * V_q)
    # beside it: s^4 / a^2 of the derivative of the mean squared difference of scores in x_t
    beside = 2 * S**4 / A**2 * A * (A * 0.7 / V_p) * (1 / V_p - 1 / V_q)
    torch.testing.assert_close(float(slope), expected + square * beside, rtol=1e-6, atol=0)


def test_sim_bounds_the_pull_and_vanishes_where_both_agree():
    pictures, noise = normal(50, *SHAPE, seed=3).requires_grad_(), normal(50, *SHAPE, seed=4)
    levels = (torch.full((50,), v, dtype=DOUBLE) for v in (A, S))
    same = divergence_loss(SIM, GaussianPrior(MU, C), GaussianPrior(MU, C), pictures, noise,
                           *levels)  # fmt: skip
    assert float(same.detach().abs().max()) == 0
    levels = (torch.full((50,), v, dtype=DOUBLE) for v in (A, S))
    far = GaussianPrior(MU + 1e3, C)
    loss = divergence_loss(SIM, far, GaussianPrior(MU, C), pictures, noise, *levels)
    (slope,) = torch.autograd.grad(loss.sum(), pictures)
    # however far the prior is, each value is pulled by about one part of the picture's
    assert 0.01 < float(slope.flatten(1).norm(dim=1).mean()) * 12**0.5 < 10
