"""Formulas of figures: pure JAX over the last axis, so they vmap over anything.

Curves may be padded: `valid` says which bars count.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

CONSISTENCY_BLOCKS = 10


class Moments(NamedTuple):
    """Count and central moments of the valid entries; shapes without the last axis."""

    n: jax.Array
    mean: jax.Array
    m2: jax.Array
    m3: jax.Array
    m4: jax.Array


def moments(x: jax.Array, valid: jax.Array) -> Moments:
    """Moments of `x` (..., T) where `valid` (..., T)."""
    weight = valid.astype(x.dtype)
    count = weight.sum(-1)
    safe = jnp.maximum(count, 1.0)
    mean = (x * weight).sum(-1) / safe
    d = (x - jnp.expand_dims(mean, -1)) * weight
    return Moments(count, mean, (d**2).sum(-1) / safe, (d**3).sum(-1) / safe, (d**4).sum(-1) / safe)


def sharpe(m: Moments, bars_per_year: jax.Array) -> jax.Array:
    """mean / std (ddof 1) * sqrt(bars a year); 0 for a curve that does not move."""
    variance = m.m2 * m.n / jnp.maximum(m.n - 1.0, 1.0)
    moving = variance > 0
    ratio = m.mean / jnp.sqrt(jnp.where(moving, variance, 1.0)) * jnp.sqrt(bars_per_year)
    return jnp.where(moving, ratio, 0.0)


def sortino(m: Moments, returns: jax.Array, valid: jax.Array, bars_per_year: jax.Array) -> jax.Array:
    """mean / sqrt(mean(min(r, 0)^2)) * sqrt(bars a year); inf for gains without a losing bar, 0 for no moves.

    `m` are the moments of the `returns` (..., T).
    """
    down = moments(jnp.square(jnp.minimum(returns, 0.0)), valid).mean
    ratio = m.mean / jnp.sqrt(jnp.where(down > 0, down, 1.0)) * jnp.sqrt(bars_per_year)
    return jnp.where(down > 0, ratio, jnp.where(m.mean > 0, jnp.inf, 0.0))


def skewness(m: Moments) -> jax.Array:
    """Bias-corrected sample skewness G1 (scipy's `bias=False`); nan below 3 bars or for no moves."""
    n = m.n
    defined = (n > 2) & (m.m2 > 0)
    g1 = m.m3 / jnp.where(defined, m.m2, 1.0) ** 1.5
    correction = jnp.sqrt(n * jnp.maximum(n - 1.0, 0.0)) / jnp.maximum(n - 2.0, 1.0)
    return jnp.where(defined, correction * g1, jnp.nan)


def kurtosis(m: Moments) -> jax.Array:
    """Bias-corrected excess kurtosis G2 (scipy's `bias=False`); nan below 4 bars or for no moves."""
    n = m.n
    defined = (n > 3) & (m.m2 > 0)
    g2 = m.m4 / jnp.where(defined, m.m2, 1.0) ** 2 - 3.0
    scale = (n - 1.0) / jnp.maximum((n - 2.0) * (n - 3.0), 1.0)
    return jnp.where(defined, scale * ((n + 1.0) * g2 + 6.0), jnp.nan)


def max_drawdown(equity: jax.Array, start: jax.Array) -> jax.Array:
    """Largest 1 - equity / peak, in [0, 1]; the start counts as a peak. `equity` (..., T), `start` (...)."""
    peak = jnp.maximum(jax.lax.cummax(equity, axis=equity.ndim - 1), jnp.expand_dims(start, -1))
    return jnp.clip((1.0 - equity / peak).max(-1), 0.0, 1.0)


def consistency(log_returns: jax.Array, valid: jax.Array, blocks: int = CONSISTENCY_BLOCKS) -> jax.Array:
    """Share of equal time blocks with a positive net return; (..., T) to (...). Valid bars must come first."""
    n = valid.sum(-1, keepdims=True, dtype=jnp.int32)
    bar = jnp.arange(log_returns.shape[-1], dtype=jnp.int32)
    bar = bar.reshape((1,) * (log_returns.ndim - 1) + (-1,))
    block = bar * blocks // jnp.maximum(n, 1)
    used = jnp.where(valid, log_returns, 0.0)
    # One reduction, not one a block: it is in every program that validates, and takes half as long to compile.
    each = jnp.arange(blocks, dtype=jnp.int32).reshape((1,) * (log_returns.ndim - 1) + (-1, 1))
    sums = jnp.where(jnp.expand_dims(block, -2) == each, jnp.expand_dims(used, -2), 0.0).sum(-1)
    present = jnp.minimum(n[..., 0], blocks)
    return (sums > 0).sum(-1).astype(log_returns.dtype) / jnp.maximum(present, 1).astype(log_returns.dtype)


def profit_factor(gains: jax.Array, losses: jax.Array, trades: jax.Array) -> jax.Array:
    """Sum of gains / |sum of losses| of closed trades; inf for gains without losses, nan without trades or money.

    Args:
      gains: sum of the trades' net gains.
      losses: sum of their net losses, <= 0.
      trades: number of closed trades.
    """
    ratio = gains / jnp.where(losses < 0, -losses, 1.0)
    without_loss = jnp.where(gains > 0, jnp.inf, jnp.nan)
    return jnp.where(trades > 0, jnp.where(losses < 0, ratio, without_loss), jnp.nan)


def tail_losses(returns: jax.Array, valid: jax.Array, share: float = 0.05) -> tuple[jax.Array, jax.Array]:
    """Value at risk and its conditional mean, per bar, as positive losses; (..., T) to two (...).

    Of n valid bars the k = max(1, ceil(share n)) lowest count: VaR is the loss of the k-th, CVaR the mean of the k, so
    that CVaR >= VaR always. nan where no bar is valid.
    """
    n = valid.sum(-1, keepdims=True, dtype=jnp.int32)
    ordered = jnp.sort(jnp.where(valid, returns, jnp.inf), axis=-1)
    # Less 1e-4: float32 rounds .05 n to just above a whole number where n is a multiple of 20, and the ceiling adds 1.
    k = jnp.maximum(jnp.ceil(share * n.astype(returns.dtype) - 1e-4), 1.0).astype(jnp.int32)
    bar = jnp.arange(returns.shape[-1], dtype=jnp.int32).reshape((1,) * (returns.ndim - 1) + (-1,))
    mean = jnp.where(bar < k, ordered, 0.0).sum(-1) / k[..., 0].astype(returns.dtype)
    some = n[..., 0] > 0
    at = jnp.take_along_axis(ordered, k - 1, axis=-1)[..., 0]
    # 0 - x, since -x of no loss would read -0.
    return jnp.where(some, 0.0 - at, jnp.nan), jnp.where(some, 0.0 - mean, jnp.nan)


def net_returns(equity: jax.Array, start: jax.Array, valid: jax.Array) -> jax.Array:
    """Returns a bar of equity curves (..., T) from `start` (...), 0 where `valid` (..., T) is not.

    An account that lost everything returns nothing from there on.
    """
    before = jnp.concatenate([jnp.expand_dims(start, -1), equity[..., :-1]], -1)
    owned = before > 0
    return jnp.where(valid & owned, equity / jnp.where(owned, before, 1.0) - 1.0, 0.0)
