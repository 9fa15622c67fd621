"""The account against the plain-Python reference on random markets, its own books, and arithmetic by hand."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxppo.config.schema import EnvConfig, RewardConfig
from jaxppo.env.account import (
    REASON_END,
    REASON_LIQUIDATION,
    REASON_NONE,
    REASON_STOP,
    REASON_TAKE_PROFIT,
    close_out,
    open_account,
)
from jaxppo.env.trading import env_spec, step_account
from jaxppo.market.tape import Costs, MarketStep
from tests.reference.account import ReferenceAccount

LANES, BARS = 32, 64
# Rounding that a comparison of prices may suffer: a few units in the last place of a number near the price.
ROUNDING = {"float32": 4e-6, "float64": 1e-12}
TOLERANCE = {"float32": 1e-5, "float64": 1e-9}

ENVS = {
    "hold_buy_sell": EnvConfig(),
    "tight_stops": EnvConfig(max_exposure=1.5, stop_loss=0.003, take_profit=0.002, rebalance_band=0.0),
    "sized": EnvConfig(actions="sized", max_exposure=3.0, take_profit_gap="limit", ruin_level=0.3),
    "sized_close": EnvConfig(actions="sized_close", max_exposure=2.0, stop_loss=0.0, take_profit=0.03),
    "targets": EnvConfig(
        actions="targets",
        targets=(-3.0, -1.0, -0.4, 0.0, 0.3, 1.0, 2.5),
        max_exposure=3.0,
        stop_loss=0.1,
        take_profit=0.0,
    ),
    # Same-side orders never go out, so that with dyadic prices and no impact every level is an exact number.
    "grid": EnvConfig(stop_loss=1 / 64, take_profit=1 / 32, rebalance_band=1.0, take_profit_gap="limit"),
}
SPECS = {name: env_spec(env, RewardConfig()) for name, env in ENVS.items()}
RANDOM = [name for name in ENVS if name != "grid"]


# --- both implementations over the same bars ---


@functools.cache
def player(name: str, jit: bool = True):
    """(account, actions, market, costs, allow_short) of L lanes to stacked accounts and records (L, N)."""
    spec = SPECS[name]

    def bar(costs, allow_short, carry, x):
        account, ruined = carry
        action, market = x
        account, result = step_account(account, action, market, costs, allow_short, spec, alive=~ruined)
        return (account, ruined | result.record.ruined), (account, result.record)

    def lane(account, actions, market, costs, allow_short):
        run = functools.partial(bar, costs, allow_short)
        return jax.lax.scan(run, (account, jnp.zeros((), bool)), (actions, market))[1]

    return jax.jit(jax.vmap(lane)) if jit else lane


def play(name, prices, actions, costs, allow_short, dtype="float64"):
    """Run the package on L lanes; returns (accounts, records) of NumPy arrays (L, N)."""
    lanes, bars = actions.shape
    with jax.enable_x64(dtype == "float64"):
        cast = functools.partial(jnp.asarray, dtype=dtype)
        zero = cast(np.zeros((lanes, bars)))
        out = player(name)(
            open_account(cast(np.ones(lanes))),
            jnp.asarray(actions, jnp.int32),
            MarketStep(*(cast(p) for p in prices), zero, zero),
            Costs(*(cast(c) for c in costs)),
            jnp.asarray(allow_short),
        )
        return jax.tree.map(np.asarray, out)


def reference_account(name, costs, allow_short) -> ReferenceAccount:
    env = ENVS[name]
    fee, impact, borrow = (float(c) for c in costs)
    return ReferenceAccount(
        fee=fee,
        impact=impact,
        borrow=borrow,
        stop_loss=env.stop_loss,
        take_profit=env.take_profit,
        take_profit_gap=env.take_profit_gap,
        ruin=env.ruin_level,
        band=env.rebalance_band,
        max_exposure=env.max_exposure,
        allow_short=bool(allow_short),
    )


def disagreement(account, record, i, reference, events, tolerance) -> str | None:
    """The first field in which bar i of a lane differs from the reference; None when all agree."""
    exact = {
        "reason": (record.reason[i], events.reason),
        "ruined": (record.ruined[i], events.ruined),
        "closed": (record.closed[i], events.closed),
        "won": (record.wins[i], events.wins),
        "trades": (account.trades[i], reference.trades),
        "wins": (account.wins[i], reference.wins),
        "bars_held": (account.bars_held[i], reference.bars_held),
        "holding": (account.units[i] != 0, reference.units != 0),
    }
    for name, (got, want) in exact.items():
        if got != want:
            return f"{name}: {got} instead of {want}"
    price = events.order_price or events.exit_price or reference.average_cost or 1.0
    # Cash and P&L are differences of sums as large as the money moved, which is the scale of their rounding; what a
    # leveraged account lost in its ruin is such a sum too.
    gross = reference.largest
    # Of a leveraged position's rounding, leverage times as much shows in what is left.
    leverage = max(1.0, reference.max_exposure)
    money = {
        "equity": (account.equity[i], reference.equity, gross if reference.ruined else leverage * reference.equity),
        "cash": (account.cash[i], reference.cash, gross),
        "units": (account.units[i], reference.units, gross / price),
        "average_cost": (account.average_cost[i], reference.average_cost, price),
        "peak": (account.peak[i], reference.peak, reference.peak),
        "order_units": (record.order_units[i], events.order_units, gross / price),
        "exit_units": (record.exit_units[i], events.exit_units, gross / price),
        "exposure": (record.exposure[i], events.exposure, 1.0 + events.exposure**2),
    }
    for field in ("fees", "borrow", "cost", "traded", "gain", "loss"):
        money[field] = (getattr(record, field)[i], getattr(events, field), gross)
    if events.order_price is not None and abs(events.order_units) * price > 1e-6:
        money["order_price"] = (record.order_price[i], events.order_price, price)
    if events.exit_price is not None:
        money["exit_price"] = (record.exit_price[i], events.exit_price, leverage * price)
    if reference.stop is not None:
        money["stop"] = (account.stop[i], reference.stop, reference.stop)
    if reference.limit is not None:
        money["take_profit"] = (account.take_profit[i], reference.limit, reference.limit)
    for name, (got, want, scale) in money.items():
        if not abs(got - want) <= tolerance * scale:
            return f"{name}: {got} instead of {want}"
    return None


def compare(name, prices, actions, costs, allow_short, dtype) -> int:
    """Assert agreement lane by lane and bar by bar; returns how many lanes a knife-edge decision cut short.

    A lane may part from the reference only on a bar whose outcome rounding can turn, which the reference itself tells.
    """
    accounts, records = play(name, prices, actions, costs, allow_short, dtype)
    labels = SPECS[name].actions.labels
    parted = 0
    for lane in range(actions.shape[0]):
        reference = reference_account(name, (c[lane] for c in costs), allow_short[lane])
        account = jax.tree.map(lambda x, lane=lane: x[lane], accounts)
        record = jax.tree.map(lambda x, lane=lane: x[lane], records)
        for i in range(actions.shape[1]):
            events = reference.step(labels[actions[lane, i]], *(float(p[lane, i]) for p in prices))
            wrong = disagreement(account, record, i, reference, events, TOLERANCE[dtype])
            if wrong:
                assert reference.margin < ROUNDING[dtype], f"{name}, lane {lane}, bar {i}, {dtype}: {wrong}"
                parted += 1
                break
    return parted


def random_case(name, seed, volatility, gaps, flats, costly, lanes=LANES, bars=BARS):
    """Prices (open, high, low, close) (L, N), actions (L, N), costs (L,) and allow_short (L,), all exact in float32."""
    rng = np.random.default_rng(seed)
    flat = rng.random((lanes, bars)) < flats
    gap = np.where(rng.random((lanes, bars)) < gaps, 6 * volatility, 0.1 * volatility) * rng.standard_normal(
        (lanes, bars)
    )
    move = volatility * rng.standard_normal((lanes, bars))
    reach = volatility * np.abs(rng.standard_normal((2, lanes, bars)))
    gap, move, reach = np.where(flat, 0, gap), np.where(flat, 0, move), np.where(flat, 0, reach)
    close = np.cumsum(gap + move, axis=1) + rng.uniform(-5, 10, (lanes, 1))
    open_ = close - move
    high, low = np.maximum(open_, close) + reach[0], np.minimum(open_, close) - reach[1]
    prices = [np.exp(x).astype(np.float32).astype(np.float64) for x in (open_, high, low, close)]
    n_actions = SPECS[name].actions.n_actions
    actions = rng.integers(0, n_actions, (lanes, bars))
    if "hold" in SPECS[name].actions.labels:  # action 0; held positions see more bars
        actions = np.where(rng.random((lanes, bars)) < 0.5, 0, actions)
    some = rng.random((3, lanes)) < 0.8
    top = np.array([[0.05], [0.02], [0.002]]) if costly else np.array([[0.003], [0.001], [0.0001]])
    costs = (some * top * rng.random((3, lanes))).astype(np.float32).astype(np.float64)
    return prices, actions, costs, rng.random(lanes) < 0.7


CASES = {
    "seed": st.integers(0, 2**32 - 1),
    "volatility": st.sampled_from((0.002, 0.01, 0.05)),
    "gaps": st.sampled_from((0.0, 0.1, 0.5)),
    "flats": st.sampled_from((0.0, 0.3)),
    "costly": st.booleans(),
}


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_agrees_with_reference_on_random_markets(name, dtype):
    parted = lanes = 0

    @settings(max_examples=12, deadline=None, derandomize=True, database=None)
    @given(**CASES)
    def check(seed, volatility, gaps, flats, costly):
        nonlocal parted, lanes
        parted += compare(name, *random_case(name, seed, volatility, gaps, flats, costly), dtype)
        lanes += LANES

    check()
    # Round trips at no cost on bars that do not move, won or lost by the last bit.
    assert parted <= 0.01 * lanes


_PRICE = st.integers(61, 67)
_BAR = st.tuples(_PRICE, _PRICE, st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.lists(_BAR, min_size=12, max_size=12), st.booleans())
def test_agrees_with_reference_on_exact_touches(bars, allow_short):
    # Whole prices near 64 with levels 1/64 and 1/32 away: entries at 64 have levels that bars touch exactly, in both
    # dtypes. Nothing may be excused as rounding here.
    open_, close, up, down, action = (np.array([column], float) for column in zip(*bars, strict=True))
    prices = [open_, np.maximum(open_, close) + up, np.minimum(open_, close) - down, close]
    costs = np.array([[1 / 1024], [0.0], [0.0]])
    for dtype in TOLERANCE:
        assert compare("grid", prices, action.astype(int), costs, np.array([allow_short]), dtype) == 0


@pytest.mark.parametrize("name", RANDOM)
def test_equity_changes_by_profit_less_costs(name):
    prices, actions, costs, allow_short = random_case(name, 11, 0.01, 0.1, 0.1, True)
    accounts, records = play(name, prices, actions, costs, allow_short)
    open_, _, _, close = prices
    before = np.concatenate([np.ones((LANES, 1)), records.equity[:, :-1]], axis=1)
    held = np.concatenate([np.zeros((LANES, 1)), records.units[:, :-1]], axis=1)
    last_close = np.concatenate([close[:, :1], close[:, :-1]], axis=1)
    ordered = held + records.order_units
    # A fill lies impact away from the mid price; measured against mid prices the only other flows are costs and borrow.
    impact = np.expand_dims(costs[1], 1)
    exit_mid = records.exit_price / (1 + np.sign(records.exit_units) * impact)
    until = np.where(records.reason > 0, exit_mid, close)
    profit = held * (open_ - last_close) + ordered * (until - open_)
    np.testing.assert_allclose(records.equity - before, profit - records.cost - records.borrow, atol=1e-12)
    np.testing.assert_allclose(records.net_return, records.equity / before - 1, atol=1e-12)
    # The ledger's other reading: closed trades, plus the open trade so far, are all that ever happened to the equity.
    open_trade = accounts.trade_pnl + accounts.units * (close - accounts.average_cost)
    total = np.cumsum(records.gain + records.loss, axis=1) + open_trade
    np.testing.assert_allclose(records.equity - 1, total, atol=1e-12)
    assert (np.cumsum(records.closed, axis=1) == accounts.trades).all()
    assert (np.cumsum(records.wins, axis=1) == accounts.wins).all()
    assert records.closed.sum() > 100
    assert (records.reason > 0).sum() > 10


def test_one_lane_alone_equals_the_batch_and_a_loop_equals_the_scan():
    name = "targets"
    prices, actions, costs, allow_short = random_case(name, 5, 0.01, 0.1, 0.1, False, lanes=4, bars=12)
    batch = play(name, prices, actions, costs, allow_short, "float32")
    spec = SPECS[name]
    step = jax.jit(lambda a, x, m, c, s, alive: step_account(a, x, m, c, s, spec, alive=alive))
    for lane in range(4):
        account, alive = open_account(jnp.ones(())), True
        cost = Costs(*(jnp.float32(c[lane]) for c in costs))
        for i in range(12):
            market = MarketStep(*(jnp.float32(p[lane, i]) for p in prices), jnp.float32(0), jnp.float32(0))
            account, result = step(
                account, jnp.int32(actions[lane, i]), market, cost, jnp.bool_(allow_short[lane]), jnp.bool_(alive)
            )
            alive = alive and not bool(result.record.ruined)
            expected = jax.tree.map(lambda x, lane=lane, i=i: x[lane, i], batch)
            jax.tree.map(
                lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7),
                (account, result.record),
                expected,
            )


# --- by hand ---


def trade(env: EnvConfig, orders, *, fee=0.0, impact=0.0, borrow=0.0, allow_short=True):
    """Play `orders`, pairs of an action label and a bar (open, high, low, close), in float64, checked on the reference.

    Returns the accounts and the records, one a bar.
    """
    spec = env_spec(env, RewardConfig())
    reference = ReferenceAccount(
        fee=fee,
        impact=impact,
        borrow=borrow,
        stop_loss=env.stop_loss,
        take_profit=env.take_profit,
        take_profit_gap=env.take_profit_gap,
        ruin=env.ruin_level,
        band=env.rebalance_band,
        max_exposure=env.max_exposure,
        allow_short=allow_short,
    )
    accounts, records = [], []
    with jax.enable_x64(True):
        account, alive = open_account(jnp.ones(())), True
        costs = Costs(*(jnp.asarray(c, jnp.float64) for c in (fee, impact, borrow)))
        for i, (label, bar) in enumerate(orders):
            market = MarketStep(*(jnp.asarray(p, jnp.float64) for p in (*bar, 0.0, 0.0)))
            action = jnp.int32(spec.actions.labels.index(label))
            account, result = step_account(
                account, action, market, costs, jnp.bool_(allow_short), spec, alive=jnp.bool_(alive)
            )
            alive = alive and not bool(result.record.ruined)
            accounts.append(jax.tree.map(lambda x: x.item(), account))
            records.append(jax.tree.map(lambda x: x.item(), result.record))
            events = reference.step(label, *bar)
            as_lane = jax.tree.map(lambda x: [x], (accounts[-1], records[-1]))
            wrong = disagreement(*as_lane, 0, reference, events, 1e-9)
            assert wrong is None, f"bar {i}: {wrong}"
    return accounts, records


def flat(price):
    return (price,) * 4


near = functools.partial(pytest.approx, rel=1e-12, abs=1e-12)
NO_STOPS = EnvConfig(stop_loss=0.0, take_profit=0.0)


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


SIZED = EnvConfig(actions="sized_close", stop_loss=0.0, take_profit=0.0)


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
    env = EnvConfig(actions="sized", stop_loss=0.5, take_profit=0.5)
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
    (account,), (record,) = trade(EnvConfig(), [(label, bar)])
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
    env = EnvConfig(take_profit_gap=rule)
    accounts, records = trade(env, [(label, flat(100.0)), ("hold", flat(gap))])
    assert records[1].reason == reason
    assert records[1].exit_price == near(price)
    assert accounts[1].equity == near(1 + (1 if label == "buy" else -1) * (price / 100 - 1))


def test_exits_pay_impact_and_fee():
    # 1 / 103.02 units at 102 with the stop at 99.96; sold there at 99.96 * .98 less 1 %.
    (account,), (record,) = trade(EnvConfig(), [("buy", (100.0, 101.0, 99.5, 100.0))], fee=0.01, impact=0.02)
    fill = 102 * 0.98 * 0.98
    assert record.exit_price == near(fill)
    assert account.cash == near(fill * 0.99 / 103.02)
    assert record.loss == near(account.cash - 1)
    assert record.fees == near((1.02 + 0.01 * fill) / 103.02)
    assert record.cost == near((1.02 + 0.01 * fill + 2 + 102 * 0.98 * 0.02) / 103.02)


LEVERAGED = EnvConfig(max_exposure=3.0, stop_loss=0.0, take_profit=0.0)


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
    env = EnvConfig(max_exposure=3.0, stop_loss=0.31, take_profit=0.0)  # the stop is at 69
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
    env = EnvConfig(
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
    env = EnvConfig(take_profit=0.0)
    orders = [("buy", (100.0, 110.0, 100.0, 110.0)), ("sell", (110.0, 113.0, 110.0, 111.0))]
    accounts, records = trade(env, orders)
    assert (records[1].closed, records[1].wins, records[1].reason) == (2, 1, REASON_STOP)
    assert (records[1].gain, records[1].loss) == near((0.1, -0.022))
    assert (accounts[1].trades, accounts[1].wins) == (2, 1)
    assert accounts[1].equity == near(1.078)


def test_close_out_sells_at_the_close_and_at_cost():
    env = env_spec(NO_STOPS, RewardConfig())
    with jax.enable_x64(True):
        costs = Costs(*(jnp.asarray(c, jnp.float64) for c in (0.01, 0.02, 0.0)))
        market = MarketStep(*(jnp.full(2, p, jnp.float64) for p in (100.0, 110.0, 100.0, 110.0, 0.0, 0.0)))
        account, result = step_account(
            open_account(jnp.ones(2)), jnp.ones(2, jnp.int32), market, costs, jnp.bool_(True), env
        )
        where = jnp.array([True, False])
        after, record = close_out(account, result.record, jnp.full(2, 110.0), costs, where)
        # 1 / 103.02 units bought for 1, sold at 110 * .98 less 1 %.
        final = 110 * 0.98 * 0.99 / 103.02
        got = jax.tree.map(lambda x: x[0].item(), (after, record))
        kept = jax.tree.map(lambda x: x[1].item(), (after, record))
        before = jax.tree.map(lambda x: x[1].item(), (account, result.record))
    assert kept == before
    ended, told = got
    assert (ended.cash, ended.equity, told.equity) == near((final,) * 3)
    assert (ended.units, ended.trades, ended.wins, told.closed, told.wins) == (0, 1, 1, 1, 1)
    assert told.reason == REASON_END
    assert told.gain == near(final - 1)
    assert told.net_return == near(final - 1)
    assert told.exit_units == near(-1 / 103.02)
    assert told.exit_price == near(110 * 0.98)
    assert told.fees == near((1.02 + 0.01 * 110 * 0.98) / 103.02)
    assert told.cost == near(told.fees + (2 + 2.2) / 103.02)


def test_close_out_leaves_a_flat_account_alone():
    spec = env_spec(EnvConfig(), RewardConfig())
    costs = Costs(*(jnp.float32(c) for c in (0.01, 0.02, 0.0)))
    market = MarketStep(*(jnp.float32(p) for p in (100.0, 100.0, 97.0, 99.0, 0.0, 0.0)))
    account, result = step_account(open_account(jnp.ones(())), jnp.int32(1), market, costs, jnp.bool_(True), spec)
    assert int(result.record.reason) == REASON_STOP
    after, record = close_out(account, result.record, jnp.float32(99.0), costs, jnp.bool_(True))
    jax.tree.map(np.testing.assert_array_equal, (after, record), (account, result.record))


@pytest.mark.parametrize("price", [97.3, 3.7])
def test_selling_what_was_bought_on_flat_bars_leaves_nothing(price):
    # In float32 the quarter bought is not exactly a quarter at the next open, yet selling a quarter is going flat.
    spec = SPECS["sized"]
    costs = Costs(*(jnp.float32(c) for c in (0.0007, 0.0, 0.0)))
    market = MarketStep(*(jnp.float32(p) for p in (*flat(price), 0.0, 0.0)))
    account = open_account(jnp.ones(()))
    for label in ("buy_25", "sell_25"):
        action = jnp.int32(spec.actions.labels.index(label))
        account, _ = step_account(account, action, market, costs, jnp.bool_(True), spec)
    assert float(account.units) == 0
    assert int(account.trades) == 1
    assert math.isclose(float(account.equity), 1 - 2 * 0.0007 * 0.25, rel_tol=1e-5)
