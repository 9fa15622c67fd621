"""The embedded market and the markets with a known edge: consistent bars, the promised edge, and the best policy."""

import numpy as np
import polars as pl
import pytest
import talib

from jaxppo.market import synthetic
from jaxppo.market.planted import (
    POSITIONS,
    ar1_market,
    dp_oracle,
    driftless_market,
    filtered_signal,
    latent_drift_market,
    oracle_positions,
    tauchen,
)
from jaxppo.market.synthetic import synthetic_market

PRICES = ("open", "high", "low", "close")
COST = 0.001
SIZES = {"phi": 0.97, "edge": 5e-4, "noise": 4e-3}


def net_returns(positions, simple_return, cost=COST):
    """positions[t], chosen at close t, earns simple_return[t + 1] and pays for its change from positions[t - 1]."""
    traded = np.abs(np.diff(positions, prepend=0.0))
    return positions[:-1] * simple_return[1:] - cost * traded[:-1]


def bar_returns(bars):
    return bars.close / bars.open - 1.0


def hold_beyond(signal, threshold):
    """Positions that turn long above the threshold, short below minus it, and are held in between."""
    entered = pl.Series(np.where(np.abs(signal) > threshold, np.sign(signal), np.nan)).fill_nan(None)
    return entered.forward_fill().fill_null(0.0).to_numpy()


def markets():
    return [
        *synthetic_market(3, 3, 2_000),
        *ar1_market(3, 2, 2_000, **SIZES)[0],
        *latent_drift_market(4, 2, 2_000, **SIZES)[0],
        *driftless_market(3, 2, 2_000, 0.004),
    ]


def test_bars_are_consistent_and_open_where_the_last_one_closed():
    for bars in markets():
        np.testing.assert_array_equal(bars.open[1:], bars.close[:-1])
        assert (bars.low > 0).all()
        assert (bars.low <= np.minimum(bars.open, bars.close)).all()
        assert (bars.high >= np.maximum(bars.open, bars.close)).all()
        assert (bars.high > np.maximum(bars.open, bars.close)).mean() > 0.5  # the path leaves [open, close]
        assert (bars.volume > 0).all()
        assert bars.time.dtype == np.int64
        np.testing.assert_array_equal(np.diff(bars.time), bars.interval)
        assert (bars.asset_class, bars.timezone, bars.time[0] % 3600) == ("equity", "UTC", 0)


def test_markets_depend_on_the_seed_alone():
    for make in (lambda s: synthetic_market(s, 2, 500), lambda s: ar1_market(s, 2, 500, **SIZES)[0]):
        first, again, other = make(1), make(1), make(2)
        for i in range(2):
            for field in (*PRICES, "volume", "time"):
                np.testing.assert_array_equal(getattr(first[i], field), getattr(again[i], field))
            assert (first[i].close != other[i].close).all()
        assert (first[0].close[-400:] != first[1].close[-400:]).all()
    np.testing.assert_array_equal(synthetic_market(1, 3, 500)[1].close, synthetic_market(1, 2, 500)[1].close)


def test_the_embedded_market_has_eight_symbols_that_end_together():
    market = synthetic_market(7)
    assert [b.symbol for b in market] == [f"SYN_{letter}" for letter in "ABCDEFGH"]
    assert [len(b.time) for b in market] == [24_000 - 240 * i for i in range(8)]
    assert len({b.time[-1] for b in market}) == 1
    assert [synthetic.symbol_name(i) for i in (25, 26, 52)] == ["SYN_Z", "SYN_A1", "SYN_A2"]


def test_the_embedded_market_has_fat_tails_and_volatility_regimes():
    for bars in synthetic_market(7):
        r = np.diff(np.log(bars.close))
        assert 0.0015 < r.std() < 0.0045
        assert (((r - r.mean()) / r.std()) ** 4).mean() > 5.0  # 3 for a normal distribution
        daily = np.abs(r)[: len(r) // 24 * 24].reshape(-1, 24).mean(axis=1)
        assert np.corrcoef(daily[:-1], daily[1:])[0, 1] > 0.3
        # Volume comes with it, though one return of 30 deviations pulls the correlation down: 0.29 to 0.59 were seen.
        assert np.corrcoef(np.abs(r), bars.volume[1:])[0, 1] > 0.2


def test_the_embedded_edge_pays_a_moving_average_of_past_returns_and_not_its_holder():
    ours, holders = [], []
    for seed in range(5):
        for bars in synthetic_market(seed):
            simple = bar_returns(bars)
            # span 93: half-life 32 bars; thresholds in deviations of the average, as the first 2,000 bars show it
            trend = talib.EMA(np.log1p(simple) / np.sqrt(talib.EMA(simple**2, 72)).clip(1e-4), 93)
            trend = np.nan_to_num(trend) / np.nanstd(trend[:2000])
            net = net_returns(hold_beyond(trend, 0.9), simple)[2000:]
            ours.append(net.mean() / net.std() * np.sqrt(365.25 * 24))
            holders.append(simple.mean() / simple.std() * np.sqrt(365.25 * 24))
    # 40 runs of 21,000 bars = 3.5 years: the error of the mean is 1 / sqrt(40 * 3.5) = 0.085
    assert 1.3 < np.mean(ours) < 2.3
    assert abs(np.mean(holders)) < 0.5


def test_the_planted_signal_is_known_at_the_close_before_the_return_it_carries():
    bars, signal = ar1_market(0, 2, 100_000, **SIZES)
    assert signal.shape == (2, 100_000)
    for b, s in zip(bars, signal, strict=True):
        assert abs(s.var() - 1.0) < 0.1
        assert abs(np.corrcoef(s[1:], s[:-1])[0, 1] - 0.97) < 0.005
        r = bar_returns(b)
        # slope edge, its error 4e-3 / sqrt(1e5) = 1.3e-5
        assert abs(np.polyfit(s[:-1], r[1:], 1)[0] - 5e-4) < 5e-5
        surprise = r[1:] - np.expm1(5e-4 * s[:-1])
        assert abs(surprise.mean()) < 5e-5
        assert abs(surprise.std() - 4e-3) < 5e-5


def test_the_signal_tells_the_next_bar_and_nothing_of_its_own():
    bars, signal = ar1_market(0, 1, 20_000, phi=0.0, edge=0.01, noise=0.01)
    r = np.log(bars[0].close / bars[0].open)
    # edge over the deviation of the sum of edge and noise: 1 / sqrt(2) = 0.707; error 1 / sqrt(20,000) = 0.007
    assert np.corrcoef(signal[0, :-1], r[1:])[0, 1] == pytest.approx(0.707, abs=0.02)
    assert abs(np.corrcoef(signal[0], r)[0, 1]) < 0.03


def test_driftless_prices_pay_no_rule():
    # 5 % a bar: a log return without drift would make the mean 0.05^2 / 2 = 1.25e-3, 8 errors of 1.6e-4
    for bars in driftless_market(0, 3, 100_000, 0.05):
        r = bar_returns(bars)
        error = 0.05 / np.sqrt(len(r))
        assert abs(r.std() - 0.05) < 1e-3
        assert abs(r.mean()) < 4 * error
        for rule in (np.sign(r), -np.sign(r), hold_beyond(talib.EMA(r, 50), 0.01)):
            assert abs(net_returns(rule, r, cost=0.0).mean()) < 4 * error


def test_tauchen_keeps_the_moments_of_the_signal():
    grid = np.linspace(-4, 4, 201)
    for phi in (0.0, 0.9, 0.99):
        chain = tauchen(grid, phi)
        np.testing.assert_allclose(chain.sum(axis=1), 1.0, atol=1e-12)
        inner = np.abs(grid) < 2
        np.testing.assert_allclose((chain @ grid)[inner], phi * grid[inner], atol=2e-3)
        spread = chain @ grid**2 - (chain @ grid) ** 2
        np.testing.assert_allclose(spread[inner], 1 - phi**2, rtol=0.02)


def test_without_costs_the_oracle_follows_the_sign_of_the_signal():
    oracle = dp_oracle(phi=0.9, edge=5e-4, cost=0.0)
    chosen = np.asarray(POSITIONS)[oracle.target]
    np.testing.assert_array_equal(chosen[oracle.grid > 0.01], 1.0)
    np.testing.assert_array_equal(chosen[oracle.grid < -0.01], -1.0)
    # E|s| = sqrt(2 / pi) = 0.79788
    assert oracle.profit == pytest.approx(5e-4 * 0.79788, rel=2e-3)


def test_with_an_unpredictable_signal_the_oracle_trades_at_the_thresholds_worked_out_by_hand():
    # phi = 0, edge = cost: in units of it, flat is worth E max(s - 1, 0, -s - 1) = 2 E (s - 1)+, that is
    # 2 (pdf(1) - 1 + cdf(1)) = 2 (0.241971 - 0.158655) = 0.166631 a bar, and long E max(s, -1, -s - 2) = E |s + 1| - 1,
    # which is the same. So the position held is worth nothing in itself: flat turns long above 1 and short below -1,
    # and long turns short below -1.
    oracle = dp_oracle(phi=0.0, edge=1e-3, cost=1e-3)
    chosen = np.asarray(POSITIONS)[oracle.target]
    near = np.abs(np.abs(oracle.grid) - 1.0) < 0.03  # the grid points next to the thresholds
    s = oracle.grid[~near]
    np.testing.assert_array_equal(chosen[~near, 1], np.where(s > 1, 1.0, np.where(s < -1, -1.0, 0.0)))
    np.testing.assert_array_equal(chosen[~near, 2], np.where(s < -1, -1.0, 1.0))
    np.testing.assert_array_equal(chosen[~near, 0], np.where(s > 1, 1.0, -1.0))
    assert oracle.profit == pytest.approx(0.166631e-3, rel=5e-3)


def test_an_oracle_that_pays_more_than_it_can_earn_stays_flat():
    oracle = dp_oracle(phi=0.5, edge=1e-4, cost=0.01, noise=0.004)
    assert (oracle.target[:, 1] == 1).all()
    assert oracle.profit == pytest.approx(0.0, abs=1e-12)
    signal = ar1_market(0, 1, 500, phi=0.5, edge=1e-4, noise=0.004)[1][0]
    assert not oracle_positions(signal, oracle).any()


@pytest.mark.parametrize(("phi", "edge"), [(0.97, 5e-4), (0.8, 2e-3)])
def test_no_threshold_rule_beats_the_oracle(phi, edge):
    signal = ar1_market(0, 1, 400_000, phi=phi, edge=edge, noise=4e-3)[1][0]
    oracle = dp_oracle(phi=phi, edge=edge, cost=COST)
    # Profit in expectation given the signal: the noise of the returns would only blur the comparison.
    expected = np.concatenate([[0.0], np.expm1(edge * signal[:-1])])
    best = net_returns(oracle_positions(signal, oracle), expected)
    rules = [net_returns(hold_beyond(signal, a), expected) for a in np.arange(0.0, 2.0, 0.1)]
    flat_between = [net_returns(np.where(np.abs(signal) > a, np.sign(signal), 0.0), expected) for a in (0.2, 0.5, 1.0)]
    # On the same path, so paired: the errors of the differences, taken over blocks of 1,000 bars.
    for rule in rules + flat_between:
        difference = (best - rule)[:399_000].reshape(-1, 1_000).mean(axis=1)
        assert difference.mean() > -3 * difference.std(ddof=1) / np.sqrt(len(difference))
    blocks = best[:399_000].reshape(-1, 1_000).mean(axis=1)
    assert abs(blocks.mean() - oracle.profit) < 3 * blocks.std(ddof=1) / np.sqrt(len(blocks))
    assert max(r.mean() for r in rules) > 0.97 * oracle.profit  # and it is no easy opponent


def test_noise_makes_the_oracle_maximise_log_growth():
    # p edge s - p^2 noise^2 / 2 - cost: at noise^2 / 2 = edge, staying flat is best for |s| < 1 were there no costs
    oracle = dp_oracle(phi=0.0, edge=1e-4, cost=0.0, noise=np.sqrt(2e-4))
    flat = oracle.grid[oracle.target[:, 1] == 1]
    assert flat.min() == pytest.approx(-1.0, abs=0.05)
    assert flat.max() == pytest.approx(1.0, abs=0.05)


def test_the_filtered_signal_is_the_best_view_of_a_latent_drift():
    bars, hidden = latent_drift_market(0, 1, 400_000, **SIZES)
    estimate, correlation = filtered_signal(bars[0].close, **SIZES)
    assert 0.35 < correlation < 0.5
    assert estimate[1000:].std() == pytest.approx(1.0, abs=0.03)
    assert np.corrcoef(estimate, hidden[0])[0, 1] == pytest.approx(correlation, abs=0.02)
    assert np.corrcoef(estimate[1:], estimate[:-1])[0, 1] == pytest.approx(0.97, abs=0.005)
    log_return = np.diff(np.log(bars[0].close), prepend=np.log(100.0))
    for span in (10, 40, 160, 640):
        average = talib.EMA(log_return, span)
        assert np.corrcoef(average[1000:], hidden[0][1000:])[0, 1] < correlation + 0.01


def test_the_oracle_on_the_filtered_signal_earns_what_it_promises():
    bars, _ = latent_drift_market(1, 1, 400_000, **SIZES)
    estimate, correlation = filtered_signal(bars[0].close, **SIZES)
    oracle = dp_oracle(phi=SIZES["phi"], edge=SIZES["edge"] * correlation, cost=COST)
    net = net_returns(oracle_positions(estimate, oracle), bar_returns(bars[0]))
    error = 4e-3 / np.sqrt(len(net))
    assert oracle.profit > 10 * error
    assert abs(net.mean() - oracle.profit) < 3 * error


def test_a_signal_finer_than_the_grid_is_refused():
    with pytest.raises(ValueError, match="phi must be in"):
        dp_oracle(phi=0.999, edge=1e-4, cost=0.001)
