"""Runs that are killed, and go on as if they had not been: python -m benchmarks.robustness kills"""

from __future__ import annotations

import contextlib
import gc
import io
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from benchmarks.robustness.row import Row
from benchmarks.robustness.runs import LineTrap, PowerCut, differences, flags, start, write_bars
from jaxppo.config.layers import replace_fields
from jaxppo.config.schema import Config
from jaxppo.market.dataset import Market
from jaxppo.store.checkpoint import CheckpointWriter
from jaxppo.train import run as session
from jaxppo.train.__main__ import main
from jaxppo.train.compiled import Compiled, begin_run

IDENTICAL = "state, optimizer, best policy, metrics.csv, events and files bit-identical, clocks apart"
KINDS = {
    "line": "SIGKILL at a random line of the code that writes, then --resume",
    "moment": "SIGKILL at a random moment, then --resume",
    "save": "SIGKILL while a checkpoint is being written, then --resume",
}


# In this process


@contextlib.contextmanager
def compiled_once() -> Iterator[None]:
    """The same configuration is compiled once, however often it is run and with whichever seed."""
    known: dict[str, Compiled] = {}

    def begin_once(
        config: Config, market: Market, options: Mapping[str, Any], mesh: Mesh | None, *_: Any, **__: Any
    ) -> Callable[[], Compiled]:
        key = repr((replace_fields(config, {"seed": 0}), market.data_hash, options, mesh))
        if key not in known:
            known[key] = begin_run(config, market, options, mesh)()
        return lambda: known[key]

    session.begin_run = begin_once
    try:
        yield
    finally:
        session.begin_run = begin_run


def run_here(run_dir: Path, args: Sequence[str]) -> tuple[int, str]:
    """Exit status and output of a run in this process; it is resumed if it was begun."""
    out = io.StringIO()
    begun = ["--resume"] if (run_dir / "config.yaml").exists() else []
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        status = main(["--run-dir", str(run_dir), *args, *begun])
    return status, out.getvalue()


def cut_here(run_dir: Path, args: Sequence[str], at: int) -> LineTrap:
    """A run that ends at the `at`-th line of the code that writes, as if the power went: no handler of it runs."""

    def cut() -> None:
        raise PowerCut

    with LineTrap(at, cut) as trap, contextlib.suppress(PowerCut):
        run_here(run_dir, args)
    # What is in flight in the background would be gone with its process: here it must end before the next one begins.
    for writer in [w for w in gc.get_objects() if isinstance(w, CheckpointWriter)]:
        writer._thread.shutdown()
    return trap


def cuts(folder: Path, args: Sequence[str], whole: Path, n: int, seed: int) -> Iterator[tuple[str, list[str]]]:
    """Where each of `n` runs was cut, twice in a row, and what differs in the end."""
    rng = random.Random(seed)
    lines = cut_here(folder / "count", args, 2**62).lines
    for i in range(n):
        run_dir = folder / f"cut-{i}"
        first = cut_here(run_dir, args, rng.randint(1, lines))
        second = cut_here(run_dir, args, rng.randint(1, lines // 2))
        status, out = run_here(run_dir, args)
        yield f"{first.where} {second.where}", differences(whole, run_dir) if status == 0 else [out]


# In processes of their own


def _at_a_line(run_dir: Path, args: Sequence[str], rng: random.Random, lines: int) -> bool:
    process = start("benchmarks.robustness.victim", str(rng.randint(1, lines // 2)), *args)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def _at_a_moment(run_dir: Path, args: Sequence[str], rng: random.Random, lines: int) -> bool:
    """After its start up to a second after its next row: mostly while it trains, sometimes before or after."""
    process, before = start("jaxppo.train", *args), rows_of(run_dir)
    if rng.random() < 0.8:
        wait_until(lambda: rows_of(run_dir) != before or process.poll() is not None)
    time.sleep(rng.random())
    return _kill(process)


def _in_a_save(run_dir: Path, args: Sequence[str], rng: random.Random, lines: int) -> bool:
    process = start("jaxppo.train", *args)
    for _ in range(rng.randint(1, 3)):
        wait_until(lambda: _saving(run_dir) or process.poll() is not None)
        time.sleep(0.05 * rng.random())
    return _kill(process)


KILLS: dict[str, Callable[[Path, Sequence[str], random.Random, int], bool]] = {
    "line": _at_a_line,
    "moment": _at_a_moment,
    "save": _in_a_save,
}


def _kill(process: Any) -> bool:
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def rows_of(run_dir: Path) -> int:
    """Lines of metrics.csv so far."""
    with contextlib.suppress(OSError):
        return (run_dir / "metrics.csv").read_bytes().count(b"\n")
    return 0


def _saving(run_dir: Path) -> bool:
    with contextlib.suppress(OSError):
        return any(".saving" in p.name for p in (run_dir / "checkpoints").iterdir())
    return False


def wait_until(true: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError("what was waited for never came")
        time.sleep(0.001)


def _begun(run_dir: Path) -> list[str]:
    return ["--resume"] if (run_dir / "config.yaml").exists() else []


def chain(
    run_dir: Path, args: Sequence[str], whole: Path, kinds: Sequence[str], rng: random.Random, lines: int
) -> tuple[Counter[str], list[str]]:
    """Kill one run again and again, then let it end: the kills that hit, by kind, and what differs in the end."""
    hit: Counter[str] = Counter()
    own = ["--run-dir", str(run_dir), *args]
    for kind in kinds:
        hit[kind] += KILLS[kind](run_dir, [*own, *_begun(run_dir)], rng, lines)
    process = start("jaxppo.train", *own, *_begun(run_dir))
    out, err = process.communicate()
    return hit, differences(whole, run_dir) if process.returncode == 0 else [out + err]


def rows(quick: bool) -> Iterator[Row]:
    """Kills in this process, in processes of their own, and polite signals."""
    with tempfile.TemporaryDirectory() as name, compiled_once():
        folder = Path(name)
        args = [*flags(n_updates=12), f"--data={write_bars(folder / 'bars')}"]
        run_here(folder / "whole", args)
        found = list(cuts(folder, args, folder / "whole", 3 if quick else 15, seed=0))
        yield _row("cut at two random lines of the code that writes, in-process, then --resume", found)

        args = [*flags(n_updates=60), f"--data={folder / 'bars'}"]
        counted = start("benchmarks.robustness.victim", "0", "--run-dir", str(folder / "long"), *args).communicate()[0]
        lines = int(counted.split("lines ")[1])
        hit: Counter[str] = Counter()
        good: Counter[str] = Counter()
        kinds = [*KINDS] if quick else [*KINDS, *KINDS]

        def one(i: int) -> tuple[Counter[str], list[str]]:
            return chain(folder / f"chain-{i}", args, folder / "long", kinds, random.Random(i), lines)

        with ThreadPoolExecutor(2) as two:  # two processes at a time
            for i, (hits, differ) in enumerate(two.map(one, range(1 if quick else 6))):
                _tell(f"chain {i}", differ)
                hit += hits
                good += hits if not differ else Counter()
            for kind, what in KINDS.items():
                yield Row(what, hit[kind], good[kind], IDENTICAL)
            numbers = (signal.SIGINT, signal.SIGTERM)
            yield from two.map(lambda number: _signals(folder, args, number, 1 if quick else 3), numbers)


def _row(what: str, found: list[tuple[str, list[str]]]) -> Row:
    for where, differ in found:
        _tell(where, differ)
    return Row(what, len(found), sum(not differ for _, differ in found), IDENTICAL)


def _tell(where: str, differ: list[str]) -> None:
    if differ:
        print(f"{where}: {differ}", flush=True)


def _signals(folder: Path, args: Sequence[str], number: signal.Signals, n: int) -> Row:
    """A polite signal once rows are written: the segment is finished and saved, the status says why."""
    good, rng = 0, random.Random(int(number))
    for i in range(n):
        run_dir = folder / f"{number.name}-{i}"
        own = ["--run-dir", str(run_dir), *args]
        process = start("jaxppo.train", *own)
        wait_until(lambda process=process, run_dir=run_dir: rows_of(run_dir) > 2 or process.poll() is not None)
        time.sleep(0.2 * rng.random())
        process.send_signal(number)
        process.communicate()
        stopped = process.returncode
        process = start("jaxppo.train", *own, "--resume")
        process.communicate()
        differ = differences(folder / "long", run_dir)
        if stopped == 128 + number and not process.returncode and not differ:
            good += 1
        else:
            _tell(f"{number.name} {i}: status {stopped}", differ or ["no difference"])
    return Row(f"{number.name} at a random moment, then --resume", n, good, f"status {128 + number}; {IDENTICAL}")
