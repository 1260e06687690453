"""One page with all scenes of a batch: pictures, figures, and why what failed did."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from scene4d.evaluation.report import html_page, text_table, tile_list
from scene4d.pipeline.report import REPORT
from scene4d.pipeline.store import Store
from scene4d.training.log import duration

if TYPE_CHECKING:
    from scene4d.pipeline.batch import State

INDEX = "index.html"
_GRID = (
    '<div style="display:grid;gap:10px;grid-template-columns:'
    'repeat(auto-fill,minmax(min(100%,240px),1fr))">{}</div>'
)
_PICTURE = (
    '<img alt="" loading="lazy" style="display:block;width:100%;aspect-ratio:4/3;'
    'object-fit:cover;border-radius:4px" src="{}">'
)


def write_gallery(store: Store, states: Sequence[State]) -> None:
    """Writes ``index.html`` beside the scenes; relative links alone, for any static host."""
    made = [state for state in states if not state.error and "bundle" in state.done]
    failed = [state for state in states if state.error]
    spent = sum(done.seconds for state in states for done in state.done.values())
    size = sum(float(s.done["bundle"].results.get("size_mb", 0.0)) for s in made)
    sections = [
        tile_list([
            ("scenes", f"{len(made):,}"),
            ("failed", f"{len(failed):,}" if failed else ""),
            ("bundles together", f"{size:,.3g} MB"),
            ("time spent", duration(spent)),
        ]),
        _GRID.format("".join(_card(state) for state in made)) if made else "",
    ]  # fmt: skip
    if failed:
        rows = [(s.scene.name, s.scene.where, s.error) for s in failed]
        sections.append("<h2>Failed</h2>" + text_table(("scene", "asked for in", "reason"), rows))
    store.write(INDEX, html_page("Scenes", sections).encode("utf-8"))


def _card(state: State) -> str:
    name, results = state.scene.name, state.done["bundle"].results
    place = quote(name)
    facts = [f"{float(results['size_mb']):.3g} MB"]
    psnr = results.get("psnr", state.done["train"].results.get("psnr") if "train" in state.done
                       else None)  # fmt: skip
    if isinstance(psnr, (int, float)):
        facts.append(f"{psnr:.2f} dB")
    facts.append(duration(sum(done.seconds for done in state.done.values())))
    page = f"{place}/{REPORT}"
    player = f"{place}/player/site/index.html" if "player" in state.done else page
    picture = _PICTURE.format(f"{place}/bundle/poster.webp")
    return (
        f'<figure><a href="{player}">{picture}</a><figcaption><b>{escape(name)}</b>'
        f'{escape(", ".join(facts))} <a href="{page}">report</a></figcaption></figure>'
    )
