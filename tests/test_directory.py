"""The run directory: nothing is overwritten, no file is left half written, rows survive a resume."""

import csv

import pytest

from jaxppo.config.presets import load_config, resolve
from jaxppo.errors import RunDirectoryError
from jaxppo.run.directory import CONFIG, METRICS, MetricsCsv, claim, write_atomic, write_config


def files(folder):
    return sorted(p.name for p in folder.iterdir())


def rows(folder):
    with (folder / METRICS).open(newline="") as file:
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


def test_what_is_written_can_be_read_by_those_who_may_read_the_folder(tmp_path):
    path = tmp_path / "file.txt"
    write_atomic(path, "text")
    (tmp_path / "plain.txt").write_text("text")
    assert path.stat().st_mode == (tmp_path / "plain.txt").stat().st_mode


def test_config_is_read_back_as_it_was(tmp_path):
    resolved = resolve("production", {"reward": "v245", "symbols": ("A",), "learning_rate": 1e-7})
    write_config(tmp_path, resolved)
    assert load_config(tmp_path / CONFIG) == resolved.config


def test_metrics_rows_are_appended_under_one_header(tmp_path):
    table = MetricsCsv(tmp_path, ["update", "loss", "sharpe"])
    table.append({"update": 0, "sharpe": 1.5})
    table.append({"sharpe": float("nan"), "update": 5, "loss": 1 / 3})
    table.append({"update": 10, "sharpe": float("inf")})
    assert (tmp_path / METRICS).read_text().splitlines() == [
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
    assert files(tmp_path) == [METRICS]


def test_rows_that_are_kept_are_kept_as_they_are(tmp_path):
    table = MetricsCsv(tmp_path, ["update", "loss", "sharpe"])
    table.append({"update": 0, "sharpe": float("nan")})
    table.append({"update": 5, "loss": 1 / 3, "sharpe": float("inf")})
    before = (tmp_path / METRICS).read_text()
    table.keep_until(5)
    assert (tmp_path / METRICS).read_text() == before
    table.keep_until(-1)
    assert (tmp_path / METRICS).read_text() == "update,loss,sharpe\n"
    table.append({"update": 0, "loss": 1.0})
    assert (tmp_path / METRICS).read_text() == "update,loss,sharpe\n0,1,\n"


def test_a_last_row_that_was_cut_off_is_dropped_with_its_update(tmp_path):
    table = MetricsCsv(tmp_path, ["update", "loss"])
    table.append({"update": 5, "loss": 0.5})
    with (tmp_path / METRICS).open("a") as file:
        file.write("10,0.")
    table.keep_until(5)
    table.append({"update": 10, "loss": 0.25})
    assert (tmp_path / METRICS).read_text() == "update,loss\n5,0.5\n10,0.25\n"


def test_there_is_nothing_to_drop_before_the_first_row(tmp_path):
    MetricsCsv(tmp_path, ["update"]).keep_until(5)
    assert files(tmp_path) == []
