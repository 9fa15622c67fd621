"""What a validated policy did, as files: equity and trades as Parquet, per-symbol figures as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl

from jaxppo.market.dataset import Split, joint_calendar
from jaxppo.play.score import Score
from jaxppo.play.trades import Trade, round_trips
from jaxppo.store.columns import POOLED
from jaxppo.store.files import write_frame
from jaxppo.store.rows import symbol_rows

FOLDER, PORTFOLIOS, MEMBERS = "validation", "portfolios.csv", "members.csv"
_TRADE_SCHEMA = {
    "symbol": pl.String,
    "side": pl.String,
    "entry_time": pl.Datetime("us", "UTC"),
    "exit_time": pl.Datetime("us", "UTC"),
    "bars": pl.Int64,
    "units": pl.Float64,
    "entry_price": pl.Float64,
    "exit_price": pl.Float64,
    "fees": pl.Float64,
    "borrow": pl.Float64,
    "pnl": pl.Float64,
    "return": pl.Float64,
    "reason": pl.String,
}


def utc_times(seconds: np.ndarray) -> pl.Series:
    """UTC seconds (N,) as a column of times."""
    return pl.Series((seconds * 1_000_000).astype(np.int64)).cast(pl.Datetime("us", "UTC"))


def drawdown(equity: np.ndarray) -> np.ndarray:
    """Fraction lost since the highest equity so far, (T,) in [0, 1], of an equity curve (T,) that starts at 1."""
    return 1.0 - equity / np.fmax(np.fmax.accumulate(equity), 1.0)


def _symbol_equity(score: Score, split: Split, column: int) -> pl.DataFrame:
    n = int(score.valid[:, column].sum())
    first = int(split.tape.first[column])
    rows = slice(first + 1, first + 1 + n)
    close = np.asarray(split.tape.close[column], np.float64)[rows]
    equity = score.record.equity[:n, column].astype(np.float64)
    units = score.record.units[:n, column].astype(np.float64)
    return pl.DataFrame(
        {
            "symbol": [split.symbols[column]] * n,
            "time": utc_times(split.times[column][rows]),
            "close": close,
            "equity": equity,
            "units": units,
            "exposure": units * close / np.maximum(equity, 1e-9),
            "action": score.action[:n, column].astype(np.int64),
            "benchmark": score.curves.symbol_hold[:n, column].astype(np.float64),
        }
    )


def equity_frame(score: Score, split: Split) -> pl.DataFrame:
    """Equity of every symbol's account and of the pool, one row a bar. `score` holds host arrays."""
    joint = joint_calendar(split).time
    pooled = pl.DataFrame(
        {
            "symbol": [POOLED] * len(joint),
            "time": utc_times(joint),
            "equity": score.curves.pooled.astype(np.float64),
            "benchmark": score.curves.hold.astype(np.float64),
        }
    )
    frames = [_symbol_equity(score, split, i) for i in range(len(split.symbols))]
    return pl.concat([*frames, pooled], how="diagonal")


def portfolio_frame(score: Score, split: Split) -> pl.DataFrame:
    """Equity of the portfolio that is rebalanced daily, one row a UTC date. `score` holds host arrays."""
    equity = np.asarray(score.curves.portfolio, np.float64)
    date = utc_times(joint_calendar(split).day).dt.date()
    return pl.DataFrame({"date": date, "equity": equity, "drawdown": drawdown(equity)})


def trade_cells(trade: Trade) -> dict[str, Any]:
    """What every table of trades says of one, whatever it counts time by."""
    money = ("units", "entry_price", "exit_price", "fees", "borrow", "pnl")
    return {
        "side": trade.side,
        **{name: getattr(trade, name) for name in money},
        "return": trade.return_,
        "reason": trade.reason,
    }


def _trade_row(trade: Trade, symbol: str, fills: np.ndarray) -> dict[str, Any]:
    entry, exit_ = (fills[[trade.entry_bar, trade.exit_bar]] * 1_000_000).astype(int).tolist()
    where = {"symbol": symbol, "entry_time": entry, "exit_time": exit_, "bars": trade.exit_bar - trade.entry_bar}
    return where | trade_cells(trade)


def trades_frame(score: Score, split: Split) -> pl.DataFrame:
    """Every closed round trip, by symbol and time. `score` holds host arrays."""
    rows = []
    for i, symbol in enumerate(split.symbols):
        n = int(score.valid[:, i].sum())
        fills = split.times[i][int(split.tape.first[i]) + 1 :]
        record = jax.tree.map(lambda x, i=i, n=n: x[:n, i], score.record)
        rows += [_trade_row(t, symbol, fills) for t in round_trips(record, float(split.tape.costs.fee[i]))]
    raw = {k: (pl.Int64 if isinstance(v, pl.Datetime) else v) for k, v in _TRADE_SCHEMA.items()}
    return pl.DataFrame(rows, schema=raw).cast(_TRADE_SCHEMA)  # type: ignore[arg-type]


def write_portfolios(run_dir: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write what `portfolio_rows` gives next to the validations."""
    write_frame(run_dir / FOLDER / PORTFOLIOS, pl.DataFrame(rows))


def write_members(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write members.csv, what `member_rows` gives of an ensemble."""
    write_frame(folder / MEMBERS, pl.DataFrame(rows))


def write_validation(run_dir: Path, name: str, score: Score, split: Split, labels: Sequence[str]) -> None:
    """Write NAME_equity.parquet, NAME_trades.parquet, NAME_portfolio.csv and NAME_symbols.csv; `score` on the host."""
    folder = run_dir / FOLDER
    folder.mkdir(exist_ok=True)
    write_frame(folder / f"{name}_equity.parquet", equity_frame(score, split))
    write_frame(folder / f"{name}_portfolio.csv", portfolio_frame(score, split))
    write_frame(folder / f"{name}_trades.parquet", trades_frame(score, split))
    rows: Sequence[dict[str, Any]] = symbol_rows(score.figures, split.symbols, labels)
    write_frame(folder / f"{name}_symbols.csv", pl.DataFrame(rows))
