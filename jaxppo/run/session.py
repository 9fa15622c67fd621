"""One training run from the data to the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxppo.agent.encoders import receptive_field
from jaxppo.config.presets import DeviceInfo, Resolved, flat_fields, load_config, resolve
from jaxppo.config.schema import Config
from jaxppo.env.trading import env_spec
from jaxppo.errors import CheckpointError, ConfigError, Interrupted, RunDirectoryError
from jaxppo.market.bars import Bars, load_bars
from jaxppo.market.dataset import Market, build_market
from jaxppo.market.synthetic import synthetic_market
from jaxppo.ppo.program import train_spec
from jaxppo.ppo.update import TrainState
from jaxppo.run.checkpoint import CheckpointInfo, require_match, restore_train_state
from jaxppo.run.device import DETERMINISTIC, detect_device, enable_compilation_cache
from jaxppo.run.directory import CONFIG, claim, default_run_dir, iso, write_config, write_manifest
from jaxppo.run.loop import Finished, Progress, Trainer, compile_run, first_state
from jaxppo.run.progress import Display

SYNTHETIC = "embedded synthetic market"


@dataclass(frozen=True)
class RunOptions:
    """Where a run goes; nothing here changes what it computes."""

    run_dir: Path | None = None
    """Folder of the run; by default runs/PRESET-DATE-TIME."""
    resume: bool = False
    """Go on with the run in --run-dir from its latest checkpoint."""
    keep_checkpoints: int = 2
    """Newest checkpoints to keep, besides the best."""
    deterministic: bool = False
    """On a GPU, the same bits in every run on the same machine: slower kernels in places, and none tuned by timing."""


def load_market_bars(config: Config) -> tuple[list[Bars], str]:
    """The configured bars, and what to call them."""
    data = config.data
    if data.data is None:
        return synthetic_market(data.market_seed), SYNTHETIC
    bars = load_bars(
        data.data,
        interval=data.interval,
        symbols=data.symbols,
        timezone=data.timezone,
        asset_classes=data.asset_classes,
    )
    return bars, data.data


def resolve_run(options: RunOptions, preset: str | None, given: Mapping[str, Any], device: DeviceInfo) -> Resolved:
    """The configuration to run: layered for a new run, the saved one for a resumed run."""
    if options.keep_checkpoints < 1:
        raise ConfigError(f"keep_checkpoints: must be at least 1, got {options.keep_checkpoints}")
    if not options.resume:
        return resolve(preset or "quick_test", given, device)
    if options.run_dir is None:
        raise ConfigError("--resume needs --run-dir, the folder of the run to go on with")
    path = options.run_dir / CONFIG
    if not path.exists():
        raise RunDirectoryError(f"{options.run_dir}: holds no run to resume ({CONFIG} is missing)")
    config = load_config(path)
    saved = flat_fields(config)
    wanted = {**given, **({"preset": preset} if preset else {})}
    changed = [f"{k} (saved {saved[k]!r}, given {v!r})" for k, v in wanted.items() if saved[k] != v]
    if changed:
        raise ConfigError(f"--resume goes on with the saved configuration, which differs in {', '.join(changed)}")
    return Resolved(config, {k: "saved run" for k, v in saved.items() if v != flat_fields(Config())[k]})


def describe(resolved: Resolved) -> list[str]:
    """The non-default values of a configuration and where each came from, a line each."""
    flat = flat_fields(resolved.config)
    width = max((len(k) for k in resolved.sources), default=0)
    told = {k: s if s.startswith("derived") else f"from {s}" for k, s in resolved.sources.items()}
    return [f"  {k:<{width}} = {flat[k]!s:<24} {source}" for k, source in sorted(told.items())]


def describe_market(market: Market, source: str) -> list[str]:
    """What is trained, validated and tested on, a few lines."""
    train, validation = market.splits["train"], market.splits["validation"]
    counts = {k: sum(d[k] for d in market.decisions.values()) for k in ("train", "validation", "test")}
    lines = [
        f"data: {source}; {len(market.bars)} symbols, {sum(len(b.time) for b in market.bars):,} bars,"
        f" {len(market.feature_names)} features",
        f"decisions: {counts['train']:,} train ({len(train.symbols)} symbols), {counts['validation']:,} validation"
        f" ({len(validation.symbols)}), {counts['test']:,} test; purge gap {market.purge_bars} bars",
    ]
    if market.cutoffs:
        lines.append(f"cut-off dates: validation from {iso(market.cutoffs[0])}, test from {iso(market.cutoffs[1])}")
    return lines + [f"warning: {w}" for w in market.warnings]


def _resumed(run_dir: Path, market: Market, resolved: Resolved) -> tuple[TrainState, Progress]:
    state, info = restore_train_state(run_dir, "latest")
    actions = env_spec(resolved.config.env, resolved.config.reward).actions
    require_match(info, market.feature_names, actions, market.feature_hash)
    if info.data_hash != market.data_hash:
        raise CheckpointError(
            f"{run_dir}: the data changed since the run began (hash {info.data_hash[:12]}, now"
            f" {market.data_hash[:12]}); resume with the same bars, or start a new run"
        )
    return state, _progress_of(info)


def _progress_of(info: CheckpointInfo) -> Progress:
    names = [f.name for f in dataclasses.fields(Progress)]
    return Progress(**{name: getattr(info, name) for name in names})


def train_run(options: RunOptions, preset: str | None, given: Mapping[str, Any]) -> Path:
    """Train from the command line's values to a finished report; returns the run directory."""
    enable_compilation_cache()
    device = detect_device()
    resolved = resolve_run(options, preset, given, device)
    config = resolved.config
    display = Display(config.budget.n_updates, config.batch_steps)
    display.say(f"preset {config.preset} on {device.count} x {device.kind}, seed {config.seed}")
    for line in describe(resolved):
        display.say(line)
    train_spec(config, 1)  # actions, reward and network are checked before anything is read or written
    bars, source = load_market_bars(config)
    if source == SYNTHETIC:
        display.say("no --data given: training on the embedded synthetic market, which is made up")
    market = build_market(bars, config, receptive_field(config.agent))
    for line in describe_market(market, source):
        display.say(line)

    resumed = _resumed(options.run_dir, market, resolved) if options.resume and options.run_dir else None
    run_dir = options.run_dir or default_run_dir(config.preset)
    if resumed is None:
        claim(run_dir)
    compiled = compile_run(config, market, DETERMINISTIC if options.deterministic else {})
    if resumed is None:  # an interrupt until here leaves an empty folder, which the next try may have
        write_config(run_dir, resolved)
    display.say(f"compiled in {compiled.compile_seconds:.1f} s; run directory {run_dir}")
    actions = compiled.program.spec.env.actions
    facts: dict[str, Any] = {
        "compile_seconds": compiled.compile_seconds,
        "program": {"memory_bytes": compiled.memory_bytes, "deterministic": options.deterministic},
    }
    write_manifest(run_dir, resolved, market, source, device, actions, facts)
    state, at = resumed or (first_state(compiled, config.seed), Progress())
    trainer = Trainer(run_dir, resolved, market, compiled, options.keep_checkpoints)
    try:
        with display:
            finished = trainer.run(state, at, display)
    except KeyboardInterrupt:
        raise Interrupted(f"go on from the last validation with --run-dir {run_dir} --resume") from None
    finally:
        trainer.close()  # waits for the save in flight
    facts["finished"] = dataclasses.asdict(finished)
    write_manifest(run_dir, resolved, market, source, device, actions, facts)
    _report(run_dir, finished, display)
    return run_dir


def _report(run_dir: Path, finished: Finished, display: Display) -> None:
    from jaxppo.report import write_report  # matplotlib takes a second to import; nobody waits for it before training

    display.say(
        f"trained {finished.env_steps:,} steps in {finished.run_seconds:.1f} s"
        f" ({finished.steps_per_second:,.0f} steps/s); best validation at update {finished.best_update}"
    )
    display.say(f"report: {write_report(run_dir)}")
