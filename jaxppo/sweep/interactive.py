"""Interactive charts and the table of a sweep."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from jaxppo.page.charts import Chart, Column, Table, bars
from jaxppo.page.text import number, percent, plain_value
from jaxppo.store.read import SweepData, values
from jaxppo.sweep.charts import NAMES, marks, seeds_alone, text_of, view
from jaxppo.sweep.judge import TEST_FIGURE

_ROLES = {"halted": "grey", "complete": "sky", "averaged": "policy", "winner": "vermillion"}
_SHAPES = {"halted": ("circle", 8), "complete": ("circle", 9), "averaged": ("diamond", 14), "winner": ("rect", 13)}


def _look(became: str) -> dict[str, Any]:
    """How a trial is drawn, by what became of it: a colour and a shape, hollow where it was halted."""
    (symbol, size), color = _SHAPES[became], f"@{_ROLES[became]}"
    filled = {"color": color, "borderColor": "@card"}
    hollow = {"color": "@card", "borderColor": color, "borderWidth": 1.6}
    return {"symbol": symbol, "symbolSize": size, "itemStyle": hollow if became == "halted" else filled}


_NAMED = {"trigger": "item", "confine": True, "formatter": "{b}", "extraCssText": "white-space: pre-line"}
"""A tooltip that is the name of the point, which has several lines."""
_HIDDEN = {"showMinLabel": False, "showMaxLabel": False}  # the ends of an axis are no round values
_BINS = 10  # an even number, so that the middle is an edge
_POINTS = 1500


def became(data: SweepData) -> list[str]:
    """What became of each trial (N,): its state, or that it is the winner or averaged."""
    found = data.trials["state"].to_list()
    for name, mask, _ in marks(data):
        found = [name if marked else so_far for so_far, marked in zip(found, mask, strict=True)]
    return found


def _described(data: SweepData) -> list[str]:
    """What a point says of its trial when it is pointed at (N,)."""
    score, test = values(data.trials, "value"), values(data.trials, _test_figure(data))
    named, rows = NAMES[data.summary["choose_by"]], data.trials.to_dicts()
    found = []
    for i, (row, state) in enumerate(zip(rows, became(data), strict=True)):
        tested = "" if math.isnan(test[i]) else f", on test {number(float(test[i]))}"
        lines = [f"Trial {row['trial']}, {state}", f"{named}: {number(float(score[i]))} on validation{tested}"]
        lines += [f"{name} {param(row[name])}" for name in data.summary["space"]]
        found.append("\n".join(lines))
    return found


def _test_figure(data: SweepData) -> str:
    return TEST_FIGURE[data.summary["choose_by"]]


def param(value: Any) -> str:
    """A parameter of a trial as text."""
    return f"{value:.4g}" if isinstance(value, float) and not math.isnan(value) else plain_value(value)


def scores(data: SweepData) -> list[Chart]:
    """The best validation of every trial over each field that was searched, a chart a field."""
    score = values(data.trials, "value")
    if not np.isfinite(score).any():
        return []
    low, high = view(score)
    says, named = _described(data), NAMES[data.summary["choose_by"]]
    found = []
    for name, dimension in data.summary["space"].items():
        x = _positions(data.trials[name])
        series = []
        for label, mask, _ in marks(data):
            points = [
                {"name": says[i], "value": [x[i], max(score[i], low)], **(_BELOW if score[i] < low else {})}
                for i in np.flatnonzero(mask & np.isfinite(score))
            ]
            series.append({"name": label, "type": "scatter", "data": points, **_look(label)})
        option = {
            "grid": {"left": 24, "right": 18, "top": 34, "bottom": 8, "containLabel": True},
            "tooltip": _NAMED,
            "xAxis": _field_axis(dimension),
            "yAxis": _axis(named, low, high),
            "series": series,
        }
        alt = f"{named}, best validation of each trial, over {name}"
        found.append(Chart(f"score_{name}", name, option, alt, height=280))
    return found


_BELOW = {"symbol": "triangle", "symbolRotate": 180}


def _positions(column: pl.Series) -> list[Any]:
    """Values on the axis of a field (N,): numbers, or the names of categories."""
    return [value if column.dtype.is_numeric() else text_of(value) for value in column.to_list()]


def _axis(name: str, low: float, high: float) -> dict[str, Any]:
    """A value axis from `low` to `high`, which are no round values."""
    label = {"formatter": "@tick", **_HIDDEN}
    return {
        "type": "value",
        "min": low,
        "max": high,
        "name": name,
        "nameLocation": "middle",
        "nameGap": 40,
        "axisLabel": label,
    }


def _field_axis(dimension: Any) -> dict[str, Any]:
    """The axis of a field that was searched: categories, or the range, which is logarithmic where the field is."""
    if isinstance(dimension, list):
        # Trials of one category lie beside each other.
        return {"type": "category", "data": [text_of(v) for v in dimension], "jitter": 60, "jitterOverlap": False}
    (kind, ends), *_ = dimension.items()
    low, high = float(ends[0]), float(ends[1])
    label: dict[str, Any] = {"formatter": "@tick"}
    if kind != "log":
        room = 0.03 * (high - low)
        return {"type": "value", "min": low - room, "max": high + room, "axisLabel": label | _HIDDEN}
    # An axis of its own has powers of ten alone, of which a narrow range has none.
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    between = (1, 3) if high <= 100 * low else (1,)
    ticks = [m * 10.0**d for d in decades for m in between if low <= m * 10.0**d <= high]
    shown = ticks if len(ticks) > 1 else [low, high]
    at = {"customValues": shown}
    return {"type": "log", "min": low / 1.1, "max": high * 1.1, "axisLabel": label | at, "axisTick": at}


def importance(data: SweepData) -> Chart | None:
    """How much of good scores each field decides; None where that is not known."""
    found = data.summary["importance"]
    if not found:
        return None
    alt = ", ".join(f"{name} {percent(share, 0)}" for name, share in found.items())
    title, height = "Share of what tells good scores from others", 50 + 28 * len(found)
    shares = {"share": list(found.values())}
    return bars("importance", title, list(found), shares, alt, form="percent0", flat=True, height=height)


def learning(data: SweepData) -> Chart | None:
    """What validations are ranked by over the updates, a line a trial; None without any validation."""
    rows = data.validations
    if rows.height == 0:
        return None
    kinds = dict(zip(data.trials["trial"].to_list(), became(data), strict=True))
    parts = {int(n): part for (n,), part in rows.partition_by("trial", as_dict=True, maintain_order=True).items()}
    named = NAMES[data.summary["choose_by"]]
    series = []
    for order, width in (("halted", 0.8), ("complete", 1.0), ("averaged", 2.0), ("winner", 3.0)):
        for trial in (n for n, kind in kinds.items() if kind == order and n in parts):
            own = parts[trial]
            update, value = values(own, "update"), values(own, "value")
            points = [
                {"name": f"Trial {trial}, {order}\nupdate {u:.0f}: {number(float(v))}", "value": [u, v]}
                for u, v in zip(update, value, strict=True)
            ]
            line = {"width": width, "color": f"@{_ROLES[order]}", "type": "dashed" if order == "halted" else "solid"}
            drawn = {"name": order, "type": "line", "data": points, **_look(order), "symbolSize": 4, "lineStyle": line}
            series.append(drawn | {"emphasis": {"focus": "series"}})
    ends = [y[1:] if len(y) > 1 else y for y in (values(part, "value") for part in parts.values())]
    option = {
        "grid": {"left": 24, "right": 18, "top": 34, "bottom": 26, "containLabel": True},
        "tooltip": _NAMED,
        "xAxis": {"type": "value", "name": "update", "nameLocation": "middle", "nameGap": 24, "max": "dataMax"},
        "yAxis": _axis(named, *view(np.concatenate(ends))),
        "series": series,
    }
    alt = f"{named} of {len(parts)} trials over their updates"
    return Chart("learning", f"{named}: validations over updates", option, alt, height=380)


def seeds(data: SweepData) -> Chart | None:
    """Of the best trials the ensemble and its members alone; None where a trial is one policy."""
    found = seeds_alone(data)
    if found is None:
        return None
    done, alone = found
    trials = [str(n) for n in done["trial"].to_list()]
    together = values(done, "val_portfolio_sharpe")
    members = [
        {"name": f"Trial {trial}, seed {k} alone: {number(float(x))}", "value": [trial, x]}
        for k, row in enumerate(alone)
        for trial, x in zip(trials, row, strict=True)
    ]
    averaged: list[dict[str, Any]] = [
        {"name": f"Trial {trial}, ensemble: {number(float(x))}", "value": [trial, x]}
        for trial, x in zip(trials, together, strict=True)
    ]
    known = np.flatnonzero(np.isfinite(alone).any(axis=0))
    low, high = np.nanmin(alone[:, known], axis=0), np.nanmax(alone[:, known], axis=0)
    reach = [[{"coord": [trials[i], a]}, {"coord": [trials[i], b]}] for i, a, b in zip(known, low, high, strict=True)]
    behind = {
        "silent": True,
        "symbol": "none",
        "label": {"show": False},
        "lineStyle": {"color": "@sky", "type": "solid", "width": 3},
        "data": reach,
    }
    look = {"itemStyle": {"color": "@grey"}, "symbol": "rect", "symbolSize": [12, 3]}
    option = {
        "grid": {"left": 24, "right": 18, "top": 34, "bottom": 26, "containLabel": True},
        "tooltip": _NAMED,
        "xAxis": {
            "type": "category",
            "data": trials,
            "name": "trial, the best first",
            "nameLocation": "middle",
            "nameGap": 24,
        },
        "yAxis": {
            "type": "value",
            "scale": True,
            "name": "Sharpe ratio a year",
            "nameLocation": "middle",
            "nameGap": 40,
            "axisLabel": {"formatter": "@tick"},
        },
        "series": [
            {"name": "one seed alone", "type": "scatter", "data": members, **look, "markLine": behind},
            {"name": "ensemble of its seeds", "type": "scatter", "data": averaged, **_look("averaged")},
        ],
    }
    title = "Sharpe ratio, rebalanced daily, of the best trials: the ensemble, and each seed alone"
    alt = f"{title}, on the validation bars: {'; '.join(point['name'] for point in averaged[:3])}"
    return Chart("seeds", title, option, alt, height=300)


def validation_and_test(data: SweepData) -> Chart | None:
    """The scores of complete trials on validation and on test; None where fewer than two were tested."""
    x, y = values(data.trials, "value"), values(data.trials, _test_figure(data))
    known = np.isfinite(x) & np.isfinite(y) & (data.trials["state"] == "complete").to_numpy()
    if known.sum() < 2:
        return None
    (left, right), (bottom, top) = view(x[known]), view(y[known])
    says, named = _described(data), NAMES[data.summary["choose_by"]]
    series: list[dict[str, Any]] = []
    for label, mask, _ in marks(data):
        at = np.flatnonzero(mask & known)
        points = [{"name": says[i], "value": [max(x[i], left), max(y[i], bottom)]} for i in at]
        if len(at):
            series.append({"name": label, "type": "scatter", "data": points, **_look(label)})
    series[0]["markLine"] = _zeros({"xAxis": 0}, {"yAxis": 0})
    option = {
        "grid": {"left": 24, "right": 18, "top": 34, "bottom": 26, "containLabel": True},
        "tooltip": _NAMED,
        "xAxis": _axis(f"{named}, validation", left, right) | {"nameGap": 24},
        "yAxis": _axis(f"{named}, test", bottom, top),
        "series": series,
    }
    rank = number(data.summary["truth"]["rank_correlation"])
    title = f"{named}: test over validation"
    alt = f"{title}, of {known.sum()} complete trials; rank correlation {rank}"
    return Chart("test", f"{title} (rank correlation {rank})", option, alt, height=340)


def _zeros(*lines: dict[str, Any]) -> dict[str, Any]:
    look = {"color": "@grey", "type": "solid", "width": 1}
    return {"silent": True, "symbol": "none", "label": {"show": False}, "lineStyle": look, "data": list(lines)}


def overfitting(data: SweepData) -> list[Chart]:
    """Where the best trial of one half of the days ranks on the other half, and what it makes there; none without."""
    if data.splits.height == 0:
        return []
    return [_ranks(values(data.splits, "logits")), _halves(data)]


def _ranks(logits: np.ndarray) -> Chart:
    """Shares of the splits by relative ranks, of logits (C,)."""
    edges = np.linspace(0, 1, _BINS + 1)
    # The middle counts as the worse half, as a logit of 0 does.
    bin_of = np.clip(np.digitize(1 / (1 + np.exp(-logits)), edges, right=True) - 1, 0, _BINS - 1)
    share = np.bincount(bin_of, minlength=_BINS) / len(logits)
    labels = [f"{percent(a, 0)} to {percent(b, 0)}" for a, b in pairwise(edges)]
    lost = percent(float((logits <= 0).mean()), 0)
    alt = f"In {lost} of {len(logits):,} splits the best of one half is in the worse half of all trials on the other."
    title = "Rank on the other half of the days, of 100 % for the best"
    worse, better = share * (edges[1:] <= 0.5), share * (edges[1:] > 0.5)
    halves = {"the worse half": worse.tolist(), "the better half": better.tolist()}
    drawn = bars("ranks", title, labels, halves, alt, form="percent0", roles=("loss", "policy"), height=300)
    return replace(drawn, option={**drawn.option, "series": [of | {"stack": "share"} for of in drawn.option["series"]]})


def _halves(data: SweepData) -> Chart:
    """The Sharpe ratio a year of the chosen on the half that chose it, and on the other."""
    inside, outside = (values(data.splits, c) * math.sqrt(252.0) for c in ("inside", "outside"))
    some = np.linspace(0, len(inside) - 1, min(len(inside), _POINTS)).astype(int)
    axis = {"type": "value", "scale": True, "nameLocation": "middle", "axisLabel": {"formatter": "@tick"}}
    option = {
        "grid": {"left": 24, "right": 18, "top": 14, "bottom": 26, "containLabel": True},
        "legend": {"show": False},
        "tooltip": {"trigger": "item", "confine": True, "valueFormatter": "@number"},
        "xAxis": {**axis, "name": "on the half that chose it", "nameGap": 24},
        "yAxis": {**axis, "name": "on the other half", "nameGap": 36},
        "series": [
            {
                "type": "scatter",
                "dimensions": ["on the half that chose it", "on the other half"],
                "encode": {"x": 0, "y": 1, "tooltip": [0, 1]},
                "data": np.stack([inside[some], outside[some]], axis=1),
                "symbolSize": 5,
                "itemStyle": {"color": "@sky", "opacity": 0.5},
                "markLine": _zeros({"yAxis": 0}),
            }
        ],
    }
    title = "Sharpe ratio a year of the chosen: the other half over its own"
    return Chart("halves", title, option, f"{title}, a point a split", height=300)


def trials(data: SweepData) -> Table:
    """All trials, the best first."""
    named = NAMES[data.summary["choose_by"]]
    frame = data.trials.with_columns(pl.Series("became", became(data)))
    frame = frame.sort("value", descending=True, nulls_last=True)
    columns = [
        Column("trial", "Trial", "whole", frozen=True),
        Column("became", "What became of it", "choice"),
        *(_param_column(name, frame[name].dtype) for name in data.summary["space"]),
        Column("best_update", "Best update", "whole"),
        Column("value", f"{named}, validation", meaning="Of its best validation: trials are chosen by it."),
        Column(_test_figure(data), f"{named}, test", meaning="Of the same policy; it chose nothing."),
        Column("val_portfolio_sharpe", "Sharpe a year, validation", meaning="Rebalanced daily."),
        Column("val_max_drawdown", "Max drawdown, validation", "percent", digits=1),
        Column("val_trades", "Trades, validation", "whole"),
        Column("val_turnover", "Turnover a year, validation"),
    ]
    found = {c.field: c for c in columns if c.field in frame.columns}  # a figure may be another's field
    rows = zip(*(_cells(frame[name]) for name in found), strict=True)
    return Table("trials", list(found.values()), list(rows))


def _param_column(name: str, kind: pl.DataType) -> Column:
    return Column(name, name, "short" if kind.is_numeric() else "choice")


def _cells(column: pl.Series) -> list[Any]:
    return column.to_list() if column.dtype.is_numeric() else [text_of(value) for value in column.to_list()]
