"""Time to quality: seconds until a policy earns a share of the oracle on fresh data of a planted market.

    python -m benchmarks.peers.quality                          # jaxppo, stored windows, Stable-Baselines3
    python -m benchmarks.peers.quality --window 64 --task latent --peers jaxppo windows

All train on jaxppo's env and are scored the same way: the argmax policy through the ledger on bars of another seed. A
clock runs from before compilation, and stands still while a score is taken.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import learning

from benchmarks.peers import stored_windows
from benchmarks.peers.ours import VARIANTS
from jaxppo.agent.encoders import receptive_field
from jaxppo.check.probe import log_growth, play_exposures
from jaxppo.config.layers import replace_fields
from jaxppo.config.schema import Config
from jaxppo.market.dataset import build_market
from jaxppo.market.tape import Tape, take_windows
from jaxppo.play.deciders import choosing, play_policy
from jaxppo.play.passes import decision_bars, lane, n_decisions, play
from jaxppo.ppo.program import TapeSpec, make_train, train_spec
from jaxppo.ppo.schedule import entropy_coefficient, warmup_cosine
from jaxppo.ppo.state import hyper_from
from jaxppo.ppo.update import update

ENVS, STEPS, UPDATES = 2048, 32, 40
SB3_ENVS, SB3_STEPS, SB3_BATCH, SB3_EPOCHS = 64, 64, 256, 10


class Task:
    """A planted market to train on, and a fresh one with its oracle to score on."""

    def __init__(self, name: str, window: int, width: int, seed: int, **changes: Any):
        task = learning.TASKS[name]
        own = {"encoder": "none"} if window == 1 else {"encoder": "tcn", "window": window}
        sizes = {"channels": width, "trunk_width": width, "n_envs": ENVS, "n_steps": STEPS, "n_updates": UPDATES}
        sizes["cost_anneal"] = 0.0  # no peer trains on costs that rise
        self.config: Config = learning.planted_config(task, seed, **{**own, **sizes, "validate_every": 1, **changes})
        self.window, self.width = window, width
        self.steps = self.config.budget.n_updates * self.config.batch_steps
        bars, _, tables = learning.draw(task, seed, 8, 20_000)
        self.market = build_market(bars, self.config, receptive_field(self.config.agent), tables)
        self.tape: Tape = self.market.splits["train"].tape
        self.fresh, oracle = learning.fresh_market(task, self.config, seed)
        self.spec = train_spec(self.config, self.tape.n_features)
        best = jax.jit(lambda wanted, tape: play_exposures(wanted, self.spec.env, tape))
        self.oracle = float(log_growth(best(jnp.float32(oracle), self.fresh)).mean())
        n = n_decisions(self.fresh)
        receptive = self.spec.receptive_field
        agent, env = self.spec.agent, self.spec.env
        self._ours = jax.jit(lambda p, t: lane(play_policy(agent, env, p, t, n, receptive).record, 0))
        self._flat = jax.jit(lambda p, t: play_flat(p, self, t, n))

    def ours(self, params: Any) -> float:
        """Share of the oracle that a policy of jaxppo earns."""
        return float(log_growth(self._ours(params, self.fresh)).mean()) / self.oracle

    def flat(self, params: Any) -> float:
        """Share of the oracle that a network over the flattened window earns."""
        return float(log_growth(self._flat(params, self.fresh)).mean()) / self.oracle


def play_flat(params: Any, task: Task, tape: Tape, n: int) -> Any:
    """Play the argmax of `stored_windows.forward` through the ledger."""
    t, _ = decision_bars(tape, n)
    start = t - (task.window - 1)

    def choose(begin: jax.Array, vector: jax.Array, mask: jax.Array) -> jax.Array:
        symbols = jnp.arange(tape.n_symbols, dtype=jnp.int32)
        bars = take_windows(tape, symbols, begin, task.window).reshape(tape.n_symbols, -1)
        logits, _ = stored_windows.forward(params, jnp.concatenate([bars, vector[:, 0]], axis=-1))
        return jnp.expand_dims(jnp.argmax(logits, axis=-1).astype(jnp.int32), -1)

    return lane(play(choosing(choose, start, task.spec.env, tape), tape, n).record, 0)


Progress = Iterator[tuple[int, Callable[[], float]]]
"""After each piece of work: env steps so far, and how to score the policy."""


def train_ours(task: Task, seed: int) -> Progress:
    """jaxppo, update by update; without the validation that a run compiles in, as no peer has one."""
    program = make_train(task.config, TapeSpec(task.tape.n_features, 1))
    hyper = hyper_from(task.config)
    state = jax.jit(program.init)(jax.random.key(seed), hyper, task.tape)
    run = jax.jit(lambda s, t: update(s, t, program.spec, hyper)[0], donate_argnums=0)
    for i in range(task.config.budget.n_updates):
        state = jax.block_until_ready(run(state, task.tape))
        yield (i + 1) * task.config.batch_steps, partial(task.ours, state.params)


def train_windows(task: Task, seed: int) -> Progress:
    """Stored windows in JAX, under jaxppo's schedules."""
    config = replace_fields(task.config, {"lanes": 1})
    ppo, n_updates = config.ppo, config.budget.n_updates
    warm, per_update = warmup_cosine(n_updates), config.gradient_steps
    optimizer = stored_windows.optimizer_for(lambda count: ppo.learning_rate * warm(count // per_update))
    init, one_update = stored_windows.make_update(task.tape, config, optimizer, task.window)
    runner = jax.jit(init, static_argnums=1)(jax.random.key(seed), task.width)
    run = jax.jit(one_update, donate_argnums=0)
    for i in range(n_updates):
        shares = (jnp.float32(x) for x in (ppo.entropy_start, ppo.entropy_end, ppo.entropy_anneal))
        entropy = entropy_coefficient(jnp.int32(i), n_updates, *shares)
        runner = jax.block_until_ready(run(runner, task.tape, entropy))
        yield (i + 1) * config.batch_steps, partial(task.flat, runner.params)


def train_sb3(task: Task, seed: int, vectorised: bool) -> Progress:
    """Stable-Baselines3's PPO on N accounts stepped together, or on 8 Gymnasium environments."""
    import torch
    from stable_baselines3.common.vec_env import DummyVecEnv

    from benchmarks.peers.adapter import TradingEnvs
    from benchmarks.peers.gym_trading import make_ppo
    from jaxppo.gym import TradingEnv

    if vectorised:
        envs = TradingEnvs(task.market, task.config, task.window, SB3_ENVS, seed)
    else:
        envs = DummyVecEnv([lambda: TradingEnv(task.market, task.config, window=task.window)] * 8)
    steps = SB3_ENVS * SB3_STEPS
    torch.set_num_threads(1)  # two are slower on minibatches of 256, and far slower on a busy machine
    rate = {"learning_rate": task.config.ppo.learning_rate, "seed": seed}
    model = make_ppo(envs, task.width, steps // envs.num_envs, SB3_BATCH, SB3_EPOCHS, **rate)
    while True:
        model.learn(steps, reset_num_timesteps=model.num_timesteps == 0)
        yield model.num_timesteps, partial(task.flat, exported(model))


def exported(model: Any) -> Any:
    """The network of `gym_trading.make_ppo` as `stored_windows.forward` takes it."""
    policy = model.policy

    def pair(layer: Any) -> tuple[np.ndarray, np.ndarray]:
        return layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy()

    hidden = policy.features_extractor.layers
    return {
        "hidden": [pair(hidden[1]), pair(hidden[3])],
        "policy": pair(policy.action_net),
        "value": pair(policy.value_net),
    }


PEERS: dict[str, Callable[[Task, int], Progress]] = {
    "jaxppo": train_ours,
    "windows": train_windows,
    "sb3": lambda task, seed: train_sb3(task, seed, vectorised=True),
    "sb3-gymnasium": lambda task, seed: train_sb3(task, seed, vectorised=False),
}


class Reached(NamedTuple):
    """How far a peer came."""

    seconds: float
    training: float  # of those, after the first piece of work, in which it compiles
    steps: int
    share: float  # of the oracle

    def __str__(self) -> str:
        took = f"{self.seconds:.1f} s ({self.training:.1f} s without the first piece of work, which compiles)"
        return f"{100 * self.share:.1f} % after {took}, {self.steps:,} steps"


def time_to(share: float, task: Task, peer: str, seed: int, limit: float, every: float, verbose: bool) -> Reached:
    """Train until `share` of the oracle is earned, the budget is spent or `limit` seconds are over."""
    used, mark, first, scored, now = 0.0, time.perf_counter(), 0.0, -every, Reached(0.0, 0.0, 0, 0.0)
    for steps, score in PEERS[peer](task, seed):
        used += time.perf_counter() - mark
        first = first or used
        if used - scored >= every or used > limit or steps == task.steps:
            scored, now = used, Reached(used, used - first, steps, score())
            if verbose:
                print(f"    {peer}: {now}", flush=True)
            if now.share >= share or used > limit:
                break
        mark = time.perf_counter()
    return now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=[n for n, t in learning.TASKS.items() if t.edge > 0], default="observed")
    parser.add_argument(
        "--window", type=int, default=1, help="bars that a decision sees; 1 is all that `observed` needs"
    )
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--width", type=int, default=64, help="of every network")
    parser.add_argument("--variant", choices=VARIANTS, default="equal", help="jaxppo's network and lanes")
    parser.add_argument("--share", type=float, default=0.9, help="of the oracle's growth; above 1, train to the end")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--limit", type=float, default=360.0, help="seconds")
    parser.add_argument("--every", type=float, default=0.0, help="seconds between two scores")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    for seed in range(args.seeds):
        task = Task(args.task, args.window, args.width, seed, **(VARIANTS[args.variant] if args.window > 1 else {}))
        for peer in args.peers:
            reached = time_to(args.share, task, peer, seed, args.limit, args.every, args.verbose)
            print(f"{args.task}, window {args.window}, seed {seed}: {peer}: {reached}", flush=True)


if __name__ == "__main__":
    main()
