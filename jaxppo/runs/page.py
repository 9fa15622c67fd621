"""The page that compares runs: one self-contained HTML file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from jaxppo.page import document, learning, sections, tables
from jaxppo.page.document import Remark, Section
from jaxppo.page.scoreboard import Answer, Score, scoreboard
from jaxppo.page.text import MISSING, moment, number, plural
from jaxppo.runs import interactive
from jaxppo.runs.charts import HEADINGS, make_plots, panels
from jaxppo.runs.compare import Comparison, Line, Part, excess_sentence
from jaxppo.store.files import write_page

TITLES = {"test": "On the test bars", "validation": "On the validation bars"}
"""What a part is called; the first that two or more are known on decides."""
_TABS = {"test": "Test", "validation": "Validation"}


def write_comparison(folder: Path, found: Comparison) -> Path:
    """Write FOLDER/plots/*.png and FOLDER/report.html; the page's path."""
    return write_page(folder, make_plots(found), render(found))


def render(found: Comparison) -> str:
    """The page as text."""
    title = f"{plural(len(found.entries), 'run')} compared"
    return document.document(
        title,
        sections.header(title, list(found.entries)) + _decides(found),
        [
            Section("runs", "Runs", _runs(found)),
            Section("config", "Where their configurations differ", _differences(found), "Runs"),
            *(Section(p, TITLES[p], _part(found.parts[p], p), _TABS[p]) for p in TITLES if p in found.parts),
            Section("learning", "Learning curves", _learning(found), "Learning"),
            sections.glossary()._replace(tab="Glossary"),
        ],
        "jaxppo",
    )


def _decides(found: Comparison) -> str:
    """Which is better, in words and as a scoreboard: on the test bars where two can be compared there."""
    held = ((name, best) for name in TITLES if name in found.parts and (best := _rival(found.parts[name])))
    name, best = next(held, ("", None))
    if best is None or best.excess is None:
        if len(found.entries) < 2:
            return ""
        text = "No days in common are stored of them, so their figures do not say which is better."
        return document.remark_list([Remark("caution", "They cannot be compared", text)])
    part, (apart, low, high) = found.parts[name], best.excess
    first = part.lines[0].name
    says = excess_sentence(first, best).partition(":")[0]
    others = [line for line in part.lines if line.excess is not None]
    beaten = sum(line.excess[1] > 0 for line in others if line.excess)
    own, its = (number(float(line.figures.get("sharpe", math.nan))) for line in (part.lines[0], best))
    sentence = f"{first} has a Sharpe ratio of {own} a year and {best.name} one of {its}, {TITLES[name].lower()}."
    if len(others) > 1:
        sentence += f" Beyond chance {first} is better than {beaten or 'none'} of the {len(others)} others."
    answer = Answer(
        "caution" if low <= 0 <= high else "",
        _capital(says),
        sentence,
        f"Sharpe ratio {'+' if apart > 0 else ''}{number(apart)} a year",
        f"of {first} less {best.name}, rebalanced daily, {TITLES[name].lower()}, on the days that the two have in"
        f" common; 90 % interval {number(low)} to {number(high)}",
        looked_at=name == "validation",
    )
    scores = [_score(line, line.name == first) for line in part.lines]
    note = "Each of the portfolio that is rebalanced daily, after all costs. Intervals are of resampled blocks of days."
    return scoreboard(answer, scores, "", note, f"{first}\u2019s")


def _rival(part: Part) -> Line | None:
    """Of the others that the first can be compared with, the one of the highest Sharpe ratio."""
    known = [line for line in part.lines if line.excess is not None and np.isfinite(line.excess).all()]
    return max(known, key=lambda line: line.figures.get("sharpe", -math.inf), default=None)


def _score(line: Line, own: bool) -> Score:
    made, fell = (float(line.figures.get(column, math.nan)) for column in ("return", "max_drawdown"))
    note = "" if line.excess is None else "{} ({} to {})".format(*map(number, line.excess))
    return Score(line.name, float(line.figures.get("sharpe", math.nan)), line.interval, made, fell, note, own)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


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
    head = ["Name", "Kind", "Preset", "Created", "Updates", "Gate", "Sharpe a year, test", "Sharpe a year, validation"]
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


def _part(part: Part, name: str) -> str:
    rows = [(line.name, dict(line.figures)) for line in part.lines]
    head = ["Name", "Sharpe a year, rebalanced daily", "90 % interval", "The first's less its own", "90 % interval"]
    cells = [[line.name, number(line.figures.get("sharpe", math.nan)), *_ends(line)] for line in part.lines]
    first = part.lines[0].name
    said = [text for line in part.lines if (text := excess_sentence(first, line))]
    apart = "They were not played over the same dates: only days in common are compared. " if part.differ else ""
    note = apart + "Intervals are of resampled blocks of days; a difference is taken on the same days of both."
    curves, between = interactive.equity(part, name, HEADINGS[name]), interactive.differences(part, f"{name}_apart")
    caption = "Growth of 1.00 in equal shares, rebalanced daily, after costs, over the days that all have in common."
    none = "No two days in common are stored of them, so there are no curves; the PNG files have what there is of each."
    return (
        (document.chart(curves, caption) if curves else sections.muted(none))
        + (document.chart(between, "A circle that is not filled: the interval holds 0.") if between else "")
        + tables.table(head, cells)
        + "".join(f"<p>{tables.esc(_capital(text))}.</p>" for text in said)
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


def _learning(found: Comparison) -> str:
    drawn = learning.compared({name: e.metrics for name, e in found.entries.items()}, panels())
    if not drawn:
        return sections.muted("None of these is a training run with a validation.")
    return drawn + sections.muted("Against env steps. The first three are of the validations, the others of training.")
