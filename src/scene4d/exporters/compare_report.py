"""The comparison of formats as a table of text and as a page with a plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scene4d.exporters.compare import FormatCost

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 400, 60, 120, 24, 46


def as_table(costs: Sequence[FormatCost]) -> str:
    """A line per format, columns aligned."""
    with_photos = any(cost.psnr_to_photos is not None for cost in costs)
    rows = [_cells(None, with_photos), *(_cells(cost, with_photos) for cost in costs)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _cells(cost: FormatCost | None, with_photos: bool) -> list[str]:
    if cost is None:
        names = ["format", "MB", "bytes/splat", "dB to original", "write s", "read s"]
        return names + (["dB to photos", "dB lost"] if with_photos else [])
    cells = [
        cost.name,
        f"{cost.bytes / 1e6:.3f}",
        f"{cost.bytes_per_splat:.2f}",
        f"{cost.psnr_to_original:.2f}",
        f"{cost.write_seconds:.2f}",
        f"{cost.read_seconds:.2f}",
    ]
    if with_photos and cost.psnr_to_photos is not None and cost.photo_loss is not None:
        cells += [f"{cost.psnr_to_photos:.3f}", f"{cost.photo_loss:.3f}"]
    return cells


def as_page(title: str, costs: Sequence[FormatCost]) -> str:
    """A page of its own: the plot, the table, and what the figures are."""
    with_photos = any(cost.psnr_to_photos is not None for cost in costs)
    rows = [_cells(None, with_photos), *(_cells(cost, with_photos) for cost in costs)]
    body = "".join(
        "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"
        for tag, row in (("th" if i == 0 else "td", row) for i, row in enumerate(rows))
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>"
        f"{plot(costs)}<table>{body}</table>"
        "<p>PSNR of renders clamped to 0..1, not quantised, mean over views; equal pictures count"
        " as 100 dB. MB are 10<sup>6</sup> bytes.</p></html>\n"
    )


def plot(costs: Sequence[FormatCost]) -> str:
    """MB (logarithmic) against PSNR to the original's renders, as SVG; up to 80 dB, above which
    pictures are equal to any eye."""
    if not costs:
        return ""
    sizes = [math.log10(max(cost.bytes, 1) / 1e6) for cost in costs]
    values = [min(cost.psnr_to_original, 80.0) for cost in costs]
    left, right = min(sizes) - 0.1, max(sizes) + 0.1
    low, high = 5 * math.floor(min(values) / 5), 5 * math.ceil(max(values) / 5 + 0.01)

    def place(size: float, value: float) -> tuple[float, float]:
        across = (size - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)
        return _LEFT + across, _HEIGHT - _BOTTOM - (value - low) / (high - low) * (
            _HEIGHT - _TOP - _BOTTOM
        )

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="MB against PSNR">']
    for level in range(low, high + 1, 5 if high - low <= 40 else 10):
        y = place(left, level)[1]
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{level}</text>')
    for tick in (m * 10.0**e for e in range(-3, 5) for m in (1, 2, 5)):
        if left <= math.log10(tick) <= right:
            x = place(math.log10(tick), low)[0]
            parts.append(
                f'<text x="{x:.1f}" y="{_HEIGHT - 26}" text-anchor="middle">{tick:g}</text>'
            )
    parts.append(f'<text x="{_LEFT}" y="{_HEIGHT - 6}">MB, logarithmic</text>')
    parts.append(f'<text x="{_LEFT}" y="14">PSNR to the original, dB</text>')
    for cost, size, value in zip(costs, sizes, values, strict=True):
        x, y = place(size, value)
        label = escape(cost.name)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
        parts.append(f'<text class="name" x="{x + 9:.1f}" y="{y + 4:.1f}">{label}</text>')
    return "".join([*parts, "</svg>"])


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 800px; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }
svg { width: 100%; font-size: 12px; fill: #555 } .grid { stroke: #ddd } circle { fill: #2563eb }
.name { fill: #222 } table { border-collapse: collapse; width: 100% }
th, td { text-align: right; padding: .25rem .5rem; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #161616 } svg { fill: #aaa }
  .grid { stroke: #333 } circle { fill: #7aa7ff } .name { fill: #ddd }
  th, td { border-color: #333 } }
"""
