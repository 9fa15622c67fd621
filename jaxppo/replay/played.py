"""Replay of given decisions through the account step of the environment, and the figures of the curve it leaves."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxppo.config.schema import EnvConfig
from jaxppo.env.account import (
    AccountState,
    Levels,
    StepRecord,
    close_out,
    gone_at,
    open_account,
    settle,
    units_for_exposure,
)
from jaxppo.market.tape import Costs, MarketStep
from jaxppo.play.baselines import buy_and_hold
from jaxppo.play.formulas import moments, net_returns
from jaxppo.play.metrics import Metrics, summarize
from jaxppo.play.passes import bar_sums
from jaxppo.play.significance import Intervals, bootstrap, deflated_sharpe, probabilistic_sharpe


class ReplayRules(NamedTuple):
    """What is fixed for a replay."""

    order: str  # "target", "units" or "order_units": what an order's number means
    take_profit_gap: str  # "open" or "limit"
    leverage: float | None  # largest notional over equity that an order may lead to; None for any
    close_at_end: bool


class Orders(NamedTuple):
    """One row a bar that can be filled; nan where nothing is said. Floats of the account's dtype."""

    value: jax.Array  # (N,)
    levels: Levels  # (N,)


class Replay(NamedTuple):
    """The account at every close, what happened on every bar, and which orders were not sent as given."""

    account: AccountState  # (N,)
    record: StepRecord  # (N,)
    cut: jax.Array  # (N,) bool: the order was cut down to the leverage
    dropped: jax.Array  # (N,) bool: an order for an account that was gone


def _wanted_units(account: AccountState, value: jax.Array, price: jax.Array, costs: Costs, order: str) -> jax.Array:
    if order == "target":
        wanted = units_for_exposure(account, value, price, costs)
    elif order == "units":
        wanted = value
    else:
        wanted = account.units + value
        # Fractions that add up to nothing leave a speck: 0.1 + 0.2 - 0.3 is 6e-17, and a trade that never closes.
        speck = 64 * jnp.finfo(value.dtype).eps * jnp.abs(account.units)
        wanted = jnp.where(jnp.abs(wanted) <= speck, 0.0, wanted)
    return jnp.where(jnp.isnan(value), account.units, wanted)


def _within_leverage(
    account: AccountState, wanted: jax.Array, price: jax.Array, costs: Costs, leverage: float | None
) -> tuple[jax.Array, jax.Array]:
    """`wanted`, or as much of it as the leverage allows, and whether that is less. Reductions are never cut."""
    if leverage is None:
        return wanted, jnp.zeros(wanted.shape, bool)
    most = jnp.full_like(wanted, leverage)
    long = jnp.maximum(units_for_exposure(account, most, price, costs), account.units)
    short = jnp.minimum(units_for_exposure(account, -most, price, costs), account.units)
    allowed = jnp.clip(wanted, short, long)
    # A target that is the leverage itself may differ from it by rounding.
    return allowed, jnp.abs(wanted - allowed) > 64 * jnp.finfo(wanted.dtype).eps * jnp.abs(wanted)


@partial(jax.jit, static_argnames="rules")
def replay(
    orders: Orders, bars: MarketStep, costs: Costs, start: jax.Array, ruin: jax.Array, rules: ReplayRules
) -> Replay:
    """Play one account through N bars, each order filled at the open of its row's bar.

    A ruined account is liquidated and sends no more orders, as in validation.

    Args:
      orders: (N,); row i was decided at the close before bar i.
      bars: (N,).
      costs: (); of the symbol, borrow per bar.
      start: () cash.
      ruin: () money at or below which the account is liquidated.
      rules: static.
    """
    env = EnvConfig(stop_loss=0.0, take_profit=0.0, take_profit_gap=rules.take_profit_gap)  # type: ignore[arg-type]
    is_last = jnp.arange(orders.value.shape[0]) == orders.value.shape[0] - 1

    def bar(carry: tuple[AccountState, jax.Array], x: tuple) -> tuple[tuple[AccountState, jax.Array], Replay]:
        (account, ruined), (row, market, last) = carry, x
        wanted = _wanted_units(account, row.value, market.open, costs, rules.order)
        wanted, cut = _within_leverage(account, wanted, market.open, costs, rules.leverage)
        gone = ruined | gone_at(account, market.open, ruin)
        after, record = settle(account, wanted, market, costs, ruin, env, ruined, row.levels)
        if rules.close_at_end:
            after, record = close_out(after, record, market.close, costs, last)
        done = Replay(after, record, cut & ~gone, gone & ~jnp.isnan(row.value))
        return (after, record.ruined), done

    start_state = (open_account(start), jnp.zeros((), bool))
    return jax.lax.scan(bar, start_state, (orders, bars, is_last))[1]


class ReplayFigures(NamedTuple):
    """What is said about one replay."""

    metrics: Metrics  # (); money per unit of the start
    intervals: Intervals  # ()
    probabilistic_sharpe: jax.Array  # ()
    deflated_sharpe: jax.Array  # ()
    buy_and_hold: jax.Array  # () net return of buying at the first open and selling at the last close, costs paid


def replay_metrics(done: Replay, close: jax.Array, start: jax.Array, bars_per_year: jax.Array) -> Metrics:
    """Metrics () of a replay of N bars; `close` (N,), `start` and `bars_per_year` (). Money is in starts."""
    record, n = done.record, close.shape[0]
    before = jnp.concatenate([jnp.expand_dims(start, 0), record.equity[:-1]])
    valid = jnp.ones(n, bool)
    unit = record._replace(
        equity=record.equity / start,
        units=record.units / start,
        traded=record.traded / start,
        gain=record.gain / start,
        loss=record.loss / start,
    )
    sums = jax.tree.map(lambda x: x.sum(0, dtype=x.dtype), bar_sums(unit, before / start, close, valid))
    sums = sums._replace(turnover=sums.turnover / n, exposure=sums.exposure / n)
    return summarize(unit.equity, jnp.ones_like(start), valid, bars_per_year, sums)


@jax.jit
def replay_figures(
    done: Replay, bars: MarketStep, costs: Costs, start: jax.Array, bars_per_year: jax.Array, trials: jax.Array
) -> ReplayFigures:
    """Figures of a replay of (N,) bars; `costs`, `start`, `bars_per_year` and `trials` are ()."""
    equity, valid = done.record.equity, jnp.ones(bars.close.shape[0], bool)
    column = partial(jnp.expand_dims, axis=-1)
    hold = buy_and_hold(column(bars.open), column(bars.close), column(valid), jax.tree.map(column, costs))
    m = moments(net_returns(equity, start, valid), valid)
    return ReplayFigures(
        metrics=replay_metrics(done, bars.close, start, bars_per_year),
        intervals=bootstrap(equity, start, valid, bars_per_year, jax.random.key(0)),
        probabilistic_sharpe=probabilistic_sharpe(m),
        deflated_sharpe=deflated_sharpe(m, trials),
        buy_and_hold=hold[-1, 0] - 1.0,
    )


@partial(jax.jit, static_argnames="rules")
def replay_variants(
    orders: Orders,
    costs: Costs,
    bars: MarketStep,
    start: jax.Array,
    ruin: jax.Array,
    bars_per_year: jax.Array,
    rules: ReplayRules,
) -> Metrics:
    """Metrics (L,) of L replays side by side: `orders` (L, N) and `costs` (L,), the rest as of `replay`."""

    def one(orders: Orders, costs: Costs) -> Metrics:
        return replay_metrics(replay(orders, bars, costs, start, ruin, rules), bars.close, start, bars_per_year)

    return jax.vmap(one)(orders, costs)
