"""What the portfolio that is rebalanced daily paid, held and traded, day by day: float64 NumPy, from the record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxppo.market.dataset import Split, evaluation_set, joint_calendar
from jaxppo.play.score import Score, live_symbols

_live_symbols = jax.jit(live_symbols)


class Traded(NamedTuple):
    """What was traded of a symbol on a day, a row each."""

    symbol: np.ndarray  # (R,) text
    day: np.ndarray  # (R,) int64: start of the UTC date, UTC seconds
    share: np.ndarray  # (R,) float64: notional of all fills over the portfolio's equity the day before


class Ledger(NamedTuple):
    """A portfolio's days; shares are of its equity at the end of the day before."""

    day: np.ndarray  # (D,) int64, ascending; a date that two folds share is there twice
    returns: np.ndarray  # (D,) float64, net
    fees: np.ndarray  # (D,) float64, share paid
    impact: np.ndarray  # (D,) float64, share paid as spread and slippage
    borrow: np.ndarray  # (D,) float64, share paid
    active: np.ndarray  # (D,) bool: some symbol was held
    bars: int  # of all symbols
    long: int  # of them with a long position
    short: int
    traded: Traded

    def time_in_market(self) -> dict[str, float]:
        """Shares of the bars of all symbols with a position, long and short, and of the days with any.

        A bar counts where its order leaves a position, so that one on which a stop closed it does too. quantstats'
        `exposure` is the share of days whose return is not 0, rounded up to a whole percent.
        """
        n = max(self.bars, 1)
        days, active = np.unique(self.day).size, np.unique(self.day[self.active]).size
        return {
            "bars": (self.long + self.short) / n,
            "long": self.long / n,
            "short": self.short / n,
            "days": active / max(days, 1),
        }


def empty_ledger(day: np.ndarray) -> Ledger:
    """Days (D,) on which nothing happened."""
    zero = np.zeros(len(day))
    none = Traded(np.zeros(0, str), np.zeros(0, np.int64), np.zeros(0))
    return Ledger(day, zero, zero, zero, zero, np.zeros(len(day), bool), 0, 0, 0, none)


def ledger_of(score: Score, split: Split) -> Ledger:
    """The ledger of one lane's portfolio; `score` holds host arrays.

    A day begins with equal money in every live symbol's account, so what an account paid that day over its equity the
    day before, and the mean of that over the live ones, is what the portfolio paid: as `portfolio_curve` has it.
    Moving money between symbols is free here as there, and is no trade.
    """
    joint, record = joint_calendar(split), score.record
    live = np.asarray(_live_symbols(evaluation_set(split)))  # (S, D)
    weight = live / np.maximum(live.sum(0), 1)

    def up_to(values: Any, start: float) -> np.ndarray:
        """Of values (N, S) what stood at the end of every date and at the start: (S, D + 1)."""
        whole = np.concatenate([np.full((1, live.shape[0]), start), np.asarray(values, np.float64)]).T
        behind = np.pad(joint.day_behind, ((0, 0), (1, 0)))
        return np.take_along_axis(whole, behind, axis=1)

    equity = up_to(record.equity, 1.0)
    before = equity[:, :-1]
    owned = before > 0
    unit = weight * owned / np.where(owned, before, 1.0)

    def shares(values: Any) -> np.ndarray:
        """Money (N, S) of each day as a share of the portfolio, (S, D)."""
        total = up_to(np.cumsum(np.asarray(values, np.float64), axis=0), 0.0)
        spent: np.ndarray = unit * np.diff(total, axis=1)
        return spent

    fees, impact = shares(record.fees), shares(np.asarray(record.cost, np.float64) - record.fees)
    held = np.where(score.valid, np.sign(record.exposure), 0.0)
    traded = shares(record.traded)
    some = traded > 1e-12  # sums of float32 money that cancel to less than this are none
    at = np.nonzero(some)
    return Ledger(
        joint.day,
        (unit * np.diff(equity, axis=1)).sum(0),
        fees.sum(0),
        impact.sum(0),
        shares(record.borrow).sum(0),
        np.asarray(np.diff(up_to(np.cumsum(held != 0, axis=0), 0.0), axis=1).any(0)),
        int(np.sum(score.valid)),
        int((held > 0).sum()),
        int((held < 0).sum()),
        Traded(np.asarray(split.symbols)[at[0]], joint.day[at[1]], traded[at]),
    )


def join_ledgers(parts: Sequence[Ledger]) -> Ledger:
    """Ledgers one after another, such as those of folds."""
    return Ledger(
        day=np.concatenate([p.day for p in parts]),
        returns=np.concatenate([p.returns for p in parts]),
        fees=np.concatenate([p.fees for p in parts]),
        impact=np.concatenate([p.impact for p in parts]),
        borrow=np.concatenate([p.borrow for p in parts]),
        active=np.concatenate([p.active for p in parts]),
        bars=sum(p.bars for p in parts),
        long=sum(p.long for p in parts),
        short=sum(p.short for p in parts),
        traded=Traded(
            np.concatenate([p.traded.symbol for p in parts]),
            np.concatenate([p.traded.day for p in parts]),
            np.concatenate([p.traded.share for p in parts]),
        ),
    )
