"""What a validated policy did, as files: equity and trades as Parquet, per-symbol figures as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl

from jaxppo.market.dataset import Split, joint_calendar
from jaxppo.play.portfolio import Joined
from jaxppo.play.score import Score
from jaxppo.play.trades import Excursion, Range, Trade, excursions, round_trips
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
    "impact": pl.Float64,
    "borrow": pl.Float64,
    "costs": pl.Float64,
    "pnl": pl.Float64,
    "return": pl.Float64,
    "mfe": pl.Float64,
    "mae": pl.Float64,
    "reason": pl.String,
    "cumulative_pnl": pl.Float64,
}
"""Columns of a table of trades. Money is in the equity that an account started with; `impact` is spread and slippage,
`costs` are fees, impact and borrow cost, `mfe` and `mae` the maximum favourable and adverse excursion over the entry
notional (see `jaxppo.play.trades.excursions`), and `cumulative_pnl` the net profit of all trades closed until then, of
all symbols."""


def utc_times(seconds: np.ndarray) -> pl.Series:
    """UTC seconds (N,) as a column of times."""
    return pl.Series((seconds * 1_000_000).astype(np.int64)).cast(pl.Datetime("us", "UTC"))


def drawdown(equity: np.ndarray) -> np.ndarray:
    """Fraction lost since the highest equity so far, (T,) in [0, 1], of an equity curve (T,) that starts at 1."""
    return 1.0 - equity / np.fmax(np.fmax.accumulate(equity), 1.0)


def _host(array: jax.Array | np.ndarray) -> np.ndarray:
    """A whole array on the host, which keeps it: taking a row of it on the device would be a program to compile."""
    return np.asarray(array)


def _symbol_equity(score: Score, split: Split, column: int) -> pl.DataFrame:
    n = int(score.valid[:, column].sum())
    first = int(_host(split.tape.first)[column])
    rows = slice(first + 1, first + 1 + n)
    tape = split.tape
    names = ("open", "high", "low", "close")
    prices = {name: _host(getattr(tape, name))[column, rows].astype(np.float64) for name in names}
    close = prices["close"]
    equity = score.record.equity[:n, column].astype(np.float64)
    units = score.record.units[:n, column].astype(np.float64)
    return pl.DataFrame(
        {
            "symbol": [split.symbols[column]] * n,
            "time": utc_times(split.times[column][rows]),
            **prices,
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


def joined_frame(joined: Joined, members: Joined | None) -> pl.DataFrame:
    """One row a UTC date: the policy's return, equity and drawdown, then the return of each baseline and member."""
    equity = np.cumprod(1.0 + joined.returns[0])
    alone = {} if members is None else dict(zip(members.names, members.returns, strict=True))
    return pl.DataFrame(
        {
            "date": utc_times(joined.day).dt.date(),
            "fold": joined.fold,
            "return": joined.returns[0],
            "equity": equity,
            "drawdown": drawdown(equity),
            **dict(zip(joined.names[1:], joined.returns[1:], strict=True)),
            **alone,
        }
    )


def trade_cells(trade: Trade) -> dict[str, Any]:
    """What every table of trades says of one, whatever it counts time by."""
    money = ("units", "entry_price", "exit_price", "fees", "impact", "borrow", "costs", "pnl")
    return {
        "side": trade.side,
        **{name: getattr(trade, name) for name in money},
        "return": trade.return_,
        "reason": trade.reason,
    }


def symbol_trades(score: Score, split: Split, column: int) -> tuple[list[Trade], list[Excursion]]:
    """The closed round trips of one symbol, and how far each ran. `score` holds host arrays."""
    tape, n = split.tape, int(score.valid[:, column].sum())
    first = int(_host(tape.first)[column]) + 1
    record = jax.tree.map(lambda x: x[:n, column], score.record)
    bars = Range(*(_host(x)[column, first : first + n] for x in (tape.open, tape.high, tape.low)))
    trades = round_trips(record, float(_host(tape.costs.fee)[column]), float(_host(tape.costs.impact)[column]))
    return trades, excursions(trades, record, bars)


def _trade_row(trade: Trade, ran: Excursion, symbol: str, fills: np.ndarray) -> dict[str, Any]:
    entry, exit_ = (fills[[trade.entry_bar, trade.exit_bar]] * 1_000_000).astype(int).tolist()
    where = {"symbol": symbol, "entry_time": entry, "exit_time": exit_, "bars": trade.exit_bar - trade.entry_bar}
    return where | trade_cells(trade) | {"mfe": ran.favourable, "mae": ran.adverse}


def trades_frame(score: Score, split: Split) -> pl.DataFrame:
    """Every closed round trip, by symbol and time. `score` holds host arrays."""
    rows = []
    for i, symbol in enumerate(split.symbols):
        fills = split.times[i][int(_host(split.tape.first)[i]) + 1 :]
        rows += [_trade_row(*each, symbol, fills) for each in zip(*symbol_trades(score, split, i), strict=True)]
    raw = {k: (pl.Int64 if isinstance(v, pl.Datetime) else v) for k, v in _TRADE_SCHEMA.items()}
    return with_cumulative(pl.DataFrame(rows, schema=raw).cast(_TRADE_SCHEMA))  # type: ignore[arg-type]


def with_cumulative(trades: pl.DataFrame) -> pl.DataFrame:
    """A table of trades with their cumulative net profit, in the order in which they were closed."""
    row = trades.select(pl.col("exit_time").arg_sort()).to_series()
    total = trades["pnl"].gather(row).cum_sum().gather(row.arg_sort())
    return trades.with_columns(total.alias("cumulative_pnl"))


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
