"""Charts of several runs at once: learning curves over env steps, equity day by day."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from jaxppo.page import canvas
from jaxppo.page.style import CYCLE, GREY
from jaxppo.page.thin import decimate
from jaxppo.play.metrics import METRICS, Column
from jaxppo.runs.compare import Comparison, Part
from jaxppo.store.columns import PORTFOLIO_SHARPE, TRAINING
from jaxppo.store.read import values

NAMED = 9
"""Lines with a colour of their own: as many as the cycle has. Later ones begin it anew, dashed."""


HEADINGS = {
    "validation": "The best policies on the validation bars, rebalanced daily, after costs",
    "test": "On bars that they had not seen, rebalanced daily, after costs",
}


def panels() -> list[tuple[str, Column]]:
    """Columns of metrics.csv that are drawn, and what they are called."""
    training = {column.name: column for column in TRAINING}
    found: list[tuple[str, Column]] = [(f"val_{PORTFOLIO_SHARPE.name}", PORTFOLIO_SHARPE)]
    found += [(f"val_{METRICS[name].column}", METRICS[name]) for name in ("net_return", "max_drawdown")]
    return found + [(name, training[name]) for name in ("reward_mean", "entropy", "train_trade_rate")]


_NAMES_A_LINE = 6


def _room(count: int) -> float:
    """Inches that a legend of so many names takes."""
    return 0.1 + 0.2 * -(-count // _NAMES_A_LINE)


def _style(i: int) -> dict[str, Any]:
    return {"color": CYCLE[i % len(CYCLE)], "linestyle": "-" if i < NAMED else (0, (4, 2))}


def learning_curves(metrics: Mapping[str, pl.DataFrame]) -> Figure | None:
    """One line a run in each panel; None where no run has validated yet."""
    drawn = {name: frame for name, frame in metrics.items() if frame.height}
    if not drawn:
        return None
    figure, axes = canvas.grid(6, 3, 2.15, below=_room(len(drawn)))
    for ax, (column, of) in zip(axes, panels(), strict=True):
        canvas.title(ax, of.title or of.name.replace("_", " "))
        if of.form in ("percent", "share", "signed", "fine", "loss"):
            canvas.percent_axis(ax)
        for i, (name, frame) in enumerate(drawn.items()):
            y = values(frame, column)
            x, shown = values(frame, "env_steps"), np.where(np.isfinite(y), y, np.nan)
            size = 3.0 if frame.height <= 2 else 0.0
            ax.plot(x, shown, marker="o", markersize=size, linewidth=1.5, label=canvas.plain(name), **_style(i))
        canvas.count_axis(ax)
    canvas.legend_below(figure, axes[0], _NAMES_A_LINE)
    return figure


def equity_curves(part: Part, heading: str) -> Figure | None:
    """Growth of 1, rebalanced daily; None where no curve is stored."""
    if not part.curves:
        return None
    figure, (ax,) = canvas.grid(1, 1, 3.6, below=_room(len(part.curves)))
    canvas.title(ax, heading)
    ax.axhline(1.0, color=GREY, linewidth=0.9, zorder=1)
    for i, (name, curve) in enumerate(part.curves.items()):
        y, x = values(curve, "equity"), date2num(curve["date"].to_numpy())
        index = decimate(y)
        ax.plot(x[index], y[index], linewidth=1.6, label=canvas.plain(name), **_style(i))
    canvas.date_axis(ax, ticks=12)
    ax.margins(x=0.01)
    canvas.legend_below(figure, ax, _NAMES_A_LINE)
    return figure


def make_plots(found: Comparison) -> dict[str, bytes]:
    """PNG files by name, of what there is data for."""
    figures = {part: equity_curves(of, HEADINGS[part]) for part, of in found.parts.items()}
    figures["learning"] = learning_curves({name: e.metrics for name, e in found.entries.items()})
    return {name: canvas.png(figure) for name, figure in figures.items() if figure is not None}
