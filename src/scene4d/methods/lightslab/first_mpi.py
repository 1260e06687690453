"""MPIs before training: the teacher's Gaussians, cut into slices by depth and drawn.

From a slab's viewpoint all its planes show one picture, so each MPI plane is what the Gaussians
nearest to it look like from there: composited, they are the teacher's picture, and beside the
viewpoint they move as planes do.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.cameras.between import CamerasBetween, Spread
from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import camera_rays
from scene4d.methods.lightslab.bundle_mpi import MAX_PLACES
from scene4d.methods.lightslab.mpi import BLOCK, MultiplaneImages, seen_by
from scene4d.methods.lightslab.slabs import Slabs
from scene4d.methods.lightslab.stored_mpi import as_stored, fitting_steps
from scene4d.rendering.render import DEPTH, Render
from scene4d.representations.base import Representation
from scene4d.representations.gaussians import (
    NAMES,
    NEAR_SHARE,
    PIXEL_BLUR,
    GaussianSplats,
    gaussians_from_points,
    render_gaussians,
)

_log = logging.getLogger("scene4d")
LEAST_ALPHA = 0.05
"""A block none of whose texels has more is left out."""
COARSER = (0.3, 0.05, 0.0)
"""Largest shares at and below which a block is one level coarser: less of its error is seen."""
ABOUT_AS_ALIKE = 1.26
"""Mean square errors within this factor: 1 dB."""
WORTH_ANOTHER = 1.12
"""The search ends after two numbers that are not better by this factor: 0.5 dB."""
MOST_ACROSS = 1024
"""Texels of an MPI plane along an axis."""
_MOST_VIEWS = 60
_POINTS = 200_000
_PICTURES = 10
_TOLD_BY = 3
"""Slabs by which blocks are counted before all are drawn."""
_EVERY = 8
"""Pixel by which it is told how much of blocks is seen: about one in each."""


@dataclass(frozen=True, kw_only=True)
class MpiLimits:
    """How fine, how many, and for whom."""

    bytes: float
    """Of a bundle, at most, about."""
    blocks: int
    """Stored at most."""
    spread: Spread = field(default_factory=Spread)
    """Where cameras may stand between and around those of the capture: blocks are kept for them."""
    scale: float = 1.0
    """Texels for a pixel of the training pictures, along an axis, at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FirstMpi:
    """What training starts from."""

    slabs: Slabs
    mpi: MultiplaneImages
    steps: np.ndarray
    """[4, frequencies] integers, at which the MPIs fit into the bundle."""


@torch.no_grad()
def fewest_slabs_near_best(
    teacher: Representation,
    cameras: Sequence[Camera],
    limits: MpiLimits,
    choices: Iterable[Slabs],
) -> FirstMpi:
    """Of slabs of rising numbers, the first ones whose first MPIs within the limits look, from
    between the cameras, about as much like the teacher as those of any others do.

    More slabs leave less to each, also of what training shows: fern's two begin 0.9 dB below eight
    and end 0.5 dB above.
    """
    gaussians = gaussians_of(teacher, cameras)
    pictures = [
        (camera, gaussians.render(camera))
        for camera in between(cameras, limits.spread, _PICTURES, 1)
    ]
    found: list[tuple[float, FirstMpi]] = []
    least, worse = math.inf, 0
    for slabs in choices:
        mpi = first_mpi(gaussians, slabs, cameras, limits)
        steps = fitting_steps(mpi, limits.bytes)
        stored = as_stored(mpi.texels, mpi.levels, steps)
        shown = MultiplaneImages(stored=mpi.stored, texels=stored)
        error = sum(_error(shown, slabs, *picture) for picture in pictures) / len(pictures)
        _log.info("looking for slabs: %d of them, %.1f dB", slabs.num_slabs, _db(error))
        worse = 0 if error < least / WORTH_ANOTHER else worse + 1
        least = min(least, error)
        found.append((error, FirstMpi(slabs=slabs, mpi=mpi, steps=steps)))
        found = [one for one in found if one[0] <= ABOUT_AS_ALIKE * least]
        if worse == 2:
            break
    best = found[0][1]
    slabs, mpi = best.slabs, best.mpi
    sizes = f"{slabs.num_planes} MPI planes of {mpi.columns} x {mpi.rows}"
    _log.info("%d slabs of %s, %d blocks", slabs.num_slabs, sizes, mpi.num_blocks)
    return best


def _db(mean_square_error: float) -> float:
    return -10 * math.log10(max(mean_square_error, 1e-10))


def _error(mpi: MultiplaneImages, slabs: Slabs, camera: Camera, picture: Render) -> float:
    rays = camera_rays(camera)
    found = slabs(*(r[::2, ::2].reshape(-1, 3) for r in (rays.origins, rays.directions)))
    shown = seen_by(mpi, found, slabs) * found.coverage[:, None]
    wanted = torch.cat([picture.rgb, picture.alpha[..., None]], dim=-1)[::2, ::2].reshape(-1, 4)
    return float((shown[:, :4] - wanted).square().mean())


@torch.no_grad()
def first_mpi(
    gaussians: GaussianSplats, slabs: Slabs, cameras: Sequence[Camera], limits: MpiLimits
) -> MultiplaneImages:
    """MPIs that show the Gaussians, as fine as the limits' scale or as fine as all blocks with
    anything on them are within the limit: what is left out is a hole beside the capture's path."""
    scale = _fitting_scale(gaussians, slabs, cameras, limits)
    mpi = _at_scale(gaussians, slabs, cameras, scale, range(slabs.num_slabs))
    share = _most_seen(mpi, slabs, training_and_nearby_cameras(cameras, limits.spread))
    mpi.levels.copy_(torch.stack([share <= least for least in COARSER]).sum(dim=0))
    return _only(mpi, _foremost(share, mpi, limits.blocks))


def _fitting_scale(
    gaussians: GaussianSplats, slabs: Slabs, cameras: Sequence[Camera], limits: MpiLimits
) -> float:
    """At which there are about as many blocks as are allowed, counted on some of the slabs, and no
    more places of blocks than a bundle may have."""
    some = range(0, slabs.num_slabs, max(1, slabs.num_slabs // _TOLD_BY))
    scale = limits.scale
    while True:
        drawn = _at_scale(gaussians, slabs, cameras, scale, some)
        share = slabs.num_slabs / len(some)
        blocks, places = share * drawn.num_blocks, share * drawn.stored.numel()
        over = max(blocks / (1.05 * limits.blocks), places / MAX_PLACES)
        if over <= 1 or min(drawn.rows, drawn.columns) <= 2 * BLOCK:
            return scale
        scale *= min(0.95, over**-0.5)


def _at_scale(
    gaussians: GaussianSplats,
    slabs: Slabs,
    cameras: Sequence[Camera],
    scale: float,
    chosen: Sequence[int],
) -> MultiplaneImages:
    """All blocks of some slabs with anything on them, at ``scale`` texels for a pixel, as sharp as
    the cameras' pictures."""
    size, focal = _size(slabs, cameras, scale), float(_focal(cameras)[0])
    drawn = list(_drawn_slabs(gaussians, slabs, size, focal, chosen))
    stored = torch.stack([full for full, _ in drawn])
    return MultiplaneImages(stored=stored, texels=torch.cat([texels for _, texels in drawn]))


def _foremost(
    share: Float[Tensor, " blocks"], mpi: MultiplaneImages, most: int
) -> Bool[Tensor, " blocks"]:
    """At most ``most`` blocks: those that are seen most of, then those that are fullest."""
    if len(share) <= most:
        return torch.ones_like(share, dtype=torch.bool)
    rank = share + 1e-4 * mpi.texels[..., 3].mean(dim=(1, 2))
    kept = torch.zeros_like(share, dtype=torch.bool)
    kept[rank.topk(most).indices] = True
    return kept


def gaussians_of(teacher: Representation, cameras: Sequence[Camera]) -> GaussianSplats:
    """The teacher's own, or one for each of many pixels of its pictures."""
    if isinstance(teacher, GaussianSplats):
        return teacher
    cloud = teacher.splats()
    if cloud is not None:
        return GaussianSplats.of(cloud)
    chosen = cameras[:: max(1, len(cameras) // _MOST_VIEWS)]
    pixels = sum(c.width * c.height for c in chosen)
    xyz, rgb = [], []
    for camera in chosen:
        small = replace(camera.to("cpu"), distortion=None)
        small = small.downscaled(max(1, round((pixels / _POINTS) ** 0.5)))
        render = teacher.render(small, want=DEPTH)
        assert render.depth is not None
        rays = camera_rays(small)
        along = -(rays.directions @ small.c2w[:3, 2])
        solid = render.alpha > 0.5
        xyz.append((rays.origins + rays.directions * (render.depth / along)[..., None])[solid])
        rgb.append((render.rgb / render.alpha.clamp_min(1e-3)[..., None])[solid].clamp(0, 1))
    colours = (torch.cat(rgb) * 255).round().byte()
    return GaussianSplats(gaussians_from_points(torch.cat(xyz), colours, sh_degree=0, opacity=0.9))


def _size(slabs: Slabs, cameras: Sequence[Camera], scale: float) -> tuple[int, int]:
    """Columns and rows of MPI planes: of the slabs' median range, in pixels times ``scale``."""
    focal = _focal(cameras).to(slabs.low)
    wide = (slabs.high - slabs.low).mean(dim=1).median(dim=0).values * focal * scale
    columns, rows = (min(MOST_ACROSS, max(2 * BLOCK, -(-int(n) // BLOCK) * BLOCK)) for n in wide)
    return columns, rows


def _focal(cameras: Sequence[Camera]) -> Float[Tensor, " 2"]:
    """Of the cameras, the median, in pixels across and down."""
    return torch.stack([torch.stack([c.K[0, 0], c.K[1, 1]]) for c in cameras]).median(dim=0).values


def _drawn_slabs(
    gaussians: GaussianSplats,
    slabs: Slabs,
    size: tuple[int, int],
    focal: float,
    chosen: Iterable[int],
) -> Iterator[tuple[Bool[Tensor, "planes down across"], Float[Tensor, "blocks 8 8 4"]]]:
    for slab in chosen:
        stored, texels = [], []
        for plane, near in enumerate(_slices(gaussians, slabs, slab)):
            blocks = _blocks(
                _picture(gaussians, near, _plane_camera(slabs, slab, plane, size), focal)
            )
            full = blocks[..., 3].amax(dim=(2, 3)) > LEAST_ALPHA
            stored.append(full)
            texels.append(blocks[full])
        yield torch.stack(stored), torch.cat(texels)


def _slices(gaussians: GaussianSplats, slabs: Slabs, slab: int) -> list[Bool[Tensor, " n"]]:
    """Which Gaussians are nearest to each plane of a slab, in disparity."""
    depth = (gaussians.gaussians["means"] - slabs.viewpoints[slab]) @ slabs.rotations[slab, 2]
    disparity = 1 / depth.clamp_min(1e-9)
    nearest = (disparity[:, None] - slabs.disparities[slab]).abs().argmin(dim=1)
    nearest = torch.where(depth > 0, nearest, -1)
    return [nearest == plane for plane in range(slabs.num_planes)]


def _plane_camera(slabs: Slabs, slab: int, plane: int, size: tuple[int, int]) -> Camera:
    """At a slab's viewpoint, with a plane's range for its picture."""
    columns, rows = size
    low, high = slabs.low[slab, plane], slabs.high[slab, plane]
    fx, fy = ((n - 1) / float(b - a) for n, a, b in zip(size, low, high, strict=True))
    K = torch.tensor(
        [[fx, 0, 0.5 - fx * float(low[0])], [0, fy, 0.5 - fy * float(low[1])], [0, 0, 1]]
    )
    right, down, ahead = slabs.rotations[slab]
    c2w = torch.eye(4, device=right.device)
    c2w[:3] = torch.stack([right, -down, -ahead, slabs.viewpoints[slab]], dim=1)
    return Camera(c2w=c2w, K=K.to(c2w), width=columns, height=rows)


def _picture(
    gaussians: GaussianSplats, chosen: Bool[Tensor, " n"], camera: Camera, focal: float
) -> Float[Tensor, "rows columns 4"]:
    """A slice, blurred by as much as a pixel of a picture of this focal length blurs it: by less
    Gaussians get thinner than they are in the pictures that they were fitted to."""
    if not bool(chosen.any()):
        return torch.zeros(camera.height, camera.width, 4)
    tensors = {name: gaussians.gaussians[name][chosen] for name in NAMES}
    render = render_gaussians(
        {**tensors, "alphas": gaussians.alphas[chosen]},
        camera,
        background=None,
        depth=False,
        sh_degree=gaussians.active_sh_degree,
        antialiased=gaussians.antialiased,
        near=NEAR_SHARE * gaussians.extent,
        blur=PIXEL_BLUR * (float(camera.K[0, 0]) / focal) ** 2,
    )
    return torch.cat([render.rgb, render.alpha[..., None]], dim=-1).clamp(0, 1).cpu()


def _blocks(mpi_plane: Float[Tensor, "rows columns 4"]) -> Float[Tensor, "down across 8 8 4"]:
    rows, columns, _ = mpi_plane.shape
    return mpi_plane.view(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK, 4).transpose(1, 2)


def _most_seen(
    mpi: MultiplaneImages, slabs: Slabs, cameras: Sequence[Camera]
) -> Float[Tensor, " blocks"]:
    """The largest share of each block in any ray of the cameras, of some pixels."""
    most = torch.zeros(mpi.num_blocks)
    for camera in cameras:
        rays = camera_rays(replace(camera.to("cpu"), distortion=None))
        origins, directions = (
            r[::_EVERY, ::_EVERY].reshape(-1, 3) for r in (rays.origins, rays.directions)
        )
        found = slabs(origins, directions)
        most = torch.maximum(most, mpi.most_seen(found.coordinates, found.slab))
    return most


def training_and_nearby_cameras(cameras: Sequence[Camera], spread: Spread) -> list[Camera]:
    """Training cameras and others between and around them: rays between two clusters of cameras see
    what those of neither do, and who plays the scene stands nowhere precisely."""
    own = list(cameras[:: max(1, len(cameras) // _MOST_VIEWS)])
    return own + between(cameras, spread, 4 * _MOST_VIEWS, 0)


def between(cameras: Sequence[Camera], spread: Spread, count: int, seed: int) -> list[Camera]:
    """Undistorted cameras that nobody stood at, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    drawn = CamerasBetween(cameras, spread).draw(generator, count)
    return [replace(camera, distortion=None) for camera in drawn]


def _only(mpi: MultiplaneImages, kept: Bool[Tensor, " blocks"]) -> MultiplaneImages:
    stored = mpi.stored.clone()
    stored[mpi.stored] = kept
    return MultiplaneImages(
        stored=stored, texels=mpi.texels.detach()[kept], levels=mpi.levels[kept]
    )
