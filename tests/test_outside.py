"""Features from elsewhere: a row is seen from the close on at which it was known, and never before."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers import tiny_config, tiny_market

from jaxppo.check.lookahead import check_lookahead
from jaxppo.check.parity import check_parity
from jaxppo.check.run import Checker, CheckOptions
from jaxppo.config.schema import Config
from jaxppo.errors import CheckpointError, ConfigError, DataError
from jaxppo.market.bars import Bars
from jaxppo.market.calendar import DAY, HOUR
from jaxppo.market.features import compute_features, feature_groups
from jaxppo.market.outside import Outside, Span, parse_span, read_outside
from jaxppo.market.recipe import feature_recipe
from jaxppo.market.sessions import close_times
from jaxppo.market.synthetic import synthetic_market
from jaxppo.ppo.checks import check_program
from jaxppo.train.resume import require_same_data


def a_bars(
    time: np.ndarray, interval: int, asset_class: str = "crypto", timezone: str = "UTC", symbol: str = "AAA"
) -> Bars:
    one = np.ones(len(time))
    return Bars(symbol, asset_class, interval, timezone, np.asarray(time, np.int64), one, one, one, one, one, "a.csv")


def utc(text: str) -> int:
    return int(np.datetime64(text, "s").astype(np.int64))


def read(folder: Path, text: str, timezone: str | None = None, **given: object) -> Outside:
    (folder / "extra.csv").write_text(text)
    config = tiny_config(extra_features=str(folder / "extra.csv"), extra_scale="none", **given)
    found = read_outside(config.features, timezone)
    assert found is not None
    return found


# When a row is seen


def test_a_value_known_at_the_close_is_seen_there_and_one_of_a_second_later_is_not(tmp_path: Path) -> None:
    bars = a_bars(utc("2024-01-01T00:00") + HOUR * np.arange(6), HOUR)
    # Bar 0 closes at 01:00:00. 02:00:01 is a second after bar 1 closes; 04:00 is when bar 3 closes and bar 4 begins.
    text = "timestamp,symbol,x\n2024-01-01T01:00:00Z,AAA,10\n2024-01-01T02:00:01Z,AAA,20\n2024-01-01T04:00:00Z,AAA,30\n"
    values, first = read(tmp_path, text).features(bars)
    np.testing.assert_array_equal(values[:, 0], [10, 10, 20, 30, 30, 30])
    assert first == 0
    values, first = read(tmp_path, text, extra_delay="1").features(bars)
    np.testing.assert_array_equal(values[:, 0], [0, 10, 10, 20, 30, 30])
    assert first == 1
    values, first = read(tmp_path, text, extra_delay="59m").features(bars)  # known at 01:59, 03:00:01 - 60 s, 04:59
    np.testing.assert_array_equal(values[:, 0], [0, 10, 20, 20, 30, 30])
    assert first == 1


def test_rows_are_joined_as_a_loop_over_bars_and_rows_joins_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    begin = utc("2024-01-01T00:00")
    bars = a_bars(begin + HOUR * np.sort(rng.choice(300, 200, replace=False)), HOUR)
    known = np.sort(rng.choice(np.arange(-5 * HOUR, 300 * HOUR, 900), 150, replace=False)) + begin
    rows = "\n".join(f"{t},AAA,{i}" for i, t in enumerate(known))
    for delay, seconds, late in (("0", 0, 0), ("2", 0, 2), ("90m", 5400, 0)):
        joined = read(tmp_path, f"time,ticker,x\n{rows}\n", extra_delay=delay).join(bars)
        for t in range(len(bars.time)):
            at = t - late
            seen = [i for i, k in enumerate(known) if at >= 0 and k + seconds <= bars.time[at] + HOUR]
            assert joined.row[t] == (seen[-1] if seen else -1)


def test_dates_are_known_when_the_trading_day_is_over(tmp_path: Path) -> None:
    text = "date,symbol,x\n2024-01-04,AAA,4\n2024-01-05,AAA,5\n"
    days = a_bars(utc("2024-01-04") + DAY * np.arange(3), DAY)
    np.testing.assert_array_equal(read(tmp_path, text).features(days)[0][:, 0], [4, 5, 5])
    # New York's 4 January ends at 05:00 UTC on the 5th: the bar of 04:00 to 05:00 is the first to know.
    hours = a_bars(utc("2024-01-05T02:00") + HOUR * np.arange(4), HOUR, "equity", "America/New_York")
    assert read(tmp_path, text).features(hours)[1] == 2
    # The FX day of 4 January ends at 17:00 New York, 22:00 UTC; the daily bar that is named after it closes then.
    hours = a_bars(utc("2024-01-04T20:00") + HOUR * np.arange(4), HOUR, "fx", "America/New_York")
    assert read(tmp_path, text).features(hours)[1] == 1
    days = dataclasses.replace(days, asset_class="fx")
    assert close_times(days)[0] == utc("2024-01-04T22:00")
    np.testing.assert_array_equal(read(tmp_path, text).features(days)[0][:, 0], [4, 5, 5])
    late = "timestamp,symbol,x\n2024-01-03T00:00:00Z,AAA,3\n2024-01-04T22:00:01Z,AAA,4\n"  # as the next day has begun
    np.testing.assert_array_equal(read(tmp_path, late).features(days)[0][:, 0], [3, 4, 4])
    summer = dataclasses.replace(days, time=days.time + 182 * DAY)  # from Thursday 4 July 2024 on, 21:00 UTC
    assert close_times(summer)[0] == utc("2024-07-04T21:00")


def test_a_bar_is_never_over_after_the_next_begins() -> None:
    months = a_bars(np.array([utc(t) for t in ("2024-01-01", "2024-02-01", "2024-03-01")]), 31 * DAY)
    np.testing.assert_array_equal(close_times(months)[:2], months.time[1:])


def test_naive_times_are_of_the_zone_that_is_said(tmp_path: Path) -> None:
    text = "timestamp,symbol,x\n2024-01-04 16:00,AAA,1\n"
    hours = a_bars(utc("2024-01-04T19:00") + HOUR * np.arange(3), HOUR, "equity", "America/New_York")
    assert read(tmp_path, text, "America/New_York").features(hours)[1] == 1  # 21:00 UTC, when the bar of 20:00 closes
    with pytest.raises(DataError, match=r"extra.csv, symbol AAA, line 2: timestamp .* has no time zone"):
        read(tmp_path, text)


def test_a_column_over_its_usual_size_is_what_numpy_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    bars = a_bars(utc("2024-01-01T00:00") + HOUR * np.arange(80), HOUR)
    x = 1e-4 * rng.standard_normal(80)
    x[60] = 1.0  # clipped: 32 values of which one is large have a size of 1 / sqrt(32), and 1 is 5.7 of those
    rows = "\n".join(f"{t + HOUR},AAA,{v!r}" for t, v in zip(bars.time[5:], x[5:].tolist(), strict=True))
    outside = dataclasses.replace(read(tmp_path, f"time,symbol,x\n{rows}\n"), scale="usual_size")
    values, first = outside.features(bars)
    assert first == 5 + 32 - 1
    for t in range(first, 80):
        size = np.sqrt((x[t - 31 : t + 1] ** 2).mean())
        assert values[t, 0] == pytest.approx(np.clip(x[t] / size, -5, 5), rel=1e-9)
    assert values[60, 0] == 5.0


# What is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("timestamp,symbol,x\n2024-01-01T00:00Z,AAA,nan\n", "symbol AAA, line 2: x nan is not a finite number"),
        ("timestamp,symbol,x\n2024-01-01T00:00Z,AAA,\n", "symbol AAA, line 2: x is empty"),
        ("timestamp,symbol,x,m\n2024-01-01T00:00Z,AAA,1,lgbm\n", "symbol AAA, line 2: m 'lgbm' is not a number"),
        (
            "timestamp,symbol,x\n2024-01-01T00:00Z,AAA,1\n2024-01-01T00:00Z,BBB,1\n2024-01-01T00:00Z,AAA,2\n",
            "symbol AAA, line 4: timestamp 2024-01-01 00:00:00 UTC repeats line 2",
        ),
        (
            "timestamp,symbol,x\n2024-01-02T00:00Z,AAA,1\n2024-01-01T00:00Z,AAA,2\n2024-01-03T00:00Z,AAA,2\n",
            "symbol AAA, line 3: timestamp 2024-01-01 00:00:00 UTC comes before .* sort the file by time",
        ),
        ("timestamp,symbol\n2024-01-01T00:00Z,AAA\n", "no column for a feature among 'timestamp', 'symbol'; features"),
        ("when,x\n1,2\n", "no column for timestamp and symbol among 'when', 'x'"),
        ("timestamp,symbol,x,x\n2024-01-01T00:00Z,AAA,1,1\n", "two columns are called 'x'"),
        ("timestamp,symbol,\n2024-01-01T00:00Z,AAA,1\n", "columns 'timestamp' and '' are both the timestamp|column 3"),
        ("timestamp,symbol,x\n", "extra.csv: holds no rows"),
        ("timestamp,symbol,x\n2024-01-01T00:00Z,,1\n", "extra.csv, line 2: symbol is empty"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_refused_where_it_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_symbols_that_do_not_fit_are_named(tmp_path: Path) -> None:
    bars = a_bars(utc("2024-01-01T00:00") + HOUR * np.arange(6), HOUR)
    row = "timestamp,symbol,x\n2024-01-01T00:00Z,{},1\n"
    with pytest.raises(DataError, match=r"extra\.csv: has no row of symbol AAA; it has ZZZ: add its rows, or leave"):
        read(tmp_path, row.format("ZZZ")).features(bars)
    both = read(tmp_path, row.format("aaa") + "2024-01-01T00:00Z,ZZZ,1\n")
    assert both.features(bars)[1] == 0  # found in another case
    assert "; ignored: 1 symbol without bars" in both.lines([bars])[0]
    late = read(tmp_path, "timestamp,symbol,x\n2025-01-01T00:00Z,AAA,1\n")
    with pytest.raises(DataError, match="line 2: the first row of AAA becomes known after its last bar closes"):
        late.features(bars)


def test_options_that_say_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="extra_delay: describes --extra-features"):
        check_program(tiny_config(extra_delay="1"))
    with pytest.raises(ConfigError, match="extra_delay: 'soon' is neither a number of bars"):
        check_program(tiny_config(extra_features="x.csv", extra_delay="soon"))
    with pytest.raises(ConfigError, match=r"extra_features: addresses .* are not read"):
        check_program(tiny_config(extra_features="https://example.com/x.csv"))
    assert (parse_span("3", ""), parse_span("90m", "")) == (Span(3, 0), Span(0, 5400))


def test_rows_that_stop_are_told_and_refused_where_that_is_asked(tmp_path: Path) -> None:
    bars = a_bars(utc("2024-01-01T00:00") + HOUR * np.arange(60), HOUR)
    rows = "\n".join(f"{t + HOUR},AAA,1" for t in bars.time[:30])  # in force for 1 bar each, the last for 31
    text = f"time,symbol,x\n{rows}\n"
    (told,) = read(tmp_path, text).warnings([bars])
    assert told.startswith("extra.csv, symbol AAA, line 31: stays in force for 31 bars, where 1 are usual")
    read(tmp_path, text, extra_max_age="30").features(bars)
    for age in ("29", "29h"):
        with pytest.raises(
            DataError, match=r"line 31: is the newest row at the close of 2024-01-03 12:00:00 UTC and old"
        ):
            read(tmp_path, text, extra_max_age=age).features(bars)


# In a market


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Bars], Config, Path]:
    """Two symbols, with rows of one from its bar 300 on, known half an hour before every third bar closes."""
    bars = synthetic_market(0, 2, 900)
    rng = np.random.default_rng(2)
    path = tmp_path_factory.mktemp("outside") / "predictions.parquet"
    frames = [
        pl.DataFrame(
            {"timestamp": time + 1800, "symbol": symbol, "z": rng.standard_normal(len(time)), "a": time % 7 / 7.0}
        )
        for symbol, time in ((bars[0].symbol, bars[0].time[::3]), (bars[1].symbol, bars[1].time[300::3]))
    ]
    pl.concat(frames).write_parquet(path)
    return bars, tiny_config(extra_features=str(path)), path


def test_the_first_decision_of_a_symbol_comes_after_its_first_row(predicted: tuple[list[Bars], Config, Path]) -> None:
    _, config, _ = predicted
    market, without = tiny_market(config), tiny_market(tiny_config())
    assert market.feature_names == (*without.feature_names, "a", "z")  # by name, whatever their order in the file
    assert market.feature_hash != without.feature_hash
    assert market.data_hash != without.data_hash
    bars = market.bars
    # Bar 300 has the first row; 32 bars are scaled by: bar 331. The other has rows from bar 0 and its groups' 115 bars.
    first = [int(np.flatnonzero(b.time == market.splits["train"].times[i][0])[0]) for i, b in enumerate(bars)]
    assert first == [114, 331]
    tables = [compute_features(b, feature_groups(config.features), 32).values for b in bars]
    features = np.asarray(market.splits["train"].tape.features)
    np.testing.assert_array_equal(features[0, :50, :7], tables[0][114:164])
    assert features[1, :50, 7:].std() > 0.3
    with pytest.raises(CheckpointError, match="the data changed since the run began"):
        require_same_data(Path("run"), without.data_hash, market)


def test_nothing_known_later_is_seen_and_a_table_that_is_early_is_caught(
    predicted: tuple[list[Bars], Config, Path],
) -> None:
    bars, config, _ = predicted
    recipe = feature_recipe(config)
    assert check_lookahead(recipe, bars, cuts=2, later=recipe.changed_after).passed
    assert recipe.outside is not None
    early = dataclasses.replace(recipe, outside=dataclasses.replace(recipe.outside, delay=Span(0, -HOUR)))
    caught = check_lookahead(early, bars, cuts=2, later=early.changed_after)
    assert not caught.passed
    assert set(caught.details["features"]) == {"a", "z"}


@pytest.mark.slow
def test_the_commands_checks_cover_them(predicted: tuple[list[Bars], Config, Path]) -> None:
    bars, config, _ = predicted
    checker = Checker(config, bars, CheckOptions())
    assert checker.lookahead().passed
    assert check_parity(checker.compute, bars[:1], checker.player, n_bars=8).passed


def test_a_column_that_knows_the_next_bar_is_doubted(tmp_path: Path) -> None:
    (bars,) = synthetic_market(3, 1, 900)
    move = np.log(bars.close / bars.open)
    told = {}
    for name, stamp in (("early", bars.time), ("right", bars.time + HOUR)):  # when the bar began, when it was over
        frame = pl.DataFrame({"timestamp": stamp, "symbol": bars.symbol, "move": move})
        frame.write_parquet(tmp_path / f"{name}.parquet")
        told[name] = feature_recipe(tiny_config(extra_features=str(tmp_path / f"{name}.parquet"))).warnings([bars])
    assert told["right"] == ()
    assert "column 'move' has a correlation of 0.9" in told["early"][0]


def test_names_and_sizes_are_looked_at(tmp_path: Path) -> None:
    (bars,) = synthetic_market(3, 1, 400)
    frame = pl.DataFrame({"timestamp": bars.time, "symbol": bars.symbol, "rsi_14": 1e-4})
    frame.write_parquet(tmp_path / "x.parquet")
    given = {"extra_features": str(tmp_path / "x.parquet"), "extra_scale": "none"}
    with pytest.raises(ConfigError, match=r"x.parquet: column 'rsi_14' has the name of a feature of --features"):
        feature_recipe(tiny_config(**given))
    frame.rename({"rsi_14": "x"}).write_parquet(tmp_path / "x.parquet")
    (told,) = feature_recipe(tiny_config(**given)).warnings([bars])
    assert told.startswith("x.parquet: column 'x' has a usual size of 0.0001, which a network hardly sees")
