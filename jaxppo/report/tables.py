"""Tables of the page: plain cells in, HTML out. Every text goes through `esc` here and nowhere is it trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import polars as pl

from jaxppo.config.schema import GROUPS, Config, to_dict
from jaxppo.report.rundata import POOLED, Evaluation, RunData, lookup, pooled_metrics, values
from jaxppo.report.text import MISSING, moment, number, percent, plain_value

Format = Callable[[float], str]


def _signed(value: float) -> str:
    return percent(value, sign=True)


def _whole(value: float) -> str:
    return number(value, 0)


def _share(value: float) -> str:
    return percent(value, 0)


def _small(value: float) -> str:
    return percent(value, 2, sign=True)


METRICS: dict[str, tuple[str, Format]] = {
    "return": ("Net return", _signed),
    "buy_and_hold_return": ("Buy-and-hold", _signed),
    "sharpe": ("Sharpe", number),
    "sortino": ("Sortino", number),
    "cagr": ("CAGR", _signed),
    "calmar": ("Calmar", number),
    "max_drawdown": ("Max drawdown", percent),
    "profit_factor": ("Profit factor", number),
    "win_rate": ("Win rate", _share),
    "expectancy": ("Expectancy", _small),
    "trades": ("Trades", _whole),
    "turnover": ("Turnover", number),
    "exposure": ("Exposure", _share),
    "consistency": ("Consistency", _share),
    "fitness": ("Fitness", number),
    "skew": ("Skew", number),
    "kurtosis": ("Kurtosis", number),
    "bars": ("Bars", _whole),
}
"""Heading and format of the metrics, in the order of the columns; others follow by their own names."""


def esc(text: Any) -> str:
    """`text` as HTML text or attribute value."""
    return escape(str(text), quote=True)


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1, total: int | None = None, wide: bool = True
) -> str:
    """HTML table of plain text cells; the columns after the first `text_columns` are right-aligned numbers, and row
    `total` is set apart."""

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = ["" if i < text_columns else ' class="num"' for i in range(len(cells))]
        return "".join(f"<{tag}{kind}>{esc(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))

    body = "".join(
        f"<tr{' class="total"' if False else ''}>{line(row, 'td')}</tr>" if i != total else f'<tr class="total">{line(row, "td")}</tr>'
        for i, row in enumerate(rows)
    )
    kind = ' class="wide"' if wide else ""
    return f'<div class="scroll"><table{kind}><thead><tr>{line(head, "th")}</tr></thead><tbody>{body}</tbody></table></div>'


def definitions(pairs: Sequence[tuple[str, str]], kind: str = "") -> str:
    """HTML definition list of plain text."""
    items = "".join(f"<dt>{esc(name)}</dt><dd>{esc(value)}</dd>" for name, value in pairs)
    return f"<dl{f' class="{kind}"' if kind else ''}>{items}</dl>"
