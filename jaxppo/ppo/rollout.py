"""Rollouts over paths and lanes: the market is encoded once per path, a step adds the accounts."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32

from jaxppo.agent.policy import Distribution, Params, Weights
from jaxppo.env.protocol import Env, Ratio, State, StepResult
from jaxppo.market.tape import (
    MarketStep,
    Quote,
    Tape,
    Terms,
    consecutive_bars,
    draw_starts,
    start_counts,
    take_quotes,
    take_steps,
    take_terms,
    take_windows,
)
from jaxppo.packed import sums
from jaxppo.ppo.advantages import counterfactual
from jaxppo.ppo.noise import PathNoise, noisy
from jaxppo.ppo.shard import Shard
from jaxppo.ppo.state import PathState, TrainSpec
from jaxppo.shapes import check_fields


class EveryAction(NamedTuple):
    """What is known of every action at one step, the one that was taken among them."""

    log_prob: Float[jax.Array, "*T P L K"]
    advantage: Float[jax.Array, "*T P L K"]


class Transition(NamedTuple):
    """One step, as the agent saw it. A rollout stacks T of them.

    50 bytes with 8 account features, and 8 more an action where every action is looked at: 74 with 3 actions.
    """

    observation: Float[jax.Array, "*T P L A"]
    action: Int32[jax.Array, "*T P L"]
    log_prob: Float[jax.Array, "*T P L"]
    value: Float[jax.Array, "*T P L"]
    reward: Float[jax.Array, "*T P L"]
    terminated: Bool[jax.Array, "*T P L"]  # as the environment says
    bad: Bool[jax.Array, "*T P L"]  # a number of the step is not finite; its reward is what its value expected
    every: EveryAction | None = None  # where advantages are counterfactual


class Rollout(NamedTuple):
    """T steps of P paths x L lanes."""

    steps: Transition  # fields (T, P, L, ...)
    last_value: Float[jax.Array, "P L"]  # value of the state after the last step
    clean: Bool[jax.Array, " P"]  # all features that the path saw are finite


def start_paths(tape: Tape, key: jax.Array, n_paths: int, n_steps: int, episode_steps: int) -> PathState:
    """Fresh paths; their ages are spread over the episode so that they do not all end in the same update."""
    place, ages = jax.random.split(key)
    symbol, t = draw_starts(tape, place, n_paths, n_steps)
    age = n_steps * jax.random.randint(ages, (n_paths,), 0, episode_steps // n_steps)
    return PathState(symbol, t, age)


def advance_paths(
    tape: Tape, paths: PathState, key: jax.Array, n_steps: int, episode_steps: int, shard: Shard = Shard()
) -> tuple[PathState, jax.Array]:
    """Move the paths of `shard` on by a rollout; those at the end of their episode or of their data start anew.

    Returns:
      The paths, and a (P,) bool that is true where a new episode begins.
    """
    moved = PathState(paths.symbol, paths.t + n_steps, paths.age + n_steps)
    last_start = tape.first[moved.symbol] + start_counts(tape, n_steps)[moved.symbol] - 1
    ended = (moved.age >= episode_steps) | (moved.t > last_start)
    n_paths = moved.t.shape[0] * shard.count
    symbol, t = shard.take(draw_starts(tape, key, n_paths, n_steps), n_paths)
    fresh = PathState(symbol, t, jnp.zeros_like(moved.age))
    return jax.tree.map(lambda new, old: jnp.where(ended, new, old), fresh, moved), ended


@jax.named_scope("look_up")
def path_windows(tape: Tape, paths: PathState, receptive_field: int, n_bars: int) -> jax.Array:
    """Features that encode `n_bars` decisions of each path: (P, R - 1 + n_bars, F)."""
    return take_windows(tape, paths.symbol, paths.t - (receptive_field - 1), receptive_field - 1 + n_bars)


def path_terms(tape: Tape, paths: PathState) -> Terms:
    """What each path is traded at, for all its lanes: (P, 1)."""
    terms: Terms = jax.tree.map(lambda x: jnp.expand_dims(x, 1), take_terms(tape, paths.symbol))
    return terms


def _path_steps(tape: Tape, paths: PathState, n_steps: int) -> tuple[MarketStep, Quote]:
    """Market steps (T, P, 1) and the decisions' quotes (T + 1, P, 1) of a rollout."""
    bars = consecutive_bars(paths.t, n_steps + 1)
    symbol = jnp.broadcast_to(paths.symbol, bars.shape)
    steps = take_steps(tape, symbol[:-1], bars[:-1])
    found: tuple[MarketStep, Quote] = jax.tree.map(
        lambda x: jnp.expand_dims(x, 2), (steps, take_quotes(tape, symbol, bars))
    )
    return found


def _step_metrics(result: StepResult, env: Env, action: jax.Array) -> dict[str, jax.Array | Ratio]:
    """Figures of one step and every lane (P, L), or the same for all; `_over_steps` has their means."""
    figures: dict[str, jax.Array | Ratio] = {"reward_mean": result.reward, **env.metrics(result)}
    for index, label in enumerate(env.action_labels):
        figures[f"action_share_{label}"] = action == index
    return figures


def _lane_sums(told: Any, shape: tuple[int, ...]) -> jax.Array:
    """Sums over all lanes of M figures, (P, L) each or the same for all: (M,)."""
    return sums([jnp.broadcast_to(x, shape).astype(jnp.float32) for x in jax.tree.leaves(told)], 2)


def _over_steps(metrics: dict[str, jax.Array | Ratio], lanes: int, shard: Shard) -> dict[str, jax.Array]:
    """The figures of T steps, sums over all lanes of each device (T,), as means () over all."""
    means = {name: jax.tree.map(lambda x: x / lanes, x) for name, x in metrics.items()}
    means = {name: x if isinstance(x, Ratio) else x.mean() for name, x in means.items()}
    means = shard.mean(means)
    return {name: _ratio(x).mean() if isinstance(x, Ratio) else x for name, x in means.items()}


def _ratio(x: Ratio) -> jax.Array:
    return x.top / jnp.maximum(x.bottom, 1e-12)


class Bar(NamedTuple):
    """What a step of all paths reads of the market, whatever is decided; a rollout scans T of them."""

    quote: Quote  # (P, 1) of the decision bar
    next_quote: Quote  # (P, 1) of the bar to come
    market: MarketStep  # (P, 1): the bar to come
    encoded: jax.Array  # (P, H): the market at the decision
    next_encoded: jax.Array  # (P, H): the market at the close of the bar to come
    uniform: jax.Array  # (P, L) in [0, 1): draws the action


class Ground(NamedTuple):
    """What holds for a path as long as the rollout."""

    terms: Terms  # (P, 1)
    unclean: jax.Array  # (P, 1) bool: a feature of the path is not finite


def every_action(
    spec: TrainSpec[Env], params: Weights, lanes: State, policy: Distribution, bar: Bar, terms: Terms, gamma: jax.Array
) -> EveryAction:
    """Take every action from every lane (P, L), and value the state that each leads to."""
    shape, n = policy.log_probs.shape[:-1], policy.log_probs.shape[-1]
    # K leads, so that each action's lanes lie together: the last axis stays the lanes.
    lead = partial(jax.tree.map, lambda x: jnp.expand_dims(x, 0))
    action = jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32).reshape(n, 1, 1), (n, *shape))
    held = jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *x.shape[1:])), lead(lanes))
    entropy = jnp.expand_dims(policy.entropy() / math.log(n), 0)
    after, result = spec.env.step(held, action, lead(bar.market), lead(terms), entropy)
    _, value = spec.agent.decide(params, lead(bar.next_encoded), spec.env.observe(after, lead(bar.next_quote)))
    probability = jnp.moveaxis(jnp.exp(policy.log_probs), -1, 0)
    advantage = counterfactual(result.reward, value, result.terminated, probability, gamma)
    return EveryAction(policy.log_probs, jnp.moveaxis(advantage, 0, -1))


def play_bar(
    spec: TrainSpec[Env], params: Weights, ground: Ground, gamma: jax.Array, lanes: State, bar: Bar
) -> tuple[State, Transition, Any]:
    """One decision of every lane (P, L) and what came of it.

    Returns:
      The lanes at the next close, terminated and broken ones restarted; the transition; and what the step tells of
      itself, figures and what was bad, (P, L) each or the same for all.
    """
    env, shape = spec.env, bar.uniform.shape
    n_actions = len(env.action_labels)
    seen = env.observe(lanes, bar.quote)
    allowed = env.mask(seen, ground.terms)
    chex.assert_shape([seen, allowed], [(*shape, env.n_observation), (*shape, n_actions)])
    chex.assert_type([seen, allowed], [float, bool])
    policy, value = spec.agent.act(params, bar.encoded, seen, allowed)
    action = policy.sample(bar.uniform)
    after, result = env.step(lanes, action, bar.market, ground.terms, policy.entropy() / math.log(n_actions))
    chex.assert_shape([result.reward, result.terminated], shape)
    chex.assert_type([result.reward, result.terminated], [float, bool])
    chex.assert_trees_all_equal_shapes_and_dtypes(after, lanes)
    broken = ~env.sound(after)
    bad = broken | ground.unclean | ~jnp.isfinite(result.reward)
    result = result._replace(
        reward=jnp.where(bad, 0.0, result.reward),
        components=jax.tree.map(lambda c: jnp.where(bad, 0.0, c), result.components),
    )
    every = None
    if spec.config.ppo.advantages == "counterfactual":
        every = every_action(spec, params, lanes, policy, bar, ground.terms, gamma)
        known = ~bad & jnp.isfinite(every.advantage).all(-1)
        every = every._replace(advantage=jnp.where(jnp.expand_dims(known, -1), every.advantage, 0.0))
    reward = jnp.where(bad, value, result.reward)
    kept = Transition(seen, action, policy.log_prob(action), value, reward, result.terminated, bad, every)
    counts = {"bad_samples": bad, "broken_accounts": broken}
    return env.restart(after, result.terminated | broken), kept, (_step_metrics(result, env, action), counts)


class RolloutStart(NamedTuple):
    """Where a rollout begins."""

    paths: PathState  # (P,)
    lanes: State  # (P, L) at the close of each path's decision bar
    key: jax.Array  # of this update; draws are indexed by (step, env), whatever device computes them
    noise: PathNoise = PathNoise()  # (P,)


@jax.named_scope("rollout")
def collect(
    spec: TrainSpec[Env], params: Params, tape: Tape, start: RolloutStart, gamma: jax.Array
) -> tuple[State, Rollout, dict[str, jax.Array]]:
    """Play `n_steps` bars on every path with every lane.

    Args:
      spec: what plays, for how long, and whether every action is looked at.
      params: of the policy.
      tape: the market.
      start: where the paths and lanes are.
      gamma: discount of counterfactual advantages; not looked at where there are none.

    Returns:
      The lanes after the last bar (terminated ones restarted), the rollout, and scalar metrics. A step whose reward,
      lane or features are not finite is bad: it ends its episode with the reward that its value expected, so that
      advantage and value error are 0, and a lane that is not sound is restarted.
    """
    tape.check()
    if start.noise.kept is not None:
        spec = replace(spec, agent=spec.agent.dropping(start.noise.kept))
    env, agent, paths, n_steps = spec.env, spec.agent, start.paths, spec.config.budget.n_steps
    broken_before = ~env.sound(start.lanes)
    shape = broken_before.shape  # (P, L)
    chex.assert_rank(broken_before, 2)
    chex.assert_shape([paths.symbol, paths.t], shape[:1])
    chex.assert_type([broken_before, paths.symbol, paths.t], [bool, int, int])
    windows = path_windows(tape, paths, spec.receptive_field, n_steps + 1)
    finite = jnp.isfinite(windows)
    clean = finite.all(axis=(1, 2))
    windows = noisy(jnp.where(finite, windows, 0.0), start.noise, windows.shape[1], spec.config.ppo.feature_noise)
    market = agent.encode(params, windows)
    market = jnp.swapaxes(market, 0, 1)  # (T + 1, P, H)
    steps, quotes = _path_steps(tape, paths, n_steps)
    now, after, end = (jax.tree.map(lambda x, s=s: x[s], quotes) for s in (slice(-1), slice(1, None), -1))
    # All draws at once, 4 bytes a step: drawing inside the loop would double the small kernels of each step.
    keys = jax.vmap(lambda index: jax.random.fold_in(start.key, index))(jnp.arange(n_steps))
    uniforms = jax.vmap(lambda k: spec.shard.uniform(k, shape))(keys)
    bars = Bar(now, after, steps, market[:-1], market[1:], uniforms)
    ground = Ground(path_terms(tape, paths), jnp.expand_dims(~clean, -1))
    lanes = env.restart(start.lanes, broken_before)
    network = agent.network(params)
    told: list[Any] = []  # how the figures of a step are arranged, which tracing one tells

    def play(lanes: State, bar: Bar) -> tuple[State, tuple[Transition, jax.Array]]:
        lanes, kept, figures = play_bar(spec, network, ground, gamma, lanes, bar)
        told[:] = [jax.tree.structure(figures)]
        return lanes, (kept, _lane_sums(figures, shape))

    lanes, (transitions, figures) = jax.lax.scan(play, lanes, bars)
    metrics, counts = jax.tree.unflatten(told[0], list(figures.T))  # (T,) each
    _, last_value = agent.decide(params, market[-1], env.observe(lanes, end))
    counts = jax.tree.map(jnp.sum, counts)
    counts["broken_accounts"] += broken_before.astype(jnp.float32).sum()
    metrics = _over_steps(metrics, math.prod(shape), spec.shard) | spec.shard.sum(counts)
    rollout = Rollout(transitions, last_value, clean)
    check_fields(rollout)
    return lanes, rollout, metrics
