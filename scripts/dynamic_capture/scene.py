"""What is in front of the cameras: models on their ways, and a room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dynamic_capture.animated_gltf import Model, load_model
from dynamic_capture.raster import Surfaces


@dataclass(frozen=True, kw_only=True)
class Circle:
    """A way around the y axis through ``centre``, once in ``seconds`` (less than 0: clockwise)."""

    radius: float
    seconds: float
    start_deg: float = 0.0
    centre: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A model in the scene."""

    file: str
    """Relative to the folder of models."""
    clip: str | None = None
    clip_start: float = 0.0
    clip_speed: float = 1.0
    loop: bool = True
    leave_out: tuple[str, ...] = ()
    scale: float = 1.0
    yaw_deg: float = 0.0
    """Around y; on a circle, beside the direction of the way (models look along +z)."""
    at: tuple[float, float, float] = (0.0, 0.0, 0.0)
    circle: Circle | None = None
    lit: bool = True
    """False where the light is in its texture."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """A box without a front and a lid, with drawn walls: things to see everywhere."""

    width: float = 6.0
    height: float = 3.4
    depth: float = 6.0
    cell: float = 0.5
    """Tiles of walls and floor are about this large."""
    texels: int = 512
    """Along each side of a wall's picture."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class _Placed:
    thing: Thing
    model: Model
    corners: tuple[np.ndarray, ...]
    """Of each part, [triangles, 3] indices into its vertices."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """All triangles, with corners of their own, at any time."""

    placed: Sequence[_Placed]
    still: np.ndarray
    """[triangles, 3, 3] of the room."""
    surfaces: Surfaces
    num_faces: int
    faces: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int64))

    def at(self, time: float) -> tuple[np.ndarray, np.ndarray]:
        """Positions and normals [triangles, 3 corners, 3]."""
        positions, normals = [], []
        for placed in self.placed:
            thing, model = placed.thing, placed.model
            moment = thing.clip_start + thing.clip_speed * time
            if thing.clip is not None and thing.loop:
                moment %= max(model.duration(thing.clip), 1e-9)
            pose = _pose(thing, time)
            for (points, own), corners in zip(model.at(thing.clip, moment), placed.corners,
                                              strict=True):  # fmt: skip
                there = (points @ pose[:3, :3].T + pose[:3, 3])[corners]
                positions.append(there)
                normals.append(_flat(there) if own is None else (own @ pose[:3, :3].T)[corners])
        positions.append(self.still)
        normals.append(_flat(self.still))
        return np.concatenate(positions), np.concatenate(normals)


def build(things: Sequence[Thing], room: Room | None, models: Path) -> Stage:
    """The stage of a recipe; files are looked for in ``models``."""
    placed, uv, color, texture, lit = [], [], [], [], []
    textures: list[np.ndarray] = []
    for thing in things:
        model = load_model(models / thing.file, leave_out=thing.leave_out)
        placed.append(
            _Placed(thing=thing, model=model, corners=tuple(p.faces for p in model.parts))
        )
        for part in model.parts:
            count = len(part.faces)
            uv.append(part.uv[part.faces])
            color.append(np.broadcast_to(part.color, (count, 3)))
            index = -1
            if part.texture is not None:
                index = len(textures)
                textures.append(part.texture)
            texture.append(np.full(count, index))
            lit.append(np.full(count, thing.lit))
    still = np.zeros((0, 3, 3))
    if room is not None:
        still, wall_uv, picture = _walls(room)
        uv.append(wall_uv)
        color.append(np.ones((len(still), 3)))
        texture.append(np.full(len(still), len(textures)))
        lit.append(np.full(len(still), False))
        textures.append(picture)
    surfaces = Surfaces(
        uv=np.concatenate(uv),
        color=np.concatenate(color),
        texture=np.concatenate(texture),
        textures=textures,
        lit=np.concatenate(lit),
    )
    count = len(surfaces.color)
    faces = np.arange(3 * count).reshape(count, 3)
    return Stage(placed=placed, still=still, surfaces=surfaces, num_faces=count, faces=faces)


def _pose(thing: Thing, time: float) -> np.ndarray:
    """[4, 4] from the model's coordinates to the world's."""
    yaw, place = np.radians(thing.yaw_deg), np.asarray(thing.at, dtype=np.float64)
    if thing.circle is not None:
        circle = thing.circle
        angle = np.radians(circle.start_deg) + 2 * np.pi * time / circle.seconds
        x, z = circle.centre
        place = place + np.array([x, 0, z])
        place = place + circle.radius * np.array([np.sin(angle), 0, np.cos(angle)])
        yaw += angle + np.copysign(np.pi / 2, circle.seconds)
    pose = np.eye(4)
    c, s = np.cos(yaw), np.sin(yaw)
    pose[:3, :3] = thing.scale * np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    pose[:3, 3] = place
    return pose


def _flat(corners: np.ndarray) -> np.ndarray:
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    return np.repeat(normal[:, None], 3, axis=1)


def _walls(room: Room) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangles of the floor, the back and both sides, their uv, and the picture on them."""
    x, y, z = room.width / 2, room.height, room.depth / 2
    quads = [
        [(-x, 0, z), (x, 0, z), (x, 0, -z), (-x, 0, -z)],
        [(-x, 0, -z), (x, 0, -z), (x, y, -z), (-x, y, -z)],
        [(-x, 0, z), (-x, 0, -z), (-x, y, -z), (-x, y, z)],
        [(x, 0, -z), (x, 0, z), (x, y, z), (x, y, -z)],
    ]
    sizes = [(room.width, room.depth), (room.width, y), (room.depth, y), (room.depth, y)]
    generator = np.random.default_rng(room.seed)
    tones = [(0.74, 0.66, 0.56), (0.55, 0.66, 0.76), (0.70, 0.74, 0.62), (0.78, 0.66, 0.64)]
    drawn = zip(tones, sizes, strict=True)
    mpi = [_tiles(generator, tone, size, room) for tone, size in drawn]
    side = mpi[0].shape[0]
    triangles, uv = [], []
    for index, quad in enumerate(quads):
        corners = np.asarray(quad, dtype=np.float64)
        # each MPI plane is a quarter of the picture, from top to bottom, inset by half a texel
        top, bottom = (index * side + 0.5) / (4 * side), ((index + 1) * side - 0.5) / (4 * side)
        left, right = 0.5 / side, 1 - 0.5 / side
        places = np.array([(left, bottom), (right, bottom), (right, top), (left, top)])
        for pick in ([0, 1, 2], [0, 2, 3]):
            triangles.append(corners[pick])
            uv.append(places[pick])
    return np.stack(triangles), np.stack(uv), np.concatenate(mpi)


def _tiles(
    generator: np.random.Generator,
    tone: tuple[float, float, float],
    size: tuple[float, float],
    room: Room,
) -> np.ndarray:
    """[side, side, 3] uint8: tiles of slightly different tones with joints, soft blotches, and
    darker edges, as where walls meet."""
    side, across, up = room.texels, *(max(1, round(length / room.cell)) for length in size)
    v, u = (np.mgrid[0:side, 0:side] + 0.5) / side
    column, row = (u * across).astype(int), (v * up).astype(int)
    shades = generator.uniform(0.82, 1.08, (up, across, 1)) + generator.uniform(
        -0.05, 0.05, (up, across, 3)
    )
    picture = np.asarray(tone) * shades[row, column]
    inside = np.minimum.reduce([(u * across) % 1, 1 - (u * across) % 1,
                                (v * up) % 1, 1 - (v * up) % 1])  # fmt: skip
    picture *= np.where(inside < 0.04, 0.75, 1.0)[..., None]
    for _ in range(60):
        x, y, r = generator.uniform(0, 1), generator.uniform(0, 1), generator.uniform(0.01, 0.06)
        blot = np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * r * r))
        picture *= 1 + generator.uniform(-0.22, 0.22) * blot[..., None]
    edge = np.minimum.reduce([u, 1 - u, v, 1 - v])
    picture *= (0.72 + 0.28 * np.clip(edge / 0.12, 0, 1) ** 0.6)[..., None]
    return (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
