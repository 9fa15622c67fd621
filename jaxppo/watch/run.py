"""Watching runs from the command line: look, show, wait; until nothing more is written."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.live import Live

from jaxppo.errors import ConfigError, Interrupted, RunDirectoryError
from jaxppo.page.terminal import plain_console
from jaxppo.page.text import FORMS
from jaxppo.watch.seen import OVER, Cache, Seen, look
from jaxppo.watch.summary import Picture, exit_status, picture
from jaxppo.watch.terminal import dashboard

PIPED = (100, 40)
"""Columns and lines of a dashboard that goes to a file or a pipe."""


@dataclass(frozen=True)
class WatchOptions:
    """What to watch, and how."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """Run directories, folders of a grid or a sweep, or folders that hold some. Runs that differ in their seed alone
    are shown together, with mean and spread."""
    serve: int | None = None
    """Port of this machine (127.0.0.1) on which a page shows the same and updates itself; 0 for any that is free."""
    every: float = 1.0
    """Seconds between two looks at the files."""
    wait: float = 60.0
    """Seconds to wait for a run that is not there yet."""
    once: bool = False
    """Show the dashboard once and end."""


def watch_run(options: WatchOptions) -> int:
    """Watch until all runs are over; the exit status.

    Raises:
      RunDirectoryError: a folder that holds no run.
      Interrupted: by Ctrl-C, which does nothing to the runs.
    """
    if not options.runs:
        raise ConfigError("watch: give the --run-dir of a training run, such as python -m jaxppo.watch runs/my-run")
    if not (math.isfinite(options.every) and options.every >= 0.1):
        raise ConfigError(f"--every: {options.every} given; it must be 0.1 seconds or more")
    console, cache = plain_console(), Cache()
    shown = picture(_begin(options, cache, console))
    if options.once:
        width, height = _size(console)
        console.print(dashboard(shown, width, height))
        return exit_status(shown.state)
    with ExitStack() as stack:
        shows, address = [], ""
        if options.serve is not None:
            address, update = _serve(options.serve, options.every, shown, stack)
            shows.append(update)
            console.print(f"page: {address}")
        shows.append(_show_on(console, stack, address))
        try:
            while True:
                for show in shows:
                    show(shown)
                if shown.state in OVER:
                    break
                time.sleep(options.every)
                shown = picture(look(options.runs, cache))
        except KeyboardInterrupt:
            raise Interrupted("the watch; the runs go on", 130) from None
    return exit_status(shown.state)


def _begin(options: WatchOptions, cache: Cache, console: Console) -> list[Seen]:
    """The first look, once there is something to see."""
    until, told = time.monotonic() + options.wait, False
    while True:
        try:
            return look(options.runs, cache)
        except RunDirectoryError as error:
            if options.once or time.monotonic() > until:
                raise
            if not told:
                console.print(f"{error}; waiting for {options.wait:.0f} s")
            told = True
            time.sleep(options.every)


def _size(console: Console) -> tuple[int, int]:
    return (console.size.width, console.size.height) if console.is_terminal else PIPED


def _serve(port: int, every: float, first: Picture, stack: ExitStack) -> tuple[str, Callable[[Picture], None]]:
    """A page on this machine, which asks for what was shown last: its address, and what shows a picture there."""
    from jaxppo.watch.page import STATE, render, state  # the page's scripts and, through them, matplotlib
    from jaxppo.watch.serve import served

    last = [first]
    answers = {
        "/": ("text/html", lambda: render(last[0], every).encode()),
        STATE: ("application/json", lambda: state(last[0])),
    }
    address = stack.enter_context(served(port, answers))
    stack.callback(lambda: time.sleep(2 * every))  # the page asks once more for what was shown last

    def update(shown: Picture) -> None:
        last[:] = [shown]

    return address, update


def _show_on(console: Console, stack: ExitStack, page: str) -> Callable[[Picture], None]:
    """What shows a picture: a dashboard that stays in place on a terminal, a line for each news elsewhere."""
    if not console.is_terminal:
        told: list[str] = []

        def tell(shown: Picture) -> None:
            line = news(shown)
            if line not in told:
                told[:] = [line]
                console.print(line)
                sys.stdout.flush()

        return tell
    live = Live(console=console, screen=True, auto_refresh=False)
    last: list[Picture] = []
    # The other screen of the terminal goes with the dashboard, so what it showed last is printed to stay.
    stack.callback(lambda: console.print(dashboard(last[0], *_size(console))))
    stack.enter_context(live)

    def update(shown: Picture) -> None:
        last[:] = [shown]
        live.update(dashboard(shown, *_size(console), page), refresh=True)

    return update


def news(shown: Picture) -> str:
    """A line that changes when a run has written another row, or when its state or alarms change."""
    leader = shown.groups[0]
    lasting = [told.title for told in shown.alarms if told.lasts]
    share = "" if math.isnan(shown.done) else f" {100 * shown.done:.0f} %,"
    last = leader.band("val_fitness")
    value = FORMS["number"](float(last.mean[-1])) if len(last.update) else "none yet"
    alarms = f"; ALARM: {', '.join(dict.fromkeys(lasting))}" if lasting else ""
    return f"{shown.state}:{share} {', '.join(shown.facts)}; fitness {value}; {shown.best}{alarms}"
