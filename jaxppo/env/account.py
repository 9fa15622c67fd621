"""The arithmetic of money: one bar of one account. Elementwise, so any batch shape works, in float32 or float64.

Order of events (the timing contract): the order fills at the open; during the bar liquidation, stop-loss and
take-profit are looked at in that order; the account is marked at the close, where borrow accrues.

The state keeps the equity, to which every bar adds its profit less its costs; cash is the equity less the value of the
position. If the state kept cash and the equity were cash + units * close, then under leverage float32 would round sums
of several times the equity, and the errors would stay in the account.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32

from jaxppo.config.schema import EnvConfig
from jaxppo.market.tape import Costs, MarketStep

# Why a position was closed during a bar. An order at the open is not one of these.
REASON_NONE, REASON_STOP, REASON_TAKE_PROFIT, REASON_LIQUIDATION, REASON_END = 0, 1, 2, 3, 4
REASONS = ("order", "stop", "take_profit", "liquidation", "end")


class AccountState(NamedTuple):
    """An account at a close. Money and units are floats of the ledger's dtype; any common shape."""

    units: Float[jax.Array, "*accounts"]  # signed
    mark: Float[jax.Array, "*accounts"]  # price of the units in `equity`: the close; anything when flat
    equity: Float[jax.Array, "*accounts"]  # cash + units * mark
    rest: Float[jax.Array, "*accounts"]  # rounded off `equity` so far; added with the next change (Kahan 1965)
    peak: Float[jax.Array, "*accounts"]  # highest equity at a close so far, the start included
    average_cost: Float[jax.Array, "*accounts"]  # average entry fill price of the open position; 0 when flat
    stop: Float[jax.Array, "*accounts"]  # price level; 0 (long) or inf (short) for none
    take_profit: Float[jax.Array, "*accounts"]  # price level; inf (long) or 0 (short) for none
    trade_pnl: Float[jax.Array, "*accounts"]  # realised so far in the open trade, net of its fees and borrow
    bars_held: Int32[jax.Array, "*accounts"]
    trades: Int32[jax.Array, "*accounts"]  # round trips closed
    wins: Int32[jax.Array, "*accounts"]  # those with a net gain

    @property
    def cash(self) -> jax.Array:
        """Negative for what a leveraged long owes."""
        return self.equity - self.units * self.mark


class Levels(NamedTuple):
    """Exit prices given from outside, in place of distances from the entry; nan leaves a level as it is."""

    stop: Float[jax.Array, "*levels"]  # price
    take_profit: Float[jax.Array, "*levels"]  # price


class StepRecord(NamedTuple):
    """What happened on one bar: enough to rebuild every trade. Same shape as the account."""

    equity: Float[jax.Array, "*record"]  # at the close
    net_return: Float[jax.Array, "*record"]  # equity / equity at the last close - 1
    units: Float[jax.Array, "*record"]  # at the close
    order_units: Float[jax.Array, "*record"]  # signed units filled at the open
    order_price: Float[jax.Array, "*record"]  # its fill price
    exit_units: Float[jax.Array, "*record"]  # signed units filled during the bar (0: nothing fired)
    exit_price: Float[jax.Array, "*record"]
    reason: Int32[jax.Array, "*record"]  # one of REASON_*
    fees: Float[jax.Array, "*record"]  # money
    borrow: Float[jax.Array, "*record"]  # money
    cost: Float[jax.Array, "*record"]  # fees + impact, money, against fills at the mid price
    traded: Float[jax.Array, "*record"]  # notional filled, money
    exposure: Float[jax.Array, "*record"]  # signed notional / equity, right after the order
    closed: Int32[jax.Array, "*record"]  # round trips closed on this bar, 0 to 2
    wins: Int32[jax.Array, "*record"]  # those with a net gain
    losers: Int32[jax.Array, "*record"]  # those with a net loss; one that broke even is neither
    gain: Float[jax.Array, "*record"]  # net P&L of those with a gain
    loss: Float[jax.Array, "*record"]  # net P&L of those with a loss, <= 0
    ruined: Bool[jax.Array, "*record"]  # on this bar or, where an account goes on after its ruin, before
    dividend: Float[jax.Array, "*record"] | None = None  # money paid at the open for the units held until then


def open_account(start: jax.Array) -> AccountState:
    """A fresh account of `start` cash; fields take its shape and dtype."""
    zero = jnp.zeros_like(start)
    count = jnp.zeros(start.shape, jnp.int32)
    return AccountState(
        units=zero,
        mark=zero,
        equity=start,
        rest=zero,
        peak=start,
        average_cost=zero,
        stop=zero,
        take_profit=zero,
        trade_pnl=zero,
        bars_held=count,
        trades=count,
        wins=count,
    )


def broken_accounts(account: AccountState) -> jax.Array:
    """Accounts that hold a NaN or an infinite amount, bool of the account's shape.

    Such an account does not recover: NaN compares as false, so it is never ruined, and every later bar of its episode
    would be NaN too.
    """
    # A sum is finite only if all its terms are, so one test is enough for all amounts. Exit levels are tested apart,
    # for they are infinite where there is none.
    levels = jnp.isnan(account.stop) | jnp.isnan(account.take_profit)
    money = (
        account.units * account.mark
        + account.equity
        + account.rest
        + account.peak
        + account.average_cost
        + account.trade_pnl
    )
    return levels | ~jnp.isfinite(money)


def equity_at(account: AccountState, price: jax.Array) -> jax.Array:
    """Equity with the position marked at `price`."""
    return account.equity + account.units * (price - account.mark)


def ex_dividend(account: AccountState, bar: MarketStep) -> AccountState:
    """An account at the last close, whose units are about to be paid what `bar` pays those held until it opens.

    The mark goes without it: what the units are worth at any price of the bar is counted from the close less the
    dividend, so that cash for a long (and what a short owes) is part of the equity from the open on.
    """
    if bar.dividend is None:
        return account
    trade_pnl = account.trade_pnl + account.units * bar.dividend
    return account._replace(mark=account.mark - bar.dividend, trade_pnl=trade_pnl)


def gone_at(account: AccountState, price: jax.Array, ruin: jax.Array | float) -> jax.Array:
    """Bool: at `price` the equity is at or below `ruin`. Gone at the open, an account orders nothing more."""
    return equity_at(account, price) <= ruin


def _earn(account: AccountState, money: jax.Array) -> AccountState:
    """`money` added to the equity, whatever its sign, by compensated summation."""
    money = money + account.rest
    equity = account.equity + money
    return account._replace(equity=equity, rest=money - (equity - account.equity))


def exposure_at(account: AccountState, price: jax.Array) -> jax.Array:
    """Signed notional over equity at `price`; 0 where the equity is not above 0."""
    notional = account.units * price
    equity = equity_at(account, price)
    return jnp.where(equity > 0, notional / jnp.where(equity > 0, equity, 1.0), 0.0)


def units_for_exposure(account: AccountState, target: jax.Array, price: jax.Array, costs: Costs) -> jax.Array:
    """Units after which the position, marked at `price`, is `target` times the equity that is left after costs.

    With N the notional held, E the equity at `price` and c the cost of a unit of notional, the order x solves
    N + x = target (E - c |x|): a target of 1 spends all cash and not a cent more.
    """
    notional = account.units * price
    equity = equity_at(account, price)
    gap = target * equity - notional
    side = jnp.sign(gap)
    # Buying costs (1 + impact)(1 + fee) - 1 of the notional, selling 1 - (1 - impact)(1 - fee).
    cost = costs.impact + costs.fee + side * costs.impact * costs.fee
    order = gap / (1.0 + target * cost * side)
    return target * (equity - cost * jnp.abs(order)) / price


def _levels(average_cost: jax.Array, units: jax.Array, env: EnvConfig) -> tuple[jax.Array, jax.Array]:
    """Stop and take-profit prices of a position, from its average cost."""
    long = units > 0
    none_low = jnp.zeros_like(average_cost)
    none_high = jnp.full_like(average_cost, jnp.inf)
    stop = jnp.where(long, none_low, none_high)
    take = jnp.where(long, none_high, none_low)
    if env.stop_loss > 0:
        stop = average_cost * jnp.where(long, 1.0 - env.stop_loss, 1.0 + env.stop_loss)
    if env.take_profit > 0:
        take = average_cost * jnp.where(long, 1.0 + env.take_profit, 1.0 - env.take_profit)
    return stop, take


class _Fill(NamedTuple):
    price: jax.Array
    fee: jax.Array
    impact_cost: jax.Array
    notional: jax.Array
    closed: jax.Array  # bool: a round trip ended
    pnl: jax.Array  # its net P&L, else 0


def fill_order(
    account: AccountState, new_units: jax.Array, price: jax.Array, costs: Costs, env: EnvConfig
) -> tuple[AccountState, _Fill]:
    """Trade from the units held to `new_units` at the mid `price`: open, add, reduce, close or flip at average cost."""
    units = account.units
    order = new_units - units
    size = jnp.abs(order)
    side = jnp.sign(order)
    fill_price = price * (1.0 + side * costs.impact)
    fee = costs.fee * size * fill_price

    held = jnp.abs(units)
    reducing = units * order < 0
    closing = jnp.where(reducing, jnp.minimum(size, held), 0.0)
    opening = size - closing
    realised = jnp.sign(units) * closing * (fill_price - account.average_cost)
    closed = reducing & (size >= held)
    fee_closing = costs.fee * closing * fill_price
    closed_pnl = account.trade_pnl + realised - fee_closing

    entering = (opening > 0) & ((units == 0) | closed)
    adding = (opening > 0) & ~entering
    flat = new_units == 0
    # In this form an addition at the same price leaves the average as it is to the last bit.
    share = size / jnp.where(adding, jnp.abs(new_units), 1.0)
    blended = account.average_cost + (fill_price - account.average_cost) * share
    average_cost = jnp.where(adding, blended, jnp.where(entering, fill_price, account.average_cost))
    average_cost = jnp.where(flat, 0.0, average_cost)
    stop, take = _levels(average_cost, new_units, env)
    opened = opening > 0
    impact_cost = size * price * costs.impact
    filled = _earn(account, units * (price - account.mark) - fee - impact_cost)._replace(
        units=new_units,
        mark=price,
        average_cost=average_cost,
        stop=jnp.where(opened, stop, account.stop),
        take_profit=jnp.where(opened, take, account.take_profit),
        trade_pnl=jnp.where(flat, 0.0, jnp.where(entering, -(fee - fee_closing), account.trade_pnl + realised - fee)),
        bars_held=jnp.where(flat | entering, 0, account.bars_held),
    )
    fill = _Fill(fill_price, fee, impact_cost, size * fill_price, closed, jnp.where(closed, closed_pnl, 0.0))
    return filled, fill


def book_fill(
    account: AccountState, new_units: jax.Array, price: jax.Array, fee: jax.Array, env: EnvConfig
) -> AccountState:
    """A fill that somebody else made: at his price and for his fee, in place of the bar's open and a symbol's costs.

    Args:
      account: before the fill, any shape.
      new_units: signed units held after it.
      price: of the fill.
      fee: money, 0 or more.
      env: whose stop and take-profit distances an entry sets.
    """
    notional = jnp.abs(new_units - account.units) * price
    rate = fee / jnp.where(notional > 0, notional, 1.0)
    nothing = jnp.zeros_like(rate)
    filled, fill = fill_order(account, new_units, price, Costs(rate, nothing, nothing), env)
    trades, wins = account.trades + fill.closed.astype(jnp.int32), account.wins + (fill.pnl > 0).astype(jnp.int32)
    return filled._replace(trades=trades, wins=wins)


def book_close(account: AccountState, close: jax.Array) -> AccountState:
    """The account at the close of a bar on which somebody else filled, and whose borrow he charges."""
    marked = _earn(account, account.units * (close - account.mark))
    held = account.bars_held + (account.units != 0).astype(jnp.int32)
    mark = jnp.broadcast_to(close, marked.equity.shape)
    return marked._replace(mark=mark, peak=jnp.maximum(account.peak, marked.equity), bars_held=held)


def _place_levels(before: AccountState, ordered: AccountState, levels: Levels) -> AccountState:
    """The given levels on the position that the order left; an addition, unlike a flip, keeps the earlier ones."""
    same = before.units * ordered.units > 0

    def place(given: jax.Array, earlier: jax.Array, fresh: jax.Array) -> jax.Array:
        return jnp.where(jnp.isnan(given), jnp.where(same, earlier, fresh), given)

    return ordered._replace(
        stop=place(levels.stop, before.stop, ordered.stop),
        take_profit=place(levels.take_profit, before.take_profit, ordered.take_profit),
    )


class _Exit(NamedTuple):
    price: jax.Array  # mid price of the exit
    reason: jax.Array  # int32


def _find_exit(account: AccountState, bar: MarketStep, ruin: jax.Array, env: EnvConfig, slack: float) -> _Exit:
    """Which of liquidation, stop-loss and take-profit fires on this bar, and at what mid price.

    An exact touch fires, and with it a stop or take-profit that is missed by less than the share `slack` of its price.
    A gap through a level fills at the open, which for the take-profit is optional.
    """
    units = account.units
    long = units > 0
    holding = units != 0
    liquidation = account.mark - (account.equity - ruin) / jnp.where(holding, units, 1.0)
    adverse = jnp.where(long, bar.low, bar.high)
    favourable = jnp.where(long, bar.high, bar.low)

    liquidated = holding & jnp.where(long, adverse <= liquidation, adverse >= liquidation)
    above, below = 1.0 + slack, 1.0 - slack
    stopped = holding & jnp.where(long, adverse <= account.stop * above, adverse >= account.stop * below)
    take = account.take_profit
    taken = holding & jnp.where(long, favourable >= take * below, favourable <= take * above)

    def worse(level: jax.Array) -> jax.Array:
        return jnp.where(long, jnp.minimum(bar.open, level), jnp.maximum(bar.open, level))

    take_price = take
    if env.take_profit_gap == "open":
        take_price = jnp.where(long, jnp.maximum(bar.open, take_price), jnp.minimum(bar.open, take_price))
    price = jnp.where(liquidated, worse(liquidation), jnp.where(stopped, worse(account.stop), take_price))
    reason = jnp.where(
        liquidated,
        REASON_LIQUIDATION,
        jnp.where(stopped, REASON_STOP, jnp.where(taken, REASON_TAKE_PROFIT, REASON_NONE)),
    )
    return _Exit(jnp.where(reason > 0, price, bar.open), reason.astype(jnp.int32))


def _close_position(account: AccountState, exit_: _Exit, costs: Costs) -> tuple[AccountState, _Fill]:
    """Close all units at the exit's mid price where it fired; untouched elsewhere."""
    fires = exit_.reason > 0
    units = jnp.where(fires, account.units, 0.0)
    size = jnp.abs(units)
    price = exit_.price * (1.0 - jnp.sign(units) * costs.impact)
    fee = costs.fee * size * price
    pnl = account.trade_pnl + units * (price - account.average_cost) - fee
    impact_cost = size * exit_.price * costs.impact
    after = _earn(account, units * (exit_.price - account.mark) - fee - impact_cost)._replace(
        units=account.units - units,
        average_cost=jnp.where(fires, 0.0, account.average_cost),
        trade_pnl=jnp.where(fires, 0.0, account.trade_pnl),
        bars_held=jnp.where(fires, 0, account.bars_held),
    )
    return after, _Fill(price, fee, impact_cost, size * price, fires, jnp.where(fires, pnl, 0.0))


def advance(
    account: AccountState,
    new_units: jax.Array,
    bar: MarketStep,
    costs: Costs,
    ruin: jax.Array,
    env: EnvConfig,
    levels: Levels | None = None,
) -> tuple[AccountState, StepRecord]:
    """One bar: fill at the open, exits during the bar, mark at the close.

    Args:
      account: state at the last close.
      new_units: signed units wanted after the order; equal to `account.units` for no order.
      bar: the bar after the decision.
      costs: of the symbol.
      ruin: equity at or below which the account is liquidated.
      env: static settings (stops, take-profit gap).
      levels: absolute stop and take-profit prices, in force from this open on while the position keeps its side.

    Returns:
      The account at this bar's close and the record of the bar, of the same shape.
    """
    ordered, order = fill_order(account, new_units, bar.open, costs, env)
    if levels is not None:
        ordered = _place_levels(account, ordered, levels)
    exposure = exposure_at(ordered, bar.open)
    # A level computed from the entry price is rounded, and must still be touched by a bar that touches the exact one:
    # 98.49, which is 2 % below 100.5, is off by half a unit in the last place each for the entry, the factor .98, their
    # product and the bar's low. A level that was given is exact and needs no tolerance.
    slack = 2.0 * float(jnp.finfo(account.equity.dtype).eps) if levels is None else 0.0
    exit_ = _find_exit(ordered, bar, ruin, env, slack)
    exited, out = _close_position(ordered, exit_, costs)

    borrow = costs.borrow * jnp.maximum(-exited.units, 0.0) * bar.close
    marked = _earn(exited, exited.units * (bar.close - exited.mark) - borrow)
    equity = marked.equity
    closed = order.closed.astype(jnp.int32) + out.closed.astype(jnp.int32)
    wins = (order.pnl > 0).astype(jnp.int32) + (out.pnl > 0).astype(jnp.int32)
    marked = marked._replace(
        mark=jnp.broadcast_to(bar.close, equity.shape),
        peak=jnp.maximum(account.peak, equity),
        trade_pnl=exited.trade_pnl - borrow,
        bars_held=exited.bars_held + (exited.units != 0).astype(jnp.int32),
        trades=account.trades + closed,
        wins=account.wins + wins,
    )
    record = StepRecord(
        equity=equity,
        net_return=equity / account.equity - 1.0,
        units=exited.units,
        order_units=new_units - account.units,
        order_price=order.price,
        exit_units=exited.units - ordered.units,
        exit_price=out.price,
        reason=exit_.reason,
        fees=order.fee + out.fee,
        borrow=borrow,
        cost=order.fee + out.fee + order.impact_cost + out.impact_cost,
        traded=order.notional + out.notional,
        exposure=exposure,
        closed=closed,
        wins=wins,
        losers=(order.pnl < 0).astype(jnp.int32) + (out.pnl < 0).astype(jnp.int32),
        gain=jnp.maximum(order.pnl, 0.0) + jnp.maximum(out.pnl, 0.0),
        loss=jnp.minimum(order.pnl, 0.0) + jnp.minimum(out.pnl, 0.0),
        ruined=(exit_.reason == REASON_LIQUIDATION) | (equity <= ruin),
    )
    return marked, record


def settle(
    account: AccountState,
    units: jax.Array,
    bar: MarketStep,
    costs: Costs,
    ruin: jax.Array,
    env: EnvConfig,
    ruined: jax.Array | bool = False,
    levels: Levels | None = None,
) -> tuple[AccountState, StepRecord]:
    """`advance` with the units that were ordered, unless the account is gone.

    An account that is gone at the open is about to be liquidated there: of less than nothing no order is a share. One
    that was ruined before sells what it still holds and trades no more.

    Args:
      account, bar, costs, ruin, env, levels: as of `advance`.
      units: signed units wanted after the order.
      ruined: bool, of an account that was ruined before and stays so.
    """
    held, account = account.units, ex_dividend(account, bar)
    units = jnp.where(gone_at(account, bar.open, ruin), account.units, units)
    after, record = advance(account, jnp.where(ruined, 0.0, units), bar, costs, ruin, env, levels)
    if bar.dividend is not None:
        record = record._replace(dividend=held * bar.dividend)
    # Set here, since for an account liquidated at exactly the ruin level rounding would decide `equity <= ruin`.
    return after, record._replace(ruined=record.ruined | ruined)


def close_out(
    account: AccountState, record: StepRecord, price: jax.Array, costs: Costs, where: jax.Array
) -> tuple[AccountState, StepRecord]:
    """Sell what is still open after a bar, at its close and at cost, where `where`; the record then says so.

    Args:
      account: state at the close.
      record: of the bar; what `where` selects must not have exited during it, or holds nothing.
      price: the close.
      costs: of the symbol.
      where: bool, broadcastable.
    """
    fires = where & (account.units != 0)
    reason = jnp.where(fires, REASON_END, REASON_NONE).astype(jnp.int32)
    closed, fill = _close_position(account, _Exit(price, reason), costs)
    equity = closed.equity
    growth = (1.0 + record.net_return) * equity / jnp.where(record.equity == 0, 1.0, record.equity)
    won = (fill.pnl > 0).astype(jnp.int32)
    ended = fill.closed.astype(jnp.int32)
    after = closed._replace(trades=closed.trades + ended, wins=closed.wins + won)
    return after, record._replace(
        equity=equity,
        net_return=jnp.where(fires, growth - 1.0, record.net_return),
        units=closed.units,
        exit_units=jnp.where(fires, -account.units, record.exit_units),
        exit_price=jnp.where(fires, fill.price, record.exit_price),
        reason=jnp.where(fires, REASON_END, record.reason),
        fees=record.fees + fill.fee,
        cost=record.cost + fill.fee + fill.impact_cost,
        traded=record.traded + fill.notional,
        closed=record.closed + ended,
        wins=record.wins + won,
        losers=record.losers + (fill.pnl < 0).astype(jnp.int32),
        gain=record.gain + jnp.maximum(fill.pnl, 0.0),
        loss=record.loss + jnp.minimum(fill.pnl, 0.0),
    )
