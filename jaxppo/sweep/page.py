"""The page of a sweep: one self-contained HTML file, made from the files of its folder alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import polars as pl

from jaxppo.page import canvas, document, sections, tables
from jaxppo.page.document import Section
from jaxppo.page.text import MISSING, moment, number, percent, plain_value, plural
from jaxppo.store import files
from jaxppo.store.columns import PORTFOLIO_PREFIX, of_portfolio
from jaxppo.store.read import SweepData, load_sweep, lookup, values
from jaxppo.sweep import remarks
from jaxppo.sweep.charts import NAMES, make_figures
from jaxppo.sweep.judge import TEST_FIGURE

PAGE = "sweep.html"
_SHOWN = 30  # trials of the table that is not folded


def write_page(folder: Path) -> Path:
    """Write plots/*.png and sweep.html in `folder`; returns the page's path."""
    data = load_sweep(folder)
    images = {name: canvas.png(figure) for name, figure in make_figures(data).items()}
    return files.write_page(folder, images, render(data, images), PAGE)


def render(data: SweepData, images: dict[str, bytes]) -> str:
    """The page as text; `images` are PNG files by the names of `make_figures`."""
    title = f"Sweep of {lookup(data.config, 'preset', default='?')} on {sections.source(data)}"
    return document.document(
        title,
        sections.header(title, _about(data))
        + document.cards(remarks.cards(data))
        + sections.verdict(remarks.verdict(data), remarks.doubt(data)),
        [
            sections.warnings(remarks.warnings(data), "Before believing it"),
            _truth(data, images),
            _scores(data, images),
            _learning(images),
            _seeds(data, images),
            _ensemble(data),
            Section("trials", "Trials", _trials(data)),
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


def _truth(data: SweepData, images: dict[str, bytes]) -> Section:
    truth = data.summary["truth"]
    words = "".join(f"<p>{tables.esc(text)}</p>" for text in data.summary["sentences"])
    rows = [
        ("Sharpe ratio of the winner, validation, rebalanced daily", number(truth["sharpe"])),
        ("Sharpe ratio that luck alone is expected to show", number(truth["luck_sharpe"])),
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
        f" {truth['overfitting_blocks']} blocks of days is done once (Bailey and others 2017). Left:"
        " where it ranks there, 0 being the middle. Right: what its Sharpe ratio is there, with 252 days a year."
    )
    tested = (
        "Every complete trial; what lies far out is drawn at the edge. Where choosing works, points rise to the right."
    )
    body = (
        words
        + tables.table(["", ""], [list(row) for row in rows])
        + document.figure(images, "overfitting", "Backtest overfitting", split, "")
        + document.figure(images, "test", "Test over validation", tested, "The bars leave no test split.")
    )
    return Section("truth", "How much of the winner is luck", body)


def _scores(data: SweepData, images: dict[str, bytes]) -> Section:
    caption = (
        f"{NAMES[data.summary['choose_by']]}, of each trial\u2019s best validation. Triangles at the lower edge lie"
        " below it. A halted trial is drawn with the best that it had shown."
    )
    share = (
        "By PED-ANOVA (Watanabe, Bansal and Hutter 2023), over complete trials: how far the best of them differ from"
        " the rest in each field. It says what was decisive within the ranges searched, and nothing of other ranges."
    )
    body = document.figure(images, "scores", "Scores over the space", caption, "No trial has a score.")
    body += "<h3>Importance</h3>"
    body += document.figure(images, "importance", "Importance", share, "Told from ten complete trials on.")
    return Section("scores", "Scores over the space", body)


def _learning(images: dict[str, bytes]) -> Section:
    caption = (
        "One line a trial, from the untrained policy on; what lies far below is cut off, and lines that end early were"
        " halted."
    )
    return Section("learning", "Learning curves", document.figure(images, "learning", "Learning curves", caption, ""))


def _seeds(data: SweepData, images: dict[str, bytes]) -> Section:
    caption = (
        "Trials that differ less than the seeds of one of them do, differ by luck. On the validation bars; the seeds of"
        " the test are in trials.csv."
    )
    none = (
        "Each trial is one policy with a seed of its own, so how far seeds alone spread is not known; --seeds 5 makes"
        " each trial an ensemble of five and shows it."
    )
    return Section("seeds", "Spread over seeds", document.figure(images, "seeds", "Spread over seeds", caption, none))


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
    return Section("policy", "What is handed over", words + table + sections.muted(note))


def _trials(data: SweepData) -> str:
    choose_by = data.summary["choose_by"]
    frame = data.trials.sort("value", descending=True, nulls_last=True)
    fields = list(data.summary["space"])
    figures = {
        "value": "Best validation",
        TEST_FIGURE[choose_by]: "The same on test",
        "val_portfolio_sharpe": "Sharpe, daily",
        "val_max_drawdown": "Max drawdown",
        "val_trades": "Trades",
        "val_turnover": "Turnover",
    }
    columns = {name: values(frame, name) for name in figures}

    def row(i: int, of: dict[str, Any]) -> list[str]:
        cells = [number(float(columns[name][i]), 0 if name == "val_trades" else 2) for name in figures]
        cells[3] = percent(float(columns["val_max_drawdown"][i]))
        update = MISSING if of["best_update"] is None else number(of["best_update"], 0)
        return [str(of["trial"]), of["state"], *(_param(of[f]) for f in fields), update, *cells]

    rows = [row(i, of) for i, of in enumerate(frame.to_dicts())]
    head = ["Trial", "State", *fields, "Update", *figures.values()]
    shown = tables.table(head, rows[:_SHOWN], text_columns=2 + len(fields), total=0 if rows else None)
    if len(rows) > _SHOWN:
        shown += sections.folded(
            f"The other {len(rows) - _SHOWN} trials", tables.table(head, rows[_SHOWN:], text_columns=2 + len(fields))
        )
    failed = frame.filter(pl.col("state") == "failed")
    if failed.height:
        reasons = failed.select("trial", "reason").rows()
        shown += "<h3>Trials that could not be run</h3>" + tables.table(
            ["Trial", "Reason"], [[str(n), str(reason)] for n, reason in reasons], text_columns=2
        )
    return shown + sections.muted("trials.csv and trials.parquet have every figure, validations.csv every validation.")


def _param(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) and not math.isnan(value) else plain_value(value)


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
