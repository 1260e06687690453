"""DyCheck's omega: how fast a camera goes around what it looks at.

Gao et al., "Monocular dynamic view synthesis: a reality check", NeurIPS 2022, eq. 2.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.data.scene import Scene
from scene4d.data.trajectories import trajectories


def angular_rate(scene: Scene) -> float | None:
    """DyCheck's omega in degrees a second: how fast the training camera turns around the point that
    it looks at; the mean over training cameras. None where no camera has two times."""
    paths = trajectories(scene, scene.train_indices)
    rates = [camera_rate([scene.frames[i].camera for i in path]) for path in paths]
    known = [rate for rate in rates if rate is not None]
    return statistics.fmean(known) if known else None


def camera_rate(cameras: Sequence[Camera]) -> float | None:
    """Omega of one camera's poses in the order of time (Gao et al. 2022, eq. 2): the mean angle
    between successive directions to the point nearest to all optical axes, times the frame rate."""
    if len(cameras) < 2:
        return None
    times = torch.stack([c.time for c in cameras if c.time is not None]).double()
    positions = torch.stack([c.position for c in cameras]).double()
    axes = torch.stack([-c.c2w[:3, 2] for c in cameras]).double()
    steps = times.diff()
    if len(times) < len(cameras) or not bool((steps > 0).any()):
        return None
    directions = _nearest_to_rays(positions, axes) - positions
    directions = directions / directions.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    # the chord: an arc cosine has no digits for small angles
    chords = (directions[1:] - directions[:-1]).norm(dim=-1)
    angles = 2 * (chords / 2).clamp_max(1.0).asin()
    return float(torch.rad2deg(angles.mean()) / steps[steps > 0].median())


def _nearest_to_rays(
    origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]
) -> Float[Tensor, " 3"]:
    """The point with the least sum of squared distances to lines; among several, that nearest to
    the origins' mean."""
    across = torch.eye(3).to(origins) - directions[:, :, None] * directions[:, None, :]
    centre = origins.mean(dim=0)
    right = (across @ (origins - centre)[..., None]).sum(dim=0)
    return centre + (torch.linalg.pinv(across.sum(dim=0), rtol=1e-9) @ right)[:, 0]
