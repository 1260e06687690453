"""Every representation, the example plugin included, held to one contract."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from methods.dynamic_field.test_field import a_field, camera_at
from methods.lightslab.test_bundle_parts import camera as slab_camera
from methods.lightslab.test_bundle_parts import field_with_mpi, random_slabs, smooth_mpi
from methods.lpgs.test_parent_child import STRUCTURES, camera, splats, trained
from methods.mesh.meshes import camera_on_circle, globe
from methods.mobile_r2l.test_mobile_r2l import a_camera, small
from methods.triplane_mesh.fields import a_mesh
from torch import Tensor, nn

from scene4d.cameras.camera import Camera
from scene4d.methods.mesh.textured_mesh import TexturedMesh
from scene4d.rendering.render import RGB, Render, Want
from scene4d.representations.base import Representation
from scene4d.representations.contract import check_representation

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def voxels():
    from voxel_grid import VoxelGrid

    values = torch.randn(4, 9, 9, 9, generator=torch.Generator().manual_seed(0))
    values[0] += 3
    box = torch.full((3,), 1.5)
    return VoxelGrid(values, -box, box, 0.1)


# Splatting clamps where a Gaussian's projection is linearised, by the picture's edges: large ones
# beyond a crop's edge look a little otherwise than in the whole picture. And they come and go in
# steps, where they are too faint to be drawn: the slope is theirs up to that.
SPLATTED = {"atol": 0.02, "pose_rtol": 0.2}
# Representation, camera, distance to the content, and what its rendering needs.
CASES = {
    "splats": lambda: (splats(200), camera(64), 6.0, SPLATTED),
    "lpgs": lambda: (trained(STRUCTURES["families"]), camera(64), 6.0, SPLATTED),
    # The decoder's blocks start at multiples of 8 pixels.
    "lightslab": lambda: (  # bilinear, so with kinks between the finite difference's ends
        random_slabs(slabs=1, opaque=False), slab_camera(), 3.0, {"align": 8, "pose_rtol": 0.2},
    ),
    "lightslab with MPIs": lambda: (field_with_mpi(1), slab_camera(), 3.0, {"align": 8}),
    "lightslab, several slabs": lambda: (
        random_slabs(slabs=3, opaque=False), slab_camera(), 3.0, {"align": 8, "pose_rtol": 0.2},
    ),
    # Its blocks go on from one to the next: where one is missing the picture jumps.
    "lightslab, several slabs with MPIs": lambda: (
        field_with_mpi(3, mpi=smooth_mpi(3)), slab_camera(), 3.0, {"align": 8},
    ),
    "mobile-r2l": lambda: (small(), a_camera(width=64, height=64), 3.0, {"align": 8}),
    "dynamic-field": lambda: (a_field(strength=0.5), camera_at(size=16), 5.0, {}),
    # Fog, then a mesh. Of rough planes parts of rays are long, and move with the camera.
    "triplane-mesh": lambda: (
        a_mesh(strength=0.01), camera_on_circle(0.4, size=64), 4.0, {"pose_rtol": 0.2},
    ),
    "voxels": lambda: (voxels(), a_camera(), 3.0, {}),
    # From the side where the texture has no seam: colours that jump there have no slope.
    "textured mesh": lambda: (
        TexturedMesh(globe(24)), camera_on_circle(3.1), 3.0, {"pose_rtol": 0.2},
    ),
}  # fmt: skip


@pytest.mark.parametrize("progress", [0.1, 0.9])
@pytest.mark.parametrize("name", CASES)
def test_it_holds_for_every_method(
    name: str, progress: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    representation, seen_from, distance, options = CASES[name]()
    representation.on_progress(progress)
    check_representation(representation, seen_from, distance=distance, **options)


class Broken(Representation):
    """A picture of a plane wave that breaks one rule."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault = fault
        self.waves = nn.Parameter(torch.tensor([1.3, 0.7, 2.1]))
        self.register_buffer("last", torch.zeros(()))

    def render(
        self, camera: Camera, *, background: Tensor | None = None, want: Want = RGB
    ) -> Render:
        batch = camera.c2w.shape[:-2]
        x = torch.arange(camera.width) + 0.5 - camera.K[..., 0, 2, None]
        y = torch.arange(camera.height) + 0.5 - camera.K[..., 1, 2, None]
        place = (camera.c2w[..., 0, 3, None] + 0.02 * x)[..., None, :] + 0.01 * y[..., :, None]
        rgb = torch.sin(place[..., None] * self.waves) * 0.4 + 0.5
        if self.fault == "gradients" and torch.is_grad_enabled():
            rgb = rgb * 1.01
        if self.fault == "memory":
            rgb = rgb + self.last
            self.last = camera.K[..., 0, 0].mean() * 1e-3
        if self.fault == "writes":
            self.last = self.last + 1
        if self.fault == "batch" and batch:
            rgb = rgb - rgb.mean() + 0.5
        if self.fault == "crop":
            rgb = rgb * torch.linspace(0.9, 1, camera.height)[:, None, None]
        if self.fault == "pose":
            rgb = rgb.detach() + 0 * camera.c2w[..., 0, 3, None, None, None] * self.waves
        return Render(rgb=rgb, alpha=rgb.new_ones(rgb.shape[:-1]))

    def parameter_groups(self):
        return []

    def plain_data(self):
        return {"fault": self.fault}

    @classmethod
    def from_saved(cls, tensors, plain):
        made = cls(plain["fault"])
        if plain["fault"] != "saved":
            made.load_state_dict(dict(tensors))
        else:
            made.waves = nn.Parameter(torch.tensor([1.3, 0.7, 2.2]))
        return made


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("gradients", "with gradients"),
        ("memory", "changes by rendering|with gradients"),
        ("writes", "writes last"),
        ("batch", "of a batch"),
        ("crop", "of a crop"),
        ("saved", "saving"),
        ("pose", "the pose's gradient"),
    ],
)
def test_what_breaks_it_is_named(fault: str, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        check_representation(Broken(fault), a_camera(), distance=3.0)


def test_a_plane_wave_keeps_it() -> None:
    check_representation(Broken(), a_camera(), distance=3.0)
