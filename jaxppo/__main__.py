"""`jaxppo COMMAND ...`, the same as `python -m jaxppo.COMMAND ...`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from jaxppo.errors import nearest

COMMANDS = {
    "train": "train, validate, checkpoint and report a policy",
    "watch": "what runs do while they train, in the terminal or as a page",
    "backtest": "play a run's policy over bars, next to what it must beat",
    "walkforward": "train and test on one period after another",
    "sweep": "search the configuration, and say how much of the winner is luck",
    "act": "what a run's policy does at the newest bar, as one JSON line",
    "paper": "trade what a policy decides, simulated or on paper with a broker",
    "export": "a run's policy as a folder that decides without jaxppo",
    "replay": "given decisions through the account of the environment",
    "check": "do data, features, reward or live use deceive themselves?",
    "data": "data check PATH: can these bars be trusted?",
    "runs": "runs list|compare|prune: what is there, how do runs differ, what may go?",
    "plan": "does a run fit a GPU, and what bounds it?",
}


def _help() -> str:
    lines = [f"  {name:<12} {text}" for name, text in COMMANDS.items()]
    return "\n".join(["usage: jaxppo COMMAND ...", "", *lines, "", "jaxppo COMMAND --help shows a command's flags."])


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, which ends the process; returns the status of --help, --version and mistakes only."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0 if arguments else 2
    command, *rest = arguments
    if command == "--version":
        from jaxppo.version import __version__

        print(f"jaxppo {__version__}")
        return 0
    if command not in COMMANDS:
        print(f"error: unknown command {command!r}; {nearest(command, COMMANDS)}", file=sys.stderr)
        return 2
    return int(importlib.import_module(f"jaxppo.{command}.__main__").run(rest))  # ends the process


if __name__ == "__main__":
    sys.exit(main())
