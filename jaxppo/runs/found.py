"""What lies in a folder: runs, populations, walk-forwards, backtests and sweeps, each told by the files it holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from jaxppo.config.schema import Config, to_dict
from jaxppo.errors import JaxppoError, RunDirectoryError
from jaxppo.store.columns import of_portfolio
from jaxppo.store.directory import CONFIG, MANIFEST, METRICS_CSV, POPULATION, SNAPSHOTS
from jaxppo.store.gate import GATE
from jaxppo.store.json import read_figures, read_json
from jaxppo.store.read import best_row, load_fields, load_frame, load_mapping, load_numbers, lookup, values
from jaxppo.store.tables import FOLDER as VALIDATION
from jaxppo.store.tables import MEMBERS, PORTFOLIOS

SUMMARY, BACKTEST = "summary.json", "metrics.json"
SIGNS = {
    "population": (POPULATION,),
    "sweep": ("trials.csv", SUMMARY),
    "walkforward": ("folds.csv", SUMMARY),
    "backtest": (BACKTEST, "equity.parquet"),
    "run": (CONFIG,),
}
"""Files by which each kind of folder is known, the first that fits: sweeps and walk-forwards hold a config.yaml too."""
DEEPEST = 5
"""Folders that are looked into beneath the one that is given."""


@dataclass(frozen=True)
class Judged:
    """Figures of a policy on some bars, rebalanced daily, as the columns of files, and where its curve is."""

    figures: Mapping[str, float]
    interval: tuple[float, float] | None = None
    """90 % interval of the Sharpe ratio, where it is stored."""
    curve: Path | None = None
    """Table with `date` and `equity`, or with daily returns in `column`."""
    column: str = ""

    @property
    def sharpe(self) -> float:
        return float(self.figures.get("sharpe", math.nan))


@dataclass(frozen=True)
class Entry:
    """One folder, as far as its files tell."""

    path: Path
    kind: str
    config: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    updates: str = ""
    validation: Judged | None = None
    test: Judged | None = None
    gate: str = ""
    metrics: pl.DataFrame = field(default_factory=pl.DataFrame)  # of a run, one row a validation
    problem: str = ""  # why it cannot be read, a sentence


def kind_of(folder: Path) -> str | None:
    """What a folder is, by the files it holds; None where it is none of ours."""
    return next((kind for kind, names in SIGNS.items() if all((folder / name).is_file() for name in names)), None)


def find_folders(folder: Path, deepest: int = DEEPEST) -> Iterator[tuple[Path, str]]:
    """Every folder of ours in `folder`, itself first, by name. Backtests beneath a run belong to it, and are not told.

    Links are not followed, and what may not be read is passed over.
    """
    kind = kind_of(folder)
    if kind is not None:
        yield folder, kind
    if kind in ("run", "walkforward", "backtest") or deepest == 0:
        return
    try:
        inside = sorted(p for p in folder.iterdir() if p.is_dir() and not p.is_symlink() and p.name[0] != ".")
    except OSError:
        return
    for path in inside:
        if path.name != SNAPSHOTS:
            yield from find_folders(path, deepest - 1)


def read_entry(folder: Path, kind: str) -> Entry:
    """What a folder says of itself. One that is damaged says so in `problem`; nothing is raised."""
    try:
        return _READERS[kind](folder)
    except JaxppoError as error:
        return Entry(folder, kind, problem=str(error))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pl.exceptions.PolarsError) as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        return Entry(folder, kind, problem=f"{folder}: cannot be read ({type(error).__name__}: {reason})")


def require_entry(folder: Path) -> Entry:
    """`read_entry` of a folder that is asked for by name; `RunDirectoryError` where it is none of ours or damaged."""
    kind = kind_of(folder)
    if kind is None:
        raise RunDirectoryError(
            f"{folder}: is no run, walk-forward, backtest, population or sweep; python -m jaxppo.runs list FOLDER shows"
            " what is there"
        )
    entry = read_entry(folder, kind)
    if entry.problem:
        raise RunDirectoryError(entry.problem)
    return entry


def _read_run(folder: Path) -> Entry:
    config, manifest = load_fields(folder), _manifest(folder)
    path = folder / METRICS_CSV
    metrics = load_numbers(path, ("update", "env_steps")) if path.is_file() else pl.DataFrame()
    # What a sweep hands over has no rows of its own.
    done = values(metrics, "update")[-1] if metrics.height else lookup(manifest, "finished", "updates", default=0)
    gate = folder / GATE
    return Entry(
        folder,
        "run",
        config,
        str(lookup(manifest, "created", default="")),
        f"{done:.0f}/{lookup(config, 'budget', 'n_updates', default='?')}",
        _validated(folder, config, metrics),
        _tested(folder),
        str(lookup(load_mapping(gate, read_figures), "verdict", default="?")) if gate.is_file() else "",
        metrics,
    )


def _validated(folder: Path, config: dict[str, Any], metrics: pl.DataFrame) -> Judged | None:
    """The best policy on the validation bars: at the end of the run with all its figures, before with what there is."""
    table, curve = folder / VALIDATION / PORTFOLIOS, folder / VALIDATION / "best_portfolio.csv"
    if table.is_file():
        best = [row for row in load_numbers(table, text=("name",)).to_dicts() if row["name"] == "best"]
        if best:
            return Judged({k: v for k, v in best[0].items() if k != "name"}, None, curve if curve.is_file() else None)
    if metrics.height == 0:
        return None
    row = best_row(metrics, lookup(config, "budget", "choose_by", default="fitness"))
    sharpe = values(metrics, "val_portfolio_sharpe")
    return Judged({"sharpe": float(sharpe[-1 if row is None else row])})


def _tested(folder: Path) -> Judged | None:
    """The newest backtest of a run on its test split; one that is damaged counts as none."""
    found: list[tuple[float, Judged]] = []
    for path in sorted((folder / "backtest").glob(f"*/{BACKTEST}")):
        entry = read_entry(path.parent, "backtest")
        if entry.test is not None:
            found.append((path.stat().st_mtime, entry.test))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _read_backtest(folder: Path) -> Entry:
    facts = load_mapping(folder / BACKTEST, read_figures)
    ends = lookup(facts, "portfolio_intervals_90", "sharpe")
    curve = folder / "portfolio.csv"
    judged = Judged(
        {k: float(v) for k, v in facts["portfolio"].items()},
        (float(ends[0]), float(ends[1])) if isinstance(ends, list) and len(ends) == 2 else None,
        curve if curve.is_file() else None,
    )
    split, gate = str(facts["split"]), folder / GATE
    return Entry(
        folder,
        "backtest",
        created=str(facts.get("created", "")),
        updates=f"{float(facts['update']):.0f}",
        validation=judged if split == "validation" else None,
        test=judged if split == "test" else None,
        gate=str(load_mapping(gate, read_figures)["verdict"]) if gate.is_file() else "",
    )


def _read_walkforward(folder: Path) -> Entry:
    config, summary = load_fields(folder), load_mapping(folder / SUMMARY, read_figures)
    portfolio, curve = summary["portfolio"], folder / "portfolio.csv"
    low, high = portfolio["interval_90"]
    figures = {k: float(v) for k, v in portfolio.items() if isinstance(v, (int, float))}
    return Entry(
        folder,
        "walkforward",
        config,
        str(lookup(_manifest(folder), "created", default="")),
        f"{lookup(config, 'budget', 'n_updates', default='?')}",
        test=Judged(figures, (float(low), float(high)), curve if curve.is_file() else None),
        gate=str(lookup(summary, "gate", default="")),
    )


def _read_population(folder: Path) -> Entry:
    config, path = load_fields(folder), folder / SUMMARY
    planned = lookup(config, "budget", "n_updates", default="?")
    if not path.is_file():
        return Entry(folder, "population", config, updates=f"?/{planned}")
    summary = load_mapping(path, read_figures)
    rows = load_numbers(folder / MEMBERS, ("best_fitness",), text=("member", "gate")).to_dicts()
    best = next((row for row in rows if row["member"] == summary["best"]), {})
    figures = of_portfolio(best)
    return Entry(
        folder,
        "population",
        config,
        str(lookup(_manifest(folder / str(summary["best"])), "created", default="")),
        f"{float(summary['updates']):.0f}/{planned}",
        Judged(figures) if figures else None,
        gate=str(best.get("gate", "")),
    )


def _read_sweep(folder: Path) -> Entry:
    config, summary = load_fields(folder), load_mapping(folder / SUMMARY, read_figures)
    parts = {"validation": "val_", "test": "test_"}
    found: dict[str, Judged | None] = {}
    trial = lookup(summary, "winner", "trial", default="?")
    returns, rows = folder / "validation_returns.parquet", folder / "validations.csv"
    for part, prefix in parts.items():
        row = lookup(summary, "winner", part, default={})
        figures = {k: v for k, v in of_portfolio(row, prefix).items() if isinstance(v, float)}
        stored = (returns, f"trial_{trial}") if part == "validation" and returns.is_file() else (None, "")
        found[part] = Judged(figures, None, *stored) if figures else None
    metrics = pl.DataFrame(schema={"trial": pl.Float64, "update": pl.Float64})
    if rows.is_file():
        metrics = load_numbers(rows, ("trial", "update"), text=("state",))
    budget = {**to_dict(Config())["budget"], **lookup(config, "budget", default={})}
    steps = float(budget["n_envs"] * budget["n_steps"])  # an update; a sweep's rows are by updates
    return Entry(
        folder,
        "sweep",
        config,
        str(lookup(_manifest(folder), "created", default="")),
        f"{lookup(summary, 'winner', 'update', default='?')}",
        found["validation"],
        found["test"],
        str(lookup(summary, "ensemble", "gate", default="")),
        metrics.filter(pl.col("trial") == trial).with_columns(env_steps=pl.col("update") * steps),
    )


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest; empty where there is none, as in a run that was not compiled yet."""
    path = folder / MANIFEST
    return load_mapping(path, read_json) if path.is_file() else {}


_READERS: dict[str, Callable[[Path], Entry]] = {
    "run": _read_run,
    "backtest": _read_backtest,
    "walkforward": _read_walkforward,
    "population": _read_population,
    "sweep": _read_sweep,
}


def daily_curve(judged: Judged | None) -> pl.DataFrame:
    """`date` and `equity` (from a start of 1) of a portfolio that is rebalanced daily; empty where it is not stored.

    Raises:
      RunDirectoryError: the file is damaged.
    """
    if judged is None or judged.curve is None:
        return pl.DataFrame({"date": [], "equity": []}, schema={"date": pl.Date, "equity": pl.Float64})
    try:
        if judged.column:
            frame = load_frame(judged.curve, pl.read_parquet, ("date", judged.column)).sort("date")
            found = frame.select("date", equity=(1.0 + pl.col(judged.column)).cum_prod())
        else:
            frame = load_numbers(judged.curve, ("equity",), text=("date",))
            found = frame.select(pl.col("date").str.to_date(), "equity")
    except pl.exceptions.PolarsError as error:
        raise RunDirectoryError(f"{judged.curve} cannot be read: {str(error).splitlines()[0]}") from error
    return found.filter(pl.col("equity").is_finite()).unique("date", keep="last").sort("date")


def days_per_year(dates: np.ndarray) -> float:
    """Dates a year of a calendar (D,) datetime64[D], by how many there are and what they span."""
    days = float((dates[-1] - dates[0]) / np.timedelta64(1, "D")) if len(dates) > 1 else 0.0
    return (len(dates) - 1) / (days / 365.25) if days > 0 else 1.0
