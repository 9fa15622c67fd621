"""`python -m jaxppo.paper RUN` as a user has it: from a trained run to a journal, killed, resumed and compared."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from fake_alpaca import KEY, SECRET, FakeAlpaca, Time
from test_session import SYMBOLS, call, flags, no_report
from test_session import bars as bars

import jaxppo
from jaxppo.agent.encoders import receptive_field
from jaxppo.env.trading import env_spec
from jaxppo.errors import DataError
from jaxppo.market.bars import load_bars
from jaxppo.market.dataset import build_evaluation
from jaxppo.paper.__main__ import main
from jaxppo.paper.broker import BrokerError
from jaxppo.paper.options import PaperOptions
from jaxppo.paper.run import paper_run
from jaxppo.play.deciders import play_policy
from jaxppo.play.passes import n_decisions
from jaxppo.replay.__main__ import main as replay_main
from jaxppo.store.directory import earlier_manifest
from jaxppo.store.sessions import DECISION, read_session

HOUR = 3600


@pytest.fixture(scope="module")
def run(bars, tmp_path_factory) -> Path:
    """A tiny run, of the program that the tests of sessions compile."""
    with no_report():
        made = call(tmp_path_factory.mktemp("run"), *flags(seed=6, learning_rate=3e-4), "--data", str(bars))
    assert made.code == 0, made.err
    return made.path


def paper(*args: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*map(str, args)])
    return code, out.getvalue(), err.getvalue()


def replay(folder: Path, out: Path) -> dict:
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        assert replay_main(["--journal", str(folder), "--out", str(out)]) == 0
    return json.loads((out / "summary.json").read_text()) | {"told": told.getvalue()}


@pytest.fixture(scope="module")
def session(run, tmp_path_factory) -> Path:
    """A session over the test split."""
    out = tmp_path_factory.mktemp("paper") / "session"
    code, told, err = paper(run, "--submit", "--out", out)
    assert (code, err) == (0, "")
    assert "orders go to simulated" in told
    return out


def test_live_equals_backtest_to_the_bit(run, session, bars):
    """Not the journal's decisions played again but the policy's own, over the Tape of a backtest."""
    policy = jaxppo.restore_policy(run)
    config = policy.info.config
    data = earlier_manifest(run)["data"]
    cutoffs = tuple(int(np.datetime64(x[:19], "s").astype(int)) for x in data["cutoffs"])
    reach = receptive_field(config.agent)
    split = build_evaluation(load_bars(bars, interval="1h"), config, reach, "test", cutoffs).splits["test"]
    tape, spec = split.tape, env_spec(config.env, config.reward)
    n_bars = n_decisions(tape)
    played = jax.jit(lambda p, t: play_policy(policy.agent, spec, p, t, n_bars, reach))(policy.params, tape)
    assert split.symbols == SYMBOLS
    traded = 0
    for s, of in enumerate(read_session(session).symbols):
        n = int(tape.length[s]) - 1 - int(tape.first[s])
        assert [x["time"] for x in of.lines] == split.times[s][int(tape.first[s]) :].tolist()
        live = np.asarray([x["account"]["equity"] for x in of.lines[1:]], np.float32)
        units = np.asarray([x["account"]["units"] for x in of.lines[1:]], np.float32)
        # The last bar apart, at whose close a backtest sells what is left.
        assert live[:-1].tobytes() == np.asarray(played.equity[: n - 1, 0, s]).tobytes()
        assert units[:-1].tobytes() == np.asarray(played.record.units[: n - 1, 0, s]).tobytes()
        traded += len(np.unique(units))
    assert traded > 4


def test_the_journal_replays_to_the_bit(session, tmp_path):
    found = replay(session, tmp_path / "out")
    assert found["same_bits"] is True
    assert found["difference"] == 0
    assert found["told"].startswith(f"live equals backtest to the bit: {found['bars']} bars of 2 symbols")
    tables = {"equity.csv", "differences.csv", "decisions.csv", "summary.json"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == {*tables, "report.html", "plots"}


def test_a_replay_runs_between_two_dates_at_a_speed(run, tmp_path):
    at = Time(0.0)
    given = {"from_": "2024-12-31T03:00", "to": "2024-12-31T06:00", "speed": 3600.0, "out": tmp_path / "out"}
    with contextlib.redirect_stdout(io.StringIO()):
        assert paper_run(PaperOptions(run_dir=run, **given), at.clock) == 0
    decided = [x["time"] for x in map(json.loads, (tmp_path / "out" / "journal.jsonl").open()) if x["kind"] == DECISION]
    hours = [int(np.datetime64(f"2024-12-31T{h:02}:00", "s").astype(int)) for h in (3, 4, 5)]
    assert sorted(set(decided)) == hours
    assert at.waits == [1.0, 1.0]  # an hour a second


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"actions": "sized", "act_by": "mean"},
        {"actions": "targets", "size_by": "volatility", "max_exposure": 2.0, "seeds": 2},
    ],
)
def test_the_journal_replays_to_the_bit_whatever_the_actions(bars, tmp_path, changes):
    with no_report():
        own = flags(seed=1, n_updates=1, validate_every=1, stop_loss=0.0, take_profit=0.0, **changes)
        made = call(tmp_path / "run", *own, "--data", str(bars))
    assert made.code == 0, made.err
    folder = jaxppo.paper(tmp_path / "run", submit=True, out=tmp_path / "session")
    assert replay(folder, tmp_path / "out")["same_bits"] is True


def test_a_session_goes_on_where_it_stopped(run, session, tmp_path, bars):
    """Over half of the bars first, then over all: the same lines as at once."""
    whole = [x for x in (json.loads(line) for line in (session / "journal.jsonl").open()) if x["kind"] == DECISION]
    half = tmp_path / "half"
    half.mkdir()
    for file in Path(bars).glob("*.csv"):
        (half / file.name).write_text("".join(file.open().readlines()[:-40]))
    out = tmp_path / "session"
    assert paper(run, "--submit", "--out", out, "--data", half)[0] == 0
    code, told, _ = paper(run, "--submit", "--out", out, "--data", bars)
    assert code == 0
    assert "goes on from" in told
    again = [x for x in (json.loads(line) for line in (out / "journal.jsonl").open()) if x["kind"] == DECISION]
    assert sorted(again, key=lambda x: (x["time"], x["symbol"])) == whole
    assert paper(run, "--submit", "--out", out, "--data", bars)[0] == 0  # nothing is left to do
    assert len([x for x in (out / "journal.jsonl").open() if json.loads(x)["kind"] == DECISION]) == len(whole)


def test_a_session_whose_broker_has_lost_its_file_does_not_go_on(run, session, tmp_path):
    """It would begin anew with flat accounts, and the journal's positions would be gone without a word."""
    shutil.copytree(session, out := tmp_path / "session")
    before = (out / "journal.jsonl").read_bytes()
    (out / "broker.jsonl").unlink()
    code, _, err = paper(run, "--submit", "--out", out)
    assert code == 2
    assert re.fullmatch(r"error: .*broker.jsonl: ends before .*, so what was traded is not known; bring .*\n", err), err
    assert (out / "journal.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--max-order", "-1"), r"--max-order: -1.0 given; it must be 0 or more"),
        (("--capital", "0"), r"--capital: 0.0 given; it must be above 0"),
        (("--speed", "-2"), r"--speed: -2.0 given; it must be 0 or more"),
        (("--to", "soon"), r"--to: 'soon' is no date; give one such as 2024-03-01"),
        (("--from", "soon"), r"--from: 'soon' is no date; give one such as 2024-03-01"),
        (("--to", "2001-01-01"), r"--to: 2001-01-01 given, and the first bar to decide on is of 20"),
        (("--from", "2031-01-01"), r"no bar to decide on from 2031-01-01 on: ALFA, the longest, has 900 bars up to"),
        (("--which", "worst"), r"which: unknown checkpoint 'worst'; give best, latest, final or the number"),
        (("--interval", "1h"), r"interval: describes --data; without --data the run's own bars are replayed"),
        (("--broker", "ccxt"), r"--exchange: names the exchange of --broker ccxt, such as binance; give one"),
        (("--exchange", "binance"), r"--exchange: names the exchange of --broker ccxt, such as binance; leave it out"),
        (("--broker", "alpaca", "--speed", "1"), r"--speed: is of a replay; alpaca trades now, so leave it out"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(run, tmp_path, args, says):
    code, out, err = paper(run, "--out", tmp_path / "new", *args)
    assert code == 2
    assert re.fullmatch(rf"error: .*{says}.*\n", err), err
    assert out == ""
    assert not (tmp_path / "new" / "journal.jsonl").exists()


def test_bars_of_another_interval_and_folders_without_a_run_are_refused(run, tmp_path):
    rows = ["timestamp,open,high,low,close", *(f"{np.datetime64('2023-01-01') + i},2,3,1,2" for i in range(200))]
    (tmp_path / "ALFA_1d.csv").write_text("\n".join(rows))
    code, _, err = paper(run, "--data", tmp_path / "ALFA_1d.csv", "--out", tmp_path / "out")
    assert code == 2
    assert "bars of 1d" in err
    assert "trained on 1h; give those" in err
    code, _, err = paper(tmp_path)
    assert (code, err) == (2, f"error: {tmp_path}: holds no run that manifest.json describes; give a run directory\n")
    code = replay_main(["--journal", str(tmp_path), "--out", str(tmp_path / "r")])
    assert code == 2


def test_a_session_of_other_terms_is_not_gone_on_with(run, session, bars):
    before = (session / "journal.jsonl").read_bytes()
    code, _, err = paper(run, "--submit", "--out", session, "--capital", "5000")
    assert code == 2
    assert "its session has another share (50000.0, now 2500.0); go on as it was, or choose another --out" in err
    code, _, err = paper(run, "--out", session)
    assert "its session has another submit (True, now False)" in err
    code, _, err = paper(run, "--submit", "--out", session, "--data", bars, "--symbols", "ALFA", "--capital", 5e4)
    assert "its session has another symbols" in err
    assert (session / "journal.jsonl").read_bytes() == before


def test_two_processes_do_not_trade_in_one_folder(run, session):
    import fcntl

    with (session / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, err = paper(run, "--submit", "--out", session)
    assert code == 2
    assert "another process trades in it; end that one, or choose another --out" in err


def test_the_kill_switch_file_has_a_status_of_its_own(run, tmp_path):
    (tmp_path / "stop").touch()
    code, told, _ = paper(run, "--submit", "--out", tmp_path / "out", "--kill-switch", tmp_path / "stop")
    assert code == 1
    assert "the kill switch is there; 0 open orders were cancelled" in told


@pytest.mark.slow
def test_killed_processes_send_no_order_twice_and_lose_none(run, session, tmp_path):
    """SIGKILL at twenty moments of one session, each after another number of lines."""
    out, journal = tmp_path / "session", tmp_path / "session" / "journal.jsonl"
    command = [sys.executable, "-m", "jaxppo.paper", str(run), "--submit", "--out", str(out)]
    rng, kills, status = np.random.default_rng(0), 0, None
    while status != 0:
        start = journal.stat().st_size if journal.exists() else 0
        wait = int(rng.integers(1, 40_000)) if kills < 20 else 10**9
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        while process.poll() is None and (journal.stat().st_size if journal.exists() else 0) < start + wait:
            time.sleep(0.0005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        status = process.wait()
    assert kills >= 8

    def told(folder: Path, name: str, *kinds: str) -> list[dict]:
        found = (json.loads(line) for line in (folder / name).open())
        return [x for x in found if x["kind"] in kinds]

    assert told(out, "journal.jsonl", DECISION) == told(session, "journal.jsonl", DECISION)
    assert told(out, "broker.jsonl", "order", "bar") == told(session, "broker.jsonl", "order", "bar")
    assert replay(out, tmp_path / "out")["same_bits"] is True


# Whole sessions at a fake Alpaca


@pytest.fixture
def keys(monkeypatch):
    monkeypatch.setenv("APCA_API_KEY_ID", KEY)
    monkeypatch.setenv("APCA_API_SECRET_KEY", SECRET)
    return monkeypatch


def options(run: Path, out: Path, **more) -> PaperOptions:
    given = {"broker": "alpaca", "submit": True, "out": out, "capital": 40_000.0}
    return PaperOptions(run_dir=run, **{**given, **more})


def serve(keys, bars: Path, start: int, hours: int, out: Path):
    """The run's own bars at a fake Alpaca, whose time ends with the kill switch after some hours."""
    market = {b.symbol: b for b in jaxppo.load_bars(bars, interval="1h")}
    at = Time(int(market["ALFA"].time[start]) + HOUR + 5.0)
    at.end = at.now() + hours * HOUR
    sleep = at.sleep

    def waiting(seconds: float) -> None:
        sleep(seconds)
        if at.now() > at.end:
            out.mkdir(exist_ok=True)
            (out / "KILL").touch()

    at.sleep = waiting
    fake = FakeAlpaca(market, at.now)
    return fake, at


def test_a_session_at_a_fake_alpaca_is_journaled_and_itemised(run, bars, keys, tmp_path):
    out = tmp_path / "session"
    fake, at = serve(keys, bars, 780, 30, out)
    told = io.StringIO()
    with fake, contextlib.redirect_stdout(told):
        keys.setenv("APCA_API_BASE_URL", fake.url)
        keys.setenv("APCA_API_DATA_URL", fake.url)
        assert paper_run(options(run, out, max_order=15_000.0), at.clock) == 1
        positions = dict(fake.held)
    lines = [json.loads(line) for line in (out / "journal.jsonl").open()]
    decisions = [x for x in lines if x["kind"] == "decision"]
    assert len(decisions) >= 50
    assert len(fake.orders) > 3
    assert {x["id"] for x in lines if x["kind"] in ("ack", "reject")} >= set(fake.orders)
    booked = {x["symbol"]: x["units"] for x in decisions}
    assert {s: booked[s] for s in positions} == pytest.approx(positions)
    assert any(b["limit"] in ("order", "flip") for x in decisions for b in x["limits"])
    found = replay(out, tmp_path / "replayed")
    assert found["same_bits"] is False
    assert found["difference"] == pytest.approx(sum(found["causes"].values()), abs=1e-6)
    assert abs(found["causes"]["rounding"]) < 0.5
    assert found["causes"]["fees"] != 0
    assert "a difference of" in found["told"]
    # No secret is in anything that is left behind or was told.
    for path in out.rglob("*"):
        text = path.read_bytes() if path.is_file() else b""
        assert KEY.encode() not in text
        assert SECRET.encode() not in text
    assert SECRET not in told.getvalue()


def test_a_session_goes_on_at_the_broker_after_a_stop(run, bars, keys, tmp_path):
    out = tmp_path / "session"
    fake, at = serve(keys, bars, 780, 8, out)
    with fake, contextlib.redirect_stdout(io.StringIO()):
        keys.setenv("APCA_API_BASE_URL", fake.url)
        keys.setenv("APCA_API_DATA_URL", fake.url)
        assert paper_run(options(run, out, capital=None), at.clock) == 1
        (out / "KILL").unlink()
        at.seconds -= 2 * HOUR  # bars that were decided on come again, and are not decided on again
        at.end += 8 * HOUR
        assert paper_run(options(run, out, capital=None), at.clock) == 1
    lines = [json.loads(line) for line in (out / "journal.jsonl").open()]
    assert [x["capital"] for x in lines if x["kind"] == "session"] == [50_000.0]
    decided = [(x["symbol"], x["time"]) for x in lines if x["kind"] == "decision"]
    assert len(decided) == len(set(decided)) >= 26
    times = sorted({t for s, t in decided if s == "ALFA"})
    assert times == list(range(times[0], times[-1] + 1, HOUR))
    posted = [
        body["client_order_id"] for method, path, body in fake.requests if (method, path) == ("POST", "/v2/orders")
    ]
    assert len(posted) == len(set(posted))
    booked = {x["symbol"]: x["units"] for x in lines if x["kind"] == "decision"}
    assert {s: booked[s] for s in fake.held} == pytest.approx(fake.held)


def test_nothing_is_sent_before_all_is_checked(run, bars, keys, tmp_path):
    fake, at = serve(keys, bars, 780, 8, tmp_path / "out")
    with fake:
        keys.setenv("APCA_API_BASE_URL", fake.url)
        keys.setenv("APCA_API_DATA_URL", fake.url)
        with pytest.raises(BrokerError, match="NONE cannot be traded there"):
            paper_run(options(run, tmp_path / "out", symbols=("ALFA", "NONE")), at.clock)
        at.seconds = int(fake.market["ALFA"].time[20])
        with pytest.raises(DataError, match=r"ALFA: alpaca has \d+ bars up to now, but a decision needs 122; give"):
            paper_run(options(run, tmp_path / "out"), at.clock)
    assert not any(method == "POST" for method, _, _ in fake.requests)
