"""The report of a backtest: one self-contained HTML file, made from the files of its folder alone."""

from __future__ import annotations

import math
from pathlib import Path

from jaxppo.backtest import interactive, remarks
from jaxppo.backtest.charts import make_plots
from jaxppo.page import document, sections, tables, tested, why, worst_trades, yardsticks
from jaxppo.page.document import Section
from jaxppo.page.members import members_section
from jaxppo.page.sections import muted
from jaxppo.page.selection import ranked_symbols
from jaxppo.page.tearsheet import tear_sheet
from jaxppo.page.text import base_name, moment, number, plural
from jaxppo.play.gate import APPROVED
from jaxppo.play.rules import RULES
from jaxppo.store.files import write_page
from jaxppo.store.read import BacktestData, load_backtest, lookup, pooled_and_portfolio

MEDIAN = ("confidence", "confidence", "p50")
"""Where why.json has the probability of the action at the median decision."""
NAMES = {
    "policy": "Policy",
    "portfolio": "Policy, rebalanced daily",
    "buy_and_hold": "Buy-and-hold",
    "flat": "Always flat",
    "random_mean": "Random times, mean",
    "random_p5": "Random times, 5 %",
    "random_p95": "Random times, 95 %",
}


def write_backtest_report(folder: Path) -> Path:
    """Write FOLDER/plots/*.png and FOLDER/report.html from the other files there, and return the page's path."""
    data = load_backtest(folder)
    images = make_plots(data.played, data.curves, data.draws, data.costs, lookup(data.facts, "best_rule", default=""))
    return write_page(folder, images, render(data))


def render(data: BacktestData) -> str:
    """The page as text."""
    f = data.facts
    which = {"all": "All bars"}.get(f["split"], f"{f['split'].capitalize()} split")
    title = f"{which} of {base_name(f['source'])}, policy of {base_name(f['run'])}"
    return document.document(
        title,
        sections.header(title, _about(data))
        + tested.board(data, muted(remarks.verdict(data)[0].text))
        + document.cards(remarks.cards(data), data.gate.verdict == APPROVED),
        [
            _equity(data),
            _chance(data),
            *tear_sheet(data.sheet, f"the policy on the {which[0].lower()}{which[1:]}"),
            sections.trades(data.played),
            *worst_trades.section(
                data.worst, lookup(data.why or {}, "confidence", "confidence", "p50", default=math.nan)
            ),
            sections.symbols(data.played),
            *why.sections(data.importance, data.why),
            sections.costs(remarks.cost_words(data), f["costs"]),
            sections.warnings(remarks.warnings(data), "Before believing it"),
            sections.gate(data.gate),
            Section("played", "What was played", tables.definitions(remarks.facts(data)), sections.RUN),
            sections.glossary(),
        ],
        "jaxppo",
    )


def _about(data: BacktestData) -> list[str]:
    f = data.facts
    return [
        f"policy of update {number(f['update'], 0)} ({f['which']}) of {base_name(f['run'])}",
        f"{f['interval']} bars",
        plural(len(ranked_symbols(data.played)), "symbol"),
        f"{number(f['decisions'], 0)} decisions",
        f"{moment(f['first_decision'])} to {moment(f['last_decision'])}",
    ]


def _equity(data: BacktestData) -> Section:
    titles = {**NAMES, **{name: rule.title for name, rule in RULES.items()}}
    rows = [(titles.get(name, name), row) for name, row in data.facts["baselines"].items()]
    caption = (
        "Growth of 1.00, all symbols together, after costs. Shaded: where 90 % of the random draws lie. A random draw "
        "holds the very positions of the policy, as often and as long, at other times; what the policy adds to that is "
        "timing. Of the rules the one with the highest Sharpe ratio when rebalanced daily is drawn, unless that is "
        "buy-and-hold."
    )
    return sections.equity(
        "Equity against the baselines",
        interactive.equity(data),
        caption,
        "<h3>The policy and what it must beat, at the same costs</h3>",
        tables.metric_tables("", rows, total=0),
        yardsticks.portfolio_table(data.portfolios),
        members_section(pooled_and_portfolio(data.played), data.members),
    )


def _chance(data: BacktestData) -> Section:
    f = data.facts
    beaten = round(f["random_beaten_share"] * f["random_draws"])
    caption = (
        f"The policy beats {beaten} of {plural(int(f['random_draws']), 'draw')}. A policy whose timing is worth "
        "something lies to the right of nearly all dots."
    )
    drawn = document.chart(interactive.random_draws(data), caption)
    daily = (f["portfolio"], f["portfolio_intervals_90"]) if "portfolio" in f else None  # not in earlier versions
    return sections.chance(remarks.chance_words(data), drawn, data.pooled, f["intervals_90"], daily)
