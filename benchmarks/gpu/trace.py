"""A profile of JAX's own, read without TensorBoard: kernels and their seconds by named scope."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks.stages import stage_of

PLAYED = re.compile(r"\b(encode|decide|account)\b")
"""Named scopes outside of those of an update: a validation plays with the same network and account."""
SHORT_US = 3.0
HEAVIEST = 25


class Launch(NamedTuple):
    """A kernel or a copy that ran."""

    name: str
    instruction: str  # of the program; empty where the trace tells none
    seconds: float


def profiled(call: Callable[[], Any], hlo: str) -> dict[str, Any]:
    """What `call` launched. On a GPU, XLA runs kernel by kernel meanwhile, without CUDA graphs: durations, not gaps.

    Args:
      call: to profile; returns when it is done.
      hlo: the text of its executable.
    """
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            call()
        files = sorted(Path(folder).rglob("*.xplane.pb"))
        data = [jax.profiler.ProfileData.from_file(str(file)) for file in files]
        planes = [plane for of in data for plane in of.planes]
        return summed(launches(planes, instructions(hlo)), scopes(hlo))


def plain(name: str) -> str:
    """An instruction's name as its kernel has it: `loop_fusion.3` is launched as `loop_fusion_3`."""
    return re.sub(r"[.\-]", "_", name)


def instructions(hlo: str) -> set[str]:
    """Plain names of all instructions but those that only call others."""
    calls = set(re.findall(r"%?([\w.\-]+) = [^\n]*? (?:while|call|conditional)\(", hlo))
    return {plain(name) for name in set(re.findall(r"%?([\w.\-]+) = ", hlo)) - calls}


def scopes(hlo: str) -> dict[str, str]:
    """Plain name of an instruction to the named scopes that it was traced in."""
    found = re.findall(r'%?([\w.\-]+) = [^\n]*?metadata=\{[^}]*?op_name="([^"]*)"', hlo)
    return {plain(name): where for name, where in found}


@cache
def stage(where: str) -> str:
    """The row of an operation that was traced in these scopes: that of `stage_of`, or the part of a validation."""
    found = stage_of(where)
    played = PLAYED.findall(where) if found == "rest" else []
    return played[-1] if played else found


def launches(planes: list[Any], known: set[str]) -> Iterator[Launch]:
    """Of a GPU's planes what its streams ran; where there is none, the events that are instructions of the program."""
    gpus = [plane for plane in planes if plane.name.startswith("/device:GPU")]
    for plane in gpus or planes:
        for line in plane.lines:
            if gpus and not line.name.lower().startswith("stream"):
                continue  # lines that sum up the same kernels
            for event in line.events:
                name = plain(event.name)
                if name not in known and not gpus:
                    continue
                if name not in known:  # cuBLAS's and Triton's have names of their own; the trace says whose they are
                    name = plain(next((str(v) for k, v in event.stats if k == "hlo_op"), ""))
                yield Launch(event.name, name, event.duration_ns / 1e9)


def summed(found: Iterator[Launch], scope_of: dict[str, str]) -> dict[str, Any]:
    """Launches, seconds and the heaviest: of all, by stage and by kernel."""
    seconds: Counter[str] = Counter()
    count: Counter[str] = Counter()
    stages: dict[str, list[float]] = {}
    kernels: dict[tuple[str, str], list[float]] = {}
    for launch in found:
        row_of = stage(scope_of.get(launch.instruction, ""))
        for table, key in ((stages, row_of), (kernels, (launch.name, row_of))):
            row = table.setdefault(key, [0.0, 0.0])
            row[0] += launch.seconds
            row[1] += 1
        seconds[launch.name] += launch.seconds
        count[launch.name] += 1
    short = sum(n for name, n in count.items() if 1e6 * seconds[name] / n < SHORT_US)
    heaviest = sorted(kernels.items(), key=lambda item: -item[1][0])[:HEAVIEST]
    return {
        "launches": sum(count.values()),
        "busy_ms": 1e3 * sum(seconds.values()),
        "short": short,  # launches of kernels that take less than SHORT_US on average
        "stages": {
            name: {"ms": 1e3 * s, "launches": int(n)} for name, (s, n) in sorted(stages.items(), key=lambda x: -x[1][0])
        },
        "heaviest": [
            {"kernel": name[:90], "stage": stage, "ms": 1e3 * s, "launches": int(n), "us": 1e6 * s / n}
            for (name, stage), (s, n) in heaviest
        ],
    }
