"""README and the site: every block runs, what pages show of the code is complete, and the site builds strictly."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import polars as pl
import pytest
from documents import PAGES, ROOT, RUN, SMALL, blocks, run_block

import jaxppo
import jaxppo.api
import jaxppo.cli
import jaxppo.market.source
import jaxppo.market.synthetic
from docs import hooks
from jaxppo.__main__ import COMMANDS
from jaxppo.config.schema import FIELD_GROUP
from jaxppo.env.rewards import REWARD_COMPONENTS
from jaxppo.market.synthetic import synthetic_market
from jaxppo.play.metrics import METRICS
from jaxppo.play.rules import RULES
from jaxppo.plugins import unload_plugins

# What every configuration of a block becomes, whatever it asks for: one shape, which compiles once.
SIZES = SMALL | {
    "n_updates": 4,
    "validate_every": 2,
    "n_validations": 0,
    "passes": 0.0,
    "env_steps": 0,
    "scale_window": 32,
}
BARS = [("SPY", "1d"), ("QQQ", "1d"), ("AAPL", "1d"), ("BTCUSDT", "1h"), ("ETHUSDT", "1h")]
N_BARS = 1_600


def small(resolve):
    """`resolve` of the configuration, with sizes of seconds over all that is asked for."""

    def resolved(preset=None, given=None, *rest, **more):
        asked = dict(given or {})
        seeds = {"seeds": 2} if asked.get("seeds", 1) > 1 or preset == "trend" else {}
        return resolve(preset, asked | SIZES | seeds, *rest, **more)

    return resolved


def small_market(seed, n_symbols=2, n_bars=6_000):
    return synthetic_market(seed, n_symbols, n_bars)


@pytest.fixture(scope="module", autouse=True)
def sizes():
    with pytest.MonkeyPatch.context() as patch:
        for module in (jaxppo.cli, jaxppo.api):
            patch.setattr(module, "resolve", small(module.resolve))
        for module in (jaxppo.market.source, jaxppo.market.synthetic):
            patch.setattr(module, "synthetic_market", small_market)
        yield


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A reader's folder: bars, and the run that every page speaks of, with a backtest."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "bars").mkdir()
    for i, (symbol, interval) in enumerate(BARS):
        bars = synthetic_market(i, 1, N_BARS)[0]
        step = 86_400 if interval == "1d" else 3_600
        time = pl.Series(range(N_BARS)).cast(pl.Int64) * step + 1_704_067_200
        columns = {k: getattr(bars, k) for k in ("open", "high", "low", "close", "volume")}
        stamps = (time * 1_000_000).cast(pl.Datetime("us", "UTC"))
        pl.DataFrame({"timestamp": stamps, **columns}).write_csv(folder / "bars" / f"{symbol}_{interval}.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        jaxppo.train("quick_test", run_dir="runs/my-run")
        jaxppo.backtest("runs/my-run", out="runs/my-run/backtest/tested")
    for also in ("seed-0", "seed-1", "seed-2", "my-grid/000", "my-grid/001"):
        shutil.copytree(folder / "runs" / "my-run", folder / "runs" / also)
    return folder


@pytest.fixture
def folder(reader, tmp_path, monkeypatch):
    """A copy of it, for one page."""
    here = shutil.copytree(reader, tmp_path / "reader")
    monkeypatch.chdir(here)
    yield here
    unload_plugins()  # of this page


def run_page(page, folder, quick):
    names = {"__name__": "__main__"}
    for block in blocks(page):
        run_block(block, folder, names, quick)


@pytest.mark.parametrize("page", [name for name in PAGES if any(b.language in RUN for b in blocks(name))])
def test_blocks_of_a_page(page, folder):
    run_page(page, folder, quick=True)


@pytest.mark.slow
@pytest.mark.parametrize("page", [name for name in PAGES if any(b.slow for b in blocks(name))])
def test_slow_blocks_of_a_page(page, folder):
    run_page(page, folder, quick=False)


def test_what_is_not_run_says_why():
    every = [block for page in PAGES for block in blocks(page) if block.language in RUN]
    assert len(every) > 60
    kept = [block.reason for block in every if block.reason]
    assert len(kept) < len(every) / 4
    assert all(len(reason) > 10 for reason in kept)


def test_a_block_that_is_not_understood_is_named(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("Text.\n\n```sh\nrm -r runs\n```\n\n<!-- not run: needs a GPU -->\n```sh\nrm\n```\n")
    monkeypatch.setitem(PAGES, "page.md", page)
    first, second = blocks("page.md")
    with pytest.raises(AssertionError, match=r"page.md:3: 'rm -r runs' is not understood"):
        run_block(first, tmp_path, {}, quick=True)
    assert (second.place, second.reason) == ("page.md:8", "needs a GPU")
    run_block(second, tmp_path, {}, quick=True)


def test_a_wrong_flag_in_a_document_is_found_without_running_it(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text("<!-- slow -->\n```sh\npython -m jaxppo.train --learning-rat 3\n```\n")
    monkeypatch.setitem(PAGES, "page.md", page)
    (block,) = blocks("page.md")
    with pytest.raises(SystemExit):
        run_block(block, tmp_path, {}, quick=True)
    assert "--learning-rat" in capsys.readouterr().err


def test_the_tables_of_the_reference_are_complete():
    columns, config, commands = hooks.columns_table(), hooks.configuration(), hooks.commands()
    assert all(f"`{'val_' if m.validation else ''}{m.column}`" in columns for m in METRICS.values())
    flags = (f"--{name.replace('_', '-')}" for name in FIELD_GROUP)
    assert [flag for flag in flags if not re.search(rf"^\| `{flag}[` ]", config, re.MULTILINE)] == []
    assert all(f"\n## {name}\n" in f"\n{commands}" for name in COMMANDS)
    assert "| `--random-draws INT`" in commands  # of a backtest
    assert all(f"`{name}`" in hooks.rewards_table() for name in REWARD_COMPONENTS)
    assert all(f"`{name}`" in hooks.rules_table() for name in RULES)
    assert all(f"## {name}\n" in hooks.public() for name in jaxppo.__all__ if name != "__version__")
    assert "| `production` | 131,072 x 8 | 477 | 500.2M | 40 | 12 | 1 |" in hooks.presets()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built strictly, as `make docs` does, without a way to the network."""
    folder = tmp_path_factory.mktemp("site")
    environment = {
        **os.environ,
        "NO_MKDOCS_2_WARNING": "1",
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder


def test_the_site_builds_strictly_and_asks_for_nothing_from_the_network(site):
    pages = {p.relative_to(site): p.read_text(encoding="utf-8") for p in site.rglob("*.html")}
    assert len(pages) > 40
    loaded = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//[^"'>\s]+""")
    assert {str(name): found for name, text in pages.items() if (found := loaded.findall(text))} == {}
    assert not re.search(r"<!-- generated: \w+ -->", "".join(pages.values()))


def test_links_within_the_site_lead_to_files(site):
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]  # whose links are a server's
    within = re.compile(r"""<a\b[^>]*?\bhref="(?!#|[a-z]+:)([^"#?]+)""")
    lost = {
        (str(page.relative_to(site)), link)
        for page in pages
        for link in within.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / link).exists()
    }
    assert lost == set()


def test_the_site_can_be_searched_from_files(site):
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    found = json.loads(index.removeprefix("var __index = "))["docs"]
    assert {"explanation/timing.html", "reference/commands.html"} <= {entry["location"] for entry in found}
    assert (site / "assets" / "iframe-worker.js").is_file()  # what runs the search where there is no server
