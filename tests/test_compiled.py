"""The executables of a run's updates: which there are, when they are compiled, and what goes wrong."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxppo.train.compiled import Updates

STATE = jax.ShapeDtypeStruct((), jnp.float32)


class Traced:
    """A program whose update adds 1 to the state; `bad` updates in a row cannot be traced."""

    def __init__(self, bad: int = 0):
        self.numbers: list[Any] = []
        self.spec = SimpleNamespace(mesh=None)
        self._bad = bad

    def updates(self, state: Any, hyper: Any, tape: Any, n_updates: Any) -> Any:
        self.numbers.append(n_updates if isinstance(n_updates, int) else "any")
        if isinstance(n_updates, int) and n_updates == self._bad:
            raise ValueError("no such program")
        number = jnp.asarray(n_updates, jnp.int32)
        return state + hyper * tape * number.astype(jnp.float32), {"n": number}


def made(program: Any, *numbers: int) -> Updates:
    return Updates(program, (STATE,) * 3, numbers, {})


def run(updates: Updates, n: int) -> float:
    state, rows = updates.run(*(jnp.float32(x) for x in (100, 1, 1)), n)
    assert int(rows["n"]) == n
    return float(state)


def test_one_executable_makes_any_number_of_updates():
    program = Traced()
    updates = made(program)
    assert [run(updates, n) for n in (40, 37)] == [140, 137]
    assert program.numbers == ["any"]


def test_a_shorter_segment_is_compiled_once_the_first_has_begun():
    program = Traced()
    updates = made(program, 40, 40, 40, 37)
    assert updates.first.result().seconds > 0
    assert program.numbers == [40]
    assert [run(updates, n) for n in (40, 40, 37)] == [140, 140, 137]
    assert program.numbers == [40, 37]
    assert run(updates, 3) == 103  # nobody said that it would be asked for
    assert program.numbers == [40, 37, 3]


def test_what_goes_wrong_beside_the_first_segments_is_raised_where_it_is_needed():
    updates = made(Traced(bad=37), 40, 37)
    assert run(updates, 40) == run(updates, 40) == 140
    with pytest.raises(ValueError, match="no such program"):
        run(updates, 37)
    with pytest.raises(ValueError, match="no such program"):
        made(Traced(bad=40), 40)


INTERRUPTED = """
import os, signal, threading, time
import polars
from jaxppo.cli import leave
from jaxppo.device import beside, result_of
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    result_of(beside(lambda: time.sleep(600)))
except KeyboardInterrupt:
    leave(130)
"""


def test_a_command_ends_when_it_is_interrupted_while_it_compiles():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (130, "")
