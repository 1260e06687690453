"""Networks and encodings behind their interfaces, and tiny-cuda-nn's configurations."""

import pytest
import torch

from scene4d.errors import UsageError
from scene4d.rendering.fields.hash_grid import GridShape, HashGrid
from scene4d.rendering.fields.networks import (
    Encoding,
    Mlp,
    MlpShape,
    Network,
    fused_unavailable_reason,
    grid_from_config,
    harmonics,
    packed_weights,
)


def test_a_network_is_layers_with_relu_between():
    shape = MlpShape(inputs=5, outputs=3, neurons=8, hidden_layers=2)
    network = Mlp(shape, generator=torch.Generator().manual_seed(0))
    assert isinstance(network, Network) and network.outputs == 3
    features = torch.randn(11, 5, generator=torch.Generator().manual_seed(1))
    first, second, last = network.weights
    expected = torch.relu(torch.relu(features @ first.T) @ second.T) @ last.T
    torch.testing.assert_close(network(features), expected)
    assert network(features[:0]).shape == (0, 3)


def test_hash_grids_are_encodings():
    grid = HashGrid(GridShape(resolutions=(4,), rows=(125,), features=2))
    assert isinstance(grid, Encoding) and grid.width == 2


def test_configurations_of_tiny_cuda_nn_are_understood():
    config = {"otype": "FullyFusedMLP", "activation": "ReLU", "output_activation": "None",
              "n_neurons": 64, "n_hidden_layers": 2}  # fmt: skip
    shape = MlpShape.from_config(config, inputs=7, outputs=4)
    assert shape.sizes == ((64, 7), (64, 64), (4, 64))
    grid = grid_from_config({"otype": "HashGrid", "n_levels": 4, "n_features_per_level": 2,
                             "log2_hashmap_size": 12, "base_resolution": 8,
                             "per_level_scale": 2.0})  # fmt: skip
    assert grid.resolutions == (8, 16, 32, 64) and grid.rows == (729, 4096, 4096, 4096)


@pytest.mark.parametrize(
    "config",
    [
        {"otype": "FullyFusedMLP", "activation": "Sine"},
        {"otype": "FullyFusedMLP", "n_neuron": 64},
        {"otype": "Composite"},
    ],
)
def test_configurations_that_cannot_be_are_refused_by_name(config):
    with pytest.raises(UsageError, match=r"Sine|n_neuron|Composite"):
        MlpShape.from_config(config, inputs=3, outputs=3)
    with pytest.raises(UsageError, match=r"activation|n_neuron|Composite"):
        grid_from_config(config)


def test_weights_are_packed_in_rows_padded_to_sixteen():
    shape = MlpShape(inputs=5, outputs=3, neurons=16)
    network = Mlp(shape, generator=torch.Generator().manual_seed(0))
    packed = packed_weights(shape, list(network.weights))
    assert packed.shape == (16 * 16 + 16 * 16,)
    first, last = packed[:256].view(16, 16), packed[256:].view(16, 16)
    assert torch.equal(first[:, :5], network.weights[0]) and not first[:, 5:].any()
    assert torch.equal(last[:3], network.weights[1]) and not last[3:].any()


def test_without_a_gpu_the_fused_kernels_say_why_not():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert "cuda" in fused_unavailable_reason()


def test_harmonics_are_orthogonal_on_the_sphere():
    """Gauss-Legendre in z, evenly in the angle: exact for the products' degree, 6."""
    import numpy as np

    z, weights = np.polynomial.legendre.leggauss(8)
    angle = torch.arange(16) * (2 * torch.pi / 16)
    z, w = torch.tensor(z), torch.tensor(weights) / 32
    ring = (1 - z**2).sqrt()
    directions = torch.stack(
        [ring[:, None] * angle.cos(), ring[:, None] * angle.sin(), z[:, None].expand(8, 16)], -1
    )
    values = harmonics(directions.reshape(-1, 3))
    gram = values.T @ (values * w.repeat_interleave(16)[:, None])
    assert (gram.diagonal() > 0.05).all()
    assert (gram - gram.diagonal().diag()).abs().max() < 1e-7  # float32 angles
