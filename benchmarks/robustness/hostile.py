"""Files and folders made to hang, crash, fill the memory or fool whoever loads them as bars."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl

HEADER = "timestamp,open,high,low,close,volume\n"
ROWS = "".join(f"2024-01-0{d}T00:00:00Z,10,12,9,11,100\n" for d in range(1, 6))
GOOD = HEADER + ROWS


def _write(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def _frame(n: int = 5) -> pl.DataFrame:
    price = {field: [10.0] * n for field in ("open", "high", "low", "close")}
    return pl.DataFrame({"timestamp": [1_704_067_200 + 3_600 * i for i in range(n)], **price})


def pipe(folder: Path) -> Path:
    """Waits for ever for somebody to write into it."""
    os.mkfifo(folder / "A.csv")
    return folder


def pipe_by_name(folder: Path) -> Path:
    os.mkfifo(folder / "A.csv")
    return folder / "A.csv"


def link_to_endless_device(folder: Path) -> Path:
    (folder / "A.csv").symlink_to("/dev/zero")
    return folder


def device(folder: Path) -> Path:
    return Path("/dev/zero")


def folder_named_as_a_file(folder: Path) -> Path:
    (folder / "A.csv").mkdir()
    return folder


def link_to_itself(folder: Path) -> Path:
    (folder / "A.csv").symlink_to(folder / "A.csv")
    return folder


def links_in_a_circle(folder: Path) -> Path:
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    return folder / "a"


def dangling_link(folder: Path) -> Path:
    (folder / "A.csv").symlink_to(folder / "gone.csv")
    return folder


def name_too_long(folder: Path) -> Path:
    return folder / ("x" * 5_000 + ".csv")


def null_in_the_name(folder: Path) -> Path:
    return Path(f"{folder}/A\0.csv")


def name_with_escape_codes(folder: Path) -> Path:
    return _write(folder, "A\x1b]0;owned\x07.csv", GOOD)


def name_that_begins_a_formula(folder: Path) -> Path:
    return _write(folder, "=1+2.csv", GOOD)


def address_with_a_password(folder: Path) -> Path:
    return Path("https://user:s3cret@example.org/bars.csv")


def empty(folder: Path) -> Path:
    return _write(folder, "A.csv", "")


def empty_parquet(folder: Path) -> Path:
    return _write(folder, "A.parquet", "")


def header_only(folder: Path) -> Path:
    return _write(folder, "A.csv", HEADER)


def only_null_bytes(folder: Path) -> Path:
    return _write(folder, "A.csv", bytes(100_000))


def null_bytes_inside(folder: Path) -> Path:
    return _write(folder, "A.csv", GOOD.replace(",11,", ",1\x001,"))


def gzip_as_csv(folder: Path) -> Path:
    return _write(folder, "A.csv", gzip.compress(GOOD.encode()))


def gzip_bomb(folder: Path) -> Path:
    """A quarter of a GiB of rows in 250 KB."""
    return _write(folder, "A.csv", gzip.compress(HEADER.encode() + ROWS[:38].encode() * (2**28 // 38), 1))


def zlib_with_a_readable_head(folder: Path) -> Path:
    """Unpacked by some readers unasked; its first bytes are not compressed, so a header can be read in them."""
    packer = zlib.compressobj(0, wbits=15)
    data = packer.compress(("\n,timestamp,open,high,low,close\n" + ROWS.replace("2024", ",2024")).encode())
    return _write(folder, "A.csv", data + packer.flush())


def zip_as_csv(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "A.csv", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../escaped.csv", GOOD)
    return folder


def tar_as_csv(folder: Path) -> Path:
    with tarfile.open(folder / "A.csv", "w") as archive:
        info = tarfile.TarInfo("../../escaped.csv")
        info.size = len(GOOD)
        archive.addfile(info, io.BytesIO(GOOD.encode()))
    return folder


def archive_by_name(folder: Path) -> Path:
    return _write(folder, "A.csv.gz", gzip.compress(GOOD.encode()))


def parquet_as_csv(folder: Path) -> Path:
    _frame().write_parquet(folder / "A.csv")
    return folder


def csv_as_parquet(folder: Path) -> Path:
    return _write(folder, "A.parquet", GOOD)


def utf16_without_mark(folder: Path) -> Path:
    return _write(folder, "A.csv", GOOD.encode("utf-16-le"))


def latin1_text(folder: Path) -> Path:
    return _write(folder, "A.csv", HEADER.encode() + "2024-01-01T00:00:00Z,10,12,9,11,1\xb2\n".encode("latin-1"))


def many_columns(folder: Path) -> Path:
    return _write(folder, "A.csv", HEADER.strip() + ",x" * 25_000 + "\n" + ROWS)


def many_columns_of_numbers(folder: Path) -> Path:
    pl.DataFrame({**_frame().to_dict(as_series=False), **{f"x{i}": [1] * 5 for i in range(1_500)}}).write_parquet(
        folder / "A.parquet"
    )
    return folder


def endless_first_line(folder: Path) -> Path:
    return _write(folder, "A.csv", HEADER.strip() + "x" * 2**26)


def endless_line(folder: Path) -> Path:
    return _write(folder, "A.csv", GOOD + "9" * 2**26 + ",1,1,1,1,1\n")


def wide_line(folder: Path) -> Path:
    return _write(folder, "A.csv", GOOD + "," * 2**24 + "\n")


def open_quote(folder: Path) -> Path:
    return _write(folder, "A.csv", GOOD + '"2024-01-06T00:00:00Z,1,1,1,1,1\n' + ROWS * 1_000)


def deep_nesting(folder: Path) -> Path:
    frame = _frame()
    value = pl.Series("open", [1.0] * 5)
    for _ in range(60):
        value = pl.DataFrame({"x": value}).to_struct("open")
    frame.with_columns(value).write_parquet(folder / "A.parquet")
    return folder


def lists_as_prices(folder: Path) -> Path:
    _frame().with_columns(open=pl.lit([1.0, 2.0])).write_parquet(folder / "A.parquet")
    return folder


def bytes_as_times(folder: Path) -> Path:
    _frame().with_columns(timestamp=pl.lit(b"\xff\xfe")).write_parquet(folder / "A.parquet")
    return folder


def symbol_of_each_row(folder: Path) -> Path:
    n = 60_000
    _frame(n).with_columns(symbol=pl.int_range(n).cast(pl.String)).write_parquet(folder / "A.parquet")
    return folder


def symbol_that_climbs(folder: Path) -> Path:
    """Read: it is only a name. What is written about it must not leave its folder."""
    _frame().with_columns(symbol=pl.lit("../" * 13)).write_parquet(folder / "A.parquet")
    return folder


def symbol_that_begins_a_formula(folder: Path) -> Path:
    _frame().with_columns(symbol=pl.lit('=HYPERLINK("http://x")')).write_parquet(folder / "A.parquet")
    return folder


def symbol_with_escape_codes(folder: Path) -> Path:
    _frame().with_columns(symbol=pl.lit("A\x1b[2J")).write_parquet(folder / "A.parquet")
    return folder


# A Parquet footer, written by hand: Thrift's compact protocol, of which a struct is (field delta << 4 | type, value)...


def _varint(n: int) -> bytes:
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes((*out, n))


def _int(n: int) -> bytes:
    return _varint(n << 1)  # zigzag of a number that is not negative


def _text(value: str) -> bytes:
    return _varint(len(value)) + value.encode()


def _struct(*fields: tuple[int, int, bytes]) -> bytes:
    """Fields of ascending number: (number, type, value); i32 is 5, i64 6, text 8, list 9, struct 12."""
    out, last = b"", 0
    for number, kind, value in fields:
        out += bytes([(number - last) << 4 | kind]) + value
        last = number
    return out + b"\0"


def _list(kind: int, items: list[bytes], claimed: int | None = None) -> bytes:
    n = len(items) if claimed is None else claimed
    head = bytes([n << 4 | kind]) if n < 15 else bytes([0xF0 | kind]) + _varint(n)
    return head + b"".join(items)


def _claiming(rows: int, groups: int | None = None) -> bytes:
    """A Parquet file without data whose footer claims `rows` rows, in a list that claims `groups` groups."""
    names = ("timestamp", "open", "high", "low", "close")
    root = _struct((4, 8, _text("root")), (5, 5, _int(len(names))))
    leaves = [_struct((1, 5, _int(2)), (3, 5, _int(0)), (4, 8, _text(name))) for name in names]  # INT64, required
    chunks = []
    for name in names:
        meta = _struct(
            (1, 5, _int(2)),
            (2, 9, _list(5, [_int(0)])),
            (3, 9, _list(8, [_text(name)])),
            (4, 5, _int(0)),
            (5, 6, _int(rows)),
            (6, 6, _int(rows * 8)),
            (7, 6, _int(40)),
            (9, 6, _int(4)),
        )
        chunks.append(_struct((2, 6, _int(4)), (3, 12, meta)))
    group = _struct((1, 9, _list(12, chunks)), (2, 6, _int(rows * 40)), (3, 6, _int(rows)))
    footer = _struct(
        (1, 5, _int(1)), (2, 9, _list(12, [root, *leaves])), (3, 6, _int(rows)), (4, 9, _list(12, [group], groups))
    )
    return b"PAR1" + bytes(64) + footer + struct.pack("<I", len(footer)) + b"PAR1"


def claims_a_trillion_rows(folder: Path) -> Path:
    return _write(folder, "A.parquet", _claiming(2**40))


def claims_rows_it_has_no_bytes_for(folder: Path) -> Path:
    return _write(folder, "A.parquet", _claiming(10_000_000))


def claims_a_billion_groups(folder: Path) -> Path:
    return _write(folder, "A.parquet", _claiming(100, 2**30))


def footer_longer_than_the_file(folder: Path) -> Path:
    return _write(folder, "A.parquet", b"PAR1" + bytes(64) + struct.pack("<I", 2**31 - 1) + b"PAR1")


_READ = {symbol_that_climbs}
HOSTILE: Mapping[str, Callable[[Path], Path]] = {
    f.__name__: f
    for f in list(globals().values())
    if callable(f) and getattr(f, "__module__", "") == __name__ and not f.__name__.startswith("_") and f not in _READ
}
"""By name, what writes into an empty folder and returns the path to load; all must be refused, soon."""
