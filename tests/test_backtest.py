"""A backtest through the command line: the run's own figures again, files that other tools read, and clear errors."""

from __future__ import annotations

import json

import backtesting._stats as peer
import empyrical
import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers import TINY

from jaxppo.backtest import main
from jaxppo.market.synthetic import synthetic_market
from jaxppo.train import main as train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("backtest")
    (root / "bars").mkdir()
    for name, b in zip(("ALFA", "BRAVO"), synthetic_market(0, 2, 900), strict=True):
        columns = {k: getattr(b, k) for k in ("open", "high", "low", "close", "volume")}
        time = pl.Series(b.time * 1_000_000).cast(pl.Datetime("us", "UTC"))
        pl.DataFrame({"timestamp": time, **columns}).write_parquet(root / "bars" / f"{name}_1h.parquet")
    line = ["--run-dir", str(root / "run"), "--data", str(root / "bars"), "--actions", "targets"]
    line += [
        "--targets",
        "-1",
        "1",
        "--stop-loss",
        "0.003",
        "--take-profit",
        "0.004",
    ]  # many trades
    for name, value in {**TINY, "n_updates": 6}.items():
        line += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    assert train(line) == 0
    return root / "run"


@pytest.fixture(scope="module")
def folder(run):
    out = run / "out"
    assert main([str(run), "--split", "validation", "--which", "final", "--out", str(out), "--random-draws", "3"]) == 0
    return out


def test_validation_of_the_own_data_is_the_runs_own_validation(run, folder):
    assert (folder / "symbols.csv").read_bytes() == (run / "validation" / "final_symbols.csv").read_bytes()


def test_other_tools_get_the_same_figures(folder):
    facts = json.loads((folder / "metrics.json").read_text())
    pooled = facts["pooled"]
    assert pooled["trades"] > 3
    returns = pd.read_csv(folder / "returns.csv", index_col="date", parse_dates=True)["return"]
    sharpe = empyrical.sharpe_ratio(returns, annualization=facts["bars_per_year"])
    assert sharpe == pytest.approx(pooled["sharpe"], rel=1e-3)
    assert -empyrical.max_drawdown(returns) == pytest.approx(pooled["max_drawdown"], rel=1e-4)
    daily = pd.read_csv(folder / "returns_daily.csv", index_col="date", parse_dates=True)["return"]
    assert empyrical.cum_returns_final(daily) == pytest.approx(pooled["return"], abs=1e-5)

    curve = pd.read_csv(folder / "backtesting_equity.csv", index_col="Time", parse_dates=True)
    trades = pd.read_csv(folder / "backtesting_trades.csv", parse_dates=["EntryTime", "ExitTime"])
    assert list(curve.index[trades["EntryBar"]]) == list(trades["EntryTime"])
    # Each symbol's account is half the pool: what the trades earn is what the pool grows by.
    assert trades["PnL"].sum() == pytest.approx(pooled["return"], abs=2e-5)
    trades["Duration"] = trades["ExitTime"] - trades["EntryTime"]
    # `backtesting` adds up returns for its profit factor; ours is in money, so it is given money.
    in_money = trades.assign(ReturnPct=trades["PnL"])
    prices = pd.DataFrame({"Close": np.arange(1.0, len(curve) + 1)}, index=curve.index)
    theirs = peer.compute_stats(in_money, curve["Equity"].to_numpy(), prices, None)
    assert theirs["# Trades"] == pooled["trades"]
    assert -theirs["Max. Drawdown [%]"] / 100 == pytest.approx(pooled["max_drawdown"], rel=1e-4)
    assert theirs["Win Rate [%]"] / 100 == pytest.approx(pooled["win_rate"], rel=1e-5)
    assert theirs["Profit Factor"] == pytest.approx(pooled["profit_factor"], rel=1e-3)


def test_more_than_one_look_deflates_the_sharpe(folder):
    facts = json.loads((folder / "metrics.json").read_text())
    assert facts["looks"] == 4  # validated before the first of 6 updates and after every second
    assert 0 <= facts["deflated_sharpe"] < facts["probabilistic_sharpe"] <= 1


def test_costs_are_swept_and_the_run_is_the_middle(folder):
    costs = pl.read_csv(folder / "costs.csv")
    assert costs["cost_multiple"].to_list() == [0.0, 1.0, 2.0]
    pooled = json.loads((folder / "metrics.json").read_text())["pooled"]
    assert costs["return"][1] == pytest.approx(pooled["return"], rel=1e-6)
    assert costs["return"][0] > costs["return"][1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--which", "9999"], "no checkpoint of update 9999"),
        (["--which", "worst"], "unknown checkpoint 'worst'"),
        (["--interval", "1h"], "describes --data"),
        (["--random-draws", "0"], "random_draws"),
        (["--data", "nowhere"], "no such file or folder"),
    ],
)
def test_one_clear_error_and_nothing_written(run, tmp_path, capsys, flags, message):
    out = tmp_path / "out"
    assert main([str(run), *flags, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_refuses_what_is_no_run_and_a_folder_that_holds_something(run, folder, tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert main([str(run), "--split", "validation", "--out", str(folder)]) == 2
    assert "never overwritten" in capsys.readouterr().err
