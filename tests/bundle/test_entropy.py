"""rANS, frequency tables, contexts: exact in both directions, and as short as entropy says."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scene4d.bundle.entropy import (
    ChannelModel,
    Context,
    TableBuilder,
    decode_channels,
    encode_channels,
    fit_channel,
)
from scene4d.bundle.rans import RansDecoder, RansEncoder
from scene4d.bundle.tables import TOTAL, Tables, coarse_table, frequency_table
from scene4d.errors import DataError


def entropy_bits(symbols: np.ndarray, table: np.ndarray) -> float:
    return float(-np.log2(table[symbols] / TOTAL).sum())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=600))
def test_frequencies_sum_to_4096_and_spare_no_symbol(counts):
    for make in (frequency_table, coarse_table):
        table = make(np.array(counts))
        assert table.sum() == TOTAL
        if any(counts):
            np.testing.assert_array_equal(table > 0, np.array(counts) > 0)


def test_coarse_frequencies_cost_little_and_deflate_better():
    rng = np.random.default_rng(0)
    draws = [np.bincount(rng.geometric(0.1, 3000), minlength=120) for _ in range(40)]
    exact, coarse = ([make(d) for d in draws] for make in (frequency_table, coarse_table))
    bits = [
        sum(-(d * np.log2(np.maximum(table, 1) / TOTAL)).sum() for d, table in pairs)
        for pairs in (zip(draws, exact, strict=True), zip(draws, coarse, strict=True))
    ]
    assert bits[1] < bits[0] * 1.003  # a tenth of a bit per symbol would be 2%
    assert len(Tables(coarse).to_bytes()) < 0.75 * len(Tables(exact).to_bytes())


def test_frequencies_are_the_best_ones_on_a_small_case():
    counts = np.array([1000.0, 10, 3, 1])
    found = -(counts * np.log2(frequency_table(counts) / TOTAL)).sum()
    # All neighbours that move one unit between two symbols are worse or equal.
    table = frequency_table(counts)
    for a in range(4):
        for b in range(4):
            other = table.copy()
            other[a], other[b] = other[a] + 1, other[b] - 1
            if a != b and (other > 0).all():
                assert -(counts * np.log2(other / TOTAL)).sum() >= found - 1e-9


def test_tables_survive_their_member_and_bad_members_are_refused():
    rng = np.random.default_rng(0)
    tables = [frequency_table(rng.integers(0, 100, n)) for n in (1, 2, 255, 4096)]
    back = Tables.from_bytes(Tables(tables).to_bytes())
    assert len(back) == 4
    for i, table in enumerate(tables):
        np.testing.assert_array_equal(back.frequencies(i), table)
    assert len(Tables.from_bytes(Tables([]).to_bytes())) == 0
    with pytest.raises(DataError, match="inflated"):
        Tables.from_bytes(b"no zlib stream")


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.sampled_from(["table", "rows", "bits"]), min_size=1, max_size=6),
    st.sampled_from([0, 1, 2, 3, 4, 5, 1000]),
)
def test_passes_of_every_sort_come_back(seed, sorts, count):
    rng = np.random.default_rng(seed)
    tables = Tables([frequency_table(rng.integers(0, 50, n)) for n in (1, 3, 40, 2000)])
    encoder, wanted = RansEncoder(tables), []
    for sort in sorts:
        if sort == "bits":
            width = int(rng.integers(1, 13))
            values = rng.integers(0, 1 << width, count)
            encoder.bits(values, width)
            wanted.append((sort, width, None, values))
            continue
        first = int(rng.integers(0, 3))
        rows = rng.integers(0, 4 - first, count).astype(np.uint8)
        rows = rows if sort == "rows" else np.zeros(count, dtype=np.uint8)
        values = np.array(
            [rng.choice(np.flatnonzero(tables.frequencies(first + int(r)))) for r in rows],
            dtype=int,
        )
        encoder.symbols(values, first, rows if sort == "rows" else None)
        wanted.append((sort, first, rows, values))
    decoder = RansDecoder(encoder.finish(), tables)
    for sort, number, rows, values in wanted:
        if sort == "bits":
            found = decoder.bits(count, number)
        else:
            found = decoder.symbols(count, number, rows if sort == "rows" else None)
        np.testing.assert_array_equal(found, values)
    decoder.finish()


def test_the_stream_is_as_long_as_its_entropy():
    rng = np.random.default_rng(1)
    table = frequency_table(2000 * 0.8 ** np.arange(30))
    symbols = rng.choice(30, 200_000, p=table / TOTAL)
    encoder = RansEncoder(Tables([table]))
    encoder.symbols(symbols, 0)
    bits = 8 * len(encoder.finish())
    # 16 bytes of states; a state of at least 2^16 loses at most 2^-4 of a percent a step
    assert entropy_bits(symbols, table) <= bits <= entropy_bits(symbols, table) * 1.0007 + 128


def test_the_worked_example_of_the_specification():
    """mobile_export/SPEC.md, section 3: a stream of 28 bytes."""
    tables = Tables([np.array([3072, 1024])])
    assert zlib.decompress(tables.to_bytes()).hex(" ") == "02 80 18 80 08"
    encoder = RansEncoder(tables)
    symbols, first, second = [0, 1, 0, 0, 1], [5, 1000, 77, 4095, 2], [9, 700, 0, 4000, 1]
    encoder.symbols(np.array(symbols), 0)
    encoder.bits(np.array(first), 12)
    encoder.bits(np.array(second), 12)
    data = encoder.finish()
    stated = "05640500 e80f0004 4d545501 ff675501 0200 bc02 0000 a00f 0900 0100"
    assert data == bytes.fromhex(stated)
    decoder = RansDecoder(data, tables)
    assert decoder.symbols(5, 0).tolist() == symbols
    assert decoder.bits(5, 12).tolist() == first
    assert decoder.bits(5, 12).tolist() == second
    decoder.finish()


def test_damage_is_noticed():
    tables = Tables([frequency_table(0.7 ** np.arange(20))])
    encoder = RansEncoder(tables)
    symbols = np.random.default_rng(0).choice(20, 500, p=tables.frequencies(0) / TOTAL)
    encoder.symbols(symbols, 0)
    data = encoder.finish()
    for damaged in (data[:-2], data[:14], data[:15], bytes(16) + data[16:], data + b"\0\0"):
        with pytest.raises(DataError):
            decoder = RansDecoder(damaged, tables)
            decoder.symbols(500, 0)
            decoder.finish()


def code(columns: dict[str, np.ndarray], models: dict[str, ChannelModel], tables: Tables) -> bytes:
    encoder = RansEncoder(tables)
    encode_channels(encoder, columns, models, columns)
    return encoder.finish()


def fit_all(columns: dict[str, np.ndarray], candidates, starts=(0,)):
    builder, models = TableBuilder(), {}
    for name in columns:
        models[name], _ = fit_channel(name, columns, candidates.get(name, ()), builder, starts)
    return models, builder.build()


def check(columns, models, tables) -> int:
    data = code(columns, models, tables)
    decoder = RansDecoder(data, tables)
    count = len(next(iter(columns.values())))
    into = {name: np.empty(count, dtype=np.int32) for name in columns}
    decode_channels(decoder, models, {}, into)
    decoder.finish()
    for name, codes in columns.items():
        np.testing.assert_array_equal(into[name], codes)
    return len(data)


def test_contexts_pay_what_the_dependence_is_worth():
    """b = a + noise of 3 values: given a, b has log2(3) bits."""
    rng = np.random.default_rng(2)
    a = rng.integers(-20, 21, 50_000).astype(np.int32)
    b = (a + rng.integers(-1, 2, 50_000)).astype(np.int32)
    columns = {"a": a, "b": b}
    alone = check(columns, *fit_all(columns, {}))
    models, tables = fit_all(columns, {"b": [Context(channels=("a",), weights=(1,))]})
    together = check(columns, models, tables)
    assert models["b"].context is not None
    # 16 tables over 41 values of a: within a bin of about 2.6 values b has about 2.2 bits
    assert together < alone - 50_000 / 8 * 2.8


def test_the_previous_symbol_is_a_context_and_stages_begin_afresh():
    rng = np.random.default_rng(3)
    walk = np.cumsum(rng.integers(-1, 2, 40_000)).astype(np.int32) % 60
    columns = {"a": walk.astype(np.int32)}
    models, tables = fit_all(columns, {}, starts=(0, 10_000))
    assert models["a"].previous
    for part in (slice(0, 10_000), slice(10_000, None)):
        size = check({"a": walk[part]}, models, tables)
        assert size < 8 * len(walk[part]) * 3.6 / 8 / 8 * 1.1  # log2(3) + place within a bin of 4


def test_magnitudes_of_several_channels_are_a_context():
    rng = np.random.default_rng(4)
    energy = rng.random(30_000) < 0.1
    columns = {
        f"c.{i}": np.where(energy, rng.integers(-9, 10, 30_000), 0).astype(np.int32)
        for i in range(4)
    }
    context = Context(channels=("c.0", "c.1", "c.2"), weights=(1, 1, 1), magnitude=True)
    with_context, tables = fit_all(columns, {"c.3": [context]})
    assert with_context["c.3"].context is not None
    alone = check(columns, *fit_all(columns, {}))
    assert check(columns, with_context, tables) < 0.9 * alone


@pytest.mark.parametrize("codes", [[], [5], [-(2**23), 2**23 - 1], [0] * 50, [-7] * 9 + [90_000]])
def test_channels_of_any_range_come_back(codes):
    columns = {"a": np.array(codes, dtype=np.int32)}
    models, tables = fit_all(columns, {})
    check(columns, models, tables)


def test_wide_channels_use_plain_low_bits():
    codes = np.random.default_rng(5).integers(-(10**6), 10**6, 20_000).astype(np.int32)
    columns = {"a": codes}
    models, tables = fit_all(columns, {})
    size = check(columns, models, tables)
    assert models["a"].low_bits >= 9
    assert size <= 20_000 * np.log2(2e6) / 8 * 1.01 + 200
    with pytest.raises(ValueError, match="span"):
        fit_all({"a": np.array([0, 2**24], dtype=np.int32)}, {})


def test_two_codes_that_come_in_runs_take_far_less_than_a_bit_each() -> None:
    """As often the one as the other: a plain bit would cost a whole one."""
    flips = np.random.default_rng(0).random(20_000) < 1 / 20
    columns = {"a.0": (np.cumsum(flips) % 2).astype(np.int32)}
    models, tables = fit_all(columns, {})
    # the entropy of a coin of 1/20, and the four states of the stream
    entropy = -(0.05 * np.log2(0.05) + 0.95 * np.log2(0.95)) * 20_000 / 8
    assert check(columns, models, tables) < 1.1 * entropy + 16
