"""Files of a validation: the equity of every bar and every round trip, at the times and prices at which they happened.

Two symbols, five-minute bars that start at different times of the hour, no stops, 0.1 % a side:

    ONE  first decision on bar 3, 12 bars: decides on bars 3 to 10, which fill on bars 4 to 11
    TWO  first decision on bar 2,  6 bars: decides on bars 2 to 4,  which fill on bars 3 to 5
"""

from __future__ import annotations

from datetime import UTC, datetime

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from helpers import bracketed, random_tape

from jaxppo.config.schema import RewardConfig
from jaxppo.env.trading import env_spec
from jaxppo.market.dataset import Split, evaluation_set
from jaxppo.play.deciders import given_actions
from jaxppo.play.passes import n_decisions, play
from jaxppo.play.score import score
from jaxppo.store.tables import equity_frame, trades_frame, write_validation

LABELS = ("hold", "buy", "sell")
HOLD, BUY, SELL = 0, 1, 2
START = int(datetime(2024, 3, 1, tzinfo=UTC).timestamp())
TIMES = (START + 300 * np.arange(12), START + 120 + 300 * np.arange(6))
SYMBOLS = ("ONE", "TWO")
# ONE: long on the fill of its second decision, short on that of its fourth, until the end. TWO: long, until the end.
ACTIONS = np.int32([[HOLD, HOLD], [BUY, BUY], [HOLD, HOLD], [SELL, 0], [HOLD, 0], [HOLD, 0], [HOLD, 0], [HOLD, 0]])
FIRST, DECISIONS = (3, 2), (8, 3)
EQUITY_SCHEMA = {
    "symbol": pl.String,
    "time": pl.Datetime("us", "UTC"),
    "open": pl.Float64,
    "high": pl.Float64,
    "low": pl.Float64,
    "close": pl.Float64,
    "equity": pl.Float64,
    "units": pl.Float64,
    "exposure": pl.Float64,
    "action": pl.Int64,
    "benchmark": pl.Float64,
}
TRADE_SCHEMA = {
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


def utc(symbol: int, bar: int) -> datetime:
    return datetime.fromtimestamp(int(TIMES[symbol][bar]), UTC)


def filled(symbol: int) -> range:
    """Bars that a decision fills on."""
    return range(FIRST[symbol] + 1, FIRST[symbol] + 1 + DECISIONS[symbol])


@pytest.fixture(scope="module")
def split() -> Split:
    tape = random_tape(5, 2, 12, 3, 0)
    tape = tape._replace(first=jnp.int32(FIRST), length=jnp.int32([12, 6]))
    return Split(tape, SYMBOLS, TIMES)


def recorded(split: Split, actions: np.ndarray):
    spec = env_spec(bracketed(stop_loss=0.0, take_profit=0.0), RewardConfig())
    data = evaluation_set(split)
    n_bars = n_decisions(data.tape)

    @jax.jit
    def scored(actions):
        done = play(given_actions(actions, spec, data.tape), data.tape, n_bars)
        return score(done, data, spec.actions.n_actions)

    return jax.device_get(scored(jnp.asarray(actions)))


@pytest.fixture(scope="module")
def played(split):
    return recorded(split, ACTIONS)


@pytest.fixture(scope="module")
def equity(split, played):
    return equity_frame(played, split)


@pytest.fixture(scope="module")
def trades(split, played):
    return trades_frame(played, split)


def prices(split: Split, field: str, symbol: int) -> np.ndarray:
    return np.asarray(getattr(split.tape, field)[symbol], np.float64)


def test_frames_have_these_columns(equity, trades):
    assert dict(equity.schema) == EQUITY_SCHEMA
    assert dict(trades.schema) == TRADE_SCHEMA


@pytest.mark.parametrize("symbol", [0, 1])
def test_equity_has_a_row_for_every_bar_that_a_decision_fills_on(equity, split, symbol):
    rows = equity.filter(pl.col("symbol") == SYMBOLS[symbol])
    bars = filled(symbol)
    assert rows["time"].to_list() == [utc(symbol, bar) for bar in bars]
    assert rows["close"].to_list() == prices(split, "close", symbol)[list(bars)].tolist()
    assert rows["action"].to_list() == ACTIONS[: DECISIONS[symbol], symbol].tolist()
    assert (
        rows.select("close", "equity", "units", "exposure", "action", "benchmark").null_count().sum_horizontal()[0] == 0
    )


def test_equity_is_the_account_marked_at_the_close(equity, split):
    one = equity.filter(pl.col("symbol") == "ONE")
    open_, close = prices(split, "open", 0), prices(split, "close", 0)
    # Bar 5 buys 1 / (1.001 open[5]) units with all cash; before it the account is 1.
    units = 1 / (1.001 * open_[5])
    assert one["equity"][0] == 1.0
    np.testing.assert_allclose(one["equity"].to_list()[1:3], units * close[5:7], rtol=1e-6)
    np.testing.assert_allclose(one["units"].to_list()[:3], [0, units, units], rtol=1e-6)
    # Long with all equity at the close of bars 5 and 6, short from bar 7 on, sold out at the last close.
    exposure = one["exposure"].to_list()
    assert exposure[:3] == [0, pytest.approx(1), pytest.approx(1)]
    assert max(exposure[3:7]) < -0.9
    assert (exposure[7], one["units"][7]) == (0, 0)


def test_benchmark_buys_at_the_first_fill_and_sells_at_the_last_close(equity, split):
    open_, close = prices(split, "open", 0), prices(split, "close", 0)
    one = equity.filter(pl.col("symbol") == "ONE")["benchmark"].to_list()
    assert one[0] == pytest.approx(close[4] / (1.001 * open_[4]), rel=1e-6)
    assert one[-1] == pytest.approx(0.999 * close[11] / (1.001 * open_[4]), rel=1e-6)


def test_pooled_rows_are_the_mean_account_at_every_time_of_either_symbol(equity):
    pooled = equity.filter(pl.col("symbol") == "POOLED")
    assert pooled.select("close", "units", "exposure", "action").null_count().row(0) == (pooled.height,) * 4
    parts = [equity.filter(pl.col("symbol") == s) for s in SYMBOLS]
    times = sorted({t for part in parts for t in part["time"]})
    assert pooled["time"].to_list() == times
    assert len(times) == sum(DECISIONS)  # the symbols never share a bar start
    for column in ("equity", "benchmark"):
        # An account is 1 until its first bar, and stays where it was between two of its bars and after the last.
        curves = [dict(zip(part["time"], part[column], strict=True)) for part in parts]
        last = [1.0, 1.0]
        for time, value in zip(times, pooled[column], strict=True):
            last = [curve.get(time, held) for curve, held in zip(curves, last, strict=True)]
            assert value == pytest.approx(sum(last) / 2, rel=1e-6)


def test_trades_carry_the_times_and_prices_of_their_fills(trades, split):
    opens = [prices(split, "open", s) for s in (0, 1)]
    closes = [prices(split, "close", s) for s in (0, 1)]
    wanted = [
        ("ONE", "long", utc(0, 5), utc(0, 7), 2, opens[0][5], opens[0][7], "order"),
        ("ONE", "short", utc(0, 7), utc(0, 11), 4, opens[0][7], closes[0][11], "end"),
        ("TWO", "long", utc(1, 4), utc(1, 5), 1, opens[1][4], closes[1][5], "end"),
    ]
    columns = ("symbol", "side", "entry_time", "exit_time", "bars", "entry_price", "exit_price", "reason")
    for row, (*names, entry, exit_, reason) in zip(trades.select(columns).rows(), wanted, strict=True):
        assert row == (*names, pytest.approx(entry, rel=1e-6), pytest.approx(exit_, rel=1e-6), reason)


def test_the_money_of_a_trade_by_hand(trades, split):
    open_ = prices(split, "open", 0)
    first = trades.row(0, named=True)
    units = 1 / (1.001 * open_[5])
    fees = 0.001 * units * (open_[5] + open_[7])
    pnl = units * (open_[7] - open_[5]) - fees
    assert first["units"] == pytest.approx(units, rel=1e-6)
    assert first["fees"] == pytest.approx(fees, rel=1e-5)
    assert first["borrow"] == 0
    assert first["pnl"] == pytest.approx(pnl, abs=1e-6)
    assert first["return"] == pytest.approx(pnl / (units * open_[5]), abs=1e-6)


def test_excursions_and_cumulative_profit_of_a_trade_by_hand(trades, split):
    open_, high, low = (prices(split, name, 0) for name in ("open", "high", "low"))
    first, second = trades.row(0, named=True), trades.row(1, named=True)
    # Long from the open of bar 5 to that of bar 7, so the ranges of bars 5 and 6 count; short from there to the end.
    assert first["mfe"] == pytest.approx(max(high[5:7]) / open_[5] - 1, abs=1e-6)
    assert first["mae"] == pytest.approx(min(0, min(low[5:7]) / open_[5] - 1), abs=1e-6)
    assert second["mfe"] == pytest.approx(1 - min(low[7:12]) / open_[7], abs=1e-6)
    assert second["mae"] == pytest.approx(1 - max(high[7:12]) / open_[7], abs=1e-6)
    assert (first["impact"], first["costs"]) == (0, first["fees"] + first["borrow"])
    # TWO's trade ends first: the times of its bars are those of ONE's first six and two minutes.
    pnl = trades["pnl"]
    assert trades["cumulative_pnl"].to_list() == pytest.approx([pnl[2] + pnl[0], pnl.sum(), pnl[2]])


def test_the_trades_of_a_symbol_sum_to_its_net_return(equity, trades):
    for symbol in SYMBOLS:
        end = equity.filter(pl.col("symbol") == symbol)["equity"][-1]
        pnl = trades.filter(pl.col("symbol") == symbol)["pnl"].sum()
        assert pnl == pytest.approx(end - 1, abs=1e-6)
        assert abs(pnl) > 1e-4


def test_an_account_that_never_trades_has_an_empty_table_of_the_same_columns(split):
    played = recorded(split, np.zeros_like(ACTIONS))
    trades = trades_frame(played, split)
    assert trades.height == 0
    assert dict(trades.schema) == TRADE_SCHEMA
    assert set(equity_frame(played, split)["equity"]) == {1.0}
    assert np.isnan(played.figures.pooled.profit_factor)


def test_files_hold_the_frames_and_the_figures(split, played, equity, trades, tmp_path):
    write_validation(tmp_path, "final", played, split, LABELS)
    write_validation(tmp_path, "final", played, split, LABELS)  # replaces
    folder = tmp_path / "validation"
    assert sorted(p.name for p in folder.iterdir()) == [
        "final_equity.parquet",
        "final_portfolio.csv",
        "final_symbols.csv",
        "final_trades.parquet",
    ]
    assert pl.read_parquet(folder / "final_equity.parquet").equals(equity)
    assert pl.read_parquet(folder / "final_trades.parquet").equals(trades)
    rows = pl.read_csv(folder / "final_symbols.csv")
    assert rows["symbol"].to_list() == ["ONE", "TWO", "POOLED", "PORTFOLIO"]
    assert rows["trades"].to_list() == [2, 1, 3, 3]
    daily = pl.read_csv(folder / "final_portfolio.csv", try_parse_dates=True)
    assert daily["date"].to_list() == sorted({utc(s, b).date() for s in (0, 1) for b in filled(s)})
    ends = [equity.filter(pl.col("symbol") == s)["equity"][-1] - 1 for s in rows["symbol"][:3]]
    np.testing.assert_allclose(rows["return"], [*ends, daily["equity"][-1] - 1], atol=1e-7)
    # ONE chose buy and sell once each in 8 decisions, TWO buy once in 3; the pool weighs them by their decisions.
    np.testing.assert_allclose(rows["action_share_buy"], [1 / 8, 1 / 3, 2 / 11, 2 / 11], rtol=1e-6)
    np.testing.assert_allclose(rows["action_share_sell"], [1 / 8, 0, 1 / 11, 1 / 11], rtol=1e-6)
