"""The fused TCN, its kernels interpreted on the CPU, against the plain path; an update with all kernels fused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_config, tiny_program, with_cuda_kernels

from jaxppo.agent import fused_tcn, fused_trunk
from jaxppo.agent.policy import Agent, AgentSpec, init_params, make_agent
from jaxppo.config.checks import check_config
from jaxppo.config.schema import AgentConfig
from jaxppo.errors import ConfigError
from jaxppo.ppo.state import hyper_from
from jaxppo.ppo.update import update


def agent(n_features: int = 5, **changes) -> Agent:
    config = AgentConfig(**{"kernels": "fused", "window": 8, "channels": 16, "trunk_width": 32, **changes})
    return make_agent(AgentSpec(config, n_features, 4, 3))


def plain(fused: Agent) -> Agent:
    return make_agent(fused.spec._replace(config=dataclasses.replace(fused.spec.config, kernels="plain")))


@pytest.fixture
def interpreted(monkeypatch):
    """Agents with fused kernels run them on the CPU."""
    encode, decide = fused_tcn.fused_encode, fused_trunk.fused_trunk
    monkeypatch.setattr(fused_tcn, "fused_encode", lambda *args: encode(*args, True))
    monkeypatch.setattr(fused_trunk, "fused_trunk", lambda *args: decide(*args, True))
    monkeypatch.setattr(jax.lax, "platform_dependent", with_cuda_kernels)


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def params_of(of: Agent) -> jax.Array:
    params = init_params(plain(of).spec, jax.random.key(1))
    return params + 0.1 * normal(3, *params.shape)  # biases begin at 0: as after training, they count


def both_ways(of: Agent, features: jax.Array):
    """The outputs, and the gradient in the parameters of a sum of them, each weighted by a number of its own."""

    def loss(params: jax.Array):
        market = of.encode(params, features).astype(jnp.float32)
        return jnp.sum(jnp.sin(market) * normal(7, *market.shape)), market

    gradient, market = jax.jit(jax.grad(loss, has_aux=True))(params_of(of))
    return market, gradient


def assert_close(ours, theirs, share: float) -> None:
    """To a share of the largest element of each array."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=share * float(jnp.abs(b).max()))


# Paths, bars decided on, features and configuration: rows that fill no chunk and divide into none; paths that are cut,
# the last piece shorter; rows of one chunk and of several.
SHAPES = {
    "one decision on two bars": (1, 1, 1, {"window": 2}),
    "no power of two": (5, 9, 17, {"channels": 32, "trunk_width": 16}),
    "longer than a piece": (3, 70, 3, {"window": 4}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_the_plain_path(interpreted, shape):
    paths, bars, n_features, changes = SHAPES[shape]
    fused = agent(n_features, **changes)
    features = normal(1, paths, fused.spec.config.window - 1 + bars, n_features)
    assert_close(both_ways(fused, features), both_ways(plain(fused), features), 1e-5)


def test_programs_take_several_paths(interpreted, monkeypatch):
    """One after another where nothing is kept for a gradient, layer by layer for it; and one less than there are."""
    monkeypatch.setattr(fused_tcn, "_FORWARD_PROGRAMS", 2)
    monkeypatch.setattr(fused_tcn, "_BACKWARD_PROGRAMS", 2)
    fused, features = agent(window=4), normal(1, 5, 6, 5)
    market, gradient = both_ways(plain(fused), features)
    assert_close(both_ways(fused, features), (market, gradient), 1e-5)
    assert_close(jax.jit(fused.encode)(params_of(fused), features), market, 1e-5)


def test_bfloat16_is_as_near_to_float32_as_the_plain_path_is(interpreted):
    """By root mean squares: to 5 % at most, which is the gradient (relus that flip), or half as far again."""
    features = normal(1, 40, 12, 5)
    exact = both_ways(plain(agent()), features)
    fused = agent(compute_dtype="bfloat16")
    ours, theirs = both_ways(fused, features), both_ways(plain(fused), features)
    for a, b, true in zip(ours, theirs, exact, strict=True):
        far, plainly = (float(jnp.linalg.norm(x - true) / jnp.linalg.norm(true)) for x in (a, b))
        assert far <= 0.05
        assert far <= 1.5 * plainly


def test_members_encode_as_they_do_alone(interpreted):
    """Under vmap the kernels get an axis of members."""
    fused, features = agent(window=4), normal(1, 3, 6, 5)
    members = jnp.stack([params_of(fused), 0.5 * params_of(fused)])
    ours = jax.jit(jax.vmap(fused.encode, (0, None)))(members, features)
    assert_close(ours, jax.jit(jax.vmap(plain(fused).encode, (0, None)))(members, features), 1e-5)


def updated(kernels: str):
    """Parameters and metrics after an update of a tiny run."""
    config = tiny_config(kernels=kernels, trunk_width=16, channels=16, window=4, epochs=1)
    program, tape, _ = tiny_program(config)
    hyper = hyper_from(config)
    state = program.init(jax.random.key(0), hyper, tape)
    after, metrics = jax.jit(lambda s: update(s, tape, program.spec, hyper))(state)
    return after.params - state.params, metrics


def test_an_update_is_the_same(interpreted):
    ours, theirs = updated("fused"), updated("plain")
    assert float(jnp.abs(theirs[0]).max()) > 1e-5  # it moved
    assert_close(ours[0], theirs[0], 1e-5)
    for name, metric in theirs[1].items():  # an approximate KL is 2e-9 here
        np.testing.assert_allclose(ours[1][name], metric, rtol=1e-4, atol=1e-7, err_msg=name)


def test_on_the_device_at_hand_it_is_the_plain_path():
    """On a GPU by the kernels; on any other to the last bit, since there it takes the plain path."""
    fused, features = agent(53, channels=32, trunk_width=64), normal(1, 5, 71, 53)
    with jax.default_matmul_precision("highest"):
        ours, theirs = both_ways(fused, features), both_ways(plain(fused), features)
    assert_close(ours, theirs, 1e-5 if jax.default_backend() == "gpu" else 0.0)


@pytest.mark.skipif(jax.__version_info__ >= (0, 11), reason="from jax 0.11 on lowering needs the CUDA plugin")
def test_a_gpu_gets_two_kernels_for_value_and_gradient():
    fused, features = agent(window=4), normal(1, 3, 6, 5)
    gradient = jax.jit(jax.value_and_grad(lambda params: fused.encode(params, features).sum()))
    lowered = gradient.trace(params_of(fused)).lower(lowering_platforms=("cuda",)).as_text()
    assert lowered.count("__gpu$xla.gpu.triton") == 2
    # What the planner counts, of 3 paths: 6 rows embedded, 5 and 3 through the convolutions, 3 projected. The backward
    # has the convolutions again, then each kernel's gradient, then that of what went into all but the first.
    embed, layers, market = 6 * 5 * 16, (5 + 3) * 32 * 16, 3 * 16 * 32
    forward = embed + layers + market
    backward = layers + (embed + layers + market) + ((6 + 5) * 32 * 16 + market)
    for products in (forward, backward):
        assert f"f32 {2 * 3 * products}" in lowered
    assert "stablehlo.dot_general" not in lowered


def test_channels_without_kernels_are_refused():
    fused = {"kernels": "fused", "trunk_width": 16}
    with pytest.raises(ConfigError, match="channels: with kernels fused it must be 16 or 32, got 64"):
        check_config(tiny_config(channels=64, **fused))
    check_config(tiny_config(channels=64, encoder="window_mlp", **fused))
