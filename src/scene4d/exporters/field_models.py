"""Light slabs as models for other runtimes: what is common to their formats.

Every format gets two models: the whole, from the coordinates of rays to maps, and the decoder half,
from features to maps. The modules here are traced for Core ML and ExecuTorch; ONNX and LiteRT
graphs are written node by node, so that they keep pictures of any size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, grid_sample, pixel_shuffle

from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import rays_at
from scene4d.errors import UsageError
from scene4d.exporters.light_slab import weights_of
from scene4d.exporters.source import ExportSource
from scene4d.files import atomic_path
from scene4d.representations.light_slabs.decoder import HALO, RING
from scene4d.representations.light_slabs.light_slabs import LightSlabs
from scene4d.representations.light_slabs.planes import rounded

METADATA = "scene4d.lightslab"
"""Key of a model's metadata with slabs, planes and sizes as JSON: SPEC.md's entry lightslab."""


def light_field(source: ExportSource, path: Path, *, format: str, suffix: str) -> LightSlabs:
    """The scene, if it is a light field; raises :class:`UsageError` for others and other names."""
    scene = source.representation
    if not isinstance(scene, LightSlabs):
        raise UsageError(
            f"{format} models are made of light fields alone",
            where=source.path,
            fix="train the method 'lightslab', or export a bundle",
        )
    if path.suffix.lower() != suffix:
        raise UsageError(
            f"models are written as {suffix}", where=path, fix=f"name it SOMETHING{suffix}"
        )
    return scene


def half_path(path: Path) -> Path:
    """Where the decoder half is written: beside the whole, a.decoder.onnx for a.onnx."""
    return path.with_suffix(f".decoder{path.suffix}")


def megabytes_written(models: Mapping[Path, bytes]) -> list[float]:
    """Writes every file, atomically; their sizes in MB."""
    for target, model in models.items():
        with atomic_path(target) as temporary:
            temporary.write_bytes(model)
    return [len(model) / 1e6 for model in models.values()]


@torch.no_grad()
def table_of(scene: LightSlabs) -> Float[Tensor, "texels features"]:
    """The planes' texels as pictures are made of them: rounded, once training rounds them."""
    table = scene.table.detach().cpu()
    if scene.progress < scene.settings.quantise_at:
        return table
    return rounded(table, scene.plane_set, scene.settings.bits)


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """A layer of the decoder as an unpadded convolution."""

    weight: np.ndarray
    """[out, in, side, side]"""
    bias: np.ndarray
    stride: int = 1


def convolutions_of(scene: LightSlabs) -> dict[str, Convolution]:
    """The decoder's layers by their names in a bundle; the layer that takes in the k x k samples of
    a ray has stride k."""
    weights, found = weights_of(scene), {}
    for name in (key[: -len(".weight")] for key in weights if key.endswith(".weight")):
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        side = scene.decoder.shape.samples if name == "first" else 1
        if weight.ndim == 2:  # the samples of a ray are row by row, channels last
            weight = weight.reshape(len(bias), side, side, -1).transpose(0, 3, 1, 2)
        # A copy, because 1 x 1 weights that were turned count as contiguous, and torch would take
        # them, by their strides, for channels last: ExecuTorch then mixes the two.
        found[name] = Convolution(weight=weight.copy(order="C"), bias=bias, stride=side)
    return found


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Samples along the axes of a model's input."""

    down: int
    across: int


def samples_for(scene: LightSlabs, *, width: int, height: int) -> Samples:
    """Samples for a picture, the outermost rays beyond its edges included."""
    shape = scene.decoder.shape
    down, across = ((-(-n // shape.upsampling) + 2 * HALO) * shape.samples for n in (height, width))
    return Samples(down=down, across=across)


def training_size(source: ExportSource, otherwise: int = 512) -> tuple[int, int]:
    """Largest width and height among the training cameras."""
    if not source.cameras:
        return otherwise, otherwise
    return max(c.width for c in source.cameras), max(c.height for c in source.cameras)


@torch.no_grad()
def ray_inputs(
    scene: LightSlabs, camera: Camera
) -> tuple[
    Float[Tensor, "slabs down across axes"],
    Float[Tensor, "slabs 1 down across"],
    Float[Tensor, "down across"],
]:
    """``coordinates`` and ``weights`` of the samples of one picture, and their coverage.

    The camera's focal length is the trained one; the maps reach beyond its width and height to the
    next multiple of the upsampling and are to be cut.
    """
    shape = scene.decoder.shape
    size, ring = shape.upsampling // shape.samples, HALO * shape.samples
    samples = samples_for(scene, width=camera.width, height=camera.height)
    y = (torch.arange(samples.down) - ring + 0.5) * size
    x = (torch.arange(samples.across) - ring + 0.5) * size
    pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)
    rays = rays_at(camera, pixels)
    found = scene.slabs(rays.origins, rays.directions)
    slabs = scene.planes.slabs
    coordinates = torch.zeros(slabs, len(pixels), 2 * scene.slabs.num_planes)
    coordinates[found.slab, found.ray] = found.coordinates
    weights = torch.zeros(slabs, len(pixels))
    weights[found.slab, found.ray] = found.weight
    return (
        coordinates.view(slabs, samples.down, samples.across, -1),
        weights.view(slabs, 1, samples.down, samples.across),
        found.coverage.view(samples.down, samples.across),
    )


class DecoderHalf(nn.Module):
    """``features`` [1, inputs, down, across] to ``rgba`` [1, 4, height, width] after sigmoids and
    ``z`` [1, 1, height, width].

    Convolutions and slices alone, so that tracing finds no size but the layers'. Shapes are told
    here and not in annotations, which would compare symbolic sizes while a model is traced.
    """

    def __init__(self, scene: LightSlabs) -> None:
        super().__init__()
        self.shape = scene.decoder.shape
        self.strides: dict[str, int] = {}
        for name, layer in convolutions_of(scene).items():
            self.register_buffer(f"{name}_weight", torch.tensor(layer.weight))
            self.register_buffer(f"{name}_bias", torch.tensor(layer.bias))
            self.strides[name] = layer.stride

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The maps."""
        shape = self.shape
        encoded = torch.relu(self._layer("encode", features))
        x = self._layer("first", encoded)
        for i in range(shape.blocks):
            inside = torch.relu(self._layer(f"block_{i}_0", torch.relu(x)))
            x = x + self._layer(f"block_{i}_1", inside)
        x = pixel_shuffle(self._layer("last", torch.relu(x)), 2)
        for step in range(len(shape.channels)):
            x = torch.relu(x)
            if step == shape.skip:
                x = torch.cat([x, _inner(encoded, shape.samples * HALO - RING)], dim=1)
            x = pixel_shuffle(self._layer(f"sharpen_{step}", x), 2)
        x = _inner(x, RING)
        return torch.sigmoid(x[:, :4]), x[:, 4:]

    def _layer(self, name: str, x: Tensor) -> Tensor:
        weight, bias = getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias")
        return conv2d(x, weight, bias, stride=self.strides[name])


class WholeField(nn.Module):
    """``coordinates`` [slabs, down, across, 2 depths] of the samples in every slab, and how much
    each slab counts, ``weights`` [slabs, 1, down, across], to the maps of :class:`DecoderHalf`."""

    def __init__(self, scene: LightSlabs) -> None:
        super().__init__()
        planes, table = scene.plane_set, table_of(scene)
        self.count = len(planes.planes)
        for index, plane in enumerate(planes.planes):
            grid = planes.grid(table, index).permute(0, 3, 1, 2).contiguous()
            self.register_buffer(f"grid_{index}", grid)
            self.register_buffer(f"axes_{index}", torch.tensor(plane.axes))
        self.decoder = DecoderHalf(scene)

    def forward(self, coordinates: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The maps."""
        found = [
            grid_sample(
                getattr(self, f"grid_{index}"),
                torch.index_select(coordinates, 3, getattr(self, f"axes_{index}")),
                mode="bilinear",
                padding_mode="border",
                align_corners=True,
            )
            for index in range(self.count)
        ]
        features = torch.cat(found, dim=1) * weights
        return self.decoder(features.sum(dim=0, keepdim=True))


def example_inputs(scene: LightSlabs, samples: Samples) -> dict[str, dict[str, Any]]:
    """Zeros of the shapes that :class:`WholeField` and :class:`DecoderHalf` take, by name."""
    slabs, size = scene.planes.slabs, (samples.down, samples.across)
    return {
        "whole": {
            "coordinates": torch.zeros(slabs, *size, 2 * scene.slabs.num_planes),
            "weights": torch.zeros(slabs, 1, *size),
        },
        "half": {"features": torch.zeros(1, scene.decoder.shape.inputs, *size)},
    }


def _inner(x: Tensor, ring: int) -> Tensor:
    """Without the outermost ``ring`` rows and columns."""
    return x if ring == 0 else x[:, :, ring:-ring, ring:-ring]
