"""The trainings of ``test_parallel``; as a program, one of the processes that share them."""

from __future__ import annotations

import hashlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from methods.repair.test_fixer_training import some
from methods.text_mesh.assets_made import write_assets
from methods.text_mesh.test_text_mesh import method as tiny_texts
from training.test_every_capture import SMALL

from scene4d.cli.main import main as scene4d
from scene4d.data.sample import sample_scene_path
from scene4d.errors import DataError, Scene4dError, UsageError
from scene4d.methods.dynamic_field.method import OccupancyOptions
from scene4d.methods.picture_prior.pictures import write_pictures
from scene4d.methods.repair.pairs import write_pairs
from scene4d.methods.splat.method import McmcOptions
from scene4d.representations.method import PhotometricOptions, TeacherOptions
from scene4d.torchrun import this_process
from scene4d.training import trainer
from scene4d.training.methods import load_method
from scene4d.training.options import TrainOptions
from scene4d.training.train import resume, start

STEPS = 8


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where trainings find what they learn from, and write."""

    capture: Path
    teacher: Path
    pairs: Path
    pictures: Path
    assets: Path
    output_dir: Path

    def options(self, **changes: Any) -> TrainOptions:
        """Of the tiny capture, unless told otherwise."""
        settings = {"data": self.capture, "output_dir": self.output_dir, "device": "cpu",
                    "evaluate": False}  # fmt: skip
        return TrainOptions(**{**settings, **changes})


def rays(places: Places) -> Path:
    """Every term of a field, from the first step on; cameras and exposures are fitted, too."""
    method: Any = load_method("dynamic-field")(
        **{**SMALL["dynamic-field"], "rays": 256}, steps=STEPS, pictures=4, static_until=0.0,
        refine_poses=True, fit_exposure=True,
        occupancy=OccupancyOptions(first=4, every=4, dynamic_from=0.0),
    )  # fmt: skip
    weights = {"start": 0.0, "weight": 0.1}
    terms = ("entropy", "dynamic_rays", "sparsity")
    changed = {name: replace(getattr(method, name), **weights) for name in terms}
    scene = {"data": sample_scene_path("dance_room"), "max_frames": 8, "downscale_factor": 8}
    return start(replace(method, **changed), places.options(**scene))


def crops(places: Places) -> Path:
    """Light slabs: crops of a teacher's pictures, later whole photographs."""
    teaching = TeacherOptions(crops=4, crop_size=24, first_views=3, end=0.6)
    method = load_method("lightslab")(
        **SMALL["lightslab"], steps=STEPS, batch_size=2, coarsest_downscale=1, teaching=teaching,
        photometric=PhotometricOptions(start=0.6),
    )  # fmt: skip
    return start(method, places.options(teacher=places.teacher))


def stopped(places: Places) -> Path:
    """The same, stopped by a signal to one process after half of the steps, and gone on with."""

    def stopping(step: int) -> None:
        if step == STEPS // 2 and not this_process().first:
            signal.raise_signal(signal.SIGINT)

    try:
        with after_each_step(stopping):
            run = crops(places)
    except trainer.Interrupted as error:
        run = error.run
    return resume(run)


def splats(places: Places) -> Path:
    """Whole photographs, and Gaussians that come and go by what they are."""
    method = load_method("splat")(
        **SMALL["splat"], steps=STEPS, batch_size=2, coarsest_downscale=1, max_num_gaussians=300,
        mcmc=McmcOptions(refine_every=5, refine_from=0.0),
    )  # fmt: skip
    return start(method, places.options())


def texts(places: Places) -> Path:
    """A generator, guided at cameras that nobody stood at."""
    from text_to_splats import TextToSplatsMethod

    return start(TextToSplatsMethod(steps=STEPS), places.options(data=None))


def captions(places: Places) -> Path:
    """A generator that learns from captioned meshes, by volume rendering and then by meshes."""
    return start(tiny_texts(places.assets, steps=STEPS), places.options(data=None))


def pairs(places: Places) -> Path:
    """A network that repairs pictures: no scene at all."""
    method = load_method("fixer")(steps=STEPS, widths=(8, 8))
    small = replace(
        method.repairing, pairs=places.pairs, batch=4, crop_size=16, perceptual_weight=0.0
    )
    return start(replace(method, repairing=small), places.options(data=None))


def pictures(places: Places) -> Path:
    """A diffusion prior, whose crops are noised."""
    method = load_method("unet")(steps=STEPS, widths=(8, 8), down=("c", ""), up=("", "c"))
    learned = replace(method.denoising, pictures=places.pictures, batch=4)
    return start(replace(method, denoising=learned), places.options(data=None))


def refusals(places: Places) -> dict[str, str]:
    """What trainings whose steps cannot be shared say."""
    splat, taught = load_method("splat"), {"teacher": places.teacher}
    network = load_method("mobile-r2l")(**SMALL["mobile-r2l"], batch_size=2)
    trainings = {
        "strategy": (splat(strategy="adaptive", batch_size=2), {}),
        "batch": (splat(), {}),
        "norm": (network, taught),
        "teacher": (network, {}),
    }
    told = {}
    for name, (method, changes) in trainings.items():
        try:
            start(method, places.options(**changes, output_dir=places.output_dir / "refused"))
        except UsageError as error:
            told[name] = str(error)
    return told


def by_command(places: Places) -> list[int]:
    """Exit statuses of a training that is evaluated, and of one that is refused."""
    small = ["--num-random-points=50", "--sh-degree=0", "--steps=1", "--batch-size=2"]
    command = ["train", "splat", "--data", str(places.capture), "--device", "cpu", *small,
               "--output-dir", str(places.output_dir / "by_command")]  # fmt: skip
    return [scene4d(command), scene4d([*command, "--strategy=adaptive"])]


def lost(places: Places) -> str:
    """What each process says where the second one fails."""

    def failing(step: int) -> None:
        if not this_process().first:
            raise DataError("the second process's disk is broken")

    try:
        with after_each_step(failing):
            splats(replace(places, output_dir=places.output_dir / "lost"))
    except Scene4dError as error:
        return str(error)
    return ""


@contextmanager
def after_each_step(call: Callable[[int], None]) -> Iterator[None]:
    """Calls it with the number of steps that are done."""
    original = trainer.Trainer._step

    def stepping(self: trainer.Trainer) -> dict[str, float]:
        metrics = original(self)
        call(self.step)
        return metrics

    with mock.patch.object(trainer.Trainer, "_step", stepping):
        yield


@contextmanager
def noting_ends(ends: dict[str, str]) -> Iterator[None]:
    """Notes what is trained at the end of every training, as a digest."""
    original = trainer.Trainer.train

    def train(self: trainer.Trainer) -> None:
        original(self)
        digest = hashlib.sha256()
        for tensor in self.trainable.state_dict().values():
            digest.update(tensor.contiguous().flatten().numpy().tobytes())
        ends[self.method.name] = digest.hexdigest()

    with mock.patch.object(trainer.Trainer, "train", train):
        yield


def main(places: Places) -> None:
    """Trains everything, and writes what this process has of it beside the runs."""
    ends: dict[str, str] = {}
    trainings = (rays, stopped, splats, texts, captions, pairs, pictures)
    with noting_ends(ends):
        runs = {training.__name__: str(training(places)) for training in trainings}
    said = {
        "runs": runs, "ends": ends, "refused": refusals(places), "statuses": by_command(places),
        "lost": lost(places),
    }  # fmt: skip
    number = this_process().number
    (places.output_dir / f"process{number}.json").write_text(json.dumps(said))


def prepared(output_dir: Path, capture: Path) -> Places:
    """A teacher, pairs of pictures, and pictures with captions."""
    folder = output_dir / "pairs"
    folder.mkdir(parents=True)
    write_pairs(some(), folder / "some.safetensors")
    pictures = output_dir / "pictures"
    pictures.mkdir()
    rgb = some(2, 16)["clean"]
    write_pictures({"rgb": rgb}, pictures / "some.safetensors", ["one", "another"])
    places = Places(
        capture=capture, teacher=Path(), pairs=folder, pictures=pictures,
        assets=write_assets(output_dir / "assets"), output_dir=output_dir,
    )  # fmt: skip
    method = load_method("splat")(**SMALL["splat"], steps=3)
    return replace(places, teacher=start(method, places.options()))


if __name__ == "__main__":
    trainer.LOG_EVERY = 1
    main(Places(**{name: Path(value) for name, value in json.loads(sys.argv[1]).items()}))
