"""The checks from the command line: which bars, which policy, a table, and a file for machines."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, get_args

import jax
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxppo.agent.encoders import receptive_field
from jaxppo.agent.policy import init_params
from jaxppo.check.lookahead import check_lookahead
from jaxppo.check.parity import check_parity
from jaxppo.check.probe import Kind, Probe, ProbeSizes, check_placebo, check_planted
from jaxppo.check.reward import CONFIGURED, LANES, check_reward
from jaxppo.check.verdict import Check, Player
from jaxppo.cli import Request
from jaxppo.config.checks import check_config
from jaxppo.config.layers import replace_fields
from jaxppo.config.schema import FIELD_GROUP, Config, to_dict
from jaxppo.device import detect_device, enable_compilation_cache
from jaxppo.errors import ConfigError
from jaxppo.market.bars import Bars, slice_bars
from jaxppo.market.costs import market_costs, typical_env
from jaxppo.market.dataset import build_evaluation, build_market
from jaxppo.market.recipe import Recipe, feature_recipe
from jaxppo.market.source import load_market_bars
from jaxppo.page.terminal import plain_console
from jaxppo.ppo.checks import check_program
from jaxppo.ppo.program import train_spec
from jaxppo.store.checkpoint import require_match, restore_policy
from jaxppo.store.directory import require_new_file
from jaxppo.store.json import write_json

CheckName = Literal["lookahead", "placebo", "planted", "reward", "parity"]
CHECKS: tuple[CheckName, ...] = get_args(CheckName)
SYMBOLS = 3  # Symbols that lookahead tries, evenly picked; a feature is computed some fifty times of each.
BARS = 20_000  # Newest bars of a symbol that lookahead and parity look at.
REWARD_SYMBOLS = 20


@dataclass(frozen=True)
class CheckOptions:
    """What to check."""

    checks: Annotated[tuple[CheckName, ...], tyro.conf.Positional] = ()
    """Checks to run: lookahead, placebo, planted, reward, parity; all of them when none is named."""
    out: Path | None = None
    """JSON file to write, which must not exist yet."""
    policy: Path | None = None
    """Folder of a run: its configuration is checked, and its best policy decides in lookahead and parity."""
    effort: float = 1.0
    """Multiple of the updates that placebo and planted train."""


def pick(bars: Sequence[Bars], n: int) -> list[Bars]:
    """At most `n` symbols, evenly spread over all."""
    if len(bars) <= n:
        return list(bars)
    return [bars[round(i * (len(bars) - 1) / (n - 1))] for i in range(n)]


class Checker:
    """What the checks share, each made when first asked for."""

    def __init__(self, config: Config, bars: Sequence[Bars], options: CheckOptions):
        self.config = config
        self.bars = bars
        self.options = options

    @cached_property
    def compute(self) -> Recipe:
        """The configured features of one symbol."""
        return feature_recipe(self.config)

    @cached_property
    def few(self) -> list[Bars]:
        return [slice_bars(b, slice(-BARS, None)) for b in pick(self.bars, SYMBOLS)]

    @cached_property
    def player(self) -> Player:
        """The given run's policy, or an untrained one."""
        if self.options.policy is not None:
            market = build_market(self.few, self.config, receptive_field(self.config.agent))
            restored = restore_policy(self.options.policy, "best", market)
            spec = train_spec(self.config, len(market.feature_names))
            require_match(restored.info, market.feature_names, spec.env.actions)
            return Player(self.config, restored.agent, restored.params, spec.env)
        spec = train_spec(self.config, len(self.compute.names))
        params = init_params(spec.agent.spec, jax.random.key(self.config.seed))
        return Player(self.config, spec.agent, params, spec.env)

    @cached_property
    def unsized(self) -> Config:
        """The configuration with exposures as shares of equity: the oracles of made-up edges know no other."""
        if self.config.env.size_by == "equity":
            return self.config
        most = max(1.0, *(abs(t) for t in self.config.env.targets))
        return replace_fields(self.config, {"size_by": "equity", "max_exposure": most})

    @cached_property
    def probe(self) -> Probe:
        sizes = ProbeSizes()
        sizes = replace(sizes, n_updates=max(1, round(self.options.effort * sizes.n_updates)))
        return Probe(self.unsized, self.compute.without_outside(), Kind.of(self.bars), sizes)

    def lookahead(self) -> Check:
        return check_lookahead(
            self.compute, self.few, self.player, seed=self.config.seed, later=self.compute.changed_after
        )

    def placebo(self) -> Check:
        return check_placebo(self.probe, self.config.seed)

    def planted(self) -> Check:
        return check_planted(self.probe, self.config.seed)

    def reward(self) -> Check:
        reach = receptive_field(self.config.agent)
        split = build_evaluation(pick(self.bars, REWARD_SYMBOLS), self.unsized, reach, "all", None).splits["all"]
        return check_reward(split.tape, self.unsized, self.config.seed)

    def parity(self) -> Check:
        return check_parity(self.compute, self.few[:2], self.player)


def resolve_check(request: Request[CheckOptions]) -> Config:
    """The configuration to check: a run's own with `--policy`, else layered as for training."""
    options, given = request.options, request.given
    if not options.effort > 0:
        raise ConfigError(f"effort: must be above 0, got {options.effort}")
    if options.out is not None:
        require_new_file(options.out)
    if options.policy is None:
        return request.resolve(detect_device()).config
    fixed = [name for name in given if FIELD_GROUP.get(name) == "agent"]
    fixed += [name for name, value in (("preset", request.preset), ("config", request.file)) if value is not None]
    if fixed:
        raise ConfigError(
            f"{fixed[0]}: --policy has a configuration of its own; leave --{fixed[0].replace('_', '-')} out"
        )
    return check_config(replace_fields(restore_policy(options.policy).info.config, given))


def show_check(console: Console, check: Check) -> None:
    """A verdict's sentences, and the table of a reward check."""
    console.print(f"{check.name}: {check.explanation}")
    if check.name == "reward":
        table = Table(title="Mean reward a step", title_justify="left", box=None, padding=(0, 1, 0, 0))
        table.add_column("reward", no_wrap=True)
        for heading in (*LANES, "hackable"):
            table.add_column(heading, justify="right", no_wrap=True)
        for name, means in check.details["mean_reward_a_step"].items():
            hackable = "yes" if check.details["verdicts"][name]["hackable"] else "no"
            table.add_row(
                name, *(f"{means[lane]:.4f}" for lane in LANES), hackable, style="bold" if name == CONFIGURED else None
            )
        money = check.details["net_log_return_bp"]
        table.add_row("net growth, bp", *(f"{money[lane]:.2f}" for lane in LANES), "")
        console.print(table)


def summary(checks: Sequence[tuple[Check, float]]) -> Table:
    """One row a check."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("check", "figure", "threshold", "verdict", "seconds"):
        table.add_column(heading, justify="right" if heading == "seconds" else "left", no_wrap=True)
    for check, seconds in checks:
        verdict = Text("PASS", "green") if check.passed else Text("FAIL", "red")
        table.add_row(check.name, check.figure, check.threshold, verdict, f"{seconds:.1f}")
    return table


def check_run(request: Request[CheckOptions]) -> int:
    """Run the checks and print them; the exit status is 1 where one fails.

    Raises:
      JaxppoError: a configuration, bars or policy that cannot be used; nothing is written.
    """
    enable_compilation_cache()
    options, config = request.options, resolve_check(request)
    check_program(config)  # before anything is read
    bars, source = load_market_bars(config.data)
    console = plain_console()
    console.print(
        f"checking {source}: {len(bars)} symbols, {sum(len(b.time) for b in bars):,} bars; features"
        f" {', '.join(config.features.features)}; reward {config.reward.reward}; policy"
        f" {options.policy or 'untrained'}",
    )
    costs = market_costs(bars, config.env)
    for line in (*costs.lines, *(f"warning: {w}" for w in costs.warnings)):
        console.print(line, highlight=False)
    # Made-up symbols, and a few of the user's, are not in a file of costs: they pay the medians of it.
    typical = replace(config, env=typical_env(costs, bars, config.env))
    checker = Checker(typical, bars, options)
    recipe = checker.compute
    for line in (*recipe.lines(bars), *(f"warning: {w}" for w in recipe.warnings(bars))):
        console.print(line, highlight=False)
    done: list[tuple[Check, float]] = []
    for name in dict.fromkeys(options.checks or CHECKS):
        began = time.perf_counter()
        run: Callable[[], Check] = getattr(checker, name)
        done.append((run(), time.perf_counter() - began))
        show_check(console, done[-1][0])
    console.print(summary(done))
    passed = all(check.passed for check, _ in done)
    if options.out is not None:
        report = {
            "passed": passed,
            "data": source,
            "policy": str(options.policy) if options.policy else None,
            "checks": [{**asdict(check), "seconds": seconds} for check, seconds in done],
            "config": to_dict(config),
        }
        write_json(options.out, report)
    return 0 if passed else 1
