"""Baselines at the same costs, next to which a policy's figures are read."""

from __future__ import annotations

import jax
import jax.numpy as jnp

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
    last = jnp.sum(valid.astype(jnp.int32), axis=0) - 1
    bar = jnp.arange(open_.shape[0], dtype=jnp.int32).reshape(-1, 1)
    held = jnp.expand_dims(units, 0) * close
    sold = held * jnp.expand_dims((1.0 - costs.impact) * (1.0 - costs.fee), 0)
    at_end = jnp.take_along_axis(sold, jnp.expand_dims(jnp.maximum(last, 0), 0), axis=0)
    return jnp.where(bar < jnp.expand_dims(last, 0), held, at_end)
