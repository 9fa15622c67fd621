"""An ensemble next to its members, each of which was played alone: on the terminal and on a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from jaxppo.page import tables
from jaxppo.page.terminal import cell, figure_table
from jaxppo.page.text import number
from jaxppo.store.columns import PORTFOLIO_PREFIX, of_portfolio
from jaxppo.store.rows import member_spread

Row = Mapping[str, Any]
"""Figures of the pool and, with `PORTFOLIO_PREFIX`, of the portfolio that is rebalanced daily, as `member_rows` has."""


def _of_pool(row: Row) -> dict[str, Any]:
    return {k: v for k, v in row.items() if not k.startswith(PORTFOLIO_PREFIX) and k != "member"}


def _spread_rows(ensemble: Row, members: Sequence[Row]) -> list[tuple[str, Row]]:
    own = {name: value for name, value in ensemble.items() if name in members[0]}
    return [("ensemble", own), *((f"members, {end}", row) for end, row in member_spread(members).items())]


def members_table(ensemble: Row, members: Sequence[Row]) -> Table:
    """The ensemble, and lowest, mean and highest of each figure over its members, rebalanced daily."""
    named = [(name, of_portfolio(row)) for name, row in _spread_rows(ensemble, members)]
    return figure_table("Rebalanced daily: the ensemble and its members, each alone", "", named)


def members_line(ensemble: Row, members: Sequence[Row]) -> str:
    """The spread in one line."""
    ends, column = member_spread(members), f"{PORTFOLIO_PREFIX}sharpe"
    low, high, own = (cell("number", float(row[column])) for row in (ends["lowest"], ends["highest"], ensemble))
    return f"members: rebalanced daily, Sharpe ratios of the {len(members)} alone {low} to {high}; the ensemble {own}"


def members_sentence(members: Sequence[Row]) -> str:
    """The spread for a headline, after a space; empty where there are no members."""
    if not members:
        return ""
    ends, column = member_spread(members), f"{PORTFOLIO_PREFIX}sharpe"
    low, high = (number(ends[end][column]) for end in ("lowest", "highest"))
    return f" Alone, its {len(members)} members have Sharpe ratios, rebalanced daily, from {low} to {high}."


def members_section(ensemble: Row, members: Sequence[Row]) -> str:
    """HTML of the same under a heading, of every figure, with each member to unfold; empty where there are none."""
    if not members:
        return ""
    note = (
        "The members differ in the random numbers of their training alone. The policy acts by the mean of their action "
        "probabilities; here each was played alone, on the same bars at the same costs. Lowest, mean and highest are "
        "of each figure by itself. How far they lie apart is what the random numbers decide."
    )
    spread = _spread_rows(ensemble, members)
    each = [(f"member {row['member']:.0f}", row) for row in members]

    def both(named: Sequence[tuple[str, Row]]) -> str:
        daily = [(f"{name}, rebalanced daily".capitalize(), of_portfolio(row)) for name, row in named]
        return tables.metric_tables("", [*daily, *((name.capitalize(), _of_pool(row)) for name, row in named)])

    folded = f"<details><summary>Each member</summary>{both(each)}</details>"
    return f'<h3>The ensemble and its members</h3><p class="muted">{tables.esc(note)}</p>{both(spread)}{folded}'
