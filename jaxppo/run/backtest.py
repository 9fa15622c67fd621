"""One backtest from a run directory to files: what is played, over what, and what is said about it."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import polars as pl
import tyro
from rich.console import Console
from rich.table import Table

from jaxppo.agent.encoders import receptive_field
from jaxppo.config.schema import Config
from jaxppo.env.trading import EnvSpec, env_spec
from jaxppo.errors import ConfigError, RunDirectoryError
from jaxppo.evaluate.backtest import Backtest, Settings, backtest
from jaxppo.evaluate.validate import n_decisions
from jaxppo.market.bars import Bars, load_bars
from jaxppo.market.calendar import format_interval
from jaxppo.market.dataset import Market, Split, build_evaluation, decision_times
from jaxppo.run.backtest_files import Facts, baseline_rows, beaten_share, cost_rows, whole_folder, write_backtest
from jaxppo.run.checkpoint import RestoredPolicy, Which, restore_policy
from jaxppo.run.device import enable_compilation_cache
from jaxppo.run.directory import MANIFEST, METRICS, iso
from jaxppo.run.loop import evaluation_set
from jaxppo.run.rows import percent, symbol_rows
from jaxppo.run.session import load_market_bars

FOLDER = "backtest"
SplitName = Literal["validation", "test", "all"]


@dataclass(frozen=True)
class BacktestOptions:
    """What to play over which bars."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """Folder of the run whose policy is played."""
    split: SplitName = "test"
    """By the run's own cut-off dates: validation, test (all that begins after them), or all bars."""
    which: str = "best"
    """Checkpoint: best (by validation fitness), latest, final, or the number of an update."""
    data: str | None = None
    """File or folder of bars; by default the run's own."""
    interval: str | None = None
    """Interval of the bars in --data, such as 1h."""
    symbols: tuple[str, ...] = ()
    """Symbols of --data; all that are found when empty."""
    timezone: str | None = None
    """Time zone of naive timestamps in --data."""
    asset_classes: dict[str, str] = dataclasses.field(default_factory=dict)
    """SYMBOL CLASS pairs that override the guessed asset class in --data."""
    out: Path | None = None
    """Folder to write, which must not hold anything yet; by default RUN_DIR/backtest/SPLIT-DATE-TIME."""
    random_draws: int = 20
    """Draws of the policy's own decisions shifted to other times."""
    seed: int = 0
    """Seed of those draws."""


def parse_which(text: str) -> Which:
    """A checkpoint's name or the number of an update."""
    if text in ("best", "latest", "final"):
        return text  # type: ignore[return-value]
    if text.isdigit():
        return int(text)
    raise ConfigError(f"which: unknown checkpoint {text!r}; give best, latest, final or the number of an update")


def read_manifest(run_dir: Path) -> dict[str, Any]:
    """The manifest of a run; `RunDirectoryError` where there is none to read."""
    path = run_dir / MANIFEST
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return {"data": raw["data"], "cutoffs": raw["data"]["cutoffs"], "hash": raw["data"]["hash"]}
    except FileNotFoundError as error:
        raise RunDirectoryError(f"{run_dir}: holds no run ({MANIFEST} is missing); give a run directory") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(f"{path}: cannot be read as the manifest of a run ({error!r})") from error


def read_cutoffs(manifest: dict[str, Any], run_dir: Path) -> tuple[int, int] | None:
    """The run's cut-off dates in UTC seconds; None for a run split by symbol."""
    if manifest["cutoffs"] is None:
        return None
    try:
        one, two = (int(datetime.fromisoformat(c).timestamp()) for c in manifest["cutoffs"])
    except (ValueError, TypeError) as error:
        raise RunDirectoryError(f"{run_dir / MANIFEST}: data.cutoffs must be two ISO dates ({error})") from error
    return one, two


def looks(run_dir: Path, which: Which, update: int) -> int:
    """Validations that the policy was chosen from: all of the run for the best, else those up to its update."""
    path = run_dir / METRICS
    try:
        frame = pl.read_csv(path, columns=["update", "val_fitness"])
    except FileNotFoundError:
        return 1
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RunDirectoryError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    return max(1, frame.height if which == "best" else frame.filter(pl.col("update") <= update).height)


def load_backtest_bars(options: BacktestOptions, config: Config) -> tuple[list[Bars], str, Config]:
    """The bars to play over, what to call them, and the configuration with them as its data."""
    if options.data is None:
        given = [n for n in ("interval", "symbols", "timezone", "asset_classes") if getattr(options, n)]
        if given:
            raise ConfigError(f"{given[0]}: describes --data; without --data the run's own bars are used")
        return *load_market_bars(config), config
    read = functools.partial(
        load_bars, options.data, interval=options.interval, symbols=options.symbols, timezone=options.timezone
    )
    bars, classes = read(asset_classes=options.asset_classes), dict(options.asset_classes)
    # What the run said of a symbol holds here too.
    known = {b.symbol: c for b in bars if (c := config.data.asset_classes.get(b.symbol)) and b.symbol not in classes}
    if known:
        classes |= known
        bars = read(asset_classes=classes)
    own = {"data": options.data, "interval": options.interval, "symbols": options.symbols}
    own |= {"timezone": options.timezone}
    data = dataclasses.replace(config.data, **own, asset_classes=classes)  # type: ignore[arg-type]
    return bars, options.data, dataclasses.replace(config, data=data)


def seen_shares(split: Split, cutoffs: tuple[int, int] | None) -> dict[str, float]:
    """Shares of the decisions at times before the run's first cut-off date (`train`), between both, and after."""
    if cutoffs is None:
        return {}
    at = np.concatenate(decision_times(split))
    train, validation = float((at < cutoffs[0]).mean()), float(((at >= cutoffs[0]) & (at < cutoffs[1])).mean())
    return {"train": train, "validation": validation, "test": 1.0 - train - validation}


def seen_warnings(shares: dict[str, float], which: Which, split: SplitName) -> list[str]:
    """What the policy had seen of the bars that it is judged on."""
    found = []
    if not shares:
        found.append("the run was split by symbol, so the policy was trained on times that other symbols are tested on")
        if split == "all":
            found.append("most of these bars were trained on; the figures say little about bars to come")
    if shares.get("train", 0) > 0:
        share = 100 * shares["train"]
        found.append(f"{share:.1f} % of the decisions are at times that the run trained on (in sample)")
    if shares.get("validation", 0) > 0:
        chosen = ", where this policy was chosen as the best" if which == "best" else ""
        found.append(f"{100 * shares['validation']:.1f} % of the decisions lie in the validation period{chosen}")
    return found


def data_warnings(policy: RestoredPolicy, market: Market, manifest: dict[str, Any], own_data: bool) -> list[str]:
    """What is different about the bars."""
    found = list(market.warnings)
    trained = manifest["data"].get("interval")
    interval = format_interval(market.bars[0].interval)
    if trained is not None and trained != interval:
        found.append(f"the policy was trained on {trained} bars and is played on {interval} bars")
    if own_data and policy.info.data_hash != market.data_hash:
        found.append(
            f"the run's data changed since it was trained (hash {policy.info.data_hash[:12]}, now"
            f" {market.data_hash[:12]})"
        )
    return found


@dataclass(frozen=True)
class Prepared:
    """A policy, the bars that it is played over, and what is known about both."""

    policy: RestoredPolicy
    spec: EnvSpec
    config: Config  # with the data that is played
    market: Market
    split: Split
    facts: Facts


def prepare(options: BacktestOptions) -> Prepared:
    """Everything that can go wrong before anything is computed or written."""
    which = parse_which(options.which)
    if options.random_draws < 1:
        raise ConfigError(f"random_draws: must be at least 1, got {options.random_draws}")
    run_dir = options.run_dir
    manifest = read_manifest(run_dir)
    cutoffs = read_cutoffs(manifest, run_dir)
    policy = restore_policy(run_dir, which)
    info = policy.info
    bars, source, config = load_backtest_bars(options, info.config)
    market = build_evaluation(bars, config, receptive_field(config.agent), options.split, cutoffs)
    if cutoffs is None and market.data_hash != manifest["hash"]:
        raise RunDirectoryError(
            f"{run_dir}: the run was split by symbol, without cut-off dates; only its own bars can be played"
        )
    restore_policy(run_dir, info.update, market)  # features of the data are those of the policy
    split = market.splits[options.split]
    shares = seen_shares(split, cutoffs)
    at = decision_times(split)
    facts = Facts(
        run=str(run_dir),
        which=options.which,
        update=info.update,
        split=options.split,
        source=source,
        data_hash=market.data_hash,
        interval=format_interval(bars[0].interval),
        first_decision=iso(min(int(t[0]) for t in at)),
        last_decision=iso(max(int(t[-1]) for t in at)),
        cutoffs=(iso(cutoffs[0]), iso(cutoffs[1])) if cutoffs else None,
        decisions=sum(len(t) for t in at),
        seen=shares,
        looks=looks(run_dir, which, info.update),
        validation_fitness=info.fitness,
        random_draws=options.random_draws,
        seed=options.seed,
        labels=info.actions.labels,
        warnings=(
            *seen_warnings(shares, which, options.split),
            *data_warnings(policy, market, manifest, options.data is None),
        ),
    )
    return Prepared(policy, env_spec(config.env, config.reward), config, market, split, facts)


def compute(prepared: Prepared) -> tuple[Backtest, float, float]:
    """The backtest as host arrays, and the seconds to compile and to run it."""
    policy, facts = prepared.policy, prepared.facts
    data = evaluation_set(prepared.split)
    settings = Settings(n_decisions(data.tape), receptive_field(prepared.config.agent), facts.random_draws)

    def play(params: Any, data: Any, key: jax.Array) -> Backtest:
        return backtest(policy.agent, prepared.spec, params, data, key, settings)

    arguments = (policy.params, data, jax.random.key(facts.seed))
    began = time.perf_counter()
    compiled = jax.jit(play).lower(*arguments).compile()
    middle = time.perf_counter()
    done = jax.device_get(compiled(*arguments))
    return done, middle - began, time.perf_counter() - middle


_COLUMNS = {
    "return": "return",
    "sharpe": "Sharpe",
    "max_drawdown": "maxDD",
    "profit_factor": "PF",
    "win_rate": "wins",
    "trades": "trades",
    "turnover": "turnover",
    "exposure": "exposure",
}
_SHOWN_SYMBOLS = 20


def figure_table(title: str, corner: str, rows: Sequence[tuple[str, dict[str, Any]]]) -> Table:
    """A line of pooled figures for each name."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column(corner, no_wrap=True)
    for heading in _COLUMNS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in rows:
        table.add_row(name, *(_cell(column, float(row[column])) for column in _COLUMNS))
    return table


def _cell(column: str, value: float) -> str:
    if column == "return":
        return percent(value)
    if column in ("max_drawdown", "win_rate", "exposure"):
        return "n/a" if np.isnan(value) else f"{100 * value:.1f}%"
    return "n/a" if np.isnan(value) else f"{value:,.0f}" if column == "trades" else f"{value:.2f}"


def show(console: Console, prepared: Prepared, done: Backtest) -> None:
    """What a trader asks first."""
    facts = prepared.facts
    console.print(
        f"{facts.split} of {facts.source}: {facts.decisions:,} decisions of {len(prepared.split.symbols)} symbols,"
        f" {facts.first_decision} to {facts.last_decision}; policy of update {facts.update} ({facts.which})",
        highlight=False,
    )
    for warning in facts.warnings:
        console.print(f"warning: {warning}", style="yellow", highlight=False, markup=False)
    beaten = beaten_share(done)
    console.print(
        figure_table("Policy and baselines at the same costs", "", [(r["name"], r) for r in baseline_rows(done)])
    )
    console.print(
        f"the policy beats {100 * beaten:.0f}% of {facts.random_draws} draws of its own decisions at other"
        " times by net return;"
        " stops and take-profit act on all but buy-and-hold",
        highlight=False,
    )
    console.print(figure_table("Cost sweep", "costs", [(f"{r['cost_multiple']:g}x", r) for r in cost_rows(done)]))
    rows = symbol_rows(done.validation, prepared.split.symbols, facts.labels)[:-1]
    rows.sort(key=lambda r: -r["return"])
    half = _SHOWN_SYMBOLS // 2
    shown = rows if len(rows) <= _SHOWN_SYMBOLS else rows[:half] + rows[-half:]
    console.print(figure_table(f"{len(shown)} of {len(rows)} symbols", "symbol", [(r["symbol"], r) for r in shown]))


def backtest_run(options: BacktestOptions) -> Path:
    """Backtest from the command line's options to a finished folder; returns it."""
    enable_compilation_cache()
    prepared = prepare(options)
    out = options.out or options.run_dir / FOLDER / f"{options.split}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    console = Console()
    with whole_folder(out) as folder:
        done, compile_seconds, run_seconds = compute(prepared)
        write_backtest(folder, prepared.facts, done, prepared.split)
    show(console, prepared, done)
    console.print(f"compiled in {compile_seconds:.1f} s, played in {run_seconds:.1f} s; files: {out}", highlight=False)
    return out
