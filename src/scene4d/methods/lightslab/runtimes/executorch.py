"""Light slabs as ExecuTorch programs, for its XNNPACK back end and its portable kernels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from scene4d.formats.placing import write_sidecar
from scene4d.methods.lightslab.bundle_parts import structure_of
from scene4d.methods.lightslab.decoder import HALO
from scene4d.methods.lightslab.light_slabs import LightSlabs
from scene4d.methods.lightslab.runtimes.models import (
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
from scene4d.optional import import_optional
from scene4d.training.opened import OpenedScene

SUFFIX = ".pte"
METADATA_METHOD = METADATA.replace(".", "_")
"""Method of the program that returns SPEC.md's entry lightslab as JSON in bytes (uint8)."""


def export(source: OpenedScene, path: Path, options: None = None) -> str:
    """Writes the whole program, and beside it the decoder half; returns a line about them.

    Memory is planned for pictures up to the largest training picture's longer side, both ways; the
    whole of a field with MPIs is for pictures of the training pictures' size alone.
    Raises :class:`UsageError` for scenes that are no light field.
    """
    path = Path(path)
    scene = light_field(source, path, format="ExecuTorch", suffix=SUFFIX)
    size = training_size(source)
    side = max(size)
    largest, half = samples_for(scene, width=side, height=side), half_path(path)
    width, height = (side, side) if scene.mpi is None else size
    whole = samples_for(scene, width=width, height=height)
    sizes = megabytes_written(
        {path: whole_program(scene, whole), half: decoder_program(scene, largest)}
    )
    step = scene.decoder.shape.upsampling
    side, width, height = (-(-n // step) * step for n in (side, width, height))
    only = "" if scene.mpi is None else f", {width} x {height} alone"
    write_sidecar(path, source.source_from_scene.double().numpy())
    return (
        f"ExecuTorch with XNNPACK, float32, pictures up to {side} x {side}: coordinates to maps"
        f" {sizes[0]:.2f} MB{only}; features to maps {sizes[1]:.2f} MB, {half}"
    )


def decoder_program(scene: LightSlabs, largest: Samples) -> bytes:
    """``features`` to ``rgba`` and ``z``, shapes as :class:`DecoderHalf` has them, up to
    ``largest``."""
    return _program(DecoderHalf(scene), scene, largest, "half")


def whole_program(scene: LightSlabs, largest: Samples) -> bytes:
    """``coordinates`` and ``weights`` to the same, shapes as :class:`WholeField` has them; with
    MPIs also ``rays``, and ``distance`` in place of ``z``: :class:`WholeWithMpi`, of pictures
    of that size alone."""
    return _program(whole_module(scene), scene, largest, "whole")


def _program(module: nn.Module, scene: LightSlabs, largest: Samples, part: str) -> bytes:
    for name in ("executorch.exir", "executorch.backends.xnnpack.partition.xnnpack_partitioner"):
        import_optional(name, extra="executorch", needed_for="writing ExecuTorch programs")
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    inputs: dict[str, Tensor] = example_inputs(scene, largest)[part]
    per = scene.decoder.shape.samples
    # Rays of the bundle, of which samples are multiples; a picture needs the halo and one more.
    down, across = (
        per * Dim(name, min=1 + 2 * HALO, max=size // per)
        for name, size in (("rays_down", largest.down), ("rays_across", largest.across))
    )
    free: dict[str, dict[int, Any]] = {
        "features": {2: down, 3: across},
        "coordinates": {1: down, 2: across},
        "weights": {2: down, 3: across},
    }
    # With free sizes, three MPI planes take longer to lower than 36 do with fixed ones
    fixed = "rays" in inputs
    with torch.no_grad():
        exported = torch.export.export(
            module.eval(),
            (),
            kwargs=inputs,
            dynamic_shapes=None if fixed else {name: free[name] for name in inputs},
        )
    structure = torch.tensor(list(json.dumps(structure_of(scene)).encode()), dtype=torch.uint8)
    lowered = to_edge_transform_and_lower(
        exported,
        partitioner=[XnnpackPartitioner()],
        constant_methods={METADATA_METHOD: structure},
    )
    return lowered.to_executorch().buffer
