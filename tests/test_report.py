"""The report of a made-up run directory."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from matplotlib.image import imread

from jaxppo.config.schema import Config, to_dict
from jaxppo.errors import RunDirectoryError
from jaxppo.report import write_report
from jaxppo.report.canvas import decimate
from jaxppo.report.curves import action_colors
from jaxppo.report.findings import expected_best_sharpe
from jaxppo.report.plots import PLOTS, drawdown
from jaxppo.report.text import number, percent

LABELS = ("hold", "buy", "sell")
COMPONENTS = ("direction", "pnl", "exploration")
SECTIONS = ("verdict", "warnings", "equity", "learning", "trades", "actions", "rewards", "symbols", "run", "glossary")
START = datetime(2024, 3, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Fake:
    """What the made-up run is like."""

    symbols: tuple[str, ...] = ("AAPL", "<b>X&Y", "BTC$USD$")
    bars: int = 700
    validations: int = 9
    trade_bars: int = 14
    drift: float = 2e-4
    finished: bool = True


def metrics_frame(fake: Fake, rng: np.random.Generator) -> pl.DataFrame:
    n = fake.validations
    progress = np.linspace(0, 1, n)
    train = np.where(np.arange(n) == 0, np.nan, 1.0)  # nothing has been trained at the first validation
    hold = 0.8 - 0.4 * progress
    noise = rng.normal(0, 0.03, (6, n))
    columns: dict[str, Any] = {
        "update": np.arange(n) * 5,
        "env_steps": np.arange(n) * 5 * 65_536,
        "learning_rate": 3e-4 * (0.01 + 0.99 * np.cos(progress * np.pi / 2) ** 2) * train,
        "reward_mean": (2e-4 * progress + 2e-5 * noise[0]) * train,
        "entropy": (1.09 - 0.5 * progress + noise[1]) * train,
        "approx_kl": (0.008 + 0.05 * np.abs(noise[2])) * train,
        "clip_fraction": (0.08 + noise[2] ** 2) * train,
        "explained_variance": (0.6 * progress - 0.05 + noise[3]) * train,
        "value_loss": (0.4 * np.exp(-3 * progress) + np.abs(noise[3]) / 10) * train,
        "train_trade_rate": (0.1 + 0.1 * progress) * train,
        "skipped_steps": np.zeros(n) * train,
        "val_return": 0.12 * progress - 0.03 + noise[4],
        "val_buy_and_hold_return": np.full(n, 0.06),
        "val_sharpe": 1.9 * progress - 0.4 + 6 * noise[4],
        "val_fitness": 1.9 * progress - 0.4 + 6 * noise[4],
        "val_max_drawdown": 0.12 - 0.05 * progress,
        "val_profit_factor": np.where(np.arange(n) == 1, np.inf, 0.9 + 0.5 * progress),
        "val_trades": 30 + 200 * progress,
    }
    for i, name in enumerate(COMPONENTS):
        columns[f"reward_{name}_mean"] = (0.05 * (i + 1) * progress + noise[i] / 20) * train
        columns[f"reward_{name}_share"] = np.full(n, (0.2, 0.5, 0.3)[i]) * train
        columns[f"reward_{name}_saturation"] = np.full(n, 0.1 * i) * train
    for label, share in zip(LABELS, (hold, 0.6 * (1 - hold), 0.4 * (1 - hold)), strict=True):
        columns[f"action_share_{label}"] = share * train
        columns[f"val_action_share_{label}"] = share
    return pl.DataFrame(columns).with_columns(pl.exclude("update", "env_steps").fill_nan(None))


def trade_row(symbol: str, time: list[datetime], close: np.ndarray, i: int, j: int, side: str) -> dict[str, Any]:
    gain = (close[j] / close[i] - 1) * (1 if side == "long" else -1) - 0.0005
    return {
        "symbol": symbol,
        "side": side,
        "entry_time": time[i],
        "exit_time": time[j],
        "bars": j - i,
        "units": 0.01 if side == "long" else -0.01,
        "entry_price": close[i],
        "exit_price": close[j],
        "fees": 0.0005,
        "borrow": 0.0,
        "pnl": gain,
        "return": gain,
        "reason": ("order", "stop", "take_profit")[i % 3],
    }


TRADE_SCHEMA = {
    "symbol": pl.String,
    "side": pl.String,
    "entry_time": pl.Datetime("us", "UTC"),
    "exit_time": pl.Datetime("us", "UTC"),
    "bars": pl.Int64,
    "units": pl.Float64,
    "entry_price": pl.Float64,
    "exit_price": pl.Float64,
    "fees": pl.Float64,
    "borrow": pl.Float64,
    "pnl": pl.Float64,
    "return": pl.Float64,
    "reason": pl.String,
}


def symbol_frames(
    symbol: str, fake: Fake, rng: np.random.Generator
) -> tuple[pl.DataFrame, list[dict[str, Any]], np.ndarray]:
    """Equity rows and trades of one symbol, and the net returns of its bars."""
    n = fake.bars
    time = [START + timedelta(hours=i) for i in range(n)]
    close = 100 * np.exp(np.cumsum(rng.normal(1e-5, 0.005, n)))
    exposure, trades = np.zeros(n), []
    for i in range(2, n - fake.trade_bars - 1, 2 * fake.trade_bars) if fake.trade_bars else ():
        j = i + int(rng.integers(2, fake.trade_bars + 1))
        side = "long" if rng.random() < 0.6 else "short"
        exposure[i:j] = 1.0 if side == "long" else -1.0
        trades.append(trade_row(symbol, time, close, i, j, side))
    returns = np.append(0.0, np.diff(np.log(close))) * exposure + rng.normal(fake.drift, 0.003, n) * (exposure != 0)
    equity = pl.DataFrame(
        {
            "symbol": [symbol] * n,
            "time": time,
            "close": close,
            "equity": np.exp(np.cumsum(returns)),
            "units": exposure / close,
            "exposure": exposure,
            "action": rng.choice(3, n, p=(0.5, 0.3, 0.2)).astype(np.int32),
            "benchmark": close / close[0] * 0.999,
        },
        schema_overrides={"time": pl.Datetime("us", "UTC")},
    )
    return equity, trades, returns


def pooled_rows(equity: pl.DataFrame) -> pl.DataFrame:
    mean = equity.group_by("time").agg(pl.col("equity", "exposure", "benchmark").mean()).sort("time")
    return mean.select(
        pl.lit("POOLED").alias("symbol"),
        "time",
        pl.lit(None, pl.Float64).alias("close"),
        "equity",
        pl.lit(None, pl.Float64).alias("units"),
        "exposure",
        pl.lit(None, pl.Int32).alias("action"),
        "benchmark",
    )


def symbol_metrics(symbol: str, equity: pl.DataFrame, trades: pl.DataFrame) -> dict[str, Any]:
    curve = equity["equity"].to_numpy()
    r = np.diff(curve, prepend=1.0) / np.append(1.0, curve[:-1])
    pnl = trades["pnl"].to_numpy()
    gains, losses = pnl[pnl > 0].sum(), -pnl[pnl < 0].sum()
    sharpe = float(r.mean() / r.std(ddof=1) * math.sqrt(8766)) if r.std() > 0 else math.nan
    fall = float(drawdown(curve).max())
    return {
        "symbol": symbol,
        "return": curve[-1] - 1,
        "sharpe": sharpe,
        "sortino": 1.3 * sharpe,
        "cagr": curve[-1] ** (8766 / len(curve)) - 1,
        "calmar": 1.5,
        "max_drawdown": fall,
        "skew": -0.2,
        "kurtosis": 4.1,
        "profit_factor": gains / losses if losses else (math.inf if gains else math.nan),
        "win_rate": float((pnl > 0).mean()) if len(pnl) else math.nan,
        "expectancy": float(pnl.mean()) if len(pnl) else math.nan,
        "trades": len(pnl),
        "turnover": 2.0 * len(pnl),
        "exposure": float(equity["exposure"].abs().mean() or 0.0),
        "consistency": 0.6,
        "fitness": sharpe * max(0, 1 - 0.2 * fall),
        "buy_and_hold_return": float(equity["benchmark"][-1]) - 1,
        "bars": equity.height,
    }


def write_evaluation(folder: Path, which: str, fake: Fake, rng: np.random.Generator) -> None:
    folder.mkdir(exist_ok=True)
    parts = [symbol_frames(symbol, fake, rng) for symbol in fake.symbols]
    single = pl.concat([equity for equity, _, _ in parts])
    equity = pl.concat([single, pooled_rows(single).cast(dict(single.schema))])
    trades = pl.DataFrame([t for _, rows, _ in parts for t in rows], schema=TRADE_SCHEMA, orient="row")
    rows = []
    for symbol in (*fake.symbols, "POOLED"):
        own = trades if symbol == "POOLED" else trades.filter(pl.col("symbol") == symbol)
        rows.append(symbol_metrics(symbol, equity.filter(pl.col("symbol") == symbol), own))
    equity.write_parquet(folder / f"{which}_equity.parquet")
    trades.write_parquet(folder / f"{which}_trades.parquet")
    pl.DataFrame(rows).write_csv(folder / f"{which}_symbols.csv")


def manifest_of(fake: Fake) -> dict[str, Any]:
    split = {"train": 3000, "validation": fake.bars, "test": fake.bars}
    manifest: dict[str, Any] = {
        "jaxppo": "0.1.0",
        "versions": {"jax": "0.10.2", "flax": "0.12.1", "optax": "0.2.6"},
        "device": {"kind": "NVIDIA A100-SXM4-40GB", "platform": "gpu", "count": 1},
        "python": "3.12.3",
        "created": "2025-01-02T12:00:00+00:00",
        "data": {
            "source": "synthetic market, seed 7",
            "hash": "3fa9c1d2",
            "interval": "1h",
            "symbols": [
                {
                    "symbol": symbol,
                    "asset_class": "equity",
                    "bars": 3000 + 2 * fake.bars,
                    "start": "2023-01-01T00:00:00+00:00",
                    "end": "2024-12-31T00:00:00+00:00",
                    "splits": split,
                }
                for symbol in fake.symbols
            ],
            "cutoffs": ["2024-03-01T00:00:00+00:00", "2024-07-01T00:00:00+00:00"],
            "purge_bars": 69,
        },
        "features": {"names": ["return_1", "rsi_14"], "hash": "77aa01be", "min_bars": 356},
        "actions": {"name": "hold_buy_sell", "labels": list(LABELS)},
        "sources": {"learning_rate": "command line", "reward": "command line", "n_envs": "device tier cpu"},
        "compile_seconds": 14.2,
        "program": {"temporary_memory_mib": 412.5, "donated": True},
    }
    if fake.finished:
        done = {"updates": 40, "env_steps": 2_621_440, "run_seconds": 61.4, "steps_per_second": 42_694.0}
        manifest["finished"] = done
    return manifest


def write_run(run_dir: Path, fake: Fake = Fake(), evaluations: tuple[str, ...] = ("best", "final")) -> Path:
    """A run directory as the trainer leaves it."""
    rng = np.random.default_rng(5)
    run_dir.mkdir()
    config = to_dict(Config())
    config["ppo"]["learning_rate"] = 1e-3
    config["reward"]["reward"] = "v33"
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    (run_dir / "manifest.json").write_text(json.dumps(manifest_of(fake)))
    metrics_frame(fake, rng).write_csv(run_dir / "metrics.csv")
    for which in evaluations:
        write_evaluation(run_dir / "validation", which, fake, rng)
    return run_dir


class Page(HTMLParser):
    """Ids, elements and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
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
        if "style" not in self.open:
            self.words.append(data)

    def images(self) -> list[bytes]:
        sources = [str(attrs["src"]) for tag, attrs in self.elements if tag == "img"]
        assert all(source.startswith("data:image/png;base64,") for source in sources)
        return [base64.b64decode(source.split(",", 1)[1], validate=True) for source in sources]


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
    links = [str(attrs["href"]) for tag, attrs in page.elements if tag == "a"]
    assert links == [f"#{name}" for name in SECTIONS[1:]]


def test_images_are_whole_pngs_in_the_page_and_in_the_folder(run: Path, page: Page) -> None:
    images = page.images()
    assert {path.stem for path in (run / "plots").iterdir()} == set(PLOTS)
    assert sorted(images) == sorted(path.read_bytes() for path in (run / "plots").iterdir())
    for image in images:
        pixels = imread(io.BytesIO(image), format="png")
        assert pixels.shape[1] > 1000
        assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 20  # more than a blank sheet


def test_loads_nothing_from_elsewhere(run: Path, page: Page) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    without_images = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"//|url\(|@import", without_images)
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object", "embed", "form"}


def test_escapes_symbols(run: Path, page: Page) -> None:
    assert "<b>X" not in (run / "report.html").read_text(encoding="utf-8")
    assert "<b>X&Y" in page.text


def test_cards_show_the_pooled_figures(run: Path, page: Page) -> None:
    table = pl.read_csv(run / "validation" / "best_symbols.csv")
    row = table.filter(pl.col("symbol") == "POOLED").to_dicts()[0]
    for text in (percent(row["return"], sign=True), number(row["sharpe"]), number(row["profit_factor"])):
        assert text in page.text


def test_shows_changed_values_with_their_source(page: Page) -> None:
    assert "learning_rate 0.001 0.0003 command line" in page.text


def test_is_the_same_when_made_again_and_leaves_no_temporary_file(run: Path, page: Page) -> None:
    first = (run / "report.html").read_bytes()
    assert write_report(run).read_bytes() == first
    names = {path.name for path in run.iterdir()}
    assert names == {"config.yaml", "manifest.json", "metrics.csv", "validation", "plots", "report.html"}


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
    assert page.images() == []
    assert "No validated policy yet" in page.text
    assert "it has no validation yet" in page.text


def test_first_validation_only(tmp_path: Path) -> None:
    page = report_of(write_run(tmp_path / "run", Fake(validations=1, finished=False), evaluations=("best",)))
    assert [i for i in page.ids if i in SECTIONS] == list(SECTIONS)
    assert len(page.images()) == len(PLOTS)
    assert "its last validation was at update 0" in page.text
    assert "No final policy" in page.text


def test_without_trades(tmp_path: Path) -> None:
    page = report_of(write_run(tmp_path / "run", Fake(trade_bars=0)))
    assert "The policy closed no trade" in page.text
    assert "Too few trades" in page.text
    assert len(page.images()) == len(PLOTS) - 1


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
    assert "best of 9" in report_of(run).text


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
    edit_equity(run, "best", pl.when(pl.col("action").is_null()).then(None).otherwise(
        (pl.int_range(pl.len()) % 100 < 20).cast(pl.Int32)).alias("action"))  # fmt: skip
    path = run / "validation" / "best_trades.parquet"
    pl.read_parquet(path).with_columns(pl.lit("long").alias("side")).write_parquet(path)
    text = report_of(run).text
    assert "80\u00a0% of all decisions were \u201chold\u201d" in text
    assert "Every trade was long" in text
    assert "200 bars (8 days)" in text  # 199 hours from the first bar to the last


def test_warns_of_drawdown_and_a_final_policy_under_the_best(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    edit_pooled(run, "best", fitness=1.0, max_drawdown=0.21)
    edit_pooled(run, "final", fitness=0.4)
    text = report_of(run).text
    assert "Deep drawdown" in text
    assert "Fitness 0.40 at the end, 1.00 at its best" in text
    edit_pooled(run, "best", max_drawdown=0.14)
    edit_pooled(run, "final", fitness=0.6)
    text = report_of(run).text
    assert "Deep drawdown" not in text
    assert "well under the best" not in text


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"return": -0.01, "buy_and_hold_return": -0.2, "sharpe": -1.0}, "Loses money"),
        ({"return": 0.05, "buy_and_hold_return": 0.06, "sharpe": 1.0}, "less than buying and holding"),
        # 9 looks at 699 hours (0.0797 years): the luck of the best is 1.52 / sqrt(0.0797) = 5.4.
        ({"return": 0.07, "buy_and_hold_return": 0.06, "sharpe": 5.0}, "not the luck of the best of 9"),
        ({"return": 0.07, "buy_and_hold_return": 0.06, "sharpe": 6.0}, "by more than choosing the best explains"),
    ],
)
def test_verdict(tmp_path: Path, changes: dict[str, float], title: str) -> None:
    run = write_run(tmp_path / "run", evaluations=("best",))
    edit_pooled(run, "best", **changes)
    page = report_of(run)
    assert title in page.text


@pytest.mark.parametrize("name", ["config.yaml", "manifest.json"])
def test_refuses_what_is_not_a_run_directory(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path / "run", evaluations=())
    (run / name).unlink()
    with pytest.raises(RunDirectoryError, match=f"is not a run directory: it has no {name}"):
        write_report(run)


def test_names_the_file_that_cannot_be_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "validation" / "best_trades.parquet").write_bytes(b"not parquet")
    with pytest.raises(RunDirectoryError, match=r"best_trades\.parquet cannot be read"):
        write_report(run)


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
