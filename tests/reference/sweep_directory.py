"""A made-up folder of a sweep that has ended, with plausible numbers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from jaxppo.config.schema import Config, to_dict
from jaxppo.play.overfitting import Overfitting
from jaxppo.store.json import write_json
from jaxppo.sweep.batches import State, Trial
from jaxppo.sweep.files import write_sweep
from jaxppo.sweep.space import read_space
from tests.reference.run_directory import Fake, manifest_of

SEARCHED = [
    ["learning_rate", "log", "1e-4", "1e-2"],
    ["gamma", "uniform", ".8", ".99"],
    ["features", "base", "base,trend"],
    ["clip", "log", "0.11", "0.29"],
]


@dataclass(frozen=True)
class Swept:
    """What the made-up sweep is like: trial 0 is the best, one in five was halted, and the last could not be run."""

    trials: int = 14
    seeds: int = 2
    tested: bool = True
    deflated: float = 0.97
    test_sharpe: float = 0.8
    rank_correlation: float = 0.4
    gate: str = "REVIEW"


def trial_of(swept: Swept, n: int, rng: np.random.Generator) -> Trial:
    params = {
        "learning_rate": float(10 ** rng.uniform(-4, -2)),
        "gamma": float(rng.uniform(0.8, 0.99)),
        "features": ("base", "base,trend")[n % 2],
        "clip": float(rng.uniform(0.12, 0.28)),
    }
    if n == swept.trials - 1:
        return Trial(n, params, n, state="failed", reason="n_envs 7: is not a multiple of <lanes> 4")
    state: State = "halted" if n % 5 == 4 else "complete"
    best = 1.5 - 0.2 * n
    rows = []
    for update, share in ((0, -3.0), (5, 0.6), (10, 1.0))[: 2 if state == "halted" else 3]:
        value = best + share - 1.0
        row = {"update": float(update), "value": value, "val_portfolio_sharpe": value, "val_fitness": value}
        alone = {f"val_member_{k}": value - 0.3 * (k + 1) for k in range(swept.seeds if swept.seeds > 1 else 0)}
        rows.append({**row, "val_max_drawdown": 0.1, "val_trades": 50.0 + n, "val_turnover": 20.0, **alone})
    result: dict[str, float] = {}
    if swept.tested:
        sharpe = swept.test_sharpe - 0.1 * n
        result = {"test_fitness": sharpe, "test_portfolio_sharpe": sharpe, "test_portfolio_return": 0.05}
        result["test_portfolio_max_drawdown"] = 0.07
    return Trial(n, params, n, state=state, rows=rows, result=result)


def summary_of(swept: Swept, trials: list[Trial], space: dict[str, Any]) -> dict[str, Any]:
    winner = trials[0]
    count = {state: sum(t.state == state for t in trials) for state in ("complete", "halted", "failed")}
    figures = {"return": 0.1, "sharpe": 1.1, "max_drawdown": 0.1, "fitness": 1.0, "trades": 60.0}
    both = figures | {f"portfolio_{name}": value for name, value in figures.items()}
    return {
        "trials": {"asked": len(trials), **count},
        "looks": 36,
        "choose_by": "fitness",
        "sampler": "tpe",
        "halve_at": [1],
        "eta": 2,
        "seeds": swept.seeds,
        "space": space,
        "shapes": 2,
        "winner": {
            "trial": 0,
            "seed": 0,
            "params": winner.params,
            "update": 10,
            "value": winner.best,
            "validation": {k: v for k, v in winner.best_row.items() if k.startswith("val_")},
            "test": winner.result,
        },
        "truth": {
            "sharpe": winner.best,
            "luck_sharpe": 1.2,
            "probabilistic_sharpe": 0.99,
            "deflated_sharpe": swept.deflated,
            "rank_correlation": swept.rank_correlation,
            "ranked": count["complete"],
            "overfitting_probability": 0.25,
            "overfitting_loss_probability": 0.2,
            "overfitting_slope": 0.3,
            "overfitting_splits": 8,
            "overfitting_blocks": 4,
            "overfitting_trials": 13,
            "overfitting_days": 200,
            "overfitting_probability_complete": math.nan,
            "overfitting_trials_complete": count["complete"],
        },
        "sentences": ["The winner wins.", "It may be luck."],
        "importance": {"learning_rate": 0.6, "gamma": 0.3, "features": 0.1},
        "ensemble": {
            "members": [0, 1, 2],
            "asked": 3,
            "policies": 3 * swept.seeds,
            "validation": both,
            "test": both if swept.tested else {},
            "gate": swept.gate,
        },
    }


def write_made_up_sweep(folder: Path, swept: Swept = Swept()) -> Path:
    """The files that the page of a sweep is made from."""
    rng = np.random.default_rng(3)
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(to_dict(Config())))
    manifest = manifest_of(Fake())
    manifest["data"]["source"] = "/somewhere/deep/bars"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    space = read_space(SEARCHED, None)
    trials = [trial_of(swept, n, rng) for n in range(swept.trials)]
    # Relative ranks of 5, 35, 50, 55 and 95 %: two of eight lie in the worse half, and one in the middle.
    rank = np.array([0.05, 0.35, 0.5, 0.55, 0.95, 0.95, 0.95, 0.95])
    sides = rng.normal(0.05, 0.02, (2, 8))
    found = Overfitting(0.375, 0.1, 0.3, np.log(rank / (1 - rank)), np.zeros(8, int), sides[0], sides[1])
    write_sweep(folder, trials, space, {}, found, {})
    write_json(folder / "summary.json", summary_of(swept, trials, {name: d.to_json() for name, d in space.items()}))
    return folder
