"""Monocular depth by a network that somebody gives: an ONNX file, run on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from PIL import Image

from scene4d.errors import DataError
from scene4d.optional import import_optional

DepthOutput = Literal["depth", "disparity"]
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, which such networks are trained with."""
_SIDE, _MULTIPLE = 518, 14
"""Longer side of the input where the network takes any, and what its sides are multiples of: what
vision transformers want."""
_RATIO = 10.0
"""Of the farthest depth to the nearest, where a network says disparities up to an unknown shift."""


@dataclass(frozen=True, kw_only=True)
class DepthModelOptions:
    """A network for monocular depth."""

    depth_model: Path | None = None
    """ONNX file of a network for monocular depth, or a folder with one (extra onnx). Its maps are
    brought to the scale of the poses and written as estimated depth; a relief (--relief), which is
    a plane without, stands on them."""
    depth_output: DepthOutput = "depth"
    """What the network's larger values mean: depth, farther; disparity, nearer."""


class DepthModel:
    """A network from a picture to its depth, up to a factor."""

    def __init__(self, path: Path, output: DepthOutput = "depth", *, threads: int = 1) -> None:
        """``path``: the ONNX file, or a folder with one. ``output``: what larger values mean,
        farther or nearer. Raises :class:`DataError` where it is no such network, and
        :class:`MissingExtraError` without onnxruntime."""
        self.path, self.output = _file(path), output
        runtime: Any = import_optional(
            "onnxruntime", extra="onnx", needed_for="a network for monocular depth"
        )
        settings = runtime.SessionOptions()
        settings.intra_op_num_threads = threads
        try:
            self._session = runtime.InferenceSession(
                str(self.path), settings, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its own classes, one for each kind of damage
            raise DataError(
                f"cannot be loaded ({str(error).splitlines()[0][:200]})",
                where=self.path,
                fix="give an ONNX file of a network for monocular depth",
            ) from error
        inputs = self._session.get_inputs()
        shape = inputs[0].shape if len(inputs) == 1 else []
        if len(shape) != 4 or (shape[1] not in (3, None) and not isinstance(shape[1], str)):
            raise DataError(
                f"takes {[i.shape for i in inputs]}, not one picture [1, 3, height, width]",
                where=self.path,
                fix="give a network for monocular depth",
            )
        self._input, self._size = inputs[0].name, (shape[2], shape[3])

    def __call__(self, picture: Image.Image) -> Float[np.ndarray, "height width"]:
        """What the network says of a picture, at the network's size. Raises :class:`DataError`
        where that is no map of finite numbers."""
        height, width = self._input_size(picture)
        small = picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        values = (np.asarray(small, dtype=np.float32) / 255 - _MEAN) / _DEVIATION
        batch = np.ascontiguousarray(values.transpose(2, 0, 1)[None], dtype=np.float32)
        found = np.asarray(self._session.run(None, {self._input: batch})[0], dtype=np.float32)
        plane = found.reshape(found.shape[-2:]) if found.size == np.prod(found.shape[-2:]) else None
        if plane is None or min(plane.shape) < 2:
            raise DataError(f"gives {found.shape}, not one map of depth", where=self.path)
        if not np.isfinite(plane).all():
            raise DataError("gives numbers that are not finite", where=self.path)
        return plane

    def _input_size(self, picture: Image.Image) -> tuple[int, int]:
        """Rows and columns: the network's own, or the picture's shape where it takes any."""
        scale = _SIDE / max(picture.size)
        free = (
            max(_MULTIPLE, round(side * scale / _MULTIPLE) * _MULTIPLE)
            for side in reversed(picture.size)
        )
        rows, columns = (
            own if isinstance(own, int) and own > 0 else side
            for own, side in zip(self._size, free, strict=True)
        )
        return rows, columns


def _file(path: Path) -> Path:
    if path.is_file():
        return path
    found = sorted(path.glob("*.onnx")) if path.is_dir() else []
    if len(found) != 1:
        raise DataError(
            "file not found" if not path.exists() else f"holds {len(found)} ONNX files, not one",
            where=path,
            fix="give the ONNX file of a network for monocular depth",
        )
    return found[0]


def depths_of(
    maps: Sequence[Float[np.ndarray, "height width"]], output: DepthOutput
) -> list[Float[np.ndarray, "height width"]]:
    """Positive depths, up to a factor each, of what a network says. Disparities up to a shift get
    the one, of all pictures alike, by which the farthest is ten times as far as the nearest."""
    low, high = (
        float(np.median([np.percentile(values, share) for values in maps])) for share in (2, 98)
    )
    if output == "depth":
        least = max(high, 1e-12) * 1e-3
        return [np.maximum(values, least) for values in maps]
    floor = (high - low) / (_RATIO - 1) or 1.0
    return [1 / np.clip(values - low + floor, floor, 2 * _RATIO * floor) for values in maps]
