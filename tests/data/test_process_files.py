"""process-data's inputs: every file is taken or told, and colours come out as they were meant."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from optional_packages import import_or_skip
from PIL import Image, features

from scene4d.data.process.colours import (
    frame_picture,
    hlg_scene_light,
    ordinary_colours,
    pq_display_light,
)
from scene4d.data.process.files import find_pictures, why_unreadable
from scene4d.data.process.inputs import check_photos, check_video, refuse_without_pictures
from scene4d.data.process.pictures import place_picture
from scene4d.data.process.progress import Ticker
from scene4d.errors import DataError

SIZE = (48, 36)


def smooth_pixels() -> np.ndarray:
    """[H, W, 3] colours that lossy codecs keep."""
    x, y = np.meshgrid(np.linspace(20, 230, SIZE[0]), np.linspace(30, 220, SIZE[1]))
    return np.stack([x, y, 255 - x], -1).astype(np.uint8)


def picture(mode: str = "RGB") -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(picture("L")).astype(np.uint16) * 257)
    image = Image.fromarray(smooth_pixels()).convert(mode)
    if mode == "RGBA":
        image.putpixel((0, 0), (0, 0, 0, 0))  # WebP forgets an alpha channel that says nothing
    return image


# One folder of everything


def test_every_file_is_taken_or_told(tmp_path: Path) -> None:
    taken = ["a.JPG", "b.jfif", "c.jpe", "d.gif", "e.jp2", "f.webp", "g", "h.weird", "sub/i.png"]
    if features.check("avif"):
        taken.append("j.avif")
    for name in taken:
        kind = {"a": "JPEG", "b": "JPEG", "c": "JPEG", "g": "JPEG", "h": "PNG"}.get(name[0])
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture().save(tmp_path / name, format=kind)
    told = {
        **dict.fromkeys(("x.dng", "x.CR3", "x.raf", "x.orf", "x.rw2", "x.nef"), "raw photos"),
        **{"x.exr": "OpenEXR", "x.jxl": "JPEG XL", "x.insp": "360 degree"},
    }
    other = {"x.mov": "a video", "x.xmp": "not a picture", "Thumbs.db": "not a picture"}
    for name in (*told, *other):
        (tmp_path / name).write_bytes(b"anything")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / ".hidden.jpg").write_bytes(b"x")
    found = find_pictures(tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in found.pictures]
    assert sorted(names) == sorted(taken)
    assert set(found.unreadable) == set(told)
    for name, why in told.items():
        assert why in found.unreadable[name]
    assert "a pipe" in found.others.pop("pipe.jpg")
    assert "a link to nothing" in found.others.pop("gone.jpg")
    assert set(found.others) == set(other)
    assert all(other[name] in found.others[name] for name in other)


def test_heic_is_told_with_the_way_out_by_name_and_by_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scene4d.data.process.files.reads_heif", lambda: False)
    for name in ("a.HEIC", "b.hif", "c.jpg"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    found = find_pictures(tmp_path)
    assert list(found.unreadable) == ["a.HEIC", "b.hif"]
    assert "pip install pi-heif" in found.unreadable["b.hif"]
    with pytest.raises(DataError) as caught:
        place_picture(tmp_path / "c.jpg", tmp_path / "out", "c.jpg")
    assert "HEIC, whatever its name" in why_unreadable(tmp_path / "c.jpg", caught.value)


# What COLMAP is given


@pytest.mark.parametrize(
    ("name", "mode", "ending"),
    [
        ("a.webp", "RGB", "jpg"),
        ("a.webp", "RGBA", "png"),
        ("a.jp2", "RGB", "jpg"),
        ("a.gif", "P", "png"),
        ("a.png", "P", "png"),
        ("a.png", "I;16", "png"),
        ("a.jpg", "CMYK", "jpg"),
        ("a.tif", "CMYK", "png"),
        ("a.bmp", "RGB", "png"),
        ("a.b/c", "RGB", "jpg"),
    ],
)
def test_what_colmap_cannot_read_is_converted(
    tmp_path: Path, name: str, mode: str, ending: str
) -> None:
    source = tmp_path / "in" / name
    source.parent.mkdir(parents=True)
    kind = {"a.webp": "WEBP", "a.b/c": "WEBP"}.get(name)
    picture(mode).save(source, format=kind, **({"quality": 95} if kind else {}))
    found = place_picture(source, tmp_path / "out", name)
    assert found.name == f"{name.removesuffix(Path(name).suffix)}.{ending}"
    assert found.source == name
    with Image.open(tmp_path / "out" / found.name) as written:
        assert written.format == {"jpg": "JPEG", "png": "PNG"}[ending]
        assert written.mode in ("RGB", "RGBA")
        pixels = np.asarray(written.convert("RGB")).astype(float)
    expected = picture({"I;16": "L", "CMYK": "RGB"}.get(mode, mode)).convert("RGB")
    # lossy twice: some grey levels
    assert abs(pixels - np.asarray(expected).astype(float)).mean() < 4


@pytest.mark.parametrize(
    ("name", "kind", "mode"),
    [
        ("a.jpg", "JPEG", "RGB"),
        ("a.jfif", "JPEG", "L"),
        ("A.PNG", "PNG", "RGBA"),
        ("a", "PNG", "L"),
    ],
)
def test_plain_files_are_copied_byte_by_byte(
    tmp_path: Path, name: str, kind: str, mode: str
) -> None:
    picture(mode).save(tmp_path / name, format=kind)
    found = place_picture(tmp_path / name, tmp_path / "out", name)
    assert (tmp_path / "out" / found.name).read_bytes() == (tmp_path / name).read_bytes()
    assert Path(found.name).suffix.lower() == {"JPEG": ".jpg", "PNG": ".png"}[kind]
    again = place_picture(tmp_path / name, tmp_path / "out", name, {found.name})
    assert again.name != found.name and again.digest == found.digest


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_out_upright_from_every_format(
    tmp_path: Path, orientation: int
) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Maker"
    for name in ("a.jpg", "b.webp", "c.png"):
        picture().save(tmp_path / name, exif=exif, quality=95)
        found = place_picture(tmp_path / name, tmp_path / "out", name)
        with (
            Image.open(tmp_path / name) as stored,
            Image.open(tmp_path / "out" / found.name) as new,
        ):
            expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB")).astype(float)
            assert new.getexif().get(0x0112, 1) == 1
            assert new.getexif()[0x010F] == "Maker"
            assert np.asarray(new).shape == expected.shape
            assert abs(np.asarray(new) - expected).mean() < 4


def test_names_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.png"))
    try:
        picture().save(path)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    found = find_pictures(tmp_path)
    placed = place_picture(found.pictures[0], tmp_path / "out", found.pictures[0].name)
    assert placed.name == "a?.png"


# The other kind of input


def test_the_other_kind_of_input_is_told(tmp_path: Path) -> None:
    video, photos, films = tmp_path / "walk.MOV", tmp_path / "photos", tmp_path / "films"
    photos.mkdir()
    films.mkdir()
    video.write_bytes(b"x")
    (films / "a.mp4").write_bytes(b"x")
    picture().save(photos / "a.jpg")
    with pytest.raises(DataError, match=r"did you mean: .* video --data .*walk\.MOV"):
        check_photos(video)
    with pytest.raises(DataError, match=r"folder of photos, not one of them"):
        check_photos(photos / "a.jpg")
    with pytest.raises(DataError, match=r"did you mean: .* video --data .*a\.mp4"):
        check_video(films)
    with pytest.raises(DataError, match=r"did you mean: .* video --data .*a\.mp4"):
        refuse_without_pictures(find_pictures(films), films)
    with pytest.raises(DataError, match=r"process-data images --data .*photos"):
        check_video(photos)
    with pytest.raises(DataError, match=r"process-data images --data .*photos"):
        check_video(photos / "a.jpg")
    (films / "b.mp4").write_bytes(b"x")
    with pytest.raises(DataError, match="2 videos"):
        check_video(films)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe or a device"):
        check_video(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a folder"):
        check_photos(tmp_path / "pipe")
    (photos / "a.jpg").unlink()
    (photos / "b.cr3").write_bytes(b"x")
    with pytest.raises(DataError, match=r"1 file like b\.cr3: raw photos"):
        refuse_without_pictures(find_pictures(photos), photos)


# Colours of videos


def test_the_curves_of_bt_2100() -> None:
    # table 5: the branches meet at 1/12, and 1 is the peak; BT.2408: white at 75 % is 26.5 %
    np.testing.assert_allclose(hlg_scene_light(np.array([0, 0.5, 1.0])), [0, 1 / 12, 1], atol=1e-6)
    assert hlg_scene_light(np.float32(0.75)) == pytest.approx(0.265, abs=1e-3)
    # table 4, and BT.2408, table 1: 203 cd/m2 is 58 %, 1000 is 75 %
    found = pq_display_light(np.array([0, 0.5807, 0.7518, 1.0]))
    np.testing.assert_allclose(found, [0, 203, 1000, 10_000], rtol=2e-3)


@pytest.mark.parametrize(("transfer", "white", "black"), [(18, 0.75, 0.0), (16, 0.5807, 0.0)])
def test_hdr_white_black_and_colours(transfer: int, white: float, black: float) -> None:
    signal = np.array([[[white] * 3, [black] * 3, [1.0] * 3]], dtype=np.float32)
    found = ordinary_colours(signal, transfer)[0]
    assert found.tolist() == pytest.approx(np.array([[255] * 3, [0] * 3, [255] * 3]), abs=1)
    # BT.709 red in BT.2020 (BT.2087): 0.6274, 0.0691, 0.0164 of the light
    light = np.array([0.6274, 0.0691, 0.0164])
    if transfer == 18:
        scene = light * float(hlg_scene_light(np.float32(0.75)))
        coded = np.where(
            scene <= 1 / 12,
            np.sqrt(3 * scene),
            0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073,
        )
    else:
        y = (203 * light / 10_000) ** (2610 / 16384)
        coded = ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)
    red = ordinary_colours(coded[None, None].astype(np.float32), transfer)[0, 0]
    assert red.tolist() == pytest.approx([255, 0, 0], abs=6)  # the matrix has four digits


def flat_frame(name: str, values: tuple[int, int, int], width: int = 64, height: int = 48):
    av = import_or_skip("av")
    frame = av.VideoFrame(width, height, name)
    kind = np.uint16 if "10" in name else np.uint8
    for plane, value in zip(frame.planes, values, strict=True):
        np.frombuffer(plane, dtype=kind)[:] = value
    return frame


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("matrix", "height", "kr", "kb"),
    [
        (1, 48, 0.2126, 0.0722),
        (5, 720, 0.299, 0.114),
        (9, 48, 0.2627, 0.0593),
        (2, 48, 0.299, 0.114),
        (2, 720, 0.2126, 0.0722),
    ],
)
def test_matrix_and_range_are_honoured(
    full: bool, matrix: int, height: int, kr: float, kb: float
) -> None:
    """ITU-R BT.601, BT.709, BT.2020: R = Y + 2 (1 - Kr) Cr, and so on."""
    y, cb, cr = 110, 100, 150
    frame = flat_frame("yuv420p", (y, cb, cr), width=height * 4 // 3, height=height)
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    scale = 255 if full else 219
    luma, blue, red = (y - (0 if full else 16)) / scale, cb - 128, cr - 128
    chroma = 255 if full else 224
    r, b = luma + 2 * (1 - kr) * red / chroma, luma + 2 * (1 - kb) * blue / chroma
    g = (luma - kr * r - kb * b) / (1 - kr - kb)
    found = np.asarray(frame_picture(frame))[5, 5]
    assert found.tolist() == pytest.approx([255 * r, 255 * g, 255 * b], abs=2.5)  # swscale rounds


def test_an_hlg_frame_of_ten_bits_is_mapped_and_another_is_not() -> None:
    # 75 % of the limited range of ten bits, without colour: diffuse white
    frame = flat_frame("yuv420p10le", (64 + round(0.75 * 876), 512, 512))
    frame.colorspace, frame.color_range = 9, 1
    assert np.asarray(frame_picture(frame))[5, 5].tolist() == pytest.approx([191] * 3, abs=2)
    frame.color_trc, frame.color_primaries = 18, 9
    assert np.asarray(frame_picture(frame))[5, 5].tolist() == pytest.approx([255] * 3, abs=2)


# Signs of life


def test_long_stages_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("scene4d.data.process.progress.time.monotonic", lambda: now[0])
    said: list[str] = []
    ticker = Ticker(said.append, "matching", 300)
    for done in range(300):
        now[0] += 0.1
        ticker.at(done)
    assert said[0] == "matching: 300"
    assert 4 <= len(said) - 1 <= 6  # thirty seconds
    assert said[1].strip().startswith("matching: ") and said[1].endswith(" of 300")
