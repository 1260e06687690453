"""Where rays are sampled: evenly, stratified, or again where a first look found something.

Rays have edges [rays, n + 1] between their samples' parts; the weights of the n parts are a
histogram (Mip-NeRF 360, Barron et al. 2022, section 3). Nothing here draws random numbers of its
own: ``phase`` says where within a part (or a stratum) a sample lies, 0..1; a training moves it from
step to step."""

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


def resample(
    edges: Float[Tensor, "rays edges"],
    weights: Float[Tensor, "rays parts"],
    count: int,
    *,
    phase: float | Float[Tensor, "rays 1"] = 0.5,
    padding: float = 0.01,
) -> Float[Tensor, "rays new"]:
    """[rays, count + 1] edges of parts that share the histogram's weight evenly.

    The inverse of the cumulative weights at ``count`` places, one in each equal stratum at
    ``phase`` of it; the new edges lie half way between neighbours, and at the ends of the old ones
    (Mip-NeRF 360, supplement). ``padding``, added to the weight of each part relative to a ray's
    mean, keeps a share of the samples where there is nothing yet. Not differentiable: positions are
    constants."""
    with torch.no_grad():
        weights = weights + padding * weights.mean(dim=1, keepdim=True) + 1e-6
        # What the rest of the picture sees must not depend on rays beside this one: all row-wise.
        cumulative = torch.cat([weights.new_zeros(len(weights), 1), weights.cumsum(dim=1)], dim=1)
        cumulative = cumulative / cumulative[:, -1:]
        places = (torch.arange(count, device=edges.device) + phase) / count
        places = places.to(edges.dtype).expand(len(edges), count).contiguous()
        part = torch.searchsorted(cumulative, places, right=True).clamp(1, weights.shape[1]) - 1
        low, high = cumulative.gather(1, part), cumulative.gather(1, part + 1)
        within = ((places - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
        first, last = edges.gather(1, part), edges.gather(1, part + 1)
        centres = first + within * (last - first)
        between = (centres[:, 1:] + centres[:, :-1]) / 2
        return torch.cat([edges[:, :1], between, edges[:, -1:]], dim=1)


def interlevel_loss(
    edges: Float[Tensor, "rays edges"],
    weights: Float[Tensor, "rays parts"],
    proposal_edges: Float[Tensor, "rays edges2"],
    proposal_weights: Float[Tensor, "rays parts2"],
) -> Float[Tensor, " rays"]:
    """What a proposal's histogram leaves uncovered of the final one (Mip-NeRF 360, eq. 13).

    The weight of a part is at most that of all the proposal's parts that overlap with it, where the
    proposal is right. The gradient goes to the proposal alone: ``weights`` count as constants.
    """
    edges, weights = edges.detach(), weights.detach()
    zero = proposal_weights.new_zeros(len(proposal_weights), 1)
    cumulative = torch.cat([zero, proposal_weights.cumsum(dim=1)], dim=1)
    parts = proposal_weights.shape[1]
    places = proposal_edges.detach().contiguous()
    first = torch.searchsorted(places, edges[:, :-1].contiguous(), right=True) - 1
    last = torch.searchsorted(places, edges[:, 1:].contiguous(), right=False)
    bound = cumulative.gather(1, last.clamp(0, parts)) - cumulative.gather(1, first.clamp(0, parts))
    return ((weights - bound).clamp_min(0) ** 2 / (weights + 1e-7)).sum(dim=1)
