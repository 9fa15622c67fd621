"""Drawing helpers: figures with one look, made without pyplot, so that nothing global is touched."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from jaxppo.page.style import GRID, INK, MUTED
from jaxppo.page.text import MINUS

WIDTH = 11.0  # inches
DPI = 130  # 1,430 pixels wide: sharp at the page's 1,076 and in print

_LEFT, _RIGHT, _TOP, _BOTTOM = 0.62, 0.12, 0.34, 0.36  # inches round the axes of a panel
_STEPS = [1, 2, 2.5, 5, 10]  # between ticks
_LEGEND: dict[str, Any] = {
    "fontsize": 8.5,
    "labelcolor": INK,
    "frameon": False,
    "borderaxespad": 0.1,
    "handlelength": 1.4,
    "columnspacing": 1.3,
}


def grid(
    panels: int, columns: int, height: float, ratios: Sequence[float] | None = None, below: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """Figure with `panels` styled axes, row by row, each row `height` inches high, and `below` inches free under them.

    `ratios` weigh the heights of the rows. Margins are fixed in inches, which needs none of the extra drawing passes
    of an automatic layout.
    """
    rows = -(-panels // columns)
    total = rows * height + below
    figure = Figure(figsize=(WIDTH, total), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    spec = figure.add_gridspec(
        rows,
        columns,
        left=_LEFT / WIDTH,
        right=1 - _RIGHT / WIDTH,
        top=1 - _TOP / total,
        bottom=(_BOTTOM + below) / total,
        wspace=(_LEFT + _RIGHT) / (WIDTH / columns - _LEFT - _RIGHT),
        hspace=(_TOP + _BOTTOM) / (height - _TOP - _BOTTOM),
        height_ratios=ratios,
    )
    axes = [figure.add_subplot(spec[i // columns, i % columns]) for i in range(panels)]
    for ax in axes:
        _style(ax, ticks=max(4, round(2 * height)))
    return figure, axes


def title(ax: Axes, text: str, aside: str = "") -> None:
    """Title of a panel at its left, and a remark at its right; text from data goes through `plain` first."""
    # `y` is where it lies anyway, as ticks are below; left to matplotlib, it measures every label of the axis for it,
    # which took a fifth of all drawing.
    at: dict[str, Any] = {"y": 1.0, "pad": 7, "parse_math": False}
    ax.set_title(text, loc="left", fontsize=9.5, fontweight="bold", color=INK, **at)
    if aside:
        ax.set_title(aside, loc="right", fontsize=8.5, color=MUTED, **at)


def legend_above(ax: Axes) -> None:
    """Legend of the panel in one line above its right end, where it covers no data."""
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles, labels, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=max(len(labels), 1), **_LEGEND)


def legend_below(figure: Figure, ax: Axes, columns: int = 0) -> None:
    """Legend of the panel under all panels, in one line unless `columns` says how many names a line has.

    The figure needs room `below`.
    """
    handles, labels = ax.get_legend_handles_labels()
    corner = (_LEFT / WIDTH, 0.0)
    figure.legend(
        handles, labels, loc="lower left", bbox_to_anchor=corner, ncols=columns or max(len(labels), 1), **_LEGEND
    )


def plain(text: str) -> str:
    """`text` with characters outside Latin-1 as `?`: the bundled font lacks many, and warns of each."""
    return text.encode("latin-1", "replace").decode("latin-1")


def date_axis(ax: Axes, ticks: int = 8) -> None:
    """Concise UTC dates under the x axis."""
    # Two to four years have under three whole years, and too many months for a few ticks.
    locator = AutoDateLocator(minticks=2 if ticks < 8 else 3, maxticks=ticks)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    ax.xaxis.get_offset_text().set(fontsize=8, color=MUTED)


def count_axis(ax: Axes) -> None:
    """Env steps under the x axis, as 500k or 2.5M."""
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=_STEPS))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))


def percent_axis(ax: Axes) -> None:
    """Fractions on the y axis, as percent."""
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(100 * value) + " %"))


def no_data(ax: Axes, text: str = "no value yet") -> None:
    """An empty panel that says so."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=MUTED, fontsize=9)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", pil_kwargs={"compress_level": 6})
    return buffer.getvalue()


def tick(value: float) -> str:
    """A tick's value without trailing zeros, in scientific notation only below 1e-5."""
    text = f"{value:.6g}" if abs(value) < 1e-5 else np.format_float_positional(value, precision=6, trim="-")
    return text.replace("-", MINUS)


def short_count(value: float) -> str:
    """A count in at most five characters: 950, 12k, 2.6M, 1.05B."""
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def _style(ax: Axes, ticks: int) -> None:
    ax.set_facecolor("white")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(GRID)
    ax.grid(True, color=GRID, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=8.5, labelcolor=MUTED, color=GRID, length=3)
    ax.yaxis.set_major_locator(MaxNLocator(ticks, steps=_STEPS))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
