"""The files of a backtest: figures, accounts and trades, some of them in the shapes that other tools read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl

from jaxppo.backtest.played import COST_MULTIPLES, Backtest
from jaxppo.market.bars import Bars
from jaxppo.market.dataset import Split, decision_times, joint_calendar
from jaxppo.play.metrics import figures
from jaxppo.play.portfolio import Lanes, fold_portfolios, join_portfolios, summarize_portfolio
from jaxppo.play.sides import HOLD, Yardsticks
from jaxppo.play.significance import curve_moments, deflated_sharpe, expected_max_sharpe, probabilistic_sharpe
from jaxppo.play.tearsheet import sheet_of
from jaxppo.store.files import write_frame
from jaxppo.store.json import write_json
from jaxppo.store.rows import member_rows, member_spread, portfolio_rows, symbol_rows
from jaxppo.store.tables import drawdown, equity_frame, portfolio_frame, trades_frame, utc_times, write_members
from jaxppo.store.tearsheet import write_tearsheet


@dataclass(frozen=True)
class Facts:
    """What was played over what; goes into metrics.json as it is."""

    run: str
    which: str
    update: int
    split: str
    source: str
    data_hash: str
    interval: str
    first_decision: str  # ISO, UTC
    last_decision: str
    cutoffs: tuple[str, str] | None
    decisions: int
    seen: Mapping[str, float]  # share of the decisions at times of the run's train, validation and test split
    looks: int  # validations that the policy was chosen from
    validation_fitness: float
    random_draws: int
    seed: int
    labels: tuple[str, ...]
    finished: bool  # the run
    terms: Mapping[str, Any]  # costs a side by class, stops, exposure
    warnings: tuple[str, ...]


def percentile(drawn: np.ndarray, q: float) -> float:
    """As of `np.percentile`, and infinite between two draws that are: a mean of them is none."""
    low, high = (np.percentile(drawn, q, method=method) for method in ("lower", "higher"))
    return float(low if low == high else np.percentile(drawn, q))


def baseline_rows(done: Backtest, yardsticks: Yardsticks) -> list[dict[str, Any]]:
    """Pooled figures of the policy and of every baseline, and of the policy rebalanced daily (`portfolio`).

    Random draws are given as their mean, 5th and 95th percentile.
    """
    base, random = done.baselines, done.baselines.random
    named = [("policy", done.score.figures.pooled), ("portfolio", done.score.figures.portfolio)]
    named += [("buy_and_hold", base.buy_and_hold), ("flat", base.flat)]
    named += [(name, yardsticks.of(name).metrics) for name in yardsticks.names if name != HOLD]
    named.append(("random_mean", jax.tree.map(np.mean, random)))
    named += [(f"random_p{q}", jax.tree.map(lambda x, q=q: percentile(x, q), random)) for q in (5, 95)]
    return [{"name": name, **figures(metrics)} for name, metrics in named]


def random_rows(done: Backtest) -> list[dict[str, Any]]:
    """Pooled figures of every random draw."""
    random = done.baselines.random
    return [{"draw": i, **figures(jax.tree.map(lambda x, i=i: x[i], random))} for i in range(len(random.net_return))]


def cost_rows(done: Backtest) -> list[dict[str, Any]]:
    """Pooled figures of the policy at each multiple of the costs."""
    return [
        {"cost_multiple": multiple, **figures(jax.tree.map(lambda x, i=i: x[i], done.costs))}
        for i, multiple in enumerate(COST_MULTIPLES)
    ]


def beaten_share(done: Backtest) -> float:
    """Share of the random draws whose net return is below the policy's."""
    return float(np.mean(done.baselines.random.net_return < done.score.figures.pooled.net_return))


def sharpe_probabilities(done: Backtest, looks: int) -> dict[str, float]:
    """Probabilities that the true Sharpe of the pool is above 0, and above the best of `looks` skill-less policies."""
    m = curve_moments(done.score.curves.pooled)
    return {
        "probabilistic_sharpe": float(probabilistic_sharpe(m)),
        "deflated_sharpe": float(deflated_sharpe(m, float(looks))),
    }


def luck_sharpe(done: Backtest, looks: int, bars_per_year: float) -> float:
    """Sharpe ratio a year that the best of `looks` skill-less policies is expected to show over as many bars."""
    bars = max(len(done.score.curves.pooled) - 1, 1)
    return float(expected_max_sharpe(float(looks), math.sqrt(bars_per_year / bars)))


def _curve(done: Backtest, split: Split) -> pl.DataFrame:
    """`backtesting`'s equity curve of the pool, UTC; its first row is the start, at the first decision."""
    joint = joint_calendar(split).time
    start = min(int(t[0]) for t in decision_times(split))
    time = np.concatenate([[start], joint])
    equity = np.concatenate([[1.0], done.score.curves.pooled.astype(np.float64)])
    naive = utc_times(time).dt.replace_time_zone(None)
    return pl.DataFrame({"Time": naive, "Equity": equity, "DrawdownPct": drawdown(equity)})


def _baseline_curves(done: Backtest, yardsticks: Yardsticks, split: Split) -> pl.DataFrame:
    """Pooled equity of the rules, and of the random draws the mean and the 5th and 95th percentile at every bar."""
    joint = joint_calendar(split).time
    random = np.asarray(done.baselines.random_equity, np.float64)
    low, high = np.percentile(random, (5, 95), axis=0)
    return pl.DataFrame(
        {
            "time": utc_times(joint),
            **{n: np.asarray(yardsticks.of(n).equity, np.float64) for n in yardsticks.names if n != HOLD},
            "random_mean": random.mean(0),
            "random_p5": low,
            "random_p95": high,
        }
    )


def _backtesting_trades(trades: pl.DataFrame, curve: pl.DataFrame, n_symbols: int) -> pl.DataFrame:
    """Trades under `backtesting`'s names, bars as rows of `curve`, money as a share of the pool's start."""
    time = curve["Time"]
    entry, exit_ = (trades[c].dt.replace_time_zone(None) for c in ("entry_time", "exit_time"))
    sign = pl.when(pl.col("side") == "long").then(1.0).otherwise(-1.0)
    return trades.select(
        (sign * pl.col("units") / n_symbols).alias("Size"),
        pl.Series("EntryBar", time.search_sorted(entry)).cast(pl.Int64),
        pl.Series("ExitBar", time.search_sorted(exit_)).cast(pl.Int64),
        pl.col("entry_price").alias("EntryPrice"),
        pl.col("exit_price").alias("ExitPrice"),
        (pl.col("pnl") / n_symbols).alias("PnL"),
        pl.col("return").alias("ReturnPct"),
        entry.alias("EntryTime"),
        exit_.alias("ExitTime"),
        pl.col("symbol").alias("Symbol"),
        pl.col("reason").alias("Tag"),
    )


def against_rules(done: Backtest, yardsticks: Yardsticks, split: Split, seed: int) -> dict[str, Any]:
    """The portfolio that is rebalanced daily against buy-and-hold and every rule, with intervals of the differences.

    `baselines` has an entry of each, `excess_over_best_rule` says in words whether the best is beaten; both as in a
    walk-forward, whose only fold this is.
    """
    own = Lanes(done.score.curves.portfolio, done.portfolio_sums, done.score.figures.portfolio)
    joined = join_portfolios([fold_portfolios(joint_calendar(split), own, yardsticks)])
    found = summarize_portfolio(joined, None, seed)  # of an ensemble: its members have rows of their own
    rules = {name: {k: row[k] for k in _AGAINST} for name, row in found["baselines"].items()}
    excess = {k: v for k, v in found["excess_over_best_rule"].items() if k != "sentence"}
    return {"baselines": rules, "excess_over_best_rule": excess}


_AGAINST = ("sharpe", "interval_90", "sharpe_difference", "difference_90")


def write_backtest(
    folder: Path, facts: Facts, done: Backtest, yardsticks: Yardsticks, split: Split, bars: Sequence[Bars]
) -> None:
    """Write every file of a backtest. `done` and `yardsticks` hold host arrays; `bars` are whole."""
    equity, trades = equity_frame(done.score, split), trades_frame(done.score, split)
    curve, policy = _curve(done, split), [("policy", done.score.figures.portfolio)]
    bar = curve.select(date=pl.col("Time"), **{"return": pl.col("Equity").pct_change()}).slice(1)
    days = curve.group_by(date=pl.col("Time").dt.date(), maintain_order=True).agg(pl.col("Equity").last())
    first = pl.col("Equity").shift(1).fill_null(1.0)
    daily = days.select("date", **{"return": pl.col("Equity") / first - 1.0})
    frames = {
        "random_draws": pl.DataFrame(random_rows(done)),
        "baselines_equity": _baseline_curves(done, yardsticks, split),
        "symbols": pl.DataFrame(symbol_rows(done.score.figures, split.symbols, facts.labels)),
        "baselines": pl.DataFrame(baseline_rows(done, yardsticks)),
        "portfolios": pl.DataFrame(portfolio_rows(policy, yardsticks)),
        "costs": pl.DataFrame(cost_rows(done)),
        "equity": equity,
        "portfolio": portfolio_frame(done.score, split),
        "trades": trades,
        "returns": bar,
        "returns_daily": daily,
        "backtesting_equity": curve,
        "backtesting_trades": _backtesting_trades(trades, curve, len(split.symbols)),
    }
    members = member_rows(done.members) if done.members else []
    if members:
        write_members(folder, members)
    for name, frame in frames.items():
        write_frame(folder / f"{name}.csv", frame)
    write_frame(folder / "equity.parquet", equity)
    write_frame(folder / "trades.parquet", trades)
    per_year = joint_calendar(split).bars_per_year
    shares = zip(facts.labels, done.score.figures.action_share.tolist(), strict=True)
    report = {
        **dataclasses.asdict(facts),
        "bars_per_year": per_year,
        "pooled": figures(done.score.figures.pooled),
        "intervals_90": done.intervals.ends(),
        "portfolio": figures(done.score.figures.portfolio),
        "portfolio_intervals_90": done.portfolio_intervals.ends(),
        **sharpe_probabilities(done, facts.looks),
        "luck_sharpe": luck_sharpe(done, facts.looks, per_year),
        "action_share": dict(shares),
        "baselines": {row.pop("name"): row for row in baseline_rows(done, yardsticks)},
        "portfolios": {row.pop("name"): row for row in portfolio_rows(policy, yardsticks)},
        "against": against_rules(done, yardsticks, split, facts.seed),
        "best_rule": yardsticks.best[0],
        "rules_left_out": list(yardsticks.missing),
        **({"members": {"spread": member_spread(members), "each": members}} if members else {}),
        "random_beaten_share": beaten_share(done),
        "costs": cost_rows(done),
    }
    write_json(folder / "metrics.json", report)
    write_tearsheet(folder, sheet_of(done.score, split, yardsticks.of(HOLD).portfolio_equity, bars))
