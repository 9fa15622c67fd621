"""A population beside one big run: steps/s at equal total envs, compile time and memory over members.

    python benchmarks/population.py                          # 256 members x 64 envs against one run of 16,384 envs
    python benchmarks/population.py --members 32 --rounds 3

Both run in one process, in turn, so that what else the machine does meets both: the ratio is what counts. The network,
lanes, steps and epochs are the same; a member of 64 envs has 4 paths in 4 minibatches. Speed is that of updates: a
segment of one update less a segment of none, which is the validation, told apart. Compile time and memory are those of
the program for 1, 16 and all members at once, without the compilation cache.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxppo.agent.encoders import receptive_field
from jaxppo.config.layers import resolve
from jaxppo.config.schema import Config
from jaxppo.market.dataset import Market, build_market
from jaxppo.market.synthetic import synthetic_market
from jaxppo.members import CompiledMembers, Population, compile_members, member_config
from jaxppo.memory import line_through


def sized(args: argparse.Namespace, n_envs: int) -> Config:
    """quick_test's network and horizon at another env count, as the flags say."""
    fields = {"n_envs": n_envs, "lanes": args.lanes, "minibatches": args.minibatches, "validate_every": 1}
    return resolve(args.preset, fields).config


def configs_of(config: Config, n: int) -> list[Config]:
    """Members with seeds and learning rates of their own."""
    return [member_config(config, {"seed": i, "learning_rate": 1e-4 * (1 + i % 10)}) for i in range(n)]


class Seconds(NamedTuple):
    """What something took."""

    clock: float
    cpu: float  # of all threads of this process, which other work on the machine hardly changes


def seconds_of(run: Callable[[int], Any], n_updates: int) -> Seconds:
    """Of one segment."""
    clock, cpu = time.perf_counter(), time.process_time()
    run(n_updates)
    return Seconds(time.perf_counter() - clock, time.process_time() - cpu)


def measure_speed(args: argparse.Namespace, market: Market, many: CompiledMembers) -> None:
    """Steps/s of the population and of one run with as many envs, interleaved."""
    big = sized(args, args.envs * args.members)
    alone = Population(compile_members(big, market, 1), [big])
    population = Population(many, configs_of(many.config, args.members))
    runs = {f"{args.members} members x {args.envs} envs": population, f"1 run x {big.budget.n_envs:,} envs": alone}
    updates: dict[str, list[Seconds]] = {name: [] for name in runs}
    validations: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(args.rounds + 1):
        for name, run in runs.items():
            validation, both = seconds_of(run.segment, 0), seconds_of(run.segment, 1)
            if round_:  # the first warms up
                validations[name].append(validation.cpu)
                updates[name].append(Seconds(*(max(b - v, 1e-9) for b, v in zip(both, validation, strict=True))))
    print("\n| what | steps/s of updates | steps a CPU second | CPU s a validation of all |\n|---|---|---|---|")
    for name, found in updates.items():
        clock, cpu = (big.batch_steps / statistics.median(x) for x in zip(*found, strict=True))
        print(f"| {name} | {clock:,.0f} | {cpu:,.0f} | {statistics.median(validations[name]):.2f} |")
    many_, one = updates.values()
    print()
    for i, what in enumerate(("steps/s", "steps a CPU second")):
        ratios = sorted(b[i] / a[i] for a, b in zip(many_, one, strict=True))
        print(
            f"the population makes {statistics.median(ratios):.2f} times the {what} of the one run (median of"
            f" {args.rounds} interleaved rounds, {ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


def measure_programs(args: argparse.Namespace, market: Market) -> CompiledMembers:
    """Compile time and memory over members; the program of all of them."""
    config = sized(args, args.envs)
    compile_members(config, market, 2)  # what only the first compilation of a process pays
    counts = sorted({1, min(16, args.members), args.members})
    compiled, cpu = {}, {}
    for n in counts:
        began = time.process_time()
        compiled[n] = compile_members(config, market, n, at_once=n)
        cpu[n] = time.process_time() - began
    sizes = {n: c.passes.executable.memory_bytes for n, c in compiled.items()}
    print("\n| members | compile s | CPU s | program MiB |\n|---|---|---|---|")
    for n, c in compiled.items():
        print(f"| {n} | {c.passes.executable.seconds:.1f} | {cpu[n]:.1f} | {sizes[n] / 2**20:.1f} |")
    if len(counts) > 1:
        line = line_through((counts[0], sizes[counts[0]]), (counts[-1], sizes[counts[-1]]))
        worst = max(abs(line.at(n) / sizes[n] - 1.0) for n in counts)
        print(
            f"\nmemory: {line.base / 2**20:.1f} MiB + {line.slope / 2**20:.3f} MiB a member, within {worst:.2%} of each"
        )
    return compiled[args.members]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="quick_test")
    parser.add_argument("--members", type=int, default=256)
    parser.add_argument("--envs", type=int, default=64, help="of each member")
    parser.add_argument("--lanes", type=int, default=16)
    parser.add_argument("--minibatches", type=int, default=4)
    parser.add_argument("--bars", type=int, default=3_000, help="bars of each of 8 symbols")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    device = jax.devices()[0]
    print(f"{jax.device_count()} x {device.device_kind} ({platform.machine()}), jax {jax.__version__}")
    config = sized(args, args.envs)
    market = build_market(synthetic_market(27, 8, args.bars), config, receptive_field(config.agent))
    many = measure_programs(args, market)
    measure_speed(args, market, many)


if __name__ == "__main__":
    main()
