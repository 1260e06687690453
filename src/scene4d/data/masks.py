"""What a mask says, in whichever of the usual ways it is stored."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool
from PIL import Image

_HALF = 0.5
"""Values from here on count, as a share of white: soft masks are cut at half."""


def mask_of(image: Image.Image) -> Bool[np.ndarray, "height width"]:
    """Which pixels count.

    White counts and black does not; where no value is above 1 (masks of 0 and 1), 1 counts.
    Palettes count by their colours, each that is not black. Where the colours are the same
    everywhere, or a photograph's, the mask is the alpha channel. Raises ValueError where colours
    and alpha say different things.
    """
    if image.mode == "1":
        return np.array(image)  # writable: tensors are made of it
    if image.mode == "F" or image.mode.startswith("I"):
        return _counted(np.asarray(image))
    transparent = "A" in image.getbands() or "transparency" in image.info
    rgba = np.asarray(image.convert("RGBA"))
    colours, alpha = rgba[..., :3], rgba[..., 3]
    coloured = bool((colours.max(-1) != colours.min(-1)).any())
    if image.mode in ("P", "PA") and coloured:  # labels, each in a colour of its own
        by_colour = colours.max(-1) > 0
    else:
        by_colour = _counted(np.asarray(image.convert("RGB").convert("L")))
    if not transparent or bool((alpha == alpha.flat[0]).all()):
        return by_colour
    by_alpha = _counted(alpha)
    photograph = coloured and image.mode not in ("P", "PA")
    if photograph or bool((by_colour == by_colour.flat[0]).all()):
        return by_alpha
    if not bool((by_colour == by_alpha).all()):
        raise ValueError(
            "its colours are one mask and its alpha channel is another: keep one of them"
        )
    return by_colour


def _counted(values: np.ndarray) -> Bool[np.ndarray, "height width"]:
    """Which values count, by the white that their largest one tells: 1, 255 or 65535."""
    largest = values.max(initial=0)
    if np.issubdtype(values.dtype, np.floating):
        white = 1.0 if largest <= 1 else 255.0
        return values >= _HALF * white
    if largest <= 1:
        return values > 0
    return values >= (128 if largest <= 255 else 32768)
