"""Bar files damaged at random, damaged on purpose, and made to harm: what the loaders say.

JAXPPO_BARS=bars/ python -m benchmarks.robustness loaders

takes its samples from the files in that folder (the first `_ROWS` rows of each), otherwise from made-up bars. A
case that takes longer than `_SECONDS`, or kills the process that it runs in, counts as a failure.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.robustness import mutations
from benchmarks.robustness.hostile import HOSTILE
from benchmarks.robustness.row import Row
from jaxppo.errors import JaxppoError
from jaxppo.market.bars import Bars, data_hash, load_bars
from jaxppo.market.doubts import inspect_bars

FOLDER = "JAXPPO_BARS"
_SECONDS = 20
_MEMORY = 6 * 2**30
"""Address space of the process: a file that asks for more fails there instead of filling the machine."""
_ROWS = 3_000


def samples() -> list[tuple[str, pl.DataFrame]]:
    """Name, by which symbol and interval are known, and bars: timestamp (UTC), prices and volume."""
    if folder := os.environ.get(FOLDER):
        files = sorted(f for f in Path(folder).iterdir() if f.suffix == ".parquet")
        frames = [(f.stem, pl.read_parquet(f).head(_ROWS)) for f in files]
        return [(name, frame) for name, frame in frames if "timestamp" in frame.columns and frame.height > 200]
    names = (mutations.CRYPTO, mutations.FX, mutations.EQUITY, mutations.DAILY)
    # Two years of US hours have both changes of the clock; 500 days of daily bars end before the holidays we list do.
    return [(name, mutations.generated(name, 500 if name == mutations.DAILY else _ROWS)) for name in names]


def kind_of(name: str) -> str | None:
    """Which of the mutations' kinds a file of bars is; None for minutes, which are too thin to tell what is missing."""
    if name.endswith("_1d"):
        return mutations.DAILY
    if not name.endswith("_1h"):
        return None
    symbol = name.split("_")[0]
    return mutations.CRYPTO if symbol.endswith("USDT") else mutations.FX if len(symbol) == 6 else mutations.EQUITY


def findings_of(bars: list[Bars]) -> set[tuple[object, ...]]:
    """What is said of the bars, to be compared with what was said of them before."""
    return {(f.kind, f.level, f.count, f.bar, f.text) for b in bars for f in inspect_bars(b).findings}


def load(path: Path) -> tuple[str, list[Bars]]:
    """`error` for an error of ours, `escaped ...` for another, else `loaded` and the bars."""
    try:
        return "loaded", load_bars(path, timezone="UTC")
    except JaxppoError:
        return "error", []
    except BaseException as error:
        return f"escaped {type(error).__name__}: {str(error)[:200]}", []


def _bytes_case(folder: Path, rng: np.random.Generator, all_samples: Any) -> str:
    name, frame = all_samples[int(rng.integers(len(all_samples)))]
    csv = rng.random() < 0.5
    path = folder / (name + (".csv" if csv else ".parquet"))
    frame = frame.head(int(rng.integers(60, 600)))
    data = mutations.as_csv(frame, rng) if csv else mutations.as_parquet(frame, rng, path)
    path.write_bytes(data)
    before = load(path)[1]
    path.write_bytes(mutations.damage(data, rng))
    outcome, after = load(path)
    if outcome != "loaded" or not before:
        return outcome
    if data_hash(after) == data_hash(before):
        return "equal"
    return "changed, told" if findings_of(after) != findings_of(before) else "changed, not told"


def _bars_case(folder: Path, rng: np.random.Generator, all_samples: Any) -> str:
    names = list(mutations.MUST_SHOW)
    mutation = names[int(rng.integers(len(names)))]
    function, kinds = mutations.MUST_SHOW[mutation]
    fitting = [(n, f) for n, f in all_samples if kind_of(n) in kinds]
    if mutation == "no_volume":  # FX quotes often have none to miss
        fitting = [(n, f) for n, f in fitting if (f["volume"] > 0).all()]
    name, frame = fitting[int(rng.integers(len(fitting)))]
    path = folder / f"{name}.parquet"
    frame.write_parquet(path)
    before = findings_of(load(path)[1])
    function(frame, rng).write_parquet(path)
    outcome, after = load(path)
    if outcome == "loaded":
        outcome = "reported" if findings_of(after) != before else f"silent: {mutation} of {name}"
    return outcome


def _spelling_case(folder: Path, rng: np.random.Generator, all_samples: Any) -> str:
    name, frame = all_samples[int(rng.integers(len(all_samples)))]
    path = folder / f"{name}.parquet"
    frame.write_parquet(path)
    before = load(path)[1]
    if rng.random() < 0.7:
        path = folder / f"{name}.csv"
        path.write_bytes(mutations.as_csv(frame, rng))
    else:
        mutations.as_parquet(frame, rng, path)
    outcome, after = load(path)
    if outcome == "loaded":
        return "equal" if data_hash(before) == data_hash(after) else "changed"
    return outcome


def _hostile_case(folder: Path, name: str) -> str:
    return load(HOSTILE[name](folder))[0]


def _worker(pipe: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    all_samples = samples()
    cases = {"bytes": _bytes_case, "bars": _bars_case, "spelling": _spelling_case}
    while True:
        kind, argument = pipe.recv()
        with tempfile.TemporaryDirectory() as folder:
            if kind == "hostile":
                pipe.send(_hostile_case(Path(folder), argument))
            else:
                rng = np.random.default_rng([len(kind), argument])
                pipe.send(cases[kind](Path(folder), rng, all_samples))


class _Process:
    """A process that takes cases, and is replaced when one of them kills it or takes too long."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # polars has threads, which a fork would lose
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_worker, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def outcome(self, kind: str, argument: int | str) -> str:
        self._pipe.send((kind, argument))
        try:
            if self._pipe.poll(_SECONDS):
                return self._pipe.recv()
            what = "hang"
        except EOFError:
            what = "crash"
        self.close()
        self._start()
        return what

    def close(self) -> None:
        self._process.kill()
        self._process.join()


def rows(quick: bool) -> Iterator[Row]:
    source = "real files" if os.environ.get(FOLDER) else "made-up files"
    process = _Process()

    def run(kind: str, n: int) -> Counter[str]:
        found: Counter[str] = Counter()
        for i in range(n):
            what = process.outcome(kind, i)
            found[what] += 1
            if what.startswith(("escaped", "silent", "crash", "hang")):
                print(f"{kind}, case {i}: {what}", flush=True)
        return found

    found = run("bytes", 100 if quick else 4_000)
    fine = ("error", "equal", "changed, told", "changed, not told")
    yield Row(
        f"bytes of {source} flipped, lost, repeated, moved, inserted, wrapped",
        found.total(),
        sum(found[k] for k in fine),
        f"one of our errors ({found['error']:,}) or checked bars; no other error, crash or hang",
    )
    changed = found["changed, told"] + found["changed, not told"]
    yield Row(
        "of these, read with other values",
        changed,
        found["changed, told"],
        "the report on the bars is another one; the rest changed digits of likely bars, which no reader can see",
    )
    found = run("bars", 60 if quick else 2_000)
    yield Row(
        f"bars of {source} lost, repeated, shifted, frozen, scaled, split, ... ({len(mutations.MUST_SHOW)} ways)",
        found.total(),
        found["error"] + found["reported"],
        f"refused ({found['error']:,}) or reported ({found['reported']:,})",
    )
    found = run("spelling", 60 if quick else 1_000)
    yield Row(
        "the same bars in other columns, times, separators, quotes, line ends, encodings",
        found.total(),
        found["equal"],
        "read as the same bars",
    )
    outcomes = {name: process.outcome("hostile", name) for name in HOSTILE}
    for name, outcome in outcomes.items():
        if outcome != "error":
            print(f"hostile: {name}: {outcome}", flush=True)
    yield Row(
        "pipes, devices, link circles, archives, bombs, false sizes, hostile names",
        len(outcomes),
        sum(outcome == "error" for outcome in outcomes.values()),
        f"refused with one of our errors within {_SECONDS} s and {_MEMORY >> 30} GiB",
    )
    process.close()
