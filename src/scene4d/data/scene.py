"""The Scene: what a capture becomes once a dataparser has read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from scene4d.cameras.camera import Camera

_DEPTH_STEPS = 1000.0
"""With cameras in one place and nothing else known, this many steps of the depth maps are a length
of the scene: a metre, in millimetres."""


@dataclass(frozen=True, kw_only=True)
class TimeHints:
    """What a capture says of its times, besides them; see :mod:`scene4d.data.times`."""

    unit: str | None = None
    fps: float | None = None
    """Pictures a second of each camera."""
    duration_s: float | None = None
    """From the first picture to the last."""


@dataclass(frozen=True, kw_only=True)
class Points:
    """Coloured 3D points, from structure from motion or fused depth."""

    xyz: Float[Tensor, "num_points 3"]
    """World coordinates, scene units; float64 in a capture's own frame."""
    rgb: UInt8[Tensor, "num_points 3"]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One picture of the capture: where its files are and how it was taken."""

    name: str
    """The image's path relative to the capture, unique in the scene."""
    camera: Camera
    """Of the picture as stored in the file (full size, distorted if the lens distorts)."""
    image_path: Path
    mask_path: Path | None = None
    """Pixels that are 0 in this image are ignored in losses and metrics."""
    mask_ignores: bool = False
    """The other way round: pixels that are *not* 0 in the mask are ignored."""
    crop_radius: float | None = None
    """Pixels of the stored picture farther than this from the principal point are ignored."""
    depth_path: Path | None = None
    depth_unit_m: float = 0.001
    """Scene units for one step of the stored depth; 0 in the file means no measurement."""
    depth_estimated: bool = False
    """Depth is a guess, of a network: right in the large, wrong by some per cent everywhere, and
    smooth over edges. Nothing stands where it says exactly."""
    covisible_path: Path | None = None
    """For evaluation alone: pixels that are 0 here show what no training picture shows."""
    moving_path: Path | None = None
    """Pixels that are not 0 here show a surface that moves at some time: for evaluation, and for
    methods of time."""
    weight: float = 1.0
    """How much the picture counts beside the others of its capture, in the photometric term."""
    camera_id: str | None = None
    """The camera that took it, where the capture tells cameras apart; see
    :func:`scene4d.data.trajectories.trajectories`."""

    @property
    def has_measured_depth(self) -> bool:
        """Whether it has a depth map that is exact where it says something."""
        return self.depth_path is not None and not self.depth_estimated


@dataclass(frozen=True, kw_only=True)
class View:
    """A frame's pixels as the trainer sees them: undistorted, at the size asked for; or a batch of
    parts of frames, crops or single pixels."""

    index: int | Int[Tensor, " batch"]
    """The frame's index in ``Scene.frames``; of a batch, that of each."""
    camera: Camera
    rgb: Float[Tensor, "*batch height width 3"]
    """0..1; straight (not premultiplied) where ``alpha`` is given."""
    alpha: Float[Tensor, "*batch height width"] | None = None
    mask: Bool[Tensor, "*batch height width"] | None = None
    """False: this pixel says nothing (masked out, or outside the undistorted picture)."""
    depth: Float[Tensor, "*batch height width"] | None = None
    """Distance along the viewing axis in scene units; 0 where there is no measurement."""
    depth_estimated: bool = False
    """Depth is a guess (:attr:`Frame.depth_estimated`), in some part of a batch at least."""

    @property
    def measured_depth(self) -> Float[Tensor, "*batch height width"] | None:
        """Depth that is exact where it says something."""
        return None if self.depth_estimated else self.depth


@runtime_checkable
class ViewSource(Protocol):
    """Where a scene's pictures come from: files, or renders of another scene."""

    def camera(self, index: int, downscale: int = 1) -> Camera:
        """The camera of :meth:`view`, without its pixels."""

    def view(self, index: int, downscale: int = 1) -> View:
        """The picture of frame ``index``, ``downscale`` times smaller."""


@runtime_checkable
class ReadsAhead(Protocol):
    """What makes views ready before they are asked for, where a source of pictures does so."""

    def soon(self, indices: Sequence[int], downscale: int = 1) -> None:
        """Tells which views come next, of the size of :meth:`ViewSource.view`."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Frames, their split into train and test, and points to start from."""

    root: Path
    dataparser: str
    """The name of the dataparser that read it."""
    frames: Sequence[Frame]
    train_indices: Sequence[int]
    test_indices: Sequence[int]
    """Never trained on."""
    split_rule: str
    """In words, for eval.json: e.g. 'every 8th image held out' or 'given by the capture'."""
    points: Points | None = None
    background: tuple[float, float, float] | None = None
    """The colour that images with alpha are composited on for evaluation; None: opaque images."""
    bounds: tuple[float, float] | None = None
    """Near and far in scene units, where the capture states them."""
    source_from_scene: Float[Tensor, "4 4"] = field(
        default_factory=lambda: torch.eye(4, dtype=torch.float64)
    )
    """The similarity that maps scene coordinates back to the input's own frame; float64."""
    working_from_scene: Float[Tensor, "4 4"] | None = None
    """The move to the working frame, where frames were left out since: all of them decide it."""
    photographed: bool = True
    """False: its pictures are renders of a teacher, from cameras that nobody stood at."""
    time_hints: TimeHints | None = None
    """Of a scene whose cameras' times are still in the capture's unit."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    pictures: ViewSource | None = field(default=None, repr=False, compare=False)
    """The decoded pictures of the frames as they are here; None: as their files hold them."""

    @property
    def measures_depth(self) -> bool:
        """Whether some training frame has measured depth."""
        return any(self.frames[i].has_measured_depth for i in self.train_indices)

    def train_cameras(self) -> list[Camera]:
        """The training cameras, in frame order."""
        return [self.frames[i].camera for i in self.train_indices]

    @property
    def extent(self) -> float:
        """1.1 times the largest distance of a training camera from their centre, in scene units.

        The unit of position learning rates and densification thresholds (3D Gaussian Splatting,
        Kerbl et al. 2023). Of a capture from one place :attr:`content_distance`, or 1.
        """
        positions = torch.stack([camera.position for camera in self.train_cameras()])
        radius = (positions - positions.mean(dim=0)).norm(dim=-1).max().item() * 1.1
        return radius if radius > 1e-6 else self.content_distance or 1.0

    @property
    def content_distance(self) -> float | None:
        """A distance from the cameras' mean place to what they see, in scene units, as far as the
        capture tells one: of points, stated bounds or depth maps."""
        if self.points is not None:
            places = [frame.camera.position.double() for frame in self.frames]
            centre = torch.stack(places).mean(dim=0)
            distance = float((self.points.xyz.double() - centre).norm(dim=-1).median())
            return distance or None
        if self.bounds is not None:
            return (self.bounds[0] * self.bounds[1]) ** 0.5
        units = [frame.depth_unit_m for frame in self.frames if frame.depth_path is not None]
        return _DEPTH_STEPS * units[0] if units else None


def at_size_of(scene: Scene, images: ViewSource) -> Scene:
    """The scene as it is trained on: ``images``, and their cameras (undistorted, downscaled)."""
    frames = [replace(f, camera=images.camera(i)) for i, f in enumerate(scene.frames)]
    return replace(scene, frames=frames, pictures=images)
