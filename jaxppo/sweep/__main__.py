"""`python -m jaxppo.sweep`: many trials of a configuration, how much luck is in the winner, the best as one policy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from jaxppo.cli import Request, leave, parse_with_config, run_command
from jaxppo.device import share_heaps
from jaxppo.sweep.options import SweepOptions
from jaxppo.sweep.run import sweep_run

PROGRAM = "python -m jaxppo.sweep"
DESCRIPTION = "Search fields of the configuration, say how much of the winner is luck, and hand over the best as one."


def parse(argv: Sequence[str]) -> Request[SweepOptions]:
    """What is asked for; a bad flag exits with 2 and the nearest names."""
    return parse_with_config(argv, PROGRAM, DESCRIPTION, SweepOptions)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_command(lambda: sweep_run(parse(arguments)))


def run(argv: Sequence[str]) -> NoReturn:
    """The command as a process of its own."""
    share_heaps()
    leave(main(argv))


if __name__ == "__main__":
    run(sys.argv[1:])
