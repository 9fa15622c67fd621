"""Probabilistic and deflated Sharpe against the closed form and the papers; bootstrap intervals."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxppo.play.formulas import Moments, moments
from jaxppo.play.significance import (
    bootstrap,
    curve_moments,
    deflated_sharpe,
    expected_max_sharpe,
    probabilistic_sharpe,
    resampled_bars,
)


def closed_form(r, benchmark=0.0):
    ratio, n = r.mean() / r.std(ddof=1), len(r)
    skew, kurtosis = stats.skew(r), stats.kurtosis(r, fisher=False)
    spread = 1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2
    return stats.norm.cdf((ratio - benchmark) * math.sqrt((n - 1) / spread))


@pytest.mark.parametrize("seed", range(3))
def test_probabilistic_sharpe_is_the_closed_form(seed):
    r = 0.0005 + 0.01 * np.random.default_rng(seed).standard_t(5, 400)
    m = moments(jnp.asarray(r, jnp.float32), jnp.ones(400, bool))
    assert float(probabilistic_sharpe(m)) == pytest.approx(closed_form(r), abs=1e-4)
    assert float(probabilistic_sharpe(m, 0.02)) == pytest.approx(closed_form(r, 0.02), abs=1e-4)


def test_deflated_sharpe_of_the_paper():
    # Bailey and Lopez de Prado (2014): Sharpe 2.5 a year of 250 bars, 5 years, skew -3, kurtosis 10, 100 trials of
    # variance 1/2 a year: the expected best is .1132 a bar, and the deflated Sharpe ratio .9004.
    n, ratio = 1250.0, 2.5 / math.sqrt(250)
    luck = expected_max_sharpe(100.0, math.sqrt(0.5 / 250))
    assert float(luck) == pytest.approx(0.1132, abs=1e-4)
    variance = (n - 1) / n  # so that the deviation with ddof 1 is 1
    m = Moments(*(jnp.float32(x) for x in (n, ratio, variance, -3 * variance**1.5, 10 * variance**2)))
    assert float(probabilistic_sharpe(m, luck)) == pytest.approx(0.9004, abs=3e-4)


def test_expected_best_of_skill_less_trials_by_simulation():
    best = np.random.default_rng(0).normal(size=(20_000, 10)).max(1).mean()
    assert float(expected_max_sharpe(10.0, 1.0)) == pytest.approx(best, rel=0.03)  # 1.57, 1.54
    assert float(expected_max_sharpe(1.0, 1.0)) == 0


def test_deflation_by_one_trial_is_none():
    m = moments(jnp.asarray(np.random.default_rng(1).normal(0.01, 1, 300), jnp.float32), jnp.ones(300, bool))
    assert float(deflated_sharpe(m, 1.0)) == float(probabilistic_sharpe(m))
    assert float(deflated_sharpe(m, 10.0)) < float(probabilistic_sharpe(m))


def test_undefined_without_moves():
    assert np.isnan(float(probabilistic_sharpe(moments(jnp.zeros(10), jnp.ones(10, bool)))))


def test_a_ruined_curve_has_a_sharpe_ratio_and_returns_nothing_after_it():
    # Returns 10 %, -100 %, then none: a mean of -.9 / 4.
    m = curve_moments(np.array([1.1, 0.0, 0.0, 0.0]))
    assert float(m.mean) == pytest.approx(-0.225)
    assert float(m.n) == 4
    assert 0 < float(probabilistic_sharpe(m)) < 0.5
    assert float(deflated_sharpe(m, 5.0)) < float(probabilistic_sharpe(m))


def test_resampled_bars_are_blocks_of_the_cube_root():
    bars = np.asarray(resampled_bars(jax.random.key(0), jnp.int32(1000), 1000))
    assert ((bars >= 0) & (bars < 1000)).all()
    jumps = (np.diff(bars) % 1000 != 1).mean()
    assert jumps == pytest.approx(0.1, abs=0.03)  # 1000^(-1/3); 3 deviations are .028


def test_bootstrap_of_a_steady_curve_has_no_width():
    equity = jnp.asarray(1.01 ** np.arange(1, 41), jnp.float32)
    got = jax.jit(bootstrap, static_argnames="draws")(
        equity, jnp.float32(1), jnp.ones(40, bool), jnp.float32(40), jax.random.key(0), draws=20
    )
    assert float(got.net_return.low) == pytest.approx(1.01**40 - 1, rel=1e-3)
    assert float(got.net_return.high) == pytest.approx(1.01**40 - 1, rel=1e-3)
    assert float(got.max_drawdown.high) == 0


@pytest.mark.parametrize(
    ("curve", "low", "high"),
    [
        ([1.0], 0.0, 0.0),
        ([1.0] * 30, 0.0, 0.0),
        ([0.1] * 30, -1.0, 0.0),  # the bar of -90 % is drawn some times and not at others
        ([0.0] * 30, -1.0, 0.0),
        ([-0.5] * 30, -1.0, 0.0),  # less than nothing is lost but once
    ],
)
def test_bootstrap_of_curves_without_moves_and_of_ruined_ones(curve, low, high):
    n = len(curve)
    got = jax.jit(bootstrap, static_argnames="draws")(
        jnp.asarray(curve, jnp.float32),
        jnp.float32(1),
        jnp.ones(n, bool),
        jnp.float32(252),
        jax.random.key(0),
        draws=50,
    )
    assert np.isfinite(got).all()
    assert low <= float(got.net_return.low) <= float(got.net_return.high) <= high
    assert 0 <= float(got.max_drawdown.low) <= float(got.max_drawdown.high) <= 1


def test_probabilistic_sharpe_of_a_ruin_on_the_first_bar():
    m = moments(jnp.asarray([-0.9] + [0.0] * 29, jnp.float32), jnp.ones(30, bool))
    # Skew and kurtosis of one outlier of 30 are far from normal, which leaves the verdict open: .5 is no evidence.
    assert float(probabilistic_sharpe(m)) == pytest.approx(closed_form(np.array([-0.9] + [0.0] * 29)), abs=1e-4)
    assert float(probabilistic_sharpe(m)) < 0.5
    assert np.isnan(float(probabilistic_sharpe(moments(jnp.asarray([0.1]), jnp.ones(1, bool)))))
