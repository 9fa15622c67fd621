"""How far chance could explain a curve: probabilistic and deflated Sharpe ratios, stationary block bootstrap.

Pure JAX, vmappable. Sharpe ratios here are per bar unless said, and kurtosis is raw: 3 for a normal distribution.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jax.scipy.stats import norm

from jaxppo.play.formulas import Moments, max_drawdown, moments, net_returns, sharpe

LEVELS = (0.05, 0.95)  # the ends of a 90 % interval
# Compiled whole: called one by one on the host, the operations of a gate were 62 programs, 1.3 s of a core.
_moments = jax.jit(moments)


class Interval(NamedTuple):
    """Ends of a 90 % interval."""

    low: jax.Array
    high: jax.Array


class Intervals(NamedTuple):
    """Intervals of the figures of one curve."""

    net_return: Interval
    sharpe: Interval  # annualised
    max_drawdown: Interval
    cagr: Interval

    def ends(self) -> dict[str, list[float]]:
        """Both ends of each by its name, as files have them; of host arrays ()."""
        return {name: [float(of.low), float(of.high)] for name, of in self._asdict().items()}


class Chance(NamedTuple):
    """How far chance could explain one curve; fields are ()."""

    intervals: Intervals
    probabilistic_sharpe: jax.Array  # P(true Sharpe > 0)
    deflated_sharpe: jax.Array  # P(true Sharpe > the best of as many skill-less trials)


@jax.jit
def probabilistic_sharpe(m: Moments, benchmark: jax.Array | float = 0.0) -> jax.Array:
    """P(true Sharpe > benchmark), Bailey and Lopez de Prado (2012), "The Sharpe Ratio Efficient Frontier", eq. 11.

    Args:
      m: moments of the per-bar returns, (...).
      benchmark: per-bar Sharpe ratio, broadcastable.

    Returns:
      (...) in [0, 1]; nan below 2 bars and for a curve that does not move.
    """
    defined = (m.n > 1) & (m.m2 > 0)
    variance = jnp.where(defined, m.m2, 1.0)
    ratio = sharpe(m, jnp.ones_like(m.n))
    skew, kurtosis = m.m3 / variance**1.5, m.m4 / variance**2
    # Never below 0, as kurtosis >= 1 + skew^2; the floor is for rounding alone.
    spread = jnp.maximum(1.0 - skew * ratio + (kurtosis - 1.0) / 4.0 * ratio**2, 1e-12)
    z = (ratio - benchmark) * jnp.sqrt(jnp.maximum(m.n - 1.0, 0.0) / spread)
    return jnp.where(defined, norm.cdf(z), jnp.nan)


@jax.jit
def expected_max_sharpe(trials: jax.Array | float, std: jax.Array | float) -> jax.Array:
    """Expected largest Sharpe of `trials` skill-less trials: Bailey and Lopez de Prado (2014), eq. 1.

    Args:
      trials: number of independent trials; 0 is returned for 1 or fewer.
      std: deviation of their estimated Sharpe ratios.
    """
    trials = jnp.asarray(trials, jnp.result_type(float))
    many = trials > 1
    n = jnp.where(many, trials, 2.0)
    # -ndtri(1 / n) in place of ndtri(1 - 1 / n), which float32 rounds to infinity for many trials.
    best = -(1.0 - np.euler_gamma) * ndtri(1.0 / n) - np.euler_gamma * ndtri(1.0 / (n * math.e))
    return jnp.where(many, best * std, 0.0)


@jax.jit
def deflated_sharpe(m: Moments, trials: jax.Array | float) -> jax.Array:
    """P(true Sharpe > the best of as many skill-less trials): `probabilistic_sharpe` against `expected_max_sharpe`.

    The trials' deviation is 1 / sqrt(n - 1), that of an estimated Sharpe ratio whose true value is 0.
    """
    std = 1.0 / jnp.sqrt(jnp.maximum(m.n - 1.0, 1.0))
    best: jax.Array = expected_max_sharpe(trials, std)
    found: jax.Array = probabilistic_sharpe(m, best.astype(m.n.dtype))
    return found


def curve_returns(equity: np.ndarray | jax.Array) -> np.ndarray:
    """Returns (..., U) float64 of curves (..., U) that start at 1; a ruined account returns nothing from there on.

    Example:
      >>> curve_returns(np.array([1.5, 0.0, 0.0])).tolist()
      [0.5, -1.0, 0.0]
    """
    after = np.asarray(equity, np.float64)
    before = np.concatenate([np.ones_like(after[..., :1]), after[..., :-1]], axis=-1)
    owned = before > 0
    change: np.ndarray = np.where(owned, after / np.where(owned, before, 1.0) - 1.0, 0.0)
    return change


def curve_moments(equity: np.ndarray | jax.Array) -> Moments:
    """Moments of the returns a bar of a curve (U,) that starts at 1: see `curve_returns`."""
    returns = curve_returns(equity)
    found: Moments = _moments(returns.astype(np.float32), np.ones(len(returns), bool))
    return found


def excess_probability(equity: np.ndarray | jax.Array, hold: np.ndarray | jax.Array) -> float:
    """P(the true mean log return of a curve is above that of another), `probabilistic_sharpe` of their differences.

    Log returns, whose sums are what became of the money: above a half exactly where the curve ends above the other.

    Args:
      equity: (U,) of a curve that starts at 1.
      hold: (U,) of the other on the same bars, such as buy-and-hold.

    Returns:
      In [0, 1]; nan below 2 bars, and for curves that do not differ.
    """
    ends = np.log(np.maximum(np.asarray(equity, np.float64), 1e-6) / np.maximum(np.asarray(hold, np.float64), 1e-6))
    excess = np.diff(ends, prepend=0.0).astype(np.float32)
    return float(probabilistic_sharpe(_moments(excess, np.ones(len(ends), bool))))


def resampled_bars(key: jax.Array, n: jax.Array, length: int) -> jax.Array:
    """Bars of one stationary bootstrap draw (Politis and Romano 1994): (length,) int32 in [0, n).

    Blocks of geometric length begin anywhere and wrap around the end. Their mean length is n^(1/3), the rate that
    minimises the error of the variance (Politis and White 2004), with constant 1.
    """
    for_jump, for_start = jax.random.split(key)
    n = jnp.maximum(n, 1)
    share = n.astype(jnp.result_type(float)) ** (-1.0 / 3.0)
    bar = jnp.arange(length, dtype=jnp.int32)
    jump = (jax.random.uniform(for_jump, (length,)) < share) | (bar == 0)
    began = jax.lax.cummax(jnp.where(jump, bar, 0))
    start = jax.random.randint(for_start, (length,), 0, n, jnp.int32)
    return (start[began] + bar - began) % n


def bootstrap(
    equity: jax.Array, start: jax.Array, valid: jax.Array, bars_per_year: jax.Array, key: jax.Array, draws: int = 200
) -> Intervals:
    """90 % intervals of a curve's figures, from `draws` resampled curves.

    Args:
      equity: (T,) at the closes.
      start: () equity before the first bar.
      valid: (T,) bool, valid bars first.
      bars_per_year: ().
      key: of the draws.
      draws: static.

    Returns:
      `Intervals` of (); nan where no bar is valid.
    """
    returns = net_returns(equity, start, valid)
    n = valid.sum(dtype=jnp.int32)
    one = jnp.ones((), equity.dtype)

    def draw(key: jax.Array) -> tuple[jax.Array, ...]:
        r = jnp.where(valid, returns[resampled_bars(key, n, equity.shape[0])], 0.0)
        curve = jnp.cumprod(jnp.maximum(1.0 + r, 0.0))
        years = jnp.maximum(n, 1).astype(equity.dtype) / bars_per_year
        growth = curve[-1]
        ratio = sharpe(moments(r, valid), bars_per_year)
        return growth - 1.0, ratio, max_drawdown(curve, one), growth ** (1.0 / years) - 1.0

    # A draw at a time: 200 curves of 20,000 bars at once take 16 MB an array.
    drawn = jax.lax.map(draw, jax.random.split(key, draws))
    ends = [jnp.where(n > 0, jnp.quantile(x, jnp.asarray(LEVELS, x.dtype)), jnp.nan) for x in drawn]
    return Intervals(*(Interval(e[0], e[1]) for e in ends))


@functools.partial(jax.jit, static_argnames="draws")
def sharpe_differences(returns: jax.Array, periods_per_year: jax.Array, key: jax.Array, draws: int = 1000) -> Interval:
    """90 % intervals of how far the first curve's annualised Sharpe ratio is above that of each other, in pairs.

    Every draw takes the same days of all curves, so that what they have in common does not widen the interval, as it
    does where two intervals are laid side by side: Ledoit and Wolf (2008), "Robust performance hypothesis testing with
    the Sharpe ratio", with the blocks of `bootstrap`.

    Args:
      returns: (P, T) of P curves on the same days.
      periods_per_year: ().
      key: of the draws.
      draws: static; more than for one curve's interval, as a verdict hangs on where an end lies.

    Returns:
      `Interval` of (P - 1,).
    """
    days = returns.shape[1]
    valid = jnp.ones(returns.shape, bool)

    def draw(key: jax.Array) -> jax.Array:
        r = returns[:, resampled_bars(key, jnp.int32(days), days)]
        ratio = sharpe(moments(r, valid), periods_per_year)
        return ratio[0] - ratio[1:]

    drawn = jax.lax.map(draw, jax.random.split(key, draws))
    low, high = jnp.quantile(drawn, jnp.asarray(LEVELS, returns.dtype), axis=0)
    return Interval(low, high)


def chance(
    equity: jax.Array,
    start: jax.Array,
    valid: jax.Array,
    bars_per_year: jax.Array,
    trials: jax.Array | float,
    key: jax.Array,
) -> Chance:
    """Bootstrap intervals, probabilistic and deflated Sharpe ratio of a curve; the other arguments are `bootstrap`'s.

    Args:
      trials: how many were tried to find what left this curve, itself included.
    """
    m = moments(net_returns(equity, start, valid), valid)
    intervals = bootstrap(equity, start, valid, bars_per_year, key)
    return Chance(intervals, probabilistic_sharpe(m), deflated_sharpe(m, trials))
