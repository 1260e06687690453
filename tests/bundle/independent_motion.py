"""Gaussians of kind splats4d at a time, written from mobile_export/SPEC.md, section 9, alone.

Numpy in doubles; nothing from scene4d. Poses are 4 x 4 matrices here, Gaussians one by one.
"""

import numpy as np


def quats_at_rest(rotation):
    w = np.sqrt(np.maximum(0, 1 - (rotation.astype(np.float64) ** 2).sum(axis=1, keepdims=True)))
    return np.concatenate([w, rotation], axis=1)


def arrangement(manifest, points, codes, values, time):
    """Means, quats and opacity of all Gaussians at ``time``, in the order of section 4.

    ``points`` [n, 3] on the grid; ``values(name)``: those of an array.
    """
    spec, grid = manifest["splats4d"], manifest["positions"]
    origin = np.array(grid["origin"])
    means = np.float32(origin + grid["step"] * points).astype(np.float64)
    quats = quats_at_rest(values("rotation"))
    opacity = np.clip(values("opacity")[:, 0].astype(np.float64), 1 / 4096, 1 - 1 / 4096)
    moving = codes["moving"][:, 0]
    assert set(moving.tolist()) <= {0, 1}
    time = min(max(time, spec["start"]), spec["start"] + spec["duration"])
    if moving.any():
        rests = codes["node_rest"]
        poses = node_poses(spec, codes, origin + grid["step"] * rests, time)
    for i in np.flatnonzero(moving):
        nodes = nodes_of(points[i], rests, codes["nodes"][i])
        weights = np.append(codes["weights"][i], 255 - codes["weights"][i].sum()) / 255
        assert (weights >= 0).all()
        turn, shift = blended([poses[node] for node in nodes], weights)
        means[i] = matrix_of(turn) @ means[i] + shift
        quats[i] = times(turn, quats[i])
        if spec["windows"]:
            rise, fall, a, b = values("window")[i].astype(np.float64)
            assert a > 0 and b > 0
            opacity[i] *= sigmoid((time - rise) / a) * sigmoid((fall - time) / b)
    return {"means": means, "quats": quats, "opacity": opacity}


def nodes_of(point, rests, ranks):
    """The nodes of four ranks."""
    squares = ((rests - point) ** 2).sum(axis=1)
    order = sorted(range(len(rests)), key=lambda node: (int(squares[node]), node))
    assert len(set(ranks.tolist())) == 4 and min(ranks) >= 0
    return [order[rank] for rank in ranks]


def node_poses(spec, codes, rests, time):
    """[N] poses at a time, from the chunk of that time alone."""
    v = (time - spec["start"]) / spec["interval"]
    last = sum(chunk["segments"] for chunk in spec["chunks"]) - 1
    s = min(int(np.floor(v)), last)
    number, chunk = next(
        (i, c) for i, c in enumerate(spec["chunks"])
        if c["segment"] <= s < c["segment"] + c["segments"]
    )  # fmt: skip
    nodes = len(rests)
    coded = codes[f"motion_{number}"].reshape(chunk["segments"] + 3, nodes, 6)
    sums = np.cumsum(coded, axis=0)[s - chunk["segment"] :][:4]
    assert np.abs(sums).max() <= 2**30
    poses = []
    for node, c in enumerate(rests):
        knots = []
        for code in sums[:, node]:
            rotation = rotation_of(spec["rotation_step"] * code[:3])
            knots.append(rigid(rotation, c + spec["shift_step"] * code[3:] - rotation @ c))
        poses.append(spline(knots, v - s))
    return poses


def spline(p, u):
    """The pose between the knots p[0] .. p[3]."""
    shares = [
        (5 + 3 * u - 3 * u**2 + u**3) / 6, (1 + 3 * u + 3 * u**2 - 2 * u**3) / 6, u**3 / 6
    ]  # fmt: skip
    pose = p[0]
    for share, first, second in zip(shares, p, p[1:], strict=False):
        pose = pose @ exponential(share * logarithm(np.linalg.inv(first) @ second))
    return pose


def cross_of(a):
    return np.array([[0, -a[2], a[1]], [a[2], 0, -a[0]], [-a[1], a[0], 0]])


def rotation_of(a):
    """Rodrigues' formula."""
    angle = np.linalg.norm(a)
    if angle < 1e-9:
        return np.eye(3) + cross_of(a)
    k = cross_of(a / angle)
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def v_of(a):
    angle, k = np.linalg.norm(a), cross_of(a)
    if angle < 1e-4:
        return np.eye(3) + k / 2 + k @ k / 6
    return (
        np.eye(3) + (1 - np.cos(angle)) / angle**2 * k + (angle - np.sin(angle)) / angle**3 * k @ k
    )


def rigid(rotation, translation):
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, translation
    return pose


def exponential(twist):
    return rigid(rotation_of(twist[:3]), v_of(twist[:3]) @ twist[3:])


def logarithm(pose):
    q = quat_of(pose[:3, :3])
    q = -q if q[0] < 0 else q
    sine = np.linalg.norm(q[1:])
    a = 2 * q[1:] if sine < 1e-9 else 2 * np.arctan2(sine, q[0]) * q[1:] / sine
    return np.concatenate([a, np.linalg.solve(v_of(a), pose[:3, 3])])


def quat_of(r):
    """A unit quaternion of a rotation matrix: the eigenvector of Bar-Itzhack's matrix."""
    k = np.array([
        [r[0, 0] + r[1, 1] + r[2, 2], r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]],
        [r[2, 1] - r[1, 2], r[0, 0] - r[1, 1] - r[2, 2], r[0, 1] + r[1, 0], r[0, 2] + r[2, 0]],
        [r[0, 2] - r[2, 0], r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], r[1, 2] + r[2, 1]],
        [r[1, 0] - r[0, 1], r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1]],
    ])  # fmt: skip
    return np.linalg.eigh(k)[1][:, -1]


def matrix_of(q):
    return rotation_of(2 * np.arctan2(np.linalg.norm(q[1:]), q[0]) * axis_of(q))


def axis_of(q):
    length = np.linalg.norm(q[1:])
    return q[1:] / length if length else np.zeros(3)


def times(a, b):
    """Hamilton product."""
    w, v, x, u = a[0], a[1:], b[0], b[1:]
    return np.concatenate([[w * x - v @ u], w * u + x * v + np.cross(v, u)])


def blended(poses, weights):
    """The quaternion and shift of the blend of four poses."""
    quats = [quat_of(pose[:3, :3]) for pose in poses]
    main = quats[int(np.argmax(weights))]
    real, dual = np.zeros(4), np.zeros(4)
    for pose, q, weight in zip(poses, quats, weights, strict=True):
        q = -q if q @ main < 0 else q
        real += weight * q
        dual += weight * times(np.append(0, pose[:3, 3]), q) / 2
    length = np.linalg.norm(real)
    r, d = real / length, dual / length
    return r, 2 * times(d, r * [1, -1, -1, -1])[1:]


def sigmoid(x):
    return 1 / (1 + np.exp(-np.clip(x, -700, 700)))
