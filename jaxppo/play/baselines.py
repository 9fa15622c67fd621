"""Baselines at the same costs, next to which a policy's figures are read."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxppo.market.tape import Costs
from jaxppo.play.curve import TradeSums


def buy_and_hold(
    open_: jax.Array, close: jax.Array, valid: jax.Array, costs: Costs, paid: jax.Array | None = None
) -> jax.Array:
    """Equity of buying with all cash at the first open, holding, and selling at the last close, costs paid.

    Args:
      open_, close: (N, S) of the bars after each decision, padded bars last.
      valid: (N, S) bool.
      costs: (S,).
      paid: (N, S) dividends of a unit so far, which stay cash; None for none.

    Returns:
      (N, S) equity from a start of 1; padded bars repeat the last.
    """
    units = 1.0 / (open_[0] * (1.0 + costs.impact) * (1.0 + costs.fee))
    last = jnp.sum(valid, axis=0, dtype=jnp.int32) - 1
    bar = jnp.arange(open_.shape[0], dtype=jnp.int32).reshape(-1, 1)
    held = jnp.expand_dims(units, 0) * close
    sold = held * jnp.expand_dims((1.0 - costs.impact) * (1.0 - costs.fee), 0)
    if paid is not None:
        cash = jnp.expand_dims(units, 0) * paid
        held, sold = held + cash, sold + cash
    at_end = jnp.take_along_axis(sold, jnp.expand_dims(jnp.maximum(last, 0), 0), axis=0)
    return jnp.where(bar < jnp.expand_dims(last, 0), held, at_end)


def hold_sums(profit: jax.Array, bars: jax.Array, side: jax.Array) -> TradeSums:
    """Sums of buy-and-hold: one trade, all equity bought and sold once, always invested; none of a symbol without bars.

    Args:
      profit: net return of each account, any shape.
      bars: decisions of each, same shape.
      side: what a fill costs (fee and impact), as a fraction of its notional, same shape.
    """
    held = bars > 0
    some, n = held.astype(profit.dtype), jnp.maximum(bars, 1).astype(profit.dtype)
    made = jnp.where(held, profit, 0.0)
    return TradeSums(
        gains=jnp.maximum(made, 0.0),
        losses=jnp.minimum(made, 0.0),
        trades=held.astype(jnp.int32),
        wins=(made > 0).astype(jnp.int32),
        losers=(made < 0).astype(jnp.int32),
        turnover=2.0 * some / n,
        exposure=some,
        costs=2.0 * some * side / n,
    )


def shifts_between_trades(units: jax.Array, order_units: jax.Array, valid: jax.Array, share: jax.Array) -> jax.Array:
    """Shifts in time that cut no trade in two: (D, S) int32 in [0, decisions of the symbol).

    A draw shifts all symbols by the same share of their history, each on to the next bar on which no position is
    carried over (to the last one before, where there is none after), so that what symbols did together stays together.
    A position that was held from beginning to end leaves a shift of 0 alone.

    Args:
      units: (N, S) at the closes.
      order_units: (N, S) filled at the opens.
      valid: (N, S) bool, padded bars last.
      share: (D,) in [0, 1).
    """
    n = valid.shape[0]
    before = jnp.concatenate([jnp.zeros_like(units[:1]), units[:-1]])
    free = valid & (before * (before + order_units) <= 0)
    bar = jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32).reshape(-1, 1), free.shape)
    following = jax.lax.cummin(jnp.where(free, bar, n), axis=0, reverse=True)
    earlier = jax.lax.cummax(jnp.where(free, bar, 0), axis=0)
    most = valid.sum(0, dtype=jnp.int32, keepdims=True) - 1  # (1, S)
    at = 1 + jnp.floor(jnp.expand_dims(share, -1) * most.astype(share.dtype)).astype(jnp.int32)
    at = jnp.clip(at, 0, jnp.maximum(most, 0))  # (D, S)
    ahead = jnp.take_along_axis(following, at, axis=0)
    return jnp.where(ahead < n, ahead, jnp.take_along_axis(earlier, at, axis=0))
