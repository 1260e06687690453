import json
import logging
import time

import numpy as np
import pytest
import torch
from PIL import Image

from scene4d.cameras.rays import project
from scene4d.data.images import ImageCache
from scene4d.data.load import load_scene
from scene4d.data.maps import read_depth, read_mask
from scene4d.data.options import SceneOptions
from scene4d.errors import DataError, NotEnoughMemoryError, UsageError
from scene4d.image_files import image_header, read_picture
from scene4d.memory import available_ram_bytes


def test_pixels_are_those_of_the_file(make_capture):
    scene = load_scene(make_capture())
    cache = ImageCache(scene)
    view = cache.view(4)
    stored = np.asarray(Image.open(scene.frames[4].image_path))
    np.testing.assert_array_equal((view.rgb.numpy() * 255).round(), stored)
    assert view.index == 4 and view.rgb.dtype == torch.float32
    assert view.alpha is None and view.mask is None and view.depth is None
    assert cache.nbytes == 9 * 24 * 16 * 3


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_levels_are_box_means(make_capture, factor):
    scene = load_scene(make_capture())
    cache = ImageCache(scene)
    view = cache.view(0, factor)
    height, width = 16 // factor, 24 // factor
    assert view.rgb.shape == (height, width, 3)
    assert (view.camera.width, view.camera.height) == (width, height)
    full = cache.view(0).rgb[: height * factor, : width * factor]
    mean = full.reshape(height, factor, width, factor, 3).mean((1, 3))
    # Kept as bytes: rounding to 1/255 moves a value by half of that.
    assert (view.rgb - mean).abs().max() <= 0.5 / 255 + 1e-6
    # The camera divides positions by exactly the factor, though 16 and 24 do not.
    point = torch.tensor([[0.1, 0.2, 0.3]])
    torch.testing.assert_close(
        project(view.camera, point)[0] * factor, project(cache.view(0).camera, point)[0]
    )
    # The factor of the whole cache makes the same picture.
    whole = ImageCache(scene, downscale_factor=factor).view(0)
    torch.testing.assert_close(whole.rgb, view.rgb)
    torch.testing.assert_close(whole.camera.K, view.camera.K)


def test_camera_without_pixels_is_that_of_the_view(make_capture):
    scene = load_scene(make_capture(change=lambda meta: meta.update(k1=0.1)))
    cache = ImageCache(scene, downscale_factor=2, indices=[0])
    there, here = cache.camera(3, 2), cache.view(3, 2).camera
    assert (there.width, there.height) == (here.width, here.height)
    torch.testing.assert_close(there.K, here.K)
    assert here.distortion is None


def rgba_capture(make_capture, pixels):
    def change(meta):
        meta["frames"] = meta["frames"][:2]

    root = make_capture(change=change)
    Image.fromarray(pixels, "RGBA").save(root / "images" / "000.png")
    return load_scene(root, SceneOptions(test_every=0))


def test_alpha_is_averaged_premultiplied(make_capture):
    pixels = np.zeros((16, 24, 4), np.uint8)
    pixels[..., 0] = 200  # red everywhere, also where it cannot be seen
    pixels[:, ::2] = [0, 100, 0, 255]
    pixels[:, 1::2, 3] = 0
    cache = ImageCache(rgba_capture(make_capture, pixels))
    view = cache.view(0, 2)
    # Half of each box is opaque green: the mean is half transparent and purely green.
    assert (view.alpha - 0.5).abs().max() <= 0.5 / 255 + 1e-6
    torch.testing.assert_close(
        view.rgb[3, 3], torch.tensor([0.0, 100 / 255, 0.0]), atol=2e-3, rtol=0
    )


def test_opaque_alpha_is_no_alpha(make_capture):
    pixels = np.full((16, 24, 4), 255, np.uint8)
    cache = ImageCache(rgba_capture(make_capture, pixels))
    assert cache.view(0).alpha is None and cache.view(1).alpha is None


def test_masks_and_depths(make_capture):
    def change(meta):
        meta["frames"][1] |= {"mask_path": "mask.png", "depth_file_path": "depth.png"}
        meta["frames"][2] |= {"mask_path": "mask.png", "depth_file_path": "depth.npy"}

    root = make_capture(change=change)
    mask = np.full((16, 24), 127, np.uint8)
    mask[:8] = 128
    Image.fromarray(mask).save(root / "mask.png")
    depth = np.full((16, 24), 2500, np.uint16)
    depth[:, 12:] = 0
    depth[:, 4:6] = 4000
    Image.fromarray(depth).save(root / "depth.png")
    np.save(root / "depth.npy", np.where(depth > 0, depth, np.nan).astype(np.float32))
    cache = ImageCache(load_scene(root))
    for index in (1, 2):
        view = cache.view(index)
        assert view.mask[:8].all() and not view.mask[8:].any()
        assert view.depth[0, 0] == 2.5 and (view.depth[:, 12:] == 0).all()
    small = cache.view(1, 3)
    # Rows 6..8 hold a masked row; columns 3..5 hold an edge of the depth; 12.. hold nothing.
    assert small.mask[:2].all() and not small.mask[2:].any()
    torch.testing.assert_close(small.depth[0], torch.tensor([2.5, 0, 2.5, 2.5, 0, 0, 0, 0]))


def test_smaller_depth_map_is_enlarged_by_nearest(make_capture):
    def change(meta):
        meta["frames"][1]["depth_file_path"] = "depth.png"

    root = make_capture(change=change)
    Image.fromarray(np.array([[1000, 2000, 3000], [4000, 5000, 6000]], np.uint16)).save(
        root / "depth.png"
    )
    depth = ImageCache(load_scene(root)).view(1).depth
    # Metres in float32, from whole millimetres.
    assert depth[7, 7].item() == pytest.approx(1.0) and depth[8, 16].item() == pytest.approx(6.0)
    assert depth.unique().tolist() == pytest.approx([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])


def test_undistorted_once_with_a_validity_mask(make_capture):
    """A straight edge that the lens bends comes out straight, and the border is marked."""
    from scene4d.cameras.distortion import undistort

    def change(meta):
        meta |= {"k1": -0.25, "w": 120, "h": 80, "fl_x": 80.0, "fl_y": 80.0, "cx": 60.0, "cy": 40.0}

    root = make_capture(change=change, count=2)
    scene_json = json.loads((root / "transforms.json").read_text())
    for frame in scene_json["frames"]:
        Image.new("RGB", (120, 80)).save(root / frame["file_path"])
    scene = load_scene(root, SceneOptions(test_every=0))
    camera = scene.frames[0].camera
    y, x = torch.meshgrid(torch.arange(80) + 0.5, torch.arange(120) + 0.5, indexing="ij")
    xy = undistort((torch.stack([x, y], -1) - camera.K[:2, 2]) / 80, camera.distortion)
    # Brightness is the undistorted x: -0.9..0.9 to 0..1.
    bright = (xy[..., 0] / 1.8 + 0.5).clamp(0, 1) * 255
    picture = bright.round().to(torch.uint8)[..., None].expand(-1, -1, 3).contiguous()
    Image.fromarray(picture.numpy()).save(scene.frames[0].image_path)
    view = ImageCache(scene).view(0)
    expected = ((x - 60) / 80 / 1.8 + 0.5).clamp(0, 1)
    # Half a grey level from the file, half from the cache, a little from interpolation.
    assert view.mask is None  # a barrel lens shows more than the pinhole picture needs
    assert (view.rgb[..., 0] - expected).abs().max() < 2.5 / 255

    def pincushion(meta):
        change(meta)
        meta["k1"] = 0.3

    root = make_capture(change=pincushion, count=2, folder="pincushion")
    for frame in scene_json["frames"]:
        Image.new("RGB", (120, 80), (255, 255, 255)).save(root / frame["file_path"])
    view = ImageCache(load_scene(root, SceneOptions(test_every=0))).view(0)
    assert view.mask is not None and not view.mask[0, 0] and view.mask[40, 60]
    assert view.camera.distortion is None


def test_what_does_not_fit_into_memory_is_the_same_from_disk(make_capture, caplog):
    """Masks, depths, transparency, lenses and levels; whether the thread was faster or not."""
    caplog.set_level(logging.INFO, logger="scene4d")

    def change(meta):
        meta["k1"] = 0.01
        meta["frames"][1] |= {"mask_path": "mask.png", "depth_file_path": "depth.npy"}

    root = make_capture(count=40, change=change)
    Image.fromarray(np.eye(16, 24, dtype=np.uint8) * 255).save(root / "mask.png")
    np.save(root / "depth.npy", np.linspace(1, 2, 384, dtype=np.float32).reshape(16, 24))
    clear = Image.open(root / "images" / "007.png").convert("RGBA")
    clear.putalpha(100)
    clear.save(root / "images" / "007.png")
    scene = load_scene(root)
    roomy = ImageCache(scene)
    assert not caplog.records
    small = ImageCache(scene, ram_budget_gb=2.1 * 24 * 16 * 80 / 1e9)
    assert "kept in a file" in caplog.text and small.nbytes == 0
    order = [3, 1, 3, 7, 0, 5, 5, 31]
    for place, index in enumerate(order):
        for downscale in (1, 2):
            there, here = (cache.view(index, downscale) for cache in (roomy, small))
            small.soon(order[place + 1 :], downscale)
            for name in ("rgb", "alpha", "mask", "depth"):
                one, other = getattr(there, name), getattr(here, name)
                assert (one is None) == (other is None)
                assert one is None or torch.equal(one, other)
    # Seven pictures of two sizes, however often they were asked for, and three that came ahead.
    assert small.nbytes <= (7 + 3) * 24 * 16 * 4 * 5 / 4 + 24 * 16 * 5 * 5 / 4


def test_pictures_are_decoded_ahead_and_damage_is_told_when_one_is_looked_at(make_capture):
    root = make_capture(count=12)
    scene = load_scene(root)
    cache = ImageCache(scene, ram_budget_gb=2.1 * 24 * 16 * 12 / 1e9)
    cache.soon([2, 3])
    deadline = time.monotonic() + 30
    while cache.nbytes < 2 * 24 * 16 * 3:
        assert time.monotonic() < deadline
    (root / "images" / "002.png").unlink()
    cache.view(2)  # was read before
    (root / "images" / "004.png").write_bytes((root / "images" / "004.png").read_bytes()[:200])
    cache.soon([4])
    with pytest.raises(DataError, match=r"004\.png"):
        cache.view(4)


def test_refused_before_decoding_when_neither_memory_nor_disk_has_room(make_capture, monkeypatch):
    root = make_capture(count=60)
    (root / "images" / "003.png").write_bytes((root / "images" / "003.png").read_bytes()[:200])
    scene = load_scene(root)
    working = 24 * 16 * 12 / 1e9  # the copies while one picture is decoded
    needed = 60 * 24 * 16 * 3 * 4 / 3 / 1e9
    monkeypatch.setattr("scene4d.data.images.available_scratch_bytes", lambda: 2e9 * needed / 3)
    with pytest.raises(NotEnoughMemoryError) as caught:
        ImageCache(scene, ram_budget_gb=2 * working + needed / 3)
    # A third of the memory: half the width and height are enough.
    assert "--downscale-factor 2" in str(caught.value)
    with pytest.raises(DataError, match=r"003\.png"):  # only now are pixels read
        ImageCache(scene, ram_budget_gb=1.01 * working + needed)
    with pytest.raises(UsageError, match="--ram-budget-gb"):
        ImageCache(scene, ram_budget_gb=0.0)
    assert available_ram_bytes() > 1e8


def test_only_the_frames_asked_for(make_capture):
    scene = load_scene(make_capture())
    cache = ImageCache(scene, indices=[0, 1])
    assert cache.nbytes == 2 * 24 * 16 * 3
    cache.view(5)
    assert cache.nbytes == 3 * 24 * 16 * 3


def test_too_much_downscaling(make_capture):
    with pytest.raises(DataError, match="cannot be downscaled"):
        ImageCache(load_scene(make_capture()), downscale_factor=17)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK", "RGB", "RGBA", "I;16"])
def test_every_usual_kind_of_picture(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    if mode == "I;16":
        Image.fromarray(np.full((4, 5), 0x8040, np.uint16)).save(path)
    else:
        Image.new("RGBA", (5, 4), (128, 128, 128, 255)).convert(mode).save(path)
    pixels = read_picture(path)
    # Pillow gives a palette made from RGBA a transparent entry.
    assert pixels.shape == (4, 5, 4 if mode in ("LA", "RGBA", "P") else 3)
    if mode not in ("1", "P"):  # these cannot hold an even grey
        assert abs(int(pixels[0, 0, 0]) - 128) <= 1


def test_exif_orientation_is_not_applied(tmp_path):
    image = Image.new("RGB", (6, 4))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(tmp_path / "a.jpg", exif=exif)
    assert image_header(tmp_path / "a.jpg")[:2] == (6, 4)
    assert read_picture(tmp_path / "a.jpg").shape == (4, 6, 3)


def test_mask_kinds(tmp_path):
    values = np.array([[0, 127, 128, 255]], np.uint8)
    Image.fromarray(values).save(tmp_path / "l.png")
    assert read_mask(tmp_path / "l.png").tolist() == [[False, False, True, True]]
    Image.fromarray(values > 127).save(tmp_path / "1.png")
    assert read_mask(tmp_path / "1.png").tolist() == [[False, False, True, True]]
    Image.fromarray(values.astype(np.uint16) * 257).save(tmp_path / "16.png")
    assert read_mask(tmp_path / "16.png").tolist() == [[False, False, True, True]]


def test_depth_files_that_are_none(tmp_path):
    np.save(tmp_path / "cube.npy", np.zeros((2, 3, 4)))
    with pytest.raises(DataError, match="not a depth map"):
        read_depth(tmp_path / "cube.npy", 1.0)
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="damaged"):
        read_depth(tmp_path / "objects.npy", 1.0)
    with pytest.raises(DataError, match="not found"):
        read_depth(tmp_path / "absent.png", 1.0)


def test_fox_border_is_marked_and_alpha_of_the_chair(shared_data):
    fox = ImageCache(load_scene(shared_data / "fox"), indices=[1]).view(1)
    # The lens's coefficients are small: a rim of a percent or two is not in the photograph.
    assert 0.9 < fox.mask.float().mean() < 1
    chair = ImageCache(load_scene(shared_data / "nerf_chair"), indices=[0]).view(0, 4)
    assert chair.alpha.min() == 0 and chair.alpha.max() == 1 and chair.rgb.shape == (100, 100, 3)


def test_the_copies_while_decoding_count(make_capture):
    """Two PNGs of 21 kB took 6.8 GB against a budget of 2."""

    def lens(meta):
        meta["k1"] = 0.01

    for change, per_pixel in ((None, 12), (lens, 80)):
        scene = load_scene(make_capture(count=2, change=change, folder=f"with-{per_pixel}"))
        kept = 2 * 24 * 16 * (3 + (change is not None)) * 4 / 3 / 1e9
        one = 24 * 16 * per_pixel / 1e9
        ImageCache(scene, ram_budget_gb=kept + 1.01 * one)
        with pytest.raises(NotEnoughMemoryError, match=r"images/00\d.png takes"):
            ImageCache(scene, ram_budget_gb=0.99 * one)


def test_a_picture_larger_than_its_camera_is_told_by_its_header(make_capture):
    scene = load_scene(make_capture(count=2))
    Image.new("1", (24_000, 8_000)).save(scene.frames[0].image_path)
    with pytest.raises(DataError, match="24000 x 8000 pixels, but its camera is 24 x 16"):
        ImageCache(scene, ram_budget_gb=1e-3)
