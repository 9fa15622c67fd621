"""The pure environment: reset and step, what they may look at, how episodes end, and what the agent sees."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bracketed

from jaxppo.config.schema import EnvConfig, RewardConfig
from jaxppo.env.account import open_account
from jaxppo.env.trading import (
    ACCOUNT_FEATURES,
    EnvState,
    env_spec,
    observe,
    observe_account,
    reset,
    step,
    valid_actions,
)
from jaxppo.market.tape import REWARD_HORIZON, Costs, Quote, Tape, forward_returns, trailing_volatility

N_ENVS, N_STEPS, N_BARS = 16, 24, 100
FEATURE = {name: i for i, name in enumerate(ACCOUNT_FEATURES)}
PRICES = ("open", "high", "low", "close")


def make_tape(seed=0, lengths=(N_BARS, 80), first=8, volatility=0.01, factor=1.0) -> Tape:
    """A market of random walks; the last symbol may not be sold short. Padding is NaN: nothing may ever touch it."""
    rng = np.random.default_rng(seed)
    shape = (len(lengths), N_BARS)
    close = np.cumsum(volatility * rng.standard_normal(shape), axis=1) + np.log([[100.0], [3.0]][: len(lengths)])
    open_ = np.concatenate([close[:, :1], close[:, :-1]], axis=1) + 0.2 * volatility * rng.standard_normal(shape)
    reach = np.abs(volatility * rng.standard_normal((2, *shape)))
    prices = [open_, np.maximum(open_, close) + reach[0], np.minimum(open_, close) - reach[1], close]
    padding = np.arange(N_BARS) >= np.array(lengths)[:, None]
    prices = [np.where(padding, np.nan, np.exp(p)).astype(np.float32) * np.float32(factor) for p in prices]
    rows = range(len(lengths))
    forward = [
        np.pad(forward_returns(prices[0][s, :n], prices[3][s, :n]), (0, N_BARS - n)) for s, n in enumerate(lengths)
    ]
    spread = [np.pad(trailing_volatility(prices[3][s, : lengths[s]]), (0, N_BARS - lengths[s])) for s in rows]
    f32 = functools.partial(jnp.asarray, dtype=jnp.float32)
    return Tape(
        f32(rng.standard_normal((*shape, 3))),
        *(f32(p) for p in prices),
        forward_return=f32(np.stack(forward)),
        volatility=f32(np.stack(spread)),
        first=jnp.full(len(lengths), first, jnp.int32),
        length=jnp.asarray(lengths, jnp.int32),
        costs=Costs(f32([0.001, 0.0025][: len(lengths)]), f32([2e-4] * len(lengths)), f32([1e-5] * len(lengths))),
        allow_short=jnp.asarray([s == 0 for s in rows]),
        bars_per_year=jnp.full(len(lengths), 252.0),
    )


@functools.cache
def make_spec(reward="log_return", **env):
    return env_spec(bracketed(**env), RewardConfig(reward=reward))


PLAIN = make_spec()
SIZED = make_spec("v33", actions="sized_close", max_exposure=2.0)
SHORT_EPISODES = make_spec(max_exposure=3.0, stop_loss=0.0, take_profit=0.0, episode_steps=6)
SPECS = {"plain": PLAIN, "sized": SIZED, "short_episodes": SHORT_EPISODES}


@functools.cache
def rollout(name: str):
    """Jitted (tape, states (E,), actions (E, N)) to everything `step` returns, stacked (E, N)."""
    spec = SPECS[name]

    def one(tape, state, actions):
        def body(state, action):
            out = step(tape, spec, state, action)
            return out[0], out

        return jax.lax.scan(body, state, actions)[1]

    return jax.jit(jax.vmap(one, in_axes=(None, 0, 0)))


def stack(states: list[EnvState]) -> EnvState:
    return jax.tree.map(lambda *x: jnp.stack(x), *states)


def start_at(symbol, t) -> EnvState:
    zero = jnp.zeros((), jnp.int32)
    return EnvState(jnp.int32(symbol), jnp.int32(t), zero, open_account(jnp.ones(())), {})


@jax.jit
def resets(tape, keys):
    return jax.vmap(lambda key: reset(tape, PLAIN, key))(keys)


def many_starts(tape, seed=1):
    return resets(tape, jax.random.split(jax.random.key(seed), 2000))


def starts(tape, seed=1):
    return jax.tree.map(lambda x: x[:N_ENVS], many_starts(tape, seed)[0])


def random_actions(spec, seed=2):
    return jax.random.randint(jax.random.key(seed), (N_ENVS, N_STEPS), 0, spec.actions.n_actions)


# --- reset and step ---


def test_reset_opens_a_fresh_account_anywhere_a_step_can_start():
    tape = make_tape()
    state, observation = many_starts(tape)
    assert (state.age == 0).all()
    jax.tree.map(np.testing.assert_array_equal, state.account, open_account(jnp.ones(2000)))
    # t + 1 .. t + 5 are bars of the symbol: 8..94 of the first, 8..74 of the second.
    seen = {(int(s), int(t)) for s, t in zip(state.symbol, state.t, strict=True)}
    allowed = {(0, t) for t in range(8, 95)} | {(1, t) for t in range(8, 75)}
    assert seen == allowed
    np.testing.assert_array_equal(observation.t, state.t)
    np.testing.assert_array_equal(observation.symbol, state.symbol)
    np.testing.assert_array_equal(
        observation.account, np.tile([0, 0.5, 0, 0, 0, 0, 0, 0], (2000, 1)).astype(np.float32)
    )


def test_reset_depends_on_its_key_only():
    tape = make_tape()
    jax.tree.map(np.testing.assert_array_equal, many_starts(tape, 5), many_starts(tape, 5))
    assert (starts(tape, 5).t != starts(tape, 6).t).any()


def test_step_is_pure_and_one_env_equals_the_batch():
    tape = make_tape()
    states, actions = starts(tape), random_actions(SIZED)
    batch = rollout("sized")(tape, states, actions)
    jax.tree.map(np.testing.assert_array_equal, rollout("sized")(tape, states, actions), batch)
    one = jax.jit(lambda state, action: step(tape, SIZED, state, action))
    for env in range(3):
        state = jax.tree.map(lambda x, env=env: x[env], states)
        for i in range(8):
            out = one(state, actions[env, i])
            state = out[0]
            want = jax.tree.map(lambda x, env=env, i=i: x[env, i], batch)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6), out, want)


def test_step_is_traced_once():
    chex.clear_trace_counter()
    tape = make_tape()

    @chex.assert_max_traces(n=1)
    def one(state, action):
        return step(tape, PLAIN, state, action)

    play = jax.jit(jax.vmap(one))
    state = starts(tape)
    for i in range(4):
        state, *_ = play(state, random_actions(PLAIN, seed=i)[:, 0])
    assert (state.age == 4).all()


def test_step_moves_on_one_bar_and_observes_it():
    tape, spec = make_tape(), PLAIN
    state = start_at(0, 20)
    after, observation, result, terminated, truncated = step(tape, spec, state, jnp.int32(1))
    assert (int(after.t), int(after.age), int(after.symbol)) == (21, 1, 0)
    assert (bool(terminated), bool(truncated)) == (False, False)
    jax.tree.map(np.testing.assert_array_equal, observation, observe(tape, spec, after))
    # The order filled at the next open, moved against us.
    assert float(result.record.order_price) == pytest.approx(float(tape.open[0, 21]) * (1 + 2e-4), rel=1e-6)
    assert float(result.reward) == pytest.approx(100 * math.log1p(float(result.record.net_return)), rel=1e-4)


# --- no look-ahead ---


def test_nothing_after_the_next_bar_changes_a_step():
    tape = make_tape()
    begin = 20
    last = begin + N_STEPS - 1  # its decision looks at bars up to last + 1
    states, actions = stack([start_at(0, begin)] * N_ENVS), random_actions(SIZED)
    base = rollout("sized")(tape, states, actions)

    def shaken(bar):
        """The tape with everything from `bar` on changed."""
        late = jnp.expand_dims(jnp.arange(N_BARS) >= bar, 0)
        prices = {n: jnp.where(late, 1.7 * getattr(tape, n), getattr(tape, n)) for n in PRICES}
        return tape._replace(
            **prices,
            features=jnp.where(jnp.expand_dims(late, -1), -tape.features, tape.features),
            volatility=jnp.where(late, 9.0, tape.volatility),
            forward_return=jnp.where(late, 0.5, tape.forward_return),
        )

    jax.tree.map(np.testing.assert_array_equal, rollout("sized")(shaken(last + 2), states, actions), base)
    # One bar earlier is the bar the last step trades on: that step changes, and only that one.
    other = rollout("sized")(shaken(last + 1), states, actions)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:, :-1], b[:, :-1]), other, base)
    held = np.asarray(base[2].record.units[:, -2]) != 0
    assert held.any()
    assert (other[2].record.equity[:, -1] != base[2].record.equity[:, -1])[held].all()


def test_only_rewards_know_the_forward_return():
    tape = make_tape()
    states, actions = starts(tape), random_actions(SIZED)
    turned = tape._replace(forward_return=-tape.forward_return)
    base, other = (rollout("sized")(t, states, actions) for t in (tape, turned))
    jax.tree.map(np.testing.assert_array_equal, base[:2], other[:2])
    jax.tree.map(np.testing.assert_array_equal, base[2].record, other[2].record)
    np.testing.assert_array_equal(base[2].components["direction"], -other[2].components["direction"])
    assert (base[2].components["direction"] != 0).any()


def test_forward_return_runs_from_the_next_open_over_five_bars():
    open_ = np.array([10.0, 11, 12, 13, 14, 15, 16, 17])
    close = open_ + 0.5
    got = forward_returns(open_, close)
    assert REWARD_HORIZON == 5
    assert got[0] == pytest.approx(15.5 / 11 - 1)  # open of bar 1 to close of bar 5
    assert got[2] == pytest.approx(17.5 / 13 - 1)
    assert got[6] == pytest.approx(17.5 / 17 - 1)  # cut at the last bar
    assert got[7] == 0


# --- ends of episodes ---


def ends(tape, state, label):
    """First step at which an env that always takes `label` is terminated, and at which it is truncated (1-based)."""
    actions = jnp.full((N_ENVS, N_STEPS), PLAIN.actions.labels.index(label), jnp.int32)
    *_, terminated, truncated = rollout("short_episodes")(tape, stack([state] * N_ENVS), actions)
    return tuple(1 + x[0].tolist().index(True) if x[0].any() else None for x in (terminated, truncated))


def test_an_episode_is_truncated_at_its_length():
    assert ends(make_tape(), start_at(0, 20), "hold") == (None, 6)


def test_an_episode_is_truncated_at_the_end_of_its_own_data():
    # The second symbol has 80 bars: the last decision is at bar 78, and the state at 79 has no bar after it.
    assert ends(make_tape(), start_at(1, 75), "hold") == (None, 4)
    assert ends(make_tape(), start_at(1, 78), "hold") == (None, 1)


@pytest.mark.parametrize("t", [20, 15])
def test_ruin_terminates_and_does_not_truncate(t):
    # Three times long into a fall by half on bar 21, the first of the episode or its last.
    tape = make_tape()
    crash = {n: getattr(tape, n).at[0, 21].multiply(0.5) for n in ("low", "close")}
    actions = jnp.full((N_ENVS, N_STEPS), 1, jnp.int32)
    states = stack([start_at(0, t)] * N_ENVS)
    *_, result, terminated, truncated = rollout("short_episodes")(tape._replace(**crash), states, actions)
    at = 20 - t
    assert terminated[0, : at + 1].tolist() == [False] * at + [True]
    assert truncated[0, : at + 1].tolist() == [False] * (at + 1)
    assert result.record.ruined[0, at]
    *_, terminated, truncated = rollout("short_episodes")(tape, states, actions)
    assert (bool(terminated[0, at]), bool(truncated[0, at])) == (False, at == 5)


# --- what the agent sees ---


def test_account_vector_by_hand():
    config = EnvConfig(stop_loss=0.02, take_profit=0.04)
    f = jnp.float32
    long = open_account(f(1))._replace(
        mark=f(101),
        units=f(0.006),
        equity=f(0.906),  # .3 of cash and .006 * 101
        peak=f(1.2),
        average_cost=f(100),
        stop=f(98),
        take_profit=f(104),
        bars_held=jnp.int32(15),
        trades=jnp.int32(4),
        wins=jnp.int32(1),
    )
    want = {
        "total_return": math.tanh(10 * -0.094),
        "win_rate": 0.25,
        "drawdown": 1 - 0.906 / 1.2,
        "exposure": 0.606 / 0.906,
        "unrealised_return": math.tanh(0.1),
        "bars_held": math.log(16) / math.log(257),
        "stop_distance": 3 / 2,  # 3 of the 2 that it was at entry
        "take_profit_distance": 3 / 4,
    }
    got = dict(zip(ACCOUNT_FEATURES, observe_account(long, Quote(f(101)), config).tolist(), strict=True))
    assert got == pytest.approx(want, rel=1e-5)
    short = long._replace(units=f(-0.006), stop=f(102), take_profit=f(96))
    got = dict(zip(ACCOUNT_FEATURES, observe_account(short, Quote(f(101)), config).tolist(), strict=True))
    turned = {"exposure": -0.606 / 0.906, "unrealised_return": -math.tanh(0.1)}
    assert got == pytest.approx({**want, **turned, "stop_distance": 1 / 2, "take_profit_distance": 5 / 4}, rel=1e-5)
    flat = dict(zip(ACCOUNT_FEATURES, observe_account(open_account(f(1)), Quote(f(101)), config).tolist(), strict=True))
    assert flat == {**dict.fromkeys(ACCOUNT_FEATURES, 0.0), "win_rate": 0.5}


def test_distances_are_one_at_the_entry_price_and_zero_without_stops():
    tape = make_tape()
    still = dict.fromkeys(PRICES, tape.open)
    quiet = tape._replace(**still, costs=jax.tree.map(jnp.zeros_like, tape.costs))
    distances = [FEATURE["stop_distance"], FEATURE["take_profit_distance"]]
    for label in (1, 2):
        _, observation, *_ = step(quiet, PLAIN, start_at(0, 20), jnp.int32(label))
        np.testing.assert_allclose(observation.account[np.array(distances)], 1.0, rtol=1e-4)
        spec = make_spec(stop_loss=0.0, take_profit=0.0)
        _, observation, *_ = step(quiet, spec, start_at(0, 20), jnp.int32(label))
        assert observation.account[np.array(distances)].tolist() == [0, 0]
        assert float(observation.account[FEATURE["exposure"]]) == pytest.approx(3 - 2 * label)


@pytest.mark.parametrize("name", ["plain", "sized"])
def test_observations_stay_in_their_ranges(name):
    tape = make_tape(volatility=0.03)
    states = stack([start_at(i % 2, 20 + i) for i in range(N_ENVS)])
    _, observation, result, terminated, _ = rollout(name)(tape, states, random_actions(SPECS[name]))
    assert not terminated.any()
    seen = np.asarray(observation.account)
    assert np.isfinite(seen).all()
    ranges = {
        "total_return": (-1, 1),
        "win_rate": (0, 1),
        "drawdown": (0, 1),
        "unrealised_return": (-1, 1),
        "bars_held": (0, 1),
        "stop_distance": (0, 4),
        "take_profit_distance": (0, 4),
    }
    for field, (low, high) in ranges.items():
        column = seen[..., FEATURE[field]]
        assert column.min() >= low, field
        assert column.max() <= high, field
        assert column.std() > 0.01, field
    exposure = seen[..., FEATURE["exposure"]]
    held = np.asarray(result.record.units) != 0
    assert ((exposure == 0) == ~held).all()
    # A bar's move changes the exposure it began with, so it may pass the limit, though not by far.
    assert np.abs(exposure).max() < 1.5 * SPECS[name].config.max_exposure
    assert (exposure[::2] < 0).any()
    assert (exposure[1::2] >= 0).all()  # no shorts of the second symbol


def in_other_units(factor, name):
    tape = make_tape()
    scaled = tape._replace(**{n: getattr(tape, n) * jnp.float32(factor) for n in PRICES})
    states = starts(tape)._replace(t=jnp.arange(20, 20 + N_ENVS, dtype=jnp.int32))
    _, observation, result, *_ = rollout(name)(scaled, states, random_actions(SPECS[name]))
    assert (result.record.reason > 0).any()
    return observation, result


@pytest.mark.parametrize("name", ["plain", "sized"])
def test_observations_and_rewards_are_free_of_price_units(name):
    observation, result = in_other_units(1, name)
    for power in (1024, 1 / 1024):  # a power of two changes no rounding
        again, results = in_other_units(power, name)
        jax.tree.map(np.testing.assert_array_equal, again, observation)
        jax.tree.map(
            np.testing.assert_array_equal, (results.reward, results.components), (result.reward, result.components)
        )
    again, results = in_other_units(1000, name)
    np.testing.assert_allclose(again.account, observation.account, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(results.record.reason, result.record.reason)
    np.testing.assert_allclose(results.record.equity, result.record.equity, rtol=1e-5)


def test_valid_actions_follow_the_symbol_and_the_position():
    tape, spec = make_tape(), PLAIN
    for symbol, flat_mask in ((0, [True, True, True]), (1, [True, True, False])):
        state = start_at(symbol, 20)
        assert valid_actions(tape, spec, observe(tape, spec, state)).tolist() == flat_mask
        _, observation, *_ = step(tape, spec, state, jnp.int32(1))
        assert float(observation.account[FEATURE["exposure"]]) > 0
        assert valid_actions(tape, spec, observation).tolist() == [True, True, True]


def test_selling_a_long_that_may_not_be_short_goes_flat():
    tape, spec = make_tape(), make_spec(stop_loss=0.0, take_profit=0.0)
    state, *_ = step(tape, spec, start_at(1, 20), jnp.int32(1))
    assert float(state.account.units) > 0
    state, *_ = step(tape, spec, state, jnp.int32(2))
    assert float(state.account.units) == 0
    assert int(state.account.trades) == 1
    # The masked action does nothing, should anyone take it.
    state, *_ = step(tape, spec, state, jnp.int32(2))
    assert float(state.account.units) == 0
