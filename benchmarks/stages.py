"""Where one PPO update's time goes, and what share of this machine's own matmul peak it reaches.

    python benchmarks/stages.py                              # production's shape on 640,000 bars
    python benchmarks/stages.py --preset quick_test --bars 24000

Every stage is compiled apart on what the stage before it left, and all of them take turns in one process, so that a
busy moment of the machine falls on all. Matmul FLOPs are counted in the traced program, loops multiplied out; the peak
is the best of several square float32 products, timed in the same turns.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.extend.core
import jax.numpy as jnp
import optax
import yaml

from jaxppo.agent.encoders import receptive_field
from jaxppo.agent.policy import Params
from jaxppo.config.presets import resolve
from jaxppo.market.dataset import build_market
from jaxppo.market.synthetic import synthetic_market
from jaxppo.market.tape import Tape
from jaxppo.ppo.loss import Batch, Hyper, Samples, ppo_loss
from jaxppo.ppo.program import TapeSpec, make_train
from jaxppo.ppo.rollout import collect, path_windows
from jaxppo.ppo.update import (
    Learner,
    TrainSpec,
    TrainState,
    gradient_step,
    hyper_from,
    learn,
    make_optimizer,
    minibatch,
    rollout_advantages,
    update,
)

PEAK_SIZES = (1024, 2048, 4096)


def matmul_flops(function: Callable[..., Any], *arguments: Any) -> float:
    """Multiply-adds, counted twice, of every `dot_general` that `function` traces to; scans are multiplied out."""
    return _flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def _flops(jaxpr: Any) -> float:
    total = 0.0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            depth = math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
            total += 2.0 * depth * math.prod(eqn.outvars[0].aval.shape)
        times = eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(inner, jax.extend.core.ClosedJaxpr):
                    total += times * _flops(inner.jaxpr)
                elif isinstance(inner, jax.extend.core.Jaxpr):
                    total += times * _flops(inner)
    return total


class Stage(NamedTuple):
    """A compiled part of the update, on arrays of an update's own."""

    run: Callable[[], Any]
    times: int  # how often an update runs it
    flops: float  # of one call


def compiled(function: Callable[..., Any], *arguments: Any, times: int = 1) -> Stage:
    executable = jax.jit(function).lower(*arguments).compile()
    return Stage(lambda: executable(*arguments), times, matmul_flops(function, *arguments))


def stages_of(spec: TrainSpec, tape: Tape, state: TrainState, hyper: Hyper) -> dict[str, Stage]:
    """The update and its parts; indented names are parts of the one above."""
    config, agent = spec.config, spec.agent
    n_steps, field = config.budget.n_steps, spec.receptive_field
    key = jax.random.key(1)

    def rollout(state: TrainState, tape: Tape) -> Any:
        return collect(agent, spec.env, state.params, tape, state.paths, state.accounts, key, n_steps, field)

    def encode(state: TrainState, tape: Tape) -> Any:
        return agent.encode(state.params, path_windows(tape, state.paths, field, n_steps + 1)[0])

    _, played, _ = jax.jit(rollout)(state, tape)
    advantage, target = jax.jit(lambda r: rollout_advantages(r, hyper))(played)
    steps = played.steps
    samples = Samples(steps.account, steps.action, steps.log_prob, steps.value, advantage, target)
    index = jax.random.permutation(key, config.n_paths)[: config.n_paths // config.ppo.minibatches]
    batch = jax.jit(lambda t, p, s, i: minibatch(t, p, s, i, spec))(tape, state.paths, samples, index)
    coefficient = jnp.float32(0.01)

    def loss(params: Params, batch: Batch) -> Any:
        return ppo_loss(agent, spec.env.actions, params, batch, hyper, coefficient, config.ppo.normalize_advantages)

    def optimize(grads: Params, state: TrainState) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            updates, after = make_optimizer(config, hyper).update(grads, state.opt_state, state.params)
        return optax.apply_updates(state.params, updates), after

    learner = Learner(state.params, state.opt_state, jnp.zeros((), bool), jnp.zeros((), jnp.int32))
    some = config.gradient_steps

    return {
        "update": compiled(lambda s, t: update(s, t, spec, hyper), state, tape),
        "  rollout": compiled(rollout, state, tape),
        "    encode": compiled(encode, state, tape),
        "  advantages": compiled(lambda r: rollout_advantages(r, hyper), played),
        "  learn": compiled(lambda s, x, t: learn(s, x, t, key, spec, hyper), state, samples, tape),
        "    look up minibatches": compiled(
            lambda t, p, s, i: minibatch(t, p, s, i, spec), tape, state.paths, samples, index, times=some
        ),
        "    gradient steps": compiled(
            lambda le, b: gradient_step(le, b, spec, hyper, coefficient), learner, batch, times=some
        ),
        "      encode": compiled(agent.encode, state.params, batch.features, times=some),
        "      encode and its gradient": compiled(
            jax.grad(lambda p, f: jnp.square(agent.encode(p, f)).sum()), state.params, batch.features, times=some
        ),
        "      loss": compiled(loss, state.params, batch, times=some),
        "      loss and gradient": compiled(jax.grad(loss, has_aux=True), state.params, batch, times=some),
        "      optimizer": compiled(optimize, state.params, state, times=some),
    }


def timed(run: Callable[[], Any], least: float = 0.2) -> float:
    """Seconds of one call, over calls that take `least` seconds together."""
    calls, began = 0, time.perf_counter()
    while True:
        jax.block_until_ready(run())
        calls += 1
        seconds = time.perf_counter() - began
        if seconds >= least:
            return seconds / calls


def measure(stages: dict[str, Stage], rounds: int) -> tuple[dict[str, float], float]:
    """Median seconds of each stage, and the matmul peak in FLOP/s."""
    for n in PEAK_SIZES:
        square = jnp.ones((n, n))
        stages = {**stages, f"peak {n}": compiled(jnp.matmul, square, square)}
    turns: dict[str, list[float]] = {name: [] for name in stages}
    for name, stage in stages.items():
        jax.block_until_ready(stage.run())
    for _ in range(rounds):
        for name, stage in stages.items():
            turns[name].append(timed(stage.run))
    seconds = {name: statistics.median(t) for name, t in turns.items()}
    peak = max(2.0 * n**3 / seconds[f"peak {n}"] for n in PEAK_SIZES)
    return {name: s for name, s in seconds.items() if not name.startswith("peak")}, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="production")
    parser.add_argument("--bars", type=int, default=80_000, help="bars of each of 8 symbols")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="configuration fields to change")
    args = parser.parse_args()
    changes = {k: yaml.safe_load(v) for k, v in (pair.split("=", 1) for pair in args.set)}
    config = resolve(args.preset, changes).config
    market = build_market(synthetic_market(27, 8, args.bars), config, receptive_field(config.agent))
    tape = market.splits["train"].tape
    program = make_train(config, TapeSpec(tape.n_features, 1))
    hyper = hyper_from(config)
    state = jax.jit(program.init)(jax.random.key(0), hyper, tape)
    stages = stages_of(program.spec, tape, state, hyper)
    seconds, peak = measure(stages, args.rounds)
    whole = seconds["update"]
    n = config.batch_steps
    print(
        f"{jax.device_count()} x {platform.machine()}, jax {jax.__version__}; {config.budget.n_envs:,} envs x "
        f"{config.budget.n_steps} steps, {n / whole:,.0f} steps/s; matmul peak {peak / 1e9:,.0f} GFLOP/s"
    )
    print("| stage | ms an update | of the update | matmul GFLOP | of the matmul peak |")
    print("|---|---|---|---|---|")
    for name, stage in stages.items():
        each, flops = seconds[name] * stage.times, stage.flops * stage.times
        indent = "&nbsp;" * (len(name) - len(name.lstrip()))
        print(
            f"| {indent}{name.strip()} | {1e3 * each:,.1f} | {each / whole:.0%} | {flops / 1e9:,.2f} | {flops / each / peak:.0%} |"
        )


if __name__ == "__main__":
    main()
