"""How long a backtest takes once it is compiled: policy, cost sweep and random draws. Nothing here is a test.

    python benchmarks/backtest.py --symbols 100 --bars 20000

The network is untrained, the features are noise; neither changes the work. The best of several repetitions is printed.
"""

from __future__ import annotations

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.agent.encoders import receptive_field
from jaxppo.agent.policy import init_params
from jaxppo.backtest.played import Settings, backtest
from jaxppo.config.schema import Config
from jaxppo.market.dataset import Calendar, Days, EvaluationSet
from jaxppo.market.tape import zero_tape
from jaxppo.ppo.program import train_spec


def noise(n_symbols: int, n_bars: int, n_features: int, first: int) -> EvaluationSet:
    """Random walks on one calendar."""
    rng = np.random.default_rng(0)
    close = np.exp(np.cumsum(rng.normal(0, 0.003, (n_symbols, n_bars)), axis=1)).astype(np.float32)
    open_ = np.concatenate([np.ones((n_symbols, 1), np.float32), close[:, :-1]], axis=1)
    tape = zero_tape(n_symbols, n_bars, n_features)._replace(
        features=jnp.asarray(rng.standard_normal((n_symbols, n_bars, n_features), np.float32)),
        open=jnp.asarray(open_),
        high=jnp.asarray(np.maximum(open_, close) * np.float32(1.001)),
        low=jnp.asarray(np.minimum(open_, close) * np.float32(0.999)),
        close=jnp.asarray(close),
        first=jnp.full(n_symbols, first, jnp.int32),
        length=jnp.full(n_symbols, n_bars, jnp.int32),
        allow_short=jnp.ones(n_symbols, bool),
        bars_per_year=jnp.full(n_symbols, 8766.0),
    )
    index = np.tile(np.arange(1, n_bars - first, dtype=np.int32), (n_symbols, 1))
    behind, valid = jnp.asarray(index), jnp.ones(index.shape[1], bool)
    days = Days(behind[:, 23::24], valid[23::24], jnp.float32(365.25))
    return EvaluationSet(tape, Calendar(behind, valid, jnp.float32(8766), days))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--symbols", type=int, default=100)
    parser.add_argument("--bars", type=int, default=20_000)
    parser.add_argument("--features", type=int, default=53)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--repetitions", type=int, default=3)
    args = parser.parse_args()
    config = Config()
    spec, field = train_spec(config, args.features), receptive_field(config.agent)
    params = jax.jit(lambda: init_params(spec.agent.spec, jax.random.key(0)))()
    data = noise(args.symbols, args.bars, args.features, field - 1)
    settings = Settings(args.bars - field, field, args.draws)
    run = jax.jit(functools.partial(backtest, spec.agent, spec.env, settings=settings))
    began = time.perf_counter()
    compiled = run.lower(params, data, jax.random.key(0)).compile()
    print(f"compiled in {time.perf_counter() - began:.1f} s")
    seconds, busy = [], []
    for _ in range(args.repetitions):
        began, worked = time.perf_counter(), time.process_time()
        jax.block_until_ready(compiled(params, data, jax.random.key(0)))
        seconds.append(time.perf_counter() - began)
        busy.append(time.process_time() - worked)
    listed = ", ".join(f"{s:.1f}" for s in seconds)
    # Seconds of CPU hardly depend on what else the machine does.
    print(
        f"{args.symbols} symbols x {args.bars:,} bars: best {min(seconds):.1f} s of {listed}; {min(busy):.1f} s of CPU"
    )


if __name__ == "__main__":
    main()
