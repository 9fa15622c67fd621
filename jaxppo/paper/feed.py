"""Where bars come from: history replayed at any speed, or a vendor asked again and again."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from jaxppo.errors import DataError
from jaxppo.live.fresh import bars_behind
from jaxppo.market.bars import Bars, slice_bars
from jaxppo.market.calendar import format_interval
from jaxppo.market.quality import FIELDS, format_time
from jaxppo.paper.broker import Unreachable

Say = Callable[[str], None]


class Closed(NamedTuple):
    """The bars that began at one time, at their close."""

    time: int  # start of the bars, UTC seconds
    bars: Mapping[str, Bars]  # history of each symbol that has a bar then, up to that bar
    late: bool = False  # later bars are there already: to be told, but too late to trade on


class Clock(NamedTuple):
    """What time it is, and how to wait."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


class Feed(Protocol):
    """Bars as they close."""

    def bars(self) -> Iterator[Closed]:
        """Times in order, each once; it ends where the feed does."""


@dataclasses.dataclass(frozen=True)
class ReplayFeed:
    """Bars of the past, from the `first` of each symbol on; `watch` sees each bar before it is decided on."""

    history: Sequence[Bars]
    first: Mapping[str, int]  # row of the first bar of each symbol that is decided on; symbols without are left out
    speed: float = 0.0  # times as fast as it was; 0: as fast as it goes
    since: int | None = None  # start of the bars to begin again with, after a stop
    end: int | None = None  # time before which bars begin
    watch: Callable[[Bars], None] = lambda bars: None
    clock: Clock = Clock()

    def bars(self) -> Iterator[Closed]:
        """Every time at which some symbol has a bar."""
        of = {b.symbol: b for b in self.history if b.symbol in self.first}
        rows = {s: {int(t): i for i, t in enumerate(b.time)} for s, b in of.items()}
        times = np.unique(np.concatenate([b.time[self.first[s] :] for s, b in of.items()]))
        times = times if self.since is None else times[times >= self.since]
        last = None
        for start in map(int, times if self.end is None else times[times < self.end]):
            if self.speed > 0 and last is not None:
                self.clock.sleep((start - last) / self.speed)
            last = start
            there = {s: rows[s][start] for s in of if rows[s].get(start, -1) >= self.first[s]}
            now = {s: slice_bars(of[s], slice(row + 1)) for s, row in there.items()}
            for bars in now.values():
                self.watch(bars)
            yield Closed(start, now)


IDLE = 5.0
"""Seconds that a kill switch may go unseen while nothing closes."""
Row = tuple[int, float, float, float, float, float]
"""A bar as vendors send it: start in UTC seconds, open, high, low, close, volume."""


def checked(bars: Bars, rows: Sequence[Row]) -> list[Row]:
    """The rows after the newest of `bars`, oldest first; `DataError` for prices that cannot be."""
    last, good = int(bars.time[-1]) if len(bars.time) else -1, []
    for row in sorted(rows):
        start, open_, high, low, close, _ = row
        if start <= last:
            continue
        if not (np.isfinite(row).all() and 0 < low <= min(open_, close) <= max(open_, close) <= high):
            raise DataError(
                f"{bars.symbol}: the bar of {format_time(start)} has open {open_:g}, high {high:g}, low {low:g}, close"
                f" {close:g}, which no market can have; nothing was sent on it"
            )
        good.append(row)
        last = start
    return good


def appended(bars: Bars, rows: Sequence[Row]) -> Bars:
    """`bars` with later ones, checked."""
    columns = list(zip(*checked(bars, rows), strict=True))
    if not columns:
        return bars
    more = zip(("time", *FIELDS), columns, strict=True)
    grown: Any = {k: np.concatenate([getattr(bars, k), np.asarray(x, getattr(bars, k).dtype)]) for k, x in more}
    if bars.dividend is not None:  # a broker pays it into its account, and its bars do not tell it
        grown["dividend"] = np.concatenate([bars.dividend, np.zeros(len(columns[0]))])
    return dataclasses.replace(bars, **grown)


@dataclasses.dataclass
class PolledFeed:
    """A vendor's bars: asked for once an interval has ended, and again until they are there."""

    history: dict[str, Bars]  # of each symbol, up to now
    fetch: Callable[[str, int], Sequence[Row]]  # closed bars of a symbol that began at or after a time
    say: Say
    delay: float = 5.0  # seconds after an interval's end at which its bar is first asked for
    again: float = 15.0  # seconds until it is asked for again, twice as long each time, up to a tenth of the interval
    clock: Clock = Clock()
    idle: Callable[[], None] = lambda: None  # called every `IDLE` seconds of waiting; what it raises ends the feed

    def bars(self) -> Iterator[Closed]:
        """Bars that closed since the last one, oldest first; all but the newest are late. Ends never."""
        interval = next(iter(self.history.values())).interval
        yield from self._newest()
        wait, silent = self.again, False
        while True:
            now = self.clock.now() - self.delay
            overdue = max(int(b.time[-1]) for b in self.history.values()) + 2 * interval <= now
            self._wait(wait if overdue else interval - now % interval)
            wait = min(2 * wait, max(self.again, interval / 10)) if overdue else self.again
            try:
                found = {s: checked(b, self.fetch(s, int(b.time[-1]) + 1)) for s, b in self.history.items()}
            except Unreachable as error:
                if not silent:
                    self.say(f"{error}; the bars are asked for until they come")
                silent = True
                continue
            silent = False
            times = sorted({row[0] for rows in found.values() for row in rows})
            for start in times:
                yield self._closed(start, found, start != times[-1])

    def _wait(self, seconds: float) -> None:
        while seconds > 0:
            self.clock.sleep(min(seconds, IDLE))
            seconds -= IDLE
            self.idle()

    def _newest(self) -> Iterator[Closed]:
        """The newest bars of the history."""
        newest = max(int(b.time[-1]) for b in self.history.values())
        there = {s: b for s, b in self.history.items() if int(b.time[-1]) == newest}
        yield Closed(newest, there, self._late(there))

    def _late(self, there: Mapping[str, Bars]) -> bool:
        """Whether by their calendar another bar has closed since, so that the next open is gone."""
        return all(bars_behind(b, self.clock.now()) > 0 for b in there.values())

    def _closed(self, start: int, found: Mapping[str, Sequence[Row]], late: bool) -> Closed:
        there = {}
        for symbol, rows in found.items():
            row = next((r for r in rows if r[0] == start), None)
            if row is None:
                continue
            bars = self.history[symbol]
            gap = (start - int(bars.time[-1])) // bars.interval - 1
            if gap > 0 and bars.asset_class == "crypto":
                width = format_interval(bars.interval)
                self.say(f"{symbol}: {gap} bars of {width} are missing before {format_time(start)}")
            self.history[symbol] = appended(bars, [row])
            there[symbol] = self.history[symbol]
        return Closed(start, there, late or self._late(there))
