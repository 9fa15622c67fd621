"""The same seed on the same machine: the same bits, whatever the files are called and however they are laid out."""

from __future__ import annotations

import csv
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from helpers import TINY, tiny_config, tiny_market, tiny_program

from jaxppo.agent.encoders import receptive_field
from jaxppo.device import xla_options
from jaxppo.market.bars import data_hash, load_bars
from jaxppo.market.dataset import build_market
from jaxppo.market.synthetic import synthetic_market
from jaxppo.ppo.program import TapeSpec, make_train
from jaxppo.ppo.state import hyper_from
from jaxppo.store.checkpoint import restore_train_state
from jaxppo.train.compiled import compile_run

SYMBOLS = ("ALFA", "BRAVO")
TIMES = ("steps_per_second", "elapsed_seconds")
REPO = Path(__file__).resolve().parent.parent


def table(symbol: str, index: int) -> pl.DataFrame:
    b = synthetic_market(0, 2, 900)[index]
    columns = {name: getattr(b, name) for name in ("open", "high", "low", "close", "volume")}
    return pl.DataFrame({"timestamp": b.time, "symbol": [symbol] * len(b.time), **columns})


def a_file_each(folder: Path) -> None:
    for i, symbol in enumerate(SYMBOLS):
        table(symbol, i).drop("symbol").write_csv(folder / f"{symbol}_1h.csv")


def made_in_another_order(folder: Path) -> None:
    """The second symbol first, with names that sort the other way round, and the older file touched last."""
    for i, name in ((1, "a_part"), (0, "z_part")):
        table(SYMBOLS[i], i).write_csv(folder / f"{name}.csv")
    os.utime(folder / "a_part.csv", (2e9, 2e9))


def one_long_file(folder: Path) -> None:
    """The second symbol's rows first."""
    pl.concat([table(SYMBOLS[1], 1), table(SYMBOLS[0], 0)]).write_csv(folder / "bars_1h.csv")


def one_long_file_by_time(folder: Path) -> None:
    """Rows by time, and at each time the symbols in any order; the columns in another order, too."""
    rows = pl.concat([table(s, i) for i, s in enumerate(SYMBOLS)])
    shuffled = rows.with_columns(key=pl.Series(random.Random(3).choices(range(9), k=rows.height)))
    by_time = shuffled.sort("timestamp", "key", maintain_order=True).drop("key")
    by_time.select("close", "symbol", "open", "volume", "timestamp", "high", "low").write_parquet(
        folder / "bars.parquet"
    )


def in_pieces(folder: Path) -> None:
    """Every symbol in three files, the latest bars in the first of them."""
    for i, symbol in enumerate(SYMBOLS):
        rows = table(symbol, i).drop("symbol")
        for piece, (begin, end) in enumerate(((600, 900), (0, 200), (200, 600))):
            rows[begin:end].write_csv(folder / f"{symbol}-1h-part{piece}.csv")


LAYOUTS = (made_in_another_order, one_long_file, one_long_file_by_time, in_pieces)


def laid_out(layout: Any, folder: Path) -> Path:
    folder.mkdir()
    layout(folder)
    return folder


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_a_market_is_the_same_however_its_files_lie(layout, tmp_path):
    config = tiny_config()
    markets = []
    for name, how in (("plain", a_file_each), ("other", layout)):
        bars = load_bars(laid_out(how, tmp_path / name))
        assert [b.symbol for b in bars] == list(SYMBOLS)
        markets.append((build_market(bars, config, receptive_field(config.agent)), data_hash(bars)))
    (one, hash_one), (other, hash_other) = markets
    assert hash_one == hash_other
    for split in ("train", "validation", "test"):
        assert one.splits[split].symbols == other.splits[split].symbols
        for a, b in zip(
            jax.tree.leaves(one.splits[split].tape), jax.tree.leaves(other.splits[split].tape), strict=True
        ):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_the_order_in_which_symbols_are_asked_for_does_not_matter(tmp_path):
    folder = laid_out(a_file_each, tmp_path / "bars")
    asked = load_bars(folder, symbols=tuple(reversed(SYMBOLS)))
    assert [b.symbol for b in asked] == list(SYMBOLS)


# No chart is drawn: that takes longer than these runs.
TRAIN = """
import sys
import jaxppo.page.run
jaxppo.page.run.write_report = lambda run_dir: run_dir / "report.html"
from jaxppo.train.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def train(path: Path, bars: Path, cores: int | None = None, **changes: Any) -> None:
    """A run in a process of its own, on some of the cores."""
    flags: list[str] = []
    for name, value in {**TINY, "seed": 6, "data": bars, "run_dir": path, **changes}.items():
        values = value if isinstance(value, tuple) else () if value is True else (value,)
        flags += [f"--{name.replace('_', '-')}", *map(str, values)]
    limit = (lambda: os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))) if cores else None
    subprocess.run(
        [sys.executable, "-c", TRAIN, *flags],
        check=True,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        preexec_fn=limit,
        timeout=300,
    )


def rows(path: Path) -> list[dict[str, str]]:
    with (path / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


def assert_same_run(one: Path, other: Path) -> None:
    assert rows(one) == rows(other)
    (state, _), (again, _) = restore_train_state(one, "final"), restore_train_state(other, "final")
    for (where, x), y in zip(jax.tree.leaves_with_path(state), jax.tree.leaves(again), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), where
    for name in ("best_equity.parquet", "final_equity.parquet", "best_trades.parquet", "final_trades.parquet"):
        assert (pl.read_parquet(one / "validation" / name)).equals(pl.read_parquet(other / "validation" / name)), name
    assert (one / "alarms.json").read_bytes() == (other / "alarms.json").read_bytes()


@pytest.mark.slow
def test_two_processes_with_the_bars_laid_out_differently_give_the_same_bits(tmp_path):
    plain, other = laid_out(a_file_each, tmp_path / "a"), laid_out(one_long_file, tmp_path / "b")
    train(tmp_path / "one", plain)
    train(tmp_path / "two", other, deterministic=True)  # which changes nothing on a CPU
    assert_same_run(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_one_core_gives_the_bits_that_all_give(tmp_path):
    """Sizes at which XLA does share its work out between threads."""
    bars = laid_out(a_file_each, tmp_path / "bars")
    sizes = {"n_envs": 2048, "lanes": 16, "n_steps": 16, "trunk_width": 64, "channels": 32, "minibatches": 4}
    for name, cores in (("all", None), ("one", 1)):
        train(tmp_path / name, bars, cores, **sizes)
    assert_same_run(tmp_path / "all", tmp_path / "one")


# What a GPU could do in any order


def test_nothing_in_the_program_depends_on_the_order_of_threads():
    """Scatters add in the order in which a GPU's threads come; convolutions have algorithms to choose from."""
    config = tiny_config(reward="v33", advantages="counterfactual")
    market = tiny_market(config)
    _, tape, data = tiny_program(config)
    program = make_train(config, TapeSpec(tape.n_features, 100))
    hyper = hyper_from(config)
    state = jax.eval_shape(program.init, jax.random.key(0), hyper, tape)
    text = jax.jit(program.segment).lower(state, hyper, tape, data, jnp.int32(0)).as_text()
    assert market.feature_names
    assert set(re.findall(r"stablehlo\.(scatter|select_and_scatter|convolution)", text)) == set()
    assert "stablehlo.gather" in text or "stablehlo.dynamic_slice" in text  # the pattern finds names at all


@pytest.mark.slow
def test_the_option_reaches_the_compiler(monkeypatch):
    config = tiny_config()
    compiled = compile_run(config, tiny_market(config), xla_options(True))
    assert compiled.options == {"xla_gpu_deterministic_ops": True}
    # An option that XLA does not have is refused, so one that it takes is one that it knows.
    with pytest.raises(Exception, match="no_such_option"):
        jax.jit(lambda x: x + 1).lower(jnp.float32(1)).compile(compiler_options={"no_such_option": True})
