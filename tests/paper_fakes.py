"""What tests of paper trading share: bars and decisions by a script, and a broker that does what it is told."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from helpers import bracketed

from jaxppo.config.schema import EnvConfig, RewardConfig
from jaxppo.env.trading import EnvSpec, env_spec
from jaxppo.market.bars import Bars
from jaxppo.market.synthetic import synthetic_market
from jaxppo.market.tape import Costs, Terms
from jaxppo.paper.broker import Order, OrderState, Rejected, Rules, Unreachable
from jaxppo.paper.feed import Clock, ReplayFeed
from jaxppo.paper.limits import Limits
from jaxppo.paper.loop import Conduct, Loop
from jaxppo.paper.mind import Thought
from jaxppo.paper.simulated import BarStep, SimulatedBroker
from jaxppo.store.journal import JOURNAL, Journal, read_journal
from jaxppo.store.sessions import ENV_FIELDS

POLICY = "0123456789abcdef"
NO_WAIT = Clock(sleep=lambda seconds: None)
HOUR = 3600
SHARE = 10_000.0
COSTS = Terms(Costs(*map(np.float32, (0.001, 0.0005, 0.00001))), np.bool_(True))
ENV = bracketed(max_exposure=1.0, stop_loss=0.01, take_profit=0.02)
PLAIN = EnvConfig(actions="targets", targets=(-1.0, 0.0, 1.0))


def spec(env: EnvConfig = ENV) -> EnvSpec:
    return env_spec(env, RewardConfig())


STEPS = {id(env): BarStep(spec(env)) for env in (ENV, PLAIN)}  # compiled once for all sessions


def bars_of(closes: Sequence[float], symbol: str = "AAA") -> Bars:
    """Hourly bars that open at the close before and range 0.1 beyond both."""
    close = np.asarray(closes, np.float64)
    open_ = np.concatenate([close[:1], close[:-1]])
    high, low = np.maximum(open_, close) + 0.1, np.minimum(open_, close) - 0.1
    time = 1_704_067_200 + HOUR * np.arange(len(close), dtype=np.int64)
    return Bars(symbol, "crypto", HOUR, "UTC", time, open_, high, low, close, np.ones(len(close)), "test")


def market(n: int = 14) -> list[Bars]:
    """Two symbols, of which the second has no bar now and then."""
    made = zip(synthetic_market(3, 2, 600), ("ONE", "TWO"), strict=True)
    one, two = (dataclasses.replace(cut(b, n), symbol=symbol) for b, symbol in made)
    keep = np.ones(n, bool)
    keep[[3, 7]] = False
    return [one, dataclasses.replace(two, **{k: getattr(two, k)[keep] for k in FIELDS})]


FIELDS = ("time", "open", "high", "low", "close", "volume")


def cut(bars: Bars, n: int) -> Bars:
    return dataclasses.replace(bars, **{k: getattr(bars, k)[-n:] for k in FIELDS})


class Script:
    """A policy that says what it is told at each bar of a symbol, or what its time is hashed to."""

    def __init__(self, of: EnvSpec, told: Mapping[int, int] | None = None):
        self.spec, self.told = of, told

    def __call__(self, bars: Bars, account: Any) -> Thought:
        table, close = self.spec.actions, float(bars.close[-1])
        action = self._action(bars)
        log_probs = np.full(table.n_actions, -2.0, np.float32)
        log_probs[action] = -0.5
        target = float(account.units) * close / float(account.equity) if table.keep[action] else table.offset[action]
        units = float(account.units) if table.keep[action] else float(np.float32(target * account.equity / close))
        return Thought(np.zeros(8, np.float32), log_probs, action, 0.0, None, target, units)

    def _action(self, bars: Bars) -> int:
        if self.told is not None:
            return self.told.get(len(bars.time) - 1, 0)
        digest = hashlib.sha256(f"{bars.symbol}{bars.time[-1]}".encode()).digest()
        return digest[0] % self.spec.actions.n_actions


class FakeBroker:
    """An exchange that fills at a price of its own when it is told to; `silent` is how many calls are not answered."""

    name = "fake"
    sizes_at_open = False

    def __init__(self, rules: Rules | None = None, fee: float = 0.001):
        self.orders: dict[str, OrderState] = {}
        self.held: dict[str, float] = {}
        self.sent: list[Order] = []
        self.silent = 0
        self.reject: str | None = None
        self.share = 1.0  # of an order that fills at once
        self.price = 100.0
        self.arrival: float | None = None
        self.lose = False  # the order arrives, and its answer is lost
        self.deaf_to_cancel = False
        self._rules, self._fee = rules or Rules(), fee

    def _answer(self) -> None:
        if self.silent > 0:
            self.silent -= 1
            raise Unreachable("fake: no answer within 10 s")

    def check(self, symbols: Sequence[str]) -> None:
        self._answer()

    def rules(self, symbol: str) -> Rules:
        return self._rules

    def equity(self) -> float:
        return 20_000.0

    def positions(self) -> dict[str, float]:
        self._answer()
        return dict(self.held)

    def open_orders(self) -> list[OrderState]:
        self._answer()
        return [o for o in self.orders.values() if o.status == "open"]

    def submit(self, order: Order) -> OrderState:
        self._answer()
        if order.id in self.orders:
            return self.orders[order.id]
        if self.reject:
            raise Rejected(self.reject)
        self.sent.append(order)
        filled = order.units * self.share
        status = "filled" if self.share == 1.0 else "open"
        fee = abs(filled) * self.price * self._fee
        state = OrderState(order.id, order.symbol, status, filled, self.price, fee, "b1", arrival=self.arrival)
        self.orders[order.id] = state
        self.held[order.symbol] = self.held.get(order.symbol, 0.0) + filled
        if self.lose:
            self.silent = 1  # nor is it to be looked up at once
            raise Unreachable("fake: no answer within 10 s")
        return state

    def find(self, symbol: str, id: str) -> OrderState | None:
        self._answer()
        return self.orders.get(id)

    def cancel(self, order: OrderState) -> None:
        self._answer()
        if not self.deaf_to_cancel:
            self.orders[order.id] = dataclasses.replace(self.orders[order.id], status="cancelled")

    def kept(self, symbol: str) -> None:
        return None


def head(env: EnvConfig, symbols: Sequence[str], broker: str = "fake", submit: bool = True) -> dict[str, Any]:
    """The first line of a journal, as `jaxppo.paper.setup.session_line` writes it."""
    costs = {k: float(x) for k, x in COSTS.costs._asdict().items()}
    return {
        "kind": "session",
        "version": 1,
        "run": "runs/test",
        "actions": dataclasses.asdict(spec(env).actions),
        "env": {k: getattr(env, k) for k in ENV_FIELDS},
        "broker": broker,
        "submit": submit,
        "share": SHARE,
        "symbols": {s: {"asset_class": "crypto", "allow_short": True, **costs} for s in symbols},
    }


class Session:
    """A session in a folder, on a simulated broker or on a fake one; `said` is what it told."""

    def __init__(
        self,
        folder: Path,
        bars: Sequence[Bars],
        broker: FakeBroker | None = None,
        told: Mapping[int, int] | None = None,
        env: EnvConfig = ENV,
        limits: Limits | None = None,
        differing: str = "stop",
        submit: bool = True,
        first: int = 2,
        before: Any = None,
    ):
        self.folder, self.said = folder, []
        of = spec(env)
        symbols = tuple(b.symbol for b in bars)
        self.journal = Journal(folder / JOURNAL)
        if next(self.journal.read(), None) is None:
            line = head(env, symbols, "fake" if broker else "simulated", submit)
            self.journal.append(line)
        watch = before or (lambda b: None)
        if broker is None:
            log = Journal(folder / "broker.jsonl")
            broker = SimulatedBroker(STEPS[id(env)], dict.fromkeys(symbols, COSTS), SHARE, log)
            watch = broker.trade
        self.broker = broker
        since = max((x["time"] for x in self.journal.read() if "time" in x), default=None)
        feed = ReplayFeed(bars, dict.fromkeys(symbols, first), since=since, watch=watch)
        limits = limits or Limits()
        conduct = Conduct(POLICY, of, SHARE, limits, submit, differing, folder / "KILL", pause=0.0)
        ask = Script(of, told)
        self.loop = Loop(ask, feed, broker, self.journal, conduct, symbols, HOUR, self.said.append, NO_WAIT)

    def run(self) -> Session:
        self.loop.run()
        return self

    @property
    def lines(self) -> list[dict[str, Any]]:
        return list(read_journal(self.folder / JOURNAL))

    @property
    def decisions(self) -> list[dict[str, Any]]:
        return [x for x in self.lines if x["kind"] == "decision"]
