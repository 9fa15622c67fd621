"""The report of a run: one self-contained HTML file, made from the files of a run directory alone."""

from __future__ import annotations

from pathlib import Path

from jaxppo.page import document, learning, plots, run_charts, sections, tables, tested, yardsticks
from jaxppo.page import run_remarks as remarks
from jaxppo.page.document import Section
from jaxppo.page.members import members_section
from jaxppo.page.scoreboard import LOOKED_AT, scoreboard
from jaxppo.page.tearsheet import tear_sheet
from jaxppo.page.text import MISSING, base_name, moment, number, plain_value, plural
from jaxppo.page.yardsticks import best_rule
from jaxppo.store.files import write_page
from jaxppo.store.read import RunData, load_run, lookup, pooled_and_portfolio, values


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
    return write_page(run_dir, images, render(run))


def write_html(run_dir: Path) -> Path:
    """Write `run_dir`/report.html alone, whose pictures are not changed by what was found since; returns its path."""
    return write_page(run_dir, {}, render(load_run(run_dir)))


def render(run: RunData) -> str:
    """The page as text."""
    title = f"{lookup(run.config, 'preset', default=run.name)} on {base_name(sections.source(run))}"
    doubt = remarks.caveat(run) if run.shown else ""
    return document.document(
        title,
        sections.header(title, _about(run))
        + _decides(run)
        + (f"<h2>On the validation bars {LOOKED_AT}</h2>" if run.tested else "")
        + document.cards(remarks.cards(run))
        + sections.verdict(remarks.verdict(run), doubt, run.gate),
        [
            _equity(run),
            *tear_sheet(run.sheet, "the best policy on the validation bars, by which it was chosen"),
            sections.trades(run.shown),
            sections.symbols(run.shown),
            Section("learning", "Learning curves", _learning(run), LEARNING),
            Section("actions", "Actions", _actions(run), LEARNING),
            Section("rewards", "Reward components", _rewards(run), LEARNING),
            sections.warnings(remarks.warnings(run)),
            sections.gate(run.gate),
            sections.run(run, data=f"<h3>Data</h3>{tables.data_table(run.manifest)}"),
            sections.glossary(),
        ],
        sections.footer(run),
    )


LEARNING = "Learning"


def _decides(run: RunData) -> str:
    """What decides: the latest backtest out of sample, or that there is none yet and what the validation can say."""
    if run.tested is not None:
        return tested.board(run.tested)
    if run.shown is None or not run.portfolios:
        return ""
    policy = "best" if run.best is not None else "final"
    best = best_rule(run.portfolios) or ""
    return scoreboard(remarks.untested(run, policy), tested.scores(run.portfolios, policy, None, {}, best), "", _NOTE)


_NOTE = "Of the portfolio that is rebalanced daily, on the validation bars, after all costs; the best rule is so there."


def _about(run: RunData) -> list[str]:
    m = run.manifest
    steps = values(run.metrics, "env_steps")
    return [
        f"{lookup(m, 'data', 'interval', default='?')} bars",
        plural(len(lookup(m, "data", "symbols", default=[])), "symbol"),
        f"{lookup(run.config, 'reward', 'reward', default='?')} reward",
        f"{number(steps[-1], 0)} env steps" if len(steps) else "no env step yet",
        *([f"{number(passes, 1)} passes over the training bars"] if (passes := lookup(m, "passes")) else []),
        f"seed {lookup(run.config, 'seed', default='?')}",
        *([f"an ensemble of {seeds}"] if (seeds := lookup(run.config, "budget", "seeds", default=1)) > 1 else []),
        plain_value(lookup(m, "device", "kind", default=MISSING)),
        moment(lookup(m, "created", default=MISSING)),
    ]


def _equity(run: RunData) -> Section:
    same = " The final policy is the best one." if run.best_is_final else ""
    return sections.equity(
        "Equity against buy-and-hold",
        run_charts.equity(run),
        "Growth of 1.00, all symbols together, after costs." + same,
        tables.comparison_table(run),
        yardsticks.portfolio_table(run.portfolios),
        members_section(pooled_and_portfolio(run.shown), run.members),
        missing="No validated equity curve is in the run directory.",
    )


def _learning(run: RunData) -> str:
    if run.metrics.height == 0:
        return sections.muted("No validation has been written yet.")
    best = run.best_row
    update = "" if best is None else number(values(run.metrics, "update")[best], 0)
    chosen = f" The large point is the best validation, at update {update}." if update else ""
    return (
        "<h3>On the validation bars</h3>"
        + learning.validation_curves(run.metrics, best)
        + sections.muted(
            f"Against env steps; the first point is the untrained policy, the dashed line buy-and-hold.{chosen}"
        )
        + "<h3>In training</h3>"
        + learning.training_curves(run.metrics)
        + sections.muted(
            "Against env steps, means over the updates since the last validation. Entropy that falls to 0 early, "
            "or an explained variance that stays under 0, is a run that has stopped learning."
        )
    )


def _actions(run: RunData) -> str:
    caption = (
        "Share of each action, one bar a validation, labelled by env steps. A single colour is a policy that has "
        "collapsed."
    )
    drawn = learning.action_shares(run.metrics)
    return drawn + sections.muted(caption if drawn else "No action shares have been logged yet.")


def _rewards(run: RunData) -> str:
    caption = (
        "What the policy was paid for in training. None of this is money: every figure of money on this page comes "
        "from the ledger of trades."
    )
    drawn = learning.reward_components(run.metrics)
    return drawn + sections.muted(caption if drawn else "No reward components have been logged yet.")
