"""What deformable splats start from: masks of what moves, tracks lifted by depth, nodes, seeds.

In the order of Shape of Motion and MoSca: static Gaussians outside of the moving masks; nodes, by
farthest-point sampling over the trajectories of lifted tracks; moving Gaussians at the pixels of
the masks, each of its own time, tied to the nodes that are near then.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from scene4d.data.points import random_points, visible_from
from scene4d.data.scene import Points, Scene, ViewSource
from scene4d.errors import DataError
from scene4d.methods.deformable.deformable import DeformableSplats, always
from scene4d.methods.deformable.lifted import (
    LiftedTracks,
    back_projected,
    candidates,
    completed,
    farthest,
    usual_spacing,
)
from scene4d.methods.deformable.moving import MovingGaussians
from scene4d.methods.deformable.network_nodes import NetworkNodes
from scene4d.methods.deformable.nodes import Nodes, SplineNodes, Timing, nearest_nodes
from scene4d.methods.deformable.observed import Observed, observed
from scene4d.rendering.motion.poses import quat_of_rotation
from scene4d.rendering.motion.splines import continuous, fitted_knots
from scene4d.representations.base import Representation
from scene4d.representations.gaussians import (
    NAMES,
    GaussianSplats,
    gaussians_from_points,
)

if TYPE_CHECKING:
    from scene4d.methods.deformable.method import DeformableMethod

_log = logging.getLogger("scene4d")
_PREDICTED = 0.05
"""How much a predicted place of a node counts beside a seen one, when splines are fitted."""
_CANDIDATES = 3
"""Tracks a node that are completed, before those are left out that go the same way."""
_TOGETHER = 4
"""Frames whose seeds fill a surface together: each makes as much smaller ones."""

Maps = Mapping[int, Tensor]
"""By frame: masks, depths."""


def start(
    scene: Scene,
    method: DeformableMethod,
    *,
    generator: torch.Generator,
    teacher: Representation | None = None,
) -> DeformableSplats:
    """The untrained representation of ``scene``. Raises :class:`DataError` where no two of its
    pictures are of different times."""
    images = _pictures(scene)
    times = _check_times(scene)
    train = list(scene.train_indices)
    seen = observed(scene, images, method.moving_masks, by_network=method.by_network)
    masks, depths = seen.masks, seen.depths
    nodes: Nodes = _nodes(seen.lifted, method, times)
    if method.motion == "network" and len(nodes):
        assert isinstance(nodes, SplineNodes)
        nodes = NetworkNodes.fitted(nodes, generator)
    moving = _moving(scene, images, method, nodes, masks, depths, generator)
    static = _static(scene, method, seen, moving.num_gaussians, generator, teacher)
    share = sum(float(masks[i].float().mean()) for i in train) / len(train)
    _log.info(
        "%.1f%% of the pictures move: %s moving Gaussians follow %s nodes",
        100 * share, f"{moving.num_gaussians:,}", f"{len(nodes):,}",
    )  # fmt: skip
    if not moving.num_gaussians:
        _log.warning("nothing was found to move: these will be static splats")
    rates = {name: getattr(method, f"{name}_lr") for name in nodes.trained()}
    return DeformableSplats(static, moving, nodes, node_rates=rates if len(nodes) else None)


def _pictures(scene: Scene) -> ViewSource:
    if scene.pictures is None:
        from scene4d.data.images import ImageCache

        return ImageCache(scene, indices=scene.train_indices)
    return scene.pictures


def _check_times(scene: Scene) -> list[float]:
    cameras = scene.train_cameras()
    times = sorted({float(c.time) for c in cameras if c.time is not None})
    if len(times) < 2:
        what = "have no time" if not times else f"are all of one time ({times[0]:g} s)"
        raise DataError(
            f"the {len(cameras)} training pictures {what}, so nothing can move",
            where=scene.root,
            fix="give each frame its 'time' in transforms.json, or train a static method",
        )
    return times


def _timing(
    times: Sequence[float], method: DeformableMethod, rest: float, spacing: float
) -> Timing:
    duration = times[-1] - times[0]
    steps = torch.tensor(times).diff()
    usual = float(steps[steps > 1e-3 * duration / len(times)].median())
    interval = min(duration, usual * method.frames_per_knot)
    return Timing(
        start_s=times[0], duration_s=duration, knot_interval_s=interval, rest_s=rest,
        spacing=spacing,
    )  # fmt: skip


# Nodes


def _nodes(tracks: LiftedTracks, method: DeformableMethod, times: Sequence[float]) -> SplineNodes:
    if len(tracks) < 4:
        return SplineNodes.none(_timing(times, method, times[0], 1.0))
    some = candidates(tracks, _CANDIDATES * method.num_nodes)
    turns, places = completed(tracks, some)
    kept, largest = farthest(places, method.num_nodes)
    chosen, turns, places = some[kept], turns[:, kept], places[:, kept]
    spacing = usual_spacing(places) or largest
    busiest = int(tracks.seen.sum(0).argmax())
    timing = _timing(times, method, float(tracks.times[busiest]), spacing)
    return fitted_nodes(tracks, chosen, turns, places, timing, method.neighbours)


def fitted_nodes(
    tracks: LiftedTracks,
    chosen: Int[Tensor, " nodes"],
    turns: Float[Tensor, "frames nodes 3 3"],
    places: Float[Tensor, "frames nodes 3"],
    timing: Timing,
    neighbours: int,
) -> SplineNodes:
    """Nodes whose splines go as near as they can by ``places``, turning as ``turns`` do."""
    seen = tracks.seen[chosen]
    weights = torch.where(seen, 1.0, _PREDICTED)
    quats = continuous(quat_of_rotation(turns))
    values = torch.cat([quats, places], dim=-1).transpose(0, 1)  # [nodes, frames, 7]
    knots = fitted_knots(values, weights, timing.at(tracks.times), timing.num_knots)
    near, bonds = _bonds(places.transpose(0, 1), timing.spacing, neighbours)
    nodes = SplineNodes(
        {
            "turns": knots[..., :4].contiguous(),
            "places": knots[..., 4:].contiguous(),
            "rest": torch.tensor([1.0, 0, 0, 0, 0, 0, 0]).repeat(len(chosen), 1),
            "neighbours": near,
            "bonds": bonds,
            "seen": tracks.places[chosen],
            "seen_weights": seen.float(),
            "seen_times": tracks.times,
        },
        timing,
    )
    nodes.settle()
    return nodes


def _bonds(
    places: Float[Tensor, "nodes frames 3"], spacing: float, count: int
) -> tuple[Int[Tensor, "nodes k"], Float[Tensor, "nodes k"]]:
    """Of each node, those that stay nearest to it all the time, and how alike they move."""
    total = len(places)
    largest = torch.zeros(total, total)
    smallest = torch.full((total, total), torch.inf)
    for frame in places.unbind(1):
        distance = torch.cdist(frame, frame)
        largest, smallest = torch.maximum(largest, distance), torch.minimum(smallest, distance)
    largest.fill_diagonal_(torch.inf)
    far, near = largest.topk(min(count, total - 1), dim=1, largest=False)
    stretch = far - smallest.gather(1, near)
    return near, torch.exp(-0.5 * (stretch / (2 * spacing)).square())


# Gaussians that move


def _moving(
    scene: Scene,
    images: ViewSource,
    method: DeformableMethod,
    nodes: Nodes,
    masks: Maps,
    depths: Maps,
    generator: torch.Generator,
) -> MovingGaussians:
    """Seeds at pixels of the masks, as many in each frame as its share of what moves."""
    limit = method.most_moving if len(nodes) else 0
    train = list(method.seeding(scene))
    usable = {i: masks[i] & (depths[i] > 0) for i in train}
    total = sum(int(mask.sum()) for mask in usable.values())
    share = min(1.0, 0.7 * limit / max(total, 1))
    parts: list[dict[str, Tensor]] = []
    for index in train:
        count = round(share * int(usable[index].sum()))
        if count > 1:
            parts.append(
                _seeds(images, index, usable[index], depths[index], count, nodes, method, generator)
            )
    settings: dict[str, Any] = {
        "learning_rates": {**_rates(method), **_rates_of_motion(method, nodes.timing)},
        "sh_bands_at": method.sh_bands_at,
        "antialiased": method.antialiased,
        "extent": scene.extent,
        "max_num_gaussians": max(1, limit),
    }
    if not parts:
        return MovingGaussians(no_moving(method.sh_degree), **settings)
    tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    moving = MovingGaussians(tensors, **settings)
    moving.settle(nodes, again=True)
    return moving


def no_moving(sh_degree: int) -> dict[str, Tensor]:
    """The tensors of no moving Gaussian at all."""
    empty = {
        "means": (0, 3), "quats": (0, 4), "scales": (0, 3), "opacities": (0,), "sh0": (0, 1, 3),
        "shN": (0, (sh_degree + 1) ** 2 - 1, 3), "node_logits": (0, 4), "window_edges": (0, 2),
        "window_widths": (0, 2),
    }  # fmt: skip
    tensors = {name: torch.zeros(shape) for name, shape in empty.items()}
    return {**tensors, "node_indices": torch.zeros(0, 4, dtype=torch.int32)}


def _rates(method: DeformableMethod) -> dict[str, float]:
    return {name: getattr(method, f"{name}_lr") for name in NAMES}


def _rates_of_motion(method: DeformableMethod, timing: Timing) -> dict[str, float]:
    rates = {"node_logits": method.node_logits_lr}
    if method.temporal_opacity:
        rates["window_edges"] = method.windows_lr * _frame_s(method, timing)
        rates["window_widths"] = method.windows_lr
    return rates


def _frame_s(method: DeformableMethod, timing: Timing) -> float:
    """Seconds from a frame to the next."""
    return timing.knot_interval_s / method.frames_per_knot


def _seeds(
    images: ViewSource,
    index: int,
    usable: Bool[Tensor, "height width"],
    depth: Float[Tensor, "height width"],
    count: int,
    nodes: Nodes,
    method: DeformableMethod,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Gaussians at ``count`` of the usable pixels, at the place and time where they are seen."""
    view = images.view(index)
    assert view.camera.time is not None
    y, x = usable.nonzero(as_tuple=True)
    some = torch.randperm(len(x), generator=generator)[:count]
    y, x = y[some], x[some]
    xy = torch.stack([x, y], dim=-1) + 0.5
    xyz = back_projected(view.camera, xy, depth[y, x])
    rgb = (view.rgb[y, x] * 255).round().byte()
    tensors = gaussians_from_points(xyz, rgb, sh_degree=method.sh_degree)
    pixels = (len(usable.nonzero()) / (count * _TOGETHER)) ** 0.5
    footprint = pixels * depth[y, x] / view.camera.K[0, 0]
    tensors["scales"] = torch.minimum(tensors["scales"], footprint.log()[:, None])
    time = view.camera.time.reshape(1)
    with torch.no_grad():
        places = nodes.poses(time)[0, :, 4:]
    visible = _visible_nodes(nodes, float(time))
    which, logits = nearest_nodes(
        xyz, places, nodes.neighbours, spacing=nodes.timing.spacing, visible=visible
    )
    windows = always(len(xyz))
    if method.temporal_opacity:
        frame_s = _frame_s(method, nodes.timing)
        windows = _windows(float(time), method.window_frames * frame_s, frame_s, len(xyz))
    return {
        **tensors, **windows, "node_logits": logits,
        "node_indices": which.int(), "seen_means": xyz.clone(),
        "seen_times": time.expand(len(xyz)).clone(),
    }  # fmt: skip


def _windows(time: float, reach: float, width: float, count: int) -> dict[str, Tensor]:
    """There from ``reach`` before ``time`` until as long after it, seconds, with soft edges."""
    edges = torch.tensor([time - reach, time + reach]).repeat(count, 1)
    return {"window_edges": edges, "window_widths": torch.full((count, 2), width).log()}


def _visible_nodes(nodes: Nodes, time: float) -> Bool[Tensor, " nodes"]:
    """Nodes that were seen about then."""
    gap = (nodes.seen_times - time).abs()
    near = gap <= 1.01 * nodes.timing.knot_interval_s
    return (nodes.seen_weights[:, near] > 0).any(dim=1)


# Gaussians that stand still


def _static(
    scene: Scene,
    method: DeformableMethod,
    seen: Observed,
    num_moving: int,
    generator: torch.Generator,
    teacher: Representation | None,
) -> GaussianSplats:
    limit = max(1, method.most_gaussians - max(num_moving, method.most_moving))
    taught = None if teacher is None or method.init != "auto" else teacher.splats()
    if taught is not None:
        given = GaussianSplats.of(taught, sh_degree=method.sh_degree)
    else:
        points = scene.points
        if points is not None:
            points = _outside(points, scene, seen.masks, seen.depths)
        elif seen.still is not None and method.init == "auto":
            points = _with_random(seen.still, scene, method.num_random_points, generator)
        given = GaussianSplats.at_points(
            replace(scene, points=points),
            init=method.init,
            num_random_points=method.num_random_points,
            max_num_gaussians=limit,
            sh_degree=method.sh_degree,
            generator=generator,
        )
    return GaussianSplats(
        {name: given.gaussians[name].detach() for name in NAMES},
        learning_rates=_rates(method),
        sh_bands_at=method.sh_bands_at,
        antialiased=method.antialiased,
        extent=scene.extent,
        max_num_gaussians=max(limit, given.num_gaussians),
    )


def _with_random(points: Points, scene: Scene, count: int, generator: torch.Generator) -> Points:
    """Those of tracks, and as many random ones as are missing: bare walls have no tracks."""
    missing = count - len(points.xyz)
    if missing <= 0:
        return points
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    more = random_points(scene, missing, seed=seed)
    return Points(
        xyz=torch.cat([points.xyz, more.xyz.to(points.xyz)]), rgb=torch.cat([points.rgb, more.rgb])
    )


def _outside(points: Points, scene: Scene, masks: Maps, depths: Maps) -> Points | None:
    """The points that stand still: mostly seen outside of the moving masks, and, where there is
    depth, not seen through."""
    inside, looked, through = (torch.zeros(len(points.xyz)) for _ in range(3))
    for index in scene.train_indices:
        camera = scene.frames[index].camera
        seen, pixel = visible_from(points.xyz, camera)
        x, y = pixel.unbind(-1)
        z = -((points.xyz - camera.position) @ camera.c2w[:3, 2])
        measured = depths[index][y, x]
        hidden = (measured > 0) & (measured < 0.97 * z)
        counted = seen & ~hidden
        looked += counted
        inside += counted & masks[index][y, x]
        through += counted & (measured > 1.05 * z) & ~masks[index][y, x]
    keep = (inside <= 0.5 * looked) & (through <= 0.2 * looked)
    if not bool(keep.any()):
        return None
    return Points(xyz=points.xyz[keep], rgb=points.rgb[keep])
