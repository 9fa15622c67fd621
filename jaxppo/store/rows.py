"""From the program's scalars to the rows that people read: metrics.csv, per-symbol tables, progress lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxppo.config.schema import Config
from jaxppo.env.rewards import reward_preset
from jaxppo.play.metrics import Metrics
from jaxppo.play.passes import Validation

_TRAIN_COLUMNS = (
    "learning_rate",
    "reward_mean",
    "entropy",
    "approx_kl",
    "explained_variance",
    "clip_fraction",
    "policy_loss",
    "value_loss",
    "grad_norm",
    "skipped_steps",
    "bad_samples",
    "broken_accounts",
    "rollbacks",
    "learning_rate_scale",
    "entropy_coefficient",
    "train_trade_rate",
    "train_ruin_rate",
)
_SUMS = ("skipped_steps", "bad_samples", "broken_accounts", "rollbacks")
_LAST = ("learning_rate", "learning_rate_scale")
# Column of metrics.csv: field of `Metrics`.
_VALIDATION_COLUMNS = {
    "val_return": "net_return",
    "val_sharpe": "sharpe",
    "val_sortino": "sortino",
    "val_profit_factor": "profit_factor",
    "val_max_drawdown": "max_drawdown",
    "val_skew": "skew",
    "val_consistency": "consistency",
    "val_win_rate": "win_rate",
    "val_trades": "trades",
    "val_turnover": "turnover",
    "val_exposure": "exposure",
    "val_fitness": "fitness",
}


def train_columns(config: Config, labels: Sequence[str]) -> list[str]:
    """Columns that training updates fill."""
    components = [
        f"reward_{c}_{k}" for c in reward_preset(config.reward).weights for k in ("mean", "share", "saturation")
    ]
    return [*_TRAIN_COLUMNS, *components, *(f"action_share_{label}" for label in labels)]


def metrics_columns(config: Config, labels: Sequence[str]) -> list[str]:
    """All columns of metrics.csv, in order."""
    return [
        "update",
        "env_steps",
        *train_columns(config, labels),
        "steps_per_second",
        "elapsed_seconds",
        *_VALIDATION_COLUMNS,
        "val_buy_and_hold_return",
        "val_ruined",
        *(f"val_action_share_{label}" for label in labels),
    ]


def train_means(rows: Mapping[str, np.ndarray], n_updates: int) -> dict[str, float]:
    """Means over a segment's updates, without those where there is none; the last learning rate, and sums of faults."""
    if n_updates == 0:
        return {}
    own = {k: np.asarray(v[:n_updates], np.float64) for k, v in rows.items()}
    means = {k: float(np.nanmean(v)) if not np.isnan(v).all() else np.nan for k, v in own.items()}
    return means | {k: float(own[k].sum()) for k in _SUMS} | {k: float(own[k][-1]) for k in _LAST}


def validation_row(validation: Validation, labels: Sequence[str]) -> dict[str, float]:
    """The pooled figures of a validation, as metrics.csv names them. `validation` holds host arrays."""
    pooled = validation.pooled._asdict()
    row = {column: float(pooled[field]) for column, field in _VALIDATION_COLUMNS.items()}
    row["val_trades"] = int(pooled["trades"])
    row["val_buy_and_hold_return"] = float(validation.buy_and_hold)
    row["val_ruined"] = int(validation.ruined)
    shares = zip(labels, validation.action_share, strict=True)
    return row | {f"val_action_share_{label}": float(s) for label, s in shares}


def symbol_rows(validation: Validation, symbols: Sequence[str], labels: Sequence[str]) -> list[dict[str, Any]]:
    """One row a symbol, then POOLED, with every field of `Metrics` and the share of each action."""

    def row(name: str, metrics: Metrics, hold: Any, shares: Any) -> dict[str, Any]:
        values = {k: float(v) for k, v in metrics._asdict().items()}
        named: dict[str, Any] = {"symbol": name, "return": values.pop("net_return"), **values}
        named |= {"trades": int(metrics.trades), "bars": int(metrics.bars), "buy_and_hold_return": float(hold)}
        return named | {f"action_share_{label}": float(s) for label, s in zip(labels, shares, strict=True)}

    v = validation
    rows = [
        row(name, jax.tree.map(lambda x, i=i: x[i], v.symbols), v.symbol_buy_and_hold[i], v.symbol_action_share[i])
        for i, name in enumerate(symbols)
    ]
    return [*rows, row("POOLED", v.pooled, v.buy_and_hold, v.action_share)]


def percent(x: float) -> str:
    return "n/a" if np.isnan(x) else f"{100 * x:+.2f}%"


def validation_line(row: Mapping[str, Any]) -> str:
    """The last validation in one line; the trade count stands next to every figure that depends on it."""
    factor = row["val_profit_factor"]
    return (
        f"return {percent(row['val_return'])} (hold {percent(row['val_buy_and_hold_return'])})"
        f"  Sharpe {row['val_sharpe']:.2f}  maxDD {100 * row['val_max_drawdown']:.1f}%"
        f"  PF {'n/a' if np.isnan(factor) else f'{factor:.2f}'}  trades {row['val_trades']}"
        f"  exposure {100 * row['val_exposure']:.0f}%  fitness {row['val_fitness']:.3f}"
    )
