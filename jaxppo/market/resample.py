"""Longer bars made of shorter ones, by the sessions of their class, and when each of them is known to be complete.

What belongs to a bar, and whether it is complete at the close of a shorter one, is a function of the bars up to that
one alone. So the bars made of a history that ends early are the first of those made of the whole.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxppo.errors import ConfigError, DataError
from jaxppo.market.asset_classes import asset_class_of
from jaxppo.market.bars import Bars
from jaxppo.market.calendar import DAY, HOUR, WEEK, format_interval, parse_interval
from jaxppo.market.sessions import local_days, nyse_holidays

_OPEN = 9 * HOUR + HOUR // 2
"""Second of New York's day from which bars of an exchange are counted: the first of a regular session begins there."""
_KNOWN_DAYS, _DAYS = 5, 20
"""Days of an exchange that must be known, and those that are looked back at, for their latest end to be that of a day:
one that stayed open longer than ever is forgotten after a month."""


class Buckets(NamedTuple):
    """T bars as parts of N complete longer ones; the bars behind the last complete one are left out."""

    first: np.ndarray  # (N,) int64 first bar of each
    last: np.ndarray  # (N,) int64 last bar
    known: np.ndarray  # (N,) int64 bar at whose close it is known to be complete: its last, or the one that follows
    time: np.ndarray  # (N,) int64 UTC seconds of its start


def parse_longer(text: str, field: str) -> int:
    """Seconds of an interval that bars can be resampled to.

    Raises:
      ConfigError: one that is neither a part of a day, nor a day or a week.
    """
    seconds = parse_interval(text)
    if seconds not in (DAY, WEEK) and (seconds > DAY or DAY % seconds):
        raise ConfigError(f"{field}: {text!r} is no even part of a day: give one, such as 15m, 4h or 6h, or 1d or 1w")
    return seconds


def resample(bars: Bars, seconds: int) -> Bars:
    """Bars of `seconds` made of shorter ones; those of that interval already are returned as they are.

    Parts of a day begin at midnight of crypto's UTC day, at 17:00 New York of FX's and at 09:30 New York of an
    exchange's (09:00 where its bars begin at full hours). Days and weeks (from Monday) are those of the class, and are
    named by 00:00 UTC of their (first) day. A last bar that is not complete is left out.

    Raises:
      DataError: bars that are not shorter, or do not divide such a bar, or fewer than one complete one.
    """
    if bars.interval == seconds:
        return bars
    have, want = format_interval(bars.interval), format_interval(seconds)
    if bars.interval > seconds or seconds % bars.interval or (seconds == WEEK and DAY % bars.interval):
        raise DataError(
            f"{bars.source}: bars of {have} of {bars.symbol} cannot be made into bars of {want}, which they do not"
            " divide"
        )
    if bars.dividend is not None and seconds > DAY:
        raise DataError(f"{bars.source}: dividends are paid within bars of {want}; trade bars of up to a day")
    b = buckets(bars, seconds)
    if not len(b.first):
        raise DataError(
            f"{bars.source}: {len(bars.time)} bars of {have} of {bars.symbol} hold no complete one of {want}"
        )
    end = int(b.last[-1]) + 1
    return dataclasses.replace(
        bars,
        interval=seconds,
        timezone="UTC" if seconds >= DAY else bars.timezone,
        time=b.time,
        open=bars.open[b.first],
        high=np.maximum.reduceat(bars.high[:end], b.first),
        low=np.minimum.reduceat(bars.low[:end], b.first),
        close=bars.close[b.last],
        volume=np.add.reduceat(bars.volume[:end], b.first),
        dividend=None if bars.dividend is None else np.add.reduceat(bars.dividend[:end], b.first),
        source=f"{bars.source} ({have} made into {want})",
        seams=tuple(sorted({int(i) for i in np.searchsorted(b.first, bars.seams) if 0 < i < len(b.first)})),
    )


def buckets(bars: Bars, seconds: int) -> Buckets:
    """Which bars make up each complete longer one; `resample` says how they are cut."""
    key, begin, done = _cut(bars, seconds)
    late = _after_done(key, done)
    # What comes after a bar is complete (an exchange stayed open longer than ever before) goes into the next one.
    index = np.arange(len(key))
    ahead = np.minimum.accumulate(np.where(late, len(key), index)[::-1])[::-1]
    key = np.where(ahead < len(key), key[np.minimum(ahead, len(key) - 1)], key[-1] + 1)
    done = done & ~late
    first = np.flatnonzero(np.diff(key, prepend=key[0] - 1))
    last = np.append(first[1:] - 1, len(key) - 1)
    known = np.where(done[last], last, np.append(first[1:], len(key)))
    whole = known < len(key)
    named = np.minimum(ahead[first], len(key) - 1)  # the first bar that is not late gives the longer one its time
    return Buckets(first[whole], last[whole], known[whole], begin[named][whole])


def _cut(bars: Bars, seconds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each bar (T,): the longer one that it lies in, a growing number; when that begins, and whether it is over."""
    record = asset_class_of(bars.asset_class)
    names_days = bars.interval % DAY == 0
    hours = "always" if not names_days and bars.timezone != record.timezone else record.hours
    day, second = local_days(bars.time, bars.asset_class, bars.timezone)
    end = np.minimum(second + bars.interval, DAY)
    close = _day_close(day, end) if hours == "exchange" and not names_days else np.full(len(day), DAY)
    if seconds < DAY:
        phase = int(second[0]) % bars.interval
        anchor = _OPEN - (_OPEN - phase) % bars.interval if hours == "exchange" else 0
        slot = (second - anchor) // seconds
        begin = np.maximum(anchor + slot * seconds, 0)
        over = end >= np.minimum(anchor + (slot + 1) * seconds, close)
        return day * (DAY // seconds + 1) + slot + DAY // seconds, bars.time - (second - begin), over
    if seconds == DAY:
        return day, day * DAY, end >= close
    # Weeks of FX begin on Sunday evening, which some brokers date as a day of its own.
    week = (day + 3 + (hours == "week")) // 7
    return week, (week * 7 - 3) * DAY, (end >= close) & (day >= _last_days(week, hours))


def _day_close(day: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Second of the day (T,) at which the days of an exchange are over: the latest end of the twenty days before.

    Which days are half days is not asked: the rules changed, and a full day that is cut at 13:00 is worse than a half
    one that is known to be over when the next begins.
    """
    starts = np.flatnonzero(np.diff(day, prepend=day[0] - 1))
    ends = np.concatenate((np.zeros(_DAYS - 1, np.int64), np.maximum.reduceat(end, starts)))
    latest = np.lib.stride_tricks.sliding_window_view(ends, _DAYS).max(axis=1)
    before = np.concatenate(([DAY], latest[:-1]))
    before[: min(_KNOWN_DAYS, len(before))] = DAY
    return np.repeat(before, np.diff(np.append(starts, len(day))))


def _last_days(week: np.ndarray, hours: str) -> np.ndarray:
    """The last trading day (T,) of each of `week`: Sunday, Friday of FX, the last one that the NYSE is open."""
    monday = week * 7 - 3
    if hours == "always":
        return monday + 6
    friday = monday + 4
    if hours == "week":
        return friday
    closed = nyse_holidays(int(monday[0]), int(monday[-1]) + 6)[0]
    while (shut := np.isin(friday, closed) & (friday > monday)).any():
        friday = np.where(shut, friday - 1, friday)
    return friday


def _after_done(key: np.ndarray, done: np.ndarray) -> np.ndarray:
    """Bars (T,) that come after one that completed their longer one."""
    starts = np.flatnonzero(np.diff(key, prepend=key[0] - 1))
    counts = np.cumsum(done)
    base = np.repeat(counts[starts] - done[starts], np.diff(np.append(starts, len(key))))
    return counts - done - base > 0
