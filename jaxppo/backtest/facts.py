"""What is known of a run before its policy is played: its dates, its validations, what the policy had seen."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from jaxppo.config.schema import Config
from jaxppo.errors import RunDirectoryError
from jaxppo.market.asset_classes import class_fees
from jaxppo.market.calendar import format_interval
from jaxppo.market.dataset import Market, Split, decision_times, market_warnings
from jaxppo.play.gate import Record
from jaxppo.store.checkpoint import RestoredPolicy, Which
from jaxppo.store.checkpoint_info import CheckpointInfo
from jaxppo.store.directory import MANIFEST, METRICS_CSV
from jaxppo.store.json import read_json

FOLDER = "backtest"
SplitName = Literal["validation", "test", "all"]


def read_manifest(run_dir: Path) -> dict[str, Any]:
    """The manifest of a run; `RunDirectoryError` where there is none to read."""
    path = run_dir / MANIFEST
    try:
        raw = read_json(path)
        return {
            "data": raw["data"],
            "cutoffs": raw["data"]["cutoffs"],
            "hash": raw["data"]["hash"],
            "finished": raw.get("finished") is not None,
        }
    except FileNotFoundError as error:
        raise RunDirectoryError(f"{run_dir}: holds no run ({MANIFEST} is missing); give a run directory") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(f"{path}: cannot be read as the manifest of a run ({error!r})") from error


def read_cutoffs(manifest: dict[str, Any], run_dir: Path) -> tuple[int, int] | None:
    """The run's cut-off dates in UTC seconds; None for a run split by symbol."""
    if manifest["cutoffs"] is None:
        return None
    try:
        one, two = (int(datetime.fromisoformat(c).timestamp()) for c in manifest["cutoffs"])
    except (ValueError, TypeError) as error:
        raise RunDirectoryError(f"{run_dir / MANIFEST}: data.cutoffs must be two ISO dates ({error})") from error
    return one, two


def validation_record(run_dir: Path, which: Which, info: CheckpointInfo) -> Record:
    """What the run's validations say of a policy: the best was chosen from all, any other from those up to its update.

    A run without metrics.csv is taken by the word of the checkpoint: one look.
    """
    path = run_dir / METRICS_CSV
    try:
        frame = pl.read_csv(path, columns=["update", "val_fitness"]).drop_nulls()
    except FileNotFoundError:
        return Record(1, info.best_fitness, info.fitness)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RunDirectoryError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    if frame.height == 0:
        return Record(1, info.best_fitness, info.fitness)
    seen = frame.height if which == "best" else frame.filter(pl.col("update") <= info.update).height
    fitness = frame["val_fitness"].cast(pl.Float64)
    return Record(max(1, seen), float(fitness.max()), float(fitness[-1]))  # type: ignore[arg-type]


def seen_shares(split: Split, cutoffs: tuple[int, int] | None) -> dict[str, float]:
    """Shares of the decisions at times before the run's first cut-off date (`train`), between both, and after."""
    if cutoffs is None:
        return {}
    at = np.concatenate(decision_times(split))
    train, validation = float((at < cutoffs[0]).mean()), float(((at >= cutoffs[0]) & (at < cutoffs[1])).mean())
    return {"train": train, "validation": validation, "test": 1.0 - train - validation}


def seen_warnings(shares: dict[str, float], which: Which, split: SplitName) -> list[str]:
    """What the policy had seen of the bars that it is judged on."""
    found = []
    if not shares:
        found.append("the run was split by symbol, so the policy was trained on times that other symbols are tested on")
        if split == "all":
            found.append("most of these bars were trained on; the figures say little about bars to come")
    if shares.get("train", 0) > 0:
        share = 100 * shares["train"]
        found.append(f"{share:.1f} % of the decisions are at times that the run trained on (in sample)")
    if shares.get("validation", 0) > 0:
        chosen = ", where this policy was chosen as the best" if which == "best" else ""
        found.append(f"{100 * shares['validation']:.1f} % of the decisions lie in the validation period{chosen}")
    return found


def unfinished_warnings(manifest: dict[str, Any], info: CheckpointInfo) -> list[str]:
    """A run that was stopped, or is still going on."""
    if manifest["finished"]:
        return []
    return [f"the run has not finished: its policy of update {info.update} of {info.config.budget.n_updates} is played"]


def look_warnings(run_dir: Path, split: SplitName) -> list[str]:
    """Earlier backtests of the same split: every one that is acted on makes it less of a test."""
    before = len(list((run_dir / FOLDER).glob(f"{split}-*")))
    if split != "test" or before == 0:
        return []
    times = "once" if before == 1 else f"{before} times"
    return [
        f"the test split of this run was played {times} before; what is chosen by looking at it is no longer tested"
    ]


def terms(market: Market, config: Config) -> dict[str, Any]:
    """At what costs and under which rules the policy was played."""
    env, fees = config.env, class_fees(config.env)
    return {
        "fee": {name: fees[name] for name in sorted({b.asset_class for b in market.bars})},
        **{k: getattr(env, k) for k in ("spread", "slippage", "borrow", "stop_loss", "take_profit", "max_exposure")},
    }


def data_warnings(policy: RestoredPolicy, market: Market, manifest: dict[str, Any], own_data: bool) -> list[str]:
    """What is different about the bars."""
    found = list(market_warnings(market))
    trained = manifest["data"].get("interval")
    interval = format_interval(market.bars[0].interval)
    if trained is not None and trained != interval:
        found.append(f"the policy was trained on {trained} bars and is played on {interval} bars")
    if own_data and policy.info.data_hash != market.data_hash:
        found.append(
            f"the run's data changed since it was trained (hash {policy.info.data_hash[:12]}, now"
            f" {market.data_hash[:12]})"
        )
    return found
