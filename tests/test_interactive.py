"""What the page's scripts are given: charts as data, candles of symbols, the scoreboard."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxppo.page import symbols, tested
from jaxppo.page.charts import POINTS, Band, Line, bars, growth, over_time, to_json
from jaxppo.page.scoreboard import Answer, Score, scoreboard
from jaxppo.page.text import base_name, between
from jaxppo.store.read import Evaluation

DAYS = np.datetime64("2024-01-01") + np.arange(3)


def test_json_has_no_nan_and_ends_no_script() -> None:
    value = {"a": np.array([1.0, np.nan, 1 / 3]), "b": [math.inf, True, None, "</script>"], "c": np.int64(3)}
    text = to_json(value)
    assert "<" not in text
    assert json.loads(text) == {"a": [1, None, 0.3333333], "b": [None, True, None, "</script>"], "c": 3}


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=64), max_size=20))
def test_any_floats_become_json_of_seven_digits(numbers: list[float]) -> None:
    found = json.loads(to_json(np.array(numbers)))
    for number, written in zip(numbers, found, strict=True):
        assert (written is None) == (not math.isfinite(number))
        assert written is None or written == pytest.approx(number, rel=1e-6, abs=0)


def test_growth_begins_with_the_1_that_it_grows_from() -> None:
    line = Line("policy", np.array([1.1, 0.99, 1.21]), "policy")
    band = Band("random", np.array([0.9, 0.8, 0.7]), np.array([1.0, 1.1, 1.2]))
    chart = growth("equity", "Equity", DAYS, [line], "words", band=band, marks=[(DAYS[1], "fold 1")])
    source = chart.option["dataset"][0]["source"]
    assert source["y0"].tolist() == [1.0, 1.1, 0.99, 1.21]
    # From its peak of 1.1 to .99 it lost a tenth.
    np.testing.assert_allclose(source["d0"], [0.0, 0.0, -0.1, 0.0], atol=1e-12)
    assert np.diff(source["time"]).tolist() == [86_400_000] * 3
    assert source["low"].tolist() == [1.0, 0.9, 0.8, 0.7]
    np.testing.assert_allclose(source["high"], [0.0, 0.1, 0.3, 0.5], atol=1e-12)  # the height above low
    marked = chart.option["series"][2]["markLine"]["data"]
    assert marked[1] == {"xAxis": source["time"][2], "name": "fold 1"}
    assert chart.growth == [("y0", "policy")]


def test_long_curves_are_thinned_and_keep_their_ends_and_extremes() -> None:
    n = 100_000
    y = np.ones(n)
    y[70_001], y[20_003] = 5.0, 0.2
    chart = growth("e", "E", np.datetime64("2000-01-01", "m") + np.arange(n), [Line("p", y, "policy")], "")
    source = chart.option["dataset"][0]["source"]
    assert len(source["time"]) <= 2 * POINTS
    assert {5.0, 0.2} <= set(source["y0"].tolist())
    assert json.loads(to_json(chart.option))["dataset"][0]["source"]["time"] == source["time"]


def test_a_curve_that_only_stands_behind_is_drawn_but_not_listed() -> None:
    lines = [Line("a", np.ones(3), "policy"), Line("b", np.ones(3), "grey", listed=False)]
    chart = growth("e", "E", DAYS, lines, "")
    assert chart.option["legend"]["data"] == ["a"]
    assert chart.growth == [("y0", "a")]
    assert [s["name"] for s in chart.option["series"]] == ["a", "b", "a", "b"]  # growth, then drawdown


def test_bars_and_curves_say_their_units() -> None:
    chart = bars("c", "C", ["0x", "1x"], {"net return": [0.1, -0.2]}, "", form="signed", by_sign=True)
    assert [cell["itemStyle"]["color"] for cell in chart.option["series"][0]["data"]] == ["@win", "@loss"]
    assert chart.option["yAxis"]["axisLabel"] == {"formatter": "@signed"}
    curve = over_time("v", "V", DAYS, [Line("a", np.arange(3.0), "policy")], "", form="percent")
    assert curve.option["tooltip"]["valueFormatter"] == "@percent"


def evaluation(n: int = 5) -> Evaluation:
    time = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=i) for i in range(n)]
    close = np.arange(1.0, n + 1)
    one = pl.DataFrame(
        {
            "symbol": ["A"] * n,
            "time": time,
            "open": close - 0.5,
            "high": close + 1.0,
            "low": close - 1.0,
            "close": close,
            "equity": 1.0 + close / 100,
            "exposure": [0.0, 1.0, 1.0, 0.0, 0.0][:n],
            "benchmark": close,
        },
        schema_overrides={"time": pl.Datetime("us", "UTC")},
    )
    trade = {
        "symbol": "A",
        "side": "long",
        "entry_time": time[1],
        "exit_time": time[3],
        "bars": 2,
        "entry_price": 1.5,
        "exit_price": 3.5,
        "fees": 0.0,
        "pnl": 2.0,
        "return": 1.0,
        "reason": "stop",
    }
    kinds = {name: pl.Datetime("us", "UTC") for name in ("entry_time", "exit_time")}
    return Evaluation(one, pl.DataFrame([trade], schema_overrides=kinds), pl.DataFrame({"symbol": ["A"]}))


def test_candles_of_several_bars_and_their_trades(monkeypatch: pytest.MonkeyPatch) -> None:
    played = evaluation()
    trades = symbols.shown_trades(played)
    one = symbols.series(played, trades)["A"]
    assert one["close"].tolist() == [1, 2, 3, 4, 5]
    assert one["note"] == "5 bars, one to a candle."
    assert (one["trades"][0]["entry"], one["trades"][0]["exit"]) == (1, 3)
    # Five bars in candles of two: bars 1-2, 3-4 and 5.
    two = symbols._one(played.equity, trades, limit=3)
    assert two["open"].tolist() == [0.5, 2.5, 4.5]
    assert two["high"].tolist() == [3, 5, 6]
    assert two["low"].tolist() == [0, 2, 4]
    assert two["close"].tolist() == [2, 4, 5]
    assert two["exposure"].tolist() == [1, 0, 0]
    assert two["note"] == "5 bars, 2 to a candle."
    assert (two["trades"][0]["entry"], two["trades"][0]["exit"]) == (0, 1)


def test_a_folder_without_open_high_and_low_is_drawn_by_its_closes() -> None:
    played = evaluation()
    one = symbols._one(played.equity.drop("open", "high", "low"), symbols.shown_trades(played), limit=9)
    assert "open" not in one
    assert one["close"].tolist() == [1, 2, 3, 4, 5]


def test_trades_are_listed_with_side_apart_from_exit() -> None:
    table = symbols.trade_list(symbols.shown_trades(evaluation()))
    row = dict(zip([c.field for c in table.columns], table.rows[0], strict=True))
    assert (row["side"], row["reason"], row["bars"]) == ("Long", "Stop-loss", 2)
    assert row["entry_time"] == datetime(2024, 1, 1, 1, tzinfo=UTC).timestamp()


def test_scores_are_the_policy_holding_the_best_rule_and_the_better_linear_one() -> None:
    figures = {"return": 0.1, "max_drawdown": 0.2}
    sharpes = {"policy": 1.2, "buy_and_hold": 0.5, "macd": 1.1, "linear_1": 0.3, "linear_10": 0.4, "sign_63": 0.9}
    rows = {name: {"sharpe": sharpe, **figures} for name, sharpe in sharpes.items()}
    against = {"macd": {"interval_90": [0.5, 1.7], "sharpe_difference": 0.1, "difference_90": [-0.2, 0.4]}}
    found = tested.scores(rows, "policy", [0.6, 1.8], against, "macd")
    assert [s.name for s in found] == ["Policy", "Buy-and-hold", "Best rule: MACD", "Linear baseline: Linear, ridge 10"]
    assert found[2].note == "0.10 (\u22120.20 to 0.40)"
    assert found[2].interval == (0.5, 1.7)
    assert [s.own for s in found] == [True, False, False, False]


def test_only_what_was_not_looked_at_is_green() -> None:
    def value(looked_at: bool) -> str:
        answer = Answer("good", "APPROVED", "It beats <all>.", "Sharpe ratio 2.00 a year", "of bars", looked_at)
        return scoreboard(answer, [Score("Policy", 2.0, (1.0, 3.0), 0.1, 0.05, own=True)])

    assert '<b class="good">Sharpe ratio 2.00 a year</b>' in value(False)
    assert '<b class="">Sharpe ratio 2.00 a year</b>' in value(True)
    assert "looked at" in value(True)
    assert "&lt;all&gt;" in value(False)
    assert "1.00 to 3.00" in value(False)


def test_titles_have_names_and_no_paths() -> None:
    assert base_name("/data/bars/futures/") == "futures"
    assert base_name("embedded synthetic market") == "embedded synthetic market"


@pytest.mark.parametrize(("days", "said"), [(1, "1 day is too few"), (2, "2 days are too few"), (20, "")])
def test_a_scoreboard_of_few_days_says_that_they_are(days: int, said: str) -> None:
    assert tested.few_days(days).startswith(said)
    assert bool(tested.few_days(days)) == bool(said)


def test_an_interval_that_is_not_known_is_a_dash() -> None:
    assert (between(0.5, -2.0), between(float("nan"), 1.0)) == ("0.50 to \u22122.00", "\u2013")
