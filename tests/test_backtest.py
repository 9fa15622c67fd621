"""A backtest through the command line: the run's own figures again, files that other tools read, and clear errors."""

from __future__ import annotations

import json
import re

import backtesting._stats as peer
import empyrical
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers import TINY

from jaxppo.backtest.__main__ import main
from jaxppo.backtest.charts import PLOTS
from jaxppo.backtest.facts import look_warnings, rule_warnings, seen_shares, seen_warnings
from jaxppo.backtest.files import percentile
from jaxppo.backtest.page import write_backtest_report
from jaxppo.backtest.remarks import break_even
from jaxppo.config.schema import EnvConfig, RewardConfig
from jaxppo.env.trading import env_spec
from jaxppo.market.dataset import Split
from jaxppo.market.synthetic import synthetic_market
from jaxppo.market.tape import Costs, zero_tape
from jaxppo.page.yardsticks import title
from jaxppo.play.deciders import wishing
from jaxppo.play.passes import play
from jaxppo.play.rules import RULES
from jaxppo.play.sides import Sides
from jaxppo.store.read import load_backtest
from jaxppo.train.__main__ import main as train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("backtest")
    (root / "bars").mkdir()
    for name, b in zip(("ALFA", "BRAVO"), synthetic_market(0, 2, 900), strict=True):
        columns = {k: getattr(b, k) for k in ("open", "high", "low", "close", "volume")}
        time = pl.Series(b.time * 1_000_000).cast(pl.Datetime("us", "UTC"))
        pl.DataFrame({"timestamp": time, **columns}).write_parquet(root / "bars" / f"{name}_1h.parquet")
    line = ["--run-dir", str(root / "run"), "--data", str(root / "bars")]
    many_trades = {"actions": "targets", "targets": (-1, 1), "stop_loss": 0.003, "take_profit": 0.004}
    for name, value in {**TINY, "n_updates": 6, **many_trades}.items():
        line += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    assert train(line) == 0
    return root / "run"


@pytest.fixture(scope="module")
def folder(run):
    out = run / "out"
    line = ["--split", "validation", "--which", "final", "--out", str(out), "--random-draws", "3", "--explain", "yes"]
    assert main([str(run), *line]) == 0
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


def test_rules_are_those_of_the_run_as_it_fitted_them(run, folder):
    ours, its = (pl.read_csv(p / "portfolios.csv") for p in (folder, run / "validation"))
    rules = ["buy_and_hold", *RULES]
    assert (ours["name"].to_list(), its["name"].to_list()) == (["policy", *rules], ["best", "final", *rules])
    assert ours[1:].equals(its[2:])
    facts = json.loads((folder / "metrics.json").read_text())
    assert (facts["rules_left_out"], facts["portfolios"]["macd"]["sharpe"]) == ([], ours.row(8, named=True)["sharpe"])
    sharpes = dict(zip(ours["name"][1:], ours["sharpe"][1:], strict=True))
    assert facts["best_rule"] == max(sharpes, key=sharpes.__getitem__)
    low, high = facts["portfolio_intervals_90"]["sharpe"]
    assert low < facts["portfolio"]["sharpe"] == ours["sharpe"][0] < high
    assert f"that of the best rule, {title(facts['best_rule'])}" in (folder / "report.html").read_text()
    older = Sides((), np.zeros((1, 1, 0)), ("linear_1", "linear_10"))
    said = "the run fitted no weights for linear_1, linear_10, which are left out of the rules"
    assert (rule_warnings(older), rule_warnings(older._replace(missing=()))) == ([said], [])


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


def test_random_draws_trade_exactly_as_often_as_the_policy_and_turn_over_as_much(folder):
    facts = json.loads((folder / "metrics.json").read_text())
    draws, pooled = pl.read_csv(folder / "random_draws.csv"), facts["pooled"]
    assert draws.height == 3
    assert draws["trades"].to_list() == [pooled["trades"]] * 3
    # Stops close in the bar and a draw at its close, so the money that changes hands differs by the bar's move.
    np.testing.assert_allclose(draws["turnover"], pooled["turnover"], rtol=0.01)
    assert draws["return"].n_unique() == 3


def test_intervals_hold_the_figure_and_are_in_order(folder):
    facts = json.loads((folder / "metrics.json").read_text())
    for figure, (low, high) in facts["intervals_90"].items():
        assert low < high
        if figure != "max_drawdown":  # resampled in blocks, a drawdown is not centred on the one that happened
            assert low < facts["pooled"]["return" if figure == "net_return" else figure] < high


def test_gate_is_the_runs_on_its_own_validation(run, folder):
    ours = json.loads((folder / "gate.json").read_text())
    assert ours["verdict"] in ("APPROVED", "REVIEW", "DROP")
    figures = {r["metric"]: r["value"] for r in ours["reasons"]}
    pooled = json.loads((folder / "metrics.json").read_text())["pooled"]
    assert figures["fitness"] == pytest.approx(pooled["fitness"])
    assert figures["trades"] == pooled["trades"]
    theirs = json.loads((run / "gate.json").read_text())
    best, final = ((run / "validation" / f"{w}_symbols.csv").read_bytes() for w in ("best", "final"))
    if best == final:
        assert ours == theirs
    assert [r["threshold"] for r in ours["reasons"]] == [r["threshold"] for r in theirs["reasons"]]


def test_report_is_one_file_with_every_chart_and_says_what_chance_would_do(folder):
    text = (folder / "report.html").read_text()
    charts = sorted((folder / "plots").iterdir())
    assert [c.stem for c in charts] == sorted(PLOTS)
    why = ["why_groups", "why_features", "map_0", "map_2", "map_4", "sure_earned", "sure_histogram"]
    tear = ["tear_years", "tear_daily", "tear_monthly"]  # too few days for figures that roll
    assert re.findall(r'data-chart="(\w+)"', text) == ["equity", "random", *tear, *why, "costs_return", "costs_sharpe"]
    assert not re.search(r"//|url\(|@import", re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL))
    assert "picked from 4 looks" in text
    assert not re.search(r">(nan|inf|None)<", text)


def test_the_worst_trades_are_those_of_the_table_and_what_was_seen_is_named(folder):
    found = json.loads((folder / "worst_trades.json").read_text())["trades"]
    trades = pl.read_parquet(folder / "trades.parquet").sort("pnl")
    assert [t["pnl"] for t in found] == trades["pnl"][:10].to_list()
    for trade, row in zip(found, trades.to_dicts(), strict=False):
        assert {k: trade[k] for k in ("symbol", "side", "bars", "costs", "mfe", "mae", "reason")} == {
            k: row[k] for k in ("symbol", "side", "bars", "costs", "mfe", "mae", "reason")
        }
        seen = trade["decision"]
        assert seen["action"] == max(seen["probabilities"], key=seen["probabilities"].__getitem__)
        assert len(seen["features"]) == 7
        assert all(0 <= f["percentile"] <= 100 and f["group"] == "base" for f in seen["features"])


def test_why_it_acts_is_read_back_and_folders_without_it_have_a_page(folder, tmp_path):
    data = load_backtest(folder)
    facts = json.loads((folder / "metrics.json").read_text())
    assert data.why["sharpe"] == pytest.approx(facts["portfolio"]["sharpe"], rel=1e-3)
    assert data.importance["input"][:2].to_list() == [
        "account",
        "base",
    ]  # of one group "all features" would say the same
    assert data.importance["changed"].is_between(0, 1).all()
    assert data.why["confidence"]["decisions"] == facts["decisions"]
    assert sum(b["decisions"] for b in data.why["confidence"]["buckets"]) == facts["decisions"]
    shape = np.shape(data.why["action_map"]["asked"])
    assert shape == (len(data.why["action_map"]["exposure"]), 9, 9)
    for path in folder.iterdir():
        if path.is_file() and path.name not in ("why.json", "importance.csv", "worst_trades.json"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    older = load_backtest(tmp_path)
    assert (older.why, older.importance, older.worst) == (None, None, None)
    here, there = ((p / "report.html").read_text() for p in (folder, write_backtest_report(tmp_path).parent))
    for text, said in {"What moves its decisions": True, "The worst ": True, "Not looked at in this": False}.items():
        assert (text in here, text in there) == (said, not said)


def test_a_test_split_played_before_is_no_test(tmp_path):
    (tmp_path / "backtest" / "validation-1").mkdir(parents=True)
    assert look_warnings(tmp_path, "test") == []
    (tmp_path / "backtest" / "test-1").mkdir()
    assert "played once before" in look_warnings(tmp_path, "test")[0]
    (tmp_path / "backtest" / "test-2").mkdir()
    assert "played 2 times before" in look_warnings(tmp_path, "test")[0]
    assert look_warnings(tmp_path, "validation") == []


DAY = 86_400


def played(**days):
    """A split that decides on the given ranges of days, a symbol each."""
    first, length = np.zeros(len(days), int), np.array([b - a + 1 for a, b in days.values()])
    tape = zero_tape(1, 1, 1)._replace(first=first, length=length)
    return Split(tape, tuple(days), tuple(DAY * np.arange(a, b + 1) for a, b in days.values()))


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        # The run has A on days 100 to 199 and B on 140 to 250; validation begins on day 150 and test on day 180.
        ({"A": (0, 50)}, {"no_bars": 1}),
        ({"A": (200, 260)}, {"test": 1}),
        ({"A": (150, 160)}, {"validation": 1}),
        ({"A": (80, 120)}, {"no_bars": 0.5, "train": 0.5}),
        ({"A": (50, 250)}, {"no_bars": 0.25, "train": 0.25, "validation": 0.15, "test": 0.35}),
        ({"B": (80, 160)}, {"no_bars": 0.25, "train_other_symbols": 0.5, "train": 0.125, "validation": 0.125}),
        ({"C": (90, 110)}, {"no_bars": 0.5, "train_other_symbols": 0.5}),
        ({"A": (100, 110), "C": (190, 220)}, {"train": 0.25, "test": 0.75}),
    ],
)
def test_what_the_run_had_of_the_times_that_are_played(days, expected):
    periods = {"A": (100 * DAY, 199 * DAY), "B": (140 * DAY, 250 * DAY)}
    shares = seen_shares(played(**days), (150 * DAY, 180 * DAY), periods)
    assert {name: share for name, share in shares.items() if share} == expected
    found = " ".join(seen_warnings(shares, "best", "all"))
    assert ("in sample" in found) == ("train" in expected)
    assert ("with other symbols" in found) == ("train_other_symbols" in expected)
    assert ("it had no bars" in found) == ("no_bars" in expected)
    assert ("validation period" in found) == ("validation" in expected)


def test_a_policy_that_never_trades_has_a_report(folder, tmp_path):
    for path in folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    facts = json.loads((folder / "metrics.json").read_text())
    none = {"profit_factor": None, "win_rate": None, "expectancy": None, "payoff": None, "calmar": None, "trades": 0.0}
    facts["pooled"] |= none
    facts["baselines"]["policy"] |= none
    facts["costs"] = [row | none | {"skew": None} for row in facts["costs"]]
    facts |= {"probabilistic_sharpe": None, "deflated_sharpe": None}
    (tmp_path / "metrics.json").write_text(json.dumps(facts))
    trades = pl.read_parquet(folder / "trades.parquet")
    trades.clear().write_parquet(tmp_path / "trades.parquet")
    text = write_backtest_report(tmp_path).read_text()
    assert "The policy closed no trade" in text
    assert "Equity never moved" in text
    assert 'id="tearsheet"' in text
    (tmp_path / "tearsheet.json").unlink()  # as in a folder of an earlier version
    assert 'id="tearsheet"' not in write_backtest_report(tmp_path).read_text()
    assert not re.search(r">(nan|inf|None)<", text)


def test_tear_sheet_is_that_of_the_portfolio(folder):
    sheet, facts = (
        json.loads((folder / "tearsheet.json").read_text()),
        json.loads((folder / "metrics.json").read_text()),
    )
    own, hold = facts["portfolio"], facts["portfolios"]["buy_and_hold"]
    assert sheet["return"] == pytest.approx(own["return"], abs=1e-6)
    assert sheet["buy_and_hold"] == pytest.approx(hold["return"], abs=1e-6)
    assert np.prod([1 + m["return"] for m in sheet["months"]]) == pytest.approx(1 + own["return"], rel=1e-6)
    assert sheet["drawdowns"][0]["depth"] == pytest.approx(own["max_drawdown"], rel=1e-4)
    daily = sheet["distribution"]["daily"]
    for name in ("skew", "var_5", "cvar_5"):
        assert daily[name] == pytest.approx(own[name], rel=1e-3)
    per_year = sheet["days_per_year"]
    assert daily["mean"] / daily["deviation"] * per_year**0.5 == pytest.approx(own["sharpe"], rel=1e-3)
    # What the ledger has day by day comes to what the table of metrics has as means over bars.
    costs, curve = sheet["costs"], pl.read_csv(folder / "portfolio.csv")["equity"].to_numpy()
    assert costs["net_profit"] == pytest.approx(own["return"], abs=1e-5)
    paid = (costs["fees"] + costs["impact"] + costs["borrow"]) / curve.mean()
    assert paid * facts["bars_per_year"] / facts["pooled"]["bars"] == pytest.approx(own["costs"], rel=0.1)
    assert 0.0 < sheet["time_in_market"]["bars"] <= 1.0
    assert sheet["capacity"]["status"] in ("ok", "no profit")
    written = pl.read_csv(folder / "tearsheet_daily.csv")["return"].to_numpy()
    np.testing.assert_allclose(np.cumprod(1 + written), curve, rtol=1e-9)


def rows_at(*returns):
    return [{"cost_multiple": float(m), "return": r} for m, r in enumerate(returns)]


def test_costs_at_which_the_profit_is_gone():
    assert break_even(rows_at(0.04, 0.02, -0.02)) == pytest.approx(1.5)  # half way from 1 to 2
    assert break_even(rows_at(0.03, -0.01, -0.05)) == pytest.approx(0.75)  # three quarters of the way from 0 to 1
    assert np.isnan(break_even(rows_at(0.04, 0.03, 0.02)))
    assert np.isnan(break_even(rows_at(-0.01, -0.02, -0.03)))


def test_told_exposure_by_hand():
    # Opens 100, 110, 120, 120; closes 110, 120, 120, 90; fee 1 %. Bought with all of 1: 1 / 1.01 of stock.
    # Marked .990099 x 1.1 = 1.089109 and x 1.2 = 1.188119; sold at that close: x .99 = 1.176238. Flat after that.
    tape = zero_tape(1, 5, 1)
    row = {k: [100.0, *v] for k, v in {"open": [100, 110, 120, 120], "close": [110, 120, 120, 90]}.items()}
    high, low = np.maximum(row["open"], row["close"]), np.minimum(row["open"], row["close"])
    tape = tape._replace(
        **{k: jnp.asarray([v], jnp.float32) for k, v in {**row, "high": high, "low": low}.items()},
        first=jnp.zeros(1, jnp.int32),
        length=jnp.full(1, 5, jnp.int32),
        costs=Costs(jnp.full(1, 0.01), jnp.zeros(1), jnp.zeros(1)),
        bars_per_year=jnp.full(1, 100.0),
    )
    spec = env_spec(EnvConfig(stop_loss=0.02, take_profit=0.02), RewardConfig())  # neither acts on what is told
    target = jnp.asarray([[1.0], [jnp.nan], [jnp.nan], [jnp.nan]])
    close = jnp.asarray([[False], [True], [False], [False]])

    def wish(given, units):
        return jnp.expand_dims(given[0], 0), jnp.expand_dims(given[1], 0)

    done = jax.jit(lambda: play(wishing(wish, (target, close), spec), tape, 4, keep=False))()
    equity, sums = done.equity, done.sums
    assert equity.shape == (4, 1, 1)
    np.testing.assert_allclose(equity[:, 0, 0], [1.089109, 1.176238, 1.176238, 1.176238], rtol=1e-5)
    assert int(sums.trades[0, 0]) == 1
    # In the market at one close of four, with all of the equity.
    assert float(sums.exposure[0, 0]) == pytest.approx(0.25, rel=1e-4)


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


def test_a_percentile_of_infinite_draws_is_infinite():
    """Such as profit factors without a loss; NumPy's mean of two infinities is NaN, and a warning."""
    assert percentile(np.array([1.0, 2.0, 3.0]), 25) == 1.5
    assert percentile(np.array([1.0, np.inf, np.inf, np.inf]), 95) == np.inf
    assert np.isnan(percentile(np.array([1.0, np.nan]), 5))
