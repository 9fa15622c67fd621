"""Rules: what needs no training, or one closed formula, and a policy must beat. Each is a record of a registry.

A rule says a side in [-1, 1] at every bar, from bars up to that one alone. It is computed on the host from the whole
bars of a symbol, as features are, so that no history is cut where a split begins; `jaxppo.play.sides` plays it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from jaxppo.market.inputs import Inputs
from jaxppo.market.trend import macd_deviations, return_over, trend_returns
from jaxppo.registry import Registry

MOMENTUM_BARS = 20
SIGN_BARS = (63, 126, 252)


@dataclass(frozen=True)
class Rule:
    """A baseline that is played next to every policy: an entry of `RULES`.

    Example:
      >>> breakout = lambda m: np.where(m.close >= np.maximum.accumulate(m.close), 1.0, 0.0)[:, None]
      >>> Rule("at_the_top", "At the top", "long where the close is the highest so far", breakout).fit is None
      True
    """

    name: str
    title: str  # on a page
    help: str
    signals: Callable[[Inputs], np.ndarray]
    """Of one symbol's whole bars to (T, J) float64, row t from bars up to t alone.

    J is 1 for a rule whose signal is its side in [-1, 1]; a rule that is fitted may have more.
    """
    fit: Callable[[np.ndarray], np.ndarray] | None = None
    """Of the training split's managed portfolios (D, J) (`jaxppo.play.sides.managed_portfolios`) to weights (J,).

    The side is then clip(signals @ weights / scale, -1, 1), of a mean size of a half on the training split before it
    is clipped.
    """


def long(m: Inputs) -> np.ndarray:
    """Always the largest exposure: (T, 1)."""
    return np.ones((len(m.close), 1))


def mean_of_signs(m: Inputs, bars: tuple[int, ...]) -> np.ndarray:
    """Mean of the signs of the returns over each number of bars: (T, 1)."""
    return _mean([np.sign(return_over(m, n)) for n in bars])


def _mean(columns: Sequence[np.ndarray]) -> np.ndarray:
    mean: np.ndarray = np.mean(columns, axis=0)
    return np.expand_dims(mean, 1)


def macd(m: Inputs) -> np.ndarray:
    """Mean over the pairs of the response y exp(-y^2 / 4) / .89 to MACD in deviations y (Baz et al. 2015): (T, 1)."""
    return _mean([y * np.exp(-(y**2) / 4) / 0.89 for y in macd_deviations(m)])


def trend_signals(m: Inputs) -> np.ndarray:
    """Ten trend features (T, 10): returns over six horizons in forecast deviations, MACD of three speeds, and 1."""
    return np.column_stack([*trend_returns(m), *macd_deviations(m), np.ones(len(m.close))])


def ridge_weights(portfolios: np.ndarray, multiple: float) -> np.ndarray:
    """(Sigma + lambda I)^-1 mu of managed portfolios (D, J), lambda `multiple` times the mean eigenvalue: (J,).

    The weights of the largest Sharpe ratio among linear policies, shrunk: Brandt and Santa-Clara (2006), "Dynamic
    Portfolio Selection by Augmenting the Asset Space", with a ridge.

    Example (two uncorrelated portfolios that earn the same, one with twice the variance):
      >>> ridge_weights(np.array([[3.0, 1.0], [-1.0, 1.0], [1.0, 1 + 2**0.5], [1.0, 1 - 2**0.5]]), 0.0).round(3)
      array([0.375, 0.75 ])
    """
    sigma = np.atleast_2d(np.cov(portfolios, rowvar=False))
    ridge = multiple * np.trace(sigma) / len(sigma)
    return np.linalg.solve(sigma + ridge * np.eye(len(sigma)), portfolios.mean(0))


def _sign(n: int) -> Rule:
    words = f"full exposure in the direction of the last {n} bars"
    return Rule(f"sign_{n}", f"Sign of {n} bars", words, partial(mean_of_signs, bars=(n,)))


def _linear(multiple: int) -> Rule:
    words = (
        f"the best linear policy of ten trend features on the training split, by formula, with a ridge of {multiple}"
    )
    return Rule(
        f"linear_{multiple}",
        f"Linear, ridge {multiple}",
        words,
        trend_signals,
        partial(ridge_weights, multiple=multiple),
    )


RULES: Registry[Rule] = Registry(
    "rule",
    [
        Rule("long", "Always long", "full exposure, at all times", long),
        Rule(
            "momentum",
            f"Momentum, {MOMENTUM_BARS} bars",
            f"full exposure in the direction of the last {MOMENTUM_BARS} bars",
            partial(mean_of_signs, bars=(MOMENTUM_BARS,)),
        ),
        *(_sign(n) for n in SIGN_BARS),
        Rule(
            "mean_of_signs",
            "Mean of signs",
            "mean of the signs of the returns over 21, 63, 126 and 252 bars",
            partial(mean_of_signs, bars=(21, *SIGN_BARS)),
        ),
        Rule("macd", "MACD", "MACD of three speeds, less where it is extreme (Baz et al. 2015)", macd),
        *(_linear(multiple) for multiple in (1, 10)),
    ],
)
