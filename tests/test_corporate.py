"""Splits and dividends: the account of a trader with real shares, to the cent, and features that see neither."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_config, tiny_market

from jaxppo.agent.encoders import receptive_field
from jaxppo.check.lookahead import check_lookahead
from jaxppo.config.layers import replace_fields
from jaxppo.config.schema import BarsFilter, DataConfig, EnvConfig
from jaxppo.env.account import StepRecord
from jaxppo.env.trading import env_spec
from jaxppo.errors import ConfigError, DataError
from jaxppo.market.bars import Bars, data_hash
from jaxppo.market.calendar import DAY, HOUR, WEEK
from jaxppo.market.corporate import apply_actions, read_actions
from jaxppo.market.dataset import build_market
from jaxppo.market.inputs import total_return
from jaxppo.market.recipe import feature_recipe
from jaxppo.market.resample import resample
from jaxppo.market.source import load_market_bars, load_other_bars
from jaxppo.market.synthetic import synthetic_market
from jaxppo.market.tape import Costs, price_tape
from jaxppo.play.baselines import buy_and_hold
from jaxppo.play.deciders import given_actions, wishing
from jaxppo.play.passes import fills, lane, paid_since, play
from jaxppo.play.trades import round_trips

FIRST = 19_723  # 2024-01-01, since 1970


def daily(open_: list[float], close: list[float], symbol: str = "AAA") -> Bars:
    o, c = np.array(open_), np.array(close)
    time = (FIRST + np.arange(len(o))) * DAY
    high, low = np.maximum(o, c), np.minimum(o, c)
    return Bars(symbol, "equity", DAY, "UTC", time, o, high, low, c, np.full(len(o), 1000.0), "a.csv")


def acted(folder: Path, text: str, bars: Bars) -> Bars:
    (folder / "actions.csv").write_text(text)
    return apply_actions([bars], read_actions(folder / "actions.csv"), "actions.csv")[0]


# The ledger

RAW = daily(
    [100, 102, 101, 34.5, 34, 33, 16.6, 17, 18, 17.5], [101, 103, 102, 34, 33.5, 33.4, 16.8, 17.6, 18.2, 17.9]
)  # 3 for 1 at bar 3, 2 for 1 at bar 6
TEXT = (
    "symbol,date,split,dividend\nAAA,2024-01-04,3,\nAAA,2024-01-02,,1.2\nAAA,2024-01-06,,0.5\n"
    "AAA,2024-01-07,,.25\nAAA,2024-01-07,2,\n"
)
WANTED = [1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -0.5, 0.0, 1.0]  # exposures, at the close of each bar but the last


def raw_ledger(costs: tuple[float, float, float]) -> list[float]:
    """Equity at the closes of a trader with real shares, float64: splits multiply them, dividends are cash."""
    fee, impact, borrow = costs
    split, paid = {3: 3.0, 6: 2.0}, {1: 1.2, 5: 0.5, 6: 0.25}
    cash, shares, equity = 1.0, 0.0, []
    for bar in range(1, 10):
        shares *= split.get(bar, 1.0)
        cash += shares * paid.get(bar, 0.0)
        price, target = RAW.open[bar], WANTED[bar - 1]
        gap = target * (cash + shares * price) - shares * price
        side = np.sign(gap)
        order = gap / (1 + target * side * (impact + fee + side * impact * fee)) / price
        cash -= order * price * (1 + side * impact) + fee * abs(order) * price * (1 + side * impact)
        shares += order
        cash -= borrow * max(-shares, 0.0) * RAW.close[bar]
        equity.append(cash + shares * RAW.close[bar])
    return equity


def record_of(bars: Bars, costs: tuple[float, float, float], dtype: type) -> StepRecord:
    def row(x: np.ndarray) -> jax.Array:
        return jnp.asarray(x[None], dtype)

    charged = Costs(*(jnp.full(1, c, dtype) for c in costs))
    tape = price_tape(
        *(row(getattr(bars, f)) for f in ("open", "high", "low", "close")), charged, jnp.full(1, 252.0, dtype)
    )
    tape = tape._replace(dividend=row(bars.dividend))
    spec = env_spec(EnvConfig(), tiny_config().reward)
    wish = wishing(lambda row, units: (row, False), jnp.asarray(WANTED, dtype).reshape(-1, 1, 1), spec)
    return lane(jax.device_get(play(wish, tape, 9, close_at_end=False).record), 0)


@pytest.mark.parametrize("costs", [(0.0, 0.0, 0.0), (0.001, 0.0005, 0.0002)])
def test_the_account_is_that_of_a_trader_with_real_shares(tmp_path: Path, costs: tuple[float, float, float]) -> None:
    bars = acted(tmp_path, TEXT, RAW)
    # In shares of the last bar: the first three bars over 6, the next three over 2; so are the dividends before.
    np.testing.assert_allclose(bars.close, RAW.close / np.repeat([6.0, 2.0, 1.0], [3, 3, 4]), rtol=1e-15)
    np.testing.assert_allclose(bars.volume, [6000] * 3 + [2000] * 3 + [1000] * 4)
    assert bars.dividend is not None
    np.testing.assert_allclose(bars.dividend, [0, 0.2, 0, 0, 0, 0.25, 0.25, 0, 0, 0], rtol=1e-15)
    assert bars.source == "a.csv (with 2 splits and 3 dividends of actions.csv)"
    expected = raw_ledger(costs)
    record = record_of(bars, costs, np.float32)
    np.testing.assert_allclose(record.equity[:, 0], expected, rtol=2e-6)
    with jax.enable_x64(True):
        exact = record_of(bars, costs, np.float64)
    np.testing.assert_allclose(exact.equity[:, 0], expected, rtol=1e-12)
    # At the ex-date of bar 5 a long is held, which is sold at its open; at that of bar 6 the short that followed.
    assert exact.dividend is not None
    paid = exact.dividend[:, 0]
    assert paid[4] > 0.0
    assert paid[5] < 0.0
    assert paid[0] == 0.0  # bought at the open of the ex-date
    # What trades are said to have earned adds up to what the account has earned, with the position that is left.
    trades = round_trips(jax.tree.map(lambda x: x[:, 0], exact), costs[0])
    assert len(trades) == 2
    assert sum(t.pnl for t in trades) == pytest.approx(expected[7] - 1.0, abs=1e-12)


def test_who_buys_on_the_ex_date_is_paid_nothing_and_who_sells_then_is(tmp_path: Path) -> None:
    bars = acted(tmp_path, "ticker,date,dividend\nAAA,2024-01-03,2\n", daily([100] * 4, [100] * 4))
    fields = [jnp.asarray(getattr(bars, f)[None], jnp.float32) for f in ("open", "high", "low", "close", "dividend")]
    free = Costs(*(jnp.zeros(1) for _ in range(3)))
    tape = price_tape(*fields[:4], free, jnp.full(1, 252.0))._replace(dividend=fields[4])
    spec = env_spec(EnvConfig(), tiny_config().reward)  # actions: short, flat, long
    for actions, equity in (((1, 2, 2), 1.0), ((2, 1, 1), 1.02), ((0, 1, 1), 0.98), ((2, 2, 2), 1.02)):
        done = play(given_actions(jnp.asarray(actions, jnp.int32)[:, None], spec, tape), tape, 3)
        np.testing.assert_allclose(done.equity[-1, 0, 0], equity, rtol=1e-6)
    # All of 1.02 is invested again: the order is computed from what there is after the payment.
    again = lane(jax.device_get(play(given_actions(jnp.full((3, 1), 2, jnp.int32), spec, tape), tape, 3).record), 0)
    np.testing.assert_allclose(again.units[:2, 0], [0.01, 0.01])  # within the rebalancing band: the cash stays


def test_buy_and_hold_is_paid_as_an_account_that_holds(tmp_path: Path) -> None:
    bars = acted(tmp_path, TEXT, RAW)
    fields = [jnp.asarray(getattr(bars, f)[None], jnp.float32) for f in ("open", "high", "low", "close", "dividend")]
    costs = Costs(*(jnp.full(1, c) for c in (0.001, 0.0005, 0.0)))
    tape = price_tape(*fields[:4], costs, jnp.full(1, 252.0))._replace(dividend=fields[4])
    held = buy_and_hold(*fills(tape, 9), jnp.ones((9, 1), bool), costs, paid_since(tape, 9))
    spec = env_spec(EnvConfig(rebalance_band=1.0), tiny_config().reward)
    account = play(given_actions(jnp.full((9, 1), 2, jnp.int32), spec, tape), tape, 9).equity[:, 0]
    np.testing.assert_allclose(held, account, rtol=2e-6)
    # Bought at 102 a real share, six of the last bar's: 102 x 1.0005 x 1.001 buy one, .5 is paid on three real shares
    # of bar 5 and .25 on six of bar 6.
    units = 1 / (102 * 1.0005 * 1.001)
    assert float(held[6, 0]) == pytest.approx(units * (6 * 17.6 + 3 * 0.5 + 6 * 0.25), rel=1e-6)


# Features


def test_features_see_neither_splits_nor_dividends(tmp_path: Path) -> None:
    (whole,) = synthetic_market(5, 1, 400)
    date = str(np.datetime64(int(whole.time[250]), "s"))[:10]
    at = int(np.searchsorted(whole.time // DAY, int(whole.time[250]) // DAY))
    old = np.where(np.arange(400) < at, 4.0, 1.0)
    raw = replace(
        whole, **{f: getattr(whole, f) * old for f in ("open", "high", "low", "close")}, volume=whole.volume / old
    )
    recipe = feature_recipe(tiny_config(features=("base", "multi_window", "trend")))
    split = acted(tmp_path, f"symbol,date,split\n{raw.symbol},{date},4\n", raw)
    assert split.dividend is None
    np.testing.assert_array_equal(recipe(split).values, recipe(whole).values)  # a power of two is exact
    # A dividend of 5 % by which every later price is lower.
    paid = float(0.05 * whole.close[at - 1])
    fell = np.where(np.arange(400) < at, 1.0, 1.0 - 0.05)
    raw = replace(whole, **{f: getattr(whole, f) * fell for f in ("open", "high", "low", "close")})
    dividend = acted(tmp_path, f"symbol,date,dividend\n{raw.symbol},{date},{paid!r}\n", raw)
    np.testing.assert_array_equal(dividend.close, raw.close)
    np.testing.assert_allclose(total_return(dividend).close, whole.close, rtol=1e-12)
    np.testing.assert_allclose(recipe(dividend).values, recipe(whole).values, atol=1e-4)
    assert check_lookahead(recipe, [dividend], cuts=3).passed


def test_a_tape_has_dividends_where_there_are_any(tmp_path: Path) -> None:
    config = tiny_config()
    bars = synthetic_market(0, 2, 900)
    day = str(np.datetime64(int(bars[0].time[400]), "s"))[:10]
    (tmp_path / "a.csv").write_text(f"symbol,date,dividend\n{bars[0].symbol},{day},0.01\n")
    adjusted = apply_actions(bars, read_actions(tmp_path / "a.csv"), "a.csv")
    market = build_market(adjusted, config, receptive_field(config.agent))
    tape = market.splits["train"].tape
    assert tape.dividend is not None
    at = int(np.flatnonzero(np.asarray(tape.dividend[0]))[0])
    assert market.splits["train"].times[0][at] // DAY == int(bars[0].time[400]) // DAY
    assert float(tape.dividend.sum()) == pytest.approx(0.01)
    assert market.splits["validation"].tape.dividend is None
    assert tiny_market(config).splits["train"].tape.dividend is None
    assert market.data_hash != data_hash(bars)


def test_an_intraday_dividend_is_paid_at_the_first_open_of_its_day_and_adds_up_in_longer_bars(tmp_path: Path) -> None:
    time = FIRST * DAY + 15 * HOUR + np.concatenate([d * DAY + HOUR * np.arange(6) for d in range(8)])
    one = np.full(len(time), 50.0)
    bars = Bars("AAA", "equity", HOUR, "America/New_York", time, one, one, one, one, one, "a.csv")
    paid = acted(tmp_path, "symbol,date,dividend\nAAA,2024-01-03,.5\nAAA,2024-01-07,1\n", bars)
    assert paid.dividend is not None
    assert np.flatnonzero(paid.dividend).tolist() == [12, 36]
    made = resample(paid, DAY)
    assert made.dividend is not None
    np.testing.assert_array_equal(made.dividend, [0, 0, 0.5, 0, 0, 0, 1, 0][: len(made.time)])
    with pytest.raises(DataError, match="dividends are paid within bars of 1w"):
        resample(paid, WEEK)


# What is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("symbol,date,split\nAAA,2024-01-04,0\n", r"symbol AAA, line 2: split '0' must be a number: new shares"),
        ("symbol,date,dividend\nAAA,2024-01-04,-1\n", r"line 2: dividend '-1' must be a number: cash a share"),
        ("symbol,date,split\nAAA,2024-01-04,2:1\n", r"line 2: split '2:1' must be a number"),
        ("symbol,date,split,dividend\nAAA,2024-01-04,,\n", r"line 2: neither split nor dividend is given"),
        ("symbol,date,split\nAAA,2024-01-04,2\nAAA,2024-01-04,3\n", r"line 3: a second split of 2024-01-04; give"),
        ("symbol,date,split\nAAA,2024-01-04 10:00,2\n", r"has a time of the day; give the ex-date alone"),
        ("symbol,split\nAAA,2\n", r"no column for date among 'symbol', 'split'; corporate actions need"),
        ("symbol,date\nAAA,2024-01-04\n", r"no column for split or dividend among"),
        ("symbol,date,dividend\nAAA,2024-01-04,200\n", r"line 2: dividend 200 is no less than the price before it"),
        ("symbol,date,split\nAAA,2024-01-03,5\n", r"a split of 5 for 1, but AAA went from 103 to 101 over"),
        ("symbol,date,split\nZZZ,2024-01-03,2\n", r"of ZZZ and of none of the bars' symbols, AAA; it would"),
        ("symbol,date,split\n", r"actions.csv: holds no splits or dividends"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_refused_where_it_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        acted(tmp_path, text, RAW)


def test_bars_of_weeks_and_addresses_are_refused(tmp_path: Path) -> None:
    weekly = replace(RAW, interval=WEEK, time=FIRST * DAY + WEEK * np.arange(10))
    with pytest.raises(DataError, match=r"line 2: lies within a bar of 1w, or pays a dividend there"):
        acted(tmp_path, "symbol,date,split\nAAA,2024-01-10,2\n", weekly)
    with pytest.raises(ConfigError, match=r"corporate_actions: addresses .* are not read"):
        read_actions("https://example.com/a.csv")


def test_a_configuration_names_the_file_and_other_bars_need_not_be_in_it(tmp_path: Path) -> None:
    (tmp_path / "actions.csv").write_text("symbol,date,split\nAAA,2024-01-04,3\n")
    rows = zip(RAW.time.tolist(), RAW.open, RAW.high, RAW.low, RAW.close, strict=True)
    text = "timestamp,open,high,low,close\n" + "\n".join(",".join(map(str, r)) for r in rows)
    for symbol in ("AAA", "BBB"):
        (tmp_path / f"{symbol}.csv").write_text(text)
    data = DataConfig(data=str(tmp_path / "AAA.csv"), corporate_actions=str(tmp_path / "actions.csv"))
    (bars,), _ = load_market_bars(data)
    np.testing.assert_allclose(bars.close[:4], [101 / 3, 103 / 3, 102 / 3, 34])
    # What the run said of a symbol's class holds before its trading days are looked at.
    hours = replace(RAW, time=FIRST * DAY + HOUR * (20 + np.arange(10)))  # bar 4 begins on 2 January, UTC
    rows = zip(hours.time.tolist(), hours.open, hours.high, hours.low, hours.close, strict=True)
    (tmp_path / "CCC.csv").write_text(
        "timestamp,open,high,low,close\n" + "\n".join(",".join(map(str, r)) for r in rows)
    )
    (tmp_path / "hours.csv").write_text("symbol,date,dividend\nCCC,2024-01-02,1\n")
    said = replace(data, corporate_actions=str(tmp_path / "hours.csv"), asset_classes={"CCC": "crypto"})
    (made,), _ = load_other_bars(str(tmp_path / "CCC.csv"), BarsFilter(), said)
    assert made.dividend is not None
    assert np.flatnonzero(made.dividend).tolist() == [4]
    (other,), _ = load_other_bars(str(tmp_path / "BBB.csv"), BarsFilter(), data)
    assert other.close[0] == 101
    with pytest.raises(DataError, match="of none of the bars' symbols"):
        load_market_bars(replace(data, data=str(tmp_path / "BBB.csv")))
    assert replace_fields(tiny_config(), {"corporate_actions": "x.csv"}).data.corporate_actions == "x.csv"
