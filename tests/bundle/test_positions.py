"""Octree positions: exact, in Morton order, close to the information that they hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scene4d.bundle.entropy import TableBuilder
from scene4d.bundle.positions import (
    PositionPlan,
    decode_positions,
    encode_positions,
    fit_positions,
    morton,
    plan_positions,
)
from scene4d.bundle.rans import RansDecoder, RansEncoder
from scene4d.errors import DataError


def coded(points: np.ndarray, bits: int):
    plan = plan_positions(np.sort(morton(points)), bits)
    builder = TableBuilder()
    model = fit_positions([plan], bits, builder)
    tables = builder.build()
    encoder = RansEncoder(tables)
    encode_positions(encoder, plan, model)
    return encoder.finish(), plan, model, tables


def check(points: np.ndarray, bits: int) -> tuple[int, PositionPlan]:
    data, plan, model, tables = coded(points, bits)
    decoder = RansDecoder(data, tables)
    back = decode_positions(decoder, model, len(points), plan.depth)
    decoder.finish()
    np.testing.assert_array_equal(morton(back), np.sort(morton(points)))
    return len(data), plan


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 21), st.integers(1, 300), st.integers(0, 2**32 - 1), st.booleans())
def test_any_points_come_back(bits, count, seed, crowded):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 1 << bits, (count, 3))
    if crowded:
        points[: count // 2] = points[0]
    check(points, bits)


def test_morton_codes_interleave_bits():
    assert morton(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [3, 0, 2]])).tolist() == [1, 2, 4, 41]
    largest = (1 << 21) - 1
    assert morton(np.array([[largest] * 3])).tolist() == [(1 << 63) - 1]


def test_spread_points_cost_no_more_than_their_places_among_all():
    """n points in no order: log2 of (cells choose n) bits, 3 * bits - log2(n) + log2(e) each."""
    count, bits = 20_000, 12
    points = np.random.default_rng(0).integers(0, 1 << bits, (count, 3))
    size, _ = check(points, bits)
    least = count * (3 * bits - np.log2(count) + np.log2(np.e)) / 8
    # points ordered within leaves, leaf counts and 12-bit frequencies cost 0.4 bits a point
    assert least * 0.999 <= size <= least * 1.02


def test_points_on_a_surface_cost_far_less_than_spread_ones():
    rng = np.random.default_rng(1)
    u, v = rng.integers(0, 256, (2, 40_000))
    flat = np.stack([u, v, (u + v) // 2], axis=1)
    size, _ = check(flat, 10)
    # 46% of 65,536 cells of a surface: a bit for each cell would be 1.6 bits a point, and spread
    # over the cube the points would have 16.2
    assert size * 8 / len(flat) < 4


def test_a_single_cell_with_more_points_than_a_table_has_symbols():
    size, _ = check(np.full((100_000, 3), 9), 4)
    assert size < 40


def test_streams_that_contradict_the_manifest_are_refused():
    points = np.random.default_rng(2).integers(0, 1 << 10, (500, 3))
    data, plan, model, tables = coded(points, 10)
    for count in (1, 499, 501, 10_000):
        with pytest.raises(DataError):
            decoder = RansDecoder(data, tables)
            decode_positions(decoder, model, count, plan.depth)
            decoder.finish()
