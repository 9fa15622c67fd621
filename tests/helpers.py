"""Small markets and configurations that tests share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.agent.encoders import receptive_field
from jaxppo.config.layers import replace_fields
from jaxppo.config.schema import Config, EnvConfig
from jaxppo.market.dataset import EvaluationSet, Market, build_market, evaluation_set
from jaxppo.market.synthetic import synthetic_market
from jaxppo.market.tape import Costs, Tape
from jaxppo.play.passes import n_decisions
from jaxppo.ppo.program import Program, TapeSpec, make_train

# A run that compiles and trains in seconds: 4 paths x 4 lanes x 4 steps, 3 updates in segments of 2 and 1.
TINY: dict[str, Any] = {
    "n_envs": 16,
    "lanes": 4,
    "n_steps": 4,
    "n_updates": 3,
    "validate_every": 2,
    "episode_steps": 16,
    "epochs": 2,
    "minibatches": 2,
    "window": 8,
    "channels": 4,
    "trunk_width": 8,
    "features": ("base",),
    "scale_window": 32,
    "actions": "hold_buy_sell",
    "stop_loss": 0.02,
    "take_profit": 0.04,
    "cost_anneal": 0.0,
}


def bracketed(**changes: Any) -> EnvConfig:
    """An environment with actions that keep the position, and with levels, which the default has not."""
    return EnvConfig(**{"actions": "hold_buy_sell", "stop_loss": 0.02, "take_profit": 0.04, **changes})


BRACKETED = bracketed()


def kept(function: Callable[..., Any]) -> Callable[..., Any]:
    """`functools.cache` for what holds arrays: whoever asks first, within a jit too, they are values and no tracers."""

    @functools.cache
    def evaluated(*args: Any, **kwargs: Any) -> Any:
        with jax.ensure_compile_time_eval():
            return function(*args, **kwargs)

    return functools.wraps(function)(evaluated)


def with_cuda_kernels(*arguments: Any, default: Any, cuda: Any = None, cpu: Any = None) -> Any:
    """`jax.lax.platform_dependent` of a CPU that takes a form for CUDA where there is one."""
    return (cuda or cpu or default)(*arguments)


def as_an_accelerator(*arguments: Any, default: Any, cuda: Any = None, cpu: Any = None) -> Any:
    """`jax.lax.platform_dependent` that takes what accelerators compute, but for kernels."""
    return default(*arguments)


def tiny_config(**changes: Any) -> Config:
    return replace_fields(Config(), {**TINY, **changes})


def tiny_market(config: Config, n_symbols: int = 2, n_bars: int = 900) -> Market:
    return build_market(synthetic_market(0, n_symbols, n_bars), config, receptive_field(config.agent))


def tiny_program(config: Config) -> tuple[Program, Tape, EvaluationSet]:
    market = tiny_market(config)
    tape, data = market.splits["train"].tape, evaluation_set(market.splits["validation"])
    return make_train(config, TapeSpec(tape.n_features, n_decisions(data.tape))), tape, data


def random_tape(seed: int, n_symbols: int, n_bars: int, n_features: int, first: int, *, fee: float = 0.001) -> Tape:
    """Random walks with open[t + 1] == close[t] and normal features."""
    rng = np.random.default_rng(seed)
    close = np.exp(np.cumsum(rng.normal(0, 0.005, (n_symbols, n_bars)), axis=1))
    open_ = np.concatenate([np.ones((n_symbols, 1)), close[:, :-1]], axis=1)

    def f32(x: Any) -> jax.Array:
        return jnp.asarray(x, jnp.float32)

    per_symbol = np.ones(n_symbols)
    return Tape(
        features=f32(rng.normal(size=(n_symbols, n_bars, n_features))),
        open=f32(open_),
        high=f32(np.maximum(open_, close) * 1.001),
        low=f32(np.minimum(open_, close) * 0.999),
        close=f32(close),
        forward_return=f32(rng.normal(0, 0.01, (n_symbols, n_bars))),
        volatility=f32(np.full((n_symbols, n_bars), 0.01)),
        first=jnp.full(n_symbols, first, jnp.int32),
        length=jnp.full(n_symbols, n_bars, jnp.int32),
        costs=Costs(f32(fee * per_symbol), f32(0 * per_symbol), f32(0 * per_symbol)),
        allow_short=jnp.ones(n_symbols, bool),
        bars_per_year=f32(8766 * per_symbol),
    )


def plain_account(
    side: Any, open_: Any, close: Any, fee: float, impact: float, borrow: float, band: float, most: Any
) -> list[float]:
    """Equity at the closes of one account told to hold side x most, float64, a decision a bar; the last close sells."""
    cash, units, equity = 1.0, 0.0, []
    for i in range(len(side)):
        price, target = open_[i + 1], side[i] * most[i]
        worth = cash + units * price
        if np.sign(target) != np.sign(units) or abs(target - units * price / worth) >= band * most[i]:
            gap = target * worth - units * price
            cost = impact + fee + np.sign(gap) * impact * fee
            order = gap / (1 + target * cost * np.sign(gap)) / price
            fill = price * (1 + np.sign(gap) * impact)
            cash -= order * fill + fee * abs(order) * fill
            units += order
        cash -= borrow * max(-units, 0.0) * close[i + 1]
        if i == len(side) - 1:
            fill = close[i + 1] * (1 - np.sign(units) * impact)
            cash += units * fill - fee * abs(units) * fill
            units = 0.0
        equity.append(cash + units * close[i + 1])
    return equity
