"""The tab of the tear sheet: what months, drawdowns and days were like, next to holding, and what it would carry."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxppo.page.charts import Chart, Line, bars, over_time
from jaxppo.page.document import Section, chart
from jaxppo.page.tables import esc, table
from jaxppo.page.text import MISSING, number, percent
from jaxppo.store.read import Sheet, values

TAB = "Tear sheet"
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DEEPEST = 48
"""Percent of the colour in the cell of the largest month; the number stays readable on it, on a dark page too."""
Rows = Sequence[Mapping[str, Any]]


def tear_sheet(sheet: Sheet | None, which: str) -> list[Section]:
    """The section, or none where a folder has no tear sheet, as one of an earlier version.

    Args:
      sheet: of the folder.
      which: in plain text whose account it is and on which bars, after "The account of".
    """
    if sheet is None:
        return []
    f = sheet.figures
    lead = (
        f"The account of {which}: all symbols in equal shares, rebalanced daily (moving money between them is free),"
        f" after costs, on the {f['days']:,} days from {f['first']} to {f['last']} (UTC; the first and the last month"
        f" may be cut). It made {percent(f['return'], sign=True)}, holding {percent(f['buy_and_hold'], sign=True)}."
        f" A year has {number(f['days_per_year'], 0)} such days. Holding is buy-and-hold of the same symbols, at the"
        " same costs."
    )
    body = (
        f'<p class="lead">{esc(lead)}</p>'
        f"<h3>Monthly returns</h3>{_months(f)}"
        f'<div class="columns">{_years(f)}<div>{_figures(f)}</div></div>'
        f"{_rolling(sheet)}"
        f"<h3>The deepest drawdowns</h3>{_drawdowns(f)}"
        f'<div class="columns">{_distribution(f, "daily", "day")}{_distribution(f, "monthly", "month")}</div>'
        f"{_distribution_table(f)}"
        f'<div class="columns">{_extremes(f)}</div>'
        f"<h3>Capacity</h3>{_capacity(f['capacity'])}"
    )
    return [Section("tearsheet", TAB, body, TAB)]


def _muted(text: str) -> str:
    return f'<p class="muted">{esc(text)}</p>'


def _months(f: Mapping[str, Any]) -> str:
    """Years by months, coloured by gain and loss, with the number in every cell."""
    by = {row["period"]: float(row["return"]) for row in f["months"]}
    largest = max((abs(x) for x in by.values()), default=0.0)

    def cell(year: str, month: int) -> str:
        value = by.get(f"{year}-{month:02d}", math.nan)
        if math.isnan(value):
            return "<td></td>"
        share = DEEPEST * abs(value) / largest if largest > 0 else 0.0
        kind = "gain" if value > 0 else "fall"
        return f'<td class="num {kind}" style="--share:{share:.0f}%">{esc(percent(value, sign=True))}</td>'

    rows = "".join(
        f'<tr><th scope="row">{esc(row["period"])}</th>{"".join(cell(row["period"], m) for m in range(1, 13))}'
        f'<td class="num year">{esc(percent(row["return"], sign=True))}</td>'
        f'<td class="num">{esc(percent(row["buy_and_hold"], sign=True))}</td></tr>'
        for row in f["years"]
    )
    head = "".join(f'<th scope="col" class="num">{name}</th>' for name in (*MONTHS, "Year", "Holding"))
    label = "Return of each month, year by year, in percent; gains are blue, losses orange"
    note = "Blue is a gain, orange a loss, the deeper the larger. Good is much blue without a month that undoes a year."
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table class="heat">'
        f'<thead><tr><th scope="col">Year</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>{_muted(note)}'
    )


def _years(f: Mapping[str, Any]) -> str:
    years = f["years"]
    series = {"policy": [y["return"] for y in years], "buy-and-hold": [y["buy_and_hold"] for y in years]}
    said = ", ".join(f"{y['period']} {percent(y['return'], sign=True)}" for y in years)
    alt = f"Return of each year of the policy and of buy-and-hold. The policy: {said}."
    labels, roles = [y["period"] for y in years], ("policy", "benchmark")
    drawn = bars("tear_years", "Return of each year", labels, series, alt, form="signed", roles=roles)
    return chart(drawn, "Good: no year that costs what two others made. The first and the last may be cut.")


def _rolling(sheet: Sheet) -> str:
    """Rolling Sharpe ratio and volatility, or why there are none."""
    windows, daily = sheet.figures["rolling_days"], sheet.daily
    if not windows:
        half = round(sheet.figures["days_per_year"] / 2)
        days = sheet.figures["days"]
        return _muted(f"{days:,} days are too few for figures that roll over half a year, {half:,} days.")
    first = int(min(windows.values())) - 1
    time = np.array(daily["date"].to_list(), "datetime64[D]")[first:]

    def drawn(column: str, title: str, form: str, caption: str) -> str:
        lines = [
            Line("buy-and-hold, 6 months", values(daily, f"buy_and_hold_{column}_6m")[first:], "benchmark", 1.4),
            Line("policy, 6 months", values(daily, f"{column}_6m")[first:], "policy", 2.0),
        ]
        if "1y" in windows:
            lines.append(Line("policy, 1 year", values(daily, f"{column}_1y")[first:], "purple", 1.6, dashed=True))
        own = lines[1].values
        said = f"The policy's over 6 months: {number(own.min())} to {number(own.max())}"
        if form != "number":
            said = f"The policy's over 6 months: {percent(own.min())} to {percent(own.max())}"
        return chart(over_time(f"tear_{column}", title, time, lines, f"{title}. {said}.", form=form), caption)

    sharpe = "Of the days up to each date. Good: above 0 nearly always, and no slow way down from left to right."
    volatility = "Deviation of daily returns, a year. Good: level, at what you can bear; a jump is a change of risk."
    both = drawn("sharpe", "Rolling Sharpe ratio a year", "number", sharpe)
    both += drawn("volatility", "Rolling volatility a year", "percent", volatility)
    return f'<div class="columns">{both}</div>'


def _figures(f: Mapping[str, Any]) -> str:
    """Alpha and beta, time in market and cost share: each with its unit and what a good value looks like."""
    m, t, c = f["against_holding"], f["time_in_market"], f["costs"]
    share = percent(c["share"])
    if math.isnan(c["share"]):
        share = "none: there was no profit before costs to take a share of"
    parts = (
        f"fees {percent(c['fees'], 2)}, spread and slippage {percent(c['impact'], 2)}, borrow {percent(c['borrow'], 2)}"
    )
    rows = (
        (
            "Alpha a year",
            f"{percent(m['alpha'], sign=True)}, standard error {percent(m['alpha_error'])},"
            f" t {number(m['alpha_t'], 1)}",
            "Earned beyond beta times holding, interest at 0. Good: t above 2.",
        ),
        (
            "Beta to holding",
            f"{number(m['beta'])}, standard error {number(m['beta_error'])}, correlation {number(m['correlation'])}",
            "Its share in holding\u2019s daily moves. Near 0 it adds to what somebody holds; near 1 it is holding.",
        ),
        (
            "Time in market",
            f"{percent(t['bars'])} of the bars ({percent(t['long'])} long, {percent(t['short'])} short),"
            f" {percent(t['days'])} of the days",
            "Bars of all symbols with a position. Earning as much in less time is less risk taken.",
        ),
        (
            "Costs of gross profit",
            f"{share} ({parts} of the starting equity; net profit {percent(c['net_profit'], sign=True)})",
            "All costs over the profit before them. Good: under a fifth; above 100 % costs made a loss of a profit.",
        ),
    )
    items = "".join(
        f'<dt>{esc(name)}</dt><dd>{esc(value)}<div class="muted">{esc(good)}</div></dd>' for name, value, good in rows
    )
    return f'<h3>Against holding, and what it took</h3><dl class="facts">{items}</dl>'


def _drawdowns(f: Mapping[str, Any]) -> str:
    if not f["drawdowns"]:
        return _muted("The account never was below an earlier height.")

    def days(value: float) -> str:
        return MISSING if math.isnan(value) else number(value, 0)

    rows = [
        [
            str(i),
            *(str(d[k]) for k in ("start", "trough", "recovery")),
            percent(-d["depth"]),
            days(d["days"]),
            days(d["recovery_days"]),
        ]
        for i, d in enumerate(f["drawdowns"], 1)
    ]
    head = ["", "From the peak of", "Lowest on", "Recovered on", "Depth", "Length, days", "Trough to recovery, days"]
    note = (
        "Calendar days from the highest equity so far until it is reached again, or until the end. Good: depths that"
        " you would sit through, and none that takes longer to recover than you would wait."
    )
    return f'<div class="dates">{table(head, rows, text_columns=4)}</div>{_muted(note)}'


def _distribution(f: Mapping[str, Any], which: str, one: str) -> str:
    """The histogram of returns of a day or of a month."""
    d = f["distribution"][which]
    edges, counts = d["edges"], d["counts"]
    width = percent(edges[1] - edges[0], 2)
    cells = [
        {"value": n, "itemStyle": {"color": "@loss" if edge < -1e-12 else "@policy"}}
        for edge, n in zip(edges[:-1], counts, strict=True)
    ]
    title = f"Returns of a {one}"
    alt = (
        f"Histogram of {d['count']:,} returns of a {one}, from {percent(edges[0], 2)} to {percent(edges[-1], 2)}:"
        f" {percent(d['positive'], 0)} are above 0."
    )
    below = {"type": "category", "data": [percent(x, 2, sign=True) for x in edges[:-1]], "nameLocation": "middle"}
    option = {
        "xAxis": below | {"name": f"return of a {one}, from this value up to {width} more", "nameGap": 28},
        "yAxis": {"type": "value", "name": f"{one}s", "minInterval": 1},
        "grid": {"left": 8, "right": 14, "top": 30, "bottom": 26, "containLabel": True},
        "legend": {"show": False},
        "tooltip": {"trigger": "axis", "confine": True, "axisPointer": {"type": "shadow"}, "valueFormatter": "@whole"},
        "series": [{"name": f"{one}s", "type": "bar", "data": cells, "barCategoryGap": "6%"}],
    }
    return chart(Chart(f"tear_{which}", title, option, alt, height=240))


def _distribution_table(f: Mapping[str, Any]) -> str:
    def row(which: str, name: str) -> list[str]:
        d = f["distribution"][which]
        parts = [percent(d["mean"], 2, sign=True), percent(d["deviation"], 2), number(d["skew"])]
        return [name, number(d["count"], 0), percent(d["positive"], 0), *parts, *(percent(d[k], 2) for k in _TAIL)]

    head = ["Returns of", "Number", "Above 0", "Mean", "Deviation", "Skew", "VaR 5 %", "CVaR 5 %"]
    note = (
        "VaR 5 % is the loss that the worst 5 % reach or pass, CVaR 5 % the mean of those; below 0 they are gains."
        " Good: a skew that is not far below 0, and a CVaR that is not much more than the VaR; both say that losses are"
        " not rare and large."
    )
    return table(head, [row("daily", "a day"), row("monthly", "a month")]) + _muted(note)


_TAIL = ("var_5", "cvar_5")


def _extremes(f: Mapping[str, Any]) -> str:
    """Best and worst days and months, in two columns."""

    def part(kind: str, title: str) -> str:
        def lines(rows: Rows) -> list[list[str]]:
            return [[r["period"], *(percent(r[k], 2, sign=True) for k in ("return", "buy_and_hold"))] for r in rows]

        both = [(name, lines(f[f"{name.lower()}_{kind}"])) for name in ("Best", "Worst")]
        shown = "".join(table([f"{name} {kind}", "Policy", "Holding"], rows) for name, rows in both if rows)
        return f"<div><h3>{title}</h3>{shown}</div>" if shown else ""

    return part("days", "Best and worst days") + part("months", "Best and worst months")


_REASON = {
    "no trades": "Nothing was traded, so there is nothing to say of what it would carry.",
    "no volume": "No volume in these bars that counts units of the symbol: what it would carry cannot be told.",
    "no profit": "It made no profit for impact to eat: no capital is small enough.",
}


def _capacity(c: Mapping[str, Any]) -> str:
    """Capital at which impact eats half and all of the net profit, and the impact at round capitals."""
    reason = _REASON.get(c["status"])
    if reason is not None:
        return f"<p>{esc(reason)}</p>"
    said = _eaten(c["half"], c["all"], c["large"], c["participation"]["half"])
    if c["covered"] < 0.995:
        said += f" Only {percent(c['covered'], 0)} of what is traded has volume and is counted: take it for too high."
    most = ", ".join(f"{row['symbol']} {percent(row['share'], 0)}" for row in c["most"])
    head = ["Capital", "Impact a year, of the capital", "Of the net profit"]
    rows = [[amount(x["capital"]), percent(x["a_year"], 2), percent(x["of_profit"], 0)] for x in c["impact"]]
    shown = [row for row, x in zip(rows, c["impact"], strict=True) if 0.005 <= x["of_profit"] <= 2.0]
    note = (
        "Square-root law: an order costs the share \u03c3 \u221a(order / daily volume) of its notional on top of the"
        " costs above, with Y = 1, the deviation \u03c3 of a day, and volume and deviation of the latest 20 days; what"
        " is traded of a symbol in a day is one order, and capital is held constant (Almgren et al. 2005; Bouchaud et"
        " al. 2018). Volume is taken to count units of the symbol, as shares or coins do, and prices to be in one"
        f" currency. Most of the impact comes from {most}. Good: half at ten times what you have or more."
    )
    return f"<p>{esc(said)}</p>{table(head, shown)}{_muted(note)}"


def _eaten(half: float, gone: float, large: float, orders: Mapping[str, float]) -> str:
    """What impact eats of the profit, as far as the law is known first.

    Args:
      half, gone: capital at which half and all of the profit is gone.
      large: capital from which on one order in twenty is a tenth of a day's volume.
      orders: shares of a day's volume at `half`.
    """
    tenth = "one order in twenty is a tenth of a day\u2019s volume or more, which is as far as the law is known"
    at_half = (
        f"an order is {percent(orders['median'], 0)} of a day\u2019s volume at the median and"
        f" {percent(orders['p95'], 0)} at the 95th percentile"
    )
    if half > large:
        return (
            f"Market impact would eat {percent(math.sqrt(large / gone), 0)} of the net profit at a capital of"
            f" {amount(large)}, in the currency of the prices; there {tenth}. If it held beyond, half of the profit"
            f" would be gone at {amount(half)}, where {at_half}, and all of it at {amount(gone)}."
        )
    return (
        f"Market impact would eat half of the net profit at a capital of {amount(half)}, in the currency of the prices,"
        f" where {at_half}; all of it at {amount(gone)}. At {amount(large)} {tenth}."
    )


def amount(value: float) -> str:
    """An amount of money to 2 or 3 digits, in words.

    Example:
      >>> print(amount(3226696.7), amount(12906786.8), amount(950.0), sep=", ")
      3.2 million, 13 million, 950
    """
    for size, word in ((1e9, "\u00a0billion"), (1e6, "\u00a0million"), (1e3, "\u00a0thousand")):
        if value >= size:
            scaled = value / size
            return number(scaled, 1 if scaled < 10 and round(scaled, 1) % 1 else 0) + word
    return number(value, 0)
