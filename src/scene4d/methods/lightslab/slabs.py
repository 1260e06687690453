"""Light slabs: from rays to coordinates on pairs of parallel planes.

A slab has a frame (a viewpoint and three axes, +z into the scene) and planes at several
disparities s = 1/z along its axis. Where a line with origin o and direction d (in the slab's frame)
meets the plane of disparity s, in perspective:

    q(s) = s * o_xy + (1 - s * o_z) * d_xy / d_z

which for s = 0, the plane at infinity, is the direction's tangent, and for s = 1/near the near
plane of normalised device coordinates. The first and the last plane are the light slab's (x, y) and
(u, v) (Levoy and Hanrahan, "Light Field Rendering", 1996; LightSpeed, arXiv 2310.16832); the planes
between them are linear in those four numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from scene4d.methods.lightslab.routing import routed

MAX_SLABS = 3
"""Slabs of one ray. Two do not suffice: where three of them meet (a cube's corner), no weights of
two at a time are continuous."""
MIN_COSINE = 0.2
"""Between a ray and a slab's axis; below it, the ray counts as parallel to the planes."""
FADE = 0.1
"""Beyond the range, in units of half of it, over which coverage falls from 1 to 0."""
ASKEW = 0.05
"""What a ray's tangent to a slab's axis costs, beside its parallax."""
LEAST_COST = 1e-3
LEAST_INSIDE = 1e-6
"""Costs are divided by how far a ray is inside a slab's ranges, or by this."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SlabRays:
    """Pairs of a ray and a slab that has a say in it; each ray has at least one pair."""

    ray: Int[Tensor, " pairs"]
    slab: Int[Tensor, " pairs"]
    weight: Float[Tensor, " pairs"]
    """The pairs of one ray sum to 1."""
    coordinates: Float[Tensor, "pairs axes"]
    """On the slab's planes in turn, x before y, each -1 to 1 within the range of the cameras."""
    coverage: Float[Tensor, " rays"]
    """1: the kind of ray that the cameras saw; 0: nobody knows."""
    start: Float[Tensor, " pairs"]
    """Depth of the ray's origin along the slab's axis, from its viewpoint."""
    climb: Float[Tensor, " pairs"]
    """Depth along the slab's axis that the ray gains on its unit length; 1 if it is parallel."""


class Slabs(nn.Module):
    """The frames, planes and ranges of all slabs of a scene, as buffers."""

    rotations: Tensor
    viewpoints: Tensor
    disparities: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        *,
        rotations: Float[Tensor, "slabs 3 3"],
        viewpoints: Float[Tensor, "slabs 3"],
        disparities: Float[Tensor, "slabs planes"],
        low: Float[Tensor, "slabs planes 2"],
        high: Float[Tensor, "slabs planes 2"],
        overlap: float = 0.1,
    ) -> None:
        """``rotations``: rows are the slab's axes in the world, the last one into the scene.
        ``disparities``: in 1 / scene units. ``low``, ``high``: what becomes -1 and 1.
        ``overlap``: how much more than the cheapest a slab may cost and count, as tangents."""
        super().__init__()
        if disparities.shape[1] < 2:
            raise ValueError("a light slab has at least two planes")
        slabs, planes = disparities.shape
        expected = ((slabs, 3, 3), (slabs, 3), (slabs, planes, 2), (slabs, planes, 2))
        shapes = tuple(tuple(t.shape) for t in (rotations, viewpoints, low, high))
        if shapes != expected:  # the kernels read as many numbers as disparities say
            raise ValueError(f"{slabs} slabs of {planes} planes have shapes {shapes}")
        self.register_buffer("rotations", rotations)
        self.register_buffer("viewpoints", viewpoints)
        self.register_buffer("disparities", disparities)
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        self.overlap = overlap

    @property
    def num_slabs(self) -> int:
        """How many slabs there are."""
        return self.rotations.shape[0]

    @property
    def num_planes(self) -> int:
        """Planes of each slab."""
        return self.disparities.shape[1]

    def forward(
        self, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]
    ) -> SlabRays:
        """Every ray in its slabs; ``directions`` of length 1. Differentiable in the rays but for
        which slabs they go to."""
        wanted = torch.is_grad_enabled() and (origins.requires_grad or directions.requires_grad)
        if wanted or origins.device.type != "cpu" or origins.dtype != torch.float32:
            return self.reference(origins, directions)
        return self._routed(origins, directions)

    def reference(
        self, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]
    ) -> SlabRays:
        """The same in torch, on any device, with gradients."""
        if self.num_slabs == 1:
            ray = torch.arange(len(origins), device=origins.device)
            slab, weight = torch.zeros_like(ray), torch.ones_like(origins[:, 0])
        else:
            weights = self._weights(origins, directions)
            ray, slab = weights.nonzero(as_tuple=True)
            weight = weights[ray, slab]
        found = self._in(slab, origins[ray], directions[ray])
        inside = torch.zeros_like(origins[:, 0]).index_add(0, ray, weight * found.inside)
        return SlabRays(
            ray=ray,
            slab=slab,
            weight=weight,
            coordinates=found.coordinates,
            coverage=inside,
            start=found.local.start,
            climb=found.local.climb,
        )

    def _routed(self, origins: Tensor, directions: Tensor) -> SlabRays:
        ray, slab, weight, coordinates, inside, start, climb = map(
            torch.from_numpy,
            routed(
                (_array(origins), _array(directions)),
                (_array(self.rotations), _array(self.viewpoints)),
                (_array(self.disparities), _array(self.low), _array(self.high)),
                (self.overlap, MIN_COSINE, FADE, ASKEW, LEAST_COST, LEAST_INSIDE),
            ),
        )
        coverage = torch.zeros(len(origins)).index_add(0, ray, weight * inside)
        return SlabRays(
            ray=ray,
            slab=slab,
            weight=weight,
            coordinates=coordinates,
            coverage=coverage,
            start=start,
            climb=climb,
        )

    def costs(
        self, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]
    ) -> Float[Tensor, "rays slabs"]:
        """What every ray costs in every slab, as tangents, wherever on its planes it is."""
        columns = []
        for slab in range(self.num_slabs):
            local = self._local(slab, origins, directions)
            cost = self._parallax(slab, local) + local.skew()
            columns.append(torch.where(local.parallel, cost / LEAST_INSIDE, cost))
        return torch.stack(columns, dim=1)

    def least_parallax(
        self, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]
    ) -> Float[Tensor, " rays"]:
        """How far apart a ray's positions on the first and the last plane are, as tangents, in the
        slab where that is least; infinite for rays that are parallel to all."""
        columns = []
        for slab in range(self.num_slabs):
            local = self._local(slab, origins, directions)
            columns.append(self._parallax(slab, local).masked_fill(local.parallel, torch.inf))
        return torch.stack(columns, dim=1).amin(dim=1)

    def _local(self, slab: int, origins: Tensor, directions: Tensor) -> LocalRays:
        rotation, viewpoint = self.rotations[slab], self.viewpoints[slab]
        return local_rays(origins, directions, rotation, viewpoint)

    def _parallax(self, slab: int, local: LocalRays) -> Float[Tensor, " rays"]:
        return local.misses() * (self.disparities[slab, -1] - self.disparities[slab, 0])

    def _weights(self, origins: Tensor, directions: Tensor) -> Float[Tensor, "rays slabs"]:
        """By costs divided by how far rays are inside, which only makes them dearer: a slab whose
        cost alone is above what counts is not looked at, and most are not."""
        costs = self.costs(origins, directions)
        cheapest = costs.min(dim=1)
        found = self._in(cheapest.indices, origins, directions)
        bound = cheapest.values / found.share() + self.overlap
        ray, slab = (costs <= bound[:, None]).nonzero(as_tuple=True)
        share = self._in(slab, origins[ray], directions[ray]).share()
        costs = costs.index_put((ray, slab), costs[ray, slab] / share)
        return slab_weights(costs, self.overlap)

    def _in(self, slab: Tensor, origins: Tensor, directions: Tensor) -> _InSlab:
        """Each ray in one slab."""
        local = local_rays(origins, directions, self.rotations[slab], self.viewpoints[slab])
        q = plane_points(local, self.disparities[slab])
        low, high = self.low[slab], self.high[slab]
        coordinates = ((q - low) / (high - low) * 2 - 1).flatten(1)
        beyond = coordinates.abs().amax(dim=1) - 1
        inside = (1 - beyond / FADE).clamp(0, 1) * ~local.parallel
        return _InSlab(coordinates=coordinates, inside=inside, local=local)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


@dataclass(frozen=True, kw_only=True, eq=False)
class LocalRays:
    """Rays in their slab's frame."""

    at: Float[Tensor, "n 2"]
    """Right and down of the origin from the viewpoint."""
    start: Float[Tensor, " n"]
    """Depth of the origin along the axis, from the viewpoint."""
    climb: Float[Tensor, " n"]
    """Depth gained along the ray's unit length; 1 where it is parallel."""
    tangent: Float[Tensor, "n 2"]
    """To the axis; 0 where the ray is parallel."""
    parallel: Bool[Tensor, " n"]
    """Rays along the planes, or against the axis: they meet nothing."""

    def misses(self) -> Float[Tensor, " n"]:
        """How far from the viewpoint the ray passes, in the plane through it."""
        return (self.at - self.start[:, None] * self.tangent).norm(dim=1)

    def skew(self) -> Float[Tensor, " n"]:
        """What it costs that the ray is askew, and the least cost."""
        return ASKEW * self.tangent.norm(dim=1) + LEAST_COST


@dataclass(frozen=True, kw_only=True, eq=False)
class _InSlab:
    coordinates: Float[Tensor, "n axes"]
    inside: Float[Tensor, " n"]
    local: LocalRays

    def share(self) -> Float[Tensor, " n"]:
        """What costs are still to be divided by: those of parallel rays are already."""
        return torch.where(self.local.parallel, 1.0, self.inside.clamp_min(LEAST_INSIDE))


def local_rays(
    origins: Float[Tensor, "n 3"],
    directions: Float[Tensor, "n 3"],
    rotations: Float[Tensor, "*n 3 3"],
    viewpoints: Float[Tensor, "*n 3"],
) -> LocalRays:
    """Rays in the frame of one slab, or each in that of its own.

    Where a ray is parallel its tangent is that of the axis, finite and without a gradient.
    """
    o = torch.einsum("...ij,...j->...i", rotations, origins - viewpoints)
    d = torch.einsum("...ij,...j->...i", rotations, directions)
    parallel = ~(d[:, 2] > MIN_COSINE * directions.detach().norm(dim=-1))
    # Masked before the division: a NaN made here would come back in the gradient.
    climb = torch.where(parallel, torch.ones_like(d[:, 2]), d[:, 2])
    tangent = torch.where(parallel[:, None], torch.zeros_like(d[:, :2]), d[:, :2])
    return LocalRays(
        at=o[:, :2],
        start=o[:, 2],
        climb=climb,
        tangent=tangent / climb[:, None],
        parallel=parallel,
    )


def plane_points(
    rays: LocalRays, disparities: Float[Tensor, "n planes"]
) -> Float[Tensor, "n planes 2"]:
    """Where each ray meets its slab's planes, in perspective."""
    s = disparities[..., None]
    return s * rays.at[:, None] + (1 - s * rays.start[:, None, None]) * rays.tangent[:, None]


def slab_weights(costs: Float[Tensor, "n slabs"], overlap: float) -> Float[Tensor, "n slabs"]:
    """How much each slab counts for a ray that it costs so much.

    The cheapest counts 1, one dearer by ``overlap`` counts 0, smoothly between; at most MAX_SLABS
    are above 0; then they are scaled to sum to 1.
    """
    t = (1 - (costs - costs.amin(dim=1, keepdim=True)) / overlap).clamp(0, 1)
    raw = t * t * (3 - 2 * t)
    if raw.shape[1] > MAX_SLABS:
        # Less the next one's weight: continuous as slabs change places in the order.
        raw = (raw - raw.topk(MAX_SLABS + 1, dim=1).values[:, -1:]).clamp_min(0)
        only = torch.nn.functional.one_hot(costs.argmin(dim=1), raw.shape[1]).to(raw)
        raw = torch.where(raw.sum(dim=1, keepdim=True) > 1e-6, raw, only)
    return raw / raw.sum(dim=1, keepdim=True)
