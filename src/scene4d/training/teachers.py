"""Teachers: trained scenes that another representation learns from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.data.frame import inverted, scale_of
from scene4d.data.scene import Scene, ViewSource
from scene4d.errors import DataError, UsageError
from scene4d.evaluation.protocol import composited
from scene4d.evaluation.psnr import psnr
from scene4d.exporters.formats import is_splats, read_splats
from scene4d.exporters.source import cloud_of, splats_of
from scene4d.representations.base import Representation
from scene4d.representations.splats.gaussians import GaussianSplats
from scene4d.splat_cloud import inverse_similarity, local_frame
from scene4d.training.options import TrainOptions

_VIEWS_TRIED = 16
_TRIED_WIDTH = 96
_SEEN_ALPHA = 0.05
_SEEN_SHARE = 0.005
"""A teacher that covers (with more than that alpha) less of every picture lies elsewhere: from far
away it is still a dot."""
_UNLIKE_DB = 10.0
"""Photographs against a grey of their own mean give 12 to 20 dB."""
_log = logging.getLogger("scene4d")


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
    names: Sequence[str] = ()
    """Of its training images, in the order of ``cameras``."""

    def in_frame_of(self, scene: Scene) -> Representation:
        """The teacher in ``scene``'s coordinates.

        Raises :class:`UsageError` where it would have to move and is not made of splats.
        """
        there = inverted(scene.source_from_scene)
        move = (there @ self.source_from_scene.double()).numpy()
        if np.allclose(move, np.eye(4), atol=1e-6):
            return self.representation
        splats = self.representation.as_splats()
        if not isinstance(splats, GaussianSplats):
            raise UsageError(
                "lies in other coordinates than the capture, and only splats can be moved",
                where=self.path,
            )
        return splats_of(cloud_of(splats).transformed(move))


def load_teacher(path: Path, *, drop_invalid: bool = False) -> Teacher:
    """The run or splat file at ``path``. Raises :class:`DataError` when it is neither, or holds no
    splats that can be drawn; ``drop_invalid``: a file's splats without those that cannot.

    A file's splats come in a frame around their content, whatever their unit and place."""
    from scene4d.training.run import load_run, newest_run

    if not path.exists():
        raise DataError("the teacher was not found", where=path)
    if is_splats(path):
        cloud = read_splats(path, drop_invalid=drop_invalid)
        home = local_frame(cloud)
        return Teacher(
            path=path,
            representation=splats_of(cloud.transformed(inverse_similarity(home))),
            cameras=(),
            source_from_scene=torch.from_numpy(home),
        )
    folder = path.parent if path.name == "config.toml" else path
    if not (folder / "config.toml").is_file() and newest_run(folder) is None:
        raise DataError("is neither a splat file nor a run folder", where=path)
    run = load_run(path)
    return Teacher(
        path=run.path,
        representation=run.representation,
        cameras=run.cameras.train,
        source_from_scene=run.cameras.source_from_scene,
        options=run.options,
        names=run.cameras.train_names,
    )


@torch.no_grad()
def check_teaches(
    teacher: Teacher, placed: Representation, scene: Scene, images: ViewSource
) -> None:
    """Raises :class:`DataError` where no training camera sees anything of the teacher.

    ``placed``: the teacher in the scene's frame. Warns where its pictures are unlike the
    photographs, and where it was trained on pictures that the scene holds out.
    """
    every = -(-len(scene.train_indices) // _VIEWS_TRIED)
    background = torch.tensor(scene.background or (0.0, 0.0, 0.0))
    covered, likeness = [], []
    for index in scene.train_indices[::every]:
        factor = max(1, images.camera(index).width // _TRIED_WIDTH)
        view = images.view(index, factor)
        render = placed.render(view.camera, background=background)
        covered.append(float((render.alpha > _SEEN_ALPHA).float().mean()))
        photograph = composited(view, background)
        likeness.append(float(psnr(render.rgb.clamp(0, 1), photograph, mask=view.mask)))
    if max(covered) < _SEEN_SHARE:
        raise DataError(
            "none of the training cameras sees anything of this teacher: it is of another scene, "
            "or lies in another frame",
            where=teacher.path,
            fix="give a teacher that was trained on this capture, or leave --data out",
        )
    mean = sum(likeness) / len(likeness)
    if mean < _UNLIKE_DB:
        _log.warning(
            "%s: its pictures are unlike the photographs (%.1f dB): is it of another scene?",
            teacher.path, mean,
        )  # fmt: skip
    leaked = held_out_but_taught(teacher, scene)
    if leaked:
        _log.warning(
            "%s: was trained on %d pictures that are held out here (%s ...): figures on them say "
            "nothing; train both with the same --test-every",
            teacher.path, len(leaked), leaked[0],
        )  # fmt: skip


def held_out_but_taught(teacher: Teacher, scene: Scene) -> list[str]:
    """Names of the scene's test images that the teacher was trained on.

    The same image: the same name, and the same place in the input's frame.
    """
    place = {
        name: (teacher.source_from_scene.double() @ camera.c2w.double())[:3, 3]
        for name, camera in zip(teacher.names, teacher.cameras, strict=True)
    }
    near = 1e-3 * scene.extent * scale_of(scene.source_from_scene)
    found = []
    for index in scene.test_indices:
        frame = scene.frames[index]
        here = (scene.source_from_scene.double() @ frame.camera.c2w.double())[:3, 3]
        if frame.name in place and float((place[frame.name] - here).norm()) < near:
            found.append(frame.name)
    return found
