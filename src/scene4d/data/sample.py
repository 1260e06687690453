"""The sample scenes that ship with the package."""

from __future__ import annotations

from pathlib import Path

from scene4d.errors import DataError

SAMPLE_SCENES = ("nerf_chair", "dance_room")
"""A chair that stands still, and a dance that one moving camera looks at."""
_PACKAGE = Path(__file__).resolve().parents[1]


def sample_scene_path(name: str = "nerf_chair") -> Path:
    """The folder of a built-in capture. Raises :class:`DataError` where it is not installed."""
    place = sample_scene_place(name)
    if not place.is_dir():
        raise DataError(
            f"the sample scene {name} is not installed",
            where=place,
            fix="reinstall scene4d, or name a capture with --data",
        )
    return place


def sample_scene_place(name: str) -> Path:
    """Where a built-in capture is, or would be: in the wheel, else in an editable install's
    checkout. Raises :class:`DataError` for a name of none."""
    if name not in SAMPLE_SCENES:
        raise DataError(
            f"there is no sample scene {name!r}",
            fix=f"one of {', '.join(SAMPLE_SCENES)}, or a capture of your own with --data",
        )
    places = [_PACKAGE / "sample_scenes" / name, _PACKAGE.parents[1] / "data" / name]
    return next((place for place in places if place.is_dir()), places[0])


def sample_scene_at(path: Path) -> str | None:
    """The name of the sample scene that lies at ``path``; None for other captures."""
    places = {sample_scene_place(name).resolve(): name for name in SAMPLE_SCENES}
    return places.get(path.resolve())
