"""How much a session may do: pure arithmetic over an order, and a sentence for each limit that bites."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from jaxppo.errors import ConfigError
from jaxppo.paper.broker import Rules


@dataclass(frozen=True, kw_only=True)
class Limits:
    """In money of the account; None for none."""

    max_order: float | None = None
    """Largest notional of an order; a larger one is cut down to it. What reduces a position is never cut."""
    max_position: float | None = None
    """Largest notional of a position; an order that leads beyond it is cut down."""
    max_orders_a_day: int | None = None
    """Orders in a UTC day, those that filled nothing not counted; after them only what reduces a position is sent."""
    max_loss_a_day: float | None = None
    """Fall of the equity since the last close of the UTC day before; beyond it only what reduces a position is sent."""

    def check(self) -> None:
        """`ConfigError` for a limit that is none."""
        for name in ("max_order", "max_position", "max_orders_a_day", "max_loss_a_day"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"--{name.replace('_', '-')}: {value} given; it must be 0 or more")

    @property
    def of_notional(self) -> bool:
        """Whether the size of an order is limited."""
        return self.max_order is not None or self.max_position is not None


class Situation(NamedTuple):
    """What the limits look at."""

    symbol: str
    held: float  # signed units
    price: float  # newest close
    orders: int  # of the day so far
    loss: float  # of the day so far, money
    late: bool
    rules: Rules


class Bite(NamedTuple):
    """A limit that changed an order."""

    limit: str
    sentence: str


def within(units: float, limits: Limits, at: Situation) -> tuple[float, list[Bite]]:
    """The signed units that may be ordered in place of `units`, and what cut them.

    Example (1,000 of money buy 10 units at 100):
      >>> at = Situation("SPY", 0.0, 100.0, 0, 0.0, False, Rules())
      >>> within(25.0, Limits(max_order=1_000.0), at)[0]
      10.0
    """
    bites: list[Bite] = []
    for limit in (_late, _day, _position, _order, _rules):
        if units == 0:
            break
        units = limit(units, limits, at, bites.append)
    return units, bites


def only_reducing(limits: Limits, at: Situation) -> bool:
    """Whether no order may make a position larger: it is late, or the day's orders or losses are used up."""
    probe = math.copysign(1.0, at.held)
    return _day(_late(probe, limits, at, _unsaid), limits, at, _unsaid) == 0


def _unsaid(bite: Bite) -> None:
    pass


Note = Callable[[Bite], None]


def reduced(units: float, held: float) -> float:
    """What of an order reduces the position, at most to flat."""
    if units * held >= 0:
        return 0.0
    return math.copysign(min(abs(units), abs(held)), units)


def _late(units: float, limits: Limits, at: Situation, note: Note) -> float:
    if not at.late:
        return units
    note(Bite("late", f"{at.symbol}: the bar is not the newest any more, so its order is not sent"))
    return 0.0


def _day(units: float, limits: Limits, at: Situation, note: Note) -> float:
    less = reduced(units, at.held)
    if less == units:
        return units
    if limits.max_loss_a_day is not None and at.loss >= limits.max_loss_a_day:
        lost = f"{at.loss:,.2f} was lost today, of at most {limits.max_loss_a_day:,.2f}"
        note(Bite("loss_a_day", f"{at.symbol}: {lost}; until tomorrow (UTC) positions are only reduced"))
        return less
    if limits.max_orders_a_day is not None and at.orders >= limits.max_orders_a_day:
        sent = f"{at.orders} orders were sent today, of at most {limits.max_orders_a_day}"
        note(Bite("orders_a_day", f"{at.symbol}: {sent}; until tomorrow (UTC) positions are only reduced"))
        return less
    return units


def _position(units: float, limits: Limits, at: Situation, note: Note) -> float:
    if limits.max_position is None:
        return units
    most = limits.max_position / at.price
    wanted = at.held + units
    allowed = max(-most, min(most, wanted)) - at.held
    # What is too large already may stay, but not grow.
    allowed = max(0.0, allowed) if units > 0 and at.held >= 0 else allowed
    allowed = min(0.0, allowed) if units < 0 and at.held <= 0 else allowed
    if abs(allowed) >= abs(units) * (1 - 1e-12):
        return units
    cut = f"an order of {units:g} would lead to {abs(wanted) * at.price:,.2f}, of at most {limits.max_position:,.2f}"
    note(Bite("position", f"{at.symbol}: {cut}; {allowed:g} are ordered"))
    return allowed


def _order(units: float, limits: Limits, at: Situation, note: Note) -> float:
    if limits.max_order is None:
        return units
    less = reduced(units, at.held)
    most = max(limits.max_order / at.price, abs(less))
    if abs(units) <= most:
        return units
    allowed = math.copysign(most, units) if most > 0 else 0.0
    cut = f"an order of {units:g} is worth {abs(units) * at.price:,.2f}, of at most {limits.max_order:,.2f}"
    note(Bite("order", f"{at.symbol}: {cut}; {allowed:g} are ordered"))
    return allowed


def _rules(units: float, limits: Limits, at: Situation, note: Note) -> float:
    """What the broker takes: no flip in one order where he takes none, whole steps towards 0, and not too little."""
    rules = at.rules
    if not rules.flips and at.held != 0 and at.held * (at.held + units) < 0:
        units = -at.held
        note(Bite("flip", f"{at.symbol}: the broker turns no position over in one order; it is closed first"))
    step = max(rules.step, rules.short_step) if units < 0 and at.held <= 0 else rules.step
    if step > 0 and units != -at.held:
        units = math.copysign(math.floor(abs(units) / step * (1 + 1e-12)) * step, units)
    if units == 0 or abs(units) < rules.least_units or abs(units) * at.price < rules.least_notional:
        note(Bite("too_small", f"{at.symbol}: less is wanted than the broker's least order, so none is sent"))
        return 0.0
    return units
