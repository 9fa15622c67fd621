"""The dashboard in a terminal: what fits into its width and height, in plain text and Unicode blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.text import Text

from jaxppo.page.text import MISSING
from jaxppo.watch.blocks import bar, plot, sparkline
from jaxppo.watch.seen import OVER, State
from jaxppo.watch.summary import (
    Group,
    Measure,
    Picture,
    best_text,
    clock,
    group_rows,
    known_measures,
    measures,
    now_text,
)

STYLES: dict[State, str] = {
    "starting": "bold cyan",
    "training": "bold cyan",
    "ending": "bold cyan",
    "late": "bold yellow",
    "finished": "bold",
    "stopped": "bold yellow",
    "dead": "bold red",
}
_PLOTTED = ("val_fitness", "val_return", "entropy", "train_trade_rate")
_DISPENSABLE = ("explained_variance", "val_exposure", "approx_kl", "val_max_drawdown", "val_buy_and_hold_return")
"""What a small terminal goes without, the first first: the last is told with the best validation."""
_TALL = 9  # lines of a plot with its title
_TABLE_AT_MOST = 12  # groups that a table lists


def dashboard(shown: Picture, width: int, height: int, page: str = "") -> Text:
    """The dashboard as lines of at most `width` characters, at most `height` of them where that is 24 or more.

    `page` is the address of the same as a page; empty for none.
    """
    leader = shown.groups[0]
    gap = [Text()] if height > 30 else []
    facts = _wrapped(" \u00b7 ".join(shown.facts), width)
    at = [_line((f"page: {page}", "dim"))] if page else []
    top = [_line((shown.title, "bold")), _progress(shown, width), *facts, *at, *gap]
    bottom = [*gap, *_bottom(shown, width, max(4, height - len(top) - 10))]
    middle: list[Text] = []
    if len(shown.groups) > 1:
        listed = max(2, min(_TABLE_AT_MOST, height - len(top) - len(bottom) - 12))
        middle += [*_groups(shown.groups, width, listed), *gap]
    room = height - len(top) - len(middle) - len(bottom)
    figures = _figures(leader, width, max(room, 8), len(shown.groups) > 1)
    room -= len(figures)
    plots = _plots(leader, width, room // _TALL) if room >= _TALL else []
    lines = [*top, *middle, *figures, *plots, *bottom]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Text("\n").join(lines)


def _line(*parts: tuple[str, str]) -> Text:
    return Text.assemble(*parts)


def _progress(shown: Picture, width: int) -> Text:
    share = MISSING if math.isnan(shown.done) else f"{100 * shown.done:.0f} %"
    gone = f"{clock(shown.gone)} gone"
    left = "" if math.isnan(shown.left) else f", {clock(shown.left)} left"
    words = f"  {share}  {gone}{left}"
    state = shown.state.upper()
    progress = bar(shown.done, width - len(state) - len(words) - 2)
    return _line((state, STYLES[shown.state]), ("  ", ""), (progress, "cyan"), (words, ""))


def _groups(groups: Sequence[Group], width: int, most: int) -> list[Text]:
    """A line a group, the best first."""
    heads = {"state": 9, "update": 9, "fitness": 8, "Sharpe": 7, "return": 9, "alarms": 7}
    room = max(width - sum(heads.values()), 8)

    def line(name: str, cells: Sequence[str], style: str = "") -> Text:
        name = name if len(name) < room else name[: room - 2] + "\u2026"
        return _line(
            (f"{name:<{room}}" + "".join(f"{c:>{w}}" for c, w in zip(cells, heads.values(), strict=True)), style)
        )

    lines = [line("configurations, best first", tuple(heads), "dim")]
    lines += [line(name, cells) for name, *cells in group_rows(groups[:most])]
    if len(groups) > most:
        lines.append(_line((f"and {len(groups) - most} more", "dim")))
    return lines


def _figures(own: Group, width: int, most: int, named: bool) -> list[Text]:
    """A line a figure: its title, now, at the best validation, and its course; at most so many lines."""
    bands = {m: own.band(m.column) for m in measures()}
    shown = known_measures(own)
    for column in _DISPENSABLE[: max(len(shown) + 2 - most, 0)]:
        shown = [m for m in shown if m.column != column]
    seeds = len(own.runs)
    wide = 26 if seeds > 1 else 12
    title_width, best_width = 28, 12
    room = width - title_width - wide - best_width - 2
    now = "now, lowest to highest" if seeds > 1 else "now"
    end = max((run.n_updates for run in own.runs), default=0)
    of = f"validation bars{': ' + own.name if named else ''}"
    lines = []
    for i, (heading, training) in enumerate(((of, False), ("in training", True))):
        if not any(m.in_training is training for m in shown):
            continue
        heading = heading if len(heading) < title_width else heading[: title_width - 2] + "\u2026"
        columns = f"{now:>{wide}}{'at best':>{best_width}}  {'update 0 to ' + str(end) if end else ''}" if not i else ""
        lines.append(_line((f"{heading:<{title_width}}{columns}", "dim")))
        for measure in (m for m in shown if m.in_training is training):
            band = bands[measure]
            curve = sparkline(band.update, band.mean, max(room, 8), float(end)) if len(band.update) else ""
            lines.append(
                _line(
                    (f"{measure.title:<{title_width}}", ""),
                    (f"{now_text(own, measure):>{wide}}", "bold"),
                    (f"{best_text(own, measure):>{best_width}}  ", ""),
                    (curve, "cyan"),
                )
            )
    return lines


def _plots(own: Group, width: int, rows: int) -> list[Text]:
    """Tall curves, two in a row where there is room for both."""
    columns = {m.column: m for m in known_measures(own)} if own.looks else {}
    beside = 2 if width >= 110 else 1
    shown = [columns[name] for name in _PLOTTED if name in columns][: rows * beside]
    end = float(max((run.n_updates for run in own.runs), default=0))
    lines: list[Text] = []
    for i in range(0, len(shown), beside):
        blocks = [_plot(own, measure, width // beside - 2, end) for measure in shown[i : i + beside]]
        lines += [Text("  ").join(parts) for parts in zip(*blocks, strict=True)]
    return lines


def _plot(own: Group, measure: Measure, width: int, end: float) -> list[Text]:
    band = own.band(measure.column)
    labels = 11
    lines, low, high = plot(*band, (width - labels, _TALL - 1), end)
    spread = ": mean, lowest and highest seed" if len(own.runs) > 1 else ""
    heading = f"{measure.title}{spread}"
    found = [_line((f"{heading:<{width}}"[:width], "dim"))]
    levels = {0: high, len(lines) - 1: low} if high > low else {len(lines) // 2 - 1: low}
    for i, line in enumerate(lines):
        label = measure.text(levels[i]) if i in levels and not math.isnan(levels[i]) else ""
        found.append(_line((f"{label:>{labels - 1}} ", "dim"), (line, "cyan")))
    return found


def _bottom(shown: Picture, width: int, most: int) -> list[Text]:
    """Best, checkpoints, what to do, alarms and how fresh it is, in at most so many lines."""
    lines = _wrapped(shown.best, width)
    if shown.checkpoints:
        lines.append(_line((shown.checkpoints, "")))
    if shown.advice:
        lines += _wrapped(shown.advice, width, STYLES[shown.state])
    ends = "" if shown.state in OVER else "; Ctrl-C ends the watch, not the run"
    footer = _line((f"{shown.fresh}{ends}", "dim"))
    lasting = [told for told in shown.alarms if told.lasts]
    over = len(shown.alarms) - len(lasting)
    if not lasting:
        lines.append(_line((f"no alarm{f'; {over} that are over' if over else ''}", "dim")))
    for i, told in enumerate(lasting):
        of = f" of {told.run}" if told.run else ""
        measured = f" Measured: {told.measured}." if told.measured else ""
        block = _wrapped(f"ALARM{of} since update {told.since}: {told.title}: {told.text}.{measured}", width, "red")
        if i and len(lines) + len(block) + 1 > most:
            lines.append(_line((f"and {len(lasting) - i} more alarms", "red")))
            break
        lines += block
    return [*lines, footer]


def _wrapped(text: str, width: int, style: str = "") -> list[Text]:
    """A text in lines of whole words."""
    found, line = [], ""
    for word in text.split(" "):  # a number stays with its unit
        if line and len(line) + 1 + len(word) > width:
            found.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [_line((part, style)) for part in [*found, line]]
