"""`python -m jaxppo.data check PATH`: can these bars be trusted? Every symbol, every finding, its remedy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from jaxppo.cli import leave, parse_options, run_command
from jaxppo.data.run import DataOptions, check_data

PROGRAM = "python -m jaxppo.data"
DESCRIPTION = (
    "Check bars before training; the exit status is 2 where some are refused, 1 with --strict and doubts, else 0."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_command(lambda: check_data(parse_options(arguments, PROGRAM, DESCRIPTION, DataOptions)))


def run(argv: Sequence[str]) -> NoReturn:
    """The command as a process of its own."""
    leave(main(argv))


if __name__ == "__main__":
    run(sys.argv[1:])
