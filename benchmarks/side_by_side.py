"""Held-out photographs beside what runs, bundles and splat files of the capture show there.

    python benchmarks/side_by_side.py OUT.png RUN [RUN_OR_FILE ...] [--mesh MESH.ply]
                                      --views 0 3 --width 1200

The first column is the photograph, the next ones follow the order given, a mesh in the capture's
coordinates is last (black where it is not); the first run says which capture. PSNR of each picture
is printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numba
import numpy as np
import torch
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("sources", nargs="+", type=Path, help="a run first")
    parser.add_argument("--mesh", type=Path, help=".ply or .obj of export RUN mesh")
    parser.add_argument("--views", nargs="+", type=int, default=[0], help="of the test views")
    parser.add_argument("--width", type=int, default=1200, help="of the picture, pixels")
    arguments = parser.parse_args()
    pixels = torch.cat([row(view, arguments.sources, arguments.mesh) for view in arguments.views])
    picture = Image.fromarray((pixels * 255).round().byte().numpy())
    height = round(picture.height * arguments.width / picture.width)
    picture.resize((arguments.width, height), Image.Resampling.LANCZOS).save(arguments.output)


@torch.no_grad()
def row(number: int, sources: list[Path], mesh: Path | None) -> torch.Tensor:
    """[height, columns * width, 3]"""
    from scene4d.evaluation.protocol import composited
    from scene4d.evaluation.psnr import psnr
    from scene4d.training.run import load_run
    from scene4d.training.teachers import load_teacher
    from scene4d.training.train import load_capture

    scene, images = load_capture(load_run(sources[0]).options, split="test")
    view = images.view(scene.test_indices[number])
    background = torch.tensor(scene.background or (0.0, 0.0, 0.0))
    columns = [composited(view, background)]
    for source in sources:
        shown = load_teacher(source).in_frame(scene.source_from_scene).eval()
        rgb = shown.render(view.camera, background=background).rgb.clamp(0, 1)
        print(f"view {number}  {source}  {float(psnr(rgb, columns[0], mask=view.mask)):.2f} dB")
        columns.append(rgb)
    if mesh is not None:
        columns.append(mesh_picture(mesh, view.camera, scene.source_from_scene))
    return torch.cat(columns, dim=1)


def mesh_picture(path: Path, camera, source_from_scene: torch.Tensor) -> torch.Tensor:
    """[height, width, 3] the mesh's vertex colours at an undistorted camera of the scene."""
    import trimesh

    mesh = trimesh.load(path, process=False, force="mesh")
    view_from_source = torch.linalg.inv(source_from_scene.double() @ camera.c2w.double()).numpy()
    local = np.asarray(mesh.vertices) @ view_from_source[:3, :3].T + view_from_source[:3, 3]
    K = camera.K.double().numpy()
    depth = -local[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        places = np.stack([K[0, 0] * local[:, 0] / depth + K[0, 2],
                           -K[1, 1] * local[:, 1] / depth + K[1, 2]], axis=1)  # fmt: skip
    colours = np.asarray(mesh.visual.vertex_colors)[:, :3] / 255
    picture = np.zeros((camera.height, camera.width, 3))
    nearest = np.full((camera.height, camera.width), np.inf)
    draw_triangles(np.asarray(mesh.faces), places, depth, colours, nearest, picture)
    return torch.from_numpy(picture).float()


@numba.njit
def draw_triangles(faces, places, depth, colours, nearest, picture):
    """A z-buffer with interpolation in the picture; triangles that reach behind are left out."""
    height, width = nearest.shape
    for face in faces:
        a, b, c = face
        if min(depth[a], depth[b], depth[c]) <= 1e-6:
            continue
        (xa, ya), (xb, yb), (xc, yc) = places[a], places[b], places[c]
        area = (yb - yc) * (xa - xc) + (xc - xb) * (ya - yc)
        if area == 0:
            continue
        for y in range(max(0, int(min(ya, yb, yc) - 0.5)), min(height, int(max(ya, yb, yc) + 1.5))):
            for x in range(max(0, int(min(xa, xb, xc) - 0.5)),
                           min(width, int(max(xa, xb, xc) + 1.5))):  # fmt: skip
                u = ((yb - yc) * (x + 0.5 - xc) + (xc - xb) * (y + 0.5 - yc)) / area
                v = ((yc - ya) * (x + 0.5 - xc) + (xa - xc) * (y + 0.5 - yc)) / area
                w = 1 - u - v
                z = u * depth[a] + v * depth[b] + w * depth[c]
                if min(u, v, w) >= 0 and z < nearest[y, x]:
                    nearest[y, x] = z
                    picture[y, x] = u * colours[a] + v * colours[b] + w * colours[c]


if __name__ == "__main__":
    main()
