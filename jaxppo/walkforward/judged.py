"""The gate on a walk-forward: APPROVED, REVIEW or DROP for the joined portfolio that is rebalanced daily."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxppo.config.schema import GateConfig
from jaxppo.play.gate import Evidence, Gate, judge
from jaxppo.play.portfolio import POLICY, Joined, at_volatility
from jaxppo.play.sides import HOLD
from jaxppo.play.significance import curve_moments, deflated_sharpe, excess_probability


def judge_portfolio(joined: Joined, excess: Mapping[str, Any], config: GateConfig, trials: int) -> Gate:
    """The verdict on the policies of all folds.

    Buy-and-hold is taken at the policy's volatility: what either earns grows with the size of its positions, which is
    the user's to choose. (On 38 daily futures an ensemble with a Sharpe ratio of 1.53 made 25 % less than buy-and-hold
    with .92, at under half its volatility.) Nothing was chosen on the tested bars, so there is no best validation to
    fall short of; habits of single decisions, which a run's gate flags, are not looked at.

    Args:
      joined: policy, buy-and-hold and rules.
      excess: over the best rule, as in summary.json.
      config: thresholds.
      trials: configurations tried on these bars, by which the Sharpe ratio is deflated.
    """
    returns, held = (joined.returns[joined.names.index(name)] for name in (POLICY, HOLD))
    own, hold = np.cumprod(1.0 + returns), np.cumprod(np.maximum(1.0 + at_volatility(held, returns), 0.0))
    m = jax.tree.map(lambda x: float(x[joined.names.index(POLICY)]), joined.metrics)
    found = Evidence(
        fitness=m.fitness,
        profit_factor=m.profit_factor,
        consistency=m.consistency,
        max_drawdown=m.max_drawdown,
        trades=m.trades,
        deflated_sharpe=float(deflated_sharpe(curve_moments(own), float(trials))),
        peak_fitness=math.nan,
        hold_share=math.nan,
        order_share=math.nan,
        long_share=math.nan,
        excess_return=float(own[-1] - hold[-1]),
        excess_probability=excess_probability(own, hold),
        days=float(len(joined.day)),
        excess_over_rules=excess["sharpe_difference"],
    )
    return judge(found, config)
