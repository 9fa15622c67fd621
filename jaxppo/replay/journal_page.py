"""The page of a replayed session, made from its folder alone: where it differs from the account, when and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from jaxppo.page import canvas, document, sections, tables
from jaxppo.page.charts import Chart, Column, Line, Table, bars, growth
from jaxppo.page.document import Card, Remark, Section
from jaxppo.page.style import BENCHMARK, POLICY
from jaxppo.page.text import base_name, moment, number, percent, plural
from jaxppo.page.thin import decimate
from jaxppo.replay.journaled import CAUSES
from jaxppo.store.files import write_page
from jaxppo.store.json import read_figures
from jaxppo.store.read import load_mapping, load_numbers, times, values

EQUITY, DECISIONS, SUMMARY = "equity.csv", "decisions.csv", "summary.json"
_MOST = 5_000
"""Decisions that differ that a page holds; decisions.csv has all."""


@dataclass(frozen=True)
class JournalData:
    """The folder of a replayed session."""

    summary: dict[str, Any]
    equity: pl.DataFrame
    """One row a time: live and account of all symbols together."""
    decisions: pl.DataFrame
    """One row a bar on which the session traded otherwise."""


def load_journal_replay(folder: Path) -> JournalData:
    """Read the folder; `RunDirectoryError` where a file of it cannot be read."""
    rows = load_numbers(folder / EQUITY, ("time", "live", "account"), text=("symbol",))
    time = rows.select(pl.col("time").unique().sort())
    total = [pl.lit(0.0)] * 2
    joined = time
    for i, (name,) in enumerate(rows.select(pl.col("symbol").unique(maintain_order=True)).rows()):
        own = rows.filter(pl.col("symbol") == name).select("time", *(pl.col(c).fill_nan(None) for c in _BOTH))
        joined = joined.join(own.rename({c: f"{c}{i}" for c in _BOTH}), on="time", how="left")
        # A symbol without a bar keeps what it had; before its first bar it has what it begins with.
        filled = (pl.col(f"{c}{i}").forward_fill().backward_fill() for c in _BOTH)
        total = [a + b for a, b in zip(total, filled, strict=True)]
    equity = joined.select(
        pl.from_epoch(pl.col("time").cast(pl.Int64), "s").dt.replace_time_zone("UTC"),
        *(of.alias(c) for of, c in zip(total, _BOTH, strict=True)),
    )
    return JournalData(
        load_mapping(folder / SUMMARY, read_figures),
        equity,
        load_numbers(folder / DECISIONS, _UNITS, text=("time", "symbol", "decided", "cause")),
    )


_BOTH = ("live", "account")
_UNITS = ("live_units", "account_units", "live_price", "account_price")


def write_journal_report(folder: Path) -> Path:
    """Write FOLDER/plots/equity.png and FOLDER/report.html from the other files there, and return the page's path."""
    data = load_journal_replay(folder)
    return write_page(folder, {"equity": canvas.png(_picture(data))}, render(data))


def _picture(data: JournalData) -> Any:
    figure, (ax,) = canvas.grid(1, 1, 3.7)
    canvas.title(ax, "Equity of the session and of the account, all symbols together")
    for column, color, width in (("account", BENCHMARK, 2.4), ("live", POLICY, 1.4)):
        y = values(data.equity, column)
        at = decimate(y)
        ax.plot(times(data.equity)[at], y[at], color=color, linewidth=width, label=column)
    canvas.date_axis(ax, ticks=12)
    ax.margins(x=0.01)
    canvas.legend_above(ax)
    return figure


def render(data: JournalData) -> str:
    """The page as text."""
    s = data.summary
    title = f"Session of {base_name(str(s['run']))} at {s['broker']}, beside its account"
    first, last = (data.equity["time"].min(), data.equity["time"].max())
    about = [plural(int(s["bars"]), "bar"), plural(len(s["symbols"]), "symbol"), f"{moment(first)} to {moment(last)}"]
    return document.document(
        title,
        sections.header(title, about) + sections.verdict(verdict(data)) + document.cards(_cards(data)),
        [
            sections.equity("Equity", _equity(data), "Growth of 1.00: the session's own equity, and the account's."),
            Section("decisions", "Decisions that differ", _decisions(data)),
            Section("causes", "Why", _causes(data)),
        ],
        "jaxppo",
    )


def verdict(data: JournalData) -> Remark:
    """The same to the bit, or by how much money not, since when, and why most of it."""
    s = data.summary
    if s["same_bits"]:
        text = f"Every fill of {plural(int(s['bars']), 'bar')} is the account's own: equity {number(s['live_equity'])}."
        return Remark("good", "Live equals backtest to the bit", text)
    share = float(s["difference"]) / float(s["account_equity"])
    title = f"Live {number(s['live_equity'])}, account {number(s['account_equity'])}: {percent(share, 2, sign=True)}"
    causes = {k: float(v) for k, v in s["causes"].items()}
    most = max(causes, key=lambda k: abs(causes[k]))
    why = f"Most of it, {number(causes[most])}, is due to {CAUSES.get(most, 'rounding to float32')}."
    return Remark("caution", title, f"A difference of {number(float(s['difference']))}. {why} {_first(data)}")


def _first(data: JournalData) -> str:
    n = data.decisions.height
    if n == 0:
        return "No trade differs."
    first = data.decisions.row(0, named=True)
    return f"{plural(n, 'decision')} traded otherwise, first {moment(first['time'])} in {first['symbol']}."


def _cards(data: JournalData) -> list[Card]:
    s = data.summary
    return [
        Card("Live equity", number(float(s["live_equity"])), "by the journal, in the session's money"),
        Card("Account equity", number(float(s["account_equity"])), "of the same decisions"),
        Card("Difference", number(float(s["difference"])), "live less account"),
        Card("Decisions that differ", number(data.decisions.height, 0), f"of {plural(int(s['bars']), 'bar')}"),
    ]


def _equity(data: JournalData) -> Chart:
    curves = {column: values(data.equity, column) for column in _BOTH}
    start = curves["account"][0]
    lines = [
        Line("live", curves["live"] / start, "policy", 2.0),
        Line("account", curves["account"] / start, "benchmark"),
    ]
    gap = float(np.nanmax(np.abs(curves["live"] - curves["account"])))
    alt = f"Growth of the session and of the account; the largest gap between them is {number(gap)} of money."
    return growth("equity", "Equity and drawdown", times(data.equity), lines, alt)


def _decisions(data: JournalData) -> str:
    """The bars on which the session traded otherwise than the account, with their times."""
    if data.decisions.height == 0:
        return sections.muted("None: on every bar the session traded what the account did.")
    shown = data.decisions.head(_MOST).with_columns(
        *(pl.col(c).str.to_datetime(time_unit="us", time_zone="UTC").dt.epoch("s") for c in ("time", "decided")),
        pl.col("cause").replace(CAUSES).alias("why"),
    )
    columns = [
        Column("time", "Bar (UTC)", "time", meaning="Start of the bar on which it filled."),
        Column("symbol", "Symbol", "choice", frozen=True),
        Column("live_units", "Units, live", "number", digits=4),
        Column("account_units", "Units, account", "number", digits=4),
        Column("live_price", "Price, live", "price"),
        Column("account_price", "Price, account", "price"),
        Column("decided", "Decided (UTC)", "time", meaning="Start of the bar at whose close it was decided."),
        Column("why", "Why", "text"),
    ]
    some = "" if shown.height == data.decisions.height else f" The page holds {_MOST:,} of {data.decisions.height:,}."
    table = Table("decisions", columns, shown.select([c.field for c in columns]).rows())
    return document.table(table, f"Units that were traded on a bar, signed, orders and exits together.{some}")


def _causes(data: JournalData) -> str:
    """Money by cause, drawn and in words; they add up to the difference."""
    found = {k: float(v) for k, v in data.summary["causes"].items()}
    shown = {k: v for k, v in found.items() if abs(v) >= 0.005}
    names = {**CAUSES, "rounding": "float32"}
    rows = [[names[k], number(v)] for k, v in sorted(shown.items(), key=lambda pair: -abs(pair[1]))]
    if not rows:
        return sections.muted("No cause makes half a hundredth of money.")
    alt = "Money by cause, live less account"
    drawn = bars("causes", alt, list(shown), {alt: list(shown.values())}, alt, by_sign=True, flat=True)
    of = [[name, number(float(row["difference"])), "yes" if row["same_bits"] else "no"] for name, row in _symbols(data)]
    return (
        document.chart(drawn)
        + tables.table(["Cause", "Money, live less account"], rows)
        + "<h3>Symbols</h3>"
        + tables.table(["Symbol", "Money, live less account", "Same to the bit"], of)
    )


def _symbols(data: JournalData) -> list[tuple[str, dict[str, Any]]]:
    return sorted(data.summary["symbols"].items(), key=lambda pair: -abs(float(pair[1]["difference"])))
