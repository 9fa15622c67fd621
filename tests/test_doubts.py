"""Doubtful bars: what is said of each kind, that nothing is said of good ones, and that no mutation stays unseen."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers import tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.robustness import mutations
from benchmarks.robustness.loaders import findings_of, load
from benchmarks.robustness.mutations import CRYPTO, DAILY, EQUITY, FX, MUST_SHOW, PRICES, generated
from jaxppo.market.alignment import lagging_symbols
from jaxppo.market.bars import Bars, describe_symbols
from jaxppo.market.dataset import build_market
from jaxppo.market.doubts import Finding, in_brief, inspect_all, inspect_bars
from jaxppo.market.outliers import outlying_returns, rolling_scale, split_like
from jaxppo.market.synthetic import synthetic_market

HOUR = 3_600
SIZES = {CRYPTO: 2_200, FX: 2_200, EQUITY: 2_600, DAILY: 450}
SAMPLES = {name: generated(name, n) for name, n in SIZES.items()}


def loaded(frame: pl.DataFrame, name: str) -> list[Bars]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.parquet"
        frame.write_parquet(path)
        return load(path)[1]


def bars(name: str) -> Bars:
    (one,) = loaded(SAMPLES[name], name)
    return one


def changed(b: Bars, row: int | slice, **factors: float) -> Bars:
    """`b` with fields of a row, or of some rows, multiplied."""
    values = {field: getattr(b, field).copy() for field in factors}
    for field, factor in factors.items():
        values[field][row] *= factor
    return dataclasses.replace(b, **values)


def finding(b: Bars, kind: str) -> Finding:
    found = [f for f in inspect_bars(b).findings if f.kind == kind]
    assert len(found) == 1, found
    return found[0]


# Good bars


@pytest.mark.parametrize("name", SAMPLES)
def test_nothing_is_said_of_good_bars(name: str) -> None:
    report = inspect_bars(bars(name))
    assert report.findings == ()
    assert (report.verdict, report.gaps, report.missing, report.outliers) == ("ok", 0, 0, 0)
    # The edges of FX weekends and the afternoons of half days are not expected, though they are there.
    assert 0.95 * SIZES[name] < report.expected <= report.bars == SIZES[name]


def test_nothing_is_said_of_the_embedded_market() -> None:
    assert [f for b in synthetic_market(27, 8, 4_000) for f in inspect_bars(b).findings] == []


@pytest.mark.parametrize("n", [1, 2, 3, 21, 300])
@pytest.mark.parametrize("name", SAMPLES)
def test_short_and_flat_bars_can_be_inspected(name: str, n: int) -> None:
    b = bars(name)
    short = dataclasses.replace(b, **{k: getattr(b, k)[:n] for k in ("time", *PRICES, "volume")})
    assert inspect_bars(short).findings == ()
    flat = dataclasses.replace(short, **dict.fromkeys(PRICES, np.full(n, 5.0)))
    assert {f.kind for f in inspect_bars(flat).findings} == ({"stale"} if n >= 4 else set())


def test_inspection_changes_nothing() -> None:
    b = bars(CRYPTO)
    before = {k: getattr(b, k).copy() for k in ("time", *PRICES, "volume")}
    inspect_bars(b)
    assert all((getattr(b, k) == v).all() for k, v in before.items())


# Each kind


def test_gaps_say_how_many_and_where() -> None:
    (b,) = loaded(pl.concat([SAMPLES[CRYPTO][:700], SAMPLES[CRYPTO][703:]]), CRYPTO)
    f = finding(b, "gaps")
    assert (f.level, f.count, f.bar, f.time) == ("note", 1, 699, int(b.time[699]))
    assert f.text == (
        "3 of 2,200 expected bars are missing in 1 gap; the longest, of 3 bars, follows 2023-01-31 03:00:00 UTC (bar"
        " 699)"
    )
    # 12 of 2,200 are over half a percent.
    (b,) = loaded(pl.concat([SAMPLES[CRYPTO][:700], SAMPLES[CRYPTO][712:]]), CRYPTO)
    assert finding(b, "gaps").level == "doubtful"


def test_bars_closer_than_the_interval() -> None:
    b = bars(CRYPTO)
    time = b.time.copy()
    time[400] -= 1_800  # 399 begins half an hour before it, and 401 an hour and a half after it
    f = finding(dataclasses.replace(b, time=time), "spacing")
    assert (f.level, f.count, f.bar) == ("note", 1, 400)


def test_volume() -> None:
    volume = bars(EQUITY).volume.copy()
    volume[[5, 9]] = 0
    f = finding(dataclasses.replace(bars(EQUITY), volume=volume), "zero volume")
    assert (f.level, f.count, f.bar) == ("note", 2, 5)
    volume[100:130] = 0  # 32 of 2,600 are 1.2 %
    assert finding(dataclasses.replace(bars(EQUITY), volume=volume), "zero volume").level == "doubtful"
    for name, level in ((EQUITY, "doubtful"), (FX, "note")):
        b = bars(name)
        f = finding(dataclasses.replace(b, volume=np.zeros(len(b.time))), "zero volume")
        assert (f.level, f.text) == (level, "no bar has any volume")


@pytest.mark.parametrize(("length", "level"), [(3, None), (4, "note"), (10, "doubtful")])
def test_stale_prices(length: int, level: str | None) -> None:
    b = bars(CRYPTO)
    values = {k: getattr(b, k).copy() for k in PRICES}
    for v in values.values():
        v[200 : 200 + length] = v[200]
    found = [f for f in inspect_bars(dataclasses.replace(b, **values)).findings if f.kind == "stale"]
    assert [(f.level, f.bar, f.count) for f in found] == ([(level, 200, length - 1)] if level else [])


def test_scores_by_hand() -> None:
    # Returns of +-1 % in turn: the median of their sizes is log 1.01, the robust deviation 1.4826 log 1.01. A move of
    # 30 times log 1.01 has a score of 30 / 1.4826 = 20.23, and comes back with the next bar, by 30 less 1 of them.
    steps = np.where(np.arange(600) % 2 == 0, 1.0, -1.0)
    steps[300], steps[301] = 30.0, -31.0
    close = 100 * np.exp(np.log(1.01) * np.cumsum(steps))
    b = dataclasses.replace(bars(CRYPTO), time=3_600 * np.arange(600), **dict.fromkeys(PRICES, close))
    scores = outlying_returns(b)
    assert scores.score[300] == pytest.approx(30 / 1.4826)
    assert scores.score[100] == pytest.approx(1 / 1.4826)
    assert scores.back[300]
    assert scores.value[300] == pytest.approx(30 * np.log(1.01))
    # A quiet stretch is held against half of what is usual in all: 10 against a median of 10 over 3 of 4 quarters.
    sizes = np.concatenate((np.full(3_000, 10.0), np.full(1_000, 1.0)))
    assert rolling_scale(sizes)[[100, 3_900]].tolist() == [10.0, 5.0]


def test_bad_ticks_and_jumps() -> None:
    b = bars(CRYPTO)
    wick = finding(changed(b, 500, high=1.5), "bad ticks")
    assert (wick.level, wick.count, wick.bar) == ("doubtful", 1, 500)
    assert "a wick of +" in wick.text
    bar = finding(changed(b, 500, open=1.5, high=1.5, low=1.5, close=1.5), "bad ticks")
    assert (bar.level, bar.bar) == ("doubtful", 500)
    assert "a move taken back at once of +" in bar.text
    level = changed(b, slice(500, None), open=1.5, high=1.5, low=1.5, close=1.5)
    jump = finding(level, "jumps")
    assert jump.bar == 500
    assert not [f for f in inspect_bars(level).findings if f.kind == "bad ticks"]


@pytest.mark.parametrize(("factor", "name"), [(2.0, "1/2"), (1.5, "2/3"), (0.1, "10"), (7.0, "1/7"), (0.5, "2")])
def test_splits(factor: float, name: str) -> None:
    b = bars(DAILY)
    split = changed(b, slice(0, 222), **dict.fromkeys(PRICES, factor))
    f = finding(split, "splits")
    assert (f.level, f.count, f.bar) == ("doubtful", 1, 222)
    assert f"(near {name})" in f.text
    # The same fall that is made good within the month, and one in a day of ten times the usual range, are crashes.
    back = changed(split, slice(230, None), **dict.fromkeys(PRICES, factor))
    assert len(split_like(back)[0]) == 0
    wild = changed(split, 222, high=1.2, low=1 / 1.2)
    assert len(split_like(wild)[0]) == 0


def test_large_splits_are_called_so_whatever_else_the_day_brought() -> None:
    # A reverse split of 1:20 with a loss of a tenth beside it, in a day of ten times the usual range: x 18.
    for factor, name in ((1 / 18, "20"), (20.0, "1/20")):
        split = changed(bars(DAILY), slice(0, 222), **dict.fromkeys(PRICES, factor))
        f = finding(changed(split, 222, high=1.2, low=1 / 1.2), "splits")
        assert (f.level, f.count, f.bar) == ("doubtful", 1, 222)
        assert f"(near {name})" in f.text


def shifted(b: Bars, seconds: np.ndarray | int) -> Bars:
    return dataclasses.replace(b, time=b.time + seconds)


def test_sessions_that_move_with_the_season() -> None:
    local = pl.col("timestamp").dt.convert_time_zone("America/New_York").dt.replace_time_zone(None)
    (b,) = loaded(SAMPLES[EQUITY].with_columns(timestamp=local.dt.replace_time_zone("UTC")), EQUITY)
    f = finding(b, "time zone")
    assert f.level == "doubtful"
    assert "the times do not follow daylight saving" in f.text
    # In summer 09:00 of New York was written as 09:00 UTC, 05:00 there; in winter it is 04:00.
    assert "at 04:00 New York time in winter and 05:00 in summer" in f.text


def test_sessions_that_move_for_good() -> None:
    b = bars(EQUITY)
    f = finding(shifted(b, np.where(np.arange(len(b.time)) >= 1_400, -2 * HOUR, 0)), "time zone")
    assert "usually open at 09:00 New York time, but at 07:00" in f.text
    assert f.bar == 1_400


def test_sessions_of_another_place_or_on_the_weekend() -> None:
    assert (
        "sessions open at 04:00 New York time, not at 09:30"
        in finding(shifted(bars(EQUITY), -5 * HOUR), "time zone").text
    )
    assert "before 04:00 or after 20:00 New York" in finding(shifted(bars(EQUITY), -9 * HOUR), "time zone").text
    assert (
        "lie on the weekend (Friday 17:00 to Sunday 17:00 New York)"
        in finding(shifted(bars(FX), -3 * HOUR), "time zone").text
    )
    weekend = dataclasses.replace(bars(DAILY), time=1_704_067_200 + 86_400 * np.arange(450))
    assert "lie on Saturdays and Sundays" in finding(weekend, "time zone").text


def stamped(name: str, time: np.ndarray, **fields: object) -> Bars:
    """The first bars of `name` at other times."""
    b, n = bars(name), len(time)
    values = {field: getattr(b, field)[:n] for field in (*PRICES, "volume")}
    return dataclasses.replace(b, time=time.astype("datetime64[s]").astype(np.int64), **values, **fields)


def test_days_and_months_are_not_of_one_length() -> None:
    months = np.arange("2010-01", "2024-01", dtype="datetime64[M]")
    monthly = stamped(DAILY, months, interval=31 * 24 * HOUR)
    # Midnights of New York; the day on which clocks go forward has 23 hours.
    local = pl.Series(np.arange("2024-01-01", "2024-12-01", dtype="datetime64[D]")).cast(pl.Datetime("us"))
    midnights = local.dt.replace_time_zone("America/New_York").dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    daily = stamped(CRYPTO, midnights.to_numpy(), interval=24 * HOUR)
    for b in (monthly, daily):
        assert {f.kind for f in inspect_bars(b).findings} <= {"jumps", "bad ticks"}
    early = daily.time.copy()
    early[100] -= 12 * HOUR  # half a day after the bar before
    assert finding(dataclasses.replace(daily, time=early), "spacing").bar == 100


def test_days_of_another_place_that_begin_on_sunday() -> None:
    monday_to_friday = np.arange(250) // 5 * 7 + np.arange(250) % 5
    tokyo = np.datetime64("2024-01-01T00:00") + 24 * monday_to_friday.astype("timedelta64[h]") - np.timedelta64(9, "h")
    f = finding(stamped(DAILY, tokyo, timezone="America/New_York"), "time zone")
    assert f.count == 50  # one of five
    assert "lie on Saturdays and Sundays" in f.text
    assert f.remedy.startswith("write the dates of the market's own days")


@pytest.mark.parametrize(("gone", "place"), [("2024-03-10T02:00", "the USA"), ("2024-03-31T01:00", "Europe")])
def test_an_hour_that_a_clock_skipped(gone: str, place: str) -> None:
    b = bars(CRYPTO)
    start = int(np.datetime64("2024-03-01T00:00", "s").astype(np.int64))
    time = start + HOUR * np.arange(len(b.time) + 1)
    lost = dataclasses.replace(b, time=time[time != int(np.datetime64(gone, "s").astype(np.int64))])
    f = finding(lost, "time zone")
    assert f"just where the clock goes forward in {place}" in f.text
    other = dataclasses.replace(b, time=time[time != int(np.datetime64("2024-03-12T02:00", "s").astype(np.int64))])
    assert {x.kind for x in inspect_bars(other).findings} == {"gaps"}


@pytest.mark.parametrize("hours", [-7, 1, 12])
def test_a_symbol_whose_clock_is_off_beside_the_others(hours: int) -> None:
    # Four symbols that share half of the variance of their returns: each correlates with the others by 0.5.
    rng = np.random.default_rng(0)
    common, own = rng.standard_normal(2_000), rng.standard_normal((4, 2_000))
    time = 1_704_067_200 + HOUR * np.arange(2_000)
    group = []
    for i in range(4):
        close = 100 * np.exp(np.cumsum(0.003 * (common + own[i])))
        prices = dict(zip(PRICES, (close, close * 1.001, close / 1.001, close), strict=True))
        b = Bars(f"C{i}USDT", "crypto", HOUR, "UTC", time, **prices, volume=np.ones(2_000), source="x")
        group.append(b)
    assert lagging_symbols(group) == []
    group[2] = shifted(group[2], hours * HOUR)
    (lag,) = lagging_symbols(group)
    assert (lag.symbol, lag.hours, lag.others) == (2, hours, 3)
    assert lag.correlation == pytest.approx(0.5, abs=0.06)
    assert lag.at_once < 0.06
    reports = inspect_all(group)
    assert [r.verdict for r in reports] == ["ok", "ok", "doubtful", "ok"]
    when = "after" if hours > 0 else "before"
    assert (
        f"prices move {abs(hours)} hour{'s' * (abs(hours) > 1)} {when} those of the 3 other"
        in reports[2].findings[0].text
    )


@pytest.mark.parametrize(("name", "hours"), [(FX, 4), (EQUITY, 2), (CRYPTO, 4)])
def test_nothing_is_said_of_good_longer_bars(name: str, hours: int) -> None:
    frame = (
        SAMPLES[name]
        .group_by_dynamic("timestamp", every=f"{hours}h")
        .agg(
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.col("volume").sum(),
        )
    )
    (b,) = loaded(frame, name.replace("1h", f"{hours}h"))
    assert b.interval == hours * HOUR
    assert [f.text for f in inspect_bars(b).findings if f.kind != "jumps"] == []


# In brief


def test_a_run_is_told_in_a_few_lines() -> None:
    b = bars(CRYPTO)
    broken = changed(b, 500, high=1.5)
    holed = dataclasses.replace(b, **{k: np.delete(getattr(b, k), 300) for k in ("time", *PRICES, "volume")})
    many = [dataclasses.replace(broken, symbol=f"S{i}") for i in range(5)]
    lines = in_brief(map(inspect_bars, [*many, holed]), "bars/")
    assert lines == [
        "bad ticks in S0 (1, see 2023-01-22 20:00:00 UTC), S1 (1, see 2023-01-22 20:00:00 UTC), "
        "S2 (1, see 2023-01-22 20:00:00 UTC) and 2 more",
        "1 minor finding in the bars of 1 symbol (gaps); all of them, with remedies: python -m jaxppo.data check bars/",
    ]
    assert in_brief([inspect_bars(b)], "bars/") == []


# Mutations


@pytest.mark.parametrize("mutation", MUST_SHOW)
def test_what_changes_the_bars_is_refused_or_reported(mutation: str) -> None:
    function, kinds = MUST_SHOW[mutation]
    with tempfile.TemporaryDirectory() as folder:
        for name in kinds:
            path = Path(folder) / f"{name}.parquet"
            function(SAMPLES[name], np.random.default_rng(3)).write_parquet(path)
            outcome, after = load(path)
            assert outcome in ("error", "loaded")
            assert outcome == "error" or findings_of(after), f"{mutation} of {name} was not noticed"


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(MUST_SHOW)), st.sampled_from(sorted(SAMPLES)), st.integers(0, 2**31))
def test_no_mutation_is_silent(mutation: str, name: str, seed: int) -> None:
    function, kinds = MUST_SHOW[mutation]
    if name not in kinds:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.parquet"
        function(SAMPLES[name], np.random.default_rng(seed)).write_parquet(path)
        outcome, after = load(path)
    assert outcome == "error" or (outcome == "loaded" and findings_of(after))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(SAMPLES)), st.integers(0, 2**31))
def test_however_bars_are_written_they_are_the_same(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame = SAMPLES[name].head(300)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.csv"
        path.write_bytes(mutations.as_csv(frame, rng))
        parquet = Path(folder) / f"{name}.parquet"
        mutations.as_parquet(frame, rng, parquet)
        for outcome, (b,) in (load(path), load(parquet)):
            assert outcome == "loaded"
            assert b.time.tolist() == frame["timestamp"].dt.epoch("s").to_list()
            assert all(getattr(b, k).tolist() == frame[k].to_list() for k in (*PRICES, "volume"))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SAMPLES)), st.integers(0, 2**31), st.booleans())
def test_damaged_bytes_give_our_error_or_checked_bars(name: str, seed: int, csv: bool) -> None:
    rng = np.random.default_rng(seed)
    frame = SAMPLES[name].head(200)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}{'.csv' if csv else '.parquet'}"
        data = mutations.as_csv(frame, rng) if csv else mutations.as_parquet(frame, rng, path)
        path.write_bytes(mutations.damage(data, rng))
        outcome, after = load(path)
    assert outcome in ("error", "loaded"), outcome
    for b in after:
        assert np.isfinite(b.close).all()
        assert (np.diff(b.time) > 0).all()
        assert (b.low > 0).all()
        inspect_bars(b)


# Closes alone


def closes_alone(b: Bars, weekdays_gone: slice = slice(0, 0)) -> Bars:
    """`b` as one knows it from closes, without some of its bars."""
    keep = np.delete(np.arange(len(b.time)), weekdays_gone)
    flat = dict.fromkeys(("open", "high", "low", "close"), b.close[keep])
    return dataclasses.replace(b, symbol="WHEAT", time=b.time[keep], volume=np.zeros(len(keep)), **flat)


def test_closes_alone_are_a_note_and_no_warning() -> None:
    daily = closes_alone(bars(DAILY))
    report = inspect_bars(daily)
    assert [(f.kind, f.level) for f in report.findings] == [("closes alone", "note")]
    assert (report.verdict, report.zero_volume) == ("ok", 1.0)
    assert "fills at the next close, a bar late" in report.findings[0].remedy
    assert in_brief([report], "bars") == []
    told = describe_symbols([daily])
    assert told == [
        "class equity (not recognised, perhaps futures or indices: its fee, short selling and days a year hold): WHEAT",
        "closes alone, without range or volume (WHEAT): an order decided at a close fills at the next close, a bar"
        " late, and no stop-loss or take-profit can be hit within a bar",
    ]


def test_one_range_or_volume_makes_ordinary_bars_of_closes() -> None:
    daily = closes_alone(bars(DAILY))
    traded, ranged = daily.volume.copy(), daily.high.copy()
    traded[7], ranged[7] = 1.0, ranged[7] * 1.01
    for other in (dataclasses.replace(daily, volume=traded), dataclasses.replace(daily, high=ranged)):
        assert not other.closes_alone
        assert finding(other, "zero volume").level == "doubtful"
        assert describe_symbols([other]) == ["class equity (no pair of known currencies or coins): WHEAT"]


@pytest.mark.parametrize(
    ("gone", "level"), [(1, None), (2, None), (3, "note"), (5, "note"), (6, "doubtful"), (9, "doubtful")]
)
def test_holidays_of_closes_are_those_of_no_calendar(gone: int, level: str | None) -> None:
    # From a Monday on, so that one or two weekdays in a row are a holiday of some exchange, and a week may be.
    daily = bars(DAILY)
    monday = 100 + int(np.argmax((daily.time[100:] // 86_400 + 3) % 7 == 0))
    found = [f for f in inspect_bars(closes_alone(daily, slice(monday, monday + gone))).findings if f.kind == "gaps"]
    assert [f.level for f in found] == ([level] if level else [])
    if found:
        assert found[0].text.startswith(f"{gone} of {len(daily.time)} expected bars are missing in 1 gap")


@pytest.mark.parametrize(("run", "told"), [(9, False), (10, True)])
def test_a_few_equal_closes_are_usual(run: int, told: bool) -> None:
    daily = closes_alone(bars(DAILY))
    close = daily.close.copy()
    close[50 : 50 + run] = close[50]
    same = dataclasses.replace(daily, open=close, high=close, low=close, close=close)
    assert ("stale" in {f.kind for f in inspect_bars(same).findings}) == told


def test_levels_on_closes_alone_are_warned_of() -> None:
    hourly = [dataclasses.replace(closes_alone(b), symbol=b.symbol) for b in synthetic_market(0, 2, 900)]
    (said,) = build_market(hourly, tiny_config(stop_loss=0.02, take_profit=0.0), 8).split_warnings
    assert said.startswith(
        "stop_loss 0.02 on closes alone (SYN_A, SYN_B): a level is only seen to be passed at a close"
    )
    assert build_market(hourly, tiny_config(stop_loss=0.0, take_profit=0.0), 8).split_warnings == ()
