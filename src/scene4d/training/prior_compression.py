"""``scene4d prior compress``: the file of a trained network made small."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.errors import UsageError
from scene4d.files import check_writable
from scene4d.priors.compression import (
    Compressed,
    denoising_questions,
    load_network,
    repairing_questions,
)
from scene4d.priors.compression import compress as compressed
from scene4d.priors.tensor_files import write_tensors
from scene4d.priors.unet import UnetPrior
from scene4d.training.options import TrainOptions
from scene4d.training.priors import picture_of
from scene4d.training.train import load_capture

_ASKED, _JUDGED = 2, 4
"""Pictures by which bits are shared, and others by which the result is judged."""
_LONGEST_SIDE = 128
"""Of a capture's pictures that a fixer is asked about, about, in pixels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    """A network's small file."""

    path: Path
    found: Compressed
    bytes_before: int
    levels: str
    """What the answers that were compared are to, for people."""


def compress(
    prior: Path, output: Path, target_bytes: int, *, data: Path | None, codebooks: bool
) -> Written:
    """Writes the file into the folder ``output``. Raises :class:`DataError` for what is no network
    of ours, and :class:`UsageError` where it cannot be so small, or would be written over."""
    file, network = load_network(prior)
    path = output / file.name
    if path.resolve() == file.resolve():
        raise UsageError("would be written over", where=file, fix="name another folder")
    check_writable(path)
    generator = torch.Generator().manual_seed(0)
    if isinstance(network, UnetPrior):
        asked, judged = (denoising_questions(network, n, generator) for n in (_ASKED, _JUDGED))
        levels = f"x0 at sigma/alpha {' '.join(judged.names)}"
    else:
        asked, judged = (
            repairing_questions(network, pictures, generator)
            for pictures in _pictures(data).split((_ASKED, _JUDGED))
        )
        levels = "repaired pictures"
    found = compressed(network, target_bytes, asked=asked, judged=judged, codebooks=codebooks)
    write_tensors(path, found.packed)
    return Written(path=path, found=found, bytes_before=file.stat().st_size, levels=levels)


def _pictures(data: Path | None) -> Float[Tensor, "n 3 height width"]:
    """Training pictures of a capture, evenly chosen, 0..1."""
    scene, images = load_capture(TrainOptions(data=data))
    count, train = _ASKED + _JUDGED, list(scene.train_indices)
    chosen = [train[i * len(train) // count] for i in range(count)]
    longest = max(max(images.camera(i).width, images.camera(i).height) for i in chosen)
    factor = max(1, round(longest / _LONGEST_SIDE))
    views = [picture_of(images.view(i, factor), scene, ("rgb",)) for i in chosen]
    height, width = (min(v.shape[axis] for v in views) for axis in (1, 2))
    return torch.stack([v[:, :height, :width] for v in views]) / 2 + 0.5
