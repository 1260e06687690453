"""Splatting as Markov chain Monte Carlo (Kheradmand et al. 2024, arXiv 2404.09591).

Gaussians are samples of the scene's density: every step adds noise to the faint ones, dead ones
are moved onto live ones without changing the picture, and new ones are added the same way.

Ours: noise is as in the paper up to a Gaussian's own size, and no larger. There it goes by the
square of the size, in whatever unit, so that large faint ones were thrown so far that no picture
showed them ever again.
"""

from __future__ import annotations

from math import comb

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scene4d.cameras.quaternions import rotation_from_quat
from scene4d.methods.splat.method import McmcOptions
from scene4d.ranges import MOST_WHOLE
from scene4d.representations.gaussians import GaussianSplats
from scene4d.training.optimiser import RowEditor
from scene4d.training.step import Step
from scene4d.training.strategy import Strategy

MAX_COPIES = 51
"""Most Gaussians that one is divided into at once; bounds the sums of eq. 9."""

NOISE_SHARPNESS, NOISE_OPACITY = 100.0, 0.995
"""Noise fades out, as a logistic function, where 1 - opacity is below 1 - 0.995 (eq. 8)."""


class Mcmc(Strategy):
    """Relocation of dead Gaussians, growth to a limit, and noise."""

    options: McmcOptions
    representation: GaussianSplats
    prefix = ""
    """Of the parameter groups' names, where these Gaussians are a part of a scene."""

    def __init__(self, options, representation, optimiser, generator) -> None:
        super().__init__(options, representation, optimiser, generator)
        self.max_num_gaussians = representation.max_num_gaussians
        self.num_start = max(1, representation.num_gaussians)
        self.editor = RowEditor(representation.gaussians, optimiser, prefix=self.prefix)

    def after_step(self, step: Step) -> None:
        """Every ``refine_every`` steps relocates and grows; adds noise at every step."""
        due = step.number % self.options.refine_every == 0
        if due and self.options.refine_from <= step.progress < self.options.refine_until:
            self._relocate()
            self._grow(step.progress)
        self._perturb()

    def state_tensors(self) -> dict[str, Tensor]:
        """The number of Gaussians that training started with."""
        return {"num_start": torch.tensor(self.num_start)}

    def load_state_tensors(self, tensors) -> None:
        """Restores the starting number."""
        self.num_start = int(tensors["num_start"])
        if not 1 <= self.num_start <= MOST_WHOLE:
            raise ValueError(f"training cannot have started with {self.num_start} Gaussians")

    @torch.no_grad()
    def _relocate(self) -> None:
        alphas = self.representation.alphas
        dead = (alphas <= self.options.min_opacity).nonzero()[:, 0]
        if len(dead) == 0 or len(dead) == len(alphas):
            return
        weights = torch.where(alphas > self.options.min_opacity, alphas, 0.0)
        chosen = self._sample(weights, len(dead))
        values = self._divide(chosen)
        copies = {name: p[chosen] for name, p in self.representation.gaussians.items()}
        self.editor.overwrite(dead, {**copies, **values})
        self.editor.overwrite(chosen, values)
        self._copied(chosen, dead)

    @torch.no_grad()
    def _grow(self, progress: float) -> None:
        due = min(1.0, progress / self.options.grow_until)
        target = self.num_start + (self.max_num_gaussians - self.num_start) * due
        num_new = int(target) - self.representation.num_gaussians
        if num_new <= 0:
            return
        chosen = self._sample(self.representation.alphas, num_new)
        values = self._divide(chosen)
        copies = {name: p[chosen] for name, p in self.representation.gaussians.items()}
        self.editor.overwrite(chosen, values)
        self.editor.append({**copies, **values})
        self._copied(chosen, None)

    def _copied(self, source: Int[Tensor, " m"], rows: Int[Tensor, " m"] | None) -> None:
        """Gaussians ``source`` were copied to ``rows``, or to new rows at the end: for what a
        subclass has of them beside parameters."""

    def _divide(self, chosen: Int[Tensor, " m"]) -> dict[str, Tensor]:
        """Opacities and scales of Gaussians after each takes in its copies among ``chosen``."""
        splats = self.representation
        counts = torch.bincount(chosen, minlength=splats.num_gaussians)[chosen] + 1
        alphas, stds = divided(splats.alphas[chosen], splats.stds[chosen], counts)
        alphas = alphas.clamp(self.options.min_opacity, 1.0 - 1e-6)
        return {"opacities": torch.logit(alphas), "scales": stds.log()}

    @torch.no_grad()
    def _perturb(self) -> None:
        splats = self.representation
        rate = self.optimiser.learning_rate(f"{self.prefix}means")
        gate = torch.sigmoid(-NOISE_SHARPNESS * (splats.alphas - (1.0 - NOISE_OPACITY)))
        faint = (gate > 1e-4).nonzero()[:, 0]
        if len(faint) == 0:
            return
        normal = torch.randn(len(faint), 3, generator=self.generator).to(gate.device)
        strength = gate[faint, None] * self.options.noise * rate
        rotation = rotation_from_quat(splats.quats[faint])
        sizes = splats.stds[faint]
        reach = torch.minimum(sizes.square() * strength, sizes)
        # Sums of products: bmm of many 3x3 matrices is several times slower on the CPU.
        local = (rotation * normal[:, :, None]).sum(dim=1) * reach
        splats.means[faint] += (rotation * local[:, None, :]).sum(dim=-1)

    def _sample(self, weights: Float[Tensor, " n"], count: int) -> Int[Tensor, " m"]:
        """Indices drawn with replacement; sums in float64, as multinomial's limit is 2^24."""
        cumulative = weights.double().cumsum(0).cpu()
        draws = torch.rand(count, generator=self.generator, dtype=torch.float64) * cumulative[-1]
        return torch.searchsorted(cumulative, draws).clamp_max(len(weights) - 1).to(weights.device)


def divided(
    alphas: Float[Tensor, " m"], stds: Float[Tensor, "m 3"], counts: Int[Tensor, " m"]
) -> tuple[Float[Tensor, " m"], Float[Tensor, "m 3"]]:
    """Opacity and standard deviation that each of ``counts`` coinciding Gaussians needs so that
    together they look like the one they replace (eq. 9)."""
    counts = counts.clamp_max(MAX_COPIES)
    alphas = alphas.double()
    new_alphas = 1.0 - (1.0 - alphas) ** (1.0 / counts)
    terms = _ALTERNATING.to(alphas.device)[counts]
    powers = new_alphas[:, None] ** torch.arange(1, MAX_COPIES + 1, device=alphas.device)
    ratio = alphas / (terms * powers).sum(dim=1)
    return new_alphas.float(), (stds * ratio[:, None]).float()


def _alternating_sums() -> Float[Tensor, "counts powers"]:
    """Row n, column k: sum over i = 1..n of C(i - 1, k) (-1)^k / sqrt(k + 1)."""
    table = torch.zeros(MAX_COPIES + 1, MAX_COPIES, dtype=torch.float64)
    for n in range(1, MAX_COPIES + 1):
        for k in range(n):
            table[n, k] = comb(n, k + 1) * (-1) ** k / (k + 1) ** 0.5
    return table


_ALTERNATING = _alternating_sums()
