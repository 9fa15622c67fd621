"""The run directory: what a run leaves behind. Files are written whole and renamed into place, or appended by row."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from jaxppo.config.layers import DeviceInfo, Resolved
from jaxppo.config.schema import to_dict
from jaxppo.env.actions import ActionTable
from jaxppo.errors import RunDirectoryError
from jaxppo.market.asset_classes import class_reason
from jaxppo.market.calendar import format_interval
from jaxppo.market.costs import MarketCosts
from jaxppo.market.dataset import Market
from jaxppo.plugins import Plugin, loaded_plugins
from jaxppo.store.files import Growing, write_atomic
from jaxppo.store.json import read_json, write_json
from jaxppo.version import __version__

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CONFIG, MANIFEST, METRICS_CSV = "config.yaml", "manifest.json", "metrics.csv"
POPULATION, SNAPSHOTS = "population.json", "snapshots"  # of a population's folder
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "polars", "TA-Lib")


def default_run_dir(preset: str) -> Path:
    """runs/PRESET-DATE-TIME, in UTC."""
    return Path("runs") / f"{preset}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def claim(run_dir: Path) -> Path:
    """Create an empty run directory; `RunDirectoryError` where something is there already."""
    if run_dir.exists() and not run_dir.is_dir():
        raise RunDirectoryError(f"{run_dir}: is a file; --run-dir must name a folder that does not exist or is empty")
    if run_dir.is_dir() and any(run_dir.iterdir()):
        holds = "a run" if (run_dir / CONFIG).exists() else "files"
        raise RunDirectoryError(
            f"{run_dir}: already holds {holds} and is never overwritten; choose another --run-dir, or --resume a run"
        )
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"{run_dir}: cannot be created ({error.strerror}); choose another --run-dir") from error
    return run_dir


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Keep other processes from training in `run_dir`; the system lets go of it however this process ends.

    Raises:
      RunDirectoryError: another process holds it.
    """
    if fcntl is None:  # Windows
        yield
        return
    folder = os.open(run_dir, os.O_RDONLY)
    try:
        _take(folder)
    except BlockingIOError as error:
        os.close(folder)
        raise RunDirectoryError(f"{run_dir}: another process is training in it; wait for it, or end it") from error
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(folder)


def _take(folder: int) -> None:
    """Lock an open folder. `is_held` of another process has it for microseconds, so one look is not enough."""
    for wait in (0.01, 0.05, 0.2):
        with suppress(BlockingIOError):
            return fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(wait)
    return fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_held(path: Path) -> bool | None:
    """Whether a process holds the lock of a run directory, as `held` does, or a `Lock` file. Nothing is changed.

    None where that cannot be told: there is no such path, or its file system has no locks.
    """
    if fcntl is None:  # Windows
        return None
    try:
        opened = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        # First a shared lock, by which several who look do not see each other; then the trainer's own kind, which a
        # file system may refuse though it gives the other, as NFS does of folders: there the trainer has none.
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(opened)
    return False


def note_stopped(run_dir: Path, status: int) -> None:
    """Keep in the manifest that a run was stopped, with what exit status, until it goes on; for who looks at it."""
    manifest = earlier_manifest(run_dir)
    if manifest:
        with suppress(OSError):
            write_json(run_dir / MANIFEST, {**manifest, "stopped": {"at": iso(time.time()), "status": status}})


def require_new_file(path: Path) -> None:
    """`RunDirectoryError` unless the --out file `path` can be made: it is not there yet, and its folder is."""
    if path.exists():
        raise RunDirectoryError(f"{path}: exists and is never overwritten; choose another --out")
    if not path.parent.is_dir():
        raise RunDirectoryError(f"{path}: there is no folder {path.parent}; create it first")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes `out` when all went well and vanishes otherwise.

    Raises:
      RunDirectoryError: `out` holds something already, or cannot be created.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunDirectoryError(f"{out}: already holds something and is never overwritten; choose another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise RunDirectoryError(f"{out}: cannot be created ({error.strerror}); choose another --out") from error
    try:
        yield part
        part.chmod(0o755)  # mkdtemp makes it private
        part.replace(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_config(run_dir: Path, resolved: Resolved) -> None:
    write_atomic(run_dir / CONFIG, yaml.safe_dump(to_dict(resolved.config), sort_keys=False))


def iso(seconds: float) -> str:
    """UTC seconds as ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _data_facts(market: Market, source: str, warnings: Sequence[str]) -> dict[str, Any]:
    symbols = [
        {
            "symbol": b.symbol,
            "asset_class": b.asset_class,
            "class_reason": class_reason(b.symbol, b.asset_class),
            "files": b.source,
            "bars": len(b.time),
            "start": iso(int(b.time[0])),
            "end": iso(int(b.time[-1])),
            "splits": dict(market.decisions[b.symbol]),
        }
        for b in market.bars
    ]
    return {
        "source": source,
        "hash": market.data_hash,
        **_costs_facts(market.costs),
        "interval": format_interval(market.bars[0].interval),
        "symbols": symbols,
        "cutoffs": [iso(c) for c in market.cutoffs] if market.cutoffs else None,
        "purge_bars": market.purge_bars,
        "warnings": list(warnings),
    }


def _costs_facts(costs: MarketCosts) -> dict[str, Any]:
    """The file of costs by symbol and what every symbol pays with it; nothing where there is no file."""
    if costs.file is None:
        return {}
    symbols = {symbol: dataclasses.asdict(c) for symbol, c in costs.by_symbol.items()}
    return {"costs": {"file": costs.file, "hash": costs.hash, "slippage": costs.slippage, "symbols": symbols}}


def costs_hash(manifest: Mapping[str, Any]) -> str | None:
    """Hash of the costs by symbol that a run was trained at, by its manifest; None where it had no file of them."""
    found = (manifest.get("data") or {}).get("costs")
    return str(found["hash"]) if isinstance(found, dict) and "hash" in found else None


def _processor() -> str:
    """Name of the processor, for whose instructions XLA compiles: jax calls every one of them `cpu`."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment_facts(device: DeviceInfo) -> dict[str, Any]:
    """Software and hardware, of which the last bits of a run are a function."""
    return {
        "jaxppo": __version__,
        "versions": {name: metadata.version(name) for name in _LIBRARIES},
        "python": platform.python_version(),
        "device": {
            "kind": device.kind,
            "platform": device.platform,
            "count": device.count,
            "processor": _processor(),
        },
    }


def changed_environment(manifest: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """What differs between the `environment_facts` of a manifest and those of now: both values by name.

    What either does not tell is not compared: a manifest that was damaged, or an earlier version's.
    """

    def flat(facts: Mapping[str, Any]) -> dict[str, str]:
        named = {k: facts[k] for k in ("jaxppo", "python") if k in facts}
        for group in ("versions", "device"):
            found = facts.get(group)
            named |= {k if group == "versions" else f"device {k}": v for k, v in dict(found or {}).items()}
        return {k: str(v) for k, v in named.items()}

    before, after = flat(manifest), flat(now)
    return {k: (v, after[k]) for k, v in before.items() if k in after and after[k] != v}


class RunInputs(NamedTuple):
    """What a run is made from, as its manifest tells it."""

    resolved: Resolved
    market: Market
    source: str  # of the bars
    warnings: Sequence[str]  # of the market
    device: DeviceInfo


def write_manifest(run_dir: Path, inputs: RunInputs, actions: ActionTable, extra: Mapping[str, Any]) -> None:
    """What the run is made of. `extra` adds or replaces top-level entries, and what an earlier manifest had is kept."""
    market, device = inputs.market, inputs.device
    earlier = earlier_manifest(run_dir) or {"created": datetime.now(UTC).isoformat()}
    earlier.pop("stopped", None)
    manifest = {
        **environment_facts(device),
        "data": _data_facts(market, inputs.source, inputs.warnings),
        "features": {
            "names": list(market.feature_names),
            "hash": market.feature_hash,
            "min_bars": market.min_bars,
        },
        "actions": {"name": actions.name, "labels": list(actions.labels)},
        "sources": dict(inputs.resolved.sources),
        "plugins": [p._asdict() for p in loaded_plugins()],
    }
    write_json(run_dir / MANIFEST, {**earlier, **manifest, **extra})


def earlier_manifest(run_dir: Path) -> dict[str, Any]:
    """The manifest of a run; empty where there is none or it cannot be read."""
    try:
        found = read_json(run_dir / MANIFEST)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def trained_interval(run_dir: Path, asked: str | None) -> str | None:
    """The interval of the bars that a run was trained on, such as "1h"; `asked` where its manifest says none."""
    data = earlier_manifest(run_dir).get("data")
    found = data.get("interval") if isinstance(data, dict) else None
    return found if isinstance(found, str) else asked


class Tried(NamedTuple):
    """What was tried until there was the policy of a folder; 0 for one that was trained alone."""

    trials: int  # configurations
    looks: int  # policies that were validated, of all of them


def sweep_tried(folder: Path) -> Tried:
    """What the manifest in `folder` says of the sweep that it comes from."""
    return _tried(earlier_manifest(folder).get("sweep"))


def tried(folder: Path) -> Tried:
    """What the manifest in `folder` says of the sweep or the population that it comes from."""
    manifest = earlier_manifest(folder)
    return _tried(manifest.get("sweep", manifest.get("population")))


def _tried(found: Any) -> Tried:
    try:
        return Tried(int(found["trials"]), int(found["looks"])) if isinstance(found, dict) else Tried(0, 0)
    except (KeyError, TypeError, ValueError):
        return Tried(0, 0)


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return f"{value:.9g}"
    return value


def manifest_plugins(run_dir: Path) -> list[Plugin]:
    """The plugins that a run was trained with, by its manifest; none where it names none."""
    named = earlier_manifest(run_dir).get("plugins")
    rows = [p for p in named if isinstance(p, dict)] if isinstance(named, list) else []
    return [Plugin(str(p.get("name")), str(p.get("sha256"))) for p in rows]


class MetricsCsv:
    """metrics.csv: one row a validation, flushed as it is written."""

    def __init__(self, run_dir: Path, columns: Sequence[str]):
        self._path = run_dir / METRICS_CSV
        self._columns = list(columns)
        self._file = Growing(self._path)

    def append(self, row: Mapping[str, Any]) -> None:
        """Append one row; columns that it lacks stay empty. The header is written with the first row.

        Raises:
          OSError: it could not be written; it is written with the next row, or by `retry`.
        """
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, extrasaction="raise", lineterminator="\n")
        if self._file.size == 0:
            writer.writeheader()
        writer.writerow({k: _cell(v) for k, v in row.items()})
        self._file.append(text.getvalue().encode())

    def retry(self) -> None:
        """Write what could not be written before; `OSError` as above."""
        self._file.append(b"")

    def keep_until(self, update: int) -> int | None:
        """Drop rows of later updates, which a resumed run writes again, and a last row that was cut off.

        Returns:
          The update of the last row that is left.
        """
        if not self._path.exists():
            return None
        text = self._path.read_bytes().decode("utf-8", "replace")
        whole = text[: text.rfind("\n") + 1]  # what is left of a row that was cut off may look whole
        rows: list[dict[str, Any]] = []
        with suppress(csv.Error):  # what a crash left at the end need not be text
            for row in csv.DictReader(io.StringIO(whole)):
                number = row.get("update") or ""
                if not number.isdecimal() or int(number) > update:
                    break
                rows.append(row)
        lines = [",".join(self._columns), *(",".join(r.get(c) or "" for c in self._columns) for r in rows)]
        write_atomic(self._path, "\n".join(lines) + "\n")
        self._file = Growing(self._path)
        return int(rows[-1]["update"]) if rows else None
