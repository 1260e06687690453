"""The edges of a triangle mesh, with the vertices opposite to each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True, kw_only=True, eq=False)
class Edges:
    """Every edge once, whatever number of triangles it has."""

    ends: Int[np.ndarray, "num_edges 2"]
    """The smaller vertex first; sorted."""
    starts: Int[np.ndarray, " num_edges_1"]
    """Where the vertices opposite to an edge begin in ``opposite``; the end of the last, too."""
    opposite: Int[np.ndarray, " num_corners"]
    """The third vertex of each triangle of each edge."""


def edges_of(triangles: Int[np.ndarray, "num_triangles 3"]) -> Edges:
    """The edges of ``triangles``; those with two corners in one vertex have none."""
    whole = np.asarray(triangles, dtype=np.int64)
    proper = (whole != np.roll(whole, 1, axis=1)).all(axis=1)
    whole = whole[proper]
    ends = np.sort(np.concatenate([whole[:, [0, 1]], whole[:, [1, 2]], whole[:, [2, 0]]]), axis=1)
    opposite = np.concatenate([whole[:, 2], whole[:, 0], whole[:, 1]])
    order = np.lexsort((opposite, ends[:, 1], ends[:, 0]))
    ends, opposite = ends[order], opposite[order]
    first = np.ones(len(ends), dtype=bool)
    first[1:] = (ends[1:] != ends[:-1]).any(axis=1)
    starts = np.append(np.flatnonzero(first), len(ends))
    return Edges(ends=ends[first], starts=starts, opposite=opposite)
