"""One session of paper trading from a run directory: the policy, a feed and a broker, until the feed ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxppo.device import enable_compilation_cache
from jaxppo.errors import ConfigError, RunDirectoryError
from jaxppo.market.bars import describe_symbols
from jaxppo.market.quality import format_time
from jaxppo.page.terminal import plain_console
from jaxppo.paper.broker import Broker
from jaxppo.paper.feed import Feed, ReplayFeed
from jaxppo.paper.loop import Conduct, Loop
from jaxppo.paper.mind import Mind
from jaxppo.paper.options import PaperOptions
from jaxppo.paper.setup import (
    Asked,
    ask_run,
    first_rows,
    replayed_bars,
    require_same,
    session_line,
    trading_terms,
)
from jaxppo.paper.simulated import BarStep, SimulatedBroker
from jaxppo.store.journal import JOURNAL, Journal
from jaxppo.store.locks import Lock

SIMULATED_CAPITAL = 100_000.0
BROKER_LOG, LOCK, KILL = "broker.jsonl", "lock", "KILL"
KILLED = 1  # exit status of a session that the kill switch ended


def paper_run(options: PaperOptions) -> int:
    """Trade until the feed ends; returns the exit status.

    Raises:
      JaxppoError: options, a run, bars or a broker that cannot be used; nothing is sent then.
    """
    options.check()
    enable_compilation_cache()
    asked = ask_run(options)
    folder = options.folder()
    lock = _claim(folder)
    try:
        return _replay(options, asked, folder) if options.broker == "simulated" else _live(options, asked, folder)
    finally:
        lock.release()


def _claim(folder: Path) -> Lock:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"{folder}: cannot be created ({error.strerror}); choose another --out") from error
    lock = Lock(folder / LOCK)
    if not lock.take(wait=False):
        raise RunDirectoryError(f"{folder}: another process trades in it; end that one, or choose another --out")
    return lock


def _replay(options: PaperOptions, asked: Asked, folder: Path) -> int:
    """Bars of the past, and the account of the environment as the broker."""
    everything, source = replayed_bars(options, asked)
    first = first_rows(everything, options, asked)
    bars = [b for b in everything if b.symbol in first]
    terms, per_year = trading_terms(bars, asked.config)
    capital = options.capital or SIMULATED_CAPITAL
    line = session_line(options, asked, bars, terms, capital, source)
    console = plain_console()
    for said in describe_symbols(bars, options.data):
        console.print(said, highlight=False)
    journal = _journal(folder, line)
    mind = Mind(asked.policy, terms, per_year)
    log = Journal(folder / BROKER_LOG)
    broker = SimulatedBroker(BarStep(mind.spec), terms, line["share"], log)
    since = max((x["time"] for x in journal.lines if "time" in x), default=None)
    feed = ReplayFeed(bars, first, options.speed, since, broker.trade)
    starts = min(int(b.time[first[b.symbol]]) for b in bars)
    begins = f"goes on from {format_time(since)}" if since is not None else f"from {format_time(starts)}"
    console.print(f"{source}: {len(bars)} symbols, {begins}; {_conduct(options)}", highlight=False)
    return _trade(options, asked, _Parts(mind, feed, broker, journal, line, folder))


class _Parts:
    """What a loop is put together from."""

    def __init__(self, mind: Mind, feed: Feed, broker: Broker, journal: Journal, line: dict[str, Any], folder: Path):
        self.mind, self.feed, self.broker, self.journal, self.line = mind, feed, broker, journal, line
        self.folder = folder


def _journal(folder: Path, line: dict[str, Any]) -> Journal:
    """The journal of a session that begins, or goes on as it was."""
    journal = Journal(folder / JOURNAL)
    if journal.lines:
        require_same(journal.lines[0], line, str(folder))
    else:
        journal.append(line, sync=True)
        journal.lines.append(line)
    return journal


def _conduct(options: PaperOptions) -> str:
    return f"orders go to {options.broker}" if options.submit else "dry run: nothing is sent (--submit sends)"


def _trade(options: PaperOptions, asked: Asked, parts: _Parts) -> int:
    console, line = plain_console(), parts.line
    kill = options.kill_switch or parts.folder / KILL
    conduct = Conduct(asked.hash, parts.mind.spec, line["share"], options, options.submit, options.on_difference, kill)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    symbols = tuple(line["symbols"])
    loop = Loop(parts.mind, parts.feed, parts.broker, parts.journal, conduct, symbols, line["interval"], say)
    ended = loop.run()
    equity, capital = loop.standing.equity, line["capital"]
    say(f"equity {equity:,.2f} of {capital:,.2f} ({equity / capital - 1:+.2%}); journal: {parts.folder / JOURNAL}")
    return 0 if ended else KILLED


def _live(options: PaperOptions, asked: Asked, folder: Path) -> int:
    raise ConfigError(f"--broker: {options.broker} cannot be traded with yet; simulated can")
