"""The report of a made-up run directory."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib.image import imread

from jaxppo.errors import RunDirectoryError
from jaxppo.page.curves import action_colors
from jaxppo.page.plots import PLOTS
from jaxppo.page.run import write_report
from jaxppo.page.run_remarks import caveat, expected_best_sharpe, verdict, warnings
from jaxppo.page.text import number, percent
from jaxppo.page.thin import decimate
from jaxppo.store.read import best_row, load_run
from jaxppo.store.tables import drawdown
from jaxppo.train.record import Progress
from tests.reference.run_directory import LABELS, Fake, write_run

SECTIONS = (
    *("verdict", "equity", "trades", "symbols", "learning", "actions", "rewards"),
    *("warnings", "gate", "run", "glossary"),
)


class Page(HTMLParser):
    """Ids, elements and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.scripts: list[str] = []  # and the blocks of their data
        self.feed(text)
        self.text = " ".join(self.words)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.scripts.append(data)
        elif "style" not in self.open:
            self.words.append(data)

    def charts(self) -> list[str]:
        return [str(attrs["data-chart"]) for _, attrs in self.elements if "data-chart" in attrs]

    def has(self, attribute: str) -> bool:
        return any(attribute in attrs for _, attrs in self.elements)


def report_of(run_dir: Path) -> Page:
    page = Page(write_report(run_dir).read_text(encoding="utf-8"))
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "full")


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return report_of(run)


def test_has_every_section_once_and_working_links(page: Page) -> None:
    assert [i for i in page.ids if i in SECTIONS] == list(SECTIONS)
    assert len(set(page.ids)) == len(page.ids)
    controlled = [str(attrs["aria-controls"]) for _, attrs in page.elements if attrs.get("role") == "tab"]
    assert controlled == [str(attrs["id"]) for _, attrs in page.elements if attrs.get("role") == "tabpanel"]
    assert len(controlled) == 7  # Equity, Tear sheet, Trades, Symbols, Learning, Checks, Run


def test_pictures_are_whole_pngs_in_the_folder(run: Path, page: Page) -> None:
    assert {path.stem for path in (run / "plots").iterdir()} == set(PLOTS)
    for path in (run / "plots").iterdir():
        pixels = imread(path, format="png")
        assert pixels.shape[1] > 1000
        assert len(np.unique(pixels[::4, ::4].sum(axis=-1))) > 20  # more than a blank sheet


def test_loads_nothing_from_elsewhere(run: Path, page: Page) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    without_scripts = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"//|url\(|@import", without_scripts)
    assert not {tag for tag, _ in page.elements} & {"img", "link", "iframe", "object", "embed", "form"}
    assert not [attrs for tag, attrs in page.elements if tag == "script" and "src" in attrs]


def test_only_our_own_scripts_may_run(run: Path, page: Page) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    ran = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    found = {"sha256-" + base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in ran}
    policy = next(str(a["content"]) for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert found == set(re.findall(r"'(sha256-[^']+)'", policy))
    assert "script-src 'sha256-" in policy
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy


def test_escapes_symbols(run: Path, page: Page) -> None:
    assert "<b>X" not in (run / "report.html").read_text(encoding="utf-8")
    assert "<b>X&Y" in page.text
    assert any('"\\u003cb>X&Y"' in block for block in page.scripts)  # in the data of tables, no element begins


def test_cards_show_the_pooled_figures(run: Path, page: Page) -> None:
    table = pl.read_csv(run / "validation" / "best_symbols.csv")
    row = table.filter(pl.col("symbol") == "POOLED").to_dicts()[0]
    for text in (percent(row["return"], sign=True), number(row["sharpe"]), number(row["profit_factor"])):
        assert text in page.text


def test_shows_changed_values_with_their_source(page: Page) -> None:
    assert "learning_rate 0.001 0.0003 command line" in page.text
    assert "Program: memory 3.0 MiB" in page.text


def test_shows_the_gate_and_what_it_decided_on(page: Page) -> None:
    assert "Gate: REVIEW: promising, but not yet worth money" in page.text
    assert "profit factor 1.40 (at least 1.80), deflated Sharpe ratio \u2013 (at least 95\u00a0%)" in page.text
    assert "Profit factor 1.40 \u2265 1.30, holds \u2265 1.80, fails" in page.text
    assert "98\u00a0% of the bars in the market were short" in page.text


def test_names_the_gate_that_cannot_be_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "gate.json").write_text("{}")
    with pytest.raises(RunDirectoryError, match=r"gate\.json has no 'verdict'"):
        load_run(run)


def test_passes_on_the_warnings_of_the_data(page: Page) -> None:
    assert "AAPL: 3 bars repeat" in page.text


def test_is_the_same_when_made_again_and_leaves_no_temporary_file(run: Path, page: Page) -> None:
    first = (run / "report.html").read_bytes()
    assert write_report(run).read_bytes() == first
    names = {path.name for path in run.iterdir()}
    assert names == {"config.yaml", "manifest.json", "metrics.csv", "gate.json", "validation", "plots", "report.html"}


def test_removes_charts_that_no_longer_have_data(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", evaluations=())
    (run / "plots").mkdir()
    (run / "plots" / "trades.png").write_bytes(b"old")
    write_report(run)
    assert {path.stem for path in (run / "plots").iterdir()} == {"validation", "training", "rewards", "actions"}


def test_interrupted_before_the_first_validation(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Fake(finished=False), evaluations=())
    (run / "metrics.csv").unlink()
    page = report_of(run)
    assert page.charts() == []
    assert "No validated policy yet" in page.text
    assert "it has no validation yet" in page.text
    assert "The gate judges a run when it has finished." in page.text


def test_first_validation_only(tmp_path: Path) -> None:
    page = report_of(write_run(tmp_path / "run", Fake(validations=1, finished=False), evaluations=("best",)))
    assert [i for i in page.ids if i in SECTIONS] == list(SECTIONS)
    assert "equity" in page.charts()
    assert "its last validation was at update 0" in page.text
    assert "No final policy" in page.text


def test_without_trades(tmp_path: Path) -> None:
    page = report_of(write_run(tmp_path / "run", Fake(trade_bars=0)))
    assert "The policy closed no trade" in page.text
    assert "Too few trades" in page.text
    assert not page.has("data-table")
    assert page.has("data-symbols")


def test_one_symbol_has_no_small_multiples(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Fake(symbols=("EURUSD",)), evaluations=("best",))
    page = report_of(run)
    assert [a["value"] for tag, a in page.elements if tag == "option"] == ["auto", "light", "dark", "EURUSD"]
    assert "symbols" not in {path.stem for path in (run / "plots").iterdir()}


def test_infinite_and_missing_figures(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", evaluations=("best",))
    path = run / "validation" / "best_symbols.csv"
    frame = pl.read_csv(path)
    pooled = pl.col("symbol") == "POOLED"
    frame = frame.with_columns(
        pl.when(pooled).then(math.inf).otherwise(pl.col("profit_factor")).alias("profit_factor"),
        pl.when(pooled).then(math.nan).otherwise(pl.col("sharpe")).alias("sharpe"),
        pl.lit(math.nan).alias("calmar"),
    )
    frame.write_csv(path)
    page = report_of(run)
    assert "No losing trade" in page.text
    assert "\u221e" in page.text
    assert not re.search(r"\b(nan|inf)\b", page.text)


def test_a_line_cut_off_by_a_crash_is_a_row_of_missing_values(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with (run / "metrics.csv").open("a") as file:
        file.write("45,2949120,")
    assert load_run(run).metrics.height == 10
    assert "best of 9 looks" in caveat(load_run(run))
    assert "\u2013" in report_of(run).text


def warnings_of(run: Path) -> str:
    return "\n".join(f"{found.title}: {found.text}" for found in warnings(load_run(run)))


def edit_equity(run: Path, which: str, change: pl.Expr) -> None:
    path = run / "validation" / f"{which}_equity.parquet"
    pl.read_parquet(path).with_columns(change).write_parquet(path)


def edit_pooled(run: Path, which: str, **changes: float) -> None:
    path = run / "validation" / f"{which}_symbols.csv"
    pooled = pl.col("symbol") == "POOLED"
    new = [pl.when(pooled).then(value).otherwise(pl.col(name)).alias(name) for name, value in changes.items()]
    pl.read_csv(path).with_columns(new).write_csv(path)


def test_warns_of_one_action_one_side_and_a_short_validation(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Fake(bars=200))
    # 20 of each 100 bars buy, the other 80 hold: 80 % of decisions are the same.
    edit_equity(
        run,
        "best",
        pl.when(pl.col("action").is_null())
        .then(None)
        .otherwise((pl.int_range(pl.len()) % 100 < 20).cast(pl.Int32))
        .alias("action"),
    )
    path = run / "validation" / "best_trades.parquet"
    pl.read_parquet(path).with_columns(pl.lit("long").alias("side")).write_parquet(path)
    text = warnings_of(run)
    assert "80\u00a0% of all decisions were \u201chold\u201d" in text
    assert "Every trade was long" in text
    assert "200 bars (8 days)" in text  # 199 hours from the first bar to the last


def test_warns_of_drawdown_and_a_final_policy_under_the_best(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    edit_pooled(run, "best", fitness=1.0, max_drawdown=0.21)
    edit_pooled(run, "final", fitness=0.4)
    text = warnings_of(run)
    assert "Deep drawdown" in text
    assert "Fitness 0.40 at the end, 1.00 at its best" in text
    edit_pooled(run, "best", max_drawdown=0.14)
    edit_pooled(run, "final", fitness=0.6)
    text = warnings_of(run)
    assert "Deep drawdown" not in text
    assert "well under the best" not in text


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"return": -0.01, "buy_and_hold_return": -0.2, "sharpe": -1.0}, "Loses money"),
        ({"return": 0.05, "buy_and_hold_return": 0.06, "sharpe": 1.0}, "less than buying and holding"),
        # 9 looks at 699 hours (0.0797 years): the luck of the best is 1.52 / sqrt(0.0797) = 5.4.
        ({"return": 0.07, "buy_and_hold_return": 0.06, "sharpe": 5.0}, "not the luck of the best of 9"),
        ({"return": 0.07, "buy_and_hold_return": 0.06, "sharpe": 6.0}, "and the luck expected of the best of 9"),
    ],
)
def test_verdict(tmp_path: Path, changes: dict[str, float], title: str) -> None:
    run = write_run(tmp_path / "run", evaluations=("best",))
    edit_pooled(run, "best", **changes)
    assert title in verdict(load_run(run)).title


def test_a_policy_that_no_rule_is_beaten_by_is_told_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", evaluations=("best",))
    edit_pooled(run, "best", **{"return": 0.07, "buy_and_hold_return": 0.06, "sharpe": 6.0})
    names, sharpes = ["best", "buy_and_hold", "macd", "sign_63"], [1.25, 0.4, 1.26, math.nan]
    pl.DataFrame({"name": names, "sharpe": sharpes}).write_csv(run / "validation" / "portfolios.csv")
    said = verdict(load_run(run))
    assert said.title == "Makes money, but no better than the best simple rule: MACD"
    assert "the policy's Sharpe ratio is 1.25; that of the best rule, MACD, is 1.26." in said.text
    write_report(run)
    assert "Sign of 63 bars" in (run / "report.html").read_text(encoding="utf-8")
    pl.DataFrame({"name": names, "sharpe": [1.27, *sharpes[1:]]}).write_csv(run / "validation" / "portfolios.csv")
    assert verdict(load_run(run)).title.startswith("Beats buy-and-hold")


@pytest.mark.parametrize("name", ["config.yaml", "manifest.json"])
def test_refuses_what_is_not_a_run_directory(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path / "run", evaluations=())
    (run / name).unlink()
    with pytest.raises(RunDirectoryError, match=f"is not a run directory: it has no {name}"):
        write_report(run)


def test_of_equal_validations_the_later_is_the_best(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Fake(validations=4))
    path = run / "metrics.csv"
    rows = pl.read_csv(path)
    for fitness, best in (
        ((0.5, 0.2, 0.5, 0.1), 2),  # not the untrained policy, which is no better
        ((0.0, 0.0, 0.0, 0.0), 3),
        ((0.5, 0.2, 0.4, 0.1), 0),
        ((0.1, 0.5, math.nan, 0.1), 1),
    ):
        rows.with_columns(pl.Series("val_fitness", fitness).fill_nan(None)).write_csv(path)
        found = load_run(run)
        assert best_row(found.metrics) == best
        assert ("The untrained policy is the best" in warnings_of(run)) == (best == 0)
        # The trainer picks the same one, a validation at a time.
        at = Progress()
        for update, value in zip(rows["update"], fitness, strict=True):
            at = at.after(update - at.update, 1.0, value)
        assert at.best_update == rows["update"][best]
    assert best_row(pl.DataFrame({"val_fitness": [None, None]})) is None


def test_names_the_file_that_cannot_be_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "validation" / "best_trades.parquet").write_bytes(b"not parquet")
    with pytest.raises(RunDirectoryError, match=r"best_trades\.parquet cannot be read"):
        load_run(run)


def test_names_the_missing_column(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    path = run / "validation" / "final_equity.parquet"
    pl.read_parquet(path).drop("benchmark").write_parquet(path)
    with pytest.raises(RunDirectoryError, match=r"final_equity\.parquet has no column 'benchmark'"):
        write_report(run)


def test_expected_best_sharpe() -> None:
    # Published for 10 trials: 1.57 standard errors; four years halve the standard error of a yearly figure.
    assert expected_best_sharpe(10, 1.0) == pytest.approx(1.5746, abs=1e-3)
    assert expected_best_sharpe(10, 4.0) == pytest.approx(1.5746 / 2, abs=1e-3)
    assert expected_best_sharpe(1, 1.0) == 0.0
    assert math.isnan(expected_best_sharpe(10, 0.0))


def test_drawdown_counts_from_the_starting_equity() -> None:
    # Starts at 1: 0.9 is 10 % down; the peak 1.2 then 0.9 is 25 % down.
    np.testing.assert_allclose(drawdown(np.array([0.9, 1.2, 0.9])), [0.1, 0.0, 0.25])
    np.testing.assert_allclose(drawdown(np.array([1.2, np.nan, 0.9])), [0.0, np.nan, 0.25])


def test_decimate_keeps_ends_and_extremes() -> None:
    y = np.sin(np.arange(10_007) / 700.0)
    y[4321], y[8765], y[100] = 9.0, -9.0, np.nan
    at = decimate(y, 400)
    assert len(at) <= 400
    assert (np.diff(at) > 0).all()
    assert {0, 4321, 8765, 10_006} <= set(at.tolist())
    assert 100 not in at
    np.testing.assert_array_equal(decimate(y[:400], 400), np.arange(400))


def test_action_colours_are_distinct() -> None:
    sized = ["hold", "buy_25", "buy_50", "buy_75", "sell_25", "sell_50", "sell_75", "close"]
    targets = ["target_-1", "target_-0.5", "target_+0", "target_+0.5", "target_+1"]
    for labels in (list(LABELS), sized, targets):
        assert len(set(action_colors(labels))) == len(labels)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (number(1234.567), "1,234.57"),
        (number(-0.5), "\u22120.50"),
        (number(-0.001), "0.00"),
        (number(math.nan), "\u2013"),
        (number(-math.inf), "\u2212\u221e"),
        (percent(0.1234, sign=True), "+12.3\u00a0%"),
        (percent(-0.1234, sign=True), "\u221212.3\u00a0%"),
        (percent(math.inf), "\u221e"),
    ],
)
def test_number_format(text: str, wanted: str) -> None:
    assert text == wanted


def test_text_and_tables_of_a_page_need_no_matplotlib() -> None:
    modules = ("text", "tables", "document", "gate", "terminal", "reference", "sections", "selection")
    lines = [f"import jaxppo.page.{name}" for name in modules]
    code = "; ".join(["import sys", *lines, "sys.exit('matplotlib' in sys.modules)"])
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
