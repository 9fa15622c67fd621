"""Permutation importance: what is left of a policy that sees some of its inputs at the wrong times.

A lane plays the policy anew through the same account while some columns of the features are shifted in a circle over
each symbol's bars, all of them by the same number of bars. So every column keeps its distribution and its
autocorrelation, and those of one group their relation to each other; what is gone is their relation to the market, and
to the other inputs. A permutation bar by bar would also destroy the autocorrelation, and an encoder would be shown
windows that no market has. Features that say the same share their importance: with one of them shifted, the policy can
still read the other.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int32

from jaxppo.agent.policy import Agent, Params
from jaxppo.env.trading import EnvSpec
from jaxppo.market.dataset import EvaluationSet
from jaxppo.market.tape import Tape
from jaxppo.play.deciders import Stirred, stirred_policy
from jaxppo.play.formulas import moments, net_returns, sharpe
from jaxppo.play.passes import Bar, Watcher, as_lanes, decision_bars, play, symbol_rows
from jaxppo.play.score import portfolio_curve

LEAST_SHIFT = 0.1
"""Of a symbol's bars, either way: slow features are still much the same a few bars later."""


class Shifts(NamedTuple):
    """Which inputs L lanes see at other times, and by how many bars of each symbol."""

    columns: Bool[jax.Array, "L F"]  # features
    account: Bool[jax.Array, " L"]  # the account vector
    bars: Int32[jax.Array, "L S"]


class Effect(NamedTuple):
    """What became of each lane."""

    sharpe: Float[jax.Array, " L"]  # of the portfolio that is rebalanced daily
    net_return: Float[jax.Array, " L"]  # likewise
    costs: Float[jax.Array, " L"]  # paid over the whole split, over equity, mean of the symbols
    changed: Float[jax.Array, " L"]  # share of the decisions that are not those of the first lane


def draw_shifts(seed: int, n: int, bars: np.ndarray) -> np.ndarray:
    """`n` circular shifts of every symbol, (n, S) int32, spread evenly over all but the nearest tenth either way.

    Args:
      seed: of what is random about them.
      n: how many.
      bars: (S,) bars of each symbol.
    """
    within = (np.arange(n)[:, None] + np.random.default_rng(seed).random((n, len(bars)))) / n
    share = LEAST_SHIFT + (1.0 - 2.0 * LEAST_SHIFT) * within
    shifts: np.ndarray = np.clip(np.round(share * bars), 1, np.maximum(bars - 1, 1)).astype(np.int32)
    return shifts


def shifted_features(tape: Tape, columns: jax.Array, bars: jax.Array) -> jax.Array:
    """Features (S, T, F) of which `columns` (F,) bool are those of `bars` (S,) later, in a circle over the bars seen.

    The last bar of a symbol is never decided on, and stays as it is, as does the padding.
    """
    seen = jnp.expand_dims(tape.length - 1, -1)  # (S, 1)
    row = jnp.expand_dims(jnp.arange(tape.n_bars, dtype=jnp.int32), 0)
    other = jnp.where(row < seen, (row + jnp.expand_dims(bars, -1)) % seen, row)
    moved = jnp.take_along_axis(tape.features, jnp.expand_dims(other, -1), axis=1)
    return jnp.where(columns.reshape(1, 1, -1), moved, tape.features)


def play_shifted(
    agent: Agent,
    spec: EnvSpec,
    params: Params,
    data: EvaluationSet,
    observation: jax.Array,
    shifts: Shifts,
    n_bars: int,
    receptive_field: int,
) -> Effect:
    """Play a policy with shifted inputs, a lane each. Jit it with what is static bound.

    Args:
      agent, spec, params: the policy, or an ensemble.
      data: the split.
      observation: (N, S, A) account vectors of the policy's own play, which the lanes that see another account see at
        other times; the account they act on, and the action mask, stay their own.
      shifts: of L lanes; the first must shift nothing, for it is what the others' decisions are compared with.
      n_bars: N.
      receptive_field: R.
    """
    tape = data.tape
    t, _ = decision_bars(tape, n_bars)
    symbol = symbol_rows(t)
    row = jnp.clip(t - (receptive_field - 1), 0)

    def encode(of: tuple[jax.Array, jax.Array]) -> jax.Array:
        encoded: jax.Array = agent.encode(params, shifted_features(tape, *of))[symbol, row]  # (N, S, H)
        return encoded

    decisions = jnp.expand_dims(tape.length - 1 - tape.first, 0)
    bar = jnp.expand_dims(jnp.arange(n_bars, dtype=jnp.int32), -1)

    def other_account(bars: jax.Array) -> jax.Array:
        shown: jax.Array = observation[(bar + jnp.expand_dims(bars, 0)) % decisions, symbol]  # (N, S, A)
        return shown

    seen = Stirred(
        # A lane at a time: the temporaries of a whole Tape are the largest arrays there are.
        jnp.moveaxis(jax.lax.map(encode, (shifts.columns, shifts.bars)), 0, 2),
        jnp.moveaxis(jax.vmap(other_account)(shifts.bars), 0, 2),
    )

    def add(total: jax.Array, b: Bar) -> jax.Array:
        added: jax.Array = total + (b.note.changed & b.valid).astype(jnp.int32)
        return added

    costs = as_lanes(tape.costs, (1.0,) * shifts.bars.shape[0])
    counter = Watcher(jnp.zeros(costs.fee.shape, jnp.int32), add)
    decider = stirred_policy(agent, spec, params, tape, seen, shifts.account)
    done = play(decider, tape, n_bars, costs, keep=False, watcher=counter)
    # Not `pool_lanes`, whose forty other figures nobody would read.
    curve = jax.lax.map(lambda equity: portfolio_curve(data, equity), jnp.swapaxes(done.equity, 0, 1))  # (L, D)
    days = data.calendar.days
    returns = net_returns(curve, jnp.ones_like(curve[:, 0]), jnp.broadcast_to(days.valid, curve.shape))
    ratio = sharpe(moments(returns, jnp.broadcast_to(days.valid, curve.shape)), days.per_year)
    bars = decisions.astype(curve.dtype)  # (1, S)
    changed = done.watched.sum(-1).astype(curve.dtype) / bars.sum()
    return Effect(ratio, curve[:, -1] - 1.0, (done.sums.costs * bars).mean(-1), changed)
