"""Several processes that train one run: how they meet, agree, write, and end when one of them is gone.

The long tests run processes of four fake devices each on the loopback, with JAX's own collectives for CPUs.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks.robustness.runs import differences, flags, metrics, write_bars
from jaxppo.errors import ConfigError
from jaxppo.hosts import ALONE, LOST, Meeting, check_meeting, join
from jaxppo.lifeline import Lifeline
from jaxppo.store.checkpoint import restore_run

REPO = Path(__file__).resolve().parent.parent
UPDATES = 60


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def process(devices: int, *args: str) -> subprocess.Popen[str]:
    """`python -m jaxppo.train` with so many fake devices."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"  # of two the last holds
    env = {**os.environ, "PYTHONPATH": str(REPO), "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "jaxppo.train", *args]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, cwd=REPO, stdout=pipe, stderr=pipe, text=True)


def together(args: list[str], count: int = 2, devices: int = 4) -> list[subprocess.Popen[str]]:
    """The same command as so many processes of one run."""
    meet = [f"--coordinator=127.0.0.1:{free_port()}", f"--processes={count}"]
    return [process(devices, *args, *meet, f"--process={i}") for i in range(count)]


def ended(processes: list[subprocess.Popen[str]], seconds: float = 600) -> list[tuple[int, str, str]]:
    """Status, output and errors of each."""
    try:
        told = [p.communicate(timeout=seconds) for p in processes]
    finally:
        for p in processes:
            p.kill()
    return [(p.returncode, out, err) for p, (out, err) in zip(processes, told, strict=True)]


# Flags


def test_one_process_meets_nobody():
    assert join(Meeting(), {}) is ALONE
    assert join(Meeting(), {"SLURM_STEP_NODELIST": "node1", "SLURM_NTASKS": "1"}) is ALONE
    assert join(Meeting(), {"SLURM_NTASKS": "8"}) is ALONE  # an sbatch script, outside of srun
    assert ALONE.lead
    assert ALONE.agree("runs/a") == "runs/a"
    assert (ALONE.any(True), ALONE.all(False), ALONE.most(7)) == (True, False, 7)


@pytest.mark.parametrize(
    ("meeting", "told"),
    [
        (
            Meeting(processes=2),
            "coordinator: --coordinator, --processes and --process belong together: give all or none",
        ),
        (Meeting("node1", 2, 0), "coordinator: must be HOST:PORT, such as node1:29400, got 'node1'"),
        (Meeting("node1:29400", 2, 2), "process: must be from 0 to 1 of 2 processes, got 2"),
        (Meeting(join_timeout=0), "join_timeout: must be above 0, got 0"),
    ],
)
def test_flags_that_do_not_fit_are_refused(meeting, told):
    with pytest.raises(ConfigError) as caught:
        check_meeting(meeting)
    assert str(caught.value) == told


def test_processes_cannot_be_joined_once_jax_is_in_use():
    jax.devices()
    with pytest.raises(ConfigError, match=r"processes: could not join the others at 127\.0\.0\.1:29400 "):
        join(Meeting("127.0.0.1:29400", 2, 0, join_timeout=5))


@pytest.mark.parametrize("alone", [0, 1])
def test_a_process_that_nobody_joins_says_so_and_ends(alone):
    code = "from jaxppo.hosts import Meeting, join\n"
    address = f"127.0.0.1:{free_port()}"
    code += f"join(Meeting({address!r}, 2, {alone}, join_timeout=2))"
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: processes: not all 2 met at {address} within 2 s (--join-timeout); see that each runs and reaches that"
        " address\n"
    )


MEET = """
import sys
from jaxppo.hosts import Meeting, join
with join(Meeting(join_timeout=60)) as hosts:
    told = hosts.agree(f"said by {hosts.index}")
    agreed = hosts.most(10 * hosts.index), hosts.all(True), hosts.any(hosts.index == 1)
    print("FOUND", hosts.index, hosts.count, told, *agreed)
"""


def slurm(i: int, port: int) -> dict[str, str]:
    """Slurm's variables of task i of two; JAX makes the port from the job's number."""
    place = {"SLURM_JOB_ID": str(port - 61440), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    return {**place, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}


def open_mpi(i: int, port: int) -> dict[str, str]:
    """Open MPI's variables of rank i of two, likewise."""
    place = {"OMPI_MCA_orte_hnp_uri": f"{(port - 61440) * 4096}.0;tcp://127.0.0.1:1", "OMPI_COMM_WORLD_SIZE": "2"}
    return {**place, "OMPI_COMM_WORLD_RANK": str(i), "OMPI_COMM_WORLD_LOCAL_RANK": str(i)}


@pytest.mark.parametrize("started_by", [slurm, open_mpi])
def test_processes_find_each_other_by_the_variables_of_what_started_them(started_by):
    port = 61440 + os.getpid() % 4000  # JAX's are from 61,440 on
    env = {**os.environ, "PYTHONPATH": str(REPO), "JAX_PLATFORMS": "cpu"}
    pipe = subprocess.PIPE
    both = [
        subprocess.Popen(
            [sys.executable, "-c", MEET], env={**env, **started_by(i, port)}, stdout=pipe, stderr=pipe, text=True
        )
        for i in range(2)
    ]
    for i, (status, out, errors) in enumerate(ended(both, 120)):
        assert status == 0, errors
        assert f"FOUND {i} 2 said by 0 10 True True" in out


# Lifelines: three processes, here three threads


def connected(count: int = 3) -> tuple[list[Lifeline], list[list[int]]]:
    """Lifelines of so many processes, and whom each has lost."""
    lost: list[list[int]] = [[] for _ in range(count)]
    lines = [Lifeline(i, count, lost[i].append) for i in range(count)]
    address = f"127.0.0.1:{lines[0].port}"
    threads = [threading.Thread(target=line.open, args=(address,)) for line in lines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return lines, lost


def soon(condition: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def drop(line: Lifeline) -> None:
    """What the system does to a process that is killed: its threads stop, and its connections are closed."""
    line._closing.set()
    line._thread.join()
    for s in line._sockets.values():
        s.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("killed", [0, 2])
def test_whoever_is_killed_is_missed_by_all_others(killed):
    lines, lost = connected()
    others = {0, 1, 2} - {killed}
    drop(lines[killed])
    soon(lambda: all(lost[i] for i in others))
    assert all(lost[i][0] == killed for i in others)
    for line in lines:
        line.close()


def test_whoever_says_goodbye_is_not_missed():
    lines, lost = connected()
    lines[2].close()
    time.sleep(0.5)
    lines[0].close()
    lines[1].close()
    assert lost == [[], [], []]


def test_whoever_is_silent_is_missed(monkeypatch):
    monkeypatch.setattr(Lifeline, "SILENCE", 0.5)
    lines, lost = connected(2)
    monkeypatch.setattr(lines[1], "_send", lambda data: None)
    monkeypatch.setattr(lines[1], "SILENCE", 60.0)
    soon(lambda: lost[0] and lost[1])
    assert lost == [[1], [1]]  # it is told, should it be there after all
    for line in lines:
        line.close()


# Whole runs


@pytest.fixture(scope="module")
def args(tmp_path_factory) -> list[str]:
    sizes = flags(n_envs=64, blocks=8, n_updates=UPDATES, validate_every=4)
    return [*sizes, f"--data={write_bars(tmp_path_factory.mktemp('bars'))}", "--interval=1h"]


@pytest.fixture(scope="module")
def whole(args, tmp_path_factory) -> Path:
    """The run of two processes that nothing happened to."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    (first, second) = ended(together([*args, f"--run-dir={run_dir}"]))
    assert first[0] == 0, first[2]
    assert second[0] == 0, second[2]
    assert "report: " in first[1]
    said = [line for line in second[1].splitlines() if not line.startswith("[Gloo]")]
    assert said == []  # one process writes, one speaks
    return run_dir


def alike(run_dir: Path, other: Path) -> None:
    """Runs whose random numbers are the same and whose figures differ by rounding."""
    (state, best, info), (theirs, their_best, their_info) = restore_run(run_dir), restore_run(other)
    assert info.update == their_info.update
    for a, b in zip(jax.tree.leaves(state.paths), jax.tree.leaves(theirs.paths), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(state.params, theirs.params, rtol=0, atol=1e-4)
    np.testing.assert_allclose(best, their_best, rtol=0, atol=1e-4)
    assert [r[0] for r in metrics(run_dir)[1]] == [r[0] for r in metrics(other)[1]]


@pytest.mark.slow
def test_two_processes_of_four_devices_are_one_of_eight(whole, args, tmp_path):
    ((status, _, errors),) = ended([process(8, *args, f"--run-dir={tmp_path / 'run'}", "--devices=8")])
    assert status == 0, errors
    alike(whole, tmp_path / "run")


@pytest.mark.slow
def test_a_killed_process_ends_the_others_and_the_run_goes_on(whole, args, tmp_path):
    run_dir = tmp_path / "run"
    first, second = together([*args, f"--run-dir={run_dir}"])
    saved = run_dir / "checkpoints" / "8"
    soon(lambda: saved.exists() or first.poll() is not None, 600)
    second.send_signal(signal.SIGKILL)
    began = time.monotonic()
    ((status, _, errors),) = ended([first], 30)
    assert time.monotonic() - began < 15
    assert status == LOST
    told = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert told == [
        f"error: process 1 of 2 is gone, and none can do without it: go on with --run-dir {run_dir} --resume, with as"
        " many processes as there are"
    ]
    second.communicate()
    elsewhere = Path(shutil.copytree(run_dir, tmp_path / "elsewhere"))

    for status, _, errors in ended(together([*args, f"--run-dir={run_dir}", "--resume"])):
        assert status == 0, errors
    assert differences(whole, run_dir) == []  # to the bit

    ((status, _, errors),) = ended([process(2, *args, f"--run-dir={elsewhere}", "--resume", "--devices=2")])
    assert status == 0, errors
    alike(whole, elsewhere)
