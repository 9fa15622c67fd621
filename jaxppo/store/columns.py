"""The columns of metrics.csv: their order, what each means, and how a segment's updates become one value of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jaxppo.config.schema import Config
from jaxppo.env.rewards import reward_preset
from jaxppo.play.metrics import BUY_AND_HOLD, Column, validation_metrics

POOLED = "POOLED"
"""Symbol under which files have the figures of all symbols together."""
PORTFOLIO = "PORTFOLIO"
"""Symbol under which files have the figures of the symbols in equal shares, rebalanced daily."""
PORTFOLIO_PREFIX = "portfolio_"
"""Begins the columns of that portfolio's figures where the pool's stand in the same row."""


def of_portfolio(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The figures of that portfolio in a row with both, by their own names; `prefix` stands before all columns.

    Example:
      >>> of_portfolio({"val_sharpe": 1.0, "val_portfolio_sharpe": 2.0}, "val_")
      {'sharpe': 2.0}
    """
    own = prefix + PORTFOLIO_PREFIX
    return {name.removeprefix(own): value for name, value in row.items() if name.startswith(own)}


JOINED = "joined"
"""What a walk-forward's files have in place of a fold's number where they join all folds."""
X = "X"
"""In the name of a column that there is one of for each reward component, or each action."""


@dataclass(frozen=True, kw_only=True)
class TrainColumn(Column):
    """What the updates of a segment say."""

    reduce: Literal["mean", "sum", "last"] = "mean"
    """Over the updates since the last validation, and over the members of an ensemble, of which `last` is the mean; a
    mean leaves out those where there is no value."""


PROGRESS = (
    Column("update", "Updates done so far. Row 0 is the untrained policy, whose training columns are empty."),
    Column("env_steps", "Env steps done so far, by each member of an ensemble."),
)
TRAINING = (
    TrainColumn(
        name="learning_rate", title="Learning rate", meaning="Learning rate of the last update.", reduce="last"
    ),
    TrainColumn(name="reward_mean", title="Reward per step", meaning="Reward of an env step."),
    TrainColumn(
        name="entropy",
        title="Policy entropy (nats)",
        meaning="How undecided the policy is: 1.10 is undecided among three actions, near 0 it always takes the same"
        " action in the same state.",
    ),
    TrainColumn(
        name="approx_kl",
        title="KL of an update",
        meaning="How far an update moved the policy; steady values under about 0.02 are healthy.",
    ),
    TrainColumn(
        name="explained_variance",
        title="Explained variance of the value",
        meaning="1 - Var(target - value) / Var(target): 1 is perfect, 0 no better than a constant (or a"
        " constant target).",
    ),
    TrainColumn(
        name="clip_fraction",
        title="Clipped samples",
        form="percent",
        meaning="Share of samples whose policy ratio left the clipping range in an update.",
    ),
    TrainColumn(name="policy_loss", meaning="Clipped surrogate."),
    TrainColumn(name="value_loss", title="Value loss", meaning="Half the squared error of the value."),
    TrainColumn(name="grad_norm", meaning="Global norm of the gradient before clipping."),
    TrainColumn(
        name="skipped_steps",
        meaning="Gradient steps skipped since the last validation because they were not finite (a sum).",
        reduce="sum",
    ),
    TrainColumn(
        name="bad_samples",
        meaning="Env steps that taught nothing, for numbers that were not finite (a sum).",
        reduce="sum",
    ),
    TrainColumn(
        name="broken_accounts",
        meaning="Accounts that were restarted, for numbers that were not finite (a sum).",
        reduce="sum",
    ),
    TrainColumn(name="rollbacks", meaning="Returns to the last good parameters (a sum).", reduce="sum"),
    TrainColumn(
        name="learning_rate_scale", meaning="What is left of the learning rate after the rollbacks.", reduce="last"
    ),
    TrainColumn(name="entropy_coefficient", meaning="Weight of the entropy in the loss."),
    TrainColumn(
        name="cost_share",
        title="Costs charged in training",
        form="share",
        meaning="Share of the costs that the last update charged; validations charge all.",
        reduce="last",
    ),
    TrainColumn(
        name="train_trade_rate",
        title="Orders per training step",
        form="percent",
        meaning="Share of env steps that sent an order.",
    ),
    TrainColumn(name="train_ruin_rate", meaning="Share of env steps that ended in ruin."),
)
COMPONENT = (
    TrainColumn(name=f"reward_{X}_mean", meaning="Reward component X before its weight, a step."),
    TrainColumn(name=f"reward_{X}_share", meaning="Its part of the weighted absolute reward."),
    TrainColumn(
        name=f"reward_{X}_saturation",
        title="Saturated steps",
        form="percent",
        meaning="Share of steps at which a reward component sat at 99 % of its bound or beyond, and carried no more"
        " information; 0 if it has none.",
    ),
)
ACTION = TrainColumn(name=f"action_share_{X}", meaning="Share of action X as sampled in training.")
TIMING = (
    Column(
        "steps_per_second",
        "Env steps a second of this segment, of all members of an ensemble, its validation included.",
    ),
    Column("elapsed_seconds", "Seconds of training so far, without compilation."),
)
PORTFOLIO_SHARPE = Column(
    "portfolio_sharpe",
    "Sharpe ratio of the mean of the symbols' returns, rebalanced daily: moving money between them is free.",
    "Sharpe, rebalanced daily",
)
RUINED = Column("ruined", "Symbols whose account was ruined.")
VALIDATION_ACTION = Column(f"val_action_share_{X}", "Share of the validation's decisions that chose action X.")

REDUCE = {column.name: column.reduce for column in TRAINING}


def of_each(column: Column, names: Sequence[str]) -> list[str]:
    """The names of a column that there is one of for each of `names`."""
    return [column.name.replace(X, name) for name in names]


def train_columns(config: Config, labels: Sequence[str]) -> list[str]:
    """Columns that training updates fill."""
    components = [column.name.replace(X, c) for c in reward_preset(config.reward).weights for column in COMPONENT]
    return [*(column.name for column in TRAINING), *components, *of_each(ACTION, labels)]


def validation_columns() -> list[tuple[str, Column]]:
    """Those of a validation's figures, under their names in metrics.csv, but for the shares of actions."""
    named: list[tuple[str, Column]] = [(metric.column, metric) for metric in validation_metrics()]
    named += [(column.name, column) for column in (BUY_AND_HOLD, RUINED, PORTFOLIO_SHARPE)]
    return [(f"val_{name}", column) for name, column in named]


def metrics_columns(config: Config, labels: Sequence[str]) -> list[str]:
    """All columns of metrics.csv, in order."""
    return [
        *(column.name for column in PROGRESS),
        *train_columns(config, labels),
        *(column.name for column in TIMING),
        *(name for name, _ in validation_columns()),
        *of_each(VALIDATION_ACTION, labels),
    ]
