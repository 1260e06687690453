"""Does one network make meshes of texts that it never saw? (methods/text-mesh/README.md)

python benchmarks/text_mesh.py assets KAYKIT FOLDER       # 24 shapes in 8 colours, a fifth held out
python benchmarks/text_mesh.py judge FOLDER JUDGE         # a classifier of shape and colour
python benchmarks/text_mesh.py table FOLDER JUDGE RUN ... # what runs of text-mesh make of the texts
python benchmarks/text_mesh.py others FOLDER JUDGE RUN VECTORS # and of words that no caption had
python benchmarks/text_mesh.py pictures FOLDER PICTURES   # four views in one, to train a prior on
python benchmarks/text_mesh.py samples FOLDER JUDGE PRIOR # what that prior thinks of

The judge is trained on renders of all compositions, which no generator sees. A retrieval in place
of a network answers with the mesh of the training caption that shares most words, shape first.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.spatial import cKDTree
from torch import Tensor, nn

from scene4d.cameras.around import CamerasOnSphere
from scene4d.cameras.camera import Camera
from scene4d.errors import DataError
from scene4d.exporters.textured_glb import glb
from scene4d.formats.textured_gltf import read_textured_mesh
from scene4d.formats.textured_mesh import MeshData
from scene4d.methods.picture_prior.pictures import write_pictures
from scene4d.methods.text_mesh.assets import CAPTIONS, Asset, centred
from scene4d.methods.text_mesh.objective import drawable, true_picture
from scene4d.methods.text_mesh.text_meshes import TextMeshes
from scene4d.methods.text_mesh.word_vectors import nearest_words
from scene4d.priors.prior import Condition
from scene4d.priors.sampling import sample
from scene4d.priors.unet import load_unet
from scene4d.priors.words import LearnedWords
from scene4d.rendering.depth_normals import normals_of_depth
from scene4d.rendering.mesh.rasterization import Mesh
from scene4d.representations.base import Generator
from scene4d.training.objectives.guidance import tiled
from scene4d.training.run import load_run

SHAPES = {
    "bench": "city/bench", "box": "city/box_B", "building": "city/building_A_withoutBase",
    "bush": "city/bush", "car": "city/car_sedan", "dumpster": "city/dumpster",
    "hydrant": "city/firehydrant", "tower": "city/watertower", "armchair": "furniture/armchair",
    "bed": "furniture/bed_double_A", "cactus": "furniture/cactus_medium_A",
    "chair": "furniture/chair_A", "couch": "furniture/couch", "lamp": "furniture/lamp_standing",
    "table": "furniture/table_medium", "shelf": "furniture/shelf_A_big",
    "bowl": "restaurant/bowl", "crate": "restaurant/crate", "door": "restaurant/door_A",
    "fridge": "restaurant/fridge_A", "oven": "restaurant/oven", "pan": "restaurant/pan_A",
    "pot": "restaurant/pot_A", "rock": "space/rock_B",
}  # fmt: skip
COLOURS = {
    "red": (0.85, 0.12, 0.12), "orange": (0.95, 0.55, 0.1), "yellow": (0.95, 0.88, 0.2),
    "green": (0.15, 0.65, 0.2), "blue": (0.15, 0.3, 0.85), "purple": (0.55, 0.2, 0.7),
    "white": (0.93, 0.93, 0.93), "black": (0.12, 0.12, 0.12),
}  # fmt: skip
OTHER_WORDS = {
    "bed": "mattress", "bowl": "dish", "building": "skyscraper", "bush": "shrub",
    "car": "automobile", "chair": "seat", "couch": "sofa", "door": "gate", "lamp": "lantern",
    "oven": "stove", "pan": "skillet", "pot": "saucepan", "rock": "stone", "table": "desk",
    "red": "crimson", "orange": "amber", "yellow": "golden", "green": "emerald", "blue": "navy",
    "purple": "violet", "white": "ivory",
}  # fmt: skip
"""For shapes and colours, chosen before anything was made of them."""
POSES = CamerasOnSphere(distance=3.6, view_angle=np.radians(40.0), size=64, lowest=-30, highest=75)
VIEWS = 8
"""Of a mesh that is judged."""
PRIOR_POSES = replace(
    POSES, size=32, lowest=-10.0, highest=45.0, azimuths=(35.0, 55.0), views=4
)  # fmt: skip
"""Of a prior's pictures: the first of four views within 10 degrees of one place, as the prior is
told no camera."""


def is_held_out(what: str, shape: int, colour: int) -> bool:
    """A fifth: of the compositions, where every shape and every colour is seen in others; or of the
    shapes, in all colours."""
    return (2 * shape + colour) % 5 == 0 if what == "compositions" else shape % 5 == 3


def caption(shape: str, colour: str) -> str:
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {shape}"


def recoloured(mesh: MeshData, colour: Sequence[float]) -> MeshData:
    """In one colour, as light and dark as it was."""
    light = mesh.texture @ np.array([0.3, 0.6, 0.1], dtype=np.float32)
    rows, columns = light.shape
    at = mesh.uv[mesh.uv_triangles].mean(axis=1)
    used = light[(at[:, 1] * (rows - 1)).astype(int), (at[:, 0] * (columns - 1)).astype(int)]
    shade = 0.45 + 0.55 * light / max(float(used.max()), 1e-3)
    texture = np.clip(shade[..., None] * np.asarray(colour, dtype=np.float32), 0, 1)
    return replace(mesh, texture=texture[::4, ::4])


def make_assets(kaykit: Path, folder: Path, held_out: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for i, (shape, file) in enumerate(SHAPES.items()):
        mesh = centred(read_textured_mesh(kaykit / f"{file}.gltf"))
        for j, (name, colour) in enumerate(COLOURS.items()):
            written = f"{name}_{shape}.glb"
            (folder / written).write_bytes(glb(recoloured(mesh, colour), np.zeros(3)))
            split = "test" if is_held_out(held_out, i, j) else "train"
            entries.append({"file": written, "caption": caption(shape, name), "split": split})
    (folder / "captions.json").write_text(json.dumps(entries, indent=1))
    held = sum(entry["split"] == "test" for entry in entries)
    print(f"{len(entries)} meshes, {held} held out")


@dataclass(frozen=True, kw_only=True)
class Composition:
    shape: int
    colour: int
    mesh: MeshData
    held_out: bool

    @property
    def caption(self) -> str:
        return caption(list(SHAPES)[self.shape], list(COLOURS)[self.colour])


def compositions(folder: Path) -> list[Composition]:
    splits = {e["file"]: e["split"] for e in json.loads((folder / CAPTIONS).read_text())}
    return [
        Composition(
            shape=i,
            colour=j,
            mesh=centred(read_textured_mesh(folder / f"{colour}_{shape}.glb")),
            held_out=splits[f"{colour}_{shape}.glb"] == "test",
        )
        for i, shape in enumerate(SHAPES)
        for j, colour in enumerate(COLOURS)
    ]


def pictures(mesh: MeshData, cameras: Sequence[Camera]) -> tuple[Tensor, Tensor]:
    """[n, 3, 64, 64] on white, and alpha [n, 64, 64]."""
    drawn = drawable(Asset(name="", caption="", mesh=mesh))[1]
    seen = [true_picture(drawn, camera, torch.ones(3)) for camera in cameras]
    return torch.stack([s.rgb.permute(2, 0, 1) for s in seen]), torch.stack([s.alpha for s in seen])


class Judge(nn.Module):
    """Shape and colour of a picture; several views of a thing vote."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        into = 3
        for width in (32, 64, 128, 128):
            layers += [nn.Conv2d(into, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU()]
            into = width
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(into * 16, 128), nn.ReLU())
        self.shape = nn.Linear(128, len(SHAPES))
        self.colour = nn.Linear(128, len(COLOURS))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.body(x)
        return self.shape(seen), self.colour(seen)


def train_judge(folder: Path, place: Path, steps: int) -> None:
    """On pictures made anew each step, shifted, noised and blurred; says how good it is on others'
    cameras."""
    torch.manual_seed(0)
    things, draw = compositions(folder), torch.Generator().manual_seed(1)
    drawn = [drawable(Asset(name="", caption="", mesh=thing.mesh))[1] for thing in things]
    judge = Judge()
    adam = torch.optim.Adam(judge.parameters(), lr=1e-3)
    for step in range(steps):
        adam.param_groups[0]["lr"] = 1e-3 * (1 - step / steps) + 1e-5
        chosen = torch.randint(len(things), (32,), generator=draw).tolist()
        cameras = POSES.draw(draw, len(chosen))
        batch = torch.stack([
            true_picture(drawn[i], camera, torch.ones(3)).rgb.permute(2, 0, 1)
            for i, camera in zip(chosen, cameras, strict=True)
        ])  # fmt: skip
        if step % 2:
            batch = nn.functional.avg_pool2d(batch, 3, 1, 1)
        batch = batch + 0.03 * torch.randn(batch.shape)
        shape, colour = judge(batch)
        loss = nn.functional.cross_entropy(
            shape, torch.tensor([things[i].shape for i in chosen])
        ) + nn.functional.cross_entropy(colour, torch.tensor([things[i].colour for i in chosen]))
        adam.zero_grad()
        loss.backward()
        adam.step()
        if step % 100 == 0:
            print(f"step {step}: loss {float(loss):.3f}", flush=True)
    save_file(judge.state_dict(), place)


def prior_picture(mesh: Mesh, camera: Camera) -> Tensor:
    """[6, 64, 64]: colours and normals of four views, side by side in two rows, -1..1."""
    views = []
    for number in range(PRIOR_POSES.views):
        view = replace(camera, c2w=camera.c2w[number], K=camera.K[number])
        seen = true_picture(mesh, view, torch.ones(3))
        # outlines mix by shares whose sum may pass 1
        rgb, alpha = seen.rgb.clamp(0, 1), seen.alpha.clamp(0, 1)
        normals = normals_of_depth(seen.depth, alpha, view.K)
        views.append(torch.cat([2 * rgb - 1, normals], dim=-1).permute(2, 0, 1))
    return tiled(torch.stack(views))[0]


def make_pictures(folder: Path, out: Path, count: int, azimuth: float | None,
                  elevation: float | None) -> None:  # fmt: skip
    """``count`` of each training composition, at cameras of their own, or all at the same."""
    poses, draw = PRIOR_POSES, torch.Generator().manual_seed(0)
    if azimuth is not None:
        poses = replace(poses, azimuths=(azimuth, azimuth))
    if elevation is not None:
        poses = replace(poses, lowest=elevation, highest=elevation)
    made, captions = [], []
    for thing in compositions(folder):
        if thing.held_out:
            continue
        drawn = drawable(Asset(name="", caption="", mesh=thing.mesh))[1]
        made += [prior_picture(drawn, camera) for camera in poses.draw(draw, count)]
        captions += [thing.caption] * count
    found = torch.stack(made).half()
    out.mkdir(parents=True, exist_ok=True)
    write_pictures(
        {"rgb": found[:, :3], "normals": found[:, 3:]}, out / "pictures.safetensors", captions
    )
    print(f"{len(made)} pictures of {len(set(captions))} compositions")


@dataclass(frozen=True, kw_only=True)
class Scores:
    shape: bool
    colour: bool
    iou: float
    chamfer: float
    colour_error: float


def judged(judge: Judge, thing: Composition, made: MeshData, seed: int) -> Scores:
    cameras = POSES.draw(torch.Generator().manual_seed(seed), VIEWS)
    seen, alpha = pictures(made, cameras)
    truth, true_alpha = pictures(thing.mesh, cameras)
    with torch.no_grad():
        shape, colour = (logits.log_softmax(1).sum(0) for logits in judge(seen))
    both = (alpha > 0.5) & (true_alpha > 0.5)
    either = (alpha > 0.5) | (true_alpha > 0.5)
    wrong = (seen - truth).abs().mean(1)[both]
    return Scores(
        shape=int(shape.argmax()) == thing.shape,
        colour=int(colour.argmax()) == thing.colour,
        iou=float(both.sum() / either.sum().clamp_min(1)),
        chamfer=chamfer(made, thing.mesh),
        colour_error=float(wrong.mean()) if len(wrong) else 1.0,
    )


def chamfer(first: MeshData, second: MeshData, count: int = 4000) -> float:
    """Mean distance to the other's nearest point, both ways; the cube is 2 wide."""
    a, b = (on_surface(mesh, count) for mesh in (first, second))
    return float((cKDTree(a).query(b)[0].mean() + cKDTree(b).query(a)[0].mean()) / 2)


def on_surface(mesh: MeshData, count: int) -> np.ndarray:
    random = np.random.default_rng(0)
    a, b, c = mesh.vertices[mesh.triangles].transpose(1, 0, 2)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chosen = random.choice(len(area), count, p=area / area.sum())
    u, v = random.random((2, count, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    return a[chosen] + u * (b - a)[chosen] + v * (c - a)[chosen]


def row(name: str, scores: Sequence[Scores], seconds: float | None = None) -> str:
    def share(values: Sequence[bool]) -> str:
        return f"{100 * np.mean(values):.0f}%"

    cells = [
        share([s.shape and s.colour for s in scores]), share([s.shape for s in scores]),
        share([s.colour for s in scores]), f"{np.mean([s.iou for s in scores]):.3f}",
        f"{np.mean([s.chamfer for s in scores]):.4f}",
        f"{np.mean([s.colour_error for s in scores]):.3f}",
        "" if seconds is None else f"{seconds:.2f}",
    ]  # fmt: skip
    return f"| {name} | {len(scores)} | " + " | ".join(cells) + " |"


def retrieved(thing: Composition, things: Sequence[Composition]) -> Composition:
    """The training composition that shares the shape, in the next colour of the list; where no
    such shape was trained on, that of the next shape in this colour."""
    known = [t for t in things if not t.held_out]

    def away(t: Composition) -> tuple[int, int]:
        return (t.shape - thing.shape) % len(SHAPES), (t.colour - thing.colour) % len(COLOURS)

    return min(known, key=away)


def read_judge(place: Path) -> Judge:
    judge = Judge()
    judge.load_state_dict(load_file(place))
    return judge.eval()


def samples(folder: Path, place: Path, prior: Path, sheet: Path | None) -> None:
    """Whether the judge knows what the prior's own pictures show: what no guidance can surpass."""
    judge, known = read_judge(place), load_unet(prior)
    print("| | texts | both right | shape | colour |\n|---|---|---|---|---|")
    for held_out in (True, False):
        things = [thing for thing in compositions(folder) if thing.held_out == held_out]
        things = things if held_out else things[::4]
        pictures, right = [], []
        for number, thing in enumerate(things):
            made = sample(
                known, None, shape=(1, 6, 64, 64), steps=24,
                condition=Condition(text=thing.caption),
                generator=torch.Generator().manual_seed(number),
            )  # fmt: skip
            pictures.append(made[0, :3])
            views = ((made[0, :3] + 1) / 2).clamp(0, 1).unflatten(1, (2, 32)).unflatten(3, (2, 32))
            views = views.permute(1, 3, 0, 2, 4).flatten(0, 1)
            views = nn.functional.interpolate(views, scale_factor=2, mode="bilinear")
            with torch.no_grad():
                shape, colour = (logits.log_softmax(1).sum(0) for logits in judge(views))
            right.append((int(shape.argmax()) == thing.shape, int(colour.argmax()) == thing.colour))
        shapes, colours = (np.array(side) for side in zip(*right, strict=True))
        shares = " | ".join(f"{100 * x.mean():.0f}%" for x in (shapes & colours, shapes, colours))
        print(f"| samples, {'unseen' if held_out else 'seen'} | {len(things)} | {shares} |")
        if sheet is not None and held_out:
            rows = torch.cat(pictures[:16], dim=2).unflatten(2, (2, -1)).permute(2, 1, 3, 0)
            tall = ((rows.flatten(0, 1) + 1) * 127.5).clamp(0, 255)
            Image.fromarray(tall.byte().numpy()).save(sheet)


def made_of(
    generator: Generator, things: Sequence[tuple[str, Composition]], judge: Judge
) -> list[Scores]:
    """What is made of each text, as the composition that it should be; nothing is right where
    there is no surface."""
    nothing = Scores(shape=False, colour=False, iou=0.0, chamfer=1.0, colour_error=1.0)
    scores = []
    for number, (text, thing) in enumerate(things):
        try:
            with torch.no_grad():
                made = generator.scene(text).mesh()
        except DataError:
            made = None
        scores.append(nothing if made is None else judged(judge, thing, made, number))
    return scores


def table(folder: Path, place: Path, runs: Sequence[Path], every: int, own: bool) -> None:
    """``own``: one row of all runs, of which each is judged by the texts that it was trained for
    alone."""
    judge = read_judge(place)
    things = compositions(folder)
    unseen = [thing for thing in things if thing.held_out][::every]
    print("| | texts | both right | shape | colour | IoU | Chamfer | colour error | s a mesh |")
    print("|---|---|---|---|---|---|---|---|---|")
    truth = [judged(judge, thing, thing.mesh, n) for n, thing in enumerate(unseen)]
    print(row("the true mesh (ceiling)", truth))
    found = [judged(judge, t, retrieved(t, things).mesh, n) for n, t in enumerate(unseen)]
    print(row("retrieval (floor)", found))
    together: list[Scores] = []
    for path in runs:
        generator = load_run(path).generator
        assert generator is not None
        if own:
            known = [(t.caption, t) for t in things if t.caption in generator.conditions]
            together += made_of(generator, known, judge)
            continue
        for name, chosen in (
            ("unseen", unseen), ("seen", [t for t in things if not t.held_out][:: 4 * every])
        ):  # fmt: skip
            begin = time.perf_counter()
            scores = made_of(generator, [(t.caption, t) for t in chosen], judge)
            seconds = (time.perf_counter() - begin) / len(chosen)
            print(row(f"{path.parent.parent.name}, {name}", scores, seconds), flush=True)
    if together:
        print(row("a run for each text", together))


def others(folder: Path, place: Path, run: Path, file: Path) -> None:
    """Each of :data:`OTHER_WORDS` in two training compositions, read as :func:`nearest_words` has
    it, and these compositions by the captions' own words."""
    generator, judge = load_run(run).generator, read_judge(place)
    assert isinstance(generator, TextMeshes) and isinstance(generator.encoder, LearnedWords)
    generator.encoder.others = nearest_words(file, generator.encoder.vocabulary)
    things = [thing for thing in compositions(folder) if not thing.held_out]
    print("| | texts | both right | shape | colour | IoU | Chamfer | colour error | s a mesh |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kind, names in (("shapes", SHAPES), ("colours", COLOURS)):
        own, other = [], []
        for word in names:
            if word not in OTHER_WORDS:
                continue
            read = generator.encoder.others.get(OTHER_WORDS[word])
            print(f"{OTHER_WORDS[word]}: {read}" + ("" if read == word else f", not {word}"))
            if read is None:
                continue
            for thing in [t for t in things if word in t.caption.split()][:4:2]:
                shape, colour = list(SHAPES)[thing.shape], list(COLOURS)[thing.colour]
                said = OTHER_WORDS[word]
                text = caption(said, colour) if kind == "shapes" else caption(shape, said)
                own.append((thing.caption, thing))
                other.append((text, thing))
        print(row(f"{kind}, own words", made_of(generator, own, judge)), flush=True)
        print(row(f"{kind}, other words", made_of(generator, other, judge)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    part = parts.add_parser("assets")
    part.add_argument("kaykit", type=Path)
    part.add_argument("folder", type=Path)
    part.add_argument("--held-out", choices=["compositions", "shapes"], default="compositions")
    part = parts.add_parser("judge")
    part.add_argument("folder", type=Path)
    part.add_argument("place", type=Path)
    part.add_argument("--steps", type=int, default=1200)
    part = parts.add_parser("table")
    part.add_argument("folder", type=Path)
    part.add_argument("judge", type=Path)
    part.add_argument("runs", type=Path, nargs="*")
    part.add_argument("--every", type=int, default=1, help="judge every n-th text alone")
    part.add_argument(
        "--own", action="store_true", help="judge each run by the texts that it was trained for"
    )
    part = parts.add_parser("pictures")
    part.add_argument("folder", type=Path)
    part.add_argument("out", type=Path)
    part.add_argument("--count", type=int, default=16, help="of each composition")
    part.add_argument("--azimuth", type=float, help="of the first view of all pictures, degrees")
    part.add_argument("--elevation", type=float, help="of all views of all pictures, degrees")
    part = parts.add_parser("samples")
    part.add_argument("folder", type=Path)
    part.add_argument("judge", type=Path)
    part.add_argument("prior", type=Path)
    part.add_argument("--sheet", type=Path, help="PNG of some of them")
    part = parts.add_parser("others")
    part.add_argument("folder", type=Path)
    part.add_argument("judge", type=Path)
    part.add_argument("run", type=Path)
    part.add_argument("vectors", type=Path, help="file of word vectors")
    given = parser.parse_args()
    if given.part == "assets":
        make_assets(given.kaykit, given.folder, given.held_out)
    elif given.part == "judge":
        train_judge(given.folder, given.place, given.steps)
    elif given.part == "pictures":
        make_pictures(given.folder, given.out, given.count, given.azimuth, given.elevation)
    elif given.part == "others":
        others(given.folder, given.judge, given.run, given.vectors)
    elif given.part == "samples":
        samples(given.folder, given.judge, given.prior, given.sheet)
    else:
        table(given.folder, given.judge, given.runs, given.every, given.own)


if __name__ == "__main__":
    main()
