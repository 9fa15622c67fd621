"""Baselines at the same costs, next to which a policy's figures are read."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxppo.env.actions import ActionTable, target_exposure
from jaxppo.market.tape import Costs


def buy_and_hold(open_: jax.Array, close: jax.Array, valid: jax.Array, costs: Costs) -> jax.Array:
    """Equity of buying with all cash at the first open, holding, and selling at the last close, costs paid.

    Args:
      open_, close: (N, S) of the bars after each decision, padded bars last.
      valid: (N, S) bool.
      costs: (S,).

    Returns:
      (N, S) equity from a start of 1; padded bars repeat the last.
    """
    units = 1.0 / (open_[0] * (1.0 + costs.impact) * (1.0 + costs.fee))
    last = jnp.sum(valid, axis=0, dtype=jnp.int32) - 1
    bar = jnp.arange(open_.shape[0], dtype=jnp.int32).reshape(-1, 1)
    held = jnp.expand_dims(units, 0) * close
    sold = held * jnp.expand_dims((1.0 - costs.impact) * (1.0 - costs.fee), 0)
    at_end = jnp.take_along_axis(sold, jnp.expand_dims(jnp.maximum(last, 0), 0), axis=0)
    return jnp.where(bar < jnp.expand_dims(last, 0), held, at_end)


def trend_sign(close: jax.Array, t: jax.Array, lookback: int) -> jax.Array:
    """Sign of the return over the last `lookback` closes, or as many as there are.

    Args:
      close: (S, T).
      t: (N, S) int32 decision bars; nothing after them is looked at.
      lookback: bars.

    Returns:
      (N, S) in {-1, 0, 1}, of the dtype of `close`.
    """
    symbol = jnp.broadcast_to(jnp.arange(close.shape[0], dtype=jnp.int32), t.shape)
    return jnp.sign(close[symbol, t] - close[symbol, jnp.maximum(t - lookback, 0)])


def toward_exposure(
    table: ActionTable, wanted: jax.Array, exposure: jax.Array, allow_short: jax.Array, max_exposure: float
) -> jax.Array:
    """The action that leads nearest to an exposure; of equals the first, which is `hold` where there is one.

    Args:
      table: the action table.
      wanted: target exposure, any shape; shorts become 0 where none are allowed.
      exposure: current exposure, same shape.
      allow_short: bool, broadcastable with `exposure`.
      max_exposure: of the environment.

    Returns:
      int32 actions, shape of `exposure`.
    """
    held, short = jnp.expand_dims(exposure, -1), jnp.expand_dims(allow_short, -1)
    actions = jnp.arange(table.n_actions, dtype=jnp.int32).reshape((1,) * exposure.ndim + (-1,))
    target, keep = target_exposure(table, actions, held, short, max_exposure)
    wanted = jnp.expand_dims(jnp.where(allow_short, wanted, jnp.maximum(wanted, 0.0)), -1)
    return jnp.argmin(jnp.abs(jnp.where(keep, held, target) - wanted), axis=-1).astype(jnp.int32)


def circular_shifts(key: jax.Array, decisions: jax.Array, draws: int) -> jax.Array:
    """Shifts in time by 1 to n - 1 of n decisions, one a symbol and draw: (S,) int32 to (S, draws) int32."""
    shape = (decisions.shape[0], draws)
    most = jnp.broadcast_to(jnp.expand_dims(jnp.maximum(decisions, 2), -1), shape)
    return jax.random.randint(key, shape, 1, most)
