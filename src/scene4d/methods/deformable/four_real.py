"""Deformable splats in which pictures of one moment may disagree: 4Real (Yu et al. 2024).

Generated pictures of one moment do not show one shape. Each has a small deformation of its own, of
all Gaussians as they are then: displacements and turns at the points of a lattice, linear between
them. They exist in training alone (:meth:`FourRealSplats.as_in`); without them the splats are the
shape that all pictures have in common.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from scene4d.errors import DataError
from scene4d.methods.deformable.cells import Cells, cells_of
from scene4d.methods.deformable.deformable import DeformableSplats
from scene4d.plain import from_table, to_table
from scene4d.ranges import Finite, NotNegative, Positive, Share
from scene4d.rendering.motion.poses import pose_exp, quat_product
from scene4d.representations.base import IMAGES, ParameterGroup, Representation
from scene4d.representations.saved import Form, form

if TYPE_CHECKING:
    from scene4d.data.scene import Scene
    from scene4d.methods.deformable.four_real_method import FourRealMethod

_log = logging.getLogger("scene4d")
_INSIDE = 0.02
"""Share of the Gaussians beyond each side of the lattice, along each axis: there its border
counts."""


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Which pictures are looked at when, and what may disagree, as plain data."""

    shape: tuple[int, ...]
    motion: tuple[int, ...]
    own: tuple[int, ...]
    """Pictures with a deformation, in the order of its rows; see :class:`Cells`."""
    shape_until: Share
    motion_until: Share
    centre: tuple[Finite, Finite, Finite]
    """Of the lattice, scene units."""
    half: Positive
    """Half a side of the lattice, scene units."""
    own_lr: NotNegative

    def among(self, progress: float) -> frozenset[int] | None:
        """The pictures that are looked at."""
        if progress < self.shape_until and self.shape:
            return frozenset(self.shape)
        if self.motion_alone(progress):
            return frozenset(self.motion)
        return None

    @property
    def certain(self) -> frozenset[int]:
        """Of videos, which the others were made of; none where there are no others."""
        cells = Cells(shape=self.shape, motion=self.motion)
        return frozenset(self.motion) - frozenset(cells.own) if self.shape else frozenset()

    def motion_alone(self, progress: float) -> bool:
        """Whether Gaussians rest."""
        there = bool(self.shape) and bool(self.motion)
        return there and self.shape_until <= progress < self.motion_until


class FourRealSplats(DeformableSplats):
    """Deformable splats, and what pictures disagree in."""

    picture: int | None = None
    """The one as which it is drawn; None: what all have in common."""

    def __init__(
        self, *parts: Any, own: Float[Tensor, "pictures 6 z y x"], stages: Stages, **settings: Any
    ) -> None:
        """``parts`` and ``settings``: of :class:`DeformableSplats`; ``own``: displacements in scene
        extents, then rotation vectors, at the points of each picture's lattice."""
        super().__init__(*parts, **settings)
        self.own, self.stages, self.certain = nn.Parameter(own), stages, stages.certain
        self._rows = {picture: row for row, picture in enumerate(stages.own)}

    @classmethod
    def from_scene(
        cls,
        scene: Scene,
        method: FourRealMethod,  # type: ignore[override]
        *,
        generator: torch.Generator,
        teacher: Representation | None = None,
    ) -> FourRealSplats:
        """What training starts from: deformable splats, and no disagreement yet. Says so where no
        moment is shown by three cameras."""
        cells = cells_of(scene)
        if not cells.shape:
            _log.warning(
                "no moment is shown by three cameras or more (frames with the same 'time' and "
                "another 'camera'), so this training is one of deformable splats"
            )
        like = DeformableSplats.from_scene(scene, method, generator=generator, teacher=teacher)
        means = torch.cat([like.static.means, like.moving_ones.means]).detach()
        low, high = means.quantile(torch.tensor([_INSIDE, 1 - _INSIDE]), dim=0)
        centre = (0.5 * (low + high)).tolist()
        stages = Stages(
            shape=cells.shape, motion=cells.motion,
            own=cells.own if method.own_deformation else (),
            shape_until=method.shape_until, motion_until=method.motion_until,
            centre=(centre[0], centre[1], centre[2]),
            half=max(0.5 * float((high - low).max()), 1e-6 * scene.extent),
            own_lr=method.own_lr,
        )  # fmt: skip
        return cls._of(like, torch.zeros(len(stages.own), 6, *[method.own_cells] * 3), stages)

    @classmethod
    def _of(cls, like: DeformableSplats, own: Tensor, stages: Stages) -> FourRealSplats:
        return cls(
            like.static, like.moving_ones, like.nodes, node_rates=like.node_rates, own=own,
            stages=stages,
        )  # fmt: skip

    # Training

    def parameter_groups(self) -> list[ParameterGroup]:
        """Those of deformable splats, and the deformations."""
        groups = super().parameter_groups()
        if len(self.own):
            rate = self.stages.own_lr
            groups.append(
                ParameterGroup(name="own", parameters=[self.own], learning_rate=rate, eps=1e-8)
            )
        return groups

    def on_progress(self, progress: float) -> None:
        """Shape, then motion, then both: says which pictures are looked at."""
        super().on_progress(progress)
        self.shape_rests = self.stages.motion_alone(progress)
        self.sampling = replace(IMAGES, among=self.stages.among(progress))
        for part in (self.static, self.moving_ones):
            part.requires_grad_(not self.shape_rests)

    def own_of(self, picture: int) -> Float[Tensor, "6 z y x"] | None:
        """A picture's deformation, where it has one: without what all of them have in common, which
        is shape, and would let wrong shapes look right everywhere."""
        row = self._rows.get(picture)
        if row is None:
            return None
        return self.own[row] - self.own.detach().mean(dim=0) * (len(self.own) > 1)

    def as_in(self, picture: int) -> FourRealSplats:
        """With that picture's deformation; of the same parameters."""
        if picture not in self._rows:
            return self
        made = copy.copy(self)
        made.picture = picture
        return made

    # Rendering

    def _tensors_at(self, time: Float[Tensor, ""], drawn: Int[Tensor, " m"]) -> dict[str, Tensor]:
        """The Gaussians at ``time``, as the picture shows them."""
        tensors = super()._tensors_at(time, drawn)
        own = None if self.picture is None else self.own_of(self.picture)
        if own is None:
            return tensors
        means = tensors["means"]
        places = (means.detach() - means.new_tensor(self.stages.centre)) / self.stages.half
        found = nn.functional.grid_sample(
            own[None], places[None, None, None], padding_mode="border", align_corners=True
        )[0, :, 0, 0].T
        turns = pose_exp(torch.cat([found[:, 3:], torch.zeros_like(found[:, 3:])], dim=-1))
        return {
            **tensors,
            "means": means + self.extent * found[:, :3],
            "quats": quat_product(turns[:, :4], tensors["quats"]),
        }

    # Saving

    def plain_data(self) -> Mapping[str, Any]:
        """What the tensors do not say."""
        return {**super().plain_data(), "stages": to_table(self.stages)}

    @classmethod
    def saved_forms(cls, plain: Mapping[str, Any]) -> Mapping[str, Form]:
        """Those of deformable splats, and the deformations."""
        return {**super().saved_forms(plain), "own": form("pictures 6 lattice lattice lattice")}

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> FourRealSplats:
        """Built again from a checkpoint."""
        told = plain.get("stages")
        if not isinstance(told, Mapping):
            raise DataError("lacks the table stages", where="settings")
        stages = from_table(Stages, told, where="settings: stages")
        if len(stages.own) != len(tensors["own"]):
            raise DataError(
                f"has {len(tensors['own'])} deformations of {len(stages.own)} pictures",
                where="settings: stages",
            )
        parts = {name: value for name, value in tensors.items() if name != "own"}
        return cls._of(DeformableSplats.from_saved(parts, plain), tensors["own"], stages)
