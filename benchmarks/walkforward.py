"""How long testing all folds of a walk-forward takes once it is compiled, in sample and out. Nothing here is a test.

    python benchmarks/walkforward.py --folds 5 --symbols 4 --bars 2000

The networks are untrained, one a fold; that does not change the work. The best of several repetitions is printed.
"""

from __future__ import annotations

import argparse
import time

import jax

from jaxppo.agent.encoders import receptive_field
from jaxppo.config.schema import Config
from jaxppo.market.dataset import build_evaluation
from jaxppo.market.synthetic import synthetic_market
from jaxppo.ppo.state import hyper_from
from jaxppo.walkforward.dates import plan_folds
from jaxppo.walkforward.program import make_folds, side_by_side, stack_folds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--symbols", type=int, default=4)
    parser.add_argument("--bars", type=int, default=2_000, help="of each symbol that can be decided on")
    parser.add_argument("--scheme", choices=("expanding", "rolling"), default="expanding")
    parser.add_argument("--repetitions", type=int, default=5)
    args = parser.parse_args()
    config = Config()
    field = receptive_field(config.agent)
    warm_up = build_evaluation(synthetic_market(0, 1, 1_000), config, field, "all", None).min_bars - 1
    bars = synthetic_market(0, args.symbols, args.bars + warm_up + field)
    market = build_evaluation(bars, config, field, "all", None)
    history = market.splits["all"]
    plans = plan_folds(history.times, args.folds, args.scheme, 0.5, field, market.purge_bars, needed=1)
    folds, sizes = stack_folds(history, plans, jax.random.key(0))
    program = side_by_side(make_folds(config, sizes))
    hyper, tape = hyper_from(config), history.tape
    params = jax.jit(lambda f, h, t: program.init(f, h, t).params)(folds, hyper, tape)
    began = time.perf_counter()
    compiled = jax.jit(program.evaluate).lower(params, folds, tape).compile()
    print(f"compiled in {time.perf_counter() - began:.1f} s")
    seconds = []
    for _ in range(args.repetitions):
        began = time.perf_counter()
        jax.block_until_ready(compiled(params, folds, tape))
        seconds.append(time.perf_counter() - began)
    tested = sum(int(p.test_decisions.sum()) for p in plans)
    trained = sum(int(p.train_decisions.sum()) for p in plans)
    print(
        f"{args.folds} folds x {args.symbols} symbols x {args.bars:,} bars ({tested:,} decisions out of sample,"
        f" {trained:,} in sample): best {min(seconds):.2f} s of {', '.join(f'{s:.2f}' for s in seconds)}"
    )


if __name__ == "__main__":
    main()
