"""FFDNet: a denoiser of natural colour pictures that is told the noise (Zhang et al. 2018).

The only natural-image score of a few megabytes that is known to us: valid at low noise, without any
condition. Its weights are not part of this package; a folder that holds them is given.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from scene4d.errors import DataError, UsageError
from scene4d.files import checked_file, is_regular_file, printable
from scene4d.priors.prior import NOTHING, Condition, Prior, PriorInfo, broadcast

NAMES = ("ffdnet_color.safetensors", "ffdnet_color.npz")
"""Files that hold the weights, in the order in which they are looked for."""
LAYERS, WIDTH = 12, 96
_MOST_NOISE = 2 * 75 / 255
"""Largest sigma / alpha on pictures of -1..1: it was trained up to 75 of 255."""
_MOST_BYTES = 16 << 20


class FfdnetPrior(Prior):
    """Colour pictures as FFDNet knows them; sigma / alpha up to 0.59."""

    info = PriorInfo(channels=("rgb",), ratios=(0.0, _MOST_NOISE))

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """``weights``: float32, named and shaped as :func:`weight_shapes` says."""
        super().__init__()
        convolutions = []
        for layer in range(LAYERS):
            kernel, bias = (weights[f"model.{2 * layer}.{part}"] for part in ("weight", "bias"))
            made = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
            made.weight, made.bias = (nn.Parameter(v, requires_grad=False) for v in (kernel, bias))
            convolutions.append(made)
        self.convolutions = nn.ModuleList(convolutions)

    def denoise(
        self,
        x_t: Float[Tensor, "*batch 3 height width"],
        alpha: Float[Tensor, " *batch"],
        sigma: Float[Tensor, " *batch"],
        condition: Condition = NOTHING,
    ) -> Float[Tensor, "*batch 3 height width"]:
        """The network on x_t / alpha, told sigma / alpha. Sides of any length: odd ones are padded.

        Pictures are -1..1, the network's 0..1, so that its noise is half of theirs."""
        noisy = (x_t / broadcast(alpha, x_t)).flatten(0, -4) * 0.5 + 0.5
        told = (0.5 * sigma / alpha).flatten()
        height, width = noisy.shape[-2:]
        kind = next(self.parameters()).dtype
        even = functional.pad(noisy, (0, width % 2, 0, height % 2), mode="replicate").to(kind)
        features = functional.pixel_unshuffle(even, 2)
        levels = told.to(features)[:, None, None, None].expand(-1, 1, *features.shape[-2:])
        features = torch.cat([features, levels], dim=1)
        for layer, convolution in enumerate(self.convolutions):
            features = convolution(features)
            if layer < LAYERS - 1:
                features = features.relu()
        clean = functional.pixel_shuffle(features, 2)[..., :height, :width]
        return (2 * clean - 1).reshape(x_t.shape).to(x_t)


def weight_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights: those of the authors' file."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(LAYERS):
        before = 13 if layer == 0 else WIDTH
        after = 12 if layer == LAYERS - 1 else WIDTH
        shapes[f"model.{2 * layer}.weight"] = (after, before, 3, 3)
        shapes[f"model.{2 * layer}.bias"] = (after,)
    return shapes


def weights_in(path: Path) -> Path | None:
    """The file of weights that ``path`` is, or that lies in it; None: there is none."""
    if os.path.isdir(path):  # which never raises, whatever the name
        return next((path / name for name in NAMES if is_regular_file(path / name)), None)
    return path if path.name in NAMES else None


def load_ffdnet(path: Path) -> FfdnetPrior:
    """The prior of a folder, or of a file of weights. Raises :class:`DataError` for anything else
    and for weights that are not FFDNet's."""
    file = weights_in(path)
    if file is None:
        raise DataError(
            "holds no weights of FFDNet" if os.path.exists(path) else "not found",
            where=printable(path),
            fix=f"give a folder with {' or '.join(NAMES)}, the weights of cszn/KAIR's ffdnet_color",
        )
    checked_file(file, most_bytes=_MOST_BYTES)
    read = _read_npz if file.suffix == ".npz" else _read_safetensors
    try:
        weights = read(file)
    except DataError:
        raise
    except Exception as error:  # both parsers raise what they like for damaged files
        raise DataError(f"is damaged: it cannot be read ({printable(error)})", where=file,
                        fix="restore the file") from error  # fmt: skip
    return FfdnetPrior(_checked(weights, file))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _read_npz(path: Path) -> dict[str, Tensor]:
    wanted = weight_shapes()
    with zipfile.ZipFile(path) as archive:
        declared = sum(member.file_size for member in archive.infolist())
    if declared > _MOST_BYTES:
        raise DataError(f"declares {declared / 1e6:,.0f} MB of weights; FFDNet has 3", where=path)
    with np.load(path, allow_pickle=False) as arrays:
        return {n: torch.from_numpy(arrays[n]) for n in arrays.files if n in wanted}


def _checked(weights: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights in float32. Raises :class:`DataError` unless they are FFDNet's."""
    for name, shape in weight_shapes().items():
        if name not in weights:
            raise DataError(f"has no tensor {name!r}: these are not FFDNet's weights", where=path)
        tensor = weights[name]
        if tuple(tensor.shape) != shape or not tensor.is_floating_point():
            raise DataError(
                f"the tensor {name!r} is {tensor.dtype} {list(tensor.shape)}, "
                f"floating-point {list(shape)} is expected",
                where=path,
            )
        if not bool(torch.isfinite(tensor).all()):
            raise DataError(f"the tensor {name!r} has values that are not finite", where=path)
    return {name: weights[name].float() for name in weight_shapes()}


class FfdnetKind:
    """FFDNet as ``--prior`` finds it."""

    description = "a folder with FFDNet's weights, ffdnet_color.npz or .safetensors"

    def takes(self, place: Path) -> bool:
        """Whether there is a file of weights."""
        return weights_in(place) is not None

    def load(self, place: Path | None, task: object) -> FfdnetPrior:
        """The prior. Raises :class:`UsageError` without a folder."""
        if place is None:
            raise UsageError("ffdnet needs its weights", where="--prior",
                             fix="give ffdnet:FOLDER, or the folder alone")  # fmt: skip
        return load_ffdnet(place)
