"""The errors a user can cause. Each carries one sentence: what was wrong, where, and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class JaxppoError(Exception):
    """Base of every error that a user can cause and mend; command lines print it without a traceback."""


class ConfigError(JaxppoError):
    """A configuration that cannot be run: an unknown name, or numbers that do not fit together."""


class DataError(JaxppoError):
    """Bars that cannot be trusted or used: the message names file, symbol, row and field."""


class CheckpointError(JaxppoError):
    """A checkpoint that is missing, or that does not fit the data or the program it is restored into."""


class RunDirectoryError(JaxppoError):
    """A run directory that would be overwritten, or that is not one."""


class Interrupted(JaxppoError):
    """A run was stopped by a signal or a time limit; the message says how to go on with it."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status  # exit status of the process


class CheckpointWarning(UserWarning):
    """A damaged checkpoint was passed over."""


FEW = 8
"""Names that fit on a line: presets, GPUs and reward presets are fewer, feature names and fields are not."""


def nearest(name: str, valid: Iterable[str], n: int = 3) -> str:
    """Phrase that lists the `n` valid names nearest to `name`, and all of them when none is near or they are few."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=n, cutoff=0.5)
    every = "valid names are " + ", ".join(repr(c) for c in names)
    if not close:
        return every
    asked = "did you mean " + " or ".join(repr(c) for c in close) + "?"
    return f"{asked} {every}" if len(close) < len(names) <= FEW else asked
