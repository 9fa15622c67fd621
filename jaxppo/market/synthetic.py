"""The embedded market: what `python -m jaxppo.train` trades when it is given no data.

Hourly bars round the clock, with volatility regimes, fat tails and a planted edge: a hidden expected return that
reverts to zero within days, and a weak reversal of the last bar's surprise. Both show only in past returns, as they
would in a real market; `planted.py` has markets whose edge is known exactly.

The sizes were set so that a good policy earns something and a bad one pays for it. On 40 symbols (5 seeds), net of
0.1 % a side and annualised with 8,766 bars a year (round the clock), a moving average of past returns (half-life 32
bars, long above 1.2 deviations, short below) has a yearly Sharpe of 1.9 a symbol, buy-and-hold 0.0. The symbols are
independent, so eight of them pooled have nearly three times a symbol's Sharpe: no real market is as kind.
"""

from __future__ import annotations

import numpy as np

from jaxppo.market.bars import Bars

HOUR = 3600
END = 1_735_689_600  # 2025-01-01 00:00 UTC: every symbol's last bar closes here.

VOLATILITY = (0.002, 0.0035)  # Range of a symbol's hourly deviation in the middle regime: 19 to 33 % a year.
REGIME_SCALE = (0.6, 1.0, 1.8)  # Deviation in the calm, middle and wild regime, as a multiple.
REGIME_BARS = (240.0, 160.0, 80.0)  # Mean length of a stay in each.
TAIL_DEGREES = 5.0  # Degrees of freedom of the Student t surprises: excess kurtosis 6.
DRIFT_EDGE = 0.09  # Deviation of the hidden expected return, as a multiple of the bar's deviation.
DRIFT_HALF_LIFE = 48.0  # Bars: two days.
REVERSAL = 0.03  # Share of the last bar's surprise that is given back.


def synthetic_market(seed: int, n_symbols: int = 8, n_bars: int = 24_000) -> list[Bars]:
    """Symbols SYN_A, SYN_B, ... of class equity (0.1 % per side), which end together and start apart.

    The log return of bar t + 1 is v (DRIFT_EDGE s_t - REVERSAL e_t + e_{t+1}) - v^2 / 2: v its regime's deviation, s an
    AR(1) of unit variance, e Student t scaled to unit variance, and the last term for a price that is worth holding
    as little as a martingale. A symbol depends on the seed and its place alone, not on how many follow.

    Args:
        seed: of everything that is drawn.
        n_symbols: at least 1.
        n_bars: bars of the longest symbol; the others are up to 7 % shorter.

    Returns:
        One `Bars` a symbol, open[t + 1] == close[t].
    """
    lengths = [n_bars - (i % 8) * n_bars // 100 for i in range(n_symbols)]
    return [_symbol(np.random.default_rng([seed, i]), i, n, f"seed {seed}") for i, n in enumerate(lengths)]


def symbol_name(i: int) -> str:
    """SYN_A to SYN_Z, then SYN_A1 and so on."""
    return f"SYN_{chr(ord('A') + i % 26)}{i // 26 or ''}"


def _symbol(rng: np.random.Generator, i: int, n: int, source: str) -> Bars:
    regime = markov_regimes(rng, n)
    deviation = rng.uniform(*VOLATILITY) * np.asarray(REGIME_SCALE)[regime]
    drift = DRIFT_EDGE * ar1(rng, (n,), 0.5 ** (1.0 / DRIFT_HALF_LIFE))
    # One Student t = a normal draw over an independent deviation; the path inside the bar shares that deviation.
    tail = np.sqrt((TAIL_DEGREES - 2.0) / rng.chisquare(TAIL_DEGREES, n))
    surprise = tail * rng.standard_normal(n)
    expected = np.zeros(n)
    expected[1:] = drift[:-1] - REVERSAL * surprise[:-1]
    log_return = deviation * (expected + surprise) - 0.5 * deviation**2
    activity = np.exp(0.4 * ar1(rng, (n,), 0.95) + 0.5 * np.abs(surprise))
    return bars_from_log_returns(
        rng, symbol_name(i), log_return, deviation * tail, 1e4 * activity * np.asarray(REGIME_SCALE)[regime], source
    )


def markov_regimes(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n,) int states of a chain that stays `REGIME_BARS` on average, then moves to a neighbouring state."""
    states = np.zeros(n, int)
    state, t = 1, 0
    while t < n:
        stay = int(rng.geometric(1.0 / REGIME_BARS[state]))
        states[t : t + stay] = state
        t += stay
        state = 1 if state != 1 else int(rng.choice([0, 2]))
    return states


def ar1(rng: np.random.Generator, shape: tuple[int, ...], phi: float) -> np.ndarray:
    """Stationary AR(1) of zero mean and unit variance along the last axis: x_t = phi x_{t-1} + sqrt(1 - phi^2) z_t."""
    x = np.moveaxis(rng.standard_normal(shape), -1, 0)
    x[1:] *= np.sqrt(1.0 - phi**2)
    for t in range(1, len(x)):
        x[t] += phi * x[t - 1]
    return np.moveaxis(x, 0, -1)


def bars_from_log_returns(
    rng: np.random.Generator,
    symbol: str,
    log_return: np.ndarray,
    deviation: np.ndarray,
    volume: np.ndarray,
    source: str,
) -> Bars:
    """Hourly bars with these close-to-close log returns, whose highs and lows are those of a path inside each bar.

    The path is a Brownian bridge from open to close in continuous time. The extremes of a few steps would fall short of
    it, and a stop that fills at its level would then earn money out of nothing: 0.58 deviations / sqrt(steps) each. The
    maximum of a bridge from 0 to x is (x + sqrt(x^2 - 2 deviation^2 log U)) / 2 (Glasserman 2003, "Monte Carlo Methods
    in Financial Engineering", eq. 6.50). Highs and lows are drawn apart.

    Args:
        rng: draws the extremes.
        symbol: its name.
        log_return: (T,) float64, the first from the opening price 100.
        deviation: (T,) float64, of the path of a whole bar, as a fraction of the price.
        volume: (T,) float64.
        source: for messages.

    Returns:
        T bars with open[t + 1] == close[t] that end at `END`.
    """
    n = len(log_return)
    close = 100.0 * np.exp(np.cumsum(log_return))
    opening = np.concatenate([[100.0], close[:-1]])
    up, down = np.sqrt(log_return**2 - 2.0 * deviation**2 * np.log1p(-rng.random((2, n))))
    high, low = opening * np.exp((log_return + up) / 2.0), opening * np.exp((log_return - down) / 2.0)
    return Bars(
        symbol=symbol,
        asset_class="equity",
        interval=HOUR,
        timezone="UTC",
        time=END + HOUR * np.arange(-n, 0),
        open=opening,
        high=np.maximum(high, np.maximum(opening, close)),
        low=np.minimum(low, np.minimum(opening, close)),
        close=close,
        volume=volume,
        source=f"synthetic market, {source}",
    )
