"""`python -m jaxppo.train`: train, validate, checkpoint and report a trading policy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from jaxppo import BEGAN
from jaxppo.cli import Request, leave, parse_with_config, run_command
from jaxppo.device import share_heaps
from jaxppo.train.run import RunOptions, train_run

PROGRAM = "python -m jaxppo.train"
DESCRIPTION = "Train a trading policy with PPO in one compiled program, from bars to a report."


def parse(argv: Sequence[str]) -> Request[RunOptions]:
    """What is asked for; a bad flag exits with 2 and the nearest names."""
    return parse_with_config(argv, PROGRAM, DESCRIPTION, RunOptions)


def main(argv: Sequence[str] | None = None, began: float | None = None) -> int:
    """Command line entry; returns the exit status. `began`: `time.monotonic()` when the process did; by default now."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_command(lambda: train_run(parse(arguments), began))


def run(argv: Sequence[str]) -> NoReturn:
    """The command as a process of its own."""
    share_heaps()
    leave(main(argv, began=BEGAN))


if __name__ == "__main__":
    run(sys.argv[1:])
