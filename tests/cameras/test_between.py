"""Cameras between training cameras: their distribution is the one that the module states."""

import math
from dataclasses import replace

import pytest
import torch

from scene4d.cameras.between import CamerasBetween, Spread, neighbours_of, slerp
from scene4d.cameras.camera import Camera
from scene4d.cameras.poses import rotation_error, se3_exp
from scene4d.cameras.quaternions import rotation_from_quat


def looking_at_origin(position, size=(40, 30), focal=50.0) -> Camera:
    back = torch.nn.functional.normalize(torch.tensor(position, dtype=torch.float64), dim=0)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    right = torch.nn.functional.normalize(torch.linalg.cross(up, back), dim=0)
    c2w = torch.eye(4, dtype=torch.float64)
    c2w[:3] = torch.stack(
        [right, torch.linalg.cross(back, right), back, torch.tensor(position).double()], dim=1
    )
    K = torch.tensor([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1.0]])
    return Camera(c2w=c2w.float(), K=K, width=size[0], height=size[1])


def orbit(count, radius=3.0):
    angles = [2 * math.pi * i / count for i in range(count)]
    return [
        looking_at_origin((radius * math.cos(a), radius * math.sin(a), 0.4 * radius))
        for a in angles
    ]


def draws(cameras, spread, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return CamerasBetween(cameras, spread).draw(generator, count)


def turn_between(a, b):
    return float(((torch.trace(a.double().T @ b.double()) - 1) / 2).clamp(-1, 1).acos())


def distance_to_segments(point, cameras):
    """From the nearest segment between two neighbours, as a share of the segment's length."""
    source = CamerasBetween(cameras, Spread())
    best = math.inf
    for i, near in enumerate(source.neighbours):
        for j in near:
            a, b = source.positions[i], source.positions[j]
            t = float(((point - a) @ (b - a) / (b - a).square().sum()).clamp(0, 1))
            best = min(best, float((point - torch.lerp(a, b, t)).norm() / (b - a).norm()))
    return best


def test_without_jitter_cameras_lie_on_the_lines_between_neighbours():
    cameras = orbit(12)
    for camera in draws(cameras, Spread(between=1.0, jitter=0.0, turn=0.0), 60):
        # float32 poses of a scene of size 3
        assert distance_to_segments(camera.position.double(), cameras) < 1e-6
        assert rotation_error(camera.c2w[:3, :3]) < 1e-6


def test_jitter_and_turn_stay_within_their_bounds():
    cameras = orbit(12)
    spread = Spread(between=0.5, jitter=0.25, turn=5.0)
    drawn = draws(cameras, spread, 300)
    strays = [distance_to_segments(c.position.double(), cameras) for c in drawn]
    assert max(strays) <= 0.25 * 2 + 1e-6  # the drawn neighbour may be twice as far as the nearest
    assert max(strays) > 0.1
    # All stay near the circle: none is nearer to the content than 0.6 of the others.
    assert min(float(c.position.norm()) for c in drawn) > 0.6 * 3.0


def test_around_a_camera_positions_fill_a_ball_and_turns_stay_small():
    cameras = orbit(2, radius=1.0)
    # two cameras that look at each other are no neighbours; side by side they are
    cameras = [cameras[0], looking_at_origin((1.0, 0.5, 0.4))]
    reach = 0.2 * float((cameras[0].position - cameras[1].position).norm())
    drawn = draws(cameras, Spread(between=0.0, jitter=0.2, turn=4.0), 2000)
    radii, turns = [], []
    for camera in drawn:
        offsets = [float((camera.position - c.position).norm()) for c in cameras]
        own = cameras[offsets.index(min(offsets))]
        radii.append(min(offsets) / reach)
        turns.append(turn_between(camera.c2w[:3, :3], own.c2w[:3, :3]) / math.radians(4.0))
    for shares in (radii, turns):
        assert max(shares) <= 1 + 1e-3  # acos of float32 matrices
        # Evenly in a ball, the cube of the radius is uniform: mean 1/2, deviation of the mean of
        # 2000 draws sqrt(1/12/2000) = 0.0065; five of them.
        assert abs(sum(r**3 for r in shares) / len(shares) - 0.5) < 0.033


def test_shares_of_the_kinds_and_of_the_way():
    cameras = [looking_at_origin((x, -4.0, 0.0)) for x in (0.0, 1.0)]
    drawn = draws(cameras, Spread(between=0.7, jitter=0.0, turn=0.0), 2000)
    x = torch.stack([c.position[0] for c in drawn])
    strictly = (x > 0) & (x < 1)
    # Binomial: deviation sqrt(0.7 * 0.3 / 2000) = 0.0102; five of them.
    assert abs(float(strictly.float().mean()) - 0.7) < 0.052
    inner = x[strictly]
    # Uniform on the way: each tenth holds 140 +- 11.2; five of them.
    assert (torch.histc(inner, 10, 0, 1) - len(inner) / 10).abs().max() < 57
    # The rotation has turned by the same share as the position has moved.
    whole = turn_between(cameras[0].c2w[:3, :3], cameras[1].c2w[:3, :3])
    for camera in drawn[:50]:
        turned = turn_between(cameras[0].c2w[:3, :3], camera.c2w[:3, :3])
        assert turned == pytest.approx(whole * float(camera.position[0]), abs=2e-3)  # acos near 1


def test_size_intrinsics_and_time_are_a_training_cameras():
    wide = looking_at_origin((0.0, -4.0, 0.0), size=(64, 30), focal=40.0)
    tall = looking_at_origin((0.5, -4.0, 0.0), size=(30, 64), focal=70.0)
    for camera in draws([wide, tall], Spread(), 40):
        own = wide if camera.width == 64 else tall
        assert torch.equal(camera.K, own.K) and camera.height == own.height
        assert camera.time is None and camera.c2w.dtype == torch.float32


def test_times_go_with_the_place_or_are_any():
    """Each place is seen at its own time and, half the time, at any other."""
    cameras = [
        replace(looking_at_origin((x, -4.0, 0.0)), time=torch.tensor(2.0 + x)) for x in (0.0, 1.0)
    ]
    spread = Spread(between=1.0, jitter=0.0, turn=0.0, any_time=0.0)
    for camera in draws(cameras, spread, 50):
        assert float(camera.time) == pytest.approx(2 + float(camera.position[0]), abs=1e-6)
    drawn = draws(cameras, replace(spread, any_time=0.5), 2000)
    time = torch.stack([c.time for c in drawn]) - 2
    free = (time - torch.stack([c.position[0] for c in drawn])).abs() > 1e-5
    # Binomial: deviation sqrt(1/4/2000) = 0.011; five of them.
    assert abs(float(free.float().mean()) - 0.5) < 0.056
    assert (torch.histc(time[free], 4, 0, 1) - int(free.sum()) / 4).abs().max() < 70
    assert float(time.min()) >= 0 and float(time.max()) <= 1


def test_the_same_generator_gives_the_same_cameras():
    first, again = draws(orbit(9), Spread(), 20), draws(orbit(9), Spread(), 20)
    other = draws(orbit(9), Spread(), 20, seed=1)
    assert all(torch.equal(a.c2w, b.c2w) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a.c2w, b.c2w) for a, b in zip(first, other, strict=True))


def test_neighbours_are_near_and_look_the_same_way():
    cameras = orbit(12)
    poses = torch.stack([c.c2w for c in cameras]).double()
    near = neighbours_of(poses[:, :3, 3], poses[:, :3, :3])
    for i, others in enumerate(near):
        assert set(others) == {(i + d) % 12 for d in (-2, -1, 1, 2)}
        assert set(others[:2]) == {(i - 1) % 12, (i + 1) % 12}
    # At one place, looking to opposite sides: near, but not neighbours.
    back = poses[:1].clone()
    back[0, :3, 0] *= -1
    back[0, :3, 2] *= -1
    both = torch.cat([poses[:1], back])
    assert neighbours_of(both[:, :3, 3], both[:, :3, :3]) == [[], []]


@pytest.mark.parametrize("kind", ["one", "one place", "opposite"])
def test_captures_without_neighbours_are_only_turned(kind):
    first = looking_at_origin((0.0, -4.0, 0.0))
    turned = se3_exp(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.3, 0.0]))
    cameras = {
        "one": [first],
        "one place": [first, first.with_pose(first.c2w @ turned)],
        "opposite": [first, looking_at_origin((0.0, 4.0, 0.0))],
    }[kind]
    assert CamerasBetween(cameras, Spread()).in_one_place
    for camera in draws(cameras, Spread(turn=3.0), 50):
        assert any(torch.equal(camera.position, c.position) for c in cameras)
        assert bool(camera.c2w.isfinite().all())
    assert not CamerasBetween(orbit(5), Spread()).in_one_place


def test_slerp_against_the_exponential_map():
    axis = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64)
    for size in (0.0, 1e-9, 0.5, 3.0):
        turn = axis / axis.norm() * size
        zero = torch.zeros(3, dtype=torch.float64)
        half = torch.cat(
            [torch.tensor([math.cos(size / 2)], dtype=torch.float64), axis / axis.norm()]
        )
        half[1:] *= math.sin(size / 2)
        identity = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
        for share in (0.0, 0.3, 1.0):
            found = rotation_from_quat(
                slerp(identity, -half, torch.tensor(share, dtype=torch.float64))
            )
            wanted = se3_exp(torch.cat([zero, share * turn]))[:3, :3]
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)  # float64
