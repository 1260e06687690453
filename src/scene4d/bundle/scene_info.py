"""What a bundle says about its scene beside the content: cameras, limits, poster, frame."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scene4d.bundle import first_view
from scene4d.bundle.inside_view import inside_view
from scene4d.bundle.quantise import rounded
from scene4d.errors import DataError
from scene4d.formats.splat_cloud import SplatCloud

Matrix = tuple[tuple[float, float, float, float], ...]
IDENTITY: Matrix = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0),
                    (0.0, 0.0, 0.0, 1.0))  # fmt: skip
NEAR_SHARE = 0.02
"""Cameras nearer to the content than this share of its size see artefacts."""
ONE_PLACE_SHARE, RELIEF_SHARE = 0.02, 0.03
"""Cameras that are no farther apart than this share of the distance to the content stood in one
place; what they saw looks right from so far beside it, along each axis: under some 3 degrees, by
which edges open by about their depth's share."""
MADE_UP = "default"
"""Name of the one camera of a scene that nobody photographed."""
FACING = "facing"
"""Name of the camera that faces the content, before those that a teacher's renders were made at."""
KEPT_CAMERAS = 8
"""So many of the cameras at which a teacher's renders were made go into a bundle."""
_MAGIC = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpg", b"RIFF": "webp"}


@dataclass(frozen=True, kw_only=True)
class CameraView:
    """A pinhole camera of the capture, in bundle coordinates."""

    name: str
    c2w: Matrix
    """Camera to world, OpenGL axes (x right, y up, z backwards)."""
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    time: float | None = None
    """Seconds."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where the scene is and from where it looks right, in bundle coordinates."""

    content: tuple[tuple[float, float, float], tuple[float, float, float]]
    """Smallest and largest corner of the box that holds the subject."""
    cameras: tuple[tuple[float, float, float], tuple[float, float, float]]
    """The box of camera positions from where it looks right."""
    near: float
    """Distance to content below which a camera sees artefacts."""


@dataclass(frozen=True, kw_only=True)
class SceneInfo:
    """Everything of a bundle that is not its content."""

    cameras: tuple[CameraView, ...]
    """At least one; the first is where a player starts."""
    limits: Limits
    poster: bytes
    """A WebP, PNG or JPEG file that is shown until the scene is there."""
    transform: Matrix = IDENTITY
    """Similarity from bundle coordinates to those of the input capture."""
    references: tuple[tuple[int, bytes], ...] = ()
    """(camera's number, image file): renders that a player can compare itself with."""
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Colour behind the content, sRGB 0..1."""
    antialiased: bool = False
    """Trained with the mip-splatting filter: opacities are compensated when drawn."""


def image_extension(data: bytes) -> str:
    """png, jpg or webp by the first bytes. Raises :class:`DataError` for anything else."""
    for magic, extension in _MAGIC.items():
        if data.startswith(magic) and (extension != "webp" or data[8:12] == b"WEBP"):
            return extension
    raise DataError("an image of the bundle is neither PNG, JPEG nor WebP")


def info_entries(info: SceneInfo) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest's entries about the scene, and the members with its images."""
    if not info.cameras:
        raise DataError("a bundle needs at least one camera to start from")
    poster = f"poster.{image_extension(info.poster)}"
    images = {poster: info.poster}
    references = []
    for number, (camera, data) in enumerate(info.references):
        if not 0 <= camera < len(info.cameras):
            raise DataError(f"reference {number} is of camera {camera}, which does not exist")
        name = f"reference{number}.{image_extension(data)}"
        images[name] = data
        references.append({"member": name, "camera": camera})
    entries = {
        "transform": [list(map(float, row)) for row in info.transform],
        "cameras": [_camera_entry(camera) for camera in info.cameras],
        "limits": {
            "content": [[rounded(v) for v in corner] for corner in info.limits.content],
            "cameras": [[rounded(v) for v in corner] for corner in info.limits.cameras],
            "near": rounded(info.limits.near),
        },
        "poster": poster,
        "references": references,
        "background": [rounded(v) for v in info.background],
        "antialiased": info.antialiased,
    }
    return entries, images


def info_from(manifest: Mapping[str, Any], images: Mapping[str, bytes]) -> SceneInfo:
    """The scene's description of a checked manifest; ``images`` by member name."""
    limits = manifest["limits"]
    known = CameraView.__dataclass_fields__
    cameras = tuple(
        CameraView(
            **{name: value for name, value in entry.items() if name in known and name != "c2w"},
            c2w=tuple(map(tuple, entry["c2w"])),
        )
        for entry in manifest["cameras"]
    )
    return SceneInfo(
        cameras=cameras,
        limits=Limits(
            content=_corners(limits["content"]), cameras=_corners(limits["cameras"]),
            near=limits["near"],
        ),
        poster=images[manifest["poster"]],
        transform=tuple(map(tuple, manifest["transform"])),
        references=tuple((r["camera"], images[r["member"]]) for r in manifest["references"]),
        background=tuple(manifest["background"]),
        antialiased=manifest["antialiased"],
    )  # fmt: skip


def default_info(cloud: SplatCloud, *, cameras: Sequence[CameraView] = ()) -> SceneInfo:
    """A description from the splats alone: limits from where they are, a poster of dots.

    Writers that can render replace the poster and give the capture's cameras, which say from where
    it looks right.
    """
    low, high = content_box(cloud)
    size = float(np.linalg.norm(high - low)) or 1.0
    views = tuple(cameras) or (default_view(cloud),)
    positions = np.array([[row[3] for row in view.c2w[:3]] for view in views])
    if len(views) > 1:
        reach, far = positions.min(axis=0), positions.max(axis=0)
        away = float(np.linalg.norm((low + high) / 2 - positions.mean(axis=0)))
        if (
            np.linalg.norm(far - reach) < ONE_PLACE_SHARE * away
        ):  # a relief, which nobody went round
            middle = (reach + far) / 2
            reach, far = (middle + side * RELIEF_SHARE * away for side in (-1, 1))
    else:
        centre = (low + high) / 2
        reach = np.minimum(positions.min(axis=0), centre - size)
        far = np.maximum(positions.max(axis=0), centre + size)
    limits = Limits(
        content=_corners([low, high]),
        cameras=_corners([reach, far]),
        near=rounded(NEAR_SHARE * size),
    )
    poster = dots_poster(cloud, views[0])
    return SceneInfo(cameras=views, limits=limits, poster=poster, antialiased=cloud.antialiased)


_MADE_UP_LENS = CameraView(
    name=MADE_UP, c2w=IDENTITY, fx=480.0, fy=480.0, cx=320.0, cy=180.0, width=640, height=360
)


def default_view(cloud: SplatCloud, *, lens: CameraView | None = None) -> CameraView:
    """A camera where nobody took a photograph: all of the content in its picture, upright; in a
    room, one that stands in it.

    ``lens``: a camera whose intrinsics it has, of those that went around the content. Players fit
    it to their windows; its name tells them that they may.
    """
    places = _places(cloud)
    low, high = first_view.content_box(places)
    up = first_view.find_up(places, low, high)
    inside = None if lens else inside_view(places, low, high, up)
    lens = lens or _MADE_UP_LENS
    if inside is not None:
        return _placed(lens, first_view.standing_at(*inside, up))
    return _fitting(lens, low, high, up, first_view.clear_direction(places, low, high, up))


def surface_view(cloud: SplatCloud) -> CameraView:
    """:func:`default_view` of a surface, which is never a room to stand in: what closes around its
    middle may be any thing."""
    places = _places(cloud)
    low, high = first_view.content_box(places)
    up = first_view.find_up(places, low, high)
    return _fitting(_MADE_UP_LENS, low, high, up, first_view.clear_direction(places, low, high, up))


def _fitting(
    lens: CameraView, low: np.ndarray, high: np.ndarray, up: np.ndarray, forward: np.ndarray
) -> CameraView:
    slopes = (0.5 * lens.width / lens.fx, 0.5 * lens.height / lens.fy)
    return _placed(lens, first_view.fitting_view(low, high, up=up, forward=forward, slopes=slopes))


def _placed(lens: CameraView, c2w: np.ndarray) -> CameraView:
    rows = tuple((rounded(a), rounded(b), rounded(c), rounded(d)) for a, b, c, d in c2w)
    return replace(lens, name=MADE_UP, c2w=rows)


def content_box(cloud: SplatCloud) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the box that holds the splats without what floats around them."""
    return first_view.content_box(_places(cloud))


def _places(cloud: SplatCloud) -> np.ndarray:
    """Centres of splats that are seen, spread over all [N, 3] float64."""
    log_opacities = -np.logaddexp(0, -cloud.logit_opacities.astype(np.float64))
    log_sizes = cloud.log_scales.astype(np.float64).mean(axis=1)
    return first_view.places_of(cloud.means, log_opacities, log_sizes)


def dots_poster(cloud: SplatCloud, view: CameraView, width: int = 256) -> bytes:
    """A small PNG with a dot for every splat, nearer ones in front."""
    height = max(1, round(width * view.height / view.width))
    scale = width / view.width
    image = np.zeros((height, width, 3), dtype=np.uint8)
    c2w = np.array(view.c2w)
    local = (cloud.means.astype(np.float64) - c2w[:3, 3]) @ c2w[:3, :3]
    depth = -local[:, 2]
    order = np.argsort(-depth, kind="stable")
    order = order[(depth[order] > 1e-6) & (cloud.logit_opacities[order] > 0)]
    x = scale * (view.fx * local[order, 0] / depth[order] + view.cx)
    y = scale * (view.cy - view.fy * local[order, 1] / depth[order])
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    order = order[inside]
    colour = np.clip(0.5 + 0.2820948 * cloud.sh[order, 0], 0, 1)
    image[y[inside].astype(int), x[inside].astype(int)] = (255 * colour + 0.5).astype(np.uint8)
    return png(image)


def png(image: np.ndarray) -> bytes:
    """A PNG file of ``image`` [height, width, 3] uint8."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data)
        )  # fmt: skip

    height, width = image.shape[:2]
    rows = np.zeros((height, 1 + 3 * width), dtype=np.uint8)
    rows[:, 1:] = image.reshape(height, 3 * width)
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def _camera_entry(view: CameraView) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": view.name[:200],
        "c2w": [[rounded(v) for v in row] for row in view.c2w],
        "fx": rounded(view.fx), "fy": rounded(view.fy),
        "cx": rounded(view.cx), "cy": rounded(view.cy),
        "width": int(view.width), "height": int(view.height),
    }  # fmt: skip
    return entry if view.time is None else {**entry, "time": rounded(view.time)}


def _corners(value: Any) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    low, high = (tuple(float(v) for v in corner) for corner in value)
    return low, high  # type: ignore[return-value]
