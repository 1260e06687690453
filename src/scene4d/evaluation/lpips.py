"""LPIPS v0.1 with AlexNet (Zhang et al. 2018): how different two pictures look to people.

The network sees -1..1; images are given here in **0..1** and converted inside. The weights ship
with the package in float16 and are computed with in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from scene4d.errors import DataError

WEIGHTS = Path(__file__).parent / "weights" / "lpips_alex.safetensors"
SMALLEST_SIDE = 32
"""Below this, AlexNet's last layers have no pixel left."""
_LAYERS = (("0", 4, 2), ("3", 1, 2), ("6", 1, 1), ("8", 1, 1), ("10", 1, 1))
"""Name, stride and padding of each convolution; a ReLU follows each."""
_POOLED_BEFORE = ("3", "6")
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)

Weights = Mapping[str, Tensor]


def lpips(
    pred: Float[Tensor, "*batch height width 3"],
    target: Float[Tensor, "*batch height width 3"],
    *,
    weights: Weights | None = None,
) -> Float[Tensor, " *batch"]:
    """LPIPS, one value per image; 0 is identical, lower is better. Images in 0..1.

    Differentiable in both images. ``weights``: another set with the same names, float32; by
    default the one that ships. Raises :class:`DataError` for sides below 32 pixels.
    """
    check_size(pred)
    batch = pred.shape[:-3]
    total = torch.zeros(batch, device=pred.device)
    for weighted in _layers(pred, target, weights):
        total = total + weighted.mean(dim=(-3, -2, -1)).reshape(batch)
    return total


def lpips_map(
    pred: Float[Tensor, "height width 3"],
    target: Float[Tensor, "height width 3"],
    *,
    weights: Weights | None = None,
) -> Float[Tensor, "height width"]:
    """LPIPS of every pixel (``spatial=True`` of the authors' package): each layer's map, enlarged
    to the picture bilinearly, summed. Images in 0..1; raises as :func:`lpips`."""
    check_size(pred)
    size = pred.shape[-3:-1]
    enlarged = [
        functional.interpolate(layer, size=size, mode="bilinear", align_corners=False)
        for layer in _layers(pred, target, weights)
    ]
    return torch.stack(enlarged).sum(dim=0)[0, 0]


def check_size(picture: Float[Tensor, "*batch height width 3"]) -> None:
    """Raises :class:`DataError` where a side is below 32 pixels."""
    height, width = picture.shape[-3:-1]
    if min(height, width) < SMALLEST_SIDE:
        raise DataError(
            f"LPIPS needs images of {SMALLEST_SIDE}x{SMALLEST_SIDE} pixels or more, "
            f"got {width}x{height}",
            fix="evaluate at a larger size, or without LPIPS",
        )


def _layers(
    pred: Float[Tensor, "*batch height width 3"],
    target: Float[Tensor, "*batch height width 3"],
    weights: Weights | None,
) -> Iterator[Float[Tensor, "n 1 h w"]]:
    """Of each layer, the weighted squared difference of unit-length features."""
    if weights is None:
        weights = shipped_weights(str(pred.device))
    pairs = (alexnet_features(images, weights=weights) for images in (pred, target))
    for layer, (ours, theirs) in enumerate(zip(*pairs, strict=True)):
        difference = (_unit_length(ours) - _unit_length(theirs)) ** 2
        yield functional.conv2d(difference, weights[f"lin{layer}.weight"])


@lru_cache(maxsize=2)
def shipped_weights(device: str) -> dict[str, Tensor]:
    """The packaged weights in float32 on ``device``; read when first asked for."""
    from safetensors.torch import load_file

    return {name: tensor.float().to(device) for name, tensor in load_file(WEIGHTS).items()}


def alexnet_features(
    images: Float[Tensor, "*batch h w 3"], *, weights: Weights | None = None
) -> list[Tensor]:
    """AlexNet's five feature maps [images, channels, h, w] of images in 0..1; differentiable."""
    if weights is None:
        weights = shipped_weights(str(images.device))
    x = images.float().reshape(-1, *images.shape[-3:]).movedim(-1, 1) * 2.0 - 1.0
    x = (x - x.new_tensor(_SHIFT)[:, None, None]) / x.new_tensor(_SCALE)[:, None, None]
    maps = []
    for name, stride, padding in _LAYERS:
        if name in _POOLED_BEFORE:
            x = functional.max_pool2d(x, kernel_size=3, stride=2)
        kernel, bias = weights[f"features.{name}.weight"], weights[f"features.{name}.bias"]
        x = functional.conv2d(x, kernel, bias, stride=stride, padding=padding).relu()
        maps.append(x)
    return maps


def _unit_length(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    # the floor keeps the gradient finite where every channel is 0
    return x / (x * x).sum(dim=1, keepdim=True).clamp_min(1e-20).sqrt()
