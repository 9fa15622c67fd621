"""Markets whose edge is known, and the best that any policy can earn on them.

The next bar's log return is edge * s_t - noise^2 / 2 + noise * z, with s_t an AR(1) of unit variance known at the close
of bar t. So for a position p chosen at that close, filled at open[t + 1] (which equals close[t]) and held to the next
open, the expected simple return is p * (exp(edge * s_t) - 1). Learning benchmarks compare a policy with `dp_oracle`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erf

import numpy as np

from jaxppo.market.bars import Bars
from jaxppo.market.synthetic import ar1, bars_from_log_returns, symbol_name

POSITIONS = (-1.0, 0.0, 1.0)
GRID_SIZE = 201
GRID_REACH = 4.0  # Deviations of the signal on either side of the grid.


def ar1_market(
    seed: int, n_symbols: int, n_bars: int, *, phi: float, edge: float, noise: float
) -> tuple[list[Bars], np.ndarray]:
    """A market with an observable signal.

    Args:
        seed: of everything that is drawn.
        n_symbols: S independent symbols.
        n_bars: T bars each.
        phi: autocorrelation of the signal from bar to bar, in [0, 1).
        edge: expected log return of the next bar per unit of signal.
        noise: deviation of the log return around it.

    Returns:
        S `Bars` with open[t + 1] == close[t], and the signal (S, T) float64: signal[:, t] is known at close t and
        carries the return of bar t + 1.
    """
    rng = np.random.default_rng([seed, n_symbols, n_bars])
    signal = ar1(rng, (n_symbols, n_bars), phi)
    log_return = noise * rng.standard_normal((n_symbols, n_bars)) - 0.5 * noise**2
    log_return[:, 1:] += edge * signal[:, :-1]
    deviation, volume = np.full(n_bars, noise), np.full(n_bars, 1e4)
    bars = [
        bars_from_log_returns(rng, symbol_name(i), log_return[i], deviation, volume, f"planted, seed {seed}")
        for i in range(n_symbols)
    ]
    return bars, signal


def latent_drift_market(
    seed: int, n_symbols: int, n_bars: int, *, phi: float, edge: float, noise: float
) -> tuple[list[Bars], np.ndarray]:
    """The same market for a policy that is shown past returns only: returns its bars and the hidden signal (S, T).

    Its best policy is `dp_oracle` on `filtered_signal`.
    """
    return ar1_market(seed, n_symbols, n_bars, phi=phi, edge=edge, noise=noise)


def driftless_market(seed: int, n_symbols: int, n_bars: int, vol: float) -> list[Bars]:
    """Martingale prices of deviation `vol` a bar: before costs every policy's expected simple return is 0."""
    return ar1_market(seed, n_symbols, n_bars, phi=0.0, edge=0.0, noise=vol)[0]


def filtered_signal(close: np.ndarray, *, phi: float, edge: float, noise: float) -> tuple[np.ndarray, float]:
    """The Kalman filter's view of the signal of `latent_drift_market`, from past closes alone.

    The estimate of a steady-state filter is itself an AR(1) with the same phi, so over its deviation it is the signal
    of an observable market with edge `edge * deviation`, and `dp_oracle` solves that one. A filter of a Gaussian
    state-space model is optimal: Kalman 1960, "A New Approach to Linear Filtering and Prediction Problems".

    Args:
        close: (T,) float64.
        phi, edge, noise: of the market; edge above 0.

    Returns:
        (T,) float64 estimate of the signal at each close, in units of its own deviation; and that deviation, the
        correlation between estimate and signal, in [0, 1].
    """
    variance = 1.0  # Of the signal at close t, given closes <= t; iterated to its steady state.
    for _ in range(10_000):
        gain = edge * variance / (edge**2 * variance + noise**2)
        variance = phi**2 * variance * (1.0 - gain * edge) + 1.0 - phi**2
    surprise = np.diff(np.log(close)) + 0.5 * noise**2
    estimate = np.zeros(len(close))
    for t in range(1, len(close)):
        before = estimate[t - 1]
        estimate[t] = phi * (before + gain * (surprise[t - 1] - edge * before))
    deviation = float(np.sqrt(1.0 - variance))
    return estimate / deviation, deviation


@dataclass(frozen=True)
class Oracle:
    """The best policy on an AR(1) signal. `target` indexes `positions` by nearest grid point and current position."""

    grid: np.ndarray  # (N,) float64 signal values
    target: np.ndarray  # (N, J) int
    profit: float  # expected net return per bar
    positions: tuple[float, ...]  # J, 0 among them


def dp_oracle(
    *,
    phi: float,
    edge: float,
    cost: float,
    noise: float = 0.0,
    positions: tuple[float, ...] = POSITIONS,
    reach: np.ndarray | None = None,
) -> Oracle:
    """Policy of greatest expected net return per bar over given positions, by relative value iteration.

    At close t, with position j, choosing position p earns p (exp(edge s_t) - 1) - cost |p - j| - p^2 noise^2 / 2 on bar
    t + 1. The AR(1) is discretised after Tauchen 1986, "Finite state Markov-chain approximations to univariate and
    vector autoregressions".

    Args:
        phi: autocorrelation of the signal, at most 0.995: the grid rounds smaller steps.
        edge: expected log return of the next bar per unit of signal.
        cost: per side, as a fraction of the notional.
        noise: deviation of the log return, for the greatest growth of log wealth; 0 for the greatest simple profit.
        positions: J exposures, 0 among them.
        reach: (J held, J chosen) bool: which position an action can lead to; None for any.

    Returns:
        The policy and its profit per bar.
    """
    if not 0.0 <= phi <= 0.995:
        raise ValueError(f"phi must be in [0, 0.995], got {phi}")
    grid = np.linspace(-GRID_REACH, GRID_REACH, GRID_SIZE)
    chain = tauchen(grid, phi)
    p, flat = np.asarray(positions), positions.index(0.0)
    earned = np.outer(np.expm1(edge * grid), p) - 0.5 * noise**2 * p**2  # (N, J chosen)
    paid = cost * np.abs(p[:, None] - p)  # (J held, J chosen)
    if reach is not None:
        paid = np.where(reach, paid, np.inf)
    value = np.zeros((GRID_SIZE, len(p)))  # of signal and position held
    while True:
        action_value = (earned + chain @ value)[:, None, :] - paid  # (N, J held, J chosen)
        new_value = action_value.max(axis=2)
        step = new_value - value
        if np.ptp(step) < 1e-12:
            return Oracle(grid, action_value.argmax(axis=2), float(step.mean()), positions)
        value = new_value - new_value[GRID_SIZE // 2, flat]


def tauchen(grid: np.ndarray, phi: float) -> np.ndarray:
    """(N, N) transition probabilities of a unit-variance AR(1) between the cells around evenly spaced grid points."""
    edges = (grid[1:] + grid[:-1]) / 2.0
    z = (edges - phi * grid[:, None]) / np.sqrt(1.0 - phi**2)
    below = 0.5 * (1.0 + np.vectorize(erf)(z / np.sqrt(2.0)))
    return np.diff(below, axis=1, prepend=0.0, append=1.0)


def oracle_positions(signal: np.ndarray, oracle: Oracle) -> np.ndarray:
    """Positions (T,) of the oracle along a path, from flat: positions[t] is chosen at close t and earns bar t + 1.

    Args:
        signal: (T,) float64, known at each close.
        oracle: from `dp_oracle`.
    """
    spacing = oracle.grid[1] - oracle.grid[0]
    nearest = np.clip(np.rint((signal - oracle.grid[0]) / spacing).astype(int), 0, len(oracle.grid) - 1)
    chosen = np.empty(len(signal), int)
    held = oracle.positions.index(0.0)
    for t, row in enumerate(oracle.target[nearest]):
        held = chosen[t] = row[held]
    return np.asarray(oracle.positions)[chosen]
