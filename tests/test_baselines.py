"""Buy-and-hold against hand arithmetic, and against the account that does the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bracketed

from jaxppo.config.schema import RewardConfig
from jaxppo.env.account import close_out, open_account
from jaxppo.env.trading import env_spec, trade_bar
from jaxppo.market.tape import Costs, MarketStep
from jaxppo.play.baselines import buy_and_hold, shifts_between_trades


def costs(fee=0.0, impact=0.0, n=1):
    return Costs(*(jnp.full(n, x, jnp.float32) for x in (fee, impact, 0.0)))


def column(*values):
    """(N, 1) float32."""
    return jnp.asarray(values, jnp.float32).reshape(-1, 1)


hold = jax.jit(buy_and_hold)


def equity_of(opens, closes, valid=None, **kwargs):
    valid = jnp.ones((len(opens), 1), bool) if valid is None else jnp.asarray(valid).reshape(-1, 1)
    return np.asarray(hold(column(*opens), column(*closes), valid, costs(**kwargs)))[:, 0]


def test_without_costs_it_is_the_price():
    # Bought at the first open, 100; later opens do not matter.
    np.testing.assert_allclose(equity_of([100, 110], [110, 90]), [1.1, 0.9], rtol=1e-6)


def test_costs_by_hand():
    # Fee 1 %, impact 2 %: a unit costs 100 * 1.02 * 1.01 = 103.02 in all.
    # Close 110: 110 / 103.02 = 1.067754. Sold at 120: 120 * .98 * .99 / 103.02 = 116.424 / 103.02 = 1.130111.
    got = equity_of([100, 110], [110, 120], fee=0.01, impact=0.02)
    np.testing.assert_allclose(got, [1.067754, 1.130111], rtol=1e-6)


def test_one_bar_is_bought_and_sold():
    # 102 * .99 / (100 * 1.01) = 100.98 / 101.
    np.testing.assert_allclose(equity_of([100], [102], fee=0.01), [100.98 / 101], rtol=1e-6)


def test_padded_bars_repeat_the_sale_and_are_never_looked_at():
    whole = equity_of([100, 110], [110, 120], fee=0.01)
    padded = equity_of([100, 110, 7, 7], [110, 120, 7, 7], valid=[True, True, False, False], fee=0.01)
    np.testing.assert_allclose(padded, [whole[0], whole[1], whole[1], whole[1]], rtol=1e-6)


def test_symbols_are_apart():
    # Doubles in two bars, without costs; halves in one, at 10 % a side: .5 * .9 / 1.1 = .409091.
    opens, closes = jnp.array([[100.0, 50.0], [150.0, 25.0]]), jnp.array([[150.0, 25.0], [200.0, 25.0]])
    valid = jnp.array([[True, True], [True, False]])
    both = Costs(jnp.array([0.0, 0.1]), jnp.zeros(2), jnp.zeros(2))
    got = np.asarray(hold(opens, closes, valid, both))
    np.testing.assert_allclose(got, [[1.5, 0.409091], [2.0, 0.409091]], rtol=1e-5)


def held_account(opens, closes, fee, impact):
    """Equity at the closes of an account that buys with all cash on the first bar and is closed out on the last."""
    spec = env_spec(bracketed(stop_loss=0.0, take_profit=0.0), RewardConfig())
    buy, cost = jnp.int32(spec.actions.labels.index("buy")), Costs(*(c[0] for c in costs(fee, impact)))
    high, low = np.maximum(opens, closes), np.minimum(opens, closes)
    bars = MarketStep(*(jnp.asarray(x, jnp.float32) for x in (opens, high, low, closes, 0 * opens, 0 * opens)))

    def step(account, x):
        bar, at_end = x
        action = jnp.where(account.units == 0, buy, 0)
        account, record = trade_bar(account, action, bar, cost, jnp.asarray(True), spec)
        return close_out(account, record, bar.close, cost, at_end)

    at_end = jnp.arange(len(opens)) == len(opens) - 1
    return jax.jit(lambda: jax.lax.scan(step, open_account(jnp.float32(1.0)), (bars, at_end)))()[1].equity


def test_equals_an_account_that_buys_once_and_is_closed_out():
    rng = np.random.default_rng(3)
    closes = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, 40)))
    opens = np.concatenate([[100.0], closes[:-1] * np.exp(rng.normal(0, 0.005, 39))])
    expected = held_account(opens, closes, 0.0025, 0.0005)
    np.testing.assert_allclose(equity_of(opens, closes, fee=0.0025, impact=0.0005), expected, rtol=1e-5)


# Long from bar 2 to the stop on bar 4, short from bar 6, turned over on bar 7, closed at the end of bar 9.
ORDERS = (0, 0, 1, 0, 0, 0, -1, 2, 0, 0)
UNITS = (0, 0, 1, 1, 0, 0, -1, 1, 1, 0)


@pytest.mark.parametrize(
    ("share", "shift"),
    [
        (0.0, 1),  # 1 + 0: flat there
        (0.23, 5),  # 1 + floor(.23 x 9) = 3, held: on to bar 5, since bar 4 began with the position
        (0.6, 6),  # 1 + floor(5.4) = 6: entered there, from flat
        (0.7, 7),  # turned over on bar 7: nothing is carried over
        (0.8, 7),  # 1 + floor(7.2) = 8 is held, as is 9: none after, so the last before
    ],
)
def test_a_shift_cuts_no_trade(share, shift):
    got = shifts_between_trades(column(*UNITS), column(*ORDERS), jnp.ones((10, 1), bool), jnp.asarray([share]))
    assert got.shape == (1, 1)
    assert int(got[0, 0]) == shift


def test_shifts_stay_inside_each_symbols_history_and_a_single_trade_cannot_move():
    units = jnp.stack([jnp.zeros(50), jnp.asarray([0.0] * 20 + [0.0] * 30), jnp.ones(50)], axis=1)
    orders = jnp.zeros((50, 3)).at[0, 2].set(1.0)
    valid = jnp.ones((50, 3), bool).at[20:, 1].set(False)
    share = jnp.linspace(0, 0.999, 40)
    shifts = np.asarray(shifts_between_trades(units, orders, valid, share))
    assert shifts.shape == (40, 3)
    assert (shifts[:, 0].min(), shifts[:, 0].max()) == (1, 49)
    assert (shifts[:, 1].min(), shifts[:, 1].max()) == (1, 19)
    assert set(shifts[:, 2]) == {0}
