"""Rows that people read: every figure lands under its own name, and a missing one never looks like a number."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_config, tiny_program

from jaxppo.page.terminal import percent, validation_line
from jaxppo.play.metrics import METRICS, Metrics
from jaxppo.play.score import Figures
from jaxppo.ppo.state import hyper_from
from jaxppo.store.columns import metrics_columns, train_columns
from jaxppo.store.directory import MetricsCsv
from jaxppo.store.rows import symbol_rows, train_means, validation_row

LABELS = ("hold", "buy", "sell")
# What users of the predecessor plot, and what a run must record besides.
REQUIRED = {
    "update",
    "env_steps",
    "learning_rate",
    "reward_mean",
    "entropy",
    "approx_kl",
    "explained_variance",
    "steps_per_second",
    "val_return",
    "val_sharpe",
    "val_profit_factor",
    "val_max_drawdown",
    "val_skew",
    "val_consistency",
    "val_win_rate",
    "val_trades",
    "val_turnover",
    "val_exposure",
    "val_fitness",
}


def figures(first: float, shape: tuple[int, ...] = ()) -> Metrics:
    """Every field a number of its own: `first`, `first` + 1, ..."""
    fields = {name: np.full(shape, first + i, np.float32) for i, name in enumerate(METRICS)}
    return Metrics({**fields, "trades": np.full(shape, 7, np.int32), "bars": np.full(shape, 99, np.float32)})


def stack(*metrics: Metrics) -> Metrics:
    return jax.tree.map(lambda *x: np.stack(x), *metrics)


@pytest.fixture
def validation() -> Figures:
    return Figures(
        symbols=stack(figures(100), figures(200)),
        pooled=figures(300),
        symbol_action_share=np.float32([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]),
        action_share=np.float32([0.125, 0.625, 0.25]),
        symbol_hold=np.float32([0.5, -0.5]),
        hold=np.float32(0.25),
        ruined=np.int32(1),
        portfolio=figures(400),
    )


@pytest.mark.parametrize(
    ("reward", "component"),
    [
        ("v245", "direction"),
        ("v33", "pnl"),
        ("log_return", "log_return"),
        ("differential_sharpe", "differential_sharpe"),
    ],
)
def test_columns_are_unique_and_hold_all_that_must_be_recorded(reward, component):
    columns = metrics_columns(tiny_config(reward=reward), LABELS)
    assert len(columns) == len(set(columns))
    assert set(columns) >= REQUIRED
    assert columns[:2] == ["update", "env_steps"]
    assert {f"reward_{component}_{kind}" for kind in ("mean", "share", "saturation")} <= set(columns)


def test_the_program_fills_every_training_column():
    config = tiny_config(reward="v33", actions="sized")
    program, tape, data = tiny_program(config)
    hyper = hyper_from(config)
    state = jax.eval_shape(program.init, jax.random.key(0), hyper, tape)
    _, out = jax.eval_shape(program.segment, state, hyper, tape, data, jnp.int32(1))
    labels = program.spec.env.actions.labels
    assert not set(train_columns(config, labels)) - set(out.updates)
    assert {row.shape for row in out.updates.values()} == {(config.budget.validate_every,)}


def test_training_means_leave_out_the_rows_of_a_shorter_segment():
    rows = {
        "learning_rate": np.float32([3e-4, 1e-4, 0]),
        "learning_rate_scale": np.float32([1, 0.5, 0]),
        "skipped_steps": np.int32([2, 1, 0]),
        "bad_samples": np.float32([0, 7, 0]),
        "broken_accounts": np.float32([0, 5, 0]),
        "rollbacks": np.float32([1, 1, 0]),
        "entropy": np.float32([1.0, 0.5, 0]),
    }
    means = train_means(rows, 2)  # of three rows, the last was never run
    sums = {"skipped_steps": 3.0, "bad_samples": 7.0, "broken_accounts": 5.0, "rollbacks": 2.0}
    last = {"learning_rate": pytest.approx(1e-4), "learning_rate_scale": 0.5}
    assert means == {**sums, **last, "entropy": 0.75}
    assert train_means(rows, 0) == {}
    # An update without a finite gradient has no loss; it does not hide the others'.
    assert train_means({**rows, "entropy": np.float32([np.nan, 0.5, 0])}, 2)["entropy"] == 0.5
    assert np.isnan(train_means({**rows, "entropy": np.float32([np.nan, np.nan, 0])}, 2)["entropy"])


def test_validation_row_takes_each_figure_from_its_field(validation):
    row = validation_row(validation, LABELS)
    place = {name: 300.0 + i for i, name in enumerate(METRICS)}
    assert row["val_return"] == place["net_return"]
    for name in ("sharpe", "sortino", "profit_factor", "max_drawdown", "skew", "consistency", "win_rate", "turnover"):
        assert row[f"val_{name}"] == place[name], name
    assert (row["val_exposure"], row["val_fitness"]) == (place["exposure"], place["fitness"])
    assert (row["val_trades"], type(row["val_trades"])) == (7, int)
    assert (row["val_buy_and_hold_return"], row["val_ruined"]) == (0.25, 1)
    assert [row[f"val_action_share_{label}"] for label in LABELS] == [0.125, 0.625, 0.25]


def test_rows_fit_the_table(validation, tmp_path):
    config = tiny_config()
    columns = metrics_columns(config, LABELS)
    row = validation_row(validation, LABELS)
    assert set(row) == {c for c in columns if c.startswith("val_")}
    MetricsCsv(tmp_path, columns).append({"update": 0, "env_steps": 0, **row})
    header, values = (tmp_path / "metrics.csv").read_text().splitlines()
    assert dict(zip(header.split(","), values.split(","), strict=True))["val_trades"] == "7"


def test_labels_must_be_those_of_the_actions(validation):
    with pytest.raises(ValueError, match=r"zip\(\)"):
        validation_row(validation, LABELS[:2])


def test_symbol_rows_hold_every_figure_of_each_symbol_and_of_the_pool(validation):
    rows = symbol_rows(validation, ("AAA", "BBB"), LABELS)
    assert [r["symbol"] for r in rows] == ["AAA", "BBB", "POOLED", "PORTFOLIO"]
    assert [r["buy_and_hold_return"] for r in rows] == [0.5, -0.5, 0.25, pytest.approx(np.nan, nan_ok=True)]
    assert [r["action_share_buy"] for r in rows] == [0.25, 1.0, 0.625, 0.625]
    for row, first in zip(rows, (100, 200, 300, 400), strict=True):
        own = {"return": first, "trades": 7, "bars": 99}
        own |= {name: first + i for i, name in enumerate(METRICS) if name not in ("trades", "bars")}
        own.pop("net_return")
        assert {name: row[name] for name in own} == own
        assert isinstance(row["trades"], int)
        assert isinstance(row["bars"], int)
    assert len({tuple(r) for r in rows}) == 1  # the same columns in the same order


@pytest.mark.parametrize(
    ("x", "wanted"), [(0.1234, "+12.34%"), (-0.5, "-50.00%"), (0.0, "+0.00%"), (np.nan, "n/a"), (np.inf, "+inf%")]
)
def test_percent(x, wanted):
    assert percent(x) == wanted


def line(**changes: float) -> str:
    row = {
        "val_return": 0.1,
        "val_buy_and_hold_return": -0.0102,
        "val_sharpe": 1.456,
        "val_portfolio_sharpe": 1.6,
        "val_max_drawdown": 0.0789,
        "val_profit_factor": 1.234,
        "val_trades": 12,
        "val_exposure": 0.555,
        "val_fitness": 1.43302,
    }
    return validation_line({**row, **changes})


def test_validation_line():
    assert line() == (
        "return +10.00% (hold -1.02%)  Sharpe 1.46 (rebalanced daily 1.60)  maxDD 7.9%  PF 1.23"
        "  trades 12  exposure 56%  fitness 1.433"
    )


def test_a_profit_factor_without_losses_or_without_trades_is_no_number():
    assert "PF inf  trades 3" in line(val_profit_factor=np.inf, val_trades=3)
    assert "PF n/a  trades 0" in line(val_profit_factor=np.nan, val_trades=0)


def test_a_curve_that_is_not_a_number_says_so():
    text = line(val_return=np.nan, val_sharpe=np.nan, val_fitness=-np.inf)
    assert text.startswith("return n/a (hold -1.02%)  Sharpe nan")
    assert text.endswith("fitness -inf")
