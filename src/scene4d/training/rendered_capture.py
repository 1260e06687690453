"""A capture whose photographs are renders of a teacher: for scenes that come without photos."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.data.scene import Frame, Scene, View
from scene4d.errors import DataError
from scene4d.representations.base import Representation
from scene4d.training.teachers import Teacher

NUM_CAMERAS = 120
IMAGE_SIZE = 400
FIELD_OF_VIEW = 50.0
"""Degrees, of cameras placed around a splat file's content."""
INSIDE_SHARE = 0.25
"""Share of the cameras that stand inside the content and look around."""
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


def rendered_capture(teacher: Teacher) -> tuple[Scene, RenderedViews]:
    """Frames at the teacher's own cameras, or else around its content.

    Around the content: three quarters on a sphere (evenly, at 1.2 and 2 times the distance at
    which the content fills the picture), a quarter inside, looking about. Every eighth is held
    out. Raises :class:`DataError` where neither cameras nor splats say where to look from.
    """
    cameras = list(teacher.cameras)
    if not cameras:
        splats = teacher.representation.as_splats()
        if splats is None:
            raise DataError("has no cameras to look from", where=teacher.path)
        state = splats.state_dict()
        cameras = cameras_around(state["gaussians.means"], state["gaussians.opacities"].sigmoid())
    indices = range(len(cameras))
    scene = Scene(
        root=teacher.path,
        dataparser="rendered",
        frames=[
            Frame(name=f"render-{i:03d}", camera=camera, image_path=teacher.path)
            for i, camera in enumerate(cameras)
        ],
        train_indices=[i for i in indices if i % TEST_EVERY],
        test_indices=[i for i in indices if i % TEST_EVERY == 0],
        split_rule=f"every {TEST_EVERY}th render of the teacher held out",
        background=(0.0, 0.0, 0.0),
        source_from_scene=teacher.source_from_scene,
    )
    return scene, RenderedViews(scene, teacher.representation)


def cameras_around(
    means: Float[Tensor, "n 3"], alphas: Float[Tensor, "n"], *, count: int = NUM_CAMERAS
) -> list[Camera]:
    """Cameras that see the content from all sides; the same ones every time."""
    solid = means[alphas > 0.3] if bool((alphas > 0.3).any()) else means
    centre = solid.median(dim=0).values
    distances = (solid - centre).norm(dim=-1).sort().values
    radius = max(float(distances[int(0.8 * (len(distances) - 1))]), 1e-6)
    fit = radius / math.sin(math.radians(FIELD_OF_VIEW / 2))
    generator = torch.Generator().manual_seed(0)
    cameras = []
    for i in range(count):
        z = 1 - 2 * (i + 0.5) / count
        turn = math.pi * (1 + 5**0.5) * i
        flat = math.sqrt(1 - z * z)
        direction = torch.tensor([flat * math.cos(turn), flat * math.sin(turn), z])
        if i % round(1 / INSIDE_SHARE) == 0:
            eye = centre + 0.5 * radius * (torch.rand(3, generator=generator) * 2 - 1)
            cameras.append(_looking(eye, eye + direction))
        else:
            distance = fit * (1.2 if i % 2 else 2.0)
            shift = 0.2 * radius * (torch.rand(3, generator=generator) * 2 - 1)
            cameras.append(_looking(centre + distance * direction, centre + shift))
    return cameras


def _looking(eye: Float[Tensor, "3"], at: Float[Tensor, "3"]) -> Camera:
    """A square camera; the vertical is the y axis, or x for a view along it."""
    back = torch.nn.functional.normalize(eye - at, dim=0)
    axis = torch.tensor([0.0, 1.0, 0.0] if abs(float(back[1])) < 0.95 else [1.0, 0.0, 0.0])
    right = torch.nn.functional.normalize(torch.linalg.cross(axis, back), dim=0)
    c2w = torch.eye(4)
    c2w[:3, :3] = torch.stack([right, torch.linalg.cross(back, right), back], dim=1)
    c2w[:3, 3] = eye
    focal = IMAGE_SIZE / 2 / math.tan(math.radians(FIELD_OF_VIEW / 2))
    half = IMAGE_SIZE / 2
    intrinsics = torch.tensor([[focal, 0.0, half], [0.0, focal, half], [0.0, 0.0, 1.0]])
    return Camera(c2w=c2w, K=intrinsics, width=IMAGE_SIZE, height=IMAGE_SIZE)
