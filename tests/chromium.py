"""A real browser for tests of pages: Debian's Chromium, driven by Playwright, without a network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

PHONE = {"width": 390, "height": 844}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# How many colours each chart within an element shows, read back from its pixels.
DRAWN = """element => [...element.querySelectorAll('[data-chart], [data-symbols]')].map(chart => {
  const seen = new Set();
  for (const canvas of chart.querySelectorAll('canvas')) {
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < data.length; i += 4) seen.add(data[i] + 256 * data[i + 1] + 65536 * data[i + 2]);
  }
  return seen.size;
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium: `make browser` installs it")
        pytest.skip("no Chromium: `make browser` installs it")
    with sync_playwright() as driver, driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as found:
        yield found


class Opened:
    """A page, and what went wrong or was asked for while it was open."""

    def __init__(self, browser: Browser, report: Path, **options: object) -> None:
        self.context = browser.new_context(**options)  # type: ignore[arg-type]
        self.page: Page = self.context.new_page()
        self.report = report
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda m: self.wrong.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(report.as_uri())


def assert_draws(found: Opened) -> None:
    """Every tab opens and its charts draw; as wide as a phone none goes sideways; nothing goes wrong or is loaded."""
    page, tabs = found.page, [tab.get_attribute("data-first") for tab in found.page.locator("[role=tab]").all()]
    for name in tabs:
        page.evaluate(f"jaxppo.openTab('{name}')")
        assert all(seen > 10 for seen in page.locator(f"#panel-{name}").evaluate(DRAWN)), name
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    for name in tabs:
        page.evaluate(f"jaxppo.openTab('{name}')")
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"], name
    assert found.wrong == [], found.wrong
    assert [url for url in found.asked if not url.startswith("file:")] == []
