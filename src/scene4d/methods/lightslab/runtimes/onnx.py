"""Light slabs as ONNX models: from the coordinates of rays to maps, and the decoder by itself.

Only operations that phone runtimes have: GridSample (bilinear, border, align_corners), Conv, Relu,
DepthToSpace, Slice, Concat; for MPIs also Gather, Floor and Cast, on int32. Both models are for
pictures of any size, in opset 17.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import scene4d
from scene4d.formats.placing import write_sidecar
from scene4d.methods.lightslab.bundle_parts import structure_of
from scene4d.methods.lightslab.decoder import OUTPUTS
from scene4d.methods.lightslab.light_slabs import LightSlabs
from scene4d.methods.lightslab.mpi import BLOCK
from scene4d.methods.lightslab.runtimes.models import (
    METADATA,
    Convolution,
    convolutions_of,
    half_path,
    light_field,
    megabytes_written,
    mpi_layers,
    ray_values,
    table_of,
)
from scene4d.methods.lightslab.runtimes.network import composited, decoded
from scene4d.methods.lightslab.runtimes.tables import mpi_tables
from scene4d.optional import import_optional
from scene4d.training.opened import OpenedScene

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET, IR_VERSION = 17, 8


def export(source: OpenedScene, path: Path, options: None = None) -> str:
    """Writes the whole model, and beside it the decoder half; returns a line that describes them.

    Raises :class:`UsageError` for scenes that are no light field.
    """
    path = Path(path)
    scene = light_field(source, path, format="ONNX", suffix=".onnx")
    half = half_path(path)
    models = {path: whole_model(scene), half: decoder_model(scene)}
    sizes = megabytes_written({p: model.SerializeToString() for p, model in models.items()})
    write_sidecar(path, source.source_from_scene.double().numpy())
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

    def number(self, value: float) -> str:
        return self.constant(np.array(value, dtype=np.float32))

    def whole(self, *values: int) -> str:
        """[count] int64, as ONNX has axes and sizes."""
        return self.constant(np.array(values, dtype=np.int64))

    def split(self, x: str, count: int, *, axis: int) -> list[str]:
        """Equal parts."""
        from onnx import helper

        if count == 1:
            return [x]
        names = [f"t{len(self.nodes)}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node("Split", [x], names, axis=axis))
        return names

    def inner(self, x: str, ring: int) -> str:
        """Without the outermost ``ring`` rows and columns."""
        if ring == 0:
            return x
        starts, ends, axes = (
            self.constant(np.array(v, dtype=np.int64)) for v in ([ring] * 2, [-ring] * 2, [2, 3])
        )
        return self.add("Slice", x, starts, ends, axes)

    def sampled(self, x: str, where: str) -> str:
        return self.add(
            "GridSample", x, where, mode="bilinear", padding_mode="border", align_corners=1
        )

    def shuffle(self, x: str) -> str:
        """Output channel 4 c + 2 y + x becomes channel c of the pixel (y, x)."""
        return self.add("DepthToSpace", x, blocksize=2, mode="CRD")


def decoder_model(scene: LightSlabs) -> ModelProto:
    """``features`` [1, inputs, down, across] of the samples, an outermost ray of the bundle beyond
    each edge included, to ``rgba`` [1, 4, height, width] after sigmoids, or without them where the
    field has MPIs, and ``z`` [1, 1, ...]."""
    _need_onnx()
    graph = _Graph()
    raw = _decode(graph, "features", scene)
    graph.add("Identity" if scene.mpi is not None else "Sigmoid", raw, name="rgba")
    inputs: dict[str, Sequence[int | str]] = {
        "features": [1, scene.decoder.shape.inputs, "down", "across"]
    }
    return _model(graph, scene, inputs, ("rgba", "z"))


def whole_model(scene: LightSlabs) -> ModelProto:
    """``coordinates`` [slabs, down, across, 2 depths] of the samples in every slab, and how much
    each slab counts, ``weights`` [slabs, 1, down, across], to the same outputs.

    With MPIs, also ``rays`` [layers, values, height, width] of the pixels, and the outputs are
    ``rgba`` (colour multiplied by alpha) and ``distance`` [1, 1, height, width].
    ``models.ray_inputs`` and ``models.pixel_rays`` make all for a camera.
    """
    _need_onnx()
    graph = _Graph()
    planes, slabs = scene.feature_planes, scene.planes.slabs
    table, found = table_of(scene), []
    for index, plane in enumerate(planes.planes):
        grid = planes.grid(table, index).permute(0, 3, 1, 2).numpy()
        axes = graph.constant(np.array(plane.axes, dtype=np.int64))
        where = graph.add("Gather", "coordinates", axes, axis=3)
        found.append(graph.sampled(graph.constant(grid), where))
    features = graph.add("Concat", *found, axis=1) if len(found) > 1 else found[0]
    weighted = graph.add("Mul", features, "weights")
    raw = _decode(graph, graph.add("ReduceSum", weighted, graph.whole(0), keepdims=1), scene)
    inputs: dict[str, Sequence[int | str]] = {
        "coordinates": [slabs, "down", "across", 2 * scene.slabs.num_planes],
        "weights": [slabs, 1, "down", "across"],
    }
    if scene.mpi is None:
        graph.add("Sigmoid", raw, name="rgba")
        return _model(graph, scene, inputs, ("rgba", "z"))
    inputs["rays"] = [mpi_layers(scene), ray_values(scene), "height", "width"]
    pixels = _Pixels(graph, scene)
    seen, distance = composited(pixels, pixels.rays, pixels.tables)
    graph.add("Identity", distance, name="distance")
    added = graph.add("Add", seen, raw)
    graph.add("Clip", added, graph.number(0), graph.number(1), name="rgba")
    return _model(graph, scene, inputs, ("rgba", "distance"))


class _Pixels:
    """:class:`Pixels` of ONNX: values are [layers, height, width], the layers below one another
    where colours are [1, 4, layers * height, width]."""

    def __init__(self, graph: _Graph, scene: LightSlabs) -> None:
        self.graph, self.tables = graph, mpi_tables(scene)
        self.layers, self.slabs = mpi_layers(scene), scene.planes.slabs
        parts = graph.split("rays", ray_values(scene), axis=1)
        flat = [graph.add("Squeeze", part, graph.whole(1)) for part in parts]
        self.rays, self.weight = flat[:6], parts[5]
        self.slab = graph.add("Cast", flat[6], to=_type("INT32")) if len(flat) > 6 else ""
        atlas = graph.add("Cast", graph.constant(self.tables.atlas()), to=_type("FLOAT"))
        self.atlas = graph.add("Mul", atlas, graph.number(1 / 255))
        self.index = graph.constant(self.tables.index)
        self.corners = graph.constant(self.tables.corners())
        self.step = [graph.number(BLOCK * float(v)) for v in self.tables.steps()]
        self.alphas = [graph.whole(v) for v in (3, 4, 1)]

    def add(self, a: str, b: str) -> str:
        return self.graph.add("Add", a, b)

    def sub(self, a: str, b: str) -> str:
        return self.graph.add("Sub", a, b)

    def mul(self, a: str, b: str) -> str:
        return self.graph.add("Mul", a, b)

    def div(self, a: str, b: str) -> str:
        return self.graph.add("Div", a, b)

    def sqrt(self, x: str) -> str:
        return self.graph.add("Sqrt", x)

    def relu(self, x: str) -> str:
        return self.graph.add("Relu", x)

    def clamped(self, x: str, low: float, high: float | None) -> str:
        ends = [self.graph.number(end) for end in (low, high) if end is not None]
        return self.graph.add("Clip", x, *ends)

    def number(self, value: float) -> str:
        return self.graph.number(value)

    def of_slab(self, name: str, column: int) -> str:
        values = self.tables.column(name, column)
        if self.slab:
            return self.graph.add("Gather", self.graph.constant(values), self.slab)
        if self.slabs == 1:
            return self.graph.number(float(values[0]))
        return self.graph.constant(values[:, None, None])

    def texels(self, x: str, y: str, plane: int) -> str:
        """Places are whole numbers of at most 2^22, which float32 holds."""
        graph, tables = self.graph, self.tables
        column, row = graph.add("Floor", x), graph.add("Floor", y)
        place = self.add(self.mul(row, graph.number(tables.across)), column)
        place = graph.add("Cast", self.add(place, self.of_slab("starts", plane)), to=_type("INT32"))
        corner = graph.add("Gather", self.corners, graph.add("Gather", self.index, place))
        within = [
            graph.add("Unsqueeze", self.mul(self.sub(at, low), step), graph.whole(3))
            for at, low, step in ((x, column, self.step[0]), (y, row, self.step[1]))
        ]
        at = self.add(corner, graph.add("Concat", *within, axis=3))
        return graph.sampled(self.atlas, graph.add("Reshape", at, graph.whole(1, -1, 0, 2)))

    def alpha(self, colours: str) -> str:
        return self.graph.add("Slice", colours, *self.alphas)

    def as_ray(self, alpha: str) -> str:
        flat = self.graph.add("Squeeze", alpha, self.graph.whole(1))  # [1, layers * height, width]
        if self.layers == 1:
            return flat
        return self.graph.add("Reshape", flat, self.graph.whole(self.layers, -1, 0))

    def over_layers(self, colours: str) -> str:
        weights = self.graph.split(self.weight, self.layers, axis=0)
        layers = self.graph.split(colours, self.layers, axis=2)
        parts = [self.mul(a, w) for a, w in zip(layers, weights, strict=True)]
        return reduce(self.add, parts)

    def rays_over_layers(self, values: str) -> str:
        weighted = self.mul(self.graph.add("Unsqueeze", values, self.graph.whole(1)), self.weight)
        return self.graph.add("ReduceSum", weighted, self.graph.whole(0), keepdims=1)


class _Layers:
    """:class:`Layers` of ONNX, whose tensors are as torch's."""

    def __init__(self, graph: _Graph, layers: Mapping[str, Convolution]) -> None:
        self.graph, self.layers = graph, layers

    def convolved(self, x: str, layer: str, *, relu: bool = False) -> str:
        found = self.graph.conv(x, self.layers[layer])
        return self.relu(found) if relu else found

    def upsampled(self, x: str, layer: str) -> str:
        return self.graph.shuffle(self.convolved(x, layer))

    def relu(self, x: str) -> str:
        return self.graph.add("Relu", x)

    def add(self, a: str, b: str) -> str:
        return self.graph.add("Add", a, b)

    def joined(self, a: str, b: str) -> str:
        return self.graph.add("Concat", a, b, axis=1)

    def inner(self, x: str, ring: int) -> str:
        return self.graph.inner(x, ring)


def _decode(graph: _Graph, features: str, scene: LightSlabs) -> str:
    """Adds the decoder and the output ``z``; its red, green, blue and alpha, without sigmoids."""
    net = _Layers(graph, convolutions_of(scene))
    maps = decoded(net, features, scene.decoder.shape)
    sizes = graph.whole(4, OUTPUTS - 4)
    from onnx import helper

    graph.nodes.append(helper.make_node("Split", [maps, sizes], ["colours", "z"], axis=1))
    return "colours"


def _model(
    graph: _Graph,
    scene: LightSlabs,
    inputs: dict[str, Sequence[int | str]],
    outputs: tuple[str, str],
) -> ModelProto:
    from onnx import TensorProto, checker, helper

    def value(label: str, shape: Sequence[int | str]) -> Any:
        return helper.make_tensor_value_info(label, TensorProto.FLOAT, shape)

    made = helper.make_graph(
        graph.nodes,
        "light slabs: " + ", ".join(inputs),
        [value(label, shape) for label, shape in inputs.items()],
        [value(outputs[i], [1, n, "height", "width"]) for i, n in enumerate((4, 1))],
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


def _type(name: str) -> int:
    from onnx import TensorProto

    return int(getattr(TensorProto, name))


def _need_onnx() -> None:
    import_optional("onnx", extra="onnx", needed_for="writing ONNX models")
