"""One replay from files of bars and decisions to a folder of tables, summary.json and a page."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxppo.config.schema import BarsFilter
from jaxppo.device import enable_compilation_cache
from jaxppo.env.account import AccountState, Levels
from jaxppo.errors import ConfigError, DataError
from jaxppo.market.asset_classes import ASSET_CLASSES
from jaxppo.market.bars import Bars, load_bars
from jaxppo.market.calendar import bars_per_year, format_interval
from jaxppo.market.costs import MarketCosts, SymbolCosts, read_costs, resolve_costs
from jaxppo.market.orders import Decisions, load_decisions
from jaxppo.market.tape import Costs, Tape, price_tape
from jaxppo.play.deciders import Orders
from jaxppo.play.trades import Trade, round_trips, system_quality
from jaxppo.replay.files import write_tables
from jaxppo.replay.played import OTHER_COSTS, Replay, Rules, replay
from jaxppo.replay.sessions import replay_journal
from jaxppo.store.directory import whole_folder
from jaxppo.store.json import write_json

SUMMARY = "summary.json"


@dataclass(frozen=True, kw_only=True)
class ReplayOptions(BarsFilter):
    """What to replay, on which terms."""

    bars: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="BARS")] = None
    """Parquet or CSV file of bars, or a folder of them."""
    targets: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="TARGETS")] = None
    """CSV file of decisions: bar, one of target, units and order_units, optionally stop and take_profit."""
    out: Path
    """Folder to write, which must not hold anything yet."""
    journal: Path | None = None
    """Folder of a session of jaxppo.paper, in place of BARS and TARGETS: its decisions at its own bars and costs, and
    how its money differs from what the account makes of them."""
    cash: float = 10_000.0
    """Cash to start with."""
    fee: dict[str, float] = field(default_factory=dict)
    """Fee per side, as a fraction of the notional: CLASS FRACTION pairs, or one number for every class."""
    slippage: float = 0.0
    """Slippage as a fraction of the price, always against us."""
    spread: float = 0.0
    """Full bid-ask spread as a fraction of the price; a fill pays half of it."""
    borrow: float = 0.0
    """Yearly borrow cost on short notional, accrued per bar."""
    costs: str | None = None
    """CSV or Parquet file of costs by symbol: symbol, half_spread or fee (a side), optionally borrow (a year)."""
    max_exposure: float | None = None
    """Largest notional over equity that an order may lead to; orders beyond it are cut down to it. None for any."""
    ruin_level: float = 0.0
    """Equity, as a fraction of the starting cash, at or below which the account is liquidated for good."""
    trials: int = 1
    """Variants of these decisions that were tried before, this one included; the deflated Sharpe ratio counts them."""
    take_profit_gap: Literal["open", "limit"] = "open"
    """Fill of a take-profit that the open gaps through: at the open, or (pessimistic) at the limit."""
    close_at_end: bool = False
    """Sell what is still open at the last close, at cost; by default it stays open, marked to market."""
    x64: bool = False
    """Compute in float64 in place of the trainer's float32."""
    symbols: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--symbol",))] = ()
    """The one to replay on, where the bars have several."""
    timezone: str | None = "UTC"
    """Time zone of naive timestamps in the files; only the bars a year depend on it."""


def _check_options(options: ReplayOptions) -> None:
    """Refuse numbers that mean nothing."""

    def demand(good: bool, name: str, rule: str) -> None:
        if not good:
            raise ConfigError(f"--{name.replace('_', '-')}: {getattr(options, name)} given; it must be {rule}")

    if options.journal is not None:
        said = "has bars, costs and decisions of its own; give --out alone with it"
        others = {f.name for f in fields(options)} - {"journal", "out"}
        for name in others:
            own = next(f for f in fields(options) if f.name == name)
            if getattr(options, name) not in (own.default, {}):
                raise ConfigError(f"--journal: {options.journal} {said}, and leave {name} out")
    elif options.bars is None or options.targets is None:
        raise ConfigError("replay: give a file of bars and one of decisions, or --journal with a session's folder")
    demand(math.isfinite(options.cash) and options.cash > 0, "cash", "a number above 0")
    for name, fee in options.fee.items():
        ASSET_CLASSES.find(name, "fee")
        if not 0 <= fee < 1:
            raise ConfigError(f"--fee: {fee} given; it must be a fraction from 0 to below 1")
    for name in ("slippage", "spread", "ruin_level"):
        demand(0 <= getattr(options, name) < 1, name, "a fraction from 0 to below 1")
    demand(math.isfinite(options.borrow) and options.borrow >= 0, "borrow", "0 or more, a year")
    demand(options.trials >= 1, "trials", "1 or more")
    if options.max_exposure is not None:
        demand(math.isfinite(options.max_exposure) and options.max_exposure > 0, "max_exposure", "a number above 0")


def _load(options: ReplayOptions) -> tuple[Bars, Decisions, MarketCosts]:
    asked = {f.name: getattr(options, f.name) for f in fields(BarsFilter)}
    assert options.bars is not None
    assert options.targets is not None
    found = load_bars(options.bars, **asked)
    if len(found) > 1:
        names = ", ".join(b.symbol for b in found[:8]) + (", ..." if len(found) > 8 else "")
        raise DataError(f"{options.bars}: bars of {len(found)} symbols ({names}); choose one with --symbols")
    bars = found[0]
    if len(bars.time) < 2:
        raise DataError(f"{options.bars}: one bar; an order fills at the open of the next, so give 2 or more")
    decisions = load_decisions(options.targets, len(bars.time))
    costs = _costs(options, bars)
    cost = costs.sides()[0]
    if decisions.order == "target" and (np.abs(decisions.value) * cost >= 1).any():
        largest = np.nanmax(np.abs(decisions.value))
        raise DataError(f"{options.targets}: a target of {largest:g} costs more than the account; give a smaller one")
    return bars, decisions, costs


def _costs(options: ReplayOptions, bars: Bars) -> MarketCosts:
    """What the symbol pays: the fee of its class, spread and borrow, over which goes the file of costs."""
    flags = {bars.symbol: SymbolCosts(options.fee.get(bars.asset_class, 0.0), options.spread / 2, options.borrow)}
    if options.costs is None:
        return MarketCosts(flags, options.slippage)
    return resolve_costs(read_costs(options.costs), flags, options.slippage)


def _tape(costs: MarketCosts, bars: Bars, dtype: Any) -> Tape:
    """The bars as the one symbol of a Tape, with its costs."""
    own = costs.by_symbol[bars.symbol]
    per_year = bars_per_year(bars.time, bars.interval, bars.asset_class, bars.timezone)
    numbers = (own.fee, costs.slippage + own.half_spread, own.borrow / per_year, per_year)
    *paid, years = (jnp.full(1, x, dtype) for x in numbers)
    prices = (bars.open, bars.high, bars.low, bars.close)
    open_, high, low, close = (jnp.asarray(x, dtype).reshape(1, -1) for x in prices)
    return price_tape(open_, high, low, close, Costs(*paid), years)


def _orders(decisions: Decisions, n: int, dtype: Any) -> Orders:
    """Decisions as a row a bar that can be filled, (n, 1, 1); those of the last bar cannot."""
    can = decisions.bar < n

    def column(values: np.ndarray) -> jax.Array:
        rows = np.full((n, 1, 1), np.nan)
        rows[decisions.bar[can], 0, 0] = values[can]
        with np.errstate(over="ignore"):  # what float32 cannot hold is found out later
            return jnp.asarray(rows.astype(dtype))

    return Orders(column(decisions.value), Levels(column(decisions.stop), column(decisions.take_profit)))


def _play(options: ReplayOptions, bars: Bars, decisions: Decisions, costs: MarketCosts) -> Replay:
    """The replay, as host arrays."""
    rules = Rules(
        kind=decisions.order,
        cash=options.cash,
        ruin_level=options.ruin_level,
        max_exposure=math.inf if options.max_exposure is None else options.max_exposure,
        take_profit_gap=options.take_profit_gap,
        close_at_end=options.close_at_end,
    )
    with jax.enable_x64(options.x64):
        dtype = jnp.float64 if options.x64 else jnp.float32
        orders = _orders(decisions, len(bars.time) - 1, dtype)
        done = replay(orders, _tape(costs, bars, dtype), jnp.asarray(options.trials, dtype), rules)
        return jax.tree.map(np.asarray, done)


def _check_finite(options: ReplayOptions, done: Replay) -> None:
    lost = ~np.isfinite(done.record.equity)
    if lost.any():
        where = f"{options.targets}: the equity at bar {1 + int(np.argmax(lost))} is no number"
        kind = "float64" if options.x64 else "float32; try --x64"
        raise DataError(f"{where}; an order, a target or a price is too large for {kind}")


def _open_position(account: AccountState, close: float) -> dict[str, Any] | None:
    last = jax.tree.map(float, account)
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


def _beside(done: Replay) -> dict[str, Any]:
    """What the figures are read next to: holding, the same orders at other costs, and at other times."""
    names = ("net_return", "sharpe", "max_drawdown", "profit_factor", "trades")
    variants, other = done.variants, len(OTHER_COSTS)
    rows = {1.0: {k: float(getattr(done.metrics, k)) for k in names}}
    rows |= {m: {k: float(getattr(variants, k)[i]) for k in names} for i, m in enumerate(OTHER_COSTS)}
    shifted = {k: getattr(variants, k)[other:] for k in ("net_return", "sharpe")}
    spread = {
        k: {"mean": float(v.mean()), "low": float(np.quantile(v, 0.05)), "high": float(np.quantile(v, 0.95))}
        for k, v in shifted.items()
        if len(v)
    }
    beaten = float((shifted["net_return"] < done.metrics.net_return).mean()) if spread else math.nan
    return {
        "buy_and_hold_return": float(done.buy_and_hold[-1]) - 1.0,
        "costs": [{"cost_multiple": m, **rows[m]} for m in sorted(rows)],
        "same_orders_at_random_times": {**spread, "beaten_share": beaten, "draws": len(shifted["sharpe"])},
    }


def _summary(
    options: ReplayOptions, bars: Bars, decisions: Decisions, own: SymbolCosts, done: Replay, trades: list[Trade]
) -> dict[str, Any]:
    record = jax.tree.map(lambda x: x.astype(np.float64), done.record)
    held = np.sign(record.units)
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(options).items() if k != "out"}
    paid = {"fee": own.fee, "spread": 2 * own.half_spread, "borrow": own.borrow}
    return {
        "settings": {**settings, **paid, "order": decisions.order},
        "data": {"symbol": bars.symbol, "interval": format_interval(bars.interval), "bars": len(bars.time)},
        "counts": {
            "decisions": len(decisions.bar),
            "orders_filled": int((record.order_units != 0).sum()),
            "stops": sum(t.reason == "stop" for t in trades),
            "take_profits": sum(t.reason == "take_profit" for t in trades),
            "unfilled": int((decisions.bar == len(bars.time) - 1).sum()),
            "cut_orders": int(done.sent.cut.sum()),
            "dropped_after_ruin": int(done.sent.dropped.sum()),
        },
        "final_equity": float(record.equity[-1]),
        "total_fees": float(record.fees.sum()),
        "total_borrow": float(record.borrow.sum()),
        "total_cost": float((record.cost + record.borrow).sum()),
        "ruined": bool(record.ruined.any()),
        "metrics": {
            **{k: float(v) for k, v in done.metrics._asdict().items()},
            "sqn": system_quality(trades),
            "probabilistic_sharpe": float(done.chance.probabilistic_sharpe),
            "deflated_sharpe": float(done.chance.deflated_sharpe),
            "long_share": float((held > 0).mean()),
            "short_share": float((held < 0).mean()),
            "flat_share": float((held == 0).mean()),
        },
        "intervals_90": done.chance.intervals.ends(),
        **_beside(done),
        "open_position": _open_position(done.account, float(bars.close[-1])),
    }


def _counted(trades: list[Trade], summary: dict[str, Any]) -> str:
    """The trades that were closed, and the one that was not."""
    still = summary["open_position"]
    open_ = f", and a {still['side']} position still open" if still else ""
    return f"{len(trades)} closed trade{'' if len(trades) == 1 else 's'}{open_}"


def replay_run(options: ReplayOptions) -> Path:
    """Replay the decisions and write the folder; returns it.

    Raises:
      JaxppoError: options, bars or decisions that cannot be used, or a folder that holds something; nothing is written.
    """
    _check_options(options)
    enable_compilation_cache()
    if options.journal is not None:
        return replay_journal(options.journal, options.out)
    from jaxppo.replay.page import write_replay_report  # matplotlib takes a second to import

    bars, decisions, costs = _load(options)
    own = costs.by_symbol[bars.symbol]
    with whole_folder(options.out) as folder:
        done = _play(options, bars, decisions, costs)
        _check_finite(options, done)
        trades = round_trips(done.record, own.fee, costs.slippage + own.half_spread)
        summary = _summary(options, bars, decisions, own, done, trades)
        write_tables(folder, decisions, done, trades, bars, options.cash)
        write_json(folder / SUMMARY, summary)
        write_replay_report(folder)
    if summary["counts"]["unfilled"]:
        line = f"warning: {options.targets}: the decision on bar {decisions.bar[-1]}, the last, has no open to fill at"
        print(line, file=sys.stderr)
    for line in costs.lines:
        print(line)
    print(
        f"{bars.symbol}: equity {summary['final_equity']:.2f} from {options.cash:.2f} ({done.metrics.net_return:+.2%}, "
        f"buy and hold {summary['buy_and_hold_return']:+.2%}), Sharpe {done.metrics.sharpe:.2f}, "
        f"max drawdown {done.metrics.max_drawdown:.2%}, {_counted(trades, summary)} -> {options.out}"
    )
    print(f"page: {options.out / 'report.html'}")
    return options.out
