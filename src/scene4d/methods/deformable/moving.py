"""The Gaussians that move: what plain ones have, the nodes they follow, and when they are there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from scene4d.errors import DataError
from scene4d.methods.deformable.nodes import Nodes
from scene4d.rendering.motion.poses import quat_conjugate, quat_rotate
from scene4d.rendering.motion.skinning import blended_poses, skin
from scene4d.rendering.splats.reference import ALPHA_MIN
from scene4d.representations.gaussians import NAMES, GaussianSplats
from scene4d.representations.saved import Form, form

MORE = ("node_logits", "window_edges", "window_widths")
"""Parameters of moving Gaussians beside those of all."""


class MovingGaussians(GaussianSplats):
    """Gaussians in their canonical arrangement, and four nodes that each follows."""

    node_indices: Tensor
    """[n, 4] int32"""
    seen_means: Tensor
    """[n, 3] where each was seen, world; empty once they have settled."""
    seen_times: Tensor
    """[n] when, seconds; empty once they have settled."""

    def __init__(self, tensors: Mapping[str, Tensor], **settings: Any) -> None:
        """``tensors``: those of plain Gaussians; ``node_logits`` [n, 4], of the weights;
        ``window_edges`` [n, 2] seconds, rise and fall of opacity; ``window_widths`` [n, 2], the
        logarithms of how long each takes;
        ``node_indices``; ``seen_means`` and ``seen_times`` until the nodes have settled."""
        super().__init__(tensors, **settings)
        for name in MORE:
            self.gaussians[name] = nn.Parameter(tensors[name])
        self.register_buffer("node_indices", tensors["node_indices"])
        for name, shape in (("seen_means", (0, 3)), ("seen_times", (0,))):
            self.register_buffer(name, tensors.get(name, torch.zeros(shape)))

    @classmethod
    def saved_forms(cls, plain: Mapping[str, Any]) -> Mapping[str, Form]:
        """One row for each Gaussian, and one for each that has not settled."""
        more = {f"gaussians.{name}": form("n 2") for name in MORE}
        more["gaussians.node_logits"] = form("n 4")
        buffers = {
            "node_indices": form("n 4", torch.int32),
            "seen_means": form("unsettled 3"),
            "seen_times": form("unsettled"),
        }
        return {**super().saved_forms(plain), **more, **buffers}

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> MovingGaussians:
        """Built again from a checkpoint."""
        more = plain.get("more_rates")
        if not isinstance(more, Mapping) or set(more) - set(MORE):
            raise DataError(f"more_rates are not those of {', '.join(MORE)}", where="settings")
        like = GaussianSplats.from_saved(
            tensors, {name: value for name, value in plain.items() if name != "more_rates"}
        )
        settings = {name: getattr(like, name) for name in (
            "learning_rates", "sh_bands_at", "antialiased", "extent", "max_num_gaussians"
        )}  # fmt: skip
        named = {name: tensors[f"gaussians.{name}"] for name in (*NAMES, *MORE)}
        buffers = {n: tensors[n] for n in ("node_indices", "seen_means", "seen_times")}
        moving = cls({**named, **buffers}, **settings)
        moving.active_sh_degree = like.active_sh_degree
        moving.learning_rates.update({name: float(rate) for name, rate in more.items()})
        return moving

    def plain_data(self) -> Mapping[str, Any]:
        """What the tensors do not say."""
        rates = self.learning_rates
        return {
            **super().plain_data(),
            "learning_rates": {name: rate for name, rate in rates.items() if name in NAMES},
            "more_rates": {name: rate for name, rate in rates.items() if name in MORE},
        }

    def check_nodes(self, nodes: Nodes) -> None:
        """Raises :class:`DataError` for Gaussians that follow nodes that there are not: compiled
        kernels look them up."""
        found = self.node_indices
        if len(found) and not 0 <= int(found.min()) <= int(found.max()) < len(nodes):
            raise DataError(
                f"moving Gaussians follow nodes {int(found.min())} to {int(found.max())} "
                f"of {len(nodes)}"
            )
        if len(self.seen_means) not in (0, self.num_gaussians):
            raise DataError(
                f"{len(self.seen_means)} of {self.num_gaussians} moving Gaussians have settled"
            )

    @property
    def node_weights(self) -> Float[Tensor, "n 4"]:
        """Shares of the nodes in each Gaussian's motion."""
        return self.gaussians["node_logits"].softmax(dim=1)

    @torch.no_grad()
    def drawn_at(self, time: Float[Tensor, ""]) -> Int[Tensor, " m"]:
        """Rows of those that are opaque enough at a time, seconds, to be drawn at all."""
        return (self.alphas_at(time) >= ALPHA_MIN).nonzero()[:, 0]

    def placed(
        self, motions: Float[Tensor, "nodes 7"], rows: Int[Tensor, " m"]
    ) -> tuple[Float[Tensor, "m 3"], Float[Tensor, "m 4"]]:
        """Means and quaternions of those in ``rows`` where the nodes' ``motions`` take them."""
        return skin(
            self.means[rows], self.quats[rows], motions,
            self.node_indices[rows], self.node_weights[rows],
        )  # fmt: skip

    def alphas_at(self, time: Float[Tensor, ""]) -> Float[Tensor, " n"]:
        """Opacities, 0..1, at a time in seconds."""
        rise, fall = self.gaussians["window_edges"].unbind(dim=1)
        rise_width, fall_width = self.gaussians["window_widths"].exp().unbind(dim=1)
        risen = ((time - rise) / rise_width).sigmoid()
        return self.alphas * risen * ((fall - time) / fall_width).sigmoid()

    @torch.no_grad()
    def settle(self, nodes: Nodes, *, again: bool = False) -> None:
        """Takes the Gaussians from where they were seen to the nodes' canonical arrangement; round
        ones, as they are at first. ``again``: the nodes' trajectories may still change."""
        if not len(self.seen_times):
            return
        for time in self.seen_times.unique():
            rows = (self.seen_times == time).nonzero()[:, 0]
            motions = nodes.motions(time[None])[0]
            blend = blended_poses(motions, self.node_indices[rows], self.node_weights[rows])
            back = quat_conjugate(blend[:, :4])
            self.means[rows] = quat_rotate(back, self.seen_means[rows] - blend[:, 4:])
            self.quats[rows] = back
        if not again:
            self.seen_means = self.seen_means[:0].clone()
            self.seen_times = self.seen_times[:0].clone()
