"""What the command lines share: flags for every field of the configuration, and exit statuses."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Generic, NamedTuple, NoReturn, TypeVar

import tyro

from jaxppo.config.layers import DeviceInfo, Resolved, flat_fields, layer, resolve
from jaxppo.config.rewards import REWARD_PRESETS
from jaxppo.config.schema import FIELD_GROUP, Config
from jaxppo.errors import CheckpointWarning, Interrupted, JaxppoError
from jaxppo.market.asset_classes import ASSET_CLASSES
from jaxppo.plugins import load_plugin

INTERRUPTED = 130  # what shells report of a command that SIGINT ended
TERMINATED = 143  # and of one that SIGTERM ended

T = TypeVar("T")


def _given(argv: Sequence[str]) -> set[str]:
    """Names of the fields whose flags stand on the command line, whatever their values."""
    flags = {a.split("=", 1)[0].removeprefix("--").replace("-", "_") for a in argv if a.startswith("--")}
    return {f.removeprefix("no_") if f.removeprefix("no_") in FIELD_GROUP else f for f in flags}


def _values(argv: Sequence[str], flag: str) -> list[str]:
    """The values of a flag that is read before the rest, since it decides what the rest may be, in order."""
    words = [w for a in argv for w in (a.split("=", 1) if a.startswith(f"{flag}=") else (a,))]
    return [value for word, value in itertools.pairwise(words) if word == flag]


class Request(NamedTuple, Generic[T]):
    """What a command line asks for: a command's own options, and a configuration."""

    options: T
    preset: str | None = None
    given: Mapping[str, Any] = MappingProxyType({})  # fields of the configuration that were given, flat
    file: Path | None = None  # of a configuration of one's own

    def resolve(self, device: DeviceInfo | None) -> Resolved:
        """The layered configuration."""
        return resolve(self.preset, self.given, device, self.file)


@dataclasses.dataclass(frozen=True)
class _Plugins:
    plugin: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """Python file of your own to execute first: what it registers may be named by other flags. May be given again."""


@dataclasses.dataclass(frozen=True)
class _Files(_Plugins):
    config: Path | None = None
    """YAML file with a configuration of your own, in the form of configs/*.yaml: groups of fields, over a preset."""


def parse_with_config(argv: Sequence[str], program: str, description: str, options: type[T]) -> Request[T]:
    """Parse a command's own options and a flag for every field of the configuration.

    Args:
      argv: without the program's name.
      program: shown in the usage line.
      description: shown above the help of the flags.
      options: a frozen dataclass of the command's own options, all with defaults.

    Returns:
      What is asked for. A bad flag exits with status 2 and the nearest names. The help shows the defaults in force: of
      the preset, the file and the reward that are given, and of this device with `auto`.
    """
    _load_plugins(argv)
    file, preset = (next(reversed(_values(argv, flag)), None) for flag in ("--config", "--preset"))
    base = Request(None, preset, {}, Path(file) if file else None)
    reward = [r for r in _values(argv, "--reward") if r in REWARD_PRESETS]
    # Unchecked: the command line may mend what does not fit by itself, such as a file with an interval and no data.
    shown = layer(preset, {"reward": reward[-1]} if reward else {}, _device_for_help(argv), base.file).config
    groups = [("command", options), ("files", _Files), ("fields", Config)]
    args = _parse(argv, program, description, groups, options(), _Files(), shown)
    named = _given(argv)
    given = {k: v for k, v in flat_fields(args.fields).items() if k in named and k != "preset"}
    return Request(args.command, preset, given, base.file)


def _device_for_help(argv: Sequence[str]) -> DeviceInfo:
    """The device that `auto` would choose sizes for, looked at only where a person reads them: that loads JAX."""
    if not {"-h", "--help"} & set(argv):
        return DeviceInfo("cpu", "", 1, None)
    from jaxppo.device import detect_device

    return detect_device()


def parse_options(argv: Sequence[str], program: str, description: str, options: type[T]) -> T:
    """Parse a command that has options of its own only; positional fields are `tyro.conf.Positional`."""
    _load_plugins(argv)
    return _parse(argv, program, description, [("command", options), ("files", _Plugins)]).command


def _load_plugins(argv: Sequence[str]) -> None:
    """Execute the files that --plugin names, before anything looks up what they register."""
    for path in _values(argv, "--plugin"):
        load_plugin(path)


def _parse(argv: Sequence[str], program: str, description: str, groups: list[tuple[str, Any]], *defaults: Any) -> Any:
    """Parse; one attribute a group."""
    args_type: Any = dataclasses.make_dataclass("Args", groups, frozen=True)
    more = {"default": args_type(*defaults)} if defaults else {}
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
    args = _fee_of_every_class(argv)
    return tyro.cli(args_type, prog=program, description=description, args=args, config=config, **more)


def _fee_of_every_class(argv: Sequence[str]) -> list[str]:
    """`--fee 0.001` as the CLASS FRACTION pairs that it stands for: one number is the fee of every class."""
    words = [w for a in argv for w in (a.split("=", 1) if a.startswith("--fee=") else (a,))]
    found: list[str] = []
    for i, word in enumerate(words):
        if i and words[i - 1] == "--fee" and _is_number(word):
            found += [w for name in ASSET_CLASSES for w in (name, word)]
        else:
            found.append(word)
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


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
