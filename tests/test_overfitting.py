"""Backtest overfitting by hand, on noise and with a trial that is truly better; rank correlation against scipy."""

from __future__ import annotations

import doctest
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxppo.errors import ConfigError
from jaxppo.play import overfitting
from jaxppo.play.overfitting import backtest_overfitting, rank_correlation, ranks


def test_examples():
    assert doctest.testmod(overfitting).failed == 0


def test_four_blocks_by_hand():
    # Blocks of two days, m - d and m + d: a block's mean is m, and over two blocks of means p and q the mean of four
    # days is (p + q) / 2 and their variance, ddof 1, (4 d^2 + (p - q)^2) / 3. With d = 3 for all:
    # trial A has means 6, 0, 0, 0 and trial B 0, 1, 1, 1.
    means = np.array([[6.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    returns = np.repeat(means, 2, axis=0) + np.tile([-3.0, 3.0], 4)[:, None]
    # Halves with block 0: A has 3 / sqrt((36 + 36) / 3) = .612, B .5 / sqrt((36 + 1) / 3) = .142. So A is chosen, and
    # on the other half A has 0 and B 1 / sqrt(36 / 3) = .289: rank 1 of 2, w = 1/3, logit log(1/2) = -.693.
    # The three without it choose B, .289 against 0, and on the other half A has .612 and B .142: rank 1 again.
    found = backtest_overfitting(returns, blocks=4)
    assert found.chosen.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_allclose(found.logits, math.log(0.5))
    np.testing.assert_allclose(found.inside, [3 / math.sqrt(24)] * 3 + [1 / math.sqrt(12)] * 3)
    np.testing.assert_allclose(found.outside, [0.0] * 3 + [0.5 / math.sqrt(37 / 3)] * 3, atol=1e-12)
    assert (found.probability, found.loss_probability) == (1.0, 0.0)
    # Two points, (.612, 0) and (.289, .142): the slope through both.
    want = (0.5 / math.sqrt(37 / 3)) / (1 / math.sqrt(12) - 3 / math.sqrt(24))
    assert found.slope == pytest.approx(want)


def test_the_vectorised_splits_are_those_of_a_loop():
    returns = np.random.default_rng(0).normal(0.02, 1, (61, 5))
    found = backtest_overfitting(returns, blocks=6)
    parts = returns[1:].reshape(6, 10, 5)
    logits = []
    for half in itertools.combinations(range(6), 3):
        rest = [b for b in range(6) if b not in half]
        inside, outside = (np.concatenate(parts[list(b)]) for b in (half, rest))
        own, other = (x.mean(0) / x.std(0, ddof=1) for x in (inside, outside))
        w = stats.rankdata(other)[own.argmax()] / 6
        logits.append(math.log(w / (1 - w)))
    np.testing.assert_allclose(found.logits, logits, atol=1e-9)


def test_noise_overfits_half_the_time_and_a_better_trial_does_not():
    rng = np.random.default_rng(1)
    noise = [backtest_overfitting(rng.normal(0, 1, (480, 20))).probability for _ in range(20)]
    # One of noise is far from .5, as its splits share their days; the mean of 20 has a deviation of about .05.
    assert np.mean(noise) == pytest.approx(0.5, abs=0.15)
    returns = rng.normal(0, 1, (480, 20))
    returns[:, 7] += 0.5
    found = backtest_overfitting(returns)
    assert len(found.logits) == 12_870
    assert (found.chosen == 7).mean() > 0.99
    assert found.probability < 0.01
    assert found.loss_probability < 0.01


def test_trials_that_never_move_have_a_sharpe_ratio_of_0_and_share_ranks():
    found = backtest_overfitting(np.zeros((32, 3)))
    np.testing.assert_allclose(found.logits, 0.0)  # rank 2 of 3
    assert math.isnan(found.slope)


@pytest.mark.parametrize(
    ("shape", "blocks", "says"),
    [((100, 1), 16, "at least 2, got 1"), ((100, 3), 5, "even number from 2, got 5"), ((20, 3), 16, "32 days, .* 20")],
)
def test_what_cannot_be_split_is_refused(shape, blocks, says):
    with pytest.raises(ConfigError, match=says):
        backtest_overfitting(np.ones(shape), blocks)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=12))
def test_rank_correlation_is_scipys(pairs):
    a, b = np.array(pairs, np.float64).T
    np.testing.assert_allclose(ranks(a), stats.rankdata(a))
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert math.isnan(rank_correlation(a, b))
    else:
        assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)


def test_rank_correlation_leaves_out_what_is_not_known():
    nan = math.nan
    assert rank_correlation(np.array([1, 2, 3, nan]), np.array([3.0, 2, 1, 9])) == pytest.approx(-1)
    assert math.isnan(rank_correlation(np.array([1.0, 2.0]), np.array([1.0, 2.0])))
