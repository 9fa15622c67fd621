"""README's example: `python -m benchmarks.readme` trains it, plays its test split, and writes picture and figures anew.

It is `make train` and a backtest of it: quick_test on the embedded market, seed 0, some two minutes on two cores.
`readme.json` keeps the figures with the software and hardware that they were measured with, and hashes of the picture
and of the sources that draw it, by which a test finds out that they are older than the code.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imread, imsave

import jaxppo
from jaxppo.device import detect_device
from jaxppo.page import canvas, plots, style, text
from jaxppo.page.reference import between
from jaxppo.store.directory import changed_environment, environment_facts
from jaxppo.store.files import write_atomic
from jaxppo.store.json import read_figures, write_json
from jaxppo.store.read import load_backtest, load_run, pooled_metrics
from jaxppo.train.remarks import looks

HERE = Path(__file__).resolve().parent
README, PICTURE, STORED = HERE.parent / "README.md", HERE / "readme.png", HERE / "readme.json"
BEGIN, END = "<!-- example: written by benchmarks.readme -->\n", "<!-- end of example -->\n"
AGAIN = "run: python -m benchmarks.readme"
SHOWN = ("return", "sharpe", "trades", "buy_and_hold_return")


def drawn_by() -> str:
    """SHA-256 of the sources that draw the picture and put the figures into words."""
    sources = [Path(str(module.__file__)) for module in (plots, canvas, style, text)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in (*sources, Path(__file__)))).hexdigest()


def example(folder: Path) -> tuple[dict[str, Any], bytes]:
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


def paragraph(figures: dict[str, Any]) -> str:
    """What README says of the example."""

    def percent(x: float) -> str:
        return f"{100 * x:+.1f} %"

    def policy(of: dict[str, Any]) -> str:
        return f"{percent(of['return'])} (Sharpe {of['sharpe']:.2f}, {of['trades']:.0f} trades)"

    best, test = figures["validation"], figures["test"]
    return (
        f"![Equity and drawdown of a quick_test run on its validation bars]({HERE.name}/{PICTURE.name})\n\n"
        f"The picture shows the best of {figures['looks']} looks at the same validation bars: it made {policy(best)}\n"
        f"and buy-and-hold {percent(best['buy_and_hold_return'])}; the [gate](#backtest) says {best['gate']}."
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


def main() -> None:
    """Train, play and write everything anew."""
    with tempfile.TemporaryDirectory() as folder:
        figures, picture = example(Path(folder))
    write_atomic(PICTURE, picture)
    write_json(
        STORED,
        {
            "figures": figures,
            "environment": environment_facts(detect_device()),
            "drawn_by": drawn_by(),
            "picture": hashlib.sha256(picture).hexdigest(),
        },
    )
    write_atomic(README, between(README.read_text(encoding="utf-8"), BEGIN, END, paragraph(figures)))
    print(json.dumps(figures, indent=2))


def stored() -> dict[str, Any]:
    """readme.json."""
    found: dict[str, Any] = read_figures(STORED)
    return found


if __name__ == "__main__":
    main()
