"""Actor-critic over an encoded market and an observed lane, and its categorical action distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import nnx
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from jaxppo.agent import categorical
from jaxppo.agent.encoders import RELU_GAIN, TCN, dense, make_encoder, on_rows
from jaxppo.agent.fusible import from_few, relu, to_few
from jaxppo.config.schema import AgentConfig

if TYPE_CHECKING:
    from jaxppo.agent.tiles import Layer

Params = Float[jax.Array, "*M N"]
"""All parameters of a network as one float32 vector (N,), or those of an ensemble of M members, (M, N).

Only where the network is bound are they a nested dict. What trains and what binds takes (N,); what plays takes both.
"""

Network = dict[str, Any]
"""The same parameters apart, as the network's nested dict of arrays; see `Agent.network`."""
Weights = Params | Network

# Logit of a masked action: e^-1e9 is 0 in every float, and 0 * -1e9 stays finite where -inf would give nan.
MASKED_LOGIT = -1e9


class Kept(NamedTuple):
    """Factors of units that dropout keeps or drops in training, the same at all bars of a path: 1 / (1 - rate) or 0.

    Scaled where units are kept, a network without dropout needs no factors (Srivastava et al. 2014, section 10); one
    draw for a whole sequence is Gal and Ghahramani's (2016).
    """

    encoder: Float[jax.Array, "P C"]  # the encoder's outputs
    hidden: Float[jax.Array, "P K H"]  # the hidden units of the trunk's K layers


def _keep(x: jax.Array, factors: jax.Array) -> jax.Array:
    """`x` (..., P, n, H), times the factors (P, H) of each path."""
    factors = jnp.expand_dims(factors.astype(x.dtype), (*range(x.ndim - 3), -2))
    return x * factors


def _layer(linear: nnx.Linear) -> Layer:
    """What kernels take of it."""
    from jaxppo.agent.tiles import Layer

    assert linear.bias is not None  # of the layers that are asked
    return Layer(linear.kernel[...], linear.bias[...])


class ActorCritic(nnx.Module):
    """A shared trunk with a policy and a value head, orthogonal initialisation (gains sqrt 2, .01 and .01).

    The usual gain of a value head is 1, for returns of about that size. Log returns are a hundredth of it, and a head
    that begins a hundred times too high spends the first updates on pulling the shared trunk down: on a market with
    little signal in its bars five seeds earned 76 % of the oracle so, and 86 % with .01.

    The first trunk layer joins market and observation by a sum of two projections: the market's is computed once per
    path and step and broadcast over the lanes, the other is only as wide as what is observed of a lane.
    """

    def __init__(self, config: AgentConfig, n_features: int, n_observation: int, n_actions: int, rngs: nnx.Rngs):
        dtype = jnp.dtype(config.compute_dtype)
        width = config.trunk_width
        self.fused = config.kernels == "fused"
        self.encoder = make_encoder(config, n_features, rngs)
        self.market = dense(self.encoder.width, width, RELU_GAIN, dtype, rngs)
        self.account = dense(n_observation, width, RELU_GAIN, dtype, rngs, bias=False)
        self.hidden = nnx.List([dense(width, width, RELU_GAIN, dtype, rngs) for _ in range(config.trunk_layers - 1)])
        self.policy_head = dense(width, n_actions, 0.01, dtype, rngs)
        self.value_head = dense(width, 1, 0.01, dtype, rngs)

    def encode(self, features: jax.Array, kept: Kept | None = None) -> jax.Array:
        """Market projection of paths: (P, R - 1 + n, F) to (P, n, H)."""
        if not self.fused or kept is not None or not isinstance(self.encoder, TCN):
            return self._encode(features, kept)
        # By the platform that is compiled for, so that a policy of a GPU's run decides on a CPU.
        out: jax.Array = jax.lax.platform_dependent(features, cuda=self._fused_encode, default=self._encode)
        return out

    def _fused_encode(self, features: jax.Array) -> jax.Array:
        # Here, because Pallas takes .15 s to import and only this needs it.
        from jaxppo.agent.fused_tcn import Encoding, fused_encode

        assert isinstance(self.encoder, TCN)
        layers = tuple(_layer(linear) for linear in self.encoder.layers)
        weights = Encoding(_layer(self.encoder.embed), layers, _layer(self.market))
        return fused_encode(weights, features, self.market.dtype)

    def _encode(self, features: jax.Array, kept: Kept | None = None) -> jax.Array:
        encoded = self.encoder(features)
        return on_rows(self.market, encoded if kept is None else _keep(encoded, kept.encoder))

    def decide(
        self, market: jax.Array, observation: jax.Array, kept: Kept | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Logits and value of lanes on encoded bars.

        Args:
          market: (..., H), the output of `encode`.
          observation: (..., lanes, A) float32, with the same leading axes.
          kept: in training with dropout, of the paths that are the last of the leading axes.

        Returns:
          logits (..., lanes, K) and values (..., lanes), float32.
        """
        if not self.fused or kept is not None:
            return self._decide(market, observation, kept)
        out: tuple[jax.Array, jax.Array]
        out = jax.lax.platform_dependent(market, observation, cuda=self._fused_decide, default=self._decide)
        return out

    def _fused_decide(self, market: jax.Array, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        from jaxppo.agent.fused_trunk import Trunk, fused_trunk

        trunk = Trunk(
            self.account.kernel[...],
            tuple(_layer(linear) for linear in self.hidden),
            _layer(self.policy_head),
            _layer(self.value_head),
        )
        *lead, lanes, observed = observation.shape
        of_each = jnp.broadcast_to(market, (*lead, market.shape[-1])).reshape(-1, market.shape[-1])
        logits, value = fused_trunk(trunk, of_each, observation.reshape(-1, lanes, observed))
        return logits.reshape(*lead, lanes, -1), value.reshape(*lead, lanes)

    def _decide(
        self, market: jax.Array, observation: jax.Array, kept: Kept | None = None
    ) -> tuple[jax.Array, jax.Array]:
        shape = observation.shape[:-1]
        seen = observation.reshape(-1, observation.shape[-1]).astype(market.dtype)
        account = from_few(seen, self.account.kernel[...].astype(market.dtype)).reshape(*shape, -1)
        x = relu(jnp.expand_dims(market, -2) + account)

        def drop(x: jax.Array, layer: int) -> jax.Array:
            return x if kept is None else _keep(x.reshape(*shape, -1), kept.hidden[:, layer]).reshape(x.shape)

        x = drop(x, 0).reshape(-1, x.shape[-1])
        for i, layer in enumerate(self.hidden, start=1):
            x = drop(relu(layer(x)), i)
        out = self._heads(x).astype(jnp.float32)
        logits, value = out[:, :-1], out[:, -1]
        return logits.reshape(*shape, -1), value.reshape(shape)

    def _heads(self, x: jax.Array) -> jax.Array:
        """Logits and value, side by side: (N, H) to (N, K + 1).

        One product, by rows of the output; the barrier keeps XLA from turning them into columns, see `to_few`.
        """
        heads = (self.policy_head, self.value_head)
        kernel = jnp.concatenate([h.kernel[...] for h in heads], axis=1).astype(x.dtype)
        bias = jnp.concatenate([h.bias[...] for h in heads if h.bias is not None]).astype(x.dtype)
        return to_few(x, jax.lax.optimization_barrier(kernel.T)) + jnp.expand_dims(bias, 0)


class AgentSpec(NamedTuple):
    """Sizes that the network is built for."""

    config: AgentConfig
    n_features: int
    n_observation: int
    n_actions: int


class Agent(NamedTuple):
    """The network's static half; parameters travel apart, as one vector. Build with `make_agent`."""

    spec: AgentSpec
    graph: nnx.GraphDef[ActorCritic]
    unravel: Callable[[Params], dict[str, Any]]
    """The vector as the network's nested dict of arrays."""
    kept: Kept | None = None
    """In training with dropout, what is kept of the network: see `dropping`."""

    def network(self, params: Params) -> Network:
        """The parameters (N,) apart, those of an ensemble (M, N) with M first.

        `encode`, `act` and `decide` take them in place of the vector. A loop that cuts them out of the vector itself
        does so in every turn, a kernel for each of the network's 22 arrays on a GPU, and rounds them to bfloat16, where
        that is computed in, by as many.
        """
        apart: Network = self.unravel(params) if params.ndim == 1 else jax.vmap(self.unravel)(params)
        if self.spec.config.kernels == "fused":  # they round as they go
            return apart
        decides = {name: apart[name] for name in ("account", "hidden", "policy_head", "value_head") if name in apart}
        rounded: Network = jax.tree.map(lambda x: x.astype(self.spec.config.compute_dtype), decides)
        return apart | rounded

    def dropping(self, kept: Kept | None) -> Agent:
        """The same network with units dropped, for the paths P of `kept`; None drops none."""
        return self._replace(kept=kept)

    def draw_kept(self, params: Params, keys: jax.Array, rate: float) -> Kept:
        """What dropout at `rate` keeps for each path, by their keys (P,)."""
        config, width = self.spec.config, self.unravel(params)["market"]["kernel"].shape[0]
        shape = (width + config.trunk_layers * config.trunk_width,)
        drawn = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, shape))(keys)
        factors = drawn.astype(jnp.float32) / (1.0 - rate)
        hidden = factors[:, width:].reshape(-1, config.trunk_layers, config.trunk_width)
        return Kept(factors[:, :width], hidden)

    def encode(self, params: Weights, features: jax.Array) -> jax.Array:
        """Market projection of paths: (P, R - 1 + n, F) to (P, n, H), of M members to (P, n, M, H)."""
        chex.assert_shape(features, (None, None, self.spec.n_features))
        chex.assert_type(features, float)
        if _members(params):  # a member at a time: the temporaries of a whole Tape are the largest arrays there are
            return jnp.moveaxis(jax.lax.map(lambda member: self.encode(member, features), params), 0, -2)
        with jax.named_scope("encode"):
            return self._bind(params).encode(features, self.kept)

    def act(
        self, params: Weights, market: jax.Array, observation: jax.Array, mask: jax.Array
    ) -> tuple[Distribution, jax.Array]:
        """How a policy acts: its distribution over the allowed actions, and its values.

        An ensemble acts by the mean of its members' action probabilities, and its value is the mean of theirs (averages
        of probabilities rather than of logits: Lakshminarayanan et al. 2017, section 2.4).

        Args:
          params: (N,), or (M, N) of an ensemble; or what `network` makes of either.
          market: (..., H), or (..., M, H) of an ensemble: the output of `encode`.
          observation: (..., lanes, A) float32.
          mask: (..., lanes, actions) bool, true where an action is allowed.

        Returns:
          Distributions (..., lanes, actions) and values (..., lanes).
        """
        if not _members(params):
            logits, value = self.decide(params, market, observation)
            return distribution(logits, mask), value
        logits, value = jax.vmap(self.decide, (0, -2, None))(params, market, observation)
        return mixture(distribution(logits, jnp.expand_dims(mask, 0))), value.mean(0)

    def decide(self, params: Weights, market: jax.Array, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits (..., L, K) and values (..., L) of lanes (..., L, A) on encoded bars (..., H), of one policy."""
        assert not _members(params), "decide: of one policy"
        chex.assert_axis_dimension(observation, -1, self.spec.n_observation)
        chex.assert_rank(observation, market.ndim + 1)
        chex.assert_type((market, observation), float)
        with jax.named_scope("decide"):
            return self._bind(params).decide(market, observation, self.kept)

    def _bind(self, params: Weights) -> ActorCritic:
        apart = params if isinstance(params, dict) else self.unravel(params)
        network: ActorCritic = nnx.merge(self.graph, nnx.State(apart))
        return network


def _members(params: Weights) -> bool:
    """Whether these are the parameters of an ensemble."""
    return params["policy_head"]["bias"].ndim == 2 if isinstance(params, dict) else params.ndim == 2


def _build(spec: AgentSpec, rngs: nnx.Rngs) -> ActorCritic:
    return ActorCritic(spec.config, spec.n_features, spec.n_observation, spec.n_actions, rngs)


def init_params(spec: AgentSpec, key: jax.Array) -> Params:
    """Fresh parameters, (N,); can be vmapped over keys.

    Under `vmap` the members are initialised one after another: on jax 0.10.2 the batched orthogonal initialisers of
    four or more networks of the default size never returned on a 2-core CPU.
    """

    def one(key_data: jax.Array) -> Params:
        model = _build(spec, nnx.Rngs(jax.random.wrap_key_data(key_data)))
        return ravel_pytree(nnx.to_pure_dict(nnx.state(model, nnx.Param)))[0]

    params: Params = jax.custom_batching.sequential_vmap(one)(jax.random.key_data(key))
    return params


def make_agent(spec: AgentSpec) -> Agent:
    """The static half of the network; allocates no parameters."""
    graph, _ = nnx.split(nnx.eval_shape(lambda: _build(spec, nnx.Rngs(0))))
    unravel: list[Callable[[Params], dict[str, Any]]] = []  # of the shapes alone, so it outlives the trace

    def shapes() -> Params:
        vector, back = ravel_pytree(nnx.to_pure_dict(nnx.state(_build(spec, nnx.Rngs(0)), nnx.Param)))
        unravel.append(back)
        return vector

    jax.eval_shape(shapes)
    return Agent(spec, graph, unravel[0])


def constant_params(agent: Agent, action: int) -> Params:
    """Parameters (N,) of a policy that takes one action wherever it is allowed, and values every state at 0.

    All weights are 0 but the bias of that action, 30: another has a probability of e^-30, which is 1e-13.
    """
    size = jax.eval_shape(lambda key: init_params(agent.spec, key), jax.random.key(0)).shape
    network = agent.unravel(jnp.zeros(size, jnp.float32))
    bias = network["policy_head"]["bias"]
    network["policy_head"]["bias"] = bias.at[action].set(30.0)
    return ravel_pytree(network)[0]


class Distribution(NamedTuple):
    """A categorical distribution over K actions by its log-probabilities."""

    log_probs: jax.Array  # (..., K)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Log-probability of int32 `action` (...)."""
        return categorical.log_prob(self.log_probs, action)

    def entropy(self) -> jax.Array:
        """Entropy in nats (...)."""
        return categorical.entropy(self.log_probs)

    def sample(self, uniform: jax.Array) -> jax.Array:
        """Actions (...) int32 by inversion of the cumulative distribution at `uniform` in [0, 1) (...)."""
        return categorical.sample(self.log_probs, uniform)

    def mode(self) -> jax.Array:
        """Most probable actions (...) int32; ties go to the lowest index."""
        return jnp.argmax(self.log_probs, axis=-1).astype(jnp.int32)


def distribution(logits: jax.Array, mask: jax.Array) -> Distribution:
    """Distribution over the actions that `mask` (..., K) allows."""
    chex.assert_type(mask, bool)
    return Distribution(categorical.log_softmax(jnp.where(mask, logits, MASKED_LOGIT)))


def mixture(members: Distribution) -> Distribution:
    """The mean of M distributions (M, ...) by probability: (...)."""
    log_probs = members.log_probs
    return Distribution(jax.nn.logsumexp(log_probs, axis=0) - math.log(log_probs.shape[0]))
