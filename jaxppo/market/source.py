"""Where a configuration's bars come from: its files, or the embedded market."""

from __future__ import annotations

import dataclasses

from jaxppo.config.schema import BarsFilter, DataConfig
from jaxppo.market.bars import Bars, load_bars
from jaxppo.market.corporate import apply_actions, holds_any, read_actions
from jaxppo.market.resample import parse_longer, resample
from jaxppo.market.synthetic import synthetic_market

SYNTHETIC = "embedded synthetic market"
"""What the embedded market is called in place of a file or folder."""


def load_market_bars(data: DataConfig) -> tuple[list[Bars], str]:
    """The configured bars, one entry a symbol, and what to call them; made into longer ones where that is asked for.

    Raises:
      DataError: a file that cannot be trusted or read.
      ConfigError: an interval, symbol, time zone or asset class that does not fit the files.
    """
    bars, source = _read(data)
    return _made(bars, data), source


def _read(data: DataConfig) -> tuple[list[Bars], str]:
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


def _made(bars: list[Bars], data: DataConfig, others: bool = False) -> list[Bars]:
    """Bars with their splits and dividends, and made longer.

    Args:
      bars: as they were read.
      data: what is to be made of them.
      others: whether they stand in for those of a run, of which alone the file of splits and dividends may be.
    """
    if data.corporate_actions is not None:
        actions, file = read_actions(data.corporate_actions), data.corporate_actions
        if not others or holds_any(bars, actions, file):
            bars = apply_actions(bars, actions, file)
    if data.resample is None:
        return bars
    seconds = parse_longer(data.resample, "resample")
    return [resample(b, seconds) for b in bars]


def load_other_bars(path: str, given: BarsFilter, data: DataConfig) -> tuple[list[Bars], DataConfig]:
    """Bars of a file or folder in place of a run's own, and the run's `data` with them in it.

    What the run said of a symbol's asset class holds here too, unless `given` says otherwise, and so does what it makes
    of its bars. Raises as above.
    """
    own = {f.name: getattr(given, f.name) for f in dataclasses.fields(BarsFilter)}
    there = dataclasses.replace(data, **{**own, "data": path})
    bars, _ = _read(there)
    known = {
        b.symbol: c for b in bars if (c := data.asset_classes.get(b.symbol)) and b.symbol not in own["asset_classes"]
    }
    if known:
        there = dataclasses.replace(there, asset_classes={**own["asset_classes"], **known})
        bars, _ = _read(there)
    return _made(bars, there, others=True), there
