"""What the figures of a backtest say: key figures, a verdict, warnings, and words on chance and costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from jaxppo.page import gate, tables
from jaxppo.page.document import Card, Remark
from jaxppo.page.members import members_sentence
from jaxppo.page.sections import drawdown_card, profit_card, return_card, tone
from jaxppo.page.text import between, moment, number, percent, plain_value, plural
from jaxppo.page.yardsticks import against_rules
from jaxppo.store.read import BacktestData, lookup


def cards(data: BacktestData) -> list[Card]:
    """The six figures that a trader asks for first, each next to what puts it in its place."""
    p, f = data.pooled, data.facts
    hold = f["baselines"]["buy_and_hold"]
    interval = f["intervals_90"]["sharpe"]
    beaten = f["random_beaten_share"]
    return [
        return_card(p["return"], hold["return"]),
        Card(
            "Sharpe ratio",
            number(p["sharpe"]),
            f"90 % interval {between(*interval)}",
            tone(p["sharpe"] > 0, p["sharpe"]),
        ),
        drawdown_card(p["max_drawdown"], hold["max_drawdown"], hold["max_drawdown"]),
        profit_card(p["profit_factor"], f"win rate {percent(p['win_rate'], 0)}"),
        Card("Closed trades", number(p["trades"], 0), f"turnover {number(p['turnover'], 1)} a year"),
        Card(
            "Beats random times",
            percent(beaten, 0),
            f"of {plural(int(f['random_draws']), 'draw')} of its own positions",
            "good" if beaten >= 0.95 else "bad" if beaten < 0.5 else "caution",
        ),
    ]


def verdict(data: BacktestData) -> tuple[Remark, str]:
    """What became of the money under the gate's verdict, and what stands between the policy and approval."""
    found, hold = gate.verdict(data.gate), data.facts["baselines"]["buy_and_hold"]
    money = (
        f"After fees, spread, slippage and borrow cost 1.00 became {number(1 + data.pooled['return'])}; bought and "
        f"held at the same costs it became {number(1 + hold['return'])}."
    )
    against = against_rules(data.portfolios, "policy")
    money += (f" {against.sentence}" if against else "") + members_sentence(data.members)
    return Remark(found.tone, found.title, money), found.text


def warnings(data: BacktestData) -> list[Remark]:
    """What the policy had seen of these bars, and what is odd about them or it."""
    f = data.facts
    seen = f["seen"]
    grave = ("in sample", "trained on")
    found = [
        Remark("bad" if any(g in text for g in grave) else "caution", "Mind", f"{text[:1].upper()}{text[1:]}.")
        for text in f["warnings"]
    ]
    if data.pooled["trades"] == 0:
        found.insert(0, Remark("bad", "No trade", "The policy closed no trade; no figure here says anything of it."))
    if seen.get("test") == 1:
        text = "Every decision lies after the run's validation period: nothing here was trained on or chosen by."
        found.insert(0, Remark("good", "Out of sample", text))
    found += gate.flags(data.gate)
    return found or [Remark("good", "None", "Nothing unusual about the bars or the policy.")]


def chance_words(data: BacktestData) -> list[str]:
    """The probabilistic and the deflated Sharpe ratio in a trader's words."""
    f = data.facts
    looks = int(f["looks"])
    plain, deflated = f["probabilistic_sharpe"], f["deflated_sharpe"]
    if math.isnan(plain):
        return ["Equity never moved, so there is no Sharpe ratio whose chances could be judged."]
    first = (
        f"Judged by these bars alone, the chance that the policy's true Sharpe ratio is above 0 is {percent(plain, 0)} "
        "(probabilistic Sharpe ratio; it accounts for how few bars there are, and for skew and fat tails)."
    )
    if looks <= 1:
        return [first, "The policy was not chosen from several, so there is no luck of choosing to take off."]
    second = (
        f"But the policy was picked from {looks} looks at validation bars, and the best of many is partly luck: of "
        f"{looks} policies without any skill the best would be expected to show a Sharpe ratio of about "
        f"{number(f['luck_sharpe'])} over a period as long as this. The chance that the true one is above even that is "
        f"{percent(deflated, 0)} (deflated Sharpe ratio)."
    )
    if f["split"] == "test":
        second += " The test bars themselves took no part in the picking, so that is on the careful side."
    return [first, second]


def break_even(costs: list[dict[str, float]]) -> float:
    """Multiple of the costs at which the net return is 0, by straight lines between those played; nan for none."""
    points = [(row["cost_multiple"], row["return"]) for row in costs]
    for (m0, r0), (m1, r1) in itertools.pairwise(points):
        if r0 > 0 >= r1:
            return m0 + (m1 - m0) * r0 / (r0 - r1)
    return math.nan


def cost_words(data: BacktestData) -> str:
    """What is left at other costs, in one sentence."""
    rows = data.facts["costs"]
    at, most = break_even(rows), rows[-1]["cost_multiple"]
    if rows[0]["return"] <= 0:
        return "Even without any costs the policy makes nothing; cheaper trading would not save it."
    if math.isnan(at):
        return f"The policy still makes money at {number(most, 0)} times the costs assumed."
    if at < 1:
        return f"The market's moves pay for only {number(at)} times the costs assumed: trading eats the edge."
    return f"The profit is gone at about {number(at)} times the costs assumed."


def facts(data: BacktestData) -> list[tuple[str, str]]:
    f = data.facts
    terms = f["terms"]
    cut = lookup(f, "cutoffs")
    return [
        ("Run", f["run"]),
        (
            "Policy",
            f"update {number(f['update'], 0)} ({f['which']}), validation fitness {number(f['validation_fitness'])}",
        ),
        ("Looks", f"{plural(int(f['looks']), 'validation')} that the policy was chosen from"),
        (
            "Run's splits cut at",
            ", ".join(moment(t) for t in cut) if isinstance(cut, list) else "each symbol on its own",
        ),
        ("Bars", f"{f['source']}, hash {f['data_hash'][: tables.HASH_DIGITS]}"),
        ("Bars a year", f"{number(f['bars_per_year'], 0)}, all symbols together"),
        ("Decisions by the run's dates", _periods(f["seen"]) or "not known"),
        *_terms(terms),
        ("Actions", ", ".join(f"{k} {percent(v, 0)}" for k, v in f["action_share"].items())),
        ("Random draws", f"{number(f['random_draws'], 0)}, seed {plain_value(f['seed'])}"),
    ]


def _periods(seen: Mapping[str, float]) -> str:
    return ", ".join(f"{k.replace('_', ' ')} {percent(v)}" for k, v in seen.items() if v > 0)


def _terms(terms: dict[str, Any]) -> list[tuple[str, str]]:
    """Costs and rules; where costs are by symbol, their medians, and what a side costs in all."""
    by_symbol = lookup(terms, "costs")
    typical = ", median" if by_symbol else ""
    rows = [(f"Fee a side{typical}", ", ".join(f"{k} {percent(v, 3)}" for k, v in terms["fee"].items()))]
    for name, value in terms.items():
        if name not in ("fee", "costs"):
            middle = typical if name in ("spread", "borrow") else ""
            rows.append((name.replace("_", " ").capitalize() + middle, _term(name, value)))
    if by_symbol:
        median, low, high = (percent(by_symbol["side"][k], 3) for k in ("median", "low", "high"))
        said = f"median {median}, from {low} to {high}; {plural(int(by_symbol['symbols']), 'symbol')}"
        rows.append(("A side in all", f"{said}; {by_symbol['file']}, hash {by_symbol['hash'][: tables.HASH_DIGITS]}"))
    return rows


def _term(name: str, value: float) -> str:
    if name == "max_exposure":
        return number(value)
    return "none" if value == 0 else percent(value, 3)
