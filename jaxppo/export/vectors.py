"""What a policy decided when it was exported, for the self-test of the folder."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jaxppo.config.schema import EnvConfig
from jaxppo.env.account import AccountState
from jaxppo.export.standalone import NUMBERS
from jaxppo.live.decision import Decider
from jaxppo.live.features import STREAMS
from jaxppo.market.asset_classes import may_short
from jaxppo.market.bars import Bars
from jaxppo.market.dataset import warm_up_bars

DECISIONS, SYMBOLS = 64, 8
_STREAMED = 16
"""Bars that are fed beyond the least that a decision needs."""


def drawn_account(rng: np.random.Generator, close: float, side: int, env: EnvConfig) -> AccountState:
    """An account of made-up history that is flat, long or short by `side`; float32, in starting equities."""
    equity, cost = rng.uniform(0.6, 1.8), close * rng.uniform(0.97, 1.03)
    trades = int(rng.integers(0, 40))
    stop, take = (0.0, math.inf) if side >= 0 else (math.inf, 0.0)
    if side and env.stop_loss > 0:
        stop = cost * (1.0 - side * env.stop_loss)
    if side and env.take_profit > 0:
        take = cost * (1.0 + side * env.take_profit)
    floats = {
        "units": side * equity * rng.uniform(0.05, env.max_exposure) / close,
        "mark": close,
        "equity": equity,
        "rest": 0.0,
        "peak": equity * rng.uniform(1.0, 1.3),
        "average_cost": cost if side else 0.0,
        "stop": stop,
        "take_profit": take,
        "trade_pnl": 0.0,
    }
    counts = {"bars_held": int(rng.integers(1, 300)) if side else 0, "trades": trades}
    counts["wins"] = int(rng.integers(0, trades + 1))
    return AccountState(
        **{k: np.float32(v) for k, v in floats.items()},  # type: ignore[arg-type]
        **{k: np.int32(n) for k, n in counts.items()},  # type: ignore[arg-type]
    )


def vectors(decider: Decider, bars: Sequence[Bars]) -> dict[str, np.ndarray]:
    """Arrays of `DECISIONS` decisions on bars of up to `SYMBOLS` symbols, of accounts that are made up.

    Where the features stream, raw bars of the first symbol and the window after them besides.
    """
    rng, env, chosen = np.random.default_rng(0), decider.spec.config, list(bars[:SYMBOLS])
    labels = decider.spec.actions.labels
    rows: dict[str, list[np.ndarray]] = {}
    each = math.ceil(DECISIONS / len(chosen))
    for b in chosen:
        table, newest = decider.recipe(b), decider.see(b)
        first = warm_up_bars(table.min_bars, env) + decider.reach - 2
        for i in range(each):
            t = int(rng.integers(first, len(b.time) - 1))
            close, price = float(b.close[t]), float(b.open[t + 1])
            size = None if newest.size is None else float(np.float32(rng.uniform(0.2, 1.0) * newest.size))
            window = table.values[t - decider.reach + 1 : t + 1]
            seen = newest._replace(window=window, time=int(b.time[t]), close=close, size=size)
            side = (0, 1, -1 if may_short(b.asset_class, env) else 1)[i % 3]
            account = drawn_account(rng, close, side, env)
            decision = decider.decide(seen, account, price)
            row = {
                "window": window,
                **{f"account/{name}": np.float32(getattr(account, name)) for name in NUMBERS},
                **{k: np.float32(v) for k, v in (("close", close), ("size", decision.size), ("price", price))},
                "allow_short": np.bool_(seen.allow_short),
                "fee": seen.costs.fee,
                "impact": seen.costs.impact,
                "action": np.int64(labels.index(decision.action)),
                "probabilities": np.array([decision.probabilities[label] for label in labels], np.float32),
                "value": np.float32(decision.value),
                "exposure": np.float32(decision.exposure),
                "units": np.float32(decision.units),
            }
            for name, value in row.items():
                rows.setdefault(name, []).append(np.asarray(value))
    found = {name: np.stack(values) for name, values in rows.items()}
    if streams(decider, bars):
        found |= _streamed(decider, chosen[0])
    return found


def streams(decider: Decider, bars: Sequence[Bars]) -> bool:
    """Whether all features of a policy are made of bars as they are, without dividends, by built-in groups."""
    if any(b.dividend is not None for b in bars):
        return False
    return decider.recipe.bars_alone and all(group.name in STREAMS for group in decider.groups)


def _streamed(decider: Decider, bars: Bars) -> dict[str, np.ndarray]:
    """The first raw bars of a symbol, (N, 6), and the feature window after them."""
    n = min(decider.min_bars + _STREAMED, len(bars.time))
    columns = (bars.time, bars.open, bars.high, bars.low, bars.close, bars.volume)
    window = decider.recipe(bars).values[n - decider.reach : n]
    raw = np.stack([np.asarray(c[:n], np.float64) for c in columns], axis=1)
    return {"bars": raw, "bars_window": window, "bars_symbol": np.array(bars.symbol)}
