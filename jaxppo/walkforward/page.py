"""The report of a walk-forward: one self-contained page, made from the files of its folder alone."""

from __future__ import annotations

from pathlib import Path

from jaxppo.page import canvas, document, sections, tables, tested, yardsticks
from jaxppo.page.document import Section
from jaxppo.page.scoreboard import scoreboard
from jaxppo.page.tables import esc
from jaxppo.page.tearsheet import tear_sheet
from jaxppo.page.text import FORMS, MISSING, base_name, moment, number, percent, plural
from jaxppo.play.gate import APPROVED
from jaxppo.play.metrics import METRICS
from jaxppo.store.files import write_page
from jaxppo.store.read import WalkforwardData, load_walkforward, lookup
from jaxppo.walkforward import interactive, remarks
from jaxppo.walkforward.charts import make_figures

NAMES = {
    "policy": "Policy",
    "buy_and_hold": "Buy-and-hold, equal money each fold",
    "buy_and_hold_once": "Buy-and-hold, bought once",
    "flat": "Flat",
}


def write_report(folder: Path, name: str) -> Path:
    """Write plots/*.png and report.html in `folder`, whose page is called `name`; returns the page's path."""
    data = load_walkforward(folder, name)
    images = {key: canvas.png(figure) for key, figure in make_figures(data).items()}
    return write_page(folder, images, render(data))


def render(data: WalkforwardData) -> str:
    """The page as text."""
    title = f"Walk-forward on {base_name(sections.source(data))}"
    symbols = "Each symbol's own account out of sample, all folds one after another. symbols.csv has every fold."
    own, excess = data.summary["portfolio"], data.summary["excess_over_best_rule"]
    compared = tested.scores(data.portfolios, "policy", own["interval_90"], data.summary["baselines"], excess["rule"])
    return document.document(
        title,
        sections.header(title, _about(data))
        + scoreboard(remarks.answer(data), compared, sections.muted(remarks.verdict(data).text), tested.NOTE)
        + document.cards(remarks.cards(data), data.gate.verdict == APPROVED),
        [
            _portfolio(data),
            _equity(data),
            *tear_sheet(data.sheet, "the policies of all folds out of sample, joined"),
            Section("folds", "Folds", _folds(data), FOLDS),
            Section("gap", "In sample and out of sample", gap_table(data), FOLDS),
            sections.trades(data.played, "No policy closed a trade out of sample."),
            sections.symbols(data.joined_accounts(), symbols),
            Section("method", "How the figures came about", sections.muted(remarks.method(data)), sections.CHECKS),
            sections.warnings(remarks.warnings(data)),
            sections.gate(data.gate),
            sections.run(data, _own_facts(data)),
            sections.glossary(),
        ],
        sections.footer(data),
    )


FOLDS = "Folds"


def _about(data: WalkforwardData) -> list[str]:
    s = data.summary
    return [
        f"{lookup(data.manifest, 'data', 'interval', default='?')} bars",
        plural(s["symbols"], "symbol"),
        f"{plural(s['folds'], 'fold')}, {s['scheme']}",
        f"{s['purge_bars']} bars purged, {s['embargo_bars']} embargoed",
        f"preset {data.config['preset']}, seed {data.config['seed']}",
        *([f"ensembles of {seeds}"] if (seeds := lookup(data.config, "budget", "seeds", default=1)) > 1 else []),
        moment(lookup(data.manifest, "created", default=MISSING)),
    ]


def _portfolio(data: WalkforwardData) -> Section:
    """The portfolio that is rebalanced daily against every rule, joined and by decade."""
    entry = data.summary["portfolio"]
    low, high = entry["interval_90"]
    spread = f"90 % interval of its Sharpe ratio {number(low)} to {number(high)}, from resampled blocks of days."
    if len(entry["members"]) > 1:
        members = ", ".join(number(m) for m in entry["members"])
        spread += f" The seeds alone: {members}, a spread of {number(entry['members_spread'])}."
    chart = document.chart(
        interactive.portfolio(data),
        "Growth of 1.00 at the volatility of the policy, the plain mean of the symbols' returns each day, on a"
        " logarithmic axis, the other rules in grey; dashed lines are where a fold begins. Rules that are fitted are"
        " fitted anew in each fold, on what its policy trains on. The best rule is the best on these very days.",
    )
    return Section(
        "portfolio",
        "The policy against the rules",
        chart + yardsticks.portfolio_table(data.portfolios) + sections.muted(spread) + _rules_table(data),
        sections.EQUITY,
    )


def _rules_table(data: WalkforwardData) -> str:
    """Sharpe ratios by decade, and how far the policy's is above each rule's, with the interval of the difference."""
    decades, baselines = data.summary["per_decade"], data.summary["baselines"]
    best = data.summary["excess_over_best_rule"]["rule"]

    def line(name: str, parts: list[dict[str, float]], excess: str) -> list[str]:
        return [yardsticks.title(name), *(number(part["sharpe"]) for part in parts), excess]

    rows = [line("policy", [d["policy"] for d in decades.values()], "")]
    for name, row in baselines.items():
        low, high = row["difference_90"]
        excess = f"{number(row['sharpe_difference'])} ({number(low)} to {number(high)})"
        rows.append(line(name, [d["baselines"][name] for d in decades.values()], excess))
    head = ["Sharpe ratio", *decades, "Policy less rule, 90 % interval"]
    chosen = 1 + list(baselines).index(best)
    return "<h3>By decade, and the difference in pairs</h3>" + tables.table(head, rows, total=chosen)


def _equity(data: WalkforwardData) -> Section:
    rows = [(NAMES[k], row) for k, row in data.summary["joined"].items()]
    low, high = data.summary["intervals_90"]["net_return"]
    interval = (
        f"90 % interval of the net return {percent(low, sign=True)} to {percent(high, sign=True)}, from resampled"
        f" blocks of bars; P(Sharpe above 0) {number(data.summary['probabilistic_sharpe'])}."
    )
    return sections.equity(
        "Out of sample against buy-and-hold",
        interactive.equity(data),
        "Growth of 1.00 over the bars that no policy had seen; dashed lines are where a fold begins.",
        tables.metric_tables("At the same costs", rows, total=0),
        sections.muted(interval),
    )


def _folds(data: WalkforwardData) -> str:
    rows = []
    for row in data.folds.to_dicts():
        out = {k.removeprefix("out_"): v for k, v in row.items() if k.startswith("out_")}
        rows.append((f"{row['fold']}: {row['test_begin'][:10]} to {row['last_test'][:10]}", out))
    head = ["Fold", "Trained from", "to", "Tested from", "to", "Symbols", "Decisions trained", "Tested", "Update"]
    dates = [
        [
            str(r["fold"]),
            *(r[c][:10] for c in ("train_begin", "train_end", "test_begin", "last_test")),
            number(r["test_symbols"], 0),
            number(r["train_decisions"], 0),
            number(r["test_decisions"], 0),
            f"{number(r['kept_update'], 0)} of {data.summary['updates']}",
        ]
        for r in data.folds.to_dicts()
    ]
    charts = "".join(document.chart(chart) for chart in interactive.folds(data))
    return (
        f'<div class="columns">{charts}</div>'
        + sections.muted("Each fold's policy, after costs.")
        + tables.metric_tables("Out of sample", rows)
        + "<h3>Training and test periods</h3>"
        + tables.table(head, dates, text_columns=5)
        + sections.muted("Bars between training and test are left out: the purge, and the embargo.")
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
        "The policy of each fold on the bars that it was trained on and on its test period: means over the folds"
        " in which both are finite. A drawdown grows with the length of a period; training parts are longer than tests."
    )
    folded = f"<details><summary>More metrics</summary>{part('more')}</details>"
    return f'<p class="lead">{esc(note)}</p>{part("first")}{folded}'


def _own_facts(data: WalkforwardData) -> list[tuple[str, str]]:
    seconds = lookup(data.manifest, "run_seconds")
    return [
        ("Folds side by side", f"{data.summary['at_once']} of {data.summary['folds']}"),
        ("Training and testing", f"{number(seconds, 1)} s" if seconds is not None else MISSING),
    ]
