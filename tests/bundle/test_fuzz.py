"""Some hundred damaged bundles; benchmarks/fuzz_bundle.py reads thousands."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz_bundle.py"


def test_damaged_bundles_are_read_or_refused_within_time_and_memory(tmp_path):
    spec = importlib.util.spec_from_file_location("fuzz_bundle", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    told = module.fuzz(200, 1, tmp_path)
    # The mutations reach past the first check: many different refusals, and some are harmless.
    assert sum(told.values()) == 200 and told["read"] > 3 and len(told) > 20
