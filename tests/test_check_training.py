"""Placebo and planted: small training runs on made-up markets that must, and must not, earn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from jaxppo.check.probe import (
    Estimate,
    Kind,
    Probe,
    ProbeSizes,
    block_estimate,
    check_placebo,
    check_planted,
    log_growth,
    planted_draw,
    planted_sizes,
    side_cost,
)
from jaxppo.config.layers import resolve
from jaxppo.market.features import FeatureTable
from jaxppo.market.planted import POSITIONS, dp_oracle

# 123,000 steps, as of test_learning: with one feature of noise beside the signal that is enough.
SMALL = ProbeSizes(
    n_updates=15,
    n_symbols=2,
    n_bars=3_000,
    fresh_symbols=8,
    fresh_bars=800,
    training=(("n_envs", 256), ("lanes", 8), ("n_steps", 32), ("minibatches", 8), ("learning_rate", 2e-3)),
)
KIND = Kind("equity", 3600)


def last_return(bars):
    past = np.diff(np.log(bars.close), prepend=np.log(bars.open[0]))
    return FeatureTable((past[:, None] / 0.005).astype(np.float32), ("return",), 1)


def next_return(bars):
    """A feature that knows the next bar."""
    table = last_return(bars)
    return replace(table, values=np.concatenate([table.values[1:], table.values[-1:]]))


def config(**changes):
    return resolve("quick_test", {"encoder": "none", **changes}).config


@pytest.fixture(scope="module")
def probe():
    return Probe(config(), last_return, KIND, SMALL)


# --- arithmetic


def test_an_estimate_is_over_blocks_of_every_symbol():
    # 20 bars of 2 symbols in 10 blocks of 2 bars: block means of the first symbol are 1, of the second 3.
    x = np.tile(np.asarray([[1.0, 3.0]]), (20, 1)) * 1e-4
    got = block_estimate(x)
    assert got.mean == pytest.approx(2.0)
    # Deviation of ten 1s and ten 3s, ddof 1: sqrt(20 / 19); over sqrt(20).
    assert got.error == pytest.approx(np.sqrt(20 / 19 / 20))
    assert got.deviations == pytest.approx(2 / np.sqrt(1 / 19))
    assert Estimate(0.0, 0.0).deviations == 0.0
    assert Estimate(0.1, 0.0).deviations == np.inf


def test_the_edge_is_worth_its_costs_and_the_noise_stays_off_the_stops():
    # The market of benchmarks/learning.py: 4 deviations to the stop of 2 %, 8 to the take-profit of 4 %.
    assert planted_sizes(config(), KIND) == (pytest.approx(0.002), pytest.approx(0.005))
    assert planted_sizes(config(stop_loss=0.004), KIND) == (pytest.approx(0.0004), pytest.approx(0.001))
    assert planted_sizes(config(stop_loss=0.0, take_profit=0.02), KIND)[1] == pytest.approx(0.0025)
    assert planted_sizes(config(stop_loss=0.0, take_profit=0.0, fee={"equity": 0.02}), KIND)[0] == pytest.approx(0.004)
    expensive = config(fee={"crypto": 0.005}, spread=0.002, slippage=0.001)
    assert side_cost(expensive, Kind("crypto", 3600)) == pytest.approx(0.005 + 0.001 + 0.001)


def test_made_up_bars_are_of_the_user_s_kind():
    bars, signal = planted_draw(0.002, 0.005, Kind("crypto", 86400))(3, 2, 50)
    assert {b.asset_class for b in bars} == {"crypto"}
    assert (np.diff(bars[0].time) == 86400).all()
    assert signal.shape == (2, 50)
    assert Kind.of([*bars, replace(bars[0], asset_class="fx")]) == Kind("crypto", 86400)


def test_positions_and_reach_that_say_nothing_new_leave_the_oracle_as_it_was():
    sizes = {"phi": 0.5, "edge": 0.002, "cost": 0.003, "noise": 0.005}
    plain = dp_oracle(**sizes)
    free_choice = dp_oracle(**sizes, positions=POSITIONS, reach=np.ones((3, 3), bool))
    assert (plain.target == free_choice.target).all()
    # Without a way back to flat it is never chosen again, and less is earned.
    reach = np.asarray([[1, 0, 1], [1, 1, 1], [1, 0, 1]], bool)
    bound = dp_oracle(**sizes, reach=reach)
    assert not (bound.target[:, [0, 2]] == 1).any()
    assert bound.profit < plain.profit


# --- planted


def test_a_signal_that_is_there_is_found(probe):
    check = check_planted(probe)
    assert check.passed, check.explanation
    assert check.details["oracle_bp"] > 5
    assert check.details["trades"] > 100


def test_a_policy_that_learnt_nothing_fails():
    # With one update it is what it was at the start.
    idle = Probe(config(), last_return, KIND, replace(SMALL, n_updates=1))
    check = check_planted(idle)
    assert not check.passed
    assert "not found" in check.explanation


def test_the_oracle_earns_what_the_dynamic_program_says_without_stops():
    own = Probe(config(actions="targets", stop_loss=0.0, take_profit=0.0), last_return, KIND, SMALL)
    edge, noise = planted_sizes(own.config, KIND)
    fresh = own.draw(planted_draw(edge, noise, KIND), 0, fresh=True)
    got = log_growth(own.follow(own.oracle(fresh, edge, noise), fresh))
    profit = 1e4 * dp_oracle(phi=0.95, edge=edge, cost=0.001, noise=noise).profit
    assert got.mean() == pytest.approx(profit, abs=4 * got.std(ddof=1) / np.sqrt(len(got)))


# --- placebo


def test_without_drift_nothing_is_earned_and_costs_are_lost(probe):
    check = check_placebo(probe)
    assert check.passed, check.explanation
    of = check.details["policies"]
    assert of["trained without costs"]["trades"] > 100
    assert of["random"]["trades"] > 1000
    # Random exposures pay for some 0.9 of equity a bar and more than 4 errors show it.
    assert of["random"]["net"]["mean_bp"] < -4 * of["random"]["net"]["error_bp"]


def test_a_market_with_drift_is_no_placebo(probe):
    check = check_placebo(probe, market=planted_draw(*planted_sizes(probe.config, KIND), KIND))
    assert not check.passed
    assert "Something is earned where nothing is" in check.explanation


def test_a_feature_that_knows_the_next_bar_is_caught():
    check = check_placebo(Probe(config(), next_return, KIND, SMALL))
    assert not check.passed
    assert check.details["policies"]["trained without costs"]["gross"]["mean_bp"] > 5
    # Chance trades earn nothing even so.
    random = check.details["policies"]["random"]["gross"]
    assert abs(random["mean_bp"]) <= 4 * random["error_bp"]
