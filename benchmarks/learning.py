"""Does it learn? PPO against oracles on markets whose edge is known, and on one that has none.

    python benchmarks/learning.py            # all markets, 3 seeds
    python benchmarks/learning.py observed   # one market
    python benchmarks/learning.py latent --set lanes=64 trunk_layers=1

Every figure is net of costs and comes from the ledger, on fresh data that no training saw.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import yaml

from jaxppo.agent.encoders import receptive_field
from jaxppo.agent.policy import Params
from jaxppo.check.probe import FRESH_SEED, decided, log_growth, play_exposures, whole_tape
from jaxppo.config.layers import replace_fields, resolve
from jaxppo.config.schema import Config
from jaxppo.env.account import StepRecord
from jaxppo.market.bars import Bars
from jaxppo.market.dataset import build_market
from jaxppo.market.features import FeatureTable
from jaxppo.market.planted import ar1_market, dp_oracle, driftless_market, filtered_signal, oracle_positions
from jaxppo.market.tape import Tape
from jaxppo.play.deciders import play_policy
from jaxppo.play.passes import lane, n_decisions
from jaxppo.train.compiled import compile_run, first_state

PHI, EDGE, NOISE, COST = 0.95, 0.002, 0.005, 0.001
TARGETS = (-1.0, 0.0, 1.0)


@dataclass(frozen=True)
class Task:
    """A market with an oracle, and what the policy may see of it."""

    name: str
    cost: float
    observed: bool  # the signal is a feature; else only past returns are
    edge: float = EDGE
    phi: float = PHI


TASKS = {
    "observed": Task("observed", COST, True),
    "latent": Task("latent", 0.0005, False, phi=0.98),
    # Costs of two usual edges a side: trades pay only if held, so a policy that pays for its random ones stays flat.
    "reluctant": Task("reluctant", 0.003, False, edge=0.0015, phi=0.97),
    "weak": Task("weak", 0.0005, False, edge=0.00075, phi=0.98),
    "slow": Task("slow", 0.0002, False, edge=0.0005, phi=0.99),
    "dear": Task("dear", 0.006, True),  # costs of three usual edges a side
    "dear_latent": Task("dear_latent", 0.0045, False, edge=0.0015, phi=0.97),
    "expensive": Task("expensive", 0.2, True),  # a side costs more than the signal ever pays: at most 16 %
    "driftless": Task("driftless", 0.0, False, edge=0.0),
}


def planted_config(task: Task, seed: int, **changes: object) -> Config:
    """PPO as the quick preset has it, on target positions without stops, so that the oracle's actions are its own."""
    base = {
        "seed": seed,
        "actions": "targets",
        "targets": TARGETS,
        "stop_loss": 0.0,
        "take_profit": 0.0,
        "fee": {"equity": task.cost},
        "encoder": "none" if task.observed else "tcn",
        "train_fraction": 0.9,
        "validation_fraction": 0.1,
    }
    return replace_fields(resolve("quick_test").config, {**base, **changes})


def draw(task: Task, seed: int, n_symbols: int, n_bars: int) -> tuple[list[Bars], np.ndarray, list[FeatureTable]]:
    """Bars, the signal that the oracle follows (S, T), and the features of the policy."""
    if task.edge == 0.0:
        bars = driftless_market(seed, n_symbols, n_bars, NOISE)
        signal = np.zeros((n_symbols, n_bars))
    else:
        bars, signal = ar1_market(seed, n_symbols, n_bars, phi=task.phi, edge=task.edge, noise=NOISE)
    tables = []
    for row, b in zip(signal, bars, strict=True):
        past = np.diff(np.log(b.close), prepend=np.log(b.open[0])) / NOISE
        shown, name = (row, "signal") if task.observed else (past, "past_return")
        tables.append(FeatureTable(values=shown[:, None].astype(np.float32), names=(name,), min_bars=1))
    return bars, signal, tables


def oracle_exposures(task: Task, bars: Sequence[Bars], signal: np.ndarray) -> np.ndarray:
    """(S, T) positions of the best policy that sees what the policy sees."""
    rows = []
    for row, b in zip(signal, bars, strict=True):
        edge = task.edge
        if not task.observed and edge > 0:
            row, share = filtered_signal(b.close, phi=task.phi, edge=edge, noise=NOISE)
            edge *= share
        rows.append(oracle_positions(row, dp_oracle(phi=task.phi, edge=edge, cost=task.cost, noise=NOISE)))
    return np.stack(rows)


@dataclass(frozen=True)
class Score:
    """Net log growth a bar on fresh data, in basis points, and its standard error over symbols."""

    policy: float
    policy_error: float
    oracle: float
    trades: int
    steps: int
    seconds: float  # compile and training
    steps_per_second: float  # of training alone, the validations of a run included

    @property
    def share(self) -> float:
        return self.policy / self.oracle if self.oracle > 0 else float("nan")


def fresh_market(
    task: Task, config: Config, seed: int, n_symbols: int = 16, n_bars: int = 4000
) -> tuple[Tape, np.ndarray]:
    """A market of another seed, all of it to evaluate on, and the oracle's exposures there (N, S)."""
    bars, signal, tables = draw(task, FRESH_SEED + seed, n_symbols, n_bars)
    tape = whole_tape(bars, config, tables)
    return tape, decided(tape, oracle_exposures(task, bars, signal))


def run(task: Task, seed: int, n_bars: int = 20_000, n_symbols: int = 8, verbose: bool = False, **changes) -> Score:
    """Train once and score on fresh data."""
    config = planted_config(task, seed, **changes)
    began = time.perf_counter()
    bars, _, tables = draw(task, seed, n_symbols, n_bars)
    compiled = compile_run(config, build_market(bars, config, receptive_field(config.agent), tables))
    state = first_state(compiled, seed)
    spec = compiled.program.spec
    fresh, oracle = fresh_market(task, config, seed)
    n = n_decisions(fresh)

    @jax.jit
    def test(params: Params, tape: Tape) -> StepRecord:
        return lane(play_policy(spec.agent, spec.env, params, tape, n, spec.receptive_field).record, 0)

    trained = time.perf_counter()
    for length in config.segments:
        state, out = compiled.segment(state, compiled.hyper, compiled.tape, compiled.data, jnp.int32(length))
        if verbose:
            g = log_growth(test(state.params, fresh))
            rows = jax.device_get(out.updates)
            print(
                f"  update {int(state.update):4d} fresh {g.mean():7.3f} bp  entropy {rows['entropy'][length - 1]:.3f}"
                f"  trade rate {rows['train_trade_rate'][length - 1]:.3f}  {time.perf_counter() - began:.0f} s"
            )
    jax.block_until_ready(state)
    ended = time.perf_counter()
    record = test(state.params, fresh)
    growth = log_growth(record)
    best = jax.jit(lambda wanted, tape: play_exposures(wanted, spec.env, tape))(jnp.float32(oracle), fresh)
    error = float(growth.std(ddof=1) / np.sqrt(len(growth)))
    steps = config.budget.n_updates * config.batch_steps
    return Score(
        policy=float(growth.mean()),
        policy_error=error,
        oracle=float(log_growth(best).mean()),
        trades=int(record.closed.sum()),
        steps=steps,
        seconds=ended - began,
        steps_per_second=steps / (ended - trained),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="configuration fields to change")
    args = parser.parse_args()
    changes = {k: yaml.safe_load(v) for k, v in (pair.split("=", 1) for pair in args.set)}
    print("market      seed   policy      (se)   oracle   share  trades   steps  seconds  steps/s   (bp a bar, net)")
    for name in args.tasks:
        for seed in range(args.seeds):
            s = run(TASKS[name], seed, verbose=args.verbose, **changes)
            print(
                f"{name:10} {seed:5d} {s.policy:8.3f} {s.policy_error:9.3f} {s.oracle:8.3f} {100 * s.share:6.1f}%"
                f" {s.trades:7d} {s.steps / 1e6:6.1f}M {s.seconds:8.1f} {s.steps_per_second:8,.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
