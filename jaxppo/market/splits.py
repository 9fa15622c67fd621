"""Train, validation and test by calendar time, with a purge gap between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxppo.config.schema import DataConfig

SPLITS = ("train", "validation", "test")


class SplitRange(NamedTuple):
    """Bars of one symbol in one split, and the first that decides."""

    begin: int
    end: int  # one past the last
    first: int  # first decision bar; begin..first - 1 are its receptive field and the purge gap

    @property
    def decisions(self) -> int:
        """Bars that can be decided on: the last bar of a split only fills and marks."""
        return max(0, self.end - 1 - self.first)


def cutoff_times(times: Sequence[np.ndarray], config: DataConfig) -> tuple[int, int]:
    """The two dates before which `train_fraction` and `train_fraction + validation_fraction` of all bars begin.

    Args:
      times: (T_s,) int64 bar starts of each symbol.
      config: fractions.

    Returns:
      UTC seconds: validation begins at the first, test at the second.
    """
    pooled = np.sort(np.concatenate(list(times)))
    last = len(pooled) - 1
    train = round(config.train_fraction * len(pooled))
    validation = round((config.train_fraction + config.validation_fraction) * len(pooled))
    beyond = int(pooled[-1]) + 1
    return (
        int(pooled[min(train, last)]),
        int(pooled[validation]) if validation <= last else beyond,
    )


def split_ranges(time: np.ndarray, cutoffs: tuple[int, int], receptive_field: int, purge: int) -> dict[str, SplitRange]:
    """Bars of a symbol in each split.

    A bar belongs to the split in which it begins. The bars of the purge gap belong to the later split, where they are
    context only: between the last bar of one split and the first decision of the next lie at least `purge` bars.

    Args:
      time: (T,) int64 bar starts.
      cutoffs: from `cutoff_times`.
      receptive_field: bars that a decision sees.
      purge: bars between splits.
    """
    one, two = (int(np.searchsorted(time, c, side="left")) for c in cutoffs)
    context = receptive_field - 1
    gap = max(purge, context)
    return {
        "train": SplitRange(0, one, min(context, one)),
        "validation": SplitRange(one, two, min(one + gap, two)),
        "test": SplitRange(two, len(time), min(two + gap, len(time))),
    }


def whole_range(time: np.ndarray, receptive_field: int) -> SplitRange:
    """Every bar of a symbol; all that have a receptive field behind them decide."""
    return SplitRange(0, len(time), min(receptive_field - 1, len(time)))
