"""Cameras nobody photographed from: between training cameras, and around them.

The distribution, in words. A training camera is drawn, each as likely as any other. With the
probability ``between`` one of its neighbours is drawn, too, and the new camera lies on the straight
line between both, at a place drawn evenly; its rotation is turned the same share of the way
(spherical linear interpolation). Otherwise it is at the training camera itself. Then it strays: its
position evenly within a ball whose radius is the share ``jitter`` of the distance to the neighbour,
its rotation by a turn about an axis of any direction, up to ``turn`` degrees. Picture size,
intrinsics and time are those of the first camera.

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

    @property
    def in_one_place(self) -> bool:
        """Whether no camera has a neighbour that stands elsewhere."""
        return all(
            bool((self.positions[i] == self.positions[near]).all())
            for i, near in enumerate(self.neighbours)
        )

    def draw(self, generator: torch.Generator) -> Camera:
        """One camera; takes the same number of random numbers each time."""
        u = torch.rand(10, generator=generator, dtype=torch.float64)
        choice, kind, other, share = u[:4].tolist()
        first = min(int(choice * len(self.cameras)), len(self.cameras) - 1)
        near = self.neighbours[first]
        position, quat, reach = self.positions[first], self.quats[first], 0.0
        if near:
            second = near[min(int(other * len(near)), len(near) - 1)]
            reach = self.spread.jitter * float((self.positions[second] - position).norm())
            if kind < self.spread.between:
                position = torch.lerp(position, self.positions[second], share)
                quat = slerp(quat, self.quats[second], share)
        turn = math.radians(self.spread.turn) * _in_ball(u[7:])
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3] = rotation_from_quat(quat) @ se3_exp(torch.cat([0 * turn, turn]))[:3, :3]
        pose[:3, 3] = position + reach * _in_ball(u[4:7])
        camera = self.cameras[first]
        return replace(camera, c2w=pose.to(camera.c2w))


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
    first: Float[Tensor, " 4"], second: Float[Tensor, " 4"], share: float
) -> Float[Tensor, " 4"]:
    """The unit quaternion ``share`` of the short way round from ``first`` to ``second``
    (Shoemake 1985)."""
    cosine = float((first * second).sum())
    if cosine < 0:
        second, cosine = -second, -cosine
    angle = math.acos(min(cosine, 1.0))
    if angle < 1e-6:  # sines would be divided by nearly 0; the chord is as good as the arc
        return torch.nn.functional.normalize(torch.lerp(first, second, share), dim=0)
    before, after = math.sin((1 - share) * angle), math.sin(share * angle)
    return (before * first + after * second) / math.sin(angle)


def _in_ball(u: Float[Tensor, " 3"]) -> Float[Tensor, " 3"]:
    """A point evenly in the unit ball, from three numbers evenly in 0..1."""
    z, turn, radius = 2 * float(u[0]) - 1, 2 * math.pi * float(u[1]), float(u[2]) ** (1 / 3)
    flat = math.sqrt(max(0.0, 1 - z * z))
    return radius * u.new_tensor([flat * math.cos(turn), flat * math.sin(turn), z])
