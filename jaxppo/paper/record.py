"""What a session has journaled, read back: where it stands when it begins again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from jaxppo.env.trading import EnvSpec
from jaxppo.errors import DataError
from jaxppo.paper.broker import Order, OrderState
from jaxppo.paper.mind import Thought
from jaxppo.store.sessions import ACK, DECISION, NEVER, REJECT


@dataclass
class Pending:
    """An order that was journaled, and is not known to be done."""

    order: Order
    known: bool = False  # the broker has said that he has it
    filled: float = 0.0  # signed units that are in the book already
    worth: float = 0.0  # money: their sum of units * price
    fee: float = 0.0
    arrival: float | None = None  # price of the market when the broker took it in

    def count(self, state: OrderState) -> dict[str, Any] | None:
        """What has filled since it was counted last, as a line has it; None for nothing new of an open order."""
        units = state.filled - self.filled
        if units == 0 and state.status == "open":
            return None
        price = (state.filled * state.price - self.worth) / units if units else 0.0
        found = {"id": state.id, "units": units, "price": price, "fee": state.fee - self.fee, "status": state.status}
        return found | {"arrival": self.arrival if state.arrival is None else state.arrival}

    def add(self, fill: Mapping[str, Any]) -> None:
        """Count a fill of `count`."""
        self.filled += fill["units"]
        self.worth += fill["units"] * fill["price"]
        self.fee += fill["fee"]


@dataclass
class Day:
    """What the limits of a day look at."""

    date: str = ""
    equity: float = 0.0  # before its first close
    orders: set[str] = field(default_factory=set)  # ids of those that filled something, or may yet


@dataclass
class Standing:
    """Where a session stands: what every line adds to, whether it is written now or read again."""

    equity: float  # money, at the last close
    interval: int
    last: dict[str, dict[str, Any]] = field(default_factory=dict)  # newest decision of each symbol
    pending: dict[str, Pending] = field(default_factory=dict)  # by symbol
    day: Day = field(default_factory=Day)

    @property
    def time(self) -> int | None:
        """Start of the newest bars that were decided on."""
        return max((line["time"] for line in self.last.values()), default=None)

    def turn(self, time: int) -> Day | None:
        """Begin the UTC day in which the bar of `time` closes; the day before, where it is over."""
        date = datetime.fromtimestamp(time + self.interval, UTC).date().isoformat()
        if date <= self.day.date:
            return None
        over, self.day = self.day, Day(date, self.equity)
        return over

    def add(self, line: Mapping[str, Any]) -> None:
        """A line that was written."""
        kind, symbol = line["kind"], line.get("symbol", "")
        if kind == DECISION:
            self.turn(line["time"])
            for fill in line["fills"]:
                self._fill(symbol, fill)
            self.last[symbol], self.equity = dict(line), line["equity"]
            if line["order"] is not None:
                order = order_from(line)
                self.day.orders.add(order.id)
                if not line["dry"]:
                    self.pending[symbol] = Pending(order)
        elif kind == ACK and symbol in self.pending:
            self.pending[symbol].known = True
            self.pending[symbol].arrival = line["state"]["arrival"]
        elif kind in (REJECT, NEVER):
            self.pending.pop(symbol, None)
            self.day.orders.discard(line["id"])

    def _fill(self, symbol: str, fill: Mapping[str, Any]) -> None:
        pending = self.pending.get(symbol)
        if pending is None:
            return
        pending.add(fill)
        if fill["status"] != "open":
            del self.pending[symbol]
            if pending.filled == 0:
                self.day.orders.discard(fill["id"])


def order_facts(order: Order, by_policy: bool) -> dict[str, Any]:
    """The order of a decision's line; what it shares with the decision stands there."""
    return {"id": order.id, "units": order.units, "by_policy": by_policy}


def order_from(line: Mapping[str, Any]) -> Order:
    """The order of a decision's line."""
    of = line["order"]
    probs = tuple(float(x) for x in line["log_probs"]) if of["by_policy"] else None
    return Order(of["id"], line["symbol"], line["time"], of["units"], probs, line["size"])


def thought_facts(thought: Thought, spec: EnvSpec, share: float) -> dict[str, Any]:
    """What the policy saw and said, for a decision's line; `wanted` in units of money."""
    labels = spec.actions.labels
    return {
        "observation": [float(x) for x in thought.observation],
        "log_probs": [float(x) for x in thought.log_probs],
        "probabilities": dict(zip(labels, map(float, np.exp(thought.log_probs)), strict=True)),
        "action": labels[thought.action],
        "act_by": spec.config.act_by,
        "value": thought.value,
        "size": thought.size,
        "exposure": thought.exposure,
        "wanted": float(thought.units) * share,
    }


def state_facts(state: OrderState) -> dict[str, Any]:
    """What the broker said, for a line."""
    return asdict(state)


def standing(lines: Iterable[Mapping[str, Any]], capital: float, interval: int) -> Standing:
    """Where the session of these lines stands; `DataError` for one that is no line of a session."""
    found = Standing(capital, interval)
    for number, line in enumerate(lines, 1):
        try:
            found.add(line)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"journal, line {number}: not as a session writes it ({error!r}), so what was sent cannot be known;"
                " bring the file back as it was, or choose another --out"
            ) from error
    return found
