"""What a bundle loses against the scene that it was made from, measured at a few views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scene4d.cameras.camera import Camera
    from scene4d.representations.base import Representation
    from scene4d.training.opened import OpenedScene

VIEWS = 8
"""At most so many pictures are rendered of each; they say the loss to some 0.1 dB."""
_SIZE = 256
"""Pixels of views around a file that comes without cameras."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What was measured."""

    views: int
    psnr: float
    """Of the bundle, dB."""
    psnr_before: float | None
    """Of the scene itself; both against photographs that were held out (or trained on). None: the
    bundle was compared with the scene's own pictures."""

    def line(self) -> str:
        """For people."""
        if self.psnr_before is None:
            return (
                f"loses by its coarser values: its pictures are at {self.psnr:.1f} dB to the"
                f" scene's own ({self.views} views); --target-mb chooses another size"
            )
        return (
            f"PSNR {self.psnr:.2f} dB on {self.views} held-out photographs, the run's own"
            f" {self.psnr_before:.2f} dB: {self.psnr_before - self.psnr:.2f} dB lost; --target-mb"
            " chooses another size"
        )


def loss_of(source: OpenedScene, bundle: Path) -> Loss | None:
    """The loss in PSNR to the photographs that were held out (or trained on) where they are at
    hand, otherwise the PSNR of the bundle's pictures to the scene's own; None where there is
    nothing to look at."""
    from scene4d.training.open_scene import open_scene

    before, after = source.representation, open_scene(bundle).representation
    compared = _photographs(source, before, after)
    return compared if compared is not None else own_loss(source, after)


def own_loss(source: OpenedScene, after: Representation) -> Loss | None:
    """The PSNR of the pictures of ``after`` to the scene's own; None where there is nothing to look
    at."""
    from scene4d.exporters.shown import at_times

    before = source.representation
    cameras = _some(source.cameras.train) or _around(source)
    if not cameras:
        return None
    cameras = at_times(cameras, before)
    return Loss(views=len(cameras), psnr=_mean_psnr(before, after, cameras), psnr_before=None)


def _photographs(source: OpenedScene, before: Representation, after: Representation) -> Loss | None:
    """The loss against photographs; None where the run has none that are still there."""
    from scene4d.errors import Scene4dError
    from scene4d.training.evaluate import mean_psnr
    from scene4d.training.run import LoadedRun
    from scene4d.training.train import load_capture

    if not isinstance(source, LoadedRun) or not source.cameras.photographed:
        return None
    try:
        scene, images = load_capture(
            source.options, split="test", source_from_scene=source.source_from_scene
        )
    except Scene4dError:  # moved, or of another machine: its own pictures say it as well
        return None
    if not scene.test_indices:
        return None
    scene = replace(scene, test_indices=_some(scene.test_indices))
    first, second = (mean_psnr(r.cpu(), scene, images) for r in (before, after))
    return Loss(views=len(scene.test_indices), psnr=second, psnr_before=first)


def _some(items: Sequence) -> list:
    """At most :data:`VIEWS` of them, evenly."""
    step = max(1, -(-len(items) // VIEWS))
    return list(items[::step])


def _around(source: OpenedScene) -> list[Camera]:
    """Views around a file's splats."""
    from scene4d.exporters.compare import cameras_around

    cloud = source.representation.splats()
    return (
        cameras_around(cloud, count=VIEWS, size=_SIZE) if cloud is not None and len(cloud) else []
    )


def _mean_psnr(before: Representation, after: Representation, cameras: Sequence[Camera]) -> float:
    import torch

    from scene4d.evaluation.psnr import psnr

    values = []
    with torch.no_grad():
        for camera in cameras:
            pictures = [r.cpu().render(camera.to("cpu")).rgb.clamp(0, 1) for r in (before, after)]
            values.append(float(psnr(pictures[1], pictures[0])))
    return sum(values) / len(values)
