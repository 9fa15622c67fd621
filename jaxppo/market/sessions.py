"""When bars are to be expected: trading days, the hours of a session, and what is missing of both.

Which hours a class keeps is a field of its record: always as crypto, the week from Sunday to Friday 17:00 New York as
FX, or the days of the New York Stock Exchange in the hours that the bars themselves keep to.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from jaxppo.market.asset_classes import Hours, asset_class_of
from jaxppo.market.bars import Bars
from jaxppo.market.calendar import DAY, HOUR, utc_offset_seconds

_EPOCH = date(1970, 1, 1)
_MONDAY, _THURSDAY, _SATURDAY = 0, 3, 5
FX_DAY_SHIFT = 7 * HOUR
"""Added to New York time, it turns the FX day, which begins at 17:00, into one that begins at midnight."""
_WEEKEND_EDGE = 2 * HOUR
"""Brokers open late on Sunday and close early on Friday: of 397 weekends of real GBPUSD hours 98 lack the last one."""
_USUAL = 0.5
"""An hour of the day is part of the session when this share of the days have its bar."""
_FOREIGN_DAYS = 5
"""With bars on so many holidays of the NYSE, an equity trades elsewhere; its own holidays are not known."""
_HALF_DAY = 13 * HOUR
_CLOSINGS = (
    "1994-04-27 2001-09-11 2001-09-12 2001-09-13 2001-09-14 2004-06-11 2007-01-02 2012-10-29 2012-10-30 2018-12-05 "
    "2025-01-09"
)
"""Days since 1990 on which the NYSE stayed closed beside its holidays: mourning, the attacks of 2001, a hurricane."""


@dataclass(frozen=True, eq=False)
class Missing:
    """Bars that the calendar expects and the data lack, a gap each."""

    after: np.ndarray  # (G,) int64 index of the bar before the gap
    bars: np.ndarray  # (G,) int64 how many are missing
    expected: int  # bars between the first and the last, those that are there included


def runs_of(true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First position (R,) of each run of True in a (N,) bool, and the one after its last (R,)."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], true, [False])).astype(np.int8)))
    return edges[::2], edges[1::2]


def weekday(days: np.ndarray) -> np.ndarray:
    """Weekday (D,), 0 for Monday, of `days` (D,) since 1970."""
    return (np.asarray(days) + _THURSDAY) % 7


def local_days(time: np.ndarray, asset_class: str, timezone: str) -> tuple[np.ndarray, np.ndarray]:
    """Trading day (T,) int64 since 1970 and second of it (T,) int64 of UTC seconds `time` (T,).

    Days begin at midnight in `timezone`, those of FX's week at 17:00 New York, and are named after the day they end on.
    Bars that name days, whose zone is UTC, keep theirs.
    """
    local = time + utc_offset_seconds(time, timezone)
    record = asset_class_of(asset_class)
    if record.hours == "week" and timezone == record.timezone:
        local = local + FX_DAY_SHIFT
    return local // DAY, local % DAY


def day_ends(days: np.ndarray, asset_class: str, timezone: str) -> np.ndarray:
    """UTC seconds (D,) at which trading `days` (D,) since 1970 are over: midnight in `timezone`, 17:00 New York of FX.

    Example:
      >>> day_ends(np.array([0]), "crypto", "UTC"), day_ends(np.array([0]), "fx", "UTC")
      (array([86400]), array([79200]))
    """
    record, local = asset_class_of(asset_class), (np.asarray(days, np.int64) + 1) * DAY
    if record.hours == "week":
        timezone, local = record.timezone, local - FX_DAY_SHIFT
    guess = local - utc_offset_seconds(local, timezone)
    return local - utc_offset_seconds(guess, timezone)


def close_times(bars: Bars) -> np.ndarray:
    """UTC seconds (T,) int64 at which bars are over: never after the next one begins.

    Bars that name days are over with their (last) day: at midnight UTC, of FX at 17:00 New York.
    """
    closes = bars.time + bars.interval
    if bars.interval % DAY == 0 and bool((bars.time % DAY == 0).all()):
        closes = day_ends(closes // DAY - 1, bars.asset_class, bars.timezone)
    closes[:-1] = np.minimum(closes[:-1], bars.time[1:])  # months are of no one length
    return closes


def missing_bars(
    time: np.ndarray, interval: int, asset_class: str, timezone: str, *, own_holidays: bool = False
) -> Missing:
    """What lacks between the first and the last bar.

    Args:
        time: (T,) int64 UTC seconds, increasing.
        interval: seconds.
        timezone: IANA zone of the market's day; UTC for bars that name days.
        own_holidays: of bars of a day, or up to an hour, on an exchange that is not known: one or two weekdays in a row
            without bars are its holidays, whatever the NYSE does.

    Bars of two days or more, of intervals that do not divide a day, and those of a market with another zone than its
    class has (the embedded one trades round the clock) are counted by their distance alone.
    """
    record = asset_class_of(asset_class)
    hours = "always" if interval < DAY and timezone != record.timezone else record.hours
    if interval > DAY or DAY % interval or hours == "always":
        steps = np.diff(time)
        bars = np.maximum(np.round(steps / interval).astype(np.int64) - 1, 0)
        if hours == "exchange" and interval < DAY:  # nights and weekends, of unknown length
            bars[:] = 0
        expected = len(time) + int(bars.sum())
    elif HOUR < interval < DAY:  # may begin at fixed hours of UTC, which daylight saving moves
        count = _by_open_time if hours == "week" else _by_day
        bars = count(time, interval, asset_class, timezone)
        expected = len(time) + int(bars.sum())
    else:
        bars, expected = _by_session(time, interval, asset_class, timezone, own_holidays)
    after = np.flatnonzero(bars > 0)
    return Missing(after, bars[after], expected)


def _by_session(
    time: np.ndarray, interval: int, asset_class: str, timezone: str, own_holidays: bool
) -> tuple[np.ndarray, int]:
    """Bars missing (T - 1,) after each bar but the last, and the number expected in all."""
    day, second = local_days(time, asset_class, timezone)
    slot = second // interval
    first = int(day[0])
    days = np.arange(first, int(day[-1]) + 1)
    # Seconds of the day, end == begin where it is closed.
    begin, end = _windows(days, day, interval, asset_class_of(asset_class).hours, own_holidays)
    full = (end - begin) == (end - begin).max()
    usual = _usual_slots(day, slot, DAY // interval, full[day - first])
    before = np.concatenate(([0], np.cumsum(usual)))  # (slots + 1,) usual slots before each slot
    low, high = before[-(-begin // interval)], before[-(-end // interval)]
    ahead = np.concatenate(([0], np.cumsum(high - low)))  # (days + 1,) bars expected before each day
    d = day - first
    position = ahead[d] + np.clip(before[slot], low[d], high[d]) - low[d]
    covered = usual[slot] & (before[slot] >= low[d]) & (before[slot] < high[d])
    bars = np.maximum(np.diff(position) - covered[:-1], 0)
    return bars, int(position[-1] - position[0]) + 1


def _by_open_time(time: np.ndarray, interval: int, asset_class: str, timezone: str) -> np.ndarray:
    """Whole bars (T - 1,) that fit into the open time between the end of each bar and the next."""
    ends = time[:-1] + interval

    def closed_until(x: np.ndarray) -> np.ndarray:
        day, second = local_days(x, asset_class, timezone)
        return before[day - first] * DAY + np.where(shut[day - first], second, 0)

    first = int(local_days(time[:1], asset_class, timezone)[0][0])
    days = np.arange(first, first + int(time[-1] - time[0]) // DAY + 4)
    begin, end = _windows(days, days, interval, asset_class_of(asset_class).hours)
    shut = begin == end
    before = np.concatenate(([0], np.cumsum(shut)))
    open_time = time[1:] - ends - (closed_until(time[1:]) - closed_until(ends))
    return np.maximum(open_time, 0) // interval


def _by_day(time: np.ndarray, interval: int, asset_class: str, timezone: str) -> np.ndarray:
    """Bars (T - 1,) by which trading days fall short of the usual number, after the last bar of each day."""
    day, _ = local_days(time, asset_class, timezone)
    last = np.concatenate((np.flatnonzero(np.diff(day) > 0), [len(day) - 1]))
    traded, counts = day[last], np.diff(np.concatenate(([-1], last)))
    usual = int(np.median(counts))
    days = np.arange(traded[0], traded[-1] + 1)
    begin, end = _windows(days, traded, interval, asset_class_of(asset_class).hours)
    whole = (end - begin) == DAY
    lacking = np.zeros(len(days), np.int64)
    lacking[whole] = usual
    at = traded - traded[0]
    lacking[at] = np.where(whole[at], np.maximum(usual - counts, 0), 0)
    before = np.concatenate(([0], np.cumsum(lacking)))
    bars = np.zeros(len(time), np.int64)
    bars[last[:-1]] = before[at[1:]] - before[at[:-1]]  # its own and those of the days until the next that was traded
    return bars[:-1]


def _usual_slots(day: np.ndarray, slot: np.ndarray, n_slots: int, whole: np.ndarray) -> np.ndarray:
    """Which slots (n_slots,) of a whole trading day usually have a bar; `whole` (T,) says which bars lie on one."""
    day, slot = day[whole], slot[whole]
    if not len(day):
        return np.zeros(n_slots, bool)
    later = np.concatenate(([True], np.diff(day) > 0))
    counts = np.bincount(slot[later | np.concatenate(([True], np.diff(slot) > 0))], minlength=n_slots)
    return counts >= _USUAL * later.sum()


def _windows(
    days: np.ndarray, traded: np.ndarray, interval: int, hours: Hours, own_holidays: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of the day (D,) from which and until which each of `days` is open, given the days of the bars."""
    begin = np.zeros(len(days), np.int64)
    end = np.where(weekday(days) < _SATURDAY, DAY, 0)
    if hours == "week":
        closed = _fx_holidays(int(days[0]), int(days[-1]))
        if interval <= HOUR:
            begin[weekday(days) == _MONDAY] = _WEEKEND_EDGE
            end[weekday(days) == _SATURDAY - 1] = DAY - _WEEKEND_EDGE
    else:
        closed, short = nyse_holidays(int(days[0]), int(days[-1]))
        if own_holidays or np.isin(closed, traded).sum() >= _FOREIGN_DAYS:
            closed, short = _lone_absences(days[end > 0], traded), np.array([], np.int64)
        if interval < DAY:
            end = np.where(np.isin(days, short), np.minimum(end, _HALF_DAY), end)
    end[np.isin(days, closed)] = 0
    return np.minimum(begin, end), end


def _lone_absences(weekdays: np.ndarray, traded: np.ndarray) -> np.ndarray:
    """Of consecutive `weekdays`, those without bars in runs of at most two: holidays of a calendar we do not know."""
    absent = ~np.isin(weekdays, traded)
    few = [np.arange(a, b) for a, b in zip(*runs_of(absent), strict=True) if b - a <= 2]
    return weekdays[np.concatenate(few)] if few else np.array([], np.int64)


def _day(when: date) -> int:
    return (when - _EPOCH).days


def _years(first: int, last: int) -> range:
    return range((_EPOCH + timedelta(first)).year - 1, (_EPOCH + timedelta(last)).year + 2)


def _fx_holidays(first: int, last: int) -> np.ndarray:
    """Days since 1970 around Christmas and New Year, when FX is closed or each broker keeps hours of its own."""
    dates = ((1, 1), (1, 2), (12, 24), (12, 25), (12, 26), (12, 31))
    kept = [_kept(date(y, 12, 25)) for y in _years(first, last)] + [_kept(date(y, 1, 1)) for y in _years(first, last)]
    return np.array([_day(d) for d in kept + [date(y, *d) for y in _years(first, last) for d in dates]])


def nyse_holidays(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Days since 1970, from the year of `first` to that of `last`, on which the NYSE is closed, and its half days.

    By rule 7.2 of the exchange since 1971: a holiday on a Saturday is kept on Friday (not New Year's Day), one on a
    Sunday on Monday. Some half days of the past are full ones and the other way round; they are only ever excused.
    """
    closed: set[int] = {_day(date.fromisoformat(text)) for text in _CLOSINGS.split()}
    short: set[int] = set()
    for year in _years(first, last):
        more, halves = _nyse_year(year)
        closed |= more
        short |= halves
    return np.array(sorted(closed)), np.array(sorted(short - closed))


def _kept(holiday: date) -> date:
    """The day on which a holiday that falls on a weekend is kept."""
    return holiday + timedelta({5: -1, 6: 1}.get(holiday.weekday(), 0))


@functools.cache
def _nyse_year(year: int) -> tuple[frozenset[int], frozenset[int]]:
    def nth(month: int, weekday_: int, n: int) -> date:
        first = date(year, month, 1)
        return first + timedelta((weekday_ - first.weekday()) % 7 + 7 * (n - 1))

    new_year, thanksgiving = date(year, 1, 1), nth(11, 3, 4)
    memorial = max(nth(5, 0, 4), date(year, 5, 25))  # the last Monday
    memorial += timedelta(-memorial.weekday() % 7)
    days = [
        _kept(new_year) if new_year.weekday() != 5 else new_year,
        nth(2, 0, 3),
        _easter(year) - timedelta(2),
        memorial,
        _kept(date(year, 7, 4)),
        nth(9, 0, 1),
        thanksgiving,
        _kept(date(year, 12, 25)),
    ]
    if year >= 1998:
        days.append(nth(1, 0, 3))  # Martin Luther King Day
    if year >= 2022:
        days.append(_kept(date(year, 6, 19)))
    halves = [thanksgiving + timedelta(1), date(year, 12, 24), date(year, 12, 26), date(year, 7, 3), date(year, 7, 5)]
    return frozenset(map(_day, days)), frozenset(map(_day, halves))


def _easter(year: int) -> date:
    """Easter Sunday by the anonymous Gregorian algorithm (Nature, 20 April 1876)."""
    a, b, c = year % 19, year // 100, year % 100
    h = (19 * a + b - b // 4 - (b - (b + 8) // 25 + 1) // 3 + 15) % 30
    k = (32 + 2 * (b % 4) + 2 * (c // 4) - h - c % 4) % 7
    m = (a + 11 * h + 22 * k) // 451
    month, day = divmod(h + k - 7 * m + 114, 31)
    return date(year, month, day + 1)
