"""Meshes with vertex colours as GLB, PLY or OBJ files, whose coordinates lose nothing.

PLY has vertices in float64 where float32 would move them, OBJ has text of as many digits as it
takes. GLB has float32 alone; a node's transform, which is text, holds the rest.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scene4d.files import atomic_path
from scene4d.formats.gltf import GLTF_FROM_SOURCE
from scene4d.formats.splat_cloud import is_far

GLTF_AXES = "turned by 180 degrees about z (y up, by the specification), through the node"


def write_mesh(
    path: Path,
    vertices: np.ndarray,
    colours: np.ndarray,
    triangles: np.ndarray,
    moved: np.ndarray,
) -> None:
    """Writes a mesh, atomically, in the format of ``path``'s suffix.

    ``vertices`` [V, 3] float64; ``colours`` [V, 3], 0..1 as in pictures; ``triangles`` [T, 3];
    ``moved`` [3]: GLB's node moves the vertices by that, before the turn.
    """
    kind = path.suffix.lower()[1:]
    colours = np.clip(colours, 0.0, 1.0)
    if kind == "glb":
        content = _glb(vertices, colours, triangles, moved)
    else:
        codes = np.rint(255 * colours).astype(np.uint8)
        content = (_ply if kind == "ply" else _obj)(vertices, codes, triangles)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _glb(
    vertices: np.ndarray, colours: np.ndarray, triangles: np.ndarray, moved: np.ndarray
) -> bytes:
    import trimesh

    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    mesh = trimesh.Trimesh(
        vertices=vertices,
        faces=triangles,
        vertex_colors=np.rint(255 * linear).astype(np.uint8),
        process=False,
    )
    node = GLTF_FROM_SOURCE.copy()
    node[:3, 3] = GLTF_FROM_SOURCE[:3, :3] @ moved
    scene = trimesh.Scene()
    scene.add_geometry(mesh, transform=node)
    content = scene.export(file_type="glb")
    assert isinstance(content, bytes)
    return content


def _ply(vertices: np.ndarray, codes: np.ndarray, triangles: np.ndarray) -> bytes:
    kind = ("double", "<f8") if _far(vertices) else ("float", "<f4")
    rows = np.empty(len(vertices), dtype=[("xyz", kind[1], 3), ("rgba", "u1", 4)])
    rows["xyz"], rows["rgba"][:, :3], rows["rgba"][:, 3] = vertices, codes, 255
    faces = np.empty(len(triangles), dtype=[("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, triangles
    header = ["ply", "format binary_little_endian 1.0", "comment scene4d"]
    header += [f"element vertex {len(vertices)}", *(f"property {kind[0]} {c}" for c in "xyz")]
    header += [f"property uchar {name}" for name in ("red", "green", "blue", "alpha")]
    header += [f"element face {len(triangles)}", "property list uchar int vertex_indices"]
    text = "\n".join([*header, "end_header"]) + "\n"
    return text.encode() + rows.tobytes() + faces.tobytes()


def _obj(vertices: np.ndarray, codes: np.ndarray, triangles: np.ndarray) -> bytes:
    digits = 15 if _far(vertices) else 9
    places = f"v %.{digits}g %.{digits}g %.{digits}g %.8f %.8f %.8f"
    table = np.concatenate([vertices, codes / 255.0], axis=1).tolist()
    lines = ["# scene4d", *(places % tuple(row) for row in table)]
    lines += [f"f {a} {b} {c}" for a, b, c in (triangles + 1).tolist()]
    return ("\n".join(lines) + "\n").encode()


def _far(vertices: np.ndarray) -> bool:
    return is_far(vertices, np.full((len(vertices), 3), -np.inf))
