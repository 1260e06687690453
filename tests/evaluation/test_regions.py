"""Which pixels of held-out pictures count for what: the capture's masks, and those from flow."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from optional_packages import import_or_skip
from PIL import Image

from scene4d.data.images import ImageCache
from scene4d.data.load import read_scene
from scene4d.evaluation.regions import regions_of
from scene4d.files import write_json

WIDTH, HEIGHT = 40, 32


@pytest.fixture
def capture(tmp_path):
    """Six pictures, every second one held out; masks lie beside two of these."""
    generator = np.random.default_rng(0)
    frames = []
    for k in range(6):
        picture = generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{k}.png")
        frames.append({"file_path": f"{k}.png", "time": k / 5,
                       "transform_matrix": np.eye(4).tolist()})  # fmt: skip
    seen = np.zeros((HEIGHT, WIDTH), dtype=bool)
    seen[:, :10] = True
    for k in (1, 3):
        Image.fromarray(seen).save(tmp_path / f"seen_{k}.png")
        Image.fromarray(~seen).save(tmp_path / f"moves_{k}.png")
        frames[k] |= {"covisible_mask_path": f"seen_{k}.png", "dynamic_mask_path": f"moves_{k}.png"}
    write_json(tmp_path / "transforms.json", {
        "fl_x": 30, "fl_y": 30, "cx": WIDTH / 2, "cy": HEIGHT / 2, "w": WIDTH, "h": HEIGHT,
        "train_filenames": ["0.png", "2.png", "4.png"],
        "test_filenames": ["1.png", "3.png", "5.png"], "frames": frames,
    })  # fmt: skip
    return tmp_path, seen


def test_masks_that_lie_in_the_capture_are_used(capture, recwarn):
    folder, seen = capture
    found = read_scene(folder)
    assert not [w for w in recwarn if "not understood" in str(w.message)]
    regions = regions_of(found, ImageCache(found, indices=[]), compute=False)
    assert set(regions) == {1, 3}
    assert np.array_equal(regions[1].covisible.numpy(), seen)
    assert np.array_equal(regions[3].moving.numpy(), ~seen)
    small = regions_of(found, ImageCache(found, downscale_factor=2, indices=[]), compute=False)
    assert np.array_equal(small[1].covisible.numpy(), seen[::2, ::2])


def test_masks_that_are_missing_are_made_once_and_kept(capture, monkeypatch, tmp_path):
    import_or_skip("cv2")
    folder, seen = capture
    found = read_scene(folder)
    images, kept = ImageCache(found), tmp_path / "kept"
    made = regions_of(found, images, kept_in=kept)
    assert set(made) == {1, 3, 5} and made[5].moving.shape == seen.shape
    assert made[5].covisible_from_flow and made[5].moving_from_flow
    assert not made[1].covisible_from_flow and not made[1].moving_from_flow

    def refuse(*args, **options):
        raise AssertionError("made again")

    for maker in ("covisible_masks", "moving_masks"):
        monkeypatch.setattr(f"scene4d.evaluation.regions.{maker}", refuse)
    again = regions_of(found, images, kept_in=kept)
    assert torch.equal(again[5].covisible, made[5].covisible)
    assert torch.equal(again[5].moving, made[5].moving)
    (kept / "covisible" / "00005.png").write_bytes(b"not a picture")
    with pytest.raises(AssertionError, match="made again"):
        regions_of(found, images, kept_in=kept)


def test_what_moves_is_found_where_the_capture_does_not_say_it(tmp_path):
    """A square goes its way before a camera that stands still; every third picture is held out."""
    import_or_skip("cv2")
    generator = np.random.default_rng(0)
    wall, square = (generator.uniform(40, 200, (side, side)) for side in (96, 24))
    wall, square = (np.kron(x[::4, ::4], np.ones((4, 4))) for x in (wall, square))
    where = []
    for k in range(9):
        picture, there = wall.copy(), np.zeros(wall.shape, dtype=bool)
        there[36:60, 10 + 3 * k : 34 + 3 * k] = True
        picture[there] = square.ravel()
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / f"{k}.png")
        where.append(there)
    write_json(tmp_path / "transforms.json", {
        "fl_x": 90, "fl_y": 90, "cx": 48, "cy": 48, "w": 96, "h": 96,
        "train_filenames": [f"{k}.png" for k in range(9) if k % 3 != 1],
        "test_filenames": ["1.png", "4.png", "7.png"],
        "frames": [{"file_path": f"{k}.png", "time": k / 8, "transform_matrix": np.eye(4).tolist()}
                   for k in range(9)],
    })  # fmt: skip
    found = read_scene(tmp_path)
    regions = regions_of(found, ImageCache(found))
    for index in found.test_indices:
        mask, true = regions[index].moving.numpy(), where[index]
        # all of the square; around it what it hid at other times may count, more does not
        assert mask[true].mean() > 0.95
        assert not mask[:30].any() and not mask[66:].any() and not mask[:, 68:].any()
    # of a camera with one picture nothing is known
    frames = [
        replace(f, camera_id="other" if i == 1 else "one") for i, f in enumerate(found.frames)
    ]
    alone = replace(found, frames=frames)
    regions = regions_of(alone, ImageCache(alone))
    assert regions[1].moving is None and regions[4].moving.any()
