"""Parquet and CSV files as tables of the fields that bars need. The only place where market data is read from disk.

A file is somebody else's: its size, shape and kind are looked at before it is read, nothing in it is executed or
followed, and whatever it makes the readers raise becomes a `DataError`.
"""

from __future__ import annotations

import csv
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from jaxppo.config.checks import refuse_url
from jaxppo.errors import DataError
from jaxppo.market.formats import BARS, Columns, NoBarsError, TableKind
from jaxppo.market.parquet import check_sizes

PARQUET_SUFFIXES = (".parquet", ".pq")
CSV_SUFFIXES = (".csv", ".tsv", ".txt")
SUFFIXES = PARQUET_SUFFIXES + CSV_SUFFIXES
ARCHIVE_SUFFIXES = (".gz", ".zip", ".bz2", ".xz", ".zst", ".tar", ".tgz", ".7z", ".rar")
OTHER_SUFFIXES = (".xlsx", ".xls", ".json", ".jsonl", ".feather", ".arrow", ".h5", ".hdf5", ".hdf", ".dat", ".hst")
MAX_FILE_BYTES = 4 * 2**30
MAX_ROWS = 250_000_000
MAX_COLUMNS = 1_000
"""Bounds on what is read at all: compression and empty lines let a small file ask for more memory than there is."""
MAX_SYMBOLS = 20_000
MAX_SYMBOL_LENGTH = 40
_BYTES_PER_VALUE = {"row": 32, "line": 64}
"""Memory at the peak, from the readers' copies: numbers of a Parquet file, text of a CSV file."""
_HEAD_BYTES = 65_536
_CHUNK_BYTES = 2**24
_COMPRESSED = (b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ", b"x\x01", b"x\x9c", b"x\xda")
"""gzip, zip, Zstandard, bzip2, xz and zlib: polars would unpack some of them without being asked."""
_SYMBOL = rf"^[^\p{{C}}=+@\-][^\p{{C}}]{{0,{MAX_SYMBOL_LENGTH - 1}}}$"
_SYMBOL_RULE = f"it must be 1 to {MAX_SYMBOL_LENGTH} printable characters and begin with none of = + - @ (a formula)"


@dataclass(frozen=True)
class Table:
    """A file whose head has been read."""

    path: Path
    names: tuple[str, ...]
    columns: Columns
    header_lines: int = 0
    symbol: str | None = None  # where the header names one
    separator: str = ","
    encoding: str = "utf8"

    @property
    def unit(self) -> str:
        return "row" if self.path.suffix.lower() in PARQUET_SUFFIXES else "line"


def bar_files(path: Path) -> list[Path]:
    """The file itself, or the bar files of a folder (not of its subfolders), by name; see `passed_over`.

    Raises:
        DataError: nothing there, or something that is called a bar file and is none, such as a pipe or a folder.
    """
    refuse_url(str(path), "data")
    try:
        if path.is_dir():
            files, others = _sorted_out(path)
            if not files:
                beside = f"; passed over: {', '.join(others)}" if others else ""
                raise DataError(f"{path}: the folder holds no bars in {', '.join(SUFFIXES)} files{beside}")
        elif path.is_file() or path.exists():
            files = [path]
            if path.suffix.lower() not in SUFFIXES:
                raise DataError(f"{path}: not a bar file; give a Parquet or CSV file ({', '.join(SUFFIXES)})")
        else:
            where = str(path) if str(path).isprintable() else repr(str(path))
            raise DataError(f"{where}: no such file or folder; give a Parquet or CSV file of bars, or a folder of them")
    except OSError as error:
        raise DataError(f"{str(path)[:200]}: cannot be read: {error.strerror}") from error
    return files


def passed_over(path: Path) -> list[str]:
    """Names of the files of a folder that may be meant as data and are not read.

    They are archives, files of other kinds (Excel, JSON, Feather, HDF5), tables without any price, such as a list of
    decisions or costs, and text that is no table.
    """
    return _sorted_out(path)[1] if path.is_dir() else []


def _sorted_out(folder: Path) -> tuple[list[Path], list[str]]:
    """The files of a folder that hold bars, or say they do, and the names of those that are passed over."""
    files, others = [], []
    for file in sorted(f for f in folder.iterdir() if f.name[0] != "."):
        suffix = file.suffix.lower()
        if suffix in ARCHIVE_SUFFIXES + OTHER_SUFFIXES or (suffix in SUFFIXES and _is_no_table(file, suffix)):
            others.append(file.name)
        elif suffix in SUFFIXES:
            files.append(file)
    return files, others


def _is_no_table(file: Path, suffix: str) -> bool:
    """Whether a file plainly holds no bars; one that is broken is told so when it is read."""
    if suffix in PARQUET_SUFFIXES:
        return False
    try:
        if file.is_file():  # not a pipe, which would wait
            _csv_head(file)
    except NoBarsError:
        return True
    except (DataError, OSError, ValueError, csv.Error):
        return suffix == ".txt" and file.is_file()
    return False


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a broken file makes the readers raise into a `DataError`, and nothing else onto the terminal."""
    try:
        with _panics_unseen():
            yield
    except (
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
        OSError,
        ValueError,
        OverflowError,  # of times that Python's calendar does not hold
        csv.Error,
    ) as error:
        if zone := re.search(r"unable to parse time zone: '([^']*)'", str(error)):
            raise DataError(
                f"{path.name}: a column of times has the zone {zone[1][:40]!r}, which is no name of the IANA time-zone"
                " database; write its times in UTC"
            ) from error
        reason = str(error).strip().split("\n")[0][:200]
        raise DataError(f"{path.name}: cannot be read: {reason}") from error
    except MemoryError as error:
        raise DataError(f"{path.name}: cannot be read: there is not enough memory; split it by time") from error


@contextmanager
def _panics_unseen() -> Iterator[None]:
    """Hold back what is written to stderr, and drop it where polars panics and fails.

    A panic is raised as an error, but each thread that it passes through prints a stack of its own first.
    """
    try:
        stderr = os.dup(2)
    except OSError:  # a process without stderr has nothing to hold back
        yield
        return
    with tempfile.TemporaryFile() as held:
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(held.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            if failed and os.fstat(held.fileno()).st_size:
                time.sleep(0.1)  # other threads may still be printing
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            said = held.read()
            if said and not (failed and b"panicked at" in said):
                os.write(2, said)


def table_path(path: str | Path, option: str, rows: str) -> Path:
    """The path of a table that an option names, or why it cannot be one.

    Args:
      path: as it was given.
      option: that it was given to, such as `costs`.
      rows: what the table is of, such as "costs".

    Raises:
      ConfigError: an address.
      DataError: nothing there, or no CSV or Parquet file.
    """
    refuse_url(str(path), option)
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file; give a CSV or Parquet file of {rows}")
    if path.is_dir() or path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: not a table of {rows}; give a CSV or Parquet file ({', '.join(SUFFIXES)})")
    return path


def open_table(path: Path, kind: TableKind = BARS) -> Table:
    """Head of a file: column names and where the fields are."""
    if not path.name.isprintable():
        raise DataError(f"{path.name!r}: rename the file, its name has characters that cannot be shown")
    if not path.is_file():
        raise DataError(f"{path.name}: not a regular file, although it is called one; remove or rename it")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise DataError(f"{path.name}: {size / 2**30:.1f} GiB; files over 4 GiB are not read, split it by time")
    if size == 0:
        raise DataError(f"{path.name}: the file is empty")
    return _open_parquet(path, kind) if path.suffix.lower() in PARQUET_SUFFIXES else _open_csv(path, kind)


def read_table(table: Table) -> pl.DataFrame:
    """The fields' columns under the fields' names, and `row`, the number of each row in the file."""
    if table.unit == "line":
        return _read_csv(table)
    fields = [pl.col(table.names[i]).alias(field) for field, i in table.columns.index.items()]
    return pl.scan_parquet(table.path, glob=False).select(fields).with_row_index("row").collect()


def check_symbol(symbol: str, file: str) -> str:
    """`symbol`, of a file's name or head, or a `DataError` where it cannot be one."""
    if not pl.Series([symbol]).str.contains(_SYMBOL)[0]:
        raise DataError(f"{file}: symbol {symbol[:60]!r}: {_SYMBOL_RULE}")
    return symbol


def symbol_names(table: Table, frame: pl.DataFrame) -> pl.Series:
    """The symbols of a symbol column, a string a row; `DataError` for the first that cannot be one."""
    names = frame["symbol"].cast(pl.String)
    bad = (names.is_null() | ~names.str.contains(_SYMBOL)).fill_null(True)
    if bad.any():
        where, name = frame.filter(bad)["row"][0], names.filter(bad)[0]
        found = "is empty" if name is None else repr(name[:60])
        raise DataError(f"{table.path.name}, {table.unit} {where}: symbol {found}: {_SYMBOL_RULE}")
    if (n := names.n_unique()) > MAX_SYMBOLS:
        raise DataError(f"{table.path.name}: {n:,} symbols; files of over {MAX_SYMBOLS:,} are not read, split it")
    return names


def split_symbols(table: Table, frame: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The rows of each symbol of a symbol column, in their order."""
    names = symbol_names(table, frame)
    groups = frame.with_columns(names.alias("symbol")).partition_by("symbol", as_dict=True, maintain_order=True)
    return {str(key[0]): group for key, group in groups.items()}


def _check_size(path: Path, unit: str, rows: int, fields: int) -> None:
    """Refuse more rows than are ever read, or than this machine can hold."""
    if rows > MAX_ROWS:
        raise DataError(f"{path.name}: {rows} rows; files over {MAX_ROWS} rows are not read, split it by time")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if (needed := rows * fields * _BYTES_PER_VALUE[unit]) > memory:
        raise DataError(
            f"{path.name}: {rows:,} rows take about {needed / 2**30:.0f} GiB to read and this machine has"
            f" {memory / 2**30:.0f} GiB of memory; split it by time"
        )


def _open_parquet(path: Path, kind: TableKind) -> Table:
    rows = check_sizes(path)
    lazy = pl.scan_parquet(path, glob=False)
    schema = lazy.collect_schema()
    names = tuple(schema.names())
    if len(names) > MAX_COLUMNS:
        raise DataError(f"{path.name}: {len(names):,} columns; files of over {MAX_COLUMNS:,} are not read")
    columns = kind.columns(names, path.name)
    for field, i in columns.index.items():
        if schema[names[i]].is_nested() or schema[names[i]] in (pl.Binary, pl.Object):
            raise DataError(f"{path.name}: column {names[i]!r} holds {str(schema[names[i]])[:60]}, which is no {field}")
    _check_size(path, "row", rows, len(columns.index))
    return Table(path, names, columns)


def _open_csv(path: Path, kind: TableKind) -> Table:
    table, ends = _csv_head(path, kind), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            ends += int(np.count_nonzero(np.frombuffer(chunk, np.uint8) == ord("\n")))
    _check_size(path, "line", ends, len(table.columns.index))
    return table


def _csv_head(path: Path, kind: TableKind = BARS) -> Table:
    """What the first lines of a CSV file tell."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(_COMPRESSED):
        raise DataError(f"{path.name}: the file is compressed; unpack it first")
    utf16 = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = head.decode("utf-16" if utf16 else "utf-8-sig", "replace")
    lines = text.split("\n")[:3]
    if "\0" in lines[0]:
        raise DataError(f"{path.name}: not a text file")
    if len(lines) == 1 and len(head) == _HEAD_BYTES:
        raise DataError(f"{path.name}: the first line is longer than {_HEAD_BYTES:,} characters; bars have few columns")
    separator = max(",\t;|", key=lines[0].count)
    if lines[0].count(separator) >= MAX_COLUMNS:
        raise DataError(f"{path.name}: over {MAX_COLUMNS:,} columns; such files are not read")
    layout = kind.layout([row or [""] for row in csv.reader(lines, delimiter=separator)], path.name)
    columns = kind.columns(layout.names, path.name)
    encoding = "utf-16" if utf16 else "utf8"
    return Table(path, layout.names, columns, layout.header_lines, layout.symbol, separator, encoding)


def _read_csv(table: Table) -> pl.DataFrame:
    by_position = sorted(table.columns.index.items(), key=lambda item: item[1])
    try:
        # The header is read as a row too, so that the index of a row is its line in the file, blank lines included.
        frame = pl.read_csv(
            table.path,
            has_header=False,
            infer_schema=False,
            columns=[i for _, i in by_position],
            separator=table.separator,
            encoding=table.encoding,
            glob=False,
        )
    except pl.exceptions.ComputeError:
        _check_lines(table)
        raise
    frame.columns = fields = [field for field, _ in by_position]
    cells = pl.col(fields).str.strip_chars()
    return (
        frame.with_row_index("row", offset=1)
        .slice(table.header_lines)
        .with_columns(pl.when(cells != "").then(cells))
        .filter(~pl.all_horizontal(pl.col(fields).is_null()))
    )


def _check_lines(table: Table) -> None:
    """Refuse the first line that has more cells than the header; polars does not say which it is."""
    with table.path.open(encoding=table.encoding, errors="replace", newline="") as text:
        for cells in (reader := csv.reader(text, delimiter=table.separator)):
            if len(cells) > len(table.names):
                where = f"{table.path.name}, line {reader.line_num}"
                raise DataError(f"{where}: {len(cells)} cells where the header has {len(table.names)}")
