"""A decoder of .s4d bundles of every kind, written from mobile_export/SPEC.md alone.

Standard library and numpy; nothing from scene4d. Slow and plain on purpose: it shows that the
text is enough, and catches what two halves of one implementation would agree on wrongly.
"""

import hashlib
import json
import struct
import zlib
from pathlib import Path

import numpy as np

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
        crc, _, length, name, extra = struct.unpack("<IIIHH", data[14:30])
        assert data[30 : 30 + name] == b"manifest.json"
        text = data[30 + name + extra : 30 + name + extra + length]
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


def splats(manifest, points, codes):
    """Means, quats, log_scales, opacity (alpha), sh."""
    spec = manifest["positions"]
    places = np.float32(np.array(spec["origin"]) + spec["step"] * points.astype(np.float64))
    read = {"splats": plain_splats, "lpgs": family_splats}[manifest["kind"]]
    found = read(manifest, places, codes)
    assert len(found["means"]) == manifest["count"]
    return found


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


def light_maps(manifest, codes, camera, stages=None):
    """Section 8, in doubles: the maps r, g, b, a (after their sigmoids), z, coverage.

    With sheets: r, g, b, a as shown before black, coverage, and what the sheets alone give:
    ``seen`` (their alpha) and ``distance`` along the ray (0 where nothing is seen).
    """
    spec = manifest["lightslab"]
    field = LightField(manifest, codes, len(manifest["stages"]) if stages is None else stages)
    k, n = spec["decoder"]["samples"], len(spec["decoder"]["channels"])
    unit = 2 ** (n + 1)
    width, height = camera["width"], camera["height"]
    across, down = -(-width // unit) + 2, -(-height // unit) + 2
    size = unit / k
    features = np.zeros((down * k, across * k, len(spec["planes"]) * spec["features"]))
    coverage = np.zeros((down * k, across * k))
    c2w = np.array(camera["c2w"])

    def direction(x, y):
        local = [(x - camera["cx"]) / camera["fx"], (camera["cy"] - y) / camera["fy"], -1.0]
        return c2w[:3, :3] @ local / np.linalg.norm(c2w[:3, :3] @ local)

    for row, column in np.ndindex(coverage.shape):
        found = field.ray(
            c2w[:3, 3], direction((column + 0.5) * size - unit, (row + 0.5) * size - unit)
        )
        features[row, column], coverage[row, column] = found
    raw = field.picture(features)[:, :height, :width]
    if "sheets" in spec:
        seen = np.array(
            [
                [field.on_sheets(c2w[:3, 3], direction(x + 0.5, y + 0.5)) for x in range(width)]
                for y in range(height)
            ]
        ).transpose(2, 0, 1)
        shown = np.clip(seen[:4] + raw[:4], 0, 1) * seen[5]
        distance = np.maximum(0, seen[4] / np.where(seen[3] > 0, seen[3], 1))
        maps = {**dict(zip("rgba", shown, strict=True)), "coverage": seen[5]}
        return {**maps, "seen": seen[3], "distance": distance}
    covered = enlarged(coverage, unit // k)[unit : unit + height, unit : unit + width]
    sigmoids = dict(zip("rgba", 1 / (1 + np.exp(-raw[:4])), strict=True))
    return {**sigmoids, "z": raw[4], "coverage": covered}


def enlarged(values, factor):
    """Bilinear; samples lie at the middles of their squares, edges are clamped."""
    for axis in (0, 1):
        count = values.shape[axis]
        at = np.clip((np.arange(count * factor) + 0.5) / factor - 0.5, 0, count - 1)
        low = np.minimum(np.floor(at).astype(int), max(count - 2, 0))
        share = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
        above = np.minimum(low + 1, count - 1)
        values = np.take(values, low, axis) * (1 - share) + np.take(values, above, axis) * share
    return values


class LightField:
    """Section 8: slabs, planes and network."""

    def __init__(self, manifest, codes, stages):
        self.spec = spec = manifest["lightslab"]
        self.layers, self.planes = {}, []
        self.frames = [{name: np.array(v) for name, v in slab.items()} for slab in spec["slabs"]]
        for number, plane in enumerate(spec["planes"]):
            values = values_of(f"plane_{number}", manifest, codes).astype(np.float64)
            shape = (plane["rows"], plane["columns"], len(spec["slabs"]), spec["features"])
            self.planes.append(values.reshape(shape) * (plane["stage"] < stages))
        for name in codes:
            if name.startswith("net_") and name.endswith("_weight"):
                bias = values_of(name[:-6] + "bias", manifest, codes)[:, 0].astype(np.float64)
                weight = values_of(name, manifest, codes).astype(np.float64)
                self.layers[name[4:-7]] = weight.reshape(len(bias), -1), bias
        if "sheets" in spec:
            self.numbers, self.texels = sheet_texels(manifest, codes)

    def weights(self, origin, direction):
        """Of every slab."""
        costs = []
        for number, slab in enumerate(self.frames):
            o, d, parallel = self.local(number, origin, direction)
            tangent = np.zeros(2) if parallel else d[:2] / d[2]
            reach = slab["disparities"][-1] - slab["disparities"][0]
            cost = np.linalg.norm(o[:2] - o[2] * tangent) * reach
            cost += 0.05 * np.linalg.norm(tangent) + 0.001
            costs.append(cost / max(self.coordinates(number, origin, direction)[1], 1e-6))
        costs = np.array(costs)
        t = np.clip(1 - (costs - costs.min()) / self.spec["overlap"], 0, 1)
        w = t * t * (3 - 2 * t)
        if len(w) > 3:
            w = np.maximum(w - np.sort(w)[-4], 0)
            if w.sum() <= 1e-6:
                w = (np.arange(len(w)) == costs.argmin()).astype(float)
        return w / w.sum()

    def ray(self, origin, direction):
        """Features and coverage."""
        features, coverage = 0, 0
        for number, weight in enumerate(self.weights(origin, direction)):
            if weight > 0:
                coordinates, inside = self.coordinates(number, origin, direction)
                found = [
                    read_plane(self.planes[i][:, :, number], *(coordinates[a] for a in p["axes"]))
                    for i, p in enumerate(self.spec["planes"])
                ]
                features = features + weight * np.concatenate(found)
                coverage += weight * inside
        return features, coverage

    def on_sheets(self, origin, direction):
        """Red, green, blue, alpha, depth, coverage of one pixel's ray."""
        total = np.zeros(6)
        for number, weight in enumerate(self.weights(origin, direction)):
            if weight > 0:
                coordinates, inside = self.coordinates(number, origin, direction)
                o, d, parallel = self.local(number, origin, direction)
                disparities = self.spec["slabs"][number]["disparities"]
                left, found, far = 1.0, np.zeros(4), 0.0
                for p in reversed(range(len(disparities))):
                    value = self.on_sheet(number, p, *coordinates[2 * p : 2 * p + 2])
                    found = found + left * value
                    far += left * value[3] / disparities[p]
                    left *= 1 - value[3]
                depth = (far - found[3] * o[2]) / (1.0 if parallel else d[2])
                total += weight * np.array([*found, depth, inside])
        return total

    def on_sheet(self, slab, plane, a, b):
        """Red, green, blue, alpha of one sheet at coordinates a, b."""
        rows, columns = self.spec["sheets"]["rows"], self.spec["sheets"]["columns"]
        x = np.clip((a + 1) / 2 * (columns - 1), 0, columns - 1)
        y = np.clip((b + 1) / 2 * (rows - 1), 0, rows - 1)
        i, j = min(int(x), columns - 2), min(int(y), rows - 2)
        numbers, total = self.numbers[slab, plane], np.zeros(4)
        if numbers[j // 8, i // 8] < 0:
            return total
        for row, column in np.ndindex(2, 2):
            tile = numbers[(j + row) // 8, (i + column) // 8]
            if tile >= 0:
                weight = (1 - abs(y - j - row)) * (1 - abs(x - i - column))
                total += weight * self.texels[tile, (j + row) % 8, (i + column) % 8]
        return total

    def local(self, number, origin, direction):
        """Origin and direction in the slab's frame, and whether the ray is parallel to it."""
        slab = self.frames[number]
        o = slab["rotation"] @ (origin - slab["viewpoint"])
        d = slab["rotation"] @ direction
        return o, d, d[2] <= 0.2

    def coordinates(self, number, origin, direction):
        slab = self.frames[number]
        o, d, parallel = self.local(number, origin, direction)
        tangent = np.zeros(2) if parallel else d[:2] / d[2]
        s = slab["disparities"][:, None]
        q = s * o[:2] + (1 - s * o[2]) * tangent
        found = ((q - slab["low"]) / (slab["high"] - slab["low"]) * 2 - 1).reshape(-1)
        beyond = np.abs(found).max() - 1
        return found, 0.0 if parallel else min(max(1 - beyond / 0.1, 0.0), 1.0)

    def apply(self, layer, x):
        weight, bias = self.layers[layer]
        return x @ weight.T + bias

    def picture(self, features):
        """[5, height, width] raw, of the rays' blocks without the outermost."""
        d = self.spec["decoder"]
        k = d["samples"]
        e = np.maximum(self.apply("encode", features), 0)
        down, across = len(e) // k, e.shape[1] // k
        x = np.array(
            [
                [e[k * i : k * i + k, k * j : k * j + k].reshape(-1) for j in range(across)]
                for i in range(down)
            ]
        )
        x = self.apply("first", x)
        for i in range(d["blocks"]):
            inside = np.maximum(self.apply(f"block_{i}_0", np.maximum(x, 0)), 0)
            x = x + self.apply(f"block_{i}_1", inside)
        x = shuffled(self.apply("last", np.maximum(x, 0)))
        skip = {1: None, 2: 0, 4: 1, 8: 2, 16: 3}[k]
        for j in range(len(d["channels"])):
            x = np.maximum(x, 0)
            if j == skip:
                cut = (len(e) - len(x)) // 2
                inner = e[cut : len(e) - cut, cut : e.shape[1] - cut]
                x = np.concatenate([x, inner], axis=2)
            x = shuffled(self.convolved(f"sharpen_{j}", x))
        return x[2:-2, 2:-2].transpose(2, 0, 1)

    def convolved(self, layer, x):
        weight, bias = self.layers[layer]
        weight = weight.reshape(len(bias), x.shape[2], 3, 3)
        total = np.zeros((len(x) - 2, x.shape[1] - 2, len(bias))) + bias
        for row, column in np.ndindex(3, 3):
            part = x[row : row + len(x) - 2, column : column + x.shape[1] - 2]
            total += part @ weight[:, :, row, column].T
        return total


def sheet_texels(manifest, codes):
    """Numbers of tiles [slabs, planes, down, across], -1 where there is none, and their texels."""
    spec, slabs = manifest["lightslab"]["sheets"], manifest["lightslab"]["slabs"]
    stored = codes["sheet_tiles"][:, 0]
    assert set(stored) <= {0, 1} and stored.sum() == spec["tiles"]
    planes, down, across = len(slabs[0]["disparities"]), spec["rows"] // 8, spec["columns"] // 8
    numbers = np.where(stored, np.cumsum(stored) - 1, -1)
    numbers = numbers.reshape(len(slabs), planes, down, across)
    found = np.zeros((spec["tiles"], 8, 8, 4), dtype=np.int64)
    for slab, plane, row, column in np.argwhere(numbers >= 0):
        tiles = numbers[slab, plane]

        def code(x, y, tiles=tiles):
            """r, g, b, a of a texel of this sheet, counted from its corner."""
            if x < 0 or y < 0 or tiles[y // 8, x // 8] < 0:
                return np.zeros(4, dtype=np.int64)
            return found[tiles[y // 8, x // 8], y % 8, x % 8]

        tile = tiles[row, column]
        for i, j in np.ndindex(8, 8):
            x, y = 8 * column + j, 8 * row + i
            w, n, nw = code(x - 1, y), code(x, y - 1), code(x - 1, y - 1)
            e = codes["sheet_texels"][64 * tile + 8 * i + (7 - j if i % 2 else j)]
            low, high = min(w[3], n[3]), max(w[3], n[3])
            m = low if nw[3] >= high else high if nw[3] <= low else w[3] + n[3] - nw[3]
            a, both = m + e[0], w[3] + n[3]
            p = [a // 2 if not both else (2 * a * (w[c] + n[c]) + both) // (2 * both)
                 for c in range(3)]  # fmt: skip
            rgb = [p[0] + e[1] + e[2], p[1] + e[1], p[2] + e[1] + e[3]]
            assert min(*rgb, a) >= 0 and max(*rgb, a) <= 255
            found[tile, i, j] = [*rgb, a]
    return numbers, np.minimum(255, np.floor(spec["step"] * found + 0.5)) / 255


def shuffled(x):
    """Output channel 4 c + 2 y + x becomes channel c of the pixel (y, x) of 2 x 2."""
    result = np.zeros((2 * len(x), 2 * x.shape[1], x.shape[2] // 4))
    for row, column in np.ndindex(2, 2):
        result[row::2, column::2] = x[:, :, 2 * row + column :: 4]
    return result


def read_plane(texels, a, b):
    """Bilinear at a along columns and b along rows."""
    rows, columns = texels.shape[:2]
    x = np.clip((a + 1) / 2 * (columns - 1), 0, columns - 1)
    y = np.clip((b + 1) / 2 * (rows - 1), 0, rows - 1)
    i, j = int(x), int(y)
    total = 0
    for row, column in np.ndindex(2, 2):
        weight = (1 - abs(y - j - row)) * (1 - abs(x - i - column))
        total = total + weight * texels[min(j + row, rows - 1), min(i + column, columns - 1)]
    return total


if __name__ == "__main__":
    import sys

    for path in sys.argv[1:]:
        manifest, points, codes = decode(path)
        if manifest["kind"] == "lightslab":
            found = light_maps(manifest, codes, manifest["cameras"][0])
        else:
            found = splats(manifest, points, codes)
        print(path, {name: value.shape for name, value in found.items()})
