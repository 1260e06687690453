"""Light slabs as ExecuTorch programs, for its XNNPACK back end and its portable kernels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from scene4d.errors import MissingExtraError
from scene4d.exporters.field_models import (
    METADATA,
    DecoderHalf,
    Samples,
    example_inputs,
    half_path,
    light_field,
    megabytes_written,
    samples_for,
    training_size,
    whole_module,
)
from scene4d.exporters.light_slab import structure_of
from scene4d.exporters.source import ExportSource
from scene4d.representations.light_slabs.decoder import HALO
from scene4d.representations.light_slabs.light_slabs import LightSlabs

SUFFIX = ".pte"
METADATA_METHOD = METADATA.replace(".", "_")
"""Method of the program that returns SPEC.md's entry lightslab as JSON in bytes (uint8)."""


def export(source: ExportSource, path: Path, options: None = None) -> str:
    """Writes the whole program, and beside it the decoder half; returns a line about them.

    Memory is planned for pictures up to the largest training picture's longer side, both ways.
    Raises :class:`UsageError` for scenes that are no light field.
    """
    path = Path(path)
    scene = light_field(source, path, format="ExecuTorch", suffix=SUFFIX)
    side = max(training_size(source))
    largest, half = samples_for(scene, width=side, height=side), half_path(path)
    sizes = megabytes_written(
        {path: whole_program(scene, largest), half: decoder_program(scene, largest)}
    )
    side = (largest.down // scene.decoder.shape.samples - 2 * HALO) * scene.decoder.shape.upsampling
    return (
        f"ExecuTorch with XNNPACK, float32, pictures up to {side} x {side}: coordinates to maps"
        f" {sizes[0]:.2f} MB; features to maps {sizes[1]:.2f} MB, {half}"
    )


def decoder_program(scene: LightSlabs, largest: Samples) -> bytes:
    """``features`` to ``rgba`` and ``z``, shapes as :class:`DecoderHalf` has them, up to
    ``largest``."""
    return _program(DecoderHalf(scene), scene, largest, "half")


def whole_program(scene: LightSlabs, largest: Samples) -> bytes:
    """``coordinates`` and ``weights`` to the same, shapes as :class:`WholeField` has them; with
    sheets also ``rays``, and ``distance`` in place of ``z``: :class:`WholeWithSheets`."""
    return _program(whole_module(scene), scene, largest, "whole")


def _program(module: nn.Module, scene: LightSlabs, largest: Samples, part: str) -> bytes:
    try:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "executorch", extra="executorch", needed_for="writing ExecuTorch programs"
        ) from error
    inputs: dict[str, Tensor] = example_inputs(scene, largest)[part]
    per, step = scene.decoder.shape.samples, scene.decoder.shape.upsampling
    # Rays of the bundle, of which samples are multiples; a picture needs the halo and one more.
    bundle = [
        Dim(name, min=1 + 2 * HALO, max=size // per)
        for name, size in (("rays_down", largest.down), ("rays_across", largest.across))
    ]
    down, across = (per * rays for rays in bundle)
    height, width = (step * rays - 2 * HALO * step for rays in bundle)
    free: dict[str, dict[int, Any]] = {
        "features": {2: down, 3: across},
        "coordinates": {1: down, 2: across},
        "weights": {2: down, 3: across},
        "rays": {2: height, 3: width},
    }
    with torch.no_grad():
        exported = torch.export.export(
            module.eval(),
            (),
            kwargs=inputs,
            dynamic_shapes={name: free[name] for name in inputs},
        )
    structure = torch.tensor(list(json.dumps(structure_of(scene)).encode()), dtype=torch.uint8)
    lowered = to_edge_transform_and_lower(
        exported,
        partitioner=[XnnpackPartitioner()],
        constant_methods={METADATA_METHOD: structure},
    )
    return lowered.to_executorch().buffer
