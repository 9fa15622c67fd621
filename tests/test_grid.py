"""A population from the command line: a run directory a member, each what the run alone leaves; the grid's words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from test_session import TIMES, bars, call, flags, no_report  # noqa: F401

from jaxppo.config.schema import Config
from jaxppo.errors import ConfigError
from jaxppo.play.best import ranked
from jaxppo.store.checkpoint import restore_policy, restore_train_state
from jaxppo.store.directory import tried
from jaxppo.store.read import load_run
from jaxppo.store.trackers import TRACKERS, Tracker
from jaxppo.train.grid import grid_values, member_configs, parse_grid, require_grid
from jaxppo.train.population import PopulationTrainer

GRID = ("--grid", "learning_rate", "3e-4", "1e-2", "--grid", "seed", "6", "7")
AT_ONCE = ("--members-at-once", "2")  # the program of tests/test_population.py, which is compiled once a session
REPO = Path(__file__).resolve().parent.parent


class Steps:
    """A tracker that writes the steps it is told of, and how the run ended."""

    def __init__(self, run):
        self.id, self.path, self.told = run.name, run.folder / "steps.txt", []

    def log(self, step, values):
        self.told.append(step)

    def close(self, status):
        self.path.write_text(f"{max(self.told)} {status}")


@pytest.fixture(scope="module")
def args(bars) -> list[str]:  # noqa: F811
    return [*flags(), "--data", str(bars)]


@pytest.fixture(scope="module")
def parent(args, tmp_path_factory):
    TRACKERS.add(Tracker("steps", "", Steps))
    done = call(tmp_path_factory.mktemp("population") / "p", *args, *GRID, *AT_ONCE, "--track", "steps")
    TRACKERS.remove("steps")
    return done


def test_each_member_is_the_run_that_it_would_be_alone(parent, args, tmp_path):
    """Member 3 of 4, in the second of two passes, against `train` with its values: rows, policies, files."""
    assert parent.code == 0, parent.err
    own = parent.path / "003"
    with no_report():
        single = call(tmp_path / "alone", *args, "--seed", "7", "--learning-rate", "1e-2")
    mine, theirs = load_run(own), load_run(single.path)
    assert mine.config == theirs.config
    assert mine.metrics.columns == theirs.metrics.columns
    for column in mine.metrics.drop(TIMES).columns:
        a, b = (np.asarray(x.metrics[column].to_list(), np.float64) for x in (mine, theirs))
        np.testing.assert_allclose(a, b, rtol=5e-3, atol=1e-5, err_msg=column)
    for which in ("best", "final"):
        one, other = (restore_policy(x, which) for x in (own, single.path))
        np.testing.assert_allclose(one.params, other.params, rtol=1e-4, atol=1e-6)
        assert one.info.update == other.info.update
    state, _ = restore_train_state(own, "final")
    again, _ = restore_train_state(single.path, "final")
    np.testing.assert_array_equal(state.key, again.key)
    np.testing.assert_array_equal(state.paths.t, again.paths.t)
    files = {str(p.relative_to(single.path)) for p in (single.path / "validation").iterdir()}
    assert files == {str(p.relative_to(own)) for p in (own / "validation").iterdir()}
    assert (own / "gate.json").is_file()
    assert json.loads((own / "trackers.json").read_text()) == {"steps": "003"}  # every member by itself
    assert (own / "steps.txt").read_text() == f"{mine.metrics['env_steps'].max():.0f} finished"
    told = {"member": "003", "values": {"learning_rate": 0.01, "seed": 7}, "trials": 4, "looks": 12}
    assert mine.manifest["population"] == told
    assert tried(own) == (4, 12)  # which a backtest deflates by
    assert tried(single.path) == (0, 0)


def test_the_table_and_the_lines(parent):
    table = pl.read_csv(parent.path / "members.csv", schema_overrides={"member": pl.String})
    assert table["member"].to_list() == ["000", "001", "002", "003"]
    assert table["learning_rate"].to_list() == [3e-4, 3e-4, 1e-2, 1e-2]
    assert table["seed"].to_list() == [6, 7, 6, 7]
    assert table["updates"].to_list() == [3] * 4
    summary = json.loads((parent.path / "summary.json").read_text())
    assert summary["best"] == table["member"][ranked(table["best_fitness"].to_list())[0]]
    assert summary["looks"] == 4 * 3  # before the first update, after 2 and after 3
    assert summary["program"]["members_at_once"] == 2
    assert summary["env_steps"] == 4 * 3 * 64
    for name in table["member"]:
        assert parent.out.count(f"{name}: learning_rate") == 1
    assert "a population of 4 members: learning_rate 0.0003 0.01 x seed 6 7" in parent.out
    assert "in 2 passes" in parent.out
    assert "the best of 12 looks at the same validation bars" in parent.out
    assert not (parent.path / "snapshots").exists()


def test_it_goes_on_after_the_last_segment_and_ends_as_if_never_stopped(parent, args, tmp_path):
    segment, done = PopulationTrainer._segment, []

    def cut(self, length, display):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(length)
        segment(self, length, display)

    path = tmp_path / "p"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PopulationTrainer, "_segment", cut)
        stopped = call(path, *args, *GRID, *AT_ONCE)
    assert stopped.code == 130
    assert f"--run-dir {path} --resume" in stopped.err
    refused = call(path, "--resume", "--grid", "seed", "1")
    assert "leave --grid out" in refused.err
    resumed = call(path, "--resume", *AT_ONCE)
    assert resumed.code == 0, resumed.err
    assert "resumed at update 2 of 3" in resumed.out
    for name in ("000", "003"):
        one, other = (load_run(p / name).metrics.drop(TIMES) for p in (path, parent.path))
        assert one.equals(other, null_equal=True)
    tables = [(p / "members.csv").read_bytes() for p in (path, parent.path)]
    assert tables[0] == tables[1]
    again = call(path, "--resume")
    assert again.code == 2
    assert "the population is finished; go on with one member by its folder" in again.err


@pytest.mark.slow
def test_a_killed_population_loses_nothing_but_its_segment(args, parent, tmp_path):
    path = tmp_path / "p"
    command = [sys.executable, "-m", "jaxppo.train", "--run-dir", str(path), *args, *GRID, *AT_ONCE]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as process:
        while not (path / "snapshots" / "checkpoints" / "0").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    resumed = call(path, "--resume", *AT_ONCE)
    assert resumed.code == 0, resumed.err
    assert (path / "members.csv").read_bytes() == (parent.path / "members.csv").read_bytes()


def test_words_of_a_grid():
    grid = parse_grid([["learning-rate", "1e-4", "3"], ["seed", "0", "5"]])
    assert grid == {"learning_rate": (1e-4, 3.0), "seed": (0, 5)}
    assert grid_values(grid)[1:3] == [{"learning_rate": 1e-4, "seed": 5}, {"learning_rate": 3.0, "seed": 0}]
    saved = yaml.safe_load(json.dumps({k: list(v) for k, v in grid.items()}))
    assert require_grid(saved, "here") == grid
    assert [c.seed for c in member_configs(Config(), grid_values({"seed": (3, 4)}))] == [3, 4]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([["lanes", "8", "16"]], "lanes: a population varies arrays of one program only"),
        ([["learning_rat", "1"]], "did you mean 'learning_rate'"),
        ([["seed"]], "--grid seed: needs a field and its values"),
        ([["seed", "1", "1"]], "--grid seed: has 1 twice"),
        ([["gamma", "0.9"], ["gamma", "0.8"]], "--grid gamma: is given twice"),
        ([["gamma", "high"]], "gamma must be of type float, got 'high'"),
        ([["seed", "1.5"]], "seed must be of type int, got 1.5"),
    ],
)
def test_what_is_no_grid_is_refused(words, sentence):
    with pytest.raises(ConfigError) as error:
        parse_grid(words)
    assert sentence in str(error.value)


def test_a_member_whose_values_do_not_fit_is_named(args, tmp_path):
    wrong = call(tmp_path / "p", *args, "--grid", "gamma", "0.9", "1.5")
    assert wrong.code == 2
    assert "--grid gamma 1.5: gamma: must be from 0 to 1, got 1.5" in wrong.err
    assert not (tmp_path / "p").exists()
    swept = call(tmp_path / "p", *args, "--grid", "encoder", "tcn", "none")
    assert "encoder: a population varies arrays of one program only" in swept.err
    assert "python -m jaxppo.sweep trains variants of encoder one after another" in swept.err
