"""The report of a run: one self-contained HTML file, made from the files of a run directory alone."""

from __future__ import annotations

from pathlib import Path

from jaxppo.page import document, plots, sections, tables, yardsticks
from jaxppo.page.document import Section
from jaxppo.page.members import members_section
from jaxppo.page.text import MISSING, moment, number, plain_value, plural
from jaxppo.store.files import write_page
from jaxppo.store.read import RunData, load_run, lookup, pooled_and_portfolio, values
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
    return write_page(run_dir, images, render(run, images))


def render(run: RunData, images: dict[str, bytes]) -> str:
    """The page as text; `images` are PNG files by the names of `plots.PLOTS`."""
    title = f"{lookup(run.config, 'preset', default=run.name)} on {sections.source(run)}"
    doubt = remarks.caveat(run) if run.shown else ""
    return document.document(
        title,
        sections.header(title, _about(run))
        + document.cards(remarks.cards(run))
        + sections.verdict(remarks.verdict(run), doubt, run.gate),
        [
            sections.warnings(remarks.warnings(run)),
            _equity(run, images),
            Section("learning", "Learning curves", _learning(run, images)),
            sections.trades(run.shown, images),
            Section("actions", "Actions", _actions(images)),
            Section("rewards", "Reward components", _rewards(images)),
            sections.symbols(run.shown, images),
            sections.gate(run.gate),
            sections.run(run, data=f"<h3>Data</h3>{tables.data_table(run.manifest)}"),
            sections.glossary(),
        ],
        sections.footer(run),
    )


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


def _equity(run: RunData, images: dict[str, bytes]) -> Section:
    same = " The final policy is the best one." if run.best_is_final else ""
    return sections.equity(
        "Equity against buy-and-hold",
        images,
        "Equity of the policy and of buy-and-hold",
        "Growth of 1.00." + same,
        tables.comparison_table(run),
        yardsticks.portfolio_table(run.portfolios),
        members_section(pooled_and_portfolio(run.shown), run.members),
        missing="No validated equity curve is in the run directory.",
    )


def _learning(run: RunData, images: dict[str, bytes]) -> str:
    best = run.best_row
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
