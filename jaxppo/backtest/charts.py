"""Charts of a backtest: the policy among its baselines, the random draws one by one, and what costs leave."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from jaxppo.page import canvas
from jaxppo.page.plots import symbol_curves, trades_on_price, underwater
from jaxppo.page.style import BENCHMARK, BLACK, GREY, LOSS, MUTED, ORANGE, POLICY, SKY, WIN
from jaxppo.page.text import percent
from jaxppo.page.thin import MAX_POINTS, decimate
from jaxppo.play.rules import RULES
from jaxppo.store.columns import POOLED
from jaxppo.store.read import Evaluation, of_symbol, times, values

PLOTS = ("equity", "drawdown", "random", "costs", "symbols", "trades")
"""File names of the charts in `plots/`, without their ending."""


def make_plots(
    played: Evaluation, baselines: pl.DataFrame, draws: pl.DataFrame, costs: pl.DataFrame, rule: str = ""
) -> dict[str, bytes]:
    """PNG files of the charts, by name; those without data are left out. `rule` is the one that is drawn."""
    figures: dict[str, Figure | None] = {
        "equity": equity_among_baselines(played, baselines, rule),
        "drawdown": underwater(played),
        "random": random_draws(played, draws),
        "costs": cost_sweep(costs),
        "symbols": symbol_curves(played),
        "trades": trades_on_price(played),
    }
    return {name: canvas.png(figure) for name, figure in figures.items() if figure is not None}


def equity_among_baselines(played: Evaluation, baselines: pl.DataFrame, rule: str) -> Figure:
    """Pooled equity against buy-and-hold, one rule and the band of the random draws."""
    pooled = of_symbol(played.equity, POOLED)
    x, policy, hold = times(pooled), values(pooled, "equity"), values(pooled, "benchmark")
    low, high = values(baselines, "random_p5"), values(baselines, "random_p95")
    figure, (ax,) = canvas.grid(1, 1, 3.9)
    canvas.title(ax, "Equity, all symbols together, after costs")
    ax.axhline(1.0, color=GREY, linewidth=0.9, zorder=1)
    at = decimate(high - low, MAX_POINTS // 2)
    ax.fill_between(
        x[at], low[at], high[at], color=SKY, alpha=0.28, linewidth=0, label="random times, 5th to 95th percentile"
    )
    for y, color, width, name in (
        *(
            (values(baselines, name), ORANGE, 1.2, RULES[name].title if name in RULES else name)
            for name in (rule,)
            if name in baselines.columns
        ),
        (hold, BENCHMARK, 1.6, "buy-and-hold"),
        (policy, POLICY, 2.1, "policy"),
    ):
        at = decimate(y)
        ax.plot(x[at], y[at], color=color, linewidth=width, label=f"{name} {percent(y[-1] - 1, sign=True)}")
    # A rule at full costs can fall so far that all else becomes one line; it may leave the picture.
    shown = np.concatenate([policy, hold, low, high, [1.0]])
    bottom, top = float(np.nanmin(shown)), float(np.nanmax(shown))
    margin = 0.06 * max(top - bottom, 1e-3)
    ax.set_ylim(bottom - margin, top + margin)
    canvas.date_axis(ax, ticks=12)
    ax.margins(x=0.01)
    canvas.legend_above(ax)
    return figure


def random_draws(played: Evaluation, draws: pl.DataFrame) -> Figure:
    """Net return of every random draw, with the policy's and buy-and-hold's among them."""
    pooled = of_symbol(played.equity, POOLED)
    returns = np.sort(values(draws, "return"))
    figure, (ax,) = canvas.grid(1, 1, 1.7)
    canvas.title(ax, "Net return: the policy among its own positions at random other times")
    # Neighbours on other levels, so that dots do not hide each other.
    ax.plot(
        returns, 0.2 * (np.arange(len(returns)) % 3), "o", color=SKY, markersize=7, alpha=0.75, label="random times"
    )
    ax.axvline(0.0, color=GREY, linewidth=0.9, zorder=1)
    hold, policy = values(pooled, "benchmark")[-1] - 1, values(pooled, "equity")[-1] - 1
    ax.axvline(
        hold, color=BLACK, linewidth=1.4, linestyle=(0, (4, 2)), label=f"buy-and-hold {percent(hold, sign=True)}"
    )
    ax.plot(policy, 0.2, "D", color=POLICY, markersize=11, markeredgecolor="white", zorder=5)
    ax.plot([], [], "D", color=POLICY, markersize=7, label=f"policy {percent(policy, sign=True)}")
    ax.set_ylim(-0.35, 0.75)
    ax.set_yticks([])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: canvas.tick(100 * value) + " %"))
    canvas.legend_above(ax)
    return figure


def cost_sweep(costs: pl.DataFrame) -> Figure:
    """Net return and Sharpe ratio at each multiple of the costs."""
    figure, axes = canvas.grid(2, 2, 2.1)
    names = [f"{canvas.tick(m)}x" for m in values(costs, "cost_multiple")]
    _bars(axes[0], names, values(costs, "return"), "Net return at multiples of the costs")
    canvas.percent_axis(axes[0])
    _bars(axes[1], names, values(costs, "sharpe"), "Sharpe ratio at multiples of the costs")
    return figure


def _bars(ax: Axes, names: list[str], heights: np.ndarray, heading: str) -> None:
    canvas.title(ax, heading)
    at = np.arange(len(names))
    drawn = np.nan_to_num(heights)
    ax.bar(at, drawn, 0.5, color=[WIN if h > 0 else LOSS for h in drawn], alpha=0.85)
    ax.axhline(0.0, color=MUTED, linewidth=0.9)
    ax.set_xticks(at, names)
    ax.grid(False, axis="x")
    low, high = min(float(drawn.min()), 0.0), max(float(drawn.max()), 0.0)
    room = 0.12 * max(high - low, 1e-3)
    ax.set_ylim(low - room * (low < 0), high + room)
