"""Causal market features: one registry of named groups, the same function for training, backtest and live.

Row t of every feature depends on bars <= t alone. Prices enter divided by the first close, so no feature carries a
price unit. Unbounded features are z-scores over the last `scale_window` bars, clipped to +-`CLIP`; bounded ones are
mapped to about [-1, 1]. Indicators are TA-Lib's, except the Bollinger bands, which are a rolling deviation and whose
running sums drift there (see `rolling_mean_std`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import talib

from jaxppo.config.schema import FeatureConfig
from jaxppo.errors import ConfigError, DataError
from jaxppo.market.bars import Bars
from jaxppo.market.calendar import DAY, local_fields
from jaxppo.market.inputs import CLIP, FeatureGroup, Inputs, bar_inputs, change, rolling_mean_std
from jaxppo.market.trend import trend_group
from jaxppo.registry import Registry

FEATURE_VERSION = 1
"""Raised whenever a feature is computed differently under the same name; it is part of `feature_hash`."""

SETTLE_BARS = 100  # Recursive averages forget their first value: (13 / 14)^100 = 6e-4 of it is left.
RETURN_FLOOR = 1e-6  # Least deviation of a return-like series; a hundredth of a pip in EURUSD.
LOG_FLOOR = 1e-3  # Least deviation of the logarithm of a volatility or a range.
FLAT_RANGE = 1e-9  # A high-low range below this share of the price is no range: a position in it is neutral.


@dataclass(frozen=True)
class FeatureTable:
    """Features of one symbol; rows before `min_bars - 1` are 0 and must not be used."""

    values: np.ndarray  # (T, F) float32
    names: tuple[str, ...]  # F ordered names
    min_bars: int


def _scaled(x: np.ndarray, m: Inputs, floor: float) -> np.ndarray:
    """Z-score of `x` over the scale window, its deviation at least `floor`, clipped."""
    x = x.copy()
    x[: np.argmax(np.isfinite(x))] = 0.0  # TA-Lib's NaN before its first value; those rows are before min_bars.
    mean, std = rolling_mean_std(x, m.scale_window)
    return np.clip((x - mean) / np.maximum(std, floor), -CLIP, CLIP)


def _log_volatility(m: Inputs, n: int) -> np.ndarray:
    return np.log(rolling_mean_std(m.log_return, n)[1] + RETURN_FLOOR)


def _position(close: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Where the close is in a range: -1 at the low, 1 at the high, 0 where there is no range."""
    flat = high - low <= FLAT_RANGE * close
    return np.where(flat, 0.0, 2.0 * (close - low) / np.where(flat, 1.0, high - low) - 1.0)


def _balance(m: Inputs, n: int) -> np.ndarray:
    """RSI as (gains - losses) / (gains + losses) = RSI / 50 - 1: TA-Lib's CMO, which is 0 and not -1 without moves."""
    return talib.CMO(m.close, n) / 100.0


def _base(m: Inputs) -> list[np.ndarray]:
    usual_volume, _ = rolling_mean_std(m.bars.volume, 50)
    traded = usual_volume > 0.0
    volume = np.log1p(np.where(traded, m.bars.volume / np.where(traded, usual_volume, 1.0), 0.0))
    return [
        _scaled(m.log_close, m, RETURN_FLOOR),
        _scaled(np.expm1(m.log_return), m, RETURN_FLOOR),
        _scaled(m.log_return, m, RETURN_FLOOR),
        _scaled(_log_volatility(m, 10), m, LOG_FLOOR),
        _scaled(change(m.log_close, 10), m, RETURN_FLOOR),
        _balance(m, 14),
        _scaled(volume, m, LOG_FLOOR),
    ]


def _cycle(phase: np.ndarray) -> list[np.ndarray]:
    """Sine and cosine of a phase in turns."""
    return [np.sin(2.0 * np.pi * phase), np.cos(2.0 * np.pi * phase)]


def _intraday(m: Inputs) -> list[np.ndarray]:
    clock = local_fields(m.bars.time, m.bars.timezone)
    new_day = np.ones(len(m.close), bool)
    new_day[1:] = np.diff(clock["day_of_year"]) != 0
    day = np.cumsum(new_day)
    so_far = pl.DataFrame({"day": day, "high": m.high, "low": m.low}).select(
        high=pl.col("high").cum_max().over("day"), low=pl.col("low").cum_min().over("day")
    )
    day_open = m.bars.open[new_day][day - 1]
    return [
        *_cycle(clock["minute_of_day"] / 1440.0),
        _position(m.close, so_far["low"].to_numpy(), so_far["high"].to_numpy()),
        _scaled(np.log(m.bars.close / day_open), m, RETURN_FLOOR),
    ]


def _calendar(m: Inputs) -> list[np.ndarray]:
    clock = local_fields(m.bars.time, m.bars.timezone)
    missing = change(m.bars.time, 1) - m.bars.interval
    week = 7.0 * DAY / m.bars.interval
    gap = np.log1p(np.maximum(missing, 0) / m.bars.interval) / np.log1p(week)
    return [
        *_cycle(clock["weekday"] / 7.0),
        *_cycle((clock["month"] - 1) / 12.0),
        *_cycle((clock["day_of_month"] - 1) / 31.0),
        np.minimum(gap, 1.0),
    ]


def _memberships(z: np.ndarray) -> list[np.ndarray]:
    """Posterior of three equally likely unit Gaussian states at z = -1.5, 0 and 1.5; sums to 1."""
    z = np.clip(z, -CLIP, CLIP)
    weights = [np.exp(-0.5 * (z - centre) ** 2) for centre in (-1.5, 0.0, 1.5)]
    total = weights[0] + weights[1] + weights[2]
    return [w / total for w in weights]


def _t_statistic(m: Inputs, n: int) -> np.ndarray:
    """Log return over n bars in units of its own deviation, were the n returns independent."""
    std = rolling_mean_std(m.log_return, n)[1]
    return change(m.log_close, n) / (np.sqrt(n) * np.maximum(std, RETURN_FLOOR))


def _regime(m: Inputs) -> list[np.ndarray]:
    volatility = _scaled(_log_volatility(m, 20), m, LOG_FLOOR)
    states = [volatility, _t_statistic(m, 50), _t_statistic(m, 10), _t_statistic(m, 200)]
    return [p for z in states for p in _memberships(z)]


def _directional(m: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """ADX / 50 - 1 and (DI+ - DI-) / 100, both of 14 bars.

    A bar whose high rose as much as its low fell counts for neither side, but the rounding of tick prices breaks that
    tie at random. The mean of both ways to break it is the same in every price unit.
    """
    ways = []
    for nudge in (1.0 + 1e-8, 1.0 - 1e-8):
        bars = (m.high * nudge, m.low, m.close, 14)
        ways.append((talib.ADX(*bars), talib.PLUS_DI(*bars) - talib.MINUS_DI(*bars)))
    return (ways[0][0] + ways[1][0]) / 100.0 - 1.0, (ways[0][1] + ways[1][1]) / 200.0


def _stochastic(m: Inputs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slow %K, %D and Williams %R of 14 bars, each mapped to [-1, 1] and 0 where there was no range."""
    flat = talib.MAX(m.high, 14) - talib.MIN(m.low, 14) <= FLAT_RANGE * m.close
    fast = np.where(flat, 0.0, talib.STOCHF(m.high, m.low, m.close, 14, 1)[0] / 50.0 - 1.0)
    slow = talib.SMA(fast, 3)
    williams = np.where(flat, 0.0, talib.WILLR(m.high, m.low, m.close, 14) / 50.0 + 1.0)
    return slow, talib.SMA(slow, 3), williams


def _technical(m: Inputs) -> list[np.ndarray]:
    macd = talib.MACD(m.log_close, 12, 26, 9)
    middle, deviation = rolling_mean_std(m.log_close, 20)
    bollinger = np.clip((m.log_close - middle) / (2.0 * np.maximum(deviation, RETURN_FLOOR)), -CLIP, CLIP)
    stoch_k, stoch_d, williams = _stochastic(m)
    return [
        *(_scaled(line, m, RETURN_FLOOR) for line in macd),
        *_directional(m),
        stoch_k,
        stoch_d,
        _scaled(np.log(talib.NATR(m.high, m.low, m.close, 14) / 100.0 + RETURN_FLOOR), m, LOG_FLOOR),
        bollinger,
        _scaled(np.log(deviation + RETURN_FLOOR), m, LOG_FLOOR),
        np.clip(talib.CCI(m.high, m.low, m.close, 20) / 200.0, -CLIP, CLIP),
        williams,
        _scaled(talib.ROCP(m.close, 12), m, RETURN_FLOOR),
        _balance(m, 28),
    ]


def _multi_window(m: Inputs) -> list[np.ndarray]:
    columns = []
    for n in (20, 50, 100):
        columns += [
            _scaled(change(m.log_close, n), m, RETURN_FLOOR),
            _scaled(_log_volatility(m, n), m, LOG_FLOOR),
            _position(m.close, talib.MIN(m.low, n), talib.MAX(m.high, n)),
        ]
    return columns


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FEATURE_GROUPS = Registry(
    "feature group",
    [
        FeatureGroup(
            "base",
            "price, returns, volatility, momentum, RSI, volume",
            _words("price_z return log_return volatility_10 momentum_10 rsi_14 volume"),
            _base,
            lookback=15 + SETTLE_BARS,
            scaled_lookback=50,
        ),
        # A history that starts within a day changes the last two until that day ends.
        FeatureGroup(
            "intraday",
            "time of the day, place in the day's range, return of the day",
            _words("minute_sin minute_cos day_range_position day_return"),
            _intraday,
            lookback=1,
            scaled_lookback=1,
        ),
        FeatureGroup(
            "calendar",
            "weekday, month, day of the month, gap before the bar",
            _words("weekday_sin weekday_cos month_sin month_cos month_day_sin month_day_cos gap_before"),
            _calendar,
            lookback=2,
        ),
        FeatureGroup(
            "regime",
            "low, middle or high volatility, trend, momentum and macro trend",
            tuple(
                f"{of}_{state}" for of in _words("volatility trend momentum macro") for state in _words("low mid high")
            ),
            _regime,
            lookback=201,
            scaled_lookback=21,
        ),
        FeatureGroup(
            "technical",
            "MACD, ADX, stochastics, ATR, Bollinger bands, CCI, Williams %R, ROC, RSI",
            _words(
                "macd macd_signal macd_hist adx_14 di_14 stoch_k stoch_d atr_14 bollinger_position bollinger_width"
                " cci_20 williams_r_14 roc_12 rsi_28"
            ),
            _technical,
            lookback=29 + SETTLE_BARS,
            scaled_lookback=34 + SETTLE_BARS,
        ),
        FeatureGroup(
            "multi_window",
            "return, volatility and place in the range of 20, 50 and 100 bars",
            tuple(f"{what}_{n}" for n in (20, 50, 100) for what in _words("return volatility position")),
            _multi_window,
            lookback=100,
            scaled_lookback=101,
        ),
        trend_group(),
    ],
)
"""The first six are 53 features, sizes of the predecessor; what each regime is made of is ours."""


def feature_groups(config: FeatureConfig, names: Sequence[str] | None = None) -> list[FeatureGroup]:
    """The groups that a configuration names, with its horizons; `ConfigError` for an unknown or repeated name.

    Args:
      config: names and horizons.
      names: of other groups than its `features`.
    """
    own = trend_group(config.trend_returns, config.trend_macd)
    wanted = config.features if names is None else names
    return [own if group.name == own.name else group for group in _groups(wanted)]


def _groups(groups: Sequence[str | FeatureGroup]) -> list[FeatureGroup]:
    """Groups, of names those registered. Unknown or repeated names, or none, raise `ConfigError`."""
    found = [FEATURE_GROUPS.find(group, "features") if isinstance(group, str) else group for group in groups]
    names = [group.name for group in found]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"features must name at least one feature group, each once, got {names}")
    return found


def feature_names(groups: Sequence[str | FeatureGroup]) -> tuple[str, ...]:
    """Ordered feature names of these groups."""
    return tuple(name for group in _groups(groups) for name in group.names)


def min_bars(groups: Sequence[str | FeatureGroup], scale_window: int) -> int:
    """Bars of history needed for one valid row; the first valid row is `min_bars - 1`."""
    if scale_window < 2:
        raise ConfigError(f"scale_window must be at least 2 bars, got {scale_window}")
    return max(group.min_bars(scale_window) for group in _groups(groups))


def feature_hash(names: Sequence[str], scale_window: int, more: Sequence[str] = ()) -> str:
    """SHA-256 hex digest of the ordered names, their scaling, `FEATURE_VERSION` and `more`; a checkpoint keeps it."""
    facts = [f"version {FEATURE_VERSION}", f"scale_window {scale_window}", *names, *more]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def compute_features(bars: Bars, groups: Sequence[str | FeatureGroup], scale_window: int) -> FeatureTable:
    """Features of one symbol, one row a bar, row t from bars <= t alone.

    Args:
        bars: T checked bars of one symbol.
        groups: in the order wanted; a name is that of an entry of `FEATURE_GROUPS`.
        scale_window: bars of the rolling mean and deviation that scale the unbounded features.

    Returns:
        A table whose rows from `min_bars - 1` on are finite; the rows before are 0.

    Raises:
        ConfigError: an unknown group, or a scale window below 2.
        DataError: fewer than `min_bars` bars, or a value that is no price or volume.
    """
    needed = min_bars(groups, scale_window)
    if len(bars.time) < needed:
        named = ", ".join(group.name for group in _groups(groups))
        raise DataError(
            f"{bars.symbol}: {len(bars.time)} bars in {bars.source}, but features {named} with"
            f" scale_window {scale_window} need at least {needed}"
        )
    _check_values(bars)
    m = bar_inputs(bars, scale_window)
    names = feature_names(groups)
    values = np.zeros((len(bars.time), len(names)), np.float32)
    columns = (column for group in _groups(groups) for column in group.compute(m))
    for i, column in enumerate(columns):
        values[needed - 1 :, i] = column[needed - 1 :]
    return FeatureTable(values, names, needed)


def _check_values(bars: Bars) -> None:
    """Bars that nobody checked (a NaN, a price of 0) must not become a silent feature."""
    for field in ("open", "high", "low", "close", "volume"):
        x = getattr(bars, field)
        good = np.isfinite(x) & (x >= 0.0 if field == "volume" else x > 0.0)
        if not good.all():
            row = int(np.argmin(good))
            raise DataError(
                f"{bars.symbol}: {field} is {x[row]} at bar {row} (0-based) of {bars.source}; prices must be finite"
                " and above 0, volumes finite and not negative"
            )
