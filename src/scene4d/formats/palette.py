"""Codebooks: one-dimensional (256 values) and a palette of vectors (up to 65,536), by k-means.

The palette is a tree of two levels: k-means of a sample into about sqrt(size) cells, then k-means
inside each cell with a share of the palette in proportion to its vectors. An iteration costs
``N * 2 sqrt(size)`` distances instead of ``N * size``, 128 times fewer for 65,536 entries.
Measured on 2 cores: a whole SOG file of 1M splats of degree 3 in 13 s (benchmarks/formats.py).
"""

from __future__ import annotations

import heapq

import numpy as np

_BINS = 2**14
_LLOYD_STEPS = 40
_SAMPLE = 2**16


def codebook(values: np.ndarray, size: int = 256) -> np.ndarray:
    """[size] float32 ascending levels that nearly minimise the squared error of ``values``.

    On a fine histogram: the cell with the largest squared error is cut where that helps most until
    there are ``size``, then Lloyd's algorithm. Cutting serves the tails, where starting from
    quantiles or from a density left errors one and a half times as large. Values that are few are
    met exactly.
    """
    flat = np.asarray(values, dtype=np.float64).ravel()
    if not flat.size:
        return np.zeros(size, dtype=np.float32)
    exact = np.unique(flat[:: max(1, flat.size // _SAMPLE)])
    if len(exact) <= size:  # perhaps it came out of a codebook already
        exact = np.unique(flat)
    if len(exact) <= size:
        return np.pad(exact, (0, size - len(exact)), mode="edge").astype(np.float32)
    weights, edges = np.histogram(flat, bins=_BINS)
    middles = (edges[1:] + edges[:-1]) / 2
    mass = np.concatenate([[0.0], np.cumsum(weights)])
    moment = np.concatenate([[0.0], np.cumsum(weights * middles)])
    energy = np.concatenate([[0.0], np.cumsum(weights * middles**2)])
    starts = _cut_into(size, mass, moment, energy)
    ends = np.append(starts, _BINS)
    levels = np.diff(moment[ends]) / np.maximum(np.diff(mass[ends]), 1)
    for _ in range(_LLOYD_STEPS):
        cuts = np.searchsorted(middles, (levels[1:] + levels[:-1]) / 2)
        ends = np.concatenate([[0], cuts, [_BINS]])
        count = np.diff(mass[ends])
        levels = np.where(count > 0, np.diff(moment[ends]) / np.maximum(count, 1), levels)
    levels = np.sort(levels)
    return np.pad(levels, (0, size - len(levels)), mode="edge").astype(np.float32)


def _cut_into(size: int, mass: np.ndarray, moment: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """First bins of at most ``size`` cells; from cumulative sums of 1, x and x^2 over the bins."""

    def cell(start: int, end: int) -> tuple[float, int, int]:
        count = mass[end] - mass[start]
        first, second = moment[end] - moment[start], energy[end] - energy[start]
        return (first**2 / count - second if count else 0.0), start, end

    heap = [cell(0, len(mass) - 1)]
    while len(heap) < size and heap[0][0] < 0 and heap[0][2] - heap[0][1] > 1:
        _, start, end = heapq.heappop(heap)
        cuts = np.arange(start + 1, end)
        below, above = mass[cuts] - mass[start], mass[end] - mass[cuts]
        gain = (moment[cuts] - moment[start]) ** 2 / np.maximum(below, 1)
        gain += (moment[end] - moment[cuts]) ** 2 / np.maximum(above, 1)
        gain[(below == 0) | (above == 0)] = -1
        cut = int(cuts[gain.argmax()])
        heapq.heappush(heap, cell(start, cut))
        heapq.heappush(heap, cell(cut, end))
    return np.array(sorted(start for _, start, _ in heap))


def nearest_level(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Indices (uint8) of the nearest of up to 256 ascending ``levels``; any shape."""
    cuts = (levels[1:].astype(np.float64) + levels[:-1]) / 2
    return np.searchsorted(cuts, values).astype(np.uint8)


def palette(
    vectors: np.ndarray, size: int, *, iterations: int = 5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Centroids [at most size, D] float32 and the index [N] of each vector's.

    ``vectors`` [N, D] float32. Deterministic for one ``seed`` and one BLAS.
    """
    random = np.random.default_rng(seed)
    first, labels = _distinct(vectors, random)
    if len(first) <= size:
        return vectors[first].astype(np.float32), labels
    count = len(vectors)
    cells = max(1, round(size**0.5))
    sample = vectors[random.choice(count, min(count, _SAMPLE), replace=False)]
    coarse = _kmeans(sample, cells, iterations, random)
    cell = _nearest(vectors, coarse)
    order = np.argsort(cell, kind="stable")
    sizes = np.bincount(cell, minlength=len(coarse))
    shares = _shares(sizes, size)
    centroids, labels, start, total = [], np.empty(count, dtype=np.int64), 0, 0
    for members, share in zip(np.split(order, np.cumsum(sizes)[:-1]), shares, strict=True):
        start += len(members)
        if not len(members):
            continue
        found = _kmeans(vectors[members], int(share), iterations, random)
        labels[members] = total + _nearest(vectors[members], found)
        centroids.append(found)
        total += len(found)
    return np.concatenate(centroids), labels


def _distinct(vectors: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows that represent all distinct vectors, and each vector's; by a random projection, which
    tells different vectors apart with certainty for all that matters, and is checked."""
    keys = vectors @ random.normal(size=vectors.shape[1])
    _, first, labels = np.unique(keys, return_index=True, return_inverse=True)
    if len(first) < len(vectors) and not np.array_equal(vectors[first][labels], vectors):
        return np.arange(len(vectors)), np.arange(len(vectors))
    return first, labels


def _shares(sizes: np.ndarray, total: int) -> np.ndarray:
    """How many centroids each cell gets: at least one, in proportion, ``total`` at most."""
    filled = sizes > 0
    free = max(0, total - int(filled.sum()))
    shares = filled + np.floor(free * sizes / max(int(sizes.sum()), 1)).astype(np.int64)
    return np.minimum(shares, sizes)


def _kmeans(
    vectors: np.ndarray, size: int, iterations: int, random: np.random.Generator
) -> np.ndarray:
    """Lloyd's algorithm from random members; cells that lose all members stay where they are."""
    if len(vectors) <= size:
        return vectors.astype(np.float32)
    centroids = vectors[random.choice(len(vectors), size, replace=False)].astype(np.float32)
    for _ in range(iterations):
        label = _nearest(vectors, centroids)
        order = np.argsort(label, kind="stable")
        count = np.bincount(label, minlength=size)
        filled = np.nonzero(count)[0]
        starts = (np.cumsum(count) - count)[filled]
        sums = np.add.reduceat(vectors[order], starts, axis=0, dtype=np.float64)
        centroids[filled] = (sums / count[filled, None]).astype(np.float32)
    return centroids


def _nearest(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Index of the nearest centroid, in pieces of bounded memory."""
    half = 0.5 * np.einsum("ij,ij->i", centroids, centroids)
    step = max(1, 2**23 // len(centroids))
    pieces = [
        (half - vectors[i : i + step] @ centroids.T).argmin(axis=1)
        for i in range(0, len(vectors), step)
    ]
    return np.concatenate(pieces)
