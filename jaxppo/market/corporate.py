"""Splits and dividends from a file: prices in today's shares, and cash for who held a share before it went without.

`read_actions` reads the file; the rest is pure. Bars before a split are put into the shares after it (price over ratio,
volume times ratio), so that an account's units are those of the newest bar throughout and a split changes nothing in
it. A dividend is cash a unit at the open of its ex-date's first bar, for the units held until then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from jaxppo.errors import DataError
from jaxppo.market.bars import Bars
from jaxppo.market.calendar import DAY, format_interval
from jaxppo.market.files import open_table, read_table, reading, split_symbols, table_path
from jaxppo.market.formats import SYMBOL_COLUMNS, Columns, TableKind, header_layout, time_column
from jaxppo.market.names import some_symbols, spelling
from jaxppo.market.quality import Origin, format_time, refuse
from jaxppo.market.sessions import local_days
from jaxppo.market.timestamps import parse_times

COLUMNS = ("split", "dividend")
_NEEDS = (
    "corporate actions need symbol, date (the ex-date), and split (new shares for an old one) or dividend (a share)"
)
_PLAIN = np.log(1.4)
"""A smaller split is not told from a day's move, so nothing is said of prices that do not show it."""


@dataclass(frozen=True, eq=False)
class Actions:
    """The N rows of one symbol, by date."""

    day: np.ndarray  # (N,) int64 days since 1970
    split: np.ndarray  # (N,) float64 new shares for an old one, 1 for none
    dividend: np.ndarray  # (N,) float64 cash a share, in the shares after a split of the same day; 0 for none
    origin: Origin


def read_actions(path: str | Path) -> dict[str, Actions]:
    """The rows of a CSV or Parquet file with the columns symbol, date and split or dividend, by symbol.

    Raises:
      ConfigError: an address.
      DataError: a file, column, row or number that cannot be used; the message names file, symbol, row and column.
    """
    with reading(Path(path)):
        path = table_path(path, "corporate_actions", "splits and dividends")
        table = open_table(path, TableKind(header_layout, _find_columns))
        frame = read_table(table)
        if frame.is_empty():
            raise DataError(f"{path.name}: holds no splits or dividends")
        parts = split_symbols(table, frame)
        return {s: _rows(part, Origin(path.name, s, table.unit, part["row"].to_numpy())) for s, part in parts.items()}


def _rows(frame: pl.DataFrame, origin: Origin) -> Actions:
    day = parse_times(frame["time"], "UTC", "UTC", origin).astype(np.int64)
    refuse(day % DAY != 0, origin, lambda i: f"date {frame['time'][i]} has a time of the day; give the ex-date alone")
    order = np.argsort(day, kind="stable")
    columns = {name: _numbers(frame, name, origin) for name in COLUMNS}
    for name, numbers in columns.items():
        given = order[~np.isnan(numbers[order])]
        again = np.zeros(len(day), bool)
        again[given[1:]] = np.diff(day[given]) == 0
        refuse(again, origin, _second(name, day))
    empty = np.isnan(columns["split"]) & np.isnan(columns["dividend"])
    refuse(empty, origin, lambda i: "neither split nor dividend is given")
    split, dividend = np.nan_to_num(columns["split"], nan=1.0), np.nan_to_num(columns["dividend"])
    return Actions(
        day[order] // DAY, split[order], dividend[order], dataclasses.replace(origin, rows=origin.rows[order])
    )


def _second(name: str, day: np.ndarray) -> Callable[[int], str]:
    return lambda i: f"a second {name} of {format_time(int(day[i]))[:10]}; give one for both"


def _numbers(frame: pl.DataFrame, name: str, origin: Origin) -> np.ndarray:
    """A column (N,) float64, nan where a cell is blank or the column is not there."""
    if name not in frame.columns:
        return np.full(len(frame), np.nan)
    raw = frame[name]
    if not (raw.dtype.is_numeric() or raw.dtype in (pl.String, pl.Null)):
        raise DataError(f"{origin.file}: column {name} holds {raw.dtype}, not numbers")
    numbers = raw.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy().copy()
    least, most = (1e-4, 1e4) if name == "split" else (0.0, np.inf)
    bad = raw.is_not_null().to_numpy() & ~((numbers >= least) & (numbers < most))
    right = "new shares for an old one, such as 2 or 0.1" if name == "split" else "cash a share, 0 or more"
    refuse(bad, origin, lambda i: f"{name} {str(raw[i])[:40]!r} must be a number: {right}; or blank")
    return numbers


def apply_actions(bars: Sequence[Bars], actions: Mapping[str, Actions], file: str) -> list[Bars]:
    """Bars in the shares of their last one, with the cash that units held before a bar's open are paid there.

    Raises:
      DataError: rows of none of the symbols, prices that are adjusted already, or a date that lies within a bar.
    """
    found = {b.symbol: own for b in bars if (own := _of(b.symbol, actions, file)) is not None}
    if not found:
        raise DataError(
            f"{file}: holds splits and dividends of {some_symbols(sorted(actions))} and of none of the bars' symbols,"
            f" {some_symbols([b.symbol for b in bars])}; it would have no effect: mend it, or leave --corporate-actions"
            " out"
        )
    return [_adjusted(b, found[b.symbol]) if b.symbol in found else b for b in bars]


def holds_any(bars: Sequence[Bars], actions: Mapping[str, Actions], file: str) -> bool:
    """Whether there are rows of any of the symbols."""
    return any(_of(b.symbol, actions, file) is not None for b in bars)


def _of(symbol: str, actions: Mapping[str, Actions], file: str) -> Actions | None:
    if symbol in actions:
        return actions[symbol]
    alike = [written for written in actions if spelling(written) == spelling(symbol)]
    if len(alike) > 1:
        raise DataError(f"{file}: symbol {symbol} stands there as {' and as '.join(alike)}; keep one spelling")
    return actions[alike[0]] if alike else None


def _adjusted(bars: Bars, own: Actions) -> Bars:
    day, _ = local_days(bars.time, bars.asset_class, bars.timezone)
    at = np.searchsorted(day, own.day)  # the first bar of the ex-date, or after it where it has none
    used = (at > 0) & (at < len(day))
    if not used.any():
        return bars
    if bars.interval > DAY:
        inside = used & (day[np.minimum(at, len(day) - 1)] != own.day)
        refuse(
            inside | (used & (own.dividend > 0)),
            own.origin,
            lambda i: (
                f"lies within a bar of {format_interval(bars.interval)}, or pays a dividend there; give bars of up to a"
                " day (--resample makes longer ones)"
            ),
        )
    ratio, dividend = np.ones(len(day)), np.zeros(len(day))
    for i in np.flatnonzero(used):
        _require_unadjusted(bars, own, int(i), int(at[i]))
        ratio[: at[i]] *= own.split[i]
    for i in np.flatnonzero(used & (own.dividend > 0)):
        dividend[at[i]] += own.dividend[i] / ratio[at[i]]
    prices = {name: getattr(bars, name) / ratio for name in ("open", "high", "low", "close")}
    too_much = np.zeros(len(own.day), bool)
    too_much[used] = dividend[at[used]] >= prices["close"][at[used] - 1]
    refuse(too_much, own.origin, lambda i: f"dividend {own.dividend[i]:g} is no less than the price before it")
    splits, paid = int((used & (own.split != 1)).sum()), int((used & (own.dividend > 0)).sum())
    return dataclasses.replace(
        bars,
        **prices,
        volume=bars.volume * ratio,
        dividend=dividend if paid else None,
        source=f"{bars.source} (with {splits} splits and {paid} dividends of {own.origin.file})",
    )


def _require_unadjusted(bars: Bars, own: Actions, i: int, at: int) -> None:
    """Refuse a split that the prices do not show: they are adjusted already, and would be once more."""
    size, move = abs(np.log(own.split[i])), np.log(bars.close[at - 1] / bars.open[at])
    if size > _PLAIN and abs(move - np.log(own.split[i])) > abs(move):
        raise DataError(
            f"{own.origin.at(i)}: a split of {own.split[i]:g} for 1, but {bars.symbol} went from {bars.close[at - 1]:g}"
            f" to {bars.open[at]:g} over it, so its prices seem to be adjusted already; leave the row out"
        )


def _find_columns(names: Sequence[str], file: str) -> Columns:
    """Positions of the columns among `names`; `DataError` where one lacks or stands twice. Others are ignored."""
    time, _ = time_column(names, file)
    plain = [name.strip().lower() for name in names]
    index: dict[str, int] = {} if time is None else {"time": time}
    for field, aliases in {"symbol": SYMBOL_COLUMNS, **{c: (c, f"{c}s") for c in COLUMNS}}.items():
        same = [i for i, name in enumerate(plain) if name in aliases]
        if len(same) > 1:
            raise DataError(f"{file}: columns {names[same[0]]!r} and {names[same[1]]!r} are both the {field}; keep one")
        if same:
            index[field] = same[0]
    lacks = [w for w, f in (("date", "time"), ("symbol", "symbol")) if f not in index]
    lacks += [] if set(COLUMNS) & set(index) else ["split or dividend"]
    if lacks:
        among = ", ".join(repr(name[:40]) for name in names[:20])
        raise DataError(f"{file}: no column for {' and '.join(lacks)} among {among}; {_NEEDS}")
    return Columns(index, None)
