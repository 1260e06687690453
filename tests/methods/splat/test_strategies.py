"""Densification: what must not change when Gaussians come and go."""

import math

import pytest
import torch

from scene4d.cameras.quaternions import rotation_from_quat
from scene4d.methods.splat.adaptive import Adaptive
from scene4d.methods.splat.mcmc import MAX_COPIES, Mcmc, divided
from scene4d.methods.splat.method import AdaptiveOptions, McmcOptions
from scene4d.representations.gaussians import NAMES, GaussianSplats, gaussians_from_points
from scene4d.training.optimiser import GroupedAdam, RowEditor


def make_splats(count=50, max_num_gaussians=1000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.rand(count, 3, generator=generator)
    rgb = torch.randint(0, 256, (count, 3), generator=generator, dtype=torch.uint8)
    tensors = gaussians_from_points(xyz, rgb, sh_degree=1)
    splats = GaussianSplats(
        tensors, learning_rates=dict.fromkeys(NAMES, 1e-3), max_num_gaussians=max_num_gaussians
    )
    return splats, GroupedAdam(splats.parameter_groups()), generator


def take_a_step(splats, optimiser):
    sum((p * torch.arange(p.numel()).reshape(p.shape)).sum()
        for p in splats.gaussians.values()).backward()  # fmt: skip
    optimiser.step(lambda name: 1.0)


@pytest.mark.parametrize("count", [1, 2, 3, 10, MAX_COPIES])
@pytest.mark.parametrize("alpha", [0.01, 0.3, 0.9, 0.999])
def test_divided_gaussians_together_look_like_the_one_they_replace(alpha, count):
    """Eq. 9 of the MCMC paper: the peak and the integral of the composite are unchanged."""
    new_alpha, new_std = divided(
        torch.tensor([alpha]), torch.tensor([[0.7, 0.7, 0.7]]), torch.tensor([count])
    )
    peak = 1 - (1 - new_alpha.double().item()) ** count
    # float32 storage of the opacity, raised to the power of the count
    assert peak == pytest.approx(alpha, rel=1e-4)
    x = torch.linspace(-40, 40, 400_001, dtype=torch.float64)
    one = alpha * torch.exp(-0.5 * (x / 0.7) ** 2)
    each = new_alpha.double() * torch.exp(-0.5 * (x / new_std[0, 0].double()) ** 2)
    together = 1 - (1 - each) ** count
    assert together.sum().item() == pytest.approx(one.sum().item(), rel=1e-4)


def test_row_editor_keeps_rows_and_their_moments_together():
    splats, optimiser, _ = make_splats()
    take_a_step(splats, optimiser)
    before = {name: p.detach().clone() for name, p in splats.gaussians.items()}
    moments = {k: v.clone() for k, v in optimiser.state_tensors().items()}
    rows = torch.tensor([3, 7, 11])
    editor = RowEditor(splats.gaussians, optimiser)
    editor.keep(rows)
    editor.append({name: value[:2] for name, value in before.items()})
    after = optimiser.state_tensors()
    for name in NAMES:
        torch.testing.assert_close(splats.gaussians[name][:3], before[name][rows], rtol=0, atol=0)
        torch.testing.assert_close(splats.gaussians[name][3:], before[name][:2], rtol=0, atol=0)
        for key in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(after[f"{name}.0.{key}"][:3], moments[f"{name}.0.{key}"][rows])
            assert not after[f"{name}.0.{key}"][3:].any()
    take_a_step(splats, optimiser)  # the optimiser goes on with the new tensors
    assert not torch.equal(splats.gaussians["means"][3:], before["means"][:2])


def test_optimiser_state_survives_a_round_trip():
    splats, optimiser, _ = make_splats()
    take_a_step(splats, optimiser)
    copy = GaussianSplats({n: p.detach().clone() for n, p in splats.gaussians.items()},
                          learning_rates=splats.learning_rates)  # fmt: skip
    other = GroupedAdam(copy.parameter_groups())
    other.load_state_tensors(optimiser.state_tensors())
    take_a_step(splats, optimiser)
    take_a_step(copy, other)
    for name in NAMES:
        assert torch.equal(splats.gaussians[name], copy.gaussians[name])


def mcmc(splats, optimiser, generator, **options):
    return Mcmc(McmcOptions(**options), splats, optimiser, generator)


def test_mcmc_moves_dead_gaussians_onto_live_ones_and_keeps_their_number():
    splats, optimiser, generator = make_splats()
    with torch.no_grad():
        splats.gaussians["opacities"][:20] = torch.logit(torch.tensor(0.001))
    live = splats.means[20:].detach().clone()
    mcmc(splats, optimiser, generator)._relocate()
    assert splats.num_gaussians == 50
    distance = (splats.means[:20, None] - live).norm(dim=-1).amin(dim=1)
    assert distance.max() == 0.0
    assert (splats.alphas >= 0.005 - 1e-6).all()


def test_mcmc_grows_with_progress_up_to_the_limit():
    splats, optimiser, generator = make_splats(max_num_gaussians=130)
    strategy = mcmc(splats, optimiser, generator, grow_until=0.5)
    strategy._grow(0.25)
    assert splats.num_gaussians == 90  # half-way from 50 to 130
    strategy._grow(0.9)
    assert splats.num_gaussians == 130


def test_mcmc_noise_moves_faint_gaussians_only():
    splats, optimiser, generator = make_splats()
    with torch.no_grad():
        splats.gaussians["opacities"][:25] = 4.0
        splats.gaussians["opacities"][25:] = torch.logit(torch.tensor(0.004))
    before = splats.means.detach().clone()
    mcmc(splats, optimiser, generator)._perturb()
    moved = (splats.means - before).norm(dim=1)
    assert moved[:25].max() == 0.0
    assert moved[25:].min() > 0.0


def test_adaptive_clones_small_splits_large_and_respects_the_limit():
    splats, optimiser, generator = make_splats(max_num_gaussians=53)
    with torch.no_grad():
        splats.gaussians["scales"][0] = 0.0  # large: std 1 of extent 1
        splats.gaussians["scales"][1:] = -7.0  # small
    strategy = Adaptive(AdaptiveOptions(), splats, optimiser, generator)
    strategy.num_seen += 1
    strategy.gradient_sum[:2] = 1.0
    strategy._divide()
    assert splats.num_gaussians == 52
    halves = splats.stds[-2:].detach()
    torch.testing.assert_close(halves, torch.full_like(halves, 1 / 1.6))
    strategy._clear()
    strategy.num_seen += 1
    strategy.gradient_sum[:] = torch.arange(52.0)
    strategy._divide()
    assert splats.num_gaussians == 53


def test_adaptive_prunes_the_transparent_but_never_everything():
    splats, optimiser, generator = make_splats()
    strategy = Adaptive(AdaptiveOptions(), splats, optimiser, generator)
    with torch.no_grad():
        splats.gaussians["opacities"][:10] = -10.0
    strategy._prune()
    assert splats.num_gaussians == 40
    with torch.no_grad():
        splats.gaussians["opacities"][:] = -10.0
    strategy._prune()
    assert splats.num_gaussians == 40


def test_adaptive_opacity_reset_caps_and_forgets():
    splats, optimiser, generator = make_splats()
    take_a_step(splats, optimiser)
    Adaptive(AdaptiveOptions(), splats, optimiser, generator)._reset_opacities()
    assert splats.alphas.max() <= 0.01 + 1e-6
    assert not optimiser.state_tensors()["opacities.0.exp_avg"].any()


@pytest.mark.parametrize(("noise", "power"), [(1e3, 4), (1e9, 2)])
def test_mcmc_noise_has_the_covariance_of_the_gaussian(noise, power):
    """Eq. 8: the step is the covariance times isotropic noise, so it spreads as R S^4 R^T; where
    that is farther than the Gaussian is large, as the Gaussian itself."""
    splats, optimiser, generator = make_splats(count=20_000)
    quat = torch.tensor([0.8, 0.1, -0.5, 0.3])
    stds = torch.tensor([0.5, 0.1, 0.02])
    with torch.no_grad():
        splats.gaussians["opacities"][:] = -20.0
        splats.gaussians["quats"][:] = quat
        splats.gaussians["scales"][:] = stds.log()
    before = splats.means.detach().clone()
    mcmc(splats, optimiser, generator, noise=noise)._perturb()
    moved = splats.means.detach() - before
    rotation = rotation_from_quat(quat[None])[0]
    gate = 1 / (1 + math.exp(100 * (0 - 0.005))) if power == 4 else 1
    expected = rotation @ torch.diag(stds**power) @ rotation.T * gate**2
    # 20,000 samples: a variance is known to sqrt(2 / 20,000) = 1 %.
    torch.testing.assert_close(moved.T @ moved / len(moved), expected, rtol=0.06, atol=2e-4)
