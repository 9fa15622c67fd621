"""`python -m jaxppo.plan`: whether a run fits a GPU and what bounds it, before one is rented."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn

from jaxppo.cli import leave, parse_with_config, run_command
from jaxppo.plan.gpus import find_gpu
from jaxppo.plan.options import LOCAL, PlanOptions
from jaxppo.plan.packages import current, is_noise, is_ready, prepared, require_packages

PROGRAM = "python -m jaxppo.plan"
DESCRIPTION = (
    "Say whether a run fits a GPU and what bounds it: compiles the real program for that GPU, which need not be there,"
    " and counts its memory, kernels, work and bytes. --gpu local compiles and times it on the device at hand."
)


def plan(arguments: Sequence[str]) -> int:
    """Plan from the command line's values; 0 when the run fits, 1 when it does not."""
    request = parse_with_config(arguments, PROGRAM, DESCRIPTION, PlanOptions)
    options = request.options
    if options.gpu != LOCAL:
        gpu = find_gpu(options.gpu)
        request.resolve(gpu.device)  # what is wrong with it is said before anything is asked to be installed
        require_packages()
        if not is_ready(current()):  # jax reads these when it is loaded, so a process of its own gets them
            return _in_prepared_process(arguments)
    from jaxppo.plan.run import plan_run  # loads jax

    return plan_run(request)


def _in_prepared_process(arguments: Sequence[str]) -> int:
    """This command again, in a process whose environment jax finds ready; its exit status."""
    command = [sys.executable, "-m", "jaxppo.plan", *arguments]
    with subprocess.Popen(command, env=prepared(current()), stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr or ():
            if not is_noise(line):
                print(line, end="", file=sys.stderr, flush=True)
    return process.returncode


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_command(lambda: plan(arguments))


def run(argv: Sequence[str]) -> NoReturn:
    """The command as a process of its own."""
    leave(main(argv))


if __name__ == "__main__":
    run(sys.argv[1:])
