"""The gate: every threshold from both sides, flags, unknown figures, JSON."""

import json
import math

import pytest

from jaxppo.config.schema import GateConfig
from jaxppo.evaluate.gate import Evidence, judge

GOOD = Evidence(0.9, 2.0, 0.9, 0.05, 150.0, 0.99, 0.9, 0.4, 0.2, 0.5)


def verdict(**changes):
    return judge(GOOD._replace(**changes), GateConfig()).verdict


def test_a_policy_that_passes_everything_is_approved():
    gate = judge(GOOD, GateConfig())
    assert gate.verdict == "APPROVED"
    assert all(r.passed for r in gate.reasons)
    assert gate.flags == ()


@pytest.mark.parametrize(
    ("metric", "approved", "review", "drop"),
    [
        ("fitness", 0.70, 0.50, 0.49),
        ("profit_factor", 1.8, 1.3, 1.29),
        ("consistency", 0.85, 0.65, 0.64),
        ("max_drawdown", 0.08, 0.15, 0.16),
    ],
)
def test_thresholds(metric, approved, review, drop):
    peak = {"peak_fitness": math.nan}  # a low fitness is to be judged by itself
    assert verdict(**{metric: approved}, **peak) == "APPROVED"
    assert verdict(**{metric: review}, **peak) == "REVIEW"
    assert verdict(**{metric: drop}, **peak) == "DROP"
    assert verdict(**{metric: math.nan}, **peak) == "DROP"


def test_trades_and_deflated_sharpe_are_asked_for_approval_only():
    assert verdict(trades=100.0) == "APPROVED"
    assert verdict(trades=99.0) == verdict(deflated_sharpe=0.94) == verdict(deflated_sharpe=math.nan) == "REVIEW"


def test_an_infinite_profit_factor_needs_enough_trades():
    assert verdict(profit_factor=math.inf) == "APPROVED"
    assert verdict(profit_factor=math.inf, trades=99.0) == "DROP"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("overfit", {"peak_fitness": 0.96}),  # .95 x .96 = .912 > .9
        ("overfit", {"final_fitness": 0.85}),  # .95 x .9 = .855 > .85
        ("always_hold", {"hold_share": 0.71}),
        ("always_trade", {"order_share": 0.51}),
        ("one_sided", {"long_share": 0.96}),
        ("one_sided", {"long_share": 0.04}),
    ],
)
def test_a_flag_keeps_from_approval(name, changes):
    gate = judge(GOOD._replace(**changes), GateConfig())
    assert [f.name for f in gate.flags] == [name]
    assert gate.verdict == "REVIEW"


def test_json_has_no_nan_and_no_infinity():
    gate = judge(GOOD._replace(profit_factor=math.inf, fitness=math.nan), GateConfig())
    raw = json.loads(json.dumps(gate.to_json(), allow_nan=False))
    assert raw["verdict"] == "DROP"
    values = {r["metric"]: r["value"] for r in raw["reasons"]}
    assert values["fitness"] is None
    assert values["profit_factor"] == "inf"
