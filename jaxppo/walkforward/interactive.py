"""Interactive charts of a walk-forward."""

from __future__ import annotations

import numpy as np
import polars as pl

from jaxppo.page.charts import Chart, Line, bars, growth
from jaxppo.page.text import percent
from jaxppo.page.yardsticks import title
from jaxppo.play.portfolio import at_volatility
from jaxppo.play.sides import HOLD
from jaxppo.store.read import WalkforwardData, times, values


def _folds(data: WalkforwardData) -> list[tuple[np.datetime64, str]]:
    """Where each fold begins."""
    starts = data.played.equity.group_by("fold", maintain_order=True).agg(pl.col("time").first())
    return [(start, f"fold {k}") for k, start in enumerate(times(starts), start=1)]


def portfolio(data: WalkforwardData) -> Chart:
    """Equity of the portfolio that is rebalanced daily among those of the rules, at equal volatility.

    Unscaled, a rule that only takes larger positions would look better than a policy of a higher Sharpe ratio.
    """
    best = data.summary["excess_over_best_rule"]["rule"]
    own = values(data.portfolio, "return")
    lines = [Line("policy", _grown(own), "policy", 2.2)]
    roles = {HOLD: ("black", 1.2), best: ("orange", 1.5)}
    for name in sorted(data.summary["baselines"], key=lambda name: name != best):
        returns = values(data.portfolio, name)
        role, width = roles.get(name, ("benchmark", 0.8))
        called = f"{title(name)}, the best rule" if name == best else title(name)
        drawn = at_volatility(returns, own) if own.std() > 0 else returns
        lines.append(Line(called, _grown(drawn), role, width, dashed=name == best, listed=name in (best, HOLD)))
    alt = f"Growth of 1.00 of the policy and {len(lines) - 1} rules at the policy's volatility, and their drawdowns."
    when = data.portfolio["date"].to_numpy()
    return growth("portfolio", "Rebalanced daily, at equal volatility", when, lines, alt, marks=_folds(data), log="on")


def _grown(returns: np.ndarray) -> np.ndarray:
    """Growth of 1 by returns (D,); of what was lost whole nothing can be drawn on a logarithmic axis."""
    grown: np.ndarray = np.maximum(np.cumprod(1.0 + returns), 1e-3)
    return grown


def equity(data: WalkforwardData) -> Chart:
    """The joined out-of-sample curve against buy-and-hold."""
    rows = data.played.equity
    named = (
        ("equity", "policy", "policy", 2.2),
        ("benchmark", "buy-and-hold, each fold", "orange", 1.4),
        ("benchmark_once", "buy-and-hold, once", "benchmark", 1.2),
    )
    lines = [Line(name, values(rows, column), role, width) for column, name, role, width in named]
    ends = ", ".join(f"{line.name} {percent(line.values[-1] - 1, sign=True)}" for line in lines)
    alt = f"Growth of 1.00 out of sample, all folds joined, and drawdown. At the end: {ends}."
    return growth("equity", "Equity and drawdown, all folds joined", times(rows), lines, alt, marks=_folds(data))


def folds(data: WalkforwardData) -> list[Chart]:
    """Sharpe ratio in and out of sample, and net return against buy-and-hold, by fold."""
    names = [f"fold {f}" for f in data.folds["fold"]]

    def pair(name: str, heading: str, columns: dict[str, str], form: str, roles: tuple[str, str]) -> Chart:
        heights = {called: values(data.folds, column).tolist() for called, column in columns.items()}
        return bars(name, heading, names, heights, f"{heading}: {', '.join(columns)}", form=form, roles=roles)

    sharpe = {"in sample": "in_sharpe", "out of sample": "out_sharpe"}
    returns = {"buy-and-hold": "out_buy_and_hold_return", "policy": "out_return"}
    return [
        pair("fold_sharpe", "Sharpe ratio by fold", sharpe, "number", ("sky", "policy")),
        pair("fold_return", "Net return of the test period", returns, "signed", ("benchmark", "policy")),
    ]
