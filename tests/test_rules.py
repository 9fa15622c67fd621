"""Rules: each on a tiny series, what is fitted against NumPy, causality, and their accounts against a plain loop."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import plain_account, random_tape

from jaxppo.config.schema import EnvConfig
from jaxppo.errors import ConfigError
from jaxppo.market.bars import Bars
from jaxppo.market.calendar import DAY
from jaxppo.market.dataset import EvaluationSet, Split, device_calendar, joint_calendar
from jaxppo.market.inputs import bar_inputs
from jaxppo.market.synthetic import synthetic_market
from jaxppo.market.tape import Costs
from jaxppo.market.trend import macd_deviations
from jaxppo.play.rules import RULES, Rule, long, macd, mean_of_signs, ridge_weights, trend_signals
from jaxppo.play.sides import (
    HOLD,
    Fitted,
    decision_sides,
    fit_rules,
    managed_portfolios,
    play_rules,
    rule_sides,
    rule_signals,
    score_yardsticks,
)


def bars_of(close, open_=None, symbol="ONE") -> Bars:
    close = np.asarray(close, np.float64)
    blank = synthetic_market(0, 1, 900)[0]
    prices = dict.fromkeys(("open", "high", "low", "close"), close) | ({} if open_ is None else {"open": open_})
    time = np.arange(len(close), dtype=np.int64) * DAY
    return dataclasses.replace(blank, symbol=symbol, time=time, volume=np.zeros(len(close)), **prices)


def walk(n, seed=0):
    return 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0.0003, 0.01, n)))


def test_signs_by_hand():
    m = bar_inputs(bars_of([100, 110, 105, 105, 90]))
    np.testing.assert_array_equal(long(m)[:, 0], np.ones(5))
    # Over 2 bars, or as many as there are: none yet, 110 > 100, 105 > 100, 105 < 110, 90 < 105.
    np.testing.assert_array_equal(mean_of_signs(m, (2,))[:, 0], [0, 1, 1, -1, -1])
    # Over 1 bar: 0, 1, -1, 0, -1.
    np.testing.assert_array_equal(mean_of_signs(m, (1, 2))[:, 0], [0, 1, 0, -0.5, -1])


def test_the_rules_are_these():
    assert list(RULES) == [
        *("long", "momentum", "sign_63", "sign_126", "sign_252", "mean_of_signs", "macd", "linear_1", "linear_10")
    ]
    m = bar_inputs(bars_of(walk(300)))
    for n in (63, 126, 252):
        signs = np.sign(m.close[n:] - m.close[:-n])
        np.testing.assert_array_equal(RULES[f"sign_{n}"].signals(m)[n:, 0], signs)
    at = 280
    signs = [np.sign(m.close[at] - m.close[at - n]) for n in (21, 63, 126, 252)]
    assert RULES["mean_of_signs"].signals(m)[at, 0] == pytest.approx(np.mean(signs))
    assert RULES["momentum"].signals(m)[at, 0] == np.sign(m.close[at] - m.close[at - 20])


def slow_macd(price, short, long_):
    """In plain loops, at the last bar."""
    q = []
    for end in range(len(price) - 251, len(price) + 1):
        averages = []
        for n in (short, long_):
            average = price[0]
            for p in price[1:end]:
                average += (p - average) / n
            averages.append(average)
        q.append((averages[0] - averages[1]) / price[end - 63 : end].std(ddof=1))
    return q[-1] / np.std(q, ddof=1)


def test_macd_against_plain_loops():
    price = walk(330)
    m = bar_inputs(bars_of(price))
    slow = [slow_macd(price, *pair) for pair in ((8, 24), (16, 48), (32, 96))]
    found = macd_deviations(m)
    np.testing.assert_allclose([y[-1] for y in found], slow, rtol=1e-6)
    assert all((y[:313] == 0).all() and y[313] != 0 for y in found)  # 63 bars, and 252 of what they give
    response = np.mean([y * np.exp(-y * y / 4) / 0.89 for y in slow])
    assert macd(m)[-1, 0] == pytest.approx(response, rel=1e-6)


def test_trend_signals_by_hand():
    # Returns 0, 2 %, 0 with weights a^2, a, 1 over their sum, a = 59 / 61. Of 0 and one other value of weight w the
    # variance is 2 %^2 w (1 - w), and the correction for few bars 1 / (1 - sum of squared weights).
    m = bar_inputs(bars_of(100 * np.exp([0.0, 0.0, 0.02, 0.02])))
    a = 59 / 61
    two, three = np.array([a, 1]) / (1 + a), np.array([a**2, a, 1]) / (1 + a + a**2)
    third, fourth = (0.02 * np.sqrt(w[1] * (1 - w[1]) / (1 - (w**2).sum())) for w in (two, three))
    signals = trend_signals(m)
    assert signals.shape == (4, 10)
    np.testing.assert_allclose(signals[2, :3], 0.02 / third / np.sqrt([1, 5, 21]), rtol=1e-9)
    np.testing.assert_allclose(signals[3, :3], [0, 0.02 / fourth / np.sqrt(5), 0.02 / fourth / np.sqrt(21)], rtol=1e-9)
    np.testing.assert_array_equal(signals[:, 6:], [[0, 0, 0, 1]] * 4)
    # A jump of 20 deviations is cut to 5.
    quiet = np.cumsum(np.tile([0.001, -0.001], 100))
    assert trend_signals(bar_inputs(bars_of(np.exp([*quiet, quiet[-1] + 0.02]))))[-1, 0] == 5


def test_ridge_weights_by_hand():
    portfolios = np.array([[0.02, 0.01], [0.00, -0.01], [0.01, 0.03], [-0.01, 0.01]])
    # Means .005 and .01. Deviations (.015, -.005, .005, -.015) and (0, -.02, .02, 0): variances 5e-4 / 3 and 8e-4 / 3,
    # covariance 2e-4 / 3. The mean eigenvalue is half the sum of the variances, 13e-4 / 6.
    sigma = np.array([[5, 2], [2, 8]]) * 1e-4 / 3
    for multiple in (0, 1, 10):
        wanted = np.linalg.solve(sigma + multiple * 13e-4 / 6 * np.eye(2), [0.005, 0.01])
        np.testing.assert_allclose(ridge_weights(portfolios, multiple), wanted, rtol=1e-12)


def test_managed_portfolios_by_hand():
    # Two symbols decide at bars 0 to 2 of theirs; the last decision's bar ends behind the range and is left out. Days 0
    # and 1, and 1 and 2: on day 1 they share.
    times = (np.array([0, 1, 2, 3]) * DAY, np.array([1, 2, 3, 4]) * DAY)
    signals = np.array([[[1.0, 2], [3, 4], [5, 6], [0, 0]], [[-1.0, 1], [2, 0], [7, 7], [0, 0]]])
    returns = np.array([[0.1, 0.2, 9, 9], [0.4, -0.1, 9, 9]])
    got = managed_portfolios(signals, returns, times, np.array([0, 0]), np.array([4, 4]))
    np.testing.assert_allclose(got, [[0.1, 0.2], [(0.6 - 0.4) / 2, (0.8 + 0.4) / 2], [-0.2, 0.0]])


def split_of(bars, costs=(0.001, 0.0005, 1e-5), first=300) -> Split:
    """Bars as a split that decides from bar `first` on."""
    n, longest = len(bars), max(len(b.time) for b in bars)
    tape = random_tape(0, n, longest, 1, first)
    prices = {
        k: jnp.asarray([np.pad(getattr(b, k), (0, longest - len(b.time)), mode="edge") for b in bars], jnp.float32)
        for k in ("open", "high", "low", "close")
    }
    tape = tape._replace(
        **prices,
        length=jnp.asarray([len(b.time) for b in bars], jnp.int32),
        costs=Costs(*(jnp.full(n, c, jnp.float32) for c in costs)),
        bars_per_year=jnp.full(n, 250.0),
    )
    return Split(tape, tuple(b.symbol for b in bars), tuple(b.time for b in bars))


@pytest.fixture(scope="module")
def bars() -> list[Bars]:
    return [bars_of(walk(700, 1), np.append(100.0, walk(700, 1)[:-1])), bars_of(walk(640, 2), symbol="TWO")]


def changed(bars: Bars, at: int) -> Bars:
    """The same up to bar `at`, and all else afterwards."""
    names = ("open", "high", "low", "close")
    return dataclasses.replace(bars, **{k: np.append(getattr(bars, k)[:at], 3 * getattr(bars, k)[at:]) for k in names})


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda r: r.name)
def test_no_signal_looks_ahead(bars, rule):
    at = 500
    before, after = (rule.signals(bar_inputs(b)) for b in (bars[0], changed(bars[0], at)))
    np.testing.assert_array_equal(before[:at], after[:at])
    assert np.abs(before[:, 0]).max() <= 5


def test_what_is_fitted_is_of_the_training_range_alone(bars):
    split = split_of(bars)
    first, length = np.array([300, 300]), np.array([600, 560])
    fitted = fit_rules(rule_signals(bars, split), split, first, length)
    assert set(fitted) == {"linear_1", "linear_10"}
    other = [changed(b, n) for b, n in zip(bars, length, strict=True)]
    again = fit_rules(rule_signals(other, split_of(other)), split_of(other), first, length)
    assert fitted == again
    # Against the formula: rows of each symbol's decisions, the returns from the next open to the one after.
    rows = {}
    for s, b in enumerate(bars):
        x, open_ = trend_signals(bar_inputs(b)), np.asarray(split.tape.open[s], np.float64)
        for t in range(first[s], length[s] - 2):
            rows.setdefault(t, []).append(x[t] * (open_[t + 2] / open_[t + 1] - 1))
    weights = ridge_weights(np.array([np.mean(r, axis=0) for r in rows.values()]), 10)
    np.testing.assert_allclose(fitted["linear_10"].weights, weights, rtol=1e-8)
    # The mean size of a side is a half there, before it is clipped.
    signals = [trend_signals(bar_inputs(b))[300 : n - 1] for b, n in zip(bars, length, strict=True)]
    sides = np.concatenate(signals) @ weights / fitted["linear_10"].scale
    assert np.abs(sides).mean() == pytest.approx(0.5)


def test_a_rule_without_weights_is_left_out_and_named(bars):
    split = split_of(bars)
    signals = rule_signals(bars, split)
    assert fit_rules(signals, split, np.array([300, 300]), np.array([390, 390])) == {}  # 88 times for 10 weights
    sides = rule_sides(signals, {"linear_1": Fitted((0.0,) * 9 + (2.0,), 4.0), "linear_10": Fitted((1.0,), 1.0)})
    assert sides.missing == ("linear_10",)
    assert sides.names == tuple(n for n in RULES if n != "linear_10")
    assert set(sides.values[0, :700, sides.names.index("linear_1")]) == {0.5}  # 2 x 1 over 4
    assert (np.abs(sides.values) <= 1).all()


def test_signals_of_a_split_are_those_of_the_whole_bars(bars):
    whole = split_of(bars)
    late = Split(whole.tape, whole.symbols, tuple(b.time[400:] for b in bars))
    found = rule_signals(bars, late, [RULES["sign_252"]])["sign_252"]
    np.testing.assert_array_equal(found[0, :300], RULES["sign_252"].signals(bar_inputs(bars[0]))[400:])
    np.testing.assert_array_equal(found[1, 240:], np.zeros((460, 1)))  # padding


@pytest.mark.parametrize(
    ("signals", "said"),
    [
        (lambda m: np.ones(len(m.close)), r"must be of shape \(700, 1\), got \(700,\)"),
        (lambda m: np.ones((len(m.close), 2)), r"must be of shape \(700, 1\), got \(700, 2\)"),
        (lambda m: np.full((len(m.close), 1), np.nan), "signals of ONE must be finite at every bar"),
    ],
)
def test_a_rule_that_gives_something_else_is_said(bars, signals, said):
    with pytest.raises(ConfigError, match=f"rule 'odd': .*{said}"):
        rule_signals(bars, split_of(bars), [Rule("odd", "Odd", "", signals)])


@pytest.mark.parametrize("sized", [False, True])
def test_accounts_of_rules_against_a_plain_loop(bars, sized):
    split = split_of(bars, first=600)
    tape = split.tape._replace(allow_short=jnp.array([True, False]))
    env = EnvConfig(max_exposure=1.5, rebalance_band=0.1)
    rng = np.random.default_rng(4)
    sides = rng.choice([-1, -0.3, 0, 0.25, 0.3, 1], (2, 700, 3)).astype(np.float32)
    sides[:, :, 2] = np.cumsum(rng.normal(0, 0.03, (2, 700)), axis=1).clip(-1, 1)  # moves within the band, too
    size = 1.5 * np.ones((2, 700), np.float32)
    if sized:
        size = np.exp(np.cumsum(rng.normal(0, 0.05, (2, 700)), axis=1)).clip(0.2, 1.5).astype(np.float32)
        tape = tape._replace(size=jnp.asarray(size))
    n_bars = 99
    played = jax.jit(lambda s: play_rules(decision_sides(s, tape, n_bars), env, tape, n_bars))(sides)
    assert played.equity.shape == (99, 3, 2)
    for s, n in enumerate((99, 39)):
        wished = sides[s, 600 : 600 + n].astype(np.float64)
        wished = wished if s == 0 else np.maximum(wished, 0)
        prices = (np.asarray(x[s, 600 : 601 + n], np.float64) for x in (tape.open, tape.close))
        open_, close = prices
        for lane in range(3):
            wanted = plain_account(wished[:, lane], open_, close, 0.001, 0.0005, 1e-5, 0.1, size[s, 600 : 600 + n])
            np.testing.assert_allclose(played.equity[:n, lane, s], wanted, rtol=2e-5)
    assert (np.asarray(played.sums.trades)[:2] > 0).all()


def test_yardsticks_name_the_best_and_hold_is_the_first(bars):
    split = split_of(bars, first=600)
    data = EvaluationSet(split.tape, device_calendar(joint_calendar(split)))
    chosen = [RULES["long"], RULES["momentum"]]
    sides = rule_sides(rule_signals(bars, split, chosen), {}, chosen)
    found = score_yardsticks(sides, EnvConfig(), data, 99)
    assert found.names == (HOLD, "long", "momentum")
    # Without sizes and leverage, always long is buy-and-hold.
    assert found.of("long").metrics.net_return == pytest.approx(found.of(HOLD).metrics.net_return, abs=1e-5)
    assert found.of("long").portfolio.turnover == pytest.approx(found.of(HOLD).portfolio.turnover, rel=0.2)
    sharpes = [float(found.of(n).portfolio.sharpe) for n in found.names]
    assert found.best == (found.names[int(np.argmax(sharpes))], max(sharpes))
    assert found.of("momentum").portfolio_equity[-1] - 1 == pytest.approx(found.of("momentum").portfolio.net_return)
