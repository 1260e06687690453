"""Camera paths against closed forms, scipy, and captures that have no path of their own."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline as ScipyCubic
from scipy.interpolate import make_smoothing_spline
from scipy.spatial.transform import Rotation

from scene4d.cameras import path_times, paths
from scene4d.cameras.camera import Camera
from scene4d.cameras.path_files import load_path, save_path
from scene4d.cameras.quaternions import rotation_from_quat
from scene4d.cameras.splines import (
    CubicSpline,
    RotationSpline,
    quaternion_from_rotation,
)
from scene4d.errors import DataError, Scene4dError

FLOAT32 = 2e-5
"""Scenes here have a size of a few units: some ten roundings of float32 (6e-8 relative)."""

LOOPS = [
    paths.spiral,
    paths.orbit,
    lambda cameras, num_frames: paths.interpolate(cameras, num_frames=num_frames, loop=True),
]
EVERY = [*LOOPS, paths.interpolate]


def camera(c2w, *, focal=100.0, size=(80, 60), centre=None, time=None) -> Camera:
    cx, cy = centre or (size[0] / 2, size[1] / 2)
    return Camera(
        c2w=torch.as_tensor(c2w, dtype=torch.float32),
        K=torch.tensor([[focal, 0.0, cx], [0.0, focal, cy], [0.0, 0.0, 1.0]]),
        width=size[0],
        height=size[1],
        time=None if time is None else torch.tensor(float(time)),
    )


def looking(position, target, up=(0.0, 0.0, 1.0)) -> torch.Tensor:
    as_rows = [torch.tensor([list(map(float, v))], dtype=torch.float64) for v in (position, target)]
    return paths._look_at(*as_rows, torch.tensor(up, dtype=torch.float64))[0]


def ring(count=12, *, radius=3.0, height=1.0, centre=(0.5, -0.2, 0.3), **options) -> list[Camera]:
    cameras = []
    for i in range(count):
        angle = 2 * math.pi * i / count
        offset = (radius * math.cos(angle), radius * math.sin(angle), height)
        position = [c + o for c, o in zip(centre, offset, strict=True)]
        time = i if options.get("timed") else None
        cameras.append(camera(looking(position, centre), time=time))
    return cameras


def grid(rows=3, columns=4) -> list[Camera]:
    poses = []
    for y in range(rows):
        for x in range(columns):
            pose = torch.eye(4)
            pose[:2, 3] = torch.tensor([0.1 * x, 0.1 * y])
            poses.append(camera(pose))
    return poses


def positions(path: list[Camera]) -> torch.Tensor:
    return torch.stack([c.position for c in path]).double()


def project(camera: Camera, point: torch.Tensor) -> torch.Tensor:
    inside = camera.viewmat.double()[:3, :3] @ point + camera.viewmat.double()[:3, 3]
    assert inside[2] > 0
    return (camera.K.double() @ inside)[:2] / inside[2]


CAPTURES = {
    "ring": ring(),
    "planar grid": grid(),
    "one camera": ring(1),
    "two cameras": ring(2),
    "the same pose thrice": ring(1) * 3,
    "top down": [camera(looking((0.1 * i, 0, 2), (0.1 * i, 0, 0))) for i in range(3)],
    "on the orbit's axis": [camera(looking((0, 0, z), (0, 0, 0), (0, 1, 0))) for z in (1, 2)],
    "opposite ups": [camera(looking((1, 0, 0), (0, 0, 0), (0, 0, z))) for z in (1, -1)],
    "inside out": [
        camera(looking((0, 0, 0), (math.cos(a), math.sin(a), 0))) for a in np.arange(0, 6, 0.5)
    ],
}


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("name", CAPTURES)
@pytest.mark.parametrize("num_frames", [1, 2, 17])
def test_every_path_of_every_capture_is_of_rigid_finite_cameras(make, name, num_frames):
    path = make(CAPTURES[name], num_frames=num_frames)
    assert len(path) == num_frames
    c2w = torch.stack([c.c2w for c in path])
    assert torch.isfinite(c2w).all()
    eye = torch.eye(3).expand(num_frames, 3, 3)
    torch.testing.assert_close(c2w[:, :3, :3] @ c2w[:, :3, :3].mT, eye, atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(c2w[:, :3, :3]), torch.ones(num_frames))
    assert all((c.width, c.height) == (80, 60) and c.distortion is None for c in path)


@pytest.mark.parametrize("name", ["ring", "planar grid", "one camera", "two cameras"])
def test_orbit_keeps_its_centre_in_the_middle_of_the_image(name):
    centre, _ = paths._focus(paths._poses(CAPTURES[name], 1))
    for c in paths.orbit(CAPTURES[name], num_frames=16):
        # 100 px of focal length times float32 roundings of a direction
        torch.testing.assert_close(
            project(c, centre), torch.tensor([40.0, 30.0]).double(), atol=1e-3, rtol=0
        )


def test_orbit_of_a_ring_is_that_ring_and_starts_at_its_first_camera():
    cameras = ring(12)
    path = paths.orbit(cameras, num_frames=12)
    torch.testing.assert_close(positions(path), positions(cameras), atol=FLOAT32, rtol=0)
    axes = torch.stack([c.c2w[:3, :3] for c in path])
    torch.testing.assert_close(
        axes, torch.stack([c.c2w[:3, :3] for c in cameras]), atol=FLOAT32, rtol=0
    )


def test_off_centre_principal_points_do_not_move_the_focus_of_an_orbit():
    cameras = [camera(c.c2w, centre=(30.0, 35.0)) for c in ring()]
    seen = project(paths.orbit(cameras, num_frames=3)[1], torch.tensor([0.5, -0.2, 0.3]).double())
    torch.testing.assert_close(seen, torch.tensor([40.0, 30.0]).double(), atol=1e-3, rtol=0)


def test_parallel_cameras_focus_ahead_of_their_centre():
    point, distance = paths._focus(paths._poses(grid(), 1))
    assert distance > 0
    torch.testing.assert_close(point[:2], torch.tensor([0.15, 0.1]).double(), atol=1e-6, rtol=0)
    assert float(point[2]) == pytest.approx(-distance, rel=1e-6)


def test_spiral_looks_at_the_focus_within_the_capture_and_closes():
    cameras = grid(5, 5)
    path = paths.spiral(cameras, num_frames=240, bounds=(1.0, 10.0))
    focus = 1 / (0.25 / 0.9 + 0.75 / 50)  # LLFF's harmonic mean of 0.9 near and 5 far
    target = torch.tensor([0.2, 0.2, -focus]).double()
    for c in path[::20]:
        torch.testing.assert_close(
            project(c, target), torch.tensor([40.0, 30.0]).double(), atol=1e-3, rtol=0
        )
    inside = positions(path)
    assert inside.min() >= -FLOAT32 and inside[:, :2].max() <= 0.4 + FLOAT32
    steps = (inside.roll(-1, 0) - inside).norm(dim=-1)
    # The step across the seam is as long as any other of a circle in equal angles
    torch.testing.assert_close(steps[-1], steps[0], atol=FLOAT32, rtol=0)


def test_spiral_without_bounds_focuses_where_the_axes_meet():
    cameras = [
        camera(looking((0.2 * i, 0.1 * j, 2), (0, 0, -1), (0, 1, 0)))
        for i in range(3)
        for j in range(3)
    ]
    seen = project(paths.spiral(cameras, num_frames=5)[0], torch.tensor([0.0, 0.0, -1.0]).double())
    # The average camera looks almost at the point: within 5 px of 80
    assert (seen - torch.tensor([40.0, 30.0])).abs().max() < 5


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (2.0, 1.0), (1.0, math.inf)])
def test_impossible_bounds_are_refused(bounds):
    with pytest.raises(ValueError, match="bounds"):
        paths.spiral(grid(), num_frames=3, bounds=bounds)


@pytest.mark.parametrize("loop", [False, True])
def test_interpolation_passes_through_every_camera(loop):
    cameras = [ring()[i] for i in (0, 1, 3, 4, 7, 9)]
    dense = paths.interpolate(cameras, num_frames=1501, loop=loop)
    steps = positions(dense).diff(dim=0).norm(dim=-1).max()
    for key in cameras:
        away = (positions(dense) - key.position).norm(dim=-1)
        nearest = dense[int(away.argmin())]
        assert float(away.min()) <= float(steps)  # no frame need fall exactly on a key
        turn = nearest.c2w[:3, :3].T @ key.c2w[:3, :3]
        assert float((turn - torch.eye(3)).abs().max()) < 3 * float(steps)
    torch.testing.assert_close(dense[0].c2w, cameras[0].c2w, atol=FLOAT32, rtol=0)
    if not loop:
        torch.testing.assert_close(dense[-1].c2w, cameras[-1].c2w, atol=FLOAT32, rtol=0)


def test_speed_is_even_and_has_no_jumps():
    cameras = [ring()[i] for i in (0, 1, 3, 4, 7, 9)]
    path = positions(paths.interpolate(cameras, num_frames=400, loop=True))
    velocity = path.roll(-1, 0) - path
    speed = velocity.norm(dim=-1)
    # A fifth of the pace is the turning's, so the way itself may vary by that much
    assert float(speed.max() / speed.min()) < 1.25
    jumps = (velocity.roll(-1, 0) - velocity).norm(dim=-1)
    # C1: velocities change by O(1/400) of themselves; a corner would change them by O(1)
    assert float((jumps / speed).max()) < 0.1
    half = positions(paths.interpolate(cameras, num_frames=800, loop=True))
    velocity = half.roll(-1, 0) - half
    finer = (velocity.roll(-1, 0) - velocity).norm(dim=-1) / velocity.norm(dim=-1)
    assert float(finer.max()) < 0.6 * float((jumps / speed).max())  # halves with the step


def test_smoothing_draws_a_shaken_path_to_its_course():
    generator = torch.Generator().manual_seed(0)
    shaken = []
    for i in range(40):
        pose = torch.eye(4)
        pose[:3, 3] = torch.tensor([0.1 * i, 0.0, 0.0]) + 0.01 * torch.randn(3, generator=generator)
        shaken.append(camera(pose))
    rough = positions(paths.interpolate(shaken, num_frames=200))[:, 1:]
    smooth = positions(paths.interpolate(shaken, num_frames=200, smoothing=3.0))[:, 1:]
    # A window of about six cameras should take noise down by more than a third
    assert float(smooth.std()) < 0.66 * float(rough.std())


def test_a_full_turn_closes_without_spinning_back():
    path = paths.interpolate(ring(8), num_frames=64, loop=True)
    axes = torch.stack([c.c2w[:3, :3] for c in path]).double()
    turns = [
        Rotation.from_matrix(a.T @ b).magnitude()
        for a, b in zip(axes.numpy(), axes.roll(-1, 0).numpy(), strict=True)
    ]
    # A full circle in 64 steps; the spline of 8 keys deviates from a circle by under 1 %
    np.testing.assert_allclose(turns, 2 * math.pi / 64, rtol=0.02)


def test_panning_on_the_spot_turns_evenly():
    pan = [camera(looking((0, 0, 0), (math.cos(a), math.sin(a), 0))) for a in (0.0, 0.2, 1.0, 1.3)]
    path = paths.interpolate(pan, num_frames=50)
    forward = torch.stack([-c.c2w[:3, 2] for c in path]).double()
    angles = torch.atan2(forward[:, 1], forward[:, 0])
    np.testing.assert_allclose(angles.diff().numpy(), 1.3 / 49, rtol=2e-3)  # float32 angles


def test_intrinsics_and_time_run_between_the_keys():
    first, last = ring(2)
    pair = [camera(first.c2w, focal=100.0, time=1.0), camera(last.c2w, focal=200.0, time=3.0)]
    path = paths.interpolate(pair, num_frames=5)
    times = [float(c.time) for c in path]
    focal = [float(c.K[0, 0]) for c in path]
    # The two halves of the way are mirror images, so the middle is the middle
    assert times[0] == 1 and times[-1] == 3 and times[2] == pytest.approx(2, abs=1e-3)
    np.testing.assert_allclose(np.array(focal), 50 + 50 * np.array(times), rtol=1e-5)
    for make in (paths.spiral, paths.orbit):
        np.testing.assert_allclose(
            [float(c.time) for c in make(pair, num_frames=5)], [1, 1.5, 2, 2.5, 3]
        )
    untimed = [*pair, camera(first.c2w)]
    assert all(c.time is None for c in paths.interpolate(untimed, num_frames=3))


def test_a_resting_camera_still_passes_through_time():
    still = [camera(torch.eye(4), time=t) for t in range(5)]
    times = [float(c.time) for c in paths.interpolate(still, num_frames=9)]
    np.testing.assert_allclose(times, np.linspace(0, 4, 9), atol=1e-6)


def test_a_flight_along_one_cameras_way_goes_at_its_pace():
    way = []
    for time, x in ((0.0, 0.0), (1.0, 1.0), (2.0, 1.0), (3.0, 1.0), (3.5, 3.0)):
        pose = torch.eye(4)
        pose[0, 3] = x
        way.append(camera(pose, time=time))
    flight = paths.interpolate(way, num_frames=15)  # a frame each quarter of a second
    np.testing.assert_allclose([float(c.time) for c in flight], np.linspace(0, 3.5, 15), atol=1e-6)
    x = positions(flight)[:, 0].numpy()
    np.testing.assert_allclose(x[[0, 4, 8, 12, 14]], [0, 1, 1, 1, 3], atol=FLOAT32)


@pytest.mark.parametrize("options", [{}, {"loop": True}, {"order": "nearest"}])
def test_time_never_jumps_back_along_a_path(options):
    both = [*ring(6, timed=True), *ring(6, radius=4.0, timed=True)]
    times = [float(c.time) for c in paths.interpolate(both, num_frames=11, **options)]
    np.testing.assert_allclose(times, np.linspace(0, 5, 11), atol=1e-6)


def test_real_time_starts_again_at_the_end():
    path = path_times.in_real_time(grid(3, 4), span=(1.0, 1.5), fps=10.0)
    times = [float(c.time) for c in path]
    np.testing.assert_allclose(times, [1, 1.1, 1.2, 1.3, 1.4] * 2 + [1, 1.1], atol=1e-6)
    stopped = path_times.at_time(path, 1.25)
    assert [float(c.time) for c in stopped] == [1.25] * 12
    torch.testing.assert_close(positions(stopped), positions(path))


def test_pictures_of_other_sizes_are_cut_to_the_common_one_without_squashing():
    odd = camera(torch.eye(4), focal=50.0, size=(40, 40))
    cameras = [*grid(1, 3), odd]
    last = paths.interpolate(cameras, num_frames=4)[-1]
    assert (last.width, last.height) == (80, 60)
    expected = torch.tensor([[100.0, 0, 40], [0, 100, 30], [0, 0, 1]])
    torch.testing.assert_close(last.K, expected)


def test_nearest_order_walks_along_a_line_from_one_end():
    line = [camera(torch.eye(4)) for _ in range(6)]
    shuffled = [3, 0, 5, 1, 4, 2]
    for c, x in zip(line, shuffled, strict=True):
        c.c2w[0, 3] = float(x)
    order = [shuffled[i] for i in paths.nearest_order(line)]
    assert order in ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0])
    sorted_path = positions(paths.interpolate(line, num_frames=11, order="nearest"))
    assert (sorted_path[:, 0].diff().sign() == sorted_path[:, 0].diff().sign()[0]).all()


def test_no_cameras_and_no_frames_are_refused():
    for make in EVERY:
        with pytest.raises(Scene4dError, match="no camera"):
            make([], num_frames=3)
        with pytest.raises(ValueError, match="frame"):
            make(ring(), num_frames=0)
    with pytest.raises(ValueError, match="smoothing"):
        paths.interpolate(ring(), num_frames=3, smoothing=-1.0)


@pytest.mark.parametrize("count", [2, 3, 4, 9])
@pytest.mark.parametrize("closed", [False, True])
def test_exact_splines_are_scipys(count, closed):
    generator = np.random.default_rng(count)
    knots = np.cumsum(generator.uniform(0.1, 2, count))
    values = generator.normal(size=(count, 3))
    period = 1.7 + knots[-1] - knots[0] if closed else None
    ours = CubicSpline(torch.tensor(knots), torch.tensor(values), period=period)
    if closed:
        ends = np.append(knots, knots[0] + period)
        theirs = ScipyCubic(ends, np.vstack([values, values[:1]]), bc_type="periodic")
    else:
        theirs = ScipyCubic(knots, values, bc_type="natural")
        ends = knots
    at = np.linspace(ends[0], ends[-1], 101)
    # Both solve the same well-conditioned system in double precision
    np.testing.assert_allclose(ours(torch.tensor(at)).numpy(), theirs(at), atol=1e-10)


@pytest.mark.parametrize("smoothing", [1e-3, 1.0, 1e4])
def test_smoothing_splines_are_scipys(smoothing):
    generator = np.random.default_rng(1)
    knots = np.cumsum(generator.uniform(0.1, 2, 20))
    values = generator.normal(size=20)
    ours = CubicSpline(torch.tensor(knots), torch.tensor(values)[:, None], smoothing=smoothing)
    at = np.linspace(knots[0], knots[-1], 101)
    expected = make_smoothing_spline(knots, values, lam=smoothing)(at)
    # scipy solves the same minimum through B-splines, less well conditioned for much smoothing
    np.testing.assert_allclose(ours(torch.tensor(at))[:, 0].numpy(), expected, atol=1e-6)


def test_knots_must_ascend():
    with pytest.raises(ValueError, match="ascend"):
        CubicSpline(torch.tensor([0.0, 1.0, 1.0]), torch.zeros(3, 1))


def test_quaternions_are_scipys_up_to_sign_also_near_half_turns():
    random = Rotation.random(50, random_state=0)
    half = Rotation.from_rotvec((math.pi - 1e-9) * np.vstack([np.eye(3), -np.eye(3)]))
    matrices = np.concatenate([random.as_matrix(), half.as_matrix(), np.eye(3)[None]])
    ours = quaternion_from_rotation(torch.tensor(matrices))
    theirs = Rotation.from_matrix(matrices).as_quat(scalar_first=True)
    np.testing.assert_allclose(np.abs((ours.numpy() * theirs).sum(-1)), 1, atol=1e-12)
    np.testing.assert_allclose(rotation_from_quat(ours).numpy(), matrices, atol=1e-12)


def test_rotation_spline_passes_through_its_keys():
    keys = torch.tensor(Rotation.random(7, random_state=2).as_matrix())
    knots = torch.arange(7).double()
    for period in (None, 8.0):
        spline = RotationSpline(knots, keys, period=period)
        torch.testing.assert_close(spline(knots), keys, atol=1e-12, rtol=0)


def test_path_file_gives_back_what_was_saved(tmp_path):
    cameras = paths.interpolate(ring(timed=True), num_frames=7)
    save_path(tmp_path / "path.json", cameras, fps=12.0)
    loaded = load_path(tmp_path / "path.json")
    assert loaded.fps == 12.0
    for before, after in zip(cameras, loaded.cameras, strict=True):
        assert torch.equal(before.c2w, after.c2w)
        torch.testing.assert_close(before.K, after.K)
        assert (before.width, before.height) == (after.width, after.height)
        assert float(before.time) == float(after.time)
    odd = [camera(torch.eye(4), centre=(31.0, 28.0))]
    save_path(tmp_path / "odd.json", odd, fps=1.0)
    torch.testing.assert_close(load_path(tmp_path / "odd.json").cameras[0].K, odd[0].K)


def nerfstudio_path() -> dict:
    pose = torch.eye(4).flatten().tolist()
    return {
        "render_width": 160,
        "render_height": 90,
        "seconds": 2.0,
        "camera_path": [{"camera_to_world": pose, "fov": 90.0, "aspect": 16 / 9}] * 4,
    }


def test_nerfstudios_field_of_view_is_vertical(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps(nerfstudio_path()))
    loaded = load_path(tmp_path / "p.json")
    assert loaded.fps == 2.0
    expected = torch.tensor([[45.0, 0, 80], [0, 45, 45], [0, 0, 1]])  # 90 degrees: f = height / 2
    torch.testing.assert_close(loaded.cameras[3].K, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"camera_path": []}, "empty"),
        ({"camera_path": "x"}, "camera_path"),
        ({"camera_type": "equirectangular"}, "perspective"),
        ({"render_width": 0}, "render_width"),
        ({"render_height": None}, "render_height"),
        ({"render_width": 12_000_000_000}, "pixels cannot be rendered"),
        ({"render_width": 0.5}, "pixels cannot be rendered"),
        ({"fps": 10**400}, "fps must be 1 finite"),
        ({"camera_path": [{"camera_to_world": [1.0] * 15, "fov": 50}]}, r"\[0\].*16 finite"),
        ({"camera_path": [{"camera_to_world": [2.0] * 16, "fov": 50}]}, "rotation"),
        ({"camera_path": [{"camera_to_world": np.eye(4).tolist(), "fov": 180}]}, "fov"),
        ({"camera_path": [7]}, "object"),
    ],
)
def test_broken_path_files_are_named(tmp_path, change, message):
    (tmp_path / "p.json").write_text(json.dumps({**nerfstudio_path(), **change}))
    with pytest.raises(DataError, match=message):
        load_path(tmp_path / "p.json")


def test_nan_in_a_path_file_is_refused(tmp_path):
    value = nerfstudio_path()
    value["camera_path"][0]["camera_to_world"][3] = math.nan
    (tmp_path / "p.json").write_text(json.dumps(value))
    with pytest.raises(DataError, match="finite"):
        load_path(tmp_path / "p.json")


def test_the_kind_of_path_follows_the_cameras() -> None:
    assert paths.suggested(ring()) == "orbit"
    side_by_side = [
        camera(looking((x, 0.0, z), (x, 10.0, z))) for x in range(-2, 3) for z in range(-1, 2)
    ]
    assert paths.suggested(side_by_side) == "spiral"
    walk = [camera(looking((0.1 * math.sin(i), i, 0.0), (0.0, i + 5.0, 0.0))) for i in range(10)]
    assert paths.suggested(walk) == "interpolate"  # a spiral would leave the corridor
    outward = [camera(looking((0.1 * math.cos(a), 0.1 * math.sin(a), 0.0),
                              (5 * math.cos(a), 5 * math.sin(a), 0.0)))
               for a in np.linspace(0, 6, 9)]  # fmt: skip
    assert paths.suggested(outward) == "interpolate"  # they look at nothing in common


def test_a_spiral_looks_at_the_focus_it_is_given() -> None:
    cameras = [camera(looking((x, 0.0, z), (x, 10.0, z))) for x in (-1, 0, 1) for z in (-1, 0, 1)]
    for pose in (c.c2w.double() for c in paths.spiral(cameras, num_frames=7, focus=60.0)):
        toward = torch.tensor([0.0, 60.0, 0.0]) - pose[:3, 3]
        angle = torch.linalg.cross(-pose[:3, 2], toward / toward.norm()).norm()
        assert float(angle) < 1e-5  # float32's rounding of a direction
