"""Walk-forward folds by calendar time: train on what is before a date, test on what begins from it on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from jaxppo.errors import ConfigError
from jaxppo.market.splits import SplitRange

Scheme = Literal["expanding", "rolling"]


class FoldDates(NamedTuple):
    """UTC seconds, the same for every symbol."""

    train_begin: int
    test_begin: int  # training ends a purge gap before it
    test_end: int  # bars that begin before it are tested on


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
    if folds < 1:
        raise ConfigError(f"folds: must be at least 1, got {folds}")
    if not 0 < first_train_fraction < 1:
        raise ConfigError(f"first_train_fraction: must lie between 0 and 1, got {first_train_fraction}")
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
        SplitRange(min(max(end, 0), two), two, min(max(one - 1, context), two)),
    )


def pad_ranges(ranges: Sequence[SplitRange], needed: int, receptive_field: int) -> tuple[np.ndarray, np.ndarray]:
    """`first` and `length` of a Tape for one fold; symbols with under `needed` decisions get none.

    Returns:
      first (S,) int32 and length (S,) int32.
    """
    nowhere = max(receptive_field - 1, 1)  # then no bar decides, and bar length - 2 exists
    pairs = [(r.first, r.end) if r.decisions >= needed else (nowhere, nowhere + 1) for r in ranges]
    first, length = np.asarray(pairs, np.int32).T
    return first, length
