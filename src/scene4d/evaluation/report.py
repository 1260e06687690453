"""The report of a run: one HTML file that needs nothing else, readable anywhere."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from scene4d.errors import DataError
from scene4d.evaluation.charts import Chart, line_chart
from scene4d.evaluation.pictures import ERROR_AT_TOP
from scene4d.files import is_regular_file, path_inside, read_bytes, read_json, write_text
from scene4d.image_files import open_picture
from scene4d.toml_files import read_toml

PICTURE_BUDGET = 2_000_000
"""Bytes of HTML for pictures; with the rest the report stays below 3 MB."""
PICTURE_WIDTH = 1440
MAX_PICTURES = 24
_MOST_METRICS = 1 << 28
"""Bytes of a metrics.jsonl: a line has some 300, every tenth step one."""
_STYLE = Path(__file__).with_name("report.css")

Run = Mapping[str, Any]

_DYNAMIC_TILES = (
    ("mPSNR, covisible", "mpsnr", "{:.2f} dB"),
    ("mPSNR, moving", "mpsnr_moving", "{:.2f} dB"),
    ("mPSNR, still", "mpsnr_still", "{:.2f} dB"),
    ("mLPIPS, covisible", "mlpips", "{:.4f}"),
    ("PCK-T", "pck_t", "{:.3f}"),
    ("3D error of tracks", "epe_median", "{:.3g}"),
    ("flicker", "flicker", "{:.2f}"),
    ("omega", "omega_deg_per_s", "{:.3g} deg/s"),
    ("mPSNR, fitted poses", "mpsnr_fitted", "{:.2f} dB"),
)
"""Of a scene that moves: title, name in eval.json, form."""
_COLUMNS = (
    ("PSNR, dB", "psnr", "{:.2f}"),
    ("SSIM", "ssim", "{:.4f}"),
    ("LPIPS", "lpips", "{:.4f}"),
    ("render, s", "seconds", "{:.3f}"),
)
_MASKED_COLUMNS = (
    ("mPSNR, dB", "mpsnr", "{:.2f}"),
    ("moving, dB", "mpsnr_moving", "{:.2f}"),
    ("still, dB", "mpsnr_still", "{:.2f}"),
    ("covisible", "covisible_share", "{:.0%}"),
)


def write_report(run: Path, *, defaults: Mapping[str, Any] | None = None) -> Path:
    """Writes ``report.html`` in a run folder from what lies there, and returns its path.

    Read are ``metrics.jsonl``, ``eval.json`` with its pictures, and ``config.toml``; what is
    missing is left out, and :class:`DataError` is raised when there is neither of the first two.
    ``defaults``: tables laid out as in config.toml; given them, only options that differ are
    shown, otherwise all. No script, no external resource.
    """
    metrics, evaluation = _read_metrics(run / "metrics.jsonl"), _read_evaluation(run)
    if not metrics and not evaluation:
        raise DataError(
            "has neither metrics.jsonl nor eval.json to report on",
            where=run,
            fix="train first, then 'scene4d eval RUN'",
        )
    options = run / "config.toml"
    config = read_toml(options) if options.is_file() else {}
    title = " · ".join(
        str(part)
        for part in (
            evaluation.get("experiment_name") or run.resolve().parent.parent.name,
            evaluation.get("method_name") or config.get("method") or run.resolve().parent.name,
            run.resolve().name,
        )
        if part
    )
    sections = [
        _tiles(metrics, evaluation),
        _curves(metrics, evaluation),
        _pictures(run, evaluation),
        _table(evaluation),
        _options(config, defaults),
        _provenance(evaluation),
    ]
    path = run / "report.html"
    write_text(path, html_page(title, sections))
    return path


def html_page(title: str, sections: Sequence[str]) -> str:
    """A whole page in the style of reports; ``sections`` are HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE.read_text(encoding='utf-8')}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{''.join(sections)}</main></body></html>\n"
    )


def tile_list(tiles: Sequence[tuple[str, str]]) -> str:
    """Figures with their names; those without a value are left out."""
    cells = (
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in tiles
        if value
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def test_pictures(run: Path) -> str:
    """Photograph, render and error of some held-out pictures of an evaluated run, as HTML; empty
    where it has none."""
    return _pictures(run, _read_evaluation(run))


def _read_metrics(path: Path) -> list[dict[str, float]]:
    """Whole lines only; a line that a kill cut off, or that is no object, is passed over."""
    if not path.is_file():
        return []
    rows = []
    for line in read_bytes(path, most_bytes=_MOST_METRICS).splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and _is_number(row.get("step")):
            rows.append({name: value for name, value in row.items() if _is_number(value)})
    return rows


def _read_evaluation(run: Path) -> dict[str, Any]:
    path = run / "eval.json"
    if not path.is_file():
        return {}
    value = read_json(path)
    if not isinstance(value, dict) or not isinstance(value.get("results"), dict):
        raise DataError("is not an evaluation: it has no 'results'", where=path)
    return value


def _tiles(metrics: Sequence[Mapping[str, float]], evaluation: Run) -> str:
    """The figures one asks for first."""
    results = evaluation.get("results", {})
    last = metrics[-1] if metrics else {}
    tiles = [
        ("PSNR, test", _number(results.get("psnr"), "{:.2f} dB")),
        ("SSIM, test", _number(results.get("ssim"), "{:.4f}")),
        ("LPIPS, test", _number(results.get("lpips"), "{:.4f}")),
        ("render", _number(results.get("seconds_per_image"), "{:.3g} s")),
        ("steps", _number(evaluation.get("step") or last.get("step"), "{:,.0f}")),
        ("training", _duration(last["seconds"]) if "seconds" in last else ""),
    ]
    tiles += [
        (name.removeprefix("num_").replace("_", " "), f"{value:,.0f}")
        for name, value in last.items()
        if name.startswith("num_")
    ]
    tiles += [(name, _number(results.get(key), form)) for name, key, form in _DYNAMIC_TILES]
    return tile_list(tiles)


def _curves(metrics: Sequence[Mapping[str, float]], evaluation: Run) -> str:
    """Loss, PSNR and counts, over steps and over seconds."""
    counts = sorted({name for row in metrics for name in row if name.startswith("num_")})
    test_psnr = evaluation.get("results", {}).get("psnr")
    charts = []
    for name in ("loss", "psnr", *counts):
        for axis, format_x in (("step", _short), ("seconds", _duration)):
            chart = _curve(metrics, name, axis, format_x, test_psnr)
            charts.append(line_chart(chart))
    drawn = "".join(f"<figure>{svg}</figure>" for svg in charts if svg)
    if not drawn:
        return ""
    note = (
        "Each over steps, then over the time of training. Loss and PSNR are those of the training "
        "views of each step at the size it trained on (dotted lines: the width in pixels changes); "
        "the strong line is a running mean."
    )
    return f'<h2>Training</h2><p>{note}</p><div class="charts">{drawn}</div>'


def _curve(
    metrics: Sequence[Mapping[str, float]],
    name: str,
    axis: str,
    format_x: Callable[[float], str],
    test_psnr: object,
) -> Chart:
    points = [(float(r[axis]), float(r[name])) for r in metrics if axis in r and name in r]
    points.sort(key=lambda point: point[0])
    marks, width = [], None
    for row in metrics:
        if axis in row and row.get("image_width", width) != width:
            if width is not None and name in ("loss", "psnr"):
                marks.append((float(row[axis]), f"{row['image_width']:.0f} px"))
            width = row["image_width"]
    titles = {"loss": "Loss", "psnr": "PSNR of training views, dB"}
    readable = name.removeprefix("num_").replace("_", " ")
    reference = None
    if name == "psnr" and _is_number(test_psnr):
        reference = (float(test_psnr), f"test {test_psnr:.2f}")  # type: ignore[arg-type, str-format]
    return Chart(
        title=titles.get(name, f"Number of {readable}"),
        points=points,
        format_x=format_x,
        x_is_time=axis == "seconds",
        format_y=_short,
        marks=marks,
        reference=reference,
        smooth=name in titles,
    )


def _pictures(run: Path, evaluation: Run) -> str:
    """The worst, the best and others in between, as many as fit."""
    images = [i for i in _per_image(evaluation) if i.get("picture")]
    figures, size, shown = [], 0, 0
    for image in _spread(sorted(images, key=lambda i: i["psnr"]), MAX_PICTURES):
        encoded = _jpeg(path_inside(run, str(image["picture"])))
        if encoded is None or size + len(encoded) > PICTURE_BUDGET:
            continue
        size, shown = size + len(encoded), shown + 1
        caption = f"<b>{escape(str(image['name']))}</b> {escape(_figures(image))}"
        figures.append(
            (
                image["psnr"],
                f'<figure><img alt="photograph, render and error of {escape(str(image["name"]))}" '
                f'src="data:image/jpeg;base64,{encoded}"><figcaption>{caption}</figcaption></figure>',
            )
        )
    if not figures:
        return ""
    left_out = f" {len(images) - shown} more in images/." if shown < len(images) else ""
    note = (
        "Photograph, render, error (mean absolute difference of the channels, black 0 to pale "
        f"yellow {ERROR_AT_TOP}; grey: masked). Worst first.{left_out}"
    )
    ordered = (html for _, html in sorted(figures, key=lambda f: f[0]))
    return f'<h2>Test images</h2><p>{note}</p><div class="pictures">{"".join(ordered)}</div>'


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    """The ends first, then ever finer in between, so that any first part covers the range."""
    order: list[int] = []
    last = len(items) - 1
    parts = 1
    while len(order) < min(count, len(items)):
        for i in range(parts + 1):
            index = round(i * last / parts) if last > 0 else 0
            if index not in order:
                order.append(index)
        parts *= 2
    return [items[i] for i in order[:count]]


def _jpeg(path: Path) -> str | None:
    """A picture as base64 JPEG, shrunk to a width for reading; None where it is gone."""
    from PIL import Image

    if not is_regular_file(path):
        return None
    with open_picture(path) as image:
        picture = image.convert("RGB")
    if picture.width > PICTURE_WIDTH:
        height = round(picture.height * PICTURE_WIDTH / picture.width)
        picture = picture.resize((PICTURE_WIDTH, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _table(evaluation: Run) -> str:
    images = _per_image(evaluation)
    if not images:
        return ""
    # of scenes that stand still, or where nothing is known, these columns would be empty
    masked = [column for column in _MASKED_COLUMNS if any(column[1] in image for image in images)]
    columns = [*_COLUMNS, *masked]
    rows = "".join(
        f"<tr><th scope=row>{escape(str(image['name']))}</th>"
        + "".join(f"<td>{escape(_number(image.get(key), form))}</td>" for _, key, form in columns)
        + "</tr>"
        for image in images
    )
    head = "".join(f"<th>{name}</th>" for name in ("image", *(c[0] for c in columns)))
    return (
        f"<h2>Every test image</h2><div class=scroll><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _options(config: Run, defaults: Mapping[str, Any] | None) -> str:
    """The options that differ from ``defaults``; all of them, folded away, without defaults."""
    flat = _flat({k: v for k, v in config.items() if k != "data"})
    if not flat:
        return ""
    if defaults is None:
        table = text_table(("option", "value"), list(flat.items()))
        return f"<details><summary>Options</summary>{table}</details>"
    standard = _flat(defaults)
    rows = [
        (name, value, standard[name])
        for name, value in flat.items()
        if name in standard and standard[name] != value
    ]
    table = text_table(("option", "value", "default"), rows) if rows else "<p>None.</p>"
    return f"<h2>Options that differ from their defaults</h2>{table}"


def text_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text, as HTML."""
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        "<div class=scroll><table class=words>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _provenance(evaluation: Run) -> str:
    facts = _flat({"machine": evaluation.get("machine", {})})
    split = evaluation.get("split", {})
    if isinstance(split, dict) and split:
        facts["split"] = str(split.get("rule", ""))
        facts["training images"] = str(len(_list(split, "train")))
        facts["test images"] = str(len(_list(split, "test")))
    facts["checkpoint"] = str(evaluation.get("checkpoint", ""))
    facts.update(_flat({"metric": evaluation.get("metrics", {})}))
    rows = [(name.replace(".", ", "), value) for name, value in facts.items() if value]
    if not rows:
        return ""
    return f"<h2>How it was measured</h2>{text_table(('what', 'how'), rows)}"


def _per_image(evaluation: Run) -> list[dict[str, Any]]:
    images = _list(evaluation, "per_image")
    return [i for i in images if isinstance(i, dict) and "name" in i and _is_number(i.get("psnr"))]


def _list(table: Mapping[str, Any], name: str) -> list[Any]:
    """The list of that name; an empty one where a file has something else."""
    value = table.get(name)
    return value if isinstance(value, list) else []


def _figures(image: Mapping[str, Any]) -> str:
    parts = [
        _number(image.get("psnr"), "{:.2f} dB"),
        _number(image.get("ssim"), "SSIM {:.4f}"),
        _number(image.get("lpips"), "LPIPS {:.4f}"),
    ]
    return ", ".join(part for part in parts if part)


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested tables as ``a.b.c`` to text."""
    flat: dict[str, str] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            listed = isinstance(value, (list, tuple))
            flat[prefix + name] = ", ".join(map(str, value)) if listed else str(value)
    return flat


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def _number(value: object, form: str) -> str:
    return form.format(value) if _is_number(value) else ""


def _short(value: float) -> str:
    """1.2M, 35k, 0.05."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"


def _duration(seconds: float) -> str:
    """1h02m, 3m05s or 12s."""
    total = round(seconds)
    if total >= 3600:
        return f"{total // 3600}h{total % 3600 // 60:02d}m"
    return f"{total // 60}m{total % 60:02d}s" if total >= 60 else f"{total}s"
