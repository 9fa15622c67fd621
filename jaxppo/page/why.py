"""Why a policy acts as it does, as sections of a page: what matters to it, what it does where, how sure it is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from jaxppo.page import tables
from jaxppo.page.charts import Chart, bars
from jaxppo.page.document import Section, chart
from jaxppo.page.sections import muted
from jaxppo.page.tables import esc
from jaxppo.page.text import between, number, percent

TAB = "Why"
MISSING = (
    "Not looked at in this backtest. python -m jaxppo.backtest RUN --explain yes plays the policy again with its "
    "inputs shifted in time, and says what that costs."
)
PANELS = 3
"""Action maps on the page, of the exposures from the lowest to the highest."""
BASIS_POINTS = 1e4


def sections(importance: pl.DataFrame | None, why: Mapping[str, Any] | None) -> list[Section]:
    """The sections of a tab; `importance` and `why` are those of a `BacktestData`."""
    if importance is None or why is None:
        return [Section("why", "Why it acts", muted(MISSING), TAB)]
    return [
        Section("why", "What moves its decisions", _importance(importance, why), TAB),
        Section("map", "What it does where", _map(why["action_map"], bool(why["sized"])), TAB),
        Section("sure", "How sure it is", _sure(why["confidence"], int(why["members"]), why["act_by"]), TAB),
    ]


def _importance(frame: pl.DataFrame, why: Mapping[str, Any]) -> str:
    whole = frame.filter(pl.col("kind") != "feature")
    single = frame.filter(pl.col("kind") == "feature").sort("sharpe_drop", descending=True)
    first = whole.sort("sharpe_drop", descending=True)
    n = int(why["permutations"])
    words = f"<p>{esc(importance_words(frame, why))}</p>"
    caption = (
        f"How much of the Sharpe ratio (portfolio rebalanced daily) is lost when an input is shown at other times; the "
        f"bar is the mean of {n} shifts, the line their lowest and highest."
    )
    if why["sharpe"] > 0:
        caption += f" A drop above {number(why['sharpe'])}, the policy\u2019s own, means that it then loses money."
    total = int(why["features"])
    some = (
        ""
        if single.height == total
        else f" {single.height} of {total}: those of the groups that change most decisions."
    )
    notes = (
        "Features that say the same share their importance: with one of them shifted, the policy reads the other. The "
        "spread is over shifts of these very bars and says nothing of others. A policy that is shown another account "
        "than its own trades to and fro, so much of that drop may be costs. Below 0, the policy did better "
        "without on these bars."
    )
    return (
        words
        + chart(_drops("why_groups", "Groups, and all at once", first), caption)
        + chart(_drops("why_features", "Single features", single), f"As above.{some}")
        + muted(notes)
        + "<details><summary>All figures</summary>"
        + _table(pl.concat([first, single]))
        + "</details>"
    )


def importance_words(frame: pl.DataFrame, why: Mapping[str, Any]) -> str:
    """What matters most, in words."""
    groups = frame.filter(pl.col("kind") == "group").sort("sharpe_drop", descending=True)
    if groups.height == 0:
        return ""
    top, own = groups.row(0, named=True), float(why["sharpe"])
    if not groups["changed"].sum() > 0:
        words = "No market feature changes a single decision of it."
    elif top["sharpe_drop"] <= 0:
        words = "Shown at other times, no group of market features costs it anything: it does as well without them."
    else:
        shared = f", of {groups.height} groups" if groups.height > 1 else ""
        words = (
            f"The market feature group that matters most is {top['input']}{shared}: shown at other times, the Sharpe "
            f"ratio falls from {number(own)} to {number(own - top['sharpe_drop'])}, and {percent(top['changed'], 0)} "
            "of the decisions are others."
        )
    account = frame.filter(pl.col("kind") == "account").row(0, named=True)
    if account["changed"] > 0:
        words += (
            f" Shown another account than its own, it changes {percent(account['changed'], 0)} of its decisions and "
            f"the net return falls by {number(100 * account['return_drop'], 1)} percentage points, "
            f"{number(100 * account['costs_added'], 1)} of them costs."
        )
    else:
        words += " What it holds does not matter to it."
    return words


def _drops(name: str, title: str, frame: pl.DataFrame) -> Chart:
    labels, drops = frame["input"].to_list(), frame["sharpe_drop"].to_list()
    ends = list(zip(frame["sharpe_drop_low"].to_list(), frame["sharpe_drop_high"].to_list(), strict=True))
    said = ", ".join(f"{label} {number(x)}" for label, x in list(zip(labels, drops, strict=True))[:6])
    drawn = bars(
        name,
        f"{title}: Sharpe ratio lost",
        labels,
        {"Sharpe ratio lost": drops},
        f"Sharpe ratio lost when shown at other times: {said}",
        flat=True,
        height=46 + 24 * len(labels),
        spread=ends,
    )
    axis = {"name": "Sharpe ratio lost", "nameLocation": "middle", "nameGap": 26, "axisLabel": {"formatter": "@tick"}}
    drawn.option["xAxis"].update(axis)
    drawn.option["grid"].update({"left": 18, "bottom": 24})
    return drawn


def _table(frame: pl.DataFrame) -> str:
    head = ["Input", "Kind", "Sharpe lost", "Deviation", "Return lost", "Costs added", "Decisions changed"]
    rows = [
        [
            row["input"],
            row["kind"] if row["kind"] != "feature" else f"feature of {row['group']}",
            number(row["sharpe_drop"]),
            number(row["sharpe_drop_sd"]),
            percent(row["return_drop"]),
            percent(row["costs_added"]),
            percent(row["changed"]),
        ]
        for row in frame.to_dicts()
    ]
    return tables.table(head, rows, text_columns=2)


def _map(found: Mapping[str, Any], sized: bool) -> str:
    asked, exposures = np.asarray(found["asked"], float), [float(x) for x in found["exposure"]]
    n = len(exposures)
    shown = sorted({round(i) for i in np.linspace(0, n - 1, min(PANELS, n))})
    names = list(found["features"])
    most = max(float(np.abs(asked).max()), 0.1)
    drawn = "".join(chart(_heat(f"map_{i}", exposures[i], asked[i], names, found["values"], most)) for i in shown)
    unit = "the size that volatility gives" if sized else "all of its equity"
    two = " and ".join(names)
    words = (
        f"The mean exposure that the policy asks for (1 is {unit}) over {two}, which change the most decisions of all "
        "single features looked at, and by what it holds already. Blue is long, orange is short."
    )
    note = (
        f"Each cell is a mean over {int(found['decisions'])} real decisions with these inputs replaced: a feature by "
        "the window of another decision that ends at that value, the account by a real one of that exposure. Cells far "
        "from the middle may never occur. why.json has the probability of every action, and more exposures."
    )
    return f'<p>{esc(words)}</p><div class="panels">{drawn}</div>{muted(note)}'


def _heat(
    name: str, held: float, asked: np.ndarray, names: Sequence[str], values: Mapping[str, Any], most: float
) -> Chart:
    """One exposure's map: the first feature from left to right, the second from bottom to top; colours to +-`most`."""
    grid = asked.reshape(asked.shape[0], -1)  # (G, G), or (G, 1)
    across, up = [_labels(values[n]) for n in names] if len(names) > 1 else (_labels(values[names[0]]), [""])
    digits = 1 if most >= 0.5 else 2
    data = [[x, y, round(float(grid[i, j]), digits) + 0.0] for i, x in enumerate(across) for j, y in enumerate(up)]
    second = names[1] if len(names) > 1 else ""
    title = f"Holding {number(held, 1)}"
    middle = {"nameLocation": "middle", "splitArea": {"show": False}}
    option = {
        "grid": {"left": 26, "right": 6, "top": 8, "bottom": 30, "containLabel": True},
        "tooltip": {"trigger": "item", "confine": True},
        "legend": {"show": False},
        "xAxis": {"type": "category", "data": across, "name": names[0], "nameGap": 26, **middle},
        "yAxis": {"type": "category", "data": up, "name": second, "nameGap": 44, **middle},
        "visualMap": {
            "show": False,
            "min": -most,
            "max": most,
            "dimension": 2,
            "inRange": {"color": ["@vermillion", "@card", "@blue"]},
        },
        "series": [
            {
                "name": title,
                "type": "heatmap",
                "dimensions": [names[0], second or " ", "exposure asked for"],
                "data": data,
                "encode": {"x": 0, "y": 1, "value": 2, "tooltip": [0, 1, 2]},
                "label": {"show": True, "fontSize": 10, "color": "@ink", "formatter": "{@[2]}"},
                "itemStyle": {"borderColor": "@grid", "borderWidth": 0.5},
            }
        ],
    }
    low, high = float(grid.min()), float(grid.max())
    alt = f"Holding {number(held, 1)}, it asks for an exposure of {number(low, 1)} to {number(high, 1)} over {names}."
    return Chart(name, title, option, alt, height=330)


def _labels(values: Sequence[float]) -> list[str]:
    """Values of an axis, each once."""
    span = max(values) - min(values)
    digits = 1 if span == 0 else max(1, 1 - math.floor(math.log10(span / 8)))
    return list(dict.fromkeys(number(float(v), digits) for v in values))


def _sure(found: Mapping[str, Any], members: int, act_by: str) -> str:
    rows = found["buckets"]
    words = "".join(f"<p>{esc(text)}</p>" for text in sure_words(found, members, act_by))
    labels = _parts(len(rows))
    earned = bars(
        "sure_earned",
        "Net return of the next bar in basis points, by how sure the decision was",
        labels,
        {"basis points a bar, net": [BASIS_POINTS * r["earned"] for r in rows]},
        "Net return of the next bar by the probability of the action taken",
        by_sign=True,
        spread=[(BASIS_POINTS * r["earned_90"][0], BASIS_POINTS * r["earned_90"][1]) for r in rows],
    )
    earned.option["yAxis"]["axisLabel"]["formatter"] = "@tick"
    caption = "Net of costs. The line is a 90 % interval; decisions of one day count as one draw."
    histogram = found["confidence"]
    total = max(sum(histogram["decisions"]), 1)
    edges = histogram["edges"]
    spread = bars(
        "sure_histogram",
        "Probability of the most probable action",
        [f"{percent(a, 0)} to {percent(b, 0)}" for a, b in itertools.pairwise(edges)],
        {"share of decisions": [n / total for n in histogram["decisions"]]},
        "How many decisions were how sure",
        form="ticks_percent",
        roles=("sky",),
    )
    return (
        words
        + f'<div class="columns">{chart(earned, caption)}{chart(spread, "Share of all decisions.")}</div>'
        + _bucket_table(rows)
        + muted(
            "A probability is the policy\u2019s own opinion; whether it is worth something, the hit rate says: the "
            "share of bars with a position that gained net of costs."
        )
    )


def sure_words(found: Mapping[str, Any], members: int, act_by: str) -> list[str]:
    """How sure the policy is and whether the sure decisions earn more, in words."""
    p, bits, rows = found["confidence"], found["entropy_share"], found["buckets"]
    words = [
        f"At the median decision the most probable action has {percent(p['p50'])}; at one in twenty it has less than "
        f"{percent(p['p5'])}. The entropy is {percent(bits['mean'])} of the most that is possible, on average."
    ]
    if act_by == "mean":
        words[0] += " It acts by the mean exposure of all actions, so an undecided policy holds little."
    difference = found["surest_less_least_sure"]
    low, high = (BASIS_POINTS * x for x in difference["interval_90"])
    if len(rows) > 1 and math.isfinite(low):
        more = "did earn more" if low > 0 else "earned less" if high < 0 else "cannot be told from the others"
        words.append(
            f"The surest {_share(rows[-1], found)} of decisions made {number(BASIS_POINTS * rows[-1]['earned'])} basis "
            f"points a bar, the least sure {_share(rows[0], found)} {number(BASIS_POINTS * rows[0]['earned'])}: a "
            f"difference of {number(BASIS_POINTS * difference['difference'])} (90 % interval {number(low)} to "
            f"{number(high)}), so sure decisions {more}."
        )
    if "agreement" in found:
        agreement = found["agreement"]
        words.append(
            f"On average {percent(agreement['mean'], 0)} of the {members} members are of the ensemble\u2019s opinion; "
            f"in {percent(agreement['unanimous'], 0)} of the decisions all are."
        )
    return words


def _share(row: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    return percent(row["decisions"] / max(found["decisions"], 1), 0)


def _parts(n: int) -> list[str]:
    """Names of the buckets, least sure first."""
    if n == 1:
        return ["all"]
    return ["least sure", *(f"part {i}" for i in range(2, n)), "surest"]


def _ranges(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The probabilities of each bucket, with as many digits as tell them apart."""
    for digits in range(1, 6):
        ends = [(percent(r["from"], digits), percent(r["to"], digits)) for r in rows]
        if all(low != high for low, high in ends):
            break
    return [f"{low} to {high}" for low, high in ends]


def _bucket_table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = [
        "Part",
        "Probability",
        "Decisions",
        "Earned a bar (bp)",
        "90 % interval",
        "Held",
        "Hit rate",
        "90 % interval",
    ]
    cells = [
        [
            part,
            label,
            number(r["decisions"], 0),
            number(BASIS_POINTS * r["earned"]),
            between(*(BASIS_POINTS * x for x in r["earned_90"])),
            number(r["held"], 0),
            percent(r["hit_rate"]),
            between(r["hit_rate_90"][0], r["hit_rate_90"][1], percent),
        ]
        for part, label, r in zip(_parts(len(rows)), _ranges(rows), rows, strict=True)
    ]
    return tables.table(head, cells, text_columns=2)
