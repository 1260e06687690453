"""Parent/child splats: parents are stored, children and corrections are predicted.

Source: LPGS, Lightweight Predictive 3D Gaussian Splats (arXiv 2406.19434): a forest of trees of
depth one. Beyond the paper, a parent carries attributes of its own, quantised with learned steps
(most become 0 where the network predicts well), parents and children carry learned masks, and a
rate term weighs every bit. Everything is view-independent, so the scene unpacks into plain splats.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from scene4d.cameras.camera import Camera
from scene4d.cameras.undistortion import undistorted_camera
from scene4d.errors import DataError
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.methods.lpgs.attributes import switch
from scene4d.methods.lpgs.family_network import FamilyNetwork
from scene4d.methods.lpgs.places import cells_of, rounded_places
from scene4d.methods.lpgs.predictor import Parents, Predictor, Unpacked
from scene4d.methods.lpgs.quantisers import Quantiser
from scene4d.methods.lpgs.seeds import container_bytes, parents_of, structure_for
from scene4d.methods.lpgs.settings import Settings
from scene4d.methods.lpgs.structure import CODED, Structure
from scene4d.plain import from_table
from scene4d.ranges import Positive, Within
from scene4d.rendering.fields.hash_grid import HashGrid
from scene4d.rendering.render import RGB, Render, Want
from scene4d.representations.base import ParameterGroup, Representation
from scene4d.representations.gaussians import (
    NEAR_SHARE,
    SPLATS_GRAPH_PIXELS,
    GaussianSplats,
    render_gaussians,
)
from scene4d.representations.saved import Form, form, module_forms

if TYPE_CHECKING:
    from scene4d.data.scene import Scene
    from scene4d.methods.lpgs.method import LpgsMethod

START_STEPS = {"scales": 0.12, "rotations": 0.06, "opacities": 0.4, "sh0": 0.06, "shN": 0.08}
SAMPLED_FOR_RATE = 4
"""The rate is estimated from one parent in so many, another each time..."""
_LONGEST_RUN = 32
"""...of large scenes from runs of at most so many that follow each other: memory is read so."""
_TABLE_STEP = 0.02
_CAMERAS_FOR_SHARES = 60
"""Training cameras that are asked which Gaussians they see."""


@dataclass(frozen=True, kw_only=True)
class _Saved(Settings):
    """:meth:`ParentChildSplats.plain_data` without its structure, as it may be."""

    coder_ratio: Positive = 1.0
    rate_turn: Annotated[int, Within(0)] = 0


class ParentChildSplats(Representation):
    """A forest of Gaussians, of which only the parents are stored."""

    graph_pixels = SPLATS_GRAPH_PIXELS

    def __init__(
        self,
        parents: Mapping[str, Tensor],
        structure: Structure,
        settings: Settings,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        """``parents``: means [P, 3], the :data:`CODED` attributes (rotations are the vector part
        of a quaternion whose scalar part is 1), ``keep`` [P] and ``keep_children`` [P, K]
        logits."""
        super().__init__()
        self.structure = structure
        self.gaussians = nn.ParameterDict({k: nn.Parameter(v) for k, v in parents.items()})
        self.grid = (
            None if structure.grid is None else HashGrid(structure.grid, generator=generator)
        )
        self.network = (
            FamilyNetwork(structure, generator=generator) if structure.has_network else None
        )
        channels = dict(structure.attributes)
        self.quantisers = nn.ModuleDict(
            {name: Quantiser(channels[name], START_STEPS[name]) for name in CODED}
        )
        self.table_quantiser = (
            Quantiser(structure.grid.features, _TABLE_STEP) if structure.grid else None
        )
        at_start = settings.num_at_start or len(parents["means"])
        self.settings = replace(settings, num_at_start=at_start)
        self.progress = 1.0
        self._rate_turn = 0
        self.coder_ratio = 1.0
        """What the coder makes of the scene, relative to the estimate without it."""
        self.size_is_held = False
        """Whether nobody goes any more for the size that was asked for."""

    # Building

    @classmethod
    def from_scene(
        cls,
        scene: Scene,
        method: LpgsMethod,
        *,
        generator: torch.Generator,
        teacher: Representation | None = None,
    ) -> ParentChildSplats:
        """Parents at the Gaussians of ``teacher``, or at the scene's points."""
        cloud = None if teacher is None else teacher.splats()
        if cloud is not None:
            splats = GaussianSplats.of(cloud, extent=scene.extent)
        else:
            splats = GaussianSplats.at_points(
                scene,
                init="auto" if method.init == "teacher" else method.init,
                num_random_points=method.num_random_points,
                max_num_gaussians=method.most_gaussians,
                sh_degree=method.sh_degree,
                generator=generator,
            )
        taught = teacher is not None
        warm_up = method.warm_up if method.warm_up is not None else (0.0 if taught else 0.4)
        quantise_at = (
            method.quantise_at if method.quantise_at is not None else (0.0 if taught else 0.6)
        )
        rates = {name: getattr(method, f"{name}_lr") for name in ("means", *CODED)}
        masks = {"keep": method.masks_lr, "keep_children": method.masks_lr}
        shared = {name: getattr(method, f"{name}_lr") for name in ("grid", "network", "quantisers")}
        structure = structure_for(scene, splats, method)
        return cls.from_splats(
            splats,
            structure,
            Settings(
                learning_rates={**rates, **masks, **shared},
                extent=scene.extent,
                antialiased=splats.antialiased,
                warm_up=warm_up,
                quantise_at=quantise_at,
                max_num_gaussians=method.most_gaussians,
                target_mb=method.target_mb,
                container_bytes=container_bytes(scene, structure.sh_degree),
            ),
            cameras=_some_cameras(scene) if taught else (),
            generator=generator,
        )

    @classmethod
    def from_splats(
        cls,
        splats: GaussianSplats,
        structure: Structure,
        settings: Settings | None = None,
        *,
        cameras: Sequence[Camera] = (),
        generator: torch.Generator | None = None,
    ) -> ParentChildSplats:
        """One parent for each Gaussian of ``splats``; nothing is predicted yet. ``cameras`` say
        which are seen most, and are kept longest when the scene shrinks."""
        parents = parents_of(splats, structure, cameras)
        scene = cls(parents, structure, settings or Settings(), generator=generator)
        scene.fit_quantisers()
        return scene

    @classmethod
    def from_saved(
        cls, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]
    ) -> ParentChildSplats:
        """Built again from a checkpoint."""
        table = dict(plain)
        structure = Structure.from_plain(table.pop("structure", {}))
        saved = from_table(_Saved, table, where="settings")
        prefix = "gaussians."
        parents = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        settings = Settings(**{f.name: getattr(saved, f.name) for f in fields(Settings)})
        scene = cls(parents, structure, settings)
        scene.coder_ratio, scene._rate_turn = saved.coder_ratio, saved.rate_turn
        lacking = {group.name for group in scene._groups()} - set(saved.learning_rates)
        if saved.learning_rates and lacking:
            raise DataError(f"lacks learning rates of {', '.join(sorted(lacking))}")
        scene.load_state_dict(dict(tensors))
        return scene

    @classmethod
    def saved_forms(cls, plain: Mapping[str, Any]) -> Mapping[str, Form]:
        """One row for each parent; the network's and the quantisers' as the structure says."""
        structure = Structure.from_plain(plain.get("structure", {}))
        children, rest = structure.num_children, 3 * structure.sh_rest
        shapes = {
            "means": "p 3", "scales": "p 3", "rotations": "p 3", "opacities": "p", "sh0": "p 3",
            "shN": f"p {rest}", "keep": "p", "keep_children": f"p {children}",
        }  # fmt: skip
        forms = {f"gaussians.{name}": form(shape) for name, shape in shapes.items()}
        channels = dict(structure.attributes)
        for name in CODED:
            within = f"quantisers.{name}"
            forms |= module_forms(partial(Quantiser, channels[name], 1.0), within=within)
        if structure.grid is not None:
            grid = structure.grid
            forms["grid.table"] = form(f"{sum(grid.rows)} {grid.features}")
            forms |= module_forms(partial(Quantiser, grid.features, 1.0), within="table_quantiser")
        if structure.has_network:
            forms |= module_forms(partial(FamilyNetwork, structure), within="network")
        return forms

    def plain_data(self) -> Mapping[str, Any]:
        """What the tensors do not say."""
        return {
            "structure": self.structure.plain(),
            **vars(self.settings),
            "coder_ratio": self.coder_ratio,
            "rate_turn": self._rate_turn,
        }

    @torch.no_grad()
    def fit_quantisers(self) -> None:
        """Fits the distributions of codes to the present attributes."""
        for name in CODED:
            self._quantiser(name).fit(self._flat(name))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Parents by attribute; the network, the grid, and the quantisers."""
        return self._groups() if self.settings.learning_rates else []

    def _groups(self) -> list[ParameterGroup]:
        rates = defaultdict(float, self.settings.learning_rates)
        groups = [
            ParameterGroup(
                name=name,
                parameters=[parameter],
                learning_rate=rates[name] * (self.settings.extent if name == "means" else 1.0),
            )
            for name, parameter in self.gaussians.items()
        ]
        if self.network is not None:
            groups.append(
                ParameterGroup(
                    name="network",
                    parameters=list(self.network.parameters()),
                    learning_rate=rates["network"],
                )
            )
        quantisers = list(self.quantisers.parameters())
        if self.grid is not None and self.table_quantiser is not None:
            groups.append(
                ParameterGroup(
                    name="grid", parameters=[self.grid.table], learning_rate=rates["grid"]
                )
            )
            quantisers += list(self.table_quantiser.parameters())
        groups.append(
            ParameterGroup(
                name="quantisers", parameters=quantisers, learning_rate=rates["quantisers"]
            )
        )
        return groups

    # Parents as Gaussians, for densification strategies

    @property
    def num_gaussians(self) -> int:
        """How many parents there are, masked ones included."""
        return self.gaussians["means"].shape[0]

    @property
    def max_num_gaussians(self) -> int:
        """How many parents there may be."""
        return self.settings.max_num_gaussians

    @property
    def means(self) -> Float[Tensor, "p 3"]:
        """Centres of the parents in the world."""
        return self.gaussians["means"]

    @property
    def quats(self) -> Float[Tensor, "p 4"]:
        """Rotations of the parents, wxyz, not normalised."""
        vectors = self.gaussians["rotations"]
        return torch.cat([torch.ones_like(vectors[:, :1]), vectors], dim=-1)

    @property
    def stds(self) -> Float[Tensor, "p 3"]:
        """Standard deviations of the parents, scene units."""
        return self.gaussians["scales"].exp()

    @property
    def alphas(self) -> Float[Tensor, " p"]:
        """Opacities of the parents, 0..1."""
        return self.gaussians["opacities"].sigmoid()

    # Unpacking

    @property
    def kept(self) -> Bool[Tensor, " p"]:
        """Parents whose mask is on; the last one's stays on, as no scene can be made of none."""
        logits = self.gaussians["keep"].detach()
        kept = logits > 0
        if len(logits) and not bool(kept.any()):
            kept[logits.argmax()] = True
        return kept

    @property
    def has_children(self) -> bool:
        """Whether children exist at this moment of training."""
        return self.structure.num_children > 0 and self.progress >= self.settings.warm_up

    @property
    def rounds(self) -> bool:
        """Whether values are rounded at this moment of training."""
        return self.progress >= self.settings.quantise_at

    def on_progress(self, progress: float) -> None:
        """Warm-up and the start of rounding."""
        self.progress = progress

    def unpack(self) -> Unpacked:
        """The Gaussians of parents and children whose masks are on."""
        kept = self.kept
        rows = kept.nonzero()[:, 0]
        some = None if len(rows) == self.num_gaussians else rows
        parents = Parents(
            rows=rows,
            means=self._rounded_means(some),
            base={name: self._quantised(name, some) for name in CODED},
            keep=switch(self.gaussians["keep"], kept).index_select(0, rows),
        )
        predictor = self._predictor()
        if predictor is None:
            return parents.alone(parents.base)
        keep_children = None
        if self.has_children:
            logits = self.gaussians["keep_children"].index_select(0, rows)
            keep_children = switch(logits, logits > 0)
        return predictor.unpacked(parents, keep_children)

    def before_correction(
        self, means: Float[Tensor, "n 3"], wanted: Mapping[str, Float[Tensor, "n _"]]
    ) -> dict[str, Float[Tensor, "n _"]]:
        """Attributes (:data:`CODED`) of childless parents at ``means`` that unpack to
        ``wanted``."""
        predictor = self._predictor()
        return dict(wanted) if predictor is None else predictor.before_correction(means, wanted)

    def _predictor(self) -> Predictor | None:
        if self.network is None:
            return None
        table = None
        if self.grid is not None and self.table_quantiser is not None:
            table = self.table_quantiser(self.grid.table) if self.rounds else self.grid.table
        return Predictor(
            structure=self.structure,
            network=self.network,
            grid=self.grid,
            table=table,
            has_children=self.has_children,
        )

    def splats(self, time: float | None = None) -> SplatCloud:
        """Parents and children as they are drawn."""
        return self.unpacked_splats().splats()

    def moved(self, similarity: np.ndarray) -> GaussianSplats:
        """Its splats in other coordinates; for rendering only."""
        return self.unpacked_splats().moved(similarity)

    def unpacked_splats(self) -> GaussianSplats:
        """The scene as plain splats that render."""
        with torch.no_grad():
            tensors = dict(self.unpack().tensors)
        tensors["opacities"] = torch.logit(tensors.pop("alphas").clamp(1e-6, 1 - 1e-6))
        return GaussianSplats(
            tensors,
            antialiased=self.settings.antialiased,
            extent=self.settings.extent,
        )

    def render(
        self,
        camera: Camera,
        *,
        background: Float[Tensor, " 3"] | None = None,
        want: Want = RGB,
    ) -> Render:
        """Unpacks and rasterises."""
        unpacked = self.unpack()
        render = render_gaussians(
            unpacked.tensors,
            camera,
            background=background,
            depth=want.depth,
            sh_degree=self.structure.sh_degree,
            antialiased=self.settings.antialiased,
            near=NEAR_SHARE * self.settings.extent,
        )
        family = {"parent": unpacked.parent, "child": unpacked.child}
        return Render(**{**vars(render), "extras": {**render.extras, **family}})

    # Size

    def estimated_bytes(self, *, of_masks: bool = True) -> Float[Tensor, ""]:
        """Size of the scene's codes, differentiable, in the parents' masks if ``of_masks``; without
        the container around them.

        Bits of attributes are sampled from a part of the parents, other ones at each call.
        """
        keep = switch(self.gaussians["keep"], self.kept)
        keep = keep if of_masks else keep.detach()
        count = max(1, int((keep.detach() > 0).sum()))
        rows = self._next_sample().to(keep.device)
        bits = keep.new_zeros(len(rows))
        for name in CODED:
            if self._flat(name).shape[1]:
                bits = bits + self._quantiser(name).bits(self._flat(name), rows)
        children = self.gaussians["keep_children"].shape[1]
        # n places in no order: n! arrangements are one.
        place = 3 * self.structure.position_bits - max(0.0, math.log2(count) - 1.44)
        total = (keep[rows] * (bits + place + children)).sum() * (self.num_gaussians / len(rows))
        total = total / 8
        if self.grid is not None and self.table_quantiser is not None:
            total = total + self.table_quantiser.bits(self.grid.table).sum() / 8
        if self.network is not None:
            total = total + sum(p.numel() for p in self.network.parameters())
        return total * self.coder_ratio

    def _next_sample(self) -> Int[Tensor, " n"]:
        """The parents whose bits are looked at now."""
        every = max(1, min(SAMPLED_FOR_RATE, self.num_gaussians))
        run = max(1, min(_LONGEST_RUN, self.num_gaussians // 1024))
        rows = torch.arange(self.num_gaussians)
        rows = rows[(rows // run) % every == self._rate_turn % every]
        self._rate_turn = (self._rate_turn + 1) % SAMPLED_FOR_RATE
        return rows

    def describe(self) -> dict[str, float]:
        """Parents, and how many Gaussians they unpack to."""
        kept = self.kept
        kids = 0
        if self.has_children:
            kids = int((self.gaussians["keep_children"].detach()[kept] > 0).sum())
        return {"num_gaussians": int(kept.sum()) + kids, "num_parents": int(kept.sum())}

    # Parts

    def values_and_step(self, name: str) -> tuple[Float[Tensor, "p c"], Float[Tensor, " c"]]:
        """A coded attribute of the parents before rounding, and its learned steps."""
        return self._flat(name).detach(), self._quantiser(name).step.detach()

    def _quantiser(self, name: str) -> Quantiser:
        found = self.quantisers[name]
        assert isinstance(found, Quantiser)
        return found

    def _flat(self, name: str) -> Float[Tensor, "p c"]:
        return self.gaussians[name].reshape(self.num_gaussians, -1)

    def _quantised(self, name: str, rows: Int[Tensor, " n"] | None) -> Float[Tensor, "n c"]:
        values = self._flat(name)
        if self.rounds:
            return self._quantiser(name)(values, rows)
        return values if rows is None else values.index_select(0, rows)

    def _rounded_means(self, rows: Int[Tensor, " n"] | None) -> Float[Tensor, "n 3"]:
        means = self.gaussians["means"]
        if self.rounds:
            return rounded_places(means, self.structure, rows)
        return means if rows is None else means.index_select(0, rows)

    def cells(self, points: Float[Tensor, "n 3"]) -> Int[Tensor, "n 3"]:
        """The cells of the contracted unit cube, along each axis, that points are rounded to."""
        return cells_of(points, self.structure)


def _some_cameras(scene: Scene) -> list[Camera]:
    """At most :data:`_CAMERAS_FOR_SHARES` of the training cameras, without their lenses."""
    cameras = scene.train_cameras()
    every = math.ceil(len(cameras) / _CAMERAS_FOR_SHARES)
    return [undistorted_camera(camera) for camera in cameras[::every]]
