"""Blocks as rounded frequencies: SPEC.md's integers, the plain cosine transform, and its errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scene4d.methods.lightslab.block_transform import (
    CHANNELS,
    FREQUENCIES,
    MATRIX,
    MOST_FREQUENCY,
    MOST_LEVEL,
    MOST_STEP,
    ORDER,
    frequency_codes,
    steps_for,
    texel_codes,
)

COSINES = np.array(
    [
        [np.sqrt((1 + (u > 0)) / 8) * np.cos(np.pi * (2 * x + 1) * u / 16) for x in range(8)]
        for u in range(8)
    ]
)
"""[frequency, place], orthonormal, in doubles."""
WHOLE = MATRIX / 2**7.5
ROUNDED = np.array([0.5 + 0.25 + 0.5 + 0.25 + 0.5, 0.5 + 0.25 + 0.5, 0.5 + 0.75 + 0.75, 0.5])
"""By how much rounding a, l, p, q (1/2 each) and halving p and q downwards (1/2 each) change red,
green, blue, alpha at most: r = l - floor(q / 2) - floor(p / 2) + p, g = l - floor(q / 2) + q, b = l
- floor(q / 2) - floor(p / 2)."""
SEEDS = st.integers(0, 2**32 - 1)


def in_colours(channels: np.ndarray) -> np.ndarray:
    """[..., 4] bounds of red, green, blue, alpha from those of a, l, p, q."""
    a, luma, p, q = np.moveaxis(channels, -1, 0)
    return np.stack([luma + p / 2 + q / 2, luma + q / 2, luma + p / 2 + q / 2, a], axis=-1)


def frequencies(codes: np.ndarray, levels: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """[blocks, 4, 8, 8] F(u, v), the places of SPEC.md's order made anew."""
    order = sorted(((u, v) for u in range(8) for v in range(8)), key=lambda f: (f[0] + f[1], f[0]))
    found = np.zeros((len(codes), 4, 8, 8), dtype=np.int64)
    for k in range(codes.shape[2]):
        scale = steps[:, k] * 2 ** levels[:, None].astype(np.int64)
        found[:, :, order[k][0], order[k][1]] = codes[:, :, k] * scale
    return found


def random_codes(seed: int, *, most: int = 40, blocks: int = 6, stored: int = FREQUENCIES):
    rng = np.random.default_rng(seed)
    codes = rng.integers(-most, most + 1, (blocks, CHANNELS, stored))
    codes[rng.random(codes.shape) < 0.5] = 0
    codes[:, :2, 0] += 8 * most
    steps = rng.integers(1, 60, (CHANNELS, stored))
    return codes.astype(np.int32), rng.integers(0, 4, blocks).astype(np.int32), steps


def through(texels: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Errors of ``texels`` [blocks, 8, 8, 4] of whole numbers, in 1/255."""
    levels = np.zeros(len(texels), dtype=np.int32)
    codes = frequency_codes((texels / 255).astype(np.float32), levels, steps)
    return texel_codes(codes, levels, steps).astype(np.float64) - texels


def test_the_example_of_the_specification():
    codes = np.zeros((1, 4, 5), dtype=np.int32)
    codes[0, :, 0] = 510, 136, -10, 20
    steps = np.full((4, 5), 8)
    texels = texel_codes(codes, np.array([1]), steps)
    assert texels.dtype == np.uint8 and texels.shape == (1, 8, 8, 4)
    assert (texels == [31, 37, 33, 128]).all()


def test_the_matrix_is_the_cosine_transform():
    """To within 36 for 34.6, as in HEVC (ITU-T H.265, 8.6.4.2); its rows are at right angles to
    within 50 / 2^15, and those of even frequencies exactly, like all of unlike parity."""
    np.testing.assert_allclose(MATRIX, 2**7.5 * COSINES, rtol=0, atol=1.4)
    gram = MATRIX @ MATRIX.T
    np.testing.assert_allclose(gram, 2**15 * np.eye(8), rtol=0, atol=50)
    assert np.abs(gram[::2, ::2] - np.diag(np.diag(gram)[::2])).max() == 0
    assert (gram[::2, 1::2] == 0).all()
    # no frequency that is allowed goes beyond the whole numbers of a double
    assert np.abs(MATRIX).sum(axis=0).max() ** 2 * MOST_FREQUENCY < 2**53


def test_the_order_is_by_rising_sums():
    assert ORDER[:6] == [(0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0)] and ORDER[-1] == (7, 7)
    assert len(set(ORDER)) == FREQUENCIES
    sums = [u + v for u, v in ORDER]
    assert sums == sorted(sums)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, stored=st.integers(1, FREQUENCIES), most=st.sampled_from([3, 40, 160]))
def test_texels_are_the_integers_of_the_specification(seed, stored, most):
    codes, levels, steps = random_codes(seed, most=most, stored=stored)
    found = frequencies(codes, levels, steps)
    a, luma, p, q = np.moveaxis((MATRIX.T @ found @ MATRIX + (1 << 17)) >> 18, 1, 0)
    m = luma - q // 2
    b = m - p // 2
    wanted = np.clip(np.stack([b + p, m + q, b, a], axis=-1), 0, 255)
    np.testing.assert_array_equal(texel_codes(codes, levels, steps), wanted)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, most=st.sampled_from([1, 3, 40]))
def test_texels_are_the_cosine_transform_in_doubles(seed, most):
    """To within each frequency's share of the matrix's rounding, and that of what is rounded."""
    codes, levels, steps = random_codes(seed, most=most)
    found = frequencies(codes, levels, steps).astype(np.float64)
    a, luma, p, q = np.moveaxis(COSINES.T @ found @ COSINES / 8, 1, 0)
    m = luma - q / 2
    wanted = np.stack([m + p / 2, m + q, m - p / 2, a], axis=-1)
    wrong = np.abs(np.kron(WHOLE, WHOLE) - np.kron(COSINES, COSINES)).max(axis=1).reshape(8, 8) / 8
    most_wrong = in_colours((np.abs(found) * wrong).sum(axis=(2, 3)))[:, None, None] + ROUNDED
    difference = texel_codes(codes, levels, steps) - np.clip(wanted, 0, 255)
    assert (np.abs(difference) <= most_wrong + 1e-9).all()


def test_little_contrast_is_within_one_of_the_cosine_transform():
    """All frequencies together below 200 / 8: the matrix adds at most 200 * 0.0005, alpha is within
    rounding. A frequency above them all, the mean, is exact."""
    rng = np.random.default_rng(3)
    codes = np.zeros((200, 4, 64), dtype=np.int32)
    codes[:, 0, 1:] = rng.integers(-3, 4, (200, 63))
    codes[:, 0, 0] = rng.integers(10 * 64, 245 * 64, 200)
    steps, levels = np.ones((4, 64), dtype=np.int64), np.zeros(200, dtype=np.int32)
    assert np.abs(codes[:, 0, 1:]).sum(axis=1).max() < 200
    wanted = COSINES.T @ frequencies(codes, levels, steps)[:, 0] @ COSINES / 8
    found = texel_codes(codes, levels, steps)[..., 3]
    assert np.abs(found - wanted).max() < 0.5 + 0.1


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, kind=st.sampled_from(["noise", "extremes", "sparse"]))
def test_any_texels_come_back_at_fine_steps(seed, kind):
    """There and back is A x A' with A = D' D / 2^15, the same for every colour, for the way back
    from the channels undoes the way there. It keeps means, so that of texels within 127.5 of the
    middle it is off by 127.5 sum |A A' - 1|, 1.1, at most; then 0.6 of a step of 1/8 in each
    frequency, and what is rounded."""
    rng = np.random.default_rng(seed)
    texels = rng.integers(0, 256, (20, 8, 8, 4))
    if kind == "extremes":
        texels = 255 * (texels > 127)
    elif kind == "sparse":
        texels = 255 * (texels > 250)
    again = WHOLE.T @ WHOLE
    matrix = 127.5 * np.abs(np.kron(again, again) - np.eye(64)).sum(axis=1).max()
    assert matrix < 1.2
    each = 0.6 / 8 * np.abs(WHOLE).sum(axis=0).max() ** 2
    bound = matrix + in_colours(np.full(4, each)) + ROUNDED
    error = through(texels, np.ones((4, 64), dtype=np.int64))
    assert (np.abs(error) <= bound + 0.01).all()  # float32 on the way there
    # each of some seven roundings adds 1/12 at most
    assert np.sqrt((error**2).mean()) < 0.76


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_smooth_texels_come_back_within_one_and_a_half(seed):
    """Planes through the block: the matrix adds nearly nothing, rounding seldom all that it can."""
    rng = np.random.default_rng(seed)
    across, down = rng.integers(-4, 5, (2, 40, 1, 1, 4))
    i, j = np.mgrid[:8, :8][..., None]
    texels = 128 + across * (2 * j - 7) + down * (2 * i - 7)
    assert texels.min() >= 0 and texels.max() <= 255
    assert np.abs(through(texels, np.ones((4, 64), dtype=np.int64))).max() <= 1.5


def test_plain_colours_come_back_within_one():
    values = [0, 1, 2, 3, 85, 86, 127, 128, 200, 253, 254, 255]
    colours = np.stack(np.meshgrid(*[values] * 3, [0, 77, 255], indexing="ij"), axis=-1)
    texels = np.broadcast_to(colours.reshape(-1, 1, 1, 4), (3 * 12**3, 8, 8, 4))
    error = through(texels, np.ones((4, 64), dtype=np.int64))
    assert np.abs(error).max() <= 1 and (error[..., 3] == 0).all()
    # and one frequency of each channel is enough
    np.testing.assert_array_equal(through(texels, np.ones((4, 1), dtype=np.int64)), error)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, step=st.integers(1, 400))
def test_codes_are_the_nearest_but_for_a_tenth_towards_0(seed, step):
    rng = np.random.default_rng(seed)
    texels = rng.random((5, 8, 8, 4)).astype(np.float32)
    r, g, b, a = np.moveaxis(2040 * texels.astype(np.float64), 3, 0)
    both = (r + b) / 2
    plain = np.stack([a, (both + g) / 2, r - b, g - both], axis=1)
    wanted = WHOLE @ plain @ WHOLE.T
    levels = rng.integers(0, 3, 5).astype(np.int32)
    steps = np.full((4, 64), step)
    codes = frequency_codes(texels, levels, steps)
    scale = step * 2.0 ** levels[:, None, None, None]
    given = frequencies(codes, levels, steps)
    # 0.05: float32 with sums of 64 values up to 2040, in 1/8 of 1/255
    assert (np.abs(wanted) - np.abs(given) < 0.6 * scale + 0.05).all()
    assert (np.abs(given) - np.abs(wanted) < 0.4 * scale + 0.05).all()
    assert (given * wanted >= 0).all()


@pytest.mark.parametrize("step", [2, 4, 8])
def test_the_error_grows_with_the_steps(step):
    """Of frequencies spread over many steps the rounding's error is even from -0.4 to 0.6 of one,
    (1 / 12 + 0.1^2) step^2 in the mean. Cosines keep it; the matrix adds its share of the contrast,
    and rounding to texels 1 / 12."""
    texels = np.random.default_rng(step).integers(48, 208, (1500, 8, 8, 4))
    error = through(texels, np.full((4, 64), 8 * step))[..., 3]
    again = WHOLE.T @ WHOLE
    matrix = ((np.kron(again, again) - np.eye(64)) ** 2).mean(axis=0).sum() * 160**2 / 12
    wanted = matrix + (1 / 12 + 0.01) * step**2 + 1 / 12
    # one code in 12 of the coarsest is 0, where the error is from -0.6 to 0.6: 2 %
    assert 0.95 < (error**2).mean() / wanted < 1.05
    most = 0.6 * step * np.abs(WHOLE).sum(axis=0).max() ** 2
    assert np.abs(error).max() <= most + 0.5 + 1.2 * 80 / 127.5


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, level=st.integers(0, MOST_LEVEL))
def test_levels_multiply_the_steps(seed, level):
    codes, _, steps = random_codes(seed, most=6)
    levels, none = np.full(6, level, dtype=np.int32), np.zeros(6, dtype=np.int32)
    larger = steps << level
    np.testing.assert_array_equal(
        texel_codes(codes, levels, steps), texel_codes(codes, none, larger)
    )
    texels = np.random.default_rng(seed).random((6, 8, 8, 4)).astype(np.float32)
    np.testing.assert_array_equal(
        frequency_codes(texels, levels, steps), frequency_codes(texels, none, larger)
    )


def test_frequencies_that_are_not_stored_are_0():
    codes, levels, steps = random_codes(7)
    codes[:, :, 9:] = 0
    np.testing.assert_array_equal(
        texel_codes(codes[:, :, :9], levels, steps[:, :9]), texel_codes(codes, levels, steps)
    )
    texels = np.random.default_rng(7).random((6, 8, 8, 4)).astype(np.float32)
    np.testing.assert_array_equal(
        frequency_codes(texels, levels, steps[:, :9]),
        frequency_codes(texels, levels, steps)[..., :9],
    )


def test_texels_are_clamped():
    codes = np.zeros((2, 4, 1), dtype=np.int32)
    codes[:, :2, 0] = [[1 << 20] * 2, [-(1 << 20)] * 2]
    texels = texel_codes(codes, np.zeros(2), np.ones((4, 1), dtype=np.int64))
    assert (texels[0] == 255).all() and (texels[1] == 0).all()


@pytest.mark.parametrize("sign", [-1, 1])
def test_frequencies_beyond_the_bound_are_refused(sign):
    """Also where 32 bits, or 32 bits of the product, would have come round to 0."""
    none = np.zeros(1, dtype=np.int32)
    codes = np.zeros((1, 4, 3), dtype=np.int32)
    codes[0, 3, 2] = sign * (MOST_FREQUENCY // 4)
    steps = np.full((4, 3), 4)
    texel_codes(codes, none, steps)
    for level, code, step in (
        (0, MOST_FREQUENCY // 4 + 1, 4), (1, MOST_FREQUENCY // 4, 4), (0, (1 << 31) - 1, 1),
        (MOST_LEVEL, (1 << 31) - 1, MOST_STEP), (0, 1 << 30, 4), (2, 1 << 30, 1),
    ):  # fmt: skip
        codes[0, 3, 2] = sign * code
        with pytest.raises(OverflowError, match="too large"):
            texel_codes(codes, none + level, np.full((4, 3), step))


def test_there_may_be_no_blocks():
    steps = steps_for(2.0, 10)
    codes = frequency_codes(np.zeros((0, 8, 8, 4), dtype=np.float32), np.zeros(0), steps)
    assert codes.shape == (0, 4, 10)
    assert texel_codes(codes, np.zeros(0), steps).shape == (0, 8, 8, 4)


@settings(max_examples=40, deadline=None)
@given(step=st.floats(1e-3, 1e4), more=st.floats(1, 4), frequencies=st.integers(1, FREQUENCIES))
def test_steps_rise_with_the_step_and_with_the_frequency(step, more, frequencies):
    steps, larger = steps_for(step, frequencies), steps_for(step * more, frequencies)
    assert steps.shape == (4, frequencies) and steps.dtype == np.int64
    assert steps.min() >= 1 and steps.max() <= MOST_STEP
    assert (np.diff(steps, axis=1) >= 0).all() and (larger >= steps).all()
    np.testing.assert_array_equal(steps, steps_for(step)[:, :frequencies])
    # frequencies of one sum u + v alike
    assert (steps_for(step)[:, 1] == steps_for(step)[:, 2]).all()
