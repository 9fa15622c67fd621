"""Where a configuration's bars come from: its files, or the embedded market."""

from __future__ import annotations

from jaxppo.config.schema import DataConfig
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
