"""What a guided step costs: its peak memory in chunks, and our time beside the prior's own; and
whether guidance works where it must, and not where it must not.

    python benchmarks/guidance.py memory [--size 512] [--splats 20000] [--chunk 4096]
    python benchmarks/guidance.py overhead [--prior FFDNET_FOLDER] [--size 512] [--steps 10]
    python benchmarks/guidance.py control [--steps 500] [--size 64] [--splats 300] [--seeds 3]
    python benchmarks/guidance.py mnist MODEL DIGITS --output-path SHEET.png

``control``: splats are fitted to 4 pictures of splats in a ball, and judged at views that are at
least 20 degrees from all of them: without a prior; with a prior that knows every picture of the
true scene (a Gaussian about it); with one that knows them shuffled, each from a camera drawn at
random. The first must gain 2 dB, the last nothing.

``mnist`` optimises pictures of 28x28 pixels by every score loss, by a diffusion model of written
digits (MODEL: ddpm_mnist.npz) and the 10,000 test pictures of MNIST (DIGITS: their folder), and
writes a sheet, a row for each loss: benchmarks/guidance_mnist.py.

``memory`` runs each way in a process of its own and prints what it takes beyond a picture rendered
without gradients. ``overhead`` prints the time of a step, that of the prior, and the rest. Both
guide random splats; without ``--prior`` the prior is FFDNet's network with random weights, which
costs the same.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import guidance_mnist
import numpy as np
import torch
from PIL import Image

from scene4d.cameras.around import CamerasOnSphere
from scene4d.cameras.camera import Camera
from scene4d.methods.splat.method import SplatMethod
from scene4d.priors.ffdnet import FfdnetPrior, load_ffdnet, weight_shapes
from scene4d.priors.gaussian import GaussianPrior
from scene4d.priors.prior import Condition, Prior
from scene4d.rendering.render import DEPTH, Want
from scene4d.representations.gaussians import GaussianSplats
from scene4d.representations.method import GuidanceOptions
from scene4d.representations.task import Task, World
from scene4d.training.evaluate import evaluate_run
from scene4d.training.objectives.base import ObjectiveInputs
from scene4d.training.objectives.guidance import Guidance
from scene4d.training.options import TrainOptions
from scene4d.training.step import Step
from scene4d.training.train import load_capture
from scene4d.training.train import start as train


def scene_of(count: int) -> GaussianSplats:
    """Gaussians in a ball."""
    import numpy as np

    from scene4d.formats.splat_cloud import SplatCloud

    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    return GaussianSplats.of(
        SplatCloud(
            means=0.5 * normal(count, 3), quats=normal(count, 4),
            log_scales=0.2 * normal(count, 3) - 3.5, logit_opacities=normal(count),
            sh=0.3 * normal(count, 1, 3),
        )
    )  # fmt: skip


class Timed(Prior):
    """A prior, with the CPU seconds that it has taken of this thread."""

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior, self.info, self.seconds = prior, prior.info, 0.0

    def denoise(self, *args, **kwargs):
        start = time.thread_time()
        found = self.prior.denoise(*args, **kwargs)
        self.seconds += time.thread_time() - start
        return found


class PlainStep(Step):
    """A step whose guidance keeps the whole picture's graph."""

    def deferred(self, camera, score, *, chunk_pixels=0, condition=None, want=DEPTH):
        loss = score(self.render(camera, condition=condition, want=want))
        (self.weight * loss).backward()
        return loss.detach()


def prior_of(folder: Path | None) -> Prior:
    if folder is not None:
        return load_ffdnet(folder)
    generator = torch.Generator().manual_seed(0)
    return FfdnetPrior(
        {n: 0.02 * torch.randn(s, generator=generator) for n, s in weight_shapes().items()}
    )


def guidance(prior: Prior, arguments: argparse.Namespace) -> Guidance:
    options = GuidanceOptions(start=0.0, size=64, chunk_pixels=arguments.chunk, crop="none")
    poses = CamerasOnSphere(distance=4.0, view_angle=0.6, size=arguments.size)
    inputs = ObjectiveInputs(
        task=Task(world=World(), prior=prior, poses=poses),
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
    )
    return Guidance(options, inputs)


def step_of(scene: GaussianSplats, number: int, kind: type[Step] = Step) -> Step:
    return kind(number=number, progress=0.5, trainable=scene, background=torch.zeros(3))


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_memory(arguments: argparse.Namespace) -> None:
    """Run in a process of its own: the peak is never given back."""
    scene, term = scene_of(arguments.splats), guidance(prior_of(arguments.prior), arguments)
    camera = CamerasOnSphere(distance=4.0, view_angle=0.6, size=arguments.size)
    small = CamerasOnSphere(distance=4.0, view_angle=0.6, size=16)
    one = small.draw(torch.Generator().manual_seed(0))[0]
    scene.render(one, want=Want()).rgb.sum().backward()  # compiles both ways
    with torch.no_grad():
        scene.render(camera.draw(torch.Generator().manual_seed(0))[0])
    before = peak_mb()
    term(step_of(scene, 0, PlainStep if arguments.way == "plain" else Step))
    print(f"{peak_mb() - before:.0f}")


def memory(arguments: argparse.Namespace) -> None:
    for way, told in (("plain", "the plain way"), ("chunks", f"chunks of {arguments.chunk} px")):
        command = [
            sys.executable, __file__, "measure", way, "--size", str(arguments.size),
            "--splats", str(arguments.splats), "--chunk", str(arguments.chunk),
        ]  # fmt: skip
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        print(f"{told}: {int(found)} MB beyond a render without gradients")


def overhead(arguments: argparse.Namespace) -> None:
    """Median CPU times of this thread, of the three in turn: others use this machine, too."""
    scene, prior = scene_of(arguments.splats), Timed(prior_of(arguments.prior))
    term = guidance(prior, arguments)
    poses = CamerasOnSphere(distance=4.0, view_angle=0.6, size=arguments.size)
    camera = poses.draw(torch.Generator().manual_seed(0))[0]
    taken = []
    for number in range(arguments.steps + 2):
        prior.seconds, start = 0.0, time.thread_time()
        term(step_of(scene, number))
        guided = time.thread_time()
        scene.render(camera).rgb.sum().backward()
        plain = time.thread_time() - guided
        taken.append((guided - start, prior.seconds, plain, guided - start - prior.seconds - plain))
    each, asked, rendered, rest = 1000 * np.median(taken[2:], axis=0)  # the first ones compile
    print(
        f"a guided step {each:.1f} ms: the prior {asked:.1f} ms, a render with its gradients "
        f"{rendered:.1f} ms (the plain way), the rest {rest:.1f} ms, {rest / asked:.0%} of the "
        "prior's"
    )


def true_pictures(
    scene: GaussianSplats, folder: Path, size: int, seed: int
) -> tuple[list[Camera], list[Camera]]:
    """A capture of a scene, 4 pictures to train on, and the cameras of all of both kinds."""
    poses = CamerasOnSphere(distance=4.0, view_angle=0.6, size=size)
    cameras = poses.draw(torch.Generator().manual_seed(seed), 40)
    places = torch.nn.functional.normalize(torch.stack([c.position for c in cameras]), dim=-1)
    turns = (places @ places.T).clamp(-1, 1).acos().rad2deg()
    train = [0]
    while len(train) < 4:  # each as far from the others as can be
        train.append(int(turns[:, train].min(dim=1).values.argmax()))
    far = [i for i in range(40) if float(turns[i, train].min()) >= 20.0]
    (folder / "images").mkdir(parents=True)
    frames = []
    for number, camera in enumerate(cameras):
        with torch.no_grad():
            rgb = scene.render(camera).rgb.clamp(0, 1)
        name = f"images/{number:02d}.png"
        Image.fromarray((rgb * 255).round().byte().numpy()).save(folder / name)
        frames.append({"file_path": name, "transform_matrix": camera.c2w.tolist()})
    focal = float(cameras[0].K[0, 0])
    lens = {"w": size, "h": size, "fl_x": focal, "fl_y": focal, "cx": size / 2, "cy": size / 2}
    split = {f"{n}_filenames": [frames[i]["file_path"] for i in chosen]
             for n, chosen in (("train", train), ("test", far))}  # fmt: skip
    (folder / "transforms.json").write_text(json.dumps({**lens, **split, "frames": frames}))
    return cameras, [cameras[i] for i in train]


def oracle(scene: GaussianSplats, cameras: list[Camera] | None, back: torch.Tensor) -> Prior:
    """Knows the true picture at every camera, or at one of ``cameras`` drawn at random."""
    generator = torch.Generator().manual_seed(0)

    def mean(known: Condition) -> torch.Tensor:
        assert known.camera is not None
        camera = known.camera
        if cameras is None:
            c2w = back @ camera.c2w.double()
            c2w[:3, :3] /= c2w[:3, 0].norm()
            camera = camera.with_pose(c2w.float())
        else:
            drawn = cameras[int(torch.randint(len(cameras), (), generator=generator))]
            camera = camera.with_pose(drawn.c2w)
        with torch.no_grad():
            return 2 * scene.render(camera).rgb.permute(2, 0, 1) - 1

    return GaussianPrior(mean, 1e-4, conditions=frozenset({"camera"}))


def control(arguments: argparse.Namespace) -> None:
    table: dict[str, list[float]] = {}
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as made:
            folder, scene = Path(made) / "capture", scene_of(arguments.splats)
            cameras, _ = true_pictures(scene, folder, arguments.size, seed)
            options = TrainOptions(data=folder, output_dir=Path(made) / "runs", seed=seed,
                                   evaluate=False, device="cpu")  # fmt: skip
            back = load_capture(options)[0].source_from_scene.double()
            method = SplatMethod(
                steps=arguments.steps, max_num_gaussians=2 * arguments.splats, sh_degree=0,
                num_random_points=arguments.splats, coarsest_downscale=1,
                guidance=GuidanceOptions(weight=arguments.weight, beyond=60.0, start=0.1,
                                         least_time=0.2, most_time=0.5, annealed=False,
                                         size=arguments.size, crop="none"),
            )  # fmt: skip
            for name, prior in (
                ("without", None),
                ("the true scene", oracle(scene, None, back)),
                ("shuffled pictures", oracle(scene, cameras, back)),
            ):
                found = evaluate_run(train(method, options, prior=prior), device="cpu")
                table.setdefault(name, []).append(found.psnr)
    first = np.mean(table["without"])
    for name, values in table.items():
        print(f"{name}: {np.mean(values):.2f} +- {np.std(values):.2f} dB at views 20 degrees and "
              f"more away, {np.mean(values) - first:+.2f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("memory", "overhead", "measure", "control", "mnist"):
        verb = verbs.add_parser(name)
        if name == "mnist":
            guidance_mnist.add_arguments(verb)
            continue
        if name == "control":
            verb.add_argument("--size", type=int, default=64)
            verb.add_argument("--splats", type=int, default=300)
            verb.add_argument("--steps", type=int, default=500)
            verb.add_argument("--seeds", type=int, default=3)
            verb.add_argument("--weight", type=float, default=20.0)
            continue
        if name == "measure":
            verb.add_argument("way", choices=("plain", "chunks"))
        verb.add_argument("--prior", type=Path)
        verb.add_argument("--size", type=int, default=512)
        verb.add_argument("--splats", type=int, default=20_000)
        verb.add_argument("--chunk", type=int, default=None if name == "overhead" else 64 * 64)
        verb.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    verb = {"memory": memory, "overhead": overhead, "measure": measure_memory, "control": control,
            "mnist": guidance_mnist.main}  # fmt: skip
    verb[arguments.verb](arguments)


if __name__ == "__main__":
    main()
