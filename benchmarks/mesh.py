"""Times the mesh rasteriser and measures its slopes (docs/mesh.md has our tables).

python benchmarks/mesh.py speed       # forward + backward at several sizes, DEODR beside it
python benchmarks/mesh.py slopes      # against 16 x 16 finer pictures, at several tessellations
python benchmarks/mesh.py isosurface  # FlexiCubes forward + backward, apart from the field
python benchmarks/mesh.py quality RUN # a run of the method mesh, and what else there is to draw
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from scipy.spatial import cKDTree

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from rendering.mesh.deodr_scenes import deodr_scene
from rendering.mesh.meshes import looking_at_origin, two_spheres
from rendering.mesh.test_rasterization import moved

from scene4d.data.scene import at_size_of
from scene4d.evaluation.protocol import evaluate
from scene4d.exporters.mesh import fused_surface, largest_parts
from scene4d.exporters.options import MeshOptions
from scene4d.methods.mesh.start import simplified
from scene4d.methods.mesh.textured_mesh import TexturedMesh
from scene4d.rendering.freed_memory import keep_freed_memory
from scene4d.rendering.isosurface.cubes import surface_cubes
from scene4d.rendering.isosurface.flexicubes import CubeWeights, flexicubes, sign_changes
from scene4d.rendering.isosurface.near_surface import grid_places
from scene4d.rendering.mesh.fragments import corners_of, draw, interpolate
from scene4d.rendering.mesh.rasterization import Atlas, Mesh, rasterize
from scene4d.rendering.render import Render
from scene4d.representations.task import Task, World
from scene4d.training.run import load_run
from scene4d.training.teachers import load_teacher
from scene4d.training.train import load_capture

FINER, STEP = 16, 4e-3


def best_ms(work: Callable[[], object], runs: int) -> float:
    """Of the fastest run, in CPU time of this thread: others use this machine, too."""
    taken = []
    for _ in range(runs + 2):
        begin = time.thread_time()
        work()
        taken.append(1e3 * (time.thread_time() - begin))
    return min(taken[2:])


def textured(rings: int) -> Mesh:
    vertices, triangles, _ = two_spheres(rings)
    uv = (vertices[:, :2] - vertices[:, :2].amin(0)) / 3
    texture = torch.rand(1024, 1024, 3, requires_grad=True)
    return Mesh(
        vertices=vertices.float().requires_grad_(),
        triangles=triangles,
        atlas=Atlas(uv=uv.float(), triangles=triangles, texture=texture),
    )


def speed(runs: int, sizes: list[int], rings_of_globes: list[int]) -> None:
    keep_freed_memory()  # as the command line does
    print("| picture | triangles | colours ms | texture 1024 ms | DEODR ms |")
    print("|---|---|---|---|---|")
    first, *others = rings_of_globes
    for size, rings in [*((s, first) for s in sizes), *((sizes[0], r) for r in others)]:
        vertices, triangles, colours = two_spheres(rings)
        viewmat, K = looking_at_origin(size)
        plain = Mesh(
            vertices=vertices.float().requires_grad_(),
            triangles=triangles,
            colours=colours.float().requires_grad_(),
        )
        weights = torch.rand(size, size, 3)

        def step(mesh: Mesh, viewmat=viewmat, K=K, size=size, weights=weights) -> None:
            seen = rasterize(mesh, viewmat, K, width=size, height=size, depths=False)
            leaves = [mesh.vertices, mesh.atlas.texture if mesh.atlas else mesh.colours]
            torch.autograd.grad((seen.rgb * weights).sum(), leaves)

        row = [best_ms(lambda step=step, plain=plain: step(plain), runs)]
        atlas = textured(rings)
        row.append(best_ms(lambda step=step, atlas=atlas: step(atlas), runs))
        try:
            build = partial(deodr_scene, vertices, triangles, colours, (viewmat, K), size)
            build()
        except ImportError as error:
            other = f"not installed ({error.name})"
        else:
            weighted = weights.double().numpy()

            def deodr_step(build=build, weighted=weighted) -> None:
                theirs = build()  # its outlines are found anew for each view, as ours are
                theirs.render(1.0)
                theirs.render_backward(weighted)

            other = f"{best_ms(deodr_step, runs):.1f}"
        print(f"| {size} px | {len(triangles):,} | {row[0]:.1f} | {row[1]:.1f} | {other} |")


def slopes(size: int, rings_of_globes: list[int]) -> None:
    print("| triangles | error of slopes | RMSE at outlines: sharp | blended |\n|---|---|---|---|")
    weights = torch.randn(1, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    weights = torch.nn.functional.interpolate(weights, (size, size), mode="bicubic")
    weights = weights[0].permute(1, 2, 0)
    viewmat, K = looking_at_origin(size, focal=1.3)
    finer = K * K.new_tensor([FINER, FINER, 1.0])[:, None]
    for rings in rings_of_globes:
        vertices, triangles, colours = two_spheres(rings)

        def fine(amounts, vertices=vertices, triangles=triangles, colours=colours):
            corners = corners_of(moved(vertices, amounts), viewmat, finer)
            shown = draw(corners, triangles, near=0.1, width=FINER * size, height=FINER * size)
            image = interpolate(colours, triangles, shown)
            return image.reshape(size, FINER, size, FINER, 3).mean((1, 3)).double()

        amounts = torch.zeros(6, dtype=torch.float64, requires_grad=True)
        mesh = Mesh(vertices=moved(vertices, amounts), triangles=triangles, colours=colours)
        blended = rasterize(mesh, viewmat, K, width=size, height=size).rgb
        (got,) = torch.autograd.grad((blended * weights).sum(), amounts)
        blended = blended.detach()
        expected = torch.stack(
            [
                ((fine(a) - fine(-a)) * weights).sum() / (2 * STEP)
                for a in STEP * torch.eye(6, dtype=torch.float64)
            ]
        )
        truth = fine(torch.zeros(6, dtype=torch.float64))
        corners = corners_of(vertices, viewmat, K)
        shown = draw(corners, triangles, near=0.1, width=size, height=size)
        sharp = interpolate(colours, triangles, shown)
        outline = ((sharp - blended).abs().sum(-1) > 0) | ((truth - sharp).abs().sum(-1) > 0.02)
        rmse = [float((x - truth)[outline].square().mean().sqrt()) for x in (sharp, blended)]
        error = float((got - expected).norm() / expected.norm())
        print(f"| {len(triangles):,} | {error:.1%} | {rmse[0]:.3f} | {rmse[1]:.3f} |")


def isosurface(runs: int, sizes: list[int]) -> None:
    print("| grid | triangles | plain ms | triangles | weights, moves, centres, regularisers ms |")
    print("|---|---|---|---|---|")
    low = -torch.ones(3)
    for cells in sizes:
        side = cells + 1
        sdf = grid_places(low, -low, cells).norm(dim=1).reshape(side, side, side) - 0.7
        sdf.requires_grad_()
        free = torch.zeros(len(surface_cubes(sdf).places), 21, requires_grad=True)
        offsets = torch.zeros(side, side, side, 3, requires_grad=True)

        def plain(sdf=sdf):
            found = flexicubes(sdf, lower=low, upper=-low)
            found.vertices.square().sum().backward()
            return found

        def whole(sdf=sdf, free=free, offsets=offsets):
            found = flexicubes(
                sdf, lower=low, upper=-low, offsets=offsets, weights=CubeWeights.of(free),
                centres=True,
            )  # fmt: skip
            loss = found.vertices.square().sum() + found.deviations.mean() + sign_changes(sdf)
            loss.backward()
            return found

        row = [f"{len(work().triangles):,} | {best_ms(work, runs):.1f}" for work in (plain, whole)]
        print(f"| {cells}^3 | {' | '.join(row)} |", flush=True)


def quality(run: Path) -> None:
    """Held-out views of the run, of how it began, of the mesh that ``export TEACHER mesh`` makes
    (colours at vertices, simplified to as many triangles), and of the teacher itself."""
    loaded = load_run(run)
    options = loaded.options
    scene, images = load_capture(options, source_from_scene=loaded.source_from_scene)
    teacher = load_teacher(options.teacher).in_frame(loaded.source_from_scene)
    begun = Task(world=World.of(scene), capture=at_size_of(scene, images), teacher=teacher)
    masks = [images.view(i).mask for i in scene.train_indices]
    volume = fused_surface(
        teacher, begun.training_cameras, MeshOptions(), where="the teacher", masks=masks
    )
    vertices, colours, triangles, _ = largest_parts(*volume.mesh(), 0.05)
    fewer, kept = simplified(vertices, triangles, len(loaded.representation.triangles))
    nearest = cKDTree(vertices).query(fewer)[1]
    at_vertices = Mesh(
        vertices=torch.from_numpy(fewer),
        triangles=kept,
        colours=torch.from_numpy(colours[nearest]).float(),
    )
    print("| drawn | triangles | PSNR | LPIPS |\n|---|---|---|---|")
    for name, shown, count in (
        ("the run", loaded.representation, len(loaded.representation.triangles)),
        ("as it began: photographs on it", TexturedMesh.from_task(begun, loaded.method), None),
        ("export mesh, simplified", Drawn(at_vertices), len(kept)),
        ("the teacher", teacher, None),
    ):
        result = evaluate(
            shown,
            (images.view(i) for i in scene.test_indices),
            background=torch.tensor(scene.background or (0.0, 0.0, 0.0)),
        )
        print(f"| {name} | {count or ''} | {result.psnr:.2f} | {result.lpips:.4f} |", flush=True)


class Drawn:
    """A mesh that renders."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh

    def render(self, camera, *, background):
        seen = rasterize(
            self.mesh, camera.viewmat, camera.K, width=camera.width, height=camera.height
        )
        rgb = seen.rgb + (1 - seen.alpha)[..., None] * background
        return Render(rgb=rgb, alpha=seen.alpha)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["speed", "slopes", "isosurface", "quality"])
    parser.add_argument("run", type=Path, nargs="?", help="for quality: a run of the method mesh")
    parser.add_argument("--size", type=int, help="of pictures, pixels; cubes along a side")
    parser.add_argument("--rings", type=int, nargs="+", help="of globes: 8 triangles each squared")
    parser.add_argument("--runs", type=int, default=20)
    chosen = parser.parse_args()
    if chosen.what == "quality":
        if chosen.run is None:
            parser.error("name a run")
        quality(chosen.run)
    elif chosen.what == "isosurface":
        isosurface(chosen.runs, [chosen.size] if chosen.size else [32, 48, 64, 96])
    elif chosen.what == "speed":
        sizes = [chosen.size] if chosen.size else [256, 512, 800]
        speed(chosen.runs, sizes, chosen.rings or [50, 110])
    else:
        slopes(chosen.size or 128, chosen.rings or [9, 18, 36, 72, 144])


if __name__ == "__main__":
    main()
