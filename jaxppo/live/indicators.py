"""Indicators a bar at a time: each keeps what it needs of the past, and does as much work at every bar.

They add, multiply and divide in the order in which `jaxppo.market.inputs`, TA-Lib and Polars do over a whole history.
So float64 is the same to the last bit but for two averages of TA-Lib's (EMA, ATR), whose compiled code fuses products
with sums where the processor can, and Polars' deviation: there it differs by 1e-16. Features are float32, of which two
in 24 million showed it, by their last bit. Elementary functions are NumPy's, as those of `math` round the last bit in
other places. A market that stands still is judged as TA-Lib 0.8 does. Nothing but NumPy is needed: an exported policy
takes this file along.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

CLIP = 5.0
NAN = float("nan")
_NOTHING = 1e-14  # of the price: a spread that is rounding (TA-Lib 0.8)


def log(x: float) -> float:
    """Natural logarithm, as NumPy rounds it."""
    return float(np.log(x))


def clip(x: float) -> float:
    """`x` within +-CLIP."""
    return min(max(x, -CLIP), CLIP)


class Past:
    """The value n bars ago, or the first one until there are so many."""

    def __init__(self, n: int):
        self.values: deque[float] = deque(maxlen=n + 1)

    def push(self, x: float) -> float:
        self.values.append(x)
        return self.values[0]


class Change:
    """x[t] - x[t - n], 0 for the first n."""

    def __init__(self, n: int):
        self.past, self.left = Past(n), n

    def push(self, x: float) -> float:
        before = self.past.push(x)
        if self.left:
            self.left -= 1
            return 0.0
        return x - before


class Extreme:
    """Lowest and highest of two series over the last n bars; nan until there are so many."""

    def __init__(self, n: int):
        self.n = n
        self.low: deque[float] = deque(maxlen=n)
        self.high: deque[float] = deque(maxlen=n)

    def push(self, low: float, high: float) -> tuple[float, float]:
        self.low.append(low)
        self.high.append(high)
        return (min(self.low), max(self.high)) if len(self.low) == self.n else (NAN, NAN)


class MeanStd:
    """Mean and sample deviation of the last n values, by blocks of n as `rolling_mean_std` adds them up."""

    def __init__(self, n: int):
        self.n, self.at = n, n
        self.own, self.before = np.zeros(n), np.zeros(n)

    def push(self, x: float) -> tuple[float, float]:
        n = self.n
        if self.at == n:  # a block begins: its first value is the centre, about which the block before is summed anew
            self.at, self.centre = 0, x
            self.own, self.before = self.before, self.own
            rest = self.before - x
            self.totals, self.squares = _sums_after(rest), _sums_after(rest * rest)
            self.total = self.square = 0.0
        i, d = self.at, x - self.centre
        self.own[i] = x
        self.at = i + 1
        self.total = self.total + d if i else d
        self.square = self.square + d * d if i else d * d
        total, square = self.total + self.totals[i], self.square + self.squares[i]
        variance = max(square - total * total / n, 0.0) / (n - 1)
        return self.centre + total / n, math.sqrt(variance)


def _sums_after(x: np.ndarray) -> list[float]:
    """Sum of the later values at each place, added from the last one on."""
    return [*np.cumsum(x[:0:-1])[::-1].tolist(), 0.0]


class Scaled:
    """Z-score over the scale window, its deviation at least `floor`, clipped; 0 stands for what is not known yet."""

    def __init__(self, window: int, floor: float):
        self.of, self.floor, self.begun = MeanStd(window), floor, False

    def push(self, x: float) -> float:
        self.begun = self.begun or x - x == 0.0  # finite
        x = x if self.begun else 0.0
        mean, std = self.of.push(x)
        return clip((x - mean) / max(std, self.floor))


class Average:
    """Exponential average of weight `alpha`, from the first value on (Polars' `ewm_mean`, not adjusted)."""

    def __init__(self, alpha: float):
        # The weights of old and new add up to 1, or to what rounding leaves of it.
        self.share, self.mean = alpha / (1.0 * (1.0 - alpha) + alpha), NAN

    def push(self, x: float) -> float:
        self.mean = x if self.mean != self.mean else self.mean + (x - self.mean) * self.share
        return self.mean


class Deviation:
    """Deviation by exponential weights of a span, corrected for few values (Polars' `ewm_std`); nan at the first."""

    def __init__(self, span: int):
        alpha = 2.0 / (span + 1.0)
        self.keep = 1.0 - alpha
        self.weight = 0.0

    def push(self, x: float) -> float:
        if self.weight == 0.0:
            self.weight = self.weights = self.squares = 1.0
            self.mean, self.variance = x, 0.0
            return NAN
        keep = self.keep
        self.weights *= keep
        self.squares *= keep * keep
        weight = self.weight * keep
        total = weight + 1.0
        before = self.mean
        mean = before + (x - before) * (1.0 / total)
        spread = weight * (self.variance + (before - mean) * (before - mean)) + 1.0 * (x - mean) * (x - mean)
        self.variance = spread / total
        self.weight, self.mean = total, mean
        self.weights += 1.0
        self.squares += 1.0
        square = self.weights * self.weights
        return math.sqrt(square / (square - self.squares) * self.variance)


class Forecast:
    """Expected deviation of the next bar's log return, as `forecast_deviation`: 0 at the first two bars."""

    def __init__(self, span: int):
        self.change, self.of = Change(1), Deviation(span)
        self.bars = 0

    def push(self, log_close: float) -> float:
        self.bars += 1
        change = self.change.push(log_close)
        if self.bars == 1:
            return 0.0
        deviation = self.of.push(change)
        return 0.0 if self.bars == 2 else deviation


class Balance:
    """(gains - losses) / (gains + losses) by Wilder's averages of n bars, in percent (TA-Lib's CMO); nan before."""

    def __init__(self, n: int):
        self.n, self.bars = n, 0
        self.gain = self.loss = 0.0
        self.last = NAN

    def push(self, x: float) -> float:
        n, self.bars = self.n, self.bars + 1
        change, self.last = x - self.last, x
        if self.bars == 1:
            return NAN
        if self.bars > n + 1:
            self.gain *= n - 1
            self.loss *= n - 1
        if change < 0:
            self.loss -= change
        else:
            self.gain += change
        if self.bars <= n:
            return NAN
        self.gain /= n
        self.loss /= n
        total = self.gain + self.loss
        return 0.0 if total == 0.0 else 100.0 * ((self.gain - self.loss) / total)


class Seeded:
    """Exponential average of n values that begins with their plain mean (TA-Lib's EMA), after `skip` values."""

    def __init__(self, n: int, skip: int = 0):
        self.n, self.k, self.left, self.skip = n, 2.0 / (n + 1), n, skip
        self.mean = 0.0

    def push(self, x: float) -> float:
        if self.skip:
            self.skip -= 1
            return NAN
        if self.left:
            self.left -= 1
            self.mean += x
            if self.left:
                return NAN
            self.mean /= self.n
        else:
            self.mean = (x - self.mean) * self.k + self.mean
        return self.mean


class Macd:
    """Difference of two averages, its own average, and their difference; nan until all three are known."""

    def __init__(self, fast: int, slow: int, signal: int):
        self.fast, self.slow, self.signal = Seeded(fast, slow - fast), Seeded(slow), Seeded(signal)

    def push(self, x: float) -> tuple[float, float, float]:
        difference = self.fast.push(x) - self.slow.push(x)
        if difference != difference:
            return NAN, NAN, NAN
        signal = self.signal.push(difference)
        return (NAN, NAN, NAN) if signal != signal else (difference, signal, difference - signal)


def true_range(high: float, low: float, before: float) -> float:
    """Range of a bar, from the close before it where that lies outside."""
    return max(high - low, abs(high - before), abs(low - before))


class Directional:
    """ADX of n bars and the difference of the directional indicators, by Wilder's averages; nan before."""

    def __init__(self, n: int):
        self.n, self.bars = n, 0
        self.up = self.down = self.range = self.sum = self.adx = 0.0

    def push(self, high: float, low: float, close: float) -> tuple[float, float]:
        n, self.bars = self.n, self.bars + 1
        if self.bars == 1:
            self.high, self.low, self.close = high, low, close
            return NAN, NAN
        rose, fell = high - self.high, self.low - low
        moved = true_range(high, low, self.close)
        self.high, self.low, self.close = high, low, close
        if self.bars > n:
            self.up -= self.up / n
            self.down -= self.down / n
            self.range = self.range - self.range / n + moved
        else:
            self.range += moved
        if fell > 0 and rose < fell:
            self.down += fell
        elif rose > 0 and rose > fell:
            self.up += rose
        if self.bars <= n:
            return NAN, NAN
        some = self.range != 0.0
        down, up = (100.0 * (self.down / self.range), 100.0 * (self.up / self.range)) if some else (0.0, 0.0)
        return self._adx(down, up), up - down

    def _adx(self, down: float, up: float) -> float:
        n, total = self.n, down + up
        known = total != 0.0
        index = 100.0 * (abs(down - up) / total) if known else 0.0
        if self.bars <= 2 * n:
            self.sum += index
            if self.bars < 2 * n:
                return NAN
            self.adx = self.sum / n
        elif known:
            self.adx = (self.adx * (n - 1) + index) / n
        return self.adx


class AverageRange:
    """True range by Wilder's average of n bars, in percent of the close (TA-Lib's NATR); nan before."""

    def __init__(self, n: int):
        self.n, self.bars, self.mean, self.last = n, 0, 0.0, NAN

    def push(self, high: float, low: float, close: float) -> float:
        n, before = self.n, self.last
        self.bars, self.last = self.bars + 1, close
        if self.bars == 1:
            return NAN
        moved = true_range(high, low, before)
        if self.bars <= n + 1:
            self.mean += moved
            if self.bars <= n:
                return NAN
            self.mean /= n
        else:
            self.mean = (self.mean * (n - 1) + moved) / n
        return self.mean / close * 100.0


class RunningMean:
    """Mean of the last n values by a running sum, which drops the oldest after the newest is in (TA-Lib's SMA)."""

    def __init__(self, n: int):
        self.n, self.total = n, 0.0
        self.values: deque[float] = deque()

    def push(self, x: float) -> float:
        if x != x and not self.values:
            return NAN
        self.values.append(x)
        self.total += x
        if len(self.values) < self.n:
            return NAN
        mean = self.total / self.n
        self.total -= self.values.popleft()
        return mean


class Commodity:
    """Commodity channel index of n bars; nan before. The sums go round a ring, from its first place on."""

    def __init__(self, n: int):
        self.n, self.bars = n, 0
        self.ring = [0.0] * n

    def push(self, high: float, low: float, close: float) -> float:
        typical = (high + low + close) / 3.0
        self.ring[self.bars % self.n] = typical
        self.bars += 1
        if self.bars < self.n:
            return NAN
        mean = 0.0
        for x in self.ring:
            mean += x
        mean /= self.n
        spread = 0.0
        for x in self.ring:
            spread += abs(x - mean)
        spread /= self.n
        gap, least = typical - mean, _NOTHING * abs(mean)
        return gap / (0.015 * spread) if abs(gap) > least and spread > least else 0.0
