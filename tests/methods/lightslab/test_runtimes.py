"""Light slabs in other runtimes against torch: every format that is written, where it runs."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from methods.lightslab.test_bundle_parts import (
    FOCAL,
    camera,
    field_with_mpi,
    random_mpi,
    random_slabs,
    source,
)
from optional_packages import import_or_skip
from torch import Tensor
from torch.nn.functional import conv2d, grid_sample, pixel_shuffle

from scene4d.bundle.container import open_bundle
from scene4d.cameras.camera import Camera
from scene4d.errors import MissingExtraError, UsageError
from scene4d.methods.lightslab.bundle_parts import decoded_maps, read_light_slabs
from scene4d.methods.lightslab.light_slabs import LightSlabs
from scene4d.methods.lightslab.mpi import MultiplaneImages
from scene4d.methods.lightslab.runtimes import coreml, executorch, litert, onnx
from scene4d.methods.lightslab.runtimes.models import (
    METADATA,
    DecoderHalf,
    WholeField,
    half_path,
    mpi_tables,
    pixel_rays,
    ray_inputs,
    samples_for,
    whole_module,
)
from scene4d.representations.gaussians import GaussianSplats
from scene4d.training.opened import OpenedScene

Maps = tuple[Tensor, Tensor]
Model = Callable[[dict[str, Tensor]], Maps]
"""Inputs by name, channels first, to rgba and z, or distance, without the leading axis."""

# float32 through about ten layers whose sums are taken in other orders
TOLERANCE = 1e-4
# Torch stops at an MPI plane where so little is left of the ray; the models go on.
STOPPED = 1 / 1024
CHAIR = Path(__file__).parents[3] / "viewers/web/tests/fixtures/slabs.s4d"
FORMATS: dict[str, tuple[ModuleType, str]] = {
    "onnx": (onnx, ".onnx"),
    "coreml": (coreml, ".mlpackage"),
    "litert": (litert, ".tflite"),
    "executorch": (executorch, ".pte"),
}


def in_torch(scene: LightSlabs, folder: Path) -> tuple[Model, Model]:
    """The modules that are traced, themselves."""

    def model(module: torch.nn.Module) -> Model:
        @torch.no_grad()
        def run(inputs: dict[str, Tensor]) -> Maps:
            rgba, z = module(**inputs)
            return rgba[0], z[0]

        return run

    return model(whole_module(scene)), model(DecoderHalf(scene))


def in_onnx_runtime(scene: LightSlabs, folder: Path) -> tuple[Model, Model]:
    import_or_skip("onnx", reason="the extra 'onnx' is not installed")
    runtime = import_or_skip("onnxruntime", reason="onnxruntime is not installed")
    onnx.export(source(scene), folder / "a.onnx")

    def model(path: Path) -> Model:
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

        def run(inputs: dict[str, Tensor]) -> Maps:
            found = session.run(None, {name: t.numpy() for name, t in inputs.items()})
            rgba, z = (torch.from_numpy(v)[0] for v in found)
            return rgba, z

        return run

    return model(folder / "a.onnx"), model(half_path(folder / "a.onnx"))


def in_litert(scene: LightSlabs, folder: Path) -> tuple[Model, Model]:
    runtime = import_or_skip(
        "ai_edge_litert.interpreter", reason="the extra 'litert' is not installed"
    )
    litert.export(source(scene), folder / "a.tflite")
    schema = importlib.import_module("ai_edge_litert.schema_py_generated")
    model = schema.ModelT.InitFromPackedBuf((folder / "a.tflite").read_bytes())
    metadata = {m.name.decode(): bytes(model.buffers[m.buffer].data) for m in model.metadata}
    assert json.loads(metadata[METADATA])["focal"] == pytest.approx(float(scene.focal))

    def loaded(path: Path) -> Model:
        interpreter = runtime.Interpreter(str(path))

        def run(inputs: dict[str, Tensor]) -> Maps:
            last = {
                name: t.numpy() if name == "coordinates" else t.permute(0, 2, 3, 1).numpy()
                for name, t in inputs.items()
            }
            places = {d["name"]: d["index"] for d in interpreter.get_input_details()}
            for name, value in last.items():
                interpreter.resize_tensor_input(places[name], value.shape)
            interpreter.allocate_tensors()
            for name, value in last.items():
                interpreter.set_tensor(places[name], np.ascontiguousarray(value))
            interpreter.invoke()
            found = {
                d["name"]: torch.from_numpy(interpreter.get_tensor(d["index"]))
                for d in interpreter.get_output_details()
            }
            rgba = found.pop("rgba")
            ((name, z),) = found.items()
            assert name == ("distance" if "rays" in inputs else "z")
            return rgba[0].permute(2, 0, 1), z[0].permute(2, 0, 1)

        return run

    return loaded(folder / "a.tflite"), loaded(half_path(folder / "a.tflite"))


def in_executorch(scene: LightSlabs, folder: Path) -> tuple[Model, Model]:
    runtime = import_or_skip(
        "executorch.runtime", reason="the extra 'executorch' is not installed"
    ).Runtime.get()
    executorch.export(source(scene), folder / "a.pte")
    method = runtime.load_program(str(folder / "a.pte")).load_method(executorch.METADATA_METHOD)
    structure = json.loads(bytes(method.execute([])[0].tolist()))
    assert structure["focal"] == pytest.approx(float(scene.focal))

    def model(path: Path) -> Model:
        method = runtime.load_program(str(path)).load_method("forward")

        def run(inputs: dict[str, Tensor]) -> Maps:
            rgba, z = (t[0].clone() for t in method.execute(list(inputs.values())))
            return rgba, z

        return run

    return model(folder / "a.pte"), model(half_path(folder / "a.pte"))


every_runtime = pytest.mark.parametrize(
    "runtime", [in_torch, in_onnx_runtime, in_litert, in_executorch], ids=lambda f: f.__name__
)


@every_runtime
@pytest.mark.parametrize(("slabs", "samples"), [(1, 1), (3, 2), (2, 4)])
def test_both_models_give_what_torch_gives(
    runtime: Callable[[LightSlabs, Path], tuple[Model, Model]],
    slabs: int,
    samples: int,
    tmp_path: Path,
) -> None:
    scene = random_slabs(slabs=slabs, samples=samples)
    whole, half = runtime(scene, tmp_path)
    for view in (camera(), camera(17, 9)):  # one model for pictures of any size
        coordinates, weights, _ = ray_inputs(scene, view)
        rgba, z = whole({"coordinates": coordinates, "weights": weights})
        maps = decoded_maps(scene, view)
        expected = torch.stack([maps[name] for name in "rgba"])
        assert expected[:3].std() > 0.03  # a picture of one colour would show nothing
        cut = (..., slice(view.height), slice(view.width))
        torch.testing.assert_close(rgba[cut], expected, rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(z[cut][0], maps["z"], rtol=TOLERANCE, atol=TOLERANCE)

    features = torch.randn(1, scene.decoder.shape.inputs, 5 * samples, 4 * samples)
    with torch.no_grad():
        raw = scene.decoder(features.permute(0, 2, 3, 1))[0]
    raw[3] += 3.0  # training starts opaque
    rgba, z = half({"features": features})
    assert rgba.shape == (4, 24, 16)  # 5 x 4 rays of 8 x 8 pixels, the outermost cut
    torch.testing.assert_close(rgba, torch.sigmoid(raw[:4]), rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(z, raw[4:], rtol=TOLERANCE, atol=TOLERANCE)


def inputs_at(scene: LightSlabs, view: Camera) -> dict[str, Tensor]:
    coordinates, weights, _ = ray_inputs(scene, view)
    return {"coordinates": coordinates, "weights": weights, "rays": pixel_rays(scene, view)}


@every_runtime
@pytest.mark.parametrize(("slabs", "samples"), [(1, 1), (3, 2), (5, 4)])
def test_with_mpis_both_models_give_what_torch_gives(
    runtime: Callable[[LightSlabs, Path], tuple[Model, Model]],
    slabs: int,
    samples: int,
    tmp_path: Path,
) -> None:
    """One slab, each with a layer of its own, and more slabs than layers."""
    scene = field_with_mpi(slabs=slabs, samples=samples)
    whole, half = runtime(scene, tmp_path)
    views = [camera(), camera(17, 9)]
    for view in views[:1] if runtime is in_executorch else views:  # that has one size alone
        rgba, distance = whole(inputs_at(scene, view))
        maps = decoded_maps(scene, view)
        expected = torch.stack([maps[name] for name in "rgba"])
        assert expected[:3].std() > 0.05  # a picture of one colour would show nothing
        assert maps["seen"].mean() > 0.5  # most of it is the MPIs'
        cut = (..., slice(view.height), slice(view.width))
        shown = rgba[cut] * maps["coverage"]
        torch.testing.assert_close(shown, expected, rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(distance[cut][0], maps["distance"], rtol=1e-3, atol=1e-3)

    features = torch.randn(1, scene.decoder.shape.inputs, 5 * samples, 4 * samples)
    with torch.no_grad():
        raw = scene.decoder(features.permute(0, 2, 3, 1))[0]
    assert float(raw.min()) < -0.02  # what a sigmoid would not give
    rgba, z = half({"features": features})
    torch.testing.assert_close(rgba, raw[:4], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(z, raw[4:], rtol=TOLERANCE, atol=TOLERANCE)


@every_runtime
def test_a_real_scene_with_mpis(
    runtime: Callable[[LightSlabs, Path], tuple[Model, Model]], tmp_path: Path
) -> None:
    """The player's chair: four slabs with twelve MPI planes each, 3% of whose blocks are stored."""
    if not CHAIR.is_file():
        pytest.skip("the player's tests are not in this copy")
    scene = read_light_slabs(CHAIR)
    entry = open_bundle(CHAIR).manifest["cameras"][0]
    view = camera()  # of the size that source() has
    K = view.K * torch.tensor([[2.0, 1, 1], [1, 2, 1], [1, 1, 1]])  # of the chair alone
    view = replace(view, c2w=torch.tensor(entry["c2w"]), K=K)
    whole, _ = runtime(scene, tmp_path)
    rgba, _ = whole(inputs_at(scene, view))
    maps = decoded_maps(scene, view)
    expected = torch.stack([maps[name] for name in "rgba"])
    error = (rgba[..., : view.height, : view.width] * maps["coverage"] - expected).abs().amax(dim=0)
    assert expected[3].mean() > 0.3 and expected[:3].std() > 0.1
    # Blocks begin and end abruptly: a ray that meets an edge to the last bit may take either side.
    assert float(error.flatten().sort().values[-6]) < STOPPED + TOLERANCE


def test_no_stored_block_is_an_empty_atlas() -> None:
    stored = torch.zeros(1, 3, 3, 4, dtype=torch.bool)
    empty = MultiplaneImages(stored=stored, texels=torch.zeros(0, 8, 8, 4))
    scene = random_slabs(slabs=1, opaque=False, mpi=empty)
    tables = mpi_tables(scene)
    assert tables.cells.shape == (1, 9, 9, 4) and not tables.cells.any()
    assert len(tables.index) == 36 and not tables.index.any()
    with torch.no_grad():
        view = camera()
        rgba, distance = whole_module(scene)(**inputs_at(scene, view))
        raw, _ = WholeField(scene)(*ray_inputs(scene, view)[:2])
    torch.testing.assert_close(rgba, raw.clamp(0, 1), rtol=0, atol=0)
    assert not distance.any()


def test_a_cell_holds_its_neighbours_first_texels() -> None:
    mpi = random_mpi(1)
    scene = random_slabs(slabs=1, mpi=mpi)
    scene.on_progress(0.0)  # before anything is rounded
    tables = mpi_tables(scene)
    full = torch.zeros(3, 3 * 8 + 1, 4 * 8 + 1, 4)
    for number, (_, plane, row, column) in enumerate(mpi.stored.nonzero().tolist()):
        full[plane, 8 * row :, 8 * column :][:8, :8] = mpi.texels[number].detach()
    expected = (full * 255).round().to(torch.uint8).numpy()
    index, atlas = tables.index.reshape(3, 3, 4), tables.atlas()
    corners = (tables.corners() + 1) / tables.steps()
    for plane, row, column in np.argwhere(index > 0):
        number = index[plane, row, column]
        theirs = expected[plane, 8 * row :, 8 * column :][:9, :9]
        np.testing.assert_array_equal(tables.cells[number], theirs)
        x, y = np.rint(corners[number]).astype(int)
        cell = atlas[0, :, y : y + 9, x : x + 9].transpose(1, 2, 0)
        np.testing.assert_array_equal(cell, theirs)


def test_beyond_its_range_a_plane_has_its_border() -> None:
    """LiteRT's look-up is ours; here at the ends, between, and beyond, where rays are uncovered."""
    runtime = import_or_skip("ai_edge_litert.interpreter")
    scene = random_slabs(slabs=1, samples=1)
    samples = samples_for(scene, width=8, height=8)
    size = (1, samples.down, samples.across, 2 * scene.slabs.num_planes)
    coordinates = torch.linspace(-1.5, 1.5, 7)[torch.randint(7, size)]
    weights = torch.ones(*size[:3], 1)
    interpreter = runtime.Interpreter(model_content=litert.whole_model(scene, samples))
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        value = coordinates if detail["name"] == "coordinates" else weights
        interpreter.set_tensor(detail["index"], value.numpy())
    interpreter.invoke()
    with torch.no_grad():
        expected, _ = WholeField(scene)(coordinates, weights.permute(0, 3, 1, 2))
    (place,) = (d["index"] for d in interpreter.get_output_details() if d["name"] == "rgba")
    found = torch.from_numpy(interpreter.get_tensor(place)).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


def test_core_ml_is_converted_not_run(tmp_path: Path) -> None:
    """What Linux can say: the package's interface, and operators that the Neural Engine has."""
    ct = import_or_skip("coremltools", reason="the extra 'coreml' is not installed")
    scene, path = random_slabs(slabs=3, samples=2), tmp_path / "a.mlpackage"
    told = coreml.export(source(scene), path)
    assert "converted, not run" in told and "48 x 32" in told  # 45 x 30 in steps of 8
    samples = samples_for(scene, width=45, height=30)
    size = (samples.down, samples.across)
    inputs = {
        path: {"coordinates": (3, *size, 6), "weights": (3, 1, *size)},
        half_path(path): {"features": (1, scene.decoder.shape.inputs, *size)},
    }
    for package, expected in inputs.items():
        spec = ct.utils.load_spec(str(package))
        found = {i.name: tuple(i.type.multiArrayType.shape) for i in spec.description.input}
        assert found == expected
        assert {o.name for o in spec.description.output} == {"rgba", "z"}
        structure = json.loads(spec.description.metadata.userDefined[METADATA])
        assert structure["focal"] == FOCAL
        (block,) = spec.mlProgram.functions["main"].block_specializations.values()
        operations = {operation.type for operation in block.operations}
        assert "conv" in operations and ("resample" in operations) == (package == path)
    coreml.export(source(scene), path)  # over the earlier ones
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.decoder.mlpackage", "a.mlpackage"]


def evaluated(program: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our reading of a converted Core ML program, operator by operator, in torch: no substitute for
    Core ML, but sizes, axes, strides and weights are those of the package."""
    values: dict[str, Any] = dict(inputs)

    def value(argument: Any) -> Any:
        if isinstance(argument, tuple | list):
            return [value(a) for a in argument]
        found = values.get(argument.name, argument.val)
        return torch.from_numpy(found) if isinstance(found, np.ndarray) else found

    def sliced(x: Tensor, begin: Tensor, end: Tensor, **masks: Any) -> Tensor:
        from_start, to_end = (masks.get(m, [False] * x.ndim) for m in ("begin_mask", "end_mask"))
        assert not any(masks.get("squeeze_mask", [])) and set(masks.get("stride", [1])) <= {1}
        return x[tuple(
            slice(None if a else int(b), None if z else int(e))
            for a, b, z, e in zip(from_start, begin, to_end, end, strict=True)
        )]  # fmt: skip

    def gathered(x: Tensor, indices: Tensor, axis: int, **_: Any) -> Tensor:
        found = x.index_select(int(axis), indices.long().flatten())
        return found.unflatten(int(axis), tuple(indices.shape))

    def resampled(x: Tensor, coordinates: Tensor, **how: Any) -> Tensor:
        assert how["coordinates_mode"] == "normalized_minus_one_to_one"
        return grid_sample(
            x, coordinates, mode=how["sampling_mode"], padding_mode=how["padding_mode"],
            align_corners=bool(how["align_corners"]),
        )  # fmt: skip

    def convolved(x: Tensor, weight: Tensor, bias: Tensor, **how: Any) -> Tensor:
        assert how["pad_type"] == "valid" and int(how["groups"]) == 1
        return conv2d(x, weight.float(), bias.float(), stride=[int(n) for n in how["strides"]])

    def cast(x: Tensor, dtype: str) -> Tensor:
        if dtype in ("int32", "bool"):
            return x.to(torch.int32)
        return x.half().float() if dtype == "fp16" else x.float()

    known: dict[str, Callable[..., Any]] = {
        "cast": cast,
        "sub": lambda x, y: x - y,
        "real_div": lambda x, y: x / y,
        "sqrt": lambda x: torch.sqrt(x),
        "floor": lambda x: torch.floor(x),
        "clip": lambda x, alpha, beta: x.clamp(float(alpha), float(beta)),
        "transpose": lambda x, perm: x.permute(perm.tolist()),
        "fill_like": lambda ref_tensor, value: torch.full_like(ref_tensor, float(value)),
        "split": lambda x, split_sizes, axis: list(x.split(split_sizes.tolist(), dim=int(axis))),
        "relu": lambda x: torch.relu(x),
        "sigmoid": lambda x: torch.sigmoid(x),
        "add": lambda x, y: x + y,
        "mul": lambda x, y: x * y,
        "concat": lambda values, axis, interleave: torch.cat(values, dim=int(axis)),
        "gather": gathered,
        "pixel_shuffle": lambda x, upscale_factor: pixel_shuffle(x, int(upscale_factor)),
        "reduce_sum": lambda x, axes, keep_dims: x.sum(axes.tolist(), keepdim=bool(keep_dims)),
        "slice_by_index": sliced, "resample": resampled, "conv": convolved,
    }  # fmt: skip
    block = program.functions["main"]
    for operation in block.operations:
        if operation.op_type == "const":
            continue
        arguments = {name: value(a) for name, a in operation.inputs.items() if a is not None}
        found = known[operation.op_type](**arguments)
        found = found if isinstance(found, list) else [found]
        for output, tensor in zip(operation.outputs, found, strict=True):
            values[output.name] = tensor
    return {output.name: values[output.name] for output in block.outputs}


@pytest.mark.parametrize("mpi", [False, True])
@pytest.mark.parametrize(("slabs", "samples"), [(1, 1), (3, 2), (5, 4)])
def test_the_converted_core_ml_program_reads_as_the_field(
    slabs: int, samples: int, mpi: bool
) -> None:
    import_or_skip("coremltools", reason="the extra 'coreml' is not installed")
    make, view = field_with_mpi if mpi else random_slabs, camera()
    scene = make(slabs=slabs, samples=samples)
    size = samples_for(scene, width=view.width, height=view.height)
    inputs = inputs_at(scene, view) if mpi else dict(
        zip(("coordinates", "weights"), ray_inputs(scene, view)[:2], strict=True)
    )  # fmt: skip
    features = torch.randn(1, scene.decoder.shape.inputs, size.down, size.across)
    for model, module, given in (
        (coreml.whole_model, whole_module, inputs),
        (coreml.decoder_model, DecoderHalf, {"features": features}),
    ):
        converted = model(scene, size)
        found = evaluated(converted._mil_program, given)
        with torch.no_grad():
            expected = module(scene)(**given)
        names = ("rgba", "distance") if "rays" in given else ("rgba", "z")
        assert set(found) == set(names)
        # Weights have 11 bits in float16, and what is added through ten layers of random ones
        # differs by some of these steps.
        for name, ours in zip(names, expected, strict=True):
            torch.testing.assert_close(found[name], ours, rtol=0.01, atol=0.01)


def test_a_folder_that_is_no_package_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.mlpackage").mkdir()
    (tmp_path / "a.mlpackage" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="no Core ML package"):
        coreml.export(source(random_slabs()), tmp_path / "a.mlpackage")
    assert (tmp_path / "a.mlpackage" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_missing_is_named(name: str, tmp_path: Path, monkeypatch) -> None:
    package = {"coreml": "coremltools", "litert": "ai_edge_litert"}.get(name, name)
    for known in [m for m in sys.modules if m == package or m.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, known)
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    module, suffix = FORMATS[name]
    with pytest.raises(MissingExtraError, match=rf"scene4d\[{name}\]"):
        module.export(source(random_slabs()), tmp_path / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FORMATS)
def test_splats_and_other_names_are_refused(name: str, tmp_path: Path) -> None:
    module, suffix = FORMATS[name]
    splats = GaussianSplats(
        {
            "means": torch.zeros(1, 3), "quats": torch.ones(1, 4), "scales": torch.zeros(1, 3),
            "opacities": torch.zeros(1), "sh0": torch.zeros(1, 1, 3), "shN": torch.zeros(1, 0, 3),
        }
    )  # fmt: skip
    with pytest.raises(UsageError, match="light fields alone"):
        module.export(OpenedScene(path=Path("r"), representation=splats), tmp_path / f"a{suffix}")
    with pytest.raises(UsageError, match=rf"SOMETHING\{suffix}"):
        module.export(source(random_slabs()), tmp_path / "a.bin")
