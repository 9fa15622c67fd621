"""A broker that is the environment itself: orders fill at the next open, with its costs, stops and liquidation.

It trades on bars that it is shown, one account of 1.0 a symbol, in the very arithmetic of training, and speaks of money
in `share` a symbol. What it did is kept in a file of its own, as a real broker would keep it: a process that is killed
finds it as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.agent.policy import Distribution
from jaxppo.env.account import REASON_NONE, REASONS, AccountState, StepRecord, open_account, settle
from jaxppo.env.trading import EnvSpec
from jaxppo.market.bars import Bars
from jaxppo.market.tape import MarketStep, Terms
from jaxppo.paper.broker import Exit, Kept, Order, OrderState, Rules
from jaxppo.play.deciders import policy_units
from jaxppo.store.journal import Journal


class _Wish(NamedTuple):
    """What an order asks of the account at the open; without `log_probs`, `units` more."""

    units: Any  # () signed, in starting equities
    log_probs: Any  # (K,)
    by_policy: Any  # () bool


def _trade(
    account: AccountState, wish: _Wish, bar: MarketStep, terms: Terms, ruined: Any, *, spec: EnvSpec
) -> tuple[AccountState, StepRecord]:
    """The bar after the order: what `jaxppo.play.passes.play` does for each account and bar."""
    chosen = policy_units(account, Distribution(wish.log_probs), bar, terms.costs, terms.allow_short, spec)
    units = jnp.where(wish.by_policy, chosen, account.units + wish.units)
    ruin = jnp.asarray(spec.config.ruin_level, account.equity.dtype)
    return settle(account, units, bar, terms.costs, ruin, spec.config, ruined)


@dataclass
class _Symbol:
    """What the broker has of a symbol."""

    account: AccountState
    ruined: bool = False
    time: int = -1  # start of the last bar that it traded on
    order: Order | None = None  # accepted, to be filled at the next open
    exit: Exit | None = None


class BarStep:
    """The account step of an environment, compiled with its first bar and the same for every symbol."""

    def __init__(self, spec: EnvSpec):
        self.spec = spec
        self._step = jax.jit(partial(_trade, spec=spec))

    def __call__(
        self, account: AccountState, wish: _Wish, bar: MarketStep, terms: Terms, ruined: bool
    ) -> tuple[AccountState, StepRecord]:
        """Host scalars in and out."""
        after, record = jax.device_get(self._step(account, wish, bar, terms, np.bool_(ruined)))
        return host_account(after), record


@dataclass
class SimulatedBroker:
    """A `Broker` on the arithmetic of `jaxppo.env.account`; show it bars with `trade`."""

    step: BarStep
    terms: Mapping[str, Terms]  # by symbol, scalars of float32
    share: float  # money that an account of 1.0 stands for
    log: Journal | None = None  # what it remembers; None: nothing
    name: str = "simulated"
    sizes_at_open: bool = True
    _symbols: dict[str, _Symbol] = field(default_factory=dict)
    _orders: dict[str, OrderState] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._symbols = {s: _Symbol(host_account(open_account(np.float32(1.0)))) for s in self.terms}  # type: ignore[arg-type]
        for line in self.log.read() if self.log else ():
            self._remember(line)

    def _remember(self, line: Mapping[str, Any]) -> None:
        if line["kind"] == "order":
            fields = dict(line["order"])
            probs = fields["log_probs"]
            order = Order(**{**fields, "log_probs": None if probs is None else tuple(probs)})
            self._accept(order)
            return
        of = self._symbols[line["symbol"]]
        of.account, of.ruined = account_from(line["account"]), line["ruined"]
        of.time, of.order = line["time"], None
        of.exit = None if line["exit"] is None else Exit(*line["exit"])
        if line["order"] is not None:
            self._orders[line["order"]["id"]] = OrderState(**line["order"])

    def trade(self, bars: Bars) -> None:
        """Let the newest bar happen: what was ordered fills at its open. A bar that was traded on before is passed."""
        of, time = self._symbols[bars.symbol], int(bars.time[-1])
        if time <= of.time:
            return
        order = of.order
        open_, high, low, close = (np.float32(getattr(bars, k)[-1]) for k in ("open", "high", "low", "close"))
        sized = self.step.spec.config.size_by != "equity"
        size = np.float32(order.size if order and order.size else 1.0) if sized else None
        paid = None if bars.dividend is None else np.float32(bars.dividend[-1])
        bar = MarketStep(open_, high, low, close, np.float32(0), np.float32(0), size, paid)  # type: ignore[arg-type]
        wish = self._wish(order)
        after, record = self.step(of.account, wish, bar, self.terms[bars.symbol], of.ruined)
        filled = None if order is None else self._filled(order, record, bars.symbol)
        exit_ = self._exit(record, bars.symbol)
        line: dict[str, Any] = {
            "kind": "bar",
            "symbol": bars.symbol,
            "time": time,
            "account": account_facts(after),
            "ruined": bool(record.ruined),
            "order": None if filled is None else asdict(filled),
            "exit": None if exit_ is None else list(exit_),
        }
        if self.log is not None:
            self.log.append(line)
        of.account, of.ruined, of.time, of.order, of.exit = after, bool(record.ruined), time, None, exit_
        if filled is not None:
            self._orders[filled.id] = filled

    def _wish(self, order: Order | None) -> _Wish:
        none = np.zeros(self.step.spec.actions.n_actions, np.float32)
        if order is None:
            return _Wish(np.float32(0), none, np.bool_(False))
        if order.log_probs is None:
            return _Wish(np.float32(order.units / self.share), none, np.bool_(False))
        return _Wish(np.float32(0), np.asarray(order.log_probs, np.float32), np.bool_(True))

    def _filled(self, order: Order, record: StepRecord, symbol: str) -> OrderState:
        units, price = float(record.order_units), float(record.order_price)
        fee = float(self.terms[symbol].costs.fee) * abs(units) * price * self.share
        if units == 0:
            return OrderState(order.id, symbol, "filled", broker_id=order.id)
        return OrderState(order.id, symbol, "filled", units * self.share, price, fee, order.id)

    def _exit(self, record: StepRecord, symbol: str) -> Exit | None:
        if int(record.reason) == REASON_NONE:
            return None
        units, price = float(record.exit_units), float(record.exit_price)
        fee = float(self.terms[symbol].costs.fee) * abs(units) * price * self.share
        return Exit(units * self.share, price, fee, REASONS[int(record.reason)])

    def shown(self, symbol: str) -> int:
        """Start of the newest bar that it was shown, UTC seconds."""
        return self._symbols[symbol].time

    # What the loop asks

    def check(self, symbols: Sequence[str]) -> None:
        """Every symbol of `terms` can be traded."""

    def rules(self, symbol: str) -> Rules:
        """Any units, and flips."""
        return Rules()

    def equity(self) -> float:
        """At the last closes."""
        return self.share * sum(float(s.account.equity) for s in self._symbols.values())

    def positions(self) -> dict[str, float]:
        """Of every symbol, flat ones included."""
        return {name: self.share * float(s.account.units) for name, s in self._symbols.items()}

    def open_orders(self) -> list[OrderState]:
        """Those that wait for the next open."""
        return [self._orders[s.order.id] for s in self._symbols.values() if s.order is not None]

    def submit(self, order: Order) -> OrderState:
        """Accept an order for the next open; it replaces one that waits there already."""
        if order.id in self._orders:
            return self._orders[order.id]
        if self.log is not None:
            self.log.append({"kind": "order", "order": asdict(order)})
        return self._accept(order)

    def _accept(self, order: Order) -> OrderState:
        state = OrderState(order.id, order.symbol, "open", broker_id=order.id, arrival=None)
        self._orders[order.id] = state
        self._symbols[order.symbol].order = order
        return state

    def find(self, symbol: str, id: str) -> OrderState | None:
        """Of orders that were accepted, at any time."""
        return self._orders.get(id)

    def cancel(self, order: OrderState) -> None:
        """Take back what waits for the next open."""
        of = self._symbols[order.symbol]
        if of.order is not None and of.order.id == order.id:
            of.order = None
            self._orders[order.id] = OrderState(order.id, order.symbol, "cancelled", broker_id=order.id)

    def kept(self, symbol: str) -> Kept:
        """The account of the environment, to the bit."""
        of = self._symbols[symbol]
        return Kept(of.account, of.exit)


def host_account(account: Any) -> AccountState:
    """An account of float32 and int32 scalars on the host."""
    return AccountState(*(np.asarray(x)[()] for x in account))  # type: ignore[arg-type]


def account_facts(account: AccountState) -> dict[str, float | int]:
    """An account (scalars) as JSON has it: every float32 is a float that reads back as the same bits."""
    return {name: np.asarray(x).item() for name, x in account._asdict().items()}


def account_from(facts: Mapping[str, Any]) -> AccountState:
    """The account of `account_facts`, infinities as JSON has them."""
    counts = ("bars_held", "trades", "wins")
    kinds = {name: np.int32 if name in counts else np.float32 for name in AccountState._fields}
    return AccountState(**{name: kind(facts[name]) for name, kind in kinds.items()})  # type: ignore[arg-type]
