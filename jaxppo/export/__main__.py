"""`python -m jaxppo.export`: a run's policy as a folder that decides without jaxppo."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from jaxppo.cli import leave, parse_options, run_command
from jaxppo.export.run import ExportOptions, export_run

PROGRAM = "python -m jaxppo.export"
DESCRIPTION = "Write a run's policy as a folder that decides without jaxppo: by NumPy, onnxruntime or jax.export."


def parse(argv: Sequence[str]) -> ExportOptions:
    """The options; a bad flag exits with 2 and the nearest names."""
    return parse_options(argv, PROGRAM, DESCRIPTION, ExportOptions)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_command(lambda: export_run(parse(arguments)))


def run(argv: Sequence[str]) -> NoReturn:
    """The command as a process of its own."""
    leave(main(argv))


if __name__ == "__main__":
    run(sys.argv[1:])
