"""`python -m jaxppo.check`: does a user's data, features, reward or live use deceive itself?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from jaxppo.check.run import CheckOptions, check_run
from jaxppo.cli import leave, parse_with_config, run_command

PROGRAM = "python -m jaxppo.check"
DESCRIPTION = "Check data, features and reward for self-deception; the exit status is 1 where a check fails."


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_command(lambda: check_run(parse_with_config(arguments, PROGRAM, DESCRIPTION, CheckOptions)))


def run(argv: Sequence[str]) -> NoReturn:
    """The command as a process of its own."""
    leave(main(argv))


if __name__ == "__main__":
    run(sys.argv[1:])
