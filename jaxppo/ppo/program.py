"""The one compiled program: updates in a loop, validation at its end, nothing but scalars out.

A segment is the updates between two validations. Their number is a Python int, and they are a `lax.scan` whose length
the compiler knows; or an argument of the program, and production's eleven segments of 40 and its last of 37 share one
executable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxppo.agent.encoders import receptive_field
from jaxppo.agent.policy import AgentSpec, Params, init_params, make_agent
from jaxppo.config.schema import Config
from jaxppo.env.protocol import Env
from jaxppo.env.trading import EnvSpec, env_spec
from jaxppo.market.dataset import EvaluationSet
from jaxppo.market.tape import Tape
from jaxppo.play.score import Figures, Score, validate
from jaxppo.ppo.guard import first_guard
from jaxppo.ppo.layout import EVERYWHERE, of_members, pin, state_specs
from jaxppo.ppo.rollout import start_paths
from jaxppo.ppo.shard import PATH, Shard
from jaxppo.ppo.state import Hyper, Learned, Moments, TrainSpec, TrainState
from jaxppo.ppo.update import update

E = TypeVar("E", bound=Env)
T = TypeVar("T")

COUNTS = frozenset({"skipped_steps", "bad_samples", "broken_accounts", "rollbacks"})
"""Metrics of an update that count something: those of an ensemble's members add up, where the others are averaged."""
UPDATES = "updates"
"""The named scope in which the loop over updates is traced."""


class TapeSpec(NamedTuple):
    """Static sizes of the market that the program is traced for."""

    n_features: int
    n_decisions: int  # of the longest symbol of the evaluation split


class SegmentOutput(NamedTuple):
    """What a segment leaves on the device; the host fetches the scalars."""

    updates: dict[str, jax.Array]  # of each update, as of `run_updates`
    score: Score  # the validation: one account a symbol


class Program(NamedTuple):
    """Pure functions of one training run. `jit` and `vmap` them as you like.

    init(key, hyper, tape) -> TrainState
    updates(state, hyper, tape, n_updates) -> (TrainState, metrics of each); n_updates as of `run_updates`
    validation(params, data) -> Score
    segment(state, hyper, tape, data, n_updates) -> (TrainState, SegmentOutput): the two after each other; n_updates
      may be 0: validation only
    train(key, hyper, tape, data) -> (TrainState, Figures at every validation); all segments in one scan
    """

    spec: TrainSpec[EnvSpec]
    init: Callable[[jax.Array, Hyper, Tape], TrainState]
    updates: Callable[[TrainState, Hyper, Tape, jax.Array | int], tuple[TrainState, dict[str, jax.Array]]]
    validation: Callable[[Params, EvaluationSet], Score]
    segment: Callable[[TrainState, Hyper, Tape, EvaluationSet, jax.Array | int], tuple[TrainState, SegmentOutput]]
    train: Callable[[jax.Array, Hyper, Tape, EvaluationSet], tuple[TrainState, Figures]]


def train_spec(config: Config, n_features: int, mesh: Mesh | None = None) -> TrainSpec[EnvSpec]:
    """The static half of a run in the trading environment."""
    return bind_env(config, env_spec(config.env, config.reward), n_features, mesh)


def bind_env(config: Config, env: E, n_features: int, mesh: Mesh | None = None) -> TrainSpec[E]:
    """The static half of a run in any environment; the network's sizes are those of its observations and actions."""
    agent = make_agent(AgentSpec(config.agent, n_features, env.n_observation, len(env.action_labels)))
    return TrainSpec(config, agent, env, receptive_field(config.agent), mesh)


def begin_run(spec: TrainSpec[Env], key: jax.Array, hyper: Hyper, tape: Tape) -> TrainState:
    """The state before the first update: of one policy, or with a leading axis of M members of an ensemble.

    Member i begins as a run of one policy with the key `fold_in(key, i)` does, whatever M is.
    """
    seeds = spec.config.budget.seeds
    if seeds == 1:
        return _begin_one(spec, key, tape)
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(seeds, dtype=jnp.uint32))
    return jax.vmap(lambda k: _begin_one(spec, k, tape))(keys)


def _begin_one(spec: TrainSpec[Env], key: jax.Array, tape: Tape) -> TrainState:
    config, budget = spec.config, spec.config.budget
    for_params, for_paths, for_run = jax.random.split(key, 3)
    params = init_params(spec.agent.spec, for_params)
    count = jnp.zeros((), jnp.int32)
    learned = Learned(params, Moments(jnp.zeros_like(params), jnp.zeros_like(params), count))
    return TrainState(
        *learned,
        steps=count,
        paths=start_paths(tape, for_paths, config.n_paths, budget.n_steps, config.env.episode_steps),
        lanes=spec.env.begin((config.n_paths, budget.lanes)),
        key=jax.random.key_data(for_run),
        update=count,
        guard=first_guard(learned),
    )


def run_updates(
    spec: TrainSpec[Env], state: TrainState, hyper: Hyper, tape: Tape, n_updates: jax.Array | int, n_rows: int = 0
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Updates one after another, in a loop on the device.

    Args:
      spec, state, hyper, tape: of the run. The members of an ensemble learn apart, each by itself.
      n_updates: how many: an int, static, or () int32, which may be an argument of the compiled program.
      n_rows: static, the most there may be where `n_updates` is an array.

    Returns:
      The state after the last, and the metrics of each: (n_updates,) of an int; of an array (n_rows,), of which the
      rows from `n_updates` on are 0. Those of an ensemble are the means over its members, and counts their sums. Both
      ways agree up to rounding, as XLA may fuse the updates of a known number differently.
    """
    if spec.mesh is None:
        state, rows = _advance(spec, state, hyper, tape, n_updates, n_rows)
    else:
        inside = replace(spec, mesh=None, shard=Shard(spec.mesh.shape[PATH]))
        specs = state_specs(state)
        given = () if isinstance(n_updates, int) else (n_updates,)
        # Not checked for what varies over the mesh, which asks for a cast of every constant that a scan begins with.
        state, rows = jax.shard_map(
            lambda s, h, t, *n: _advance(inside, s, h, t, n[0] if n else n_updates, n_rows),
            mesh=spec.mesh,
            in_specs=(specs, *(EVERYWHERE,) * (2 + len(given))),
            out_specs=(specs, of_members(state)),
            check_vma=False,
        )(state, hyper, tape, *given)
        state = pin(spec.mesh, state, specs)
    if state.params.ndim == 2:
        rows = {name: x.sum(0) if name in COUNTS else jnp.nanmean(x, axis=0) for name, x in rows.items()}
    return state, rows if spec.mesh is None else pin(spec.mesh, rows, EVERYWHERE)


def _advance(
    spec: TrainSpec[Env], state: TrainState, hyper: Hyper, tape: Tape, n_updates: jax.Array | int, n_rows: int
) -> tuple[TrainState, dict[str, jax.Array]]:
    """`run_updates` of what one device has; the metrics of members are not joined, (M, n_updates or n_rows)."""
    if state.params.ndim == 2:
        return _each_member(lambda one: _advance(spec, one, hyper, tape, n_updates, n_rows), state)

    def step(state: TrainState) -> tuple[TrainState, dict[str, jax.Array]]:
        return update(state, tape, spec, hyper)

    with jax.named_scope(UPDATES):
        if isinstance(n_updates, int):
            done: tuple[TrainState, dict[str, jax.Array]]
            done = jax.lax.scan(lambda state, _: step(state), state, length=n_updates)
            return done
        return _advance_by(step, state, n_updates, n_rows)


def _advance_by(
    step: Callable[[TrainState], tuple[TrainState, dict[str, jax.Array]]],
    state: TrainState,
    n_updates: jax.Array,
    n_rows: int,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """`n_updates` turns of `step`, and the metrics of each."""
    step = jax.jit(step, inline=True)  # traced once, for the shapes and for the loop
    rows = jax.tree.map(lambda x: jnp.zeros((n_rows, *x.shape), x.dtype), jax.eval_shape(step, state)[1])

    def one(i: jax.Array, carry: tuple[TrainState, Any]) -> tuple[TrainState, Any]:
        state, rows = carry
        state, metrics = step(state)
        # Not `.at[i].set`, a scatter: GPUs run those in no fixed order, or slowly.
        return state, jax.tree.map(lambda x, m: jax.lax.dynamic_update_index_in_dim(x, m, i, 0), rows, metrics)

    done: tuple[TrainState, dict[str, jax.Array]] = jax.lax.fori_loop(0, n_updates, one, (state, rows))
    return done


def _each_member(one: Callable[[TrainState], T], state: TrainState) -> T:
    """`one` of every member of `state`, stacked: one after another on a CPU, side by side elsewhere.

    An update of three members of `quick_test` took .44 s of CPU time one after another and .51 s side by side, where
    one of a single policy took .15 s. It depends on what is compiled for, which need not be the device at hand.
    """
    done: T = jax.lax.platform_dependent(state, cpu=partial(jax.lax.map, one), default=jax.vmap(one))
    return done


def make_train(config: Config, tape_spec: TapeSpec, mesh: Mesh | None = None) -> Program:
    """Build the program of a configuration in the trading environment.

    Args:
      config: a checked configuration; its hyperparameters are passed as arrays, not read from here.
      tape_spec: static sizes of the market.
      mesh: of the devices that the run is divided over, as of `layout.make_mesh`; None for one.
    """
    spec = train_spec(config, tape_spec.n_features, mesh)

    def init(key: jax.Array, hyper: Hyper, tape: Tape) -> TrainState:
        return begin_run(spec, key, hyper, tape)

    def updates(
        state: TrainState, hyper: Hyper, tape: Tape, n_updates: jax.Array | int
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        return run_updates(spec, state, hyper, tape, n_updates, config.budget.validate_every)

    def validation(params: Params, data: EvaluationSet) -> Score:
        return validate(spec.agent, spec.env, params, data, tape_spec.n_decisions, spec.receptive_field, mesh)

    def segment(
        state: TrainState, hyper: Hyper, tape: Tape, data: EvaluationSet, n_updates: jax.Array | int
    ) -> tuple[TrainState, SegmentOutput]:
        state, rows = updates(state, hyper, tape, n_updates)
        return state, SegmentOutput(rows, validation(state.params, data))

    def train(key: jax.Array, hyper: Hyper, tape: Tape, data: EvaluationSet) -> tuple[TrainState, Figures]:
        def one(state: TrainState, n: jax.Array) -> tuple[TrainState, Figures]:
            state, out = segment(state, hyper, tape, data, n)
            return state, out.score.figures

        lengths = jnp.asarray((0, *config.segments), jnp.int32)
        return jax.lax.scan(one, init(key, hyper, tape), lengths)

    return Program(spec, init, updates, validation, segment, train)
