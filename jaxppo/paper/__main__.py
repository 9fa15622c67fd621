"""`python -m jaxppo.paper`: trade what a policy decides, on a simulated broker, or on paper with a real one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from jaxppo.cli import leave, parse_options, run_command
from jaxppo.paper.options import PaperOptions
from jaxppo.paper.run import paper_run

PROGRAM = "python -m jaxppo.paper"
DESCRIPTION = "Trade what a run's policy decides, bar by bar, with a journal: a dry run unless --submit is given."


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_command(lambda: paper_run(parse_options(arguments, PROGRAM, DESCRIPTION, PaperOptions)))


def run(argv: Sequence[str]) -> NoReturn:
    """The command as a process of its own."""
    leave(main(argv))


if __name__ == "__main__":
    run(sys.argv[1:])
