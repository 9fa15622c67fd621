"""Checks that bars can be trusted: each raises one `DataError` that names file, symbol, row and field.

Nothing is filled, sorted or dropped. A check is a small function over arrays and the `Origin` of their rows; the ones
that need only the bars themselves are listed in `CHECKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import numpy as np
import polars as pl

from jaxppo.errors import DataError

PRICES = ("open", "high", "low", "close")
FIELDS = (*PRICES, "volume")
RANGE_TOLERANCE = 1e-6
"""Relative rounding error up to which open and close may lie outside [low, high]: adjusted prices are rounded."""
PRICE_BOUNDS = (1e-12, 1e12)
VOLUME_BOUND = 1e30
"""Magnitudes that the float32 arithmetic of the device still holds with room to spare."""
TIME_BOUNDS = (-2_208_988_800, 7_258_118_400)  # 1900-01-01 and 2200-01-01
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, eq=False)
class Origin:
    """Where rows come from, so that a message gives the row a user finds in the file."""

    file: str
    symbol: str
    unit: str  # "line" of a CSV file, counting the header as line 1; "row" of a Parquet file, counting from 0
    rows: np.ndarray  # (T,) int64

    def at(self, index: int) -> str:
        return f"{self.file}, symbol {self.symbol}, {self.unit} {self.rows[index]}"


BarCheck = Callable[[np.ndarray, Mapping[str, np.ndarray], Origin], None]


def format_time(seconds: int) -> str:
    """UTC seconds as an ISO timestamp; the number itself where the calendar ends."""
    if not TIME_BOUNDS[0] <= seconds < TIME_BOUNDS[1]:
        return f"{seconds} s"
    return (_EPOCH + timedelta(seconds=int(seconds))).strftime("%Y-%m-%d %H:%M:%S UTC")


def format_bar(time: np.ndarray, bar: int | np.integer) -> str:
    """When a bar began, and its position in `time` (T,) UTC seconds."""
    return f"{format_time(int(time[bar]))} (bar {int(bar):,})"


_LOCAL_TIMES = "clocks went back that hour, so these are local times: say where with --timezone, or write UTC"


def _clock_goes_back(seconds: int) -> bool:
    """Whether clocks in the USA (first Sunday of November) or Europe (last of October) repeat that hour."""
    when = _EPOCH + timedelta(seconds=int(seconds))
    american = when.month == 11 and when.day <= 7 and when.hour == 1
    european = when.month == 10 and when.day >= 25 and 1 <= when.hour <= 3
    return when.weekday() == 6 and (american or european)


def refuse(bad: np.ndarray, origin: Origin, reason: Callable[[int], str]) -> None:
    """Raise a `DataError` with `reason(i)` for the first row i where `bad` (T,) bool holds, and count the others."""
    index = int(np.argmax(bad)) if len(bad) else 0
    if not len(bad) or not bad[index]:
        return
    others = int(bad.sum()) - 1
    more = f" (and in {others} more row{'s' if others > 1 else ''})" if others else ""
    raise DataError(f"{origin.at(index)}: {reason(index)}{more}")


def refuse_columns(file: str, missing: Sequence[str], found: Sequence[str]) -> NoReturn:
    """Raise the `DataError` of a file that lacks columns."""
    names = ", ".join(repr(name[:40]) for name in found[:20]) or "none"
    needed = " and ".join(missing)
    raise DataError(
        f"{file}: no column for {needed} among {names}{', ...' if len(found) > 20 else ''}; bars need timestamp, open, "
        "high, low and close, optionally volume and symbol"
    )


def check_numbers(raw: pl.Series, numbers: pl.Series, field: str, origin: Origin) -> None:
    """Refuse empty values and text that is no number. `numbers` (T,) is `raw` (T,) cast, null where that failed."""
    failed = numbers.is_null().to_numpy()

    def reason(index: int) -> str:
        value = raw[index]
        return f"{field} is empty" if value is None else f"{field} {str(value)[:40]!r} is not a number"

    refuse(failed, origin, reason)


def _refuse_values(bad: np.ndarray, field: str, x: np.ndarray, problem: str, origin: Origin) -> None:
    refuse(bad, origin, lambda i: f"{field} {x[i]:.10g} {problem}")


def check_finite(time: np.ndarray, values: Mapping[str, np.ndarray], origin: Origin) -> None:
    """Refuse NaN and infinite values."""
    for field, x in values.items():
        _refuse_values(~np.isfinite(x), field, x, "is not a finite number", origin)


def check_times(time: np.ndarray, values: Mapping[str, np.ndarray], origin: Origin) -> None:
    """Refuse times outside 1900-2200, repeated times, and rows that are not oldest first."""
    outside = (time < TIME_BOUNDS[0]) | (time >= TIME_BOUNDS[1])
    refuse(outside, origin, lambda i: f"timestamp {format_time(time[i])} is not between the years 1900 and 2200")
    step = np.diff(time)
    after_first = np.concatenate(([False], step == 0))
    refuse(
        after_first,
        origin,
        lambda i: (
            f"timestamp {format_time(time[i])} repeats {origin.unit} {origin.rows[i - 1]}; "
            + (_LOCAL_TIMES if _clock_goes_back(time[i]) else "keep one bar a time")
        ),
    )
    newest_first = len(step) > 0 and bool((step < 0).all())

    def advice(i: int) -> str:
        if newest_first:
            return "the file is newest first, reverse it"
        return _LOCAL_TIMES if step[i - 1] >= -3_600 and _clock_goes_back(time[i]) else "sort the file by time"

    refuse(
        np.concatenate(([False], step < 0)),
        origin,
        lambda i: (
            f"timestamp {format_time(time[i])} comes before {format_time(time[i - 1])} of "
            f"{origin.unit} {origin.rows[i - 1]}; bars must be oldest first: {advice(i)}"
        ),
    )


def check_positive(time: np.ndarray, values: Mapping[str, np.ndarray], origin: Origin) -> None:
    """Refuse prices that are not positive, or too small or large for float32 arithmetic."""
    least, most = PRICE_BOUNDS
    for field in PRICES:
        x = values[field]
        _refuse_values(x <= 0, field, x, "is not positive", origin)
        unfit = (x < least) | (x > most)
        _refuse_values(unfit, field, x, f"is outside {least:g} to {most:g}; rescale the prices", origin)


def check_range(time: np.ndarray, values: Mapping[str, np.ndarray], origin: Origin) -> None:
    """Refuse high < low, and open or close outside [low, high] by more than `RANGE_TOLERANCE`."""
    high, low = values["high"], values["low"]
    refuse(high < low, origin, lambda i: f"high {high[i]:.10g} is below low {low[i]:.10g}")
    top, bottom = high * (1 + RANGE_TOLERANCE), low * (1 - RANGE_TOLERANCE)
    for field in ("open", "close"):
        x = values[field]
        _refuse_values(x > top, field, x, "is above the high of its bar", origin)
        _refuse_values(x < bottom, field, x, "is below the low of its bar", origin)


def check_volume(time: np.ndarray, values: Mapping[str, np.ndarray], origin: Origin) -> None:
    """Refuse negative volume, and volume too large for float32 arithmetic."""
    volume = values["volume"]
    _refuse_values(volume < 0, "volume", volume, "is negative", origin)
    _refuse_values(volume > VOLUME_BOUND, "volume", volume, f"is above {VOLUME_BOUND:g}", origin)


CHECKS: tuple[BarCheck, ...] = (check_times, check_finite, check_positive, check_range, check_volume)


def check_bars(time: np.ndarray, values: Mapping[str, np.ndarray], origin: Origin) -> None:
    """Run all `CHECKS` on the bars of one symbol in one file.

    Args:
        time: (T,) int64 UTC seconds.
        values: open, high, low, close and volume, each (T,) float64.
        origin: file, symbol and row numbers (T,) for the message.

    Raises:
        DataError: on the first check that fails, with its first bad row.
    """
    for check in CHECKS:
        check(time, values, origin)
