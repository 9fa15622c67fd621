"""Deciding live: the same bits as the backtest, on every bar of a split."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_config

from jaxppo.agent.encoders import receptive_field
from jaxppo.agent.policy import AgentSpec, constant_params, init_params, make_agent
from jaxppo.config.schema import Config
from jaxppo.env.account import AccountState
from jaxppo.env.trading import ACCOUNT_FEATURES, env_spec
from jaxppo.errors import CheckpointError, DataError
from jaxppo.live.account import Account
from jaxppo.market.bars import Bars, slice_bars
from jaxppo.market.dataset import Split, build_evaluation
from jaxppo.market.synthetic import synthetic_market
from jaxppo.play.deciders import acting_policy
from jaxppo.play.passes import Moment, Order, n_decisions, play
from jaxppo.store.checkpoint import RestoredPolicy
from jaxppo.store.checkpoint_info import final_info


class Backtested(NamedTuple):
    """A policy, the split that it is played over, and what the backtest did on its N bars."""

    policy: RestoredPolicy
    bars: Bars
    split: Split
    account: AccountState  # (N,): at each decision
    units: np.ndarray  # (N,): after the order
    action: np.ndarray  # (N,) int32

    def history(self, i: int) -> Bars:
        """What is known at decision i."""
        return slice_bars(self.bars, slice(self.bar(i) + 1))

    def bar(self, i: int) -> int:
        return len(self.bars.time) - int(self.split.tape.length[0]) + int(self.split.tape.first[0]) + i

    def at(self, i: int) -> AccountState:
        return jax.tree.map(lambda x: x[i], self.account)


def policy_of(config: Config, bars: Bars, members: int = 1, seed: int = 12) -> tuple[RestoredPolicy, Split]:
    """A random policy of a configuration, as a run would leave it, and the bars as one split."""
    market = build_evaluation([bars], config, receptive_field(config.agent), "all", None)
    spec = env_spec(config.env, config.reward)
    agent = make_agent(
        AgentSpec(config.agent, len(market.feature_names), len(ACCOUNT_FEATURES), spec.actions.n_actions)
    )
    size = jax.eval_shape(lambda key: init_params(agent.spec, key), jax.random.key(0)).shape
    drawn = np.random.default_rng(seed).normal(0, 0.5, size if members == 1 else (members, *size))
    params = jnp.asarray(drawn, jnp.float32)  # decided, and never trained
    policy = RestoredPolicy(params, agent, final_info(config, market, spec.actions, 1, 0.0))
    return policy, market.splits["all"]


def backtested(config: Config, bars: Bars, members: int = 1, *, last: int, seed: int = 12) -> Backtested:
    """A random policy, played as a backtest plays it, over the last decisions only."""
    policy, split = policy_of(config, bars, members, seed)
    split = dataclasses.replace(split, tape=split.tape._replace(first=split.tape.length - 1 - last))
    agent, spec, reach = policy.agent, env_spec(config.env, config.reward), receptive_field(config.agent)
    n = n_decisions(split.tape)

    def trace(params, tape):
        decider = acting_policy(agent, spec, params, tape, n, reach, observed=True)

        def noting(m: Moment) -> Order:
            order = decider.decide(m)
            return order._replace(note=(m.account, order.units, order.note))

        return play(decider._replace(decide=noting), tape, n).note

    account, units, note = jax.tree.map(lambda x: np.asarray(x)[:, 0, 0], jax.jit(trace)(policy.params, split.tape))
    return Backtested(policy, bars, split, account, units, note.action)


TABLES = ("targets", "hold_buy_sell", "sized", "sized_close")
SIZES = ("equity", "volatility")
EVERY = [(t, s, a) for t in TABLES for s in SIZES for a in ("mode", "mean")]
FEW = {("targets", "volatility", "mode"), ("hold_buy_sell", "equity", "mean"), ("sized", "equity", "mode"),
       ("sized_close", "volatility", "mean")}  # fmt: skip


@pytest.mark.parametrize(
    ("table", "size", "act_by"), [pytest.param(*c, marks=[] if c in FEW else pytest.mark.slow) for c in EVERY]
)
def test_it_decides_at_every_bar_as_the_backtest(table, size, act_by):
    """Given the open to come, action, units and levels are the backtest's to the last bit.

    Acting by mean, the wanted exposure is a sum over probabilities, and a matmul of one row adds up in another order
    than one of a whole Tape: there the units agree to two millionths, or to a millionth of what all money buys, and an
    order is sent where one is sent.
    """
    members = 2 if table == "sized" else 1
    config = tiny_config(actions=table, size_by=size, act_by=act_by, encoder="none" if members == 1 else "tcn")
    done = backtested(config, synthetic_market(0, 1, 700)[0], members, last=150)
    per_year = float(done.split.tape.bars_per_year[0])
    assert len(np.unique(done.units)) > 5
    held_on = 0
    for i in range(len(done.units)):
        price = float(done.bars.open[done.bar(i) + 1])
        d = done.policy.decide(done.history(i), done.at(i), price=price, bars_per_year=per_year)
        assert d.action == done.policy.info.actions.labels[done.action[i]]
        assert d.time == done.bars.time[done.bar(i)]
        assert (d.order == 0) == (done.units[i] == done.account.units[i])
        np.testing.assert_allclose(d.order, d.units - done.account.units[i], rtol=1e-5, atol=1e-9)
        # All money buys .01 units.
        np.testing.assert_allclose(d.units, done.units[i], rtol=2e-6 if act_by == "mean" else 0, atol=1e-8)
        if act_by == "mode":
            assert np.float32(d.units) == done.units[i]
            if i + 1 < len(done.units) and d.units and done.account.units[i + 1] == done.units[i]:
                held_on += 1  # no exit fired
                assert (d.stop, d.take_profit) == (done.account.stop[i + 1], done.account.take_profit[i + 1])
    assert held_on > 20 or act_by == "mean"


@pytest.fixture(scope="module")
def done() -> Backtested:
    return backtested(tiny_config(encoder="none"), synthetic_market(0, 1, 700)[0], 1, last=150)


def test_an_account_told_in_money_decides_as_the_environments(done):
    """A start of 25,000: money and units are 25,000 times those of an account that began with 1."""
    held = np.flatnonzero(done.account.units)
    for i in (int(held[0]), int(held[-1])):
        a, bars = done.at(i), done.history(i)
        told = Account(
            equity=25_000 * float(a.equity),
            start=25_000.0,
            units=25_000 * float(a.units),
            average_price=float(a.average_cost),
            bars_held=int(a.bars_held),
            peak=25_000 * float(a.peak),
            trades=int(a.trades),
            wins=int(a.wins),
        )
        mine, theirs = done.policy.decide(bars, told), done.policy.decide(bars, a)
        assert mine.action == theirs.action
        np.testing.assert_allclose(list(mine.probabilities.values()), list(theirs.probabilities.values()), rtol=1e-4)
        np.testing.assert_allclose(mine.equity, 25_000 * theirs.equity, rtol=1e-6)
        np.testing.assert_allclose(mine.units, 25_000 * theirs.units, rtol=1e-4)
        assert mine.order == mine.units - told.units


def test_what_is_not_known_of_an_account_has_a_plain_value(done):
    """1,000 of cash and 2 units at 50, bought at an unknown price on the third last bar."""
    env = done.policy.info.config.env
    account, start = Account(cash=1_000.0, units=2.0, entry_time=30).state(50.0, env, np.array([10, 20, 30, 40, 50]))
    assert start == 1_100.0
    assert (account.equity, account.peak, account.units) == (1, 1, np.float32(2 / 1_100))
    assert (account.average_cost, account.bars_held, account.trades) == (50, 3, 0)
    np.testing.assert_allclose([account.stop, account.take_profit], [49.0, 52.0], rtol=1e-6)  # 2 and 4 % off
    short, _ = Account(equity=900.0, start=1_000.0, units=-2.0, average_price=40.0, stop=44.0).state(50.0, env)
    assert (short.peak, short.stop, short.bars_held) == (1, 44, 1)
    np.testing.assert_allclose([short.equity, short.take_profit], [0.9, 38.4], rtol=1e-6)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({}, "give one of equity and cash"),
        ({"equity": 1.0, "cash": 1.0}, "give one of equity and cash"),
        ({"equity": -5}, "equity must be above 0, got -5"),
        ({"equity": "much"}, "equity must be a finite number, got 'much'"),
        ({"equity": 1.0, "units": float("nan")}, "units must be a finite number, got nan"),
        ({"equity": 1.0, "trades": 1, "wins": 2}, "wins must be at most the 1 trades, got 2"),
        ({"equity": 1.0, "bars_held": 2.5, "units": 1}, "bars_held must be a whole number of at least 0, got 2.5"),
        ({"equity": 1.0, "trades": 2**31}, "trades must be at most 2,147,483,647, got 2147483648"),
        ({"equity": 1.0, "bars_held": 1e30, "units": 1}, "bars_held must be at most 2,147,483,647"),
        ({"equity": 1.0, "stop": 3.0}, "stop is given, but units is 0"),
        ({"equity": 1.0, "shares": 3.0}, "unknown field 'shares'; known are equity, cash, units"),
        ([1.0], "must be an object with the fields equity"),
    ],
)
def test_an_account_that_cannot_be_is_refused_by_its_field(facts, says):
    with pytest.raises(DataError, match=f"account.json: {says}"):
        Account.from_facts(facts, "account.json")


@pytest.mark.parametrize(
    ("account", "says"),
    [
        (Account(cash=-100.0), "its equity is -100 at a close of 50"),
        (Account(equity=10.0, units=1e300), "units is 1e\\+299 times the start"),
        (Account(equity=10.0, peak=1e300), "peak is 1e\\+299 times the start"),
        (Account(equity=10.0, units=1.0, average_price=1e39), "average_price is 1e\\+39, more than"),
        (
            Account(equity=10.0, units=1.0, entry_time=51_000),
            "entry_time 51000 is after the newest bar, .* at 50; give",
        ),
    ],
)
def test_an_account_that_no_bars_allow_is_refused(done, account, says):
    """Such as an entry in milliseconds."""
    with pytest.raises(DataError, match=f"account: {says}"):
        account.state(50.0, done.policy.info.config.env, np.array([10, 20, 30, 40, 50]))


def test_closing_a_position_trades_the_very_units_that_are_held(done):
    """3 units of an account of 7,000 are .00042857 starting equities, 3.0000001 when they come back from float32."""
    selling = dataclasses.replace(done.policy, params=constant_params(done.policy.agent, 2))
    coins = dataclasses.replace(done.history(0), asset_class="crypto")  # without shorts a sale ends flat
    d = selling.decide(coins, Account(equity=7_000.0, units=3.0))
    assert (d.action, d.units, d.order, d.stop) == ("sell", 0.0, -3.0, None)
    held = selling.decide(done.history(0), Account(equity=7_000.0, units=-7_000.0 / done.history(0).close[-1]))
    assert (held.order, held.exposure) == (0.0, -1.0)  # within the band of what it has


def test_several_symbols_at_once(done):
    bars = {"ONE": done.history(20), "TWO": done.history(90)}
    found = done.policy.decide(bars, {"TWO": done.at(90)}, price={"ONE": 90.0})
    assert found["ONE"] == done.policy.decide(bars["ONE"], price=90.0)
    assert found["TWO"] == done.policy.decide(bars["TWO"], done.at(90))
    with pytest.raises(DataError, match="account of 'TOW', of which there are no bars; did you mean 'TWO'"):
        done.policy.decide(bars, {"TOW": done.at(90)})


def test_features_computed_otherwise_are_refused(done):
    info = dataclasses.replace(done.policy.info, feature_hash="0" * 64)
    with pytest.raises(CheckpointError, match=r"features have the hash 000000000000 and those computed here"):
        dataclasses.replace(done.policy, info=info).decide(done.bars)
    names = done.policy.info.feature_names
    info = dataclasses.replace(done.policy.info, feature_names=(*names[:-1], "own"))
    with pytest.raises(CheckpointError, match=rf"\['base'\] do not compute 'own' here .*'{names[-1]}' in its place"):
        dataclasses.replace(done.policy, info=info).decide(done.bars)


def test_an_account_that_is_no_number_gets_no_decision(done):
    broken = done.at(5)._replace(equity=np.float32(np.nan))
    with pytest.raises(DataError, match="SYN_A: the policy's answer is no number"):
        done.policy.decide(done.history(5), broken)
