"""Small versions of `benchmarks/learning.py`: it learns what is there, and nothing where nothing is."""

from __future__ import annotations

import pytest

from benchmarks.learning import TASKS, run

# 0.8M steps; the benchmark itself trains 2.6M.
SMALL = {"n_updates": 24, "n_envs": 1024, "minibatches": 8}


def test_an_observed_signal_earns_ninety_percent_of_the_oracle():
    score = run(TASKS["observed"], 0, n_bars=10_000, n_symbols=4, **SMALL)
    assert score.oracle > 0
    assert score.share >= 0.9
    assert score.trades > 100


def test_a_cost_above_the_edge_is_not_paid():
    # At 20 % a side the oracle itself never trades: the signal is worth at most .002 * 4 / (1 - .95) = 16 % in all.
    score = run(TASKS["expensive"], 0, n_bars=10_000, n_symbols=4, **SMALL)
    assert score.oracle == pytest.approx(0.0, abs=1e-6)
    assert score.policy == pytest.approx(0.0, abs=1e-3)
    assert score.trades <= 1


def test_a_driftless_market_yields_no_profit():
    score = run(TASKS["driftless"], 0, n_bars=6_000, n_symbols=4, **SMALL)
    assert abs(score.policy) <= 4 * score.policy_error + 1e-9
