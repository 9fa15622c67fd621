"""Long runs: counters that pass 2^31, and nothing that grows."""

from __future__ import annotations

import csv
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_config, tiny_market

from benchmarks.robustness.long_runs import GROWTH, Sample, at, figure, watch
from benchmarks.robustness.runs import scalars
from jaxppo.config.layers import Resolved
from jaxppo.page.progress import Display
from jaxppo.ppo.update import update
from jaxppo.store.checkpoint import restore_train_state
from jaxppo.train.compiled import Compiled, compile_run, first_state
from jaxppo.train.loop import Progress, Trainer
from jaxppo.train.record import ahead
from jaxppo.train.tracking import Tracking

# 40 million updates of 64 env steps: 2.56e9, beyond int32 (2.147e9) and beyond what float32 tells apart (1.7e7).
DONE = 40_000_000
BATCH_STEPS = 64


@pytest.fixture(scope="module")
def compiled():
    config = tiny_config()
    market = tiny_market(config)
    return config, market, compile_run(config, market)


def test_counters_pass_two_to_the_31(compiled, tmp_path):
    config, market, program = compiled
    state = first_state(program, 0)._replace(update=jnp.int32(DONE))
    trainer = Trainer(tmp_path, Resolved(config, {}), market, program, 2, Tracking(tmp_path, (), config, print))
    at_ = Progress(update=DONE)
    state, _, at_ = trainer._segment(state, at_, 2, Display(DONE + 3, BATCH_STEPS))
    trainer._write(Display(DONE + 3, BATCH_STEPS))
    trainer.close()
    assert at_.update == int(state.update) == DONE + 2
    with (tmp_path / "metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (int(row["update"]), int(row["env_steps"])) == (DONE + 2, 2_560_000_128)
    steps = [(tag, step) for tag, step, _ in scalars(tmp_path)]
    assert [s for tag, s in steps if tag == "train/entropy"] == [2_560_000_064, 2_560_000_128]
    assert [s for tag, s in steps if tag == "validation/fitness"] == [2_560_000_128]
    restored, info = restore_train_state(tmp_path)
    assert (int(restored.update), info.update) == (DONE + 2, DONE + 2)


def test_counts_on_the_device_stay_in_their_range(compiled):
    """int32 throughout, and the schedules are at their end, not beyond it, long after the last update planned."""
    config, _, program = compiled
    spec, tape, hyper = program.program.spec, program.tape, program.hyper
    state = first_state(program, 0)
    count = jnp.int32(2**31 - 3)  # two steps before its end; an update takes four
    state = state._replace(
        update=jnp.int32(2**31 - 2),
        moments=state.moments._replace(gradients=count),
        steps=count,
    )
    after, metrics = jax.jit(lambda s, t: update(s, t, spec, hyper))(state, tape)
    assert int(after.update) == 2**31 - 1
    assert [int(after.moments.gradients), int(after.steps)] == [2**31 - 1] * 2
    assert float(metrics["learning_rate"]) == pytest.approx(0.01 * config.ppo.learning_rate, rel=1e-5)
    assert float(metrics["entropy_coefficient"]) == pytest.approx(config.ppo.entropy_end, rel=1e-5)
    assert float(metrics["skipped_steps"]) == 0


def test_a_save_leaves_no_thread_and_no_handle(compiled, tmp_path):
    """Orbax gives every save an event loop of its own, which lives until its result is asked for."""
    config, market, program = compiled
    trainer = Trainer(tmp_path, Resolved(config, {}), market, program, 2, Tracking(tmp_path, (), config, print))
    state, at_, display, counts = first_state(program, 0), Progress(), Display(99, BATCH_STEPS), []
    for _ in range(24):
        state, _, at_ = trainer._segment(state, at_, 1, display)
        loops = [t for t in threading.enumerate() if "_run_loop" in t.name]
        counts.append((len(loops), len(list(Path("/proc/self/fd").iterdir()))))
    trainer.close()
    assert max(n for n, _ in counts[12:]) <= max(n for n, _ in counts[:12])
    # One in flight has a few handles more; a dozen saves that leave 3 each would have 36 more.
    assert max(n for _, n in counts[12:]) <= max(n for _, n in counts[:12]) + 8


def test_a_save_that_cannot_begin_leaves_no_thread(compiled, tmp_path):
    """Orbax would begin an event loop first, and then find that its folder cannot be made: that loop never ends."""
    config, market, program = compiled
    trainer = Trainer(tmp_path, Resolved(config, {}), market, program, 2, Tracking(tmp_path, (), config, print))
    (tmp_path / "checkpoints" / "1.saving").write_text("in the way")
    before = {t for t in threading.enumerate() if "_run_loop" in t.name}
    display = Display(99, BATCH_STEPS)
    state, _, at_ = trainer._segment(first_state(program, 0), Progress(), 1, display)
    trainer._write(display)
    assert "a checkpoint could not be saved ([Errno 17] File exists" in (trainer._checkpoints.wait() or "")
    assert {t for t in threading.enumerate() if "_run_loop" in t.name} <= before
    trainer._segment(state, at_, 1, display)
    trainer._write(display)
    trainer.close()
    assert trainer._checkpoints.updates == [2]


def test_what_a_segment_leaves_is_written_while_the_next_one_runs(compiled, tmp_path, monkeypatch):
    """A checkpoint is saved after its rows, both once the next segment is on its way; the last are asked for."""
    config, market, program = compiled
    noted: list[str] = []
    advance = Compiled.advance
    monkeypatch.setattr(Compiled, "advance", lambda self, *rest: noted.append("advance") or advance(self, *rest))
    trainer = Trainer(tmp_path, Resolved(config, {}), market, program, 2, Tracking(tmp_path, (), config, print))
    writes, save = trainer._log.writes, trainer._checkpoints.save
    trainer._log.writes = lambda at, *rest: noted.append(f"rows {at.update}") or writes(at, *rest)
    trainer._checkpoints.save = lambda state, info, best: noted.append(f"save {info.update}") or save(state, info, best)
    state, at_, display = first_state(program, 0), Progress(), Display(99, BATCH_STEPS)
    for _ in range(2):
        state, _, at_ = trainer._segment(state, at_, 1, display)
    assert noted == ["advance", "advance", "rows 1", "save 1"]
    trainer._write(display)
    trainer._write(display)  # there is nothing left
    trainer.close()
    assert noted[4:] == ["rows 2", "save 2"]
    restored, info = restore_train_state(tmp_path)
    assert (int(restored.update), info.update) == (2, 2)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(raw, restored), jax.tree.map(raw, state))


def raw(x: Any) -> Any:
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def test_on_an_accelerator_the_rules_are_scored_while_it_trains(monkeypatch):
    def score() -> str:
        threads.append(threading.current_thread().name)
        return "yardsticks"

    threads: list[str] = []
    here = ahead(score)
    assert threads == []
    assert here() == "yardsticks"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert ahead(score)() == "yardsticks"
    assert threads[0] == threading.current_thread().name != threads[1]


def test_figures_are_of_the_updates_that_they_name():
    samples = [Sample(u, 100.0 + u, 10, 5) for u in range(0, 1000, 2)]
    assert at(samples, 301).update == 302
    assert figure(samples, 200, "rss_mib") == 100.0 + 152  # the middle of 102, 104 ... 200
    assert figure(samples[:3], 900, "handles") == 10.0  # nothing near: the last there is


def test_handles_that_are_never_closed_raise_the_least():
    in_flight = [Sample(u, 100.0, 10 + 30 * (u % 3 == 0), 5) for u in range(0, 200, 2)]
    leaking = [Sample(u, 100.0, 10 + u // 10, 5) for u in range(0, 200, 2)]
    assert [figure(in_flight, u, "handles") for u in (100, 200)] == [10.0, 10.0]
    assert [figure(leaking, u, "handles") for u in (100, 200)] == [10.0, 20.0]


@pytest.mark.slow
def test_nothing_grows(tmp_path):
    """600 updates with 300 validations and checkpoints, watched from outside."""
    status, output, samples = watch(tmp_path, updates=600, every=2)
    assert status == 0, output
    assert "report: " in output
    assert len(samples) > 20
    for of, limit in GROWTH.items():
        early, late = figure(samples, 300, of), figure(samples, 600, of)
        assert late <= early + limit, (of, early, late)
    kept = [int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir()]
    assert len(kept) <= 3
    assert np.max(kept) == 600
