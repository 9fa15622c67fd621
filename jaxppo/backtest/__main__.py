"""`python -m jaxppo.backtest`: play a trained policy over bars, next to what it must beat."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from jaxppo.backtest.run import BacktestOptions, backtest_run
from jaxppo.cli import leave, parse_options, run_command

PROGRAM = "python -m jaxppo.backtest"
DESCRIPTION = "Play the policy of a run over its own or other bars, next to baselines at the same costs."


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv

    def run() -> None:
        backtest_run(parse_options(arguments, PROGRAM, DESCRIPTION, BacktestOptions))

    return run_command(run)


def run(argv: Sequence[str]) -> NoReturn:
    """The command as a process of its own."""
    leave(main(argv))


if __name__ == "__main__":
    run(sys.argv[1:])
