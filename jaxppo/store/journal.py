"""A file of JSON lines that only grows, and that a process may be killed in the middle of: a journal.

A line counts once its end is on the disk. What a kill left of the last one is cut off when the file is opened again:
whoever writes a line before it acts, and reads the lines before it acts again, does nothing twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxppo.errors import DataError
from jaxppo.store.json import plain

LONGEST = 2**20
"""Bytes of a line that is read: a decision over 53 features and 8 actions has some 1,500."""

JOURNAL = "journal.jsonl"
"""The journal's name in the folder of a paper trading session."""


class Journal:
    """A journal that is open for writing."""

    def __init__(self, path: Path):
        """Open or create `path`; `OSError` where it may not be read or written."""
        self._path = path
        self._file = path.open("r+b" if path.exists() else "x+b")
        self._size = _whole(self._file)
        self._file.truncate(self._size)
        self._file.seek(self._size)

    def read(self) -> Iterator[dict[str, Any]]:
        """The lines so far, as of `read_journal`."""
        return read_journal(self._path)

    def append(self, line: dict[str, Any], *, sync: bool = False) -> None:
        """Write a line, whole or not at all; `sync`: onto the disk, so that it outlives the machine and not only us.

        Raises:
          OSError: it could not be written, and is not there.
        """
        text = json.dumps(plain(line), separators=(",", ":"), allow_nan=False).encode() + b"\n"
        try:
            self._file.write(text)
            self._file.flush()
            if sync:
                os.fsync(self._file.fileno())
        except OSError as error:
            self._file = self._path.open("r+b")  # what could not be flushed would be written with the next line
            self._file.truncate(self._size)
            self._file.seek(self._size)
            error.filename = error.filename or str(self._path)
            raise
        self._size += len(text)

    def close(self) -> None:
        """Safe to call again."""
        self._file.close()


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a journal, oldest first; what a kill left of the last one is passed over.

    Raises:
      DataError: there is none, or a line is damaged that has another after it; the message has file and line.
    """
    if not path.is_file():
        raise DataError(f"{path}: no journal there; give the folder of a paper trading session")
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST), b""), 1):
            if not line.endswith(b"\n") and len(line) < LONGEST:
                return
            try:
                found = json.loads(line)
            except (ValueError, RecursionError) as error:
                said = f"{path}, line {number}: damaged, so what was sent cannot be known ({error})"
                raise DataError(said) from error
            if not isinstance(found, dict) or not isinstance(found.get("kind"), str):
                raise DataError(f"{path}, line {number}: not a line of a journal, which has a kind")
            yield found


def _whole(file: Any) -> int:
    """Bytes up to the end of the last whole line."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - LONGEST))
    tail = file.read()
    return end - len(tail) + tail.rfind(b"\n") + 1
