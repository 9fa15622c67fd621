"""APPROVED, REVIEW or DROP: what must hold before a policy is worth money, with reasons a machine can read. Pure.

REVIEW asks for fitness, profit factor, consistency, drawdown and trades at its weaker thresholds, for at least what
buy-and-hold made, for at least the Sharpe ratio of the best rule, and for a sample that is long enough to say anything.
APPROVED asks besides that neither the choice of the best nor chance explains it: the deflated Sharpe ratio, and the
probability of beating buy-and-hold. A flag keeps a policy from APPROVED, not from REVIEW.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from jaxppo.config.schema import GateConfig
from jaxppo.env.actions import ActionTable
from jaxppo.market.dataset import Split, decision_times
from jaxppo.play.metrics import METRICS, Column
from jaxppo.play.score import Score
from jaxppo.play.significance import curve_moments, deflated_sharpe, excess_probability

Verdict = Literal["APPROVED", "REVIEW", "DROP"]
APPROVED: Verdict = "APPROVED"


class Evidence(NamedTuple):
    """What the gate looks at; nan where unknown."""

    fitness: float
    profit_factor: float
    consistency: float
    max_drawdown: float
    trades: float
    deflated_sharpe: float
    peak_fitness: float  # of all validations
    hold_share: float  # of decisions that keep the position; where no action does, of bars flat
    order_share: float  # of bars on which an order was filled
    long_share: float  # of bars in the market, those of symbols that may be sold short
    excess_return: float = math.nan  # net return less that of buy-and-hold at the same costs
    excess_probability: float = math.nan  # that the true mean log return is above that of buy-and-hold
    days: float = math.nan  # with a decision, by UTC date: bars of one day are no independent sample
    final_fitness: float = math.nan  # of the last validation, where another one is judged
    excess_over_rules: float = math.nan  # Sharpe ratio rebalanced daily, less that of the best rule


@dataclass(frozen=True)
class Record:
    """What a run's validations say of a policy that was chosen from them."""

    looks: int  # validations that it was chosen from, the untrained policy's included
    peak_fitness: float  # of all validations; fitness, or what else they are ranked by
    final_fitness: float  # of the last, the same figure


@dataclass(frozen=True)
class Threshold:
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
    reasons: tuple[Threshold, ...]
    flags: tuple[Flag, ...]


AT_MOST = ("max_drawdown",)
"""Figures that must not be above their thresholds; all others must not be below."""
_OWN = {
    column.name: column
    for column in (
        Column(
            name="deflated_sharpe",
            title="Deflated Sharpe ratio",
            form="share",
            meaning="Probability that the true Sharpe ratio is above that of the best of as many skill-less policies.",
        ),
        Column(
            name="excess_return",
            title="Net return over buy-and-hold",
            form="signed",
            meaning="Net return less that of buy-and-hold at the same costs.",
        ),
        Column(
            name="excess_over_rules",
            title="Sharpe ratio over the best rule",
            meaning="Sharpe ratio, rebalanced daily, less that of the best rule at the same costs, or of buy-and-hold.",
        ),
        Column(
            name="excess_probability",
            title="Probability of beating buy-and-hold",
            form="share",
            meaning="Probability that the true mean log return is above that of buy-and-hold.",
        ),
        Column(
            name="days", title="Days with decisions", form="whole", meaning="UTC dates on which the policy decides."
        ),
    )
}


def judged_column(metric: str) -> Column:
    """What the gate looks at under a name, with its title and form."""
    return _OWN[metric] if metric in _OWN else METRICS.get(metric, Column(metric, "", metric))


def evidence(
    score: Score,
    actions: ActionTable,
    deflated: float,
    peak_fitness: float,
    allow_short: np.ndarray | None = None,
) -> Evidence:
    """Gather what the gate looks at, all symbols together.

    Args:
      score: what the policy did, host arrays.
      actions: the action table.
      deflated: deflated Sharpe ratio of the pooled curve.
      peak_fitness: highest fitness of all validations.
      allow_short: (S,) bool; all when missing.
    """
    figures, record, ok = score.figures, score.record, np.asarray(score.valid, bool)
    exposure = np.asarray(record.exposure)
    bars = max(int(ok.sum()), 1)
    if any(actions.keep):
        hold = float(np.asarray(figures.action_share)[np.asarray(actions.keep)].sum())
    else:
        hold = float((ok & (exposure == 0)).sum() / bars)
    both = ok if allow_short is None else ok & np.asarray(allow_short, bool)[None, :]
    held = int((both & (exposure != 0)).sum())
    pooled = figures.pooled
    return Evidence(
        fitness=float(pooled.fitness),
        profit_factor=float(pooled.profit_factor),
        consistency=float(pooled.consistency),
        max_drawdown=float(pooled.max_drawdown),
        trades=float(pooled.trades),
        deflated_sharpe=float(deflated),
        peak_fitness=float(peak_fitness),
        hold_share=hold,
        order_share=float((ok & (np.asarray(record.order_units) != 0)).sum() / bars),
        long_share=float((both & (exposure > 0)).sum() / held) if held else math.nan,
        excess_return=float(pooled.net_return) - float(figures.hold),
    )


def _reasons(e: Evidence, config: GateConfig) -> tuple[Threshold, ...]:
    def hold(metric: str, threshold: float, level: Verdict) -> Threshold:
        value = float(getattr(e, metric))
        # nan is neither at least nor at most anything
        passed = value <= threshold if metric in AT_MOST else value >= threshold
        if metric == "profit_factor" and math.isinf(value):
            passed &= e.trades >= config.gate_min_trades
        return Threshold(metric, value, threshold, level, passed)

    return (
        hold("fitness", config.gate_fitness_approved, "APPROVED"),
        hold("profit_factor", config.gate_profit_factor_approved, "APPROVED"),
        hold("consistency", config.gate_consistency_approved, "APPROVED"),
        hold("max_drawdown", config.gate_max_drawdown_approved, "APPROVED"),
        hold("trades", config.gate_min_trades, "APPROVED"),
        hold("excess_probability", config.gate_excess_probability, "APPROVED"),
        hold("deflated_sharpe", config.gate_deflated_sharpe, "APPROVED"),
        hold("fitness", config.gate_fitness_review, "REVIEW"),
        hold("profit_factor", config.gate_profit_factor_review, "REVIEW"),
        hold("consistency", config.gate_consistency_review, "REVIEW"),
        hold("max_drawdown", config.gate_max_drawdown_review, "REVIEW"),
        hold("excess_return", config.gate_excess_review, "REVIEW"),
        hold("excess_over_rules", config.gate_excess_rules_review, "REVIEW"),
        hold("trades", config.gate_trades_review, "REVIEW"),
        hold("days", config.gate_days_review, "REVIEW"),
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


def judge_policy(
    score: Score, split: Split, actions: ActionTable, config: GateConfig, record: Record, best_rule: float
) -> Gate:
    """Judge what a policy did on a split, with the Sharpe ratio deflated by the looks. Host arrays.

    `best_rule` is the Sharpe ratio of the best rule on the same split, rebalanced daily; nan where none was played.
    The overfit flag compares the run's last validation with its best, wherever the policy is played: on other bars a
    fitness under the best of many validations is what chance alone leads to.
    """
    deflated = float(deflated_sharpe(curve_moments(score.curves.pooled), float(record.looks)))
    allow_short = np.asarray(split.tape.allow_short)
    found = evidence(score, actions, deflated, record.peak_fitness, allow_short)
    days = {int(day) for times in decision_times(split) for day in np.unique(times // 86_400)}
    found = found._replace(
        final_fitness=record.final_fitness,
        excess_probability=excess_probability(score.curves.pooled, score.curves.hold),
        days=float(len(days)),
        excess_over_rules=float(score.figures.portfolio.sharpe) - best_rule,
    )
    return judge(found, config)
