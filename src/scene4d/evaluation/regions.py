"""Which pixels of a dynamic capture's held-out pictures are covisible, and which move.

The capture's own masks where it has them; else made from optical flow, once, and kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from scene4d.data.maps import read_mask
from scene4d.data.moving import moving_masks, stated_masks
from scene4d.data.scene import Frame, Scene, ViewSource
from scene4d.data.trajectories import trajectories
from scene4d.errors import DataError
from scene4d.evaluation.covisible import covisible_masks
from scene4d.evaluation.masked import Regions
from scene4d.files import atomic_folder, read_json, write_json

_log = logging.getLogger("scene4d")
Masks = dict[int, Bool[Tensor, "height width"]]


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """One kind of masks."""

    name: str
    rule: int
    """Counts up when what is made changes, so that kept masks are made again."""
    path: Callable[[Frame], Path | None]
    """Where the capture has that of a frame."""
    make: Callable[[Scene, ViewSource, Sequence[int]], Masks]


def regions_of(
    scene: Scene, images: ViewSource, *, kept_in: Path | None = None, compute: bool = True
) -> dict[int, Regions]:
    """Of each held-out frame, what is covisible and what moves: the capture's own masks where it
    has them; else, if ``compute``, made from flow and kept in folders of ``kept_in``."""
    covisible, made_covisible = _masks(_COVISIBLE, scene, images, kept_in, compute=compute)
    moving, made_moving = _masks(_MOVING, scene, images, kept_in, compute=compute)
    return {
        i: Regions(
            covisible=covisible.get(i),
            moving=moving.get(i),
            covisible_from_flow=i in made_covisible,
            moving_from_flow=i in made_moving,
        )
        for i in scene.test_indices
        if i in covisible or i in moving
    }


def _masks(
    kind: _Kind, scene: Scene, images: ViewSource, kept_in: Path | None, *, compute: bool
) -> tuple[Masks, Masks]:
    """All that there are, and those of them that were made."""
    stated = stated_masks(images, scene.test_indices, kind.path)
    left = [i for i in scene.test_indices if i not in stated]
    folder = None if kept_in is None else kept_in / kind.name
    made = _kept_or_made(kind, scene, images, left, folder) if left and compute else {}
    return stated | made, made


def _kept_or_made(
    kind: _Kind, scene: Scene, images: ViewSource, indices: Sequence[int], folder: Path | None
) -> Masks:
    about = _about(kind, scene, images, indices)
    found = None if folder is None else _kept(folder, about, images)
    if found is not None:
        return found
    _log.info(
        "making %s masks of %d held-out pictures from optical flow%s",
        kind.name, len(indices), "" if folder is None else f"; kept in {folder}",
    )  # fmt: skip
    made = kind.make(scene, images, indices)
    if folder is not None:
        _keep(folder, {**about, "made": sorted(made)}, made)
    return made


def _about(
    kind: _Kind, scene: Scene, images: ViewSource, indices: Sequence[int]
) -> dict[str, object]:
    """What masks depend on, as far as a capture that is edited in place lets one see."""
    camera = images.camera(indices[0])
    return {
        "rule": kind.rule,
        "size": [camera.width, camera.height],
        "test": [scene.frames[i].name for i in indices],
        "train": [scene.frames[i].name for i in scene.train_indices],
        "depth": any(f.has_measured_depth for f in scene.frames),
    }


def _kept(folder: Path, about: Mapping[str, object], images: ViewSource) -> Masks | None:
    try:
        kept = read_json(folder / "about.json")
        indices = kept.pop("made") if isinstance(kept, dict) and "made" in kept else []
        if kept != about:
            return None
        masks = {i: torch.from_numpy(read_mask(folder / f"{i:05d}.png").copy()) for i in indices}
    except (DataError, TypeError, ValueError):  # of another version, or edited
        return None
    sizes = {i: (images.camera(i).height, images.camera(i).width) for i in masks}
    return masks if all(masks[i].shape == sizes[i] for i in masks) else None


def _keep(folder: Path, about: Mapping[str, object], masks: Masks) -> None:
    with atomic_folder(folder) as temporary:
        for index, mask in masks.items():
            Image.fromarray(mask.numpy().astype(np.uint8) * 255).save(
                temporary / f"{index:05d}.png"
            )
        write_json(temporary / "about.json", about)


def _make_covisible(scene: Scene, images: ViewSource, indices: Sequence[int]) -> Masks:
    return dict(covisible_masks(scene, images, indices))


def moving_masks_of(scene: Scene, images: ViewSource, indices: Sequence[int]) -> Masks:
    """What moves in held-out pictures, from flow between all pictures of each one's camera, also
    those that trained; none where there is only one, of which nothing is known."""
    wanted = set(indices)
    paths = [p for p in trajectories(scene) if len(p) > 1 and wanted.intersection(p)]
    made = moving_masks(scene, images, indices=[i for path in paths for i in path])
    return {i: mask for i, mask in made.items() if i in wanted}


_COVISIBLE = _Kind(
    name="covisible", rule=3, path=lambda frame: frame.covisible_path, make=_make_covisible
)
_MOVING = _Kind(name="moving", rule=2, path=lambda frame: frame.moving_path, make=moving_masks_of)
