"""What the files of runs say while they are written: read only, and never wrong for being half there."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from jaxppo.config.schema import GROUPS
from jaxppo.errors import RunDirectoryError
from jaxppo.play.alarms import Alarm, Alarms
from jaxppo.play.best import RANKED_COLUMN, best_update
from jaxppo.store.directory import CONFIG, MANIFEST, METRICS_CSV, POPULATION, SNAPSHOTS, earlier_manifest, is_held
from jaxppo.store.files import MOST
from jaxppo.store.json import read_figures, read_json
from jaxppo.store.read import load_fields, lookup

State = Literal["starting", "training", "late", "ending", "finished", "stopped", "dead"]
OVER = ("finished", "stopped", "dead")
"""States in which nothing more is written."""
PATIENCE = 60.0
"""Seconds within which a line is never late, whatever the pace: a save may take as long."""
_LATE = 5.0  # times the longest wait so far that a line may take
_BETWEEN = 600.0
"""Seconds between two batches after which a sweep has no process any more."""
_SWEEP, _BATCHES, _BATCH, _SUMMARY, _LOCK = "sweep.json", "batches", "batch.json", "summary.json", ".lock"

T = TypeVar("T")
Rows = Mapping[str, np.ndarray]
"""Columns (R,) float64 by their names, a row a validation."""
_NOTHING: dict[str, Any] = {}
_NO_ROWS: dict[str, np.ndarray] = {}
_NO_ALARMS: tuple[Alarm, ...] = ()


@dataclass(frozen=True)
class Seen:
    """One run as its files are now."""

    path: Path  # to go on with: of a member that of its population
    name: str
    held: bool | None  # whether a process trains in it; None where that cannot be told
    now: float  # seconds since 1970
    fields: Mapping[str, Any] = field(default_factory=dict)  # of the configuration, flat
    manifest: Mapping[str, Any] = field(default_factory=dict)
    rows: Rows = field(default_factory=dict)
    written: float | None = None  # seconds since 1970 at which the last row was
    alarms: tuple[Alarm, ...] = ()
    checkpoints: tuple[int, ...] = ()  # updates
    over: str = ""  # of a trial of a sweep that trains no more: why
    between: bool = False  # no run, but a sweep that works on none

    def column(self, name: str) -> np.ndarray:
        """A column (R,), NaN throughout where there is none."""
        return self.rows[name] if name in self.rows else np.full(len(self.updates), np.nan)

    @property
    def updates(self) -> np.ndarray:
        """(R,) updates of the validations so far."""
        return self.rows["update"] if self.rows else np.zeros(0)

    @property
    def update(self) -> int:
        """Of the last validation."""
        return int(self.updates[-1]) if len(self.updates) else 0

    @property
    def n_updates(self) -> int:
        """To train; 0 where that is not known."""
        return whole(self.fields.get("n_updates"))

    @property
    def age(self) -> float:
        """Seconds since the last row; NaN before the first."""
        return math.nan if self.written is None else max(self.now - self.written, 0.0)

    @property
    def chosen_by(self) -> str:
        """The column by which validations are ranked."""
        return RANKED_COLUMN.get(str(self.fields.get("choose_by")), "val_fitness")

    @property
    def best(self) -> int | None:
        """Row of the best validation so far; None where none has a figure."""
        scores = self.column(self.chosen_by)
        return None if np.isnan(scores).all() else best_update(dict(enumerate(scores.tolist())))

    @property
    def longest_wait(self) -> float:
        """Seconds, between two rows; NaN where there are no two."""
        seconds = self.column("elapsed_seconds")
        return float(np.max(np.diff(seconds))) if len(seconds) > 1 else math.nan

    @property
    def state(self) -> State:
        """By the lock, and where there is none by the age of the last row."""
        finished = whole(lookup(dict(self.manifest), "finished", "updates")) >= self.n_updates > 0
        limit = max(PATIENCE, 0.0 if math.isnan(self.longest_wait) else _LATE * self.longest_wait)
        late = self.age > limit  # never before the first row: a compilation may take any time
        if self.over:
            return "finished"
        if self.held is not True and finished:
            return "finished"
        if self.held is False or (self.held is None and late):
            return "stopped" if "stopped" in self.manifest else "dead"
        if not len(self.updates):
            return "starting"
        if self.update >= self.n_updates > 0:
            return "ending"
        return "late" if late else "training"


class Cache:
    """What was read of files that have not changed since."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Path, str], tuple[Any, Any]] = {}

    def read(self, path: Path, what: str, read: Callable[[Path], T], none: T) -> T:
        """`read(path)`, or what it was before; `none` where the file is missing or cannot be read."""
        try:
            found = path.stat()
        except OSError:
            return none
        sign = (found.st_mtime_ns, found.st_size, found.st_ino)
        kept = self._kept.get((path, what))
        if kept is None or kept[0] != sign:
            value = none
            with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RunDirectoryError):
                value = read(path)
            kept = self._kept[path, what] = (sign, value)
        return kept[1]


def look(paths: tuple[Path, ...], cache: Cache) -> list[Seen]:
    """All runs of some folders: run directories, populations, sweeps, or folders of them, each run once.

    Raises:
      RunDirectoryError: one holds none of those.
    """
    found: dict[Path, Seen] = {}
    for path in paths:
        runs = list(_runs_in(path, cache, deeper=True))
        if not runs and is_held(path):
            runs = [Seen(path, path.resolve().name, True, time.time())]  # training begins: it reads bars
        if not runs:
            what = "holds no training run" if path.exists() else "no such folder"
            raise RunDirectoryError(
                f"{path}: {what}; give the --run-dir of a training run, of a grid or a sweep, or a folder of them"
            )
        found |= {run.path / run.name: run for run in runs}
    return list(found.values())


def _runs_in(path: Path, cache: Cache, deeper: bool) -> Iterator[Seen]:
    if (path / _SWEEP).is_file():
        yield from _sweep(path, cache)
    elif (path / POPULATION).is_file():
        held = is_held(path)  # before the files: once it is free, what they say is the last word
        members = [_run(p, path, held, cache) for p in _folders(path) if p.name != SNAPSHOTS and (p / CONFIG).is_file()]
        yield from members or [Seen(path, path.resolve().name, held, time.time())]
    elif (path / CONFIG).is_file():
        yield _run(path, path, is_held(path), cache)
    elif deeper:
        for inside in _folders(path):
            yield from _runs_in(inside, cache, deeper=False)


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(p for p in path.iterdir() if p.is_dir() and not p.is_symlink() and p.name[0] != ".")
    except OSError:
        return []


def _run(path: Path, resume: Path, held: bool | None, cache: Cache) -> Seen:
    """A run directory; `resume` is what goes on with it."""
    metrics = path / METRICS_CSV
    manifest = cache.read(path / MANIFEST, "manifest", lambda p: earlier_manifest(p.parent), _NOTHING)
    labels = lookup(manifest, "actions", "labels", default=[])
    rows = cache.read(metrics, "rows", read_rows, _NO_ROWS)
    alarms = cache.read(metrics, f"alarms {labels}", lambda _: _alarms(rows, labels), _NO_ALARMS)
    written = None
    with suppress(OSError):
        written = metrics.stat().st_mtime
    return Seen(
        resume,
        path.resolve().name,
        held,
        time.time(),
        cache.read(path / CONFIG, "fields", lambda p: _flat(load_fields(p.parent)), _NOTHING),
        manifest,
        rows,
        written if rows else None,
        alarms,
        tuple(sorted(int(p.name) for p in _folders(path / "checkpoints") if p.name.isdecimal())),
    )


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration's groups side by side; their names are unique."""
    groups = {k: v for k, v in config.items() if k in GROUPS and isinstance(v, dict)}
    own = {k: v for k, v in config.items() if k not in groups}
    return own | {name: value for group in groups.values() for name, value in group.items()}


def read_rows(path: Path) -> dict[str, np.ndarray]:
    """The whole lines of a metrics.csv as columns (R,); {} before the first.

    What is no number is NaN. Of a file that is larger than any that is read, nothing; a last line that is being written
    is left out, since half a number looks like one.
    """
    if not path.is_file() or path.stat().st_size > MOST:
        return {}
    text = path.read_bytes().decode("utf-8", "replace")
    found: dict[float, dict[str, float]] = {}
    with suppress(csv.Error):
        for row in csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])):
            numbers = {str(k): _number(v) for k, v in row.items()}
            if numbers.get("update", math.nan) >= 0:
                found[numbers["update"]] = numbers
    return _columns([found[update] for update in sorted(found)])


def _columns(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.asarray([row.get(name, math.nan) for row in rows], np.float64) for name in names}


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return math.nan


def whole(value: Any) -> int:
    """A count of a file; 0 for what is none."""
    return int(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0


def _alarms(rows: Rows, labels: Any) -> tuple[Alarm, ...]:
    """As alarms.json has them: they follow from the rows, and so cannot be behind them."""
    n = len(rows["update"]) if rows else 0
    named = labels if isinstance(labels, list) else []
    each = ({name: float(column[i]) for name, column in rows.items()} for i in range(n))
    return tuple(Alarms([str(label) for label in named], each).found)


def _sweep(path: Path, cache: Cache) -> Iterator[Seen]:
    """The trials of a sweep, each as a run of its own, as far as the records of its batches tell."""
    fields: dict[str, Any] = cache.read(path / _SWEEP, "fields", lambda p: dict(read_json(p)["facts"]), _NOTHING)
    done, waits, newest = (path / _SUMMARY).is_file(), True, (path / _SWEEP).stat().st_mtime
    for record in sorted((path / _BATCHES).glob(f"[0-9]*/{_BATCH}")):
        held = is_held(record.parent / _LOCK)
        written = record.stat().st_mtime
        newest = max(newest, written)
        for trial in cache.read(record, "trials", _trials, _NO_TRIALS):
            waits = waits and trial.state != "running"
            yield Seen(
                path,
                f"trial {trial.number}",
                held,
                time.time(),
                {**fields, **trial.fields},
                rows=trial.rows,
                written=written if trial.rows else None,
                over=trial.state if trial.state != "running" else "",
            )
    if waits and not done:  # for the next batch, or for a process that is gone
        gone = time.time() - newest > _BETWEEN
        yield Seen(path, path.resolve().name, False if gone else None, time.time(), fields, between=True)


class _Trial(NamedTuple):
    number: int
    fields: dict[str, Any]  # that are its own
    state: str
    rows: dict[str, np.ndarray]


_NO_TRIALS: list[_Trial] = []


def _trials(record: Path) -> list[_Trial]:
    """The trials of a batch."""
    found = []
    for trial in read_figures(record)["trials"]:
        rows = [{str(k): _number(v) for k, v in row.items()} for row in trial["rows"]]
        own = {**{str(k): v for k, v in trial["params"].items()}, "seed": trial["seed"]}
        found.append(_Trial(int(trial["number"]), own, str(trial["state"]), _columns(rows)))
    return found
