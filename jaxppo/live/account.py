"""An account as a person or a broker knows it, as the account that a policy observes."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from jaxppo.config.schema import EnvConfig
from jaxppo.env.account import AccountState
from jaxppo.errors import DataError

_POSITIVE = ("equity", "start", "average_price", "peak", "stop", "take_profit")
_COUNTS = ("bars_held", "trades", "wins")
_MOST = np.iinfo(np.int32).max  # of a count, which the account has as int32
_LARGEST = float(np.finfo(np.float32).max)  # of everything else


@dataclass(frozen=True)
class Account:
    """Plain facts of an account in money, at the close of the newest bar; what is not known stays out.

    One of `equity` and `cash` is needed. `DataError` names the field that cannot be.

    Example (10,000 in cash, of an account that began with 9,500):
      >>> Account(cash=10_000.0, start=9_500.0).equity_at(100.0)
      10000.0
    """

    equity: float | None = None
    """Cash and position, marked at the close."""
    cash: float | None = None
    """Instead of `equity`; what a short sale brought is part of it."""
    units: float = 0.0
    """Signed units held."""
    average_price: float | None = None
    """Average fill price of the open position; by default the close, so that nothing is gained or lost yet."""
    entry_time: int | None = None
    """Start of the bar on which the position was opened, UTC seconds; it tells `bars_held`."""
    bars_held: int | None = None
    """Bars at whose close the position was open, the entry's included; by default 1."""
    start: float | None = None
    """Money that the account began with; by default the equity, so that the total return is 0."""
    peak: float | None = None
    """Highest equity at a close so far; by default that of now, or the start where it is higher."""
    trades: int = 0
    """Round trips closed so far; without any, the observed win rate is 0.5."""
    wins: int = 0
    """Those with a net gain."""
    stop: float | None = None
    """Stop price in force; by default at the policy's distance from `average_price`, if it has one."""
    take_profit: float | None = None
    """Take-profit price in force; likewise."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise DataError(f"account: {f.name} must be a finite number, got {value!r}")
            if f.name in _POSITIVE and value <= 0:
                raise DataError(f"account: {f.name} must be above 0, got {value!r}")
            if f.name in (*_COUNTS, "entry_time") and (value < 0 or value != int(value)):
                raise DataError(f"account: {f.name} must be a whole number of at least 0, got {value!r}")
            if f.name in _COUNTS and value > _MOST:
                raise DataError(f"account: {f.name} must be at most {_MOST:,}, got {value!r}")
        if (self.equity is None) == (self.cash is None):
            raise DataError("account: give one of equity and cash")
        if self.wins > self.trades:
            raise DataError(f"account: wins must be at most the {self.trades} trades, got {self.wins}")
        if self.units == 0:
            for name in ("average_price", "entry_time", "bars_held", "stop", "take_profit"):
                if getattr(self, name) not in (None, 0):
                    raise DataError(f"account: {name} is given, but units is 0, so there is no open position")

    @staticmethod
    def from_facts(facts: Any, where: str = "account") -> Account:
        """Of a mapping of these fields, such as a JSON file holds; `DataError` for anything else."""
        names = [f.name for f in fields(Account)]
        if not isinstance(facts, dict):
            raise DataError(f"{where}: must be an object with the fields {', '.join(names)}")
        for name in facts:
            if name not in names:
                raise DataError(f"{where}: unknown field {name!r}; known are {', '.join(names)}")
        try:
            return Account(**facts)
        except DataError as error:
            raise DataError(str(error).replace("account", where, 1)) from None

    def equity_at(self, close: float) -> float:
        """Money there is, the position marked at `close`."""
        return float(self.equity) if self.equity is not None else float(self.cash or 0.0) + self.units * close

    def state(
        self, close: float, env: EnvConfig, times: Sequence[int] | np.ndarray | None = None
    ) -> tuple[AccountState, float]:
        """The account as the environment has it, and the money that its 1 stands for.

        Args:
          close: of the newest bar.
          env: whose stop and take-profit distances give the levels that are not told.
          times: UTC seconds of bars, ascending, to count those since `entry_time`.

        Returns:
          Scalars of float32 and int32, with money and units over `start`; and `start`.

        Raises:
          DataError: an equity of 0 or less, an amount that float32 does not have, an entry after the newest of `times`.
        """
        equity = self.equity_at(close)
        if equity <= 0:
            raise DataError(f"account: its equity is {equity:g} at a close of {close:g}; nothing can be decided for it")
        start = equity if self.start is None else float(self.start)
        peak = max(equity, start) if self.peak is None else max(float(self.peak), equity)
        held, long = self.units != 0, self.units > 0
        cost = (close if self.average_price is None else float(self.average_price)) if held else 0.0
        stop, take = self._levels(cost, long, env) if held else (0.0, math.inf)
        for name, value in (("units", self.units / start), ("equity", equity / start), ("peak", peak / start)):
            if not abs(value) <= _LARGEST:
                raise DataError(f"account: {name} is {value:g} times the start, more than can be reckoned with")
        if cost > _LARGEST:
            raise DataError(f"account: average_price is {cost:g}, more than can be reckoned with")
        numbers = (self.units / start, close, equity / start, 0.0, peak / start, cost, stop, take, 0.0)
        counts = (self._held(times) if held else 0, self.trades, self.wins)
        state = AccountState(*(np.float32(x) for x in numbers), *(np.int32(n) for n in counts))  # type: ignore[arg-type]
        return state, start

    def _levels(self, cost: float, long: bool, env: EnvConfig) -> tuple[float, float]:
        side = 1.0 if long else -1.0
        none_below, none_above = (0.0, math.inf) if long else (math.inf, 0.0)
        stop = cost * (1.0 - side * env.stop_loss) if env.stop_loss > 0 else none_below
        take = cost * (1.0 + side * env.take_profit) if env.take_profit > 0 else none_above
        return (
            stop if self.stop is None else float(self.stop),
            take if self.take_profit is None else float(self.take_profit),
        )

    def _held(self, times: Sequence[int] | np.ndarray | None) -> int:
        if self.bars_held is not None:
            return int(self.bars_held)
        if self.entry_time is None or times is None:
            return 1
        held = len(times) - bisect_left(times, int(self.entry_time))
        if held == 0:
            raise DataError(
                f"account: entry_time {int(self.entry_time)} is after the newest bar, which began at {int(times[-1])};"
                " give the start of the bar on which the position was opened, in UTC seconds"
            )
        return held
