"""Light fields of the conformance bundles, and the maps that a decoder must get from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conformance_scenes import numbers

from scene4d.bundle.container import open_bundle
from scene4d.bundle.scene_info import CameraView, SceneInfo
from scene4d.cameras.camera import Camera
from scene4d.methods.lightslab.block_transform import ORDER
from scene4d.methods.lightslab.bundle_content import LightSlabParts, layer_shapes
from scene4d.methods.lightslab.bundle_mpi import BLOCK, MpiParts
from scene4d.methods.lightslab.bundle_parts import decoded_maps, read_light_slabs

FOCAL = 36.0


def light_fields() -> dict[str, LightSlabParts]:
    """Every number of samples, one to five slabs, planes that are not square, MPIs."""
    return {
        # The least: one slab of two planes, no skip, no block.
        "lightslab_one": field(21, slabs=1, depths=2, samples=1, blocks=0, channels=[5]),
        # The skip is at the first convolution; two stages.
        "lightslab_three": field(22, slabs=3, depths=3, samples=2, blocks=2, channels=[6, 4]),
        # The skip is at the last convolution; the fourth slab takes from the others' weights.
        "lightslab_four": field(23, slabs=4, depths=3, samples=4, blocks=1, channels=[4, 3]),
        # MPIs of one slab, of which one block in three is not stored, with ten frequencies.
        "lightslab_mpi": with_mpi(
            field(24, slabs=1, depths=5, samples=2, blocks=1, channels=[5]),
            columns=24, rows=16, frequencies=10, seed=31,
        ),
        # The least of MPIs: two with the lowest frequencies, no skip, no block.
        "lightslab_mpi_least": with_mpi(
            field(26, slabs=1, depths=2, samples=1, blocks=0, channels=[5]),
            columns=16, rows=16, frequencies=3, seed=33,
        ),
        # Of five, with all frequencies, more rows than columns, and no block at the last plane.
        "lightslab_mpi_five": with_mpi(
            field(25, slabs=5, depths=4, samples=4, blocks=0, channels=[4, 3]),
            columns=8, rows=24, frequencies=64, seed=32,
        ),
    }  # fmt: skip


def field(
    seed: int, *, slabs: int, depths: int, samples: int, blocks: int, channels: list[int]
) -> LightSlabParts:
    """Slabs whose axes are some 20 degrees apart, over a content 2 to 6 in front of them."""
    features = 3
    last = 2 * depths - 2
    pairs = [(2 * k, 2 * k + 1, 5, 4) for k in range(depths)]
    pairs += [(0, last + 1, 3, 5), (1, last, 4, 1)]
    planes = [
        {"axes": [a, b], "columns": c, "rows": r, "stage": stage}
        for stage in range(2 if depths > 2 else 1)
        for a, b, columns, rows in pairs[: 2 if stage else None]
        for c, r in [(columns * (1 + stage), rows * (1 + stage))]
    ]
    structure = {
        "slabs": [slab(i, depths, seed) for i in range(slabs)],
        "overlap": 0.125,
        "features": features,
        "feature_planes": planes,
        "decoder": {"samples": samples, "encoded": 5, "width": 8, "blocks": blocks,
                    "channels": channels},
        "content": {"centre": [0.25, -0.5, -3.0], "radius": 1.5},
        "focal": FOCAL,
    }  # fmt: skip
    codes = []
    for number, plane in enumerate(planes):
        shape = (slabs, plane["rows"], plane["columns"], features)
        u = numbers(int(np.prod(shape)), 1, seed + 7 * number).reshape(shape)
        codes.append(np.floor(201 * u - 100).astype(np.int32))
    steps = 0.01 + 0.001 * np.arange(slabs * features).reshape(slabs, features)
    return LightSlabParts(
        structure=structure,
        codes=codes,
        steps=[steps] * len(planes),
        weights=weights(structure, seed + 1000),
    )


def slab(number: int, depths: int, seed: int) -> dict[str, Any]:
    """Its axis is turned by its number; x is right, y down, z forward."""
    u = numbers(8, 1, seed + 100 * number)[:, 0] - 0.5
    lean = [(0.0, 0.0), (0.5, 0.0), (-0.25, 0.375), (-0.25, -0.5), (0.125, 0.25)][number]
    forward = np.array([*lean, -1.0])
    forward /= np.sqrt((forward**2).sum())
    right = np.array([-forward[2], 0.0, forward[0]])
    right /= np.sqrt((right**2).sum())
    down = np.array([
        forward[1] * right[2] - forward[2] * right[1],
        forward[2] * right[0] - forward[0] * right[2],
        forward[0] * right[1] - forward[1] * right[0],
    ])  # fmt: skip
    low = [[-0.75 + 0.1 * u[k % 8], -0.5] for k in range(depths)]
    high = [[0.625, 0.5 + 0.2 * u[(k + 3) % 8]] for k in range(depths)]
    return {
        "rotation": [[float(np.float32(v)) for v in row] for row in (right, down, forward)],
        "viewpoint": [float(v) for v in u[:3]],
        "disparities": [0.125 + 0.375 * k / (depths - 1) for k in range(depths)],
        "low": [[float(v) for v in pair] for pair in low],
        "high": [[float(v) for v in pair] for pair in high],
    }


def with_mpi(
    parts: LightSlabParts, *, columns: int, rows: int, frequencies: int, seed: int
) -> LightSlabParts:
    """``parts`` with MPIs, and a network that adds little to them."""
    slabs = parts.structure["slabs"]
    depths = len(slabs[0]["disparities"])
    shape = (len(slabs), depths, rows // BLOCK, columns // BLOCK)
    stored = numbers(int(np.prod(shape)), 1, seed).reshape(shape) > 0.35
    if len(slabs) > 1:
        stored[:, -1] = False
    count = int(stored.sum())
    rising = np.array([u + v for u, v in ORDER[:frequencies]])
    steps = np.array([6, 5, 12, 10])[:, None] * (5 + rising) // 5
    levels = np.floor(4 * numbers(count, 1, seed + 1)[:, 0]).astype(np.int32)
    entry = {"columns": columns, "rows": rows, "blocks": count, "steps": steps.tolist()}
    last = f"sharpen_{len(parts.structure['decoder']['channels']) - 1}.weight"
    return replace(
        parts,
        structure={**parts.structure, "mpi": entry},
        weights={**parts.weights, last: parts.weights[last] * np.float32(0.05)},
        mpi=MpiParts(
            stored=stored, levels=levels, codes=block_codes(levels, steps, seed + 2), steps=steps
        ),
    )


def block_codes(levels: np.ndarray, steps: np.ndarray, seed: int) -> np.ndarray:
    """[blocks, 4, frequencies] int32: a colour for each block, with a few frequencies that fade.

    Every fourth block is opaque; the second is in part brighter than 1, the third darker than 0.
    """
    count, stored = len(levels), steps.shape[1]
    u = numbers(count, 4 + 8 * stored, seed)
    wanted = np.zeros((count, 4, stored))
    alpha = np.where(np.arange(count) % 4 == 0, 255.0, 40 + 180 * u[:, 0])
    luma = alpha * (0.2 + 0.7 * u[:, 1])
    wanted[:, :, 0] = 64 * np.stack([alpha, luma, 120 * u[:, 2] - 60, 90 * u[:, 3] - 45], axis=1)
    wanted[1, :2, 0], wanted[2, :2, 0] = 64 * 250, 64 * 6
    wave, there = u[:, 4:].reshape(count, 2, 4, stored).swapaxes(0, 1)
    fading = 6000.0 / np.array([(1 + a + b) ** 2 for a, b in ORDER[1:stored]])
    share = np.array([1.0, 1.0, 0.5, 0.5])[:, None]
    wanted[:, :, 1:] = np.where(there < 0.4, (2 * wave - 1), 0)[:, :, 1:] * fading * share
    scale = steps * 2 ** levels.astype(np.int64)[:, None, None]
    return np.floor(wanted / scale + 0.5).astype(np.int32)


def weights(structure: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Layers that keep the size of what they are given, so that all maps have contrast."""
    found = {}
    for number, (name, shape) in enumerate(layer_shapes(structure).items()):
        inputs = int(np.prod(shape[1:]))
        u = numbers(shape[0], inputs + 1, seed + 1000 * number) - 0.5
        spread = 7.0 / np.sqrt(inputs) * (0.3 if name.endswith("_1") else 1.0)
        found[f"{name}.weight"] = (u[:, :inputs] * spread).reshape(shape).astype(np.float32)
        found[f"{name}.bias"] = (0.75 * u[:, inputs]).astype(np.float32)
    return found


def light_info(info: SceneInfo) -> SceneInfo:
    """A camera in the slabs' middle, and one that looks past them, so that coverage falls to 0."""
    upright = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.125), (0.0, 0.0, 1.0, 0.25))
    aside = ((0.8, 0.0, -0.6, -0.75), (0.0, 1.0, 0.0, 0.0), (0.6, 0.0, 0.8, 0.5))
    last = (0.0, 0.0, 0.0, 1.0)
    first = CameraView(
        name="inside", c2w=(*upright, last), fx=FOCAL, fy=FOCAL, cx=19.5, cy=15.25, width=40,
        height=30,
    )  # fmt: skip
    second = replace(first, name="aside", c2w=(*aside, last), cx=8.0, cy=6.5, width=17, height=12)
    return replace(info, cameras=(first, second))


def expected_maps(path: Path, views: tuple[CameraView, ...]) -> list[dict[str, Any]]:
    """SPEC.md's maps at the bundle's cameras (those of ``decoded_maps``), row by row, with 5
    decimals: of all stages, and where there are several, of the first alone."""
    found = []
    several = len(open_bundle(path).manifest["stages"]) > 1
    for number, stages in ((0, None), (1, None), *([(1, 1)] if several else [])):
        view = views[number]
        maps = decoded_maps(read_light_slabs(path, stages=stages), _camera(view))
        found.append({
            "camera": number, "stages": stages, "width": view.width, "height": view.height,
            **{name: [round(float(v), 5) for v in m.ravel()] for name, m in maps.items()},
        })  # fmt: skip
    return found


def _camera(view: CameraView) -> Camera:
    intrinsics = [[view.fx, 0, view.cx], [0, view.fy, view.cy], [0, 0, 1]]
    return Camera(
        c2w=torch.tensor(view.c2w), K=torch.tensor(intrinsics), width=view.width,
        height=view.height,
    )  # fmt: skip
