"""Masks in the ways that other programs write them, and masks that leave nothing."""

import numpy as np
import pytest
import torch
from PIL import Image

from scene4d.data.images import ImageCache
from scene4d.data.load import load_scene
from scene4d.data.maps import read_mask
from scene4d.errors import DataError

HALF = np.zeros((16, 24), bool)
HALF[:, :10] = True
"""Which pixels count."""


def grey(values):
    return Image.fromarray(np.asarray(values, np.uint8))


def palette(colours):
    image = Image.fromarray(HALF.astype(np.uint8), "P")
    image.putpalette([value for colour in colours for value in colour])
    return image


def with_alpha(colour, alpha=HALF, mode="RGBA"):
    pixels = np.zeros((16, 24, 4), np.uint8)
    pixels[..., :3] = np.asarray(colour)[..., None] if np.ndim(colour) == 2 else colour
    pixels[..., 3] = 255 * np.asarray(alpha)
    return Image.fromarray(pixels, "RGBA").convert(mode)


def transparent_palette():
    image = palette([(255, 255, 255), (255, 255, 255)])
    image.info["transparency"] = bytes([0, 255])
    return image


PHOTO = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
KINDS = {
    "0 and 255": grey(255 * HALF),
    "0 and 1": grey(HALF),
    "soft": grey(np.where(HALF, 200, 90)),
    "1 bit": Image.fromarray(HALF),
    "16 bits": Image.fromarray(65535 * HALF.astype(np.uint16)),
    "16 bits, 0 and 1": Image.fromarray(HALF.astype(np.uint16)),
    "16 bits, 0 and 255": Image.fromarray(255 * HALF.astype(np.uint16)),
    "colours": grey(255 * HALF).convert("RGB"),
    "palette of black and red": palette([(0, 0, 0), (128, 0, 0)]),
    "palette of greys 0 and 1": palette([(0, 0, 0), (1, 1, 1)]),
    "palette, white first": palette([(0, 0, 0), (255, 255, 255)]),
    "alpha of white": with_alpha(255),
    "alpha of black": with_alpha(0),
    "alpha of white, two channels": with_alpha(255, mode="LA"),
    "alpha of 0 and 1": with_alpha(255, HALF / 255.0),
    "alpha of a photograph": with_alpha(PHOTO),
    "the same in colours and alpha": with_alpha(255 * HALF),
    "colours with a full alpha": with_alpha(255 * HALF, np.ones_like(HALF)),
    "transparent palette": transparent_palette(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_every_kind_mean_the_same(tmp_path, kind):
    KINDS[kind].save(tmp_path / "mask.png", transparency=KINDS[kind].info.get("transparency"))
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), HALF)


def test_two_masks_in_one_file_are_refused(tmp_path):
    with_alpha(255 * HALF, ~HALF).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match="one mask and its alpha channel is another"):
        read_mask(tmp_path / "mask.png")


def masked(make_capture, values):
    """A capture whose pictures have the masks of ``values`` by number, 255 for the others."""

    def change(meta):
        for i, frame in enumerate(meta["frames"]):
            frame["mask_path"] = f"masks/{i:03d}.png"

    root = make_capture(change=change)
    (root / "masks").mkdir(exist_ok=True)
    for i in range(9):
        grey(np.full((16, 24), values.get(i, 255))).save(root / "masks" / f"{i:03d}.png")
    return root


def test_masks_that_leave_nothing_are_told_before_training(make_capture):
    with pytest.warns(UserWarning, match=r"in 2 of 9 images no pixel counts.*003\.png"):
        ImageCache(load_scene(masked(make_capture, {3: 0, 4: 0})))
    train = dict.fromkeys(range(1, 8), 0)
    with pytest.raises(DataError, match=r"any of the 7 images to train on.*masks/001\.png"):
        ImageCache(load_scene(masked(make_capture, train)))
    with pytest.raises(DataError, match=r"any of the 2 images to test on"):
        ImageCache(load_scene(masked(make_capture, {0: 0, 8: 2})))


def test_dynamic_masks_of_instant_ngp_are_what_to_ignore(make_capture):
    root = make_capture()
    grey(255 * HALF).save(root / "images" / "dynamic_mask_001.png")
    view = ImageCache(load_scene(root), indices=[1]).view(1)
    assert torch.equal(view.mask, torch.from_numpy(~HALF))
    assert ImageCache(load_scene(root), indices=[2]).view(2).mask is None


def test_a_folder_of_masks_that_no_frame_names_is_told(make_capture):
    root = make_capture()
    (root / "masks").mkdir()
    with pytest.warns(UserWarning, match="no frame has a 'mask_path'"):
        load_scene(root)
