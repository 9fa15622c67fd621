"""What folds hand over: policies, or flat ones where their own bars do not speak for them; what costs they take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxppo.walkforward.program import Growth, Judged


def break_even(free: float, charged: float) -> float:
    """Multiple of the costs at which a log growth is 0, on the line through that without costs and that after them.

    Returns:
      0 where nothing is earned even without costs; nan where costs take nothing, as of a policy that does not trade.

    Example: of .06 without costs half is left after them, so twice the costs would leave nothing.

      >>> break_even(0.06, 0.03), break_even(-0.01, -0.02), break_even(0.0, 0.0)
      (2.0, 0.0, nan)
    """
    if not free > charged:
        return math.nan
    return max(free, 0.0) / (free - charged)


def hand_over(judged: Judged, flat_below: float, side: float) -> dict[str, Any]:
    """The entry `handed_over` of summary.json.

    Args:
      judged: of the K folds, host arrays (K,).
      flat_below: the least probability for a policy to be handed over; 0 for none.
      side: what a side costs, as a fraction of the notional; the median of the symbols.

    Returns:
      `flat_below`; `probability` of each fold; `flat_folds`, their numbers from 1; `cost_side`; multiples of the costs
      at which all folds' trained policies together make nothing, handed over or not, on the bars that they were trained
      on, `break_even_trained`, and tested on, `break_even_tested`; and a `sentence`.
    """
    flat = [int(k) + 1 for k in np.flatnonzero(np.asarray(judged.flat))]
    probability = [float(p) for p in np.asarray(judged.probability)]
    tested = _all_folds(judged.after)
    return {
        "flat_below": flat_below,
        "probability": probability,
        "flat_folds": flat,
        "cost_side": side,
        "break_even_trained": _all_folds(judged.before),
        "break_even_tested": tested,
        "sentence": _flat_words(flat, probability, flat_below) + _cost_words(tested, side),
    }


def _all_folds(growth: Growth) -> float:
    free, charged = (float(np.asarray(x, np.float64).sum()) for x in (growth.free, growth.charged))
    return break_even(free, charged)


def _flat_words(flat: Sequence[int], probability: Sequence[float], flat_below: float) -> str:
    if not flat:
        return ""
    numbers, chances = ", ".join(map(str, flat)), ", ".join(f"{probability[k - 1]:.2f}" for k in flat)
    who = f"Fold {numbers} stays" if len(flat) == 1 else f"Folds {numbers} stay"
    return (
        f"{who} flat: on the bars that judge the trained policy its Sharpe ratio is above 0 with a probability of"
        f" {chances}, and flat_below asks for {flat_below:g}. "
    )


def _cost_words(multiple: float, side: float) -> str:
    """Which costs the trained policies would take on the tested bars."""
    if math.isnan(multiple):
        return "The trained policies paid no costs on the tested bars."
    if multiple == 0:
        return "The trained policies lose on the tested bars even without costs: none would be low enough."
    at = f"{multiple:.2g} times the costs, {100 * multiple * side:.2g} % a side in place of {100 * side:.2g} %"
    return f"The trained policies break even on the tested bars at {at}."
