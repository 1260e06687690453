"""Light slabs as Core ML packages (ML Program, iOS 16 and newer). Converted on any system, run on
Apple's alone: no test here has run one."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

import scene4d
from scene4d.errors import MissingExtraError, UsageError
from scene4d.files import atomic_folder
from scene4d.formats.placing import write_sidecar
from scene4d.methods.lightslab.bundle_parts import structure_of
from scene4d.methods.lightslab.light_slabs import LightSlabs
from scene4d.methods.lightslab.runtimes.models import (
    METADATA,
    DecoderHalf,
    Samples,
    example_inputs,
    half_path,
    light_field,
    samples_for,
    training_size,
    whole_module,
)
from scene4d.optional import import_optional
from scene4d.training.opened import OpenedScene

SUFFIX = ".mlpackage"
FLOAT32_OPERATIONS = frozenset({"gather", "resample"})
"""Not in float16, which knows places on a plane of 128 texels to 1/16 texel only."""
FLOAT16_OPERATIONS = frozenset({"conv", "relu", "pixel_shuffle"})
"""The decoder's alone: where there are MPIs, nothing else is in float16, as their rays, places
and depths need more."""


def export(source: OpenedScene, path: Path, options: None = None) -> str:
    """Writes the whole package, and beside it the decoder half; returns a line about them.

    Pictures have one size, the training pictures' rounded up to whole rays of the bundle, as the
    Neural Engine wants. Raises :class:`UsageError` for scenes that are no light field.
    """
    path = Path(path)
    scene = light_field(source, path, format="Core ML", suffix=SUFFIX)
    width, height = training_size(source)
    samples, half = samples_for(scene, width=width, height=height), half_path(path)
    for target in (path, half):
        _refuse_other(target)
    sizes = []
    models = {path: whole_model(scene, samples), half: decoder_model(scene, samples)}
    with ExitStack() as stack:  # no package takes its place before both are complete
        for target, model in models.items():
            fresh = stack.enter_context(atomic_folder(target))
            fresh.rmdir()  # coremltools makes it
            model.save(str(fresh))
            sizes.append(sum(f.stat().st_size for f in fresh.rglob("*") if f.is_file()) / 1e6)
    step = scene.decoder.shape.upsampling
    width, height = (-(-n // step) * step for n in (width, height))
    write_sidecar(path, source.source_from_scene.double().numpy())
    return (
        f"Core ML, ML Program, float16, {width} x {height}: coordinates to maps {sizes[0]:.2f} MB;"
        f" features to maps {sizes[1]:.2f} MB, {half}\nconverted, not run: Core ML runs on Apple's"
        " systems alone"
    )


def decoder_model(scene: LightSlabs, samples: Samples) -> Any:
    """``features`` to ``rgba`` and ``z``, shapes as :class:`DecoderHalf` has them: coremltools'
    MLModel."""
    return _converted(DecoderHalf(scene), scene, samples, "half")


def whole_model(scene: LightSlabs, samples: Samples) -> Any:
    """``coordinates`` and ``weights`` to the same, shapes as :class:`WholeField` has them; with
    MPIs also ``rays``, and ``distance`` in place of ``z``: :class:`WholeWithMpi`."""
    return _converted(whole_module(scene), scene, samples, "whole")


def _converted(module: nn.Module, scene: LightSlabs, samples: Samples, part: str) -> Any:
    ct = _coremltools()
    inputs = example_inputs(scene, samples)[part]
    outputs = ("rgba", "distance" if "rays" in inputs else "z")
    # Silent: torch's warnings of tracing's age, and coremltools' bars of progress
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module.eval(), tuple(inputs.values()), check_trace=False)
        model = ct.convert(
            traced,
            inputs=[ct.TensorType(name, shape=tuple(t.shape)) for name, t in inputs.items()],
            outputs=[ct.TensorType(name) for name in outputs],
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS16,
            compute_precision=ct.transform.FP16ComputePrecision(
                op_selector=_in_decoder if "rays" in inputs else _but_look_ups
            ),
            skip_model_load=True,
        )
    model.short_description = "Light slabs: " + ", ".join(inputs) + " to " + " and ".join(outputs)
    model.version = scene4d.__version__
    model.user_defined_metadata[METADATA] = json.dumps(structure_of(scene))
    return model


def _but_look_ups(operation: Any) -> bool:
    return operation.op_type not in FLOAT32_OPERATIONS


def _in_decoder(operation: Any) -> bool:
    """Its own operations, and the sums of what its convolutions give."""
    if operation.op_type != "add":
        return operation.op_type in FLOAT16_OPERATIONS
    makers = [operation.inputs[name].op for name in ("x", "y")]
    makers = [m.inputs["x"].op if m is not None and m.op_type == "cast" else m for m in makers]
    return any(m is not None and m.op_type == "conv" for m in makers)


def _coremltools() -> Any:
    try:
        with _quiet("coremltools"):
            return import_optional(
                "coremltools", extra="coreml", needed_for="writing Core ML packages"
            )
    except MissingExtraError as error:
        # coremltools 9.0 has no other wheels
        if sys.platform == "win32" or sys.version_info >= (3, 14):
            raise UsageError(
                "Core ML packages are made by coremltools, which exists for Python 3.10 to 3.13 on"
                " macOS and on Linux with x86-64",
                fix="export there; the run folder can be copied",
            ) from error
        raise


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Without the warnings that a package logs when it is imported: that this is no Mac, and which
    torch it was tested with."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _refuse_other(path: Path) -> None:
    """A folder that is no package is never replaced."""
    if path.exists() and not (path / "Manifest.json").is_file():
        raise UsageError("exists and is no Core ML package", where=path, fix="choose another name")
