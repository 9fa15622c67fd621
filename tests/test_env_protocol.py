"""The trainer knows an environment by its protocol alone: one account that holds two instruments learns as well."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import BRACKETED, random_tape, tiny_config

import jaxppo.config.rewards
import jaxppo.env.protocol
import jaxppo.env.rewards
import jaxppo.ppo
from jaxppo.config.schema import RewardConfig
from jaxppo.env.protocol import StepResult, choose_lanes, finite_lanes
from jaxppo.env.trading import env_spec
from jaxppo.market.tape import Costs, MarketStep, Quote, Tape, Terms
from jaxppo.ppo.program import begin_run, bind_env, run_updates
from jaxppo.ppo.rollout import RolloutStart, collect
from jaxppo.ppo.state import TrainState, hyper_from

# Long the first, the second, half of each, or nothing.
WEIGHTS = ((1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (0.0, 0.0))
RUIN = 0.5
UPDATES = 30


class Pair(NamedTuple):
    """An account over two instruments: what it is worth, and the share of it in each."""

    equity: jax.Array  # (P, L)
    weights: jax.Array  # (P, L, 2)


class PairEnv:
    """Every bar the account is spread over two instruments anew, at a fee on what changes hands."""

    n_observation = 3  # equity and the two weights
    action_labels = ("first", "second", "both", "none")

    def begin(self, shape: tuple[int, ...]) -> Pair:
        return Pair(jnp.ones(shape), jnp.zeros((*shape, 2)))

    def observe(self, state: Pair, quote: Quote) -> jax.Array:
        assert quote.close.shape[-1] == 2
        return jnp.concatenate([jnp.expand_dims(state.equity - 1.0, -1), state.weights], axis=-1)

    def mask(self, observation: jax.Array, terms: Terms) -> jax.Array:
        # From all in the one there is no way to the other but by way of both or nothing.
        first, second = observation[..., 1] > 0.9, observation[..., 2] > 0.9
        free = jnp.ones_like(first)
        return jnp.stack([~second, ~first, free, free], axis=-1)

    def step(
        self, state: Pair, action: jax.Array, market: MarketStep, terms: Terms, entropy: jax.Array
    ) -> tuple[Pair, StepResult]:
        wanted = jnp.asarray(WEIGHTS)[action]
        cost = (terms.costs.fee * jnp.abs(wanted - state.weights)).sum(-1)
        growth = 1.0 + (wanted * (market.close / market.open - 1.0)).sum(-1) - cost
        equity = state.equity * growth
        ruined = equity <= RUIN
        return Pair(equity, wanted), StepResult(100.0 * jnp.log(growth), ruined, {}, cost)

    def restart(self, state: Pair, where: jax.Array) -> Pair:
        return choose_lanes(where, self.begin(state.equity.shape), state)

    def sound(self, state: Pair) -> jax.Array:
        return finite_lanes(state, state.equity)

    def metrics(self, result: StepResult) -> dict[str, jax.Array]:
        return {"cost": result.record.mean()}


def pair_tape(fall: float = 0.01) -> Tape:
    """One path of two instruments (1, T, 2): a feature says which of them rises by 1 % next; the other falls."""
    tape, n = random_tape(0, 1, 600, 2, first=8), 600
    up = np.random.default_rng(1).integers(0, 2, n)
    gross = np.where(np.eye(2, dtype=bool)[up], 1.01, 1.0 - fall)  # (T, 2) of each bar
    close = np.cumprod(gross, axis=0)[None]
    open_ = close / gross[None]
    features = np.zeros((1, n, 2), np.float32)
    features[0, :-1] = np.eye(2)[up[1:]]  # of bar t, the winner of t + 1

    def f32(x) -> jax.Array:
        return jnp.asarray(x, jnp.float32)

    return tape._replace(
        features=f32(features),
        open=f32(open_),
        high=f32(np.maximum(open_, close)),
        low=f32(np.minimum(open_, close)),
        close=f32(close),
        forward_return=f32(0 * close),
        volatility=f32(0 * close),
        costs=Costs(*(jnp.full((1, 2), x) for x in (1e-4, 0.0, 0.0))),
        allow_short=jnp.zeros((1, 2), bool),
    )


CONFIG = tiny_config(
    encoder="none",
    trunk_width=16,
    n_envs=64,
    lanes=4,
    n_steps=8,
    n_updates=UPDATES,
    episode_steps=32,
    epochs=4,
    learning_rate=1e-2,
    gamma=0.9,
    entropy_start=0.02,
    entropy_end=0.0,
)


def config_with(advantages: str):
    return tiny_config(**{**vars(CONFIG.agent), **vars(CONFIG.budget), **vars(CONFIG.ppo), "advantages": advantages})


@pytest.fixture(scope="module", params=["gae", pytest.param("counterfactual", marks=pytest.mark.slow)])
def trained(request):
    """The spec, the market, and the states before the first and after the last update."""
    config = config_with(request.param)
    spec, tape, hyper = bind_env(config, PairEnv(), 2), pair_tape(), hyper_from(config)
    start = jax.jit(lambda: begin_run(spec, jax.random.key(0), hyper, tape))()
    end, rows = jax.jit(lambda s: run_updates(spec, s, hyper, tape, UPDATES, UPDATES))(start)
    return spec, tape, start, end, rows


def test_an_account_of_two_instruments_learns_which_one_rises(trained):
    """All in the winner is 1 % a bar; from one to the other leads a bar of `both` or `none`, which earns nothing."""
    spec, tape, start, end, rows = trained

    def reward(state: TrainState) -> float:
        begin = RolloutStart(state.paths, state.lanes, jax.random.key(1))
        return float(
            jax.jit(lambda: collect(spec, state.params, tape, begin, jnp.float32(0.9)))()[1].steps.reward.mean()
        )

    # Untrained, it earns about nothing. At best it is free in a third of the bars and earns 1 %, and in the others that
    # half of the time: 2/3 % a bar before costs.
    assert abs(reward(start)) < 0.15
    assert reward(end) > 0.45
    assert rows["reward_mean"].shape == (UPDATES,)
    assert float(rows["bad_samples"].sum()) == 0
    assert {f"action_share_{label}" for label in PairEnv.action_labels} <= set(rows)


def test_masked_actions_are_never_taken(trained):
    spec, tape, _, end, _ = trained
    begin = RolloutStart(end.paths, end.lanes, jax.random.key(2))
    _, rollout, _ = jax.jit(lambda: collect(spec, end.params, tape, begin, jnp.float32(0.9)))()
    seen, action = np.asarray(rollout.steps.observation), np.asarray(rollout.steps.action)
    assert not (action[seen[..., 1] > 0.9] == 1).any()
    assert not (action[seen[..., 2] > 0.9] == 0).any()
    assert set(np.unique(action)) >= {0, 1}


def test_lanes_that_are_not_sound_are_restarted_with_all_their_axes(trained):
    spec, tape, _, end, _ = trained
    broken = end.lanes._replace(weights=end.lanes.weights.at[1, 2, 1].set(jnp.nan))
    begin = RolloutStart(end.paths, broken, jax.random.key(3))
    lanes, _, metrics = jax.jit(lambda: collect(spec, end.params, tape, begin, jnp.float32(0.9)))()
    assert float(metrics["broken_accounts"]) == 1
    assert bool(spec.env.sound(lanes).all())


def test_ruin_restarts_the_account():
    """The losing side falls by 60 % a bar: whoever is in it is ruined, and goes on with a fresh account."""
    config = config_with("gae")
    spec, tape, hyper = bind_env(config, PairEnv(), 2), pair_tape(fall=0.6), hyper_from(config)
    state = jax.jit(lambda: begin_run(spec, jax.random.key(0), hyper, tape))()
    begin = RolloutStart(state.paths, state.lanes, jax.random.key(4))
    lanes, rollout, _ = jax.jit(lambda: collect(spec, state.params, tape, begin, jnp.float32(0.9)))()
    ruined = np.asarray(rollout.steps.terminated)
    assert 0 < ruined.sum() < ruined.size
    seen = np.asarray(rollout.steps.observation)[1:]
    assert (seen[ruined[:-1]] == 0).all()  # of an equity of 1 that holds nothing
    assert (np.asarray(lanes.equity) > RUIN).all()


class Lying(PairEnv):
    """Says that it observes less than it does."""

    n_observation = 2


def test_shapes_are_checked_where_the_environment_is_traced():
    spec, tape = bind_env(config_with("gae"), Lying(), 2), pair_tape()
    hyper = hyper_from(spec.config)
    state = jax.eval_shape(lambda: begin_run(spec, jax.random.key(0), hyper, tape))
    with pytest.raises(AssertionError, match=r"has shape \(16, 4, 3\) but expected \(16, 4, 2\)"):
        jax.eval_shape(lambda s: run_updates(spec, s, hyper, tape, 1, 1), state)


def test_the_trainer_does_not_know_the_account():
    forbidden = re.compile(r"jaxppo\.env\.(account|actions|rewards)\b")
    files = list((Path(jaxppo.ppo.__file__).parent).glob("*.py"))
    assert len(files) > 8
    assert [f.name for f in files if forbidden.search(f.read_text())] == []


@pytest.mark.parametrize("module", [jaxppo.env.protocol, jaxppo.env.rewards, jaxppo.config.rewards])
def test_examples_in_docstrings(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


def test_the_trading_environment_steps_any_leading_shape():
    spec = env_spec(BRACKETED, RewardConfig(reward="differential_sharpe"))
    lanes = spec.begin((3, 2))
    moments = lanes.memory["differential_sharpe"]
    assert moments.mean.shape == (3, 2)
    poisoned = lanes._replace(
        memory={"differential_sharpe": moments._replace(square=moments.square.at[2, 1].set(jnp.inf))}
    )
    assert np.argwhere(~np.asarray(spec.sound(poisoned))).tolist() == [[2, 1]]
    fresh = spec.restart(poisoned, ~spec.sound(poisoned))
    assert bool(spec.sound(fresh).all())
