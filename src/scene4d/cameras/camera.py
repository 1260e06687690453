"""The camera: pose, intrinsics, distortion and time of one picture, or of a batch of them.

Frames: ``c2w`` maps camera to world with OpenGL axes (+x right, +y up, looking along -z), as in
nerfstudio. ``viewmat`` is the rasteriser's world-to-camera with OpenCV axes (+y down, +z forward).
Pixels: ``K`` is measured from the top-left corner of the image, so the centre of the top-left
pixel is at (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scene4d.cameras.conventions import viewmat_from_c2w
from scene4d.cameras.distortion import Distortion


@dataclass(frozen=True, kw_only=True, eq=False)
class Camera:
    """One camera (no leading dimensions) or a batch that shares one image size."""

    c2w: Float[Tensor, "*batch 4 4"]
    """Camera-to-world, OpenGL axes; lengths in scene units."""
    K: Float[Tensor, "*batch 3 3"]
    """Intrinsics in pixels."""
    width: int
    height: int
    distortion: Distortion | None = None
    """None once the images are undistorted; renderers take only undistorted cameras."""
    time: Float[Tensor, " *batch"] | None = None
    """Seconds; None in a static scene."""

    @property
    def viewmat(self) -> Float[Tensor, "*batch 4 4"]:
        """World-to-camera, OpenCV axes."""
        return viewmat_from_c2w(self.c2w)

    @property
    def position(self) -> Float[Tensor, "*batch 3"]:
        """The camera's centre in the world."""
        return self.c2w[..., :3, 3]

    def resized(self, width: int, height: int) -> Camera:
        """The same view at another size in pixels."""
        scale = self.K.new_tensor([width / self.width, height / self.height, 1.0])
        return replace(self, K=self.K * scale[:, None], width=width, height=height)

    def downscaled(self, factor: int) -> Camera:
        """The camera of the picture whose pixels are ``factor`` x ``factor`` boxes of this one's.

        Columns and rows that do not fill a box are cut off at the right and at the bottom, so the
        size is rounded down and K is divided exactly.
        """
        if factor == 1:
            return self
        width, height = self.width // factor, self.height // factor
        if width < 1 or height < 1:
            raise ValueError(f"{self.width}x{self.height} cannot be downscaled {factor} times")
        scale = self.K.new_tensor([1 / factor, 1 / factor, 1.0])
        return replace(self, K=self.K * scale[:, None], width=width, height=height)

    def cropped(
        self,
        x: int | Int[Tensor, " *batch"],
        y: int | Int[Tensor, " *batch"],
        width: int,
        height: int,
    ) -> Camera:
        """The camera of the part of this picture whose top-left pixel is column ``x``, row ``y``.

        Its rays are those of the picture's pixels: only the principal point is shifted. A batch
        takes one place for all or one for each. The part may reach beyond the picture.
        """
        if width < 1 or height < 1:
            raise ValueError(f"a part of {width}x{height} pixels is empty")
        shift = torch.zeros_like(self.K)
        shift[..., 0, 2], shift[..., 1, 2] = x, y
        return replace(self, K=self.K - shift, width=width, height=height)

    def chosen(self, which: slice | Int[Tensor, " n"]) -> Camera:
        """Those of a batch at ``which`` places."""
        return replace(
            self,
            c2w=self.c2w[which],
            K=self.K[which] if self.K.ndim > 2 else self.K,
            time=None if self.time is None else self.time[which],
        )

    def with_pose(self, c2w: Float[Tensor, "*batch 4 4"]) -> Camera:
        """The same camera at another pose."""
        return replace(self, c2w=c2w)

    def moved(self, similarity: Float[Tensor, "4 4"]) -> Camera:
        """The camera where a similarity of the world takes it; its axes keep length one, its time
        and its intrinsics stay."""
        similarity = similarity.to(self.c2w.device, torch.float64)
        c2w = similarity @ self.c2w.double()
        c2w[..., :3, :3] /= torch.linalg.det(similarity[:3, :3]) ** (1 / 3)
        return self.with_pose(c2w)

    def float32(self) -> Camera:
        """The camera with its tensors in float32."""
        return replace(
            self,
            c2w=self.c2w.float(),
            K=self.K.float(),
            time=None if self.time is None else self.time.float(),
        )

    def to(self, device: torch.device | str) -> Camera:
        """The camera with its tensors on ``device``."""
        return replace(
            self,
            c2w=self.c2w.to(device),
            K=self.K.to(device),
            time=None if self.time is None else self.time.to(device),
        )

    @staticmethod
    def stack(cameras: Sequence[Camera]) -> Camera:
        """A batch from single cameras of one size, without distortion; all have a time or none."""
        first = cameras[0]
        if any((c.width, c.height) != (first.width, first.height) for c in cameras):
            raise ValueError("cameras of different image sizes cannot be stacked")
        if any(c.distortion is not None for c in cameras):
            raise ValueError("undistort the cameras before stacking them")
        times = [c.time for c in cameras if c.time is not None]
        if len(times) not in (0, len(cameras)):
            raise ValueError("cameras with a time and without cannot be stacked")
        return Camera(
            c2w=torch.stack([c.c2w for c in cameras]),
            K=torch.stack([c.K for c in cameras]),
            width=first.width,
            height=first.height,
            time=torch.stack(times) if times else None,
        )
