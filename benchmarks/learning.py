"""Does it learn? PPO against oracles on markets whose edge is known, and on one that has none.

    python benchmarks/learning.py            # all markets, 3 seeds
    python benchmarks/learning.py observed   # one market
    python benchmarks/learning.py latent --set lanes=64 trunk_layers=1
    python benchmarks/learning.py reluctant --actions hold_buy_sell sized --rewards log_return differential_sharpe
    python benchmarks/learning.py grid --seeds 5 --out grid.jsonl    # 32 markets; what the file has is not run again
    python benchmarks/learning.py latent --compare --set n_envs=1024 lanes=16    # production's steps and minibatches

Every figure is net of costs and comes from the ledger, on fresh data that no training saw.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import yaml

from jaxppo.agent.encoders import receptive_field
from jaxppo.agent.policy import Params
from jaxppo.check.probe import FRESH_SEED, decided, log_growth, play_exposures, whole_tape
from jaxppo.config.layers import flat_fields, resolve
from jaxppo.config.schema import Config
from jaxppo.device import enable_compilation_cache
from jaxppo.env.account import StepRecord
from jaxppo.env.actions import action_table
from jaxppo.env.trading import env_spec
from jaxppo.market.bars import Bars
from jaxppo.market.dataset import Market, build_market, evaluation_set
from jaxppo.market.features import FeatureTable
from jaxppo.market.planted import (
    Oracle,
    ar1_market,
    dp_oracle,
    driftless_market,
    filtered_signal,
    oracle_positions,
)
from jaxppo.market.tape import Tape
from jaxppo.play.deciders import play_policy
from jaxppo.play.oracle import reachable, table_positions
from jaxppo.play.passes import lane, n_decisions
from jaxppo.ppo.state import Hyper, TrainState, hyper_from
from jaxppo.train.compiled import Compiled, compile_run

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
    noise: float = NOISE


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


def _grid() -> dict[str, Task]:
    """Two values each of edge, persistence, noise and cost, once with the signal shown and once without."""
    cells = {}
    for shown, edge, phi, noise, cost in itertools.product(
        (True, False), (0.001, 0.002), (0.95, 0.98), (0.005, 0.01), (1.0, 3.0)
    ):
        name = f"{'observed' if shown else 'latent'}:{edge:g},{phi:g},{noise:g},{cost:g}x"
        cells[name] = Task(name, cost * edge, shown, edge, phi, noise)
    return cells


GRID = _grid()
"""Markets by name: what is shown, edge, persistence, noise, and how many edges a side costs."""


SIZES: dict[str, dict[str, Any]] = {
    "8 steps, 16 minibatches": {"n_steps": 8, "minibatches": 16, "n_updates": 477},
    "8 steps, 4 minibatches": {"n_steps": 8, "minibatches": 4, "n_updates": 477},
    "8 steps, 4, rate x2": {"n_steps": 8, "minibatches": 4, "n_updates": 477, "learning_rate": 6e-4},
    "32 steps, 16 minibatches": {"n_steps": 32, "minibatches": 16, "n_updates": 119},
    "32 steps, 16, rate x2": {"n_steps": 32, "minibatches": 16, "n_updates": 119, "learning_rate": 6e-4},
    "16 steps, 8 minibatches": {"n_steps": 16, "minibatches": 8, "n_updates": 238},
}
"""What `--compare` trains with, by name: production's budget, and others that pass the same bars in a quarter of its
gradient steps, with four times the samples in each. The learning rate is production's unless named."""


def compared(name: str) -> dict[str, Any]:
    """Changes of a row of `SIZES`. One validation, as a score looks at the last policy."""
    return {"learning_rate": 3e-4, "n_validations": 1, **SIZES[name]}


def planted_config(task: Task, seed: int, **changes: object) -> Config:
    """PPO as the quick preset has it, on target positions without stops, so that the oracle's actions are its own.

    A reward that `changes` names brings its own settings with it, as on the command line.
    """
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
    return resolve("quick_test", {**base, **changes}).config


def draw(task: Task, seed: int, n_symbols: int, n_bars: int) -> tuple[list[Bars], np.ndarray, list[FeatureTable]]:
    """Bars, the signal that the oracle follows (S, T), and the features of the policy."""
    if task.edge == 0.0:
        bars = driftless_market(seed, n_symbols, n_bars, task.noise)
        signal = np.zeros((n_symbols, n_bars))
    else:
        bars, signal = ar1_market(seed, n_symbols, n_bars, phi=task.phi, edge=task.edge, noise=task.noise)
    tables = []
    for row, b in zip(signal, bars, strict=True):
        past = np.diff(np.log(b.close), prepend=np.log(b.open[0])) / task.noise
        shown, name = (row, "signal") if task.observed else (past, "past_return")
        tables.append(FeatureTable(values=shown[:, None].astype(np.float32), names=(name,), min_bars=1))
    return bars, signal, tables


@lru_cache
def _oracle(task: Task, edge: float, positions: tuple[float, ...], reach: tuple[tuple[bool, ...], ...]) -> Oracle:
    """`dp_oracle` on a task's market with this edge a unit of what is seen; of positions and of ways between them."""
    return dp_oracle(
        phi=task.phi, edge=edge, cost=task.cost, noise=task.noise, positions=positions, reach=np.asarray(reach)
    )


def oracle_exposures(task: Task, config: Config, bars: Sequence[Bars], signal: np.ndarray) -> np.ndarray:
    """(S, T) positions of the best policy that sees what the policy sees and has its actions."""
    table, most = action_table(config.env), config.env.max_exposure
    positions = table_positions(table, most, allow_short=True)
    reach = tuple(map(tuple, reachable(table, positions, most, allow_short=True).tolist()))
    rows = []
    for row, b in zip(signal, bars, strict=True):
        edge = task.edge
        if not task.observed and edge > 0:
            row, share = filtered_signal(b.close, phi=task.phi, edge=edge, noise=task.noise)
            edge *= share
        rows.append(oracle_positions(row, _oracle(task, edge, positions, reach)))
    return np.stack(rows)


@dataclass(frozen=True)
class Score:
    """Net log growth a bar on fresh data, in basis points, and its standard error over symbols."""

    policy: float
    policy_error: float
    oracle: float
    trades: int
    steps: int
    seconds: float  # of all but the scoring; with compilation where no earlier run was of the kind
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
    return tape, decided(tape, oracle_exposures(task, config, bars, signal))


class Programs(NamedTuple):
    """What is compiled for all markets and seeds of one shape and configuration."""

    first: Callable[[jax.Array, Hyper, Tape], TrainState]
    compiled: Compiled
    test: Callable[[Params, Tape], StepRecord]
    oracle: Callable[[jax.Array, Tape], StepRecord]


_PROGRAMS: dict[str, Programs] = {}


def programs_for(config: Config, market: Market, n_fresh: int) -> Programs:
    """Compiled where no earlier run was of this kind. Seed, costs and hyperparameters are arguments of the programs.

    Args:
      config: of the run.
      market: that it trains on.
      n_fresh: decisions of the fresh market.
    """
    static = flat_fields(config) | dict.fromkeys((*Hyper._fields, "fee", "seed"))
    key = repr((static, [x.shape for x in jax.tree.leaves(market.splits["train"].tape)], n_fresh))
    if key not in _PROGRAMS:
        compiled = compile_run(config, market)
        spec = compiled.program.spec

        def test(params: Params, tape: Tape) -> StepRecord:
            return lane(play_policy(spec.agent, spec.env, params, tape, n_fresh, spec.receptive_field).record, 0)

        oracle = jax.jit(lambda wanted, tape: play_exposures(wanted, spec.env, tape))
        _PROGRAMS[key] = Programs(jax.jit(compiled.program.init), compiled, jax.jit(test), oracle)
    return _PROGRAMS[key]


def run(task: Task, seed: int, n_bars: int = 20_000, n_symbols: int = 8, verbose: bool = False, **changes) -> Score:
    """Train once and score on fresh data."""
    config = planted_config(task, seed, **changes)
    began = time.perf_counter()
    bars, _, tables = draw(task, seed, n_symbols, n_bars)
    market = build_market(bars, config, receptive_field(config.agent), tables)
    fresh, wanted = fresh_market(task, config, seed)
    first, compiled, test, oracle = programs_for(config, market, n_decisions(fresh))
    hyper, tape, data = hyper_from(config), market.splits["train"].tape, evaluation_set(market.splits["validation"])
    compiled = replace(compiled, placed=(hyper, tape, data))
    state = first(jax.random.key(seed), hyper, tape)
    trained = time.perf_counter()
    for length in config.segments:
        state, out = compiled.advance(state, length)
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
    steps = config.budget.n_updates * config.batch_steps
    return Score(
        policy=float(growth.mean()),
        policy_error=float(growth.std(ddof=1) / np.sqrt(len(growth))),
        oracle=float(log_growth(oracle(jnp.float32(wanted), fresh)).mean()),
        trades=int(record.closed.sum()),
        steps=steps,
        seconds=ended - began,
        steps_per_second=steps / (ended - trained),
    )


def least_squares(task: Task, seed: int, n_bars: int = 20_000, n_symbols: int = 8, window: int = 64) -> float:
    """Share of the oracle that least squares on a policy's training bars earn: what those bars have to teach.

    The next return on the last `window` ones, with a ridge of 1 in units of the noise, over its deviation the signal of
    the oracle's dynamic program. Of a market whose signal is not shown.
    """
    config = planted_config(task, seed)

    def windows(rows: Sequence[Bars]) -> tuple[np.ndarray, np.ndarray]:
        """(S, T, window) past returns, 0 before the first, and (S, T) returns, in units of the noise."""
        past = np.stack([np.diff(np.log(b.close), prepend=np.log(b.open[0])) for b in rows]) / task.noise
        padded = np.pad(past, ((0, 0), (window - 1, 0)))
        return np.lib.stride_tricks.sliding_window_view(padded, window, axis=1), past

    seen, past = windows(draw(task, seed, n_symbols, n_bars)[0])
    n = int(config.data.train_fraction * n_bars)
    x, y = seen[:, window - 1 : n].reshape(-1, window), past[:, window : n + 1].ravel()
    weights = np.linalg.solve(x.T @ x / len(y) + np.eye(window), x.T @ y / len(y))
    fresh, best = fresh_market(task, config, seed)
    bars, _, _ = draw(task, FRESH_SEED + seed, 16, 4000)
    _, share = filtered_signal(bars[0].close, phi=task.phi, edge=task.edge, noise=task.noise)
    oracle = _oracle(task, task.edge * share, TARGETS, ((True,) * 3,) * 3)
    found = windows(bars)[0] @ weights / (x @ weights).std()
    wanted = decided(fresh, np.stack([oracle_positions(row, oracle) for row in found]))
    spec = env_spec(config.env, config.reward)
    earned = [log_growth(play_exposures(jnp.float32(w), spec, fresh)).mean() for w in (wanted, best)]
    return float(earned[0] / earned[1])


def cells(
    names: Sequence[str], actions: Sequence[str], rewards: Sequence[str], sizes: Sequence[str] = ()
) -> Iterator[tuple[str, Task, dict]]:
    """Names, markets and changes of all that is to be run: `grid` is all of its markets, `sizes` are rows of SIZES."""
    known = {**TASKS, **GRID}
    tasks = [name for given in names for name in (GRID if given == "grid" else [given])]
    for name, table, reward, size in itertools.product(tasks, actions, rewards, sizes or [None]):
        if name not in known:
            raise SystemExit(f"unknown market {name!r}; there are grid, {', '.join(known)}")
        wanted = {"actions": table, "reward": reward}
        usual = {"actions": "targets", "reward": "log_return"}
        own = [value for key, value in wanted.items() if value != usual[key]]
        cell = " ".join([name, *own]) + (f", {size}" if size else "")
        yield cell, known[name], wanted | (compared(size) if size else {})


def _done(out: Path | None) -> dict[tuple[str, int], Score]:
    """Scores of an earlier call by cell and seed."""
    lines = out.read_text(encoding="utf-8").splitlines() if out is not None and out.exists() else []
    rows = [json.loads(line) for line in lines]
    return {(row["cell"], row["seed"]): Score(**row["score"]) for row in rows}


def _line(cell: str, seed: int, s: Score) -> str:
    return (
        f"{cell:36} {seed:5d} {s.policy:8.3f} {s.policy_error:9.3f} {s.oracle:8.3f} {100 * s.share:6.1f}%"
        f" {s.trades:7d} {s.steps / 1e6:6.1f}M {s.seconds:8.1f} {s.steps_per_second:8,.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", default=list(TASKS), help="markets, or grid")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--actions", nargs="+", default=["targets"], help="action tables to compare")
    parser.add_argument("--rewards", nargs="+", default=["log_return"], help="reward presets to compare")
    parser.add_argument(
        "--least-squares", action="store_true", help="train nothing: what the latent markets' bars hold"
    )
    parser.add_argument(
        "--compare", action="store_true", help="compare steps a rollout and minibatches in production's budget"
    )
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="configuration fields to change")
    parser.add_argument("--out", type=Path, help="JSON lines to append to; what they have is not run again")
    args = parser.parse_args()
    changes: dict[str, Any] = {k: yaml.safe_load(v) for k, v in (pair.split("=", 1) for pair in args.set)}
    enable_compilation_cache()
    if args.least_squares:
        for cell, task, _ in cells(args.tasks, ["targets"], ["log_return"]):
            shares = [100 * least_squares(task, seed) for seed in range(args.seeds)]
            print(
                f"{cell:36} {np.mean(shares):6.1f}% by seed", " ".join(f"{share:.1f}" for share in shares), flush=True
            )
        return
    done = _done(args.out)
    print(
        f"{'market':36}  seed   policy      (se)   oracle   share  trades   steps  seconds  steps/s   (bp a bar, net)"
    )
    for cell, task, wanted in cells(args.tasks, args.actions, args.rewards, list(SIZES) if args.compare else []):
        scores = []
        for seed in range(args.seeds):
            if (cell, seed) not in done:
                done[cell, seed] = run(task, seed, verbose=args.verbose, **{**wanted, **changes})
                if args.out is not None:
                    with args.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps({"cell": cell, "seed": seed, "score": asdict(done[cell, seed])}) + "\n")
            scores.append(done[cell, seed])
            print(_line(cell, seed, scores[-1]), flush=True)
        share = [100 * s.share for s in scores]
        oracle = np.mean([s.oracle for s in scores])
        print(
            f"{cell:36}   all {np.mean([s.policy for s in scores]):8.3f} {'':9} {oracle:8.3f} {np.mean(share):6.1f}%"
            f" from {min(share):.1f} to {max(share):.1f} %",
            flush=True,
        )


if __name__ == "__main__":
    main()
