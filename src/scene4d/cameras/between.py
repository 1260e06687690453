"""Cameras nobody photographed from: between training cameras, and around them.

The distribution, in words. A training camera is drawn, each as likely as any other. With the
probability ``between`` one of its neighbours is drawn, too, and the new camera lies on the straight
line between both, at a place drawn evenly; its rotation is turned the same share of the way
(spherical linear interpolation). Otherwise it is at the training camera itself. Then it strays: its
position evenly within a ball whose radius is the share ``jitter`` of the distance to the neighbour,
its rotation by a turn about an axis of any direction, up to ``turn`` degrees. Picture size and
intrinsics are those of the first camera. Where all cameras have a time, the new one's lies the same
share of the way between both cameras'; but with the probability ``any_time`` it is drawn evenly
from the first to the last of all, so that every place is also seen at other times than the
capture's.

Neighbours of a camera are the four nearest that are turned by less than a right angle from it;
near means a small sum of distance (in extents of the cameras) and turn (in radians). So no camera
looks from where the training cameras did not look from, but for the jitter; a camera without
neighbours (the only one, or one that looks elsewhere than all others) is only turned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.cameras.poses import se3_exp
from scene4d.cameras.quaternions import rotation_from_quat
from scene4d.cameras.splines import quaternion_from_rotation

NUM_NEIGHBOURS = 4
LARGEST_TURN = math.pi / 2
"""Between neighbours, radians: the line between cameras that look at one thing from further apart
leads through the thing."""
_ROWS_AT_ONCE = 512


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How cameras spread over and around the training cameras; see the module's docstring."""

    between: float = 0.7
    """Probability of a place between two training cameras."""
    jitter: float = 0.25
    """Of positions, as a share of the distance to the neighbour."""
    turn: float = 3.0
    """Of rotations, degrees."""
    any_time: float = 0.5
    """Probability of a time that has nothing to do with the place."""


class CamerasBetween:
    """Draws cameras that see what the training cameras see."""

    def __init__(self, cameras: Sequence[Camera], spread: Spread) -> None:
        """``cameras``: at least one."""
        self.cameras = cameras
        self.spread = spread
        poses = torch.stack([camera.c2w for camera in cameras]).double().cpu()
        self.positions = poses[:, :3, 3]
        self.rotations = poses[:, :3, :3]
        self.quats = quaternion_from_rotation(self.rotations)
        self.neighbours = neighbours_of(self.positions, self.rotations)
        """Of each camera, nearest first."""
        most = max(1, *(len(near) for near in self.neighbours))
        rows = [near + [i] * (most - len(near)) for i, near in enumerate(self.neighbours)]
        times = [camera.time for camera in cameras if camera.time is not None]
        self.times = torch.stack(times).double().cpu() if len(times) == len(cameras) else None
        """Seconds; None unless every camera has one."""
        self._near = torch.tensor(rows)
        self._num_near = torch.tensor([len(near) for near in self.neighbours])

    @property
    def in_one_place(self) -> bool:
        """Whether no camera has a neighbour that stands elsewhere."""
        return all(
            bool((self.positions[i] == self.positions[near]).all())
            for i, near in enumerate(self.neighbours)
        )

    def draw(self, generator: torch.Generator, count: int = 1) -> list[Camera]:
        """``count`` cameras; takes the same number of random numbers for each."""
        u = torch.rand(count, 10, generator=generator, dtype=torch.float64)
        choice, kind, other, share = u[:, :4].T
        first = (choice * len(self.cameras)).long().clamp_max(len(self.cameras) - 1)
        num_near = self._num_near[first]
        at = torch.minimum((other * num_near).long(), (num_near - 1).clamp_min(0))
        second = self._near[first, at]  # itself where there is no neighbour
        moves = ((kind < self.spread.between) & (num_near > 0)) * share
        positions = torch.lerp(self.positions[first], self.positions[second], moves[:, None])
        quats = slerp(self.quats[first], self.quats[second], moves)
        reach = (self.positions[second] - self.positions[first]).norm(dim=-1, keepdim=True)
        turns = math.radians(self.spread.turn) * _in_ball(u[:, 7:])
        poses = se3_exp(torch.cat([torch.zeros_like(turns), turns], dim=-1))
        poses[:, :3, :3] = rotation_from_quat(quats) @ poses[:, :3, :3]
        poses[:, :3, 3] = positions + self.spread.jitter * reach * _in_ball(u[:, 4:7])
        cameras = [self.cameras[i] for i in first.tolist()]
        made = [
            replace(camera, c2w=pose.to(camera.c2w))
            for camera, pose in zip(cameras, poses, strict=True)
        ]
        if self.times is None:
            return made
        times = torch.lerp(self.times[first], self.times[second], moves)
        free, when = torch.rand(count, 2, generator=generator, dtype=torch.float64).T
        anywhen = torch.lerp(self.times.min(), self.times.max(), when)
        times = torch.where(free < self.spread.any_time, anywhen, times)
        return [replace(c, time=t.to(c.c2w)) for c, t in zip(made, times, strict=True)]


def neighbours_of(
    positions: Float[Tensor, "n 3"], rotations: Float[Tensor, "n 3 3"]
) -> list[list[int]]:
    """The neighbours of each camera, nearest first, as the module's docstring defines them."""
    count = len(positions)
    extent = float((positions - positions.mean(dim=0)).norm(dim=-1).max()) or 1.0
    flat = rotations.reshape(count, 9)
    found = []
    for start in range(0, count, _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        turns = ((flat[rows] @ flat.T - 1) / 2).clamp(-1, 1).acos()
        far = torch.cdist(positions[rows], positions) / extent + turns
        far[turns >= LARGEST_TURN] = math.inf
        here = torch.arange(start, start + len(far))
        far[here - start, here] = math.inf
        values, order = far.topk(min(NUM_NEIGHBOURS, count), dim=-1, largest=False)
        found += [o[v.isfinite()].tolist() for v, o in zip(values, order, strict=True)]
    return found


def slerp(
    first: Float[Tensor, "*batch 4"],
    second: Float[Tensor, "*batch 4"],
    share: Float[Tensor, " *batch"],
) -> Float[Tensor, "*batch 4"]:
    """The unit quaternions ``share`` of the short way round from ``first`` to ``second``
    (Shoemake 1985)."""
    cosine = (first * second).sum(dim=-1, keepdim=True)
    second = torch.where(cosine < 0, -second, second)
    angle = cosine.abs().clamp_max(1.0).acos()
    share = share[..., None]
    # Sines would be divided by nearly 0 there; the chord is as good as the arc.
    close = angle < 1e-6
    chord = torch.nn.functional.normalize(torch.lerp(first, second, share), dim=-1)
    before, after = ((1 - share) * angle).sin(), (share * angle).sin()
    arc = (before * first + after * second) / torch.where(close, 1.0, angle.sin())
    return torch.where(close, chord, arc)


def _in_ball(u: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Points evenly in the unit ball, from three numbers evenly in 0..1 each."""
    z, turn, radius = 2 * u[..., 0] - 1, 2 * math.pi * u[..., 1], u[..., 2] ** (1 / 3)
    flat = (1 - z * z).clamp_min(0.0).sqrt()
    return radius[..., None] * torch.stack([flat * turn.cos(), flat * turn.sin(), z], dim=-1)
