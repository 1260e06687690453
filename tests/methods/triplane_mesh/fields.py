"""Small triplane fields that tests share."""

from __future__ import annotations

from dataclasses import replace

import torch

from scene4d.methods.triplane_mesh.triplane_mesh import Settings, TriplaneMesh
from scene4d.representations.triplane_field import TriplaneShape

SETTINGS = Settings(
    centre=(0.1, -0.2, 0.05), half=1.5,
    shape=TriplaneShape(resolutions=(8, 17), channels=4, neurons=16, bends_cubes=True),
    grid=24, mesh_from=0.5, shape_from=0.05, rays=64, pictures=4, march_steps=64,
    first_blur=0.1, last_blur=0.05, planes_lr=0.01, networks_lr=0.002, texture_size=256,
)  # fmt: skip


def a_mesh(*, strength: float = 0.03, **changes) -> TriplaneMesh:
    """A ball with bumps and colours."""
    made = TriplaneMesh(replace(SETTINGS, **changes), generator=torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        made.table.add_(strength * torch.randn(made.table.shape, generator=g))
        for network, size in ((made.networks.colour, 1.0), (made.networks.bend, 0.1)):
            if network is not None:
                last = network.weights[-1]
                last.copy_(size * torch.randn(last.shape, generator=g))
    return made
