"""Files as vendors and tools write them: headers that are missing or doubled, zones, no volume, and what is no bars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from jaxppo.errors import DataError
from jaxppo.market.bars import Bars, describe_symbols, load_bars
from jaxppo.market.calendar import DAY, HOUR

T0 = 1_704_067_200  # Monday, 1 January 2024, 00:00 UTC
PRICES = ("10,12,9,11", "11,13,10,12", "12,14,11,13")


def read(folder: Path, name: str, lines: list[str], **asked) -> Bars:
    (folder / name).write_text("\n".join(lines) + "\n")
    (bars,) = load_bars(folder / name, **asked)
    assert bars.open.tolist() == [10, 11, 12]
    assert bars.close.tolist() == [11, 12, 13]
    return bars


def rows(times, prices=PRICES, more="") -> list[str]:
    return [f"{t},{p}{more}" for t, p in zip(times, prices, strict=True)]


def hours(start=T0):
    return [start + i * HOUR for i in range(3)]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("XBTUSD_60.csv", rows(hours(), more=",5,17")),  # Kraken: volume, trades
        ("BTCUSD_1h.csv", rows(hours(), more=",5")),
        ("BTCUSD_1h.csv", rows(hours())),
        (
            "DAT_ASCII_EURUSD_H1_2024.csv",
            [r.replace(",", ";") for r in rows([f"20240101 {h:02}0000" for h in range(3)])],
        ),
        ("EURUSD60.csv", rows([f"2024.01.01,{h:02}:00" for h in range(3)], more=",5")),  # MetaTrader 4
        ("EURUSD60.csv", rows([f"20240101,{h:02}0000" for h in range(3)])),
    ],
)
def test_bars_without_a_header(tmp_path, name, lines):
    bars = read(tmp_path, name, lines, timezone="UTC")
    assert bars.time.tolist() == hours()
    assert bars.interval == HOUR


def test_other_columns_without_a_header_are_not_guessed(tmp_path):
    # Coinbase's order is time, low, high, open, close, volume.
    (tmp_path / "address.csv").write_text("https://www.cryptodatadownload.com\ndate,open,high,low,close\n")
    with pytest.raises(DataError, match=r"address.csv, line 1: an address in place of the header; delete that line"):
        load_bars(tmp_path / "address.csv")
    for lines in (["1704067200,9,12,10,11,5"], ["1704067200,10,12,9,11,5,17,3"], ["1704067200,10,12,9"]):
        (tmp_path / "BTC-USD_1h.csv").write_text("\n".join(lines))
        with pytest.raises(DataError, match=r"BTC-USD_1h.csv, line 1: no header; the first line must name"):
            load_bars(tmp_path / "BTC-USD_1h.csv")


def test_the_column_that_says_utc_is_taken_and_any_zone_that_is_said_holds(tmp_path):
    # In January EET is two hours ahead of UTC.
    local, utc = ([f"2024.01.01 0{h + ahead}:00" for h in range(3)] for ahead in (2, 0))
    both = ["Time (EET),Time (UTC),Open,High,Low,Close", *rows([f"{a},{b}" for a, b in zip(local, utc, strict=True)])]
    assert read(tmp_path, "EURUSD_1h.csv", both).time.tolist() == hours()
    alone = ["Time (EET),Open,High,Low,Close", *rows(local)]
    assert read(tmp_path, "EURUSD_1h.csv", alone).time.tolist() == hours()
    with pytest.raises(DataError, match="the file says EET and --timezone UTC; leave --timezone out"):
        load_bars(tmp_path / "EURUSD_1h.csv", timezone="UTC")


@pytest.mark.parametrize(
    ("times", "first"),
    [
        ([f"2024-01-02 0{h}:30:00 EST" for h in (7, 8, 9)], "2024-01-02T12:30"),
        ([f"2024-01-02 0{h}:30 America/New_York" for h in (7, 8, 9)], "2024-01-02T12:30"),
        ([f"2024-01-02T0{h}:30:00[Europe/Berlin]" for h in (7, 8, 9)], "2024-01-02T06:30"),
        ([f"2024-01-02T0{h}:30:00+01:00[Europe/Berlin]" for h in (7, 8, 9)], "2024-01-02T06:30"),
        # The clock of New York went back at 06:00 UTC.
        (["2024-11-03 00:30 EDT", "2024-11-03 01:30 EDT", "2024-11-03 01:30 EST"], "2024-11-03T04:30"),
    ],
)
def test_zones_by_name_in_a_timestamp(tmp_path, times, first):
    bars = read(tmp_path, "SPY_1h.csv", ["timestamp,open,high,low,close", *rows(times)])
    start = int(np.datetime64(first, "s").astype(np.int64))
    assert bars.time.tolist() == hours(start)


@pytest.mark.parametrize(
    ("time", "message"),
    [
        ("2024-01-02 09:30 CST", "the zone 'CST' is not known or means several places; write an offset such as -06:00"),
        ("2024-01-02 09:30 XYZ", "the zone 'XYZ' is not known"),
        ("01/02/24", "timestamp '01/02/24' has a year of two digits; write 2024-01-31 throughout"),
        ("1-2-24 09:30", "timestamp '1-2-24 09:30' has a year of two digits"),
    ],
)
def test_times_that_cannot_be_told_are_shown_with_the_remedy(tmp_path, time, message):
    (tmp_path / "SPY_1h.csv").write_text(f"timestamp,open,high,low,close\n{time},10,12,9,11\n")
    with pytest.raises(DataError, match=message):
        load_bars(tmp_path / "SPY_1h.csv")


def test_stooq_text_in_a_folder_and_what_is_no_bars_is_named(tmp_path):
    head = "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>"
    for ticker in ("AAPL.US", "MSFT.US"):
        lines = [f"{ticker},D,{r},5,0" for r in rows([f"2024010{d},000000" for d in (1, 2, 3)])]
        (tmp_path / f"{ticker.lower()}.txt").write_text("\n".join([head, *lines]))
    (tmp_path / "README.txt").write_text("Bars of two shares, from a vendor.\n")
    (tmp_path / "targets.csv").write_text("bar,target\n0,1\n")
    (tmp_path / "old.zip").write_bytes(b"PK\x03\x04")
    (tmp_path / "DATA.md").write_text("not meant as data")
    bars = load_bars(tmp_path)
    assert [(b.symbol, b.interval, b.time.tolist()) for b in bars] == [
        (s, DAY, [T0, T0 + DAY, T0 + 2 * DAY]) for s in ("AAPL.US", "MSFT.US")
    ]
    assert (
        describe_symbols(bars, str(tmp_path))[-1] == "not read, no bars as they are: README.txt, old.zip, targets.csv"
    )
    (tmp_path / "broken.csv").write_text(
        "timestamp,open,high,low\n2024-01-01,1,1,1\n"
    )  # has prices: is not passed over
    with pytest.raises(DataError, match=r"broken.csv: no column for close"):
        load_bars(tmp_path)


def test_yfinance_by_ticker(tmp_path):
    head = ["Ticker,SPY,SPY,SPY,SPY", "Price,Open,High,Low,Close", "Date,,,,"]
    bars = read(tmp_path, "download.csv", [*head, *rows(["2024-01-01", "2024-01-02", "2024-01-03"])])
    assert bars.symbol == "SPY"


@pytest.mark.parametrize("more", [",-1", ",-1.0", ","])
def test_signs_for_no_volume(tmp_path, more):
    bars = read(tmp_path, "EURUSD_1h.csv", ["timestamp,open,high,low,close,volume", *rows(hours(), more=more)])
    assert bars.volume.tolist() == [0, 0, 0]


def test_negative_volume_among_others_is_refused(tmp_path):
    lines = [
        "timestamp,open,high,low,close,volume",
        *(f"{r},{v}" for r, v in zip(rows(hours()), (5, -1, 5), strict=True)),
    ]
    (tmp_path / "EURUSD_1h.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match="line 3: volume -1 is negative"):
        load_bars(tmp_path)


@pytest.mark.parametrize(
    ("name", "head", "row"),
    [
        ("ES_1d.csv", "Date,Open,High,Low,Last,Volume", "{t},{o},{h},{l},{c},5"),  # Sierra Chart, Barchart
        ("EUR_USD Historical Data.csv", "Date,Price,Open,High,Low,Vol.,Change %", "{t},{c},{o},{h},{l},0.005K,1%"),
        (
            "BTCUSDT_1d.csv",
            "startTime,openPrice,highPrice,lowPrice,closePrice,volume",
            "{t},{o},{h},{l},{c},5",
        ),  # Bybit
        ("AAPL_1d.csv", "window_start,volume,open,close,high,low", "{t},5,{o},{c},{h},{l}"),  # Polygon
    ],
)
def test_columns_of_vendors(tmp_path, name, head, row):
    days = ("2024-01-01", "2024-01-02", "2024-01-03")
    cells = [dict(zip("tohlc", (t, *p.split(",")), strict=True)) for t, p in zip(days, PRICES, strict=True)]
    bars = read(tmp_path, name, [head, *(row.format(**c) for c in cells)])
    assert bars.high.tolist() == [12, 13, 14]
    assert bars.volume.tolist() == [5, 5, 5]
    assert bars.time.tolist() == [T0, T0 + DAY, T0 + 2 * DAY]


def test_tables_without_rows_hold_no_bars(tmp_path):
    frame = pl.DataFrame({k: [] for k in ("timestamp", "open", "high", "low", "close")})
    frame.write_parquet(tmp_path / "A_1h.parquet")
    frame.write_csv(tmp_path / "A_1h.csv")
    for name in ("A_1h.parquet", "A_1h.csv"):
        with pytest.raises(DataError, match=f"^{name}: holds no bars"):
            load_bars(tmp_path / name)


@pytest.mark.parametrize("scale", [1e-9, 1e7])
def test_prices_of_any_scale(tmp_path, scale):
    lines = [f"{t},{10 * scale!r},{12 * scale!r},{9 * scale!r},{11 * scale!r}" for t in hours()]
    (tmp_path / "PEPEUSDT_1h.csv").write_text("\n".join(["timestamp,open,high,low,close", *lines]))
    (bars,) = load_bars(tmp_path)
    np.testing.assert_allclose(bars.open, 10 * scale, rtol=1e-15)
