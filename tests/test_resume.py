"""Runs that are cut off anywhere, stopped, short of room, damaged or extended, and then go on.

What they must end as is a run that nothing happened to: `differences` compares state, best policy, rows, events, files.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import yaml

import jaxppo.page.run
from benchmarks.robustness.kills import compiled_once, cut_here, cuts, run_here, wait_until
from benchmarks.robustness.runs import differences, flags, metrics, scalars, start, write_bars
from jaxppo.config.layers import DeviceInfo
from jaxppo.page import tables
from jaxppo.page.progress import Display
from jaxppo.store import checkpoint
from jaxppo.store.checkpoint import restore_policy, restore_run
from jaxppo.store.directory import MetricsCsv, changed_environment, environment_facts, held
from jaxppo.store.read import load_run
from jaxppo.train import loop
from jaxppo.train.stop import Pace

REPO = Path(__file__).resolve().parent.parent
UPDATES = 12  # validated before the first and after every 2


@pytest.fixture(scope="module", autouse=True)
def quick():
    """One compilation for all runs, and no charts."""
    with compiled_once(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxppo.page.run, "write_report", lambda run_dir: run_dir / "report.html")
        yield


@pytest.fixture(scope="module")
def args(tmp_path_factory) -> list[str]:
    return [*flags(), f"--data={write_bars(tmp_path_factory.mktemp('bars'))}"]


@pytest.fixture(scope="module")
def whole(args, tmp_path_factory) -> Path:
    """The run that nothing happened to."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    status, out = run_here(run_dir, args)
    assert status == 0, out
    return run_dir


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def goes_on(run_dir: Path, args: list[str], whole: Path) -> str:
    """The output of the resumed run, which must end as `whole`."""
    status, out = run_here(run_dir, args)
    assert status == 0, out
    assert differences(whole, run_dir) == []
    return out


def refused(run_dir: Path, args: list[str]) -> str:
    """The one line of an error."""
    status, out = run_here(run_dir, args)
    assert status == 2, out
    errors = [line for line in out.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert out.splitlines()[-1] == errors[0]
    return errors[0].removeprefix("error: ")


def newest(run_dir: Path) -> int:
    return max(int(p.name) for p in (run_dir / "checkpoints").iterdir())


# Cut off


def test_two_runs_do_not_differ_and_a_difference_is_found(whole, copy, args):
    assert differences(whole, copy) == []
    path = copy / "metrics.csv"
    path.write_text(path.read_text().replace("\n12,", "\n12,9", 1))
    assert differences(whole, copy) == ["metrics.csv"]


def test_a_run_that_is_cut_anywhere_goes_on_as_if_it_had_not_been(whole, args, tmp_path):
    for where, differ in cuts(tmp_path, args, whole, 3, seed=1):
        assert differ == [], where


@pytest.mark.slow
def test_thirty_more_cuts(whole, args, tmp_path):
    for where, differ in cuts(tmp_path, args, whole, 30, seed=2):
        assert differ == [], where


def test_a_run_that_was_killed_while_it_compiled_begins_again(whole, args, tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    shutil.copy(whole / "config.yaml", run_dir)
    assert "the run has no checkpoint yet: it begins again from the start" in goes_on(run_dir, args, whole)


def test_a_run_without_a_checkpoint_begins_again_whatever_it_has_written(whole, copy, args):
    shutil.rmtree(copy / "checkpoints")
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(text.replace('"finished"', '"unfinished"'))
    assert "it begins again from the start" in goes_on(copy, args, whole)


def test_an_interrupted_compilation_leaves_a_folder_for_the_next_try(args, tmp_path, monkeypatch):
    def interrupted(*args: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxppo.train.run.begin_run", interrupted)
    status, _ = run_here(tmp_path / "run", args)
    assert status == 130
    assert list((tmp_path / "run").iterdir()) == []


def test_rows_and_events_that_are_lost_are_told(copy, args):
    cut = [line for line in (copy / "metrics.csv").read_text().splitlines() if not line.startswith("12,")]
    (copy / "metrics.csv").write_text("\n".join(cut) + "\n")
    status, out = run_here(copy, args)
    assert status == 0
    assert "warning: metrics.csv is not whole: what it had of earlier updates up to 12 is lost" in out


def test_two_processes_do_not_train_in_one_folder(copy, args):
    with held(copy):
        assert refused(copy, args).startswith(f"{copy}: another process is training in it")


# Damaged


def test_the_newest_sound_checkpoint_is_used_and_what_came_later_is_done_again(whole, copy, args):
    path = copy / "checkpoints" / str(UPDATES) / "info.json"
    path.write_text(path.read_text()[:-1])
    out = goes_on(copy, args, whole)
    assert f"warning: {path.parent}: is damaged: info.json has " in out
    assert "the checkpoint of update 10 is used" in out
    assert "resumed at update 10 of 12" in out


def test_no_sound_checkpoint_is_one_clear_error(copy, args):
    for path in (copy / "checkpoints").glob("*/info.json"):
        path.unlink()
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    text = refused(copy, args)
    assert text.startswith("none of the checkpoints is sound: ")
    assert text.count("info.json is missing") == len(list((copy / "checkpoints").iterdir()))
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before


# No room


def full(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a file")


def for_updates(patch: pytest.MonkeyPatch, updates: set[int], name: str) -> None:
    """The disk is full while checkpoints of these updates are written: at the seal, or in Orbax."""
    write = checkpoint.CheckpointWriter._write

    def attempt(self: Any, state: Any, best: Any, info: Any) -> None:
        with pytest.MonkeyPatch.context() as inner:
            if info.update in updates:
                target = checkpoint.orbax() if name == "save_checkpointables" else checkpoint
                inner.setattr(target, name, full)
            write(self, state, best, info)

    patch.setattr(checkpoint.CheckpointWriter, "_write", attempt)


@pytest.mark.parametrize("name", ["save_checkpointables", "write_json", "seal"])
def test_a_full_disk_is_told_and_the_run_goes_on(whole, args, tmp_path, monkeypatch, name):
    for_updates(monkeypatch, {0, 2, 6}, name)
    status, out = run_here(tmp_path / "run", args)
    assert status == 0, out
    assert differences(whole, tmp_path / "run") == []
    told = [line for line in out.splitlines() if line.startswith("warning: ") and "saved" in line]
    assert len(told) == 3
    for text in told:
        assert re.search("could not be saved .*No space left on device.*; older ones are kept", text)


def test_a_full_disk_at_the_last_save_is_tried_again_and_else_an_error(whole, args, tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        for_updates(patch, {12}, "seal")
        status, out = run_here(run_dir, args)
    assert status == 2
    assert out.count("could not be saved") == 2
    assert "the run is done but not saved: make room and go on from update 10" in out.splitlines()[-1]
    assert newest(run_dir) == 10
    goes_on(run_dir, args, whole)


def test_rows_that_cannot_be_written_hold_the_checkpoint_back(whole, args, tmp_path, monkeypatch):
    append, failing = MetricsCsv.append, {2, 6}

    def attempt(self: MetricsCsv, row: Any) -> None:
        if row["update"] in failing:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "fsync", full)
                append(self, row)
        append(self, row)

    monkeypatch.setattr(MetricsCsv, "append", attempt)
    status, out = run_here(tmp_path / "run", args)
    assert status == 0, out
    assert len([line for line in out.splitlines() if line.startswith("warning: a file: No space left")]) == 2
    assert differences(whole, tmp_path / "run") == []  # with every row, once


@pytest.mark.slow
def test_a_disk_that_is_really_full(whole, args, tmp_path):
    # Files may be half as long as the events get: from the middle of the run on no checkpoint is saved any more.
    most = max(f.stat().st_size for f in (whole / "tensorboard").iterdir()) // 2
    limit = f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most}));"
    code = limit + "from jaxppo.train import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "--run-dir", str(tmp_path / "run"), *args]
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}  # whose entries are cut short, too
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=REPO, check=False)
    assert done.returncode == 2
    assert "File too large" in done.stdout
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]  # beside TensorStore's own
    assert "make room" in error or "mend that" in error
    # Whole rows and events, whatever came of them.
    assert {len(row) for row in metrics(tmp_path / "run")[1]} == {len(metrics(tmp_path / "run")[1][0])}


# Stopped


def test_a_time_limit_stops_before_it_is_reached(whole, args, tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Pace, "foresee", lambda self, n: 1e6 if len(self._taken) == 2 else 0.0)
        status, out = run_here(run_dir, [*args, "--max-seconds=10000"])
    assert status == 75
    assert f"stopped at update 4 of 12; go on with --run-dir {run_dir} --resume" in out.splitlines()[-1]
    assert newest(run_dir) == 4
    assert json.loads((run_dir / "manifest.json").read_text())["stopped"]["status"] == 75
    with monkeypatch.context() as patch:  # a resumed run knows how long an update takes: none fits
        patch.setattr(loop, "Pace", lambda seconds: Pace(1e6))
        text = refused(run_dir, [*args, "--max-seconds=10000"])
    assert "without a segment done: give more" in text
    goes_on(run_dir, args, whole)
    assert "stopped" not in json.loads((run_dir / "manifest.json").read_text())


@pytest.mark.parametrize("value", ["-1", "nan", "inf"])
def test_a_limit_that_is_none_is_refused(args, tmp_path, value):
    assert "max_seconds: must be 0 (no limit) or above" in refused(tmp_path / "run", [*args, f"--max-seconds={value}"])
    assert not (tmp_path / "run").exists()


def test_a_signal_saves_and_stops(args, tmp_path):
    run_dir = tmp_path / "run"
    own = ["--run-dir", str(run_dir), *args, "--n-updates=20000", "--validate-every=50"]
    process = start("jaxppo.train", *own)
    wait_until(lambda: (run_dir / "checkpoints" / "50").exists() or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert process.returncode == 143, err
    assert "SIGTERM: finishing the segment and saving; send it again to stop at once" in out
    (text,) = err.splitlines()
    stopped = re.fullmatch(
        r"interrupted: SIGTERM; stopped at update (\d+) of 20000; go on with --run-dir .* --resume", text
    )
    assert stopped, text
    assert newest(run_dir) == int(stopped[1])
    assert metrics(run_dir)[1][-1][0] == stopped[1]


@pytest.mark.slow
def test_a_second_signal_stops_in_the_middle_of_a_segment(args, tmp_path):
    # One segment of all updates would take a minute.
    run_dir = tmp_path / "long"
    process = start("jaxppo.train", "--run-dir", str(run_dir), *args, "--n-updates=200000", "--validate-every=200000")
    wait_until(lambda: (run_dir / "checkpoints" / "0").exists() or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    for line in process.stdout:
        if "SIGINT: finishing the segment" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert err.endswith("stopped at once by a second signal (SIGINT)\n")
    assert newest(run_dir) == 0


# Extended


def rates(run_dir: Path) -> dict[int, tuple[float, float]]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["learning_rate"]]
    return {int(r["update"]): (float(r["learning_rate"]), float(r["entropy_coefficient"])) for r in rows}


@pytest.mark.slow
def test_a_run_is_extended_when_asked_to_and_says_what_that_does(whole, copy, args, tmp_path):
    status, out = run_here(copy, [*args, "--extend-to=20"])
    assert status == 0, out
    # N = 20: W = 1, M = 19, k = 12: .01 + .99 (1 + cos(pi 11 / 19)) / 2 = .3835; .01 of that. The entropy coefficient
    # falls over .6 x 20 = 12 updates, the costs rise over .65 x 19 = 12.35, of which 12 are 97 %. With N = 12 all are
    # at their ends: .01 x .01, .005 and 100 %.
    line = next(line for line in out.splitlines() if line.startswith("extended from 12 to 20 updates"))
    assert "the learning rate goes on at 0.00383 (with 12 it would be 0.0001)" in line
    assert "the entropy coefficient at 0.005 (0.005)" in line
    assert "training's share of the costs at 97% (100%)" in line
    assert line.endswith("validations go on every 2 updates")
    assert metrics(copy)[1][:7] == metrics(whole)[1]  # what was done stays as it was
    assert [row[0] for row in metrics(copy)[1]] == [str(u) for u in range(0, 21, 2)]
    assert rates(copy)[14][0] == pytest.approx(0.01 * (0.01 + 0.99 * (1 + np.cos(np.pi * 12 / 19)) / 2), rel=1e-5)
    assert scalars(copy)[: len(scalars(whole))] == scalars(whole)
    assert restore_run(copy)[2].final
    assert yaml.safe_load((copy / "config.yaml").read_text())["budget"]["n_updates"] == 20
    # Once more, cut: the flag may be given again, or not.
    again = tmp_path / "again"
    shutil.copytree(whole, again)
    cut_here(again, [*args, "--extend-to=20"], 5000)
    saved = yaml.safe_load((again / "config.yaml").read_text())["budget"]["n_updates"]
    assert saved == 20
    status, out = run_here(again, [a for a in args if "n-updates" not in a])
    assert status == 0, out
    assert differences(copy, again) == []


def test_fewer_updates_are_no_extension(copy, args):
    assert "extend_to: the run has 12 updates already, got 8" in refused(copy, [*args, "--extend-to=8"])


def test_an_extension_needs_a_run(args, tmp_path):
    assert "--extend-to goes on with a run: give --resume too" in refused(tmp_path / "run", [*args, "--extend-to=20"])


def test_more_updates_without_asking_are_refused_with_the_way(copy, args):
    text = refused(copy, [*args, "--n-updates=20"])
    assert "differs in n_updates (saved 12, given 20)" in text
    assert "give --extend-to" in text


# Changed


def test_other_software_or_hardware_is_told_and_kept(whole, copy, args):
    path = copy / "manifest.json"
    manifest = json.loads(path.read_text())
    versions = manifest["versions"]
    manifest["versions"] = {**versions, "jaxlib": "0.1.2"}
    manifest["device"]["kind"] = "NVIDIA L4"
    del manifest["python"]  # as of an earlier version, which did not tell
    path.write_text(json.dumps(manifest))
    status, out = run_here(copy, args)
    assert status == 0, out
    (line,) = [line for line in out.splitlines() if "goes on with" in line]
    assert line == (
        f"warning: goes on with jaxlib {versions['jaxlib']} (before 0.1.2), device kind cpu (before NVIDIA L4): what is"
        " computed from here on need not have the same bits as a run that was never stopped"
    )
    kept = json.loads(path.read_text())
    assert kept["versions"] == versions
    (entry,) = kept["environments"]
    assert entry["changed"]["jaxlib"] == {"before": "0.1.2", "now": versions["jaxlib"]}
    since = dict(tables.facts(load_run(copy)))[f"Since update {UPDATES}"]
    assert since == f"jaxlib {versions['jaxlib']} (before 0.1.2), device kind cpu (before NVIDIA L4)"
    status, out = run_here(copy, args)  # once more, with what it now is
    assert "goes on with" not in out
    assert json.loads(path.read_text())["environments"] == [entry]


def test_what_a_manifest_does_not_tell_is_not_compared():
    facts = environment_facts(DeviceInfo("cpu", "cpu", 1, None))
    assert facts["device"]["processor"]
    assert changed_environment(facts, facts) == {}
    for damaged in ({}, {"versions": None}, {"versions": {"jax": facts["versions"]["jax"]}, "device": {}}):
        assert changed_environment(damaged, facts) == {}
    older = {**facts, "jaxppo": "0.0.9", "device": {**facts["device"], "count": 8}}
    changed = changed_environment(older, facts)
    assert changed == {"jaxppo": ("0.0.9", facts["jaxppo"]), "device count": ("8", "1")}


def test_what_does_not_change_the_training_may_change(whole, copy, args, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(next(a for a in args if a.startswith("--data=")).removeprefix("--data="), moved)
    given = [*(a for a in args if not a.startswith("--data=")), f"--data={moved}", "--gate-min-trades=1"]
    status, out = run_here(copy, [*given, "--keep-checkpoints=1"])
    assert status == 0, out
    assert "changed, without effect on the training: gate_min_trades (saved 100, given 1)" in out
    assert "changed, without effect on the training: data (saved " in out
    assert yaml.safe_load((copy / "config.yaml").read_text())["gate"]["gate_min_trades"] == 1
    assert metrics(copy) == metrics(whole)


def test_a_configuration_that_was_edited_is_refused_by_field(copy, args):
    path = copy / "config.yaml"
    saved = yaml.safe_load(path.read_text())
    saved["ppo"]["gamma"], saved["seed"] = 0.5, 7
    path.write_text(yaml.safe_dump(saved))
    text = refused(copy, [])
    assert text.startswith(
        f"{path}: was changed since the checkpoint of update 12, in seed (saved 6, now 7), gamma (saved"
    )
    assert "now 0.5); put the saved values back" in text


# Elsewhere


@pytest.mark.parametrize("count", [1, 2])
def test_the_state_is_the_same_on_another_number_of_devices(whole, count):
    code = (
        "import sys, hashlib, jax, numpy as np; from pathlib import Path;"
        "from jaxppo.store.checkpoint import restore_run;"
        "state, best, info = restore_run(Path(sys.argv[1])); digest = hashlib.sha256();"
        "[digest.update(np.asarray(x).tobytes()) for x in jax.tree.leaves((state, best))];"
        "print(jax.device_count(), digest.hexdigest())"
    )
    env = {**os.environ, "PYTHONPATH": str(REPO), "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
    done = subprocess.run([sys.executable, "-c", code, str(whole)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    digest = hashlib.sha256()
    for x in jax.tree.leaves(restore_run(whole)[:2]):
        digest.update(np.asarray(x).tobytes())
    assert done.stdout.split() == [str(count), digest.hexdigest()]


def test_the_best_policy_is_exact_after_a_resume(whole, copy, args):
    best = restore_policy(whole, "best")
    shutil.rmtree(copy / "checkpoints" / str(best.info.update)) if best.info.update != UPDATES else None
    again = restore_policy(copy, "best")
    assert again.info.update == best.info.update
    for x, y in zip(jax.tree.leaves(best.params), jax.tree.leaves(again.params), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_a_run_says_how_much_room_it_takes(whole, args, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(Display, "say", lambda self, text: said.append(text))
    run_here(tmp_path / "run", args)
    line = next(text for text in said if text.startswith("checkpoints: "))
    assert re.fullmatch(r"checkpoints: the newest 2, the best and one being written, at most [\d.]+ MiB in all", line)
    kept = json.loads((tmp_path / "run" / "manifest.json").read_text())["checkpoints"]
    assert f"{kept['most_bytes'] / 2**20:.2f} MiB" in line
    assert kept["bytes"] == sum(p.stat().st_size for p in (tmp_path / "run").glob("checkpoints/**/*") if p.is_file())
    assert kept["bytes"] <= kept["most_bytes"]
    assert kept["updates"] == sorted(int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir())
