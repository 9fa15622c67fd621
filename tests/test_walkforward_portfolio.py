"""The joined portfolio of a walk-forward on paper, rules that see no test, and whether the best of them is beaten."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_config

from jaxppo.config.schema import EnvConfig, GateConfig
from jaxppo.market.bars import Bars
from jaxppo.market.calendar import DAY
from jaxppo.market.dataset import build_evaluation
from jaxppo.market.synthetic import synthetic_market
from jaxppo.play.curve import TradeSums
from jaxppo.play.metrics import METRICS, Metrics
from jaxppo.play.portfolio import (
    POLICY,
    FoldPortfolios,
    decade_masks,
    excess_sentence,
    join_portfolios,
    part_figures,
    summarize_portfolio,
    verdict_of,
)
from jaxppo.play.significance import sharpe_differences
from jaxppo.store.tables import joined_frame
from jaxppo.walkforward.dates import plan_folds
from jaxppo.walkforward.judged import judge_portfolio
from jaxppo.walkforward.program import stack_folds
from jaxppo.walkforward.rules import play_fold_rules


def fold(days: list[int], names: tuple[str, ...], returns: list[list[float]], turnover: float) -> FoldPortfolios:
    """Portfolios of which each takes one trade that gains 1 and turns `turnover` of its equity over a date."""
    n = len(names)
    ones, none = np.ones(n, np.float32), np.zeros(n, np.float32)
    counts = np.ones(n, np.int32)
    sums = TradeSums(ones, none, counts, counts, 0 * counts, turnover * ones, ones, none)
    metrics = Metrics(dict.fromkeys(METRICS, none))
    return FoldPortfolios(np.asarray(days) * DAY, 365.25, names, np.asarray(returns, np.float64), sums, metrics)


FIRST = fold([0, 1, 2], (POLICY, "long", "linear_1"), [[0.1, 0.0, 0.1], [0.0, 0.1, 0.0], [0.0, 0.0, 0.0]], 0.1)
# It begins on the date on which the first ends, as folds of hours do, and has no linear rule.
SECOND = fold([2, 3], (POLICY, "long"), [[0.5, -0.1], [0.0, 0.1]], 0.6)


def test_folds_are_joined_in_time():
    joined = join_portfolios([FIRST, SECOND])
    assert joined.names == (POLICY, "long")
    assert joined.missing == ("linear_1",)
    np.testing.assert_array_equal(joined.day, np.arange(4) * DAY)
    np.testing.assert_array_equal(joined.fold, [1, 1, 2, 2])
    # On day 2 the first fold earns 10 % and then the second 50 %: 1.1 x 1.5 - 1 = 65 %.
    np.testing.assert_allclose(joined.returns, [[0.1, 0.0, 0.65, -0.1], [0.0, 0.1, 0.0, 0.1]])
    assert joined.metrics.net_return[0] == pytest.approx(1.1 * 1.65 * 0.9 - 1, rel=1e-6)
    assert joined.metrics.max_drawdown[0] == pytest.approx(0.1, rel=1e-5)
    assert joined.metrics.trades[0] == 2
    # .1 on three dates and .6 on two are .3 a date; each fold has 365.25 dates a year.
    assert joined.metrics.turnover[0] == pytest.approx(0.3 * 365.25, rel=1e-6)
    # Mean .1625, deviation .33759 (of four, ddof 1).
    own = np.array([0.1, 0.0, 0.65, -0.1])
    assert joined.metrics.sharpe[0] == pytest.approx(own.mean() / own.std(ddof=1) * 365.25**0.5, rel=1e-5)


def test_summary_holds_what_the_curves_say():
    joined = join_portfolios([FIRST, SECOND])
    members = join_portfolios([fold([0, 1, 2, 3], ("member_0", "member_1"), [[0.1, 0.0, 0.65, -0.1], [0.0] * 4], 0.1)])
    found = summarize_portfolio(joined, members, 0)
    sharpe = found["portfolio"]["sharpe"]
    assert sharpe == pytest.approx(float(joined.metrics.sharpe[0]))
    assert found["portfolio"]["members"] == pytest.approx([sharpe, 0.0])
    assert found["portfolio"]["members_spread"] == pytest.approx(sharpe)
    assert found["rules_left_out"] == ["linear_1"]
    assert set(found["baselines"]) == {"long"}
    assert found["excess_over_best_rule"]["rule"] == "long"
    # One decade, so that its figures are those of the whole.
    assert found["per_decade"]["1970s"][POLICY]["sharpe"] == pytest.approx(found["portfolio"]["sharpe"], rel=1e-5)
    assert found["per_decade"]["1970s"]["days"] == 4
    table = joined_frame(joined, members)
    assert table.columns == ["date", "fold", "return", "equity", "drawdown", "long", "member_0", "member_1"]
    assert table["equity"][-1] == pytest.approx(1.1 * 1.65 * 0.9)


def test_the_gate_holds_the_policy_against_holding_at_its_own_volatility():
    held = np.random.default_rng(0).normal(0.001, 0.01, 400)
    own = np.stack([0.5 * held, held, 0.0 * held])
    joined = join_portfolios([fold(list(range(400)), (POLICY, "buy_and_hold", "long"), own.tolist(), 0.1)])
    gate = judge_portfolio(joined, {"sharpe_difference": 0.25}, GateConfig(), trials=1)
    value = {reason.metric: reason.value for reason in gate.reasons}
    # Half of every move of holding is holding at half its volatility, though it earns less.
    assert value["excess_return"] == pytest.approx(0.0, abs=1e-9)
    assert value["excess_over_rules"] == 0.25
    assert value["days"] == 400
    assert value["trades"] == 1
    assert value["fitness"] == pytest.approx(float(joined.metrics.fitness[0]))
    assert gate.flags == ()
    # A policy that stays flat has no volatility, and nothing that is worth money.
    flat = joined._replace(returns=np.stack([0.0 * held, held, held]))
    none = judge_portfolio(flat, {"sharpe_difference": -1.0}, GateConfig(), trials=1)
    assert none.verdict == "DROP"
    assert {r.metric: r.value for r in none.reasons}["excess_return"] == 0


def test_figures_of_a_part_are_of_its_days_alone():
    returns = jnp.float32([[0.1, -0.5, 0.2, 0.05]])
    part = jnp.asarray([[False, False, True, True], [True, True, False, False]])
    found = part_figures(returns, part, jnp.float32(2.0))
    late = np.array([0.2, 0.05])
    assert float(found.sharpe[0, 0]) == pytest.approx(late.mean() / late.std(ddof=1) * 2**0.5, rel=1e-5)
    assert float(found.volatility[0, 0]) == pytest.approx(late.std(ddof=1) * 2**0.5, rel=1e-5)
    assert float(found.cagr[0, 0]) == pytest.approx(1.2 * 1.05 - 1, rel=1e-5)  # two days are one year
    assert float(found.max_drawdown[0, 0]) == 0
    assert float(found.max_drawdown[1, 0]) == pytest.approx(0.5, rel=1e-5)


def test_decades_are_those_of_the_calendar():
    times = np.array(["1989-12-31", "1990-01-01", "2000-06-01"], "datetime64[s]").astype(np.int64)
    masks = decade_masks(times)
    assert list(masks) == ["1980s", "1990s", "2000s"]
    np.testing.assert_array_equal(np.stack(list(masks.values())), np.eye(3, dtype=bool))


def test_what_two_curves_share_does_not_widen_their_difference():
    rng = np.random.default_rng(0)
    shared, own = rng.normal(0.0005, 0.01, 2000), rng.normal(0.0, 0.001, (2, 2000))
    # The second is the first less 1 bp a day: a difference in Sharpe ratios of .01 / 1 x sqrt(252), known exactly.
    returns = jnp.asarray(np.stack([shared, shared - 0.0001, shared + own[0], own[1]]), jnp.float32)
    found = jax.device_get(sharpe_differences(returns, jnp.float32(252), jax.random.key(0)))
    exact = 0.0001 / shared.std(ddof=1) * 252**0.5
    assert found.low[0] == pytest.approx(exact, rel=0.1)
    assert found.high[0] == pytest.approx(exact, rel=0.1)
    width = found.high - found.low
    assert found.low[1] < 0 < found.high[1]
    assert width[1] < 0.3 * width[2]  # beside one that has nothing in common


def test_verdicts():
    assert verdict_of(0.3, 0.1) == "beats"
    assert verdict_of(0.3, -0.1) == "cannot be told"
    assert verdict_of(0.0, -0.1) == "does not beat"
    assert verdict_of(float("nan"), float("nan")) == "does not beat"
    said = excess_sentence({"verdict": "beats", "sharpe_difference": 0.25, "interval_90": [0.1, 0.4]}, "macd", 1.5)
    assert said.startswith(
        "The policy beats the best rule, macd: rebalanced daily its Sharpe ratio is 1.50 against 1.25"
    )


@pytest.fixture(scope="module")
def market():
    config = tiny_config(window=4)
    bars = synthetic_market(0, 2, 900)
    history = build_evaluation(bars, config, 4, "all", None).splits["all"]
    plans = plan_folds(history.times, 3, "expanding", 0.4, 4, 9, 9)
    folds, sizes = stack_folds(history, plans, jax.random.key(0))
    return bars, history, plans, folds, sizes


def test_rules_are_fitted_on_their_folds_training_part_alone(market):
    bars, history, plans, folds, sizes = market

    def changed(b: Bars, time: int) -> Bars:
        factor = np.where(b.time > time, 1.0 + 0.3 * np.sin(np.arange(len(b.time))), 1.0)
        prices = {k: getattr(b, k) * factor for k in ("open", "high", "low", "close")}
        return Bars(**{**b.__dict__, **prices})

    last = max(int(t[n - 1]) for t, n in zip(history.times, plans[0].train_length, strict=True))
    assert last < plans[0].dates.test_begin
    other = [changed(b, last) for b in bars]
    late = build_evaluation(other, tiny_config(window=4), 4, "all", None).splits["all"]
    mine = play_fold_rules(bars, history, plans, folds, sizes, EnvConfig())
    theirs = play_fold_rules(other, late, plans, folds, sizes, EnvConfig())
    assert mine.fitted[0]
    assert mine.fitted[0] == theirs.fitted[0]
    assert mine.fitted[2] != theirs.fitted[2]  # the last fold trains on some of these bars


def test_a_rules_fold_is_charged(market):
    bars, history, plans, folds, sizes = market
    free = history.tape._replace(costs=jax.tree.map(jnp.zeros_like, history.tape.costs))
    without = type(history)(free, history.symbols, history.times)
    paid = play_fold_rules(bars, history, plans, folds, sizes, EnvConfig()).yardsticks
    unpaid = play_fold_rules(bars, without, plans, folds, sizes, EnvConfig()).yardsticks
    for one, other in zip(paid, unpaid, strict=True):
        assert (one.of("momentum").portfolio.net_return < other.of("momentum").portfolio.net_return).all()
        assert one.of("momentum").portfolio.costs > 0
        assert other.of("momentum").portfolio.costs == 0
