"""One decision from a run directory, new bars and an account: everything that speaks against it, or what to do."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxppo.config.schema import BarsFilter
from jaxppo.device import enable_compilation_cache
from jaxppo.errors import ConfigError, DataError, nearest
from jaxppo.live.account import Account
from jaxppo.live.decision import Decision
from jaxppo.live.fresh import require_fresh
from jaxppo.market.bars import Bars
from jaxppo.market.calendar import format_interval
from jaxppo.market.source import load_other_bars
from jaxppo.store.checkpoint import RestoredPolicy, parse_which, restore_policy
from jaxppo.store.directory import earlier_manifest, iso, trained_interval
from jaxppo.store.json import read_json


@dataclass(frozen=True, kw_only=True)
class ActOptions(BarsFilter):
    """Which policy decides on which bars, for which account."""

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """Folder of the run whose policy decides."""
    bars: Path
    """File or folder of Parquet or CSV bars up to the newest."""
    account: Path | None = None
    """JSON file of the account, or of one for each symbol; by default one that holds nothing, with an equity of 1."""
    which: str = "best"
    """Checkpoint: best (by validation fitness), latest, final, or the number of an update."""
    price: float | None = None
    """Price at which the order of the one symbol is expected to fill; by default the newest close."""
    now: str | None = None
    """Time to decide at, such as 2025-01-31T15:00:05+00:00 (UTC where no offset is given); by default the clock's."""
    max_behind: int = 0
    """Bars that, by the market's calendar, may have closed since the newest one."""
    max_missing: int = 0
    """Bars that, by the market's calendar, may be missing among those that the decision needs."""
    allow_open_bar: bool = False
    """Decide on a newest bar that has not closed yet."""
    new_symbols: bool = False
    """Decide on symbols that the run was not trained on."""


def act_run(options: ActOptions) -> dict[str, Any]:
    """What the policy does, as plain values for one JSON line; see docs/how-to/decide.md for what each is.

    Raises:
      JaxppoError: why it does not decide.
    """
    _check_options(options)
    now = time.time() if options.now is None else _moment(options.now)
    policy = restore_policy(options.run_dir, parse_which(options.which))
    decider = policy.decider  # refuses features that are computed otherwise
    bars, _ = load_other_bars(str(options.bars), options, policy.info.config.data)
    if options.price is not None and len(bars) > 1:
        raise ConfigError(f"--price: of {len(bars)} symbols none is the one that it is of; choose one with --symbols")
    _check_bars(options, policy, bars)
    for b in bars:
        decider.require_bars(b)
        require_fresh(
            b,
            now,
            newest=decider.min_bars,
            max_behind=options.max_behind,
            max_missing=options.max_missing,
            allow_open_bar=options.allow_open_bar,
        )
    accounts = read_accounts(options.account, [b.symbol for b in bars])
    enable_compilation_cache()
    decisions = [policy.decide(b, accounts.get(b.symbol), price=options.price) for b in bars]
    return {
        "run": str(options.run_dir),
        "update": policy.info.update,
        "features": policy.info.feature_hash,
        "decided": iso(int(now)),
        "decisions": [_plain(d) for d in decisions],
    }


def _check_options(options: ActOptions) -> None:
    for name in ("max_behind", "max_missing"):
        if getattr(options, name) < 0:
            raise ConfigError(f"--{name.replace('_', '-')}: {getattr(options, name)} given; it must be 0 or more")
    if options.price is not None and not 0 < options.price < float("inf"):
        raise ConfigError(f"--price: {options.price} given; it must be above 0")


def _moment(text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"--now: {text!r} is no time such as 2025-01-31T15:00:05+00:00") from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _check_bars(options: ActOptions, policy: RestoredPolicy, bars: Sequence[Bars]) -> None:
    """Refuse another interval than the run's, and symbols that it does not know."""
    trained = earlier_manifest(options.run_dir).get("data")
    facts = trained if isinstance(trained, dict) else {}
    interval = trained_interval(options.run_dir, policy.info.config.data.interval)
    mine = format_interval(bars[0].interval)
    if interval is not None and interval != mine:
        raise DataError(f"{options.bars}: bars of {mine}, and the policy was trained on bars of {interval}; give such")
    rows = facts.get("symbols")
    known = {str(row["symbol"]) for row in rows if isinstance(row, dict)} if isinstance(rows, list) else set()
    for b in bars:
        if known and b.symbol not in known and not options.new_symbols:
            raise DataError(
                f"{options.bars}: the policy was not trained on {b.symbol!r} ({nearest(b.symbol, known)}); leave it out"
                " with --symbols, or say --new-symbols"
            )


def read_accounts(path: Path | None, symbols: Sequence[str]) -> dict[str, Account]:
    """The accounts of a JSON file, by symbol: one object of `Account`'s fields, or one of symbols to such objects.

    Raises:
      DataError: a file that cannot be read, an account that cannot be (naming the field), or one of another symbol.
    """
    if path is None:
        return {}
    try:
        raw = read_json(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; give a JSON file of the account") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    one = not isinstance(raw, dict) or not raw or any(f.name in raw for f in fields(Account))
    if one and len(symbols) > 1:
        raise DataError(
            f"{path}: one account for {len(symbols)} symbols; give an object of symbols to accounts, such as"
            f' {{"{symbols[0]}": {{"equity": 10000}}, ...}}'
        )
    if one:
        return {symbols[0]: Account.from_facts(raw, str(path))}
    for symbol in raw:
        if symbol not in symbols:
            raise DataError(f"{path}: an account of {symbol!r}, of which there are no bars; {nearest(symbol, symbols)}")
    for symbol in symbols:
        if symbol not in raw:
            raise DataError(f"{path}: no account of {symbol!r}; give one for every symbol")
    return {symbol: Account.from_facts(facts, f"{path}, {symbol}") for symbol, facts in raw.items()}


def _plain(decision: Decision) -> dict[str, Any]:
    """A decision as JSON has it: its time as text."""
    return {**decision._asdict(), "time": iso(decision.time), "probabilities": dict(decision.probabilities)}
