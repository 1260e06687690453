"""What a bundle loses against the scene that it was made from, measured at a few views."""

from __future__ import annotations

from collections.abc import Sequence
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


def loss_line(source: OpenedScene, bundle: Path) -> str:
    """A line about the loss: in PSNR to the photographs that were held out (or trained on) where
    they are at hand, otherwise the PSNR of the bundle's pictures to the scene's own."""
    from scene4d.training.open_scene import open_scene

    before, after = source.representation, open_scene(bundle).representation
    compared = _photographs(source, before, after)
    if compared is not None:
        return compared
    cameras = _some(source.cameras.train) or _around(source)
    if not cameras:
        return ""
    cameras = _at_times(cameras, before)
    db = _mean_psnr(before, after, cameras)
    return (
        f"loses by its coarser values: its pictures are at {db:.1f} dB to the scene's own"
        f" ({len(cameras)} views); --target-mb chooses another size"
    )


def _photographs(source: OpenedScene, before: Representation, after: Representation) -> str | None:
    """The loss against photographs; None where the run has none that are still there."""
    from dataclasses import replace

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
    return (
        f"PSNR {second:.2f} dB on {len(scene.test_indices)} held-out photographs, the run's own"
        f" {first:.2f} dB: {first - second:.2f} dB lost; --target-mb chooses another size"
    )


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


def _at_times(cameras: list[Camera], scene: Representation) -> list[Camera]:
    """``cameras`` of a scene that moves, those without a time spread over its motion."""
    from dataclasses import replace

    import torch

    if scene.times is None:
        return cameras
    times = torch.linspace(*scene.times, len(cameras))
    return [
        camera if camera.time is not None else replace(camera, time=time)
        for camera, time in zip(cameras, times, strict=True)
    ]


def _mean_psnr(before: Representation, after: Representation, cameras: Sequence[Camera]) -> float:
    import torch

    from scene4d.evaluation.psnr import psnr

    values = []
    with torch.no_grad():
        for camera in cameras:
            pictures = [r.cpu().render(camera.to("cpu")).rgb.clamp(0, 1) for r in (before, after)]
            values.append(float(psnr(pictures[1], pictures[0])))
    return sum(values) / len(values)
