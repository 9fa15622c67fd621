"""The bars that a session with a broker begins with: of files, of the broker, or of both in turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxppo.errors import DataError
from jaxppo.market.asset_classes import asset_class_of
from jaxppo.market.bars import Bars
from jaxppo.market.calendar import DAY
from jaxppo.market.quality import FIELDS
from jaxppo.paper.feed import Row, appended

Fetch = Callable[[str, int], Sequence[Row]]
MORE = {"always": 1.2, "week": 2.0, "exchange": 7.0}
"""Times the bars needed that are asked for, by the hours of the market: 7 hourly bars of 24, 5 days of 7, holidays."""


def begin(classes: Mapping[str, str], interval: int, needed: int, fetch: Fetch, now: float, source: str) -> list[Bars]:
    """History of every symbol up to now.

    Args:
      classes: asset class of each symbol.
      interval: seconds.
      needed: bars of a decision.
      fetch: closed bars of a symbol since a time.
      now: UTC seconds.
      source: what to call them.

    Raises:
      DataError: too few bars of a symbol.
    """
    found = []
    for symbol, name in classes.items():
        record = asset_class_of(name)
        more = 1.7 if record.hours == "exchange" and interval >= DAY else MORE[record.hours]
        rows = fetch(symbol, int(now - interval * (more * needed + 5)))
        if len(rows) < needed:
            raise DataError(
                f"{symbol}: {source} has {len(rows)} bars up to now, but a decision needs {needed}; give earlier ones"
                " with --data"
            )
        zone = "UTC" if interval % DAY == 0 else record.timezone
        empty: Any = {k: np.empty(0, np.int64 if k == "time" else np.float64) for k in ("time", *FIELDS)}
        found.append(appended(Bars(symbol, name, interval, zone, source=source, **empty), rows))
    return found


def go_on(bars: Sequence[Bars], fetch: Fetch) -> list[Bars]:
    """Bars of files, and those of the broker that came since."""
    return [dataclasses.replace(appended(b, fetch(b.symbol, int(b.time[-1]) + 1)), source=b.source) for b in bars]
