"""The page at the end: what was made, with pictures, figures and sizes, or why it was not."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from scene4d.evaluation.report import html_page, test_pictures, text_table, tile_list
from scene4d.files import read_bytes, write_text
from scene4d.pipeline.plan import Plan
from scene4d.pipeline.stage import Done
from scene4d.training.log import duration

REPORT = "report.html"
_IMAGE = (
    '<figure style="max-width:{width}px;margin-bottom:10px">'
    '<img alt="{what}" style="display:block;width:100%"'
    ' src="data:image/webp;base64,{data}"></figure>'
)


def write_page(out: Path, plan: Plan, done: Mapping[str, Done], commands: Sequence[str]) -> Path:
    """Writes ``report.html`` in ``out``: one file that needs nothing else."""
    sections = [
        _poster(done),
        *(f"<p>{escape(line)}</p>" for line in caveats(done)),
        tile_list(figures(done)),
        "<h2>Next</h2>" + "".join(f"<pre>{escape(command)}</pre>" for command in commands),
        _links(out, done),
        f"<h2>How it was made</h2><p>From {escape(plan.source.facts)}, {escape(plan.source.name)}."
        "</p>" + text_table(("stage", "what", "time", "result"), _rows(plan, done)),
        *(f"<p>{escape(note)}</p>" for note in plan.notes),
        _diagnosis(done),
        _pictures(done),
    ]
    path = out / REPORT
    write_text(path, html_page(plan.source.name, sections))
    return path


def write_failure_page(out: Path, plan: Plan, diagnosis: Mapping[str, Any]) -> Path:
    """The page where no poses were found: what ``diagnosis`` (of process-data) says."""

    def listed(name: str) -> list[str]:
        value = diagnosis.get(name)
        return [str(entry) for entry in value] if isinstance(value, list) else []

    left = diagnosis.get("left_out")
    rows = [
        (str(entry.get("name", "")), str(entry.get("reason", "")), str(entry.get("detail", "")))
        for entry in (left if isinstance(left, list) else [])
        if isinstance(entry, dict)
    ]
    advice = "".join(f"<li>{escape(line)}</li>" for line in listed("advice"))
    sections = [
        tile_list([
            ("pictures", str(diagnosis.get("num_images", ""))),
            ("with a pose", str(diagnosis.get("num_registered", ""))),
        ]),
        f"<h2>No camera poses could be found</h2><p>{escape(str(diagnosis.get('reason', '')))}</p>",
        f"<h2>What to do next</h2><ul>{advice}</ul>" if advice else "",
        *(f"<p>{escape(line)}</p>" for line in listed("findings")),
        "<h2>What was tried</h2>" + text_table(("attempt",), [[a] for a in listed("attempts")])
        if listed("attempts") else "",
        "<h2>Pictures left out</h2>" + text_table(("picture", "reason", "detail"), rows)
        if rows else "",
    ]  # fmt: skip
    path = out / REPORT
    write_text(path, html_page(plan.source.name, sections))
    return path


def figures(done: Mapping[str, Done]) -> list[tuple[str, str]]:
    """The figures one asks for first, by name, as text; empty where there is none."""
    train, bundle = (done[n].results if n in done else {} for n in ("train", "bundle"))
    views = str(bundle.get("against", "photographs"))
    views = "held-out photographs" if views == "photographs" else views
    lost = None
    if _is_number(bundle.get("psnr_before")) and _is_number(bundle.get("psnr")):
        lost = float(bundle["psnr_before"]) - float(bundle["psnr"])
    return [
        (f"PSNR of the bundle, {views}", _formatted(bundle.get("psnr"), "{:.2f} dB")),
        ("PSNR of the training", _formatted(train.get("psnr"), "{:.2f} dB")),
        ("SSIM of the training", _formatted(train.get("ssim"), "{:.4f}")),
        ("lost by compression", _formatted(lost, "{:.2f} dB")),
        ("bundle", _formatted(bundle.get("size_mb"), "{:.3g} MB")),
        ("Gaussians", _formatted(bundle.get("gaussians"), "{:,.0f}")),
        ("with the player", _formatted(done["player"].results.get("size_mb"), "{:.3g} MB")
         if "player" in done else ""),
        ("pictures", str(train.get("size", ""))),
        ("made in", duration(sum(entry.seconds for entry in done.values()))),
    ]  # fmt: skip


def caveats(done: Mapping[str, Done]) -> list[str]:
    """What one has to know to look at it."""
    relief = done["poses"].results.get("relief") if "poses" in done else None
    return [f"This is not all around: {relief}"] if relief else []


def stage_result(name: str, results: Mapping[str, Any]) -> str:
    """What a stage gave, in a line."""
    if name == "poses":
        told = f"{results['registered']} of {results['pictures']} with a pose: {results['verdict']}"
        return told + (f" ({results['reason']})" if results.get("reason") else "")
    if name == "motion":
        return str(results["told"])
    if name == "train":
        psnr = ""
        if _is_number(results.get("psnr")):
            psnr = f"{results['psnr']:.2f} dB on {results['views']} held-out pictures, "
        trained = f"{results['method']}, {psnr}{results['size']}, {results['steps']:,} steps"
        return f"{trained}; {results['told']}" if results.get("told") else trained
    if name == "bundle":
        psnr = f", {results['psnr']:.2f} dB" if _is_number(results.get("psnr")) else ""
        return f"{results['size_mb']:.3g} MB{psnr}; {results['how']}"
    return str(results.get("told", ""))


def _rows(plan: Plan, done: Mapping[str, Done]) -> list[tuple[str, str, str, str]]:
    return [
        (
            stage.name,
            stage.what,
            duration(done[stage.name].seconds),
            stage_result(stage.name, done[stage.name].results),
        )
        for stage in plan.stages
        if stage.name in done
    ]


def _poster(done: Mapping[str, Done]) -> str:
    path = done["bundle"].folder / "poster.webp"
    data = base64.b64encode(read_bytes(path)).decode("ascii")
    return _IMAGE.format(width=500, what="the scene", data=data)


def _links(out: Path, done: Mapping[str, Done]) -> str:
    places = [("the bundle", done["bundle"].folder / "scene.s4d")]
    if "player" in done:
        places.append(("the player, for a host", done["player"].folder / "site" / "index.html"))
    if "train" in done:
        run = done["train"].folder / str(done["train"].results["run"])
        places.append(("the run's report", run / "report.html"))
        places.append(("the run", run))
    links = [
        f'<li><a href="{escape(path.relative_to(out).as_posix(), quote=True)}">{what}</a></li>'
        for what, path in places
        if path.is_relative_to(out) and path.exists()
    ]
    return f"<ul>{''.join(links)}</ul>"


def _diagnosis(done: Mapping[str, Done]) -> str:
    if "poses" not in done:
        return ""
    lines = str(done["poses"].results["diagnosis"]).splitlines()
    told = [line for line in lines if not line.startswith("  - train:")]  # it is trained already
    if told[-1] == "What to do next:":
        told.pop()
    text = escape("\n".join(told))
    return f"<h2>The camera poses</h2><pre style='white-space:pre-wrap'>{text}</pre>"


def _pictures(done: Mapping[str, Done]) -> str:
    if "train" not in done:
        return ""
    return test_pictures(done["train"].folder / str(done["train"].results["run"]))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _formatted(value: object, form: str) -> str:
    return form.format(value) if _is_number(value) else ""
