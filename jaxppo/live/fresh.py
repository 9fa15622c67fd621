"""Are bars fit to decide on now? By the calendar of their market: whole, up to date, and without holes."""

from __future__ import annotations

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import numpy as np

from jaxppo.errors import DataError
from jaxppo.market.asset_classes import asset_class_of
from jaxppo.market.bars import Bars
from jaxppo.market.calendar import DAY
from jaxppo.market.quality import format_time
from jaxppo.market.sessions import missing_bars

_CLOSES = {"exchange": time(16), "week": time(17)}
"""Local time at which a day of these hours ends, where its bar only names the day."""


def bar_end(bars: Bars, start: int) -> int:
    """When the bar that starts at `start` has closed, UTC seconds.

    A bar that names a day ends when its market closes: at 16:00 New York for equities, 17:00 for FX.
    """
    record = asset_class_of(bars.asset_class)
    names_a_day = bars.interval == DAY and bars.timezone == "UTC" and start % DAY == 0
    if not names_a_day or record.hours not in _CLOSES or record.timezone == "UTC":
        return start + bars.interval
    day = datetime.fromtimestamp(start, UTC).date()
    return int(datetime.combine(day, _CLOSES[record.hours], ZoneInfo(record.timezone)).timestamp())


def bars_behind(bars: Bars, now: float) -> int:
    """Bars that the calendar expects to have closed after the newest one, by `now` in UTC seconds."""
    last = int(bars.time[-1])
    current = last + max(int(now - last) // bars.interval, 0) * bars.interval
    if bar_end(bars, current) <= now:
        current += bars.interval
    if current <= last:
        return 0
    return _missing(bars, np.append(bars.time, current), len(bars.time) - 1)[0]


def missing_lately(bars: Bars, newest: int) -> tuple[int, int | None]:
    """Bars that the calendar misses among the `newest` ones, and the start of the bar before the last such gap."""
    count, after = _missing(bars, bars.time, max(len(bars.time) - newest, 0))
    return count, None if after is None else int(bars.time[after])


def _missing(bars: Bars, times: np.ndarray, first: int) -> tuple[int, int | None]:
    """Bars missing after bar `first` or a later one, and the last bar that one is missing after."""
    found = missing_bars(times, bars.interval, bars.asset_class, bars.timezone, own_holidays=bars.closes_alone)
    late = found.after >= first
    return int(found.bars[late].sum()), int(found.after[late][-1]) if late.any() else None


def require_fresh(
    bars: Bars,
    now: float,
    *,
    newest: int,
    max_behind: int = 0,
    max_missing: int = 0,
    allow_open_bar: bool = False,
) -> None:
    """`DataError` with the reason where bars are not fit to decide on.

    Args:
      bars: of one symbol.
      now: UTC seconds.
      newest: bars among which none may be missing, such as those that a decision needs.
      max_behind: bars that may have closed since the newest one.
      max_missing: bars that may be missing among the newest.
      allow_open_bar: the newest bar may still be open.
    """
    end, at = bar_end(bars, int(bars.time[-1])), format_time(int(now))
    if end > now and not allow_open_bar:
        raise DataError(
            f"{bars.symbol}: the newest bar, {format_time(int(bars.time[-1]))}, is open until {format_time(end)} and it"
            f" is {at}; leave it out, or say --allow-open-bar if it is whole"
        )
    behind = bars_behind(bars, now)
    if behind > max_behind:
        raise DataError(
            f"{bars.symbol}: stale bars, the newest closed at {format_time(end)} and {behind} more should have by {at};"
            f" give newer bars, or say --max-behind {behind}"
        )
    missing, after = missing_lately(bars, newest)
    if missing > max_missing and after is not None:
        raise DataError(
            f"{bars.symbol}: {missing} bars are missing among the newest {newest}, the last after {format_time(after)};"
            f" give them, or say --max-missing {missing}"
        )
