"""Light slabs as LiteRT (TensorFlow Lite) models, written operator by operator.

The converter from torch (litert-torch 0.10) cannot be installed beside the versions scene4d is
tested with: its xdsl wants typing-extensions below 4.13. Only the runtime's own package is needed
here, whose schema packs the file. Channels come last, and pictures are of any size: resize the
inputs before allocating. LiteRT has no grid sample, so that planes and MPIs are read by GATHER of
four texels, and blended.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from scene4d.formats.placing import write_sidecar
from scene4d.methods.lightslab.bundle_parts import structure_of
from scene4d.methods.lightslab.decoder import OUTPUTS
from scene4d.methods.lightslab.light_slabs import LightSlabs
from scene4d.methods.lightslab.mpi import BLOCK
from scene4d.methods.lightslab.runtimes.models import (
    METADATA,
    Convolution,
    Samples,
    convolutions_of,
    example_inputs,
    half_path,
    light_field,
    megabytes_written,
    samples_for,
    table_of,
    training_size,
)
from scene4d.methods.lightslab.runtimes.network import composited, decoded
from scene4d.methods.lightslab.runtimes.tables import CELL, mpi_tables
from scene4d.optional import import_optional
from scene4d.training.opened import OpenedScene

SUFFIX, FILE_IDENTIFIER, SCHEMA_VERSION = ".tflite", b"TFL3", 3


def export(source: OpenedScene, path: Path, options: None = None) -> str:
    """Writes the whole model, and beside it the decoder half; returns a line that describes them.

    Raises :class:`UsageError` for scenes that are no light field.
    """
    path = Path(path)
    scene = light_field(source, path, format="LiteRT", suffix=SUFFIX)
    width, height = training_size(source)
    samples, half = samples_for(scene, width=width, height=height), half_path(path)
    sizes = megabytes_written(
        {path: whole_model(scene, samples), half: decoder_model(scene, samples)}
    )
    write_sidecar(path, source.source_from_scene.double().numpy())
    return (
        f"LiteRT, float32, channels last: coordinates to maps {sizes[0]:.2f} MB; features to maps"
        f" {sizes[1]:.2f} MB, {half}"
    )


def decoder_model(scene: LightSlabs, samples: Samples) -> bytes:
    """``features`` [1, down, across, inputs] to ``rgba`` [1, height, width, 4] after sigmoids, or
    without them where the field has MPIs, and ``z`` [1, height, width, 1]; ``samples`` is the
    size before the inputs are resized."""
    graph = _Graph()
    size = (samples.down, samples.across)
    features = graph.input("features", (1, *size, scene.decoder.shape.inputs))
    rgba, z = _decode(graph, features, scene)
    if scene.mpi is None:
        rgba = graph.unary("LOGISTIC", rgba)
    return graph.packed({"rgba": rgba, "z": z}, scene)


def whole_model(scene: LightSlabs, samples: Samples) -> bytes:
    """``coordinates`` [slabs, down, across, 2 depths] and ``weights`` [slabs, down, across, 1] to
    the same outputs. Coordinates must be finite.

    With MPIs, also ``rays`` [layers, height, width, values] of the pixels, and the outputs are
    ``rgba`` (colour multiplied by alpha) and ``distance`` [1, height, width, 1]."""
    graph = _Graph()
    leading = (scene.planes.slabs, samples.down, samples.across)
    coordinates = graph.input("coordinates", (*leading, 2 * scene.slabs.num_planes))
    weights = graph.input("weights", (*leading, 1))
    features = graph.binary("MUL", _looked_up(graph, coordinates, scene), weights)
    summed = graph.total(features)
    rgba, z = _decode(graph, summed, scene)
    if scene.mpi is None:
        return graph.packed({"rgba": graph.unary("LOGISTIC", rgba), "z": z}, scene)
    layers, values, *size = example_inputs(scene, samples)["whole"]["rays"].shape
    pixels = _Pixels(graph, graph.input("rays", (layers, *size, values)), scene)
    seen, distance = composited(pixels, pixels.rays, pixels.tables)
    shown = graph.between(graph.binary("ADD", seen, rgba), 0.0, 1.0)
    return graph.packed({"rgba": shown, "distance": distance}, scene)


class _Graph:
    """One subgraph; tensors are numbers. The sizes down and across are free."""

    def __init__(self) -> None:
        self.schema: Any = import_optional(
            "ai_edge_litert.schema_py_generated",
            package="ai-edge-litert",
            extra="litert",
            needed_for="writing LiteRT models",
        )
        self.buffers = [self.schema.BufferT()]  # the first one stands for no data
        self.tensors: list[Any] = []
        self.shapes: list[tuple[int, ...]] = []
        self.operators: list[Any] = []
        self.codes: dict[str, int] = {}
        self.inputs: list[int] = []

    def constant(self, value: np.ndarray) -> int:
        return self._tensor(value.shape, value.dtype, buffer=self._buffer(value.tobytes()))

    def input(self, name: str, shape: tuple[int, ...]) -> int:
        self.inputs.append(self._tensor(shape, np.float32, name=name, free=True))
        return self.inputs[-1]

    def add(
        self,
        operation: str,
        inputs: Sequence[int],
        shape: tuple[int, ...],
        *,
        options: tuple[str, dict[str, Any]] | None = None,
        dtype: Any = np.float32,
        name: str | None = None,
        outputs: int = 1,
    ) -> int:
        """The first of the operator's ``outputs``, which are numbered on and of one shape."""
        made = [self._tensor(shape, dtype, name=name, free=True) for _ in range(outputs)]
        operator = self.schema.OperatorT()
        operator.opcodeIndex = self.codes.setdefault(operation, len(self.codes))
        operator.inputs, operator.outputs = list(inputs), made
        if options is not None:
            kind, values = options
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, kind)
            operator.builtinOptions = getattr(self.schema, f"{kind}T")()
            for key, value in values.items():
                setattr(operator.builtinOptions, key, value)
        self.operators.append(operator)
        return made[0]

    def unary(self, operation: str, x: int, **more: Any) -> int:
        return self.add(operation, [x], self.shapes[x], **more)

    def binary(self, operation: str, a: int, b: int, dtype: Any = np.float32) -> int:
        """ADD, SUB, MUL, DIV, MINIMUM or MAXIMUM with broadcasting onto ``a``."""
        extreme = operation in ("MINIMUM", "MAXIMUM")
        options = "MaximumMinimumOptions" if extreme else f"{operation.capitalize()}Options"
        return self.add(operation, [a, b], self.shapes[a], options=(options, {}), dtype=dtype)

    def number(self, value: float, dtype: Any = np.float32) -> int:
        return self.constant(np.array([value], dtype))

    def between(self, x: int, low: float, high: float) -> int:
        x = self.binary("MAXIMUM", x, self.number(low))
        return self.binary("MINIMUM", x, self.number(high))

    def cast(self, x: int, before: Any, after: Any) -> int:
        types = (getattr(self.schema.TensorType, np.dtype(t).name.upper()) for t in (before, after))
        kinds = dict(zip(("inDataType", "outDataType"), types, strict=True))
        return self.unary("CAST", x, dtype=after, options=("CastOptions", kinds))

    def conv(self, x: int, layer: Convolution, *, relu: bool = False) -> int:
        side, stride = layer.weight.shape[2], layer.stride
        n, down, across, _ = self.shapes[x]
        size = ((down - side) // stride + 1, (across - side) // stride + 1)
        weight = self.constant(np.ascontiguousarray(layer.weight.transpose(0, 2, 3, 1)))
        values = {
            "padding": self.schema.Padding.VALID, "strideW": stride, "strideH": stride,
            "dilationWFactor": 1, "dilationHFactor": 1, "fusedActivationFunction": int(relu),
        }  # fmt: skip
        return self.add(
            "CONV_2D", [x, weight, self.constant(layer.bias)], (n, *size, len(layer.bias)),
            options=("Conv2DOptions", values),
        )  # fmt: skip

    def shuffled(self, x: int, layer: Convolution) -> int:
        """The layer, and its output channel 4 c + 2 y + x becomes channel c of the pixel (y, x):
        DEPTH_TO_SPACE wants (2 y + x) channels + c."""
        count = len(layer.bias) // 4
        order = np.arange(4 * count).reshape(count, 4).T.reshape(-1)
        turned = Convolution(
            weight=layer.weight[order], bias=layer.bias[order], stride=layer.stride
        )
        y = self.conv(x, turned)
        n, down, across, _ = self.shapes[y]
        return self.add(
            "DEPTH_TO_SPACE", [y], (n, 2 * down, 2 * across, count),
            options=("DepthToSpaceOptions", {"blockSize": 2}),
        )  # fmt: skip

    def cut(self, x: int, ring: int, channels: tuple[int, int] | None = None) -> int:
        """Without the outermost ``ring`` rows and columns, and of some channels alone."""
        n, down, across, every = self.shapes[x]
        first, last = channels or (0, every)
        begin, end, step = (
            self.constant(np.array(v, np.int32))
            for v in ([0, ring, ring, first], [0, -ring, -ring, last], [1] * 4)
        )
        # bits of the axes: what is kept to its end
        masks = {"beginMask": 1, "endMask": 1 if ring else 7}
        return self.add(
            "STRIDED_SLICE", [x, begin, end, step],
            (n, down - 2 * ring, across - 2 * ring, last - first),
            options=("StridedSliceOptions", masks),
        )  # fmt: skip

    def concat(self, parts: Sequence[int]) -> int:
        shape = (*self.shapes[parts[0]][:3], sum(self.shapes[p][3] for p in parts))
        options = ("ConcatenationOptions", {"axis": 3})
        return self.add("CONCATENATION", parts, shape, options=options)

    def gather(self, x: int, indices: int, axis: int, dtype: Any = np.float32) -> int:
        before, after = self.shapes[x][:axis], self.shapes[x][axis + 1 :]
        shape = (*before, *self.shapes[indices], *after)
        options = ("GatherOptions", {"axis": axis})
        return self.add("GATHER", [x, indices], shape, options=options, dtype=dtype)

    def unpack(self, x: int, dtype: Any = np.float32) -> range:
        """The last axis' parts, each without that axis."""
        *shape, count = self.shapes[x]
        first = self.add(
            "UNPACK", [x], tuple(shape), dtype=dtype, outputs=count,
            options=("UnpackOptions", {"num": count, "axis": len(shape)}),
        )  # fmt: skip
        return range(first, first + count)

    def total(self, x: int) -> int:
        """Summed over the first axis, which is kept."""
        options = ("ReducerOptions", {"keepDims": True})
        shape = (1, *self.shapes[x][1:])
        return self.add("SUM", [x, self.number(0, np.int32)], shape, options=options)

    def packed(self, outputs: Mapping[str, int], scene: LightSlabs) -> bytes:
        """The file."""
        for name, tensor in outputs.items():
            self.tensors[tensor].name = name
        schema = self.schema
        subgraph, model, metadata = schema.SubGraphT(), schema.ModelT(), schema.MetadataT()
        subgraph.tensors, subgraph.operators = self.tensors, self.operators
        subgraph.inputs, subgraph.outputs = self.inputs, list(outputs.values())
        metadata.name = METADATA
        metadata.buffer = self._buffer(json.dumps(structure_of(scene)).encode())
        model.version, model.description = SCHEMA_VERSION, "scene4d light slabs"
        model.subgraphs, model.buffers, model.metadata = [subgraph], self.buffers, [metadata]
        model.operatorCodes = []
        for name in self.codes:
            code = schema.OperatorCodeT()
            code.builtinCode = getattr(schema.BuiltinOperator, name)
            code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
            model.operatorCodes.append(code)
        builder = import_module("flatbuffers").Builder(1 << 16)
        builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
        return bytes(builder.Output())

    def _buffer(self, data: bytes) -> int:
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(data, np.uint8)
        self.buffers.append(buffer)
        return len(self.buffers) - 1

    def _tensor(
        self,
        shape: tuple[int, ...],
        dtype: Any,
        *,
        buffer: int = 0,
        name: str | None = None,
        free: bool = False,
    ) -> int:
        tensor = self.schema.TensorT()
        tensor.shape, tensor.buffer = list(shape), buffer
        tensor.name = name or f"t{len(self.tensors)}"
        tensor.type = getattr(self.schema.TensorType, np.dtype(dtype).name.upper())
        if free:
            tensor.shapeSignature = [shape[0], -1, -1, *shape[3:]]
        self.tensors.append(tensor)
        self.shapes.append(tuple(shape))
        return len(self.tensors) - 1


def _looked_up(graph: _Graph, coordinates: int, scene: LightSlabs) -> int:
    """Features [slabs, down, across, inputs], bilinear within each plane, the border's beyond."""
    planes, table = scene.feature_planes, graph.constant(table_of(scene).numpy())
    columns, rows = (
        np.array([getattr(p, name) for p in planes.planes]) for name in ("columns", "rows")
    )
    x, in_x = _corner(graph, coordinates, [p.axes[0] for p in planes.planes], columns)
    y, in_y = _corner(graph, coordinates, [p.axes[1] for p in planes.planes], rows)
    slab = np.arange(planes.slabs)[:, None] * (columns * rows) + np.array(planes.starts)

    def whole(values: np.ndarray) -> int:
        return graph.constant(values.astype(np.int32))

    def plus(a: int, b: int) -> int:
        return graph.binary("ADD", a, b, np.int32)

    row = graph.binary("MUL", y, whole(columns), np.int32)
    corner = plus(plus(row, x), whole(slab[:, None, None]))
    right, below = whole((columns > 1) * 1), whole((rows > 1) * columns)
    places = (corner, plus(corner, right), plus(corner, below), plus(plus(corner, right), below))
    texels = [_texels(graph, table, place) for place in places]
    repeat = graph.constant(np.repeat(np.arange(len(columns)), planes.features).astype(np.int32))
    in_x, in_y = (graph.gather(t, repeat, 3) for t in (in_x, in_y))
    upper, lower = (_between(graph, texels[k], texels[k + 1], in_x) for k in (0, 2))
    return _between(graph, upper, lower, in_y)


def _corner(
    graph: _Graph, coordinates: int, axes: Sequence[int], sizes: np.ndarray
) -> tuple[int, int]:
    """Along one axis of all planes: the texel before a coordinate, and how far beyond it."""
    half = graph.constant(((sizes - 1) / 2).astype(np.float32))
    low, high, last = (
        graph.constant(v.astype(np.float32))
        for v in (np.zeros(1), sizes - 1, np.maximum(sizes - 2, 0))
    )
    chosen = graph.gather(coordinates, graph.constant(np.array(axes, np.int32)), 3)
    place = graph.binary("ADD", graph.binary("MUL", chosen, half), half)
    place = graph.binary("MINIMUM", graph.binary("MAXIMUM", place, low), high)
    before = graph.binary("MINIMUM", graph.unary("FLOOR", place), last)
    within = graph.binary("SUB", place, before)
    return graph.cast(before, np.float32, np.int32), within


def _texels(graph: _Graph, table: int, index: int) -> int:
    """The texels [slabs, down, across, inputs] at ``index`` [slabs, down, across, planes]."""
    found = [graph.gather(table, part, 0) for part in graph.unpack(index, np.int32)]
    return graph.concat(found) if len(found) > 1 else found[0]


def _between(graph: _Graph, a: int, b: int, share: int) -> int:
    return graph.binary("ADD", a, graph.binary("MUL", graph.binary("SUB", b, a), share))


class _Pixels:
    """:class:`Pixels` of LiteRT: values are [layers, height, width, 1], colours [..., 4]."""

    def __init__(self, graph: _Graph, rays: int, scene: LightSlabs) -> None:
        self.graph, self.tables = graph, mpi_tables(scene)
        self.slabs, values = scene.planes.slabs, graph.shapes[rays][3]
        self.rays = [graph.cut(rays, 0, (i, i + 1)) for i in range(values)]
        # With more slabs than layers the last value is the slab's number
        self.slab = graph.cast(self.rays[6], np.float32, np.int32) if values > 6 else None
        self.index = graph.constant(self.tables.index)
        self.cells = graph.constant(self.tables.cells.reshape(-1, 4))

    def add(self, a: int, b: int) -> int:
        return self.graph.binary("ADD", a, b)

    def sub(self, a: int, b: int) -> int:
        if not self.graph.shapes[a]:  # broadcasting is onto the first
            a = self.add(self.mul(b, self.graph.number(0)), a)
        return self.graph.binary("SUB", a, b)

    def mul(self, a: int, b: int) -> int:
        return self.graph.binary("MUL", a, b)

    def div(self, a: int, b: int) -> int:
        return self.graph.binary("DIV", a, b)

    def sqrt(self, x: int) -> int:
        return self.graph.unary("SQRT", x)

    def relu(self, x: int) -> int:
        return self.graph.unary("RELU", x)

    def clamped(self, x: int, low: float, high: float | None) -> int:
        x = self.graph.binary("MAXIMUM", x, self.graph.number(low))
        return x if high is None else self.graph.binary("MINIMUM", x, self.graph.number(high))

    def number(self, value: float) -> int:
        return self.graph.constant(np.array(value, np.float32))

    def of_slab(self, name: str, column: int) -> int:
        values = self.tables.column(name, column)
        if self.slab is None:
            return self.graph.constant(values[:, None, None, None])
        return self.graph.gather(self.graph.constant(values), self.slab, 0)

    def texels(self, x: int, y: int, plane: int) -> int:
        """Places are whole numbers of at most 2^22, which float32 holds."""
        graph, tables = self.graph, self.tables
        (column, u, in_x), (row, v, in_y) = self._parts(x), self._parts(y)
        place = self.add(self.mul(row, graph.number(tables.across)), column)
        place = self.add(place, self.of_slab("starts", plane))
        (place,) = graph.unpack(graph.cast(place, np.float32, np.int32), np.int32)
        cell = graph.gather(self.index, place, 0, np.int32)
        within = self.add(self.mul(v, graph.number(CELL)), u)
        (within,) = graph.unpack(graph.cast(within, np.float32, np.int32), np.int32)
        first = graph.binary("MUL", cell, graph.number(CELL * CELL, np.int32), np.int32)
        first = graph.binary("ADD", first, within, np.int32)
        corners = [self._texel(first, offset) for offset in (0, 1, CELL, CELL + 1)]
        upper, lower = (_between(graph, corners[k], corners[k + 1], in_x) for k in (0, 2))
        return self.mul(_between(graph, upper, lower, in_y), graph.number(1 / 255))

    def alpha(self, colours: int) -> int:
        return self.graph.cut(colours, 0, (3, 4))

    def as_ray(self, alpha: int) -> int:
        return alpha

    def over_layers(self, colours: int) -> int:
        return self.graph.total(self.mul(colours, self.rays[5]))

    rays_over_layers = over_layers

    def _parts(self, x: int) -> tuple[int, int, int]:
        """The block, the texel in it, and how far beyond that."""
        graph = self.graph
        block = graph.unary("FLOOR", x)
        within = self.mul(self.sub(x, block), graph.number(BLOCK))
        texel = graph.unary("FLOOR", within)
        return block, texel, self.sub(within, texel)

    def _texel(self, first: int, offset: int) -> int:
        """[layers, height, width, 4], 0 to 255."""
        place = self.graph.binary("ADD", first, self.graph.number(offset, np.int32), np.int32)
        found = self.graph.gather(self.cells, place, 0, np.uint8)
        return self.graph.cast(found, np.uint8, np.float32)


class _Layers:
    """:class:`Layers` of LiteRT, channels last."""

    def __init__(self, graph: _Graph, layers: Mapping[str, Convolution]) -> None:
        self.graph, self.layers = graph, layers

    def convolved(self, x: int, layer: str, *, relu: bool = False) -> int:
        return self.graph.conv(x, self.layers[layer], relu=relu)

    def upsampled(self, x: int, layer: str) -> int:
        return self.graph.shuffled(x, self.layers[layer])

    def relu(self, x: int) -> int:
        return self.graph.unary("RELU", x)

    def add(self, a: int, b: int) -> int:
        return self.graph.binary("ADD", a, b)

    def joined(self, a: int, b: int) -> int:
        return self.graph.concat([a, b])

    def inner(self, x: int, ring: int) -> int:
        return self.graph.cut(x, ring) if ring else x


def _decode(graph: _Graph, features: int, scene: LightSlabs) -> tuple[int, int]:
    """The decoder: its red, green, blue and alpha, without sigmoids, and z."""
    maps = decoded(_Layers(graph, convolutions_of(scene)), features, scene.decoder.shape)
    return graph.cut(maps, 0, (0, 4)), graph.cut(maps, 0, (4, OUTPUTS))
