"""What a run tells its trackers: each in a thread of its own, so that a network that hangs or fails holds nothing up.

`trackers.json` keeps the id of each tracker's run, by which a resumed run goes on with it.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

import numpy as np

from jaxppo.config.layers import flat_fields
from jaxppo.config.schema import Config
from jaxppo.errors import ConfigError, Interrupted
from jaxppo.store.json import read_json, write_json
from jaxppo.store.tensorboard import segment_scalars
from jaxppo.store.trackers import TRACKERS, Status, TrackedRun, Tracker

FILE = "trackers.json"
_PATIENCE = 60.0
"""Seconds that the end of a run waits for trackers to take in what they have been told."""


def require_trackers(names: Sequence[str]) -> None:
    """`ConfigError` for a name that is no tracker, and for one whose package is not installed."""
    for name in names:
        tracker = TRACKERS.find(name, "track")
        if tracker.package is not None and importlib.util.find_spec(tracker.package) is None:
            raise ConfigError(f"track: {tracker.package} is not installed; pip install 'jaxppo[{name}]'")


def known_ids(run_dir: Path) -> dict[str, str]:
    """The ids of the trackers' runs that a run was told to; none where the file is missing or damaged."""
    try:
        found = read_json(run_dir / FILE)
    except (OSError, ValueError):
        return {}
    return {str(k): v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}


class Tracking:
    """Tells trackers of the segments of a run. One that fails is said so once and told no more; nothing here raises."""

    def __init__(self, run_dir: Path, names: Sequence[str], config: Config, say: Callable[[str], None]):
        self._run_dir = run_dir
        self._ids = known_ids(run_dir)
        self._lock = Lock()
        self._say = say
        self._steps = config.batch_steps
        fields = flat_fields(config)
        self._workers = []
        for name in names:
            if name in TRACKERS:
                run = TrackedRun(run_dir, fields, self._ids.get(name))
                self._workers.append(_Worker(TRACKERS[name], run, self._opened, say))
            else:
                say(f"warning: the tracker {name!r} that the run began with is not registered; give its --plugin again")

    def segment(self, update: int, length: int, rows: Mapping[str, np.ndarray], row: Mapping[str, Any]) -> None:
        """One segment, as `jaxppo.store.tensorboard.EventWriter` is told of it."""
        if self._workers:
            for step, values in segment_scalars(update, length, rows, row, self._steps):
                for worker in self._workers:
                    worker.tell(step, {name: x for name, x in values.items() if math.isfinite(x)})

    def close(self, status: Status) -> None:
        """Wait until all is told, for a minute at most."""
        for worker in self._workers:
            worker.end(status)
        for worker in self._workers:
            worker.wait(_PATIENCE)

    def _opened(self, name: str, id: str) -> None:
        with self._lock:
            self._ids[name] = id
            write_json(self._run_dir / FILE, self._ids)


class _Worker:
    """A tracker's thread, and the queue of what it is to be told."""

    def __init__(
        self, tracker: Tracker, run: TrackedRun, opened: Callable[[str, str], None], say: Callable[[str], None]
    ):
        self._tracker, self._run, self._opened, self._say = tracker, run, opened, say
        self._queue: SimpleQueue[tuple[int, dict[str, float]] | Status] = SimpleQueue()
        self._thread = Thread(target=self._work, name=f"tracker-{tracker.name}", daemon=True)
        self._thread.start()

    def tell(self, step: int, values: dict[str, float]) -> None:
        if self._thread.is_alive():
            self._queue.put((step, values))

    def end(self, status: Status) -> None:
        self._queue.put(status)

    def wait(self, seconds: float) -> None:
        self._thread.join(seconds)
        if self._thread.is_alive():
            name = self._tracker.name
            self._say(f"warning: {name} has not taken in all within {seconds:.0f} s of the end; the rest is lost to it")

    def _work(self) -> None:
        try:
            sink = self._tracker.open(self._run)
            self._opened(self._tracker.name, sink.id)
            while not isinstance(told := self._queue.get(), str):
                sink.log(*told)
            sink.close(told)
        except Exception as error:  # whatever a client library raises: no tracker is worth a run
            self._say(
                f"warning: {self._tracker.name}: {_said(error)}; the run goes on and tells {self._tracker.name} no more"
            )


def _said(error: Exception) -> str:
    """The first line of an error, without what an address in it may hold of a user and a key."""
    first = next(iter(str(error).splitlines()), "") or type(error).__name__
    return re.sub(r"://[^/@\s]*@", "://", first).rstrip(".")


@contextmanager
def tracked(
    run_dir: Path, names: Sequence[str], config: Config, say: Callable[[str], None]
) -> Iterator[Tracking]:  # fmt: skip
    """A run's trackers, told at the end how it ended."""
    tracking, status = Tracking(run_dir, names, config, say), "failed"
    try:
        yield tracking
        status = "finished"
    except (Interrupted, KeyboardInterrupt):
        status = "stopped"
        raise
    finally:
        tracking.close(status)  # type: ignore[arg-type]
