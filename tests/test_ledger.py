"""Round trips rebuilt from recorded bars: by hand, and against the account that recorded them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxppo.config.schema import EnvConfig, RewardConfig
from jaxppo.env.account import advance, close_out, open_account
from jaxppo.env.trading import env_spec, trade_bar
from jaxppo.market.tape import Costs, MarketStep
from jaxppo.play.trades import Excursion, Range, Trade, excursions, round_trips, system_quality

FEE = 0.01
KEEP = None
FREE = EnvConfig(stop_loss=0.0, take_profit=0.0)
STOPS = EnvConfig(stop_loss=0.02, take_profit=0.04)


def bar(opening, close=None, high=None, low=None):
    close = opening if close is None else close
    high = max(opening, close) if high is None else high
    low = min(opening, close) if low is None else low
    return MarketStep(*(jnp.float32(x) for x in (opening, high, low, close, 0, 0)))


@functools.cache
def one_bar(stops: bool):
    env = STOPS if stops else FREE
    return jax.jit(lambda account, units, market, costs: advance(account, units, market, costs, jnp.float32(10.0), env))


def played(wanted, bars, *, fee=FEE, impact=0.0, borrow=0.0, stops=False, end=False):
    """Record (N,) of an account of 10,000 that wants these units after each open, closed out at the end if `end`."""
    costs = Costs(jnp.float32(fee), jnp.float32(impact), jnp.float32(borrow))
    account, records = open_account(jnp.float32(10_000.0)), []
    for units, market in zip(wanted, bars, strict=True):
        units = account.units if units is KEEP else jnp.float32(units)
        account, record = one_bar(stops)(account, units, market, costs)
        records.append(record)
    if end:
        account, records[-1] = close_out(account, records[-1], bars[-1].close, costs, jnp.asarray(True))
    return jax.tree.map(lambda *x: np.stack(x), *records)


def check(trade, **expected):
    """Fields of a trade, numbers to float32's precision."""
    for name, value in expected.items():
        got = getattr(trade, name)
        assert got == (pytest.approx(value, rel=1e-4) if isinstance(value, float) else value), name


def test_long():
    # Bought 10 at 100 (fee 10), sold at 110 (fee 11): 100 - 21 = 79, on 1,000.
    trades = round_trips(played([10, KEEP, 0], [bar(100), bar(105), bar(110)]), FEE)
    assert len(trades) == 1
    check(trades[0], side="long", entry_bar=0, exit_bar=2, units=10.0, entry_price=100.0, exit_price=110.0)
    check(trades[0], fees=21.0, borrow=0.0, pnl=79.0, return_=0.079, reason="order")


def test_short_pays_borrow_on_its_notional_at_each_close():
    # Sold 10 at 100 (fee 10), bought back at 90 (fee 9). Borrow .1 % a bar: 1 at the close of 100, .95 at 95, and
    # nothing on the bar that ends flat. 100 - 19 - 1.95 = 79.05.
    trades = round_trips(played([-10, KEEP, 0], [bar(100), bar(95), bar(90)], borrow=0.001), FEE)
    assert len(trades) == 1
    check(trades[0], side="short", entry_bar=0, exit_bar=2, units=10.0, entry_price=100.0, exit_price=90.0)
    check(trades[0], fees=19.0, borrow=1.95, pnl=79.05, return_=0.07905, reason="order")


def test_flip_closes_one_trade_and_opens_the_next_on_the_same_bar():
    # 10 long from 100 to 110 (79, as above), then 5 short from 110 to 100: 50 - 5.5 - 5 = 39.5.
    trades = round_trips(played([10, -5, 0], [bar(100), bar(110), bar(100)]), FEE)
    assert len(trades) == 2
    check(trades[0], side="long", entry_bar=0, exit_bar=1, units=10.0, pnl=79.0)
    check(trades[1], side="short", entry_bar=1, exit_bar=2, units=5.0, entry_price=110.0, exit_price=100.0, pnl=39.5)


def test_scale_in_and_partial_exits_are_one_trade():
    # 4 at 100 and 6 at 110: average 106. Sold 5 at 120 and 5 at 100: average 110. 10 * 4 = 40,
    # fees 4 + 6.6 + 6 + 5 = 21.6: 18.4 on 1,060.
    record = played([4, 10, 5, 0], [bar(100), bar(110), bar(120), bar(100)])
    trades = round_trips(record, FEE)
    assert len(trades) == 1
    check(trades[0], entry_bar=0, exit_bar=3, units=10.0, entry_price=106.0, exit_price=110.0)
    check(trades[0], fees=21.6, pnl=18.4, return_=18.4 / 1060)
    assert record.closed.tolist() == [0, 0, 0, 1]


def test_partial_exits_of_a_short_that_was_scaled_into():
    # 5 sold at 100, 5 at 120: average 110. Bought 8 at 100 and 2 at 130: average 106. 40 - fees 5 + 6 + 8 + 2.6.
    trades = round_trips(played([-5, -10, -2, 0], [bar(100), bar(120), bar(100), bar(130)]), FEE)
    assert len(trades) == 1
    check(trades[0], side="short", units=10.0, entry_price=110.0, exit_price=106.0, fees=21.6, pnl=18.4)


def test_a_scale_out_then_in_again_stays_one_trade():
    # 10 at 100, 5 sold at 110, 5 bought at 120, 10 sold at 130. Entries 15 at 106.667, exits 15 at 123.333:
    # 250 - (10 + 5.5 + 6 + 13) = 215.5.
    trades = round_trips(played([10, 5, 10, 0], [bar(100), bar(110), bar(120), bar(130)]), FEE)
    assert len(trades) == 1
    check(trades[0], units=15.0, entry_price=1600 / 15, exit_price=1850 / 15, fees=34.5, pnl=215.5)


def test_stop_on_the_entry_bar():
    # Bought 10 at 100; the low of 97 goes through the stop at 98 on the same bar: -20 - 10 - 9.8 = -39.8.
    trades = round_trips(played([10, KEEP], [bar(100, close=99, low=97), bar(99)], stops=True), FEE)
    assert len(trades) == 1
    check(trades[0], entry_bar=0, exit_bar=0, entry_price=100.0, exit_price=98.0, pnl=-39.8, reason="stop")


def test_take_profit():
    # The high of 105 goes through 104: 40 - 10 - 10.4 = 19.6.
    trades = round_trips(played([10, KEEP], [bar(100), bar(101, high=105)], stops=True), FEE)
    assert len(trades) == 1
    check(trades[0], entry_bar=0, exit_bar=1, exit_price=104.0, pnl=19.6, reason="take_profit")


def test_flip_and_stop_of_the_new_position_on_one_bar():
    # 10 long from 100 to 100: -20 of fees. 10 short at 100, stopped at 102 on that bar: -20 - 10 - 10.2 = -40.2.
    record = played([10, -10], [bar(100), bar(100, close=101, high=103)], stops=True)
    trades = round_trips(record, FEE)
    assert len(trades) == 2
    check(trades[0], side="long", entry_bar=0, exit_bar=1, pnl=-20.0, reason="order")
    check(trades[1], side="short", entry_bar=1, exit_bar=1, exit_price=102.0, pnl=-40.2, reason="stop")
    assert record.closed.tolist() == [0, 2]
    assert record.loss[1] == pytest.approx(-60.2, rel=1e-4)


def test_partial_exit_and_stop_of_the_rest_on_one_bar():
    # 10 at 100; 4 sold at the open of 101, 6 stopped at 98. 4 - 12 - fees 10 + 4.04 + 5.88 = -27.92.
    record = played([10, 6], [bar(100), bar(101, close=98, low=97)], stops=True)
    trades = round_trips(record, FEE)
    assert len(trades) == 1
    check(trades[0], units=10.0, exit_price=(4 * 101 + 6 * 98) / 10, fees=19.92, pnl=-27.92, reason="stop")
    assert record.closed.tolist() == [0, 1]


def test_scale_in_and_stop_on_one_bar():
    # 5 at 100 and 5 at 101: average 100.5, stop at 98.49. 10 * -2.01 - fees 5 + 5.05 + 9.849 = -39.999.
    trades = round_trips(played([5, 10], [bar(100), bar(101, close=98, low=98)], stops=True), FEE)
    assert len(trades) == 1
    check(trades[0], units=10.0, entry_price=100.5, exit_price=98.49, pnl=-39.999, reason="stop")


def test_what_is_open_at_the_end_is_sold_at_the_close():
    # 10 at 100 (fee 10), sold at the last close of 120 (fee 12): 200 - 22.
    wanted, bars = [KEEP, 10, KEEP], [bar(90), bar(100), bar(110, close=120)]
    assert round_trips(played(wanted, bars), FEE) == []
    trades = round_trips(played(wanted, bars, end=True), FEE)
    assert len(trades) == 1
    check(trades[0], entry_bar=1, exit_bar=2, exit_price=120.0, pnl=178.0, reason="end")


def test_bought_and_sold_on_the_last_bar_with_borrow():
    # 10 short at 100, marked at 90: borrow .1 % of 900 = .9, bought back at that close: 100 - 10 - 9 - .9 = 80.1.
    trades = round_trips(played([-10], [bar(100, close=90)], borrow=0.001, end=True), FEE)
    assert len(trades) == 1
    check(trades[0], entry_bar=0, exit_bar=0, borrow=0.9, pnl=80.1, reason="end")


def test_prices_are_fills_impact_included():
    # 2 % against us: bought at 102, sold at 107.8: 58 - 1 % of (1,020 + 1,078) = 37.02.
    trades = round_trips(played([10, 0], [bar(100), bar(110)], impact=0.02), FEE)
    check(trades[0], entry_price=102.0, exit_price=107.8, fees=20.98, pnl=37.02)
    # Of 10 units at mid prices of 100 and 110, 2 % is 20 + 22; costs are all that is missing from the 100 of the mids.
    trades = round_trips(played([10, 0], [bar(100), bar(110)], impact=0.02), FEE, 0.02)
    check(trades[0], fees=20.98, impact=42.0, costs=62.98, pnl=100 - 62.98)


def test_the_impact_of_a_flip_and_of_a_stop_belongs_to_the_trade_that_it_fills():
    # 5 bought at 100, sold short to -10 at 120: 5 of the 15 close the first trade; bought back at 100.
    record = played([5, -10, 0], [bar(100), bar(120), bar(100)], impact=0.01)
    first, second = round_trips(record, FEE, 0.01)
    check(first, impact=5.0 + 6.0)
    check(second, impact=12.0 + 10.0)
    # Bought at 101, the stop 2 % below it at 98.98 fills 1 % lower.
    record = played([10], [bar(100, low=95)], impact=0.01, stops=True)
    check(round_trips(record, 0.0, 0.01)[0], impact=10.0 + 9.898, exit_price=0.99 * 98.98)


def ran(record, bars):
    """Excursions of the trades of a record, and the trades."""
    of = Range(*(np.asarray([float(getattr(b, k)) for b in bars]) for k in ("open", "high", "low")))
    trades = round_trips(record, FEE)
    return excursions(trades, record, of), trades


def test_excursions_are_the_high_and_the_low_of_what_was_held():
    bars = [bar(100, 101, high=105, low=98), bar(101, high=200, low=50)]
    assert ran(played([10, 0], bars), bars)[0][0] == pytest.approx(Excursion(0.05, -0.02))
    assert ran(played([-10, 0], bars), bars)[0][0] == pytest.approx(Excursion(0.02, -0.05))
    # Sold at the next open beyond the range: the fill counts, the rest of that bar does not.
    bars = [bar(100, 101, high=105, low=98), bar(90, high=200, low=50)]
    assert ran(played([10, 0], bars), bars)[0][0] == pytest.approx(Excursion(0.05, -0.10))
    # Never below its entry: nothing adverse.
    bars = [bar(100, 110), bar(110)]
    assert ran(played([10, 0], bars), bars)[0][0] == pytest.approx(Excursion(0.10, 0.0))


def test_of_the_bar_of_a_stop_only_its_open_and_its_exit_count():
    bars = [bar(100), bar(101, close=98, high=103.9, low=90)]
    assert ran(played([10, KEEP], bars, stops=True), bars)[0][0] == pytest.approx(Excursion(0.01, -0.02), rel=1e-4)
    bars = [bar(100), bar(99, close=104, high=110, low=98.5)]
    assert ran(played([10, KEEP], bars, stops=True), bars)[0][0] == pytest.approx(Excursion(0.04, -0.01), rel=1e-4)
    bars = [bar(100), bar(100, close=101, high=110, low=95)]  # sold at the close: the whole bar came before
    assert ran(played([10, KEEP], bars, end=True), bars)[0][0] == pytest.approx(Excursion(0.10, -0.05))


def test_excursions_of_a_position_that_grows_shrinks_and_flips():
    # 10 at 100; at 110 5 more: 10 * 10 + 15 * (120 - 110) = 250 at the high, on 10 * 100 + 5 * 110 = 1,550.
    # Then 10 of the 15 are sold at 108: 250 less what was given back, and 5 left with a low of 80.
    bars = [bar(100), bar(110, high=120), bar(108, low=80), bar(100), bar(100, 100, high=104, low=97), bar(102)]
    runs, trades = ran(played([10, 15, 5, -10, KEEP, 0], bars), bars)
    assert runs[0] == pytest.approx(Excursion(250 / 1550, (100 + 15 * -2 + 5 * -28) / 1550), rel=1e-5)
    # The flip at 100 begins a short of 10 at 100.
    assert runs[1] == pytest.approx(Excursion(0.03, -0.04))
    assert [t.side for t in trades] == ["long", "short"]


def test_no_orders_no_trades():
    assert round_trips(played([KEEP, KEEP], [bar(100), bar(110)], end=True), FEE) == []


N_BARS, N_ACCOUNTS = 250, 48


def column(record, i):
    return jax.tree.map(lambda x: x[:, i], record)


def random_bars(seed):
    """(N_BARS, N_ACCOUNTS) bars with gaps and wide ranges, so that everything fires."""
    rng = np.random.default_rng(seed)
    shape = (N_BARS, N_ACCOUNTS)
    close = 50.0 * np.exp(np.cumsum(0.02 * rng.standard_t(3, shape), axis=0))
    opening = np.concatenate([np.full((1, N_ACCOUNTS), 50.0), close[:-1]]) * np.exp(0.005 * rng.standard_t(3, shape))
    high = np.maximum(opening, close) * (1 + 0.01 * rng.random(shape))
    low = np.minimum(opening, close) * (1 - 0.01 * rng.random(shape))
    zero = np.zeros(shape)
    return MarketStep(*(jnp.asarray(x, jnp.float32) for x in (opening, high, low, close, zero, zero)))


def random_accounts(env, seed, fee, allow_short):
    """Final accounts and record (N_BARS, N_ACCOUNTS) of random actions; ruined accounts stay ruined."""
    spec = env_spec(env, RewardConfig())
    costs = Costs(jnp.float32(fee), jnp.float32(0.0005), jnp.float32(0.0002))
    shape = (N_BARS, N_ACCOUNTS)
    action = jax.random.randint(jax.random.key(seed), shape, 0, spec.actions.n_actions, jnp.int32)

    def step(carry, x):
        account, ruined = carry
        action, market, at_end = x
        account, record = trade_bar(account, action, market, costs, jnp.asarray(allow_short), spec, ruined)
        account, record = close_out(account, record, market.close, costs, at_end)
        return (account, ruined | record.ruined), record

    start = (open_account(jnp.ones(N_ACCOUNTS)), jnp.zeros(N_ACCOUNTS, bool))
    xs = (action, random_bars(seed), jnp.arange(N_BARS) == N_BARS - 1)
    (account, _), record = jax.jit(lambda: jax.lax.scan(step, start, xs))()
    return jax.tree.map(np.asarray, account), jax.tree.map(np.asarray, record)


@pytest.mark.parametrize(
    ("env", "allow_short"),
    [
        (EnvConfig(actions="hold_buy_sell"), True),
        (EnvConfig(actions="sized", stop_loss=0.03, take_profit=0.0), True),
        (EnvConfig(actions="sized_close", stop_loss=0.0, take_profit=0.05), False),
        (EnvConfig(actions="targets", targets=(-3.0, -1.0, 0.0, 1.0, 3.0), max_exposure=3.0, stop_loss=0.2), True),
    ],
)
def test_round_trips_and_the_recorded_sums_are_the_same_money(env, allow_short):
    """An account that is flat at the end has gained what its trades gained, on either book."""
    fee = 0.001
    account, record = random_accounts(env, 1, fee, allow_short)
    assert (account.units == 0).all()
    total = 0
    for i in range(N_ACCOUNTS):
        one = column(record, i)
        trades = round_trips(one, fee)
        pnl = np.array([t.pnl for t in trades])
        assert pnl.sum() == pytest.approx(account.equity[i] - 1.0, abs=2e-5)
        assert len(trades) == one.closed.sum() == account.trades[i]
        assert (pnl > 0).sum() == one.wins.sum() == account.wins[i]
        assert pnl[pnl > 0].sum() == pytest.approx(one.gain.sum(), abs=2e-5)
        assert pnl[pnl < 0].sum() == pytest.approx(one.loss.sum(), abs=2e-5)
        assert sum(t.fees for t in trades) == pytest.approx(one.fees.sum(), rel=1e-4)
        assert sum(t.borrow for t in trades) == pytest.approx(one.borrow.sum(), rel=1e-4)
        np.testing.assert_array_equal(one.closed, np.bincount([t.exit_bar for t in trades], minlength=N_BARS))
        assert all(t.entry_bar <= t.exit_bar for t in trades)
        impact = sum(t.impact for t in round_trips(one, fee, 0.0005))
        assert impact == pytest.approx((one.cost - one.fees).sum(), rel=1e-3)
        bars = random_bars(1)
        runs = excursions(trades, one, Range(*(np.asarray(x[:, i]) for x in (bars.open, bars.high, bars.low))))
        for trade, run in zip(trades, runs, strict=True):
            notional, gross = trade.units * trade.entry_price, trade.pnl + trade.fees + trade.borrow
            # In money, of accounts and positions in float32: of a position of a 5,000th of its account the residue that
            # rounding leaves is 6e-5, so a bound on the share would have to be far above what it is of others, 1e-7.
            rounding = 3e-7 * (1.0 + notional)
            assert run.adverse * notional - rounding <= min(gross, 0.0)
            assert run.favourable * notional + rounding >= max(gross, 0.0)
        total += len(trades)
    assert total > 10 * N_ACCOUNTS  # it was about something


def test_a_ruined_account_is_liquidated_and_trades_no_more():
    env = EnvConfig(actions="targets", targets=(-3.0, 3.0), max_exposure=3.0, stop_loss=0.0, take_profit=0.0)
    account, record = random_accounts(env, 2, 0.001, True)
    ruined, reasons = np.flatnonzero(record.ruined.any(0)), set()
    assert len(ruined) > 0
    for i in ruined:
        one = column(record, i)
        trades = round_trips(one, 0.001)
        first = int(np.flatnonzero(one.ruined)[0])
        # Ruined at a close, it is sold at the next open; ruined during a bar, it is flat by then.
        assert trades[-1].exit_bar <= first + 1
        assert (one.units[first + 1 :] == 0).all()
        assert sum(t.pnl for t in trades) == pytest.approx(account.equity[i] - 1.0, abs=2e-5)
        reasons.add(trades[-1].reason)
    assert "liquidation" in reasons


def test_selling_what_was_bought_at_an_unchanged_price_leaves_nothing():
    """Exposure .5 less .5 is not 0 in float32; what is left over is no position, and no trade to count."""
    spec = env_spec(EnvConfig(actions="sized", stop_loss=0.0, take_profit=0.0), RewardConfig())
    price = jnp.linspace(3.0, 300.0, N_ACCOUNTS)
    market = MarketStep(price, price, price, price, 0 * price, 0 * price)
    costs = Costs(jnp.float32(0.001), jnp.float32(0.0005), jnp.float32(0.0))
    account, closed = open_account(jnp.ones(N_ACCOUNTS)), jnp.zeros(N_ACCOUNTS, jnp.int32)
    step = jax.jit(lambda a, action: trade_bar(a, action, market, costs, jnp.asarray(True), spec))
    for label in ("buy_50", "sell_50", "hold"):
        action = jnp.full(N_ACCOUNTS, spec.actions.labels.index(label), jnp.int32)
        account, record = step(account, action)
        closed += record.closed
    np.testing.assert_array_equal(account.units, 0.0)
    np.testing.assert_array_equal(closed, 1)


def made(pnl):
    return [Trade("long", 0, 1, 1.0, 100.0, 100.0 + x, 0.0, 0.0, x, x / 100, "order") for x in pnl]


def test_system_quality():
    # Mean 2, deviation sqrt((1 + 1 + 4) / 2) = sqrt 3: sqrt 3 * 2 / sqrt 3.
    assert system_quality(made([1.0, 1.0, 4.0])) == pytest.approx(2.0)
    assert np.isnan([system_quality(made(x)) for x in ([], [5.0], [5.0, 5.0])]).all()
