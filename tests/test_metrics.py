"""Every reported figure against hand arithmetic, SciPy and plain NumPy in float64."""

import io
import pickle
import re

import empyrical
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from jaxppo.config.schema import Config
from jaxppo.page.curves import validation_panels
from jaxppo.page.reference import columns_table
from jaxppo.page.tables import glossary, metric_tables
from jaxppo.page.terminal import figure_table
from jaxppo.play.curve import TradeSums, payoff
from jaxppo.play.formulas import (
    consistency,
    kurtosis,
    max_drawdown,
    moments,
    profit_factor,
    sharpe,
    skewness,
    tail_losses,
)
from jaxppo.play.metrics import METRICS, Metric, Metrics, summarize
from jaxppo.play.score import Figures
from jaxppo.store.columns import metrics_columns
from jaxppo.store.rows import symbol_rows, validation_row

summarize_jit = jax.jit(summarize)
LENGTH = 120  # Curves are padded to one shape that compiles once; that padding is harmless is a test of its own.
# Returns +10 %, -5 %, +10 %. Most of the hand-worked figures below are of this curve.
CURVE = (1.1, 1.045, 1.1495)


def no_trades(shape=()):
    zero, count = jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.int32)
    return TradeSums(
        gains=zero, losses=zero, trades=count, wins=count, losers=count, turnover=zero, exposure=zero, costs=zero
    )


def trade_sums(gains=0.0, losses=0.0, trades=0, wins=0, turnover=0.0, exposure=0.0, losers=None, costs=0.0):
    losers = trades - wins if losers is None else losers
    return TradeSums(
        jnp.float32(gains),
        jnp.float32(losses),
        jnp.int32(trades),
        jnp.int32(wins),
        jnp.int32(losers),
        jnp.float32(turnover),
        jnp.float32(exposure),
        jnp.float32(costs),
    )


def figures(equity, *, start=1.0, length=LENGTH, bars_per_year=4.0, sums=None) -> Metrics:
    """Metrics of one curve, padded to `length`, as Python floats."""
    valid = jnp.asarray(np.arange(length) < len(equity))
    equity = jnp.asarray(np.append(equity, np.repeat(equity[-1], length - len(equity))), jnp.float32)
    sums = no_trades() if sums is None else sums
    metrics = summarize_jit(equity, jnp.float32(start), valid, jnp.float32(bars_per_year), sums)
    return jax.tree.map(float, metrics)


def random_curve(seed, n=LENGTH, scale=0.01):
    """Equity from a start of 1, with fat tails."""
    steps = scale * np.random.default_rng(seed).standard_t(4, n) + 0.0005
    return np.cumprod(1.0 + np.maximum(steps, -0.5))


def test_sharpe_by_hand():
    # mean .05; deviations .05, -.10, .05: sum of squares .015, over 2 is .0075, root .0866025.
    # .05 / .0866025 = .5773503 = 1 / sqrt 3; 4 bars a year: times 2.
    assert figures(CURVE).sharpe == pytest.approx(2 / np.sqrt(3), rel=1e-5)


def test_sortino_by_hand():
    # Only -.05 is below 0: sqrt(.0025 / 3) = .0288675; .05 / .0288675 = sqrt 3; times sqrt 4.
    assert figures(CURVE).sortino == pytest.approx(2 * np.sqrt(3), rel=1e-5)


def test_drawdown_cagr_and_calmar_by_hand():
    metrics = figures(CURVE)
    # Peak 1.1, then 1.045: 1 - .95.
    assert metrics.max_drawdown == pytest.approx(0.05, rel=1e-5)
    # 3 bars at 4 a year are .75 years: 1.1495^(4/3) - 1 = exp(.1393270 * 4/3) - 1 = .204144.
    assert metrics.cagr == pytest.approx(0.204144, rel=1e-5)
    assert metrics.calmar == pytest.approx(0.204144 / 0.05, rel=1e-4)
    assert metrics.net_return == pytest.approx(0.1495, rel=1e-5)
    assert metrics.bars == 3


def test_return_before_costs_by_hand():
    # Three bars to 1.155 with costs of .01 a bar: 1.155 exp(.03) = 1.190175.
    curve = np.array([1.1, 1.045, 1.155])
    assert figures(curve, sums=trade_sums(costs=0.01)).gross_return == pytest.approx(0.190175, rel=1e-4)
    assert figures(curve).gross_return == figures(curve).net_return


def test_fitness_by_hand():
    # Sharpe 1.1547005 * (1 - .2 * .05) = 1.1547005 * .99.
    assert figures(CURVE).fitness == pytest.approx(1.1547005 * 0.99, rel=1e-5)


def test_fitness_of_a_losing_curve_is_its_damped_sharpe():
    metrics = figures((0.8, 0.9, 0.5))
    assert metrics.fitness == pytest.approx(metrics.sharpe * (1 - 0.2 * 0.5), rel=1e-5)
    assert metrics.fitness < 0


def test_skew_and_kurtosis_by_hand():
    # Returns 0, 0, 0, .04: mean .01, deviations -.01 (three times) and .03.
    # m2 = (3 * 1e-4 + 9e-4) / 4 = 3e-4; m3 = (-3e-6 + 27e-6) / 4 = 6e-6; m4 = (3e-8 + 81e-8) / 4 = 21e-8.
    # g1 = 6e-6 / (3e-4)^1.5 = 2 / sqrt 3; G1 = sqrt(4 * 3) / 2 * g1 = 2.
    # g2 = 21e-8 / 9e-8 - 3 = -2/3; G2 = 3 / (2 * 1) * (5 * (-2/3) + 6) = 4.
    m = moments(jnp.array([0.0, 0.0, 0.0, 0.04]), jnp.ones(4, bool))
    assert float(skewness(m)) == pytest.approx(2.0, rel=1e-5)
    assert float(kurtosis(m)) == pytest.approx(4.0, rel=1e-5)


def test_skew_and_kurtosis_are_undefined_below_three_and_four_bars():
    two, three = figures((1.1, 1.0)), figures(CURVE)
    assert np.isnan(two.skew)
    assert np.isnan(two.kurtosis)
    # m3 = (2 * .05^3 - .1^3) / 3 = -.00025, m2 = .005: g1 = -1 / sqrt 2; G1 = sqrt 6 * g1 = -sqrt 3.
    assert three.skew == pytest.approx(-np.sqrt(3), rel=1e-4)
    assert np.isnan(three.kurtosis)


@pytest.mark.parametrize("seed", range(4))
def test_moments_agree_with_scipy(seed):
    returns = (0.01 * np.random.default_rng(seed).standard_t(5, 400)).astype(np.float32)
    m = moments(jnp.asarray(returns), jnp.ones(400, bool))
    wide = returns.astype(np.float64)
    assert float(skewness(m)) == pytest.approx(stats.skew(wide, bias=False), rel=1e-4, abs=1e-4)
    assert float(kurtosis(m)) == pytest.approx(stats.kurtosis(wide, bias=False), rel=1e-4)
    assert float(sharpe(m, jnp.float32(252.0))) == pytest.approx(
        wide.mean() / wide.std(ddof=1) * np.sqrt(252), rel=1e-4
    )


@pytest.mark.parametrize("seed", range(4))
def test_curve_figures_agree_with_numpy(seed):
    equity = random_curve(seed)
    got = figures(equity, bars_per_year=252.0)
    path = np.concatenate([[1.0], equity])
    returns = path[1:] / path[:-1] - 1
    down = np.sqrt(np.mean(np.minimum(returns, 0) ** 2))
    worst = max(1 - path[j] / path[: j + 1].max() for j in range(len(path)))
    assert got.sharpe == pytest.approx(returns.mean() / returns.std(ddof=1) * np.sqrt(252), rel=1e-3)
    assert got.sortino == pytest.approx(returns.mean() / down * np.sqrt(252), rel=1e-3)
    assert got.max_drawdown == pytest.approx(worst, rel=1e-5)
    assert got.cagr == pytest.approx(equity[-1] ** (252 / len(equity)) - 1, rel=1e-3)
    blocks = np.array_split(np.log1p(returns), 10)
    assert got.consistency == pytest.approx(np.mean([b.sum() > 0 for b in blocks]))


@pytest.mark.parametrize("seed", range(4))
def test_curve_figures_agree_with_empyrical(seed):
    path = np.append(1.0, random_curve(seed))
    returns = path[1:] / path[:-1] - 1
    got = figures(path[1:], bars_per_year=252.0)
    assert got.sharpe == pytest.approx(empyrical.sharpe_ratio(returns), rel=1e-3)
    assert got.sortino == pytest.approx(empyrical.sortino_ratio(returns), rel=1e-3)
    assert got.max_drawdown == pytest.approx(-empyrical.max_drawdown(returns), rel=1e-4)
    assert got.cagr == pytest.approx(empyrical.annual_return(returns), rel=1e-3)
    assert got.calmar == pytest.approx(empyrical.calmar_ratio(returns), rel=1e-3)
    # Its cut-off counts as many bars as ours where 5 % of them is a whole number, as of 120.
    assert got.cvar_5 == pytest.approx(-empyrical.conditional_value_at_risk(returns), rel=1e-4)
    assert got.var_5 == pytest.approx(-np.sort(returns)[5], rel=1e-4)


def test_consistency_by_hand():
    # 20 bars are 10 blocks of 2: six of them +2 % - 1 %, three -2 % + 1 %, one does not move.
    # An unchanged block is no gain: 6 / 10.
    steps = [0.02, -0.01] * 6 + [-0.02, 0.01] * 3 + [0.0, 0.0]
    assert figures(np.cumprod(1 + np.array(steps))).consistency == pytest.approx(0.6)


def test_consistency_blocks_differ_by_one_bar_at_most():
    # 7 bars in 3 blocks begin where bar * 3 // 7 steps: bars 0-2, 3-4, 5-6. Sums 0.1, -0.1, 0.1.
    logs = jnp.array([0.1, 0.1, -0.1, -0.2, 0.1, 0.2, -0.1])
    assert float(consistency(logs, jnp.ones(7, bool), blocks=3)) == pytest.approx(2 / 3)


def test_trade_figures_by_hand():
    # Gains 30 and losses 20 on a start of 100: 30 / 20; 3 of 5 trades; (30 - 20) / 100 / 5 a trade;
    # .1 of the equity traded a bar, 4 bars a year.
    sums = trade_sums(gains=30.0, losses=-20.0, trades=5, wins=3, turnover=0.1, exposure=0.7)
    metrics = figures((105.0, 110.0), start=100.0, sums=sums)
    assert metrics.profit_factor == pytest.approx(1.5)
    assert metrics.win_rate == pytest.approx(0.6)
    assert metrics.expectancy == pytest.approx(0.02)
    assert metrics.turnover == pytest.approx(0.4)
    assert metrics.exposure == pytest.approx(0.7)
    assert metrics.trades == 5


def test_without_trades_the_trade_figures_are_undefined():
    metrics = figures((1.0, 1.0, 1.0))
    assert np.isnan([metrics.profit_factor, metrics.win_rate, metrics.expectancy]).all()
    assert metrics.trades == 0


@pytest.mark.parametrize(
    ("gains", "losses", "trades", "expected"),
    [
        (3.0, -2.0, 4, 1.5),
        (3.0, 0.0, 4, np.inf),  # gains only: neither 10 nor 0
        (0.0, -2.0, 4, 0.0),
        (0.0, 0.0, 0, np.nan),  # no trades
        (0.0, 0.0, 1, np.nan),  # one trade that broke even to the cent
    ],
)
def test_profit_factor(gains, losses, trades, expected):
    got = profit_factor(jnp.float32(gains), jnp.float32(losses), jnp.int32(trades))
    np.testing.assert_equal(float(got), expected)


def test_one_trade():
    metrics = figures((1.0, 1.05), sums=trade_sums(gains=0.05, trades=1, wins=1))
    assert metrics.profit_factor == np.inf
    assert metrics.win_rate == 1
    assert metrics.expectancy == pytest.approx(0.05)


def test_a_curve_that_does_not_move():
    metrics = figures([1.0] * 30)
    assert (metrics.sharpe, metrics.sortino, metrics.fitness) == (0, 0, 0)
    assert (metrics.net_return, metrics.cagr, metrics.max_drawdown, metrics.consistency) == (0, 0, 0, 0)
    assert np.isnan(metrics.calmar)
    assert np.isnan(metrics.skew)


@pytest.mark.parametrize("n_bars", [1, 30])
def test_flat_accounts_never_read_minus_zero(n_bars):
    metrics = figures([1.0] * n_bars)
    assert not np.signbit([metrics.var_5, metrics.cvar_5, metrics.net_return, metrics.max_drawdown]).any()


def test_a_trade_that_breaks_even_is_no_win_and_no_loss():
    metrics = figures((1.0, 1.0), sums=trade_sums(trades=1))
    assert (metrics.win_rate, metrics.expectancy, metrics.trades) == (0, 0, 1)
    assert np.isnan([metrics.profit_factor, metrics.payoff]).all()


def test_only_losses():
    metrics = figures((0.9, 0.8), sums=trade_sums(losses=-0.2, trades=2))
    assert (metrics.profit_factor, metrics.win_rate, metrics.consistency) == (0, 0, 0)
    assert metrics.expectancy == pytest.approx(-0.1)
    assert np.isnan(metrics.payoff)


def test_a_curve_that_only_rises_has_infinite_sortino_and_no_calmar():
    metrics = figures((1.1, 1.3, 1.4))
    assert metrics.sortino == np.inf
    assert metrics.max_drawdown == 0
    assert np.isnan(metrics.calmar)
    assert metrics.consistency == 1


@pytest.mark.parametrize("length", [1, LENGTH])
def test_one_bar(length):
    metrics = figures((0.9,), length=length)
    assert metrics.net_return == pytest.approx(-0.1, rel=1e-5)
    assert metrics.sharpe == 0  # one return has no deviation
    assert metrics.sortino == pytest.approx(-2.0, rel=1e-5)  # -.1 / .1 * sqrt 4
    assert metrics.max_drawdown == pytest.approx(0.1, rel=1e-5)
    assert metrics.cagr == pytest.approx(0.9**4 - 1, rel=1e-5)
    assert np.isnan(metrics.skew)


def test_ruin_on_the_first_bar():
    # Returns -.9, 0, 0: mean -.3; deviations -.6, .3, .3: .54 / 2 = .27. -.3 / sqrt(.27) * 2 = -1.154701.
    metrics = figures((0.1, 0.1, 0.1))
    assert metrics.net_return == pytest.approx(-0.9, rel=1e-5)
    assert metrics.max_drawdown == pytest.approx(0.9, rel=1e-5)
    assert metrics.sharpe == pytest.approx(-1.154701, rel=1e-4)
    assert metrics.consistency == 0


@pytest.mark.parametrize("last", [0.0, -0.2])
def test_losing_everything_is_a_loss_not_a_gap_in_the_figures(last):
    """With ruin_level 0, or through a gap, nothing or less than nothing is left, and stays left."""
    metrics = figures((last, last, last))
    assert metrics.net_return == pytest.approx(last - 1)
    assert metrics.max_drawdown == 1
    assert metrics.cagr == -1
    # Returns last - 1, 0, 0, as above: -(1/3) / sqrt(1/3) * 2, whatever the size.
    assert metrics.sharpe == pytest.approx(-2 / np.sqrt(3), rel=1e-4)
    assert metrics.fitness == pytest.approx(-2 / np.sqrt(3) * 0.8, rel=1e-4)


def test_drawdown_is_always_a_share():
    rng = np.random.default_rng(0)
    curves = np.concatenate([np.exp(rng.normal(0, 2, (50, 40))), rng.normal(0, 1, (50, 40)), np.zeros((1, 40))])
    drawdown = np.asarray(max_drawdown(jnp.asarray(curves, jnp.float32), jnp.ones(len(curves))))
    assert ((drawdown >= 0) & (drawdown <= 1)).all()
    assert drawdown[-1] == 1


def test_the_start_counts_as_a_peak():
    assert figures((0.8, 0.9)).max_drawdown == pytest.approx(0.2, rel=1e-5)


@pytest.mark.parametrize("n_bars", [11, 37])
def test_padded_bars_change_nothing(n_bars):
    equity = random_curve(5, n_bars)
    sums = trade_sums(gains=0.2, losses=-0.1, trades=3, wins=2, turnover=0.1, exposure=0.5)
    plain, padded = figures(equity, sums=sums, length=n_bars), figures(equity, sums=sums)
    np.testing.assert_allclose(jax.tree.leaves(padded), jax.tree.leaves(plain), rtol=2e-5)
    assert padded.bars == plain.bars == n_bars


def test_figures_do_not_depend_on_the_money_invested():
    equity, sums = random_curve(6, 60), trade_sums(gains=0.2, losses=-0.1, trades=3, wins=2)
    scaled = sums._replace(gains=1000 * sums.gains, losses=1000 * sums.losses)
    np.testing.assert_allclose(
        jax.tree.leaves(figures(1000 * equity, start=1000.0, sums=scaled)),
        jax.tree.leaves(figures(equity, sums=sums)),
        rtol=1e-3,
        atol=1e-5,
    )


def test_any_leading_axes_and_vmap_agree_with_one_curve_at_a_time():
    curves = np.stack([[random_curve(10 * i + j) for j in range(3)] for i in range(2)])  # (2, 3, LENGTH)
    equity, valid = jnp.asarray(curves, jnp.float32), jnp.ones(curves.shape, bool)
    arguments = (equity, jnp.ones((2, 3)), valid, jnp.full((2, 3), 4.0), no_trades((2, 3)))
    direct, mapped = summarize_jit(*arguments), jax.jit(jax.vmap(summarize))(*arguments)
    single = [[figures(curves[i, j]) for j in range(3)] for i in range(2)]
    for field in METRICS:
        a, b = getattr(direct, field), getattr(mapped, field)
        assert a.shape == b.shape == (2, 3), field
        np.testing.assert_allclose(a, b, rtol=1e-5, err_msg=field)
        one = [[getattr(x, field) for x in row] for row in single]
        np.testing.assert_allclose(a, one, rtol=1e-4, atol=1e-6, err_msg=field)


def test_value_at_risk_by_hand():
    # Returns -30 % to -1 %: ceil(.05 * 30) = 2 lowest, -.30 and -.29: VaR .29, CVaR .295. Padding is no bar.
    returns = jnp.concatenate([-jnp.arange(1, 31, dtype=jnp.float32) / 100, jnp.full(10, -0.9, jnp.float32)])
    var, cvar = tail_losses(returns, jnp.arange(40) < 30)
    assert (float(var), float(cvar)) == (pytest.approx(0.29), pytest.approx(0.295))
    assert float(tail_losses(returns[:20], jnp.ones(20, bool))[0]) == pytest.approx(0.20)  # .05 * 20 = 1 bar
    assert np.isnan(float(tail_losses(returns, jnp.zeros(40, bool))[0]))


def test_payoff_by_hand():
    # Mean gain 30 / 3, mean loss 20 / 2.
    assert float(payoff(trade_sums(gains=30.0, losses=-20.0, trades=5, wins=3))) == pytest.approx(1.0)
    assert np.isnan(float(payoff(trade_sums(gains=30.0, trades=3, wins=3))))


def test_a_trade_that_breaks_even_is_neither_won_nor_lost():
    # Of 6 trades 3 gained 30, 2 lost 20 and one broke even: payoff (30 / 3) / (20 / 2) = 1, profit factor 30 / 20,
    # and 3 of 6 were won. With the even trade among the losing ones the mean loss would be 20 / 3.
    sums = trade_sums(gains=30.0, losses=-20.0, trades=6, wins=3, losers=2)
    found = figures(CURVE, sums=sums)
    assert (found.payoff, found.profit_factor, found.win_rate) == pytest.approx((1.0, 1.5, 0.5))
    # Without a loss there is no mean loss, however many broke even.
    assert np.isnan(float(payoff(trade_sums(gains=30.0, trades=4, wins=3, losers=0))))


@pytest.fixture
def deepest():
    """One more metric, as a user would register it: the worst bar."""
    metric = Metric(
        name="worst_bar",
        value=lambda c: c.returns.min(-1),
        title="Worst bar",
        form="fine",
        meaning="The lowest return of a bar.",
        page="first",
        chart=True,
        validation=20,
        terminal="worst",
    )
    METRICS.add(metric)
    yield metric
    METRICS.remove(metric.name)


def test_a_metric_that_is_registered_is_computed_written_and_shown(deepest):
    alone = summarize(jnp.array([1.1, 0.99, 1.1]), jnp.ones(()), jnp.ones(3, bool), jnp.float32(4), no_trades())
    assert alone.worst_bar == pytest.approx(-0.1)
    symbols = jax.tree.map(lambda x: jnp.expand_dims(x, 0), alone)
    share, hold = np.float32([0.5, 0.5]), np.float32(0.1)
    validation = Figures(alone, symbols, np.int32(0), share, np.stack([share]), hold, np.stack([hold]), alone)
    rows = symbol_rows(validation, ("ONE",), ("hold", "buy"))
    assert [row["worst_bar"] for row in rows] == [pytest.approx(-0.1)] * 3
    row = validation_row(validation, ("hold", "buy"))
    assert row["val_worst_bar"] == pytest.approx(-0.1)
    assert set(row) <= set(metrics_columns(Config(), ("hold", "buy")))
    page = metric_tables("Symbol", [(r.pop("symbol"), r) for r in rows])
    assert "Worst bar" in page[: page.index("More metrics")]
    assert "\u221210.00\u00a0%" in page
    assert "<dt>Worst bar</dt><dd>The lowest return of a bar.</dd>" in glossary()
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(figure_table("", "", [("ONE", rows[0])]))
    assert re.search(r"worst\s.*-10\.00%", console.export_text(), re.DOTALL)
    assert "val_worst_bar" in [panel.name for panel in validation_panels()]
    assert "| `val_worst_bar` | The lowest return of a bar. |" in columns_table()


def test_metrics_are_a_pytree_by_the_names_of_the_table():
    metrics = figures(CURVE)
    assert list(metrics._asdict()) == list(METRICS)
    doubled = jax.tree.map(lambda x: 2 * x, metrics)
    assert doubled.net_return == 2 * metrics.net_return
    assert doubled._replace(bars=7.0).bars == 7.0
    paths = [str(path[0]) for path, _ in jax.tree_util.tree_leaves_with_path(metrics)]
    assert paths == [f".{name}" for name in METRICS]
    again = pickle.loads(pickle.dumps(metrics))
    np.testing.assert_array_equal(jax.tree.leaves(again), jax.tree.leaves(metrics))
    with pytest.raises(AttributeError, match="no metric 'sharp'"):
        _ = metrics.sharp
