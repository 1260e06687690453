"""Frames of a video as ordinary pictures (sRGB, BT.709 primaries), as their tags say.

HDR is mapped by its reference white: what a camera meant as diffuse white becomes white, what is
brighter is cut, and every frame is treated alike. HLG is taken as light in the scene (ITU-R
BT.2100-2, table 5: inverse OETF), with white at 75 % of the signal; PQ as light on the display
(table 4: EOTF), with white at 203 cd/m2; both whites are those of ITU-R BT.2408-7. Primaries go
from BT.2020 to BT.709 by the matrix of ITU-R BT.2087-0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

_BT709, _UNSPECIFIED, _BT2020 = 1, 2, 9
_PQ, _HLG = 16, 18
"""Numbers of ITU-T H.273, which FFmpeg uses, too."""
_HD_HEIGHT = 720
"""From here on a video that does not say so has BT.709's matrix, as players take it."""
_HLG_A, _HLG_B, _HLG_C = 0.17883277, 0.28466892, 0.55991073
_HLG_WHITE = 0.75
_PQ_M1, _PQ_M2 = 2610 / 16384, 2523 / 4096 * 128
_PQ_C1, _PQ_C2, _PQ_C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_PQ_PEAK, _PQ_WHITE = 10_000.0, 203.0
_BT709_FROM_BT2020 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    dtype=np.float32,
)


def frame_picture(frame: Any, codec: Any = None) -> Image.Image:
    """The decoded frame as 8-bit RGB. ``codec``: whose tags hold where the frame has none."""
    if int(frame.colorspace) == _UNSPECIFIED and _is_yuv(frame):
        declared = _tag(frame, codec, "colorspace")
        hd = min(frame.height, frame.width) >= _HD_HEIGHT
        if declared != _UNSPECIFIED or hd:
            frame.colorspace = declared if declared != _UNSPECIFIED else _BT709
    if not (hdr_kind(frame, codec) or _tag(frame, codec, "color_primaries") == _BT2020):
        return frame.to_image()
    signal = frame.reformat(format="rgb48le").to_ndarray().astype(np.float32) / 65535
    return Image.fromarray(ordinary_colours(signal, _tag(frame, codec, "color_trc")))


def hdr_kind(frame: Any, codec: Any = None) -> str | None:
    """``HLG``, ``PQ``, or None for an ordinary video."""
    return {_HLG: "HLG", _PQ: "PQ"}.get(_tag(frame, codec, "color_trc"))


def ordinary_colours(signal: np.ndarray, transfer: int) -> np.ndarray:
    """[H, W, 3] uint8 sRGB from a ``signal`` [H, W, 3] in 0..1 with BT.2020 primaries.

    ``transfer``: 18 HLG, 16 PQ, else an ordinary video's curve.
    """
    if transfer == _HLG:
        light = hlg_scene_light(signal) / hlg_scene_light(np.float32(_HLG_WHITE))
    elif transfer == _PQ:
        light = pq_display_light(signal) / _PQ_WHITE
    else:
        light = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    light = np.clip(light @ _BT709_FROM_BT2020.T, 0.0, 1.0)
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * coded).astype(np.uint8)


def hlg_scene_light(signal: np.ndarray | np.float32) -> np.ndarray:
    """Scene light in 0..1: the inverse OETF of BT.2100."""
    upper = (np.exp((signal - _HLG_C) / _HLG_A) + _HLG_B) / 12
    return np.where(signal <= 0.5, signal * signal / 3, upper)


def pq_display_light(signal: np.ndarray) -> np.ndarray:
    """Display light in cd/m2: the EOTF of BT.2100 (SMPTE ST 2084)."""
    root = np.clip(signal, 0.0, 1.0) ** (1 / _PQ_M2)
    return _PQ_PEAK * (np.maximum(root - _PQ_C1, 0) / (_PQ_C2 - _PQ_C3 * root)) ** (1 / _PQ_M1)


def _tag(frame: Any, codec: Any, name: str) -> int:
    for source in (frame, codec):
        value = getattr(source, name, None)
        if value is not None and int(value) not in (0, _UNSPECIFIED):
            return int(value)
    return _UNSPECIFIED


def _is_yuv(frame: Any) -> bool:
    return not frame.format.is_rgb and len(frame.format.components) >= 3
