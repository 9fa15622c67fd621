"""Rollouts over paths and lanes: the market is encoded once per path, a step adds the accounts."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxppo.agent.policy import Agent, Distribution, Params, distribution
from jaxppo.env.account import AccountState
from jaxppo.env.rewards import saturation_bound
from jaxppo.env.trading import EnvSpec, StepResult, observe_account, step_account
from jaxppo.market.tape import (
    Costs,
    MarketStep,
    Tape,
    consecutive_bars,
    draw_starts,
    start_counts,
    take_steps,
    take_windows,
)
from jaxppo.ppo.advantages import counterfactual
from jaxppo.ppo.guard import broken_accounts, restart_accounts
from jaxppo.ppo.loss import path_mask


class PathState(NamedTuple):
    """Where P paths are on the Tape."""

    symbol: jax.Array  # (P,) int32
    t: jax.Array  # (P,) int32: next decision bar
    age: jax.Array  # (P,) int32: bars since the episode began


class EveryAction(NamedTuple):
    """What is known of every action at one step, the one that was taken among them."""

    log_prob: jax.Array  # (P, L, K)
    advantage: jax.Array  # (P, L, K)


class Transition(NamedTuple):
    """One step, as the agent saw it. A rollout stacks T of them.

    49 bytes with 8 account features, and 8 more an action where every action is looked at: 73 with 3 actions.
    """

    account: jax.Array  # (P, L, A) account vectors
    action: jax.Array  # (P, L) int32
    log_prob: jax.Array  # (P, L)
    value: jax.Array  # (P, L)
    reward: jax.Array  # (P, L)
    terminated: jax.Array  # (P, L) bool
    every: EveryAction | None = None  # where advantages are counterfactual


class Rollout(NamedTuple):
    """T steps of P paths x L lanes."""

    steps: Transition  # fields (T, P, L, ...)
    last_value: jax.Array  # (P, L): value of the state after the last step
    clean: jax.Array  # (P,) bool: all features that the path saw are finite


def start_paths(tape: Tape, key: jax.Array, n_paths: int, n_steps: int, episode_steps: int) -> PathState:
    """Fresh paths; their ages are spread over the episode so that they do not all end in the same update."""
    place, ages = jax.random.split(key)
    symbol, t = draw_starts(tape, place, n_paths, n_steps)
    age = n_steps * jax.random.randint(ages, (n_paths,), 0, episode_steps // n_steps)
    return PathState(symbol, t, age)


def advance_paths(
    tape: Tape, paths: PathState, key: jax.Array, n_steps: int, episode_steps: int
) -> tuple[PathState, jax.Array]:
    """Move paths on by a rollout; those at the end of their episode or of their data start anew.

    Returns:
      The paths, and a (P,) bool that is true where a new episode begins.
    """
    moved = PathState(paths.symbol, paths.t + n_steps, paths.age + n_steps)
    last_start = tape.first[moved.symbol] + start_counts(tape, n_steps)[moved.symbol] - 1
    ended = (moved.age >= episode_steps) | (moved.t > last_start)
    symbol, t = draw_starts(tape, key, moved.t.shape[0], n_steps)
    fresh = PathState(symbol, t, jnp.zeros_like(moved.age))
    return jax.tree.map(lambda new, old: jnp.where(ended, new, old), fresh, moved), ended


@jax.named_scope("look_up")
def path_windows(tape: Tape, paths: PathState, receptive_field: int, n_bars: int) -> jax.Array:
    """Features that encode `n_bars` decisions of each path: (P, R - 1 + n_bars, F)."""
    return take_windows(tape, paths.symbol, paths.t - (receptive_field - 1), receptive_field - 1 + n_bars)


def _path_steps(tape: Tape, paths: PathState, n_steps: int) -> tuple[MarketStep, jax.Array]:
    """Market steps (T, P, 1) and decision closes (T + 1, P, 1) of a rollout."""
    bars = consecutive_bars(paths.t, n_steps + 1)
    symbol = jnp.broadcast_to(paths.symbol, bars.shape)
    steps = take_steps(tape, symbol[:-1], bars[:-1])
    closes = tape.close[symbol, bars]
    return jax.tree.map(lambda x: jnp.expand_dims(x, -1), steps), jnp.expand_dims(closes, -1)


def _step_metrics(result: StepResult, spec: EnvSpec, action: jax.Array) -> dict[str, jax.Array]:
    """Scalars of one step over all environments: means that the update averages on."""
    record = result.record
    metrics = {
        "reward_mean": result.reward.mean(),
        "train_trade_rate": (record.order_units != 0).astype(jnp.float32).mean(),
        "train_ruin_rate": record.ruined.astype(jnp.float32).mean(),
    }
    weighted = {n: spec.reward.weights[n] * jnp.abs(c).mean() for n, c in result.components.items()}
    total = sum(jnp.abs(w) for w in weighted.values())
    for name, component in result.components.items():
        metrics[f"reward_{name}_mean"] = component.mean()
        metrics[f"reward_{name}_share"] = jnp.abs(weighted[name]) / jnp.maximum(total, 1e-12)
        bound = saturation_bound(name, spec.reward)
        full = jnp.abs(component) >= 0.99 * bound
        metrics[f"reward_{name}_saturation"] = (
            full.astype(jnp.float32).mean() if math.isfinite(bound) else jnp.zeros(())
        )
    for index, label in enumerate(spec.actions.labels):
        metrics[f"action_share_{label}"] = (action == index).astype(jnp.float32).mean()
    return metrics


def every_action(
    agent: Agent,
    spec: EnvSpec,
    params: Params,
    accounts: AccountState,
    step: MarketStep,
    costs: Costs,
    allow_short: jax.Array,
    next_market: jax.Array,
    policy: Distribution,
    gamma: jax.Array,
) -> EveryAction:
    """Take every action from every account, and value the account that each leads to.

    Args:
      agent, spec, params: what decides, where.
      accounts: (P, L).
      step, costs, allow_short: of the bar to come, (P, 1).
      next_market: (P, H) encoded market at the close of that bar.
      policy: at this close, (P, L, K).
      gamma: discount.
    """
    n = spec.actions.n_actions
    # K leads, so that each action's accounts lie together: the last axis stays the lanes.
    lead = partial(jax.tree.map, lambda x: jnp.expand_dims(x, 0))
    action = jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32).reshape(n, 1, 1), (n, *accounts.equity.shape))
    held = jax.tree.map(lambda x: jnp.broadcast_to(x, action.shape), lead(accounts))
    entropy = jnp.expand_dims(policy.entropy() / math.log(n), 0)
    market = lead(step)
    after, result = step_account(held, action, market, lead(costs), lead(allow_short), spec, entropy)
    _, value = agent.decide(params, lead(next_market), observe_account(after, market.close, spec.config))
    probability = jnp.moveaxis(jnp.exp(policy.log_probs), -1, 0)
    advantage = counterfactual(result.reward, value, result.record.ruined, probability, gamma)
    return EveryAction(policy.log_probs, jnp.moveaxis(advantage, 0, -1))


@jax.named_scope("rollout")
def collect(
    agent: Agent,
    spec: EnvSpec,
    params: Params,
    tape: Tape,
    paths: PathState,
    accounts: AccountState,
    key: jax.Array,
    n_steps: int,
    receptive_field: int,
    counterfactual_gamma: jax.Array | None = None,
) -> tuple[AccountState, Rollout, dict[str, jax.Array]]:
    """Play `n_steps` bars on every path with every lane.

    Args:
      agent, spec, params, tape: what plays where.
      paths: (P,) positions.
      accounts: (P, L) accounts at the close of each path's decision bar.
      key: of this update; draws are indexed by (step, env), whatever device computes them.
      n_steps, receptive_field: static sizes.
      counterfactual_gamma: discount of counterfactual advantages; None where there are none.

    Returns:
      The accounts after the last bar (ruined lanes restarted), the rollout, and scalar metrics. A step whose reward,
      account or features are not finite is bad: it ends its episode with the reward that its value expected, so that
      advantage and value error are 0, and a broken account is restarted.
    """
    windows = path_windows(tape, paths, receptive_field, n_steps + 1)
    finite = jnp.isfinite(windows)
    clean = finite.all(axis=(1, 2))
    unclean = jnp.expand_dims(~clean, -1)
    market = agent.encode(params, jnp.where(finite, windows, 0.0))
    market = jnp.swapaxes(market, 0, 1)  # (T + 1, P, H)
    steps, closes = _path_steps(tape, paths, n_steps)
    allow_short = tape.allow_short[paths.symbol]
    costs = jax.tree.map(lambda c: jnp.expand_dims(c[paths.symbol], -1), tape.costs)
    log_n_actions = math.log(spec.actions.n_actions)

    def play(
        accounts: AccountState, x: tuple[MarketStep, jax.Array, jax.Array, jax.Array, jax.Array]
    ) -> tuple[AccountState, tuple[Transition, dict[str, jax.Array], dict[str, jax.Array]]]:
        step, close, encoded, next_encoded, uniform = x
        vector = observe_account(accounts, close, spec.config)
        logits, value = agent.decide(params, encoded, vector)
        policy = distribution(logits, path_mask(spec.actions, vector, allow_short))
        action = policy.sample(uniform)
        entropy = policy.entropy() / log_n_actions
        after, result = step_account(accounts, action, step, costs, jnp.expand_dims(allow_short, -1), spec, entropy)
        broken = broken_accounts(after)
        bad = broken | unclean | ~jnp.isfinite(result.reward)
        result = result._replace(
            reward=jnp.where(bad, 0.0, result.reward),
            components=jax.tree.map(lambda c: jnp.where(bad, 0.0, c), result.components),
        )
        ended = result.record.ruined | broken
        every = None
        if counterfactual_gamma is not None:
            every = every_action(
                agent,
                spec,
                params,
                accounts,
                step,
                costs,
                jnp.expand_dims(allow_short, -1),
                next_encoded,
                policy,
                counterfactual_gamma,
            )
            known = ~bad & jnp.isfinite(every.advantage).all(-1)
            every = every._replace(advantage=jnp.where(jnp.expand_dims(known, -1), every.advantage, 0.0))
        reward = jnp.where(bad, value, result.reward)
        kept = Transition(vector, action, policy.log_prob(action), value, reward, ended | bad, every)
        counts = {"bad_samples": bad, "broken_accounts": broken}
        counts = jax.tree.map(lambda x: x.astype(jnp.float32).sum(), counts)
        return restart_accounts(after, ended), (kept, _step_metrics(result, spec, action), counts)

    # All at once, 4 bytes a step: a draw inside the loop is as many small kernels again as the account.
    keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(jnp.arange(n_steps))
    uniforms = jax.vmap(lambda k: jax.random.uniform(k, accounts.equity.shape))(keys)
    xs = (steps, closes[:-1], market[:-1], market[1:], uniforms)
    broken_before = broken_accounts(accounts)
    accounts = restart_accounts(accounts, broken_before)
    accounts, (transitions, metrics, counts) = jax.lax.scan(play, accounts, xs)
    last_vector = observe_account(accounts, closes[-1], spec.config)
    _, last_value = agent.decide(params, market[-1], last_vector)
    metrics = jax.tree.map(jnp.mean, metrics) | jax.tree.map(jnp.sum, counts)
    metrics["broken_accounts"] += broken_before.astype(jnp.float32).sum()
    return accounts, Rollout(transitions, last_value, clean), metrics
