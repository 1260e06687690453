"""Videos and image folders: what is read back is what was written, and never half of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from optional_packages import import_or_skip
from PIL import Image

from scene4d.cameras.camera import Camera
from scene4d.errors import DataError, Scene4dError, UsageError
from scene4d.exporters import video
from scene4d.exporters.frames import (
    focus_distance,
    path_depth_range,
    picture,
    render_frames,
    to_bytes,
)
from scene4d.exporters.video import side_by_side, write_images, write_video
from scene4d.rendering.colormap import colour_depth, depth_range, turbo
from scene4d.rendering.render import RGB, Render
from scene4d.representations.base import Representation


def solid(colour, size=(48, 64)) -> np.ndarray:
    return np.full((*size, 3), colour, dtype=np.uint8)


def decode(path):
    av = import_or_skip("av")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [
            f.reformat(format="rgb24", src_colorspace="ITU709", src_color_range="MPEG").to_ndarray()
            for f in container.decode(stream)
        ]
        return stream, frames


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_video_keeps_colours_count_rate_and_format(tmp_path, suffix):
    import_or_skip("av")
    colours = [(200, 30, 40), (20, 180, 60), (10, 40, 220), (128, 128, 128), (255, 255, 255)]
    path = write_video(map(solid, colours), tmp_path / f"v{suffix}", fps=12.5)
    stream, frames = decode(path)
    assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert float(stream.average_rate) == 12.5
    assert stream.codec_context.colorspace == 1  # BT.709 is written into the stream
    assert len(frames) == len(colours)
    for frame, colour in zip(frames, colours, strict=True):
        # 8-bit video range has 219 steps for 255 values, twice rounded, quantised at crf 18;
        # reading BT.709 as BT.601 would be off by 20 and more
        np.testing.assert_allclose(frame.mean((0, 1)), colour, atol=4)


@pytest.mark.parametrize("size", [(47, 63), (48, 63), (47, 64), (1, 1)])
def test_odd_sizes_are_padded_by_their_last_row_and_column(tmp_path, size):
    import_or_skip("av")
    path = write_video([solid((90, 90, 90), size)] * 2, tmp_path / "v.mp4")
    _, frames = decode(path)
    assert frames[0].shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    np.testing.assert_allclose(frames[0], 90, atol=4)  # a grey stays grey up to the new edge


def test_a_failing_video_leaves_the_earlier_one(tmp_path):
    import_or_skip("av")
    path = tmp_path / "v.mp4"
    path.write_bytes(b"earlier")

    def failing():
        yield solid(0)
        raise RuntimeError("the renderer failed")

    with pytest.raises(RuntimeError, match="renderer"):
        write_video(failing(), path)
    with pytest.raises(Scene4dError, match="frame 1"):
        write_video([solid(0), solid(0, (10, 10))], path)
    with pytest.raises(Scene4dError, match="no frame"):
        write_video([], path)
    assert path.read_bytes() == b"earlier"
    assert [p.name for p in tmp_path.iterdir()] == ["v.mp4"]


def test_wrong_names_and_rates_of_videos_are_usage_errors(tmp_path):
    import_or_skip("av")
    with pytest.raises(UsageError, match=r"\.mp4"):
        write_video([solid(0)], tmp_path / "v.gif")
    with pytest.raises(UsageError, match="per second"):
        write_video([solid(0)], tmp_path / "v.mp4", fps=0.0)


def test_png_images_are_read_back_exactly_with_their_folders(tmp_path):
    random = np.random.default_rng(0).integers(0, 256, (3, 11, 7, 3), dtype=np.uint8)
    names = ["a.png", "left/b.png", "c.jpg"]
    out = write_images(iter(random), tmp_path / "deep" / "out", names)
    for frame, name in zip(random[:2], names[:2], strict=True):
        assert np.array_equal(np.asarray(Image.open(out / name)), frame)
    assert Image.open(out / "c.jpg").format == "JPEG"
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_a_full_folder_is_kept_unless_asked_and_only_images_are_replaced(tmp_path):
    out = tmp_path / "out"
    write_images([solid(1)], out, ["old.png"])
    with pytest.raises(UsageError, match="not empty"):
        write_images([solid(2)], out, ["new.png"])
    write_images([solid(2)], out, ["new.png"], overwrite=True)
    assert [p.name for p in out.iterdir()] == ["new.png"]
    (out / "thesis.txt").write_text("do not lose me")
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        write_images([solid(3)], out, ["x.png"], overwrite=True)
    assert (out / "thesis.txt").exists() and (out / "new.png").exists()


def test_a_failing_sequence_leaves_the_earlier_folder(tmp_path):
    out = tmp_path / "out"
    write_images([solid(1)], out, ["old.png"])

    def failing():
        yield solid(0)
        raise RuntimeError("the renderer failed")

    with pytest.raises(RuntimeError, match="renderer"):
        write_images(failing(), out, ["a.png", "b.png"], overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert [p.name for p in out.iterdir()] == ["old.png"]


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["../a.png"], DataError, "outside"),
        (["a.exe"], UsageError, r"\.png"),
        (["a.png", "a.png"], UsageError, "two images"),
        ([], Scene4dError, "no image"),
    ],
)
def test_impossible_names_are_refused(tmp_path, names, error, message):
    with pytest.raises(error, match=message):
        write_images([solid(0)] * len(names), tmp_path / "out", names)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_folders_place_is_kept(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UsageError, match="not a folder"):
        write_images([solid(0)], tmp_path / "out", ["a.png"], overwrite=True)


def test_missing_pyav_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(Scene4dError, match=r"scene4d\[video\]"):
        video.write_video([solid(0)], tmp_path / "v.mp4")


def test_turbo_has_its_published_colours():
    # As d3-scale-chromatic's interpolateTurbo gives them, from the same polynomial with other
    # digits, in whole bytes: half a byte of rounding and as much of digits
    expected = torch.tensor([[35, 23, 27], [149, 251, 81], [144, 12, 0]]) / 255
    colours = turbo(torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(colours, expected, atol=1.2 / 255, rtol=0)
    torch.testing.assert_close(turbo(torch.tensor([-9.0, 9.0])), turbo(torch.tensor([0.0, 1.0])))


def test_depth_range_counts_only_what_is_seen():
    depth = torch.cat([torch.linspace(1, 2, 101), torch.tensor([100.0, torch.nan, torch.inf, 0])])
    alpha = torch.cat([torch.ones(101), torch.tensor([0.1, 1.0, 1.0, 1.0])])
    assert depth_range(depth, alpha) == pytest.approx((1.02, 1.98), abs=1e-5)
    assert depth_range(depth, torch.zeros(105)) == (0.0, 1.0)
    colours = colour_depth(depth, alpha, (1.0, 2.0))
    assert torch.isfinite(colours).all()
    assert (colours[102:104] == 0).all()  # NaN and infinity are black
    torch.testing.assert_close(colours[:101], turbo(torch.linspace(0, 1, 101)))
    assert torch.isfinite(colour_depth(depth[:3], alpha[:3], (1.0, 1.0))).all()


def test_bytes_are_rounded_clamped_and_free_of_nan():
    values = torch.tensor([[[-1.0, 0.5 / 255 - 1e-6, 0.5 / 255 + 1e-6], [1.0, 2.0, torch.nan]]])
    assert to_bytes(values).tolist() == [[[0, 0, 1], [255, 255, 0]]]


class Wall:
    """A wall at depth 2 + x / width over the right three quarters of every picture."""

    def render(self, camera, *, background=None, want=RGB):
        x = ((torch.arange(camera.width) + 0.5) / camera.width).expand(camera.height, -1)
        alpha = (x > 0.25).float()
        rgb = alpha[..., None] * torch.tensor([1.0, 0.0, 0.0])
        if background is not None:
            rgb = rgb + (1 - alpha[..., None]) * background
        return Render(rgb=rgb, alpha=alpha, depth=(2 + x) * alpha if want.depth else None)


@pytest.fixture
def cameras():
    K = torch.tensor([[40.0, 0, 20], [0, 40, 15], [0, 0, 1]])
    return [Camera(c2w=torch.eye(4), K=K, width=40, height=30)] * 3


def test_rendered_pictures_of_every_output(cameras):
    class Scene(Wall, Representation):
        def __init__(self):
            torch.nn.Module.__init__(self)

        parameter_groups = plain_data = from_saved = lambda self: None

    scene = Scene()
    near, far = path_depth_range(scene, cameras)
    assert 2.25 < near < 2.3 and 2.95 < far < 3.0  # 2nd and 98th percentile of 2.25 to 3
    blue = torch.tensor([0.0, 0.0, 1.0])
    frames = list(render_frames(scene, cameras, outputs=("rgb", "depth", "alpha"), background=blue))
    assert len(frames) == 3 and list(frames[0]) == ["rgb", "depth", "alpha"]
    first = frames[0]
    assert first["rgb"][0, 0].tolist() == [0, 0, 255] and first["rgb"][0, 39].tolist() == [
        255,
        0,
        0,
    ]
    assert first["alpha"][0, 0].tolist() == [0] * 3 and first["alpha"][0, 39].tolist() == [255] * 3
    assert first["depth"][0, 0].tolist() == [0] * 3
    assert first["depth"][0, 11, 2] > 100 > first["depth"][0, 39, 2]  # near blue, far red
    assert side_by_side(list(first.values())).shape == (30, 120, 3)
    with pytest.raises(ValueError, match="want=DEPTH"):
        picture(scene.render(cameras[0]), "depth")


class _Wall(Representation):
    """Something at one depth, whatever the camera."""

    def __init__(self, depth: float, alpha: float = 1.0):
        super().__init__()
        self.depth, self.alpha = depth, alpha

    parameter_groups = plain_data = from_saved = lambda self: None

    def render(self, camera, *, background=None, want=RGB):
        size = camera.height, camera.width
        return Render(
            rgb=torch.zeros(*size, 3),
            alpha=torch.full(size, self.alpha),
            depth=torch.full(size, self.depth),
        )


def _aside(x: float, *, towards: float | None = None) -> Camera:
    """A camera at x, looking along -z, or at the point ``towards`` before the origin."""
    c2w = torch.eye(4)
    c2w[0, 3] = x
    if towards is not None:
        angle = torch.atan(torch.tensor(x / towards))
        c2w[0, 0] = c2w[2, 2] = angle.cos()
        c2w[0, 2], c2w[2, 0] = angle.sin(), -angle.sin()
    K = torch.tensor([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]])
    return Camera(c2w=c2w, K=K, width=64, height=48)


def test_a_path_looks_at_what_is_seen_where_the_axes_do_not_meet():
    parallel = [_aside(x) for x in (-1.0, 0.0, 1.0)]
    assert focus_distance(_Wall(60.0), parallel) == pytest.approx(60.0)  # not 4 times their spread
    meeting = [_aside(x, towards=4.0) for x in (-1.0, 0.0, 1.0)]
    found = focus_distance(_Wall(4.5), meeting)
    assert found == pytest.approx(4.1, abs=0.1)  # their own point, 4 ahead of the middle one
    assert focus_distance(_Wall(90.0), meeting) == pytest.approx(90.0)  # nothing is seen there
    assert focus_distance(_Wall(60.0, alpha=0.0), parallel) is None
