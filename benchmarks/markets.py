"""A walk-forward over a folder of bars at several costs, against every rule, and the same where nothing can be earned.

    python -m benchmarks.markets BARS --seeds 5 --out runs/markets

Each fold trains on everything before its test period (expanding), and a period lasts five years or more, so that a
policy is retrained at most every five years; orders fill on the next bar. Training pays 2 bp a side (no spread, no
slippage, no borrow cost); the same policies are tested at 0, 2 and 5 bp, and at the costs by symbol of `--costs FILE`
with the fee of `--fee`. So what is shown at other costs than 2 bp is a policy that was not trained for them. The rules
pay what the policy pays, and those that are fitted are fitted on each fold's training part.

The second market is made of the same bars in an order drawn by chance, the returns of each time with a sign drawn by
chance: the same volatilities and the same moves of symbols together, and nothing to know. What is said to beat the
rules there is wrong.

It takes every flag of `jaxppo.walkforward` and is made of parts: a fold's training, a test at one cost. Those that are
in the folder are not done again. It prints tables for RESULTS.md.
"""

from __future__ import annotations

import dataclasses
import io
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.agent.policy import Params
from jaxppo.cli import parse_with_config, run_command
from jaxppo.config.schema import Config, to_dict
from jaxppo.device import compile_program, detect_device, enable_compilation_cache
from jaxppo.errors import ConfigError
from jaxppo.market.bars import Bars, data_hash
from jaxppo.market.calendar import YEAR
from jaxppo.market.dataset import EvaluationSet, Split, joint_calendar
from jaxppo.market.source import load_market_bars
from jaxppo.market.tape import Costs, Tape
from jaxppo.page.terminal import plain_console
from jaxppo.play.deciders import acting_policy
from jaxppo.play.passes import play
from jaxppo.play.portfolio import (
    POLICY,
    fold_portfolios,
    join_portfolios,
    lanes_of,
    member_portfolios,
    summarize_portfolio,
)
from jaxppo.play.score import Pooled, pool_lanes
from jaxppo.ppo.state import hyper_from
from jaxppo.store.files import write_atomic
from jaxppo.store.json import write_json
from jaxppo.walkforward.dates import fold_split
from jaxppo.walkforward.judged import judge_portfolio
from jaxppo.walkforward.program import Fold, FoldProgram, FoldSizes, make_folds, part
from jaxppo.walkforward.rules import play_fold_rules
from jaxppo.walkforward.run import Setup, WalkforwardOptions, compile_folds, prepare, run_folds

RETRAIN_YEARS = 5.0
TRAINED_AT = "2 bp"
LEVELS = {"0 bp": 0.0, TRAINED_AT: 0.0002, "5 bp": 0.0005}
OWN = "own costs"
MARKETS = ("bars", "shuffled")
MOST_MOVE = 0.9
"""A move in one bar beyond which a shuffled one is cut, since its mirror image would take the price to 0."""


def shuffled(bars: Sequence[Bars], seed: int) -> list[Bars]:
    """The same bars in an order drawn by chance, with signs drawn by chance: what comes next cannot be known.

    Bars are put in one order for all symbols, as far as they have the same times, and those of a time keep or change
    their signs together. A permutation alone would leave every symbol the drift that holding earns; and as all moves of
    a permutation add up to what they did before, a fall would make a rise likelier.

    Args:
      bars: of all symbols.
      seed: of the order and the signs.
    """
    rng = np.random.default_rng(seed)
    times = np.unique(np.concatenate([b.time for b in bars]))
    place, sign = rng.permutation(len(times)), rng.choice([-1.0, 1.0], len(times))
    found = []
    for b in bars:
        own = np.searchsorted(times, b.time)
        order = np.argsort(place[own], kind="stable")
        before = np.concatenate([b.open[:1], b.close[:-1]])
        flip = sign[own[order]]
        moves = {
            name: np.clip(flip * (getattr(b, name) / before - 1.0)[order], -MOST_MOVE, MOST_MOVE)
            for name in ("open", "high", "low", "close")
        }
        start = b.open[0] * np.concatenate([[1.0], np.cumprod(1.0 + moves["close"])[:-1]])
        prices = {name: start * (1.0 + move) for name, move in moves.items()}
        high, low = np.maximum(prices["high"], prices["low"]), np.minimum(prices["high"], prices["low"])
        found.append(dataclasses.replace(b, **{**prices, "high": high, "low": low}, volume=b.volume[order], seams=()))
    return found


def level_costs(split: Split, config: Config) -> dict[str, Costs]:
    """What the symbols of a split pay a side at each level, (S,); own costs, the Tape's, where a file is given."""
    none = np.zeros(len(split.symbols), np.float32)
    found = {name: Costs(*(jnp.asarray(x) for x in (none + fee, none, none))) for name, fee in LEVELS.items()}
    if config.env.costs is not None:
        found[OWN] = split.tape.costs
    return found


def at_costs(split: Split, costs: Costs) -> Split:
    return dataclasses.replace(split, tape=split.tape._replace(costs=costs))


def five_year_folds(setup: Setup) -> int:
    """The most folds whose test periods last five years or more on average, from a setup of one fold."""
    dates = setup.plans[0].dates
    return max(1, int((dates.test_end - dates.test_begin) / YEAR / RETRAIN_YEARS))


def make_test(program: FoldProgram, sizes: FoldSizes) -> Callable[[Params, Fold, Tape, Costs], Pooled]:
    """A function that plays a fold's test at C costs (C, S): of the policy, then of each member, (1 + M, C)."""
    spec, n = program.spec, sizes.n_test

    def test(params: Params, fold: Fold, tape: Tape, costs: Costs) -> Pooled:
        data = EvaluationSet(part(tape, fold.test), fold.test.calendar)

        def one(params: Params) -> Pooled:
            policy = acting_policy(spec.agent, spec.env, params, data.tape, n, spec.receptive_field)
            return pool_lanes(play(policy, data.tape, n, costs, keep=False), data)

        own = jax.tree.map(lambda x: jnp.expand_dims(x, 0), one(params))
        if params.ndim == 1:
            return own
        return jax.tree.map(lambda *x: jnp.concatenate(x), own, jax.lax.map(one, params))

    return test


@dataclasses.dataclass(frozen=True)
class Study:
    """One market, walked forward."""

    name: str  # of MARKETS
    folder: Path
    setup: Setup  # its history pays what training pays
    costs: Mapping[str, Costs]

    @property
    def config(self) -> Config:
        return self.setup.config


def prepare_study(name: str, out: Path, options: WalkforwardOptions, config: Config, bars: Sequence[Bars]) -> Study:
    """Folds of one market; `options.folds` of 0 asks for as many as five years allow."""
    bars = shuffled(bars, config.seed) if name == "shuffled" else bars
    folds = options.folds or five_year_folds(prepare(dataclasses.replace(options, folds=1), config, bars))
    setup = prepare(dataclasses.replace(options, folds=folds), config, bars)
    costs = level_costs(setup.history, config)
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    return Study(name, folder, dataclasses.replace(setup, history=at_costs(setup.history, costs[TRAINED_AT])), costs)


def train(study: Study, program: FoldProgram) -> list[np.ndarray]:
    """The last parameters of every fold, (N,) or (M, N); those that are in the folder are read."""
    setup, hyper, console, found = study.setup, hyper_from(study.config), plain_console(), []
    paths = [study.folder / f"fold{k + 1}.npy" for k in range(len(setup.plans))]
    compiled = None
    for k, path in enumerate(paths):
        if not path.exists():
            one = jax.tree.map(lambda x, k=k: x[k : k + 1], setup.folds)
            if compiled is None:
                alone = program._replace(evaluate=lambda params, fold, tape: jnp.zeros(()))
                compiled = compile_folds(alone, one, hyper, setup.history.tape, 1, 0.0)
                print(f"{study.name}: compiled in {compiled.compile_seconds:.0f} s", flush=True)
            fold = dataclasses.replace(setup, plans=setup.plans[k : k + 1], folds=one)
            states, *_, seconds = run_folds(compiled, fold, hyper, console)
            write_atomic(path, array_bytes(np.asarray(states.params[0])))
            print(f"{study.name}: fold {k + 1} of {len(paths)} trained in {seconds:.0f} s", flush=True)
        found.append(np.load(path))
    return found


def array_bytes(array: np.ndarray) -> bytes:
    """An array as `np.load` reads it from a file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def measure(study: Study, program: FoldProgram, trials: int) -> dict[str, dict[str, Any]]:
    """What summary.json says of the portfolio, at each cost; those that are in the folder are read."""
    paths = {level: study.folder / f"{level.replace(' ', '_')}.json" for level in study.costs}
    if not all(path.exists() for path in paths.values()):
        params, began = train(study, program), time.perf_counter()
        played = play_tests(study, program, params)
        for i, (level, path) in enumerate(paths.items()):
            write_json(path, judged(study, level, [jax.tree.map(lambda x, i=i: x[:, i], p) for p in played], trials))
        print(f"{study.name}: tested in {time.perf_counter() - began:.0f} s", flush=True)
    return {level: json.loads(path.read_text()) for level, path in paths.items()}


def play_tests(study: Study, program: FoldProgram, params: Sequence[np.ndarray]) -> list[Pooled]:
    """Of each fold (1 + M, C): the policy and its members at all costs. Host arrays."""
    setup, lanes = study.setup, jax.tree.map(lambda *x: jnp.stack(x), *study.costs.values())
    tape, test, found = setup.history.tape, make_test(program, setup.sizes), []
    run = None
    for k, own in enumerate(params):
        arguments = (jnp.asarray(own), jax.tree.map(lambda x, k=k: x[k], setup.folds), tape, lanes)
        run = run or compile_program(test, *arguments).run
        found.append(jax.device_get(run(*arguments)))
    return found


def judged(study: Study, level: str, played: Sequence[Pooled], trials: int) -> dict[str, Any]:
    """Figures and verdict at one cost; `played` (1 + M,) of each fold."""
    setup, config = study.setup, study.config
    history = at_costs(setup.history, study.costs[level])
    rules = play_fold_rules(setup.market.bars, history, setup.plans, setup.folds, setup.sizes, config.env)
    joints = [joint_calendar(fold_split(history, p.test_first, p.test_length)[0]) for p in setup.plans]
    policy, members = [], []
    for joint, lanes, yardsticks in zip(joints, map(lanes_of, played), rules.yardsticks, strict=True):
        policy.append(fold_portfolios(joint, jax.tree.map(lambda x: x[0], lanes), yardsticks))
        members.append(member_portfolios(joint, jax.tree.map(lambda x: x[1:], lanes)))
    joined = join_portfolios(policy)
    found = summarize_portfolio(joined, join_portfolios(members) if members[0].names else None, config.seed)
    gate = judge_portfolio(joined, found["excess_over_best_rule"], config.gate, trials)
    days = [str(np.datetime64(int(joined.day[i]), "s"))[:10] for i in (0, -1)]
    return {**found, "gate": gate.verdict, "from": days[0], "to": days[1], "folds": len(setup.plans)}


def claim(out: Path, settings: Mapping[str, Any]) -> None:
    """Make a folder, or go on in one that was made with the same settings; `ConfigError` for one with others."""
    path = out / "settings.json"
    if path.exists():
        before = json.loads(path.read_text())
        if before != json.loads(json.dumps(settings)):
            other = sorted(k for k in {*before, *settings} if before.get(k) != settings.get(k))
            raise ConfigError(f"{out}: was made with another {', '.join(other)}; give another --out")
        return
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)


def tables(levels: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Markdown of one market: Sharpe ratios by cost and by decade, and the policy against the best rule."""
    trained = levels[TRAINED_AT]
    decades = list(trained["per_decade"])
    head = ["Sharpe ratio, rebalanced daily", *levels, *(f"{d}, {TRAINED_AT}" for d in decades), "turnover a year"]

    def row(name: str, ratios: Sequence[str], parts: Sequence[str], turnover: str) -> list[str]:
        return [name, *ratios, *parts, turnover]

    def range_(values: Sequence[float]) -> str:
        return f"{min(values):.2f} to {max(values):.2f}"

    seeds = len(trained["portfolio"]["members"])
    rows = [
        row(
            f"policy, {'one seed' if seeds == 1 else f'ensemble of {seeds}'}",
            [f"**{s['portfolio']['sharpe']:.2f}**" for s in levels.values()],
            [f"{trained['per_decade'][d][POLICY]['sharpe']:.2f}" for d in decades],
            f"{trained['portfolio']['turnover']:.1f}",
        )
    ]
    if seeds > 1:
        parts = [range_(trained["per_decade"][d][POLICY]["members"]) for d in decades]
        rows.append(row("its members", [range_(s["portfolio"]["members"]) for s in levels.values()], parts, ""))
    for name, own in trained["baselines"].items():
        ratios = [f"{s['baselines'][name]['sharpe']:.2f}" for s in levels.values()]
        parts = [f"{trained['per_decade'][d]['baselines'][name]['sharpe']:.2f}" for d in decades]
        rows.append(row(name, ratios, parts, f"{own['turnover']:.1f}"))
    against = []
    for level, s in levels.items():
        e = s["excess_over_best_rule"]
        low, high = e["interval_90"]
        difference = f"{e['sharpe_difference']:+.2f} ({low:+.2f} to {high:+.2f})"
        low, high = s["portfolio"]["interval_90"]
        own = f"{s['portfolio']['sharpe']:.2f} ({low:.2f} to {high:.2f})"
        against.append([level, own, e["rule"], difference, e["verdict"], s["gate"]])
    titles = ["costs a side", "policy (90 %)", "best rule", "policy less rule (90 %)", "the policy", "gate"]
    return [*markdown(head, rows), "", *markdown(titles, against)]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def study_all(argv: Sequence[str]) -> None:
    """Everything, from the command line to the tables."""
    if not argv or argv[0].startswith("-"):
        raise ConfigError("give a folder of bars first: python -m benchmarks.markets BARS [--seeds 5] [--out FOLDER]")
    folder, given = argv[0], list(argv[1:])
    defaults = {"--preset": "trend", "--interval": "1d", "--seeds": "5", "--folds": "0"}
    for flag, value in defaults.items():
        if not any(word == flag or word.startswith(f"{flag}=") for word in given):
            given += [flag, value]
    request = parse_with_config(["--data", folder, *given], "markets", __doc__ or "", WalkforwardOptions)
    options, began = request.options, time.perf_counter()
    enable_compilation_cache()
    config = request.resolve(detect_device()).config
    bars, source = load_market_bars(config.data)
    out = options.out or Path("runs") / f"markets-{Path(folder).name}"
    kept = {"configuration": to_dict(config), "bars": data_hash(bars)}
    claim(out, kept | {"folds": options.folds, "first_train_fraction": options.first_train_fraction})
    lines: list[str] = []
    for name in MARKETS:
        study = prepare_study(name, out, options, config, bars)
        levels = measure(study, make_folds(study.config, study.setup.sizes), options.trials)
        some = levels[TRAINED_AT]
        lines += [
            "",
            f"{name}: {len(study.setup.history.symbols)} symbols, {some['folds']} folds, tested {some['from']} to"
            f" {some['to']}, preset {config.preset}, trained at {TRAINED_AT}.",
            "",
            *tables(levels),
        ]
    (out / "tables.md").write_text("\n".join(lines[1:]) + "\n")
    print("\n".join(lines))
    print(f"\n{source}: {time.perf_counter() - began:.0f} s; files: {out}")


def main() -> int:
    return run_command(lambda: study_all(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
