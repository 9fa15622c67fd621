"""The report of a run: one self-contained HTML file, made from the files of a run directory alone."""

from __future__ import annotations

from pathlib import Path

from jaxppo.page import document, gate, plots, tables
from jaxppo.page.document import DOT, Remark
from jaxppo.page.tables import esc
from jaxppo.page.text import MISSING, moment, number, plain_value, plural
from jaxppo.store.read import RunData, best_row, load_run, lookup, values
from jaxppo.train import remarks


def write_report(run_dir: Path) -> Path:
    """Write `run_dir`/plots/*.png and `run_dir`/report.html from the files of the run, and return the page's path.

    It may be called at any time, during a run too: what has no data yet is left out, and the page says so. Each file
    is replaced whole, so a reader never sees half of one. Raises `RunDirectoryError` where `run_dir` is not a run
    directory or a file in it cannot be read.
    """
    run = load_run(run_dir)
    images = plots.make_plots(run)
    for name in set(plots.PLOTS) - set(images):
        (run_dir / "plots" / f"{name}.png").unlink(missing_ok=True)  # left by an earlier report of other data
    return document.write_page(run_dir, images, render(run, images))


def render(run: RunData, images: dict[str, bytes]) -> str:
    """The page as text; `images` are PNG files by the names of `plots.PLOTS`."""
    sections = [
        ("warnings", "Warnings", _warnings(run)),
        ("equity", "Equity against buy-and-hold", _equity(run, images)),
        ("learning", "Learning curves", _learning(run, images)),
        ("trades", "Trades", _trades(run, images)),
        ("actions", "Actions", _actions(images)),
        ("rewards", "Reward components", _rewards(images)),
        ("symbols", "Symbols", _symbols(run)),
        ("gate", "Gate", gate.section(run.gate)),
        ("run", "Run", _run(run)),
        ("glossary", "Glossary", tables.glossary()),
    ]
    return document.document(
        _heading(run),
        f"{_header(run)}{document.cards(remarks.cards(run))}{_verdict(run)}",
        sections,
        f"jaxppo {lookup(run.manifest, 'jaxppo', default='')}{DOT}{run.name}",
    )


def _heading(run: RunData) -> str:
    return (
        f"{lookup(run.config, 'preset', default=run.name)} on {lookup(run.manifest, 'data', 'source', default='data')}"
    )


def _header(run: RunData) -> str:
    m = run.manifest
    symbols = lookup(m, "data", "symbols", default=[])
    steps = values(run.metrics, "env_steps")
    parts = [
        f"{lookup(m, 'data', 'interval', default='?')} bars",
        plural(len(symbols), "symbol"),
        f"{lookup(run.config, 'reward', 'reward', default='?')} reward",
        f"{number(steps[-1], 0)} env steps" if len(steps) else "no env step yet",
        f"seed {lookup(run.config, 'seed', default='?')}",
        plain_value(lookup(m, "device", "kind", default=MISSING)),
        moment(lookup(m, "created", default=MISSING)),
    ]
    return f'<header><h1>{esc(_heading(run))}</h1><p class="lead">{esc(DOT.join(parts))}</p></header>'


def _verdict(run: RunData) -> str:
    verdict = remarks.verdict(run)
    doubt = f'<p class="muted">{esc(remarks.caveat(run))}</p>' if run.shown else ""
    if run.gate is not None:
        judged = gate.verdict(run.gate)
        doubt = f"<p><b>Gate: {esc(judged.title)}.</b> {esc(judged.text)}</p>" + doubt
    return (
        f'<section class="verdict {verdict.tone}" id="verdict"><h2>{esc(verdict.title)}</h2>'
        f"<p>{esc(verdict.text)}</p>{doubt}</section>"
    )


def _warnings(run: RunData) -> str:
    found = remarks.warnings(run)
    if not found:
        found = [
            Remark(
                "good",
                "None of the usual ones",
                "Enough trades and bars, no action that is nearly always taken, no deep drawdown.",
            )
        ]
    return document.remark_list(found)


def _equity(run: RunData, images: dict[str, bytes]) -> str:
    missing = "No validated equity curve is in the run directory."
    same = " The final policy is the best one." if run.best_is_final else ""
    n = 0 if run.shown is None else len(plots.ranked_symbols(run.shown))
    some = "" if n <= plots.MAX_SYMBOLS else f" The {plots.MAX_SYMBOLS // 2} best and worst of {n} symbols are shown."
    return (
        document.figure(images, "equity", "Equity of the policy and of buy-and-hold", "Growth of 1.00." + same, missing)
        + document.figure(images, "drawdown", "Drawdown", "How far equity lies below its highest point so far.", "")
        + document.figure(
            images,
            "symbols",
            "Equity of each symbol",
            f"Growth of 1.00 on each symbol: the policy in blue, buy-and-hold in grey.{some}",
            "",
        )
        + tables.comparison_table(run)
    )


def _learning(run: RunData, images: dict[str, bytes]) -> str:
    best = best_row(run.metrics)
    update = "" if best is None else number(values(run.metrics, "update")[best], 0)
    chosen = f" The large point is the best validation, at update {update}." if update else ""
    return (
        "<h3>On the validation bars</h3>"
        + document.figure(
            images,
            "validation",
            "Validation metrics over env steps",
            f"Against env steps; the first point is the untrained policy, the dashed line buy-and-hold.{chosen}",
            "No validation has been written yet.",
        )
        + "<h3>In training</h3>"
        + document.figure(
            images,
            "training",
            "Training metrics over env steps",
            "Against env steps, means over the updates since the last validation. Entropy that falls to 0 early, "
            "or an explained variance that stays under 0, is a run that has stopped learning.",
            "No update has been logged yet.",
        )
    )


def _trades(run: RunData, images: dict[str, bytes]) -> str:
    if run.shown is None:
        return '<p class="muted">No validated trades are in the run directory.</p>'
    symbol = plots.busiest_symbol(run.shown) or ""
    caption = (
        f"The latest trades, at most {plots.MAX_TRADES}, on {symbol}, the symbol with the most. Triangles are entries, "
        "points are exits; full green lines gained, dashed ones lost."
    )
    chart = document.figure(images, "trades", "Trades on the price", caption, "The policy closed no trade.")
    return chart + (tables.trade_table(run.shown) if symbol else "")


def _actions(images: dict[str, bytes]) -> str:
    caption = (
        "Share of each action, one bar a validation, labelled by env steps. A single colour is a policy that has "
        "collapsed."
    )
    return document.figure(images, "actions", "Share of each action", caption, "No action shares have been logged yet.")


def _rewards(images: dict[str, bytes]) -> str:
    caption = (
        "What the policy was paid for in training. None of this is money: every figure of money on this page comes "
        "from the ledger of trades."
    )
    return document.figure(
        images, "rewards", "Reward components", caption, "No reward components have been logged yet."
    )


def _symbols(run: RunData) -> str:
    if run.shown is None:
        return '<p class="muted">No validated symbols are in the run directory.</p>'
    return tables.symbol_table(run.shown)


def _run(run: RunData) -> str:
    names = lookup(run.manifest, "features", "names", default=[])
    return (
        tables.definitions(tables.facts(run))
        + "<h3>Data</h3>"
        + tables.data_table(run.manifest)
        + "<h3>Values that differ from the defaults</h3>"
        + tables.changed_table(run)
        + f"<details><summary>All configuration values</summary>{tables.config_table(run)}</details>"
        + f"<details><summary>Features</summary><p><code>{esc(', '.join(names))}</code></p></details>"
    )
