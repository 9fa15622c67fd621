"""The worst trades on a page, a card each to unfold, with what the policy saw when it opened them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxppo.page import tables
from jaxppo.page.document import Section
from jaxppo.page.sections import TRADES, folded, muted
from jaxppo.page.tables import REASONS, SIDES, esc
from jaxppo.page.text import action_name, moment, number, percent, plural

STRIKING = 8
"""Features that are shown at first: those farthest from the middle of what was seen."""


def _returned(seen: float, size: float = 1.0) -> str:
    """A return that the policy is shown as tanh(10 * return * size)."""
    if abs(seen) > 0.998:
        return f"beyond {percent(math.copysign(math.atanh(0.998) / (10.0 * size), seen), 0, sign=True)}"
    return percent(math.atanh(seen) / (10.0 * size), sign=True)


ACCOUNT: dict[str, tuple[str, Callable[[float], str]]] = {
    "total_return": ("Return so far", _returned),
    "win_rate": ("Trades won so far (50 % before the first)", lambda x: percent(x, 0)),
    "drawdown": ("Drawdown", percent),
    "exposure": ("Exposure", number),
    "unrealised_return": ("Open position", _returned),
    "bars_held": ("Bars held", lambda x: number(math.expm1(x * math.log1p(256)), 0)),
    "stop_distance": ("Distance to the stop, of the set one", number),
    "take_profit_distance": ("Distance to the take-profit, of the set one", number),
}
"""The account vector in a trader's terms; what it is shown as, `jaxppo.env.trading.observe_account` says."""


def section(trades: Sequence[Mapping[str, Any]] | None, median: float = math.nan) -> list[Section]:
    """The section; none for a folder of an earlier version, or without trades.

    Args:
      trades: of a `BacktestData`.
      median: probability of the action at the median decision, where known.
    """
    if not trades:
        return []
    words = f"<p>{esc(summary(trades, median))}</p>"
    note = (
        "Chosen because they lost, so what they have in common may stand before the best trades just as often. "
        "Features are those of the newest bar; an encoder also saw the bars before. The percentile is among all "
        "decisions played."
    )
    body = words + "".join(_card(trade) for trade in trades) + muted(note)
    return [Section("worst", _heading(len(trades)), body, TRADES)]


def _heading(count: int) -> str:
    return f"The worst {count} trades" if count > 1 else "The worst trade"


def summary(trades: Sequence[Mapping[str, Any]], median: float = math.nan) -> str:
    """What they cost together, and how sure the policy was."""
    lost, paid = sum(t["pnl"] for t in trades), sum(t["costs"] for t in trades)
    symbols = {t["symbol"] for t in trades}
    chances = sorted(max(t["decision"]["probabilities"].values()) for t in trades)
    where = next(iter(symbols)) if len(symbols) == 1 else f"{len(symbols)} symbols"
    words = (
        f"Together they made {percent(lost, sign=True)} of the equity that one account started with, of which costs "
        f"are {percent(-paid, sign=True)}, on {where}. Where they were opened, the most probable action had "
        f"{percent(chances[0], 0)} to {percent(chances[-1], 0)}"
    )
    return words + (f"; at the median decision it has {percent(median)}." if math.isfinite(median) else ".")


def _card(trade: Mapping[str, Any]) -> str:
    seen = trade["decision"]
    head = (
        f"{int(trade['rank'])}. {trade['symbol']} {SIDES.get(trade['side'], trade['side']).lower()}: "
        f"{percent(trade['pnl'], 2, sign=True)} of equity, {moment(trade['entry_time'])}, "
        f"{plural(int(trade['bars']), 'bar')}"
    )
    facts = [
        ("Entry", f"{moment(trade['entry_time'])} at {_price(trade['entry_price'])}"),
        ("Exit", f"{moment(trade['exit_time'])} at {_price(trade['exit_price'])}"),
        ("Closed by", REASONS.get(trade["reason"], trade["reason"])),
        (
            "Net profit",
            f"{percent(trade['pnl'], 2, sign=True)} of the starting equity, "
            f"{percent(trade['return'], 2, sign=True)} of what was entered",
        ),
        ("Costs", f"{percent(trade['costs'], 2)} of the starting equity: {_costs(trade)}"),
        ("Ran", f"at best {percent(trade['mfe'], 2, sign=True)}, at worst {percent(trade['mae'], 2, sign=True)}"),
        ("Decided", f"{moment(seen['time'])} (start of the bar), {_probabilities(seen)}"),
        ("Mean exposure asked for", number(seen["asked"])),
    ]
    return folded(
        head,
        tables.definitions(facts)
        + "<h3>The account that it saw</h3>"
        + tables.definitions(_account(seen["account"], float(seen["size"])))
        + _features(seen["features"]),
    )


def _price(price: float) -> str:
    return f"{price:,.6g}"


def _costs(trade: Mapping[str, Any]) -> str:
    parts = [("fees", "fees"), ("impact", "spread and slippage"), ("borrow", "borrow")]
    paid = [f"{name} {percent(trade[key], 2)}" for key, name in parts if trade[key] != 0]
    return ", ".join(paid) or "none"


def _probabilities(seen: Mapping[str, Any]) -> str:
    found = sorted(seen["probabilities"].items(), key=lambda item: -item[1])
    return ", ".join(f"{action_name(label)} {percent(p)}" for label, p in found)


def _account(account: Mapping[str, float], size: float) -> list[tuple[str, str]]:
    """The account; `size` is the exposure that an action's 1 stands for, by which some of it is shown multiplied."""
    rows = []
    for name, (title, show) in ACCOUNT.items():
        seen = float(account.get(name, math.nan))
        nothing = name.endswith("_distance") and seen == 0.0  # there is no such level, or no position
        if not math.isnan(seen) and not nothing:
            rows.append((title, _returned(seen, size) if name == "unrealised_return" else show(seen)))
    if size != 1.0:
        rows.append(("Size of a position by volatility, which exposures are in", number(size)))
    return rows


def _features(features: Sequence[Mapping[str, Any]]) -> str:
    """The most striking ones, and all."""

    def listed(some: Sequence[Mapping[str, Any]]) -> str:
        rows = [[f["name"], f["group"], number(f["value"]), number(f["percentile"], 0)] for f in some]
        return tables.table(["Feature", "Group", "Value", "Percentile"], rows, text_columns=2)

    striking = sorted(features, key=lambda f: -abs(f["percentile"] - 50.0))[:STRIKING]
    body = f"<h3>Features farthest from the middle</h3>{listed(striking)}"
    if len(features) <= STRIKING:
        return body
    return body + folded(f"All {len(features)} features", listed(features))
