"""Light slabs as ONNX models: what they hold. test_runtimes.py runs them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from methods.lightslab.test_bundle_parts import FOCAL, field_with_mpi, random_slabs
from optional_packages import import_or_skip

from scene4d.methods.lightslab.runtimes.models import METADATA
from scene4d.methods.lightslab.runtimes.onnx import decoder_model, whole_model

import_or_skip("onnx", reason="the extra 'onnx' is not installed")


def test_the_model_says_how_rays_become_coordinates() -> None:
    model = decoder_model(random_slabs())
    properties = {p.key: p.value for p in model.metadata_props}
    structure = json.loads(properties[METADATA])
    assert structure["focal"] == FOCAL and len(structure["slabs"]) == 2
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    known = {"Conv", "Relu", "Add", "DepthToSpace", "Slice", "Concat", "Split", "Sigmoid"}
    assert {node.op_type for node in model.graph.node} <= known


def test_with_mpis_the_decoder_half_has_no_sigmoid_and_says_so() -> None:
    model = decoder_model(field_with_mpi())
    (metadata,) = (p.value for p in model.metadata_props if p.key == METADATA)
    assert json.loads(metadata)["mpi"]["columns"] == 32
    assert not any(node.op_type == "Sigmoid" for node in model.graph.node)


@pytest.mark.parametrize("slabs", [1, 5])
def test_the_mpis_are_one_atlas_of_bytes(slabs: int) -> None:
    from onnx import numpy_helper

    scene = field_with_mpi(slabs=slabs)
    model = whole_model(scene)
    tensors = [numpy_helper.to_array(t) for t in model.graph.initializer]
    (atlas,) = (t for t in tensors if t.dtype == np.uint8)
    assert atlas.shape == (1, 4, 9, 256 * 9)
    (index,) = (t for t in tensors if t.dtype == np.int32)
    assert scene.mpi is not None
    assert len(index) == scene.mpi.stored.numel() and index.max() == scene.mpi.num_blocks
    used = {name for node in model.graph.node for name in node.input}
    assert {t.name for t in model.graph.initializer} <= used
    (rays,) = (i for i in model.graph.input if i.name == "rays")
    shape = [d.dim_param or d.dim_value for d in rays.type.tensor_type.shape.dim]
    assert shape == [min(slabs, 3), 6 if slabs == 1 else 7, "height", "width"]
    assert [o.name for o in model.graph.output] == ["rgba", "distance"]
