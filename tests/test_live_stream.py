"""Bar by bar: features and size to the same bits as those of a whole history, and the same decisions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers import tiny_config
from test_live import Backtested, backtested

from jaxppo.config.schema import EnvConfig, FeatureConfig
from jaxppo.errors import ConfigError, DataError
from jaxppo.live.account import Account
from jaxppo.live.features import STREAMS, Bar, Features, Size
from jaxppo.live.stream import Stream
from jaxppo.market.bars import Bars, slice_bars
from jaxppo.market.features import FEATURE_GROUPS, FeatureGroup, compute_features, feature_groups
from jaxppo.market.synthetic import synthetic_market
from jaxppo.market.volatility import volatility_sizes


def rows(bars: Bars) -> list[Bar]:
    columns = (bars.time, bars.open, bars.high, bars.low, bars.close, bars.volume)
    return [Bar(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]


def broken_up(bars: Bars) -> Bars:
    """Two decimals, a feed that stands still for 120 bars without volume, holes, a jump, summer time in March."""
    keep = np.ones(len(bars.time), bool)
    keep[700:760] = keep[1200:1201] = False
    values = {
        k: np.round(getattr(bars, k) * np.where(np.arange(len(keep)) < 900, 1.0, 3.7), 2)
        for k in ("open", "high", "low", "close")
    }
    for k in values:
        values[k][500:620] = values["close"][500]
    volume = bars.volume.copy()
    volume[500:620] = 0.0
    time = 1_706_745_600 + 3600 * np.arange(len(keep))  # from February 2024 on
    whole = dataclasses.replace(bars, time=time, volume=volume, timezone="America/New_York", **values)
    fields = {k: getattr(whole, k)[keep] for k in ("time", "open", "high", "low", "close", "volume")}
    return dataclasses.replace(whole, **fields)


@pytest.mark.parametrize("market", ["smooth", "broken up"])
def test_every_group_streams_the_bits_of_a_whole_history(market):
    bars = synthetic_market(5, 1, 1500)[0]
    bars = bars if market == "smooth" else broken_up(bars)
    config = FeatureConfig(features=tuple(STREAMS), scale_window=100)
    table = compute_features(bars, feature_groups(config), config.scale_window)
    stream = Features(config.features, 100, bars.interval, bars.timezone, config.trend_returns, config.trend_macd)
    fed = np.stack([stream.push(bar) for bar in rows(bars)])
    first = table.min_bars - 1
    assert table.values.shape == fed.shape == (len(bars.time), len(table.names))
    for name, whole, one in zip(table.names, table.values[first:].T, fed[first:].T, strict=True):
        np.testing.assert_array_equal(one, whole, err_msg=name)
        assert len(np.unique(whole)) > 1 or (name == "gap_before" and market == "smooth"), name


def test_all_built_in_groups_have_a_stream():
    assert list(STREAMS) == list(FEATURE_GROUPS)


def test_the_size_of_a_position_streams_as_the_tape_has_it():
    env = EnvConfig(size_by="volatility", max_exposure=2.0)
    close = np.concatenate([np.full(30, 50.0), synthetic_market(5, 1, 300)[0].close])
    size = Size(env.volatility_span, env.target_volatility, env.max_exposure, 8766.0)
    fed = np.float32([size.push(x) for x in close.tolist()])
    np.testing.assert_array_equal(fed, np.float32(volatility_sizes(close, 8766.0, env)))
    assert fed[0] == 2.0 > fed[-1]


def test_work_and_memory_of_a_bar_do_not_grow():
    """The number of kept values after 1,200 bars is that after 600: whatever is kept is of a fixed length by then."""
    bars = synthetic_market(5, 1, 1200)[0]
    config = FeatureConfig()
    stream = Features(tuple(STREAMS), 64, bars.interval, bars.timezone, config.trend_returns, config.trend_macd)

    def kept(thing, seen):
        if id(thing) in seen or isinstance(thing, (int, float, str, type(None))):
            return 1
        seen.add(id(thing))
        if isinstance(thing, np.ndarray):
            return thing.size
        if isinstance(thing, dict):
            return sum(kept(x, seen) for x in thing.values())
        if hasattr(thing, "__len__") and not isinstance(thing, str):
            return sum(kept(x, seen) for x in thing)
        return sum(kept(x, seen) for x in getattr(thing, "__dict__", {}).values())

    sizes = []
    for i, bar in enumerate(rows(bars)):
        stream.push(bar)
        if i in (599, 1199):
            sizes.append(kept(stream, set()))
    assert sizes[0] == sizes[1] > 1000


@pytest.fixture(scope="module")
def done() -> Backtested:
    config = tiny_config(features=("base", "trend"), size_by="volatility", trend_returns=(1, 21), actions="sized")
    return backtested(config, synthetic_market(0, 1, 700)[0], last=60, seed=3)


def test_a_stream_decides_as_the_whole_history_does(done):
    per_year = float(done.split.tape.bars_per_year[0])
    start = done.bar(0)
    stream = done.policy.stream(slice_bars(done.bars, slice(start)), bars_per_year=per_year)
    orders = 0
    for i in range(60):
        price = float(done.bars.open[done.bar(i) + 1])
        one = stream(rows(done.bars)[start + i], done.at(i), price)
        assert one == done.policy.decide(done.history(i), done.at(i), price=price, bars_per_year=per_year)
        assert one.action == done.policy.info.actions.labels[done.action[i]]
        assert np.float32(one.units) == done.units[i]
        orders += one.order != 0
    assert orders > 5
    told = Account(equity=900.0, units=1.0, entry_time=int(done.bars.time[start + 50]))
    assert stream.decide(told) == done.policy.decide(done.history(59), told, bars_per_year=per_year)


def test_what_cannot_be_fed_is_refused(done):
    history = slice_bars(done.bars, slice(100))
    stream = done.policy.stream(history)
    with pytest.raises(
        DataError, match=f"100 bars so far, but a decision needs at least {done.policy.decider.min_bars}"
    ):
        stream.decide()
    last = rows(history)[-1]
    with pytest.raises(DataError, match=r"a bar of 2024-.* after one of 2024-.*feed every bar once, oldest first"):
        stream.feed(last)
    with pytest.raises(DataError, match="prices must be finite and above 0"):
        stream.feed(last._replace(time=last.time + 3600, low=0.0))
    decider = done.policy.decider
    own = FeatureGroup("own", "", ("own",), lambda m: [m.close], lookback=1)
    groups, decider.groups = decider.groups, [own]
    with pytest.raises(ConfigError, match="features 'own' are a plugin's and cannot be computed bar by bar"):
        Stream(decider, history)
    decider.groups = groups
