"""Round trips from the recorded bars of one account, in float64 NumPy: the trade list that a trader would keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxppo.env.account import REASON_END, REASON_NONE, REASONS, StepRecord


@dataclass(frozen=True)
class Trade:
    """One round trip: from flat (or a flip) to flat (or the next flip). Money is net of nothing but what it says."""

    side: str  # "long" or "short"
    entry_bar: int  # index of the first fill
    exit_bar: int  # index of the last fill
    units: float  # bought (long) or sold (short) in all
    entry_price: float  # average fill price of all entries
    exit_price: float  # average fill price of all exits
    fees: float
    borrow: float
    pnl: float  # net of fees and borrow, dividends included
    return_: float  # pnl / entry notional
    reason: str  # what closed it, one of REASONS
    impact: float = 0.0  # spread and slippage, which the fill prices hold

    @property
    def costs(self) -> float:
        """Fees, spread, slippage and borrow cost."""
        return self.fees + self.impact + self.borrow


@dataclass
class _Open:
    side: float
    entry_bar: int
    bought: float = 0.0
    bought_notional: float = 0.0
    sold: float = 0.0
    sold_notional: float = 0.0
    fees: float = 0.0
    impact: float = 0.0
    borrow: float = 0.0
    dividend: float = 0.0

    def close(self, bar: int, reason: str) -> Trade:
        entry, exit_ = self.bought_notional / self.bought, self.sold_notional / self.sold
        pnl = self.side * (self.sold_notional - self.bought_notional) - self.fees - self.borrow + self.dividend
        return Trade(
            side="long" if self.side > 0 else "short",
            entry_bar=self.entry_bar,
            exit_bar=bar,
            units=self.bought,
            entry_price=entry,
            exit_price=exit_,
            fees=self.fees,
            borrow=self.borrow,
            pnl=pnl,
            return_=pnl / self.bought_notional,
            reason=reason,
            impact=self.impact,
        )


class _Book:
    """Builds trades fill by fill. `bought` counts entries and `sold` exits, whatever the side."""

    def __init__(self, fee: float, impact: float):
        self.fee = fee
        self.impact = impact
        self.units = 0.0
        self.open: _Open | None = None
        self.trades: list[Trade] = []

    def fill(self, bar: int, order: float, price: float, units_after: float, reason: str) -> None:
        size = abs(order)
        moved = abs(price - price / (1.0 + float(np.sign(order)) * self.impact))  # against us, a unit
        if self.open is not None and order * self.open.side < 0:
            closing = min(size, abs(self.units)) if units_after * self.units > 0 else abs(self.units)
            self.open.sold += closing
            self.open.sold_notional += closing * price
            self.open.fees += self.fee * closing * price
            self.open.impact += moved * closing
            size = max(size - closing, 0.0)
            if units_after * self.units <= 0:
                self.trades.append(self.open.close(bar, reason))
                self.open = None
        if units_after != 0 and size > 0 and (self.open is None or order * self.open.side > 0):
            self.open = self.open or _Open(side=float(np.sign(units_after)), entry_bar=bar)
            self.open.bought += size
            self.open.bought_notional += size * price
            self.open.fees += self.fee * size * price
            self.open.impact += moved * size
        self.units = units_after


def round_trips(record: StepRecord, fee: float, impact: float = 0.0) -> list[Trade]:
    """All closed round trips of one account.

    Args:
      record: (N,) fields of its bars in time order, valid bars only.
      fee: per side, on the notional.
      impact: half spread + slippage, by which the record's fills were moved against the account.

    Returns:
      Trades in the order in which they closed; bars are indices into the record.
    """
    fields = {k: np.asarray(v, np.float64) for k, v in record._asdict().items() if v is not None}
    paid = fields.get("dividend", np.zeros_like(fields["units"]))
    order, exits, units = fields["order_units"], fields["exit_units"], fields["units"]
    book = _Book(fee, impact)
    for bar in np.flatnonzero((order != 0) | (exits != 0) | (fields["borrow"] != 0) | (paid != 0)):
        after_exit = units[bar]
        after_order = after_exit - exits[bar] if fields["reason"][bar] != REASON_NONE else after_exit
        if book.open is not None:  # paid as the bar opens, before an order fills
            book.open.dividend += paid[bar]
        if order[bar] != 0:
            book.fill(int(bar), order[bar], fields["order_price"][bar], after_order, REASONS[0])
        if book.open is not None:
            book.open.borrow += fields["borrow"][bar]
        if exits[bar] != 0:
            book.fill(int(bar), exits[bar], fields["exit_price"][bar], 0.0, REASONS[int(fields["reason"][bar])])
    return book.trades


class Range(NamedTuple):
    """Prices of the bars that a record is of, (N,) each."""

    open: np.ndarray
    high: np.ndarray
    low: np.ndarray


class Excursion(NamedTuple):
    """How far the profit of a trade ran while it was open, before fees and borrow, over its entry notional."""

    favourable: float  # highest running profit, 0 or above
    adverse: float  # lowest running profit, 0 or below


def excursions(trades: Sequence[Trade], record: StepRecord, bars: Range) -> list[Excursion]:
    """Maximum favourable and adverse excursion of each trade.

    A position is marked at the high and the low of every bar that it was held to the end of, the bar of its entry
    included, since entries fill at the open. Of the bar on which a stop, a take-profit or a liquidation closed it
    nobody knows what came before the exit: only its open and its exit count. What is paid out while it is held counts
    too. An order that closes it fills at the open, so nothing of that bar but the fill counts.

    Args:
      trades: of `round_trips(record, ...)`.
      record: (N,) fields.
      bars: of the same N bars.

    Example: bought at 100; the bar goes to 105 and 98, and the next opens at 101, where it is sold: +5 % and -2 %.
    """
    order, price, exits, exit_price, after = (
        np.asarray(x, np.float64)
        for x in (record.order_units, record.order_price, record.exit_units, record.exit_price, record.units)
    )
    held = after - exits  # between the order and the exit
    before = held - order
    paid = np.zeros_like(held) if record.dividend is None else np.asarray(record.dividend, np.float64)
    # Money that the account has taken in up to just before a bar's order; with the units marked it is running profit.
    earlier = np.concatenate([[0.0], np.cumsum(-order * price - exits * exit_price)[:-1]]) + np.cumsum(paid)
    later = earlier - order * price
    marks = [later + held * np.asarray(x, np.float64) for x in (bars.high, bars.low)]
    best, worst, opened = np.maximum(*marks), np.minimum(*marks), later + held * np.asarray(bars.open, np.float64)
    sold = later + held * exit_price
    ordered = earlier + before * price  # the units held until then marked at the fill

    def of(trade: Trade) -> Excursion:
        first, last = trade.entry_bar, trade.exit_bar
        if trade.reason == REASONS[0]:
            whole, ends = slice(first, last), [ordered[last]]
        elif trade.reason == REASONS[REASON_END]:  # at the close, so all of the bar came before
            whole, ends = slice(first, last + 1), [sold[last]]
        else:
            whole, ends = slice(first, last), [opened[last], sold[last]]
        start, notional = ordered[first], trade.units * trade.entry_price
        high, low = max([*best[whole], *ends]) - start, min([*worst[whole], *ends]) - start
        return Excursion(max(high, 0.0) / notional, min(low, 0.0) / notional)

    return [of(trade) for trade in trades]


def system_quality(trades: Sequence[Trade]) -> float:
    """SQN: sqrt(trades) * mean P&L / its deviation (ddof 1), as in `backtesting`; nan below 2 trades, or all equal."""
    pnl = np.array([t.pnl for t in trades])
    if len(pnl) < 2 or not pnl.std() > 0:
        return float("nan")
    return float(np.sqrt(len(pnl)) * pnl.mean() / pnl.std(ddof=1))
