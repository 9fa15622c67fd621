"""When a run stops before its end: what is foreseen of a segment, and what a limit or a signal says."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jaxppo.train import stop as stop_module
from jaxppo.train.stop import OUT_OF_TIME, Pace, Stop

REPO = Path(__file__).resolve().parent.parent


def test_nothing_is_foreseen_of_the_first_segment():
    assert Pace().foresee(40) == 0.0


def test_a_resumed_run_knows_its_pace():
    # 0.5 s an update as the checkpoint has it, and a tenth more in case: 40 x 0.5 x 1.1 = 22 s.
    assert Pace(0.5).foresee(40) == pytest.approx(22.0)


def test_the_slowest_of_the_last_segments_counts():
    pace = Pace(100.0)
    for seconds in (50.0, 10.0, 12.0, 11.0, 10.0, 10.0):  # the first of six is forgotten
        pace.took(40, seconds)
    assert pace.foresee(40) == pytest.approx(12.0 * 1.1)
    assert pace.foresee(37) == pytest.approx(12.0 * 1.1)  # a shorter one has a validation too
    assert pace.foresee(80) == pytest.approx(24.0 * 1.1)


def test_a_validation_alone_says_nothing_of_updates():
    pace = Pace(0.5)
    pace.took(0, 3.0)
    assert pace.foresee(40) == pytest.approx(22.0)


def test_the_limit_counts_from_the_begin_of_the_process(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(stop_module.time, "monotonic", lambda: now)
    stop = Stop(100.0, began=950.0)
    assert stop.reason(49.0) is None  # 50 s are left
    reason = stop.reason(51.0)
    assert reason is not None
    assert reason.status == OUT_OF_TIME == 75
    assert reason.text == "--max-seconds 100: 50 s are left, the next segment may take 51 s"
    now = 1100.0
    late = stop.reason(0.0)
    assert late is not None
    assert "0 s are left" in late.text


def test_without_a_limit_there_is_none(monkeypatch):
    stop = Stop(began=-1e12)
    assert stop.reason(1e12) is None


def test_signals_can_only_be_watched_by_the_main_thread():
    found = []

    def elsewhere() -> None:
        with Stop() as stop:
            found.append(stop.reason(1.0))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [None]


# Which of three signals are sent, and what comes of it; the main thread is busy in C, as it is while XLA computes.
BUSY = """
import functools, hashlib, os
from jaxppo.train.stop import Stop
with Stop(say=functools.partial(print, flush=True)) as stop:
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", int(os.environ["ROUNDS"]))
    print(stop.reason(1.0), flush=True)
"""


def busy(rounds: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY],
        env={"PYTHONPATH": str(REPO), "ROUNDS": str(rounds)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "busy\n"
    return process


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_is_told_at_once_and_waits(number, status):
    process = busy(2_000_000)  # a second or so
    process.send_signal(number)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(f"{number.name}: finishing the segment and saving")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out == f"StopReason(text='{number.name}', status={status})\n"


@pytest.mark.parametrize(("second", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_second_signal_ends_the_process_in_the_middle(second, status):
    process = busy(2_000_000_000)  # a quarter of an hour
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("SIGINT: ")
    process.send_signal(second)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert (out, err) == ("", f"stopped at once by a second signal ({second.name})\n")
