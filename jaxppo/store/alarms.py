"""alarms.json: the alarms of a run, as its log tells them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jaxppo.play.alarms import Alarm, Alarms, alarm_line
from jaxppo.store.directory import METRICS_CSV
from jaxppo.store.json import write_json

ALARMS = "alarms.json"


class AlarmLog:
    """Follows the rows of metrics.csv and keeps alarms.json beside it. A resumed run begins with the rows it has."""

    def __init__(self, run_dir: Path, labels: Sequence[str]):
        self._run_dir = run_dir
        self._labels = labels
        self._alarms = Alarms(labels)
        self._written: tuple[Alarm, ...] | None = None

    def follow(self, update: int) -> None:
        """Begin with the rows of metrics.csv up to `update`."""
        self._alarms = Alarms(self._labels, metrics_rows(self._run_dir / METRICS_CSV, update))

    def add(self, row: Mapping[str, Any]) -> list[str]:
        """Look at one more row; returns the lines that the log should show."""
        lines = [alarm_line(alarm) for alarm in self._alarms.add(row)]
        found = tuple(self._alarms.found)
        if found != self._written:
            try:
                write_json(self._run_dir / ALARMS, [asdict(alarm) for alarm in found])
                self._written = found
            except OSError:
                pass  # it follows from metrics.csv alone, and is tried again with the next row
        return lines


def metrics_rows(path: Path, update: int) -> Iterator[dict[str, float]]:
    """The rows of a metrics.csv up to `update`; an empty cell is NaN."""
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if int(row["update"]) <= update:
                yield {k: float(v or "nan") for k, v in row.items()}
