"""Charts of money: equity, drawdown and trades; and the set of all charts of a run."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from jaxppo.page import canvas, curves
from jaxppo.page.selection import (
    DRAWDOWN_LIMIT,
    MAX_SYMBOLS,
    MAX_TRADES,
    busiest_symbol,
    ranked_symbols,
)
from jaxppo.page.style import BENCHMARK, FINAL, GREY, LOSS, ORANGE, POLICY, VERMILLION, WIN
from jaxppo.page.text import percent
from jaxppo.page.thin import MAX_POINTS, decimate
from jaxppo.store.columns import POOLED
from jaxppo.store.read import Evaluation, RunData, of_symbol, times, values
from jaxppo.store.tables import drawdown

PANEL_POINTS = 800  # of a line in a small multiple, a third of the page wide

PLOTS = ("equity", "drawdown", "validation", "symbols", "trades", "training", "rewards", "actions")
"""File names of the charts in `plots/`, without their ending."""


def make_plots(run: RunData) -> dict[str, bytes]:
    """PNG files of the charts that the run has data for, by name."""
    figures: dict[str, Figure | None] = {
        "validation": curves.validation_curves(run.metrics, run.best_row),
        "training": curves.training_curves(run.metrics),
        "rewards": curves.reward_components(run.metrics),
        "actions": curves.action_shares(run.metrics),
    }
    if run.shown is not None:
        figures["equity"] = equity_curve(run)
        figures["drawdown"] = underwater(run.shown)
        figures["symbols"] = symbol_curves(run.shown)
        figures["trades"] = trades_on_price(run.shown)
    return {name: canvas.png(figure) for name in PLOTS if (figure := figures.get(name)) is not None}


def equity_curve(run: RunData) -> Figure | None:
    """Pooled equity of the best and the final policy against buy-and-hold; None where there is no pooled curve."""
    assert run.shown is not None
    pooled = of_symbol(run.shown.equity, POOLED)
    if pooled.height == 0:
        return None
    figure, (ax,) = canvas.grid(1, 1, 3.7)
    canvas.title(ax, "Equity, all symbols together, after costs")
    ax.axhline(1.0, color=GREY, linewidth=0.9, zorder=1)
    _growth(ax, pooled, "benchmark", BENCHMARK, "buy-and-hold", 1.6)
    name = "policy" if run.best_is_final or run.best is None else "best policy"
    if run.best is not None and run.final is not None and not run.best_is_final:
        _growth(ax, of_symbol(run.final.equity, POOLED), "equity", FINAL, "final policy", 1.5)
    _growth(ax, pooled, "equity", POLICY, name, 2.1)
    canvas.date_axis(ax, ticks=12)
    ax.margins(x=0.01)
    canvas.legend_above(ax)
    return figure


def underwater(evaluation: Evaluation) -> Figure | None:
    """Pooled drawdown of the policy and of buy-and-hold; None where there is no pooled curve."""
    pooled = of_symbol(evaluation.equity, POOLED)
    if pooled.height == 0:
        return None
    figure, (ax,) = canvas.grid(1, 1, 2.4)
    canvas.title(ax, "Drawdown, all symbols together")
    x = times(pooled)
    for column, color, width, name in (
        ("benchmark", BENCHMARK, 0.8, "buy-and-hold"),
        ("equity", POLICY, 1.3, "policy"),
    ):
        under = -drawdown(values(pooled, column))
        at = decimate(under)
        ax.plot(
            x[at],
            under[at],
            color=color,
            linewidth=width,
            label=f"{name}, worst {percent(float(np.fmin.accumulate(under)[-1]))}",
        )
    ax.fill_between(x[at], under[at], 0.0, color=POLICY, alpha=0.18, linewidth=0)
    if np.fmin.accumulate(under)[-1] < -DRAWDOWN_LIMIT / 2:
        ax.axhline(
            -DRAWDOWN_LIMIT, color=VERMILLION, linewidth=1.0, linestyle=(0, (5, 3)), label=percent(-DRAWDOWN_LIMIT, 0)
        )
    ax.set_ylim(top=0.0)
    canvas.percent_axis(ax)
    canvas.date_axis(ax, ticks=12)
    ax.margins(x=0.01)
    canvas.legend_above(ax)
    return figure


def symbol_curves(evaluation: Evaluation) -> Figure | None:
    """Equity against buy-and-hold of up to MAX_SYMBOLS symbols, the highest return first; None for a single symbol,
    whose curve is the pooled one.
    """
    names = ranked_symbols(evaluation)
    if len(names) < 2:
        return None
    half = MAX_SYMBOLS // 2
    shown = names if len(names) <= MAX_SYMBOLS else names[:half] + names[-half:]
    figure, axes = canvas.grid(len(shown), 2 if len(shown) in (2, 4) else 3, 1.75 if len(shown) > 4 else 2.2)
    for ax, name in zip(axes, shown, strict=True):
        rows = of_symbol(evaluation.equity, name)
        ax.axhline(1.0, color=GREY, linewidth=0.7, zorder=1)
        _growth(ax, rows, "benchmark", BENCHMARK, "", 1.1, PANEL_POINTS)
        _growth(ax, rows, "equity", POLICY, "", 1.5, PANEL_POINTS)
        policy, hold = values(rows, "equity")[-1] - 1, values(rows, "benchmark")[-1] - 1
        canvas.title(ax, f"{_short(name)}  {percent(policy, sign=True)}", aside=f"hold {percent(hold, sign=True)}")
        canvas.date_axis(ax, ticks=5)
    return figure


def trades_on_price(evaluation: Evaluation) -> Figure | None:
    """The last MAX_TRADES trades of the busiest symbol on its price, and its exposure; None without trade or price."""
    symbol = busiest_symbol(evaluation)
    if symbol is None:
        return None
    trades = of_symbol(evaluation.trades, symbol).sort("entry_time").tail(MAX_TRADES)
    rows = _around(of_symbol(evaluation.equity, symbol), times(trades, "entry_time")[0], times(trades, "exit_time")[-1])
    if rows.height < 2:
        return None
    figure, (price, exposure) = canvas.grid(2, 1, 2.6, ratios=(3.2, 1.0))
    x, close, held = times(rows), values(rows, "close"), values(rows, "exposure")
    at = decimate(close)
    canvas.title(price, f"{_short(symbol)}: close and the last {trades.height} trades")
    price.plot(x[at], close[at], color=GREY, linewidth=1.0, zorder=1)
    _mark_trades(price, trades)
    canvas.legend_above(price)
    canvas.title(exposure, "Exposure (position as a share of equity)")
    exposure.fill_between(x, 0, np.maximum(held, 0), step="post", color=POLICY, alpha=0.55, linewidth=0)
    exposure.fill_between(x, 0, np.minimum(held, 0), step="post", color=ORANGE, alpha=0.7, linewidth=0)
    canvas.percent_axis(exposure)
    for ax in (price, exposure):
        ax.set_xlim(x[0], x[-1])
        canvas.date_axis(ax, ticks=12)
    return figure


def _growth(
    ax: Axes, rows: pl.DataFrame, column: str, color: str, name: str, width: float, limit: int = MAX_POINTS
) -> None:
    """An equity column over time, with the net return at its end in the legend where it has a `name`."""
    y = values(rows, column)
    at = decimate(y, limit)
    label = f"{name} {percent(y[-1] - 1, sign=True)}" if name and len(y) else None
    ax.plot(times(rows)[at], y[at], color=color, linewidth=width, label=label)


def _around(rows: pl.DataFrame, first: np.datetime64, last: np.datetime64) -> pl.DataFrame:
    """The rows from a little before `first` to a little after `last`, all of them where that would be under two."""
    margin = (last - first) / 40
    time = times(rows)
    near = rows.filter(pl.Series((time >= first - margin) & (time <= last + margin)))
    return near if near.height > 1 else rows


def _mark_trades(ax: Axes, trades: pl.DataFrame) -> None:
    """A line from entry to exit, green and full for a gain, red and dashed for a loss, grey and dotted for neither."""
    entry, exit_ = date2num(times(trades, "entry_time")), date2num(times(trades, "exit_time"))
    paid, got = values(trades, "entry_price"), values(trades, "exit_price")
    pnl = values(trades, "pnl")
    long = (trades["side"] == "long").to_numpy()
    segments = np.stack([np.stack([entry, paid], axis=1), np.stack([exit_, got], axis=1)], axis=1)  # (trades, 2, 2)
    for mask, color, dash, name in (
        (pnl > 0, WIN, "solid", "gain"),
        (pnl < 0, LOSS, (0, (3, 2)), "loss"),
        (pnl == 0, GREY, (0, (1, 2)), "even"),
    ):
        if not mask.any():
            continue
        ax.add_collection(
            LineCollection(list(segments[mask]), colors=color, linewidths=1.7, linestyles=[dash], zorder=2)
        )
        ax.plot(exit_[mask], got[mask], "o", color=color, markersize=4.5, zorder=3, label=f"exit, {name}")
    for mask, marker, color, name in ((long, "^", POLICY, "long"), (~long, "v", ORANGE, "short")):
        if not mask.any():
            continue
        line = ax.plot(entry[mask], paid[mask], marker, color=color, zorder=4, label=f"{name} entry")[0]
        line.set(markersize=8, markeredgecolor="white", markeredgewidth=0.8)


def _short(symbol: str) -> str:
    """A symbol name that fits over a panel."""
    return canvas.plain(symbol if len(symbol) <= 14 else symbol[:13] + ".")
