"""What an exporter is given: a trained scene, or the splats of a file, and the way home."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.errors import UsageError
from scene4d.exporters.placing import cloud_offset
from scene4d.representations.base import Representation
from scene4d.representations.splats.gaussians import GaussianSplats
from scene4d.splat_cloud import SplatCloud, inverse_similarity, is_far, local_frame

_EXTENTS = 5.0
"""Of a capture around a content of size 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ExportSource:
    """A trained scene with its training cameras, or just splats from a file."""

    path: Path
    """Run folder or file, for messages."""
    representation: Representation | None = None
    cameras: Sequence[Camera] = ()
    """Of the training images, in scene coordinates."""
    rendered: bool = False
    """Trained on renders of a teacher: nobody photographed from these cameras."""
    splats: SplatCloud | None = None
    """Read from a file, in scene coordinates: see :func:`source_of_file`."""
    source_from_scene: Float[Tensor, "4 4"] = field(
        default_factory=lambda: torch.eye(4, dtype=torch.float64)
    )
    """The similarity back to the input's frame, float64, which every exporter applies."""

    def cloud(self) -> SplatCloud:
        """The splats in the input's frame. Raises :class:`UsageError` when there are none."""
        return self.scene_cloud().transformed(self.source_from_scene.double().numpy())

    def scene_cloud(self) -> SplatCloud:
        """The splats in scene coordinates, float32. Raises :class:`UsageError` when there are
        none."""
        if self.splats is not None:
            return self.splats
        splats = None if self.representation is None else self.representation.as_splats()
        if not isinstance(splats, GaussianSplats):
            kind = type(self.representation).__name__
            raise UsageError(
                f"holds {kind}, which is not made of Gaussian splats",
                where=self.path,
                fix="export it as a mesh, or train the method 'splat'",
            )
        return cloud_of(splats)


def source_of_file(path: Path, cloud: SplatCloud) -> ExportSource:
    """The splats of a file; those far from the origin are moved there, with the way back."""
    home = np.eye(4)
    if is_far(cloud.means, cloud.log_scales):
        home = cloud_offset(cloud)
        cloud = cloud.transformed(inverse_similarity(home))
    return ExportSource(path=path, splats=cloud, source_from_scene=torch.from_numpy(home))


def cloud_of(splats: GaussianSplats) -> SplatCloud:
    """The trained Gaussians in scene coordinates, with the bands of colour that are in use."""
    used = (splats.active_sh_degree + 1) ** 2 - 1
    tensors = splats.gaussians
    sh = torch.cat([tensors["sh0"], tensors["shN"][:, :used]], dim=1)

    def array(tensor: Tensor) -> np.ndarray:
        return tensor.detach().cpu().numpy().astype(np.float32)

    return SplatCloud(
        means=array(tensors["means"]),
        quats=array(tensors["quats"]),
        log_scales=array(tensors["scales"]),
        logit_opacities=array(tensors["opacities"]),
        sh=array(sh),
        antialiased=splats.antialiased,
    )


def splats_of(cloud: SplatCloud) -> GaussianSplats:
    """Gaussians that render, from plain arrays; the inverse of :func:`cloud_of`.

    In float32: ``cloud`` is to lie near the origin. The near plane is a share of the content.
    """
    return GaussianSplats(
        {
            "means": torch.from_numpy(cloud.means.astype(np.float32)),
            "quats": torch.from_numpy(cloud.quats.copy()),
            "scales": torch.from_numpy(cloud.log_scales.copy()),
            "opacities": torch.from_numpy(cloud.logit_opacities.copy()),
            "sh0": torch.from_numpy(cloud.sh[:, :1].copy()),
            "shN": torch.from_numpy(cloud.sh[:, 1:].copy()),
        },
        antialiased=cloud.antialiased,
        extent=_EXTENTS * float(local_frame(cloud)[0, 0]),
    )
