"""The footer of a Parquet file, looked through before a reader that believes it allocates what it claims.

It is a Thrift struct in the compact protocol (https://github.com/apache/thrift/blob/master/doc/specs/
thrift-compact-protocol.md) whose fields are those of parquet.thrift.
"""

from __future__ import annotations

import os
from pathlib import Path

MAGIC = b"PAR1"
MAX_FOOTER = 2**23
"""Bytes; a thousand groups of ten columns take under two million."""
_MAX_DEPTH = 24
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT, _UUID = 1, 2, 3, 7, 8, 9, 10, 11, 12, 13
_INTEGERS = (4, 5, 6)
# Paths of field numbers. FileMetaData: 3 num_rows, 4 row_groups. RowGroup: 1 columns, 3 num_rows. ColumnChunk:
# 3 meta_data. ColumnMetaData: 7 total_compressed_size, 9 data_page_offset, 11 dictionary_page_offset.
_ROWS, _GROUP_ROWS = (3,), (4, 3)
_PLACES = {"size": (4, 1, 3, 7), "data": (4, 1, 3, 9), "dictionary": (4, 1, 3, 11)}


def check_footer(path: Path) -> int:
    """The rows that a Parquet file says it has.

    Raises:
        ValueError: a footer that is none, or claims more elements, bytes or rows than the file has room for.
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
        footer = _Footer(file.read(length))
    footer.struct(())
    numbers = footer.numbers
    rows = sum(numbers.get(_ROWS, [-1]))
    if rows < 0 or rows != sum(numbers.get(_GROUP_ROWS, [0])) or min(numbers.get(_GROUP_ROWS, [0])) < 0:
        raise ValueError("the rows of its groups do not add up to those of the file")
    if any(not 0 <= n <= size for place in _PLACES.values() for n in numbers.get(place, [])):
        raise ValueError("its footer names places outside of the file")
    return rows


class _Footer:
    """Reads one struct after the other; keeps the whole numbers at the paths above."""

    def __init__(self, data: bytes):
        self.numbers: dict[tuple[int, ...], list[int]] = {}
        self._data = data
        self._at = 0
        self._wanted = {_ROWS, _GROUP_ROWS, *_PLACES.values()}

    def struct(self, path: tuple[int, ...]) -> None:
        """Read the fields of a struct that is reached by the fields of `path`."""
        if len(path) > _MAX_DEPTH:
            raise ValueError("its footer is nested too deeply")
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._signed()
            self._value(head & 15, (*path, field))

    def _value(self, kind: int, path: tuple[int, ...]) -> None:
        if kind in (_TRUE, _FALSE):
            return
        if kind in _INTEGERS:
            number = self._signed()
            if path in self._wanted:
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
                raise ValueError("its footer cannot be understood")
            self._skip(self._varint() if kind == _BINARY else sizes[kind])

    def _elements(self, count: int, kinds: tuple[int, ...], path: tuple[int, ...]) -> None:
        """Each takes a byte at least, so that no list can be longer than what is left."""
        if count * len(kinds) > len(self._data) - self._at:
            raise ValueError(f"its footer claims a list of {count:,} where it has no room for one")
        for _ in range(count):
            for kind in kinds:
                if kind in (_TRUE, _FALSE):
                    self._skip(1)
                else:
                    self._value(kind, path)

    def _byte(self) -> int:
        self._skip(1)
        return self._data[self._at - 1]

    def _skip(self, n: int) -> None:
        if n > len(self._data) - self._at:
            raise ValueError("its footer ends in the middle")
        self._at += n

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("its footer cannot be understood")

    def _signed(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
