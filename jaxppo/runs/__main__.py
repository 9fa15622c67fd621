"""`python -m jaxppo.runs list|compare|prune`: a table of runs, a page that compares some, and room on the disk."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from jaxppo.cli import leave, parse_options, run_command
from jaxppo.runs.run import RunsOptions, runs

PROGRAM = "python -m jaxppo.runs"
DESCRIPTION = (
    "list FOLDER: a line a run, walk-forward, backtest, population and sweep. compare A B ...: how their configurations"
    " differ, figures with intervals and curves, on one page. prune FOLDER: checkpoints that nothing needs."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_command(lambda: runs(parse_options(arguments, PROGRAM, DESCRIPTION, RunsOptions)))


def run(argv: Sequence[str]) -> NoReturn:
    """The command as a process of its own."""
    leave(main(argv))


if __name__ == "__main__":
    run(sys.argv[1:])
