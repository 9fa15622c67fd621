"""Rules: what needs no training, and a policy must beat. Each is a record; they trade at the policy's costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax

from jaxppo.market.tape import Tape
from jaxppo.play.baselines import trend_sign
from jaxppo.registry import Registry

MOMENTUM_BARS = 20


@dataclass(frozen=True)
class Rule:
    """A baseline that a backtest plays: an entry of `RULES`.

    Example:
      >>> import jax.numpy as jnp
      >>> always_long = Rule("long", "Always long", "all equity, at all times", lambda tape, t: jnp.ones(t.shape))
    """

    name: str
    title: str  # on a page
    help: str
    side: Callable[[Tape, jax.Array], jax.Array]
    """Of a Tape and decision bars (N, S) int32 to exposures (N, S) in [-1, 1], in units of the largest one allowed.

    From closes up to each bar alone. An order is sent where its sign is not that of the position; a short becomes flat
    where short selling is not allowed.
    """


RULES = Registry(
    "rule",
    [
        Rule(
            "momentum",
            f"Momentum, {MOMENTUM_BARS} bars",
            f"full exposure in the direction of the last {MOMENTUM_BARS} bars",
            lambda tape, t: trend_sign(tape.close, t, MOMENTUM_BARS),
        ),
    ],
)
