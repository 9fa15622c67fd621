"""The program of a run, compiled once and run for some updates: speed, memory, what it moves, and a profile."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu.part import clocked, made_up, parser, sized, write
from benchmarks.gpu.trace import profiled
from jaxppo.config.schema import Config
from jaxppo.device import enable_compilation_cache, xla_options
from jaxppo.plan.counts import count_module
from jaxppo.plan.hlo import parse_module
from jaxppo.plan.result import count_work, plain_work
from jaxppo.train.compiled import Compiled, compile_run, first_state

UPDATES = 40
PROFILED = 2  # updates


class Run:
    """A compiled run that is advanced by updates, a validation after them."""

    def __init__(self, config: Config, compiled: Compiled):
        self.config, self.compiled = config, compiled
        self._state = first_state(compiled, config.seed)

    def advance(self, n_updates: int) -> dict[str, Any]:
        """Metrics of the updates, (validate_every,) each, once the host has them and the validation's figures."""
        self._state, out = self.compiled.advance(self._state, n_updates)
        rows, _ = jax.device_get((out.updates, out.score.figures))
        return rows

    def is_finite(self) -> bool:
        """Whether the last gradient and all parameters are."""
        norm = self.advance(1)["grad_norm"][0]
        return bool(np.isfinite(norm) and jnp.isfinite(self._state.params).all())


def timed(run: Run, n: int) -> dict[str, Any]:
    """Seconds of an update and of a validation, and what they come to over the whole run."""
    config = run.config
    run.advance(0)
    validation = statistics.median(clocked(lambda: run.advance(0)) for _ in range(3))
    run.advance(2)
    stretches = [clocked(lambda: run.advance(n))]
    if stretches[0] < 8:
        stretches += [clocked(lambda: run.advance(n)) for _ in range(2)]
    update = max((statistics.median(stretches) - validation) / n, 1e-9)
    memory = jax.devices()[0].memory_stats() or {}
    return {
        "update_ms": 1e3 * update,
        "validation_ms": 1e3 * validation,
        "stretches_s": stretches,
        "updates_a_stretch": n,
        "steps_s": config.batch_steps / update,
        "run_updates": config.budget.n_updates,
        "run_s": config.budget.n_updates * update + (1 + len(config.segments)) * validation,
        "run_steps": config.budget.n_updates * config.batch_steps,
        "peak_mib": memory["peak_bytes_in_use"] / 2**20 if "peak_bytes_in_use" in memory else None,
        "finite": run.is_finite(),
    }


def counted(compiled: Compiled, n_steps: int) -> dict[str, float]:
    """Kernels and bytes of an update and of a validation, from the text of the executable."""
    counts = count_work(count_module(parse_module(compiled.segment.as_text())), n_steps, plain_work)
    return {
        "update_kernels": counts.update.launches,
        "validation_kernels": counts.validation.launches,
        "update_gb": counts.update.bytes / 1e9,
        "validation_gb": counts.validation.bytes / 1e9,
        "update_matmul_tflop": counts.update.flops / 1e12,
    }


def profile(run: Run) -> dict[str, Any]:
    """Kernels of some updates and of a validation, by named scope; apart, since a validation has no scope."""
    text = run.compiled.segment.as_text()
    of: dict[str, Callable[[], Any]] = {
        "updates": lambda: run.advance(PROFILED),  # with one validation
        "validation": lambda: run.advance(0),
    }
    return {"profiled_updates": PROFILED, **{name: profiled(call, text) for name, call in of.items()}}


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--set", type=json.loads, default={}, help="fields of the configuration, as JSON")
    made.add_argument("--deterministic", action="store_true")
    made.add_argument("--profile", action="store_true")
    args = made.parse_args()
    enable_compilation_cache()
    config = sized("production", args.tiny, args.set)
    data: dict[str, Any] = {"set": args.set, "xla_flags": os.environ.get("XLA_FLAGS", "")}
    compiled = compile_run(config, made_up(config, args.tiny), xla_options(args.deterministic))
    data |= {"compile_s": compiled.compile_seconds, "program_mib": compiled.memory_bytes / 2**20}
    write(args.out, data)
    run = Run(config, compiled)
    data |= timed(run, 2 if args.tiny else UPDATES)
    write(args.out, data)
    data["counts"] = counted(compiled, config.budget.n_steps)
    write(args.out, data)
    if args.profile:
        data["profile"] = profile(run)
        write(args.out, data)


if __name__ == "__main__":
    main()
