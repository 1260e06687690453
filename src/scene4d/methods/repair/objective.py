"""The fixer's objective: repaired pictures against clean ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from scene4d.errors import UsageError
from scene4d.evaluation.lpips import SMALLEST_SIDE, lpips
from scene4d.methods.repair.critic import Critic
from scene4d.methods.repair.method import PairsOptions
from scene4d.methods.repair.pairs import Pairs, read_pairs
from scene4d.methods.repair.trainable import FixerTraining
from scene4d.training.objectives.base import Objective, ObjectiveInputs, Term
from scene4d.training.step import Step


class Repairing(Objective):
    """L1 and the root mean square of each crop's errors, half and half, LPIPS, and how well the
    network knows its own errors.

    Crops are mirrored, turned by right angles, and their colours exchanged and negated at random,
    alike in all pictures of a pair; photographs are left out at random.
    """

    options: PairsOptions
    needs_views = False

    def __init__(self, options: PairsOptions, inputs: ObjectiveInputs) -> None:
        """Raises :class:`DataError` where there are no pairs, and :class:`UsageError` for crops
        that are too small for LPIPS."""
        super().__init__(options, inputs)
        seen = options.perceptual_weight or options.adversarial_weight
        if seen and options.crop_size < SMALLEST_SIDE:
            raise UsageError(
                f"LPIPS needs crops of {SMALLEST_SIDE} pixels, got {options.crop_size}",
                fix="give --repairing.crop-size more, or --repairing.perceptual-weight 0 and no "
                    "--repairing.adversarial-weight",
            )  # fmt: skip
        self.generator, self.device = inputs.generator, inputs.device
        self.processes = inputs.processes
        self.own = self.processes.rows(options.batch, "crops")
        self.pairs: Pairs = read_pairs(options.pairs)
        judged = options.adversarial_weight
        self.critic = Critic(inputs.generator, inputs.device) if judged else None

    def __call__(self, step: Step) -> Term:
        """The term; in the log the PSNR of what comes out, and that of what went in."""
        options, trained = self.options, step.trainable
        assert isinstance(trained, FixerTraining)
        crops = self.pairs.crops(
            options.batch, options.crop_size, self.generator, forget=options.forget
        ).to(self.device)
        own = (t[self.own] for t in (crops.rgb, crops.alpha, crops.references))
        half = options.half_precision
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            made = trained.fixer(*own)
        rgb, error = (self.processes.gathered(t.float()) for t in (made.rgb, made.error))
        off = (rgb - crops.clean).abs()
        found = off.detach().mean(dim=1, keepdim=True)
        likely = (found / error + error.log()).mean()
        spread = off.square().flatten(1).mean(dim=1).clamp_min(1e-8).sqrt().mean()
        # squares alone hardly feel a background that is not quite empty
        loss = 0.5 * (off.mean() + spread) + options.error_weight * likely
        if options.perceptual_weight:
            ours, theirs = (t.permute(0, 2, 3, 1) for t in (rgb, crops.clean))
            loss = loss + options.perceptual_weight * lpips(ours, theirs).mean()
        log = {}
        if self.critic is not None:
            log["critic"] = self.critic.learn(rgb.clamp(0, 1), crops.clean)
            loss = loss + options.adversarial_weight * self.critic.loss_of(rgb)
        log |= {
            "repairing": loss,
            "psnr": _psnr(rgb.detach().clamp(0, 1), crops.clean),
            "psnr_before": _psnr(crops.rgb, crops.clean),
        }
        return Term(loss=loss, log=log)

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """The critic's, where there is one."""
        return {} if self.critic is None else self.critic.state_tensors()

    def load_state_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restores them."""
        if self.critic is not None:
            self.critic.load_state_tensors(tensors)


def _psnr(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return -10 * (one - other).square().mean().clamp_min(1e-10).log10()
