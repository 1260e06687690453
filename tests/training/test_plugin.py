"""Adding a representation costs one module and one entry point: the example proves it."""

import json
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from scene4d.training import methods
from scene4d.training.options import TrainOptions
from scene4d.training.run import load_run
from scene4d.training.train import start

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def voxels(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    entry = EntryPoint("voxels", "voxel_grid:VoxelMethod", methods.GROUP)
    monkeypatch.setattr(methods, "entry_points", lambda group: [entry])
    yield methods.load_method("voxels")
    sys.modules.pop("voxel_grid", None)


def test_a_plugin_trains_saves_and_loads_without_a_change_elsewhere(voxels, tiny_capture, tmp_path):
    run = start(
        voxels(steps=120, resolution=32, coarsest_downscale=2),
        TrainOptions(data=tiny_capture, output_dir=tmp_path, device="cpu", evaluate=False),
    )
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    psnrs = [row["psnr"] for row in rows if "psnr" in row]
    # Fog learns at least the outline and mean colours within 120 steps.
    assert sum(psnrs[-4:]) / 4 > psnrs[0] + 4.0
    loaded = load_run(run)
    assert type(loaded.representation).__name__ == "VoxelGrid"
    assert loaded.representation.render(loaded.cameras.test[0]).rgb.shape == (48, 48, 3)
