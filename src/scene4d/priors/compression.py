"""Our own networks in few bytes: steps, or codebooks, by how much each layer's error shows.

Each layer is coarsened alone, and what that changes in the network's answers says how sensitive it
is (BitsFusion, Sui et al. 2024, section 3); a budget of bytes is then shared so that no layer would
gain more by a bit than another. Codes are those of bundles (:mod:`scene4d.bundle.networks`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from scene4d.bundle.networks import coded_column, decode_network, encode_network
from scene4d.bundle.quantise import Sensitivity, allocate_steps, lloyd_max, quantise_codebook
from scene4d.errors import DataError, UsageError
from scene4d.files import is_regular_file, printable
from scene4d.priors import fixer as fixers
from scene4d.priors import unet as unets
from scene4d.priors.fixer import Fixer, load_fixer
from scene4d.priors.sampling import sample
from scene4d.priors.tensor_files import pack_coded
from scene4d.priors.unet import UnetPrior, load_unet

RATIOS = (0.1, 0.3, 1.0, 3.0)
"""sigma / alpha at which a diffusion prior is asked."""
_STEPS = 20
"""From noise to the pictures that it is asked about."""
_TRIAL = 0.5
"""Step at which a layer's sensitivity is measured, in standard deviations of its weights."""
_BOOKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Sizes of codebooks."""
_MOST_BITS = 12.0
"""A weight, on average: finer than half precision."""
_TRIES, _AIMED, _NEAR = 4, 0.995, 0.98
"""Files that are made, the share of their size that is aimed at, and that which is near enough."""

Quantisers = Mapping[str, float | np.ndarray]
"""By tensor: a step, or a sorted codebook."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Questions:
    """What a network is asked, to see what coarser weights change."""

    answer: Callable[[], Tensor]
    """Asks the network as it is now: [levels, ...]."""
    names: tuple[str, ...]
    """Of the levels, for people."""
    weights: Float[Tensor, " levels"]
    """Of their squared errors."""
    peak: float
    """Difference between the least and the largest value."""

    def errors(self, wanted: Tensor) -> Float[Tensor, " levels"]:
        """Mean squared distance of the answers from those ``wanted``."""
        return (self.answer() - wanted).square().flatten(1).mean(dim=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Compressed:
    """A network's file, and what became of it."""

    packed: bytes
    bits: float
    """A weight, on average, all of the file counted."""
    steps: tuple[float, float]
    """The finest and the coarsest, in standard deviations of a layer's weights; of codebooks those
    of the same error."""
    psnr: tuple[float, ...]
    """dB, of the answers against those of the network as it was, at each level."""


def load_network(place: Path) -> tuple[Path, UnetPrior | Fixer]:
    """A network of our own, and its file: ``place`` itself, or the one in that folder. Raises
    :class:`DataError` for anything else."""
    for name, load in ((unets.FILE, load_unet), (fixers.FILE, load_fixer)):
        file = place if place.name == name else place / name
        if is_regular_file(file):
            return file, load(file)
    raise DataError("is no network that scene4d prior train made", where=printable(place),
                    fix=f"give its folder, or its file, {unets.FILE} or {fixers.FILE}")  # fmt: skip


def denoising_questions(prior: UnetPrior, count: int, generator: torch.Generator) -> Questions:
    """Of ``count`` pictures that the prior thinks of itself, at :data:`RATIOS`; errors count as in
    its training, as those of the network F. Every other picture has a word, where it reads any."""
    width, height = prior.shape.usual_size
    shape = (count, prior.info.num_channels, height, width)
    clean = sample(prior, None, shape=shape, steps=_STEPS, generator=generator).clamp(-1, 1)
    ratios = torch.tensor(RATIOS)
    each = ratios.repeat_interleave(count)
    noise = torch.randn(len(each), *shape[1:], generator=generator)
    noisy = clean.repeat(len(ratios), 1, 1, 1) + each[:, None, None, None] * noise
    words = prior.shape.vocabulary
    drawn = torch.randint(max(len(words), 1), (len(each),), generator=generator).tolist()
    texts = [words[k] if i % 2 else "" for i, k in enumerate(drawn)] if words else None

    @torch.no_grad()
    def answer() -> Tensor:
        return prior.cleaned(noisy, each, texts).unflatten(0, (len(ratios), count))

    d = prior.shape.deviation
    return Questions(
        answer=answer, names=tuple(f"{ratio:g}" for ratio in RATIOS), peak=2.0,
        weights=(ratios.square() + d * d) / (ratios * d).square(),
    )  # fmt: skip


def repairing_questions(
    fixer: Fixer, pictures: Float[Tensor, "n 3 height width"], generator: torch.Generator
) -> Questions:
    """Of pictures 0..1 that are blurred and noised, beside the sharp ones moved by a few pixels."""
    small = functional.avg_pool2d(pictures, 2)
    blurred = functional.interpolate(small, size=pictures.shape[-2:], mode="bilinear")
    rgb = (blurred + 0.05 * torch.randn(blurred.shape, generator=generator)).clamp(0, 1)
    alpha = torch.ones_like(rgb[:, :1])
    moved = [torch.cat([pictures.roll((2 * i + 1, -i), (-2, -1)), alpha], dim=1)
             for i in range(fixer.shape.references)]  # fmt: skip
    references = torch.cat(moved, dim=1)

    @torch.no_grad()
    def answer() -> Tensor:
        return fixer(rgb, alpha, references).rgb[None]

    return Questions(answer=answer, names=("pictures",), weights=torch.ones(1), peak=1.0)


def layers_of(network: nn.Module) -> dict[str, np.ndarray]:
    """The tensors that are worth quantising: matrices and convolutions, not all alike; float32."""
    tensors = network.state_dict().items()
    return {n: v.cpu().float().numpy() for n, v in tensors if v.ndim > 1 and float(v.std()) > 0}


def sensitivities(network: nn.Module, questions: Questions) -> dict[str, Sensitivity]:
    """What a squared step of each layer adds to the weighted error of the answers."""
    wanted = questions.answer()
    found = {}
    for name, values in layers_of(network).items():
        spread = float(values.std())
        step = _TRIAL * spread
        with changed(network, {name: step * np.rint(values / step)}):
            error = float((questions.errors(wanted) * questions.weights).sum())
        found[name] = Sensitivity(weight=error / step**2, spread=spread, count=values.size)
    return found


def quantisers(
    layers: Mapping[str, np.ndarray],
    columns: Mapping[str, Sensitivity],
    bits: float,
    books: Codebooks | None = None,
) -> Quantisers:
    """Steps that share ``bits`` among the layers by their sensitivity; or codebooks that err as
    little."""
    shared = allocate_steps([columns[name] for name in layers], bits)
    steps = dict(zip(layers, shared, strict=True))
    if books is None:
        return steps
    return {name: books.of_error(name, step**2 / 12) for name, step in steps.items()}


class Codebooks:
    """The codebooks of layers, made when they are asked for."""

    def __init__(self, layers: Mapping[str, np.ndarray]) -> None:
        self.layers = layers
        self._made: dict[tuple[str, int], tuple[np.ndarray, float]] = {}

    def of_size(self, name: str, levels: int) -> np.ndarray:
        """[<= levels] values (Lloyd-Max)."""
        return self._book(name, levels)[0]

    def of_error(self, name: str, most: float) -> np.ndarray:
        """The smallest whose mean squared error is at most so much, or the largest."""
        for levels in _BOOKS:
            book, error = self._book(name, levels)
            if error <= most:
                break
        return book

    def _book(self, name: str, levels: int) -> tuple[np.ndarray, float]:
        if (name, levels) not in self._made:
            values = self.layers[name].ravel()
            book = lloyd_max(values, levels)
            error = float(np.square(book[quantise_codebook(values, book)] - values).mean())
            self._made[name, levels] = book, error
        return self._made[name, levels]


@contextmanager
def changed(network: nn.Module, tensors: Mapping[str, np.ndarray]) -> Iterator[None]:
    """The network with these tensors in place of its own, for a while."""
    own = network.state_dict()
    kept = {name: own[name].clone() for name in tensors}
    try:
        for name, values in tensors.items():
            own[name].copy_(torch.from_numpy(np.asarray(values, dtype=np.float32)))
        yield
    finally:
        for name, values in kept.items():
            own[name].copy_(values)


def coded_with(network: UnetPrior | Fixer, chosen: Quantisers) -> dict[str, bytes]:
    """The members of the network's file, with its layers quantised so."""
    tensors = {n: v.cpu().float().numpy() for n, v in network.state_dict().items()}
    return encode_network(tensors, chosen)


def psnr_of(
    network: UnetPrior | Fixer, members: Mapping[str, bytes], judged: Questions
) -> tuple[float, ...]:
    """dB, of the answers of the coded network against those of ``network``, at each level."""
    wanted = judged.answer()
    numbers = sum(value.numel() for value in network.state_dict().values())
    coded = decode_network(members, where=Path("memory"), most_values=numbers)
    with changed(network, coded):
        errors = judged.errors(wanted).clamp_min(1e-20)
    return tuple((20 * math.log10(judged.peak) - 10 * errors.log10()).tolist())


def compress(
    network: UnetPrior | Fixer,
    target_bytes: int,
    *,
    asked: Questions,
    judged: Questions,
    codebooks: bool = False,
) -> Compressed:
    """The best file of at most ``target_bytes``: bits are shared by what is ``asked``; ``judged``
    says how good it is. Raises :class:`UsageError` where it cannot be so small."""
    layers, columns = layers_of(network), sensitivities(network, asked)
    books = Codebooks(layers) if codebooks else None

    def chosen(bits: float) -> Quantisers:
        return quantisers(layers, columns, bits, books)

    bits, members = fitted(network, target_bytes, chosen)
    shared = allocate_steps([columns[name] for name in layers], bits)
    relative = [step / columns[n].spread for step, n in zip(shared, layers, strict=True)]
    packed = pack_coded(members, *network.header)
    numbers = sum(value.numel() for value in network.state_dict().values())
    return Compressed(
        packed=packed, bits=8 * len(packed) / numbers, steps=(min(relative), max(relative)),
        psnr=psnr_of(network, members, judged),
    )  # fmt: skip


def fitted(
    network: UnetPrior | Fixer, target_bytes: int, chosen: Callable[[float], Quantisers]
) -> tuple[float, dict[str, bytes]]:
    """The bits for :func:`quantisers`, and the members, of the largest file of at most
    ``target_bytes``. The entropy of the codes says where to look, and files how much comes to it.
    Raises :class:`UsageError` where the smallest is larger."""
    layers = layers_of(network)
    low, most = 0.0, _MOST_BITS * sum(values.size for values in layers.values())
    bits, members = low, coded_with(network, chosen(low))
    size = len(pack_coded(members, *network.header))
    if size > target_bytes:
        raise UsageError(f"the smallest file of this network has {size / 1000:.1f} KB",
                         fix="allow at least so many, or train a smaller network")  # fmt: skip
    aim = target_bytes - size + _entropy(layers, chosen(low))
    for _ in range(_TRIES):
        tried = _largest(lambda b: _entropy(layers, chosen(b)), aim, low, most)
        found = coded_with(network, chosen(tried))
        size = len(pack_coded(found, *network.header))
        aim = _entropy(layers, chosen(tried)) + _AIMED * target_bytes - size
        if size <= target_bytes and tried >= bits:
            bits, members = tried, found
            if size >= _NEAR * target_bytes or tried >= 0.999 * most:
                break
    return bits, members


def _entropy(layers: Mapping[str, np.ndarray], chosen: Quantisers) -> float:
    """Bytes that the layers' codes take at least, each layer's with its own frequencies."""
    total = 0.0
    for name, quantiser in chosen.items():
        codes = coded_column(name, layers[name], quantiser).codes
        counts = np.unique(codes, return_counts=True)[1]
        total -= float((counts * np.log2(counts / codes.size)).sum()) / 8
    return total


def _largest(size: Callable[[float], float], most: float, low: float, high: float) -> float:
    """Where a growing ``size`` is at most ``most``."""
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if size(middle) <= most else (low, middle)
    return low
