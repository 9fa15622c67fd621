"""Longer bars made of shorter ones: by hand over changes of the clock, against pandas, never of what is not over."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from jaxppo.config.schema import DataConfig
from jaxppo.errors import ConfigError, DataError
from jaxppo.market.bars import Bars, slice_bars
from jaxppo.market.calendar import DAY, HOUR, WEEK
from jaxppo.market.resample import buckets, parse_longer, resample
from jaxppo.market.source import load_market_bars

FIELDS = ("time", "open", "high", "low", "close", "volume")


def utc(*texts: str) -> np.ndarray:
    return np.array([np.datetime64(t, "s").astype(np.int64) for t in texts])


def bars_at(time: np.ndarray, interval: int = HOUR, asset_class: str = "crypto", timezone: str = "UTC") -> Bars:
    """Bar i opens at 100 + i, closes at 100.5 + i, reaches from 100 - i / 10 to 102 + i, and has a volume of i."""
    i = np.arange(len(time), dtype=np.float64)
    prices = (100 + i, 102 + i, 100 - i / 10, 100.5 + i)
    return Bars("AAA", asset_class, interval, timezone, np.asarray(time, np.int64), *prices, i, "a.csv")


def session(day: str, summer: bool, hours: range = range(7), open_at: int = 9 * HOUR + 1800) -> np.ndarray:
    """Starts of the hours of a New York day that opens at 09:30."""
    return utc(day)[0] + open_at + (4 if summer else 5) * HOUR + HOUR * np.array(list(hours))


def times(bars: Bars) -> list[str]:
    return [str(np.datetime64(int(t), "s"))[:16] for t in bars.time]


def test_parts_of_a_day_of_an_exchange_begin_with_its_session_in_summer_and_winter() -> None:
    # Clocks went forward on Sunday, 10 March 2024: New York's 09:30 is 14:30 UTC on Friday and 13:30 on Monday.
    days = ["2024-03-01", "2024-03-04", "2024-03-05", "2024-03-06", "2024-03-07", "2024-03-08"]
    time = np.concatenate([*(session(d, False) for d in days), session("2024-03-11", True)])
    bars = bars_at(time, asset_class="equity", timezone="America/New_York")
    four = resample(bars, 4 * HOUR)
    assert times(four)[-4:] == ["2024-03-08T14:30", "2024-03-08T18:30", "2024-03-11T13:30", "2024-03-11T17:30"]
    # Monday is bars 42 to 48: the first four, and the three that are left until 16:00, which the days before ended by.
    assert [getattr(four, f)[-2] for f in FIELDS[1:]] == [142, 147, 95.5, 145.5, 42 + 43 + 44 + 45]
    assert [getattr(four, f)[-1] for f in FIELDS[1:]] == [146, 150, 95.2, 148.5, 46 + 47 + 48]
    daily = resample(bars, DAY)
    assert times(daily) == [f"{d}T00:00" for d in (*days, "2024-03-11")]
    assert (daily.timezone, daily.interval) == ("UTC", DAY)
    assert (daily.open[-1], daily.close[-1], daily.volume[-1]) == (142, 148.5, sum(range(42, 49)))
    # Without its last hour Monday is not over, and its afternoon neither; its morning is.
    short = slice_bars(bars, slice(-1))
    assert times(resample(short, DAY))[-1] == "2024-03-08T00:00"
    assert times(resample(short, 4 * HOUR))[-1] == "2024-03-11T13:30"


def test_bars_of_full_hours_are_counted_from_nine() -> None:
    time = np.concatenate([session(f"2024-07-0{d}", True, open_at=9 * HOUR) for d in (1, 2)])
    assert times(resample(bars_at(time, asset_class="equity", timezone="America/New_York"), 4 * HOUR)) == [
        "2024-07-01T13:00", "2024-07-01T17:00", "2024-07-02T13:00",  # what began at 17:00 is not known to be over
    ]  # fmt: skip


def test_a_half_day_is_over_when_the_next_day_begins() -> None:
    days = ["2024-11-21", "2024-11-22", "2024-11-25", "2024-11-26", "2024-11-27"]
    time = np.concatenate([*(session(d, False) for d in days), session("2024-11-29", False, range(4))])
    bars = bars_at(time, asset_class="equity", timezone="America/New_York")
    assert times(resample(bars, DAY))[-1] == "2024-11-27T00:00"
    later = bars_at(np.append(time, session("2024-12-02", False)[0]), asset_class="equity", timezone="America/New_York")
    daily = resample(later, DAY)
    assert (times(daily)[-1], daily.open[-1], daily.close[-1]) == ("2024-11-29T00:00", 135, 138.5)
    assert times(resample(later, WEEK)) == ["2024-11-18T00:00", "2024-11-25T00:00"]


def test_a_week_is_over_with_the_last_day_that_the_exchange_is_open() -> None:
    # 29 March 2024 was Good Friday.
    days = ["2024-03-20", "2024-03-21", "2024-03-22", "2024-03-25", "2024-03-26", "2024-03-27", "2024-03-28"]
    bars = bars_at(np.concatenate([session(d, True) for d in days]), asset_class="equity", timezone="America/New_York")
    assert times(resample(bars, WEEK)) == ["2024-03-18T00:00", "2024-03-25T00:00"]
    assert times(resample(slice_bars(bars, slice(-1)), WEEK)) == ["2024-03-18T00:00"]


def test_days_of_fx_end_at_17_new_york_and_weeks_on_friday() -> None:
    # From Sunday, 3 March, 17:00 New York (22:00 UTC) to Friday 17:00, and after the clocks went forward 21:00 UTC.
    weeks = [np.arange(*utc("2024-03-03T22:00", "2024-03-08T22:00"), HOUR)]
    weeks += [np.arange(*utc("2024-03-10T21:00", "2024-03-15T21:00"), HOUR)]
    bars = bars_at(np.concatenate(weeks), asset_class="fx", timezone="America/New_York")
    four, daily, weekly = resample(bars, 4 * HOUR), resample(bars, DAY), resample(bars, WEEK)
    assert len(four.time) == 60
    assert [times(four)[i] for i in (0, 1, 29, 30, 59)] == [
        "2024-03-03T22:00", "2024-03-04T02:00", "2024-03-08T18:00", "2024-03-10T21:00", "2024-03-15T17:00",
    ]  # fmt: skip
    assert times(daily) == [f"2024-03-{d:02}T00:00" for d in (4, 5, 6, 7, 8, 11, 12, 13, 14, 15)]
    assert (daily.open[5], daily.close[5]) == (220, 243.5)  # Sunday evening's hours are Monday's
    assert times(weekly) == ["2024-03-04T00:00", "2024-03-11T00:00"]
    assert (weekly.open[1], weekly.close[1]) == (220, 339.5)
    assert times(resample(daily, WEEK)) == times(weekly)
    np.testing.assert_array_equal(resample(daily, WEEK).high, weekly.high)
    # A broker that dates Sunday evening as a day of its own: it belongs to the week that begins.
    sundays = bars_at(utc(*(f"2024-03-{d:02}" for d in (8, 10, 11, 12, 13, 14, 15))), DAY, "fx")
    assert resample(sundays, WEEK).open[-1] == 101


def test_what_comes_after_a_day_that_was_over_goes_into_the_next() -> None:
    days = [f"2024-07-{d:02}" for d in (8, 9, 10, 11, 12, 15, 16)]
    hours = [range(7)] * 5 + [range(8), range(7)]  # on the sixth an hour after the latest end so far
    time = np.concatenate([session(d, True, h) for d, h in zip(days, hours, strict=True)])
    daily = resample(bars_at(time, asset_class="equity", timezone="America/New_York"), DAY)
    assert times(daily)[-2:] == ["2024-07-12T00:00", "2024-07-15T00:00"]  # 16 July may last as long as the 15th did
    assert (daily.open[-1], daily.close[-1]) == (135, 141.5)
    later = bars_at(np.append(time, session("2024-07-17", True)[0]), asset_class="equity", timezone="America/New_York")
    daily = resample(later, DAY)
    assert (times(daily)[-1], daily.open[-1], daily.close[-1]) == ("2024-07-16T00:00", 142, 149.5)
    # Twenty days on, that late hour is forgotten: the last of them is over with its usual last bar.
    more = [session(str(d), True) for d in np.arange("2024-07-17", "2024-08-14", dtype="M8[D]") if np.is_busday(d)]
    month = bars_at(np.concatenate([time, *more]), asset_class="equity", timezone="America/New_York")
    assert times(resample(month, DAY))[-1] == "2024-08-13T00:00"


@pytest.mark.parametrize("asset_class", ["crypto", "equity", "fx"])
@pytest.mark.parametrize("seconds", [4 * HOUR, DAY, WEEK])
def test_bars_of_a_history_that_ends_early_are_the_first_of_the_whole(asset_class: str, seconds: int) -> None:
    rng = np.random.default_rng([seconds, len(asset_class)])
    time = utc("2024-02-20T00:00")[0] + HOUR * np.flatnonzero(rng.random(24 * 40) < 0.7)
    zone = "UTC" if asset_class == "crypto" else "America/New_York"
    noise = np.exp(rng.normal(size=len(time)))
    bars = replace(bars_at(time, asset_class=asset_class, timezone=zone), volume=noise, high=102 + noise)
    whole, known = resample(bars, seconds), buckets(bars, seconds).known
    assert (np.diff(whole.time) > 0).all()
    assert len(known) == len(whole.time) > 2
    for end in range(int(known[0]) + 1, len(time) + 1, 7):
        part, n = resample(slice_bars(bars, slice(end)), seconds), int((known < end).sum())
        for field in FIELDS:
            np.testing.assert_array_equal(getattr(part, field), getattr(whole, field)[:n])


def test_round_the_clock_it_is_what_pandas_makes() -> None:
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    time = utc("2024-01-01T00:00")[0] + HOUR * np.flatnonzero(rng.random(24 * 70) < 0.8)
    bars = bars_at(time)
    frame = pd.DataFrame({f: getattr(bars, f) for f in FIELDS[1:]}, index=pd.to_datetime(time, unit="s"))
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    for seconds, rule in ((4 * HOUR, "4h"), (DAY, "1D"), (WEEK, "W-SUN")):
        made = (
            frame.resample(rule, **({"label": "left", "closed": "right"} if rule == "W-SUN" else {})).agg(how).dropna()
        )
        if rule == "W-SUN":  # weeks of pandas end on Sunday and are labelled by the Sunday before
            made = frame.groupby(frame.index.to_period("W-SUN")).agg(how)
            made.index = made.index.start_time
        found = resample(bars, seconds)
        n = len(found.time)
        assert len(made) - n in (0, 1)  # the last one is not over
        np.testing.assert_array_equal(found.time, made.index.astype("datetime64[s]").astype("int64")[:n])
        for field in FIELDS[1:]:
            np.testing.assert_array_equal(getattr(found, field), made[field].to_numpy()[:n])


def test_what_cannot_be_made_is_refused() -> None:
    bars = bars_at(utc("2024-01-01T00:00")[0] + HOUR * np.arange(30))
    assert resample(bars, HOUR) is bars
    for seconds, want in ((1800, "30m"), (90 * 60, "90m")):
        with pytest.raises(DataError, match=f"a.csv: bars of 1h of AAA cannot be made into bars of {want}"):
            resample(bars, seconds)
    with pytest.raises(DataError, match=r"a.csv: 3 bars of 1h of AAA hold no complete one of 4h"):
        resample(slice_bars(bars, slice(3)), 4 * HOUR)
    for text in ("5h", "2d", "2w"):
        with pytest.raises(ConfigError, match=f"resample: '{text}' is no even part of a day"):
            parse_longer(text, "resample")
    joined = replace(bars, seams=(2, 9))
    assert resample(joined, 4 * HOUR).seams == (1, 3)


def test_a_configuration_makes_its_bars_longer() -> None:
    bars, _ = load_market_bars(DataConfig(resample="4h"))
    assert bars[0].interval == 4 * HOUR
    assert bars[0].source.endswith("(1h made into 4h)")
    assert len(bars) == 8
