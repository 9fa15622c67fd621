"""The fused trunk, its kernels interpreted on the CPU, against the plain path; what a CPU and a GPU compile of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_config, with_cuda_kernels

from jaxppo.agent import fused_trunk
from jaxppo.agent.policy import Agent, AgentSpec, init_params, make_agent
from jaxppo.config.checks import check_config
from jaxppo.config.schema import AgentConfig
from jaxppo.errors import ConfigError


def agent(observed: int = 8, actions: int = 3, **changes) -> Agent:
    config = AgentConfig(encoder="none", **{"kernels": "fused", "trunk_width": 16, **changes})
    return make_agent(AgentSpec(config, 1, observed, actions))


def plain(fused: Agent) -> Agent:
    return make_agent(fused.spec._replace(config=dataclasses.replace(fused.spec.config, kernels="plain")))


@pytest.fixture
def interpreted(monkeypatch):
    """Agents with a fused trunk run its kernels on the CPU."""
    compiled = fused_trunk.fused_trunk
    monkeypatch.setattr(fused_trunk, "fused_trunk", lambda *args: compiled(*args, True))
    monkeypatch.setattr(jax.lax, "platform_dependent", with_cuda_kernels)


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def both_ways(of: Agent, market: jax.Array, observation: jax.Array, scale: float = 1.0):
    """Value and gradient, in parameters and market, of a sum of all outputs, each weighted by a number of its own."""
    weights = normal(7, *observation.shape[:-1], of.spec.n_actions + 1)

    def loss(params: jax.Array, market: jax.Array):
        logits, value = of.decide(params, market.astype(of.spec.config.compute_dtype), observation)
        assert logits.dtype == value.dtype == jnp.float32
        return jnp.sum(jnp.sin(logits) * weights[..., :-1]) + jnp.sum(jnp.square(value) * weights[..., -1]), logits

    params = init_params(plain(of).spec, jax.random.key(1))
    # Heads begin at a hundredth of the other layers, and biases at 0: as after training, all of them count.
    params = params + 0.3 * normal(3, *params.shape)
    return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, market)


def assert_close(ours, theirs, share: float) -> None:
    """To a share of the largest element of each array."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=share * float(jnp.abs(b).max()))


# Shapes that fill no tile and divide into none, paths of more lanes than a tile, more tiles than programs; leading axes
# as in a rollout and in a minibatch; one layer to three.
SHAPES = {
    "less than a tile": ((2, 3), 1, {"trunk_layers": 3}),
    "more lanes than a tile": ((3,), 130, {"trunk_layers": 1, "observed": 17, "actions": 16}),
    "more tiles than programs": ((10, 27), 20, {"trunk_width": 32}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_the_plain_path(interpreted, shape):
    lead, lanes, changes = SHAPES[shape]
    fused = agent(**changes)
    market = normal(1, *lead, fused.spec.config.trunk_width)
    observation = normal(2, *lead, lanes, fused.spec.n_observation)
    assert_close(both_ways(fused, market, observation), both_ways(plain(fused), market, observation), 1e-5)


def test_bfloat16_is_as_near_to_float32_as_the_plain_path_is(interpreted):
    """By root mean squares: to 4 % at most, which is the market's gradient, and no farther than the plain path."""
    market, observation = normal(1, 40, 16), normal(2, 40, 9, 8)
    exact = both_ways(plain(agent()), market, observation)
    fused = agent(compute_dtype="bfloat16")
    ours, theirs = both_ways(fused, market, observation), both_ways(plain(fused), market, observation)
    for a, b, true in zip(*map(jax.tree.leaves, (ours, theirs, exact)), strict=True):
        far, plainly = (float(jnp.linalg.norm(x - true) / jnp.linalg.norm(true)) for x in (a, b))
        assert far <= 0.04
        assert far <= 1.1 * plainly + 0.001


def test_members_decide_as_they_do_alone(interpreted):
    """Under vmap the kernels get an axis of members; and a market of one action is that of all."""
    fused = agent()
    members = jnp.stack([init_params(fused.spec, jax.random.key(i)) for i in range(2)])
    market, observation = normal(1, 2, 1, 5, 16), normal(2, 3, 5, 4, 8)  # (M, 1, P, H) and (K, P, L, A)
    decide = jax.jit(jax.vmap(fused.decide, (0, 0, None)))
    expected = jax.jit(jax.vmap(plain(fused).decide, (0, 0, None)))
    assert_close(decide(members, market, observation), expected(members, market, observation), 1e-5)


def test_on_the_device_at_hand_it_is_the_plain_path():
    """On a GPU by the kernels; on any other to the last bit, since there it takes the plain path."""
    fused, market, observation = agent(trunk_width=64), normal(1, 3, 7, 64), normal(2, 3, 7, 32, 8)
    with jax.default_matmul_precision("highest"):
        ours, theirs = both_ways(fused, market, observation), both_ways(plain(fused), market, observation)
    assert_close(ours, theirs, 1e-5 if jax.default_backend() == "gpu" else 0.0)


@pytest.mark.skipif(jax.__version_info__ >= (0, 11), reason="from jax 0.11 on lowering needs the CUDA plugin")
def test_a_gpu_gets_two_kernels_for_value_and_gradient():
    fused, market, observation = agent(), normal(1, 4, 16), normal(2, 4, 3, 8)

    def loss(params: jax.Array) -> jax.Array:
        logits, value = fused.decide(params, market, observation)
        return logits.sum() + value.sum()

    params = init_params(fused.spec, jax.random.key(0))
    lowered = jax.jit(jax.value_and_grad(loss)).trace(params).lower(lowering_platforms=("cuda",)).as_text()
    assert lowered.count("__gpu$xla.gpu.triton") == 2
    # What the planner counts, of 4 x 3 lanes. The backward has the hidden layers again, then the gradient of each
    # layer's kernel, then that of what went into the last two.
    account, hidden, heads = 8 * 16, 16 * 16, 16 * 4
    forward = account + hidden + heads
    backward = (account + hidden) + (account + hidden + heads) + (hidden + heads)
    for products in (forward, backward):
        assert f"f32 {2 * 4 * 3 * products}" in lowered
    assert "stablehlo.dot_general" not in lowered


def test_a_width_without_kernels_is_refused():
    with pytest.raises(ConfigError, match="trunk_width: with kernels fused it must be 16 or 32 or 64, got 48"):
        check_config(tiny_config(kernels="fused", trunk_width=48))
