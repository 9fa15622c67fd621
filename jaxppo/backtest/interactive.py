"""Interactive charts of a backtest."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxppo.page.charts import Band, Chart, Line, growth
from jaxppo.page.text import percent
from jaxppo.play.rules import RULES
from jaxppo.store.columns import POOLED
from jaxppo.store.read import BacktestData, lookup, of_symbol, times, values


def equity(data: BacktestData) -> Chart:
    """Pooled equity against buy-and-hold, the best rule and the band of the random draws, over their drawdowns."""
    pooled, rule = of_symbol(data.played.equity, POOLED), lookup(data.facts, "best_rule", default="")
    lines = [Line("policy", values(pooled, "equity"), "policy", 2.2)]
    lines.append(Line("buy-and-hold", values(pooled, "benchmark"), "benchmark"))
    if rule in data.curves.columns:
        title = RULES[rule].title if rule in RULES else rule
        lines.append(Line(title, values(data.curves, rule), "orange", 1.4, dashed=True))
    low, high = (values(data.curves, f"random_p{q}") for q in (5, 95))
    band = Band("random times, 5th to 95th percentile", low, high)
    ends = ", ".join(f"{line.name} {percent(line.values[-1] - 1, sign=True)}" for line in lines)
    alt = f"Growth of 1.00 over time and drawdown. At the end: {ends}."
    return growth("equity", "Equity and drawdown", times(pooled), lines, alt, band=band)


def random_draws(data: BacktestData) -> Chart:
    """Net return of every random draw, with the policy's and buy-and-hold's among them."""
    pooled = of_symbol(data.played.equity, POOLED)
    returns = np.sort(values(data.draws, "return"))
    policy, hold = values(pooled, "equity")[-1] - 1, values(pooled, "benchmark")[-1] - 1

    def dots(name: str, points: Any, role: str, symbol: str, size: int) -> dict[str, Any]:
        # Neighbours on other levels, so that dots do not hide each other.
        levels = [[float(x), 0.2 * (i % 3)] for i, x in enumerate(points)]
        look = {"color": f"@{role}", "borderColor": "@card", "borderWidth": 1}
        return {
            "name": name,
            "type": "scatter",
            "symbol": symbol,
            "symbolSize": size,
            "itemStyle": look,
            "data": levels,
            "encode": {"x": 0, "y": 1, "tooltip": [0]},
        }

    option = {
        "grid": {"left": 20, "right": 24, "top": 36, "bottom": 28},
        "xAxis": {"type": "value", "scale": True, "axisLabel": {"formatter": "@ticks_percent"}},
        "yAxis": {"type": "value", "show": False, "min": -0.3, "max": 0.7},
        "tooltip": {"trigger": "item", "valueFormatter": "@signed"},
        "series": [
            dots("random times", returns, "sky", "circle", 11),
            dots("buy-and-hold", [hold], "grey", "rect", 13),
            dots("policy", [policy], "policy", "diamond", 17),
        ],
    }
    title = "Net return: the policy among its own positions at random other times"
    alt = (
        f"Of {len(returns)} random draws {int((returns < policy).sum())} made less than the policy's"
        f" {percent(policy, sign=True)}."
    )
    return Chart("random", title, option, alt, height=170)
