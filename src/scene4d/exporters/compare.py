"""What each splat format costs: bytes, and how far its renders are from the original's.

Every format is written, read back and rendered at the same cameras as the original; pictures are
compared with the original's and, where there are any, with photographs. The measure (PSNR) is
handed in, as exporters do not import evaluation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.cameras.around import circle_around
from scene4d.cameras.camera import Camera
from scene4d.errors import DataError
from scene4d.formats import packing
from scene4d.formats.registry import FORMATS, format_named, read_splats, write_splats
from scene4d.formats.splat_cloud import SplatCloud, inverse_similarity
from scene4d.representations.gaussians import GaussianSplats

Score = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(picture, target, mask or None) -> one figure; larger is better."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Photo:
    """What a camera saw: the target of a comparison."""

    rgb: Float[Tensor, "h w 3"]
    mask: Bool[Tensor, "h w"] | None = None


@dataclass(frozen=True, kw_only=True)
class FormatCost:
    """One row of the table."""

    name: str
    file: str
    bytes: int
    bytes_per_splat: float
    write_seconds: float
    read_seconds: float
    psnr_to_original: float
    """dB against the original's renders; 100 for equal pictures."""
    psnr_to_photos: float | None
    """dB against the photographs."""
    photo_loss: float | None
    """dB that the original's figure against the photographs is higher."""


def cameras_around(cloud: SplatCloud, *, count: int = 8, size: int = 512) -> list[Camera]:
    """Cameras on a circle around the splats that show, which lie near the origin; see
    :func:`circle_around`."""
    if not len(cloud):
        raise DataError("there are no splats to look at")
    visible = packing.opacity_of(cloud.logit_opacities) > 0.1
    shown = visible if visible.any() else np.ones_like(visible)
    stds = np.exp(cloud.log_scales[shown].max(axis=1))
    return circle_around(
        torch.from_numpy(cloud.means[shown].astype(np.float32)),
        count=count,
        size=size,
        least_radius=2 * float(np.median(stds)),
    )


def compare_formats(
    cloud: SplatCloud,
    cameras: Sequence[Camera],
    folder: Path,
    score: Score,
    *,
    photos: Sequence[Photo] = (),
    background: Float[Tensor, " 3"] | None = None,
    names: Sequence[str] | None = None,
    device: torch.device | str = "cpu",
    source_from_scene: np.ndarray | None = None,
) -> Iterator[FormatCost]:
    """Writes ``cloud`` to ``folder`` in every format and yields what each costs, in turn.

    ``cameras`` are in scene coordinates, which ``source_from_scene`` [4, 4] leads to ``cloud``'s
    from. ``photos``: one per camera, or none. ``names``: the formats; by default all but .s4d,
    whose size is a choice (``scene4d compress``).
    """
    if photos and len(photos) != len(cameras):
        raise ValueError(f"{len(photos)} photos for {len(cameras)} cameras")
    folder.mkdir(parents=True, exist_ok=True)
    behind = torch.zeros(3, device=device) if background is None else background.to(device)

    here = inverse_similarity(np.eye(4) if source_from_scene is None else source_from_scene)

    def renders(splats: SplatCloud) -> list[Tensor]:
        representation = GaussianSplats.of(splats.transformed(here)).to(device)
        with torch.no_grad():
            return [
                representation.render(camera.to(device), background=behind).rgb.clamp(0, 1).cpu()
                for camera in cameras
            ]

    def mean_score(pictures: Sequence[Tensor], targets: Sequence[Photo]) -> float:
        pairs = zip(pictures, targets, strict=True)
        return float(np.mean([float(score(p, t.rgb.to(p), t.mask)) for p, t in pairs]))

    original = [Photo(rgb=picture) for picture in renders(cloud)]
    of_photos = mean_score([o.rgb for o in original], photos) if photos else None
    for name in names or [form.name for form in FORMATS if form.name != "s4d"]:
        path = folder / f"scene{format_named(name).suffixes[0]}"
        start = time.perf_counter()
        write_splats(path, cloud, name=name)
        written = time.perf_counter()
        found = read_splats(path)
        read = time.perf_counter()
        pictures = renders(found)
        to_photos = mean_score(pictures, photos) if photos else None
        size = path.stat().st_size
        yield FormatCost(
            name=name,
            file=path.name,
            bytes=size,
            bytes_per_splat=size / max(len(cloud), 1),
            write_seconds=written - start,
            read_seconds=read - written,
            psnr_to_original=mean_score(pictures, original),
            psnr_to_photos=to_photos,
            photo_loss=None if of_photos is None or to_photos is None else of_photos - to_photos,
        )
