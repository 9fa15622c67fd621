"""The walk-forward of the tutorial, on daily bars of a made-up market: real bars may not be published with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import jaxppo
from jaxppo.market.synthetic import ar1
from jaxppo.page import canvas
from jaxppo.page.text import plural
from jaxppo.store.read import load_walkforward
from jaxppo.walkforward.charts import portfolio_curves

SYMBOLS, DAYS = 16, 5_000
TREND = 0.06  # of a day's deviation: a sign of the true drift would have a yearly Sharpe ratio of about .8 a symbol
HALF_LIFE = 120.0  # days, of the drift


def write_market(folder: Path, seed: int = 0) -> Path:
    """Sixteen instruments with yearly deviations of 6 to 40 %, closes alone, with a drift that lasts for months."""
    rng = np.random.default_rng(seed)
    first = np.datetime64("2000-01-03")
    day = np.busday_offset(first, np.arange(DAYS))
    deviation = np.geomspace(0.004, 0.025, SYMBOLS)[:, None]
    drift = TREND * ar1(rng, (SYMBOLS, DAYS), 0.5 ** (1.0 / HALF_LIFE))
    moves = deviation * (drift + rng.standard_t(5, (SYMBOLS, DAYS)) * np.sqrt(3 / 5))
    close = 100.0 * np.cumprod(1.0 + np.clip(moves, -0.5, 0.5), axis=1)
    folder.mkdir()
    for i, price in enumerate(close):
        bars = {"timestamp": day.astype("datetime64[us]"), **dict.fromkeys(("open", "high", "low", "close"), price)}
        frame = pl.DataFrame({**bars, "volume": np.zeros(DAYS)})
        path = folder / f"MADE{i:02d}_1d.parquet"
        frame.with_columns(pl.col("timestamp").dt.replace_time_zone("UTC")).write_parquet(path)
    return folder


def make(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The figures of the walk-forward, and the picture."""
    bars = write_market(folder / "bars")
    out = jaxppo.walkforward("trend", data=str(bars), interval="1d", folds=4, fee=0.0002, out=folder / "out")
    data = load_walkforward(out, "made-up market")
    s = data.summary
    figures = {
        "sharpe": s["portfolio"]["sharpe"],
        "members": [min(s["portfolio"]["members"]), max(s["portfolio"]["members"])],
        "turnover": s["portfolio"]["turnover"],
        "rule_turnover": s["baselines"][s["excess_over_best_rule"]["rule"]]["turnover"],
        "sentence": s["excess_over_best_rule"]["sentence"],
        "costs": s["handed_over"]["sentence"],
    }
    return figures, canvas.png(portfolio_curves(data))


def paragraph(figures: dict[str, Any], docs: str) -> str:
    """What is said of the example; `docs` is the way to the folder docs/."""
    low, high = figures["members"]
    return (
        f"![The policy and the rules, rebalanced daily, on a made-up market]({docs}pictures/readme_trend.png)\n\n"
        f"The picture is that command's on {plural(SYMBOLS, 'made-up instrument')} over twenty years, with a drift that"
        " lasts for months\n"
        f"(`benchmarks/readme_trend.py`; real bars may not be published). There it says: *{figures['sentence']}*\n"
        f"The members are at {low:.2f} to {high:.2f}; the policy turns over {figures['turnover']:.0f} times a year, the"
        f" rule {figures['rule_turnover']:.0f} times. *{figures['costs']}*\n"
    )
