"""The sizes that a Parquet file claims, looked through before a reader that believes them allocates them.

Footer and page headers are Thrift structs in the compact protocol (https://github.com/apache/thrift/blob/master/doc/
specs/thrift-compact-protocol.md) with the fields of parquet.thrift. What polars 2.1 does with a false size: a flipped
bit in a page header of a file of 12 KB made it ask for 2^61 bytes, which ends the process.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

MAGIC = b"PAR1"
MAX_FOOTER = 2**23
"""Bytes; a thousand groups of ten columns take under two million."""
MAX_PAGE_HEADER = 2**16
MAX_PAGE = 2**30
"""Bytes of a page when unpacked; writers aim at one million."""
_MAX_DEPTH = 24
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT, _UUID = 1, 2, 3, 7, 8, 9, 10, 11, 12, 13
_INTEGERS = (4, 5, 6)

# Paths of field numbers. FileMetaData: 3 num_rows, 4 row_groups; there 1 columns, 3 num_rows; of columns 3 meta_data.
_ROWS, _GROUP_ROWS, _CHUNK = (3,), (4, 3), (4, 1, 3)
# In ColumnMetaData.
_VALUES, _COMPRESSED, _DATA_OFFSET, _DICTIONARY_OFFSET = 5, 7, 9, 11
# In PageHeader: the sizes, then num_values of a data page, a dictionary page and a data page of version 2.
_PAGE_SIZE, _PACKED_SIZE, _CHECKSUM = (2,), (3,), (4,)
_DATA_PAGES, _DICTIONARY_PAGE = ((5, 1), (8, 1)), (7, 1)
_LEVELS = ((8, 5), (8, 6))  # lengths in bytes


def check_sizes(path: Path) -> int:
    """The rows that a Parquet file says it has.

    Raises:
        ValueError: a footer or page header that is none, or claims more elements, bytes, rows or values than there
            can be.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - 8, 0))
        tail = file.read(8)
        length = int.from_bytes(tail[:4], "little")
        if len(tail) < 8 or tail[4:] != MAGIC:
            raise ValueError("it does not end as a Parquet file; it may have been cut short")
        if length > min(size - 12, MAX_FOOTER):
            raise ValueError(f"its footer claims {length:,} bytes, more than it has room for")
        file.seek(size - 8 - length, os.SEEK_SET)
        footer = _Thrift(file.read(length))
        footer.struct(())
        groups = footer.numbers.get(_GROUP_ROWS, [])
        rows = sum(footer.numbers.get(_ROWS, [-1]))
        if rows < 0 or rows != sum(groups) or any(n < 0 for n in groups):
            raise ValueError("the rows of its groups do not add up to those of the file")
        for chunk in footer.chunks:
            _check_chunk(file, chunk, size - 8 - length)
    return rows


def _check_chunk(file: BinaryIO, chunk: dict[int, int], end: int) -> None:
    """Walk through the page headers of a column chunk, which lies before the footer at `end`."""
    at = min(chunk.get(_DATA_OFFSET, -1), chunk.get(_DICTIONARY_OFFSET) or end)
    stop = at + chunk.get(_COMPRESSED, -1)
    if not 0 <= at <= stop <= end:
        raise ValueError("its footer names places outside of the file")
    values = 0
    while at < stop:
        file.seek(at)
        header = _Thrift(file.read(min(MAX_PAGE_HEADER, stop - at)))
        header.struct(())
        found = {path: numbers[0] for path, numbers in header.numbers.items()}
        packed, unpacked = found.get(_PACKED_SIZE, -1), found.get(_PAGE_SIZE, -1)
        at += header.at + packed
        negative = any(n < 0 for path, n in found.items() if path != _CHECKSUM and path[0] in (2, 3, 5, 7, 8))
        if negative or packed < 0 or not 0 <= unpacked <= MAX_PAGE or at > stop:
            raise ValueError("a page header claims a size that cannot be")
        values += sum(found.get(path, 0) for path in _DATA_PAGES)
        levels = sum(found.get(path, 0) for path in _LEVELS)
        if values > chunk.get(_VALUES, -1) or found.get(_DICTIONARY_PAGE, 0) > MAX_PAGE or levels > packed:
            raise ValueError("a page header claims more values than its column has")
    if values != chunk.get(_VALUES, -1):
        raise ValueError("the values of its pages do not add up to those of the column")


class _Thrift:
    """Reads a struct; keeps the whole numbers by their paths, and those of each column chunk of a footer apart."""

    def __init__(self, data: bytes):
        self.numbers: dict[tuple[int, ...], list[int]] = {}
        self.chunks: list[dict[int, int]] = []
        self.at = 0
        self._data = data

    def struct(self, path: tuple[int, ...]) -> None:
        """Read the fields of a struct that is reached by the fields of `path`."""
        if len(path) > _MAX_DEPTH:
            raise ValueError("its footer or a page header is nested too deeply")
        if path == _CHUNK:
            self.chunks.append({})
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._signed()
            self._value(head & 15, (*path, field))

    def _value(self, kind: int, path: tuple[int, ...]) -> None:
        if kind in (_TRUE, _FALSE):
            return
        if kind in _INTEGERS:
            number = self._signed()
            if path[:-1] == _CHUNK:
                self.chunks[-1][path[-1]] = number
            else:
                self.numbers.setdefault(path, []).append(number)
        elif kind == _STRUCT:
            self.struct(path)
        elif kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 != 15 else self._varint()
            self._elements(count, (head & 15,), path)
        elif kind == _MAP:
            if count := self._varint():
                head = self._byte()
                self._elements(count, (head >> 4, head & 15), path)
        else:
            sizes = {_BYTE: 1, _DOUBLE: 8, _UUID: 16}
            if kind not in sizes and kind != _BINARY:
                raise ValueError("its footer or a page header cannot be understood")
            self._skip(self._varint() if kind == _BINARY else sizes[kind])

    def _elements(self, count: int, kinds: tuple[int, ...], path: tuple[int, ...]) -> None:
        """Each takes a byte at least, so that no list can be longer than what is left."""
        if count * len(kinds) > len(self._data) - self.at:
            raise ValueError(f"its footer claims a list of {count:,} where it has no room for one")
        for _ in range(count):
            for kind in kinds:
                if kind in (_TRUE, _FALSE):
                    self._skip(1)
                else:
                    self._value(kind, path)

    def _byte(self) -> int:
        self._skip(1)
        return self._data[self.at - 1]

    def _skip(self, n: int) -> None:
        if n > len(self._data) - self.at:
            raise ValueError("its footer or a page header ends in the middle")
        self.at += n

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("its footer or a page header cannot be understood")

    def _signed(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
