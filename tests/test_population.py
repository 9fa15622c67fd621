"""Populations: each member is the run that it would be alone, whatever passes it is trained in."""

from __future__ import annotations

from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_config, tiny_market

from jaxppo.config.layers import replace_fields
from jaxppo.device import Executable
from jaxppo.errors import ConfigError
from jaxppo.members import Population, choose_passes, compile_members, member_config, members_hyper
from jaxppo.memory import Line

VALUES = (
    {"seed": 0},
    {"seed": 3, "learning_rate": 1e-2, "entropy_start": 0.01},
    {"seed": 3, "gamma": 0.5, "cost_anneal": 1.0, "clip": 0.05},
)


def configs_of(config):
    return [member_config(config, values) for values in VALUES]


@pytest.fixture(scope="module")
def tiny():
    """Three members in passes of two, the last of which is filled up."""
    config = tiny_config()
    market = tiny_market(config)
    return config, market, compile_members(config, market, 3, at_once=2)


def alone(compiled, config, lengths):
    """The run of one member by itself: the same program without an axis of members."""
    hyper = jax.tree.map(lambda x: x[0], members_hyper([config]))
    tape, data = compiled.tape, compiled.data
    state = jax.jit(compiled.program.init)(jax.random.key(config.seed), hyper, tape)
    segment = jax.jit(compiled.program.segment)
    for n in lengths:
        state, out = segment(state, hyper, tape, data, jnp.int32(n))
    return state, out


def assert_alike(population, out, lengths):
    for i, config in enumerate(population.configs):
        state, single = alone(population.compiled, config, lengths)
        mine = population.state_of(i)
        chex.assert_trees_all_equal((mine.key, mine.update, mine.paths, mine.steps), jax.device_get(
            (state.key, state.update, state.paths, state.steps)))  # fmt: skip
        np.testing.assert_allclose(mine.params, state.params, rtol=1e-4, atol=1e-6)
        for name, row in out.updates.items():
            np.testing.assert_allclose(row[i], single.updates[name], rtol=2e-3, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(out.portfolio[i], single.score.curves.portfolio, rtol=1e-5)
        np.testing.assert_allclose(out.pooled[i], single.score.curves.pooled, rtol=1e-5)
        chex.assert_trees_all_close(
            jax.tree.map(lambda x, i=i: x[i], out.figures), jax.device_get(single.score.figures), rtol=1e-3, atol=1e-5
        )


def test_members_are_the_runs_that_they_would_be_alone(tiny):
    config, _, compiled = tiny
    population = Population(compiled, configs_of(config))
    first = population.segment(0)
    assert int(population.state.update.sum()) == 0
    out = population.segment(2)
    assert_alike(population, out, (2,))
    assert first.portfolio.shape == out.portfolio.shape
    rates = out.updates["learning_rate"]
    assert rates.shape == (3, config.budget.validate_every)
    np.testing.assert_allclose(rates[1] / rates[0], 1e-2 / 3e-4, rtol=1e-5)
    assert len({x.tobytes() for x in population.state.params}) == 3


@pytest.mark.slow
def test_members_side_by_side_are_those_in_turn(tiny):
    """What an accelerator does, on the CPU: `vmap` over members with hyperparameters of their own."""
    config, _, compiled = tiny
    population = Population(compiled, configs_of(config))
    start = jax.tree.map(jnp.asarray, population.state)
    out = population.segment(2)
    both = jax.jit(jax.vmap(compiled.program.segment, (0, 0, None, None, None)))
    hyper = members_hyper(population.configs)
    state, beside = both(start, hyper, compiled.tape, compiled.data, jnp.int32(2))
    np.testing.assert_allclose(state.params, population.state.params, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(beside.score.curves.portfolio, out.portfolio, rtol=1e-5)


def test_members_that_are_kept_go_on_as_with_the_others(tiny):
    config, _, compiled = tiny
    every, before = (Population(compiled, configs_of(config)) for _ in range(2))
    before.segment(1)
    left = before.keep([2, 0])
    assert [c.seed for c in left.configs] == [3, 0]
    left.segment(1)
    every.segment(1)
    every.segment(1)
    for mine, place in enumerate((2, 0)):
        chex.assert_trees_all_close(left.state_of(mine), every.state_of(place), rtol=1e-5, atol=1e-6)
    assert int(before.state_of(0).update) == 1  # the others stay as they were
    np.testing.assert_array_equal(left.params_of(1), left.state_of(1).params)


@pytest.mark.slow
def test_a_member_may_be_an_ensemble():
    config = tiny_config(seeds=2)
    market = tiny_market(config)
    population = Population(compile_members(config, market, 3, at_once=2), configs_of(config))
    out = population.segment(2)
    assert population.state.params.ndim == 3
    assert_alike(population, out, (2,))


def test_what_is_no_array_of_the_program_is_refused(tiny):
    config, market, compiled = tiny
    with pytest.raises(ConfigError, match=r"trunk_width: a population varies .* jaxppo.sweep trains variants"):
        member_config(config, {"trunk_width": 16})
    with pytest.raises(ConfigError, match="unknown field 'learning_rat'; did you mean 'learning_rate'"):
        member_config(config, {"learning_rat": 1.0})
    with pytest.raises(ConfigError, match=r"lanes: members of one population differ in .* got 4 and 8"):
        Population(compiled, [config, replace_fields(config, {"lanes": 8})])
    with pytest.raises(ConfigError, match="members_at_once"):
        compile_members(config, market, 3, at_once=-1)


def test_as_many_at_once_as_fit_and_the_rest_in_passes():
    """Memory of 100 + 10 n bytes. 90 members take 1,000; of 600 bytes 50 fit, so two passes of 45 do."""
    tried = []

    def compile_at(n: int) -> Executable:
        tried.append(n)
        return Executable(SimpleNamespace(), 0.0, 100 + 10 * n)

    assert choose_passes(90, 1000, compile_at).at_once == 90
    assert tried == [90]
    found = choose_passes(90, 600, compile_at)
    assert found.at_once == 45
    assert found.executable.memory_bytes == 550
    assert found.line == Line(100.0, 10.0)
    assert choose_passes(3, 119, compile_at).at_once == 1
    with pytest.raises(ConfigError, match="one member takes"):
        choose_passes(3, 100, compile_at)
    assert choose_passes(1, 110, compile_at).at_once == 1
