"""A report of 20 symbols and ten years of daily bars: its size, and how long a browser takes to show it.

`python -m benchmarks.page` needs Chromium (`make browser`). Seconds are from opening the file until all that the first
tab shows is drawn, and from a click on the tab of symbols until the first symbol is; the median of five rounds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from jaxppo.page.run import write_html
from tests.chromium import CHROMIUM
from tests.reference.run_directory import Fake, write_run

ROUNDS = 5
SHAPE = Fake(symbols=tuple(f"SYMBOL_{i}" for i in range(20)), bars=2520)
# A frame after the next, so that what was drawn is on the screen.
SHOWN = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def opened(browser: Browser, report: Path) -> tuple[float, float]:
    """Seconds until the first tab and until the tab of symbols is shown."""
    page: Page = browser.new_page(viewport={"width": 1200, "height": 900})
    began = time.perf_counter()
    page.goto(report.as_uri())
    page.evaluate(SHOWN)
    first = time.perf_counter() - began
    began = time.perf_counter()
    page.click("#tab-symbols")
    page.evaluate(SHOWN)
    second = time.perf_counter() - began
    page.close()
    return first, second


def main() -> None:
    """Print one line a figure."""
    with tempfile.TemporaryDirectory() as folder:
        run = write_run(Path(folder) / "run", SHAPE, evaluations=("best",))
        began = time.perf_counter()
        report = write_html(run)
        print(f"written in {time.perf_counter() - began:.2f} s, {report.stat().st_size / 1e6:.2f} MB")
        with (
            sync_playwright() as driver,
            driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as found,
        ):
            rounds = [opened(found, report) for _ in range(ROUNDS)]
    for name, seconds in zip(("first tab", "tab of symbols"), zip(*rounds, strict=True), strict=True):
        print(f"{name}: {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")


if __name__ == "__main__":
    main()
