"""The sections of a page that the pages of runs, backtests and walk-forwards share, for the figures of any policy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from jaxppo.page import gate as gate_page
from jaxppo.page import tables
from jaxppo.page.document import DOT, Card, Remark, Section, figure, remark_list
from jaxppo.page.selection import MAX_SYMBOLS, MAX_TRADES, busiest_symbol, ranked_symbols
from jaxppo.page.tables import esc
from jaxppo.page.text import FORMS, number, percent
from jaxppo.play.gate import Gate
from jaxppo.play.metrics import METRICS
from jaxppo.store.read import Evaluation, Provenance, lookup

Images = Mapping[str, bytes]
"""PNG files by the names of the charts."""


def header(title: str, facts: Sequence[str]) -> str:
    """The page's title, and what it is about in one line."""
    return f'<header><h1>{esc(title)}</h1><p class="lead">{esc(DOT.join(facts))}</p></header>'


def tone(well: bool, *values: float) -> str:
    """Good or bad; neither where one of the values that decide is not known."""
    return "" if any(math.isnan(v) for v in values) else "good" if well else "bad"


def return_card(result: float, hold: float) -> Card:
    """Net return against buy-and-hold, and against nothing."""
    well = tone(result > max(hold, 0.0), result, hold)
    return Card("Net return", percent(result, sign=True), f"buy-and-hold {percent(hold, sign=True)}", well)


def drawdown_card(fall: float, hold: float, limit: float) -> Card:
    """Maximum drawdown, good up to `limit`, next to that of buy-and-hold."""
    return Card("Max drawdown", percent(fall), f"buy-and-hold {percent(hold)}", tone(fall <= limit, fall, limit))


def profit_card(factor: float, note: str) -> Card:
    """Profit factor; one that is infinite or not defined calls for caution."""
    return Card("Profit factor", number(factor), note, tone(factor > 1) if math.isfinite(factor) else "caution")


def verdict(found: Remark, doubt: str = "", judged: Gate | None = None) -> str:
    """What the figures add up to, what the gate says, and how far to trust it."""
    text = f"<p>{esc(found.text)}</p>"
    if judged is not None:
        says = gate_page.verdict(judged)
        text += f"<p><b>Gate: {esc(says.title)}.</b> {esc(says.text)}</p>"
    text += muted(doubt) if doubt else ""
    return f'<section class="verdict {found.tone}" id="verdict"><h2>{esc(found.title)}</h2>{text}</section>'


def muted(text: str) -> str:
    return f'<p class="muted">{esc(text)}</p>'


def folded(summary: str, body: str) -> str:
    """Something to unfold."""
    return f"<details><summary>{esc(summary)}</summary>{body}</details>"


def warnings(found: Sequence[Remark], heading: str = "Warnings") -> Section:
    return Section("warnings", heading, remark_list(found))


def equity(heading: str, images: Images, alt: str, caption: str, *below: str, missing: str = "") -> Section:
    """The pooled curve, its drawdown where that is a chart of its own, and what stands `below`."""
    fall = "How far equity lies below its highest point so far."
    charts = figure(images, "equity", alt, caption, missing) + figure(images, "drawdown", "Drawdown", fall, "")
    return Section("equity", heading, charts + "".join(below))


def chance(
    words: Sequence[str],
    chart: str,
    pooled: Mapping[str, float],
    intervals: Mapping[str, Sequence[float]],
    portfolio: tuple[Mapping[str, float], Mapping[str, Sequence[float]]] | None = None,
) -> Section:
    """How much of the figures could be chance: in words, by random draws, and as intervals.

    Args:
      words, chart: what stands above.
      pooled, intervals: figures of the pool and their intervals.
      portfolio: the same of the portfolio that is rebalanced daily.
    """
    rows = []
    named = [("", pooled, intervals), *([(", rebalanced daily", *portfolio)] if portfolio else [])]
    for which, figures, ends in named:
        for name, both in ends.items():
            metric = METRICS[name]
            cells = (FORMS[metric.form](x) for x in (figures[metric.column], *both))
            rows.append([metric.title + which, *cells])
    note = (
        "From histories resampled in blocks of these very bars (stationary bootstrap): how far the figures would vary "
        "if the same kind of bars came in another order and number. They say nothing of a market that changes."
    )
    return Section(
        "chance",
        "How much of this could be chance",
        "".join(f"<p>{esc(text)}</p>" for text in words)
        + chart
        + "<h3>90 % intervals</h3>"
        + tables.table(["", "Here", "From", "To"], rows)
        + muted(note),
    )


def costs(words: str, images: Images, rows: Sequence[Mapping[str, float]]) -> Section:
    """What is left at other costs; `rows` are pooled metrics at each `cost_multiple`."""
    named = [
        (f"{number(row['cost_multiple'], 0)}x", {k: v for k, v in row.items() if k != "cost_multiple"}) for row in rows
    ]
    caption = "Fee, spread, slippage and borrow cost all at the multiple; the policy decides anew at each."
    chart = figure(images, "costs", "Cost sweep", caption, "")
    return Section(
        "costs", "If trading costs more", f"<p>{esc(words)}</p>{chart}{tables.metric_tables('Costs', named)}"
    )


def trades(played: Evaluation | None, images: Images, none: str = "The policy closed no trade.") -> Section:
    """Trades on the price, where that is drawn, and closed trades by side and by reason."""
    if played is None:
        body = muted("No validated trades are in the run directory.")
    elif played.trades.height == 0:
        body = muted(none)
    else:
        caption = (
            f"The latest trades, at most {MAX_TRADES}, on {busiest_symbol(played)}, the symbol with the most. "
            "Triangles are entries, points are exits; full green lines gained, dashed ones lost."
        )
        money = "Net profit and fees are in units of the equity that each symbol\u2019s account started with."
        chart = figure(images, "trades", "Trades on the price", caption, "")
        body = chart + tables.trade_table(played) + muted(money)
    return Section("trades", "Trades", body)


def symbols(played: Evaluation | None, images: Images, note: str = "") -> Section:
    """Curves of single symbols, where they are drawn, and the metrics of all."""
    if played is None:
        return Section("symbols", "Symbols", muted("No validated symbols are in the run directory."))
    chart = ""
    if "symbols" in images:
        n = len(ranked_symbols(played))
        some = "" if n <= MAX_SYMBOLS else f" The {MAX_SYMBOLS // 2} best and worst of {n} symbols are shown."
        caption = f"Growth of 1.00 on each symbol: the policy in blue, buy-and-hold in grey.{some}"
        chart = figure(images, "symbols", "Equity of each symbol", caption, "")
    lead = f'<p class="lead">{esc(note)}</p>' if note else ""
    return Section("symbols", "Symbols", lead + chart + tables.symbol_table(played))


def gate(judged: Gate | None) -> Section:
    return Section("gate", "Gate", gate_page.section(judged))


def run(of: Provenance, own: Sequence[tuple[str, str]] = (), data: str = "") -> Section:
    """What ran where, on what, and with which configuration; `own` facts follow the common ones, then the `data`."""
    names = lookup(of.manifest, "features", "names", default=[])
    return Section(
        "run",
        "Run",
        tables.definitions([*tables.facts(of), *own])
        + data
        + "<h3>Values that differ from the defaults</h3>"
        + tables.changed_table(of)
        + folded("All configuration values", tables.config_table(of))
        + folded("Features", f"<p><code>{esc(', '.join(names))}</code></p>"),
    )


def glossary() -> Section:
    return Section("glossary", "Glossary", tables.glossary())


def footer(of: Provenance) -> str:
    """The version that made it, and its name."""
    return f"jaxppo {lookup(of.manifest, 'jaxppo', default='')}{DOT}{of.name}"


def source(of: Provenance) -> str:
    """What the bars are called."""
    return str(lookup(of.manifest, "data", "source", default="data"))
