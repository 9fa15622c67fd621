"""Everything that a session needs before its first bar, and everything that can be wrong with it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from jaxppo.agent.encoders import receptive_field
from jaxppo.config.checks import require_data
from jaxppo.config.schema import Config
from jaxppo.errors import ConfigError, DataError, RunDirectoryError
from jaxppo.market.asset_classes import asset_class_of, guess_asset_class, may_short
from jaxppo.market.bars import Bars
from jaxppo.market.calendar import bars_per_year, format_interval
from jaxppo.market.costs import market_costs
from jaxppo.market.dataset import purge_gap
from jaxppo.market.quality import format_time
from jaxppo.market.source import load_market_bars, load_other_bars
from jaxppo.market.splits import cutoff_times, split_ranges
from jaxppo.market.tape import Costs, Terms
from jaxppo.paper.options import PaperOptions
from jaxppo.store.checkpoint import RestoredPolicy, parse_which, restore_policy
from jaxppo.store.directory import MANIFEST, earlier_manifest
from jaxppo.store.sessions import ENV_FIELDS, SESSION


@dataclass(frozen=True)
class Asked:
    """The policy of a run, and what its manifest says of the bars it was trained on."""

    policy: RestoredPolicy
    hash: str  # of the policy, hex
    interval: str
    cutoffs: tuple[int, int] | None  # UTC seconds at which validation and test begin
    symbols: Mapping[str, str]  # asset class of each that it was trained on

    @property
    def config(self) -> Config:
        return self.policy.info.config

    def classes(self, options: PaperOptions) -> dict[str, str]:
        """Asset class of each of the symbols asked for, by default of all that the run was trained on."""
        given = {s: asset_class_of(name).name for s, name in options.asset_classes.items()}
        known = {**self.symbols, **given}
        return {s: known.get(s) or guess_asset_class(s) for s in options.symbols or self.symbols}


def ask_run(options: PaperOptions) -> Asked:
    """The policy; `RunDirectoryError` or `CheckpointError` for a folder that holds none."""
    manifest = earlier_manifest(options.run_dir)
    try:
        data = manifest["data"]
        cutoffs = None if data["cutoffs"] is None else tuple(_seconds(text) for text in data["cutoffs"])
        interval, symbols = str(data["interval"]), {str(s["symbol"]): str(s["asset_class"]) for s in data["symbols"]}
    except (KeyError, TypeError, ValueError) as error:
        said = f"{options.run_dir}: holds no run that {MANIFEST} describes; give a run directory"
        raise RunDirectoryError(said) from error
    policy = restore_policy(options.run_dir, parse_which(options.which))
    digest = hashlib.sha256(np.ascontiguousarray(policy.params).tobytes() + policy.info.feature_hash.encode())
    return Asked(policy, digest.hexdigest(), interval, cutoffs, symbols)  # type: ignore[arg-type]


def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def replayed_bars(options: PaperOptions, asked: Asked) -> tuple[list[Bars], str]:
    """The bars to replay, and what to call them.

    Raises:
      DataError: bars that cannot be used, or of another interval than the policy was trained on.
    """
    config = asked.config.data
    if options.broker == "simulated":
        require_data(options, options.data, "the run's own bars are replayed")
    if options.data is None:
        bars, source = load_market_bars(config)
    else:
        bars, source = load_other_bars(options.data, options, config)[0], options.data
    require_interval(bars, asked)
    return bars, source


def require_interval(bars: Sequence[Bars], asked: Asked) -> None:
    """`DataError` for bars of another interval than the policy was trained on."""
    for b in bars:
        if (found := format_interval(b.interval)) != asked.interval:
            raise DataError(
                f"{b.symbol}: bars of {found} in {b.source}, but the policy was trained on {asked.interval}; give those"
            )


def first_rows(bars: Sequence[Bars], options: PaperOptions, asked: Asked) -> dict[str, int]:
    """Row of the first bar that each symbol decides on; symbols that have none are left out.

    Raises:
      ConfigError: a date that is none.
      DataError: no symbol has a bar to decide on, or none before the end.
    """
    needed, begin = asked.policy.decider.min_bars, None
    if options.from_ is not None:
        begin = date_seconds("--from", options.from_)
    found: dict[str, int] = {}
    for b in bars:
        row = _test(b, asked, needed) if begin is None else int(np.searchsorted(b.time, begin))
        row = max(row, needed - 1)
        if row < len(b.time):
            found[b.symbol] = row
    if not found:
        where = f"from {options.from_} on" if options.from_ else "in the run's test split"
        longest = max(bars, key=lambda b: len(b.time))
        raise DataError(
            f"{longest.source}: no bar to decide on {where}: {longest.symbol}, the longest, has {len(longest.time)}"
            f" bars up to {format_time(int(longest.time[-1]))}, of which the first {needed - 1} warm up"
        )
    begins = min(int(b.time[found[b.symbol]]) for b in bars if b.symbol in found)
    if options.to is not None and date_seconds("--to", options.to) <= begins:
        raise DataError(f"--to: {options.to} given, and the first bar to decide on is of {format_time(begins)}")
    return found


def date_seconds(flag: str, date: str) -> int:
    """UTC seconds of a date, at its midnight UTC where it says no more; `ConfigError` for none."""
    try:
        at = datetime.fromisoformat(date)
    except ValueError as error:
        raise ConfigError(f"{flag}: {date!r} is no date; give one such as 2024-03-01") from error
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())


def _test(bars: Bars, asked: Asked, needed: int) -> int:
    """As `build_evaluation` has it: cut-off dates over the bars that are left once features are warm."""
    reach = receptive_field(asked.config.agent)
    warm = needed - reach  # bars before the first row of the features
    time = bars.time[warm:]
    if len(time) == 0:
        return len(bars.time)
    cutoffs = asked.cutoffs or cutoff_times([time], asked.config.data)
    return warm + split_ranges(time, cutoffs, reach, purge_gap(asked.config, reach))["test"].first


def trading_terms(bars: Sequence[Bars], config: Config) -> tuple[dict[str, Terms], dict[str, float]]:
    """At what costs and on which sides each symbol is traded, scalars as the Tape has them; and its bars a year."""
    costs, env = market_costs(bars, config.env), config.env
    terms, per_year = {}, {}
    for b in bars:
        own, years = costs.by_symbol[b.symbol], bars_per_year(b.time, b.interval, b.asset_class, b.timezone)
        paid = (own.fee, own.half_spread + env.slippage, own.borrow / years)
        terms[b.symbol] = Terms(Costs(*map(np.float32, paid)), np.bool_(may_short(b.asset_class, env)))  # type: ignore[arg-type]
        per_year[b.symbol] = years
    return terms, per_year


def session_line(
    options: PaperOptions, asked: Asked, bars: Sequence[Bars], terms: Mapping[str, Terms], capital: float, feed: str
) -> dict[str, Any]:
    """The first line of a journal: what has to be the same when the session goes on, and what a reader needs."""
    env = asked.config.env
    return {
        "kind": SESSION,
        "version": 1,
        "run": str(options.run_dir),
        "policy": asked.hash,
        "update": asked.policy.info.update,
        "actions": dataclasses.asdict(asked.policy.info.actions),
        "env": {k: getattr(env, k) for k in ENV_FIELDS},
        "broker": options.broker if options.exchange is None else f"{options.broker}:{options.exchange}",
        "feed": feed,
        "submit": options.submit,
        "capital": capital,
        "share": capital / len(terms),
        "interval": bars[0].interval,
        "symbols": {b.symbol: _symbol(b, terms[b.symbol]) for b in bars if b.symbol in terms},
    }


SAME = ("version", "policy", "env", "broker", "submit", "share", "interval")
"""What a session that goes on must have as it was."""


def _symbol(bars: Bars, terms: Terms) -> dict[str, Any]:
    costs = {name: float(x) for name, x in terms.costs._asdict().items()}
    return {"asset_class": bars.asset_class, "allow_short": bool(terms.allow_short), **costs}


def require_same(line: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """`RunDirectoryError` where a journal's session is another than the one that is asked for."""
    for name in (*SAME, "symbols"):
        before, after = line.get(name), now[name]
        if name == "symbols":
            before, after = sorted(before or ()), sorted(after)
        if before != after:
            raise RunDirectoryError(
                f"{where}: its session has another {name} ({_brief(before)}, now {_brief(after)}); go on as it was, or"
                " choose another --out"
            )


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
