"""One training run from the data to the report."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import tyro

from jaxppo.agent.encoders import receptive_field
from jaxppo.agent.policy import Params
from jaxppo.cli import Request
from jaxppo.config.checks import require_from_scratch
from jaxppo.config.layers import DeviceInfo, Resolved, describe, flat_fields, load_config, with_default, with_updates
from jaxppo.config.schema import Config
from jaxppo.device import (
    GpuMemory,
    describe_device,
    detect_device,
    enable_compilation_cache,
    take_memory,
    xla_options,
)
from jaxppo.errors import CheckpointError, ConfigError, Interrupted, RunDirectoryError
from jaxppo.hosts import Hosts, Meeting, join
from jaxppo.market.bars import describe_symbols
from jaxppo.market.dataset import Market, build_market, market_warnings
from jaxppo.market.source import SYNTHETIC, load_market_bars
from jaxppo.page.progress import Display
from jaxppo.page.terminal import plain_console
from jaxppo.play.edge import edge_text
from jaxppo.play.sides import rules_of
from jaxppo.plugins import require_plugins
from jaxppo.ppo.checks import check_program
from jaxppo.ppo.layout import check_devices, default_blocks, make_mesh
from jaxppo.ppo.state import TrainState
from jaxppo.store.checkpoint import has_checkpoints, restore_run
from jaxppo.store.directory import (
    CONFIG,
    RunInputs,
    changed_environment,
    claim,
    default_run_dir,
    earlier_manifest,
    environment_facts,
    held,
    iso,
    manifest_plugins,
    note_stopped,
    sweep_tried,
    write_config,
    write_manifest,
)
from jaxppo.train.compiled import begin_run, first_state
from jaxppo.train.grid import grid_values, member_configs, parse_grid
from jaxppo.train.loop import Finished, Trainer, segment_lengths
from jaxppo.train.population import is_population, train_population
from jaxppo.train.record import Progress
from jaxppo.train.resume import (
    describe_change,
    describe_resume,
    require_same_costs,
    require_same_data,
    require_same_inputs,
    resumed_config,
)
from jaxppo.train.stop import Stop
from jaxppo.train.tracking import known_ids, require_trackers, tracked
from jaxppo.train.warm import WarmStart, read_warm_start, require_same_start


@dataclass(frozen=True)
class RunOptions(Meeting, GpuMemory):
    """Where a run goes; nothing here changes what it computes."""

    run_dir: Path | None = None
    """Folder of the run; by default runs/PRESET-DATE-TIME."""
    resume: bool = False
    """Go on with the run in --run-dir from its newest sound checkpoint."""
    extend_to: int = 0
    """With --resume: updates to train to, more than the run was given; the schedules are stretched to them."""
    grid: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = ()
    """Field and values, such as learning_rate 1e-4 3e-4: trains every combination of the grids given, each a run of its
    own beneath --run-dir, all in one program. May be given again."""
    members_at_once: int = 0
    """Runs of a grid that share the device at a time; the others take turns. 0: as many as fit."""
    keep_checkpoints: int = 2
    """Newest checkpoints to keep, besides the best."""
    devices: int | Literal["all"] = 1
    """Devices to divide a run over, its seeds first and then its paths, or the runs of a grid. Several processes train
    with all they have."""
    deterministic: bool = False
    """On a GPU, the same bits in every run on the same machine: slower kernels in places, and none tuned by timing."""
    max_seconds: float = 0.0
    """Save and stop (status 75) before the process has run so long, compilation included; 0 for no limit."""
    track: tuple[str, ...] = ()
    """Trackers to tell of the metrics too, besides TensorBoard's events: wandb, mlflow or a plugin's. With --resume, by
    default those that the run was begun with."""


def resolve_run(request: Request[RunOptions], device: DeviceInfo) -> Resolved:
    """The configuration to run: layered for a new run, the saved one for a resumed run."""
    options, given = request.options, dict(request.given)
    if options.keep_checkpoints < 1:
        raise ConfigError(f"keep_checkpoints: must be at least 1, got {options.keep_checkpoints}")
    if not 0 <= options.max_seconds < math.inf:
        raise ConfigError(f"max_seconds: must be 0 (no limit) or above, got {options.max_seconds:g}")
    require_trackers(options.track)
    for name in ("early_stop", "flat_below"):
        if given.get(name):
            raise ConfigError(
                f"{name}: belongs to a walk-forward; a training run hands over the policy of its best validation"
                " (--choose-by portfolio_sharpe ranks them by the same figure, and the gate says whether to use it)"
            )
    if not options.resume:
        if options.extend_to:
            raise ConfigError("--extend-to goes on with a run: give --resume too, or --n-updates for a new run")
        return request.resolve(device)
    if options.run_dir is None:
        raise ConfigError("--resume needs --run-dir, the folder of the run to go on with")
    path = options.run_dir / CONFIG
    if not path.exists():
        raise RunDirectoryError(
            f"{options.run_dir}: holds no run to resume ({CONFIG} is missing); begin one without --resume"
        )
    require_plugins(manifest_plugins(options.run_dir), str(options.run_dir))
    if request.file is not None:
        raise ConfigError("--config begins a new run; --resume goes on with the saved configuration, so leave it out")
    if request.preset is not None:
        given["preset"] = request.preset
    config = resumed_config(load_config(path), given, options.extend_to)
    default = flat_fields(Config())
    return Resolved(config, {k: "saved run" for k, v in flat_fields(config).items() if v != default[k]})


def describe_market(market: Market, source: str, warnings: Sequence[str], data: str | None = None) -> list[str]:
    """What is trained, validated and tested on, a few lines."""
    train, validation = market.splits["train"], market.splits["validation"]
    counts = {k: sum(d[k] for d in market.decisions.values()) for k in ("train", "validation", "test")}
    lines = [
        f"data: {source}; {len(market.bars)} symbols, {sum(len(b.time) for b in market.bars):,} bars,"
        f" {len(market.feature_names)} features",
        *describe_symbols(market.bars, data),
        *market.lines,
        f"decisions: {counts['train']:,} train ({len(train.symbols)} symbols), {counts['validation']:,} validation"
        f" ({len(validation.symbols)}), {counts['test']:,} test; purge gap {market.purge_bars} bars",
    ]
    if market.cutoffs:
        lines.append(f"cut-off dates: validation from {iso(market.cutoffs[0])}, test from {iso(market.cutoffs[1])}")
    return lines + [f"warning: {w}" for w in warnings]


def describe_passes(config: Config, market: Market) -> str:
    """How much is trained on how many bars, a line."""
    bars, updates = market.n_decided("train"), config.budget.n_updates
    passes = config.passes_over(bars, updates)
    times = f"{passes:,.1f}" if passes >= 1 else f"{passes:.2g}"
    return (
        f"{updates:,} updates visit each of the {bars:,} training bars {times} times, with {config.budget.lanes}"
        " accounts each time"
    )


class Start(NamedTuple):
    """What a run goes on from."""

    state: TrainState
    at: Progress
    best: Params  # the policy of at.best_update
    config: Config  # that it was trained with until then


def _resumed(run_dir: Path, market: Market, config: Config) -> Start | None:
    """The newest sound checkpoint of a run; None when it has not come to its first."""
    manifest = earlier_manifest(run_dir)
    if not has_checkpoints(run_dir):
        if "finished" in manifest:
            raise CheckpointError(f"{run_dir}: the run is finished and its checkpoints are gone; start a new run")
        require_same_data(run_dir, manifest.get("data", {}).get("hash"), market)
        require_same_costs(run_dir, manifest, market)
        return None
    if sweep_tried(run_dir).trials:
        raise CheckpointError(
            f"{run_dir}: holds the policy of a sweep, averaged from trials with other hyperparameters, which cannot be"
            " trained on; train a new run with --config and its config.yaml"
        )
    state, best, info = restore_run(run_dir)
    require_same_inputs(run_dir, info, manifest, config, market)
    names = [f.name for f in dataclasses.fields(Progress)]
    return Start(state, Progress(**{name: getattr(info, name) for name in names}), best, info.config)


def train_run(request: Request[RunOptions], began: float | None = None) -> Path:
    """Train from what is asked for to a finished report; returns the run directory.

    Args:
      request: where the run goes, when it stops, and what configuration it has.
      began: `time.monotonic()` that --max-seconds counts from; by default now.
    """
    began = time.monotonic() if began is None else began
    take_memory(request.options.gpu_memory)
    enable_compilation_cache()
    with join(request.options) as hosts:
        return _train_together(request, hosts, began)


def _devices(options: RunOptions, config: Config, device: DeviceInfo, hosts: Hosts) -> DeviceInfo:
    """The devices that a run is divided over: those of several processes all."""
    every = options.devices == "all" or (hosts.count > 1 and options.devices == 1)
    count = device.count if every else int(options.devices)
    if hosts.count > 1 and count < device.count:
        raise ConfigError(
            f"devices: {hosts.count} processes train with all of their {device.count} devices, got {count}"
        )
    if hosts.count > 1 and options.grid:
        raise ConfigError("grid: is trained by one process, with --devices as many devices as it has")
    check_devices(config, count, device.count, members=bool(options.grid))
    return dataclasses.replace(device, count=count)


def _train_together(request: Request[RunOptions], hosts: Hosts, began: float) -> Path:
    options = request.options
    device = detect_device()
    resolved = resolve_run(request, device)
    device = _devices(options, resolved.config, device, hosts)
    if not (options.resume or options.grid or "blocks" in request.given):
        resolved = with_default(resolved, "blocks", default_blocks(resolved.config, device.count), "--devices")
    config = resolved.config
    seeds = config.budget.seeds
    display = Display(config.budget.n_updates, config.batch_steps * seeds, plain_console(quiet=not hosts.lead))
    ensemble = f", an ensemble of {seeds} policies" if seeds > 1 else ""
    display.say(f"preset {config.preset} on {device.count} x {device.kind}, seed {config.seed}{ensemble}")
    for line in (*describe_device(options.gpu_memory, config.agent.kernels, device), *describe(resolved)):
        display.say(line)
    if options.resume and config.ppo.blocks == 1 and device.count > math.gcd(seeds, device.count):
        display.say("minibatches are drawn within each device's paths from here on, as the run has one block of them")
    check_program(config)  # before anything is read
    if options.grid:
        require_from_scratch(config, "the runs of a grid begin from scratch")
    member_configs(config, grid_values(parse_grid(options.grid)))
    bars, source = load_market_bars(config.data)
    if source == SYNTHETIC:
        display.say("no --data given: training on the embedded synthetic market, which is made up")
    market = build_market(bars, config, receptive_field(config.agent))
    begun = options.resume and options.run_dir is not None and has_checkpoints(options.run_dir)
    warm = None if begun else read_warm_start(config, market)
    warnings = (*market_warnings(market), *(warm.warnings if warm else ()))
    for line in describe_market(market, source, warnings, config.data.data):
        display.say(line)
    for line in warm.lines if warm else ():
        display.say(line)
    if not options.resume:  # what is saved has its updates
        resolved = with_updates(resolved, market.n_decided("train"))
    display.expect(resolved.config.budget.n_updates)
    display.say(describe_passes(resolved.config, market))
    run_dir = Path(hosts.agree(str(options.run_dir or default_run_dir(config.preset))))
    hosts.advice = f"go on with --run-dir {run_dir} --resume, with as many processes as there are"
    if not options.resume and hosts.lead:
        claim(run_dir)
    hosts.wait()
    try:
        with held(run_dir) if hosts.lead else nullcontext():
            inputs = RunInputs(resolved, market, source, warnings, device)
            if options.grid or is_population(run_dir):
                return train_population(run_dir, options, inputs, display, began)
            return _train(run_dir, options, inputs, display, began, hosts, warm)
    except OSError as error:  # the loop goes on without what it cannot write; before and after it nothing does
        raise RunDirectoryError(
            f"{error.filename or run_dir}: {error.strerror or error}; mend that, then --run-dir {run_dir} --resume"
        ) from error


def _train(
    run_dir: Path,
    options: RunOptions,
    inputs: RunInputs,
    display: Display,
    began: float,
    hosts: Hosts,
    warm: WarmStart | None,
) -> Path:
    """Everything in a run directory that is this process's alone."""
    resolved, market = inputs.resolved, inputs.market
    config = resolved.config
    start = _resumed(run_dir, market, config) if options.resume else None
    facts: dict[str, Any] = {}
    if warm is not None:
        require_same_start(run_dir, warm)
        facts["init"] = warm.facts
    if start is not None:
        earlier = earlier_manifest(run_dir)
        changed = changed_environment(earlier, environment_facts(inputs.device))
        for line in describe_change(changed):
            display.say(line)
        if changed:
            entry = {"at": start.at.update, "changed": {k: {"before": a, "now": b} for k, (a, b) in changed.items()}}
            facts["environments"] = [*earlier.get("environments", []), entry]
    if options.resume:
        for line in describe_resume(start.config if start else None, config, start.at.update if start else 0):
            display.say(line)
    if start is not None and start.config.budget.n_updates != config.budget.n_updates:
        extension = {"at": start.at.update, "from": start.config.budget.n_updates, "to": config.budget.n_updates}
        earlier = earlier_manifest(run_dir).get("extended", [])
        facts["extended"] = [*(e for e in earlier if e != extension), extension]
    facts["passes"] = config.passes_over(market.n_decided("train"), config.budget.n_updates)
    if hosts.lead:
        write_config(run_dir, resolved)  # before the compilation: what is killed during it can be resumed
    try:
        mesh = make_mesh(jax.devices()[: inputs.device.count], config.budget.seeds)
        left = segment_lengths(config, start.at.update if start else None)
        compiling = begin_run(config, market, xla_options(options.deterministic), mesh, left, fresh=start is None)
        sides, facts["rules"] = rules_of(market)  # meanwhile
        compiled = compiling()
    except BaseException:  # an interrupt until here leaves an empty folder, which the next try may have
        if not options.resume and hosts.lead:
            (run_dir / CONFIG).unlink()
        raise
    display.say(f"compiled in {compiled.compile_seconds:.1f} s; run directory {run_dir}")
    actions = compiled.program.spec.env.actions
    program = {"memory_bytes": compiled.memory_bytes, "deterministic": options.deterministic}
    facts |= {"compile_seconds": compiled.compile_seconds, "program": program}
    if hosts.lead:
        write_manifest(run_dir, inputs, actions, facts)
    if start:
        state, at = compiled.place(start.state), start.at
    else:
        begin = (warm.begin,) if warm else ()
        state, at = first_state(compiled, config.seed, *begin), Progress()
    names = (options.track or tuple(known_ids(run_dir))) if hosts.lead else ()
    with tracked(run_dir, names, config, display.say) as tracking:
        trainer = Trainer(run_dir, resolved, market, compiled, options.keep_checkpoints, tracking, hosts)
        try:
            with display, Stop(options.max_seconds, began, display.say) as stop:
                finished = trainer.run(state, at, display, sides, stop, start.best if start else None)
        except Interrupted as interrupted:
            if hosts.lead:
                note_stopped(run_dir, interrupted.status)
            raise
        except KeyboardInterrupt:
            raise Interrupted(f"go on from the last checkpoint with --run-dir {run_dir} --resume", 130) from None
        finally:
            trainer.close()  # waits for the save in flight
    if finished.edge is None:  # another process writes
        return run_dir
    if finished.edge.explains:
        display.say(f"why: {edge_text(finished.edge)}")
    facts |= {
        "finished": dataclasses.asdict(finished) | {"edge": finished.edge._asdict()},
        "checkpoints": trainer.kept(state),
    }
    write_manifest(run_dir, inputs, actions, facts)
    _report(run_dir, finished, config.budget.seeds, display)
    return run_dir


def _report(run_dir: Path, finished: Finished, seeds: int, display: Display) -> None:
    # matplotlib takes a second to import, and nobody should wait for it before training.
    from jaxppo.page.run import write_report

    ensemble = f"{seeds} policies x " if seeds > 1 else ""
    display.say(
        f"trained {ensemble}{finished.env_steps:,} steps in {finished.run_seconds:.1f} s"
        f" ({finished.steps_per_second:,.0f} steps/s); best validation at update {finished.best_update}"
    )
    display.say(f"report: {write_report(run_dir)}")
