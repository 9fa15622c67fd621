"""What the command lines share: flags for every field of the configuration, and exit statuses."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import tyro

from jaxppo.config.layers import flat_fields, resolve
from jaxppo.config.schema import FIELD_GROUP, Config
from jaxppo.errors import CheckpointWarning, Interrupted, JaxppoError

INTERRUPTED = 130  # what shells report of a command that SIGINT ended
TERMINATED = 143  # and of one that SIGTERM ended

T = TypeVar("T")


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


def parse_with_config(
    argv: Sequence[str], program: str, description: str, options: type[T]
) -> tuple[T, str | None, dict[str, Any]]:
    """Parse a command's own options and a flag for every field of the configuration.

    Args:
      argv: without the program's name.
      program: shown in the usage line.
      description: shown above the help of the flags.
      options: a frozen dataclass of the command's own options, all with defaults.

    Returns:
      The options, the preset if one was given, and the configuration's fields that were given, flat. A bad flag exits
      with status 2 and the nearest names.
    """
    preset = _preset(argv)
    # `auto` chooses sizes for the device later; its help shows the defaults.
    base = resolve(preset).config if preset and preset != "auto" else Config(preset=preset or "quick_test")
    args_type: Any = dataclasses.make_dataclass("Args", [("command", options), ("config", Config)], frozen=True)
    args = tyro.cli(
        args_type,
        prog=program,
        description=description,
        args=list(argv),
        default=args_type(options(), base),
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
    named = _given(argv)
    given = {k: v for k, v in flat_fields(args.config).items() if k in named and k != "preset"}
    return args.command, preset, given


def parse_options(argv: Sequence[str], program: str, description: str, options: type[T]) -> T:
    """Parse a command that has options of its own only; positional fields are `tyro.conf.Positional`."""
    return tyro.cli(options, prog=program, description=description, args=list(argv))


def run_command(command: Callable[[], object]) -> int:
    """Run a command and return its exit status: 0, 2 for an error of the user's, 130 for an interrupt.

    A command that finds what it looked for (a failed check, say) returns its own status as an int. A run that was
    stopped ends with 130 (SIGINT), 143 (SIGTERM) or 75 (--max-seconds).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", CheckpointWarning)
            warnings.showwarning = _show_warning
            status = command()
    except Interrupted as interrupted:
        print(f"interrupted: {interrupted}", file=sys.stderr)
        return interrupted.status
    except KeyboardInterrupt:
        print("interrupted; nothing was left half-written", file=sys.stderr)
        return INTERRUPTED
    except JaxppoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder that may not be written
        if error.strerror is None:
            raise
        print(f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error}", file=sys.stderr)
        return 2
    return status if isinstance(status, int) else 0


_show = warnings.showwarning


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Our own warnings in one line, without the place in the code."""
    if issubclass(category, CheckpointWarning):
        print(f"warning: {message}", file=sys.stderr)
    else:
        _show(message, category, *where, **more)


def leave(status: int) -> NoReturn:
    """End the process with `status`, at once: all files are closed by now, and nothing that is left may keep it.

    An executable whose compilation was cut short crashes when the interpreter tears it down (jaxlib 0.10.2, on the
    CPU), which would turn status 130 into a segmentation fault. A save that Orbax could not begin leaves a thread that
    never ends (0.12.8): a run that had said its last word would go on being paid for.
    """
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
