"""RGB-D fusion: planes with known equations, honoured validity, a real capture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from scene4d.cameras.camera import Camera
from scene4d.data.fusion import fuse_depth, unproject
from scene4d.data.images import ImageCache
from scene4d.data.load import load_scene
from scene4d.data.scene import Frame, Scene, View
from scene4d.data.tsdf import TsdfVolume
from scene4d.errors import DataError, NotEnoughMemoryError

VOXEL = 0.02


class PlaneCapture:
    """Looks down at the plane z = slope x from a row of cameras; the colour tells x and y."""

    def __init__(self, slope: float = 0.4, count: int = 5, test: tuple[int, ...] = ()) -> None:
        self.slope = slope
        self.views = {i: self._view(i, 0.3 * (i - (count - 1) / 2)) for i in range(count)}
        frames = [
            Frame(
                name=f"{i}.png",
                camera=self.views[i].camera,
                image_path=Path(f"{i}.png"),
                depth_path=Path(f"{i}-depth.png"),
            )
            for i in range(count)
        ]
        self.scene = Scene(
            root=Path("plane"),
            dataparser="test",
            frames=frames,
            train_indices=[i for i in range(count) if i not in test],
            test_indices=list(test),
            split_rule="given",
        )

    def view(self, index: int, downscale: int = 1) -> View:
        return self.views[index]

    def change(self, index: int, **fields: torch.Tensor) -> None:
        old = self.views[index]
        self.views[index] = View(
            **{
                "index": index,
                "camera": old.camera,
                "rgb": old.rgb,
                "depth": old.depth,
                "mask": old.mask,
                "alpha": old.alpha,
                **fields,
            }
        )

    def _view(self, index: int, x: float) -> View:
        c2w = torch.eye(4)
        c2w[:3, 3] = torch.tensor([x, 0.1 * index, 2.0])
        K = torch.tensor([[90.0, 0, 43], [0, 95, 27], [0, 0, 1]])
        row, column = torch.meshgrid(torch.arange(60) + 0.5, torch.arange(80) + 0.5, indexing="ij")
        ray_x, ray_y = (column - K[0, 2]) / K[0, 0], -(row - K[1, 2]) / K[1, 1]
        # 2 - depth = slope (x + depth ray_x)
        depth = (2.0 - self.slope * x) / (1 + self.slope * ray_x)
        hit_x, hit_y = x + depth * ray_x, 0.1 * index + depth * ray_y
        rgb = torch.stack([hit_x / 8 + 0.5, hit_y / 8 + 0.5, torch.zeros_like(hit_x)], -1)
        camera = Camera(c2w=c2w, K=K, width=80, height=60)
        return View(index=index, camera=camera, rgb=rgb, depth=depth)


@pytest.mark.parametrize("slope", [0.0, 0.4, -0.4])
def test_points_lie_on_the_plane_and_carry_its_colour(slope: float) -> None:
    capture = PlaneCapture(slope)
    points = fuse_depth(capture.scene, capture, voxel=VOXEL)
    xyz = points.xyz.numpy()
    assert len(xyz) > 1000
    off = xyz[:, 2] - slope * xyz[:, 0]
    assert abs(off).max() < VOXEL
    # half a pixel of shift (0.01 at this distance) would move a sloping plane by 0.004
    assert abs(off.mean()) < 0.002
    expected = np.stack([xyz[:, 0] / 8 + 0.5, xyz[:, 1] / 8 + 0.5], 1)
    colour = points.rgb.numpy()[:, :2] / 255
    # nearest pixel: 0.022 wide there, an eighth of it in colour, and half an 8-bit step
    assert abs(colour - expected).max() < 0.022 / 8 * 1.5 + 0.5 / 255
    assert abs((colour - expected).mean(axis=0)).max() < 0.0015


def test_unprojecting_and_projecting_gives_the_pixels_back() -> None:
    view = PlaneCapture().view(3)
    xyz, _ = unproject(view, view.depth)
    local = xyz @ view.camera.viewmat[:3, :3].T.double() + view.camera.viewmat[:3, 3].double()
    pixel = (local @ view.camera.K.T.double())[:, :2] / local[:, 2:]
    row, column = torch.meshgrid(torch.arange(60), torch.arange(80), indexing="ij")
    expected = torch.stack([column, row], -1).reshape(-1, 2) + 0.5
    # the pose is float32: 1e-7 of 2 units at a focal length of 95
    assert (pixel - expected).abs().max() < 1e-4


def test_what_is_not_measured_masked_or_transparent_is_left_out() -> None:
    capture = PlaneCapture(0.0)
    left = torch.zeros(60, 80, dtype=torch.bool)
    left[:, :40] = True
    for i in range(5):
        wild = torch.where(left, capture.view(i).depth, 0.7)  # a wrong surface, marked as such
        if i == 0:
            capture.change(i, depth=torch.where(left, wild, 0.0))
        elif i == 1:
            capture.change(i, depth=wild, mask=left)
        elif i == 2:
            capture.change(i, depth=wild, alpha=left.float())
        elif i == 3:
            capture.change(i, depth=torch.where(left, wild, torch.nan))
        else:
            capture.change(i, depth=torch.where(left, wild, torch.inf))
    points = fuse_depth(capture.scene, capture, voxel=VOXEL)
    assert len(points.xyz) > 500
    assert points.xyz[:, 2].abs().max() < VOXEL
    edges = [float(v.camera.position[0]) + 2 * (40 - 43) / 90 for v in capture.views.values()]
    assert points.xyz[:, 0].max() < max(edges) + 2 * VOXEL


def test_test_frames_are_never_looked_at() -> None:
    capture = PlaneCapture(0.0, test=(2,))
    del capture.views[2]
    points = fuse_depth(capture.scene, capture, voxel=VOXEL)
    assert len(points.xyz) > 1000


def test_the_number_of_points_can_be_limited() -> None:
    capture = PlaneCapture()
    points = fuse_depth(capture.scene, capture, voxel=VOXEL, max_points=300)
    assert 100 < len(points.xyz) <= 300
    off = points.xyz[:, 2] - capture.slope * points.xyz[:, 0]
    assert off.abs().max() < VOXEL  # means of points of a plane lie in it
    again = fuse_depth(capture.scene, capture, voxel=VOXEL, max_points=300)
    assert torch.equal(points.xyz, again.xyz)
    assert torch.equal(points.rgb, again.rgb)


def test_the_default_voxel_follows_the_depth() -> None:
    capture = PlaneCapture(0.0)
    points = fuse_depth(capture.scene, capture)
    spacing = cKDTree(points.xyz.numpy()).query(points.xyz.numpy(), k=2)[0][:, 1]
    assert 0.005 < np.median(spacing) <= 0.0101  # the median depth, 2, over 200


def test_far_background_is_kept_coarsely() -> None:
    capture = PlaneCapture(0.0)
    for i in range(5):
        depth = capture.view(i).depth.clone()
        depth[:10] = 50.0
        capture.change(i, depth=depth)
    points = fuse_depth(capture.scene, capture, voxel=VOXEL)
    far = points.xyz[:, 2] < -40
    assert far.sum() > 50
    assert (points.xyz[far][:, 2] + 48).abs().max() < 1e-3  # exact: unprojected and averaged


def test_no_depth_at_all_is_an_error() -> None:
    capture = PlaneCapture()
    for i in range(5):
        capture.change(i, depth=torch.zeros(60, 80))
    with pytest.raises(DataError, match="no training frame has a depth measurement"):
        fuse_depth(capture.scene, capture)
    with pytest.raises(DataError, match="voxel size"):
        fuse_depth(PlaneCapture().scene, PlaneCapture(), voxel=-1.0)


def test_a_volume_that_does_not_fit_is_refused_before_it_is_filled() -> None:
    view = PlaneCapture().view(0)
    volume = TsdfVolume(0.005, max_gb=0.05)
    with pytest.raises(NotEnoughMemoryError, match=r"0\.005"):
        volume.integrate(view.camera, view.rgb, view.depth, limit=10.0)


def test_the_volume_does_not_hang_on_the_place_of_the_scene() -> None:
    """UTM coordinates: float32 positions a million units from the origin have steps of 0.06."""
    view = PlaneCapture(0.3).view(2)
    away = torch.eye(4, dtype=torch.float64)
    away[:3, 3] = torch.tensor([500_000.0, 4_000_000.0, 0.0])
    found = []
    for shift in (torch.eye(4, dtype=torch.float64), away):
        c2w = shift @ view.camera.c2w.double()
        volume = TsdfVolume(VOXEL)
        camera = Camera(c2w=c2w, K=view.camera.K.double(), width=80, height=60)
        volume.integrate(camera, view.rgb, view.depth, limit=10.0)
        found.append(volume.mesh()[0] - shift[:3, 3].numpy())
    assert found[0].shape == found[1].shape
    assert abs(found[0] - found[1]).max() < 1e-3 * VOXEL


def test_an_empty_volume_gives_nothing() -> None:
    volume = TsdfVolume(0.1)
    view = PlaneCapture().view(0)
    volume.integrate(view.camera, view.rgb, torch.zeros(60, 80), limit=10.0)
    assert [len(part) for part in (*volume.points(), *volume.mesh())] == [0] * 5


def test_a_real_capture_fuses_to_its_own_depth_and_colours(shared_data: Path) -> None:
    scene = load_scene(shared_data / "rgbd_livingroom")
    indices = list(scene.train_indices)[10:22:2]
    images = ImageCache(scene, downscale_factor=4, indices=indices)
    part = Scene(**{**vars(scene), "train_indices": indices, "test_indices": []})
    voxel = 0.02
    points = fuse_depth(part, images, voxel=voxel)
    xyz = points.xyz.numpy()
    direct = torch.cat([unproject(images.view(i), images.view(i).depth)[0] for i in indices])
    # poses from reconstruction, depth in millimetres: a voxel, two at the edges of things
    assert (
        np.percentile(cKDTree(direct.numpy()).query(xyz)[0], [50, 95]) < (voxel, 2 * voxel)
    ).all()
    assert np.percentile(cKDTree(xyz).query(direct.numpy())[0], 90) < 2 * voxel
    view = images.view(indices[2])
    local = points.xyz @ view.camera.viewmat[:3, :3].T + view.camera.viewmat[:3, 3]
    pixel = (local @ view.camera.K.T)[:, :2] / local[:, 2:]
    column, row = pixel.floor().long().unbind(-1)
    seen = (local[:, 2] > 0) & (column >= 0) & (column < 160) & (row >= 0) & (row < 120)
    column, row = column[seen], row[seen]
    visible = (view.depth[row, column] - local[seen][:, 2]).abs() < voxel
    assert visible.sum() > 1000
    error = (view.rgb[row, column] - points.rgb[seen] / 255)[visible].abs().mean(dim=-1)
    shifted = (view.rgb.flip(1)[row, column] - points.rgb[seen] / 255)[visible].abs().mean(dim=-1)
    assert error.median() < 0.04  # exposure and shading between views
    assert error.median() < 0.3 * shifted.median()  # a mirrored picture would not agree
