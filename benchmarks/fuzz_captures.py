"""Loads thousands of damaged and hostile captures of every layout; every outcome other than a scene
or one of scene4d's errors is printed, and makes the exit status 1.

    python benchmarks/fuzz_captures.py [--files 4000] [--layouts nerfstudio llff] [--seed 0]
                                       [--task load | info]

A capture is a handful of files, one to three of which are changed: bytes anywhere, values of the
JSON, words and lines of text, headers of .npy and .ply files, or the file becomes a pipe, a folder,
a loop of links, a device, empty, or another file. What is loaded is the scene, all its pictures,
masks and depth maps, and random points where it has none; or it is shown by ``scene4d info``. Each
capture is loaded in a child process under a limit of time and of memory beyond what the process
had.
"""

from __future__ import annotations

import io
import json
import math
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from fuzz_formats import ANY, NUMBERS, VALUES, ply_header
from fuzzing import (
    Tally,
    Trial,
    options,
    print_head,
    print_row,
    shown,
    tried,
    until,
    with_checked_kernels,
)
from PIL import Image

from scene4d.data.images import ImageCache
from scene4d.data.load import load_scene
from scene4d.data.points import random_points

SECONDS_PER_CAPTURE = 20.0
MEMORY = 1 << 30
"""Bytes of address space that loading one capture of a few kB may add."""
WIDTH, HEIGHT, COUNT = 12, 8, 4
MORE_VALUES = (
    *VALUES, 10**400, -(10**30), 1e39, 1e-310, "a\0b", "\\\\server\\share\\a.png", "C:\\a\\0.png",
    "..\\..\\x.png", "~/x", "images", "images/0.png/0.png", "images/0.PNG", "/dev/zero", "./0.png",
    "x/" * 3000 + "y.png", "OPENCV_FISHEYE", "EQUIRECTANGULAR", "RADIAL", [1e6] * 6, [0.1] * 6,
    [0.1] * 4, [[1e300] * 4] * 4, [[0.0] * 4] * 4, [[[1]]], "NaN", "\ud800", "é",
)  # fmt: skip
MILD_VALUES = (0, 0.1, 1, 1.0, 5, 8, 20.0, -0.2, None, False, True, [0.1] * 6, "images/1.png")
KEYS = (
    "distortion_params", "fisheye_crop_radius", "k1", "k4", "k6", "p1", "cx", "w", "h", "fl_x",
    "camera_angle_x", "x_fov", "camera_model", "is_fisheye", "time", "near", "far", "mask_path",
    "depth_file_path", "ply_file_path", "applied_scale", "applied_transform", "test_filenames",
    "integer_depth_scale", "depth_unit_scale_factor", "latlong", "unheard_of", "transform_matrix",
)  # fmt: skip
WORDS = (
    *(str(n) for n in NUMBERS), "-1", "nan", "inf", "1e400", "1e39", "9" * 5000, "x", "0.5", "a b",
    "PINHOLE", "OPENCV", "EUCM", "THIN_PRISM_FISHEYE", "../../x.png", "/etc/passwd", "\0", "é",
)  # fmt: skip

Capture = dict[str, bytes | str]
"""Relative paths to contents; text stands for what is no file: fifo, folder, loop, device, gone."""


# Good captures


def png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "png")
    return buffer.getvalue()


def npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def poses() -> list[np.ndarray]:
    """Camera-to-world, side by side, looking at a point before them."""
    found = []
    for i in range(COUNT):
        angle = 0.2 * (i - 1.5)
        c, s = np.cos(angle), np.sin(angle)
        c2w = np.eye(4)
        c2w[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
        c2w[:3, 3] = c2w[:3, 2] * 4
        found.append(c2w)
    return found


def picture(i: int, channels: int = 3) -> bytes:
    rng = np.random.default_rng(i)
    return png(rng.integers(0, 256, (HEIGHT, WIDTH, channels), dtype=np.uint8))


def point_file() -> bytes:
    head = "ply\nformat binary_little_endian 1.0\nelement vertex 20\n"
    head += "".join(f"property float {axis}\n" for axis in "xyz")
    head += "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))
    rows = np.zeros(20, [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    rows["xyz"] = np.random.default_rng(0).normal(size=(20, 3))
    return head.encode() + b"end_header\n" + rows.tobytes()


def nerfstudio() -> Capture:
    files: Capture = {}
    frames = []
    for i, c2w in enumerate(poses()):
        files[f"images/{i}.png"] = picture(i)
        files[f"masks/{i}.png"] = png(np.full((HEIGHT, WIDTH), 255, np.uint8))
        frames.append(
            {"file_path": f"images/{i}.png", "mask_path": f"masks/{i}.png", "time": i / 4,
             "transform_matrix": c2w.tolist(), "fl_x": 20.0, "near": 1.0, "far": 9.0}
        )  # fmt: skip
    files["points.ply"] = point_file()
    meta = {"camera_model": "OPENCV", "fl_x": 20.0, "fl_y": 20.0, "cx": 6.0, "cy": 4.0, "w": WIDTH,
            "h": HEIGHT, "k1": 0.01, "p1": 0.001, "ply_file_path": "points.ply", "frames": frames,
            "applied_scale": 1.0, "applied_transform": np.eye(4)[:3].tolist(),
            "test_filenames": ["images/0.png"]}  # fmt: skip
    return {"transforms.json": json.dumps(meta).encode(), **files}


def rgbd() -> Capture:
    files: Capture = {}
    frames = []
    rng = np.random.default_rng(0)
    for i, c2w in enumerate(poses()):
        files[f"color/{i}.png"] = picture(i)
        depth = rng.integers(3000, 5000, (HEIGHT, WIDTH)).astype(np.uint16)
        name = f"depth/{i}." + ("npy" if i % 2 else "png")
        files[name] = npy(depth) if i % 2 else png(depth)
        frames.append({"file_path": f"color/{i}.png", "depth_file_path": name,
                       "transform_matrix": c2w.tolist()})  # fmt: skip
    meta = {"camera_model": "OPENCV_FISHEYE", "fl_x": 20.0, "fl_y": 20.0, "cx": 6.0, "cy": 4.0,
            "distortion_params": [0.01, 0, 0, 0, 0, 0], "fisheye_crop_radius": 6.0,
            "depth_unit_scale_factor": 0.001, "frames": frames}  # fmt: skip
    return {"transforms.json": json.dumps(meta).encode(), **files}


def blender() -> Capture:
    files: Capture = {}
    for split, indices in (("train", (0, 1, 2)), ("test", (3,))):
        frames = []
        for i in indices:
            files[f"{split}/r_{i}.png"] = picture(i, 4)
            frames.append({"file_path": f"./{split}/r_{i}", "rotation": 0.1, "time": i / 4,
                           "transform_matrix": poses()[i].tolist()})  # fmt: skip
        meta = {"camera_angle_x": 0.7, "frames": frames}
        files[f"transforms_{split}.json"] = json.dumps(meta).encode()
    return files


def colmap_poses() -> list[tuple[float, ...]]:
    return [(1.0, 0.0, 0.02 * i, 0.0, 0.1 * i, 0.0, 4.0) for i in range(COUNT)]


def colmap_text() -> Capture:
    lines = ["# Image list"]
    files: Capture = {}
    for i, pose in enumerate(colmap_poses()):
        lines += [f"{i + 1} {' '.join(map(str, pose))} 1 {i}.png", "1.5 2.5 1 3.0 4.0 -1"]
        files[f"images/{i}.png"] = picture(i)
        files[f"masks/{i}.png.png"] = png(np.ones((HEIGHT, WIDTH), np.uint8))
    points = [f"{i} 0.{i} 0.1 0.2 10 20 30 0.5 1 0" for i in range(9)]
    return {
        "sparse/0/cameras.txt": f"1 OPENCV {WIDTH} {HEIGHT} 20 20 6 4 .01 0 0 0\n".encode(),
        "sparse/0/images.txt": "\n".join(lines).encode(),
        "sparse/0/points3D.txt": "\n".join(points).encode(),
        **files,
    }


def colmap_binary() -> Capture:
    cameras = struct.pack("<QiiQQ4d", 1, 1, 1, WIDTH, HEIGHT, 20.0, 20.0, 6.0, 4.0)
    images, points = struct.pack("<Q", COUNT), struct.pack("<Q", 9)
    files: Capture = {}
    for i, pose in enumerate(colmap_poses()):
        images += struct.pack("<i7di", i + 1, *pose, 1) + f"{i}.png\0".encode()
        images += struct.pack("<QddQ", 1, 1.5, 2.5, 1)
        files[f"images/{i}.png"] = picture(i)
    for i in range(9):
        points += struct.pack("<Q3d3BdQii", i, 0.1 * i, 0.1, 0.2, 1, 2, 3, 0.5, 1, 1, 0)
    model = {"cameras": cameras, "images": images, "points3D": points}
    return {**{f"sparse/0/{name}.bin": data for name, data in model.items()}, **files}


def llff() -> Capture:
    rows = []
    for c2w in poses():
        r = c2w[:3]
        matrix = np.stack([-r[:, 1], r[:, 0], r[:, 2], r[:, 3], [HEIGHT, WIDTH, 20.0]], axis=1)
        rows.append([*matrix.flatten(), 1.0, 9.0])
    files: Capture = {f"images/{i}.png": picture(i) for i in range(COUNT)}
    return {"poses_bounds.npy": npy(np.array(rows)), **files}


LAYOUTS: dict[str, Callable[[], Capture]] = {
    "nerfstudio": nerfstudio, "rgbd": rgbd, "blender": blender, "colmap-text": colmap_text,
    "colmap-binary": colmap_binary, "llff": llff,
}  # fmt: skip


# Damage


def places_of(document: object) -> list[tuple[dict | list, object]]:
    places: list[tuple[dict | list, object]] = []
    pending: list[object] = [document]
    while pending:
        item = pending.pop()
        keys = list(item) if isinstance(item, dict) else range(min(len(item), 6))
        for key in keys:
            places.append((item, key))
            if isinstance(item[key], (dict, list)) and item[key]:
                pending.append(item[key])
    return places


def changed_json(rng: random.Random, data: bytes) -> bytes:
    document = json.loads(data)
    for _ in range(rng.randint(1, 3)):
        places = places_of(document)
        if not places:
            break
        holder, key = rng.choice(places)
        value = rng.choice(MORE_VALUES if rng.random() < 0.6 else MILD_VALUES)
        if isinstance(holder, dict) and rng.random() < 0.4:
            key = rng.choice(KEYS)
            holder[key] = value
        elif isinstance(holder, dict) and rng.random() < 0.2:
            del holder[key]
        elif isinstance(holder[key], float) and rng.random() < 0.5:
            holder[key] *= rng.choice((-1, 0, 0.35, 1.0001, 1.001, 2, 1e-8, 1e8, 1e200))
        else:
            holder[key] = value
        document = json.loads(json.dumps(document))
    text = json.dumps(document)
    if rng.random() < 0.02:
        text = rng.choice(("[" * 100_000, '{"frames":' * 50_000, '{"frames":[' + "9" * 5000 + "]}"))
    encoding = rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"))
    return text.encode(encoding, "replace")


def changed_text(rng: random.Random, data: bytes) -> bytes:
    lines = data.decode("latin-1").split("\n")
    for _ in range(rng.randint(1, 3)):
        i = rng.randrange(len(lines))
        change = rng.randrange(5)
        words = lines[i].split(" ")
        if change == 0:
            words[rng.randrange(len(words))] = rng.choice(WORDS)
        elif change == 1:
            words = rng.choice(lines).split(" ")
        elif change == 2:
            words = words[: rng.randrange(len(words))]
        lines[i] = " ".join(words)
        if change == 3 and len(lines) > 1:
            del lines[i]
        elif change == 4:
            lines.insert(i, rng.choice(("", "#", " " * 9, "1 2 3", rng.choice(lines))))
    return "\n".join(lines).encode(
        rng.choice(("utf-8", "utf-8-sig", "utf-16", "latin-1")), "replace"
    )


def changed_picture(rng: random.Random, data: bytes) -> bytes:
    """A picture of another mode, size or content, which can be decoded."""
    with Image.open(io.BytesIO(data)) as image:
        mode = rng.choice(("1", "L", "P", "LA", "RGB", "RGBA", "I", "CMYK", image.mode))
        image = image.convert(mode)
        if rng.random() < 0.3:
            image = image.resize(
                rng.choice(((6, 4), (24, 16), (8, 12), (1, 1), (13, 8), (600, 400)))
            )
        if rng.random() < 0.3:
            image = image.point(lambda _: rng.choice((0, 1, 255)) if mode == "L" else 0)
        buffer = io.BytesIO()
        image.save(buffer, "tiff" if mode == "CMYK" else "png")
    return buffer.getvalue()


def changed_numbers(rng: random.Random, data: bytes) -> bytes:
    """A .npy file of another type, or with other values, in good order."""
    with np.errstate(all="ignore"):
        values = np.load(io.BytesIO(data)).real
        values = values.astype(rng.choice(("f8", "f8", "f4", ">f8", "i4", "u2")))
        for _ in range(rng.randint(0, 3)):
            i = rng.randrange(values.size)
            factor = rng.choice((0, -1, 0.35, 1.0001, 1.001, 1e9, 1e200, np.nan, np.inf))
            values.flat[i] = np.asarray(float(values.flat[i]) * factor).astype(values.dtype)
    return npy(values)


def changed_doubles(rng: random.Random, data: bytes) -> bytes:
    """A binary model with some 8 bytes, where doubles may stand, replaced."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        where = rng.randrange(max(1, len(out) - 8))
        value = rng.choice((0.0, -1.0, 1e-3, 0.5, 1e39, 1e300, float("nan"), float("inf"), 20.0))
        out[where : where + 8] = struct.pack("<d", value)
    return bytes(out)


def changed_npy(rng: random.Random, data: bytes) -> bytes:
    """Another header of the same length, or of its own."""
    size = struct.unpack_from("<H", data, 8)[0]
    shape = rng.choice(("(4, 17)", "(8, 12)", "(2**62,)", "(9999999999, 17)", "(-1, 17)", "()",
                        "(0, 17)", "4", "(1,)*40", "(4, 17, 0)", "'a'", "(4.0, 17)"))  # fmt: skip
    kind = rng.choice(("<f8", "<f4", "<u2", "|O", "<c16", "|S9", "<U3", "|V8", "<M8[D]", "x", ">f8",
                       "<f2", "|b1", "[('a', '<f8')]"))  # fmt: skip
    kind = kind if kind.startswith("[") else f"'{kind}'"
    order = rng.choice(("True", "False", "0", "None"))
    head = f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, }}"
    if rng.random() < 0.1:
        head = rng.choice(("(" * 5000, "[" * 200_000, "{" + "1," * 9000, "\0", "-" * 30_000 + "1"))
    text = head.encode().ljust(size, b" ")
    packed = struct.pack("<H", min(len(text), 65535))
    return data[:8] + packed + text + data[10 + size :]


def changed(rng: random.Random, name: str, data: bytes) -> bytes:
    """The file, changed in a way that fits its kind, or in its bytes."""
    either = rng.random() < 0.5
    fitting = {
        ".json": changed_json, ".txt": changed_text, ".ply": ply_header, ".png": changed_picture,
        ".npy": changed_numbers if either else changed_npy, ".bin": changed_doubles,
    }  # fmt: skip
    suffix = Path(name).suffix
    if suffix in fitting and rng.random() < 0.8:
        try:
            return fitting[suffix](rng, data)
        except Exception:  # it was changed before, beyond what fits its kind
            return rng.choice(ANY)(rng, data or b"x")
    return rng.choice(ANY)(rng, data)


def mutant(rng: random.Random, capture: Capture) -> Capture:
    files = dict(capture)
    described = [name for name in files if not name.endswith(".png")]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        name = rng.choice(described if rng.random() < 0.75 else list(files))
        data, chance = files[name], rng.random()
        if isinstance(data, str):
            continue
        if chance < 0.85 and data:
            files[name] = changed(rng, name, data)
        elif chance < 0.93:
            files[name] = rng.choice(("fifo", "folder", "loop", "device", "gone"))
        elif chance < 0.97:
            files[name] = rng.choice((b"", b"\0" * 4096, b"<html>404</html>", b"%!PS\n"))
        else:
            other = files[rng.choice(list(files))]
            files[name] = other
    return files


def mutants(name: str, count: int, seed: int) -> Iterator[Capture]:
    rng = random.Random(f"{name} {seed}")
    good = LAYOUTS[name]()
    yield good
    for _ in range(count - 1):
        yield mutant(rng, good)


def written(capture: Capture, root: Path) -> Path:
    for name, content in capture.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content == "fifo":
            os.mkfifo(path)
        elif content == "folder":
            path.mkdir()
        elif content == "loop":
            path.symlink_to(path.name)
        elif content == "device":
            path.symlink_to("/dev/zero")
    return root


# Loading


def load(root: Path) -> None:
    """Everything that training does with a capture before its first step."""
    scene = load_scene(root)
    cache = ImageCache(scene, ram_budget_gb=0.5)
    for index in range(len(scene.frames)):
        cache.view(index)
    if scene.points is None:
        random_points(scene, 20)


def fuzz(
    name: str, count: int, seed: int, *, task: str = "load", minutes: float = math.inf
) -> Tally[Capture]:
    """How ``count`` captures of a layout went."""
    act = {"load": load, "info": shown}[task]

    def attempt(capture: Capture, folder: Path) -> None:
        try:
            act(written(capture, folder))
        finally:
            shutil.rmtree(folder)

    def warm_up(folder: Path) -> None:
        attempt(nerfstudio(), folder)

    trial = Trial(attempt, warm_up, SECONDS_PER_CAPTURE, MEMORY, until=until(minutes))
    return tried(mutants(name, count, seed), trial)


def main() -> None:
    parser = options(__doc__.splitlines()[0], files=4000, each="layout")
    parser.add_argument("--layouts", nargs="*", default=list(LAYOUTS))
    parser.add_argument("--task", default="load", choices=("load", "info"))
    args = parser.parse_args()
    with_checked_kernels()
    failed = False
    print_head("layout")
    for name in args.layouts:
        tally = fuzz(name, args.files, args.seed, task=args.task, minutes=args.minutes)
        print_row(name, tally)
        failed |= bool(tally.bad)
        for i, (capture, _) in enumerate(tally.bad if args.keep else []):
            written(capture, args.keep / f"{name}-{i}")
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
