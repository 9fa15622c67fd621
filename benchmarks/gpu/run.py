"""Runs parts in order, each a process of its own with a limit, until the time is used up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CLOSING = 3.0  # seconds kept for the table
CORES_EACH = 4  # of a part that compiles beside others

OK, FAILED, STOPPED, NOT_RUN = "ok", "failed", "stopped", "not run"


class Step(NamedTuple):
    """A process."""

    part: str  # that asked for it
    name: str  # of its results
    module: str  # beside this one
    arguments: tuple[str, ...] = ()
    least: float = 20.0  # seconds: with less left it is not begun
    most: float = 150.0
    environment: Mapping[str, str] = {}


class Took(NamedTuple):
    """How a step ended."""

    status: str
    seconds: float
    why: str = ""


class Runner:
    """Runs steps in one folder and keeps what they leave."""

    def __init__(self, folder: Path, seconds: float, tiny: bool, platform: str, say: Callable[[str], None]):
        self.took: dict[str, Took] = {}
        self.folder = folder
        self._until = time.monotonic() + seconds
        self._tiny = tiny
        self._platform = platform  # as `JAX_PLATFORMS` has it; JAX finds one itself where it is empty
        self._say = say
        self._running: set[subprocess.Popen[bytes]] = set()

    def left(self) -> float:
        """Seconds."""
        return self._until - time.monotonic()

    def results(self) -> dict[str, Any]:
        """What the steps have left so far, by name; a step that was stopped may have left a part of it."""
        found = {}
        for name in self.took:
            file = self._file(name)
            if file.exists():
                found[name] = json.loads(file.read_text())
        return found

    def run(self, steps: Sequence[Step], side_by_side: bool = False) -> None:
        """One after another; or, where nothing is timed, as many at once as the cores allow."""
        workers = max(1, (os.cpu_count() or 1) // CORES_EACH) if side_by_side else 1
        with ThreadPoolExecutor(workers) as pool:
            try:
                list(pool.map(self._one, steps))
            except BaseException:
                self._until = time.monotonic()  # what waits is not begun
                for process in tuple(self._running):
                    kill(process)
                raise

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _one(self, step: Step) -> None:
        left = self.left()
        if left - CLOSING < (0.0 if self._tiny else step.least):
            ended = Took(NOT_RUN, 0.0, f"{max(left, 0.0):.0f} s were left, too few")
        else:
            ended = self._started(step, left - CLOSING if self._tiny else min(step.most, left - CLOSING))
        self.took[step.name] = ended
        self._say(f"{line(step.name, ended)} ({max(self.left(), 0.0):.0f} s left)")

    def _started(self, step: Step, limit: float) -> Took:
        log, began = self.folder / f"{step.name}.log", time.monotonic()
        command = [sys.executable, "-m", f"benchmarks.gpu.{step.module}", "--out", str(self._file(step.name))]
        command += [*(["--tiny"] if self._tiny else []), *step.arguments]
        with log.open("w") as out:
            process = subprocess.Popen(
                command, cwd=ROOT, env=self._environment(step), stdout=out, stderr=out, start_new_session=True
            )
            self._running.add(process)
            try:
                status = process.wait(limit)
            except subprocess.TimeoutExpired:
                kill(process)
                hangs = limit >= step.most and not self._tiny
                return Took(FAILED if hangs else STOPPED, time.monotonic() - began, f"after {limit:.0f} s")
            finally:
                self._running.discard(process)
        seconds = time.monotonic() - began
        if status < 0 and self.left() <= 0:
            return Took(STOPPED, seconds)
        return Took(OK, seconds) if status == 0 else Took(FAILED, seconds, f"{last_line(log)} (all of it in {log})")

    def _environment(self, step: Step) -> dict[str, str]:
        """That of this process, with the checkout to import from, and a cache that no earlier run has filled."""
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        flags = " ".join(filter(None, [os.environ.get("XLA_FLAGS"), step.environment.get("XLA_FLAGS")]))
        more = {
            "PYTHONPATH": os.pathsep.join(paths),
            **({"JAX_PLATFORMS": self._platform} if self._platform else {}),
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "xla"),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **step.environment,
            **({"XLA_FLAGS": flags} if flags else {}),
        }
        return {**os.environ, **more}


def kill(process: subprocess.Popen[bytes]) -> None:
    """A step with all that it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def last_line(log: Path) -> str:
    """What a failed process said last."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip()[:300] if lines else "it said nothing"


def line(name: str, took: Took) -> str:
    """How a step ended, in a line."""
    if took.status == NOT_RUN:
        return f"{name}: not run, {took.why}"
    return f"{name}: {took.status}, {took.seconds:.0f} s" + (f": {took.why}" if took.why else "")
