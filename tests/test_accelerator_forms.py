"""What accelerators compute in another form than a CPU: each form against the plain one, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import as_an_accelerator, tiny_config, tiny_program, with_cuda_kernels
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxppo.agent import categorical, fusible
from jaxppo.packed import packed_scan, packing_of, sums
from jaxppo.ppo.state import hyper_from
from jaxppo.ppo.update import update


@pytest.fixture(autouse=True)
def accelerated(monkeypatch):
    monkeypatch.setattr(jax.lax, "platform_dependent", as_an_accelerator)


def numbers(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


LOGITS = numbers(0, 5, 4, 3).at[0, 0, 1].set(-1e9)  # one action is masked


def gradient(function):
    """Of a sum with unequal weights, so that no gradient is all ones."""
    return jax.grad(lambda x: (function(x) * jnp.arange(1.0, 1.0 + function(x).size).reshape(function(x).shape)).sum())


def test_log_softmax_is_that_of_jax():
    plain = jax.nn.log_softmax
    np.testing.assert_allclose(categorical.log_softmax(LOGITS), plain(LOGITS), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(gradient(categorical.log_softmax)(LOGITS), gradient(plain)(LOGITS), rtol=1e-4, atol=1e-4)


def test_log_prob_and_entropy_are_gathers_and_sums():
    log_probs = jax.nn.log_softmax(numbers(1, 6, 4))
    action = jnp.array([0, 1, 2, 3, 3, 0], jnp.int32)

    def gathered(x):
        return jnp.take_along_axis(x, jnp.expand_dims(action, -1), axis=-1)[:, 0]

    def chosen(x):
        return categorical.log_prob(x, action)

    np.testing.assert_array_equal(chosen(log_probs), gathered(log_probs))
    np.testing.assert_array_equal(gradient(chosen)(log_probs), gradient(gathered)(log_probs))
    # Of (1/2, 1/4, 1/4): .5 log 2 + .5 log 4 = 1.5 log 2.
    np.testing.assert_allclose(categorical.entropy(jnp.log(jnp.array([0.5, 0.25, 0.25]))), 1.5 * np.log(2), rtol=1e-6)


@pytest.mark.parametrize(("uniform", "action"), [(0.0, 0), (0.499, 0), (0.5, 2), (0.999, 2)])
def test_a_draw_inverts_the_cumulative_distribution(uniform, action):
    log_probs = jax.nn.log_softmax(jnp.array([0.0, -1e9, 0.0]))  # a half, masked, a half
    assert int(categorical.sample(log_probs, jnp.float32(uniform))) == action


@pytest.mark.parametrize("few", [fusible.from_few, lambda x, k: fusible.to_few(x, k.T)])
def test_products_with_a_narrow_side(few):
    x, kernel = numbers(2, 7, 8), numbers(3, 8, 5)
    for argument in (0, 1):

        def of(function, a=argument):
            return gradient(lambda v: function(*(v if i == a else (x, kernel)[i] for i in (0, 1))))((x, kernel)[a])

        np.testing.assert_allclose(of(few), of(jnp.matmul), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(few(x, kernel), x @ kernel, rtol=1e-5, atol=1e-5)


def test_relu_passes_nothing_back_at_and_below_zero():
    x = jnp.array([-1.0, 0.0, 2.0])
    np.testing.assert_array_equal(fusible.relu(x), [0.0, 0.0, 2.0])
    np.testing.assert_array_equal(jax.grad(lambda v: (3 * fusible.relu(v)).sum())(x), [0.0, 0.0, 3.0])


def test_sums_of_several_arrays_are_those_of_each():
    arrays = [numbers(seed, 2, 3, 4) for seed in range(3)]
    np.testing.assert_allclose(sums(arrays, 2), [[a.sum() for a in x] for x in arrays], rtol=1e-5)


KINDS = st.sampled_from([jnp.float32, jnp.int32, jnp.bool_, jnp.uint32, jnp.float16])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(KINDS, st.sampled_from([(), (2,), (2, 3)])), min_size=1, max_size=6))
def test_what_is_packed_comes_out_as_it_was(kinds):
    tree = {str(i): jnp.abs(10 * numbers(i, *shape)).astype(dtype) for i, (dtype, shape) in enumerate(kinds)}
    packing = packing_of(tree)
    back = packing.unpack(packing.pack(tree))
    for name, x in tree.items():
        assert back[name].dtype == x.dtype
        np.testing.assert_array_equal(back[name], x)
    assert len(packing.pack(tree)) == len({(dtype == jnp.float16, shape) for dtype, shape in kinds})


def test_a_packed_scan_is_a_scan():
    def body(carry, row):
        total, seen, n = carry
        total = total + row
        return (total, seen | (row > 1), n + 1), {"total": total, "twice": 2 * row, "n": n, "large": row > 0}

    start = (jnp.zeros(3), jnp.zeros(3, bool), jnp.zeros((), jnp.int32))
    rows = numbers(4, 5, 3)
    plain, packed = jax.lax.scan(body, start, rows), packed_scan(body, start, rows)
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(packed), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert jax.tree.structure(plain) == jax.tree.structure(packed)


def test_an_update_is_that_of_a_cpu(monkeypatch):
    program, tape, _ = tiny_program(tiny_config())
    hyper = hyper_from(program.spec.config)
    state = jax.jit(program.init)(jax.random.key(0), hyper, tape)

    def one(name):  # a function of its own each time, so that nothing is taken from jit's cache
        with monkeypatch.context() as patch:
            patch.setattr(jax.lax, "platform_dependent", name)
            return jax.jit(lambda s: update(s, tape, program.spec, hyper))(state)

    (ours, told), (theirs, expected) = one(as_an_accelerator), one(with_cuda_kernels)
    np.testing.assert_allclose(ours.params, theirs.params, rtol=0, atol=1e-4)
    assert not np.array_equal(ours.params, state.params)
    assert told.keys() == expected.keys()
    for name, value in told.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-3, atol=1e-4, err_msg=name)
