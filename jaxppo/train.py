"""`python -m jaxppo.train`: train, validate, checkpoint and report a trading policy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tyro

from jaxppo.config.presets import flat_fields, resolve
from jaxppo.config.schema import FIELD_GROUP, Config
from jaxppo.errors import Interrupted, JaxppoError
from jaxppo.run.session import RunOptions, train_run

PROGRAM = "python -m jaxppo.train"


@dataclass(frozen=True)
class TrainArgs:
    """Train a trading policy with PPO in one compiled program, from bars to a report."""

    run: RunOptions
    config: Config


def _given(argv: Sequence[str]) -> set[str]:
    """Names of the fields whose flags stand on the command line, whatever their values."""
    flags = {a.split("=", 1)[0].removeprefix("--").replace("-", "_") for a in argv if a.startswith("--")}
    return {f.removeprefix("no_") if f.removeprefix("no_") in FIELD_GROUP else f for f in flags}


def _preset(argv: Sequence[str]) -> str | None:
    """The value of --preset, read before the rest since it decides the other flags' defaults."""
    for i, arg in enumerate(argv):
        if arg == "--preset" and i + 1 < len(argv):
            return argv[i + 1]
        if arg.startswith("--preset="):
            return arg.split("=", 1)[1]
    return None


def parse(argv: Sequence[str]) -> tuple[RunOptions, str | None, dict[str, Any]]:
    """Run options, preset and the config fields that were given; a bad flag exits with 2 and the nearest names."""
    preset = _preset(argv)
    # `auto` chooses sizes for the device later; its help shows the defaults.
    base = resolve(preset).config if preset and preset != "auto" else Config(preset=preset or "quick_test")
    args = tyro.cli(
        TrainArgs,
        prog=PROGRAM,
        args=list(argv),
        default=TrainArgs(RunOptions(), base),
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
    named = _given(argv)
    given = {k: v for k, v in flat_fields(args.config).items() if k in named and k != "preset"}
    return args.run, preset, given


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status: 0, 2 for an error of the user's, 130 for an interrupt."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        options, preset, given = parse(argv)
        train_run(options, preset, given)
    except Interrupted as interrupted:
        print(f"interrupted: {interrupted}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("interrupted before training began", file=sys.stderr)
        return 130
    except JaxppoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
