"""The account against the plain-Python reference on random markets, and its own books."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxppo.env.account import open_account
from jaxppo.env.trading import trade_bar
from jaxppo.market.tape import Costs, MarketStep
from tests.reference.compare import LANES, RANDOM, SPECS, TOLERANCE, compare, play, random_case

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


def conserves(name, case, dtype, atol):
    """Assert that equity changes by P&L less costs on every bar of a random case; returns (round trips, exits)."""
    prices, actions, costs, allow_short = case
    accounts, records = play(name, prices, actions, costs, allow_short, dtype)
    accounts, records = jax.tree.map(lambda x: x.astype(np.float64), (accounts, records))
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
    # Money is rounded in sums as large as what an account of 1 ever held, the debts of a ruined one included.
    most = np.maximum.accumulate(np.abs(records.equity) + 2 * np.abs(ordered) * np.maximum(open_, close), axis=1)
    scale = np.maximum(np.maximum.accumulate(before, axis=1), most)

    def same(got, want, what):
        error = np.abs(got - want) / scale
        assert error.max() <= atol, f"{name}, {dtype}: {what} is off by {error.max()}"

    same(records.equity - before, profit - records.cost - records.borrow, "the change of equity")
    # Cash moves by what was paid and received; the position is marked at the close.
    same(accounts.cash + accounts.units * close, records.equity, "cash + units * close")
    paid = records.order_units * records.order_price + records.exit_units * records.exit_price
    cash = np.concatenate([np.ones((LANES, 1)), accounts.cash[:, :-1]], axis=1)
    same(accounts.cash - cash, -(paid + records.fees + records.borrow), "the change of cash")
    # The ledger's other reading: closed trades, plus the open trade so far, are all that ever happened to the equity.
    open_trade = accounts.trade_pnl + accounts.units * (close - accounts.average_cost)
    same(records.equity - 1, np.cumsum(records.gain + records.loss, axis=1) + open_trade, "the sum of trades")
    assert (np.cumsum(records.closed, axis=1) == accounts.trades).all()
    assert (np.cumsum(records.wins, axis=1) == accounts.wins).all()
    return records.closed.sum(), (records.reason > 0).sum()


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize(("dtype", "atol"), [("float64", 1e-12), ("float32", 1e-5)])
def test_equity_changes_by_profit_less_costs(name, dtype, atol):
    trips = exits = 0

    @settings(max_examples=12, deadline=None, derandomize=True, database=None)
    @given(**CASES)
    def check(seed, volatility, gaps, flats, costly):
        nonlocal trips, exits
        more = conserves(name, random_case(name, seed, volatility, gaps, flats, costly), dtype, atol)
        trips, exits = trips + more[0], exits + more[1]

    check()
    assert trips > 1000
    assert exits > 100


def test_one_lane_alone_equals_the_batch_and_a_loop_equals_the_scan():
    name = "targets"
    prices, actions, costs, allow_short = random_case(name, 5, 0.01, 0.1, 0.1, False, lanes=4, bars=12)
    batch = play(name, prices, actions, costs, allow_short, "float32")
    spec = SPECS[name]
    step = jax.jit(lambda a, x, m, c, s, ruined: trade_bar(a, x, m, c, s, spec, ruined))
    for lane in range(4):
        account, alive = open_account(jnp.ones(())), True
        cost = Costs(*(jnp.float32(c[lane]) for c in costs))
        for i in range(12):
            market = MarketStep(*(jnp.float32(p[lane, i]) for p in prices), jnp.float32(0), jnp.float32(0))
            account, record = step(
                account, jnp.int32(actions[lane, i]), market, cost, jnp.bool_(allow_short[lane]), jnp.bool_(not alive)
            )
            alive = alive and not bool(record.ruined)
            expected = jax.tree.map(lambda x, lane=lane, i=i: x[lane, i], batch)
            jax.tree.map(
                lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7),
                (account, record),
                expected,
            )
