"""Buy-and-hold against hand arithmetic, and against the account that does the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxppo.config.schema import EnvConfig, RewardConfig
from jaxppo.env.account import close_out, open_account
from jaxppo.env.actions import action_table
from jaxppo.env.trading import env_spec, step_account
from jaxppo.evaluate.baselines import buy_and_hold, circular_shifts, toward_exposure, trend_sign
from jaxppo.market.tape import Costs, MarketStep


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
    spec = env_spec(EnvConfig(stop_loss=0.0, take_profit=0.0), RewardConfig())
    buy, cost = jnp.int32(spec.actions.labels.index("buy")), Costs(*(c[0] for c in costs(fee, impact)))
    high, low = np.maximum(opens, closes), np.minimum(opens, closes)
    bars = MarketStep(*(jnp.asarray(x, jnp.float32) for x in (opens, high, low, closes, 0 * opens, 0 * opens)))

    def step(account, x):
        bar, at_end = x
        action = jnp.where(account.units == 0, buy, 0)
        account, result = step_account(account, action, bar, cost, jnp.asarray(True), spec)
        return close_out(account, result.record, bar.close, cost, at_end)

    at_end = jnp.arange(len(opens)) == len(opens) - 1
    return jax.jit(lambda: jax.lax.scan(step, open_account(jnp.float32(1.0)), (bars, at_end)))()[1].equity


def test_equals_an_account_that_buys_once_and_is_closed_out():
    rng = np.random.default_rng(3)
    closes = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, 40)))
    opens = np.concatenate([[100.0], closes[:-1] * np.exp(rng.normal(0, 0.005, 39))])
    expected = held_account(opens, closes, 0.0025, 0.0005)
    np.testing.assert_allclose(equity_of(opens, closes, fee=0.0025, impact=0.0005), expected, rtol=1e-5)


def test_trend_is_the_sign_of_the_last_bars_and_never_of_later_ones():
    close = jnp.asarray([[100.0, 110, 105, 105, 90, 999]])
    t = jnp.asarray([[0], [1], [3], [4]], jnp.int32)
    # Over 2 bars: none yet; 110 > 100 with the one bar there is; 105 < 110; 90 < 105.
    np.testing.assert_array_equal(np.asarray(trend_sign(close, t, 2))[:, 0], [0, 1, -1, -1])


@pytest.mark.parametrize(
    ("actions", "wanted", "held", "short", "label"),
    [
        ("hold_buy_sell", 1.0, 0.0, True, "buy"),
        ("hold_buy_sell", 1.0, 1.0, True, "hold"),
        ("hold_buy_sell", -1.0, 1.0, True, "sell"),
        ("hold_buy_sell", -1.0, 0.0, False, "hold"),  # no shorts: flat is wanted, and there already
        ("hold_buy_sell", -1.0, 1.0, False, "sell"),
        ("sized_close", 1.0, 0.5, True, "buy_50"),
        ("sized_close", 0.0, 0.9, True, "close"),
    ],
)
def test_the_action_that_leads_nearest_to_an_exposure(actions, wanted, held, short, label):
    table = action_table(EnvConfig(actions=actions))
    row = [jnp.full(1, x, jnp.float32) for x in (wanted, held)]
    got = toward_exposure(table, *row, jnp.asarray([short]), 1.0)
    assert table.labels[int(got[0])] == label


def test_shifts_move_every_decision_and_stay_inside():
    shifts = np.asarray(circular_shifts(jax.random.key(0), jnp.asarray([3, 50], jnp.int32), 200))
    assert shifts.shape == (2, 200)
    assert set(shifts[0]) == {1, 2}
    assert shifts[1].min() == 1
    assert shifts[1].max() == 49
