"""What every HTML page has in common: one self-contained file of tabs, sections, cards, remarks, charts and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

from jaxppo.page import assets
from jaxppo.page.charts import Chart, Table, to_json
from jaxppo.page.style import ROLES
from jaxppo.page.tables import esc

DOT = " \u00b7 "


def content_policy(scripts: Sequence[str], connect: str = "'none'") -> str:
    """Nothing may be loaded from anywhere and no script but ours may run, whatever the data holds.

    Args:
      scripts: names of `assets`; a browser runs only what has the hash of one.
      connect: where a script may ask for data.
    """
    allowed = " ".join(f"'{assets.digest(name)}'" for name in scripts)
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; connect-src {connect};"
        f" script-src {allowed}; base-uri 'none'; form-action 'none'"
    )


@dataclass(frozen=True)
class Card:
    """One key figure."""

    label: str
    value: str
    note: str
    tone: str = ""
    """good, bad, caution, or nothing."""


@dataclass(frozen=True)
class Remark:
    """A sentence with its colour: the verdict or a warning."""

    tone: str
    title: str
    text: str


class Section(NamedTuple):
    """One section of a page."""

    anchor: str
    heading: str  # plain text
    body: str  # HTML
    tab: str = ""  # where it stands; sections of the same tab follow each other. By default its own, of its heading


def document(
    title: str, top: str, sections: Sequence[Section], footer: str, connect: str = "'none'", script: str = ""
) -> str:
    """The page as text.

    Args:
      title: plain text.
      top: HTML above the tabs.
      sections: in their order.
      footer: plain text.
      connect: where the page's script may ask for data; nowhere by default.
      script: of `assets`, which runs after the page's own.
    """
    tabs = [(name, list(of)) for name, of in groupby(sections, lambda s: s.tab or s.heading)]
    panels = "".join(_panel(of) for _, of in tabs)
    body = f'<div id="top">{top}</div>{_tab_list(tabs)}{panels}'
    table = "data-table=" in body
    scripts = [
        "echarts.min.js",
        *(["tabulator.min.js"] if table else []),
        *assets.SCRIPTS,
        *([script] if script else []),
    ]
    sheets = [*(["tabulator.min.css"] if table else []), "page.css"]
    styles = "".join(f"<style>{assets.text(name)}</style>" for name in sheets)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{content_policy(scripts, connect)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{esc(title)}</title>{styles}</head>"
        f'<body><a class="skip" href="#tabs">To the sections</a><main>{body}<footer>{esc(footer)}</footer></main>'
        f"{_data('roles', ROLES)}{''.join(f'<script>{assets.text(name)}</script>' for name in scripts)}</body></html>\n"
    )


def _tab_list(tabs: Sequence[tuple[str, Sequence[Section]]]) -> str:
    buttons = "".join(
        f'<button role="tab" type="button" id="tab-{of[0].anchor}" aria-controls="panel-{of[0].anchor}" '
        f'data-first="{of[0].anchor}" aria-selected="false">{esc(name)}</button>'
        for name, of in tabs
    )
    return f'<div class="tabs" id="tabs" role="tablist" aria-label="Sections">{buttons}</div>'


def _panel(sections: Sequence[Section]) -> str:
    """Sections of one tab; without scripts all tabs stand one under the other."""
    name = sections[0].anchor
    body = "".join(f'<section id="{s.anchor}"><h2>{esc(s.heading)}</h2>{s.body}</section>' for s in sections)
    return f'<div role="tabpanel" id="panel-{name}" aria-labelledby="tab-{name}">{body}</div>'


def _data(name: str, value: Any) -> str:
    """A block of data for the page's script."""
    return f'<script type="application/json" id="{name}">{to_json(value)}</script>'


def cards(found: Sequence[Card], approved: bool = False) -> str:
    """Key figures as boxes, green only where the gate `approved` the policy; nothing where there are none."""
    if not approved:
        found = [replace(card, tone="") if card.tone == "good" else card for card in found]
    boxes = "".join(
        f'<div class="card"><div class="label">{esc(card.label)}</div>'
        f'<div class="value {card.tone}">{esc(card.value)}</div><div class="note">{esc(card.note)}</div></div>'
        for card in found
    )
    return f'<div class="cards">{boxes}</div>' if found else ""


def remark_list(found: Sequence[Remark]) -> str:
    """Remarks as a list, each in its colour."""
    items = "".join(f'<li class="{f.tone}"><b>{esc(f.title)}.</b><span>{esc(f.text)}</span></li>' for f in found)
    return f'<ul class="warnings">{items}</ul>'


def chart(found: Chart, caption: str = "") -> str:
    """An interactive chart under its title; `caption` is plain text."""
    area = _area(f'data-chart="{esc(found.name)}"', found.alt, found.height)
    said = "<output></output>" if found.growth else ""
    head = f'<h3>{esc(found.title)}</h3><div class="tools"></div>'
    return f"<figure>{head}{area}{said}{_caption(caption)}</figure>{_data(f'chart-{found.name}', chart_data(found))}"


def chart_data(found: Chart) -> dict[str, Any]:
    """What the page's script draws a chart from."""
    return {"option": found.option, "times": found.times, "growth": list(found.growth) or None, "log": found.log}


def table(found: Table, caption: str = "") -> str:
    """A table to sort, filter and download; `caption` is plain text."""
    columns = [asdict(column) for column in found.columns]
    spec = {"columns": columns, "rows": found.rows, "show": found.show}
    area = f'<div class="chart" data-table="{esc(found.name)}">{_NOSCRIPT}</div>'
    head = '<div class="tools"></div><output></output>'
    return f"<figure>{head}{area}{_caption(caption)}</figure>{_data(f'table-{found.name}', spec)}"


def symbol_view(symbols: Mapping[str, Mapping[str, Any]], caption: str = "") -> str:
    """A chart of one symbol at a time, with a list to choose from; the data of each is what `symbols.series` gives."""
    options = "".join(f'<option value="{esc(name)}">{esc(name)}</option>' for name in symbols)
    blocks = "".join(_data(f"symbol-{i}", of) for i, of in enumerate(symbols.values()))
    alt = "Price, equity against buy-and-hold and exposure of one symbol, with its trades"
    head = f'<div class="tools"><label>Symbol <select>{options}</select></label></div>'
    body = f"{head}{_area('data-symbols', alt, 600)}<output></output>{_caption(caption)}"
    return f'<figure class="symbols">{body}</figure>{blocks}'


_NOSCRIPT = '<p class="noscript">Charts and sortable tables need JavaScript; plots/*.png beside this page do not.</p>'


def _area(data: str, alt: str, height: int) -> str:
    """Where a chart is drawn: it can be reached by the keyboard, and says in words what it shows."""
    label = f'role="img" tabindex="0" aria-label="{esc(alt)}"'
    return f'<div class="chart" {data} {label} style="height:{height}px">{_NOSCRIPT}</div>'


def _caption(text: str) -> str:
    return f"<figcaption>{esc(text)}</figcaption>" if text else ""
