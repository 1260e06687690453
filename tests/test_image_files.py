"""The one door for pictures: what gets in, what does not, and that nothing else happens there."""

from __future__ import annotations

import ast
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import scene4d
from scene4d.data.maps import depth_size, read_depth, read_mask
from scene4d.data.process.pictures import place_picture
from scene4d.errors import DataError
from scene4d.image_files import MAX_PIXELS, image_header, open_picture, read_picture

PACKAGE = Path(scene4d.__file__).parent
POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 20 20
0.5 setgray 0 0 20 20 rectfill
showpage
%%EOF
"""


def test_no_picture_is_opened_elsewhere() -> None:
    openers = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Image.open", "PIL.Image.open")
    ]
    assert len(openers) == 1
    assert openers[0].startswith("image_files.py")


@pytest.fixture
def ghostscript_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``gs`` first on the PATH that leaves this file when it is started."""
    from PIL import EpsImagePlugin

    mark, folder = tmp_path / "gs-was-here", tmp_path / "bin"
    folder.mkdir()
    program = folder / "gs"
    program.write_text(f'#!/bin/sh\ntouch {mark}\n[ "$1" = --version ]\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # looked for once a process
    return mark


@pytest.mark.skipif(shutil.which("sh") is None, reason="the false gs is a shell script")
def test_postscript_by_another_name_starts_nothing(tmp_path: Path, ghostscript_mark: Path) -> None:
    path = tmp_path / "0.png"
    path.write_bytes(POSTSCRIPT)
    with Image.open(path) as image, pytest.raises(Exception, match="gs"):
        image.load()
    assert ghostscript_mark.exists(), "Pillow by itself does start it"
    ghostscript_mark.unlink()
    (tmp_path / "out").mkdir()
    for read in (
        image_header,
        read_picture,
        read_mask,
        lambda p: read_depth(p, 1.0),
        lambda p: place_picture(p, tmp_path / "out", "0.png"),
    ):
        with pytest.raises(DataError, match=r"0\.png: cannot be read as an image"):
            read(path)
    assert not ghostscript_mark.exists()


def png_that_declares(width: int, height: int) -> bytes:
    """A small PNG whose header and (zero) content say ``width`` x ``height`` grey pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        )

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_a_bomb_is_refused_by_its_header(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    side = int(MAX_PIXELS**0.5) + 1
    path = tmp_path / "a.png"
    path.write_bytes(png_that_declares(side, side))
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(DataError, match=f"{side} x {side} pixels large, and at most"):
        read_picture(path)
    path.write_bytes(png_that_declares(14_000, 14_000))  # a phone's 196 megapixels
    with open_picture(path) as image:
        assert image.size == (14_000, 14_000)
    with (
        pytest.raises(DataError, match="at most 1,000,000 pixels"),
        open_picture(path.read_bytes(), where="poster", max_pixels=1_000_000),
    ):
        pass
    assert limit == Image.MAX_IMAGE_PIXELS
    assert not [w for w in recwarn if "ecompression" in w.category.__name__]


def test_memory_bounds_what_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (200, 100)).save(path)
    monkeypatch.setattr("scene4d.image_files.available_ram_bytes", lambda: 4 * 12 * 19_999.0)
    with pytest.raises(DataError, match="free memory"):
        read_picture(path)
    monkeypatch.setattr("scene4d.image_files.available_ram_bytes", lambda: 4 * 12 * 20_000.0)
    assert read_picture(path).shape == (100, 200, 3)


@pytest.mark.parametrize("name", ["a.png", "a.npy"])
def test_pipes_devices_and_folders_are_refused_at_once(tmp_path: Path, name: str) -> None:
    pipe, folder, device = tmp_path / name, tmp_path / "sub" / name, tmp_path / "dev" / name
    folder.mkdir(parents=True)
    device.parent.mkdir()
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    for path in (pipe, folder, device):
        for read in (lambda p: read_depth(p, 1.0), depth_size, read_picture):
            with pytest.raises(DataError, match=r"pipe|folder|not a file"):
                read(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "gif", "bmp", "jp2", "ppm"])
def test_whatever_is_wrong_with_the_bytes_is_one_error(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / f"a.{suffix}"
    pixels = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    whole = path.read_bytes()
    for attempt in range(60):
        data = bytearray(whole[: rng.integers(0, len(whole))] if attempt % 2 else whole)
        for _ in range(attempt % 4 * 3):
            if data:
                data[rng.integers(0, min(len(data), 200))] = rng.integers(0, 256)
        path.write_bytes(bytes(data))
        for read in (read_picture, read_mask, lambda p: read_depth(p, 1.0)):
            try:
                read(path)
            except DataError as error:
                assert str(path) in str(error)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cannot be read as an image"):
        read_picture(path)


def test_sixteen_bits_and_floating_point(tmp_path: Path) -> None:
    grey = np.array([[0, 255, 256, 65535]])
    for kind in (np.uint16, np.int32):
        Image.fromarray(grey.astype(kind)).save(tmp_path / "a.tif")
        assert read_picture(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 0, 1, 255]
    Image.fromarray(grey.astype(np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(DataError, match="floating point"):
        read_picture(tmp_path / "f.tif")


def npy(shape: tuple[int, ...], content: bytes = b"", descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape!r}, }}"
    text += " " * (63 - (10 + len(text)) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        npy((1 << 20, 1 << 20)),
        npy((1 << 62, 1 << 62)),
        npy((-1, 4), bytes(16)),
        npy((2, 2), bytes(16))[:40],
        npy((2, 2), bytes(16), descr="'O'"),
        npy((2, 2), bytes(16), descr="[" * 200),
        npy((2, 2), bytes(32), descr="'<c8'"),
        npy((0, 2)),
        npy((), bytes(4)),
    ],
)
def test_depth_arrays_that_lie_about_themselves(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    for read in (lambda p: read_depth(p, 1.0), depth_size):
        with pytest.raises(DataError, match=r"a\.npy: is (damaged|not a depth map)"):
            read(path)
