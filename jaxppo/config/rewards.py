"""Reward presets: what is rewarded how much, and the settings that a preset brings with it. Numbers only.

What the components compute is in `jaxppo.env.rewards`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxppo.registry import Registry


@dataclass(frozen=True)
class RewardPreset:
    """Weights of reward components, and the variants of their formulas.

    Example:
      >>> REWARD_PRESETS["v33"].weights["pnl"]
      0.4
    """

    name: str
    weights: Mapping[str, float]  # by component; others are not computed
    help: str
    direction_threshold: float = 0.003  # forward return up to which `direction` is 0
    pnl: Literal["tanh", "clip"] = "clip"  # tanh(10 p), p in percent; clip(100 r, -2, 2)
    exploration: float = 0.05  # what `exploration` pays for the largest entropy
    brings: Mapping[str, Any] = field(default_factory=dict)  # fields of the configuration, unless they are given


# What the predecessor traded with; without levels `stop_tp` would pay nothing. They are no defaults: a fixed distance
# means something else for every bar. Of random entries the median reaches one of them after 4 daily bars of a share, 26
# hours of crypto and 470 of FX, and 5,300 minutes.
_TRADED = {"actions": "hold_buy_sell", "stop_loss": 0.02, "take_profit": 0.04, "cost_anneal": 0.0}
# v245 and v33 are the predecessor's own, with its discounts; its entropy coefficients are where our annealing ends.
REWARD_PRESETS = Registry(
    "reward preset",
    [
        RewardPreset(
            "v245",
            {
                "direction": 0.35,
                "magnitude": 0.10,
                "pnl": 0.25,
                "stop_tp": 0.15,
                "exploration": 0.10,
                "slippage": 0.05,
                "drawdown": 0.05,
            },
            "the faithful predecessor, weights sum to 1.05: prone to always hold",
            direction_threshold=0.001,
            pnl="tanh",
            exploration=0.01,
            brings={**_TRADED, "gamma": 0.995, "entropy_end": 0.005, "fee": {"crypto": 0.005}},
        ),
        RewardPreset(
            "v33",
            {
                "direction": 0.15,
                "magnitude": 0.05,
                "pnl": 0.40,
                "stop_tp": 0.10,
                "exploration": 0.15,
                "slippage": 0.02,
                "drawdown": 0.03,
            },
            "seven components; what the authors of v245 moved to",
            brings={**_TRADED, "gamma": 0.991, "entropy_end": 0.015},
        ),
        # In percent: the value head then learns numbers near 1 instead of near .01.
        RewardPreset("log_return", {"log_return": 100.0}, "net log return of the bar, in percent; the default"),
        # What a return adds to the moving Sharpe ratio later bars take back, as the moments forget it: half of it where
        # they are discounted by .99, a sixth where by .95.
        RewardPreset(
            "differential_sharpe",
            {"differential_sharpe": 1.0},
            "Moody and Saffell 2001, eta 0.01, clipped at 10",
            brings={"gamma": 0.95},
        ),
    ],
)
