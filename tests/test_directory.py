"""The run directory: nothing is overwritten, no file is left half written, rows survive a resume."""

import csv
import errno
import json
import math
import os
import subprocess
import sys

import pytest

from jaxppo.config.layers import load_config, resolve
from jaxppo.errors import RunDirectoryError
from jaxppo.store.directory import (
    CONFIG,
    MANIFEST,
    METRICS_CSV,
    MetricsCsv,
    claim,
    earlier_manifest,
    held,
    write_config,
)
from jaxppo.store.files import Growing, write_atomic
from jaxppo.store.json import read_figures, read_json, write_json


def files(folder):
    return sorted(p.name for p in folder.iterdir())


def rows(folder):
    with (folder / METRICS_CSV).open(newline="") as file:
        return list(csv.DictReader(file))


def test_claim_makes_the_folder_and_its_parents(tmp_path):
    run = claim(tmp_path / "runs" / "one")
    assert run == tmp_path / "runs" / "one"
    assert files(run) == []
    assert claim(run) == run  # still empty


def test_claim_refuses_a_run(tmp_path):
    write_config(tmp_path, resolve("quick_test"))
    before = (tmp_path / CONFIG).read_bytes()
    with pytest.raises(RunDirectoryError, match=r"already holds a run .*--run-dir.*--resume"):
        claim(tmp_path)
    assert (tmp_path / CONFIG).read_bytes() == before


def test_claim_refuses_a_folder_of_other_files(tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(RunDirectoryError, match=f"{tmp_path}: already holds files"):
        claim(tmp_path)
    assert files(tmp_path) == ["thesis.txt"]


def test_claim_refuses_a_file(tmp_path):
    path = tmp_path / "run"
    path.write_text("not a folder")
    with pytest.raises(RunDirectoryError, match="is a file"):
        claim(path)
    with pytest.raises(RunDirectoryError, match="cannot be created"):
        claim(path / "below")
    assert path.read_text() == "not a folder"


def test_write_atomic_replaces_the_whole_file(tmp_path):
    path = tmp_path / "file.txt"
    write_atomic(path, "a long first version\n")
    write_atomic(path, "näxt\n")
    assert path.read_text(encoding="utf-8") == "näxt\n"
    assert files(tmp_path) == ["file.txt"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, 100_000 * "x" + "\ud800")  # a lone surrogate is no UTF-8
    assert path.read_text() == "old"
    assert files(tmp_path) == ["file.txt"]


FULL = """
import resource, sys
from pathlib import Path
import polars as pl
from jaxppo.cli import run_command
from jaxppo.store.files import write_frame
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # as of a disk with no more room
frame = pl.DataFrame({"equity": range(10_000)})
sys.exit(run_command(lambda: write_frame(Path(sys.argv[1]), frame)))
"""


@pytest.mark.parametrize("name", ["equity.csv", "equity.parquet"])
def test_a_table_that_finds_no_room_is_one_clear_error(tmp_path, name):
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path / name)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path / name}: File too large\n")
    assert files(tmp_path) == []


def test_what_is_written_can_be_read_by_those_who_may_read_the_folder(tmp_path):
    path = tmp_path / "file.txt"
    write_atomic(path, "text")
    (tmp_path / "plain.txt").write_text("text")
    assert path.stat().st_mode == (tmp_path / "plain.txt").stat().st_mode


def test_config_is_read_back_as_it_was(tmp_path):
    resolved = resolve("production", {"reward": "v245", "data": "bars", "symbols": ("A",), "learning_rate": 1e-7})
    write_config(tmp_path, resolved)
    assert load_config(tmp_path / CONFIG) == resolved.config


def test_metrics_rows_are_appended_under_one_header(tmp_path):
    table = MetricsCsv(tmp_path, ["update", "loss", "sharpe"])
    table.append({"update": 0, "sharpe": 1.5})
    table.append({"sharpe": float("nan"), "update": 5, "loss": 1 / 3})
    table.append({"update": 10, "sharpe": float("inf")})
    assert (tmp_path / METRICS_CSV).read_text().splitlines() == [
        "update,loss,sharpe",
        "0,,1.5",
        "5,0.333333333,",
        "10,,inf",
    ]


def test_metrics_refuse_a_column_that_is_not_declared(tmp_path):
    table = MetricsCsv(tmp_path, ["update"])
    with pytest.raises(ValueError, match="los"):
        table.append({"update": 1, "los": 2.0})


def test_a_resumed_run_drops_later_rows_and_writes_them_again(tmp_path):
    columns = ["update", "loss"]
    first = MetricsCsv(tmp_path, columns)
    for update in (0, 5, 10, 15):
        first.append({"update": update, "loss": update / 10})
    resumed = MetricsCsv(tmp_path, columns)
    resumed.keep_until(5)
    resumed.append({"update": 10, "loss": 7.0})
    assert [(r["update"], r["loss"]) for r in rows(tmp_path)] == [("0", "0"), ("5", "0.5"), ("10", "7")]
    assert files(tmp_path) == [METRICS_CSV]


def test_rows_that_are_kept_are_kept_as_they_are(tmp_path):
    table = MetricsCsv(tmp_path, ["update", "loss", "sharpe"])
    table.append({"update": 0, "sharpe": float("nan")})
    table.append({"update": 5, "loss": 1 / 3, "sharpe": float("inf")})
    before = (tmp_path / METRICS_CSV).read_text()
    table.keep_until(5)
    assert (tmp_path / METRICS_CSV).read_text() == before
    table.keep_until(-1)
    assert (tmp_path / METRICS_CSV).read_text() == "update,loss,sharpe\n"
    table.append({"update": 0, "loss": 1.0})
    assert (tmp_path / METRICS_CSV).read_text() == "update,loss,sharpe\n0,1,\n"


def test_a_last_row_that_was_cut_off_is_dropped_with_its_update(tmp_path):
    table = MetricsCsv(tmp_path, ["update", "loss"])
    table.append({"update": 5, "loss": 0.5})
    with (tmp_path / METRICS_CSV).open("a") as file:
        file.write("10,0.")
    table.keep_until(5)
    table.append({"update": 10, "loss": 0.25})
    assert (tmp_path / METRICS_CSV).read_text() == "update,loss\n5,0.5\n10,0.25\n"


@pytest.mark.parametrize("torn", ["1", "10", "10,0.", "\0\0\0", "ten,1\n", '"'])
def test_what_a_crash_left_at_the_end_is_no_row(tmp_path, torn):
    table = MetricsCsv(tmp_path, ["update", "loss"])
    table.append({"update": 0, "loss": 0.5})
    table.append({"update": 5, "loss": 0.5})
    whole = (tmp_path / METRICS_CSV).read_text()
    with (tmp_path / METRICS_CSV).open("a") as file:
        file.write(torn)  # "1" might be the begin of 10, and must not pass for an update up to 5
    assert MetricsCsv(tmp_path, ["update", "loss"]).keep_until(5) == 5
    assert (tmp_path / METRICS_CSV).read_text() == whole


def test_the_last_row_that_is_kept_is_told(tmp_path):
    table = MetricsCsv(tmp_path, ["update"])
    for update in (0, 5, 10):
        table.append({"update": update})
    assert table.keep_until(20) == 10  # 15 and 20 are missing: who asks can say so
    assert table.keep_until(7) == 5
    assert table.keep_until(-1) is None


def test_there_is_nothing_to_drop_before_the_first_row(tmp_path):
    assert MetricsCsv(tmp_path, ["update"]).keep_until(5) is None
    assert files(tmp_path) == []


def test_a_piece_that_could_not_be_written_is_written_with_the_next(tmp_path, monkeypatch):
    path = tmp_path / "rows"
    file = Growing(path)
    file.append(b"one\n")

    def full(number):  # after the piece has gone to the file, but who knows how much of it
        os.truncate(path, 6)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for piece in (b"two\n", b"three\n"):
            with pytest.raises(OSError, match="No space"):
                file.append(piece)
    assert path.read_bytes() != b"one\ntwo\nthree\n"
    assert file.size == len("one\ntwo\nthree\n")
    file.append(b"")
    assert path.read_bytes() == b"one\ntwo\nthree\n"
    file.append(b"four\n")
    assert path.read_bytes() == b"one\ntwo\nthree\nfour\n"
    file.cut(4)
    assert path.read_bytes() == b"one\n"


def test_one_process_at_a_time(tmp_path):
    with (
        held(tmp_path),
        pytest.raises(RunDirectoryError, match=r"another process is training in it"),
        held(tmp_path),
    ):
        pass
    with held(tmp_path):  # it was let go of
        assert files(tmp_path) == []


def test_a_manifest_that_cannot_be_read_is_none(tmp_path):
    assert earlier_manifest(tmp_path) == {}
    for text in ("", "{", "[1]", "[" * 100_000):
        (tmp_path / MANIFEST).write_text(text)
        assert earlier_manifest(tmp_path) == {}
    (tmp_path / MANIFEST).write_text('{"created": "then"}')
    assert earlier_manifest(tmp_path) == {"created": "then"}


def test_json_is_strict_on_disk_and_numbers_come_back(tmp_path):
    path = tmp_path / "figures.json"
    value = {"sharpe": math.nan, "factor": math.inf, "fitness": -math.inf, "rows": [{"trades": 3, "name": "best"}, 0.1]}
    write_json(path, value)
    kept = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert kept == {**value, "sharpe": None, "factor": "inf", "fitness": "-inf"}
    again = read_figures(path)
    assert math.isnan(again.pop("sharpe"))
    assert again == {k: v for k, v in value.items() if k != "sharpe"}
    # In a file whose nulls stand for nothing they stay what they are.
    assert read_json(path)["sharpe"] is None
    with pytest.raises(TypeError):
        write_json(path, {"when": object()})
    assert json.loads(path.read_text()) == kept  # nothing is half written
