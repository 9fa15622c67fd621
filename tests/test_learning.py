"""Does it learn? `benchmarks/learning.py` at a twentieth of its budget: an edge is found, and none is imagined."""

import dataclasses

import pytest

from benchmarks.learning import TASKS, Score, run
from jaxppo.market.planted import dp_oracle

# 123,000 steps, which seeds 0 to 2 turned into 98.4 to 99 % of the oracle; every task shares one compilation.
SMALL = {
    "n_envs": 256,
    "lanes": 8,
    "minibatches": 8,
    "learning_rate": 2e-3,
    "n_updates": 15,
    "validate_every": 15,
    "encoder": "none",
}
FRESH_SYMBOLS = 16


def small_run(name: str, seed: int, **changes) -> Score:
    return run(dataclasses.replace(TASKS[name], **changes), seed, n_bars=10_000, n_symbols=4, **SMALL)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_observed_signal_earns_nine_tenths_of_the_oracle_on_fresh_data(seed):
    score = small_run("observed", seed)
    assert score.oracle > 10  # basis points a bar, net
    assert score.share > 0.9
    # What it follows is the signal: far beyond the luck of the draw, at hundreds of trades.
    assert score.policy > 10 * score.policy_error
    assert score.trades > 500


@pytest.mark.slow
def test_counterfactual_advantages_find_the_signal_too():
    score = run(TASKS["observed"], 0, n_bars=10_000, n_symbols=4, **SMALL, advantages="counterfactual")
    assert score.share > 0.9
    assert score.trades > 500


def test_a_cost_above_the_edge_is_not_paid():
    # All that a signal of 4 deviations still has to pay is .002 * 4 / (1 - .5) = 1.6 %: less than the 2 % to enter.
    expensive = {"phi": 0.5, "cost": 0.02}
    assert (dp_oracle(edge=0.002, noise=0.005, **expensive).target[:, 1] == 1).all()  # flat stays flat
    score = small_run("expensive", 0, **expensive)
    assert score.oracle == 0
    # At most it buys once and holds; a round trip more in each symbol would cost 4 % of it.
    assert score.trades <= FRESH_SYMBOLS
    assert score.policy == pytest.approx(0.0, abs=max(0.1, 4 * score.policy_error))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_market_without_drift_yields_nothing(seed):
    # Trading is free, so it may trade; what it found in the training data pays nothing on fresh data.
    score = small_run("driftless", seed)
    assert abs(score.policy) <= 4 * score.policy_error


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_signal_that_only_past_returns_tell_of_is_learnt(seed):
    # The whole benchmark: 99 and 97 % of the Kalman-filter oracle.
    score = run(TASKS["latent"], seed)
    assert score.share > 0.9
    assert score.trades > 500
