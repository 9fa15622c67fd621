"""Surrogate, value and entropy losses by hand; the action distribution and its masks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import BRACKETED

from jaxppo.agent.policy import distribution
from jaxppo.config.schema import RewardConfig
from jaxppo.env.trading import EXPOSURE, env_spec
from jaxppo.market.tape import Costs, Terms
from jaxppo.ppo.loss import Batch, Samples, policy_loss, ppo_loss, value_loss
from jaxppo.ppo.shard import Shard
from jaxppo.ppo.state import Hyper
from jaxppo.ppo.update import advantage_scales

LARGEST_BELOW_1 = float(np.nextafter(np.float32(1), np.float32(0)))


def surrogate(ratio, advantage, clip=0.2):
    """Loss and its slope in the log-probability, at a ratio to the old policy."""
    log_prob, old = jnp.log(jnp.float32(ratio)), jnp.float32(0)
    loss, slope = jax.value_and_grad(policy_loss)(log_prob, old, jnp.float32(advantage), jnp.float32(clip))
    return float(loss), float(slope)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        # Inside the range: -ratio * advantage, and the slope of that in log ratio.
        (1.1, 2.0, -2.2, -2.2),
        (0.9, -2.0, 1.8, 1.8),
        # Good actions that became likelier than 1.2: -1.2 * 2, no further push.
        (1.5, 2.0, -2.4, 0.0),
        # Bad ones that became rarer than .8: .8 * 2, no further push.
        (0.5, -2.0, 1.6, 0.0),
        # Steps the wrong way are not clipped: good ones that became rarer, bad ones that became likelier.
        (0.5, 2.0, -1.0, -1.0),
        (1.5, -2.0, 3.0, 3.0),
    ],
)
def test_clipped_surrogate_by_hand(ratio, advantage, loss, slope):
    assert surrogate(ratio, advantage) == (pytest.approx(loss, rel=1e-5), pytest.approx(slope, rel=1e-5))


def half_error(value, old, target, clip):
    return float(value_loss(*(jnp.float32(x) for x in (value, old, target, clip))))


def test_value_loss_by_hand():
    # Without clipping: (3 - 1)^2 / 2.
    assert half_error(3.0, 0.0, 1.0, 0.0) == pytest.approx(2.0)
    # Clipped to .5 around 0: the worse of (.8 - 1)^2 = .04 and (.5 - 1)^2 = .25, halved.
    assert half_error(0.8, 0.0, 1.0, 0.5) == pytest.approx(0.125)
    # Away from the target it is not clipped: the worse of (-2 - 1)^2 = 9 and (-.5 - 1)^2 = 2.25.
    assert half_error(-2.0, 0.0, 1.0, 0.5) == pytest.approx(4.5)
    # Within the range both are the same: (.3 - 1)^2 / 2.
    assert half_error(0.3, 0.0, 1.0, 0.5) == pytest.approx(0.245)


@pytest.mark.parametrize("n_actions", [2, 3, 8])
def test_entropy_of_a_uniform_policy_is_log_k(n_actions):
    policy = distribution(jnp.full((4, n_actions), 7.0), jnp.ones((4, n_actions), bool))
    np.testing.assert_allclose(policy.entropy(), np.log(n_actions), rtol=1e-6)


def test_masked_actions_do_not_count_in_the_entropy():
    # Two of four are left: log 2, and the gradient is finite.
    mask = jnp.array([True, False, True, False])
    entropy, slope = jax.value_and_grad(lambda z: distribution(z, mask).entropy())(jnp.array([1.0, 50.0, 1.0, -50.0]))
    assert float(entropy) == pytest.approx(np.log(2), rel=1e-6)
    np.testing.assert_allclose(slope, 0.0, atol=1e-6)


def test_probabilities_by_hand():
    # exp of log 1, log 2, log 5: 1/8, 2/8, 5/8; without the last: 1/3, 2/3, 0.
    logits = jnp.log(jnp.array([1.0, 2.0, 5.0]))
    np.testing.assert_allclose(
        jnp.exp(distribution(logits, jnp.ones(3, bool)).log_probs), [0.125, 0.25, 0.625], rtol=1e-6
    )
    masked = distribution(logits, jnp.array([True, True, False]))
    np.testing.assert_allclose(jnp.exp(masked.log_probs), [1 / 3, 2 / 3, 0.0], rtol=1e-6)
    assert float(masked.log_prob(jnp.int32(1))) == pytest.approx(np.log(2 / 3), rel=1e-6)
    assert int(masked.mode()) == 1


def masks(n_actions):
    """Every mask of `n_actions` that leaves one: (M, K)."""
    bits = np.arange(1, 2**n_actions)[:, None] >> np.arange(n_actions)
    return (bits & 1).astype(bool)


@pytest.mark.parametrize("n_actions", [3, 7])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_masked_actions_have_no_probability_and_are_never_sampled(n_actions, scale):
    """Inversion is tried where it could slip: at 0, at the largest float below 1, and all between."""
    mask = jnp.asarray(masks(n_actions))
    rng = np.random.default_rng(n_actions)
    policy = distribution(jnp.asarray(scale * rng.normal(size=mask.shape), jnp.float32), mask)
    assert (np.asarray(jnp.exp(policy.log_probs))[~np.asarray(mask)] == 0.0).all()
    edges = [0.0, 1e-45, 1e-8, 0.5, 1 - 2**-23, LARGEST_BELOW_1]
    uniform = np.append(edges, rng.random(2000) * LARGEST_BELOW_1).astype(np.float32)
    assert uniform.max() == LARGEST_BELOW_1
    action = jax.jit(jax.vmap(policy.sample))(jnp.tile(uniform[:, None], len(mask)))  # (U, M)
    assert action.dtype == jnp.int32
    assert np.asarray(mask)[np.arange(len(mask)), np.asarray(action)].all()
    assert np.asarray(mask)[np.arange(len(mask)), np.asarray(policy.mode())].all()


def test_sampled_frequencies_are_the_probabilities():
    # 200,000 draws: the deviation of a share is at most sqrt(.25 / 200,000) = .0011; five of them.
    probability = np.array([0.5, 0.0, 0.3, 0.2])
    logits = jnp.log(jnp.asarray(np.maximum(probability, 1e-3), jnp.float32))
    policy = distribution(logits, jnp.asarray(probability > 0))
    action = jax.vmap(policy.sample)(jax.random.uniform(jax.random.key(0), (200_000,)))
    share = np.bincount(np.asarray(action), minlength=4) / 200_000
    np.testing.assert_allclose(share, probability, atol=0.0056)


ENV = env_spec(BRACKETED, RewardConfig())  # hold, buy, sell


def terms(allow_short: list[bool]) -> Terms:
    """Of free paths, (P, 1)."""
    allowed = jnp.expand_dims(jnp.array(allow_short), -1)
    return Terms(Costs(*(jnp.zeros(allowed.shape),) * 3), allowed)


def test_path_mask_forbids_shorts_path_by_path():
    account = jnp.zeros((2, 2, 3, EXPOSURE + 1)).at[:, :, 2, EXPOSURE].set(0.5)  # the third lane is long
    mask = np.asarray(ENV.mask(account, terms([True, False])))  # (T, P, L, K)
    assert mask.shape == (2, 2, 3, 3)
    assert mask[:, 0].all()
    assert mask[..., :2].all()
    assert mask[:, 1, :, 2].tolist() == [[False, False, True]] * 2
    np.testing.assert_array_equal(ENV.mask(account[0], terms([True, False])), mask[0])


class TableAgent(NamedTuple):
    """Logits and value that are the parameters, whatever is seen."""

    def encode(self, params, features):
        return features

    def decide(self, params, market, account):
        shape = account.shape[:-1]
        return jnp.broadcast_to(params["logits"], (*shape, 3)), jnp.broadcast_to(params["value"], shape)


def hand_batch(old_log_prob, advantage):
    """Two steps of one path and one lane: action 0, then action 2."""
    shape = (2, 1, 1)

    def column(values):
        return jnp.asarray(values, jnp.float32).reshape(shape)

    samples = Samples(
        observation=jnp.zeros((*shape, ENV.n_observation)),
        action=jnp.array([0, 2], jnp.int32).reshape(shape),
        log_prob=column(old_log_prob),
        value=column([0.0, 0.0]),
        advantage=column(advantage),
        value_target=column([1.0, 3.0]),
    )
    return Batch(jnp.zeros((1, 2, 1)), terms([True]), samples)


def scaled(batch, normalize):
    """The batch with the scale of its advantages, as an update has it for a minibatch that is all of its rollout."""
    if not normalize:
        return batch
    scales = advantage_scales(batch.samples, jnp.zeros((1, 1), jnp.int32), Shard())
    return batch._replace(scale=jax.tree.map(lambda x: x[0], scales))


def hand_loss(advantage, normalize):
    """Policy (1/8, 2/8, 5/8) and value 2 against an old policy of one third each."""
    params = {"logits": jnp.log(jnp.array([1.0, 2.0, 5.0])), "value": jnp.float32(2.0)}
    hyper = Hyper(*(jnp.float32(0) for _ in Hyper._fields))._replace(
        clip=jnp.float32(0.2), value_weight=jnp.float32(0.5)
    )
    batch = scaled(hand_batch([-np.log(3)] * 2, advantage), normalize)
    return ppo_loss(TableAgent(), ENV, params, batch, hyper, jnp.float32(0.1))


def test_total_loss_by_hand():
    # Ratios 3/8 and 15/8. Advantage 2 at .375: -.75; advantage 4 at 1.875, clipped to 1.2: -4.8. Mean -2.775.
    # Value 2 against 1 and 3: half squared errors .5 and .5. Weight .5: .25.
    # Entropy (log 8 * 1 + 2 log 4 + 5 log 1.6) / 8 = (2.0794415 + 2.7725887 + 2.3500181) / 8 = .9002560; .1 of it.
    loss, metrics = hand_loss([2.0, 4.0], normalize=False)
    assert float(metrics.policy_loss) == pytest.approx(-2.775, rel=1e-5)
    assert float(metrics.value_loss) == pytest.approx(0.5, rel=1e-5)
    assert float(metrics.entropy) == pytest.approx(0.9002560, rel=1e-5)
    assert float(loss) == pytest.approx(-2.775 + 0.25 - 0.0900256, rel=1e-5)
    # KL: the mean of ratio - 1 - log ratio: (-.625 + .9808293 + .875 - .6286087) / 2 = .3011103.
    assert float(metrics.approx_kl) == pytest.approx(0.3011103, rel=1e-5)
    assert float(metrics.clip_fraction) == 1.0


def test_advantages_are_scaled_in_the_minibatch():
    # 2 and 4: mean 3, deviation 1; -1 at .375 clipped to .8 and +1 at 1.875 clipped to 1.2: (.8 - 1.2) / 2.
    _, metrics = hand_loss([2.0, 4.0], normalize=True)
    assert float(metrics.policy_loss) == pytest.approx(-0.2, rel=1e-5)
    # Equal advantages say nothing, and divide by nothing.
    _, metrics = hand_loss([2.0, 2.0], normalize=True)
    assert float(metrics.policy_loss) == pytest.approx(0.0, abs=1e-6)


def every_action_loss(advantage, normalize):
    """The same policies; one step, its loss taken over all three actions."""
    params = {"logits": jnp.log(jnp.array([1.0, 2.0, 5.0])), "value": jnp.float32(2.0)}
    hyper = Hyper(*(jnp.float32(0) for _ in Hyper._fields))._replace(clip=jnp.float32(0.2))
    samples = Samples(
        observation=jnp.zeros((1, 1, 1, ENV.n_observation)),
        action=None,
        log_prob=jnp.full((1, 1, 1, 3), -np.log(3), jnp.float32),
        value=jnp.zeros((1, 1, 1)),
        advantage=jnp.asarray(advantage, jnp.float32).reshape(1, 1, 1, 3),
        value_target=jnp.full((1, 1, 1), 2.0),
    )
    batch = scaled(Batch(jnp.zeros((1, 1, 1)), terms([True]), samples), normalize)
    return ppo_loss(TableAgent(), ENV, params, batch, hyper, jnp.float32(0))


def test_loss_over_every_action_by_hand():
    # Ratios 3/8, 6/8 and 15/8 at a third each. Advantages -3, 1 and 2: .8 * -3 (clipped), .75, 1.2 * 2 (clipped).
    # (-2.4 + .75 + 2.4) / 3 = .25.
    loss, metrics = every_action_loss([-3.0, 1.0, 2.0], normalize=False)
    assert float(loss) == pytest.approx(-0.25, rel=1e-5)
    # Exact KL of the old to the new policy: the mean of -log ratio = (.9808293 + .2876821 - .6286087) / 3 = .2133009.
    assert float(metrics.approx_kl) == pytest.approx(0.2133009, rel=1e-5)
    assert float(metrics.clip_fraction) == pytest.approx(1.0)  # .375, .75 and 1.875 are all beyond .2


def test_advantages_of_every_action_are_scaled_by_their_deviation_under_the_policy():
    # Mean 0 and mean square (9 + 1 + 4) / 3 = 14/3.
    _, metrics = every_action_loss([-3.0, 1.0, 2.0], normalize=True)
    assert float(metrics.policy_loss) == pytest.approx(-0.25 / np.sqrt(14 / 3), rel=1e-5)
