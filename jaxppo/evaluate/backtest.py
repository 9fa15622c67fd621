"""A backtest: the policy, the baselines that it must beat at the same costs, and other costs.

Everything goes through one account step. Stops, take-profit and liquidation of the environment act on every account
but buy-and-hold, which buys once and sells once; what random entries and momentum lack is the policy's timing alone.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxppo.agent.policy import Agent, Params
from jaxppo.env.trading import EnvSpec
from jaxppo.evaluate.baselines import circular_shifts, toward_exposure, trend_sign
from jaxppo.evaluate.metrics import Metrics, TradeSums
from jaxppo.evaluate.validate import (
    EXPOSURE,
    EvaluationSet,
    Ledger,
    Validation,
    decision_bars,
    measure,
    play,
    play_lanes,
    policy_chooser,
    pool_equity,
    pooled_metrics,
)
from jaxppo.market.tape import Costs, Tape

# Multiples of the run's fee, spread, slippage and borrow cost at which the policy is played again; 1 is the run itself.
COST_MULTIPLES = (0.0, 1.0, 2.0)
MOMENTUM_BARS = 20


class Settings(NamedTuple):
    """Static sizes of a backtest."""

    n_bars: int  # decisions of the longest symbol
    receptive_field: int
    random_draws: int


class Baselines(NamedTuple):
    """Pooled figures of what needs no training, at the policy's costs."""

    buy_and_hold: Metrics  # ()
    flat: Metrics  # ()
    momentum: Metrics  # ()
    random: Metrics  # (D,) one a draw
    momentum_equity: jax.Array  # (U,)
    random_equity: jax.Array  # (D, U)


class Backtest(NamedTuple):
    """All figures of one policy over one split."""

    validation: Validation
    ledger: Ledger
    costs: Metrics  # (C,) pooled, at COST_MULTIPLES
    baselines: Baselines


def lane_metrics(data: EvaluationSet, equity: jax.Array, sums: TradeSums) -> tuple[Metrics, jax.Array]:
    """Pooled figures of every lane: equity (N, S, L) and sums (S, L) to `Metrics` (L,) and pooled equity (L, U)."""

    def one(lane: tuple[jax.Array, TradeSums]) -> tuple[Metrics, jax.Array]:
        curve = pool_equity(data, lane[0])
        return pooled_metrics(data, curve, lane[1]), curve

    # A lane at a time: all at once would gather (L, S, U) floats.
    return jax.lax.map(one, (jnp.moveaxis(equity, -1, 0), jax.tree.map(jnp.transpose, sums)))


def scaled_costs(tape: Tape, multiples: tuple[float, ...]) -> Costs:
    """Costs of every symbol at each multiple: (S, len(multiples))."""
    factors = jnp.expand_dims(jnp.asarray(multiples, tape.costs.fee.dtype), 0)
    return jax.tree.map(lambda c: jnp.expand_dims(c, -1) * factors, tape.costs)


def play_baselines(
    data: EvaluationSet, spec: EnvSpec, action: jax.Array, key: jax.Array, settings: Settings
) -> tuple[Metrics, jax.Array]:
    """Momentum, then the policy's decisions at random other times, in one pass.

    Momentum asks for the full exposure in the direction of the last MOMENTUM_BARS bars (flat instead of short where
    shorts are not allowed). A random draw takes the policy's own decisions of each symbol at another time: shifted in a
    circle, so that their number, order and spacing stay and only what they know of the market is gone. Stops then close
    other trades than the policy's, so its turnover is met only roughly: on the embedded market draws traded 1.5 times
    as often as a policy that seldom trades.

    Args:
      data: the split.
      spec: the environment.
      action: (N, S) int32, the policy's.
      key: of the shifts.
      settings: static sizes.

    Returns:
      `Metrics` (1 + D,) and pooled equity (1 + D, U).
    """
    tape = data.tape
    t, _ = decision_bars(tape, settings.n_bars)
    decisions = jnp.expand_dims(tape.length - 1 - tape.first, -1)
    shift = circular_shifts(key, decisions[:, 0], settings.random_draws)  # (S, D)
    column = jnp.expand_dims(jnp.arange(tape.n_symbols, dtype=jnp.int32), -1)
    allow_short = jnp.expand_dims(tape.allow_short, -1)
    limit = spec.config.max_exposure

    def choose(given: tuple[jax.Array, jax.Array], vector: jax.Array, mask: jax.Array) -> jax.Array:
        bar, trend = given
        exposure = vector[:, :1, EXPOSURE]
        momentum = toward_exposure(spec.actions, limit * jnp.expand_dims(trend, -1), exposure, allow_short, limit)
        shifted = action[(bar + shift) % decisions, column]
        return jnp.concatenate([momentum, shifted], axis=-1)

    inputs = (jnp.arange(settings.n_bars, dtype=jnp.int32), trend_sign(tape.close, t, MOMENTUM_BARS))
    costs = scaled_costs(tape, (1.0,) * (1 + settings.random_draws))
    return lane_metrics(data, *play_lanes(choose, inputs, spec, tape, settings.n_bars, costs))


def hold_metrics(data: EvaluationSet, ledger: Ledger) -> Metrics:
    """Pooled figures of buy-and-hold: one trade a symbol, always invested, all equity bought and sold once."""
    profit = ledger.benchmark[-1] - 1.0
    bars = (data.tape.length - 1 - data.tape.first).astype(profit.dtype)
    sums = TradeSums(
        gains=jnp.maximum(profit, 0.0),
        losses=jnp.minimum(profit, 0.0),
        trades=jnp.ones_like(data.tape.length),
        wins=(profit > 0).astype(jnp.int32),
        turnover=2.0 / bars,
        exposure=jnp.ones_like(profit),
    )
    return pooled_metrics(data, ledger.pooled_benchmark, sums)


def flat_metrics(data: EvaluationSet, curve: jax.Array) -> Metrics:
    """Pooled figures of never trading; `curve` (U,) gives the shape."""
    none = jnp.zeros(data.tape.n_symbols, curve.dtype)
    count = jnp.zeros_like(data.tape.length)
    return pooled_metrics(data, jnp.ones_like(curve), TradeSums(none, none, count, count, none, none))


def backtest(
    agent: Agent,
    spec: EnvSpec,
    params: Params,
    data: EvaluationSet,
    key: jax.Array,
    settings: Settings,
) -> Backtest:
    """Play the argmax policy and the baselines over a split, and measure them. Jit it with what is static bound.

    Args:
      agent, spec, params: the policy.
      data: the split.
      key: of the random draws.
      settings: static sizes.
    """
    tape, n_bars = data.tape, settings.n_bars
    choose, market = policy_chooser(agent, params, tape, n_bars, settings.receptive_field)
    # Apart from the other multiples, so that it is the run's own validation to the last bit.
    validation, ledger = measure(data, *play(choose, market, spec, tape, n_bars), spec.actions.n_actions)
    others = tuple(m for m in COST_MULTIPLES if m != 1.0)
    swept, _ = lane_metrics(data, *play_lanes(choose, market, spec, tape, n_bars, scaled_costs(tape, others)))
    at = COST_MULTIPLES.index(1.0)
    costs = jax.tree.map(
        lambda x, own: jnp.concatenate([x[:at], jnp.expand_dims(own, 0), x[at:]]), swept, validation.pooled
    )
    played, curves = play_baselines(data, spec, ledger.action, key, settings)
    baselines = Baselines(
        buy_and_hold=hold_metrics(data, ledger),
        flat=flat_metrics(data, ledger.pooled_equity),
        momentum=jax.tree.map(lambda x: x[0], played),
        random=jax.tree.map(lambda x: x[1:], played),
        momentum_equity=curves[0],
        random_equity=curves[1:],
    )
    return Backtest(validation, ledger, costs, baselines)
