"""Schedules over PPO updates: warm-up then cosine for the step size, lines for the entropy and for training's costs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

WARMUP_SHARE = 0.05
WARMUP_FACTOR = 0.1
FINAL_FACTOR = 0.01


def _cosine(steps: int) -> optax.Schedule:
    """1 to FINAL_FACTOR over `steps`: optax's cosine decay, with (1 + cos x) / 2 written as sin((pi - x) / 2)^2.

    In float32 the sum cancels near x = pi: at N = 1000 the last step sizes were 1.9e-6 off, relative. The steps that
    are left are a small integer there, so their sine keeps all its digits.
    """

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        left = jnp.maximum(steps - jnp.asarray(count, float), 0.0)
        return FINAL_FACTOR + (1.0 - FINAL_FACTOR) * jnp.square(jnp.sin(0.5 * jnp.pi * left / steps))

    return schedule


def warmup_cosine(n_updates: int) -> optax.Schedule:
    """Step size as a fraction of its peak, by the index k of the PPO update.

    With N updates, W = max(1, int(.05 N)) and M = max(1, N - W): 0.1 + 0.9 k / W below W, then
    0.01 + 0.99 (1 + cos(pi (k - W) / M)) / 2. Equals PyTorch's LinearLR and CosineAnnealingLR under SequentialLR.

    Args:
      n_updates: N.

    Returns:
      An optax schedule of the update index.
    """
    warmup = max(1, int(WARMUP_SHARE * n_updates))
    cosine = max(1, n_updates - warmup)
    joined = optax.join_schedules(
        [
            optax.linear_schedule(WARMUP_FACTOR, 1.0, warmup),
            _cosine(cosine),
        ],
        boundaries=[warmup],
    )

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        with jax.numpy_dtype_promotion("standard"):  # optax divides integer counts
            return jnp.asarray(joined(count))

    return schedule


def per_gradient_step(schedule: optax.Schedule, gradient_steps: int) -> optax.Schedule:
    """`schedule` of the PPO update, read on an optimizer's count of `gradient_steps` steps an update."""
    return lambda count: schedule(count // gradient_steps)


def entropy_coefficient(
    update: jax.Array, n_updates: int, start: jax.Array, end: jax.Array, anneal: jax.Array
) -> jax.Array:
    """Linear from `start` to `end` over the first `anneal` share of the updates, then `end`. All float32 scalars."""
    progress = update.astype(jnp.float32) / jnp.maximum(anneal * n_updates, 1.0)
    return start + (end - start) * jnp.minimum(progress, 1.0)


def cost_share(update: jax.Array, n_updates: int, anneal: jax.Array) -> jax.Array:
    """What share of the costs of trading an update charges.

    Linear from 0 at the first update to 1 after the share `anneal` of the updates, at the last one at the latest. An
    untrained policy trades at random and pays for all of it, so at full costs it learns to stay flat before it learns
    where the bars go; here it learns that first, and then which of it is worth its costs.

    Args:
      update: () int32, from 0.
      n_updates: of the run.
      anneal: () float32 in [0, 1]; 0 charges everything from the first update on.

    Returns:
      () float32 in [0, 1].
    """
    rise = anneal * (n_updates - 1)  # updates
    return jnp.where(rise > 0, jnp.minimum(update.astype(jnp.float32) / jnp.maximum(rise, 1e-6), 1.0), 1.0)
