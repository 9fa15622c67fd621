"""What is known of a run before its policy is played: its dates, its validations, what the policy had seen."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from jaxppo.config.schema import Config
from jaxppo.errors import RunDirectoryError
from jaxppo.market.asset_classes import class_fees
from jaxppo.market.calendar import format_interval
from jaxppo.market.costs import typical_env
from jaxppo.market.dataset import Market, Split, decision_times, market_warnings
from jaxppo.play.best import RANKED_COLUMN
from jaxppo.play.gate import Record
from jaxppo.play.sides import Fitted, Sides
from jaxppo.store.checkpoint import RestoredPolicy, Which
from jaxppo.store.checkpoint_info import CheckpointInfo
from jaxppo.store.directory import MANIFEST, METRICS_CSV, costs_hash
from jaxppo.store.json import read_json
from jaxppo.store.read import BACKTESTS

FOLDER = BACKTESTS
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
            "periods": {s["symbol"]: (_seconds(s["start"]), _seconds(s["end"])) for s in raw["data"]["symbols"]},
            "init": raw.get("init"),
            "finished": raw.get("finished") is not None,
            "rules": {name: Fitted.of(of) for name, of in raw.get("rules", {}).items()},
        }
    except FileNotFoundError as error:
        raise RunDirectoryError(f"{run_dir}: holds no run ({MANIFEST} is missing); give a run directory") from error
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise RunDirectoryError(f"{path}: cannot be read as the manifest of a run ({error!r})") from error


def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def read_cutoffs(manifest: dict[str, Any], run_dir: Path) -> tuple[int, int] | None:
    """The run's cut-off dates in UTC seconds; None for a run split by symbol."""
    if manifest["cutoffs"] is None:
        return None
    try:
        one, two = map(_seconds, manifest["cutoffs"])
    except (ValueError, TypeError) as error:
        raise RunDirectoryError(f"{run_dir / MANIFEST}: data.cutoffs must be two ISO dates ({error})") from error
    return one, two


def validation_record(run_dir: Path, which: Which, info: CheckpointInfo) -> Record:
    """What the run's validations say of a policy: the best was chosen from all, any other from those up to its update.

    A run without metrics.csv is taken by the word of the checkpoint: one look.
    """
    path, column = run_dir / METRICS_CSV, RANKED_COLUMN[info.config.budget.choose_by]
    try:
        frame = pl.read_csv(path, columns=["update", column]).drop_nulls()
    except FileNotFoundError:
        return Record(1, info.best_fitness, info.fitness)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RunDirectoryError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    if frame.height == 0:
        return Record(1, info.best_fitness, info.fitness)
    seen = frame.height if which == "best" else frame.filter(pl.col("update") <= info.update).height
    fitness = frame[column].cast(pl.Float64)
    return Record(max(1, seen), float(fitness.max()), float(fitness[-1]))  # type: ignore[arg-type]


def seen_shares(
    split: Split, cutoffs: tuple[int, int] | None, periods: Mapping[str, tuple[int, int]]
) -> dict[str, float]:
    """Shares of the decisions by what the run had of their times; empty where it was split by symbol.

    `train`: before its first cut-off date, from the first to the last of its bars of the same symbol, or, as
    `train_other_symbols`, of others alone. `no_bars`: before that date, where it had no bars at all. `validation`:
    between its cut-off dates. `test`: after both.

    Args:
      split: what is played.
      cutoffs: the run's, UTC seconds.
      periods: first and last bar of each of the run's symbols, UTC seconds.
    """
    if cutoffs is None:
        return {}
    count = dict.fromkeys(("no_bars", "train", "train_other_symbols", "validation", "test"), 0)
    for symbol, at in zip(split.symbols, decision_times(split), strict=True):
        had = {name: (at >= begin) & (at <= end) for name, (begin, end) in periods.items()}
        nothing = np.zeros(len(at), bool)
        own, any_symbol = had.get(symbol, nothing), functools.reduce(np.logical_or, had.values(), nothing)
        early, test = at < cutoffs[0], at >= cutoffs[1]
        parts = (early & ~any_symbol, early & own, early & any_symbol & ~own, ~early & ~test, test)
        count = {name: count[name] + int(part.sum()) for name, part in zip(count, parts, strict=True)}
    return {name: n / sum(count.values()) for name, n in count.items()}


def seen_warnings(shares: Mapping[str, float], which: Which, split: SplitName) -> list[str]:
    """What the policy had seen of the bars that it is judged on."""
    found = []
    if not shares:
        found.append("the run was split by symbol, so the policy was trained on times that other symbols are tested on")
        if split == "all":
            found.append("most of these bars were trained on; the figures say little about bars to come")
    chosen = ", where this policy was chosen as the best" if which == "best" else ""
    texts = {
        "train": "are at times that the run trained on (in sample)",
        "train_other_symbols": "are at times that the run trained on with other symbols, which may have moved alike",
        "no_bars": "are earlier than the run's validation, at times of which it had no bars: they are new to the"
        " policy, but it was made from what came later",
        "validation": f"lie in the validation period{chosen}",
    }
    found += [f"{100 * shares[k]:.1f} % of the decisions {text}" for k, text in texts.items() if shares.get(k, 0) > 0]
    return found


def start_warnings(manifest: dict[str, Any], split: Split) -> list[str]:
    """That the run began with the policy of one that had seen some of the bars."""
    began = manifest["init"]
    if began is None:
        return []
    if began.get("seen_until") is None:
        return [f"the run began with the policy of {began['path']}, and which bars that had seen is not known"]
    at = np.concatenate(decision_times(split))
    seen = float((at < _seconds(began["seen_until"])).mean())
    return [
        f"{100 * seen:.1f} % of the decisions lie before {began['seen_until'][:10]}, up to when {began['path']}, whose"
        " policy the run began with, was trained and chosen"
    ] * (seen > 0)


def unfinished_warnings(manifest: dict[str, Any], info: CheckpointInfo) -> list[str]:
    """A run that was stopped, or is still going on."""
    if manifest["finished"]:
        return []
    return [f"the run has not finished: its policy of update {info.update} of {info.config.budget.n_updates} is played"]


def rule_warnings(sides: Sides) -> list[str]:
    """Rules that the run has no weights for."""
    if not sides.missing:
        return []
    return [f"the run fitted no weights for {', '.join(sides.missing)}, which are left out of the rules"]


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
    """At what costs and under which rules the policy was played; with costs by symbol their medians and range."""
    env, costs = typical_env(market.costs, market.bars, config.env), market.costs
    fees = class_fees(env)
    found = {
        "fee": {name: fees[name] for name in sorted({b.asset_class for b in market.bars})},
        **{k: getattr(env, k) for k in ("spread", "slippage", "borrow", "stop_loss", "take_profit", "max_exposure")},
    }
    if costs.file is not None:
        side = dict(zip(("median", "low", "high"), costs.sides(), strict=True))
        found["costs"] = {"file": costs.file, "hash": costs.hash, "symbols": len(costs.by_symbol), "side": side}
    return found


def costs_warnings(market: Market, manifest: dict[str, Any], own: bool) -> list[str]:
    """That the run's own file of costs by symbol is not what it was; `own`: it is what is played at."""
    before, now = costs_hash(manifest), market.costs.hash
    if not own or before == now or before is None or now is None:
        return []
    return [f"the run's costs by symbol changed since it was trained (hash {before[:12]}, now {now[:12]})"]


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
