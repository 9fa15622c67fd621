"""Checkpoints that are damaged, and disks that are full: python -m benchmarks.robustness checkpoints"""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.robustness.kills import IDENTICAL, compiled_once, rows_of, run_here, wait_until
from benchmarks.robustness.row import Row
from benchmarks.robustness.runs import differences, flags, start, write_bars
from jaxppo.errors import CheckpointError, CheckpointWarning
from jaxppo.store import checkpoint
from jaxppo.store.checkpoint import CheckpointWriter, restore_run
from jaxppo.store.files import Growing

TOLD = f"warned of; {IDENTICAL}"


def _cut(file: Path, rng: random.Random) -> None:
    os.truncate(file, rng.randrange(file.stat().st_size))


def _flip(file: Path, rng: random.Random) -> None:
    data = bytearray(file.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)


def _grow(file: Path, rng: random.Random) -> None:
    with file.open("ab") as f:
        f.write(rng.randbytes(rng.randint(1, 100)))


DAMAGE: dict[str, Callable[[Path, random.Random], None]] = {
    "cut short at a random byte": _cut,
    "a random bit flipped": _flip,
    "emptied": lambda file, rng: file.write_bytes(b"") and None,
    "deleted": lambda file, rng: file.unlink(),
    "bytes appended": _grow,
}


def _passed_over(run_dir: Path, newest: int, older: int) -> bool:
    """Whether the damaged newest checkpoint is named in a warning and the one before it is restored."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        _, _, info = restore_run(run_dir)
    texts = [str(w.message) for w in told if issubclass(w.category, CheckpointWarning)]
    return info.update == older and len(texts) == 1 and f"{newest}: is damaged: " in texts[0]


def _damaged(folder: Path, whole: Path, per_file: int) -> Iterator[Row]:
    steps = sorted(int(p.name) for p in (whole / "checkpoints").iterdir())
    older, newest = steps[-2:]
    path = whole / "checkpoints" / str(newest)
    files = sorted(p.relative_to(path) for p in path.rglob("*") if p.is_file())
    rng = random.Random(0)
    for kind, do in DAMAGE.items():
        tried = good = 0
        for file in files:
            for _ in range(per_file if "random" in kind else 1):
                if kind != "deleted" and (path / file).stat().st_size == 0:
                    continue
                run_dir = Path(shutil.copytree(whole, folder / "damaged"))
                do(run_dir / "checkpoints" / str(newest) / file, rng)
                tried += 1
                good += _passed_over(run_dir, newest, older)
                shutil.rmtree(run_dir)
        yield Row(f"a file of the newest checkpoint {kind}", tried, good, "named in a warning; the one before is used")


def _half_gone(folder: Path, whole: Path, n: int) -> Iterator[Row]:
    steps = sorted(int(p.name) for p in (whole / "checkpoints").iterdir())
    rng, none, one = random.Random(1), 0, 0
    for _ in range(n):
        run_dir, sound = folder / "half", rng.choice(steps)
        for spared in (None, sound):
            shutil.copytree(whole, run_dir)
            for step in steps:
                files = [p for p in (run_dir / "checkpoints" / str(step)).rglob("*") if p.is_file()]
                for file in rng.sample(files, rng.randint(1, len(files))) if step != spared else ():
                    file.unlink()
            if spared is None:
                none += _refused(run_dir)
            else:
                one += _passed_over_all(run_dir, sound)
            shutil.rmtree(run_dir)
    yield Row("every checkpoint half deleted", n, none, "one clear error")
    yield Row("all checkpoints but one half deleted", n, one, "that one is used")


def _refused(run_dir: Path) -> bool:
    try:
        restore_run(run_dir)
    except CheckpointError as error:
        return str(error).startswith("none of the checkpoints is sound: ") and "\n" not in str(error)
    return False


def _passed_over_all(run_dir: Path, sound: int) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return restore_run(run_dir)[2].update == sound


def _apart_from_kept(whole: Path, run_dir: Path) -> list[str]:
    """What differs; but which checkpoints are kept depends on which could be saved."""
    return [d for d in differences(whole, run_dir) if not d.startswith("the checkpoints")]


@contextmanager
def _full(at: set[int]) -> Iterator[list[int]]:
    """The calls, by number, of what writes rows, events and checkpoints find the disk full; yields those that did."""
    count, hit = [0], []
    append, write = Growing.append, CheckpointWriter._write
    targets = [(checkpoint.orbax(), "save_checkpointables"), (checkpoint, "write_json"), (checkpoint, "seal")]

    def full() -> bool:
        count[0] += 1
        if count[0] in at:
            hit.append(count[0])
        return count[0] in at

    def refuse(*args: Any, **kwargs: Any) -> None:
        number = (errno.ENOSPC, errno.EROFS)[len(hit) % 2]
        raise OSError(number, os.strerror(number))

    def short_append(self: Growing, piece: bytes) -> None:
        if not full():
            return append(self, piece)
        fsync, os.fsync = os.fsync, refuse  # after the bytes went to the file
        try:
            return append(self, piece)
        finally:
            os.fsync = fsync

    def short_write(self: CheckpointWriter, *args: Any) -> None:
        if not full():
            return write(self, *args)
        module, name = targets[count[0] % len(targets)]
        whole = getattr(module, name)
        setattr(module, name, refuse)
        try:
            return write(self, *args)
        finally:
            setattr(module, name, whole)

    Growing.append, CheckpointWriter._write = short_append, short_write  # type: ignore[method-assign]
    try:
        yield hit
    finally:
        Growing.append, CheckpointWriter._write = append, write  # type: ignore[method-assign]


def _disk(folder: Path, args: list[str], whole: Path, n: int) -> Row:
    """Random writes fail; at the end of each run there is room again."""
    rng, tried, good = random.Random(2), 0, 0
    for i in range(n):
        run_dir = folder / f"full-{i}"
        with _full({rng.randint(1, 15) for _ in range(5)}) as hit:
            status, out = run_here(run_dir, args)
        tried += len(hit)
        differ = [out] if status else _apart_from_kept(whole, run_dir)
        good += len(hit) if not differ and "warning: " in out else 0
        if differ:
            print(differ, flush=True)
    return Row(
        "a write of rows, events or a checkpoint finds the disk full or read-only",
        tried,
        good,
        TOLD,
    )


def _resumed(whole: Path, run_dir: Path, args: list[str]) -> list[str]:
    """What differs once the run has gone on in a process of its own, or what that said where it failed."""
    process = start("jaxppo.train", *args, "--resume")
    out, err = process.communicate()
    return [out + err] if process.returncode else _apart_from_kept(whole, run_dir)


def _tmpfs(folder: Path, args: list[str], whole: Path) -> Row | None:
    """A disk of 250 kB that is really full, then has room: needs the right to mount."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=250k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        return None
    try:
        own = ["--run-dir", str(disk / "run"), *args]
        process = start("jaxppo.train", *own)
        out, err = process.communicate()
        told = process.returncode == 2 and "No space left" in out + err and "Traceback" not in err
        warned = len(re.findall(r"^warning: .*No space left", out, re.M))
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        differ = _resumed(whole, disk / "run", own)
        good = told and warned > 0 and not differ
        if not good:
            print(told, warned, differ, out, err, flush=True)
        return Row("a run on a disk that fills up, resumed with room", 1, int(good), TOLD)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _read_only(folder: Path, args: list[str], whole: Path) -> Row | None:
    """The folder of checkpoints becomes read-only in the middle of a run, then is not: needs the right to mount."""
    own = ["--run-dir", str(folder / "read-only"), *args]
    place = folder / "read-only" / "checkpoints"
    process = start("jaxppo.train", *own)
    wait_until(lambda: rows_of(place.parent) > 2)
    if subprocess.run(["mount", "--bind", str(place), str(place)], capture_output=True, check=False).returncode:
        process.communicate()
        return None
    try:
        only = ["mount", "-o", "remount,bind,ro", str(place)]  # refused while a checkpoint is being written
        wait_until(lambda: not subprocess.run(only, capture_output=True, check=False).returncode)
        out, err = process.communicate()
    finally:
        subprocess.run(["umount", str(place)], check=True)
    # Where it is in the middle of a save, TensorStore's threads print thousands of lines of their own.
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    told = process.returncode == 2 and len(errors) == 1 and "done but not saved" in errors[0]
    warned = len(re.findall(r"^warning: .*Read-only file system", out, re.M))
    differ = _resumed(whole, place.parent, own)
    good = told and warned > 0 and not differ
    if not good:
        print(told, warned, differ, out[-2000:], errors, flush=True)
    return Row("a run whose checkpoints become read-only, resumed when they are not", 1, int(good), TOLD)


def rows(quick: bool) -> Iterator[Row]:
    """Damage to every file of a checkpoint, and writes that fail."""
    with tempfile.TemporaryDirectory() as name, compiled_once():
        folder = Path(name)
        args = [*flags(), f"--data={write_bars(folder / 'bars')}"]
        status, out = run_here(folder / "whole", args)
        if status:
            raise RuntimeError(out)
        yield from _damaged(folder, folder / "whole", 1 if quick else 2)
        yield from _half_gone(folder, folder / "whole", 2 if quick else 10)
        yield _disk(folder, args, folder / "whole", 2 if quick else 10)
        long = [*args, "--n-updates=60"]
        run_here(folder / "long", long)
        mounted = (_tmpfs(folder, args, folder / "whole"), _read_only(folder, long, folder / "long"))
        yield from (row for row in mounted if row is not None)
