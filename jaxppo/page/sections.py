"""The sections of a page that the pages of runs, backtests and walk-forwards share, for the figures of any policy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from jaxppo.page import gate as gate_page
from jaxppo.page import symbols as symbol_page
from jaxppo.page import tables
from jaxppo.page.charts import Chart, bars
from jaxppo.page.document import DOT, Card, Remark, Section, chart, remark_list, symbol_view, table
from jaxppo.page.tables import esc
from jaxppo.page.text import FORMS, number, percent
from jaxppo.play.gate import Gate
from jaxppo.play.metrics import METRICS
from jaxppo.store.read import Evaluation, Provenance, lookup

EQUITY, TRADES, COSTS, CHECKS, RUN = "Equity", "Trades", "Costs", "Checks", "Run"
"""Tabs that several sections stand in."""


def header(title: str, facts: Sequence[str]) -> str:
    """The page's title, and what it is about in one line."""
    named = "".join(f'<option value="{t}">{t}</option>' for t in ("auto", "light", "dark"))
    theme = f'<label class="theme">Theme <select id="theme">{named}</select></label>'
    words = f'<h1>{esc(title)}</h1><p class="lead">{esc(DOT.join(facts))}</p>'
    return f'<header class="bar"><div>{words}</div>{theme}</header>'


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
    return Section("warnings", heading, remark_list(found), CHECKS)


def equity(heading: str, curves: Chart | None, caption: str, *below: str, missing: str = "") -> Section:
    """The pooled curve over its drawdown, and what stands `below`; a sentence where it is `missing`."""
    body = muted(missing) if curves is None else chart(curves, caption)
    return Section("equity", heading, body + "".join(below), EQUITY)


def chance(
    words: Sequence[str],
    drawn: str,
    pooled: Mapping[str, float],
    intervals: Mapping[str, Sequence[float]],
    portfolio: tuple[Mapping[str, float], Mapping[str, Sequence[float]]] | None = None,
) -> Section:
    """How much of the figures could be chance: in words, by random draws, and as intervals.

    Args:
      words, drawn: what stands above.
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
        + drawn
        + "<h3>90 % intervals</h3>"
        + tables.table(["", "Here", "From", "To"], rows)
        + muted(note),
        EQUITY,
    )


def costs(words: str, rows: Sequence[Mapping[str, float]]) -> Section:
    """What is left at other costs; `rows` are pooled metrics at each `cost_multiple`."""
    named = [
        (f"{number(row['cost_multiple'], 0)}x", {k: v for k, v in row.items() if k != "cost_multiple"}) for row in rows
    ]
    caption = "Fee, spread, slippage and borrow cost all at the multiple; the policy decides anew at each."
    names = [name for name, _ in named]

    def drawn(column: str, title: str, form: str) -> str:
        alt, heights = f"{title} at multiples of the costs", {title: [row[column] for _, row in named]}
        return chart(bars(f"costs_{column}", alt, names, heights, alt, form=form, by_sign=True, height=210))

    both = drawn("return", "Net return", "signed") + drawn("sharpe", "Sharpe ratio", "number")
    body = f'<p>{esc(words)}</p><div class="columns">{both}</div>{muted(caption)}{tables.metric_tables("Costs", named)}'
    return Section("costs", "If trading costs more", body, COSTS)


def trades(played: Evaluation | None, none: str = "The policy closed no trade.") -> Section:
    """Closed trades by side and by reason, and all of them to sort, filter and download."""
    if played is None:
        body = muted("No validated trades are in the run directory.")
    elif played.trades.height == 0:
        body = muted(none)
    else:
        shown = symbol_page.shown_trades(played)
        n, held = played.trades.height, shown.height
        some = "" if held == n else f" The page holds the latest {held:,} of {n:,}."
        money = "Net profit and fees are in units of the equity that each symbol\u2019s account started with."
        listed = symbol_page.trade_list(shown)
        body = tables.trade_table(played) + muted(money) + "<h3>All trades</h3>" + table(listed, _BESIDE + some)
    return Section("trades", "Trades", body, TRADES)


_BESIDE = (
    "Click a heading to sort, type or choose under it to filter; \u201cshow\u201d draws the trade on its symbol. The "
    "tables of trades beside this page have all of them."
)


def symbols(played: Evaluation | None, note: str = "") -> Section:
    """One symbol at a time with its trades, and the metrics of all."""
    if played is None:
        return Section("symbols", "Symbols", muted("No validated symbols are in the run directory."))
    drawn = symbol_page.series(played, symbol_page.shown_trades(played))
    caption = (
        "Triangles are entries, other marks exits by what closed the trade, each at the mean price of its fills; full "
        "green lines gained, dashed ones lost. "
        "Under the price: the account\u2019s equity against buy-and-hold, and its exposure. Drag to move; Ctrl and "
        "wheel, or the brush, zoom. By keyboard the arrows read values, with Shift they move; + and \u2212 zoom, and "
        "0 shows all."
    )
    lead = f'<p class="lead">{esc(note)}</p>' if note else ""
    body = lead + symbol_view(drawn, caption) + "<h3>Metrics of each symbol</h3>" + tables.symbol_table(played)
    return Section("symbols", "Symbols", body)


def gate(judged: Gate | None) -> Section:
    return Section("gate", "Gate", gate_page.section(judged), CHECKS)


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
        RUN,
    )


def glossary() -> Section:
    return Section("glossary", "Glossary", tables.glossary(), RUN)


def footer(of: Provenance) -> str:
    """The version that made it, and its name."""
    return f"jaxppo {lookup(of.manifest, 'jaxppo', default='')}{DOT}{of.name}"


def source(of: Provenance) -> str:
    """What the bars are called."""
    return str(lookup(of.manifest, "data", "source", default="data"))
