"""What every peer is given: one market, one size, one network. numpy only: a peer needs nothing of the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

FEE, STOP_LOSS, TAKE_PROFIT, RUIN = 0.001, 0.02, 0.04, 0.1
LEARNING_RATE, ADAM_EPS = 3e-4, 1e-5
GAMMA, GAE_LAMBDA, CLIP, VALUE_WEIGHT, ENTROPY, MAX_GRAD_NORM = 0.99, 0.95, 0.2, 0.5, 0.01, 0.5
REWARD_SCALE = 100.0  # the reward is the net log return of the bar, in percent
N_ACTIONS = 3  # hold, long, short


@dataclass(frozen=True)
class Setting:
    """Sizes of one comparison; a sample is a window of `window` x `n_features` floats and the account."""

    name: str
    n_features: int
    width: int
    window: int = 64
    n_envs: int = 2048
    n_steps: int = 32
    epochs: int = 4
    minibatches: int = 4
    # One symbol: Gym-Trading-Env copies its data frame and a history as long into every env, 9 MB at 17,520 bars.
    n_bars: int = 4380
    episode_steps: int = 256

    @property
    def batch_steps(self) -> int:
        return self.n_envs * self.n_steps


SETTINGS = {
    "64x16": Setting("64x16", n_features=16, width=64),
    "64x56": Setting("64x56", n_features=56, width=256),
}
SHORT_ENVS = 512


def setting(name: str, short: bool = False) -> Setting:
    """The setting called `name`; the short one has a quarter of the envs."""
    full = SETTINGS[name]
    return replace(full, n_envs=SHORT_ENVS) if short else full


@dataclass(frozen=True)
class Market:
    """One symbol's random walk with open[t + 1] == close[t], and features."""

    open: np.ndarray  # (T,) float32
    high: np.ndarray  # (T,) float32
    low: np.ndarray  # (T,) float32
    close: np.ndarray  # (T,) float32
    features: np.ndarray  # (T, F) float32


def random_market(n_bars: int, n_features: int, seed: int = 0) -> Market:
    """Prices that move 0.5 % a bar, so that stops and take-profits fire, and standard normal features."""
    rng = np.random.default_rng([seed, n_bars, n_features])
    close = np.exp(np.cumsum(rng.normal(0.0, 0.005, n_bars)))
    open_ = np.concatenate([[1.0], close[:-1]])
    high = np.maximum(open_, close) * (1.0 + np.abs(rng.normal(0.0, 0.002, n_bars)))
    low = np.minimum(open_, close) * (1.0 - np.abs(rng.normal(0.0, 0.002, n_bars)))
    features = rng.normal(size=(n_bars, n_features))
    return Market(*(x.astype(np.float32) for x in (open_, high, low, close, features)))


@dataclass(frozen=True)
class Peer:
    """Something to time: `unit` does one PPO update, or a stretch of env steps, and returns the env steps done."""

    unit: Callable[[], int]
    held: str  # what differs from the setting, in words
