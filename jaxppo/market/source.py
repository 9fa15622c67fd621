"""Where a configuration's bars come from: its files, or the embedded market."""

from __future__ import annotations

import dataclasses
import functools

from jaxppo.config.schema import BarsFilter, DataConfig
from jaxppo.market.bars import Bars, load_bars
from jaxppo.market.synthetic import synthetic_market

SYNTHETIC = "embedded synthetic market"
"""What the embedded market is called in place of a file or folder."""


def load_market_bars(data: DataConfig) -> tuple[list[Bars], str]:
    """The configured bars, one entry a symbol, and what to call them.

    Raises:
      DataError: a file that cannot be trusted or read.
      ConfigError: an interval, symbol, time zone or asset class that does not fit the files.
    """
    if data.data is None:
        return synthetic_market(data.market_seed), SYNTHETIC
    bars = load_bars(
        data.data,
        interval=data.interval,
        symbols=data.symbols,
        timezone=data.timezone,
        asset_classes=data.asset_classes,
        symbol_from=data.symbol_from,
    )
    return bars, data.data


def load_other_bars(path: str, given: BarsFilter, data: DataConfig) -> tuple[list[Bars], DataConfig]:
    """Bars of a file or folder in place of a run's own, and the run's `data` with them in it.

    What the run said of a symbol's asset class holds here too, unless `given` says otherwise. Raises as above.
    """
    read = functools.partial(
        load_bars,
        path,
        interval=given.interval,
        symbols=given.symbols,
        timezone=given.timezone,
        symbol_from=given.symbol_from,
    )
    bars, classes = read(asset_classes=given.asset_classes), dict(given.asset_classes)
    known = {b.symbol: c for b in bars if (c := data.asset_classes.get(b.symbol)) and b.symbol not in classes}
    if known:
        classes |= known
        bars = read(asset_classes=classes)
    own = {f.name: getattr(given, f.name) for f in dataclasses.fields(BarsFilter)}
    return bars, dataclasses.replace(data, **{**own, "data": path, "asset_classes": classes})
