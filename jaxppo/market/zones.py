"""Signs that timestamps are in another time zone than they say, or were shifted by daylight saving."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxppo.market.asset_classes import asset_class_of
from jaxppo.market.bars import Bars
from jaxppo.market.calendar import DAY, HOUR, local_fields, utc_offset_seconds
from jaxppo.market.quality import format_bar, format_time
from jaxppo.market.sessions import FX_DAY_SHIFT, local_days, missing_bars, weekday

_CLOSED_SHARE = 0.01
"""Share of bars at closed hours that is doubtful; 0.3 % of real GBPUSD, whose server has European summer time, have."""
_NIGHT = (4 * HOUR, 20 * HOUR)  # New York: extended trading of US equities
_OPEN = (9 * HOUR, 9 * HOUR + HOUR // 2)  # the first bar of a regular session, its hour or its time
_REGULAR_SESSION = 8 * HOUR  # a longer day holds extended hours, whose first bar comes when someone trades
_BLOCK = {"exchange": 20, "week": 8}  # sessions (days, weeks) over which an opening time must last to count as moved
_AGREE = 0.6
ZONE_ADVICE = "say which zone the file's times are in (--timezone for times without one), or write them in UTC"
_DAY_ADVICE = "write the dates of the market's own days, such as 2024-01-31, in place of times"


class ZoneProblem(NamedTuple):
    """One sign of a wrong time zone."""

    affected: int  # bars or sessions
    bar: int  # the first of them
    text: str
    remedy: str


def zone_problems(bars: Bars) -> list[ZoneProblem]:
    """All signs in the bars of one symbol."""
    record = asset_class_of(bars.asset_class)
    if record.hours == "always":
        return _lost_hours(bars)
    if bars.interval < DAY and bars.timezone != record.timezone:
        return []  # a market of its own, such as the embedded one
    closed = _closed_hours(bars)
    # Longer bars may begin at fixed hours of UTC, which move in New York's day with daylight saving.
    return closed or (_openings(bars) if bars.interval <= HOUR else [])


def _is_weekly(bars: Bars) -> bool:
    """Whether a session is FX's week, not a day."""
    return asset_class_of(bars.asset_class).hours == "week"


def _closed_hours(bars: Bars) -> list[ZoneProblem]:
    """Bars on days and at hours when the market is closed; those of more than a weekend are never on one alone."""
    if bars.interval > 2 * DAY:
        return []
    day, second = local_days(bars.time, bars.asset_class, bars.timezone)
    last_day, last_second = local_days(bars.time + min(bars.interval, DAY) - 1, bars.asset_class, bars.timezone)
    closed = (weekday(day) >= 5) & (weekday(last_day) >= 5)
    when, advice = "Saturdays and Sundays", ZONE_ADVICE
    if _is_weekly(bars):
        when = "the weekend (Friday 17:00 to Sunday 17:00 New York)"
        if bars.interval >= DAY:  # some brokers date the few hours of Sunday as a day of its own
            closed, when = weekday(day) == 5, "Saturdays"
    elif bars.interval == DAY:  # one that begins on Sunday in New York is Monday's, of another place
        closed, advice = weekday(day) >= 5, _DAY_ADVICE
    elif bars.interval < DAY:
        closed |= (day == last_day) & ((last_second < _NIGHT[0]) | (second >= _NIGHT[1]))
        when = "weekends or before 04:00 or after 20:00 New York"
    count = int(closed.sum())
    if count <= _CLOSED_SHARE * len(closed):
        return []
    first = int(np.argmax(closed))
    text = (
        f"{count:,} bars ({count / len(closed):.1%}) lie on {when}, first {format_bar(bars.time, first)}, when"
        f" {bars.asset_class} is not traded"
    )
    return [ZoneProblem(count, first, text, f"{advice}; another asset class is said with --asset-classes")]


def _openings(bars: Bars) -> list[ZoneProblem]:
    """Sessions that open at another hour of New York in summer than in winter, from some day on, or always."""
    fx = _is_weekly(bars)
    step = np.diff(bars.time)
    first = np.concatenate(([0], np.flatnonzero(step > (DAY if fx else 4 * HOUR)) + 1))
    day, second = local_days(bars.time, bars.asset_class, bars.timezone)
    opening = second[first] + (weekday(day[first]) * DAY if fx else 0)
    summer = utc_offset_seconds(bars.time[first], asset_class_of(bars.asset_class).timezone) == -4 * HOUR
    in_summer, in_winter = (_mode(opening[s]) for s in (summer, ~summer))
    if in_summer is not None and in_winter is not None and abs(in_summer - in_winter) == HOUR:
        moved = opening == in_summer
        at = int(first[np.argmax(moved & summer)])
        text = (
            f"sessions open at {_clock(in_winter, fx)} New York time in winter and {_clock(in_summer, fx)} in summer:"
            f" the times do not follow daylight saving, see {format_bar(bars.time, at)}"
        )
        return [ZoneProblem(int((moved & summer).sum()), at, text, ZONE_ADVICE)]
    return _moved(bars, first, opening) or _elsewhere(bars, first, opening, second)


def _moved(bars: Bars, first: np.ndarray, opening: np.ndarray) -> list[ZoneProblem]:
    """Stretches of sessions whose usual opening is not that of most stretches."""
    fx, size = _is_weekly(bars), _BLOCK[asset_class_of(bars.asset_class).hours]
    blocks = [slice(i, i + size) for i in range(0, len(first) - size + 1, size)]
    modes = [(block, mode) for block in blocks if (mode := _mode(opening[block])) is not None]
    if len(modes) < _AGREE * len(blocks) or not modes:
        return []
    found, counts = np.unique([mode for _, mode in modes], return_counts=True)
    usual = int(found[np.argmax(counts)])
    moved = [(block, mode) for block, mode in modes if abs(mode - usual) >= HOUR // 2]
    if not moved:
        return []
    block, mode = moved[0]
    at = int(first[block][np.argmax(opening[block] == mode)])
    text = (
        f"sessions usually open at {_clock(usual, fx)} New York time, but at {_clock(mode, fx)} in {len(moved)} of"
        f" {len(blocks)} stretches of {size}, first from {format_time(int(bars.time[at]))} on (bar {at:,})"
    )
    remedy = f"files of different time zones or hours were joined: {ZONE_ADVICE}"
    return [ZoneProblem(len(moved) * size, at, text, remedy)]


def _elsewhere(bars: Bars, first: np.ndarray, opening: np.ndarray, second: np.ndarray) -> list[ZoneProblem]:
    """A usual opening that is not the market's."""
    usual = _mode(opening)
    if usual is None:
        return []
    fx = _is_weekly(bars)
    if fx:
        right = usual <= HOUR or usual >= 7 * DAY - HOUR
        expected = "Sunday 17:00"
    else:
        length = np.diff(np.concatenate((first, [len(second)])))
        right = np.median(length) * bars.interval > _REGULAR_SESSION or _OPEN[0] <= usual <= _OPEN[1]
        expected = "09:30"
    if right:
        return []
    text = f"sessions open at {_clock(usual, fx)} New York time, not at {expected}"
    remedy = f"{ZONE_ADVICE}; for another exchange than New York's, the calendar features are of New York all the same"
    return [ZoneProblem(len(first), int(first[0]), text, remedy)]


def _lost_hours(bars: Bars) -> list[ZoneProblem]:
    """Single hours that are missing just where a clock goes forward: local times taken for UTC.

    Second Sunday of March at 02:00 in the USA, the last one at 01:00 to 03:00 in Europe.
    """
    missing = missing_bars(bars.time, bars.interval, bars.asset_class, bars.timezone)
    hour = missing.after[missing.bars * bars.interval == HOUR]
    lost = bars.time[hour] + bars.interval
    if not len(lost):
        return []
    f = local_fields(lost, "UTC")
    at = f["minute_of_day"] // 60
    american = (f["day_of_month"] >= 8) & (f["day_of_month"] <= 14) & (at == 2)
    european = (f["day_of_month"] >= 25) & (at >= 1) & (at <= 3)
    shifts = np.flatnonzero((f["month"] == 3) & (f["weekday"] == 6) & (american | european))
    if not len(shifts):
        return []
    text = (
        f"the hour from {format_time(int(lost[shifts[0]]))} is missing, just where the clock goes forward in"
        f" {'the USA' if american[shifts[0]] else 'Europe'}"
        + (f", and so in {len(shifts)} years" if len(shifts) > 1 else "")
        + ": local times were taken for UTC"
    )
    return [ZoneProblem(len(shifts), int(hour[shifts[0]]), text, ZONE_ADVICE)]


def _mode(values: np.ndarray, least: int = 5) -> int | None:
    """The value that most of at least `least` values have, None where none has `_AGREE` of them."""
    if len(values) < least:
        return None
    found, counts = np.unique(values, return_counts=True)
    best = int(np.argmax(counts))
    return int(found[best]) if counts[best] >= _AGREE * len(values) else None


def _clock(second: int, fx: bool) -> str:
    """Second of the day, or of the FX week, which begins on Sunday at 17:00, as a time in New York."""
    if not fx:
        return f"{second // HOUR:02d}:{second // 60 % 60:02d}"
    local = (second - FX_DAY_SHIFT) % (7 * DAY)  # from Monday 00:00
    name = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")[local // DAY]
    return f"{name} {local % DAY // HOUR:02d}:{local // 60 % 60:02d}"
