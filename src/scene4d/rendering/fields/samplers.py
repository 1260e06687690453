"""Where rays are sampled: in every part between edges [n + 1] along them.

Nothing here draws random numbers of its own: ``phase`` says where within a part a sample lies,
0..1; a training moves it from step to step."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.rendering.fields.volume import RaySamples


def march_edges(near: float, far: float, uniform_to: float, count: int) -> Float[Tensor, " edges"]:
    """[count + 1] distances, on the CPU: evenly spaced up to ``uniform_to``, from there on the
    steps grow in proportion to the distance. Raises ValueError unless 0 <= near < far and there
    are steps."""
    if not 0 <= near < far or count < 1:
        raise ValueError(f"{count} steps from {near} to {far}")
    turn = min(max(uniform_to, near), far)
    if turn <= 0:
        return torch.linspace(near, far, count + 1, device="cpu")
    even, growing = turn - near, turn * math.log(far / turn)
    # The distance as a function of its length in steps: a line, then an exponential, one slope.
    length = torch.linspace(0, even + growing, count + 1, dtype=torch.float64, device="cpu")
    beyond = turn * ((length - even).clamp_min(0) / turn).exp()
    return torch.where(length <= even, near + length, beyond).float()


def regular(edges: Float[Tensor, "rays edges"], phase: float = 0.5) -> RaySamples:
    """A sample in every part of every ray, at ``phase`` of it."""
    rays, parts = edges.shape[0], edges.shape[1] - 1
    widths = edges.diff(dim=1)
    return RaySamples(
        firsts=torch.arange(rays + 1, device=edges.device) * parts,
        middles=(edges[:, :-1] + phase * widths).reshape(-1),
        widths=widths.reshape(-1),
    )
