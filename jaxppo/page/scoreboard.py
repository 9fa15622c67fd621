"""The first thing on a page: the verdict in words, the figure that decides, and who made what, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxppo.page.tables import esc
from jaxppo.page.text import between, number, percent

_ROOM = 0.06  # of the width, left and right of the outermost interval


LOOKED_AT = '<span class="looked">looked at: the policy was chosen by these bars</span>'


@dataclass(frozen=True)
class Score:
    """One line of the scoreboard: figures of a portfolio that is rebalanced daily, after costs."""

    name: str
    sharpe: float
    interval: tuple[float, float] | None
    """90 % interval of the Sharpe ratio."""
    net_return: float
    max_drawdown: float
    note: str = ""
    """Such as how far the policy is above it, with the interval of that difference."""
    own: bool = False
    """Whether it is the policy."""


@dataclass(frozen=True)
class Answer:
    """What a reader takes away in ten seconds."""

    tone: str
    """good (only of what passed its gate), bad or caution."""
    title: str
    """The verdict in words."""
    sentence: str
    """What it rests on."""
    value: str
    """The figure that decides, with its unit."""
    meaning: str
    """What that figure is, of which bars, and with which interval."""
    looked_at: bool = False
    """Whether the policy was chosen by these very bars, so that the figure is too good."""


def scoreboard(
    answer: Answer, scores: Sequence[Score], below: str = "", note: str = "", whose: str = "Policy\u2019s"
) -> str:
    """HTML of the verdict over the scoreboard.

    Args:
      answer: what decides.
      scores: of the policy and what it must beat.
      below: HTML that follows.
      note: plain text under the table.
      whose: Sharpe ratio the scores' notes take theirs from.
    """
    seen = LOOKED_AT if answer.looked_at else ""
    tone = "" if answer.looked_at else answer.tone
    small = f'<p class="muted">{esc(note)}</p>' if note else ""
    return (
        f'<section class="verdict {answer.tone}" id="answer"><h2>{esc(answer.title)}</h2>'
        f'<p class="answer">{esc(answer.sentence)}</p>'
        f'<p class="key"><b class="{tone}">{esc(answer.value)}</b><span>{esc(answer.meaning)}</span>{seen}</p>'
        f"{_table(scores, whose)}{small}{below}</section>"
    )


def _table(scores: Sequence[Score], whose: str) -> str:
    if not scores:
        return ""
    ends = [x for s in scores for x in (s.sharpe, *(s.interval or ())) if math.isfinite(x)] + [0.0]
    low, high = min(ends), max(ends)
    room = _ROOM * max(high - low, 1e-6)
    noted, known = any(s.note for s in scores), any(s.interval for s in scores)
    head = ["", "Sharpe ratio a year", "90 % interval" if known else "", "Net return", "Max drawdown"]
    head += [f"{whose} Sharpe ratio less it, 90 % interval"] if noted else []
    rows = "".join(_row(s, low - room, high + room, noted) for s in scores)
    kinds = ["", "num", "interval", "num", "num fall", ""]
    cells = "".join(f'<th class="{kind}">{esc(h)}</th>' for kind, h in zip(kinds, head, strict=False))
    table = f'<table class="scores"><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _row(score: Score, low: float, high: float, noted: bool) -> str:
    ends = "" if score.interval is None else between(*score.interval)
    cells = (
        f'<td>{esc(score.name)}</td><td class="num">{esc(number(score.sharpe))}</td>'
        f'<td class="interval">{_whisker(score, low, high)}<span class="muted">{esc(ends)}</span></td>'
        f'<td class="num">{esc(percent(score.net_return, sign=True))}</td>'
        f'<td class="num fall">{esc(percent(score.max_drawdown))}</td>'
    )
    last = f"<td>{esc(score.note)}</td>" if noted else ""
    kind = "own" if score.own else ""
    return f'<tr class="{kind}">{cells}{last}</tr>'


def _whisker(score: Score, low: float, high: float) -> str:
    """The Sharpe ratio as a point on its interval, on the axis that all lines share, with a line at 0."""

    def x(value: float) -> str:
        return f"{200 * (value - low) / (high - low):.1f}"

    if not math.isfinite(score.sharpe):
        return ""
    line = ""
    if score.interval is not None and all(map(math.isfinite, score.interval)):
        a, b = score.interval
        line = f'<line class="whisker" x1="{x(a)}" x2="{x(b)}" y1="9" y2="9"/>'
    point = (
        f'<rect x="{float(x(score.sharpe)) - 4:.1f}" y="5" width="8" height="8" fill="var(--accent)"/>'
        if score.own
        else f'<circle cx="{x(score.sharpe)}" cy="9" r="4" fill="var(--muted)"/>'
    )
    zero = f'<line class="zero" x1="{x(0.0)}" x2="{x(0.0)}" y1="0" y2="18"/>'
    return f'<svg viewBox="0 0 200 18" aria-hidden="true">{zero}{line}{point}</svg>'
