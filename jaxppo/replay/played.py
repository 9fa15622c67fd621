"""A replay: one Pass of a user's orders, and passes of their variants that it is read next to."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.config.schema import EnvConfig
from jaxppo.env.account import AccountState, Levels, StepRecord
from jaxppo.market.tape import Costs, Tape
from jaxppo.play.baselines import buy_and_hold
from jaxppo.play.deciders import Orders, Sent, ordering
from jaxppo.play.metrics import Metrics
from jaxppo.play.passes import as_lanes, fills, play
from jaxppo.play.score import account_metrics
from jaxppo.play.significance import Chance, chance

OTHER_COSTS = (0.0, 2.0)  # multiples of the costs at which the same orders are played too
SHIFTS = 20  # times at which the same orders are played too, one shift of all of them each


class Rules(NamedTuple):
    """What is fixed for a replay; static."""

    kind: str  # what an order's number means, as of `ordering`
    cash: float
    ruin_level: float  # share of the cash
    max_exposure: float  # inf for any
    take_profit_gap: str
    close_at_end: bool


class Replay(NamedTuple):
    """One account of one symbol over N bars, and what is said about it."""

    record: StepRecord  # (N,)
    sent: Sent  # (N,)
    account: AccountState  # () at the last close
    metrics: Metrics  # (); money per unit of the cash
    chance: Chance  # ()
    buy_and_hold: jax.Array  # (N,) growth of buying at the first open; at the last close it is sold, costs paid
    variants: Metrics  # (V,): at OTHER_COSTS, then SHIFTS times at other times (none of a single bar)


def _variants(orders: Orders, costs: Costs) -> tuple[Orders, Costs]:
    """The orders (N, 1, 1) and costs (1,) as V lanes. At other times they have no levels, since those are prices."""
    n = orders.value.shape[0]
    shifts = np.random.default_rng(0).integers(1, n, SHIFTS).tolist() if n > 1 else []
    nothing = jnp.full_like(orders.value, jnp.nan)
    moved = [Orders(jnp.roll(orders.value, s, 0), Levels(nothing, nothing)) for s in shifts]
    lanes = jax.tree.map(lambda *x: jnp.concatenate(x, 1), *[orders] * len(OTHER_COSTS), *moved)
    return lanes, as_lanes(costs, (*OTHER_COSTS, *(1.0,) * len(shifts)))


@partial(jax.jit, static_argnames="rules")
def replay(orders: Orders, tape: Tape, trials: jax.Array, rules: Rules) -> Replay:
    """Play the orders and their variants.

    Args:
      orders: (N, 1, 1); row i was decided at the close of bar i.
      tape: one symbol of N + 1 bars.
      trials: (), for the deflated Sharpe ratio.
      rules: static.
    """
    n = tape.n_bars - 1
    env = EnvConfig(
        ruin_level=rules.ruin_level,
        max_exposure=rules.max_exposure,
        take_profit_gap=rules.take_profit_gap,  # type: ignore[arg-type]
    )
    run = partial(play, tape=tape, n_bars=n, cash=rules.cash, close_at_end=rules.close_at_end)
    played = run(ordering(orders, rules.kind, env))
    others, costs = _variants(orders, tape.costs)
    variants = run(ordering(others, rules.kind, env), costs=costs, keep=False)
    cash = jnp.asarray(rules.cash, tape.close.dtype)
    hold = buy_and_hold(*fills(tape, n), played.valid, tape.costs)
    mine = (played.record, played.note, played.account, account_metrics(played, tape, rules.cash))
    record, sent, account, metrics = jax.tree.map(lambda x: x[..., 0, 0], mine)
    years, valid = tape.bars_per_year[0], played.valid[:, 0]
    return Replay(
        record=record,
        sent=sent,
        account=account,
        metrics=metrics,
        chance=chance(record.equity, cash, valid, years, trials, jax.random.key(0)),
        buy_and_hold=hold[:, 0],
        variants=jax.tree.map(lambda x: x[:, 0], account_metrics(variants, tape, rules.cash)),
    )
