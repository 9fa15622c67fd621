"""One reader of the folders that runs, backtests, walk-forwards and sweeps leave: what their pages are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
import yaml

from jaxppo.config.layers import parse_yaml
from jaxppo.errors import RunDirectoryError
from jaxppo.play.best import RANKED_COLUMN, best_update
from jaxppo.play.gate import Flag, Gate, Threshold
from jaxppo.play.metrics import METRICS
from jaxppo.store.columns import JOINED, POOLED, PORTFOLIO, PORTFOLIO_PREFIX
from jaxppo.store.directory import CONFIG, MANIFEST, METRICS_CSV
from jaxppo.store.files import read_plain_text
from jaxppo.store.gate import GATE
from jaxppo.store.json import read_figures, read_json
from jaxppo.store.tables import MEMBERS, PORTFOLIOS
from jaxppo.store.tearsheet import TEARSHEET, TEARSHEET_DAILY
from jaxppo.store.why import IMPORTANCE, WHY, WORST

EQUITY_COLUMNS = ("symbol", "time", "close", "equity", "exposure", "action", "benchmark")
TRADE_COLUMNS = (
    *("symbol", "side", "entry_time", "exit_time", "bars", "entry_price", "exit_price"),
    *("fees", "pnl", "return", "reason"),
)
IMPORTANCE_COLUMNS = ("features", "sharpe_drop", "return_drop", "costs_added", "changed")
FOLD_DATES = ("train_begin", "train_end", "test_begin", "test_end", "last_test")

BACKTESTS = "backtest"
"""Folder of a run in which its backtests lie, each in one of its own."""

T = TypeVar("T")


@dataclass(frozen=True)
class Evaluation:
    """One policy on the validation bars."""

    equity: pl.DataFrame
    """One row a symbol and bar, and a POOLED row a bar."""
    trades: pl.DataFrame
    """One row a closed trade."""
    symbols: pl.DataFrame
    """One row of metrics a symbol, a POOLED and a PORTFOLIO row; all columns but `symbol` are float64."""


@dataclass(frozen=True)
class Sheet:
    """The tear sheet of an account that is rebalanced daily."""

    figures: dict[str, Any]
    """tearsheet.json."""
    daily: pl.DataFrame
    """One row a UTC date: returns of the account and of holding, and figures of rolling windows where they fit."""


@dataclass(frozen=True)
class Provenance:
    """What something was made from."""

    name: str
    config: dict[str, Any]
    manifest: dict[str, Any]


@dataclass(frozen=True)
class Tested:
    """What a backtest found."""

    facts: dict[str, Any]
    """metrics.json."""
    gate: Gate

    @property
    def members(self) -> list[dict[str, float]]:
        """Figures of each member of an ensemble; empty for one policy."""
        members: list[dict[str, float]] = lookup(self.facts, "members", "each", default=[])
        return members

    @property
    def portfolios(self) -> dict[str, dict[str, float]]:
        """Figures of policy, buy-and-hold and rules, rebalanced daily; empty in a folder of an earlier version."""
        portfolios: dict[str, dict[str, float]] = self.facts.get("portfolios", {})
        return portfolios

    @property
    def pooled(self) -> dict[str, float]:
        """The policy's metrics, all symbols together."""
        pooled: dict[str, float] = self.facts["pooled"]
        return pooled


@dataclass(frozen=True)
class RunData(Provenance):
    """A run directory."""

    metrics: pl.DataFrame
    """One row a validation, all columns float64; no rows before the first validation."""
    best: Evaluation | None
    final: Evaluation | None
    gate: Gate | None = None
    """None before the run has finished."""
    portfolios: dict[str, dict[str, float]] = field(default_factory=dict)
    """Figures of the best and the final policy, buy-and-hold and the rules, rebalanced daily, by name; empty before the
    run has finished, and for a run of an earlier version."""
    members: list[dict[str, float]] = field(default_factory=list)
    """Of an ensemble, the figures of each member of the policy shown; empty for one policy."""
    tested: Tested | None = None
    """The latest backtest in the run's folder on bars that all lie after its validation; None where there is none."""
    sheet: Sheet | None = None
    """Of the best policy; None before the run has finished, and for a run of an earlier version."""

    @property
    def best_row(self) -> int | None:
        """0-based row of the best validation in `metrics`, by what the run chooses by; None where none has a figure."""
        return best_row(self.metrics, lookup(self.config, "budget", "choose_by", default="fitness"))

    @property
    def shown(self) -> Evaluation | None:
        """The evaluation behind the headline: the best policy's, or the final one's where that is missing."""
        return self.best or self.final

    @property
    def best_is_final(self) -> bool:
        return self.best is not None and self.final is not None and self.best.equity.equals(self.final.equity)


@dataclass(frozen=True)
class BacktestData(Tested):
    """The folder of a backtest."""

    played: Evaluation
    curves: pl.DataFrame
    """Pooled equity of the baselines, one row a bar."""
    draws: pl.DataFrame
    """One row of pooled metrics a random draw."""
    costs: pl.DataFrame
    """One row of pooled metrics a multiple of the costs."""
    sheet: Sheet | None = None
    """None in a folder of an earlier version."""
    importance: pl.DataFrame | None = None
    """One row an input that was shifted in time; None where why it acts was not looked at."""
    why: dict[str, Any] | None = None
    """why.json; likewise."""
    worst: list[dict[str, Any]] | None = None
    """The trades with the lowest net profit, worst first, with what the policy saw; None in a folder of an earlier
    version."""


@dataclass(frozen=True)
class WalkforwardData(Provenance):
    """The folder of a walk-forward."""

    summary: dict[str, Any]
    """summary.json."""
    folds: pl.DataFrame
    """One row a fold; all columns but its number and its dates are float64."""
    played: Evaluation
    """Equity joined over the folds, all trades, and the metrics of each symbol over all folds."""
    portfolio: pl.DataFrame
    """One row a UTC date: the policy rebalanced daily, and each baseline's return."""
    gate: Gate
    """On the joined portfolio that is rebalanced daily."""
    accounts: pl.DataFrame
    """One row a fold, symbol and bar; in every fold accounts start with 1."""
    sheet: Sheet | None = None
    """Of that portfolio; None in a folder of an earlier version."""

    def joined_accounts(self) -> Evaluation:
        """Each symbol's accounts of all folds, compounded one after another."""
        curves = ("equity", "benchmark")
        last = self.accounts.group_by("symbol", "fold", maintain_order=True).agg(pl.col(curves).last())
        made = [pl.col(c).shift(1, fill_value=1.0).cum_prod().over("symbol").alias(f"{c}_before") for c in curves]
        before = last.select("symbol", "fold", *made)
        grown = self.accounts.join(before, on=["symbol", "fold"], maintain_order="left").with_columns(
            *(pl.col(c) * pl.col(f"{c}_before") for c in curves)
        )
        return replace(self.played, equity=grown.sort("symbol", "time", maintain_order=True))

    @property
    def portfolios(self) -> dict[str, dict[str, float]]:
        """Joined figures of policy, buy-and-hold and rules, rebalanced daily, as the columns of files."""
        columns = {metric.column for metric in METRICS.values()}
        named = {"policy": self.summary["portfolio"], **self.summary["baselines"]}
        return {name: {k: v for k, v in row.items() if k in columns} for name, row in named.items()}

    def joined(self, name: str, figure: str) -> float:
        """A joined figure of the policy or of a baseline."""
        return float(self.summary["joined"][name][figure])


@dataclass(frozen=True)
class SweepData(Provenance):
    """The folder of a sweep."""

    summary: dict[str, Any]
    """summary.json."""
    trials: pl.DataFrame
    """One row a trial: its parameters as they are, and figures."""
    validations: pl.DataFrame
    """One row a validation of any trial."""
    splits: pl.DataFrame
    """One row a split of the days in halves; none where there were too few trials or days."""


def load_run(run_dir: Path) -> RunData:
    """Read `run_dir`; raises `RunDirectoryError` where it is not a run directory or a file in it cannot be read.

    `metrics.csv` and the evaluations may be missing, as they are in a run that was interrupted.
    """
    missing = [name for name in (CONFIG, MANIFEST) if not (run_dir / name).is_file()]
    if missing:
        raise RunDirectoryError(f"{run_dir} is not a run directory: it has no {' and no '.join(missing)}")
    metrics, folder = run_dir / METRICS_CSV, run_dir / "validation"
    return RunData(
        name=run_dir.resolve().name,
        config=load_fields(run_dir),
        manifest=load_mapping(run_dir / MANIFEST, read_json),
        metrics=load_numbers(metrics, ("update", "env_steps")) if metrics.is_file() else pl.DataFrame(),
        best=_load_validation(folder, "best"),
        final=_load_validation(folder, "final"),
        gate=load_gate(run_dir / GATE) if (run_dir / GATE).is_file() else None,
        portfolios=_by_name(folder / PORTFOLIOS),
        members=_load_members(run_dir / MEMBERS),
        tested=_latest_test(run_dir / BACKTESTS),
        sheet=load_sheet(folder, "best_"),
    )


def _latest_test(folder: Path) -> Tested | None:
    """The newest backtest of a run out of sample; one whose files cannot be read is passed over."""
    found = sorted(folder.glob("*/metrics.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found:
        try:
            tested = Tested(load_mapping(path, read_figures), load_gate(path.parent / GATE))
        except RunDirectoryError:
            continue
        if lookup(tested.facts, "seen", "test", default=0) == 1:
            return tested
    return None


def load_backtest(folder: Path) -> BacktestData:
    """Read a backtest's folder; `RunDirectoryError` where a file of it cannot be read."""
    return BacktestData(
        facts=load_mapping(folder / "metrics.json", read_figures),
        gate=load_gate(folder / GATE),
        played=_load_evaluation(folder / "equity.parquet", folder / "trades.parquet", folder / "symbols.csv"),
        curves=load_numbers(folder / "baselines_equity.csv", text=("time",)),
        draws=load_numbers(folder / "random_draws.csv"),
        costs=load_numbers(folder / "costs.csv"),
        sheet=load_sheet(folder),
        **_load_why(folder),
    )


def _load_why(folder: Path) -> dict[str, Any]:
    """What says why a policy acts as it does, as far as it is there."""
    found: dict[str, Any] = {}
    if (folder / WHY).is_file():
        found["why"] = load_mapping(folder / WHY, read_figures)
        found["importance"] = load_numbers(folder / IMPORTANCE, IMPORTANCE_COLUMNS, text=("input", "kind", "group"))
    if (folder / WORST).is_file():
        found["worst"] = load_mapping(folder / WORST, read_figures).get("trades", [])
    return found


def load_walkforward(folder: Path, name: str) -> WalkforwardData:
    """Read a walk-forward's folder, which will be called `name`; `RunDirectoryError` where a file cannot be read."""
    return WalkforwardData(
        name=name,
        config=load_fields(folder),
        manifest=load_mapping(folder / MANIFEST, read_json),
        summary=load_mapping(folder / "summary.json", read_figures),
        folds=load_numbers(folder / "folds.csv", text=("fold", *FOLD_DATES)),
        played=Evaluation(
            equity=load_frame(folder / "equity.parquet", pl.read_parquet, ("time", "equity")),
            trades=load_frame(folder / "trades.parquet", pl.read_parquet, TRADE_COLUMNS),
            symbols=load_numbers(folder / "symbols.csv", text=("fold", "symbol"))
            .filter(pl.col("fold") == JOINED)
            .drop("fold", "trained", strict=False),
        ),
        portfolio=load_frame(folder / "portfolio.parquet", pl.read_parquet, ("date", "fold", "return", "equity")),
        accounts=load_frame(folder / "accounts.parquet", pl.read_parquet, ("fold", *EQUITY_COLUMNS)),
        gate=load_gate(folder / GATE),
        sheet=load_sheet(folder),
    )


def load_sweep(folder: Path) -> SweepData:
    """Read the folder of a sweep that has ended; `RunDirectoryError` where a file of it cannot be read."""
    return SweepData(
        name=folder.resolve().name,
        config=load_fields(folder),
        manifest=load_mapping(folder / MANIFEST, read_json),
        summary=load_mapping(folder / "summary.json", read_figures),
        trials=load_frame(folder / "trials.parquet", pl.read_parquet, ("trial", "state", "value")),
        validations=load_numbers(folder / "validations.csv", ("trial", "update", "value"), text=("state",)),
        splits=load_frame(folder / "overfitting.parquet", pl.read_parquet, ()),
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
    return _metrics_of(evaluation, POOLED)


def portfolio_metrics(evaluation: Evaluation | None) -> dict[str, float]:
    """The PORTFOLIO row of the metrics, empty where there is none, as in a folder of an earlier version."""
    return _metrics_of(evaluation, PORTFOLIO)


def pooled_and_portfolio(evaluation: Evaluation | None) -> dict[str, float]:
    """The POOLED row of the metrics, and that of PORTFOLIO as portfolio_*: what `member_rows` has of a member."""
    daily = {f"{PORTFOLIO_PREFIX}{k}": v for k, v in portfolio_metrics(evaluation).items()}
    return pooled_metrics(evaluation) | daily


def _metrics_of(evaluation: Evaluation | None, symbol: str) -> dict[str, float]:
    rows = of_symbol(evaluation.symbols, symbol).drop("symbol").to_dicts() if evaluation else []
    return rows[0] if rows else {}


def best_row(metrics: pl.DataFrame, choose_by: str = "fitness") -> int | None:
    """0-based row of the best validation by `choose_by`, None where no validation has that figure."""
    fitness = values(metrics, RANKED_COLUMN.get(choose_by, "val_fitness"))
    return None if np.isnan(fitness).all() else best_update(dict(enumerate(fitness)))


def lookup(mapping: dict[str, Any], *keys: str, default: Any = None) -> Any:
    """Value under nested `keys`, `default` where one is missing or null."""
    found: Any = mapping
    for key in keys:
        if not isinstance(found, dict) or key not in found:
            return default
        found = found[key]
    return default if found is None else found


def load_gate(path: Path) -> Gate:
    """A gate.json; `RunDirectoryError` where it cannot be read."""
    raw = load_mapping(path, read_figures)
    missing = [name for name in ("verdict", "reasons", "flags") if name not in raw]
    if missing:
        raise RunDirectoryError(f"{path} has no {missing[0]!r}")
    try:
        reasons, flags = (Threshold(**r) for r in raw["reasons"]), (Flag(**f) for f in raw["flags"])
        return Gate(raw["verdict"], tuple(reasons), tuple(flags))
    except TypeError as error:
        raise RunDirectoryError(f"{path} cannot be read: {error}") from error


def _load_evaluation(equity: Path, trades: Path, symbols: Path) -> Evaluation:
    return Evaluation(
        equity=load_frame(equity, pl.read_parquet, EQUITY_COLUMNS),
        trades=load_frame(trades, pl.read_parquet, TRADE_COLUMNS),
        symbols=load_numbers(symbols, text=("symbol",)),
    )


def _load_validation(folder: Path, which: str) -> Evaluation | None:
    paths = [folder / f"{which}_{part}" for part in ("equity.parquet", "trades.parquet", "symbols.csv")]
    return _load_evaluation(*paths) if all(path.is_file() for path in paths) else None


def load_sheet(folder: Path, prefix: str = "") -> Sheet | None:
    """The tear sheet in a folder, of files whose names begin with `prefix`; None where there is none."""
    figures, daily = (folder / f"{prefix}{name}" for name in (TEARSHEET, TEARSHEET_DAILY))
    if not (figures.is_file() and daily.is_file()):
        return None
    return Sheet(load_mapping(figures, read_figures), load_numbers(daily, ("return", "buy_and_hold"), text=("date",)))


def _by_name(path: Path) -> dict[str, dict[str, float]]:
    """Rows of numbers by their `name`; none where there is no such file."""
    rows = load_numbers(path, text=("name",)).to_dicts() if path.is_file() else []
    return {row.pop("name"): row for row in rows}


def _load_members(path: Path) -> list[dict[str, float]]:
    """The rows of the best policy's members; none where there is no such file."""
    rows = load_numbers(path, ("member",), text=("policy",)).to_dicts() if path.is_file() else []
    return [{k: v for k, v in row.items() if k != "policy"} for row in rows if row["policy"] == "best"]


def load_fields(folder: Path) -> dict[str, Any]:
    """The config.yaml of a folder, nested; `RunDirectoryError` where it cannot be read."""
    return load_mapping(folder / CONFIG, lambda path: parse_yaml(read_plain_text(path)))


def load_numbers(path: Path, columns: tuple[str, ...] = (), text: tuple[str, ...] = ()) -> pl.DataFrame:
    """CSV with `columns` and `text`, all but the latter as float64, so that a symbol named 007 or NaN stays text."""
    read = load_frame(path, lambda p: pl.read_csv(p, infer_schema=False, truncate_ragged_lines=True), (*text, *columns))
    return read.with_columns(pl.exclude(text).cast(pl.Float64, strict=False).fill_null(float("nan")))


def load_frame(path: Path, read: Callable[[Path], pl.DataFrame], columns: tuple[str, ...]) -> pl.DataFrame:
    """A table that has `columns`; `RunDirectoryError` where it has not, or cannot be read."""
    frame = _read(path, read)
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise RunDirectoryError(f"{path} has no column {missing[0]!r}; its columns are {', '.join(frame.columns)}")
    return frame


def load_mapping(path: Path, read: Callable[[Path], Any]) -> dict[str, Any]:
    """A file of a mapping; `RunDirectoryError` where it is none, or cannot be read."""
    loaded = _read(path, read)
    if not isinstance(loaded, dict):
        raise RunDirectoryError(f"{path} must hold a mapping, but holds a {type(loaded).__name__}")
    return loaded


def _read(path: Path, read: Callable[[Path], T]) -> T:
    try:
        return read(path)
    except (OSError, ValueError, yaml.YAMLError, pl.exceptions.PolarsError) as error:
        raise RunDirectoryError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
