"""What crosses rooms has the shapes and dtypes that it says, or tracing stops with the name of the field."""

from __future__ import annotations

import doctest

import jax
import jax.numpy as jnp
import pytest
from helpers import random_tape, tiny_config, tiny_program

import jaxppo.shapes
from jaxppo.market.tape import zero_tape
from jaxppo.play.deciders import given_actions
from jaxppo.play.passes import Order, play
from jaxppo.ppo.state import hyper_from
from jaxppo.ppo.update import update


def test_example_of_the_check():
    assert doctest.testmod(jaxppo.shapes) == (0, 4)


def test_a_tape_whose_fields_disagree_is_refused():
    tape = zero_tape(2, 9, 3).check()
    with pytest.raises(
        TypeError, match=r"Tape.high: expected Float of shape \(S, T, \.\.\.\), got float32 of shape \(2, 8\)"
    ):
        tape._replace(high=tape.high[:, 1:]).check()
    with pytest.raises(TypeError, match=r"Tape.first: expected Int32 of shape \(S\), got float32"):
        tape._replace(first=tape.first.astype(jnp.float32)).check()
    with pytest.raises(AssertionError):
        tape._replace(costs=jax.tree.map(lambda x: x[:1], tape.costs)).check()


def test_a_decider_that_orders_for_other_accounts_is_refused():
    tape, spec = random_tape(0, 2, 40, 3, 4), tiny_program(tiny_config())[0].spec.env
    decider = given_actions(jnp.zeros((35, 2), jnp.int32), spec, tape)
    assert play(decider, tape, 35).equity.shape == (35, 1, 2)
    with pytest.raises(AssertionError):
        play(decider._replace(decide=lambda m: Order(m.account.units[0])), tape, 35)


def test_an_update_names_what_does_not_fit_its_state():
    config = tiny_config()
    program, tape, _ = tiny_program(config)
    hyper = hyper_from(config)
    state = jax.eval_shape(program.init, jax.random.key(0), hyper, tape)

    def trace(state, hyper):
        return jax.eval_shape(lambda s, h, t: update(s, t, program.spec, h), state, hyper, tape)

    after, metrics = trace(state, hyper)
    assert after.update.shape == metrics["entropy"].shape == ()
    with pytest.raises(TypeError, match=r"Hyper.gamma: expected Float of shape \(\), got float32 of shape \(2,\)"):
        trace(state, hyper._replace(gamma=jnp.ones(2)))
    short = jax.ShapeDtypeStruct((3,), jnp.float32)
    with pytest.raises(TypeError, match=r"TrainState.moments.square: expected Float of shape \(N\)"):
        trace(state._replace(moments=state.moments._replace(square=short)), hyper)
    wide = jax.ShapeDtypeStruct(state.update.shape, jnp.float32)
    with pytest.raises(TypeError, match=r"TrainState.update: expected Int32"):
        trace(state._replace(update=wide), hyper)


def test_a_network_names_features_of_another_number():
    program, _, _ = tiny_program(tiny_config())
    agent, params = program.spec.agent, jnp.zeros(3)
    with pytest.raises(AssertionError, match="shape"):
        agent.encode(params, jnp.zeros((2, 8, agent.spec.n_features + 1)))
    with pytest.raises(AssertionError):
        agent.decide(params, jnp.zeros((2, 8)), jnp.zeros((2, 4, agent.spec.n_observation + 1)))
