"""2,000 updates with a validation and a checkpoint after every second one: does anything grow?"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.robustness.row import Row
from benchmarks.robustness.runs import flags, write_bars

WARM_UP = 200
"""Updates until everything that is made once has been made: the report's imports are not among it, they come last."""
GROWTH = {"rss_mib": 8.0, "handles": 2.0, "threads": 2.0}
"""What each may move by in the second half. The allocator's own ups and downs are a few MiB, and once in some 500
checkpoints Python makes the table of its interned strings anew: 4 MiB."""


class Sample(NamedTuple):
    """A running process at one moment, from /proc."""

    update: int  # the last validated
    rss_mib: float
    handles: int
    threads: int


def _sample(process: int, metrics: Path) -> Sample | None:
    """None before the first validation, and once the process has gone."""
    try:
        lines = metrics.read_text().splitlines()
        status = dict(x.split(":", 1) for x in Path(f"/proc/{process}/status").read_text().splitlines())
        handles = len(list(Path(f"/proc/{process}/fd").iterdir()))
        update = int(lines[-1].split(",", 1)[0])
        return Sample(update, float(status["VmRSS"].split()[0]) / 1024, handles, int(status["Threads"]))
    except (OSError, ValueError, KeyError, IndexError):
        return None


def watch(folder: Path, updates: int, every: int, pause: float = 0.1) -> tuple[int, str, list[Sample]]:
    """Train from the command line in a process of its own; its exit status, its output, and samples of it.

    The samples end with the last validation: what writes the report afterwards is another matter.
    """
    run = folder / "run"
    given = flags(n_updates=updates, validate_every=every, data=write_bars(folder / "bars"), run_dir=run)
    command = [sys.executable, "-m", "jaxppo.train", *given]
    samples: list[Sample] = []
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            sample = _sample(process.pid, run / "metrics.csv")
            if sample is not None and sample.update < updates:
                samples.append(sample)
            time.sleep(pause)
    return process.returncode, (folder / "log").read_text(), samples


def at(samples: Sequence[Sample], update: int) -> Sample:
    """The first sample at `update` or after it; the last where there is none."""
    return next((s for s in samples if s.update >= update), samples[-1])


def figure(samples: Sequence[Sample], update: int, of: str, width: int = 100) -> float:
    """What the process held within `width` updates up to `update`.

    The median of memory. The least of handles and threads: a checkpoint in flight opens some 30 files for a moment, and
    what is never closed raises the least.
    """
    near = sorted(getattr(s, of) for s in samples if update - width < s.update <= update)
    if not near:
        return float(getattr(at(samples, update), of))
    return float(near[len(near) // 2] if of == "rss_mib" else near[0])


def rows(quick: bool) -> Iterator[Row]:
    updates = 600 if quick else 2000
    points = (WARM_UP, updates // 2, updates)
    with tempfile.TemporaryDirectory() as folder:
        status, output, samples = watch(Path(folder), updates, 2)
        if status:
            raise RuntimeError(output[-2000:])
        validations = len((Path(folder) / "run/metrics.csv").read_text().splitlines()) - 1
        size = sum(f.stat().st_size for f in (Path(folder) / "run").rglob("*") if f.is_file()) / 2**20
    when = ", ".join(f"{p:,}" for p in points)
    for of, name, unit in (
        ("rss_mib", "resident memory", " MiB"),
        ("handles", "open file handles", ""),
        ("threads", "threads", ""),
    ):
        figures = [figure(samples, p, of) for p in points]
        told = ", ".join(f"{f:,.0f}" for f in figures)
        yield Row(
            f"{updates:,} updates, {validations:,} validations and checkpoints: {name} after {when} updates",
            1,
            # Against the middle: the first figure can still hold the compiler's memory.
            int(figures[-1] <= figures[1] + GROWTH[of]),
            f"{told}{unit}: no growth in the second half beyond {GROWTH[of]:.0f}{unit}",
        )
    yield Row(f"size of that run on disk: {size:.1f} MiB", 1, 1, "finished with a report")
