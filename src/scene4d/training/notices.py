"""What a training says of its capture before it begins: what is poor in it, what is ignored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from scene4d.data.camera_rate import angular_rate
from scene4d.data.scene import Scene
from scene4d.data.times import time_notes
from scene4d.data.trajectories import trajectories
from scene4d.errors import DataError
from scene4d.files import read_json
from scene4d.representations.method import Method, PhotometricOptions

FEW = 9
"""Training photographs, up to which they are told to be few (docs/captures.md)."""


def notices(scene: Scene, method: Method) -> list[str]:
    """One line each."""
    said = [_diagnosed(scene.root), _times(scene, method), _few(scene), _poses(scene, method)]
    return [line for lines in (*said, _weights(scene, method)) for line in lines]


def _weights(scene: Scene, method: Method) -> list[str]:
    weighed = any(scene.frames[i].weight != 1 for i in scene.train_indices)
    asked = any(isinstance(o, PhotometricOptions) and o.weight != 0 for o in method.terms())
    if not weighed or asked:
        return []
    return [f"the capture's pictures have weights, which the method {method.name!r} does not read"]


def _diagnosed(root: Path) -> list[str]:
    """What process-data said of the capture, where it was not good."""
    folder = root if root.is_dir() else root.parent
    path = folder / "diagnosis.json"
    try:
        found = read_json(path) if path.is_file() else None
    except DataError:
        return []
    verdict = found.get("verdict") if isinstance(found, dict) else None
    if not isinstance(found, dict) or verdict not in ("poor", "failed"):
        return []
    advice = found.get("advice")
    first = advice[0] if isinstance(advice, list) and advice else None
    more = f": {first}" if isinstance(first, str) else ""
    return [f"process-data found this capture {verdict}, so expect a poor scene{more} ({path})"]


def _times(scene: Scene, method: Method) -> list[str]:
    """Raises :class:`DataError` where a method of time has no times to learn from."""
    times = {float(f.camera.time) for f in scene.frames if f.camera.time is not None}
    if not method.uses_time:
        return [] if len(times) < 2 else [_ignored(times, method)]
    timed = {i for i, frame in enumerate(scene.frames) if frame.camera.time is not None}
    trained = {float(scene.frames[i].camera.time or 0) for i in scene.train_indices if i in timed}
    if len(trained) < 2:
        one = "are all of one time" if trained else "have no time"
        raise DataError(
            f"the training pictures {one}, and the method {method.name!r} learns how things move",
            where=scene.root,
            fix="give each frame its 'time' in transforms.json, or train a static method (splat)",
        )
    unit = scene.metadata.get("times", "seconds")
    paths = trajectories(scene, scene.train_indices)
    return [
        f"{len(trained)} times from {min(trained):.4g} to {max(trained):.4g} s ({unit})",
        *time_notes(scene, paths),
        *_ways(scene, paths),
    ]


def _ways(scene: Scene, paths: Sequence[Sequence[int]]) -> list[str]:
    """How far the cameras go around what they look at, and whether that can tell depth at all."""
    rate = angular_rate(scene)
    if rate is None:
        return []
    positions = torch.stack([camera.position for camera in scene.train_cameras()]).double()
    spread = float((positions - positions[0]).norm(dim=-1).max())
    # Poses are written with six digits or more: what is less than that of their size is no motion
    if spread <= 1e-6 * max(1.0, float(positions.norm(dim=-1).max())):
        return [
            "the camera never moves, so nothing tells how far away things are: expect a relief, "
            "which looks right from near that camera alone; depth maps, or a second camera, help"
        ]
    cameras = "the camera turns" if len(paths) == 1 else f"{len(paths)} cameras turn"
    return [
        f"omega {rate:.3g} degrees a second: as fast {cameras} around what is looked at (the "
        "faster, the more is seen of what moves)"
    ]


def _few(scene: Scene) -> list[str]:
    """Of scenes that stand still: what a picture of a moment shows is another matter."""
    count = len(scene.train_indices)
    if count > FEW or any(f.camera.time is not None for f in scene.frames):
        return []
    return [
        f"{count} training photographs are few, so what is between them is mostly guessed: more of "
        "them help most, and 'scene4d render RUN --fixer built-in' makes some of it sharper"
    ]


def _ignored(times: set[float], method: Method) -> str:
    return (
        f"the capture's pictures are of {len(times)} times, and the method {method.name!r} is "
        "static: time is ignored, so what moves gets blurred"
    )


def _poses(scene: Scene, method: Method) -> list[str]:
    if not method.refine_poses or not scene.test_indices:
        return []
    return [
        "--refine-poses moves the training cameras alone: the held-out pictures are judged at the "
        "poses that the capture gives, so the scores are too low where these are wrong"
    ]
