"""Files that say why a policy acts as it does: importance.csv, why.json and worst_trades.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from jaxppo.store.files import write_frame
from jaxppo.store.json import write_json

IMPORTANCE, WHY, WORST = "importance.csv", "why.json", "worst_trades.json"


def write_why(folder: Path, importance: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> None:
    """Write FOLDER/importance.csv and FOLDER/why.json."""
    write_frame(folder / IMPORTANCE, pl.DataFrame(importance))
    write_json(folder / WHY, dict(facts))


def write_worst_trades(folder: Path, trades: Sequence[Mapping[str, Any]]) -> None:
    """Write FOLDER/worst_trades.json."""
    write_json(folder / WORST, {"trades": [dict(t) for t in trades]})
