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

import scene4d
from scene4d.errors import MissingExtraError
from scene4d.exporters.field_models import (
    METADATA,
    Convolution,
    convolutions_of,
    half_path,
    light_field,
    megabytes_written,
    table_of,
)
from scene4d.exporters.light_slab import structure_of
from scene4d.exporters.source import ExportSource
from scene4d.representations.light_slabs.decoder import HALO, OUTPUTS, RING
from scene4d.representations.light_slabs.light_slabs import LightSlabs

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET, IR_VERSION = 17, 8


def export(source: ExportSource, path: Path, options: None = None) -> str:
    """Writes the whole model, and beside it the decoder half; returns a line that describes them.

    Raises :class:`UsageError` for scenes that are no light field.
    """
    path = Path(path)
    scene = light_field(source, path, format="ONNX", suffix=".onnx")
    half = half_path(path)
    models = {path: whole_model(scene), half: decoder_model(scene)}
    sizes = megabytes_written({p: model.SerializeToString() for p, model in models.items()})
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

    def conv(self, x: str, layer: Convolution) -> str:
        weight, bias = self.constant(layer.weight), self.constant(layer.bias)
        sides, strides = list(layer.weight.shape[2:]), [layer.stride] * 2
        return self.add("Conv", x, weight, bias, kernel_shape=sides, strides=strides)

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

    :func:`scene4d.exporters.field_models.ray_inputs` makes both for a camera.
    """
    _need_onnx()
    graph = _Graph()
    planes, slabs = scene.plane_set, scene.planes.slabs
    table, found = table_of(scene), []
    for index, plane in enumerate(planes.planes):
        grid = planes.grid(table, index).permute(0, 3, 1, 2).numpy()
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
    shape, layers = scene.decoder.shape, convolutions_of(scene)

    def layer(x: str, name: str) -> str:
        return graph.conv(x, layers[name])

    encoded = graph.add("Relu", layer(features, "encode"))
    x = layer(encoded, "first")
    for i in range(shape.blocks):
        inside = graph.add("Relu", layer(graph.add("Relu", x), f"block_{i}_0"))
        x = graph.add("Add", x, layer(inside, f"block_{i}_1"))
    x = graph.shuffle(layer(graph.add("Relu", x), "last"))
    for step in range(len(scene.decoder.sharpen)):
        x = graph.add("Relu", x)
        if step == shape.skip:
            x = graph.add("Concat", x, graph.inner(encoded, shape.samples * HALO - RING), axis=1)
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


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("onnx", extra="onnx", needed_for="writing ONNX models") from error
