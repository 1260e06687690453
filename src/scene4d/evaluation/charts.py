"""Line charts as SVG text, coloured by the page's CSS variables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

Point = tuple[float, float]

WIDTH, HEIGHT = 520, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 26, 30
MAX_POINTS = 300
"""Longer curves are drawn as means of equal stretches; the page stays small."""
_TIME_STEPS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0)


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One curve and how its axes read."""

    title: str
    points: Sequence[Point]
    """In order of x; finite."""
    format_x: Callable[[float], str]
    format_y: Callable[[float], str]
    x_is_time: bool = False
    """x is in seconds: ticks fall on whole minutes or hours."""
    marks: Sequence[tuple[float, str]] = ()
    """Places along x that mean something, and what."""
    reference: tuple[float, str] | None = None
    """A value of y to compare with, and its name."""
    smooth: bool = False
    """Draw the running mean strongly and the values themselves faintly."""


def line_chart(chart: Chart) -> str:
    """The chart as an ``<svg>`` element; nothing for fewer than two points."""
    if len(chart.points) < 2:
        return ""
    points = thinned(chart.points)
    drawn = running_mean(points) if chart.smooth else points
    x_ticks = (time_ticks if chart.x_is_time else ticks)(points[0][0], points[-1][0], 5)
    y_ticks = ticks(*_y_range(chart, points), 4)
    xs, ys = (points[0][0], points[-1][0]), (y_ticks[0], y_ticks[-1])

    def place(point: Point) -> Point:
        across = (point[0] - xs[0]) / max(xs[1] - xs[0], 1e-12)
        up = min(1.0, max(0.0, (point[1] - ys[0]) / (ys[1] - ys[0])))
        return (
            _LEFT + across * (WIDTH - _LEFT - _RIGHT),
            HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM),
        )

    last = chart.format_y(drawn[-1][1])
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(chart.title)}, at the end {escape(last)}">',
        f'<text class="title" x="{_LEFT}" y="14">{escape(chart.title)}</text>',
        f'<text class="last" x="{WIDTH - _RIGHT}" y="14">{escape(last)}</text>',
        *_grid(chart, x_ticks, y_ticks, xs, place),
        *(_mark(place((x, 0.0))[0], text) for x, text in chart.marks),
    ]
    if chart.smooth:
        parts.append(_path("faint", map(place, points)))
    parts.append(_path("curve", map(place, drawn)))
    if chart.reference is not None:
        parts.append(_reference(place((0.0, chart.reference[0]))[1], chart.reference[1]))
    return "".join([*parts, "</svg>"])


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most 300 points, each the mean of a stretch of the curve; its ends stay."""
    if len(points) <= MAX_POINTS:
        return list(points)
    middle = points[1:-1]
    count = MAX_POINTS - 2
    edges = [i * len(middle) // count for i in range(count + 1)]
    stretches = (middle[a:b] for a, b in pairwise(edges))
    means = (
        (sum(p[0] for p in stretch) / len(stretch), sum(p[1] for p in stretch) / len(stretch))
        for stretch in stretches
    )
    return [points[0], *means, points[-1]]


def running_mean(points: Sequence[Point]) -> list[Point]:
    """Every value averaged with its neighbours, a thirtieth of the curve on each side."""
    reach = max(1, len(points) // 30)
    result = []
    for i, (x, _) in enumerate(points):
        window = points[max(0, i - reach) : i + reach + 1]
        result.append((x, sum(y for _, y in window) / len(window)))
    return result


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from at or below ``low`` to at or above ``high``, in steps of 1, 2 or 5."""
    span, size = high - low, max(abs(low), abs(high))
    if span <= max(1e-9 * size, 1e-300):  # a flat curve, up to rounding
        span = max(size, 1.0) * 0.1
    raw = span / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def time_ticks(low: float, high: float, about: int) -> list[float]:
    """Like :func:`ticks` for seconds: steps that people count in, up to hours."""
    raw = (high - low) / about
    step = next((s for s in _TIME_STEPS if s >= raw), None)
    if step is None:
        return [3600.0 * hours for hours in ticks(low / 3600.0, high / 3600.0, about)]
    return [i * step for i in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _y_range(chart: Chart, points: Sequence[Point]) -> tuple[float, float]:
    values = sorted(y for _, y in points)
    low, high = values[0], values[-1]
    if chart.smooth and low >= 0 and len(values) >= 20:
        # a loss's first steps would flatten all the rest: they are cut off at the top
        high = min(high, 2.0 * values[int(0.95 * (len(values) - 1))])
    if chart.reference is not None:
        low, high = min(low, chart.reference[0]), max(high, chart.reference[0])
    return low, high


def _grid(
    chart: Chart,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    xs: tuple[float, float],
    place: Callable[[Point], Point],
) -> list[str]:
    parts = []
    for value in y_ticks:
        y = place((xs[0], value))[1]
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        text = escape(chart.format_y(value))
        parts.append(f'<text class="y" x="{_LEFT - 6}" y="{y + 4:.1f}">{text}</text>')
    for value in x_ticks:
        if xs[0] <= value <= xs[1]:
            x = place((value, 0.0))[0]
            text = escape(chart.format_x(value))
            parts.append(f'<text class="x" x="{x:.1f}" y="{HEIGHT - 10}">{text}</text>')
    return parts


def _mark(x: float, text: str) -> str:
    near_the_end = x > WIDTH - 90
    anchor, shift = ("end", -4) if near_the_end else ("start", 4)
    return (
        f'<path class="mark" d="M{x:.1f} {_TOP}V{HEIGHT - _BOTTOM}"/>'
        f'<text class="note" text-anchor="{anchor}" x="{x + shift:.1f}" '
        f'y="{HEIGHT - _BOTTOM - 6}">{escape(text)}</text>'
    )


def _reference(y: float, text: str) -> str:
    above = y - 6 if y > _TOP + 14 else y + 14
    return (
        f'<path class="reference" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>'
        f'<text class="note" x="{_LEFT + 6}" y="{above:.1f}">{escape(text)}</text>'
    )


def _path(name: str, points: object) -> str:
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)  # type: ignore[attr-defined]
    return f'<path class="{name}" d="M{line}"/>'
