"""The run directory: what a run leaves behind. Files are written whole and renamed into place, or appended by row."""

from __future__ import annotations

import csv
import json
import math
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from jaxppo.config.presets import DeviceInfo, Resolved
from jaxppo.config.schema import to_dict
from jaxppo.env.actions import ActionTable
from jaxppo.errors import RunDirectoryError
from jaxppo.market.bars import format_interval
from jaxppo.market.dataset import Market

CONFIG, MANIFEST, METRICS = "config.yaml", "manifest.json", "metrics.csv"
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


def write_atomic(path: Path, text: str) -> None:
    """Write a whole file or nothing."""
    part = path.with_name(path.name + ".tmp")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


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


def plain_json(value: Any) -> Any:
    """`value` for strict JSON: nan as null, infinities as text."""
    if isinstance(value, dict):
        return {k: plain_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def write_config(run_dir: Path, resolved: Resolved) -> None:
    write_atomic(run_dir / CONFIG, yaml.safe_dump(to_dict(resolved.config), sort_keys=False))


def iso(seconds: float) -> str:
    """UTC seconds as ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _data_facts(market: Market, source: str) -> dict[str, Any]:
    symbols = [
        {
            "symbol": b.symbol,
            "asset_class": b.asset_class,
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
        "interval": format_interval(market.bars[0].interval),
        "symbols": symbols,
        "cutoffs": [iso(c) for c in market.cutoffs] if market.cutoffs else None,
        "purge_bars": market.purge_bars,
        "warnings": list(market.warnings),
    }


def write_manifest(
    run_dir: Path,
    resolved: Resolved,
    market: Market,
    source: str,
    device: DeviceInfo,
    actions: ActionTable,
    extra: Mapping[str, Any],
) -> None:
    """What the run is made of. `extra` adds or replaces top-level entries, and what an earlier manifest had is kept."""
    path = run_dir / MANIFEST
    earlier = json.loads(path.read_text()) if path.exists() else {"created": datetime.now(UTC).isoformat()}
    versions = {name: metadata.version(name) for name in _LIBRARIES}
    manifest = {
        "jaxppo": metadata.version("jaxppo"),
        "versions": versions,
        "python": platform.python_version(),
        "device": {"kind": device.kind, "platform": device.platform, "count": device.count},
        "data": _data_facts(market, source),
        "features": {
            "names": list(market.feature_names),
            "hash": market.feature_hash,
            "min_bars": market.min_bars,
        },
        "actions": {"name": actions.name, "labels": list(actions.labels)},
        "sources": dict(resolved.sources),
    }
    write_atomic(path, json.dumps({**earlier, **manifest, **extra}, indent=2))


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return f"{value:.9g}"
    return value


class MetricsCsv:
    """metrics.csv: one row a validation, flushed as it is written."""

    def __init__(self, run_dir: Path, columns: Sequence[str]):
        self._path = run_dir / METRICS
        self._columns = list(columns)

    def append(self, row: Mapping[str, Any]) -> None:
        """Append one row; columns that it lacks stay empty. The header is written with the first row."""
        new = not self._path.exists()
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, extrasaction="raise", lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow({k: _cell(v) for k, v in row.items()})

    def keep_until(self, update: int) -> None:
        """Drop rows of later updates: a resumed run writes them again."""
        if not self._path.exists():
            return
        with self._path.open(newline="", encoding="utf-8") as file:
            rows = [r for r in csv.DictReader(file) if int(r["update"]) <= update]
        lines = [",".join(self._columns), *(",".join(r.get(c) or "" for c in self._columns) for r in rows)]
        write_atomic(self._path, "\n".join(lines) + "\n")
