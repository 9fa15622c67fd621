"""What the loop asks of a broker. A broker of one's own is a class with these methods."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from jaxppo.env.account import AccountState
from jaxppo.errors import JaxppoError

Status = Literal["open", "filled", "cancelled", "rejected"]
"""An order that is `cancelled` may have filled in part; only an `open` one can fill any more."""


class BrokerError(JaxppoError):
    """A broker that cannot be used as it was asked to be: wrong keys, an unknown symbol, positions nobody ordered."""


class Rejected(BrokerError):
    """The broker has the order and will not have it: nothing of it was or will be filled."""


class Unreachable(BrokerError):
    """No answer, or none that says anything: an order may have arrived or not. Asked for by its id, it is known."""


@dataclass(frozen=True)
class Order:
    """What is sent: a market order, to be filled from the next open on."""

    id: str  # the client's, the same for the same decision; a broker fills an id at most once
    symbol: str
    time: int  # start of the bar at whose close it was decided, UTC seconds
    units: float  # signed, reckoned at that close
    log_probs: tuple[float, ...] | None = None  # (K,) of the actions: who can size at the open does it by these
    size: float | None = None  # exposure that an action's 1 stands for, with `log_probs`; None: 1


@dataclass(frozen=True)
class OrderState:
    """What a broker says of an order. `filled`, `price` and `fee` are totals so far, so asking twice counts once."""

    id: str  # the client's
    symbol: str
    status: Status
    filled: float = 0.0  # signed units
    price: float = 0.0  # average of what was filled
    fee: float = 0.0  # money
    broker_id: str = ""
    reason: str = ""  # of a rejection
    arrival: float | None = None  # price of the market when the order came in, where the broker says it


@dataclass(frozen=True)
class Rules:
    """What a broker asks of orders in a symbol."""

    step: float = 0.0  # units are whole multiples of this; 0 for any
    short_step: float = 0.0  # likewise, of what opens a short position or adds to one
    least_units: float = 0.0
    least_notional: float = 0.0  # money
    flips: bool = True  # one order may go from long to short
    fee_in_units: float = 0.0  # largest share of a buy that is kept as a fee, so that less is held than was filled


class Exit(NamedTuple):
    """A position that a broker closed by itself, by the rules of the environment."""

    units: float  # signed, in money's units
    price: float
    fee: float  # money
    reason: str  # one of `jaxppo.env.account.REASONS`


class Kept(NamedTuple):
    """The training account that a broker keeps of a symbol, and what it closed on the last bar."""

    account: AccountState  # scalars, money in starting equities
    exit: Exit | None


class Broker(Protocol):
    """An account somewhere. Methods may raise `Unreachable`, and `BrokerError` for what asking again cannot mend."""

    name: str
    sizes_at_open: bool  # fills `log_probs` at the next open as the environment does

    def check(self, symbols: Sequence[str]) -> None:
        """Raise `BrokerError` where one of the symbols cannot be traded; before anything is decided."""

    def rules(self, symbol: str) -> Rules:
        """What orders must be like."""

    def equity(self) -> float:
        """Money: cash and all positions, marked to market."""

    def positions(self) -> dict[str, float]:
        """Signed units by symbol; what is flat may be missing."""

    def open_orders(self) -> list[OrderState]:
        """Orders that can still fill, whoever sent them."""

    def submit(self, order: Order) -> OrderState:
        """Send an order, or raise `Rejected`; of one whose id is known already the state is returned."""

    def find(self, symbol: str, id: str) -> OrderState | None:
        """The order with this client id; None where the broker never had it."""

    def cancel(self, order: OrderState) -> None:
        """Ask that no more of it is filled; of an order that is done already nothing happens."""

    def kept(self, symbol: str) -> Kept | None:
        """The training account, of a broker that keeps it itself; None: the loop keeps it, from the fills."""


def order_id(policy: str, symbol: str, time: int) -> str:
    """The client's id of the one order that a decision can lead to: of the policy's hash, symbol and bar.

    At most 35 letters, digits and dashes, which Alpaca (128) and Binance (36) both take.

    Example:
      >>> order_id("0123456789abcdef", "BTC/USDT", 1704067200)
      'jx01234567-BTCUSDT1a25-1704067200'
    """
    plain = re.sub("[^A-Za-z0-9]", "", symbol)[:8]
    mark = hashlib.sha256(symbol.encode()).hexdigest()[:4]  # symbols that differ in what was left out stay apart
    return f"{id_prefix(policy)}{plain}{mark}-{time}"


def id_prefix(policy: str) -> str:
    """What all order ids of a policy begin with."""
    return f"jx{policy[:8]}-"
