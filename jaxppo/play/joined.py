"""Figures of one fold, and of the out-of-sample curves joined fold after fold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.play.curve import TradeSums
from jaxppo.play.metrics import Metrics, summarize

_SUM_TYPES = (np.float32, np.float32, np.int32, np.int32, np.int32, np.float32, np.float32, np.float32)


def join_curves(curves: Sequence[np.ndarray]) -> np.ndarray:
    """Compound curves that start at 1 each, one after another: (U_k,) each to (sum U_k,) float64."""
    start, out = 1.0, []
    for curve in curves:
        out.append(start * curve.astype(np.float64))
        start = float(out[-1][-1])
    return np.concatenate(out)


def joined_sums(sums: TradeSums, bars: np.ndarray, bars_per_year: np.ndarray, joined_bars_per_year: float) -> TradeSums:
    """Sums of trades over parts of any number of accounts and folds, as `joined_metrics` takes them.

    Args:
      sums: (P,), money per unit of equity at the start of each part; the rest are means over its bars.
      bars: (P,) decisions of each part, its weight in those means.
      bars_per_year: (P,) of each part.
      joined_bars_per_year: of the joined calendar.
    """
    weight = bars / max(float(bars.sum()), 1.0)
    yearly = bars_per_year * weight / joined_bars_per_year
    turnover, costs = (float((x * yearly).sum()) for x in (sums.turnover, sums.costs))
    exposure = (sums.exposure * weight).sum()
    counts = (sums.gains.sum(), sums.losses.sum(), sums.trades.sum(), sums.wins.sum(), sums.losers.sum())
    typed: Any = [np.asarray(x, kind) for x, kind in zip((*counts, turnover, exposure, costs), _SUM_TYPES, strict=True)]
    return TradeSums(*typed)


@jax.jit
def joined_metrics(equity: jax.Array, valid: jax.Array, bars_per_year: jax.Array, sums: TradeSums) -> Metrics:
    """Figures of joined curves (P, U) that start at 1, with the trades of all their parts; the rest is (P,)."""
    return summarize(equity, jnp.ones(equity.shape[0], equity.dtype), valid, bars_per_year, sums)


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
