"""The tables of a replay: equity bar by bar, trades, and what became of every decision, each row with its time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxppo.env.account import REASON_END, REASON_NONE, REASONS, StepRecord
from jaxppo.market.bars import Bars
from jaxppo.market.orders import Decisions
from jaxppo.play.trades import Range, Trade, excursions
from jaxppo.replay.played import Replay
from jaxppo.store.directory import iso
from jaxppo.store.files import write_csv
from jaxppo.store.tables import trade_cells

EQUITY, TRADES, EVENTS = "equity.csv", "trades.csv", "events.csv"
EQUITY_COLUMNS = ("bar", "cash", "units", "equity", "time", "open", "high", "low", "close", "buy_and_hold")
TRADE_COLUMNS = (
    *("entry_bar", "exit_bar", "side", "units", "entry_price", "exit_price", "fees", "pnl", "reason"),
    *("symbol", "entry_time", "exit_time", "bars", "impact", "borrow", "costs", "return", "mfe", "mae"),
)
CHANGED = ("cut", "refused", "unfilled", *REASONS[1:REASON_END])
"""Events by which the account did something else than it was told, or more."""


class Event(NamedTuple):
    """What became of a decision, or what the account did by itself."""

    time: str  # start of the bar on which it happened
    bar: int
    symbol: str
    event: str  # filled, levels, unchanged, one of CHANGED, or end
    decided_bar: int | None  # of a decision, the bar at whose close it was taken
    asked: float  # what it asked for, as `settings.order` of summary.json means it; nan for nothing
    units: float  # signed, that were filled
    price: float  # of the fill; nan without one
    note: str


def equity_rows(done: Replay, bars: Bars, cash: float) -> list[tuple[Any, ...]]:
    """A row a bar, the one before the first fill included."""
    record = done.record
    units, equity = (np.concatenate([[x], y]) for x, y in ((0.0, record.units), (cash, record.equity)))
    hold = cash * np.concatenate([[1.0], done.buy_and_hold])
    money = (equity - units * bars.close, units, equity)
    time = [iso(int(t)) for t in bars.time]
    columns = (*money, time, bars.open, bars.high, bars.low, bars.close, hold)
    return list(zip(range(len(time)), *(np.asarray(c).tolist() for c in columns), strict=True))


def trade_rows(trades: Sequence[Trade], record: StepRecord, bars: Bars) -> list[list[Any]]:
    """A row a closed trade; its bars count from 0, where row i of the record is bar i + 1."""
    ran = excursions(trades, record, Range(*(np.asarray(x)[1:] for x in (bars.open, bars.high, bars.low))))
    rows = []
    for trade, (best, worst) in zip(trades, ran, strict=True):
        entry, exit_ = trade.entry_bar + 1, trade.exit_bar + 1
        cells = trade_cells(trade) | {"entry_bar": entry, "exit_bar": exit_, "symbol": bars.symbol}
        cells |= {"entry_time": iso(int(bars.time[entry])), "exit_time": iso(int(bars.time[exit_]))}
        cells |= {"bars": exit_ - entry, "mfe": best, "mae": worst}
        rows.append([cells[c] for c in TRADE_COLUMNS])
    return rows


def events(decisions: Decisions, done: Replay, bars: Bars) -> list[Event]:
    """What became of every decision, and every exit of the account's own, in order."""
    found = [*_decided(decisions, done, bars), *_exits(done.record, bars)]
    return sorted(found, key=lambda e: e.bar)  # a stop follows the order of its own bar, as the sort keeps their order


def _decided(decisions: Decisions, done: Replay, bars: Bars) -> Iterator[Event]:
    record, last = done.record, len(bars.time) - 1
    order, price, units = (np.asarray(x, np.float64) for x in (record.order_units, record.order_price, record.units))
    exits = np.asarray(record.exit_units, np.float64)
    for i, bar in enumerate(decisions.bar.tolist()):
        asked = float(decisions.value[i])
        if bar == last:
            note = "decided at the last close: no bar follows on which it could fill"
            yield Event(iso(int(bars.time[bar])), bar, bars.symbol, "unfilled", bar, asked, 0.0, math.nan, note)
            continue
        filled, held = float(order[bar]), float(units[bar] - exits[bar])
        levels = not (math.isnan(decisions.stop[i]) and math.isnan(decisions.take_profit[i]))
        kind, note = _outcome(asked, filled, bool(done.sent.cut[bar]), bool(done.sent.dropped[bar]))
        if levels and held == 0 and kind != "refused":
            note = "; ".join(filter(None, (note, "stop and take-profit were dropped: no position to guard")))
            kind = "refused" if kind in ("levels", "unchanged") else kind
        fill = float(price[bar]) if filled else math.nan
        yield Event(iso(int(bars.time[bar + 1])), bar + 1, bars.symbol, kind, bar, asked, filled, fill, note)


def _outcome(asked: float, filled: float, cut: bool, dropped: bool) -> tuple[str, str]:
    """Event and note of a decision that had a bar to fill on."""
    if dropped:
        return "refused", "the account was gone"
    if cut:
        what = "cut to the largest exposure" if filled else "nothing was sent: the largest exposure is reached"
        return ("cut" if filled else "refused"), what
    if math.isnan(asked):
        return "levels", ""
    return ("filled", "") if filled else ("unchanged", "the position was that already")


def _exits(record: StepRecord, bars: Bars) -> Iterator[Event]:
    notes = {
        "stop": "the stop was reached",
        "take_profit": "the take-profit was reached",
        "liquidation": "equity fell to the ruin level: the account is closed for good",
        "end": "sold at the last close",
    }
    for row in np.flatnonzero(np.asarray(record.reason) != REASON_NONE).tolist():
        kind = REASONS[int(record.reason[row])]
        units, price = float(record.exit_units[row]), float(record.exit_price[row])
        time = iso(int(bars.time[row + 1]))
        yield Event(time, row + 1, bars.symbol, kind, None, math.nan, units, price, notes[kind])


def write_tables(
    folder: Path, decisions: Decisions, done: Replay, trades: Sequence[Trade], bars: Bars, cash: float
) -> None:
    """Write equity.csv, trades.csv and events.csv, each whole."""
    write_csv(folder / EQUITY, EQUITY_COLUMNS, equity_rows(done, bars, cash))
    write_csv(folder / TRADES, TRADE_COLUMNS, trade_rows(trades, done.record, bars))
    write_csv(folder / EVENTS, Event._fields, events(decisions, done, bars))
