"""One replay from files of bars and decisions to a folder: equity.csv, trades.csv and summary.json."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxppo.device import enable_compilation_cache
from jaxppo.env.account import Levels
from jaxppo.errors import ConfigError, DataError
from jaxppo.market.bars import Bars, format_interval, load_bars
from jaxppo.market.calendar import bars_per_year
from jaxppo.market.orders import Decisions, load_decisions
from jaxppo.market.tape import Costs, MarketStep
from jaxppo.play.metrics import Metrics
from jaxppo.play.trades import Trade, round_trips, system_quality
from jaxppo.replay.played import (
    Orders,
    Replay,
    ReplayFigures,
    ReplayRules,
    replay,
    replay_figures,
    replay_variants,
)
from jaxppo.store.directory import whole_folder
from jaxppo.store.files import write_csv
from jaxppo.store.json import write_json
from jaxppo.store.tables import trade_cells

EQUITY, TRADES, SUMMARY = "equity.csv", "trades.csv", "summary.json"
OTHER_COSTS = (0.0, 2.0)  # multiples of the costs at which the same orders are played too
SHIFTS = 20  # times at which the same orders are played too, one shift of all of them each
TRADE_COLUMNS = ("entry_bar", "exit_bar", "side", "units", "entry_price", "exit_price", "fees", "pnl", "reason")


@dataclass(frozen=True)
class ReplayOptions:
    """What to replay, on which terms."""

    bars: Annotated[Path, tyro.conf.Positional]
    """Parquet or CSV file of bars, or a folder of them."""
    targets: Annotated[Path, tyro.conf.Positional]
    """CSV file of decisions: bar, one of target, units and order_units, optionally stop and take_profit."""
    out: Path
    """Folder to write, which must not hold anything yet."""
    cash: float = 10_000.0
    """Cash to start with."""
    fee: float = 0.0
    """Fee per side, as a fraction of the notional of a fill."""
    slippage: float = 0.0
    """Slippage as a fraction of the price, always against us."""
    spread: float = 0.0
    """Full bid-ask spread as a fraction of the price; a fill pays half of it."""
    borrow: float = 0.0
    """Borrow cost per bar, as a fraction of the short notional at the close."""
    leverage: float | None = None
    """Largest notional over equity that an order may lead to; orders beyond it are cut down to it. None for any."""
    ruin: float = 0.0
    """Equity, as a fraction of the starting cash, at or below which the account is liquidated for good."""
    trials: int = 1
    """Variants of these decisions that were tried before, this one included; the deflated Sharpe ratio counts them."""
    take_profit_gap: Literal["open", "limit"] = "open"
    """Fill of a take-profit that the open gaps through: at the open, or (pessimistic) at the limit."""
    close_at_end: bool = False
    """Sell what is still open at the last close, at cost; by default it stays open, marked to market."""
    x64: bool = False
    """Compute in float64 in place of the trainer's float32."""
    symbol: str | None = None
    """Symbol to replay on, where the bars have several."""
    interval: str | None = None
    """Interval to replay on, such as 1h, where the bars have several."""
    timezone: str = "UTC"
    """Time zone of timestamps without one; only annualised figures depend on it."""


def _check_options(options: ReplayOptions) -> None:
    """Refuse numbers that mean nothing."""

    def demand(good: bool, name: str, rule: str) -> None:
        if not good:
            raise ConfigError(f"--{name.replace('_', '-')}: {getattr(options, name)} given; it must be {rule}")

    demand(math.isfinite(options.cash) and options.cash > 0, "cash", "a number above 0")
    for name in ("fee", "slippage", "spread", "borrow"):
        demand(0 <= getattr(options, name) < 1, name, "a fraction from 0 to below 1")
    demand(options.trials >= 1, "trials", "1 or more")
    demand(0 <= options.ruin < 1, "ruin", "a fraction of the cash from 0 to below 1")
    if options.leverage is not None:
        demand(math.isfinite(options.leverage) and options.leverage > 0, "leverage", "a number above 0")


def _load(options: ReplayOptions) -> tuple[Bars, Decisions]:
    wanted = () if options.symbol is None else (options.symbol,)
    found = load_bars(options.bars, interval=options.interval, symbols=wanted, timezone=options.timezone)
    if len(found) > 1:
        names = ", ".join(b.symbol for b in found[:8]) + (", ..." if len(found) > 8 else "")
        raise DataError(f"{options.bars}: bars of {len(found)} symbols ({names}); choose one with --symbol")
    bars = found[0]
    if len(bars.time) < 2:
        raise DataError(f"{options.bars}: one bar; an order fills at the open of the next, so give 2 or more")
    decisions = load_decisions(options.targets, len(bars.time))
    cost = options.fee + options.slippage + options.spread / 2
    if decisions.order == "target" and (np.abs(decisions.value) * cost >= 1).any():
        largest = np.nanmax(np.abs(decisions.value))
        raise DataError(f"{options.targets}: a target of {largest:g} costs more than the account; give a smaller one")
    return bars, decisions


def _orders(decisions: Decisions, n: int, dtype: Any) -> Orders:
    """Decisions as one row a bar that can be filled; those of the last bar cannot."""
    can = decisions.bar < n

    def column(values: np.ndarray) -> jax.Array:
        rows = np.full(n, np.nan)
        rows[decisions.bar[can]] = values[can]
        with np.errstate(over="ignore"):  # what float32 cannot hold is found out later
            return jnp.asarray(rows.astype(dtype))

    return Orders(column(decisions.value), Levels(column(decisions.stop), column(decisions.take_profit)))


def _variants(orders: Orders, costs: Costs) -> tuple[Orders, Costs]:
    """The orders at `OTHER_COSTS`, then `SHIFTS` times at other times, without levels, since those are prices."""
    n = len(orders.value)
    shifts = np.random.default_rng(0).integers(1, n, SHIFTS).tolist() if n > 1 else []
    nothing = jnp.full_like(orders.value, jnp.nan)
    as_given = [orders] * len(OTHER_COSTS)
    moved = [Orders(jnp.roll(orders.value, s), Levels(nothing, nothing)) for s in shifts]
    multiples = jnp.asarray([*OTHER_COSTS, *[1.0] * len(shifts)], orders.value.dtype)
    return jax.tree.map(lambda *x: jnp.stack(x), *as_given, *moved), jax.tree.map(lambda c: c * multiples, costs)


def _play(options: ReplayOptions, bars: Bars, decisions: Decisions) -> tuple[Replay, ReplayFigures, Metrics]:
    """The replay, its figures, and those of its variants (L,), as host arrays."""
    with jax.enable_x64(options.x64):
        dtype = jnp.float64 if options.x64 else jnp.float32

        def number(x: Any) -> jax.Array:
            return jnp.asarray(x, dtype)

        n = len(bars.time) - 1
        none = jnp.zeros(n, dtype)
        open_, high, low, close = (number(x[1:]) for x in (bars.open, bars.high, bars.low, bars.close))
        steps = MarketStep(open_, high, low, close, none, none)
        costs = Costs(number(options.fee), number(options.slippage + options.spread / 2), number(options.borrow))
        start, ruin = number(options.cash), number(options.ruin * options.cash)
        rules = ReplayRules(decisions.order, options.take_profit_gap, options.leverage, options.close_at_end)
        orders = _orders(decisions, n, dtype)
        done = replay(orders, steps, costs, start, ruin, rules)
        per_year = number(bars_per_year(bars.time, bars.interval, bars.asset_class, bars.timezone))
        figures = replay_figures(done, steps, costs, start, per_year, number(options.trials))
        variants = replay_variants(*_variants(orders, costs), steps, start, ruin, per_year, rules)
        return jax.tree.map(np.asarray, (done, figures, variants))


def _check_finite(options: ReplayOptions, done: Replay) -> None:
    lost = ~np.isfinite(done.record.equity)
    if lost.any():
        where = f"{options.targets}: the equity at bar {1 + int(np.argmax(lost))} is no number"
        kind = "float64" if options.x64 else "float32; try --x64"
        raise DataError(f"{where}; an order, a target or a price is too large for {kind}")


def _equity_rows(done: Replay, cash: float) -> list[tuple[Any, ...]]:
    columns = (done.account.cash, done.account.units, done.record.equity)
    rows = zip(*(x.astype(np.float64).tolist() for x in columns), strict=True)
    return [(0, cash, 0.0, cash), *((bar, *row) for bar, row in enumerate(rows, start=1))]


def _open_position(done: Replay, close: float) -> dict[str, Any] | None:
    last = jax.tree.map(lambda x: float(x[-1]), done.account)
    if last.units == 0:
        return None
    return {
        "side": "long" if last.units > 0 else "short",
        "units": last.units,
        "average_price": last.average_cost,
        "close": close,
        # Net of its fees and borrow so far, and of what partial exits brought.
        "pnl": last.trade_pnl + last.units * (close - last.average_cost),
        "bars_held": int(last.bars_held),
    }


def _beside(figures: ReplayFigures, variants: Metrics) -> dict[str, Any]:
    """What the figures are read next to: holding, the same orders at other costs, and at other times."""
    names = ("net_return", "sharpe", "max_drawdown", "profit_factor", "trades")
    rows = [{k: float(getattr(variants, k)[i]) for k in names} for i in range(len(OTHER_COSTS))]
    rows.insert(1, {k: float(getattr(figures.metrics, k)) for k in names})
    shifted = {k: getattr(variants, k)[len(OTHER_COSTS) :] for k in ("net_return", "sharpe")}
    spread = {
        k: {"mean": float(v.mean()), "low": float(np.quantile(v, 0.05)), "high": float(np.quantile(v, 0.95))}
        for k, v in shifted.items()
        if len(v)
    }
    beaten = float((shifted["net_return"] < figures.metrics.net_return).mean()) if spread else math.nan
    return {
        "buy_and_hold_return": float(figures.buy_and_hold),
        "costs": [{"cost_multiple": m, **row} for m, row in zip((0.0, 1.0, 2.0), rows, strict=True)],
        "same_orders_at_random_times": {**spread, "beaten_share": beaten, "draws": len(shifted["sharpe"])},
    }


def _summary(
    options: ReplayOptions,
    bars: Bars,
    decisions: Decisions,
    done: Replay,
    figures: ReplayFigures,
    variants: Metrics,
    trades: list[Trade],
) -> dict[str, Any]:
    record = done.record
    held = np.sign(record.units)
    counts = {
        "decisions": len(decisions.bar),
        "orders_filled": int((record.order_units != 0).sum()),
        "stops": sum(t.reason == "stop" for t in trades),
        "take_profits": sum(t.reason == "take_profit" for t in trades),
        "unfilled": int((decisions.bar == len(bars.time) - 1).sum()),
        "cut_orders": int(done.cut.sum()),
        "dropped_after_ruin": int(done.dropped.sum()),
    }
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(options).items() if k != "out"}
    return {
        "settings": {**settings, "order": decisions.order},
        "data": {"symbol": bars.symbol, "interval": format_interval(bars.interval), "bars": len(bars.time)},
        "counts": counts,
        "final_equity": float(record.equity[-1]),
        "total_fees": float(record.fees.astype(np.float64).sum()),
        "total_borrow": float(record.borrow.astype(np.float64).sum()),
        "total_cost": float((record.cost.astype(np.float64) + record.borrow).sum()),
        "ruined": bool(record.ruined.any()),
        "metrics": {
            **{k: float(v) for k, v in figures.metrics._asdict().items()},
            "sqn": system_quality(trades),
            "probabilistic_sharpe": float(figures.probabilistic_sharpe),
            "deflated_sharpe": float(figures.deflated_sharpe),
            "long_share": float((held > 0).mean()),
            "short_share": float((held < 0).mean()),
            "flat_share": float((held == 0).mean()),
        },
        "intervals_90": figures.intervals.ends(),
        **_beside(figures, variants),
        "open_position": _open_position(done, float(bars.close[-1])),
    }


def replay_run(options: ReplayOptions) -> Path:
    """Replay the decisions and write the folder; returns it.

    Raises:
      JaxppoError: options, bars or decisions that cannot be used, or a folder that holds something; nothing is written.
    """
    _check_options(options)
    enable_compilation_cache()
    bars, decisions = _load(options)
    with whole_folder(options.out) as folder:
        done, figures, variants = _play(options, bars, decisions)
        _check_finite(options, done)
        trades = round_trips(done.record, options.fee)
        summary = _summary(options, bars, decisions, done, figures, variants, trades)
        write_csv(folder / EQUITY, ("bar", "cash", "units", "equity"), _equity_rows(done, options.cash))
        # A trade's bars count fills from 0; row i of the record is bar i + 1.
        rows = ({**trade_cells(t), "entry_bar": t.entry_bar + 1, "exit_bar": t.exit_bar + 1} for t in trades)
        write_csv(folder / TRADES, TRADE_COLUMNS, ([row[c] for c in TRADE_COLUMNS] for row in rows))
        write_json(folder / SUMMARY, summary)
    if summary["counts"]["unfilled"]:
        line = f"warning: {options.targets}: the decision on bar {decisions.bar[-1]}, the last, has no open to fill at"
        print(line, file=sys.stderr)
    metrics = figures.metrics
    print(
        f"{bars.symbol}: equity {summary['final_equity']:.2f} from {options.cash:.2f} ({metrics.net_return:+.2%}, "
        f"buy and hold {figures.buy_and_hold:+.2%}), Sharpe {metrics.sharpe:.2f}, "
        f"max drawdown {metrics.max_drawdown:.2%}, {len(trades)} trades -> {options.out}"
    )
    return options.out
