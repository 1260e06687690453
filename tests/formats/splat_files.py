"""Clouds and comparisons that the tests of splat formats share."""

from __future__ import annotations

import json
import struct

import numpy as np

from scene4d.formats import packing
from scene4d.formats.splat import importance_order
from scene4d.formats.splat_cloud import SplatCloud


def random_cloud(count: int = 1000, degree: int = 3, seed: int = 0) -> SplatCloud:
    """Values as a trained scene has them: all within what every format can say."""
    rng = np.random.default_rng(seed)

    def uniform(low: float, high: float, *shape: int) -> np.ndarray:
        return rng.uniform(low, high, size=shape).astype(np.float32)

    return SplatCloud(
        means=uniform(-4, 4, count, 3),
        quats=rng.normal(size=(count, 4)).astype(np.float32),
        log_scales=uniform(-8, 0, count, 3),
        logit_opacities=uniform(-5, 5, count),
        sh=np.concatenate(
            [
                uniform(-1.7, 1.7, count, 1, 3),  # colours 0.02..0.98
                uniform(-0.9, 0.9, count, (degree + 1) ** 2 - 1, 3),
            ],
            axis=1,
        ),
    )


def order_in_file(name: str, cloud: SplatCloud) -> np.ndarray:
    """The order in which a format's writer puts the splats."""
    if name in ("compressed-ply", "sog"):
        return packing.morton_order(cloud.means)
    if name == "splat":
        return importance_order(cloud)
    return np.arange(len(cloud))


def angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[N] angles in radians between the rotations of two lists of quaternions."""
    a, b = packing.unit_quats(a), packing.unit_quats(b)
    # |a - b| is accurate for small angles, where the arc cosine of a product is not
    chord = np.minimum(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1))
    return 4 * np.arcsin(np.minimum(chord / 2, 1))


def glb_with(data: bytes, change) -> bytes:
    """A GLB whose document was changed."""
    size = struct.unpack_from("<I", data, 12)[0]
    document = json.loads(data[20 : 20 + size])
    change(document)
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + size :]
    head = struct.pack("<4sIIII", b"glTF", 2, 20 + len(text) + len(rest), len(text), 0x4E4F534A)
    return head + text + rest
