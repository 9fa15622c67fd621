"""The account arithmetic a second time: one event after the other, in plain floats, written from the timing contract.

Nothing here is shared with the package. A round trip's P&L is the change of cash between two flat moments, the average
cost comes from a running cost basis, and orders are solved once as a purchase and once as a sale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

SPECK = 1e-6  # an exposure this small is rounding, and means flat
HAIR = 1e-12  # prices and money this near, relative, are equal decimals that binary fractions cannot write
ORDER, STOP, TAKE_PROFIT, LIQUIDATION, END = 0, 1, 2, 3, 4
REASONS = ("order", "stop", "take_profit", "liquidation", "end")


@dataclass
class RoundTrip:
    """One trade, from flat or a flip to flat or the next flip."""

    side: str
    entry_bar: int
    exit_bar: int = -1
    entered: float = 0.0  # units, always positive
    entered_for: float = 0.0  # money
    exited: float = 0.0
    exited_for: float = 0.0
    fees: float = 0.0
    borrow: float = 0.0
    pnl: float = 0.0  # change of the account's cash from before the entry to after the exit
    reason: str = ""


@dataclass
class Events:
    """What one bar did."""

    equity: float = 0.0
    net_return: float = 0.0
    units: float = 0.0
    order_units: float = 0.0
    order_price: float | None = None  # None: no order was filled
    exit_units: float = 0.0
    exit_price: float | None = None  # None: nothing fired
    reason: int = ORDER
    fees: float = 0.0
    borrow: float = 0.0
    cost: float = 0.0
    traded: float = 0.0
    exposure: float = 0.0
    closed: int = 0
    wins: int = 0
    gain: float = 0.0
    loss: float = 0.0
    ruined: bool = False


def added_exposure(label: str) -> float | None:
    """What a sized order adds to the exposure: .25 for buy_25; None for the other labels."""
    word, _, percent = label.partition("_")
    if not percent or word == "target":
        return None
    return float(percent) / 100.0 if word == "buy" else -float(percent) / 100.0


def target_of(label: str, exposure: float, allow_short: bool, max_exposure: float) -> float | None:
    """The target exposure that an action label asks for; None for no order."""
    if label == "hold":
        return None
    added = added_exposure(label)
    if added is not None:
        target = exposure + added
    elif label == "close":
        target = 0.0
    elif label.startswith("target_"):
        target = float(label.removeprefix("target_"))
    else:
        target = max_exposure if label == "buy" else -max_exposure
    if abs(target) < SPECK:
        target = 0.0
    if target > max_exposure:
        target = max_exposure
    if target < -max_exposure:
        target = -max_exposure
    if target < 0.0 and not allow_short:
        target = 0.0
    return target


@dataclass
class ReferenceAccount:
    """One account. Call `step` once a bar; `close_out` after the last one. `round_trips` are its closed trades.

    `margin` is how near, relative to prices, the bar came to turning out otherwise: a smaller rounding error than this
    cannot have changed which orders went out, what fired or which trade won.
    """

    start: float = 1.0
    fee: float = 0.0
    impact: float = 0.0
    borrow: float = 0.0
    stop_loss: float = 0.0
    take_profit: float = 0.0
    take_profit_gap: str = "open"
    ruin: float = 0.0
    band: float = 0.0
    max_exposure: float = 1.0
    allow_short: bool = True

    cash: float = field(init=False)
    units: float = field(init=False, default=0.0)
    basis: float = field(init=False, default=0.0)  # paid for the open units, always positive
    stop: float | None = field(init=False, default=None)
    limit: float | None = field(init=False, default=None)
    cash_when_flat: float = field(init=False)  # cash just before the open trade
    equity: float = field(init=False)
    peak: float = field(init=False)
    bars_held: int = field(init=False, default=0)
    trades: int = field(init=False, default=0)
    wins: int = field(init=False, default=0)
    ruined: bool = field(init=False, default=False)
    margin: float = field(init=False, default=math.inf)
    largest: float = field(init=False, default=0.0)  # most money in cash and position together so far
    bar: int = field(init=False, default=-1)
    trip: RoundTrip | None = field(init=False, default=None)
    round_trips: list[RoundTrip] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.cash = self.cash_when_flat = self.equity = self.peak = self.start

    @property
    def average_cost(self) -> float:
        return self.basis / abs(self.units) if self.units else 0.0

    def step(self, label: str, open_: float, high: float, low: float, close: float) -> Events:
        """One bar: the order `label` at the open, what fires during the bar, the mark at the close."""
        events = self._begin()
        self._order(label, open_, events)
        return self._rest_of_bar(open_, high, low, close, events)

    def _begin(self) -> Events:
        self.margin = math.inf
        self.bar += 1
        return Events()

    def _rest_of_bar(self, open_: float, high: float, low: float, close: float, events: Events) -> Events:
        """What the order left, from the open to the close."""
        equity = self.cash + self.units * open_
        events.exposure = self.units * open_ / equity if equity > 0.0 else 0.0
        if self.units > 0:
            self._long_bar(open_, high, low, events)
        elif self.units < 0:
            self._short_bar(open_, high, low, events)
        if self.units < 0:
            events.borrow = self.borrow * -self.units * close
            self.cash -= events.borrow
            self._trip.borrow += events.borrow
        if self.units:
            self.bars_held += 1
        self._mark(close, events)
        return events

    def close_out(self, close: float, events: Events) -> None:
        """Close what is still open at the last close, at cost; `events` of that bar then say so."""
        if not self.units:
            return
        self._exit(close, END, events)
        before = self.equity / (1.0 + events.net_return)
        self.equity = events.equity = self.cash
        events.units = 0.0
        events.net_return = self.equity / before - 1.0

    def _order(self, label: str, open_: float, events: Events) -> None:
        equity = self.cash + self.units * open_
        if self.ruined:
            target: float | None = 0.0
        elif equity <= self.ruin:
            # Gone at the open: what is held is about to be liquidated, and of less than nothing there is no share.
            target = None
        else:
            exposure = self.units * open_ / equity
            target = target_of(label, exposure, self.allow_short, self.max_exposure)
            added = added_exposure(label)
            if added is not None and exposure:
                self._near(abs(exposure + added), SPECK, 1.0)
            if target is not None and self._too_small(target, exposure):
                target = None
        if target is None:
            return
        order = self._solve(target, equity, open_)
        if order:
            events.order_units = order
            events.order_price = self._fill(order, open_, events)

    def _too_small(self, target: float, exposure: float) -> bool:
        if target == 0.0 or exposure == 0.0:
            return False
        if (target > 0.0) != (exposure > 0.0):
            return False
        self._near(abs(target - exposure), self.band, 1.0)
        return abs(target - exposure) < self.band

    def _solve(self, target: float, equity: float, price: float) -> float:
        """Units to trade so that afterwards units x price = target x (equity - what the trade cost)."""
        if target == 0.0:
            return -self.units
        missing = target * equity - self.units * price
        if missing > 0.0:  # buy x: held + x p = target (equity - x p c)
            cost = (1.0 + self.impact) * (1.0 + self.fee) - 1.0
            return missing / (price * (1.0 + target * cost))
        cost = 1.0 - (1.0 - self.impact) * (1.0 - self.fee)  # sell y: held - y p = target (equity - y p c)
        return missing / (price * (1.0 - target * cost))

    def _long_bar(self, open_: float, high: float, low: float, events: Events) -> None:
        worst = self.cash + self.units * low
        self._near(worst, self.ruin, self.units * low)
        if worst <= self.ruin:
            level = (self.ruin - self.cash) / self.units
            return self._exit(level if open_ > level else open_, LIQUIDATION, events)
        if self.stop is not None:
            self._near(low, self.stop, low)
            if low <= self.stop * (1.0 + HAIR):
                return self._exit(self.stop if open_ > self.stop else open_, STOP, events)
        if self.limit is not None:
            self._near(high, self.limit, high)
            if high >= self.limit * (1.0 - HAIR):
                gapped = open_ > self.limit and self.take_profit_gap == "open"
                return self._exit(open_ if gapped else self.limit, TAKE_PROFIT, events)
        return None

    def _short_bar(self, open_: float, high: float, low: float, events: Events) -> None:
        worst = self.cash + self.units * high
        self._near(worst, self.ruin, self.units * high)
        if worst <= self.ruin:
            level = (self.cash - self.ruin) / -self.units
            return self._exit(level if open_ < level else open_, LIQUIDATION, events)
        if self.stop is not None:
            self._near(high, self.stop, high)
            if high >= self.stop * (1.0 - HAIR):
                return self._exit(self.stop if open_ < self.stop else open_, STOP, events)
        if self.limit is not None:
            self._near(low, self.limit, low)
            if low <= self.limit * (1.0 + HAIR):
                gapped = open_ < self.limit and self.take_profit_gap == "open"
                return self._exit(open_ if gapped else self.limit, TAKE_PROFIT, events)
        return None

    def _exit(self, mid: float, reason: int, events: Events) -> None:
        events.reason = reason
        events.exit_units = -self.units
        events.exit_price = self._fill(-self.units, mid, events)

    def _fill(self, units: float, mid: float, events: Events) -> float:
        """Trade signed `units`: first what closes the position, then what opens or adds. Returns the price paid."""
        price = mid * (1.0 + self.impact) if units > 0 else mid * (1.0 - self.impact)
        closing = min(abs(units), abs(self.units)) if self.units * units < 0 else 0.0
        opening = abs(units) - closing
        direction = 1.0 if units > 0 else -1.0
        if closing:
            self._pay(direction * closing, price, mid, events)
            self._trip.exited += closing
            self._trip.exited_for += closing * price
            self.basis *= 1.0 - closing / abs(self.units)
            self.units += direction * closing
            if self.units == 0.0:
                self._end_trade(closing * price, events)
        if opening:
            if self.units == 0.0:
                self.cash_when_flat, self.bars_held = self.cash, 0
                self.trip = RoundTrip("long" if units > 0 else "short", self.bar)
            self._pay(direction * opening, price, mid, events)
            self._trip.entered += opening
            self._trip.entered_for += opening * price
            self.basis += opening * price
            self.units += direction * opening
            self._set_levels()
        return price

    def _pay(self, units: float, price: float, mid: float, events: Events) -> None:
        fee = self.fee * abs(units) * price
        self.cash -= units * price + fee
        self._trip.fees += fee
        events.fees += fee
        events.cost += fee + abs(units) * abs(price - mid)
        events.traded += abs(units) * price

    def _set_levels(self) -> None:
        up, down = self.average_cost, self.average_cost
        if self.units > 0:
            up, down = up * (1.0 + self.take_profit), down * (1.0 - self.stop_loss)
            self.stop, self.limit = down, up
        else:
            up, down = up * (1.0 + self.stop_loss), down * (1.0 - self.take_profit)
            self.stop, self.limit = up, down
        if not self.stop_loss:
            self.stop = None
        if not self.take_profit:
            self.limit = None

    def _end_trade(self, notional: float, events: Events) -> None:
        pnl = self.cash - self.cash_when_flat
        self._near(pnl, 0.0, notional)
        self.trades += 1
        events.closed += 1
        if pnl > HAIR * notional:
            self.wins += 1
            events.wins += 1
            events.gain += pnl
        else:
            events.loss += pnl
        self.basis, self.bars_held = 0.0, 0
        self.stop = self.limit = None
        trip = self._trip
        trip.exit_bar, trip.pnl, trip.reason = self.bar, pnl, REASONS[events.reason]
        self.round_trips.append(trip)
        self.trip = None

    @property
    def _trip(self) -> RoundTrip:
        assert self.trip is not None
        return self.trip

    def _mark(self, close: float, events: Events) -> None:
        before = self.equity
        self.equity = self.cash + self.units * close
        self.peak = max(self.peak, self.equity)
        gross = abs(self.cash) + abs(self.units) * close
        self.largest = max(self.largest, gross, before)
        self._near(self.equity, self.ruin, gross)
        events.equity, events.units = self.equity, self.units
        events.net_return = self.equity / before - 1.0 if before else 0.0
        events.ruined = events.reason == LIQUIDATION or self.equity <= self.ruin
        self.ruined = events.ruined = self.ruined or events.ruined

    def _near(self, value: float, boundary: float, scale: float) -> None:
        self.margin = min(self.margin, abs(value - boundary) / max(abs(scale), 1e-300))
