"""Our own reader of COLMAP's sparse models, text and binary.

Formats: colmap.github.io/format.html. No count in a file is believed before it has been compared
with what is left of the file, so a damaged model cannot make us allocate. (pycolmap reads the same
files and the tests compare with it; it is not used here because it aborts on some damaged models,
and so that no extra is needed.)
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scene4d.data.dataparsers.files import find_entry
from scene4d.data.points import read_points
from scene4d.errors import DataError
from scene4d.files import is_regular_file, printable, read_bytes, read_text

MODEL_NAMES: dict[int, tuple[str, int]] = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
    12: ("SIMPLE_DIVISION", 4),
    13: ("DIVISION", 5),
    14: ("SIMPLE_FISHEYE", 3),
    15: ("FISHEYE", 4),
    16: ("EUCM", 6),
    17: ("EQUIRECTANGULAR", 2),
}
"""COLMAP's camera models (up to 4.2): identifier to name and number of parameters."""
_NEWER_FIX = (
    "a newer COLMAP wrote it: make pinhole pictures with its 'colmap image_undistorter', or choose "
    "OPENCV or OPENCV_FISHEYE"
)


@dataclass(frozen=True, kw_only=True)
class ColmapCamera:
    """One lens."""

    model: str
    width: int
    height: int
    params: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ColmapImage:
    """One registered image: its world-to-camera pose, OpenCV axes."""

    name: str
    camera_id: int
    quaternion: tuple[float, float, float, float]
    """wxyz."""
    translation: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class ColmapModel:
    """A sparse model."""

    cameras: dict[int, ColmapCamera]
    images: list[ColmapImage]
    xyz: np.ndarray
    """[n, 3] float64."""
    rgb: np.ndarray
    """[n, 3] uint8."""


def find_model(folder: Path) -> Path | None:
    """The images file of the binary or text model in ``folder``, in any case of its names."""
    for suffix in (".bin", ".txt"):
        images = find_entry(folder, f"images{suffix}")
        if is_regular_file(images) and is_regular_file(find_entry(folder, f"cameras{suffix}")):
            return images
    return None


def read_images(images: Path) -> list[ColmapImage]:
    """The registered images in an images.bin or images.txt. Raises DataError."""
    return (_images_bin if images.suffix.lower() == ".bin" else _images_txt)(images)


def read_model(folder: Path) -> ColmapModel:
    """The sparse model in ``folder``; binary wins when there are both. Raises DataError."""
    found = find_model(folder)
    if found is None:
        raise DataError("holds no cameras and images of a COLMAP model", where=folder)
    suffix = found.suffix.lower()
    read_cameras = _cameras_bin if suffix == ".bin" else _cameras_txt
    cameras = read_cameras(find_entry(folder, f"cameras{suffix}"))
    images = read_images(found)
    for image in images:
        if image.camera_id not in cameras:
            raise DataError(
                f"image {printable(image.name)} has camera {image.camera_id}, which is not in the "
                "model",
                where=found,
            )
    xyz, rgb = _points(folder, suffix)
    return ColmapModel(cameras=cameras, images=images, xyz=xyz, rgb=rgb)


def _points(folder: Path, suffix: str) -> tuple[np.ndarray, np.ndarray]:
    """The model's points, of ``points3D`` in its own form, in the other, or of a PLY file."""
    for ending in dict.fromkeys((suffix, ".bin", ".txt", ".ply")):
        path = find_entry(folder, f"points3D{ending}")
        if not is_regular_file(path):
            continue
        if ending == ".ply":
            points = read_points(path)
            return points.xyz.double().numpy(), points.rgb.numpy()
        return (_points_bin if ending == ".bin" else _points_txt)(path)
    return np.zeros((0, 3)), np.zeros((0, 3), np.uint8)


class _Bytes:
    """A binary file, read in order; every read is checked against its end."""

    def __init__(self, path: Path) -> None:
        self.path, self.data, self.position = path, read_bytes(path), 0

    def take(self, form: str) -> tuple:
        """The next values in ``struct`` notation, little endian."""
        size = struct.calcsize("<" + form)
        start = self.position
        self.skip(size)
        return struct.unpack_from("<" + form, self.data, start)

    def skip(self, size: int) -> None:
        """Passes over ``size`` bytes."""
        if size > len(self.data) - self.position:
            raise DataError(
                "ends in the middle of an entry", where=self.path, fix="the file is truncated"
            )
        self.position += size

    def count(self, smallest: int) -> int:
        """A number of entries, refused when they cannot fit at ``smallest`` bytes each."""
        (number,) = self.take("Q")
        if number * smallest > len(self.data) - self.position:
            raise DataError(
                f"declares {number} entries, more than fit into the file",
                where=self.path,
                fix="the file is truncated or damaged",
            )
        return number

    def name(self) -> str:
        """Text up to a zero byte."""
        end = self.data.find(b"\0", self.position)
        if end < 0:
            raise DataError("a name has no end", where=self.path, fix="the file is truncated")
        raw, self.position = self.data[self.position : end], end + 1
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError("a name is not UTF-8", where=self.path) from error


def _cameras_bin(path: Path) -> dict[int, ColmapCamera]:
    file = _Bytes(path)
    cameras = {}
    for _ in range(file.count(24 + 3 * 8)):
        camera_id, model_id, width, height = file.take("iiQQ")
        if model_id not in MODEL_NAMES:
            raise DataError(
                f"camera {camera_id} has the model number {model_id}, which is not known here",
                where=path,
                fix=_NEWER_FIX if 0 <= model_id < 256 else "the file is damaged: restore it",
            )
        name, num_params = MODEL_NAMES[model_id]
        params = file.take(f"{num_params}d")
        cameras[camera_id] = _camera(name, width, height, params, f"{path}, camera {camera_id}")
    return cameras


def _images_bin(path: Path) -> list[ColmapImage]:
    file = _Bytes(path)
    images = []
    for _ in range(file.count(64 + 1 + 8)):
        _, *pose, camera_id = file.take("i7di")
        name = file.name()
        file.skip(24 * file.count(24))
        images.append(_image(name, camera_id, pose))
    return images


def _points_bin(path: Path) -> tuple[np.ndarray, np.ndarray]:
    file = _Bytes(path)
    count = file.count(51)
    xyz, rgb = np.zeros((count, 3)), np.zeros((count, 3), np.uint8)
    for i in range(count):
        values = file.take("Q3d3Bd")
        xyz[i], rgb[i] = values[1:4], values[4:7]
        file.skip(8 * file.count(8))
    return xyz, rgb


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without comments; blank ones are kept, as an image without points has one."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.lstrip().startswith("#"):
            yield number, line.strip()


def _cameras_txt(path: Path) -> dict[int, ColmapCamera]:
    cameras = {}
    for number, line in _lines(path):
        if not line:
            continue
        where = f"{path}, line {number}"
        fields = line.split()
        try:
            camera_id, width, height = int(fields[0]), int(fields[2]), int(fields[3])
            params = tuple(float(field) for field in fields[4:])
        except (ValueError, IndexError) as error:
            raise DataError("is not 'ID MODEL WIDTH HEIGHT PARAMS...'", where=where) from error
        cameras[camera_id] = _camera(fields[1].upper(), width, height, params, where)
    return cameras


def _images_txt(path: Path) -> list[ColmapImage]:
    """Two lines an image: the pose and name, then its points (possibly an empty line).

    The second line may be left out, as in files made by hand: no image is passed over for it.
    """
    images: list[ColmapImage] = []
    may_be_points = False
    for number, line in _lines(path):
        fields = line.split()
        if may_be_points and _are_points(fields):
            may_be_points = False
            continue
        if not line:
            continue
        image = _image_of_line(line)
        if image is None:
            expected = "'ID QW QX QY QZ TX TY TZ CAMERA_ID NAME'"
            points = f", nor the points of {printable(images[-1].name)}" if may_be_points else ""
            raise DataError(f"is not {expected}{points}", where=f"{path}, line {number}")
        images.append(image)
        may_be_points = True
    return images


def _are_points(fields: list[str]) -> bool:
    """Whether these are 'X Y POINT3D_ID' again and again; no fields are no points."""
    if len(fields) % 3:
        return False
    try:
        return all(math.isfinite(float(field)) for field in fields[:2] + fields[-3:])
    except ValueError:
        return False


def _image_of_line(line: str) -> ColmapImage | None:
    fields = line.split(maxsplit=9)
    try:
        return _image(fields[9], int(fields[8]), [float(field) for field in fields[1:8]])
    except (ValueError, IndexError):
        return None


def _points_txt(path: Path) -> tuple[np.ndarray, np.ndarray]:
    xyz, rgb = [], []
    for number, line in _lines(path):
        if not line:
            continue
        fields = line.split(maxsplit=8)
        try:
            xyz.append([float(field) for field in fields[1:4]])
            rgb.append([min(max(int(field), 0), 255) for field in fields[4:7]])
            if len(xyz[-1]) != 3 or len(rgb[-1]) != 3:
                raise ValueError("too few numbers")
        except ValueError as error:
            raise DataError(
                "is not 'ID X Y Z R G B ...'", where=f"{path}, line {number}"
            ) from error
    return np.array(xyz).reshape(-1, 3), np.array(rgb, np.uint8).reshape(-1, 3)


def _camera(
    model: str, width: int, height: int, params: tuple[float, ...], where: str
) -> ColmapCamera:
    known = dict(MODEL_NAMES.values())
    if model not in known:
        raise DataError(
            f"camera model {printable(repr(model))} is unknown", where=where, fix=_NEWER_FIX
        )
    if len(params) != known[model]:
        raise DataError(f"{model} has {known[model]} parameters, not {len(params)}", where=where)
    if not 0 < width < 2**20 or not 0 < height < 2**20:
        raise DataError(f"the image size {width} x {height} is impossible", where=where)
    if not all(math.isfinite(value) for value in params):
        raise DataError("a parameter is not finite", where=where)
    return ColmapCamera(model=model, width=width, height=height, params=params)


def _image(name: str, camera_id: int, pose: list[float]) -> ColmapImage:
    w, x, y, z, *translation = pose
    return ColmapImage(
        name=name,
        camera_id=camera_id,
        quaternion=(w, x, y, z),
        translation=(translation[0], translation[1], translation[2]),
    )
