"""Small networks and encodings of fields, behind one interface each.

A :class:`Network` maps features to outputs, an :class:`Encoding` places to features; both know
their widths. On CUDA a network runs in tiny-cuda-nn's fused kernels where that package is
installed, with the same weights, so that a run moves between machines; otherwise in torch. Grids on
CUDA run in torch (tiny-cuda-nn's lie half a cell elsewhere and hash in another order of axes, so
tables would not carry over). The CUDA path was written by tiny-cuda-nn's documentation and has not
been run: there was no GPU. Its JSON configurations are accepted (:meth:`MlpShape.from_config`,
:func:`grid_from_config`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from scene4d.errors import UsageError
from scene4d.optional import why_not
from scene4d.rendering.fields.hash_grid import GridShape

_FUSED_WIDTHS = (16, 32, 64, 128)
"""Of hidden layers that tiny-cuda-nn fuses."""
_ALIGNMENT = 16


@runtime_checkable
class Encoding(Protocol):
    """Features of places: hash grids are one."""

    @property
    def width(self) -> int:
        """Features of a place."""

    def __call__(self, points: Float[Tensor, "n axes"]) -> Float[Tensor, "n width"]:
        """Features at places in the unit cube."""


@runtime_checkable
class Network(Protocol):
    """What maps features to outputs."""

    @property
    def outputs(self) -> int:
        """Numbers that come out."""

    def __call__(self, features: Float[Tensor, "n inputs"]) -> Float[Tensor, "n outputs"]:
        """Outputs, row by row."""


@dataclass(frozen=True, kw_only=True)
class MlpShape:
    """Sizes of a network of fully connected layers with ReLU between and no biases."""

    inputs: int
    outputs: int
    neurons: int = 64
    """Of each hidden layer."""
    hidden_layers: int = 1

    def __post_init__(self) -> None:
        if min(self.inputs, self.outputs, self.neurons, self.hidden_layers) < 1:
            raise ValueError(f"not a network: {self}")

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, inputs: int, outputs: int) -> MlpShape:
        """From tiny-cuda-nn's JSON (``otype`` FullyFusedMLP or CutlassMLP). Raises
        :class:`UsageError` for what this network does not do."""
        known = {"otype", "activation", "output_activation", "n_neurons", "n_hidden_layers"}
        _check_config(config, known, {"otype": ("FullyFusedMLP", "CutlassMLP"),
                                      "activation": ("ReLU",),
                                      "output_activation": ("None",)})  # fmt: skip
        return cls(
            inputs=inputs,
            outputs=outputs,
            neurons=int(config.get("n_neurons", 128)),
            hidden_layers=int(config.get("n_hidden_layers", 5)),
        )

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(outputs, inputs) of every layer."""
        widths = (self.inputs, *[self.neurons] * self.hidden_layers, self.outputs)
        return tuple(zip(widths[1:], widths[:-1], strict=True))


def grid_from_config(config: Mapping[str, Any]) -> GridShape:
    """A grid of tiny-cuda-nn's JSON (``otype`` HashGrid, or Grid of type Hash). Raises
    :class:`UsageError` for what our grids do not do."""
    known = {"otype", "type", "n_levels", "n_features_per_level", "log2_hashmap_size",
             "base_resolution", "per_level_scale", "interpolation"}  # fmt: skip
    _check_config(config, known, {"otype": ("HashGrid", "Grid"), "type": ("Hash",),
                                  "interpolation": ("Linear",)})  # fmt: skip
    levels, coarsest = int(config.get("n_levels", 16)), int(config.get("base_resolution", 16))
    finest = coarsest * float(config.get("per_level_scale", 2.0)) ** (levels - 1)
    return GridShape.growing(
        levels=levels,
        features=int(config.get("n_features_per_level", 2)),
        coarsest=coarsest,
        finest=round(finest),
        max_rows=1 << int(config.get("log2_hashmap_size", 19)),
    )


def _check_config(
    config: Mapping[str, Any], known: set[str], allowed: Mapping[str, tuple[str, ...]]
) -> None:
    unknown = sorted(set(config) - known)
    wrong = [f"{k} {config[k]!r}, expected {' or '.join(v)}"
             for k, v in allowed.items() if k in config and config[k] not in v]  # fmt: skip
    if unknown or wrong:
        told = [*wrong, *(f"{name}, which is not known" for name in unknown)]
        raise UsageError(f"tiny-cuda-nn's configuration has {'; '.join(told)}")


class Mlp(nn.Module):
    """Fully connected layers with ReLU between; weights are [outputs, inputs], float32."""

    def __init__(self, shape: MlpShape, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.shape = shape
        self.weights = nn.ParameterList()
        for outputs, inputs in shape.sizes:
            bound = math.sqrt(6.0 / (inputs + outputs))  # Glorot and Bengio 2010, eq. 16
            start = torch.rand(outputs, inputs, generator=generator) * 2 * bound - bound
            self.weights.append(nn.Parameter(start))

    @property
    def outputs(self) -> int:
        """Numbers that come out."""
        return self.shape.outputs

    def forward(self, features: Float[Tensor, "n inputs"]) -> Float[Tensor, "n outputs"]:
        """Outputs, row by row; in half precision within tiny-cuda-nn's kernels."""
        fusable = features.device.type == "cuda" and self.shape.neurons in _FUSED_WIDTHS
        if fusable and fused_unavailable_reason() is None:
            return _fused(features, self.shape, list(self.weights))
        for weight in list(self.weights)[:-1]:
            features = torch.relu_(features @ weight.T)
        return features @ self.weights[-1].T


@cache
def fused_unavailable_reason() -> str | None:
    """Why tiny-cuda-nn's kernels cannot run here, in one line; None when they can."""
    if not torch.cuda.is_available():
        return "torch.cuda.is_available() is false"
    problem = why_not("tinycudann")
    return None if problem is None else f"the package 'tinycudann' {problem}"


@cache
def _fused_module(shape: MlpShape) -> Any:
    import tinycudann

    config = {
        "otype": "FullyFusedMLP",
        "activation": "ReLU",
        "output_activation": "None",
        "n_neurons": shape.neurons,
        "n_hidden_layers": shape.hidden_layers,
    }
    return tinycudann.Network(shape.inputs, shape.outputs, config)


def packed_weights(shape: MlpShape, weights: list[Tensor]) -> Float[Tensor, " values"]:
    """The weights in tiny-cuda-nn's order: layer after layer, rows of outputs, inputs and the last
    outputs padded to a multiple of 16 with zeros. Differentiable."""
    rows = []
    for layer, weight in enumerate(weights):
        outputs, inputs = weight.shape
        right = -inputs % _ALIGNMENT if layer == 0 else 0
        below = -outputs % _ALIGNMENT if layer == len(weights) - 1 else 0
        rows.append(pad(weight, (0, right, 0, below)).reshape(-1))
    return torch.cat(rows)


def _fused(features: Tensor, shape: MlpShape, weights: list[Tensor]) -> Tensor:
    """Through tiny-cuda-nn, with our weights in the place of its own."""
    from torch.func import functional_call

    module = _fused_module(shape)
    packed = packed_weights(shape, weights)
    return functional_call(module, {"params": packed}, (features,)).to(features.dtype)


def harmonics(directions: Float[Tensor, "n 3"]) -> Float[Tensor, "n 16"]:
    """Real spherical harmonics of degrees 0 to 3 of unit directions, without the constants of the
    basis: polynomials of the same spaces, of size 1, which a network's weights take up."""
    x, y, z = directions.unbind(dim=-1)
    xx, yy, zz = x * x, y * y, z * z
    return torch.stack(
        [
            torch.ones_like(x), x, y, z,
            x * y * 2, y * z * 2, z * x * 2, xx - yy, 1.5 * zz - 0.5,
            x * (xx - 3 * yy), y * (3 * xx - yy), z * (xx - yy) * 2, x * y * z * 4,
            x * (5 * zz - 1), y * (5 * zz - 1), z * (2.5 * zz - 1.5),
        ],
        dim=-1,
    )  # fmt: skip
