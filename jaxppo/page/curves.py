"""Charts over the course of training, from the rows of metrics.csv."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxppo.page import canvas
from jaxppo.page.style import BENCHMARK, CYCLE, GREY, POLICY, VERMILLION
from jaxppo.page.text import action_name
from jaxppo.play.metrics import BUY_AND_HOLD, METRICS, Column
from jaxppo.store.columns import TRAINING
from jaxppo.store.read import values


@dataclass(frozen=True)
class Panel:
    """A column of metrics.csv over env steps."""

    name: str
    column: Column
    reference: float | None = None
    """Level drawn as a thin line, such as a profit factor of 1."""
    other: str = ""
    """A second column, drawn grey and dashed."""


TRAINING_PANELS = (
    "reward_mean",
    "entropy",
    "approx_kl",
    "clip_fraction",
    "explained_variance",
    "value_loss",
    "train_trade_rate",
    "learning_rate",
)


def training_panels() -> list[Panel]:
    columns = {column.name: column for column in TRAINING}
    return [Panel(n, columns[n], 0.0 if n == "explained_variance" else None) for n in TRAINING_PANELS]


def validation_panels() -> list[Panel]:
    others = {"net_return": f"val_{BUY_AND_HOLD.name}"}
    return [Panel(f"val_{m.column}", m, m.reference, others.get(m.name, "")) for m in METRICS.values() if m.chart]


def training_curves(metrics: pl.DataFrame) -> Figure | None:
    """How the optimisation went; None before the first validation."""
    return _panels(metrics, training_panels(), columns=4, height=1.95, best=None)


def validation_curves(metrics: pl.DataFrame, best: int | None) -> Figure | None:
    """How the policy did on the validation bars, row `best` marked; None before the first validation."""
    return _panels(metrics, validation_panels(), columns=3, height=2.15, best=best)


def reward_components(metrics: pl.DataFrame) -> Figure | None:
    """Mean, share and saturation of each reward component; None where metrics.csv has none."""
    names = components(metrics)
    if not names:
        return None
    figure, axes = canvas.grid(3, 3, 2.7, below=0.3)
    panels = (("mean", "Mean per step"), ("share", "Share of the reward"), ("saturation", "Saturated steps"))
    for ax, (kind, heading) in zip(axes, panels, strict=True):
        canvas.title(ax, heading)
        drawn = [
            _line(ax, metrics, f"reward_{name}_{kind}", CYCLE[i % len(CYCLE)], canvas.plain(name.replace("_", " ")))
            for i, name in enumerate(names)
        ]
        if kind != "mean":
            canvas.percent_axis(ax)
            ax.set_ylim(0.0, max(0.05, ax.get_ylim()[1]))
        canvas.count_axis(ax)
        if not any(drawn):
            canvas.no_data(ax)
    canvas.legend_below(figure, axes[0])
    return figure


def action_shares(metrics: pl.DataFrame) -> Figure | None:
    """Share of each action in training and in validation, a stacked bar a validation; None where there is none."""
    labels = [c.removeprefix("val_action_share_") for c in metrics.columns if c.startswith("val_action_share_")]
    if not labels:
        return None
    figure, axes = canvas.grid(2, 2, 2.6, below=0.3)
    width = 0.86 if metrics.height <= 20 else 1.0  # gaps of uneven pixels look like data
    for ax, prefix, heading in zip(
        axes, ("action_share_", "val_action_share_"), ("Training", "Validation"), strict=True
    ):
        canvas.title(ax, heading)
        bottom = np.zeros(metrics.height)
        for label, color in zip(labels, action_colors(labels), strict=True):
            share = np.nan_to_num(values(metrics, prefix + label), posinf=0.0, neginf=0.0)
            ax.bar(
                np.arange(metrics.height),
                share,
                width,
                bottom,
                linewidth=0,
                color=color,
                label=canvas.plain(action_name(label)),
            )
            bottom = bottom + share
        ax.set_ylim(0, 1)
        ax.margins(x=0.01)
        canvas.percent_axis(ax)
        _row_axis(ax, metrics)
    canvas.legend_below(figure, axes[1])
    return figure


def components(metrics: pl.DataFrame) -> list[str]:
    """Names of the reward components that metrics.csv has columns of, in their order there."""
    return [
        c[len("reward_") : -len("_share")] for c in metrics.columns if c.startswith("reward_") and c.endswith("_share")
    ]


def action_colors(labels: list[str]) -> list[str]:
    """Blues for buying and long targets, oranges for selling and short ones, greys for the rest."""
    blues, oranges, greys = ["#A9D0EA", "#5FA8D6", "#1F7DB8"], ["#F8D3A2", "#EFAA5B", "#DB7A1C"], ["#D3D7DC", "#8A919C"]
    sides = [_side(label) for label in labels]
    shades = {1: blues, -1: oranges, 0: greys}
    return [_shade(shades[side], sides[:i].count(side), sides.count(side)) for i, side in enumerate(sides)]


def _side(label: str) -> int:
    """1 for an action that buys, -1 for one that sells, 0 for one that holds or closes."""
    verb, _, size = label.partition("_")
    if verb == "target":
        try:
            return int(np.sign(float(size)))
        except ValueError:
            return 0
    return {"buy": 1, "sell": -1}.get(verb, 0)


def _shade(shades: list[str], position: int, count: int) -> str:
    """The `position`-th of `count` shades, light to dark; a single action gets the darkest but one grey."""
    if count == 1:
        return shades[0] if len(shades) == 2 else shades[-1]
    return shades[round(position * (len(shades) - 1) / (count - 1))]


def _panels(metrics: pl.DataFrame, panels: list[Panel], columns: int, height: float, best: int | None) -> Figure | None:
    if metrics.height == 0:
        return None
    figure, axes = canvas.grid(len(panels), columns, height)
    for ax, panel in zip(axes, panels, strict=True):
        _panel(ax, metrics, panel, best)
    return figure


def _panel(ax: Axes, metrics: pl.DataFrame, panel: Panel, best: int | None) -> None:
    infinite = np.isposinf(values(metrics, panel.name))
    canvas.title(ax, panel.column.title, aside="▲ infinite" if infinite.any() else "")
    if panel.column.form in ("percent", "share", "signed", "fine", "loss"):
        canvas.percent_axis(ax)
    drawn = _line(ax, metrics, panel.name, POLICY)
    if panel.other:
        drawn |= _line(ax, metrics, panel.other, BENCHMARK, dashes=(4, 2))
    canvas.count_axis(ax)
    if not drawn and not infinite.any():
        canvas.no_data(ax)
        return
    # Arrows along the top edge: no line can show these.
    x = values(metrics, "env_steps")
    top = np.full(int(infinite.sum()), 0.96)
    ax.plot(x[infinite], top, "^", color=POLICY, markersize=5, transform=ax.get_xaxis_transform(), clip_on=False)
    if panel.reference is not None:
        ax.axhline(panel.reference, color=GREY, linewidth=0.9, zorder=1)
    if best is not None and np.isfinite(values(metrics, panel.name)[best]):
        ax.plot(x[best], values(metrics, panel.name)[best], "o", color=VERMILLION, markersize=6.5, zorder=5)


def _line(
    ax: Axes, metrics: pl.DataFrame, column: str, color: str, label: str = "", dashes: tuple[float, ...] = ()
) -> bool:
    """Draw the finite values of a column over env steps, with breaks elsewhere; whether there is any."""
    y = values(metrics, column)
    finite = np.isfinite(y)
    size = 3.0 if metrics.height == 1 or (metrics.height <= 60 and not dashes) else 0.0
    x = values(metrics, "env_steps")
    line = ax.plot(x, np.where(finite, y, np.nan), "-o", color=color, linewidth=1.7, markersize=size, label=label)[0]
    if dashes:
        line.set_dashes(dashes)
    return bool(finite.any())


def _row_axis(ax: Axes, metrics: pl.DataFrame) -> None:
    """Env steps of at most seven of the bars, evenly apart."""
    steps = values(metrics, "env_steps")
    shown = np.arange(0, metrics.height, -(-metrics.height // 7))
    ax.set_xticks(shown, [canvas.short_count(steps[i]) for i in shown])
    ax.grid(False, axis="x")
