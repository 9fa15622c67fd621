"""Features from elsewhere: a table of values by symbol, each known from an instant on, joined to bars at their close.

`read_outside` reads the file; the rest is pure. A row's timestamp says when its values became known, whatever the bars'
own timestamps say (they are starts of bars). Values known at the instant at which a bar closes are known at that close.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from jaxppo.config.schema import FeatureConfig
from jaxppo.errors import ConfigError, DataError
from jaxppo.market.bars import Bars
from jaxppo.market.calendar import DAY, format_interval, match_interval
from jaxppo.market.files import Table, open_table, read_table, reading, split_symbols, table_path
from jaxppo.market.formats import SYMBOL_COLUMNS, Columns, TableKind, header_layout, parse_numbers, time_column
from jaxppo.market.inputs import CLIP, rolling_mean_std
from jaxppo.market.names import some_symbols, spelling
from jaxppo.market.quality import Origin, check_finite, check_times, format_time
from jaxppo.market.sessions import close_times, day_ends
from jaxppo.market.timestamps import parse_times

_NEEDS = "features from elsewhere need timestamp (when a row became known), symbol, and a column of numbers a feature"
_DATE = r"^(\d{8}|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4})$"
_GAP = 10
"""A value in force for so many times its usual number of bars, and at least for so many bars, is worth a warning."""
_SUSPICIOUS = 0.2
"""Correlation with the next bar's return that forecasts do not have: a Sharpe ratio of 50 a year of hourly bars."""
_ENOUGH = 200  # bars, for a correlation to mean anything: its standard error is .07 then
_FAR = (0.02, 50.0)
"""Usual sizes of an unscaled feature below and above which a network sees next to nothing, or nothing else."""


class Span(NamedTuple):
    """A delay or an age, in bars or in seconds; one of them is 0."""

    bars: int
    seconds: int

    def __str__(self) -> str:
        if self.seconds:
            return format_interval(self.seconds)
        return f"{self.bars} bar{'' if self.bars == 1 else 's'}"


def parse_span(text: str, field: str) -> Span:
    """A number of bars such as 2, or a duration such as 90m, 4h or 1d.

    Raises:
      ConfigError: neither.
    """
    if re.fullmatch(r"[0-9]{1,6}", text.strip()):
        return Span(int(text), 0)
    seconds = match_interval(text)
    if seconds is None:
        raise ConfigError(
            f"{field}: {text!r} is neither a number of bars such as 1 nor a duration such as 30m, 4h or 1d"
        )
    return Span(0, seconds)


@dataclass(frozen=True, eq=False)
class OutsideRows:
    """The N rows of one symbol, oldest first."""

    time: np.ndarray  # (N,) int64 UTC seconds at which each became known; midnight of its day where `days`
    values: np.ndarray  # (N, C) float64
    origin: Origin


@dataclass(frozen=True, eq=False)
class Outside:
    """A file of features from elsewhere, and how they are joined to bars."""

    file: str
    columns: tuple[str, ...]  # (C,) by name, whatever their order in the file
    days: bool  # rows have dates alone: known when the trading day is over
    rows: Mapping[str, OutsideRows]  # by symbol, as written
    delay: Span
    most_age: Span | None
    scale: str
    scale_window: int

    @property
    def facts(self) -> tuple[str, ...]:
        """What makes the columns other features under the same names; part of `feature_hash`."""
        return (f"extra {len(self.columns)}, delay {self.delay}, scale {self.scale}",)

    def hash(self, bars: Sequence[Bars]) -> str:
        """SHA-256 (hex) over the rows of the symbols of `bars`, whatever the order of rows, columns and symbols."""
        digest = hashlib.sha256("\n".join(self.columns).encode())
        for symbol in sorted(b.symbol for b in bars):
            rows = self.of(symbol)
            digest.update(f"{len(symbol)}:{symbol}:{len(rows.time)}:{self.days}:".encode())
            digest.update(rows.time.astype("<i8").tobytes() + rows.values.astype("<f8").tobytes())
        return digest.hexdigest()

    def of(self, symbol: str) -> OutsideRows:
        """The rows of a symbol, found as it is written, else in any case and spelling of a file's name."""
        if symbol in self.rows:
            return self.rows[symbol]
        alike = [written for written in self.rows if spelling(written) == spelling(symbol)]
        if len(alike) > 1:
            raise DataError(f"{self.file}: symbol {symbol} stands there as {' and as '.join(alike)}; keep one spelling")
        if not alike:
            raise DataError(
                f"{self.file}: has no row of symbol {symbol}; it has {some_symbols(sorted(self.rows))}: add its rows,"
                " or leave the symbol out with --symbols"
            )
        return self.rows[alike[0]]

    def known(self, bars: Bars) -> np.ndarray:
        """UTC seconds (N,) at which the rows of a symbol became known, the delay left out."""
        time = self.of(bars.symbol).time
        return day_ends(time // DAY, bars.asset_class, bars.timezone) if self.days else time

    def join(self, bars: Bars) -> Joined:
        """The rows in force at every close of a symbol.

        Raises:
          DataError: no row is known at any close, or one is older than it may be.
        """
        closes = close_times(bars)
        row = np.searchsorted(self.known(bars) + self.delay.seconds, closes, side="right") - 1
        if self.delay.bars:
            row = np.concatenate([np.full(self.delay.bars, -1), row])[: len(closes)]
        first = int(np.argmax(row >= 0)) if (row >= 0).any() else len(closes)
        rows = self.of(bars.symbol)
        if first == len(closes):
            raise DataError(
                f"{rows.origin.at(0)}: the first row of {bars.symbol} becomes known after its last bar closes"
                f" ({format_time(int(closes[-1]))}); give earlier rows, or leave the symbol out with --symbols"
            )
        joined = Joined(row, first, _bars_in_force(row, first))
        self._require_fresh(bars, closes, joined)
        return joined

    def _require_fresh(self, bars: Bars, closes: np.ndarray, joined: Joined) -> None:
        if self.most_age is None:
            return
        most, origin, known = self.most_age, self.of(bars.symbol).origin, self.known(bars)
        age = closes - known[joined.row] if most.seconds else joined.age
        old = (joined.row >= 0) & (age > (most.seconds or most.bars))
        if old.any():
            bar = int(np.argmax(old))
            raise DataError(
                f"{origin.at(int(joined.row[bar]))}: is the newest row at the close of {format_time(int(closes[bar]))}"
                f" and older than --extra-max-age allows; add the rows that are missing (and in {int(old.sum()) - 1}"
                " more bars)"
            )

    def features(self, bars: Bars) -> tuple[np.ndarray, int]:
        """The columns as features (T, C) float64, and the first bar (from 0) that has them."""
        joined = self.join(bars)
        values = np.where((joined.row >= 0)[:, None], self.of(bars.symbol).values[joined.row], 0.0)
        if self.scale == "none":
            return values, joined.first
        scaled = np.zeros_like(values)
        scaled[joined.first :] = np.stack(
            [_over_usual_size(x, self.scale_window) for x in values[joined.first :].T], axis=1
        )
        return scaled, joined.first + self.scale_window - 1

    def changed_after(self, bars: Sequence[Bars], cuts: Sequence[int], rng: np.random.Generator) -> Outside:
        """The same table with other values in every row that becomes known after the close of a symbol's bar `cut`.

        Args:
          bars: of the symbols.
          cuts: a row of each from 0; -1 changes all.
          rng: of the changed values.
        """
        rows = dict(self.rows)
        for b, cut in zip(bars, cuts, strict=True):
            own = self.of(b.symbol)
            later = self.known(b) > (close_times(b)[cut] if cut >= 0 else -np.inf)
            other = np.where(later[:, None], -2.0 * own.values - 1.0 - rng.random(own.values.shape), own.values)
            written = next(k for k, v in self.rows.items() if v is own)
            rows[written] = dataclasses.replace(own, values=other)
        return dataclasses.replace(self, rows=rows)

    def lines(self, bars: Sequence[Bars]) -> list[str]:
        """What was made of the file, a line."""
        own = [self.of(b.symbol) for b in bars]
        firsts = [int(close_times(b)[self.join(b).first]) for b in bars]
        others = len(self.rows) - len({id(rows) for rows in own})
        beside = f"; ignored: {others} symbol{'' if others == 1 else 's'} without bars" if others else ""
        when = "dates, known when the trading day is over" if self.days else "instants at which they became known"
        late = f", {self.delay} later" if any(self.delay) else ""
        return [
            f"features from elsewhere: {self.file}, columns {', '.join(self.columns)}; rows have {when}{late}; first"
            f" known at the close of {format_time(min(firsts))}"
            + (f" to {format_time(max(firsts))}" if max(firsts) > min(firsts) else "")
            + beside
        ]

    def warnings(self, bars: Sequence[Bars]) -> list[str]:
        """What is doubtful: values that stay in force for long, that know the next bar, or that are of another size."""
        return [*self._gaps(bars), *self._foresight(bars), *self._sizes(bars)]

    def _gaps(self, bars: Sequence[Bars]) -> list[str]:
        found = []
        for b in bars:
            joined = self.join(b)
            last = np.append(np.flatnonzero(np.diff(joined.row[joined.first :])), len(joined.row) - joined.first - 1)
            held = joined.age[joined.first :][last] + 1  # (R,) bars that each row was in force
            usual, longest = int(np.median(held)), int(held.max())
            if len(held) > 1 and longest >= _GAP * max(usual, 1):
                row = int(joined.row[joined.first :][last[int(np.argmax(held))]])
                found.append(
                    f"{self.of(b.symbol).origin.at(row)}: stays in force for {longest:,} bars, where {usual:,} are"
                    " usual; what is traded on then is old (--extra-max-age refuses it)"
                )
        more = f" (and so in {len(found) - 1} more symbols)" if len(found) > 1 else ""
        return [found[0] + more] if found else []

    def _foresight(self, bars: Sequence[Bars]) -> list[str]:
        """Columns that go with the return of the bar that comes next as no forecast does."""
        known, ahead = [], []
        for b in bars:
            values, first = self.features(b)
            if len(b.time) - 1 > first:
                known.append(values[first:-1])
                move = np.log(b.close[1:] / b.open[1:])[first:]
                ahead.append(move / (move.std() or 1.0))
        if not known or sum(map(len, known)) < _ENOUGH:
            return []
        x, y = np.concatenate(known), np.concatenate(ahead)
        found = []
        for name, column in zip(self.columns, x.T, strict=True):
            if column.std() > 0 and y.std() > 0 and abs(r := float(np.corrcoef(column, y)[0, 1])) > _SUSPICIOUS:
                found.append(
                    f"{self.file}: column {name!r} has a correlation of {r:.2f} with the return of the next bar, more"
                    " than forecasts have; are its timestamps when it became known? See what --extra-delay 1 leaves"
                )
        return found

    def _sizes(self, bars: Sequence[Bars]) -> list[str]:
        if self.scale != "none":
            return []
        values = np.concatenate([self.of(b.symbol).values for b in bars])
        sizes = np.sqrt((values**2).mean(axis=0))
        return [
            f"{self.file}: column {name!r} has a usual size of {size:.3g}, which a network hardly sees beside features"
            " of about 1; leave --extra-scale none out, or rescale it"
            for name, size in zip(self.columns, sizes, strict=True)
            if size > 0 and not _FAR[0] <= size <= _FAR[1]
        ]


@dataclass(frozen=True, eq=False)
class Joined:
    """Which row of a symbol is in force at each of its closes."""

    row: np.ndarray  # (T,) int64, -1 before the first is known
    first: int  # bar from which one is
    age: np.ndarray  # (T,) int64 bars since it came into force


def _bars_in_force(row: np.ndarray, first: int) -> np.ndarray:
    begins = np.concatenate(([True], np.diff(row) != 0)) & (np.arange(len(row)) >= first)
    at = np.where(begins, np.arange(len(row)), first)
    return np.arange(len(row)) - np.maximum.accumulate(at)


def _over_usual_size(x: np.ndarray, window: int) -> np.ndarray:
    """`x` over the root mean square of its last `window` values, clipped; 0 where all of them are 0."""
    if len(x) < window:
        return np.zeros(len(x))
    mean, std = rolling_mean_std(x, window)
    size = np.sqrt(mean**2 + std**2 * (window - 1) / window)
    return np.clip(np.where(size > 0, x / np.where(size > 0, size, 1.0), 0.0), -CLIP, CLIP)


def outside_spans(config: FeatureConfig) -> tuple[Span, Span | None]:
    """The delay and the largest age that a configuration asks for.

    Raises:
      ConfigError: one that is not understood, or that is given without a file.
    """
    if config.extra_features is None:
        for name, empty in (("extra_delay", "0"), ("extra_max_age", None), ("extra_scale", "usual_size")):
            if getattr(config, name) != empty:
                raise ConfigError(
                    f"{name}: describes --extra-features; give that, or leave --{name.replace('_', '-')} out"
                )
    age = config.extra_max_age
    return parse_span(config.extra_delay, "extra_delay"), None if age is None else parse_span(age, "extra_max_age")


def read_outside(config: FeatureConfig, timezone: str | None) -> Outside | None:
    """The file of features from elsewhere that a configuration names, checked; None where it names none.

    Args:
      config: file, delay, age and scale.
      timezone: of timestamps without one.

    Raises:
      ConfigError: an address, or a span that is not understood.
      DataError: a file, column, row or number that cannot be used; the message names file, symbol, row and column.
    """
    delay, age = outside_spans(config)
    if config.extra_features is None:
        return None
    with reading(Path(config.extra_features)):
        path = table_path(config.extra_features, "extra_features", "features")
        status = path.stat()
        table = _read(path, timezone, (status.st_mtime_ns, status.st_size))
    return dataclasses.replace(
        table, delay=delay, most_age=age, scale=config.extra_scale, scale_window=config.scale_window
    )


@functools.lru_cache(maxsize=2)
def _read(path: Path, timezone: str | None, version: tuple[int, int]) -> Outside:
    """The table of a file; kept until the file changes, since every decision asks for it."""
    table = open_table(path, TableKind(header_layout, _find_columns))
    frame = read_table(table)
    if frame.is_empty():
        raise DataError(f"{path.name}: holds no rows")
    columns = tuple(sorted(field.removeprefix(_VALUE) for field in table.columns.index if field.startswith(_VALUE)))
    days = _is_dates(frame["time"])
    rows = {s: _rows(table, s, part, columns, timezone, days) for s, part in split_symbols(table, frame).items()}
    return Outside(path.name, columns, days, rows, Span(0, 0), None, "none", 0)


_VALUE = "value "  # before the name of a column among a table's fields, which have names of their own


def _rows(
    table: Table, symbol: str, frame: pl.DataFrame, columns: Sequence[str], timezone: str | None, days: bool
) -> OutsideRows:
    origin = Origin(table.path.name, symbol, table.unit, frame["row"].to_numpy())
    time = parse_times(frame["time"], timezone, table.columns.timezone, origin, intraday=not days).astype(np.int64)
    check_times(time, {}, origin)
    values = {name: parse_numbers(frame[_VALUE + name], name, origin) for name in columns}
    check_finite(time, values, origin)
    return OutsideRows(time, np.stack([values[name] for name in columns], axis=1), origin)


def _is_dates(raw: pl.Series) -> bool:
    """Whether all rows are dates without a time of the day."""
    if raw.dtype == pl.Date:
        return True
    if raw.dtype.is_integer():
        return bool(raw.is_between(19_000_000, 22_000_000).all())
    return raw.dtype == pl.String and bool(raw.str.contains(_DATE).all())


def _find_columns(names: Sequence[str], file: str) -> Columns:
    """Positions of the columns among `names`; `DataError` where one lacks, stands twice or has no name."""
    time, zone = time_column(names, file)
    symbols = [i for i, name in enumerate(names) if name.strip().lower() in SYMBOL_COLUMNS]
    others = [i for i in range(len(names)) if i != time and i not in symbols]
    lacks = [
        w for w, there in (("timestamp", time is not None), ("symbol", symbols), ("a feature", others)) if not there
    ]
    if lacks:
        among = ", ".join(repr(name[:40]) for name in names[:20])
        raise DataError(f"{file}: no column for {' and '.join(lacks)} among {among}; {_NEEDS}")
    if len(symbols) > 1:
        raise DataError(
            f"{file}: columns {names[symbols[0]]!r} and {names[symbols[1]]!r} are both the symbol; keep one"
        )
    plain = [names[i].strip() for i in others]
    for i, name in zip(others, plain, strict=True):
        if not name or not name.isprintable() or len(name) > 60:
            raise DataError(
                f"{file}: column {i + 1} is called {name[:60]!r}; a feature needs a name of 1 to 60 characters"
            )
        if plain.count(name) > 1:
            raise DataError(f"{file}: two columns are called {name!r}; keep one")
    values = {_VALUE + name: i for i, name in zip(others, plain, strict=True)}
    assert time is not None
    return Columns({"time": time, "symbol": symbols[0], **values}, zone)
