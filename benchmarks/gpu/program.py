"""The program of a run, compiled once and run for some segments: speed, memory, what it moves, and a profile."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu.part import clocked, made_up, parser, sized, write
from benchmarks.gpu.trace import profiled
from jaxppo.agent.policy import Params
from jaxppo.config.schema import Config
from jaxppo.device import compile_program, enable_compilation_cache, xla_options
from jaxppo.market.dataset import EvaluationSet
from jaxppo.market.tape import Tape
from jaxppo.plan.counts import Region, count_module
from jaxppo.plan.hlo import parse_module
from jaxppo.play.passes import n_decisions
from jaxppo.play.score import Score, validate
from jaxppo.ppo.program import run_updates
from jaxppo.ppo.state import Hyper, TrainState
from jaxppo.train.compiled import Compiled, compile_run, first_state

STRETCH_SECONDS = 8.0  # a shorter one is timed three times
PROFILED = 2  # updates


class Run:
    """A compiled run that is advanced by segments: its updates and a validation."""

    def __init__(self, config: Config, compiled: Compiled):
        self.config, self.compiled = config, compiled
        self.state = first_state(compiled, config.seed)
        self.finite = True  # gradients, so far

    def advance(self, n_updates: int) -> None:
        """Until the host has the metrics of the updates and the figures of the validation."""
        self.state, out = self.compiled.advance(self.state, n_updates)
        rows, _ = jax.device_get((out.updates, out.score.figures))
        if n_updates:
            self.finite &= bool(np.isfinite(rows["grad_norm"]).all())


def timed(run: Run) -> dict[str, Any]:
    """Seconds of an update and of a validation, and what they come to over the whole run."""
    config, n = run.config, run.config.segments[0]
    run.advance(0)
    validation = statistics.median(clocked(lambda: run.advance(0)) for _ in range(3))
    run.advance(n)
    stretches = [clocked(lambda: run.advance(n))]
    if stretches[0] < STRETCH_SECONDS:
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
        "finite": run.finite and bool(jnp.isfinite(run.state.params).all()),
    }


class Part(NamedTuple):
    """Updates, or a validation, compiled by itself, so that what is counted and profiled is that alone."""

    call: Callable[[], Any]
    text: str  # of the executable


def parts(run: Run) -> dict[str, Part]:
    """`PROFILED` updates, and a validation."""
    compiled, spec = run.compiled, run.compiled.program.spec
    n_bars, given = n_decisions(compiled.data.tape), (compiled.hyper, compiled.tape)

    def updates(state: TrainState, hyper: Hyper, tape: Tape) -> tuple[TrainState, Any]:
        return run_updates(spec, state, hyper, tape, PROFILED)

    def validation(params: Params, data: EvaluationSet) -> Score:
        return validate(spec.agent, spec.env, params, data, n_bars, spec.receptive_field)

    learn = compile_program(updates, run.state, *given, donate=(0,), options=compiled.options).run
    check = compile_program(validation, run.state.params, compiled.data, options=compiled.options).run

    def learned() -> None:
        run.state, _ = jax.block_until_ready(learn(run.state, *given))

    def checked() -> None:
        jax.block_until_ready(check(run.state.params, compiled.data))

    found = {"updates": Part(learned, learn.as_text()), "validation": Part(checked, check.as_text())}
    for part in found.values():
        part.call()  # the first of an executable takes longer
    return found


def counted(found: Mapping[str, Part]) -> dict[str, float]:
    """Kernels and bytes of an update and of a validation, from the text of what was compiled."""
    kernels, moved = sums(count_module(parse_module(found["updates"].text)))
    of_validation = sums(count_module(parse_module(found["validation"].text)))
    return {
        "update_kernels": kernels / PROFILED,
        "update_gb": moved / PROFILED / 1e9,
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
    made.add_argument("--profile", action="store_true", help="count kernels and bytes, and profile")
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
    if args.profile:
        found = parts(run)
        data["counts"] = counted(found)
        write(args.out, data)
        data["profile"] = {
            "updates_profiled": PROFILED,
            **{name: profiled(of.call, of.text) for name, of in found.items()},
        }
        write(args.out, data)


if __name__ == "__main__":
    main()
