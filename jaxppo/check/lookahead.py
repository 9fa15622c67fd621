"""Does anything know the future? All bars after a cut are changed, and what was known at the cut must not change.

So is all that becomes known elsewhere (`--extra-features`) after the close of the bar at the cut. Timestamps stay: when
the exchange is open is known in advance, and the cut-off dates of the splits depend on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxppo.check.verdict import Check, Compute, Later, Player, as_table, differing_bits, differing_fields
from jaxppo.env.account import StepRecord
from jaxppo.errors import DataError
from jaxppo.market.bars import Bars, slice_bars
from jaxppo.market.dataset import Split, build_evaluation, build_market
from jaxppo.market.features import FeatureTable
from jaxppo.market.quality import format_time
from jaxppo.market.tape import REWARD_HORIZON, Tape
from jaxppo.play.deciders import acting_policy
from jaxppo.play.passes import lane, n_decisions, play

RISE, FALL, HOLE, END = "all later bars rise", "all later bars fall", "a bar without trades", "the later bars are gone"
JUMP = 0.1  # Log distance of the changed prices from the last known close; the sign is what a feature may know.
EARLY = (1, 10, 60)  # Cuts in the warm-up, where a backfill would show.


@dataclass(frozen=True)
class Leak:
    """Something known at `bar` that changed with the bars after `cut`."""

    what: str  # a feature's name, or a stage of the pipeline
    symbol: str
    bar: int  # row of the symbol's bars, from 0
    time: str  # of that bar's start
    cut: int
    change: str
    before: float
    after: float

    def __str__(self) -> str:
        return (
            f"{self.what} of {self.symbol} at bar {self.bar} ({self.time}) was {self.before:.6g} and became"
            f" {self.after:.6g} when only bars after {self.cut} changed ({self.change})"
        )


def change_after(bars: Bars, cut: int, change: str, rng: np.random.Generator) -> Bars:
    """`bars` up to and with row `cut`, and other prices and volumes after it.

    `RISE` and `FALL` put every later close above or below the last known one and its own open. `END` leaves nothing
    after the cut. A cut of -1 changes all bars.
    """
    if change == END:
        return slice_bars(bars, slice(cut + 1))
    n = len(bars.time) - cut - 1
    sign = 1.0 if change == RISE else -1.0
    level = bars.close[max(cut, 0)]
    close = level * np.exp(sign * JUMP * (1.0 + rng.random(n)))
    opening = close * np.exp(-sign * JUMP * 0.5 * rng.random(n))
    later = {
        "open": opening,
        "close": close,
        "high": np.maximum(opening, close) * (1.0 + 0.05 * rng.random(n)),
        "low": np.minimum(opening, close) * (1.0 - 0.05 * rng.random(n)),
        "volume": 10.0 * (1.0 + np.median(bars.volume)) * rng.random(n) if change == RISE else np.zeros(n),
    }
    joined: Any = {k: np.concatenate([getattr(bars, k)[: cut + 1], v]) for k, v in later.items()}
    return replace(bars, **joined)


def empty_bar(bars: Bars, row: int) -> Bars:
    """`bars` without a trade in one bar: its prices are the last close and its volume 0, as many sources fill them."""
    fields: Any = {k: getattr(bars, k).copy() for k in ("open", "high", "low", "close", "volume")}
    for name, values in fields.items():
        values[row] = 0.0 if name == "volume" else bars.close[row - 1]
    return replace(bars, **fields)


def cut_rows(bars: Bars, n: int, rng: np.random.Generator) -> list[int]:
    """Rows to cut after: early ones, `n` spread over the history, the bar before its longest pause, and one hole."""
    last = len(bars.time) - 2
    edges = np.linspace(0, last, n + 1)
    rows = {int(rng.integers(int(a), max(int(b), int(a) + 1))) for a, b in pairwise(edges)}
    rows |= {*EARLY, last, int(np.argmax(np.diff(bars.time)))}
    silent = np.flatnonzero((bars.volume == 0) | (bars.high == bars.low))
    if len(silent):
        rows.add(int(rng.choice(silent)))
    return sorted(r for r in rows if 1 <= r <= last)


def _changed(
    compute: Compute, later: Later, bars: Bars, table: FeatureTable, cut: int, rng: np.random.Generator
) -> Iterator[tuple[str, FeatureTable, FeatureTable]]:
    """Each change at a cut, with the features before and after it."""
    other = later([bars], [cut], rng)
    for change in (RISE, FALL):
        yield change, table, as_table(other(change_after(bars, cut, change, rng)))
    if cut + 1 >= max(table.min_bars, 2):
        yield END, table, as_table(other(change_after(bars, cut, END, rng)))
    if cut > EARLY[-1]:
        hole = empty_bar(bars, cut)
        yield HOLE, as_table(compute(hole)), as_table(other(change_after(hole, cut, RISE, rng)))


def feature_leaks(
    compute: Compute, bars: Bars, cuts: Sequence[int], seed: int, later: Later | None = None
) -> tuple[list[Leak], int]:
    """Leaks of one symbol's features, the first of each feature; and the number of values compared."""
    later = later or (lambda bars, cuts, rng: compute)
    rng = np.random.default_rng(seed)
    table, again = as_table(compute(bars)), as_table(compute(bars))
    if len(table.values) != len(bars.time):
        raise DataError(f"{bars.symbol}: the features have {len(table.values)} rows for {len(bars.time)} bars")
    unstable = differing_bits(table.values, again.values)
    if unstable.any():
        rows, columns = np.nonzero(unstable)
        raise DataError(
            f"{bars.symbol}: feature {table.names[columns[0]]} has two values at bar {rows[0]} for the same bars;"
            " features must depend on nothing but the bars"
        )
    leaks: dict[str, Leak] = {}
    compared = 0
    for cut in cuts:
        for change, before, after in _changed(compute, later, bars, table, cut, rng):
            known = slice(0, cut + 1)
            a, b = before.values[known], after.values[known]
            compared += a.size
            differs = differing_bits(a, b)
            for column in np.flatnonzero(differs.any(axis=0)):
                row, name = int(np.argmax(differs[:, column])), table.names[column]
                if name not in leaks:
                    time = format_time(int(bars.time[row]))
                    values = (float(a[row, column]), float(b[row, column]))
                    leaks[name] = Leak(f"feature {name}", bars.symbol, row, time, cut, change, *values)
    return list(leaks.values()), compared


class _Trace(NamedTuple):
    """What a policy saw and did, over every bar of S symbols."""

    encoded: jax.Array  # (N, S, H) market, as each decision read it
    vector: jax.Array  # (N, S, A) account
    action: jax.Array  # (N, S)
    record: StepRecord  # (N, S)


def _tracer(player: Player, n: int) -> Any:
    """A compiled function of (params, tape) to `_Trace`."""

    def trace(params: Any, tape: Tape) -> _Trace:
        decider = acting_policy(player.agent, player.spec, params, tape, n, player.receptive_field, observed=True)
        played = play(decider, tape, n)
        record, note = lane((played.record, played.note), 0)
        return _Trace(decider.inputs, note.observation, note.action, record)

    return jax.jit(trace)


def _cuts_at(bars: Sequence[Bars], time: int) -> list[int]:
    """Row of every symbol's last bar that begins at or before `time`."""
    return [int(np.searchsorted(b.time, time, side="right")) - 1 for b in bars]


def _split_leaks(name: str, before: Split, after: Split, time: int, bars: Sequence[Bars], change: str) -> list[Leak]:
    """Rows of a split's Tape that begin at or before `time` and differ; rewards may look REWARD_HORIZON bars ahead."""
    leaks = []
    rows_of = {b.symbol: b.time for b in bars}
    for field, differs in differing_fields(before.tape, after.tape).items():
        for s, symbol in enumerate(before.symbols):
            times = before.times[s]
            known = int(np.searchsorted(times, time, side="right"))
            if differs.ndim == 1:
                wrong = differs[s : s + 1]
            else:
                horizon = REWARD_HORIZON if field == "forward_return" else 0
                wrong = _rows(differs[s, : max(known - horizon, 0)])
            if not wrong.any():
                continue
            row = int(np.argmax(wrong))
            at = int(times[row])
            bar, cut = (int(np.searchsorted(rows_of[symbol], t, side="right")) - 1 for t in (at, time))
            values = [np.asarray(_field(x.tape, field)[s]) for x in (before, after)]
            shown = [float(v if v.ndim == 0 else v[row] if v.ndim == 1 else v[row][differs[s, row]][0]) for v in values]
            leaks.append(Leak(f"{field} in the {name} split", symbol, bar, format_time(at), cut, change, *shown))
    return leaks


def _rows(differs: np.ndarray) -> np.ndarray:
    """Rows with any difference: (N, ...) to (N,) bool."""
    return np.asarray(differs.any(axis=tuple(range(1, differs.ndim))))


def _field(tape: Any, name: str) -> jax.Array:
    for part in name.split("."):
        tape = getattr(tape, part)
    return tape


def _trace_leaks(
    before: _Trace, after: _Trace, split: Split, time: int, bars: Sequence[Bars], change: str
) -> list[Leak]:
    """Decisions up to the bar at `time`, and outcomes of those before it, that differ."""
    leaks = []
    first = np.asarray(split.tape.first)
    rows_of = {b.symbol: b.time for b in bars}
    for field, differs in differing_fields(before, after).items():
        outcome = field.startswith("record.")
        for s, symbol in enumerate(split.symbols):
            decisions = split.times[s][first[s] : -1]
            known = int(np.searchsorted(decisions, time, side="right"))
            # The outcome of a decision is on the next bar: that of the last known bar's decision is not known yet.
            wrong = _rows(differs[: max(known - outcome, 0), s])
            if not wrong.any():
                continue
            n = int(np.argmax(wrong))
            at = int(decisions[n])
            bar, cut = (int(np.searchsorted(rows_of[symbol], t, side="right")) - 1 for t in (at, time))
            values = [np.asarray(_field(x, field)[n, s]) for x in (before, after)]
            shown = [float(v if v.ndim == 0 else v[differs[n, s]][0]) for v in values]
            what = {"encoded": "encoded market", "vector": "account observation"}.get(field, field)
            leaks.append(Leak(what, symbol, bar, format_time(at), cut, change, *shown))
    return leaks


def pipeline_leaks(
    compute: Compute, bars: Sequence[Bars], player: Player, seed: int, later: Later | None = None
) -> tuple[list[Leak], int]:
    """Leaks of the splits' Tapes, the encoded market, the account and the argmax actions; and the cuts tried.

    One cut in the middle of each split, for all symbols at one time.
    """
    rng = np.random.default_rng(seed)
    config, reach = player.config, player.receptive_field
    later = later or (lambda bars, cuts, rng: compute)

    def built(of: Sequence[Bars], compute: Compute) -> tuple[Any, Split]:
        tables = [as_table(compute(b)) for b in of]
        whole = build_evaluation(of, config, reach, "all", None, tables)
        return build_market(of, config, reach, tables), whole.splits["all"]

    market, whole = built(bars, compute)
    tracer = _tracer(player, n_decisions(whole.tape))
    before = jax.device_get(tracer(player.params, whole.tape))
    leaks: list[Leak] = []
    tried = 0
    for split in market.splits.values():
        times = np.unique(np.concatenate(split.times))
        time = int(times[len(times) // 2])
        for change in (RISE, FALL):
            tried += 1
            cuts = _cuts_at(bars, time)
            changed = [change_after(b, cut, change, rng) for b, cut in zip(bars, cuts, strict=True)]
            other, other_whole = built(changed, later(bars, cuts, rng))
            for name, own in market.splits.items():
                leaks += _split_leaks(name, own, other.splits[name], time, bars, change)
            after = jax.device_get(tracer(player.params, other_whole.tape))
            leaks += _trace_leaks(before, after, whole, time, bars, change)
    return leaks, tried


def check_lookahead(
    compute: Compute,
    bars: Sequence[Bars],
    player: Player | None = None,
    *,
    cuts: int = 6,
    seed: int = 0,
    later: Later | None = None,
) -> Check:
    """Is everything known at a bar the same, bit for bit, whatever comes after it?

    Args:
      compute: features of one symbol; a user's own function, or the registry's.
      bars: symbols to try it on.
      player: a policy; with it the Tapes of the splits, the encoded market, the account observation and the argmax
        actions are compared too. It must take the features of `compute`.
      cuts: cuts spread over each symbol's history, besides early ones and those at pauses and holes.
      seed: of the cuts and of the changed bars.
      later: the features where what comes from elsewhere is changed too; by default there is nothing from elsewhere.

    Raises:
      DataError: features that are not one row a bar, or that differ between two calls with the same bars.
    """
    leaks: list[Leak] = []
    compared = n_cuts = 0
    for i, b in enumerate(bars):
        rows = cut_rows(b, cuts, np.random.default_rng([seed, i]))
        found, values = feature_leaks(compute, b, rows, seed + i, later)
        leaks, compared, n_cuts = leaks + found, compared + values, n_cuts + len(rows)
    features = sorted({leak.what.removeprefix("feature ") for leak in leaks})
    where = f"{compared:,} feature values of {len(bars)} symbols at {n_cuts} cuts"
    if player is not None:
        found, tried = pipeline_leaks(compute, bars, player, seed, later)
        leaks += found
        where += f"; Tapes, encoded market, account and actions at {tried} cuts"
    changes = "Bars after each cut were made to rise, to fall, to follow a bar without trades, or were cut off."
    said = "Nothing known at a bar depends on a later one." if not leaks else f"First: {leaks[0]}."
    return Check(
        "lookahead",
        not leaks,
        f"{len(leaks)} leaks" if leaks else "0 bits differ",
        "0",
        f"{said} Compared: {where}. {changes}",
        {"leaks": [vars(leak) for leak in leaks[:100]], "features": features, "compared": compared, "cuts": n_cuts},
    )
