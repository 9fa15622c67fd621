"""gate.json: the gate's verdict on what a policy did on a split."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from jaxppo.config.schema import GateConfig
from jaxppo.env.actions import ActionTable
from jaxppo.market.dataset import Split
from jaxppo.play.gate import Gate, evidence, judge
from jaxppo.play.score import Score
from jaxppo.play.significance import curve_moments, deflated_sharpe
from jaxppo.store.json import write_json

GATE = "gate.json"


@dataclass(frozen=True)
class Record:
    """What a run's validations say of a policy that was chosen from them."""

    looks: int  # validations that it was chosen from, the untrained policy's included
    peak_fitness: float  # of all validations
    final_fitness: float  # of the last


def judge_policy(score: Score, split: Split, actions: ActionTable, config: GateConfig, record: Record) -> Gate:
    """Judge what a policy did on a split, with the Sharpe ratio deflated by the looks. Host arrays.

    The overfit flag compares the run's last validation with its best, wherever the policy is played: on other bars a
    fitness under the best of many validations is what chance alone leads to.
    """
    deflated = float(deflated_sharpe(curve_moments(score.curves.pooled), float(record.looks)))
    allow_short = np.asarray(split.tape.allow_short)
    found = evidence(score, actions, deflated, record.peak_fitness, allow_short)
    return judge(found._replace(final_fitness=record.final_fitness), config)


def write_gate(folder: Path, gate: Gate) -> None:
    """Write FOLDER/gate.json."""
    write_json(folder / GATE, asdict(gate))
