"""The volatility that a symbol is expected to have, from bars up to now: the unit of trend and of a position."""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from jaxppo.config.schema import EnvConfig


def forecast_deviation(log_close: np.ndarray, span: int) -> np.ndarray:
    """Expected deviation of the next bar's log return: that of the past ones, exponentially weighted.

    s_t^2 = sum_i w_i (r_{t-i} - m_t)^2 / (1 - sum_i w_i^2), with weights w_i that sum to 1 and are proportional to
    (1 - 2 / (span + 1))^i, and the mean m_t of the same weights: Moskowitz, Ooi and Pedersen (2012), "Time Series
    Momentum", eq. 1, with the correction for few bars.

    Args:
      log_close: (T,) float64, natural logarithms of closes in any unit.
      span: bars, at least 2; (span + 1) / 2 of them is the mean age of what counts.

    Returns:
      (T,) float64, row t of closes up to t alone; 0 in the first two rows, and where no price has moved.

    Example (returns of 1 and -1 %, weights 1/3 and 2/3: the mean is -1/3 %, the variance 8/9 / (1 - 5/9) = 2 square %):
      >>> forecast_deviation(np.array([0.0, 0.01, 0.0]), 3).round(6)
      array([0.      , 0.      , 0.014142])
    """
    deviation = np.zeros(len(log_close))
    if len(log_close) > 2:
        returns = pl.Series(np.diff(log_close))
        deviation[2:] = returns.ewm_std(span=span, adjust=True, bias=False).to_numpy()[1:]
    return deviation


def volatility_sizes(close: np.ndarray, bars_per_year: float, env: EnvConfig) -> np.ndarray | None:
    """Exposure that an action's 1 stands for: target / forecast volatility, at most `max_exposure`.

    Args:
      close: (T,) float64.
      bars_per_year: of the symbol; it counts the calendar's bars and looks at no price.
      env: `size_by`, `target_volatility`, `volatility_span` and the cap `max_exposure`.

    Returns:
      (T,) float64 above 0, row t of closes up to t alone; None where an action's 1 is the equity itself.

    Example (a deviation of 1.4142 % a bar over 252 bars is 22.45 % a year; 15 / 22.45 is .6682):
      >>> env = EnvConfig(size_by="volatility", target_volatility=0.15, volatility_span=3, max_exposure=2.0)
      >>> volatility_sizes(np.exp([0.0, 0.01, 0.0]), 252.0, env).round(4)
      array([2.    , 2.    , 0.6682])
    """
    if env.size_by != "volatility":
        return None
    forecast = forecast_deviation(np.log(close), env.volatility_span) * math.sqrt(bars_per_year)
    known = forecast > 0
    wanted = np.where(known, env.target_volatility / np.where(known, forecast, 1.0), np.inf)
    return np.minimum(wanted, env.max_exposure)


def sizing_warm_up(env: EnvConfig) -> int:
    """Bars of history before the first size that is used: the span, whose older bars have 13 % of the weight."""
    return env.volatility_span + 1 if env.size_by == "volatility" else 1
