"""Where masks of what moves come from: optical flow, the capture's own, or both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from moving_planes import planes
from optional_packages import import_or_skip
from PIL import Image

from scene4d.data.images import ImageCache
from scene4d.data.scene import Scene, at_size_of
from scene4d.errors import DataError
from scene4d.methods.deformable.method import ByMasksOptions, DeformableMethod
from scene4d.methods.deformable.observed import observed
from scene4d.representations.task import Task, World

import_or_skip("cv2")


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Scene:
    """A card that goes to the right; the masks of the capture are a stripe far above of it."""
    root = tmp_path_factory.mktemp("planes")
    places = [(-0.4 + 0.2 * i, 0.0) for i in range(4)]
    made = planes(root, [(0.0, 0.05 * i) for i in range(4)], places, depth=True)
    frames = []
    for i, frame in enumerate(made.scene.frames):
        mask = np.zeros((frame.camera.height, frame.camera.width), np.uint8)
        mask[:4] = 255
        Image.fromarray(mask).save(root / f"mask{i}.png")
        frames.append(replace(frame, moving_path=root / f"mask{i}.png"))
    return replace(made.scene, frames=frames)


def test_the_source_is_what_was_asked_for(own: Scene) -> None:
    images = ImageCache(own)
    found = {name: observed(own, images, name) for name in ("flow", "capture", "both")}
    stripe = torch.zeros_like(found["flow"].around[1])
    stripe[:4] = True
    assert not bool((found["flow"].around[1] & stripe).any()) and found["flow"].around[1].any()
    # all of what stands still, which depth takes out of the others, stays where the capture says it
    assert torch.equal(found["capture"].around[1], stripe)
    assert torch.equal(found["capture"].masks[1] & stripe, stripe)
    assert torch.equal(found["both"].around[1], found["flow"].around[1] | stripe)
    assert bool((found["both"].masks[1] & stripe).sum() == stripe.sum())
    assert observed(own, images, "capture") is found["capture"]  # kept


def test_masks_are_as_small_as_the_pictures_of_the_training(own: Scene) -> None:
    """Whose cameras are those of the downscaled pictures already."""
    files = ImageCache(own, downscale_factor=2)
    small = at_size_of(own, files)
    mask = observed(small, files, "capture").around[1]
    assert mask.shape == (own.frames[1].camera.height // 2, own.frames[1].camera.width // 2)
    assert bool(mask[:2].all()) and not bool(mask[2:].any())


def test_frames_without_a_mask_take_flows(own: Scene) -> None:
    frames = [own.frames[0], *(replace(f, moving_path=None) for f in own.frames[1:])]
    some = replace(own, frames=frames)
    images = ImageCache(some)
    by_flow, found = observed(some, images), observed(some, images, "capture")
    assert torch.equal(found.around[2], by_flow.around[2])
    assert not torch.equal(found.around[0], by_flow.around[0])


def test_a_capture_without_masks_is_refused(own: Scene) -> None:
    none = replace(own, frames=[replace(f, moving_path=None) for f in own.frames])
    task = Task(world=World.of(none), capture=none)
    method = DeformableMethod(moving_masks="capture", num_random_points=100)
    with pytest.raises(DataError, match="has a mask of what moves") as error:
        method.build(task, generator=torch.Generator())
    assert "--moving-masks flow" in str(error.value)


def test_the_terms_look_by_the_methods_source() -> None:
    terms = DeformableMethod(moving_masks="both").objectives()
    assert {t.moving_masks for t in terms if isinstance(t, ByMasksOptions)} == {"both"}
    assert sum(isinstance(t, ByMasksOptions) for t in terms) == 3
