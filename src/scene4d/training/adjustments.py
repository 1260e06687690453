"""What training may correct in the capture: camera poses and exposure, image by image."""

from __future__ import annotations

from collections.abc import Collection

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from scene4d.cameras.camera import Camera
from scene4d.cameras.poses import se3_exp
from scene4d.representations.base import ParameterGroup
from scene4d.representations.method import Method


class CameraAdjustments(nn.Module):
    """Per training image: a small rigid motion of the camera, and an affine map of its colours.

    Both start at the identity. Held-out images have none, so they are judged at the given pose.
    """

    def __init__(
        self,
        num_frames: int,
        method: Method,
        *,
        extent: float,
        certain: Collection[int] = (),
    ) -> None:
        """``extent``: scene units in one unit of translation; ``certain``: images of which nothing
        is corrected."""
        super().__init__()
        self.method = method
        self.extent = extent
        self.pose = nn.Parameter(torch.zeros(num_frames, 6)) if method.refine_poses else None
        identity = torch.eye(3, 4).repeat(num_frames, 1, 1)
        self.exposure = nn.Parameter(identity) if method.fit_exposure else None
        corrected = [float(i not in certain) for i in range(num_frames)] if certain else None
        self.corrected = None if corrected is None else torch.tensor(corrected)
        """1 of images that are corrected, else 0; None: all are."""

    def refined(self, camera: Camera, index: int | Int[Tensor, " n"]) -> Camera:
        """The camera moved by its learned rigid motion (rotation, translation; camera axes); or a
        batch, each by that of its picture."""
        if self.pose is None:
            return camera
        rotation, translation = self._corrected(self.pose[index], index).split(3, dim=-1)
        tangent = torch.cat([rotation, translation * self.extent], dim=-1)
        return camera.with_pose(camera.c2w @ se3_exp(tangent))

    def exposed(
        self, rgb: Float[Tensor, "*n h w 3"], index: int | Int[Tensor, " n"]
    ) -> Float[Tensor, "*n h w 3"]:
        """The render as this photograph's exposure and white balance would show it; or a batch,
        each as its own photograph's."""
        if self.exposure is None:
            return rgb
        affine = self.exposure[index]
        if self.corrected is not None:
            same = torch.eye(3, 4, device=rgb.device)
            affine = same + self._corrected(affine - same, index)
        if affine.ndim == 2:
            return rgb @ affine[:, :3].T + affine[:, 3]
        return rgb @ affine[:, None, :, :3].mT + affine[:, None, None, :, 3]

    def _corrected(self, rows: Tensor, index: int | Int[Tensor, " n"]) -> Tensor:
        """``rows``, those of images; 0 of the ones that are certain."""
        if self.corrected is None:
            return rows
        counts = self.corrected.to(rows.device)[index]
        return rows * counts.reshape(counts.shape + (1,) * (rows.ndim - counts.ndim))

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups that are trained; none by default."""
        groups = []
        if self.pose is not None:
            rate = self.method.refine_poses_lr
            groups.append(ParameterGroup(name="poses", parameters=[self.pose], learning_rate=rate))
        if self.exposure is not None:
            rate = self.method.fit_exposure_lr
            groups.append(
                ParameterGroup(name="exposure", parameters=[self.exposure], learning_rate=rate)
            )
        return groups
