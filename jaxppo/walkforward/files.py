"""The results of a walk-forward: joined curves, tables and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

from jaxppo.config.schema import Config
from jaxppo.market.bars import Bars
from jaxppo.market.calendar import joint_bars_per_year
from jaxppo.market.dataset import JointCalendar, Split, evaluation_set, joint_calendar
from jaxppo.play.baselines import buy_and_hold, hold_sums
from jaxppo.play.curve import TradeSums
from jaxppo.play.gate import Gate
from jaxppo.play.joined import (
    join_curves,
    joined_metrics,
    joined_sums,
    metric_gaps,
)
from jaxppo.play.ledger import join_ledgers, ledger_of
from jaxppo.play.metrics import METRICS, Metrics, figures
from jaxppo.play.passes import decision_bars, fills, n_decisions, paid_since
from jaxppo.play.portfolio import (
    POLICY,
    Joined,
    Lanes,
    fold_portfolios,
    join_portfolios,
    lanes_of,
    member_portfolios,
    summarize_portfolio,
)
from jaxppo.play.score import Curves, Score, pool_equity
from jaxppo.play.sides import HOLD, Yardsticks
from jaxppo.play.significance import chance
from jaxppo.play.tearsheet import Returns, TearSheet, tear_sheet
from jaxppo.store.columns import JOINED, POOLED
from jaxppo.store.directory import iso
from jaxppo.store.files import write_frame
from jaxppo.store.gate import write_gate
from jaxppo.store.json import write_json
from jaxppo.store.tables import drawdown, equity_frame, joined_frame, trades_frame, utc_times, with_cumulative
from jaxppo.store.tearsheet import write_tearsheet
from jaxppo.walkforward.dates import FoldPlan, fold_split
from jaxppo.walkforward.handed import hand_over
from jaxppo.walkforward.judged import judge_portfolio
from jaxppo.walkforward.program import FoldOutput, Judged


@dataclass(frozen=True)
class Result:
    """Everything that is written."""

    summary: dict[str, Any]
    folds: pl.DataFrame  # one row a fold
    symbols: pl.DataFrame  # one row a fold and symbol, and one a symbol over all folds
    equity: pl.DataFrame  # the joined curves, one row a time
    accounts: pl.DataFrame  # one row a fold, symbol and bar; every fold starts at 1
    trades: pl.DataFrame
    portfolio: pl.DataFrame  # one row a UTC date: policy, baselines and members, rebalanced daily
    gate: Gate
    sheet: TearSheet  # of that portfolio


@dataclass(frozen=True)
class _Tested:
    """The test part of one fold, on its own symbols."""

    number: int
    plan: FoldPlan
    split: Split
    rows: np.ndarray  # (S',) of the split's symbols in the history
    joint: JointCalendar
    score: Score  # of the policy, on those symbols and times alone; host arrays

    @property
    def time(self) -> np.ndarray:
        """(U,) bar starts of the joint calendar."""
        return self.joint.time

    @property
    def curves(self) -> tuple[np.ndarray, np.ndarray]:
        """Pooled equity of the policy and of buy-and-hold (U,)."""
        return np.asarray(self.score.curves.pooled), np.asarray(self.score.curves.hold)


def at(tree: Any, index: Any) -> Any:
    """One entry, or some, of every array's first axis."""
    return jax.tree.map(lambda x: x[index], tree)


def _tested(history: Split, number: int, plan: FoldPlan, output: FoldOutput) -> _Tested:
    split, rows = fold_split(history, plan.test_first, plan.test_length)
    joint = joint_calendar(split)
    test, n = output.test, len(joint.time)
    record, action, valid, held = jax.tree.map(
        lambda x: x[:, rows], (test.record, test.action, test.valid, test.curves.symbol_hold)
    )
    days = len(joint.day)
    curves = Curves(test.curves.pooled[:n], test.curves.hold[:n], held, test.curves.portfolio[:days])
    return _Tested(
        number, plan, split, rows, joint, test._replace(record=record, action=action, valid=valid, curves=curves)
    )


def last_training_bar(history: Split, plan: FoldPlan) -> int:
    """Start of the last bar that any symbol trains on, UTC seconds."""
    rows = np.flatnonzero(plan.train_decisions > 0)
    return max(int(history.times[s][plan.train_length[s] - 1]) for s in rows)


def _fold_row(
    tested: _Tested, judged: Judged, output: FoldOutput, kept: int, history: Split, labels: Sequence[str]
) -> dict[str, Any]:
    plan, score = tested.plan, tested.score
    before, after = figures(judged.train), figures(output.test.figures.pooled)
    hold = float(score.curves.hold[-1]) - 1.0
    taken = score.action[score.valid]
    return {
        "fold": tested.number,
        "train_begin": iso(plan.dates.train_begin),
        "train_end": iso(last_training_bar(history, plan)),
        "test_begin": iso(plan.dates.test_begin),
        "test_end": iso(plan.dates.test_end),
        "last_test": iso(int(tested.time[-1])),
        "train_symbols": int((plan.train_decisions > 0).sum()),
        "test_symbols": len(tested.rows),
        "train_decisions": int(plan.train_decisions.sum()),
        "test_decisions": int(plan.test_decisions.sum()),
        "kept_update": kept,
        "probability": float(judged.probability),
        "stays_flat": bool(judged.flat),
        "ruined": int(score.record.ruined.any(0).sum()),
        "out_buy_and_hold_return": hold,
        **{f"in_{k}": v for k, v in before.items()},
        **{f"out_{k}": v for k, v in after.items()},
        **{f"gap_{k}": after[k] - before[k] for k in after},
        **{f"out_action_share_{label}": float((taken == i).mean()) for i, label in enumerate(labels)},
    }


def _fold_symbol_rows(tested: _Tested, output: FoldOutput, history: Split) -> list[dict[str, Any]]:
    trained = tested.plan.train_decisions > 0
    return [
        {
            "fold": str(tested.number),
            "symbol": history.symbols[s],
            "trained": bool(trained[s]),
            "buy_and_hold_return": float(output.test.figures.symbol_hold[s]),
            **figures(at(output.test.figures.symbols, s)),
        }
        for s in tested.rows
    ]


def _joined_symbol_rows(tested: Sequence[_Tested], outputs: FoldOutput, history: Split) -> list[dict[str, Any]]:
    """Every symbol's accounts of all folds, compounded one after another."""
    own = np.asarray(history.tape.bars_per_year)
    rows, curves, sums = [], [], []
    for s in sorted({int(r) for t in tested for r in t.rows}):
        folds = [t.number - 1 for t in tested if s in t.rows]
        bars = np.asarray([tested[k].plan.test_decisions[s] for k in folds])
        curves.append(
            join_curves([np.asarray(outputs.test.record.equity[k, :n, s]) for k, n in zip(folds, bars, strict=True)])
        )
        parts = jax.tree.map(lambda x, k=folds, s=s: x[k, s], outputs.test.sums)
        sums.append(joined_sums(parts, bars, np.full(len(bars), own[s]), float(own[s])))
        held = float(np.prod(1.0 + outputs.test.figures.symbol_hold[folds, s].astype(np.float64))) - 1.0
        rows.append({"fold": JOINED, "symbol": history.symbols[s], "trained": None, "buy_and_hold_return": held})
    metrics = _metrics(curves, sums, [own[history.symbols.index(r["symbol"])] for r in rows])
    return [row | figures(at(metrics, i)) for i, row in enumerate(rows)]


def _metrics(curves: Sequence[np.ndarray], sums: Sequence[TradeSums], bars_per_year: Sequence[float]) -> Metrics:
    """Figures (P,) of curves of any lengths, as host arrays."""
    size = max(len(c) for c in curves)
    equity = np.stack([np.pad(c, (0, size - len(c)), mode="edge") for c in curves]).astype(np.float32)
    valid = np.stack([np.arange(size) < len(c) for c in curves])
    total = jax.tree.map(lambda *x: np.stack(x), *sums)
    return jax.device_get(joined_metrics(equity, valid, np.asarray(bars_per_year, np.float32), total))


class _Once(NamedTuple):
    """Buy-and-hold over all test periods, every symbol bought once and sold once."""

    curve: np.ndarray  # (U,) pooled, on the joined calendar
    profit: np.ndarray  # (P,) of each symbol that is tested at all
    bars: np.ndarray  # (P,) that it is held
    bars_per_year: np.ndarray  # (P,)


def hold_once(history: Split, plans: Sequence[FoldPlan]) -> _Once:
    """Buy-and-hold over all test periods, bought once and sold once."""
    tested = np.stack([p.test_decisions > 0 for p in plans])
    first = np.where(tested, np.stack([p.test_first for p in plans]), np.iinfo(np.int32).max).min(0)
    length = np.where(tested, np.stack([p.test_length for p in plans]), 0).max(0)
    first = np.where(tested.any(0), first, length).astype(np.int32)  # then it does not decide
    split, _ = fold_split(history, first, length.astype(np.int32))
    data = evaluation_set(Split(jax.tree.map(jnp.asarray, split.tape), split.symbols, split.times))
    n = n_decisions(data.tape)
    held = buy_and_hold(*fills(data.tape, n), decision_bars(data.tape, n)[1], data.tape.costs, paid_since(data.tape, n))
    bars = length - 1 - first
    there = bars > 0
    own = np.asarray(history.tape.bars_per_year)
    curve = np.asarray(pool_equity(data, held), np.float64)
    return _Once(curve, np.asarray(held[-1])[there] - 1.0, bars[there], own[there])


def _held(profit: np.ndarray, bars: np.ndarray, side: np.ndarray) -> TradeSums:
    """`hold_sums` of parts (P,) as host arrays."""
    return jax.device_get(hold_sums(jnp.asarray(profit, jnp.float32), jnp.asarray(bars), jnp.asarray(side)))


def _joined(history: Split, tested: Sequence[_Tested], outputs: FoldOutput) -> tuple[pl.DataFrame, Metrics, float]:
    """The joined curves, the figures of policy, buy-and-hold twice and flat (4,), and the bars a year."""
    own = np.asarray(history.tape.bars_per_year)
    mask = np.stack([t.plan.test_decisions > 0 for t in tested])
    bars = np.stack([t.plan.test_decisions for t in tested])[mask]
    yearly = np.broadcast_to(own, mask.shape)[mask]
    time = np.concatenate([t.time for t in tested])
    by_symbol = np.stack([t.plan.test_decisions for t in tested]).sum(0, where=mask)
    per_year = joint_bars_per_year(time, own, by_symbol)
    once = hold_once(history, [t.plan for t in tested])
    curves = [
        join_curves([t.curves[0] for t in tested]),
        join_curves([t.curves[1] for t in tested]),
        once.curve,
        np.ones(len(time)),
    ]
    side = np.asarray(history.tape.costs.fee + history.tape.costs.impact)
    hold = _held(np.asarray(outputs.test.figures.symbol_hold)[mask], bars, np.broadcast_to(side, mask.shape)[mask])
    held_once = _held(once.profit, once.bars, side[mask.any(0)])
    nothing = jax.tree.map(np.zeros_like, held_once)
    sums = [
        joined_sums(jax.tree.map(lambda x: x[mask], outputs.test.sums), bars, yearly, per_year),
        joined_sums(hold, bars, yearly, per_year),
        *(joined_sums(s, once.bars, once.bars_per_year, per_year) for s in (held_once, nothing)),
    ]
    equity = curves[0]
    frame = pl.DataFrame(
        {
            "fold": np.concatenate([np.full(len(t.time), t.number) for t in tested]),
            "time": utc_times(time),
            "equity": equity,
            "benchmark": curves[1],
            "benchmark_once": once.curve,
            "drawdown": drawdown(equity),
        }
    )
    return frame, _metrics(curves, sums, [per_year] * len(curves)), per_year


_ROUNDING = 1e-6  # a pool of 37 accounts that never trade ends at 1.0000001
BASELINES = ("policy", "buy_and_hold", "buy_and_hold_once", "flat")


def collect(
    history: Split,
    plans: Sequence[FoldPlan],
    judged: Judged,
    outputs: FoldOutput,
    kept: Sequence[int],
    labels: Sequence[str],
    facts: Mapping[str, Any],
    config: Config,
    yardsticks: Sequence[Yardsticks],
    bars: Sequence[Bars],
) -> Result:
    """Tables and figures from the recorded folds.

    Args:
      history: the whole market.
      plans: K folds.
      judged, outputs: host arrays (K, ...).
      kept: after which update each fold's policy was taken.
      labels: of the actions.
      facts: settings; they open the summary. `trials` deflates the Sharpe ratio.
      config: its seed is that of the bootstrap, its thresholds are the gate's.
      yardsticks: buy-and-hold and the rules on the test part of each of the K folds.
      bars: of all symbols, whole.
    """
    tested = [_tested(history, k + 1, plan, at(outputs, k)) for k, plan in enumerate(plans)]
    folds = pl.DataFrame(
        [_fold_row(t, at(judged, k), at(outputs, k), kept[k], history, labels) for k, t in enumerate(tested)]
    )
    rows = [row for k, t in enumerate(tested) for row in _fold_symbol_rows(t, at(outputs, k), history)]
    equity, joined, per_year = _joined(history, tested, outputs)
    curve = jnp.asarray(equity["equity"].to_numpy(), jnp.float32)
    trials = jnp.float32(facts["trials"])
    one, valid = jnp.ones((), curve.dtype), jnp.ones(curve.shape, bool)
    luck = jax.device_get(
        jax.jit(chance)(curve, one, valid, jnp.float32(per_year), trials, jax.random.key(config.seed))
    )
    returns = np.asarray(outputs.test.figures.pooled.net_return)
    holds = np.asarray([t.score.curves.hold[-1] - 1.0 for t in tested])
    daily = join_portfolios(
        [fold_portfolios(t.joint, _policy_lane(at(outputs, k)), yardsticks[k]) for k, t in enumerate(tested)]
    )
    members = None
    if outputs.members is not None:
        each = [lanes_of(at(outputs.members, k)) for k in range(len(tested))]
        members = join_portfolios([member_portfolios(t.joint, m) for t, m in zip(tested, each, strict=True)])
    costs = history.tape.costs
    side = float(np.median(np.asarray(costs.fee + costs.impact)))
    handed = np.flatnonzero(~np.asarray(judged.flat))  # a fold that stays flat does not show what was learnt
    gaps = metric_gaps(at(judged.train, handed), at(outputs.test.figures.pooled, handed))
    summary = {
        **facts,
        "kept_updates": list(kept),
        "handed_over": hand_over(judged, config.budget.flat_below, side),
        "first_test": iso(plans[0].dates.test_begin),
        "last_test": iso(int(tested[-1].time[-1])),
        "symbols": len({int(r) for t in tested for r in t.rows}),
        "test_decisions": int(sum(t.plan.test_decisions.sum() for t in tested)),
        "bars_per_year": per_year,
        "joined": {name: figures(at(joined, i)) for i, name in enumerate(BASELINES)},
        "positive_folds": float((returns > _ROUNDING).mean()),
        "folds_above_buy_and_hold": float((returns > holds).mean()),
        "probabilistic_sharpe": float(luck.probabilistic_sharpe),
        "deflated_sharpe": float(luck.deflated_sharpe),
        "intervals_90": luck.intervals.ends(),
        "gaps": {METRICS[k].column: v._asdict() for k, v in gaps.items()},
        **summarize_portfolio(daily, members, config.seed),
    }
    gate = judge_portfolio(daily, summary["excess_over_best_rule"], config.gate, facts["trials"])
    accounts = [_numbered(equity_frame(t.score, t.split), t) for t in tested]
    trades = [_numbered(trades_frame(t.score, t.split), t) for t in tested]
    return Result(
        summary,
        folds,
        pl.DataFrame(rows + _joined_symbol_rows(tested, outputs, history)),
        equity,
        pl.concat(accounts).filter(pl.col("symbol") != POOLED),
        with_cumulative(pl.concat(trades)),
        joined_frame(daily, members),
        gate,
        _sheet(daily, tested, bars),
    )


def _sheet(daily: Joined, tested: Sequence[_Tested], bars: Sequence[Bars]) -> TearSheet:
    """The tear sheet of the joined portfolio that is rebalanced daily."""
    policy, hold = (daily.returns[daily.names.index(name)] for name in (POLICY, HOLD))
    ledger = join_ledgers([ledger_of(t.score, t.split) for t in tested])
    return tear_sheet(Returns(daily.day, daily.per_year, policy, hold), ledger, bars)


def _policy_lane(output: FoldOutput) -> Lanes:
    """A fold's portfolio that is rebalanced daily."""
    return Lanes(output.test.curves.portfolio, output.portfolio_sums, output.test.figures.portfolio)


def _numbered(frame: pl.DataFrame, tested: _Tested) -> pl.DataFrame:
    return frame.select(pl.lit(tested.number, pl.Int64).alias("fold"), pl.all())


def write_walkforward(folder: Path, result: Result) -> None:
    """Every file but the configuration, the manifest, the policies and the report."""
    for name in ("folds", "symbols", "equity", "trades", "portfolio"):
        write_frame(folder / f"{name}.csv", getattr(result, name))
    for name in ("equity", "trades", "accounts", "portfolio"):
        write_frame(folder / f"{name}.parquet", getattr(result, name))
    write_json(folder / "summary.json", {**result.summary, "gate": result.gate.verdict})
    write_gate(folder, result.gate)
    write_tearsheet(folder, result.sheet)
