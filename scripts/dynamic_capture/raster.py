"""A software rasteriser: triangles to colours, depth and which surface a pixel shows.

Homogeneous edge functions (Olano & Greer 1997): barycentric coordinates come perspective-correct
from the inverse of a triangle's three projected vertices, so nothing has to be clipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

NEAR = 0.02
"""Of the depth along the viewing axis, in scene units."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pinhole:
    """A camera; ``world_to_camera`` has OpenCV's axes (x right, y down, z forward)."""

    world_to_camera: np.ndarray
    focal: float
    width: int
    height: int

    @classmethod
    def looking(
        cls, eye: ArrayLike, target: ArrayLike, *, focal: float, width: int, height: int
    ) -> Pinhole:
        """A camera at ``eye`` that looks at ``target``, upright: y is up in the world."""
        eye, target = np.asarray(eye, np.float64), np.asarray(target, np.float64)
        forward = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross(forward, [0.0, 1.0, 0.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = rotation, -rotation @ eye
        return cls(world_to_camera=matrix, focal=focal, width=width, height=height)

    @property
    def matrix(self) -> np.ndarray:
        """[3, 4] to homogeneous pixels from the top-left corner of the picture."""
        K = np.array(
            [[self.focal, 0, self.width / 2], [0, self.focal, self.height / 2], [0, 0, 1.0]]
        )
        return K @ self.world_to_camera[:3]

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels [..., 2] and depths [...] of world points [..., 3]."""
        m = self.matrix
        homogeneous = points @ m[:, :3].T + m[:, 3]
        depth = homogeneous[..., 2]
        return homogeneous[..., :2] / np.where(np.abs(depth) < 1e-9, 1e-9, depth)[..., None], depth


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What each sample shows; samples are in rows, ``samples`` x ``samples`` a pixel."""

    face: np.ndarray
    """[h, w] index of the triangle; -1 for nothing."""
    weights: np.ndarray
    """[h, w, 3] perspective-correct barycentric coordinates in it."""
    depth: np.ndarray
    """[h, w] along the viewing axis; infinity for nothing."""

    def centres(self, samples: int) -> Seen:
        """The samples at pixels' centres; ``samples`` is odd."""
        middle = slice(samples // 2, None, samples)
        return Seen(
            face=self.face[middle, middle],
            weights=self.weights[middle, middle],
            depth=self.depth[middle, middle],
        )


def rasterise(
    positions: np.ndarray, faces: np.ndarray, camera: Pinhole, *, samples: int = 1
) -> Seen:
    """The nearest triangle of each sample; both sides of a triangle are seen."""
    m = camera.matrix
    m = np.diag([samples, samples, 1.0]) @ m
    corners = (positions @ m[:, :3].T + m[:, 3]).astype(np.float64)
    height, width = camera.height * samples, camera.width * samples
    depth = np.full((height, width), np.inf)
    face = np.full((height, width), -1, dtype=np.int32)
    weights = np.zeros((height, width, 3), dtype=np.float32)
    _draw(corners, faces, depth, face, weights)
    return Seen(face=face, weights=weights, depth=depth)


@njit(cache=True)
def _draw(corners, faces, depth, face, weights):  # type: ignore[no-untyped-def]
    height, width = depth.shape
    for index in range(len(faces)):
        a, b, c = corners[faces[index, 0]], corners[faces[index, 1]], corners[faces[index, 2]]
        nearest = min(a[2], b[2], c[2])
        if max(a[2], b[2], c[2]) <= NEAR:
            continue
        left, right, top, bottom = 0, width, 0, height
        if nearest > NEAR:  # else it reaches behind the camera, and may be anywhere
            xs = (a[0] / a[2], b[0] / b[2], c[0] / c[2])
            ys = (a[1] / a[2], b[1] / b[2], c[1] / c[2])
            if max(xs) < 0 or min(xs) > width or max(ys) < 0 or min(ys) > height:
                continue
            left, right = max(0, int(min(xs) - 0.5)), min(width, int(max(xs) + 1.5))
            top, bottom = max(0, int(min(ys) - 0.5)), min(height, int(max(ys) + 1.5))
        # rows of the adjugate: edges through pairs of vertices
        e0 = np.cross(b, c)
        e1 = np.cross(c, a)
        e2 = np.cross(a, b)
        determinant = a[0] * e0[0] + a[1] * e0[1] + a[2] * e0[2]
        if determinant == 0.0:
            continue
        for row in range(top, bottom):
            y = row + 0.5
            for column in range(left, right):
                x = column + 0.5
                u = (e0[0] * x + e0[1] * y + e0[2]) / determinant
                v = (e1[0] * x + e1[1] * y + e1[2]) / determinant
                w = (e2[0] * x + e2[1] * y + e2[2]) / determinant
                if u < 0 or v < 0 or w < 0:
                    continue
                inverse = u + v + w  # of the depth
                if inverse <= 0 or inverse > 1 / NEAR:
                    continue
                z = 1 / inverse
                if z < depth[row, column]:
                    depth[row, column] = z
                    face[row, column] = index
                    weights[row, column, 0] = u * z
                    weights[row, column, 1] = v * z
                    weights[row, column, 2] = w * z


@dataclass(frozen=True, kw_only=True, eq=False)
class Surfaces:
    """What triangles look like."""

    uv: np.ndarray
    """[triangles, 3, 2]."""
    color: np.ndarray
    """[triangles, 3], 0..1."""
    texture: np.ndarray
    """[triangles] index into ``textures``; -1 for none."""
    textures: list[np.ndarray]
    """Each [height, width, 3] uint8."""
    lit: np.ndarray
    """[triangles] whether light falls on it: not where it is in the texture."""


@dataclass(frozen=True, kw_only=True)
class Light:
    """One lamp far away, and light from everywhere."""

    towards: tuple[float, float, float] = (0.35, 0.8, 0.5)
    ambient: float = 0.62
    diffuse: float = 0.42


def shade(
    seen: Seen, normals: np.ndarray, surfaces: Surfaces, light: Light, sky: np.ndarray
) -> np.ndarray:
    """[h, w, 3] colours 0..1 of every sample; ``normals`` [triangles, 3, 3] of the corners."""
    known = seen.face >= 0
    face, weights = seen.face[known], seen.weights[known]
    color = surfaces.color[face].copy()
    uv = np.einsum("nk,nkd->nd", weights, surfaces.uv[face])
    for index, texture in enumerate(surfaces.textures):
        here = surfaces.texture[face] == index
        color[here] *= _bilinear(texture, uv[here])
    normal = np.einsum("nk,nkd->nd", weights, normals[face])
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    towards = np.asarray(light.towards) / np.linalg.norm(light.towards)
    # half Lambert: round even where the lamp does not reach
    share = light.ambient + light.diffuse * (0.5 + 0.5 * (normal @ towards))
    color *= np.where(surfaces.lit[face], share, 1.0)[:, None]
    picture = np.empty((*seen.face.shape, 3))
    picture[...] = sky
    picture[known] = color
    return np.clip(picture, 0.0, 1.0)


def _bilinear(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Colours 0..1 at ``uv``, which repeats."""
    height, width = texture.shape[:2]
    x, y = (uv[:, 0] % 1.0) * width - 0.5, (uv[:, 1] % 1.0) * height - 0.5
    x0, y0 = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]

    def at(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        return texture[row % height, column % width].astype(np.float64) / 255.0

    upper = at(y0, x0) * (1 - fx) + at(y0, x0 + 1) * fx
    lower = at(y0 + 1, x0) * (1 - fx) + at(y0 + 1, x0 + 1) * fx
    return upper * (1 - fy) + lower * fy


def averaged(picture: np.ndarray, samples: int) -> np.ndarray:
    """[height, width, 3] from ``samples`` x ``samples`` samples a pixel."""
    height, width = picture.shape[0] // samples, picture.shape[1] // samples
    return picture.reshape(height, samples, width, samples, 3).mean(axis=(1, 3))
