"""How well a predictor of frames knows what comes next in a capture, beside what needs no training.

Each picture is asked for, given those that its camera took before: held-out ones, and *late* ones,
the last fifth of what each camera of the training pictures took. Pictures between ones that were
learned say little: late ones are what comes after.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.data.scene import Scene, ViewSource
from scene4d.data.trajectories import time_of, trajectories
from scene4d.errors import UsageError
from scene4d.priors.frames import FramesPrior
from scene4d.training.priors import shown_to

_LATE = 0.2
"""Share of what each camera took."""
_MOST = 16
"""Pictures of each kind that are looked at."""
COPIED, EXTENDED = "the picture before", "the last two, extended"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A picture that is asked for, and those that its camera took before; indices of frames."""

    earliest: int
    before: int
    wanted: int


def late_of(scene: Scene) -> list[int]:
    """Frames of the last fifth of what each camera of the training pictures took, held-out ones
    among them."""
    training = set(scene.train_indices)
    paths = [path for path in trajectories(scene) if training & set(path)]
    return [index for path in paths for index in path[len(path) - int(_LATE * len(path)) :]]


def asked_of(scene: Scene) -> dict[str, list[Asked]]:
    """By "held out" and "late", some pictures that are asked for; kinds without any are left out.
    Raises :class:`UsageError` where there are none."""
    late, held_out = set(late_of(scene)), set(scene.test_indices)
    found: dict[str, list[Asked]] = {"held out": [], "late": []}
    for path in trajectories(scene):
        for place in range(2, len(path)):
            asked = Asked(earliest=path[place - 2], before=path[place - 1], wanted=path[place])
            if asked.wanted in late:
                found["late"].append(asked)
            elif asked.wanted in held_out:
                found["held out"].append(asked)
    some = {name: asked[:: -(-len(asked) // _MOST)] for name, asked in found.items() if asked}
    if not some:
        raise UsageError("has no pictures that come after two others of their camera, held out or "
                         "late", where=scene.root, fix="give a video with times")  # fmt: skip
    return some


@torch.no_grad()
def check_next(
    scene: Scene, images: ViewSource, priors: dict[str, FramesPrior], ratios: Sequence[float]
) -> dict[str, dict[str, list[float | None]]]:
    """PSNR of the colours of each wanted picture's x0(x_t), given the picture before, by prior and
    by kind of :func:`asked_of`, at each sigma / alpha; None where the prior is not valid. Beside
    them :data:`COPIED`, and :data:`EXTENDED`: before + (before - earliest) dt / dt before, in
    -1..1, which no noise changes."""
    table: dict[str, dict[str, list[float | None]]] = {}
    for kind, asked in asked_of(scene).items():
        for name, prior in priors.items():
            table.setdefault(name, {})[kind] = [
                _psnr(prior, scene, images, asked, ratio) for ratio in ratios
            ]
        guesses = [_rivals(next(iter(priors.values())), scene, images, one) for one in asked]
        for place, name in enumerate((COPIED, EXTENDED)):
            errors = [guess[place] for guess in guesses]
            table.setdefault(name, {})[kind] = [_decibels(errors)] * len(ratios)
    return table


def _psnr(
    prior: FramesPrior, scene: Scene, images: ViewSource, asked: Sequence[Asked], ratio: float
) -> float | None:
    low, high = prior.info.ratios
    if not low <= ratio <= high * (1 + 1e-5):
        return None
    generator = torch.Generator().manual_seed(0)
    errors = []
    for one in asked:
        before, wanted = (shown_to(prior, scene, images, i) for i in (one.before, one.wanted))
        lapse = time_of(scene, one.wanted) - time_of(scene, one.before)
        alpha = torch.full((1,), (1 + ratio * ratio) ** -0.5)
        noise = torch.randn(wanted.shape, generator=generator)
        x_t = alpha * (wanted + ratio * noise)[None]
        x0 = prior.after(before, lapse).denoise(x_t, alpha, ratio * alpha)[0]
        errors.append(_error(x0, wanted))
    return _decibels(errors)


def _rivals(
    prior: FramesPrior, scene: Scene, images: ViewSource, asked: Asked
) -> tuple[float, float]:
    """Errors of :data:`COPIED` and :data:`EXTENDED`."""
    earliest, before, wanted = (
        shown_to(prior, scene, images, i) for i in (asked.earliest, asked.before, asked.wanted)
    )
    times = [time_of(scene, i) for i in (asked.earliest, asked.before, asked.wanted)]
    share = (times[2] - times[1]) / max(times[1] - times[0], 1e-9)
    return _error(before, wanted), _error(before + share * (before - earliest), wanted)


def _error(
    found: Float[Tensor, "channels height width"], wanted: Float[Tensor, "channels height width"]
) -> float:
    """Mean square of the colours, 0..1."""
    return float((0.5 * (found[:3].clamp(-1, 1) - wanted[:3])).square().mean())


def _decibels(errors: Sequence[float]) -> float:
    return -10 * math.log10(max(sum(errors) / len(errors), 1e-10))
