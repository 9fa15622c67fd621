"""tearsheet.json and tearsheet_daily.csv: the tear sheet of an account, and its rolling figures day by day."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from jaxppo.play.tearsheet import TearSheet
from jaxppo.store.files import write_frame
from jaxppo.store.json import write_json

TEARSHEET, TEARSHEET_DAILY = "tearsheet.json", "tearsheet_daily.csv"


def write_tearsheet(folder: Path, sheet: TearSheet, prefix: str = "") -> None:
    """Write both files into a folder, their names after `prefix`."""
    write_json(folder / f"{prefix}{TEARSHEET}", sheet.figures)
    frame = pl.DataFrame(sheet.daily).with_columns(pl.col(pl.Float64).fill_nan(None))
    write_frame(folder / f"{prefix}{TEARSHEET_DAILY}", frame)
