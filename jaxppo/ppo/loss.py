"""The clipped surrogate, value and entropy losses of PPO on a minibatch of whole paths."""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int32

from jaxppo.agent.policy import Agent, Kept, Weights, distribution
from jaxppo.env.protocol import Env
from jaxppo.market.tape import Terms
from jaxppo.packed import sums
from jaxppo.ppo.state import Hyper
from jaxppo.shapes import check_fields


class Samples(NamedTuple):
    """What the loss needs of T steps of P paths x L lanes."""

    observation: Float[jax.Array, "T P L A"]
    action: Int32[jax.Array, "T P L"] | None  # None where the loss is taken over every action
    log_prob: Float[jax.Array, "T P L ..."]  # of the behaviour policy; (T, P, L, K) over every action
    value: Float[jax.Array, "T P L"]  # of the behaviour policy
    advantage: Float[jax.Array, "T P L ..."]  # shape of log_prob
    value_target: Float[jax.Array, "T P L"]


class AdvantageScale(NamedTuple):
    """What the advantages of a minibatch are centred and scaled by."""

    mean: Float[jax.Array, ""]
    deviation: Float[jax.Array, ""]


class Batch(NamedTuple):
    """A minibatch of P whole paths."""

    features: Float[jax.Array, "P B F"]  # (P, R - 1 + T, F)
    terms: Terms  # (P, 1)
    samples: Samples
    kept: Kept | None = None  # what dropout kept in the rollout
    scale: AdvantageScale | None = None  # of the whole minibatch, whatever devices it lies on; None: as they are


class LossMetrics(NamedTuple):
    """Scalars of one minibatch."""

    policy_loss: Float[jax.Array, ""]
    value_loss: Float[jax.Array, ""]
    entropy: Float[jax.Array, ""]
    approx_kl: Float[jax.Array, ""]
    clip_fraction: Float[jax.Array, ""]


def policy_loss(log_prob: jax.Array, old_log_prob: jax.Array, advantage: jax.Array, clip: jax.Array) -> jax.Array:
    """Clipped surrogate (Schulman et al. 2017, eq. 7), negated: shape of the arguments."""
    ratio = jnp.exp(log_prob - old_log_prob)
    return -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage)


def value_loss(value: jax.Array, old_value: jax.Array, target: jax.Array, clip: jax.Array) -> jax.Array:
    """Half squared error; with `clip` above 0, the worse of it and that of the value clipped around the old one."""
    error = jnp.square(value - target)
    clipped = jnp.square(old_value + jnp.clip(value - old_value, -clip, clip) - target)
    return 0.5 * jnp.where(clip > 0, jnp.maximum(error, clipped), error)


@jax.named_scope("loss")
def ppo_loss(
    agent: Agent,
    env: Env,
    params: Weights,
    batch: Batch,
    hyper: Hyper,
    entropy_coefficient: jax.Array,
) -> tuple[jax.Array, LossMetrics]:
    """Total loss of a minibatch; the encoder runs once over each of its paths, under the gradient."""
    check_fields(batch)
    samples = batch.samples
    shape = samples.value.shape  # (T, P, L)
    if batch.kept is not None:
        agent = agent.dropping(batch.kept)
    every = (len(env.action_labels),) if samples.action is None else ()
    chex.assert_shape(samples.observation, (*shape, env.n_observation))
    chex.assert_shape([samples.log_prob, samples.advantage], (*shape, *every))
    market = jnp.swapaxes(agent.encode(params, batch.features), 0, 1)  # (T, P, H)
    logits, value = agent.decide(params, market, samples.observation)
    policy = distribution(logits, env.mask(samples.observation, batch.terms))
    log_prob = policy.log_probs if samples.action is None else policy.log_prob(samples.action)

    def mean(x: jax.Array) -> jax.Array:
        """Over every action under the behaviour policy where there is no sampled one: (T, P, L)."""
        return x if samples.action is not None else jnp.sum(jnp.exp(samples.log_prob) * x, axis=-1)

    advantage = samples.advantage
    if batch.scale is not None:
        advantage = (advantage - batch.scale.mean) / (batch.scale.deviation + 1e-8)
    surrogate = mean(policy_loss(log_prob, samples.log_prob, advantage, hyper.clip))
    critic = value_loss(value, samples.value, samples.value_target, hyper.clip_value)
    entropy = policy.entropy()
    log_ratio = log_prob - samples.log_prob
    told = LossMetrics(
        policy_loss=surrogate,
        value_loss=critic,
        entropy=entropy,
        # The low-variance, never negative estimator of Schulman (2020), "Approximating KL divergence".
        approx_kl=mean(jnp.expm1(log_ratio) - log_ratio),
        clip_fraction=mean((jnp.abs(jnp.expm1(log_ratio)) > hyper.clip).astype(jnp.float32)),
    )
    metrics = LossMetrics(*sums(jax.lax.stop_gradient(told), 3) / samples.value.size)
    return (surrogate + hyper.value_weight * critic - entropy_coefficient * entropy).mean(), metrics
