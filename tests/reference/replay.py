"""A replay of given decisions a second time: orders, levels and leverage as plain floats, on the same reference."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.env.account import Levels
from jaxppo.market.tape import Costs, MarketStep
from jaxppo.replay.played import Orders, ReplayRules, replay
from tests.reference.account import Events, ReferenceAccount
from tests.reference.compare import Told, gather, told


@dataclass
class ReferenceReplay(ReferenceAccount):
    """Call `decide` once a bar. nan for what a decision does not say."""

    order: str = "target"
    leverage: float | None = None

    def decide(self, given: tuple[float, float, float], bar: tuple[float, float, float, float]) -> Events:
        """One bar (open, high, low, close) under a decision (value, stop, take-profit)."""
        value, stop, limit = given
        open_ = bar[0]
        events = self._begin()
        held, levels = self.units, (self.stop, self.limit)
        wanted = self._wanted(value, open_)
        if wanted != held:
            events.order_units = wanted - held
            events.order_price = self._fill(wanted - held, open_, events)
            self.units = wanted  # to the last bit
        if self.units:
            if held * self.units > 0:
                self.stop, self.limit = levels
            self.stop = self.stop if stop != stop else stop
            self.limit = self.limit if limit != limit else limit
        return self._rest_of_bar(*bar, events)

    def _wanted(self, value: float, price: float) -> float:
        equity = self.cash + self.units * price
        if self.ruined:
            return 0.0
        if equity <= self.ruin or value != value:
            return self.units
        if self.order == "target":
            wanted = self.units + self._solve(value, equity, price)
        else:
            wanted = value if self.order == "units" else self.units + value
        if self.leverage is not None:
            most = self.units + self._solve(self.leverage, equity, price)
            least = self.units + self._solve(-self.leverage, equity, price)
            if wanted > max(most, self.units):
                wanted = max(most, self.units)
            if wanted < min(least, self.units):
                wanted = min(least, self.units)
        return wanted


@functools.cache
def _player(rules: ReplayRules):
    return jax.jit(jax.vmap(functools.partial(replay, rules=rules)))


def play_replay(rules: ReplayRules, prices, given, costs, start, ruin, dtype):
    """The package's replay of L accounts: `prices` and `given` are lists of (L, N), `costs` (3, L).

    Returns (accounts, records) of NumPy arrays (L, N).
    """
    lanes = prices[0].shape[0]
    with jax.enable_x64(dtype == "float64"):
        cast = functools.partial(jnp.asarray, dtype=dtype)
        value, stop, limit = (cast(x) for x in given)
        zero = cast(np.zeros_like(prices[0]))
        done = _player(rules)(
            Orders(value, Levels(stop, limit)),
            MarketStep(*(cast(p) for p in prices), zero, zero),
            Costs(*(cast(c) for c in costs)),
            cast(np.full(lanes, start)),
            cast(np.full(lanes, ruin)),
        )
        return jax.tree.map(np.asarray, (done.account, done.record))


def follow_replay(rules: ReplayRules, prices, given, costs, start, ruin) -> Told:
    """The reference over the same."""
    rows, margin, accounts = [], [], []
    lanes, n = prices[0].shape
    for lane in range(lanes):
        fee, impact, borrow = (float(c[lane]) for c in costs)
        reference = ReferenceReplay(
            start=start,
            ruin=ruin,
            fee=fee,
            impact=impact,
            borrow=borrow,
            take_profit_gap=rules.take_profit_gap,
            max_exposure=rules.leverage or 3.0,
            order=rules.order,
            leverage=rules.leverage,
        )
        rows.append([])
        margin.append([])
        for i in range(n):
            bar = tuple(float(p[lane, i]) for p in prices)
            events = reference.decide(tuple(float(g[lane, i]) for g in given), bar)
            if rules.close_at_end and i == n - 1:
                reference.close_out(bar[3], events)
            rows[-1].append(told(reference, events))
            margin[-1].append(reference.margin)
        accounts.append(reference)
    return gather(rows, margin, accounts)
