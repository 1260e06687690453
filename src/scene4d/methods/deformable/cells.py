"""A capture as a grid of frames, cameras by moments, with holes: which cells tell what."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from scene4d.data.scene import Scene
from scene4d.data.trajectories import time_of, trajectories

_FEWEST_VIEWS = 3
"""Of one moment, that tell the shape of what is there then."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Training frames of a grid, as indices into ``Scene.frames``."""

    shape: tuple[int, ...]
    """Of moments that three cameras show or more: columns, such as a freeze-time video."""
    motion: tuple[int, ...]
    """Of cameras that show several moments: rows, such as a video; and all that are of no
    column."""

    @property
    def own(self) -> tuple[int, ...]:
        """Those that may disagree with the others in shape: of columns, but not of rows, which
        would take motion for disagreement; of a grid without such, all of the columns."""
        return tuple(i for i in self.shape if i not in set(self.motion)) or self.shape


def cells_of(scene: Scene) -> Cells:
    """The training frames of ``scene`` that have a time, by what they tell."""
    paths = trajectories(scene, scene.train_indices)
    camera = {index: number for number, path in enumerate(paths) for index in path}
    moments: dict[float, list[int]] = defaultdict(list)
    for index in camera:
        moments[time_of(scene, index)].append(index)
    columns = [m for m in moments.values() if len({camera[i] for i in m}) >= _FEWEST_VIEWS]
    shape = sorted(i for column in columns for i in column)
    rows = {i for path in paths if len({time_of(scene, i) for i in path}) > 1 for i in path}
    motion = sorted(rows | (set(camera) - set(shape)))
    return Cells(shape=tuple(shape), motion=tuple(motion))
