"""The page of a sweep, of a made-up folder: what it says, what it draws, and that a browser draws it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import Opened, assert_draws
from chromium import browser as browser  # a fixture
from playwright.sync_api import Browser

from jaxppo.page.charts import Chart
from jaxppo.store.read import SweepData, load_sweep
from jaxppo.sweep import interactive, remarks
from jaxppo.sweep.page import render, write_page
from tests.reference.sweep_directory import Swept, write_made_up_sweep


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_made_up_sweep(tmp_path_factory.mktemp("swept") / "sweep")


@pytest.fixture(scope="module")
def data(folder: Path) -> SweepData:
    return load_sweep(folder)


def series_of(chart: Chart | None) -> dict[str, dict[str, Any]]:
    assert chart is not None
    return {of["name"]: of for of in chart.option["series"]}


@pytest.mark.parametrize(
    ("swept", "tone", "title"),
    [
        (Swept(), "good", "The winner is more than luck"),
        (Swept(test_sharpe=-0.1), "bad", "The winner earns nothing on the test bars"),
        (Swept(deflated=0.4), "bad", "The winner may well be luck"),
        (Swept(deflated=0.9), "caution", "Not to be told from luck"),
        (Swept(rank_correlation=-0.1), "caution", "Not to be told from luck"),
        (Swept(deflated=float("nan")), "bad", "The winner never traded"),
        (Swept(tested=False), "caution", "The winner is more than luck, by the validation bars alone"),
        (Swept(tested=False, gate="APPROVED"), "good", "The winner is more than luck"),
    ],
)
def test_it_is_green_only_where_the_test_or_the_gate_says_so(tmp_path: Path, swept: Swept, tone: str, title: str):
    data = load_sweep(write_made_up_sweep(tmp_path / "sweep", swept))
    found = remarks.answer(data)
    assert (found.tone, found.title) == (tone, title)
    # Without test bars the figure is of those that chose the winner, is marked so, and is not green.
    page = render(data)
    assert found.looked_at is not swept.tested
    assert ("looked at: the policy was chosen" in page) is not swept.tested
    assert ('<b class="good">' in page) is (tone == "good" and swept.tested)
    assert found.value == f"Sharpe ratio {'−' if swept.test_sharpe < 0 else ''}{abs(swept.test_sharpe):.2f} a year" or (
        not swept.tested and found.value == "Sharpe ratio 1.50 a year"
    )
    assert [score.name for score in remarks.scores(data)][
        -1
    ] == "Handed over, 3 trials averaged: validation (looked at)"


def test_names_stand_in_titles_and_reasons_on_the_page(data: SweepData):
    page = render(data)
    assert "<h1>Sweep of quick_test on bars</h1>" in page
    assert "<td>13</td><td>n_envs 7: is not a multiple of &lt;lanes&gt; 4</td>" in page


def test_marks_and_axes_over_the_space(data: SweepData):
    charts = {chart.title: chart for chart in interactive.scores(data)}
    assert list(charts) == ["learning_rate", "gamma", "features", "clip"]
    axes = {name: chart.option["xAxis"] for name, chart in charts.items()}
    assert [axis["type"] for axis in axes.values()] == ["log", "value", "category", "log"]
    assert axes["features"]["data"] == ["base", "base,trend"]
    ticks = axes["learning_rate"]["axisLabel"]["customValues"]
    np.testing.assert_allclose(ticks, [1e-4, 3e-4, 1e-3, 3e-3, 1e-2])
    assert axes["clip"]["axisLabel"]["customValues"] == [0.11, 0.29]  # a range without a round value has its ends
    series = series_of(charts["gamma"])
    # Of 14 trials 0 won, 1 and 2 are averaged, 4 and 9 were halted, 13 failed; 3, 5, 6, 7, 8, 10, 11, 12 are left.
    assert {name: len(of["data"]) for name, of in series.items()} == {
        "halted": 2,
        "complete": 8,
        "averaged": 2,
        "winner": 1,
    }
    says = series["winner"]["data"][0]["name"].splitlines()
    assert says[:2] == ["Trial 0, winner", "Fitness: 1.50 on validation, on test 0.80"]
    assert says[2].startswith("learning_rate ")
    assert interactive.became(data)[-1] == "failed"


def test_lines_seeds_and_halves(data: SweepData):
    learning = interactive.learning(data)
    assert learning is not None
    names = [of["name"] for of in learning.option["series"]]
    assert names == ["halted"] * 2 + ["complete"] * 8 + ["averaged"] * 2 + ["winner"]
    seeds = series_of(interactive.seeds(data))
    assert len(seeds["one seed alone"]["data"]) == 2 * len(seeds["ensemble of its seeds"]["data"]) == 22
    low, high = seeds["one seed alone"]["markLine"]["data"][0]
    assert (low["coord"][0], low["coord"][1], high["coord"][1]) == ("0", pytest.approx(0.9), pytest.approx(1.2))
    ranks, _ = interactive.overfitting(data)
    halves = {name: of["data"] for name, of in series_of(ranks).items()}
    # One of eight at 5 %, one at 35 %, one in the middle, which counts as worse; then 55 % and four at 95 %.
    assert halves["the worse half"] == [0.125, 0, 0, 0.125, 0.125, 0, 0, 0, 0, 0]
    assert halves["the better half"] == [0, 0, 0, 0, 0, 0.125, 0, 0, 0, 0.5]


def test_what_is_not_known_is_not_drawn(data: SweepData):
    assert interactive.seeds(replace(data, trials=data.trials.select("trial", "state", "value"))) is None
    assert interactive.validation_and_test(replace(data, trials=data.trials.drop("test_fitness"))) is None
    assert interactive.overfitting(replace(data, splits=data.splits.clear())) == []
    assert interactive.importance(replace(data, summary={**data.summary, "importance": {}})) is None
    assert interactive.learning(replace(data, validations=data.validations.clear())) is None
    page = render(replace(data, summary={**data.summary, "importance": {}}))
    assert "Told from ten complete trials on." in page


def test_all_trials_are_in_the_table_the_best_first(data: SweepData):
    table = interactive.trials(data)
    fields = [column.field for column in table.columns]
    assert fields[:6] == ["trial", "became", "learning_rate", "gamma", "features", "clip"]
    # The fourth was halted at 0.3, under the fifth's 0.5; the failed one, without a value, is last.
    assert [row[0] for row in table.rows][:6] == [0, 1, 2, 3, 5, 4]
    assert table.rows[-1][:2] == (13, "failed")
    assert [row[1] for row in table.rows][:4] == ["winner", "averaged", "averaged", "complete"]


def test_the_page_in_a_browser(browser: Browser, folder: Path):
    found = Opened(browser, write_page(folder))
    assert_draws(found)
    found.page.evaluate("jaxppo.openTab('trials')")
    assert found.page.locator("#panel-trials output").inner_text() == "14 of 14 rows"
    cells = found.page.locator(".tabulator-row").first.locator(".tabulator-cell")
    assert cells.all_inner_texts()[:2] == ["0", "winner"]
    found.page.evaluate("jaxppo.openTab('scores')")
    # What a point says is drawn on a line each, as text.
    code = "e => jaxppo.charts.get(e).chart.dispatchAction({ type: 'showTip', seriesIndex: 3, dataIndex: 0 })"
    found.page.locator("[data-chart=score_gamma]").evaluate(code)
    tip = found.page.get_by_text("Trial 0, winner")
    assert tip.inner_text().splitlines()[1] == "Fitness: 1.50 on validation, on test 0.80"
    assert found.wrong == []
    found.context.close()
