"""Quantisers against closed forms, and columns of codes against numpy."""

import numpy as np
import pytest

from scene4d.bundle.columns import add_weighted, bins, dequantised, quantised
from scene4d.bundle.quantise import (
    Sensitivity,
    allocate_steps,
    lloyd_max,
    quantise_codebook,
    quantise_uniform,
)


def test_uniform_codes_are_the_nearest_and_a_dead_zone_makes_zeros():
    values = np.random.default_rng(0).normal(size=10_000)
    codes = quantise_uniform(values, 0.1, offset=0.03)
    # half a step, and the rounding of float64
    assert np.abs(0.03 + 0.1 * codes - values).max() <= 0.05 + 1e-12
    wide = quantise_uniform(values, 0.1, dead_zone=0.75)
    np.testing.assert_array_equal(wide == 0, np.abs(values) < 0.075)
    assert np.abs(0.1 * wide - values).max() <= 0.075 + 1e-12


@pytest.mark.parametrize("count", [0, 1, 1000, 200_000])
def test_columns_dequantise_exactly_as_written(count):
    """float32(offset + step * code) in float64, not fused: what SPEC.md says, bit by bit."""
    rng = np.random.default_rng(1)
    codes = np.asfortranarray(rng.integers(-(10**6), 10**6, (count, 3)).astype(np.int32))
    step, offset = np.array([0.1, 1 / 3, 1e-7]), np.array([0.7, -1e3, 0.0])
    wanted = (offset + step * codes.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(dequantised(codes, step, offset), wanted)
    np.testing.assert_array_equal(quantised(wanted[:, :1], step[:1], offset[:1], 0.5)[:, 0],
                                  codes[:, 0])  # fmt: skip


def test_context_bins_count_edges():
    values = np.array([-5, -4, 0, 1, 2, 3, 10**12, -(10**12)])
    for edges in ([0], [-4, 1, 3], [-(10**11), 0, 10**11]):
        wanted = [sum(edge <= v for edge in edges) for v in values]
        assert bins(values, np.array(edges)).tolist() == wanted
    total = np.array([1, 2, 3])
    add_weighted(total, np.array([-4, 5, -6], dtype=np.int32), 2, True)
    assert total.tolist() == [9, 12, 15]


def test_lloyd_max_finds_the_best_levels_of_a_normal_distribution():
    """Max 1960, table I: 4 levels of a unit normal at 0.4528 and 1.510, error 0.1175."""
    values = np.random.default_rng(2).normal(size=200_000)
    book = lloyd_max(values, 4, iterations=200)
    # 200,000 samples determine the levels to about 1/sqrt(50,000)
    np.testing.assert_allclose(book, [-1.510, -0.4528, 0.4528, 1.510], atol=0.015)
    error = np.mean((book[quantise_codebook(values, book)] - values) ** 2)
    assert error == pytest.approx(0.1175, rel=0.01)


def test_few_distinct_values_are_kept_exactly():
    values = np.array([3.0, -1.0, 3.0, 0.5])
    book = lloyd_max(values, 256)
    assert book.tolist() == [-1.0, 0.5, 3.0]
    assert book[quantise_codebook(values, book)].tolist() == values.tolist()
    assert len(lloyd_max(np.zeros(0), 8)) == 1


def test_steps_have_equal_slopes_and_meet_the_bits():
    columns = [
        Sensitivity(weight=1.0, spread=1.0, count=1000),
        Sensitivity(weight=100.0, spread=1.0, count=1000),
        Sensitivity(weight=1e-9, spread=1.0, count=1000),
    ]
    steps = allocate_steps(columns, 8000)
    # error falls per bit as weight * step^2 / count
    assert steps[0] ** 2 * 1.0 == pytest.approx(steps[1] ** 2 * 100.0, rel=1e-6)
    full = np.sqrt(2 * np.pi * np.e)
    assert steps[2] == pytest.approx(full)  # not worth a bit
    bits = sum(1000 * np.log2(full / s) for s in steps)
    assert bits == pytest.approx(8000, rel=1e-6)
