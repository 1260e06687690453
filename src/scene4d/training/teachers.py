"""Teachers: trained scenes that another representation learns from."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from scene4d.data.frame import scale_of
from scene4d.data.scene import Scene, ViewSource
from scene4d.errors import DataError
from scene4d.evaluation.protocol import composited
from scene4d.evaluation.psnr import psnr
from scene4d.formats.splat_cloud import inverse_similarity, local_frame
from scene4d.representations.base import Representation
from scene4d.representations.gaussians import GaussianSplats
from scene4d.training.open_scene import open_scene
from scene4d.training.opened import OpenedScene, SceneCameras
from scene4d.training.run import LoadedRun

_VIEWS_TRIED = 16
_TRIED_WIDTH = 96
_SEEN_ALPHA = 0.05
_SEEN_SHARE = 0.005
"""A teacher that covers (with more than that alpha) less of every picture lies elsewhere: from far
away it is still a dot."""
_UNLIKE_DB = 10.0
"""Photographs against a grey of their own mean give 12 to 20 dB."""
_log = logging.getLogger("scene4d")


def load_teacher(path: Path, *, drop_invalid: bool = False) -> OpenedScene:
    """The run, splat file or bundle at ``path``. Raises :class:`DataError` when it is none of them,
    or holds no splats that can be drawn; ``drop_invalid``: a file's without those that cannot.

    Splats come in a frame around their content, whatever their file's unit and place: so there are
    no cameras with them. A field stays where its cameras are.
    """
    if not path.exists():
        raise DataError("the teacher was not found", where=path)
    opened = open_scene(path, drop_invalid=drop_invalid)
    cloud = opened.representation.splats()
    if isinstance(opened, LoadedRun) or cloud is None:
        return opened
    home = local_frame(cloud)
    back = inverse_similarity(home)
    moves = opened.representation.times is not None
    return OpenedScene(
        path=path,
        representation=opened.representation.moved(back)
        if moves
        else GaussianSplats.of(cloud.transformed(back)),
        cameras=SceneCameras(
            source_from_scene=opened.source_from_scene.double() @ torch.from_numpy(home)
        ),
    )


@torch.no_grad()
def check_teaches(
    teacher: OpenedScene, placed: Representation, scene: Scene, images: ViewSource
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


def held_out_but_taught(teacher: OpenedScene, scene: Scene) -> list[str]:
    """Names of the scene's test images that the teacher was trained on.

    The same image: the same name, and the same place in the input's frame.
    """
    place = {
        name: (teacher.source_from_scene.double() @ camera.c2w.double())[:3, 3]
        for name, camera in zip(teacher.cameras.train_names, teacher.cameras.train, strict=True)
    }
    near = 1e-3 * scene.extent * scale_of(scene.source_from_scene)
    found = []
    for index in scene.test_indices:
        frame = scene.frames[index]
        here = (scene.source_from_scene.double() @ frame.camera.c2w.double())[:3, 3]
        if frame.name in place and float((place[frame.name] - here).norm()) < near:
            found.append(frame.name)
    return found
