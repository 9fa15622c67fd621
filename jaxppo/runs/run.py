"""Runs from the command line: a table of them, a page that compares some, and what need not be kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from jaxppo.errors import ConfigError, JaxppoError, RunDirectoryError
from jaxppo.page.terminal import cell, plain_console, plain_table
from jaxppo.runs.found import DEEPEST, Entry, Judged, find_folders, read_entry, require_entry
from jaxppo.store.directory import whole_folder
from jaxppo.store.read import lookup

_SHOWN = 40
"""Fields that differ and are printed; the page has all."""


@dataclass(frozen=True)
class RunsOptions:
    """What to look at."""

    command: Annotated[Literal["list", "compare", "prune"], tyro.conf.Positional]
    """list: a line a run; compare: a page that shows how runs differ; prune: checkpoints that nothing needs."""
    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH")] = ()
    """Folders that hold runs (list, prune; by default runs), or the runs to compare."""
    out: Path | None = None
    """Folder for the page of compare, which must not hold anything yet; by default runs/compare-DATE-TIME."""
    yes: bool = False
    """With prune: delete what is listed. Without it nothing is touched."""


def runs(options: RunsOptions) -> int:
    """Do what is asked for; the exit status."""
    console = plain_console()
    paths = options.paths or (Path("runs"),)
    if options.command == "compare":
        return compare_runs(options.paths, options.out, console)
    for path in paths:
        if not path.is_dir():
            raise RunDirectoryError(f"{path}: is no folder; give one that holds runs")
    if options.command == "prune":
        return prune_runs(paths, options.yes, console)
    return list_runs(paths, console)


def list_runs(folders: Sequence[Path], console: Console) -> int:
    """Print a line a folder of ours, and a sentence for each that is damaged."""
    entries = [(root, read_entry(path, kind)) for root in folders for path, kind in find_folders(root)]
    if not entries:
        where = ", ".join(map(str, folders))
        console.print(f"{where}: holds no run, walk-forward, backtest, population or sweep, {DEEPEST} folders deep")
        return 0
    rows = [_row(root, e) for root, e in entries if not e.problem]
    head = ["", "kind", "preset", "created", "updates", "seeds", "validation", "test", "90 % interval", "gate"]
    if rows:
        console.print(plain_table("Sharpe ratios are of the portfolio that is rebalanced daily", head, rows))
    problems = [e.problem for _, e in entries if e.problem]
    for problem in problems:
        console.print(f"damaged: {problem}")
    return 0


def _row(root: Path, e: Entry) -> list[str]:
    name = str(e.path.relative_to(root)) if e.path != root else str(root)
    interval = e.test.interval if e.test else None
    return [
        name,
        e.kind,
        str(e.config.get("preset", "")),
        _minute(e.created),
        e.updates,
        str(lookup(dict(e.config), "budget", "seeds", default="")),
        _sharpe(e.validation),
        _sharpe(e.test),
        f"{cell('number', interval[0])} to {cell('number', interval[1])}" if interval else "",
        e.gate,
    ]


def _minute(created: str) -> str:
    """An ISO time to the minute, UTC; empty where there is none."""
    try:
        return f"{datetime.fromisoformat(created).astimezone(UTC):%Y-%m-%d %H:%M}"
    except ValueError:
        return created


def _sharpe(judged: Judged | None) -> str:
    return "" if judged is None else cell("number", judged.sharpe)


def compare_runs(paths: Sequence[Path], out: Path | None, console: Console) -> int:
    """Print how runs differ and write the page."""
    if len(paths) < 2:
        raise ConfigError("compare: needs two runs or more, such as python -m jaxppo.runs compare runs/a runs/b")
    same = [p for i, p in enumerate(paths) if p.resolve() in {q.resolve() for q in paths[:i]}]
    if same:
        raise ConfigError(f"compare: {same[0]} is given twice")
    entries = [require_entry(path) for path in paths]
    from jaxppo.runs.compare import PARTS, compare, excess_sentence  # loads jax, and the page matplotlib
    from jaxppo.runs.page import write_comparison

    found = compare(entries)
    if found.differences:
        rows = [[name, *values] for name, values in found.differences[:_SHOWN]]
        console.print(plain_table("Where their configurations differ", ["", *found.entries], rows))
    else:
        console.print("their configurations do not differ")
    for part in (p for p in PARTS if p in found.parts):
        of = found.parts[part]
        for line in of.lines:
            ends = f" (90 % interval {line.interval[0]:.2f} to {line.interval[1]:.2f})" if line.interval else ""
            sharpe = cell("number", float(line.figures.get("sharpe", float("nan"))))
            console.print(f"{part}: {line.name}: Sharpe ratio {sharpe}{ends}, rebalanced daily")
        for line in of.lines[1:]:
            if text := excess_sentence(of.lines[0].name, line):
                console.print(f"{part}: {text}")
    target = out or Path("runs") / f"compare-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    with whole_folder(target) as folder:
        write_comparison(folder, found)
    console.print(f"page: {target / 'report.html'}")
    return 0


def prune_runs(folders: Sequence[Path], yes: bool, console: Console) -> int:
    """Print what may go, and with `yes` delete it."""
    from jaxppo.runs.prune import find_spares, remove  # loads jax

    total, failed = 0, 0
    for root in folders:
        for run_dir, spares in find_spares(root):
            for spare in spares:
                console.print(f"{spare.path}  {spare.size / 2**20:.2f} MiB  {spare.why}")
            if yes:
                try:
                    remove(run_dir, spares)
                except (JaxppoError, OSError) as error:
                    console.print(f"kept: {error}")
                    failed += 1
                    continue
            total += sum(spare.size for spare in spares)
    if yes:
        console.print(f"deleted {total / 2**20:.2f} MiB")
    elif total:
        console.print(f"{total / 2**20:.2f} MiB could be deleted; nothing was: give --yes to do so")
    else:
        console.print("nothing to delete: of every run the best and the newest checkpoint are kept")
    return 1 if failed else 0
