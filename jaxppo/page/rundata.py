"""Reading: what a report shows, from the files of a run directory alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
import yaml

from jaxppo.config.layers import parse_yaml
from jaxppo.errors import RunDirectoryError
from jaxppo.store.json import read_json, read_plain_text

POOLED = "POOLED"
"""Symbol under which the run directory keeps the figures of all symbols together."""

EQUITY_COLUMNS = ("symbol", "time", "close", "equity", "exposure", "action", "benchmark")
TRADE_COLUMNS = (
    "symbol",
    "side",
    "entry_time",
    "exit_time",
    "bars",
    "entry_price",
    "exit_price",
    "fees",
    "pnl",
    "return",
    "reason",
)
METRIC_COLUMNS = ("update", "env_steps")
SYMBOL_COLUMNS = ("symbol",)

T = TypeVar("T")


@dataclass(frozen=True)
class Evaluation:
    """One policy on the validation bars."""

    equity: pl.DataFrame
    """One row a symbol and bar, and a POOLED row a bar."""
    trades: pl.DataFrame
    """One row a closed trade."""
    symbols: pl.DataFrame
    """One row of metrics a symbol, and a POOLED row; all columns but `symbol` are float64."""


@dataclass(frozen=True)
class RunData:
    """Everything that the page is made of."""

    name: str
    config: dict[str, Any]
    manifest: dict[str, Any]
    metrics: pl.DataFrame
    """One row a validation, all columns float64; no rows before the first validation."""
    best: Evaluation | None
    final: Evaluation | None
    gate: dict[str, Any] | None = None
    """gate.json; None before the run has finished."""

    @property
    def shown(self) -> Evaluation | None:
        """The evaluation behind the headline: the best policy's, or the final one's where that is missing."""
        return self.best or self.final

    @property
    def best_is_final(self) -> bool:
        return self.best is not None and self.final is not None and self.best.equity.equals(self.final.equity)


def load_run(run_dir: Path) -> RunData:
    """Read `run_dir`; raises `RunDirectoryError` where it is not a run directory or a file in it cannot be read.

    `metrics.csv` and the evaluations may be missing, as they are in a run that was interrupted.
    """
    missing = [name for name in ("config.yaml", "manifest.json") if not (run_dir / name).is_file()]
    if missing:
        raise RunDirectoryError(f"{run_dir} is not a run directory: it has no {' and no '.join(missing)}")
    metrics = run_dir / "metrics.csv"
    return RunData(
        name=run_dir.resolve().name,
        config=_mapping(run_dir / "config.yaml", lambda p: parse_yaml(read_plain_text(p))),
        manifest=_mapping(run_dir / "manifest.json", read_json),
        metrics=_numbers(metrics, METRIC_COLUMNS, text=()) if metrics.is_file() else pl.DataFrame(),
        best=_evaluation(run_dir / "validation", "best"),
        final=_evaluation(run_dir / "validation", "final"),
        gate=load_gate(run_dir / "gate.json") if (run_dir / "gate.json").is_file() else None,
    )


def values(frame: pl.DataFrame, column: str) -> np.ndarray:
    """Column as float64 (rows,), NaN where a value is missing, and throughout where the column is."""
    if column not in frame.columns:
        return np.full(frame.height, np.nan)
    return frame[column].cast(pl.Float64).fill_null(np.nan).to_numpy()


def times(frame: pl.DataFrame, column: str = "time") -> np.ndarray:
    """Datetime column as datetime64[s] (rows,), UTC, which is what Matplotlib's date axis takes."""
    return frame[column].dt.epoch("s").to_numpy().astype("datetime64[s]")


def of_symbol(frame: pl.DataFrame, symbol: str) -> pl.DataFrame:
    """The rows of one symbol, or of POOLED."""
    return frame.filter(pl.col("symbol") == symbol)


def pooled_metrics(evaluation: Evaluation | None) -> dict[str, float]:
    """The POOLED row of the metrics, empty where there is none."""
    rows = of_symbol(evaluation.symbols, POOLED).drop("symbol").to_dicts() if evaluation else []
    return rows[0] if rows else {}


def best_row(metrics: pl.DataFrame) -> int | None:
    """0-based row of the validation with the highest fitness, None where no validation has one."""
    fitness = values(metrics, "val_fitness")
    return None if np.isnan(fitness).all() else int(np.nanargmax(fitness))


def lookup(mapping: dict[str, Any], *keys: str, default: Any = None) -> Any:
    """Value under nested `keys`, `default` where one is missing or null."""
    found: Any = mapping
    for key in keys:
        if not isinstance(found, dict) or key not in found:
            return default
        found = found[key]
    return default if found is None else found


def load_gate(path: Path) -> dict[str, Any]:
    """A gate.json; `RunDirectoryError` where it cannot be read."""
    gate = _mapping(path, read_json)
    missing = [name for name in ("verdict", "reasons", "flags") if name not in gate]
    if missing:
        raise RunDirectoryError(f"{path} has no {missing[0]!r}")
    return gate


def load_evaluation(equity: Path, trades: Path, symbols: Path) -> Evaluation:
    """What a policy did, from its three files; `RunDirectoryError` where one cannot be read."""
    return Evaluation(
        equity=_frame(equity, pl.read_parquet, EQUITY_COLUMNS),
        trades=_frame(trades, pl.read_parquet, TRADE_COLUMNS),
        symbols=_numbers(symbols, SYMBOL_COLUMNS, text=SYMBOL_COLUMNS),
    )


def _evaluation(folder: Path, which: str) -> Evaluation | None:
    paths = [folder / f"{which}_{part}" for part in ("equity.parquet", "trades.parquet", "symbols.csv")]
    return load_evaluation(*paths) if all(path.is_file() for path in paths) else None


def _numbers(path: Path, columns: tuple[str, ...], text: tuple[str, ...]) -> pl.DataFrame:
    """CSV with all but the `text` columns as float64, so that a symbol named 007 or NaN stays text."""
    frame = _frame(path, lambda p: pl.read_csv(p, infer_schema=False, truncate_ragged_lines=True), columns)
    return frame.with_columns(pl.exclude(text).cast(pl.Float64, strict=False).fill_null(float("nan")))


def _frame(path: Path, read: Callable[[Path], pl.DataFrame], columns: tuple[str, ...]) -> pl.DataFrame:
    frame = _read(path, read)
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise RunDirectoryError(f"{path} has no column {missing[0]!r}; its columns are {', '.join(frame.columns)}")
    return frame


def _mapping(path: Path, read: Callable[[Path], Any]) -> dict[str, Any]:
    loaded = _read(path, read)
    if not isinstance(loaded, dict):
        raise RunDirectoryError(f"{path} must hold a mapping, but holds a {type(loaded).__name__}")
    return loaded


def _read(path: Path, read: Callable[[Path], T]) -> T:
    try:
        return read(path)
    except (OSError, ValueError, yaml.YAMLError, pl.exceptions.PolarsError) as error:
        raise RunDirectoryError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
