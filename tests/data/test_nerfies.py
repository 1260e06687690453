"""Captures as Nerfies, HyperNeRF and DyCheck lay them out: cameras in closed form, times."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data.conftest import look_at, save_image

from scene4d.cameras.rays import pixel_centres
from scene4d.cameras.undistortion import undistorted_camera, undistortion_grid
from scene4d.data.images import ImageCache
from scene4d.data.load import load_scene, read_scene
from scene4d.data.maps import read_depth
from scene4d.data.options import SceneOptions
from scene4d.errors import DataError

LENS = {
    "focal_length": 50.0,
    "principal_point": [25.0, 15.0],
    "skew": 1.5,
    "pixel_aspect_ratio": 1.1,
    "radial_distortion": [0.05, -0.02, 0.01],
    "tangential_distortion": [0.003, -0.002],
    "image_size": [48, 32],
}


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.fixture
def capture(tmp_path) -> Path:
    """Two cameras, three times each, as DyCheck writes them; the second is held out."""
    root = tmp_path / "capture"
    metadata = {}
    for camera in (0, 1):
        for time in range(3):
            name = f"{camera}_{time:05d}"
            pose = look_at((4.0, camera, 1.0 + 0.1 * time))
            turn = (pose[:3, :3] * [1, -1, -1]).T  # world to camera, OpenCV's axes
            where = {"orientation": turn.tolist(), "position": pose[:3, 3].tolist()}
            write(root / "camera" / f"{name}.json", {**where, **LENS})
            for factor in (1, 2):
                size = (48 // factor, 32 // factor)
                save_image(root / "rgb" / f"{factor}x" / f"{name}.png", *size, seed=time)
            (root / "depth" / "1x").mkdir(parents=True, exist_ok=True)
            np.save(root / "depth" / "1x" / f"{name}.npy", np.full((32, 48, 1), 2.5, np.float32))
            metadata[name] = {"warp_id": time, "appearance_id": time, "camera_id": camera}
        save_image(root / "covisible" / "2x" / "val" / "1_00000.png", 24, 16)
    ids = list(metadata)
    write(root / "metadata.json", metadata)
    write(
        root / "dataset.json",
        {"count": 6, "num_exemplars": 3, "ids": ids, "train_ids": ids[:3], "val_ids": ids[3:]},
    )
    write(root / "scene.json", {"scale": 0.1, "center": [1, 2, 3], "near": 0.05, "far": 1.0})
    write(root / "extra.json", {"fps": 5, "factor": 2, "lookat": [0, 0, 0], "up": [0, 0, 1]})
    return root


def nerfies_pixels(points: np.ndarray, file: Path) -> np.ndarray:
    """Nerfies' camera, from its paper's code: world to pixels from the top-left corner."""
    value = json.loads(file.read_text())
    local = (points - np.array(value["position"])) @ np.array(value["orientation"]).T
    x, y = local[..., 0] / local[..., 2], local[..., 1] / local[..., 2]
    (k1, k2, k3), (p1, p2) = value["radial_distortion"], value["tangential_distortion"]
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    lens_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    lens_y = y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y)
    focal, (cx, cy) = value["focal_length"], value["principal_point"]
    across = focal * lens_x + value["skew"] * lens_y + cx
    return np.stack([across, focal * value["pixel_aspect_ratio"] * lens_y + cy], axis=-1)


def test_the_camera_is_nerfies_in_closed_form(capture):
    scene = read_scene(capture)
    assert scene.dataparser == "nerfies"
    frame = scene.frames[4]
    assert frame.name == "rgb/1x/1_00001.png"
    straight = undistorted_camera(frame.camera)
    K, c2w = straight.K.double().numpy(), straight.c2w.numpy()
    assert K[0, 1] == 0 and [K[0, 0], K[1, 1]] == pytest.approx([50, 55])
    pixels = pixel_centres(48, 32).double().numpy()
    slopes = (pixels - K[:2, 2]) / [K[0, 0], K[1, 1]]
    rays = np.stack([slopes[..., 0], -slopes[..., 1], -np.ones((32, 48))], axis=-1)
    points = 3.0 * rays @ c2w[:3, :3].T + c2w[:3, 3]
    grid, inside = undistortion_grid(frame.camera)
    ours = (grid.double().numpy() + 1) / 2 * [48, 32]
    expected = nerfies_pixels(points, capture / "camera" / "1_00001.json")
    # The grid is float32 from -1 to 1: 3e-6 pixels; intrinsics are float32, too
    np.testing.assert_allclose(ours[inside], expected[inside], atol=2e-5)
    assert inside.float().mean() > 0.8 and np.abs(expected - pixels)[inside.numpy()].max() > 0.5


def test_pictures_are_resampled_for_skew_alone(capture):
    for file in (capture / "camera").iterdir():
        plain = {"radial_distortion": [0, 0, 0], "tangential_distortion": [0, 0], "skew": 8}
        write(file, {**json.loads(file.read_text()), **plain})
    view = ImageCache(load_scene(capture)).view(0)
    assert float(view.camera.K[0, 1]) == 0 and view.mask is not None
    assert not bool(view.mask.all())  # slanted: corners are left over


def test_times_cameras_split_and_maps(capture):
    scene = read_scene(capture)
    assert [list(scene.train_indices), list(scene.test_indices)] == [[0, 1, 2], [3, 4, 5]]
    assert scene.split_rule == "given by the capture (val_ids)"
    times = [float(f.camera.time) for f in scene.frames if f.camera.time is not None]
    assert times == pytest.approx([0, 0.2, 0.4] * 2)  # frames at 5 a second
    assert [f.camera_id for f in scene.frames] == ["0"] * 3 + ["1"] * 3
    assert scene.bounds == pytest.approx((0.5, 10.0))  # scene.json's world is ten times smaller
    depth = scene.frames[1]
    assert depth.depth_path is not None
    assert set(read_depth(depth.depth_path, depth.depth_unit_m).flatten().tolist()) == {2.5}
    covisible = [frame.covisible_path for frame in scene.frames]
    assert covisible == [None] * 3 + [capture / "covisible/2x/val/1_00000.png", None, None]


def test_smaller_pictures_where_they_are_asked_for(capture):
    scene = read_scene(capture, SceneOptions(downscale_factor=2))
    frame = scene.frames[0]
    assert (frame.name, frame.camera.width) == ("rgb/2x/0_00000.png", 24)
    assert frame.camera.K[:2].tolist() == pytest.approx(
        [pytest.approx([25, 0.75, 12.5]), pytest.approx([0, 27.5, 7.5])]
    )


def test_points_get_the_colours_of_the_pictures(capture):
    for time in range(3):
        save_image(capture / "rgb" / "1x" / f"0_{time:05d}.png", 48, 32, seed=9)
    np.save(capture / "points.npy", np.array([[0.0, 0.0, 0.0], [40.0, 0.0, 0.0]]))
    scene = read_scene(capture)
    assert scene.points is not None
    assert scene.points.xyz.tolist() == [[0, 0, 0], [40, 0, 0]]  # the input's frame
    assert scene.points.rgb[1].tolist() == [128] * 3  # behind all cameras
    assert scene.points.rgb[0].tolist() != [128] * 3


def test_without_val_ids_and_metadata_it_is_a_static_capture(capture):
    ids = json.loads((capture / "dataset.json").read_text())["ids"]
    write(capture / "dataset.json", {"ids": ids})
    (capture / "metadata.json").unlink()
    scene = read_scene(capture / "dataset.json", SceneOptions(dataparser="nerfies", test_every=3))
    assert list(scene.test_indices) == [0, 3]
    assert all(frame.camera.time is None for frame in scene.frames)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("dataset.json", {"train_ids": [], "ids": [], "val_ids": []}, "lists no frames"),
        ("dataset.json", {"train_ids": [["a"]]}, "train_ids is not a list of names"),
        ("dataset.json", {"train_ids": ["../../0_00000"]}, "out"),
        ("camera/0_00001.json", {"focal_length": 0}, "focal_length"),
        ("camera/0_00001.json", {"orientation": [[1, 0], [0, 1]]}, "orientation should be 9"),
        ("camera/0_00001.json", {"position": [0, 0, "x"]}, "position should be a finite"),
        ("camera/0_00001.json", {"image_size": [48, 48]}, "not the same shape"),
        ("scene.json", {"near": 0.5, "far": 0.1}, "0 < near < far"),
        ("metadata.json", {"0_00001": {"camera_id": 0}}, "only 5 of 6 frames have a time"),
        ("extra.json", {"fps": -1}, "fps should be positive"),
    ],
)
def test_mistakes_are_named(capture, file, change, message):
    path = capture / file
    write(path, {**json.loads(path.read_text()), **change})
    with pytest.raises(DataError, match=message) as caught:
        read_scene(capture)
    assert Path(file).name in str(caught.value) or "not the same" in message or message == "out"
