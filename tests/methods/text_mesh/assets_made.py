"""A folder of captioned meshes, made here: boxes and bars in a few colours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from scene4d.exporters.textured_glb import glb
from scene4d.formats.textured_mesh import MeshData

COLOURS = {"red": (0.9, 0.1, 0.1), "green": (0.1, 0.8, 0.1), "blue": (0.1, 0.2, 0.9)}
SHAPES = {"box": (1.0, 1.0, 1.0), "bar": (0.4, 2.0, 0.4)}
UNSEEN = "a blue bar"


def block(size: tuple[float, float, float], colour: tuple[float, float, float]) -> MeshData:
    """A box of one colour, outwards."""
    corners = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1], indexing="ij")).reshape(3, 8).T
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    triangles = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    texture = np.broadcast_to(np.array(colour, dtype=np.float32), (8, 8, 3)).copy()
    return MeshData(
        vertices=corners * np.array(size) / 2,
        triangles=triangles,
        uv=np.full((8, 2), 0.5),
        uv_triangles=triangles,
        texture=texture,
    )


def write_assets(folder: Path) -> Path:
    """All compositions but :data:`UNSEEN` are to be trained on."""
    folder.mkdir()
    entries = []
    for shape, size in SHAPES.items():
        for name, colour in COLOURS.items():
            file, caption = f"{name}_{shape}.glb", f"a {name} {shape}"
            (folder / file).write_bytes(glb(block(size, colour), np.zeros(3)))
            split = "test" if caption == UNSEEN else "train"
            entries.append({"file": file, "caption": caption, "split": split})
    (folder / "captions.json").write_text(json.dumps(entries))
    return folder
