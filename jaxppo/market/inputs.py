"""What features and rules compute from: bars without a price unit, and the rolling statistics that they share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxppo.market.bars import Bars

CLIP = 5.0
"""Deviations beyond which a feature says no more."""


@dataclass(frozen=True)
class Inputs:
    """What groups compute from, float64. Prices are over the first close: unit-free, and exact for powers of two."""

    bars: Bars
    scale_window: int
    high: np.ndarray  # (T,)
    low: np.ndarray  # (T,)
    close: np.ndarray  # (T,)
    log_close: np.ndarray  # (T,)
    log_return: np.ndarray  # (T,), 0 at the first bar


@dataclass(frozen=True)
class FeatureGroup:
    """Named features that are computed together: an entry of `FEATURE_GROUPS`.

    Example:
      >>> def spread(m):
      ...     return [np.log(m.high / m.low)]
      >>> FeatureGroup("spread", "log range of the bar", ("log_range",), spread, lookback=1).min_bars(256)
      1
    """

    name: str
    help: str
    names: tuple[str, ...]  # of its features
    compute: Callable[[Inputs], Sequence[np.ndarray]]  # one (T,) float64 array a name
    lookback: int  # bars before its slowest feature is valid
    scaled_lookback: int = 0  # the same before its slowest unscaled series enters a z-score; 0: the group has none

    def min_bars(self, scale_window: int) -> int:
        """Bars needed for one valid row."""
        return max(self.lookback, self.scaled_lookback + scale_window - 1 if self.scaled_lookback else 1)


def rolling_mean_std(x: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sample deviation (ddof 1) of the last `window` values; rows before `window - 1` mean nothing.

    Windows are sums over two blocks of `window` bars, the own one up to t and the rest of the one before, about the own
    block's first value, which every one of its windows holds. So there is no running sum that drifts over 600,000 bars
    or keeps the rounding of a jump that left the window, a constant window has a deviation of exactly 0, and bars
    after t cannot change the rounding at t.

    Args:
        x: (T,) float64, finite.
        window: bars, at least 2.

    Returns:
        Two (T,) float64 arrays.
    """
    blocks = -(-len(x) // window) + 1
    padded = np.zeros(blocks * window)
    padded[window : window + len(x)] = x
    grid = padded.reshape(blocks, window)
    centre = grid[1:, :1]
    own, before = grid[1:] - centre, grid[:-1] - centre
    total = np.cumsum(own, axis=1) + _sum_after(before)
    squares = np.cumsum(own * own, axis=1) + _sum_after(before * before)
    variance = np.maximum(squares - total * total / window, 0.0) / (window - 1)
    return (centre + total / window).ravel()[: len(x)], np.sqrt(variance).ravel()[: len(x)]


def _sum_after(x: np.ndarray) -> np.ndarray:
    """Sum of the later columns of each row, the own one not included."""
    result = np.zeros_like(x)
    result[:, :-1] = np.cumsum(x[:, :0:-1], axis=1)[:, ::-1]
    return result


def change(x: np.ndarray, n: int) -> np.ndarray:
    """x[t] - x[t - n], 0 for the first n."""
    result = np.zeros_like(x)
    result[n:] = x[n:] - x[: len(x) - n]
    return result


def total_return(bars: Bars) -> Bars:
    """Bars whose prices grow by the dividends too, as if each were put back into the symbol; themselves without any.

    From the first bar on, so that a dividend to come changes nothing before it.
    """
    if bars.dividend is None:
        return bars
    steps = np.ones(len(bars.close))
    steps[1:] = 1.0 / (1.0 - bars.dividend[1:] / bars.close[:-1])
    growth = np.cumprod(steps)
    prices: Any = {name: getattr(bars, name) * growth for name in ("open", "high", "low", "close")}
    return dataclasses.replace(bars, **prices, dividend=None)


def bar_inputs(bars: Bars, scale_window: int = 256) -> Inputs:
    """What feature groups and rules compute from: T checked bars of one symbol, dividends put back."""
    bars = total_return(bars)
    unit = bars.close[0]
    # Open and close may lie outside the range by the rounding of adjusted prices; in a tiny range that is far outside.
    high = np.maximum(bars.high, np.maximum(bars.open, bars.close)) / unit
    low = np.minimum(bars.low, np.minimum(bars.open, bars.close)) / unit
    log_close = np.log(bars.close / unit)
    return Inputs(bars, scale_window, high, low, bars.close / unit, log_close, change(log_close, 1))
