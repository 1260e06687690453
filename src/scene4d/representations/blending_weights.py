"""How much of pictures each Gaussian makes up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.rendering.splats.rasterization import rasterization
from scene4d.representations.gaussians import NEAR_SHARE, GaussianSplats


def largest_weights(splats: GaussianSplats, cameras: Sequence[Camera]) -> Float[Tensor, " n"]:
    """How much of the pictures at ``cameras`` each Gaussian makes up: its blending weights, added
    over all pixels; without cameras, its opacity times its area.

    A weight is the derivative of the pixel in the Gaussian's colour.
    """
    if not cameras:
        areas = splats.stds.sort(dim=-1).values[:, 1:].prod(dim=-1)
        return (splats.alphas * areas).detach()
    means, quats, stds, alphas = (
        value.detach() for value in (splats.means, splats.quats, splats.stds, splats.alphas)
    )
    total = torch.zeros_like(alphas)
    for camera in cameras:
        colour = torch.zeros(len(means), 1, device=means.device, requires_grad=True)
        with torch.enable_grad():
            picture, _, _ = rasterization(
                means,
                quats,
                stds,
                alphas,
                colour,
                camera.viewmat[None],
                camera.K[None],
                camera.width,
                camera.height,
                near_plane=NEAR_SHARE * splats.extent,
                rasterize_mode="antialiased" if splats.antialiased else "classic",
            )
            (weights,) = torch.autograd.grad(picture.sum(), colour)
        total += weights[:, 0]
    return total
