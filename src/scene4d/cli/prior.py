"""``scene4d prior``: networks that know what pictures look like: trained, asked, compared."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro

from scene4d.cli.parse import parse
from scene4d.errors import UsageError
from scene4d.ranges import Share, Within
from scene4d.torchrun import this_process
from scene4d.training.options import CustomiseOptions

if TYPE_CHECKING:
    from torch import Tensor

    from scene4d.priors.frames import FramesPrior
    from scene4d.priors.prior import Prior


def usage() -> str:
    """The text of ``scene4d prior --help``."""
    return (
        "usage: scene4d prior VERB [options]\n\n"
        "verbs:\n"
        "  train     a network from pictures: a fixer, or a diffusion prior\n"
        "  customise a trained network for one capture\n"
        "  compress  a trained network into few KB\n"
        "  check     how well a prior knows a capture, near what it has seen and far from it\n"
        "  sample    pictures that a prior thinks of\n\n"
        "'scene4d prior VERB --help' lists a verb's options; docs/guidance.md says what for.\n"
    )


def main(argv: list[str]) -> None:
    """Finds the verb and hands over."""
    verbs: dict[str, Callable[[list[str]], None]] = {
        "train": train,
        "customise": customise,
        "compress": compress,
        "check": check,
        "sample": sample,
    }
    if argv[:1] in (["-h"], ["--help"]):
        print(usage(), end="")
        return
    if not argv or argv[0] not in verbs:
        told = f"there is no verb {argv[0]!r}" if argv else "which verb?"
        raise UsageError(told, fix=f"scene4d prior VERB, with VERB one of: {', '.join(verbs)}")
    verbs[argv[0]](argv[1:])


def train(argv: list[str]) -> None:
    """``scene4d prior train METHOD``: trains a network, writes its weights into the run folder and
    prints where they are."""
    from scene4d.cli.train import parse as parse_method
    from scene4d.cli.train import split_method
    from scene4d.training import train as training
    from scene4d.training.methods import prior_method_names
    from scene4d.training.run import read_config, run_path

    names = prior_method_names()
    if {"-h", "--help"} & set(argv) and not set(names) & set(argv):
        print(f"usage: scene4d prior train METHOD [options], with METHOD one of: "
              f"{', '.join(names)}\n       scene4d prior train --resume RUN")  # fmt: skip
        return
    name, rest = split_method(argv, names)
    if name is None and not any(word.split("=")[0] == "--resume" for word in rest):
        raise UsageError("which method?", fix="scene4d prior train METHOD, with METHOD one of: "
                         f"{', '.join(names)}")  # fmt: skip
    method, options = parse_method(name, rest, verb="prior train")
    if options.resume is not None:
        if read_config(run_path(options.resume))[0].name not in names:
            raise UsageError("is the training of a scene", where=options.resume,
                             fix=f"scene4d train --resume {options.resume}")  # fmt: skip
        run = training.resume(options.resume)
    else:
        assert method is not None
        run = training.start(method, options)
    if this_process().first:
        print(_written(run))


@dataclass(frozen=True, kw_only=True)
class CustomiseArgs(CustomiseOptions):
    """Fits a trained network to one capture, as long as pictures gain that it does not learn from:
    a fixer (few of its layers, by renders of a scene of some of the training pictures), or
    low-rank layers of a diffusion model (by the pictures themselves)."""

    prior: tyro.conf.Positional[Path]
    """A fixer's weights (built-in, or a fixer.safetensors, or its folder), or a folder that
    diffusers wrote; docs/guidance.md."""


def customise(argv: list[str]) -> None:
    """``scene4d prior customise PRIOR --data CAPTURE``: trains, and prints where the weights
    are."""
    args = parse(CustomiseArgs, argv, prog="scene4d prior customise")
    from scene4d.priors.kinds import kinds_that_take
    from scene4d.representations.method import resolve
    from scene4d.training.methods import load_method, prior_method_names

    kind = next(iter(kinds_that_take(args.prior)), None)
    methods = [load_method(name) for name in prior_method_names()]
    fitting = [m.customiser for m in methods if m.customiser and m.customises == kind]
    if not fitting:
        raise UsageError(
            f"is a prior of the kind {kind!r}, whose weights stay as they are", where=args.prior,
            fix="customise a fixer, or a folder of diffusers; one of our own is trained further by "
                "scene4d prior train unet --start (docs/guidance.md)",
        )  # fmt: skip
    print(_written(resolve(fitting[0])(args.prior, args)))


def _written(run: Path) -> Path:
    """The weights of a run's newest checkpoint, as a file of their own."""
    from scene4d.representations.base import PriorNetwork
    from scene4d.training.run import newest_checkpoint, trainable_from

    place, checkpoint = newest_checkpoint(run)
    trained = trainable_from(checkpoint, where=place)
    if not isinstance(trained, PriorNetwork):
        raise UsageError(f"holds a {type(trained).__name__}: it is a run of a scene", where=run,
                         fix=f"go on with: scene4d train --resume {run}")  # fmt: skip
    weights = trained.write(run)
    print(f"next:\n  {trained.use_of(weights)}", file=sys.stderr)
    return weights


@dataclass(frozen=True, kw_only=True)
class CompressArgs:
    """Makes the file of a trained network small, by coarser weights where it shows least: first
    each layer is coarsened alone, and the network asked what that changes."""

    prior: tyro.conf.Positional[Path]
    """A network that prior train made: unet.safetensors, fixer.safetensors, or the folder."""
    output: tyro.conf.Positional[Path]
    """Folder to write a file of the same name into, which --prior, --fixer and the other verbs
    read."""
    target_kb: Annotated[float, Within(1.0, 1e6)]
    """The file's size at most, in KB (1000 bytes)."""
    codebooks: bool = False
    """A codebook for each layer (Lloyd-Max) in place of even steps."""
    data: Path | None = None
    """Capture whose pictures a fixer is asked about; by default the sample scene. A diffusion prior
    is asked about pictures that it thinks of."""


def compress(argv: list[str]) -> None:
    """``scene4d prior compress PRIOR OUTPUT``: figures on stderr, the file's path on stdout."""
    args = parse(CompressArgs, argv, prog="scene4d prior compress")
    from scene4d.training.prior_compression import compress as compressed

    made = compressed(args.prior, args.output, round(1000 * args.target_kb), data=args.data,
                      codebooks=args.codebooks)  # fmt: skip
    finest, coarsest = made.found.steps
    values = " ".join(f"{value:.1f}" for value in made.found.psnr)
    print(
        f"{made.bytes_before / 1000:.1f} KB before, {len(made.found.packed) / 1000:.1f} KB now: "
        f"{made.found.bits:.2f} bits a weight; steps of {finest:.2g} to {coarsest:.2g} standard "
        f"deviations of a layer\n"
        f"PSNR in dB against the network as it was, {made.levels}: {values}",
        file=sys.stderr,
    )
    print(made.path)


@dataclass(frozen=True, kw_only=True)
class CheckArgs:
    """How well a prior cleans noised pictures of a capture, beside a memory of its patches: near
    the pictures that the memory holds, and far from them. Predictors of frames are told the picture
    before, and stand beside it and beside the last two extended."""

    prior: tyro.conf.Positional[tuple[str, ...]]
    """One prior or more: ffdnet:FOLDER, unet:FOLDER, diffusers:FOLDER, patches:CAPTURE, or else
    frames:FOLDER; docs/guidance.md."""
    data: Path | None = None
    """Folder of the capture; by default the sample scene."""
    ratios: tuple[Annotated[float, Within(0.0, 1e6, above=True)], ...] = (0.1, 0.25, 0.5, 1.0)
    """Noise, as sigma / alpha of pictures from -1 to 1; 80: nothing is seen."""


def check(argv: list[str]) -> None:
    """``scene4d prior check PRIOR --data CAPTURE``: the table on stdout."""
    args = parse(CheckArgs, argv, prog="scene4d prior check")
    from scene4d.data.scene import at_size_of
    from scene4d.priors.frames import FramesPrior
    from scene4d.priors.kinds import load_prior, prior_name
    from scene4d.representations.task import Task, World
    from scene4d.training.next_frames import asked_of, check_next
    from scene4d.training.options import TrainOptions
    from scene4d.training.prior_check import check as checked
    from scene4d.training.prior_check import distances, halves_of
    from scene4d.training.train import load_capture

    if not args.prior:
        raise UsageError("which prior?", fix="name one, such as ffdnet:FOLDER")
    scene, images = load_capture(TrainOptions(data=args.data))
    scene = at_size_of(scene, images)
    task = Task(world=World.of(scene), capture=scene)
    priors = {name: load_prior(prior_name(name), task).eval() for name in args.prior}
    films = {name: prior for name, prior in priors.items() if isinstance(prior, FramesPrior)}
    if films and len(films) == len(priors):
        table = check_next(scene, images, films, args.ratios)
        for place, asked in asked_of(scene).items():
            print(f"{place}: {len(asked)} pictures, each given the one before")
    else:
        table = checked(scene, images, priors, args.ratios)
        halves = halves_of(scene)
        for place, of in (("near", halves.near), ("far", halves.far)):
            away, turn = distances(scene, of, halves.memory)
            print(f"{place}: {len(of)} pictures, {away / scene.extent:.2f} scene extents and "
                  f"{turn:.1f} degrees from the nearest of {len(halves.memory)}")  # fmt: skip
    print("PSNR in dB at sigma/alpha " + " ".join(f"{ratio:g}" for ratio in args.ratios))
    for name, rows in table.items():
        for place, values in rows.items():
            told = " ".join("-" if v is None else f"{v:.1f}" for v in values)
            print(f"  {name}, {place}: {told}")


@dataclass(frozen=True, kw_only=True)
class SampleArgs:
    """Pictures that a prior thinks of, out of noise or from a picture; of a predictor of frames a
    video, picture after picture."""

    prior: tyro.conf.Positional[str]
    """unet:FOLDER, ffdnet:FOLDER, diffusers:FOLDER, patches:CAPTURE, frames:FOLDER;
    docs/guidance.md."""
    output_path: Path
    """Folder of PNG images; of what is no colour, one more for each kind; of a video also
    sheet.png, all of them side by side."""
    from_picture: Path | None = None
    """A picture that is noised and cleaned again, in place of noise alone; of a video the first
    one."""
    time: Annotated[float, Within(0.0, 1.0, above=True)] | None = None
    """How much noise to start from, 0 to 1; by default the most that the prior knows."""
    text: str | None = None
    """For priors that read texts."""
    count: Annotated[int, Within(1, 10_000)] = 4
    """Pictures; of a video the first one is counted, too."""
    seconds: Annotated[float, Within(-1e6, 1e6)] | None = None
    """From one picture of a video to the next, below 0: backwards; by default as the predictor
    mostly learned."""
    size: tuple[Annotated[int, Within(8, 4096)], Annotated[int, Within(8, 4096)]] = (64, 64)
    """Width and height in pixels, out of noise."""
    steps: Annotated[int, Within(1, 1000)] = 50
    """Steps from noise to picture."""
    reuse: Share = 0.0
    """Largest share by which the first block of a transformer of diffusers may change from step to
    step, and the others' last answer be used again; 0: never."""
    seed: Annotated[int, Within(0, 2**32 - 1)] = 0
    """Other seeds, other pictures."""


def sample(argv: list[str]) -> None:
    """``scene4d prior sample PRIOR``: writes pictures, and prints the folder."""
    args = parse(SampleArgs, argv, prog="scene4d prior sample")
    from scene4d.exporters.frames import to_bytes
    from scene4d.exporters.video import write_images
    from scene4d.priors.frames import FramesPrior
    from scene4d.priors.kinds import load_prior, prior_name
    from scene4d.priors.prior import check_of_pictures
    from scene4d.priors.shown import sheet, shown
    from scene4d.representations.task import Task, World

    prior = load_prior(prior_name(args.prior), Task(world=World())).eval()
    film = isinstance(prior, FramesPrior)
    if film:
        pictures = _film(prior, args)
    else:
        check_of_pictures(prior)
        pictures = _pictures(prior, args)
    maps = shown(pictures, prior.info)
    frames = {
        f"{number:04d}{'' if kind == 'rgb' else f'_{kind}'}.png": to_bytes(p)
        for kind, rows in maps.items()
        for number, p in enumerate(rows)
    }
    if film:
        frames["sheet.png"] = to_bytes(sheet(pictures, prior.info))
    print(write_images(frames.values(), args.output_path, frames, overwrite=False))


def _pictures(prior: Prior, args: SampleArgs) -> Tensor:
    """[count, channels, height, width] out of noise, or from a picture."""
    import torch

    from scene4d.priors.prior import Condition, LatentPrior
    from scene4d.priors.sampling import sample as sampled

    if args.seconds is not None:
        raise UsageError("--seconds is given, and this prior knows no videos", where=args.prior,
                         fix="leave it out")  # fmt: skip
    latent = prior if isinstance(prior, LatentPrior) and prior.info.space == "latent" else None
    width, height = prior.info.size or args.size
    start = None
    if args.from_picture is not None:
        if prior.info.num_channels != 3 and latent is None:
            raise UsageError("this prior knows more than a picture's colours", where=args.prior)
        start = _colours(args.from_picture).expand(args.count, -1, -1, -1)
        start = start if latent is None else latent.encode(start)
    shape = (args.count, prior.info.num_channels, height, width)
    if latent is not None:
        one = latent.encode(torch.zeros(1, 3, height, width))
        shape = (args.count, *one.shape[1:])
    found = sampled(
        prior, start, shape=shape, steps=args.steps, time=args.time,
        condition=Condition(text=args.text), reuse=args.reuse,
        generator=torch.Generator().manual_seed(args.seed),
    )  # fmt: skip
    return found if latent is None else latent.decode(found)


def _film(prior: FramesPrior, args: SampleArgs) -> Tensor:
    """[count, channels, height, width], one after the other."""
    import torch
    from torch.nn.functional import avg_pool2d

    from scene4d.priors.frames import continued

    for name in ("time", "text"):
        if getattr(args, name) is not None:
            raise UsageError(f"--{name} is given, and a predictor of frames draws each picture out "
                             "of noise and by the one before alone", where=args.prior,
                             fix="leave it out")  # fmt: skip
    first = None
    if args.from_picture is not None:
        first = _colours(args.from_picture)
        longest = prior.info.longest_side or max(first.shape)
        first = avg_pool2d(first, max(1, round(max(first.shape) / longest)))
    return continued(
        prior, first, count=args.count, size=args.size, seconds=args.seconds, steps=args.steps,
        generator=torch.Generator().manual_seed(args.seed),
    )  # fmt: skip


def _colours(picture: Path) -> Tensor:
    """[3, height, width], -1..1."""
    import torch

    from scene4d.image_files import open_picture

    with open_picture(picture) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)
