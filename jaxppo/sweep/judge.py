"""The truth about the winner of a sweep: how much of its score is the choice among so many. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxppo.play.overfitting import Overfitting, backtest_overfitting, rank_correlation
from jaxppo.play.significance import (
    curve_moments,
    curve_returns,
    deflated_sharpe,
    expected_max_sharpe,
    probabilistic_sharpe,
)
from jaxppo.sweep.batches import Trial

TEST_FIGURE = {"fitness": "test_fitness", "portfolio_sharpe": "test_portfolio_sharpe"}
"""What a trial's test calls what validations are ranked by."""
_NAMED = {"fitness": "fitness", "portfolio_sharpe": "Sharpe ratio, rebalanced daily,"}


class Curve(NamedTuple):
    """A policy's portfolio, rebalanced daily, from a start of 1."""

    days: np.ndarray  # (D,) int64 UTC seconds
    equity: np.ndarray  # (D,)
    per_year: float  # days

    @property
    def returns(self) -> np.ndarray:
        """(D,) a day; nothing after ruin."""
        return curve_returns(self.equity)


class Truth(NamedTuple):
    """What is said of the winner. Shares and probabilities are in [0, 1]; nan where there are too few of anything."""

    looks: int  # policies that were validated, of all trials, halted ones too
    sharpe: float  # a year, of the winner's validation, rebalanced daily
    luck_sharpe: float  # that the best of so many skill-less policies is expected to show
    probabilistic_sharpe: float
    deflated_sharpe: float
    overfitting: Overfitting | None  # over all trials
    compared: int  # trials in it
    days: int  # that it is told from
    overfitting_complete: float  # the probability over those alone that were not halted
    compared_complete: int  # trials in it
    rank_correlation: float  # of the scores and the test's, over complete trials
    ranked: int  # trials in it


def tell_truth(
    trials: Sequence[Trial], curves: dict[int, Curve], winner: Trial, test_figure: str, blocks: int
) -> Truth:
    """Judge the winner.

    Args:
      trials: all of the sweep.
      curves: on the validation bars, by the number of the trial; those that were never validated have none.
      winner: one of them.
      test_figure: of a trial's `result`, that corresponds to what validations are ranked by.
      blocks: of the days, for the probability of backtest overfitting.
    """
    looks = sum(len(t.rows) for t in trials)
    own = curves[winner.number]
    moments = curve_moments(own.equity)
    returns, days = _matrix(curves, [t for t in trials if t.number in curves])
    complete, _ = _matrix(curves, [t for t in trials if t.number in curves and t.state == "complete"])
    ranked = [t for t in trials if t.state == "complete" and test_figure in t.result]
    values = np.array([t.best for t in ranked]), np.array([t.result[test_figure] for t in ranked])
    found = _overfitting(returns, blocks)
    among = _overfitting(complete, blocks)
    return Truth(
        looks=looks,
        sharpe=winner.best_row["val_portfolio_sharpe"],
        luck_sharpe=float(expected_max_sharpe(float(looks), math.sqrt(own.per_year / max(len(own.days) - 1, 1)))),
        probabilistic_sharpe=float(probabilistic_sharpe(moments)),
        deflated_sharpe=float(deflated_sharpe(moments, float(looks))),
        overfitting=found,
        compared=returns.shape[1],
        days=days,
        overfitting_complete=among.probability if among is not None else math.nan,
        compared_complete=complete.shape[1],
        rank_correlation=rank_correlation(*values) if ranked else math.nan,
        ranked=len(ranked),
    )


def _matrix(curves: dict[int, Curve], trials: Sequence[Trial]) -> tuple[np.ndarray, int]:
    """Returns (D, N) on the days that all trials have, and how many those are."""
    if not trials:
        return np.zeros((0, 0)), 0
    own = [curves[t.number] for t in trials]
    days = own[0].days
    for curve in own[1:]:
        days = np.intersect1d(days, curve.days)
    columns = [curve.returns[np.isin(curve.days, days)] for curve in own]
    return np.stack(columns, axis=1), len(days)


def _overfitting(returns: np.ndarray, blocks: int) -> Overfitting | None:
    """None where there are too few trials or days to split."""
    return backtest_overfitting(returns, blocks) if returns.shape[0] >= 2 * blocks and returns.shape[1] > 1 else None


def truth_sentences(truth: Truth, winner: Trial, choose_by: str, tested: float) -> list[str]:
    """The truth in words, a sentence a line; what cannot be told is said to be so.

    Args:
      truth: of the sweep.
      winner: its number is named.
      choose_by: what validations are ranked by.
      tested: what the winner's test has of that.
    """
    named = _NAMED[choose_by]
    lines = [
        f"The winner, trial {winner.number}, has a {named} of {_number(winner.best)} on the validation bars and of"
        f" {_number(tested)} on the test bars, which chose nothing.",
        f"Its Sharpe ratio of {truth.sharpe:.2f} a year, rebalanced daily, is the best of {truth.looks:,} looks at the"
        f" same bars, of which chance alone is expected to show {truth.luck_sharpe:.2f}: the probability that it is"
        f" truly above that is {_share(truth.deflated_sharpe)} (deflated Sharpe ratio)."
        if not math.isnan(truth.deflated_sharpe)
        else f"It never traded, which was the best of {truth.looks:,} looks: the other trials lost.",
    ]
    if truth.overfitting is None:
        lines.append("Too few trials or days to tell the probability of backtest overfitting.")
    else:
        of = truth.overfitting
        lines.append(
            f"Probability of backtest overfitting: in {_share(of.probability)} of {len(of.logits):,} ways to split the"
            f" {truth.days:,} days in halves, the best of {truth.compared} trials on one half was in the worse half of"
            f" them on the other; it lost money there in {_share(of.loss_probability)}."
            f"{_among_complete(truth)}"
        )
    if math.isnan(truth.rank_correlation):
        lines.append("Too few trials were completed and tested to say whether validation and test rank them alike.")
    else:
        lines.append(
            f"Validation and test rank the {truth.ranked} completed trials with a correlation of"
            f" {truth.rank_correlation:+.2f} (Spearman; 1 is alike, 0 unrelated)."
        )
    return lines


def _among_complete(truth: Truth) -> str:
    """The same of complete trials, after a space: what was halted for being poor makes any choice look good."""
    if truth.compared_complete == truth.compared or math.isnan(truth.overfitting_complete):
        return ""
    return (
        f" Among the {truth.compared_complete} that were not halted, which choosing was between, it was so in"
        f" {_share(truth.overfitting_complete)}."
    )


def ensemble_sentences(summary: Mapping[str, Any]) -> list[str]:
    """What is averaged, and what it did; `summary` as files have it."""
    of, choose_by = summary["ensemble"], summary["choose_by"]
    named = _NAMED[choose_by]
    numbers = ", ".join(str(n) for n in of["members"])
    fewer = ""
    if summary["shapes"] > 1:
        fewer = f" of one shape, that of most of the best {of['asked']}, as others cannot be averaged with them"
    many = f"the {len(of['members'])} best trials, {numbers}" if len(of["members"]) > 1 else f"trial {numbers} alone"
    test = _number(float(of["test"].get(choose_by, math.nan)))
    return [
        f"Handed over: {many},{fewer + ',' if fewer else ''} as one policy that averages their action probabilities:"
        f" {named} {_number(float(of['validation'][choose_by]))} on the validation bars and {test} on the test bars;"
        f" gate {of['gate']}."
    ]


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.2f}"


def _share(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{100 * value:.0f} %"
