"""Deformable splats: Gaussians that stand still and Gaussians that follow moving nodes.

As in SC-GS (Huang et al. 2024) and MoSca (Lei et al. 2024): few nodes carry the motion, each
Gaussian blends four of them. A node's motion is a spline of rigid poses (``Nodes``).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.errors import DataError
from scene4d.formats.moving_splats import MovingSplats
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.methods.deformable.moving import MovingGaussians
from scene4d.methods.deformable.network_nodes import NetworkNodes
from scene4d.methods.deformable.nodes import Nodes, SplineNodes, Timing, timing_from
from scene4d.rendering.render import RGB, Render, Want, merged
from scene4d.representations.base import ParameterGroup, Representation
from scene4d.representations.gaussians import (
    NAMES,
    NEAR_SHARE,
    SPLATS_GRAPH_PIXELS,
    GaussianSplats,
    render_gaussians,
)
from scene4d.representations.saved import Form

if TYPE_CHECKING:
    from scene4d.data.scene import Scene
    from scene4d.methods.deformable.method import DeformableMethod

_log = logging.getLogger("scene4d")
_NETWORK_EPS = 1e-8
"""Adam's: a network has weights whose gradients say nothing, which should stay where they are."""
ALWAYS = 1e6
"""Seconds: how far away the edges of opacity lie of what is always there."""


class DeformableSplats(Representation):
    """Static Gaussians, moving ones, and the nodes that these follow."""

    graph_pixels = SPLATS_GRAPH_PIXELS

    shape_rests = False
    """Whether Gaussians are left as they are for now, and only the nodes are trained."""

    def __init__(
        self,
        static: GaussianSplats,
        moving: MovingGaussians,
        nodes: Nodes,
        *,
        node_rates: Mapping[str, float] | None = None,
    ) -> None:
        """``node_rates``: learning rates of what :meth:`Nodes.trained` names; without, for
        rendering only."""
        super().__init__()
        moving.check_nodes(nodes)
        self.static, self.moving_ones, self.nodes = static, moving, nodes
        self.node_rates = dict(node_rates or {})
        self._told = False

    @classmethod
    def from_scene(
        cls,
        scene: Scene,
        method: DeformableMethod,
        *,
        generator: torch.Generator,
        teacher: Representation | None = None,
    ) -> DeformableSplats:
        """What training starts from: see :mod:`scene4d.methods.deformable.start`."""
        from scene4d.methods.deformable.start import start

        return start(scene, method, generator=generator, teacher=teacher)

    # What there is

    @property
    def extent(self) -> float:
        """Scene units that position rates are multiples of."""
        return self.static.extent

    @property
    def alphas(self) -> Float[Tensor, " n"]:
        """Opacities of all Gaussians at their best, 0..1; static ones first."""
        return torch.cat([self.static.alphas, self.moving_ones.alphas])

    @property
    def stds(self) -> Float[Tensor, "n 3"]:
        """Standard deviations of all Gaussians, scene units; static ones first."""
        return torch.cat([self.static.stds, self.moving_ones.stds])

    def describe(self) -> dict[str, float]:
        """Numbers of Gaussians and of nodes."""
        moving = self.moving_ones.num_gaussians
        return {
            "num_gaussians": self.static.num_gaussians + moving,
            "num_moving": moving,
            "num_nodes": len(self.nodes),
        }

    # Training

    def parameter_groups(self) -> list[ParameterGroup]:
        """Those of both sets, named ``static.means`` or ``moving.means``, and the nodes'."""
        groups = [
            replace(group, name=f"{part}.{group.name}")
            for part, splats in (("static", self.static), ("moving", self.moving_ones))
            for group in splats.parameter_groups()
        ]
        trained = self.nodes.trained()
        for name, rate in self.node_rates.items():
            unit = self.extent if name == "places" else 1.0
            groups.append(
                ParameterGroup(
                    name=f"nodes.{name}", parameters=trained[name], learning_rate=rate * unit,
                    eps=_NETWORK_EPS if name == "network" else ParameterGroup.eps,
                )
            )  # fmt: skip
        return groups

    def on_progress(self, progress: float) -> None:
        """Adds bands of harmonics."""
        self.static.on_progress(progress)
        self.moving_ones.on_progress(progress)

    @torch.no_grad()
    def settle(self) -> None:
        """Once the nodes are fitted to the tracks: makes their arrangement at rest the canonical
        one, and takes the Gaussians there from where they were seen."""
        self.nodes.settle()
        self.moving_ones.settle(self.nodes)

    # Rendering

    def time_of(self, camera: Camera) -> Float[Tensor, " cameras"]:
        """Seconds of each camera; where they have none, when the motion begins."""
        count = camera.c2w.shape[0] if camera.c2w.ndim == 3 else 1
        if camera.time is None:
            return camera.c2w.new_full((count,), self.nodes.timing.start_s)
        return camera.time.to(camera.c2w).reshape(-1).expand(count)

    def render(
        self,
        camera: Camera,
        *,
        background: Float[Tensor, " 3"] | None = None,
        want: Want = RGB,
    ) -> Render:
        """Rasterises the Gaussians as they are at the cameras' times."""
        times = self.time_of(camera)
        if camera.c2w.ndim == 2:
            return self._render_at(times[0], camera, background, want)
        renders: list[Render | None] = [None] * len(times)
        for time in times.unique():
            rows = (times == time).nonzero()[:, 0]
            # Cameras of one time share the Gaussians' places.
            part = replace(camera, time=times).chosen(rows)
            whole = self._render_at(time, part, background, want)
            for at, row in enumerate(rows.tolist()):
                renders[row] = whole.picture(at)
        return merged([render for render in renders if render is not None], torch.stack)

    def _render_at(
        self,
        time: Float[Tensor, ""],
        camera: Camera,
        background: Float[Tensor, " 3"] | None,
        want: Want,
    ) -> Render:
        drawn = self.moving_ones.drawn_at(time)
        tensors = self._tensors_at(time, drawn)
        channels = self._channels(want, drawn)
        settings: dict[str, Any] = {
            "depth": want.depth,
            "sh_degree": self.static.active_sh_degree,
            "antialiased": self.static.antialiased,
            "near": NEAR_SHARE * self.extent,
        }
        render = render_gaussians(
            tensors, camera, background=background, features=channels, **settings
        )
        render = _named_channels(render, want)
        if want.parts:
            first = len(drawn)
            rows = {"static": slice(first, None), "dynamic": slice(0, first)}
            parts = {
                name: render_gaussians(
                    {k: v[part] for k, v in tensors.items()}, camera, background=None, **settings
                )
                for name, part in rows.items()
                if name in want.parts
            }
            render = replace(render, parts=parts)
        return render

    def _tensors_at(self, time: Float[Tensor, ""], drawn: Int[Tensor, " m"]) -> dict[str, Tensor]:
        """The Gaussians at ``time``, first the moving ones in the rows ``drawn``; opacities as
        ``alphas``."""
        static, moving = self.static.gaussians, self.moving_ones.gaussians
        still = {**{name: static[name] for name in NAMES}, "alphas": self.static.alphas}
        if not len(drawn):
            return still
        motions = self.nodes.motions(time[None])[0]
        if len(self.moving_ones.seen_times):  # the nodes' own terms lead them until they settle
            motions = motions.detach()
        means, quats = self.moving_ones.placed(motions, drawn)
        moved = {
            **{name: moving[name][drawn] for name in NAMES if name not in ("means", "quats")},
            "means": means,
            "quats": quats,
            "alphas": self.moving_ones.alphas_at(time)[drawn],
        }
        return {name: torch.cat([moved[name], still[name]]) for name in still}

    def _channels(self, want: Want, drawn: Int[Tensor, " m"]) -> Float[Tensor, "n channels"] | None:
        """What is blended beside colour: positions, then whether a Gaussian moves."""
        channels = [self._positions_at(want.positions_at, drawn)] if want.positions_at else []
        if want.shares:
            moves = self.static.means.new_zeros(len(drawn) + self.static.num_gaussians, 1)
            moves[: len(drawn)] = 1.0
            channels.append(moves)
        return torch.cat(channels, dim=-1) if channels else None

    def _positions_at(
        self, times: tuple[float, ...], drawn: Int[Tensor, " m"]
    ) -> Float[Tensor, "n channels"]:
        """Where each Gaussian is at each of ``times``, three numbers a time."""
        still = self.static.means
        if not len(drawn):
            return still.repeat(1, len(times))
        motions = self.nodes.motions(still.new_tensor(times))
        places = [torch.cat([self.moving_ones.placed(each, drawn)[0], still]) for each in motions]
        return torch.cat(places, dim=-1)

    # As plain arrays

    @torch.no_grad()
    def moving(self) -> MovingSplats:
        """The Gaussians and their motion as plain arrays, in scene coordinates. Says once how far
        off splines are where something else moves the nodes."""
        timing, moving, nodes = self.nodes.timing, self.moving_ones, self.nodes
        if isinstance(nodes, NetworkNodes) and not self._told:
            self._told = True
            usual, worst = nodes.knots_error()
            _log.info(
                "the network's motion as splines: nodes off by %.2g (half of them) to %.2g scene"
                " units", usual, worst,
            )  # fmt: skip
        clouds = (moving.splats(), self.static.splats())
        cloud = SplatCloud(
            **{
                name: np.concatenate([getattr(cloud, name) for cloud in clouds])
                for name in ("means", "quats", "log_scales", "logit_opacities", "sh")
            },
            antialiased=self.static.antialiased,
        )
        edges, widths = moving.gaussians["window_edges"], moving.gaussians["window_widths"].exp()
        return MovingSplats(
            cloud=cloud,
            num_moving=moving.num_gaussians,
            node_indices=moving.node_indices.cpu().numpy().astype(np.uint16),
            node_weights=moving.node_weights.cpu().numpy(),
            knots=nodes.motion_knots().cpu().numpy(),
            start_s=timing.start_s,
            knot_interval_s=timing.knot_interval_s,
            duration_s=timing.duration_s,
            opacity_windows=None
            if self.always_there
            else torch.cat([edges, widths], dim=1).cpu().numpy(),
        )

    @property
    def always_there(self) -> bool:
        """Whether no Gaussian comes or goes."""
        rise, fall = self.moving_ones.gaussians["window_edges"].detach().unbind(dim=1)
        return bool((rise <= -ALWAYS).all() and (fall >= ALWAYS).all())

    @classmethod
    def of(cls, moving: MovingSplats, *, extent: float | None = None) -> DeformableSplats:
        """What renders ``moving``; the inverse of :meth:`moving`."""
        all_of_them = GaussianSplats.of(moving.cloud, extent=extent)
        count, nodes = moving.num_moving, moving.num_nodes
        knots = torch.from_numpy(moving.knots.copy())
        timing = Timing(
            start_s=moving.start_s, duration_s=moving.duration_s,
            knot_interval_s=moving.knot_interval_s, rest_s=moving.start_s, spacing=1.0,
        )  # fmt: skip
        rest = torch.tensor([1.0, 0, 0, 0, 0, 0, 0]).repeat(nodes, 1)
        tensors = {
            "turns": knots[..., :4].contiguous(), "places": knots[..., 4:].contiguous(),
            "rest": rest, "neighbours": torch.zeros(nodes, 0, dtype=torch.int64),
            "bonds": torch.zeros(nodes, 0), "seen": torch.zeros(nodes, 0, 3),
            "seen_weights": torch.zeros(nodes, 0), "seen_times": torch.zeros(0),
        }  # fmt: skip
        windows = always(count)
        if moving.opacity_windows is not None:
            given = torch.from_numpy(moving.opacity_windows.copy())
            windows = {
                "window_edges": given[:, :2].clamp(-ALWAYS, ALWAYS),
                "window_widths": given[:, 2:].log().clamp(-ALWAYS, ALWAYS),
            }
        settings: dict[str, Any] = {
            "antialiased": all_of_them.antialiased, "extent": all_of_them.extent
        }  # fmt: skip
        parts = [
            {name: all_of_them.gaussians[name].detach()[rows] for name in NAMES}
            for rows in (slice(0, count), slice(count, None))
        ]
        more = {
            "node_indices": torch.from_numpy(moving.node_indices.astype(np.int32)),
            "node_logits": torch.from_numpy(moving.node_weights.copy()).clamp_min(1e-12).log(),
            **windows,
        }
        return cls(
            GaussianSplats(parts[1], **settings),
            MovingGaussians({**parts[0], **more}, **settings),
            SplineNodes(tensors, timing),
        )

    @property
    def times(self) -> tuple[float, float]:
        """First and last second of the motion."""
        timing = self.nodes.timing
        return timing.start_s, timing.start_s + timing.duration_s

    def splats(self, time: float | None = None) -> SplatCloud:
        """The Gaussians at ``time``, seconds; without one, when the motion begins."""
        return self.moving().at(self.nodes.timing.start_s if time is None else time)

    def moved(self, similarity: np.ndarray) -> DeformableSplats:
        """In other coordinates; for rendering only."""
        return DeformableSplats.of(self.moving().transformed(similarity))

    # Saving

    def plain_data(self) -> Mapping[str, Any]:
        """What the tensors do not say."""
        return {
            "static": dict(self.static.plain_data()),
            "moving": dict(self.moving_ones.plain_data()),
            "timing": asdict(self.nodes.timing),
            "node_rates": self.node_rates,
            "motion": self.nodes.motion,
        }

    @classmethod
    def saved_forms(cls, plain: Mapping[str, Any]) -> Mapping[str, Form]:
        """Those of the three parts, each with its own numbers of rows."""
        parts = {
            "static": GaussianSplats.saved_forms({}),
            "moving_ones": MovingGaussians.saved_forms({}),
            "nodes": _nodes_class(plain).forms(),
        }
        return {
            f"{part}.{name}": replace(form, shape=tuple(
                f"{part} {size}" if isinstance(size, str) and size != "rest" else size
                for size in form.shape
            ))
            for part, forms in parts.items()
            for name, form in forms.items()
        }  # fmt: skip

    @classmethod
    def from_saved(
        cls, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]
    ) -> DeformableSplats:
        """Built again from a checkpoint."""
        tables = {name: _table(plain, name) for name in ("static", "moving", "timing")}
        named = {
            part: {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(part)}
            for part in ("static.", "moving_ones.", "nodes.")
        }
        named = {
            part.rstrip("."): {k.removeprefix(part): v for k, v in values.items()}
            for part, values in named.items()
        }
        timing = timing_from(tables["timing"])
        nodes = _nodes_class(plain)(named["nodes"], timing)
        if isinstance(nodes, SplineNodes) and nodes.places.shape[1] < timing.num_knots:
            raise DataError("there are too few knots for the duration", where="settings: timing")
        rates = plain.get("node_rates")
        if not isinstance(rates, Mapping) or set(rates) - set(nodes.trained()):
            raise DataError(
                f"node_rates are not those of {', '.join(nodes.trained())}", where="settings"
            )
        return cls(
            GaussianSplats.from_saved(named["static"], tables["static"]),
            MovingGaussians.from_saved(named["moving_ones"], tables["moving"]),
            nodes,
            node_rates={name: float(rate) for name, rate in rates.items()},
        )


def always(count: int) -> dict[str, Tensor]:
    """Windows of opacity that nothing can be seen of."""
    edges = torch.tensor([-ALWAYS, ALWAYS]).repeat(count, 1)
    return {"window_edges": edges, "window_widths": torch.zeros(count, 2)}


def _table(plain: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = plain.get(name)
    if not isinstance(table, Mapping):
        raise DataError(f"lacks the table {name}", where="settings")
    return table


def _nodes_class(plain: Mapping[str, Any]) -> type[Nodes]:
    """Of the motion model that a checkpoint names; splines where it is from before there was a
    choice."""
    motion = plain.get("motion", SplineNodes.motion)
    for kind in (SplineNodes, NetworkNodes):
        if motion == kind.motion:
            return kind
    raise DataError(f"has a motion model {str(motion)[:80]!r}", where="settings")


def _named_channels(render: Render, want: Want) -> Render:
    """The channels of :meth:`DeformableSplats._channels` where they belong."""
    if render.features is None:
        return render
    channels, times = render.features, len(want.positions_at)
    render = replace(render, features=None)
    if times:
        apart = channels[..., : 3 * times].unflatten(-1, (times, 3))
        render = replace(render, positions=apart.movedim(-2, -4))
    if want.shares:
        moving = channels[..., -1] * render.alpha  # features are means, like depth
        shares = {"static": render.alpha - moving, "dynamic": moving}
        render = replace(render, shares=shares)
    return render
