"""A parent/child scene as the integers of a bundle."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import torch

from scene4d.bundle.splats import error_of
from scene4d.methods.lpgs.bundle_content import LpgsParts, grid_of, uncontracted
from scene4d.methods.lpgs.parent_child import ParentChildSplats
from scene4d.methods.lpgs.seeds import MASK_START
from scene4d.methods.lpgs.structure import CODED

_NAMES = {"scales": "log_scales", "rotations": "rotation", "opacities": "opacity", "sh0": "dc",
          "shN": "sh"}  # fmt: skip


@torch.no_grad()
def lpgs_parts(scene: ParentChildSplats, *, factor: float = 1.0) -> LpgsParts:
    """The scene's integers; ``factor`` coarsens the steps of all attributes of parents."""
    rows = scene.kept.nonzero()[:, 0].cpu()
    codes, steps, errors = {}, {}, {}
    for name in CODED:
        values, step = scene.values_and_step(name)
        values, step = values.cpu()[rows], (step * factor).cpu()
        rounded = (values / step).round()
        codes[_NAMES[name]] = rounded.int().numpy()
        steps[_NAMES[name]] = step.numpy()
        errors[_NAMES[name]] = error_of((rounded * step - values).double().numpy())
    points = scene.cells(scene.means).cpu()[rows].numpy().astype(np.uint32)
    origin, width = grid_of(scene.structure.position_bits)
    places = uncontracted((origin + width * points).astype(np.float32), scene.structure.plain())
    errors["positions"] = error_of(places - scene.means.cpu()[rows].double().numpy())
    masks = (scene.gaussians["keep_children"].cpu()[rows] > 0).numpy()
    table = None
    if scene.grid is not None and scene.table_quantiser is not None:
        table = scene.table_quantiser.codes(scene.grid.table).cpu().numpy()
        steps["grid"] = scene.table_quantiser.step.cpu().numpy()
        errors["grid"] = error_of(table * steps["grid"] - scene.grid.table.cpu().numpy())
    return LpgsParts(
        structure=scene.structure.plain(),
        points=points,
        codes=codes,
        steps=steps,
        children=(masks << np.arange(masks.shape[1])).sum(axis=1),
        importance=scene.gaussians["keep"].cpu()[rows].numpy(),
        table=table,
        errors=errors,
        weights=None
        if scene.network is None
        else {n: p.detach().cpu().numpy() for n, p in scene.network.named_parameters()},
    )


@torch.no_grad()
def without_least(scene: ParentChildSplats, most: int) -> ParentChildSplats:
    """A copy of at most ``most`` Gaussians: the masks of the lowest parents are off, of all but one
    if need be; and no size was trained for."""
    some, kept = copy.deepcopy(scene), scene.kept
    some.settings = replace(some.settings, target_mb=None)
    sizes = kept.long()
    if scene.has_children:
        sizes = sizes * (1 + (scene.gaussians["keep_children"] > 0).sum(dim=1))
    logits = scene.gaussians["keep"].detach().masked_fill(~kept, -math.inf)
    order = logits.argsort(descending=True, stable=True)
    dropped = sizes[order].cumsum(dim=0) > most
    dropped[0] = False
    some.gaussians["keep"][order[dropped]] = -MASK_START
    return some
