"""One session of paper trading from a run directory: the policy, a feed and a broker, until the feed ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from jaxppo.device import enable_compilation_cache
from jaxppo.errors import RunDirectoryError
from jaxppo.market.bars import describe_symbols
from jaxppo.market.calendar import parse_interval
from jaxppo.market.quality import format_time
from jaxppo.page.terminal import plain_console
from jaxppo.paper.alpaca import AlpacaBars, AlpacaBroker, connect
from jaxppo.paper.broker import Broker
from jaxppo.paper.ccxt import CcxtBars, CcxtBroker, open_exchange
from jaxppo.paper.feed import Clock, Feed, PolledFeed, ReplayFeed
from jaxppo.paper.loop import Conduct, Loop
from jaxppo.paper.mind import Mind
from jaxppo.paper.options import PaperOptions
from jaxppo.paper.record import standing
from jaxppo.paper.setup import (
    Asked,
    ask_run,
    date_seconds,
    first_rows,
    replayed_bars,
    require_same,
    session_line,
    trading_terms,
)
from jaxppo.paper.simulated import BarStep, SimulatedBroker
from jaxppo.paper.vendor import Fetch, begin, go_on
from jaxppo.store.journal import JOURNAL, Journal
from jaxppo.store.locks import Lock

SIMULATED_CAPITAL = 100_000.0
BROKER_LOG, LOCK, KILL = "broker.jsonl", "lock", "KILL"
KILLED = 1  # exit status of a session that the kill switch ended


def paper_run(options: PaperOptions, clock: Clock = Clock()) -> int:
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
        begin_ = _replay if options.broker == "simulated" else _live
        return begin_(options, asked, folder, clock)
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


def _replay(options: PaperOptions, asked: Asked, folder: Path, clock: Clock) -> int:
    """Bars of the past, and the account of the environment as the broker."""
    everything, source = replayed_bars(options, asked)
    first = first_rows(everything, options, asked)
    bars = [b for b in everything if b.symbol in first]
    terms, per_year = trading_terms(bars, asked.config)
    capital = options.capital or SIMULATED_CAPITAL
    line = session_line(options, asked, bars, terms, capital, source)
    end = None if options.to is None else date_seconds("--to", options.to)
    console = plain_console()
    for said in describe_symbols(bars, options.data):
        console.print(said, highlight=False)
    journal = begun(Journal(folder / JOURNAL), line, folder)
    mind = Mind(asked.policy, terms, per_year)
    log = Journal(folder / BROKER_LOG)
    broker = SimulatedBroker(BarStep(mind.spec), terms, line["share"], log)
    before = standing(journal.read(), capital, line["interval"])
    for symbol, decided in before.last.items():
        if broker.shown(symbol) < decided["time"]:
            raise RunDirectoryError(
                f"{folder / BROKER_LOG}: ends before {format_time(decided['time'])}, when the journal has a decision"
                f" of {symbol}, so what was traded is not known; bring the file back, or choose another --out"
            )
    since = before.time
    feed = ReplayFeed(bars, first, options.speed, since, end, broker.trade, clock)
    starts = min(int(b.time[first[b.symbol]]) for b in bars)
    begins = f"goes on from {format_time(since)}" if since is not None else f"from {format_time(starts)}"
    console.print(f"{source}: {len(bars)} symbols, {begins}; {_conduct(options)}", highlight=False)
    return _trade(options, asked, _Parts(mind, feed, broker, journal, line, folder, clock))


class _Parts(NamedTuple):
    """What a loop is put together from."""

    mind: Mind
    feed: Feed
    broker: Broker
    journal: Journal
    line: dict[str, Any]  # the journal's first
    folder: Path
    clock: Clock


def begun(journal: Journal, line: dict[str, Any], folder: Path) -> Journal:
    """The journal of a session that begins, or goes on as it was."""
    if (head := next(journal.read(), None)) is not None:
        require_same(head, line, str(folder))
    else:
        journal.append(line, sync=True)
    return journal


def _conduct(options: PaperOptions) -> str:
    return f"orders go to {options.broker}" if options.submit else "dry run: nothing is sent (--submit sends)"


def _trade(options: PaperOptions, asked: Asked, parts: _Parts) -> int:
    console, line = plain_console(), parts.line
    kill = options.kill_switch or parts.folder / KILL
    conduct = Conduct(asked.hash, parts.mind.spec, line["share"], options, options.submit, options.on_difference, kill)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    symbols, interval = tuple(line["symbols"]), line["interval"]
    loop = Loop(parts.mind, parts.feed, parts.broker, parts.journal, conduct, symbols, interval, say, parts.clock)
    if isinstance(parts.feed, PolledFeed):
        parts.feed.idle = loop.stop_if_killed
    ended = loop.run()
    equity, capital = loop.standing.equity, line["capital"]
    say(f"equity {equity:,.2f} of {capital:,.2f} ({equity / capital - 1:+.2%}); journal: {parts.folder / JOURNAL}")
    return 0 if ended else KILLED


def _live(options: PaperOptions, asked: Asked, folder: Path, clock: Clock) -> int:
    """Bars as they close, and a broker's account."""
    console, interval = plain_console(), parse_interval(asked.interval)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    given = replayed_bars(options, asked)[0] if options.data is not None else None
    classes = {b.symbol: b.asset_class for b in given} if given else asked.classes(options)
    if options.broker == "alpaca":
        trading, data = connect()
        broker: Broker = AlpacaBroker(trading, data)
        coins = {symbol: name == "crypto" for symbol, name in classes.items()}
        fetch: Fetch = AlpacaBars(data, interval, coins, clock.now)
    else:
        assert options.exchange is not None
        exchange = open_exchange(options.exchange)
        traded = CcxtBroker(exchange)
        broker, fetch = traded, CcxtBars(exchange, interval, traded.market, clock.now)
    broker.check(tuple(classes))
    if given is not None:
        bars = go_on(given, fetch)
    else:
        needed = asked.policy.decider.min_bars
        bars = begin(classes, interval, needed, fetch, clock.now(), broker.name)
    terms, per_year = trading_terms(bars, asked.config)
    journal = Journal(folder / JOURNAL)
    head = next(journal.read(), None)  # equity changes, the capital of a session does not
    capital = options.capital or (broker.equity() if head is None else head["capital"])
    line = session_line(options, asked, bars, terms, capital, broker.name)
    begun(journal, line, folder)
    mind = Mind(asked.policy, terms, per_year)
    feed = PolledFeed({b.symbol: b for b in bars}, fetch, say, clock=clock)
    say(f"{broker.name}: {len(bars)} symbols; {_conduct(options)}")
    return _trade(options, asked, _Parts(mind, feed, broker, journal, line, folder, clock))
