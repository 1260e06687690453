"""The sample scene that ships with the package."""

from __future__ import annotations

from pathlib import Path

from scene4d.errors import DataError

_PACKAGE = Path(__file__).resolve().parents[1]


def sample_scene_path() -> Path:
    """The folder of the built-in capture: in the wheel, else in an editable install's checkout."""
    places = [
        _PACKAGE / "sample_scenes" / "nerf_chair",
        _PACKAGE.parents[1] / "data" / "nerf_chair",
    ]
    for place in places:
        if (place / "transforms_train.json").is_file():
            return place
    raise DataError(
        "the sample scene is not installed",
        where=places[0],
        fix="reinstall scene4d, or name a capture with --data",
    )
