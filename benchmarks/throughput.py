"""How fast, how small: env only / + policy / + update, at several env counts. Nothing here is a test.

    python benchmarks/throughput.py                 # the table
    python benchmarks/throughput.py --preset quick_test --stages update --envs 2048

Every row runs in a process of its own, so that its peak memory is its own. `env only` steps the accounts with random
actions, `+ policy` adds the encoder and the actor-critic (a rollout), `+ update` is the whole PPO update. Steps/s are
medians over repetitions after compilation; compilation is timed apart.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxppo.agent.encoders import receptive_field
from jaxppo.config.layers import resolve
from jaxppo.config.schema import Config
from jaxppo.device import detect_device
from jaxppo.market.dataset import build_market
from jaxppo.market.synthetic import synthetic_market
from jaxppo.market.tape import Tape, take_steps
from jaxppo.ppo.program import TapeSpec, make_train
from jaxppo.ppo.rollout import RolloutStart, advance_paths, collect, path_terms
from jaxppo.ppo.state import TrainSpec, TrainState, hyper_from
from jaxppo.ppo.update import update

STAGES = ("env", "policy", "update")
NAMES = {"env": "env only", "policy": "+ policy", "update": "+ update"}


def sized(preset: str, n_envs: int) -> Config:
    """`preset` at another env count."""
    return resolve(preset, {"n_envs": n_envs}).config


def env_only(spec: TrainSpec, tape: Tape) -> Callable[[TrainState], TrainState]:
    """A rollout's account steps, with random actions in place of a policy."""
    n_steps, n_actions = spec.config.budget.n_steps, len(spec.env.action_labels)

    def run(state: TrainState) -> TrainState:
        paths = state.paths
        terms, shape = path_terms(tape, paths), (paths.t.shape[0], spec.config.budget.lanes)
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.update)

        def step(lanes, i):
            market = jax.tree.map(lambda x: jnp.expand_dims(x, -1), take_steps(tape, paths.symbol, paths.t + i))
            action = jax.random.randint(jax.random.fold_in(key, i), shape, 0, n_actions)
            lanes, result = spec.env.step(lanes, action, market, terms, jnp.zeros(()))
            return lanes, result.reward.mean()

        lanes, _ = jax.lax.scan(step, state.lanes, jnp.arange(n_steps, dtype=jnp.int32))
        return _move(spec, tape, state._replace(lanes=lanes))

    return run


def with_policy(spec: TrainSpec, tape: Tape) -> Callable[[TrainState], TrainState]:
    """A whole rollout."""

    def run(state: TrainState) -> TrainState:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.update)
        start = RolloutStart(state.paths, state.lanes, key)
        lanes, rollout, _ = collect(spec, state.params, tape, start, jnp.float32(spec.config.ppo.gamma))
        # The key depends on the rollout, so that none of it can be left out.
        used = jax.tree.reduce(lambda a, x: a + jnp.sum(x).astype(jnp.float32), rollout, jnp.float32(0))
        opaque = (used * 0).astype(jnp.uint32)
        return _move(spec, tape, state._replace(lanes=lanes, key=state.key + opaque))

    return run


def _move(spec: TrainSpec, tape: Tape, state: TrainState) -> TrainState:
    budget = spec.config.budget
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.update)
    paths, _ = advance_paths(tape, state.paths, key, budget.n_steps, spec.config.env.episode_steps)
    return state._replace(paths=paths, update=state.update + 1)


def measure(preset: str, stage: str, n_envs: int, repetitions: int, n_bars: int) -> dict[str, float]:
    """One row, in this process."""
    config = sized(preset, n_envs)
    market = build_market(synthetic_market(27, 8, n_bars), config, receptive_field(config.agent))
    tape = market.splits["train"].tape
    program = make_train(config, TapeSpec(tape.n_features, 1))
    hyper = hyper_from(config)
    state = jax.jit(program.init)(jax.random.key(0), hyper, tape)
    stages = {
        "env": lambda s, t: env_only(program.spec, t)(s),
        "policy": lambda s, t: with_policy(program.spec, t)(s),
        "update": lambda s, t: update(s, t, program.spec, hyper)[0],
    }
    began = time.perf_counter()
    run = jax.jit(stages[stage], donate_argnums=0).lower(state, tape).compile()
    compile_seconds = time.perf_counter() - began
    memory = run.memory_analysis()
    state = jax.block_until_ready(run(state, tape))
    seconds = []
    for _ in range(repetitions):
        began = time.perf_counter()
        state = jax.block_until_ready(run(state, tape))
        seconds.append(time.perf_counter() - began)
    return {
        "steps_per_second": config.batch_steps / statistics.median(seconds),
        "compile_seconds": compile_seconds,
        "program_mib": (memory.temp_size_in_bytes + memory.output_size_in_bytes) / 2**20,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "n_steps": config.budget.n_steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="quick_test", help="network, minibatches and lanes")
    parser.add_argument("--envs", type=int, nargs="+", default=[2_048, 16_384, 131_072])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--bars", type=int, default=24_000, help="bars of each of 8 symbols")
    parser.add_argument("--row", action="store_true", help="measure one row in this process and print it as JSON")
    args = parser.parse_args()
    if args.row:
        print(json.dumps(measure(args.preset, args.stages[0], args.envs[0], args.repetitions, args.bars)))
        return
    device = detect_device()
    print(f"{device.count} x {device.kind} ({platform.processor() or platform.machine()}), jax {jax.__version__}")
    print(f"preset {args.preset} at several env counts; steps/s is per env step, so the total of a run does not matter")
    print("   envs x steps   stage          steps/s   compile s   program MiB   peak RSS MiB   ratio to first")
    first: dict[str, float] = {}
    for n_envs in args.envs:
        for stage in args.stages:
            command = [sys.executable, __file__, "--row", "--preset", args.preset, "--envs", str(n_envs)]
            command += ["--stages", stage, "--repetitions", str(args.repetitions), "--bars", str(args.bars)]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            speed = row["steps_per_second"]
            ratio = speed / first.setdefault(stage, speed)
            print(
                f"{n_envs:7,} x {row['n_steps']:3d}   {NAMES[stage]:10} {speed:12,.0f} {row['compile_seconds']:11.1f}"
                f" {row['program_mib']:13.0f} {row['peak_rss_mib']:14.0f} {ratio:16.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
