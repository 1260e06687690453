"""Captures as other programs, systems and people write them: understood, or told."""

import json
import shutil
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scene4d.cameras.distortion import Distortion
from scene4d.data.dataparsers.colmap_files import read_model
from scene4d.data.images import ImageCache
from scene4d.data.load import load_scene
from scene4d.errors import DataError


def told(root, options=None):
    """The scene, and the warnings that came with it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scene = load_scene(root, options)
    return scene, [str(warning.message) for warning in caught]


# ---------------------------------------------------------------- keys


def test_distortion_params_mean_the_same_as_single_keys(make_capture):
    numbers = [0.1, 0.02, 0.03, 0.004, 0.005, 0.006]
    wanted = Distortion("opencv", (0.1, 0.02, 0.005, 0.006, 0.03, 0.004))

    def change(meta):
        meta["distortion_params"] = numbers
        meta["frames"][1] |= {"distortion_params": [0.2, 0, 0, 0, 0, 0]}
        meta["frames"][2] |= {"k1": 0.3}
        fisheye = {"camera_model": "opencv_fisheye", "distortion_params": [0.1, 0.2, 0.3, 0.4]}
        meta["frames"][3] |= fisheye

    scene, words = told(make_capture(change=change))
    lenses = [frame.camera.distortion for frame in scene.frames]
    assert lenses[0] == wanted and not words
    assert lenses[1].coefficients[0] == 0.2 and not any(lenses[1].coefficients[1:])
    assert lenses[2].coefficients == (0.3, *wanted.coefficients[1:])
    assert lenses[3] == Distortion("fisheye", (0.1, 0.2, 0.3, 0.4))


@pytest.mark.parametrize("numbers", [[0.1] * 5, [0.1] * 4, [0.1] * 12, [0.1, "a"], 0.1, [[1.0]]])
def test_other_lists_of_distortion_are_refused(make_capture, numbers):
    root = make_capture(change=lambda meta: meta.update(distortion_params=numbers))
    with pytest.raises(DataError, match="distortion_params"):
        load_scene(root)


@pytest.mark.parametrize("key", ["latlong", "equirectangular", "ftheta_p0"])
def test_lenses_of_instant_ngp_that_are_not_supported(make_capture, key):
    with pytest.raises(DataError, match=f"'{key}'.*not supported"):
        load_scene(make_capture(change=lambda meta: meta.update({key: 1.5})))


def test_fisheye_crop_radius_masks_the_border(make_capture):
    def change(meta):
        meta |= {"camera_model": "OPENCV_FISHEYE", "fisheye_crop_radius": 5.0}

    scene, words = told(make_capture(change=change))
    assert not words
    view = ImageCache(scene, indices=[0]).view(0)
    y, x = torch.meshgrid(torch.arange(16) + 0.5, torch.arange(24) + 0.5, indexing="ij")
    radius = ((x - 12.5) ** 2 + (y - 7.5) ** 2).sqrt()
    # Undistorting a fisheye draws its border outwards, so the ring is looked for with a margin.
    assert bool(view.mask[radius < 4].all()) and not bool(view.mask[radius > 8].any())
    # Stated for pictures of twice the size, it is half as large here, like the intrinsics.
    double = {"w": 48, "h": 32, "cx": 25.0, "cy": 15.0, "fl_x": 60.0, "fl_y": 62.0}
    root = make_capture(change=lambda m: (change(m), m.update(double, fisheye_crop_radius=10.0)))
    assert told(root)[0].frames[0].crop_radius == 5.0
    root = make_capture(change=lambda m: m.update(fisheye_crop_radius=10.0))
    assert "no fisheye" in told(root)[1][0]


def test_applied_scale_scales_depth(make_capture):
    def change(meta):
        meta |= {"applied_scale": 0.25, "depth_unit_scale_factor": 0.01}

    assert told(make_capture(change=change))[0].frames[0].depth_unit_m == 0.0025
    root = make_capture(change=lambda meta: meta.update(applied_scale=4.0))
    assert told(root)[0].frames[0].depth_unit_m == 0.004
    root = make_capture(change=lambda meta: meta.update(integer_depth_scale=0.5))
    assert told(root)[0].frames[0].depth_unit_m == 0.5
    with pytest.raises(DataError, match="depth unit should be positive"):
        load_scene(make_capture(change=lambda meta: meta.update(depth_unit_scale=-1.0)))


def write_split(root, **extra):
    for name, count in (("train", 3), ("test", 1)):
        frames = []
        for i in range(count):
            path = root / "images" / f"{name}{i}.png"
            path.parent.mkdir(exist_ok=True, parents=True)
            Image.new("RGB", (10, 8), (i, 0, 0)).save(path)
            pose = np.eye(4)
            pose[0, 3] = 0.1 * i
            entry = {"file_path": f"images/{path.name}", "transform_matrix": pose.tolist()}
            frames.append(entry)
        meta = {"frames": frames, **extra}
        (root / f"transforms_{name}.json").write_text(json.dumps(meta))
    return root


def test_files_of_a_split_state_their_lens(tmp_path):
    extra = {"fl_x": 9.0, "fl_y": 8.0, "cx": 4.5, "cy": 3.5, "k1": -0.1, "w": 10, "h": 8}
    scene, words = told(write_split(tmp_path, **extra))
    camera = scene.frames[0].camera
    assert scene.dataparser == "blender" and not words
    assert camera.K.tolist() == [[9.0, 0.0, 4.5], [0.0, 8.0, 3.5], [0.0, 0.0, 1.0]]
    assert camera.distortion == Distortion("opencv", (-0.1, 0.0, 0.0, 0.0, 0.0, 0.0))
    camera = told(write_split(tmp_path, x_fov=90.0))[0].frames[0].camera
    assert camera.K[0, 0].item() == pytest.approx(5.0)


def test_keys_that_nobody_knows_are_named_once(make_capture, tmp_path):
    def change(meta):
        meta |= {"aabb": [[-1] * 3, [1] * 3], "aabb_scale": 4, "orientation_override": "none"}
        for i, frame in enumerate(meta["frames"]):
            frame |= {"colmap_im_id": i, "sharpness": 3.0, "rolling_shutter": [0, 0, 0.1, 0]}
            frame |= {"exposure": 0}

    _, words = told(make_capture(change=change))
    assert len(words) == 1 and "aabb; rolling_shutter of frames" in words[0]
    assert "exposure" not in words[0] and "sharpness" not in words[0]
    _, words = told(write_split(tmp_path / "split", camera_angle_x=0.7, crop_box=[1, 2]))
    assert len(words) == 1 and "crop_box" in words[0]


# ---------------------------------------------------------------- poses


def scaled(factor, decimals=None):
    c, s = np.cos(0.7), np.sin(0.7)
    turn = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    turn = turn @ turn[[1, 2, 0, 3]][:, [1, 2, 0, 3]]  # no number is round by chance

    def change(meta):
        for frame in meta["frames"]:
            matrix = turn @ np.array(frame["transform_matrix"])
            matrix[:3, :3] *= factor
            matrix = matrix if decimals is None else matrix.round(decimals)
            frame["transform_matrix"] = matrix.tolist()

    return change


@pytest.mark.parametrize("factor", [0.35, 1.02, 100.0])
def test_a_factor_in_all_rotations_is_divided_out(make_capture, factor):
    plain = load_scene(make_capture(change=scaled(1.0)))
    scene, words = told(make_capture(change=scaled(factor), folder="scaled"))
    assert len(words) == 1 and f"a factor of {factor:g}" in words[0]
    for a, b in zip(plain.frames, scene.frames, strict=True):
        torch.testing.assert_close(a.camera.c2w, b.camera.c2w, atol=1e-5, rtol=0)


def test_rounded_rotations_are_repaired(make_capture):
    plain = load_scene(make_capture(change=scaled(1.0)))
    scene, words = told(make_capture(change=scaled(1.0, decimals=3), folder="rounded"))
    assert len(words) == 1 and "rounded" in words[0]
    for a, b in zip(plain.frames, scene.frames, strict=True):
        # Each entry was off by 5e-4 at most, and so is the nearest rotation, about.
        torch.testing.assert_close(a.camera.c2w, b.camera.c2w, atol=2e-3, rtol=0)
        rotation = b.camera.c2w[:3, :3].double()
        torch.testing.assert_close(
            rotation.T @ rotation, torch.eye(3, dtype=torch.float64), atol=1e-6, rtol=0
        )


def test_shears_are_refused(make_capture):
    def change(meta):
        for frame in meta["frames"]:
            matrix = np.array(frame["transform_matrix"])
            matrix[:3, 0] += 0.1 * matrix[:3, 1]
            frame["transform_matrix"] = (matrix * [2, 2, 2, 1]).tolist()

    with pytest.raises(DataError, match="orthonormal"):
        load_scene(make_capture(change=change))


# ---------------------------------------------------------------- names and places


@pytest.mark.parametrize(
    "spelling",
    [
        "images\\{}", ".\\images\\{}", "C:\\Users\\me\\scene\\images\\{}", "D:/scene/images/{}",
        "\\\\server\\share\\images\\{}", "/home/somebody/else/images/{}", "Images/{}", "IMAGES\\{}",
        "./images/{}",
    ],
)  # fmt: skip
def test_paths_of_other_systems_and_machines(make_capture, spelling):
    def change(meta):
        for frame in meta["frames"]:
            frame["file_path"] = spelling.format(Path(frame["file_path"]).name)
        meta["test_filenames"] = [meta["frames"][2]["file_path"]]

    scene, _ = told(make_capture(change=change))
    assert [frame.name for frame in scene.frames] == [f"images/{i:03d}.png" for i in range(9)]
    assert list(scene.test_indices) == [2]


def test_absolute_paths_that_exist_are_used(make_capture, tmp_path):
    def change(meta):
        for frame in meta["frames"]:
            frame["file_path"] = str(tmp_path / "elsewhere" / Path(frame["file_path"]).name)

    root = make_capture(change=change)
    (root / "images").rename(tmp_path / "elsewhere")
    scene, words = told(root)
    assert len(scene.frames) == 9 and "9 files lie outside the capture" in words[0]
    names = [frame.name for frame in scene.frames]
    assert len(set(names)) == 9 and not any(Path(name).is_absolute() for name in names)


@pytest.mark.parametrize("suffix", [".PNG", ".jpg", ".JPEG"])
def test_suffixes_that_differ(make_capture, make_colmap, suffix):
    for root in (make_capture(), make_colmap()):
        for path in list((root / "images").iterdir()):
            path.rename(path.with_suffix(suffix))
        scene, words = told(root)
        count = len(scene.frames)
        assert count in (5, 9) and len(words) == 1 and f"{count} files have other names" in words[0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks(make_capture, make_colmap, encoding):
    root = make_capture()
    path = root / "transforms.json"
    path.write_text(path.read_text(), encoding=encoding)
    assert len(load_scene(root).frames) == 9
    root = make_colmap()
    for path in (root / "sparse" / "0").iterdir():
        path.write_text(path.read_text(), encoding=encoding)
    assert len(load_scene(root).frames) == 5


def test_a_link_that_was_stored_as_text_is_told(make_capture):
    root = make_capture()
    shutil.rmtree(root / "images")
    (root / "images").write_text("../photos")
    with pytest.raises(DataError, match=r"(?s)9 of 9 images are missing.*a link that was copied"):
        load_scene(root)


def test_capital_names_everywhere(make_capture, make_colmap):
    root = make_capture()
    (root / "transforms.json").rename(root / "Transforms.json")
    (root / "images").rename(root / "Images")
    assert len(load_scene(root).frames) == 9
    root = make_colmap()
    for path in (root / "sparse" / "0").iterdir():
        path.rename(path.with_name(path.name[0].upper() + path.name[1:]))
    (root / "sparse").rename(root / "Sparse")
    (root / "images").rename(root / "Images")
    scene = load_scene(root)
    assert len(scene.frames) == 5 and len(scene.points.xyz) == 2


def test_paths_that_are_none(make_capture):
    for text in ("a\0b.png", "x/" * 4000 + "y.png", ""):
        root = make_capture(change=lambda meta, t=text: meta["frames"][3].update(file_path=t))
        with pytest.raises(DataError, match="is not a path"):
            load_scene(root)
    long = f"images/{'a' * 3000}.png"
    _, words = told(make_capture(change=lambda meta: meta["frames"][3].update(file_path=long)))
    assert len(words) == 1 and "1 of 9 images are missing" in words[0] and len(words[0]) < 400


# ---------------------------------------------------------------- COLMAP


def test_images_without_second_lines(make_colmap):
    root = make_colmap()
    path = root / "sparse" / "0" / "images.txt"
    lines = path.read_text().splitlines()
    poses = [line for line in lines if line.endswith(".png")]
    path.write_text("\n".join(poses))
    assert len(load_scene(root).frames) == 5
    path.write_text("\n".join([poses[0], "", *poses[1:3], "1.0 2.0 -1", "", *poses[3:]]))
    assert len(load_scene(root).frames) == 5
    path.write_text("\n".join([poses[0], "not points", *poses[1:]]))
    with pytest.raises(DataError, match=r"line 2: is not 'ID QW.*nor the points of a_4\.png"):
        load_scene(root)


def test_the_largest_of_several_models_is_taken(make_colmap):
    root = make_colmap()
    first, second = root / "sparse" / "0", root / "sparse" / "1"
    shutil.copytree(first, second)
    lines = (first / "images.txt").read_text().splitlines(keepends=True)
    (first / "images.txt").write_text("".join(lines[:5]))
    (second / "images.txt").write_text("".join(lines[:1] + lines[3:]))
    scene, words = told(root)
    assert len(scene.frames) == 4
    assert len(words) == 1 and "sparse/1 with 4 pictures is used, not sparse/0 with 2" in words[0]
    assert "1 of 5 pictures" in words[0]


@pytest.mark.parametrize("name", ["points3D.ply", "points3d.ply", "Points3D.PLY", "points3d.txt"])
def test_points_under_other_names(make_colmap, name):
    root = make_colmap()
    own = root / "sparse" / "0" / "points3D.txt"
    if name.lower().endswith("ply"):
        own.unlink()
        text = "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\n"
        text += "property float z\nend_header\n0.1 -0.2 0.3\n1 2 3\n"
        (own.parent / name).write_text(text)
    else:
        own.rename(own.with_name(name))
    scene, words = told(root)
    assert not words
    wanted = torch.tensor([[0.1, -0.2, 0.3], [1, 2, 3]])
    torch.testing.assert_close(scene.points.xyz.float(), wanted)


def test_a_model_without_points_says_that_the_start_is_random(make_colmap):
    root = make_colmap()
    (root / "sparse" / "0" / "points3D.txt").unlink()
    scene, words = told(root)
    assert scene.points is None and len(words) == 1 and "random" in words[0]


def test_lenses_of_newer_versions(make_colmap, tmp_path):
    scene = load_scene(make_colmap("1 SIMPLE_FISHEYE 24 16 30 12 8"))
    assert scene.frames[0].camera.distortion == Distortion("fisheye", ())
    lines = ("1 EUCM 24 16 30 31 12 8 .5 1", "1 RAD_TAN_THIN_PRISM_FISHEYE 24 16" + " 1" * 16)
    for line in (*lines, "1 NEWEST 24 16 30"):
        shutil.rmtree(tmp_path / "colmap")
        with pytest.raises(DataError, match=line.split()[1]) as caught:
            load_scene(make_colmap(line))
        assert "image_undistorter" in str(caught.value)
    folder = tmp_path / "binary"
    folder.mkdir()
    for number, word in ((16, "EUCM"), (99, "newer COLMAP"), (-7, "damaged")):
        camera = struct.pack("<QiiQQ6d", 1, 1, number, 24, 16, *[1.0] * 6)
        (folder / "cameras.bin").write_bytes(camera)
        (folder / "images.bin").write_bytes(struct.pack("<Q", 0))
        if number == 16:
            assert read_model(folder).cameras[1].model == word
        else:
            with pytest.raises(DataError, match=f"(?s)number {number}.*{word}"):
                read_model(folder)


def test_pictures_deleted_after_reconstruction(make_colmap):
    root = make_colmap()
    (root / "images" / "a_0.png").unlink()
    scene, words = told(root)
    assert [frame.name for frame in scene.frames] == [f"a_{i}.png" for i in range(1, 5)]
    assert len(words) == 1 and "1 of 5 images are missing, the first is a_0.png" in words[0]
    for i in (1, 2):
        (root / "images" / f"a_{i}.png").unlink()
    with pytest.raises(DataError, match="3 of 5 images are missing"):
        load_scene(root)


def test_masks_by_the_name_of_the_picture(make_colmap):
    root = make_colmap()
    masks = root / "Masks"
    masks.mkdir()
    for i, name in enumerate(("a_0.png.png", "a_1.PNG", "a_2.png", "other.png")):
        Image.new("L", (24, 16), 255 if i else 1).save(masks / name, "png")
    scene, words = told(root)
    names = [frame.mask_path and frame.mask_path.name for frame in scene.frames]
    assert names == ["a_0.png.png", "a_1.PNG", "a_2.png", None, None]
    assert len(words) == 1 and "1 pictures in Masks are the mask of no image" in words[0]


# ---------------------------------------------------------------- bad files


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000, '{"frames":' * 50_000, '{"frames": [' + "9" * 5000 + "]}",
        '{"frames": [{"file_path": "a.png", "transform_matrix": ' + "[" * 900 + "]" * 900 + "}]}",
    ],
    ids=["deep list", "deep object", "long integer", "deep pose"],
)  # fmt: skip
def test_json_that_is_too_much(make_capture, text):
    root = make_capture()
    (root / "transforms.json").write_text(text)
    Image.new("RGB", (24, 16)).save(root / "a.png")
    with pytest.raises(DataError, match=r"transforms\.json"):
        load_scene(root)


@pytest.mark.parametrize("value", [10**400, 1e39, 1e308, -(10**31)])
@pytest.mark.parametrize("key", ["fl_x", "cx", "k1", "w", "time", "near"])
def test_numbers_beyond_all_bounds(make_capture, key, value):
    def change(meta):
        for frame in meta["frames"]:
            frame |= {key: value} if key != "near" else {"near": 1.0, "far": abs(value)}

    with pytest.raises(DataError):
        load_scene(make_capture(change=change))


@pytest.mark.parametrize("kind", ["pipe", "device", "loop", "folder", "empty"])
@pytest.mark.parametrize("name", ["transforms.json", "images/004.png", "mask.png", "points.ply"])
def test_what_is_no_file_is_told_at_once(make_capture, kind, name):
    import os

    def change(meta):
        meta["ply_file_path"] = "points.ply"
        meta["frames"][3]["mask_path"] = "mask.png"

    root = make_capture(change=change)
    Image.new("L", (24, 16), 255).save(root / "mask.png")
    (root / "points.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
        "property float z\nend_header\n0 0 0\n"
    )
    path = root / name
    path.unlink()
    make = {"pipe": os.mkfifo, "folder": os.mkdir, "empty": lambda p: p.write_text("")}
    make |= {"device": lambda p: p.symlink_to("/dev/zero"), "loop": lambda p: p.symlink_to(p.name)}
    make[kind](path)
    if name.startswith("images") and kind != "empty":  # a picture that is not there
        scene, words = told(root)
        assert len(scene.frames) == 8 and "1 of 9 images are missing" in words[0]
        return
    with pytest.raises(DataError) as caught:
        ImageCache(load_scene(root))
    assert name.partition(".")[0] in str(caught.value) or "not a capture" in str(caught.value)


def test_arrays_that_promise_more_than_they_hold(tmp_path):
    (tmp_path / "images").mkdir()
    path = tmp_path / "poses_bounds.npy"
    np.save(path, np.ones((2, 17)))
    good = path.read_bytes()
    assert b"(2, 17)" in good
    for shape in (b"(9**9, 17)", b"(99999999999, 17)", b"(-1, 17)", b"((((((("):
        path.write_bytes(good.replace(b"(2, 17), }".ljust(len(shape) + 3), shape + b", }"))
        with pytest.raises(DataError, match="cannot be read as an array"):
            load_scene(tmp_path)
