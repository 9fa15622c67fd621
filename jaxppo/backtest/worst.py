"""The worst trades of a backtest, each with what the policy saw at the decision that opened it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.agent.policy import Agent, Distribution, Params
from jaxppo.env.trading import ACCOUNT_FEATURES, EXPOSURE, EnvSpec
from jaxppo.market.dataset import Split
from jaxppo.play.deciders import mean_exposure
from jaxppo.play.decisions import look_again, percentiles
from jaxppo.play.score import Score
from jaxppo.play.trades import Excursion, Trade
from jaxppo.store.directory import iso
from jaxppo.store.tables import symbol_trades, trade_cells

MOST = 10


class _Chosen(NamedTuple):
    trade: Trade
    ran: Excursion
    symbol: int  # column


def _worst(score: Score, split: Split, most: int) -> list[_Chosen]:
    """By net profit, lowest first."""
    found = [
        _Chosen(trade, ran, i)
        for i in range(len(split.symbols))
        for trade, ran in zip(*symbol_trades(score, split, i), strict=True)
    ]
    return sorted(found, key=lambda c: c.trade.pnl)[:most]


def worst_trades(
    agent: Agent,
    spec: EnvSpec,
    params: Params,
    score: Score,
    observation: np.ndarray,
    split: Split,
    groups: Mapping[str, Sequence[str]],
    receptive_field: int,
    most: int = MOST,
) -> list[dict[str, Any]]:
    """The closed trades with the lowest net profit, worst first, as plain values for a file.

    Of each: what a table of trades says of it, and its `decision`: when it was taken, the most probable action, the
    probability of each by its label, the mean exposure that they ask for (`asked`, in sizes where positions are sized),
    that `size` (1 where they are not), the account vector by name, and every feature at the newest bar with its value
    and where that lies among all decisions of the split (percentile, 0 to 100). What an encoder saw of the bars before
    is not in it.

    Args:
      agent, spec, params: the policy, or an ensemble.
      score: of its play, host arrays.
      observation: (N, S, A) account vectors that it decided on, host array.
      split: what was played.
      groups: names of the features, in their order, by group.
      receptive_field: R.
      most: how many.
    """
    chosen = _worst(score, split, most)
    if not chosen:
        return []
    tape = split.tape
    # Filled up to `most`, so that it is one program however few trades there are.
    filled = [*chosen, *chosen[:1] * (most - len(chosen))]
    symbol = np.asarray([c.symbol for c in filled], np.int32)
    row = np.asarray([c.trade.entry_bar for c in filled], np.int32)
    bar = np.asarray(tape.first)[symbol] + row
    seen = jnp.asarray(observation[row, symbol])

    def look(params: Params, symbol: jax.Array, bar: jax.Array, seen: jax.Array) -> tuple[Distribution, jax.Array]:
        policy = look_again(agent, spec, params, tape, symbol, bar, seen, receptive_field)
        size = None if tape.size is None else tape.size[symbol, bar]
        return policy, mean_exposure(policy, spec, seen[:, EXPOSURE], tape.allow_short[symbol], size)

    said, asked = jax.device_get(jax.jit(look)(params, jnp.asarray(symbol), jnp.asarray(bar), seen))
    features = np.asarray(tape.features)
    bars = np.arange(tape.n_bars)
    decided = (bars >= np.asarray(tape.first)[:, None]) & (bars < np.asarray(tape.length)[:, None] - 1)
    values = features[symbol, bar]
    ranks = percentiles(features, decided, values[: len(chosen)])
    labels = spec.action_labels
    named = [(group, name) for group, names in groups.items() for name in names]
    rows = []
    for i, c in enumerate(chosen):
        times = split.times[c.symbol]
        fills = times[int(tape.first[c.symbol]) + 1 :]
        probabilities = np.exp(said.log_probs[i].astype(np.float64))
        rows.append(
            {
                "rank": i + 1,
                "symbol": split.symbols[c.symbol],
                "entry_time": iso(int(fills[c.trade.entry_bar])),
                "exit_time": iso(int(fills[c.trade.exit_bar])),
                "bars": c.trade.exit_bar - c.trade.entry_bar,
                **trade_cells(c.trade),
                "mfe": float(c.ran.favourable),
                "mae": float(c.ran.adverse),
                "decision": {
                    "time": iso(int(times[bar[i]])),
                    "action": labels[int(probabilities.argmax())],
                    "probabilities": dict(zip(labels, probabilities.tolist(), strict=True)),
                    "asked": float(asked[i]),
                    "size": 1.0 if tape.size is None else float(tape.size[c.symbol, bar[i]]),
                    "account": dict(zip(ACCOUNT_FEATURES, np.asarray(seen[i], float).tolist(), strict=True)),
                    "features": [
                        {"group": group, "name": name, "value": float(value), "percentile": float(rank)}
                        for (group, name), value, rank in zip(named, values[i], ranks[i], strict=True)
                    ],
                },
            }
        )
    return rows
