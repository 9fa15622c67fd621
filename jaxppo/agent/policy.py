"""Actor-critic over an encoded market and an account vector, and its categorical action distribution."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxppo.agent.encoders import RELU_GAIN, dense, make_encoder, on_rows
from jaxppo.config.schema import AgentConfig

Params = Any  # nested dict of float32 arrays

# Logit of a masked action: e^-1e9 is 0 in every float, and 0 * -1e9 stays finite where -inf would give nan.
MASKED_LOGIT = -1e9


class ActorCritic(nnx.Module):
    """A shared trunk with a policy and a value head, orthogonal initialisation (gains sqrt 2, .01 and 1).

    The first trunk layer joins market and account by a sum of two projections: the market's is computed once per path
    and step and broadcast over the lanes, the account's is 8 inputs wide.
    """

    def __init__(self, config: AgentConfig, n_features: int, n_account: int, n_actions: int, rngs: nnx.Rngs):
        dtype = jnp.dtype(config.compute_dtype)
        width = config.trunk_width
        self.encoder = make_encoder(config, n_features, rngs)
        self.market = dense(self.encoder.width, width, RELU_GAIN, dtype, rngs)
        self.account = dense(n_account, width, RELU_GAIN, dtype, rngs, bias=False)
        self.hidden = nnx.List([dense(width, width, RELU_GAIN, dtype, rngs) for _ in range(config.trunk_layers - 1)])
        self.policy_head = dense(width, n_actions, 0.01, dtype, rngs)
        self.value_head = dense(width, 1, 1.0, dtype, rngs)

    def encode(self, features: jax.Array) -> jax.Array:
        """Market projection of paths: (P, R - 1 + n, F) to (P, n, H)."""
        return on_rows(self.market, self.encoder(features))

    def decide(self, market: jax.Array, account: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits and value of accounts on encoded bars.

        Args:
          market: (..., H), the output of `encode`.
          account: (..., lanes, A) float32, with the same leading axes.

        Returns:
          logits (..., lanes, K) and values (..., lanes), float32.
        """
        x = nnx.relu(jnp.expand_dims(market, -2) + on_rows(self.account, account))
        shape = x.shape[:-1]
        x = x.reshape(-1, x.shape[-1])
        for layer in self.hidden:
            x = nnx.relu(layer(x))
        out = self._heads(x).astype(jnp.float32)
        logits, value = out[:, :-1], out[:, -1]
        return logits.reshape(*shape, -1), value.reshape(shape)

    def _heads(self, x: jax.Array) -> jax.Array:
        """Logits and value, side by side: (N, H) to (N, K + 1).

        One product, by rows of the output: the gradient of the kernel as (K + 1, H) takes .44 ms over 65,536 samples on
        2 CPU cores, as (H, K + 1) 2.6 ms, and the barrier keeps XLA from turning the first into the second.
        """
        heads = (self.policy_head, self.value_head)
        dtype = x.dtype
        kernel = jnp.concatenate([h.kernel[...] for h in heads], axis=1).astype(dtype)
        bias = jnp.concatenate([h.bias[...] for h in heads if h.bias is not None]).astype(dtype)
        rows = jax.lax.optimization_barrier(kernel.T)
        return jax.lax.dot_general(x, rows, (((1,), (1,)), ((), ()))) + jnp.expand_dims(bias, 0)


class Agent(NamedTuple):
    """The network's static half; parameters travel apart as a nested dict. Build with `make_agent`."""

    graph: nnx.GraphDef

    def encode(self, params: Params, features: jax.Array) -> jax.Array:
        with jax.named_scope("encode"):
            return self._bind(params).encode(features)

    def decide(self, params: Params, market: jax.Array, account: jax.Array) -> tuple[jax.Array, jax.Array]:
        with jax.named_scope("decide"):
            return self._bind(params).decide(market, account)

    def _bind(self, params: Params) -> ActorCritic:
        return nnx.merge(self.graph, nnx.State(params))


class AgentSpec(NamedTuple):
    """Sizes that the network is built for."""

    config: AgentConfig
    n_features: int
    n_account: int
    n_actions: int


def init_params(spec: AgentSpec, key: jax.Array) -> Params:
    """Fresh parameters as a nested dict of float32 arrays; can be vmapped over keys.

    Under `vmap` the members are initialised one after another: on jax 0.10.2 the batched orthogonal initialisers of
    four or more networks of the default size never returned on a 2-core CPU.
    """

    @jax.custom_batching.sequential_vmap
    def one(key_data: jax.Array) -> Params:
        rngs = nnx.Rngs(jax.random.wrap_key_data(key_data))
        model = ActorCritic(spec.config, spec.n_features, spec.n_account, spec.n_actions, rngs)
        return nnx.to_pure_dict(nnx.state(model, nnx.Param))

    return one(jax.random.key_data(key))


def make_agent(spec: AgentSpec) -> Agent:
    """The static half of the network; allocates no parameters."""
    model = nnx.eval_shape(
        lambda: ActorCritic(spec.config, spec.n_features, spec.n_account, spec.n_actions, nnx.Rngs(0))
    )
    return Agent(nnx.split(model)[0])


class Distribution(NamedTuple):
    """A categorical distribution over K actions by its log-probabilities."""

    log_probs: jax.Array  # (..., K)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Log-probability of int32 `action` (...)."""
        # A one-hot sum, not a gather: its backward is dense, while a gather's is a serial scatter-add on the CPU.
        chosen = jax.nn.one_hot(action, self.log_probs.shape[-1], dtype=self.log_probs.dtype)
        return jnp.sum(self.log_probs * chosen, axis=-1)

    def entropy(self) -> jax.Array:
        """Entropy in nats (...)."""
        return -jnp.sum(jnp.exp(self.log_probs) * self.log_probs, axis=-1)

    def sample(self, uniform: jax.Array) -> jax.Array:
        """Actions (...) int32 by inversion of the cumulative distribution at `uniform` in [0, 1) (...)."""
        cumulative = jnp.cumsum(jnp.exp(self.log_probs), axis=-1)
        # Scaled by the rounded total: otherwise about one sample in 10^7 would fall on a masked last action.
        below = jnp.expand_dims(uniform, -1) * cumulative[..., -1:] >= cumulative[..., :-1]
        return jnp.sum(below.astype(jnp.int32), axis=-1)

    def mode(self) -> jax.Array:
        """Most probable actions (...) int32; ties go to the lowest index."""
        return jnp.argmax(self.log_probs, axis=-1).astype(jnp.int32)


def distribution(logits: jax.Array, mask: jax.Array) -> Distribution:
    """Distribution over the actions that `mask` (..., K) allows."""
    return Distribution(jax.nn.log_softmax(jnp.where(mask, logits, MASKED_LOGIT), axis=-1))
