"""The one table of metrics: how each is computed, what it is called and how it is shown, and where.

Rows, terminal tables, pages, their glossary, the columns of files and the documents' table are made from it, so a new
metric is one entry of `METRICS`. Every figure comes from the ledger, in money net of costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxppo.play.curve import Curve, TradeSums, payoff
from jaxppo.play.formulas import consistency, kurtosis, profit_factor, skewness, sortino
from jaxppo.registry import Registry

# Weight of the drawdown in the validation fitness; not the `drawdown` reward component.
FITNESS_DRAWDOWN_WEIGHT = 0.2

Form = Literal["number", "tenth", "whole", "percent", "share", "signed", "fine", "loss"]
"""How a value reads: 2, 1 or 0 decimals; a fraction as percent with 1 or 0 decimals, signed with 1 or 2; a loss
above 0, as percent with 2 and without a sign."""


@dataclass(frozen=True)
class Column:
    """A named number of files and tables, and what it means."""

    name: str
    meaning: str  # a sentence, for the glossary and the documents
    title: str = ""  # on a page; empty for what no page shows
    form: Form = "number"


@dataclass(frozen=True, kw_only=True)
class Metric(Column):
    """One figure of an equity curve: an entry of `METRICS`."""

    value: Callable[[Curve], jax.Array]  # (...) floats
    column: str = ""  # what files call it, where that is not its name
    page: Literal["first", "more"] = "more"
    """Among the columns that a page shows at first, or in the folded table."""
    chart: bool = False
    """Draw its course over the validations of a run."""
    reference: float | None = None
    """Level that the chart draws as a thin line."""
    validation: int = 0
    """Place of its `val_` column in metrics.csv; 0 for none."""
    terminal: str = ""
    """Heading in the tables of the terminal; empty to leave it out."""
    gap: Literal["first", "more", "none"] = "more"
    """Where a walk-forward compares it in and out of sample. A figure that follows from the length of a period, as a
    return or a number of trades does, is not compared."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "column", self.column or self.name)


def _calmar(c: Curve) -> jax.Array:
    return jnp.where(c.drawdown > 0, c.cagr / jnp.where(c.drawdown > 0, c.drawdown, 1.0), jnp.nan)


METRICS: Registry[Metric] = Registry(
    "metric",
    [
        Metric(
            name="net_return",
            column="return",
            value=lambda c: c.growth - 1.0,
            title="Net return",
            form="signed",
            meaning="Equity at the end over the start, less 1, after fees, spread, slippage and borrow cost.",
            page="first",
            chart=True,
            validation=1,
            terminal="return",
            gap="none",
        ),
        Metric(
            name="gross_return",
            value=lambda c: c.growth * jnp.exp(c.sums.costs * c.moments.n) - 1.0,
            title="Return before costs",
            form="signed",
            meaning="Net return with what costs took of the equity added again:"
            " (1 + net return) x exp(costs a bar x bars) - 1.",
            validation=13,
            gap="none",
        ),
        Metric(
            name="sharpe",
            value=lambda c: c.sharpe,
            title="Sharpe",
            meaning="Mean over deviation (ddof 1) of the net returns a bar, times the root of the bars a year;"
            " 0 for an account that never moved.",
            page="first",
            chart=True,
            reference=0.0,
            validation=2,
            terminal="Sharpe",
            gap="first",
        ),
        Metric(
            name="sortino",
            value=lambda c: sortino(c.moments, c.returns, c.valid, c.bars_per_year),
            title="Sortino",
            meaning="Like Sharpe, but over sqrt(mean(min(r, 0)^2)) of the returns r, the losing bars only;"
            " infinite for gains without a losing bar, 0 if it never moved.",
            page="first",
            validation=3,
            gap="first",
        ),
        Metric(
            name="cagr",
            value=lambda c: c.cagr,
            title="CAGR",
            form="signed",
            meaning="Net return as a yearly rate.",
            gap="first",
        ),
        Metric(
            name="calmar",
            value=_calmar,
            title="Calmar",
            meaning="CAGR over the maximum drawdown; not defined without one.",
        ),
        Metric(
            name="max_drawdown",
            value=lambda c: c.drawdown,
            title="Max drawdown",
            form="percent",
            meaning="Largest fall of equity from a peak as a share of it, in [0, 1]; the start is a peak.",
            page="first",
            chart=True,
            validation=5,
            terminal="maxDD",
            gap="first",
        ),
        Metric(
            name="skew",
            value=lambda c: skewness(c.moments),
            title="Skew",
            meaning="Bias-corrected skew of the returns a bar; negative means rare, large losses."
            " Not defined if it never moved.",
            validation=6,
        ),
        Metric(
            name="kurtosis",
            value=lambda c: kurtosis(c.moments),
            title="Kurtosis",
            meaning="Bias-corrected excess kurtosis of the returns a bar; high means rare, large moves."
            " Not defined if it never moved.",
        ),
        Metric(
            name="consistency",
            value=lambda c: consistency(c.log_returns, c.valid),
            title="Consistency",
            form="share",
            meaning="Share of ten equal blocks of bars with a gain.",
            page="first",
            validation=7,
            gap="first",
        ),
        Metric(
            name="profit_factor",
            value=lambda c: profit_factor(c.sums.gains, c.sums.losses, c.sums.trades),
            title="Profit factor",
            meaning="Gains over losses of closed trades; above 1 makes money. Not defined without a trade,"
            " infinite for gains without a loss.",
            page="first",
            chart=True,
            reference=1.0,
            validation=4,
            terminal="PF",
            gap="first",
        ),
        Metric(
            name="win_rate",
            value=lambda c: c.sums.wins.astype(c.equity.dtype) * c.per_trade,
            title="Win rate",
            form="share",
            meaning="Share of closed trades that gained; one that broke even counts as closed, but as neither won nor"
            " lost. Not defined without a trade.",
            page="first",
            validation=8,
            terminal="wins",
            gap="first",
        ),
        Metric(
            name="expectancy",
            value=lambda c: (c.sums.gains + c.sums.losses) / c.start * c.per_trade,
            title="Expectancy",
            form="fine",
            meaning="Mean net profit of a closed trade over the starting equity; not defined without one.",
            page="first",
            gap="first",
        ),
        Metric(
            name="trades",
            value=lambda c: c.trades,
            title="Trades",
            form="whole",
            meaning="Closed trades: from flat to flat, or to the other side.",
            page="first",
            chart=True,
            validation=9,
            terminal="trades",
            gap="none",
        ),
        Metric(
            name="turnover",
            value=lambda c: c.sums.turnover * c.bars_per_year,
            title="Turnover a year",
            form="tenth",
            meaning="Notional traded a year over equity (mean over symbols by their bars).",
            page="first",
            validation=10,
            terminal="turnover",
            gap="first",
        ),
        Metric(
            name="costs",
            value=lambda c: c.sums.costs * c.bars_per_year,
            title="Costs a year",
            form="percent",
            meaning="Fees, spread, slippage and borrow cost paid a year over equity (mean over symbols by their bars).",
            page="first",
            terminal="costs",
            gap="none",
        ),
        Metric(
            name="exposure",
            value=lambda c: c.sums.exposure,
            title="Exposure",
            form="share",
            meaning="Mean notional over equity at the closes, long or short.",
            page="first",
            validation=11,
            terminal="exposure",
            gap="first",
        ),
        Metric(
            name="fitness",
            value=lambda c: c.sharpe * jnp.maximum(0.0, 1.0 - FITNESS_DRAWDOWN_WEIGHT * c.drawdown),
            title="Fitness",
            meaning="Sharpe x max(0, 1 - 0.2 x maximum drawdown); the best checkpoint has the highest, of equals the"
            " later, unless --choose-by says otherwise.",
            page="first",
            chart=True,
            reference=0.0,
            validation=12,
            gap="first",
        ),
        Metric(
            name="bars",
            value=lambda c: c.moments.n,
            title="Bars",
            form="whole",
            meaning="Bars that were played, one decision each.",
            gap="none",
        ),
        Metric(
            name="var_5",
            value=lambda c: c.tail[0],
            title="VaR 5 %",
            form="loss",
            meaning="The loss of one bar that the worst 5 % reach or pass (value at risk).",
        ),
        Metric(
            name="cvar_5",
            value=lambda c: c.tail[1],
            title="CVaR 5 %",
            form="loss",
            meaning="The mean of the losses of those worst 5 % of the bars.",
        ),
        Metric(
            name="payoff",
            value=lambda c: payoff(c.sums),
            title="Payoff",
            meaning="Mean gain of the winning trades over the mean loss of the losing ones; not defined without both.",
        ),
    ],
)
"""In the order of their columns in files and tables."""

BUY_AND_HOLD = Column(
    name="buy_and_hold_return",
    title="Buy-and-hold",
    form="signed",
    meaning="Net return of buying with all cash at the first open and selling at the last close, at the same costs.",
)


def validation_metrics() -> list[Metric]:
    """Those with a `val_` column in metrics.csv, in its order."""
    return sorted((m for m in METRICS.values() if m.validation), key=lambda m: m.validation)


@jax.tree_util.register_pytree_with_keys_class
class Metrics:
    """Figures of one account over one period by the names of `METRICS`; arrays of any common shape.

    Example:
      >>> figures = Metrics({"sharpe": 1.5, "trades": 7})
      >>> figures.sharpe, figures._asdict()
      (1.5, {'sharpe': 1.5, 'trades': 7})
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any]):
        self._values = dict(values)

    def __getattr__(self, name: str) -> Any:
        if (
            not name.startswith("_") and name in self._values
        ):  # copy and pickle ask for `__...__` before there are values
            return self._values[name]
        raise AttributeError(f"no metric {name!r}")

    def __repr__(self) -> str:
        return f"Metrics({self._values})"

    def _asdict(self) -> dict[str, Any]:
        """The figures by name, in the order of the table."""
        return dict(self._values)

    def _replace(self, **changes: Any) -> Metrics:
        """The same with other values for some."""
        return Metrics(self._values | changes)

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
        return [(jax.tree_util.GetAttrKey(k), v) for k, v in self._values.items()], tuple(self._values)

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], values: Any) -> Metrics:
        return cls(dict(zip(names, values, strict=True)))


def summarize(
    equity: jax.Array, start: jax.Array, valid: jax.Array, bars_per_year: jax.Array, sums: TradeSums
) -> Metrics:
    """All figures of equity curves.

    Args:
      equity: (..., T) at the closes; padded bars repeat the last equity.
      start: (...) equity before the first bar.
      valid: (..., T) bool, valid bars first.
      bars_per_year: (...).
      sums: of the ledger, (...).

    Returns:
      `Metrics` of shape (...).
    """
    curve = Curve(equity, start, valid, bars_per_year, sums)
    return Metrics({name: metric.value(curve) for name, metric in METRICS.items()})


def figures(metrics: Metrics) -> dict[str, float]:
    """Figures () as the columns of files."""
    return {METRICS[name].column: float(value) for name, value in metrics._asdict().items()}
