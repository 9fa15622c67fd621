"""The report of a walk-forward: one self-contained page, made from the files of its folder alone."""

from __future__ import annotations

import math
from pathlib import Path

import polars as pl

from jaxppo.page import canvas, document, tables
from jaxppo.page.document import DOT, MIN_TRADES, Card, Remark
from jaxppo.page.plots import DRAWDOWN_LIMIT
from jaxppo.page.tables import esc
from jaxppo.page.text import FORMS, MISSING, moment, number, percent, plural
from jaxppo.play.metrics import METRICS
from jaxppo.store.read import WalkforwardData, load_walkforward, lookup, values
from jaxppo.walkforward.charts import make_figures

NAMES = {
    "policy": "Policy",
    "buy_and_hold": "Buy-and-hold, equal money each fold",
    "buy_and_hold_once": "Buy-and-hold, bought once",
    "flat": "Flat",
}
CONFIDENT = 0.95


def write_report(folder: Path, name: str) -> Path:
    """Write plots/*.png and report.html in `folder`, whose page is called `name`; returns the page's path."""
    data = load_walkforward(folder, name)
    images = {key: canvas.png(figure) for key, figure in make_figures(data).items()}
    return document.write_page(folder, images, render(data, images))


def cards(data: WalkforwardData) -> list[Card]:
    """The six key figures."""
    s = data.summary
    result, hold = data.joined("policy", "return"), data.joined("buy_and_hold", "return")
    sharpe, fall = data.joined("policy", "sharpe"), data.joined("policy", "max_drawdown")
    low, high = s["intervals_90"]["sharpe"]
    factor, gap = data.joined("policy", "profit_factor"), s["gaps"]["sharpe"]
    deflated = s["deflated_sharpe"]
    return [
        Card(
            "Net return",
            percent(result, sign=True),
            f"buy-and-hold {percent(hold, sign=True)}",
            _tone(result > max(hold, 0.0)),
        ),
        Card("Sharpe ratio", number(sharpe), f"90 % interval {number(low)} to {number(high)}", _tone(low > 0)),
        Card(
            "Max drawdown",
            percent(fall),
            f"buy-and-hold {percent(data.joined('buy_and_hold', 'max_drawdown'))}",
            _tone(fall <= DRAWDOWN_LIMIT),
        ),
        Card(
            "Profit factor",
            number(factor),
            plural(int(data.joined("policy", "trades")), "closed trade"),
            _tone(factor > 1) if math.isfinite(factor) else "caution",
        ),
        Card(
            "Folds with a gain",
            percent(s["positive_folds"], 0),
            f"above buy-and-hold {percent(s['folds_above_buy_and_hold'], 0)}",
            _tone(s["positive_folds"] > 0.5),
        ),
        Card(
            "Sharpe, out less in",
            number(gap["gap"]),
            f"deflated Sharpe {number(deflated)} of {plural(s['trials'], 'trial')}",
            _tone(deflated > CONFIDENT),
        ),
    ]


def _tone(good: bool) -> str:
    return "good" if good else "bad"


def verdict(data: WalkforwardData) -> Remark:
    """One sentence on what the joined curve adds up to."""
    s = data.summary
    result, hold = data.joined("policy", "return"), data.joined("buy_and_hold", "return")
    once = data.joined("buy_and_hold_once", "return")
    trades = plural(int(data.joined("policy", "trades")), "closed trade")
    text = (
        f"From {moment(s['first_test'])} to {moment(s['last_test'])} the policies of {plural(s['folds'], 'fold')} made"
        f" {percent(result, sign=True)} after costs with {trades};"
        f" buy-and-hold made {percent(hold, sign=True)} with equal money in each symbol at the start of each fold, and"
        f" {percent(once, sign=True)} bought once."
    )
    if data.joined("policy", "trades") == 0:
        return Remark("bad", "No policy closed a trade", text)
    if not result > 0:
        return Remark("bad", "Loses money out of sample", text)
    if not result > max(hold, once):
        return Remark("caution", "Makes money out of sample, but less than buying and holding", text)
    if not s["deflated_sharpe"] > CONFIDENT:
        return Remark("caution", "Beats buy-and-hold out of sample, but luck could explain it", text)
    return Remark("good", "Beats buy-and-hold out of sample, and luck hardly explains it", text)


def remarks(data: WalkforwardData) -> list[Remark]:
    """What to mind."""
    s, found = data.summary, []
    gap, trades = s["gaps"]["sharpe"], data.joined("policy", "trades")
    one, two = gap["in_sample"], gap["out_of_sample"]
    if one > 0 and two < 0.5 * one:
        text = (
            f"Sharpe {number(one)} on the bars trained on and {number(two)} on those that came after, mean of the"
            " folds: most of what was learnt does not carry over."
        )
        found.append(Remark("bad", "Overfit", text))
    if trades < MIN_TRADES:
        text = f"{plural(int(trades), 'closed trade')} out of sample; under {MIN_TRADES} say little."
        found.append(Remark("caution", "Few trades", text))
    low, high = s["intervals_90"]["sharpe"]
    if low <= 0 <= high:
        text = f"The 90 % interval of the Sharpe ratio, {number(low)} to {number(high)}, holds 0."
        found.append(Remark("caution", "Not told apart from luck", text))
    idle = [str(f) for f, n in zip(data.folds["fold"], values(data.folds, "out_trades"), strict=True) if n == 0]
    if idle:
        text = f"The policy of fold {', '.join(idle)} closed no trade out of sample."
        found.append(Remark("caution", "Folds without a trade", text))
    ruined = int(data.folds["ruined"].sum())
    if ruined:
        found.append(Remark("bad", "Ruined accounts", f"{plural(ruined, 'account')} lost nearly everything in a fold."))
    found += [Remark("caution", "Symbols", f"{text[0].upper()}{text[1:]}.") for text in s["warnings"]]
    return found or [Remark("good", "None of the usual ones", "Enough trades, and as good after training as on it.")]


def render(data: WalkforwardData, images: dict[str, bytes]) -> str:
    """The page as text; `images` are PNG files by the names of `make_figures`."""
    heading = f"Walk-forward on {lookup(data.manifest, 'data', 'source', default='data')}"
    return document.document(
        heading,
        f"{_header(data, heading)}{document.cards(cards(data))}{_verdict(data)}",
        [
            ("warnings", "Warnings", document.remark_list(remarks(data))),
            ("equity", "Out of sample against buy-and-hold", _equity(data, images)),
            ("folds", "Folds", _folds(data, images)),
            ("gap", "In sample and out of sample", gap_table(data)),
            ("symbols", "Symbols", _symbols(data)),
            ("trades", "Trades", _trades(data)),
            ("run", "Run", _run(data)),
            ("glossary", "Glossary", tables.glossary()),
        ],
        f"jaxppo {lookup(data.manifest, 'jaxppo', default='')}{DOT}{data.name}",
    )


def _header(data: WalkforwardData, heading: str) -> str:
    s = data.summary
    parts = [
        f"{lookup(data.manifest, 'data', 'interval', default='?')} bars",
        plural(s["symbols"], "symbol"),
        f"{plural(s['folds'], 'fold')}, {s['scheme']}",
        f"{s['purge_bars']} bars purged, {s['embargo_bars']} embargoed",
        f"preset {data.config['preset']}, seed {data.config['seed']}",
        moment(lookup(data.manifest, "created", default=MISSING)),
    ]
    return f'<header><h1>{esc(heading)}</h1><p class="lead">{esc(DOT.join(parts))}</p></header>'


def _verdict(data: WalkforwardData) -> str:
    found = verdict(data)
    trials = plural(data.summary["trials"], "trial")
    how = (
        "Each fold is trained from scratch on bars before its test period and tested once, with its last policy:"
        " nothing was chosen on the tested bars. Positions are closed at cost at the end of a fold, and equal money"
        f" goes into every symbol at the start of the next. The deflated Sharpe ratio counts {trials} (--trials): count"
        " every configuration that you have tried on these bars."
    )
    return (
        f'<section class="verdict {found.tone}" id="verdict"><h2>{esc(found.title)}</h2>'
        f'<p>{esc(found.text)}</p><p class="muted">{esc(how)}</p></section>'
    )


def _equity(data: WalkforwardData, images: dict[str, bytes]) -> str:
    rows = [(NAMES[k], row) for k, row in data.summary["joined"].items()]
    caption = "Growth of 1.00 over the bars that no policy had seen; dashed lines are where a fold begins."
    low, high = data.summary["intervals_90"]["net_return"]
    interval = (
        f"90 % interval of the net return {percent(low, sign=True)} to {percent(high, sign=True)}, from resampled"
        f" blocks of bars; P(Sharpe above 0) {number(data.summary['probabilistic_sharpe'])}."
    )
    return (
        document.figure(images, "equity", "Joined equity and drawdown", caption, "")
        + tables.metric_tables("At the same costs", rows, total=0)
        + f'<p class="muted">{esc(interval)}</p>'
    )


def _folds(data: WalkforwardData, images: dict[str, bytes]) -> str:
    rows = []
    for row in data.folds.to_dicts():
        out = {k.removeprefix("out_"): v for k, v in row.items() if k.startswith("out_")}
        rows.append((f"{row['fold']}: {row['test_begin'][:10]} to {row['last_test'][:10]}", out))
    head = ["Fold", "Trained from", "to", "Tested from", "to", "Symbols", "Decisions trained", "Tested"]
    dates = [
        [
            str(r["fold"]),
            *(r[c][:10] for c in ("train_begin", "train_end", "test_begin", "last_test")),
            number(r["test_symbols"], 0),
            number(r["train_decisions"], 0),
            number(r["test_decisions"], 0),
        ]
        for r in data.folds.to_dicts()
    ]
    return (
        document.figure(images, "folds", "Figures by fold", "Each fold's last policy, after costs.", "")
        + tables.metric_tables("Out of sample", rows)
        + document.figure(images, "timeline", "Training and test periods", "What lies between the two is left out.", "")
        + tables.table(head, dates, text_columns=5)
    )


def gap_table(data: WalkforwardData) -> str:
    """Each figure in sample and out of sample, mean of the folds."""
    gaps = data.summary["gaps"]

    def part(where: str) -> str:
        rows = []
        for metric in (m for m in METRICS.values() if m.gap == where):
            gap, show = gaps[metric.column], FORMS[metric.form]
            rows.append(
                [
                    metric.title,
                    *(show(gap[k]) for k in ("in_sample", "out_of_sample", "gap")),
                    str(gap["folds"]),
                ]
            )
        return tables.table(["Figure", "In sample", "Out of sample", "Gap", "Folds"], rows)

    note = (
        "The last policy of each fold on the bars that it was trained on and on its test period: means over the folds"
        " in which both are finite. A drawdown grows with the length of a period; training parts are longer than tests."
    )
    folded = f"<details><summary>More metrics</summary>{part('more')}</details>"
    return f'<p class="lead">{esc(note)}</p>{part("first")}{folded}'


def _symbols(data: WalkforwardData) -> str:
    rows = (
        data.played.symbols.filter(pl.col("fold") == "joined").sort("return", descending=True).drop("fold", "trained")
    )
    named = [(row.pop("symbol"), row) for row in rows.to_dicts()]
    note = "Each symbol's own account out of sample, all folds one after another. symbols.csv has every fold."
    return f'<p class="lead">{esc(note)}</p>' + tables.metric_tables("Symbol", named)


def _trades(data: WalkforwardData) -> str:
    if data.played.trades.height == 0:
        return '<p class="muted">No policy closed a trade out of sample.</p>'
    return tables.trade_table(data.played)


def _run(data: WalkforwardData) -> str:
    seconds = lookup(data.manifest, "run_seconds")
    own = [
        ("Folds side by side", f"{data.summary['at_once']} of {data.summary['folds']}"),
        ("Training and testing", f"{number(seconds, 1)} s" if seconds is not None else MISSING),
    ]
    return (
        tables.definitions([*tables.facts(data), *own])
        + "<h3>Values that differ from the defaults</h3>"
        + tables.changed_table(data)
        + f"<details><summary>All configuration values</summary>{tables.config_table(data)}</details>"
    )
