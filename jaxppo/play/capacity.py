"""How much money a policy can carry before its own orders eat its profit, by the square-root law of market impact."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxppo.market.asset_classes import asset_class_of
from jaxppo.market.bars import Bars
from jaxppo.market.calendar import DAY
from jaxppo.play.ledger import Ledger

Y = 1.0
"""Of the law: measured values are near 1 in every market that was looked at."""
LIQUIDITY_DAYS = 20
"""Dates, the one traded on included, of which volume is the mean and volatility the root mean square."""
CAPITALS = tuple(10.0**n for n in range(4, 13))
LARGE = 0.1
"""Share of a day's volume up to which the law is known."""


class Liquidity(NamedTuple):
    """What a symbol trades a day."""

    day: np.ndarray  # (M,) int64: starts of UTC dates, UTC seconds
    notional: np.ndarray  # (M,) float64, in the currency of the prices; mean of the latest dates; 0: no volume
    volatility: np.ndarray  # (M,) float64: root mean square of the latest dates' log returns


def liquidity(bars: Bars) -> Liquidity:
    """Daily notional and volatility of one symbol. Volume counts units of the symbol, as shares or coins do.

    Classes whose bars have no volume that means units (FX, whose brokers count ticks) have a notional of 0.
    """
    date = bars.time // DAY
    first = np.flatnonzero(np.diff(date, prepend=date[0] - 1))
    last = np.append(first[1:], len(date)) - 1
    close = bars.close[last]
    units = bars.volume if asset_class_of(bars.asset_class).has_volume else np.zeros_like(bars.volume)
    traded = np.add.reduceat(units * bars.close, first)
    change = np.square(np.diff(np.log(close), prepend=math.log(close[0])))
    return Liquidity(date[last] * DAY, trailing_mean(traded), np.sqrt(trailing_mean(change)))


def trailing_mean(values: np.ndarray, window: int = LIQUIDITY_DAYS) -> np.ndarray:
    """Mean of the latest `window` values up to each (M,), of fewer at the beginning.

    Example:
      >>> trailing_mean(np.array([1.0, 3.0, 5.0]), 2).tolist()
      [1.0, 2.0, 4.0]
    """
    padded = np.concatenate([np.full(window - 1, np.nan), values])
    mean: np.ndarray = np.nanmean(np.lib.stride_tricks.sliding_window_view(padded, window), axis=1)
    return mean


def capacity(ledger: Ledger, bars: Sequence[Bars], per_year: float) -> dict[str, Any]:
    """Capital at which impact eats half and all of the net profit.

    An order of notional Q costs the fraction Y sigma sqrt(Q / V) of it, beyond the costs already charged: sigma is the
    symbol's daily volatility and V its daily notional, both of the latest `LIQUIDITY_DAYS` dates, and Y = 1. The
    square-root law: Almgren, Thum, Hauptmann and Li (2005), "Direct Estimation of Equity Market Impact" (exponent .6);
    Toth et al. (2011), "Anomalous price impact and the critical nature of liquidity in financial markets"; Bouchaud,
    Bonart, Donier and Gould (2018), "Trades, Quotes and Prices", chapter 12. What a symbol trades in a day is one
    order. The capital is held constant: profits are taken out and losses made good, so that late orders weigh as early
    ones do. With q the share of the capital that an order trades, impact costs K sqrt(C) of the capital C, K = sum of
    Y sigma q^1.5 / sqrt(V), against a net profit of P, the sum of the daily returns: half of it is gone at
    C = (P / 2K)^2, all of it at four times that.

    It is a bound to think with and no forecast: nothing is traded more slowly because it would cost, prices do not
    recover between orders, and the law is known for orders of up to about a tenth of a day's volume.

    Args:
      ledger: what was traded.
      bars: of its symbols, whole.
      per_year: its days a year.

    Returns:
      `status` "ok", "no trades", "no volume" or "no profit", then, where they are known: `covered`, the share of the
      traded notional whose symbols have volume, and which alone is counted; `half` and `all`, capital in the currency
      of the prices; `large`, the capital from which on one order in twenty is a tenth of a day's volume or more, beyond
      which the law is a guess; `participation`, median and 95th percentile of the orders' share of a day's volume at
      half and at all; `impact`, at some capitals the impact a year as a share of the capital and of the net profit;
      `most`, the symbols that most of the impact comes from, with their shares. Of "no profit" `half` and `all` are 0.
    """
    traded, profit = ledger.traded, float(ledger.returns.sum())
    if not len(traded.share):
        return {"status": "no trades"}
    volume, sigma = _at_orders(ledger, bars)
    known = volume > 0
    covered = float(traded.share[known].sum()) / float(traded.share.sum())
    share, volume = traded.share[known], volume[known]
    each = Y * sigma[known] * share**1.5 / np.sqrt(volume)
    total = float(each.sum())
    if not total > 0:  # without volume, or of prices that never moved
        return {"status": "no volume", "covered": covered}
    all_gone = (profit / total) ** 2 if profit > 0 else 0.0
    years = len(np.unique(ledger.day)) / per_year
    names, place = np.unique(traded.symbol[known], return_inverse=True)
    by_symbol = np.bincount(place, each) / total
    return {
        "status": "ok" if profit > 0 else "no profit",
        "covered": covered,
        "profit_a_year": profit / years,
        "half": all_gone / 4.0,
        "all": all_gone,
        "large": LARGE / float(np.percentile(share / volume, 95)),
        "participation": {
            name: dict(zip(("median", "p95"), np.percentile(share * at / volume, (50, 95)).tolist(), strict=True))
            for name, at in (("half", all_gone / 4.0), ("all", all_gone))
        },
        "impact": [
            {
                "capital": at,
                "a_year": total * math.sqrt(at) / years,
                "of_profit": total * math.sqrt(at) / profit if profit > 0 else math.nan,
            }
            for at in CAPITALS
        ],
        "most": [
            {"symbol": str(names[i]), "share": float(by_symbol[i])} for i in np.argsort(-by_symbol, kind="stable")[:3]
        ],
    }


def _at_orders(ledger: Ledger, bars: Sequence[Bars]) -> tuple[np.ndarray, np.ndarray]:
    """Daily notional and volatility (R,) of each order's symbol on its day."""
    traded = ledger.traded
    volume, sigma = np.zeros((2, len(traded.share)))
    for one in bars:
        mine = np.flatnonzero(traded.symbol == one.symbol)
        if len(mine):
            of = liquidity(one)
            at = np.searchsorted(of.day, traded.day[mine])
            volume[mine], sigma[mine] = of.notional[at], of.volatility[at]
    return volume, sigma
