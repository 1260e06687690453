"""What lies on the image's edges, at every size from 1 to 70 pixels, against the reference."""

from __future__ import annotations

import pytest
import torch

from scene4d.rendering.splats.compositing import composite
from scene4d.rendering.splats.rasterization import rasterize
from scene4d.rendering.splats.reference import composite_reference

SIZES = range(1, 71)
FLOAT32_SUMS = 5e-6
"""Products of some forty transmittances, rounded to float32 each."""


def on_the_edges(width: int, height: int, *, seed: int, n: int = 48) -> list[torch.Tensor]:
    """Arguments of ``composite``: ellipses whose centres lie within 3 px of the four edges."""
    rng = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(*shape, generator=rng)

    side = torch.arange(n) % 4
    along, away = uniform(n, low=0, high=1), uniform(n, low=-3, high=3)
    x = torch.stack([away, width + away, along * width, along * width]).gather(0, side[None])[0]
    y = torch.stack([along * height, along * height, away, height + away]).gather(0, side[None])[0]
    sx, sy = uniform(n, low=0.55, high=2.5), uniform(n, low=0.55, high=2.5)
    xy = uniform(n, low=-0.8, high=0.8) * sx * sy
    det = (sx * sy).square() - xy.square()
    conics = torch.stack([sy.square(), -xy, sx.square()], dim=-1) / det[:, None]
    radii = torch.stack([(3.33 * sx).ceil(), (3.33 * sy).ceil()], dim=-1).int()
    parts = (
        torch.stack([x, y], dim=-1), conics, uniform(n, 3, low=0, high=1),
        uniform(n, low=0.02, high=0.6), uniform(n, low=1, high=2), radii,
    )  # fmt: skip
    return [part[None] for part in parts]


@pytest.mark.parametrize("other", [16, 21])
def test_every_size_shows_on_its_edges_what_the_reference_shows(other: int) -> None:
    for size in SIZES:
        for width, height in ((size, other), (other, size)):
            splats = on_the_edges(width, height, seed=size)
            _, alphas = composite(*splats, None, width=width, height=height)
            _, wanted = composite_reference(*splats, None, width=width, height=height)
            worst = float((alphas - wanted).abs().max())
            assert worst < FLOAT32_SUMS, f"{width} x {height}: {worst}"


@pytest.mark.parametrize("height", [15, 16, 17, 48, 64])
def test_a_picture_that_ends_between_gaussians_is_drawn_to_its_last_row(random_scene, height):
    for left in (0, 7):  # the whole picture, and a crop whose principal point lies elsewhere
        scene = random_scene(seed=height, width=40, height=height, dtype=torch.float32)
        scene["Ks"][:, 0, 2] -= left
        kwargs = {"width": 40 - left, "height": height}
        image, alphas, _ = rasterize(**scene, **kwargs, backend="numba")
        wanted, wanted_alphas, _ = rasterize(**scene, **kwargs, backend="reference")
        # A Gaussian within rounding of alpha = 1/255 may count in one and not in the other.
        assert float((alphas - wanted_alphas).abs().max()) < 1 / 255 + 1e-4
        assert float((image - wanted).abs().max()) < 2 / 255
