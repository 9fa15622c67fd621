"""Charts of a sweep: scores over the space, what decides them, how trials learnt, and how far to believe the best."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from jaxppo.page import canvas
from jaxppo.page.style import BLACK, GREY, LOSS, MUTED, POLICY, SKY, VERMILLION
from jaxppo.page.text import number
from jaxppo.store.read import SweepData, values
from jaxppo.sweep.judge import TEST_FIGURE

NAMES = {"fitness": "Fitness", "portfolio_sharpe": "Sharpe ratio a year, rebalanced daily"}
SPREAD = 24  # trials whose seeds are drawn: more do not fit side by side
_FENCE = 3.0  # interquartile ranges that a view reaches beyond the middle half


def make_figures(data: SweepData) -> dict[str, Figure]:
    """The charts that there is data for, by name."""
    found = {
        "scores": scores(data),
        "importance": importance(data),
        "learning": learning(data),
        "seeds": seeds(data),
        "test": validation_and_test(data),
        "overfitting": overfitting(data),
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def marks(data: SweepData) -> list[tuple[str, np.ndarray, dict[str, Any]]]:
    """Rows of the trials by what became of them: a name, a mask and how they are drawn; the winner last."""
    number_, state = data.trials["trial"].to_numpy(), data.trials["state"].to_numpy()
    winner = number_ == data.summary["winner"]["trial"]
    kept = np.isin(number_, data.summary["ensemble"]["members"])
    complete = state == "complete"
    return [
        ("halted", state == "halted", {"color": "none", "markeredgecolor": GREY, "markersize": 5}),
        ("complete", complete & ~kept, {"color": SKY, "markeredgecolor": "white", "markersize": 6.5}),
        ("averaged", kept & ~winner, {"color": POLICY, "markeredgecolor": "white", "markersize": 8}),
        ("winner", winner, {"color": VERMILLION, "markeredgecolor": "white", "markersize": 9}),
    ]


def scores(data: SweepData) -> Figure | None:
    """The best validation of every trial over each field that was searched."""
    space = data.summary["space"]
    score = values(data.trials, "value")
    if not np.isfinite(score).any():
        return None
    columns = min(len(space), 3)
    figure, axes = canvas.grid(len(space), columns, 2.6 if columns > 1 else 3.0, below=0.3)
    low, high = view(score)
    for ax, (name, dimension) in zip(axes, space.items(), strict=True):
        canvas.title(ax, canvas.plain(name))
        x = _positions(ax, data.trials[name], dimension)
        for label, mask, style in marks(data):
            inside = mask & (score >= low)
            ax.plot(x[inside], score[inside], "o", label=label, clip_on=False, **style)
            below = mask & (score < low)
            ax.plot(x[below], np.full(below.sum(), low), "v", clip_on=False, **{**style, "markersize": 5})
        ax.set_ylim(low, high)
    canvas.legend_below(figure, axes[0])
    return figure


def _positions(ax: Axes, column: pl.Series, dimension: object) -> np.ndarray:
    """Where the trials lie on the axis of a field; categories beside each other, spread a little."""
    if isinstance(dimension, dict):
        if "log" in dimension:
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.xaxis.set_minor_formatter(NullFormatter())
        return column.cast(pl.Float64).fill_null(np.nan).to_numpy()
    assert isinstance(dimension, list)
    labels = [text_of(value) for value in dimension]
    ax.set_xticks(range(len(labels)), [canvas.plain(x if len(x) <= 16 else x[:15] + ".") for x in labels])
    ax.set_xlim(-0.6, len(labels) - 0.4)
    ax.grid(False, axis="x")
    place = {label: i for i, label in enumerate(labels)}
    spread = 0.5 * ((np.arange(len(column)) * 0.618) % 1.0 - 0.5)  # golden: neighbours apart, the same each time
    return np.array([place.get(text_of(v), np.nan) for v in column.to_list()]) + spread


def text_of(value: object) -> str:
    """A category as the table of trials has it."""
    return ",".join(map(text_of, value)) if isinstance(value, list) else str(value)


def importance(data: SweepData) -> Figure | None:
    """How much of good scores each field decides."""
    found = dict(reversed(list(data.summary["importance"].items())))
    if not found:
        return None
    figure, (ax,) = canvas.grid(1, 1, 0.9 + 0.34 * len(found))
    canvas.title(ax, "Share of what tells good scores from others")
    at = np.arange(len(found))
    ax.barh(at, list(found.values()), 0.6, color=POLICY, alpha=0.85)
    ax.set_yticks(at, ["" for _ in found])
    for i, (name, share) in enumerate(found.items()):
        ax.text(share + 0.008, i, f"{canvas.plain(name)}  {100 * share:.0f} %", va="center", fontsize=9, color=BLACK)
    ax.set_xlim(0, 1.15)
    ax.set_xticks([])
    ax.grid(False)
    return figure


def learning(data: SweepData) -> Figure | None:
    """What validations are ranked by over the updates, a line a trial."""
    rows = data.validations
    if rows.height == 0:
        return None
    winner, members = data.summary["winner"]["trial"], set(data.summary["ensemble"]["members"])
    figure, (ax,) = canvas.grid(1, 1, 3.7, below=0.3)
    canvas.title(ax, f"{NAMES[data.summary['choose_by']]}: validations over updates")
    drawn: set[str] = set()
    ends = []
    for order in ("halted", "complete", "averaged", "winner"):
        for (trial,), part in rows.partition_by("trial", as_dict=True, maintain_order=True).items():
            kind = "winner" if trial == winner else "averaged" if trial in members else part["state"][0]
            if kind != order:
                continue
            style = {"halted": (GREY, 0.8, 0.5), "complete": (SKY, 1.0, 0.8), "averaged": (POLICY, 1.4, 1.0)}
            color, width, alpha = style.get(kind, (VERMILLION, 2.2, 1.0))
            label = kind if kind not in drawn else None
            drawn.add(kind)
            y = values(part, "value")
            ends.append(y[1:] if len(y) > 1 else y)
            x = values(part, "update")
            ax.plot(x, y, "-o" if len(y) == 1 else "-", color=color, linewidth=width, alpha=alpha, label=label)
    ax.set_ylim(*view(np.concatenate(ends)))
    ax.margins(x=0.01)
    canvas.legend_below(figure, ax)
    return figure


def seeds_alone(data: SweepData) -> tuple[pl.DataFrame, np.ndarray] | None:
    """The rows of at most SPREAD complete trials, the best first, and the Sharpe ratio of each of their seeds alone,
    rebalanced daily, (K, rows); None where a trial is one policy, or none is complete.
    """
    names = [c for c in data.trials.columns if c.startswith("val_member_")]
    done = data.trials.filter(pl.col("state") == "complete").sort("value", descending=True, nulls_last=True)
    done = done.head(SPREAD)
    if not names or done.height == 0:
        return None
    return done, np.stack([values(done, name) for name in names])


def seeds(data: SweepData) -> Figure | None:
    """Of the best trials the ensemble and its members alone; None where a trial is one policy."""
    found = seeds_alone(data)
    if found is None:
        return None
    done, alone = found
    figure, (ax,) = canvas.grid(1, 1, 3.2, below=0.3)
    canvas.title(ax, "Sharpe ratio, rebalanced daily, of the best trials: the ensemble, and each seed alone")
    at = np.arange(done.height)
    ax.vlines(at, np.nanmin(alone, axis=0), np.nanmax(alone, axis=0), color=SKY, linewidth=3, alpha=0.6)
    for i, row in enumerate(alone):
        ax.plot(at, row, "_", color=GREY, markersize=9, label="one seed alone" if i == 0 else None)
    ax.plot(at, values(done, "val_portfolio_sharpe"), "o", color=POLICY, markersize=6.5, label="ensemble of its seeds")
    ax.set_xticks(at, [str(n) for n in done["trial"].to_list()])
    ax.set_xlabel("trial, the best first", fontsize=8.5, color=MUTED)
    ax.grid(False, axis="x")
    canvas.legend_above(ax)
    return figure


def validation_and_test(data: SweepData) -> Figure | None:
    """The scores of complete trials on validation and on test: is what is good there good here?"""
    column = TEST_FIGURE[data.summary["choose_by"]]
    x, y = values(data.trials, "value"), values(data.trials, column)
    known = np.isfinite(x) & np.isfinite(y) & (data.trials["state"] == "complete").to_numpy()
    if known.sum() < 2:
        return None
    figure, (ax,) = canvas.grid(1, 1, 3.4, below=0.3)
    rank = number(data.summary["truth"]["rank_correlation"])
    canvas.title(ax, f"{NAMES[data.summary['choose_by']]}: test over validation", f"rank correlation {rank}")
    left, right = view(x[known])
    bottom, top = view(y[known])
    for label, mask, style in marks(data):
        shown = mask & known
        if not shown.any():
            continue
        ax.plot(np.clip(x[shown], left, right), np.clip(y[shown], bottom, top), "o", label=label, **style)
    ax.axhline(0.0, color=GREY, linewidth=0.9, zorder=1)
    ax.axvline(0.0, color=GREY, linewidth=0.9, zorder=1)
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    canvas.legend_below(figure, ax)
    return figure


def overfitting(data: SweepData) -> Figure | None:
    """The relative ranks, as logits, of the best trial of one half of the days on the other half."""
    if data.splits.height == 0:
        return None
    figure, (left, right) = canvas.grid(2, 2, 2.7)
    logits = values(data.splits, "logits")
    canvas.title(left, "Rank on the other half of the days (logit)", "0 or below: the worse half")
    edges = np.linspace(min(logits.min(), -0.5), max(logits.max(), 0.5), 41)
    for mask, color in ((logits <= 0, LOSS), (logits > 0, POLICY)):
        left.hist(logits[mask], list(edges), weights=np.full(mask.sum(), 1 / len(logits)), color=color, alpha=0.85)
    left.axvline(0.0, color=BLACK, linewidth=1.0)
    canvas.percent_axis(left)
    inside, outside = (values(data.splits, c) * np.sqrt(252.0) for c in ("inside", "outside"))
    some = np.linspace(0, len(inside) - 1, min(len(inside), 1500)).astype(int)
    canvas.title(right, "Sharpe ratio of the chosen: other half over its own")
    right.plot(inside[some], outside[some], "o", color=SKY, markersize=3, alpha=0.35)
    right.axhline(0.0, color=GREY, linewidth=0.9)
    return figure


def view(score: np.ndarray) -> tuple[float, float]:
    """Ends of an axis that shows what is worth a look: all that is good, and of what is far below only that it is."""
    known = score[np.isfinite(score)]
    if len(known) == 0:
        return -1.0, 1.0
    first, third = np.quantile(known, (0.25, 0.75))
    high = float(known.max())
    low = max(float(known.min()), float(first - _FENCE * max(third - first, 0.02 * (high - first), 1e-9)))
    margin = 0.06 * max(high - low, 1e-3)
    return low - margin, high + margin
