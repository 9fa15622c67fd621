"""The network: what an output sees, every way of encoding, explicit references, initialisation and precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import BRACKETED, kept, random_tape
from jax.flatten_util import ravel_pytree

from jaxppo.agent.encoders import ENCODERS, receptive_field
from jaxppo.agent.policy import AgentSpec, distribution, init_params, make_agent
from jaxppo.config.schema import AgentConfig
from jaxppo.env.actions import action_mask, action_table
from jaxppo.errors import ConfigError
from jaxppo.market.tape import take_windows

WINDOW, FEATURES, ACCOUNT, ACTIONS, CHANNELS, WIDTH = 8, 5, 3, 4, 16, 12


def agent_spec(encoder: str, **changes) -> AgentSpec:
    config = AgentConfig(encoder=encoder, window=WINDOW, channels=CHANNELS, trunk_width=WIDTH)
    return AgentSpec(AgentConfig(**{**vars(config), **changes}), FEATURES, ACCOUNT, ACTIONS)


initial = jax.jit(init_params, static_argnums=0)


@kept
def built(encoder: str, **changes):
    """Parameters and the jitted functions `encode` and `decide` of an agent."""
    spec = agent_spec(encoder, **changes)
    agent = make_agent(spec)
    return initial(spec, jax.random.key(1)), jax.jit(agent.encode), jax.jit(agent.decide)


def named(encoder: str, params: jax.Array, **changes) -> dict:
    """The parameters of an agent by name."""
    return make_agent(agent_spec(encoder, **changes)).unravel(params)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def plus_one(x: np.ndarray, *index: int) -> np.ndarray:
    """A copy of `x` with 1 added at `index`."""
    x = x.copy()
    x[index] += 1.0
    return x


def affine(x, layer):
    return x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])


def relu(x):
    return np.maximum(x, 0.0)


def field(encoder: str) -> int:
    return receptive_field(agent_spec(encoder).config)


# --- encoders ---


@pytest.mark.parametrize("encoder", ENCODERS)
def test_one_output_for_each_full_receptive_field(encoder):
    params, encode, _ = built(encoder)
    assert field(encoder) == (1 if encoder == "none" else WINDOW)
    for n in (1, 7):
        out = encode(params, normal(0, 3, field(encoder) - 1 + n, FEATURES))
        assert out.shape == (3, n, WIDTH)
        assert out.dtype == jnp.float32


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_output_sees_its_receptive_field_and_nothing_else(encoder):
    params, encode, _ = built(encoder)
    reach = field(encoder)
    n = 2 * reach + 3
    x = normal(0, 2, reach - 1 + n, FEATURES)
    before = np.asarray(encode(params, x))
    for bar in range(x.shape[1]):
        after = np.asarray(encode(params, plus_one(x, 0, bar)))
        # Bar b is the newest that output b - (R - 1) sees and the oldest that output b sees.
        seen = (np.arange(n) >= bar - (reach - 1)) & (np.arange(n) <= bar)
        changed = (before[0] != after[0]).any(-1)
        np.testing.assert_array_equal(changed, seen, err_msg=f"bar {bar}")
        np.testing.assert_array_equal(before[1], after[1])  # the other path


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_path_and_the_whole_tape_are_encoded_to_the_same(encoder):
    """One path at a time, all decisions one by one, or the Tape at once: the same function of the bars."""
    params, encode, _ = built(encoder)
    reach, n = field(encoder), 5
    tape = random_tape(3, 2, 60, FEATURES, first=reach - 1)
    whole = np.asarray(encode(params, tape.features))  # (S, T - R + 1, H): row i decides at bar i + R - 1
    symbol, t = jnp.array([0, 1, 1, 0]), jnp.array([reach - 1, 20, 59 - n, 31])
    paths = encode(params, take_windows(tape, symbol, t - (reach - 1), reach - 1 + n))  # (P, n, H)
    for p in range(4):
        row = int(t[p]) - (reach - 1)
        np.testing.assert_allclose(paths[p], whole[int(symbol[p]), row : row + n], rtol=1e-5, atol=1e-5)
    alone = encode(params, take_windows(tape, symbol, t - (reach - 1), reach))  # (P, 1, H)
    np.testing.assert_allclose(alone[:, 0], paths[:, 0], rtol=1e-5, atol=1e-5)


def test_window_mlp_is_a_matrix_on_the_flattened_window():
    params, encode, _ = built("window_mlp")
    network = named("window_mlp", params)
    x = normal(2, 2, WINDOW + 9, FEATURES)
    windows = np.stack([x[:, i : i + WINDOW].reshape(2, -1) for i in range(10)], axis=1)  # (B, n, R F), oldest first
    flat = np.asarray(network["encoder"]["kernel"]).reshape(WINDOW * FEATURES, -1)
    hidden = relu(windows @ flat + np.asarray(network["encoder"]["bias"]))
    np.testing.assert_allclose(encode(params, x), affine(hidden, network["market"]), rtol=1e-5, atol=1e-5)


def test_tcn_is_a_stack_of_dilated_convolutions():
    params, encode, _ = built("tcn")
    network = named("tcn", params)
    x = normal(2, 2, WINDOW + 9, FEATURES)
    encoder = network["encoder"]
    dilated = functools.partial(
        jax.lax.conv_general_dilated, window_strides=(1,), padding="VALID", dimension_numbers=("NWC", "WIO", "NWC")
    )
    z = affine(x, encoder["embed"])
    for i, dilation in enumerate((1, 2, 4)):  # a reach of 1 + 1 + 2 + 4 bars
        layer = encoder["layers"][i]
        kernel = layer["kernel"].reshape(2, CHANNELS, CHANNELS)  # (past and now, in, out)
        conv = np.asarray(dilated(z, kernel, rhs_dilation=(dilation,)))
        z = (z[:, dilation:] + relu(conv + np.asarray(layer["bias"]))) / np.sqrt(2.0, dtype=np.float32)
    np.testing.assert_allclose(encode(params, x), affine(z, network["market"]), rtol=1e-5, atol=1e-5)


def test_no_encoder_shows_the_decision_bar():
    params, encode, _ = built("none")
    network = named("none", params)
    x = normal(2, 2, 4, FEATURES)
    np.testing.assert_allclose(encode(params, x), affine(x, network["market"]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("encoder", "window"), [("tcn", 0), ("tcn", 1), ("tcn", 48), ("window_mlp", 0)])
def test_a_window_that_an_encoder_cannot_have_is_refused(encoder, window):
    with pytest.raises(ConfigError, match=f"window: the {encoder} encoder .* got {window}"):
        make_agent(agent_spec(encoder, window=window))


# --- the trunk ---


def test_decide_is_the_same_for_a_step_and_for_a_rollout():
    params, _, decide = built("none")
    market, account = normal(3, 6, 2, WIDTH), normal(4, 6, 2, 3, ACCOUNT)  # (T, P, H), (T, P, L, A)
    logits, value = decide(params, market, account)
    assert logits.shape == (6, 2, 3, ACTIONS)
    assert value.shape == (6, 2, 3)
    for t in range(6):
        step_logits, step_value = decide(params, market[t], account[t])
        np.testing.assert_allclose(logits[t], step_logits, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(value[t], step_value, rtol=1e-5, atol=1e-6)


def test_a_lane_is_decided_from_its_path_and_its_own_account():
    params, _, decide = built("none")
    market, account = normal(3, 2, WIDTH), normal(4, 2, 3, ACCOUNT)
    _, value = decide(params, market, account)
    _, other = decide(params, market, plus_one(account, 1, 2))
    assert (np.asarray(value != other)).tolist() == [[False] * 3, [False, False, True]]
    _, other = decide(params, plus_one(market, 0), account)
    assert (np.asarray(value != other)).tolist() == [[True] * 3, [False] * 3]


def test_trunk_joins_market_and_account_in_its_first_layer():
    params, _, decide = built("none", trunk_layers=3)
    network = named("none", params, trunk_layers=3)
    market, account = normal(3, 2, WIDTH), normal(4, 2, 3, ACCOUNT)
    logits, value = decide(params, market, account)
    assert len(network["hidden"]) == 2
    x = relu(np.expand_dims(market, 1) + account @ np.asarray(network["account"]["kernel"]))
    for i in range(2):
        x = relu(affine(x, network["hidden"][i]))
    np.testing.assert_allclose(logits, affine(x, network["policy_head"]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(value, affine(x, network["value_head"])[..., 0], rtol=1e-4, atol=1e-6)


# --- parameters ---


def kernels(params, path=()):
    """(path, kernel) of every layer in nested parameters."""
    for name, value in params.items():
        if isinstance(value, dict):
            yield from kernels(value, (*path, name))
        elif name == "kernel":
            yield path, value


def expected_gain(path) -> float:
    return {"policy_head": 0.01, "value_head": 0.01, "embed": 1.0}.get(path[-1], 2.0**0.5)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_initialisation_is_orthogonal(encoder):
    params, _, _ = built(encoder)
    network = named(encoder, params)
    found = dict(kernels(network))
    assert {"market", "account", "hidden", "policy_head", "value_head"} <= {path[0] for path in found}
    assert len(found) == {"tcn": 4, "window_mlp": 1, "none": 0}[encoder] + 5
    for path, kernel in found.items():
        singular = np.linalg.svd(np.asarray(kernel).reshape(-1, kernel.shape[-1]), compute_uv=False)
        np.testing.assert_allclose(singular, expected_gain(path), rtol=1e-5, err_msg=str(path))
    leaves = jax.tree_util.tree_leaves_with_path(network)
    biases = [x for path, x in leaves if path[-1].key == "bias"]
    assert len(biases) == len(found) - 1  # the account's projection leaves it to the market's
    assert all((x == 0).all() for x in biases)


def test_init_can_be_vmapped_over_keys():
    spec = agent_spec("none")
    keys = jax.random.split(jax.random.key(7), 3)
    many = jax.jit(jax.vmap(lambda key: init_params(spec, key)))(keys)
    for i in range(3):
        alone = initial(spec, keys[i])
        jax.tree.map(lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-5, atol=1e-6), many, alone)
    for _, kernel in kernels(jax.vmap(make_agent(spec).unravel)(many)):
        assert len({np.asarray(k).tobytes() for k in kernel}) == 3


@pytest.mark.parametrize("encoder", ENCODERS)
def test_bfloat16_changes_matmuls_and_nothing_else(encoder):
    params, encode, decide = built(encoder)
    half_params, half_encode, half_decide = built(encoder, compute_dtype="bfloat16")
    jax.tree.map(np.testing.assert_array_equal, params, half_params)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(half_params))
    x, account = normal(2, 4, field(encoder), FEATURES), normal(3, 4, 2, ACCOUNT)
    assert half_encode(params, x).dtype == jnp.bfloat16
    logits, value = decide(params, encode(params, x)[:, 0], account)
    half_logits, half_value = half_decide(params, half_encode(params, x)[:, 0], account)
    assert half_logits.dtype == half_value.dtype == jnp.float32
    assert (half_value != value).any()
    # bfloat16 keeps 8 bits; a handful of layers each round by up to .4 % of numbers near 1.
    np.testing.assert_allclose(half_value, value, atol=0.05)
    np.testing.assert_allclose(half_logits, logits, atol=0.05 * 0.01)
    grads = jax.grad(lambda p: half_decide(p, half_encode(p, x)[:, 0], account)[1].sum())(params)
    assert all(g.dtype == jnp.float32 for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("logit", [1.0, 1e4, 1e8])
def test_the_mode_never_is_a_masked_action(logit):
    """A flat account of a market without shorts, whatever the network makes of selling."""
    table = action_table(BRACKETED)  # hold, buy, sell
    spec = AgentSpec(agent_spec("none").config, FEATURES, ACCOUNT, 3)
    agent = make_agent(spec)
    network = agent.unravel(initial(spec, jax.random.key(0)))
    network["policy_head"]["bias"] = jnp.array([0.0, -1.0, 2.0], jnp.float32) * logit
    params, _ = ravel_pytree(network)
    logits, _ = agent.decide(params, normal(3, 50, WIDTH), normal(4, 50, 2, ACCOUNT))
    free = distribution(logits, jnp.ones(logits.shape, bool)).mode()
    np.testing.assert_array_equal(free, 2)
    mask = action_mask(table, jnp.zeros((50, 2)), jnp.bool_(False))
    np.testing.assert_array_equal(distribution(logits, mask).mode(), 0)
