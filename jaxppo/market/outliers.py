"""Statistics of prices that show what does not belong: robust scores of returns and wicks, repeats, split ratios."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import polars as pl

from jaxppo.market.bars import Bars
from jaxppo.market.calendar import HOUR
from jaxppo.market.quality import PRICES
from jaxppo.market.sessions import local_days, missing_bars, runs_of

WINDOW = 257
"""Bars of the centred rolling median that says what is usual around a bar."""
_LEAST = 20
_MAD = 1.4826  # of normal values: deviation over median absolute deviation
_BACK = 3.0
"""A move is taken back when one of the next two bars closes within so many robust deviations of where it began."""
_SPLITS = tuple(
    sorted(
        {Fraction(n, d) for n, d in ((3, 2), (5, 2))}
        | {Fraction(n) for n in (2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20)}
        | {Fraction(n) for n in (25, 30, 40, 50, 100)}
    )
)
_NEAR = 0.03
"""Log distance of an overnight ratio from a split's: AAPL opened 47 % lower on 29 September 2000, 5 % off one half."""
_LARGE_SPLIT, _NEAR_LARGE = 12.0, 0.12
"""Of such a ratio and more, which no night's news explains: shares of a reverse split of 1:20 often lose a tenth beside
it, in wide trading."""
_SPLIT_SCORE = 8.0
_LEVEL_BARS = 20
_BUSY = 4.0
"""A crash is traded in more than this many times the usual range; the day of a split is a day like others."""


@dataclass(frozen=True, eq=False)
class Scores:
    """How unusual each bar is."""

    value: np.ndarray  # (T,) log return, or log length of the wick (below the bar negative)
    score: np.ndarray  # (T,) its size over what is usual
    back: np.ndarray  # (T,) bool: taken back at once


def rolling_scale(size: np.ndarray) -> np.ndarray:
    """What is usual (T,) around each of the sizes (T,): a centred rolling median, at least half of the overall one.

    The floor keeps a quiet stretch, or one where most bars do not move at all, from making a common move look unusual.
    """
    moving = size[size > 0]
    if not len(moving):
        return np.ones(len(size))
    median = pl.Series(size).rolling_median(WINDOW, center=True, min_samples=min(_LEAST, len(size))).to_numpy()
    return np.fmax(median, np.median(moving) / 2)


def outlying_returns(bars: Bars) -> Scores:
    """Log returns between closes in robust deviations (`_MAD` times the usual size), those over a gap in their own."""
    close = np.log(bars.close)
    value = np.concatenate(([0.0], np.diff(close)))
    over_gap = np.concatenate(([False], np.diff(bars.time) > bars.interval))
    scale = np.full(len(value), np.inf)
    for group in (over_gap, ~over_gap):
        if group.sum() >= _LEAST:
            scale[group] = _MAD * rolling_scale(np.abs(value[group]))
    back = np.zeros(len(value), bool)
    for ahead in (1, 2):
        if len(value) > ahead + 1:
            since = close[1 + ahead :] - close[: -1 - ahead]  # from before the move to `ahead` bars after it
            back[1:-ahead] |= np.abs(since) < _BACK * np.where(np.isfinite(scale), scale, 0)[1:-ahead]
    return Scores(value, np.abs(value) / scale, back)


def seam_jumps(bars: Bars) -> tuple[np.ndarray, np.ndarray]:
    """Log returns (J,) from the last close of a joined file to the first open of the next, and robust deviations (J,).

    What is usual grows with the root of the bars that the calendar expects in between and nobody has.
    """
    at = np.asarray(bars.seams, np.int64)
    value = np.log(bars.open[at]) - np.log(bars.close[at - 1])
    lacking = missing_bars(bars.time, bars.interval, bars.asset_class, bars.timezone)
    missing = np.zeros(len(bars.time))
    missing[lacking.after] = lacking.bars
    usual = _MAD * rolling_scale(np.abs(np.diff(np.log(bars.close), prepend=np.log(bars.close[0]))))
    return value, np.abs(value) / (usual[at - 1] * np.sqrt(1 + missing[at - 1]))


def outlying_wicks(bars: Bars) -> Scores:
    """Log length of the longer wick over the usual log range of a bar."""
    above = np.log(bars.high) - np.log(np.maximum(bars.open, bars.close))
    below = np.log(np.minimum(bars.open, bars.close)) - np.log(bars.low)
    usual = rolling_scale(np.log(bars.high) - np.log(bars.low))
    size = np.maximum(above, below)
    return Scores(np.where(above >= below, above, -below), size / usual, np.ones(len(size), bool))


def runs_of_equal_bars(bars: Bars) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First bar (R,) and length (R,) of each run of equal prices, and bars (N,) equal to the one before in all fields.

    A bar whose high is its low is not counted among the latter, nor one without volume where others have some, nor a
    narrow one of under an hour where none has: thin minutes of quotes are alike by chance.
    """
    same = np.ones(len(bars.time) - 1, bool)
    for name in PRICES:
        same &= np.diff(getattr(bars, name)) == 0
    first, after = runs_of(same)
    span = bars.high - bars.low
    telling = bars.volume > 0 if bars.volume.any() else (span >= np.median(span)) | (bars.interval >= HOUR)
    told = same & (np.diff(bars.volume) == 0) & (telling & (span > 0))[1:]
    return first, after - first + 1, np.flatnonzero(told) + 1


def split_like(bars: Bars) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Bars (N,) that open a trading day at a split's ratio to the close before, the ratio (N,), and the split's name.

    The ratio must lie within `_NEAR` of a usual one (`_NEAR_LARGE` of a large one), be unusual for a night, and the
    median close of the bars after it must keep the level: a crash that recovers, and a bad tick, do not.
    """
    day, _ = local_days(bars.time, bars.asset_class, bars.timezone)
    night = np.concatenate(([False], np.diff(day) > 0))
    jump = np.concatenate(([0.0], np.log(bars.open[1:]) - np.log(bars.close[:-1])))
    size = np.abs(jump[night])
    span = np.log(bars.high) - np.log(bars.low)
    if len(size) < 2:
        return np.array([], np.int64), np.array([]), []
    unusual = np.zeros(len(jump), bool)
    unusual[night] = size > _SPLIT_SCORE * _MAD * rolling_scale(size)
    known = np.log([float(s) for s in _SPLITS])
    at, names = [], []
    for i in np.flatnonzero(unusual & (np.abs(jump) > known[0] - _NEAR)):
        k = int(np.argmin(np.abs(known - abs(jump[i]))))
        before, after = bars.close[max(i - _LEVEL_BARS, 0) : i], bars.close[i : i + _LEVEL_BARS]
        level = np.log(np.median(after) / np.median(before))
        large = known[k] >= np.log(_LARGE_SPLIT)
        near = _NEAR_LARGE if large else _NEAR
        calm = large or span[i] < _BUSY * np.median(span[max(i - WINDOW, 0) : i + WINDOW])
        if calm and abs(known[k] - abs(jump[i])) <= near and abs(level - jump[i]) < abs(jump[i]) / 3:
            at.append(int(i))
            names.append(f"{1 / _SPLITS[k]}" if jump[i] < 0 else f"{_SPLITS[k]}")
    return np.array(at, np.int64), np.exp(jump[at]) if at else np.array([]), names
