"""The examples of README and the site: `python -m benchmarks.readme` computes them, pictures and figures, anew.

The first is `make train` and a backtest of it: quick_test on the embedded market, seed 0, some two minutes on 2 cores.
The second is the walk-forward of `readme_trend`. A JSON file each keeps the figures with the commit, software and
hardware that they were measured with, and hashes of the picture and of the sources that draw it, by which a test finds
out that they are older than the code. `python -m benchmarks.readme trend` computes that one alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from matplotlib.image import imread, imsave

import jaxppo
from benchmarks import readme_trend
from jaxppo.device import detect_device
from jaxppo.page import canvas, plots, style, text
from jaxppo.page.reference import between
from jaxppo.page.run_remarks import looks
from jaxppo.store.directory import changed_environment, environment_facts
from jaxppo.store.files import write_atomic
from jaxppo.store.json import read_figures, write_json
from jaxppo.store.read import load_backtest, load_run, pooled_metrics
from jaxppo.walkforward import charts

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DOCS, END = ROOT / "docs", "<!-- end of example -->\n"
AGAIN = "run: python -m benchmarks.readme"
SHOWN = ("return", "sharpe", "trades", "buy_and_hold_return")


@dataclass(frozen=True)
class Example:
    """A picture with a paragraph of figures beneath it, on one or more pages."""

    name: str  # of both files
    make: Callable[[Path], tuple[dict[str, Any], bytes]]  # figures and picture, from an empty folder to work in
    paragraph: Callable[[dict[str, Any], str], str]  # what is said of the figures; the second is the way to docs/
    sources: tuple[ModuleType, ...]  # what draws the picture and puts the figures into words
    pages: tuple[Path, ...]

    @property
    def picture(self) -> Path:
        return DOCS / "pictures" / f"{self.name}.png"

    @property
    def begin(self) -> str:
        return f"<!-- {self.name}: written by benchmarks.readme -->\n"

    def stored(self) -> dict[str, Any]:
        """The JSON file."""
        found: dict[str, Any] = read_figures(HERE / f"{self.name}.json")
        return found

    def drawn_by(self) -> str:
        """SHA-256 of the sources."""
        return hashlib.sha256(b"".join(Path(str(m.__file__)).read_bytes() for m in self.sources)).hexdigest()

    def text(self, page: Path, stored: dict[str, Any]) -> str:
        """What stands between the markers on a page."""
        away = len(page.relative_to(ROOT).parts) - 2  # folders beneath docs/; -1 above it
        said = self.paragraph(stored["figures"], "docs/" if away < 0 else "../" * away)
        return said + measured(stored)

    def write(self) -> dict[str, Any]:
        """Compute and write everything anew; returns the figures."""
        with tempfile.TemporaryDirectory() as folder:
            figures, picture = self.make(Path(folder))
        write_atomic(self.picture, picture)
        stored = {
            "figures": figures,
            "commit": commit(),
            "environment": environment_facts(detect_device()),
            "drawn_by": self.drawn_by(),
            "picture": hashlib.sha256(picture).hexdigest(),
        }
        write_json(HERE / f"{self.name}.json", stored)
        for page in self.pages:
            content = self.text(page, stored)
            write_atomic(page, between(page.read_text(encoding="utf-8"), self.begin, END, content))
        return figures


def commit() -> str:
    """The commit that is checked out, or "unknown" outside a checkout."""
    done = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def measured(stored: dict[str, Any]) -> str:
    """With what the figures were measured, in a sentence."""
    environment = stored["environment"]
    device = environment["device"]
    machine = device.get("processor") or device["kind"]
    return f"(Measured with jax {environment['versions']['jax']} on {machine}, at commit {stored['commit']}.)\n"


def quick_test(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The figures of the run and of its backtest, and the picture."""
    run_dir = jaxppo.train("quick_test", run_dir=folder / "run")
    tested_in = jaxppo.backtest(run_dir, out=folder / "test")
    run, tested = load_run(run_dir), load_backtest(tested_in)
    validation = pooled_metrics(run.best)
    hold = tested.facts["baselines"]["buy_and_hold"]["return"]
    test = {**tested.pooled, "buy_and_hold_return": hold}
    assert run.gate is not None
    figures = {
        "looks": looks(run),
        "validation": {**{k: validation[k] for k in SHOWN}, "gate": run.gate.verdict},
        "test": {**{k: test[k] for k in SHOWN}, "gate": tested.gate.verdict},
    }
    return figures, stacked(plots.make_plots(run))


def stacked(charts: dict[str, bytes]) -> bytes:
    """Equity over drawdown as one PNG."""
    images = [imread(io.BytesIO(charts[name]), format="png") for name in ("equity", "drawdown")]
    buffer = io.BytesIO()
    imsave(buffer, np.concatenate(images), format="png")
    return buffer.getvalue()


def paragraph(figures: dict[str, Any], docs: str) -> str:
    """What is said of the example; `docs` is the way to the folder docs/."""

    def percent(x: float) -> str:
        return f"{100 * x:+.1f} %"

    def policy(of: dict[str, Any]) -> str:
        return f"{percent(of['return'])} (Sharpe {of['sharpe']:.2f}, {of['trades']:.0f} trades)"

    best, test = figures["validation"], figures["test"]
    return (
        f"![Equity and drawdown of a quick_test run on its validation bars]({docs}pictures/readme.png)\n\n"
        f"The picture shows the best of {figures['looks']} looks at the same validation bars: it made {policy(best)}\n"
        f"and buy-and-hold {percent(best['buy_and_hold_return'])}; the [gate]({docs}how-to/backtest.md#the-gate) says"
        f" {best['gate']}."
        " On the test split, which it had never seen,\n"
        f"that policy made {policy(test)} and buy-and-hold {percent(test['buy_and_hold_return'])}, and the gate says"
        f" {test['gate']}.\n"
    )


def differing(stored: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Figures that are not the same to two digits, by name."""
    found = []
    for part in ("validation", "test"):
        for name in SHOWN:
            before, after = stored[part][name], now[part][name]
            if not np.isclose(before, after, rtol=0.005, atol=1e-4):
                found.append(f"{part} {name}: {before:.4g}, now {after:.4g}")
    return found


def elsewhere(stored: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """What differs from the software and hardware of the stored figures: there training may end elsewhere."""
    return changed_environment(stored["environment"], environment_facts(detect_device()))


EXAMPLES = {
    "quick_test": Example(
        "readme",
        quick_test,
        paragraph,
        (plots, canvas, style, text, sys.modules[__name__]),
        (ROOT / "README.md", DOCS / "index.md"),
    ),
    "trend": Example(
        "readme_trend",
        readme_trend.make,
        readme_trend.paragraph,
        (charts, canvas, style, readme_trend),
        (DOCS / "tutorials" / "out-of-sample.md",),
    ),
}


def main() -> None:
    """Compute and write all examples, or those that are named."""
    for name in sys.argv[1:] or EXAMPLES:
        print(json.dumps(EXAMPLES[name].write(), indent=2))


if __name__ == "__main__":
    main()
