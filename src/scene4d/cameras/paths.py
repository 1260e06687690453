"""Camera paths for renders: spirals, orbits, flights through the captured cameras, and their files.

Every path is a list of single undistorted cameras of one image size, with OpenGL camera-to-world
in the frame of the cameras that it was made from.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from scene4d.cameras.camera import Camera
from scene4d.cameras.path_times import in_time_order
from scene4d.cameras.splines import CubicSpline, RotationSpline, quaternion_from_rotation
from scene4d.errors import Scene4dError

_PARALLEL = 1e-4
"""Optical axes whose directions vary by less than 0.01 rad (squared) meet nowhere that counts."""


_HALF_CIRCLE = 0.64
"""Length of the mean of directions that are spread evenly over half a circle: 2 / pi."""
_ONE_WAY = 0.94
"""The same over a cone of 28 degrees to all sides."""


def spiral(
    cameras: Sequence[Camera],
    *,
    num_frames: int,
    bounds: tuple[float, float] | None = None,
    focus: float | None = None,
    rotations: int = 2,
    depth_rate: float = 0.5,
    percentile: float = 0.9,
) -> list[Camera]:
    """A closed spiral around the average camera, for forward-facing captures.

    Radii are the ``percentile`` of the cameras' offsets along each axis of the average camera;
    every frame looks at the point at the harmonic mean of ``bounds`` (near, far; scene units),
    taken at 0.9 near and 5 far with weights 1/4 and 3/4. Without bounds it is ``focus`` away, by
    default the distance at which the cameras' axes meet. ``depth_rate`` is the share of the
    turns that the motion in depth makes. Mildenhall et al., "Local Light
    Field Fusion", 2019, and its rendering script.
    """
    poses = _poses(cameras, num_frames)
    average = _average_pose(poses)
    if bounds is not None:
        focus = _harmonic_focus(*bounds)
    elif focus is None:
        focus = _focus(poses)[1]
    offsets = (poses[:, :3, 3] - average[:3, 3]) @ average[:3, :3]
    radii = offsets.abs().quantile(percentile, dim=0)
    if float(radii[:2].max()) < 1e-6 * focus:
        radii = radii.new_tensor([0.05 * focus, 0.05 * focus, 0.0])
    angle = torch.arange(num_frames, dtype=torch.float64) * (2 * math.pi * rotations / num_frames)
    local = torch.stack([angle.cos(), -angle.sin(), -(angle * depth_rate).sin()], -1) * radii
    positions = local @ average[:3, :3].T + average[:3, 3]
    target = average[:3, 3] - focus * average[:3, 2]
    frames = _look_at(positions, target.expand_as(positions), _up(poses))
    return _path(cameras, frames)


def orbit(cameras: Sequence[Camera], *, num_frames: int) -> list[Camera]:
    """A full circle around the point nearest to all optical axes, looking at that point.

    The circle lies at the cameras' mean height along the mean of their up axes and at their mean
    distance from the point, and starts beside the first camera. Cameras that look in parallel
    (a planar light field, a single photo) give a point straight ahead of their centre.
    """
    poses = _poses(cameras, num_frames)
    centre = _focus(poses)[0]
    up = _up(poses)
    offsets = poses[:, :3, 3] - centre
    distance = float(offsets.norm(dim=-1).mean())
    height = float((offsets @ up).mean())
    height = math.copysign(min(abs(height), 0.98 * distance), height)
    start = offsets[0] - (offsets[0] @ up) * up
    if float(start.norm()) < 1e-6 * distance:
        start = poses[0, :3, 0] - (poses[0, :3, 0] @ up) * up
    start = normalize(start, dim=0)
    side = torch.linalg.cross(up, start)
    angle = torch.arange(num_frames, dtype=torch.float64) * (2 * math.pi / num_frames)
    circle = angle.cos()[:, None] * start + angle.sin()[:, None] * side
    positions = centre + height * up + math.sqrt(distance**2 - height**2) * circle
    return _path(cameras, _look_at(positions, centre.expand_as(positions), up))


def interpolate(
    cameras: Sequence[Camera],
    *,
    num_frames: int,
    smoothing: float = 0.0,
    loop: bool = False,
    order: Literal["given", "nearest"] = "given",
) -> list[Camera]:
    """A flight through the cameras, at nearly constant speed along a twice differentiable curve.

    Positions and rotations are cubic splines over the distance travelled; intrinsics are
    interpolated linearly. ``smoothing`` is a width in cameras: 0 passes through every camera, 2
    averages over about two neighbours to either side. ``loop`` returns to the first camera (the
    last frame comes one step before it). ``order`` "nearest" goes from each camera to the nearest
    that was not yet visited, for photos taken in no order.

    Cameras of which each is later than the one before are one camera's way, and the flight goes at
    that one's pace: time runs evenly, and the pose is that of the time. Where times go back
    (several cameras one after another, a loop) they run evenly from the first to the last, too.
    """
    poses = _poses(cameras, num_frames)
    if smoothing < 0:
        raise ValueError(f"smoothing must not be negative, got {smoothing}")
    cameras = list(cameras)
    if order == "nearest":
        visit = nearest_order(cameras)
        cameras, poses = [cameras[i] for i in visit], poses[visit]
    knots, keep, period = _knots(poses, loop=loop)
    pace = None if loop or not in_time_order(cameras) else _pace(cameras, knots, keep, num_frames)
    times, cameras, poses = (
        _even_times(cameras, num_frames),
        [cameras[i] for i in keep],
        poses[keep],
    )
    strength = float(smoothing) ** 4
    positions = CubicSpline(knots, poses[:, :3, 3], smoothing=strength, period=period)
    rotations = RotationSpline(knots, poses[:, :3, :3], smoothing=strength, period=period)
    end = float(knots[-1]) if period is None else period
    at = pace
    if at is None:
        at = _even_arc(positions, rotations, end=end, num_frames=num_frames, closed=loop)
    frames = torch.eye(4, dtype=torch.float64).repeat(num_frames, 1, 1)
    frames[:, :3, :3], frames[:, :3, 3] = rotations(at), positions(at)
    flight = _with_intrinsics(cameras, frames, knots=knots, at=at, period=period)
    return _timed(flight, times)


def suggested(cameras: Sequence[Camera]) -> Literal["orbit", "spiral", "interpolate"]:
    """The kind of path that fits the cameras' places.

    An orbit where they look at one point from half a circle or more around it; a spiral where all
    look the same way and stand side by side; otherwise a flight through them, which leaves neither
    their places nor what they saw.
    """
    poses = _poses(cameras, 1)
    forward = -poses[:, :3, 2]
    common = float(forward.mean(0).norm())
    point, distance = _focus(poses)
    offsets = point - poses[:, :3, 3]
    along = (offsets * forward).sum(-1)
    missed = (offsets - along[:, None] * forward).norm(dim=-1)
    meet = float((along > 0).double().mean()) >= 0.9 and float(missed.median()) < 0.25 * distance
    if common < _HALF_CIRCLE and meet:
        return "orbit"
    average = _average_pose(poses)
    spread = ((poses[:, :3, 3] - average[:3, 3]) @ average[:3, :3]).square().mean(0).sqrt()
    aside = float(spread[:2].norm())
    return "spiral" if common > _ONE_WAY and float(spread[2]) <= aside else "interpolate"


def focus_point(cameras: Sequence[Camera]) -> tuple[Float[Tensor, " 3"], float]:
    """The point nearest to all optical axes and its mean distance to the cameras.

    Cameras that look in parallel, or away from each other, give a point straight ahead of their
    centre, four times their spread away (1 for cameras in one place).
    """
    return _focus(_poses(cameras, 1))


def up_axis(cameras: Sequence[Camera]) -> Float[Tensor, " 3"]:
    """The mean up axis of the cameras, unit length; the first camera's where they cancel out."""
    return _up(_poses(cameras, 1))


def nearest_order(cameras: Sequence[Camera]) -> list[int]:
    """Indices of the cameras such that each is followed by the nearest one not yet visited.

    Starts at the camera farthest from the middle of them all.
    """
    positions = _poses(cameras, 1)[:, :3, 3]
    here = int((positions - positions.mean(0)).norm(dim=-1).argmax())
    order, left = [here], set(range(len(cameras))) - {here}
    while left:
        candidates = sorted(left)
        distances = (positions[candidates] - positions[here]).norm(dim=-1)
        here = candidates[int(distances.argmin())]
        order.append(here)
        left.remove(here)
    return order


def _poses(cameras: Sequence[Camera], num_frames: int) -> Float[Tensor, "num_cameras 4 4"]:
    """The cameras' poses in double precision on the CPU. Raises for no cameras or no frames."""
    if not cameras:
        raise Scene4dError("there is no camera to make a path from")
    if num_frames < 1:
        raise ValueError(f"a path needs at least one frame, got {num_frames}")
    return torch.stack([camera.c2w.detach().cpu().double() for camera in cameras])


def _look_at(
    positions: Float[Tensor, "num_frames 3"],
    targets: Float[Tensor, "num_frames 3"],
    up: Float[Tensor, " 3"],
) -> Float[Tensor, "num_frames 4 4"]:
    """Camera-to-world (OpenGL) at ``positions`` looking at ``targets``, as upright as possible."""
    back = normalize(positions - targets, dim=-1)
    right = torch.linalg.cross(up.expand_as(back), back)
    spare = torch.linalg.cross(_perpendicular(up).expand_as(back), back)
    right = torch.where(right.norm(dim=-1, keepdim=True) < 1e-6, spare, right)
    right = normalize(right, dim=-1)
    frames = torch.eye(4, dtype=positions.dtype).repeat(len(positions), 1, 1)
    frames[:, :3, :3] = torch.stack([right, torch.linalg.cross(back, right), back], dim=-1)
    frames[:, :3, 3] = positions
    return frames


def _perpendicular(axis: Float[Tensor, " 3"]) -> Float[Tensor, " 3"]:
    """Some unit vector at a right angle to ``axis``."""
    smallest = torch.eye(3, dtype=axis.dtype)[axis.abs().argmin()]
    return normalize(torch.linalg.cross(axis, smallest), dim=0)


def _mean_axis(poses: Float[Tensor, "num_cameras 4 4"], column: int) -> Float[Tensor, " 3"]:
    """The mean direction of one camera axis; the first camera's where they cancel out."""
    mean = poses[:, :3, column].mean(0)
    return normalize(mean if float(mean.norm()) > 1e-3 else poses[0, :3, column], dim=0)


def _up(poses: Float[Tensor, "num_cameras 4 4"]) -> Float[Tensor, " 3"]:
    """The mean up axis of the cameras, unit length."""
    return _mean_axis(poses, 1)


def _average_pose(poses: Float[Tensor, "num_cameras 4 4"]) -> Float[Tensor, "4 4"]:
    """The pose at the cameras' mean position, looking along their mean direction."""
    position = poses[:, :3, 3].mean(0)
    return _look_at(position[None], (position - _mean_axis(poses, 2))[None], _up(poses))[0]


def _focus(poses: Float[Tensor, "num_cameras 4 4"]) -> tuple[Float[Tensor, " 3"], float]:
    """The point nearest to all optical axes (least squares) and its mean distance to the cameras.

    Where the axes are parallel or meet behind the cameras: a point straight ahead of their centre,
    four times their spread away (1 for cameras in one place).
    """
    positions, forward = poses[:, :3, 3], -poses[:, :3, 2]
    across = torch.eye(3, dtype=poses.dtype) - forward[:, :, None] * forward[:, None, :]
    normal = across.mean(0)
    if float(torch.linalg.eigvalsh(normal)[0]) > _PARALLEL:
        point = torch.linalg.solve(normal, (across @ positions[..., None]).mean(0)[:, 0])
        if float(((point - positions) * forward).sum(-1).mean()) > 0:
            return point, float((positions - point).norm(dim=-1).mean())
    centre = positions.mean(0)
    spread = float((positions - centre).norm(dim=-1).square().mean().sqrt())
    distance = 4 * spread if spread > 1e-9 else 1.0
    return centre - distance * _mean_axis(poses, 2), distance


def _harmonic_focus(near: float, far: float) -> float:
    """LLFF's focus distance for these depth bounds."""
    if not 0 < near <= far < math.inf:
        raise ValueError(f"depth bounds must be 0 < near <= far, got {near} and {far}")
    return 1 / (0.25 / (0.9 * near) + 0.75 / (5 * far))


def _common_size(cameras: Sequence[Camera]) -> tuple[int, int]:
    """The most common (width, height)."""
    return Counter((camera.width, camera.height) for camera in cameras).most_common(1)[0][0]


def _fitted(camera: Camera, width: int, height: int) -> Float[Tensor, "3 3"]:
    """Intrinsics of the picture scaled to cover ``width`` x ``height``, centre on centre."""
    scale = max(width / camera.width, height / camera.height)
    intrinsics = camera.K.detach().cpu().double() * scale
    intrinsics[0, 2] += (width - scale * camera.width) / 2
    intrinsics[1, 2] += (height - scale * camera.height) / 2
    intrinsics[2, 2] = 1
    return intrinsics


def _path(cameras: Sequence[Camera], frames: Float[Tensor, "num_frames 4 4"]) -> list[Camera]:
    """Cameras at ``frames`` with the median focal length, centred, from the first time to the last.

    The principal point is put into the middle so that what the path looks at stays in the middle.
    """
    width, height = _common_size(cameras)
    fitted = torch.stack([_fitted(camera, width, height) for camera in cameras])
    intrinsics = torch.eye(3, dtype=torch.float64)
    intrinsics[0, 0], intrinsics[1, 1] = fitted[:, 0, 0].median(), fitted[:, 1, 1].median()
    intrinsics[0, 2], intrinsics[1, 2] = width / 2, height / 2
    path = _cameras(cameras[0], frames, intrinsics.expand(len(frames), 3, 3), (width, height))
    return _timed(path, _even_times(cameras, len(frames)))


def _cameras(
    like: Camera,
    frames: Float[Tensor, "num_frames 4 4"],
    intrinsics: Float[Tensor, "num_frames 3 3"],
    size: tuple[int, int],
) -> list[Camera]:
    """Single cameras with the number type and device of ``like``, without a time."""
    frames, intrinsics = frames.to(like.c2w), intrinsics.to(like.K)
    base = replace(like, width=size[0], height=size[1], distortion=None, time=None)
    return [replace(base, c2w=c, K=k) for c, k in zip(frames, intrinsics, strict=True)]


def _timed(path: Sequence[Camera], times: Float[Tensor, " num_frames"] | None) -> list[Camera]:
    """The cameras with these times, or with none."""
    if times is None:
        return list(path)
    return [replace(c, time=t.to(c.c2w)) for c, t in zip(path, times, strict=True)]


def _times(cameras: Sequence[Camera]) -> Float[Tensor, " num_cameras"] | None:
    """The cameras' times, or None unless every camera has one."""
    times = [camera.time for camera in cameras if camera.time is not None]
    if len(times) < len(cameras):
        return None
    return torch.stack([time.detach().cpu().double() for time in times])


def _even_times(cameras: Sequence[Camera], num_frames: int) -> Float[Tensor, " num_frames"] | None:
    """From the cameras' first time to their last, evenly; None unless every camera has one."""
    times = _times(cameras)
    if times is None:
        return None
    return torch.linspace(float(times.min()), float(times.max()), num_frames, dtype=torch.float64)


def _pace(
    cameras: Sequence[Camera],
    knots: Float[Tensor, " num_keys"],
    keep: Sequence[int],
    num_frames: int,
) -> Float[Tensor, " num_frames"]:
    """Where along the path its cameras were at evenly spread times; a camera that is not in
    ``keep`` is where the one before it is."""
    times, even = _times(cameras), _even_times(cameras, num_frames)
    assert times is not None and even is not None
    kept = torch.zeros(len(cameras), dtype=torch.long)
    kept[list(keep)[1:]] = 1
    return _interp(even, times, knots[kept.cumsum(0)])


def _turns(
    before: Float[Tensor, "num_pairs 3 3"], after: Float[Tensor, "num_pairs 3 3"]
) -> Float[Tensor, " num_pairs"]:
    """Angles between pairs of rotations, radians."""
    cosine = (quaternion_from_rotation(before) * quaternion_from_rotation(after)).sum(-1)
    return 2 * cosine.abs().clamp(max=1).acos()


def _steps(frames: Float[Tensor, "num_frames 4 4"]) -> Float[Tensor, " num_steps"]:
    """How far apart successive poses are: the way travelled, plus a fifth of the whole for turning.

    The turning part keeps a camera that pans on the spot from doing so in no time.
    """
    way = frames[:, :3, 3].diff(dim=0).norm(dim=-1)
    turn = _turns(frames[:-1, :3, :3], frames[1:, :3, :3])
    # Below these, poses differ by rounding only: acos near 1 turns 1e-16 into 1e-8 rad.
    turn = torch.where(turn > 1e-6, turn, torch.zeros_like(turn))
    if float(turn.sum()) == 0:
        return way
    whole = float(way.sum())
    return way + turn * (0.25 * whole / float(turn.sum()) if whole > 0 else 1.0)


def _knots(
    poses: Float[Tensor, "num_cameras 4 4"], *, loop: bool
) -> tuple[Float[Tensor, " num_keys"], list[int], float | None]:
    """Where along the path each camera lies, which cameras to keep, and the length of the loop.

    In units of the mean step, so that smoothing does not depend on the scene's scale. A camera in
    the same pose as the one before it is left out, unless they all are.
    """
    closed = torch.cat([poses, poses[:1]]) if loop else poses
    steps = _steps(closed)
    if len(steps) == 0 or float(steps.max()) <= 1e-12:
        count = len(poses)
        return torch.arange(count).double(), list(range(count)), float(count) if loop else None
    moved = steps > 1e-6 * steps.mean()
    keep = [0] + [i + 1 for i in range(len(poses) - 1) if bool(moved[i])]
    if loop and len(keep) > 1 and not bool(moved[-1]):
        keep = keep[:-1]
    kept = torch.cat([poses[keep], poses[:1]]) if loop else poses[keep]
    steps = _steps(kept)
    along = torch.cat([steps.new_zeros(1), steps.cumsum(0)]) / steps.mean()
    return (along[:-1], keep, float(along[-1])) if loop else (along, keep, None)


def _even_arc(
    positions: CubicSpline,
    rotations: RotationSpline,
    *,
    end: float,
    num_frames: int,
    closed: bool,
) -> Float[Tensor, " num_frames"]:
    """Parameters at which the path has gone equal shares of its way (by :func:`_steps`)."""
    fine = torch.linspace(0, end, max(2000, 40 * len(positions.ends)) + 1, dtype=torch.float64)
    frames = torch.eye(4, dtype=torch.float64).repeat(len(fine), 1, 1)
    frames[:, :3, :3], frames[:, :3, 3] = rotations(fine), positions(fine)
    gone = torch.cat([fine.new_zeros(1), _steps(frames).cumsum(0)])
    share = torch.linspace(0, 1, num_frames + closed, dtype=torch.float64)[:num_frames]
    if float(gone[-1]) <= 0:
        return share * end
    return _interp(share * gone[-1], gone, fine)


def _interp(
    at: Float[Tensor, " num_samples"], x: Float[Tensor, " num_keys"], y: Float[Tensor, " num_keys"]
) -> Float[Tensor, " num_samples"]:
    """``y`` at ``at``, linear between the ascending ``x``, constant outside."""
    if len(x) == 1:
        return y.expand(len(at))
    index = (torch.searchsorted(x, at, right=True) - 1).clamp(0, len(x) - 2)
    width = (x[index + 1] - x[index]).clamp_min(torch.finfo(x.dtype).tiny)
    share = ((at - x[index]) / width).clamp(0, 1)
    return y[index] + share * (y[index + 1] - y[index])


def _with_intrinsics(
    cameras: Sequence[Camera],
    frames: Float[Tensor, "num_frames 4 4"],
    *,
    knots: Float[Tensor, " num_keys"],
    at: Float[Tensor, " num_frames"],
    period: float | None,
) -> list[Camera]:
    """Cameras at ``frames`` whose intrinsics run linearly between those of the keys."""
    width, height = _common_size(cameras)
    keys = torch.stack([_fitted(camera, width, height) for camera in cameras]).flatten(1)
    if period is not None:
        knots, keys = torch.cat([knots, knots[:1] + period]), torch.cat([keys, keys[:1]])
    columns = [_interp(at, knots, column) for column in keys.T]
    intrinsics = torch.stack(columns, dim=-1).reshape(-1, 3, 3)
    return _cameras(cameras[0], frames, intrinsics, (width, height))
