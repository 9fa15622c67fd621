"""A backtest: the policy, the baselines that it must beat at the same costs, and other costs.

Every account pays the same costs through one account step. Stops and take-profit are part of the policy and act on
no baseline.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxppo.agent.policy import Agent, Params
from jaxppo.env.account import StepRecord
from jaxppo.env.trading import EnvSpec
from jaxppo.market.dataset import EvaluationSet
from jaxppo.play.baselines import hold_sums, shifts_between_trades
from jaxppo.play.curve import TradeSums
from jaxppo.play.deciders import acting_policy, wishing
from jaxppo.play.members import play_members
from jaxppo.play.metrics import Metrics
from jaxppo.play.passes import as_lanes, lane, play
from jaxppo.play.score import Pooled, Score, pool_lanes, pooled_metrics, portfolio_sums, score
from jaxppo.play.significance import Intervals, bootstrap

# Multiples of the run's fee, spread, slippage and borrow cost at which the policy is played again; 1 is the run itself.
COST_MULTIPLES = (0.0, 1.0, 2.0)
LEAST_SHIFT = 0.1  # of a symbol's history, either way


class Settings(NamedTuple):
    """Static sizes of a backtest."""

    n_bars: int  # decisions of the longest symbol
    receptive_field: int
    random_draws: int


class Baselines(NamedTuple):
    """Pooled figures of what needs no training, at the policy's costs. Rules are played apart: `jaxppo.play.sides`."""

    buy_and_hold: Metrics  # ()
    flat: Metrics  # ()
    random: Metrics  # (D,) one a draw
    random_equity: jax.Array  # (D, U)


class Backtest(NamedTuple):
    """All figures of one policy over one split."""

    score: Score  # of the policy, at the run's own costs
    costs: Metrics  # (C,) pooled, at COST_MULTIPLES
    baselines: Baselines
    intervals: Intervals  # () pooled
    portfolio_intervals: Intervals  # () of the portfolio that is rebalanced daily
    portfolio_sums: TradeSums  # () of that portfolio, a date
    members: Pooled | None  # (M,) of an ensemble, each played alone
    observation: jax.Array  # (N, S, A): the account vectors that the policy decided on


def play_random(
    data: EvaluationSet, spec: EnvSpec, record: StepRecord, valid: jax.Array, key: jax.Array, settings: Settings
) -> Pooled:
    """The policy's positions at random other times, in one pass.

    A random draw takes the positions that the policy held, shifted in a circle: it orders the same
    exposure at the same spacing and closes at the close of the bar on which the policy's stop or take-profit fired. So
    trades, turnover, exposure and the mix of long and short are the policy's, at the same costs, and only what it knew
    of the market is gone. Shifting its actions instead would leave the exits to stops that fire elsewhere: on the
    embedded market that traded 1.5 times as often. Shifts are spread evenly over all but the nearest tenth either way:
    positions taken a little early are hindsight. On the embedded market those of a policy that earned 2.5 % earned
    19 % when taken 100 to 150 of 3,346 bars early.

    Args:
      data: the split.
      spec: the environment.
      record, valid: (N, S), the policy's.
      key: of the shifts.
      settings: static sizes.

    Returns:
      Lanes (D,).
    """
    tape = data.tape
    decisions = jnp.expand_dims(tape.length - 1 - tape.first, 0)
    draw = jnp.arange(settings.random_draws, dtype=record.units.dtype)
    spread = (draw + jax.random.uniform(key, draw.shape, draw.dtype)) / settings.random_draws
    share = LEAST_SHIFT + (1.0 - 2.0 * LEAST_SHIFT) * spread
    shift = shifts_between_trades(record.units, record.order_units, valid, share)  # (D, S)
    column = jnp.expand_dims(jnp.arange(tape.n_symbols, dtype=jnp.int32), 0)
    ordered = jnp.where(record.order_units != 0, record.exposure, jnp.nan)  # (N, S)
    closed = record.exit_units != 0

    def wish(bar: jax.Array, units: jax.Array) -> tuple[jax.Array, jax.Array]:
        row = (bar + shift) % decisions
        return ordered[row, column], closed[row, column]

    bars = jnp.arange(settings.n_bars, dtype=jnp.int32)
    costs = as_lanes(tape.costs, (1.0,) * settings.random_draws)
    return pool_lanes(play(wishing(wish, bars, spec), tape, settings.n_bars, costs, keep=False), data)


def hold_metrics(data: EvaluationSet, played: Score) -> Metrics:
    """Pooled figures () of buy-and-hold."""
    tape = data.tape
    sums = hold_sums(played.figures.symbol_hold, tape.length - 1 - tape.first, tape.costs.fee + tape.costs.impact)
    return pooled_metrics(data, played.curves.hold, sums)


def flat_metrics(data: EvaluationSet, curve: jax.Array) -> Metrics:
    """Pooled figures of never trading; `curve` (U,) gives the shape."""
    none = jnp.zeros(data.tape.n_symbols, curve.dtype)
    count = jnp.zeros_like(data.tape.length)
    # Hidden from the compiler, which would spend 22 s on sorting a constant curve of 83,521 bars.
    ones = jax.lax.optimization_barrier(jnp.ones_like(curve))
    return pooled_metrics(data, ones, TradeSums(none, none, count, count, count, none, none, none))


def backtest(
    agent: Agent, spec: EnvSpec, params: Params, data: EvaluationSet, key: jax.Array, settings: Settings
) -> Backtest:
    """Play the argmax policy and the baselines over a split, but for the rules, and score them.

    Jit it with what is static bound.

    Args:
      agent, spec, params: the policy, or an ensemble, whose members are then played alone too.
      data: the split.
      key: of the random draws and of the bootstrap.
      settings: static sizes.
    """
    tape, n_bars = data.tape, settings.n_bars
    for_shifts, for_bootstrap = jax.random.split(key)
    policy = acting_policy(agent, spec, params, tape, n_bars, settings.receptive_field, observed=True)
    # Apart from the other multiples, so that it is the run's own validation to the last bit.
    played = play(policy, tape, n_bars)
    own = score(played, data, spec.actions.n_actions)
    others = tuple(m for m in COST_MULTIPLES if m != 1.0)
    swept = pool_lanes(play(policy, tape, n_bars, as_lanes(tape.costs, others), keep=False), data).metrics
    at = COST_MULTIPLES.index(1.0)
    costs = jax.tree.map(
        lambda x, own: jnp.concatenate([x[:at], jnp.expand_dims(own, 0), x[at:]]), swept, own.figures.pooled
    )
    drawn = play_random(data, spec, own.record, own.valid, for_shifts, settings)
    baselines = Baselines(
        buy_and_hold=hold_metrics(data, own),
        flat=flat_metrics(data, own.curves.pooled),
        random=drawn.metrics,
        random_equity=drawn.equity,
    )
    curve = own.curves.pooled
    one, calendar = jnp.ones((), curve.dtype), data.calendar
    intervals = bootstrap(curve, one, calendar.valid, calendar.bars_per_year, for_bootstrap)
    days, for_days = calendar.days, jax.random.fold_in(for_bootstrap, 1)
    daily = bootstrap(own.curves.portfolio, one, days.valid, days.per_year, for_days)
    members = None
    if params.ndim == 2:
        members = play_members(agent, spec, params, data, n_bars, settings.receptive_field)
    seen = lane(played.note.observation, 0)
    return Backtest(own, costs, baselines, intervals, daily, portfolio_sums(data, own.sums), members, seen)
