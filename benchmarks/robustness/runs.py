"""Small runs to be killed: their bars, their flags, where to kill them, and what differs between two of them."""

from __future__ import annotations

import csv
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np
import polars as pl

import jaxppo
from jaxppo.market.synthetic import synthetic_market
from jaxppo.store.checkpoint import restore_run
from jaxppo.store.tensorboard import FILE, FOLDER, read_events

CLOCKS = ("steps_per_second", "elapsed_seconds")
"""Columns of metrics.csv that say how long it took: the only ones that two runs may differ in."""

# 4 paths x 4 lanes x 4 steps, 12 updates, validated before the first and after every 2.
SMALL: dict[str, Any] = {
    "n_envs": 16,
    "lanes": 4,
    "n_steps": 4,
    "n_updates": 12,
    "validate_every": 2,
    "episode_steps": 16,
    "epochs": 2,
    "minibatches": 2,
    "window": 8,
    "channels": 4,
    "trunk_width": 8,
    "features": "base",
    "scale_window": 32,
    "seed": 6,
    "learning_rate": 0.01,
}
_ROOT = Path(jaxppo.__file__ or "").parent
_WRITERS = [*sorted(_ROOT.glob("store/*.py")), _ROOT / "train" / "loop.py", _ROOT / "train" / "run.py"]
WRITES = frozenset(str(path) for path in _WRITERS if path.name not in ("read.py", "columns.py", "rows.py"))
"""The code that touches a run directory."""


def flags(**changes: Any) -> list[str]:
    """Command line of a small run."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in {**SMALL, **changes}.items()]


def write_bars(folder: Path) -> Path:
    """CSV files of two made-up symbols."""
    folder.mkdir(parents=True, exist_ok=True)
    for symbol, bars in zip(("ALFA", "BRAVO"), synthetic_market(0, 2, 900), strict=True):
        columns = {name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume")}
        pl.DataFrame({"timestamp": bars.time, **columns}).write_csv(folder / f"{symbol}_1h.csv")
    return folder


def start(module: str, *args: str, **more: Any) -> subprocess.Popen[str]:
    """A process of its own that runs a module of this repository."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    env = {**os.environ, "PYTHONPATH": root}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": root}
    return subprocess.Popen([sys.executable, "-m", module, *args], env=env, **{**pipes, **more})


# Where to kill


class PowerCut(BaseException):
    """No handler of errors sees it coming."""


class LineTrap:
    """Counts the lines of the code that writes, in every thread, and acts at the `at`-th and at all that follow."""

    def __init__(self, at: int, act: Callable[[], None], files: frozenset[str] = WRITES):
        self.lines = 0
        self.where = ""
        self._at = at
        self._act = act
        self._files = files
        self._lock = threading.Lock()

    def __enter__(self) -> LineTrap:
        threading.settrace(self._call)
        sys.settrace(self._call)
        return self

    def __exit__(self, *error: Any) -> None:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]

    def _call(self, frame: FrameType, event: str, value: Any) -> Any:
        return self._line if frame.f_code.co_filename in self._files else None

    def _line(self, frame: FrameType, event: str, value: Any) -> Any:
        if event == "line":
            with self._lock:
                self.lines += 1
                now = self.lines
            if now >= self._at:
                self.where = self.where or f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                self._act()
        return self._line


# What differs


def metrics(run_dir: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of metrics.csv without the clock's columns."""
    with (run_dir / "metrics.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    kept = [i for i, name in enumerate(header) if name not in CLOCKS]
    return header, [[row[i] for i in kept] for row in rows]


def scalars(run_dir: Path) -> list[tuple[str, int, bytes]]:
    """Tag, step and bits of the value of every event, in order."""
    data = (run_dir / FOLDER / FILE).read_bytes()
    events = read_events(data)
    return [(v.tag, e.step, struct.pack("<f", v.simple_value)) for e in events for v in e.summary.value]


def _leaves(one: Any, other: Any) -> Iterator[str]:
    if jax.tree.structure(one) != jax.tree.structure(other):
        yield "its structure"
        return
    for (path, x), y in zip(jax.tree.leaves_with_path(one), jax.tree.leaves(other), strict=True):
        a, b = np.asarray(x), np.asarray(y)
        if (a.dtype, a.shape, a.tobytes()) != (b.dtype, b.shape, b.tobytes()):
            yield jax.tree_util.keystr(path)


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two run directories, clocks apart: state, best policy, rows, events and files."""
    found = []
    state, best, info = restore_run(one)
    state_2, best_2, info_2 = restore_run(other)
    found += [f"state {name}" for name in _leaves(state, state_2)]
    found += [f"best policy {name}" for name in _leaves(best, best_2)]
    if replace(info, elapsed_seconds=0.0) != replace(info_2, elapsed_seconds=0.0):
        found.append("what the checkpoint says of itself")
    if metrics(one) != metrics(other):
        found.append("metrics.csv")
    events = scalars(one)
    if events != scalars(other):
        found.append("events")
    if len({(tag, step) for tag, step, _ in events}) != len(events):
        found.append("an event twice")
    names = ["config.yaml", "gate.json", *(p.relative_to(one).as_posix() for p in (one / "validation").glob("*"))]
    found += [name for name in names if (one / name).read_bytes() != (other / name).read_bytes()]
    if sorted(p.name for p in one.iterdir()) != sorted(p.name for p in other.iterdir()):
        found.append("the files of the folder")
    kept = [sorted(p.name for p in (run / "checkpoints").iterdir()) for run in (one, other)]
    if kept[0] != kept[1]:
        found.append(f"the checkpoints, {kept[0]} and {kept[1]}")
    return found
