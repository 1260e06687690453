"""Adaptive density control (Kerbl et al. 2023, section 5.2): clone, split, prune, reset."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.cameras.quaternions import rotation_from_quat
from scene4d.methods.splat.method import AdaptiveOptions
from scene4d.representations.gaussians import GaussianSplats
from scene4d.training.optimiser import RowEditor
from scene4d.training.step import Shot, Step
from scene4d.training.strategy import Strategy, ask_for_pull, pull_of

SPLIT_SHRINK = 1.6
"""A split Gaussian's halves are this many times smaller."""


class Adaptive(Strategy):
    """Divides Gaussians whose projections are pulled hard, and prunes the transparent ones."""

    options: AdaptiveOptions
    representation: GaussianSplats

    def __init__(self, options, representation, optimiser, generator) -> None:
        super().__init__(options, representation, optimiser, generator)
        self.editor = RowEditor(representation.gaussians, optimiser)
        self.num_resets = 0
        self._clear()

    def on_render(self, shot: Shot) -> None:
        """Asks for the gradients of the projected centres."""
        ask_for_pull(shot)

    def after_backward(self, step: Step) -> None:
        """Sums the screen-space gradients of the Gaussians that were seen."""
        if step.progress >= self.options.refine_until:
            return
        for shot in step.shots:
            norms = pull_of(shot)
            if norms is None:
                continue
            seen = (shot.render.extras["radii"] > 0).all(dim=-1)
            self.gradient_sum += torch.where(seen, norms, 0.0).sum(dim=0)
            self.num_seen += seen.sum(dim=0)

    def after_step(self, step: Step) -> None:
        """Refines every ``refine_every`` steps; resets opacities evenly over the period."""
        options = self.options
        if not options.refine_from <= step.progress < options.refine_until:
            return
        if step.number % options.refine_every == 0:
            self._divide()
            self._prune()
            self._clear()
        due = int((options.num_opacity_resets + 1) * step.progress / options.refine_until)
        if due > self.num_resets:
            self.num_resets = due
            self._reset_opacities()

    def state_tensors(self) -> dict[str, Tensor]:
        """The sums since the last refinement, and how many resets there were."""
        return {
            "gradient_sum": self.gradient_sum,
            "num_seen": self.num_seen,
            "num_resets": torch.tensor(self.num_resets),
        }

    def load_state_tensors(self, tensors) -> None:
        """Restores :meth:`state_tensors`."""
        device = self.representation.means.device
        self.gradient_sum = tensors["gradient_sum"].to(device)
        self.num_seen = tensors["num_seen"].to(device)
        self.num_resets = int(tensors["num_resets"])

    def _clear(self) -> None:
        means = self.representation.means
        self.gradient_sum = torch.zeros(means.shape[0], device=means.device)
        self.num_seen = torch.zeros(means.shape[0], device=means.device, dtype=torch.int64)

    @torch.no_grad()
    def _divide(self) -> None:
        splats = self.representation
        pull = self.gradient_sum / self.num_seen.clamp_min(1)
        wanted = self._strongest(pull)
        large = splats.stds.amax(dim=-1) > self.options.split_scale * splats.extent
        split, clone = wanted & large, wanted & ~large
        clones = {name: p[clone] for name, p in splats.gaussians.items()}
        halves = self._halves(split)
        self.editor.keep(~split)
        self.editor.append({name: torch.cat([clones[name], halves[name]]) for name in clones})

    def _strongest(self, pull: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """The Gaussians above the threshold, as many of the strongest as there is room for."""
        wanted = pull > self.options.gradient_threshold
        room = max(0, self.representation.max_num_gaussians - len(pull))
        if int(wanted.sum()) > room:
            keep = torch.topk(torch.where(wanted, pull, 0.0), room).indices
            wanted = torch.zeros_like(wanted)
            wanted[keep] = True
        return wanted

    def _halves(self, split: Bool[Tensor, " n"]) -> dict[str, Tensor]:
        splats = self.representation
        chosen = {name: p[split].repeat(2, *[1] * (p.ndim - 1)) for name, p in
                  splats.gaussians.items()}  # fmt: skip
        stds = chosen["scales"].exp()
        normal = torch.randn(stds.shape, generator=self.generator).to(stds.device)
        rotation = rotation_from_quat(chosen["quats"])
        # Sums of products: bmm of many 3x3 matrices is several times slower on the CPU.
        chosen["means"] = chosen["means"] + (rotation * (normal * stds)[:, None, :]).sum(dim=-1)
        chosen["scales"] = (stds / SPLIT_SHRINK).log()
        return chosen

    @torch.no_grad()
    def _prune(self) -> None:
        splats = self.representation
        useless = splats.alphas < self.options.prune_opacity
        if self.num_resets > 0:
            useless |= splats.stds.amax(dim=-1) > self.options.prune_scale * splats.extent
        if bool(useless.any()) and not bool(useless.all()):
            self.editor.keep(~useless)

    @torch.no_grad()
    def _reset_opacities(self) -> None:
        limit = torch.logit(torch.tensor(2.0 * self.options.prune_opacity))
        lowered = self.representation.gaussians["opacities"].clamp_max(limit)
        rows = torch.arange(len(lowered), device=lowered.device)
        self.editor.overwrite(rows, {"opacities": lowered})
