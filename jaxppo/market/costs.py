"""Costs by symbol: a table of the user's, and what every symbol pays with it.

`read_costs` reads the file; the rest is pure: rows and defaults in, costs out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from jaxppo.config.schema import EnvConfig
from jaxppo.errors import ConfigError, DataError
from jaxppo.market.asset_classes import class_fees
from jaxppo.market.bars import Bars
from jaxppo.market.files import open_table, read_table, reading, symbol_names, table_path
from jaxppo.market.formats import SYMBOL_COLUMNS, Columns, TableKind, header_layout
from jaxppo.market.names import some_symbols, spelling
from jaxppo.market.quality import Origin, refuse

COLUMNS = ("half_spread", "fee", "borrow")
"""What a file may say of a symbol: fractions of the price, of the notional a side, and of short notional a year."""
_NEEDS = "costs need symbol, and half_spread (fraction of the price) or fee (a side), optionally borrow (a year)"
_MOST = {"half_spread": 0.5, "fee": 0.5, "borrow": np.inf}
_SHOWN = 12


@dataclass(frozen=True)
class SymbolCosts:
    """What fills and short positions of a symbol pay, slippage apart."""

    fee: float  # per side, fraction of the notional
    half_spread: float  # fraction of the price
    borrow: float  # a year, on short notional


@dataclass(frozen=True, eq=False)
class CostTable:
    """The N rows of a file of costs."""

    file: str
    symbols: tuple[str, ...]  # (N,) as written
    values: Mapping[str, np.ndarray]  # columns of COLUMNS that are there: (N,) float64, nan where a cell is blank
    places: tuple[str, ...]  # (N,) `line 2` or `row 0`, for messages
    ignored: tuple[str, ...] = ()  # other columns

    @property
    def hash(self) -> str:
        """SHA-256 (hex) over symbols and values, whatever the order of rows and columns and the kind of file."""
        blank = np.full(len(self.symbols), np.nan)
        table = np.stack([self.values.get(name, blank) for name in COLUMNS], axis=1).astype("<f8")
        digest = hashlib.sha256()
        for symbol, row in sorted(zip(self.symbols, table, strict=True), key=lambda pair: pair[0]):
            digest.update(f"{len(symbol)}:{symbol}:".encode() + row.tobytes())
        return digest.hexdigest()

    def names(self, symbols: Sequence[str]) -> bool:
        """Whether it holds costs of any of these symbols."""
        return bool(_matched(self, symbols))


@dataclass(frozen=True)
class MarketCosts:
    """What every symbol of a market pays, and where that comes from."""

    by_symbol: Mapping[str, SymbolCosts]
    slippage: float
    file: str | None = None
    hash: str | None = None
    lines: tuple[str, ...] = ()  # what was made of the file
    warnings: tuple[str, ...] = ()

    def sides(self) -> tuple[float, float, float]:
        """Median, least and greatest cost of a side over the symbols: fee, half spread and slippage."""
        sides = [c.fee + c.half_spread + self.slippage for c in self.by_symbol.values()]
        return float(np.median(sides)), min(sides), max(sides)


def market_costs(bars: Sequence[Bars], env: EnvConfig) -> MarketCosts:
    """What every symbol of `bars` pays: the defaults of its class, over which goes the file of `env.costs`.

    Raises:
      ConfigError: costs that would take all equity to enter.
      DataError: a file that cannot be read or trusted, or that names none of the symbols.
    """
    fees = class_fees(env)
    defaults = {b.symbol: SymbolCosts(fees[b.asset_class], env.spread / 2, env.borrow) for b in bars}
    if env.costs is None:
        return MarketCosts(defaults, env.slippage)
    found = resolve_costs(read_costs(env.costs), defaults, env.slippage)
    for symbol, c in found.by_symbol.items():
        side = c.fee + c.half_spread + env.slippage
        if env.max_exposure * side >= 1:
            raise ConfigError(
                f"max_exposure {env.max_exposure:g} at costs of {side:g} a side of {symbol} would cost all equity to"
                f" enter; lower it below {1 / side:.3g}, or lower the costs in {found.file}"
            )
    return found


def read_costs(path: str | Path) -> CostTable:
    """The rows of a CSV or Parquet file with the columns symbol and half_spread or fee, optionally borrow.

    Raises:
      ConfigError: an address.
      DataError: a file, column, row or number that cannot be used; the message names file, symbol, row and column.
    """
    with reading(Path(path)):
        path = table_path(path, "costs", "costs")
        table = open_table(path, TableKind(header_layout, _find_columns))
        frame = read_table(table)
        names = tuple(symbol_names(table, frame).to_list())
        used = set(table.columns.index.values())
        others = tuple(name for i, name in enumerate(table.names) if i not in used)
        return parse_costs(names, frame, path.name, table.unit, others)


def parse_costs(
    symbols: Sequence[str], frame: pl.DataFrame, file: str, unit: str, ignored: Sequence[str] = ()
) -> CostTable:
    """Checked costs of the rows of `frame`: columns of numbers or text, and `row`, the number of each in the file.

    Args:
      symbols: (N,) of the rows.
      file, unit: name of the file, and what it calls a row, for messages.
      ignored: names of its other columns.

    Raises:
      DataError: no row, a symbol that stands twice, or a number that is none or out of bounds.
    """
    if not symbols:
        raise DataError(f"{file}: holds no costs")
    rows = frame["row"].to_numpy()
    places = tuple(f"{unit} {row}" for row in rows)
    first: dict[str, int] = {}
    for i, symbol in enumerate(symbols):
        if symbol in first:
            raise _twice(file, symbol, places[i], places[first[symbol]])
        first[symbol] = i

    def column(name: str) -> np.ndarray:
        raw, most = frame[name], _MOST[name]
        if not (raw.dtype.is_numeric() or raw.dtype in (pl.String, pl.Null)):
            raise DataError(f"{file}: column {name} holds {raw.dtype}, not numbers")
        numbers = raw.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy().copy()
        bad = raw.is_not_null().to_numpy() & ~(np.isfinite(numbers) & (numbers >= 0) & (numbers < most))
        if bad.any():
            origin = Origin(file, symbols[int(np.argmax(bad))], unit, rows)
            below = f" and below {most:g}" if most < np.inf else ""
            rule = f"must be a number of at least 0{below}, or blank for the default"
            refuse(bad, origin, lambda i: f"{name} {str(raw[i])[:40]!r} {rule}")
        return numbers

    values = {name: column(name) for name in COLUMNS if name in frame.columns}
    return CostTable(file, tuple(symbols), values, places, tuple(ignored))


def resolve_costs(table: CostTable, defaults: Mapping[str, SymbolCosts], slippage: float) -> MarketCosts:
    """What every symbol of `defaults` pays: the table's numbers where it has them.

    A symbol is found as it is written, else as the name of a file of bars is read: in any case, and without what
    vendors and brokers add.

    Raises:
      DataError: the table names none of the symbols, or one of them in two spellings.

    Example:
      >>> table = CostTable("costs.csv", ("eurusd",), {"fee": np.array([1e-5])}, ("line 2",))
      >>> resolve_costs(table, {"EURUSD": SymbolCosts(1e-4, 2e-5, 0.0)}, 0.0).by_symbol["EURUSD"]
      SymbolCosts(fee=1e-05, half_spread=2e-05, borrow=0.0)
    """
    rows = _matched(table, list(defaults))
    if not rows:
        raise DataError(
            f"{table.file}: holds costs of {_some(table.symbols)} and of none of the bars' symbols,"
            f" {_some(list(defaults))}; it would have no effect: mend it, or leave --costs out"
        )
    resolved = dict(defaults)
    for symbol, row in rows.items():
        given = {name: float(x[row]) for name, x in table.values.items() if not np.isnan(x[row])}
        resolved[symbol] = dataclasses.replace(defaults[symbol], **given)
    found = MarketCosts(resolved, slippage, table.file, table.hash, warnings=_warnings(table, rows, defaults))
    return dataclasses.replace(found, lines=_lines(table, len(rows), found))


def typical_env(costs: MarketCosts, bars: Sequence[Bars], env: EnvConfig) -> EnvConfig:
    """`env` without its file of costs, and with the medians of the symbols' costs in their place; fees by class."""
    if costs.file is None:
        return env
    named = {b.symbol: b.asset_class for b in bars}
    own = [costs.by_symbol[symbol] for symbol in named]
    fees = {
        name: float(np.median([costs.by_symbol[s].fee for s, c in named.items() if c == name]))
        for name in sorted(set(named.values()))
    }
    half, borrow = (float(np.median([getattr(c, field) for c in own])) for field in ("half_spread", "borrow"))
    return dataclasses.replace(env, costs=None, fee=env.fee | fees, spread=2 * half, borrow=borrow)


def _find_columns(names: Sequence[str], file: str) -> Columns:
    """Positions of the columns among `names`, whatever their case; `DataError` where one lacks or stands twice."""
    plain = [re.sub(r"[\s-]+", "_", name.strip().lower()) for name in names]
    index: dict[str, int] = {}
    for field, aliases in {"symbol": SYMBOL_COLUMNS, **{c: (c,) for c in COLUMNS}}.items():
        same = [i for i, name in enumerate(plain) if name in aliases]
        if len(same) > 1:
            twice = " and ".join(repr(names[i]) for i in same)
            raise DataError(f"{file}: columns {twice} are both the {field}; keep one")
        if same:
            index[field] = same[0]
    if "symbol" not in index or not {"half_spread", "fee"} & set(index):
        lacks = "half_spread or fee" if "symbol" in index else "symbol"
        among = ", ".join(repr(name[:40]) for name in names[:20])
        raise DataError(f"{file}: no column for {lacks} among {among}; {_NEEDS}")
    return Columns(index, None)


def _matched(table: CostTable, symbols: Sequence[str]) -> dict[str, int]:
    """The row of each symbol that the table has."""
    rows = {symbol: i for i, symbol in enumerate(table.symbols) if symbol in set(symbols)}
    spelled: dict[str, list[str]] = {}
    for symbol in symbols:
        spelled.setdefault(spelling(symbol), []).append(symbol)
    for i, written in enumerate(table.symbols):
        alike = spelled.get(spelling(written), [])
        if len(alike) != 1 or rows.get(alike[0]) == i:
            continue
        if alike[0] in rows:
            raise _twice(table.file, alike[0], table.places[i], table.places[rows[alike[0]]])
        rows[alike[0]] = i
    return {symbol: rows[symbol] for symbol in symbols if symbol in rows}


def _twice(file: str, symbol: str, place: str, first: str) -> DataError:
    return DataError(f"{file}, symbol {symbol}, {place}: stands on {first} already; keep one row a symbol")


def _warnings(table: CostTable, rows: Mapping[str, int], defaults: Mapping[str, SymbolCosts]) -> tuple[str, ...]:
    """Symbols that pay their class's costs although there is a file."""
    missing = [symbol for symbol in defaults if symbol not in rows]
    found = [f"{table.file} has no costs of {_some(missing)}: the defaults hold"] if missing else []
    for name, values in table.values.items():
        if blank := [symbol for symbol, row in rows.items() if np.isnan(values[row])]:
            found.append(f"{table.file}: {name} is blank for {_some(blank)}: the default holds")
    return tuple(found)


def _lines(table: CostTable, n_own: int, costs: MarketCosts) -> tuple[str, ...]:
    """What was made of the file, what every side costs with it, and what it leaves as it was."""
    median, low, high = (f"{1e4 * x:.3g}" for x in costs.sides())
    ignored = [f"column {name[:40]!r}" for name in table.ignored[:_SHOWN]]
    if others := len(table.symbols) - n_own:
        ignored.append(f"{others} symbol{'' if others == 1 else 's'} without bars")
    lines = [
        f"costs by symbol: {table.file} (hash {table.hash[:12]}) has {n_own} of {len(costs.by_symbol)} symbols; a side"
        f" costs {median} bp in the median, from {low} to {high} bp, fee and slippage included"
        + (f"; ignored: {', '.join(ignored)}" if ignored else "")
    ]
    fees = [1e4 * c.fee for c in costs.by_symbol.values()]
    if "fee" not in table.values and max(fees) > 0:
        paid = f"{min(fees):g}" if min(fees) == max(fees) else f"{min(fees):g} to {max(fees):g}"
        lines.append(f"{table.file} has no fee: {paid} bp a side are paid besides; --fee 0 for none")
    return tuple(lines)


def _some(symbols: Sequence[str]) -> str:
    return some_symbols(symbols, _SHOWN)
