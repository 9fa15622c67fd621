"""APPROVED, REVIEW or DROP: what must hold before a policy is worth money, with reasons a machine can read. Pure.

REVIEW asks for fitness, profit factor, consistency and drawdown at its weaker thresholds; the number of trades and the
deflated Sharpe ratio are asked for APPROVED alone. A flag keeps a policy from APPROVED, not from REVIEW.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxppo.config.schema import GateConfig
from jaxppo.env.account import StepRecord
from jaxppo.env.actions import ActionTable
from jaxppo.play.passes import Validation

Verdict = Literal["APPROVED", "REVIEW", "DROP"]


class Evidence(NamedTuple):
    """What the gate looks at; nan where unknown."""

    fitness: float
    profit_factor: float
    consistency: float
    max_drawdown: float
    trades: float
    deflated_sharpe: float
    peak_fitness: float  # of all validations
    hold_share: float  # of decisions that keep the position; bars flat where no action keeps
    order_share: float  # of bars on which an order was filled
    long_share: float  # of bars in the market, those of symbols that may be sold short
    final_fitness: float = math.nan  # of the last validation, where another one is judged


@dataclass(frozen=True)
class Reason:
    """One threshold and whether it holds."""

    metric: str
    value: float
    threshold: float
    level: Verdict
    passed: bool


@dataclass(frozen=True)
class Flag:
    """A habit that figures alone do not show."""

    name: str
    value: float
    threshold: float


@dataclass(frozen=True)
class Gate:
    """The verdict and all that led to it."""

    verdict: Verdict
    reasons: tuple[Reason, ...]
    flags: tuple[Flag, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps(allow_nan=False)`: nan becomes null, infinity the string "inf"."""

        def plain(x: Any) -> Any:
            if isinstance(x, float) and not math.isfinite(x):
                return None if math.isnan(x) else ("inf" if x > 0 else "-inf")
            return x

        def row(x: Reason | Flag) -> dict[str, Any]:
            return {k: plain(v) for k, v in asdict(x).items()}

        return {
            "verdict": self.verdict,
            "reasons": [row(r) for r in self.reasons],
            "flags": [row(f) for f in self.flags],
        }


def evidence(
    validation: Validation,
    record: StepRecord,
    valid: np.ndarray,
    actions: ActionTable,
    deflated_sharpe: float,
    peak_fitness: float,
    allow_short: np.ndarray | None = None,
) -> Evidence:
    """Gather what the gate looks at, all symbols together.

    Args:
      validation: host arrays.
      record: (N, S) host arrays.
      valid: (N, S) bool.
      actions: the action table.
      deflated_sharpe: of the pooled curve.
      peak_fitness: highest fitness of all validations.
      allow_short: (S,) bool; all when missing.
    """
    ok = np.asarray(valid, bool)
    exposure = np.asarray(record.exposure)
    bars = max(int(ok.sum()), 1)
    if any(actions.keep):
        hold = float(np.asarray(validation.action_share)[np.asarray(actions.keep)].sum())
    else:
        hold = float((ok & (exposure == 0)).sum() / bars)
    both = ok if allow_short is None else ok & np.asarray(allow_short, bool)[None, :]
    held = int((both & (exposure != 0)).sum())
    pooled = validation.pooled
    return Evidence(
        fitness=float(pooled.fitness),
        profit_factor=float(pooled.profit_factor),
        consistency=float(pooled.consistency),
        max_drawdown=float(pooled.max_drawdown),
        trades=float(pooled.trades),
        deflated_sharpe=float(deflated_sharpe),
        peak_fitness=float(peak_fitness),
        hold_share=hold,
        order_share=float((ok & (np.asarray(record.order_units) != 0)).sum() / bars),
        long_share=float((both & (exposure > 0)).sum() / held) if held else math.nan,
    )


def _reasons(e: Evidence, config: GateConfig) -> tuple[Reason, ...]:
    def at_least(metric: str, threshold: float, level: Verdict) -> Reason:
        value = float(getattr(e, metric))
        return Reason(metric, value, threshold, level, value >= threshold)  # nan is never at least anything

    def factor(threshold: float, level: Verdict) -> Reason:
        reason = at_least("profit_factor", threshold, level)
        few = math.isinf(reason.value) and not e.trades >= config.gate_min_trades
        return Reason(reason.metric, reason.value, threshold, level, reason.passed and not few)

    def at_most(metric: str, threshold: float, level: Verdict) -> Reason:
        value = float(getattr(e, metric))
        return Reason(metric, value, threshold, level, value <= threshold)

    return (
        at_least("fitness", config.gate_fitness_approved, "APPROVED"),
        factor(config.gate_profit_factor_approved, "APPROVED"),
        at_least("consistency", config.gate_consistency_approved, "APPROVED"),
        at_most("max_drawdown", config.gate_max_drawdown_approved, "APPROVED"),
        at_least("trades", config.gate_min_trades, "APPROVED"),
        at_least("deflated_sharpe", config.gate_deflated_sharpe, "APPROVED"),
        at_least("fitness", config.gate_fitness_review, "REVIEW"),
        factor(config.gate_profit_factor_review, "REVIEW"),
        at_least("consistency", config.gate_consistency_review, "REVIEW"),
        at_most("max_drawdown", config.gate_max_drawdown_review, "REVIEW"),
    )


def _flags(e: Evidence, config: GateConfig) -> tuple[Flag, ...]:
    found = []
    floor = (1.0 - config.gate_overfit) * e.peak_fitness
    last = e.fitness if math.isnan(e.final_fitness) else e.final_fitness
    if e.peak_fitness > 0 and last < floor:
        found.append(Flag("overfit", last, floor))
    if e.hold_share > config.gate_always_hold:
        found.append(Flag("always_hold", e.hold_share, config.gate_always_hold))
    if e.order_share > config.gate_always_trade:
        found.append(Flag("always_trade", e.order_share, config.gate_always_trade))
    if max(e.long_share, 1.0 - e.long_share) > config.gate_one_sided:
        found.append(Flag("one_sided", e.long_share, config.gate_one_sided))
    return tuple(found)


def judge(e: Evidence, config: GateConfig) -> Gate:
    """The verdict on a policy. APPROVED: every threshold holds and no flag; REVIEW: all of REVIEW hold; else DROP."""
    reasons, flags = _reasons(e, config), _flags(e, config)
    review = all(r.passed for r in reasons if r.level == "REVIEW")
    approved = all(r.passed for r in reasons) and not flags
    return Gate("APPROVED" if approved else "REVIEW" if review else "DROP", reasons, flags)
