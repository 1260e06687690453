"""The objective of the nodes' trajectories: near their sightings, as rigid as possible, smooth.

Sources: MoSca (Lei et al. 2024), its ARAP over several shifts of time; PointVid (2025) for lengths.
All distances are in node spacings, so that no weight depends on the scene's unit.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scene4d.methods.deformable.deformable import DeformableSplats
from scene4d.methods.deformable.method import NodeOptions
from scene4d.methods.deformable.nodes import Nodes
from scene4d.rendering.motion.poses import quat_conjugate, quat_rotate
from scene4d.training.objectives.base import Objective, ObjectiveInputs, Term
from scene4d.training.step import Step

_SHIFTS = ((1, 0.6), (3, 0.3), (6, 0.1))
"""Frames between two arrangements that are compared, and how much it counts (MoSca)."""


class NodeTerms(Objective):
    """Tracks, rigidity, lengths, acceleration and velocity of the nodes at a few random times."""

    options: NodeOptions
    needs_views = False

    def __init__(self, options: NodeOptions, inputs: ObjectiveInputs) -> None:
        super().__init__(options, inputs)
        self.generator = inputs.generator
        times = sorted({float(c.time) for c in inputs.task.training_cameras if c.time is not None})
        self.times = torch.tensor(times or [0.0])

    def __call__(self, step: Step) -> Term:
        """The weighted sum, and its terms for the log."""
        splats = step.representation
        assert isinstance(splats, DeformableSplats)
        nodes = splats.nodes
        zero = step.background.new_zeros(())
        if len(nodes) < 2 or len(self.times) < 2:
            return Term(loss=zero + nodes.no_loss())
        count = self.options.times
        frames = torch.randint(len(self.times), (count,), generator=self.generator)
        picks = torch.rand(count, generator=self.generator)
        gaps = self._gaps(picks)
        offsets = torch.stack([torch.zeros_like(gaps), gaps, -torch.ones_like(gaps),
                               torch.ones_like(gaps)])  # fmt: skip
        asked = self._seconds(frames[None] + offsets).to(nodes.rest.device)
        poses = nodes.poses(asked.flatten()).unflatten(0, asked.shape)
        terms = {
            "node_tracks": (self.options.tracks, sightings(nodes, self._at(nodes))),
            **self._stiffness(nodes, poses),
            **self._smoothness(nodes, poses),
        }
        total = sum((weight * term for weight, term in terms.values()), zero)
        return Term(loss=total, log={name: term.detach() for name, (_, term) in terms.items()})

    def _gaps(self, picks: Float[Tensor, " times"]) -> Int[Tensor, " times"]:
        """Frames to the other arrangement, drawn by how much each shift counts."""
        bounds = torch.tensor([share for _, share in _SHIFTS]).cumsum(0)
        which = torch.searchsorted(bounds, picks).clamp_max(len(_SHIFTS) - 1)
        return torch.tensor([shift for shift, _ in _SHIFTS])[which]

    def _seconds(self, frames: Int[Tensor, "kinds times"]) -> Float[Tensor, "kinds times"]:
        return self.times[frames.clamp(0, len(self.times) - 1)]

    def _at(self, nodes: Nodes) -> Int[Tensor, " some"]:
        """Some of the frames in which nodes were seen."""
        total = len(nodes.seen_times)
        count = min(self.options.times, total)
        return torch.randperm(total, generator=self.generator)[:count].to(nodes.seen.device)

    def _stiffness(
        self, nodes: Nodes, poses: Float[Tensor, "kinds times nodes 7"]
    ) -> dict[str, tuple[float, Tensor]]:
        near, bonds = nodes.neighbours, nodes.bonds
        now, later = (_local(poses[kind], near) for kind in (0, 1))
        off = (now - later).abs().sum(-1) / nodes.timing.spacing
        lengths = (now.norm(dim=-1) - later.norm(dim=-1)).abs() / nodes.timing.spacing
        total = bonds.sum().clamp_min(1e-6) * len(now)
        return {
            "rigidity": (self.options.rigidity, (bonds * off).sum() / total),
            "lengths": (self.options.lengths, (bonds * lengths).sum() / total),
        }

    def _smoothness(
        self, nodes: Nodes, poses: Float[Tensor, "kinds times nodes 7"]
    ) -> dict[str, tuple[float, Tensor]]:
        now, before, after = poses[0], poses[2], poses[3]
        place = (before[..., 4:] + after[..., 4:] - 2 * now[..., 4:]) / nodes.timing.spacing
        sides = [p[..., :4] * (p[..., :4] * now[..., :4]).sum(-1, keepdim=True).sign()
                 for p in (before, after)]  # fmt: skip
        turn = sides[0] + sides[1] - 2 * now[..., :4]
        speed = (after[..., 4:] - before[..., 4:]) / nodes.timing.spacing
        return {
            "acceleration": (
                self.options.acceleration, place.abs().mean() + turn.abs().mean(),
            ),
            "velocity": (self.options.velocity, speed.abs().mean()),
        }  # fmt: skip


def _local(
    poses: Float[Tensor, "times nodes 7"], near: Int[Tensor, "nodes k"]
) -> Float[Tensor, "times nodes k 3"]:
    """The neighbours' places in each node's own frame."""
    offset = poses[:, near, 4:] - poses[:, :, None, 4:]
    back = quat_conjugate(poses[..., :4])[:, :, None].expand(*offset.shape[:-1], 4)
    return quat_rotate(back, offset)


def sightings(nodes: Nodes, frames: Int[Tensor, " some"]) -> Float[Tensor, ""]:
    """Mean distance (Huber's, from a tenth of a spacing on) of nodes from where they were seen."""
    if not len(frames):
        return nodes.no_loss()
    poses = nodes.poses(nodes.seen_times[frames])
    off = poses[..., 4:] - nodes.seen[:, frames].transpose(0, 1)
    off = (off / nodes.timing.spacing).square().sum(-1)
    weights = nodes.seen_weights[:, frames].transpose(0, 1)
    distance = (off + 0.01).sqrt() - 0.1
    return (weights * distance).sum() / weights.sum().clamp_min(1e-6)
