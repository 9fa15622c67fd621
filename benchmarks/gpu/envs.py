"""Env only / + policy / + update of production's network from 2,048 to 1,048,576 envs."""

from __future__ import annotations

import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax

from benchmarks.gpu.part import clocked, made_up, parser, sized, write
from benchmarks.throughput import STAGES, env_only, with_policy
from jaxppo.config.schema import Config
from jaxppo.device import Executable, compile_program, enable_compilation_cache
from jaxppo.market.tape import Tape
from jaxppo.ppo.program import Program, TapeSpec, make_train
from jaxppo.ppo.state import hyper_from
from jaxppo.ppo.update import update

ENVS = (2_048, 16_384, 131_072, 1_048_576)
TINY_ENVS = (64, 128)
STRETCHES = 3


class Job(NamedTuple):
    """A stage at an env count, compiled."""

    config: Config
    stage: str
    program: Program
    done: Executable


def compiled(config: Config, stage: str, tape: Tape) -> Job:
    """Ahead of time, from shapes."""
    program, hyper = make_train(config, TapeSpec(tape.n_features, 1)), hyper_from(config)
    run = {
        "env": lambda state, tape: env_only(program.spec, tape)(state),
        "policy": lambda state, tape: with_policy(program.spec, tape)(state),
        "update": lambda state, tape: update(state, tape, program.spec, hyper)[0],
    }[stage]
    shapes = jax.eval_shape(program.init, jax.random.key(0), hyper, tape)
    return Job(config, stage, program, compile_program(run, shapes, tape, donate=(0,)))


def timed(job: Job, tape: Tape, seconds: float) -> dict[str, Any]:
    """Median of stretches of repeats without a wait in between; what does not fit the device is said to."""
    row = {"envs": job.config.budget.n_envs, "stage": job.stage, "compile_s": job.done.seconds}
    row["program_mib"] = job.done.memory_bytes / 2**20
    try:
        state = jax.jit(job.program.init)(jax.random.key(0), hyper_from(job.config), tape)

        def run(k: int) -> None:
            nonlocal state
            for _ in range(k):
                state = job.done.run(state, tape)
            jax.block_until_ready(state)

        run(1)
        k = max(3, min(500, int(seconds / clocked(lambda: run(1)))))
        each = statistics.median(clocked(lambda: run(k)) for _ in range(STRETCHES)) / k
    except jax.errors.JaxRuntimeError as error:
        return {**row, "error": str(error).splitlines()[0][:200]}
    return {**row, "ms": 1e3 * each, "steps_s": job.config.batch_steps / each, "repeats": STRETCHES * k}


def main() -> None:
    args = parser(__doc__).parse_args()
    enable_compilation_cache()
    configs = [sized("production", args.tiny, {"n_envs": n}) for n in (TINY_ENVS if args.tiny else ENVS)]
    tape = made_up(configs[0], args.tiny).splits["train"].tape
    rows: list[dict[str, Any]] = []
    wanted = [(config, stage) for config in configs for stage in STAGES]
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2)) as pool:
        jobs = list(pool.map(lambda one: compiled(*one, tape), wanted))
    for job in jobs:
        rows.append(timed(job, tape, 0.02 if args.tiny else 0.7))
        write(args.out, {"rows": rows})


if __name__ == "__main__":
    main()
