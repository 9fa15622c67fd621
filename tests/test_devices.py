"""One run on many devices: the same random numbers and figures, one all-reduce a minibatch, memory of paths divided."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TINY, tiny_config, tiny_market, tiny_program
from jax.sharding import PartitionSpec

from jaxppo.agent.policy import init_params
from jaxppo.errors import ConfigError
from jaxppo.market.dataset import evaluation_set
from jaxppo.members import Population, compile_members, member_config
from jaxppo.plan.collectives import collectives
from jaxppo.plan.counts import Region, count_module
from jaxppo.plan.hlo import parse_module
from jaxppo.play.passes import n_decisions
from jaxppo.play.score import validate
from jaxppo.ppo.layout import check_devices, default_blocks, fetch, make_mesh, place, state_specs
from jaxppo.ppo.loss import Samples
from jaxppo.ppo.population import divide_members, members_segment
from jaxppo.ppo.program import begin_run, run_updates, train_spec
from jaxppo.ppo.shard import PATH, Shard
from jaxppo.ppo.state import TrainState, hyper_from
from jaxppo.ppo.update import advantage_scales, shuffle_paths

REPO = Path(__file__).resolve().parent.parent
TWO = Shard(2)


def on_two(function: Any, *whole: Any) -> Any:
    """What two devices say of `function` of their halves of arrays, one after another along the first axis."""
    mesh = make_mesh(jax.devices()[:2], 1)
    half = PartitionSpec(PATH)
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=half, out_specs=half, check_vma=False))(*whole)


def matmul_work(region: Region, turns: int = 1) -> float:
    """Floating-point operations of all matmuls that one device does."""
    own = sum(sum(k.matmul_flops.values()) for k in region.kernels)
    return turns * own + sum(matmul_work(loop, turns * (loop.trips or 1)) for loop in region.loops)


# 16 paths of 4 lanes; a learning rate at which the policies of the 20th update have little to do with the first.
SIZES = {**TINY, "n_envs": 64, "n_updates": 20, "blocks": 8, "learning_rate": 0.01, "target_kl": 0.5, "seed": 3}


def eight(*counts: int, **changes: Any) -> dict[int, dict[str, Any]]:
    """Runs of 20 updates on so many fake devices of eight, by their number: see `benchmarks.devices`.

    In a process of its own, since the number of fake devices is fixed when JAX begins.
    """
    fields = json.dumps({**SIZES, **changes})
    command = [sys.executable, "-m", "benchmarks.devices", *map(str, counts), "--fields", fields, "--json"]
    path = os.pathsep.join([str(REPO), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, cwd=REPO)
    assert done.returncode == 0, done.stderr[-2000:]
    return {int(n): run for n, run in json.loads(done.stdout).items()}


# Draws


def test_devices_draw_their_paths_part_of_what_one_device_draws():
    """Bit for bit what `jax.random.uniform` gives: (6, 5) drawn as two times (3, 5)."""
    key = jax.random.key(11)
    halves = on_two(lambda rows: TWO.uniform(key, (rows.shape[0], 5)), jnp.zeros(6))
    np.testing.assert_array_equal(halves, jax.random.uniform(key, (6, 5)))


def test_a_shard_of_all_paths_computes_nothing():
    x = {"a": jnp.arange(3.0), "b": jnp.float32(2.0)}
    assert Shard().mean(x) is x
    assert Shard().sum(x) is x
    assert Shard().take(x, 3) is x


def test_devices_reduce_several_arrays_at_once():
    """Device 0 has the halves [1, 2] and 10, device 1 [5, 8] and 30: means [3, 5] and 20, sums [6, 10] and 40."""
    rows, scalars = jnp.asarray([[1.0, 2.0], [5.0, 8.0]]), jnp.asarray([10.0, 30.0])
    mean, of_scalars = on_two(lambda r, s: TWO.mean((r, s)), rows, scalars)
    np.testing.assert_array_equal(mean, [[3.0, 5.0]] * 2)
    np.testing.assert_array_equal(of_scalars, [20.0] * 2)
    np.testing.assert_array_equal(on_two(TWO.sum, rows), [[6.0, 10.0]] * 2)
    # Of 1, 2, 5 and 8 the mean is 4 and the variance (9 + 4 + 1 + 16) / 4.
    np.testing.assert_allclose(on_two(lambda r: jnp.expand_dims(TWO.variance(r), 0), rows), [7.5] * 2)


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_a_minibatch_has_as_many_paths_of_every_block_and_an_epoch_all(blocks):
    config = tiny_config(n_envs=64, blocks=blocks, epochs=3, minibatches=2)  # 16 paths
    chosen = np.asarray(shuffle_paths(jax.random.key(4), jnp.ones(16, bool), config, Shard()))
    assert chosen.shape == (6, 8)
    for epoch in chosen.reshape(3, 16):
        assert sorted(epoch) == list(range(16))
    for minibatch in chosen // (16 // blocks):
        assert np.bincount(minibatch, minlength=blocks).tolist() == [8 // blocks] * blocks
    assert len({tuple(sorted(m)) for m in chosen}) > 2  # epochs differ


def test_which_paths_share_a_minibatch_does_not_depend_on_the_devices():
    config = tiny_config(n_envs=64, blocks=4, minibatches=2)
    clean = jnp.arange(16) % 5 > 0  # 0, 5, 10 and 15 are not: another of their block of 4 stands in for each
    one = np.asarray(shuffle_paths(jax.random.key(4), clean, config, Shard()))
    assert not set(one.ravel()) & {0, 5, 10, 15}
    two = on_two(lambda c: jnp.expand_dims(shuffle_paths(jax.random.key(4), c, config, TWO), 0), clean)
    there = np.concatenate([np.asarray(two[0]), np.asarray(two[1]) + 8], axis=1)  # its paths are 8 to 15
    np.testing.assert_array_equal(np.sort(there), np.sort(one))


@pytest.mark.parametrize("every", [False, True])
def test_advantages_are_scaled_by_the_whole_minibatch(every):
    """By the mean and deviation that float64 finds of all of its samples, far from 0 as they are."""
    rng = np.random.default_rng(3)
    shape = (3, 4, 2)  # T, P, L
    policy = rng.dirichlet(np.ones(3), shape)
    advantage = rng.normal(50.0, 2.0, (*shape, 3) if every else shape)
    chosen = np.asarray([[0, 1], [1, 1]])  # each device's places; the second minibatch has a stand-in
    weight = policy if every else np.ones(shape)
    expected = []
    for places in chosen:
        paths = np.concatenate([places, places + 2])
        w, a = weight[:, paths], advantage[:, paths]
        mean = (w * a).sum() / w.sum()
        expected.append((mean, np.sqrt((w * (a - mean) ** 2).sum() / w.sum())))

    def scales(log_prob: jax.Array, advantage: jax.Array) -> jax.Array:
        log_prob, advantage = jnp.swapaxes(log_prob, 0, 1), jnp.swapaxes(advantage, 0, 1)
        value = jnp.zeros(advantage.shape[:3])
        action = None if every else value.astype(jnp.int32)
        samples = Samples(jnp.expand_dims(value, -1), action, log_prob, value, advantage, value)
        return jnp.expand_dims(jnp.stack(advantage_scales(samples, jnp.asarray(chosen), TWO), 1), 0)

    by_path = [jnp.asarray(np.swapaxes(x, 0, 1), jnp.float32) for x in (np.log(policy), advantage)]
    for of_device in on_two(scales, *by_path):
        np.testing.assert_allclose(of_device, expected, rtol=1e-5)


# Whole runs on eight devices


@pytest.fixture(scope="module")
def runs() -> dict[int, dict[str, Any]]:
    return eight(1, 8)


def alike(run: dict[str, Any], other: dict[str, Any]) -> None:
    """The same draws and decisions, and figures that differ by rounding alone."""
    assert run["paths"] == other["paths"]
    assert run["trades"] == other["trades"]
    np.testing.assert_allclose(run["params"], other["params"], rtol=0, atol=2e-5)
    for name, values in run["rows"].items():
        np.testing.assert_allclose(values, other["rows"][name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_twenty_updates_are_the_same_on_one_and_on_eight_devices(runs):
    alike(runs[1], runs[8])
    trained = np.asarray(runs[1]["rows"]["entropy"])
    assert trained.max() - trained.min() > 0.01  # it learnt something
    assert runs[8]["copies_equal"]  # all devices have the same parameters, to the bit


def test_devices_exchange_one_vector_a_minibatch_and_scalars_once_an_update(runs):
    assert runs[1]["collectives"] == []
    found = [tuple(c) for c in runs[8]["collectives"]]
    assert {opcode for opcode, _, _ in found} == {"all-reduce"}
    # 2 epochs of 2 minibatches: each the gradients and five scalars.
    minibatch = [c for c in found if c[2] != 1]
    assert minibatch == [("all-reduce", 4 * (runs[8]["parameters"] + 5), 4)]
    # Figures of the rollout, one ratio of each of 4 steps, and two numbers of each of 4 minibatches.
    assert sum(size for _, size, times in found if times == 1) < 4 * 60


def test_a_device_holds_its_share_of_the_paths(runs):
    assert runs[8]["path_bytes"] * 8 == runs[1]["path_bytes"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{}, {"advantages": "counterfactual", "dropout": 0.2, "feature_noise": 0.1}, {"seeds": 2}, {"minibatches": 1}],
)
def test_twenty_updates_are_the_same_on_any_number_of_devices(changes):
    runs = eight(1, 2, 4, 8, **changes)
    for devices in (2, 4, 8):
        alike(runs[1], runs[devices])
        assert {opcode for opcode, _, times in runs[devices]["collectives"] if times} <= {"all-reduce"}


# Members, validation, checkpoints: on the two devices of this process


@pytest.mark.slow  # two ensembles to compile
def test_members_of_an_ensemble_learn_without_a_word_and_to_the_bit():
    config = tiny_config(seeds=2)
    tape, hyper = tiny_market(config).splits["train"].tape, hyper_from(config)
    spec, mesh = train_spec(config, tape.n_features), make_mesh(jax.devices()[:2], 2)
    assert mesh.shape == {"member": 2, "path": 1}
    state = jax.jit(partial(begin_run, spec))(jax.random.key(0), hyper, tape)
    alone, rows = jax.jit(lambda s: run_updates(spec, s, hyper, tape, 3, 3))(state)
    there = train_spec(config, tape.n_features, mesh)
    run = jax.jit(lambda s, h, t: run_updates(there, s, h, t, 3, 3))
    arguments = (place(mesh, state, state_specs(state)), *place(mesh, (hyper, tape)))
    compiled = run.lower(*arguments).compile()
    apart, figures = compiled(*arguments)
    assert {s.data.shape[0] for s in apart.params.addressable_shards} == {1}
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(fetch(apart)), strict=True):
        np.testing.assert_array_equal(np.asarray(a), b)
    for name, values in rows.items():
        np.testing.assert_allclose(values, figures[name], rtol=1e-6, err_msg=name)
    # Their figures are averaged once, after the last update.
    found = collectives(count_module(parse_module(compiled.as_text())))
    assert {(c.opcode, c.loops) for c in found} == {("all-reduce", ())}


def test_members_of_a_population_are_divided_without_a_word():
    """Of 4 members the first 3 count: device 0 trains two, device 1 one.

    The traced program is looked at: in it nothing is left to the compiler to divide, so it says all that is ever sent.
    """
    config = tiny_config()
    program, tape, data = tiny_program(config)
    mesh = make_mesh(jax.devices()[:2], 2)
    one = jax.eval_shape(program.init, jax.random.key(0), hyper_from(config), tape)
    many = jax.tree.map(lambda x: jax.ShapeDtypeStruct((4, *x.shape), x.dtype), (one, hyper_from(config)))
    segment = divide_members(members_segment(program), mesh)
    traced = jax.jit(segment).lower(*many, tape, data, jnp.int32(2), jnp.int32(3))
    assert not re.search(r"all_reduce|all_gather|all_to_all|collective|reduce_scatter", traced.as_text())
    counts = divide_members(lambda s, h, t, d, u, n: (s, jnp.expand_dims(n, 0)), mesh)
    rows = TrainState(*(jnp.zeros(4) for _ in TrainState._fields))
    _, found = jax.jit(counts)(rows, jnp.zeros(4), jnp.zeros(0), jnp.zeros(0), jnp.int32(2), jnp.int32(3))
    assert found.tolist() == [2, 1]


@pytest.mark.slow  # two populations to compile
def test_members_of_a_population_on_two_devices_are_those_of_one():
    config = tiny_config()
    market = tiny_market(config)
    members = [member_config(config, {"seed": i, "learning_rate": 0.01 * (i + 1)}) for i in range(3)]
    runs = {}
    for devices in (1, 2):
        compiled = compile_members(config, market, 3, devices=devices)
        population = Population(compiled, members)
        population.segment(0)
        runs[devices] = population.state, population.segment(2), compiled
    (one, out, _), (two, other, divided) = runs[1], runs[2]
    assert divided.passes.at_once == 4  # the last fills up
    for a, b in zip(jax.tree.leaves((one, out)), jax.tree.leaves((two, other)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert collectives(count_module(parse_module(divided.passes.executable.run.as_text()))) == []


def test_a_validation_divides_the_symbols():
    """Three symbols on two devices: each encodes and plays two, and both have the figures of all three."""
    config = tiny_config()
    market = tiny_market(config, n_symbols=3)
    data = evaluation_set(market.splits["validation"])
    spec, mesh = train_spec(config, data.tape.n_features), make_mesh(jax.devices()[:2], 1)
    params = init_params(spec.agent.spec, jax.random.key(2))
    n = n_decisions(data.tape)

    def check(mesh: Any, params: jax.Array, data: Any) -> tuple[Any, float]:
        done = jax.jit(lambda p, d: validate(spec.agent, spec.env, p, d, n, spec.receptive_field, mesh))
        compiled = done.lower(*place(mesh, (params, data))).compile()
        region = count_module(parse_module(compiled.as_text()))
        return jax.device_get(compiled(*place(mesh, (params, data)))), matmul_work(region)

    alone, work = check(None, params, data)
    divided, share = check(mesh, params, data)
    for (path, a), b in zip(jax.tree.leaves_with_path(alone), jax.tree.leaves(divided), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=jax.tree_util.keystr(path))
    assert share == pytest.approx(work * 2 / 3, rel=0.05)


def test_a_state_goes_from_one_number_of_devices_to_another_to_the_bit():
    config = tiny_config(n_envs=64)
    tape, hyper = tiny_market(config).splits["train"].tape, hyper_from(config)
    state = jax.jit(partial(begin_run, train_spec(config, tape.n_features)))(jax.random.key(0), hyper, tape)
    mesh = make_mesh(jax.devices()[:2], 1)
    spread = place(mesh, state, state_specs(state))
    assert {s.data.shape for s in spread.paths.t.addressable_shards} == {(8,)}
    assert {s.data.shape for s in spread.params.addressable_shards} == {state.params.shape}
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(fetch(spread)), strict=True):
        np.testing.assert_array_equal(np.asarray(a), b)


# What is refused


@pytest.mark.parametrize(
    ("devices", "available", "changes", "told"),
    [
        (0, 8, {}, "devices: must be at least 1, or all, got 0"),
        (9, 8, {}, "devices: 9 are asked for and there are 8; give at most that, or all"),
        (
            3,
            8,
            {},
            "devices: 3 do not divide the 16 paths (n_envs 64 / lanes 4) into 2 minibatches each: 1 or 2 or 4 or 8"
            " would",
        ),
        (
            8,
            8,
            {"blocks": 4},
            "devices: 8 do not divide the 16 paths (n_envs 64 / lanes 4) into 2 minibatches each, in 4 blocks:"
            " 1 or 2 or 4 would",
        ),
    ],
)
def test_devices_that_cannot_divide_a_run_are_refused(devices, available, changes, told):
    with pytest.raises(ConfigError) as caught:
        check_devices(tiny_config(n_envs=64, **changes), devices, available)
    assert str(caught.value) == told


def test_members_are_divided_before_paths():
    config = tiny_config(n_envs=16, minibatches=4, seeds=6)  # 4 paths, one a minibatch: none to divide
    check_devices(config, 6, 8)
    with pytest.raises(ConfigError, match="4 do not divide"):
        check_devices(config, 4, 8)


def test_blocks_by_default():
    assert default_blocks(tiny_config(n_envs=64), 1) == 1
    assert [default_blocks(tiny_config(n_envs=64), n) for n in (2, 4, 8)] == [8, 8, 8]  # 16 paths in 2 minibatches
    assert default_blocks(tiny_config(n_envs=32), 2) == 4  # 8 paths in 2 minibatches
    assert default_blocks(tiny_config(n_envs=96, minibatches=1), 3) == 3
    assert default_blocks(tiny_config(n_envs=64, seeds=2), 2) == 1  # members alone are divided
