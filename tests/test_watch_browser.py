"""The page of a watch in a real browser: it changes in place while a run writes, and runs nothing that files hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from chromium import DRAWN, PHONE
from chromium import browser as browser  # a fixture
from playwright.sync_api import Browser, Page
from test_watch import append, begin, row

from jaxppo.store.directory import held
from jaxppo.watch.page import STATE, render, state
from jaxppo.watch.seen import Cache, look
from jaxppo.watch.serve import served
from jaxppo.watch.summary import Picture, picture

POINTS = "jaxppo.charts.get(document.querySelector('[data-chart=val_fitness]')).chart.getOption().series[0].data.length"


def until(page: Page, done: Callable[[], bool]) -> None:
    """Wait for it, 10 s at most."""
    for _ in range(100):
        if done():
            return
        page.wait_for_timeout(100)
    raise AssertionError("it did not come")


def seen(folder: Path) -> Picture:
    return picture(look((folder,), Cache()))


def test_the_page_follows_a_run_without_being_loaded_again(browser: Browser, tmp_path: Path) -> None:
    hostile = "<img src=x onerror='document.title=1'>"
    run_dir = begin(tmp_path / "run", {"data": {"source": hostile}})
    append(run_dir, row(0), row(5))
    answers = {
        "/": ("text/html", lambda: render(seen(run_dir), 0.2).encode()),
        STATE: ("application/json", lambda: state(seen(run_dir))),
    }
    context = browser.new_context(viewport=PHONE)
    wrong: list[str] = []
    asked: set[str] = set()
    page = context.new_page()
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.add(request.url))
    with served(0, answers) as url, held(run_dir):
        page.goto(url)
        page.evaluate("window.same = true")
        assert page.evaluate(POINTS) == 2
        assert min(page.evaluate(DRAWN, page.query_selector("#panel-validation"))) > 2
        append(run_dir, row(10))
        until(page, lambda: "update 10 of 40" in page.inner_text("#answer"))
        assert page.evaluate(POINTS) == 3
        assert page.evaluate("window.same")
        assert hostile in page.inner_text("#live-head")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        page.click("text=Figures")
        assert "1.00" in page.inner_text("#live-figures")
        assert wrong == []
    until(page, lambda: "cannot be reached" in page.inner_text("#lost"))
    assert "update 10 of 40" in page.inner_text("#answer")
    # The browser names the server that is gone as it likes: ERR_CONNECTION_REFUSED, ERR_SOCKET_NOT_CONNECTED, ...
    assert [text for text in wrong if not text.startswith("Failed to load resource: net::ERR_")] == []
    assert asked == {url, f"{url}state.json"}
    context.close()
