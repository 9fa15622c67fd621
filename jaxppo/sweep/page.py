"""The page of a sweep: one self-contained HTML file, made from the files of its folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from jaxppo.page import canvas, document, sections, tables
from jaxppo.page.document import Section
from jaxppo.page.scoreboard import scoreboard
from jaxppo.page.text import MISSING, base_name, moment, number, percent, plain_value, plural
from jaxppo.store import files
from jaxppo.store.columns import PORTFOLIO_PREFIX, of_portfolio
from jaxppo.store.read import SweepData, load_sweep, lookup
from jaxppo.sweep import interactive, remarks
from jaxppo.sweep.charts import NAMES, make_figures

PAGE = "sweep.html"
LUCK, SPACE, LEARNING = "Luck", "Space", "Learning"
"""Tabs that several sections stand in."""
_NOTE = "Of portfolios that are rebalanced daily, after all costs."


def write_page(folder: Path) -> Path:
    """Write plots/*.png and sweep.html in `folder`; returns the page's path."""
    data = load_sweep(folder)
    images = {name: canvas.png(figure) for name, figure in make_figures(data).items()}
    return files.write_page(folder, images, render(data), PAGE)


def render(data: SweepData) -> str:
    """The page as text."""
    title = f"Sweep of {lookup(data.config, 'preset', default='?')} on {base_name(sections.source(data))}"
    answer = remarks.answer(data)
    doubt = sections.muted(remarks.doubt(data))
    return document.document(
        title,
        sections.header(title, _about(data))
        + scoreboard(answer, remarks.scores(data), doubt, _NOTE)
        + document.cards(remarks.cards(data), answer.tone == "good"),
        [
            _truth(data),
            sections.warnings(remarks.warnings(data), "Before believing it")._replace(tab=LUCK),
            _scores(data),
            _importance(data),
            _learning(data),
            _seeds(data),
            Section("trials", "Trials", _trials(data)),
            _ensemble(data),
            sections.run(data, _own_facts(data), f"<h3>Data</h3>{tables.data_table(data.manifest)}"),
            sections.glossary(),
        ],
        sections.footer(data),
    )


def _about(data: SweepData) -> list[str]:
    s, m = data.summary, data.manifest
    return [
        f"{lookup(m, 'data', 'interval', default='?')} bars",
        plural(len(lookup(m, "data", "symbols", default=[])), "symbol"),
        plural(int(s["trials"]["asked"]), "trial") + f" by {s['sampler']}",
        *([f"each an ensemble of {s['seeds']}"] if s["seeds"] > 1 else []),
        plural(len(s["space"]), "field") + " searched",
        plain_value(lookup(m, "device", "kind", default=MISSING)),
        moment(lookup(m, "created", default=MISSING)),
    ]


def _truth(data: SweepData) -> Section:
    truth = data.summary["truth"]
    words = "".join(f"<p>{tables.esc(text)}</p>" for text in data.summary["sentences"])
    rows = [
        ("Sharpe ratio a year of the winner, validation, rebalanced daily", number(truth["sharpe"])),
        ("Sharpe ratio a year that luck alone is expected to show", number(truth["luck_sharpe"])),
        ("P(true Sharpe ratio above 0)", percent(truth["probabilistic_sharpe"], 0)),
        ("Deflated Sharpe ratio: P(above that of luck)", percent(truth["deflated_sharpe"], 0)),
        ("Probability of backtest overfitting", percent(truth["overfitting_probability"], 0)),
        ("The same, of trials that were not halted", percent(truth["overfitting_probability_complete"], 0)),
        ("P(the chosen loses on the other half)", percent(truth["overfitting_loss_probability"], 0)),
        ("Slope: Sharpe ratio elsewhere over that where chosen", number(truth["overfitting_slope"])),
        ("Rank correlation of validation and test", number(truth["rank_correlation"])),
    ]
    split = (
        "Half of the days choose the best trial, the other half ranks it among all; every way to take half of"
        f" {truth['overfitting_blocks']} blocks of days is done once (Bailey and others 2017). First:"
        " where it ranks there. Second: what its Sharpe ratio is there, with 252 days a year."
    )
    tested = (
        "Every complete trial; what lies far out is drawn at the edge. Where choosing works, points rise to the right."
    )
    halves = "".join(document.chart(chart) for chart in interactive.overfitting(data))
    test = interactive.validation_and_test(data)
    body = (
        words
        + tables.table(["", ""], [list(row) for row in rows])
        + (f'<div class="columns">{halves}</div>{sections.muted(split)}' if halves else "")
        + (document.chart(test, tested) if test else sections.muted("Too few trials have a test figure to draw them."))
    )
    return Section("truth", "How much of the winner is luck", body, LUCK)


def _scores(data: SweepData) -> Section:
    caption = (
        f"{NAMES[data.summary['choose_by']]}, of each trial\u2019s best validation. Triangles at the lower edge lie"
        " below it. A halted trial is drawn with the best that it had shown."
    )
    drawn = "".join(document.chart(chart) for chart in interactive.scores(data))
    body = f'<div class="panels">{drawn}</div>{sections.muted(caption)}' if drawn else ""
    return Section("scores", "Scores over the space", body or sections.muted("No trial has a score."), SPACE)


def _importance(data: SweepData) -> Section:
    share = (
        "By PED-ANOVA (Watanabe, Bansal and Hutter 2023), over complete trials: how far the best of them differ from"
        " the rest in each field. It says what was decisive within the ranges searched, and nothing of other ranges."
    )
    chart = interactive.importance(data)
    body = document.chart(chart, share) if chart else sections.muted("Told from ten complete trials on.")
    return Section("importance", "Importance", body, SPACE)


def _learning(data: SweepData) -> Section:
    caption = (
        "One line a trial, from the untrained policy on; what lies far below is cut off, and lines that end early were"
        " halted."
    )
    chart = interactive.learning(data)
    body = document.chart(chart, caption) if chart else sections.muted("No trial was validated.")
    return Section("learning", "Learning curves", body, LEARNING)


def _seeds(data: SweepData) -> Section:
    caption = (
        "Trials that differ less than the seeds of one of them do, differ by luck. On the validation bars; the seeds of"
        " the test are in trials.csv."
    )
    none = (
        "Each trial is one policy with a seed of its own, so how far seeds alone spread is not known; --seeds 5 makes"
        " each trial an ensemble of five and shows it."
    )
    chart = interactive.seeds(data)
    return Section(
        "seeds", "Spread over seeds", document.chart(chart, caption) if chart else sections.muted(none), LEARNING
    )


def _ensemble(data: SweepData) -> Section:
    of = data.summary["ensemble"]
    words = "".join(f"<p>{tables.esc(text)}</p>" for text in remarks.handed_over(data))
    named = [("Validation", of["validation"]), *([("Test", of["test"])] if of["test"] else [])]

    rows: list[tuple[str, dict[str, Any]]] = []
    for name, row in named:
        pool = {k: v for k, v in row.items() if not k.startswith(PORTFOLIO_PREFIX)}
        rows += [(name, pool), (f"{name}, rebalanced daily", of_portfolio(row))]
    table = tables.metric_tables("", rows)
    note = (
        "python -m jaxppo.backtest OUT/policy plays it next to what it must beat, and knows how many trials there were."
    )
    return Section("policy", "What is handed over", words + table + sections.muted(note), "Policy")


def _trials(data: SweepData) -> str:
    listed = document.table(
        interactive.trials(data),
        "The best first. trials.csv and trials.parquet have every figure, validations.csv every validation.",
    )
    failed = data.trials.filter(pl.col("state") == "failed").select("trial", "reason").rows()
    if not failed:
        return listed
    reasons = [[str(n), str(reason)] for n, reason in failed]
    return listed + "<h3>Trials that could not be run</h3>" + tables.table(["Trial", "Reason"], reasons, text_columns=2)


def _own_facts(data: SweepData) -> list[tuple[str, str]]:
    s = data.summary
    space = "; ".join(f"{name}: {plain_value(of)}" for name, of in s["space"].items())
    halving = ", ".join(number(a, 0) for a in s["halve_at"])
    return [
        ("Searched", space),
        ("Sampler", s["sampler"]),
        ("Halving", f"1 in {number(s['eta'], 0)} goes on after segments {halving}" if halving else "none"),
        ("Shapes", number(s["shapes"], 0)),
        ("Looks at validation", number(s["looks"], 0)),
    ]
