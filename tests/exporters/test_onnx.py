"""Light slabs as ONNX models: what they hold. test_runtimes.py runs them."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")

from exporters.test_light_slab import FOCAL, random_slabs

from scene4d.exporters.field_models import METADATA
from scene4d.exporters.onnx import decoder_model


def test_the_model_says_how_rays_become_coordinates() -> None:
    model = decoder_model(random_slabs())
    properties = {p.key: p.value for p in model.metadata_props}
    structure = json.loads(properties[METADATA])
    assert structure["focal"] == FOCAL and len(structure["slabs"]) == 2
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    known = {"Conv", "Relu", "Add", "DepthToSpace", "Slice", "Concat", "Split", "Sigmoid"}
    assert {node.op_type for node in model.graph.node} <= known
