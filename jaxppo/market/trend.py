"""Trend in units of risk: returns over many horizons, and MACD, each in its own expected deviations.

The features that time-series momentum is traded on (Lim, Zohren and Roberts 2019, "Enhancing Time-Series Momentum
Strategies Using Deep Neural Networks"), the same for every symbol whatever its volatility. Rules use them too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from jaxppo.config.schema import FeatureConfig
from jaxppo.errors import ConfigError
from jaxppo.market.inputs import CLIP, FeatureGroup, Inputs, rolling_mean_std
from jaxppo.market.volatility import forecast_deviation

FORECAST_SPAN = 60
RETURN_BARS, MACD_BARS = FeatureConfig().trend_returns, FeatureConfig().trend_macd
"""Of daily bars the returns are those of a day, a week, one, three and six months, and a year."""
SLOW = 3
"""A slow average is this many times as long as its fast one: 24, 48 and 96 (Baz et al. 2015)."""
PRICE_BARS, SIGNAL_BARS = 63, 252
"""Of the deviations that MACD is divided by: of the price, then of the quotient."""


def return_over(m: Inputs, n: int) -> np.ndarray:
    """Log return over the last n bars, or as many as there are: (T,)."""
    start = np.maximum(np.arange(len(m.close)) - n, 0)
    change: np.ndarray = m.log_close - m.log_close[start]
    return change


def trend_returns(m: Inputs, bars: Sequence[int] = RETURN_BARS) -> list[np.ndarray]:
    """Log return over each number of bars n, over the forecast deviation of a bar times sqrt(n), clipped: (T,) each."""
    forecast = forecast_deviation(m.log_close, FORECAST_SPAN)
    return [np.clip(_over(return_over(m, n), forecast * np.sqrt(n)), -CLIP, CLIP) for n in bars]


def macd_deviations(m: Inputs, bars: Sequence[int] = MACD_BARS) -> list[np.ndarray]:
    """MACD of each pair (n, 3 n) in its own deviations, (T,) each.

    The difference of two exponential averages of the price, of weights 1 / n, over the price's deviation of 63 bars,
    then over its own of 252: Baz et al. (2015), "Dissecting Investment Strategies in the Cross Section and Time
    Series". 0 until there are so many bars.
    """
    price = pl.Series(m.close)
    return [_in_deviations(_average(price, n) - _average(price, SLOW * n), m.close) for n in bars]


def _average(price: pl.Series, n: int) -> np.ndarray:
    return price.ewm_mean(alpha=1 / n, adjust=False).to_numpy()


def _in_deviations(difference: np.ndarray, price: np.ndarray) -> np.ndarray:
    q = _over(difference, rolling_mean_std(price, PRICE_BARS)[1])
    q[: PRICE_BARS - 1] = 0.0
    z = _over(q, rolling_mean_std(q, SIGNAL_BARS)[1])
    z[: PRICE_BARS + SIGNAL_BARS - 2] = 0.0
    return z


def _over(x: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    some = deviation > 0
    return np.where(some, x / np.where(some, deviation, 1.0), 0.0)


def trend_group(returns: Sequence[int] = RETURN_BARS, macd: Sequence[int] = MACD_BARS) -> FeatureGroup:
    """The feature group `trend` for these horizons in bars.

    It needs the bars of its longest return, of the forecast and of MACD's deviations (314), and three times those of
    the slowest average, before which 5 % of its weights then lie.

    Raises:
      ConfigError: no horizon, one below 1 (of MACD: 2), or one named twice.

    Example:
      >>> trend_group((1, 21), (8,)).names
      ('trend_return_1', 'trend_return_21', 'trend_macd_8_24')
    """
    for name, bars, least in (("trend_returns", returns, 1), ("trend_macd", macd, 2)):
        if len(set(bars)) < len(bars) or any(n < least for n in bars):
            raise ConfigError(f"{name}: horizons are whole bars of at least {least}, each once; got {list(bars)}")
    if not returns and not macd:
        raise ConfigError("trend_returns and trend_macd are both empty: the features trend need at least one horizon")

    def compute(m: Inputs) -> list[np.ndarray]:
        return [*trend_returns(m, returns), *(np.clip(y, -CLIP, CLIP) for y in macd_deviations(m, macd))]

    slowest = [max(PRICE_BARS + SIGNAL_BARS - 1, SLOW * SLOW * n) for n in macd]
    return FeatureGroup(
        "trend",
        "returns over many horizons and MACD, in deviations",
        (*(f"trend_return_{n}" for n in returns), *(f"trend_macd_{n}_{SLOW * n}" for n in macd)),
        compute,
        lookback=max(FORECAST_SPAN + 1, *(n + 1 for n in returns), *slowest),
    )
