"""The step size against its closed form in float64, on the count that the optimizer keeps."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxppo.ppo.schedule import cost_share, entropy_coefficient, per_gradient_step, warmup_cosine

BUDGETS = (1, 2, 19, 20, 40, 477, 1000)
# The bar for the float32 schedule that the program runs; the float64 run of the same code is held to rounding.
FLOAT32_RTOL = 1e-6


def closed_form(k, n):
    """Fraction of the peak step size at update k of n."""
    warmup = max(1, int(0.05 * n))
    if k < warmup:
        return 0.1 + 0.9 * k / warmup
    return 0.01 + 0.99 * (1.0 + math.cos(math.pi * (k - warmup) / max(1, n - warmup))) / 2.0


def table(n):
    return np.array([closed_form(k, n) for k in range(n)])


@pytest.mark.parametrize("n", BUDGETS)
def test_every_update_equals_the_closed_form(n):
    got = jax.jit(jax.vmap(warmup_cosine(n)))(jnp.arange(n, dtype=jnp.int32))
    np.testing.assert_allclose(got, table(n), rtol=FLOAT32_RTOL)


@pytest.mark.parametrize("n", [19, 40, 477, 1000])
def test_in_float64_it_equals_the_closed_form_to_rounding(n):
    with jax.enable_x64(True):
        got = np.asarray(jax.jit(jax.vmap(warmup_cosine(n)))(jnp.arange(n, dtype=jnp.int64)))
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, table(n), rtol=1e-12)


@pytest.mark.parametrize(
    ("k", "rate"),
    [
        (0, 3.000000e-05),
        (1, 4.173913e-05),
        (22, 2.882609e-04),
        (23, 3.000000e-04),
        (238, 1.638169e-04),
        (476, 3.003555e-06),
    ],
)
def test_listed_values_of_the_production_budget(k, rate):
    with jax.enable_x64(True):
        assert float(3e-4 * warmup_cosine(477)(jnp.int64(k))) == pytest.approx(rate, rel=1e-6)
    assert float(3e-4 * warmup_cosine(477)(jnp.int32(k))) == pytest.approx(rate, rel=FLOAT32_RTOL)


@pytest.mark.parametrize(("n", "warmup"), [(1, 1), (19, 1), (39, 1), (40, 2), (477, 23), (1000, 50)])
def test_the_peak_is_reached_after_one_twentieth_of_the_updates(n, warmup):
    schedule = warmup_cosine(n)
    assert float(schedule(jnp.int32(warmup))) == pytest.approx(1.0)
    assert float(schedule(jnp.int32(warmup - 1))) < 1.0


@pytest.mark.parametrize("n", [19, 40, 477])
@pytest.mark.parametrize(("epochs", "minibatches"), [(4, 4), (3, 16), (1, 1)])
def test_it_moves_once_per_update_on_the_optimizers_own_count(n, epochs, minibatches):
    """An optimizer counts epochs x minibatches steps an update; all of them take the update's step size."""
    steps = epochs * minibatches
    optimizer = optax.scale_by_schedule(per_gradient_step(warmup_cosine(n), steps))

    def step(state, _):
        taken, state = optimizer.update(jnp.ones(()), state)
        return state, taken

    _, taken = jax.jit(lambda: jax.lax.scan(step, optimizer.init(jnp.ones(())), length=n * steps))()
    expected = np.array([closed_form(i // steps, n) for i in range(n * steps)])
    np.testing.assert_allclose(taken, expected, rtol=FLOAT32_RTOL)


def coefficient(update, n, start=0.05, end=0.005, anneal=0.3):
    return float(entropy_coefficient(jnp.int32(update), n, *(jnp.float32(x) for x in (start, end, anneal))))


def test_entropy_coefficient_by_hand():
    # .3 of 10 updates are 3; a step is (.05 - .005) / 3 = .015.
    got = [coefficient(k, 10) for k in range(6)]
    np.testing.assert_allclose(got, [0.05, 0.035, 0.02, 0.005, 0.005, 0.005], rtol=1e-5)


def test_entropy_coefficient_can_rise_and_can_stay():
    # Half of 4 updates are 2: 0, .01, .02.
    np.testing.assert_allclose([coefficient(k, 4, 0.0, 0.02, 0.5) for k in range(4)], [0, 0.01, 0.02, 0.02], rtol=1e-5)
    assert [coefficient(k, 4, 0.01, 0.01, 1.0) for k in range(5)] == pytest.approx([0.01] * 5)


def test_entropy_coefficient_without_annealing_is_the_end_from_the_second_update_on():
    assert [coefficient(k, 100, anneal=0.0) for k in range(3)] == pytest.approx([0.05, 0.005, 0.005])


def charged(update, n, anneal):
    return float(cost_share(jnp.int32(update), n, jnp.float32(anneal)))


def test_cost_share_by_hand():
    # .5 of the 8 updates after the first are 4: a quarter more at each, then all.
    assert [charged(k, 9, 0.5) for k in range(9)] == [0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


def test_the_last_update_charges_all_costs_whatever_the_share():
    for n in (2, 3, 10, 477):
        assert charged(0, n, 1.0) == 0
        assert charged(n - 1, n, 1.0) == 1


def test_without_annealing_and_in_a_run_of_one_update_all_costs_are_charged():
    assert [charged(k, 10, 0.0) for k in (0, 1, 9)] == [1, 1, 1]
    assert charged(0, 1, 0.8) == 1
