"""Teachers: trained scenes that another representation learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.data.scene import Scene
from scene4d.errors import DataError, UsageError
from scene4d.exporters.formats import is_splats, read_splats
from scene4d.exporters.source import cloud_of, splats_of
from scene4d.representations.base import Representation
from scene4d.representations.splats.gaussians import GaussianSplats
from scene4d.training.options import TrainOptions


@dataclass(frozen=True, kw_only=True, eq=False)
class Teacher:
    """A representation, and what is known of the capture it was made from."""

    path: Path
    representation: Representation
    cameras: Sequence[Camera]
    """Of its training images, in its own scene coordinates; none for a splat file."""
    source_from_scene: Float[Tensor, "4 4"]
    options: TrainOptions | None = None
    """How a run's capture is read."""

    def in_frame_of(self, scene: Scene) -> Representation:
        """The teacher in ``scene``'s coordinates.

        Raises :class:`UsageError` where it would have to move and is not made of splats.
        """
        there = torch.linalg.inv(scene.source_from_scene.double())
        move = (there @ self.source_from_scene.double()).numpy()
        if np.allclose(move, np.eye(4), atol=1e-6):
            return self.representation
        splats = self.representation.as_splats()
        if not isinstance(splats, GaussianSplats):
            raise UsageError(
                "lies in other coordinates than the capture, and only splats can be moved",
                where=self.path,
            )
        moved = cloud_of(splats).transformed(move)
        return splats_of(moved, antialiased=splats.antialiased)


def load_teacher(path: Path) -> Teacher:
    """The run or splat file at ``path``. Raises :class:`DataError` when it is neither."""
    from scene4d.training.run import load_run

    if not path.exists():
        raise DataError("the teacher was not found", where=path)
    if is_splats(path):
        return Teacher(
            path=path,
            representation=splats_of(read_splats(path)),
            cameras=(),
            source_from_scene=torch.eye(4),
        )
    folder = path.parent if path.name == "config.toml" else path
    if not (folder / "config.toml").is_file():
        raise DataError("is neither a splat file nor a run folder", where=path)
    run = load_run(path)
    return Teacher(
        path=run.path,
        representation=run.representation,
        cameras=run.cameras.train,
        source_from_scene=run.cameras.source_from_scene,
        options=run.options,
    )
