"""alarms.json: the alarms of a run, as its log tells them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxppo.play.alarms import Alarms, alarm_line
from jaxppo.store.directory import METRICS_CSV, plain_json, write_atomic

ALARMS = "alarms.json"


class AlarmLog:
    """Follows the rows of metrics.csv and keeps alarms.json beside it. A resumed run begins with the rows it has."""

    def __init__(self, run_dir: Path, labels: Sequence[str]):
        self._run_dir = run_dir
        self._labels = labels
        self._alarms = Alarms(labels)
        self._written: str | None = None

    def follow(self, update: int) -> None:
        """Begin with the rows of metrics.csv up to `update`."""
        self._alarms = Alarms(self._labels, _rows(self._run_dir / METRICS_CSV, update))

    def add(self, row: Mapping[str, Any]) -> list[str]:
        """Look at one more row; returns the lines that the log should show."""
        lines = [alarm_line(alarm) for alarm in self._alarms.add(row)]
        found = [plain_json(alarm.to_json()) for alarm in self._alarms.found]
        text = json.dumps(found, indent=2, allow_nan=False) + "\n"
        if text != self._written:
            try:
                write_atomic(self._run_dir / ALARMS, text)
                self._written = text
            except OSError:
                pass  # it follows from metrics.csv alone, and is tried again with the next row
        return lines


def _rows(path: Path, update: int) -> Iterator[dict[str, float]]:
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if int(row["update"]) <= update:
                yield {k: float(v or "nan") for k, v in row.items()}
