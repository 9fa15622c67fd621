"""Market time: bar intervals, local time and annualisation.

All times are UTC seconds (int64) at the start of a bar. Local time is computed with the IANA time-zone rules, so
daylight-saving changes are honoured.
"""

from __future__ import annotations

import difflib
import functools
import re
import zoneinfo

import numpy as np
import polars as pl

from jaxppo.errors import ConfigError, DataError
from jaxppo.market.asset_classes import DAYS_PER_YEAR, asset_class_of

MINUTE, HOUR, DAY, WEEK = 60, 3_600, 86_400, 604_800
YEAR = DAYS_PER_YEAR * DAY
_PLAINLY = 0.02
"""Share by which the bars of a usual week must differ from the class's to count as another calendar: an annualised
Sharpe ratio is 1 % off then."""
_MANY_WEEKS, _HOLIDAYS = 4, 4
"""Fewer whole weeks do not tell what is usual, and so many days these may lack beside: the holidays of the month around
New Year."""

_UNITS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "minute", "minutes"), MINUTE),
    **dict.fromkeys(("h", "hr", "hour", "hours"), HOUR),
    **dict.fromkeys(("d", "day", "days"), DAY),
    **dict.fromkeys(("w", "wk", "week", "weeks"), WEEK),
}
_WORDS = {"hourly": HOUR, "daily": DAY, "weekly": WEEK}
_METATRADER = {
    **{f"m{n}": n * MINUTE for n in (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30)},
    **{f"h{n}": n * HOUR for n in (1, 2, 3, 4, 6, 8, 12)},
    "d1": DAY,
    "w1": WEEK,
}


def match_interval(text: str) -> int | None:
    """Seconds that `text` names, such as 5m, 1h, 1d, 1wk, 15min, daily or MetaTrader's H4; None if it names none.

    `1M` is a month in exchanges' file names, not a minute, and a month has no fixed length: it gives None.
    """
    word = text.strip()
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    if word.lower() in _METATRADER:
        return _METATRADER[word.lower()]
    parts = re.fullmatch(r"([0-9]{1,4})\s?([A-Za-z]+)", word)
    if parts is None or parts[2] == "M":
        return None
    return int(parts[1]) * _UNITS.get(parts[2].lower(), 0) or None


def parse_interval(text: str) -> int:
    """Seconds of a bar interval such as 1m, 5m, 15m, 30m, 1h, 4h, 1d or 1w; `ConfigError` for anything else."""
    seconds = match_interval(text)
    if seconds is None:
        raise ConfigError(
            f"interval {text!r} is not understood: give a number and a unit (s, m, h, d, w), such as 1m, 5m, 15m, "
            "30m, 1h, 4h, 1d or 1w; months have no fixed length"
        )
    return seconds


def format_interval(seconds: int) -> str:
    """`seconds` in the largest unit that divides it: 3600 is 1h, 5400 is 90m, 604800 is 1w."""
    for unit, size in (("w", WEEK), ("d", DAY), ("h", HOUR), ("m", MINUTE)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def check_timezone(timezone: str) -> None:
    """Raise `ConfigError` unless `timezone` is a name of the IANA time-zone database, such as UTC or EET."""
    known = _timezones()
    if timezone in known:
        return
    same = sorted(name for name in known if name.lower() == timezone.lower())
    near = same or difflib.get_close_matches(timezone, known, n=3, cutoff=0.7)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "such names are UTC, America/New_York and EET"
    raise ConfigError(f"unknown time zone {timezone!r}: give a name of the IANA time-zone database; {hint}")


@functools.cache
def _timezones() -> frozenset[str]:
    """Names that both zoneinfo and polars know: the former lists two that are no zones."""
    return frozenset(zoneinfo.available_timezones() - {"localtime", "Factory"})


def _local(time: np.ndarray, timezone: str) -> pl.Series:
    check_timezone(timezone)
    instants = pl.Series(np.asarray(time, np.int64)).cast(pl.Int64) * 1_000_000
    return instants.cast(pl.Datetime("us")).dt.replace_time_zone("UTC").dt.convert_time_zone(timezone)


def utc_offset_seconds(time: np.ndarray, timezone: str) -> np.ndarray:
    """Seconds (T,) int64 to add to each UTC second of `time` (T,) to get the local wall clock of `timezone`."""
    time = np.asarray(time, np.int64)
    day = time // DAY
    span = int(day.max() - day.min()) + 2 if len(day) else 0
    if span > len(day):
        return _exact_offset(time, timezone)
    # An offset that is the same at both ends of a UTC day holds throughout; looking up days instead of bars is ten
    # times faster for a million minutes.
    ends = _exact_offset((day.min() + np.arange(span)) * DAY, timezone)
    offset = ends[day - day.min()]
    change = np.flatnonzero(offset != ends[day - day.min() + 1])
    offset[change] = _exact_offset(time[change], timezone)
    return offset


def _exact_offset(time: np.ndarray, timezone: str) -> np.ndarray:
    wall = _local(time, timezone).dt.replace_time_zone(None).dt.epoch("s")
    return wall.to_numpy().astype(np.int64) - time


def local_fields(time: np.ndarray, timezone: str) -> dict[str, np.ndarray]:
    """Wall-clock fields of `time` (T,) UTC seconds in `timezone`, each (T,) int64.

    minute_of_day 0-1439, weekday 0 (Monday) - 6, day_of_month 1-31, month 1-12, day_of_year 1-366.
    """
    local = _local(time, timezone).dt
    fields = {
        "minute_of_day": local.hour().cast(pl.Int64) * 60 + local.minute().cast(pl.Int64),
        "weekday": local.weekday().cast(pl.Int64) - 1,  # polars counts Monday as 1
        "day_of_month": local.day(),
        "month": local.month(),
        "day_of_year": local.ordinal_day(),
    }
    return {name: values.to_numpy().astype(np.int64) for name, values in fields.items()}


def bars_per_year(time: np.ndarray, interval: int, asset_class: str, timezone: str) -> float:
    """Bars a year, the factor that annualises per-bar figures of one symbol.

    Up to a day: the trading days of the class (252 equity, 260 fx, 365.25 crypto) x the bars of a whole day, which are
    86,400 s / interval for a class that trades round the clock and those that the days of an exchange usually have. 7
    hourly bars of US trading give 1764, an hour of crypto 8766. Bars whose usual week plainly differs from the
    class's, such as six days of FX or crypto on weekdays alone, are counted over their whole weeks, if
    there are four. Longer: a year over the mean step, so that weekly is 52.18 and monthly is 12.

    Args:
        time: (T,) int64 UTC seconds of the bars' starts, T >= 1.
        interval: seconds.
        timezone: IANA zone whose midnight ends a trading day.
    """
    record, time = asset_class_of(asset_class), np.asarray(time, np.int64)
    if len(time) == 0:
        raise DataError("bars per year cannot be told without bars")
    if interval > DAY:
        step = np.diff(time)
        step = step[step < interval + WEEK]  # longer ones are holes
        return YEAR / float(step.mean() if len(step) else interval)
    whole_day = _usual_day(time, timezone) if record.hours == "exchange" and interval < DAY else DAY / interval
    by_class = record.trading_days * whole_day
    weeks = int(time[-1] - time[0] + interval) // WEEK
    if weeks < _MANY_WEEKS:
        return by_class
    by_week = np.bincount((time - time[0]) // WEEK)[:weeks]
    of_class = round(record.trading_days / YEAR * WEEK) * whole_day
    more, holidays = _usual(by_week[by_week > 0]) - of_class, _HOLIDAYS * whole_day / weeks
    if -_PLAINLY * of_class - holidays <= more <= _PLAINLY * of_class:
        return by_class
    end = time[0] + weeks * WEEK
    step = np.diff(time[time < end], append=end)
    holes = int((step[step >= 2 * WEEK] // WEEK).sum())  # no market closes for two weeks
    return float(by_week.sum()) / max(weeks - holes, 1) * YEAR / WEEK


def _usual_day(time: np.ndarray, timezone: str) -> float:
    """Bars that local days usually have, but for the first and the last, which may be cut."""
    _, bars = np.unique((time + utc_offset_seconds(time, timezone)) // DAY, return_counts=True)
    return _usual(bars[1:-1] if len(bars) > 2 else bars.max(keepdims=True))


def _usual(bars: np.ndarray) -> float:
    """The upper median of numbers of bars (N,): half days and holidays only ever take some away."""
    return float(np.sort(bars)[len(bars) // 2])


def joint_bars_per_year(time: np.ndarray, own: np.ndarray, bars: np.ndarray) -> float:
    """Bars a year of a calendar that symbols share: by a symbol that has nearly all, else over the years spanned.

    Args:
        time: (U,) int64 UTC seconds of all bars that some symbol has.
        own: (S,) bars a year of each symbol.
        bars: (S,) how many of the U bars each symbol has.
    """
    most = int(np.argmax(bars))
    span = float(time[-1] - time[0]) / YEAR
    if span == 0 or bars[most] >= (1 - _PLAINLY) * len(time):
        return float(own[most] * len(time) / bars[most])
    return (len(time) - 1) / span
