"""What a page shows of much, and from when on it warns."""

from __future__ import annotations

import polars as pl

from jaxppo.config.schema import GateConfig
from jaxppo.store.columns import POOLED
from jaxppo.store.read import Evaluation

MAX_SYMBOLS = 12  # panels of the small multiples
MAX_TRADES = 40  # drawn on the price; more cannot be told apart
MIN_TRADES = GateConfig().gate_trades_review
"""Closed trades below which a page warns that win rate and profit factor are mostly chance."""
DRAWDOWN_LIMIT = 0.15


def ranked_symbols(evaluation: Evaluation) -> list[str]:
    """Symbols by their last equity, highest first."""
    last = evaluation.equity.filter(pl.col("symbol") != POOLED).group_by("symbol").agg(pl.col("equity").last())
    return last.sort(["equity", "symbol"], descending=[True, False])["symbol"].to_list()


def busiest_symbol(evaluation: Evaluation) -> str | None:
    """The symbol with the most closed trades (the first by name of several), None without any trade."""
    counts = evaluation.trades.group_by("symbol").len().sort(["len", "symbol"], descending=[True, False])
    return counts["symbol"][0] if counts.height else None
