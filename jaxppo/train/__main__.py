"""`python -m jaxppo.train`: train, validate, checkpoint and report a trading policy."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from jaxppo import BEGAN

if TYPE_CHECKING:
    from jaxppo.cli import Request
    from jaxppo.train.run import RunOptions

PROGRAM = "python -m jaxppo.train"
DESCRIPTION = "Train a trading policy with PPO in one compiled program, from bars to a report."


def parse(argv: Sequence[str]) -> Request[RunOptions]:
    """What is asked for; a bad flag exits with 2 and the nearest names."""
    from jaxppo.cli import parse_with_config
    from jaxppo.train.run import RunOptions

    return parse_with_config(argv, PROGRAM, DESCRIPTION, RunOptions)


def main(argv: Sequence[str] | None = None, began: float | None = None) -> int:
    """Command line entry; returns the exit status. `began`: `time.monotonic()` when the process did; by default now."""
    from jaxppo.cli import run_command
    from jaxppo.train.run import train_run

    arguments = sys.argv[1:] if argv is None else argv
    return run_command(lambda: train_run(parse(arguments), began))


def run(argv: Sequence[str]) -> NoReturn:
    """The command as a process of its own."""
    gc.disable()  # imports leave nothing to collect; to look for it took .3 s of 2.6
    import jaxppo.train.run  # noqa: F401
    from jaxppo.cli import leave
    from jaxppo.device import share_heaps

    gc.freeze()
    gc.enable()
    share_heaps()
    leave(main(argv, began=BEGAN))


if __name__ == "__main__":
    run(sys.argv[1:])
