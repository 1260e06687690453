"""What the pictures show of motion: masks, depths and tracks, found once for all that ask."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from jaxtyping import Bool, Float
from torch import Tensor

from scene4d.data.scene import Scene, ViewSource
from scene4d.data.tracks import TrackOptions, Tracks, chain_tracks, moving_masks
from scene4d.methods.deformable.depths import depths_of
from scene4d.methods.deformable.lifted import LiftedTracks, lift
from scene4d.methods.deformable.masks import refined_masks

_log = logging.getLogger("scene4d")

_SPACING = 0.01
"""Between tracks, as a share of the picture's diagonal."""
_CLOSEST = 2.0
"""Pixels between tracks, at least."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Observed:
    """Of the training frames."""

    around: dict[int, Bool[Tensor, "height width"]]
    """By frame: which pixels optical flow finds to move at some time, grown."""
    masks: dict[int, Bool[Tensor, "height width"]]
    """Which pixels move now, told by measured depth; as ``around`` where there is none."""
    depths: dict[int, Float[Tensor, "height width"]]
    """Scene units, 0 where nothing is known; where none is measured, a weak guess inside of
    ``around``."""
    by_depth: bool
    """Whether the masks are told by measured depth."""
    tracks: list[Tracks]
    """Through the pictures of each camera."""
    lifted: LiftedTracks
    """The tracks in the world."""


_FOUND: WeakKeyDictionary[ViewSource, Observed] = WeakKeyDictionary()


def observed(scene: Scene, images: ViewSource) -> Observed:
    """What a scene's pictures show: seconds to minutes, or kept from the last time."""
    if images not in _FOUND:
        _FOUND[images] = _observe(scene, images)
    return _FOUND[images]


def _observe(scene: Scene, images: ViewSource) -> Observed:
    train = list(scene.train_indices)
    _log.info("finding what moves in %s pictures, by optical flow ...", f"{len(train):,}")
    began = time.monotonic()
    around = moving_masks(scene, images, indices=train)
    _log.info("masks of what moves after %.0f s; tracks ...", time.monotonic() - began)
    diagonal = max((c.width**2 + c.height**2) ** 0.5 for c in scene.train_cameras())
    options = TrackOptions(spacing=max(_CLOSEST, _SPACING * diagonal))
    tracks = chain_tracks(scene, images, options=options)
    depths = depths_of(scene, images, around)
    masks, lifted = around, lift(tracks, images, depths, around)
    by_depth = any(scene.frames[i].depth_path is not None for i in train)
    if by_depth:
        masks = refined_masks(scene, images, around, depths, lifted)
        lifted = lift(tracks, images, depths, masks)
    _log.info("%s tracks after %.0f s", f"{len(lifted):,}", time.monotonic() - began)
    return Observed(
        around=around, masks=masks, depths=depths, by_depth=by_depth, tracks=tracks, lifted=lifted
    )
