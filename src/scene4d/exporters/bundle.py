"""A run or splats as an ``.s4d`` bundle with poster and cameras, at a size that was asked for."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from scene4d.bundle.coding import Coded
from scene4d.bundle.light_slab import KIND as LIGHT_SLAB
from scene4d.bundle.light_slab import encode_light_slab
from scene4d.bundle.lpgs import KIND as LPGS
from scene4d.bundle.lpgs import LpgsParts, encode_lpgs, grid_of, uncontracted
from scene4d.bundle.scene_info import (
    NEAR_SHARE,
    CameraView,
    Limits,
    Matrix,
    SceneInfo,
    default_info,
    made_up_view,
)
from scene4d.bundle.splats import KIND as SPLATS
from scene4d.bundle.splats import SplatQuantisation, bundle_writer, encode_splats, error_of
from scene4d.cameras.camera import Camera
from scene4d.errors import UsageError
from scene4d.exporters.light_slab import light_slab_parts
from scene4d.exporters.options import BundleOptions
from scene4d.exporters.source import ExportSource, cloud_of, splats_of
from scene4d.representations.base import Representation
from scene4d.representations.light_slabs.light_slabs import LightSlabs
from scene4d.representations.lpgs.parent_child import CODED, ParentChildSplats
from scene4d.representations.lpgs.seeds import KEPT_CAMERAS
from scene4d.splat_cloud import SplatCloud

POSTER_WIDTH = 480
_NAMES = {"scales": "log_scales", "rotations": "rotation", "opacities": "opacity", "sh0": "dc",
          "shN": "sh"}  # fmt: skip
_CONTENT_REACH = 2.0
"""The box of a light field's content, in its radii, within which half of its points lie."""
_SEARCH_STEPS = 14
LANDING = 0.02
"""A size that was asked for is met when the file is within this share of it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bundled:
    """A scene as bundles of its kind have it."""

    kind: str
    encode: Callable[[float], Coded]
    """The members, with all steps so many times coarser."""
    info: SceneInfo
    what: str | None = None
    """For people; None: that many Gaussians."""
    trained_mb: float | None = None
    """The size that it was trained for, MB."""
    trains_sizes: bool = False
    """Whether training towards another size is what reaches one."""


@dataclass(frozen=True, kw_only=True)
class Landed:
    """A bundle's members at some fineness of quantisation."""

    coded: Coded
    size: int
    """Bytes of the file."""
    factor: float
    """What multiplies all steps."""


def export(source: ExportSource, path: Path, options: BundleOptions | None = None) -> str:
    """Writes the bundle; returns a line that describes it."""
    target_mb = None if options is None else options.target_mb
    if Path(path).suffix.lower() != ".s4d":
        raise UsageError("bundles are written as .s4d", where=path, fix="name it SOMETHING.s4d")
    scene = bundled(source)
    kind, info = scene.kind, scene.info
    landed = land(
        lambda factor: _sized(kind, scene.encode(factor), info, factor),
        target_mb or scene.trained_mb, path, trained=scene.trains_sizes,
    )  # fmt: skip
    bundle_writer(kind, landed.coded, info).write(Path(path))
    count, size = landed.coded.manifest["count"], f"{landed.size / 1e6:.3f} MB"
    if scene.what is not None:
        return f"{scene.what} in {size}, kind {kind}"
    each = landed.size / max(1, count)
    return f"{count:,} Gaussians in {size} ({each:.2f} bytes each), kind {kind}"


def bundled(source: ExportSource) -> Bundled:
    """The scene by the first entry of :data:`ENCODERS` that knows it, or else as plain splats."""
    for representation, encoder in ENCODERS.items():
        if isinstance(source.representation, representation):
            return encoder(source)
    cloud = source.scene_cloud()
    return Bundled(kind=SPLATS, encode=_splats_encoder(cloud), info=scene_info(source, cloud))


def _families(source: ExportSource) -> Bundled:
    scene = source.representation
    assert isinstance(scene, ParentChildSplats)
    return Bundled(
        kind=LPGS,
        encode=lambda factor: encode_lpgs(lpgs_parts(scene, factor=factor)),
        info=scene_info(source, cloud_of(scene.as_splats())),
        trained_mb=scene.target_mb,
        trains_sizes=True,
    )


def _light_field(source: ExportSource) -> Bundled:
    scene = source.representation
    assert isinstance(scene, LightSlabs)
    centre = scene.content_centre.cpu().double().numpy()
    reach = _CONTENT_REACH * scene.settings.content_radius
    slabs = f"{scene.planes.slabs} slab" + ("s" if scene.planes.slabs > 1 else "")
    return Bundled(
        kind=LIGHT_SLAB,
        encode=lambda factor: encode_light_slab(light_slab_parts(scene, factor=factor)),
        info=field_info(source, centre - reach, centre + reach),
        what=f"a light field of {slabs} and {len(scene.plane_set.planes)} planes"
        + (f", with {scene.sheets.num_tiles:,} tiles of sheets" if scene.sheets else ""),
    )


ENCODERS: Mapping[type[Representation], Callable[[ExportSource], Bundled]] = {
    ParentChildSplats: _families,
    LightSlabs: _light_field,
}
"""Representations with a kind of their own."""


def land(
    at: Callable[[float], Landed], target_mb: float | None, path: Path, *, trained: bool = False
) -> Landed:
    """The bundle at the trained steps, or with all steps scaled so that its size is the target.

    ``trained``: the scene is one whose training chooses its size. Raises :class:`UsageError` where
    no scale reaches the target within 2%.
    """
    best = last = at(1.0)
    if target_mb is None:
        return best
    target = target_mb * 1e6
    low, guess, high = -math.log(64.0), 0.0, math.log(16.0)
    for _ in range(_SEARCH_STEPS):
        if abs(best.size / target - 1) <= LANDING / 4:
            break
        low, high = (guess, high) if last.size > target else (low, guess)
        guess = (low + high) / 2
        last = at(math.exp(guess))
        best = min(best, last, key=lambda landed: abs(landed.size / target - 1))
    if abs(best.size / target - 1) > LANDING:
        raise UsageError(
            f"cannot be made {target_mb} MB by changing the steps of its values alone: the nearest"
            f" is {best.size / 1e6:.3f} MB",
            where=path,
            fix=f"train longer for that size (--target-mb {target_mb:g} with more --max-minutes or"
            f" --steps), or ask for about {best.size / 1e6:.2g} MB"
            if trained
            else "train it for that size: scene4d compress SCENE OUT.s4d --target-mb"
            f" {target_mb:g}",
        )
    return best


def _sized(kind: str, coded: Coded, info: SceneInfo, factor: float) -> Landed:
    return Landed(coded=coded, size=len(bundle_writer(kind, coded, info).to_bytes()), factor=factor)


def _splats_encoder(cloud: SplatCloud) -> Callable[[float], Coded]:
    base = SplatQuantisation()

    def encode(factor: float) -> Coded:
        levels = max(3, round((base.opacity_levels - 1) / factor) + 1)
        scaled = {
            name: getattr(base, name) * factor
            for name in ("log_scale_step", "rotation_step", "dc_step", "sh_steps")
        }
        return encode_splats(cloud, replace(base, opacity_levels=levels, **scaled))

    return encode


@torch.no_grad()
def lpgs_parts(scene: ParentChildSplats, *, factor: float = 1.0) -> LpgsParts:
    """The scene's integers; ``factor`` coarsens the steps of all attributes of parents."""
    rows = scene.kept.nonzero()[:, 0].cpu()
    codes, steps, errors = {}, {}, {}
    for name in CODED:
        values, step = scene.values_and_step(name)
        values, step = values.cpu()[rows], (step * factor).cpu()
        rounded = (values / step).round()
        codes[_NAMES[name]] = rounded.int().numpy()
        steps[_NAMES[name]] = step.numpy()
        errors[_NAMES[name]] = error_of((rounded * step - values).double().numpy())
    points = scene.cells(scene.means).cpu()[rows].numpy().astype(np.uint32)
    origin, width = grid_of(scene.structure.position_bits)
    places = uncontracted((origin + width * points).astype(np.float32), scene.structure.plain())
    errors["positions"] = error_of(places - scene.means.cpu()[rows].double().numpy())
    masks = (scene.gaussians["keep_children"].cpu()[rows] > 0).numpy()
    table = None
    if scene.grid is not None and scene.table_quantiser is not None:
        table = scene.table_quantiser.codes(scene.grid.table).cpu().numpy()
        steps["grid"] = scene.table_quantiser.step.cpu().numpy()
        errors["grid"] = error_of(table * steps["grid"] - scene.grid.table.cpu().numpy())
    areas = scene.stds[rows].sort(dim=-1).values[:, 1:].prod(dim=-1)
    return LpgsParts(
        structure=scene.structure.plain(),
        points=points,
        codes=codes,
        steps=steps,
        children=(masks << np.arange(masks.shape[1])).sum(axis=1),
        importance=(scene.alphas.cpu()[rows] * areas.cpu()).numpy(),
        table=table,
        errors=errors,
        weights=None
        if scene.network is None
        else {n: p.detach().cpu().numpy() for n, p in scene.network.named_parameters()},
    )


def scene_info(source: ExportSource, cloud: SplatCloud) -> SceneInfo:
    """Cameras (a few where nobody took a photograph), limits, the way home, and a poster rendered
    from the first camera."""
    views = tuple(_view(f"camera {i}", camera) for i, camera in enumerate(source.cameras))
    info = default_info(cloud, cameras=views)
    if source.rendered and views:  # from somewhere around the content; a player starts facing it
        facing = replace(made_up_view(cloud, lens=views[0]), name="facing")
        info = replace(info, cameras=(facing, *_kept(source, views)[1:]))
    elif views:
        info = replace(info, cameras=views)
    scene = source.representation
    if scene is None:
        scene = splats_of(cloud)
    return replace(
        info,
        transform=_rows(source.source_from_scene),
        poster=poster(scene, _camera(info.cameras[0])),
    )


def field_info(source: ExportSource, low: np.ndarray, high: np.ndarray) -> SceneInfo:
    """The same of a scene without points: its content's box is ``low`` to ``high``, and it looks
    right from the box in which its training cameras stood."""
    if source.representation is None or not source.cameras:
        raise UsageError("has no cameras from which it was trained", where=source.path)
    views = tuple(_view(f"camera {i}", camera) for i, camera in enumerate(source.cameras))
    positions = np.array([[row[3] for row in view.c2w[:3]] for view in views])
    return SceneInfo(
        cameras=_kept(source, views),
        limits=Limits(
            content=(_corner(low), _corner(high)),
            cameras=(_corner(positions.min(axis=0)), _corner(positions.max(axis=0))),
            near=NEAR_SHARE * float(np.linalg.norm(high - low)),
        ),
        poster=poster(source.representation, source.cameras[0]),
        transform=_rows(source.source_from_scene),
    )


def _kept(source: ExportSource, views: tuple[CameraView, ...]) -> tuple[CameraView, ...]:
    """A few where nobody took a photograph, otherwise all."""
    if not source.rendered or len(views) <= KEPT_CAMERAS:
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


def _view(name: str, camera: Camera) -> CameraView:
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
    )


def _rows(matrix: torch.Tensor) -> Matrix:
    a, b, c, d = ((w, x, y, z) for w, x, y, z in matrix.double().tolist())
    return a, b, c, d
