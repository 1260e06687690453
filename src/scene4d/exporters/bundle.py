"""A run or splats as an ``.s4d`` bundle with poster and cameras, at a size that was asked for."""

from __future__ import annotations

import functools
import io
import logging
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from scene4d.bundle.coding import Coded
from scene4d.bundle.container import open_bundle
from scene4d.bundle.kinds import BundleKind, bundle_kinds
from scene4d.bundle.ply_cameras import PLY, cameras_in_ply
from scene4d.bundle.scene_info import (
    FACING,
    KEPT_CAMERAS,
    MADE_UP,
    NEAR_SHARE,
    CameraView,
    Limits,
    Matrix,
    SceneInfo,
    content_box,
    default_info,
    default_view,
    surface_view,
)
from scene4d.bundle.splats import KIND as SPLATS
from scene4d.bundle.splats import bundle_writer
from scene4d.cameras.camera import Camera
from scene4d.errors import UsageError
from scene4d.exporters.options import BundleOptions
from scene4d.exporters.shown import Shown, shown_shares
from scene4d.formats.registry import format_of
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.formats.textured_mesh import MeshData
from scene4d.representations.base import Representation
from scene4d.training.opened import OpenedScene

POSTER_WIDTH = 480
_SEARCH_STEPS = 14
_FINEST = 64.0
_COARSEST = 16.0
"""How much finer or coarser steps may become."""
_COARSEST_TRAINED = 2.0
"""The same of a scene that can lose Gaussians instead, in the order that it was trained for."""
_FACTORS = (1.0, 2.0, 4.0, 8.0)
"""The steps at which a scene loses what shows least where nothing was trained for a size."""
_MOMENTS = 9
"""The box of what moves holds it at so many moments, evenly spread."""
LANDING = 0.02
"""A size that was asked for is met when the file is within this share of it."""


_log = logging.getLogger("scene4d")


@dataclass(frozen=True, kw_only=True)
class Landed:
    """A bundle's members at some fineness of quantisation."""

    coded: Coded
    size: int
    """Bytes of the file."""
    factor: float
    """What multiplies all steps."""


def export(
    source: OpenedScene,
    path: Path,
    options: BundleOptions | None = None,
    *,
    nearest: bool = False,
    shown: Shown | None = None,
) -> str:
    """Writes the bundle, of the kind that takes the scene; returns a line that describes it.
    Splats that show most come first, where the kind has no order of its own.

    ``nearest``: of a size that cannot be met, the nearest smaller file is written and told in a
    warning, where there is one. ``shown``: of this scene, where it was asked for already. Raises
    :class:`UsageError` otherwise.
    """
    target_mb = None if options is None else options.target_mb
    if Path(path).suffix.lower() != ".s4d":
        raise UsageError("bundles are written as .s4d", where=path, fix="name it SOMETHING.s4d")
    kind, scene = kind_for(source), source.representation
    info = scene_info(source, kind)
    kind = kind.in_order(shown or functools.cache(lambda: shown_shares(source)))

    def at(factor: float, most: int | None = None) -> Landed:
        kept = scene
        if most is not None and (cloud := scene.splats()) is not None:
            kept = kind.reduced(scene, most, cloud.sh_degree)
        return _sized(kind.name, kind.encode(kept, factor=factor), info, factor)

    target_mb = target_mb or kind.trained_mb(scene)
    looks = functools.partial(_likeness, source, kind, info) if kind.leaves_out else None
    landed = land(at, target_mb, path, trained=kind.trains_sizes, looks=looks, nearest=nearest)
    bundle_writer(kind.name, landed.coded, info).write(Path(path))
    count, size = landed.coded.manifest["count"], f"{landed.size / 1e6:.3f} MB"
    motion = kind.motion_line(landed.coded.manifest)
    if motion is None and scene.times is not None:
        motion = f"as it stands at {scene.times[0]:g} s, without motion"
    moment = f"; {motion}" if motion else ""
    if (told := kind.stored_line(scene)) is not None:
        return f"{told} in {size}, kind {kind.name}{moment}"
    each = landed.size / max(1, count)
    return f"{count:,} Gaussians in {size} ({each:.2f} bytes each), kind {kind.name}{moment}"


def kind_for(source: OpenedScene) -> BundleKind:
    """The kind of the scene's family or, for what is made of splats in any way, that of splats.

    Raises :class:`UsageError` where no kind takes it.
    """
    kinds = bundle_kinds()
    for kind in kinds.values():
        if kind.takes(source.representation):
            return kind
    source.scene_cloud()  # refuses what has no splats
    return kinds[SPLATS]


class Sizes(Protocol):
    """A scene's bundle by what multiplies its steps, and by how many of its splats are kept."""

    def __call__(self, factor: float, most: int | None = None) -> Landed:
        """What it comes to; ``most``: None keeps all."""


def land(
    at: Sizes,
    target_mb: float | None,
    path: Path,
    *,
    trained: bool = False,
    looks: Callable[[Landed], float] | None = None,
    nearest: bool = False,
) -> Landed:
    """The bundle at the trained steps, or with all steps scaled so that its size is the target.

    ``trained``: the scene is one whose training chooses its size. Where that had too few steps, the
    least of what it kept goes, in place of steps so coarse that they show. ``looks``: how good a
    bundle looks, of a scene of which what shows least may go though nothing was trained for that;
    the best of some is taken. ``nearest``: a size that cannot be met gives the nearest smaller one,
    with a warning. Raises :class:`UsageError` where nothing reaches the target within 2%.
    """
    if target_mb is None:
        return at(1.0)
    target = target_mb * 1e6

    def off(landed: Landed) -> float:
        return abs(landed.size / target - 1)

    if looks and not trained and (found := _best_looking(at, target, looks)):
        return found
    tried = _by_steps(at, target, _COARSEST_TRAINED if trained else _COARSEST)
    larger = [t for t in tried if t.size > target]
    if trained and larger and min(map(off, tried)) > LANDING:
        whole = min(larger, key=lambda t: (t.factor != 1.0, -t.factor))
        tried += _by_count(at, target, whole)
    best = min(tried, key=off)
    if off(best) <= LANDING:
        return best
    smaller = [t for t in tried if t.size < target]
    if nearest and smaller:
        best = min(smaller, key=off)
        _log.warning(
            "asked for %g MB, and this scene fills no more than %.3f MB: that is what is kept"
            " (trained longer, it can be larger)", target_mb, best.size / 1e6,
        )  # fmt: skip
        return best
    how = "coarser steps and fewer splats" if looks else "changing the steps of its values alone"
    fix = f"ask for about {best.size / 1e6:.2g} MB"
    if trained:
        fix = (
            f"train longer for that size (--target-mb {target_mb:g} with more --max-minutes or"
            f" --steps), or {fix}"
        )
    elif not looks:
        fix = f"train it for that size: scene4d compress SCENE OUT.s4d --target-mb {target_mb:g}"
    raise UsageError(
        f"cannot be made {target_mb} MB by {how}: the nearest is {best.size / 1e6:.3f} MB",
        where=path,
        fix=fix,
    )


def _best_looking(at: Sizes, target: float, looks: Callable[[Landed], float]) -> Landed | None:
    """Of bundles of ``target`` bytes with finer steps and fewer splats, or coarser and more, what
    looks best; None where none is so large."""
    found: list[Landed] = []
    for factor in _FACTORS:
        whole = at(factor)
        fits = whole.size <= target * (1 + LANDING)
        tried = _by_steps(at, target, factor) if fits else _by_count(at, target, whole)
        found += sorted(tried, key=lambda landed: abs(landed.size / target - 1))[:1]
        if fits:
            break
    met = [landed for landed in found if abs(landed.size / target - 1) <= LANDING]
    return max(met, key=looks) if met else None


def _likeness(source: OpenedScene, kind: BundleKind, info: SceneInfo, landed: Landed) -> float:
    """PSNR of a bundle's pictures to the scene's own."""
    from scene4d.exporters.bundle_loss import own_loss

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.s4d"
        bundle_writer(kind.name, landed.coded, info).write(path)
        loss = own_loss(source, kind.open(open_bundle(path)))
    return 0.0 if loss is None else loss.psnr


def _by_steps(at: Sizes, target: float, coarsest: float) -> list[Landed]:
    """What was looked at on the way to ``target`` bytes by finer or coarser steps."""
    low, guess, high = -math.log(_FINEST), 0.0, math.log(coarsest)
    tried = [at(1.0)]
    if tried[0].size > target * (1 + LANDING) and coarsest > 1:
        tried.append(at(coarsest))
        if tried[1].size > target:
            return tried
        low, guess = 0.0, high / 2
        tried.append(at(math.exp(guess)))
    while len(tried) <= _SEARCH_STEPS and abs(tried[-1].size / target - 1) > LANDING / 4:
        low, high = (guess, high) if tried[-1].size > target else (low, guess)
        guess = (low + high) / 2
        tried.append(at(math.exp(guess)))
    return tried


def _by_count(at: Sizes, target: float, whole: Landed) -> list[Landed]:
    """The same by keeping fewer splats than ``whole`` has, which is larger."""
    tried: list[Landed] = []
    low, high = 0, whole.coded.manifest["count"]
    least, largest = 0, whole.size
    while high - low > 1 and len(tried) < _SEARCH_STEPS:
        between = (target - least) / (largest - least) if len(tried) % 3 < 2 else 0.5
        most = min(high - 1, max(low + 1, round(low + (high - low) * between)))
        tried.append(at(whole.factor, most))
        size = tried[-1].size
        if abs(size / target - 1) <= LANDING / 4:
            break
        if size > target:
            high, largest = most, size
        else:
            low, least = most, size
    return tried


def _sized(kind: str, coded: Coded, info: SceneInfo, factor: float) -> Landed:
    return Landed(coded=coded, size=len(bundle_writer(kind, coded, info).to_bytes()), factor=factor)


def scene_info(source: OpenedScene, kind: BundleKind) -> SceneInfo:
    """Cameras (a few where nobody took a photograph), limits, the way home, and a poster rendered
    from the first camera.

    Raises :class:`UsageError` for scenes without splats or triangles that nobody looked at.
    """
    train = source.cameras.train
    views = tuple(camera_view(f"camera {i}", camera) for i, camera in enumerate(train))
    views = views or views_of_file(source)
    box, mesh = kind.content_box(source.representation), source.representation.mesh()
    if mesh is not None and not views:
        cloud = _vertices(mesh)
        info = default_info(cloud, cameras=(surface_view(cloud),))
    else:
        info = _field_info(source, views, *box) if box else _splats_info(source, views)
    return replace(
        info,
        transform=_rows(source.source_from_scene),
        poster=poster(source.representation, _camera(info.cameras[0])),
    )


def views_of_file(source: OpenedScene) -> tuple[CameraView, ...]:
    """Where the file was seen from, if it says so and was not moved."""
    moved = not torch.equal(source.source_from_scene, torch.eye(4, dtype=torch.float64))
    if moved or not source.path.is_file() or format_of(source.path).name not in PLY:
        return ()
    return cameras_in_ply(source.path)


def _vertices(mesh: MeshData) -> SplatCloud:
    """Where a mesh is, as opaque splats of no size."""
    count = len(mesh.vertices)
    return SplatCloud(
        means=mesh.vertices.astype(np.float32),
        quats=np.tile(np.eye(1, 4, dtype=np.float32), (count, 1)),
        log_scales=np.full((count, 3), -20, np.float32),
        logit_opacities=np.full(count, 10, np.float32),
        sh=np.zeros((count, 1, 3), np.float32),
    )


def _splats_info(source: OpenedScene, views: tuple[CameraView, ...]) -> SceneInfo:
    cloud, start = source.scene_cloud(), source.cameras.start
    info = _with_all_times(default_info(cloud, cameras=views), source.representation)
    if source.cameras.photographed:
        return replace(info, cameras=views) if views else info
    if start is not None:
        return replace(info, cameras=(camera_view(FACING if views else MADE_UP, start), *views))
    # From somewhere around the content; a player starts facing it.
    facing = replace(default_view(cloud, lens=views[0]), name=FACING)
    return replace(info, cameras=(facing, *_kept(source, views)[1:]))


def _with_all_times(info: SceneInfo, scene: Representation) -> SceneInfo:
    """``info`` with a box of the content that holds what moves at every time, nearly."""
    if scene.times is None:
        return info
    boxes = [
        content_box(cloud)
        for time in np.linspace(*scene.times, _MOMENTS)
        if (cloud := scene.splats(float(time))) is not None
    ]
    low, high = np.array([info.limits.content, *boxes]).swapaxes(0, 1)
    content = (_corner(low.min(axis=0)), _corner(high.max(axis=0)))
    return replace(info, limits=replace(info.limits, content=content))


def _field_info(
    source: OpenedScene, views: tuple[CameraView, ...], low: np.ndarray, high: np.ndarray
) -> SceneInfo:
    """Of a scene without points: its content's box is ``low`` to ``high``, and it looks right from
    the box in which its training cameras stood."""
    if not views:
        raise UsageError("has no cameras from which it was trained", where=source.path)
    positions = np.array([[row[3] for row in view.c2w[:3]] for view in views])
    return SceneInfo(
        cameras=_kept(source, views),
        limits=Limits(
            content=(_corner(low), _corner(high)),
            cameras=(_corner(positions.min(axis=0)), _corner(positions.max(axis=0))),
            near=NEAR_SHARE * float(np.linalg.norm(high - low)),
        ),
        poster=b"",
    )


def _kept(source: OpenedScene, views: tuple[CameraView, ...]) -> tuple[CameraView, ...]:
    """A few where nobody took a photograph, otherwise all."""
    if source.cameras.photographed or len(views) <= KEPT_CAMERAS:
        return views
    return tuple(views[i] for i in np.linspace(0, len(views) - 1, KEPT_CAMERAS).round().astype(int))


def _corner(point: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in point)
    return x, y, z


@torch.no_grad()
def poster(scene: Representation, camera: Camera) -> bytes:
    """A WebP of the scene at ``camera``, at most :data:`POSTER_WIDTH` wide."""
    from PIL import Image

    factor = max(1, math.ceil(camera.width / POSTER_WIDTH))
    render = scene.render(camera.downscaled(factor) if factor > 1 else camera)
    pixels = (render.rgb.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=70)
    return file.getvalue()


def camera_view(name: str, camera: Camera) -> CameraView:
    """A camera as bundles and files name it."""
    k = camera.K.tolist()
    return CameraView(
        name=name,
        c2w=_rows(camera.c2w),
        fx=k[0][0],
        fy=k[1][1],
        cx=k[0][2],
        cy=k[1][2],
        width=camera.width,
        height=camera.height,
        time=None if camera.time is None else float(camera.time),
    )


def _camera(view: CameraView) -> Camera:
    intrinsics = [[view.fx, 0, view.cx], [0, view.fy, view.cy], [0, 0, 1]]
    return Camera(
        c2w=torch.tensor(view.c2w, dtype=torch.float32),
        K=torch.tensor(intrinsics, dtype=torch.float32),
        width=view.width,
        height=view.height,
        time=None if view.time is None else torch.tensor(view.time, dtype=torch.float32),
    )


def _rows(matrix: torch.Tensor) -> Matrix:
    a, b, c, d = ((w, x, y, z) for w, x, y, z in matrix.double().tolist())
    return a, b, c, d
