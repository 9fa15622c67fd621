"""Checkpoints: what comes back is what was saved, bit for bit, or one sentence that says why not."""

from __future__ import annotations

import gc
import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_config, tiny_market

from jaxppo.config.schema import EnvConfig
from jaxppo.env.actions import action_table
from jaxppo.errors import CheckpointError
from jaxppo.evaluate.validate import n_decisions, validate
from jaxppo.ppo.guard import first_guard
from jaxppo.ppo.update import ADAM
from jaxppo.run.checkpoint import (
    CheckpointInfo,
    CheckpointWriter,
    require_match,
    restore_policy,
    restore_train_state,
)
from jaxppo.run.loop import Compiled, compile_run, first_state
from jaxppo.run.rows import validation_row

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
    return compiled.segment(state, compiled.hyper, compiled.tape, compiled.data, jnp.int32(n_updates))


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
            jax.device_get((out.validation, out.ledger)),
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


def test_the_policy_needs_no_other_part_of_the_checkpoint(saved, tmp_path):
    run, known = saved
    shutil.copytree(run / "checkpoints" / "3", tmp_path / "3")
    shutil.rmtree(tmp_path / "3" / "train")
    assert_same_bits(restore_policy(tmp_path, "latest").params, known[3][0].params)


def test_a_restored_policy_validates_as_it_did_in_the_run(saved, compiled):
    run, known = saved
    policy = restore_policy(run, "best")
    then, _ = known[1][1]
    env, context = compiled.program.spec.env, compiled.program.spec.receptive_field
    n_bars = n_decisions(compiled.data.tape)
    check = jax.jit(lambda params: validate(policy.agent, env, params, compiled.data, n_bars, context)[0])
    labels = policy.info.actions.labels
    now = validation_row(jax.device_get(check(policy.params)), labels)  # the restored agent, compiled anew
    assert now == pytest.approx(validation_row(then, labels), rel=1e-3, abs=1e-5, nan_ok=True)
    assert now["val_trades"] > 0

    state = first_state(compiled, 0)._replace(params=policy.params)
    _, out = segment(compiled, state, 0)  # the executable of the run, which uses the state up
    assert_same_bits(jax.device_get((out.validation, out.ledger)), known[1][1])


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
    assert "not a jaxppo checkpoint" in refused(tmp_path)
    assert "not a jaxppo checkpoint" in refused(tmp_path / "2024")


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
    "description cut short": lambda c: cut(c / "_CHECKPOINT_METADATA"),
    "no description": lambda c: (c / "_CHECKPOINT_METADATA").unlink(),
    "arrays cut short": lambda c: [cut(p) for p in arrays(c)],
    "a bit flipped": lambda c: [flip(p) for p in arrays(c)],
    "index cut short": lambda c: [cut(p) for p in c.rglob("manifest.ocdbt")],
    "parts missing": lambda c: [shutil.rmtree(c / part) for part in ("policy", "train")],
}


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("restore", [restore_policy, restore_train_state])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_refused_by_name(saved, tmp_path, damage, restore):
    checkpoint = tmp_path / "checkpoints" / str(LAST)
    shutil.copytree(saved[0] / "checkpoints" / str(LAST), checkpoint)
    DAMAGE[damage](checkpoint)
    assert refused(tmp_path, "latest", restore).startswith(f"{checkpoint}: ")
    gc.collect()  # what Orbax leaves half done complains here, and not in another test


def test_another_format_is_refused(saved, tmp_path):
    checkpoint = tmp_path / "checkpoints" / str(LAST)
    shutil.copytree(saved[0] / "checkpoints" / str(LAST), checkpoint)
    file = checkpoint / "_CHECKPOINT_METADATA"
    raw = json.loads(file.read_text())
    raw["custom_metadata"]["format"] = 99
    file.write_text(json.dumps(raw))
    assert "not a jaxppo checkpoint of format 1 or 2 (found 99)" in refused(tmp_path)


def test_a_checkpoint_of_format_1_is_read(saved, tmp_path):
    """It has no guard; the last good parameters are then those that it holds."""
    state, _, info = saved[1][LAST]
    old = {k: v for k, v in state._asdict().items() if k != "guard"}
    writer = CheckpointWriter(tmp_path, keep=1)
    writer.save(SimpleNamespace(_asdict=lambda: old, params=state.params), replace(info, format=1))
    writer.close()
    again, read = restore_train_state(tmp_path)
    assert read == replace(info, format=1)
    assert_same_bits({k: v for k, v in again._asdict().items() if k != "guard"}, old)
    assert_same_bits(again.guard, first_guard(state.params, state.opt_state[ADAM]))
    assert_same_bits(restore_policy(tmp_path).params, state.params)


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
def test_info_survives_json(actions):
    config = tiny_config(actions=actions, fee={"fx": 2e-4}, symbols=("A", "B"), reward="v33", env_steps=0, data="x.csv")
    info = info_of(3, -0.1, config=config, actions=action_table(config.env), best_fitness=-np.inf)
    again = CheckpointInfo.from_json(json.loads(json.dumps(info.to_json())), "here")
    assert again == info


def test_info_that_is_none_is_refused():
    for raw in (None, [], {}, {"format": 0}):
        with pytest.raises(CheckpointError, match="here: not a jaxppo checkpoint of format 1 or 2"):
            CheckpointInfo.from_json(raw, "here")


# Whether it fits the data


NAMES = ("return", "rsi_14")


def mismatch(names: tuple[str, ...], actions: str = "hold_buy_sell", **more: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        require_match(info_of(1, 0.0), names, action_table(EnvConfig(actions=actions)), **more)
    return str(caught.value)


def test_what_fits_passes():
    actions = action_table(EnvConfig())
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
