"""Progress while a run runs: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from jaxppo.page.terminal import plain_console


class Display:
    """Shows updates done, steps/s, ETA and the last validation."""

    def __init__(self, n_updates: int, env_steps_per_update: int, console: Console | None = None):
        self._console = console or plain_console()
        self._n_updates = n_updates
        self._batch = env_steps_per_update
        self._live = self._console.is_terminal
        self._progress = Progress(
            TextColumn("update"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[last]}"),
            console=self._console,
            disable=not self._live,
            speed_estimate_period=600,
        )
        self._task = self._progress.add_task("train", total=n_updates, speed="", last="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def expect(self, n_updates: int, env_steps_per_update: int = 0) -> None:
        """The updates of the run and the steps of one, where they were not known at the start; 0 for those told."""
        self._n_updates = n_updates
        self._batch = env_steps_per_update or self._batch
        self._progress.update(self._task, total=n_updates)

    def say(self, text: str) -> None:
        """One line above the display."""
        self._progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def table(self, table: Table) -> None:
        """A table above the display."""
        self._progress.console.print(table)

    def segment(self, update: int, steps_per_second: float, line: str) -> None:
        """A segment ended with a validation."""
        left = self._n_updates - update
        speed = f"{steps_per_second:,.0f} steps/s" if steps_per_second else ""
        self._progress.update(self._task, completed=update, speed=speed, last="")
        eta = f"  ETA {left * self._batch / steps_per_second:,.0f} s" if steps_per_second and left else ""
        self.say(f"update {update:>5}/{self._n_updates}  {speed}{eta if not self._live else ''}  {line}")
