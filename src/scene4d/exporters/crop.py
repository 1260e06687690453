"""Splats far away that the pictures hardly show, left out of an export.

Training leaves splats where no picture tells against them: behind what is seen, or hundreds of
times as far away as the cameras stand apart. Pictures of the capture do not show them, but a viewer
that frames the whole file does, and formats with a box for all positions spend their bits on them.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from scene4d.cameras.camera import Camera
from scene4d.errors import UsageError
from scene4d.formats.packing import taken
from scene4d.representations.blending_weights import largest_weights
from scene4d.representations.gaussians import GaussianSplats
from scene4d.training.opened import OpenedScene

SHOWN = 0.999
"""Of the training pictures: what lies in the ball around the cameras that is kept."""
_LOOKS, _SIZE = 32, 256
_log = logging.getLogger("scene4d")


def auto_cropped(source: OpenedScene) -> OpenedScene:
    """``source`` as plain splats, without those beyond the ball around the cameras which holds
    :data:`SHOWN` of what the training pictures show, by blending weights; says how many.

    Raises :class:`UsageError` for files, which have no cameras, and for scenes without splats.
    """
    cameras, cloud = source.cameras.train, source.representation.splats()
    if cloud is None or not cameras:
        raise UsageError(
            "--crop auto goes by the training cameras of a run that is made of splats",
            where=source.path,
            fix="give a run, or crop a file with scene4d convert --crop",
        )
    splats = GaussianSplats.of(cloud)
    step = max(1, -(-len(cameras) // _LOOKS))
    weights = largest_weights(splats, [_small(camera) for camera in cameras[::step]]).cpu()
    centre = torch.stack([camera.position for camera in cameras]).mean(dim=0)
    distances = (splats.means.detach() - centre).norm(dim=-1).cpu()
    order = distances.argsort()
    total = weights[order].double().cumsum(dim=0)
    held = int(torch.searchsorted(total, SHOWN * total[-1])) + 1
    kept = (distances <= distances[order[min(held, len(order)) - 1]]).numpy()
    _log.info(
        "--crop auto: %d of %d splats lie beyond what makes up %g %% of the training pictures",
        len(cloud) - int(kept.sum()), len(cloud), 100 * SHOWN,
    )  # fmt: skip
    return replace(source, representation=GaussianSplats.of(taken(cloud, kept)))


def _small(camera: Camera) -> Camera:
    shrink = max(1.0, max(camera.width, camera.height) / _SIZE)
    return camera.resized(
        max(1, round(camera.width / shrink)), max(1, round(camera.height / shrink))
    )
