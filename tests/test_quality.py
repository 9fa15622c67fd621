"""Bars that cannot be trusted or read: one error each, with file, symbol, row and field."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxppo.errors import DataError, JaxppoError
from jaxppo.market import files
from jaxppo.market.bars import load_bars
from jaxppo.market.quality import CHECKS, RANGE_TOLERANCE, Origin, check_bars

T0 = 1_704_067_200  # 2024-01-01 00:00 UTC
HEADER = "timestamp,open,high,low,close,volume"
GOOD = [
    "2024-01-01T00:00:00Z,10,12,9,11,100",
    "2024-01-01T01:00:00Z,11,13,10,12,101",
    "2024-01-01T02:00:00Z,12,14,11,13,0",
]
WriteFile = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> WriteFile:
    def write_lines(name: str, *lines: str, end: str = "\n") -> Path:
        path = tmp_path / name
        path.write_bytes("".join(line + end for line in lines).encode())
        return path

    return write_lines


def message(path: Path, **options: str) -> str:
    """The `DataError` that loading `path` raises."""
    with pytest.raises(DataError) as caught:
        load_bars(path, **options)
    return str(caught.value)


def test_good_bars_pass(write: WriteFile) -> None:
    assert len(load_bars(write("X.csv", HEADER, *GOOD))[0].time) == 3


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("open", "", "open is empty"),
        ("open", "abc", "open 'abc' is not a number"),
        ("high", "1,5", "high '1,5' is not a number"),
        ("close", "NaN", "close nan is not a finite number"),
        ("high", "inf", "high inf is not a finite number"),
        ("low", "0", "low 0 is not positive"),
        ("open", "-3.5", "open -3.5 is not positive"),
        ("close", "1e300", "close 1e+300 is outside 1e-12 to 1e+12; rescale the prices"),
        ("high", "9", "high 9 is below low 10"),
        ("open", "14", "open 14 is above the high of its bar"),
        ("close", "9.5", "close 9.5 is below the low of its bar"),
        ("volume", "-1", "volume -1 is negative"),
        ("volume", "1e31", "volume 1e+31 is above 1e+30"),
        ("volume", "null", "volume 'null' is not a number"),
        ("timestamp", "", "timestamp is empty"),
        ("timestamp", "soon", "timestamp 'soon' is not understood"),
        ("timestamp", "2024-02-30T01:00:00Z", "timestamp '2024-02-30T01:00:00Z' is not understood"),
        ("timestamp", "2024-01-01T00:59:60Z", "timestamp '2024-01-01T00:59:60Z' is not understood"),
        ("timestamp", "2024-01-01T01:00:00.5Z", "timestamp 2024-01-01T01:00:00.5Z is not a whole second"),
        ("timestamp", "2024-01-01T01:00:00", "has no UTC offset, unlike the first, '2024-01-01T00:00:00Z'"),
        ("timestamp", "2024-01-01T00:00:00Z", "timestamp 2024-01-01 00:00:00 UTC repeats line 2; keep one bar a time"),
        (
            "timestamp",
            "2023-01-01T00:00:00Z",
            "comes before 2024-01-01 00:00:00 UTC of line 2; bars must be oldest first",
        ),
    ],
)
def test_a_bad_cell_is_named(write: WriteFile, field: str, value: str, problem: str) -> None:
    cells = dict(zip(HEADER.split(","), GOOD[1].split(","), strict=True)) | {field: value}
    line = ",".join(f'"{cell}"' for cell in cells.values())
    # The blank line counts, as it does in an editor.
    text = message(write("SPY_1h.csv", HEADER, GOOD[0], "", line, GOOD[2]))
    assert text.startswith("SPY_1h.csv, symbol SPY, line 4: ")
    assert problem in text


def test_rows_of_a_symbol_column_and_of_parquet(tmp_path: Path, write: WriteFile) -> None:
    lines = [GOOD[0] + ",A", GOOD[0] + ",B", GOOD[1] + ",A", GOOD[1].replace("10,12", "-1,12") + ",B"]
    path = write("two.csv", HEADER + ",symbol", *lines)
    assert message(path) == "two.csv, symbol B, line 5: low -1 is not positive"
    assert message(write("two.csv", HEADER + ",symbol", lines[0], GOOD[1] + ",")) == (
        "two.csv, line 3: symbol is empty: it must be 1 to 40 printable characters and begin with none of = + - @"
        " (a formula)"
    )
    frame = pl.DataFrame({"date": [T0, T0 + 60], "open": 5.0, "high": 6.0, "low": [4.0, None], "close": 5.0})
    frame.write_parquet(tmp_path / "A.parquet")
    assert message(tmp_path / "A.parquet") == "A.parquet, symbol A, row 1: low is empty"
    frame.with_columns(low=pl.lit(True)).write_parquet(tmp_path / "A.parquet")
    assert message(tmp_path / "A.parquet") == "A.parquet, symbol A: column low holds Boolean, not numbers"
    frame.with_columns(date=pl.lit(True)).write_parquet(tmp_path / "A.parquet")
    assert message(tmp_path / "A.parquet") == "A.parquet, symbol A: the timestamp column holds Boolean, not times"


def test_columns_that_are_missing_or_named_twice(write: WriteFile) -> None:
    text = message(write("X.csv", "timestamp,open,high,Adj Close", "1,2,3,4"))
    assert text.startswith(
        "X.csv: no column for low and close among 'timestamp', 'open', 'high', 'Adj Close'; bars need"
    )
    text = message(write("X.csv", "Close,when,open,high,low,close", "1,2,3,4,5,6"))
    assert text == "X.csv: columns 'Close' and 'close' are both the close; keep one"


def test_further_bad_rows_are_counted(write: WriteFile) -> None:
    bad = [GOOD[1].replace("13,10", "13,0"), GOOD[2].replace("14,11", "14,-1")]
    assert message(write("X.csv", HEADER, GOOD[0], *bad)) == (
        "X.csv, symbol X, line 3: low 0 is not positive (and in 1 more row)"
    )


@pytest.mark.parametrize(
    ("day", "hours", "problem"),
    [
        (
            "2024-11-03",
            (0, 1, 2),
            "local time 2024-11-03 01:00:00 is ambiguous in America/New_York (the clock goes back)",
        ),
        ("2024-03-10", (1, 2, 3), "local time 2024-03-10 02:00:00 does not exist in America/New_York"),
    ],
)
def test_local_times_at_a_change_of_the_clock(write: WriteFile, day: str, hours: tuple[int, ...], problem: str) -> None:
    path = write("X.csv", HEADER, *(f"{day} 0{hour}:00:00,1,1,1,1,1" for hour in hours))
    assert message(path, timezone="America/New_York").startswith(f"X.csv, symbol X, line 3: {problem}")


@pytest.mark.parametrize(
    ("hours", "minutes", "row"),
    [(("00", "01", "01", "02"), ("00",) * 4, 4), (("01", "01", "01", "01"), ("00", "30", "00", "30"), 4)],
)
def test_an_hour_that_a_clock_repeats_means_local_times(
    write: WriteFile, hours: tuple[str, ...], minutes: tuple[str, ...], row: int
) -> None:
    lines = [f"2024-11-03T{h}:{m}:00Z,1,1,1,1,1" for h, m in zip(hours, minutes, strict=True)]
    text = message(write("X.csv", HEADER, *lines))
    assert text.startswith(f"X.csv, symbol X, line {row}: timestamp 2024-11-03 01:00:00 UTC ")
    assert "clocks went back that hour, so these are local times: say where with --timezone" in text
    assert "clocks" not in message(write("X.csv", HEADER, *(line.replace("-03T", "-04T") for line in lines)))


def test_newest_first_is_said(write: WriteFile) -> None:
    text = message(write("X.csv", HEADER, *reversed(GOOD)))
    assert text.startswith("X.csv, symbol X, line 3: timestamp 2024-01-01 01:00:00 UTC comes before")
    assert "the file is newest first, reverse it" in text


def test_day_and_month_that_cannot_be_told_apart(write: WriteFile) -> None:
    lines = ["02/01/2024,1,1,1,1", "03/01/2024,1,1,1,1"]
    text = message(write("X.csv", "date,open,high,low,close", *lines))
    assert "X.csv, symbol X, line 2: dates such as '02/01/2024' can be read as day first or month first" in text
    (bars,) = load_bars(write("X.csv", "date,open,high,low,close", *lines, "13/01/2024,1,1,1,1"))
    assert bars.time.tolist() == [T0 + 86_400, T0 + 2 * 86_400, T0 + 12 * 86_400]  # 2, 3 and 13 January


@pytest.mark.parametrize("number", ["12345678", "99999999", "1e9", "-1704067200"])
def test_numbers_that_are_no_times(write: WriteFile, number: str) -> None:
    text = message(write("X.csv", HEADER, f"{number},10,12,9,11,100"))
    assert text.startswith(f"X.csv, symbol X, line 2: timestamp '{number}' is not understood")


def test_rounding_of_open_and_close_is_tolerated() -> None:
    origin = Origin("f", "S", "row", np.arange(1))
    time = np.array([T0])
    for excess, passes in ((0.5, True), (2.0, False)):
        values = {"open": 10.0, "high": 10.0, "low": 9.0, "close": 9.0 * (1 - excess * RANGE_TOLERANCE), "volume": 0.0}
        arrays = {field: np.array([value]) for field, value in values.items()}
        if passes:
            check_bars(time, arrays, origin)
        else:
            with pytest.raises(DataError, match=r"f, symbol S, row 0: close 8.99998.* is below the low"):
                check_bars(time, arrays, origin)


def test_times_outside_the_calendar_are_refused() -> None:
    origin = Origin("f", "S", "row", np.arange(2))
    for second in (-(2**40), 2**40):
        with pytest.raises(DataError, match=r"f, symbol S, row 1: timestamp .* s is not between the years"):
            CHECKS[0](np.array([T0, second]), {}, origin)


# Files that cannot be read


def test_files_that_cannot_be_read(tmp_path: Path, write: WriteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no such file or folder" in message(tmp_path / "none")
    assert "the folder holds no bars in .parquet, .pq, .csv, .tsv, .txt files" in message(tmp_path)
    assert "note.md: not a bar file" in message(write("note.md", "x"))
    assert message(write("a.csv", "", end="")) == "a.csv: the file is empty"
    assert message(write("a.csv", "timestamp,open,high,low,close")) == "a.csv: holds no bars"
    assert "a.csv, line 1: no header" in message(write("a.csv", "1704067200,1,1,1,1,1,1,1"))
    assert "a.csv, line 3: 7 cells where the header has 6" in message(write("a.csv", HEADER, GOOD[0], "1,2,3,4,5,6,7"))
    assert message(write("a.parquet", "PAR1 and no more")).startswith("a.parquet: cannot be read: ")
    (tmp_path / "a.csv").write_bytes(b"\x1f\x8b\x08\x00")
    assert message(tmp_path / "a.csv") == "a.csv: the file is compressed; unpack it first"
    (tmp_path / "a.csv").write_bytes(b"time,open,high,low,close\n2024-01-02,\xff,1,1,1\n")
    assert message(tmp_path / "a.csv").startswith("a.csv: cannot be read: ")
    pl.DataFrame({c: [1.0] * 5 for c in HEADER.split(",")}).write_parquet(tmp_path / "a.parquet")
    monkeypatch.setattr(files, "MAX_ROWS", 4)
    assert "a.parquet: 5 rows; files over 4 rows" in message(tmp_path / "a.parquet")
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 10)
    assert "files over 4 GiB are not read" in message(tmp_path / "a.parquet")


BINANCE = "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy,taker_buy_quote,ignore"
PRICES = ["10,12,9,11,100", "11,13,10,12,101", "12,14,11,13,102"]


def table(header: str, times: list[str], more: str = "") -> str:
    return "\n".join([header, *(f"{time},{price}{more}" for time, price in zip(times, PRICES, strict=True))])


SAMPLES = [
    "\n".join([HEADER, *GOOD]).encode(),
    table(BINANCE, [str((T0 + 3600 * i) * 1000) for i in range(3)], ",0,0,0,0,0,0").encode(),
    table("Gmt time,Open,High,Low,Close,symbol", [f"01.01.2017 {h}:00:00.000" for h in (20, 21, 22)]).encode(),
    table(HEADER, [f"2024-11-03 0{h}:30" for h in range(3)]).encode("utf-16"),
]
PIECES = st.one_of(st.binary(max_size=3), st.sampled_from([b",", b"\n", b'"', b"-", b"e9", b"nan", b"\x00", b"9" * 30]))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), PIECES), min_size=1, max_size=4),
)
def test_damaged_files_raise_only_our_errors(
    tmp_path: Path, sample: bytes, edits: list[tuple[int, int, bytes]]
) -> None:
    for at, length, piece in edits:
        sample = sample[:at] + piece + sample[at + length :]
    path = tmp_path / "X.csv"
    path.write_bytes(sample)
    try:
        loaded = load_bars(path, timezone="America/New_York")
    except JaxppoError as error:
        assert "X.csv" in str(error) or "intervals" in str(error)  # noqa: PT017
    else:
        assert all(len(b.time) and np.isfinite(b.close).all() and (np.diff(b.time) > 0).all() for b in loaded)
