"""What is measured of a run on a dynamic capture beside the usual figures."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.cameras.poses import se3_exp
from scene4d.cameras.rays import unproject
from scene4d.data.camera_rate import angular_rate
from scene4d.data.frame import scale_of
from scene4d.data.scene import Scene, View, ViewSource
from scene4d.errors import MissingExtraError
from scene4d.evaluation.dynamic import (
    DYNAMIC_METRICS,
    fixed_camera,
    flicker,
    is_dynamic,
)
from scene4d.evaluation.masked import Regions
from scene4d.evaluation.point_tracks import TRACK_METRICS, read_point_tracks, track_figures
from scene4d.evaluation.protocol import DynamicFigures, composited, evaluate
from scene4d.evaluation.regions import regions_of
from scene4d.rendering.render import Want
from scene4d.representations.base import Representation
from scene4d.training.run import LoadedRun

FIT_STEPS = 25
FIT_LEARNING_RATE = 1e-3
"""Of poses, in radians and lengths of the working frame: MoSca's 25 steps of Adam."""
COVISIBLE_RULE = (
    "made by scene4d: DyCheck's rule and counts on flow of OpenCV's DIS in place of RAFT's, and, "
    "where there is depth, on flow that follows from it (docs/dynamic-evaluation.md)"
)
MOVING_RULE = "made by scene4d: flow that no static scene explains (scene4d.data.moving)"
_log = logging.getLogger("scene4d")


def dynamic_figures(
    run: LoadedRun,
    scene: Scene,
    images: ViewSource,
    background: Float[Tensor, " 3"] | None,
    *,
    compute_masks: bool,
) -> DynamicFigures:
    """Regions of the held-out pictures, and flicker, omega and the error of tracks; nothing for a
    capture of one time."""
    if not is_dynamic(scene) or not scene.photographed:
        return DynamicFigures()
    regions = _regions(run, scene, images, compute_masks)
    results: dict[str, float | None] = {"omega_deg_per_s": angular_rate(scene)}
    representation, device = run.representation, run.device
    fixed = fixed_camera(scene, images, regions)
    if fixed is not None:
        results["flicker"] = flicker(fixed, _pictures(representation, device, background))
    tracks = read_point_tracks(scene)
    if tracks is not None:
        cameras = [images.camera(i) for i in tracks.frames]
        unit = scale_of(scene.source_from_scene)
        results |= track_figures(tracks, cameras, following(representation, device), unit=unit)
    known = {n: v for n, v in results.items() if v is not None and math.isfinite(v)}
    words = {**DYNAMIC_METRICS, **TRACK_METRICS}
    described = {name: words[name] for name in known}
    return DynamicFigures(
        regions=regions, results=known, metrics=described | _masks_in_words(regions.values())
    )


def _masks_in_words(regions: Iterable[Regions]) -> dict[str, str]:
    """Where the masks come from, for eval.json."""
    known = list(regions)
    covisible = {r.covisible_from_flow for r in known if r.covisible is not None}
    moving = {r.moving_from_flow for r in known if r.moving is not None}
    words = {}
    if covisible:
        words["covisible_masks"] = _source(covisible, COVISIBLE_RULE)
    if moving:
        words["moving_masks"] = _source(moving, MOVING_RULE)
    return words


def _source(from_flow: Collection[bool], rule: str) -> str:
    own = "the capture's own"
    if True not in from_flow:
        return own
    return rule if False not in from_flow else f"{own}; where it has none, {rule}"


def _regions(
    run: LoadedRun, scene: Scene, images: ViewSource, compute_masks: bool
) -> dict[int, Regions]:
    try:
        return regions_of(scene, images, kept_in=run.path / "masks", compute=compute_masks)
    except MissingExtraError as error:
        _log.warning("without masks from flow: %s", error)
        return regions_of(scene, images, compute=False)


def _pictures(
    representation: Representation, device: torch.device, background: Tensor | None
) -> Callable[[Camera], Tensor]:
    behind = None if background is None else background.to(device)

    def picture(camera: Camera) -> Tensor:
        with torch.no_grad():
            return representation.render(camera.to(device), background=behind).rgb

    return picture


def following(
    representation: Representation, device: torch.device
) -> Callable[[Camera, tuple[float, ...]], Tensor]:
    """Where what a camera shows is at other times; in a scene that knows no motion, where it is."""

    def follow(camera: Camera, times: tuple[float, ...]) -> Tensor:
        want = Want(depth=True, positions_at=times)
        render = representation.render(camera.to(device), want=want)
        if render.positions is not None:
            return render.positions.cpu()
        assert render.depth is not None
        still = unproject(camera, render.depth.cpu())
        return still.expand(len(times), *still.shape)

    return follow


def with_fitted_poses(
    representation: Representation,
    views: Iterable[View],
    background: Float[Tensor, " 3"] | None,
    dynamic: DynamicFigures,
    *,
    lpips: bool,
) -> DynamicFigures:
    """``dynamic`` with the figures at test cameras that were fitted to their pictures, each
    ``NAME_fitted``: the row that papers with test-time optimisation print."""
    regions = DynamicFigures(regions=dynamic.regions)
    fitted = evaluate(
        representation,
        _fitted(representation, views, background, dynamic.regions),
        background=background,
        lpips=lpips,
        dynamic=regions,
    ).results()
    skip = ("seconds_per_image", "fps", "num_images", "covisible_share")
    more = {f"{n}_fitted": float(v) for n, v in fitted.items() if n not in skip and v is not None}
    word = f"the test camera fitted to its picture first, {FIT_STEPS} steps of Adam"
    return replace(
        dynamic,
        results={**dynamic.results, **more},
        metrics={**dynamic.metrics, "NAME_fitted": word},
    )


def _fitted(
    representation: Representation,
    views: Iterable[View],
    background: Float[Tensor, " 3"] | None,
    regions: Mapping[int, Regions],
) -> Iterator[View]:
    for view in views:
        where = regions.get(int(view.index))
        mask = None if where is None else where.covisible
        yield replace(view, camera=fitted_camera(representation, view, background, mask))


def fitted_camera(
    representation: Representation,
    view: View,
    background: Float[Tensor, " 3"] | None,
    mask: Tensor | None,
) -> Camera:
    """The view's camera, moved so that the render fits the picture better (L1 over ``mask``)."""
    behind = (torch.zeros(3) if background is None else background).to(view.rgb)
    target = composited(view, behind)
    counts = torch.ones(target.shape[:2], dtype=torch.bool, device=target.device)
    for region in (view.mask, mask):
        counts = counts if region is None else counts & region.to(counts.device)
    if not bool(counts.any()):
        return view.camera
    twist = torch.zeros(6, device=target.device, requires_grad=True)
    optimiser = torch.optim.Adam([twist], lr=FIT_LEARNING_RATE)
    best, best_loss = view.camera, math.inf
    for _ in range(FIT_STEPS + 1):
        camera = view.camera.with_pose(view.camera.c2w @ se3_exp(twist))
        with torch.enable_grad():
            rgb = representation.render(camera, background=behind).rgb
            loss = (rgb - target).abs()[counts].mean()
        if float(loss.detach()) < best_loss:
            best_loss = float(loss.detach())
            best = view.camera.with_pose(camera.c2w.detach())
        optimiser.zero_grad()
        (twist.grad,) = torch.autograd.grad(loss, [twist])
        optimiser.step()
    return best
