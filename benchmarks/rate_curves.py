"""Curves of size against quality: what one saves of another, and a picture of several.

The Bjontegaard rate difference (Bjontegaard, "Calculation of average PSNR differences between
RD-curves", VCEG-M33, 2001): the logarithm of the size as a function of the quality, integrated over
the qualities that both curves reach. Piecewise cubic interpolation (PCHIP) in place of the paper's
one polynomial, which swings between points that lie far apart.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.interpolate import PchipInterpolator

Point = tuple[float, float]
"""MB and dB."""
COLOURS = ("#0b6e4f", "#c1121f", "#1d4e89", "#e09f3e", "#6a4c93", "#777777", "#00a6a6", "#d16ba5")
"""In the order in which names come; of more than these, again from the first."""


class RateDifference(NamedTuple):
    """What a curve takes more or less than another at equal quality."""

    share: float
    """-0.5: half the size; the mean of the logarithms over the range."""
    low: float
    high: float
    """dB between which both curves lie, and the mean is taken."""


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no smaller or equal one is as good as, in order of size."""
    kept: list[Point] = []
    for size, quality in sorted(points, key=lambda p: (p[0], -p[1])):
        if not kept or quality > kept[-1][1]:
            kept.append((size, quality))
    return kept


def rate_difference(anchor: Sequence[Point], tested: Sequence[Point]) -> RateDifference:
    """The mean saving of ``tested`` in size, over the qualities that both reach.

    Points that a smaller one is as good as are left out first, as nobody would take them. Raises
    ValueError where fewer than two points are left of a curve, or no quality is on both.
    """
    curves = [front(anchor), front(tested)]
    if min(map(len, curves)) < 2:
        raise ValueError("a curve needs two points of which the larger is the better")
    low = max(curve[0][1] for curve in curves)
    high = min(curve[-1][1] for curve in curves)
    if low >= high:
        raise ValueError(f"no quality is on both curves: one ends at {high:g} dB, one begins at"
                         f" {low:g} dB")  # fmt: skip
    means = [_log_size(curve).integrate(low, high) / (high - low) for curve in curves]
    return RateDifference(share=math.exp(means[1] - means[0]) - 1, low=low, high=high)


def _log_size(curve: Sequence[Point]) -> PchipInterpolator:
    sizes, qualities = np.array(curve, np.float64).T
    return PchipInterpolator(qualities, np.log(sizes))


def picture(
    panels: Mapping[str, Mapping[str, Sequence[Point]]],
    *,
    size: tuple[int, int] = (420, 300),
    across_in: str = "MB",
) -> Image.Image:
    """The curves by name, a panel for each scene side by side: MB, or what ``across_in`` says
    (logarithmic) across, dB up."""
    width, height = size
    image = Image.new("RGB", (width * len(panels), height + 24), "white")
    draw = ImageDraw.Draw(image)
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    colours = dict(zip(names, itertools.cycle(COLOURS), strict=False))
    for number, (title, curves) in enumerate(panels.items()):
        _panel(draw, (number * width, 0, width, height), title, curves, colours, across_in)
    across = 50
    for name, colour in colours.items():
        draw.line([(across, height + 10), (across + 18, height + 10)], fill=colour, width=3)
        draw.text((across + 24, height + 3), name, fill="black", font=_font())
        across += 50 + round(draw.textlength(name, font=_font()))
    return image


def _panel(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int, int, int],
    title: str,
    curves: Mapping[str, Sequence[Point]],
    colours: Mapping[str, str],
    across_in: str,
) -> None:
    left, top, width, height = place
    x0, x1, y0, y1 = left + 50, left + width - 12, top + height - 34, top + 26
    points = np.array([p for curve in curves.values() for p in curve])
    (least, lowest), (most, highest) = points.min(axis=0), points.max(axis=0)
    lowest, highest = math.floor(lowest), math.ceil(highest)

    def at(point: Point) -> Point:
        across = math.log(point[0] / least) / max(math.log(most / least), 1e-9)
        return x0 + across * (x1 - x0), y0 + (point[1] - lowest) / (highest - lowest) * (y1 - y0)

    draw.text((x0, top + 6), title, fill="black", font=_font())
    for quality in range(lowest, highest + 1, max(1, (highest - lowest) // 6)):
        y = at((least, quality))[1]
        draw.line([(x0, y), (x1, y)], fill="#dddddd")
        draw.text((left + 8, y - 7), f"{quality} dB", fill="black", font=_font())
    for tick in (m * 10.0**e for e in range(-4, 4) for m in (1, 2, 5)):
        if least <= tick <= most:
            x = at((tick, lowest))[0]
            draw.line([(x, y0), (x, y1)], fill="#dddddd")
            draw.text((x - 8, y0 + 6), f"{tick:g}", fill="black", font=_font())
    draw.text((x1, y0 + 18), across_in, fill="black", font=_font(), anchor="ra")
    for name, curve in curves.items():
        drawn = [at(point) for point in sorted(curve)]
        draw.line(drawn, fill=colours[name], width=2)
        for x, y in drawn:
            draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=colours[name])


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=12)


def write_picture(
    path: Path, panels: Mapping[str, Mapping[str, Sequence[Point]]], *, across_in: str = "MB"
) -> None:
    """The picture as a file of at most 64 colours."""
    picture(panels, across_in=across_in).quantize(64).save(path, optimize=True)
