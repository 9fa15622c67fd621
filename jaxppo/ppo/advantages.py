"""Advantage estimators: of the sampled action along its episode, and of every action one step ahead."""

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


def counterfactual(
    reward: jax.Array, next_value: jax.Array, terminated: jax.Array, probability: jax.Array, gamma: jax.Array | float
) -> jax.Array:
    """Advantage of every action at a state, A(a) = q(a) - sum_b pi(b) q(b), with q(a) = r(a) + gamma V(next of a).

    The market does not react, so the reward and the next account of each action are known, not estimated. An action
    that ends in ruin has no future: its q is r alone. All-action policy gradients: Allen et al. (2017), "Mean
    Actor-Critic"; Ciosek and Whiteson (2018), "Expected Policy Gradients".

    Args:
      reward: (K, ...) of each action.
      next_value: (K, ...) value of the state that each action leads to.
      terminated: (K, ...) bool.
      probability: (K, ...) of each action under the policy that acts; 0 where it is masked.
      gamma: discount.

    Returns:
      (K, ...); its mean under `probability` is 0.
    """
    q = reward + gamma * next_value * (~terminated).astype(next_value.dtype)
    return q - jnp.sum(probability * q, axis=0, keepdims=True)
