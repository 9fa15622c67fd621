"""Rollouts: equal to a loop over single environments, never outside the split, restarts, and whose draws are whose."""

import math
from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import kept, random_tape, tiny_config
from jax.flatten_util import ravel_pytree

from jaxppo.agent.policy import init_params
from jaxppo.env.account import AccountState, open_account
from jaxppo.env.trading import EnvState, Lanes, env_spec, observe, step, valid_actions
from jaxppo.market.tape import REWARD_HORIZON, Costs, Tape, take_windows
from jaxppo.ppo.program import TapeSpec, make_train, train_spec
from jaxppo.ppo.rollout import RolloutStart, Transition, advance_paths, collect, start_paths
from jaxppo.ppo.state import PathState, TrainSpec, hyper_from
from jaxppo.ppo.update import update

WINDOW, FEATURES, PATHS, LANES, STEPS = 4, 3, 4, 3, 8
FIRST, LENGTHS = 7, (60, 40)
# Fees of 2 % on three times the equity ruin an account below .8 within a few trades.
CONFIG = tiny_config(
    n_envs=PATHS * LANES,
    lanes=LANES,
    n_steps=STEPS,
    window=WINDOW,
    max_exposure=3.0,
    ruin_level=0.8,
    stop_loss=0.0,
    take_profit=0.0,
)
SPEC = train_spec(CONFIG, FEATURES)
# Rewards are in percent: what float32 rounds off an equity shows a hundred times as large.
ROUNDING = {"rtol": 1e-5, "atol": 1e-4}
GAMMA = 0.9


@kept
def market() -> Tape:
    """Two symbols of unequal lengths and costs, the second without shorts; what no rollout may touch is NaN."""
    tape = random_tape(0, 2, max(LENGTHS), FEATURES, first=FIRST)
    bars = np.arange(tape.n_bars)
    outside = (bars < FIRST - (WINDOW - 1)) | (bars >= np.array(LENGTHS)[:, None])

    def blank(x):
        return jnp.where(outside.reshape(outside.shape + (1,) * (x.ndim - 2)), jnp.nan, x)

    arrays = jax.tree.map(blank, (tape.features, tape.open, tape.high, tape.low, tape.close))
    return Tape(
        *arrays,
        forward_return=blank(tape.forward_return),
        volatility=blank(tape.volatility),
        first=tape.first,
        length=jnp.asarray(LENGTHS, jnp.int32),
        costs=Costs(jnp.float32([0.02, 0.03]), jnp.float32([0.001, 0.0]), jnp.float32([0.0005, 0.0])),
        allow_short=jnp.array([True, False]),
        bars_per_year=tape.bars_per_year,
    )


@kept
def parameters():
    """Initial parameters with a policy head a hundred times as large: its actions then depend on what it sees."""
    params = jax.jit(init_params, static_argnums=0)(SPEC.agent.spec, jax.random.key(4))
    network = SPEC.agent.unravel(params)
    return ravel_pytree(network | {"policy_head": jax.tree.map(lambda x: 100 * x, network["policy_head"])})[0]


def collector(spec: TrainSpec):
    """Jitted (params, tape, paths, accounts, key) to what `collect` returns, with accounts for lanes."""

    def run(params, tape, paths, accounts, key):
        lanes, *rest = collect(spec, params, tape, RolloutStart(paths, Lanes(accounts, {}), key), jnp.float32(GAMMA))
        return lanes.account, *rest

    return jax.jit(run)


collected = collector(SPEC)


def fresh(n_paths: int, lanes: int) -> AccountState:
    return open_account(jnp.ones((n_paths, lanes)))


def paths_at(symbol, t) -> PathState:
    return PathState(jnp.asarray(symbol, jnp.int32), jnp.asarray(t, jnp.int32), jnp.zeros(len(symbol), jnp.int32))


# --- against a loop over single environments ---


@jax.jit
def one_step(params, tape: Tape, state: EnvState, uniform):
    """One environment alone: its own window, observation, mask and draw. A ruined account starts afresh."""
    env, agent = SPEC.env, SPEC.agent
    observation = observe(tape, env, state)
    window = take_windows(tape, state.symbol[None], state.t[None] - (WINDOW - 1), WINDOW)  # (1, R, F)
    logits, value = agent.decide(params, agent.encode(params, window)[0, 0], observation.account[None])
    allowed = valid_actions(tape, env, observation)
    probability = jax.nn.softmax(jnp.where(allowed, logits[0], -jnp.inf))
    action = jnp.sum((uniform >= jnp.cumsum(probability)[:-1]).astype(jnp.int32))
    after, _, result, terminated, _ = step(tape, env, state, action)
    restarted = open_account(jnp.ones(()))
    account = jax.tree.map(lambda new, old: jnp.where(terminated, new, old), restarted, after.account)
    log_prob, good = jnp.log(probability[action]), jnp.bool_(False)
    kept = Transition(observation.account, action, log_prob, value[0], result.reward, terminated, good)
    return after._replace(account=account), kept, result.record


def looped(params, tape, paths, accounts, key):
    """`collect` in plain Python: accounts (P, L), transitions (T, P, L), last observations (P, L, A), records."""
    n_paths, lanes = accounts.equity.shape
    uniform = np.stack([jax.random.uniform(jax.random.fold_in(key, i), (n_paths, lanes)) for i in range(STEPS)])
    ends, rows = {}, {}
    for p in range(n_paths):
        for lane in range(lanes):
            account = jax.tree.map(lambda x, p=p, lane=lane: x[p, lane], accounts)
            state = EnvState(paths.symbol[p], paths.t[p], paths.age[p], account, {})
            played = []
            for i in range(STEPS):
                state, kept, record = one_step(params, tape, state, uniform[i, p, lane])
                played.append((kept, record))
            ends[p, lane], rows[p, lane] = state, jax.tree.map(lambda *x: np.stack(x), *played)

    def grid(cells):
        return jax.tree.map(
            lambda *x: np.stack(x).reshape(n_paths, lanes, *x[0].shape), *(cells[k] for k in sorted(cells))
        )

    steps, records = jax.tree.map(lambda x: np.moveaxis(x, 2, 0), grid(rows))
    return grid(ends), steps, records


@pytest.fixture(scope="module")
def both():
    """The same 8 bars of 4 paths x 3 lanes twice, from accounts that an earlier rollout left."""
    params, tape = parameters(), market()
    earlier = paths_at([0, 1, 0, 1], [7, 7, 30, 15])
    before, _, _ = collected(params, tape, earlier, fresh(PATHS, LANES), jax.random.key(2))
    paths = paths_at([0, 1, 0, 1], [15, 15, 38, 23])
    key = jax.random.key(3)
    return collected(params, tape, paths, before, key), looped(params, tape, paths, before, key)


def test_a_rollout_is_a_loop_over_single_environments(both):
    (accounts, rollout, _), (ends, steps, _) = both
    np.testing.assert_array_equal(rollout.steps.action, steps.action)
    np.testing.assert_array_equal(rollout.steps.terminated, steps.terminated)
    chex.assert_trees_all_close(rollout.steps, jax.tree.map(jnp.asarray, steps), **ROUNDING)
    chex.assert_trees_all_close(accounts, jax.tree.map(jnp.asarray, ends.account), **ROUNDING)
    # The comparison saw something: every action, lanes of a path that part, positions carried in, closed trades.
    assert set(np.unique(steps.action)) == {0, 1, 2}
    assert (np.ptp(np.asarray(accounts.equity), axis=1) > 0).all()
    assert (np.asarray(steps.observation)[0, ..., 3] != 0).any()
    assert int(accounts.trades.sum()) > 0


def test_the_last_value_is_that_of_the_state_after_the_last_step(both):
    (_, rollout, _), (ends, _, _) = both
    tape, params = market(), parameters()
    for p in range(PATHS):
        for lane in range(LANES):
            state = jax.tree.map(lambda x, p=p, lane=lane: jnp.asarray(x[p, lane]), ends)
            _, kept, _ = one_step(params, tape, state, 0.0)
            np.testing.assert_allclose(rollout.last_value[p, lane], kept.value, **ROUNDING)


@jax.jit
def every_action_alone(params, tape: Tape, state: EnvState):
    """Advantage of each action of one environment: take it, look at the state it leads to, and come back."""
    env, agent = SPEC.env, SPEC.agent

    def window(t):
        return take_windows(tape, state.symbol[None], t[None] - (WINDOW - 1), WINDOW)  # (1, R, F)

    def q(action):
        after, observation, result, terminated, _ = step(tape, env, state, action)
        _, value = agent.decide(params, agent.encode(params, window(after.t))[0, 0], observation.account[None])
        return result.reward + jnp.where(terminated, 0.0, GAMMA * value[0]), terminated

    observation = observe(tape, env, state)
    logits, _ = agent.decide(params, agent.encode(params, window(state.t))[0, 0], observation.account[None])
    allowed = valid_actions(tape, env, observation)
    probability = jax.nn.softmax(jnp.where(allowed, logits[0], -jnp.inf))
    each, ruined = jax.vmap(q)(jnp.arange(env.actions.n_actions, dtype=jnp.int32))
    return probability, each - (probability * each).sum(), ruined


def test_every_action_is_valued_as_if_it_had_been_taken():
    params, tape = parameters(), market()
    paths, key = paths_at([0, 1, 0, 1], [15, 15, 38, 23]), jax.random.key(3)
    every_config = replace(CONFIG, ppo=replace(CONFIG.ppo, advantages="counterfactual"))
    collect_all = collector(replace(SPEC, config=every_config))
    _, rollout, _ = collect_all(params, tape, paths, fresh(PATHS, LANES), key)
    plain = collected(params, tape, paths, fresh(PATHS, LANES), key)[1]
    # Looking at every action changes nothing of what is done.
    np.testing.assert_array_equal(rollout.steps.action, plain.steps.action)
    every, ruins = rollout.steps.every, 0
    for p in range(PATHS):
        for lane in range(LANES):
            account = jax.tree.map(lambda x: x[0, 0], fresh(1, 1))
            state = EnvState(paths.symbol[p], paths.t[p], paths.age[p], account, {})
            for i in range(STEPS):
                probability, advantage, ruined = every_action_alone(params, tape, state)
                np.testing.assert_allclose(jnp.exp(every.log_prob[i, p, lane]), probability, **ROUNDING)
                np.testing.assert_allclose(every.advantage[i, p, lane], advantage, rtol=1e-4, atol=1e-3)
                ruins += int(ruined.any()) and not bool(ruined.all())
                uniform = jax.random.uniform(jax.random.fold_in(key, i), (PATHS, LANES))[p, lane]
                state, _, _ = one_step(params, tape, state, uniform)
    assert ruins > 0  # some state had an action that ends in ruin beside one that does not
    weighted = (jnp.exp(every.log_prob) * every.advantage).sum(-1)
    np.testing.assert_allclose(weighted, 0.0, atol=1e-4)


def test_a_ruined_lane_goes_on_with_a_fresh_account(both):
    (_, rollout, _), _ = both
    steps = rollout.steps
    ruined = np.asarray(steps.terminated)
    assert 0 < ruined.sum() < ruined.size / 2
    # What is seen next: no return, win rate .5 before the first trade, all else 0. Other lanes carry theirs on.
    first_view = np.array([0, 0.5, 0, 0, 0, 0, 0, 0], np.float32)
    fresh_next = (np.asarray(steps.observation)[1:] == first_view).all(-1)
    assert fresh_next[ruined[:-1]].all()
    assert not fresh_next.all()


def test_metrics_are_means_over_steps_and_environments(both):
    (_, _, metrics), (_, steps, records) = both
    expected = {
        "reward_mean": steps.reward.mean(),
        "reward_log_return_mean": steps.reward.mean() / 100,  # the preset's weight
        "reward_log_return_share": 1.0,  # the only component
        "train_ruin_rate": steps.terminated.mean(),
        "train_trade_rate": (records.order_units != 0).mean(),
        "action_share_hold": (steps.action == 0).mean(),
        "action_share_buy": (steps.action == 1).mean(),
        "action_share_sell": (steps.action == 2).mean(),
    }
    for name, value in expected.items():
        assert float(metrics[name]) == pytest.approx(float(value), rel=1e-4, abs=1e-6), name


def test_exploration_is_paid_by_the_entropy_of_the_allowed_actions():
    # A uniform policy: log 3 of log 3 where shorts are allowed; else log 2, as flat accounts may not sell.
    config = tiny_config(reward="v33", reward_weights={"exploration": 1.0})
    explore = collector(replace(SPEC, env=env_spec(config.env, config.reward)))
    params = jax.tree.map(jnp.zeros_like, parameters())
    mean = {}
    for symbol in (0, 1):
        where = paths_at([symbol], [FIRST])
        _, _, metrics = explore(params, market(), where, fresh(1, LANES), jax.random.key(0))
        mean[symbol] = float(metrics["reward_exploration_mean"])
    assert mean[0] == pytest.approx(0.05, rel=1e-5)
    assert 0.05 * math.log(2) / math.log(3) - 1e-6 <= mean[1] < 0.05


def test_metric_names():
    config = tiny_config(reward="v245", encoder="none")
    program = make_train(config, TapeSpec(FEATURES, 1))
    hyper, tape = hyper_from(config), market()
    state = jax.eval_shape(program.init, jax.random.key(0), hyper, tape)
    _, metrics = jax.eval_shape(lambda s, t: update(s, t, program.spec, hyper), state, tape)
    components = ("direction", "magnitude", "pnl", "stop_tp", "exploration", "slippage", "drawdown")
    names = {f"reward_{c}_{figure}" for c in components for figure in ("mean", "share", "saturation")}
    names |= {"reward_mean", "train_trade_rate", "train_ruin_rate"}
    names |= {"action_share_hold", "action_share_buy", "action_share_sell"}
    names |= {"policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "grad_norm"}
    names |= {"skipped_steps", "entropy_coefficient", "cost_share", "explained_variance", "learning_rate"}
    names |= {"bad_samples", "broken_accounts", "rollbacks", "learning_rate_scale"}
    assert set(metrics) == names
    assert all(m.shape == () and m.dtype == jnp.float32 for m in metrics.values())


# --- paths ---

EPISODE = 4 * STEPS
# The last decision is STEPS - 1 bars on and its reward may look REWARD_HORIZON bars further: 47 of 60, 27 of 40.
LAST = {s: n - 1 - REWARD_HORIZON - (STEPS - 1) for s, n in enumerate(LENGTHS)}


@kept
def many_paths() -> PathState:
    return jax.jit(lambda tape, key: start_paths(tape, key, 4000, STEPS, EPISODE))(market(), jax.random.key(0))


def test_paths_start_wherever_a_rollout_fits_and_nowhere_else():
    assert LAST == {0: 47, 1: 27}
    symbol, t, _ = map(np.asarray, many_paths())
    for s, last in LAST.items():
        assert np.unique(t[symbol == s]).tolist() == list(range(FIRST, last + 1))
    # 41 and 21 starts, all alike: 66.1 % of the paths are on symbol 0, give or take 4 * sqrt(.66 * .34 / 4000).
    assert (symbol == 0).mean() == pytest.approx(41 / 62, abs=0.03)


def test_ages_are_spread_over_the_episode_in_whole_rollouts():
    age = np.asarray(many_paths().age)
    values, counts = np.unique(age, return_counts=True)
    assert values.tolist() == [0, STEPS, 2 * STEPS, 3 * STEPS]
    assert counts.min() > 4000 / 4 * 0.85
    one = jax.jit(lambda tape, key: start_paths(tape, key, 16, STEPS, STEPS))(market(), jax.random.key(0))
    assert (one.age == 0).all()  # an episode of one rollout


def test_paths_move_on_by_a_rollout_until_their_episode_or_their_data_end():
    tape = market()
    advance = jax.jit(lambda paths, key: advance_paths(tape, paths, key, STEPS, EPISODE))
    paths = many_paths()
    last = np.array([LAST[0], LAST[1]])
    ends = {"episode": 0, "data": 0}
    for i in range(6):
        after, ended = advance(paths, jax.random.key(i))
        ended = np.asarray(ended)
        old_age = np.asarray(paths.age) + STEPS >= EPISODE
        no_room = np.asarray(paths.t) + STEPS > last[np.asarray(paths.symbol)]
        np.testing.assert_array_equal(ended, old_age | no_room)
        ends["episode"] += (old_age & ~no_room).sum()
        ends["data"] += (no_room & ~old_age).sum()
        on = ~ended
        np.testing.assert_array_equal(np.asarray(after.symbol)[on], np.asarray(paths.symbol)[on])
        np.testing.assert_array_equal(np.asarray(after.t)[on], np.asarray(paths.t)[on] + STEPS)
        np.testing.assert_array_equal(np.asarray(after.age)[on], np.asarray(paths.age)[on] + STEPS)
        assert (np.asarray(after.age)[ended] == 0).all()
        assert np.unique(np.asarray(after.t)[ended]).size > 40  # everywhere again
        symbol, t = np.asarray(after.symbol), np.asarray(after.t)
        assert (t >= FIRST).all()
        assert (t <= last[symbol]).all()
        paths = after
    assert min(ends.values()) > 100


def test_rollouts_never_leave_the_split():
    """Bars outside the split are NaN in this market: none may reach what is seen, learnt or rewarded."""
    n = 500
    paths = jax.tree.map(lambda x: x[:n], many_paths())
    _, rollout, metrics = collected(parameters(), market(), paths, fresh(n, LANES), jax.random.key(0))
    for leaf in jax.tree.leaves((rollout, metrics)):
        assert np.isfinite(leaf).all()
    assert float(metrics["bad_samples"]) == 0


@pytest.fixture(scope="module")
def updating():
    config = tiny_config(**{**vars(CONFIG.budget), **vars(CONFIG.env), "encoder": "none", "episode_steps": EPISODE})
    program = make_train(config, TapeSpec(FEATURES, 1))
    hyper = hyper_from(config)
    tape = market()
    state = jax.jit(program.init)(jax.random.key(0), hyper, tape)
    return jax.jit(lambda s: update(s, tape, program.spec, hyper)), state


def test_a_path_that_starts_anew_has_fresh_accounts_and_the_others_keep_theirs(updating):
    step_update, state = updating
    # Path 1 ends with its episode, path 3 with its data. Ten times the money of a fresh account stays above the ruin.
    ages = [0, EPISODE - STEPS, STEPS, 0]
    paths = PathState(*(jnp.asarray(x, jnp.int32) for x in ([0, 0, 1, 1], [7, 9, 11, 27], ages)))
    past = open_account(jnp.full((PATHS, LANES), 10.0, jnp.float32))
    after, _ = step_update(state._replace(paths=paths, lanes=Lanes(past, {})))
    assert after.paths.age.tolist() == [STEPS, 0, 2 * STEPS, 0]
    assert (int(after.paths.t[0]), int(after.paths.t[2])) == (FIRST + STEPS, 11 + STEPS)
    new = jax.tree.map(lambda x: x[jnp.array([1, 3])], after.lanes.account)
    chex.assert_trees_all_equal(new, fresh(2, LANES))
    assert (np.asarray(after.lanes.account.peak)[[0, 2]] >= 10.0).all()


# --- draws ---


def test_draws_belong_to_the_environment_not_to_the_layout():
    """A uniform policy acts by its draws alone: env e acts alike whatever paths and lanes e is counted in."""
    params = jax.tree.map(jnp.zeros_like, parameters())

    def actions(n_paths, lanes, key):
        where = paths_at([0] * n_paths, [FIRST] * n_paths)
        _, rollout, _ = collected(params, market(), where, fresh(n_paths, lanes), key)
        return np.asarray(rollout.steps.action).reshape(STEPS, -1)

    key = jax.random.key(9)
    few = actions(4, 3, key)
    np.testing.assert_array_equal(few, actions(4, 3, key))
    np.testing.assert_array_equal(few, actions(2, 6, key))
    np.testing.assert_array_equal(few, actions(8, 3, key)[:, :12])
    assert (few != actions(4, 3, jax.random.key(10))).any()
    assert (few[0] != few[1]).any()


def test_an_update_is_a_function_of_seed_and_update(updating):
    step_update, state = updating
    first, metrics = step_update(state)
    again, same = step_update(state)
    chex.assert_trees_all_equal((first, metrics), (again, same))
    np.testing.assert_array_equal(jax.random.key_data(state.key), jax.random.key_data(first.key))
    _, later = step_update(state._replace(update=jnp.int32(1)))
    _, other = step_update(state._replace(key=jax.random.key_data(jax.random.key(5))))
    rewards = {float(m["reward_mean"]) for m in (metrics, later, other)}
    assert len(rewards) == 3
