"""Interactive charts of several runs at once: equity day by day, and what lies between them."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import polars as pl

from jaxppo.page.charts import Chart, growth
from jaxppo.page.charts import Line as Curve
from jaxppo.page.style import of_many
from jaxppo.page.text import number, percent, plural
from jaxppo.runs.compare import Part
from jaxppo.store.read import values


def equity(part: Part, name: str, title: str) -> Chart | None:
    """Growth of 1 of each over the days that all have in common; None where those are fewer than two."""
    if not part.curves:
        return None
    days = reduce(np.intersect1d, [curve["date"].to_numpy() for curve in part.curves.values()])
    if len(days) < 2:
        return None
    lines = []
    for i, (called, curve) in enumerate(part.curves.items()):
        role, dashed = of_many(i)
        lines.append(Curve(called, _since(curve, days), role, 1.8, dashed))
    ends = ", ".join(f"{line.name} {percent(line.values[-1] - 1, sign=True)}" for line in lines)
    alt = f"Growth of 1.00 over {plural(len(days), 'day')} and drawdown. At the end: {ends}."
    return growth(name, title, days, lines, alt)


def _since(curve: pl.DataFrame, days: np.ndarray) -> np.ndarray:
    """Growth of 1 on `days` (D,) since the day before the first of them; a curve has each of them."""
    equity, at = values(curve, "equity"), np.searchsorted(curve["date"].to_numpy(), days)
    grown: np.ndarray = equity[at] / (equity[at[0] - 1] if at[0] > 0 else 1.0)
    return grown


def differences(part: Part, name: str) -> Chart | None:
    """How far the first's Sharpe ratio is above each other's, as points on their intervals; None without any."""
    first = part.lines[0].name
    known = [(line.name, line.excess) for line in part.lines if line.excess and np.isfinite(line.excess).all()]
    if not known:
        return None
    ends = np.array([excess for _, excess in known] + [(0.0, 0.0, 0.0)])
    room = 0.06 * max(ends.max() - ends.min(), 0.1)
    points: list[dict[str, Any]] = []
    for other, (apart, low, high) in known:
        says = f"{first} less {other}: {number(apart)}, 90 % interval {number(low)} to {number(high)}"
        look = {"color": "@card" if low <= 0 <= high else "@policy", "borderColor": "@policy", "borderWidth": 2}
        points.append({"name": says, "value": [apart, other], "itemStyle": look})
    intervals = [[{"coord": [low, other]}, {"coord": [high, other]}] for other, (_, low, high) in known]
    zero = {"xAxis": 0, "lineStyle": {"color": "@grey", "width": 1}}
    option = {
        "grid": {"left": 8, "right": 20, "top": 10, "bottom": 26, "containLabel": True},
        "legend": {"show": False},
        "tooltip": {"trigger": "item", "confine": True, "formatter": "{b}"},
        "xAxis": {
            "type": "value",
            "min": ends.min() - room,
            "max": ends.max() + room,
            "name": "difference in Sharpe ratio a year",
            "nameLocation": "middle",
            "nameGap": 26,
            "axisLabel": {"formatter": "@tick", "showMinLabel": False, "showMaxLabel": False},
        },
        "yAxis": {"type": "category", "data": [other for other, _ in known], "inverse": True},
        "series": [
            {
                "type": "scatter",
                "symbolSize": 11,
                "data": points,
                "markLine": {
                    "silent": True,
                    "symbol": "none",
                    "label": {"show": False},
                    "lineStyle": {"color": "@policy", "type": "solid", "width": 2},
                    "data": [zero, *intervals],
                },
            }
        ],
    }
    alt = "; ".join(point["name"] for point in points)
    title = f"Sharpe ratio of {first} less that of each other"
    return Chart(name, title, option, alt, height=80 + 34 * len(known))
