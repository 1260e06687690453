"""GroupedAdam against the class of torch that it stands for."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from scene4d.representations.base import ParameterGroup
from scene4d.training.optimiser import GroupedAdam, RowEditor


def made() -> nn.ParameterDict:
    generator = torch.Generator().manual_seed(3)
    return nn.ParameterDict(
        {name: nn.Parameter(torch.randn(5, 3, generator=generator)) for name in ("a", "b", "c")}
    )


def groups_of(parameters: nn.ParameterDict, names: str) -> list[ParameterGroup]:
    return [
        ParameterGroup(name=n, parameters=[parameters[n]], learning_rate=0.1 * (1 + i))
        for i, n in enumerate(names)
    ]


def loss_of(parameters: nn.ParameterDict, step: int) -> torch.Tensor:
    """In which ``b`` has no part at first."""
    used = [p for name, p in parameters.items() if name != "b" or step >= 4]
    return torch.stack([(p - 0.3 * step).sin().square().sum() for p in used]).sum()


def test_every_step_is_that_of_torch_to_the_bit():
    ours, theirs = made(), made()
    adam = GroupedAdam(groups_of(ours, "abc"))
    reference = torch.optim.Adam(
        [{"params": g.parameters, "lr": g.learning_rate, "eps": g.eps, "name": g.name}
         for g in groups_of(theirs, "abc")], fused=True,
    )  # fmt: skip
    for step in range(9):
        loss_of(ours, step).backward()
        loss_of(theirs, step).backward()
        adam.step(lambda name, step=step: 0.9**step)
        for group in reference.param_groups:
            group["lr"] = adam.learning_rate(group["name"])
        reference.step()
        reference.zero_grad()
        for name in ours:
            assert torch.equal(ours[name], theirs[name])
            assert ours[name].grad is None
    for name in ours:
        for key, value in reference.state[theirs[name]].items():
            assert torch.equal(adam.state_tensors()[f"{name}.0.{key}"], value)


def test_a_step_tells_caches_what_it_changed():
    """The fused kernel alone leaves versions as they are: caches then held what was long gone."""
    parameters = made()
    adam = GroupedAdam(groups_of(parameters, "abc"))
    before = {name: parameter._version for name, parameter in parameters.items()}
    loss_of(parameters, 0).backward()
    adam.step(lambda name: 1.0)
    changed = {name for name, parameter in parameters.items() if parameter._version > before[name]}
    assert changed == {"a", "c"}


def test_groups_that_come_later_begin_where_torch_would_begin():
    ours, theirs = made(), made()
    adam = GroupedAdam(groups_of(ours, "a"))
    reference = torch.optim.Adam([theirs["a"]], lr=0.1, eps=groups_of(ours, "a")[0].eps, fused=True)
    loss_of(ours, 0).backward()
    loss_of(theirs, 0).backward()
    adam.step(lambda name: 1.0)
    reference.step()
    adam.take_in(groups_of(ours, "ab"))
    assert list(adam.groups) == ["a", "b"]
    assert torch.equal(ours["a"], theirs["a"])


def test_rows_keep_their_moments_and_new_ones_have_none():
    parameters = made()
    adam = GroupedAdam(groups_of(parameters, "abc"))
    loss_of(parameters, 5).backward()
    adam.step(lambda name: 1.0)
    before = {name: adam.state_tensors()[f"{name}.0.exp_avg"].clone() for name in "abc"}
    editor = RowEditor(parameters, adam)
    editor.keep(torch.tensor([4, 0]))
    editor.append({name: torch.zeros(1, 3) for name in "abc"})
    after = adam.state_tensors()
    for name in "abc":
        assert torch.equal(after[f"{name}.0.exp_avg"][:2], before[name][[4, 0]])
        assert torch.equal(after[f"{name}.0.exp_avg"][2], torch.zeros(3))
        assert parameters[name].shape == (3, 3)
    loss_of(parameters, 6).backward()
    adam.step(lambda name: 1.0)
    assert float(adam.state_tensors()["a.0.step"]) == 2.0


def test_two_groups_of_one_name_are_refused():
    with pytest.raises(ValueError, match="same name"):
        GroupedAdam(groups_of(made(), "a") * 2)


def test_a_step_does_not_import_what_compiles():
    """torch._dynamo and what it needs take as long to import as torch itself."""
    code = """if True:
        import sys, torch
        from scene4d.representations.base import ParameterGroup
        from scene4d.training.optimiser import GroupedAdam
        parameter = torch.nn.Parameter(torch.ones(3))
        adam = GroupedAdam([ParameterGroup(name="a", parameters=[parameter], learning_rate=0.1)])
        parameter.sum().backward()
        adam.step(lambda name: 1.0)
        assert float(parameter[0]) < 1.0
        print("torch._dynamo" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "False"
