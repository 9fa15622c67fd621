"""The page of a watch: what it shows first, and what it asks for again and again, made by the same functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxppo.page import document, sections, tables
from jaxppo.page.charts import Chart, to_json
from jaxppo.page.document import DOT, Card, Remark, Section
from jaxppo.page.style import CYCLE_ROLES
from jaxppo.page.tables import esc
from jaxppo.page.text import percent
from jaxppo.watch.seen import OVER, State
from jaxppo.watch.summary import (
    Group,
    Measure,
    Picture,
    best_text,
    clock,
    group_rows,
    known_measures,
    measures,
    now_text,
)

SCRIPT = "watch.js"
STATE = "/state.json"
TONES: dict[State, str] = {"late": "caution", "stopped": "caution", "dead": "bad"}
"""Of none but what wants attention: green is for what passed a gate."""
_DRAWN = 8  # groups, each with a colour and a dash of its own
_TOGETHER = {"val_return": ("val_gross_return", "val_buy_and_hold_return")}
"""Figures that are drawn into the chart of another."""
_ROLES = dict(zip(("val_gross_return", "val_buy_and_hold_return"), ("green", "benchmark"), strict=True))


def render(shown: Picture, every: float) -> str:
    """The whole page; it asks for `STATE` every so many seconds."""
    live = fragments(shown)

    def part(name: str) -> str:
        return f'<div id="live-{name}">{live[name]}</div>'

    trained = {m.column for m in measures() if m.in_training}
    drawn = [(of.name in trained, document.chart(of)) for of in charts(shown)]
    panels = ["".join(chart for training, chart in drawn if training is which) for which in (False, True)]
    settings = f'<script type="application/json" id="watch">{to_json({"seconds": every})}</script>'
    return document.document(
        f"jaxppo: {shown.title}",
        sections.header(f"Watching {shown.name}", [])
        + part("head")
        + '<p class="muted" id="lost" role="status"></p>'
        + part("cards")
        + part("alarms")
        + settings,
        [
            Section(
                "validation", "On the validation bars", f'{part("note")}<div class="panels">{panels[0]}</div>', "Now"
            ),
            Section("training", "In training", f'<div class="panels">{panels[1]}</div>', "Now"),
            Section("figures", "Figures", part("figures"), "Figures"),
            Section("runs", "Runs", part("runs"), "Runs"),
        ],
        "jaxppo",
        connect="'self'",
        script=SCRIPT,
    )


def state(shown: Picture) -> bytes:
    """What the page asks for: its parts as they are now, as JSON."""
    drawn = {chart.name: document.chart_data(chart) for chart in charts(shown)}
    found = {
        "title": f"{shown.state}: {shown.title}",
        "over": shown.state in OVER,
        "parts": fragments(shown),
        "charts": drawn,
    }
    return to_json(found).encode()


def fragments(shown: Picture) -> dict[str, str]:
    """HTML of the parts that change, by their names; all text of files is escaped here."""
    tone = TONES.get(shown.state, "")
    done = 0.0 if math.isnan(shown.done) else shown.done
    share = "" if math.isnan(shown.done) else percent(shown.done, 0)
    left = "" if math.isnan(shown.left) else f", {clock(shown.left)} left"
    bar = f'<progress max="1" value="{done:.4f}" style="width:100%">{esc(share)}</progress>'
    advice = f"<p>{esc(shown.advice)}</p>" if shown.advice else ""
    head = (
        f'<section class="verdict {tone}" id="answer"><h2>{esc(shown.state.capitalize())}</h2>'
        f'<p class="key"><b>{esc(share or shown.state)}</b><span>{esc(clock(shown.gone))} gone{esc(left)}</span></p>'
        f"{bar}<p>{esc(DOT.join(shown.facts))}</p>{advice}<p>{esc(shown.best)}</p>"
        f'<p class="muted">{esc(DOT.join(filter(None, (shown.checkpoints, shown.fresh))))}</p></section>'
    )
    return {
        "head": f'<p class="lead">{esc(shown.title)}</p>{head}',
        "cards": document.cards(_cards(shown)),
        "alarms": _alarms(shown),
        "note": f'<p class="lead">{esc(_note(shown))}</p>',
        "figures": _figures(shown.groups[0]),
        "runs": _runs(shown),
    }


def _cards(shown: Picture) -> list[Card]:
    """The last figures of the best configuration."""
    own = shown.groups[0]
    return [Card(m.title, m.text(_last(own, m)), f"at best {best_text(own, m)}") for m in known_measures(own)[:6]]


def _last(own: Group, measure: Measure) -> float:
    """Mean over the seeds of the last value; NaN before all have one."""
    return float(np.mean(own.now(measure.column)))


def _alarms(shown: Picture) -> str:
    """Those that last, each with what to do and what was measured of that; then those that are over."""
    found = []
    for told in shown.alarms:
        of = f" of {told.run}" if told.run else ""
        when = f"since update {told.since}" if told.lasts else f"update {told.since} to {told.until}"
        measured = f" Measured: {told.measured}." if told.measured and told.lasts else ""
        found.append(Remark("bad" if told.lasts else "caution", f"{told.title}{of}, {when}", f"{told.text}.{measured}"))
    if not found:
        return '<p class="muted">No alarm.</p>'
    return document.remark_list(found)


def _note(shown: Picture) -> str:
    seeds = len(shown.groups[0].runs)
    spread = (
        f" Shaded: from the lowest to the highest of its {seeds} seeds, the line is their mean." if seeds > 1 else ""
    )
    others = len(shown.groups) - 1
    more = f" The best of {others + 1} configurations first." if others else ""
    return f"Against updates; update 0 is the untrained policy.{spread}{more}"


def _figures(own: Group) -> str:
    spread = " (mean over seeds, lowest to highest)" if len(own.runs) > 1 else ""
    head = ["", f"At the last validation{spread}", "At the best validation"]
    return sections.muted(own.name) + tables.table(
        head, [[m.title, now_text(own, m), best_text(own, m)] for m in known_measures(own)]
    )


def _runs(shown: Picture) -> str:
    head = ["Configuration", "State", "Update", "Fitness", "Sharpe, daily", "Net return", "Alarms"]
    return tables.table(head, [list(row) for row in group_rows(shown.groups)], text_columns=2)


def charts(shown: Picture) -> list[Chart]:
    """A chart a figure, of the best configuration with its spread and the means of the others."""
    hidden = {name for names in _TOGETHER.values() for name in names}
    found = [m for m in measures() if m.column not in hidden]
    return [_chart(shown.groups[:_DRAWN], measure) for measure in found]


def _chart(groups: Sequence[Group], measure: Measure) -> Chart:
    leader = groups[0]
    series: list[dict[str, Any]] = []
    if len(leader.runs) > 1:
        series += _spread(leader, measure)
    for i, own in enumerate(groups):
        series.append(_line(own, measure.column, own.name, CYCLE_ROLES[i], ("solid", "dashed", "dotted")[i % 3]))
    titles = {m.column: m.title for m in measures()}
    for column in _TOGETHER.get(measure.column, ()):
        if np.isfinite(leader.band(column).mean).any():
            series.append(_line(leader, column, titles[column], _ROLES[column], "dashed", 1.2))
    named = [line["name"] for line in series if not line.get("silent")]
    form = "@ticks_percent" if measure.percent else "@tick"
    end = max((run.n_updates for own in groups for run in own.runs), default=0)
    option = {
        "xAxis": {"type": "value", "min": 0, **({"max": end} if end else {})},
        "yAxis": {"type": "value", "scale": True, "axisLabel": {"formatter": form}},
        "tooltip": {"trigger": "axis", "confine": True, "valueFormatter": "@percent" if measure.percent else "@tick"},
        "grid": {"left": 8, "right": 14, "top": 34, "bottom": 8, "containLabel": True},
        "legend": {**_LEGEND, "show": len(named) > 1, "data": named},
        "series": series,
    }
    alt = f"{measure.title} over updates of {leader.name}; now {measure.text(_last(leader, measure))}."
    return Chart(measure.column, measure.title, option, alt, height=210)


_LEGEND = {"type": "scroll", "top": 2, "left": 4, "right": 4, "itemWidth": 18, "itemHeight": 10}


def _points(x: np.ndarray, y: np.ndarray) -> list[list[float]]:
    return [[float(a), float(b)] for a, b in zip(x, y, strict=True) if math.isfinite(b)]


def _line(own: Group, column: str, name: str, role: str, dash: str, width: float = 2.0) -> dict[str, Any]:
    band = own.band(column)
    points = _points(band.update, band.mean)
    return {
        "name": name,
        "type": "line",
        "data": points,
        "showSymbol": len(points) < 40,
        "symbolSize": 5,
        "lineStyle": {"width": width, "color": f"@{role}", "type": dash},
        "itemStyle": {"color": f"@{role}"},
    }


def _spread(own: Group, measure: Measure) -> list[dict[str, Any]]:
    """A band as ECharts draws one: the height above an invisible curve."""
    band = own.band(measure.column)
    common = {"type": "line", "stack": "spread", "symbol": "none", "silent": True, "tooltip": {"show": False}}
    clear = {"lineStyle": {"opacity": 0}, "itemStyle": {"color": "@sky"}, "stackStrategy": "all"}
    fill = {"areaStyle": {"color": "@sky", "opacity": 0.3}}
    return [
        {"name": "lowest", "data": _points(band.update, band.low), **common, **clear},
        {"name": "highest", "data": _points(band.update, band.high - band.low), **common, **clear, **fill},
    ]
