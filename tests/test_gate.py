"""The gate: every threshold from both sides, flags, unknown figures, JSON."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import BRACKETED

from jaxppo.config.schema import EnvConfig, GateConfig
from jaxppo.env.account import StepRecord
from jaxppo.env.actions import action_table
from jaxppo.page.gate import table
from jaxppo.page.terminal import gate_line
from jaxppo.play.gate import Evidence, Record, evidence, judge, judge_policy
from jaxppo.play.metrics import METRICS, Metrics
from jaxppo.play.score import Curves, Figures, Score
from jaxppo.play.significance import excess_probability
from jaxppo.store.gate import write_gate

GOOD = Evidence(0.9, 2.0, 0.9, 0.05, 150.0, 0.99, 0.9, 0.4, 0.2, 0.5, 0.1, 0.99, 142.0, excess_over_rules=0.2)


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


def test_probabilities_are_asked_for_approval_only():
    for name in ("deflated_sharpe", "excess_probability"):
        assert verdict(**{name: 0.95}) == "APPROVED"
        assert verdict(**{name: 0.94}) == verdict(**{name: math.nan}) == "REVIEW"


def test_what_makes_less_than_holding_or_is_a_short_sample_is_no_review():
    assert verdict(trades=100.0) == "APPROVED"
    assert verdict(trades=99.0) == verdict(trades=30.0) == "REVIEW"
    assert verdict(trades=29.0) == "DROP"
    assert verdict(excess_return=0.0) == verdict(days=90.0) == "APPROVED"
    for changes in ({"excess_return": -0.001}, {"days": 89.0}, {"excess_return": math.nan}, {"days": math.nan}):
        assert verdict(**changes) == "DROP"
    # +16.3 % where holding made 22.5 %, with 6 trades on 61 daily bars.
    gate = judge(GOOD._replace(excess_return=0.163 - 0.225, trades=6.0, days=61.0), GateConfig())
    assert gate_line(gate) == (
        "gate: DROP; for REVIEW: excess_return -6.20% (needs at least +0.00%), trades 6 (needs at least 30), days 61"
        " (needs at least 90)"
    )
    assert "Net return over buy-and-hold" in table(gate)
    assert verdict(excess_over_rules=0.0) == "APPROVED"
    for excess in (-0.01, math.nan):
        assert verdict(excess_over_rules=excess) == "DROP"
    assert (
        judge(GOOD._replace(excess_over_rules=-1.0), GateConfig(gate_excess_rules_review=-10.0)).verdict == "APPROVED"
    )
    patient = GateConfig(gate_excess_review=-10.0, gate_trades_review=0, gate_days_review=0, gate_min_trades=0)
    assert judge(GOOD._replace(excess_return=-0.062, trades=6.0, days=61.0), patient).verdict == "APPROVED"


def test_the_probability_of_beating_another_curve_by_hand():
    # Log returns over the other's: 0.02 and 0.00 in turn, 40 bars: mean .01, deviation .01 (ddof 0), ratio 1. Skew is
    # 0 and kurtosis 1, so z = 1 * sqrt(39 / (1 - 0 + 0)) = 6.2. Turned round it is the other tail, and with as many
    # bars of -.02 it ends where the other does: one half.
    bars = np.tile([0.02, 0.0], 20)
    other = np.exp(np.cumsum(np.full(40, -0.003)))
    curve = other * np.exp(np.cumsum(bars))
    assert excess_probability(curve, other) == pytest.approx(1.0, abs=1e-6)
    assert excess_probability(other, curve) == pytest.approx(0.0, abs=1e-6)
    even = other * np.exp(np.cumsum(np.tile([0.02, -0.02], 20)))
    assert excess_probability(even, other) == pytest.approx(0.5, abs=1e-3)
    assert math.isnan(excess_probability(other, other))


def test_the_gate_of_a_played_split_counts_days_and_looks_at_holding():
    # Two symbols decide at 30 hours each, 10 of them at the same times: 50 different hours, on 3 dates.
    hours = np.arange(60) * 3600
    tape = SimpleNamespace(first=np.array([0, 0]), length=np.array([31, 31]), allow_short=np.array([True, True]))
    split = SimpleNamespace(tape=tape, times=(hours[:31], hours[20:51]))
    curve, held = np.cumprod(np.tile([1.01, 1.0], 25)), np.cumprod(np.tile([1.0, 1.02], 25))
    none = np.zeros((30, 2))
    record = StepRecord(*([none] * len(StepRecord._fields)))
    pooled = Metrics(dict.fromkeys(METRICS, np.float32(0.9)))._replace(net_return=np.float32(curve[-1] - 1))
    figures = Figures(pooled, pooled, 0, np.array([0.4, 0.3, 0.3]), None, np.float32(held[-1] - 1), None, pooled)
    played = Score(record, none, none == 0, none, figures, Curves(curve, held, none, none))
    gate = judge_policy(played, split, action_table(BRACKETED), GateConfig(), Record(1, 0.9, 0.9), 1.1)
    values = {(r.metric, r.level): (r.value, r.passed) for r in gate.reasons}
    assert values["days", "REVIEW"] == (3.0, False)
    # 1.01^25 = 1.2824 and 1.02^25 = 1.6406.
    assert values["excess_return", "REVIEW"] == (pytest.approx(1.2824 - 1.6406, abs=1e-4), False)
    assert values["excess_probability", "APPROVED"][0] < 0.5
    assert values["excess_over_rules", "REVIEW"] == (pytest.approx(0.9 - 1.1), False)  # every metric is .9 here
    assert gate.verdict == "DROP"


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


def test_json_has_no_nan_and_no_infinity(tmp_path):
    gate = judge(GOOD._replace(profit_factor=math.inf, fitness=math.nan), GateConfig())
    write_gate(tmp_path, gate)
    raw = json.loads((tmp_path / "gate.json").read_text(), parse_constant=pytest.fail)
    assert raw["verdict"] == "DROP"
    values = {r["metric"]: r["value"] for r in raw["reasons"]}
    assert values["fitness"] is None
    assert values["profit_factor"] == "inf"


def test_the_line_names_each_figure_against_the_lowest_bar_it_misses():
    line = gate_line(judge(GOOD._replace(consistency=0.6, trades=50.0, hold_share=0.8), GateConfig()))
    assert line == (
        "gate: DROP; for REVIEW: consistency 60.0% (needs at least 65.0%); for APPROVED: trades 50 (needs at least"
        " 100); flags: always_hold 0.8"
    )
    line = gate_line(judge(GOOD._replace(max_drawdown=0.2, profit_factor=math.nan), GateConfig()))
    assert "max_drawdown 20.0% (needs at most 15.0%)" in line
    assert "profit_factor n/a (needs at least 1.30)" in line
    assert gate_line(judge(GOOD, GateConfig())) == "gate: APPROVED"


def test_evidence_of_two_symbols_by_hand():
    # Symbol A: long on one and short on one of 4 bars; B may not be short and is long on 1 of 2. 2 orders on 6 bars.
    exposure = np.array([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    orders = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    valid = np.array([[True, True], [True, True], [True, False], [True, False]])
    record = StepRecord(*([np.zeros((4, 2))] * len(StepRecord._fields)))._replace(exposure=exposure, order_units=orders)
    pooled = Metrics(dict.fromkeys(METRICS, np.float32(0)))._replace(fitness=np.float32(0.5))
    none = np.zeros(2)
    figures = Figures(pooled, pooled, none, np.array([0.7, 0.2, 0.1]), none, np.float32(0.05), none, pooled)
    played = Score(record, none, valid, none, figures, Curves(none, none, none, none))
    table = action_table(BRACKETED)
    found = evidence(played, table, 0.9, 0.6, np.array([True, False]))
    assert found.fitness == 0.5
    assert found.excess_return == pytest.approx(-0.05)  # 0 less what holding made
    assert found.hold_share == pytest.approx(0.7)  # the share of `hold`
    assert found.order_share == pytest.approx(2 / 6)
    assert found.long_share == pytest.approx(1 / 2)  # of A alone: long once, short once
    # A table without an action that keeps: bars flat after the order, 3 of 6.
    targets = action_table(EnvConfig(actions="targets", targets=(-1.0, 0.0, 1.0)))
    assert evidence(played, targets, 0.9, 0.6).hold_share == pytest.approx(3 / 6)
