"""Why a run should stop before its end: a signal, or too little time for the next segment.

XLA computes a segment in one call, during which Python runs no signal handler. The interpreter's C handler does write
the signal's number to a pipe, though, and a thread that reads it can say so at once, and end the process at the second.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}  # what shells report of a command that the signal ended
OUT_OF_TIME = 75  # EX_TEMPFAIL of sysexits.h: a failure that passes, try again later
_SEGMENTS = 5  # the next segment is expected to take as long as the slowest of this many before it
_SHARE = 0.1  # and longer by this share, in case it is slower still


class StopReason(NamedTuple):
    """Why to stop, as a phrase, and the exit status that says so."""

    text: str
    status: int


class Pace:
    """Seconds of the segments so far, to foresee the next."""

    def __init__(self, seconds_per_update: float = 0.0):
        """`seconds_per_update`: known from before, such as from a checkpoint; 0 when nothing is."""
        self._known = seconds_per_update
        self._taken: deque[tuple[int, float]] = deque(maxlen=_SEGMENTS)

    def took(self, n_updates: int, seconds: float) -> None:
        if n_updates:
            self._taken.append((n_updates, seconds))

    def foresee(self, n_updates: int) -> float:
        """Seconds that a segment of `n_updates` may take.

        Where it has fewer updates than an earlier one it is still expected to take as long: its validation is the same.
        """
        if not self._taken:
            return self._known * n_updates * (1 + _SHARE)
        return max(s * max(1.0, n_updates / n) for n, s in self._taken) * (1 + _SHARE)


class Stop:
    """Watches for SIGINT and SIGTERM, and for a time limit, while a run trains.

    The first signal lets the segment finish and be saved; a second ends the process at once. Only a program's main
    thread can watch signals; elsewhere only the limit counts.
    """

    def __init__(self, max_seconds: float = 0.0, began: float | None = None, say: Callable[[str], None] = print):
        """
        Args:
          max_seconds: limit; 0 for none.
          began: `time.monotonic()` that it counts from; by default now.
          say: prints a line, from any thread.
        """
        self._limit = max_seconds
        self._began = time.monotonic() if began is None else began
        self._say = say
        self._signal: signal.Signals | None = None
        self._before: dict[int, Any] = {}

    def reason(self, seconds: float) -> StopReason | None:
        """Why not to begin what takes `seconds`, saving included; None to go on."""
        if self._signal is not None:
            return StopReason(self._signal.name, STATUS[self._signal])
        left = self._began + self._limit - time.monotonic()
        if self._limit > 0 and left < seconds:
            return StopReason(
                f"--max-seconds {self._limit:g}: {max(left, 0):.0f} s are left, the next segment may take"
                f" {seconds:.0f} s",
                OUT_OF_TIME,
            )
        return None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)
            self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            self._before = {s: signal.signal(s, lambda *_: None) for s in STATUS}
            self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._before:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._writer)  # which ends the thread
        self._thread.join()
        os.close(self._reader)

    def _watch(self) -> None:
        while byte := os.read(self._reader, 1):
            if byte[0] not in STATUS:
                continue
            number = signal.Signals(byte[0])
            if self._signal is not None:
                _leave_at_once(number)
            self._signal = number
            self._say(f"{number.name}: finishing the segment and saving; send it again to stop at once")


def _leave_at_once(number: signal.Signals) -> None:
    if sys.stdout.isatty():
        sys.stdout.write("\x1b[?25h\n")  # the live display has hidden the cursor
    sys.stdout.flush()
    print(f"stopped at once by a second signal ({number.name})", file=sys.stderr, flush=True)
    os._exit(STATUS[number])
