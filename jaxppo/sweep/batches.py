"""Batches of trials on the disk: what was asked for together, how far it has come, and from where it goes on.

A batch is a folder that one process at a time holds. `batch.json` is the truth about its trials; the states of a shape
(trials that are one population) lie beside it under the number of validations that they have behind them, and are
written before `batch.json` names them: killed at any moment, a batch goes on from the last whole pair.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxppo.errors import RunDirectoryError
from jaxppo.play.best import best_update
from jaxppo.store.json import as_figures, read_json, write_json
from jaxppo.store.locks import Lock
from jaxppo.store.npz import read_npz, write_npz
from jaxppo.sweep.study import Asked, State

FOLDER, _RECORD, _LOCK = "batches", "batch.json", ".lock"


@dataclass
class Trial:
    """One configuration: its parameters, and what was seen of it."""

    number: int
    params: dict[str, Any]  # plain values, by field
    seed: int
    shape: int = -1  # index among the batch's shapes; -1 for one that cannot be run
    state: State = "running"
    reason: str = ""  # why it failed
    rows: list[dict[str, float]] = field(default_factory=list)  # one a validation: update, value and its figures
    result: dict[str, float] = field(default_factory=dict)  # of the batch's end: figures of its policy on other bars

    @property
    def values(self) -> dict[int, float]:
        """What validations are ranked by, by their update."""
        return {int(row["update"]): row["value"] for row in self.rows}

    @property
    def best(self) -> float:
        """The highest of them; nan without a validation."""
        return self.values[best_update(self.values)] if self.rows else math.nan

    @property
    def best_row(self) -> dict[str, float]:
        """The validation of the policy that it hands over; empty without any."""
        return next((row for row in self.rows if row["update"] == best_update(self.values)), {})


@dataclass
class Shape:
    """Trials whose programs differ in arrays alone."""

    trials: list[int]  # their numbers
    done: int = 0  # validations behind them


@dataclass
class Batch:
    """Trials that were asked for together."""

    trials: list[Trial]
    shapes: list[Shape] = field(default_factory=list)
    rungs: int = 0  # at which the worst were halted
    finished: bool = False

    def of(self, shape: Shape) -> list[Trial]:
        """The trials of a shape, in its order."""
        by_number = {t.number: t for t in self.trials}
        return [by_number[n] for n in shape.trials]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> Batch:
        trials = [
            Trial(**{**t, "rows": as_figures(t["rows"]), "result": as_figures(t["result"])}) for t in raw["trials"]
        ]
        shapes = [Shape(**s) for s in raw["shapes"]]
        return Batch(trials, shapes, int(raw["rungs"]), bool(raw["finished"]))


class BatchFolder:
    """The folder of one batch."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = Lock(path / _LOCK)

    @property
    def name(self) -> str:
        return self.path.name

    def hold(self) -> bool:
        """Whether it is this process's now."""
        return self._lock.take(wait=False)

    def release(self) -> None:
        self._lock.release()

    def load(self) -> Batch:
        """The batch; `RunDirectoryError` where its record cannot be read."""
        try:
            return Batch.from_json(read_json(self.path / _RECORD))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunDirectoryError(
                f"{self.path / _RECORD}: cannot be read as a batch of trials ({error!r})"
            ) from error

    def save(self, batch: Batch) -> None:
        write_json(self.path / _RECORD, batch.to_json())

    def save_state(self, shape: int, done: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep what a shape goes on from after `done` validations. `batch.json` must name it next."""
        write_npz(self._state(shape, done), arrays)

    def load_state(self, shape: int, done: int) -> dict[str, np.ndarray]:
        """What `save_state` kept; `CheckpointError` where it cannot be read."""
        return read_npz(self._state(shape, done))

    def keep_state(self, shape: int, done: int) -> None:
        """Remove all states of a shape but one; -1 removes all."""
        for path in self.path.glob(f"state-{shape}-*.npz"):
            if path != self._state(shape, done):
                path.unlink(missing_ok=True)

    def save_policies(self, shape: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep the policies of a shape, and their days."""
        write_npz(self.path / f"policies-{shape}.npz", arrays)

    def load_policies(self, shape: int) -> dict[str, np.ndarray]:
        """What `save_policies` kept; `CheckpointError` where it cannot be read."""
        return read_npz(self.path / f"policies-{shape}.npz")

    def _state(self, shape: int, done: int) -> Path:
        return self.path / f"state-{shape}-{done}.npz"


def batch_folders(sweep: Path) -> list[BatchFolder]:
    """All batches of a sweep that have a record, in the order of their trials."""
    return [BatchFolder(p.parent) for p in sorted((sweep / FOLDER).glob(f"[0-9]*/{_RECORD}"))]


def new_batch(sweep: Path, asked: list[Asked], seed: int) -> tuple[BatchFolder, Batch]:
    """A folder, held, for trials that were just asked for; `seed` plus its number is a trial's."""
    path = sweep / FOLDER / f"{asked[0].number:06d}"
    path.mkdir(parents=True, exist_ok=True)
    folder = BatchFolder(path)
    if not folder.hold():
        raise RunDirectoryError(f"{path}: another process holds it before it is a batch; start again")
    batch = Batch([Trial(a.number, dict(a.params), seed + a.number) for a in asked])
    folder.save(batch)
    return folder, batch


def from_the_start(batch: Batch) -> None:
    """Forget how far a batch has come, as its states cannot be read; what could not be run stays so."""
    for trial in batch.trials:
        if trial.state != "failed":
            trial.state, trial.rows, trial.result = "running", [], {}
    batch.shapes, batch.rungs = [], 0
