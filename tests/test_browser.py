"""Pages in a real browser: Debian's Chromium, driven by Playwright, without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from chromium import DRAWN, PHONE, Opened
from chromium import browser as browser  # a fixture
from playwright.sync_api import Browser, Page

from jaxppo.page import document
from jaxppo.page.charts import Column, Table
from jaxppo.page.run import write_html, write_report
from tests.reference.run_directory import Fake, write_run

TABS = ("equity", "tearsheet", "trades", "symbols", "learning", "warnings", "run")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(write_run(tmp_path_factory.mktemp("pages") / "run"))


@pytest.fixture
def opened(browser: Browser, report: Path) -> Iterator[Opened]:
    found = Opened(browser, report, viewport={"width": 1200, "height": 900})
    yield found
    assert found.wrong == []
    assert [url for url in found.asked if not url.startswith(("file:", "blob:", "data:"))] == []
    found.context.close()


def test_every_tab_opens_and_every_chart_draws(opened: Opened) -> None:
    page = opened.page
    assert page.locator("[role=tab]").count() == len(TABS)
    for name in TABS:
        page.click(f"#tab-{name}")
        assert page.locator("[role=tabpanel]:visible").get_attribute("id") == f"panel-{name}"
        assert page.get_attribute(f"#tab-{name}", "aria-selected") == "true"
        colours = page.locator(f"#panel-{name}").evaluate(DRAWN)
        assert all(seen > 10 for seen in colours), (name, colours)
    assert page.locator("#panel-learning [data-chart]").count() == 19  # 6 + 8 panels, 3 of rewards, 2 of actions


def test_tabs_by_keyboard_and_by_address(opened: Opened) -> None:
    page = opened.page
    page.focus("#tab-equity")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-tearsheet"
    assert page.locator("#panel-tearsheet").is_visible()
    page.keyboard.press("End")
    assert page.locator("#panel-run").is_visible()
    page.keyboard.press("ArrowRight")
    assert page.locator("#panel-equity").is_visible()
    page.evaluate("location.hash = '#glossary'")
    page.wait_for_selector("#glossary", state="visible")
    assert page.get_attribute("#tab-run", "aria-selected") == "true"


@pytest.mark.parametrize("name", TABS)
def test_a_phone_needs_no_sideways_scrolling(browser: Browser, report: Path, name: str) -> None:
    found = Opened(browser, report, viewport=PHONE, has_touch=True, is_mobile=True)
    assert found.page.evaluate("scrollY") == 0  # it begins with the verdict
    found.page.evaluate(f"jaxppo.openTab('{name}')")
    assert found.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    box = found.page.locator(f"#tab-{name}").bounding_box()
    assert box is not None
    assert 0 <= box["x"] <= PHONE["width"] - box["width"]
    assert all(seen > 10 for seen in found.page.locator(f"#panel-{name}").evaluate(DRAWN))
    assert found.wrong == []
    found.context.close()


def zoom(page: Page, chart: str) -> tuple[float, float]:
    """The shown share of a chart's period, in percent."""
    code = "e => { const z = jaxppo.charts.get(e).chart.getOption().dataZoom[0]; return [z.start, z.end]; }"
    start, end = page.locator(chart).evaluate(code)
    return start, end


def test_a_chart_zooms_by_keyboard_and_by_buttons_and_says_what_the_period_made(opened: Opened) -> None:
    page, chart = opened.page, "[data-chart=equity]"
    said = page.locator("#panel-equity figure output").first
    whole = said.inner_text()
    assert "policy" in whole
    assert "largest drawdown" in whole
    page.focus(chart)
    page.keyboard.press("+")
    assert zoom(page, chart) == pytest.approx((25, 75))
    assert said.inner_text() != whole
    page.keyboard.press("Shift+ArrowRight")
    assert zoom(page, chart) == pytest.approx((37.5, 87.5))
    page.keyboard.press("0")
    assert zoom(page, chart) == pytest.approx((0, 100))
    page.click("#panel-equity .tools button:has-text('Log')")
    assert page.locator(chart).evaluate("e => jaxppo.charts.get(e).chart.getOption().yAxis[0].type") == "log"
    with page.expect_download() as saved:
        page.click("#panel-equity .tools button:has-text('PNG')")
    assert saved.value.suggested_filename == "equity.png"


def test_the_dark_page_redraws_its_charts_in_other_colours(browser: Browser, report: Path) -> None:
    found = Opened(browser, report, color_scheme="dark")
    page = found.page
    background = "getComputedStyle(document.body).backgroundColor"
    line = "e => jaxppo.charts.get(e).chart.getOption().series[0].lineStyle.color"
    dark, in_dark = page.evaluate(background), page.locator("[data-chart=equity]").evaluate(line)
    page.select_option("#theme", "light")
    assert page.evaluate(background) != dark
    assert page.locator("[data-chart=equity]").evaluate(line) != in_dark
    assert found.wrong == []
    found.context.close()


def test_symbols_are_chosen_and_drawn_as_candles_when_zoomed(opened: Opened) -> None:
    page, view = opened.page, ".chart[data-symbols]"
    page.click("#tab-symbols")
    names = page.locator(".symbols option").all_inner_texts()
    assert sorted(names) == sorted(Fake().symbols)
    candles = "e => jaxppo.charts.get(e).chart.getOption().series.find(s => s.id === 'candles').data.length"
    assert page.locator(view).evaluate(candles) == 0  # 700 bars at once are drawn as a line
    page.focus(view)
    page.keyboard.press("+")
    assert page.locator(view).evaluate(candles) == 700
    page.select_option(".symbols select", names[1])
    assert page.locator(view).evaluate(candles) == 0
    page.click(".symbols .tools button[title='the next symbol']")
    assert page.locator(".symbols select").evaluate("e => e.selectedIndex") == 2


def test_prices_of_any_size_fit_their_axis(opened: Opened) -> None:
    shown = opened.page.evaluate("[1e-9, 1.25e-6, 0.01, 99.5, 52000, 1.18e9, 2.5e12].map(jaxppo.FORMATS.price_tick)")
    assert shown == ["1e\u22129", "1.25e\u22126", "0.01", "99.5", "52000", "1.18B", "2.5T"]


def test_trades_are_sorted_filtered_downloaded_and_shown_on_their_chart(opened: Opened, tmp_path: Path) -> None:
    page = opened.page
    page.click("#tab-trades")
    told = page.locator("#panel-trades figure output")
    n = pl.read_parquet(opened.report.parent / "validation" / "best_trades.parquet").height
    assert told.inner_text() == f"{n} of {n} rows"
    side = page.locator(".tabulator-col[tabulator-field=side]")
    side.locator("input").click()
    page.click(".tabulator-edit-list-item:has-text('Short')")
    page.wait_for_function(f"e => e.textContent !== '{n} of {n} rows'", arg=told.element_handle())
    assert {t.inner_text() for t in page.locator(".tabulator-cell[tabulator-field=side]").all()} == {"Short"}
    with page.expect_download() as saved:
        page.click("#panel-trades button:has-text('CSV')")
    saved.value.save_as(tmp_path / "trades.csv")
    lines = (tmp_path / "trades.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) - 1 == int(told.inner_text().split()[0])
    page.click("#panel-trades button:has-text('Clear filters')")
    heading = page.locator(".tabulator-col[tabulator-field=return]")
    heading.focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    page.locator(".tabulator-cell button.link").first.click()
    assert page.locator("#panel-symbols").is_visible()
    start, end = zoom(page, ".chart[data-symbols]")
    assert end - start < 50


def test_names_to_filter_by_are_text_whatever_they_are_called(browser: Browser, tmp_path: Path) -> None:
    names = ["<b>X</b>", "AAPL", "__proto__", "constructor"]
    found = document.table(Table("trades", [Column("symbol", "Symbol", "choice")], [[name] for name in names]))
    path = tmp_path / "page.html"
    path.write_text(document.document("Names", "", [document.Section("all", "All", found)], ""), encoding="utf-8")
    opened = Opened(browser, path, viewport={"width": 1200, "height": 900})
    opened.page.get_by_label("Filter by Symbol").click()
    items = opened.page.locator(".tabulator-edit-list-item")
    items.first.wait_for()
    assert items.all_inner_texts() == names
    items.nth(2).click()
    opened.page.wait_for_function("document.querySelector('output').textContent === '1 of 4 rows'")
    assert opened.page.locator(".tabulator-cell").all_inner_texts() == ["__proto__"]
    assert opened.wrong == []
    opened.context.close()


def test_without_scripts_everything_but_charts_is_there(browser: Browser, report: Path) -> None:
    found = Opened(browser, report, java_script_enabled=False)
    for anchor in (*TABS, "gate", "glossary"):
        assert found.page.locator(f"#{anchor}").is_visible(), anchor
    assert found.page.locator("#panel-equity .noscript").first.is_visible()
    found.context.close()


def test_prints_every_section_on_paper(opened: Opened, tmp_path: Path) -> None:
    paper = opened.page.pdf(path=str(tmp_path / "page.pdf"))
    assert paper.startswith(b"%PDF")
    # A second canvas, such as ECharts makes for some series, would be printed white over the first.
    count = "all => all.map(e => e.querySelectorAll('canvas').length)"
    assert set(opened.page.locator("[data-chart], [data-symbols]").evaluate_all(count)) == {1}
    opened.page.emulate_media(media="print")
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.page.locator("[role=tabpanel]:visible").count() == len(TABS)
    assert not opened.page.locator("[role=tablist]").is_visible()
    opened.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.page.locator("[role=tabpanel]:visible").count() == 1


def test_twenty_symbols_of_ten_years_stay_under_five_megabytes(browser: Browser, tmp_path: Path) -> None:
    fake = Fake(symbols=tuple(f"SYMBOL_{i}" for i in range(20)), bars=2520)
    report = write_html(write_run(tmp_path / "run", fake, evaluations=("best",)))
    assert report.stat().st_size < 5_000_000
    found = Opened(browser, report)
    found.page.click("#tab-symbols")
    assert found.page.locator(".symbols option").count() == 20
    assert found.page.locator("#panel-symbols output").inner_text() == "2,520 bars, 2 to a candle."
    assert found.wrong == []
    found.context.close()
