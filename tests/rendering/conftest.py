"""Random Gaussians and cameras for the rasteriser's tests."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

Scene = dict[str, Tensor]


def _look_at_origin(distance: float, turn: Tensor) -> Tensor:
    """World-to-camera: a random small rotation, then ``distance`` along the axis."""
    viewmat = torch.eye(4, dtype=turn.dtype)
    x, y, z = turn
    skew = torch.stack(
        [torch.stack([0 * x, -z, y]), torch.stack([z, 0 * x, -x]), torch.stack([-y, x, 0 * x])]
    )
    viewmat[:3, :3] = torch.linalg.matrix_exp(skew)
    viewmat[2, 3] = distance
    return viewmat


def make_scene(
    seed: int = 0,
    *,
    num: int = 60,
    cameras: int = 2,
    sh_degree: int | None = None,
    width: int = 40,
    height: int = 28,
    dtype: torch.dtype = torch.float64,
) -> Scene:
    """Everything ``rasterization`` takes, in float64 first so that other dtypes see the same."""
    g = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    colors = rand(num, 3) if sh_degree is None else 0.4 * randn(num, (sh_degree + 1) ** 2, 3)
    intrinsics = torch.zeros(cameras, 3, 3, dtype=torch.float64)
    intrinsics[:, 0, 0] = 0.9 * width + 3 * rand(cameras)
    intrinsics[:, 1, 1] = 0.9 * width + 3 * rand(cameras)
    # Principal points well off the centre.
    intrinsics[:, 0, 2] = width * (0.3 + 0.4 * rand(cameras))
    intrinsics[:, 1, 2] = height * (0.3 + 0.4 * rand(cameras))
    intrinsics[:, 2, 2] = 1
    scene = {
        "means": randn(num, 3) * 0.8,
        "quats": randn(num, 4),
        "scales": 0.03 + 0.2 * rand(num, 3),
        "opacities": 0.05 + 0.9 * rand(num),
        "colors": colors,
        "viewmats": torch.stack([_look_at_origin(3.0, 0.3 * randn(3)) for _ in range(cameras)]),
        "Ks": intrinsics,
        "backgrounds": rand(cameras, 3),
    }
    # What float32 rounds is rounded once, so that all back ends get the same numbers.
    return {name: t.float().to(dtype) for name, t in scene.items()}


@pytest.fixture(scope="session")
def random_scene() -> Callable[..., Scene]:
    return make_scene
