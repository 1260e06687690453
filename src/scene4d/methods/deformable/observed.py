"""What the pictures show of motion: tracks and masks, found once for all that ask."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

from jaxtyping import Bool
from torch import Tensor

from scene4d.data.scene import Scene, ViewSource
from scene4d.data.tracks import TrackOptions, Tracks, chain_tracks, moving_masks

_SPACING = 0.01
"""Between tracks, as a share of the picture's diagonal."""
_CLOSEST = 2.0
"""Pixels between tracks, at least."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Observed:
    """Of the training frames."""

    masks: dict[int, Bool[Tensor, "height width"]]
    """By frame: which pixels show what moves at some time."""
    tracks: list[Tracks]
    """Through the pictures of each camera."""


_FOUND: WeakKeyDictionary[ViewSource, Observed] = WeakKeyDictionary()


def observed(scene: Scene, images: ViewSource) -> Observed:
    """The masks and tracks of a scene's pictures: seconds, or kept from the last time."""
    if images not in _FOUND:
        train = list(scene.train_indices)
        cameras = scene.train_cameras()
        diagonal = max((c.width**2 + c.height**2) ** 0.5 for c in cameras)
        options = TrackOptions(spacing=max(_CLOSEST, _SPACING * diagonal))
        _FOUND[images] = Observed(
            masks=moving_masks(scene, images, indices=train),
            tracks=chain_tracks(scene, images, options=options),
        )
    return _FOUND[images]
