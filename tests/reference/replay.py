"""A replay of given decisions a second time: orders, levels and exposure as plain floats, on the same reference."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.config.schema import EnvConfig
from jaxppo.env.account import Levels
from jaxppo.market.tape import Costs, price_tape
from jaxppo.play.deciders import Orders, ordering
from jaxppo.play.passes import play
from tests.reference.account import Events, ReferenceAccount
from tests.reference.compare import Told, gather, told


class Rules(NamedTuple):
    kind: str  # what an order's number means, as of `ordering`
    take_profit_gap: str
    max_exposure: float
    close_at_end: bool


@dataclass
class ReferenceReplay(ReferenceAccount):
    """Call `decide` once a bar. nan for what a decision does not say."""

    kind: str = "target"
    most: float = math.inf  # exposure

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
        if self.kind == "target":
            wanted = self.units + self._solve(value, equity, price)
        else:
            wanted = value if self.kind == "units" else self.units + value
        if math.isfinite(self.most):
            most = self.units + self._solve(self.most, equity, price)
            least = self.units + self._solve(-self.most, equity, price)
            if wanted > max(most, self.units):
                wanted = max(most, self.units)
            if wanted < min(least, self.units):
                wanted = min(least, self.units)
        return wanted


def _seeing_accounts(decider):
    """The same decider, which notes the account that it decides on too."""

    def decide(moment):
        order = decider.decide(moment)
        return order._replace(note=moment.account)

    return decider._replace(decide=decide)


@functools.partial(jax.jit, static_argnames=("rules", "start", "ruin_level"))
def _play(orders, tape, rules, start, ruin_level):
    env = EnvConfig(ruin_level=ruin_level, max_exposure=rules.max_exposure, take_profit_gap=rules.take_profit_gap)
    decider = _seeing_accounts(ordering(orders, rules.kind, env))
    played = play(decider, tape, tape.n_bars - 1, cash=start, close_at_end=rules.close_at_end)
    # What was decided on is the account after the bar before.
    after = jax.tree.map(lambda x, end: jnp.concatenate([x[1:], end[None]]), played.note, played.account)
    return jax.tree.map(lambda x: x[:, 0].T, (after, played.record))


def play_replay(rules: Rules, prices, given, costs, start, ruin, dtype):
    """The package's replay of L accounts, a symbol each: `prices` and `given` are lists of (L, N), `costs` (3, L).

    Returns (accounts, records) of NumPy arrays (L, N).
    """
    with jax.enable_x64(dtype == "float64"):
        cast = functools.partial(jnp.asarray, dtype=dtype)
        value, stop, limit = (cast(x.T[:, None]) for x in given)
        # Nothing fills on the first bar of a Tape.
        bars = (cast(np.concatenate([p[:, :1], p], axis=1)) for p in prices)
        tape = price_tape(*bars, Costs(*(cast(c) for c in costs)), cast(np.full(len(prices[0]), 252.0)))
        return jax.tree.map(np.asarray, _play(Orders(value, Levels(stop, limit)), tape, rules, start, ruin / start))


def follow_replay(rules: Rules, prices, given, costs, start, ruin) -> Told:
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
            max_exposure=min(rules.max_exposure, 3.0),
            kind=rules.kind,
            most=rules.max_exposure,
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
