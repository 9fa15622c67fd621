"""A Score: the figures and curves of a Pass, of every account and of the pool of all symbols."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxppo.agent.policy import Agent, Params
from jaxppo.env.account import StepRecord
from jaxppo.env.trading import EnvSpec
from jaxppo.market.dataset import EvaluationSet
from jaxppo.market.tape import Tape
from jaxppo.play.baselines import buy_and_hold
from jaxppo.play.curve import TradeSums
from jaxppo.play.deciders import play_policy
from jaxppo.play.metrics import Metrics, summarize
from jaxppo.play.passes import Pass, fills


class Figures(NamedTuple):
    """Scalars of one lane of a Pass.

    The pool is the mean of one account a symbol, each started with the same money and never rebalanced, over the
    symbols that decide at all; its trades are those of all accounts.
    """

    pooled: Metrics  # ()
    symbols: Metrics  # (S,)
    ruined: jax.Array  # () int32: symbols whose account was ruined
    action_share: jax.Array  # (A,) of each action in all decisions
    symbol_action_share: jax.Array  # (S, A)
    hold: jax.Array  # () net return of buy-and-hold at the same costs, pooled
    symbol_hold: jax.Array  # (S,)


class Curves(NamedTuple):
    """Equity bar by bar, from a start of 1."""

    pooled: jax.Array  # (U,) on the joint calendar
    hold: jax.Array  # (U,) buy-and-hold, pooled
    symbol_hold: jax.Array  # (N, S)


class Score(NamedTuple):
    """One lane of a Pass and what is said of it: what tables, gate and pages are made of."""

    record: StepRecord  # (N, S)
    action: jax.Array  # (N, S) int32
    valid: jax.Array  # (N, S) bool
    sums: TradeSums  # (S,)
    figures: Figures
    curves: Curves


class Pooled(NamedTuple):
    """The pools of all lanes of a Pass."""

    metrics: Metrics  # (L,)
    equity: jax.Array  # (L, U)


def pool_equity(data: EvaluationSet, equity: jax.Array) -> jax.Array:
    """Mean equity of the symbols that decide, of accounts that start at 1: (N, S) to (U,) on the joint calendar."""
    share = (data.tape.length - 1 > data.tape.first).astype(equity.dtype)
    with_start = jnp.concatenate([jnp.ones_like(equity[:1]), equity]).T  # (S, N + 1)
    curves = jnp.take_along_axis(with_start, data.calendar.behind, axis=1)
    return (curves * jnp.expand_dims(share, -1)).sum(0) / jnp.maximum(share.sum(), 1.0)


def decision_weight(tape: Tape) -> jax.Array:
    """Share of each symbol in all decisions, (S,) float."""
    decisions = (tape.length - 1 - tape.first).astype(tape.close.dtype)
    return decisions / decisions.sum()


def pooled_sums(tape: Tape, sums: TradeSums, bars_per_year: jax.Array) -> TradeSums:
    """Sums () of a pool: the trades of all accounts, (S,); turnover and exposure are weighted by decisions."""
    weight = decision_weight(tape)
    return TradeSums(
        sums.gains.sum(),
        sums.losses.sum(),
        sums.trades.sum(),
        sums.wins.sum(),
        sums.losers.sum(),
        (sums.turnover * tape.bars_per_year * weight).sum() / bars_per_year,
        (sums.exposure * weight).sum(),
    )


def pooled_metrics(data: EvaluationSet, curve: jax.Array, sums: TradeSums) -> Metrics:
    """Figures () of a pooled curve (U,), with the trades of all symbols' accounts, whose sums are (S,)."""
    calendar = data.calendar
    total = pooled_sums(data.tape, sums, calendar.bars_per_year)
    return summarize(curve, jnp.ones((), curve.dtype), calendar.valid, calendar.bars_per_year, total)


def pool_lanes(p: Pass, data: EvaluationSet) -> Pooled:
    """Pooled figures and curves of every lane of a Pass whose accounts started with 1, whether its record was kept."""

    def one(of: tuple[jax.Array, TradeSums]) -> Pooled:
        curve = pool_equity(data, of[0])
        return Pooled(pooled_metrics(data, curve, of[1]), curve)

    # A lane at a time: all at once would gather (L, S, U) floats.
    pooled: Pooled = jax.lax.map(one, (jnp.swapaxes(p.equity, 0, 1), p.sums))
    return pooled


def account_metrics(p: Pass, tape: Tape, cash: float = 1.0) -> Metrics:
    """Figures (L, S) of every account of a Pass, each started with `cash`, whether its record was kept."""
    equity = jnp.moveaxis(p.equity, 0, -1) / cash  # (L, S, N)
    start = jnp.ones(equity.shape[:2], equity.dtype)
    valid = jnp.broadcast_to(p.valid.T, equity.shape)
    return summarize(equity, start, valid, start * tape.bars_per_year.reshape(1, -1), p.sums)


def action_shares(action: jax.Array, valid: jax.Array, tape: Tape, n_actions: int) -> tuple[jax.Array, jax.Array]:
    """Share of each action in all decisions (A,), and in those of each symbol (S, A); `action` and `valid` (N, S)."""
    weight = valid.astype(tape.close.dtype)
    taken = jax.nn.one_hot(action, n_actions, dtype=weight.dtype) * jnp.expand_dims(weight, -1)
    share = taken.sum(0) / jnp.maximum(weight.sum(0), 1.0).reshape(-1, 1)
    return (share * decision_weight(tape).reshape(-1, 1)).sum(0), share


def score(p: Pass, data: EvaluationSet, n_actions: int, lane: int = 0) -> Score:
    """Figures and curves of one lane, of each symbol and pooled.

    Args:
      p: whose record was kept, whose decider noted actions, and whose accounts started with 1.
      data: the bars that it was played on, with their joint calendar.
      n_actions: A.
      lane: which.
    """
    tape = data.tape
    record, action = jax.tree.map(lambda x: x[:, lane], (p.record, p.note.action))
    sums = jax.tree.map(lambda x: x[lane], p.sums)
    ones = jnp.ones(tape.n_symbols, record.equity.dtype)
    curve = pool_equity(data, record.equity)
    open_, close = fills(tape, p.valid.shape[0])
    held = buy_and_hold(open_, close, p.valid, tape.costs)
    pooled_hold = pool_equity(data, held)
    figures = Figures(
        pooled_metrics(data, curve, sums),
        summarize(record.equity.T, ones, p.valid.T, tape.bars_per_year, sums),
        record.ruined.any(0).sum(dtype=jnp.int32),
        *action_shares(action, p.valid, tape, n_actions),
        pooled_hold[-1] - 1.0,
        held[-1] - 1.0,
    )
    return Score(record, action, p.valid, sums, figures, Curves(curve, pooled_hold, held))


def validate(
    agent: Agent, spec: EnvSpec, params: Params, data: EvaluationSet, n_bars: int, receptive_field: int
) -> Score:
    """Play the argmax policy over an evaluation set, one account a symbol, and score it."""
    played = play_policy(agent, spec, params, data.tape, n_bars, receptive_field)
    return score(played, data, spec.actions.n_actions)
