"""The prior of a training: named on the command line, given from Python, or the method's own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.data.frame import in_working_frame
from scene4d.data.images import ImageCache
from scene4d.data.load import read_scene
from scene4d.data.options import SceneOptions
from scene4d.data.scene import Scene, View, ViewSource
from scene4d.errors import UsageError
from scene4d.evaluation.protocol import composited
from scene4d.priors.kinds import load_prior, prior_name
from scene4d.priors.patch_memory import PatchMemory, patches_of
from scene4d.priors.prior import Kind, Prior, PriorInfo
from scene4d.representations.method import Method, ObjectiveOptions
from scene4d.representations.task import Task
from scene4d.training.fixers import warn_of_other_capture
from scene4d.training.objectives.guidance import depth_code
from scene4d.training.options import TrainOptions

MOST_PICTURES = 64
"""That patches are taken from, evenly among the training pictures."""
LONGEST_SIDE = 64
"""Pixels of those pictures, about: they are divided by a whole number."""
_log = logging.getLogger("scene4d")


def check_guidance(method: Method, options: TrainOptions, prior: Prior | None) -> None:
    """Raises :class:`UsageError` for a prior that nothing asks, and for two; warns where guidance
    was asked for and there is no prior."""
    given = prior is not None or options.prior is not None
    if prior is not None and options.prior is not None:
        raise UsageError("two priors: one from Python and one that the options name",
                         fix="give one of them")  # fmt: skip
    if options.prior is not None:
        prior_name(options.prior)
    asking = _asks(method)
    if given and not asking:
        raise UsageError(f"a prior is given, and no term of the method {method.name!r} asks it",
                         fix="leave --prior out, or give guidance.weight a value")  # fmt: skip
    usual = _asks(type(method)())
    own = method.own_prior() is not None or method.default_prior is not None
    if asking != usual and not given and not own:
        _log.warning("note: options of guidance are given and no prior is: they are ignored; "
                     "name one with --prior")  # fmt: skip


def _asks(method: Method) -> list[ObjectiveOptions]:
    """The terms that need a prior and count."""
    return [o for o in method.terms() if o.needs_prior and o.weight != 0]


def with_prior(task: Task, method: Method, options: TrainOptions, prior: Prior | None) -> Task:
    """The task with the prior that was given, or that the options name, or else with the method's
    own or its default one, if it has one. Raises :class:`DataError` or :class:`UsageError` for
    one that cannot be."""
    found: object = prior
    if found is None and options.prior is not None:
        found = load_prior(prior_name(options.prior), task)
    if found is None:
        found = method.own_prior()
    if found is None and method.default_prior is not None and _asks(method):
        found = load_prior(prior_name(method.default_prior), task)
    if found is None:
        return task
    if not isinstance(found, Prior):
        raise UsageError(f"a {type(found).__name__} is no prior",
                         fix="give a scene4d.priors.prior.Prior")  # fmt: skip
    if task.capture is not None:
        warn_of_other_capture(found, task.capture)
    return replace(task, prior=found.eval())


class PatchesKind:
    """Patch memory as ``--prior`` finds it: of the training's own capture, or of another."""

    description = "patches of the training pictures, or of patches:CAPTURE"

    def takes(self, place: Path) -> bool:
        """Never by the folder alone: a capture is no prior unless it is said so."""
        return False

    def load(self, place: Path | None, task: Task) -> PatchMemory:
        """Patches of the training pictures alone, of the capture at ``place`` or of the training's
        own. Raises :class:`DataError` where there is no capture."""
        own = task.capture
        if place is None or (own is not None and _same(place, own.root)):
            return patch_memory_of(task.scene, task.images)
        scene = in_working_frame(read_scene(place, SceneOptions()))
        images = ImageCache(scene, indices=scene.train_indices)
        return patch_memory_of(scene, images)


def patch_memory_of(scene: Scene, images: ViewSource) -> PatchMemory:
    """The memory of a capture's training pictures, some 64 pixels long: of colour on the scene's
    background, and of depth where every one of them has it."""
    every = -(-len(scene.train_indices) // MOST_PICTURES)
    chosen = scene.train_indices[::every]
    longest = max(max(images.camera(i).width, images.camera(i).height) for i in chosen)
    factor = max(1, round(longest / LONGEST_SIDE))
    views = [images.view(i, factor) for i in chosen]
    depth = all(view.measured_depth is not None for view in views)
    channels: tuple[Kind, ...] = ("rgb", "depth") if depth else ("rgb",)
    pictures, valid = [], []
    for view in views:
        known = torch.ones(view.rgb.shape[:2], dtype=torch.bool) if view.mask is None else view.mask
        if view.depth is not None and depth:
            known = known & (view.depth > 0)
        pictures.append(picture_of(view, scene, channels))
        valid.append(known)
    generator = torch.Generator().manual_seed(0)
    side = min(8, *(min(p.shape[-2:]) for p in pictures))
    memory = PatchMemory(
        patches_of(pictures, side=side, valid=valid, generator=generator),
        channels=channels,
        stride=max(1, side // 2),
    )
    memory.info = PriorInfo(channels=channels, longest_side=max(1, longest // factor))
    return memory


def picture_of(
    view: View, scene: Scene, kinds: Sequence[Kind]
) -> Float[Tensor, "channels height width"]:
    """What a prior of colour, or of colour and depth, is shown of a capture's picture, -1..1: on
    the scene's background. Raises :class:`UsageError` for kinds that the picture lacks."""
    background = torch.tensor(scene.background or (0.0, 0.0, 0.0))
    maps: dict[Kind, Tensor] = {"rgb": 2 * composited(view, background) - 1}
    if view.depth is not None:
        maps["depth"] = depth_code(view.depth, scene.extent)[..., None]
    lacking = [kind for kind in kinds if kind not in maps]
    if lacking:
        raise UsageError(f"the prior knows {lacking[0]}, which the capture lacks",
                         where=scene.root)  # fmt: skip
    return torch.cat([maps[kind] for kind in kinds], dim=-1).permute(2, 0, 1)


def shown_to(
    prior: Prior, scene: Scene, images: ViewSource, index: int
) -> Float[Tensor, "channels height width"]:
    """A frame as the prior knows pictures, about as long as it says, or :data:`LONGEST_SIDE`."""
    camera = images.camera(index)
    longest = prior.info.longest_side or LONGEST_SIDE
    view = images.view(index, max(1, round(max(camera.width, camera.height) / longest)))
    return picture_of(view, scene, prior.info.channels)


def _same(one: Path, other: Path) -> bool:
    return one.resolve() in (other.resolve(), other.resolve().parent)
