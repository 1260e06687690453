"""Pictures of light fields, written from section 8 of mobile_export/SPEC.md alone.

Numpy and the rest of the independent decoder; nothing from scene4d.
"""

import numpy as np
from bundle.independent_decoder import decode, splats, values_of


def light_maps(manifest, codes, camera, stages=None, least=0.0):
    """Section 8, in doubles: the maps r, g, b, a (after their sigmoids), z, coverage.

    With MPIs: r, g, b, a as shown before black, coverage, and what the MPIs alone give:
    ``seen`` (their alpha) and ``distance`` along the ray (0 where nothing is seen). MPIs of which
    less than ``least`` is seen are not looked at.
    """
    spec = manifest["lightslab"]
    field = LightField(manifest, codes, len(manifest["stages"]) if stages is None else stages)
    k, n = spec["decoder"]["samples"], len(spec["decoder"]["channels"])
    unit = 2 ** (n + 1)
    width, height = camera["width"], camera["height"]
    across, down = -(-width // unit) + 2, -(-height // unit) + 2
    size = unit / k
    features = np.zeros((down * k, across * k, len(spec["feature_planes"]) * spec["features"]))
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
    if "mpi" in spec:
        seen = np.array(
            [
                [field.on_mpi(c2w[:3, 3], direction(x + 0.5, y + 0.5), least) for x in range(width)]
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
        for number, plane in enumerate(spec["feature_planes"]):
            values = values_of(f"feature_plane_{number}", manifest, codes).astype(np.float64)
            shape = (plane["rows"], plane["columns"], len(spec["slabs"]), spec["features"])
            self.planes.append(values.reshape(shape) * (plane["stage"] < stages))
        for name in codes:
            if name.startswith("net_") and name.endswith("_weight"):
                bias = values_of(name[:-6] + "bias", manifest, codes)[:, 0].astype(np.float64)
                weight = values_of(name, manifest, codes).astype(np.float64)
                self.layers[name[4:-7]] = weight.reshape(len(bias), -1), bias
        if "mpi" in spec:
            self.numbers, self.texels = mpi_texels(manifest, codes)

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
                    for i, p in enumerate(self.spec["feature_planes"])
                ]
                features = features + weight * np.concatenate(found)
                coverage += weight * inside
        return features, coverage

    def on_mpi(self, origin, direction, least):
        """Red, green, blue, alpha, depth, coverage of one pixel's ray."""
        total = np.zeros(6)
        for number, weight in enumerate(self.weights(origin, direction)):
            if weight > 0:
                coordinates, inside = self.coordinates(number, origin, direction)
                o, d, parallel = self.local(number, origin, direction)
                disparities = self.spec["slabs"][number]["disparities"]
                left, found, far = 1.0, np.zeros(4), 0.0
                for p in reversed(range(len(disparities))):
                    if left < least:
                        break
                    value = self.on_mpi_plane(number, p, *coordinates[2 * p : 2 * p + 2])
                    found = found + left * value
                    far += left * value[3] / disparities[p]
                    left *= 1 - value[3]
                depth = (far - found[3] * o[2]) / (1.0 if parallel else d[2])
                total += weight * np.array([*found, depth, inside])
        return total

    def on_mpi_plane(self, slab, plane, a, b):
        """Red, green, blue, alpha of one MPI plane at coordinates a, b."""
        rows, columns = self.spec["mpi"]["rows"], self.spec["mpi"]["columns"]
        x = np.clip((a + 1) / 2 * (columns - 1), 0, columns - 1)
        y = np.clip((b + 1) / 2 * (rows - 1), 0, rows - 1)
        i, j = min(int(x), columns - 2), min(int(y), rows - 2)
        numbers, total = self.numbers[slab, plane], np.zeros(4)
        if numbers[j // 8, i // 8] < 0:
            return total
        for row, column in np.ndindex(2, 2):
            block = numbers[(j + row) // 8, (i + column) // 8]
            if block >= 0:
                weight = (1 - abs(y - j - row)) * (1 - abs(x - i - column))
                total += weight * self.texels[block, (j + row) % 8, (i + column) % 8]
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


COSINES = np.array(
    [
        [64, 64, 64, 64, 64, 64, 64, 64],
        [89, 75, 50, 18, -18, -50, -75, -89],
        [83, 36, -36, -83, -83, -36, 36, 83],
        [75, -18, -89, -50, 50, 89, 18, -75],
        [64, -64, -64, 64, 64, -64, -64, 64],
        [50, -89, 18, 75, -75, -18, 89, -50],
        [36, -83, 83, -36, -36, 83, -83, 36],
        [18, -50, 75, -89, 89, -75, 50, -18],
    ],
    dtype=np.int64,
)
"""Section 8's matrix D: row u, column x."""


def mpi_texels(manifest, codes):
    """Numbers of blocks [slabs, planes, down, across], -1 where there is none, and their texels."""
    spec, slabs = manifest["lightslab"]["mpi"], manifest["lightslab"]["slabs"]
    stored, levels = codes["mpi_blocks"][:, 0], codes["mpi_levels"][:, 0].astype(np.int64)
    assert set(stored) <= {0, 1} and stored.sum() == spec["blocks"] == len(levels)
    assert set(levels) <= set(range(8))
    planes, down, across = len(slabs[0]["disparities"]), spec["rows"] // 8, spec["columns"] // 8
    numbers = np.where(stored, np.cumsum(stored) - 1, -1)
    numbers = numbers.reshape(len(slabs), planes, down, across)
    places = [(u, total - u) for total in range(15) for u in range(8) if 0 <= total - u < 8]
    channels = []
    for j, steps in enumerate(spec["steps"]):
        frequencies = np.zeros((spec["blocks"], 8, 8), dtype=np.int64)
        for k, step in enumerate(steps):
            value = codes["mpi_frequencies"][:, 4 * k + j].astype(np.int64)
            frequencies[:, places[k][0], places[k][1]] = value * step * 2**levels
        assert np.abs(frequencies).max(initial=0) <= 2**20
        sums = np.matmul(np.matmul(COSINES.T, frequencies), COSINES)
        channels.append((sums + 2**17) // 2**18)
    a, luma, p, q = channels
    m = luma - q // 2
    b = m - p // 2
    return numbers, np.clip(np.stack([b + p, m + q, b, a], axis=3), 0, 255) / 255


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
