"""Light slabs as ONNX models: from the coordinates of rays to maps, and the decoder by itself.

Only operations that phone runtimes have: GridSample (bilinear, border, align_corners), Conv, Relu,
DepthToSpace, Slice, Concat. Both models are for pictures of any size, in opset 17.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import scene4d
from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import rays_at
from scene4d.errors import MissingExtraError, UsageError
from scene4d.exporters.light_slab import structure_of, weights_of
from scene4d.exporters.source import ExportSource
from scene4d.files import atomic_path
from scene4d.representations.light_slabs.decoder import HALO, OUTPUTS, RING
from scene4d.representations.light_slabs.light_slabs import LightSlabs
from scene4d.representations.light_slabs.planes import rounded

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET, IR_VERSION = 17, 8
METADATA = "scene4d.lightslab"
"""Key of the model's metadata with slabs, planes and sizes as JSON: SPEC.md's entry lightslab."""
DECODER_SUFFIX = ".decoder.onnx"


def export(source: ExportSource, path: Path, options: None = None) -> str:
    """Writes the whole model, and beside it the decoder half; returns a line that describes them.

    Raises :class:`UsageError` for scenes that are no light field.
    """
    scene, path = source.representation, Path(path)
    if not isinstance(scene, LightSlabs):
        raise UsageError(
            "ONNX models are made of light fields alone",
            where=source.path,
            fix="train the method 'lightslab', or export a bundle",
        )
    if path.suffix.lower() != ".onnx":
        raise UsageError("models are written as .onnx", where=path, fix="name it SOMETHING.onnx")
    half = path.with_suffix(DECODER_SUFFIX)
    sizes = []
    for target, model in ((path, whole_model(scene)), (half, decoder_model(scene))):
        with atomic_path(target) as temporary:
            temporary.write_bytes(model.SerializeToString())
        sizes.append(target.stat().st_size / 1e6)
    return (
        f"ONNX, opset {OPSET}, float32: coordinates to maps {sizes[0]:.2f} MB; features to maps"
        f" {sizes[1]:.2f} MB, {half}"
    )


class _Graph:
    """Nodes and weights, added one behind the other; every node has one output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def constant(self, value: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operation: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        name = name or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, list(inputs), [name], **attributes))
        return name

    def conv(self, x: str, weight: np.ndarray, bias: np.ndarray, **attributes: Any) -> str:
        w, b = self.constant(weight), self.constant(bias)
        return self.add("Conv", x, w, b, kernel_shape=list(weight.shape[2:]), **attributes)

    def inner(self, x: str, ring: int) -> str:
        """Without the outermost ``ring`` rows and columns."""
        if ring == 0:
            return x
        starts, ends, axes = (
            self.constant(np.array(v, dtype=np.int64)) for v in ([ring] * 2, [-ring] * 2, [2, 3])
        )
        return self.add("Slice", x, starts, ends, axes)

    def shuffle(self, x: str) -> str:
        """Output channel 4 c + 2 y + x becomes channel c of the pixel (y, x)."""
        return self.add("DepthToSpace", x, blocksize=2, mode="CRD")


def decoder_model(scene: LightSlabs) -> ModelProto:
    """``features`` [1, inputs, down, across] of the samples, an outermost ray of the bundle beyond
    each edge included, to ``rgba`` [1, 4, height, width] after sigmoids and ``z`` [1, 1, ...]."""
    _need_onnx()
    graph = _Graph()
    _decode(graph, "features", scene)
    inputs: dict[str, Sequence[int | str]] = {
        "features": [1, scene.decoder.shape.inputs, "down", "across"]
    }
    return _model(graph, scene, inputs, "light slabs, decoder")


def whole_model(scene: LightSlabs) -> ModelProto:
    """``coordinates`` [slabs, down, across, 2 depths] of the samples in every slab, and how much
    each slab counts, ``weights`` [slabs, 1, down, across], to the same outputs.

    :func:`ray_inputs` makes both for a camera.
    """
    _need_onnx()
    graph = _Graph()
    planes, slabs = scene.plane_set, scene.planes.slabs
    table = scene.table.detach()
    if scene.progress >= scene.settings.quantise_at:
        table = rounded(table, planes, scene.settings.bits)
    found = []
    for index, plane in enumerate(planes.planes):
        grid = planes.grid(table, index).permute(0, 3, 1, 2).cpu().numpy()
        axes = graph.constant(np.array(plane.axes, dtype=np.int64))
        where = graph.add("Gather", "coordinates", axes, axis=3)
        found.append(
            graph.add(
                "GridSample",
                graph.constant(grid),
                where,
                mode="bilinear",
                padding_mode="border",
                align_corners=1,
            )
        )
    features = graph.add("Concat", *found, axis=1) if len(found) > 1 else found[0]
    weighted = graph.add("Mul", features, "weights")
    axis = graph.constant(np.array([0], dtype=np.int64))
    _decode(graph, graph.add("ReduceSum", weighted, axis, keepdims=1), scene)
    inputs: dict[str, Sequence[int | str]] = {
        "coordinates": [slabs, "down", "across", 2 * scene.slabs.num_planes],
        "weights": [slabs, 1, "down", "across"],
    }
    return _model(graph, scene, inputs, "light slabs")


def _decode(graph: _Graph, features: str, scene: LightSlabs) -> None:
    """Adds the decoder and its outputs."""
    shape, weights = scene.decoder.shape, weights_of(scene)
    k = shape.samples

    def layer(x: str, name: str, side: int = 1, **attributes: Any) -> str:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        if weight.ndim == 2:  # the k x k samples of a ray are row by row, channels last
            weight = weight.reshape(len(bias), side, side, -1).transpose(0, 3, 1, 2)
        return graph.conv(x, weight, bias, **attributes)

    encoded = graph.add("Relu", layer(features, "encode"))
    x = layer(encoded, "first", k, strides=[k, k])
    for i in range(shape.blocks):
        inside = graph.add("Relu", layer(graph.add("Relu", x), f"block_{i}_0"))
        x = graph.add("Add", x, layer(inside, f"block_{i}_1"))
    x = graph.shuffle(layer(graph.add("Relu", x), "last"))
    for step in range(len(scene.decoder.sharpen)):
        x = graph.add("Relu", x)
        if step == shape.skip:
            x = graph.add("Concat", x, graph.inner(encoded, k * HALO - RING), axis=1)
        x = graph.shuffle(layer(x, f"sharpen_{step}"))
    sizes = graph.constant(np.array([4, OUTPUTS - 4], dtype=np.int64))
    from onnx import helper

    graph.nodes.append(
        helper.make_node("Split", [graph.inner(x, RING), sizes], ["colours", "z"], axis=1)
    )
    graph.add("Sigmoid", "colours", name="rgba")


def _model(
    graph: _Graph, scene: LightSlabs, inputs: dict[str, Sequence[int | str]], name: str
) -> ModelProto:
    from onnx import TensorProto, checker, helper

    def value(label: str, shape: Sequence[int | str]) -> Any:
        return helper.make_tensor_value_info(label, TensorProto.FLOAT, shape)

    made = helper.make_graph(
        graph.nodes,
        name,
        [value(label, shape) for label, shape in inputs.items()],
        [value("rgba", [1, 4, "height", "width"]), value("z", [1, 1, "height", "width"])],
        initializer=graph.weights,
    )
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="scene4d",
        producer_version=scene4d.__version__,
    )
    helper.set_model_props(model, {METADATA: json.dumps(structure_of(scene))})
    checker.check_model(model, full_check=True)
    return model


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
    down, across = (
        -(-n // shape.upsampling) * shape.samples + 2 * ring for n in (camera.height, camera.width)
    )
    y = (torch.arange(down) - ring + 0.5) * size
    x = (torch.arange(across) - ring + 0.5) * size
    pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)
    rays = rays_at(camera, pixels)
    found = scene.slabs(rays.origins, rays.directions)
    slabs = scene.planes.slabs
    coordinates = torch.zeros(slabs, len(pixels), 2 * scene.slabs.num_planes)
    coordinates[found.slab, found.ray] = found.coordinates
    weights = torch.zeros(slabs, len(pixels))
    weights[found.slab, found.ray] = found.weight
    return (
        coordinates.view(slabs, down, across, -1),
        weights.view(slabs, 1, down, across),
        found.coverage.view(down, across),
    )


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("onnx", extra="onnx", needed_for="writing ONNX models") from error
