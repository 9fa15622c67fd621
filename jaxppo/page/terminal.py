"""Figures on the terminal: lines and tables of plain text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import IO, Any

from rich.console import Console
from rich.table import Table

from jaxppo.play.gate import AT_MOST, Gate, judged_column
from jaxppo.play.metrics import METRICS, Form

PIPED_WIDTH = 10_000
"""Columns of output that goes to a file or a pipe: no line of ours has as many, so none is wrapped or cut."""


def plain_console(file: IO[str] | None = None, *, quiet: bool = False) -> Console:
    """The console of every command: text as it is, since names of symbols and files are not ours, and lines whole.

    Args:
      file: by default stdout.
      quiet: print nothing.
    """
    console = Console(file=file, highlight=False, markup=False, soft_wrap=True, quiet=quiet)
    if not console.is_terminal:  # rich takes 80 columns there, and cuts tables to them
        console.width = PIPED_WIDTH
    return console


def percent(x: float) -> str:
    """A fraction as percent, with its sign and two decimals."""
    return "n/a" if math.isnan(x) else f"{100 * x:+.2f}%"


def cell(form: Form, value: float) -> str:
    """A value as its form has it; n/a for NaN."""
    if not math.isfinite(value):
        return "n/a" if math.isnan(value) else f"{value:.0f}"
    if form in ("signed", "fine"):
        return percent(value)
    if form == "loss":
        return f"{100 * value:.2f}%"
    if form in ("percent", "share"):
        return f"{100 * value:.1f}%"
    return f"{value:,.0f}" if form == "whole" else f"{value:.2f}"


def difference_cell(form: Form, value: float) -> str:
    """A value that may be a difference: every fraction with its sign."""
    return cell("signed" if form in ("percent", "share", "loss") else form, value)


def plain_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose columns but the first are right-aligned."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for i, heading in enumerate(head):
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def figure_table(title: str, corner: str, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    """A line of figures for each name, of those metrics that the terminal shows; rows are named as in files."""
    shown = [m for m in METRICS.values() if m.terminal]
    lines = [[name, *(cell(m.form, float(row[m.column])) for m in shown)] for name, row in rows]
    return plain_table(title, [corner, *(m.terminal for m in shown)], lines)


def validation_line(row: Mapping[str, Any]) -> str:
    """The last validation in one line; the trade count stands next to every figure that depends on it."""
    return (
        f"return {percent(row['val_return'])} (hold {percent(row['val_buy_and_hold_return'])})"
        f"  Sharpe {row['val_sharpe']:.2f} (rebalanced daily {row['val_portfolio_sharpe']:.2f})"
        f"  maxDD {100 * row['val_max_drawdown']:.1f}%"
        f"  PF {cell('number', row['val_profit_factor'])}  trades {row['val_trades']}"
        f"  exposure {100 * row['val_exposure']:.0f}%  fitness {row['val_fitness']:.3f}"
    )


def rules_line(sharpe: float, rule: str, best: float) -> str:
    """A policy against the best rule, by the Sharpe ratio rebalanced daily."""
    against = "not above" if not sharpe > best else "above"
    return (
        f"rules: rebalanced daily the policy's Sharpe ratio is {cell('number', sharpe)}, {against} that of the best"
        f" rule, {rule}, which is {cell('number', best)}"
    )


def gate_line(gate: Gate) -> str:
    """The verdict in one line: what a review or an approval lacks, each figure against the lowest bar it misses.

    Figures have the names of gate.json, and the forms of the line of a validation.
    """
    lacks: dict[str, list[str]] = {"REVIEW": [], "APPROVED": []}
    named: set[str] = set()
    for level, found in lacks.items():
        for r in gate.reasons:
            if r.level == level and not r.passed and r.metric not in named:
                named.add(r.metric)
                form, bound = judged_column(r.metric).form, "at most" if r.metric in AT_MOST else "at least"
                found.append(f"{r.metric} {cell(form, r.value)} (needs {bound} {cell(form, r.threshold)})")
    parts = [f"for {level}: {', '.join(found)}" for level, found in lacks.items() if found]
    if gate.flags:
        parts.append("flags: " + ", ".join(f"{f.name} {f.value:.3g}" for f in gate.flags))
    return "; ".join([f"gate: {gate.verdict}", *parts])
