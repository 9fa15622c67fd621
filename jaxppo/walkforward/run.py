"""One walk-forward from the command line's values to files: what is trained where, and how it is run."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from jaxppo.agent.encoders import receptive_field
from jaxppo.agent.policy import Params
from jaxppo.cli import Request
from jaxppo.config.checks import require_from_scratch
from jaxppo.config.layers import describe, updates_for_passes, with_updates
from jaxppo.config.schema import Config
from jaxppo.device import (
    GpuMemory,
    compile_program,
    describe_device,
    detect_device,
    enable_compilation_cache,
    memory_limit,
    take_memory,
)
from jaxppo.errors import ConfigError
from jaxppo.market.bars import describe_symbols
from jaxppo.market.dataset import Market, Split, build_evaluation, market_warnings
from jaxppo.market.source import SYNTHETIC, load_market_bars
from jaxppo.market.tape import REWARD_HORIZON, Tape
from jaxppo.page.progress import Display
from jaxppo.page.terminal import plain_console
from jaxppo.page.text import plural
from jaxppo.ppo.checks import check_program
from jaxppo.ppo.state import Hyper, TrainState, hyper_from
from jaxppo.store.checkpoint import save_once
from jaxppo.store.checkpoint_info import final_info
from jaxppo.store.directory import RunInputs, iso, tried, whole_folder, write_config, write_manifest
from jaxppo.walkforward.dates import FoldPlan, Scheme, check_folds, plan_folds
from jaxppo.walkforward.files import Result, collect, write_walkforward
from jaxppo.walkforward.program import (
    Fold,
    FoldOutput,
    FoldProgram,
    FoldSizes,
    Judged,
    Kept,
    make_folds,
    nothing_kept,
    side_by_side,
    stack_folds,
)
from jaxppo.walkforward.rules import play_fold_rules
from jaxppo.walkforward.show import show

# Of what a walk-forward does not do: it has periods of its own, and chooses nothing but by `early_stop`.
_UNUSED = ("split_by", "train_fraction", "validation_fraction", "choose_by")
MEMORY_SHARE = 0.8
"""Of an accelerator's memory that folds side by side may need."""


@dataclass(frozen=True)
class WalkforwardOptions(GpuMemory):
    """Where folds lie, and how many are computed at once."""

    folds: int = 5
    """Consecutive test periods with equally many bars, each tested by a policy trained on what is before it."""
    scheme: Scheme = "expanding"
    """expanding: train on everything before a test period; rolling: on as many bars as the first fold does."""
    first_train_fraction: float = 0.5
    """Share of all bars before the first test period."""
    embargo_bars: int = 0
    """Bars to leave out before each test period, on top of the purge of at least receptive field + reward horizon."""
    at_once: int | None = None
    """Folds computed side by side; by default all, or as many as fit 80 % of the accelerator's memory (50 % of the
    machine's on a CPU) by the memory that the compiled program says it needs."""
    trials: int | None = None
    """Configurations tried on these bars, this one included; it deflates the Sharpe ratio. By default 1, and
    with the --config of a sweep's policy or of a grid's run all that was tried."""
    out: Path | None = None
    """Folder to write, which must not hold anything yet; by default runs/walkforward-DATE-TIME."""


def check_options(options: WalkforwardOptions, given: Mapping[str, Any], early_stop: float) -> None:
    """`ConfigError` for the first option that does not fit, or that would change nothing."""
    check_folds(options.folds, options.first_train_fraction)
    if options.embargo_bars < 0:
        raise ConfigError(f"embargo_bars: must be at least 0, got {options.embargo_bars}")
    if options.at_once is not None and options.at_once < 1:
        raise ConfigError(f"at_once: must be at least 1, got {options.at_once}")
    if options.trials is not None and options.trials < 1:
        raise ConfigError(f"trials: must be at least 1, got {options.trials}")
    unused = [name for name in given if name in _UNUSED or (name == "n_validations" and early_stop == 0)]
    if unused:
        raise ConfigError(
            f"{unused[0]}: has no effect on a walk-forward, whose periods are set by folds, scheme and"
            " first_train_fraction, and which validates and chooses nothing but by early_stop"
        )


@dataclass(frozen=True)
class Setup:
    """Everything that a walk-forward needs before anything is compiled or written."""

    config: Config
    market: Market
    history: Split
    plans: list[FoldPlan]
    gap: int
    folds: Fold  # (K,)
    sizes: FoldSizes


def prepare(options: WalkforwardOptions, config: Config, bars: Sequence[Any]) -> Setup:
    """Features, dates and ranges of every fold."""
    field = receptive_field(config.agent)
    market = build_evaluation(bars, config, field, "all", None)
    history, gap = market.splits["all"], market.purge_bars + options.embargo_bars
    needed = config.budget.n_steps + REWARD_HORIZON
    plans = plan_folds(
        history.times,
        options.folds,
        options.scheme,
        options.first_train_fraction,
        field,
        gap,
        needed,
        config.budget.early_stop,
    )
    folds, sizes = stack_folds(history, plans, jax.random.key(config.seed))
    return Setup(updates_for_passes(config, most_trained(plans)), market, history, plans, gap, folds, sizes)


def most_trained(plans: Sequence[FoldPlan]) -> int:
    """Training bars of the fold that has most: all folds train for as many updates, which passes are counted on."""
    return max(int(plan.train_decisions.sum()) for plan in plans)


class CompiledFolds(NamedTuple):
    """The executables for `at_once` folds."""

    init: Callable[[Fold, Hyper, Tape], TrainState]
    advance: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    judge: Callable[..., tuple[Params, Judged]]
    evaluate: Callable[..., FoldOutput]
    keep: Callable[..., Kept] | None  # with early stopping
    at_once: int
    memory_bytes: int
    compile_seconds: float


def compile_folds(
    program: FoldProgram, folds: Fold, hyper: Hyper, tape: Tape, at_once: int | None, limit: float
) -> CompiledFolds:
    """Compile for `at_once` folds side by side, or for as many as need at most `limit` bytes."""
    many, total, seconds = side_by_side(program), folds.key.shape[0], 0.0
    size = min(at_once or total, total)
    while True:
        size = math.ceil(total / math.ceil(total / size))  # passes of equal size: 3 and 2 of 5, not 4 and 1
        some = jax.tree.map(lambda x, n=size: x[:n], folds)
        state = jax.eval_shape(many.init, some, hyper, tape)
        advance = compile_program(many.advance, state, some, hyper, tape, jnp.int32(0), donate=(0,))
        judge, evaluate = (compile_program(f, state.params, some, tape) for f in (many.judge, many.evaluate))
        made, keep = [advance, judge, evaluate], None
        if folds.stop is not None:
            kept = jax.eval_shape(partial(nothing_kept, folds=size), state.params)
            found = compile_program(many.keep, kept, state.params, jnp.int32(0), some, tape, donate=(0,))
            made, keep = [*made, found], found.run
        seconds += sum(one.seconds for one in made)
        needed = max(one.memory_bytes for one in made)
        if at_once is not None or size == 1 or needed <= limit:
            return CompiledFolds(jax.jit(many.init), advance.run, judge.run, evaluate.run, keep, size, needed, seconds)
        size = max(1, min(size - 1, int(size * limit / needed)))


def chunks(folds: int, at_once: int) -> list[list[int]]:
    """Folds of each pass, all passes of one size; the last repeats the last fold, whose copies are dropped."""
    return [[min(i, folds - 1) for i in range(at, at + at_once)] for at in range(0, folds, at_once)]


def run_folds(
    compiled: CompiledFolds, setup: Setup, hyper: Hyper, console: Console
) -> tuple[TrainState, Judged, FoldOutput, float]:
    """Train, judge and test every fold. Returns states and what is said of them as host arrays (K, ...), and seconds.

    A state is the last, but its parameters are those that are handed over: with early stopping of the policy that is
    kept, as its update is, and of a flat one where that is not trusted.
    """
    config, tape, began = setup.config, setup.history.tape, time.perf_counter()
    passes = chunks(len(setup.plans), compiled.at_once)
    batch = config.batch_steps * config.budget.seeds
    display = Display(config.budget.n_updates * len(passes), batch * compiled.at_once, console)
    parts, done = [], 0
    with display:
        for chunk in passes:
            some = jax.tree.map(lambda x, i=jnp.asarray(chunk): x[i], setup.folds)
            own = len(set(chunk))
            state = compiled.init(some, hyper, tape)
            kept = nothing_kept(state.params, len(chunk)) if compiled.keep is not None else None
            for update, length in zip(itertools.accumulate(config.segments), config.segments, strict=True):
                start = time.perf_counter()
                state, means = compiled.advance(state, some, hyper, tape, jnp.int32(length))
                if compiled.keep is not None:
                    kept = compiled.keep(kept, state.params, jnp.int32(update), some, tape)
                row = {k: float(np.mean(v[:own])) for k, v in jax.device_get(means).items()}  # waits for the segment
                done += length
                speed = own * length * batch / (time.perf_counter() - start)
                display.segment(done, speed, _line(chunk, row))
            if kept is not None:
                own_update = jnp.expand_dims(kept.update, tuple(range(1, state.update.ndim)))
                state = state._replace(params=kept.params, update=jnp.broadcast_to(own_update, state.update.shape))
            params, judged = compiled.judge(state.params, some, tape)
            state = state._replace(params=params)
            found = jax.device_get((state, judged, compiled.evaluate(params, some, tape)))
            parts.append(jax.tree.map(lambda x, n=own: x[:n], found))
    states, judged, outputs = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    return states, judged, outputs, time.perf_counter() - began


def kept_updates(states: TrainState) -> list[int]:
    """After which update the policy of each fold is taken, of states as `run_folds` returns them."""
    return [int(update.max()) for update in np.asarray(states.update)]


def _line(chunk: Sequence[int], row: Mapping[str, float]) -> str:
    first, last = chunk[0] + 1, chunk[-1] + 1
    of = f"fold {first}" if first == last else f"folds {first}-{last}"
    # Means of the updates and folds: a whole number would hide that some folds had none.
    named = {"skipped_steps": "skipped gradient steps", "bad_samples": "bad samples", "rollbacks": "rollbacks"}
    faults = "".join(f"  {text} {row[name]:.2g} an update" for name, text in named.items() if row[name])
    return (
        f"{of}: reward {row['reward_mean']:+.4f}  entropy {row['entropy']:.2f}"
        f"  orders {100 * row['train_trade_rate']:.0f}% of steps{faults}"
    )


def save_policies(folder: Path, setup: Setup, states: TrainState, program: FoldProgram, result: Result) -> None:
    """The policy of every fold as a checkpoint that `restore_policy` reads: folds/1, folds/2 and so on."""
    for i, row in enumerate(result.folds.to_dicts()):
        # Nothing was chosen by the test, and there is but one checkpoint.
        fitness = row["out_fitness"] if math.isfinite(row["out_fitness"]) else 0.0
        info = final_info(setup.config, setup.market, program.spec.env.actions, row["kept_update"], fitness)
        save_once(folder / "folds" / str(i + 1), jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), states), info)


def describe_folds(setup: Setup, source: str) -> list[str]:
    """What is trained and tested where, a line a fold, and what is missing."""
    market, history = setup.market, setup.history
    lines = [
        f"data: {source}; {plural(len(history.symbols), 'symbol')}, {sum(len(b.time) for b in market.bars):,} bars,"
        f" {len(market.feature_names)} features",
        *describe_symbols(market.bars, None if source == SYNTHETIC else source),
        *market.lines,
        f"between training and test lie {setup.gap} bars of each symbol",
    ]
    for number, plan in enumerate(setup.plans, start=1):
        d, bars, judged = plan.dates, int(plan.train_decisions.sum()), int(plan.stop_decisions.sum())
        visits = setup.config.passes_over(bars, setup.config.budget.n_updates)
        kept = f" the {judged:,} decisions after them choose its policy;" if judged else ""
        lines.append(
            f"fold {number}: train from {iso(d.train_begin)[:10]}, {bars:,} decisions of"
            f" {plural(int((plan.train_decisions > 0).sum()), 'symbol')}, each bar {visits:.3g} times;{kept} test"
            f" {iso(d.test_begin)[:10]} to {iso(d.test_end - 1)[:10]},"
            f" {int(plan.test_decisions.sum()):,} of {int((plan.test_decisions > 0).sum())}"
        )
    return lines


def fold_warnings(setup: Setup) -> list[str]:
    """Symbols that are missing somewhere, by name."""
    found, symbols = list(market_warnings(setup.market)), np.asarray(setup.history.symbols)
    for number, plan in enumerate(setup.plans, start=1):
        tested, trained = plan.test_decisions > 0, plan.train_decisions > 0
        if not tested.all():
            found.append(f"fold {number} has no bars to test of {', '.join(symbols[~tested])}")
        if (tested & ~trained).any():
            found.append(
                f"fold {number} tests symbols that it has no bars to train on: {', '.join(symbols[tested & ~trained])}"
            )
    return found


def walkforward_run(request: Request[WalkforwardOptions]) -> Path:
    """Walk forward from what is asked for to a finished folder; returns it."""
    options = request.options
    take_memory(options.gpu_memory)
    enable_compilation_cache()
    device = detect_device()
    resolved = request.resolve(device)
    config = resolved.config
    check_options(options, request.given, config.budget.early_stop)
    check_program(config)  # before anything is read
    require_from_scratch(config, "a fold begins from scratch, since a run may have seen what the fold is tested on")
    bars, source = load_market_bars(config.data)
    setup = prepare(options, config, bars)
    resolved = with_updates(resolved, most_trained(setup.plans))
    console = plain_console()
    ensemble = f", an ensemble of {config.budget.seeds} policies in each fold" if config.budget.seeds > 1 else ""
    console.print(f"preset {config.preset} on {device.count} x {device.kind}, seed {config.seed}{ensemble}")
    warnings = fold_warnings(setup)
    told = describe_device(options.gpu_memory, config.agent.kernels, device)
    for line in [*told, *describe(resolved), *describe_folds(setup, source), *(f"warning: {w}" for w in warnings)]:
        console.print(line)
    if source == SYNTHETIC:
        console.print("no --data given: walking forward on the embedded synthetic market, which is made up")
    out = options.out or Path("runs") / f"walkforward-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    with whole_folder(out) as folder:
        inputs = RunInputs(resolved, setup.market, source, warnings, device)
        trials = options.trials or (tried(request.file.parent).trials if request.file else 0) or 1
        result = _compute(folder, options, trials, setup, inputs, console, out.name)
    show(console, result)
    console.print(f"files: {out}; report: {out / 'report.html'}")
    return out


def _compute(
    folder: Path,
    options: WalkforwardOptions,
    trials: int,
    setup: Setup,
    inputs: RunInputs,
    console: Console,
    name: str,
) -> Result:
    """Everything between the claim of the folder and its name."""
    config, hyper = setup.config, hyper_from(setup.config)
    program = make_folds(config, setup.sizes)
    # Before anything is trained: a rule of a plugin may be wrong.
    rules = play_fold_rules(setup.market.bars, setup.history, setup.plans, setup.folds, setup.sizes, config.env)
    compiled = compile_folds(
        program, setup.folds, hyper, setup.history.tape, options.at_once, memory_limit(inputs.device, MEMORY_SHARE)
    )
    console.print(
        f"compiled in {compiled.compile_seconds:.1f} s: {compiled.at_once} of {options.folds} folds side by side,"
        f" {compiled.memory_bytes / 2**20:,.0f} MiB"
    )
    states, judged, outputs, seconds = run_folds(compiled, setup, hyper, console)
    console.print(f"trained and tested in {seconds:.1f} s")
    facts = {
        "folds": options.folds,
        "scheme": options.scheme,
        "first_train_fraction": options.first_train_fraction,
        "purge_bars": setup.market.purge_bars,
        "embargo_bars": options.embargo_bars,
        "early_stop": config.budget.early_stop,
        "flat_below": config.budget.flat_below,
        "updates": config.budget.n_updates,
        "trials": trials,
        "at_once": compiled.at_once,
        "warnings": list(inputs.warnings),
    }
    labels, bars = program.spec.env.actions.labels, setup.market.bars
    kept = kept_updates(states)
    result = collect(setup.history, setup.plans, judged, outputs, kept, labels, facts, config, rules.yardsticks, bars)
    write_config(folder, inputs.resolved)
    extra = {
        "walkforward": facts,
        "compile_seconds": compiled.compile_seconds,
        "run_seconds": seconds,
        "program": {"memory_bytes": compiled.memory_bytes},
        "rules": [{name: of._asdict() for name, of in fitted.items()} for fitted in rules.fitted],
    }
    write_manifest(folder, inputs, program.spec.env.actions, extra)
    write_walkforward(folder, result)
    save_policies(folder, setup, states, program, result)
    from jaxppo.walkforward.page import write_report  # matplotlib takes a second to import

    write_report(folder, name)
    return result
