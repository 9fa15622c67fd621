"""Files as such: written whole or not at all, appended by whole pieces, read only where small and plain."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl

MOST = 2**24
"""Bytes of a text file that is read. The manifest, the largest of them, has some 300 a symbol."""


def read_plain_text(path: Path) -> str:
    """The text of a regular file of at most `MOST` bytes.

    Raises:
      OSError: there is none, or it may not be read.
      ValueError: it is something else than a file, too large, or not UTF-8.
    """
    size = path.stat().st_size
    if not path.is_file():
        raise ValueError("not a regular file")
    if size > MOST:
        raise ValueError(f"{size:,} bytes, more than the {MOST:,} that are read")
    return path.read_text(encoding="utf-8")


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system can."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a whole file, text as UTF-8, flushed to the disk, or nothing."""
    part = path.with_name(path.name + ".tmp")
    try:
        with part.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:  # the system names no file where a write finds no room
        error.filename = error.filename or str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def write_frame(path: Path, frame: pl.DataFrame) -> None:
    """Write a whole CSV or Parquet file, by the suffix of `path`, or nothing.

    Through memory: Polars tells of a full disk as of a broken file, which it is not.
    """
    buffer = io.BytesIO()
    if path.suffix == ".csv":
        frame.write_csv(buffer)
    else:
        frame.write_parquet(buffer)
    write_atomic(path, buffer.getvalue())


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a whole CSV file with every digit of its floats, or nothing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    # repr keeps every digit; that of a NumPy float names its type
    writer.writerows([repr(float(v)) if isinstance(v, float) else v for v in row] for row in rows)
    write_atomic(path, text.getvalue())


def write_page(folder: Path, images: Mapping[str, bytes], html: str, page: str = "report.html") -> Path:
    """Write `folder`/plots/NAME.png of every image and `folder`/`page`, each whole; returns the path of the page."""
    (folder / "plots").mkdir(exist_ok=True)
    for name, image in images.items():
        write_atomic(folder / "plots" / f"{name}.png", image)
    target = folder / page
    write_atomic(target, html)
    return target


class Growing:
    """A file that grows by whole pieces. What could not be written is kept, and written before the next piece."""

    def __init__(self, path: Path):
        self._path = path
        self._pending = bytearray()
        self._size = path.stat().st_size if path.exists() else 0

    @property
    def size(self) -> int:
        """Bytes of the file with what is still to be written."""
        return self._size + len(self._pending)

    def cut(self, size: int) -> None:
        """Keep the first `size` bytes of the file only."""
        self._size = size
        if self._path.exists():
            os.truncate(self._path, size)

    def append(self, piece: bytes) -> None:
        """Write a piece and flush it to the disk.

        Raises:
          OSError: it could not be written, and is kept; call again, with b"" or with the next piece.
        """
        self._pending += piece
        if not self._pending:
            return
        with self._path.open("r+b" if self._path.exists() else "xb") as file:
            end = min(self._size, file.seek(0, os.SEEK_END))
            file.truncate(end)  # of what an earlier try left behind
            file.seek(end)
            file.write(self._pending)
            file.flush()
            os.fsync(file.fileno())
            self._size = file.tell()
        self._pending.clear()
