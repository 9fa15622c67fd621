"""The page of a replay, made from its folder alone: what the decisions made, and what the account changed of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from jaxppo.page import canvas, document, plots, sections, tables
from jaxppo.page.charts import Chart, Column, Line, Table, growth
from jaxppo.page.document import Card, Remark, Section
from jaxppo.page.selection import DRAWDOWN_LIMIT
from jaxppo.page.style import BENCHMARK, GREY, POLICY
from jaxppo.page.text import base_name, between, moment, number, percent, plain_value, plural
from jaxppo.page.thin import decimate
from jaxppo.play.metrics import METRICS
from jaxppo.replay.files import CHANGED, EQUITY, EVENTS, TRADES
from jaxppo.store.columns import POOLED
from jaxppo.store.files import write_page
from jaxppo.store.json import read_figures
from jaxppo.store.read import Evaluation, load_mapping, load_numbers, of_symbol, times, values
from jaxppo.store.tables import drawdown

SUMMARY = "summary.json"
EVENT_NAMES = {
    "filled": "Filled as given",
    "levels": "Levels set",
    "unchanged": "Nothing to do",
    "cut": "Cut",
    "refused": "Refused",
    "unfilled": "Never filled",
    "stop": "Stop-loss",
    "take_profit": "Take-profit",
    "liquidation": "Liquidation",
    "end": "Sold at the end",
}


@dataclass(frozen=True)
class ReplayData:
    """The folder of a replay."""

    summary: dict[str, Any]
    played: Evaluation
    """Money in units of the cash that the account started with."""
    events: pl.DataFrame

    @property
    def symbol(self) -> str:
        return str(self.summary["data"]["symbol"])

    @property
    def cash(self) -> float:
        return float(self.summary["settings"]["cash"])

    @property
    def changed(self) -> pl.DataFrame:
        """The events by which the account did something else than it was told."""
        return self.events.filter(pl.col("event").is_in(CHANGED))


def load_replay(folder: Path) -> ReplayData:
    """Read a replay's folder; `RunDirectoryError` where a file of it cannot be read."""
    summary = load_mapping(folder / SUMMARY, read_figures)
    cash, symbol = float(summary["settings"]["cash"]), str(summary["data"]["symbol"])
    bars = load_numbers(folder / EQUITY, ("equity", "close", "units", "buy_and_hold"), text=("time",))
    own = bars.select(
        pl.lit(symbol).alias("symbol"),
        _time("time"),
        *_PRICES,
        equity=pl.col("equity") / cash,
        exposure=(pl.col("units") * pl.col("close") / pl.col("equity")).fill_nan(0.0),
        action=pl.lit(0),
        benchmark=pl.col("buy_and_hold") / cash,
    )
    pooled = own.with_columns(pl.lit(POOLED).alias("symbol"), *(pl.lit(None, pl.Float64).alias(k) for k in _PRICES))
    text = ("side", "reason", "symbol", "entry_time", "exit_time")
    trades = load_numbers(folder / TRADES, ("pnl",), text=text).with_columns(
        _time("entry_time"),
        _time("exit_time"),
        *(pl.col(name) / cash for name in ("fees", "impact", "borrow", "costs", "pnl")),
    )
    figures = {m.column: summary["metrics"].get(m.name) for m in METRICS.values() if m.name in summary["metrics"]}
    figures["buy_and_hold_return"] = summary["buy_and_hold_return"]
    symbols = pl.DataFrame([{"symbol": name, **figures} for name in (symbol, POOLED)])
    notes = ("time", "symbol", "event", "note")
    found = load_numbers(folder / EVENTS, ("bar", "decided_bar", "asked", "units", "price"), text=notes)
    return ReplayData(summary, Evaluation(pl.concat([own, pooled]), trades, symbols), found)


_PRICES = ("open", "high", "low", "close")


def _time(name: str) -> pl.Expr:
    return pl.col(name).str.to_datetime(time_unit="us", time_zone="UTC")


def write_replay_report(folder: Path) -> Path:
    """Write FOLDER/plots/*.png and FOLDER/report.html from the other files there, and return the page's path."""
    data = load_replay(folder)
    figures = {
        "equity": _equity_picture(data),
        "drawdown": plots.underwater(data.played),
        "trades": plots.trades_on_price(data.played),
    }
    images = {name: canvas.png(figure) for name, figure in figures.items() if figure is not None}
    return write_page(folder, images, render(data))


def _equity_picture(data: ReplayData) -> Any:
    pooled = of_symbol(data.played.equity, POOLED)
    figure, (ax,) = canvas.grid(1, 1, 3.7)
    canvas.title(ax, "Equity after costs")
    ax.axhline(1.0, color=GREY, linewidth=0.9, zorder=1)
    for column, color, width, name in (
        ("benchmark", BENCHMARK, 1.6, "buy-and-hold"),
        ("equity", POLICY, 2.1, "these decisions"),
    ):
        y = values(pooled, column)
        at = decimate(y)
        ax.plot(times(pooled)[at], y[at], color=color, linewidth=width, label=f"{name} {percent(y[-1] - 1, sign=True)}")
    canvas.date_axis(ax, ticks=12)
    ax.margins(x=0.01)
    canvas.legend_above(ax)
    return figure


def render(data: ReplayData) -> str:
    """The page as text."""
    s = data.summary
    title = f"Decisions of {base_name(s['settings']['targets'])} on {data.symbol}"
    return document.document(
        title,
        sections.header(title, _about(data)) + sections.verdict(verdict(data)) + document.cards(_cards(data)),
        [
            sections.equity("Equity against holding", _equity(data), _CAPTION, _chance_words(data)),
            Section("changed", "What the account changed", _changed(data)),
            sections.trades(data.played, "No trade was closed."),
            sections.symbols(data.played),
            sections.costs(_cost_words(data), [_named(row) for row in s["costs"]]),
            Section("played", "What was played", tables.definitions(_facts(data)), sections.RUN),
            sections.glossary(),
        ],
        "jaxppo",
    )


_CAPTION = (
    "Growth of 1.00 after costs. Buy-and-hold buys with all cash at the first open and sells at the last close, at the"
    " same costs."
)


def _named(row: Mapping[str, float]) -> dict[str, float]:
    """Figures by the columns of files."""
    return {METRICS[k].column if k in METRICS else k: v for k, v in row.items()}


def _about(data: ReplayData) -> list[str]:
    s, time = data.summary, data.played.equity["time"]
    return [
        f"{s['data']['interval']} bars",
        plural(int(s["counts"]["decisions"]), "decision"),
        f"{moment(time.min())} to {moment(time.max())}",
        f"begun with {number(data.cash)} in the currency of the bars",
    ]


def verdict(data: ReplayData) -> Remark:
    """What the decisions made against holding at the same costs, and what the account changed of them."""
    s = data.summary
    gain, hold = float(s["metrics"]["net_return"]), float(s["buy_and_hold_return"])
    better = gain > max(hold, 0.0)
    title = f"Made {percent(gain, sign=True)}, holding {percent(hold, sign=True)} at the same costs"
    text = (
        f"{number(data.cash)} became {number(float(s['final_equity']))} with"
        f" {plural(int(s['metrics']['trades']), 'closed trade')}; fees, spread, slippage and borrow cost took"
        f" {number(float(s['total_cost']))}. {_still_open(data)}{changed_words(data)}"
    )
    return Remark("" if better else "bad", title, text)  # green is for what passed a gate


def _still_open(data: ReplayData) -> str:
    still = data.summary["open_position"]
    if not isinstance(still, dict):
        return ""
    return f"A {still['side']} position is still open, at {number(float(still['pnl']))} so far. "


def changed_words(data: ReplayData) -> str:
    """How many decisions the account did not follow, of each kind the first with its time and symbol."""
    changed = data.changed
    if changed.height == 0:
        return "The account did every decision as it was given."
    parts = []
    for kind in CHANGED:
        rows = changed.filter(pl.col("event") == kind)
        if rows.height:
            first = rows.row(0, named=True)
            when = f"{'first ' if rows.height > 1 else ''}{moment(first['time'])}, {first['symbol']}"
            parts.append(f"{EVENT_NAMES[kind].lower()} {number(rows.height, 0)} ({when})")
    return f"What the account did besides: {'; '.join(parts)}."


def _cards(data: ReplayData) -> list[Card]:
    s = data.summary
    m = s["metrics"]
    fall = float(drawdown(values(of_symbol(data.played.equity, POOLED), "benchmark")).max())
    trades = f"of {plural(int(m['trades']), 'closed trade')}"
    return [
        sections.return_card(float(m["net_return"]), float(s["buy_and_hold_return"])),
        Card("Sharpe ratio a year", number(float(m["sharpe"])), _interval(s)),
        sections.drawdown_card(float(m["max_drawdown"]), fall, DRAWDOWN_LIMIT),
        sections.profit_card(float(m["profit_factor"]), trades),
        Card("Costs", number(float(s["total_cost"])), f"{percent(float(s['total_cost']) / data.cash)} of the cash"),
        Card("Changed", number(data.changed.height, 0), "events, see \u201cWhat the account changed\u201d"),
    ]


def _interval(summary: Mapping[str, Any]) -> str:
    low, high = summary["intervals_90"]["sharpe"]
    return f"90 % interval {between(float(low), float(high))}"


def _equity(data: ReplayData) -> Chart:
    pooled = of_symbol(data.played.equity, POOLED)
    lines = [
        Line("these decisions", values(pooled, "equity"), "policy", 2.2),
        Line("buy-and-hold", values(pooled, "benchmark"), "benchmark"),
    ]
    ends = ", ".join(f"{line.name} {percent(line.values[-1] - 1, sign=True)}" for line in lines)
    alt = f"Growth of 1.00 over time and drawdown. At the end: {ends}."
    return growth("equity", "Equity and drawdown", times(pooled), lines, alt)


def _chance_words(data: ReplayData) -> str:
    moved = data.summary["same_orders_at_random_times"]
    if "net_return" not in moved:
        return ""
    mean, share = float(moved["net_return"]["mean"]), float(moved["beaten_share"])
    return sections.muted(
        f"The same orders at {plural(int(moved['draws']), 'other time')} made {percent(mean, sign=True)} on average;"
        f" these made more than {percent(share, 0)} of them. What is above that is timing."
    )


def _cost_words(data: ReplayData) -> str:
    at = {float(row["cost_multiple"]): float(row["net_return"]) for row in data.summary["costs"]}
    return (
        f"Without costs the same decisions make {percent(at[0.0], sign=True)}, at these {percent(at[1.0], sign=True)},"
        f" at twice these {percent(at[2.0], sign=True)}."
    )


def _changed(data: ReplayData) -> str:
    """The table of all that the account did, what it changed first."""
    words = f"<p>{tables.esc(changed_words(data))}</p>"
    if data.events.height == 0:
        return words
    order = pl.col("event").is_in(CHANGED)
    rows = data.events.with_columns(
        pl.col("event").replace(EVENT_NAMES).alias("kind"),
        _time("time").dt.epoch("s"),
        order.alias("changed"),
    ).sort("changed", descending=True, maintain_order=True)
    columns = [
        Column("time", "Bar (UTC)", "time", meaning="Start of the bar on which it happened."),
        Column("symbol", "Symbol", "choice", frozen=True),
        Column("kind", "What happened", "choice"),
        Column("asked", f"Asked ({data.summary['settings']['order']})", "number", digits=4),
        Column("units", "Units filled", "number", digits=4),
        Column("price", "Price", "price"),
        Column("decided_bar", "Decided at bar", "whole", meaning="Index of the bar at whose close it was decided."),
        Column("note", "Why", "text"),
    ]
    shown = rows.head(_MOST)
    some = "" if shown.height == rows.height else f" The page holds {_MOST:,} of {rows.height:,}; events.csv has all."
    table = Table("events", columns, shown.select([c.field for c in columns]).rows())
    return words + document.table(table, f"Every decision, and every exit of the account's own.{some}")


_MOST = 5_000
"""Events that a page holds: 0.5 MB of it."""


def _facts(data: ReplayData) -> list[tuple[str, str]]:
    s = data.summary["settings"]
    given = {k: v for k, v in s.items() if v not in ("", [], {}) and v == v}  # a null is nan here
    named = {k: base_name(str(v)) if k in ("bars", "targets", "costs") else plain_value(v) for k, v in given.items()}
    return [(k.replace("_", " ").capitalize(), v) for k, v in named.items()]
