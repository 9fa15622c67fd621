"""What the policy says of a symbol's newest bar, and what the journal keeps of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxppo.env.account import AccountState
from jaxppo.env.trading import observe_account
from jaxppo.errors import ConfigError
from jaxppo.live.decision import NUMBERS, Answer, Seen, answer
from jaxppo.live.features import Bar
from jaxppo.live.stream import Stream
from jaxppo.market.bars import Bars
from jaxppo.market.quality import FIELDS
from jaxppo.market.tape import Quote, Terms
from jaxppo.store.checkpoint import RestoredPolicy


class Thought(NamedTuple):
    """A decision. Money and units are in starting equities."""

    observation: np.ndarray  # (A,) float32
    log_probs: np.ndarray  # (K,) float32
    action: int  # the most probable one
    value: float
    size: float | None  # exposure that an action's 1 stands for; None: 1
    exposure: float  # wanted: of the most probable action, or of all on average (`act_by`)
    units: float  # to hold, were the order filled at the close; those held where it is not worth one


Ask = Callable[[Bars, AccountState], Thought]
"""History of a symbol, the newest bar last, and its account of scalars to a decision."""


class Mind:
    """A policy that is asked at every bar."""

    def __init__(self, policy: RestoredPolicy, terms: Mapping[str, Terms], per_year: Mapping[str, float]):
        self.spec = policy.decider.spec
        self._policy, self._terms, self._per_year = policy, terms, per_year
        self._streams: dict[str, Stream | None] = {}  # None of a symbol that cannot be fed bar by bar
        decide, config = answer(policy.agent, self.spec), self.spec.config

        def ask(params: Any, window: jax.Array, account: AccountState, quote: Quote, terms: Terms) -> Any:
            found = decide(params, window, account, quote, quote.close, terms.costs, terms.allow_short)
            return found, observe_account(account, quote, config)

        self._ask = jax.jit(ask)

    def __call__(self, bars: Bars, account: AccountState) -> Thought:
        """The decision at the close of the last of `bars`."""
        terms, seen = self._terms[bars.symbol], self._see(bars)
        quote = Quote(np.float32(seen.close), None if seen.size is None else np.float32(seen.size))  # type: ignore[arg-type]
        found: tuple[Answer, np.ndarray] = jax.device_get(
            self._ask(self._policy.params, seen.window, account, quote, terms)
        )
        (log_probs, numbers), observation = found
        of = dict(zip(NUMBERS, map(float, numbers), strict=True))
        return Thought(
            observation=observation,
            log_probs=np.asarray(log_probs),
            action=int(of["action"]),
            value=of["value"],
            size=seen.size,
            exposure=of["exposure"],
            units=of["units"],
        )

    def _see(self, bars: Bars) -> Seen:
        """The newest bar, in constant time where its features can be carried on from the one before."""
        symbol = bars.symbol
        costs, per_year = self._terms[symbol].costs, self._per_year[symbol]
        if symbol not in self._streams:
            try:
                self._streams[symbol] = Stream(self._policy.decider, bars, costs=costs, bars_per_year=per_year)
            except ConfigError:
                self._streams[symbol] = None
        stream = self._streams[symbol]
        if stream is None:
            return self._policy.decider.see(bars, costs, per_year)
        columns = (getattr(bars, name)[stream.n_bars :].tolist() for name in ("time", *FIELDS))
        for row in zip(*columns, strict=True):
            stream.feed(Bar(*row))
        return stream.see()
