"""Pairs of damaged and clean pictures: made by a training that is looked on, kept as bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from scene4d.data.scene import Scene
from scene4d.errors import DataError
from scene4d.evaluation.protocol import composited
from scene4d.files import printable
from scene4d.priors.fixer import REFERENCE_CHANNELS
from scene4d.representations.base import Representation
from scene4d.representations.gaussians import GaussianSplats
from scene4d.representations.method import Method
from scene4d.representations.task import Task
from scene4d.training.references import References, inputs_of

_NAMES = {"rgb": 3, "alpha": 1, "references": None, "clean": 3}


@dataclass(frozen=True, kw_only=True, eq=False)
class Crops:
    """A batch of crops, 0..1."""

    rgb: Float[Tensor, "n 3 size size"]
    alpha: Float[Tensor, "n 1 size size"]
    references: Float[Tensor, "n channels size size"]
    clean: Float[Tensor, "n 3 size size"]

    def to(self, device: torch.device) -> Crops:
        """On ``device``."""
        return Crops(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


class Pairs:
    """Pictures [n, channels, height, width] of one or more captures, each of its own size."""

    def __init__(self, captures: Sequence[Mapping[str, UInt8[Tensor, "n channels h w"]]]) -> None:
        """Raises :class:`DataError` for tensors that are no pairs."""
        self.captures = captures
        for tensors in captures:
            _check(tensors)
        self.counts = torch.tensor([len(t["rgb"]) for t in captures])

    def __len__(self) -> int:
        return int(self.counts.sum())

    def crops(
        self, count: int, size: int, generator: torch.Generator, *, forget: float = 0.0
    ) -> Crops:
        """``count`` crops of pairs drawn evenly, see :class:`Repairing`; takes the same random
        numbers for each. Smaller where a picture is."""
        size = min(size, *(min(t["rgb"].shape[-2:]) for t in self.captures))
        u = torch.rand(count, 7, generator=generator, dtype=torch.float64)
        kept = torch.rand(count, 16, generator=generator) >= forget
        ends = self.counts.cumsum(0)
        rows = [self._crop(u[i].tolist(), size, ends, kept[i]) for i in range(count)]
        return Crops(**{name: torch.stack([row[name] for row in rows]) for name in _NAMES})

    def _crop(
        self, u: list[float], size: int, ends: Tensor, kept: Tensor
    ) -> dict[str, Float[Tensor, "channels size size"]]:
        number = min(int(u[0] * len(self)), len(self) - 1)
        capture = int((ends <= number).sum())
        tensors = self.captures[capture]
        index = number - int(ends[capture]) + int(self.counts[capture])
        high, wide = tensors["rgb"].shape[-2:]
        y, x = int(u[1] * (high - size + 1)), int(u[2] * (wide - size + 1))
        order = _ORDERS[min(int(u[3] * 6), 5)]
        found = {}
        for name, values in tensors.items():
            part = values[index, :, y : y + size, x : x + size].float() / 255
            part = torch.rot90(part, int(u[4] * 4), (1, 2))
            part = part.flip(2) if u[5] < 0.5 else part
            if name == "references":
                part = part.unflatten(0, (-1, REFERENCE_CHANNELS))
                part = part * kept[: len(part), None, None, None]
                colours, known = part[:, order], part[:, 3:]
                colours = known - colours if u[6] < 0.3 else colours
                part = torch.cat([colours, known], dim=1).flatten(0, 1)
            elif name != "alpha":
                part = 1 - part[order] if u[6] < 0.3 else part[order]
            found[name] = part
        return found


_ORDERS = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]


def read_pairs(folder: Path) -> Pairs:
    """The pairs of all files of a folder. Raises :class:`DataError` where there are none."""
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not files:
        raise DataError("holds no pairs of pictures", where=printable(folder),
                        fix="name a folder that scripts/make_fixer_pairs.py wrote, with "
                        "--repairing.pairs")  # fmt: skip
    captures = []
    for file in files:
        try:
            captures.append(load_file(file))
        except Exception as error:  # the parser raises what it likes
            raise DataError(f"is damaged ({printable(error)})", where=file) from error
        try:
            _check(captures[-1])
        except DataError as error:
            raise DataError(str(error), where=file) from error
    return Pairs(captures)


def write_pairs(pairs: Mapping[str, UInt8[Tensor, "n channels h w"]], path: Path) -> None:
    """One capture's pairs as a file."""
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in pairs.items()}, path)


def _check(tensors: Mapping[str, Tensor]) -> None:
    told = {n: f"{t.dtype} {list(t.shape)}" for n, t in tensors.items()}
    good = set(tensors) == set(_NAMES) and all(
        t.dtype == torch.uint8 and t.ndim == 4 and len(t) for t in tensors.values()
    )
    if good:
        sizes = {(len(t), *t.shape[-2:]) for t in tensors.values()}
        wrong = [n for n, c in _NAMES.items() if c is not None and tensors[n].shape[1] != c]
        good = len(sizes) == 1 and not wrong and not (
            tensors["references"].shape[1] % REFERENCE_CHANNELS
        )  # fmt: skip
    if not good:
        raise DataError(f"holds no pairs of pictures, but {told}")


class PairCollector:
    """Looks on while a training goes on, and takes pairs of the pictures that are held out.

    Of every picture: the render as the training has it at each of the steps ``at``, and there also
    one of splats of which a share is left out.
    """

    def __init__(
        self, task: Task, representation: Representation, *, at: Iterable[int], seed: int = 0,
        references: int = 2,
    ) -> None:  # fmt: skip
        self.task, self.representation, self.at = task, representation, set(at)
        self.references, self.count = References(task), references
        self.random = np.random.default_rng(seed)
        self.found: dict[str, list[Tensor]] = {name: [] for name in _NAMES}

    @contextmanager
    def training_step(self) -> Iterator[None]:
        """Nothing to wait for."""
        yield

    def after_step(self, step: int, metrics: dict[str, float]) -> None:
        """Takes pairs at the steps that were asked for."""
        if step in self.at:
            self.take(self.representation)
            if (fewer := self._fewer()) is not None:
                self.take(fewer)

    def close(self) -> None:
        """Nothing to close."""

    @torch.no_grad()
    def take(self, scene: Representation) -> None:
        """A pair of every picture that is held out."""
        for index in self.task.scene.test_indices:
            view = self.task.images.view(index)
            render, near = self.references.seen(scene, view.camera, self.count)
            rgb, alpha = inputs_of(render)
            clean = composited(view, self.references.background).permute(2, 0, 1)
            for name, value in {
                "rgb": rgb[0], "alpha": alpha[0], "references": near, "clean": clean,
            }.items():  # fmt: skip
                self.found[name].append((value.clamp(0, 1) * 255).round().to(torch.uint8).cpu())

    def pairs(self) -> dict[str, UInt8[Tensor, "n channels h w"]]:
        """All that was taken; the pictures are of one size."""
        return {name: torch.stack(values) for name, values in self.found.items()}

    def _fewer(self) -> Representation | None:
        """The splats without a random share of them."""
        cloud = self.representation.splats()
        if cloud is None:
            return None
        share = self.random.uniform(0.1, 0.5)
        kept = self.random.random(len(cloud)) > share
        if not kept.any():
            return None
        parts = {f.name: getattr(cloud, f.name) for f in fields(cloud)}
        chosen: Any = {n: v[kept] if isinstance(v, np.ndarray) else v for n, v in parts.items()}
        return GaussianSplats.of(replace(cloud, **chosen))


def collect(
    method: Method,
    options: object,
    *,
    at: Iterable[int],
    seed: int = 0,
    references: int = 2,
    resplit: Callable[[Scene], Scene] | None = None,
) -> dict[str, UInt8[Tensor, "n channels h w"]]:
    """Trains ``method`` (with the :class:`TrainOptions` given), and returns the pairs of it: of all
    pictures that are held out, again and again. ``references``: photographs beside each.
    ``resplit``: see :func:`start`."""
    from scene4d.training.options import TrainOptions
    from scene4d.training.train import start

    assert isinstance(options, TrainOptions)
    made: list[PairCollector] = []

    def factory(_: Method, task: Task, representation: Representation) -> PairCollector:
        made.append(PairCollector(task, representation, at=at, seed=seed, references=references))
        return made[-1]

    start(method, options, watcher_factory=factory, announce=False, resplit=resplit)
    return made[-1].pairs()
