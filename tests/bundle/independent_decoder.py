"""A decoder of .s4d bundles of every kind, written from mobile_export/SPEC.md alone.

Pictures of light fields are in independent_light_field.py, motion in independent_motion.py.
Standard library and numpy; nothing from scene4d. Slow and plain on purpose: it shows that the text
is enough, and catches what two halves of one implementation would agree on wrongly.
"""

import hashlib
import json
import struct
import zlib
from pathlib import Path

import numpy as np
from bundle import independent_motion

M32 = 0xFFFFFFFF


def load(path):
    """The manifest and a function that reads a verified member."""
    path = Path(path)
    if path.is_dir():
        text = (path / "manifest.json").read_bytes()
        data = None
    else:
        data = path.read_bytes()
        assert data[:4] == b"PK\x03\x04"
        method = struct.unpack("<H", data[8:10])[0]
        crc, stored, length, name, extra = struct.unpack("<IIIHH", data[14:30])
        assert data[30 : 30 + name] == b"manifest.json"
        text = data[30 + name + extra : 30 + name + extra + stored]
        if method == 8:
            text = zlib.decompressobj(-15).decompress(text, length + 1)
        assert method in (0, 8) and len(text) == length <= 1 << 24
        assert zlib.crc32(text) == crc
    manifest = json.loads(text)
    assert manifest["format"] == "s4d" and manifest["version"].startswith("1.")
    members = {entry["name"]: entry for entry in manifest["members"]}

    def read(member):
        entry = members[member]
        assert entry["offset"] % 16 == 0
        if data is None:
            content = (path / member).read_bytes()
        else:
            content = data[entry["offset"] : entry["offset"] + entry["length"]]
        assert len(content) == entry["length"]
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        return content

    return manifest, read


def check_bounds(manifest):
    """Section 2: what the bytes of the streams allow."""
    lengths = {m["name"]: m["length"] for m in manifest["members"]}
    used = [manifest["poster"], manifest["tables"], *(r["member"] for r in manifest["references"])]
    carried = 0
    for stage in manifest["stages"]:
        assert stage["member"] not in used
        used.append(stage["member"])
        at = 0
        for stream in stage["streams"]:
            assert stream["offset"] == at
            at += stream["length"]
        assert at == lengths[stage["member"]]
        carried += at
    points = sum(stage["points"] for stage in manifest["stages"])
    arrays = {array["name"]: array for array in manifest["arrays"]}

    def columns(array):
        if "basis" in array:
            return columns(arrays[array["basis"]])
        quantiser = array.get("quantiser", {})
        book = columns(arrays[quantiser["array"]]) if "array" in quantiser else 1
        return array["components"] * book

    def items(array):
        return array.get("items", points)

    values = min(1 << 30, (1 << 22) + 64 * carried)
    gaussian = 11 + 3 * (manifest["sh_degree"] + 1) ** 2
    codes = sum(items(a) * a["components"] for a in arrays.values())
    assert points <= min(1 << 24, (1 << 18) + 2 * carried), "points"
    assert codes <= min(1 << 29, (1 << 22) + 32 * carried), "codes"
    assert sum(items(a) * columns(a) for a in arrays.values()) <= values, "values of arrays"
    assert manifest["count"] * gaussian <= values, "values of Gaussians"
    blocks = manifest.get("lightslab", {}).get("mpi", {}).get("blocks", 0)
    assert 256 * blocks <= values, "texels"
    if manifest["kind"] == "lpgs":
        work = family_products(manifest["lpgs"], points, manifest["count"] - points)
        assert work <= min(1 << 40, (1 << 32) + (1 << 16) * carried), "products"
    if manifest["kind"] == "splats4d":
        distances = points * manifest["splats4d"]["nodes"]
        assert distances <= min(1 << 32, (1 << 26) + (1 << 10) * carried), "distances"
    if manifest["kind"] == "lightslab":
        assert picture_products(manifest["lightslab"]) <= 2 * 10**11, "products"


def family_products(spec, parents, children):
    """Section 7: products of the layers, parents and children each with their own."""
    if spec["grid"] is None and spec["num_children"] == 0:
        return 0
    h, heads = spec["hidden"], 10 + 3 * ((spec["sh_degree"] + 1) ** 2 - 1)
    features = len(spec["grid"]["rows"]) * spec["grid"]["features"] if spec["grid"] else 0
    both = h * (10 + features) + h * h + heads * h
    if spec["num_children"] and spec["attention"]:
        both += 3 * h * h
    return parents * (both + 3 * spec["num_children"] * h) + children * both


def picture_products(spec):
    """Section 8: products of a picture of 800 x 800."""
    d = spec["decoder"]
    k, e, w, c = d["samples"], d["encoded"], d["width"], d["channels"]
    rays = (800 / 2 ** (len(c) + 1)) ** 2
    total = rays * k * k * e * len(spec["feature_planes"]) * spec["features"]
    total += rays * (w * k * k * e + 2 * d["blocks"] * w * w + 4 * c[0] * w)
    for j, into in enumerate(c):
        skip = e if k > 1 and 2 ** (j + 1) == k else 0
        out = 4 * (c[j + 1] if j + 1 < len(c) else 5)
        total += rays * 4 ** (j + 1) * out * (into + skip) * 9
    return total


def read_tables(data):
    """Per table: the symbol of every slot, frequencies, starts."""
    numbers, shift, value = [], 0, 0
    for byte in zlib.decompress(data):
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            numbers.append(value)
            shift = value = 0
    tables, at = [], 0
    while at < len(numbers):
        n = numbers[at]
        f = numbers[at + 1 : at + 1 + n]
        assert sum(f) == 4096 and len(f) == n
        slots, starts = [], []
        for s in range(n):
            starts.append(len(slots))
            slots += [s] * f[s]
        tables.append((slots, f, starts))
        at += 1 + n
    return tables


class Stream:
    """Section 3 of SPEC.md."""

    def __init__(self, data, tables):
        self.x = list(struct.unpack("<4I", data[:16]))
        self.words = struct.unpack(f"<{(len(data) - 16) // 2}H", data[16:])
        self.at = 0
        self.tables = tables

    def _step(self, lane, x):
        assert 0 <= x <= M32
        if x < 65536:
            x = (x << 16) | self.words[self.at]
            self.at += 1
        self.x[lane] = x

    def symbol(self, i, table):
        slots, f, starts = self.tables[table]
        x = self.x[i & 3]
        slot = x & 4095
        s = slots[slot]
        self._step(i & 3, f[s] * (x >> 12) + slot - starts[s])
        return s

    def plain(self, i, w):
        x = self.x[i & 3]
        self._step(i & 3, ((x >> 12) << (12 - w)) + (x & ((1 << (12 - w)) - 1)))
        return (x & 4095) >> (12 - w)

    def bits(self, n, w):
        return [self.plain(i, w) for i in range(n)]

    def end(self):
        assert self.at == len(self.words) and self.x == [65536] * 4


def decode_points(stream, spec, n, depth):
    """Section 4: grid coordinates of the points of one stage."""
    nodes = [((0, 0, 0), 0, 7)]
    for _ in range(depth):
        following = []
        symbols = [
            stream.symbol(i, spec["tables"] + context) for i, (_, _, context) in enumerate(nodes)
        ]
        for ((x, y, z), c, _), symbol in zip(nodes, symbols, strict=True):
            exists = [(symbol + 1) >> (b ^ c) & 1 for b in range(8)]
            for b in range(8):
                if exists[b]:
                    place = (2 * x + (b & 1), 2 * y + (b >> 1 & 1), 2 * z + (b >> 2))
                    context = exists[b ^ 1] + 2 * exists[b ^ 2] + 4 * exists[b ^ 4]
                    following.append((place, b, context))
        nodes = following
    r = spec["leaf_low_bits"]
    counts = [stream.symbol(i, spec["leaf_table"]) for i in range(len(nodes))]
    low = stream.bits(len(nodes), r) if r else [0] * len(nodes)
    points = []
    for (place, _, _), t, v in zip(nodes, counts, low, strict=True):
        points += [list(place)] * (((t << r) | v) + 1)
    assert len(points) == n
    rest = spec["bits"] - depth
    points = [[coordinate << rest for coordinate in point] for point in points]
    for axis in range(3):
        if rest > 12:
            for point, value in zip(points, stream.bits(n, rest - 12), strict=True):
                point[axis] |= value << 12
        if rest:
            for point, value in zip(points, stream.bits(n, min(rest, 12)), strict=True):
                point[axis] |= value
    return points


def channels_of(names):
    for name in names:
        array, _, numbers = name.rpartition(".")
        first, _, last = numbers.partition("-")
        for i in range(int(first), int(last or first) + 1):
            yield array, i


def decode_channel(stream, array, c, n, columns):
    """Section 5: the codes of one channel."""
    r = array.get("low_bits", [0] * array["components"])[c]
    context = array.get("contexts", [None] * array["components"])[c]
    previous = array.get("previous", [[]] * array["components"])[c]
    rows = [0] * n
    if context:
        channels = list(channels_of(context["of"]))
        weights = context.get("weights", [1] * len(channels))
        for i in range(n):
            v = 0
            for channel, weight in zip(channels, weights, strict=True):
                code = columns[channel][i]
                v += weight * (abs(code) if context.get("magnitude") else code)
            rows[i] = sum(edge <= v for edge in context["edges"])
    symbols, before = [], 0
    for i in range(n):
        p = sum(edge <= before for edge in previous)
        table = array["tables"][c] + rows[i] * (len(previous) + 1) + p
        before = stream.symbol(i, table)
        symbols.append(before)
    low = stream.bits(n, r) if r else [0] * n
    return [array["low"][c] + ((t << r) | v) for t, v in zip(symbols, low, strict=True)]


def decode(path):
    """Manifest, grid points [n, 3], and codes by array name [items, components]."""
    manifest, read = load(path)
    check_bounds(manifest)
    tables = read_tables(read(manifest["tables"]))
    arrays = {array["name"]: array for array in manifest["arrays"]}
    codes = {name: [[] for _ in range(a["components"])] for name, a in arrays.items()}
    points = []
    for stage in manifest["stages"]:
        data = read(stage["member"])
        columns = {}
        for entry in stage["streams"]:
            stream = Stream(data[entry["offset"] : entry["offset"] + entry["length"]], tables)
            if entry.get("positions"):
                points += decode_points(
                    stream, manifest["positions"], stage["points"], entry["depth"]
                )
            for name in entry.get("arrays", ()):
                n = arrays[name].get("items", stage["points"])
                for c in range(arrays[name]["components"]):
                    columns[name, c] = decode_channel(stream, arrays[name], c, n, columns)
                    codes[name][c] += columns[name, c]
            stream.end()
    shaped = {
        name: np.array(value, dtype=np.int64).reshape(arrays[name]["components"], -1).T
        for name, value in codes.items()
    }
    return manifest, np.array(points, dtype=np.int64).reshape(-1, 3), shaped


def values_of(name, manifest, codes):
    array = next(a for a in manifest["arrays"] if a["name"] == name)
    quantiser = array.get("quantiser")
    values = codes[name].astype(np.float64)
    if quantiser and quantiser["type"] == "uniform":
        values = np.float32(np.array(quantiser["offset"]) + np.array(quantiser["step"]) * values)
    elif quantiser:
        book = values_of(quantiser["array"], manifest, codes)
        values = book[codes[name]].reshape(len(values), -1)
    if "basis" in array:
        values = values @ values_of(array["basis"], manifest, codes)
    if "mean" in array:
        values = values + values_of(array["mean"], manifest, codes)
    return np.asarray(values, dtype=np.float32)


def triangles(manifest, points, codes):
    """Section 10: places [T, 3, 3] and places in the texture [T, 3, 2] of all corners."""
    spec, scale = manifest["positions"], 2 ** manifest["mesh"]["uv_bits"] - 1
    places = np.float32(np.array(spec["origin"]) + spec["step"] * points.astype(np.float64))
    corners, vertex = [], 0
    for d, u, v in codes["corners"].tolist():
        vertex += d
        assert 0 <= vertex < len(places) and 0 <= u <= scale and 0 <= v <= scale
        corners.append((vertex, u / scale, v / scale))
    found, first = [], 0
    for d, b, c in codes["triangles"].tolist():
        first += d
        assert all(0 <= row < len(corners) for row in (first, first + b, first + c))
        found.append([corners[first], corners[first + b], corners[first + c]])
    found = np.array(found)
    return places[found[..., 0].astype(int)], found[..., 1:]


def splats(manifest, points, codes):
    """Means, quats, log_scales, opacity (alpha), sh."""
    spec = manifest["positions"]
    places = np.float32(np.array(spec["origin"]) + spec["step"] * points.astype(np.float64))
    if manifest["kind"] == "splats4d":
        found = plain_splats(manifest, places, codes)
        found |= moved_splats(manifest, points, codes, manifest["splats4d"]["start"])
    else:
        read = {"splats": plain_splats, "lpgs": family_splats}[manifest["kind"]]
        found = read(manifest, places, codes)
    assert len(found["means"]) == manifest["count"]
    return found


def moved_splats(manifest, points, codes, time):
    """Section 9: what may change with time."""
    return independent_motion.arrangement(
        manifest, points, codes, lambda name: values_of(name, manifest, codes), time
    )


def plain_splats(manifest, means, codes):
    """Section 6."""
    xyz = values_of("rotation", manifest, codes)
    w = np.sqrt(np.maximum(0, 1 - (xyz.astype(np.float64) ** 2).sum(axis=1, keepdims=True)))
    sh = [values_of("dc", manifest, codes)]
    if manifest["sh_degree"]:
        sh.append(values_of("sh", manifest, codes))
    flat = np.concatenate(sh, axis=1)
    return {
        "means": means,
        "quats": np.concatenate([w, xyz], axis=1).astype(np.float32),
        "log_scales": values_of("log_scales", manifest, codes),
        "opacity": np.clip(values_of("opacity", manifest, codes)[:, 0], 0, 1),
        "sh": flat.reshape(len(means), (manifest["sh_degree"] + 1) ** 2, 3),
    }


def family_splats(manifest, cube, codes):
    """Section 7, one parent at a time, in doubles."""
    spec = manifest["lpgs"]
    y = 4 * (cube.astype(np.float64) - 0.5)
    n = np.maximum(1, np.linalg.norm(y, axis=1, keepdims=True))
    assert (n < 2).all()
    places = np.array(spec["centre"]) + spec["radius"] * y / (n * (2 - n))
    names = ["log_scales", "rotation", "opacity", "dc"] + ["sh"] * (spec["sh_degree"] > 0)
    base = np.concatenate([values_of(name, manifest, codes) for name in names], axis=1)
    base = base.astype(np.float64)
    if spec["grid"] is None and spec["num_children"] == 0:
        return as_splats(places, base)
    network = Network(manifest, codes)
    masks = codes["children"][:, 0] if spec["num_children"] else np.zeros(len(base), int)
    parents, children = [], []
    for place, attributes, mask in zip(places, base, masks, strict=True):
        first, *others = network.family(place, attributes, int(mask))
        parents.append(first)
        children += others
    everyone = parents + children
    width = base.shape[1]
    return as_splats(
        np.array([place for place, _ in everyone]).reshape(-1, 3),
        np.array([attributes for _, attributes in everyone]).reshape(-1, width),
    )


def as_splats(places, attributes):
    """From columns in the order of the heads' outputs."""
    quats = np.concatenate([np.ones((len(places), 1)), attributes[:, 3:6]], axis=1)
    return {
        "means": places,
        "quats": quats / np.linalg.norm(quats, axis=1, keepdims=True),
        "log_scales": attributes[:, :3],
        "opacity": 1 / (1 + np.exp(-attributes[:, 6])),
        "sh": attributes[:, 7:].reshape(len(places), (attributes.shape[1] - 7) // 3, 3),
    }


class Network:
    """Section 7: layers, grid and a family."""

    def __init__(self, manifest, codes):
        self.spec = manifest["lpgs"]
        self.layers = {}
        for name in codes:
            if name.startswith("net_") and name.endswith("_weight"):
                layer = name[4:-7]
                bias = values_of(f"net_{layer}_bias", manifest, codes)[:, 0].astype(np.float64)
                weight = values_of(name, manifest, codes).astype(np.float64)
                self.layers[layer] = weight.reshape(len(bias), -1), bias
        self.table = values_of("grid", manifest, codes) if self.spec["grid"] else None

    def apply(self, layer, x):
        weight, bias = self.layers[layer]
        return weight @ x + bias

    def features(self, p):
        grid, q = self.spec["grid"], (p - self.spec["centre"]) / self.spec["radius"]
        c = q / 2 + 0.5
        if self.spec["contraction"]:
            n = max(1, np.linalg.norm(q))
            c = (2 - 1 / n) * (q / n) / 4 + 0.5
        c = np.clip(c, 0, 1)
        found, before = [], 0
        for resolution, rows in zip(grid["resolutions"], grid["rows"], strict=True):
            s = c * resolution
            low = np.minimum(np.floor(s).astype(int), resolution - 1)
            total = np.zeros(grid["features"])
            for corner in np.ndindex(2, 2, 2):
                x, y, z = (int(v) for v in low + corner)
                weight = np.prod(np.where(corner, s - low, 1 - (s - low)))
                if rows == (resolution + 1) ** 3:
                    row = (x * (resolution + 1) + y) * (resolution + 1) + z
                else:
                    row = (x ^ y * 2654435761 % 2**32 ^ z * 805459861 % 2**32) % rows
                total += weight * self.table[before + row]
            found.append(total)
            before += rows
        return np.concatenate(found)

    def token(self, place, base):
        own = [base[:3] - np.log(self.spec["radius"]) + 4, base[3:6], 0.3 * base[6:7], base[7:10]]
        if self.spec["grid"]:
            own.append(self.features(place))
        return np.maximum(self.apply("token", np.concatenate(own)), 0)

    def family(self, place, base, mask):
        """(place, attributes) of the parent and of its living children."""
        tokens, places = [self.token(place, base)], [place]
        if self.spec["num_children"]:
            offsets = self.apply("place", tokens[0]).reshape(-1, 3)
            for k in range(self.spec["num_children"]):
                if mask >> k & 1:
                    places.append(place + rotate(base[3:6], offsets[k] * np.exp(base[:3])))
                    tokens.append(self.token(places[-1], base))
            if self.spec["attention"]:
                tokens = self.attended(np.array(tokens))
        heads = ["parent_head"] + ["child_head"] * (len(places) - 1)
        return [
            (p, base + self.apply(head, np.maximum(self.apply("inner", t), 0)))
            for p, t, head in zip(places, tokens, heads, strict=True)
        ]

    def attended(self, tokens):
        query, key, value = np.split(np.array([self.apply("attend", t) for t in tokens]), 3, axis=1)
        weights = np.exp(query @ key.T / np.sqrt(tokens.shape[1]))
        return tokens + weights / weights.sum(axis=1, keepdims=True) @ value


def rotate(v, x):
    """By the quaternion (1, v)."""
    a, b, c = v
    matrix = np.array(
        [
            [1 + a * a - b * b - c * c, 2 * (a * b - c), 2 * (a * c + b)],
            [2 * (a * b + c), 1 - a * a + b * b - c * c, 2 * (b * c - a)],
            [2 * (a * c - b), 2 * (b * c + a), 1 - a * a - b * b + c * c],
        ]
    )
    return matrix @ x / (1 + a * a + b * b + c * c)
