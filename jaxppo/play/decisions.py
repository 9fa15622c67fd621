"""Single decisions looked at again: what the policy was shown, and what it made of it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.agent.policy import Agent, Distribution, Params, distribution
from jaxppo.env.actions import action_mask
from jaxppo.env.trading import EXPOSURE, EnvSpec
from jaxppo.market.tape import Tape, take_windows
from jaxppo.play.passes import decision_bars, symbol_rows


def decide_on(
    agent: Agent, spec: EnvSpec, params: Params, windows: jax.Array, observation: jax.Array, allow_short: jax.Array
) -> Distribution:
    """What a policy does with D windows of features and account vectors, in the functions that it is played with.

    Args:
      agent, spec, params: the policy, or an ensemble.
      windows: (D, R, F) features of the bars that the encoder sees.
      observation: (D, A) account vectors.
      allow_short: (D,) bool.

    Returns:
      Over the K actions, (D, K).
    """
    market = agent.encode(params, windows)[:, -1]  # (D, H), or (D, M, H)
    mask = action_mask(spec.actions, observation[:, EXPOSURE], allow_short)
    found, _ = agent.act(params, market, jnp.expand_dims(observation, 1), jnp.expand_dims(mask, 1))
    return Distribution(found.log_probs[:, 0])


def look_again(
    agent: Agent,
    spec: EnvSpec,
    params: Params,
    tape: Tape,
    symbol: jax.Array,
    bar: jax.Array,
    observation: jax.Array,
    receptive_field: int,
) -> Distribution:
    """What a policy said at D decisions: (D, K). `symbol` and `bar` (D,) int32, the latter a decision's on the Tape."""
    windows = take_windows(tape, symbol, bar - (receptive_field - 1), receptive_field)
    return decide_on(agent, spec, params, windows, observation, tape.allow_short[symbol])


class Said(NamedTuple):
    """What a policy said at every decision of a split."""

    log_probs: jax.Array  # (N, S, K)
    allowed: jax.Array  # (N, S) int32: actions that were allowed
    agreeing: jax.Array | None  # (N, S) int32: members of an ensemble whose own most probable action is the ensemble's


def what_was_said(
    agent: Agent,
    spec: EnvSpec,
    params: Params,
    tape: Tape,
    observation: jax.Array,
    n_bars: int,
    receptive_field: int,
) -> Said:
    """What a policy said at every decision, from the account vectors (N, S, A) that it was taken on."""
    t, _ = decision_bars(tape, n_bars)
    symbol = symbol_rows(t)
    mask = action_mask(spec.actions, observation[..., EXPOSURE], jnp.expand_dims(tape.allow_short, 0))  # (N, S, K)
    row = jnp.clip(t - (receptive_field - 1), 0)
    market = agent.encode(params, tape.features)[symbol, row]  # (N, S, H), or (N, S, M, H)
    observed = jnp.expand_dims(observation, -2)
    found, _ = agent.act(params, market, observed, jnp.expand_dims(mask, -2))
    policy = Distribution(found.log_probs[..., 0, :])
    agreeing = None
    if params.ndim == 2:

        def choice(of: tuple[jax.Array, jax.Array]) -> jax.Array:
            logits, _ = agent.decide(of[0], of[1], observed)
            return distribution(logits[..., 0, :], mask).mode()

        each = jax.lax.map(choice, (params, jnp.moveaxis(market, -2, 0)))  # (M, N, S)
        agreeing = (each == jnp.expand_dims(policy.mode(), 0)).sum(0, dtype=jnp.int32)
    return Said(policy.log_probs, mask.sum(-1, dtype=jnp.int32), agreeing)


def percentiles(features: np.ndarray, seen: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Where values (D, F) lie among those of all decisions, 0 to 100 (D, F); of equal ones half count as below.

    Args:
      features: (S, T, F).
      seen: (S, T) bool, the decision bars.
      values: of D decisions.
    """
    below = np.zeros(values.shape)
    for rows, there in zip(features, seen, strict=True):
        own = rows[there]
        for i, value in enumerate(values):
            below[i] += (own < value).sum(0) + 0.5 * (own == value).sum(0)
    return 100.0 * below / max(int(seen.sum()), 1)
