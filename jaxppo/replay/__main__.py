"""`python -m jaxppo.replay`: given decisions through the account of the environment, to trades, equity and figures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from jaxppo.cli import leave, parse_options, run_command
from jaxppo.replay.run import ReplayOptions, replay_run

PROGRAM = "python -m jaxppo.replay"
DESCRIPTION = "Replay given decisions over given bars: the trades, equity and figures that they would have left."


def parse(argv: Sequence[str]) -> ReplayOptions:
    """The options; a bad flag exits with 2 and the nearest names."""
    return parse_options(argv, PROGRAM, DESCRIPTION, ReplayOptions)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_command(lambda: replay_run(parse(arguments)))


def run(argv: Sequence[str]) -> NoReturn:
    """The command as a process of its own."""
    leave(main(argv))


if __name__ == "__main__":
    run(sys.argv[1:])
