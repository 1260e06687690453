"""From parents as they are stored to Gaussians: children placed, attributes corrected.

Source: LPGS (arXiv 2406.19434); see parent_child.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from scene4d.methods.lpgs.attributes import as_gaussians, corrected, own_inputs, turned
from scene4d.methods.lpgs.family_network import FamilyNetwork
from scene4d.methods.lpgs.places import cube_of
from scene4d.methods.lpgs.structure import CODED, Structure
from scene4d.rendering.fields.hash_grid import HashGrid

_CORRECTION_STEPS = 12
"""Iterations towards attributes whose correction is known to be wanted."""


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """Plain Gaussians of a scene, differentiable, and which parent each belongs to."""

    tensors: Mapping[str, Tensor]
    """As :class:`GaussianSplats` names them."""
    parent: Int[Tensor, " n"]
    child: Int[Tensor, " n"]
    """-1 for the parent itself."""


@dataclass(frozen=True, kw_only=True)
class Parents:
    """Those whose masks are on, rounded where their scene rounds."""

    rows: Int[Tensor, " n"]
    """Their places among all parents."""
    means: Float[Tensor, "n 3"]
    base: Mapping[str, Float[Tensor, "n _"]]
    """The attributes that are coded."""
    keep: Float[Tensor, " n"]
    """1, with the gradient of their masks."""

    def alone(self, attributes: Mapping[str, Tensor]) -> Unpacked:
        """Without children, with these attributes."""
        return Unpacked(
            tensors=as_gaussians(self.means, attributes, self.keep),
            parent=self.rows,
            child=torch.full_like(self.rows, -1),
        )


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """The network of a scene with the grid that it reads, at one moment of training."""

    structure: Structure
    network: FamilyNetwork
    grid: HashGrid | None
    table: Tensor | None
    """The grid's features, rounded where the scene rounds."""
    has_children: bool

    def unpacked(self, parents: Parents, keep_children: Float[Tensor, "n k"] | None) -> Unpacked:
        """``keep_children``: 1 or 0 with the gradient of the children's masks; None: no children
        yet."""
        tokens = self._tokens(parents.base, parents.means)
        if keep_children is not None:
            return self._families(parents, keep_children, tokens)
        corrections = self.network.corrections(tokens, child=False)
        return parents.alone(corrected(parents.base, corrections, self.structure))

    def _tokens(self, base: Mapping[str, Tensor], places: Tensor) -> Tensor:
        return self.network.tokens(own_inputs(base, self.structure), self._features(places))

    def _families(self, parents: Parents, keep_children: Tensor, tokens: Tensor) -> Unpacked:
        """Parents, then the living children; a dead child takes part in nothing."""
        network, base, rows = self.network, parents.base, parents.rows
        alive = keep_children.detach() > 0
        places = parents.means[:, None] + turned(network.offsets(tokens), base)
        family, member = alive.nonzero(as_tuple=True)
        slot = family * alive.shape[1] + member
        kid_places = places.flatten(0, 1).index_select(0, slot)
        kid_base = {name: value.index_select(0, family) for name, value in base.items()}
        kid_tokens = self._tokens(kid_base, kid_places)
        grid = tokens.new_zeros(alive.numel(), tokens.shape[1]).index_copy(0, slot, kid_tokens)
        together = torch.cat([tokens[:, None], grid.reshape(*alive.shape, -1)], dim=1)
        everyone = torch.cat([torch.ones_like(alive[:, :1]), alive], dim=1)
        together = network.attended(together, everyone)
        own = corrected(base, network.corrections(together[:, 0], child=False), self.structure)
        kid_tokens = together[:, 1:].flatten(0, 1).index_select(0, slot)
        kids = corrected(kid_base, network.corrections(kid_tokens, child=True), self.structure)
        keep_kids = parents.keep.index_select(0, family)
        keep_kids = keep_kids * keep_children.flatten().index_select(0, slot)
        return Unpacked(
            tensors=as_gaussians(
                torch.cat([parents.means, kid_places]),
                {name: torch.cat([own[name], kids[name]]) for name in CODED},
                torch.cat([parents.keep, keep_kids]),
            ),
            parent=torch.cat([rows, rows.index_select(0, family)]),
            child=torch.cat([torch.full_like(rows, -1), member]),
        )

    @torch.no_grad()
    def before_correction(
        self, means: Float[Tensor, "n 3"], wanted: Mapping[str, Float[Tensor, "n _"]]
    ) -> dict[str, Float[Tensor, "n _"]]:
        """Attributes of childless parents at ``means`` that unpack to ``wanted``.

        Corrections depend on what they correct, so it is found by iteration, as closely as that
        gets: exactly before the network has learned to correct.
        """
        best, best_error = dict(wanted), means.new_full((len(means), 1), math.inf)
        base = dict(wanted)
        for _ in range(_CORRECTION_STEPS):
            tokens = self._tokens(base, means)
            if self.has_children:
                alone: Bool[Tensor, "n 1"] = torch.ones_like(means[:, :1], dtype=torch.bool)
                tokens = self.network.attended(tokens[:, None], alone)[:, 0]
            found = corrected(base, self.network.corrections(tokens, child=False), self.structure)
            missing = {name: wanted[name] - found[name] for name in CODED}
            error = torch.cat(list(missing.values()), dim=1).abs().amax(dim=1, keepdim=True)
            better = error < best_error
            best = {name: torch.where(better, base[name], best[name]) for name in CODED}
            best_error = torch.where(better, error, best_error)
            base = {name: base[name] + missing[name] for name in CODED}
        return best

    def _features(self, points: Tensor) -> Tensor | None:
        if self.grid is None:
            return None
        if self.structure.contraction:
            cube = cube_of(points, self.structure)
        else:
            centre = points.new_tensor(self.structure.centre)
            cube = (points - centre) / (2 * self.structure.radius) + 0.5
        return self.grid(cube, self.table)
