"""Watching runs: what their files say at any moment, half-written and hostile ones too, and how it is shown."""

from __future__ import annotations

import csv
import http.client
import json
import math
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from jaxppo.config.layers import replace_fields
from jaxppo.config.schema import Config, to_dict
from jaxppo.errors import ConfigError, RunDirectoryError
from jaxppo.page import assets
from jaxppo.play.alarms import MEASURED, RULES
from jaxppo.store.directory import held, is_held, note_stopped
from jaxppo.store.locks import Lock
from jaxppo.watch import seen as seen_module
from jaxppo.watch.__main__ import main
from jaxppo.watch.blocks import bar, in_cells, plot, sparkline
from jaxppo.watch.page import render, state
from jaxppo.watch.seen import Cache, Seen, look, read_rows
from jaxppo.watch.serve import LOOPBACK, served
from jaxppo.watch.summary import clock, exit_status, group, picture, seconds_left, share_done
from jaxppo.watch.terminal import dashboard

LABELS = ("hold", "buy", "sell")
COLUMNS = (
    *("update", "env_steps", "entropy", "approx_kl", "explained_variance", "train_trade_rate"),
    *("steps_per_second", "elapsed_seconds", "val_return", "val_max_drawdown", "val_trades", "val_exposure"),
    *("val_fitness", "val_buy_and_hold_return", "val_portfolio_sharpe", "val_action_share_hold"),
)


def begin(run_dir: Path, manifest: dict[str, Any] | None = None, **fields: Any) -> Path:
    """A run directory before its first validation."""
    run_dir.mkdir(parents=True)
    config = replace_fields(Config(), {"n_updates": 40, "validate_every": 5, **fields})
    (run_dir / "config.yaml").write_text(yaml.safe_dump(to_dict(config)))
    symbols = [{"symbol": "A"}, {"symbol": "B"}]
    facts = {
        "data": {"source": "bars", "hash": "d1", "interval": "1h", "symbols": symbols},
        "actions": {"labels": list(LABELS)},
        "passes": 4.0,
    }
    (run_dir / "manifest.json").write_text(json.dumps(facts | (manifest or {})))
    return run_dir


def row(update: int, **values: Any) -> dict[str, Any]:
    """A row of metrics.csv at a pace of 2 s an update."""
    trained = {"entropy": 0.5, "approx_kl": 0.001, "explained_variance": 0.2, "train_trade_rate": 0.1}
    found = {
        "update": update,
        "env_steps": 1000 * update,
        **(trained | {"steps_per_second": 500.0} if update else {}),
        "elapsed_seconds": 2.0 * update,
        "val_return": update / 100,
        "val_max_drawdown": 0.05,
        "val_trades": 7,
        "val_exposure": 1.0,
        "val_fitness": update / 10,
        "val_buy_and_hold_return": 0.02,
        "val_portfolio_sharpe": update / 20,
        "val_action_share_hold": 0.5,
    }
    return found | values


def append(run_dir: Path, *rows: dict[str, Any]) -> None:
    path = run_dir / "metrics.csv"
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def finish(run_dir: Path, updates: int = 40) -> None:
    path = run_dir / "manifest.json"
    found = {"finished": {"updates": updates, "steps_per_second": 1234.0}}
    path.write_text(json.dumps(json.loads(path.read_text()) | found))


def one(run_dir: Path, cache: Cache | None = None) -> Seen:
    (found,) = look((run_dir,), cache or Cache())
    return found


def lines(*paths: Path, width: int = 80, height: int = 24) -> list[str]:
    return dashboard(picture(look(paths, Cache())), width, height).plain.split("\n")


# A run from its first file to its last


def test_a_run_is_followed_from_its_begin_to_its_end(tmp_path):
    run_dir, cache = begin(tmp_path / "run"), Cache()
    with held(run_dir):
        assert (one(run_dir, cache).state, one(run_dir, cache).update) == ("starting", 0)
        append(run_dir, row(0))
        assert one(run_dir, cache).state == "training"
        append(run_dir, row(5), row(10))
        now = one(run_dir, cache)
        assert (now.state, now.update, now.best, now.longest_wait) == ("training", 10, 2, 10.0)
        assert share_done([now]) == 0.25
        # 30 updates are left, at 2 s each.
        assert seconds_left([now]) == pytest.approx(60.0, abs=2.0)
        append(run_dir, *(row(u) for u in range(15, 45, 5)))
        assert one(run_dir, cache).state == "ending"  # it judges and writes its page
        finish(run_dir)
        assert one(run_dir, cache).state == "ending"
    assert one(run_dir, cache).state == "finished"
    assert math.isnan(seconds_left([one(run_dir, cache)]))


def test_a_run_whose_process_is_gone_is_dead_or_stopped(tmp_path):
    run_dir = begin(tmp_path / "run")
    append(run_dir, row(0), row(5))
    assert one(run_dir).state == "dead"
    note_stopped(run_dir, 75)
    assert one(run_dir).state == "stopped"
    text = "\n".join(lines(run_dir))
    assert "STOPPED" in text
    assert "was stopped by --max-seconds; go on with python -m jaxppo.train --run-dir" in text.replace("\n", " ")
    with held(run_dir):  # it goes on, and has not written its manifest anew yet
        assert one(run_dir).state == "training"


def test_an_extended_run_that_is_cut_is_not_finished(tmp_path):
    run_dir = begin(tmp_path / "run", {"finished": {"updates": 40}}, n_updates=80)
    append(run_dir, *(row(u) for u in range(0, 50, 5)))
    assert one(run_dir).state == "dead"


def test_a_line_that_does_not_come_is_late(tmp_path):
    run_dir = begin(tmp_path / "run")
    append(run_dir, row(0), row(5), row(10))
    with held(run_dir):
        for age, state in ((59.0, "training"), (61.0, "late")):  # of 10 s between two the fifth is within 60 s
            os.utime(run_dir / "metrics.csv", (time.time() - age,) * 2)
            assert one(run_dir).state == state
        append(run_dir, row(15, elapsed_seconds=100.0))  # the longest wait is now 80 s
        os.utime(run_dir / "metrics.csv", (time.time() - 399.0,) * 2)
        assert one(run_dir).state == "training"


def test_without_locks_the_age_of_the_last_line_decides(tmp_path, monkeypatch):
    run_dir = begin(tmp_path / "run")
    monkeypatch.setattr(seen_module, "is_held", lambda path: None)
    assert one(run_dir).state == "starting"
    append(run_dir, row(0), row(5))
    assert one(run_dir).state == "training"
    os.utime(run_dir / "metrics.csv", (time.time() - 61.0,) * 2)
    assert one(run_dir).state == "dead"


def test_looking_at_a_lock_takes_it_from_nobody(tmp_path):
    assert is_held(tmp_path) is False
    assert is_held(tmp_path / "nowhere") is None
    with held(tmp_path):
        assert is_held(tmp_path) is True
        with pytest.raises(RunDirectoryError, match="another process is training in it"), held(tmp_path):
            pass
    with held(tmp_path):  # whoever looked has let go of it
        pass
    lock = Lock(tmp_path / "lock")
    with lock:
        assert is_held(tmp_path / "lock") is True
    assert is_held(tmp_path / "lock") is False


# What files hold


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("update,val_return\n0,0.5\n5,0.25\n10,0.125")  # of 0.1256, say
    assert read_rows(path)["val_return"].tolist() == [0.5, 0.25]
    path.write_text(path.read_text() + "6\n")
    assert read_rows(path)["val_return"].tolist() == [0.5, 0.25, 0.1256]


@pytest.mark.parametrize(
    ("content", "updates"),
    [
        (b"", []),
        (b"update", []),
        (b"\xff\xfe\x00\n\x00,\n", []),
        (b"update,val_return\nx,1\n5,y\n5,2,3,4\n-1,1\nnan,1\n3\n", [3, 5]),  # in order, the later of two
        (b"val_return\n1\n", []),
        (b'update,"a\n1,2\n', []),
    ],
)
def test_what_is_no_table_has_no_rows(tmp_path, content, updates):
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    rows = read_rows(path)
    assert list(rows.get("update", [])) == updates
    if updates:
        np.testing.assert_array_equal(rows["val_return"], [np.nan, 2.0])


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "metrics.csv")  # which would wait for a writer
    assert read_rows(tmp_path / "metrics.csv") == {}


def test_hostile_files_neither_break_nor_steer_the_terminal(tmp_path):
    run_dir = begin(tmp_path / "r\x1b[2Jun", {"data": {"source": "\x1b]0;owned\x07<b>", "symbols": 3}, "passes": "x"})
    append(run_dir, row(0), row(5))
    (run_dir / "config.yaml").write_text("preset: '\\e[31m'\nbudget: [1]\nenv: 3\n")
    text = "\n".join(lines(run_dir))
    assert "\x1b" not in text
    assert "\x07" not in text
    for name in ("config.yaml", "manifest.json"):
        (run_dir / name).write_bytes(b"\x00[[[")
    assert one(run_dir).fields == {}
    assert "update 5 of ?" in "\n".join(lines(run_dir))


def test_a_folder_without_a_run_is_one_clear_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunDirectoryError, match=r"empty: holds no training run; give the --run-dir of a training run"):
        look((tmp_path / "empty",), Cache())
    with pytest.raises(RunDirectoryError, match="nowhere: no such folder"):
        look((tmp_path / "nowhere",), Cache())
    with held(tmp_path / "empty"):  # a run that reads its bars
        assert one(tmp_path / "empty").state == "starting"


# Several runs


def test_seeds_of_one_configuration_are_shown_with_mean_and_spread(tmp_path):
    for seed, (first, second) in enumerate([(1.0, 3.0), (2.0, 5.0), (6.0, None)]):
        run_dir = begin(tmp_path / f"seed{seed}", seed=seed)
        append(run_dir, row(0, val_fitness=first))
        if second is not None:
            append(run_dir, row(5, val_fitness=second))
    other = begin(tmp_path / "other", learning_rate=0.1)
    append(other, row(0, val_fitness=9.0))
    best, seeds = group(look((tmp_path,), Cache()))
    assert best.name == "other: learning_rate 0.1"
    assert seeds.name == f"learning_rate {Config().ppo.learning_rate:g} (3 seeds: 0, 1, 2)"
    band = seeds.band("val_fitness")
    assert band.update.tolist() == [0, 5]
    # At update 5 two have come so far.
    assert (band.mean.tolist(), band.low.tolist(), band.high.tolist()) == ([3.0, 4.0], [1.0, 3.0], [6.0, 5.0])
    assert seeds.score == pytest.approx((3.0 + 5.0 + 6.0) / 3)
    assert seeds.looks == 5
    told = picture(look((tmp_path,), Cache()))
    assert told.best.startswith("best so far: update 0 of other, fitness 9.00")
    assert told.best.endswith("the best of 6 looks at the same validation bars")
    assert np.isnan(seeds.band("no such column").mean).all()


def test_the_members_of_a_grid_have_the_lock_of_its_folder(tmp_path):
    grid = tmp_path / "grid"
    for i, rate in enumerate((1e-4, 1e-3)):
        append(begin(grid / f"{i:03}", learning_rate=rate), row(0), row(5, val_fitness=float(i)))
    (grid / "population.json").write_text("{}")
    begin(grid / "snapshots")  # no member
    with held(grid):
        found = look((grid,), Cache())
        assert [(r.name, r.state) for r in found] == [("000", "training"), ("001", "training")]
    shown = picture(look((grid,), Cache()))
    assert shown.state == "dead"
    assert f"go on with python -m jaxppo.train --run-dir {grid} --resume" in shown.advice
    text = lines(grid)
    assert text[3].startswith("configurations, best first")
    assert text[4].split()[:4] == ["001:", "learning_rate", "0.001", "dead"]


def test_the_trials_of_a_sweep_are_runs(tmp_path):
    sweep, batch = tmp_path / "sweep", tmp_path / "sweep" / "batches" / "000000"
    batch.mkdir(parents=True)
    (sweep / "sweep.json").write_text(json.dumps({"facts": {"n_updates": 40, "choose_by": "fitness"}}))
    states = ("running", "halted")
    trials = [
        {"number": i, "params": {"gamma": 0.9}, "seed": i, "state": s, "rows": [row(0), row(20 - 10 * i)], "result": {}}
        for i, s in enumerate(states)
    ]
    (batch / "batch.json").write_text(json.dumps({"trials": trials}))
    with Lock(batch / ".lock"):
        found = look((sweep,), Cache())
        assert [r.state for r in found] == ["training", "finished"]
        assert share_done(found) == pytest.approx(30 / 50)  # the halted one has no more to do
        assert picture(found).state == "training"
    assert picture(look((sweep,), Cache())).state == "dead"
    (batch / "batch.json").write_text(json.dumps({"trials": [t | {"state": "complete"} for t in trials]}))
    shown = picture(look((sweep,), Cache()))
    assert shown.state == "starting"  # the next batch
    assert [own.name for own in shown.groups] == ["sweep (2 seeds: 0, 1)"]
    (sweep / "summary.json").write_text("{}")
    assert picture(look((sweep,), Cache())).state == "finished"


def test_runs_that_are_over_do_not_hide_one_that_trains(tmp_path):
    for name in ("dead", "alive"):
        append(begin(tmp_path / name, seed=len(name)), row(0), row(5))
    with held(tmp_path / "alive"):
        assert picture(look((tmp_path,), Cache())).state == "training"
    assert exit_status(picture(look((tmp_path,), Cache())).state) == 1


# What is shown


def test_the_dashboard_fits_80_by_24_and_says_what_matters(tmp_path):
    run_dir = begin(tmp_path / "my-run")
    append(run_dir, *(row(u, val_action_share_hold=1.0) for u in range(0, 25, 5)))
    for update in (15, 20):
        (run_dir / "checkpoints" / str(update)).mkdir(parents=True)
    with held(run_dir):
        text = lines(run_dir)
    assert len(text) <= 24
    assert max(map(len, text)) <= 80
    assert text[0] == "my-run \u00b7 quick_test \u00b7 bars \u00b7 2 symbols \u00b7 1h bars \u00b7 seed 0"
    assert text[1].startswith("TRAINING  \u2588")
    assert text[1].endswith("50 %  0:00:40 gone, 0:00:40 left")
    assert text[2].startswith("update 20 of 40 \u00b7 500 env steps/s \u00b7 20,000 env steps \u00b7 2.0 of 4.0 passes")
    cells = {line[:28].strip(): re.split(" +", line[28:52].strip(" ")) for line in text[4:16]}
    assert cells["Fitness"] == ["2.00", "2.00"]
    assert cells["Net return"] == ["+20.0\u00a0%", "+20.0\u00a0%"]
    assert cells["Orders per training step"] == ["10.0\u00a0%", "10.0\u00a0%"]
    whole = " ".join(text)
    assert "best so far: update 20, fitness 2.00, net return +20.0\u00a0% against +2.0\u00a0% of holding" in whole
    assert "the best of 5 looks" in whole
    assert "checkpoints: update 15, 20" in whole
    assert "ALARM since update 15: Always holds: 100.0% of the validation's decisions" in whole
    assert "Measured: where costs are twice the edge" in whole
    assert text[-1].endswith("one every 5 updates; Ctrl-C ends the watch, not the run")


def test_a_wide_and_tall_terminal_has_plots(tmp_path):
    for seed in (0, 1):
        append(begin(tmp_path / f"s{seed}", seed=seed), *(row(u, val_fitness=u + 10.0 * seed) for u in range(0, 45, 5)))
    text = "\n".join(lines(tmp_path, width=160, height=60))
    assert "Fitness: mean, lowest and highest seed" in text
    assert "Net return: mean" in text
    assert "\u2591" in text
    assert "45.00 (40.00 to 50.00)" in text
    assert max(map(len, text.split("\n"))) <= 160


def test_every_alarm_has_what_was_measured_of_its_remedy():
    assert all(MEASURED[rule.name] for rule in RULES)


def test_cells_of_a_curve_by_hand():
    x, y = np.array([0.0, 5.0, 10.0]), np.array([1.0, np.nan, 3.0])
    # 10 of 40 updates are the first quarter of 9 cells, 0 to 2; a point that is NaN is held over.
    np.testing.assert_array_equal(in_cells(x, y, 9, 40.0), [1, 1, 3, *[np.nan] * 6])
    assert sparkline(x, y, 9, 40.0) == "\u2581\u2581\u2588      "
    assert sparkline(x, np.full(3, np.nan), 4, 40.0) == "    "
    assert sparkline(np.array([0.0]), np.array([2.0]), 3, 0.0) == "\u2584  "
    drawn, low, high = plot(x, np.array([0.0, 1.0, 3.0]), np.zeros(3), np.full(3, 3.0), (3, 2), 10.0)
    assert (low, high) == (0.0, 3.0)
    # Halves 0 to 3: the means 0, 1 and 3 are the lower, the upper, and the upper half; all else is within the spread.
    assert drawn == ["\u2591\u2591\u2580", "\u2584\u2580\u2591"]
    assert bar(0.5, 4) == "\u2588\u2588\u2591\u2591"
    assert bar(math.nan, 2) == "\u2591\u2591"
    assert [clock(s) for s in (59.6, 3661.0, math.nan)] == ["0:01:00", "1:01:01", "\u2013"]


# The command


def test_the_command_shows_once_and_its_status_is_that_of_the_runs(tmp_path, capsys):
    run_dir = begin(tmp_path / "run")
    append(run_dir, *(row(u) for u in range(0, 45, 5)))
    assert main([str(run_dir), "--once"]) == 1
    note_stopped(run_dir, 143)
    assert main([str(run_dir), "--once"]) == 75
    finish(run_dir)
    assert main([str(run_dir), "--once"]) == 0
    assert "FINISHED" in capsys.readouterr().out
    assert main([str(run_dir)]) == 0  # over at the first look: a line, as this is no terminal
    told = capsys.readouterr().out
    assert told.startswith("finished: 100 %, update 40 of 40, 1,234 env steps/s")
    assert told.count("\n") == 1


def test_the_command_ends_with_the_run_and_with_ctrl_c(tmp_path, capsys, monkeypatch):
    run_dir = begin(tmp_path / "run")
    append(run_dir, row(0))
    with held(run_dir):
        looks: Iterator[Any] = iter((lambda: append(run_dir, row(5)), None, KeyboardInterrupt))

        def sleep(seconds: float) -> None:
            then = next(looks)
            if then is KeyboardInterrupt:
                raise KeyboardInterrupt
            if then is not None:
                then()

        monkeypatch.setattr("jaxppo.watch.run.time.sleep", sleep)
        assert main([str(run_dir)]) == 130
    told = capsys.readouterr()
    assert told.err == "interrupted: the watch; the runs go on\n"
    assert [line.split(", ")[1] for line in told.out.splitlines()] == ["update 0 of 40", "update 5 of 40"]


def test_the_command_waits_for_a_run_and_refuses_what_it_cannot_use(tmp_path, capsys, monkeypatch):
    run_dir = tmp_path / "run"

    def sleep(seconds: float) -> None:
        append(begin(run_dir), *(row(u) for u in range(0, 45, 5)))
        finish(run_dir)

    with monkeypatch.context() as patch:
        patch.setattr("jaxppo.watch.run.time.sleep", sleep)
        assert main([str(run_dir), "--wait", "5"]) == 0
    assert "run: no such folder" in capsys.readouterr().out
    assert main([str(tmp_path / "other"), "--wait", "0"]) == 2
    assert main([str(run_dir), "--every", "0"]) == 2
    assert "--every: 0.0 given; it must be 0.1 seconds or more" in capsys.readouterr().err


# The page


def test_the_page_has_what_the_dashboard_has_and_asks_nobody_else(tmp_path):
    hostile = "<img src=x onerror=alert(1)>"
    for seed in (0, 1):
        run_dir = begin(tmp_path / f"{hostile}{seed}", {"data": {"source": f"</script>{hostile}"}}, seed=seed)
        append(run_dir, *(row(u, val_action_share_hold=1.0, val_fitness=u + seed) for u in range(0, 25, 5)))
    with held(run_dir):
        shown = picture(look((tmp_path,), Cache()))
    page = render(shown, 2.0)
    assert hostile not in page
    assert "connect-src 'self'" in page
    for name in ("echarts.min.js", *assets.SCRIPTS, "watch.js"):
        assert assets.digest(name) in page  # of the scripts that may run
    found = json.loads(state(shown))
    assert hostile not in "".join(found["parts"].values())
    assert "50\u00a0%" in found["parts"]["head"]
    assert "Always holds of" in found["parts"]["alarms"]
    assert "22.50" not in found["parts"]["cards"]
    assert "20.50" in found["parts"]["cards"]  # mean of 20 and 21
    assert (found["over"], found["title"].split(":")[0]) == (False, "training")
    # All that is asked for has its place on the page.
    assert all(f'id="live-{name}"' in page for name in found["parts"])
    assert all(f'id="chart-{name}"' in page for name in found["charts"])
    low, height, mean = found["charts"]["val_fitness"]["option"]["series"]
    assert low["data"][-1] == [20, 20]
    assert height["data"][-1] == [20, 1]  # above the lowest
    assert mean["data"][-1] == [20, 20.5]


def test_a_page_before_the_first_line(tmp_path):
    shown = picture(look((begin(tmp_path / "run"),), Cache()))
    assert "no validation yet" in render(shown, 1.0)
    assert json.loads(state(shown))["over"] is True


def test_the_command_serves_the_page_while_it_watches(tmp_path, capsys, monkeypatch):
    run_dir = begin(tmp_path / "run")
    append(run_dir, row(0))
    asked: list[str] = []

    def sleep(seconds: float) -> None:
        url = capsys.readouterr().out.splitlines()[0].removeprefix("page: ") if not asked else asked[0]
        host, port = url.removeprefix("http://").removesuffix("/").split(":")
        found = json.loads(ask((host, int(port)), "/state.json")[1])
        asked[:] = [url, found["parts"]["head"]]
        append(run_dir, *(row(u) for u in range(5, 45, 5)))
        finish(run_dir)

    monkeypatch.setattr("jaxppo.watch.run.time.sleep", sleep)
    monkeypatch.setattr("jaxppo.watch.seen.is_held", lambda path: not asked)
    assert main([str(run_dir), "--serve", "0"]) == 0
    assert "100\u00a0%" in asked[1]  # after the end it was asked once more


# The server


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    with served(0, {"/": ("text/html", lambda: b"<p>page"), "/state.json": ("application/json", lambda: b"{}")}) as url:
        host, port = url.removeprefix("http://").removesuffix("/").split(":")
        yield host, int(port)


def ask(address: tuple[str, int], path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, Any]:
    connection = http.client.HTTPConnection(*address, timeout=5)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.read(), answer.headers
    connection.close()
    return found


def test_the_server_answers_its_own_paths_alone(address):
    assert address[0] == LOOPBACK
    status, body, headers = ask(address, "/")
    assert (status, body, headers["Content-Type"]) == (200, b"<p>page", "text/html; charset=utf-8")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert ask(address, "/state.json")[:2] == (200, b"{}")
    assert ask(address, "/", "HEAD")[:2] == (200, b"")
    for path in ("/x", "//x", "/../", "/..%2fetc/passwd", "/state.json?x=1", "/state.json/", "*", "/%00"):
        assert ask(address, path)[0] == 404, path
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "CONNECT"):
        assert ask(address, "/", method)[0] == 501, method


def test_the_server_is_asked_by_this_machines_name_alone(address):
    port = address[1]
    assert ask(address, "/", Host=f"localhost:{port}")[0] == 200
    for host in ("evil.example", f"evil.example:{port}", LOOPBACK, f"{LOOPBACK}:1", ""):
        assert ask(address, "/", Host=host)[0] == 403, host


def test_a_port_that_is_taken_is_one_clear_error(address):
    with pytest.raises(ConfigError, match=rf"--serve: port {address[1]} cannot be had .*; choose another, or 0"):
        served(address[1], {}).__enter__()
    with pytest.raises(ConfigError, match="port 99999 cannot be had"):
        served(99999, {}).__enter__()
