"""A policy next to the rules on a page: who is the best of them, in a sentence and in a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxppo.page import tables
from jaxppo.page.text import number
from jaxppo.play.rules import RULES
from jaxppo.play.sides import HOLD

POLICIES = {"best": "Best policy", "final": "Final policy", "policy": "Policy"}
NAMES = {**POLICIES, HOLD: "Buy-and-hold"}

Portfolios = Mapping[str, Mapping[str, Any]]
"""Figures of portfolios that are rebalanced daily, by the names of policies, buy-and-hold and rules."""


class Against(NamedTuple):
    """Sharpe ratios, rebalanced daily."""

    policy: float
    rule: str  # title of the best rule; buy-and-hold is one
    best: float  # its own

    @property
    def beaten(self) -> bool:
        """Whether the policy is no better than the best rule."""
        return not self.policy > self.best

    @property
    def sentence(self) -> str:
        return (
            f"Rebalanced daily, the policy's Sharpe ratio is {number(self.policy)}; that of the best rule,"
            f" {self.rule}, is {number(self.best)}."
        )


def title(name: str) -> str:
    """What a page calls a policy or a rule."""
    return NAMES[name] if name in NAMES else RULES[name].title if name in RULES else name


def best_rule(portfolios: Portfolios) -> str | None:
    """Name of the rule of the highest Sharpe ratio, buy-and-hold among them; None where none is known."""
    rules = {name: float(row["sharpe"]) for name, row in portfolios.items() if name not in POLICIES}
    known = {name: sharpe for name, sharpe in rules.items() if not math.isnan(sharpe)}
    return max(known, key=lambda name: known[name], default=None)


def against_rules(portfolios: Portfolios, policy: str) -> Against | None:
    """A policy against the best rule; None where a folder of an earlier version has no rules."""
    best = best_rule(portfolios)
    if policy not in portfolios or best is None:
        return None
    return Against(float(portfolios[policy]["sharpe"]), title(best), float(portfolios[best]["sharpe"]))


def portfolio_table(portfolios: Portfolios) -> str:
    """HTML of the figures of policies and rules, under a heading; empty where there are none."""
    if not portfolios:
        return ""
    heading = "<h3>Rebalanced daily: the policy and the rules, at the same costs</h3>"
    return heading + tables.metric_tables("", [(title(name), dict(row)) for name, row in portfolios.items()])
