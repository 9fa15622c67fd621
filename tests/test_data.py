"""`python -m jaxppo.data check`: what it prints and writes, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.robustness.mutations import CRYPTO, DAILY, generated
from jaxppo.data.__main__ import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One symbol of good bars."""
    path = tmp_path / "bars"
    path.mkdir()
    generated(CRYPTO, 400).write_parquet(path / f"{CRYPTO}.parquet")
    return path


def add_doubtful(folder: Path) -> None:
    frame = generated(DAILY, 300)
    frame = frame[:100].vstack(frame[110:])
    frame.write_parquet(folder / f"{DAILY}.parquet")


def add_refused(folder: Path) -> None:
    frame = generated(CRYPTO, 50)
    frame.reverse().write_parquet(folder / "ETHUSDT_1h.parquet")


def test_good_bars(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(folder), "--strict"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines[0].split()) == ("symbol class bar bars from to missing gaps no volume stale outliers verdict")
    assert " ".join(lines[1].split()) == "BTCUSDT crypto 1h 400 2023-01-02 2023-01-18 0 0 0 0 0 ok"
    assert lines[-1] == "1 ok, 0 doubtful, 0 refused"


def test_doubts_are_told_with_their_remedy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_doubtful(folder)
    assert main(["check", str(folder)]) == 0
    out = capsys.readouterr().out
    assert (
        "doubtful: gaps\n  IBM 1d: 10 of 300 expected bars are missing in 1 gap; the longest, of 10 bars, follows"
        in out
    )
    assert "  What to do: download that time again;" in out
    assert out.endswith("1 ok, 1 doubtful, 0 refused\n")
    assert main(["check", str(folder), "--strict"]) == 1
    assert main(["check", str(folder), "--strict", "--interval", "1h"]) == 0


def test_a_bad_file_does_not_hide_the_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_doubtful(folder)
    add_refused(folder)
    (folder / "old.csv.gz").write_bytes(b"\x1f\x8b")
    assert main(["check", str(folder)]) == 2
    out = capsys.readouterr().out
    assert "refused: ETHUSDT_1h.parquet, symbol ETHUSDT, row 1: timestamp 2023-01-04 00:00:00 UTC comes before" in out
    assert "the file is newest first, reverse it" in out
    assert "doubtful: gaps" in out
    assert "not read, no bars as they are: old.csv.gz" in out
    assert out.endswith("1 ok, 1 doubtful, 1 refused\n")


def test_everything_is_written_for_machines(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_doubtful(folder)
    add_refused(folder)
    out = tmp_path / "report.json"
    assert main(["check", str(folder), "--out", str(out)]) == 2
    report = json.loads(out.read_text())
    assert [(s["symbol"], s["interval"], s["verdict"]) for s in report["symbols"]] == [
        ("BTCUSDT", "1h", "ok"),
        ("IBM", "1d", "doubtful"),
    ]
    (finding,) = report["symbols"][1]["findings"]
    assert (finding["kind"], finding["level"], finding["count"], finding["bar"]) == ("gaps", "doubtful", 1, 99)
    assert finding["time"] == "2023-05-25T00:00:00+00:00"
    assert [r["symbol"] for r in report["refused"]] == ["ETHUSDT"]
    capsys.readouterr()
    assert main(["check", str(folder), "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"error: {out}: exists and is never overwritten; choose another --out\n"


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["https://me:pw@host/x.csv"], "data: addresses (https:) are not read"),
        (["{}", "--symbols", "ETHUSDT"], "no symbol 'ETHUSDT'; did you mean 'BTCUSDT'?"),
        (["{}", "--interval", "1d"], "no bars at interval 1d; there are 1h (1 symbol)"),
        (["{}", "--interval", "soon"], "interval 'soon' is not understood"),
        (["{}", "--timezone", "Mars"], "unknown time zone 'Mars'"),
        (["{}", "--out", "{}/no/x.json"], "there is no folder"),
    ],
)
def test_wrong_requests(folder: Path, capsys: pytest.CaptureFixture[str], args: list[str], error: str) -> None:
    assert main(["check", *(a.format(folder) for a in args)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert error in said
    assert "pw" not in said


def test_names_are_not_taken_for_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("[red]", "[", "[link=x]y[<]"):
        generated(CRYPTO, 60).write_parquet(tmp_path / f"{name}_1h.parquet")
    assert main(["check", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert all(f"{name} " in out for name in ("[red]", "[", "[link=x]y[<]"))
