"""The fixer's objective: repaired pictures against clean ones."""

from __future__ import annotations

import torch

from scene4d.methods.repair.method import PairsOptions
from scene4d.methods.repair.pairs import Pairs, read_pairs
from scene4d.methods.repair.trainable import FixerTraining
from scene4d.training.objectives.base import Objective, ObjectiveInputs, Term
from scene4d.training.step import Step


class Repairing(Objective):
    """L1 of colours, and how well the network knows its own errors.

    Crops are mirrored, turned by right angles, and their colours exchanged and negated at random,
    alike in all pictures of a pair; photographs are left out at random.
    """

    options: PairsOptions
    needs_views = False

    def __init__(self, options: PairsOptions, inputs: ObjectiveInputs) -> None:
        """Raises :class:`DataError` where there are no pairs."""
        super().__init__(options, inputs)
        self.generator, self.device = inputs.generator, inputs.device
        self.processes = inputs.processes
        self.own = self.processes.rows(options.batch, "crops")
        self.pairs: Pairs = read_pairs(options.pairs)

    def __call__(self, step: Step) -> Term:
        """The term; in the log the PSNR of what comes out, and that of what went in."""
        options, trained = self.options, step.trainable
        assert isinstance(trained, FixerTraining)
        crops = self.pairs.crops(
            options.batch, options.crop_size, self.generator, forget=options.forget
        ).to(self.device)
        own = (t[self.own] for t in (crops.rgb, crops.alpha, crops.references))
        made = trained.fixer(*own)
        rgb, error = (self.processes.gathered(t) for t in (made.rgb, made.error))
        off = (rgb - crops.clean).abs()
        found = off.detach().mean(dim=1, keepdim=True)
        likely = (found / error + error.log()).mean()
        loss = off.mean() + options.error_weight * likely
        log = {
            "repairing": loss,
            "psnr": _psnr(rgb.detach().clamp(0, 1), crops.clean),
            "psnr_before": _psnr(crops.rgb, crops.clean),
        }
        return Term(loss=loss, log=log)


def _psnr(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return -10 * (one - other).square().mean().clamp_min(1e-10).log10()
