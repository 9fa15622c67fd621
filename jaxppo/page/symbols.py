"""What the page's chart of one symbol at a time draws: candles, curves and trades, thinned to what a page can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from jaxppo.page.charts import Column, Table
from jaxppo.page.selection import ranked_symbols
from jaxppo.page.tables import REASONS, SIDES
from jaxppo.page.text import plural
from jaxppo.store.read import Evaluation, of_symbol, times, values

CANDLES = 30_000
"""Candles of all symbols of a page together: 2 MB of it."""
TRADES = 6_000
"""Trades that a page holds, the latest: 0.7 MB of it."""

_LAST = ("close", "equity", "benchmark", "exposure")


def shown_trades(played: Evaluation) -> pl.DataFrame:
    """The latest trades that a page holds, by entry, numbered from 0."""
    latest = played.trades.sort("entry_time", maintain_order=True).tail(TRADES)
    return latest.with_row_index("number")


def series(played: Evaluation, trades: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Of each symbol, the highest return first, what `assets/symbols.js` draws.

    Args:
      played: bars and accounts.
      trades: of `shown_trades`.
    """
    names = ranked_symbols(played)
    limit = max(CANDLES // max(len(names), 1), 200)
    return {name: _one(of_symbol(played.equity, name), of_symbol(trades, name), limit) for name in names}


def _one(rows: pl.DataFrame, trades: pl.DataFrame, limit: int) -> dict[str, Any]:
    """One symbol, of at most `limit` candles."""
    bars = -(-rows.height // limit) if rows.height else 1
    buckets = rows.with_row_index("bar").group_by(pl.col("bar") // bars, maintain_order=True)
    named = {"open": pl.col("open").first(), "high": pl.col("high").max(), "low": pl.col("low").min()}
    prices = named if set(named) <= set(rows.columns) else {}
    found = buckets.agg(pl.col("time").first(), *(pl.col(c).last() for c in _LAST), **prices)
    price = {name: _digits(values(found, name), 6) for name in ("close", *prices)}
    note = f"{plural(rows.height, 'bar')}, {'one' if bars == 1 else bars} to a candle."
    return {
        "time": (times(found).astype(np.int64) // 60),
        **price,
        "equity": _digits(values(found, "equity"), 5),
        "hold": _digits(values(found, "benchmark"), 5),
        "exposure": np.round(values(found, "exposure"), 3),
        "trades": _trades(trades, times(rows), bars),
        "note": note,
    }


def _digits(numbers: np.ndarray, digits: int) -> np.ndarray:
    """Numbers to so many significant digits."""
    size = np.where(numbers == 0, 1.0, np.abs(numbers))
    scale = 10.0 ** (digits - 1 - np.floor(np.log10(size)))
    rounded: np.ndarray = np.round(numbers * scale) / scale
    return rounded


def _trades(trades: pl.DataFrame, time: np.ndarray, bars: int) -> list[dict[str, Any]]:
    """Trades of one symbol with the candles of their entry and exit."""
    entry, exit_ = (np.searchsorted(time, times(trades, c)) // bars for c in ("entry_time", "exit_time"))
    columns = ("number", "side", "reason", "entry_price", "exit_price", "pnl", "return", "bars")
    rows = trades.select(columns).to_dicts()
    return [row | {"entry": int(a), "exit": int(b)} for row, a, b in zip(rows, entry, exit_, strict=True)]


_COLUMNS: Mapping[str, Column] = {
    "symbol": Column("symbol", "Symbol", "choice", frozen=True),
    "side": Column("side", "Side", "choice", meaning="Which way the position was."),
    "entry_time": Column("entry_time", "Entry (UTC)", "time", meaning="Start of the bar of the first fill."),
    "entry_price": Column("entry_price", "Entry price", "price", meaning="Mean price of all entries, spread paid."),
    "exit_time": Column("exit_time", "Exit (UTC)", "time", meaning="Start of the bar of the last fill."),
    "exit_price": Column("exit_price", "Exit price", "price", meaning="Mean price of all exits, spread paid."),
    "reason": Column("reason", "Exit by", "choice", meaning="What closed it."),
    "bars": Column("bars", "Bars held", "whole"),
    "return": Column("return", "Return", "signed", meaning="Net profit over the notional of all its entries."),
    "pnl": Column(
        "pnl",
        "Net profit",
        "number",
        digits=4,
        meaning="In units of the equity that the symbol's account started with, net of all costs.",
    ),
    "costs": Column("costs", "Costs", digits=4, meaning="Fees, spread, slippage and borrow cost, in the same units."),
    "mfe": Column("mfe", "Best until exit", "signed", meaning="Maximum favourable excursion over the entry notional."),
    "mae": Column("mae", "Worst until exit", "signed", meaning="Maximum adverse excursion over the entry notional."),
    "cumulative_pnl": Column(
        "cumulative_pnl",
        "Running profit",
        digits=4,
        meaning="Net profit of all trades of all symbols closed until then.",
    ),
}
"""Columns of the table of trades, in their order; a folder of an earlier version has not all of them."""


def trade_list(trades: pl.DataFrame) -> Table:
    """The table of all trades that a page holds; `trades` are of `shown_trades`."""
    columns = [c for c in _COLUMNS.values() if c.field in trades.columns]
    shown = trades.with_columns(
        pl.col("side").replace(SIDES),
        pl.col("reason").replace(REASONS),
        *(pl.col(c).dt.epoch("s") for c in ("entry_time", "exit_time")),
    )
    return Table("trades", columns, shown.select([c.field for c in columns]).rows(), show=True)
