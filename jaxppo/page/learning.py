"""Interactive charts over the course of training, from the rows of metrics.csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from jaxppo.page import document
from jaxppo.page.charts import Chart
from jaxppo.page.curves import Panel, action_colors, components, training_panels, validation_panels
from jaxppo.page.style import CYCLE_ROLES, of_many
from jaxppo.page.text import action_name
from jaxppo.play.metrics import Column
from jaxppo.store.read import values

HEIGHT = 200
_PERCENT = ("percent", "share", "signed", "fine", "loss")


def validation_curves(metrics: pl.DataFrame, best: int | None) -> str:
    """HTML of how the policy did on the validation bars, row `best` marked."""
    return _side_by_side([_panel(metrics, panel, best) for panel in validation_panels()])


def training_curves(metrics: pl.DataFrame) -> str:
    """HTML of how the optimisation went."""
    return _side_by_side([_panel(metrics, panel, None) for panel in training_panels()])


def compared(metrics: Mapping[str, pl.DataFrame], panels: Sequence[tuple[str, Column]]) -> str:
    """HTML of one panel a column, with a line for each of several runs; runs without a row have none."""
    drawn = {name: frame for name, frame in metrics.items() if frame.height}
    found = []
    for column, of in panels if drawn else ():
        title = of.title or of.name.replace("_", " ")
        lines = [_line(frame, column, name, *of_many(i)) for i, (name, frame) in enumerate(drawn.items())]
        alt = f"{title} of {', '.join(drawn)} over env steps: {of.meaning}"
        found.append(Chart(f"learning_{column}", title, _axes(_ticks(of)) | {"series": lines}, alt, height=240))
    return _side_by_side(found)


def reward_components(metrics: pl.DataFrame) -> str:
    """HTML of mean, share and saturation of each reward component; empty where metrics.csv has none."""
    names = components(metrics)
    if not names:
        return ""
    kinds = (
        ("mean", "Mean a step", "tick"),
        ("share", "Share of the reward", "percent0"),
        ("saturation", "Saturated steps", "percent0"),
    )
    found = []
    for kind, title, form in kinds:
        series = [
            _line(metrics, f"reward_{name}_{kind}", name.replace("_", " "), CYCLE_ROLES[i % len(CYCLE_ROLES)])
            for i, name in enumerate(names)
        ]
        option = _axes(form) | {"series": series}
        alt = f"{title} of each reward component over env steps"
        found.append(Chart(f"component_{kind}", title, option, alt, height=260))
    return _side_by_side(found)


def action_shares(metrics: pl.DataFrame) -> str:
    """HTML of the share of each action in training and in validation; empty where there is none."""
    labels = [c.removeprefix("val_action_share_") for c in metrics.columns if c.startswith("val_action_share_")]
    if not labels:
        return ""
    found = []
    for prefix, title in (("action_share_", "Training"), ("val_action_share_", "Validation")):
        series = [
            {
                "name": action_name(label),
                "type": "bar",
                "stack": "share",
                "barCategoryGap": "8%",
                "data": np.nan_to_num(values(metrics, prefix + label), posinf=0.0, neginf=0.0),
                "itemStyle": {"color": color},
            }
            for label, color in zip(labels, action_colors(labels), strict=True)
        ]
        option = {
            "grid": {"left": 8, "right": 14, "top": 40, "bottom": 8, "containLabel": True},
            "tooltip": {"trigger": "axis", "confine": True, "valueFormatter": "@percent0"},
            "xAxis": {
                "type": "category",
                "data": values(metrics, "env_steps"),
                "axisLabel": {"formatter": "@count_text"},
            },
            "yAxis": {"type": "value", "max": 1, "axisLabel": {"formatter": "@percent0"}},
            "series": series,
        }
        alt = f"Share of each action in {title.lower()}, a bar a validation"
        found.append(Chart(f"actions_{title.lower()}", title, option, alt, height=260))
    return _side_by_side(found)


def _side_by_side(charts: Sequence[Chart]) -> str:
    if not charts:
        return ""
    return f'<div class="panels">{"".join(document.chart(chart) for chart in charts)}</div>'


def _ticks(column: Column) -> str:
    return "ticks_percent" if column.form in _PERCENT else "tick"


def _axes(form: str) -> dict[str, Any]:
    return {
        "grid": {"left": 8, "right": 16, "top": 34, "bottom": 8, "containLabel": True},
        "tooltip": {"trigger": "axis", "confine": True, "valueFormatter": f"@{form}"},
        "xAxis": {"type": "value", "axisLabel": {"formatter": "@count"}, "min": "dataMin", "max": "dataMax"},
        "yAxis": {"type": "value", "scale": True, "splitNumber": 4, "axisLabel": {"formatter": f"@{form}"}},
    }


def _line(metrics: pl.DataFrame, column: str, name: str, role: str, dashed: bool = False) -> dict[str, Any]:
    x, y = values(metrics, "env_steps"), values(metrics, column)
    return {
        "name": name,
        "type": "line",
        "data": np.stack([x, np.where(np.isfinite(y), y, np.nan)], axis=1),
        "symbolSize": 5,
        "showSymbol": metrics.height <= 60 and not dashed,
        "lineStyle": {"color": f"@{role}", "width": 1.7, "type": "dashed" if dashed else "solid"},
        "itemStyle": {"color": f"@{role}"},
    }


def _panel(metrics: pl.DataFrame, panel: Panel, best: int | None) -> Chart:
    """One column over env steps; infinite values are left out, and said."""
    title, y = panel.column.title, values(metrics, panel.name)
    series = [_line(metrics, panel.name, title, "policy")]
    if panel.other:
        series.append(_line(metrics, panel.other, "buy-and-hold", "benchmark", dashed=True))
    if panel.reference is not None:
        series[0]["markLine"] = {
            "silent": True,
            "symbol": "none",
            "label": {"show": False},
            "lineStyle": {"color": "@grey", "type": "solid", "width": 1},
            "data": [{"yAxis": panel.reference}],
        }
    if best is not None and np.isfinite(y[best]):
        point = {"coord": [values(metrics, "env_steps")[best], y[best]], "symbol": "circle", "symbolSize": 10}
        look = {"itemStyle": {"color": "@vermillion"}, "label": {"show": False}}
        series[0]["markPoint"] = {"silent": True, "data": [point | look]}
    infinite = int(np.isposinf(y).sum())
    named = title if not infinite else f"{title} (infinite at {infinite} of {len(y)})"
    alt = f"{named} over env steps: {panel.column.meaning}"
    option = _axes(_ticks(panel.column)) | {"legend": {"show": False}, "series": series}
    return Chart(panel.name, named, option, alt, height=HEIGHT)
