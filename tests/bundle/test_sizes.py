"""What ``scene4d info`` and ``scene4d validate`` say about the conformance bundles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scene4d.bundle.coding import decode_scene
from scene4d.bundle.container import open_bundle
from scene4d.bundle.sizes import array_bits, attribute_sizes, part_sizes
from scene4d.bundle.tables import Tables
from scene4d.cli.main import main

GOOD = Path(__file__).resolve().parents[2] / "mobile_export" / "conformance" / "good"
BAD = GOOD.parent / "bad"
BUNDLES = sorted(GOOD.glob("*.s4d"))


@pytest.mark.parametrize("path", BUNDLES, ids=lambda p: p.stem)
def test_parts_make_up_the_file(path):
    parts = part_sizes(open_bundle(path))
    assert sum(parts.values()) == path.stat().st_size
    assert all(size >= 0 for size in parts.values())


@pytest.mark.parametrize("path", BUNDLES, ids=lambda p: p.stem)
def test_lengths_of_codes_are_those_of_the_streams(path):
    bundle = open_bundle(path)
    decoded = decode_scene(bundle)
    tables = Tables.from_bytes(bundle.read(bundle.manifest["tables"]))
    bits = sum(array_bits(decoded.arrays, decoded.stage_points, tables).values())
    streams = [s for stage in bundle.manifest["stages"] for s in stage["streams"] if "arrays" in s]
    # A stream begins with 16 bytes of states, of which 8 hold codes; each of the four states
    # is a number between 2^16 and 2^32, so that up to 2 bytes of it, either way, are codes.
    coded = sum(s["length"] - 16 for s in streams)
    assert -8 * len(streams) <= bits / 8 - coded <= 8 * len(streams) + 0.002 * coded


def test_each_attribute_has_its_error():
    sizes = {s.name: s for s in attribute_sizes(open_bundle(GOOD / "sh3_two_stages.s4d"))}
    assert next(iter(sizes)) == "positions" and {"dc", "sh", "log_scales"} < set(sizes)
    for size in sizes.values():
        assert 0 <= size.rms_error <= size.max_error
    # Plain rounding: nearest within half a step; three digits are stored.
    assert sizes["log_scales"].max_error <= 1.01 * sizes["log_scales"].half_step


def test_info_tells_parts_attributes_and_errors(capsys):
    path = GOOD / "lpgs_family.s4d"
    assert main(["info", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["bundle_kind"], told["parents"], told["num_gaussians"]) == ("lpgs", 50, 135)
    assert sum(part["bytes"] for part in told["parts"]) == path.stat().st_size
    network = next(a for a in told["attributes"] if a["name"] == "network")
    # Weights have 1023 levels; rounding to the nearest is off by half a step, evenly spread.
    assert network["max_error"] <= 1.01 * network["half_step"]
    assert network["rms_error"] == pytest.approx(network["half_step"] / 3**0.5, rel=0.5)
    assert main(["info", str(path)]) == 0
    text = capsys.readouterr().out
    assert "half step" in text and "stage 1: positions" in text


def test_validate_reads_a_family_down_to_its_gaussians(capsys):
    assert main(["validate", str(GOOD / "lpgs_family.s4d")]) == 0
    assert "kind lpgs" in capsys.readouterr().out
    assert main(["validate", str(BAD / "lpgs_hidden_lies.s4d")]) == 1
    told = capsys.readouterr()
    assert "layer 'token'" in told.out and "1 fault" in told.err
