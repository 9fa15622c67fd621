"""Intervals, asset classes, local time and annualisation."""

import numpy as np
import pytest

from jaxppo.errors import ConfigError, DataError
from jaxppo.market.asset_classes import asset_class_of, guess_asset_class
from jaxppo.market.calendar import (
    bars_per_year,
    check_timezone,
    format_interval,
    joint_bars_per_year,
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


NEW_YORK = "America/New_York"


def weekdays(n_weeks: int, days: int = 5, hours: int = 1) -> np.ndarray:
    """Hourly bars from 00:00 UTC on the first `days` of each week from Monday 2024-01-01 on."""
    day = (np.arange(n_weeks)[:, None] * 7 + np.arange(days)).ravel()
    return (utc("2024-01-01") + DAY * day[:, None] + HOUR * np.arange(hours)).ravel()


def test_bars_per_year_of_sessions() -> None:
    # Ten days of seven bars from 09:00 New York and one half day of four: most days have seven.
    days = utc("2024-01-02T14:00") + DAY * np.arange(11)
    time = np.concatenate([day + HOUR * np.arange(4 if i == 5 else 7) for i, day in enumerate(days)])
    assert bars_per_year(time, HOUR, "equity", NEW_YORK) == 252 * 7
    # The first day and the last say nothing of whole days where others lie between.
    assert bars_per_year(time[3:16], HOUR, "equity", NEW_YORK) == 252 * 7


@pytest.mark.parametrize("length", [1, 5, 48, 24 * 30])
def test_bars_per_year_of_a_market_without_closing_do_not_depend_on_the_window(length: int) -> None:
    for start in ("2024-01-01T12:00", "2024-01-06T00:00"):  # a Monday noon, a Saturday
        hours = utc(start) + HOUR * np.arange(length)
        assert bars_per_year(hours, HOUR, "crypto", "UTC") == 8766  # 365.25 x 24
        assert bars_per_year(hours // 60, 60, "crypto", "UTC") == 525_960
        assert bars_per_year(4 * hours, 4 * HOUR, "crypto", "UTC") == 2191.5
    # A night of FX, from 18:00 New York: 24 hours on 260 days all the same.
    assert bars_per_year(utc("2024-01-01T23:00") + HOUR * np.arange(8), HOUR, "fx", NEW_YORK) == 6240


@pytest.mark.parametrize(
    ("time", "interval", "asset_class", "expected"),
    [
        (weekdays(52), DAY, "equity", 252.0),
        (weekdays(52), DAY, "fx", 260.0),
        (weekdays(52, 7), DAY, "crypto", 365.25),
        # Other weeks than the class has: six days, five and seven of them in each of 365.25 / 7 = 52.18 weeks.
        (weekdays(520, 6), DAY, "fx", 6 * 365.25 / 7),  # 313.07
        (weekdays(10), DAY, "crypto", 5 * 365.25 / 7),  # 260.89
        (weekdays(10, 7), DAY, "equity", 365.25),
        (weekdays(10, 5, 24), HOUR, "crypto", 5 * 24 * 365.25 / 7),
        (weekdays(5, 6), DAY, "fx", 6 * 365.25 / 7),
        (weekdays(4, 6), DAY, "fx", 260.0),  # three whole weeks do not tell
        # Six bars on each of five days and one on Sunday, as FX has in bars of 4 hours of UTC.
        (
            np.sort(np.concatenate((weekdays(80, 5, 24)[::4], weekdays(80)[::5] - 4 * HOUR))),
            4 * HOUR,
            "fx",
            31 * 365.25 / 7,
        ),
        (weekdays(520, 1), 7 * DAY, "equity", 365.25 / 7),
        (weekdays(40, 7)[::3], 3 * DAY, "crypto", 121.75),
    ],
)
def test_bars_per_year_of_other_weeks(time: np.ndarray, interval: int, asset_class: str, expected: float) -> None:
    assert bars_per_year(time, interval, asset_class, "UTC") == pytest.approx(expected, rel=1e-12)


def test_bars_per_year_of_months() -> None:
    months = np.arange("2012-01", "2022-02", dtype="datetime64[M]").astype("datetime64[s]").astype(np.int64)
    # 120 steps in the 3,653 days from 2012-01-01 to 2022-01-01, three leap years.
    assert bars_per_year(months, 31 * DAY, "equity", "UTC") == pytest.approx(120 / 3653 * 365.25, rel=1e-12)


def test_holes_and_holidays_do_not_move_bars_per_year() -> None:
    days = weekdays(200)
    assert bars_per_year(np.delete(days, np.arange(300, 700)), DAY, "equity", "UTC") == 252  # 80 weeks are missing
    six = weekdays(200, 6)
    assert bars_per_year(np.delete(six, np.arange(300, 600)), DAY, "fx", "UTC") == pytest.approx(6 * 365.25 / 7)
    # Two bars five weeks apart: one in the only week that is not a hole.
    assert bars_per_year(utc("2024-01-01") + DAY * np.array([0, 35]), DAY, "crypto", "UTC") == pytest.approx(
        52.18, 1e-3
    )
    # Christmas and New Year: 8 bars in the two weeks from 2019-12-23, where ten would be usual.
    christmas = utc("2019-12-23") + DAY * np.array([0, 1, 3, 4, 7, 8, 10, 11])
    assert bars_per_year(christmas, DAY, "equity", "UTC") == 252


def test_bars_per_year_that_symbols_share() -> None:
    year = int(365.25 * DAY)
    time = np.array([0, year // 2, 2 * year])
    # A symbol that has all bars says how many a year has; two that share them out do not: 2 steps in 2 years.
    assert joint_bars_per_year(time, np.array([260.0, 252.0]), np.array([2, 3])) == 252
    assert joint_bars_per_year(time, np.array([260.0, 252.0]), np.array([2, 2])) == 1
    # 99 of 100 bars, at 252 a year: 252 / .99.
    assert joint_bars_per_year(DAY * np.arange(100), np.array([252.0, 9.0]), np.array([99, 50])) == pytest.approx(
        252 / 0.99
    )


def test_bars_per_year_needs_bars() -> None:
    with pytest.raises(DataError, match="without bars"):
        bars_per_year(np.array([], np.int64), HOUR, "fx", "UTC")
