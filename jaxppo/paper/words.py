"""What a session says on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxppo.market.quality import format_time
from jaxppo.paper.broker import Order
from jaxppo.paper.record import Day


def order_words(order: Order, line: Mapping[str, Any], interval: int) -> str:
    """An order that goes out, with the decision's line: when, why, how much and at about which price."""
    reason = line["order"]["reason"]
    why = line["action"] if reason == "policy" else reason
    chance = line["probabilities"][line["action"]]
    what = f"{'buy' if order.units > 0 else 'sell'} {abs(order.units):.6g}"
    dry = " (dry run: not sent)" if line["dry"] else ""
    when = format_time(order.time + interval)
    return f"{when} {order.symbol}: {why} ({chance:.0%}), {what} at about {line['bar']['close']:.6g}{dry}"


def fill_words(symbol: str, fill: Mapping[str, Any]) -> str:
    """What has filled of an order."""
    verb = "bought" if fill["units"] > 0 else "sold"
    rest = "" if fill["status"] == "filled" else f", the rest {fill['status']}"
    return f"  {symbol}: {verb} {abs(fill['units']):.6g} at {fill['price']:.6g}, fee {fill['fee']:.2f}{rest}"


def day_words(day: Day, equity: float) -> str:
    """A day that is over, at an equity."""
    change = equity / day.equity - 1.0 if day.equity else 0.0
    return f"{day.date}: equity {equity:,.2f} ({change:+.2%}), orders {len(day.orders)}"
