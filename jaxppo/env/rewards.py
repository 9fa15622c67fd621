"""Reward components and what a preset makes of them. A reward steers learning; no reported figure comes from one.

A component is one record of `REWARD_COMPONENTS`; one that remembers earlier bars brings its own memory. The weights are
in `jaxppo.config.rewards`. The predecessor gave no formula for `magnitude`, `stop_tp` and the volatility behind the
first; those here are ours.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxppo.config.rewards import REWARD_PRESETS, RewardPreset
from jaxppo.config.schema import RewardConfig
from jaxppo.env.account import REASON_STOP, REASON_TAKE_PROFIT, AccountState, StepRecord
from jaxppo.errors import ConfigError
from jaxppo.market.tape import MarketStep
from jaxppo.registry import Registry

# The drawdown from which the `drawdown` component penalises; not the trainer's own drawdown alarm.
REWARD_DRAWDOWN_THRESHOLD = 0.15
# Decay of the moving moments of the differential Sharpe ratio (Moody and Saffell 2001).
DIFFERENTIAL_SHARPE_ETA = 0.01
# A variance below one basis point squared says that the account has not traded; without the floor the first bar in the
# market would be rewarded by the hundreds.
DIFFERENTIAL_SHARPE_VARIANCE = 1e-8
DIFFERENTIAL_SHARPE_CLIP = 10.0
# An equity at or below 0 has no log return; ruin ends the episode there.
LOG_RETURN_FLOOR = 1e-3


class Outcome(NamedTuple):
    """What a reward may depend on."""

    before: AccountState
    after: AccountState
    record: StepRecord
    market: MarketStep
    entropy: jax.Array  # of the policy at the decision, divided by log(number of actions)


class Memory(NamedTuple):
    """What a component keeps of an account between two bars, and for how long: it begins anew with the account."""

    begin: Callable[[jax.Array], Any]
    """Of the start equity, float of any shape: arrays whose leading axes have that shape, and its dtype."""
    move: Callable[[Any, Outcome], Any]
    """The memory after a bar, of the memory before it."""


def unbounded(preset: RewardPreset) -> float:
    """The bound of a component that has none."""
    return math.inf


@dataclass(frozen=True)
class RewardComponent:
    """A term of a reward.

    Example (register it in a file of your own; `--reward-weights drift 1` then uses it):
      >>> def value(outcome, preset, memory):
      ...     return outcome.record.net_return - memory
      >>> def move(memory, outcome):
      ...     return 0.9 * memory + 0.1 * outcome.record.net_return
      >>> drift = RewardComponent("drift", value, "return over its moving mean", memory=Memory(jnp.zeros_like, move))
    """

    name: str
    value: Callable[[Outcome, RewardPreset, Any], jax.Array]
    """Of the bar, the preset (whose variants it may heed) and its own memory before the bar (None without one)."""
    help: str
    bound: Callable[[RewardPreset], float] = unbounded
    """Absolute value at which it can grow no further: where it stays, it carries no information."""
    memory: Memory | None = None


def _agreement(o: Outcome, preset: RewardPreset, memory: Any) -> jax.Array:
    """Sign of the exposure taken times the sign of the forward return, 0 where that is within the threshold."""
    forward = o.market.forward_return
    large = jnp.abs(forward) > preset.direction_threshold
    return jnp.sign(o.record.exposure) * jnp.where(large, jnp.sign(forward), 0.0)


def _magnitude(o: Outcome, preset: RewardPreset, memory: Any) -> jax.Array:
    size = jnp.clip(jnp.abs(o.market.forward_return) / jnp.maximum(o.market.volatility, 1e-6), 0.0, 1.0)
    agreement = jnp.sign(o.record.exposure) * jnp.sign(o.market.forward_return)
    held = jnp.abs(o.record.exposure)
    held = held if o.market.size is None else held / o.market.size
    # Bounded: the exposure of an account that is nearly gone at the open runs into the thousands.
    return agreement * size * jnp.minimum(held, 1.0)


def _pnl(o: Outcome, preset: RewardPreset, memory: Any) -> jax.Array:
    if preset.pnl == "tanh":
        return jnp.tanh(10.0 * (100.0 * o.record.net_return))
    return jnp.clip(100.0 * o.record.net_return, -2.0, 2.0)


def _stop_tp(o: Outcome, preset: RewardPreset, memory: Any) -> jax.Array:
    reason = o.record.reason
    return jnp.where(reason == REASON_TAKE_PROFIT, 1.0, jnp.where(reason == REASON_STOP, -1.0, 0.0))


def _exploration(o: Outcome, preset: RewardPreset, memory: Any) -> jax.Array:
    return preset.exploration * o.entropy


def _slippage(o: Outcome, preset: RewardPreset, memory: Any) -> jax.Array:
    return -10.0 * o.record.cost / o.before.equity


def _drawdown(o: Outcome, preset: RewardPreset, memory: Any) -> jax.Array:
    drawdown = 1.0 - o.after.equity / o.after.peak
    return -10.0 * jnp.square(jnp.maximum(drawdown - REWARD_DRAWDOWN_THRESHOLD, 0.0))


def _log_return(o: Outcome, preset: RewardPreset, memory: Any) -> jax.Array:
    return jnp.log(jnp.maximum(1.0 + o.record.net_return, LOG_RETURN_FLOOR))


class SharpeMoments(NamedTuple):
    """What the differential Sharpe ratio remembers."""

    mean: jax.Array  # A: moving mean of the net return
    square: jax.Array  # B: moving mean of its square


def _begin_moments(start: jax.Array) -> SharpeMoments:
    return SharpeMoments(jnp.zeros_like(start), jnp.zeros_like(start))


def _move_moments(memory: SharpeMoments, o: Outcome) -> SharpeMoments:
    a, b, r = *memory, o.record.net_return
    return SharpeMoments(a + DIFFERENTIAL_SHARPE_ETA * (r - a), b + DIFFERENTIAL_SHARPE_ETA * (r * r - b))


def _differential_sharpe(o: Outcome, preset: RewardPreset, memory: SharpeMoments) -> jax.Array:
    """D = (B dA - A dB / 2) / (B - A^2)^(3/2) with A, B of the bar before (Moody and Saffell 2001, eq. 6)."""
    a, b, r = *memory, o.record.net_return
    variance = jnp.maximum(b - a * a, DIFFERENTIAL_SHARPE_VARIANCE)
    ratio = (b * (r - a) - 0.5 * a * (r * r - b)) / (variance * jnp.sqrt(variance))
    return jnp.clip(ratio, -DIFFERENTIAL_SHARPE_CLIP, DIFFERENTIAL_SHARPE_CLIP)


REWARD_COMPONENTS = Registry(
    "component",
    [
        RewardComponent(
            "direction",
            _agreement,
            "1 on the side of the next five bars, -1 on the other, 0 within a threshold",
            lambda p: 1.0,
        ),
        RewardComponent(
            "magnitude",
            _magnitude,
            "the same side, times the size of the position and of the move over its volatility",
            lambda p: 1.0,
        ),
        RewardComponent(
            "pnl",
            _pnl,
            "net return of the bar: `v245` tanh(1000 r), others 100 r clipped at 2",
            lambda p: 1.0 if p.pnl == "tanh" else 2.0,
        ),
        RewardComponent("stop_tp", _stop_tp, "1 for a take-profit that fired, -1 for a stop", lambda p: 1.0),
        RewardComponent(
            "exploration", _exploration, "entropy of the policy at the decision, scaled", lambda p: p.exploration
        ),
        RewardComponent("slippage", _slippage, "-10 times the costs as a share of equity"),
        RewardComponent("drawdown", _drawdown, "-10 times the square of the drawdown beyond 15 %"),
        RewardComponent("log_return", _log_return, "net log return of the bar"),
        RewardComponent(
            "differential_sharpe",
            _differential_sharpe,
            "what the bar adds to a moving Sharpe ratio; remembers two moments",
            lambda p: DIFFERENTIAL_SHARPE_CLIP,
            Memory(_begin_moments, _move_moments),
        ),
    ],
)


def reward_preset(config: RewardConfig) -> RewardPreset:
    """The preset that `config` names, with its weights replaced by the configured ones; zero weights drop out.

    Raises:
      ConfigError: an unknown preset or component, or weights that make no reward.
    """
    base = REWARD_PRESETS.find(config.reward, "reward")
    for name, weight in config.reward_weights.items():
        REWARD_COMPONENTS.find(name, "reward_weights")
        if not math.isfinite(weight):
            raise ConfigError(f"reward_weights: {name} has the weight {weight}; it must be a finite number")
    for name in base.weights:
        REWARD_COMPONENTS.find(name, f"reward preset {base.name}")
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
    return dataclasses.replace(base, weights=weights)


def begin_memory(preset: RewardPreset, start: jax.Array) -> dict[str, Any]:
    """What the components of `preset` remember of fresh accounts of `start` equity: by name, where they have one."""
    memories = {name: REWARD_COMPONENTS[name].memory for name in preset.weights}
    return {name: memory.begin(start) for name, memory in memories.items() if memory is not None}


def move_memory(memory: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    """Every memory after a bar."""
    moves = {name: own.move for name in memory if (own := REWARD_COMPONENTS[name].memory) is not None}
    return {name: move(memory[name], outcome) for name, move in moves.items()}


def reward_components(outcome: Outcome, preset: RewardPreset, memory: dict[str, Any]) -> dict[str, jax.Array]:
    """Unweighted value of each component that `preset` uses; `memory` is that of the bar before."""
    return {name: REWARD_COMPONENTS[name].value(outcome, preset, memory.get(name)) for name in preset.weights}


def total_reward(components: dict[str, jax.Array], preset: RewardPreset) -> jax.Array:
    """sum_i w_i * component_i, in the components' common shape."""
    return sum((preset.weights[n] * c for n, c in components.items()), start=jnp.zeros(()))
