"""A recipe: what a dynamic capture is made of, as plain data in a TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from dynamic_capture.raster import Light, Pinhole
from dynamic_capture.scene import Circle, Room, Thing
from scene4d.toml_files import read_toml

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Moving:
    """A hand-held camera on an arc around ``target``, from which it never looks away for long."""

    target: tuple[float, float, float] = (0.0, 1.0, 0.0)
    radius: float = 4.0
    height: float = 2.0
    """Above the floor, y = 0."""
    from_deg: float = -24.0
    to_deg: float = 24.0
    """Around y; 0 stands at +z."""
    wobble: float = 0.04
    """How far a hand shakes, in scene units."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """A camera that stands still."""

    eye: tuple[float, float, float]
    target: tuple[float, float, float] = (0.0, 1.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a capture is drawn from."""

    things: tuple[Thing, ...]
    room: Room | None = None
    frames: int = 48
    fps: float = 20.0
    width: int = 320
    height: int = 240
    focal: float = 285.0
    samples: int = 3
    """Along each side of a pixel; odd, so that one is at its centre."""
    jpeg_quality: int = 93
    sky: tuple[float, float, float] = (0.6, 0.7, 0.8)
    light: Light = field(default_factory=Light)
    moving: Moving | None = None
    fixed_train: tuple[Fixed, ...] = ()
    """Cameras that train, too, each at all times: a capture from several cameras."""
    fixed_test: tuple[Fixed, ...] = ()
    """Held out; each takes its turn, as DyCheck's do."""
    covisible: Literal["all", "moving"] = "all"
    """Which training pictures tell what is covisible: those of all cameras, or of the moving one
    alone, so that trainings from it and from all are measured over the same pixels."""
    tracks: int = 200
    """Material points that are followed."""
    depth: Literal["all", "train"] = "all"
    """Which pictures have their depth stored."""
    depth_unit: float = 0.001
    """Of the stored integers, in scene units: coarser ones are smaller files."""
    seed: int = 0

    def times(self) -> np.ndarray:
        """Seconds of every frame."""
        return np.arange(self.frames) / self.fps


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file; with ``like``, its differences from the one of that name."""
    table = dict(read_toml(path))
    like = table.pop("like", None)
    base = {} if like is None else read_toml(path.parent / str(like))
    return _made(Recipe, {**base, **table})


_NESTED: Mapping[tuple[type, str], type] = {
    (Recipe, "things"): Thing,
    (Recipe, "room"): Room,
    (Recipe, "light"): Light,
    (Recipe, "moving"): Moving,
    (Recipe, "fixed_train"): Fixed,
    (Recipe, "fixed_test"): Fixed,
    (Thing, "circle"): Circle,
}


def _made(kind: type[T], table: Mapping[str, Any]) -> T:
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    unknown = set(table) - known
    if unknown:
        raise SystemExit(
            f"{kind.__name__} has no {sorted(unknown)[0]!r}: {', '.join(sorted(known))}"
        )
    values = {}
    for name, value in table.items():
        nested = _NESTED.get((kind, name))
        if nested is not None:
            value = tuple(_made(nested, v) for v in value) if isinstance(value, list) else (
                _made(nested, value)
            )  # fmt: skip
        values[name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)


def train_cameras(recipe: Recipe) -> list[list[Pinhole]]:
    """Of each training camera, where it is in every frame."""
    cameras = [] if recipe.moving is None else [_arc(recipe, recipe.moving)]
    return cameras + [[_looking(recipe, f.eye, f.target)] * recipe.frames
                      for f in recipe.fixed_train]  # fmt: skip


def test_cameras(recipe: Recipe) -> list[Pinhole]:
    """The cameras that are held out."""
    return [_looking(recipe, fixed.eye, fixed.target) for fixed in recipe.fixed_test]


def _arc(recipe: Recipe, moving: Moving) -> list[Pinhole]:
    generator = np.random.default_rng(moving.seed)
    along = np.linspace(0, 1, recipe.frames)
    angles = np.radians(moving.from_deg + (moving.to_deg - moving.from_deg) * along)
    target = np.asarray(moving.target)
    eyes = np.stack([np.sin(angles), 0 * angles, np.cos(angles)], axis=-1) * moving.radius
    eyes += target * [1, 0, 1] + np.array([0, moving.height, 0])
    shakes = [_shake(generator, along) * moving.wobble for _ in range(2)]
    return [_looking(recipe, eye + shake, target + look)
            for eye, shake, look in zip(eyes, *shakes, strict=True)]  # fmt: skip


def _shake(generator: np.random.Generator, along: np.ndarray) -> np.ndarray:
    """[frames, 3] smooth, of size 1: a few slow waves."""
    total = np.zeros((len(along), 3))
    for waves in (1.3, 2.9, 5.1):
        phase = generator.uniform(0, 2 * np.pi, 3)
        total += np.sin(2 * np.pi * waves * along[:, None] + phase) / waves
    return total / 1.3


def _looking(recipe: Recipe, eye: Any, target: Any) -> Pinhole:
    return Pinhole.looking(
        eye, target, focal=recipe.focal, width=recipe.width, height=recipe.height
    )
