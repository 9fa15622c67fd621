"""Why a policy does not earn: its edge before costs beside what trading costs, in equity a bar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.agent.policy import Agent, Params
from jaxppo.env.trading import EnvSpec
from jaxppo.market.tape import Tape
from jaxppo.play.deciders import leaning_policy
from jaxppo.play.passes import as_lanes, play
from jaxppo.play.score import Score, decision_weight

BASIS_POINT = 1e-4


class Edge(NamedTuple):
    """What a policy earns before costs and what they take, symbols weighted by their decisions.

    Of a policy that trades it is of its trades. One that closes no trade leans to something all the same: it is then of
    the exposure that it asks for on average over its action probabilities.
    """

    trades: int
    gross: float  # log growth of the equity a bar, before costs
    cost: float  # that fees, spread and slippage take of it
    turnover: float  # notional traded over equity, a bar
    round_trip: float  # cost of buying and selling again, as a share of the notional; of the median symbol
    move: float  # usual (median) size of a bar's log return; of the median symbol
    passes: float  # times that training visited each of its bars, on average
    cost_anneal: float  # share of the updates over which training's costs rose; 0: it paid all from the first
    level: float  # the nearer of stop-loss and take-profit, as a fraction of the entry price; 0 for none

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Edge | None:
        """An edge of the mapping that it was kept as; None where that is another."""
        return cls(**values) if set(values) == set(cls._fields) else None

    @property
    def explains(self) -> bool:
        """Whether there is something to explain: no trade, or less earned than paid."""
        return self.trades == 0 or self.gross < self.cost


def policy_edge(
    score: Score,
    spec: EnvSpec,
    agent: Agent,
    params: Params,
    tape: Tape,
    receptive_field: int,
    *,
    passes: float,
    cost_anneal: float,
) -> Edge:
    """The edge of a policy on the bars of `tape`, whose `score` it is; arrays are of the host or the device.

    What its training was like, `passes` and `cost_anneal`, is told with it. A policy that closed a trade costs nothing
    to judge; one that did not is played once more, which is compiled first.
    """
    host: Tape = jax.device_get(tape)  # where arithmetic compiles nothing
    weight = decision_weight(host)
    bars = np.maximum(host.length - 1 - host.first, 1)
    side = np.asarray(host.costs.fee + host.costs.impact)  # (S,) of a notional
    trades = int(np.asarray(score.sums.trades).sum())
    if trades:
        turnover = np.asarray(score.sums.turnover)
        cost = turnover * side
        gross = np.log(np.maximum(np.asarray(score.record.equity)[-1], 1e-6)) / bars + cost
    else:
        free, paid, turnover = (
            np.asarray(x) for x in _leaning(agent, spec, params, tape, score.valid, receptive_field)
        )
        gross, cost = free / bars, (free - paid) / bars
    return Edge(
        trades=trades,
        gross=float(weight @ gross),
        cost=float(weight @ cost),
        turnover=float(weight @ turnover),
        round_trip=float(np.median(2 * side)),
        move=usual_move(host),
        passes=passes,
        cost_anneal=cost_anneal,
        level=min((x for x in (spec.config.stop_loss, spec.config.take_profit) if x > 0), default=0.0),
    )


def usual_move(tape: Tape) -> float:
    """Median size of a bar's log return between closes, of the median symbol."""
    close, length = np.asarray(tape.close, np.float64), np.asarray(tape.length)
    moves = [np.median(np.abs(np.diff(np.log(c[:n])))) for c, n in zip(close, length, strict=True) if n > 1]
    return float(np.median(moves)) if moves else 0.0


def _leaning(
    agent: Agent, spec: EnvSpec, params: Params, tape: Tape, valid: jax.Array, receptive_field: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log growth (S,) without costs and with them, and turnover a bar (S,) with them, of what a policy leans to."""
    n_bars = valid.shape[0]

    @jax.jit
    def run(params: Params, tape: Tape) -> tuple[jax.Array, jax.Array, jax.Array]:
        decider = leaning_policy(agent, spec, params, tape, n_bars, receptive_field)
        lanes = play(decider, tape, n_bars, as_lanes(tape.costs, (0.0, 1.0)), keep=False)
        growth = jnp.log(jnp.maximum(lanes.account.equity, 1e-6))
        return growth[0], growth[1], lanes.sums.turnover[1]

    found: tuple[jax.Array, jax.Array, jax.Array] = run(params, tape)
    return found


def edge_text(e: Edge) -> str:
    """An edge in sentences, in basis points (hundredths of a percent) of the equity a bar, and what helped."""

    def bp(x: float) -> str:
        return f"{x / BASIS_POINT:,.2f} bp"

    who = "Its trades" if e.trades else "It closes no trade; followed by its action probabilities, it would have"
    earned = "earned" if e.gross >= 0 else "lost"
    text = (
        f"{who} {earned} {bp(abs(e.gross))} of the equity a bar before costs; costs {'took' if e.trades else 'take'}"
        f" {bp(e.cost)}, at a turnover of {e.turnover:.1%} a bar. A round trip costs {bp(e.round_trip)}, where a bar"
        f" usually moves by {bp(e.move)}. Training visited each of its bars {e.passes:,.0f} times."
    )
    return f"{text} {found}" if (found := _remedy(e)) else text


def _remedy(e: Edge) -> str:
    """What was measured to help; nothing where that is not known. The runs are in `benchmarks/RESULTS.md`."""
    found = []
    if e.cost_anneal == 0:
        found.append(
            "Its training paid all costs from the first update; try --cost-anneal 0.65: where an oracle earns 6 bp a"
            " bar at costs of twice the edge, five runs with it earned 96 to 99 % of that, and three without 31"
            " to 92 %."
        )
    if e.level > 0 and e.move > 0:
        found.append(
            f"Its stop or take-profit is {e.level / e.move:,.0f} usual bars away; try --stop-loss 0 --take-profit 0:"
            " without them the same training on hourly crypto and daily shares closed trades in 4 runs of 4, with 2 %"
            " and 4 % in 2 of 8."
        )
    return " ".join(found)
