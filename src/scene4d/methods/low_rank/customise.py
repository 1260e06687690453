"""``scene4d prior customise FOLDER --data CAPTURE`` for a diffusion model: pictures of the capture,
pictures that the model draws, and a training of low-rank layers on both.

Nothing is learned from the farthest quarter of the training pictures, which tells when to stop;
held-out pictures are never looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.data.frame import in_working_frame
from scene4d.data.images import ImageCache
from scene4d.data.load import read_scene
from scene4d.data.scene import Scene
from scene4d.errors import UsageError
from scene4d.evaluation.protocol import composited
from scene4d.methods.low_rank.method import CustomDiffusionMethod
from scene4d.methods.low_rank.objectives import write_pictures
from scene4d.methods.low_rank.trainable import load_original
from scene4d.priors.diffusion import LORA, PROMPTS, DiffusionPrior
from scene4d.priors.prior import Condition
from scene4d.priors.sampling import sample
from scene4d.training.customising import from_the_first
from scene4d.training.device import choose_device
from scene4d.training.fixers import mark_of
from scene4d.training.options import CustomiseOptions, TrainOptions
from scene4d.training.train import start

_log = logging.getLogger("scene4d")
_LEAST = 2
"""Pictures that are learned from, and that tell when to stop, at least."""
_SIDE = 128
"""Pixels of the longer side, about, for models that do not say at which size they were trained."""
_DRAWN, _STEPS = 8, 25
"""Pictures that the model draws, and its steps for each."""
_UNIT = 8
"""Sides are multiples of so many values that the network sees."""


def customise(prior: Path, options: CustomiseOptions) -> Path:
    """Fits low-rank layers of the model in the folder ``prior``; returns the run. Raises
    :class:`DataError` or :class:`UsageError` for a model that cannot be."""
    model = load_original(prior).to(choose_device(options.device))
    _check(prior, model, options)
    scene = in_working_frame(read_scene(options.data))
    order = from_the_first(scene)
    near, far = order[: len(order) - len(order) // 4], order[len(order) - len(order) // 4 :]
    if len(far) < _LEAST:
        raise UsageError(f"of {len(order)} training pictures {len(far)} tell when to stop; "
                         f"{_LEAST} are needed", where=scene.root,
                         fix="give a capture of more pictures, or use the prior as it is"
                         )  # fmt: skip
    home = options.output_dir.resolve() / options.data.resolve().name
    pictures = home / "pictures" / f"seed-{options.seed}"
    for name, indices in (("learned", near), ("far", far)):
        write_pictures(_seen(model, scene, indices, options), pictures / name)
    _log.info("the model draws %d pictures, by which it stays as it is", _DRAWN)
    write_pictures(_drawn(model, options), pictures / "drawn")
    mark = mark_of(scene)
    method = CustomDiffusionMethod(
        steps=options.steps, original=prior.resolve(), capture=(mark.name, mark.digest)
    )
    method = replace(
        method,
        fitting=replace(method.fitting, pictures=pictures / "learned", text=options.text),
        preserving=replace(method.preserving, pictures=pictures / "drawn"),
        early_stop=replace(method.early_stop, far=pictures / "far", text=options.text),
    )
    run_options = TrainOptions(
        output_dir=options.output_dir, experiment_name=options.data.resolve().name,
        device=options.device, seed=options.seed,
    )  # fmt: skip
    return start(method, run_options)


def _check(prior: Path, model: DiffusionPrior, options: CustomiseOptions) -> None:
    """Raises :class:`UsageError` for texts whose embeddings are not there; says what is ignored."""
    reads = "text" in model.info.conditions
    known = () if model.prompts is None else model.prompts.texts
    lacking = [text for text in ("", options.text) if text not in known]
    if reads and lacking:
        raise UsageError(f"there is no embedding of the text {lacking[0]!r}", where=prior / PROMPTS,
                         fix="make it once with scene4d.priors.prompts.embed")  # fmt: skip
    if options.text and not reads:
        _log.warning("note: this model reads no text: --text is ignored")
    if (prior / LORA).is_file():
        _log.warning("note: the low-rank layers that lie in %s are left out: new ones take their "
                     "place", prior)  # fmt: skip


@torch.no_grad()
def _seen(
    model: DiffusionPrior, scene: Scene, indices: Sequence[int], options: CustomiseOptions
) -> Float[Tensor, "n channels h w"]:
    """The pictures as the network knows them, all of the size of the smallest."""
    images = ImageCache(scene, indices=list(indices))
    shrink, longest = _sizes(model)
    cameras = [images.camera(i) for i in indices]
    factor = options.downscale_factor or max(
        1, round(max(max(c.width, c.height) for c in cameras) / longest)
    )
    background = torch.tensor(scene.background or (0.0, 0.0, 0.0))
    views = [composited(images.view(i, factor), background) for i in indices]
    unit = shrink * _UNIT
    high, wide = (min(v.shape[axis] for v in views) // unit * unit for axis in (0, 1))
    if not high or not wide:
        raise UsageError(
            f"pictures have less than {unit} pixels along a side, which this model needs",
            where=scene.root, fix="give a smaller --downscale-factor",
        )  # fmt: skip
    found = []
    for view in views:
        y, x = (view.shape[0] - high) // 2, (view.shape[1] - wide) // 2
        picture = 2 * view[y : y + high, x : x + wide].permute(2, 0, 1)[None] - 1
        picture = picture.to(next(model.parameters()))
        found.append(model.encode(picture)[0] if model.info.space == "latent" else picture[0])
    return torch.stack(found)


def _drawn(model: DiffusionPrior, options: CustomiseOptions) -> Float[Tensor, "n channels h w"]:
    """Pictures of the model's own, without a text."""
    shrink, longest = _sizes(model)
    side = max(1, longest // shrink // _UNIT) * _UNIT
    condition = Condition(text="") if "text" in model.info.conditions else Condition()
    generator = torch.Generator().manual_seed(options.seed)
    # from black at the most noise, which nothing is left of, so that it lies on the model's device
    black = next(model.parameters()).new_zeros(1, model.info.num_channels, side, side)
    return torch.cat([
        sample(model, black, steps=_STEPS, condition=condition, generator=generator)
        for _ in range(_DRAWN)
    ])  # fmt: skip


def _sizes(model: DiffusionPrior) -> tuple[int, int]:
    """Pixels along a side of what the network sees as one value, and of the pictures that it was
    trained on."""
    shrink = 1
    if model.info.space == "latent":
        black = next(model.parameters()).new_zeros(1, 3, _SIDE, _SIDE)
        shrink = _SIDE // model.encode(black).shape[-1]
    config: Any = model.network.config
    told = config.sample_size
    side = max(told) if isinstance(told, (list, tuple)) else told
    return shrink, _SIDE if side is None else shrink * int(side)
