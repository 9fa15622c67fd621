"""The account by hand: the arithmetic of every event on a bar, each number worked out in a comment."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import BRACKETED, bracketed

from jaxppo.config.schema import RewardConfig
from jaxppo.env.account import (
    REASON_END,
    REASON_LIQUIDATION,
    REASON_NONE,
    REASON_STOP,
    REASON_TAKE_PROFIT,
    close_out,
    open_account,
)
from jaxppo.env.trading import env_spec, trade_bar
from jaxppo.market.tape import Costs, MarketStep
from tests.reference.compare import ENVS, SPECS, trade


def flat(price):
    return (price,) * 4


near = functools.partial(pytest.approx, rel=1e-12, abs=1e-12)
NO_STOPS = bracketed(stop_loss=0.0, take_profit=0.0)


def test_buy_spends_all_cash_and_not_a_cent_more():
    # A unit costs 100 * 1.02 * 1.01 = 103.02, so 1 of cash buys 1 / 103.02 units, worth 100 / 103.02 = 0.970685.
    (account,), (record,) = trade(NO_STOPS, [("buy", flat(100.0))], fee=0.01, impact=0.02)
    assert account.cash == near(0.0)
    assert account.units == near(1 / 103.02)
    assert account.equity == near(100 / 103.02)
    assert account.average_cost == near(102.0)
    assert record.exposure == near(1.0)
    assert record.fees == near(1.02 / 103.02)  # .01 * 102 a unit
    assert record.cost == near(3.02 / 103.02)  # and 2 a unit of impact
    assert record.traded == near(102 / 103.02)
    assert record.net_return == near(100 / 103.02 - 1)


def test_short_gains_when_the_price_falls():
    # Sell x: -(0 - x) = 1 - .01 x, x = 1 / 1.01. Cash 1 + x * .99; at 90 the units -x / 100 owe .9 x.
    (account,), (record,) = trade(NO_STOPS, [("sell", (100.0, 100.0, 90.0, 90.0))], fee=0.01)
    x = 1 / 1.01
    assert account.units == near(-x / 100)
    assert account.cash == near(1 + 0.99 * x)
    assert account.equity == near(1 + 0.09 * x)
    assert record.exposure == near(-1.0)


def test_flip_closes_one_trade_and_opens_the_next():
    # Long 1 / 101 units at 100. At 110 equity is 110 / 101; selling x: E - x = -(E - .01 x), x = 2 E / 1.01.
    orders = [("buy", flat(100.0)), ("sell", flat(110.0))]
    accounts, records = trade(NO_STOPS, orders, fee=0.01)
    equity = 110 / 101
    x = 2 * equity / 1.01
    assert accounts[1].units == near(-(equity - 0.01 * x) / 110)
    assert accounts[1].equity == near(equity - 0.01 * x)
    assert accounts[1].average_cost == near(110.0)
    assert (records[1].closed, records[1].wins) == (1, 1)
    # Gained 10 a unit, less a fee of 1 a unit in and 1.1 a unit out; the rest of the fee belongs to the short.
    assert records[1].gain == near((10 - 1 - 1.1) / 101)
    assert accounts[1].trade_pnl == near(-(0.01 * x - 1.1 / 101))
    assert accounts[1].bars_held == 1


SIZED = bracketed(actions="sized_close", stop_loss=0.0, take_profit=0.0)


def test_scale_in_blends_the_average_cost_and_a_partial_exit_keeps_it():
    orders = [("buy_25", flat(100.0)), ("buy_25", flat(120.0)), ("sell_25", flat(150.0)), ("close", flat(150.0))]
    accounts, records = trade(SIZED, orders)
    # .25 / 100 = .0025 units and .75 of cash. At 120 equity is 1.05, .30 of it held; .25 * 1.05 more buys .0021875.
    assert accounts[0].units == near(0.0025)
    assert accounts[1].units == near(0.0046875)
    assert accounts[1].average_cost == near(0.5125 / 0.0046875)  # (.25 + .2625) paid for them
    # At 150 equity is .4875 + .703125 = 1.190625; a quarter of it, .29765625, is sold.
    assert records[2].order_units == near(-0.29765625 / 150)
    assert accounts[2].average_cost == near(0.5125 / 0.0046875)
    assert (accounts[2].trades, accounts[2].bars_held) == (0, 3)
    assert (accounts[3].trades, accounts[3].wins, accounts[3].units) == (1, 1, 0)
    assert records[3].gain == near(0.190625)  # partial exit and the rest together
    assert accounts[3].equity == near(1.190625)


def test_levels_move_with_the_average_cost_when_the_position_grows_only():
    env = bracketed(actions="sized", stop_loss=0.5, take_profit=0.5)
    orders = [("buy_50", flat(100.0)), ("buy_25", flat(120.0)), ("sell_25", flat(120.0))]
    accounts, _ = trade(env, orders)
    assert (accounts[0].stop, accounts[0].take_profit) == near((50.0, 150.0))
    # .005 units at 100; equity 1.1 at 120; .275 more are .275 / 120 units; average .775 / .00729167 = 106.2857.
    average = 0.775 / (0.005 + 0.275 / 120)
    assert (accounts[1].stop, accounts[1].take_profit) == near((0.5 * average, 1.5 * average))
    assert (accounts[2].stop, accounts[2].take_profit) == near((0.5 * average, 1.5 * average))


@pytest.mark.parametrize(
    ("label", "bar", "reason", "price"),
    [
        ("buy", (100.0, 100.5, 97.0, 99.0), REASON_STOP, 98.0),  # active on the entry bar
        ("sell", (100.0, 103.0, 99.5, 101.0), REASON_STOP, 102.0),
        ("buy", (100.0, 105.0, 99.0, 101.0), REASON_TAKE_PROFIT, 104.0),
        ("sell", (100.0, 101.0, 95.0, 99.0), REASON_TAKE_PROFIT, 96.0),
        ("buy", (100.0, 105.0, 97.0, 104.5), REASON_STOP, 98.0),  # both: the stop
        ("sell", (100.0, 103.0, 95.0, 95.5), REASON_STOP, 102.0),
        ("buy", (100.0, 103.9, 98.1, 100.0), REASON_NONE, None),
    ],
)
def test_what_fires_on_the_entry_bar(label, bar, reason, price):
    (account,), (record,) = trade(BRACKETED, [(label, bar)])
    assert record.reason == reason
    if reason == REASON_NONE:
        assert account.units != 0
    else:
        side = 1 if label == "buy" else -1
        assert record.exit_price == near(price)
        assert account.equity == near(1 + side * (price / 100 - 1))  # .01 units
        assert (account.units, account.trades, account.bars_held) == (0, 1, 0)


@pytest.mark.parametrize(
    ("label", "bar", "reason"),
    [
        ("buy", (64.0, 64.5, 63.0, 64.0), REASON_STOP),  # 64 * (1 - 1/64)
        ("buy", (64.0, 66.0, 63.5, 64.0), REASON_TAKE_PROFIT),  # 64 * (1 + 1/32)
        ("sell", (64.0, 65.0, 63.5, 64.0), REASON_STOP),
        ("sell", (64.0, 64.5, 62.0, 64.0), REASON_TAKE_PROFIT),
    ],
)
def test_an_exact_touch_fires(label, bar, reason):
    _, (record,) = trade(ENVS["grid"], [(label, bar)])
    assert record.reason == reason
    open_, high, low, close = bar
    inside = (open_, min(high, open_ + 63 / 64), max(low, open_ - 63 / 64), close)
    if reason == REASON_TAKE_PROFIT:
        inside = (open_, min(high, 65.99), max(low, 62.01), close)
    _, (record,) = trade(ENVS["grid"], [(label, inside)])
    assert record.reason == REASON_NONE


@pytest.mark.parametrize(
    ("label", "gap", "rule", "reason", "price"),
    [
        ("buy", 95.0, "open", REASON_STOP, 95.0),
        ("sell", 105.0, "open", REASON_STOP, 105.0),
        ("buy", 110.0, "open", REASON_TAKE_PROFIT, 110.0),
        ("buy", 110.0, "limit", REASON_TAKE_PROFIT, 104.0),
        ("sell", 90.0, "open", REASON_TAKE_PROFIT, 90.0),
        ("sell", 90.0, "limit", REASON_TAKE_PROFIT, 96.0),
    ],
)
def test_a_gap_through_a_level(label, gap, rule, reason, price):
    env = bracketed(take_profit_gap=rule)
    accounts, records = trade(env, [(label, flat(100.0)), ("hold", flat(gap))])
    assert records[1].reason == reason
    assert records[1].exit_price == near(price)
    assert accounts[1].equity == near(1 + (1 if label == "buy" else -1) * (price / 100 - 1))


def test_exits_pay_impact_and_fee():
    # 1 / 103.02 units at 102 with the stop at 99.96; sold there at 99.96 * .98 less 1 %.
    (account,), (record,) = trade(BRACKETED, [("buy", (100.0, 101.0, 99.5, 100.0))], fee=0.01, impact=0.02)
    fill = 102 * 0.98 * 0.98
    assert record.exit_price == near(fill)
    assert account.cash == near(fill * 0.99 / 103.02)
    assert record.loss == near(account.cash - 1)
    assert record.fees == near((1.02 + 0.01 * fill) / 103.02)
    assert record.cost == near((1.02 + 0.01 * fill + 2 + 102 * 0.98 * 0.02) / 103.02)


LEVERAGED = bracketed(max_exposure=3.0, stop_loss=0.0, take_profit=0.0)


@pytest.mark.parametrize(
    ("label", "second", "price"),
    [
        # Long .03 units on 2 of debt: equity .1 at (.1 + 2) / .03 = 70. Short .03 units, cash 4: (4 - .1) / .03 = 130.
        ("buy", (80.0, 80.0, 69.0, 75.0), 70.0),
        ("buy", (69.0, 75.0, 68.0, 75.0), 69.0),
        ("buy", (60.0, 75.0, 60.0, 75.0), 60.0),  # equity -.2
        ("sell", (120.0, 131.0, 120.0, 125.0), 130.0),
        ("sell", (140.0, 140.0, 120.0, 125.0), 140.0),
    ],
)
def test_liquidation_of_a_leveraged_position(label, second, price):
    accounts, records = trade(LEVERAGED, [(label, flat(100.0)), ("hold", second)])
    assert accounts[0].cash == near(-2.0 if label == "buy" else 4.0)
    assert records[1].reason == REASON_LIQUIDATION
    assert records[1].ruined
    assert accounts[1].units == 0
    assert accounts[1].equity == near(1 + (3 if label == "buy" else -3) * (price / 100 - 1))


def test_liquidation_comes_before_the_stop():
    env = bracketed(max_exposure=3.0, stop_loss=0.31, take_profit=0.0)  # the stop is at 69
    _, records = trade(env, [("buy", flat(100.0)), ("hold", (80.0, 80.0, 68.0, 75.0))])
    assert records[1].reason == REASON_LIQUIDATION
    assert records[1].exit_price == near(70.0)


@pytest.mark.parametrize("label", ["buy", "sell", "hold"])
def test_an_account_gone_at_the_open_sends_no_order(label):
    # Long .03 units on 2 of debt; at 50 equity is -.5. A target times that would be a position of the other sign.
    accounts, records = trade(LEVERAGED, [("buy", flat(100.0)), (label, flat(50.0))], fee=0.001)
    assert records[1].order_units == 0
    assert abs(records[1].exposure) < 1e6
    assert (records[1].closed, records[1].reason) == (1, REASON_LIQUIDATION)
    assert records[1].ruined
    assert accounts[1].units == 0


def test_a_ruined_account_stays_flat():
    orders = [("buy", flat(100.0)), ("hold", flat(60.0)), ("buy", flat(60.0)), ("sell", flat(90.0))]
    accounts, records = trade(LEVERAGED, orders)
    for account, record in zip(accounts[2:], records[2:], strict=True):
        assert account.units == 0
        assert account.equity == near(-0.2)
        assert (record.order_units, record.traded, record.closed) == (0, 0, 0)
        assert record.ruined


def test_borrow_is_paid_on_short_notional_and_can_ruin():
    # Short .01 units; 1 % of 1.1, then 1 % of 1.2. The trade loses the move and the borrow.
    orders = [("sell", (100.0, 110.0, 100.0, 110.0)), ("hold", (110.0, 120.0, 110.0, 120.0)), ("buy", flat(120.0))]
    accounts, records = trade(NO_STOPS, orders, borrow=0.01)
    assert [r.borrow for r in records] == near([0.011, 0.012, 0.0])
    assert accounts[0].equity == near(1 - 0.1 - 0.011)
    assert records[2].loss == near(-0.2 - 0.011 - 0.012)
    # 95 % a bar leaves .05 without a price that liquidates; the next open closes what is left.
    orders = [("sell", flat(100.0)), ("hold", flat(100.0))]
    accounts, records = trade(NO_STOPS, orders, borrow=0.95)
    assert (records[0].reason, records[0].ruined) == (REASON_NONE, True)
    assert accounts[1].units == 0
    assert records[1].loss == near(-0.95)


def test_same_side_orders_within_the_band_are_not_sent():
    env = bracketed(
        actions="targets",
        targets=(-0.02, 0.0, 0.02, 0.5, 0.54, 0.58),
        stop_loss=0.0,
        take_profit=0.0,
        rebalance_band=0.05,
    )
    labels = ("+0.5", "+0.54", "+0.58", "+0.02", "-0.02", "+0")
    _, records = trade(env, [(f"target_{label}", flat(100.0)) for label in labels])
    # .54 is within .05 of .5, .58 is not; a flip from .02 to -.02 and an exit go out however small.
    assert [r.order_units for r in records] == near([0.005, 0.0, 0.0008, -0.0056, -0.0004, 0.0002])


def test_a_flip_and_its_stop_on_one_bar_are_two_round_trips():
    # Long .01 units from 100; flipped at 110 to a short of 1.1 whose stop at 112.2 fires: 2.2 * .01 lost.
    env = bracketed(take_profit=0.0)
    orders = [("buy", (100.0, 110.0, 100.0, 110.0)), ("sell", (110.0, 113.0, 110.0, 111.0))]
    accounts, records = trade(env, orders)
    assert (records[1].closed, records[1].wins, records[1].losers, records[1].reason) == (2, 1, 1, REASON_STOP)
    assert (records[1].gain, records[1].loss) == near((0.1, -0.022))
    assert (accounts[1].trades, accounts[1].wins) == (2, 1)
    assert accounts[1].equity == near(1.078)


def test_a_round_trip_that_breaks_even_is_closed_but_neither_won_nor_lost():
    # Bought and sold at 100 without costs.
    accounts, records = trade(NO_STOPS, [("buy", flat(100.0)), ("sell", flat(100.0))])
    told = records[1]
    assert (told.closed, told.wins, told.losers, told.gain, told.loss) == (1, 0, 0, 0.0, 0.0)
    assert (accounts[1].trades, accounts[1].wins) == (1, 0)


def test_close_out_sells_at_the_close_and_at_cost():
    env = env_spec(NO_STOPS, RewardConfig())
    with jax.enable_x64(True):
        costs = Costs(*(jnp.asarray(c, jnp.float64) for c in (0.01, 0.02, 0.0)))
        market = MarketStep(*(jnp.full(2, p, jnp.float64) for p in (100.0, 110.0, 100.0, 110.0, 0.0, 0.0)))
        account, told = trade_bar(
            open_account(jnp.ones(2)), jnp.ones(2, jnp.int32), market, costs, jnp.bool_(True), env
        )
        where = jnp.array([True, False])
        after, record = close_out(account, told, jnp.full(2, 110.0), costs, where)
        # 1 / 103.02 units bought for 1, sold at 110 * .98 less 1 %.
        final = 110 * 0.98 * 0.99 / 103.02
        got = jax.tree.map(lambda x: x[0].item(), (after, record))
        kept = jax.tree.map(lambda x: x[1].item(), (after, record))
        before = jax.tree.map(lambda x: x[1].item(), (account, told))
    assert kept == before
    ended, told = got
    assert (ended.cash, ended.equity, told.equity) == near((final,) * 3)
    assert (ended.units, ended.trades, ended.wins, told.closed, told.wins, told.losers) == (0, 1, 1, 1, 1, 0)
    assert told.reason == REASON_END
    assert told.gain == near(final - 1)
    assert told.net_return == near(final - 1)
    assert told.exit_units == near(-1 / 103.02)
    assert told.exit_price == near(110 * 0.98)
    assert told.fees == near((1.02 + 0.01 * 110 * 0.98) / 103.02)
    assert told.cost == near(told.fees + (2 + 2.2) / 103.02)


def test_close_out_leaves_a_flat_account_alone():
    spec = env_spec(BRACKETED, RewardConfig())
    costs = Costs(*(jnp.float32(c) for c in (0.01, 0.02, 0.0)))
    market = MarketStep(*(jnp.float32(p) for p in (100.0, 100.0, 97.0, 99.0, 0.0, 0.0)))
    account, told = trade_bar(open_account(jnp.ones(())), jnp.int32(1), market, costs, jnp.bool_(True), spec)
    assert int(told.reason) == REASON_STOP
    after, record = close_out(account, told, jnp.float32(99.0), costs, jnp.bool_(True))
    jax.tree.map(np.testing.assert_array_equal, (after, record), (account, told))


@pytest.mark.parametrize("price", [97.3, 3.7])
def test_selling_what_was_bought_on_flat_bars_leaves_nothing(price):
    # In float32 the quarter bought is not exactly a quarter at the next open, yet selling a quarter is going flat.
    spec = SPECS["sized"]
    costs = Costs(*(jnp.float32(c) for c in (0.0007, 0.0, 0.0)))
    market = MarketStep(*(jnp.float32(p) for p in (*flat(price), 0.0, 0.0)))
    account = open_account(jnp.ones(()))
    for label in ("buy_25", "sell_25"):
        action = jnp.int32(spec.actions.labels.index(label))
        account, _ = trade_bar(account, action, market, costs, jnp.bool_(True), spec)
    assert float(account.units) == 0
    assert int(account.trades) == 1
    assert math.isclose(float(account.equity), 1 - 2 * 0.0007 * 0.25, rel_tol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("label", "stop", "take"), [(1, 0.98, 1.04), (2, 1.02, 0.96)])
def test_a_touch_that_is_exact_in_decimals_fires_in_either_precision(dtype, label, stop, take):
    # Entries at 3.00, 3.50 ... 500.00 have levels in whole cents, none of which binary fractions write exactly:
    # 100.5 * .98 is 98.49 or a bit beside it. A cent away nothing fires.
    entry = np.arange(6, 1001) / 2
    spec = env_spec(BRACKETED, RewardConfig())
    with jax.enable_x64(dtype == "float64"):
        cast = functools.partial(jnp.asarray, dtype=dtype)
        step = jax.jit(lambda a, m, c: trade_bar(a, jnp.full(len(entry), label), m, c, jnp.bool_(True), spec)[1])
        costs = Costs(*(cast(0.0) for _ in range(3)))
        for level, reason in ((stop, REASON_STOP), (take, REASON_TAKE_PROFIT)):
            touch = np.round(entry * level, 2)
            inside = np.round(touch + 0.01 * np.sign(entry - touch), 2)
            for price, want in ((touch, reason), (inside, REASON_NONE)):
                bar = (entry, np.maximum(entry, price), np.minimum(entry, price), entry, 0 * entry, 0 * entry)
                record = step(open_account(cast(np.ones(len(entry)))), MarketStep(*map(cast, bar)), costs)
                np.testing.assert_array_equal(record.reason, want)
