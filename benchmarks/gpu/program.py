"""The program of a run, compiled once and run for some segments: speed, memory, what it moves, and a profile."""

from __future__ import annotations

import json
import os
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu.part import clocked, made_up, parser, sized, write
from benchmarks.gpu.trace import profiled
from jaxppo.config.schema import Config
from jaxppo.device import enable_compilation_cache, xla_options
from jaxppo.plan.counts import Region, count_module, update_loops
from jaxppo.plan.hlo import parse_module
from jaxppo.train.compiled import Compiled, compile_run, first_state

STRETCHES = 3


class Run:
    """A compiled run: a segment's updates, and a validation, each until the host has what it tells."""

    def __init__(self, config: Config, compiled: Compiled):
        self.config, self.compiled = config, compiled
        self.n_updates = config.segments[0]
        self.state = first_state(compiled, config.seed)
        self.finite = True  # gradients, so far

    def update(self) -> None:
        """All updates of a segment."""
        hyper, tape, _ = self.compiled.placed
        self.state, rows = self.compiled.updates.run(self.state, hyper, tape, self.n_updates)
        self.finite &= bool(np.isfinite(jax.device_get(rows["grad_norm"])).all())

    def validate(self) -> None:
        jax.device_get(self.compiled.validate(self.state.params).figures)

    def texts(self) -> tuple[str, str]:
        """Of the two executables."""
        updates = self.compiled.updates.executable(self.n_updates).result().run
        return updates.as_text(), self.compiled.validation.as_text()


def timed(run: Run) -> dict[str, Any]:
    """Seconds of an update and of a validation, and what they come to over the whole run."""
    config = run.config
    seconds = {}
    for name, call in (("updates", run.update), ("validation", run.validate)):
        call()  # the first of an executable takes longer
        seconds[name] = [clocked(call) for _ in range(STRETCHES)]
    update = statistics.median(seconds["updates"]) / run.n_updates
    validation = statistics.median(seconds["validation"])
    memory = jax.devices()[0].memory_stats() or {}
    return {
        "update_ms": 1e3 * update,
        "validation_ms": 1e3 * validation,
        "seconds": seconds,
        "updates_a_stretch": run.n_updates,
        "steps_s": config.batch_steps / update,
        "run_updates": config.budget.n_updates,
        "run_s": config.budget.n_updates * update + (1 + len(config.segments)) * validation,
        "run_steps": config.budget.n_updates * config.batch_steps,
        "peak_mib": memory["peak_bytes_in_use"] / 2**20 if "peak_bytes_in_use" in memory else None,
        "finite": run.finite and bool(jnp.isfinite(run.state.params).all()),
    }


def counted(updates: str, validation: str) -> dict[str, float]:
    """Kernels and bytes of an update and of a validation, from the texts of their executables."""
    program = count_module(parse_module(updates))
    turns = max((loop.trips or 1 for loop in update_loops(program)), default=1)  # counted once where XLA knows none
    kernels, moved = sums(program)
    of_validation = sums(count_module(parse_module(validation)))
    return {
        "update_kernels": kernels / turns,
        "update_gb": moved / turns / 1e9,
        "validation_kernels": of_validation[0],
        "validation_gb": of_validation[1] / 1e9,
    }


def sums(region: Region) -> tuple[float, float]:
    """Kernels and bytes, loops multiplied out."""
    inner = [sums(loop) for loop in region.loops]
    kernels = len(region.kernels) + sum(n for n, _ in inner)
    moved = sum(kernel.bytes for kernel in region.kernels) + sum(of for _, of in inner)
    turns = region.trips or 1
    return turns * kernels, turns * moved


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--set", type=json.loads, default={}, help="fields of the configuration, as JSON")
    made.add_argument("--deterministic", action="store_true")
    made.add_argument("--profile", action="store_true", help="of kernels by named scope")
    args = made.parse_args()
    enable_compilation_cache()
    config = sized("production", args.tiny, args.set)
    data: dict[str, Any] = {"set": args.set, "xla_flags": os.environ.get("XLA_FLAGS", "")}
    # A last, shorter segment is not run: its compilation would go on beside what is timed.
    segments, options = config.segments[:1], xla_options(args.deterministic)
    compiled = compile_run(config, made_up(config, args.tiny), options, segments=segments)
    data |= {"compile_s": compiled.compile_seconds, "program_mib": compiled.memory_bytes / 2**20}
    write(args.out, data)
    run = Run(config, compiled)
    data |= timed(run)
    write(args.out, data)
    texts = run.texts()
    data["counts"] = counted(*texts)
    write(args.out, data)
    if args.profile:
        updates, validation = (profiled(*of) for of in zip((run.update, run.validate), texts, strict=True))
        data["profile"] = {"n_updates": run.n_updates, "updates": updates, "validation": validation}
        write(args.out, data)


if __name__ == "__main__":
    main()
