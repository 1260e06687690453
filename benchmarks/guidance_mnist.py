"""Pictures of digits, optimised by every score loss: ``python benchmarks/guidance.py mnist``.

The prior is a small diffusion model of handwritten digits without texts (Yichizz/hot_vs_cold,
MIT). It is told texts, "0" to "9", by Bayes' rule: x0_y = x0 + (what the pictures of that digit
say) - (what all say), both exact denoisers of MNIST's test pictures.
"""

from __future__ import annotations

import argparse
import gzip
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional

from scene4d.priors.patch_memory import PatchMemory
from scene4d.priors.prior import NOTHING, Condition, Prior, PriorInfo, broadcast
from scene4d.priors.recipes import recipe
from scene4d.priors.score_loss import Role
from scene4d.priors.scores import Asked, score_gradient

_SIDE = 28
_GREY = ("depth",)  # the kind of channels that has one


class DigitsPrior(Prior):
    """The diffusion model; pictures are -0.5..0.5."""

    def __init__(self, weights: Mapping[str, Tensor], pictures: Tensor, labels: Tensor) -> None:
        super().__init__()
        w = {name.removeprefix("gt."): value for name, value in weights.items()}
        self.weights = w
        self.ratios = ((1 - w["alpha_t"][1:]) / w["alpha_t"][1:]).sqrt()
        self.info = PriorInfo(
            channels=_GREY, value_range=(-0.5, 0.5), conditions=frozenset({"text"}),
            ratios=(float(self.ratios[0]), float(self.ratios[-1])), size=(_SIDE, _SIDE),
        )  # fmt: skip
        self.all = PatchMemory(pictures, channels=_GREY)
        self.all.info = replace(self.info, conditions=frozenset())
        self.digits = nn.ModuleList(
            PatchMemory(pictures[labels == digit], channels=_GREY) for digit in range(10)
        )

    def denoise(self, x_t, alpha, sigma, condition: Condition = NOTHING):
        ratios = (sigma / alpha).float()
        # the continuous step whose noise this is
        after = torch.searchsorted(self.ratios, ratios).clamp(1, len(self.ratios) - 1)
        before = self.ratios[after - 1]
        step = after + (ratios - before) / (self.ratios[after] - before)
        scale = broadcast((1 + ratios.square()).rsqrt() / alpha, x_t)  # alpha^2 + sigma^2 = 1
        noise = self._network(x_t * scale, step.clamp(1, 1000) / 1000)
        x0 = (x_t - broadcast(sigma, x_t) * noise) / broadcast(alpha, x_t)
        if condition.text is None:
            return x0
        told = self.digits[int(condition.text)]
        return x0 + told.denoise(x_t, alpha, sigma) - self.all.denoise(x_t, alpha, sigma)

    def _network(self, x: Tensor, t: Tensor) -> Tensor:
        w = self.weights
        angles = t[:, None] * w["frequencies"]
        told = torch.cat([angles.sin(), angles.cos() - 1], dim=1)
        for layer in (0, 2, 4, 6):
            told = functional.linear(
                told, w[f"time_embed.{layer}.weight"], w[f"time_embed.{layer}.bias"]
            )
            told = functional.gelu(told) if layer < 6 else told
        for block in range(4):
            name = f"blocks.{block}.net"
            x = functional.conv2d(x, w[f"{name}.0.weight"], w[f"{name}.0.bias"], padding=3)
            shape = x.shape[1:]
            x = functional.layer_norm(x, shape, w[f"{name}.1.weight"], w[f"{name}.1.bias"])
            x = functional.gelu(x)
            if block == 0:
                x = x + told[..., None, None]
        return functional.conv2d(x, w["blocks.4.weight"], w["blocks.4.bias"], padding=1)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the sheet."""

    loss: str
    scale: float = 1.0
    text: str | None = None
    now: str | None = None
    """The digit of the pictures that it starts from; None: noise."""
    negative: str | None = None
    noise: float = 0.5
    """Standard deviation of the noise about grey that it starts from; that of digits is 0.31."""
    exact: bool = False
    """Asks the exact denoiser of the test pictures in place of the diffusion model."""

    @property
    def name(self) -> str:
        told = "" if self.text is None else f" '{self.text}'"
        told += "" if self.negative is None else f" not '{self.negative}'"
        told += "" if self.scale == 1 else f" k={self.scale:g}"
        told += "" if self.noise == 0.5 else " from grey"
        told += ", exact" if self.exact else ""
        return self.loss + told + ("" if self.now is None else f" from '{self.now}'")


ROWS = [
    *(Row(loss=name) for name in ("sds", "hifa", "sdi", "ism", "vsd", "dmd", "asd", "prd")),
    Row(loss="sds", text="3"), Row(loss="sds", text="3", scale=7.5), Row(loss="csd", text="3"),
    Row(loss="nfsd", text="3", scale=7.5, negative="8"),
    *(Row(loss=name, noise=0.05) for name in ("sdi", "ism")),
    Row(loss="dds", text="8", now="3", scale=7.5), Row(loss="bridge", text="8", now="3"),
    *(Row(loss=name, noise=0.05, exact=True) for name in ("sdi", "ism")),
]  # fmt: skip
"""All losses but ``fixer``, which wants one. Those of two texts start from real digits."""


def read_digits(folder: Path) -> tuple[Tensor, Tensor]:
    """Pictures [n, 1, 28, 28] of -0.5..0.5, and their digits."""
    pictures = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())
    values = np.frombuffer(pictures, np.uint8, offset=16).reshape(-1, 1, _SIDE, _SIDE)
    digits = np.frombuffer(labels, np.uint8, offset=8)
    return torch.from_numpy(values / np.float32(255) - 0.5), torch.from_numpy(digits.copy())


def optimised(
    row: Row, prior: DigitsPrior, pictures: Tensor, labels: Tensor, arguments: argparse.Namespace
) -> Tensor:
    """``--count`` pictures after ``--steps`` steps of Adam."""
    generator = torch.Generator().manual_seed(arguments.seed)
    count = arguments.count
    if row.now is None:
        x = row.noise * torch.randn(count, 1, _SIDE, _SIDE, generator=generator)
    else:
        x = pictures[labels == int(row.now)][:count].clone()
    texts: dict[Role, str] = {} if row.text is None else {"y": row.text}
    told: dict[Role, str] = {}
    if row.negative is not None:
        texts["negative"] = row.negative
    if row.now is not None:
        texts["now"], told["y"] = row.now, row.now
    start, loss = x.clone(), recipe(row.loss, row.scale)
    x.requires_grad_()
    adam = torch.optim.Adam([x], lr=arguments.lr)
    for step in range(arguments.steps):
        second = None
        if loss.against == "second":  # exactly what there is now
            second = PatchMemory(x.detach().clone(), channels=_GREY)
        asked = Asked(prior=prior, texts=texts, path="ddpm", second=second, reference=start,
                      reference_texts=told)  # fmt: skip
        if row.exact:
            asked = replace(asked, prior=prior.all)
        done = step / arguments.steps
        x.grad = score_gradient(
            loss, asked, x.detach(), generator=generator, progress=done
        ).gradient
        adam.param_groups[0]["lr"] = arguments.lr * (1 - done)
        adam.step()
    return x.detach()


def sheet(rows: Mapping[str, Tensor], scale: int = 2, margin: int = 140) -> Image.Image:
    """Pictures with the name of each row before them."""
    height, count = scale * _SIDE, max(map(len, rows.values()))
    made = Image.new("L", (margin + count * height, len(rows) * height), 255)
    draw = ImageDraw.Draw(made)
    for number, (name, pictures) in enumerate(rows.items()):
        draw.text((4, number * height + height // 2 - 6), name, fill=0)
        whole = torch.cat(list(pictures[:, 0]), dim=1).add(0.5).clamp(0, 1).mul(255).byte()
        image = Image.fromarray(whole.numpy())
        image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
        made.paste(image, (margin, number * height))
    return made


def main(arguments: argparse.Namespace) -> None:
    pictures, labels = read_digits(arguments.digits)
    with np.load(arguments.model, allow_pickle=False) as arrays:
        weights = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    prior = DigitsPrior(weights, pictures, labels).requires_grad_(False)
    real = pictures[: arguments.count]
    found = {"real": real}
    print("distance to the nearest of the test pictures, root mean square of -0.5..0.5, and which "
          "digits these are")  # fmt: skip
    for row in ROWS:
        if arguments.losses and row.loss not in arguments.losses:
            continue
        made = found[row.name] = optimised(row, prior, pictures, labels, arguments)
        apart = torch.cdist(made.clamp(-0.5, 0.5).flatten(1), pictures.flatten(1)) / _SIDE
        near = apart.min(dim=1)
        digits = " ".join(str(int(d)) for d in labels[near.indices])
        print(f"{row.name}: {float(near.values.mean()):.3f} ({digits})", flush=True)
        sheet(found).save(arguments.output_path)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path)
    parser.add_argument("digits", type=Path)
    parser.add_argument("--output-path", type=Path, default=Path("mnist.png"))
    parser.add_argument("--losses", nargs="*", default=[])
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=0.03)
    parser.add_argument("--seed", type=int, default=0)
