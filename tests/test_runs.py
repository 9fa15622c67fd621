"""Runs side by side: what lies in a folder, how runs differ, what may go. Hand-made folders, figures worked by hand."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from chromium import Opened, assert_draws
from chromium import browser as browser  # a fixture
from playwright.sync_api import Browser

from jaxppo.errors import RunDirectoryError
from jaxppo.runs.__main__ import main
from jaxppo.runs.compare import compare, config_differences, excess_sentence, short_names
from jaxppo.runs.found import daily_curve, days_per_year, find_folders, kind_of, read_entry, require_entry
from jaxppo.runs.interactive import differences, equity
from jaxppo.runs.page import render, write_comparison
from jaxppo.runs.prune import spare_checkpoints
from jaxppo.store import checkpoint_info
from tests.reference.run_directory import Fake, write_run

SMALL = Fake(symbols=("A", "B"), bars=60)


def call(*words: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(w) for w in words])
    return code, out.getvalue(), err.getvalue()


def write_curve(path: Path, returns: np.ndarray, begin: date = date(2024, 1, 1)) -> None:
    equity = np.cumprod(1.0 + returns)
    days = [begin + timedelta(days=i) for i in range(len(returns))]
    pl.DataFrame({"date": days, "equity": equity}).write_csv(path)


def add_portfolio(run: Path, sharpe: float, returns: np.ndarray) -> None:
    """The files that a finished run has of its best policy, rebalanced daily."""
    rows = {"name": ["best", "final", "buy_and_hold"], "sharpe": [sharpe, 0.1, 0.2], "return": [0.3, 0.0, 0.0]}
    pl.DataFrame(rows).write_csv(run / "validation" / "portfolios.csv")
    write_curve(run / "validation" / "best_portfolio.csv", returns)


def add_backtest(folder: Path, split: str, sharpe: float, returns: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    ends = [sharpe - 1.0, sharpe + 1.0]
    facts = {"split": split, "update": 40, "portfolio": {"sharpe": sharpe, "return": 0.1}}
    (folder / "metrics.json").write_text(json.dumps({**facts, "portfolio_intervals_90": {"sharpe": ends}}))
    (folder / "gate.json").write_text(json.dumps({"verdict": "DROP", "reasons": [], "flags": []}))
    pl.DataFrame({"time": []}).write_parquet(folder / "equity.parquet")
    write_curve(folder / "portfolio.csv", returns)
    return folder


def noise(seed: int, mean: float, days: int = 400) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 0.01, days)


@pytest.fixture
def runs(tmp_path) -> Path:
    root = tmp_path / "runs"
    root.mkdir()
    add_portfolio(write_run(root / "one", SMALL), 1.25, noise(0, 0.004))
    other = write_run(root / "two", SMALL)
    config = yaml.safe_load((other / "config.yaml").read_text())
    config["ppo"]["learning_rate"] = 2e-3
    config["budget"]["seeds"] = 5
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    add_portfolio(other, 0.75, noise(1, -0.004))
    add_backtest(root / "one" / "backtest" / "test-1", "test", 0.5, noise(2, 0.0))
    return root


def test_kinds_and_where_they_lie(runs):
    (runs / "notes").mkdir()
    walk = runs / "deep" / "walk"
    walk.mkdir(parents=True)
    for name in ("folds.csv", "summary.json", "config.yaml"):
        (walk / name).write_text("")
    (runs / "link").symlink_to(runs / "one")
    found = [(str(p.relative_to(runs)), kind) for p, kind in find_folders(runs)]
    assert found == [("deep/walk", "walkforward"), ("one", "run"), ("two", "run")]
    assert kind_of(runs / "one" / "backtest" / "test-1") == "backtest"
    assert kind_of(runs / "notes") is None


def test_what_a_run_says(runs):
    entry = require_entry(runs / "one")
    assert entry.updates == "40/40"
    assert entry.gate == "REVIEW"
    assert entry.validation.sharpe == 1.25
    assert entry.test.sharpe == 0.5
    assert entry.test.interval == (-0.5, 1.5)
    unfinished = write_run(runs / "begun", Fake(symbols=("A",), bars=60, finished=False), evaluations=())
    metrics = pl.read_csv(unfinished / "metrics.csv").with_columns(val_portfolio_sharpe=pl.lit(0.5))
    best = int(np.argmax(metrics["val_fitness"].to_numpy()))
    own = [float(i) for i in range(metrics.height)]
    metrics.with_columns(pl.Series("val_portfolio_sharpe", own)).write_csv(unfinished / "metrics.csv")
    assert require_entry(unfinished).validation.sharpe == best  # of the validation that the run would choose
    assert require_entry(unfinished).gate == ""


def test_the_list_has_a_line_each_and_a_sentence_for_what_is_damaged(runs):
    (runs / "bad").mkdir()
    (runs / "bad" / "config.yaml").write_text("- 1\n")
    (runs / "worse").mkdir()
    for name, text in (("folds.csv", "fold\n1\n"), ("summary.json", "{"), ("config.yaml", "preset: trend\n")):
        (runs / "worse" / name).write_text(text)
    code, out, err = call("list", runs)
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert lines["one"][1:3] == ["run", "quick_test"]
    assert lines["one"][-6:] == ["1.25", "0.50", "-0.50", "to", "1.50", "REVIEW"]
    assert "5" in lines["two"]
    damaged = [line for line in out.splitlines() if line.startswith("damaged: ")]
    assert len(damaged) == 2
    assert f"{runs / 'bad' / 'config.yaml'} must hold a mapping" in damaged[0]
    assert f"{runs / 'worse' / 'summary.json'} cannot be read" in damaged[1]


def test_an_empty_folder_and_none_at_all(tmp_path):
    code, out, _ = call("list", tmp_path)
    assert code == 0
    assert "holds no run" in out
    code, _, err = call("list", tmp_path / "missing")
    assert code == 2
    assert "is no folder; give one that holds runs" in err


def test_populations_and_sweeps_are_read_by_their_tables(tmp_path):
    many = tmp_path / "many"
    many.mkdir()
    (many / "config.yaml").write_text("preset: quick_test\nbudget: {n_updates: 6, seeds: 1}\n")
    (many / "population.json").write_text('{"grid": {"seed": [0, 1]}}')
    assert require_entry(many).updates == "?/6"  # begun, and not done
    (many / "summary.json").write_text('{"best": "001", "updates": 6}')
    rows = "member,gate,best_fitness,portfolio_sharpe\n000,DROP,0.1,0.2\n001,REVIEW,0.4,0.9\n"
    (many / "members.csv").write_text(rows)
    entry = require_entry(many)
    assert (entry.kind, entry.updates, entry.gate, entry.validation.sharpe) == ("population", "6/6", "REVIEW", 0.9)
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    winner = {
        "trial": 3,
        "update": 20,
        "validation": {"val_portfolio_sharpe": 1.5},
        "test": {"test_portfolio_sharpe": -0.25},
    }
    (sweep / "summary.json").write_text(json.dumps({"winner": winner, "ensemble": {"gate": "DROP"}}))
    (sweep / "trials.csv").write_text("trial\n0\n")
    (sweep / "config.yaml").write_text("preset: quick_test\n")
    entry = require_entry(sweep)
    assert (entry.kind, entry.gate) == ("sweep", "DROP")
    assert (entry.validation.sharpe, entry.test.sharpe) == (1.5, -0.25)
    (sweep / "validations.csv").write_text("trial,state,update\n2,complete,5\n3,complete,10\n")
    days = {"date": [date(2024, 1, 2), date(2024, 1, 1)], "trial_3": [0.5, 0.1], "trial_2": [0.0, 0.0]}
    pl.DataFrame(days).write_parquet(sweep / "validation_returns.parquet")
    entry = require_entry(sweep)
    assert entry.metrics["env_steps"].to_list() == [10.0 * 2048 * 32]
    assert entry.metrics["update"].to_list() == [10.0]  # of the winner, whose returns these are: 1.1 and 1.1 x 1.5
    np.testing.assert_allclose(daily_curve(entry.validation)["equity"], [1.1, 1.65])


def test_short_names_tell_folders_apart():
    assert short_names([Path("/a/x"), Path("/b/x"), Path("/b/y")]) == ["a/x", "b/x", "b/y"]
    assert short_names([Path("/r/1"), Path("/r/2")]) == ["1", "2"]


def test_only_what_differs_is_told():
    one = {"preset": "trend", "seed": 0, "ppo": {"gamma": 0.9, "clip": 0.2}}
    other = {"preset": "trend", "seed": 1, "ppo": {"gamma": 0.9, "clip": 0.3, "dropout": 0.1}}
    found = config_differences([one, other, {}])  # a backtest has none
    assert found == (("seed", ("0", "1", "–")), ("clip", ("0.2", "0.3", "–")), ("dropout", ("–", "0.1", "–")))
    assert config_differences([one, dict(one)]) == ()


def test_days_a_year():
    weekdays = np.array(["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05", "2024-01-08"])
    assert days_per_year(weekdays.astype("datetime64[D]")) == pytest.approx(5 / (7 / 365.25))


def test_a_comparison_has_intervals_and_pairs_the_same_days(runs):
    found = compare([require_entry(runs / n) for n in ("one", "two")])
    assert {d[0] for d in found.differences} == {"learning_rate", "seeds"}
    validation = found.parts["validation"]
    assert (validation.days, validation.differ) == (400, False)
    first, second = validation.lines
    assert first.excess is None
    returns = [r.mean() / r.std(ddof=1) * np.sqrt(365.25) for r in (noise(0, 0.004), noise(1, -0.004))]
    difference, low, high = second.excess
    np.testing.assert_allclose(difference, returns[0] - returns[1], rtol=1e-3)
    assert low < difference < high
    assert first.interval[0] < returns[0] < first.interval[1]
    assert excess_sentence("one", second).startswith("one is better than two: a Sharpe ratio +")
    assert [line.name for line in found.parts["test"].lines] == ["one"]
    assert found.parts["test"].lines[0].interval == (-0.5, 1.5)  # as stored


def test_curves_of_other_dates_are_compared_on_those_in_common(runs):
    write_curve(runs / "two" / "validation" / "best_portfolio.csv", noise(0, 0.004)[100:], date(2024, 4, 10))
    found = compare([require_entry(runs / n) for n in ("one", "two")]).parts["validation"]
    assert (found.days, found.differ) == (300, True)
    # The same returns on the same days: nothing lies between them, in any draw, but for the first day's rounding.
    np.testing.assert_allclose(found.lines[1].excess, 0.0, atol=1e-3)
    assert "cannot be told" in excess_sentence("one", found.lines[1])


def test_the_page_and_the_lines(runs, tmp_path):
    code, out, err = call("compare", runs / "one", runs / "two", "--out", tmp_path / "page")
    assert code == 0, err
    assert "learning_rate 0.001 0.002" in " ".join(out.split())
    assert "validation: one is better than two" in out
    page = (tmp_path / "page" / "report.html").read_text()
    for part in ("2 runs compared", "learning_rate", "One is better than two", "−0.50 to 1.50", "Learning curves"):
        assert part in page
    assert "<td>learning_rate</td>" in page
    assert "<td>window</td>" not in page  # the same in both
    assert {p.name for p in (tmp_path / "page" / "plots").iterdir()} == {"learning.png", "validation.png", "test.png"}


def test_the_page_says_what_decides(runs):
    one, two = (require_entry(runs / n) for n in ("one", "two"))
    page = render(compare([one, two]))
    board = page.partition('id="answer"')[2].partition("</section>")[0]
    assert "<h2>One is better than two</h2>" in board
    assert "one has a Sharpe ratio of 1.25 a year and two one of 0.75, on the validation bars." in board
    assert "looked at: the policy was chosen by these bars" in board  # only one was tested
    add_backtest(runs / "two" / "backtest" / "test-1", "test", 2.5, noise(3, 0.002))
    board = render(compare([require_entry(runs / n) for n in ("one", "two")])).partition('id="answer"')[2]
    assert "two is better than one" in board.partition("</h2>")[0].lower()
    assert "one has a Sharpe ratio of 0.50 a year and two one of 2.50, on the test bars." in board
    assert "looked at" not in board.partition("</section>")[0]
    assert '<b class="good">' not in board


def test_the_page_of_runs_of_other_days_says_that_they_cannot_be_compared(runs):
    write_curve(runs / "two" / "validation" / "best_portfolio.csv", noise(0, 0.004)[:50], date(2034, 4, 10))
    page = render(compare([require_entry(runs / n) for n in ("one", "two")]))
    assert "They cannot be compared" in page.partition('id="tabs"')[0]
    assert 'id="answer"' not in page


def test_curves_are_drawn_over_the_days_in_common_from_one(runs):
    # The second begins 100 days later with the same returns, so that both grow alike over the days in common.
    write_curve(runs / "two" / "validation" / "best_portfolio.csv", noise(0, 0.004)[100:], date(2024, 4, 10))
    part = compare([require_entry(runs / n) for n in ("one", "two")]).parts["validation"]
    source = equity(part, "validation", "").option["dataset"][0]["source"]
    assert source["time"][1] == 1_712_707_200_000  # 2024-04-10
    assert (source["y0"][0], source["y1"][0]) == (1.0, 1.0)
    np.testing.assert_allclose(source["y0"], source["y1"], rtol=1e-12)
    apart = replace(part, curves={**part.curves, "three": part.curves["one"].head(50)})
    assert equity(apart, "validation", "") is None


def test_differences_are_points_on_their_intervals(runs):
    part = compare([require_entry(runs / n) for n in ("one", "two")]).parts["validation"]
    first, second = part.lines
    series = differences(part, "apart").option["series"][0]
    assert [point["value"] for point in series["data"]] == [[second.excess[0], "two"]]
    assert [end["coord"][0] for end in series["markLine"]["data"][1]] == list(second.excess[1:])
    assert series["data"][0]["itemStyle"]["color"] == "@policy"  # filled: the interval is above 0
    unsure = replace(part, lines=(first, replace(second, excess=(0.1, -1.0, 1.0))))
    assert differences(unsure, "apart").option["series"][0]["data"][0]["itemStyle"]["color"] == "@card"
    assert differences(replace(part, lines=(first,)), "apart") is None


def test_the_page_in_a_browser(browser: Browser, runs, tmp_path):
    hostile = (runs / "two").rename(runs / "<img src=x onerror='document.title=1'>")
    add_backtest(hostile / "backtest" / "test-1", "test", 2.5, noise(3, 0.002))
    found = Opened(browser, write_comparison(tmp_path, compare([require_entry(runs / "one"), require_entry(hostile)])))
    assert_draws(found)
    found.page.evaluate("jaxppo.openTab('test')")
    code = "e => jaxppo.charts.get(e).chart.dispatchAction({ type: 'showTip', seriesIndex: 0, dataIndex: 0 })"
    found.page.locator("[data-chart=test_apart]").evaluate(code)
    assert found.page.get_by_text(f"one less {hostile.name}: ").is_visible()  # as text
    assert found.wrong == []
    found.context.close()


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["one"], "compare: needs two runs or more"),
        (["one", "one"], "is given twice"),
        (["one", "nothing"], "nothing: is no run, walk-forward, backtest, population or sweep"),
    ],
)
def test_what_cannot_be_compared_is_said_in_a_sentence(runs, names, sentence):
    code, _, err = call("compare", *(runs / n for n in names), "--out", runs / "page")
    assert code == 2
    assert sentence in err
    assert not (runs / "page").exists()


def test_a_damaged_curve_is_named(runs):
    path = runs / "one" / "validation" / "best_portfolio.csv"
    path.write_text("date,equity\nyesterday,1\n")
    with pytest.raises(RunDirectoryError, match=r"best_portfolio\.csv cannot be read"):
        daily_curve(read_entry(runs / "one", "run").validation)


# --- prune


@pytest.fixture
def checkpoints(runs, monkeypatch) -> Path:
    """Checkpoints of updates 0, 5, 10 and 15, of which 5 is the best and 10 is damaged, and half a save."""
    folder = runs / "one" / "checkpoints"
    for name in ("0", "5", "10", "15", "20.saving"):
        (folder / name).mkdir(parents=True)
        (folder / name / "data").write_bytes(b"x" * 1024)

    class Info:
        def __init__(self, fitness: float):
            self.fitness = fitness

    def survey(where: Path) -> checkpoint_info.Survey:
        sound = {0: 0.0, 5: 0.9, 15: 0.3}
        there = {int(p.name) for p in where.iterdir() if p.name.isdecimal()}
        found = {step: Info(fitness) for step, fitness in sound.items() if step in there}
        return checkpoint_info.Survey(found, {10: "a bit is not as it was"} if 10 in there else {})  # type: ignore[arg-type]

    monkeypatch.setattr("jaxppo.runs.prune.survey", survey)
    return folder


def test_the_best_and_the_newest_stay(checkpoints, runs):
    code, out, _ = call("prune", runs)
    assert code == 0
    assert "nothing was: give --yes" in out
    assert len(list(checkpoints.iterdir())) == 5
    code, out, _ = call("prune", runs, "--yes")
    assert code == 0
    assert sorted(p.name for p in checkpoints.iterdir()) == ["15", "5"]
    assert "damaged: a bit is not as it was" in out
    assert "neither the best (update 5) nor the newest (15)" in out
    assert "nothing to delete" in call("prune", runs)[1]


def test_where_nothing_is_sound_nothing_but_half_saves_goes(checkpoints, runs, monkeypatch):
    monkeypatch.setattr("jaxppo.runs.prune.survey", lambda folder: checkpoint_info.Survey({}, {0: "a", 5: "b"}))
    assert [s.path.name for s in spare_checkpoints(runs / "one")] == ["20.saving"]


def test_a_run_that_is_training_is_left_alone(checkpoints, runs):
    from jaxppo.store.directory import held

    with held(runs / "one"):
        code, out, _ = call("prune", runs, "--yes")
    assert code == 1
    assert "another process is training in it" in out
    assert len(list(checkpoints.iterdir())) == 5
