"""What the session owns, by its own reckoning: one account a symbol, as the policy observes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from jaxppo.config.schema import EnvConfig
from jaxppo.env.account import AccountState, book_close, book_fill, open_account
from jaxppo.paper.simulated import host_account

_close = jax.jit(book_close)


@dataclass(frozen=True)
class Holding:
    """One symbol."""

    account: AccountState  # scalars, money in starting equities
    units: float = 0.0  # signed, as the broker counts them: sums of fills in float64, where the account has float32


class Book:
    """The holdings of a session; money of an account is `share` times what the account says."""

    def __init__(self, symbols: Sequence[str], share: float, env: EnvConfig):
        fresh = host_account(open_account(np.float32(1.0)))  # type: ignore[arg-type]
        self.share = share
        self._fill = jax.jit(partial(book_fill, env=env))
        self._held = {symbol: Holding(fresh) for symbol in symbols}

    def __getitem__(self, symbol: str) -> Holding:
        return self._held[symbol]

    def put(self, symbol: str, holding: Holding) -> None:
        """A holding as it was before, or as a journal has it."""
        self._held[symbol] = holding

    def fill(self, symbol: str, units: float, price: float, fee: float) -> None:
        """A fill of `units` signed units for `fee` of money."""
        held = self._held[symbol]
        total = _cleared(held.units + units, held.units)
        new, paid = np.float32(total / self.share), np.float32(fee / self.share)
        filled = jax.device_get(self._fill(held.account, new, np.float32(price), paid))
        self.put(symbol, Holding(host_account(filled), total))

    def close(self, symbol: str, price: float) -> None:
        """A bar has closed at `price`."""
        held = self._held[symbol]
        closed = jax.device_get(_close(held.account, np.float32(price)))
        self.put(symbol, Holding(host_account(closed), held.units))

    def keep(self, symbol: str, account: AccountState) -> None:
        """The account as a broker keeps it himself."""
        self.put(symbol, Holding(account, self.share * float(account.units)))

    @property
    def equity(self) -> float:
        """Money, every position marked at its last close."""
        return self.share * sum(float(h.account.equity) for h in self._held.values())


def _cleared(units: float, before: float) -> float:
    """Fractions that add up to 0 leave a rounding error, and the position would stay open."""
    return 0.0 if abs(units) <= 1e-12 * abs(before) else units
