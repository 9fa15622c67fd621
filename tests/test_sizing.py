"""Positions sized by volatility: accounts against a plain loop, what is observed, and every way a policy is played."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import plain_account, random_tape, tiny_config

from jaxppo.agent.policy import Distribution, init_params
from jaxppo.check.lookahead import check_lookahead
from jaxppo.check.parity import check_parity
from jaxppo.check.verdict import Player
from jaxppo.config.checks import check_config
from jaxppo.config.layers import replace_fields
from jaxppo.config.rewards import REWARD_PRESETS
from jaxppo.config.schema import EnvConfig, RewardConfig
from jaxppo.env.account import open_account
from jaxppo.env.actions import action_table, target_exposure
from jaxppo.env.rewards import REWARD_COMPONENTS, Outcome
from jaxppo.env.trading import EXPOSURE, env_spec, mean_order_units, observe_account, reset, step
from jaxppo.errors import ConfigError
from jaxppo.market.dataset import build_market, evaluation_set
from jaxppo.market.features import compute_features
from jaxppo.market.synthetic import synthetic_market
from jaxppo.market.tape import Costs, MarketStep, Quote, Terms
from jaxppo.market.volatility import volatility_sizes
from jaxppo.play.deciders import given_actions, play_policy, policy_units
from jaxppo.play.passes import n_decisions, play
from jaxppo.ppo.program import TapeSpec, make_train, train_spec
from jaxppo.ppo.state import hyper_from

VOLATILITY = {"size_by": "volatility", "max_exposure": 3.0, "stop_loss": 0.0, "take_profit": 0.0}
TARGETS = {**VOLATILITY, "actions": "targets", "targets": (-1.0, 0.0, 0.5, 1.0)}


def sized_tape(n_bars=160):
    tape = random_tape(3, 2, n_bars, 2, first=10)
    drift = np.cumsum(np.random.default_rng(8).normal(0, 0.05, (2, n_bars)), axis=1)
    size = np.exp(drift).clip(0.2, 3.0).astype(np.float32)
    return tape._replace(size=jnp.asarray(size)), size


@pytest.mark.parametrize("band", [0.0, 0.2])
def test_sized_accounts_are_those_of_a_plain_loop(band):
    tape, size = sized_tape()
    env = EnvConfig(**TARGETS, rebalance_band=band)
    n = n_decisions(tape)
    actions = np.random.default_rng(1).choice(4, (n, 2), p=[0.1, 0.1, 0.1, 0.7]).astype(np.int32)
    spec = env_spec(env, RewardConfig())
    played = jax.jit(lambda a: play(given_actions(a, spec, tape), tape, n))(jnp.asarray(actions))
    for s in range(2):
        side = np.asarray(env.targets)[actions[:, s]]
        prices = (np.asarray(x[s, 10 : 11 + n], np.float64) for x in (tape.open, tape.close))
        wanted = plain_account(side, *prices, 0.001, 0.0, 0.0, band, size[s, 10 : 10 + n].astype(np.float64))
        np.testing.assert_allclose(played.equity[:, 0, s], wanted, rtol=2e-5)
    # Inside the band a drift of the size is not traded: fewer orders, the same sides.
    orders = np.asarray(played.record.order_units != 0).mean()
    assert (orders > 0.9) if band == 0 else (orders < 0.6)


def test_a_size_of_one_changes_no_bit():
    tape = random_tape(3, 2, 120, 2, first=10)
    n = n_decisions(tape)
    actions = jnp.asarray(np.random.default_rng(2).integers(0, 4, (n, 2)), jnp.int32)
    spec = env_spec(EnvConfig(**TARGETS), RewardConfig())
    plain, ones = (play(given_actions(actions, spec, t), t, n) for t in (tape, tape._replace(size=jnp.ones((2, 120)))))
    np.testing.assert_array_equal(plain.equity, ones.equity)


def test_targets_by_hand():
    table, yes = action_table(EnvConfig(**TARGETS)), jnp.bool_(True)
    size = jnp.float32(2.5)
    got = target_exposure(table, jnp.arange(4), jnp.zeros(4), yes, 3.0, size)[0]
    np.testing.assert_allclose(got, [-2.5, 0, 1.25, 2.5])
    assert target_exposure(table, jnp.int32(0), jnp.float32(0), jnp.bool_(False), 3.0, size)[0] == 0
    # Buy and sell are one size, which is capped at max_exposure itself, and not max_exposure sizes.
    assert action_table(EnvConfig(actions="hold_buy_sell", **VOLATILITY)).offset == (0, 1, -1)
    # 25 % of a size on top of an exposure of .4: .4 + .25 x 2.5.
    sized = action_table(EnvConfig(actions="sized", **VOLATILITY))
    assert target_exposure(sized, jnp.int32(1), jnp.float32(0.4), yes, 3.0, size)[0] == pytest.approx(1.025)


def test_what_is_observed_is_in_sizes():
    # .012 units bought at 100 and now at 101: worth 1.212 of an equity of 1.012, at a size of 2.
    account = open_account(jnp.float32(1))._replace(
        units=jnp.float32(0.012), mark=jnp.float32(101), equity=jnp.float32(1.012), average_cost=jnp.float32(100)
    )
    vector = observe_account(account, Quote(jnp.float32(101), jnp.float32(2)), EnvConfig(**TARGETS))
    assert vector[EXPOSURE] == pytest.approx(1.212 / 1.012 / 2, rel=1e-6)
    assert vector[EXPOSURE + 1] == pytest.approx(np.tanh(10 * 0.01 * 2), rel=1e-5)


def test_the_magnitude_reward_is_of_the_exposure_in_sizes():
    spec = env_spec(EnvConfig(**TARGETS), RewardConfig(reward="v33"))
    price = jnp.float32(100)
    market = MarketStep(price, price, price, price, jnp.float32(0.01), jnp.float32(0.02), jnp.float32(3))
    lane = spec.begin(())
    terms = Terms(Costs(*jnp.zeros(3)), jnp.bool_(True))
    after, result = spec.step(lane, jnp.int32(2), market, terms, jnp.float32(0))  # half a size is 1.5 of equity
    outcome = Outcome(lane.account, after.account, result.record, market, jnp.float32(0))
    value = REWARD_COMPONENTS["magnitude"].value(outcome, REWARD_PRESETS["v33"], None)
    assert result.record.exposure == pytest.approx(1.5)
    assert value == pytest.approx(0.5 * 0.5)  # half of the volatility, half a size


@pytest.fixture(scope="module")
def market():
    config = tiny_config(**TARGETS, target_volatility=0.3)
    bars = synthetic_market(0, 2, 900)
    return config, bars, build_market(bars, config, 8)


def test_a_market_knows_its_sizes(market):
    config, bars, built = market
    for split in ("train", "validation", "test"):
        tape, times = built.splits[split].tape, built.splits[split].times
        for s, b in enumerate(bars):
            rows = np.searchsorted(b.time, times[s])
            wanted = volatility_sizes(b.close, float(tape.bars_per_year[s]), config.env)[rows]
            np.testing.assert_allclose(tape.size[s, : len(rows)], wanted, rtol=1e-6)
            assert rows[0] >= 60  # a size needs its span
    assert built.min_bars >= 61


def test_a_pass_is_the_environments_own_steps(market):
    config, _, built = market
    tape = built.splits["validation"].tape
    spec, n = train_spec(config, tape.n_features), n_decisions(tape)
    params = init_params(spec.agent.spec, jax.random.key(2))
    played = jax.jit(lambda p: play_policy(spec.agent, spec.env, p, tape, n, spec.receptive_field))(params)
    one = jax.jit(lambda key: reset(tape, spec.env, key)[0])(jax.random.key(0))
    one = one._replace(symbol=jnp.int32(0), t=tape.first[0])
    move = jax.jit(lambda state, action: step(tape, spec.env, state, action)[0])
    for i in range(40):
        one = move(one, played.note.action[i, 0, 0])
        np.testing.assert_allclose(one.account.equity, played.equity[i, 0, 0], rtol=1e-6)
    assert np.asarray(played.record.traded[:40, 0, 0]).any()


@pytest.mark.parametrize("advantages", ["gae", "counterfactual"])
def test_the_trainer_takes_a_sized_market(market, advantages):
    _, _, built = market
    config = tiny_config(**TARGETS, advantages=advantages)
    tape, data = built.splits["train"].tape, evaluation_set(built.splits["validation"])
    program, hyper = make_train(config, TapeSpec(tape.n_features, n_decisions(data.tape))), hyper_from(config)
    state = jax.eval_shape(program.init, jax.random.key(0), hyper, tape)
    after, out = jax.eval_shape(program.segment, state, hyper, tape, data, jnp.int32(2))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert out.score.record.equity.shape == (n_decisions(data.tape), 2)


@pytest.mark.parametrize("act_by", ["mode", "mean"])
def test_live_use_sees_and_does_the_same(market, act_by):
    config, bars, built = market
    config = replace_fields(config, {"act_by": act_by})
    spec = train_spec(config, len(built.feature_names))
    player = Player(config, spec.agent, init_params(spec.agent.spec, jax.random.key(2)), spec.env)
    check = check_parity(lambda b: compute_features(b, ("base",), 32), bars[:1], player, n_bars=24)
    assert check.passed, check.explanation


def test_no_bar_of_the_future_is_in_a_size(market):
    config, bars, built = market
    spec = train_spec(config, len(built.feature_names))
    player = Player(config, spec.agent, init_params(spec.agent.spec, jax.random.key(2)), spec.env)
    check = check_lookahead(lambda b: compute_features(b, ("base",), 32), bars[:1], player, cuts=2)
    assert check.passed, check.explanation


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"target_volatility": 0.0}, "target_volatility: must be above 0"),
        ({"volatility_span": 1}, "volatility_span: must be from 2"),
    ],
)
def test_settings_that_size_nothing(fields, said):
    with pytest.raises(ConfigError, match=said):
        check_config(tiny_config(**fields))


def test_the_mean_exposure_by_hand():
    # Chances .2, .1, .3, .4 of targets -1, 0, .5 and 1 at a size of 2: 2 (-.2 + .15 + .4) = .7 of the equity.
    spec = env_spec(EnvConfig(**TARGETS), RewardConfig())
    price = jnp.float32(100)
    market = MarketStep(price, price, price, price, jnp.float32(0), jnp.float32(0), jnp.float32(2))
    free, yes = Costs(*jnp.zeros(3)), jnp.bool_(True)
    chances = jnp.float32([0.2, 0.1, 0.3, 0.4])
    flat = open_account(jnp.float32(1))
    assert mean_order_units(flat, chances, market, free, yes, spec) == pytest.approx(0.007)
    # Held at .62 of the equity it is .08 away, inside the band of .05 sizes, which is .1; at .58 it is outside.
    near, far = (flat._replace(units=jnp.float32(u), mark=price) for u in (0.0062, 0.0058))
    assert mean_order_units(near, chances, market, free, yes, spec) == near.units
    assert mean_order_units(far, chances, market, free, yes, spec) == pytest.approx(0.007)
    # Where no short is allowed, the first action asks for nothing: 2 (.15 + .4).
    assert mean_order_units(flat, chances, market, free, jnp.bool_(False), spec) == pytest.approx(0.011)
    # A sure policy does the same by mode and by mean.
    sure = Distribution(jnp.log(jnp.float32([0, 0, 1, 0])))
    by = [dataclasses.replace(spec, config=dataclasses.replace(spec.config, act_by=how)) for how in ("mode", "mean")]
    one, other = (policy_units(flat, sure, market, free, yes, own) for own in by)
    assert one == other == pytest.approx(0.01)
