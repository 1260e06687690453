"""What a parent/child scene starts from: parents that look like splats, and the network's shape."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.bundle.quantise import rounded
from scene4d.bundle.scene_info import KEPT_CAMERAS
from scene4d.cameras.camera import Camera
from scene4d.methods.lpgs.smallest_turn import smallest_turn
from scene4d.methods.lpgs.structure import Structure
from scene4d.rendering.fields.hash_grid import GridShape
from scene4d.representations.blending_weights import largest_weights
from scene4d.representations.gaussians import GaussianSplats

if TYPE_CHECKING:
    from scene4d.data.scene import Scene
    from scene4d.methods.lpgs.method import LpgsMethod

MASK_START = 1.0
"""Masks start here, as logits: alive, but not far from the edge at 0."""


def parents_of(
    splats: GaussianSplats, structure: Structure, cameras: Sequence[Camera] = ()
) -> dict[str, Tensor]:
    """Parents that look like ``splats``, with masks on; ``cameras`` say which matter most."""
    with torch.no_grad():
        g = {name: value.detach().clone() for name, value in splats.gaussians.items()}
        vectors, order = smallest_turn(g["quats"])
        rest = structure.sh_rest
        shn = torch.zeros(len(vectors), rest, 3)
        shared = min(rest, (splats.active_sh_degree + 1) ** 2 - 1)
        shn[:, :shared] = g["shN"][:, :shared]
        count = len(vectors)
        return {
            "means": g["means"],
            "scales": g["scales"].gather(1, order),
            "rotations": vectors,
            "opacities": g["opacities"],
            "sh0": g["sh0"][:, 0],
            "shN": shn.reshape(count, -1),
            "keep": _keep_by_rank(largest_weights(splats, cameras)),
            "keep_children": torch.full((count, structure.num_children), MASK_START),
        }


def _keep_by_rank(shares: Float[Tensor, " n"]) -> Tensor:
    """Mask logits that rise with a Gaussian's share in pictures: under the same pressure, those
    that show least are masked first."""
    rank = shares.argsort().argsort() / max(1, len(shares))
    return MASK_START * (0.3 + 1.4 * rank)


def structure_for(scene: Scene, splats: GaussianSplats, method: LpgsMethod) -> Structure:
    """The network's shape; its grid is as large as the scene has Gaussians."""
    positions = torch.stack([camera.position for camera in scene.train_cameras()])
    centre = positions.mean(dim=0)
    grid = None
    if method.grid:
        rows = max(64, int(method.grid_share * splats.num_gaussians))
        grid = GridShape.growing(
            levels=method.grid_levels,
            features=method.grid_features,
            coarsest=method.grid_coarsest,
            finest=method.grid_finest,
            max_rows=rows,
        )
    return Structure(
        num_children=method.num_children,
        sh_degree=min(method.sh_degree, splats.sh_degree),
        grid=grid,
        hidden=method.hidden,
        attention=method.attention,
        contraction=method.contraction,
        centre=tuple(centre.tolist()),
        radius=scene.extent,
        position_bits=method.position_bits or _position_bits(scene),
    )


_POSITION_PIXELS = 0.15
"""Cells of stored positions are about this wide on the training images."""


def _position_bits(scene: Scene) -> int:
    """Enough bits that rounding a position cannot be seen: one cell of the cube, four radii wide,
    is a small part of a pixel at the distance of one radius."""
    focal = torch.stack([camera.K[0, 0] for camera in scene.train_cameras()]).median().item()
    return max(8, min(20, math.ceil(math.log2(4 * focal / _POSITION_PIXELS))))


def container_bytes(scene: Scene, sh_degree: int) -> float:
    """About what a bundle of ``scene`` takes without its Gaussians: deflated, the manifest's own
    entries and the cameras that it keeps, and a poster of at most 480 pixels' width (measured, to
    some 3 kB, most of them of the poster)."""
    cameras = scene.train_cameras()
    smaller = math.ceil(cameras[0].width / 480)
    pixels = (cameras[0].width // smaller) * (cameras[0].height // smaller)
    kept = cameras if scene.photographed else cameras[:KEPT_CAMERAS]
    numbers = [rounded(v) for camera in kept for v in camera.c2w.flatten().tolist()]
    entries = 1_600 + 57 * (sh_degree + 1) ** 2 + 6.5 * len(kept)
    return entries + len(zlib.compress(json.dumps(numbers).encode(), 9)) + 250 + 0.1 * pixels
