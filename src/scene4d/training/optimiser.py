"""Adam over named parameter groups whose primitives may come and go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.optim.adam import adam

from scene4d.errors import DataError
from scene4d.representations.base import ParameterGroup
from scene4d.representations.saved import Form, check_tensors

_MOMENTS = ("exp_avg", "exp_avg_sq")
_BETAS = (0.9, 0.999)


class GroupedAdam:
    """torch's fused Adam; keeps the moments in step when rows of parameters are edited.

    Through torch's functional form: the class ``torch.optim.Adam`` imports ``torch._dynamo``, which
    is a quarter of what a training takes to start.
    """

    def __init__(self, groups: Sequence[ParameterGroup]) -> None:
        self.groups = {group.name: group for group in groups}
        if len(self.groups) != len(groups):
            raise ValueError("two parameter groups have the same name")
        self.param_groups = [_entry(group) for group in groups]
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        """By parameter, from its first gradient on: ``step`` and both moments. This and
        ``param_groups`` are as in :class:`torch.optim.Optimizer`."""

    @property
    def parameters(self) -> list[Tensor]:
        """All of them, in the order of the groups."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def take_in(self, groups: Sequence[ParameterGroup]) -> None:
        """Adds those of ``groups`` that are new by name: a second stage's."""
        for group in groups:
            if group.name not in self.groups:
                self.groups[group.name] = group
                self.param_groups.append(_entry(group))

    @torch.no_grad()
    def step(self, factor: Callable[[str], float]) -> None:
        """One step with every group's learning rate times ``factor(name)``; clears gradients."""
        for group in self.param_groups:
            group["lr"] = self.groups[group["name"]].learning_rate * factor(group["name"])
            found = [p for p in group["params"] if p.grad is not None]
            states = [self._state_of(parameter) for parameter in found]
            lists = {key: [state[key] for state in states] for key in ("step", *_MOMENTS)}
            adam(
                found, [p.grad for p in found], lists["exp_avg"], lists["exp_avg_sq"], [],
                lists["step"], fused=True, amsgrad=False, beta1=_BETAS[0], beta2=_BETAS[1],
                lr=group["lr"], weight_decay=0.0, eps=group["eps"], maximize=False,
            )  # fmt: skip
            # The fused kernel leaves versions as they are, by which caches tell what is stale.
            for parameter in found:
                increment_version(parameter)
            for parameter in group["params"]:
                parameter.grad = None

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        if parameter not in self.state:
            state = {key: torch.zeros_like(parameter) for key in _MOMENTS}
            self.state[parameter] = {"step": torch.zeros((), device=parameter.device), **state}
        return self.state[parameter]

    def learning_rate(self, name: str) -> float:
        """The rate that the group ``name`` had in the last step."""
        return next(g["lr"] for g in self.param_groups if g["name"] == name)

    def state_tensors(self) -> dict[str, Tensor]:
        """The moments and step counts, for a checkpoint."""
        tensors = {}
        for group in self.param_groups:
            for i, parameter in enumerate(group["params"]):
                for key, value in self.state.get(parameter, {}).items():
                    tensors[f"{group['name']}.{i}.{key}"] = torch.as_tensor(value)
        return tensors

    def state_forms(self, names: Collection[str]) -> dict[str, Form]:
        """What :meth:`state_tensors` may hold: for each parameter moments of its own shape and a
        number of steps, or none of it; ``names`` are those that there are."""
        forms = {}
        for group in self.param_groups:
            for i, parameter in enumerate(group["params"]):
                prefix = f"{group['name']}.{i}."
                if not any(name.startswith(prefix) for name in names):
                    continue  # it has not had a gradient yet
                forms[f"{prefix}step"] = Form(())
                for moment in _MOMENTS:
                    forms[prefix + moment] = Form(tuple(parameter.shape), parameter.dtype)
        return forms

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores what :meth:`state_tensors` gave. Raises :class:`DataError` for what it cannot
        have given: fused Adam reads as many moments as there are parameters."""
        check_tensors(tensors, self.state_forms(tensors), where="optimiser")
        for name, value in tensors.items():
            if not name.endswith(".exp_avg") and bool((value < 0).any()):
                raise DataError("has values below 0", where=f"optimiser: {name}")
        for group in self.param_groups:
            for i, parameter in enumerate(group["params"]):
                prefix = f"{group['name']}.{i}."
                state = {
                    name[len(prefix) :]: value.to(parameter.device, copy=True)
                    for name, value in tensors.items()
                    if name.startswith(prefix)
                }
                if state:
                    self.state[parameter] = state


def _entry(group: ParameterGroup) -> dict[str, Any]:
    """The group as torch's optimisers want it."""
    return {"params": list(group.parameters), "lr": group.learning_rate, "eps": group.eps,
            "name": group.name}  # fmt: skip


class RowEditor:
    """Edits rows (primitives) of several parameters at once, with their Adam moments.

    ``parameters`` is the representation's own dictionary; its entries are replaced in place. Their
    groups are named like them, after ``prefix``.
    """

    def __init__(
        self, parameters: nn.ParameterDict, optimiser: GroupedAdam, *, prefix: str = ""
    ) -> None:
        self.parameters = parameters
        self.optimiser = optimiser
        self.prefix = prefix

    def keep(self, rows: Tensor) -> None:
        """Keeps only ``rows`` (indices or a mask)."""
        self._replace(lambda _, value: value[rows], lambda value: value[rows])

    def append(self, new: Mapping[str, Tensor]) -> None:
        """Adds rows; their moments start at 0."""
        count = next(iter(new.values())).shape[0]
        self._replace(
            lambda name, value: torch.cat([value, new[name]]),
            lambda value: torch.cat([value, value.new_zeros(count, *value.shape[1:])]),
        )

    @torch.no_grad()
    def overwrite(self, rows: Int[Tensor, " m"], values: Mapping[str, Tensor]) -> None:
        """Sets rows to new values and forgets their moments."""
        for name, value in values.items():
            parameter = self.parameters[name]
            parameter[rows] = value
            for moment in self._moments(parameter):
                moment[rows] = 0.0

    def _moments(self, parameter: Tensor) -> list[Tensor]:
        state = self.optimiser.state.get(parameter, {})
        return [state[key] for key in _MOMENTS if key in state]

    @torch.no_grad()
    def _replace(
        self,
        edit: Callable[[str, Tensor], Tensor],
        edit_moment: Callable[[Tensor], Tensor],
    ) -> None:
        groups = {group["name"]: group for group in self.optimiser.param_groups}
        for name in list(self.parameters.keys()):
            old = self.parameters[name]
            new = nn.Parameter(edit(name, old.detach()).contiguous())
            state = self.optimiser.state.pop(old, None)
            if state is not None:
                for key in _MOMENTS:
                    state[key] = edit_moment(state[key]).contiguous()
                self.optimiser.state[new] = state
            self.parameters[name] = new
            group = groups.get(self.prefix + name)
            if group is not None:  # else it is not trained
                group["params"] = [new]
