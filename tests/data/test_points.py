import io
import math
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from scene4d.cameras.camera import Camera
from scene4d.data.load import load_scene
from scene4d.data.points import (
    find_focus,
    random_points,
    read_points,
    seen_by_enough,
    visible_from,
)
from scene4d.data.scene import Frame, Scene
from scene4d.errors import DataError


def pose(position, direction) -> torch.Tensor:
    """Camera-to-world at ``position``, looking along ``direction``."""
    back = -np.asarray(direction, float) / np.linalg.norm(direction)
    helper = [0.0, 1.0, 0.0] if abs(back[1]) < 0.9 else [1.0, 0.0, 0.0]
    right = np.cross(helper, back)
    right /= np.linalg.norm(right)
    c2w = np.eye(4)
    c2w[:3] = np.stack([right, np.cross(back, right), back, np.asarray(position, float)], 1)
    return torch.from_numpy(c2w).float()


def camera(position, direction, focal=40.0) -> Camera:
    K = torch.tensor([[focal, 0.0, 20.0], [0.0, focal, 15.0], [0.0, 0.0, 1.0]])
    return Camera(c2w=pose(position, direction), K=K, width=40, height=30)


def scene(cameras, tmp_path, **other) -> Scene:
    """Frames without files: points come out grey."""
    frames = [
        Frame(name=f"{i}.png", camera=c, image_path=tmp_path / f"{i}.png")
        for i, c in enumerate(cameras)
    ]
    return Scene(
        root=tmp_path,
        dataparser="test",
        frames=frames,
        train_indices=range(len(frames)),
        test_indices=(),
        split_rule="none",
        **other,
    )


def ring(radius=3.0, count=12, centre=(1.0, 2.0, 3.0)):
    centre = np.array(centre)
    for i in range(count):
        a = 2 * math.pi * i / count
        offset = radius * np.array([math.cos(a), 0.3, math.sin(a)])
        yield camera(centre + offset, -offset)


def grid(direction=(0.0, 0.0, -1.0)):
    return [camera((0.1 * i, 0.1 * j, 0.0), direction) for i in range(5) for j in range(4)]


def test_focus_of_a_ring():
    focus = find_focus(list(ring()))
    torch.testing.assert_close(focus.point, torch.tensor([1.0, 2.0, 3.0]), atol=1e-4, rtol=0)
    assert focus.distance == pytest.approx(3 * math.hypot(1, 0.3), rel=1e-4)


def test_no_focus_for_parallel_or_outward_cameras():
    assert find_focus(grid()) is None
    outward = [
        camera((math.cos(a), 0, math.sin(a)), (math.cos(a), 0, math.sin(a))) for a in range(6)
    ]
    assert find_focus(outward) is None
    assert find_focus([camera((0, 0, 0), (0, 0, -1))]) is None


def test_visible_pixels():
    seen, pixel = visible_from(
        torch.tensor([[0.0, 0.0, -2.0], [0.0, 0.0, 2.0], [9.0, 0.0, -2.0], [0.49, 0.0, -2.0]]),
        camera((0, 0, 0), (0, 0, -1)),
    )
    assert seen.tolist() == [True, False, False, True]
    assert pixel[0].tolist() == [20, 15] and pixel[3].tolist() == [29, 15]


def test_points_around_a_focus(tmp_path):
    points = random_points(scene(list(ring()), tmp_path), 2000, seed=3)
    away = (points.xyz - torch.tensor([1.0, 2.0, 3.0])).norm(dim=1)
    distance = 3 * math.hypot(1, 0.3)
    # The ball that a camera of 40 x 30 px at 40 px focal length sees in full.
    radius = distance * math.sin(math.atan(15 / 40))
    assert len(points.xyz) == 2000
    assert 0.5 <= (away <= radius + 1e-4).float().mean() < 0.9
    assert away.max() > 2 * distance  # and a background behind it
    assert points.rgb.unique().tolist() == [128]


def test_points_between_stated_bounds(tmp_path):
    cameras = grid()
    points = random_points(scene(cameras, tmp_path, bounds=(2.0, 8.0)), 3000)
    depth = -points.xyz[:, 2]
    assert depth.min() >= 2 - 1e-4 and depth.max() <= 8 + 1e-4
    # Log-uniform: half of them before 4. A binomial of 3000 has a standard deviation of 0.01;
    # the test for two cameras takes a few more of the near ones.
    assert 0.4 < (depth < 4).float().mean() < 0.55
    assert seen_by_enough(points.xyz, cameras).all()


def test_points_of_parallel_cameras_without_bounds(tmp_path):
    cameras = grid()
    made = scene(cameras, tmp_path)
    points = random_points(made, 2000)
    depth = -points.xyz[:, 2]
    assert seen_by_enough(points.xyz, cameras).all()
    assert depth.min() > made.extent and depth.max() <= 50 * made.extent * (1 + 1e-4)


def test_same_seed_same_points(tmp_path):
    made = scene(list(ring()), tmp_path)
    assert torch.equal(random_points(made, 100, seed=1).xyz, random_points(made, 100, seed=1).xyz)
    assert not torch.equal(
        random_points(made, 100, seed=1).xyz, random_points(made, 100, seed=2).xyz
    )


def test_single_camera_still_gets_points(tmp_path):
    made = scene([camera((0, 0, 0), (0, 0, -1))], tmp_path)
    assert len(random_points(made, 50).xyz) == 50


def test_cameras_that_share_nothing(tmp_path):
    apart = [camera((0, 0, 0), (0, 0, -1)), camera((0, 0, 1), (0, 0, 1))]
    with pytest.raises(DataError, match="no position is seen by two"):
        random_points(scene(apart, tmp_path), 50)


@pytest.mark.parametrize("masked", [False, True])
def test_outlines_carve_and_colours_are_those_of_the_pictures(masked, tmp_path):
    """A red ball of radius 0.5, drawn into every picture with transparent surroundings, or with
    others that masks leave out."""
    made = scene(list(ring(count=10)), tmp_path)
    frames = []
    centre = torch.tensor([1.0, 2.0, 3.0])
    for frame in made.frames:
        rays = _rays(frame.camera)
        across = (centre - rays.origins) - (
            ((centre - rays.origins) * rays.directions).sum(-1, keepdim=True) * rays.directions
        )
        inside = across.norm(dim=-1) < 0.5
        pixels = torch.zeros(30, 40, 4, dtype=torch.uint8)
        pixels[inside] = torch.tensor([200, 10, 20, 255], dtype=torch.uint8)
        if masked:
            pixels[~inside] = torch.tensor([0, 90, 0, 255], dtype=torch.uint8)
            mask = frame.image_path.with_suffix(".mask.png")
            Image.fromarray(inside.numpy().astype(np.uint8) * 255).save(mask)
            frame = replace(frame, mask_path=mask)
        Image.fromarray(pixels.numpy(), "RGBA").convert("RGB" if masked else "RGBA").save(
            frame.image_path
        )
        frames.append(frame)
    points = random_points(replace(made, frames=frames), 1000)
    away = (points.xyz - centre).norm(dim=1)
    # Pixels are 0.08 wide at this distance, and a ring of cameras leaves the hull open above and
    # below: twice the radius.
    assert away.max() < 1.0 and away.median() < 0.55
    assert len(points.xyz) == 1000
    # Every point of the hull falls on the ball in the pictures, or on its rim.
    assert points.rgb.unique(dim=0).tolist() == [[200, 10, 20]]


def _rays(camera):
    from scene4d.cameras.rays import camera_rays

    return camera_rays(camera)


def test_read_points_of_a_ply(tmp_path):
    path = tmp_path / "p.ply"
    path.write_text(
        "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\n"
        "property float z\nproperty uchar red\nproperty uchar green\nproperty uchar blue\n"
        "end_header\n1 2 3 10 20 30\nnan 0 0 1 1 1\n4 5 6 40 50 60\n"
    )
    points = read_points(path)
    assert points.xyz.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert points.rgb.tolist() == [[10, 20, 30], [40, 50, 60]]


def test_points_without_colours_are_grey(tmp_path):
    path = tmp_path / "p.ply"
    path.write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
        "property float z\nend_header\n1 2 3\n"
    )
    assert read_points(path).rgb.tolist() == [[128, 128, 128]]


def zipped_zeros() -> bytes:
    """What a reader that goes by the content unpacks to 64 MB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("p.ply", bytes(1 << 26))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"ply\n", b"not a ply", b"ply\nformat ascii 1.0\nend_header\n", zipped_zeros()],
)
def test_damaged_points(tmp_path, content):
    path = tmp_path / "p.ply"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"p\.ply"):
        read_points(path)
    with pytest.raises(DataError, match="not found"):
        read_points(tmp_path / "absent.ply")


@pytest.mark.parametrize(
    "name",
    [
        "fox",
        "ethiopian_head",
        "nerf_chair",
        "llff_fern",
        "lf_shop",
        "nrnerf_hand",
        "rgbd_livingroom",
    ],
)
def test_points_of_real_captures(shared_data, name):
    made = load_scene(shared_data / name)
    points = random_points(made, 3000, seed=0)
    assert len(points.xyz) == 3000
    cameras = made.train_cameras()
    # fox's lens is left out here; its points were drawn through the undistorted pictures.
    assert seen_by_enough(points.xyz, cameras).float().mean() > 0.98
    # Wherever the cameras, every picture gets points: at least a tenth of its fair share if all
    # pictures showed the same.
    counts = [int(visible_from(points.xyz, c)[0].sum()) for c in cameras]
    assert min(counts) > 0.03 * len(points.xyz)
    if name == "nerf_chair":  # the object lies within about 1 of the origin
        assert points.xyz.abs().max() < 1.3
        assert points.xyz.norm(dim=1).median() < 1.0
