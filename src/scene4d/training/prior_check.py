"""How well priors know a capture: near the pictures that they have seen, and far from them.

The capture's cameras are halved by their distance from one of them. Of the near half every fourth
picture is left out (*near*), the others are what a patch memory remembers; the other half is *far*.
An interleaved hold-out alone says nothing: a memory is superb near what it remembers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from scene4d.data.scene import Scene, ViewSource
from scene4d.errors import UsageError
from scene4d.priors.prior import LatentPrior, Prior, check_of_pictures
from scene4d.training.priors import patch_memory_of, shown_to

_LEAST = 8
_MOST = 8
"""Pictures of each kind that are looked at."""


@dataclass(frozen=True, kw_only=True)
class Halves:
    """Indices of a capture's frames."""

    memory: Sequence[int]
    near: Sequence[int]
    far: Sequence[int]


def halves_of(scene: Scene) -> Halves:
    """All frames, divided as the module says. Raises :class:`UsageError` for too few."""
    if len(scene.frames) < _LEAST:
        raise UsageError(f"has {len(scene.frames)} pictures; near and far of what is seen need "
                         f"{_LEAST}", where=scene.root)  # fmt: skip
    order = _from_first(scene)
    half = order[: len(order) // 2]
    near = half[2::4]
    return Halves(memory=[i for i in half if i not in near], near=_some(near),
                  far=_some(order[len(order) // 2 :]))  # fmt: skip


def distances(scene: Scene, of: Sequence[int], to: Sequence[int]) -> tuple[float, float]:
    """Mean distance (scene units) and turn (degrees) from each frame to the nearest of others."""
    apart, turns = _apart(scene, of, to)
    nearest = (apart / scene.extent + turns).argmin(dim=1, keepdim=True)
    found = [float(m.gather(1, nearest).mean()) for m in (apart, turns)]
    return found[0], math.degrees(found[1])


@torch.no_grad()
def check(
    scene: Scene, images: ViewSource, priors: dict[str, Prior], ratios: Sequence[float]
) -> dict[str, dict[str, list[float | None]]]:
    """PSNR of the colours of x0(x_t) by prior (``patches`` besides), by near and far, at each
    sigma / alpha; None where the prior is not valid. Raises :class:`UsageError` for priors of
    other things than pictures."""
    for prior in priors.values():
        check_of_pictures(prior)
    halves = halves_of(scene)
    memory = patch_memory_of(replace(scene, train_indices=halves.memory), images)
    table: dict[str, dict[str, list[float | None]]] = {}
    for name, prior in {**priors, "patches": memory}.items():
        table[name] = {
            place: [_psnr(prior, scene, images, of, ratio) for ratio in ratios]
            for place, of in (("near", halves.near), ("far", halves.far))
        }
    return table


def _psnr(
    prior: Prior, scene: Scene, images: ViewSource, of: Sequence[int], ratio: float
) -> float | None:
    low, high = prior.info.ratios
    if not low <= ratio <= high * (1 + 1e-5):
        return None
    generator = torch.Generator().manual_seed(0)
    squares, count = 0.0, 0
    for index in of:
        clean = shown_to(prior, scene, images, index)
        latent = prior.info.space == "latent"
        x = prior.encode(clean[None])[0] if latent and isinstance(prior, LatentPrior) else clean
        alpha = torch.full((1,), (1 + ratio * ratio) ** -0.5)
        noise = torch.randn(x.shape, generator=generator)
        x0 = prior.denoise(alpha * (x + ratio * noise)[None], alpha, ratio * alpha)
        if latent and isinstance(prior, LatentPrior):
            x0 = prior.decode(x0)
        off = 0.5 * (x0[0, :3].clamp(-1, 1) - clean[:3])
        squares, count = squares + float(off.square().sum()), count + off.numel()
    return -10 * math.log10(max(squares / count, 1e-10))


def _from_first(scene: Scene) -> list[int]:
    every = range(len(scene.frames))
    apart, turns = _apart(scene, [0], every)
    return (apart / scene.extent + turns)[0].argsort().tolist()


def _apart(scene: Scene, of: Sequence[int], to: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    def poses(indices: Sequence[int]) -> torch.Tensor:
        return torch.stack([scene.frames[i].camera.c2w for i in indices]).double()

    one, other = poses(of), poses(to)
    turns = (one[:, :3, 2] @ other[:, :3, 2].T).clamp(-1, 1).acos()
    return torch.cdist(one[:, :3, 3], other[:, :3, 3]), turns


def _some(indices: Sequence[int]) -> list[int]:
    return list(indices)[:: -(-len(indices) // _MOST)]
