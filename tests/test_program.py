"""The compiled program: traced once, donated, no host inside, the same alone and in a population."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_config, tiny_program

from jaxppo.config.layers import resolve
from jaxppo.device import program_bytes
from jaxppo.market.dataset import Calendar, Days, EvaluationSet
from jaxppo.market.tape import zero_tape
from jaxppo.plan.counts import count_module, update_loops
from jaxppo.plan.hlo import parse_module
from jaxppo.ppo.program import TapeSpec, make_train
from jaxppo.ppo.rollout import RolloutStart, collect
from jaxppo.ppo.state import hyper_from
from jaxppo.ppo.update import update


def same(a, b) -> None:
    chex.assert_trees_all_equal(a, b)


@pytest.fixture(scope="module")
def tiny():
    config = tiny_config()
    program, tape, data = tiny_program(config)
    return config, program, hyper_from(config), tape, data


class Jitted(NamedTuple):
    """The functions of the tiny program, jitted once for all tests here."""

    init: Callable  # of a key
    segment: Callable  # traced once at most
    step: Callable  # an update under a state, a tape and hyperparameters


@pytest.fixture(scope="module")
def jitted(tiny) -> Jitted:
    _, program, hyper, tape, _ = tiny
    init = jax.jit(lambda key: program.init(key, hyper, tape))
    chex.clear_trace_counter()
    segment = jax.jit(chex.assert_max_traces(program.segment, n=1))
    return Jitted(init, segment, jax.jit(lambda state, tape, hyper: update(state, tape, program.spec, hyper)))


def test_segments_of_any_length_share_one_trace(tiny, jitted):
    config, _, hyper, tape, data = tiny
    state = jitted.init(jax.random.key(0))
    for length in (0, 2, 1):
        state, out = jitted.segment(state, hyper, tape, data, jnp.int32(length))
    assert int(state.update) == 3
    assert out.updates["reward_mean"].shape == (config.budget.validate_every,)


def test_segmented_run_equals_run_in_one_scan(tiny, jitted):
    config, program, hyper, tape, data = tiny
    state = jitted.init(jax.random.key(3))
    returns = []
    for length in (0, *config.segments):
        state, out = jitted.segment(state, hyper, tape, data, jnp.int32(length))
        returns.append(out.score.figures.pooled.net_return)
    whole, validations = jax.jit(program.train)(jax.random.key(3), hyper, tape, data)
    assert validations.pooled.net_return.shape == (3,)  # before the first update, after 2, after 3
    chex.assert_trees_all_close(whole.params, state.params, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(validations.pooled.net_return, jnp.stack(returns), rtol=1e-4, atol=1e-6)


def test_updates_do_not_depend_on_how_segments_cut_them(tiny, jitted):
    _, _, hyper, tape, data = tiny
    segment, start = jitted.segment, jitted.init(jax.random.key(1))
    at_once, _ = segment(start, hyper, tape, data, jnp.int32(2))
    by_one, _ = segment(start, hyper, tape, data, jnp.int32(1))
    by_one, _ = segment(by_one, hyper, tape, data, jnp.int32(1))
    same(at_once, by_one)


def test_updates_of_a_known_number_are_those_of_a_number_that_is_an_argument(tiny, jitted):
    """Up to rounding; XLA then knows how often the loop over updates turns."""
    _, program, hyper, tape, data = tiny
    start = jitted.init(jax.random.key(1))
    told, out = jitted.segment(start, hyper, tape, data, jnp.int32(2))
    known = jax.jit(lambda s, h, t: program.updates(s, h, t, 2)).lower(start, hyper, tape).compile()
    state, rows = known(start, hyper, tape)
    first = jax.tree.map(lambda x: x[:2], out.updates)
    chex.assert_trees_all_close((state, rows), (told, first), rtol=1e-4, atol=1e-6)
    (loop,) = update_loops(count_module(parse_module(known.as_text())))
    assert loop.trips == 2


def test_costs_are_annealed_in_training(tiny, jitted):
    """Over all 3 updates: the first is one on a free market, the last one at full costs, and 0 never lowers them."""
    _, _, hyper, tape, _ = tiny
    annealed = hyper._replace(cost_anneal=jnp.float32(1))
    free = tape._replace(costs=jax.tree.map(jnp.zeros_like, tape.costs))
    step, state = jitted.step, jitted.init(jax.random.key(0))
    first, metrics = step(state, tape, annealed)
    assert float(metrics["cost_share"]) == 0
    same(first, step(state, free, hyper)[0])
    full, metrics = step(state, tape, hyper)
    assert float(metrics["cost_share"]) == 1
    assert np.any(np.asarray(full.params) != np.asarray(first.params))
    last = state._replace(update=jnp.int32(2))
    same(step(last, tape, annealed), step(last, tape, hyper))


def test_state_is_donated(tiny, jitted):
    _, program, hyper, tape, data = tiny
    state = jitted.init(jax.random.key(0))
    jax.jit(program.segment, donate_argnums=0)(state, hyper, tape, data, jnp.int32(1))
    kept = [x for x in jax.tree.leaves(state) if not x.is_deleted()]
    assert not kept, f"{len(kept)} arrays of the state were copied instead of reused"


HOST = re.compile(r"callback|infeed|outfeed|host_transfer|\bsend\b|\brecv\b|MoveToHost", re.IGNORECASE)


def test_nothing_moves_to_the_host_inside_the_program(tiny, jitted):
    _, _, hyper, tape, data = tiny
    lowered = jitted.segment.lower(jitted.init(jax.random.key(0)), hyper, tape, data, jnp.int32(0))
    for text in (lowered.as_text(), lowered.compile().as_text()):
        assert not HOST.search(text)


def test_the_host_transfer_pattern_finds_a_callback():
    def noisy(x):
        jax.debug.callback(lambda _: None, x)
        return x + 1.0

    assert HOST.search(jax.jit(noisy).lower(jnp.zeros(())).as_text())


def test_no_host_transfer_happens_during_a_segment(tiny, jitted):
    _, _, hyper, tape, data = tiny
    state, segment = jitted.init(jax.random.key(0)), jitted.segment
    length = jnp.int32(1)
    segment(state, hyper, tape, data, length)
    with jax.transfer_guard("disallow"):
        segment(state, hyper, tape, data, length)


def test_production_shape_is_one_program_of_bounded_memory():
    """131,072 envs x 8 steps, 477 updates in 12 segments of 40 and 37: lowered once, under 3 GiB with its arguments."""
    config = resolve("production").config
    assert (config.budget.n_envs, config.budget.n_steps, config.budget.n_updates) == (131_072, 8, 477)
    assert config.segments == (40,) * 11 + (37,)
    n_features, bars, decisions = 53, 70_000, 2_000
    program = make_train(config, TapeSpec(n_features, decisions))
    tape = jax.eval_shape(lambda: zero_tape(8, bars, n_features))
    small = jax.eval_shape(lambda: zero_tape(8, decisions + 80, n_features))
    shapes = (((8, decisions), jnp.int32), ((decisions,), bool), ((), jnp.float32))
    calendar = [jax.ShapeDtypeStruct(*x) for x in shapes]
    data = EvaluationSet(small, Calendar(*calendar, Days(*calendar)))
    hyper = hyper_from(config)
    chex.clear_trace_counter()
    once = chex.assert_max_traces(program.segment, n=1)
    state = jax.eval_shape(program.init, jax.random.key(0), hyper, tape)
    lowered = jax.jit(once, donate_argnums=0).lower(state, hyper, tape, data, jnp.int32(0))
    assert not HOST.search(lowered.as_text())
    memory = lowered.compile().memory_analysis()
    total = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    assert total < 3 * 2**30, f"{total / 2**30:.2f} GiB"


@pytest.mark.parametrize("every_action", [False, True])
def test_rollout_stores_at_most_96_bytes_a_step(tiny, every_action):
    config, program, hyper, tape, _ = tiny
    state = jax.eval_shape(program.init, jax.random.key(0), hyper, tape)
    ppo = replace(config.ppo, advantages="counterfactual" if every_action else "gae")
    spec = replace(program.spec, config=replace(config, ppo=ppo))
    _, rollout, _ = jax.eval_shape(
        lambda s: collect(spec, s.params, tape, RolloutStart(s.paths, s.lanes, jax.random.key(0)), hyper.gamma), state
    )
    per_step = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(rollout.steps)) / config.batch_steps
    # 8 account floats, action, log-probability, value, reward, two flags; of each of 3 actions two floats more.
    assert per_step == (50 + 24 if every_action else 50)
    assert per_step + 8 <= 96  # with advantage and target


@pytest.mark.slow
def test_a_population_trains_seeds_and_learning_rates_in_one_call(tiny):
    """4 seeds x 2 learning rates: one vmapped call, each member as if alone."""
    _, program, hyper, tape, data = tiny
    keys = jnp.repeat(jax.random.split(jax.random.key(5), 4), 2)
    rates = jnp.tile(jnp.asarray([1e-4, 1e-2], jnp.float32), 4)
    chex.clear_trace_counter()
    train = chex.assert_max_traces(program.train, n=1)

    def member(key, rate):
        return train(key, hyper._replace(learning_rate=rate), tape, data)

    states, validations = jax.jit(jax.vmap(member))(keys, rates)
    assert validations.pooled.fitness.shape == (8, 3)
    assert states.update.tolist() == [3] * 8
    alone, _ = jax.jit(program.train)(keys[3], hyper._replace(learning_rate=rates[3]), tape, data)
    chex.assert_trees_all_close(jax.tree.map(lambda x: x[3], states.params), alone.params, rtol=1e-3, atol=1e-5)
    first = jax.tree.leaves(states.params)[0]
    distinct = {np.asarray(first[i]).tobytes() for i in range(8)}
    assert len(distinct) == 8


def test_learning_rate_follows_the_schedule_on_the_optimizers_count(tiny, jitted):
    config, _, hyper, tape, _ = tiny
    state = jitted.init(jax.random.key(0))
    rates = []
    for _ in range(3):
        state, metrics = jitted.step(state, tape, hyper)
        rates.append(float(metrics["learning_rate"]) / config.ppo.learning_rate)
    # N = 3: W = max(1, int(.15)) = 1, M = 2. k = 0: 0.1; k = 1: 1; k = 2: .01 + .99 (1 + cos(pi / 2)) / 2 = .505
    np.testing.assert_allclose(rates, [0.1, 1.0, 0.505], rtol=1e-6)
    counts = [int(x) for x in jax.tree.leaves((state.moments, state.steps)) if jnp.issubdtype(x.dtype, jnp.integer)]
    assert counts == [3 * config.gradient_steps] * len(counts)


def test_a_gradient_that_is_not_finite_is_skipped_and_counted(tiny, jitted):
    config, _, hyper, tape, _ = tiny
    state = jitted.init(jax.random.key(0))
    broken = tape._replace(open=tape.open.at[:].set(jnp.nan))
    after, metrics = jitted.step(state, broken, hyper)
    assert int(metrics["skipped_steps"]) == config.gradient_steps
    same(after.params, state.params)


def test_the_kl_limit_stops_an_update(tiny, jitted):
    _, _, hyper, tape, _ = tiny
    state = jitted.init(jax.random.key(0))
    free, _ = jitted.step(state, tape, hyper)
    fast = hyper._replace(learning_rate=jnp.float32(0.1))
    limited, _ = jitted.step(state, tape, fast._replace(target_kl=jnp.float32(1e-9)))
    unlimited, _ = jitted.step(state, tape, fast)
    # The first minibatch has a KL of exactly 0, so one step is taken and the second is stopped.
    distance = [
        float(jnp.abs(a - b).max())
        for a, b in zip(jax.tree.leaves(limited.params), jax.tree.leaves(state.params), strict=True)
    ]
    further = [
        float(jnp.abs(a - b).max())
        for a, b in zip(jax.tree.leaves(unlimited.params), jax.tree.leaves(state.params), strict=True)
    ]
    assert 0 < max(distance) < max(further)
    assert any(
        bool((a != b).any()) for a, b in zip(jax.tree.leaves(free.params), jax.tree.leaves(state.params), strict=True)
    )


def test_results_do_not_depend_on_the_device_layout(tiny, jitted):
    """Paths sharded over two devices: the same draws, and the same numbers up to the order of sums."""
    _, _, hyper, tape, _ = tiny
    state = jitted.init(jax.random.key(0))
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((2,), ("path",), axis_types=auto, devices=jax.devices()[:2])
    over_paths = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("path"))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    spread = jax.device_put(state, everywhere)._replace(
        paths=jax.device_put(state.paths, over_paths), lanes=jax.device_put(state.lanes, over_paths)
    )
    here, metrics = jitted.step(state, tape, hyper)
    there, other = jitted.step(spread, jax.device_put(tape, everywhere), jax.device_put(hyper, everywhere))
    same(here.paths, jax.device_put(there.paths, jax.devices()[0]))
    np.testing.assert_array_equal(here.lanes.account.trades, np.asarray(there.lanes.account.trades))
    np.testing.assert_allclose(metrics["reward_mean"], np.asarray(other["reward_mean"]), rtol=1e-4, atol=1e-6)


POPULATION = """
import jax
from jaxppo.agent.policy import AgentSpec, init_params
from jaxppo.config.schema import AgentConfig

spec = AgentSpec(AgentConfig(), 53, 8, 3)
keys = jax.random.split(jax.random.key(0), 8)
many = jax.jit(jax.vmap(lambda key: init_params(spec, key)))(keys)
last = jax.jit(lambda key: init_params(spec, key))(keys[7])
same = jax.tree.map(lambda m, o: bool((m[7] == o).all()), many, last)
assert all(jax.tree.leaves(same)), same
"""


def test_eight_networks_of_the_default_size_initialise_under_vmap():
    """In a process of its own: what this guards against did not fail but hang."""
    subprocess.run([sys.executable, "-c", POPULATION], check=True, timeout=120)


def test_donated_memory_is_counted_once():
    x = jax.ShapeDtypeStruct((1024,), jnp.float32)
    add = jax.jit(lambda x: x + 1).lower(x).compile()
    assert program_bytes(add) == 2 * 4096  # 1,024 float32 in, and as many out
    donated = jax.jit(lambda x: x + 1, donate_argnums=0).lower(x).compile()
    assert program_bytes(donated) == 4096
