"""How bar files are laid out: intervals, column names and timestamps.

Pure: names, text and columns in, positions and arrays out. Reading is done in `jaxppo.market.bars`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import polars as pl

from jaxppo.errors import DataError
from jaxppo.market.calendar import DAY, format_interval
from jaxppo.market.names import FileName
from jaxppo.market.quality import Origin, check_numbers, refuse, refuse_columns

_INDEX = ("index", "__index_level_0__")
_ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "time": (
            "open_time",
            "timestamp",
            "datetime",
            "unix",
            "date",
            "time",
            "local_time",
            "t",
            "",
            "unnamed:_0",
            *_INDEX,
        ),
        "open": ("open", "o"),
        "high": ("high", "h"),
        "low": ("low", "l"),
        "close": ("close", "c"),
        "volume": ("volume", "tick_volume", "tickvol", "vol", "v", "real_volume"),
        "symbol": ("symbol", "ticker", "tic"),
    }
)
"""Column names by field, the preferred one first; `clock` joins `time` where Date and Time are two columns."""

_BINANCE = ("open_time", "open", "high", "low", "close", "volume") + tuple(f"ignored_{i}" for i in range(6))
_METATRADER_4 = ("date", "time", "open", "high", "low", "close", "volume")

_DATES = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y")
_CLOCKS = ("", " %H:%M:%S%.f", " %H:%M", " %H%M%S", " %I:%M:%S %p", " %I:%M %p")
_TIME_FORMATS = tuple(date + clock for date in _DATES for clock in _CLOCKS)
_FEW_BARS = 20  # below this many, the most common spacing says little against a file's name
_OFFSET = r"^(.*\d:\d\d(?::\d\d(?:\.\d+)?)?)\s*([Zz]|UTC|GMT|(?:UTC|GMT)?[+-][01]\d:?[0-5]\d|[+-][01]\d)$"
_EPOCH_UNITS = ((10**17, 1_000, 1), (10**14, 1, 1), (10**11, 1, 1_000), (10**8, 1, 1_000_000))
"""Least epoch number of each unit (ns, us, ms, s), and what to divide and multiply by for microseconds."""


@dataclass(frozen=True)
class Layout:
    """The head of a table."""

    names: tuple[str, ...]  # one per column
    header_lines: int  # lines above the first bar
    symbol: str | None = None  # where the header names one


@dataclass(frozen=True)
class Columns:
    """Positions of the fields among a file's columns."""

    index: Mapping[str, int]  # time, open, high, low, close; where present clock, volume, symbol
    utc: bool  # the name of the time column says UTC or GMT


def bar_interval(time: np.ndarray, name: FileName, wanted: int | None, where: str) -> int:
    """Seconds between bars: the name's, if the spacings (T - 1,) allow it, else the most common (least) spacing.

    A bare number of minutes in the name is one where the spacings allow it, and else says nothing.
    """
    if len(time) < 2:
        if one := name.interval or wanted or name.minutes:
            return one
        raise DataError(f"{where}: one bar does not tell its interval; say it with --interval or in the file name")
    spacings, counts = np.unique(np.diff(time), return_counts=True)
    common = int(spacings[np.argmax(counts)])
    for named in (name.interval, name.minutes):
        # Thinly traded symbols may skip most bars: the name is right if some spacing is its interval.
        if named and (named in (common, spacings[0]) or (len(time) < _FEW_BARS and named <= spacings[0])):
            return named
    if name.interval is None:
        return common
    raise DataError(
        f"{where}: the file name says {format_interval(name.interval)}, but the bars are mostly"
        f" {format_interval(common)} apart; rename the file or replace it"
    )


def csv_layout(rows: Sequence[Sequence[str]], file: str) -> Layout:
    """Layout of a CSV file from its first lines (at least one).

    Besides one header line: Binance klines and MetaTrader 4 exports without any, and the three lines that yfinance
    writes (Price, Ticker, Date).
    """
    first = [cell.strip() for cell in rows[0]]
    if first[0] == "Price" and len(rows) > 1 and rows[1] and rows[1][0].strip() == "Ticker":
        tickers = {cell.strip() for cell in rows[1][1:]}
        if len(tickers) != 1:
            raise DataError(f"{file}: the columns of {len(tickers)} tickers stand side by side; save one file a ticker")
        return Layout(("date", *first[1:]), 3, tickers.pop() or None)
    if re.fullmatch(r"[0-9][0-9.:/ \-]*", first[0]) and len(first) > 1:
        known = {12: _BINANCE, 7: _METATRADER_4}.get(len(first))
        if known is None:
            raise DataError(f"{file}, line 1: no header; the first line must name timestamp, open, high, low and close")
        return Layout(known, 0)
    return Layout(tuple(first), 1)


def find_columns(names: Sequence[str], file: str) -> Columns:
    """Positions of the fields among `names`, whatever their case; `DataError` where one is missing or named twice."""
    plain = [re.sub(r"\s+", "_", name.strip().strip("<>").lower()) for name in names]
    bare = [re.sub(r"_?\(?\b(utc|gmt)\b\)?_?|_(utc|gmt)$|^(utc|gmt)_", "", name) for name in plain]
    index: dict[str, int] = {}
    for field, aliases in _ALIASES.items():
        candidates = bare if field == "time" else plain
        if field == "volume":  # some exchanges name the currency too: Volume BTC
            aliases += tuple(name for name in plain if name.startswith("volume_"))
        alias = next((alias for alias in aliases if alias in candidates), None)
        if alias is None:
            continue
        index[field] = candidates.index(alias)
        if candidates.count(alias) > 1:
            twice = " and ".join(repr(name) for name, c in zip(names, candidates, strict=True) if c == alias)
            raise DataError(f"{file}: columns {twice} are both the {field}; keep one")
    missing = ["timestamp" if field == "time" else field for field in list(_ALIASES)[:5] if field not in index]
    if missing:
        refuse_columns(file, missing, names)
    position = index["time"]
    if bare[position] == "date" and "time" in bare:
        index["clock"] = bare.index("time")
    return Columns(index, utc=bare[position] != plain[position])


def parse_numbers(raw: pl.Series, field: str, origin: Origin) -> np.ndarray:
    """Values (T,) float64 of a column of numbers or text; a dot is the decimal sign."""
    if not (raw.dtype.is_numeric() or raw.dtype in (pl.String, pl.Null)):
        raise DataError(f"{origin.file}, symbol {origin.symbol}: column {field} holds {raw.dtype}, not numbers")
    numbers = raw.cast(pl.Float64, strict=False)
    check_numbers(raw, numbers, field, origin)
    return numbers.to_numpy().copy()


def parse_times(
    raw: pl.Series, timezone: str | None, utc: bool, origin: Origin, *, intraday: bool = False
) -> np.ndarray:
    """UTC seconds (T,) int64 of a column of dates, timestamps, text or epoch numbers.

    Epoch numbers count s, ms, us or ns from 1970 in UTC, told apart by their size. Where all rows are dates, or
    midnights of the offset or zone that they carry, they name days and are kept as 00:00 UTC of these, whatever the
    zone. Other timestamps with an offset or zone are converted. Naive ones are wall-clock time of `timezone`, or UTC
    where the column's name says so (`utc`). Midnights of bars shorter than a day (`intraday`) are times like any other.
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
        micros, east = _text_micros(raw, origin)
    else:
        raise DataError(f"{origin.file}, symbol {origin.symbol}: the timestamp column holds {raw.dtype}, not times")
    refuse(micros % 1_000_000 != 0, origin, lambda i: f"timestamp {raw[i]} is not a whole second")
    seconds = micros // 1_000_000
    if not intraday and bool(_begins_day(seconds, east).all()):
        return seconds // DAY * DAY
    if east is not None:
        return seconds - east
    if utc:
        return seconds
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
