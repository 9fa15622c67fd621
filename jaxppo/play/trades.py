"""Round trips from the recorded bars of one account, in float64 NumPy: the trade list that a trader would keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxppo.env.account import REASON_NONE, REASONS, StepRecord


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


@dataclass
class _Open:
    side: float
    entry_bar: int
    bought: float = 0.0
    bought_notional: float = 0.0
    sold: float = 0.0
    sold_notional: float = 0.0
    fees: float = 0.0
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
        )


class _Book:
    """Builds trades fill by fill. `bought` counts entries and `sold` exits, whatever the side."""

    def __init__(self, fee: float):
        self.fee = fee
        self.units = 0.0
        self.open: _Open | None = None
        self.trades: list[Trade] = []

    def fill(self, bar: int, order: float, price: float, units_after: float, reason: str) -> None:
        size = abs(order)
        if self.open is not None and order * self.open.side < 0:
            closing = min(size, abs(self.units)) if units_after * self.units > 0 else abs(self.units)
            self.open.sold += closing
            self.open.sold_notional += closing * price
            self.open.fees += self.fee * closing * price
            size = max(size - closing, 0.0)
            if units_after * self.units <= 0:
                self.trades.append(self.open.close(bar, reason))
                self.open = None
        if units_after != 0 and size > 0 and (self.open is None or order * self.open.side > 0):
            self.open = self.open or _Open(side=float(np.sign(units_after)), entry_bar=bar)
            self.open.bought += size
            self.open.bought_notional += size * price
            self.open.fees += self.fee * size * price
        self.units = units_after


def round_trips(record: StepRecord, fee: float) -> list[Trade]:
    """All closed round trips of one account.

    Args:
      record: (N,) fields of its bars in time order, valid bars only.
      fee: per side, on the notional.

    Returns:
      Trades in the order in which they closed; bars are indices into the record.
    """
    fields = {k: np.asarray(v, np.float64) for k, v in record._asdict().items() if v is not None}
    paid = fields.get("dividend", np.zeros_like(fields["units"]))
    order, exits, units = fields["order_units"], fields["exit_units"], fields["units"]
    book = _Book(fee)
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


def system_quality(trades: Sequence[Trade]) -> float:
    """SQN: sqrt(trades) * mean P&L / its deviation (ddof 1), as in `backtesting`; nan below 2 trades, or all equal."""
    pnl = np.array([t.pnl for t in trades])
    if len(pnl) < 2 or not pnl.std() > 0:
        return float("nan")
    return float(np.sqrt(len(pnl)) * pnl.mean() / pnl.std(ddof=1))
