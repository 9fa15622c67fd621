"""Volatility forecasts, the sizes made from them, and trend features, against plain loops and by hand."""

import dataclasses

import numpy as np
import pytest

from jaxppo.config.schema import EnvConfig, FeatureConfig
from jaxppo.errors import ConfigError
from jaxppo.market.features import compute_features, feature_groups, feature_names
from jaxppo.market.inputs import bar_inputs
from jaxppo.market.synthetic import synthetic_market
from jaxppo.market.trend import trend_group, trend_returns
from jaxppo.market.volatility import forecast_deviation, sizing_warm_up, volatility_sizes

SIZED = EnvConfig(size_by="volatility", max_exposure=2.0)


@pytest.fixture(scope="module")
def bars():
    return synthetic_market(3, 1, 900)[0]


def loop_deviation(close, span):
    """The formula of `forecast_deviation` term by term, in float64."""
    out, decay = np.zeros(len(close)), 1 - 2 / (span + 1)
    returns = [0.0, *(np.log(close[i] / close[i - 1]) for i in range(1, len(close)))]
    for t in range(2, len(close)):
        weights = [decay ** (t - i) for i in range(1, t + 1)]
        total = sum(weights)
        weights = [w / total for w in weights]
        mean = sum(w * r for w, r in zip(weights, returns[1 : t + 1], strict=True))
        square = sum(w * (r - mean) ** 2 for w, r in zip(weights, returns[1 : t + 1], strict=True))
        out[t] = np.sqrt(square / (1 - sum(w * w for w in weights)))
    return out


@pytest.mark.parametrize("span", [2, 7, 60])
def test_the_forecast_is_that_of_a_plain_loop(bars, span):
    close = bars.close[:150]
    np.testing.assert_allclose(forecast_deviation(np.log(close), span), loop_deviation(close, span), rtol=1e-10)


def test_a_forecast_sees_no_bar_of_the_future_and_no_price_unit(bars):
    close = bars.close.copy()
    before = volatility_sizes(close, 8766.0, SIZED)
    close[500:] *= np.linspace(1.5, 3.0, len(close) - 500)
    np.testing.assert_array_equal(volatility_sizes(close, 8766.0, SIZED)[:500], before[:500])
    assert (volatility_sizes(close, 8766.0, SIZED)[500:] != before[500:]).all()
    np.testing.assert_allclose(volatility_sizes(bars.close * 1000, 8766.0, SIZED), before, rtol=1e-9)
    np.testing.assert_array_equal(volatility_sizes(bars.close[:300], 8766.0, SIZED), before[:300])


def test_sizes_by_hand():
    # +-1 % in turn: the forecast tends to 1 % a bar, over 252 bars 15.87 % a year; 15 % of it is .945.
    steady = 100 * np.exp(0.01 * (np.arange(2000) % 2))
    sizes = volatility_sizes(steady, 252.0, SIZED)
    assert sizes[-1] == pytest.approx(0.15 / (0.01 * np.sqrt(252)), rel=0.02)
    half = volatility_sizes(steady, 252.0, dataclasses.replace(SIZED, target_volatility=0.075))
    assert half[-1] == pytest.approx(sizes[-1] / 2)
    # A market that has not moved is sized at the cap, not beyond.
    np.testing.assert_array_equal(volatility_sizes(np.full(80, 7.0), 252.0, SIZED), np.full(80, 2.0))
    assert volatility_sizes(steady, 252.0, EnvConfig()) is None
    assert (sizing_warm_up(SIZED), sizing_warm_up(EnvConfig())) == (61, 1)


def test_trend_returns_by_hand(bars):
    m = bar_inputs(bars)
    forecast = loop_deviation(bars.close[:400], 60)[-1]
    for n, column in zip((1, 5, 252), trend_returns(m, (1, 5, 252)), strict=True):
        wanted = np.log(bars.close[399] / bars.close[399 - n]) / (forecast * np.sqrt(n))
        assert column[399] == pytest.approx(np.clip(wanted, -5, 5), rel=1e-9)


def test_horizons_are_settable_and_name_the_features(bars):
    config = FeatureConfig(features=("trend", "base"), trend_returns=(2, 500), trend_macd=(4,))
    groups = feature_groups(config)
    assert feature_names(groups)[:3] == ("trend_return_2", "trend_return_500", "trend_macd_4_12")
    table = compute_features(bars, groups, 64)
    assert table.min_bars == 501  # the longest return
    assert trend_group().lookback == 63 + 252 - 1  # MACD in deviations
    assert trend_group((1,), ()).lookback == 61  # the forecast
    assert trend_group((1,), (50,)).lookback == 450  # three times the slow average of 150 bars
    default = feature_names(feature_groups(FeatureConfig(features=("trend",))))
    assert default == feature_names(("trend",))
    assert len(default) == 9


def test_trend_is_the_same_for_a_market_of_another_volatility(bars):
    # Log returns times 3: returns over deviations do not change. MACD is of prices, so it does a little.
    loud = dataclasses.replace(bars, close=np.exp(3 * np.log(bars.close / bars.close[0])))
    one, three = (trend_returns(bar_inputs(b)) for b in (bars, loud))
    np.testing.assert_allclose(one, three, rtol=1e-6, atol=1e-9)


def test_an_older_start_is_nearly_forgotten():
    bars = synthetic_market(5, 1, 3000)[0]
    rows = {k: getattr(bars, k)[1000:] for k in ("time", "open", "high", "low", "close", "volume")}
    late = compute_features(dataclasses.replace(bars, **rows), ("trend",), 64)
    whole = compute_features(bars, ("trend",), 64).values[1000:]
    assert np.abs(late.values[-800:] - whole[-800:]).max() < 1e-3


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"trend_returns": (0, 5)}, r"trend_returns: horizons are whole bars of at least 1, each once; got \[0, 5\]"),
        ({"trend_macd": (8, 8)}, r"trend_macd: horizons are whole bars of at least 2, each once; got \[8, 8\]"),
        ({"trend_returns": (), "trend_macd": ()}, "both empty"),
    ],
)
def test_horizons_that_are_none(fields, said):
    with pytest.raises(ConfigError, match=said):
        feature_groups(FeatureConfig(features=("trend",), **fields))
