"""Generalized advantage estimation against a plain loop, by hand, and at the ends of lambda; every action by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxppo.ppo.advantages import counterfactual, gae

gae_jit = jax.jit(gae)
SHAPE = (24, 3, 2)  # T steps of 3 paths x 2 lanes


def column(*values):
    return jnp.asarray(values, jnp.float32)


def flags(*values):
    return jnp.asarray(values, bool)


def loop(reward, value, next_value, terminated, truncated, gamma, lam):
    """The recursion of Schulman et al. 2016, eq. 16, one step and one account at a time, in float64."""
    advantage = np.zeros(reward.shape)
    for account in np.ndindex(reward.shape[1:]):
        following = 0.0
        for t in reversed(range(len(reward))):
            at = (t, *account)
            future = 0.0 if terminated[at] else gamma * next_value[at]
            if terminated[at] or truncated[at]:
                following = 0.0
            following = reward[at] + future - value[at] + gamma * lam * following
            advantage[at] = following
    return advantage


def random_rollout(seed):
    rng = np.random.default_rng(seed)
    reward, value, next_value = rng.normal(size=(3, *SHAPE))
    terminated = rng.random(SHAPE) < 0.15
    truncated = (rng.random(SHAPE) < 0.15) & ~terminated
    return reward, value, next_value, terminated, truncated


def on_device(rollout):
    reward, value, next_value, terminated, truncated = rollout
    floats = (jnp.asarray(x, jnp.float32) for x in (reward, value, next_value))
    return (*floats, jnp.asarray(terminated), jnp.asarray(truncated))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("gamma", "lam"), [(0.99, 0.95), (1.0, 1.0), (0.9, 0.0), (0.0, 0.5)])
def test_scan_equals_loop(seed, gamma, lam):
    rollout = random_rollout(seed)
    assert rollout[3].any()
    assert rollout[4].any()
    advantage, target = gae_jit(*on_device(rollout), gamma, lam)
    expected = loop(*rollout, gamma, lam)
    assert advantage.shape == target.shape == SHAPE
    np.testing.assert_allclose(advantage, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(target, expected + rollout[1], rtol=1e-4, atol=1e-5)


def two_steps(terminated=(False, False), truncated=(False, False), next_value=(4.0, 6.0)):
    """Rewards 1 and 2 from states of value 3 and 4; gamma and lambda are one half."""
    advantage, target = gae_jit(
        column(1, 2), column(3, 4), column(*next_value), flags(*terminated), flags(*truncated), 0.5, 0.5
    )
    return advantage.tolist(), target.tolist()


def test_by_hand():
    # Deltas 1 + .5 * 4 - 3 = 0 and 2 + .5 * 6 - 4 = 1; advantages 0 + .25 * 1 and 1; returns 3.25 and 5.
    assert two_steps() == ([0.25, 1.0], [3.25, 5.0])


def test_termination_has_no_future():
    # At the end: 2 - 4 = -2, and 0 + .25 * -2. In the middle: 1 - 3 = -2, and nothing of the next episode.
    assert two_steps(terminated=(False, True))[0] == [-0.5, -2.0]
    assert two_steps(terminated=(True, False))[0] == [-2.0, 1.0]


def test_truncation_bootstraps_from_the_state_that_was_reached():
    # In the middle, from a state of value 10, not the next episode's 4: 1 + .5 * 10 - 3 = 3, and nothing flows back.
    assert two_steps(truncated=(True, False), next_value=(10.0, 6.0))[0] == [3.0, 1.0]
    # At the end a truncation is what the last step of a rollout is anyway.
    assert two_steps(truncated=(False, True)) == two_steps()


def test_a_step_that_terminates_is_not_saved_by_truncation():
    assert two_steps(terminated=(True, False), truncated=(True, False))[0] == [-2.0, 1.0]


def test_the_value_behind_a_termination_is_never_looked_at():
    advantage, target = gae_jit(column(1.0), column(3.0), column(1e30), flags(True), flags(False), 0.99, 0.95)
    assert (advantage.tolist(), target.tolist()) == ([-2.0], [1.0])


def test_lambda_0_is_the_one_step_error():
    rollout = random_rollout(5)
    reward, value, next_value, terminated, _ = rollout
    advantage, _ = gae_jit(*on_device(rollout), 0.9, 0.0)
    np.testing.assert_allclose(advantage, reward + 0.9 * next_value * ~terminated - value, rtol=1e-4, atol=1e-5)


def test_lambda_1_is_the_discounted_return():
    """Without ends and with next values that are the next states', the values in between cancel."""
    rng = np.random.default_rng(6)
    reward, values = rng.normal(size=12), rng.normal(size=13)
    never = jnp.zeros(12, bool)
    _, target = gae_jit(column(*reward), column(*values[:-1]), column(*values[1:]), never, never, 0.9, 1.0)
    # sum_i .9^i r_{t+i}, and .9^(T-t) times the last state's value.
    expected = [
        sum(0.9**i * r for i, r in enumerate(reward[t:])) + 0.9 ** (12 - t) * values[-1] for t in range(len(reward))
    ]
    np.testing.assert_allclose(target, expected, rtol=1e-4, atol=1e-5)


def test_counterfactual_by_hand():
    # q = 1 + .9 * 10 = 10, 2 + .9 * 5 = 6.5, and 3 alone where the action ends in ruin, whatever its next value says.
    # At .2, .5 and .3: .2 * 10 + .5 * 6.5 + .3 * 3 = 6.15.
    advantage = counterfactual(
        column(1, 2, 3), column(10, 5, 100), flags(False, False, True), column(0.2, 0.5, 0.3), jnp.float32(0.9)
    )
    np.testing.assert_allclose(advantage, [3.85, 0.35, -3.15], rtol=1e-5)


def test_a_masked_action_does_not_count_in_what_is_expected():
    # The first has probability 0: the mean of q is that of the others, .5 * 2 + .5 * 4 = 3.
    advantage = counterfactual(
        column(1000, 2, 4), column(0, 0, 0), flags(False, False, False), column(0, 0.5, 0.5), jnp.float32(0.9)
    )
    np.testing.assert_allclose(advantage, [997, -1, 1], rtol=1e-6)
