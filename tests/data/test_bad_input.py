"""Every mistake in a capture gives one error that names what, where and the way out."""

import json
import math
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from scene4d.data.dataparsers.colmap_files import read_model
from scene4d.data.images import ImageCache
from scene4d.data.load import load_scene
from scene4d.data.options import SceneOptions
from scene4d.data.sample import sample_scene_at, sample_scene_path
from scene4d.errors import DataError, Scene4dError, UsageError


def fails(root, match, options=None, kind=DataError):
    with pytest.raises(kind, match=match) as caught:
        load_scene(root, options)
    return str(caught.value)


@pytest.mark.parametrize("stated", [True, False])
def test_missing_images_are_told_and_the_others_used(make_capture, stated):
    def change(meta):
        if not stated:
            del meta["w"], meta["h"]

    root = make_capture(change=change)
    (root / "images" / "002.png").unlink()
    with pytest.warns(UserWarning, match=r"1 of 9 images are missing.*002\.png"):
        scene = load_scene(root)
    assert [frame.name for frame in scene.frames][2] == "images/003.png"
    assert [scene.frames[i].name for i in scene.test_indices] == [
        "images/000.png",
        "images/008.png",
    ]
    for i in (3, 4, 5, 6):
        (root / "images" / f"{i:03d}.png").unlink()
    assert "->" in fails(root, r"5 of 9 images are missing.*002\.png")


@pytest.mark.parametrize("keep", [0, 8, 40, 300])
def test_truncated_image(make_capture, keep):
    root = make_capture()
    path = root / "images" / "005.png"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"005\.png"):
        ImageCache(load_scene(root))


def test_image_that_is_text(make_capture):
    root = make_capture()
    (root / "images" / "005.png").write_text("<html>404</html>")
    fails(root, r"005\.png: cannot be read as an image")


def test_intrinsics_of_another_size_are_scaled_with_a_warning(make_capture):
    def change(meta):
        meta |= {"w": 48, "h": 32, "fl_x": 60.0, "fl_y": 62.0, "cx": 25.0, "cy": 15.0}

    with pytest.warns(UserWarning, match="9 frames"):
        camera = load_scene(make_capture(change=change)).frames[0].camera
    assert camera.K.tolist() == [[30.0, 0.0, 12.5], [0.0, 31.0, 7.5], [0.0, 0.0, 1.0]]
    assert (camera.width, camera.height) == (24, 16)


def test_images_of_another_shape(make_capture):
    root = make_capture()
    Image.new("RGB", (16, 24)).save(root / "images" / "007.png")
    message = fails(root, r"frame images/007\.png.*16 x 24.*24 x 16")
    assert "->" in message


def test_frames_of_different_sizes_are_fine(make_capture):
    def change(meta):
        meta["frames"][7] |= {"w": 30, "h": 30, "cx": 15.0, "cy": 15.0}

    root = make_capture(change=change)
    Image.new("RGB", (30, 30)).save(root / "images" / "007.png")
    cache = ImageCache(load_scene(root))
    assert cache.view(7).rgb.shape == (30, 30, 3) and cache.view(6).rgb.shape == (16, 24, 3)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_in_a_pose(make_capture, value):
    def change(meta):
        meta["frames"][4]["transform_matrix"][1][3] = value

    fails(make_capture(change=change), r"frame images/004\.png.*NaN")


def test_slightly_rounded_rotation_is_repaired(make_capture):
    def change(meta):
        meta["frames"][4]["transform_matrix"][0][0] += 3e-4

    c2w = load_scene(make_capture(change=change)).frames[4].camera.c2w[:3, :3].double()
    np.testing.assert_allclose(c2w.T @ c2w, np.eye(3), atol=1e-6)


@pytest.mark.parametrize("scale", [1.01, 0.5, -1.0])
def test_no_rotation(make_capture, scale):
    def change(meta):
        matrix = np.array(meta["frames"][4]["transform_matrix"])
        matrix[:3, 0 if scale < 0 else slice(0, 3)] *= scale
        meta["frames"][4]["transform_matrix"] = matrix.tolist()

    message = fails(make_capture(change=change), r"frame images/004\.png.*(orthonormal|mirror)")
    assert ("mirror" in message) == (scale < 0)


@pytest.mark.parametrize(
    "matrix", [[[1.0]], "text", None, [[1, 2, 3, 4]] * 5, [[1, 2], [3]], [["a"] * 4] * 4]
)
def test_pose_of_another_shape(make_capture, matrix):
    def change(meta):
        meta["frames"][4]["transform_matrix"] = matrix

    fails(make_capture(change=change), r"images/004\.png: the pose")


def test_wrong_last_row(make_capture):
    def change(meta):
        meta["frames"][4]["transform_matrix"][3] = [0, 0, 0, 2]

    fails(make_capture(change=change), "last row")


def test_no_frames(make_capture):
    def change(meta):
        meta["frames"] = []

    fails(make_capture(change=change), "no frame with a camera")


def test_nothing_left_to_train_on(make_capture):
    fails(make_capture(count=1), "no frame is left to train on")
    assert len(load_scene(make_capture(count=1), SceneOptions(test_every=0)).frames) == 1


@pytest.mark.parametrize("path", ["../secret.png", "/etc/hostname", "images/../../secret.png"])
@pytest.mark.parametrize("key", ["file_path", "mask_path", "depth_file_path", "ply_file_path"])
def test_paths_that_leave_the_folder(make_capture, path, key):
    def change(meta):
        (meta if key == "ply_file_path" else meta["frames"][3])[key] = path

    fails(make_capture(change=change), "points outside its folder")


def test_links_are_followed(make_capture, make_colmap, tmp_path):
    """The user made them; as in COLMAP captures, so in every other."""
    for root in (make_capture(), make_colmap()):
        (root / "images").rename(tmp_path / "elsewhere")
        (root / "images").symlink_to(tmp_path / "elsewhere")
        names = [frame.name for frame in load_scene(root).frames]
        assert len(names) in (5, 9) and not any(name.startswith("/") for name in names)
        (tmp_path / "elsewhere").rename(tmp_path / f"was-of-{root.name}")


@pytest.mark.parametrize(
    "second", ["images/001.png", "./images/001.png", "images/../images/001.png"]
)
def test_image_listed_twice(make_capture, second):
    def change(meta):
        meta["frames"][5]["file_path"] = second

    fails(make_capture(change=change), r"001\.png: the image is listed 2 times")


def test_same_image_in_train_and_test(make_capture):
    def change(meta):
        names = [frame["file_path"] for frame in meta["frames"]]
        meta["train_filenames"], meta["test_filenames"] = names[:5], names[4:]

    fails(make_capture(change=change), r"1 frames are both in train and in test.*004\.png")


def test_split_lists_an_unknown_image(make_capture):
    def change(meta):
        meta["test_filenames"] = ["images/999.png"]

    fails(make_capture(change=change), r"999\.png.*no frame has")


@pytest.mark.parametrize("key", ["fl_x", "cx", "w", "k1"])
@pytest.mark.parametrize("value", ["12", None, math.nan, [1]])
def test_intrinsics_that_are_no_numbers(make_capture, key, value):
    def change(meta):
        meta["frames"][2][key] = value

    fails(make_capture(change=change), rf"images/002\.png: {key} should be a finite number")


def test_intrinsics_missing_or_impossible(make_capture):
    def without(meta):
        del meta["fl_x"], meta["fl_y"]

    fails(make_capture(change=without), "neither fl_x nor camera_angle_x")
    fails(make_capture(change=lambda m: m.update(fl_x=-3.0)), "fl_x should be positive")
    fails(make_capture(change=lambda m: m.update(w=0)), "image size")
    fails(make_capture(change=lambda m: m.update(camera_model="EQUIRECTANGULAR")), "camera model")
    fails(make_capture(change=lambda m: m.update(k6=0.1)), "rational")


def test_time_for_some_frames_only(make_capture):
    fails(
        make_capture(change=lambda meta: meta["frames"][0].update(time=0.1)),
        "only 1 of 9 frames have a time",
    )


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"frames": 3}', '{"frames": [3]}', '{"frames": [{}]}']
)
def test_json_that_is_no_capture(make_capture, text):
    root = make_capture()
    (root / "transforms.json").write_text(text)
    fails(root, r"transforms\.json")


def test_mask_of_another_shape(make_capture):
    root = make_capture(change=lambda meta: meta["frames"][2].update(mask_path="mask.png"))
    Image.new("L", (16, 24)).save(root / "mask.png")
    fails(root, r"mask\.png.*does not fit")
    (root / "mask.png").unlink()
    fails(root, r"mask\.png: image not found")


def test_bounds_and_frames_of_reference(make_capture):
    fails(make_capture(change=lambda m: m.update(near=3.0, far=1.0)), "near 3.0 and far 1.0")
    flat = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    fails(make_capture(change=lambda m: m.update(applied_transform=flat)), "cannot be inverted")


def test_options(make_capture):
    root = make_capture()
    for options, match in (
        (SceneOptions(test_every=1), "--test-every"),
        (SceneOptions(downscale_factor=0), "--downscale-factor"),
        (SceneOptions(max_frames=0), "--max-frames"),
    ):
        fails(root, match, options, UsageError)


def test_max_frames_keeps_the_split(make_capture):
    root = make_capture(count=24)
    scene = load_scene(root, SceneOptions(max_frames=8))
    whole = load_scene(root)
    assert len(scene.frames) == 8 and len(scene.test_indices) == 1
    held_out = {whole.frames[i].name for i in whole.test_indices}
    for i, frame in enumerate(scene.frames):
        assert (frame.name in held_out) == (i in set(scene.test_indices))
    assert "8 of 24 frames kept" in scene.split_rule
    assert load_scene(root, SceneOptions(max_frames=100)).frames[0].name == whole.frames[0].name


# ---------------------------------------------------------------- COLMAP


def test_empty_colmap_model(make_colmap):
    root = make_colmap()
    (root / "sparse" / "0" / "images.txt").write_text("# nothing\n")
    assert "->" in fails(root, "COLMAP model is empty")


def test_colmap_image_outside_its_folder(make_colmap):
    root = make_colmap()
    path = root / "sparse" / "0" / "images.txt"
    path.write_text(path.read_text().replace("a_3.png", "../../x.png"))
    fails(root, "points outside its folder")


def test_colmap_without_images(make_colmap):
    root = make_colmap()
    for path in (root / "images").iterdir():
        path.unlink()
    fails(root, "images of the model were not found")


def test_colmap_camera_that_is_not_there(make_colmap):
    fails(make_colmap("2 PINHOLE 24 16 30 31 12 8"), "has camera 1, which is not in the model")


@pytest.mark.parametrize(
    ("lens", "message"),
    [
        ("1 PINHOLE 24 16 30 31 12", "has 4 parameters"),
        ("1 NONE 24 16 30", "unknown"),
        ("1 PINHOLE 0 16 30 31 12 8", "impossible"),
        ("1 PINHOLE 24 16 nan 31 12 8", "not finite"),
        ("1 PINHOLE 24 16 -30 31 12 8", "not positive"),
        ("1 PINHOLE x", "is not 'ID MODEL"),
        ("1 FULL_OPENCV 24 16 30 31 12 8 0 0 0 0 0 .1 0 0", "rational"),
        ("1 THIN_PRISM_FISHEYE 24 16 30 31 12 8 0 0 0 0 0 0 0 0", "not supported"),
    ],
)
def test_colmap_lenses_that_do_not_work(make_colmap, lens, message):
    fails(make_colmap(lens), message)


def test_colmap_pose_lines(make_colmap):
    root = make_colmap()
    path = root / "sparse" / "0" / "images.txt"
    text = path.read_text()
    path.write_text("1 0 0 0 0 1 1 1 1 a_0.png\n\n")
    fails(root, "quaternion")
    path.write_text(text + "6 1 0 0\n")
    fails(root, r"images\.txt, line \d+: is not 'ID QW")


def binary_model(folder):
    """A model with one camera, one image and one point, in binary."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.bin").write_bytes(
        struct.pack("<QiiQQ4d", 1, 1, 1, 24, 16, 30.0, 31.0, 12.0, 8.0)
    )
    (folder / "images.bin").write_bytes(
        struct.pack("<Qi7di", 1, 1, 1, 0, 0, 0, 0, 0, 4, 1)
        + b"a.png\0"
        + struct.pack("<QddQ", 1, 1.0, 2.0, 1)
    )
    (folder / "points3D.bin").write_bytes(
        struct.pack("<QQ3d3BdQii", 1, 7, 0.1, 0.2, 0.3, 1, 2, 3, 0.5, 1, 1, 0)
    )
    return folder


def test_binary_model_is_read(tmp_path):
    model = read_model(binary_model(tmp_path / "m"))
    assert model.images[0].name == "a.png" and model.xyz.tolist() == [[0.1, 0.2, 0.3]]


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_huge_counts_are_refused_without_allocating(tmp_path, name):
    folder = binary_model(tmp_path / "m")
    path = folder / f"{name}.bin"
    path.write_bytes(struct.pack("<Q", 2**62) + path.read_bytes()[8:])
    with pytest.raises(DataError, match=rf"{name}\.bin: declares 4611686018427387904 entries"):
        read_model(folder)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), name=st.sampled_from(["cameras", "images", "points3D"]))
def test_damaged_binary_models_give_an_error_or_a_model(tmp_path, data, name):
    folder = binary_model(tmp_path / "m")
    path = folder / f"{name}.bin"
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        read_model(folder)
    except Scene4dError as error:
        assert "m" in str(error)


# ---------------------------------------------------------------- LLFF, Blender, sample


def llff(tmp_path, rows, images=2):
    (tmp_path / "images").mkdir()
    for i in range(images):
        Image.new("RGB", (40, 30)).save(tmp_path / "images" / f"{i}.png")
    np.save(tmp_path / "poses_bounds.npy", rows)
    return tmp_path


def llff_rows(count=2):
    matrix = np.array([[0, 1, 0, 0, 30], [-1, 0, 0, 0, 40], [0, 0, 1, 0, 50.0]])
    return np.tile(np.array([*matrix.flatten(), 1.0, 9.0]), (count, 1))


def test_llff_mistakes(tmp_path):
    fails(llff(tmp_path / _sub(tmp_path, "a"), llff_rows(3)), "2 images for 3 poses")
    fails(llff(tmp_path / _sub(tmp_path, "b"), np.zeros((2, 15))), r"not \(images, 17\)")
    rows = llff_rows()
    rows[1, 14] = 0
    fails(llff(tmp_path / _sub(tmp_path, "c"), rows), "not positive")
    rows = llff_rows()
    rows[0, 3] = np.nan
    fails(llff(tmp_path / _sub(tmp_path, "d"), rows), r"frame 0\.png.*NaN")
    root = llff(tmp_path / _sub(tmp_path, "e"), llff_rows())
    (root / "poses_bounds.npy").write_bytes(b"\x93NUMPY")
    fails(root, "cannot be read as an array")
    np.save(root / "poses_bounds.npy", np.array([{}], dtype=object), allow_pickle=True)
    fails(root, "cannot be read as an array")


def _sub(root, name):
    (root / name).mkdir()
    return name


@pytest.mark.parametrize("angle", [0.0, 4.0, None, "a"])
def test_blender_angle(tmp_path, angle):
    Image.new("RGBA", (8, 8)).save(tmp_path / "a.png")
    frame = {"file_path": "a", "transform_matrix": np.eye(4).tolist()}
    meta = {"camera_angle_x": angle, "frames": [frame]}
    (tmp_path / "transforms_train.json").write_text(json.dumps(meta))
    fails(tmp_path, "camera_angle_x")


def test_blender_train_image_in_test(tmp_path):
    Image.new("RGBA", (8, 8)).save(tmp_path / "a.png")
    frame = {"file_path": "a", "transform_matrix": np.eye(4).tolist()}
    meta = {"camera_angle_x": 1.0, "frames": [frame]}
    for name in ("train", "test"):
        (tmp_path / f"transforms_{name}.json").write_text(json.dumps(meta))
    fails(tmp_path, "listed 2 times")


@pytest.mark.parametrize(
    ("name", "kind"), [("nerf_chair", "blender"), ("dance_room", "nerfstudio")]
)
def test_sample_scenes_load_or_say_that_they_are_absent(name, kind):
    try:
        path = sample_scene_path(name)
    except DataError as error:
        assert "reinstall" in str(error)
    else:
        assert load_scene(path).dataparser == kind
        assert sample_scene_at(path) == name and sample_scene_at(path.parent) is None


def test_a_sample_scene_that_there_is_not_names_those_that_there_are():
    with pytest.raises(DataError, match="nerf_chair, dance_room"):
        sample_scene_path("../nerf_chair")
