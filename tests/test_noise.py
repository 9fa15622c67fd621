"""Weight decay, dropout and noise on features: what they change, and that off they change nothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import tiny_config, tiny_program

from jaxppo.agent.policy import AgentSpec, init_params, make_agent
from jaxppo.config.schema import AgentConfig
from jaxppo.ppo.noise import PathNoise, draw_noise, noisy
from jaxppo.ppo.state import Learned, Moments, hyper_from
from jaxppo.ppo.update import adam_step, update

SPEC = AgentSpec(AgentConfig(encoder="tcn", window=2, channels=4, trunk_width=8), 3, 2, 3)
PATHS = 5


@pytest.fixture(scope="module")
def agent():
    return make_agent(SPEC), init_params(SPEC, jax.random.key(0))


def keys(n=PATHS, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_weight_decay_is_that_of_optax():
    config = tiny_config(n_updates=10, learning_rate=0.01, weight_decay=0.1)
    hyper = hyper_from(config)
    params, grads = normal(0, 6), normal(1, 6)
    # Of the warm-up's 1 update the first has .1 of the rate.
    reference = optax.chain(
        optax.clip_by_global_norm(config.ppo.max_grad_norm), optax.adamw(0.1 * 0.01, eps=1e-5, weight_decay=0.1)
    )
    with jax.numpy_dtype_promotion("standard"):
        move, _ = reference.update(grads, reference.init(params), params)
    learned = Learned(params, Moments(jnp.zeros(6), jnp.zeros(6), jnp.int32(0)))
    after, _ = adam_step(learned, grads, jnp.int32(0), config, hyper)
    np.testing.assert_allclose(after.params, params + move, rtol=1e-6)
    without, _ = adam_step(learned, grads, jnp.int32(0), config, hyper._replace(weight_decay=jnp.float32(0)))
    np.testing.assert_allclose(without.params - after.params, 0.001 * 0.1 * params, rtol=1e-2)


def test_dropout_drops_units_of_a_path_at_all_its_bars_and_keeps_the_mean(agent):
    network, params = agent
    kept = network.draw_kept(params, keys(4000), 0.25)
    assert kept.encoder.shape == (4000, 4)
    assert kept.hidden.shape == (4000, 2, 8)
    for factors in kept:
        assert np.unique(factors).tolist() == [0.0, pytest.approx(4 / 3)]
        assert float(factors.mean()) == pytest.approx(1.0, abs=0.02)  # 16,000 draws: five of sqrt(1/3 / 16,000)


def test_dropout_of_the_encoder_is_a_product_of_what_it_says(agent):
    network, params = agent
    features = normal(1, PATHS, 4, 3)
    kept = network.draw_kept(params, keys(), 0.5)
    whole, market = network.unravel(params), network.unravel(params)["market"]
    assert whole["market"]["kernel"].shape == (4, 8)
    # A unit that is dropped has a factor of 0: as if its row of the projection were 0, and the others' were doubled.
    for path in range(PATHS):
        kernel = market["kernel"] * kept.encoder[path].reshape(4, 1)
        altered = jax.flatten_util.ravel_pytree({**whole, "market": {**market, "kernel": kernel}})[0]
        np.testing.assert_allclose(
            network.dropping(kept).encode(params, features)[path],
            network.encode(altered, features[path : path + 1])[0],
            rtol=1e-5,
            atol=1e-6,
        )


def test_dropped_hidden_units_move_nothing(agent):
    network, params = agent
    kept = network.draw_kept(params, keys(), 0.5)
    market, observation = normal(2, 6, PATHS, 8), normal(3, 6, PATHS, 7, 2)
    dropped = network.dropping(kept)
    logits, value = dropped.decide(params, market, observation)
    # Changing what feeds a dropped unit of the first layer changes nothing; the same change without dropout does.
    off = (kept.hidden[:, 0] == 0).astype(jnp.float32)
    moved = market + 3.0 * jnp.expand_dims(off, 0)
    for a, b in zip(dropped.decide(params, moved, observation), (logits, value), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(np.asarray(network.decide(params, moved, observation)[0] - logits)).max() > 0.001
    # Paths are the last leading axis: one path alone is decided on alike.
    alone = network.dropping(jax.tree.map(lambda x: x[2:3], kept))
    np.testing.assert_allclose(
        alone.decide(params, market[:, 2:3], observation[:, 2:3])[0], logits[:, 2:3], rtol=1e-5, atol=1e-6
    )


def test_noise_on_features_is_the_paths_own_and_the_same_for_fewer_bars(agent):
    network, params = agent
    config = tiny_config(feature_noise=0.5, n_envs=1600)
    noise = draw_noise(network, params, jax.random.key(3), config)
    assert noise.kept is None
    features = normal(4, config.n_paths, 9, 3)
    added = noisy(features, noise, 9, 0.5) - features
    assert float(added.std()) == pytest.approx(0.5, rel=0.03)  # of 10,800
    assert float(added.mean()) == pytest.approx(0.0, abs=0.025)
    chosen = jnp.array([7, 3])
    some = noisy(features[chosen, :8], jax.tree.map(lambda x: x[chosen], noise), 9, 0.5)
    np.testing.assert_allclose(some - features[chosen, :8], added[chosen, :8], atol=1e-6)
    assert noisy(features, PathNoise(), 9, 0.5) is features
    assert draw_noise(network, params, jax.random.key(3), tiny_config()) == PathNoise()


def first_update(**changes):
    config = tiny_config(**changes)
    program, tape, data = tiny_program(config)
    hyper = hyper_from(config)
    state = jax.jit(program.init)(jax.random.key(0), hyper, tape)
    after, metrics = jax.jit(lambda s: update(s, tape, program.spec, hyper))(state)
    return program, data, state, after, metrics


@pytest.mark.parametrize(
    ("advantages", "encoder"),
    [
        ("gae", "tcn"),
        ("counterfactual", "none"),
        pytest.param("gae", "none", marks=pytest.mark.slow),
        pytest.param("counterfactual", "tcn", marks=pytest.mark.slow),
    ],
)
def test_the_loss_sees_the_policy_that_acted(encoder, advantages):
    """With one minibatch of one epoch nothing has moved yet: a ratio of 1, for all the noise."""
    changes = {"encoder": encoder, "advantages": advantages, "epochs": 1, "minibatches": 1}
    *_, metrics = first_update(dropout=0.3, feature_noise=0.5, **changes)
    assert float(metrics["approx_kl"]) == pytest.approx(0.0, abs=1e-8)
    assert float(metrics["clip_fraction"]) == 0


@pytest.mark.slow
def test_noise_changes_training_and_no_validation():
    program, data, state, plain, _ = first_update()
    dropping, _, begun, noisy_, _ = first_update(dropout=0.3, feature_noise=0.5)
    np.testing.assert_array_equal(state.params, begun.params)
    assert np.abs(np.asarray(plain.params - noisy_.params)).max() > 0
    returns = [
        jax.jit(lambda s, p=p: p.segment(s, hyper_from(p.spec.config), data.tape, data, jnp.int32(0))[1].score)(plain)
        for p in (program, dropping)
    ]
    np.testing.assert_array_equal(*(r.figures.symbols.net_return for r in returns))


@pytest.mark.slow
def test_each_member_of_an_ensemble_learns_from_the_policy_that_acted():
    config = tiny_config(seeds=2, dropout=0.3, feature_noise=0.5, epochs=1, minibatches=1)
    program, tape, data = tiny_program(config)
    hyper = hyper_from(config)
    start = jax.jit(program.init)(jax.random.key(0), hyper, tape)
    after, out = jax.jit(program.segment)(start, hyper, tape, data, jnp.int32(1))
    assert float(out.updates["approx_kl"][0]) == pytest.approx(0.0, abs=1e-8)
    assert (np.abs(np.asarray(after.params - start.params)).max(axis=1) > 0).all()
