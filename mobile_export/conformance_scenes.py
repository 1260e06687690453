"""Scenes of the conformance bundles: of integers and square roots, the same on every machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from scene4d.bundle.container import Bundle
from scene4d.bundle.scene_info import SceneInfo, info_from
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.methods.lpgs.bundle_content import ATTRIBUTES, LpgsParts


def numbers(rows: int, columns: int, seed: int) -> np.ndarray:
    """[rows, columns] multiples of 2^-24 in 0..1 that look random."""
    state = np.arange(1, 1 + rows * columns, dtype=np.uint64).reshape(rows, columns)
    state = (state + np.uint64(seed)) * np.uint64(0x9E3779B97F4A7C15)
    state ^= state >> np.uint64(29)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(32)
    return (state >> np.uint64(40)).astype(np.float64) / 2**24


def scene_of(bundle: Bundle) -> SceneInfo:
    """The description in the manifest."""
    return info_from(bundle.manifest, {name: bundle.read(name) for name in bundle.names()})


def cloud(count: int, degree: int, seed: int) -> SplatCloud:
    """Splats on a ball."""
    u = numbers(count, 80, seed)
    means = u[:, 0:3] - 0.5
    means /= np.sqrt((means**2).sum(axis=1, keepdims=True)) + 1e-3
    small = 1 + (degree + 1) ** 2
    sh = (u[:, 16 : 16 + 3 * small - 3] - 0.5).reshape(count, small - 1, 3)
    sh[:, 1:] *= 0.3 * u[:, 14:15, None]
    f = np.float32
    return SplatCloud(
        means=means.astype(f),
        quats=(u[:, 3:7] - 0.5 + [0.5, 0, 0, 0]).astype(f),
        log_scales=(-4 + 2 * u[:, 7:10] * u[:, 10:11]).astype(f),
        logit_opacities=(8 * u[:, 11] - 3).astype(f),
        sh=sh.astype(f),
    )


def crowded(count: int) -> SplatCloud:
    """Many splats in one cell of the grid."""
    splats = cloud(count, 0, 9)
    means = np.where(np.arange(count)[:, None] % 4 > 0, np.float32(0.25), splats.means)
    return replace(splats, means=means.astype(np.float32))


def families() -> dict[str, LpgsParts]:
    """Scenes of kind lpgs: without a network, with all of it, and two with parts of it."""
    # 9^3 rows: a level without hashing; 64 rows for 17^3 vertices: one with.
    grid = {"resolutions": [8, 16], "rows": [729, 64], "features": 2}
    return {
        "lpgs_parents": family(70, 11, sh_degree=3, position_bits=16),
        "lpgs_family": family(50, 12, num_children=3, grid=grid, attention=True),
        "lpgs_uncontracted": family(40, 13, num_children=2, grid=grid, contraction=False),
        "lpgs_grid_alone": family(30, 14, sh_degree=0, grid=grid, attention=True),
        "lpgs_children_alone": family(30, 15, sh_degree=0, num_children=8),
        "lpgs_nothing": family(0, 16, num_children=2, grid=grid),
    }


def family(count: int, seed: int, **entries: Any) -> LpgsParts:
    """Parents within and around the ball that the contraction leaves as it is, and a network."""
    structure = {
        "num_children": 0, "sh_degree": 1, "grid": None, "hidden": 12, "attention": False,
        "contraction": True, "centre": [0.25, -0.5, 2.0], "radius": 1.5, "position_bits": 13,
        **entries,
    }  # fmt: skip
    u = numbers(count, 80, seed)
    rest = 3 * ((structure["sh_degree"] + 1) ** 2 - 1)
    # Points fill the ball of radius 1.8 of the contracted one of 2.
    ball = u[:, 0:3] - 0.5
    ball *= (1.8 * u[:, 3:4]) / np.sqrt((ball**2).sum(axis=1, keepdims=True) + 1e-6)
    points = np.floor((ball / 4 + 0.5) * 2 ** structure["position_bits"]).astype(np.uint32)
    spans = {"opacity": (-3, 8, 9), "log_scales": (-90, 60, 12), "rotation": (-20, 40, 18),
             "dc": (-40, 80, 24), "sh": (-6, 12, 27)}  # fmt: skip
    widths = {"opacity": 1, "log_scales": 3, "rotation": 3, "dc": 3, "sh": rest}
    steps = {"opacity": 0.4, "log_scales": 0.05, "rotation": 0.02, "dc": 0.05, "sh": 0.06}
    codes = {
        name: np.floor(low + span * u[:, at : at + widths[name]]).astype(np.int32)
        for name, (low, span, at) in spans.items()
    }
    table = None
    if structure["grid"] is not None:
        rows, features = sum(structure["grid"]["rows"]), structure["grid"]["features"]
        table = np.floor(9 * numbers(rows, features, seed + 1) - 4).astype(np.int32)
        steps["grid"] = 0.1
        widths["grid"] = features
    masks = np.floor(2 ** structure["num_children"] * u[:, 78]).astype(np.int64)
    return LpgsParts(
        structure=structure, points=points, codes={name: codes[name] for name in ATTRIBUTES},
        steps={name: np.full(widths[name], step) for name, step in steps.items()},
        children=masks, importance=u[:, 79], table=table,
        weights=weights(structure, rest, seed + 2),
    )  # fmt: skip


def weights(structure: dict[str, Any], rest: int, seed: int) -> dict[str, np.ndarray] | None:
    """Layers whose corrections are about as large as what they correct."""
    grid, children, hidden = structure["grid"], structure["num_children"], structure["hidden"]
    if grid is None and not children:
        return None
    inputs = 10 + (len(grid["rows"]) * grid["features"] if grid else 0)
    shapes = {"token": (hidden, inputs), "inner": (hidden, hidden),
              "parent_head": (10 + rest, hidden)}  # fmt: skip
    if children:
        shapes |= {"child_head": (10 + rest, hidden), "place": (3 * children, hidden)}
    if children and structure["attention"]:
        shapes["attend"] = (3 * hidden, hidden)
    found = {}
    for number, (name, (outputs, width)) in enumerate(shapes.items()):
        u = numbers(outputs, width + 1, seed + 1000 * number) - 0.5
        found[f"{name}.weight"] = (u[:, :width] * (2 / np.sqrt(width))).astype(np.float32)
        found[f"{name}.bias"] = u[:, width].astype(np.float32)
    return found
