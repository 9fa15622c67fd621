"""The table of a population: a row a member, the best first on the terminal, and what choosing among them costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from jaxppo.config.schema import Config
from jaxppo.page.progress import Display
from jaxppo.page.terminal import cell, figure_table
from jaxppo.play.best import ranked
from jaxppo.store.columns import of_portfolio
from jaxppo.store.files import write_frame
from jaxppo.store.json import write_json
from jaxppo.store.rows import pool_and_portfolio
from jaxppo.store.tables import MEMBERS
from jaxppo.train.grid import values_text
from jaxppo.train.record import Ending, Played, Progress

SUMMARY = "summary.json"


class Member(NamedTuple):
    """One run of a population."""

    name: str  # of its folder
    values: Mapping[str, Any]  # of the swept fields
    config: Config


class Totals(NamedTuple):
    """What all members have in common at their end."""

    update: int
    seconds: float  # of all together
    facts: Mapping[str, Any]  # of the program


def looks_of(config: Config, n_members: int) -> int:
    """Validations of all members: what the best of them was chosen from. The untrained policies are looked at too."""
    return n_members * (1 + len(config.segments))


def table_row(member: Member, at: Progress, best: Played, ending: Ending) -> dict[str, Any]:
    """What the table has of a member: its values, its best validation, and what the gate says of it."""
    figures = best.score.figures
    return {
        "member": member.name,
        **member.values,
        "updates": at.update,
        "best_update": at.best_update,
        "best_fitness": at.best_fitness,
        "gate": ending.gate.verdict,
        **pool_and_portfolio(figures.pooled, figures.portfolio),
    }


def write_table(
    folder: Path, config: Config, totals: Totals, rows: Sequence[dict[str, Any]], members: Sequence[Member],
    display: Display,
) -> None:  # fmt: skip
    """Write members.csv and summary.json, and show a line a member; rows are those of `members`, in order."""
    order = ranked([row["best_fitness"] for row in rows])
    top, fitness = members[order[0]], rows[order[0]]["best_fitness"]
    steps = totals.update * config.batch_steps * config.budget.seeds
    speed = steps * len(rows) / totals.seconds if totals.seconds else 0.0
    looks = looks_of(config, len(rows))
    summary = {
        "members": len(rows),
        "best": top.name,
        "best_values": dict(top.values),
        "best_fitness": fitness,
        "choose_by": config.budget.choose_by,
        "looks": looks,
        "updates": totals.update,
        "env_steps": steps * len(rows),
        "run_seconds": totals.seconds,
        "steps_per_second": speed,
        **totals.facts,
    }
    write_frame(folder / MEMBERS, pl.DataFrame(rows, infer_schema_length=None))
    write_json(folder / SUMMARY, summary)
    title = "Best validations, rebalanced daily, the best member first"
    display.table(figure_table(title, "", [(_line(rows[i], members[i]), of_portfolio(rows[i])) for i in order]))
    display.say(
        f"trained {len(rows)} members x {steps:,} steps in {totals.seconds:.1f} s ({speed:,.0f} steps/s); the best is"
        f" {top.name} ({values_text(top.values)}), fitness {cell('number', fitness)}"
    )
    display.say(
        f"it is the best of {looks} looks at the same validation bars, by which python -m jaxppo.backtest"
        f" {folder / top.name} deflates its Sharpe ratio"
    )


def _line(row: Mapping[str, Any], member: Member) -> str:
    return f"{member.name}: {values_text(member.values)}, {row['gate']}"
