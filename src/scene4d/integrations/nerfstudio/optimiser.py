"""The one Adam that nerfstudio steps, and scene4d's strategies edit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from nerfstudio.engine.optimizers import OptimizerConfig

from scene4d.representations.base import ParameterGroup
from scene4d.training.optimiser import GroupedAdam


@dataclass
class SplatAdamConfig(OptimizerConfig):
    """One Adam for all of the model's groups; their learning rates are ``method``'s."""

    _target: type = torch.optim.Adam
    lr: float = 1.0
    """Unused: every group brings its own rate (--pipeline.model.method.means-lr and others)."""
    eps: float = 1e-15

    def setup(self, params: Any) -> torch.optim.Optimizer:
        """Adam over the dictionaries of :func:`torch_groups`."""
        return torch.optim.Adam(params, eps=self.eps, betas=(0.9, 0.999), fused=True)


def torch_groups(groups: Sequence[ParameterGroup]) -> list[dict[str, Any]]:
    """Parameter groups as torch's optimisers take them, with their names."""
    return [
        {"params": list(g.parameters), "lr": g.learning_rate, "eps": g.eps, "name": g.name}
        for g in groups
    ]


class NerfstudioAdam(GroupedAdam):
    """scene4d's view of an Adam that nerfstudio owns and steps."""

    def __init__(self, adam: torch.optim.Adam, groups: Sequence[ParameterGroup]) -> None:
        self.groups = {group.name: group for group in groups}
        self.param_groups, self.state = adam.param_groups, adam.state

    def set_learning_rates(self, factors: dict[str, float]) -> None:
        """Every group's rate becomes its rate at the start times its factor."""
        for group in self.param_groups:
            group["lr"] = self.groups[group["name"]].learning_rate * factors[group["name"]]
