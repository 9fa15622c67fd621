"""`python -m jaxppo.watch`: what runs do while they train, in the terminal or as a page that updates itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from jaxppo.cli import leave, parse_options, run_command
from jaxppo.watch.run import WatchOptions, watch_run

PROGRAM = "python -m jaxppo.watch"
DESCRIPTION = (
    "Show what training runs do: state, time left, learning curves over seeds, alarms. Reads their files, changes"
    " nothing, and ends with them: status 0 when all have finished, 75 when one was stopped, 1 when one died."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_command(lambda: watch_run(parse_options(arguments, PROGRAM, DESCRIPTION, WatchOptions)))


def run(argv: Sequence[str]) -> NoReturn:
    """The command as a process of its own."""
    leave(main(argv))


if __name__ == "__main__":
    run(sys.argv[1:])
