"""Ensembles: several policies that act by the mean of their action probabilities."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_config, tiny_market, tiny_program
from jax.flatten_util import ravel_pytree

from jaxppo.agent.encoders import receptive_field
from jaxppo.agent.policy import Agent, Params, distribution, init_params, mixture
from jaxppo.api import decide
from jaxppo.check.parity import check_parity
from jaxppo.check.verdict import Player
from jaxppo.config.schema import Config
from jaxppo.env.trading import EnvSpec
from jaxppo.market.features import compute_features
from jaxppo.market.synthetic import synthetic_market
from jaxppo.market.tape import Tape
from jaxppo.play.deciders import acting_policy, leaning_policy
from jaxppo.play.passes import n_decisions, play
from jaxppo.store.checkpoint import RestoredPolicy
from jaxppo.store.checkpoint_info import final_info


class Tiny(NamedTuple):
    config: Config
    agent: Agent
    env: EnvSpec
    tape: Tape
    members: Params  # (3, N), which decide by what they see


def outspoken(agent: Agent, params: jax.Array) -> jax.Array:
    """The parameters with a policy head a hundred times as large: fresh ones hardly prefer any action."""
    network = agent.unravel(params)
    return ravel_pytree(network | {"policy_head": jax.tree.map(lambda x: 100 * x, network["policy_head"])})[0]


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    config = tiny_config()
    program, _, data = tiny_program(config)
    agent = program.spec.agent
    keys = jax.random.split(jax.random.key(5), 3)
    members = jnp.stack([outspoken(agent, init_params(agent.spec, k)) for k in keys])
    return Tiny(config, agent, program.spec.env, data.tape, members)


def played(tiny: Tiny, params: Params, decider=acting_policy):
    n = n_decisions(tiny.tape)
    reach = receptive_field(tiny.config.agent)
    return jax.jit(lambda p: play(decider(tiny.agent, tiny.env, p, tiny.tape, n, reach), tiny.tape, n))(params)


# --- the mean of probabilities


def test_an_ensemble_acts_by_the_mean_of_the_probabilities(tiny):
    """Members that see nothing: the logits of each are the biases of its policy head, its value that of the other.

    Allowed are the first two of three actions. Odds of 4 to 1 are probabilities of .8 and .2, odds of 1 to 9 are .1
    and .9: the means are .45 and .55, where the mean of the logits would be odds of 2 to 3. The mean of values of 2 and
    3 is 2.5.
    """

    def member(odds: list[float], value: float) -> jax.Array:
        network = jax.tree.map(jnp.zeros_like, tiny.agent.unravel(tiny.members[0]))
        network["policy_head"]["bias"] = jnp.log(jnp.asarray(odds, jnp.float32))
        network["value_head"]["bias"] = jnp.asarray([value], jnp.float32)
        return ravel_pytree(network)[0]

    params = jnp.stack([member([4.0, 1.0, 100.0], 2.0), member([1.0, 9.0, 100.0], 3.0)])
    width, seen = tiny.config.agent.trunk_width, tiny.agent.spec.n_observation
    mask = jnp.broadcast_to(jnp.asarray([True, True, False]), (4, 5, 3))
    policy, value = tiny.agent.act(params, jnp.ones((4, 2, width)), jnp.ones((4, 5, seen)), mask)
    expected = np.broadcast_to([0.45, 0.55, 0.0], (4, 5, 3))
    np.testing.assert_allclose(jnp.exp(policy.log_probs), expected, rtol=1e-6)
    np.testing.assert_allclose(value, np.full((4, 5), 2.5), rtol=1e-6)
    np.testing.assert_array_equal(policy.mode(), np.ones((4, 5)))
    assert np.isfinite(policy.entropy()).all()


def test_a_certain_member_is_averaged_soundly():
    """Log-probabilities of -200, which as probabilities are 0: beside a member at even odds the mean is 3 to 1."""
    sure, even = jnp.array([0.0, -200.0]), jnp.log(jnp.array([0.5, 0.5]))
    both = jnp.ones(2, bool)
    mean = mixture(distribution(jnp.stack([sure, even]), both[None]))
    np.testing.assert_allclose(jnp.exp(mean.log_probs), [0.75, 0.25], rtol=1e-6)
    same = mixture(distribution(jnp.stack([sure, sure, sure]), both[None]))
    np.testing.assert_allclose(same.log_probs, [0.0, -200.0], rtol=1e-5, atol=1e-6)


def test_one_policy_acts_as_ever(tiny):
    """A single policy is not an ensemble of one: its log-probabilities are those of its logits, to the last bit."""
    one = tiny.members[0]
    rng = np.random.default_rng(0)
    market = jnp.asarray(rng.normal(size=(6, tiny.config.agent.trunk_width)), jnp.float32)
    seen = jnp.asarray(rng.normal(size=(6, 2, tiny.agent.spec.n_observation)), jnp.float32)
    mask = jnp.ones((6, 2, 3), bool).at[..., 2].set(False)
    policy, value = tiny.agent.act(one, market, seen, mask)
    logits, expected = tiny.agent.decide(one, market, seen)
    np.testing.assert_array_equal(policy.log_probs, distribution(logits, mask).log_probs)
    np.testing.assert_array_equal(value, expected)
    alone, alone_value = tiny.agent.act(one[None], market[:, None], seen, mask)
    np.testing.assert_allclose(alone.log_probs[..., :2], policy.log_probs[..., :2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(alone_value, value, rtol=1e-5, atol=1e-6)


# --- who plays


@pytest.mark.parametrize("decider", [acting_policy, leaning_policy])
def test_copies_of_a_policy_play_as_the_one(tiny, decider):
    one = played(tiny, tiny.members[1], decider)
    copies = played(tiny, jnp.stack([tiny.members[1]] * 3), decider)
    assert int(one.sums.trades.sum()) > 0
    np.testing.assert_allclose(copies.equity, one.equity, rtol=1e-4)
    if decider is acting_policy:
        np.testing.assert_array_equal(copies.note.action, one.note.action)


def test_the_order_of_the_members_does_not_matter_and_each_counts(tiny):
    forward, backward = (played(tiny, tiny.members[order]) for order in (slice(None), slice(None, None, -1)))
    np.testing.assert_array_equal(forward.note.action, backward.note.action)
    for out in range(3):
        fewer = played(tiny, jnp.delete(tiny.members, out, axis=0))
        assert (fewer.note.action != forward.note.action).any()


def test_an_ensemble_decides_live_as_its_members_do_on_average(tiny):
    bars = synthetic_market(0, 2, 900)[1]
    market = tiny_market(tiny.config)
    info = final_info(tiny.config, market, tiny.env.actions, 0, 0.0)
    each = [decide(RestoredPolicy(m, tiny.agent, info), bars) for m in tiny.members]
    all_ = decide(RestoredPolicy(tiny.members, tiny.agent, info), bars)
    mean = {a: np.mean([d.probabilities[a] for d in each]) for a in tiny.env.actions.labels}
    for label, probability in all_.probabilities.items():
        np.testing.assert_allclose(probability, mean[label], rtol=1e-5, atol=1e-7)
    assert all_.action == max(mean, key=mean.__getitem__)
    np.testing.assert_allclose(all_.value, np.mean([d.value for d in each]), rtol=1e-5)
    assert len({d.action for d in each}) > 1 or len({d.probabilities[all_.action] for d in each}) > 1


def test_an_ensemble_sees_and_does_live_what_it_does_at_once(tiny):
    player = Player(tiny.config, tiny.agent, tiny.members, tiny.env)
    check = check_parity(lambda b: compute_features(b, ("base",), 32), synthetic_market(3, 2, 900), player, n_bars=24)
    assert check.passed, check.explanation
    assert check.details["varied"] > 0
