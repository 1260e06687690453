"""SOG version 2 (PlayCanvas): attributes as lossless WebP pictures beside a ``meta.json``.

One pixel per splat, row by row: positions 16 bits per axis between bounds after
``sign(x) ln(1 + |x|)``; rotations smallest-three in 3 x 8 + 2 bits; log-scales and constant colours
through a codebook of 256 values each, opacity 8 bits; spherical harmonics as an index into a
palette of up to 65,536 entries whose coefficients go through a codebook of 256. Either a folder or
a .sog file, which is the same in a ZIP. Written along a Z-order curve, where neighbours compress.

Axes: the specification's text says y up, but its authors' tools put the numbers of the 3DGS PLY in
unchanged and take them out unchanged; so does this module. Source:
developer.playcanvas.com, "The SOG Format"; playcanvas/splat-transform (MIT).
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from scene4d.errors import DataError
from scene4d.files import atomic_folder, atomic_path
from scene4d.formats import packing
from scene4d.formats.palette import codebook, nearest_level, palette
from scene4d.formats.splat_cloud import SplatCloud
from scene4d.image_files import open_picture

META = "meta.json"
_OURS = re.compile(r"(means_[lu]|scales|quats|sh0|shN_centroids|shN_labels)\.[0-9a-f]{8}\.webp")
"""Names of pictures in a folder that holds other things as well."""
_COEFFICIENTS = (0, 3, 8, 15)
_ROW = 64
"""Palette entries in a row of their picture."""
_FIRST_TAG = 252
_LONGEST_META = 1 << 22
_SLACK = 1 << 16
_IMAGE_FORMATS = ("WEBP", "PNG")
_EFFORT = 4
"""libwebp's method, 0 to 6. 6 gave the same bytes; with quality 100 it gained at most 1% and took
hundreds of times as long."""

Members = dict[str, bytes]


def write_sog(path: Path, cloud: SplatCloud, *, iterations: int = 5) -> None:
    """Writes ``cloud`` to a .sog file, or to the folder of ``path`` when that is a meta.json.

    ``iterations`` of k-means for the palette of spherical harmonics. Raises :class:`DataError` on
    NaN or infinity. A million splats of degree 3 took 13 s on 2 cores, most of it the palette.
    """
    path = Path(path)
    cloud = packing.checked(cloud, path)
    members, meta = _encode(cloud, iterations, path)
    if path.name == META:
        _write_folder(path.parent, members, meta)
        return
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, data in {META: _text(meta), **members}.items():
            # a fixed date: the same scene gives the same bytes
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)


def _write_folder(folder: Path, members: Members, meta: dict[str, Any]) -> None:
    """Puts the scene into ``folder``, whole or not at all.

    A folder that is new, or holds an earlier scene alone, is replaced as one. One that holds other
    things, or is the working directory, stays: there the pictures get names of their own, told by
    their bytes, the meta.json that names them takes the place of the earlier one in one step, and
    then the earlier scene's pictures go.
    """
    entries = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
    earlier = _named_files(folder) if META in entries else set()
    if folder.resolve() != Path.cwd() and not folder.is_symlink() and entries <= earlier | {META}:
        with atomic_folder(folder) as new:
            for name, data in {**members, META: _text(meta)}.items():
                (new / name).write_bytes(data)
        return
    names = {
        name: f"{Path(name).stem}.{hashlib.sha256(data).hexdigest()[:8]}.webp"
        for name, data in members.items()
    }
    for name, data in members.items():
        with atomic_path(folder / names[name]) as temporary:
            temporary.write_bytes(data)
    for entry in meta.values():
        if isinstance(entry, dict) and "files" in entry:
            entry["files"] = [names[name] for name in entry["files"]]
    with atomic_path(folder / META) as temporary:
        temporary.write_bytes(_text(meta))
    ours = {name for name in entries if _OURS.fullmatch(name)}  # also of a write that was killed
    for name in ((earlier & entries) | ours) - set(names.values()):
        (folder / name).unlink(missing_ok=True)


def _named_files(folder: Path) -> set[str]:
    """The pictures that the folder's meta.json names; none where it is no scene of ours."""
    try:
        meta = _meta(_from_folder(folder, folder)(META, _LONGEST_META), folder)
    except DataError:
        return set()
    lists = [e.get("files") for e in meta.values() if isinstance(e, dict)]
    return {
        name
        for files in lists
        if isinstance(files, list)
        for name in files
        if isinstance(name, str) and name.endswith(".webp") and not set(name) & set("/\\")
    }


def _text(meta: dict[str, Any]) -> bytes:
    return json.dumps(meta, allow_nan=False).encode()


def _encode(cloud: SplatCloud, iterations: int, path: Path) -> tuple[Members, dict[str, Any]]:
    cloud = packing.taken(cloud, packing.morton_order(cloud.means))
    count = len(cloud)
    width = max(4, -(-int(np.ceil(count**0.5)) // 4) * 4)
    height = max(4, -(-count // (width * 4)) * 4)
    members: Members = {}

    def picture(name: str, *channels: np.ndarray) -> str:
        pixels = np.zeros((height * width, 4), dtype=np.uint8)
        pixels[:count, 3] = 255
        columns = np.column_stack(channels)
        pixels[:count, : columns.shape[1]] = columns
        members[name] = _webp(pixels.reshape(height, width, 4))
        return name

    logs = np.sign(cloud.means) * np.log1p(np.abs(cloud.means.astype(np.float64)))
    low = logs.min(axis=0, initial=np.inf) if count else np.zeros(3)
    high = logs.max(axis=0, initial=-np.inf) if count else np.zeros(3)
    unit = (logs - low) / np.where(high > low, high - low, 1.0)
    codes = packing.to_codes(unit * 65535, 65535, np.uint16)
    largest, others = packing.smallest_three(cloud.quats)
    scales, colours = codebook(cloud.log_scales), codebook(cloud.sh[:, 0])
    scale_codes = nearest_level(cloud.log_scales, scales)
    packing.warn_of_loss(
        path, "SOG", cloud, means=_unlogged(low, high, codes), log_scales=scales[scale_codes],
        advice="the scene moved to the origin, or cropped: scene4d convert --translate, --crop",
    )  # fmt: skip
    alpha = packing.to_codes(255 * packing.opacity_of(cloud.logit_opacities), 255)
    quats = packing.to_codes(255 * (others * np.sqrt(0.5) + 0.5), 255)
    meta: dict[str, Any] = {
        "version": 2,
        "asset": {"generator": "scene4d"},
        "count": count,
        "antialias": cloud.antialiased,
        "means": {
            "mins": low.tolist(),
            "maxs": high.tolist(),
            "files": [
                picture("means_l.webp", (codes & 255).astype(np.uint8)),
                picture("means_u.webp", (codes >> 8).astype(np.uint8)),
            ],
        },
        "scales": {
            "codebook": scales.tolist(),
            "files": [picture("scales.webp", scale_codes)],
        },
        "quats": {"files": [picture("quats.webp", quats, (largest + _FIRST_TAG).astype(np.uint8))]},
        "sh0": {
            "codebook": colours.tolist(),
            "files": [picture("sh0.webp", nearest_level(cloud.sh[:, 0], colours), alpha)],
        },
    }
    if cloud.sh_degree and count:
        meta["shN"] = _encode_harmonics(cloud, iterations, members, picture)
    return members, meta


def _encode_harmonics(
    cloud: SplatCloud, iterations: int, members: Members, picture: Callable[..., str]
) -> dict[str, Any]:
    count, coefficients = len(cloud), cloud.sh.shape[1] - 1
    size = max(1, int(min(64.0, 2.0 ** np.floor(np.log2(count / 1024))) * 1024))
    vectors = np.ascontiguousarray(cloud.sh[:, 1:]).reshape(count, -1)
    centroids, labels = palette(vectors, size, iterations=iterations)
    levels = codebook(centroids)
    rows = -(-len(centroids) // _ROW)
    pixels = np.zeros((rows * _ROW, coefficients, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    pixels[: len(centroids), :, :3] = nearest_level(centroids, levels).reshape(-1, coefficients, 3)
    members["shN_centroids.webp"] = _webp(pixels.reshape(rows, _ROW * coefficients, 4))
    codes = np.stack([labels & 255, labels >> 8, np.zeros_like(labels)], 1).astype(np.uint8)
    return {
        "count": len(centroids),
        "bands": cloud.sh_degree,
        "codebook": levels.tolist(),
        "files": ["shN_centroids.webp", picture("shN_labels.webp", codes)],
    }


def _webp(pixels: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    # exact: colours under transparent pixels are data here, and are kept
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, exact=True, method=_EFFORT)
    return buffer.getvalue()


def read_sog(path: Path, *, drop_invalid: bool = False) -> SplatCloud:
    """The splats of a .sog file, of a folder with meta.json, or of that meta.json.

    Member names stay inside the folder, sizes of pictures are compared with the count, and the
    count with the files' size, before anything is decoded. Raises :class:`DataError`.
    """
    path = Path(path)
    with _members(path) as (load, total):
        meta = _meta(load(META, _LONGEST_META), path)
        count = _integer(meta, "count", path)
        packing.require_plausible(count, total, path)
        reader = _Pictures(load, meta, count, path)
        colours = reader.pixels("sh0")
        cloud = SplatCloud(
            means=_means(reader),
            quats=_quats(reader.pixels("quats"), path),
            log_scales=reader.through_codebook("scales", reader.pixels("scales")[:, :3]),
            logit_opacities=packing.logit_of_bytes(colours[:, 3]),
            sh=np.concatenate(
                [reader.through_codebook("sh0", colours[:, :3])[:, None], _harmonics(reader)],
                axis=1,
            ),
            antialiased=meta.get("antialias") is True,
        )
    return packing.checked(cloud, path, drop_invalid=drop_invalid)


class _Pictures:
    """Decodes the pictures that a meta.json names, none larger than its count asks for."""

    def __init__(self, load, meta: dict[str, Any], count: int, path: Path) -> None:
        self.load, self.meta, self.count, self.path = load, meta, count, path

    def entry(self, name: str) -> dict[str, Any]:
        found = self.meta.get(name)
        if not isinstance(found, dict):
            raise DataError(f"its meta.json has no object {name!r}", where=self.path)
        return found

    def numbers(self, name: str, key: str, lengths: tuple[int, int]) -> np.ndarray:
        """A list of finite numbers of a length between ``lengths``."""
        found = self.entry(name).get(key)
        if (
            not isinstance(found, list)
            or not lengths[0] <= len(found) <= lengths[1]
            or not all(isinstance(x, (int, float)) and abs(x) < 1e30 for x in found)
        ):
            raise DataError(
                f"its meta.json has no list of {lengths[0]} to {lengths[1]} numbers {name}.{key}",
                where=self.path,
            )
        return np.array(found, dtype=np.float64)

    def image(self, name: str, index: int, limit: int, least: int) -> np.ndarray:
        """[height, width, 4] bytes of the picture, of ``least`` to ``limit`` pixels."""
        files = self.entry(name).get("files")
        if not isinstance(files, list) or len(files) <= index or not isinstance(files[index], str):
            raise DataError(f"its meta.json names no file {index} for {name!r}", where=self.path)
        where = f"{self.path}: {files[index]}"
        data = self.load(files[index], None)
        return _decoded(data, where, least, limit)

    def pixels(self, name: str, index: int = 0) -> np.ndarray:
        """[count, 4] bytes."""
        pixels = self.image(name, index, 2 * self.count + _SLACK, self.count)
        return pixels.reshape(-1, 4)[: self.count]

    def through_codebook(self, name: str, codes: np.ndarray) -> np.ndarray:
        levels = self.numbers(name, "codebook", (1, 256))
        if codes.size and int(codes.max()) >= len(levels):
            raise DataError(f"a code is beyond the codebook of {name!r}", where=self.path)
        return levels.astype(np.float32)[codes]


def _decoded(data: bytes, where: str, least: int, limit: int) -> np.ndarray:
    with open_picture(data, where=where, formats=_IMAGE_FORMATS) as image:
        width, height = image.size
        if not least <= width * height <= limit:
            raise DataError(
                f"is {width} x {height} pixels large; {least:,} to {limit:,} are needed",
                where=where,
            )
        return np.asarray(image.convert("RGBA"))


def _means(reader: _Pictures) -> np.ndarray:
    low, high = (reader.numbers("means", key, (3, 3)) for key in ("mins", "maxs"))
    if max(np.abs(low).max(), np.abs(high).max()) > 80:  # e^80 is beyond float32's squares
        raise DataError("its positions are out of all bounds", where=reader.path)
    codes = reader.pixels("means", 0)[:, :3].astype(np.uint16)
    codes |= reader.pixels("means", 1)[:, :3].astype(np.uint16) << np.uint16(8)
    return _unlogged(low, high, codes).astype(np.float32)


def _unlogged(low: np.ndarray, high: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """[N, 3] positions of the codes 0..65535 between bounds of sign(x) ln(1 + |x|)."""
    logs = low + (high - low) * (codes / 65535.0)
    return np.sign(logs) * np.expm1(np.abs(logs))


def _quats(pixels: np.ndarray, path: Path) -> np.ndarray:
    tags = pixels[:, 3]
    if len(tags) and int(tags.min()) < _FIRST_TAG:
        raise DataError(
            "its rotations are damaged: a tag is below 252",
            where=path,
            fix="the pictures were perhaps saved again with loss; get the original",
        )
    others = (pixels[:, :3] / 255.0 * 2 - 1) * np.sqrt(0.5)
    return packing.from_smallest_three(tags - _FIRST_TAG, others)


def _harmonics(reader: _Pictures) -> np.ndarray:
    """[count, K - 1, 3]"""
    count = reader.count
    if reader.meta.get("shN") is None:
        return np.zeros((count, 0, 3), dtype=np.float32)
    entry = reader.entry("shN")
    bands = entry.get("bands")
    if bands not in (1, 2, 3) or isinstance(bands, bool):
        raise DataError(f"has {bands!r} bands of harmonics; 1 to 3 exist", where=reader.path)
    size, coefficients = _integer(entry, "count", reader.path), _COEFFICIENTS[bands]
    if not 1 <= size <= 65536:
        raise DataError(f"has a palette of {size} entries; 1 to 65536 exist", where=reader.path)
    rows = -(-size // _ROW)
    picture = reader.image("shN", 0, 2 * rows * _ROW * coefficients + _SLACK, size * coefficients)
    if picture.shape[1] != _ROW * coefficients or picture.shape[0] < rows:
        raise DataError(
            f"its palette is {picture.shape[1]} x {picture.shape[0]} pixels large, not"
            f" {_ROW * coefficients} x {rows}",
            where=reader.path,
        )
    entries = picture[:rows].reshape(rows * _ROW, coefficients, 4)[:size, :, :3]
    codes = reader.pixels("shN", 1)
    labels = codes[:, 0].astype(np.int64) | (codes[:, 1].astype(np.int64) << 8)
    if count and int(labels.max()) >= size:
        raise DataError("a label is beyond the palette of harmonics", where=reader.path)
    return reader.through_codebook("shN", entries)[labels]


def _meta(data: bytes, path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"its meta.json cannot be read ({error})", where=path) from error
    if not isinstance(meta, dict) or "means" not in meta:
        raise DataError("its meta.json is not that of a SOG scene", where=path)
    if meta.get("version") != 2:
        raise DataError(
            f"is SOG version {meta.get('version', 1)!r}; version 2 can be read",
            where=path,
            fix="convert it with PlayCanvas' splat-transform",
        )
    return meta


def _integer(entry: dict[str, Any], key: str, path: Path) -> int:
    value = entry.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise DataError(f"its meta.json has no count {key!r}", where=path)
    return value


@contextmanager
def _members(path: Path):
    """Yields ``load(name, limit) -> bytes`` and the bytes of all files together."""
    folder = path.parent if path.name == META else path
    if folder.is_dir():
        yield (
            _from_folder(folder, path),
            sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
        )
        return
    try:
        with zipfile.ZipFile(path) as archive:
            yield _from_archive(archive, path), path.stat().st_size
    except DataError:
        raise
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        NotImplementedError,
        UnicodeError,
        struct.error,
        ValueError,
    ) as error:
        raise DataError(f"is not a SOG file: its ZIP is damaged ({error})", where=path) from error
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", where=path) from error


def _plain_name(name: str, path: Path) -> str:
    if not name or name in (".", "..") or set(name) & set("/\\\0:"):
        raise DataError(f"names the file {name!r}, outside its own folder", where=path)
    return name


def _from_folder(folder: Path, path: Path):
    def load(name: str, limit: int | None) -> bytes:
        file = folder / _plain_name(name, path)
        if not file.is_file():
            raise DataError(f"its file {name!r} is missing", where=path)
        if limit is not None and file.stat().st_size > limit:
            raise DataError(f"its file {name!r} is too large", where=path)
        return packing.read_bytes(file)

    return load


def _from_archive(archive: zipfile.ZipFile, path: Path):
    """Members are read into memory, never unpacked; none may grow much when decompressed.

    Only stored and deflated ones: the dictionary of an LZMA stream takes up to 4 GB before its
    first byte, and pictures compress no further.
    """
    by_name = {info.filename: info for info in archive.infolist()}

    def load(name: str, limit: int | None) -> bytes:
        info = by_name.get(_plain_name(name, path))
        if info is None:
            raise DataError(f"its member {name!r} is missing", where=path)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                f"its member {name!r} is compressed by method {info.compress_type}, which SOG"
                " does not use",
                where=path,
                fix="pack it again with stored or deflated members",
            )
        allowed = limit if limit is not None else 4 * info.compress_size + _SLACK
        if info.file_size > allowed or info.compress_size > path.stat().st_size:
            raise DataError(
                f"its member {name!r} would grow from {info.compress_size:,} to"
                f" {info.file_size:,} bytes",
                where=path,
                fix="pictures do not compress; this is damaged, or made to exhaust memory",
            )
        try:
            with archive.open(info) as file:
                return file.read(allowed + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
            raise DataError(f"its member {name!r} is damaged ({error})", where=path) from error

    return load


def sizes_sog(path: Path) -> dict[str, int]:
    """Bytes of each attribute's pictures."""
    path = Path(path)
    with _members(path) as (load, _):
        meta = _meta(load(META, _LONGEST_META), path)
        sizes = {"meta.json": len(load(META, _LONGEST_META))}
        for name in ("means", "scales", "quats", "sh0", "shN"):
            entry = meta.get(name)
            files = entry.get("files", []) if isinstance(entry, dict) else []
            for file in dict.fromkeys(map(str, files if isinstance(files, list) else [])):
                label = {"sh0": "sh0 and opacities"}.get(name, name)
                sizes[label] = sizes.get(label, 0) + len(load(file, None))
    return sizes
