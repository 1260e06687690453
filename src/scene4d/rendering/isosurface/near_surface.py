"""Distances on a fine grid, asked for only where the surface is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate, max_pool3d

_REACH = 0.9
"""In edges of a coarse cube: no place in it is farther from all of its corners than 0.87."""


def distances_near_surface(
    distance: Callable[[Float[Tensor, "n 3"]], Float[Tensor, " n"]],
    *,
    lower: Float[Tensor, " 3"],
    upper: Float[Tensor, " 3"],
    cells: int,
    coarser: int = 2,
) -> Float[Tensor, "n n n"]:
    """``distance`` of the corners of ``cells`` cubed cubes between ``lower`` and ``upper``.

    First without gradients on a grid that is ``coarser`` times coarser (a divisor of ``cells``);
    then, with them, in those of its cubes that the surface passes through or may lie in, by the
    distances of their corners; elsewhere the coarse values are interpolated. Where these are larger
    than true distances, what is thinner than a coarse cube may be missed; what is found has the
    signs and values of ``distance`` at all its corners.
    """
    if cells % coarser or cells < 2 * coarser:
        raise ValueError(f"{cells} cubes along a side cannot be {coarser} times fewer")
    with torch.no_grad():
        few = cells // coarser
        rough = distance(grid_places(lower, upper, few)).reshape(3 * (few + 1,))
        if coarser == 1:
            asked = torch.ones_like(rough, dtype=torch.bool)
        else:
            size = 3 * (cells + 1,)
            edge = float((upper - lower).max()) / few
            close = -max_pool3d(-rough.abs()[None, None], 2, stride=1)[0, 0] < _REACH * edge
            asked = _fine_corners(close | _crossed(rough), coarser)
            rough = interpolate(rough[None, None], size, mode="trilinear", align_corners=True)[0, 0]
    places = grid_places(lower, upper, cells)
    found = rough.reshape(-1)
    new = asked
    while len(
        rows := new.reshape(-1).nonzero()[:, 0]
    ):  # on, where the surface leaves what is asked
        found = found.index_put((rows,), distance(places[rows]))
        around = _fine_corners(_crossed(found.detach().reshape(new.shape)), 1)
        new = around & ~asked
        asked = asked | new
    return found.reshape(asked.shape)


def grid_places(
    lower: Float[Tensor, " 3"], upper: Float[Tensor, " 3"], cells: int
) -> Float[Tensor, "n 3"]:
    """The (cells + 1)^3 corners of cubes, the last axis fastest."""
    steps = torch.linspace(0, 1, cells + 1, device=lower.device, dtype=lower.dtype)
    unit = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), dim=-1).reshape(-1, 3)
    return lower + (upper - lower) * unit


def _crossed(values: Float[Tensor, "n n n"]) -> Bool[Tensor, "m m m"]:
    """The cubes whose corners have both signs."""
    inside = (values < 0).float()[None, None]
    some, all_but = max_pool3d(inside, 2, stride=1), max_pool3d(1 - inside, 2, stride=1)
    return (some * all_but)[0, 0] > 0


def _fine_corners(cubes: Bool[Tensor, "m m m"], finer: int) -> Bool[Tensor, "n n n"]:
    """The corners, on a grid so many times finer, of cubes."""
    marked = cubes.float()[None, None]
    if finer > 1:
        marked = interpolate(marked, scale_factor=finer, mode="nearest")
    return max_pool3d(marked, 2, stride=1, padding=1)[0, 0] > 0
