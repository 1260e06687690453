"""Adaptive tree manipulation (LPGS, arXiv 2406.19434): which Gaussians are parents.

During warm-up parents alone grow, as in :mod:`scene4d.methods.splat.mcmc`. Then children
whose projections are pulled hard become parents, and families whose parent is masked or
transparent are pruned.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scene4d.methods.lpgs.bundle_content import encode_lpgs
from scene4d.methods.lpgs.bundle_parts import lpgs_parts
from scene4d.methods.lpgs.method import TreeOptions
from scene4d.methods.lpgs.parent_child import SAMPLED_FOR_RATE, ParentChildSplats
from scene4d.methods.lpgs.seeds import MASK_START
from scene4d.methods.splat.mcmc import Mcmc
from scene4d.training.step import Shot, Step
from scene4d.training.strategy import ask_for_pull, pull_of

_CALIBRATE_EVERY = 0.1
"""Share of training between comparisons of the estimated size with the coder's."""
_NEAR = 1.02
"""Times the size that was asked for, at which it counts as reached."""


class Tree(Mcmc):
    """Growth while there are parents alone; promotion and pruning afterwards."""

    options: TreeOptions
    # Its parents are rows of Gaussians, which is all that Mcmc touches.
    representation: ParentChildSplats  # type: ignore[assignment]

    def __init__(self, options, representation, optimiser, generator) -> None:
        super().__init__(options, representation, optimiser, generator)
        self.start_bytes = self.start_at = self.next_calibration = 0.0
        self._clear()

    def on_render(self, shot: Shot) -> None:
        """Asks for the gradients of the projected centres, once there are children."""
        if self.representation.has_children:
            ask_for_pull(shot)

    def after_backward(self, step: Step) -> None:
        """Sums the children's screen-space gradients."""
        if not self._counts(step):
            return
        for shot in step.shots:
            norms = pull_of(shot)
            if norms is None:
                continue
            pull, extras = norms.sum(dim=0), shot.render.extras
            child = extras["child"] >= 0
            place = (extras["parent"][child], extras["child"][child])
            self.pull.index_put_(place, pull[child], accumulate=True)
            self.seen.index_put_(place, (pull[child] > 0).float(), accumulate=True)

    def after_step(self, step: Step) -> None:
        """Grows during warm-up; then manipulates trees every ``tree_every`` steps."""
        if step.progress < self.representation.settings.warm_up:
            super().after_step(step)
            if len(self.pull) != self.representation.num_gaussians:
                self._clear()
            return
        if step.number % self.options.tree_every == 0:
            if self._counts(step):
                self._promote()
            self._prune()
            self._calibrate(step.progress)
            self._shrink(step.progress)
            self._clear()

    def state_tensors(self) -> dict[str, Tensor]:
        """The sums since the last manipulation."""
        held = float(self.representation.size_is_held)
        size = [self.start_bytes, self.start_at, self.next_calibration, held]
        return {
            **super().state_tensors(),
            "pull": self.pull,
            "seen": self.seen,
            "size": torch.tensor(size, dtype=torch.float64),
        }

    def load_state_tensors(self, tensors) -> None:
        """Restores :meth:`state_tensors`."""
        super().load_state_tensors(tensors)
        device = self.representation.means.device
        self.start_bytes, self.start_at, self.next_calibration, held = tensors["size"].tolist()
        self.representation.size_is_held = bool(held)
        self.pull, self.seen = tensors["pull"].to(device), tensors["seen"].to(device)

    def _counts(self, step: Step) -> bool:
        """Whether children exist and may still be promoted."""
        return self.representation.has_children and step.progress < self.options.tree_until

    def _clear(self) -> None:
        shape = self.representation.gaussians["keep_children"].shape
        self.pull = torch.zeros(shape, device=self.representation.means.device)
        self.seen = torch.zeros_like(self.pull)

    @torch.no_grad()
    def _promote(self) -> None:
        scene = self.representation
        pull = self.pull / self.seen.clamp_min(1)
        wanted = pull > self.options.promote_gradient
        room = min(
            scene.max_num_gaussians - scene.num_gaussians,
            int(self.options.promote_share * scene.num_gaussians),
        )
        if room <= 0 or not bool(wanted.any()):
            return
        strongest = torch.where(wanted, pull, 0.0).flatten().topk(min(room, int(wanted.sum())))
        chosen = strongest.indices
        parents, children = chosen // pull.shape[1], chosen % pull.shape[1]
        new = self._as_parents(parents, children)
        if not len(new["means"]):
            return
        scene.gaussians["keep_children"][parents, children] = -MASK_START
        self.editor.append(new)

    def _as_parents(self, parents: Tensor, children: Tensor) -> dict[str, Tensor]:
        """Rows of new parents that look like these children do now."""
        scene = self.representation
        unpacked = scene.unpack()
        row_of = torch.full(scene.gaussians["keep_children"].shape, -1, dtype=torch.int64)
        is_child = unpacked.child >= 0
        where = is_child.nonzero()[:, 0]
        row_of[unpacked.parent[where].cpu(), unpacked.child[where].cpu()] = where.cpu()
        rows = row_of[parents.cpu(), children.cpu()]
        rows = rows[rows >= 0].to(unpacked.parent.device)
        tensors = unpacked.tensors
        means, quats = tensors["means"][rows], tensors["quats"][rows]
        alphas = tensors["alphas"][rows].clamp(self.options.min_opacity, 1 - 1e-6)
        looks = {
            "scales": tensors["scales"][rows],
            "rotations": quats[:, 1:] / quats[:, :1],
            "opacities": torch.logit(alphas)[:, None],
            "sh0": tensors["sh0"][rows, 0],
            "shN": tensors["shN"][rows].flatten(1),
        }
        stored = scene.before_correction(means, looks)
        return {
            "means": means,
            **stored,
            "opacities": stored["opacities"][:, 0],
            "keep": alphas.new_full((len(rows),), MASK_START),
            "keep_children": alphas.new_full(
                (len(rows), scene.structure.num_children), -MASK_START
            ),
        }

    @torch.no_grad()
    def _prune(self) -> None:
        scene = self.representation
        useful = (scene.gaussians["keep"] > 0) & (scene.alphas > self.options.min_opacity)
        if not bool(useful.all()) and bool(useful.any()):
            self.editor.keep(useful)

    @torch.no_grad()
    def _shrink(self, progress: float) -> None:
        """Drops the parents whose masks are lowest until the size due by now is met; none once it
        is held. It is held when the time for it has come, or when those who are left take many
        bytes each: who goes then would pay for roundings that nobody sees."""
        scene, target = self.representation, self.options.target_mb
        if target is None or not self.start_bytes or scene.size_is_held:
            return
        span = max(1e-6, self.options.target_at - self.start_at)
        done = min(1.0, (progress - self.start_at) / span)
        room = scene.settings.payload_bytes(target)
        due = self.start_bytes * min(1.0, room / self.start_bytes) ** done
        size = estimated_from_all(scene)
        surplus = int((1 - due / size) * scene.num_gaussians)
        if surplus > 0:
            order = scene.gaussians["keep"].argsort(descending=True)
            kept = order[: max(1, scene.num_gaussians - surplus)].sort().values
            self.editor.keep(kept)
        dear = size <= _NEAR * room and size >= self.options.hold_bytes * scene.num_gaussians
        scene.size_is_held = dear or (done == 1.0 and progress >= self.options.hold_from)

    def _calibrate(self, progress: float) -> None:
        """Compares the estimate with what the coder really makes of the scene as it is, now and
        then."""
        scene = self.representation
        if not scene.rounds or progress < self.next_calibration:
            return
        coded = encode_lpgs(lpgs_parts(scene))
        scene.coder_ratio *= coded.size / estimated_from_all(scene)
        if not self.start_bytes:
            self.start_bytes, self.start_at = float(coded.size), progress
        self.next_calibration = progress + _CALIBRATE_EVERY


@torch.no_grad()
def estimated_from_all(scene: ParentChildSplats) -> float:
    """The estimated bytes without what sampling a part of the parents makes of them."""
    parts = [float(scene.estimated_bytes()) for _ in range(SAMPLED_FOR_RATE)]
    return sum(parts) / len(parts)
