"""TensorBoard events: every update's training scalars and every validation's figures, by env steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter

FOLDER = "tensorboard"


class EventWriter:
    """Writes event files under `tensorboard/`."""

    def __init__(self, run_dir: Path):
        self._writer = SummaryWriter(str(run_dir / FOLDER), write_to_disk=True)

    def segment(
        self, update: int, length: int, rows: Mapping[str, np.ndarray], row: Mapping[str, Any], batch_steps: int
    ) -> None:
        """One segment: `rows` has its `length` updates in front, `row` its validation."""
        for name, values in rows.items():
            for i in range(length):
                self._writer.add_scalar(f"train/{name}", float(values[i]), (update - length + i + 1) * batch_steps)
        for name, value in row.items():
            if name.startswith("val_") and np.isfinite(value):
                self._writer.add_scalar(f"validation/{name[4:]}", float(value), update * batch_steps)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
