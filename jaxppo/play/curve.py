"""An equity curve with the sums of its trades: what every metric is computed from."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int32

from jaxppo.play.formulas import Moments, max_drawdown, moments, net_returns, sharpe, tail_losses


class TradeSums(NamedTuple):
    """Sums over an account's bars; any common shape."""

    gains: Float[jax.Array, "*accounts"]
    losses: Float[jax.Array, "*accounts"]  # <= 0
    trades: Int32[jax.Array, "*accounts"]
    wins: Int32[jax.Array, "*accounts"]
    losers: Int32[jax.Array, "*accounts"]  # trades with a loss; one that broke even is neither a win nor one of these
    turnover: Float[jax.Array, "*accounts"]  # mean over bars of notional traded / equity
    exposure: Float[jax.Array, "*accounts"]  # mean over bars of |notional| / equity at the closes
    costs: Float[jax.Array, "*accounts"]  # mean over bars of fees, spread, slippage and borrow cost paid / equity


def payoff(sums: TradeSums) -> jax.Array:
    """Mean gain of the winning trades over the mean loss of the losing ones; nan without one of either."""
    wins, losers = (n.astype(sums.gains.dtype) for n in (sums.wins, sums.losers))
    defined = (wins > 0) & (losers > 0)
    ratio = sums.gains * losers / jnp.where(defined, wins * -sums.losses, 1.0)
    return jnp.where(defined, ratio, jnp.nan)


class Curve:
    """An equity curve with the sums of its trades, and what several metrics share, each computed once.

    `...` is any common shape. It lives while it is traced only.
    """

    def __init__(
        self, equity: jax.Array, start: jax.Array, valid: jax.Array, bars_per_year: jax.Array, sums: TradeSums
    ):
        self.equity = equity  # (..., T) at the closes
        self.start = start  # (...)
        self.valid = valid  # (..., T) bool
        self.bars_per_year = bars_per_year  # (...)
        self.sums = sums  # (...)

    @cached_property
    def returns(self) -> jax.Array:
        """Net returns a bar (..., T), 0 where none counts."""
        return net_returns(self.equity, self.start, self.valid)

    @cached_property
    def log_returns(self) -> jax.Array:
        """Their logarithms (..., T); that of a total loss is bounded."""
        return jnp.log(jnp.maximum(1.0 + self.returns, 1e-6))

    @cached_property
    def moments(self) -> Moments:
        """Of the returns, (...)."""
        return moments(self.returns, self.valid)

    @cached_property
    def tail(self) -> tuple[jax.Array, jax.Array]:
        """Value at risk and its conditional mean, (...)."""
        return tail_losses(self.returns, self.valid)

    @cached_property
    def growth(self) -> jax.Array:
        """Equity at the end over the start, (...)."""
        return self.equity[..., -1] / self.start

    @cached_property
    def sharpe(self) -> jax.Array:
        return sharpe(self.moments, self.bars_per_year)

    @cached_property
    def cagr(self) -> jax.Array:
        years = jnp.maximum(self.moments.n, 1.0) / self.bars_per_year
        return jnp.maximum(self.growth, 0.0) ** (1.0 / years) - 1.0

    @cached_property
    def drawdown(self) -> jax.Array:
        """The largest, (...)."""
        return max_drawdown(self.equity, self.start)

    @cached_property
    def trades(self) -> jax.Array:
        """Number of closed trades (...), as a float."""
        return self.sums.trades.astype(self.equity.dtype)

    @cached_property
    def per_trade(self) -> jax.Array:
        """1 / trades (...); nan without one."""
        return jnp.where(self.trades > 0, 1.0 / jnp.maximum(self.trades, 1.0), jnp.nan)
