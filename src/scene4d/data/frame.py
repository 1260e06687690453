"""The working frame: where a capture is trained, whatever its unit of length and its place.

A capture is read in its own frame in float64. Then it is moved, so that the mean of its cameras is
the origin, and scaled, so that they reach :data:`EXTENT` from there; only then it becomes float32.
So no length in training and rendering depends on the unit (a near plane of 0.01, the noise of MCMC,
which is a length to the third power, clamps and tolerances), and coordinates of millions (UTM,
geocentric) keep their digits. ``Scene.source_from_scene`` leads back, in float64, and every
exporter applies it. The axes stay the capture's.

The alternative, a factor at every length, was not taken: each new constant would have to remember
it, and float32 needs another origin anyway.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.path_files import in_frame
from scene4d.data.scene import Points, Scene

EXTENT = 5.0
"""Of a capture in its working frame: what COLMAP's and NeRF-synthetic's have (4 to 6), with which
the constants of the literature were found."""
_SAME_PLACE = 1e-6
"""Cameras that are no farther apart, in distances to the content, stand in one place."""
_DIGITS = 1e-9
"""Of coordinates as text: cameras no farther apart than that share of them stand in one place."""


def in_working_frame(scene: Scene) -> Scene:
    """``scene`` moved and scaled as the module says, its tensors in float32."""
    given = scene.working_from_scene
    return moved(scene, working_frame(scene) if given is None else given)


def working_frame(scene: Scene) -> Float[Tensor, "4 4"]:
    """The similarity from ``scene``'s coordinates to its working frame, float64."""
    positions = torch.stack([frame.camera.position.double() for frame in scene.frames])
    centre = positions.mean(dim=0)
    scale = EXTENT / _length(scene, positions, centre)
    working_from_source = torch.eye(4, dtype=torch.float64)
    working_from_source[:3, :3] *= scale
    working_from_source[:3, 3] = -scale * centre
    return working_from_source


def in_frame_of(scene: Scene, source_from_scene: Float[Tensor, "4 4"]) -> Scene:
    """``scene`` in the coordinates that ``source_from_scene`` leads back from: those of a run.

    The same object where it is there already.
    """
    move = inverted(source_from_scene.double()) @ scene.source_from_scene.double()
    if torch.allclose(move, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-6):
        return scene
    return replace(moved(scene, move), source_from_scene=source_from_scene.double())


def moved(scene: Scene, similarity: Float[Tensor, "4 4"]) -> Scene:
    """``scene`` after ``similarity``, float64: cameras, points, bounds and the unit of its depth
    maps; ``source_from_scene`` undoes it. The result's tensors are float32."""
    similarity = similarity.double()
    scale = scale_of(similarity)
    cameras = in_frame([frame.camera for frame in scene.frames], similarity)
    frames = [
        replace(frame, camera=camera.float32(), depth_unit_m=scale * frame.depth_unit_m)
        for frame, camera in zip(scene.frames, cameras, strict=True)
    ]
    points = scene.points
    if points is not None:
        xyz = points.xyz.double() @ similarity[:3, :3].T + similarity[:3, 3]
        points = Points(xyz=xyz.float(), rgb=points.rgb)
    bounds = scene.bounds
    return replace(
        scene,
        frames=frames,
        points=points,
        bounds=None if bounds is None else (scale * bounds[0], scale * bounds[1]),
        source_from_scene=scene.source_from_scene.double() @ inverted(similarity),
        working_from_scene=None,
    )


def scale_of(similarity: Float[Tensor, "4 4"]) -> float:
    """The factor by which a similarity makes lengths longer."""
    return float(torch.linalg.det(similarity[:3, :3].double()).abs()) ** (1 / 3)


def inverted(similarity: Float[Tensor, "4 4"]) -> Float[Tensor, "4 4"]:
    """The inverse, in float64; in closed form, as elimination loses digits beside an offset of
    millions."""
    linear = similarity[:3, :3].double()
    inverse = torch.eye(4, dtype=torch.float64)
    inverse[:3, :3] = linear.T / scale_of(similarity) ** 2
    inverse[:3, 3] = -inverse[:3, :3] @ similarity[:3, 3].double()
    return inverse


def _length(
    scene: Scene, positions: Float[Tensor, "cameras 3"], centre: Float[Tensor, " 3"]
) -> float:
    """What becomes :data:`EXTENT`: the cameras' extent; for cameras in one place a distance to what
    they see, as far as the capture tells one."""
    extent = 1.1 * float((positions - centre).norm(dim=-1).max())
    content = scene.content_distance
    least = max(_DIGITS * float(positions.abs().max()), _SAME_PLACE * (content or 0.0))
    return extent if extent > least else content or 1.0
