"""The portfolio that is rebalanced daily, worked on paper, and what validations are ranked by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxppo.market.calendar import DAY
from jaxppo.market.dataset import EvaluationSet, Split, device_calendar, joint_calendar, joint_days
from jaxppo.market.tape import Costs, zero_tape
from jaxppo.play.best import RANKED_COLUMN, ranked_score
from jaxppo.play.curve import TradeSums
from jaxppo.play.metrics import Metrics
from jaxppo.play.score import Figures, live_symbols, portfolio_curve, portfolio_metrics
from jaxppo.store.columns import validation_columns

HOUR = 3600
# ONE decides at bars 0 to 3 and fills at noon and at 18:00 of day 0, then at noon of days 1 and 3. TWO fills at noon of
# days 1 and 2, and has finished then. THREE never decides.
TIMES = (
    np.array([6 * HOUR, 12 * HOUR, 18 * HOUR, DAY + 12 * HOUR, 3 * DAY + 12 * HOUR]),
    np.array([12 * HOUR, DAY + 12 * HOUR, 2 * DAY + 12 * HOUR, 9 * DAY, 9 * DAY]),
    np.array([12 * HOUR, 5 * DAY, 5 * DAY, 5 * DAY, 5 * DAY]),
)
DECISIONS = (4, 2, 0)


@pytest.fixture(scope="module")
def data() -> EvaluationSet:
    tape = zero_tape(3, 5, 1)._replace(
        length=jnp.int32([5, 3, 1]),
        bars_per_year=jnp.float32([500, 250, 250]),
        costs=Costs(*(jnp.zeros(3) for _ in range(3))),
    )
    times = tuple(t[:n] for t, n in zip(TIMES, (5, 3, 1), strict=True))
    return EvaluationSet(tape, device_calendar(joint_calendar(Split(tape, ("ONE", "TWO", "THREE"), times))))


def test_dates_are_those_on_which_a_symbol_fills(data):
    np.testing.assert_array_equal(data.calendar.days.behind, [[2, 3, 3, 4], [0, 1, 2, 2], [0, 0, 0, 0]])
    # Four dates, and from the first to the last of them are four days.
    assert float(data.calendar.days.per_year) == pytest.approx(365.25)
    assert joint_days(np.array([5 * HOUR]), np.array([[1]]))[2] == 365.25
    # Ten of the fourteen days of two weeks.
    weekdays = np.array([d for d in range(14) if d % 7 < 5]) * DAY
    assert joint_days(weekdays, np.arange(10).reshape(1, -1))[2] == pytest.approx(10 * 365.25 / 12)


def test_only_who_has_begun_and_not_finished_is_live(data):
    live = [[True, True, True, True], [False, True, True, False], [False] * 4]
    np.testing.assert_array_equal(live_symbols(data), live)


EQUITY = jnp.float32([[1.1, 1.04, 1.0], [1.2, 1.3, 1.0], [1.08, 1.3, 1.0], [1.188, 1.3, 1.0]])


def test_portfolio_by_hand(data):
    # Day 0: ONE alone, 1 to 1.2. Day 1: ONE 1.08 / 1.2 = -10 %, TWO +4 %: -3 %. Day 2: ONE has no bar, TWO
    # 1.3 / 1.04 = +25 %: +12.5 %. Day 3: TWO has finished; ONE 1.188 / 1.08 = +10 %.
    curve = [1.2, 1.2 * 0.97, 1.2 * 0.97 * 1.125, 1.2 * 0.97 * 1.125 * 1.1]
    np.testing.assert_allclose(portfolio_curve(data, EQUITY), curve, rtol=1e-6)


def test_padded_dates_repeat_the_last(data):
    days = data.calendar.days
    more = days._replace(
        behind=jnp.pad(days.behind, ((0, 0), (0, 2)), mode="edge"), valid=jnp.append(days.valid, jnp.zeros(2, bool))
    )
    padded = data._replace(calendar=data.calendar._replace(days=more))
    curve = np.asarray(portfolio_curve(data, EQUITY))
    np.testing.assert_array_equal(portfolio_curve(padded, EQUITY), [*curve, curve[-1], curve[-1]])


def test_who_lost_everything_returns_nothing_from_there_on(data):
    equity = EQUITY.at[:, 0].set(jnp.float32([1.0, 1.0, 0.0, 0.0]))
    # Day 1: -100 % and +4 %. Day 2: TWO +25 % of the half that it is given. Day 3: ONE is live, and has nothing.
    curve = [1.0, 0.52, 0.52 * 1.125, 0.52 * 1.125]
    np.testing.assert_allclose(portfolio_curve(data, equity), curve, rtol=1e-6)


def test_turnover_and_costs_are_means_over_live_symbols(data):
    zero, count = jnp.zeros(3), jnp.int32([3, 1, 0])
    sums = TradeSums(
        zero,
        zero,
        count,
        jnp.zeros(3, jnp.int32),
        jnp.zeros(3, jnp.int32),
        *(jnp.float32(x) for x in ([0.2, 0.1, 9], [0.8, 0.4, 9], [0.02, 0.01, 9])),
    )
    figures = jax.jit(portfolio_metrics)(data, portfolio_curve(data, EQUITY), sums)
    # ONE is all of days 0 and 3 and half of 1 and 2: 3 of 4; TWO is 1 of 4. A year ONE turns over .2 x 500 = 100 and
    # TWO .1 x 250 = 25: 81.25. Their costs are a tenth.
    assert float(figures.turnover) == pytest.approx(81.25, rel=1e-5)
    assert float(figures.costs) == pytest.approx(8.125, rel=1e-5)
    assert float(figures.exposure) == pytest.approx(0.75 * 0.8 + 0.25 * 0.4)
    assert (float(figures.trades), float(figures.bars)) == (4, 4)
    # Returns .2, -.03, .125, .1: mean .09875, deviation .0961661 (ddof 1), 365.25 dates a year.
    assert float(figures.sharpe) == pytest.approx(0.09875 / 0.0957753 * 365.25**0.5, rel=1e-5)


def test_validations_are_ranked_by_what_is_asked_for():
    pooled, portfolio = Metrics({"fitness": 0.4, "sharpe": 0.5}), Metrics({"fitness": 0.1, "sharpe": 0.9})
    figures = Figures(pooled, None, None, None, None, None, None, portfolio)
    assert ranked_score(figures, "fitness") == 0.4
    assert ranked_score(figures, "portfolio_sharpe") == 0.9
    assert set(RANKED_COLUMN.values()) <= {name for name, _ in validation_columns()}
