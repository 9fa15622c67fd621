"""Small text files of a run or a checkpoint, which somebody else may have made: bounded, and never waited for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MOST = 2**24
"""Bytes. The manifest, the largest of them, has some 300 a symbol."""


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


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises as `read_plain_text`, and ValueError for what is not JSON or nested too deep."""
    try:
        return json.loads(read_plain_text(path))
    except RecursionError as error:
        raise ValueError("nested too deep") from error
