"""What the network of a parent/child scene looks like: plain data, also in a bundle's manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from scene4d.plain import from_table
from scene4d.ranges import Finite, Positive, Within
from scene4d.rendering.fields.hash_grid import GridShape

CODED = ("scales", "rotations", "opacities", "sh0", "shN")
"""Attributes of a parent that are quantised and coded; beside them its place and its masks."""


@dataclass(frozen=True, kw_only=True)
class Structure:
    """The shape of a parent/child scene, without its numbers."""

    num_children: int
    """Most children of one parent."""
    sh_degree: int
    grid: GridShape | None
    """None: no hash grid, so that attributes are the parents' own."""
    hidden: int
    """Width of tokens and of the heads' hidden layer."""
    attention: bool
    """Whether a family's tokens look at each other."""
    contraction: bool
    """Whether the grid covers all space (contracted) or the box of the content."""
    centre: tuple[float, float, float]
    radius: float
    """Of the ball that the contraction leaves as it is, scene units."""
    position_bits: int
    """Bits along each axis of the contracted unit cube."""

    @property
    def sh_rest(self) -> int:
        """Coefficients of view-dependent colour, for each of three channels."""
        return (self.sh_degree + 1) ** 2 - 1

    @property
    def attributes(self) -> tuple[tuple[str, int], ...]:
        """Names and channels of what the heads predict, in order."""
        return tuple(zip(CODED, (3, 3, 1, 3, 3 * self.sh_rest), strict=True))

    @property
    def num_outputs(self) -> int:
        """Channels of a Gaussian's attributes."""
        return sum(channels for _, channels in self.attributes)

    @property
    def has_network(self) -> bool:
        """Whether anything is predicted at all."""
        return self.grid is not None or self.num_children > 0

    def plain(self) -> dict[str, Any]:
        """As numbers, strings, lists."""
        table = asdict(self)
        table["centre"] = list(self.centre)
        if self.grid is not None:
            table["grid"] = {
                "resolutions": list(self.grid.resolutions),
                "rows": list(self.grid.rows),
                "features": self.grid.features,
            }
        return table

    @classmethod
    def from_plain(cls, table: Mapping[str, Any]) -> Structure:
        """From what :meth:`plain` gave."""
        values = from_table(_Plain, table, where="structure")
        grid = values.grid
        if grid is not None and sum(grid.rows) * grid.features > _MOST_GRID:
            raise ValueError("the grid's tables are larger than any that is made")
        return cls(
            **{
                **vars(values),
                "grid": None if grid is None else GridShape(**vars(grid)),
            }
        )


@dataclass(frozen=True, kw_only=True)
class _PlainGrid:
    resolutions: tuple[Annotated[int, Within(1, 1 << 20)], ...]
    rows: tuple[Annotated[int, Within(1, 1 << 28)], ...]
    features: Annotated[int, Within(1, 64)]


@dataclass(frozen=True, kw_only=True)
class _Plain:
    """What :meth:`Structure.plain` gives, as it may be."""

    num_children: Annotated[int, Within(0, 4)]
    sh_degree: Annotated[int, Within(0, 3)]
    grid: _PlainGrid | None = None
    hidden: Annotated[int, Within(1, 256)]
    attention: bool
    contraction: bool
    centre: tuple[Finite, Finite, Finite]
    radius: Positive
    position_bits: Annotated[int, Within(1, 21)]


_MOST_GRID = 1 << 28
"""Numbers of a grid."""
