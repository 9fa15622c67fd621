"""How much of a winner among many trials is the choice: backtest overfitting, and whether ranks hold on other bars.

Pure, on the host and in float64: a matrix of a few thousand days by a few hundred trials takes under a second.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from jaxppo.errors import ConfigError


class Overfitting(NamedTuple):
    """What combinatorially symmetric cross-validation says of choosing the best of N trials, over C splits."""

    probability: (
        float  # PBO: share of the splits in which the chosen trial is at or below the median of the others' half
    )
    loss_probability: float  # share of the splits in which the chosen trial loses on the other half
    slope: float  # of its Sharpe ratio on the other half over that on its own; nan where the latter does not vary
    logits: np.ndarray  # (C,) of the chosen trial's relative rank on the other half
    chosen: np.ndarray  # (C,) int: the trial with the highest Sharpe ratio on the half that chooses
    inside: np.ndarray  # (C,) its Sharpe ratio a day there
    outside: np.ndarray  # (C,) and on the other half


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 along the last axis, equal values sharing their mean rank; any shape.

    Example:
      >>> ranks(np.array([0.3, 0.1, 0.3, 0.2])).tolist()
      [3.5, 1.0, 3.5, 2.0]
    """
    below = (values[..., None, :] < values[..., :, None]).sum(-1)
    same = (values[..., None, :] == values[..., :, None]).sum(-1)
    return np.asarray(below + (same + 1) / 2)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's correlation of two figures over trials (N,); those with a nan are left out.

    Returns:
      In [-1, 1]; nan for fewer than three trials, and where one of the figures does not vary.

    Example:
      >>> round(rank_correlation(np.array([1.0, 2.0, 3.0, 4.0]), np.array([10.0, 30.0, 20.0, 40.0])), 3)
      0.8
    """
    known = ~(np.isnan(a) | np.isnan(b))
    if known.sum() < 3:
        return math.nan
    x, y = ranks(a[known]), ranks(b[known])
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float((x**2).sum() * (y**2).sum()))
    return float((x * y).sum()) / scale if scale > 0 else math.nan


def backtest_overfitting(returns: np.ndarray, blocks: int = 16) -> Overfitting:
    """Combinatorially symmetric cross-validation: does the best trial of one half of the days stay good on the other?

    Bailey, Borwein, Lopez de Prado and Zhu (2017), "The Probability of Backtest Overfitting", section 3, by the Sharpe
    ratio. The days are cut into `blocks` equally long blocks, and every half of the blocks chooses once: C(16, 8) =
    12,870 splits. The chosen trial's relative rank on the other days is w = rank / (N + 1), its logit log(w / (1 - w)),
    and the probability of backtest overfitting is the share of logits at or below 0.

    Args:
      returns: (D, N) of D days and N trials, all finite. The oldest days are left out where `blocks` does not divide D.
      blocks: even; the days of a block must be at least two.

    Raises:
      ConfigError: fewer than two trials, an odd number of blocks, or too few days for them.

    Example: of two trials the first earns 1 % and 2 % in turn, the second loses as much; the first is always chosen,
    and is always the better one on the other days, so its rank is 2 of 2 and its logit log(2).
      >>> days = np.tile([0.01, 0.02], 4)
      >>> found = backtest_overfitting(np.stack([days, -days], axis=1), blocks=4)
      >>> found.probability, round(float(found.logits[0]), 4)
      (0.0, 0.6931)
    """
    days, trials = returns.shape
    if trials < 2:
        raise ConfigError(f"backtest overfitting: chooses among trials, so it needs at least 2, got {trials}")
    if blocks < 2 or blocks % 2:
        raise ConfigError(f"blocks: must be an even number from 2, got {blocks}")
    if days < 2 * blocks:
        raise ConfigError(f"blocks: {blocks} of at least 2 days need {2 * blocks} days, and there are {days}")
    length = days // blocks
    parts = np.asarray(returns[days - blocks * length :], np.float64).reshape(blocks, length, trials)
    sums, squares = parts.sum(1), (parts**2).sum(1)  # (B, N)
    halves = np.array(list(itertools.combinations(range(blocks), blocks // 2)))  # (C, B / 2)
    inside = np.zeros((len(halves), blocks))
    np.put_along_axis(inside, halves, 1.0, axis=1)
    # Some splits at a time: all of 1,000 trials at once would be 100 MB an array.
    some = [
        _choose(part, sums, squares, length * blocks // 2) for part in np.array_split(inside, -(-len(inside) // 1000))
    ]
    chosen, own, mine, rank = (np.concatenate(column) for column in zip(*some, strict=True))
    relative = rank / (trials + 1)
    logits = np.log(relative / (1.0 - relative))
    return Overfitting(
        float((logits <= 0).mean()), float((mine < 0).mean()), _slope(own, mine), logits, chosen, own, mine
    )


def _choose(
    inside: np.ndarray, sums: np.ndarray, squares: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The trial that each half (C, B) of 0 and 1 chooses, its Sharpe ratio there and elsewhere, its rank elsewhere."""
    own, other = (_sharpe(half @ sums, half @ squares, n) for half in (inside, 1.0 - inside))  # (C, N)
    chosen = own.argmax(1)
    own, mine = (np.take_along_axis(x, chosen[:, None], axis=1) for x in (own, other))
    rank = (other < mine).sum(1) + ((other == mine).sum(1) + 1) / 2
    return chosen, own[:, 0], mine[:, 0], rank


def _sharpe(sums: np.ndarray, squares: np.ndarray, n: int) -> np.ndarray:
    """Sharpe ratio a day (ddof 1) from sums of returns and of their squares; 0 where nothing moved."""
    mean = sums / n
    variance = (squares - n * mean**2) / (n - 1)
    moves = variance > 1e-12 * squares / n  # below it is what rounding left of a constant
    return np.where(moves, mean / np.sqrt(np.where(moves, variance, 1.0)), 0.0)


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    """Least squares slope of y over x."""
    x = x - x.mean()
    scale = float((x**2).sum())
    return float((x * y).sum()) / scale if scale > 0 else math.nan
