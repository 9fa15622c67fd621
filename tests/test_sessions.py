"""Which bars the calendar expects: holidays, sessions, weekends, and what is missing of them."""

from datetime import date

import numpy as np
import pytest

from benchmarks.robustness.mutations import CRYPTO, DAILY, EQUITY, FX, generated
from jaxppo.market.sessions import local_days, missing_bars, nyse_holidays

HOUR, DAY = 3_600, 86_400
NEW_YORK = "America/New_York"


def days(*names: str) -> list[int]:
    return [(date.fromisoformat(name) - date(1970, 1, 1)).days for name in names]


def utc(text: str) -> int:
    return int(np.datetime64(text, "s").astype(np.int64))


def times(name: str, n: int) -> np.ndarray:
    return generated(name, n)["timestamp"].dt.epoch("s").to_numpy()


def gaps(time: np.ndarray, interval: int, asset_class: str, timezone: str) -> list[tuple[int, int]]:
    """Start of the bar before each gap, and the bars missing."""
    missing = missing_bars(time, interval, asset_class, timezone)
    assert missing.expected >= missing.bars.sum()
    return list(zip(time[missing.after].tolist(), missing.bars.tolist(), strict=True))


@pytest.mark.parametrize(
    ("year", "names"),
    [
        # As the exchange published them. 2022: New Year's Day, a Saturday, was not kept; Juneteenth for the first time.
        (2022, "2022-01-17 2022-02-21 2022-04-15 2022-05-30 2022-06-20 2022-07-04 2022-09-05 2022-11-24 2022-12-26"),
        (
            2024,
            "2024-01-01 2024-01-15 2024-02-19 2024-03-29 2024-05-27 2024-06-19 2024-07-04 2024-09-02 2024-11-28 "
            "2024-12-25",
        ),
        # Before Martin Luther King Day; the funeral of President Nixon on 27 April.
        (
            1994,
            "1994-02-21 1994-04-01 1994-04-27 1994-05-30 1994-07-04 1994-09-05 1994-11-24 1994-12-26",
        ),
        (
            2012,
            "2012-01-02 2012-01-16 2012-02-20 2012-04-06 2012-05-28 2012-07-04 2012-09-03 2012-10-29 2012-10-30 "
            "2012-11-22 2012-12-25",
        ),
    ],
)
def test_holidays_of_the_exchange(year: int, names: str) -> None:
    first, last = days(f"{year}-01-01", f"{year}-12-31")
    closed, short = nyse_holidays(first, last)
    weekdays = [d for d in closed if first <= d <= last and (d + 3) % 7 < 5]
    assert weekdays == days(*names.split())
    assert not set(short) & set(closed)


def test_crypto_trades_always() -> None:
    time = times(CRYPTO, 1_000)
    assert gaps(time, HOUR, "crypto", "UTC") == []
    # Bars 100 to 102 and 500 are gone.
    holed = np.delete(time, [100, 101, 102, 500])
    assert gaps(holed, HOUR, "crypto", "UTC") == [(time[99], 3), (time[499], 1)]
    assert missing_bars(holed, HOUR, "crypto", "UTC").expected == 1_000


@pytest.mark.parametrize(("name", "asset_class"), [(FX, "fx"), (EQUITY, "equity")])
def test_nights_weekends_holidays_and_summer_time_are_no_gaps(name: str, asset_class: str) -> None:
    time = times(name, 3_000)
    assert gaps(time, HOUR, asset_class, NEW_YORK) == []


def test_a_hole_in_a_session_is_counted_in_bars_of_the_session() -> None:
    # Friday 5 January 2024, 09:00 to 15:00 New York is 14:00 to 20:00 UTC. From its bar of 18:00 to the Monday's of
    # 16:00 there lack Friday's of 19:00 and 20:00, Monday's of 14:00 and 15:00: 4; the weekend between lacks nothing.
    time = times(EQUITY, 3_000)
    holed = time[(time <= utc("2024-01-05T18:00")) | (time >= utc("2024-01-08T16:00"))]
    assert gaps(holed, HOUR, "equity", NEW_YORK) == [(utc("2024-01-05T18:00"), 4)]


def test_half_days_may_end_early_or_not() -> None:
    # Friday 24 November 2023, after Thanksgiving, closes at 13:00 New York, 18:00 UTC: the last bar starts at 17:00.
    time = times(EQUITY, 3_000)
    half = time[(time < utc("2023-11-24T18:00")) | (time > utc("2023-11-25T00:00"))]
    assert len(half) == len(time) - 3
    assert gaps(half, HOUR, "equity", NEW_YORK) == []
    assert gaps(half[half != utc("2023-11-24T16:00")], HOUR, "equity", NEW_YORK) == [(utc("2023-11-24T15:00"), 1)]


def test_a_whole_day_that_is_missing() -> None:
    time = times(DAILY, 400)
    gone = utc("2023-08-16T00:00")
    assert gaps(time, DAY, "equity", "UTC") == []
    assert gaps(time[time != gone], DAY, "equity", "UTC") == [(gone - DAY, 1)]
    hours = times(EQUITY, 2_000)
    kept = hours[hours // DAY != gone // DAY]
    assert gaps(kept, HOUR, "equity", NEW_YORK) == [(utc("2023-08-15T19:00"), 7)]


def test_the_fx_week() -> None:
    time = times(FX, 2_000)
    # Wednesday 8 March 2023, 10:00 to 13:00 UTC is gone; so is Thursday's bar of 22:00, which is 17:00 in New York.
    gone = [utc(f"2023-03-08T{h}:00") for h in (10, 11, 12, 13)] + [utc("2023-03-09T22:00")]
    holed = time[~np.isin(time, gone)]
    assert gaps(holed, HOUR, "fx", NEW_YORK) == [(utc("2023-03-08T09:00"), 4), (utc("2023-03-09T21:00"), 1)]
    # A broker that opens two hours late on Sundays and closes an hour early on Fridays.
    day, second = local_days(time, "fx", NEW_YORK)
    late = ((day + 3) % 7 == 0) & (second < 2 * HOUR)
    early = ((day + 3) % 7 == 4) & (second >= 23 * HOUR)
    assert gaps(time[~late & ~early], HOUR, "fx", NEW_YORK) == []


def test_another_exchange_keeps_its_own_holidays() -> None:
    # It trades on the holidays of New York, and is closed on two days that New York is not, and once for a week.
    weekdays = np.arange(*days("2022-01-03", "2023-12-29"))
    weekdays = weekdays[(weekdays + 3) % 7 < 5]
    own = days("2022-05-02", "2022-05-03", "2023-10-03")
    week = days("2023-02-06", "2023-02-07", "2023-02-08", "2023-02-09", "2023-02-10")
    time = weekdays[~np.isin(weekdays, own + week)] * DAY
    assert gaps(time, DAY, "equity", "UTC") == [(days("2023-02-03")[0] * DAY, 5)]


def test_bars_of_a_week_and_of_odd_intervals_are_counted_by_distance() -> None:
    weeks = 7 * DAY * np.delete(np.arange(2_700, 2_760), [10, 11])
    assert gaps(weeks, 7 * DAY, "equity", "UTC") == [(weeks[9], 2)]
    odd = 420 * np.delete(np.arange(4_000_000, 4_000_500), 100)  # seven minutes do not divide a day
    assert gaps(odd, 420, "crypto", "UTC") == [(odd[99], 1)]
    assert gaps(odd, 420, "equity", NEW_YORK) == []


@pytest.mark.parametrize("aligned", ["UTC", "server"])
def test_four_hours_of_fx_at_the_hours_of_utc_or_of_a_server(aligned: str) -> None:
    hours = times(FX, 3_000)
    shift = 0 if aligned == "UTC" else 2 * HOUR  # 22:00 UTC is midnight of Eastern Europe in winter
    time = np.unique((hours - shift) // (4 * HOUR) * 4 * HOUR + shift)
    assert gaps(time, 4 * HOUR, "fx", NEW_YORK) == []
    # 10 May 2023 is a Wednesday: its bars of 04:00 and 08:00 (06:00 and 10:00) UTC are gone.
    gone = utc("2023-05-10T04:00") + shift + 4 * HOUR * np.arange(2)
    assert gaps(time[~np.isin(time, gone)], 4 * HOUR, "fx", NEW_YORK) == [(gone[0] - 4 * HOUR, 2)]


def test_two_hours_of_equities_at_the_hours_of_utc() -> None:
    time = np.unique(times(EQUITY, 3_000) // (2 * HOUR) * 2 * HOUR)
    assert gaps(time, 2 * HOUR, "equity", NEW_YORK) == []
    # Wednesday 10 May 2023, 09:00 to 16:00 New York, is 13:00 to 20:00 UTC: bars of 12:00 to 18:00; 14:00 is gone.
    hole = utc("2023-05-10T14:00")
    assert gaps(time[time != hole], 2 * HOUR, "equity", NEW_YORK) == [(utc("2023-05-10T18:00"), 1)]
    day = time // DAY == hole // DAY
    assert gaps(time[~day], 2 * HOUR, "equity", NEW_YORK) == [(utc("2023-05-09T18:00"), int(day.sum()))]


@pytest.mark.parametrize("asset_class", ["crypto", "fx", "equity"])
@pytest.mark.parametrize("n", [1, 2])
def test_few_bars_are_enough(asset_class: str, n: int) -> None:
    time = utc("2024-03-05T15:00") + HOUR * np.arange(n)
    assert gaps(time, HOUR, asset_class, "UTC" if asset_class == "crypto" else NEW_YORK) == []
