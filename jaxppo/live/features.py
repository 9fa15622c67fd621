"""The built-in feature groups a bar at a time, from states that carry what they need of the past.

`jaxppo.market.features` computes a history at once, this a new bar in constant time and memory; a test holds every
group to the same bits at every bar. Nothing but NumPy is needed: an exported policy takes this file along.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

import numpy as np

from jaxppo.live.indicators import (
    Average,
    AverageRange,
    Balance,
    Change,
    Commodity,
    Directional,
    Extreme,
    Forecast,
    Macd,
    MeanStd,
    Past,
    RunningMean,
    Scaled,
    clip,
    log,
)

RETURN_FLOOR, LOG_FLOOR, FLAT_RANGE = 1e-6, 1e-3, 1e-9
WEEK = 604_800
FORECAST_SPAN, SLOW, PRICE_BARS, SIGNAL_BARS = 60, 3, 63, 252


class Bar(NamedTuple):
    """One bar of a symbol."""

    time: int  # UTC seconds at its start
    open: float
    high: float
    low: float
    close: float
    volume: float = 0.0


class Market:
    """What groups compute from at a bar, prices over the first close, and the deviations that they share."""

    bar: Bar
    high: float
    low: float
    close: float
    log_close: float
    log_return: float
    clock: datetime  # local time at the bar's start

    def __init__(self, scale_window: int, interval: int, timezone: str):
        self.scale_window, self.interval = scale_window, interval
        self.zone = ZoneInfo(timezone)
        self.unit: float | None = None
        self.change = Change(1)
        self.deviations: dict[int, MeanStd] = {}
        self.deviation: dict[int, float] = {}  # of the last n log returns
        self.changes: dict[int, Change] = {}
        self.changed: dict[int, float] = {}  # of the log close over n bars

    def needs(self, deviations: Sequence[int] = (), changes: Sequence[int] = ()) -> None:
        """A group asks for these."""
        self.deviations |= {n: MeanStd(n) for n in deviations if n not in self.deviations}
        self.changes |= {n: Change(n) for n in changes if n not in self.changes}

    def scaled(self, floor: float) -> Scaled:
        """A z-score over the scale window."""
        return Scaled(self.scale_window, floor)

    def push(self, bar: Bar) -> None:
        self.unit = unit = bar.close if self.unit is None else self.unit
        self.bar = bar
        self.high = max(bar.high, bar.open, bar.close) / unit
        self.low = min(bar.low, bar.open, bar.close) / unit
        self.close = bar.close / unit
        self.log_close = log(self.close)
        self.log_return = self.change.push(self.log_close)
        self.clock = datetime.fromtimestamp(bar.time, self.zone)
        for n, of in self.deviations.items():
            self.deviation[n] = of.push(self.log_return)[1]
        for n, change in self.changes.items():
            self.changed[n] = change.push(self.log_close)

    def log_volatility(self, n: int) -> float:
        return log(self.deviation[n] + RETURN_FLOOR)


def position(close: float, low: float, high: float) -> float:
    """Where the close is in a range: -1 at the low, 1 at the high, 0 where there is no range."""
    return 0.0 if high - low <= FLAT_RANGE * close else 2.0 * (close - low) / (high - low) - 1.0


def cycle(phase: float) -> list[float]:
    """Sine and cosine of a phase in turns."""
    turn = 2.0 * np.pi * phase
    return [float(np.sin(turn)), float(np.cos(turn))]


class Group(Protocol):
    """A feature group as a stream."""

    def push(self) -> list[float]:
        """Its features at the bar that the market has just been given."""


class Base:
    def __init__(self, m: Market):
        m.needs([10], [10])
        self.m, self.usual, self.balance = m, MeanStd(50), Balance(14)
        floors = (RETURN_FLOOR, RETURN_FLOOR, RETURN_FLOOR, LOG_FLOOR, RETURN_FLOOR, LOG_FLOOR)
        self.scaled = [m.scaled(floor) for floor in floors]

    def push(self) -> list[float]:
        m, volume = self.m, self.m.bar.volume
        usual, _ = self.usual.push(volume)
        relative = float(np.log1p(volume / usual if usual > 0.0 else 0.0))
        grown = float(np.expm1(m.log_return))
        series = (m.log_close, grown, m.log_return, m.log_volatility(10), m.changed[10], relative)
        *first, last = (of.push(x) for of, x in zip(self.scaled, series, strict=True))
        return [*first, self.balance.push(m.close) / 100.0, last]


class Intraday:
    def __init__(self, m: Market):
        self.m, self.scaled = m, m.scaled(RETURN_FLOOR)
        self.day: int | None = None

    def push(self) -> list[float]:
        m, clock = self.m, self.m.clock
        day = clock.timetuple().tm_yday
        if day != self.day:
            self.day, self.open, self.high, self.low = day, m.bar.open, m.high, m.low
        self.high, self.low = max(self.high, m.high), min(self.low, m.low)
        return [
            *cycle((clock.hour * 60 + clock.minute) / 1440.0),
            position(m.close, self.low, self.high),
            self.scaled.push(log(m.bar.close / self.open)),
        ]


class Calendar:
    def __init__(self, m: Market):
        self.m = m
        self.last: int | None = None

    def push(self) -> list[float]:
        m, clock = self.m, self.m.clock
        step = 0 if self.last is None else m.bar.time - self.last
        self.last = m.bar.time
        missing = max(step - m.interval, 0) / m.interval
        gap = float(np.log1p(missing) / np.log1p(float(WEEK) / m.interval))
        return [
            *cycle(clock.weekday() / 7.0),
            *cycle((clock.month - 1) / 12.0),
            *cycle((clock.day - 1) / 31.0),
            min(gap, 1.0),
        ]


def memberships(z: float) -> list[float]:
    """Posterior of three equally likely unit Gaussian states at z = -1.5, 0 and 1.5."""
    z = clip(z)
    weights = [float(np.exp(-0.5 * ((z - centre) * (z - centre)))) for centre in (-1.5, 0.0, 1.5)]
    total = weights[0] + weights[1] + weights[2]
    return [w / total for w in weights]


class Regime:
    def __init__(self, m: Market):
        m.needs([20, 50, 10, 200], [50, 10, 200])
        self.m, self.scaled = m, m.scaled(LOG_FLOOR)

    def _t_statistic(self, n: int) -> float:
        return self.m.changed[n] / (math.sqrt(n) * max(self.m.deviation[n], RETURN_FLOOR))

    def push(self) -> list[float]:
        states = [self.scaled.push(self.m.log_volatility(20)), *(self._t_statistic(n) for n in (50, 10, 200))]
        return [p for z in states for p in memberships(z)]


class Technical:
    def __init__(self, m: Market):
        self.m, self.macd, self.band = m, Macd(12, 26, 9), MeanStd(20)
        self.ways = [(nudge, Directional(14)) for nudge in (1.0 + 1e-8, 1.0 - 1e-8)]
        self.range, self.slow, self.slower = Extreme(14), RunningMean(3), RunningMean(3)
        self.atr, self.cci, self.past, self.balance = AverageRange(14), Commodity(20), Past(12), Balance(28)
        self.scaled = [m.scaled(f) for f in (*(RETURN_FLOOR,) * 3, LOG_FLOOR, LOG_FLOOR, RETURN_FLOOR)]

    def _directional(self) -> tuple[float, float]:
        m = self.m
        one, other = (of.push(m.high * nudge, m.low, m.close) for nudge, of in self.ways)
        return (one[0] + other[0]) / 100.0 - 1.0, (one[1] + other[1]) / 200.0

    def _stochastic(self) -> tuple[float, float, float]:
        close = self.m.close
        low, high = self.range.push(self.m.low, self.m.high)
        flat = high - low <= FLAT_RANGE * close
        fast = 0.0 if flat else 100.0 * ((close - low) / (high - low)) / 50.0 - 1.0
        slow = self.slow.push(fast)
        williams = 0.0 if flat else -100.0 * ((high - close) / (high - low)) / 50.0 + 1.0
        return slow, self.slower.push(slow), williams

    def push(self) -> list[float]:
        m, scaled = self.m, self.scaled
        lines = [of.push(x) for of, x in zip(scaled[:3], self.macd.push(m.log_close), strict=True)]
        middle, deviation = self.band.push(m.log_close)
        adx, di = self._directional()
        slow, slower, williams = self._stochastic()
        before = self.past.push(m.close)
        return [
            *lines,
            adx,
            di,
            slow,
            slower,
            scaled[3].push(log(self.atr.push(m.high, m.low, m.close) / 100.0 + RETURN_FLOOR)),
            clip((m.log_close - middle) / (2.0 * max(deviation, RETURN_FLOOR))),
            scaled[4].push(log(deviation + RETURN_FLOOR)),
            clip(self.cci.push(m.high, m.low, m.close) / 200.0),
            williams,
            scaled[5].push((m.close - before) / before if len(self.past.values) == 13 else math.nan),
            self.balance.push(m.close) / 100.0,
        ]


class MultiWindow:
    WINDOWS = (20, 50, 100)

    def __init__(self, m: Market):
        m.needs(self.WINDOWS, self.WINDOWS)
        self.m = m
        self.of = {n: (m.scaled(RETURN_FLOOR), m.scaled(LOG_FLOOR), Extreme(n)) for n in self.WINDOWS}

    def push(self) -> list[float]:
        m, row = self.m, []
        for n, (returns, volatility, extreme) in self.of.items():
            row += [
                returns.push(m.changed[n]),
                volatility.push(m.log_volatility(n)),
                position(m.close, *extreme.push(m.low, m.high)),
            ]
        return row


def over(x: float, deviation: float) -> float:
    return x / deviation if deviation > 0 else 0.0


class MacdDeviations:
    """MACD of (n, 3 n) bars in its own deviations; 0 until there are bars enough."""

    def __init__(self, n: int):
        self.fast, self.slow = Average(1 / n), Average(1 / (SLOW * n))
        self.own, self.bars = MeanStd(SIGNAL_BARS), 0

    def push(self, price: float, deviation: float) -> float:
        self.bars += 1
        q = over(self.fast.push(price) - self.slow.push(price), deviation)
        q = q if self.bars >= PRICE_BARS else 0.0
        z = over(q, self.own.push(q)[1])
        return clip(z) if self.bars >= PRICE_BARS + SIGNAL_BARS - 1 else 0.0


class Trend:
    def __init__(self, m: Market, returns: Sequence[int], macd: Sequence[int]):
        self.m, self.forecast, self.price = m, Forecast(FORECAST_SPAN), MeanStd(PRICE_BARS)
        self.returns = [(n, Past(n)) for n in returns]
        self.macd = [MacdDeviations(n) for n in macd]

    def push(self) -> list[float]:
        m = self.m
        forecast = self.forecast.push(m.log_close)
        returns = [
            clip(over(m.log_close - past.push(m.log_close), forecast * math.sqrt(n))) for n, past in self.returns
        ]
        deviation = self.price.push(m.close)[1]
        return [*returns, *(of.push(m.close, deviation) for of in self.macd)]


STREAMS: Mapping[str, Callable[..., Group]] = {
    "base": Base,
    "intraday": Intraday,
    "calendar": Calendar,
    "regime": Regime,
    "technical": Technical,
    "multi_window": MultiWindow,
    "trend": Trend,
}
"""Each built-in group, of a market; trend of its horizons besides."""


class Features:
    """All features of a symbol, bar by bar.

    Example:
      >>> stream = Features(["base"], 32, 3600, "UTC")
      >>> stream.push(Bar(0, 1.0, 1.0, 1.0, 1.0)).shape
      (7,)
    """

    def __init__(
        self,
        groups: Sequence[str],
        scale_window: int,
        interval: int,
        timezone: str,
        trend_returns: Sequence[int] = (),
        trend_macd: Sequence[int] = (),
    ):
        self.market = Market(scale_window, interval, timezone)
        more = {"trend": (trend_returns, trend_macd)}
        self.groups = [STREAMS[name](self.market, *more.get(name, ())) for name in groups]

    def push(self, bar: Bar) -> np.ndarray:
        """The (F,) float32 row of a bar, which begins to mean something at `min_bars`."""
        self.market.push(bar)
        return np.array([x for group in self.groups for x in group.push()], np.float32)


class Size:
    """Exposure that an action's 1 stands for where positions are sized by volatility, bar by bar."""

    def __init__(self, span: int, target: float, most: float, bars_per_year: float):
        self.forecast, self.target, self.most = Forecast(span), target, most
        self.root = math.sqrt(bars_per_year)

    def push(self, close: float) -> float:
        forecast = self.forecast.push(log(close)) * self.root
        return min(self.target / forecast if forecast > 0 else math.inf, self.most)
