"""Reward presets: weighted sums of components. A reward steers learning; no reported figure comes from one.

The predecessor gave no formula for `magnitude`, `stop_tp` and the volatility behind the first; those here are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxppo.config.schema import REWARD_COMPONENTS, RewardConfig
from jaxppo.env.account import REASON_STOP, REASON_TAKE_PROFIT, AccountState, StepRecord
from jaxppo.errors import ConfigError, nearest
from jaxppo.market.tape import MarketStep

# The drawdown from which the `drawdown` component penalises; not the trainer's own drawdown alarm.
REWARD_DRAWDOWN_THRESHOLD = 0.15
# Decay of the moving moments of the differential Sharpe ratio (Moody and Saffell 2001).
DIFFERENTIAL_SHARPE_ETA = 0.01
# A variance below one basis point squared says that the account has not traded; without the floor the first bar in the
# market would be rewarded by the hundreds.
DIFFERENTIAL_SHARPE_VARIANCE = 1e-8
DIFFERENTIAL_SHARPE_CLIP = 10.0
# An account at or below nothing has no log return; ruin ends it there.
LOG_RETURN_FLOOR = 1e-3


@dataclass(frozen=True)
class RewardPreset:
    """Weights of the components that a preset uses, and its variants of their formulas."""

    weights: dict[str, float]
    direction_threshold: float
    pnl: str  # "tanh": tanh(10 p), p in percent; "clip": clip(100 r, -2, 2)
    exploration: float


_V245 = RewardPreset(
    weights={
        "direction": 0.35,
        "magnitude": 0.10,
        "pnl": 0.25,
        "stop_tp": 0.15,
        "exploration": 0.10,
        "slippage": 0.05,
        "drawdown": 0.05,
    },
    direction_threshold=0.001,
    pnl="tanh",
    exploration=0.01,
)
_V33 = RewardPreset(
    weights={
        "direction": 0.15,
        "magnitude": 0.05,
        "pnl": 0.40,
        "stop_tp": 0.10,
        "exploration": 0.15,
        "slippage": 0.02,
        "drawdown": 0.03,
    },
    direction_threshold=0.003,
    pnl="clip",
    exploration=0.05,
)


def _single(component: str, weight: float) -> RewardPreset:
    return RewardPreset({component: weight}, _V33.direction_threshold, _V33.pnl, _V33.exploration)


REWARD_PRESETS: dict[str, RewardPreset] = {
    "v245": _V245,
    "v33": _V33,
    # In percent: the value head then learns numbers near 1 instead of near .01.
    "log_return": _single("log_return", 100.0),
    "differential_sharpe": _single("differential_sharpe", 1.0),
}


def reward_preset(config: RewardConfig) -> RewardPreset:
    """The preset that `config` names, with its weights replaced by the configured ones; zero weights drop out."""
    base = REWARD_PRESETS[config.reward]
    for name in config.reward_weights:
        if name not in REWARD_COMPONENTS:
            raise ConfigError(f"reward_weights: unknown component {name!r}; {nearest(name, REWARD_COMPONENTS)}")
    for name, weight in config.reward_weights.items():
        if not math.isfinite(weight):
            raise ConfigError(f"reward_weights: {name} has the weight {weight}; it must be a finite number")
    merged = {**base.weights, **config.reward_weights}
    weights = {name: merged[name] for name in REWARD_COMPONENTS if merged.get(name, 0.0) != 0.0}
    if not weights:
        raise ConfigError("reward_weights: every component has weight 0; give at least one a weight")
    if config.normalize_reward:
        total = sum(weights.values())
        if total <= 0:
            raise ConfigError(
                f"normalize_reward divides by the sum of the weights, which is {total}; it must be above 0"
            )
        weights = {name: w / total for name, w in weights.items()}
    return RewardPreset(weights, base.direction_threshold, base.pnl, base.exploration)


class Outcome(NamedTuple):
    """What a reward may depend on."""

    before: AccountState
    after: AccountState
    record: StepRecord
    market: MarketStep
    entropy: jax.Array  # of the policy at the decision, divided by log(number of actions)


def _agreement(o: Outcome, preset: RewardPreset) -> jax.Array:
    """Sign of the exposure taken times the sign of the forward return, 0 where that is within the threshold."""
    forward = o.market.forward_return
    large = jnp.abs(forward) > preset.direction_threshold
    return jnp.sign(o.record.exposure) * jnp.where(large, jnp.sign(forward), 0.0)


def _magnitude(o: Outcome, preset: RewardPreset) -> jax.Array:
    size = jnp.clip(jnp.abs(o.market.forward_return) / jnp.maximum(o.market.volatility, 1e-6), 0.0, 1.0)
    agreement = jnp.sign(o.record.exposure) * jnp.sign(o.market.forward_return)
    # Bounded: the exposure of an account that is nearly gone at the open runs into the thousands.
    return agreement * size * jnp.minimum(jnp.abs(o.record.exposure), 1.0)


def _pnl(o: Outcome, preset: RewardPreset) -> jax.Array:
    if preset.pnl == "tanh":
        return jnp.tanh(10.0 * (100.0 * o.record.net_return))
    return jnp.clip(100.0 * o.record.net_return, -2.0, 2.0)


def _stop_tp(o: Outcome, preset: RewardPreset) -> jax.Array:
    reason = o.record.reason
    return jnp.where(reason == REASON_TAKE_PROFIT, 1.0, jnp.where(reason == REASON_STOP, -1.0, 0.0))


def _exploration(o: Outcome, preset: RewardPreset) -> jax.Array:
    return preset.exploration * o.entropy


def _slippage(o: Outcome, preset: RewardPreset) -> jax.Array:
    return -10.0 * o.record.cost / o.before.equity


def _drawdown(o: Outcome, preset: RewardPreset) -> jax.Array:
    drawdown = 1.0 - o.after.equity / o.after.peak
    return -10.0 * jnp.square(jnp.maximum(drawdown - REWARD_DRAWDOWN_THRESHOLD, 0.0))


def _log_return(o: Outcome, preset: RewardPreset) -> jax.Array:
    return jnp.log(jnp.maximum(1.0 + o.record.net_return, LOG_RETURN_FLOOR))


def _differential_sharpe(o: Outcome, preset: RewardPreset) -> jax.Array:
    """D = (B dA - A dB / 2) / (B - A^2)^(3/2) with A, B of the bar before (Moody and Saffell 2001, eq. 6)."""
    a, b, r = o.before.sharpe_a, o.before.sharpe_b, o.record.net_return
    variance = jnp.maximum(b - a * a, DIFFERENTIAL_SHARPE_VARIANCE)
    ratio = (b * (r - a) - 0.5 * a * (r * r - b)) / (variance * jnp.sqrt(variance))
    return jnp.clip(ratio, -DIFFERENTIAL_SHARPE_CLIP, DIFFERENTIAL_SHARPE_CLIP)


_COMPONENTS: dict[str, Callable[[Outcome, RewardPreset], jax.Array]] = {
    "direction": _agreement,
    "magnitude": _magnitude,
    "pnl": _pnl,
    "stop_tp": _stop_tp,
    "exploration": _exploration,
    "slippage": _slippage,
    "drawdown": _drawdown,
    "log_return": _log_return,
    "differential_sharpe": _differential_sharpe,
}


def saturation_bound(name: str, preset: RewardPreset) -> float:
    """Absolute value at which a component can grow no further; inf where it is unbounded."""
    bounds = {"direction": 1.0, "magnitude": 1.0, "pnl": 1.0 if preset.pnl == "tanh" else 2.0}
    bounds |= {"stop_tp": 1.0, "exploration": preset.exploration, "differential_sharpe": DIFFERENTIAL_SHARPE_CLIP}
    return bounds.get(name, float("inf"))


def reward_components(outcome: Outcome, preset: RewardPreset) -> dict[str, jax.Array]:
    """Unweighted value of each component that `preset` uses, in the order of REWARD_COMPONENTS."""
    return {name: _COMPONENTS[name](outcome, preset) for name in preset.weights}


def total_reward(components: dict[str, jax.Array], preset: RewardPreset) -> jax.Array:
    """sum_i w_i * component_i, in the components' common shape."""
    return sum((preset.weights[n] * c for n, c in components.items()), start=jnp.zeros(()))


def update_sharpe_moments(account: AccountState, net_return: jax.Array) -> AccountState:
    """Move A and B of the differential Sharpe ratio on by one bar."""
    eta = DIFFERENTIAL_SHARPE_ETA
    return account._replace(
        sharpe_a=account.sharpe_a + eta * (net_return - account.sharpe_a),
        sharpe_b=account.sharpe_b + eta * (net_return * net_return - account.sharpe_b),
    )
