"""A reward that remembers is one record: it trains, is checked for bad numbers, is restarted, and is saved."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_tape, tiny_config, tiny_program

from jaxppo.check.reward import CONFIGURED, HOLD, LANES, play_episodes
from jaxppo.config.rewards import REWARD_PRESETS, RewardPreset
from jaxppo.config.schema import RewardConfig
from jaxppo.env.rewards import REWARD_COMPONENTS, Memory, RewardComponent, reward_preset
from jaxppo.errors import ConfigError
from jaxppo.ppo.program import Program
from jaxppo.ppo.state import TrainState, hyper_from
from jaxppo.ppo.update import update
from jaxppo.store.checkpoint import CheckpointWriter, restore_train_state
from jaxppo.store.checkpoint_info import CheckpointInfo

AGE = RewardComponent(
    "age",
    lambda outcome, preset, memory: memory["bars"],
    "bars that the account has lived",
    lambda preset: 100.0,
    Memory(lambda start: {"bars": jnp.zeros_like(start)}, lambda memory, outcome: {"bars": memory["bars"] + 1.0}),
)


@pytest.fixture(scope="module", autouse=True)
def registered():
    REWARD_COMPONENTS.add(AGE)
    REWARD_PRESETS.add(RewardPreset("age", {"age": 1.0}, "the account's age", brings={"gamma": 0.5}))
    yield
    REWARD_COMPONENTS.remove("age")
    REWARD_PRESETS.remove("age")


def ages(state: TrainState) -> np.ndarray:
    """(P, L) bars that each lane's reward remembers."""
    return np.asarray(state.lanes.memory["age"]["bars"])


@pytest.fixture(scope="module")
def tiny(registered):
    config = tiny_config(reward="age", reward_weights={"log_return": 100.0}, advantages="counterfactual")
    program, tape, _ = tiny_program(config)
    hyper = hyper_from(config)
    start = jax.jit(program.init)(jax.random.key(0), hyper, tape)
    step = jax.jit(lambda state, tape: update(state, tape, program.spec, hyper))
    return program, tape, start, step


def test_the_memory_moves_on_with_its_account_and_begins_anew_with_it(tiny):
    """4 bars an update: 0, 1, 2 and 3 are paid first, then 4 to 7 where the episode goes on."""
    _, tape, start, step = tiny
    one, metrics = step(start, tape)
    assert float(metrics["reward_age_mean"]) == 1.5
    going = np.asarray(one.paths.age) > 0
    assert going.any()
    np.testing.assert_array_equal(ages(one), np.broadcast_to(np.where(going, 4.0, 0.0)[:, None], (4, 4)))
    two, metrics = step(one, tape)
    assert float(metrics["reward_age_mean"]) == pytest.approx(np.where(going, 5.5, 1.5).mean())
    assert (np.asarray(two.params) != np.asarray(one.params)).any()
    assert float(metrics["bad_samples"]) == 0


def test_a_memory_that_is_no_number_breaks_the_lane_that_has_it(tiny):
    _, tape, start, step = tiny
    one, _ = step(start, tape)
    bars = one.lanes.memory["age"]["bars"].at[2, 1].set(jnp.nan)
    broken = one._replace(lanes=one.lanes._replace(memory={"age": {"bars": bars}}))
    after, metrics = step(broken, tape)
    assert float(metrics["broken_accounts"]) == 1
    assert float(metrics["bad_samples"]) == 0
    assert np.isfinite(ages(after)).all()
    if int(after.paths.age[2]) > 0:  # restarted before the update, it is younger than its neighbours
        assert ages(after)[2, 1] == 4


def test_presets_without_a_memory_carry_none():
    config = tiny_config()
    program, tape, _ = tiny_program(config)
    state = jax.eval_shape(program.init, jax.random.key(0), hyper_from(config), tape)
    assert state.lanes.memory == {}


def test_it_comes_back_from_a_checkpoint(tiny, tmp_path):
    program, tape, start, step = tiny
    state, _ = step(start, tape)
    writer = CheckpointWriter(tmp_path, keep=1)
    writer.save(state, info_of(program, tape.n_features))
    writer.close()
    restored, info = restore_train_state(tmp_path)
    assert info.config.reward.reward == "age"
    np.testing.assert_array_equal(ages(restored), ages(state))


def info_of(program: Program, n_features: int) -> CheckpointInfo:
    return CheckpointInfo(
        config=program.spec.config,
        feature_names=tuple(f"feature_{i}" for i in range(n_features)),
        feature_hash="0",
        data_hash="0",
        actions=program.spec.env.actions,
        update=1,
        fitness=0.0,
        final=False,
        best_fitness=0.0,
        best_update=1,
        elapsed_seconds=0.0,
    )


def test_every_reward_of_the_reward_check_remembers_for_itself():
    """Whatever other rewards there are: an account that holds lives 16 bars, of the ages 0 to 15."""
    config = tiny_config(reward="log_return", stop_loss=0.0, take_profit=0.0)
    paid = play_episodes(random_tape(0, 2, 200, 1, first=8), config)
    assert set(paid.rewards) == {CONFIGURED, *REWARD_PRESETS}
    hold = LANES.index(HOLD)
    np.testing.assert_allclose(paid.rewards["age"][:, hold], 7.5)
    np.testing.assert_allclose(paid.rewards["log_return"], paid.rewards[CONFIGURED])
    # Accounts move under every reward alike: what log_return pays is the growth that the check tells apart.
    moved = paid.orders[:, hold + 1 :] > 0
    assert moved.any()
    np.testing.assert_allclose(paid.rewards["log_return"], paid.growth / 100, rtol=1e-3, atol=1e-4)


def test_a_preset_of_a_component_that_is_not_registered_is_refused():
    REWARD_PRESETS.add(RewardPreset("lost", {"agee": 1.0}, "of a component that is not there"))
    try:
        with pytest.raises(ConfigError, match="reward preset lost: unknown component 'agee'; did you mean 'age'"):
            reward_preset(RewardConfig(reward="lost"))
    finally:
        REWARD_PRESETS.remove("lost")
