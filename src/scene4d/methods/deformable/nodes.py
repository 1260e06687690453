"""The nodes that carry motion: a rigid pose each at any time, and which of them belong together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from scene4d.plain import from_table
from scene4d.ranges import Finite, NotNegative, Positive
from scene4d.rendering.motion.poses import pose_product, quat_conjugate, quat_rotate
from scene4d.rendering.motion.splines import FEWEST_KNOTS, spline_poses
from scene4d.representations.saved import Form, form


@dataclass(frozen=True, kw_only=True)
class Timing:
    """When a motion begins, how long it lasts, and how far its knots lie apart, seconds."""

    start_s: Finite
    duration_s: NotNegative
    knot_interval_s: Positive
    rest_s: Finite
    """The time whose arrangement is the canonical one, but for what :attr:`Nodes.rest` says."""
    spacing: Positive
    """Typical distance of neighbouring nodes, scene units."""

    @property
    def num_knots(self) -> int:
        """As many as the duration needs."""
        intervals = max(1, -(-self.duration_s * (1 - 1e-9) // self.knot_interval_s))
        return int(intervals) + FEWEST_KNOTS - 1

    def at(self, times: Float[Tensor, " times"]) -> Float[Tensor, " times"]:
        """``times`` in intervals after the second knot; clamped to the motion's."""
        elapsed = (times - self.start_s).clamp(0.0, self.duration_s)
        return elapsed / self.knot_interval_s


class Nodes(nn.Module, ABC):
    """Nodes with their poses in the world over time.

    A pose's quaternion says how a node has turned, its translation where the node is: so gradients
    by turns are of the node's surroundings and not of the origin's.
    """

    motion: ClassVar[str]
    """The name of the model, as in the method's options."""
    rest: Tensor
    """[nodes, 7] poses in the canonical arrangement."""
    neighbours: Tensor
    """[nodes, k] int64: others that move alike."""
    bonds: Tensor
    """[nodes, k] how much alike, 0..1."""
    seen: Tensor
    """[nodes, frames, 3] where tracks saw a node, world."""
    seen_weights: Tensor
    """[nodes, frames] 0 where it was not seen."""
    seen_times: Tensor
    """[frames] seconds."""

    BUFFERS: ClassVar[tuple[str, ...]] = (
        "rest", "neighbours", "bonds", "seen", "seen_weights", "seen_times",
    )  # fmt: skip

    def __init__(self, tensors: Mapping[str, Tensor], timing: Timing) -> None:
        """``tensors``: by the names above."""
        super().__init__()
        self.timing = timing
        for name in self.BUFFERS:
            self.register_buffer(name, tensors[name])

    @classmethod
    def forms(cls) -> dict[str, Form]:
        """The tensors that a file has to hold, by name."""
        shapes = {
            "rest": "nodes 7", "bonds": "nodes neighbours", "seen": "nodes frames 3",
            "seen_weights": "nodes frames", "seen_times": "frames",
        }  # fmt: skip
        forms = {name: form(shape) for name, shape in shapes.items()}
        return {**forms, "neighbours": form("nodes neighbours", torch.int64)}

    def __len__(self) -> int:
        return len(self.rest)

    @abstractmethod
    def trained(self) -> dict[str, list[nn.Parameter]]:
        """Its parameters by the names of their learning rates; the rate of ``places`` is in scene
        extents."""

    @abstractmethod
    def poses(self, times: Float[Tensor, " times"]) -> Float[Tensor, "times nodes 7"]:
        """Poses in the world at ``times``, seconds."""

    @abstractmethod
    def motion_knots(self) -> Float[Tensor, "nodes knots 7"]:
        """The knots of splines that are :meth:`motions`, as nearly as such splines can be."""

    def motions(self, times: Float[Tensor, " times"]) -> Float[Tensor, "times nodes 7"]:
        """What takes canonical coordinates to those at ``times``."""
        poses = self.poses(times)
        return pose_product(poses, self.back().expand_as(poses))

    def back(self) -> Float[Tensor, "nodes 7"]:
        """The inverses of the poses at rest."""
        turn = quat_conjugate(self.rest[:, :4])
        return torch.cat([turn, -quat_rotate(turn, self.rest[:, 4:])], dim=-1)

    @torch.no_grad()
    def settle(self) -> None:
        """Makes the arrangement at ``timing.rest_s`` the canonical one."""
        if len(self):
            time = self.rest.new_tensor([self.timing.rest_s])
            self.rest.copy_(self.poses(time)[0])

    def no_loss(self) -> Float[Tensor, ""]:
        """0, that depends on the parameters."""
        return sum((p.sum() for p in self.parameters()), self.rest.new_zeros(())) * 0.0


class SplineNodes(Nodes):
    """A cumulative cubic B-spline of poses for each node."""

    motion = "splines"
    turns: nn.Parameter
    """[nodes, knots, 4] wxyz, of any length."""
    places: nn.Parameter
    """[nodes, knots, 3] world."""

    def __init__(self, tensors: Mapping[str, Tensor], timing: Timing) -> None:
        """``tensors``: by the names above."""
        super().__init__(tensors, timing)
        for name in ("turns", "places"):
            setattr(self, name, nn.Parameter(tensors[name]))

    @classmethod
    def forms(cls) -> dict[str, Form]:
        """Those of all nodes, and the knots."""
        return {
            **super().forms(), "turns": form("nodes knots 4"), "places": form("nodes knots 3"),
        }  # fmt: skip

    @classmethod
    def none(cls, timing: Timing) -> SplineNodes:
        """No node at all."""
        sizes = {
            "turns": (0, timing.num_knots, 4), "places": (0, timing.num_knots, 3), "rest": (0, 7),
            "bonds": (0, 0), "seen": (0, 0, 3), "seen_weights": (0, 0), "seen_times": (0,),
        }  # fmt: skip
        tensors = {name: torch.zeros(size) for name, size in sizes.items()}
        return cls({**tensors, "neighbours": torch.zeros(0, 0, dtype=torch.int64)}, timing)

    def trained(self) -> dict[str, list[nn.Parameter]]:
        """Turns and places apart."""
        return {"turns": [self.turns], "places": [self.places]}

    def poses(self, times: Float[Tensor, " times"]) -> Float[Tensor, "times nodes 7"]:
        """Poses in the world at ``times``, seconds."""
        knots = torch.cat([self.turns, self.places], dim=-1)
        return spline_poses(knots, self.timing.at(times.to(knots)))

    def motion_knots(self) -> Float[Tensor, "nodes knots 7"]:
        """The knots of the splines of :meth:`motions`: a spline times a constant is a spline."""
        turns = nn.functional.normalize(self.turns, dim=-1)
        knots = torch.cat([turns, self.places], dim=-1)
        return pose_product(knots, self.back()[:, None].expand_as(knots))


def timing_from(plain: Mapping[str, Any]) -> Timing:
    """Read from a checkpoint's plain data."""
    return from_table(Timing, plain, where="settings: timing")


def nearest_nodes(
    points: Float[Tensor, "n 3"],
    places: Float[Tensor, "nodes 3"],
    neighbours: Int[Tensor, "nodes k"],
    *,
    spacing: float,
    visible: Bool[Tensor, " nodes"] | None = None,
) -> tuple[Int[Tensor, "n 4"], Float[Tensor, "n 4"]]:
    """Four nodes of each point and the logarithms of their weights.

    The first is the nearest one (of those ``visible``, where there are any); the others are the
    nearest of its neighbours, so that what is near by chance is not tied together.
    """
    hidden = torch.zeros(len(places), dtype=torch.bool, device=places.device)
    if visible is not None and bool(visible.any()):
        hidden = ~visible
    first = torch.cat(
        [
            torch.cdist(part, places).masked_fill(hidden, torch.inf).argmin(1)
            for part in points.split(4096)
        ]
    )
    candidates = torch.cat([first[:, None], neighbours[first]], dim=1)
    distances = (places[candidates] - points[:, None]).norm(dim=-1)
    distances[:, 0] = distances[:, 0].clamp_max(distances[:, 1:].amin(1))  # always taken
    count = min(4, candidates.shape[1])
    near, which = distances.topk(count, dim=1, largest=False)
    indices = candidates.gather(1, which)
    logits = -0.5 * (near / spacing).square()
    if count < 4:  # as few nodes as that: the first again, without weight
        indices = torch.cat([indices, indices[:, :1].expand(-1, 4 - count)], dim=1)
        logits = torch.cat([logits, logits.new_full((len(logits), 4 - count), -30.0)], dim=1)
    return indices, logits
