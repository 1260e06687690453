"""Depth of posed pictures by a network, each brought to the points that it shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image

from scene4d.data.flow import sampled
from scene4d.data.process.depth_facts import (
    BETTER,
    FEWEST_POINTS,
    WORST_ERROR,
    EstimatedDepthFacts,
    PictureDepth,
    WithoutDepth,
)
from scene4d.data.process.depth_files import Depth, file_size
from scene4d.data.process.depth_fit import fitted_depth, held_out_errors
from scene4d.data.process.depth_model import DepthModel, DepthOutput
from scene4d.data.process.progress import Say, counted
from scene4d.data.process.relief import Masks, Open
from scene4d.data.process.sfm import SfmCamera, SfmImage, SfmResult
from scene4d.errors import DataError

_OTHER: dict[DepthOutput, DepthOutput] = {"depth": "disparity", "disparity": "depth"}
_SAME = 1e-4
"""Of its values' median: a map whose values differ by less says one depth for all."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EstimatedDepths:
    """Of the pictures with a pose."""

    depths: dict[str, Depth]
    """By picture, in the poses' unit, at the size of the file; 0: not known."""
    facts: EstimatedDepthFacts


def estimated_depths(
    result: SfmResult, masks: Masks, network: DepthModel, open_picture: Open, say: Say
) -> EstimatedDepths:
    """What ``network`` says of each picture, in the scale of the points that the picture shows
    outside of ``masks``; of pictures in which it says nothing that fits, why."""
    assert result.model is not None
    shown = {image.name: image for image in result.sightings or result.model.images}
    xyz = result.xyz if result.sightings else result.model.xyz
    depths: dict[str, Depth] = {}
    pictures = []
    images = result.model.images
    for image in counted(images, say, f"depth by {network.path.name} of pictures"):
        camera = result.model.cameras[image.camera_id]
        points = _points(shown[image.name], xyz, masks)
        try:
            said = network(open_picture(image.name))
        except DataError as error:
            facts = PictureDepth(
                name=image.name, points=len(points), lacks="no map", why=str(error)
            )
        else:
            facts, depth = _of_picture(image.name, said, points, camera, network)
            if depth is not None:
                depths[image.name] = depth
        pictures.append(facts)
    told = EstimatedDepthFacts(
        network=network.path.name, output=network.output, pictures=tuple(pictures)
    )
    return EstimatedDepths(depths=depths, facts=told)


def _points(image: SfmImage, xyz: np.ndarray, masks: Masks) -> Float[np.ndarray, "points 3"]:
    """Pixel and depth of the points that stand still and are seen in a picture."""
    z = xyz[image.point_indices] @ image.viewmat[2, :3] + image.viewmat[2, 3]
    still = z > 0
    if (mask := masks.get(image.name)) is not None:
        column, row = np.floor(image.xy).astype(np.int64).T
        high, wide = mask.shape
        still &= ~mask[np.clip(row, 0, high - 1), np.clip(column, 0, wide - 1)]
    return np.column_stack([image.xy, z])[still]


def _of_picture(
    name: str,
    said: Depth,
    points: Float[np.ndarray, "points 3"],
    camera: SfmCamera,
    network: DepthModel,
) -> tuple[PictureDepth, Depth | None]:
    """How well a network's map fits, and the depth map of the file; None where it does not."""

    def without(lacks: WithoutDepth, error: float | None = None) -> tuple[PictureDepth, None]:
        return PictureDepth(name=name, points=len(points), relative_error=error, lacks=lacks), None

    if np.ptp(said) <= _SAME * float(np.median(np.abs(said))):
        return without("one value")
    if len(points) < FEWEST_POINTS:
        return without("few points")
    scale = np.array(said.shape[::-1]) / (camera.width, camera.height)
    at_points = sampled(said, points[:, :2] * scale).astype(np.float64)
    z = points[:, 2]
    error, flat = held_out_errors(at_points, z, network.output)
    fit = fitted_depth(at_points, z, network.output)
    if fit is None or error > WORST_ERROR or error > BETTER * flat:
        other = held_out_errors(at_points, z, _OTHER[network.output])[0]
        fits = other < min(WORST_ERROR, BETTER * flat)
        return without("reversed" if fits else "bad fit", min(error, 1e3))
    fine = Image.fromarray(said).resize(file_size(camera), Image.Resampling.BILINEAR)
    facts = PictureDepth(name=name, points=len(points), relative_error=error, one_depth_error=flat)
    return facts, fit(np.asarray(fine))
