"""`python -m jaxppo.act`: what a run's policy does at the newest bar, as one JSON line."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import NoReturn

from jaxppo.act.run import ActOptions, act_run
from jaxppo.cli import leave, parse_options, run_command

PROGRAM = "python -m jaxppo.act"
DESCRIPTION = "Decide with a run's policy at the newest bar: one JSON line and status 0, or why not and status 2."


def parse(argv: Sequence[str]) -> ActOptions:
    """The options; a bad flag exits with 2 and the nearest names."""
    return parse_options(argv, PROGRAM, DESCRIPTION, ActOptions)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv

    def act() -> None:
        print(json.dumps(act_run(parse(arguments)), allow_nan=False))

    return run_command(act)


def run(argv: Sequence[str]) -> NoReturn:
    """The command as a process of its own."""
    leave(main(argv))


if __name__ == "__main__":
    run(sys.argv[1:])
