"""Which validation is the best: the one rule that checkpoints, the log, the summary and the pages go by."""

from __future__ import annotations

import math
from collections.abc import Mapping


def best_update(fitness: Mapping[int, float]) -> int:
    """The update with the highest fitness, of equals the later; one whose fitness is no number only if all are none.

    Args:
      fitness: of each validation by its update; at least one.

    Example:
      >>> best_update({0: 0.0, 5: 0.3, 10: 0.3, 15: float("nan")})
      10
    """
    # Of equals the later: of two policies with the same figures, the one that was trained for longer.
    return max(fitness, key=lambda update: (not math.isnan(fitness[update]), fitness[update], update))
