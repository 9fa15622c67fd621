"""Bars from Parquet and CSV files, as users have them, checked.

Read as they are: Binance klines (with or without header; ms or us), Alpaca, yfinance, MetaTrader 4 and 5, Dukascopy,
and any table with a time column and open, high, low, close. Nothing is filled, sorted, dropped or resampled: bars that
cannot be trusted are a `DataError` that names file, symbol, row and field.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl

from jaxppo.errors import ConfigError, DataError, nearest
from jaxppo.market.asset_classes import OTHERWISE, asset_class_of, class_reason, guess_asset_class
from jaxppo.market.calendar import (
    DAY,
    check_timezone,
    format_interval,
    parse_interval,
)
from jaxppo.market.files import (
    Table,
    bar_files,
    check_symbol,
    open_table,
    passed_over,
    read_table,
    reading,
    split_symbols,
)
from jaxppo.market.formats import bar_interval, parse_numbers
from jaxppo.market.names import SYMBOL, FileName, read_name, some_symbols, symbol_pattern
from jaxppo.market.quality import FIELDS, Origin, check_bars, check_times, format_time
from jaxppo.market.timestamps import parse_times

POOLED, PORTFOLIO = "POOLED", "PORTFOLIO"
"""The names of all symbols together in tables and reports, which no symbol may have."""
CLOSES_MEAN = (
    "an order decided at a close fills at the next close, a bar late, and no stop-loss or take-profit can be hit within"
    " a bar"
)
"""What it means that bars are closes alone."""
_NO_GUESS = "not recognised, perhaps futures or indices: its fee, short selling and days a year hold"


@dataclass(frozen=True, eq=False)
class Bars:
    """The bars of one symbol at one interval, oldest first, in unadjusted prices as the files have them."""

    symbol: str
    asset_class: str  # a name in `ASSET_CLASSES`
    interval: int  # seconds
    timezone: str  # IANA zone of the market, for calendar features; UTC for bars that name days (all at 00:00 UTC)
    time: np.ndarray  # (T,) int64, UTC seconds at the start of each bar, strictly increasing
    open: np.ndarray  # (T,) float64
    high: np.ndarray  # (T,) float64
    low: np.ndarray  # (T,) float64
    close: np.ndarray  # (T,) float64
    volume: np.ndarray  # (T,) float64, zeros where the source has none
    source: str  # file names, for messages
    seams: tuple[int, ...] = ()  # first bar of each file but the first, where several were joined
    dividend: np.ndarray | None = None  # (T,) float64 cash that a unit held until a bar opens is paid there; None: none

    @property
    def closes_alone(self) -> bool:
        """Whether nothing but closes is known: no bar has a range or any volume."""
        flat = all(np.array_equal(x, self.close) for x in (self.open, self.high, self.low))
        return flat and not self.volume.any()


@dataclass(frozen=True)
class Refusal:
    """Why a file, or one symbol in it, is not used."""

    file: str
    symbol: str
    reason: str  # file, row and field included


@dataclass(frozen=True, eq=False)
class _Piece:
    """The bars of one symbol in one file."""

    symbol: str
    interval: int
    file: str
    series: str | None  # the file's name without dates, where the symbol comes from it; joined files share it
    time: np.ndarray  # (T,) int64
    values: Mapping[str, np.ndarray]  # each (T,) float64


_Seen = set[tuple[str, int | None]]  # symbols and intervals that were found, read or not


def load_bars(
    path: str | Path,
    *,
    interval: str | None = None,
    symbols: Sequence[str] = (),
    timezone: str | None = None,
    asset_classes: Mapping[str, str] = MappingProxyType({}),
    symbol_from: str | None = None,
) -> list[Bars]:
    """Bars of a file, or of the .parquet, .pq, .csv and .tsv files of a folder (not of its subfolders), by symbol.

    Symbols come from a symbol (or ticker) column, else from the file name: BTCUSDT-1h-2023-01.csv holds BTCUSDT (see
    `jaxppo.market.names`). Files of one symbol whose names differ in dates alone are joined in time order. Intervals
    come from the file name where it has one and the data agree, else from the most common spacing. Columns are found
    whatever their case: open_time, timestamp, datetime, date or time; open, high, low, close or o, h, l, c; volume,
    tick_volume or v, zeros without. `Adj Close` is ignored: raw prices are what an order would have filled at, and
    mixing both would break high >= close. Epoch numbers are UTC (MetaTrader's Python API returns server time as if it
    were; convert it first). Blank lines are skipped.

    Args:
        path: file or folder.
        interval: such as 1h; required where the symbols asked for have several. Files of other intervals are left out;
            where the name tells, unread.
        symbols: those to load; all when empty.
        timezone: IANA zone of timestamps without one. Daily dates need none: they are kept as 00:00 UTC.
        asset_classes: equity, crypto or fx by symbol, where `guess_asset_class` would be wrong.
        symbol_from: where file names hold the symbol, such as acme_{symbol}_*, where they would not be understood.

    Raises:
        DataError: files that are missing, cannot be read or trusted, or do not hold what was asked for.
        ConfigError: an interval, time zone or asset class that does not exist.
    """
    path = Path(path)
    wanted = _check_options(interval, timezone, asset_classes)
    files = bar_files(path)
    if wanted is None and not symbols:
        _check_names(path, files)
    asked = _Asked(wanted, symbols, timezone, _namer(symbol_from))
    seen: _Seen = set()
    pieces: list[_Piece] = []
    for file in files:
        with reading(file):
            pieces += _load_file(file, asked, seen, None)
    _check_found(path, pieces, seen, wanted, symbols)
    _check_known(asset_classes, seen)
    by_symbol: dict[str, list[_Piece]] = {}
    for piece in pieces:
        by_symbol.setdefault(piece.symbol, []).append(piece)
    return [_join(by_symbol[symbol], asset_classes) for symbol in sorted(by_symbol)]


def survey_bars(
    path: str | Path,
    *,
    interval: str | None = None,
    symbols: Sequence[str] = (),
    timezone: str | None = None,
    asset_classes: Mapping[str, str] = MappingProxyType({}),
    symbol_from: str | None = None,
) -> tuple[list[Bars], list[Refusal]]:
    """All bars there are, whatever their intervals, and why the rest is refused: `load_bars` of each file and symbol.

    One file or symbol that is refused leaves the others as they are. Arguments as of `load_bars`.

    Raises:
        DataError: no such file or folder, no bar file in it, or nothing of what was asked for.
        ConfigError: an interval, time zone or asset class that does not exist.
    """
    path = Path(path)
    wanted = _check_options(interval, timezone, asset_classes)
    asked = _Asked(wanted, symbols, timezone, _namer(symbol_from))
    seen: _Seen = set()
    pieces: list[_Piece] = []
    refused: list[Refusal] = []
    for file in bar_files(path):
        try:
            with reading(file):
                pieces += _load_file(file, asked, seen, refused)
        except DataError as error:
            refused.append(Refusal(file.name, read_name(file.stem).symbol, str(error)))
    if not refused:
        _check_found(path, pieces, seen, wanted, symbols, several=True)
        _check_known(asset_classes, seen)
    groups: dict[tuple[str, int], list[_Piece]] = {}
    for piece in pieces:
        groups.setdefault((piece.symbol, piece.interval), []).append(piece)
    bars = []
    for (symbol, _), group in sorted(groups.items()):
        try:
            bars.append(_join(group, asset_classes))
        except DataError as error:
            refused.append(Refusal(group[0].file, symbol, str(error)))
    return bars, refused


def describe_symbols(bars: Sequence[Bars], folder: str | None = None) -> list[str]:
    """What was made of files: a line a class with its symbols and why, one a join, and what `folder` holds besides.

    Example:
      >>> from jaxppo.market.synthetic import synthetic_market
      >>> describe_symbols(synthetic_market(27))[0]
      'class equity (no pair of known currencies or coins): SYN_A, SYN_B, SYN_C, SYN_D, SYN_E, SYN_F, SYN_G, SYN_H'
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for b in bars:
        guessed = b.closes_alone and b.asset_class == OTHERWISE == guess_asset_class(b.symbol)
        why = _NO_GUESS if guessed else class_reason(b.symbol, b.asset_class)
        groups.setdefault((b.asset_class, why), []).append(b.symbol)
    unread = [] if folder is None else passed_over(Path(folder))
    others = [f"not read, no bars as they are: {', '.join(unread)}"] if unread else []
    lines = []
    for (name, why), symbols in groups.items():
        once = list(dict.fromkeys(symbols))
        lines.append(f"class {name} ({why}): {some_symbols(once) if why == _NO_GUESS else ', '.join(once)}")
    if closes := list(dict.fromkeys(b.symbol for b in bars if b.closes_alone)):
        lines.append(f"closes alone, without range or volume ({some_symbols(closes)}): {CLOSES_MEAN}")
    return lines + [f"{len(b.seams) + 1} files of {b.symbol} joined: {b.source}" for b in bars if b.seams] + others


def slice_bars(bars: Bars, rows: slice) -> Bars:
    """Some consecutive bars."""
    fields: Any = {k: getattr(bars, k)[rows] for k in ("time", "open", "high", "low", "close", "volume")}
    dividend = None if bars.dividend is None else bars.dividend[rows]
    return dataclasses.replace(bars, **fields, dividend=dividend)


def data_hash(bars: Sequence[Bars]) -> str:
    """SHA-256 (hex) over symbols, intervals, times, prices and volumes, whatever the order, names and kind of files."""
    digest = hashlib.sha256()
    for b in sorted(bars, key=lambda b: (b.symbol, b.interval)):
        digest.update(f"{len(b.symbol)}:{b.symbol}:{b.interval}:{len(b.time)}:".encode())
        digest.update(np.ascontiguousarray(b.time, "<i8").tobytes())
        for field in FIELDS:
            digest.update(np.ascontiguousarray(getattr(b, field), "<f8").tobytes())
        if b.dividend is not None:
            digest.update(np.ascontiguousarray(b.dividend, "<f8").tobytes())
    return digest.hexdigest()


def _check_options(interval: str | None, timezone: str | None, asset_classes: Mapping[str, str]) -> int | None:
    """Refuse what does not exist; the interval in seconds."""
    if timezone is not None:
        check_timezone(timezone)
    for asset_class in asset_classes.values():
        asset_class_of(asset_class)
    return None if interval is None else parse_interval(interval)


def _check_names(path: Path, files: Sequence[Path]) -> None:
    """Refuse a folder of several intervals before reading it, where all file names tell theirs."""
    named: _Seen = {(name.symbol, name.interval) for name in (read_name(f.stem) for f in files)}
    intervals = {interval for _, interval in named}
    if None not in intervals and len(intervals) > 1:
        raise _several_intervals(path, named)


def _several_intervals(path: Path, seen: _Seen) -> DataError:
    return DataError(f"{path}: bars of several intervals, {_listing(seen)}; choose one with --interval")


def _listing(seen: _Seen) -> str:
    """Intervals and how many symbols have them: `1h (20 symbols), 1d (1 symbol)`."""
    counts: dict[int, int] = {}
    for _, interval in seen:
        counts[interval or 0] = counts.get(interval or 0, 0) + 1
    return ", ".join(
        f"{format_interval(seconds) if seconds else 'unread'} ({n} symbol{'s' if n > 1 else ''})"
        for seconds, n in sorted(counts.items())
    )


def _check_found(
    path: Path,
    pieces: Sequence[_Piece],
    seen: _Seen,
    wanted: int | None,
    symbols: Sequence[str],
    several: bool = False,
) -> None:
    """Refuse when what was asked for is not there, or has several intervals unless `several` may be."""
    names = {symbol for symbol, _ in seen}
    for symbol in symbols:
        if symbol not in names:
            raise DataError(f"{path}: no symbol {symbol!r}; {nearest(symbol.upper(), names)}")
    asked = {(s, i) for s, i in seen if not symbols or s in symbols}
    if not pieces:
        of = f" of {', '.join(symbols)}" if symbols else ""
        raise DataError(f"{path}: no bars{of} at interval {format_interval(wanted or 0)}; there are {_listing(asked)}")
    if several:
        return
    if len({piece.interval for piece in pieces}) > 1:
        raise _several_intervals(path, {(piece.symbol, piece.interval) for piece in pieces})
    loaded = {piece.symbol for piece in pieces}
    for symbol in symbols:
        if symbol not in loaded:
            has = ", ".join(format_interval(i) for s, i in sorted(asked, key=str) if s == symbol and i)
            chosen = format_interval(pieces[0].interval)
            raise DataError(f"{path}: symbol {symbol!r} has no bars at interval {chosen}; it has {has}")


def _check_known(asset_classes: Mapping[str, str], seen: _Seen) -> None:
    names = {symbol for symbol, _ in seen}
    for symbol in asset_classes:
        if symbol not in names:
            raise ConfigError(f"asset class given for unknown symbol {symbol!r}; {nearest(symbol.upper(), names)}")


@dataclass(frozen=True)
class _Asked:
    """What is wanted of each file."""

    interval: int | None
    symbols: Sequence[str]
    timezone: str | None
    name: Callable[[str], FileName]  # of a file's name without its suffix


def _namer(pattern: str | None) -> Callable[[str], FileName]:
    """How file names are read: by themselves, or with the symbol where a pattern has it."""
    if pattern is None:
        return read_name
    symbol = symbol_pattern(pattern)
    return lambda stem: dataclasses.replace(read_name(stem), symbol=symbol(stem), rest="", doubt=None)


def _load_file(path: Path, asked: _Asked, seen: _Seen, refused: list[Refusal] | None) -> list[_Piece]:
    """Pieces of the asked symbols and interval; what else the file holds is added to `seen` as far as it is known.

    A symbol that is refused is added to `refused`, or raises where that is None.
    """
    name, wanted, symbols = asked.name(path.stem), asked.interval, asked.symbols
    if wanted is not None and name.interval not in (None, wanted):
        seen.add((name.symbol, name.interval))
        return []
    table = open_table(path)
    by_name = "symbol" not in table.columns.index and table.symbol is None
    if by_name and name.doubt is not None:
        raise DataError(
            f"{path.name}: {name.doubt}; say where names of files hold it with --symbol-from, such as"
            f" '{_suggestion(path.stem, name.symbol)}', or rename the file"
        )
    if "symbol" not in table.columns.index:
        symbol = check_symbol(table.symbol or name.symbol, path.name)
        if symbols and symbol not in symbols:
            seen.add((symbol, name.interval))
            return []
        groups = {symbol: read_table(table)}
    else:
        groups = split_symbols(table, read_table(table))
    pieces = []
    for symbol, frame in groups.items():
        if symbols and symbol not in symbols:
            seen.add((symbol, name.interval))
            continue
        try:
            piece = _piece(table, symbol, frame, name, asked, name.rest if by_name else None)
        except DataError as error:
            if refused is None:
                raise
            refused.append(Refusal(path.name, symbol, str(error)))
            continue
        seen.add((symbol, piece.interval))
        if wanted in (None, piece.interval):
            pieces.append(piece)
    return pieces


def _suggestion(stem: str, symbol: str) -> str:
    """A pattern that reads the last word of a doubtful `symbol` out of a file's name."""
    word = re.split(r"[_-]", symbol)[-1]
    before, _, after = stem.rpartition(word)
    return f"{'*' + before[-1] if before else ''}{SYMBOL}{after[:1] + '*' if after else ''}"


def _piece(table: Table, symbol: str, frame: pl.DataFrame, name: FileName, asked: _Asked, series: str | None) -> _Piece:
    """Checked bars of one symbol; those of an unwanted interval are told apart before their prices are looked at."""
    file = table.path.name
    if frame.is_empty():
        raise DataError(f"{file}: holds no bars")
    origin = Origin(file, symbol, table.unit, frame["row"].to_numpy())
    raw = frame["time"]
    if "clock" in frame.columns:
        raw = frame.select(pl.concat_str(pl.col("time", "clock").cast(pl.String), separator=" "))["time"]
    said = name.interval or (asked.interval or name.minutes if len(raw) == 1 else None)  # before the spacings are known
    intraday = said is not None and said < DAY
    time = parse_times(raw, asked.timezone, table.columns.timezone, origin, intraday=intraday).astype(np.int64)
    check_times(time, {}, origin)
    interval = bar_interval(time, name, asked.interval, f"{file}, symbol {symbol}")
    if asked.interval not in (None, interval):
        return _Piece(symbol, interval, file, series, time, {})
    given = [f for f in FIELDS if f in frame.columns and not (f == "volume" and frame[f].null_count() == len(frame))]
    values = {f: parse_numbers(frame[f], f, origin) for f in given}
    if (
        "volume" not in values or (values["volume"] == -1).all()
    ):  # Interactive Brokers' sign for quotes, which have none
        values["volume"] = np.zeros(len(time))
    check_bars(time, values, origin)
    return _Piece(symbol, interval, file, series, time, values)


def _join(pieces: Sequence[_Piece], asset_classes: Mapping[str, str]) -> Bars:
    """One symbol's bars, from pieces that follow each other in time."""
    ordered = sorted(pieces, key=lambda piece: int(piece.time[0]))
    symbol, interval = ordered[0].symbol, ordered[0].interval
    if symbol in (POOLED, PORTFOLIO):
        raise DataError(f"{ordered[0].file}: {symbol} is what reports call all symbols together; rename the symbol")
    for one, other in itertools.pairwise(ordered):
        if other.time[0] <= one.time[-1]:
            raise DataError(
                f"symbol {symbol}: {one.file} and {other.file} overlap from {format_time(other.time[0])} on; keep one"
            )
        if one.series != other.series:
            raise DataError(
                f"symbol {symbol}: the names of {one.file} and {other.file} differ in more than dates, so they may be"
                " two series; keep one, or say where the names hold the symbol with --symbol-from, such as"
                f" '{SYMBOL}_*'"
            )
    time = np.concatenate([piece.time for piece in ordered])
    values = {f: np.concatenate([piece.values[f] for piece in ordered]) for f in FIELDS}
    asset_class = asset_classes.get(symbol) or guess_asset_class(symbol)
    names_days = interval % DAY == 0 and bool((time % DAY == 0).all())
    files = [piece.file for piece in ordered]
    return Bars(
        symbol=symbol,
        asset_class=asset_class,
        interval=interval,
        timezone="UTC" if names_days else asset_class_of(asset_class).timezone,
        time=time,
        seams=tuple(int(n) for n in np.cumsum([len(piece.time) for piece in ordered[:-1]])),
        source=", ".join(files) if len(files) <= 3 else f"{files[0]} to {files[-1]} ({len(files)} files)",
        **values,
    )
