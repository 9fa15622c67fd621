"""How bar files are laid out: intervals, headers and column names.

Pure: names, text and columns in, positions and arrays out. Reading is done in `jaxppo.market.bars`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import polars as pl

from jaxppo.errors import DataError
from jaxppo.market.calendar import format_interval
from jaxppo.market.names import FileName
from jaxppo.market.quality import Origin, check_numbers, refuse_columns

_INDEX = ("index", "__index_level_0__")
TIME_COLUMNS = (
    "open_time",
    "timestamp",
    "datetime",
    "unix",
    "date",
    "time",
    "local_time",
    "starttime",
    "window_start",
    "t",
    "",
    "unnamed:_0",
    *_INDEX,
)
SYMBOL_COLUMNS = ("symbol", "ticker", "tic")
_ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "time": TIME_COLUMNS,
        "open": ("open", "o", "openprice"),
        "high": ("high", "h", "highprice"),
        "low": ("low", "l", "lowprice"),
        "close": ("close", "c", "closeprice", "last", "price"),
        "volume": ("volume", "tick_volume", "tickvol", "vol", "vol.", "v", "real_volume"),
        "symbol": SYMBOL_COLUMNS,
    }
)
"""Column names by field, the preferred one first; `clock` joins `time` where Date and Time are two columns."""

_BINANCE = ("open_time", "open", "high", "low", "close", "volume") + tuple(f"ignored_{i}" for i in range(6))
_METATRADER_4 = ("date", "time", "open", "high", "low", "close", "volume")
_OHLCVT = ("time", "open", "high", "low", "close", "volume", "trades")  # Kraken's, HistData's and others' begin so

_FEW_BARS = 20  # below this many, the most common spacing says little against a file's name


class NoBarsError(DataError):
    """A table that plainly holds no bars: none of its columns is a price."""


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
    timezone: str | None  # that the name of the time column says, as in Time (UTC)


class TableKind(NamedTuple):
    """How the head of a kind of table is understood; `BARS` is one."""

    layout: Callable[[Sequence[Sequence[str]], str], Layout]  # of the first lines of a CSV file
    columns: Callable[[Sequence[str], str], Columns]  # of the names of columns


_ZONES = {"utc": "UTC", "gmt": "UTC", "eet": "EET", "cet": "CET", "wet": "WET", "met": "MET"}
"""Zones in names of columns. EST and its like are left out: some mean New York by them, some UTC-5 all year round."""


def _without_zone(name: str) -> tuple[str, str | None]:
    """A column's plain name without the zone that it says, and the zone: `time_(eet)` and `gmt_time`."""
    for pattern, zone, rest in ((r"(.+?)_?\((\w+)\)", 2, 1), (r"(.+)_(\w+)", 2, 1), (r"(\w+?)_(.+)", 1, 2)):
        found = re.fullmatch(pattern, name)
        if found and found[zone] in _ZONES:
            return found[rest], _ZONES[found[zone]]
    return ("", _ZONES[name]) if name in _ZONES else (name, None)


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

    Besides one header line: Binance klines, MetaTrader 4 exports and plain OHLCV without any, and the three lines that
    yfinance writes (Price, Ticker, Date; with group_by="ticker" the first two the other way round).
    """
    first = [cell.strip() for cell in rows[0]]
    if first[0].startswith(("http://", "https://")):  # CryptoDataDownload's files begin so
        raise DataError(f"{file}, line 1: an address in place of the header; delete that line")
    if first[0] == "Ticker" and len(rows) > 1 and rows[1] and rows[1][0].strip() == "Price":
        rows, first = [rows[1], rows[0], *rows[2:]], [cell.strip() for cell in rows[1]]
    if first[0] == "Price" and len(rows) > 1 and rows[1] and rows[1][0].strip() == "Ticker":
        tickers = {cell.strip() for cell in rows[1][1:]}
        if len(tickers) != 1:
            raise DataError(f"{file}: the columns of {len(tickers)} tickers stand side by side; save one file a ticker")
        return Layout(("date", *first[1:]), 3, tickers.pop() or None)
    if re.fullmatch(r"[0-9][0-9.:/ \-TZ+]*", first[0]) and len(first) > 1:
        names = _headerless([[cell.strip() for cell in row] for row in rows if len(row) == len(first)])
        if names is None:
            raise DataError(f"{file}, line 1: no header; the first line must name timestamp, open, high, low and close")
        return Layout(names, 0)
    return Layout(tuple(first), 1)


def _headerless(rows: Sequence[Sequence[str]]) -> tuple[str, ...] | None:
    """Names of the columns of bars without a header; None where cells and their order do not tell them."""
    if len(rows[0]) == len(_BINANCE):
        return _BINANCE
    clock = re.fullmatch(r"\d{1,2}:?\d\d(:?\d\d)?", rows[0][1]) is not None and ":" not in rows[0][0]
    names = _METATRADER_4 if clock else _OHLCVT
    if not 5 + clock <= len(rows[0]) <= len(names):
        return None
    try:
        prices = np.array([[float(x) for x in row[1 + clock : 5 + clock]] for row in rows])
    except ValueError:
        return None
    inside = (prices <= prices[:, 1:2]) & (prices >= prices[:, 2:3])  # Coinbase's time, low, high, open, close is not
    return names[: len(rows[0])] if inside.all() else None


def find_columns(names: Sequence[str], file: str) -> Columns:
    """Positions of the fields among `names`, whatever their case; `DataError` where one is missing or named twice."""
    plain = [re.sub(r"\s+", "_", name.strip().strip("<>").lower()) for name in names]
    bare, zones = zip(*map(_without_zone, plain), strict=True)
    index: dict[str, int] = {}
    for field, aliases in _ALIASES.items():
        candidates = list(bare if field == "time" else plain)
        if field == "volume":  # some exchanges name the currency too: Volume BTC
            aliases += tuple(name for name in plain if name.startswith("volume_"))
        alias = next((alias for alias in aliases if alias in candidates), None)
        if alias is None:
            continue
        same = [i for i, name in enumerate(candidates) if name == alias]
        if field == "time" and len(same) > 1:  # Time (EET) beside Time (UTC)
            same = [i for i in same if zones[i] == "UTC"] or same
        index[field] = same[0]
        if len(same) > 1:
            twice = " and ".join(repr(names[i]) for i in same)
            raise DataError(f"{file}: columns {twice} are both the {field}; keep one")
    missing = ["timestamp" if field == "time" else field for field in list(_ALIASES)[:5] if field not in index]
    if missing:
        if not {"open", "high", "low", "close"} & set(index):
            raise NoBarsError(
                f"{file}: no column for open, high, low or close among {', '.join(map(repr, names[:12]))}"
            )
        refuse_columns(file, missing, names)
    position = index["time"]
    if bare[position] == "date" and "time" in bare:
        index["clock"] = bare.index("time")
    return Columns(index, zones[position])


BARS = TableKind(csv_layout, find_columns)


def time_column(names: Sequence[str], file: str) -> tuple[int | None, str | None]:
    """Position of the column of times among `names`, None where there is none, and the zone that its name says."""
    bare, zones = zip(*(_without_zone(re.sub(r"\s+", "_", name.strip().lower())) for name in names), strict=True)
    alias = next((alias for alias in TIME_COLUMNS if alias in bare), None)
    same = [i for i, name in enumerate(bare) if name == alias]
    if len(same) > 1:
        twice = " and ".join(repr(names[i]) for i in same)
        raise DataError(f"{file}: columns {twice} are both the timestamp; keep one")
    return (same[0], zones[same[0]]) if same else (None, None)


def header_layout(rows: Sequence[Sequence[str]], file: str) -> Layout:
    """Layout of a table that begins with one line of names."""
    return Layout(tuple(cell.strip() for cell in rows[0]), 1)


def parse_numbers(raw: pl.Series, field: str, origin: Origin) -> np.ndarray:
    """Values (T,) float64 of a column of numbers or text; a dot is the decimal sign, and 1.2M volume is 1,200,000."""
    if not (raw.dtype.is_numeric() or raw.dtype in (pl.String, pl.Null)):
        raise DataError(f"{origin.file}, symbol {origin.symbol}: column {field} holds {raw.dtype}, not numbers")
    if field == "volume" and raw.dtype == pl.String and raw.str.contains(r"[KMB]$").any():  # Investing.com
        parts = raw.str.extract_groups(r"^([0-9.]+)([KMB]?)$").struct.unnest()
        sizes = parts.to_series(1).replace_strict({"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9}, default=None)
        numbers = parts.to_series(0).cast(pl.Float64, strict=False) * sizes
    else:
        numbers = raw.cast(pl.Float64, strict=False)
    check_numbers(raw, numbers, field, origin)
    return numbers.to_numpy().copy()
