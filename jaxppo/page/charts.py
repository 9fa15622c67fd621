"""Interactive charts as data: an option of Apache ECharts that `assets/charts.js` draws, and builders of common ones.

An option is made of what JSON has. Where ECharts takes a function or a colour, a name does: `@percent` is a format and
`@policy` a colour of `style.ROLES`, which is another one on a dark page. `assets/numbers.js` lists the formats.

Example:
  >>> chart = bars("costs", "Costs", ["0x", "1x"], {"net return": [0.3, 0.2]}, "What costs leave", form="ticks_percent")
  >>> chart.option["series"][0]["data"]
  [0.3, 0.2]
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from jaxppo.page.style import CYCLE_ROLES
from jaxppo.page.thin import decimate
from jaxppo.store.tables import drawdown

POINTS = 1500
"""Points of a curve: one a pixel of a wide screen. Full curves lie in the files beside a page."""
Option = Mapping[str, Any]


@dataclass(frozen=True)
class Chart:
    """One interactive chart."""

    name: str
    """Unique on its page; also the name of the picture that a reader saves."""
    title: str
    option: Option
    """Of ECharts; numbers of arrays may be NumPy's."""
    alt: str
    """What it shows, in a sentence for those who cannot see it."""
    height: int = 320
    """Pixels."""
    times: bool = False
    """Whether its axis is the `time` column of its dataset, in milliseconds since 1970. Then it has buttons for
    periods."""
    growth: Sequence[tuple[str, str]] = ()
    """Columns and names of curves of growth; under the chart stands what each did within the period shown."""
    log: str = ""
    """`off` or `on` for a button that makes its first y axis logarithmic, and how it begins; empty for none."""


@dataclass(frozen=True)
class Line:
    """A curve of a `growth` chart."""

    name: str
    values: np.ndarray  # (T,)
    role: str
    """Colour, of `style.ROLES`."""
    width: float = 1.6
    dashed: bool = False
    listed: bool = True
    """Whether the legend and the figures of the period shown name it; of many that only stand behind, none is."""


@dataclass(frozen=True)
class Band:
    """Where values lie between two curves."""

    name: str
    low: np.ndarray  # (T,)
    high: np.ndarray  # (T,)
    role: str = "sky"


def milliseconds(times: np.ndarray) -> list[int]:
    """datetime64 (T,) as JSON has it: milliseconds since 1970."""
    found: list[int] = times.astype("datetime64[ms]").astype(np.int64).tolist()
    return found


def to_json(value: Any) -> str:
    """JSON that may stand in a page's script block: numbers to 7 digits, nothing that ends the block, NaN as null."""
    return json.dumps(_plain(value), allow_nan=False, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim == 1:  # nearly all that a page holds
        return [_short(x) for x in value.tolist()]
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    return _short(value) if isinstance(value, float) else value


def _short(number: float) -> float | int | None:
    """A number to 7 digits, whole ones without a point; None for what JSON has no word for."""
    if not math.isfinite(number):
        return None
    short = float(f"{number:.7g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def growth(
    name: str,
    title: str,
    times: np.ndarray,
    lines: Sequence[Line],
    alt: str,
    *,
    band: Band | None = None,
    marks: Sequence[tuple[np.datetime64, str]] = (),
    log: str = "off",
) -> Chart:
    """Curves of growth over time above their drawdowns, with one brush over both.

    Args:
      name, title, alt: of the chart.
      times: (T,) datetime64, ascending.
      lines: the first one's drawdown is filled.
      band: drawn behind the curves.
      marks: moments that get a dashed line, and what they are called.
      log: whether the axis begins logarithmic.
    """
    times, lines = _with_start(times, lines)
    falls = [-drawdown(line.values) for line in lines]
    at = _points([line.values for line in lines] + falls)
    source: dict[str, Any] = {"time": milliseconds(times[at])}
    for i, (line, fall) in enumerate(zip(lines, falls, strict=True)):
        source |= {f"y{i}": line.values[at], f"d{i}": fall[at]}
    series: list[dict[str, Any]] = []
    if band is not None:
        low, high = (np.append(1.0, of)[at] for of in (band.low, band.high))
        source |= {"low": low, "high": high - low}
        series += _band(band)
    series += [_line(line, f"y{i}", 0) for i, line in enumerate(lines)]
    series[-1]["markLine"] = _marks(marks)
    for i, line in enumerate(lines):
        thin = replace(line, width=min(line.width, 1.2))
        fill = {"areaStyle": {"opacity": 0.22}} if i == 0 else {}
        series.append(_line(thin, f"d{i}", 1) | fill | {"tooltip": {"valueFormatter": "@percent"}})
    sides = {"left": 58, "right": 14, "outerBoundsMode": "none"}
    shown = [line.name for line in lines if line.listed] + ([band.name] if band else [])
    named = {"type": "value", "nameLocation": "middle", "nameGap": 44}
    falling = {"gridIndex": 1, "max": 0, "splitNumber": 2, "name": "drawdown"}
    option = {
        "dataset": [{"source": source}],
        "grid": [{**sides, "top": 44, "height": "52%"}, {**sides, "top": "70%", "height": "15%"}],
        "axisPointer": {"link": [{"xAxisIndex": "all"}]},
        "legend": {"type": "scroll", "top": 4, "left": 4, "right": 4, "itemWidth": 18, "itemHeight": 10, "data": shown},
        "tooltip": {"trigger": "axis", "confine": True, "valueFormatter": "@number3"},
        "xAxis": [{"type": "time", "gridIndex": 0, "axisLabel": {"show": False}}, {"type": "time", "gridIndex": 1}],
        "yAxis": [
            {**named, "scale": True, "name": "growth of 1.00", "axisLabel": {"formatter": "@tick"}},
            {**named, **falling, "axisLabel": {"formatter": "@ticks_percent"}},
        ],
        "dataZoom": _brush([0, 1]),
        "series": series,
    }
    curves = [(f"y{i}", line.name) for i, line in enumerate(lines) if line.listed]
    return Chart(name, title, option, alt, height=460, times=True, growth=curves, log=log)


def _with_start(times: np.ndarray, lines: Sequence[Line]) -> tuple[np.ndarray, list[Line]]:
    """The curves from the 1.00 that they grow from, one usual step before the first point."""
    step = np.median(np.diff(times)) if len(times) > 1 else np.timedelta64(1, "D")
    begun = [replace(line, values=np.append(1.0, line.values)) for line in lines]
    return np.append(times[:1] - step, times), begun


def _marks(marks: Sequence[tuple[np.datetime64, str]]) -> dict[str, Any]:
    """A line at a growth of 1, and a dashed one at each moment."""
    moments = milliseconds(np.array([moment for moment, _ in marks], "datetime64[ms]"))
    start = {"yAxis": 1.0, "name": "", "lineStyle": {"type": "solid"}}
    return {
        "silent": True,
        "symbol": "none",
        "lineStyle": {"color": "@grey", "type": "dashed", "width": 1},
        "label": {"color": "@muted", "formatter": "{b}", "position": "insideEndTop", "fontSize": 10.5},
        "data": [start, *({"xAxis": at, "name": of} for at, (_, of) in zip(moments, marks, strict=True))],
    }


def over_time(
    name: str,
    title: str,
    times: np.ndarray,
    lines: Sequence[Line],
    alt: str,
    *,
    form: str = "number",
    height: int = 260,
) -> Chart:
    """Curves over time on one axis, whose numbers have the `form` of `numbers.js`."""
    at = _points([line.values for line in lines])
    source = {"time": milliseconds(times[at])} | {f"y{i}": line.values[at] for i, line in enumerate(lines)}
    option = {
        "dataset": [{"source": source}],
        "grid": {"left": 8, "right": 14, "top": 40, "bottom": 40, "containLabel": True},
        "tooltip": {"trigger": "axis", "confine": True, "valueFormatter": f"@{form}"},
        "xAxis": {"type": "time"},
        "yAxis": {"type": "value", "scale": True, "axisLabel": {"formatter": f"@{form}"}},
        "dataZoom": _brush([0]),
        "series": [_line(line, f"y{i}", 0) for i, line in enumerate(lines)],
    }
    return Chart(name, title, option, alt, height=height, times=True)


def bars(
    name: str,
    title: str,
    labels: Sequence[str],
    series: Mapping[str, Sequence[float]],
    alt: str,
    *,
    form: str = "number",
    roles: Sequence[str] = CYCLE_ROLES,
    by_sign: bool = False,
    flat: bool = False,
    height: int = 260,
    spread: Sequence[tuple[float, float]] = (),
) -> Chart:
    """Bars a label, of one or more series side by side.

    Args:
      name, title, alt, height: of the chart.
      labels: (N,).
      series: (N,) numbers by what they are called.
      form: of the numbers, of `numbers.js`.
      roles: colours of the series.
      by_sign: colour by gain or loss, for one series.
      flat: bars from left to right, a label a line, for long labels.
      spread: (N,) low and high of the only series, a line across each bar.
    """

    def cells(numbers: Sequence[float]) -> list[Any]:
        if not by_sign:
            return list(numbers)
        return [{"value": x, "itemStyle": {"color": "@win" if x > 0 else "@loss"}} for x in numbers]

    category = {"type": "category", "data": list(labels), **({"inverse": True} if flat else {})}
    value = {"type": "value", "axisLabel": {"formatter": f"@{form}"}}
    option = {
        "xAxis": value if flat else category,
        "yAxis": category if flat else value,
        "tooltip": {
            "trigger": "axis",
            "confine": True,
            "axisPointer": {"type": "shadow"},
            "valueFormatter": f"@{form}",
        },
        "grid": {
            "left": 20 if flat else 8,
            "right": 20,
            "top": 34 if len(series) > 1 else 14,
            "bottom": 8,
            "containLabel": True,
        },
        **({} if len(series) > 1 else {"legend": {"show": False}}),
        "series": [
            {"name": of, "type": "bar", "data": cells(numbers), "itemStyle": {"color": f"@{role}"}, "barMaxWidth": 46}
            for (of, numbers), role in zip(series.items(), roles, strict=False)
        ]
        + ([_whiskers(labels, spread, flat)] if spread else []),
    }
    return Chart(name, title, option, alt, height=height)


def _whiskers(labels: Sequence[str], spread: Sequence[tuple[float, float]], flat: bool) -> dict[str, Any]:
    """A line from low to high over each label, with an end to each, which also makes the axis long enough."""

    def at(label: str, x: float) -> list[Any]:
        return [x, label] if flat else [label, x]

    pairs = [[at(label, x) for x in ends] for label, ends in zip(labels, spread, strict=True)]
    lines = {
        "silent": True,
        "symbol": "none",
        "label": {"show": False},
        "lineStyle": {"color": "@ink", "width": 1.6, "type": "solid"},
        "data": [[{"coord": point} for point in pair] for pair in pairs],
    }
    return {
        "name": "spread",
        "type": "scatter",
        "symbol": "rect",
        "symbolSize": [1.6, 9] if flat else [9, 1.6],
        "silent": True,
        "tooltip": {"show": False},
        "itemStyle": {"color": "@ink"},
        "data": [point for pair in pairs for point in pair],
        "markLine": lines,
    }


def _points(curves: Sequence[np.ndarray]) -> np.ndarray:
    """Indices of the points that draw all curves (T,) within POINTS each."""
    return np.unique(np.concatenate([decimate(curve, POINTS) for curve in curves]))


def _line(line: Line, column: str, axis: int) -> dict[str, Any]:
    return {
        "name": line.name,
        "type": "line",
        "encode": {"x": "time", "y": column},
        "xAxisIndex": axis,
        "yAxisIndex": axis,
        "showSymbol": False,
        "lineStyle": {"width": line.width, "color": f"@{line.role}", "type": "dashed" if line.dashed else "solid"},
        "itemStyle": {"color": f"@{line.role}"},
    }


def _band(band: Band) -> list[dict[str, Any]]:
    """A band as ECharts draws one: the height above an invisible curve."""
    common = {"type": "line", "stack": "band", "showSymbol": False, "silent": True, "tooltip": {"show": False}}
    clear = {"lineStyle": {"opacity": 0}, "itemStyle": {"color": f"@{band.role}"}}
    fill = {"areaStyle": {"color": f"@{band.role}", "opacity": 0.28}}
    return [
        {"name": f"{band.name}, low", "encode": {"x": "time", "y": "low"}, **common, **clear},
        {"name": band.name, "encode": {"x": "time", "y": "high"}, **common, **clear, **fill},
    ]


def _brush(axes: list[int]) -> list[dict[str, Any]]:
    """A brush under the axes; on the chart itself a drag moves the period, and a wheel zooms with Ctrl, so that a page
    can be scrolled across it."""
    return [
        {"type": "inside", "xAxisIndex": axes, "zoomOnMouseWheel": "ctrl", "moveOnMouseMove": True},
        {"type": "slider", "xAxisIndex": axes, "bottom": 4, "height": 22},
    ]


@dataclass(frozen=True)
class Column:
    """A column of a `Table`."""

    field: str
    title: str
    kind: str = "number"
    """number, short (without trailing zeros), whole, price, percent (a fraction), signed (the same with its sign), time
    (UTC seconds), text, or choice (a text with a list to filter by)."""
    digits: int | None = None
    meaning: str = ""
    frozen: bool = False
    """Stays in view when the table is scrolled sideways."""


@dataclass(frozen=True)
class Table:
    """A table to sort, filter and download."""

    name: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]] = field(repr=False)
    show: bool = False
    """Whether a row has a button that shows its trade on the chart of its symbol."""
