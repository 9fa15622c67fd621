"""The report of a backtest: one self-contained HTML file, made from the files of its folder alone."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

from jaxppo.backtest.charts import make_plots
from jaxppo.page import document, gate, tables
from jaxppo.page.document import DOT, Card, Remark
from jaxppo.page.plots import MAX_SYMBOLS, MAX_TRADES, busiest_symbol, ranked_symbols
from jaxppo.page.tables import esc
from jaxppo.page.text import moment, number, percent, plain_value, plural
from jaxppo.store.read import BacktestData, load_backtest, lookup

NAMES = {
    "policy": "Policy",
    "buy_and_hold": "Buy-and-hold",
    "flat": "Always flat",
    "momentum": "Momentum, 20 bars",
    "random_mean": "Random times, mean",
    "random_p5": "Random times, 5 %",
    "random_p95": "Random times, 95 %",
}
_INTERVALS = {
    "net_return": ("Net return", lambda x: percent(x, sign=True)),
    "cagr": ("CAGR", lambda x: percent(x, sign=True)),
    "sharpe": ("Sharpe ratio", number),
    "max_drawdown": ("Max drawdown", percent),
}


def write_backtest_report(folder: Path) -> Path:
    """Write FOLDER/plots/*.png and FOLDER/report.html from the other files there, and return the page's path."""
    data = load_backtest(folder)
    images = make_plots(data.played, data.curves, data.draws, data.costs)
    return document.write_page(folder, images, render(data, images))


def render(data: BacktestData, images: dict[str, bytes]) -> str:
    """The page as text; `images` are PNG files by the names of `backtest_plots.PLOTS`."""
    sections = [
        ("warnings", "Before believing it", document.remark_list(warnings(data))),
        ("equity", "Equity against the baselines", _equity(data, images)),
        ("chance", "How much of this could be chance", _chance(data, images)),
        ("costs", "If trading costs more", _costs(data, images)),
        ("trades", "Trades", _trades(data, images)),
        ("symbols", "Symbols", _symbols(data, images)),
        ("gate", "Gate", gate.section(data.gate)),
        ("played", "What was played", tables.definitions(_facts(data))),
        ("glossary", "Glossary", tables.glossary()),
    ]
    return document.document(
        _heading(data), f"{_header(data)}{document.cards(cards(data))}{_verdict(data)}", sections, "jaxppo"
    )


def _heading(data: BacktestData) -> str:
    which = {"all": "all bars"}.get(data.facts["split"], f"{data.facts['split']} split")
    return f"Backtest: {which} of {data.facts['source']}"


def _header(data: BacktestData) -> str:
    f = data.facts
    parts = [
        f"policy of update {number(f['update'], 0)} ({f['which']}) of {f['run']}",
        f"{f['interval']} bars",
        plural(data.played.symbols.height - 1, "symbol"),
        f"{number(f['decisions'], 0)} decisions",
        f"{moment(f['first_decision'])} to {moment(f['last_decision'])}",
    ]
    return f'<header><h1>{esc(_heading(data))}</h1><p class="lead">{esc(DOT.join(parts))}</p></header>'


def cards(data: BacktestData) -> list[Card]:
    """The six figures that a trader asks for first, each next to what puts it in its place."""
    p, f = data.pooled, data.facts
    hold = f["baselines"]["buy_and_hold"]
    interval = f["intervals_90"]["sharpe"]
    beaten = f["random_beaten_share"]
    return [
        Card(
            "Net return",
            percent(p["return"], sign=True),
            f"buy-and-hold {percent(hold['return'], sign=True)}",
            _tone(p["return"] > max(hold["return"], 0.0)),
        ),
        Card(
            "Sharpe ratio",
            number(p["sharpe"]),
            f"90 % interval {number(interval[0])} to {number(interval[1])}",
            _tone(p["sharpe"] > 0),
        ),
        Card(
            "Max drawdown",
            percent(p["max_drawdown"]),
            f"buy-and-hold {percent(hold['max_drawdown'])}",
            _tone(p["max_drawdown"] <= hold["max_drawdown"]),
        ),
        Card("Profit factor", number(p["profit_factor"]), f"win rate {percent(p['win_rate'], 0)}", _profit_tone(p)),
        Card("Closed trades", number(p["trades"], 0), f"turnover {number(p['turnover'], 1)} a year"),
        Card(
            "Beats random times",
            percent(beaten, 0),
            f"of {plural(int(f['random_draws']), 'draw')} of its own positions",
            "good" if beaten >= 0.95 else "bad" if beaten < 0.5 else "caution",
        ),
    ]


def _tone(well: bool) -> str:
    return "good" if well else "bad"


def _profit_tone(pooled: dict[str, float]) -> str:
    factor = pooled["profit_factor"]
    return "caution" if not math.isfinite(factor) else _tone(factor > 1)


def _verdict(data: BacktestData) -> str:
    found = gate.verdict(data.gate)
    p, hold = data.pooled, data.facts["baselines"]["buy_and_hold"]
    money = (
        f"After fees, spread, slippage and borrow cost 1.00 became {number(1 + p['return'])}; bought and held at the "
        f"same costs it became {number(1 + hold['return'])}."
    )
    return (
        f'<section class="verdict {found.tone}" id="verdict"><h2>{esc(found.title)}</h2>'
        f'<p>{esc(money)}</p><p class="muted">{esc(found.text)}</p></section>'
    )


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
    if seen and seen.get("train", 0) == 0 and seen.get("validation", 0) == 0:
        text = "Every decision lies after the run's validation period: nothing here was trained on or chosen by."
        found.insert(0, Remark("good", "Out of sample", text))
    found += gate.flags(data.gate)
    return found or [Remark("good", "None", "Nothing unusual about the bars or the policy.")]


def _equity(data: BacktestData, images: dict[str, bytes]) -> str:
    rows = [(NAMES.get(name, name), row) for name, row in data.facts["baselines"].items()]
    caption = (
        "Growth of 1.00. Shaded: where 90 % of the random draws lie. A random draw holds the very positions of the "
        "policy, as often and as long, at other times; what the policy adds to that is timing. Momentum follows the "
        "last 20 bars, always in the market; it may leave the picture."
    )
    fall = "How far equity lies below its highest point so far."
    return (
        document.figure(images, "equity", "Equity of the policy and of the baselines", caption, "")
        + document.figure(images, "drawdown", "Drawdown", fall, "")
        + "<h3>The policy and what it must beat, at the same costs</h3>"
        + tables.metric_tables("", rows, total=0)
    )


def _chance(data: BacktestData, images: dict[str, bytes]) -> str:
    f = data.facts
    rows = [
        [name, show(data.pooled["return" if key == "net_return" else key]), *(show(x) for x in f["intervals_90"][key])]
        for key, (name, show) in _INTERVALS.items()
    ]
    beaten = round(f["random_beaten_share"] * f["random_draws"])
    caption = (
        f"The policy beats {beaten} of {plural(int(f['random_draws']), 'draw')}. A policy whose timing is worth "
        "something lies to the right of nearly all dots."
    )
    return (
        "".join(f"<p>{esc(text)}</p>" for text in chance_words(data))
        + document.figure(images, "random", "Net return of random draws", caption, "")
        + "<h3>90 % intervals</h3>"
        + tables.table(["", "Here", "From", "To"], rows)
        + '<p class="muted">From histories resampled in blocks of these very bars (stationary bootstrap): how far the '
        "figures would vary if the same kind of bars came in another order and number. They say nothing of a "
        "market that changes.</p>"
    )


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


def _costs(data: BacktestData, images: dict[str, bytes]) -> str:
    rows = [(f"{number(row['cost_multiple'], 0)}x", row) for row in data.facts["costs"]]
    named = [(name, {k: v for k, v in row.items() if k != "cost_multiple"}) for name, row in rows]
    caption = "Fee, spread, slippage and borrow cost all at the multiple; the policy decides anew at each."
    return (
        f"<p>{esc(cost_words(data))}</p>"
        + document.figure(images, "costs", "Cost sweep", caption, "")
        + tables.metric_tables("Costs", named)
    )


def _trades(data: BacktestData, images: dict[str, bytes]) -> str:
    symbol = busiest_symbol(data.played)
    if symbol is None:
        return '<p class="muted">The policy closed no trade.</p>'
    caption = (
        f"The latest trades, at most {MAX_TRADES}, on {symbol}, the symbol with the most. Triangles are entries, "
        "points are exits; full green lines gained, dashed ones lost."
    )
    money = "Net profit and fees are in units of the equity that each symbol\u2019s account started with."
    return (
        document.figure(images, "trades", "Trades on the price", caption, "")
        + tables.trade_table(data.played)
        + f'<p class="muted">{esc(money)}</p>'
    )


def _symbols(data: BacktestData, images: dict[str, bytes]) -> str:
    n = len(ranked_symbols(data.played))
    some = "" if n <= MAX_SYMBOLS else f" The {MAX_SYMBOLS // 2} best and worst of {n} symbols are shown."
    caption = f"Growth of 1.00 on each symbol: the policy in blue, buy-and-hold in grey.{some}"
    return document.figure(images, "symbols", "Equity of each symbol", caption, "") + tables.symbol_table(data.played)


def _facts(data: BacktestData) -> list[tuple[str, str]]:
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
        ("Decisions by the run's dates", ", ".join(f"{k} {percent(v)}" for k, v in f["seen"].items()) or "not known"),
        ("Fee a side", ", ".join(f"{k} {percent(v, 3)}" for k, v in terms["fee"].items())),
        *((k.replace("_", " ").capitalize(), _term(k, v)) for k, v in terms.items() if k != "fee"),
        ("Actions", ", ".join(f"{k} {percent(v, 0)}" for k, v in f["action_share"].items())),
        ("Random draws", f"{number(f['random_draws'], 0)}, seed {plain_value(f['seed'])}"),
    ]


def _term(name: str, value: float) -> str:
    if name == "max_exposure":
        return number(value)
    return "none" if value == 0 else percent(value, 3)
