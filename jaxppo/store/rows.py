"""From the program's scalars to rows: of metrics.csv and of the symbols' tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxppo.play.metrics import BUY_AND_HOLD, Metrics, figures, validation_metrics
from jaxppo.play.score import Figures, Pooled
from jaxppo.play.sides import Yardsticks
from jaxppo.store.columns import (
    ACTION,
    POOLED,
    PORTFOLIO,
    PORTFOLIO_PREFIX,
    PORTFOLIO_SHARPE,
    REDUCE,
    RUINED,
    VALIDATION_ACTION,
    of_each,
)


def train_means(rows: Mapping[str, np.ndarray], n_updates: int) -> dict[str, float]:
    """One value of each training column over a segment's updates (N,), of which the first `n_updates` were run."""
    if n_updates == 0:
        return {}
    return {name: _reduce(name, np.asarray(v[:n_updates], np.float64)) for name, v in rows.items()}


def _reduce(name: str, values: np.ndarray) -> float:
    kind = REDUCE.get(name, "mean")
    if kind == "mean":
        return float(np.nanmean(values)) if not np.isnan(values).all() else np.nan
    return float(values.sum() if kind == "sum" else values[-1])


def validation_row(of: Figures, labels: Sequence[str]) -> dict[str, float]:
    """The pooled figures of a validation, as metrics.csv names them. `of` are host arrays."""
    pooled = of.pooled._asdict()
    row = {f"val_{metric.column}": float(pooled[metric.name]) for metric in validation_metrics()}
    row["val_trades"] = int(pooled["trades"])
    row[f"val_{BUY_AND_HOLD.name}"] = float(of.hold)
    row[f"val_{RUINED.name}"] = int(of.ruined)
    row[f"val_{PORTFOLIO_SHARPE.name}"] = float(of.portfolio.sharpe)
    shares = zip(of_each(VALIDATION_ACTION, labels), of.action_share, strict=True)
    return row | {name: float(share) for name, share in shares}


def portfolio_rows(policies: Sequence[tuple[str, Metrics]], yardsticks: Yardsticks) -> list[dict[str, Any]]:
    """Figures of policies, by name, then of buy-and-hold and of the rules, each rebalanced daily."""
    named = [*policies, *((name, yardsticks.of(name).portfolio) for name in yardsticks.names)]
    return [{"name": name, **figures(metrics)} for name, metrics in named]


def pool_and_portfolio(pooled: Metrics, portfolio: Metrics) -> dict[str, float]:
    """Figures () of the pool, and those of the portfolio that is rebalanced daily as portfolio_*."""
    return figures(pooled) | {f"{PORTFOLIO_PREFIX}{name}": x for name, x in figures(portfolio).items()}


def member_rows(members: Pooled) -> list[dict[str, Any]]:
    """One row a member of an ensemble, from 0: what `pool_and_portfolio` has of it. `members` (M,) are host arrays."""
    each = [jax.tree.map(lambda x, i=i: x[i], members) for i in range(len(members.metrics.net_return))]
    return [{"member": i, **pool_and_portfolio(one.metrics, one.portfolio)} for i, one in enumerate(each)]


def member_spread(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Lowest, mean and highest of each figure of `member_rows`, each figure by itself; NaN where no member has one."""
    names = [name for name in rows[0] if name != "member"]
    columns = {name: np.asarray([row[name] for row in rows], np.float64) for name in names}
    known = {name: x[~np.isnan(x)] for name, x in columns.items()}
    ends: dict[str, Callable[[np.ndarray], Any]] = {"lowest": np.min, "mean": np.mean, "highest": np.max}
    return {end: {name: float(of(x)) if len(x) else np.nan for name, x in known.items()} for end, of in ends.items()}


def symbol_rows(of: Figures, symbols: Sequence[str], labels: Sequence[str]) -> list[dict[str, Any]]:
    """One row a symbol, then POOLED and PORTFOLIO, with every metric and the share of each action."""

    def row(name: str, metrics: Metrics, hold: Any, shares: Any) -> dict[str, Any]:
        named: dict[str, Any] = {"symbol": name, **figures(metrics)}
        named |= {"trades": int(metrics.trades), "bars": int(metrics.bars), BUY_AND_HOLD.name: float(hold)}
        return named | {name: float(s) for name, s in zip(of_each(ACTION, labels), shares, strict=True)}

    rows = [
        row(name, jax.tree.map(lambda x, i=i: x[i], of.symbols), of.symbol_hold[i], of.symbol_action_share[i])
        for i, name in enumerate(symbols)
    ]
    rows.append(row(POOLED, of.pooled, of.hold, of.action_share))
    return [*rows, row(PORTFOLIO, of.portfolio, np.nan, of.action_share)]
