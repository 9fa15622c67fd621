"""One backtest from a run directory to files: what is played, over what, and what is said about it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro
from rich.console import Console

from jaxppo.agent.encoders import receptive_field
from jaxppo.agent.policy import Params
from jaxppo.backtest.facts import (
    FOLDER,
    SplitName,
    costs_warnings,
    data_warnings,
    look_warnings,
    read_cutoffs,
    read_manifest,
    rule_warnings,
    seen_shares,
    seen_warnings,
    start_warnings,
    terms,
    unfinished_warnings,
    validation_record,
)
from jaxppo.backtest.files import (
    Facts,
    baseline_rows,
    beaten_share,
    cost_rows,
    sharpe_probabilities,
    write_backtest,
)
from jaxppo.backtest.played import Backtest, Settings, backtest
from jaxppo.backtest.why import Explain, Policy, explain, why_not
from jaxppo.backtest.worst import worst_trades
from jaxppo.config.checks import check_config, require_data
from jaxppo.config.schema import BarsFilter, Config
from jaxppo.device import compile_program, enable_compilation_cache
from jaxppo.env.trading import EnvSpec, env_spec
from jaxppo.errors import ConfigError, RunDirectoryError
from jaxppo.market.bars import Bars, describe_symbols
from jaxppo.market.calendar import format_interval
from jaxppo.market.costs import read_costs
from jaxppo.market.dataset import EvaluationSet, Market, Split, build_evaluation, decision_times, evaluation_set
from jaxppo.market.recipe import feature_recipe
from jaxppo.market.source import load_market_bars, load_other_bars
from jaxppo.page.members import members_line, members_table
from jaxppo.page.terminal import figure_table, gate_line, percent, plain_console, rules_line
from jaxppo.page.text import plural
from jaxppo.play.gate import Record, judge_policy
from jaxppo.play.passes import n_decisions
from jaxppo.play.sides import Sides, Yardsticks, rule_sides, rule_signals, score_yardsticks
from jaxppo.store.checkpoint import RestoredPolicy, parse_which, require_match, restore_policy
from jaxppo.store.directory import iso, tried, whole_folder
from jaxppo.store.gate import write_gate
from jaxppo.store.rows import member_rows, pool_and_portfolio, portfolio_rows, symbol_rows
from jaxppo.store.why import write_why, write_worst_trades


@dataclass(frozen=True, kw_only=True)
class BacktestOptions(BarsFilter):
    """What to play over which bars."""

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """Folder of the run whose policy is played."""
    split: SplitName = "test"
    """By the run's own cut-off dates: validation, test (all that begins after them), or all bars."""
    which: str = "best"
    """Checkpoint: best (by validation fitness), latest, final, or the number of an update."""
    data: str | None = None
    """File or folder of Parquet or CSV bars; by default the run's own."""
    costs: str | None = None
    """CSV or Parquet file of costs by symbol: symbol, half_spread or fee (a side), optionally borrow (a year); by
    default the run's own."""
    extra_features: str | None = None
    """CSV or Parquet file of features from elsewhere, with the columns that the policy was trained with; by default the
    run's own."""
    out: Path | None = None
    """Folder to write, which must not hold anything yet; by default RUN_DIR/backtest/SPLIT-DATE-TIME."""
    trials: int | None = None
    """Policies tried to find this one, by which the Sharpe ratio is deflated; by default the validations that it
    was chosen from, of a sweep's policy or a grid's run those of all."""
    random_draws: int = 20
    """Draws of the policy's own decisions shifted to other times."""
    seed: int = 0
    """Seed of those draws."""
    explain: Explain = "auto"
    """Look at why it acts: which features matter, what it does where, how sure it is. `auto` does where that takes
    seconds."""


def load_backtest_bars(options: BacktestOptions, config: Config) -> tuple[list[Bars], str, Config]:
    """The bars to play over, what to call them, and the configuration with them as its data."""
    require_data(options, options.data, "the run's own bars are used")
    if options.data is None:
        return *load_market_bars(config.data), config
    bars, data = load_other_bars(options.data, options, config.data)
    return bars, options.data, dataclasses.replace(config, data=data)


def backtest_costs(options: BacktestOptions, config: Config, bars: Sequence[Bars]) -> tuple[Config, list[str]]:
    """The configuration with the costs by symbol to play at: those given, else the run's as far as they fit the bars.

    The second is what to warn of: bars of one's own, of whose symbols the run's file holds none.
    """
    if options.costs is not None:
        return dataclasses.replace(config, env=dataclasses.replace(config.env, costs=options.costs)), []
    file = config.env.costs
    if file is None or options.data is None or read_costs(file).names([b.symbol for b in bars]):
        return config, []
    without = dataclasses.replace(config, env=dataclasses.replace(config.env, costs=None))
    return without, [f"the run's costs by symbol ({file}) hold none of these symbols; the defaults of the run are paid"]


@dataclass(frozen=True)
class Setup:
    """A policy, the bars that it is played over, and what is known about both."""

    policy: RestoredPolicy
    spec: EnvSpec
    config: Config  # with the data that is played
    market: Market
    split: Split
    facts: Facts
    record: Record
    sides: Sides  # of the rules, fitted ones as the run fitted them


def prepare(options: BacktestOptions) -> Setup:
    """Everything that can go wrong before anything is computed or written."""
    which = parse_which(options.which)
    if options.random_draws < 1:
        raise ConfigError(f"random_draws: must be at least 1, got {options.random_draws}")
    if options.trials is not None and options.trials < 1:
        raise ConfigError(f"trials: must be at least 1, got {options.trials}")
    run_dir = options.run_dir
    manifest = read_manifest(run_dir)
    cutoffs = read_cutoffs(manifest, run_dir)
    policy = restore_policy(run_dir, which)
    info = policy.info
    bars, source, config = load_backtest_bars(options, info.config)
    if options.extra_features is not None:
        features = dataclasses.replace(config.features, extra_features=options.extra_features)
        config = check_config(dataclasses.replace(config, features=features))
    config, costs_notes = backtest_costs(options, config, bars)
    market = build_evaluation(bars, config, receptive_field(config.agent), options.split, cutoffs)
    if cutoffs is None and market.data_hash != manifest["hash"]:
        raise RunDirectoryError(
            f"{run_dir}: the run was split by symbol, without cut-off dates; only its own bars can be played"
        )
    require_match(info, market.feature_names, info.actions, market.feature_hash)
    split = market.splits[options.split]
    record = validation_record(run_dir, which, info)
    record = dataclasses.replace(record, looks=options.trials or tried(run_dir).looks or record.looks)
    sides = rule_sides(rule_signals(market.bars, split), manifest["rules"])
    shares = seen_shares(split, cutoffs, manifest["periods"])
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
        looks=record.looks,
        validation_fitness=info.fitness,
        random_draws=options.random_draws,
        seed=options.seed,
        labels=info.actions.labels,
        finished=manifest["finished"],
        terms=terms(market, config),
        warnings=(
            *unfinished_warnings(manifest, info),
            *seen_warnings(shares, which, options.split),
            *start_warnings(manifest, split),
            *look_warnings(run_dir, options.split),
            *rule_warnings(sides),
            *data_warnings(policy, market, manifest, options.data is None),
            *costs_notes,
            *costs_warnings(market, manifest, options.costs is None and config.env.costs is not None),
        ),
    )
    return Setup(policy, env_spec(config.env, config.reward), config, market, split, facts, record, sides)


def compute(setup: Setup) -> tuple[Backtest, Yardsticks, float, float]:
    """The backtest and the rules as host arrays, and the seconds to compile and to run the former."""
    policy, facts = setup.policy, setup.facts
    data = evaluation_set(setup.split)
    settings = Settings(n_decisions(data.tape), receptive_field(setup.config.agent), facts.random_draws)

    def play(params: Params, data: EvaluationSet, key: jax.Array) -> Backtest:
        return backtest(policy.agent, setup.spec, params, data, key, settings)

    arguments = (policy.params, data, jax.random.key(facts.seed))
    compiled = compile_program(play, *arguments)
    began = time.perf_counter()
    done = jax.device_get(compiled.run(*arguments))
    seconds = time.perf_counter() - began
    yardsticks = score_yardsticks(setup.sides, setup.config.env, data, settings.n_bars)
    return done, yardsticks, compiled.seconds, seconds


_SHOWN_SYMBOLS = 20


def chance_lines(done: Backtest, looks: int) -> list[str]:
    """How far chance could explain the figures."""
    i = done.intervals
    low, high = (percent(float(x)) for x in i.net_return)
    chance = sharpe_probabilities(done, looks)
    shown = {k: "n/a" if np.isnan(v) else f"{100 * v:.0f}%" for k, v in chance.items()}
    daily = done.portfolio_intervals.sharpe
    return [
        f"90% intervals: return {low} to {high}, Sharpe {i.sharpe.low:.2f} to {i.sharpe.high:.2f} (rebalanced daily"
        f" {daily.low:.2f} to {daily.high:.2f}), maximum drawdown {100 * i.max_drawdown.low:.1f}% to"
        f" {100 * i.max_drawdown.high:.1f}%",
        f"P(true Sharpe > 0) {shown['probabilistic_sharpe']}; P(true Sharpe > best of {looks} skill-less looks)"
        f" {shown['deflated_sharpe']}",
    ]


def show(console: Console, setup: Setup, done: Backtest, yardsticks: Yardsticks) -> None:
    """What a trader asks first."""
    facts = setup.facts
    console.print(
        f"{facts.split} of {facts.source}: {facts.decisions:,} decisions of"
        f" {plural(len(setup.split.symbols), 'symbol')}, {facts.first_decision} to {facts.last_decision};"
        f" policy of update {facts.update} ({facts.which})",
    )
    for line in (*describe_symbols(setup.market.bars, setup.config.data.data), *setup.market.lines):
        console.print(line, highlight=False)
    for warning in facts.warnings:
        console.print(f"warning: {warning}", style="yellow")
    beaten = beaten_share(done)
    own = done.score.figures.portfolio
    daily = portfolio_rows([("policy", own)], yardsticks)
    for title, rows in (
        ("Policy and baselines at the same costs", baseline_rows(done, yardsticks)),
        ("Rebalanced daily: policy and rules at the same costs", daily),
    ):
        console.print(figure_table(title, "", [(r["name"], r) for r in rows]))
    console.print(rules_line(float(own.sharpe), *yardsticks.best))
    if done.members is not None:
        ensemble, members = pool_and_portfolio(done.score.figures.pooled, own), member_rows(done.members)
        console.print(members_table(ensemble, members))
        console.print(members_line(ensemble, members))
    console.print(
        f"random: the policy's own positions at other times, {facts.random_draws} draws: the mean of each figure, and"
        f" its 5th and 95th percentile; by net return the policy beats {100 * beaten:.0f}% of the draws",
    )
    for line in chance_lines(done, facts.looks):
        console.print(line)
    console.print(figure_table("Cost sweep", "costs", [(f"{r['cost_multiple']:g}x", r) for r in cost_rows(done)]))
    rows = symbol_rows(done.score.figures, setup.split.symbols, facts.labels)[: len(setup.split.symbols)]
    rows.sort(key=lambda r: -r["return"])
    half = _SHOWN_SYMBOLS // 2
    shown = rows if len(rows) <= _SHOWN_SYMBOLS else rows[:half] + rows[-half:]
    console.print(figure_table(f"{len(shown)} of {len(rows)} symbols", "symbol", [(r["symbol"], r) for r in shown]))


def look_into(folder: Path, asked: Explain, setup: Setup, done: Backtest) -> str:
    """Write what the policy saw before its worst trades and why it acts; returns a line on that."""
    split, policy = setup.split, setup.policy
    field, groups = receptive_field(setup.config.agent), feature_recipe(setup.config).by_group
    who = (policy.agent, setup.spec, policy.params)
    seen = np.asarray(done.observation)
    write_worst_trades(folder, worst_trades(*who, done.score, seen, split, groups, field))
    of = Policy(*who, split, groups, len(done.observation), field)
    reason = why_not(asked, of, setup.facts.decisions)
    if reason is not None:
        return reason
    began = time.perf_counter()
    why = explain(of, done.score, seen, setup.facts.seed)
    write_why(folder, why.importance, why.facts)
    return f"why it acts: looked at in {time.perf_counter() - began:.1f} s"


def backtest_run(options: BacktestOptions) -> Path:
    """Backtest from the command line's options to a finished folder; returns it."""
    enable_compilation_cache()
    setup = prepare(options)
    out = options.out or options.run_dir / FOLDER / f"{options.split}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    console = plain_console()
    with whole_folder(out) as folder:
        done, yardsticks, compile_seconds, run_seconds = compute(setup)
        policy = setup.policy
        best = yardsticks.best[1]
        gate = judge_policy(done.score, setup.split, policy.info.actions, setup.config.gate, setup.record, best)
        write_backtest(folder, setup.facts, done, yardsticks, setup.split, setup.market.bars)
        write_gate(folder, gate)
        said = look_into(folder, options.explain, setup, done)
        from jaxppo.backtest.page import write_backtest_report  # matplotlib takes a second to import

        write_backtest_report(folder)
    show(console, setup, done, yardsticks)
    console.print(gate_line(gate))
    console.print(said, highlight=False)
    console.print(f"compiled in {compile_seconds:.1f} s, played in {run_seconds:.1f} s")
    if (options.run_dir / FOLDER).resolve() in out.resolve().parents:
        refresh_page(console, options.run_dir)
    console.print(f"report: {out / 'report.html'}")
    return out


def refresh_page(console: Console, run_dir: Path) -> None:
    """Make the run's own page anew, which shows its latest backtest out of sample first."""
    from jaxppo.page.run import write_html

    try:
        write_html(run_dir)
    except RunDirectoryError as error:  # the backtest itself is whole
        console.print(f"warning: the run's own report.html was left as it was: {error}", style="yellow")
