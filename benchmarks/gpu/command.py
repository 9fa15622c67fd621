"""A run of the command line, from the first import to the report: its own figures, and what the card did meanwhile."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.gpu.part import TINY, parser, write

SAMPLED = ("utilization.gpu", "power.draw", "memory.used", "clocks.sm")
BUSY_PERCENT = 5.0


def flags(tiny: bool) -> list[str]:
    """Of the sizes."""
    found: list[str] = []
    for name, value in TINY.items() if tiny else ():
        found += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return found


@contextmanager
def watched(file: Path) -> Iterator[None]:
    """What nvidia-smi says twice a second, where there is one."""
    if shutil.which("nvidia-smi") is None:
        yield
        return
    with file.open("w") as out:
        query = [f"--query-gpu={','.join(SAMPLED)}", "--format=csv,noheader,nounits", "-lms", "500"]
        watch = subprocess.Popen(["nvidia-smi", *query], stdout=out)
        try:
            yield
        finally:
            watch.terminate()
            watch.wait()


def card_while_busy(text: str) -> dict[str, float]:
    """Means over the samples of a card that did something; the most memory that was taken. Empty where none did."""
    rows = []
    for line in text.splitlines():
        try:
            rows.append([float(x) for x in line.split(",")])
        except ValueError:  # the last line may be cut; a figure may be [N/A]
            continue
    busy = [r for r in rows if len(r) == len(SAMPLED) and r[0] > BUSY_PERCENT]
    if not busy:
        return {}
    percent, watts, _, clock = (sum(column) / len(busy) for column in zip(*busy, strict=True))
    most = max(r[2] for r in busy)
    return {"utilisation_percent": percent, "watts": watts, "taken_mib": most, "clock_mhz": clock}


def measured(preset: str, tiny: bool, folder: Path) -> dict[str, Any]:
    """Wall seconds of the command, and what its manifest says."""
    run_dir, samples = folder / f"run-{preset}", folder / f"card-{preset}.csv"
    command = [sys.executable, "-m", "jaxppo.train", "--preset", preset, "--run-dir", str(run_dir), *flags(tiny)]
    began = time.perf_counter()
    with watched(samples):
        subprocess.run(command, check=True)
    wall = time.perf_counter() - began
    manifest = json.loads((run_dir / "manifest.json").read_text())
    finished = manifest["finished"]
    return {
        "wall_s": wall,
        "compile_s": manifest["compile_seconds"],
        "run_s": finished["run_seconds"],
        "steps": finished["env_steps"],
        "steps_s": finished["steps_per_second"],
        "best_fitness": finished["best_fitness"],
        "card": card_while_busy(samples.read_text()) if samples.exists() else {},
    }


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--preset", required=True)
    made.add_argument("--folder", type=Path, required=True, help="where the run may write")
    args = made.parse_args()
    write(args.out, measured(args.preset, args.tiny, args.folder))


if __name__ == "__main__":
    main()
