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

from scene4d.cameras.camera import Camera
from scene4d.errors import DataError
from scene4d.exporters import packing
from scene4d.exporters.formats import FORMATS, format_named, read_splats, write_splats
from scene4d.representations.splats.gaussians import GaussianSplats
from scene4d.splat_cloud import SplatCloud, split_similarity

Score = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(picture, target, mask or None) -> one figure; larger is better."""

_ELEVATION = 0.3
"""Of orbit cameras over the plane through the content's centre, radians."""
_VIEW_ANGLE = 0.8


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


def splats_of(cloud: SplatCloud, *, device: torch.device | str = "cpu") -> GaussianSplats:
    """The splats as a representation that renders."""

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    return GaussianSplats(
        {
            "means": tensor(cloud.means),
            "quats": tensor(cloud.quats),
            "scales": tensor(cloud.log_scales),
            "opacities": tensor(cloud.logit_opacities),
            "sh0": tensor(cloud.sh[:, :1]),
            "shN": tensor(cloud.sh[:, 1:]),
        }
    )


def moved_cameras(cameras: Sequence[Camera], similarity: np.ndarray) -> list[Camera]:
    """The cameras after ``similarity`` [4, 4]: they see the moved scene as before."""
    scale, rotation, translation = split_similarity(similarity)
    turn, shift = torch.from_numpy(rotation), torch.from_numpy(np.asarray(translation))
    moved = []
    for camera in cameras:
        pose = camera.c2w.double().clone()
        pose[:3, :3] = turn @ pose[:3, :3]
        pose[:3, 3] = scale * (turn @ camera.c2w[:3, 3].double()) + shift
        moved.append(camera.with_pose(pose.to(camera.c2w.dtype)))
    return moved


def cameras_around(cloud: SplatCloud, *, count: int = 8, size: int = 512) -> list[Camera]:
    """Cameras on a circle around the content, looking at its middle, ``size`` pixels square.

    The content is where the weighted splats lie between their 10th and 90th percentile per axis, so
    that floaters and far backgrounds do not push the cameras away. Up is -y, as in a 3DGS PLY.
    """
    if not len(cloud):
        raise DataError("there are no splats to look at")
    visible = packing.opacity_of(cloud.logit_opacities) > 0.1
    means = cloud.means[visible] if visible.any() else cloud.means
    low, middle, high = np.quantile(means.astype(np.float64), (0.1, 0.5, 0.9), axis=0)
    radius = max(float(np.linalg.norm(high - low)) / 2, 1e-6)
    distance = 1.3 * radius / np.tan(_VIEW_ANGLE / 2)
    focal = size / 2 / np.tan(_VIEW_ANGLE / 2)
    intrinsics = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])
    cameras = []
    for angle in 2 * np.pi * np.arange(count) / count:
        back = np.array(
            [
                np.cos(angle) * np.cos(_ELEVATION),
                -np.sin(_ELEVATION),
                np.sin(angle) * np.cos(_ELEVATION),
            ]
        )
        right = np.cross([0.0, -1.0, 0.0], back)
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3] = np.stack([right, np.cross(back, right), back, middle + distance * back], axis=1)
        c2w = torch.from_numpy(pose).float()
        cameras.append(Camera(c2w=c2w, K=intrinsics.float(), width=size, height=size))
    return cameras


def compare_formats(
    cloud: SplatCloud,
    cameras: Sequence[Camera],
    folder: Path,
    score: Score,
    *,
    photos: Sequence[Photo] = (),
    background: Float[Tensor, "3"] | None = None,
    names: Sequence[str] | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[FormatCost]:
    """Writes ``cloud`` to ``folder`` in every format and yields what each costs, in turn.

    ``photos``: one per camera, or none. ``names``: the formats; by default all but .s4d, whose size
    is a choice (``scene4d compress``).
    """
    if photos and len(photos) != len(cameras):
        raise ValueError(f"{len(photos)} photos for {len(cameras)} cameras")
    folder.mkdir(parents=True, exist_ok=True)
    behind = torch.zeros(3, device=device) if background is None else background.to(device)

    def renders(splats: SplatCloud) -> list[Tensor]:
        representation = splats_of(splats, device=device)
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
