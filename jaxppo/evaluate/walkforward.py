"""Figures of one fold, and of the out-of-sample curves joined fold after fold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.env.account import StepRecord
from jaxppo.evaluate.baselines import buy_and_hold
from jaxppo.evaluate.metrics import Metrics, TradeSums, summarize
from jaxppo.evaluate.validate import decision_bars, decision_weight, trade_sums
from jaxppo.market.tape import Tape


class Pool(NamedTuple):
    """Joint calendar of a fold's range, padded to U times."""

    behind: jax.Array  # (S, U) int32: decisions a symbol has behind it at each time
    valid: jax.Array  # (U,) bool
    bars_per_year: jax.Array  # () float32


class Figures(NamedTuple):
    """Figures of one pass over one range."""

    symbols: Metrics  # (S,)
    pooled: Metrics  # ()
    symbol_hold: jax.Array  # (S,) net return of buy-and-hold
    sums: TradeSums  # (S,)
    benchmark: jax.Array  # (N, S) buy-and-hold equity
    pooled_equity: jax.Array  # (U,)
    pooled_benchmark: jax.Array  # (U,)


def pool_present(tape: Tape, pool: Pool, equity: jax.Array) -> jax.Array:
    """Mean equity (U,) of the symbols that decide at all; (N, S) to the joint calendar."""
    share = (tape.length - 1 > tape.first).astype(equity.dtype)
    with_start = jnp.concatenate([jnp.ones_like(equity[:1]), equity]).T  # (S, N + 1)
    curves = jnp.take_along_axis(with_start, pool.behind, axis=1)
    return (curves * jnp.expand_dims(share, -1)).sum(0) / jnp.maximum(share.sum(), 1.0)


def fold_figures(tape: Tape, pool: Pool, record: StepRecord, valid: jax.Array) -> Figures:
    """Measure a recorded pass (N, S), per symbol and pooled by equal money; symbols without decisions do not count."""
    t, _ = decision_bars(tape, valid.shape[0])
    symbol = jnp.broadcast_to(jnp.arange(tape.n_symbols, dtype=jnp.int32), t.shape)
    close = tape.close[symbol, t + 1]
    sums = trade_sums(record, close, valid)
    ones = jnp.ones(tape.n_symbols, record.equity.dtype)
    symbols = summarize(record.equity.T, ones, valid.T, tape.bars_per_year, sums)
    benchmark = buy_and_hold(tape.open[symbol, t + 1], close, valid, tape.costs)
    equity = pool_present(tape, pool, record.equity)
    weight = decision_weight(tape)
    total = TradeSums(
        sums.gains.sum(),
        sums.losses.sum(),
        sums.trades.sum(),
        sums.wins.sum(),
        (sums.turnover * tape.bars_per_year * weight).sum() / pool.bars_per_year,
        (sums.exposure * weight).sum(),
    )
    pooled = summarize(equity, jnp.ones((), equity.dtype), pool.valid, pool.bars_per_year, total)
    return Figures(symbols, pooled, benchmark[-1] - 1.0, sums, benchmark, equity, pool_present(tape, pool, benchmark))


def join_curves(curves: Sequence[np.ndarray]) -> np.ndarray:
    """Compound curves that start at 1 each, one after another: (U_k,) each to (sum U_k,) float64."""
    start, out = 1.0, []
    for curve in curves:
        out.append(start * curve.astype(np.float64))
        start = float(out[-1][-1])
    return np.concatenate(out)


def joined_metrics(equity: np.ndarray, folds: Metrics, sums: TradeSums, bars_per_year: float) -> Metrics:
    """Figures of a joined curve (U,).

    Args:
      equity: the joined curve.
      folds: pooled test metrics of the folds, (K,); turnover and exposure are their means by bars.
      sums: trades of all folds and symbols, (K, S), each in money per unit of equity at the start of its fold.
      bars_per_year: of the joined calendar.
    """
    weight = folds.bars / folds.bars.sum()
    total = TradeSums(
        sums.gains.sum(),
        sums.losses.sum(),
        sums.trades.sum(),
        sums.wins.sum(),
        (folds.turnover * weight).sum() / bars_per_year,
        (folds.exposure * weight).sum(),
    )
    curve = jnp.asarray(equity, jnp.float32)
    total = jax.tree.map(jnp.asarray, total)
    return summarize(curve, jnp.ones(()), jnp.ones(curve.shape, bool), jnp.float32(bars_per_year), total)
