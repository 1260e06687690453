"""What the pictures show of motion: masks, depths and tracks, found once for all that ask."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.data.moving import known_moving_masks, moving_masks, stated_masks
from scene4d.data.scene import Points, Scene, ViewSource
from scene4d.data.tracks import TrackOptions, Tracks, chain_tracks
from scene4d.errors import DataError
from scene4d.methods.deformable.carried import with_carried
from scene4d.methods.deformable.depths import depths_of
from scene4d.methods.deformable.lifted import LiftedTracks, lift
from scene4d.methods.deformable.masks import refined_masks
from scene4d.methods.deformable.method import MaskSource
from scene4d.methods.deformable.still import told_by_tracks

_log = logging.getLogger("scene4d")

_SPACING = 0.01
"""Between tracks, as a share of the picture's diagonal."""
_CLOSEST = 2.0
"""Pixels between tracks, at least."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Observed:
    """Of the training frames."""

    around: dict[int, Bool[Tensor, "height width"]]
    """By frame: which pixels optical flow finds to move at some time, grown; or the capture's own
    masks, or both."""
    masks: dict[int, Bool[Tensor, "height width"]]
    """Which pixels move now, told by measured depth, and all that the capture's own masks have; as
    ``around`` where there is no depth."""
    depths: dict[int, Float[Tensor, "height width"]]
    """Scene units, 0 where nothing is known; where none is measured, a weak guess inside of
    ``around``."""
    by_depth: bool
    """Whether the masks are told by measured depth."""
    tracks: list[Tracks]
    """Through the pictures of each camera."""
    lifted: LiftedTracks
    """The tracks in the world."""
    still: Points | None = None
    """Where nothing is measured: points of tracks that stand still."""


_FOUND: WeakKeyDictionary[ViewSource, dict[tuple[str, bool], Observed]] = WeakKeyDictionary()


def observed(
    scene: Scene, images: ViewSource, source: MaskSource = "flow", *, by_network: bool = False
) -> Observed:
    """What a scene's pictures show, by masks of that source: seconds to minutes, or kept from the
    last time. ``by_network``: estimated depth says how far what moves is, see :func:`depths_of`.
    Raises :class:`DataError` where the capture lacks the masks that are asked for."""
    found = _FOUND.setdefault(images, {})
    key = source, by_network
    if key not in found:
        found[key] = _observe(scene, images, source, by_network=by_network)
    return found[key]


def _observe(scene: Scene, images: ViewSource, source: MaskSource, *, by_network: bool) -> Observed:
    train = list(scene.train_indices)
    own = {} if source == "flow" else _own_masks(scene, images)
    _log.info("finding what moves in %s pictures ...", f"{len(train):,}")
    began = time.monotonic()
    if source == "both":
        around = moving_masks(scene, images, indices=train)
        around = {i: mask | own[i] if i in own else mask for i, mask in around.items()}
    elif own:
        around = known_moving_masks(scene, images, indices=train)
    else:
        around = moving_masks(scene, images, indices=train)
    _log.info("masks of what moves after %.0f s; tracks ...", time.monotonic() - began)
    around = with_carried(scene, images, around)
    diagonal = max((c.width**2 + c.height**2) ** 0.5 for c in scene.train_cameras())
    options = TrackOptions(spacing=max(_CLOSEST, _SPACING * diagonal))
    tracks = chain_tracks(scene, images, options=options)
    by_depth = scene.measures_depth
    still = None if by_depth else told_by_tracks(images, tracks, around)
    if still is not None:
        around = {i: mask | own[i] if i in own else mask for i, mask in still.masks.items()}
    sighted = None if still is None else still.sighted
    depths = depths_of(scene, images, around, sighted, by_network=by_network)
    masks, lifted = around, lift(tracks, images, depths, around)
    if by_depth:
        masks = refined_masks(scene, images, around, depths, lifted)
        masks = {i: mask | own[i] if i in own else mask for i, mask in masks.items()}
        lifted = lift(tracks, images, depths, masks)
    _log.info("%s tracks after %.0f s", f"{len(lifted):,}", time.monotonic() - began)
    return Observed(
        around=around, masks=masks, depths=depths, by_depth=by_depth, tracks=tracks, lifted=lifted,
        still=None if still is None else still.points,
    )  # fmt: skip


def _own_masks(scene: Scene, images: ViewSource) -> dict[int, Bool[Tensor, "height width"]]:
    """The capture's own, of the training frames that have one. Raises :class:`DataError`."""
    train = scene.train_indices
    own = stated_masks(images, train, lambda frame: frame.moving_path)
    if not own:
        raise DataError(
            f"none of its {len(train):,} training pictures has a mask of what moves",
            where=scene.root,
            fix="name one as 'dynamic_mask_path' of each frame in transforms.json, or train with"
            " --moving-masks flow",
        )
    return own
