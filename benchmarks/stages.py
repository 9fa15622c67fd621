"""Where one PPO update's time goes, and what share of this machine's own matmul peak it reaches.

    python benchmarks/stages.py                              # production's shape on 640,000 bars
    python benchmarks/stages.py --set trunk_layers=1 n_envs=16384

The kernels of a whole update are timed where they run, by JAX's profiler, and summed by the named scopes of the
program. Kernels run side by side where they can, so the sums are a little more than the clock. Matmul FLOPs are counted
in the traced program, loops multiplied out. The peak is the best of three square float32 products, in the same process.
"""

from __future__ import annotations

import argparse
import math
import platform
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import yaml

from jaxppo.agent.encoders import receptive_field
from jaxppo.config.layers import resolve
from jaxppo.market.dataset import build_market
from jaxppo.market.synthetic import synthetic_market
from jaxppo.ppo.program import TapeSpec, make_train
from jaxppo.ppo.state import hyper_from
from jaxppo.ppo.update import update

PEAK_SIZES = (1024, 2048, 4096)
STAGES = {
    "rollout": ("look_up", "encode", "decide", "account"),
    "advantages": (),
    "learn": ("look_up", "encode", "decide", "loss", "optimizer"),
}
"""Named scopes of an update and of the parts of each, innermost last."""
BACKWARD = "transpose("


def stage_of(scopes: str) -> str:
    """The row that an operation of these scopes belongs to, such as `learn / encode, backward`."""
    outer = next((s for s in STAGES if re.search(rf"\b{s}\b", scopes)), None)
    if outer is None:
        return "rest"
    # A part's scope is the innermost of those it lies in: the loss encodes, and decides.
    found = {part: [m.start() for m in re.finditer(rf"\b{part}\b", scopes)] for part in STAGES[outer]}
    parts = {part: at[-1] for part, at in found.items() if at}
    if not parts:
        return f"{outer} / rest" if STAGES[outer] else outer
    return f"{outer} / {max(parts, key=parts.__getitem__)}" + (", backward" if BACKWARD in scopes else "")


def matmul_flops(function: Callable[..., Any], *arguments: Any) -> Counter[str]:
    """Multiply-adds, counted twice, of every matmul that `function` traces to, by stage; scans are multiplied out."""
    total: Counter[str] = Counter()
    _add_flops(jax.make_jaxpr(function)(*arguments).jaxpr, "", 1, total)
    return total


def _add_flops(jaxpr: Any, outside: str, times: int, total: Counter[str]) -> None:
    for eqn in jaxpr.eqns:
        scopes = f"{outside}/{eqn.source_info.name_stack}"
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            depth = math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
            total[stage_of(scopes)] += times * 2 * depth * math.prod(eqn.outvars[0].aval.shape)
        each = times * (eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1)
        for inner in _inner(eqn):
            _add_flops(inner, scopes, each, total)


def _inner(eqn: Any) -> list[Any]:
    found = []
    for value in eqn.params.values():
        for x in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(x, jax.extend.core.ClosedJaxpr):
                found.append(x.jaxpr)
            elif isinstance(x, jax.extend.core.Jaxpr):
                found.append(x)
    return found


def kernel_seconds(run: Callable[[], Any], hlo: str) -> Counter[str]:
    """Seconds that the kernels of one `run` took, by stage; `hlo` is the text of its executable."""
    scopes = dict(re.findall(r'%?([\w.\-]+) = [^\n]*?metadata=\{[^}]*?op_name="([^"]*)"', hlo))
    calls = set(re.findall(r"%?([\w.\-]+) = [^\n]*? (?:while|call|conditional)\(", hlo))
    names = set(re.findall(r"%?([\w.\-]+) = ", hlo)) - calls
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(run())
        (file,) = Path(folder).rglob("*.xplane.pb")
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for line in plane.lines:
                for event in line.events:
                    if event.name in names:
                        total[stage_of(scopes.get(event.name, ""))] += event.duration_ns / 1e9
    return total


def matmul_peak(rounds: int) -> float:
    """FLOP/s of the fastest of the square products, by the median of its rounds."""
    rates = []
    for n in PEAK_SIZES:
        square = jnp.ones((n, n))
        product = jax.jit(jnp.matmul).lower(square, square).compile()
        rates.append(2.0 * n**3 / median_seconds(lambda: product(square, square), rounds))  # noqa: B023
    return max(rates)


def median_seconds(run: Callable[[], Any], rounds: int) -> float:
    """Of one call, over `rounds` of them after one that warms up."""
    jax.block_until_ready(run())
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


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

    def one(state: Any, tape: Any) -> Any:
        return update(state, tape, program.spec, hyper)

    flops = matmul_flops(one, state, tape)
    executable = jax.jit(one).lower(state, tape).compile()
    seconds = median_seconds(lambda: executable(state, tape), args.rounds)
    peak = matmul_peak(args.rounds)
    kernels = kernel_seconds(lambda: executable(state, tape), executable.as_text())
    share = flops.total() / seconds / peak
    print(
        f"{jax.device_count()} x {jax.devices()[0].device_kind} ({platform.machine()}), jax {jax.__version__};"
        f" {config.budget.n_envs:,} envs x {config.budget.n_steps} steps on {config.n_paths:,} paths\n"
        f"{config.batch_steps / seconds:,.0f} steps/s; {flops.total() / 1e9:,.0f} GFLOP of matmuls in {seconds:.2f} s:"
        f" {share:.0%} of the peak of {peak / 1e9:,.0f} GFLOP/s"
    )
    print("\n| stage | kernels, ms | of all | matmul GFLOP | of the matmul peak |\n|---|---|---|---|---|")
    order = {name: i for i, name in enumerate((*STAGES, "rest"))}
    for stage in sorted(kernels | flops, key=lambda s: (order[s.split(" /")[0]], -kernels[s])):
        reached = f"{flops[stage] / kernels[stage] / peak:.0%}" if flops[stage] and kernels[stage] else ""
        count = f"{flops[stage] / 1e9:,.1f}" if flops[stage] else ""
        print(
            f"| {stage} | {1e3 * kernels[stage]:,.0f} | {kernels[stage] / kernels.total():.0%} | {count} | {reached} |"
        )


if __name__ == "__main__":
    main()
