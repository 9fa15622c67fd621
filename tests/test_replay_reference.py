"""Replays of random decisions with random levels against the plain-Python reference, trade by trade."""

import math

import numpy as np
import pytest
from hypothesis import given, settings

from tests.reference.compare import assert_agreement, random_case
from tests.reference.replay import Rules, follow_replay, play_replay
from tests.test_account_reference import CASES

START, RUIN, LANES, BARS = 10_000.0, 1_000.0, 32, 48
RULES = (
    Rules("target", "open", math.inf, True),
    Rules("units", "limit", 2.0, False),
    Rules("order_units", "open", 1.5, True),
)


def decisions(order, prices, rng):
    """(value, stop, take_profit), each (LANES, BARS), nan where nothing is said; all exact in float32."""
    open_ = prices[0]
    shape = open_.shape
    if order == "target":
        value = rng.choice((-1.5, -0.5, 0.0, 0.25, 1.0, 2.0), shape)
    else:
        # Eighths of what 10,000 buys at the first open, in powers of two: sums of them are exact.
        lot = 2.0 ** np.round(np.log2(START / open_[:, :1] / 8))
        value = lot * rng.integers(-12, 13, shape)
    side = rng.choice((-1.0, 1.0), shape)  # a level on the wrong side fires at once
    stop = open_ * (1 - side * rng.choice((0.0, 0.01, 0.03), shape))
    limit = open_ * (1 + side * rng.choice((0.01, 0.04), shape))
    said = [np.where(rng.random(shape) < p, x, np.nan) for p, x in ((0.4, value), (0.2, stop), (0.2, limit))]
    return [x.astype(np.float32).astype(np.float64) for x in said]


@pytest.mark.parametrize("rules", RULES, ids=lambda r: r.kind)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_agrees_with_reference(rules, dtype):
    parted = lanes = trades = 0
    reasons = set()

    @settings(max_examples=10, deadline=None, derandomize=True, database=None)
    @given(**CASES)
    def check(seed, volatility, gaps, flats, costly):
        nonlocal parted, lanes, trades
        prices, _, costs, _ = random_case("targets", seed, volatility, gaps, flats, costly, LANES, BARS)
        given = decisions(rules.kind, prices, np.random.default_rng(seed))
        told = follow_replay(rules, prices, given, costs, START, RUIN)
        parted += assert_agreement(
            rules.kind, *play_replay(rules, prices, given, costs, START, RUIN, dtype), told, dtype, costs[0]
        )
        lanes += LANES
        trades += sum(len(a.round_trips) for a in told.accounts)
        reasons.update(t.reason for a in told.accounts for t in a.round_trips)

    check()
    assert parted <= 0.01 * lanes
    assert trades > 10 * lanes / 4
    assert reasons >= {"order", "stop", "take_profit", "liquidation"}
