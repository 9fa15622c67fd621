"""Does one device scale? Cost a step, memory and compile time of an update from 2,048 to 1,048,576 envs.

    python benchmarks/scale.py

Updates of all sizes take turns in one process, so that a busy moment falls on all of them. Compile time is shown for
other numbers of steps and updates as well. Memory is what XLA says of the executable: temporaries, arguments, outputs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxppo.agent.encoders import receptive_field
from jaxppo.config.layers import resolve
from jaxppo.config.schema import Config
from jaxppo.market.dataset import Market, build_market
from jaxppo.market.synthetic import synthetic_market
from jaxppo.train.compiled import compile_run, first_state

ENVS = (2_048, 16_384, 131_072, 1_048_576)
# Minibatches of at least 4,096 samples: fewer would measure the dispatch of kernels.
SIZES = {"n_steps": 8, "lanes": 32, "minibatches": 4}
BATCH_SHARE = 8  # a turn of a small size repeats updates until it has done this share of the largest size's steps


class Size(NamedTuple):
    """A compiled update of one size."""

    config: Config
    run: Callable[[int], Any]  # that many updates, without validation
    compile_seconds: float
    memory: int  # bytes


def build(config: Config, market: Market) -> Size:
    """Compile the run's own programs and give it a state."""
    compiled = compile_run(config, market)
    state = first_state(compiled, 0)

    def run(n: int) -> None:
        nonlocal state
        state, _ = jax.block_until_ready(compiled.advance(state, n))

    return Size(config, run, compiled.compile_seconds, compiled.memory_bytes)


def measure(sizes: list[Size], rounds: int) -> list[tuple[float, float]]:
    """Median wall and processor seconds of a million env steps of each size, in turns."""
    most = max(s.config.batch_steps for s in sizes)
    turns: list[list[tuple[float, float]]] = [[] for _ in sizes]
    for i in range(rounds + 1):  # the first warms up
        for size, of in zip(sizes, turns, strict=True):
            repeats = max(1, most // BATCH_SHARE // size.config.batch_steps)
            empty = _clock(lambda: size.run(0))  # noqa: B023  # the validation at a segment's end
            full = _clock(lambda: size.run(repeats))  # noqa: B023
            million = repeats * size.config.batch_steps / 1e6
            if i:
                of.append(((full[0] - empty[0]) / million, (full[1] - empty[1]) / million))
    return [(statistics.median(w for w, _ in of), statistics.median(c for _, c in of)) for of in turns]


def _clock(run: Callable[[], Any]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", type=int, nargs="+", default=list(ENVS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bars", type=int, default=24_000, help="bars of each of 8 symbols")
    args = parser.parse_args()
    base = resolve("quick_test", {**SIZES, "n_envs": ENVS[0]}).config
    market = build_market(synthetic_market(27, 8, args.bars), base, receptive_field(base.agent))

    def sized(**changes: Any) -> Size:
        return build(resolve("quick_test", {**SIZES, **changes}).config, market)

    sizes = [sized(n_envs=n) for n in args.envs]
    print("| envs x steps | steps/s | CPU s a million steps | program MiB | compile s |\n|---|---|---|---|---|")
    for size, (wall, processor) in zip(sizes, measure(sizes, args.rounds), strict=True):
        print(
            f"| {size.config.budget.n_envs:,} x {size.config.budget.n_steps} | {1e6 / wall:,.0f} | {processor:.2f}"
            f" | {size.memory / 2**20:,.0f} | {size.compile_seconds:.1f} |"
        )
    envs = np.array([s.config.budget.n_envs for s in sizes], float)
    memory = np.array([s.memory for s in sizes], float)
    slope, base_bytes = np.polyfit(envs, memory, 1)
    off = np.abs(memory - (slope * envs + base_bytes)).max()
    line = f"{base_bytes / 2**20:.0f} MiB and {slope:,.0f} bytes an env"
    print(f"\nmemory: {line}; at most {off / 2**20:.1f} MiB off that line")
    for changes in ({"n_steps": 64}, {"n_updates": 40_000, "validate_every": 5}):
        size = sized(n_envs=16_384, **changes)
        print(f"compiled with {changes}: {size.compile_seconds:.1f} s")


if __name__ == "__main__":
    main()
