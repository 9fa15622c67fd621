"""The trials of a sweep among its processes: whose batch is whose, and which are left."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jaxppo.errors import RunDirectoryError
from jaxppo.store.json import read_json, write_json
from jaxppo.store.locks import Lock
from jaxppo.sweep.batches import Batch, BatchFolder, batch_folders, new_batch
from jaxppo.sweep.setup import Setup
from jaxppo.sweep.study import Study, require_same

RECORD, _LOCK = "sweep.json", ".lock"


def claim(out: Path, facts: Mapping[str, Any]) -> str:
    """Make the folder of a sweep, or join the one that is there; returns the sweep's own name, of which there is one.

    Raises:
      RunDirectoryError: the folder holds something else, or another sweep.
    """
    record = out / RECORD
    if not record.is_file() and out.exists() and (not out.is_dir() or any(p.name != _LOCK for p in out.iterdir())):
        raise RunDirectoryError(
            f"{out}: holds something that is no sweep, and is never overwritten; choose another --out"
        )
    out.mkdir(parents=True, exist_ok=True)
    with Lock(out / _LOCK):
        if not record.is_file():
            write_json(record, {"id": uuid.uuid4().hex, "created": datetime.now(UTC).isoformat(), "facts": dict(facts)})
        try:
            there = read_json(record)
            kept, own = dict(there["facts"]), str(there["id"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunDirectoryError(f"{record}: cannot be read as the record of a sweep ({error!r})") from error
    require_same(kept, facts, f"{out}: its sweep")
    return own


class Queue:
    """The batches that are left, shared with other processes."""

    def __init__(self, setup: Setup, study: Study):
        self._setup, self._study = setup, study
        self._lock = Lock(setup.out / _LOCK)

    def next(self) -> tuple[BatchFolder, Batch] | None:
        """A batch that nobody works on, held: one that a process left behind, or a new one; None where none is left."""
        options, seed = self._setup.options, self._setup.config.seed
        with self._lock:
            known: set[int] = set()
            for folder in batch_folders(self._setup.out):
                batch = folder.load()
                known |= {t.number for t in batch.trials}
                if not batch.finished and folder.hold():
                    batch = folder.load()  # it may have been finished between the two
                    if not batch.finished:
                        return folder, batch
                    folder.release()
            lost = [t for t in self._study.running() if t.number not in known]  # asked for, and then killed
            asked = [self._study.complete(t.number, options.sampler, seed) for t in lost[: options.batch]]
            new = min(options.batch - len(asked), self._setup.wanted - len(self._study))
            asked += self._study.ask(max(new, 0), options.sampler, seed)
            return new_batch(self._setup.out, asked, seed) if asked else None

    def unfinished(self) -> int:
        """Trials that other processes work on."""
        batches = [folder.load() for folder in batch_folders(self._setup.out)]
        return sum(len(b.trials) for b in batches if not b.finished)


def require_trials(study: Study, out: Path) -> None:
    """`RunDirectoryError` where the study lacks trials that were trained, as one that was removed does."""
    trained = [t.number for folder in batch_folders(out) for t in folder.load().trials]
    if trained and max(trained) >= len(study):
        raise RunDirectoryError(
            f"{out}: has trials up to {max(trained)}, and the study has {len(study)} in all; give the --storage and"
            " --study that the sweep began with"
        )
