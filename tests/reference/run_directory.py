"""A made-up run directory, as the trainer leaves it, with plausible numbers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from jaxppo.config.schema import Config, to_dict
from jaxppo.market.calendar import DAY
from jaxppo.market.synthetic import synthetic_market
from jaxppo.play.ledger import Traded, empty_ledger
from jaxppo.play.tearsheet import Returns, TearSheet, tear_sheet
from jaxppo.store.tables import drawdown
from jaxppo.store.tearsheet import write_tearsheet

LABELS = ("hold", "buy", "sell")
COMPONENTS = ("direction", "pnl", "exploration")
START = datetime(2024, 3, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Fake:
    """What the made-up run is like."""

    symbols: tuple[str, ...] = ("AAPL", "<b>X&Y", "BTC$USD$")
    bars: int = 700
    validations: int = 9
    trade_bars: int = 14
    drift: float = 2e-4
    finished: bool = True


def metrics_frame(fake: Fake, rng: np.random.Generator) -> pl.DataFrame:
    n = fake.validations
    progress = np.linspace(0, 1, n)
    train = np.where(np.arange(n) == 0, np.nan, 1.0)  # nothing has been trained at the first validation
    hold = 0.8 - 0.4 * progress
    noise = rng.normal(0, 0.03, (6, n))
    columns: dict[str, Any] = {
        "update": np.arange(n) * 5,
        "env_steps": np.arange(n) * 5 * 65_536,
        "learning_rate": 3e-4 * (0.01 + 0.99 * np.cos(progress * np.pi / 2) ** 2) * train,
        "reward_mean": (2e-4 * progress + 2e-5 * noise[0]) * train,
        "entropy": (1.09 - 0.5 * progress + noise[1]) * train,
        "approx_kl": (0.008 + 0.05 * np.abs(noise[2])) * train,
        "clip_fraction": (0.08 + noise[2] ** 2) * train,
        "explained_variance": (0.6 * progress - 0.05 + noise[3]) * train,
        "value_loss": (0.4 * np.exp(-3 * progress) + np.abs(noise[3]) / 10) * train,
        "train_trade_rate": (0.1 + 0.1 * progress) * train,
        "skipped_steps": np.zeros(n) * train,
        "val_return": 0.12 * progress - 0.03 + noise[4],
        "val_buy_and_hold_return": np.full(n, 0.06),
        "val_sharpe": 1.9 * progress - 0.4 + 6 * noise[4],
        "val_fitness": 1.9 * progress - 0.4 + 6 * noise[4],
        "val_max_drawdown": 0.12 - 0.05 * progress,
        "val_profit_factor": np.where(np.arange(n) == 1, np.inf, 0.9 + 0.5 * progress),
        "val_trades": 30 + 200 * progress,
    }
    for i, name in enumerate(COMPONENTS):
        columns[f"reward_{name}_mean"] = (0.05 * (i + 1) * progress + noise[i] / 20) * train
        columns[f"reward_{name}_share"] = np.full(n, (0.2, 0.5, 0.3)[i]) * train
        columns[f"reward_{name}_saturation"] = np.full(n, 0.1 * i) * train
    for label, share in zip(LABELS, (hold, 0.6 * (1 - hold), 0.4 * (1 - hold)), strict=True):
        columns[f"action_share_{label}"] = share * train
        columns[f"val_action_share_{label}"] = share
    return pl.DataFrame(columns).with_columns(pl.exclude("update", "env_steps").fill_nan(None))


def trade_row(symbol: str, time: list[datetime], close: np.ndarray, i: int, j: int, side: str) -> dict[str, Any]:
    gain = (close[j] / close[i] - 1) * (1 if side == "long" else -1) - 0.0005
    return {
        "symbol": symbol,
        "side": side,
        "entry_time": time[i],
        "exit_time": time[j],
        "bars": j - i,
        "units": 0.01 if side == "long" else -0.01,
        "entry_price": close[i],
        "exit_price": close[j],
        "fees": 0.0005,
        "borrow": 0.0,
        "pnl": gain,
        "return": gain,
        "reason": ("order", "stop", "take_profit")[i % 3],
    }


TRADE_SCHEMA: dict[str, Any] = {
    "symbol": pl.String,
    "side": pl.String,
    "entry_time": pl.Datetime("us", "UTC"),
    "exit_time": pl.Datetime("us", "UTC"),
    "bars": pl.Int64,
    "units": pl.Float64,
    "entry_price": pl.Float64,
    "exit_price": pl.Float64,
    "fees": pl.Float64,
    "borrow": pl.Float64,
    "pnl": pl.Float64,
    "return": pl.Float64,
    "reason": pl.String,
}


def symbol_frames(
    symbol: str, fake: Fake, rng: np.random.Generator
) -> tuple[pl.DataFrame, list[dict[str, Any]], np.ndarray]:
    """Equity rows and trades of one symbol, and the net returns of its bars."""
    n = fake.bars
    time = [START + timedelta(hours=i) for i in range(n)]
    close = 100 * np.exp(np.cumsum(rng.normal(1e-5, 0.005, n)))
    exposure, trades = np.zeros(n), []
    for i in range(2, n - fake.trade_bars - 1, 2 * fake.trade_bars) if fake.trade_bars else ():
        j = i + int(rng.integers(2, fake.trade_bars + 1))
        side = "long" if rng.random() < 0.6 else "short"
        exposure[i:j] = 1.0 if side == "long" else -1.0
        trades.append(trade_row(symbol, time, close, i, j, side))
    returns = np.append(0.0, np.diff(np.log(close))) * exposure + rng.normal(fake.drift, 0.003, n) * (exposure != 0)
    equity = pl.DataFrame(
        {
            "symbol": [symbol] * n,
            "time": time,
            "open": np.append(100.0, close[:-1]),
            "high": np.maximum(close, np.append(100.0, close[:-1])) * 1.002,
            "low": np.minimum(close, np.append(100.0, close[:-1])) * 0.998,
            "close": close,
            "equity": np.exp(np.cumsum(returns)),
            "units": exposure / close,
            "exposure": exposure,
            "action": rng.choice(3, n, p=(0.5, 0.3, 0.2)).astype(np.int32),
            "benchmark": close / close[0] * 0.999,
        },
        schema_overrides={"time": pl.Datetime("us", "UTC")},
    )
    return equity, trades, returns


def pooled_rows(equity: pl.DataFrame) -> pl.DataFrame:
    mean = equity.group_by("time").agg(pl.col("equity", "exposure", "benchmark").mean()).sort("time")
    return mean.select(
        pl.lit("POOLED").alias("symbol"),
        "time",
        *(pl.lit(None, pl.Float64).alias(name) for name in ("open", "high", "low", "close")),
        "equity",
        pl.lit(None, pl.Float64).alias("units"),
        "exposure",
        pl.lit(None, pl.Int32).alias("action"),
        "benchmark",
    )


def symbol_metrics(symbol: str, equity: pl.DataFrame, trades: pl.DataFrame) -> dict[str, Any]:
    curve = equity["equity"].to_numpy()
    r = np.diff(curve, prepend=1.0) / np.append(1.0, curve[:-1])
    pnl = trades["pnl"].to_numpy()
    gains, losses = pnl[pnl > 0].sum(), -pnl[pnl < 0].sum()
    sharpe = float(r.mean() / r.std(ddof=1) * math.sqrt(8766)) if r.std() > 0 else math.nan
    fall = float(drawdown(curve).max())
    return {
        "symbol": symbol,
        "return": curve[-1] - 1,
        "sharpe": sharpe,
        "sortino": 1.3 * sharpe,
        "cagr": curve[-1] ** (8766 / len(curve)) - 1,
        "calmar": 1.5,
        "max_drawdown": fall,
        "skew": -0.2,
        "kurtosis": 4.1,
        "profit_factor": gains / losses if losses else (math.inf if gains else math.nan),
        "win_rate": float((pnl > 0).mean()) if len(pnl) else math.nan,
        "expectancy": float(pnl.mean()) if len(pnl) else math.nan,
        "trades": len(pnl),
        "turnover": 2.0 * len(pnl),
        "exposure": float(np.abs(equity["exposure"].to_numpy()).mean()),
        "consistency": 0.6,
        "fitness": sharpe * max(0, 1 - 0.2 * fall),
        "buy_and_hold_return": float(equity["benchmark"].to_numpy()[-1]) - 1,
        "bars": equity.height,
    }


def write_evaluation(folder: Path, which: str, fake: Fake, rng: np.random.Generator) -> None:
    folder.mkdir(exist_ok=True)
    parts = [symbol_frames(symbol, fake, rng) for symbol in fake.symbols]
    single = pl.concat([equity for equity, _, _ in parts])
    equity = pl.concat([single, pooled_rows(single)])
    trades = pl.DataFrame([t for _, rows, _ in parts for t in rows], schema=TRADE_SCHEMA, orient="row")
    rows = []
    for symbol in (*fake.symbols, "POOLED"):
        own = trades if symbol == "POOLED" else trades.filter(pl.col("symbol") == symbol)
        rows.append(symbol_metrics(symbol, equity.filter(pl.col("symbol") == symbol), own))
    equity.write_parquet(folder / f"{which}_equity.parquet")
    trades.write_parquet(folder / f"{which}_trades.parquet")
    pl.DataFrame(rows).write_csv(folder / f"{which}_symbols.csv")


def manifest_of(fake: Fake) -> dict[str, Any]:
    split = {"train": 3000, "validation": fake.bars, "test": fake.bars}
    manifest: dict[str, Any] = {
        "jaxppo": "0.1.0",
        "versions": {"jax": "0.10.2", "flax": "0.12.1", "optax": "0.2.6"},
        "device": {"kind": "NVIDIA A100-SXM4-40GB", "platform": "gpu", "count": 1},
        "python": "3.12.3",
        "created": "2025-01-02T12:00:00+00:00",
        "data": {
            "source": "synthetic market, seed 7",
            "hash": "3fa9c1d2",
            "interval": "1h",
            "symbols": [
                {
                    "symbol": symbol,
                    "asset_class": "equity",
                    "bars": 3000 + 2 * fake.bars,
                    "start": "2023-01-01T00:00:00+00:00",
                    "end": "2024-12-31T00:00:00+00:00",
                    "splits": split,
                }
                for symbol in fake.symbols
            ],
            "cutoffs": ["2024-03-01T00:00:00+00:00", "2024-07-01T00:00:00+00:00"],
            "purge_bars": 69,
            "warnings": ["AAPL: 3 bars repeat"],
        },
        "features": {"names": ["return_1", "rsi_14"], "hash": "77aa01be", "min_bars": 356},
        "actions": {"name": "hold_buy_sell", "labels": list(LABELS)},
        "sources": {"learning_rate": "command line", "reward": "command line", "n_envs": "device tier cpu"},
        "compile_seconds": 14.2,
        "program": {"memory_bytes": 3 * 2**20},
    }
    if fake.finished:
        done = {"updates": 40, "env_steps": 2_621_440, "run_seconds": 61.4, "steps_per_second": 42_694.0}
        manifest["finished"] = done
    return manifest


def gate_of() -> dict[str, Any]:
    """A gate.json of a policy that falls short of approval in three ways."""
    low = {"metric": "profit_factor", "value": 1.4, "level": "APPROVED", "threshold": 1.8, "passed": False}
    unknown = {"metric": "deflated_sharpe", "value": None, "level": "APPROVED", "threshold": 0.95, "passed": False}
    held = {"metric": "profit_factor", "value": 1.4, "level": "REVIEW", "threshold": 1.3, "passed": True}
    flag = {"name": "one_sided", "value": 0.02, "threshold": 0.95}
    return {"verdict": "REVIEW", "reasons": [low, unknown, held], "flags": [flag]}


def write_run(run_dir: Path, fake: Fake = Fake(), evaluations: tuple[str, ...] = ("best", "final")) -> Path:
    """A run directory as the trainer leaves it."""
    rng = np.random.default_rng(5)
    run_dir.mkdir()
    config = to_dict(Config())
    config["ppo"]["learning_rate"] = 1e-3
    config["reward"]["reward"] = "v33"
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    (run_dir / "manifest.json").write_text(json.dumps(manifest_of(fake)))
    metrics_frame(fake, rng).write_csv(run_dir / "metrics.csv")
    if fake.finished:
        (run_dir / "gate.json").write_text(json.dumps(gate_of()))
    for which in evaluations:
        write_evaluation(run_dir / "validation", which, fake, rng)
    if fake.finished and "best" in evaluations:
        write_tearsheet(run_dir / "validation", sheet_of_400_days(), "best_")
    return run_dir


def sheet_of_400_days() -> TearSheet:
    """Of an account that loses in the middle and recovers, with orders on every tenth day."""
    rng, (bars,) = np.random.default_rng(6), synthetic_market(0, 1, 24 * 500)
    day = np.unique(bars.time // DAY)[:400] * DAY
    returns = rng.normal(5e-4, 0.01, 400) + 0.002 * np.sign(np.arange(400) - 200)
    traded = Traded(np.full(40, "SYN_A"), day[::10], np.full(40, 0.5))
    ledger = empty_ledger(day)._replace(returns=returns, fees=np.full(400, 1e-4), bars=400, long=300, traded=traded)
    return tear_sheet(Returns(day, 365.25, returns, rng.normal(0.0, 0.01, 400)), ledger, [bars])
