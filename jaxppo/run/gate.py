"""gate.json: the gate's verdict on the best policy of a run, on the validation split."""

from __future__ import annotations

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jaxppo.config.schema import Config
from jaxppo.env.actions import ActionTable
from jaxppo.evaluate.gate import Gate, evidence, judge
from jaxppo.evaluate.metrics import moments
from jaxppo.evaluate.significance import deflated_sharpe
from jaxppo.evaluate.validate import Ledger, Validation
from jaxppo.market.dataset import Split
from jaxppo.run.directory import write_atomic

GATE = "gate.json"


def judge_validation(
    best: tuple[Validation, Ledger],
    final: Validation,
    split: Split,
    actions: ActionTable,
    config: Config,
) -> Gate:
    """Judge a run's best policy, whose fitness is the peak, deflated by the number of validations. Host arrays."""
    validation, ledger = best
    looks = 1 + len(config.segments)  # the untrained policy is looked at too
    path = np.concatenate([np.ones(1), np.asarray(ledger.pooled_equity, np.float64)])
    owned = path[:-1] > 0
    returns = np.where(owned, path[1:] / np.where(owned, path[:-1], 1.0) - 1.0, 0.0)
    m = moments(jnp.asarray(returns, jnp.float32), jnp.ones(len(returns), bool))
    deflated = float(deflated_sharpe(m, float(looks)))
    allow_short = np.asarray(split.tape.allow_short)
    valid, peak = np.asarray(ledger.valid), float(validation.pooled.fitness)
    found = evidence(validation, ledger.record, valid, actions, deflated, peak, allow_short)
    return judge(found._replace(final_fitness=float(final.pooled.fitness)), config.gate)


def write_gate(run_dir: Path, gate: Gate) -> None:
    """Write RUN_DIR/gate.json."""
    write_atomic(run_dir / GATE, json.dumps(gate.to_json(), indent=2, allow_nan=False))


def gate_line(gate: Gate) -> str:
    """The verdict in one line, with what failed."""
    failed = [f"{r.metric} {r.value:.3g} (for {r.level} {r.threshold:g})" for r in gate.reasons if not r.passed]
    failed += [f"flag {f.name} {f.value:.3g}" for f in gate.flags]
    return f"gate: {gate.verdict}" + (f"; {', '.join(failed)}" if failed else "")
