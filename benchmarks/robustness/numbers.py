"""NaN and infinities put into a run by hand, one at a time, and what became of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.robustness.row import Row
from jaxppo.agent.encoders import receptive_field
from jaxppo.config.layers import replace_fields
from jaxppo.config.schema import Config
from jaxppo.env.account import broken_accounts
from jaxppo.market.dataset import build_market
from jaxppo.market.synthetic import synthetic_market
from jaxppo.market.tape import Tape
from jaxppo.ppo.guard import is_sound
from jaxppo.ppo.program import TapeSpec, make_train
from jaxppo.ppo.state import Hyper, TrainState, hyper_from
from jaxppo.ppo.update import update

SIZES: dict[str, Any] = {
    "n_envs": 64,
    "lanes": 4,
    "n_steps": 8,
    "n_updates": 100,
    "epochs": 2,
    "minibatches": 4,
    "window": 8,
    "channels": 8,
    "trunk_width": 16,
    "features": ("base",),
    "scale_window": 32,
    "reward": "v33",
}
COUNTERS = ("skipped_steps", "bad_samples", "broken_accounts", "rollbacks")
VALUES = (np.nan, np.inf, -np.inf)
MARKET = ("open", "high", "low", "close", "forward_return", "volatility")


class Run(NamedTuple):
    """What an update reads."""

    state: TrainState
    hyper: Hyper
    tape: Tape


Poison = Callable[[Run, np.random.Generator, float], Run]


def _one(tree: Any, rng: np.random.Generator, value: float) -> Any:
    """One number of one float array of `tree` becomes `value`; larger arrays are hit more often."""
    leaves, structure = jax.tree.flatten(tree)
    size = np.array([x.size * jnp.issubdtype(x.dtype, jnp.floating) for x in leaves], float)
    i = int(rng.choice(len(leaves), p=size / size.sum()))
    at = int(rng.integers(leaves[i].size))
    leaves[i] = leaves[i].reshape(-1).at[at].set(value).reshape(leaves[i].shape)
    return jax.tree.unflatten(structure, leaves)


def _parameter(run: Run, rng: np.random.Generator, value: float) -> Run:
    return run._replace(state=run.state._replace(params=_one(run.state.params, rng, value)))


def _moment(run: Run, rng: np.random.Generator, value: float) -> Run:
    moments = run.state.moments
    mean, square = _one((moments.mean, moments.square), rng, value)
    return run._replace(state=run.state._replace(moments=moments._replace(mean=mean, square=square)))


def _account(run: Run, rng: np.random.Generator, value: float) -> Run:
    accounts = run.state.lanes.account
    field = str(rng.choice(["units", "mark", "equity", "rest", "peak", "average_cost", "trade_pnl"]))
    held = accounts._replace(units=jnp.ones_like(accounts.units))  # of what is not held the price does not matter
    broken = held._replace(**{field: _one(getattr(held, field), rng, value)})
    return run._replace(state=run.state._replace(lanes=run.state.lanes._replace(account=broken)))


def _gradient(run: Run, rng: np.random.Generator, value: float) -> Run:
    return run._replace(hyper=run.hyper._replace(value_weight=jnp.float32(value)))


def _step_size(run: Run, rng: np.random.Generator, value: float) -> Run:
    return run._replace(hyper=run.hyper._replace(learning_rate=jnp.float32(value)))


def _seen(run: Run, rng: np.random.Generator) -> tuple[int, int]:
    """A symbol and bar that the next update sees."""
    path = int(rng.integers(run.state.paths.t.shape[0]))
    t = int(run.state.paths.t[path]) + 1 + int(rng.integers(SIZES["n_steps"] - 1))
    return int(run.state.paths.symbol[path]), t


def _reward(run: Run, rng: np.random.Generator, value: float) -> Run:
    """A price, or what rewards are made of, at a bar that the next update trades on."""
    at, field = _seen(run, rng), str(rng.choice(MARKET))
    return run._replace(tape=run.tape._replace(**{field: getattr(run.tape, field).at[at].set(value)}))


def _feature(run: Run, rng: np.random.Generator, value: float) -> Run:
    at = (*_seen(run, rng), int(rng.integers(run.tape.n_features)))
    return run._replace(tape=run.tape._replace(features=run.tape.features.at[at].set(value)))


# What must be counted, of what is put in. A bar's infinite high or low can be a stop that fires: a number.
FAULTS: dict[str, tuple[Poison, bool]] = {
    "a parameter": (_parameter, True),
    "a moment of the optimizer": (_moment, True),
    "every gradient of an update": (_gradient, True),
    "the step size of an update": (_step_size, True),
    "a number of an account": (_account, True),
    "a bar's price, forward return or volatility": (_reward, False),
    "a feature": (_feature, True),
}


def _same(a: Any, b: Any) -> bool:
    return all(bool((x == y).all()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def _sound(state: TrainState) -> bool:
    weights = (state.params, state.moments, state.guard)
    return bool(is_sound(weights)) and not bool(broken_accounts(state.lanes.account).any())


def rows(quick: bool) -> Iterator[Row]:
    config = replace_fields(Config(), SIZES)
    tape = build_market(synthetic_market(0, 2, 900), config, receptive_field(config.agent)).splits["train"].tape
    program, hyper = make_train(config, TapeSpec(tape.n_features, 1)), hyper_from(config)
    step = jax.jit(lambda run: update(run.state, run.tape, program.spec, run.hyper))
    state = jax.jit(program.init)(jax.random.key(0), hyper, tape)
    healthy = [state := step(Run(state, hyper, tape))[0] for _ in range(10)]
    for number, (name, (poison, must_count)) in enumerate(FAULTS.items()):
        rng, tried, withstood, counted = np.random.default_rng(number), 0, 0, 0
        for _ in range(6 if quick else 200):
            run = Run(healthy[int(rng.integers(len(healthy)))], hyper, tape)
            broken = poison(run, rng, float(rng.choice(VALUES)))
            after, metrics = step(broken)
            seen = any(float(metrics[c]) > 0 for c in COUNTERS)
            again, _ = step(Run(after, hyper, tape))
            fine = _sound(after) and _sound(again) and not _same(again.params, after.params)
            tried, counted = tried + 1, counted + seen
            withstood += fine and (seen or not must_count)
        how = "all counted" if must_count else f"the {counted} that reached a reward or an account are counted"
        check = f"nothing but finite weights and accounts, and the next update learns; {how}"
        yield Row(f"NaN or +-infinity in {name}", tried, withstood, check)
    yield from _streaks(step, healthy[-1], hyper, tape, 20 if quick else 200)


def _streaks(step: Callable[[Run], Any], state: TrainState, hyper: Hyper, tape: Tape, n: int) -> Iterator[Row]:
    """Bad gradients in a row: back to the last good state after the third, with half the learning rate."""
    good, withstood, scale, entropy = state.guard.good.params, 0, 1.0, []
    bad = hyper._replace(value_weight=jnp.float32(np.nan))
    for i in range(n):
        state, metrics = step(Run(state, bad, tape))
        entropy.append(float(metrics["entropy_coefficient"]))
        back = float(metrics["rollbacks"]) == 1
        scale = max(scale / 2, 2.0**-10) if (i + 1) % 3 == 0 else scale
        right = back == ((i + 1) % 3 == 0) and float(state.guard.scale) == scale
        withstood += right and _sound(state) and (not back or _same(state.params, good))
    falls = all(a >= b for a, b in itertools.pairwise(entropy))
    yield Row(
        "an update of a streak without one finite gradient",
        n,
        withstood if falls else 0,
        "every third goes back to the last good parameters and halves the learning rate, to 1/1024 at most; the entropy"
        " coefficient never rises",
    )
