"""``scene4d prior customise FIXER --data CAPTURE``: pairs of a capture, and a training on them.

A scene is trained on a few pictures of the near half of the capture's training pictures. What it
shows of the others is repaired: those of the farthest quarter only tell when to stop, those between
are learned from. Held-out pictures are never looked at.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from scene4d.data.frame import in_working_frame
from scene4d.data.load import read_scene
from scene4d.data.scene import Scene
from scene4d.errors import UsageError
from scene4d.methods.repair.custom_method import CustomFixerMethod
from scene4d.methods.repair.pairs import collect, write_pairs
from scene4d.methods.splat.method import SplatMethod
from scene4d.priors.built_in import found_in
from scene4d.priors.fixer import FILE, load_fixer
from scene4d.training.customising import from_the_first
from scene4d.training.fixers import mark_of
from scene4d.training.options import CustomiseOptions, TrainOptions
from scene4d.training.train import start

_log = logging.getLogger("scene4d")
_LEAST = 4
"""Pictures that are learned from, and pictures that tell when to stop, at least."""
_SIDE = 128
_MOMENTS = (0.4, 0.7, 1.0)
"""Shares of the scene's training at which it is looked at."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Indices of a capture's training frames."""

    trained: Sequence[int]
    learned: Sequence[int]
    far: Sequence[int]


def parts_of(scene: Scene, photographs: int) -> Parts:
    """As the module says, by the distance from the first training camera. Raises
    :class:`UsageError` for too few pictures."""
    train = from_the_first(scene)
    half, far = train[: len(train) // 2], train[len(train) - len(train) // 4 :]
    places = torch.linspace(0, len(half) - 1, min(photographs, len(half))).round().long()
    trained = [half[i] for i in places.unique().tolist()]
    learned = [i for i in train if i not in {*trained, *far}]
    if min(len(learned), len(far)) < _LEAST:
        raise UsageError(
            f"of {len(train)} training pictures {len(learned)} are left to learn from and "
            f"{len(far)} to tell when to stop; {_LEAST} of each are needed",
            where=scene.root,
            fix="give a capture of more pictures, or use the prior as it is",
        )
    return Parts(trained=trained, learned=learned, far=far)


def customise(prior: Path, options: CustomiseOptions) -> Path:
    """Fits the fixer ``prior`` to a capture; returns the run. Raises :class:`DataError` for what is
    no fixer."""
    original = load_fixer(prior)
    scene = in_working_frame(read_scene(options.data))
    parts = parts_of(scene, options.photographs)
    mark = mark_of(scene)
    if original.capture is not None and original.capture.digest != mark.digest:
        _log.warning("note: this fixer was customised for the capture %s already",
                     original.capture.name)  # fmt: skip
    home = options.output_dir.resolve() / options.data.resolve().name
    pairs = home / "pairs" / f"seed-{options.seed}"
    _write(pairs, options, parts, original.shape.references)
    method = CustomFixerMethod(
        steps=options.steps, original=found_in(prior, FILE).resolve(),
        capture=(mark.name, mark.digest),
        references=original.shape.references, widths=original.shape.widths,
    )  # fmt: skip
    method = replace(
        method,
        repairing=replace(method.repairing, pairs=pairs / "learned"),
        early_stop=replace(method.early_stop, far=pairs / "far"),
    )
    run_options = TrainOptions(
        output_dir=options.output_dir, experiment_name=options.data.resolve().name,
        device=options.device, seed=options.seed,
    )  # fmt: skip
    return start(method, run_options)


def _write(folder: Path, options: CustomiseOptions, parts: Parts, references: int) -> None:
    """The pairs of the pictures that are learned from, and of those that are far."""
    _log.info("training a scene on %d of the pictures, to learn from its renders",
              len(parts.trained))  # fmt: skip
    held = [*parts.learned, *parts.far]

    def resplit(scene: Scene) -> Scene:
        return replace(
            scene, train_indices=list(parts.trained), test_indices=held, split_rule="customise"
        )

    with tempfile.TemporaryDirectory() as made:
        found = _pairs(Path(made), options, resplit, references)
    of = torch.arange(len(found["rgb"])) % len(held)
    for name, rows in (("learned", of < len(parts.learned)), ("far", of >= len(parts.learned))):
        (folder / name).mkdir(parents=True, exist_ok=True)
        part = {key: value[rows] for key, value in found.items()}
        write_pairs(part, folder / name / "pairs.safetensors")


def _pairs(
    folder: Path, options: CustomiseOptions, resplit: Callable[[Scene], Scene], references: int
) -> dict[str, torch.Tensor]:
    factor = options.downscale_factor
    if factor is None:
        cameras = [frame.camera for frame in read_scene(options.data).frames]
        longest = max(max(c.width, c.height) for c in cameras)
        factor = max(1, round(longest / _SIDE))
    method = SplatMethod(
        steps=options.scene_steps, max_num_gaussians=6000, num_random_points=3000, sh_degree=1,
        coarsest_downscale=2,
    )  # fmt: skip
    train_options = TrainOptions(
        data=options.data, output_dir=folder, device=options.device, seed=options.seed,
        evaluate=False, downscale_factor=factor,
    )  # fmt: skip
    moments = [max(1, round(options.scene_steps * share)) for share in _MOMENTS]
    return collect(
        method, train_options, at=moments, seed=options.seed, resplit=resplit, references=references
    )
