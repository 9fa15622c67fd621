"""A Pass: accounts that a decider plays over bars, every symbol at once. Pure, so it runs inside any program.

Everything that is judged comes from here: a validation, a backtest with its cost sweep and baselines, the folds of a
walk-forward, a user's own decisions, the lanes of the reward check. What differs is who decides (see `deciders`), on
which bars (`first` and `length` of the Tape) and at what costs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxppo.config.schema import EnvConfig
from jaxppo.env.account import AccountState, Levels, StepRecord, close_out, ex_dividend, gone_at, open_account, settle
from jaxppo.market.tape import Costs, MarketStep, Quote, Tape, consecutive_bars, take_quotes, take_steps
from jaxppo.packed import packed_scan
from jaxppo.play.curve import TradeSums


class Moment(NamedTuple):
    """What a decider is given at the close of a bar, for L accounts of each of S symbols."""

    row: Any  # of the decider's own inputs
    account: AccountState  # (L, S)
    quote: Quote  # (1, S) of the decision bar
    market: MarketStep  # (1, S): the bar to come, at whose open the order fills; nothing else of it may be looked at
    costs: Costs  # (L, S)
    gone: Bool[jax.Array, "L S"]  # ruined before, or about to be at that open; such an account sends no order

    @property
    def opening(self) -> AccountState:
        """The account that an order is computed from, with what its units are paid as the bar to come opens."""
        return ex_dividend(self.account, self.market)


class Order(NamedTuple):
    """What the accounts do on the bar to come."""

    units: jax.Array  # (L, S): signed units wanted after the order; those of the account for no order
    close: jax.Array | bool = False  # (L, S): sell what is held at the close
    levels: Levels | None = None  # (L, S): stop and take-profit prices from outside
    note: Any = None  # arrays (L, S, ...) to keep in the Pass


class Decider(NamedTuple):
    """Who decides. Static but for `inputs`; build with `jaxppo.play.deciders`."""

    inputs: Any  # pytree of (N, ...) arrays, a row a decision
    decide: Callable[[Moment], Order]
    env: EnvConfig  # stops, ruin level and gaps of the accounts


class Bar(NamedTuple):
    """What happened on one bar of every account, as a `Watcher` sees it."""

    before: AccountState  # (L, S) at the decision's close
    after: AccountState  # (L, S) at this bar's close, before a ruined account starts again
    record: StepRecord  # (L, S)
    market: MarketStep  # (1, S)
    valid: Bool[jax.Array, "1 S"]
    note: Any  # (L, S, ...), what the decider noted


class Watcher(NamedTuple):
    """Something to add up over the bars of a Pass."""

    start: Any  # pytree of arrays
    add: Callable[[Any, Bar], Any]  # what there is so far, and a bar


class Pass(NamedTuple):
    """What L accounts a symbol did on N decisions of S symbols, padded at the end.

    After a symbol's last bar its record repeats a flat, unchanged account.
    """

    equity: Float[jax.Array, "N L S"]  # at the closes, from a start of `cash`
    sums: TradeSums  # (L, S)
    valid: Bool[jax.Array, "N S"]  # the decisions that are a symbol's own
    account: AccountState  # (L, S) at the last close
    record: StepRecord | None  # (N, L, S), where it was kept
    note: Any  # (N, L, S, ...), what the decider noted; None where the record was not kept
    watched: Any  # what the watcher had added up at the end; None without one


class _Carry(NamedTuple):
    # Lanes first: with the two lanes of a cost sweep last, no loop over accounts is vectorised and a bar of 100 symbols
    # takes three times as long on a CPU.
    account: AccountState  # (L, S)
    ruined: Bool[jax.Array, "L S"]
    watched: Any


def n_decisions(tape: Tape) -> int:
    """Static bound on the decisions of any symbol of an evaluation tape; needs concrete `first` and `length`."""
    return int(jnp.max(tape.length - 1 - tape.first))


def decision_bars(tape: Tape, n_bars: int) -> tuple[jax.Array, jax.Array]:
    """Decision bars of every symbol (N, S) int32, the last one repeated, and which are its own (N, S) bool."""
    last = jnp.expand_dims(tape.length - 2, 0)
    t = consecutive_bars(tape.first, n_bars)
    return jnp.minimum(t, last), t <= last


def symbol_rows(t: jax.Array) -> jax.Array:
    """Symbol of each entry of bars (N, S): int32, the column."""
    return jnp.broadcast_to(jnp.arange(t.shape[1], dtype=jnp.int32), t.shape)


def fills(tape: Tape, n_bars: int) -> tuple[jax.Array, jax.Array]:
    """Open and close (N, S) of the bar after each decision."""
    t, _ = decision_bars(tape, n_bars)
    symbol = symbol_rows(t)
    return tape.open[symbol, t + 1], tape.close[symbol, t + 1]


def paid_since(tape: Tape, n_bars: int) -> jax.Array | None:
    """Dividends (N, S) that a unit which the first decision bought was paid until each bar after; None without any."""
    if tape.dividend is None:
        return None
    t, _ = decision_bars(tape, n_bars)
    each = tape.dividend[symbol_rows(t), t + 1]
    return jnp.cumsum(each, axis=0) - each[:1]


def as_lanes(costs: Costs, multiples: tuple[float, ...] = (1.0,)) -> Costs:
    """Costs (S,) as those of L lanes, each at a multiple: (L, S)."""
    factors = jnp.expand_dims(jnp.asarray(multiples, costs.fee.dtype), -1)
    lanes: Costs = jax.tree.map(lambda c: jnp.expand_dims(c, 0) * factors, costs)
    return lanes


def play(
    decider: Decider,
    tape: Tape,
    n_bars: int,
    costs: Costs | None = None,
    *,
    keep: bool = True,
    cash: float = 1.0,
    close_at_end: bool = True,
    restart: bool = False,
    watcher: Watcher | None = None,
) -> Pass:
    """Decide from the first to the last bar of every symbol, L accounts of `cash` each.

    Args:
      decider: who decides.
      tape: the market.
      n_bars: N, at least the decisions of any symbol.
      costs: (L, S); by default the Tape's own, for one lane. L is taken from here.
      keep: keep the whole record and the notes. Those of 21 accounts of 100 symbols over 20,000 bars take 3 GB; the
        equity alone takes 170 MB.
      cash: money that every account starts with.
      close_at_end: sell what is open at a symbol's last close, at cost; else it stays open, marked to market.
      restart: a ruined account starts again, as in training; else it is closed out and stays ruined.
      watcher: adds something up besides.
    """
    costs = as_lanes(tape.check().costs) if costs is None else costs
    chex.assert_shape(costs, (None, tape.n_symbols))
    t, valid = decision_bars(tape, n_bars)
    symbol = symbol_rows(t)
    steps = jax.tree.map(lambda x: jnp.expand_dims(x, 1), take_steps(tape, symbol, t))
    quotes = jax.tree.map(lambda x: jnp.expand_dims(x, 1), take_quotes(tape, symbol, t))
    at_end = jnp.expand_dims(t == jnp.expand_dims(tape.length - 2, 0), 1)
    ruin = jnp.asarray(decider.env.ruin_level * cash, costs.fee.dtype)

    start = open_account(jnp.full(costs.fee.shape, cash, tape.close.dtype))
    zero, none = jnp.zeros_like(start.equity), jnp.zeros(costs.fee.shape, jnp.int32)

    def bar(carry: _Carry, x: tuple[Any, ...]) -> tuple[_Carry, tuple[StepRecord, Any]]:
        row, market, quote, ok, last = x
        before = carry.account
        gone = carry.ruined | gone_at(ex_dividend(before, market), market.open, ruin)
        order = decider.decide(Moment(row, before, quote, market, costs, gone))
        chex.assert_shape(order.units, before.units.shape)
        account, record = settle(before, order.units, market, costs, ruin, decider.env, carry.ruined, order.levels)
        if close_at_end or order.close is not False:
            closing = (last | order.close) if close_at_end else jnp.asarray(order.close)
            account, record = close_out(account, record, market.close, costs, closing)
        idle = jax.tree.map(jnp.zeros_like, record)._replace(equity=before.equity)
        record, account = jax.tree.map(lambda new, old: jnp.where(ok, new, old), (record, account), (idle, before))
        watched = carry.watched
        if watcher is not None:
            watched = watcher.add(watched, Bar(before, account, record, market, ok, order.note))
        if restart:
            account = jax.tree.map(lambda new, old: jnp.where(record.ruined, new, old), start, account)
        return _Carry(account, jnp.where(restart, False, carry.ruined | record.ruined), watched), (record, order.note)

    begin = _Carry(start, jnp.zeros(costs.fee.shape, bool), None if watcher is None else watcher.start)
    xs = (decider.inputs, steps, quotes, jnp.expand_dims(valid, 1), at_end)
    bars = jnp.maximum(tape.length - 1 - tape.first, 1).astype(start.equity.dtype).reshape(1, -1)
    if keep:
        end, (record, note) = packed_scan(bar, begin, xs)
        before = jnp.concatenate([jnp.expand_dims(start.equity, 0), record.equity[:-1]])
        rows = bar_sums(record, before, steps.close, jnp.expand_dims(valid, 1), cash)
        sums = jax.tree.map(lambda x: x.sum(0, dtype=x.dtype), rows)
        return Pass(record.equity, _per_bar(sums, bars), valid, end.account, record, note, end.watched)

    def step(carry: tuple[_Carry, TradeSums], x: tuple[Any, ...]) -> tuple[tuple[_Carry, TradeSums], jax.Array]:
        before, sums = carry
        after, (record, _) = bar(before, x)
        added = bar_sums(record, before.account.equity, x[1].close, x[3], cash)
        return (after, jax.tree.map(jnp.add, sums, added)), record.equity

    (end, sums), equity = packed_scan(step, (begin, TradeSums(zero, zero, none, none, none, zero, zero, zero)), xs)
    return Pass(equity, _per_bar(sums, bars), valid, end.account, None, None, end.watched)


def bar_sums(record: StepRecord, before: jax.Array, close: jax.Array, valid: jax.Array, cash: float = 1.0) -> TradeSums:
    """What each bar adds to the sums of its account; `before` is the equity at the last close. Money is in starts."""
    # At the close: the exposure right after the order would count bars that a stop cut short.
    held = jnp.abs(record.units) * close / jnp.maximum(record.equity, 1e-6 * cash)
    return TradeSums(
        gains=record.gain / cash,
        losses=record.loss / cash,
        trades=record.closed,
        wins=record.wins,
        losers=record.losers,
        turnover=jnp.where(valid, record.traded / jnp.maximum(before, 1e-6 * cash), 0.0),
        exposure=jnp.where(valid, held, 0.0),
        costs=jnp.where(valid, (record.cost + record.borrow) / jnp.maximum(before, 1e-6 * cash), 0.0),
    )


def _per_bar(sums: TradeSums, bars: jax.Array) -> TradeSums:
    """Turnover, exposure and costs as means over an account's bars."""
    return sums._replace(turnover=sums.turnover / bars, exposure=sums.exposure / bars, costs=sums.costs / bars)


def lane(tree: Any, index: int) -> Any:
    """One lane of arrays (N, L, S, ...), such as those of a record or a note: (N, S, ...)."""
    return jax.tree.map(lambda x: x[:, index], tree)
