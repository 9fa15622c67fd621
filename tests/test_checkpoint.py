"""Checkpoints: what comes back is what was saved, bit for bit, or one sentence that says why not."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as orbax
import pytest
from helpers import BRACKETED, tiny_config, tiny_market

from jaxppo.config.schema import EnvConfig
from jaxppo.env.actions import action_table
from jaxppo.errors import CheckpointError, CheckpointWarning
from jaxppo.play.passes import n_decisions
from jaxppo.play.score import validate
from jaxppo.store import checkpoint as checkpoint_module
from jaxppo.store.arrays import compare_arrays
from jaxppo.store.checkpoint import (
    CheckpointWriter,
    require_match,
    restore_policy,
    restore_run,
    restore_train_state,
)
from jaxppo.store.checkpoint_info import CheckpointInfo
from jaxppo.store.checksums import damage, seal
from jaxppo.store.json import read_json, write_json
from jaxppo.store.rows import validation_row
from jaxppo.train.compiled import Compiled, compile_run, first_state

# Saved update: its fitness. With two newest kept, 1 stays as the best, 2 goes.
FITNESS = {1: 0.75, 2: -1.5, 3: 0.25, 4: 0.5}
KEPT = (1, 3, 4)
LAST = max(FITNESS)


def info_of(update: int, fitness: float, **changes: Any) -> CheckpointInfo:
    config = tiny_config()
    info = CheckpointInfo(
        config=config,
        feature_names=("return", "rsi_14"),
        feature_hash="f" * 64,
        data_hash="d" * 64,
        actions=action_table(config.env),
        update=update,
        fitness=fitness,
        final=update == LAST,
        best_fitness=0.75,
        best_update=1,
        elapsed_seconds=1.25,
    )
    return replace(info, **changes)


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    config = tiny_config()
    return compile_run(config, tiny_market(config))


@pytest.fixture(scope="module")
def names(compiled) -> tuple[str, ...]:
    return tuple(f"feature_{i}" for i in range(compiled.tape.n_features))


def segment(compiled: Compiled, state: Any, n_updates: int) -> Any:
    return compiled.advance(state, n_updates)


@pytest.fixture(scope="module")
def saved(compiled, names, tmp_path_factory):
    """A run directory of four saves; and for each the state and validation at its time, and what `info` it had."""
    run = tmp_path_factory.mktemp("run")
    writer = CheckpointWriter(run, keep=2)
    state, known = first_state(compiled, 0), {}
    for update, fitness in FITNESS.items():
        state, out = segment(compiled, state, 1)
        then = jax.device_get(jax.tree.map(jnp.copy, state))  # a copy: a host view would keep the buffers from donation
        known[update] = (
            then,
            jax.device_get(out.score),
            info_of(update, fitness, feature_names=names),
        )
        writer.save(state, known[update][2])
        # The save goes on in the background; meanwhile the state is donated to the next updates, over and over.
        for _ in range(5):
            state, _ = segment(compiled, state, 1)
    writer.close()
    return run, known


def assert_same_bits(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert (x.dtype, x.shape) == (y.dtype, y.shape), path
        assert x.tobytes() == y.tobytes(), path


@pytest.mark.parametrize("update", KEPT)
def test_the_train_state_comes_back_bit_for_bit(saved, update):
    run, known = saved
    state, info = restore_train_state(run, update)
    assert_same_bits(state, known[update][0])
    assert info == known[update][2]
    assert {d for x in jax.tree.leaves(state) for d in x.devices()} == {jax.devices()[0]}


def test_the_saved_states_differ(saved):
    _, known = saved
    kernels = [np.asarray(jax.tree.leaves(state.params)[0]) for state, _, _ in known.values()]
    assert len({k.tobytes() for k in kernels}) == len(FITNESS)


def test_a_restored_state_trains_on_as_the_original(saved, compiled):
    run, known = saved
    state, _ = restore_train_state(run, 1)
    on, out = segment(compiled, state, 2)
    wanted, wanted_out = segment(compiled, jax.device_put(known[1][0]), 2)
    assert_same_bits(on, wanted)
    assert_same_bits(out, wanted_out)


@pytest.mark.parametrize("place", ["", "checkpoints"])
@pytest.mark.parametrize(("which", "update"), [("best", 1), ("latest", 4), ("final", 4), (3, 3)])
def test_only_the_policy_from_a_run_or_its_checkpoints(saved, place, which, update):
    run, known = saved
    policy = restore_policy(run / place, which)
    assert policy.info == known[update][2]
    assert_same_bits(policy.params, known[update][0].params)


def test_only_the_policy_from_one_checkpoint(saved):
    run, known = saved
    policy = restore_policy(str(run / "checkpoints" / "3"))
    assert_same_bits(policy.params, known[3][0].params)


def test_a_restored_policy_validates_as_it_did_in_the_run(saved, compiled):
    run, known = saved
    policy = restore_policy(run, "best")
    then = known[1][1].figures
    env, context = compiled.program.spec.env, compiled.program.spec.receptive_field
    n_bars = n_decisions(compiled.data.tape)
    check = jax.jit(lambda params: validate(policy.agent, env, params, compiled.data, n_bars, context).figures)
    labels = policy.info.actions.labels
    now = validation_row(jax.device_get(check(policy.params)), labels)  # the restored agent, compiled anew
    assert now == pytest.approx(validation_row(then, labels), rel=1e-3, abs=1e-5, nan_ok=True)
    assert now["val_trades"] > 0

    state = first_state(compiled, 0)._replace(params=policy.params)
    _, out = segment(compiled, state, 0)  # the executable of the run
    assert_same_bits(jax.device_get(out.score), known[1][1])


def test_restoring_changes_nothing_on_disk(saved):
    run, _ = saved

    def files() -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}

    before = files()
    restore_policy(run)
    restore_train_state(run)
    assert files() == before


# Which are kept


def steps(run: Path) -> list[int]:
    return sorted(int(p.name) for p in (run / "checkpoints").iterdir())


def test_the_newest_and_the_best_are_kept(saved):
    assert steps(saved[0]) == list(KEPT)


@pytest.mark.parametrize(
    ("keep", "fitness", "kept"),
    [
        (1, (0.1, 0.3, 0.2), [1, 2]),
        (1, (0.1, 0.2, 0.3), [2]),
        (1, (0.5, 0.5, 0.5), [2]),  # of equals the later, as `best` has it
        (1, (0.1, 0.5, 0.5, 0.2), [2, 3]),
        (2, (-9.0, -8.0, -9.5, -9.9), [1, 2, 3]),
        (3, (0.0, 0.0, 0.0), [0, 1, 2]),
    ],
)
def test_retention(compiled, tmp_path, keep, fitness, kept):
    writer = CheckpointWriter(tmp_path, keep)
    state = first_state(compiled, 0)
    for update, value in enumerate(fitness):
        writer.save(state, info_of(update, value))
    writer.close()
    assert steps(tmp_path) == kept


def test_a_resumed_run_saves_over_what_it_does_again(compiled, names, tmp_path):
    for seed in (0, 1):
        writer = CheckpointWriter(tmp_path, 2)
        writer.save(first_state(compiled, seed), info_of(5, float(seed), feature_names=names))
        writer.close()
    state, info = restore_train_state(tmp_path)
    assert info.fitness == 1.0
    assert_same_bits(state, jax.device_get(first_state(compiled, 1)))


def test_what_a_crash_left_behind_is_no_checkpoint_and_is_cleared_away(saved, compiled, tmp_path):
    shutil.copytree(saved[0], tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "4", folder / "6.orbax-checkpoint-tmp")
    assert restore_policy(tmp_path, "latest").info.update == 4
    writer = CheckpointWriter(tmp_path, 2)
    writer.save(first_state(compiled, 0), info_of(5, 0.0))
    writer.close()
    assert steps(tmp_path) == [1, 4, 5]


# What cannot be restored


def refused(path: Path, which: Any = "best", restore: Any = restore_policy) -> str:
    with pytest.raises(CheckpointError) as caught:
        restore(path, which)
    text = str(caught.value)
    assert "\n" not in text
    assert 20 < len(text) < 500
    return text


def test_there_is_nothing(tmp_path):
    for path in (tmp_path, tmp_path / "absent", tmp_path / "7"):
        assert refused(path).startswith(f"{path}: no checkpoints there; expected a run directory")
    (tmp_path / "checkpoints").mkdir()
    assert "holds no finished checkpoint" in refused(tmp_path)


def test_a_run_that_has_not_finished_has_no_final_checkpoint(saved, tmp_path):
    shutil.copytree(saved[0], tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints" / str(LAST))
    assert refused(tmp_path, "final").endswith("the run has not finished, its last checkpoint is of update 3")


def test_an_update_that_was_not_kept_names_those_that_were(saved):
    assert "no checkpoint of update 2; there are [1, 3, 4]" in refused(saved[0], 2)
    assert "no checkpoints there" in refused(saved[0] / "checkpoints" / "2")


def test_a_folder_of_numbers_is_no_checkpoint(tmp_path):
    (tmp_path / "2024").mkdir()
    assert refused(tmp_path) == f"none of the checkpoints is sound: {tmp_path / '2024'}: it is empty"
    assert refused(tmp_path / "2024").startswith(f"{tmp_path / '2024'}: is damaged: it is empty")
    (tmp_path / "2024" / "photo.jpg").write_bytes(b"jpg")
    assert "checksums.json is missing, so it was never finished" in refused(tmp_path)
    seal(tmp_path / "2024")
    assert "not a jaxppo checkpoint of format 4 (found None)" in refused(tmp_path)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:10])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(bytes(data))


def arrays(checkpoint: Path) -> list[Path]:
    found = [p for p in checkpoint.rglob("d/*") if p.is_file()]
    assert found
    return found


DAMAGE = {
    "description cut short": lambda c: cut(c / "info.json"),
    "no description": lambda c: (c / "info.json").unlink(),
    "Orbax's description cut short": lambda c: cut(c / "_CHECKPOINT_METADATA"),
    "checksums cut short": lambda c: cut(c / "checksums.json"),
    "no checksums": lambda c: (c / "checksums.json").unlink(),
    "a bit of the checksums flipped": lambda c: flip(c / "checksums.json"),
    "arrays cut short": lambda c: [cut(p) for p in arrays(c)],
    "a bit flipped": lambda c: [flip(p) for p in arrays(c)],
    "index cut short": lambda c: [cut(p) for p in c.rglob("manifest.ocdbt")],
    "parts missing": lambda c: [shutil.rmtree(c / part) for part in ("policy", "train")],
    "all files missing": lambda c: [p.unlink() for p in c.rglob("*") if p.is_file()],
    "a file emptied": lambda c: arrays(c)[0].write_bytes(b""),
}


@pytest.mark.parametrize("restore", [restore_policy, restore_train_state])
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_refused_by_name(saved, tmp_path, kind, restore):
    checkpoint = tmp_path / "checkpoints" / str(LAST)
    shutil.copytree(saved[0] / "checkpoints" / str(LAST), checkpoint)
    DAMAGE[kind](checkpoint)
    assert refused(tmp_path, "latest", restore).startswith(f"none of the checkpoints is sound: {checkpoint}: ")
    assert refused(tmp_path, LAST, restore).startswith(f"{checkpoint}: is damaged: ")


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_by_name(saved, tmp_path, kind):
    run, known = saved
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    checkpoint = tmp_path / "checkpoints" / str(LAST)
    DAMAGE[kind](checkpoint)
    with pytest.warns(CheckpointWarning) as told:
        state, info = restore_train_state(tmp_path, "latest")
    assert_same_bits(state, known[3][0])
    assert info == known[3][2]
    (text,) = {str(w.message) for w in told}
    assert text.startswith(f"{checkpoint}: is damaged: ")
    assert text.endswith("; the checkpoint of update 3 is used")


def third_is_nan(array: np.ndarray) -> np.ndarray:
    return np.where(np.arange(array.size) == 3, np.nan, array).astype(array.dtype)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: {"params": p[:5]}, "array policy/params is float32 of shape (5,), and should be float32 of shape "),
        (lambda p: {"params": p.astype(np.float16)}, "array policy/params is float16 of shape "),
        (lambda p: {"weights": p}, "array policy/params is missing"),
        (lambda p: {"params": p, "weights": p}, "array policy/weights is one that no checkpoint of this configuration"),
        (lambda p: {"params": third_is_nan(p)}, "array policy/params holds NaN or infinity"),
    ],
)
def test_a_forged_array_is_named(saved, tmp_path, capfd, change, said):
    source, checkpoint = saved[0] / "checkpoints" / str(LAST), tmp_path / str(LAST)
    params = np.asarray(saved[1][LAST][0].params)
    orbax.v1.save_checkpointables(checkpoint, {"policy": change(params)})
    shutil.copy(source / "info.json", checkpoint)
    seal(checkpoint)  # so that its checksums say that all is well
    capfd.readouterr()
    assert f"{checkpoint}: {said}" in refused(checkpoint)
    assert (
        refused(checkpoint, restore=restore_train_state) == f"{checkpoint}: part 'train' is missing; there are policy"
    )
    told = capfd.readouterr()
    assert "Traceback" not in told.out + told.err


def test_names_shapes_and_dtypes_of_a_train_state_are_compared():
    wanted = {"guard/scale": np.zeros(()), "paths/t": np.zeros(4, np.int32)}
    for found, said in (
        ({"paths/t": wanted["paths/t"]}, "array train/guard/scale is missing"),
        ({**wanted, "a": np.zeros(1)}, "array train/a is one that no checkpoint of this configuration has"),
        ({**wanted, "paths/t": np.zeros(5, np.int32)}, r"array train/paths/t is int32 of shape \(5,\), and should be"),
        ({**wanted, "paths/t": np.zeros(4)}, "array train/paths/t is float64 of shape"),
        ({}, "no array of train can be read"),
    ):
        with pytest.raises(CheckpointError, match=f"^here: {said}"):
            compare_arrays(Path("here"), "train", found, wanted)
    compare_arrays(Path("here"), "train", wanted, wanted)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"actions": None}, "info.json lacks 'actions'"),
        ({"colour": "red"}, "info.json has an unknown 'colour'"),
        ({"update": "four"}, "info.json is not what was saved"),
        ({"config": {"ppo": {"gama": 1}}}, "unknown field ppo.gama"),
        ({"plugins": [1]}, "info.json is not what was saved"),
    ],
)
def test_a_forged_description_is_named(changes, said):
    raw = info_of(1, 0.5).to_json() | changes
    with pytest.raises(CheckpointError, match=f"^here: .*{said}"):
        CheckpointInfo.from_json({k: v for k, v in raw.items() if v is not None}, "here")


def test_a_file_that_differs_is_named_with_what_differs(saved, tmp_path):
    checkpoint = tmp_path / "3"
    shutil.copytree(saved[0] / "checkpoints" / "3", checkpoint)
    size = (checkpoint / "info.json").stat().st_size
    cut(checkpoint / "info.json")
    assert damage(checkpoint) == f"info.json has 10 bytes and had {size:,}"
    shutil.copy(saved[0] / "checkpoints" / "3" / "info.json", checkpoint)
    assert damage(checkpoint) is None
    flip(checkpoint / "info.json")
    assert damage(checkpoint) == "info.json is not what was saved (its checksum differs)"
    (checkpoint / "info.json").unlink()
    assert damage(checkpoint) == "info.json is missing"


def test_checksums_lead_to_no_file_outside(saved, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("of another")
    checkpoint = tmp_path / "3"
    shutil.copytree(saved[0] / "checkpoints" / "3", checkpoint)
    told = json.loads((checkpoint / "checksums.json").read_text())
    for name in ("../secret", str(secret)):
        (checkpoint / "checksums.json").write_text(json.dumps({**told, name: told["info.json"]}))
        assert damage(checkpoint) == f"{name} is missing"
    (checkpoint / "checksums.json").write_text(json.dumps(told))
    (checkpoint / "info.json").unlink()
    (checkpoint / "info.json").symlink_to(saved[0] / "checkpoints" / "3" / "info.json")
    assert damage(checkpoint) == "info.json is missing"  # a link is no file of the checkpoint
    for text in ("[" * 100_000, " " * 2**21, '{"info.json": 3}', '{"info.json": {"bytes": "3"}}'):
        (checkpoint / "checksums.json").write_text(text)
        assert damage(checkpoint) is not None


def test_what_is_added_to_a_checkpoint_is_no_damage(saved, tmp_path):
    shutil.copytree(saved[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "checkpoints" / "4" / ".DS_Store").write_bytes(b"a file manager was here")
    (tmp_path / "checkpoints" / "notes.txt").write_text("mine")
    assert restore_policy(tmp_path, "latest").info.update == 4
    writer = CheckpointWriter(tmp_path, 2)
    writer.close()
    assert (tmp_path / "checkpoints" / "notes.txt").exists()


def test_the_best_policy_outlives_its_own_checkpoint(compiled, names, tmp_path):
    writer = CheckpointWriter(tmp_path, 1)
    states = [first_state(compiled, seed) for seed in (0, 1)]
    best = jax.device_get(states[0].params)
    for update, fitness in enumerate((0.75, 0.25)):
        info = info_of(update, fitness, feature_names=names, best_update=0)
        writer.save(states[update], info, best)
    writer.close()
    assert steps(tmp_path) == [0, 1]
    for damaged in (False, True):
        if damaged:
            flip(tmp_path / "checkpoints" / "0" / "info.json")
        with pytest.warns(CheckpointWarning) if damaged else contextlib.nullcontext():
            policy = restore_policy(tmp_path, "best")
        assert_same_bits(policy.params, best)
        assert (policy.info.update, policy.info.fitness) == (0, 0.75)
    shutil.rmtree(tmp_path / "checkpoints" / "0")
    assert_same_bits(restore_policy(tmp_path, "best").params, best)
    state, kept, info = restore_run(tmp_path)
    assert_same_bits(kept, best)
    assert_same_bits(state, jax.device_get(states[1]))
    assert info.update == 1


# What cannot be written


def test_a_save_that_fails_leaves_the_older_ones_and_the_next_goes_on(compiled, monkeypatch, tmp_path):
    writer, state = CheckpointWriter(tmp_path, 2), first_state(compiled, 0)
    writer.save(state, info_of(1, 0.0))
    assert writer.wait() is None

    def full(folder: Path) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "seal", full)
        writer.save(state, info_of(2, 0.0))
        text = writer.wait()
        assert text is not None
        assert "could not be saved" in text
        assert "No space left on device" in text
    assert writer.updates == steps(tmp_path) == [1]  # and nothing half-written lies about
    writer.save(state, info_of(3, 0.0))
    writer.close()
    assert writer.updates == steps(tmp_path) == [1, 3]


def test_a_disk_without_room_is_not_filled(compiled, monkeypatch, tmp_path):
    writer, state = CheckpointWriter(tmp_path, 2), first_state(compiled, 0)
    needed = writer.kept(state)["most_bytes"] // 4
    for free, saved in ((needed - 1, []), (needed, [1])):
        usage = shutil.disk_usage(tmp_path)._replace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, usage=usage: usage)
        writer.save(state, info_of(1, 0.0))
        text = writer.wait()
        assert (text is None) == bool(saved)
        assert saved or "could not be saved ([Errno 28] No space left on device)" in text
        assert writer.updates == steps(tmp_path) == saved
    writer.close()


def test_the_reason_of_a_failure_is_the_systems(compiled):
    long = ValueError(
        'RESOURCE_EXHAUSTED: Error writing "a/b": Failed to write 3 bytes: File too large [os_error_code=27]'
    )
    assert checkpoint_module._reason(long) == "File too large"
    assert checkpoint_module._reason(ValueError("one\ntwo")) == "one"
    assert checkpoint_module._reason(KeyError()) == "KeyError"


def test_a_save_that_failed_unseen_is_an_error_at_the_end(compiled, monkeypatch, tmp_path):
    writer = CheckpointWriter(tmp_path, 2)
    monkeypatch.setattr(checkpoint_module, "seal", lambda folder: 1 / 0)
    writer.save(first_state(compiled, 0), info_of(1, 0.0))
    with pytest.raises(CheckpointError, match="could not be saved"):
        writer.close()


def test_room_is_bounded_and_stated(compiled, tmp_path):
    writer = CheckpointWriter(tmp_path, 2)
    state = first_state(compiled, 0)
    for update, fitness in enumerate((0.5, 0.1, 0.2, 0.3, 0.1, 0.2)):
        writer.save(state, info_of(update, fitness))
        writer.wait()
        kept = writer.kept(state)
        assert len(kept["updates"]) <= 3
        assert kept["bytes"] <= kept["most_bytes"] * 3 / 4  # the fourth is for one that is being written
    assert kept["updates"] == [0, 4, 5]
    assert kept["bytes"] == sum(p.stat().st_size for p in (tmp_path / "checkpoints").rglob("*") if p.is_file())
    assert 4 * sum(x.nbytes for x in jax.tree.leaves(state)) < kept["most_bytes"]
    assert f"at most {kept['most_bytes'] / 2**20:.2f} MiB in all" in writer.bound(state)
    writer.close()


def test_another_format_is_refused(saved, tmp_path):
    checkpoint = tmp_path / "checkpoints" / str(LAST)
    shutil.copytree(saved[0] / "checkpoints" / str(LAST), checkpoint)
    file = checkpoint / "info.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 99}))
    seal(checkpoint)
    assert "not a jaxppo checkpoint of format 4 (found 99)" in refused(tmp_path)


def test_nothing_is_pickled(saved, monkeypatch):
    run, known = saved
    for file in (p for p in run.rglob("*") if p.is_file()):
        assert file.suffix not in (".pkl", ".pickle")
        assert not file.read_bytes().startswith(pickle.dumps(None)[:2])

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a checkpoint was unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    assert_same_bits(restore_train_state(run, 3)[0], known[3][0])


# What a checkpoint says of itself


@pytest.mark.parametrize("actions", ["hold_buy_sell", "sized", "sized_close", "targets"])
def test_info_survives_json(actions, tmp_path):
    config = tiny_config(actions=actions, fee={"fx": 2e-4}, symbols=("A", "B"), reward="v33", env_steps=0, data="x.csv")
    info = info_of(3, -0.1, config=config, actions=action_table(config.env), best_fitness=-np.inf)
    write_json(tmp_path / "info.json", info.to_json())
    assert CheckpointInfo.from_json(read_json(tmp_path / "info.json"), "here") == info


def test_a_fitness_that_is_not_a_number_stays_one(tmp_path):
    write_json(tmp_path / "info.json", info_of(3, math.nan).to_json())
    again = CheckpointInfo.from_json(read_json(tmp_path / "info.json"), "here")
    assert math.isnan(again.fitness)


def test_info_that_is_none_is_refused():
    for raw in (None, [], {}, {"format": 0}):
        with pytest.raises(CheckpointError, match="here: not a jaxppo checkpoint of format 4"):
            CheckpointInfo.from_json(raw, "here")


# Whether it fits the data


NAMES = ("return", "rsi_14")


def mismatch(names: tuple[str, ...], actions: str = "hold_buy_sell", **more: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        require_match(info_of(1, 0.0), names, action_table(EnvConfig(actions=actions)), **more)
    return str(caught.value)


def test_what_fits_passes():
    actions = action_table(BRACKETED)
    require_match(info_of(1, 0.0), NAMES, actions)
    require_match(info_of(1, 0.0), list(NAMES), actions, "f" * 64)


def test_other_features_are_named_on_both_sides():
    text = mismatch(("return", "macd", "adx"))
    assert "trained with feature 'rsi_14' where the data has 'macd' (2 features against 3)" in text
    assert "'return'" in mismatch(("rsi_14", "return"))  # the order counts


def test_more_or_fewer_features_are_counted_on_both_sides():
    text = mismatch((*NAMES, "adx"))
    assert "trained with 2 features and the data has 3; the first without a counterpart is 'adx'" in text
    assert "the data has 1; the first without a counterpart is 'rsi_14'" in mismatch(NAMES[:1])


def test_features_of_another_scaling_are_refused():
    text = mismatch(NAMES, feature_hash="0" * 64)
    assert "ffffffffffff" in text
    assert "000000000000" in text
    assert "--scale-window 32" in text


def test_other_actions_are_named_on_both_sides():
    text = mismatch(NAMES, "sized_close")
    assert "actions 'hold_buy_sell' ['hold', 'buy', 'sell']" in text
    assert "this run has 'sized_close' ['hold', 'buy_25'" in text


def test_a_policy_is_refused_for_a_market_of_other_features(saved):
    run, _ = saved
    market = tiny_market(tiny_config())  # its features have names of their own
    with pytest.raises(CheckpointError, match="trained with feature 'feature_0' where the data has"):
        restore_policy(run, "best", market)
