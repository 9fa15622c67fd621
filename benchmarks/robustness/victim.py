"""A training run that kills itself: python -m benchmarks.robustness.victim LINE FLAGS...

At the LINE-th line of the code that writes; 0 for never, and then it prints how many there were.
"""

from __future__ import annotations

import os
import signal
import sys

from benchmarks.robustness.runs import LineTrap
from jaxppo.train.__main__ import main


def run() -> int:
    at, *argv = sys.argv[1:]
    with LineTrap(int(at) or sys.maxsize, lambda: os.kill(os.getpid(), signal.SIGKILL)) as trap:
        status = main(argv)
    print(f"lines {trap.lines}")
    return status


if __name__ == "__main__":
    sys.exit(run())
