"""Columns of dates, timestamps, text or epoch numbers as UTC seconds. Pure."""

from __future__ import annotations

import re

import numpy as np
import polars as pl

from jaxppo.errors import DataError
from jaxppo.market.calendar import DAY, check_timezone
from jaxppo.market.quality import Origin, refuse

_DATES = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y")
_CLOCKS = ("", " %H:%M:%S%.f", " %H:%M", " %H%M%S", " %I:%M:%S %p", " %I:%M %p")
_TIME_FORMATS = tuple(date + clock for date in _DATES for clock in _CLOCKS)
_OFFSET = r"^(.*\d:\d\d(?::\d\d(?:\.\d+)?)?)\s*([Zz]|UTC|GMT|(?:UTC|GMT)?[+-][01]\d:?[0-5]\d|[+-][01]\d)$"
_EPOCH_UNITS = ((10**17, 1_000, 1), (10**14, 1, 1), (10**11, 1, 1_000), (10**8, 1, 1_000_000))
"""Least epoch number of each unit (ns, us, ms, s), and what to divide and multiply by for microseconds."""


_ABBREVIATIONS = {
    "EST": "-05:00", "EDT": "-04:00", "CDT": "-05:00", "MST": "-07:00", "MDT": "-06:00", "PST": "-08:00",
    "PDT": "-07:00", "WET": "+00:00", "WEST": "+01:00", "CET": "+01:00", "CEST": "+02:00", "EET": "+02:00",
    "EEST": "+03:00", "MSK": "+03:00", "HKT": "+08:00", "SGT": "+08:00", "JST": "+09:00", "KST": "+09:00",
    "AEST": "+10:00", "AEDT": "+11:00", "NZST": "+12:00", "NZDT": "+13:00",
}  # fmt: skip
"""Offsets that an abbreviation after a timestamp stands for. Not CST, IST and BST: each means two places or more."""
_NAMED = r"^(.*\d(?::\d\d)(?:.*?))\s*\[?([A-Za-z]+(?:/[A-Za-z_+\-0-9]+)+|[A-Z]{3,5})\]?$"
_SHORT_YEAR = r"^\d{1,2}[/.\-]\d{1,2}[/.\-]\d\d(\D|$)"


def parse_times(
    raw: pl.Series, timezone: str | None, said: str | None, origin: Origin, *, intraday: bool = False
) -> np.ndarray:
    """UTC seconds (T,) int64 of a column of dates, timestamps, text or epoch numbers.

    Epoch numbers count s, ms, us or ns from 1970 in UTC, told apart by their size. Where all rows are dates, or
    midnights of the offset or zone that they carry, they name days and are kept as 00:00 UTC of these, whatever the
    zone. Other timestamps with an offset or zone are converted. Naive ones are wall-clock time of the zone that the
    column's name says (`said`), or of `timezone`. Midnights of bars shorter than a day (`intraday`) are times like any
    other.
    """
    refuse(raw.is_null().to_numpy(), origin, lambda i: "timestamp is empty")
    if raw.dtype == pl.Date:
        return raw.cast(pl.Int64).to_numpy() * DAY
    east: np.ndarray | None = np.zeros(len(raw), np.int64)  # seconds (T,) of the offsets from UTC; None if naive
    if isinstance(raw.dtype, pl.Datetime):
        micros = raw.dt.replace_time_zone(None).dt.epoch("us").to_numpy()
        east = (micros - raw.dt.epoch("us").to_numpy()) // 1_000_000 if raw.dtype.time_zone else None
    elif raw.dtype.is_numeric():
        micros = _epoch_micros(raw, raw.cast(pl.Int64, strict=False), origin)
    elif raw.dtype == pl.String and re.fullmatch(r"[0-9]{8,19}(\.0*)?", raw[0]):
        digits = raw.str.replace(r"\.0*$", "")
        micros = _epoch_micros(raw, digits.cast(pl.Int64, strict=False), origin)
    elif raw.dtype == pl.String:
        raw, zone = _named_zone(raw, origin)
        said = zone or said
        micros, east = _text_micros(raw, origin)
    else:
        raise DataError(f"{origin.file}, symbol {origin.symbol}: the timestamp column holds {raw.dtype}, not times")
    refuse(micros % 1_000_000 != 0, origin, lambda i: f"timestamp {raw[i]} is not a whole second")
    seconds = micros // 1_000_000
    if not intraday and bool(_begins_day(seconds, east).all()):
        return seconds // DAY * DAY
    if east is not None:
        return seconds - east
    if said == "UTC":
        return seconds
    if said is not None and timezone not in (None, said):
        raise DataError(f"{origin.at(0)}: the file says {said} and --timezone {timezone}; leave --timezone out")
    timezone = said or timezone
    if timezone is None:
        raise DataError(
            f"{origin.at(0)}: timestamp {str(raw[0])!r} has no time zone; say which with --timezone, such as UTC, "
            "America/New_York or EET"
        )
    return _localize(seconds, timezone, raw, origin)


def _begins_day(seconds: np.ndarray, east: np.ndarray | None) -> np.ndarray:
    """Which wall-clock seconds (T,), `east` (T,) of UTC, are midnights.

    Where a clock goes forward at midnight, as in Cairo, the day begins at 01:00, which by the row before is midnight.
    """
    midnight: np.ndarray = seconds % DAY == 0
    if east is not None:
        before = np.concatenate((east[:1], east[:-1]))
        midnight = midnight | ((seconds - east + before) % DAY == 0)
    return midnight


def _epoch_micros(raw: pl.Series, numbers: pl.Series, origin: Origin) -> np.ndarray:
    """Microseconds (T,) int64 of epoch numbers, or of 8-digit dates such as 20240131."""
    exact = numbers.is_not_null()
    if raw.dtype.is_float():
        exact &= numbers.cast(pl.Float64) == raw
    refuse(~exact.to_numpy(), origin, lambda i: _not_understood(raw[i]))
    values = numbers.to_numpy()
    if 19_000_000 < values[0] < 22_000_000:
        days = numbers.cast(pl.String).str.to_datetime("%Y%m%d", strict=False, time_unit="us")
        refuse(days.is_null().to_numpy(), origin, lambda i: _not_understood(raw[i]))
        return days.dt.epoch("us").to_numpy()
    micros = np.zeros_like(values)
    known = np.zeros(len(values), bool)
    for least, divide, multiply in _EPOCH_UNITS:
        chosen = (values >= least) & ~known
        micros[chosen] = values[chosen] // divide * multiply
        known |= chosen
    refuse(~known, origin, lambda i: _not_understood(raw[i]))
    return micros


def _named_zone(raw: pl.Series, origin: Origin) -> tuple[pl.Series, str | None]:
    """Timestamps in text with offsets in place of zones' abbreviations, or without the IANA zone that all rows name."""
    groups = raw.str.extract_groups(_NAMED).struct.unnest()
    body, zone = groups.to_series(0), groups.to_series(1)
    zone = zone.set(zone.is_in(["UTC", "GMT", "AM", "PM"]).fill_null(False), None)
    if zone.null_count() == len(zone):
        return raw, None
    known = zone.replace_strict(_ABBREVIATIONS, default=None, return_dtype=pl.String)
    if known.null_count() == 0:
        return (body.str.strip_chars() + known).rename(raw.name), None
    name = zone[0]
    if name is not None and "/" in name and zone.n_unique() == 1:
        check_timezone(name)
        plain = body.str.strip_chars()
        return plain, None if plain.str.contains(_OFFSET).all() else name
    unclear = (known.is_null() & (zone.is_null() | (zone != zone[0]) | ~zone.str.contains("/"))).to_numpy()
    refuse(
        unclear,
        origin,
        lambda i: (
            f"timestamp {raw[i]!r}: the zone {zone[i]!r} is not known or means several places; write an offset such as"
            " -06:00, or a zone such as America/Chicago in every row"
        ),
    )
    raise DataError(f"{origin.at(0)}: timestamps of several zones; write offsets such as -06:00 in every row")


def _text_micros(raw: pl.Series, origin: Origin) -> tuple[np.ndarray, np.ndarray | None]:
    """Wall-clock microseconds (T,) int64 of timestamps in text, and their offsets (T,) in seconds; None if naive."""
    groups = raw.str.extract_groups(_OFFSET).struct.unnest()
    body, offset = groups.to_series(0), groups.to_series(1)
    has_offset = offset.is_not_null().to_numpy()
    clock = _parse_text(body.zip_with(offset.is_not_null(), raw).str.replace(r"(\d)[Tt](\d)", "$1 $2"), raw, origin)
    refuse(
        has_offset != has_offset[0],
        origin,
        lambda i: f"timestamp {raw[i]!r} has {'a' if has_offset[i] else 'no'} UTC offset, unlike the first, {raw[0]!r}",
    )
    hours = offset.str.extract(r"([+-]\d\d)").cast(pl.Int64).fill_null(0)
    minutes = offset.str.extract(r"[+-]\d\d:?(\d\d)").cast(pl.Int64).fill_null(0)
    west = offset.str.contains("-", literal=True).fill_null(False).to_numpy()
    east_seconds = hours.to_numpy() * 3600 + np.where(west, -60, 60) * minutes.to_numpy()
    return clock, east_seconds if has_offset[0] else None


def _parse_text(text: pl.Series, raw: pl.Series, origin: Origin) -> np.ndarray:
    """Microseconds (T,) int64 of naive timestamps, in the one format that all rows share."""
    short = text.str.contains(_SHORT_YEAR).to_numpy()
    refuse(short, origin, lambda i: f"timestamp {raw[i]!r} has a year of two digits; write 2024-01-31 throughout")
    leap = text.str.contains(r":60(\.|$| )")  # a leap second would be parsed as the next minute

    def parse(values: pl.Series, time_format: str) -> pl.Series:
        return values.str.to_datetime(time_format, strict=False, time_unit="us")

    formats = [f for f in _TIME_FORMATS if parse(text.head(1), f)[0] is not None]
    if not formats:
        raise DataError(f"{origin.at(0)}: {_not_understood(raw[0])}")
    parsed = [parse(text, f) for f in formats]
    best = min(parsed, key=lambda times: times.null_count())
    refuse((best.is_null() | leap).to_numpy(), origin, lambda i: _not_understood(raw[i]))
    if any(times.null_count() == 0 and not times.equals(best) for times in parsed):
        raise DataError(
            f"{origin.at(0)}: dates such as {raw[0]!r} can be read as day first or month first; write 2024-01-31"
        )
    return best.dt.epoch("us").to_numpy()


def _not_understood(value: object) -> str:
    return (
        f"timestamp {str(value)[:40]!r} is not understood or unlike the rows above; write 2024-01-31 09:30:00, "
        "2024-01-31T09:30:00Z, 2024-01-31 or an epoch number throughout"
    )


def _localize(seconds: np.ndarray, timezone: str, raw: pl.Series, origin: Origin) -> np.ndarray:
    """UTC seconds (T,) of wall-clock seconds (T,); where the clock goes back, the order of rows must tell which."""
    wall = pl.Series(seconds * 1_000_000).cast(pl.Datetime("us"))
    earliest = wall.dt.replace_time_zone(timezone, ambiguous="earliest", non_existent="null").dt.epoch("s")
    refuse(
        earliest.is_null().to_numpy(),
        origin,
        lambda i: f"local time {raw[i]} does not exist in {timezone} (the clock goes forward); check --timezone",
    )
    latest = wall.dt.replace_time_zone(timezone, ambiguous="latest", non_existent="null").dt.epoch("s").to_numpy()
    time = earliest.to_numpy().copy()
    ambiguous = np.flatnonzero(time != latest)
    unsettled = np.zeros(len(time), bool)
    for hour in np.split(ambiguous, np.flatnonzero(np.diff(ambiguous) > 1) + 1):
        turns = np.flatnonzero(np.diff(seconds[hour]) <= 0)
        if len(turns) == 1:  # the wall clock repeats once: what follows is after the change
            time[hour[turns[0] + 1 :]] = latest[hour[turns[0] + 1 :]]
        elif len(turns) == 0:
            unsettled[hour] = True
    # With more turns the rows are not in order at all, which the check of the order reports.
    refuse(
        unsettled,
        origin,
        lambda i: (
            f"local time {raw[i]} is ambiguous in {timezone} (the clock goes back) and the order of the rows "
            "does not tell which of the two is meant; write UTC timestamps"
        ),
    )
    return time
