"""Numbers as text, the same everywhere on the page."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from jaxppo.play.metrics import Form

MISSING = "\u2013"
MINUS = "\u2212"


def number(value: float, digits: int = 2) -> str:
    """`value` with `digits` decimals and thousands separated; a dash for NaN and the sign for infinity."""
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "\u221e" if value > 0 else MINUS + "\u221e"
    text = f"{abs(value):,.{digits}f}"
    return MINUS + text if value < 0 and any(c in "123456789" for c in text) else text


def percent(value: float, digits: int = 1, sign: bool = False) -> str:
    """A fraction as percent, with a plus sign where `sign` is set and it is above 0."""
    if not math.isfinite(value):
        return number(value)
    text = number(100 * value, digits)
    plus = "+" if sign and value > 0 and any(c in "123456789" for c in text) else ""
    return f"{plus}{text}\u00a0%"


def between(low: float, high: float, form: Callable[[float], str] = number) -> str:
    """The ends of an interval, as `form` shows them; a dash where they are not known.

    Example:
      >>> between(0.5, 2.0), between(math.nan, math.nan)
      ('0.50 to 2.00', '\u2013')
    """
    return MISSING if math.isnan(low) or math.isnan(high) else f"{form(low)} to {form(high)}"


FORMS: dict[Form, Callable[[float], str]] = {
    "number": number,
    "tenth": partial(number, digits=1),
    "whole": partial(number, digits=0),
    "percent": percent,
    "share": partial(percent, digits=0),
    "signed": partial(percent, sign=True),
    "fine": partial(percent, digits=2, sign=True),
    "loss": partial(percent, digits=2),
}
"""A number as the form of its column has it."""


def plural(count: int, noun: str) -> str:
    """`1 trade`, `2 trades`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def moment(text: Any) -> str:
    """An ISO time to the minute in UTC; anything else as it is."""
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        return str(text)
    if time.tzinfo is not None:
        time = time.astimezone(UTC)
    return f"{time:%Y-%m-%d %H:%M} UTC"


def base_name(path: str) -> str:
    """The last part of a path, which is what a title calls it; text that is no path as it is.

    Example:
      >>> base_name("/home/me/runs/first/"), base_name("embedded synthetic market")
      ('first', 'embedded synthetic market')
    """
    return path.rstrip("/").rpartition("/")[2] or path


NOT_SET = "not set"
"""What nobody gave a value, such as the fee, which then is the asset class's: "none" would say that there is none."""


def plain_value(value: Any) -> str:
    """A value of a configuration or manifest on one line."""
    if value is None:
        return NOT_SET
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain_value(v)}" for key, v in value.items()) or NOT_SET
    if isinstance(value, (list, tuple)):
        return ", ".join(plain_value(v) for v in value) or NOT_SET
    return str(value)


def action_name(label: str) -> str:
    """A label of an action table in words: buy_25 as "buy 25 %", target_-0.5 as "target -0.5"."""
    verb, _, size = label.partition("_")
    if not size:
        return label
    return f"{verb} {size} %" if verb in ("buy", "sell") else f"{verb} {size}"
