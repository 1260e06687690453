"""How many pixels the quads of a scene's splats cover, for rules of footprints; no GPU, no timing.

python covered_pixels.py

A software renderer pays for each of them. Camera and size are the first of pages/path.js.
"""

from __future__ import annotations

import numpy as np
from ball_scenes import PLYS, ball

EYE = np.array([2.6, 0.6, 0.0])
FOCAL = 240 / np.tan(np.radians(25.0))
#: Low-pass in px^2, and where the kernel ends in standard deviations.
RULES = {
    "bare PlayCanvas": (0.075, 8**0.5),
    "its low-pass raised to 0.3": (0.3, 8**0.5),
    "its kernel to 3.33": (0.075, 3.33),
    "both (the trainer's rasteriser)": (0.3, 3.33),
    "0.3, to 3.0": (0.3, 3.0),
}


def footprints(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Covariances in the image [N, 2, 2] (px^2) and opacities [N] of a ball of splats."""
    cloud = ball(count, degree=0)
    back = EYE / np.linalg.norm(EYE)
    right = np.cross([0.0, 1.0, 0.0], back)
    right /= np.linalg.norm(right)
    world_to_camera = np.stack([right, np.cross(back, right), back])
    x, y, z = ((cloud.means - EYE) @ world_to_camera.T).T
    jacobian = np.zeros((count, 2, 3))
    jacobian[:, 0, 0] = jacobian[:, 1, 1] = -FOCAL / z
    jacobian[:, 0, 2], jacobian[:, 1, 2] = FOCAL * x / z**2, FOCAL * y / z**2
    axes = rotations(cloud.quats) * np.exp(cloud.log_scales)[:, None, :]
    half = jacobian @ world_to_camera @ axes
    return half @ half.transpose(0, 2, 1), 1 / (1 + np.exp(-cloud.logit_opacities))


def rotations(quats: np.ndarray) -> np.ndarray:
    """[N, 4] wxyz of any length -> [N, 3, 3]."""
    w, x, y, z = (quats / np.linalg.norm(quats, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def covered(covariances: np.ndarray, opacities: np.ndarray, low_pass: float, end: float) -> float:
    """Pixels of all quads together: each ends where alpha falls below 1/255, at `end` at most."""
    determinants = np.linalg.det(covariances + low_pass * np.eye(2))
    faint = np.sqrt(2 * np.maximum(0, np.log(255 * opacities)))
    return float((4 * np.minimum(end, faint) ** 2 * np.sqrt(determinants)).sum())


def main() -> None:
    """Prints a table."""
    scenes = {name: footprints(count) for name, count in PLYS.items()}
    bare = {name: covered(*scene, *RULES["bare PlayCanvas"]) for name, scene in scenes.items()}
    for rule, numbers in RULES.items():
        shares = [covered(*scene, *numbers) / bare[name] for name, scene in scenes.items()]
        print(f"{rule:32s}", *(f"{name}: {s:.2f}" for name, s in zip(PLYS, shares, strict=True)))


if __name__ == "__main__":
    main()
