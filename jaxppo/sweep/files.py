"""The files of a sweep: a table of its trials, their validations, and the summary that its page is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from jaxppo.play.overfitting import Overfitting
from jaxppo.store.files import write_frame
from jaxppo.store.json import write_json
from jaxppo.store.tables import utc_times
from jaxppo.sweep.batches import Trial
from jaxppo.sweep.judge import Curve
from jaxppo.sweep.space import Space

SUMMARY, TRIALS, VALIDATIONS, OVERFITTING = "summary.json", "trials", "validations.csv", "overfitting.parquet"


def trial_rows(trials: Sequence[Trial], space: Space) -> list[dict[str, Any]]:
    """One row a trial: its parameters, what became of it, and the figures of its best validation and of its test."""
    rows = []
    for trial in trials:
        best = trial.best_row
        rows.append(
            {
                "trial": trial.number,
                "state": trial.state,
                "seed": trial.seed,
                **{name: trial.params.get(name) for name in space},
                "updates": int(trial.rows[-1]["update"]) if trial.rows else 0,
                "validations": len(trial.rows),
                "best_update": int(best["update"]) if best else None,
                "value": best.get("value"),
                **{k: v for k, v in best.items() if k.startswith("val_")},
                **trial.result,
                "reason": trial.reason,
            }
        )
    return rows


def validation_rows(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """One row a validation of any trial: what learning curves are drawn from."""
    return [{"trial": t.number, "state": t.state, **row} for t in trials for row in t.rows]


def returns_frame(curves: Mapping[int, Curve]) -> pl.DataFrame:
    """Daily returns on the validation bars, rebalanced daily: one row a UTC date, one column a trial."""
    frames = [
        pl.DataFrame({"date": utc_times(c.days).dt.date(), f"trial_{number}": c.returns})
        for number, c in sorted(curves.items())
    ]
    joined = pl.DataFrame(schema={"date": pl.Date}) if not frames else frames[0]
    for frame in frames[1:]:
        joined = joined.join(frame, on="date", how="full", coalesce=True)
    return joined.sort("date")


def write_sweep(
    out: Path,
    trials: Sequence[Trial],
    space: Space,
    curves: Mapping[int, Curve],
    found: Overfitting | None,
    summary: Mapping[str, Any],
) -> None:
    """Write every file of a sweep that has ended, each whole; those of an earlier end are replaced."""
    table = pl.DataFrame(trial_rows(trials, space), infer_schema_length=None)
    write_frame(out / f"{TRIALS}.csv", table)
    write_frame(out / f"{TRIALS}.parquet", table)
    write_frame(out / VALIDATIONS, pl.DataFrame(validation_rows(trials), infer_schema_length=None))
    write_frame(out / "validation_returns.parquet", returns_frame(curves))
    splits = {k: np.asarray(getattr(found, k)) for k in ("logits", "chosen", "inside", "outside")} if found else {}
    write_frame(out / OVERFITTING, pl.DataFrame(splits))
    write_json(out / SUMMARY, dict(summary))
