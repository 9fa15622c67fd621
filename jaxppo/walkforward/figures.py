"""Figures of one fold, and of the out-of-sample curves joined fold after fold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.env.account import StepRecord
from jaxppo.market.dataset import SECONDS_PER_YEAR
from jaxppo.market.tape import Tape
from jaxppo.play.baselines import buy_and_hold
from jaxppo.play.formulas import moments
from jaxppo.play.metrics import Metrics, TradeSums, summarize
from jaxppo.play.passes import decision_bars, pooled_sums, trade_sums
from jaxppo.play.significance import Intervals, bootstrap, deflated_sharpe, probabilistic_sharpe

_SUM_TYPES = (np.float32, np.float32, np.int32, np.int32, np.float32, np.float32)


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


def _fills(tape: Tape, n: int) -> tuple[jax.Array, jax.Array]:
    """Open and close (N, S) of the bar after each decision."""
    t, _ = decision_bars(tape, n)
    symbol = jnp.broadcast_to(jnp.arange(tape.n_symbols, dtype=jnp.int32), t.shape)
    return tape.open[symbol, t + 1], tape.close[symbol, t + 1]


def _pooled(tape: Tape, pool: Pool, equity: jax.Array, sums: TradeSums) -> tuple[Metrics, jax.Array]:
    curve, total = pool_present(tape, pool, equity), pooled_sums(tape, sums, pool.bars_per_year)
    return summarize(curve, jnp.ones((), curve.dtype), pool.valid, pool.bars_per_year, total), curve


def pooled_figures(tape: Tape, pool: Pool, record: StepRecord, valid: jax.Array) -> Metrics:
    """Figures () of a recorded pass (N, S), pooled by equal money; symbols without decisions do not count."""
    _, close = _fills(tape, valid.shape[0])
    return _pooled(tape, pool, record.equity, trade_sums(record, close, valid))[0]


def fold_figures(tape: Tape, pool: Pool, record: StepRecord, valid: jax.Array) -> Figures:
    """`pooled_figures`, those of each symbol, and buy-and-hold."""
    open_, close = _fills(tape, valid.shape[0])
    sums = trade_sums(record, close, valid)
    ones = jnp.ones(tape.n_symbols, record.equity.dtype)
    symbols = summarize(record.equity.T, ones, valid.T, tape.bars_per_year, sums)
    benchmark = buy_and_hold(open_, close, valid, tape.costs)
    pooled, equity = _pooled(tape, pool, record.equity, sums)
    return Figures(symbols, pooled, benchmark[-1] - 1.0, sums, benchmark, equity, pool_present(tape, pool, benchmark))


def join_curves(curves: Sequence[np.ndarray]) -> np.ndarray:
    """Compound curves that start at 1 each, one after another: (U_k,) each to (sum U_k,) float64."""
    start, out = 1.0, []
    for curve in curves:
        out.append(start * curve.astype(np.float64))
        start = float(out[-1][-1])
    return np.concatenate(out)


def joined_bars_per_year(time: np.ndarray, own: np.ndarray) -> float:
    """Bars a year of a joined calendar: a lone symbol's own, else the bars over the years that they span.

    Args:
      time: (U,) int64 UTC seconds.
      own: (S,) bars a year of each symbol that is part of it.
    """
    span = float(time[-1] - time[0]) / SECONDS_PER_YEAR
    return float(own[0]) if len(own) == 1 or span == 0 else (len(time) - 1) / span


def joined_sums(sums: TradeSums, bars: np.ndarray, bars_per_year: np.ndarray, joined_bars_per_year: float) -> TradeSums:
    """Sums of trades over parts of any number of accounts and folds, as `joined_metrics` takes them.

    Args:
      sums: (P,), money per unit of equity at the start of each part; turnover and exposure are means over its bars.
      bars: (P,) decisions of each part, its weight in turnover and exposure.
      bars_per_year: (P,) of each part.
      joined_bars_per_year: of the joined calendar.
    """
    weight = bars / max(float(bars.sum()), 1.0)
    turnover = float((sums.turnover * bars_per_year * weight).sum()) / joined_bars_per_year
    exposure = (sums.exposure * weight).sum()
    total = (sums.gains.sum(), sums.losses.sum(), sums.trades.sum(), sums.wins.sum(), turnover, exposure)
    typed: Any = [np.asarray(x, kind) for x, kind in zip(total, _SUM_TYPES, strict=True)]
    return TradeSums(*typed)


def held_sums(profit: np.ndarray, bars: np.ndarray) -> TradeSums:
    """Sums of buy-and-hold (P,): one trade a part, all equity bought and sold once, always invested."""
    ones, gain = np.ones_like(profit), profit > 0
    sums: Any = (np.maximum(profit, 0.0), np.minimum(profit, 0.0), ones, gain * ones, 2.0 / np.maximum(bars, 1), ones)
    return TradeSums(*sums)


@jax.jit
def joined_metrics(equity: jax.Array, valid: jax.Array, bars_per_year: jax.Array, sums: TradeSums) -> Metrics:
    """Figures of joined curves (P, U) that start at 1, with the trades of all their parts; the rest is (P,)."""
    return summarize(equity, jnp.ones(equity.shape[0], equity.dtype), valid, bars_per_year, sums)


@jax.jit
def joined_significance(
    equity: jax.Array, bars_per_year: jax.Array, trials: jax.Array, key: jax.Array
) -> tuple[Intervals, jax.Array, jax.Array]:
    """Bootstrap intervals, probabilistic and deflated Sharpe ratio of a joined curve (U,)."""
    one, valid = jnp.ones((), equity.dtype), jnp.ones(equity.shape, bool)
    returns = equity / jnp.concatenate([jnp.expand_dims(one, 0), equity[:-1]]) - 1.0
    m = moments(returns, valid)
    return bootstrap(equity, one, valid, bars_per_year, key), probabilistic_sharpe(m), deflated_sharpe(m, trials)


class Gap(NamedTuple):
    """How a figure differs out of sample: means over the folds where both sides are finite."""

    in_sample: float
    out_of_sample: float
    gap: float  # out of sample less in sample
    folds: int


def metric_gaps(train: Metrics, test: Metrics) -> dict[str, Gap]:
    """The gap of each figure between training and test, from pooled figures (K,) of the folds."""
    gaps = {}
    for name, found in train._asdict().items():
        before, after = (np.asarray(x, np.float64) for x in (found, getattr(test, name)))
        both = np.isfinite(before) & np.isfinite(after)
        one, two = (float(x[both].mean()) if both.any() else math.nan for x in (before, after))
        gaps[name] = Gap(one, two, two - one, int(both.sum()))
    return gaps
