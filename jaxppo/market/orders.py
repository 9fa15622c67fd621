"""Decisions that a user gives, from a CSV file, checked row by row."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from jaxppo.errors import DataError, nearest

ORDERS = ("target", "units", "order_units")
"""What an order may say: exposure as a fraction of equity, signed position, or signed change of it."""
LEVELS = ("stop", "take_profit")
_COLUMNS = ("bar", *ORDERS, *LEVELS)


@dataclass(frozen=True, eq=False)
class Decisions:
    """Decisions taken at the closes of D bars, oldest first; nan where a field says nothing."""

    order: str  # one of ORDERS: what `value` means
    bar: np.ndarray  # (D,) int64, strictly increasing: index of the bar at whose close it is taken
    value: np.ndarray  # (D,) float64
    stop: np.ndarray  # (D,) float64, price
    take_profit: np.ndarray  # (D,) float64, price


def load_decisions(path: str | Path, n_bars: int) -> Decisions:
    """Decisions of a CSV file with the column `bar`, one of `ORDERS`, and optionally `stop` and `take_profit`.

    Args:
      path: the file.
      n_bars: bars that may be decided on; indices go from 0 to n_bars - 1.

    Raises:
      DataError: a file, column, row or number that cannot be used; the message names file, line and column.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for, a device read for ever
            raise DataError(f"{path}: not a regular file; give a CSV file of decisions")
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [cell.strip().lower() for cell in next(reader, [])]
            order = _check_header(header, path.name)
            filled = ((reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells))
            rows = list(islice(filled, n_bars + 1))  # of more rows than bars, one among these is refused below
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; give a CSV file of decisions") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV: {error}") from error
    table = np.full((len(rows), len(_COLUMNS)), np.nan)
    last = -1
    for i, (line, cells) in enumerate(rows):
        where = f"{path.name}, line {line}"
        if len(cells) != len(header):
            raise DataError(f"{where}: {len(cells)} cells where the header has {len(header)}")
        for name, cell in zip(header, cells, strict=True):
            table[i, _COLUMNS.index(name)] = _number(cell.strip(), name, where)
        last = _check_bar(table[i, 0], last, n_bars, where)
    columns = dict(zip(_COLUMNS, table.T, strict=True))
    return Decisions(order, columns["bar"].astype(np.int64), columns[order], columns["stop"], columns["take_profit"])


def _check_header(header: list[str], file: str) -> str:
    """The column that holds the orders."""
    for i, name in enumerate(header):
        if name not in _COLUMNS:
            raise DataError(f"{file}, line 1: unknown column {name[:40]!r}; {nearest(name[:40], _COLUMNS)}")
        if name in header[:i]:
            raise DataError(f"{file}, line 1: column {name!r} stands twice")
    orders = [name for name in ORDERS if name in header]
    if len(orders) != 1:
        have = "has " + " and ".join(orders) if orders else "has no order column"
        raise DataError(f"{file}, line 1: {have}; give exactly one of {', '.join(ORDERS)}")
    if "bar" not in header:
        raise DataError(f"{file}, line 1: the column 'bar' is missing; it says at which bar's close a row decides")
    return orders[0]


def _number(cell: str, name: str, where: str) -> float:
    if not cell:
        return math.nan
    try:
        value = float(cell.replace("_", "?"))  # Python reads 1_000
    except ValueError as error:
        raise DataError(f"{where}: {name} is not a number: {cell[:40]!r}") from error
    if not math.isfinite(value):
        raise DataError(f"{where}: {name} is {cell}; give a finite number, or leave it blank")
    if name in LEVELS and value <= 0:
        raise DataError(f"{where}: {name} is {cell}; give a price above 0, or leave it blank")
    return value


def _check_bar(bar: float, last: int, n_bars: int, where: str) -> int:
    if math.isnan(bar) or bar != int(bar):
        raise DataError(f"{where}: bar must be a whole number, the index of a bar from 0 on")
    if not 0 <= bar < n_bars:
        raise DataError(f"{where}: bar {int(bar)} is not among the {n_bars} bars, 0 to {n_bars - 1}")
    if bar == last:
        raise DataError(f"{where}: bar {last} stands twice; give one decision a bar")
    if bar < last:
        raise DataError(f"{where}: bar {int(bar)} comes after bar {last}; sort the rows by bar")
    return int(bar)
