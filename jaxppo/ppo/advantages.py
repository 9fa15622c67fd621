"""Advantage estimators."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def gae(
    reward: jax.Array,
    value: jax.Array,
    next_value: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    gamma: jax.Array | float,
    lam: jax.Array | float,
) -> tuple[jax.Array, jax.Array]:
    """Generalized advantage estimation (Schulman et al. 2016), termination and truncation told apart.

    A termination has no future: nothing is bootstrapped. A truncation has one that was not seen: `next_value` is
    bootstrapped, but the sum of deltas stops there.

    Args:
      reward: (T, ...) reward of step t.
      value: (T, ...) value of the state that step t left.
      next_value: (T, ...) value of the state that step t reached, before any reset.
      terminated: (T, ...) bool.
      truncated: (T, ...) bool.
      gamma: discount.
      lam: lambda.

    Returns:
      Advantages and lambda-returns, (T, ...) each.
    """
    alive = (~terminated).astype(value.dtype)
    goes_on = (~(terminated | truncated)).astype(value.dtype)
    delta = reward + gamma * next_value * alive - value

    def back(following: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        d, go = step
        advantage = d + gamma * lam * go * following
        return advantage, advantage

    _, advantage = jax.lax.scan(back, jnp.zeros_like(value[0]), (delta, goes_on), reverse=True)
    return advantage, advantage + value
