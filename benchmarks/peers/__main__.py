"""jaxppo beside what one could pick instead: the same work, interleaved in one run, medians and ratios.

    python -m benchmarks.peers                     # both trainers' settings and the env alone
    python -m benchmarks.peers 64x16 --rounds 5    # one of them
    python -m benchmarks.peers --short --check     # is it slower than it was? Ratios only, against baseline.json
    python -m benchmarks.peers env --torchtrade-python other-env/bin/python

`pip install -e '.[bench]'` installs the peers; what is not installed is left out. Every peer waits in a process of its
own and runs when it is told to, one after another, round by round; a ratio is the median of the rounds' ratios, so that
a busy machine slows both sides of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers.rows import ENVS, OURS, OURS_BEST, SHORT, TRAINERS, Row
from benchmarks.peers.settings import SETTINGS, Setting, setting

ROOT = Path(__file__).resolve().parents[2]
BASELINE = ROOT / "benchmarks" / "baseline.json"
ENV = "env"


QUIET_CORES = 0.25
TICKS = os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float:
    """Processor time that all processes have used, but for those that gave way by `nice`, where Linux tells it."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, _nice, system, _idle, _wait, irq, soft = map(int, stat.read_text().split()[1:8])
    return (user + system + irq + soft) / TICKS


class Turn(NamedTuple):
    """A stretch of one peer."""

    speed: float  # steps a second
    others: float  # processor seconds a second that other processes used meanwhile


class Worker:
    """A peer's process."""

    def __init__(self, row: Row, sizes: Setting, python: str):
        self.row = row
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.peers.worker"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ready = self._ask({"row": dataclasses.asdict(row), "setting": dataclasses.asdict(sizes)})

    def run(self, least_seconds: float, tries: int) -> Turn:
        """A stretch; up to `tries` of them while other processes take much of the machine, of which the quietest."""
        turns: list[Turn] = []
        while len(turns) < tries and (not turns or turns[-1].others > QUIET_CORES):
            busy, own = busy_seconds(), self._seconds()
            done = self._ask(least_seconds)
            others = (busy_seconds() - busy - (self._seconds() - own)) / done["seconds"]
            turns.append(Turn(done["steps"] / done["seconds"], others))
        return min(turns, key=lambda turn: turn.others)

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()

    def _seconds(self) -> float:
        """Processor time that the worker has used."""
        fields = Path(f"/proc/{self._process.pid}/stat")
        return sum(map(int, fields.read_text().rsplit(")", 1)[1].split()[11:13])) / TICKS if fields.exists() else 0.0

    def _ask(self, message: Any) -> dict[str, Any]:
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"missing": f"its process ended with status {self._process.wait()}"}


def compare(
    rows: Sequence[Row], sizes: Setting, rounds: int, least_seconds: float, tries: int, pythons: dict[str, str]
) -> dict[str, list[Turn]]:
    """A turn of every row in every round, the rows interleaved."""
    workers: list[Worker] = []
    turns: dict[str, list[Turn]] = {}
    try:
        for row in rows:
            worker = Worker(row, sizes, pythons[row.python])
            if "missing" in worker.ready:
                print(f"  {row.name}: left out, {worker.ready['missing']}", flush=True)
                worker.close()
                continue
            workers.append(worker)
            turns[row.name] = []
            print(f"  {row.name}: {worker.ready['held']} (ready in {worker.ready['seconds']:.0f} s)", flush=True)
        for _ in range(rounds):
            for worker in workers:
                turns[worker.row.name].append(worker.run(least_seconds, tries))
    finally:
        for worker in workers:
            worker.close()
    return turns


def ratio(turns: dict[str, list[Turn]], over: str, under: str) -> float:
    """Median of the rounds' ratios."""
    return statistics.median(a.speed / b.speed for a, b in zip(turns[over], turns[under], strict=True))


def table(turns: dict[str, list[Turn]]) -> list[str]:
    """A Markdown table: steps/s, its range, what others took of the machine, and how many times faster jaxppo is."""
    ours = [name for name in (OURS, OURS_BEST) if name in turns]
    columns = ["", "steps/s", "range", "others, cores", *(f"{name} is faster" for name in ours)]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, of in turns.items():
        speeds = [turn.speed for turn in of]
        cells = [name, f"{statistics.median(speeds):,.0f}", f"{min(speeds):,.0f} to {max(speeds):,.0f}"]
        cells.append(f"{statistics.median(turn.others for turn in of):.1f}")
        cells += [f"{ratio(turns, own, name):.2f} x" for own in ours]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def slower(ratios: dict[str, dict[str, float]], stored: dict[str, dict[str, float]], tolerance: float) -> list[str]:
    """A sentence for each ratio that fell by more than `tolerance` of what is stored."""
    found = []
    for group, names in stored.items():
        for name, before in names.items():
            now = ratios.get(group, {}).get(name)
            if now is not None and now < before * (1.0 - tolerance):
                found.append(f"{group}: jaxppo was {before:.2f} times {name}, now {now:.2f}")
    return found


def processor() -> str:
    """The processor's name, where Linux tells it."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    named = {k.strip(): v.strip() for k, v in fields.items()}
    return (
        f"{named.get('model name', platform.machine())}, family {named.get('cpu family')}, model {named.get('model')}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("groups", nargs="*", help=f"of {', '.join([*SETTINGS, ENV])}; all when none is given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="least length of a peer's turn")
    parser.add_argument("--tries", type=int, default=1, help="turns to try while others use the machine")
    parser.add_argument("--rows", nargs="+", help="jaxppo, and rows whose name contains one of these words")
    parser.add_argument("--short", action="store_true", help="a quarter of the envs, and what needs jaxppo alone")
    parser.add_argument("--store", action="store_true", help=f"write the ratios to {BASELINE.name}")
    parser.add_argument("--check", action="store_true", help="exit with status 1 where a ratio fell")
    parser.add_argument("--tolerance", type=float, default=0.25, help="share by which a ratio may fall")
    parser.add_argument("--torchtrade-python", default=sys.executable, help="Python that has '.[bench-torchtrade]'")
    args = parser.parse_args()
    pythons = {"this": sys.executable, "torchtrade": args.torchtrade_python}
    print(f"{os.cpu_count()} cores of {processor()}; load {os.getloadavg()[0]:.1f} before")
    ratios: dict[str, dict[str, float]] = {}
    for group in args.groups or [*SETTINGS, ENV]:
        sizes = setting("64x16" if group == ENV else group, args.short)
        rows = [r for r in (ENVS if group == ENV else TRAINERS) if not args.short or r.name in SHORT]
        rows = [r for r in rows if not args.rows or r.name == OURS or any(word in r.name for word in args.rows)]
        print(f"\n{group}: {sizes}")
        turns = compare(rows, sizes, args.rounds, args.seconds, args.tries, pythons)
        print("\n".join(table(turns)), flush=True)
        ratios[group] = {u: ratio(turns, OURS, u) for u in turns if OURS in turns and u != OURS}
    print(f"load {os.getloadavg()[0]:.1f} after")
    if args.store:
        BASELINE.write_text(json.dumps(ratios, indent=2) + "\n")
    if args.check:
        found = slower(ratios, json.loads(BASELINE.read_text()), args.tolerance)
        print("\n".join(found) or "no ratio fell")
        return 1 if found else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
