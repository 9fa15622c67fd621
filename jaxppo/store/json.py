"""JSON files, which somebody else may have made: strict JSON on disk, bounded, and never waited for.

A number that is not finite has no JSON: nan is written as null, and infinities as the text "inf" and "-inf". Where a
null stands for such a number and where for nothing at all, only the reader of a file can know: `read_figures` takes it
for nan, `read_json` for None.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from jaxppo.store.files import read_plain_text, write_atomic

_INFINITIES = {"inf": math.inf, "-inf": -math.inf}


def write_json(path: Path, value: Any) -> None:
    """Write plain values (dicts, lists, tuples, text, numbers, None) as one JSON file, whole or not at all."""
    write_atomic(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value of a JSON file; null is None.

    Raises:
      OSError: there is none, or it may not be read.
      ValueError: it is not JSON, nested too deep, or none that `read_plain_text` reads.
    """
    try:
        return json.loads(read_plain_text(path))
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def read_figures(path: Path) -> Any:
    """The value of a JSON file in which every null is nan, and every "inf" or "-inf" a float. Raises as `read_json`."""
    return as_figures(read_json(path))


def as_figures(value: Any) -> Any:
    """A value of `read_json` with its nulls as nan, and its infinities as floats."""
    if isinstance(value, dict):
        return {k: as_figures(v) for k, v in value.items()}
    if isinstance(value, list):
        return [as_figures(v) for v in value]
    if value is None:
        return math.nan
    return _INFINITIES.get(value, value) if isinstance(value, str) else value


def plain(value: Any) -> Any:
    """`value` with its numbers that are not finite as JSON can say them."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
