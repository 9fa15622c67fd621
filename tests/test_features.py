"""Features: causal to the bit, free of units, finite on ugly bars, and what their names say."""

import dataclasses
import datetime as dt
import time as clock
import zoneinfo

import numpy as np
import pytest
import talib

from jaxppo.errors import ConfigError, DataError
from jaxppo.market import features
from jaxppo.market.bars import Bars
from jaxppo.market.features import (
    FEATURE_GROUPS,
    compute_features,
    feature_hash,
    feature_names,
    min_bars,
    rolling_mean_std,
)

ALL = tuple(FEATURE_GROUPS)
SIX = tuple(name for name in ALL if name != "trend")  # the default; trend's averages are longer
WINDOW = 64
PRICES = ("open", "high", "low", "close")
MONDAY = int(dt.datetime(2024, 1, 1, tzinfo=dt.UTC).timestamp())


def make_bars(time, close, *, opening=None, reach=0.0, volume=1.0, interval=3600, timezone="UTC", symbol="TEST"):
    """Bars that open at the close before unless told, with highs and lows `reach` (a share) beyond open and close."""
    close = np.asarray(close, float)
    opening = np.concatenate([close[:1], close[:-1]]) if opening is None else np.asarray(opening, float)
    return Bars(
        symbol=symbol,
        asset_class="equity",
        interval=interval,
        timezone=timezone,
        time=np.asarray(time, np.int64),
        open=opening,
        high=np.maximum(opening, close) * (1 + reach),
        low=np.minimum(opening, close) * (1 - reach),
        close=close,
        volume=np.broadcast_to(np.asarray(volume, float), close.shape).copy(),
        source="test.csv",
    )


def crypto_bars(n=900, seed=0):
    """Round-the-clock hours with fat tails and jumps of +-65 %."""
    rng = np.random.default_rng(seed)
    log_return = 0.005 * rng.standard_t(3, n)
    log_return[[n // 3, n // 2]] = np.log(1.65), np.log(0.35)
    close = 30_000 * np.exp(np.cumsum(log_return))
    return make_bars(
        MONDAY + 3600 * np.arange(n), close, reach=0.002 * rng.random(n), volume=rng.lognormal(5, 2, n), symbol="COIN"
    )


def fx_bars(n=900, seed=1):
    """Prices on a tick grid, no volume, weekends off, and a day in which nothing moves."""
    rng = np.random.default_rng(seed)
    hours = np.arange(2 * n)
    hours = hours[hours // 24 % 7 < 5][:n]
    close = 1.1 + 1e-5 * np.cumsum(rng.integers(-30, 31, n))
    close[400:424] = close[399]
    bars = make_bars(MONDAY + 3600 * hours, np.round(close, 5), volume=0.0, timezone="America/New_York", symbol="FX")
    up, down = 1e-5 * rng.integers(0, 4, (2, n))
    up[400:424] = down[400:424] = 0.0
    return dataclasses.replace(bars, high=np.round(bars.high + up, 5), low=np.round(bars.low - down, 5))


def session_bars(n=900, seed=2):
    """Seven hours a weekday, New York, with overnight gaps in price; half the closes do not move."""
    rng = np.random.default_rng(seed)
    zone = zoneinfo.ZoneInfo("America/New_York")
    days = (dt.date(2024, 2, 1) + dt.timedelta(days=i) for i in range(n))
    time = [
        int(dt.datetime(d.year, d.month, d.day, hour, tzinfo=zone).timestamp())
        for d in days
        if d.weekday() < 5
        for hour in range(9, 16)
    ][:n]
    close = np.round(100 * np.exp(np.cumsum(0.004 * rng.standard_normal(n) * rng.integers(0, 2, n))), 2)
    opening = np.round(np.concatenate([close[:1], close[:-1]]) * np.where(np.arange(n) % 7, 1.0, 1.003), 2)
    return make_bars(time, close, opening=opening, reach=0.001, volume=rng.lognormal(8, 1, n), timezone=zone.key)


def flat_bars(n=900):
    return make_bars(MONDAY + 3600 * np.arange(n), np.full(n, 7.3), volume=0.0)


MARKETS = {"crypto": crypto_bars, "fx": fx_bars, "session": session_bars, "flat": flat_bars}


def part(bars, begin, end):
    rows = {k: getattr(bars, k)[begin:end] for k in (*PRICES, "time", "volume")}
    return dataclasses.replace(bars, **rows)


def scale_prices(bars, factor):
    return dataclasses.replace(bars, **{k: getattr(bars, k) * factor for k in PRICES})


def column(bars, name, groups=SIX, window=WINDOW):
    table = compute_features(bars, groups, window)
    return table.values[:, table.names.index(name)]


def test_the_registry_holds_the_53_features_in_six_groups():
    assert [len(g.names) for g in FEATURE_GROUPS.values()][:6] == [7, 4, 7, 12, 14, 9]
    names = feature_names(ALL[:6])
    assert len(set(names)) == 53
    assert feature_names(("calendar", "base")) == FEATURE_GROUPS["calendar"].names + FEATURE_GROUPS["base"].names


@pytest.mark.parametrize("name", ALL)
def test_a_group_computes_one_column_a_name_and_does_not_depend_on_the_others(name):
    bars = crypto_bars()
    assert len(FEATURE_GROUPS[name].compute(features.bar_inputs(bars, WINDOW))) == len(FEATURE_GROUPS[name].names)
    alone, together = compute_features(bars, (name,), WINDOW), compute_features(bars, ALL, WINDOW)
    begin = together.names.index(alone.names[0])
    rows = slice(together.min_bars - 1, None)
    np.testing.assert_array_equal(
        alone.values[rows], together.values[rows, begin : begin + len(alone.names)], strict=True
    )


@pytest.mark.parametrize("market", MARKETS)
def test_rows_are_finite_clipped_and_zero_before_min_bars(market):
    table = compute_features(MARKETS[market](), ALL, WINDOW)
    assert table.values.dtype == np.float32
    assert table.min_bars == min_bars(ALL, WINDOW)
    assert not table.values[: table.min_bars - 1].any()
    assert np.isfinite(table.values).all()
    assert np.abs(table.values).max() <= features.CLIP


@pytest.mark.parametrize("market", ["crypto", "fx", "session"])
def test_later_bars_change_nothing_to_the_last_bit(market):
    bars = MARKETS[market]()
    n, first = len(bars.time), min_bars(ALL, WINDOW)
    whole = compute_features(bars, ALL, WINDOW).values
    cuts = [first, first + 1, *np.random.default_rng(0).integers(first + 2, n, 24)]
    for cut in cuts:
        np.testing.assert_array_equal(compute_features(part(bars, 0, cut), ALL, WINDOW).values, whole[:cut])
        later = {k: np.concatenate([getattr(bars, k)[:cut], getattr(bars, k)[cut:] * 7.7]) for k in (*PRICES, "volume")}
        changed = compute_features(dataclasses.replace(bars, **later), ALL, WINDOW).values
        np.testing.assert_array_equal(changed[:cut], whole[:cut])
        assert (changed[cut] != whole[cut]).any()  # The row of a bar uses that bar.


@pytest.mark.parametrize("market", MARKETS)
def test_price_units_change_nothing(market):
    bars = MARKETS[market]()
    values = compute_features(bars, ALL, WINDOW).values
    np.testing.assert_array_equal(compute_features(scale_prices(bars, 1024.0), ALL, WINDOW).values, values)
    for factor in (1000.0, 1 / 3):
        scaled = compute_features(scale_prices(bars, factor), ALL, WINDOW).values
        np.testing.assert_allclose(scaled, values, rtol=0, atol=1e-6)


def test_volume_units_change_nothing():
    bars = crypto_bars()
    scaled = column(dataclasses.replace(bars, volume=bars.volume * 1000), "volume")
    np.testing.assert_allclose(scaled, column(bars, "volume"), atol=1e-6)
    assert column(bars, "volume").std() > 0.5


@pytest.mark.parametrize("market", ["crypto", "fx", "session"])
def test_an_older_start_of_the_history_is_forgotten(market):
    # Live trading keeps fewer bars than the backtest had: after min_bars both must see the same.
    bars = MARKETS[market](1100)
    begin = {"crypto": 240, "fx": 245, "session": 238}[market]  # local midnights: a later bar would cut a day
    late, whole = compute_features(part(bars, begin, None), SIX, WINDOW), compute_features(bars, SIX, WINDOW)
    rows = slice(late.min_bars - 1, None)
    np.testing.assert_allclose(late.values[rows], whole.values[begin:][rows], atol=5e-3)
    np.testing.assert_allclose(late.values[-200:], whole.values[-200:], atol=1e-5)


def test_a_market_without_moves_is_neutral_everywhere():
    table = compute_features(flat_bars(), ("base", "technical", "multi_window"), WINDOW)
    moving = [i for i, name in enumerate(table.names) if name != "adx_14"]
    assert not table.values[:, moving].any()
    assert column(flat_bars(), "adx_14")[-1] == -1.0  # ADX 0: no trend, the low end of its range
    for of in ("volatility", "trend", "momentum", "macro"):
        assert column(flat_bars(), f"{of}_low")[-1] == column(flat_bars(), f"{of}_high")[-1]


def test_rolling_mean_std_equals_the_definition():
    x = np.random.default_rng(0).normal(5.0, 2.0, 200)
    for window in (2, 7, 100, 200):
        mean, std = rolling_mean_std(x, window)
        for t in range(window - 1, 200):
            np.testing.assert_allclose(mean[t], x[t - window + 1 : t + 1].mean(), rtol=1e-13)
            np.testing.assert_allclose(std[t], x[t - window + 1 : t + 1].std(ddof=1), rtol=1e-12)


def test_rolling_mean_std_keeps_nothing_of_a_jump_that_left_the_window():
    x = np.full(100, 0.1)
    x[10], x[11] = 1e12, -1e12
    mean, std = rolling_mean_std(x, 8)
    assert std[18] > 0
    np.testing.assert_array_equal(mean[19:], 0.1)  # the jump at 11 leaves the 8-bar window at 19
    np.testing.assert_array_equal(std[19:], 0.0)


def test_scaled_features_are_z_scores_of_their_series():
    bars, rows = crypto_bars(), slice(300, None)
    log_close = np.log(bars.close)
    series = {"price_z": log_close, "momentum_10": talib.MOM(log_close, 10), "return_50": talib.MOM(log_close, 50)}
    series |= {"macd": talib.MACD(log_close)[0], "roc_12": talib.ROCP(bars.close, 12)}
    for name, x in series.items():
        windows = np.lib.stride_tricks.sliding_window_view(x, WINDOW)
        z = (windows[:, -1] - windows.mean(1)) / windows.std(1, ddof=1)
        expected = np.clip(np.concatenate([np.zeros(WINDOW - 1), z]), -5, 5)
        np.testing.assert_allclose(column(bars, name)[rows], expected[rows], atol=1e-5, err_msg=name)


def test_bounded_indicators_are_those_of_talib_mapped_to_one():
    bars, rows = crypto_bars(), slice(300, None)
    ohlc = (bars.high, bars.low, bars.close)
    upper, middle, _ = talib.BBANDS(bars.close, 20, 2, 2)
    expected = {
        "rsi_14": talib.RSI(bars.close, 14) / 50 - 1,
        "rsi_28": talib.RSI(bars.close, 28) / 50 - 1,
        "adx_14": talib.ADX(*ohlc, 14) / 50 - 1,
        "di_14": (talib.PLUS_DI(*ohlc, 14) - talib.MINUS_DI(*ohlc, 14)) / 100,
        "stoch_k": talib.STOCH(*ohlc, 14, 3, 0, 3, 0)[0] / 50 - 1,
        "stoch_d": talib.STOCH(*ohlc, 14, 3, 0, 3, 0)[1] / 50 - 1,
        "cci_20": talib.CCI(*ohlc, 20) / 200,
        "williams_r_14": talib.WILLR(*ohlc, 14) / 50 + 1,
    }
    for name, x in expected.items():
        np.testing.assert_allclose(column(bars, name)[rows], x[rows], atol=1e-5, err_msg=name)
    # Bollinger bands of the log price (population deviation in TA-Lib, sample deviation here).
    of_price = (bars.close - middle) / (upper - middle) * np.sqrt(19 / 20)
    calm = np.array([np.abs(np.diff(np.log(bars.close[t - 20 : t + 1]))).max() < 0.02 for t in range(20, 900)])
    np.testing.assert_allclose(column(bars, "bollinger_position")[20:][calm][300:], of_price[20:][calm][300:], atol=0.1)


def test_a_close_that_rounding_put_outside_a_tiny_range_stays_within_bounds():
    bars = flat_bars()
    bars.high[500:] *= 1 + 1e-8
    bars.close[600] *= 1 + 1e-6
    table = compute_features(bars, ("intraday", "technical", "multi_window"), WINDOW)
    for name in ("day_range_position", "stoch_k", "stoch_d", "williams_r_14", "position_20"):
        assert np.abs(table.values[:, table.names.index(name)]).max() <= 1.0
    assert table.values[600, table.names.index("position_20")] == 1.0


def test_positions_in_a_range_by_hand():
    bars = crypto_bars()
    for t in (500, 700, 899):
        low, high = bars.low[t - 19 : t + 1].min(), bars.high[t - 19 : t + 1].max()
        np.testing.assert_allclose(
            column(bars, "position_20")[t], 2 * (bars.close[t] - low) / (high - low) - 1, atol=1e-6
        )


def test_a_rising_market_reads_as_up_and_a_falling_one_as_down():
    n = 900
    rising = make_bars(MONDAY + 3600 * np.arange(n), 100 * 1.001 ** np.arange(n) * (1 + 1e-4 * (np.arange(n) % 2)))
    falling = dataclasses.replace(rising, **{k: 1 / getattr(rising, k) for k in ("open", "close")})
    falling = dataclasses.replace(falling, high=1 / rising.low, low=1 / rising.high)
    for name in ("rsi_14", "di_14", "stoch_k", "cci_20", "williams_r_14", "position_100", "bollinger_position"):
        assert column(rising, name)[-1] > 0.3
        assert column(falling, name)[-1] < -0.3
    for of in ("trend", "momentum", "macro"):
        assert column(rising, f"{of}_high")[-1] > 0.95
        assert column(falling, f"{of}_low")[-1] > 0.95


def test_regime_memberships_are_probabilities():
    table = compute_features(crypto_bars(), ("regime",), WINDOW)
    states = table.values[table.min_bars - 1 :].reshape(-1, 4, 3)
    assert (states >= 0).all()
    np.testing.assert_allclose(states.sum(axis=2), 1.0, atol=1e-6)
    assert (states.max(axis=(0, 1)) > 0.6).all()  # each state is reached
    # z = 0: exp(0) over exp(0) + 2 exp(-1.5^2 / 2) = 1 / (1 + 2 * 0.324652) = 0.606316
    np.testing.assert_allclose(
        [p[0] for p in features._memberships(np.zeros(1))], [0.196842, 0.606316, 0.196842], atol=1e-6
    )


def test_intraday_features_follow_the_local_day():
    bars = session_bars()
    table = compute_features(bars, ("intraday",), WINDOW)
    zone = zoneinfo.ZoneInfo(bars.timezone)
    local = [dt.datetime.fromtimestamp(int(t), zone) for t in bars.time]
    assert {d.utcoffset() for d in local} == {dt.timedelta(hours=-5), dt.timedelta(hours=-4)}  # crosses the change
    day_return = np.array(
        [
            np.log(bars.close[t] / bars.open[next(i for i, d in enumerate(local) if d.date() == local[t].date())])
            for t in range(len(local))
        ]
    )
    for t in range(400, 440):
        today = [i for i in range(t + 1) if local[i].date() == local[t].date()]
        low, high = bars.low[today].min(), bars.high[today].max()
        angle = 2 * np.pi * (local[t].hour * 60 + local[t].minute) / 1440
        recent = day_return[t - WINDOW + 1 : t + 1]
        expected = [
            np.sin(angle),
            np.cos(angle),
            2 * (bars.close[t] - low) / (high - low) - 1,
            np.clip((day_return[t] - recent.mean()) / recent.std(ddof=1), -5, 5),
        ]
        np.testing.assert_allclose(table.values[t], expected, atol=1e-5)


def test_calendar_features_by_hand():
    # Friday 1 March 2024 20:00 New York is Saturday in UTC; the next bar comes 65 hours later, on Monday the 4th.
    friday = int(dt.datetime(2024, 3, 2, 1, tzinfo=dt.UTC).timestamp())
    time = friday + 3600 * np.array([-1, 0, 65])
    table = compute_features(make_bars(time, [1, 1, 1], timezone="America/New_York"), ("calendar",), WINDOW)
    week, month, day = 2 * np.pi / 7, 2 * np.pi / 12, 2 * np.pi / 31
    np.testing.assert_allclose(
        table.values[1], [np.sin(4 * week), np.cos(4 * week), np.sin(2 * month), np.cos(2 * month), 0, 1, 0], atol=1e-6
    )
    # 64 bars are missing; a week of 168 would read 1: log(65) / log(169) = 0.813737
    monday = [0, 1, np.sin(2 * month), np.cos(2 * month), np.sin(3 * day), np.cos(3 * day), 0.813737]
    np.testing.assert_allclose(table.values[2], monday, atol=1e-6)


def test_min_bars_is_enough_and_one_less_is_an_error():
    # technical: the 34 bars of MACD, 100 to settle and a window of 64; regime: 201 bars for 200 returns
    assert min_bars(("technical",), 64) == 34 + 100 + 63
    assert min_bars(("regime",), 64) == 201
    assert min_bars(("calendar",), 64) == 2
    for groups in (ALL, *((g,) for g in ALL)):
        need = min_bars(groups, WINDOW)
        table = compute_features(part(crypto_bars(), 0, need), groups, WINDOW)
        assert table.values[-1].any()
        if need > 2:
            with pytest.raises(DataError, match=rf"COIN: {need - 1} bars in test.csv.* need at least {need}$"):
                compute_features(part(crypto_bars(), 0, need - 1), groups, WINDOW)


def test_wrong_groups_and_windows_are_config_errors():
    with pytest.raises(ConfigError, match="unknown feature group 'tecnical'; did you mean 'technical'"):
        feature_names(("base", "tecnical"))
    with pytest.raises(ConfigError, match="each once"):
        feature_names(("base", "base"))
    with pytest.raises(ConfigError, match="at least one"):
        feature_names(())
    with pytest.raises(ConfigError, match="scale_window must be at least 2"):
        compute_features(crypto_bars(), ALL, 1)


@pytest.mark.parametrize(
    ("field", "row", "value"),
    [("close", 600, np.nan), ("close", 0, 0.0), ("high", 600, np.inf), ("low", 3, -1.0), ("volume", 899, np.nan)],
)
def test_unchecked_bars_do_not_become_silent_features(field, row, value):
    bars = crypto_bars()
    getattr(bars, field)[row] = value
    with pytest.raises(DataError, match=rf"COIN: {field} is {value} at bar {row} \(0-based\) of test.csv"):
        compute_features(bars, ALL, WINDOW)


def test_the_hash_pins_names_order_scaling_and_version(monkeypatch):
    names = feature_names(SIX)
    # A new digest here means that checkpoints of this version no longer fit: raise FEATURE_VERSION.
    assert feature_hash(names, 256) == "c2c98a4faf2f92c1370949b6434b6f02b4eb6f2bb457ce65da1d13914714dc6f"
    before = feature_hash(names, 256)
    assert feature_hash(names[::-1], 256) != before
    assert feature_hash(names, 255) != before
    monkeypatch.setattr(features, "FEATURE_VERSION", features.FEATURE_VERSION + 1)
    assert feature_hash(names, 256) != before


@pytest.mark.slow
def test_670_000_bars_take_seconds():
    bars = crypto_bars(670_000)
    begin = clock.process_time()
    compute_features(bars, ALL, 256)
    assert clock.process_time() - begin < 15.0  # 2.3 s on one core of an AMD EPYC
