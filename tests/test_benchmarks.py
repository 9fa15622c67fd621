"""The benchmark scripts still run, and the peers compute what they say; what they measure is nobody's test."""

import hashlib
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_config, tiny_market

from benchmarks import readme, scale, stages, throughput
from benchmarks.peers import __main__ as peers
from benchmarks.peers import ours, stored_windows
from benchmarks.peers.settings import Setting, random_market
from jaxppo.ppo.program import TapeSpec, make_train
from jaxppo.ppo.state import hyper_from
from jaxppo.ppo.update import update

TINY = Setting("tiny", n_features=2, width=8, window=4, n_envs=16, n_steps=4, minibatches=2, n_bars=60, episode_steps=8)


@pytest.fixture(scope="module")
def tape():
    return ours.tape_of(random_market(TINY.n_bars, TINY.n_features), TINY.window - 1)


@pytest.fixture(scope="module")
def config():
    return ours.config_for(TINY, lanes=1, encoder="none")


@pytest.mark.slow
def test_stored_windows_trains(tape, config):
    init, update = stored_windows.make_update(tape, config, stored_windows.optimizer_for(1e-3), TINY.window)
    before = init(jax.random.key(0), TINY.width)
    after = jax.jit(update)(before, tape, jnp.float32(0.01))
    assert before.observation.shape == (16, 4 * 2 + 8)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), after.params, before.params)
    assert all(0 < m < 0.1 for m in jax.tree.leaves(moved))
    assert int(after.update) == 1


def test_stored_windows_stops_at_the_end_of_an_episode():
    # One env, values 1, rewards 1, gamma .99, lambda .95, an end after step 0, last value 2:
    # delta_1 = 1 + .99 * 2 - 1 = 1.98; delta_0 = 1 + 0 - 1 = 0, and nothing comes from beyond the end.
    one = jnp.ones((2, 1))
    steps = stored_windows.Transition(None, None, None, one, one, jnp.array([[True], [False]]))
    advantage, target = stored_windows._advantages(steps, jnp.array([2.0]))
    np.testing.assert_allclose(advantage, [[0.0], [1.98]], rtol=1e-6)
    np.testing.assert_allclose(target, [[1.0], [2.98]], rtol=1e-6)


@pytest.mark.slow
def test_jaxppo_is_timed(tape):
    setting = replace(TINY, n_envs=32)
    peer = ours.make_peer(setting, "equal")
    assert peer.unit() == 32 * 4
    assert "2 x 16 lanes" in peer.held


def test_ratio_is_the_median_of_the_rounds():
    def turns(*speeds):
        return [peers.Turn(s, 0.0) for s in speeds]

    # 10/5, 30/5 and 20/10: medians of 2, 6 and 2.
    assert peers.ratio({"a": turns(10, 30, 20), "b": turns(5, 5, 10)}, "a", "b") == 2


def test_a_ratio_that_fell_is_found():
    stored = {"64x16": {"windows": 4.0, "gone": 3.0}}
    assert peers.slower({"64x16": {"windows": 3.1}}, stored, 0.25) == []
    assert peers.slower({"64x16": {"windows": 2.9}}, stored, 0.25) == ["64x16: jaxppo was 4.00 times windows, now 2.90"]


@pytest.mark.parametrize("stage", ["env", "policy"])
@pytest.mark.slow
def test_throughput_measures_a_stage(stage):
    row = throughput.measure("quick_test", stage, n_envs=256, repetitions=1, n_bars=2_000)
    assert row["steps_per_second"] > 0
    assert row["compile_seconds"] > 0
    assert row["n_steps"] == 32


def test_matmuls_are_counted_by_stage_and_loops_multiplied_out():
    # Forwards (2, 4) @ (4, 5): 2 * 2 * 4 * 5 = 80 operations. Backwards as many for each operand: 160. Three rounds.
    def loss(w, x):
        with jax.named_scope("learn"), jax.named_scope("encode"):
            return jnp.sum(jnp.square(x @ w))

    def three(w, xs):
        return jax.lax.scan(lambda c, x: (c, jax.grad(loss, argnums=(0, 1))(w, x)), 0, xs)[1]

    count = stages.matmul_flops(three, jnp.ones((4, 5)), jnp.ones((3, 2, 4)))
    assert count == {"learn / encode": 240, "learn / encode, backward": 480}


def test_an_operation_belongs_to_its_innermost_scope():
    assert stages.stage_of("jit(one)/rollout/while/body/decide/dot_general") == "rollout / decide"
    assert stages.stage_of("learn/while/body/transpose(jvp(loss))/transpose(jvp(encode))/mul") == (
        "learn / encode, backward"
    )
    assert stages.stage_of("learn/loss/jvp(loss)/exp") == "learn / loss"
    assert stages.stage_of("jit(one)/advantages/while/add") == "advantages"
    assert stages.stage_of("jit(one)/learn/sort") == "learn / rest"
    assert stages.stage_of("jit(one)/threefry2x32") == "rest"


@pytest.mark.slow
def test_kernels_of_an_update_are_timed_by_stage(tape, config):
    program = make_train(config, TapeSpec(tape.n_features, 1))
    hyper = hyper_from(config)
    state = jax.jit(program.init)(jax.random.key(0), hyper, tape)
    run = jax.jit(lambda s: update(s, tape, program.spec, hyper)).lower(state).compile()
    seconds = stages.kernel_seconds(lambda: run(state), run.as_text())
    named = {"rollout / account", "rollout / decide", "learn / decide", "learn / decide, backward", "learn / optimizer"}
    assert named <= set(seconds)
    assert all(s > 0 for s in seconds.values())


@pytest.mark.slow
def test_scale_runs_the_programs_own_segment():
    config = tiny_config(n_envs=512)
    size = scale.build(config, tiny_market(config))
    size.run(2)
    # At least a rollout of 4 steps x 49 bytes for each of 512 envs.
    assert size.memory > 512 * 4 * 49


@pytest.mark.parametrize("example", readme.EXAMPLES.values(), ids=lambda example: example.name)
def test_documents_show_what_the_code_of_today_draws(example):
    stored = example.stored()
    assert stored["drawn_by"] == example.drawn_by(), readme.AGAIN
    assert stored["picture"] == hashlib.sha256(example.picture.read_bytes()).hexdigest(), readme.AGAIN
    for page in example.pages:
        text = page.read_text(encoding="utf-8")
        assert example.begin + example.text(page, stored) + readme.END in text, readme.AGAIN


def test_figures_of_readme_that_differ_are_named_to_two_digits():
    part = {"return": 0.1391, "sharpe": 5.336, "trades": 140.0, "buy_and_hold_return": -0.0553}
    stored = {"validation": part, "test": part}
    near = {"validation": {**part, "return": 0.1394}, "test": {**part, "sharpe": 5.34}}
    assert readme.differing(stored, near) == []
    off = {"validation": {**part, "return": 0.131}, "test": {**part, "trades": 142.0}}
    assert readme.differing(stored, off) == ["validation return: 0.1391, now 0.131", "test trades: 140, now 142"]


@pytest.mark.slow
def test_readme_s_figures_come_out_again_on_the_same_machine(tmp_path):
    stored = readme.EXAMPLES["quick_test"].stored()
    elsewhere = readme.elsewhere(stored)
    if elsewhere:
        pytest.skip(f"measured elsewhere: {elsewhere}")
    figures, _ = readme.quick_test(tmp_path)
    assert readme.differing(stored["figures"], figures) == [], readme.AGAIN
