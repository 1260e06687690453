"""Patch memory: the exact denoiser of the patches of given pictures, without any training.

A patch of a noised picture is explained by every remembered patch p with the probability
softmax(-|y - alpha p|^2 / (2 sigma^2)); the mean of these is the posterior mean under the empirical
distribution of patches. Overlapping patches are averaged. What it does not remember it cannot know:
between its pictures it is hard to beat, far from them it is worse than a generic denoiser.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.errors import UsageError
from scene4d.priors.prior import NOTHING, Condition, Kind, Prior, PriorInfo, broadcast

_AT_ONCE = 1 << 24
"""Numbers in the table of distances that is held at a time: 64 MB in float32."""
_LEAST_SIGMA = 1e-4
"""Below, the nearest patch is taken: the softmax of larger numbers is the same in float32."""


class PatchMemory(Prior):
    """Pictures made of patches that were seen."""

    patches: Tensor
    squares: Tensor

    def __init__(
        self,
        patches: Float[Tensor, "count channels side side"],
        *,
        channels: tuple[Kind, ...] = ("rgb",),
        stride: int = 4,
    ) -> None:
        """``patches``: clean, -1..1; see :func:`patches_of`. ``stride``: pixels between the patches
        of a picture that is denoised; the last ones lie at its border."""
        super().__init__()
        self.info = PriorInfo(channels=channels)
        if len(patches) == 0 or patches.shape[1] != self.info.num_channels:
            raise UsageError(
                f"a memory of {'+'.join(channels)} was given patches of {list(patches.shape)}",
                fix="give [count, channels, side, side], at least one",
            )
        self.stride = stride
        self.register_buffer("patches", patches)
        self.register_buffer("squares", patches.flatten(1).square().sum(dim=1))

    @property
    def side(self) -> int:
        """Of a patch, in pixels."""
        return self.patches.shape[-1]

    def denoise(
        self,
        x_t: Float[Tensor, "*batch channels height width"],
        alpha: Float[Tensor, " *batch"],
        sigma: Float[Tensor, " *batch"],
        condition: Condition = NOTHING,
    ) -> Float[Tensor, "*batch channels height width"]:
        """The mean of what all patches over a pixel say. Raises :class:`UsageError` for pictures
        that are smaller than a patch."""
        pictures = (x_t / broadcast(alpha, x_t)).flatten(0, -4).to(self.patches)
        ratios = (sigma / alpha).flatten().to(self.patches)
        rows = [self._denoised(p, r) for p, r in zip(pictures, ratios, strict=True)]
        return torch.stack(rows).reshape(x_t.shape).to(x_t)

    def _denoised(
        self, picture: Float[Tensor, "channels height width"], sigma: Float[Tensor, ""]
    ) -> Float[Tensor, "channels height width"]:
        corners = _corners(picture, self.side, self.stride)
        windows = picture.unfold(1, self.side, 1).unfold(2, self.side, 1).movedim(0, 2)
        noisy = torch.stack([windows[y, x] for y, x in corners]).flatten(1)
        said = self._explained(noisy, sigma).unflatten(1, self.patches.shape[1:])
        total, count = torch.zeros_like(picture), torch.zeros_like(picture[0])
        for (y, x), patch in zip(corners, said, strict=True):
            total[:, y : y + self.side, x : x + self.side] += patch
            count[y : y + self.side, x : x + self.side] += 1
        return total / count

    def _explained(
        self, noisy: Float[Tensor, "n values"], sigma: Float[Tensor, ""]
    ) -> Float[Tensor, "n values"]:
        known = self.patches.flatten(1)
        scale = 0.5 / sigma.clamp_min(_LEAST_SIGMA).square()
        rows = max(1, _AT_ONCE // len(known))
        found = []
        for part in noisy.split(rows):
            # |y - p|^2 but for |y|^2, which is the same for all p
            likely = (scale * (2 * part @ known.mT - self.squares)).softmax(dim=1)
            found.append(likely @ known)
        return torch.cat(found)


def patches_of(
    pictures: list[Float[Tensor, "channels _ _"]],
    *,
    side: int = 8,
    most: int = 12_000,
    valid: list[Bool[Tensor, "_ _"]] | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "count channels side side"]:
    """At most ``most`` patches at even places of the pictures, drawn evenly where there are more.

    ``valid``: pixels of each picture that say something; patches with others are left out. Raises
    :class:`UsageError` where none is left.
    """
    found = []
    for number, picture in enumerate(pictures):
        if min(picture.shape[-2:]) < side:
            continue
        corners = _corners(picture, side, max(1, side // 4))
        windows = picture.unfold(1, side, 1).unfold(2, side, 1).movedim(0, 2)
        if valid is not None:
            whole = valid[number].unfold(0, side, 1).unfold(1, side, 1).flatten(2).all(dim=2)
            corners = [(y, x) for y, x in corners if bool(whole[y, x])]
        found += [windows[y, x] for y, x in corners]
    if not found:
        raise UsageError(f"no picture has a whole patch of {side}x{side} pixels")
    order = torch.randperm(len(found), generator=generator)[:most].sort().values
    return torch.stack([found[i] for i in order.tolist()])


def _corners(picture: Tensor, side: int, stride: int) -> list[tuple[int, int]]:
    """Top-left pixels of the patches that cover a picture: the last row and column at its end."""
    height, width = picture.shape[-2:]
    if min(height, width) < side:
        raise UsageError(f"a picture of {width}x{height} pixels is smaller than a patch of {side}")
    ys, xs = ([*range(0, n - side, stride), n - side] for n in (height, width))
    return [(y, x) for y in ys for x in xs]
