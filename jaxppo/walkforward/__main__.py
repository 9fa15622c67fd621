"""`python -m jaxppo.walkforward`: train and test on one period after another, all folds in one program."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from jaxppo.cli import leave, parse_with_config, run_command
from jaxppo.walkforward.run import WalkforwardOptions, walkforward_run

PROGRAM = "python -m jaxppo.walkforward"
DESCRIPTION = (
    "Train a policy on what is before each of several consecutive periods and test its last state on the period: purged"
    " folds by time, and one out-of-sample curve. Nothing is chosen on bars that are tested."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_command(lambda: walkforward_run(parse_with_config(arguments, PROGRAM, DESCRIPTION, WalkforwardOptions)))


def run(argv: Sequence[str]) -> NoReturn:
    """The command as a process of its own."""
    leave(main(argv))


if __name__ == "__main__":
    run(sys.argv[1:])
