"""Loading bars: the shapes in which users have them, time zones, joins, and what is asked for."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from jaxppo.errors import ConfigError, DataError
from jaxppo.market.bars import Bars, data_hash, load_bars
from jaxppo.market.names import read_name
from jaxppo.market.quality import FIELDS

HOUR, DAY = 3_600, 86_400
T0 = 1_704_067_200  # 2024-01-01 00:00 UTC, a Monday
WriteFile = Callable[..., Path]


def utc(*texts: str) -> list[int]:
    return np.array(texts, "datetime64[s]").astype(np.int64).tolist()


@pytest.fixture
def write(tmp_path: Path) -> WriteFile:
    def write_lines(name: str, *lines: str, end: str = "\n") -> Path:
        path = tmp_path / name
        path.write_bytes("".join(line + end for line in lines).encode())
        return path

    return write_lines


def rows(times: list[str], separator: str = ",") -> list[str]:
    """A line per time with prices 10, 12, 9, 11 and volume 100, one more in each line."""
    prices = [[10 + i, 12 + i, 9 + i, 11 + i, 100 + i] for i in range(len(times))]
    return [separator.join([t, *map(str, p)]) for t, p in zip(times, prices, strict=True)]


def csv(times: list[str], header: str = "timestamp,open,high,low,close,volume") -> list[str]:
    return [header, *rows(times)]


def hourly(n: int, start: int = T0, step: int = HOUR) -> list[str]:
    return [f"{np.datetime64(start + step * i, 's')}Z" for i in range(n)]


def frame(n: int, start: int = T0, step: int = HOUR) -> pl.DataFrame:
    time = pl.Series("timestamp", [(start + step * i) * 1_000_000 for i in range(n)]).cast(pl.Datetime("us", "UTC"))
    price = [10.0 + i for i in range(n)]
    return pl.DataFrame([time]).with_columns(
        open=pl.Series(price),
        high=pl.Series(price) + 2,
        low=pl.Series(price) - 1,
        close=pl.Series(price) + 1,
        volume=1.0,
    )


def assert_rows(bars: Bars, time: list[int]) -> None:
    """The numbers that `rows` writes, at `time`."""
    i = np.arange(len(time), dtype=np.float64)
    assert bars.time.tolist() == time
    assert bars.time.dtype == np.int64
    for field, base in {"open": 10, "high": 12, "low": 9, "close": 11, "volume": 100}.items():
        values = getattr(bars, field)
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values, base + i)


# Shapes


def test_alpaca_file_of_several_symbols(write: WriteFile) -> None:
    lines = ["timestamp,open,high,low,close,volume,trade_count,vwap,symbol"]
    for symbol in ("SPY", "AAPL"):
        times = [f"2024-01-02T14:{30 + i}:00Z" for i in range(3)]
        lines += [f"{row},7,10.5,{symbol}" for row in rows(times)]
    loaded = load_bars(write("alpaca.csv", *lines))
    assert [b.symbol for b in loaded] == ["AAPL", "SPY"]
    for bars in loaded:
        assert_rows(bars, utc("2024-01-02T14:30", "2024-01-02T14:31", "2024-01-02T14:32"))
        assert (bars.interval, bars.asset_class, bars.timezone) == (60, "equity", "America/New_York")
        assert bars.source == "alpaca.csv"


def test_rows_of_symbols_may_alternate(write: WriteFile) -> None:
    lines = [f"{row},{s}" for row in rows(hourly(2)) for s in ("B", "A")]
    a, b = load_bars(write("two.csv", "date,open,high,low,close,volume,tic", *lines))
    assert_rows(a, [T0, T0 + HOUR])
    assert_rows(b, [T0, T0 + HOUR])


def test_yfinance_daily_ignores_adjusted_close(write: WriteFile) -> None:
    lines = ["2024-01-02,10,12,9,11,5.5,100", "2024-01-03,11,13,10,12,6,101", "2024-01-04,12,14,11,13,6.5,102"]
    path = write("AAPL_yfinance_1d.csv", "Date,Open,High,Low,Close,Adj Close,Volume", *lines)
    for timezone in (None, "EET"):  # dates stay dates
        (bars,) = load_bars(path, timezone=timezone)
        assert_rows(bars, utc("2024-01-02", "2024-01-03", "2024-01-04"))
        assert (bars.symbol, bars.interval, bars.timezone) == ("AAPL", DAY, "UTC")


def test_yfinance_hourly_offsets_change_with_the_season(write: WriteFile) -> None:
    # The US changed to summer time on Sunday 2024-03-10: 15:30 New York is 20:30 UTC on Friday, 19:30 on Monday.
    times = ["2024-03-08 14:30:00-05:00", "2024-03-08 15:30:00-05:00", "2024-03-11 15:30:00-04:00"]
    (bars,) = load_bars(write("IBM.csv", *csv(times, "Datetime,Open,High,Low,Close,Volume")))
    assert_rows(bars, utc("2024-03-08T19:30", "2024-03-08T20:30", "2024-03-11T19:30"))
    assert (bars.symbol, bars.interval) == ("IBM", HOUR)


@pytest.mark.parametrize(
    ("times", "days"),
    [
        (["2021-01-04 00:00:00+09:00", "2021-01-05 00:00:00+09:00"], ["2021-01-04", "2021-01-05"]),
        (["2021-01-04 00:00:00-05:00", "2021-01-05 00:00:00-05:00"], ["2021-01-04", "2021-01-05"]),
        (["2024-03-28T00:00+0545", "2024-03-29T00:00+0545"], ["2024-03-28", "2024-03-29"]),
        (["2024-03-28 00:00:00-03:30", "2024-03-29 00:00:00-03:30"], ["2024-03-28", "2024-03-29"]),
        # Europe changed to summer time on Sunday 2024-03-31, and London, whose winter has no offset, with it.
        (["2024-03-28 00:00:00+01:00", "2024-04-01 00:00:00+02:00"], ["2024-03-28", "2024-04-01"]),
        (["2024-03-28 00:00:00+00:00", "2024-04-01 00:00:00+01:00"], ["2024-03-28", "2024-04-01"]),
        # Sao Paulo's clocks went from midnight to 01:00 on Sunday 2018-11-04: that day began at 01:00.
        (["2018-11-03 00:00:00-03:00", "2018-11-04 01:00:00-02:00"], ["2018-11-03", "2018-11-04"]),
        # One bar at another hour, and all are times.
        (["2024-03-28 00:00:00+01:00", "2024-03-28 04:00:00+01:00"], ["2024-03-27T23:00", "2024-03-28T03:00"]),
    ],
)
def test_midnights_of_their_own_offset_name_days(write: WriteFile, times: list[str], days: list[str]) -> None:
    (bars,) = load_bars(write("SAP.csv", *csv(times)), timezone="America/New_York")
    assert_rows(bars, utc(*days))


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Tokyo", "America/New_York", "Asia/Kathmandu"])
def test_midnights_of_a_zoned_column_name_days(tmp_path: Path, zone: str) -> None:
    # 2024-03-25 to 2024-04-01; Berlin's clocks change in between.
    wall = frame(8, start=T0 + 84 * DAY, step=DAY)
    path = tmp_path / "SAP.parquet"
    wall.with_columns(pl.col("timestamp").dt.replace_time_zone(zone)).write_parquet(path)
    (bars,) = load_bars(path)
    assert bars.time.tolist() == [T0 + (84 + i) * DAY for i in range(8)]
    assert (bars.interval, bars.timezone) == (DAY, "UTC")


def test_midnights_of_intraday_bars_are_times(write: WriteFile) -> None:
    midnight = ["2024-03-28 00:00:00+01:00"]
    before = utc("2024-03-27T23:00")
    assert_rows(load_bars(write("SAP_4h.csv", *csv(midnight)))[0], before)
    assert_rows(load_bars(write("SAP.csv", *csv(midnight)), interval="1h")[0], before)
    assert_rows(load_bars(write("SAP.csv", *csv(midnight)), interval="1d")[0], utc("2024-03-28"))
    once_a_day = write("SAP_1h.csv", *csv([*midnight, "2024-03-29 00:00:00+01:00"]))
    assert_rows(load_bars(once_a_day)[0], utc("2024-03-27T23:00", "2024-03-28T23:00"))
    (naive,) = load_bars(write("SAP_1h.csv", *csv(["2024-03-28 00:00:00"])), timezone="Europe/Berlin")
    assert_rows(naive, before)


def test_yfinance_three_line_header(write: WriteFile) -> None:
    head = ["Price,Close,High,Low,Open,Volume", "Ticker,MSFT,MSFT,MSFT,MSFT,MSFT", "Date,,,,,"]
    (bars,) = load_bars(write("prices.csv", *head, "2024-01-02,11,12,9,10,100", "2024-01-03,12,13,10,11,101"))
    assert_rows(bars, utc("2024-01-02", "2024-01-03"))
    assert bars.symbol == "MSFT"
    head[1] = "Ticker,MSFT,AAPL,MSFT,MSFT,MSFT"
    with pytest.raises(DataError, match=r"prices\.csv: the columns of 2 tickers stand side by side"):
        load_bars(write("prices.csv", *head, "2024-01-02,11,12,9,10,100"))


BINANCE = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)


@pytest.mark.parametrize("per_second", [1, 10**3, 10**6, 10**9])
@pytest.mark.parametrize("header", [True, False])
def test_binance_klines(write: WriteFile, per_second: int, header: bool) -> None:
    lines = [f"{row},0,0,0,0,0,0" for row in rows([str((T0 + HOUR * i) * per_second) for i in range(3)])]
    (bars,) = load_bars(write("BTCUSDT-1h-2024-01.csv", *([BINANCE] if header else []), *lines))
    assert_rows(bars, [T0, T0 + HOUR, T0 + 2 * HOUR])
    assert (bars.symbol, bars.asset_class, bars.timezone) == ("BTCUSDT", "crypto", "UTC")


def test_binance_months_are_joined_in_time_order(tmp_path: Path, write: WriteFile) -> None:
    # The later month has microseconds, as files from 2025 on, and comes first by name.
    late = [f"{row},0,0,0,0,0,0" for row in rows([str((T0 + HOUR * (i + 2)) * 10**6) for i in range(2)])]
    early = [f"{row},0,0,0,0,0,0" for row in rows([str((T0 + HOUR * i) * 10**3) for i in range(2)])]
    write("ETHUSDT-1h-01.02.2025.csv", BINANCE, *late)
    write("ETHUSDT-1h-31.01.2025.csv", BINANCE, *early)
    (bars,) = load_bars(tmp_path)
    assert bars.time.tolist() == [T0, T0 + HOUR, T0 + 2 * HOUR, T0 + 3 * HOUR]
    assert bars.open.tolist() == [10, 11, 10, 11]
    assert bars.source == "ETHUSDT-1h-31.01.2025.csv, ETHUSDT-1h-01.02.2025.csv"


def test_overlapping_files_of_a_symbol_are_refused(tmp_path: Path, write: WriteFile) -> None:
    write("SPY_1h_a.csv", *csv(hourly(3)))
    write("SPY_1h_b.csv", *csv(hourly(3, T0 + 2 * HOUR)))
    with pytest.raises(
        DataError, match=r"symbol SPY: SPY_1h_a.csv and SPY_1h_b.csv overlap from 2024-01-01 02:00:00 UTC"
    ):
        load_bars(tmp_path)


def test_metatrader_server_time(write: WriteFile) -> None:
    # EET is UTC+2 until 2024-03-31 and UTC+3 after; integer points stay as they are.
    times = ["2024-03-29 16:00:00", "2024-03-29 20:00:00", "2024-04-01 00:00:00"]
    path = write("USDJPY_mt5_h4.csv", *csv(times, "Date,open,high,low,close,tick_volume"))
    (bars,) = load_bars(path, timezone="EET")
    assert_rows(bars, utc("2024-03-29T14:00", "2024-03-29T18:00", "2024-03-31T21:00"))
    assert (bars.interval, bars.asset_class, bars.timezone) == (4 * HOUR, "fx", "America/New_York")
    with pytest.raises(DataError, match=r"USDJPY_mt5_h4.csv, symbol USDJPY, line 2: .*has no time zone.*--timezone"):
        load_bars(path)


def test_metatrader_exports(write: WriteFile) -> None:
    head = "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>"
    body = [f"{row}\t0\t3" for row in rows(["2024.07.01\t09:00:00", "2024.07.01\t10:00:00"], "\t")]
    (bars,) = load_bars(write("EURUSD_H1_2024.csv", head, *body, end="\r\n"), timezone="EET")
    assert_rows(bars, utc("2024-07-01T06:00", "2024-07-01T07:00"))
    assert bars.symbol == "EURUSD"
    (daily,) = load_bars(
        write("EURUSD_D1.csv", head.replace("<TIME>\t", ""), *rows(["2024.07.01", "2024.07.02"], "\t"))
    )
    assert_rows(daily, utc("2024-07-01", "2024-07-02"))
    mt4 = rows(["2024.07.01,09:00", "2024.07.01,10:00"])
    (old,) = load_bars(write("GBPUSD.csv", *mt4), timezone="EET")
    assert_rows(old, utc("2024-07-01T06:00", "2024-07-01T07:00"))


def test_utf16_file(tmp_path: Path) -> None:
    path = tmp_path / "EURUSD_H1.csv"
    path.write_bytes("\n".join(csv(hourly(2))).encode("utf-16"))
    assert_rows(load_bars(path)[0], [T0, T0 + HOUR])


def test_dukascopy_local_and_gmt_time(write: WriteFile) -> None:
    times = ["28.06.2024 20:00:00.000", "28.06.2024 21:00:00.000", "01.07.2024 00:00:00.000"]
    path = write("EURUSD_dukascopy_1h.csv", *csv(times, "Time,Open,High,Low,Close,Volume"))
    (bars,) = load_bars(path, timezone="Europe/London")  # UTC+1 in summer
    assert_rows(bars, utc("2024-06-28T19:00", "2024-06-28T20:00", "2024-06-30T23:00"))
    path = write("EURUSD_dukascopy_1h.csv", *csv(times, "Gmt time,Open,High,Low,Close,Volume"))
    (bars,) = load_bars(path, timezone="Europe/London")  # the header says UTC
    assert_rows(bars, utc("2024-06-28T20:00", "2024-06-28T21:00", "2024-07-01T00:00"))
    times = [f"{t} GMT+0200" for t in times]
    path = write("EURUSD_dukascopy_1h.csv", *csv(times, "Local time,Open,High,Low,Close,Volume"))
    assert_rows(load_bars(path)[0], utc("2024-06-28T18:00", "2024-06-28T19:00", "2024-06-30T22:00"))


@pytest.mark.parametrize(
    "header", ["T,O,H,L,C,V", "DATETIME,Open,HIGH,Low,cLoSe,Vol", " time , open , high , low , close , v "]
)
def test_column_names_in_any_case_and_short(write: WriteFile, header: str) -> None:
    assert_rows(load_bars(write("X.csv", *csv(hourly(3), header)))[0], [T0, T0 + HOUR, T0 + 2 * HOUR])


@pytest.mark.parametrize(
    "times",
    [
        ["2024-01-01T00:00:00+00:00", "2024-01-01T01:00:00+00:00"],
        ["2024-01-01 05:30:00+0530", "2024-01-01 06:30:00+0530"],
        ["2023-12-31 20:30:00-03:30", "2023-12-31 21:30:00-03:30"],
        ["2023-12-31T19:00:00.000-05", "2023-12-31T20:00:00.000-05"],
        ["2024/01/01 00:00 UTC", "2024/01/01 01:00 UTC"],
        ["2024-01-01 00:00:00", "2024-01-01 01:00:00"],
        ["20240101 000000", "20240101 010000"],
        ["31/12/2023 23:00", "01/01/2024 01:00"],
        ["12/31/2023 11:00 PM", "01/01/2024 01:00 AM"],
        ["1704067200.0", "1704070800.0"],
    ],
)
def test_spellings_of_time(write: WriteFile, times: list[str]) -> None:
    (bars,) = load_bars(write("X_1h.csv", *csv(times)), timezone="UTC")
    start = T0 - HOUR if times[0].startswith(("31", "12")) else T0
    assert bars.time.tolist() == [start, T0 + HOUR]


def test_number_dates_and_semicolons(write: WriteFile) -> None:
    header = "date;open;high;low;close;volume"
    (bars,) = load_bars(write("X.csv", header, *rows(["20240102", "20240103"], ";")))
    assert_rows(bars, utc("2024-01-02", "2024-01-03"))


def test_parquet_of_any_time_type(tmp_path: Path) -> None:
    path = tmp_path / "SPY_1h.parquet"
    reference = frame(5)
    spellings = [
        pl.col("timestamp"),
        pl.col("timestamp").cast(pl.Datetime("ns", "UTC")),
        pl.col("timestamp").dt.convert_time_zone("Asia/Tokyo"),
        pl.col("timestamp").dt.epoch("ms"),
        pl.col("timestamp").dt.epoch("s").cast(pl.Float64),
        pl.col("timestamp").dt.to_string("%Y-%m-%dT%H:%M:%SZ"),
    ]
    hashes = set()
    for spelling in spellings:
        reference.with_columns(spelling.alias("timestamp")).write_parquet(path)
        (bars,) = load_bars(path)
        hashes.add(data_hash([bars]))
    assert len(hashes) == 1
    assert bars.open.tolist() == [10, 11, 12, 13, 14]


def test_arrays_can_be_changed_and_volume_is_optional(tmp_path: Path) -> None:
    frame(3).drop("volume").write_parquet(tmp_path / "EURUSD_1h.parquet")
    (bars,) = load_bars(tmp_path)
    assert bars.volume.tolist() == [0, 0, 0]
    bars.time[0] += 1
    bars.close[0] += 1


def test_blank_lines_and_other_files_are_passed_over(tmp_path: Path, write: WriteFile) -> None:
    lines = csv(hourly(2))
    write("A.csv", lines[0], "", lines[1], "  ", lines[2], ",,,,,", "")
    write("README", "not bars")
    write("DATA.md", "not bars")
    write(".hidden.csv", "not bars")
    (tmp_path / "sub").mkdir()
    (bars,) = load_bars(tmp_path)
    assert_rows(bars, [T0, T0 + HOUR])


# Daylight saving


def test_repeated_hour_is_told_by_the_order_of_rows(write: WriteFile) -> None:
    # New York's clock went back at 06:00 UTC on 2024-11-03: 01:00 and 01:30 come twice.
    times = [f"2024-11-03 {t}:00" for t in ("00:30", "01:00", "01:30", "01:00", "01:30", "02:00")]
    (bars,) = load_bars(write("BTCUSD_30m.csv", *csv(times)), timezone="America/New_York")
    assert_rows(bars, [utc("2024-11-03T04:30")[0] + 1800 * i for i in range(6)])


# What is asked for


@pytest.mark.parametrize(
    ("stem", "symbol", "interval"),
    [
        ("BTCUSDT-1h-2023-01", "BTCUSDT", HOUR),
        ("AAPL_1d", "AAPL", DAY),
        ("EURUSD_dukascopy_1h", "EURUSD", HOUR),
        ("USDJPY_mt5_h4", "USDJPY", 4 * HOUR),
        ("BTC-USD", "BTC-USD", None),
        ("BTC-USD-1h", "BTC-USD", HOUR),
        ("BTC-USD_5m", "BTC-USD", 300),
        ("EUR_USD_1h", "EUR_USD", HOUR),
        ("BTC_USDT-15m-2024", "BTC_USDT", 900),
        ("ETHUSDT-1M-2024", "ETHUSDT", None),
        ("SPY", "SPY", None),
        ("BRK.B_daily", "BRK.B", DAY),
    ],
)
def test_file_names(stem: str, symbol: str, interval: int | None) -> None:
    name = read_name(stem)
    assert (name.symbol, name.interval or name.minutes, name.doubt) == (symbol, interval, None)


def test_interval_is_the_most_common_spacing(write: WriteFile) -> None:
    # Five sessions of 3 hourly bars: 10 spacings of an hour, 4 of 22 hours.
    times = [t for day in range(5) for t in hourly(3, T0 + DAY * day)]
    assert load_bars(write("X.csv", *csv(times)))[0].interval == HOUR
    week = [t[:10] for t in hourly(5, T0, DAY) + hourly(5, T0 + 7 * DAY, DAY)]
    assert load_bars(write("X.csv", *csv(week)))[0].interval == DAY
    # Two four-hour bars a session: as many spacings of 4 as of 20 hours but one.
    times = [t for day in range(5) for t in hourly(2, T0 + DAY * day, 4 * HOUR)]
    assert load_bars(write("X.csv", *csv(times)))[0].interval == 4 * HOUR


def test_folder_of_several_intervals_needs_a_choice(tmp_path: Path) -> None:
    frame(5).write_parquet(tmp_path / "A_1h.parquet")
    frame(5).write_parquet(tmp_path / "B_1h.parquet")
    frame(5, step=DAY).write_parquet(tmp_path / "A_1d.parquet")
    message = r"bars of several intervals, 1h \(2 symbols\), 1d \(1 symbol\); choose one with --interval"
    with pytest.raises(DataError, match=message):
        load_bars(tmp_path)
    with pytest.raises(DataError, match=r"1h \(1 symbol\), 1d \(1 symbol\)"):
        load_bars(tmp_path, symbols=["A"])
    assert [b.symbol for b in load_bars(tmp_path, interval="1h")] == ["A", "B"]
    assert [b.interval for b in load_bars(tmp_path, interval="1d")] == [DAY]
    assert [b.symbol for b in load_bars(tmp_path, symbols=["B"])] == ["B"]
    with pytest.raises(DataError, match=r"no bars at interval 5m; there are 1h \(2 symbols\), 1d \(1 symbol\)"):
        load_bars(tmp_path, interval="5m")
    with pytest.raises(DataError, match=r"symbol 'B' has no bars at interval 1d; it has 1h"):
        load_bars(tmp_path, interval="1d", symbols=["A", "B"])
    # Without intervals in the names the data tell.
    (tmp_path / "A_1d.parquet").rename(tmp_path / "A.parquet")
    with pytest.raises(DataError, match=message):
        load_bars(tmp_path)
    assert [b.symbol for b in load_bars(tmp_path, interval="1d")] == ["A"]


def test_files_of_other_intervals_and_symbols_are_not_read(tmp_path: Path, write: WriteFile) -> None:
    frame(5).write_parquet(tmp_path / "A_1h.parquet")
    write("A_1d.parquet", "not a Parquet file")
    write("B_1h.csv", *csv(["not a time"]))
    assert [b.symbol for b in load_bars(tmp_path, interval="1h", symbols=["A"])] == ["A"]


def test_unknown_symbols_name_the_nearest(tmp_path: Path) -> None:
    frame(5).write_parquet(tmp_path / "BTCUSDT_1h.parquet")
    with pytest.raises(DataError, match=r"no symbol 'btcusd'; did you mean 'BTCUSDT'\?"):
        load_bars(tmp_path, symbols=["btcusd"])
    with pytest.raises(ConfigError, match=r"asset class given for unknown symbol 'BTCUSD'; did you mean 'BTCUSDT'"):
        load_bars(tmp_path, asset_classes={"BTCUSD": "fx"})
    with pytest.raises(ConfigError, match="unknown asset class 'coin'"):
        load_bars(tmp_path, asset_classes={"BTCUSDT": "coin"})
    with pytest.raises(ConfigError, match="unknown time zone 'Mars'"):
        load_bars(tmp_path, timezone="Mars")
    assert load_bars(tmp_path, asset_classes={"BTCUSDT": "equity"})[0].timezone == "America/New_York"


def test_file_name_and_data_must_agree(tmp_path: Path) -> None:
    path = tmp_path / "SPY_1h.parquet"
    frame(30, step=DAY).write_parquet(path)
    with pytest.raises(DataError, match=r"SPY_1h.parquet, symbol SPY: the file name says 1h, but .* mostly 1d apart"):
        load_bars(path)
    # A thinly traded symbol: mostly two hours apart, but an hour somewhere.
    thin = pl.concat([frame(30, step=2 * HOUR), frame(1, T0 + 59 * HOUR)])
    thin.write_parquet(path)
    assert load_bars(path)[0].interval == HOUR


def test_one_bar_needs_an_interval(write: WriteFile) -> None:
    path = write("X.csv", *csv(hourly(1)))
    with pytest.raises(DataError, match=r"X.csv, symbol X: one bar does not tell its interval"):
        load_bars(path)
    assert load_bars(path, interval="1h")[0].interval == HOUR


def test_hash_depends_on_bars_only(tmp_path: Path) -> None:
    frame(5).write_parquet(tmp_path / "B_1h.parquet")
    frame(7).write_parquet(tmp_path / "A_1h.parquet")
    a, b = load_bars(tmp_path)
    (tmp_path / "A_1h.parquet").unlink()
    for name, lines in {"A_part1_1h": frame(3), "A_part2_1h": frame(7)[3:]}.items():
        lines.with_columns(pl.col("timestamp").dt.epoch("ms")).write_csv(tmp_path / f"{name}.csv")
    assert data_hash(load_bars(tmp_path)) == data_hash([a, b]) == data_hash([b, a])
    changes = [{field: getattr(a, field) + 1} for field in ("time", *FIELDS)] + [{"symbol": "C"}, {"interval": 60}]
    hashes = {data_hash([dataclasses.replace(a, **change), b]) for change in changes} | {data_hash([a, b])}
    assert len(hashes) == len(changes) + 1
    assert len(data_hash([a])) == 64
