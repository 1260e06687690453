"""Light slabs as models for other runtimes: what is common to their formats.

Every format gets two models: the whole, from the coordinates of rays to maps, and the decoder half,
from features to maps. The modules here are traced for Core ML and ExecuTorch; ONNX and LiteRT
graphs are written node by node, so that they keep pictures of any size.

Where a field has MPIs, the decoder's colours and alpha are added to the MPIs' composite: the
decoder half gives them without sigmoids, and the whole takes the pixels' rays as well, and looks
them up, plane by plane, in an atlas of the stored blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
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
from scene4d.files import atomic_path
from scene4d.methods.lightslab.bundle_parts import weights_of
from scene4d.methods.lightslab.decoder import HALO
from scene4d.methods.lightslab.light_slabs import LightSlabs
from scene4d.methods.lightslab.mpi import BLOCK
from scene4d.methods.lightslab.planes import rounded
from scene4d.methods.lightslab.runtimes.network import composited, decoded
from scene4d.methods.lightslab.runtimes.tables import mpi_tables
from scene4d.methods.lightslab.slabs import MAX_SLABS, local_rays
from scene4d.training.opened import OpenedScene

METADATA = "scene4d.lightslab"
"""Key of a model's metadata with slabs, planes and sizes as JSON: SPEC.md's entry lightslab."""


def light_field(source: OpenedScene, path: Path, *, format: str, suffix: str) -> LightSlabs:
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
    """Writes all files, each atomically and none before all are complete; their sizes in MB."""
    with ExitStack() as stack:
        for target, model in models.items():
            stack.enter_context(atomic_path(target)).write_bytes(model)
    return [len(model) / 1e6 for model in models.values()]


@torch.no_grad()
def table_of(scene: LightSlabs) -> Float[Tensor, "texels features"]:
    """The planes' texels as pictures are made of them: rounded, once training rounds them."""
    table = scene.table.detach().cpu()
    if scene.progress < scene.settings.quantise_at:
        return table
    return rounded(table, scene.feature_planes, scene.settings.bits)


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


def training_size(source: OpenedScene, otherwise: int = 512) -> tuple[int, int]:
    """Largest width and height among the training cameras."""
    cameras = source.cameras.train
    if not cameras:
        return otherwise, otherwise
    return max(c.width for c in cameras), max(c.height for c in cameras)


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


@torch.no_grad()
def pixel_rays(scene: LightSlabs, camera: Camera) -> Float[Tensor, "layers values height width"]:
    """``rays`` of a field with MPIs: every pixel's in its slabs, at most MAX_SLABS of them.

    Six values: right and down of the ray's tangent in the slab; right and down of where it passes
    the slab's viewpoint, in the plane through that; the depth of its origin along the slab's axis;
    how much the slab counts. With MAX_SLABS slabs or fewer each has a layer of its own; with more,
    a seventh value is the slab's number. The pixels reach as far as the decoder's maps do.
    """
    step, slabs = scene.decoder.shape.upsampling, scene.planes.slabs
    height, width = (-(-n // step) * step for n in (camera.height, camera.width))
    y, x = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)
    rays = rays_at(camera, pixels)
    found, layers = scene.slabs(rays.origins, rays.directions), mpi_layers(scene)
    layer = found.slab
    if slabs > layers:  # the pairs of a ray follow one another
        first = torch.searchsorted(found.ray.contiguous(), torch.arange(len(pixels)))
        layer = torch.arange(len(found.ray)) - first[found.ray]
    local = local_rays(
        rays.origins[found.ray],
        rays.directions[found.ray],
        scene.slabs.rotations[found.slab],
        scene.slabs.viewpoints[found.slab],
    )
    passing = local.at - local.start[:, None] * local.tangent
    told = [
        local.tangent,
        passing,
        local.start[:, None],
        found.weight[:, None],
        found.slab[:, None],
    ]
    values = torch.zeros(layers, len(pixels), ray_values(scene))
    values[layer, found.ray] = torch.cat(told, dim=1)[:, : ray_values(scene)]
    return values.view(layers, height, width, -1).permute(0, 3, 1, 2).contiguous()


def mpi_layers(scene: LightSlabs) -> int:
    """Slabs of one pixel's ray, at most."""
    return min(MAX_SLABS, scene.planes.slabs)


def ray_values(scene: LightSlabs) -> int:
    """Values of a ray in a slab that the whole model takes for a field with MPIs."""
    return 6 if scene.planes.slabs <= MAX_SLABS else 7


class DecoderHalf(nn.Module):
    """``features`` [1, inputs, down, across] to ``rgba`` [1, 4, height, width] after sigmoids, or
    without them where the field has MPIs, and ``z`` [1, 1, height, width].

    Convolutions and slices alone, so that tracing finds no size but the layers'. Shapes are told
    here and not in annotations, which would compare symbolic sizes while a model is traced.
    """

    def __init__(self, scene: LightSlabs) -> None:
        super().__init__()
        self.shape = scene.decoder.shape
        self.raw = scene.mpi is not None
        self.strides: dict[str, int] = {}
        for name, layer in convolutions_of(scene).items():
            self.register_buffer(f"{name}_weight", torch.tensor(layer.weight))
            self.register_buffer(f"{name}_bias", torch.tensor(layer.bias))
            self.strides[name] = layer.stride

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The maps."""
        x = decoded(self, features, self.shape)
        rgba = x[:, :4]
        return rgba if self.raw else torch.sigmoid(rgba), x[:, 4:]

    def convolved(self, x: Tensor, layer: str, *, relu: bool = False) -> Tensor:
        """See :class:`Layers`, as of the others."""
        weight, bias = getattr(self, f"{layer}_weight"), getattr(self, f"{layer}_bias")
        found = conv2d(x, weight, bias, stride=self.strides[layer])
        return torch.relu(found) if relu else found

    def upsampled(self, x: Tensor, layer: str) -> Tensor:
        """Twice as many pixels."""
        return pixel_shuffle(self.convolved(x, layer), 2)

    def relu(self, x: Tensor) -> Tensor:
        """At least 0."""
        return torch.relu(x)

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """The sum."""
        return a + b

    def joined(self, a: Tensor, b: Tensor) -> Tensor:
        """Along channels."""
        return torch.cat([a, b], dim=1)

    def inner(self, x: Tensor, ring: int) -> Tensor:
        """Without the outermost rows and columns."""
        return x if ring == 0 else x[:, :, ring:-ring, ring:-ring]


class WholeField(nn.Module):
    """``coordinates`` [slabs, down, across, 2 depths] of the samples in every slab, and how much
    each slab counts, ``weights`` [slabs, 1, down, across], to the maps of :class:`DecoderHalf`."""

    def __init__(self, scene: LightSlabs) -> None:
        super().__init__()
        planes, table = scene.feature_planes, table_of(scene)
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


class MpiComposite(nn.Module):
    """``rays`` [layers, values, height, width], see :func:`pixel_rays`, to what is seen of the
    MPIs: premultiplied colour and alpha [1, 4, height, width], and the distance along the ray
    [1, 1, height, width], 0 where nothing is seen."""

    atlas: Tensor
    index: Tensor
    corners: Tensor

    def __init__(self, scene: LightSlabs) -> None:
        super().__init__()
        self.tables = mpi_tables(scene)
        self.layers, self.slabs = mpi_layers(scene), scene.planes.slabs
        tables = self.tables
        self.register_buffer("atlas", torch.from_numpy(tables.atlas()))
        self.register_buffer("index", torch.from_numpy(tables.index))
        for name, columns in (("disparities", 1), ("low", 2), ("blocks", 2), ("starts", 1)):
            count = columns * tables.disparities.shape[1]
            found = np.stack([tables.column(name, i) for i in range(count)], axis=1)
            self.register_buffer(name, torch.from_numpy(found))
        self.register_buffer("corners", torch.from_numpy(tables.corners().T.copy()))

    def forward(self, rays: Tensor) -> tuple[Tensor, Tensor]:
        """What is seen. All of it has four axes, as XNNPACK adds and takes none away where both
        height and width are free."""
        return composited(_Traced(self, rays), rays[:, :6].split(1, dim=1), self.tables)


class _Traced:
    """:class:`Pixels` of torch: values [layers, 1, height, width], colours [layers, 4, ...]."""

    def __init__(self, module: MpiComposite, rays: Tensor) -> None:
        self.module, self.weight = module, rays[:, 5:6]
        self.slab = rays[:, 6:7].int() if module.slabs > module.layers else None
        self.atlas = module.atlas.to(rays.dtype) / 255

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    def sub(self, a: Tensor, b: Tensor) -> Tensor:
        return a - b

    def mul(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b

    def div(self, a: Tensor, b: Tensor) -> Tensor:
        return a / b

    def sqrt(self, x: Tensor) -> Tensor:
        return torch.sqrt(x)

    def relu(self, x: Tensor) -> Tensor:
        return torch.relu(x)

    def clamped(self, x: Tensor, low: float, high: float | None) -> Tensor:
        return x.clamp(low, high)

    def number(self, value: float) -> Tensor:
        return torch.full_like(self.weight, value)

    def of_slab(self, name: str, column: int) -> Tensor:
        each: Tensor = getattr(self.module, name)[:, column]
        return each.view(-1, 1, 1, 1) if self.slab is None else each[self.slab]

    def texels(self, x: Tensor, y: Tensor, plane: int) -> Tensor:
        """Places are whole numbers of at most 2^22, which float32 holds."""
        module, tables = self.module, self.module.tables
        column, row = torch.floor(x), torch.floor(y)
        cell = module.index[(self.of_slab("starts", plane) + row * tables.across + column).int()]
        across, down = (BLOCK * float(step) for step in tables.steps())
        at_x = module.corners[0][cell] + (x - column) * across
        at_y = module.corners[1][cell] + (y - row) * down
        grid = torch.cat([at_x, at_y], dim=1).permute(0, 2, 3, 1)
        found = [
            grid_sample(self.atlas, part, mode="bilinear", padding_mode="border",
                        align_corners=True)
            for part in grid.split(1)
        ]  # fmt: skip
        return torch.cat(found)

    def alpha(self, colours: Tensor) -> Tensor:
        return colours[:, 3:]

    def as_ray(self, alpha: Tensor) -> Tensor:
        return alpha

    def over_layers(self, colours: Tensor) -> Tensor:
        return (colours * self.weight).sum(dim=0, keepdim=True)

    rays_over_layers = over_layers


class WholeWithMpi(nn.Module):
    """Inputs of :class:`WholeField` and ``rays`` [layers, values, height, width] to ``rgba``
    [1, 4, height, width], colour multiplied by alpha, and ``distance`` [1, 1, height, width]."""

    def __init__(self, scene: LightSlabs) -> None:
        super().__init__()
        self.field, self.mpi = WholeField(scene), MpiComposite(scene)

    def forward(self, coordinates: Tensor, weights: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
        """The picture, and how far away what it shows is."""
        raw, _ = self.field(coordinates, weights)
        seen, distance = self.mpi(rays)
        return (seen + raw).clamp(0, 1), distance


def whole_module(scene: LightSlabs) -> nn.Module:
    """The whole, as torch has it."""
    return WholeField(scene) if scene.mpi is None else WholeWithMpi(scene)


def example_inputs(scene: LightSlabs, samples: Samples) -> dict[str, dict[str, Any]]:
    """Zeros of the shapes that :func:`whole_module` and :class:`DecoderHalf` take, by name."""
    slabs, size = scene.planes.slabs, (samples.down, samples.across)
    whole = {
        "coordinates": torch.zeros(slabs, *size, 2 * scene.slabs.num_planes),
        "weights": torch.zeros(slabs, 1, *size),
    }
    if scene.mpi is not None:
        whole["rays"] = torch.zeros(mpi_layers(scene), ray_values(scene), *_decoded(scene, size))
    return {
        "whole": whole,
        "half": {"features": torch.zeros(1, scene.decoder.shape.inputs, *size)},
    }


def _decoded(scene: LightSlabs, samples: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the maps of so many samples."""
    shape = scene.decoder.shape
    down, across = ((n // shape.samples - 2 * HALO) * shape.upsampling for n in samples)
    return down, across
