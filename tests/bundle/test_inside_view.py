"""Scenes that were captured from inside: where to stand in them, and which of them there are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundle.test_first_view import box_of, cloud_of, ground

from scene4d.bundle import first_view
from scene4d.bundle.inside_view import gathers_along, inside_view
from scene4d.bundle.scene_info import default_view
from scene4d.formats.packing import taken
from scene4d.formats.registry import read_splats, write_splats
from scene4d.formats.splat_cloud import SplatCloud

Y_DOWN = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], float)
Z_UP = np.eye(3)
Y_UP = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float)


def surface(low: list[float], high: list[float], count: int, *, seed: int = 0) -> np.ndarray:
    """Places evenly on the six sides of a box [count, 3]."""
    rng = np.random.default_rng(seed)
    low, high = np.array(low), np.array(high)
    size = high - low
    areas = np.array([size[1] * size[2], size[0] * size[2], size[0] * size[1]])
    places = rng.uniform(low, high, (count, 3))
    axes = rng.choice(3, count, p=areas / areas.sum())
    ends = np.where(rng.random(count) < 0.5, low[axes], high[axes])
    places[np.arange(count), axes] = ends
    return places


def room(*, floaters: int = 60) -> np.ndarray:
    """A room of 6 x 5 x 2.6 with a bed, a wardrobe and a table, z up, and what floats outside."""
    rng = np.random.default_rng(5)
    shell = surface([0, 0, 0], [6, 5, 2.6], 6000)
    shell += rng.normal(0, 0.02, shell.shape)
    things = [
        surface([0.2, 2.8, 0], [2.2, 4.8, 0.6], 1200, seed=1),
        surface([4.4, 4.4, 0], [5.8, 4.95, 2.1], 800, seed=2),
        surface([3.6, 0.4, 0], [4.8, 1.2, 0.8], 700, seed=3),
    ]
    far = rng.uniform(-30, 36, (floaters, 3))
    return np.concatenate([shell, *things, far])


def stand(places: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """Up and the view from inside, of the places that players look at."""
    low, high = first_view.content_box(places)
    up = first_view.find_up(places, low, high)
    return up, inside_view(places, low, high, up)


@pytest.mark.parametrize("turn", [Y_DOWN, Z_UP, Y_UP], ids=["y down", "z up", "y up"])
@pytest.mark.parametrize("yaw", [0.0, 0.5])
def test_one_stands_in_a_room_upright_clear_of_its_things(turn: np.ndarray, yaw: float) -> None:
    c, s = np.cos(yaw), np.sin(yaw)
    to_world = turn @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    up, view = stand(room() @ to_world.T)
    assert up @ turn[:, 2] > 0.99
    assert view is not None
    eye, ahead = to_world.T @ view[0], to_world.T @ view[1]
    assert (eye > [0.4, 0.4, 0.8]).all()
    assert (eye < [5.6, 4.6, 1.8]).all()
    assert abs(ahead[2]) < 0.1
    # Not with the nose to a wall: at least two thirds of the room's length are before it.
    others = np.linalg.norm(room(floaters=0) - eye, axis=1)
    assert others.min() > 0.5
    distances = np.where(ahead > 0, [6, 5, 2.6] - eye, -eye) / np.where(ahead == 0, 1e-9, ahead)
    assert np.abs(distances).min() > 2.5


def test_a_square_with_houses_around_and_a_statue_is_stood_in() -> None:
    rng = np.random.default_rng(6)
    flat = np.concatenate([rng.uniform(-10, 10, (2500, 2)), rng.normal(0, 0.03, (2500, 1))], axis=1)
    angles = rng.uniform(0, 2 * np.pi, 3000)
    houses = np.stack([10 * np.cos(angles), 10 * np.sin(angles), rng.uniform(0, 4, 3000)], axis=1)
    statue = rng.normal([0, 0, 1.2], [0.4, 0.4, 0.6], (2000, 3))
    up, view = stand(np.concatenate([flat, houses, statue]) @ Y_DOWN.T)
    assert up.tolist() == [0, -1, 0]
    assert view is not None
    eye = Y_DOWN.T @ view[0]
    assert 1 < np.hypot(*eye[:2]) < 9.5
    assert 0 < eye[2] < 3


def test_things_are_seen_from_outside() -> None:
    rng = np.random.default_rng(7)
    ball = rng.normal(size=(4000, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    crate = surface([-1, -1, 0], [1, 1, 1.5], 4000)
    crate = crate[crate[:, 2] > 0]  # nobody sees what it stands on
    for name, places in {
        "ball": ball, "crate": crate, "ground": ground(), "blob": rng.normal(size=(4000, 3)),
        "block": box_of([-4, -0.4, -0.5], [4, 0.4, 0.5]), "nothing": np.zeros((0, 3)),
        "few": ball[:100], "flat": np.zeros((500, 3)),
    }.items():  # fmt: skip
        for turn in (Y_DOWN, Z_UP):
            moved = places @ turn.T
            low, high = first_view.content_box(moved)
            assert inside_view(moved, low, high, turn[:, 2]) is None, name


def test_things_gather_on_the_floor() -> None:
    low, high = np.zeros(3), np.array([6, 5, 2.6])
    assert gathers_along(room(), low, high, np.array([0.0, 0, 1])) > 0.5
    assert gathers_along(room(), low, high, np.array([0.0, 0, -1])) < -0.5
    assert gathers_along(room()[:50], low, high, np.array([0.0, 0, 1])) == 0


def test_a_bundle_of_a_room_starts_in_it() -> None:
    cloud = cloud_of(room() @ Y_DOWN.T)
    c2w = np.array(default_view(cloud).c2w)
    eye = Y_DOWN.T @ c2w[:3, 3]
    assert (eye > 0.4).all()
    assert (eye < [5.6, 4.6, 2.2]).all()
    assert np.allclose(c2w[:3, 1], [0, -1, 0])
    # A camera that went around things keeps away from them.
    outside = np.array(default_view(cloud, lens=default_view(cloud)).c2w)
    eye = Y_DOWN.T @ outside[:3, 3]
    assert ((eye < 0) | (eye > [6, 5, 2.6])).any()


def test_a_room_of_three_walls_is_looked_at_through_the_open_side() -> None:
    places = surface([0, 0, 0], [6, 5, 2.6], 6000)
    for axis, end in ((1, 0.0), (1, 5.0), (0, 0.0), (0, 6.0)):
        open_room = places[np.abs(places[:, axis] - end) > 0.15] @ Y_DOWN.T
        low, high = first_view.content_box(open_room)
        forward = first_view.clear_direction(open_room, low, high, Y_DOWN[:, 2])
        inwards = (Y_DOWN.T @ forward)[axis] * (1 if end == 0 else -1)
        assert inwards > 0.5, (axis, end)


def half_open_room(count: int = 12_000, opening: float = 0.68) -> SplatCloud:
    """A room without a ceiling and, over a share ``opening`` of a turn, without walls: neither
    plainly inside nor plainly outside. Sizes and opacities vary as those of trained splats."""
    rng = np.random.default_rng(0)
    shell = surface([0, 0, 0], [6, 5, 2.6], count)
    turns = np.abs(np.arctan2(shell[:, 1] - 2.5, shell[:, 0] - 3)) / np.pi
    shell = shell[(shell[:, 2] < 2.55) & ((turns > opening) | (shell[:, 2] < 0.05))]
    things = [
        surface([0.2, 2.8, 0], [2.2, 4.8, 0.6], count // 8, seed=1),
        surface([4.4, 4.4, 0], [5.8, 4.95, 1.6], count // 8, seed=2),
        surface([3.6, 0.4, 0], [4.8, 1.2, 0.8], count // 8, seed=3),
    ]
    cloud = cloud_of(np.concatenate([shell, *things]) @ Y_DOWN.T)
    return replace(
        cloud,
        means=cloud.means + rng.normal(0, 0.02, cloud.means.shape).astype(np.float32),
        log_scales=rng.normal(-4, 0.6, cloud.means.shape).astype(np.float32),
        logit_opacities=rng.normal(0.5, 2, len(cloud)).astype(np.float32),
    )


def test_a_borderline_room_starts_the_same_in_every_format_and_after_pruning(
    tmp_path: Path,
) -> None:
    cloud = half_open_room()
    start = np.array(default_view(cloud).c2w)
    clouds = {"pruned": taken(cloud, cloud.logit_opacities > -2.5)}
    for ending in ("ply", "spz", "sog", "splat", "s4d"):
        path = tmp_path / f"room.{ending}"
        write_splats(path, cloud)
        clouds[ending] = read_splats(path)
    for name, other in clouds.items():
        # The same of the places and directions that are tried; the next ones are 0.5 away.
        assert np.abs(np.array(default_view(other).c2w) - start).max() < 0.05, name


def drawn(count: int, low: list[float], high: list[float], state: int) -> tuple[np.ndarray, int]:
    """Places [count, 3] on a box' sides by Lehmer's generator, and its state."""

    def number() -> float:
        nonlocal state
        state = state * 48271 % 2147483647
        return state / 2147483647

    rows = []
    for n in range(count):
        row = [a + (b - a) * number() for a, b in zip(low, high, strict=True)]
        row[n % 3] = low[n % 3] if number() < 0.5 else high[n % 3]
        rows.append(row)
    return np.array(rows), state


def test_the_player_stands_at_the_same_place() -> None:
    shell, state = drawn(3000, [0, -2.6, 0], [6, 0, 5], 5)
    bed, state = drawn(700, [0.2, -0.6, 2.8], [2.2, 0, 4.8], state)
    table, _ = drawn(400, [3.6, -0.8, 0.4], [4.8, 0, 1.2], state)
    up, view = stand(np.concatenate([shell, bed, table]))
    assert up.tolist() == [0, -1, 0]
    assert view is not None
    # viewers/web/tests/decode/stand.test.ts has the same numbers.
    assert np.allclose(view[0], [4.8, -1.2854, 3.0], atol=1e-4)
    assert np.allclose(view[1], [-1, 0, 0], atol=1e-4)
