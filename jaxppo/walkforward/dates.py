"""Walk-forward folds by calendar time: train on what is before a date, test on what begins from it on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import numpy as np

from jaxppo.errors import ConfigError, DataError
from jaxppo.market.dataset import MIN_DECISIONS, Split
from jaxppo.market.quality import format_time
from jaxppo.market.splits import SplitRange

Scheme = Literal["expanding", "rolling"]


class FoldDates(NamedTuple):
    """UTC seconds, the same for every symbol."""

    train_begin: int
    test_begin: int  # training ends a purge gap before it
    test_end: int  # bars that begin before it are tested on


class FoldPlan(NamedTuple):
    """One fold: its dates, and where each of S symbols decides. Decisions go from `first` to `length` - 2.

    With early stopping what is before the gap is split once more: the policy trains on the older bars, and those from a
    date on say which of its states is kept. Rules, which have no states, are fitted on both.
    """

    dates: FoldDates
    train_first: np.ndarray  # (S,) int32
    train_length: np.ndarray  # (S,) int32; symbols that do not train have length - 1 == first
    test_first: np.ndarray  # (S,) int32
    test_length: np.ndarray  # (S,) int32
    fit_first: np.ndarray  # (S,) int32; where rules are fitted: as the policy trains, but for what early stopping keeps
    fit_length: np.ndarray  # (S,) int32
    stop_first: np.ndarray | None = None  # (S,) int32; the newest training bars, where early stopping keeps them
    stop_length: np.ndarray | None = None  # (S,) int32

    @property
    def train_decisions(self) -> np.ndarray:
        """(S,) decisions of the training part."""
        return self.train_length - 1 - self.train_first

    @property
    def test_decisions(self) -> np.ndarray:
        """(S,) decisions of the test part."""
        return self.test_length - 1 - self.test_first

    @property
    def stop_decisions(self) -> np.ndarray:
        """(S,) decisions that early stopping judges by; 0 without."""
        if self.stop_first is None or self.stop_length is None:
            return np.zeros_like(self.train_first)
        return self.stop_length - 1 - self.stop_first


def check_folds(folds: int, first_train_fraction: float) -> None:
    """`ConfigError` for no fold, or a fraction outside (0, 1); needs no bars."""
    if folds < 1:
        raise ConfigError(f"folds: must be at least 1, got {folds}")
    if not 0 < first_train_fraction < 1:
        raise ConfigError(f"first_train_fraction: must lie between 0 and 1, got {first_train_fraction}")


def fold_dates(times: Sequence[np.ndarray], folds: int, scheme: Scheme, first_train_fraction: float) -> list[FoldDates]:
    """Dates of `folds` consecutive test periods with equally many pooled bars, after the first training part.

    Args:
      times: (T_s,) int64 bar starts of each symbol, UTC seconds.
      folds: K.
      scheme: "expanding" trains on everything before a test period, "rolling" on as many pooled bars as the first.
      first_train_fraction: share of all bars before the first test period.

    Raises:
      ConfigError: no fold, a fraction outside (0, 1), or fewer bars than folds.
    """
    check_folds(folds, first_train_fraction)
    pooled = np.sort(np.concatenate(list(times)))
    n, first = len(pooled), round(first_train_fraction * len(pooled))
    if first < 1 or n - first < folds:
        raise ConfigError(f"folds: {folds} folds need at least a bar each, and {n} bars leave {n - first} to test on")
    edges = [first + round(i * (n - first) / folds) for i in range(folds + 1)]
    dates = [*(int(pooled[e]) for e in edges[:-1]), int(pooled[-1]) + 1]
    begins = [int(pooled[e - first]) if scheme == "rolling" else int(pooled[0]) for e in edges[:-1]]
    return [FoldDates(*d) for d in zip(begins, dates[:-1], dates[1:], strict=True)]


def fold_ranges(time: np.ndarray, dates: FoldDates, receptive_field: int, gap: int) -> tuple[SplitRange, SplitRange]:
    """Bars of a symbol that a fold trains and tests on.

    The last training bar and the first test decision have `gap` bars between them; the gap is taken from the training
    part. The first test decision is taken at the close of the last bar before the test period and fills on the
    period's first bar, so that consecutive test periods leave no bar out.

    Args:
      time: (T,) int64 bar starts.
      dates: of the fold.
      receptive_field: bars that a decision sees.
      gap: purge and embargo, bars.
    """
    begin, one, two = (int(np.searchsorted(time, d, side="left")) for d in dates)
    context = receptive_field - 1
    end = max(begin, one - 1 - gap)
    return (
        SplitRange(begin, end, min(begin + context, end)),
        SplitRange(min(end, two), two, min(max(one - 1, context), two)),
    )


def stop_ranges(
    times: Sequence[np.ndarray],
    ranges: Sequence[SplitRange],
    dates: FoldDates,
    share: float,
    receptive_field: int,
    gap: int,
) -> tuple[list[SplitRange], list[SplitRange]]:
    """The training part of a fold cut in two by date: what is still trained on, and the newest bars, kept from it.

    The kept bars are to training what a test is: a gap lies before their first decision, which fills on the first of
    them.

    Args:
      times: (T_s,) int64 bar starts of each of S symbols.
      ranges: S training parts, as of `fold_ranges`.
      dates: of the fold.
      share: of the pooled bars of all training parts, the newest, to keep.
      receptive_field, gap: as of `fold_ranges`.
    """
    pooled = np.sort(np.concatenate([t[r.begin : r.end] for t, r in zip(times, ranges, strict=True)]))
    if not len(pooled):
        return list(ranges), list(ranges)
    cut = int(pooled[min(round((1 - share) * len(pooled)), len(pooled) - 1)])
    trained, kept = [], []
    for time, whole in zip(times, ranges, strict=True):
        train, late = fold_ranges(time, FoldDates(dates.train_begin, cut, dates.test_begin), receptive_field, gap)
        trained.append(train)
        kept.append(SplitRange(min(late.begin, whole.end), whole.end, min(late.first, whole.end)))
    return trained, kept


def pad_ranges(ranges: Sequence[SplitRange], needed: int, receptive_field: int) -> tuple[np.ndarray, np.ndarray]:
    """`first` and `length` of a Tape for one fold; symbols with under `needed` decisions get none.

    Returns:
      first (S,) int32 and length (S,) int32.
    """
    nowhere = max(receptive_field - 1, 1)  # then no bar decides, and bar length - 2 exists
    pairs = [(r.first, r.end) if r.decisions >= needed else (nowhere, nowhere + 1) for r in ranges]
    first, length = np.asarray(pairs, np.int32).T
    return first, length


class _Parts(NamedTuple):
    """Where each symbol decides in one fold."""

    train: Sequence[SplitRange]
    test: Sequence[SplitRange]
    stop: Sequence[SplitRange] | None  # with early stopping


def _check_parts(
    fold: str, dates: FoldDates, parts: _Parts, receptive_field: int, gap: int, needed: int, early_stop: float
) -> None:
    """`DataError` for the first part of `fold` in which no symbol has enough to decide on."""
    before = f"{format_time(dates.train_begin)} to {format_time(dates.test_begin)}"
    most = max(r.decisions for r in parts.train)
    if most < needed:
        lost = f"a gap of {gap} bars" if parts.stop is None else f"two gaps of {gap} bars, what early_stop keeps"
        raise DataError(
            f"{fold} cannot be trained: from {before}, less {lost} and"
            f" {receptive_field - 1} bars of history, no symbol has more than {most} bars to decide on and"
            f" {needed} are needed; raise --first-train-fraction, or give more bars"
        )
    most = max(r.decisions for r in parts.test)
    if most < MIN_DECISIONS:
        within = f"{format_time(dates.test_begin)} to {format_time(dates.test_end - 1)}"
        raise DataError(
            f"{fold} cannot be tested: from {within} no symbol has more than {most} bars to"
            f" decide on and {MIN_DECISIONS} are needed; use fewer folds, or give more bars"
        )
    if parts.stop is not None and (most := max((r.decisions for r in parts.stop), default=0)) < MIN_DECISIONS:
        raise DataError(
            f"{fold} cannot be stopped early: of {before} early_stop {early_stop:g} keeps no more"
            f" than {most} bars of a symbol to decide on, of {MIN_DECISIONS} needed; raise it, or give more bars"
        )


def plan_folds(
    times: Sequence[np.ndarray],
    folds: int,
    scheme: Scheme,
    first_train_fraction: float,
    receptive_field: int,
    gap: int,
    needed: int,
    early_stop: float = 0.0,
) -> list[FoldPlan]:
    """Every fold of a walk-forward.

    A symbol is tested wherever it has a bar to decide on: one whose history ends within a period counts until then.

    Args:
      times, folds, scheme, first_train_fraction: as of `fold_dates`.
      receptive_field: bars that a decision sees.
      gap: bars between the last training bar and the first test decision.
      needed: fewest decisions of a symbol that trains.
      early_stop: share of the training bars, the newest, that is kept from training to stop by; 0 for none.

    Raises:
      ConfigError: as of `fold_dates`, or a gap under 0.
      DataError: a fold in which no symbol can be trained on, or none has MIN_DECISIONS to test or to stop by.
    """
    plans = []
    for number, dates in enumerate(fold_dates(times, folds, scheme, first_train_fraction), start=1):
        whole, test = zip(*(fold_ranges(t, dates, receptive_field, gap) for t in times), strict=True)
        train: Sequence[SplitRange] = whole
        stop: Sequence[SplitRange] | None = None
        if early_stop > 0:
            train, stop = stop_ranges(times, whole, dates, early_stop, receptive_field, gap)
        parts = _Parts(train, test, stop)
        _check_parts(f"fold {number} of {folds}", dates, parts, receptive_field, gap, needed, early_stop)
        plans.append(
            FoldPlan(
                dates,
                *pad_ranges(train, needed, receptive_field),
                *pad_ranges(test, 1, receptive_field),
                *pad_ranges(whole, needed, receptive_field),
                *(pad_ranges(stop, 1, receptive_field) if stop is not None else ()),
            )
        )
    return plans


def fold_split(history: Split, first: np.ndarray, length: np.ndarray) -> tuple[Split, np.ndarray]:
    """The symbols that decide in a fold's range as a split of their own, without features, as host arrays.

    Args:
      history: the whole market.
      first, length: (S,) of the range.

    Returns:
      The split, and the rows (S',) of its symbols in `history`.
    """
    rows = np.flatnonzero(length - 1 > first)
    bare = history.tape._replace(features=history.tape.features[:, :, :0])
    tape = jax.tree.map(lambda x: np.asarray(x)[rows], bare)._replace(first=first[rows], length=length[rows])
    symbols = tuple(history.symbols[i] for i in rows)
    return Split(tape, symbols, tuple(history.times[i][: length[i]] for i in rows)), rows
