"""Deciding bar by bar: a policy that is fed the bars of one symbol, in constant time and memory a bar."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np

from jaxppo.env.account import AccountState
from jaxppo.errors import ConfigError, DataError
from jaxppo.live.account import Account
from jaxppo.live.decision import Decider, Decision, Seen
from jaxppo.live.features import STREAMS, Bar, Features, Size
from jaxppo.market.asset_classes import may_short
from jaxppo.market.bars import Bars
from jaxppo.market.calendar import bars_per_year as count_bars_per_year
from jaxppo.market.quality import format_time
from jaxppo.market.tape import Costs

TIMES = 4096
"""Bars within which an entry's time is found; what a position is held for is observed on a logarithmic scale."""


class Stream:
    """A policy fed the bars of one symbol: `policy.stream(bars)`, then `stream(bar, account)` for each new one.

    Features and size are carried forward from the first bar of the history on, so that they are those of the whole
    history: the same float32 bits as `policy.decide`, whose decision it then is.

    Example:
      >>> import jaxppo
      >>> policy = jaxppo.restore_policy("runs/my-run")  # doctest: +SKIP
      >>> stream = policy.stream(jaxppo.load_bars("BTCUSDT.csv")[0])  # doctest: +SKIP
      >>> decision = stream(jaxppo.Bar(1735689600, 93500.0, 93800.0, 93300.0, 93650.0, 41.5))  # doctest: +SKIP
    """

    def __init__(
        self, decider: Decider, bars: Bars, *, costs: Costs | None = None, bars_per_year: float | None = None
    ) -> None:
        """Begin with a history, at some 80 us a bar.

        Args:
          decider: the policy's.
          bars: from the first bar that the policy should know of; at least one.
          costs: as of `RestoredPolicy.decide`.
          bars_per_year: likewise; counted once, of this history.

        Raises:
          ConfigError: a feature group of a plugin, or features from elsewhere, which need the whole history.
        """
        config = decider.policy.info.config
        if decider.recipe.outside is not None:
            raise ConfigError(
                f"features from elsewhere ({decider.recipe.outside.file}) are not bars, so they cannot be fed; use"
                " decide with the history"
            )
        if decider.recipe.contexts:
            raise ConfigError(
                "features of longer bars (--context) cannot be fed bar by bar; use decide with the history"
            )
        if bars.dividend is not None:
            raise ConfigError(
                f"{bars.symbol}: bars with dividends, which bars that are fed do not have; use decide with the history"
            )
        names = [group.name for group in decider.groups]
        for name in names:
            if name not in STREAMS:
                raise ConfigError(
                    f"features {name!r} are a plugin's and cannot be computed bar by bar; use decide with the history"
                )
        more = config.features
        self._decider, self._symbol = decider, bars.symbol
        self._features = Features(
            names, more.scale_window, bars.interval, bars.timezone, more.trend_returns, more.trend_macd
        )
        self._size = None
        if config.env.size_by == "volatility":
            env = config.env
            if bars_per_year is None:
                bars_per_year = count_bars_per_year(bars.time, bars.interval, bars.asset_class, bars.timezone)
            self._size = Size(env.volatility_span, env.target_volatility, env.max_exposure, bars_per_year)
        self._allowed = may_short(bars.asset_class, config.env)
        self._costs = decider.costs(bars) if costs is None else costs
        self._window = np.zeros((decider.reach, len(decider.policy.info.feature_names)), np.float32)
        self._times: deque[int] = deque(maxlen=TIMES)
        self._now: float | None = None
        self.n_bars = 0
        """Bars that it was fed so far."""
        columns = (bars.time, bars.open, bars.high, bars.low, bars.close, bars.volume)
        for row in zip(*(c.tolist() for c in columns), strict=True):
            self.feed(Bar(*row))

    def feed(self, bar: Bar) -> None:
        """Take a new bar in; `DataError` where it is no later than the last, or holds what no bar does."""
        if self._times and bar.time <= self._times[-1]:
            raise DataError(
                f"{self._symbol}: a bar of {format_time(bar.time)} after one of {format_time(self._times[-1])}; feed"
                " every bar once, oldest first"
            )
        prices = bar[1:5]
        if not all(0 < x < math.inf for x in prices) or not 0 <= bar.volume < math.inf:
            raise DataError(
                f"{self._symbol}: the bar of {format_time(bar.time)} has prices {prices} and volume {bar.volume};"
                " prices must be finite and above 0, volumes finite and not negative"
            )
        self._window[:-1] = self._window[1:]
        self._window[-1] = self._features.push(bar)
        self._now = None if self._size is None else float(np.float32(self._size.push(bar.close)))
        self._times.append(bar.time)
        self._close = bar.close
        self.n_bars += 1

    def see(self) -> Seen:
        """The newest bar as `Decider.see` has it; `DataError` for too few bars."""
        if self.n_bars < self._decider.min_bars:
            raise DataError(
                f"{self._symbol}: {self.n_bars} bars so far, but a decision needs at least {self._decider.min_bars}"
            )
        return Seen(
            self._window,
            self._symbol,
            self._times[-1],
            self._close,
            self._now,
            self._allowed,
            self._costs,
            self._times,
            self._decider.min_bars,
        )

    def decide(self, account: Account | AccountState | None = None, price: float | None = None) -> Decision:
        """The decision at the newest bar; arguments as of `RestoredPolicy.decide`, `DataError` for too few bars."""
        return self._decider.decide(self.see(), account, price)

    def __call__(self, bar: Any, account: Account | AccountState | None = None, price: float | None = None) -> Decision:
        """`feed` a `Bar`, or what has its fields in that order, and `decide`."""
        self.feed(Bar(*bar))
        return self.decide(account, price)
