"""Files made to hang, crash, fill the memory or fool: each is refused with an error of ours, soon."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from benchmarks.robustness.hostile import GOOD, HOSTILE, symbol_that_climbs
from jaxppo.errors import DataError, JaxppoError
from jaxppo.market import files
from jaxppo.market.bars import load_bars, survey_bars
from jaxppo.market.parquet import check_sizes

SECONDS = 20


class TooLong(BaseException):
    """Not an error that the loaders could take for one of theirs."""


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = HOSTILE[name](tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(JaxppoError) as caught:
        load_bars(path, timezone="UTC")
    message = str(caught.value)
    assert len(message) < 500
    assert message.isprintable()
    assert "s3cret" not in message
    assert sorted(tmp_path.rglob("*")) == before  # nothing unpacked
    assert not list(tmp_path.parent.glob("escaped*"))
    assert capfd.readouterr().err == ""


def test_the_survey_names_hostile_files_and_reads_the_others(tmp_path: Path) -> None:
    (tmp_path / "GOOD_1d.csv").write_text(GOOD)
    os.mkfifo(tmp_path / "PIPE.csv")
    (tmp_path / "GZ.csv").write_bytes(b"\x1f\x8b\x08\x00")
    (tmp_path / "BAD_1d.csv").write_text(GOOD.replace("-03T00:00:00Z,10", "-03T00:00:00Z,-10"))
    bars, refused = survey_bars(tmp_path)
    assert [b.symbol for b in bars] == ["GOOD"]
    assert [(r.file, r.symbol) for r in refused] == [("BAD_1d.csv", "BAD"), ("GZ.csv", "GZ"), ("PIPE.csv", "PIPE")]
    assert refused[0].reason == "BAD_1d.csv, symbol BAD, line 4: open -10 is not positive"


def test_one_bad_symbol_of_a_file_leaves_the_others(tmp_path: Path) -> None:
    rows = GOOD.splitlines()[1:]
    lines = [f"{row},{symbol}" for row in rows for symbol in ("A", "B", "C")]
    lines[4] = lines[4].replace(",9,", ",0,")
    (tmp_path / "x.csv").write_text("timestamp,open,high,low,close,volume,symbol\n" + "\n".join(lines))
    bars, refused = survey_bars(tmp_path / "x.csv")
    assert [b.symbol for b in bars] == ["A", "C"]
    assert [r.reason for r in refused] == ["x.csv, symbol B, line 6: low 0 is not positive"]


def test_files_of_a_symbol_that_overlap_are_refused_together(tmp_path: Path) -> None:
    for name in ("A_1d-one.csv", "A_1d-two.csv", "B_1d.csv"):
        (tmp_path / name).write_text(GOOD)
    bars, refused = survey_bars(tmp_path)
    assert [b.symbol for b in bars] == ["B"]
    assert len(refused) == 1
    assert "A_1d-one.csv and A_1d-two.csv overlap" in refused[0].reason


def test_a_symbol_that_looks_like_a_path_is_only_a_name(tmp_path: Path) -> None:
    (bars,) = load_bars(symbol_that_climbs(tmp_path), interval="1h")
    assert bars.symbol == "../" * 13


def test_no_symbol_is_called_as_all_of_them_together(tmp_path: Path) -> None:
    (tmp_path / "POOLED_1d.csv").write_text(GOOD)
    with pytest.raises(DataError, match="POOLED is what reports call all symbols together; rename the symbol"):
        load_bars(tmp_path)


@pytest.mark.parametrize("name", ["A.csv", "A.parquet"])
def test_rows_are_counted_before_memory_is_taken(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    frame = pl.DataFrame({"timestamp": [1_704_067_200 + 3_600 * i for i in range(2_000)]})
    frame = frame.with_columns(pl.lit(1.0).alias(f) for f in ("open", "high", "low", "close"))
    frame.write_csv(path) if name.endswith("csv") else frame.write_parquet(path)
    read = []
    monkeypatch.setattr(files.pl, "read_csv", lambda *a, **k: read.append(a))
    monkeypatch.setattr(os, "sysconf", lambda what: {"SC_PAGE_SIZE": 4_096, "SC_PHYS_PAGES": 50}[what])
    with pytest.raises(DataError, match=r"rows take about 0 GiB to read and this machine has 0 GiB of memory"):
        load_bars(path)
    assert read == []
    monkeypatch.setattr(files, "MAX_ROWS", 1_999)
    with pytest.raises(DataError, match=rf"{name}: 200[01]? rows; files over 1999 rows are not read"):
        load_bars(path)


def test_a_file_of_empty_lines_is_counted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_ROWS", 1_000_000)
    (tmp_path / "A.csv").write_bytes(GOOD.encode() + b"\n" * 2_000_000)
    with pytest.raises(DataError, match="2000006 rows; files over 1000000 rows"):
        load_bars(tmp_path)


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        load_bars(tmp_path)
    (tmp_path / "A.csv").write_text(GOOD)
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(DataError, match=r"A\.csv: cannot be read: .*Permission denied"):
        load_bars(tmp_path / "A.csv")


def test_what_others_say_meanwhile_is_not_lost(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with files.reading(tmp_path):
        os.write(2, b"a warning of somebody's\n")
    assert capfd.readouterr().err == "a warning of somebody's\n"

    def panic() -> None:
        with files.reading(tmp_path):
            os.write(2, b"thread panicked at ...\n")
            raise pl.exceptions.PanicException("index out of bounds")

    with pytest.raises(DataError, match="cannot be read: index"):
        panic()
    assert capfd.readouterr().err == ""


def test_a_footer_says_how_many_rows_there_are(tmp_path: Path) -> None:
    path = tmp_path / "A.parquet"
    frame = pl.DataFrame({"a": range(1_000), "b": [[{"c": "x" * (i % 50)}] for i in range(1_000)], "d": [None] * 1_000})
    for size in (10, 333, 1_000):
        frame.write_parquet(path, row_group_size=size)
        assert check_sizes(path) == 1_000
    frame.clear().write_parquet(path)
    assert check_sizes(path) == 0


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"PAR1", "does not end as a Parquet file"),
        (b"PAR1" + bytes(8) + b"PARE", "does not end as a Parquet file"),
        (b"PAR1" + struct.pack("<I", 100) + b"PAR1", "its footer claims 100 bytes, more than it has room for"),
        # Field 4, a list (0x49) of 0xF structs or more: 2^28 - 1 of them.
        (b"PAR1\x49\xfc\xff\xff\xff\x7f" + struct.pack("<I", 6) + b"PAR1", "claims a list of 268,435,455"),
        (b"PAR1" + b"\x1c" * 100 + struct.pack("<I", 100) + b"PAR1", "nested too deeply"),
        (b"PAR1" + b"\x18\x7f" + struct.pack("<I", 2) + b"PAR1", "ends in the middle"),
        (b"PAR1" + b"\x16" + b"\xff" * 10 + struct.pack("<I", 11) + b"PAR1", "cannot be understood"),
        # 5 rows (field 3, i64, zigzag 10) in no group.
        (b"PAR1" + b"\x36\x0a\x00" + struct.pack("<I", 3) + b"PAR1", "do not add up"),
    ],
)
def test_footers_that_claim_what_is_not_there(data: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "A.parquet").write_bytes(data)
    with pytest.raises(ValueError, match=problem):
        check_sizes(tmp_path / "A.parquet")
    with pytest.raises(DataError, match=problem):
        load_bars(tmp_path)


def test_places_outside_of_the_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "A.parquet"
    frame = pl.DataFrame({"timestamp": [1_704_067_200]})
    frame.with_columns(pl.lit(1.0).alias(f) for f in ("open", "high", "low", "close")).write_parquet(path)
    data = path.read_bytes()
    for cut in (20, 60):  # bytes of the data are lost, the footer is whole
        path.write_bytes(data[:8] + data[8 + cut :])
        with pytest.raises(DataError, match=r"A\.parquet: cannot be read"):
            load_bars(path)


def test_no_bit_of_a_page_header_ends_the_process(tmp_path: Path) -> None:
    # polars 2.1 aborts for some of them, which no `except` catches.
    path = tmp_path / "A_1h.parquet"
    frame = pl.DataFrame({"timestamp": [1_704_067_200 + 3_600 * i for i in range(50)]})
    frame = frame.with_columns((pl.int_range(50) + 5.0).alias(f) for f in ("open", "high", "low", "close"))
    for compression in ("uncompressed", "zstd"):
        frame.write_parquet(path, compression=compression)
        data = path.read_bytes()
        for at in range(4, 40):
            for bit in range(8):
                path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
                with contextlib.suppress(DataError):
                    load_bars(path)


def test_a_column_of_an_offset_that_is_no_zone() -> None:
    # What polars says of a Parquet column of pandas whose offset is +05:45; polars itself cannot write one.
    said = r"^x\.parquet: a column of times has the zone '\+05:45', which is no name .* in UTC$"
    with pytest.raises(DataError, match=said), files.reading(Path("x.parquet")):
        raise pl.exceptions.ComputeError("unable to parse time zone: '+05:45'. Please check the Time Zone Database")
