"""Which frames one camera took, in the order of time: what can be followed from one to the next."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import PurePosixPath

from scene4d.data.scene import Frame, Scene

_NUMBER = re.compile(r"\d+")
_FEW = 0.25
"""Share of pictures at a time of which their camera has another, which a capture may have where
nothing tells its cameras apart: of two cameras that run together it is a half."""
_MAX_NUMBERS = 6
"""Numbers of a name that are tried as the one that counts frames, from the last."""


def trajectories(scene: Scene, indices: Iterable[int] | None = None) -> list[list[int]]:
    """Indices of ``scene.frames`` by camera, each list in the order of time; frames without a time
    are left out.

    ``indices``: of the frames to look at; None: all. Cameras are told apart by what the capture
    says (``Frame.camera_id``), else by folders and names (``cam01_0007.png``, ``0007_left.png``,
    ``cam01/0007.png``), else by lens and, for cameras that stand still, place: whichever first
    leaves no camera two pictures of one time. Pictures of another size begin another list.
    """
    wanted = range(len(scene.frames)) if indices is None else sorted(set(indices))
    timed = [i for i in wanted if scene.frames[i].camera.time is not None]
    if not timed:
        return []
    groups = _by_camera(scene, timed)
    return sorted(sorted(group, key=lambda i: (time_of(scene, i), i)) for group in groups)


def time_of(scene: Scene, index: int) -> float:
    """When frame ``index`` was taken, seconds; it has a time."""
    time = scene.frames[index].camera.time
    assert time is not None
    return float(time)


def _by_camera(scene: Scene, timed: Sequence[int]) -> list[list[int]]:
    frames = scene.frames
    if all(frames[i].camera_id is not None for i in timed):
        said = _grouped(scene, timed, lambda frame: frame.camera_id)
        if len(said) < len(timed):  # a number of its own for each frame tells no cameras apart
            return said
    named = [_grouped(scene, timed, _name_without(k)) for k in range(_MAX_NUMBERS)]
    named.sort(key=len)
    others = [_grouped(scene, timed, key) for key in (_folder, _folder_and_text, _lens, _place)]
    tried = [groups for groups in (*named, *others) if 2 * len(groups) <= len(timed)]
    for allowed in (0.0, _FEW):
        for groups in tried:
            if _repeated(scene, groups) <= allowed * len(timed):
                return groups
    return [[i] for i in timed]


def _grouped(
    scene: Scene, timed: Sequence[int], key: Callable[[Frame], Hashable]
) -> list[list[int]]:
    found: dict[Hashable, list[int]] = defaultdict(list)
    for index in timed:
        frame = scene.frames[index]
        found[key(frame), frame.camera.width, frame.camera.height].append(index)
    return list(found.values())


def _repeated(scene: Scene, groups: Sequence[Sequence[int]]) -> int:
    """Pictures at a time of which their camera has another one."""
    return sum(len(group) - len({time_of(scene, i) for i in group}) for group in groups)


def _name_without(k: int) -> Callable[[Frame], Hashable]:
    """The folder and the name without its number ``k``, counted from the last."""

    def key(frame: Frame) -> Hashable:
        path = PurePosixPath(frame.name)
        numbers = list(_NUMBER.finditer(path.stem))
        if k >= len(numbers):
            return (path.parent, path.stem)
        hit = numbers[-1 - k]
        return (path.parent, path.stem[: hit.start()], path.stem[hit.end() :])

    return key


def _folder(frame: Frame) -> Hashable:
    return PurePosixPath(frame.name).parent


def _folder_and_text(frame: Frame) -> Hashable:
    path = PurePosixPath(frame.name)
    return (path.parent, _NUMBER.sub("", path.stem))


def _lens(frame: Frame) -> Hashable:
    return (tuple(frame.camera.K.flatten().tolist()), frame.camera.distortion)


def _place(frame: Frame) -> Hashable:
    return (_lens(frame), tuple(frame.camera.c2w.flatten().tolist()))
