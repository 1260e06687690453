"""A capture whose photographs are renders of a teacher: for scenes that come without photos."""

from __future__ import annotations

import torch
from torch import Tensor

from scene4d.cameras.around import sphere_around
from scene4d.cameras.camera import Camera
from scene4d.data.scene import Frame, Scene, View
from scene4d.errors import DataError
from scene4d.representations.base import Representation
from scene4d.training.opened import OpenedScene

NUM_CAMERAS = 120
IMAGE_SIZE = 400
VISIBLE_ALPHA = 0.3
"""Splats of higher opacity say where the content is."""
TEST_EVERY = 8


class RenderedViews:
    """Renders the teacher's pictures when they are asked for, and keeps them as bytes."""

    def __init__(self, scene: Scene, teacher: Representation) -> None:
        self.scene = scene
        self.teacher = teacher
        self._kept: dict[tuple[int, int], Tensor] = {}

    def camera(self, index: int, downscale: int = 1) -> Camera:
        """The camera of :meth:`view`."""
        return self.scene.frames[index].camera.downscaled(downscale)

    def view(self, index: int, downscale: int = 1) -> View:
        """The teacher's picture of frame ``index``, with its alpha."""
        camera = self.camera(index, downscale)
        rgba = self._kept.get((index, downscale))
        if rgba is None:
            rgba = self._kept[index, downscale] = self._rendered(camera)
        values = rgba.float() / 255.0
        return View(index=index, camera=camera, rgb=values[..., :3], alpha=values[..., 3])

    @torch.no_grad()
    def _rendered(self, camera: Camera) -> Tensor:
        render = self.teacher.render(camera)
        alpha = render.alpha.clamp(0, 1)[..., None]
        straight = (render.rgb / alpha.clamp_min(1e-6)).clamp(0, 1)
        return (torch.cat([straight, alpha], dim=-1) * 255.0).round().to(torch.uint8).cpu()


def rendered_capture(teacher: OpenedScene) -> tuple[Scene, RenderedViews]:
    """Frames at the teacher's own cameras, or else around its content.

    Around the content: :func:`sphere_around`. Every eighth is held out. Raises
    :class:`DataError` where neither cameras nor splats say where to look from.
    """
    cameras = list(teacher.cameras.train) or _cameras_around(teacher)
    indices = range(len(cameras))
    scene = Scene(
        root=teacher.path,
        dataparser="none",
        photographed=False,
        frames=[
            Frame(  # no such file: whoever looks for the picture itself is told so
                name=f"render-{i:03d}",
                camera=camera,
                image_path=teacher.path / f"render-{i:03d}",
            )
            for i, camera in enumerate(cameras)
        ],
        train_indices=[i for i in indices if i % TEST_EVERY],
        test_indices=[i for i in indices if i % TEST_EVERY == 0],
        split_rule=f"every {TEST_EVERY}th render of the teacher held out",
        background=(0.0, 0.0, 0.0),
        source_from_scene=teacher.source_from_scene,
    )
    return scene, RenderedViews(scene, teacher.representation)


def _cameras_around(teacher: OpenedScene) -> list[Camera]:
    """Cameras on all sides of the teacher's splats that show. Raises :class:`DataError`."""
    cloud = teacher.representation.splats()
    if cloud is None:
        raise DataError("has no cameras to look from", where=teacher.path)
    if not len(cloud):
        raise DataError("holds no splats to look at", where=teacher.path)
    visible = torch.from_numpy(cloud.logit_opacities).sigmoid() > VISIBLE_ALPHA
    shown = visible if bool(visible.any()) else torch.ones_like(visible)
    stds = torch.from_numpy(cloud.log_scales).exp()[shown].amax(dim=-1)
    return sphere_around(
        torch.from_numpy(cloud.means)[shown],
        count=NUM_CAMERAS,
        size=IMAGE_SIZE,
        least_radius=2 * float(stds.median()),
    )
