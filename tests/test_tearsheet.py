"""The tear sheet: worked on paper, against empyrical, scipy and pandas, and what holds of any account."""

import dataclasses
import doctest
import math
import re
from types import SimpleNamespace

import empyrical
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxppo.page.tearsheet
import jaxppo.play.capacity
import jaxppo.play.tearsheet
from jaxppo.market.bars import Bars
from jaxppo.market.calendar import DAY
from jaxppo.market.dataset import Split
from jaxppo.market.tape import Costs, zero_tape
from jaxppo.page.tearsheet import _eaten, amount
from jaxppo.page.tearsheet import tear_sheet as sections_of
from jaxppo.page.text import percent
from jaxppo.play.capacity import capacity, liquidity
from jaxppo.play.ledger import Traded, empty_ledger, join_ledgers, ledger_of
from jaxppo.play.tearsheet import (
    MOST_BINS,
    NOT_RECOVERED,
    Returns,
    cost_share,
    distribution,
    extremes,
    histogram,
    periods,
    regression,
    rolling,
    tear_sheet,
    worst_drawdowns,
)
from jaxppo.store.read import Sheet, load_sheet
from jaxppo.store.tearsheet import write_tearsheet

HOUR = 3600


@pytest.fixture(scope="module")
def two():
    """900 business days of an account and of holding, and the same as pandas."""
    rng, index = np.random.default_rng(3), pd.bdate_range("2015-01-05", periods=900)
    hold = rng.normal(3e-4, 0.011, 900)
    own = 0.4 * hold + rng.normal(4e-4, 0.008, 900)
    day = index.to_numpy().astype("datetime64[s]").astype(np.int64)
    return Returns(day, 252.0, own, hold), pd.Series(own, index), pd.Series(hold, index)


@pytest.mark.parametrize("module", [jaxppo.play.capacity, jaxppo.play.tearsheet, jaxppo.page.tearsheet])
def test_examples_in_docstrings(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


def test_months_and_years_are_empyricals(two):
    r, own, hold = two
    for unit, span in (("M", "monthly"), ("Y", "yearly")):
        found = periods(r, unit)
        for name, series in (("return", own), ("buy_and_hold", hold)):
            np.testing.assert_allclose([x[name] for x in found], empyrical.aggregate_returns(series, span), rtol=1e-12)
    assert [x["period"] for x in periods(r, "Y")] == ["2015", "2016", "2017", "2018"]


def test_rolling_figures_are_pandas(two):
    r, own, _ = two
    sharpe, volatility = rolling(r.policy, 126, 252.0)
    seen = own.rolling(126)
    np.testing.assert_allclose(volatility, seen.std() * math.sqrt(252.0), rtol=1e-9)
    np.testing.assert_allclose(sharpe, seen.mean() / seen.std() * math.sqrt(252.0), rtol=1e-8, atol=1e-12)
    assert sharpe[-1] == pytest.approx(empyrical.sharpe_ratio(own[-126:], annualization=252))
    assert np.isnan(rolling(r.policy[:5], 6, 252.0)).all()
    assert rolling(np.zeros(3), 2, 252.0)[0][1:].tolist() == [0.0, 0.0]


def test_drawdowns_by_hand():
    # 1.1, .99 (10 % down), 1.2, 1.08 (10 % down), .9 (25 %), 1.2, 1.14 (5 %, to the end); days a week apart.
    equity = np.array([1.1, 0.99, 1.2, 1.08, 0.9, 1.2, 1.14])
    day = np.arange(7) * 7 * DAY
    found = worst_drawdowns(day, equity / np.array([1.0, *equity[:-1]]) - 1.0)
    assert [round(d.depth, 9) for d in found] == [0.25, 0.1, 0.05]
    assert found[0][:3] == ("1970-01-15", "1970-01-29", "1970-02-05")
    assert found[0][4:] == (21, 7.0)
    assert found[1][:3] == ("1970-01-01", "1970-01-08", "1970-01-15")
    assert (found[2].recovery, found[2].days) == (NOT_RECOVERED, 7)
    assert math.isnan(found[2].recovery_days)
    # The start is a peak; 20 days of losses are one drawdown, and it begins on the first day.
    (down,) = worst_drawdowns(np.arange(20) * DAY, np.full(20, -0.01))
    assert (down.start, down.trough, down.days) == ("1970-01-01", "1970-01-20", 19)
    assert down.depth == pytest.approx(1 - 0.99**20)
    assert worst_drawdowns(day, np.zeros(7)) == []


def test_distribution_is_that_of_other_libraries(two):
    r, own, _ = two
    found = distribution(r.policy)
    assert found["skew"] == pytest.approx(scipy.stats.skew(r.policy, bias=False))
    assert found["deviation"] == pytest.approx(own.std())
    assert found["cvar_5"] == pytest.approx(-empyrical.conditional_value_at_risk(r.policy))
    # One of the account's own returns: empyrical interpolates between it and the next.
    below, above = -np.sort(r.policy)[[45, 44]]
    assert found["var_5"] == above
    assert below <= -empyrical.value_at_risk(r.policy) <= above
    assert np.histogram(r.policy, found["edges"])[0].tolist() == found["counts"]


def test_distribution_of_next_to_nothing():
    one = distribution(np.array([-0.02]))
    assert (one["count"], one["mean"], one["var_5"], one["cvar_5"], one["positive"]) == (1, -0.02, 0.02, 0.02, 0.0)
    assert math.isnan(one["skew"])
    assert math.isnan(one["deviation"])
    still = distribution(np.zeros(9))
    assert (still["counts"], still["var_5"], math.copysign(1, still["var_5"])) == ([9], 0.0, 1.0)


def test_alpha_and_beta_are_those_of_scipy_and_empyrical(two):
    r, own, hold = two
    found, line = regression(r.policy, r.hold, 252.0), scipy.stats.linregress(r.hold, r.policy)
    assert found.beta == pytest.approx(line.slope)
    assert found.beta_error == pytest.approx(line.stderr)
    assert found.alpha == pytest.approx(252.0 * line.intercept)
    assert found.alpha_error == pytest.approx(252.0 * line.intercept_stderr)
    assert found.alpha_t == pytest.approx(line.intercept / line.intercept_stderr)
    assert found.correlation == pytest.approx(line.rvalue)
    assert found.beta == pytest.approx(empyrical.beta(own, hold))
    # empyrical compounds a day's alpha.
    assert (1 + found.alpha / 252.0) ** 252 - 1 == pytest.approx(empyrical.alpha(own, hold, annualization=252))
    assert all(math.isnan(x) for x in regression(r.policy, np.zeros(900), 252.0))
    assert all(math.isnan(x) for x in regression(r.policy[:2], r.hold[:2], 252.0))


def test_extremes_by_hand():
    day = np.array([0, DAY, 40 * DAY, 41 * DAY, 80 * DAY])
    r = Returns(day, 252.0, np.array([0.01, -0.03, 0.02, 0.02, -0.01]), np.arange(5) / 100)
    found = extremes(r, periods(r, "M"))
    assert [(x["period"], x["buy_and_hold"]) for x in found["worst_days"]] == [
        ("1970-01-02", 0.01),
        ("1970-03-22", 0.04),
    ]
    assert [x["return"] for x in found["best_days"]] == [0.02, 0.02]
    assert [x["period"] for x in found["best_months"]] == ["1970-02"]
    assert [x["period"] for x in found["worst_months"]] == ["1970-01"]


def test_costs_by_hand():
    # 1 grows by 10 % and 1.1 by 20 %, after fees of 2 % of each, a spread of 1 % of 1.1 and borrow of 3 % of 1.
    ledger = empty_ledger(np.array([0, DAY]))._replace(
        returns=np.array([0.1, 0.2]),
        fees=np.array([0.02, 0.02]),
        impact=np.array([0.0, 0.01]),
        borrow=np.array([0.03, 0.0]),
    )
    found = cost_share(ledger)
    assert found[:5] == pytest.approx((0.042, 0.011, 0.03, 0.32, 0.403))
    assert found.share == pytest.approx(0.083 / 0.403)
    # Costs made a loss of a profit: more than all of it.
    assert cost_share(ledger._replace(returns=np.array([-0.01, 0.0]))).share > 1
    # There was no profit to take a share of.
    assert math.isnan(cost_share(ledger._replace(returns=np.array([-0.3, 0.0]))).share)


# ONE decides at bars 0 to 3 and fills at noon and at 18:00 of day 0, then at noon of days 1 and 3. TWO fills at noon of
# days 1 and 2, and has finished then. THREE never decides.
TIMES = (
    np.array([6 * HOUR, 12 * HOUR, 18 * HOUR, DAY + 12 * HOUR, 3 * DAY + 12 * HOUR]),
    np.array([12 * HOUR, DAY + 12 * HOUR, 2 * DAY + 12 * HOUR]),
    np.array([12 * HOUR]),
)


@pytest.fixture(scope="module")
def ledger():
    tape = zero_tape(3, 5, 1)._replace(
        length=jnp.int32([5, 3, 1]),
        bars_per_year=jnp.float32([500, 250, 250]),
        costs=Costs(*(jnp.zeros(3) for _ in range(3))),
    )
    fees = np.array([[0.01, 0.02, 0], [0.001, 0, 0], [0.012, 0, 0], [0, 0, 0]])
    impact = np.array([[0, 0, 0], [0, 0, 0], [0, 0, 0], [0.0108, 0, 0]])
    record = SimpleNamespace(
        equity=np.array([[1.1, 1.04, 1], [1.2, 1.3, 1], [1.08, 1.3, 1], [1.188, 1.3, 1]]),
        fees=fees,
        cost=fees + impact,
        borrow=np.array([[0, 0, 0], [0, 0.0104, 0], [0, 0, 0], [0, 0, 0]]),
        traded=np.array([[1.1, 1, 0], [0.4, 0, 0], [0, 0, 0], [0.54, 0, 0]]),
        exposure=np.array([[1, 0, 9], [1, -0.5, 9], [-1, 9, 9], [0, 9, 9]]),  # 9: not a decision of its own
    )
    valid = np.array([[True, True, False], [True, True, False], [True, False, False], [True, False, False]])
    split = Split(tape, ("ONE", "TWO", "THREE"), TIMES)
    return ledger_of(SimpleNamespace(record=record, valid=valid), split)


def test_ledger_by_hand(ledger):
    np.testing.assert_array_equal(ledger.day, [0, DAY, 2 * DAY, 3 * DAY])
    # Day 0: ONE alone, +20 %. Day 1: -10 % and +4 %. Day 2: +25 % of the half that TWO has. Day 3: ONE alone, +10 %.
    np.testing.assert_allclose(ledger.returns, [0.2, -0.03, 0.125, 0.1])
    # Day 0: .011 of 1. Day 1: .012 of 1.2 and .02 of 1, half each.
    np.testing.assert_allclose(ledger.fees, [0.011, 0.015, 0, 0], atol=1e-15)
    np.testing.assert_allclose(ledger.impact, [0, 0, 0, 0.01], atol=1e-15)
    np.testing.assert_allclose(ledger.borrow, [0, 0, 0.005, 0], atol=1e-15)
    assert ledger.traded.symbol.tolist() == ["ONE", "ONE", "TWO"]
    assert ledger.traded.day.tolist() == [0, 3 * DAY, DAY]
    np.testing.assert_allclose(ledger.traded.share, [1.5, 0.5, 0.5])
    assert ledger.time_in_market() == {"bars": 4 / 6, "long": 2 / 6, "short": 2 / 6, "days": 3 / 4}


def test_ledgers_are_joined_one_after_another(ledger):
    both = join_ledgers([ledger, ledger._replace(day=ledger.day + 3 * DAY)])
    assert len(both.day) == 8
    # Day 3 is in both, and active in the second.
    assert both.time_in_market() == {"bars": 8 / 12, "long": 4 / 12, "short": 4 / 12, "days": 6 / 7}
    assert cost_share(both).net_profit == pytest.approx((1.2 * 0.97 * 1.125 * 1.1) ** 2 - 1)
    assert len(both.traded.share) == 6


def bars(symbol="ONE", asset_class="equity", notional=1e6, days=40):
    """Bars of 6 hours whose price moves by 2 % up or down from day to day, and that trade as much each day."""
    close = np.repeat(100.0 * 1.02 ** (np.arange(days) % 2), 4)
    time = (np.arange(4 * days) * 6 * HOUR).astype(np.int64)
    volume = notional / 4 / close
    return Bars(symbol, asset_class, 6 * HOUR, "UTC", time, close, close, close, close, volume, "made up")


def traded(*rows):
    symbol, day, share = zip(*rows, strict=True)
    return Traded(np.array(symbol), np.array(day) * DAY, np.array(share))


def test_capacity_by_hand():
    found = liquidity(bars())
    assert found.notional[-1] == pytest.approx(1e6)
    assert found.volatility[-1] == pytest.approx(math.log(1.02))
    # One order of a quarter of the capital, and 1 % earned: at 4 million it is a day's whole volume, so it costs the
    # day's deviation, 1.98 % of a million.
    day = empty_ledger(np.arange(2) * DAY)._replace(
        returns=np.array([0.0, 2 * math.log(1.02) / 4]), traded=traded(("ONE", 30, 0.25))
    )
    at = capacity(day, [bars()], 2.0)
    assert (at["status"], at["covered"]) == ("ok", 1.0)
    assert at["half"] == pytest.approx(4e6)
    assert at["all"] == pytest.approx(16e6)
    assert at["participation"]["half"] == pytest.approx({"median": 1.0, "p95": 1.0})
    assert at["large"] == pytest.approx(4e5)
    million = next(x for x in at["impact"] if x["capital"] == 1e6)
    assert million["of_profit"] == pytest.approx(0.25)
    assert million["a_year"] == pytest.approx(0.25 * at["profit_a_year"])
    # Twice the volume carries twice the capital, and orders of twice the size an eighth.
    assert capacity(day, [bars(notional=2e6)], 2.0)["half"] == pytest.approx(8e6)
    more = day._replace(traded=traded(("ONE", 30, 0.5)))
    assert capacity(more, [bars()], 2.0)["half"] == pytest.approx(0.5e6)


def test_capacity_where_there_is_nothing_to_count_by():
    day = empty_ledger(np.arange(2) * DAY)._replace(returns=np.array([0.0, 0.01]))
    assert capacity(day, [bars()], 2.0) == {"status": "no trades"}
    some = day._replace(traded=traded(("ONE", 30, 0.25), ("EURUSD", 30, 0.75)))
    assert capacity(some, [bars(notional=0.0), bars("EURUSD", "fx")], 2.0) == {"status": "no volume", "covered": 0.0}
    # FX brokers count ticks: its orders are left out, and said to be.
    part = capacity(some, [bars(), bars("EURUSD", "fx")], 2.0)
    assert (part["status"], part["covered"], part["most"]) == ("ok", 0.25, [{"symbol": "ONE", "share": 1.0}])
    lost = capacity(some._replace(returns=np.array([0.0, -0.01])), [bars()], 2.0)
    assert (lost["status"], lost["half"], lost["all"]) == ("no profit", 0.0, 0.0)


RETURNS = st.lists(st.floats(-0.5, 1.0, width=32), min_size=1, max_size=400).map(np.array)


@settings(max_examples=60, deadline=None)
@given(own=RETURNS, gap=st.integers(1, 9))
def test_what_holds_of_any_account(own, gap):
    r = Returns(np.arange(len(own)) * gap * DAY, 365.25 / gap, own, own[::-1].copy())
    total = np.prod(1.0 + own)
    for unit in "MY":
        assert np.prod([1.0 + x["return"] for x in periods(r, unit)]) == pytest.approx(total, rel=1e-9)
    falls = worst_drawdowns(r.day, own, most=10**6)
    curve = np.concatenate([[1.0], np.cumprod(1.0 + own)])
    deepest = float((1.0 - curve / np.maximum.accumulate(curve)).max())
    assert max((d.depth for d in falls), default=0.0) == deepest == (falls[0].depth if falls else 0.0)
    assert all(d.start <= d.trough for d in falls)
    assert sum(d.recovery == NOT_RECOVERED for d in falls) <= 1
    edges, counts = histogram(own)
    assert sum(counts) == len(own)
    assert len(counts) <= MOST_BINS
    assert 0.0 in edges
    assert edges[0] <= own.min() + 1e-6
    assert edges[-1] >= own.max() - 1e-6
    found = distribution(own)
    assert found["cvar_5"] >= found["var_5"] - 1e-12
    line = regression(own, r.hold, r.per_year)
    if not math.isnan(line.beta):
        assert line.alpha / r.per_year + line.beta * r.hold.mean() == pytest.approx(own.mean(), abs=1e-9)


def test_written_and_read_back(tmp_path, two):
    r, _, _ = two
    nothing = empty_ledger(r.day)
    sheet = tear_sheet(r, nothing._replace(returns=r.policy), [bars()])
    assert sheet.figures["rolling_days"] == {"6m": 126, "1y": 252}
    write_tearsheet(tmp_path, sheet, "best_")
    assert load_sheet(tmp_path) is None
    back = load_sheet(tmp_path, "best_")
    assert back.figures["drawdowns"][1] == sheet.figures["drawdowns"][1]
    assert back.figures["capacity"] == {"status": "no trades"}
    assert back.daily["return"].to_list() == pytest.approx(r.policy.tolist(), rel=1e-12)
    assert back.daily["date"][0] == "2015-01-05"
    assert back.daily["sharpe_1y"].is_nan().sum() == 251
    short = tear_sheet(Returns(r.day[:126], 252.0, r.policy[:126], r.hold[:126]), empty_ledger(r.day[:126]), [])
    assert short.figures["rolling_days"] == {}
    assert list(short.daily) == ["date", "return", "buy_and_hold"]


@pytest.fixture(scope="module")
def page(two):
    """The section of the account of 900 days, and its figures."""
    r, _, _ = two
    ledger = empty_ledger(r.day)._replace(
        returns=r.policy,
        fees=np.full(900, 1e-4),
        traded=traded(("ONE", 0, 0.25))._replace(day=r.day[30:31]),
    )
    one = bars(days=60)
    moved = dataclasses.replace(one, time=one.time + r.day[0])
    sheet = tear_sheet(r, ledger, [moved])
    (section,) = sections_of(
        Sheet(sheet.figures, pl.DataFrame(sheet.daily).with_columns(pl.col("date").cast(str))), "it"
    )
    return section, sheet.figures


def test_every_month_has_a_cell_with_its_number_and_colour(page):
    section, figures = page
    cells = re.findall(r'<td class="num (gain|fall)" style="--share:(\d+)%">([^<]*)</td>', section.body)
    returns = [m["return"] for m in figures["months"]]
    assert len(cells) == len(returns) == 42
    for (kind, share, text), value in zip(cells, returns, strict=True):
        assert text == percent(value, sign=True)
        assert kind == ("gain" if value > 0 else "fall")
        assert int(share) == pytest.approx(48 * abs(value) / max(map(abs, returns)), abs=0.5)
    assert section.body.count('<th scope="row">') == 4


def test_the_section_has_all_parts(page):
    section, figures = page
    assert section.tab == section.heading == "Tear sheet"
    charts = ("tear_years", "tear_sharpe", "tear_volatility", "tear_daily", "tear_monthly")
    assert all(f'data-chart="{name}"' in section.body for name in charts)
    falls = figures["drawdowns"]
    assert all(d["trough"] in section.body for d in falls)
    assert section.body.count(">not recovered<") == sum(d["recovery"] == NOT_RECOVERED for d in falls) == 1
    half, large = (figures["capacity"][k] for k in ("half", "large"))
    assert half > large  # so what is known comes first
    assert f"a capital of {amount(large)}" in section.body
    assert f"gone at {amount(half)}" in section.body
    assert not re.search(r"\b(nan|None|inf)\b", re.sub(r"<[^>]*>", " ", section.body.split("<script")[0]))


def test_what_cannot_be_said_is_said_so(two):
    r, _, _ = two
    few = Returns(r.day[:40], 252.0, -np.abs(r.policy[:40]), r.hold[:40])
    sheet = tear_sheet(few, empty_ledger(few.day)._replace(returns=few.policy), [])
    (section,) = sections_of(Sheet(sheet.figures, pl.DataFrame(sheet.daily)), "it")
    for text in ("40 days are too few", "no profit before costs", "Nothing was traded"):
        assert text in section.body
    still = tear_sheet(Returns(r.day[:2], 252.0, np.zeros(2), np.zeros(2)), empty_ledger(r.day[:2]), [])
    (section,) = sections_of(Sheet(still.figures, pl.DataFrame(still.daily)), "it")
    assert "never was below" in section.body
    assert sections_of(None, "it") == []


def test_what_is_known_of_capacity_comes_first():
    # Impact grows with the root of the capital: at a sixteenth of what costs all of the profit it costs a quarter.
    orders, eats = {"median": 0.02, "p95": 0.2}, "Market impact would eat"
    assert _eaten(4e6, 16e6, 1e6, orders).startswith(
        f"{eats} 25\u00a0% of the net profit at a capital of 1\u00a0million"
    )
    assert _eaten(1e6, 4e6, 4e6, orders).startswith(f"{eats} half of the net profit at a capital of 1\u00a0million")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (999.0, "999"), (1e4, "10 thousand"), (3.24e6, "3.2 million"), (2.6e10, "26 billion")],
)
def test_amounts(value, text):
    assert amount(value) == text.replace(" ", "\u00a0")
