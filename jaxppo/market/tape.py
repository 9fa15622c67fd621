"""The Tape: a whole market on the device, once. An observation is a pointer into it plus an account vector."""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int32

from jaxppo.shapes import check_fields

# Bars ahead that the `direction` and `magnitude` reward components look at; observations never do.
REWARD_HORIZON = 5
# Bars of the trailing deviation that scales the `magnitude` component.
VOLATILITY_BARS = 20


class Costs(NamedTuple):
    """Trading costs of a symbol, as fractions; any common shape."""

    fee: Float[jax.Array, "*costs"]  # per side, on the notional of a fill
    impact: Float[jax.Array, "*costs"]  # half spread + slippage: how far a fill is moved against us
    borrow: Float[jax.Array, "*costs"]  # per bar, on short notional at the close


class Terms(NamedTuple):
    """On what terms a symbol may be traded; any common shape."""

    costs: Costs
    allow_short: Bool[jax.Array, "*costs"]


class Tape(NamedTuple):
    """Bars and causal features of S symbols, padded to T bars. Decisions are taken at bars first..length - 2."""

    features: Float[jax.Array, "S T F"]
    open: Float[jax.Array, "S T ..."]
    high: Float[jax.Array, "S T ..."]
    low: Float[jax.Array, "S T ..."]
    close: Float[jax.Array, "S T ..."]
    forward_return: Float[jax.Array, "S T ..."]  # open[t + 1] to close[t + REWARD_HORIZON]; for rewards only
    volatility: Float[jax.Array, "S T ..."]  # trailing deviation of a REWARD_HORIZON-bar return
    first: Int32[jax.Array, " S"]  # first decision bar; it has a full receptive field behind it
    length: Int32[jax.Array, " S"]  # valid bars
    costs: Costs  # (S,), or (S, ...) with the prices
    allow_short: Bool[jax.Array, "S ..."]
    bars_per_year: Float[jax.Array, " S"]
    size: Float[jax.Array, "S T ..."] | None = None  # exposure that an action's 1 stands for; None: 1, the equity
    dividend: Float[jax.Array, "S T ..."] | None = None  # cash a unit that is held until a bar opens; None: never any

    def check(self) -> Tape:
        """The Tape itself; `TypeError` or `AssertionError` for a field of another shape or dtype than it says."""
        check_fields(self)
        chex.assert_shape(self.costs.fee, self.allow_short.shape)
        return self

    @property
    def n_symbols(self) -> int:
        return self.open.shape[0]

    @property
    def n_bars(self) -> int:
        return self.open.shape[1]

    @property
    def n_features(self) -> int:
        return self.features.shape[2]


def zero_tape(n_symbols: int, n_bars: int, n_features: int, sized: bool = False) -> Tape:
    """A Tape of zeros; under `jax.eval_shape`, the shapes of a market that is not there. `sized`: by volatility."""
    bar, symbol = jnp.zeros((n_symbols, n_bars)), jnp.zeros(n_symbols)
    count = jnp.zeros(n_symbols, jnp.int32)
    return Tape(
        features=jnp.zeros((n_symbols, n_bars, n_features)),
        open=bar,
        high=bar,
        low=bar,
        close=bar,
        forward_return=bar,
        volatility=bar,
        first=count,
        length=count,
        costs=Costs(symbol, symbol, symbol),
        allow_short=jnp.zeros(n_symbols, bool),
        bars_per_year=symbol,
        size=bar if sized else None,
    )


def price_tape(
    open_: jax.Array, high: jax.Array, low: jax.Array, close: jax.Array, costs: Costs, bars_per_year: jax.Array
) -> Tape:
    """A Tape of prices (S, T) alone, without features: every bar but the last of a symbol is decided on.

    Args:
      open_, high, low, close: (S, T), float32 or, where 64 bits are enabled, float64.
      costs: (S,) of the same dtype, borrow per bar.
      bars_per_year: (S,).
    """
    n_symbols, n_bars = close.shape
    nothing = jnp.zeros_like(close)
    return Tape(
        features=jnp.zeros((n_symbols, n_bars, 0), close.dtype),
        open=open_,
        high=high,
        low=low,
        close=close,
        forward_return=nothing,
        volatility=nothing,
        first=jnp.zeros(n_symbols, jnp.int32),
        length=jnp.full(n_symbols, n_bars, jnp.int32),
        costs=costs,
        allow_short=jnp.ones(n_symbols, bool),
        bars_per_year=bars_per_year,
    ).check()


class MarketStep(NamedTuple):
    """What one step needs of the market: the bar after the decision, and the decision bar's reward context."""

    open: Float[jax.Array, "*market"]  # bar t + 1
    high: Float[jax.Array, "*market"]
    low: Float[jax.Array, "*market"]
    close: Float[jax.Array, "*market"]
    forward_return: Float[jax.Array, "*market"]  # bar t
    volatility: Float[jax.Array, "*market"]  # bar t
    size: Float[jax.Array, "*market"] | None = None  # bar t: exposure that an action's 1 stands for
    dividend: Float[jax.Array, "*market"] | None = None  # bar t + 1: cash a unit that is held until it opens


class Quote(NamedTuple):
    """What of the market an account is observed with, at a bar's close."""

    close: Float[jax.Array, "*market"]
    size: Float[jax.Array, "*market"] | None = None  # exposure that an action's 1 stands for; None: 1, the equity


def take_quotes(tape: Tape, symbol: jax.Array, t: jax.Array) -> Quote:
    """The quotes of bars `t` of `symbol`, int32 of broadcastable shapes, whose common shape they have."""
    return Quote(tape.close[symbol, t], None if tape.size is None else tape.size[symbol, t])


def take_steps(tape: Tape, symbol: jax.Array, t: jax.Array) -> MarketStep:
    """The market steps of decisions at bar `t` of `symbol`.

    Args:
      tape: the market.
      symbol: int32 symbol indices, any shape.
      t: int32 decision bars, broadcastable with `symbol`; t + 1 must be a valid bar.

    Returns:
      A `MarketStep` whose fields have the common shape of `symbol` and `t`.
    """
    after = t + 1
    return MarketStep(
        open=tape.open[symbol, after],
        high=tape.high[symbol, after],
        low=tape.low[symbol, after],
        close=tape.close[symbol, after],
        forward_return=tape.forward_return[symbol, t],
        volatility=tape.volatility[symbol, t],
        size=None if tape.size is None else tape.size[symbol, t],
        dividend=None if tape.dividend is None else tape.dividend[symbol, after],
    )


def take_terms(tape: Tape, symbol: jax.Array) -> Terms:
    """The terms of `symbol`, int32 of any shape, which the terms then have."""
    return jax.tree.map(lambda x: x[symbol], Terms(tape.costs, tape.allow_short))


def consecutive_bars(start: jax.Array, n: int) -> jax.Array:
    """Bars start..start + n - 1 of each row: (P,) int32 to (n, P) int32."""
    return jnp.expand_dims(start, 0) + jnp.arange(n, dtype=jnp.int32).reshape(-1, 1)


def take_windows(tape: Tape, symbol: jax.Array, start: jax.Array, length: int) -> jax.Array:
    """Feature windows of paths: contiguous slices of the Tape.

    Args:
      tape: the market.
      symbol: (P,) int32.
      start: (P,) int32 first bar of each window.
      length: bars a window.

    Returns:
      (P, length, F) float32.
    """
    n_features = tape.n_features

    def one(s: jax.Array, b: jax.Array) -> jax.Array:
        zero = jnp.zeros((), jnp.int32)
        return jax.lax.dynamic_slice(tape.features, (s, b, zero), (1, length, n_features))[0]

    return jax.vmap(one)(symbol, start)


def start_counts(tape: Tape, n_steps: int) -> jax.Array:
    """How many bars of each symbol can start a path of `n_steps` decisions. Returns (S,) int32.

    The last decision's reward may look REWARD_HORIZON bars ahead without leaving the split, and the state after the
    last step is still a valid bar.
    """
    last_start = tape.length - n_steps - REWARD_HORIZON
    return jnp.maximum(last_start - tape.first + 1, 0)


def draw_starts(tape: Tape, key: jax.Array, n_paths: int, n_steps: int) -> tuple[jax.Array, jax.Array]:
    """Paths drawn uniformly over every (symbol, bar) that can start one.

    Returns:
      symbol (P,) int32 and start bar (P,) int32.
    """
    ends = jnp.cumsum(start_counts(tape, n_steps))
    flat = jax.random.randint(key, (n_paths,), 0, ends[-1])
    symbol = jnp.searchsorted(ends, flat, side="right", method="compare_all").astype(jnp.int32)
    offset = flat - jnp.where(symbol > 0, ends[jnp.maximum(symbol - 1, 0)], 0)
    return symbol, tape.first[symbol] + offset


def forward_returns(open_: np.ndarray, close: np.ndarray) -> np.ndarray:
    """Return from open[t + 1] to close[t + REWARD_HORIZON], cut at the last bar; 0 where there is no next bar.

    Args:
      open_, close: (T,) float64.

    Returns:
      (T,) float64.
    """
    n = len(close)
    out = np.zeros(n)
    end = np.minimum(np.arange(n - 1) + REWARD_HORIZON, n - 1)
    out[:-1] = close[end] / open_[1:] - 1.0
    return out


def trailing_volatility(close: np.ndarray) -> np.ndarray:
    """Deviation of a REWARD_HORIZON-bar return: sqrt(horizon) times that of the last VOLATILITY_BARS bar returns.

    Bars without that much history get the first full value's place holder 0. Returns (T,) float64.
    """
    n = len(close)
    out = np.zeros(n)
    if n <= VOLATILITY_BARS:
        return out
    returns = close[1:] / close[:-1] - 1.0
    windows = np.lib.stride_tricks.sliding_window_view(returns, VOLATILITY_BARS)
    out[VOLATILITY_BARS:] = windows.std(axis=1, ddof=1) * np.sqrt(REWARD_HORIZON)
    return out
