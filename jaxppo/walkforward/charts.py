"""Charts of a walk-forward."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.dates import date2num
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from jaxppo.page import canvas
from jaxppo.page.style import BENCHMARK, BLACK, GREY, ORANGE, POLICY, SKY
from jaxppo.page.text import percent
from jaxppo.page.thin import decimate
from jaxppo.page.yardsticks import title
from jaxppo.play.portfolio import at_volatility
from jaxppo.store.read import WalkforwardData, times, values


def make_figures(data: WalkforwardData) -> dict[str, Figure]:
    """All charts by name."""
    return {
        "portfolio": portfolio_curves(data),
        "equity": equity_curve(data),
        "folds": fold_bars(data),
        "timeline": timeline(data),
    }


def _boundaries(data: WalkforwardData) -> list[np.datetime64]:
    starts = data.played.equity.group_by("fold", maintain_order=True).agg(pl.col("time").first())
    return list(times(starts))


def _fold_lines(ax: Axes, data: WalkforwardData, *, numbered: bool) -> None:
    """A dashed line where each fold begins."""
    for number, start in enumerate(_boundaries(data), start=1):
        ax.axvline(date2num(start), color=BLACK, linewidth=0.7, alpha=0.45, linestyle=(0, (4, 3)), zorder=1)
        if numbered:
            at, where = (date2num(start), 0.02), ax.get_xaxis_transform()
            ax.text(*at, f" {number}", transform=where, fontsize=8.5, color=BLACK, ha="left")


def portfolio_curves(data: WalkforwardData) -> Figure:
    """Equity of the portfolio that is rebalanced daily among those of the rules, the best of which stands out.

    All have the volatility of the policy: unscaled, a rule that only takes larger positions would look better than a
    policy of a higher Sharpe ratio. On a logarithmic axis, on which equal growth is equally high however much there was
    before.
    """
    figure, (ax,) = canvas.grid(1, 1, 3.6)
    canvas.title(ax, "Rebalanced daily, folds joined, after costs, at equal volatility")
    x, best = data.portfolio["date"].to_numpy(), data.summary["excess_over_best_rule"]["rule"]
    others = [name for name in data.summary["baselines"] if name != best]
    own = values(data.portfolio, "return")
    for name, color, width, label in (
        *((name, GREY, 0.6, "the other rules" if i == 0 else None) for i, name in enumerate(others)),
        (best, ORANGE, 1.5, f"{title(best)}, the best rule"),
        ("return", POLICY, 2.0, "policy"),
    ):
        returns = values(data.portfolio, name)
        drawn = at_volatility(returns, own) if own.std() > 0 else returns
        # Of what was lost whole nothing can be drawn.
        y = np.maximum(np.cumprod(1.0 + drawn), 1e-3)
        index = decimate(y)
        ax.plot(x[index], y[index], color=color, linewidth=width, alpha=0.7 if color == GREY else 1.0, label=label)
    ax.set_yscale("log")
    # Ticks of a logarithmic axis are powers of ten, of which most curves pass one or none.
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.axhline(1.0, color=GREY, linewidth=0.9, zorder=1)
    _fold_lines(ax, data, numbered=True)
    canvas.date_axis(ax, ticks=12)
    ax.margins(x=0.01)
    canvas.legend_above(ax)
    return figure


def equity_curve(data: WalkforwardData) -> Figure:
    """The joined out-of-sample curve against buy-and-hold, and its drawdown; a line where each fold begins."""
    figure, (ax, under) = canvas.grid(2, 1, 2.9, ratios=(2.4, 1.0))
    x = times(data.played.equity)
    canvas.title(ax, "Equity out of sample, all folds joined, after costs")
    for column, name, color, width in (
        ("benchmark_once", "buy-and-hold, once", GREY, 1.0),
        ("benchmark", "buy-and-hold, each fold", ORANGE, 1.2),
        ("equity", "policy", POLICY, 2.0),
    ):
        y = values(data.played.equity, column)
        index = decimate(y)
        ax.plot(x[index], y[index], color=color, linewidth=width, label=f"{name} {percent(y[-1] - 1, sign=True)}")
    ax.axhline(1.0, color=GREY, linewidth=0.9, zorder=1)
    canvas.legend_above(ax)
    canvas.title(under, "Drawdown", aside=f"worst {percent(-data.joined('policy', 'max_drawdown'))}")
    fall = -values(data.played.equity, "drawdown")
    index = decimate(fall)
    under.fill_between(x[index], fall[index], 0.0, color=POLICY, alpha=0.25, linewidth=0)
    under.plot(x[index], fall[index], color=POLICY, linewidth=1.0)
    under.set_ylim(top=0.0)
    canvas.percent_axis(under)
    for panel in (ax, under):
        _fold_lines(panel, data, numbered=panel is ax)
        canvas.date_axis(panel, ticks=12)
        panel.margins(x=0.01)
    return figure


def _pair(
    ax: Axes, data: WalkforwardData, columns: tuple[str, str], labels: tuple[str, str], colors: tuple[str, str]
) -> None:
    """Two bars a fold."""
    x = np.arange(data.folds.height)
    for shift, column, label, color in zip((-0.2, 0.2), columns, labels, colors, strict=True):
        y = values(data.folds, column)
        ax.bar(x + shift, np.where(np.isfinite(y), y, 0.0), 0.38, color=color, label=label, linewidth=0)
    ax.axhline(0.0, color=GREY, linewidth=0.9)
    ax.set_xticks(x, [str(f) for f in data.folds["fold"]])
    ax.grid(False, axis="x")
    canvas.legend_above(ax)


def fold_bars(data: WalkforwardData) -> Figure:
    """Sharpe ratio in and out of sample, drawdown in and out, and net return against buy-and-hold, by fold."""
    figure, (sharpe, returns) = canvas.grid(2, 2, 2.7)
    canvas.title(sharpe, "Sharpe ratio by fold")
    _pair(sharpe, data, ("in_sharpe", "out_sharpe"), ("in sample", "out of sample"), (SKY, POLICY))
    canvas.title(returns, "Net return of the test period")
    columns = ("out_buy_and_hold_return", "out_return")
    _pair(returns, data, columns, ("buy-and-hold", "policy"), (BENCHMARK, POLICY))
    canvas.percent_axis(returns)
    return figure


def timeline(data: WalkforwardData) -> Figure:
    """What each fold is trained and tested on."""
    figure, (ax,) = canvas.grid(1, 1, 0.8 + 0.3 * data.folds.height)
    canvas.title(ax, "Training and test periods")
    for i, row in enumerate(data.folds.to_dicts()):
        ends = (row["train_begin"], row["train_end"], row["test_begin"], row["test_end"])
        one, two, three, four = (date2num(np.datetime64(t[:19])) for t in ends)
        ax.barh(i, two - one, 0.6, one, color=SKY, label="training" if i == 0 else None, linewidth=0)
        ax.barh(i, four - three, 0.6, three, color=POLICY, label="test" if i == 0 else None, linewidth=0)
    ax.set_yticks(range(data.folds.height), [f"fold {f}" for f in data.folds["fold"]])
    ax.invert_yaxis()
    ax.xaxis_date()
    canvas.date_axis(ax, ticks=12)
    ax.grid(False, axis="y")
    canvas.legend_above(ax)
    return figure
