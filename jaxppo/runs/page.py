"""The page that compares runs: one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path

from jaxppo.page import document, sections, tables
from jaxppo.page.document import Section
from jaxppo.page.text import MISSING, moment, number, plural
from jaxppo.runs.charts import make_plots
from jaxppo.runs.compare import Comparison, Line, Part, excess_sentence
from jaxppo.store.files import write_page

TITLES = {"validation": "On the validation bars", "test": "On the test bars"}


def write_comparison(folder: Path, found: Comparison) -> Path:
    """Write FOLDER/plots/*.png and FOLDER/report.html; the page's path."""
    images = make_plots(found)
    return write_page(folder, images, render(found, images))


def render(found: Comparison, images: dict[str, bytes]) -> str:
    """The page as text; `images` are PNG files by name."""
    title = f"{plural(len(found.entries), 'run')} compared"
    return document.document(
        title,
        sections.header(title, list(found.entries)),
        [
            Section("runs", "Runs", _runs(found)),
            Section("config", "Where their configurations differ", _differences(found)),
            *(Section(part, TITLES[part], _part(of, part, images)) for part, of in found.parts.items()),
            Section("learning", "Learning curves", _learning(images)),
            sections.glossary(),
        ],
        "jaxppo",
    )


def _runs(found: Comparison) -> str:
    rows = [
        [
            name,
            e.kind,
            str(e.config.get("preset", MISSING)),
            moment(e.created) if e.created else MISSING,
            e.updates or MISSING,
            e.gate or MISSING,
            *(sharpe_text(getattr(e, part)) for part in TITLES),
        ]
        for name, e in found.entries.items()
    ]
    head = ["Name", "Kind", "Preset", "Created", "Updates", "Gate", "Sharpe, validation", "Sharpe, test"]
    return tables.table(head, rows, text_columns=6)


def sharpe_text(judged: object) -> str:
    """A Sharpe ratio in a cell; a dash where nothing is known."""
    sharpe = getattr(judged, "sharpe", None)
    return MISSING if sharpe is None else number(sharpe)


def _differences(found: Comparison) -> str:
    if not found.differences:
        return sections.muted("In nothing: they differ in their random numbers, their bars or the version at most.")
    rows = [[name, *values] for name, values in found.differences]
    return tables.table(["Field", *found.entries], rows, text_columns=1 + len(found.entries))


def _part(part: Part, name: str, images: dict[str, bytes]) -> str:
    rows = [(line.name, dict(line.figures)) for line in part.lines]
    head = ["Name", "Sharpe, rebalanced daily", "90 % interval", "The first's less its own", "90 % interval"]
    cells = [[line.name, number(line.figures.get("sharpe", float("nan"))), *_ends(line)] for line in part.lines]
    first = part.lines[0].name
    said = [text for line in part.lines if (text := excess_sentence(first, line))]
    apart = "They were not played over the same dates: only days in common are compared. " if part.differ else ""
    note = apart + "Intervals are of resampled blocks of days; a difference is taken on the same days of both."
    return (
        document.figure(images, name, "Equity of each", "Growth of 1.00, in equal shares, rebalanced daily.", "")
        + tables.table(head, cells)
        + "".join(f"<p>{tables.esc(text[0].upper() + text[1:])}.</p>" for text in said)
        + sections.muted(note)
        + tables.metric_tables("Name", rows)
    )


def _ends(line: Line) -> list[str]:
    def ends(low: float, high: float) -> str:
        return f"{number(low)} to {number(high)}"

    own = ends(*line.interval) if line.interval else MISSING
    if line.excess is None:
        return [own, MISSING, MISSING]
    return [own, number(line.excess[0]), ends(*line.excess[1:])]


def _learning(images: dict[str, bytes]) -> str:
    caption = "Against env steps. The first row is of the validations, the second of training."
    missing = "None of these is a training run with a validation."
    return document.figure(images, "learning", "Learning curves of each run", caption, missing)
