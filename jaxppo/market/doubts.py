"""What is doubtful about bars that can be read: gaps, stale prices, bad ticks, splits, wrong time zones.

Nothing here changes or refuses bars. Each inspection is a function from `Bars` to findings, listed in `INSPECTIONS`; a
finding says what, when, how often and what to do. Thresholds were set on 66 files of real bars (crypto, FX, US
equities; 1m to 1d), every one of whose findings was looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from jaxppo.market.alignment import lagging_symbols
from jaxppo.market.asset_classes import asset_class_of
from jaxppo.market.bars import CLOSES_MEAN, Bars
from jaxppo.market.calendar import DAY, HOUR, bars_per_year
from jaxppo.market.outliers import outlying_returns, outlying_wicks, runs_of_equal_bars, seam_jumps, split_like
from jaxppo.market.quality import format_bar, format_time
from jaxppo.market.sessions import Missing, missing_bars
from jaxppo.market.zones import ZONE_ADVICE, zone_problems

Level = Literal["note", "doubtful"]

CLOSES_ALONE = "closes alone"

MISSING_SHARE = (0.05, 0.005)
"""Of bars under an hour, and of longer ones: real minutes of EURUSD lack 2.8 %, those of SPY with its early and late
hours 11 %; real hours and days up to 0.3 %."""
LONG_GAP_DAYS = 2
"""A vendor's hole of a day or two (31 of 32 real daily files have one) is a note; longer ones are doubtful."""
HOLIDAY_DAYS = 5
"""An exchange may close for a week, as at the lunar New Year: where its calendar is not known, so long is a note."""
ZERO_VOLUME_SHARE = 0.01
STALE_RUN, LONG_STALE_RUN = 4, 10
"""Thin minutes of real SPY and EURUSD repeat a bar up to 4 times; early CSCO prices, rounded to a cent, up to 14."""
FEW_REPEATS = 2
SHORT_STEP = 0.85
"""Of a day of 24 hours one of 23 is 96 %, of a month of 31 days February 90 %, of a week one from Tuesday on 86 %."""
JUMP, LARGE_JUMP = 25.0, 75.0
"""Robust deviations of a return: 25 is news (1 in 40,000 real bars); the largest real one is 59 (XRP, 13 July 2023)."""
SPIKE, LARGE_SPIKE = 25.0, 60.0
"""Robust deviations of a move that is taken back at once: the largest real one was 54, in after-hours minutes."""
TICK, LARGE_TICK = 18.0, 45.0
"""Wick over the usual range of a bar: crashes reach 40 (GBP, 6 October 2016), real bad ticks 47 (SPY) to 511 (AAPL)."""
LARGE_MOVE = 0.25
"""Log size of a large move; real news of crypto moved 0.20. For a move of this size half of `JUMP` is enough to be
reported, and half of `SPIKE`, or a third of `TICK`, to be doubtful."""


@dataclass(frozen=True)
class Finding:
    """One kind of doubt about one symbol."""

    kind: str
    level: Level
    symbol: str
    count: int
    bar: int  # position of the worst among the symbol's bars, from 0
    time: int  # its start, UTC seconds
    text: str
    remedy: str


@dataclass(frozen=True)
class BarsReport:
    """One symbol's state."""

    symbol: str
    asset_class: str
    interval: int  # seconds
    source: str
    bars: int
    start: int  # UTC seconds
    end: int
    gaps: int
    missing: int
    expected: int
    zero_volume: float  # share of the bars
    stale: int  # bars that repeat the one before in runs of STALE_RUN or more
    outliers: int  # returns, spikes and wicks
    findings: tuple[Finding, ...] = field(default=())

    @property
    def verdict(self) -> str:
        return "doubtful" if any(f.level == "doubtful" for f in self.findings) else "ok"


Inspection = Callable[[Bars], list[Finding]]


def _finding(
    kind: str, doubtful: bool, bars: Bars, count: int, bar: int | np.integer, text: str, remedy: str
) -> Finding:
    level: Level = "doubtful" if doubtful else "note"
    bar = int(bar)
    return Finding(kind, level, bars.symbol, count, bar, int(bars.time[bar]), text, remedy)


def _n(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def find_gaps(bars: Bars) -> list[Finding]:
    """Bars that the calendar of the asset class expects and that are not there."""
    missing = _missing(bars)
    if not len(missing.bars):
        return []
    total, longest = int(missing.bars.sum()), int(np.argmax(missing.bars))
    per_day = (
        bars_per_year(bars.time, bars.interval, bars.asset_class, bars.timezone)
        / asset_class_of(bars.asset_class).trading_days
    )
    length = int(missing.bars[longest])
    share = MISSING_SHARE[bars.interval >= HOUR and not bars.closes_alone]  # of which holidays are a part
    days = HOLIDAY_DAYS if bars.closes_alone else LONG_GAP_DAYS
    doubtful = total > share * missing.expected or length > days * max(per_day, 1)
    after = missing.after[longest]
    text = (
        f"{total:,} of {missing.expected:,} expected bars are missing in {_n(len(missing.bars), 'gap')}; the longest,"
        f" of {_n(length, 'bar')}, follows {format_bar(bars.time, after)}"
    )
    remedy = "download that time again; if the market was closed then, nothing is wrong: a bar's return spans the gap"
    return [_finding("gaps", doubtful, bars, len(missing.bars), after, text, remedy)]


def _missing(bars: Bars) -> Missing:
    """Closes alone come from any exchange: futures, indices and bonds have holidays that are not known here."""
    unknown = bars.closes_alone
    return missing_bars(bars.time, bars.interval, bars.asset_class, bars.timezone, own_holidays=unknown)


def find_closes_alone(bars: Bars) -> list[Finding]:
    """Bars without range and volume, of which nothing but the closes is known: what follows from it."""
    if not bars.closes_alone:
        return []
    text = "closes alone: open, high and low are the close, and there is no volume"
    remedy = f"nothing, if there is no more: {CLOSES_MEAN}; features of range and volume are constant"
    return [_finding(CLOSES_ALONE, False, bars, len(bars.time), 0, text, remedy)]


def find_close_bars(bars: Bars) -> list[Finding]:
    """Bars that follow the one before in less than the interval, but for a short first bar of a session.

    Bars of a day or more count from `SHORT_STEP` of it on: days may have 23 hours, and months 28 days.
    """
    step = np.diff(bars.time)
    opens = np.concatenate(([True], step > bars.interval))
    least = bars.interval * (SHORT_STEP if bars.interval >= DAY else 1)
    close = np.flatnonzero((step < least) & ~opens[:-1])
    if not len(close):
        return []
    text = f"{_n(len(close), 'bar')} begin before the one before is over, first {format_bar(bars.time, close[0] + 1)}"
    remedy = "leave out bars that are still forming, and do not mix intervals in a file"
    return [_finding("spacing", len(close) > 0.001 * len(bars.time), bars, len(close), close[0] + 1, text, remedy)]


def find_zero_volume(bars: Bars) -> list[Finding]:
    """Bars without volume. FX quotes often have none at all, which is a note; that of closes is told as such."""
    zero = bars.volume == 0
    count = int(zero.sum())
    if not count or bars.closes_alone:
        return []
    if count == len(zero):
        text, remedy = "no bar has any volume", "the volume features are constant; leave them out, or bring volume"
        return [_finding("zero volume", asset_class_of(bars.asset_class).has_volume, bars, count, 0, text, remedy)]
    first = int(np.argmax(zero))
    text = f"{_n(count, 'bar')} ({count / len(zero):.2%}) without volume, first {format_bar(bars.time, first)}"
    remedy = "where nothing was traded the price is a filler: leave such bars out, or trade a more liquid symbol"
    return [_finding("zero volume", count > ZERO_VOLUME_SHARE * len(zero), bars, count, first, text, remedy)]


def find_stale(bars: Bars) -> list[Finding]:
    """Runs of bars with the same open, high, low and close, and records that are repeated to the last digit.

    A few closes that stand alone are often the same, so of these only long runs are told.
    """
    first, length, repeated = runs_of_equal_bars(bars)
    found = []
    least = LONG_STALE_RUN if bars.closes_alone else STALE_RUN
    long = length >= least
    if long.any():
        worst = int(np.argmax(length))
        count = int((length[long] - 1).sum())
        text = (
            f"{_n(count, 'bar')} with the prices of the one before, in {_n(int(long.sum()), 'run')} of {least} or"
            f" more; the longest, of {length[worst]} bars, begins {format_bar(bars.time, first[worst])}"
        )
        remedy = "a feed that stood still or was filled forward: leave these bars out or load them again"
        found.append(_finding("stale", length[worst] >= LONG_STALE_RUN, bars, count, first[worst], text, remedy))
    if len(repeated):
        text = (
            f"{_n(len(repeated), 'bar')} equal to the one before to the last digit, volume included, first"
            f" {format_bar(bars.time, repeated[0])}"
        )
        remedy = "a record written twice under two times: load the file again"
        found.append(_finding("repeated", len(repeated) > FEW_REPEATS, bars, len(repeated), repeated[0], text, remedy))
    return found


def find_outliers(bars: Bars) -> list[Finding]:
    """Moves far beyond the usual ones around them: lasting (news, or a splice) and taken back at once (bad ticks)."""
    found = []
    returns = outlying_returns(bars)
    wide = (returns.score >= JUMP / 2) & (np.abs(returns.value) >= LARGE_MOVE)
    jumps = np.flatnonzero(((returns.score >= JUMP) | wide) & ~returns.back)
    if len(jumps):
        worst = jumps[np.argmax(returns.score[jumps])]
        text = (
            f"{_n(len(jumps), 'return')} far beyond the usual; the largest,"
            f" {np.expm1(returns.value[worst]):+.1%} ({returns.score[worst]:.0f} robust deviations), on"
            f" {format_bar(bars.time, worst)}"
        )
        remedy = "compare it with the news of that day; if it is not there, two sources were joined or a price is wrong"
        found.append(_finding("jumps", returns.score[worst] >= LARGE_JUMP, bars, len(jumps), worst, text, remedy))
    wicks = outlying_wicks(bars)
    spike = np.where(returns.back, returns.score, 0.0)
    large = (spike >= LARGE_SPIKE) | ((spike >= SPIKE / 2) & (np.abs(returns.value) >= LARGE_MOVE))
    large |= (wicks.score >= LARGE_TICK) | ((wicks.score >= TICK / 3) & (np.abs(wicks.value) >= LARGE_MOVE))
    ticks = np.flatnonzero(large | (spike >= SPIKE) | (wicks.score >= TICK))
    if len(ticks):
        size = np.maximum(np.where(spike >= SPIKE / 2, spike / SPIKE, 0), wicks.score / TICK)
        worst = ticks[np.argmax(size[ticks])]
        by_wick = wicks.score[worst] / TICK >= spike[worst] / SPIKE
        what = "wick" if by_wick else "move taken back at once"
        value = wicks.value[worst] if by_wick else returns.value[worst]
        text = (
            f"{_n(len(ticks), 'bar')} may hold a bad tick; the worst, a {what} of {np.expm1(value):+.1%}, on"
            f" {format_bar(bars.time, worst)}"
        )
        remedy = "compare it with another source and correct it: a stop-loss would have been filled there"
        found.append(_finding("bad ticks", bool(large.any()), bars, len(ticks), worst, text, remedy))
    return found


def find_seams(bars: Bars) -> list[Finding]:
    """Jumps of the price from one joined file to the next: two instruments, or adjusted prices beside raw ones."""
    if not bars.seams:
        return []
    value, score = seam_jumps(bars)
    jumps = np.flatnonzero((score >= JUMP) | ((score >= JUMP / 2) & (np.abs(value) >= LARGE_MOVE)))
    if not len(jumps):
        return []
    worst = jumps[np.argmax(score[jumps])]
    bar = bars.seams[worst]
    text = (
        f"{_n(len(jumps), 'jump')} where {_n(len(bars.seams) + 1, 'file')} were joined; the largest,"
        f" {np.expm1(value[worst]):+.1%} ({score[worst]:.0f} robust deviations), on {format_bar(bars.time, bar)}"
    )
    remedy = "see whether the files are of one instrument and one kind of prices; --symbol-from tells instruments apart"
    return [_finding("seams", True, bars, len(jumps), bar, text, remedy)]


def find_splits(bars: Bars) -> list[Finding]:
    """Overnight changes of level by a ratio that shares are split at."""
    at, ratio, name = split_like(bars)
    if not len(at):
        return []
    worst = int(np.argmax(np.abs(np.log(ratio))))
    text = (
        f"{_n(len(at), 'overnight change')} of the price level by a split's ratio and for good; the largest, x"
        f" {ratio[worst]:.4g} (near {name[worst]}), on {format_bar(bars.time, at[worst])}"
    )
    remedy = "download split-adjusted prices, or multiply all prices before that bar by the ratio"
    return [_finding("splits", True, bars, len(at), at[worst], text, remedy)]


def find_zone_problems(bars: Bars) -> list[Finding]:
    """Bars at hours when the market is closed, and sessions that move with the season or for good."""
    return [_finding("time zone", True, bars, p.affected, p.bar, p.text, p.remedy) for p in zone_problems(bars)]


INSPECTIONS: tuple[Inspection, ...] = (
    find_closes_alone,
    find_gaps,
    find_close_bars,
    find_zone_problems,
    find_zero_volume,
    find_stale,
    find_splits,
    find_seams,
    find_outliers,
)


def inspect_all(bars: Sequence[Bars]) -> list[BarsReport]:
    """A report on each symbol, with what shows only beside the others: a clock that is hours off."""
    beside: dict[int, list[Finding]] = {}
    for lag in lagging_symbols(bars):
        b, hours = bars[lag.symbol], abs(lag.hours)
        text = (
            f"prices move {_n(hours, 'hour')} {'after' if lag.hours > 0 else 'before'} those of the {lag.others} other"
            f" {b.asset_class} symbols: correlation {lag.correlation:.2f} at that distance, {lag.at_once:.2f} at none"
        )
        beside[lag.symbol] = [_finding("time zone", True, b, len(b.time), 0, text, ZONE_ADVICE)]
    return [inspect_bars(b, beside.get(i, ())) for i, b in enumerate(bars)]


def inspect_bars(bars: Bars, beside: Sequence[Finding] = ()) -> BarsReport:
    """All findings about one symbol, those `beside` others included, the grave ones first."""
    findings = [*beside, *(finding for inspect in INSPECTIONS for finding in inspect(bars))]
    findings.sort(key=lambda f: f.level != "doubtful")
    missing = _missing(bars)
    count = {f.kind: f.count for f in findings}
    return BarsReport(
        symbol=bars.symbol,
        asset_class=bars.asset_class,
        interval=bars.interval,
        source=bars.source,
        bars=len(bars.time),
        start=int(bars.time[0]),
        end=int(bars.time[-1]),
        gaps=len(missing.bars),
        missing=int(missing.bars.sum()),
        expected=missing.expected,
        zero_volume=int((bars.volume == 0).sum()) / len(bars.time),
        stale=count.get("stale", 0),
        outliers=count.get("jumps", 0) + count.get("bad ticks", 0),
        findings=tuple(findings),
    )


def in_brief(reports: Iterable[BarsReport], data: str | None) -> list[str]:
    """What a run says of its bars before it trains: a line a kind of doubt, one for all notes, and how to see more.

    `data` is what follows `python -m jaxppo.data check`; None where the bars are of no file.
    """
    # That bars are closes alone is a fact about them, told beside their class, and nothing to be warned of.
    findings = [f for report in reports for f in report.findings if f.kind != CLOSES_ALONE]
    grave = [f for f in findings if f.level == "doubtful"]
    lines = []
    for kind in dict.fromkeys(f.kind for f in grave):
        lines.append(f"{kind} in {_some([f for f in grave if f.kind == kind])}")
    notes = [f for f in findings if f.level == "note"]
    if notes:
        kinds = ", ".join(dict.fromkeys(f.kind for f in notes))
        lines.append(
            f"{_n(len(notes), 'minor finding')} in the bars of {_n(len({f.symbol for f in notes}), 'symbol')} ({kinds})"
        )
    if lines and data is not None:
        lines[-1] += f"; all of them, with remedies: python -m jaxppo.data check {data}"
    return lines


def _some(findings: Sequence[Finding], n: int = 3) -> str:
    shown = ", ".join(f"{f.symbol} ({f.count:,}, see {format_time(f.time)})" for f in findings[:n])
    return shown + (f" and {len(findings) - n} more" if len(findings) > n else "")
