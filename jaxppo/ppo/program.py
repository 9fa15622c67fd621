"""The one compiled program: updates in a loop, validation at its end, nothing but scalars out.

A segment is the updates between two validations. Its number of updates is an argument, so production's eleven segments
of 40 and its last of 37 are one executable: with a `lax.scan` of static length they would be two compilations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxppo.agent.encoders import receptive_field
from jaxppo.agent.policy import AgentSpec, Params, init_params, make_agent
from jaxppo.config.schema import Config
from jaxppo.env.account import open_account
from jaxppo.env.trading import ACCOUNT_FEATURES, env_spec
from jaxppo.market.dataset import EvaluationSet
from jaxppo.market.tape import Tape
from jaxppo.play.score import Figures, Score, validate
from jaxppo.ppo.guard import first_guard
from jaxppo.ppo.loss import Hyper
from jaxppo.ppo.rollout import start_paths
from jaxppo.ppo.update import ADAM, TrainSpec, TrainState, make_optimizer, update


class TapeSpec(NamedTuple):
    """Static sizes of the market that the program is traced for."""

    n_features: int
    n_decisions: int  # of the longest symbol of the evaluation split


class SegmentOutput(NamedTuple):
    """What a segment leaves on the device; the host fetches the scalars."""

    updates: dict[str, jax.Array]  # (validate_every,) each; rows from the segment's length on are 0
    score: Score  # the validation: one account a symbol


class Program(NamedTuple):
    """Pure functions of one training run. `jit` and `vmap` them as you like.

    init(key, hyper, tape) -> TrainState
    segment(state, hyper, tape, data, n_updates) -> (TrainState, SegmentOutput); n_updates may be 0: validation only
    train(key, hyper, tape, data) -> (TrainState, Figures at every validation); all segments in one scan
    """

    spec: TrainSpec
    init: Callable[[jax.Array, Hyper, Tape], TrainState]
    segment: Callable[[TrainState, Hyper, Tape, EvaluationSet, jax.Array], tuple[TrainState, SegmentOutput]]
    train: Callable[[jax.Array, Hyper, Tape, EvaluationSet], tuple[TrainState, Figures]]


def train_spec(config: Config, n_features: int) -> TrainSpec:
    """The static half of a run."""
    env = env_spec(config.env, config.reward)
    agent = make_agent(agent_spec(config, n_features, env.actions.n_actions))
    return TrainSpec(config, agent, env, receptive_field(config.agent))


def agent_spec(config: Config, n_features: int, n_actions: int) -> AgentSpec:
    """Network sizes of a configuration."""
    return AgentSpec(config.agent, n_features, len(ACCOUNT_FEATURES), n_actions)


def make_train(config: Config, tape_spec: TapeSpec) -> Program:
    """Build the program of a configuration.

    Args:
      config: a checked configuration; its hyperparameters are passed as arrays, not read from here.
      tape_spec: static sizes of the market.
    """
    spec = train_spec(config, tape_spec.n_features)
    budget = config.budget

    def init(key: jax.Array, hyper: Hyper, tape: Tape) -> TrainState:
        for_params, for_paths, for_run = jax.random.split(key, 3)
        params = init_params(agent_spec(config, tape_spec.n_features, spec.env.actions.n_actions), for_params)
        vector, _ = ravel_pytree(params)
        opt_state = make_optimizer(config, hyper).init(vector)
        start = jnp.ones((config.n_paths, budget.lanes))
        return TrainState(
            params=params,
            opt_state=opt_state,
            paths=start_paths(tape, for_paths, config.n_paths, budget.n_steps, config.env.episode_steps),
            accounts=open_account(start),
            key=jax.random.key_data(for_run),
            update=jnp.zeros((), jnp.int32),
            guard=first_guard(vector, opt_state[ADAM]),
        )

    def check(params: Params, data: EvaluationSet) -> Score:
        return validate(spec.agent, spec.env, params, data, tape_spec.n_decisions, spec.receptive_field)

    def updates(
        state: TrainState, hyper: Hyper, tape: Tape, n_updates: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        shapes = jax.eval_shape(lambda s: update(s, tape, spec, hyper)[1], state)
        rows = jax.tree.map(lambda x: jnp.zeros((budget.validate_every, *x.shape), x.dtype), shapes)

        def one(i: jax.Array, carry: tuple[TrainState, Any]) -> tuple[TrainState, Any]:
            state, rows = carry
            state, metrics = update(state, tape, spec, hyper)
            # Not `.at[i].set`, a scatter: GPUs run those in no fixed order, or slowly.
            return state, jax.tree.map(lambda x, m: jax.lax.dynamic_update_index_in_dim(x, m, i, 0), rows, metrics)

        return jax.lax.fori_loop(0, n_updates, one, (state, rows))

    def segment(
        state: TrainState, hyper: Hyper, tape: Tape, data: EvaluationSet, n_updates: jax.Array
    ) -> tuple[TrainState, SegmentOutput]:
        state, rows = updates(state, hyper, tape, n_updates)
        return state, SegmentOutput(rows, check(state.params, data))

    def train(key: jax.Array, hyper: Hyper, tape: Tape, data: EvaluationSet) -> tuple[TrainState, Figures]:
        def one(state: TrainState, n: jax.Array) -> tuple[TrainState, Figures]:
            state, out = segment(state, hyper, tape, data, n)
            return state, out.score.figures

        lengths = jnp.asarray((0, *config.segments), jnp.int32)
        return jax.lax.scan(one, init(key, hyper, tape), lengths)

    return Program(spec, init, segment, train)
