"""The tear sheet of a daily account, next to holding: float64 NumPy, arrays in and plain values out.

Its names and definitions are those of quantstats and empyrical wherever these agree with the table of metrics; where
they do not, the function says how it differs and why. A day is a UTC date on which some symbol fills a decision, and
there are `per_year` of them a year: what annualises here is what annualises everywhere else (`joint_days`). The
risk-free rate is 0 throughout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxppo.market.bars import Bars
from jaxppo.market.calendar import DAY
from jaxppo.market.dataset import Split, joint_calendar
from jaxppo.play.capacity import capacity
from jaxppo.play.ledger import Ledger, ledger_of
from jaxppo.play.score import Score
from jaxppo.play.significance import curve_returns

WINDOWS = {"6m": 0.5, "1y": 1.0}
"""Years of the rolling windows, by how columns are named."""
DRAWDOWNS, DAYS_SHOWN, MONTHS_SHOWN = 10, 5, 3
TAIL = 0.05
MOST_BINS = 60
NOT_RECOVERED = "not recovered"


class Returns(NamedTuple):
    """Net returns of an account and of holding on the same days."""

    day: np.ndarray  # (D,) int64: starts of UTC dates, UTC seconds, ascending
    per_year: float  # such dates a year
    policy: np.ndarray  # (D,) float64
    hold: np.ndarray  # (D,) float64, buy-and-hold at the same costs


class TearSheet(NamedTuple):
    """What is written of an account."""

    figures: dict[str, Any]  # plain values: tearsheet.json
    daily: dict[str, np.ndarray]  # columns (D,): tearsheet_daily.csv


def sheet_of(score: Score, split: Split, hold: np.ndarray | jax.Array, bars: Sequence[Bars]) -> TearSheet:
    """The tear sheet of one lane's portfolio that is rebalanced daily, on one split.

    Args:
      score: host arrays.
      split: that it was played on.
      hold: (D,) equity of buy-and-hold, rebalanced daily.
      bars: as of `tear_sheet`.
    """
    joint = joint_calendar(split)
    returns = Returns(joint.day, joint.days_per_year, curve_returns(score.curves.portfolio), curve_returns(hold))
    return tear_sheet(returns, ledger_of(score, split), bars)


def tear_sheet(returns: Returns, ledger: Ledger, bars: Sequence[Bars]) -> TearSheet:
    """Everything that the tear sheet says.

    Args:
      returns: of the account and of holding, D >= 1 days.
      ledger: what the account paid, held and traded on those days.
      bars: of the symbols that it trades, whole; their volume is what capacity is counted by.
    """
    r, years = returns, returns.per_year
    months = periods(r, "M")
    windows = {name: w for name, share in WINDOWS.items() if 2 <= (w := round(share * years)) < len(r.day)}
    figures = {
        "first": iso_date(r.day[0]),
        "last": iso_date(r.day[-1]),
        "days": len(r.day),
        "days_per_year": years,
        "return": float(np.prod(1.0 + r.policy)) - 1.0,
        "buy_and_hold": float(np.prod(1.0 + r.hold)) - 1.0,
        "months": months,
        "years": periods(r, "Y"),
        "rolling_days": windows,
        "drawdowns": [d._asdict() for d in worst_drawdowns(r.day, r.policy)],
        "distribution": {
            "daily": distribution(r.policy),
            "monthly": distribution(np.array([m["return"] for m in months])),
        },
        "against_holding": regression(r.policy, r.hold, years)._asdict(),
        **extremes(r, months),
        "time_in_market": ledger.time_in_market(),
        "costs": cost_share(ledger)._asdict(),
        "capacity": capacity(ledger, bars, years),
    }
    daily = {"date": r.day.astype("datetime64[s]").astype("datetime64[D]"), "return": r.policy, "buy_and_hold": r.hold}
    for name, window in windows.items():
        for prefix, of in (("", r.policy), ("buy_and_hold_", r.hold)):
            sharpe, volatility = rolling(of, window, years)
            daily |= {f"{prefix}sharpe_{name}": sharpe, f"{prefix}volatility_{name}": volatility}
    return TearSheet(figures, daily)


def iso_date(seconds: Any) -> str:
    """The UTC date of UTC seconds.

    Example:
      >>> iso_date(DAY)
      '1970-01-02'
    """
    return str(np.datetime64(int(seconds), "s").astype("datetime64[D]"))


def periods(r: Returns, unit: str) -> list[dict[str, Any]]:
    """Compounded returns by calendar month ("M") or year ("Y") of UTC, in order, as `period`, `return`, `buy_and_hold`.

    As `quantstats.stats.monthly_returns` and `empyrical.aggregate_returns`; a month without a day is not listed, and
    the first and the last may be cut. The product of all is the return of the account.

    Example:
      >>> periods(Returns(np.array([0, DAY]), 365.25, np.array([0.1, 0.1]), np.zeros(2)), "M")[0]["period"]
      '1970-01'
    """
    of = r.day.astype("datetime64[s]").astype(f"datetime64[{unit}]")
    names, first = np.unique(of, return_index=True)
    policy, hold = (np.multiply.reduceat(1.0 + x, first) - 1.0 for x in (r.policy, r.hold))
    return [
        {"period": str(name), "return": float(own), "buy_and_hold": float(held)}
        for name, own, held in zip(names, policy, hold, strict=True)
    ]


def rolling(returns: np.ndarray, window: int, per_year: float) -> tuple[np.ndarray, np.ndarray]:
    """Sharpe ratio and yearly volatility of the `window` days that end on each day: two (D,), NaN before there are any.

    Volatility is the deviation (ddof 1) times the root of the days a year, Sharpe the mean over the deviation times
    that root: `quantstats.stats.rolling_sharpe` and `rolling_volatility`. Where nothing moved in a window Sharpe is 0,
    as it is in all tables here; quantstats has NaN.

    Example: over the two days 0.01 and 0.03 the mean is .02, the deviation .0141 and, with 2 days a year, Sharpe 2.
      >>> [round(float(x[1]), 6) for x in rolling(np.array([0.01, 0.03]), 2, 2.0)]
      [2.0, 0.02]
    """
    sharpe, volatility = np.full((2, len(returns)), np.nan)
    if len(returns) < window:
        return sharpe, volatility
    seen = np.lib.stride_tricks.sliding_window_view(returns, window)
    mean, deviation = seen.mean(1), seen.std(1, ddof=1)
    moving = deviation > 0
    sharpe[window - 1 :] = np.where(moving, mean / np.where(moving, deviation, 1.0), 0.0) * math.sqrt(per_year)
    volatility[window - 1 :] = deviation * math.sqrt(per_year)
    return sharpe, volatility


class Drawdown(NamedTuple):
    """One fall of the account below its highest equity so far, until it is back there."""

    start: str  # ISO date of that highest equity, or the first day
    trough: str  # of the lowest
    recovery: str  # of the first day at the old height or above, or NOT_RECOVERED
    depth: float  # share lost at the trough, in (0, 1]
    days: int  # calendar days from start to recovery, or to the last day
    recovery_days: float  # from trough to recovery; NaN: not recovered


def worst_drawdowns(day: np.ndarray, returns: np.ndarray, most: int = DRAWDOWNS) -> list[Drawdown]:
    """The deepest drawdowns of daily returns (D,) from a start of 1, which is a peak too; the deepest first.

    The first is the maximum drawdown of the table of metrics. quantstats' `drawdown_details` begins a drawdown on the
    first day below the peak and ends it on the last one, so that recovering is not counted: here a drawdown begins on
    the day of the peak and ends on the day of recovery, which is how long somebody waits, a day of bars more either
    way.

    Example: 1 to 1.1, down to .99 and back to 1.1 or above on the fourth day.
      >>> d = worst_drawdowns(np.arange(4) * DAY, np.array([0.1, -0.1, 0.0, 0.2]))[0]
      >>> d.start, d.trough, d.recovery, round(d.depth, 6), d.days, d.recovery_days
      ('1970-01-01', '1970-01-02', '1970-01-04', 0.1, 3, 2.0)
    """
    equity = np.concatenate([[1.0], np.cumprod(1.0 + returns)])
    peak = np.maximum.accumulate(equity)
    under = np.concatenate([equity < peak, [False]])
    edge = np.diff(under.astype(np.int8), prepend=0)
    found = []
    at = np.concatenate([day[:1], day])  # of each equity
    for first, after in zip(np.flatnonzero(edge == 1).tolist(), np.flatnonzero(edge == -1).tolist(), strict=True):
        low = first + int(np.argmin(equity[first:after]))
        back = after < len(equity)
        start, trough, end = (int(at[i]) for i in (first - 1, low, min(after, len(equity) - 1)))
        found.append(
            Drawdown(
                iso_date(start),
                iso_date(trough),
                iso_date(end) if back else NOT_RECOVERED,
                float(1.0 - equity[low] / peak[low]),
                (end - start) // DAY,
                float((end - trough) // DAY) if back else math.nan,
            )
        )
    return sorted(found, key=lambda d: d.depth, reverse=True)[:most]


def distribution(returns: np.ndarray) -> dict[str, Any]:
    """Figures and histogram of returns (N,), N >= 1, of days or of months.

    `mean` and `deviation` (ddof 1) of one return; `skew` bias-corrected, as of pandas and quantstats; `positive`, the
    share above 0; `var_5` and `cvar_5` as positive losses: of the k = ceil(.05 N) lowest returns the highest, and the
    mean, as in the table of metrics. CVaR is that of `empyrical.conditional_value_at_risk`. VaR is one of the account's
    own returns, where `empyrical.value_at_risk` interpolates between two, and quantstats' takes the quantile of a
    normal distribution, which is blind to fat tails. `edges` (B + 1) and `counts` (B) are the histogram; 0 is an edge,
    so that no bin has both gains and losses.
    """
    n = len(returns)
    mean, centred = float(returns.mean()), returns - returns.mean()
    second, third = float((centred**2).mean()), float((centred**3).mean())
    lowest = np.sort(returns)[: max(math.ceil(TAIL * n - 1e-9), 1)]
    edges, counts = histogram(returns)
    skewed = n > 2 and second > 0
    return {
        "count": n,
        "mean": mean,
        "deviation": math.sqrt(second * n / (n - 1)) if n > 1 else math.nan,
        "skew": math.sqrt(n * (n - 1)) / (n - 2) * third / second**1.5 if skewed else math.nan,
        "positive": float((returns > 0).mean()),
        "var_5": 0.0 - float(lowest[-1]),  # not -x, which reads -0 of no loss
        "cvar_5": 0.0 - float(lowest.mean()),
        "edges": edges,
        "counts": counts,
    }


def histogram(returns: np.ndarray) -> tuple[list[float], list[int]]:
    """Edges (B + 1) and counts (B) of bins of one width, 1, 2 or 5 times a power of ten, that begin at 0.

    The width is the nearest such one up to that of Freedman and Diaconis (1981), 2 IQR / N^(1/3), or wider where there
    would be over `MOST_BINS`. Returns on an edge belong to the bin above it, so that 0 is not among the losses.

    Example: -.01 and 0 and .01 and .02 have an IQR of .015, so a width of .0189, and .01 is the nearest up to that.
      >>> histogram(np.array([-0.01, 0.0, 0.01, 0.02]))
      ([-0.01, 0.0, 0.01, 0.02, 0.03], [1, 1, 1, 1])
    """
    low, high = min(float(returns.min()), 0.0), max(float(returns.max()), 0.0)
    if not high > low:
        return [0.0, 0.01], [len(returns)]
    q1, q3 = np.percentile(returns, (25, 75))
    wanted, least = 2.0 * float(q3 - q1) / len(returns) ** (1 / 3), (high - low) / (MOST_BINS - 2)
    power = math.floor(math.log10(least))
    widths = [m * 10.0 ** (power + k) for k in range(4) for m in (1, 2, 5)]
    allowed = [w for w in widths if w >= least]
    width = max((w for w in allowed if w <= wanted), default=allowed[0])
    # Less a billionth of a bin: 3 * .1 is above .3.
    place = np.floor(returns / width + 1e-9).astype(np.int64)
    first, last = min(int(np.min(place)), 0), max(int(np.max(place)), 0)
    counts = np.bincount(place - first, minlength=last - first + 1)
    return [round(i * width, 12) for i in range(first, last + 2)], counts.tolist()


class Regression(NamedTuple):
    """Daily returns explained by those of holding: r = alpha + beta hold + rest."""

    alpha: float  # a year
    alpha_error: float  # its standard error
    alpha_t: float
    beta: float
    beta_error: float
    beta_t: float
    correlation: float


def regression(returns: np.ndarray, hold: np.ndarray, per_year: float) -> Regression:
    """Alpha and beta of daily returns (D,) to holding's, by ordinary least squares; NaN below 3 days or without moves.

    Jensen (1968), "The Performance of Mutual Funds in the Period 1945-1964", with a risk-free rate of 0 and holding
    the very symbols in place of a market index. Alpha is the intercept of a day times the days a year, as
    `quantstats.stats.greeks` has it; `empyrical.alpha` compounds it to (1 + alpha)^days - 1. The standard errors are
    the textbook's, for errors that are independent and of one variance, as `scipy.stats.linregress` gives them. Returns
    of days are not quite so: take |t| below 2 as nothing found, and above 2 with care.
    """
    n = len(returns)
    x, y = hold - hold.mean(), returns - returns.mean()
    sxx, syy, sxy = float(x @ x), float(y @ y), float(x @ y)
    if n < 3 or not sxx > 0:
        return Regression(*[math.nan] * 7)
    beta = sxy / sxx
    alpha = float(returns.mean()) - beta * float(hold.mean())
    rest = y - beta * x
    variance = float(rest @ rest) / (n - 2)
    beta_error = math.sqrt(variance / sxx)
    alpha_error = math.sqrt(variance * (1 / n + float(hold.mean()) ** 2 / sxx))
    return Regression(
        alpha * per_year,
        alpha_error * per_year,
        alpha / alpha_error if alpha_error > 0 else math.nan,
        beta,
        beta_error,
        beta / beta_error if beta_error > 0 else math.nan,
        sxy / math.sqrt(sxx * syy) if syy > 0 else math.nan,
    )


def extremes(r: Returns, months: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The best and the worst days and months, the most extreme first, with what holding did on them.

    At most half of all, so that none is both. Of equals the earlier.
    """
    days = [
        {"period": iso_date(day), "return": float(own), "buy_and_hold": float(held)}
        for day, own, held in zip(r.day, r.policy, r.hold, strict=True)
    ]
    found: dict[str, list[dict[str, Any]]] = {}
    for name, rows, most in (("days", days, DAYS_SHOWN), ("months", months, MONTHS_SHOWN)):
        up = sorted(rows, key=lambda row: row["return"])
        n = min(most, len(up) // 2)
        found |= {f"best_{name}": up[::-1][:n], f"worst_{name}": up[:n]}
    return found


class CostShare(NamedTuple):
    """Costs of the account in money, in units of what it started with, and as a share of the profit before them."""

    fees: float
    impact: float  # spread and slippage
    borrow: float
    net_profit: float
    gross_profit: float  # net profit and all costs
    share: float  # of the gross profit; NaN where that is not above 0


def cost_share(ledger: Ledger) -> CostShare:
    """What of the profit before costs the costs took.

    Gross profit is the net profit and every cost that was paid on the way: what the same fills would have made at the
    mid price, without fees, had the money saved not been put to work. Above 1 costs turned a profit into a loss. Where
    the gross profit is 0 or less there was nothing to take a share of: the account lost before costs, and lower ones
    would not have saved it.

    Example: of 10 % before costs a fee took 2 of every 100, so 20 %.
      >>> from jaxppo.play.ledger import empty_ledger
      >>> one = empty_ledger(np.array([0]))._replace(returns=np.array([0.08]), fees=np.array([0.02]))
      >>> round(cost_share(one).share, 6)
      0.2
    """
    before = np.concatenate([[1.0], np.cumprod(1.0 + ledger.returns)])
    paid = [float(before[:-1] @ x) for x in (ledger.fees, ledger.impact, ledger.borrow)]
    net = float(before[-1]) - 1.0
    gross = net + sum(paid)
    return CostShare(paid[0], paid[1], paid[2], net, gross, sum(paid) / gross if gross > 0 else math.nan)
