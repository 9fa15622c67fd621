"""A Score: the figures and curves of a Pass, of every account and of the pool of all symbols."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxppo.agent.policy import Agent, Params
from jaxppo.env.account import StepRecord
from jaxppo.env.trading import EnvSpec
from jaxppo.market.dataset import EvaluationSet
from jaxppo.market.tape import Tape
from jaxppo.play.baselines import buy_and_hold
from jaxppo.play.curve import TradeSums
from jaxppo.play.deciders import play_policy
from jaxppo.play.formulas import net_returns
from jaxppo.play.metrics import Metrics, summarize
from jaxppo.play.passes import Pass, fills, paid_since


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
    portfolio: Metrics  # () of the symbols in equal shares, rebalanced daily


class Curves(NamedTuple):
    """Equity bar by bar, from a start of 1."""

    pooled: jax.Array  # (U,) on the joint calendar
    hold: jax.Array  # (U,) buy-and-hold, pooled
    symbol_hold: jax.Array  # (N, S)
    portfolio: jax.Array  # (D,) day by day, rebalanced daily


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
    portfolio: Metrics  # (L,)
    portfolio_equity: jax.Array  # (L, D)
    portfolio_sums: TradeSums  # (L,) a date of the portfolio


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


def live_symbols(data: EvaluationSet) -> jax.Array:
    """Which symbols a portfolio holds on each date, (S, D) bool: begun by its end, and not finished before it."""
    behind, decisions = data.calendar.days.behind, jnp.expand_dims(data.tape.length - 1 - data.tape.first, -1)
    before = jnp.concatenate([jnp.zeros_like(behind[:, :1]), behind[:, :-1]], axis=1)
    return (behind > 0) & (before < decisions) & jnp.expand_dims(data.calendar.days.valid, 0)


def portfolio_curve(data: EvaluationSet, equity: jax.Array) -> jax.Array:
    """Equity of equal shares in the accounts of all symbols, rebalanced daily: (N, S) to (D,), from a start of 1.

    A date's return is the plain mean, over the symbols that are live on it, of their accounts' growth over that date; a
    symbol without a bar that day returns 0. Moving money between symbols each day is free, as in the yardstick of the
    field; what the accounts themselves trade costs what it costs.

    Args:
      data: the bars that the accounts were played on, with their dates.
      equity: (N, S) at the closes, of accounts that start at 1.

    Example: two symbols, of which the second begins on the second day. The first earns 10 % on the first day, which the
    portfolio then earns too; on the second it has no bar and the second earns 4 %: the portfolio earns 2 %.
    """
    live = live_symbols(data)
    with_start = jnp.concatenate([jnp.ones_like(equity[:1]), equity]).T  # (S, N + 1)
    path = jnp.take_along_axis(with_start, data.calendar.days.behind, axis=1)
    growth = net_returns(path, jnp.ones(path.shape[:1], path.dtype), live)
    mean = growth.sum(0) / jnp.maximum(live.sum(0), 1).astype(growth.dtype)
    return jnp.cumprod(jnp.maximum(1.0 + mean, 0.0))


def portfolio_sums(data: EvaluationSet, sums: TradeSums) -> TradeSums:
    """Sums () of a portfolio that is rebalanced daily, the trades of all symbols' accounts, whose sums are (S,).

    Turnover, exposure and costs are means over the symbols that are live, date by date: of each its mean over its bars.
    """
    live, days = live_symbols(data).astype(sums.turnover.dtype), data.calendar.days
    share = (live / jnp.maximum(live.sum(0, keepdims=True), 1.0)).sum(1)
    return pooled_sums(data.tape, sums, days.per_year, share / jnp.maximum(share.sum(), 1.0))


def portfolio_metrics(data: EvaluationSet, curve: jax.Array, sums: TradeSums) -> Metrics:
    """Figures () of a portfolio (D,), with the trades of all symbols' accounts, whose sums are (S,)."""
    days = data.calendar.days
    return summarize(curve, jnp.ones((), curve.dtype), days.valid, days.per_year, portfolio_sums(data, sums))


def pooled_sums(tape: Tape, sums: TradeSums, bars_per_year: jax.Array, weight: jax.Array) -> TradeSums:
    """Sums () of accounts (S,), the trades of all.

    Args:
      tape: the market.
      sums: of each symbol's account.
      bars_per_year: () of what they are sums of.
      weight: (S,) of each in turnover, exposure and costs; sums to 1.
    """
    return TradeSums(
        sums.gains.sum(),
        sums.losses.sum(),
        sums.trades.sum(),
        sums.wins.sum(),
        sums.losers.sum(),
        (sums.turnover * tape.bars_per_year * weight).sum() / bars_per_year,
        (sums.exposure * weight).sum(),
        (sums.costs * tape.bars_per_year * weight).sum() / bars_per_year,
    )


def pooled_metrics(data: EvaluationSet, curve: jax.Array, sums: TradeSums) -> Metrics:
    """Figures () of a pooled curve (U,), with the trades of all symbols' accounts, whose sums are (S,)."""
    calendar = data.calendar
    total = pooled_sums(data.tape, sums, calendar.bars_per_year, decision_weight(data.tape))
    return summarize(curve, jnp.ones((), curve.dtype), calendar.valid, calendar.bars_per_year, total)


def pool_lanes(p: Pass, data: EvaluationSet) -> Pooled:
    """Pooled figures and curves of every lane of a Pass whose accounts started with 1, whether its record was kept."""

    def one(of: tuple[jax.Array, TradeSums]) -> Pooled:
        curve, daily = pool_equity(data, of[0]), portfolio_curve(data, of[0])
        figures, portfolio = pooled_metrics(data, curve, of[1]), portfolio_metrics(data, daily, of[1])
        return Pooled(figures, curve, portfolio, daily, portfolio_sums(data, of[1]))

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
    curve, daily = pool_equity(data, record.equity), portfolio_curve(data, record.equity)
    n = p.valid.shape[0]
    held = buy_and_hold(*fills(tape, n), p.valid, tape.costs, paid_since(tape, n))
    pooled_hold = pool_equity(data, held)
    figures = Figures(
        pooled_metrics(data, curve, sums),
        summarize(record.equity.T, ones, p.valid.T, tape.bars_per_year, sums),
        record.ruined.any(0).sum(dtype=jnp.int32),
        *action_shares(action, p.valid, tape, n_actions),
        pooled_hold[-1] - 1.0,
        held[-1] - 1.0,
        portfolio_metrics(data, daily, sums),
    )
    return Score(record, action, p.valid, sums, figures, Curves(curve, pooled_hold, held, daily))


def validate(
    agent: Agent,
    spec: EnvSpec,
    params: Params,
    data: EvaluationSet,
    n_bars: int,
    receptive_field: int,
    mesh: Mesh | None = None,
) -> Score:
    """Play the argmax policy over an evaluation set, one account a symbol, and score it.

    Where there is a mesh, its devices divide the symbols, and all have the score.
    """
    if mesh is None:
        played = play_policy(agent, spec, params, data.tape, n_bars, receptive_field)
        return score(played, data, spec.actions.n_actions)
    everywhere = NamedSharding(mesh, PartitionSpec())
    played = _play_divided(agent, spec, params, data.tape, n_bars, receptive_field, mesh)
    n_symbols, gathered = data.tape.n_symbols, jax.lax.with_sharding_constraint(played, everywhere)
    own = {
        name: jax.tree.map(lambda x, a=axis: jax.lax.slice_in_dim(x, 0, n_symbols, axis=a), getattr(gathered, name))
        for name, axis in _SYMBOLS.items()
    }
    scored: Score = jax.lax.with_sharding_constraint(score(Pass(**own), data, spec.actions.n_actions), everywhere)
    return scored


_SYMBOLS = {"equity": 2, "sums": 1, "valid": 1, "account": 1, "record": 2, "note": 2, "watched": 0}
"""Axis of the symbols in each part of a Pass."""


def _play_divided(
    agent: Agent, spec: EnvSpec, params: Params, tape: Tape, n_bars: int, receptive_field: int, mesh: Mesh
) -> Pass:
    """A policy's Pass, symbols divided over all devices; where they do not come out even the first are played again."""
    share = -(-tape.n_symbols // mesh.size)
    axes = tuple(mesh.axis_names)

    def one(params: Params, tape: Tape) -> Pass:
        mine = (share * jax.lax.axis_index(axes) + jnp.arange(share)) % tape.n_symbols
        own = jax.tree.map(lambda x: x[mine], tape)
        return play_policy(agent, spec, params, own, n_bars, receptive_field)

    divided: dict[str, Any] = {name: PartitionSpec(*(None,) * axis, axes) for name, axis in _SYMBOLS.items()}
    played: Pass = jax.shard_map(
        one, mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec()), out_specs=Pass(**divided), check_vma=False
    )(params, tape)
    return played
