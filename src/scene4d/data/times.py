"""From what a capture calls time to seconds.

Captures state shares of the whole (0..1: D-NeRF, most ``time`` of nerfstudio), numbers of frames,
seconds, or stamps of a clock (seconds, milliseconds, micro- or nanoseconds since 1970). The unit
is what the capture says (``time_unit``), else what fits ``duration_s`` or ``fps``, else what the
numbers look like; ``Scene.metadata["times"]`` keeps in words
what was taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch

from scene4d.data.scene import Scene, TimeHints
from scene4d.data.trajectories import trajectories
from scene4d.errors import DataError

ASSUMED_FPS = 30.0
"""Pictures a second, of captures that do not say."""
SECONDS_IN = {
    "seconds": 1.0, "second": 1.0, "sec": 1.0, "s": 1.0,
    "milliseconds": 1e-3, "ms": 1e-3,
    "microseconds": 1e-6, "us": 1e-6,
    "nanoseconds": 1e-9, "ns": 1e-9,
}  # fmt: skip
_FRAMES = ("frames", "frame", "frame_number", "index")
_SHARES = ("normalized", "normalised", "share", "0..1", "unit")
_CLOCKS = ((1e17, "ns"), (1e14, "us"), (1e11, "ms"), (1e8, "s"))
"""From what size on times are a clock's, and its unit: the year 1973 in each."""
_FAR = 1e3
"""Seconds from which on times are counted from the first: float32 knows 0.06 ms there."""
_NEAR = 0.1
"""How near the unit that ``fps`` tells has to be, as a share."""


def in_seconds(scene: Scene) -> Scene:
    """``scene`` with its cameras' times in seconds; ``metadata["times"]`` says of which unit they
    were taken to be. Raises :class:`DataError` for a unit that is unknown."""
    given = [frame.camera.time for frame in scene.frames]
    if not given or any(time is None for time in given):
        return scene
    raw = np.array([float(time) for time in given if time is not None])
    ways = [np.diff(raw[path]) for path in trajectories(scene)]
    steps = [float(np.median(way[way > 0])) for way in ways if (way > 0).any()]
    if not steps and np.ptp(raw) > 0:  # no camera has two pictures: what all have together
        steps = [float(np.median(np.diff(np.unique(raw))))]
    hints = scene.time_hints or TimeHints()
    seconds, words = _converted(raw, min(steps, default=0.0), hints, scene.root)
    frames = [
        replace(frame, camera=replace(frame.camera, time=torch.tensor(time, dtype=torch.float64)))
        for frame, time in zip(scene.frames, seconds.tolist(), strict=True)
    ]
    return replace(scene, frames=frames, metadata={**scene.metadata, "times": words})


def _converted(
    raw: np.ndarray, step: float, hints: TimeHints, where: object
) -> tuple[np.ndarray, str]:
    """[num_frames] seconds, and in words what ``raw`` was taken to be; ``step``: between pictures
    of one camera, 0 where none has two times."""
    unit, words = _unit(raw, step, hints, where)
    if isinstance(unit, float):
        if float(np.abs(raw).max()) * unit <= _FAR:
            return raw * unit, words
        return (raw - raw.min()) * unit, f"{words}, counted from the first picture"
    if unit == "frames":
        return raw / (hints.fps or ASSUMED_FPS), f"{words}, {_rate(hints)}"
    duration = hints.duration_s
    if duration is None:
        duration = 1 / ((hints.fps or ASSUMED_FPS) * step) if step > 0 else 1.0
        words += f", {_rate(hints)}"
    return raw * duration, f"{words}: 1 is {duration:.4g} s"


def _unit(raw: np.ndarray, step: float, hints: TimeHints, where: object) -> tuple[float | str, str]:
    """Seconds in one of the unit, or ``frames`` or ``shares``; and words."""
    if hints.unit is not None:
        return _stated(hints.unit, where)
    for least, unit in _CLOCKS:
        if float(np.abs(raw).max()) >= least:
            return SECONDS_IN[unit], f"a clock's stamps ({unit})"
    if step == 0 or _fits(float(np.ptp(raw)), hints.duration_s) or _fits(step, _period(hints)):
        return 1.0, "seconds"
    if _fits(step * 1e-3, _period(hints)):
        return 1e-3, "milliseconds"
    if raw.min() >= -1.0 and raw.max() <= 1.0:
        return "shares", "shares of the whole (0 to 1)"
    if bool((raw == np.round(raw)).all()):
        return "frames", "numbers of frames"
    return 1.0, "seconds"


def _stated(unit: str, where: object) -> tuple[float | str, str]:
    name = unit.strip().lower()
    if name in SECONDS_IN:
        return SECONDS_IN[name], name
    if name in _FRAMES:
        return "frames", "numbers of frames"
    if name in _SHARES:
        return "shares", "shares of the whole (0 to 1)"
    raise DataError(
        f"time_unit {unit!r} is not known",
        where=where,
        fix="give seconds, milliseconds, microseconds, nanoseconds, frames or normalized",
    )


def _period(hints: TimeHints) -> float | None:
    return None if hints.fps is None else 1 / hints.fps


def _fits(value: float, wanted: float | None) -> bool:
    return wanted is not None and abs(value - wanted) <= _NEAR * wanted


def _rate(hints: TimeHints) -> str:
    if hints.fps is not None:
        return f"{hints.fps:g} pictures a second"
    return f"{ASSUMED_FPS:g} pictures a second assumed ('fps' or 'duration_s' would say)"


def time_notes(scene: Scene, paths: Sequence[Sequence[int]]) -> list[str]:
    """What is poor in the times of a capture that a method of time is to be trained on, one line
    each; ``paths``: of :func:`scene4d.data.trajectories.trajectories`."""
    notes: list[str] = []
    times = [float(f.camera.time) for f in scene.frames if f.camera.time is not None]
    if len(times) < len(scene.frames):
        return notes
    back = [path for path in paths if list(path) != sorted(path)]
    if back:
        notes.append(
            "times do not increase in the order of the pictures' names: the order of time is used"
        )
    for path in paths:
        twice = len(path) - len({times[i] for i in path})
        if twice:
            notes.append(
                f"{twice} pictures of one camera have the time of another of its pictures (first "
                f"camera's picture: {scene.frames[path[0]].name})"
            )
    notes += _disjoint(scene, paths, times)
    return notes + _outside(scene, times)


def _disjoint(scene: Scene, paths: Sequence[Sequence[int]], times: Sequence[float]) -> list[str]:
    """Cameras that never ran together."""
    spans = sorted((times[p[0]], times[p[-1]], scene.frames[p[0]].name) for p in paths if p)
    for (a, b, first), (c, d, second) in pairwise(spans):
        if c > b and b > a and d > c:
            return [
                f"two cameras have no time in common: {a:.3g} to {b:.3g} s (from {first}) and "
                f"{c:.3g} to {d:.3g} s (from {second}); if they ran together, count the time of "
                "each from a moment that both show"
            ]
    return []


def _outside(scene: Scene, times: Sequence[float]) -> list[str]:
    train = [times[i] for i in scene.train_indices]
    low, high = min(train), max(train)
    slack = 1e-6 + 0.01 * (high - low)
    beyond = [i for i in scene.test_indices if not low - slack <= times[i] <= high + slack]
    if not beyond:
        return []
    return [
        f"{len(beyond)} test pictures are of times before or after all training pictures "
        f"({low:.3g} to {high:.3g} s), where nothing tells how things move"
    ]
