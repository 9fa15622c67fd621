"""The loop: a bar closes, what was ordered is counted, the positions are compared, the policy decides, an order goes.

Every decision is on the disk with its order before the order is sent, and what the broker says of it after. So a
process that is killed at any moment finds, when it begins again, at most one order a symbol that may have arrived or
not, asks the broker for it by its id, and sends it once or not again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxppo.env.account import AccountState
from jaxppo.env.trading import EnvSpec
from jaxppo.market.bars import Bars
from jaxppo.market.quality import FIELDS, format_time
from jaxppo.paper.book import Book, Holding
from jaxppo.paper.broker import Broker, BrokerError, Order, OrderState, Rejected, Unreachable, id_prefix, order_id
from jaxppo.paper.feed import Clock, Closed, Feed
from jaxppo.paper.limits import Bite, Limits, Situation, only_reducing, within
from jaxppo.paper.mind import Ask, Thought
from jaxppo.paper.record import Standing, order_facts, standing, state_facts, thought_facts
from jaxppo.paper.simulated import account_facts, account_from
from jaxppo.paper.words import day_words, fill_words, order_words
from jaxppo.store.journal import Journal
from jaxppo.store.sessions import ACK, DECISION, NEVER, NOTE, REJECT, SKIPPED

Differing = Literal["stop", "adjust"]
TRIES = 3  # times that a broker is asked who did not answer, or for an order that is still being cancelled


@dataclass(frozen=True)
class Conduct:
    """What a session is run under."""

    policy: str  # hash of the policy
    spec: EnvSpec
    share: float  # money a symbol
    limits: Limits
    submit: bool  # else dry: nothing is sent
    differing: Differing  # what to do where the broker's position is not the journal's
    kill: Path  # a file: where it is there, open orders are cancelled and the session ends
    pause: float = 1.0  # seconds between tries


class Killed(Exception):
    """The kill switch was found."""


@dataclass
class Loop:
    """A session; `run` it."""

    ask: Ask
    feed: Feed
    broker: Broker
    journal: Journal
    terms: Conduct
    symbols: tuple[str, ...]
    interval: int
    say: Callable[[str], None]
    clock: Clock = Clock()
    _digests: dict[str, Any] = field(default_factory=dict)
    _told: set[tuple[str, str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        share, env = self.terms.share, self.terms.spec.config
        self.book = Book(self.symbols, share, env)
        self.standing: Standing = standing(self.journal.read(), share * len(self.symbols), self.interval)
        for symbol, line in self.standing.last.items():
            self.book.put(symbol, Holding(account_from(line["account"]), line["units"]))

    def run(self) -> bool:
        """Until the feed ends; False where the kill switch ended it.

        Raises:
          BrokerError: what only a person can mend; the journal has it too.
        """
        try:
            self._know_orders()
            for closed in self.feed.bars():
                for symbol in closed.bars:
                    self._bar_or_none(symbol, closed)
        except Killed:
            return False
        except BrokerError as error:
            self._append({"kind": NOTE, "text": str(error)}, sync=True)
            raise
        return True

    def _know_orders(self) -> None:
        """Every open order of this policy must be the journal's, or one is lost: it may fill at any time.

        Raises:
          BrokerError: one is not, and is not to be cancelled.
        """
        ours = {pending.order.id for pending in self.standing.pending.values()}
        for order in self._mine():
            if order.id in ours:
                continue
            if self.terms.differing == "stop":
                raise BrokerError(
                    f"{order.symbol}: {self.broker.name} has an open order {order.id} of this policy that the journal"
                    " does not know; cancel it there, or start with --on-difference adjust, which does"
                )
            self._insist(partial(self.broker.cancel, order))
            self._note(f"{order.symbol}: order {order.id}, which the journal does not know, was cancelled")

    def _mine(self) -> list[OrderState]:
        """Open orders of this policy at the broker."""
        if not self.terms.submit:
            return []
        prefix = id_prefix(self.terms.policy)
        return [o for o in self._insist(self.broker.open_orders) if o.id.startswith(prefix)]

    # One bar of one symbol

    def _bar_or_none(self, symbol: str, closed: Closed) -> None:
        """A bar on which the broker does not answer is not decided on: what is held is not known."""
        before = self.book[symbol]
        try:
            self._bar(symbol, closed)
        except Unreachable as error:
            self.book.put(symbol, before)
            self.say(f"{error}; {symbol} is not decided on at {format_time(closed.time + self.interval)}")
            line = {"kind": SKIPPED, "symbol": symbol, "time": closed.time, **self._seen(closed.bars[symbol])}
            self._append(line | {"text": str(error)})

    def _bar(self, symbol: str, closed: Closed) -> None:
        self.stop_if_killed()
        last = self.standing.last.get(symbol)
        if last is not None and closed.time <= last["time"]:
            if closed.time == last["time"] and not closed.late:
                self._settle_unsent(symbol)
            return
        over = self.standing.turn(closed.time)
        if over is not None and over.date:
            self.say(day_words(over, self.standing.equity))
        bars = closed.bars[symbol]
        fills, waits = self._collect(symbol, bars)
        adjusted, bites = (None, []) if waits else self._reconcile(symbol, float(bars.close[-1]))
        account = self.book[symbol].account
        thought = self.ask(bars, account)
        order, by_policy, reason = self._plan(symbol, bars, closed.late, thought, bites)
        if waits and order is not None:
            bites.append(Bite("open_order", f"{symbol}: the order before it is still open, so no other is sent"))
            order = None
        line: dict[str, Any] = {
            "kind": DECISION,
            "symbol": symbol,
            "time": closed.time,
            **self._seen(bars),
            "fills": fills,
            "exit": self._exit(symbol),
            "adjusted": adjusted,
            "account": account_facts(account),
            "units": self.book[symbol].units,
            "equity": self.book.equity,
            **thought_facts(thought, self.terms.spec, self.terms.share),
            "limits": [b._asdict() for b in bites],
            "order": None if order is None else order_facts(order, by_policy) | {"reason": reason},
            "dry": not self.terms.submit,
        }
        self._tell_bites(symbol, bites)
        self.journal.append(line, sync=order is not None)
        self.standing.add(line)
        if order is not None:
            if order.units != 0:
                self.say(order_words(order, line, self.interval))
            if self.terms.submit:
                self.stop_if_killed()
                self._send(order)

    def _seen(self, bars: Bars) -> dict[str, Any]:
        """The newest bar, how many there are, and the SHA-256 of all of them, a row of numbers each."""
        n, digest = self._digests.get(bars.symbol, (0, hashlib.sha256()))
        paid = () if bars.dividend is None else (bars.dividend,)
        values = (bars.time, *(getattr(bars, k) for k in FIELDS), *paid)
        columns = [np.asarray(x[n:], "<i8" if x.dtype == np.int64 else "<f8").view("<i8") for x in values]
        digest.update(np.stack(columns, axis=1).tobytes())
        self._digests[bars.symbol] = (len(bars.time), digest)
        newest = {k: float(getattr(bars, k)[-1]) for k in FIELDS}
        newest |= {} if bars.dividend is None else {"dividend": float(bars.dividend[-1])}
        return {"bar": newest, "bars": len(bars.time), "hash": digest.hexdigest()}

    # What was ordered before

    def _collect(self, symbol: str, bars: Bars) -> tuple[list[dict[str, Any]], bool]:
        """What has filled since the last bar, into the book, and whether an order is open though it was cancelled."""
        pending, fills = self.standing.pending.get(symbol), []
        state = None if pending is None else self._final(symbol, pending.order.id)
        if pending is not None and state is None:
            self._append({"kind": NEVER, "symbol": symbol, "id": pending.order.id})
            self.say(
                f"{symbol}: the broker never had order {pending.order.id}; its bar is over, so it is not sent again"
            )
        if pending is not None and state is not None:
            if state.status == "rejected":
                self._refused(pending.order, state.reason)
            elif (fill := pending.count(state)) is not None:
                fills.append(fill)
                if fill["units"]:
                    self.say(fill_words(symbol, fill))
        kept = self.broker.kept(symbol) if self.terms.submit else None
        if kept is not None:
            self.book.keep(symbol, kept.account)
        else:
            for fill in fills:
                if fill["units"]:
                    self.book.fill(symbol, fill["units"], fill["price"], fill["fee"])
            self.book.close(symbol, float(bars.close[-1]))
        return fills, state is not None and state.status == "open"

    def _final(self, symbol: str, id: str) -> OrderState | None:
        """An order after what was left of it was cancelled; still open where the broker takes his time."""
        state = self._insist(lambda: self.broker.find(symbol, id))
        for _ in range(TRIES):
            if state is None or state.status != "open":
                break
            self._insist(partial(self.broker.cancel, state))
            state = self._insist(lambda: self.broker.find(symbol, id))
            if state is not None and state.status == "open":
                self.clock.sleep(self.terms.pause)
        return state

    def _exit(self, symbol: str) -> dict[str, Any] | None:
        kept = self.broker.kept(symbol) if self.terms.submit else None
        if kept is None or kept.exit is None:
            return None
        exit_ = kept.exit
        verb = "sold" if exit_.units < 0 else "bought"
        self.say(f"{symbol}: {exit_.reason}: {verb} {abs(exit_.units):g} at {exit_.price:g}")
        return exit_._asdict()

    def _reconcile(self, symbol: str, close: float) -> tuple[dict[str, Any] | None, list[Bite]]:
        """Compare the broker's position with the book's before anything is ordered.

        Raises:
          BrokerError: they differ, and are not to be adjusted.
        """
        if not self.terms.submit:
            return None, []
        ours, theirs = self.book[symbol].units, self._insist(self.broker.positions).get(symbol, 0.0)
        rules = self.broker.rules(symbol)
        gap = theirs - ours
        if abs(gap) <= max(1e-6 * max(abs(ours), abs(theirs)), 0.5 * rules.step):
            return None, []
        in_kind = -1.01 * rules.fee_in_units * ours <= gap < 0 < ours
        if not in_kind and self.terms.differing == "stop":
            raise BrokerError(
                f"{symbol}: {self.broker.name} holds {theirs:g} and the journal {ours:g}, so somebody else traded, or"
                " an order is missing; nothing was sent: look at both, then start again with --on-difference adjust to"
                " take the broker's position as it is"
            )
        fee = -gap * close if in_kind else 0.0  # what is gone as a fee was not sold
        self.book.fill(symbol, gap, close, fee)
        why = "fee in kind" if in_kind else "difference"
        found = {"from": ours, "to": theirs, "price": close, "fee": fee, "why": why}
        said = f"{symbol}: {self.broker.name} holds {theirs:g} and the journal {ours:g}; taken over as it is"
        return found, [] if in_kind else [Bite("difference", said)]

    # The order

    def _plan(
        self, symbol: str, bars: Bars, late: bool, thought: Thought, bites: list[Bite]
    ) -> tuple[Order | None, bool, str]:
        """The order that the decision leads to within the limits; whether the broker sizes it; and why it is sent."""
        held, env, table = self.book[symbol], self.terms.spec.config, self.terms.spec.actions
        reason = self._own_exit(held.account, bars)
        change = float(thought.units) * self.terms.share - held.units
        if float(thought.units) == float(held.account.units):
            change = 0.0
        if reason != "policy":
            change = -held.units
        day = self.standing.day
        rules = self.broker.rules(symbol)
        at = Situation(
            symbol, held.units, float(bars.close[-1]), len(day.orders), day.equity - self.book.equity, late, rules
        )
        units, cut = within(change, self.terms.limits, at)
        bites += cut
        by_policy = self.broker.sizes_at_open and reason == "policy" and not cut
        if by_policy and change == 0:
            # Where it is worth no order at the close it may be worth one at the open, which its broker will know.
            keeps = env.act_by == "mode" and table.keep[thought.action]
            if keeps or self.terms.limits.of_notional or only_reducing(self.terms.limits, at):
                return None, False, reason
        elif units == 0:
            return None, False, reason
        time = int(bars.time[-1])
        probs = tuple(float(x) for x in thought.log_probs) if by_policy else None
        id = order_id(self.terms.policy, symbol, time)
        return Order(id, symbol, time, units, probs, thought.size), by_policy, reason

    def _own_exit(self, account: AccountState, bars: Bars) -> str:
        """Which of the environment's exits the last bar touched, for a broker that has none; "policy" for none."""
        if account.units == 0 or (self.terms.submit and self.broker.kept(bars.symbol) is not None):
            return "policy"
        low, high, long = float(bars.low[-1]), float(bars.high[-1]), account.units > 0
        if account.equity <= self.terms.spec.config.ruin_level:
            return "liquidation"
        if (low <= account.stop) if long else (high >= account.stop):
            return "stop"
        if (high >= account.take_profit) if long else (low <= account.take_profit):
            return "take_profit"
        return "policy"

    def _send(self, order: Order) -> None:
        """Submit a journaled order and journal what comes of it."""
        try:
            state = self.broker.submit(order)
        except Rejected as error:
            self._refused(order, str(error))
            return
        except Unreachable as error:
            try:  # a look, without insisting: what is not there yet may still arrive
                found = self.broker.find(order.symbol, order.id)
            except Unreachable:
                found = None
            if found is None:
                self.say(f"{error}; whether order {order.id} arrived is asked at the next bar")
                return
            state = found
        if state.status == "rejected":
            self._refused(order, state.reason)
            return
        self._append({"kind": ACK, "symbol": order.symbol, "id": order.id, "state": state_facts(state)}, sync=True)

    def _settle_unsent(self, symbol: str) -> None:
        """After a stop: the newest bar's order, of which nothing is known, is looked up, and sent if it never was."""
        pending = self.standing.pending.get(symbol)
        if pending is None or pending.known:
            return
        order = pending.order
        state = self._insist(lambda: self.broker.find(symbol, order.id))
        if state is None:
            self._send(order)
        elif state.status == "rejected":
            self._refused(order, state.reason)
        else:
            self._append({"kind": ACK, "symbol": symbol, "id": order.id, "state": state_facts(state)}, sync=True)

    def _refused(self, order: Order, reason: str) -> None:
        self._append({"kind": REJECT, "symbol": order.symbol, "id": order.id, "reason": reason}, sync=True)
        self.say(f"{order.symbol}: {self.broker.name} refused order {order.id}: {reason}")

    # Around it

    def _insist(self, ask: Callable[[], Any]) -> Any:
        """An answer of the broker, who is asked again where he is silent; then `Unreachable`."""
        for left in range(TRIES - 1, -1, -1):
            try:
                return ask()
            except Unreachable:
                if not left:
                    raise
                self.clock.sleep(self.terms.pause)
        raise AssertionError

    def stop_if_killed(self) -> None:
        """Cancel what is open and raise `Killed` where the kill switch is there."""
        if not self.terms.kill.exists():
            return
        mine = self._mine()
        for order in mine:
            self._insist(partial(self.broker.cancel, order))
        self._note(
            f"{self.terms.kill}: the kill switch is there; {len(mine)} open orders were cancelled, nothing more is"
            " sent, and positions stay as they are"
        )
        raise Killed

    def _append(self, line: dict[str, Any], sync: bool = False) -> None:
        self.journal.append(line, sync=sync)
        self.standing.add(line)

    def _note(self, sentence: str) -> None:
        self.say(sentence)
        self._append({"kind": NOTE, "text": sentence}, sync=True)

    def _tell_bites(self, symbol: str, bites: list[Bite]) -> None:
        """What the limits changed, of each kind once a day and symbol: the journal has every time."""
        for bite in bites:
            once = (self.standing.day.date, symbol, bite.limit)
            if once not in self._told:
                self.say(bite.sentence)
            self._told.add(once)
