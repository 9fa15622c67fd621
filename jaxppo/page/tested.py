"""What decides about a policy: how it did in a backtest, against holding, the best rule and a linear baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jaxppo.page import gate
from jaxppo.page.scoreboard import Answer, Score, scoreboard
from jaxppo.page.text import between, number, percent, plural
from jaxppo.page.yardsticks import Portfolios, title
from jaxppo.play.sides import HOLD
from jaxppo.store.read import Tested, lookup

NOTE = (
    "Of the portfolio that is rebalanced daily, after all costs. Intervals are from resampled blocks of these very "
    "days; differences are taken in pairs, day by day. The best rule is chosen in hindsight, on these days. "
    "The return, drawdown and fitness that the gate holds against its thresholds are of accounts that are never "
    "rebalanced, so they may differ from the table\u2019s."
)
FEW_DAYS = 20
LINEAR = ("linear_1", "linear_10")
"""The linear baselines; the better one is on the scoreboard."""


def scores(
    portfolios: Portfolios, policy: str, interval: Any, against: Mapping[str, Mapping[str, Any]], best: str
) -> list[Score]:
    """The policy, buy-and-hold, the best rule and the best linear baseline.

    Args:
      portfolios: figures by name.
      policy: its name among them.
      interval: both ends of its Sharpe ratio's; None where not known.
      against: of each baseline `interval_90`, `sharpe_difference` and `difference_90`, where known.
      best: name of the best rule.
    """
    if policy not in portfolios:
        return []
    linear = [name for name in LINEAR if name in portfolios]
    chosen = [HOLD, best, *([max(linear, key=lambda name: portfolios[name]["sharpe"])] if linear else [])]

    def score(name: str, called: str, ends: Any, note: str = "") -> Score:
        row = portfolios[name]
        known = (ends[0], ends[1]) if ends else None
        made, fell = (float(row.get(column, math.nan)) for column in ("return", "max_drawdown"))
        return Score(called, float(row["sharpe"]), known, made, fell, note, name == policy)

    found = [score(policy, title(policy), interval)]
    for name in dict.fromkeys(n for n in chosen if n in portfolios):
        own = against.get(name, {})
        what = {HOLD: "Buy-and-hold", best: f"Best rule: {title(name)}"}.get(name, f"Linear baseline: {title(name)}")
        note = ""
        if "difference_90" in own:
            low, high = own["difference_90"]
            note = f"{number(own['sharpe_difference'])} ({between(low, high)})"
        found.append(score(name, what, own.get("interval_90"), note))
    return found


def few_days(days: int) -> str:
    """What stands before the note of a scoreboard of so few days that its intervals are empty words: of two days all
    draws are one of four, and an end lies at 0 or at the Sharpe ratio itself.

    Example:
      >>> few_days(2), few_days(20)
      ('2 days are too few for a Sharpe ratio or an interval to mean anything. ', '')
    """
    if days >= FEW_DAYS:
        return ""
    many = plural(days, "day") + (" is" if days == 1 else " are")
    return f"{many} too few for a Sharpe ratio or an interval to mean anything. "


def board(data: Tested, below: str = "") -> str:
    """HTML of the verdict over the scoreboard of a backtest."""
    interval = lookup(data.facts, "portfolio_intervals_90", "sharpe")
    against = lookup(data.facts, "against", "baselines", default={})  # not in earlier versions
    best = lookup(data.facts, "best_rule", default="")
    days = lookup(data.portfolios.get("policy", {}), "bars")
    note = NOTE if days is None else few_days(int(days)) + NOTE
    return scoreboard(answer(data), scores(data.portfolios, "policy", interval, against, best), below, note)


def answer(data: Tested) -> Answer:
    """The gate's verdict in words, and the Sharpe ratio that decides."""
    f, found = data.facts, gate.verdict(data.gate)
    row = data.portfolios.get("policy") or data.pooled
    low, high = lookup(f, "portfolio_intervals_90", "sharpe", default=f["intervals_90"]["sharpe"])
    seen = f["seen"].get("test") == 1
    where = "bars that the run had never seen" if seen else "bars that the run had seen, in part or whole"
    figure = f"Sharpe ratio {number(row['sharpe'])} a year"
    meaning = (
        f"policy of update {number(f['update'], 0)}, rebalanced daily, on {where},"
        f" {f['first_decision'][:10]} to {f['last_decision'][:10]};"
        f" 90 % interval {between(low, high)}"
    )
    return Answer(found.tone, found.title, _sentence(data), figure, meaning, looked_at=not seen)


def _sentence(data: Tested) -> str:
    """What the policy made and whether it beat holding and the best rule: the figures of the table under it."""
    excess = lookup(data.facts, "against", "excess_over_best_rule")
    own, held = data.portfolios.get("policy"), data.portfolios.get(HOLD)
    if not own or not held:  # of an earlier version
        own, held = data.pooled, data.facts["baselines"][HOLD]
    made = f"{percent(own['return'], sign=True)} after costs"
    hold = f"{percent(held['return'], sign=True)} for buy-and-hold"
    if excess is None:
        return f"The policy made {made}, against {hold}."
    rule = "buy-and-hold" if excess["rule"] == HOLD else title(excess["rule"])
    said = {
        "beats": f"It beats the best rule, {rule}, beyond chance.",
        "cannot be told": f"Whether it beats the best rule, {rule}, these bars cannot tell.",
        "does not beat": f"It does not beat the best rule, {rule}.",
    }[excess["verdict"]]
    short = "" if data.gate.verdict == "APPROVED" else f" {gate.verdict(data.gate).text}"
    return f"The policy made {made}, against {hold}. {said}{short}"
