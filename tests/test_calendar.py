"""Intervals, asset classes, local time and annualisation."""

import numpy as np
import pytest

from jaxppo.errors import ConfigError, DataError
from jaxppo.market.asset_classes import asset_class_of, guess_asset_class
from jaxppo.market.calendar import (
    bars_per_year,
    check_timezone,
    format_interval,
    local_fields,
    parse_interval,
    utc_offset_seconds,
)

HOUR, DAY = 3_600, 86_400


def utc(text: str) -> int:
    return int(np.datetime64(text, "s").astype(np.int64))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1m", 60), ("5m", 300), ("15min", 900), ("30m", 1800), ("1h", 3600), ("60m", 3600), ("4H", 14400), ("1d", 86400)]
    + [("1Day", 86400), ("daily", 86400), ("1wk", 604800), ("1w", 604800), ("M15", 900), ("H4", 14400), ("30s", 30)],
)
def test_interval_names(text: str, seconds: int) -> None:
    assert parse_interval(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "0h", "1x", "1M", "1mo", "-1h", "1.5h", "99999h", "1h1h"])
def test_other_intervals_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not understood: give a number and a unit .* such as 1m, 5m"):
        parse_interval(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(60, "1m"), (3600, "1h"), (5400, "90m"), (86400, "1d"), (604800, "1w"), (45, "45s")]
)
def test_intervals_are_written_in_the_largest_unit(seconds: int, text: str) -> None:
    assert format_interval(seconds) == text
    assert parse_interval(text) == seconds


@pytest.mark.parametrize(
    ("asset_class", "symbols"),
    [
        ("fx", "EURUSD EUR/USD EUR_USD EURUSD=X JPY=X EURUSD.pro usdjpy XAUUSD"),
        ("crypto", "BTCUSDT solusdt 1000PEPEUSDC ETHFDUSD BTC-USD BTC/USD BTCUSD ETHBTC BTC/USDT:USDT BTC-PERP XBTEUR"),
        ("equity", "AAPL SPY BRK-B BRK.B A BTC LINK FOO-USD USD 600519.SS"),
    ],
)
def test_asset_classes_are_guessed_from_the_spelling(asset_class: str, symbols: str) -> None:
    guessed = {symbol: guess_asset_class(symbol) for symbol in symbols.split()}
    assert guessed == dict.fromkeys(symbols.split(), asset_class)


def test_unknown_zones_and_classes_are_refused() -> None:
    check_timezone("EET")
    with pytest.raises(ConfigError, match=r"unknown time zone 'America/NewYork'.*'America/New_York'"):
        check_timezone("America/NewYork")
    with pytest.raises(ConfigError, match=r"unknown time zone '\+02:00'"):
        check_timezone("+02:00")
    with pytest.raises(ConfigError, match=r"unknown asset class 'stock'; valid names are 'crypto', 'equity', 'fx'"):
        asset_class_of("stock")


def test_local_time_follows_daylight_saving() -> None:
    # New York went from UTC-5 to UTC-4 on Sunday 2024-03-10 at 07:00 UTC, and back on 2024-11-03 at 06:00 UTC.
    time = np.array([utc(t) for t in ("2024-03-10T06:30", "2024-03-10T07:30", "2024-11-03T05:30", "2024-11-03T06:30")])
    assert utc_offset_seconds(time, "America/New_York").tolist() == [-18000, -14400, -14400, -18000]
    fields = local_fields(time, "America/New_York")
    assert fields["minute_of_day"].tolist() == [90, 210, 90, 90]  # 01:30, 03:30, 01:30 twice
    assert fields["weekday"].tolist() == [6] * 4
    assert fields["day_of_month"].tolist() == [10, 10, 3, 3]
    assert fields["month"].tolist() == [3, 3, 11, 11]
    assert fields["day_of_year"].tolist() == [70, 70, 308, 308]  # leap year: 31 + 29 + 10; 366 - 30 - 31 + 3
    assert all(values.dtype == np.int64 for values in fields.values())


def test_local_date_is_not_the_utc_date() -> None:
    fields = local_fields(np.array([utc("2024-01-01T03:00")]), "America/New_York")  # Sunday 2023-12-31 22:00
    assert {name: int(values[0]) for name, values in fields.items()} == {
        "minute_of_day": 22 * 60,
        "weekday": 6,
        "day_of_month": 31,
        "month": 12,
        "day_of_year": 365,
    }


def test_bars_per_year_of_sessions() -> None:
    # Ten days of seven bars from 09:00 New York and one half day of four: the median day has seven.
    days = utc("2024-01-02T14:00") + DAY * np.arange(11)
    time = np.concatenate([day + HOUR * np.arange(4 if i == 5 else 7) for i, day in enumerate(days)])
    assert bars_per_year(time, HOUR, "equity", "America/New_York") == 252 * 7


def test_bars_per_year_counts_local_days() -> None:
    # Eight bars from 18:00 New York, which is 23:00 UTC: six and two around local midnight, one and seven around UTC's.
    time = utc("2024-01-01T23:00") + HOUR * np.arange(8)
    assert bars_per_year(time, HOUR, "fx", "America/New_York") == 260 * 4  # median of 6 and 2
    assert bars_per_year(time[1:], HOUR, "fx", "America/New_York") == 260 * 3.5  # 5 and 2
    assert bars_per_year(time[1:], HOUR, "fx", "UTC") == 260 * 7


@pytest.mark.parametrize(
    ("interval", "asset_class", "expected"),
    [
        (HOUR, "crypto", 8766.0),
        (DAY, "equity", 252.0),
        (DAY, "fx", 260.0),
        (DAY, "crypto", 365.25),
        (7 * DAY, "equity", 365.25 / 7),
        (3 * DAY, "crypto", 121.75),
    ],
)
def test_bars_per_year_of_round_the_clock_and_longer_bars(interval: int, asset_class: str, expected: float) -> None:
    time = utc("2024-01-01") + interval * np.arange(24 * 10)
    assert bars_per_year(time, interval, asset_class, "UTC") == pytest.approx(expected, rel=1e-12)


def test_bars_per_year_needs_bars() -> None:
    with pytest.raises(DataError, match="without bars"):
        bars_per_year(np.array([], np.int64), HOUR, "fx", "UTC")
