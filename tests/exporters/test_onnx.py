"""Light slabs in ONNX Runtime against torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from exporters.test_light_slab import FOCAL, camera, random_slabs, source  # noqa: E402

from scene4d.errors import UsageError  # noqa: E402
from scene4d.exporters.light_slab import decoded_maps  # noqa: E402
from scene4d.exporters.onnx import METADATA, decoder_model, export, ray_inputs  # noqa: E402
from scene4d.exporters.source import ExportSource  # noqa: E402
from scene4d.representations.splats.gaussians import GaussianSplats  # noqa: E402

# float32 through about ten layers whose sums are taken in other orders
TOLERANCE = 1e-4


def session(model: bytes | str):
    return runtime.InferenceSession(model, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("samples", [1, 2, 4])
@pytest.mark.parametrize("slabs", [1, 3])
def test_both_models_give_what_torch_gives(samples: int, slabs: int, tmp_path: Path) -> None:
    scene = random_slabs(slabs=slabs, samples=samples)
    told = export(source(scene), tmp_path / "a.onnx")
    assert "a.decoder.onnx" in told
    whole = session(str(tmp_path / "a.onnx"))
    half = session(str(tmp_path / "a.decoder.onnx"))
    for view in (camera(), camera(17, 9)):  # one model for pictures of any size
        coordinates, weights, _ = ray_inputs(scene, view)
        inputs = {"coordinates": coordinates.numpy(), "weights": weights.numpy()}
        rgba, z = (torch.from_numpy(v)[0] for v in whole.run(["rgba", "z"], inputs))
        maps = decoded_maps(scene, view)
        expected = torch.stack([maps[name] for name in "rgba"])
        cut = (..., slice(view.height), slice(view.width))
        torch.testing.assert_close(rgba[cut], expected, rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(z[cut][0], maps["z"], rtol=TOLERANCE, atol=TOLERANCE)

    features = torch.randn(1, scene.decoder.shape.inputs, 5 * samples, 4 * samples)
    with torch.no_grad():
        raw = scene.decoder(features.permute(0, 2, 3, 1))[0]
    raw[3] += 3.0  # training starts opaque
    rgba, z = (
        torch.from_numpy(v)[0] for v in half.run(["rgba", "z"], {"features": features.numpy()})
    )
    assert rgba.shape == (4, 24, 16)  # 5 x 4 rays of 8 x 8 pixels, the outermost cut
    torch.testing.assert_close(rgba, torch.sigmoid(raw[:4]), rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(z, raw[4:], rtol=TOLERANCE, atol=TOLERANCE)


def test_the_model_says_how_rays_become_coordinates() -> None:
    model = decoder_model(random_slabs())
    properties = {p.key: p.value for p in model.metadata_props}
    structure = json.loads(properties[METADATA])
    assert structure["focal"] == FOCAL and len(structure["slabs"]) == 2
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    known = {"Conv", "Relu", "Add", "DepthToSpace", "Slice", "Concat", "Split", "Sigmoid"}
    assert {node.op_type for node in model.graph.node} <= known


def test_splats_are_refused(tmp_path: Path) -> None:
    splats = GaussianSplats(
        {
            "means": torch.zeros(1, 3), "quats": torch.ones(1, 4), "scales": torch.zeros(1, 3),
            "opacities": torch.zeros(1), "sh0": torch.zeros(1, 1, 3), "shN": torch.zeros(1, 0, 3),
        }
    )  # fmt: skip
    with pytest.raises(UsageError, match="light fields alone"):
        export(ExportSource(path=Path("run"), representation=splats), tmp_path / "a.onnx")
