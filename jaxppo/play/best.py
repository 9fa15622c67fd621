"""Which validation is the best: the one rule that checkpoints, the log, the summary and the pages go by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from jaxppo.play.score import Figures

RANKED_COLUMN = {"fitness": "val_fitness", "portfolio_sharpe": "val_portfolio_sharpe"}
"""What `choose_by` ranks validations by, as metrics.csv calls it."""


def ranked_score(figures: Figures, choose_by: str) -> float:
    """What a validation is ranked by, of host arrays. Checkpoints call it fitness, whatever it is.

    Args:
      figures: of the validation.
      choose_by: a key of `RANKED_COLUMN`.
    """
    return float(figures.portfolio.sharpe if choose_by == "portfolio_sharpe" else figures.pooled.fitness)


def ranked(scores: Sequence[float]) -> list[int]:
    """Places by score, the highest first; of equals the first, and what is no number last.

    Example:
      >>> ranked([0.1, float("nan"), 0.3])
      [2, 0, 1]
    """
    return sorted(range(len(scores)), key=lambda i: (math.isnan(scores[i]), -scores[i]))


def best_update(fitness: Mapping[int, float]) -> int:
    """The update with the highest fitness, of equals the later; one whose fitness is no number only if all are none.

    Args:
      fitness: of each validation by its update, as `ranked_score` has it; at least one.

    Example:
      >>> best_update({0: 0.0, 5: 0.3, 10: 0.3, 15: float("nan")})
      10
    """
    # Of equals the later: of two policies with the same figures, the one that was trained for longer.
    return max(fitness, key=lambda update: (not math.isnan(fitness[update]), fitness[update], update))
